//! The only process that opens the validator's key: it signs what its own mark admits. The replicated log decides before
//! it who signs what; this is the last check on this host, and asks nobody.
//!
//! One thread, no async runtime, no network: standard input is one end of a socket pair of the coordinator that started
//! it, with which it ends. Called by `bin/baton-signer.rs`; `signer_client` is the coordinator's end.

pub mod frames;
pub mod import;
mod key;
mod mark;
mod peer;
mod rules;
mod say;

use std::io::Write;
use std::path::Path;

pub use crate::base::signing::{KeyKind, PublicKey};
pub use key::SigningKey;
pub use mark::{BeforeSync, Mark, MarkError, MarkFile};
pub use rules::{Refusal, Signer, has_to_move};
pub use say::{say, speak};

use crate::base::closed_memory::{close_memory, lock_memory};
use crate::base::realtime;
use frames::proto::{Answer, Request, answer};

/// Serves the coordinator at the other end of standard input until it closes that end.
///
/// # Errors
/// Why it serves nobody, or no longer.
pub fn run(key: &Path, mark: &Path) -> Result<(), String> {
    let mut coordinator = peer::coordinator()?;
    // Its thread may have a real-time priority that is handed down; a signature is not worth one.
    if let Err(error) = realtime::give_up() {
        say(&format!("the real-time priority stays: {error}; going on"));
    }
    close_memory().map_err(|error| format!("this process's memory cannot be closed to others: {error}"))?;
    if let Err(error) = lock_memory() {
        say(&format!("memory is not locked: {error}; going on, a loaded host may page the key out"));
    }
    let mut stream = coordinator.stream;
    let mut tell = |answer: &Answer| {
        let frame = frames::encode(answer).map_err(|error| error.to_string())?;
        stream.write_all(&frame).map_err(|error| format!("the coordinator cannot be answered: {error}"))
    };
    let mut signer = match Signer::open(key, mark) {
        Ok(signer) => signer,
        Err(refusal) => {
            tell(&Answer { id: 0, answer: Some(answer::Answer::Refused(refusal.clone().into())) })?;
            return Err(refusal.text);
        }
    };
    tell(&Answer { id: 0, answer: Some(answer::Answer::PublicKey(signer.public_key().into())) })?;
    let (pid, at) = (std::process::id(), signer.place().map_or("no mark".into(), |place| format!("a mark at {place}")));
    say(&format!("pid {pid} signs for the coordinator, pid {}, with {at} in {}", coordinator.pid, mark.display()));
    loop {
        match frames::read::<Request>(&mut coordinator.requests) {
            Ok(Some(request)) => tell(&signer.answer(request))?,
            Ok(None) => return Ok(()),
            Err(error) => return Err(format!("the coordinator is not understood: {error}")),
        }
    }
}
