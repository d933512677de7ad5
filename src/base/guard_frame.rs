//! What coordinator and guard say to each other, and the proof that the guard is armed.
//!
//! Frames are JSON with a four-byte big-endian length before them, on a unix stream socket in the
//! member's `run_dir`. Either side may be restarted: the guard answers every `Hello` with all it knows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::ids::{Epoch, NodeId};
use crate::base::time::BootTime;

/// Version of this protocol; a guard of another version is refused, not guessed at.
pub const GUARD_PROTOCOL: u32 = 2;

/// How a guard's refusal of another version begins; the words of every version.
pub const OTHER_PROTOCOL: &str = "protocol ";

/// Longest frame in bytes, without the four of its length.
pub const FRAME_MAX: usize = 1 << 20;

/// Environment variable that the guard gives the chain node, and so every process that the node starts:
/// the path of the guard's socket. What carries it after its guard is dead is a stray.
pub const GUARD_MARKER: &str = "BATON_GUARD";

/// How a guard's own lines look, which it says on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinesAs {
    #[default]
    Text,
    /// An object each, with the fields of docs/logs.md.
    Json,
}

/// The argument of `baton-guard` for [`LinesAs::Json`].
pub const JSON_LINES: &str = "--json-lines";

/// From the coordinator to the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuard {
    /// First frame of a connection. A newer connection replaces an older one once its `Hello` is accepted.
    /// Refused, and the connection closed, when the protocol is unknown, a link makes no sense, or the
    /// guard runs a chain node or is armed for another member. A guard that has not fenced by half of
    /// `kill_max` after a deadline is killed by the kernel, and its chain node with it.
    Hello {
        protocol: u32,
        member: NodeId,
        links: Vec<LinkSpec>,
        kill_max: Duration,
        /// Refused when it cannot be had, unless the guard is armed: then what it has stays. A coordinator of an earlier
        /// version asks for none.
        #[serde(default)]
        watchdog: Option<WatchdogSpec>,
    },
    /// Starts the chain node. With `validator_epoch`, as a validator: refused unless the guard is armed under that
    /// epoch. Without it, as a standby: the guard puts the links into standby first, which may take as long as their
    /// disk does. `Stop` takes it back until then.
    Start { node: NodeSpec, validator_epoch: Option<Epoch> },
    /// Arms the guard or moves its deadline. Refused when the deadline has passed, when the epoch was fenced, when it
    /// is lower than one seen before, or for another epoch while links are still put to standby. A renewal (the same
    /// epoch again) never moves a deadline back.
    Arm { epoch: Epoch, deadline: BootTime },
    /// The chain node of this epoch was proven stopped or keyless: there is nothing left to fence.
    Disarm { epoch: Epoch },
    /// Sends a signal to the chain node. With `validator_epoch`, refused unless armed under it.
    Signal { signal: i32, validator_epoch: Option<Epoch> },
    /// SIGTERM to the chain node, SIGKILL to all of it after `timeout`; a zero timeout kills at once. Asked
    /// again, the earlier end holds. `Exited` is the answer, or the refusal of a `Start` that it takes back.
    Stop { timeout: Duration },
    /// The guard puts the links into standby and ends; refused while the chain node runs. The end of the
    /// connection is the answer.
    Quit,
    /// Answered by `Pong`, by a guard that says in its `Welcome` that it does: whether it runs at all.
    Ping,
}

impl ToGuard {
    pub const START: &str = "Start";

    /// The name under which the guard speaks of this frame, as in `Refused`.
    pub fn name(&self) -> &'static str {
        match self {
            ToGuard::Hello { .. } => "Hello",
            ToGuard::Start { .. } => ToGuard::START,
            ToGuard::Arm { .. } => "Arm",
            ToGuard::Disarm { .. } => "Disarm",
            ToGuard::Signal { .. } => "Signal",
            ToGuard::Stop { .. } => "Stop",
            ToGuard::Quit => "Quit",
            ToGuard::Ping => "Ping",
        }
    }
}

/// A device of the host's that resets it unless it is fed in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogSpec {
    pub device: PathBuf,
    /// A longer time-out does not fit the lease.
    pub timeout_max: Duration,
}

