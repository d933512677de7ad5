//! What no host can see: whether two nodes may sign at once, and whether anybody does in the end.

use std::cmp::Reverse;

use baton::base::chain_node::SignFloor;
use baton::base::ids::Role;
use baton::core::Stage;
use baton::rules::Breach;

use crate::approvals::Approvals;
use crate::faults::Fault;
use crate::host::Host;
use crate::raft::Id;
use crate::schedule::What;
use crate::signing::Signing;
use crate::signlog::{self, Report};
use crate::tally::{Kind, Tally};
use crate::trial::Strike;
use crate::world::{MS, World};

/// A history that has nobody active for so long after its faults is given up.
const PATIENCE: u64 = 60_000 * MS;

/// How one history ended.
pub struct End {
    pub overlap: Option<String>,
    /// A deadline that a core acts on and does not wake up for.
    pub forgotten: Option<String>,
    /// Rules of the safety argument that were broken, whether anything came of it or not.
    pub broken: Vec<Breach>,
    /// From the end of the faults until somebody was active.
    pub live: Option<Live>,
    /// Nanoseconds of the longest lease of any member, at any time.
    pub lease: u64,
    pub hosts: usize,
    pub events: u64,
    pub claims: u64,
    pub handovers: u64,
    pub tally: Tally,
    /// Of all that was signed.
    pub verdict: Report,
    /// Approvals that no single node would have made, on a chain that has any.
    pub conflict: Option<String>,
    /// What is wrong with what was signed where the log decides it.
    pub missigned: Option<String>,
    /// Requests that came to a signature there.
    pub answered: u64,
    /// Marks of approvals that were passed on.
    pub marks: u32,
    pub signatures: usize,
    /// Oldest first.
    pub signed_at: Vec<u64>,
    pub strikes: Vec<Strike>,
    /// How often the holder was struck as it signed.
    pub struck: u32,
    pub trace: Vec<String>,
}

/// Nanoseconds from the end of the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Until a member was there that could take the baton, and stayed.
    pub eligible: u64,
    /// From then on until somebody was active.
    pub active: u64,
}

impl Live {
    /// The bound on `active` of a history, in leases of whoever had the longest. A leader that has given up its lead
    /// takes it up again after four more, when nobody can be elected without it. One whose guard hangs for good hands on
    /// within one.
    pub fn leases_max(end: &End) -> u64 {
        let [resigned, hung] = [Kind::Resigned, Kind::GuardHangs].map(|kind| end.tally.of(kind) > 0);
        4 + if resigned { 4 } else { 0 } + u64::from(hung)
    }
}

impl World {
    pub fn run_to_end(mut self) -> End {
        let live = self.play();
        let world = self;
        let state = world.hosts.iter().map(|host| &host.raft.state).max_by_key(|state| state.epoch);
        let moves = state.map(|state| state.moves.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>());
        let moves = moves.unwrap_or_default();
        End {
            broken: world.breaches(),
            overlap: world.overlap,
            forgotten: world.forgotten,
            live,
            lease: world.longest_lease,
            hosts: world.hosts.len(),
            events: world.events,
            claims: moves.len() as u64,
            handovers: moves.iter().filter(|kind| **kind == "handover").count() as u64,
            tally: world.tally,
            verdict: signlog::check(&world.chain.log),
            conflict: world.approvals.as_ref().and_then(Approvals::conflict),
            missigned: world.signing.as_ref().and_then(Signing::complaint),
            answered: world.signing.as_ref().map_or(0, Signing::answered),
            marks: world.approvals.as_ref().map_or(0, |approvals| approvals.marks),
            signatures: world.chain.log.len(),
            signed_at: world.chain.log.iter().map(|signature| signature.at.as_nanos()).collect(),
            strikes: world.strikes.made,
            struck: world.chain.struck(),
            trace: world.trace.unwrap_or_default(),
        }
    }

    /// `None` when nodes overlap, or nobody is active in the end.
    fn play(&mut self) -> Option<Live> {
        for host in 0..self.count() {
            let after = self.random.between(0, 300 * MS);
            self.later(after, What::Fault(Fault::Restart(host)));
            self.later(0, What::Block { host });
            if self.signing.is_some() {
                self.later(0, What::Wants { host });
            }
        }
        while let Some(Reverse(due)) = self.due.pop() {
            self.at = due.at;
            if self.at > self.patience {
                return None;
            }
            if self.at > self.faults_end {
                let since = self.eligible_since();
                if self.somebody_is_active() && self.somebody_signs(since) {
                    return Some(Live { eligible: since - self.faults_end, active: self.at - since });
                }
                if self.at > self.faults_end + PATIENCE {
                    return None;
                }
            }
            self.events += 1;
            self.happen(due.what);
            self.go_on_with_plot();
            self.check_overlap();
            if self.overlap.is_some() {
                return None;
            }
        }
        None
    }

    fn somebody_is_active(&self) -> bool {
        let key = self.signing.is_some();
        let active = |host: &Host| {
            (key || host.machine.may_sign()) && host.coordinator.as_ref().is_some_and(|c| c.core.is_active())
        };
        self.hosts.iter().any(active)
    }

    /// Since when some member could be active: it runs, and its guard does; it is ready, and no order
    /// forbids it.
    fn eligible_since(&mut self) -> u64 {
        let eligible = (0..self.count()).any(|host| self.is_eligible(host));
        let since = self.eligible_since.filter(|_| eligible).unwrap_or(self.at);
        self.eligible_since = Some(since);
        since
    }

    fn is_eligible(&self, host: Id) -> bool {
        let me = &self.hosts[host];
        let votes = self.newest_members().voters & 1 << host != 0;
        let ready = me.coordinator.as_ref().is_some_and(|c| {
            let core = &c.core;
            // What an upgrade takes is its own.
            let upgraded = core.host().upgrading().is_none() && core.stage() != Some(Stage::Upgrading);
            core.stage().is_some() && upgraded
                || core.not_ready(self.local(host)).is_none() && core.view().may_claim(&self.names[host]).is_ok()
        });
        let runs = !me.paused && !me.machine.is_stopped();
        me.role == Role::Validator && runs && votes && ready && !self.waits_for_its_clock(host)
    }

    /// It claimed by a clock that was ahead, which nobody could say then. That it is right now is measured first.
    fn waits_for_its_clock(&self, host: Id) -> bool {
        let latest = self.at + self.longest_lease;
        let core = self.hosts[host].coordinator.as_ref().map(|coordinator| &coordinator.core);
        let floor = core.and_then(|core| core.settling(self.local(host)));
        matches!(floor, Some((SignFloor::BlockAfter(after), _)) if after.as_nanos() > latest)
    }

    fn check_overlap(&mut self) {
        if self.hosts.iter().filter(|host| host.machine.may_sign()).count() < 2 {
            return;
        }
        let signing: Vec<String> = (0..self.count())
            .filter(|host| self.hosts[*host].machine.may_sign())
            .map(|host| self.names[host].to_string())
            .collect();
        let text =
            format!("at {:.3} ms the nodes of {} may all sign", self.at as f64 / MS as f64, signing.join(" and "));
        self.note(|| text.clone());
        self.overlap = Some(text);
    }
}
