//! Snapshots in the place of entries: a leader that has forgotten the beginning of its log sends the state instead, and
//! whoever gets it may need long to install it, while appends, of a later leader too, are accepted. The log of the
//! simulation keeps all entries; those up to `purged` are in the state alone.

use baton::core::Event;

use crate::coordinator::{Request, Stage};
use crate::raft::{Append, Appended, Id};
use crate::tally::Kind;
use crate::world::{MS, World};

/// A leader asks again after so long.
const SEND_AGAIN: u64 = 500 * MS;

#[derive(Debug, Default)]
pub struct Snapshots {
    /// So many applied entries make one, and the log forgets them. `None`: never.
    pub every: Option<usize>,
    /// Milliseconds that an installation takes. `None`: mostly few, at times up to 2 s.
    pub takes: Option<(u64, u64)>,
}

impl World {
    /// Whether `append` begins with what `host` has no longer in its log.
    pub fn is_purged(&self, host: Id, append: &Append) -> bool {
        append.prev.is_some_and(|(before, _)| before < self.hosts[host].purged)
    }

    /// What `host` has applied, unless it has sent that a moment ago.
    pub fn snapshot_for(&mut self, host: Id, to: Id) -> Option<Append> {
        let coordinator = self.hosts[host].coordinator.as_mut()?;
        if coordinator.snapshots.get(&to).is_some_and(|sent_at| self.at < sent_at + SEND_AGAIN) {
            return None;
        }
        coordinator.snapshots.insert(to, self.at);
        let raft = &self.hosts[host].raft;
        let (term, upto) = (raft.term, raft.applied);
        Some(Append { term, prev: Some((0, 0)), entries: raft.log[..upto].to_vec(), commit: upto })
    }

    pub fn purge(&mut self, host: Id) {
        let me = &mut self.hosts[host];
        if let Some(every) = self.snapshots.every
            && me.raft.applied >= me.purged + every
        {
            me.purged = me.raft.applied - every / 5;
        }
    }

    pub fn has_to_apply(&self, host: Id) -> bool {
        let me = &self.hosts[host];
        me.installing == 0 && me.raft.applied < me.raft.commit
    }

    /// Raft has taken the snapshot for its log; the state follows, and the answer after that.
    pub fn install(&mut self, host: Id, request: Request, appended: Appended) {
        let left = self.faults_end.saturating_sub(self.at).max(20 * MS);
        let takes = match self.snapshots.takes {
            Some((least, most)) => self.odd.between(least, most),
            None if self.odd.chance(60) => self.odd.between(0, 40),
            None => self.odd.between(0, 2000),
        };
        self.own(host, (takes * MS).min(left), Stage::Installed { request, appended });
    }

    pub fn installed(&mut self, host: Id, request: Request, appended: Appended) {
        let Appended::Matched(upto) = appended else { return };
        let me = &mut self.hosts[host];
        me.installing -= 1;
        if me.raft.install(upto) {
            me.purged = me.purged.max(upto);
            let view = me.raft.state.view();
            let released_term = me.raft.state.last_release.as_ref().map(|release| release.term);
            self.tally.note(Kind::Snapshot);
            self.note(|| format!("{host} has installed a snapshot of {upto} entries"));
            self.step(host, Event::Restored { view, released_term });
        }
        self.write(host, Some(Stage::Answers { request, appended }));
        if self.has_to_apply(host) {
            let after = self.moment();
            self.own(host, after, Stage::Apply);
        }
    }
}
