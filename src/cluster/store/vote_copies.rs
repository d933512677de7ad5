//! Brings each vote into the vote file, behind the answer that the vote was waited for with. Owned by the store's
//! writer.
//!
//! A vote is durable once sled's data is synced. The file is the second witness, for which nobody waits: it takes two
//! more syncs, and on a slow disk a candidate had hung up by then. Only the newest vote that waits is written.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;

use super::Health;
use super::vote_file::VoteFile;
use crate::cluster::wire::Vote;

pub(super) struct VoteCopies {
    queue: Option<Sender<Vote>>,
    thread: Option<JoinHandle<()>>,
}

impl VoteCopies {
    /// `file` has the vote `known`.
    pub(super) fn start(file: VoteFile, known: Option<Vote>, health: watch::Sender<Health>) -> io::Result<VoteCopies> {
        let (queue, votes) = channel();
        let thread =
            thread::Builder::new().name("vote-copies".into()).spawn(move || run(&file, known, &votes, &health))?;
        Ok(VoteCopies { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues `vote`, which must be durable in the database: the file is never ahead of that.
    pub(super) fn copy(&self, vote: &Vote) {
        // A thread that failed has said so by the store's health.
        let _ = self.queue.as_ref().map(|queue| queue.send(vote.clone()));
    }
}

impl Drop for VoteCopies {
    /// Writes what still waits.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(file: &VoteFile, mut known: Option<Vote>, votes: &Receiver<Vote>, health: &watch::Sender<Health>) {
    while let Ok(first) = votes.recv() {
        let newest = votes.try_iter().last().unwrap_or(first);
        // That a vote was won tells nothing new: the term and its leader are there.
        if known.as_ref().is_some_and(|known| known.leader_id == newest.leader_id) {
            continue;
        }
        if let Err(error) = file.write(Some(&newest)) {
            let reason = format!("the second copy of the vote {newest} could not be written: {error}");
            tracing::error!(reason, "the store failed; this member must stop");
            health.send_replace(Health::Failed(reason.as_str().into()));
            return;
        }
        known = Some(newest);
    }
}
