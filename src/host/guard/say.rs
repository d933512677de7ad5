//! The guard's own log: short lines on standard error, which may be a pipe that nobody reads or a file on a
//! disk that hangs. While the guard has a validator to fence it therefore holds its lines back: in that time
//! it makes no system call that could wait for anything but the deadline.

use std::cell::RefCell;
use std::collections::VecDeque;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::base::guard_frame::LinesAs;
use crate::base::ids::{Epoch, NodeId};
use crate::base::time::WallTime;

/// Lines held back at most, the newest; older ones are counted and dropped.
const HELD_MAX: usize = 64;

#[derive(Default)]
struct Voice {
    lines_as: LinesAs,
    /// Whom we guard, once that is known.
    member: Option<NodeId>,
    holding: bool,
    held: VecDeque<Line>,
    dropped: usize,
}

struct Line {
    /// When it was said, which may be long before it is written.
    at: WallTime,
    /// The tenure that it is about.
    epoch: Option<Epoch>,
    text: String,
}

thread_local! {
    static VOICE: RefCell<Voice> = RefCell::default();
}

/// How lines look from now on.
pub fn speak(lines_as: LinesAs) {
    VOICE.with_borrow_mut(|voice| voice.lines_as = lines_as);
}

/// Whose guard the lines are from now on.
pub(super) fn speak_for(member: &NodeId) {
    VOICE.with_borrow_mut(|voice| voice.member = Some(member.clone()));
}

/// Says one line, now or when nothing is to be fenced any more.
pub fn say(line: &str) {
    say_of(None, line);
}

/// The same of a line about the tenure of `epoch`, where it is about one.
pub(super) fn say_of(epoch: Option<Epoch>, line: &str) {
    let line = Line { at: WallTime::now(), epoch, text: line.into() };
    VOICE.with_borrow_mut(|voice| {
        if !voice.holding {
            return voice.write(&line);
        }
        if voice.held.len() == HELD_MAX {
            voice.held.pop_front();
            voice.dropped += 1;
        }
        voice.held.push_back(line);
    });
}

/// Holds lines back from now on, or says those that were held back.
pub(super) fn hold(on: bool) {
    VOICE.with_borrow_mut(|voice| {
        voice.holding = on;
        if !on && !voice.held.is_empty() {
            match std::mem::take(&mut voice.dropped) {
                0 => (),
                dropped => {
                    let text = format!("{dropped} lines were dropped before these");
                    voice.write(&Line { at: WallTime::now(), epoch: None, text });
                }
            }
            std::mem::take(&mut voice.held).iter().for_each(|line| voice.write(line));
        }
    });
}

impl Voice {
    /// Dropped rather than waited for when a pipe is full.
    fn write(&self, line: &Line) {
        let stderr = rustix::stdio::stderr();
        let mut fds = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
        if poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            let _ = rustix::io::write(stderr, self.shown(line).as_bytes());
        }
    }

    fn shown(&self, Line { at, epoch, text }: &Line) -> String {
        match (self.lines_as, epoch) {
            (LinesAs::Text, None) => format!("baton-guard: {text}\n"),
            (LinesAs::Text, Some(epoch)) => format!("baton-guard: {text} epoch={epoch}\n"),
            (LinesAs::Json, _) => {
                let mut object = json!({
                    "timestamp": at.to_string(), "level": "INFO", "message": text, "program": "baton-guard",
                });
                if let Some(member) = &self.member {
                    object["member"] = member.to_string().into();
                }
                if let Some(epoch) = epoch {
                    object["epoch"] = epoch.0.into();
                }
                format!("{object}\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_tenure_has_its_epoch_and_is_json_where_that_is_asked_for() {
        let line = Line { at: WallTime::from_nanos(0), epoch: Some(Epoch(4)), text: "a \"b\"".into() };
        let mut voice = Voice::default();
        assert_eq!(voice.shown(&line), "baton-guard: a \"b\" epoch=4\n");
        (voice.lines_as, voice.member) = (LinesAs::Json, Some("host-a".into()));
        let shown: serde_json::Value = serde_json::from_str(&voice.shown(&line)).expect("JSON");
        let expected = json!({
            "timestamp": "1970-01-01T00:00:00.000Z", "level": "INFO", "member": "host-a", "message": "a \"b\"",
            "program": "baton-guard", "epoch": 4,
        });
        assert_eq!(shown, expected);
    }
}