/// From the guard to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuard {
    /// Answer to `Hello`.
    Welcome {
        protocol: u32,
        guard_pid: u32,
        node: Option<NodeProcess>,
        armed: Option<Armed>,
        /// It answers `Ping`. A guard of an earlier version does not say, and takes none.
        #[serde(default)]
        answers_pings: bool,
        /// The time-out of the watchdog that it feeds while it is armed. A guard of an earlier version knows none.
        #[serde(default)]
        watchdog: Option<Duration>,
    },
    Pong,
    Started {
        node: NodeProcess,
    },
    /// Answer to every accepted `Arm`.
    Armed(Armed),
    Disarmed {
        epoch: Epoch,
    },
    Signalled {
        signal: i32,
    },
    /// The chain node and every descendant of it are gone.
    Exited {
        pid: u32,
        status: ExitStatus,
        cause: ExitCause,
    },
    /// The deadline passed: the chain node is dead, and the links are being put to standby. Until that is done the
    /// guard starts no node and is armed for no other epoch. A guard of an earlier version tells it once that is done,
    /// and in `links_error` why it was not. `Exited` with `ExitCause::Fenced` comes first when a node was running.
    Fenced {
        epoch: Epoch,
        fired_at: BootTime,
        done_at: BootTime,
        links_error: Option<String>,
    },
    /// The guard did not do what was asked; nothing has changed.
    Refused {
        request: String,
        reason: String,
        /// The answer to an `Arm`: the higher epoch under which the guard was armed before. A guard of an earlier
        /// version leaves it out.
        #[serde(default)]
        superseded_by: Option<Epoch>,
    },
}

impl FromGuard {
    /// Whether the next coordinator is to hear it when there was none to hear it.
    pub fn is_kept_unheard(&self) -> bool {
        match self {
            FromGuard::Exited { .. } | FromGuard::Fenced { .. } => true,
            FromGuard::Welcome { .. }
            | FromGuard::Started { .. }
            | FromGuard::Armed(_)
            | FromGuard::Disarmed { .. }
            | FromGuard::Signalled { .. }
            | FromGuard::Pong
            | FromGuard::Refused { .. } => false,
        }
    }
}

/// The guard's word that it will kill the chain node at `deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Armed {
    epoch: Epoch,
    deadline: BootTime,
}

impl Armed {
    /// Only the guard says this of itself, and tests.
    pub fn by_guard(epoch: Epoch, deadline: BootTime) -> Self {
        Armed { epoch, deadline }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn deadline(&self) -> BootTime {
        self.deadline
    }
}

/// Proof that a guard acknowledged an `Arm` of this epoch. Whatever makes a chain node a validator
/// takes one; it is made from the guard's own frame and nothing else.
#[derive(Debug, PartialEq, Eq)]
pub struct ArmedGuard {
    armed: Armed,
}

impl ArmedGuard {
    /// The proof, when `frame` is the guard's acknowledgement and its deadline still lies ahead.
    pub fn from_frame(frame: &FromGuard, now: BootTime) -> Option<ArmedGuard> {
        match frame {
            FromGuard::Armed(armed) if now < armed.deadline => Some(ArmedGuard { armed: *armed }),
            FromGuard::Armed(_)
            | FromGuard::Welcome { .. }
            | FromGuard::Started { .. }
            | FromGuard::Disarmed { .. }
            | FromGuard::Signalled { .. }
            | FromGuard::Exited { .. }
            | FromGuard::Fenced { .. }
            | FromGuard::Pong
            | FromGuard::Refused { .. } => None,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.armed.epoch
    }

    pub fn deadline(&self) -> BootTime {
        self.armed.deadline
    }

    /// Whether the deadline acknowledged here still lies ahead.
    pub fn is_live(&self, now: BootTime) -> bool {
        now < self.armed.deadline
    }
}

/// The supervised process, as the guard sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProcess {
    pub pid: u32,
    pub started_at: BootTime,
    /// The epoch it was started or signalled under as a validator; `None` for a standby.
    pub validator_epoch: Option<Epoch>,
    /// A guard of an earlier version does not say, and has the weaker one.
    #[serde(default)]
    pub containment: Containment,
    /// It was told to end, and has not ended yet. A guard of an earlier version does not say.
    #[serde(default)]
    pub stopping: bool,
}

/// What the kernel ends when the guard dies and nobody else is there to do it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Containment {
    /// The process that the guard started, and nothing that it started in turn.
    #[default]
    DirectChild,
    /// Every process that the chain node ever started: they are in a PID namespace of their own.
    PidNamespace,
}

