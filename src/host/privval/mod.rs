//! The chain node's connection to its remote signer, for a node that has no key: it listens at its
//! `priv_validator_laddr`, and baton dials it and answers. What is to be signed goes on as an [`Ask`]; whether it may be
//! signed, and the signature, are somebody else's. No key comes here. Called by the coordinator.
//!
//! The versions of the protocol need not be told apart, see proto/cometbft/privval.proto. `messages` and `frames` are
//! pure; `connection` serves a channel of any kind; `plain` and `socket` are what is particular to `unix://`, `secret`
//! to `tcp://`.
//!
//! One connection at a time, without a spare one that waits behind it: with either, CometBFT 0.38.19 asked again 0.1 to
//! 0.3 s after the first was lost, since its queue takes the next one at once.

mod connection;
mod frames;
mod key;
mod messages;
mod plain;
mod secret;
mod socket;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::base::privval_address::PrivvalAddress;
use crate::base::signing::{PublicKey, SignTime};
use crate::host::sign_bytes::SignBytes;
use crate::host::sign_bytes::proto as canonical;

use connection::Lost;
pub use frames::{BadMessage, FrameBuffer, MESSAGE_MAX, encode};
pub use messages::{NODE_READS_MAX, Next, Wanted, read};
use plain::Plain;
use socket::NotDialled;
pub use socket::{StaleSocketError, remove_stale_socket};

#[allow(clippy::all)]
pub mod proto {
    tonic::include_proto!("cometbft.privval");
}

/// Between attempts to dial. A node that starts waits about 3 s for its signer.
const REDIAL: Duration = Duration::from_millis(100);
/// Over a network, where each costs a handshake.
const REDIAL_FAR: Duration = Duration::from_millis(500);
/// A connection that lived for so long is dialled again at once.
const SETTLED: Duration = Duration::from_secs(1);
/// For an answer. Then the node drops the connection and asks again on the next one.
const NODE_WAITS: Duration = Duration::from_secs(5);
/// From a request to the refusal of an ask that nobody has answered.
pub const ANSWER_MAX: Duration = Duration::from_secs(4);

const _: () = assert!(ANSWER_MAX.as_secs() < NODE_WAITS.as_secs(), "the node learns why it gets no signature");

#[derive(Clone, Debug)]
pub struct PrivvalSettings {
    pub address: PrivvalAddress,
    /// By which log lines and asks name the chain node.
    pub node: String,
}

/// A vote or proposal that the chain node wants signed.
#[derive(Debug)]
pub struct Ask {
    pub node: String,
    pub bytes: SignBytes,
    /// The bytes of the vote extension, when it is to be signed too.
    pub extension: Option<Vec<u8>>,
    pub asked_at: Instant,
    /// Closed once nobody waits any more: the node is gone, or [`ANSWER_MAX`] is over. Dropped, it refuses.
    pub answer: oneshot::Sender<Result<Signed, Refusal>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The time that was signed, which may be another than the one that was asked for.
    pub time: SignTime,
    pub signature: Vec<u8>,
    /// The signature of the extension, for an ask with one.
    pub extension: Option<Vec<u8>>,
}

/// Why there is no signature. The node reads it and does not ask again: its vote is not cast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// The connection to the chain node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    Down {
        why: String,
    },
    /// Connected, and the node has not asked for anything yet. It serves one signer at a time: for more than a few
    /// seconds this means that it is busy with another one.
    Waiting {
        since: Instant,
    },
    /// The node has asked on this connection.
    Up {
        since: Instant,
    },
}

/// Dials one chain node for as long as it is not dropped.
#[derive(Debug)]
pub struct Privval {
    link: watch::Receiver<Link>,
    task: AbortHandle,
}

impl Privval {
    /// Begins to dial in a task of this runtime. `public_key` is what the node is told; `asks` gets the requests of the
    /// node one after the other. When nobody receives them any more they are refused.
    pub fn dial(settings: PrivvalSettings, public_key: PublicKey, asks: mpsc::Sender<Ask>) -> Privval {
        let (state, link) = watch::channel(Link::Down { why: "not dialled yet".into() });
        let dialler = Dialler { settings, public_key, asks, state, said: None };
        Privval { link, task: tokio::spawn(dialler.run()).abort_handle() }
    }

    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }
}

impl Drop for Privval {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Dialler {
    settings: PrivvalSettings,
    public_key: PublicKey,
    asks: mpsc::Sender<Ask>,
    state: watch::Sender<Link>,
    /// The last line about a connection.
    said: Option<(String, Instant)>,
}

impl Dialler {
    async fn run(mut self) {
        loop {
            let since = Instant::now();
            let why = match &self.settings.address {
                PrivvalAddress::Unix(path) => match socket::dial(path).await {
                    Ok(stream) => self.serve(Plain::new(stream)).await,
                    Err(NotDialled::Absent(why)) => why,
                    Err(NotDialled::Problem(why)) => self.not_dialled(why),
                },
                PrivvalAddress::Tcp(endpoint) => match secret::dial(endpoint).await {
                    Ok(channel) => self.serve(channel).await,
                    Err(why) => self.not_dialled(why),
                },
            };
            self.state.send_if_modified(|link| {
                let down = Link::Down { why };
                let is_other = *link != down;
                *link = down;
                is_other
            });
            if since.elapsed() < SETTLED {
                sleep(match self.settings.address {
                    PrivvalAddress::Unix(_) => REDIAL,
                    PrivvalAddress::Tcp(_) => REDIAL_FAR,
                })
                .await;
            }
        }
    }

    /// Says it once, however often it happens.
    fn not_dialled(&mut self, why: String) -> String {
        if self.said.as_ref().is_none_or(|(said, _)| *said != why) {
            self.warn(&why);
        }
        why
    }

    /// Returns why the connection is over.
    async fn serve(&mut self, channel: impl connection::Channel) -> String {
        self.state.send_replace(Link::Waiting { since: Instant::now() });
        let desk = connection::Desk {
            node: &self.settings.node,
            public_key: &self.public_key,
            asks: &self.asks,
            state: &self.state,
        };
        let lost = connection::serve(channel, &desk).await;
        let was_up = matches!(*self.state.borrow(), Link::Up { .. });
        let why = lost.to_string();
        // A node that closes each connection at once would fill the log.
        let is_news = self.said.as_ref().is_none_or(|(said, at)| *said != why || at.elapsed() > SETTLED);
        match lost {
            Lost::Closed if was_up && is_news => {
                tracing::info!(node = self.settings.node, "{why}");
                self.said = Some((why.clone(), Instant::now()));
            }
            Lost::Broken(_) if is_news => self.warn(&why),
            Lost::Closed | Lost::Broken(_) => {}
        }
        why
    }

    fn warn(&mut self, why: &str) {
        tracing::warn!(node = self.settings.node, "no signatures for the chain node: {why}");
        self.said = Some((why.to_owned(), Instant::now()));
    }
}
