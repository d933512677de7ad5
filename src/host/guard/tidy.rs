//! Puts the links to standby on a thread of its own: a disk that hangs holds up neither a kill nor a word of the guard.
//! It decides nothing and says nothing; `state.rs` asks, and hears what came of it.
//!
//! Invariant: as long as something asked for is not done, the guard starts no node and is armed for no other epoch, so
//! that a late change never undoes the links of a later tenure.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use crate::host::key_links::KeyLinks;

/// What it needs is little, and all of it may be locked into memory.
const STACK_BYTES: usize = 256 << 10;

pub(super) struct Tidier {
    orders: Sender<Order>,
    outcomes: Receiver<Tidied>,
    /// Readable once there is an outcome.
    wake: Arc<OwnedFd>,
    asked: u64,
    done: u64,
}

struct Order {
    number: u64,
    /// Older sets first, so that the newest has the last word on a link that both hold.
    sets: Vec<Arc<KeyLinks>>,
}

/// Everything that was asked for up to this number is done, or has failed.
pub(super) struct Tidied {
    pub number: u64,
    /// How many sets of links were put to standby.
    pub sets: usize,
    pub result: Result<(), String>,
}

impl Tidier {
    pub(super) fn start() -> io::Result<Tidier> {
        let (orders, asked) = channel::<Order>();
        let (tell, outcomes) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let done = wake.clone();
        thread::Builder::new().name("links".into()).stack_size(STACK_BYTES).spawn(move || {
            while let Ok(first) = asked.recv() {
                // Whoever has asked meanwhile is served by the same change: the newest knows all the links of the
                // others.
                let Order { number, sets } = asked.try_iter().last().unwrap_or(first);
                let tidied = Tidied { number, sets: sets.len(), result: to_standby(&sets) };
                if tell.send(tidied).is_err() {
                    return;
                }
                let _ = rustix::io::write(&*done, &1_u64.to_ne_bytes());
            }
        })?;
        Ok(Tidier { orders, outcomes, wake, asked: 0, done: 0 })
    }

    /// Has `sets` put to standby, after what was asked for before. The number by which [`Tidied`] tells of it.
    pub(super) fn ask(&mut self, sets: &[Arc<KeyLinks>]) -> u64 {
        self.asked += 1;
        // The thread ends with this value only.
        let _ = self.orders.send(Order { number: self.asked, sets: sets.to_vec() });
        self.asked
    }

    /// Whether something asked for is not done yet.
    pub(super) fn is_at_work(&self) -> bool {
        self.done < self.asked
    }

    /// What has been done since this was asked last, in order.
    pub(super) fn take(&mut self) -> Vec<Tidied> {
        let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        let tidied: Vec<Tidied> = self.outcomes.try_iter().collect();
        self.done = tidied.last().map_or(self.done, |last| last.number);
        tidied
    }
}

impl AsFd for Tidier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn to_standby(sets: &[Arc<KeyLinks>]) -> Result<(), String> {
    let mut first_error = Ok(());
    for links in sets {
        first_error = first_error.and(links.to_standby().map_err(|error| error.to_string()));
    }
    first_error
}