impl Containment {
    /// The word for it in gossip and in `baton status`.
    pub fn word(self) -> &'static str {
        match self {
            Containment::DirectChild => "direct-child",
            Containment::PidNamespace => "pid-namespace",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

/// Why the chain node is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// It ended without being asked.
    ByItself,
    /// After `Stop`; `killed` when it had ignored SIGTERM.
    Stopped { killed: bool },
    /// The deadline passed.
    Fenced,
}

/// How to start the chain node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub argv: Vec<String>,
    /// Added to the guard's own environment.
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// Standard output and error are appended here; `None` inherits the guard's.
    pub log: Option<PathBuf>,
}

/// One link of the chain node's home and what it points to in each role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Absolute path of the link itself.
    pub link: PathBuf,
    pub validating: PathBuf,
    /// `None`: in standby the link is absent.
    pub standby: Option<PathBuf>,
}

/// What the links make of the chain node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// No link points to its validating target: the node that reads them cannot sign. Also true of an
    /// empty set.
    Standby,
    /// Every link points to its validating target, and all of those exist.
    Validating,
    /// Anything else: a mix, a dangling link, a foreign target, a file in a link's place.
    Broken,
}

impl LinkState {
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Standby => "standby",
            LinkState::Validating => "validating",
            LinkState::Broken => "broken",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes is longer than the {FRAME_MAX} allowed")]
    TooLong { len: usize },
    /// serde repeats what it has read, and that may have any control character in it.
    #[error("a frame is not understood: {}", .0.to_string().replace(char::is_control, " "))]
    Garbled(serde_json::Error),
    #[error("a frame cannot be written: {0}; every path in it must be UTF-8")]
    Unwritable(serde_json::Error),
}

/// One frame with its length before it.
///
/// # Errors
/// When the frame would be longer than `FRAME_MAX` or holds a path that is not UTF-8.
pub fn encode<T: Serialize>(frame: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame).map_err(FrameError::Unwritable)?;
    let len = bytes.len() - 4;
    if len > FRAME_MAX {
        return Err(FrameError::TooLong { len });
    }
    bytes[..4].copy_from_slice(&(len as u32).to_be_bytes());
    Ok(bytes)
}

/// Received bytes, cut into frames. After an error the stream has no more meaning: close it.
#[derive(Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
}

impl FrameBuffer {
    pub fn push(&mut self, received: &[u8]) {
        self.bytes.extend_from_slice(received);
    }

    /// Takes the next whole frame; `None` until all of it has come. A length over `FRAME_MAX` is an error
    /// as soon as it is read, so that at most one frame and one push are ever held.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*length) as usize;
        if len > FRAME_MAX {
            return Err(FrameError::TooLong { len });
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let frame = serde_json::from_slice(body).map_err(FrameError::Garbled)?;
        self.bytes.drain(..4 + len);
        if self.bytes.is_empty() {
            // A large frame leaves no large buffer behind.
            self.bytes.shrink_to(4096);
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_arrive_byte_by_byte_come_out_whole_and_in_order() {
        let sent = [
            ToGuard::Arm { epoch: Epoch(3), deadline: BootTime::from_nanos(u64::MAX) },
            ToGuard::Stop { timeout: Duration::from_millis(1500) },
        ];
        let mut buffer = FrameBuffer::default();
        let mut received = Vec::new();
        for byte in sent.iter().flat_map(|frame| encode(frame).unwrap()) {
            buffer.push(&[byte]);
            received.extend(buffer.take::<ToGuard>().unwrap());
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_its_bytes_arrive() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&(FRAME_MAX as u32 + 1).to_be_bytes());
        assert!(matches!(buffer.take::<ToGuard>(), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_proof_is_made_only_from_a_live_acknowledgement() {
        let at = BootTime::from_nanos;
        let frame = FromGuard::Armed(Armed::by_guard(Epoch(2), at(100)));
        assert_eq!(ArmedGuard::from_frame(&frame, at(99)).map(|proof| proof.epoch()), Some(Epoch(2)));
        assert_eq!(ArmedGuard::from_frame(&frame, at(100)), None);
        assert_eq!(ArmedGuard::from_frame(&FromGuard::Disarmed { epoch: Epoch(2) }, at(1)), None);
    }
}
