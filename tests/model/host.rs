//! One member of the model: its core, its Raft and its host. What happens inside a host happens at once, but for the
//! worker's jobs, the guard's kill, a vote that a leader considers and the news of a lost lead, which wait for a step
//! of their own and so may come as late as they like.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use baton::base::guard_frame::{Armed, Containment, NodeProcess};
use baton::base::ids::{Epoch, NodeId, UpgradeName};
use baton::base::time::{BootTime, Now, WallTime};
use baton::core::agreed::replicated::{Baton, Command};
use baton::core::fences::votes::Refusal;
use baton::core::{Action as Asked, Core, Event, Peer, Stage};
use baton::rules::Witness;

use crate::machine::{Job, Machine, healthy};
use crate::members::{Change, Set, ids};
use crate::raft::{Append, Appended, Ballot, Id, Payload, Raft, Role as RaftRole};
use crate::rules::{Rules, Without};
use crate::settings::{is_arbiter, memory, settings};
use crate::shift::{ORIGIN, hash_shifted};

pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// An upgrade that leaves the old binary, and one that does not.
const FAILS: &str = "fails";
const SUCCEEDS: &str = "v2";

/// The wall clock stands still, ahead of nothing: heights (fence 3) are not in the model.
const WALL: WallTime = WallTime::from_nanos(1_000);

pub fn name(host: Id) -> NodeId {
    NodeId::from(NAMES[host])
}

fn id(name: &NodeId) -> Id {
    NAMES.iter().position(|known| *known == name.as_str()).expect("a member")
}

/// A vote request that passed the gate of a member which led, and that its Raft has not yet considered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Considered {
    pub from: Id,
    pub ballot: Ballot,
}

/// When to campaign and to whom to offer the lead, by the core's own policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub lead: bool,
    pub to_offer: Option<Id>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    pub me: Id,
    pub clock: u64,
    pub core: Core,
    pub raft: Raft,
    /// Term and lead that the core was last told.
    pub told: (u64, bool),
    pub jobs: VecDeque<Job>,
    pub machine: Machine,
    /// The guard's word, as the coordinator has it.
    pub armed: Option<Armed>,
    pub considering: Option<Considered>,
    /// What the core was told of voters.
    voters: Vec<Set>,
    /// When this member last took up a lead.
    led_at: BootTime,
    lease: Duration,
    /// The longest promise that this member has ever made. Its file says less once that is over, which is for the
    /// simulation.
    promised: Duration,
    past: Duration,
    /// What the core asked for in the last step. The model lets everybody campaign whenever the gate allows, so this
    /// is no part of the state.
    pub wants: Wants,
    /// Follows one way here; the others differ in nothing that counts. Of its findings, the state has whether there are
    /// any.
    pub witness: Witness,
}

impl Hash for Host {
    fn hash<H: Hasher>(&self, out: &mut H) {
        let state = (&self.core, self.told, &self.jobs, &self.machine, &self.armed, &self.considering);
        hash_shifted(&state, self.clock - self.past.as_nanos() as u64, out);
        self.raft.hash(out);
        self.promised.hash(out);
        self.witness.breaches().is_empty().hash(out);
        // Two moments count although they have passed: what a quorum has acknowledged, and the beginning of a lead
        // that finds nobody to hold the baton here.
        let now = self.now();
        self.core.lease_remaining(now).hash(out);
        let led_for = now.since(self.led_at).min(self.lease);
        let is_late = led_for == self.lease;
        (is_late, (self.core.leads().is_some() && self.core.not_ready(now).is_some()).then_some(led_for)).hash(out);
        // And a third, for a sole founder, who waits before its first claim.
        let is_sole = self.raft.members.sets().all(|set| set.count_ones() == 1);
        let founds = is_sole && self.core.leads().is_some() && self.core.view().epoch == Epoch::default();
        founds.then(|| now.since(self.led_at)).hash(out);
    }
}

impl Host {
    pub fn new(me: Id, rules: &Rules) -> Host {
        let raft = Raft::new(me, NAMES.len(), rules.members);
        let core = Core::new(settings(me, rules), memory(&raft, true, Duration::ZERO), BootTime::from_nanos(ORIGIN));
        let witness = Witness::new(&core, BootTime::from_nanos(ORIGIN));
        let mut host = Host {
            witness,
            me,
            clock: ORIGIN,
            core,
            raft,
            told: (0, false),
            jobs: VecDeque::new(),
            machine: Machine::default(),
            armed: None,
            considering: None,
            voters: Vec::new(),
            led_at: BootTime::from_nanos(ORIGIN),
            lease: rules.timings[me].lease(),
            promised: rules.timings[me].promise(),
            past: rules.past,
            wants: Wants::default(),
        };
        host.attach(rules);
        host
    }

    pub fn now(&self) -> BootTime {
        BootTime::from_nanos(self.clock)
    }

    /// The coordinator ends and starts again; guard and chain node go on.
    pub fn restart(&mut self, rules: &Rules) {
        self.raft.restart();
        let forgets_to_wait = rules.without == Without::Quarantine;
        let promised = if rules.without == Without::Remembered { Duration::ZERO } else { self.promised };
        let memory = memory(&self.raft, forgets_to_wait, promised);
        self.core = Core::new(settings(self.me, rules), memory, self.now());
        self.witness = Witness::again(&self.core, self.now(), self.witness.clone());
        self.told = (self.raft.term, false);
        self.jobs.clear();
        self.armed = None;
        self.considering = None;
        self.voters.clear();
        self.attach(rules);
    }

    /// Guard and chain node are gone with their host, which comes up again.
    pub fn lose_power(&mut self, rules: &Rules) {
        self.machine = Machine { links: self.machine.links, ..Machine::default() };
        self.restart(rules);
    }

    fn attach(&mut self, rules: &Rules) {
        self.tell_voters(rules);
        let peers = (0..NAMES.len()).filter(|peer| *peer != self.me).map(|peer| {
            let peer_now = Peer { ready: !is_arbiter(peer, rules), reachable: true, ..Peer::default() };
            (name(peer), peer_now)
        });
        self.step(rules, Event::Peers(peers.collect::<BTreeMap<_, _>>()));
        self.leave_campaigns_to_the_model(rules);
        if is_arbiter(self.me, rules) {
            return;
        }
        let node = self.machine.node.as_ref().map(|node| NodeProcess {
            pid: 1,
            started_at: self.now(),
            validator_epoch: node.validator_epoch,
            containment: Containment::default(),
            stopping: false,
        });
        let ran = node.is_some();
        self.step(rules, Event::GuardAttached { node, armed: self.machine.fence.armed() });
        if ran {
            self.step(rules, Event::Probed(healthy(1)));
        }
    }

    /// Its tenure has given the node the key, or is about to.
    pub fn holds_key(&self) -> bool {
        matches!(self.core.stage(), Some(Stage::Linking | Stage::Activating | Stage::Active))
    }

    /// An upgrade of the own chain node falls due.
    pub fn upgrade(&mut self, rules: &Rules, fails: bool) {
        let name = UpgradeName::new(if fails { FAILS } else { SUCCEEDS }).expect("a name");
        self.step(rules, Event::UpgradeDue { name, back: false });
    }

    pub fn step(&mut self, rules: &Rules, event: Event) {
        // Heights are not in the model: where a head is remembered, a higher one follows at once.
        let remembers = matches!(event, Event::Led { .. } | Event::Inactive { .. });
        let shows_heads = remembers && self.core.host().health().is_some();
        let before = shows_heads.then(|| Event::Probed(healthy(0)));
        let after = shows_heads.then(|| Event::Probed(healthy(1)));
        for event in before.into_iter().chain([event]).chain(after) {
            let now = Now { boot: self.now(), wall: WALL };
            let actions = self.core.step(now, event.clone());
            self.witness.step(&self.core, now.boot, &event, &actions);
            for asked in actions {
                self.perform(rules, asked);
            }
        }
    }

    fn perform(&mut self, rules: &Rules, asked: Asked) {
        match asked {
            Asked::StartStandby => self.jobs.push_back(Job::StartStandby),
            Asked::LinkValidating { epoch, .. } => self.jobs.push_back(Job::Link { epoch }),
            Asked::Activate { epoch } => self.jobs.push_back(Job::Activate { epoch }),
            Asked::Deactivate { .. } => self.jobs.push_back(Job::Deactivate),
            Asked::Upgrade { name, .. } => self.jobs.push_back(Job::Upgrade { fails: name.as_str() == FAILS }),
            Asked::Arm { epoch, deadline } => {
                if let Ok(armed) = self.machine.fence.arm(epoch, deadline, self.now()) {
                    self.armed = Some(armed);
                    self.step(rules, Event::GuardArmed { epoch, deadline });
                }
            }
            Asked::Disarm { epoch } => {
                self.armed = None;
                if self.machine.fence.disarm(epoch).is_ok()
                    && let Some(node) = &mut self.machine.node
                {
                    node.validator_epoch = None;
                }
            }
            Asked::ProposeClaim { epoch, .. } => {
                if epoch.0 <= rules.epochs_max {
                    let reason = String::new();
                    self.propose(
                        rules,
                        Command::Baton(Baton::Claim { epoch, member: name(self.me), reason, at: WALL }),
                    );
                }
            }
            Asked::ProposeRelease { epoch, last_signed, to, .. } => {
                self.propose(
                    rules,
                    Command::Baton(Baton::Release { epoch, last_signed, reason: String::new(), at: WALL, to }),
                );
            }
            Asked::Campaign => self.wants.lead = true,
            Asked::TransferLead { to } => self.wants.to_offer = Some(id(&to)),
            // A row of the history, and what concerns people and probes.
            Asked::ProposeActivated { .. }
            | Asked::WatchChain { .. }
            | Asked::AnswerHandover(_)
            | Asked::EndGuard
            | Asked::Finish { .. } => {}
        }
    }

    fn propose(&mut self, rules: &Rules, command: Command) {
        if self.raft.log.len() < rules.entries_max {
            self.raft.propose(command);
            self.wrote();
            self.apply_committed(rules);
        }
    }

    /// The one step or the other of a change of the membership.
    pub fn change(&mut self, rules: &Rules, change: Change) {
        if self.may_change(rules, change) {
            self.raft.change(change);
            self.tell_voters(rules);
            self.wrote();
            self.apply_committed(rules);
        }
    }

    /// What this member may begin or end now.
    pub fn changes(&self, rules: &Rules) -> Vec<Change> {
        if rules.changes.is_empty() || !self.raft.leads() {
            return Vec::new();
        }
        let end = self.raft.members.end_by(self.me);
        rules.changes.iter().copied().chain([end]).filter(|change| self.may_change(rules, *change)).collect()
    }

    fn may_change(&self, rules: &Rules, change: Change) -> bool {
        let members = |entry: &&crate::raft::Entry| matches!(entry.payload, Payload::Members(_));
        let changed = self.raft.log.iter().filter(members).count();
        let bounded = changed < 2 * rules.changes_max && self.raft.log.len() < rules.entries_max;
        let takes_own_vote = change == Change::Remove(self.me);
        bounded && !takes_own_vote && self.raft.clone().change(change).is_some()
    }

    /// As of the append to the log, before anybody else hears of it.
    fn tell_voters(&mut self, rules: &Rules) {
        let at_commit = rules.without == Without::VotersAtAppend;
        let members = if at_commit { self.raft.members_before(self.raft.commit) } else { self.raft.members };
        let sets = rules.without.counted(&members);
        let is_deaf = rules.without == Without::Voters && self.raft.leads() && !self.voters.is_empty();
        if self.voters != sets && !is_deaf {
            let named = sets.iter().map(|set| ids(*set).map(name).collect()).collect();
            self.voters = sets;
            self.step(rules, Event::Voters(named));
        }
    }

    /// Nothing is lost of a member's own disk here.
    pub fn wrote(&mut self) {
        self.raft.written(self.raft.term, self.raft.log.len());
    }

    /// The vote gate, with the rule left out that `rules` leaves out.
    pub fn gate(&self, rules: &Rules, candidate: Id) -> bool {
        let asked = match candidate == self.me {
            true => self.core.may_campaign(self.now()),
            false => self.core.may_vote(self.now(), &name(candidate)),
        };
        let refusal = match asked {
            Ok(()) => return true,
            Err(refusal) => refusal,
        };
        let own_promise = matches!(&refusal, Refusal::Promised { leader, .. } if *leader == name(self.me));
        match (rules.without, refusal) {
            (Without::Promise, Refusal::Promised { .. }) => true,
            (Without::OwnPromise | Without::NodeProofAndOwnPromise, Refusal::Promised { .. }) => own_promise,
            (Without::NodeProof | Without::NodeProofAndOwnPromise, Refusal::NodeNotProven) => {
                let rules = Rules { without: rules.without.but_for_the_node(), ..*rules };
                self.with_proven_node(&rules).gate(&rules, candidate)
            }
            (Without::LearnersPromise, Refusal::Promised { .. }) => !self.raft.members.is_voter(self.me),
            (Without::ReleaseOfTheTerm, Refusal::Promised { .. } | Refusal::Quarantine { .. }) => {
                self.raft.ends_released()
            }
            (
                _,
                Refusal::Promised { .. }
                | Refusal::Quarantine { .. }
                | Refusal::NodeNotProven
                | Refusal::NoMember
                | Refusal::NoVoter,
            ) => false,
        }
    }

    /// This member as if its node had just been proven inactive, to ask it what else its gate has to say.
    fn with_proven_node(&self, rules: &Rules) -> Host {
        let mut proven = self.clone();
        proven.step(rules, Event::Inactive { last_signed: None });
        proven
    }

    /// After anything that may have changed this member's term, role or commit index.
    pub fn raft_changed(&mut self, rules: &Rules) {
        let loses_lead = self.told.1 && !self.raft.leads();
        if !loses_lead {
            self.report(rules);
        }
        self.tell_voters(rules);
        self.apply_committed(rules);
    }

    fn apply_committed(&mut self, rules: &Rules) {
        while self.raft.applied < self.raft.commit {
            self.apply(rules);
        }
    }

    pub fn is_to_report(&self) -> bool {
        self.told != (self.raft.term, self.raft.leads())
    }

    pub fn report(&mut self, rules: &Rules) {
        if self.is_to_report() {
            self.told = (self.raft.term, self.raft.leads());
            self.step(rules, Event::Voted { term: self.told.0 });
            self.report_lead(rules);
        }
    }

    /// A core does not campaign while a vote is being considered. One of term 0 means nothing to it otherwise, and
    /// keeps it from noting when it campaigned last, which would only multiply the states.
    fn leave_campaigns_to_the_model(&mut self, rules: &Rules) {
        self.step(rules, Event::Voting { term: 0 });
    }

    pub fn take_up_campaigns(&mut self, rules: &Rules) {
        self.step(rules, Event::Considered { term: self.told.0 });
    }

    fn report_lead(&mut self, rules: &Rules) {
        let (term, leads) = self.told;
        if self.core.leads() != Some(term) {
            self.led_at = self.now();
        }
        self.step(rules, if leads { Event::Led { term } } else { Event::LeadLost });
    }

    fn apply(&mut self, rules: &Rules) {
        let entry = self.raft.log[self.raft.applied].clone();
        self.raft.applied += 1;
        let Some(command) = entry.command().cloned() else { return };
        let claims_again = rules.without == Without::NoSecondClaim;
        if claims_again && command.is_claim() {
            self.raft.state.last_release = None;
        }
        let outcome = self.raft.state.apply(entry.term, &command);
        if claims_again && command.is_release() && self.raft.leads() {
            // The core is kept from hearing that it released, and takes up the lead as if it were new.
            self.step(rules, Event::LeadLost);
            self.step(rules, Event::Led { term: entry.term });
            return;
        }
        let view = self.raft.state.view();
        self.step(rules, Event::Applied { term: entry.term, command, outcome, view });
    }

    /// An append is accepted or not, and answered. It arrived at `arrived_at`.
    pub fn on_append(&mut self, rules: &Rules, from: Id, append: &Append, arrived_at: BootTime) -> Appended {
        let appended = self.raft.on_append(from, append);
        self.tell_voters(rules);
        if !matches!(appended, Appended::HigherVote(..)) {
            self.report_accepted(rules, from, append.term, arrived_at);
        }
        if matches!(appended, Appended::Matched(_)) {
            let release = |command: &Command| command.is_release();
            for entry in append.entries.iter().filter(|entry| entry.command().is_some_and(release)) {
                self.step(rules, Event::ReleaseLogged { term: entry.term });
            }
        }
        self.raft_changed(rules);
        appended
    }

    /// As a snapshot that takes long to install: it is accepted, and that is reported later. `None` when there is
    /// nothing to report.
    pub fn begin_append(&mut self, rules: &Rules, from: Id, append: &Append) -> Option<Appended> {
        let appended = self.raft.on_append(from, append);
        self.tell_voters(rules);
        self.raft_changed(rules);
        matches!(appended, Appended::Matched(_)).then_some(appended)
    }

    /// What has long been accepted, with all that it brought.
    pub fn report_late(&mut self, rules: &Rules, from: Id, term: u64, arrived_at: BootTime) {
        self.report_accepted(rules, from, term, arrived_at);
        if let Some(term) = self.raft.released_term() {
            self.step(rules, Event::ReleaseLogged { term });
        }
    }

    /// A request of the leader of `term`, which arrived at `arrived_at`, was accepted.
    fn report_accepted(&mut self, rules: &Rules, from: Id, term: u64, arrived_at: BootTime) {
        let promise = rules.promise(self.me, from);
        self.promised = self.promised.max(promise);
        let term = if rules.without == Without::PromiseTerm { self.raft.term } else { term };
        self.step(rules, Event::Accepted { leader: name(from), term, arrived_at, promise });
    }

    pub fn on_appended(&mut self, rules: &Rules, from: Id, term: u64, sent_at: BootTime, answer: Appended) {
        if !matches!(answer, Appended::HigherVote(..)) {
            let promised = Some(rules.counted(self.me, from));
            self.step(rules, Event::Acked { from: name(from), term, sent_at, promised });
        }
        self.raft.on_append_answer(from, term, answer);
        self.raft_changed(rules);
    }

    /// The gate has agreed: this member's lead, if it has one, ends before its Raft sees the vote.
    pub fn voting(&mut self, rules: &Rules, from: Id, ballot: &Ballot) {
        self.witness.vote_granted(self.now(), &name(from));
        self.step(rules, Event::Voting { term: ballot.term });
        self.considering = Some(Considered { from, ballot: ballot.clone() });
    }

    /// Raft has considered the vote; whether it is granted.
    pub fn consider(&mut self, rules: &Rules) -> Option<(Considered, bool)> {
        let considered = self.considering.take()?;
        let granted = self.raft.on_vote(considered.from, &considered.ballot);
        if rules.past.is_zero() {
            // Nor does it note that a vote which it gave puts off its own campaign.
            self.leave_campaigns_to_the_model(rules);
        }
        self.step(rules, Event::Considered { term: self.raft.term });
        self.leave_campaigns_to_the_model(rules);
        self.report_lead(rules);
        self.raft_changed(rules);
        Some((considered, granted))
    }

    pub fn elect(&mut self, rules: &Rules) {
        if let Some(ballot) = self.raft.elect(false) {
            self.witness.vote_granted(self.now(), &name(self.me));
            self.step(rules, Event::Voted { term: ballot.term });
            // Its own vote is all that an only voter needs.
            if self.raft.on_vote_answer(self.me, ballot.term, true, (ballot.term, Some(self.me))) {
                self.wrote();
            }
            self.raft_changed(rules);
        }
    }

    /// What this member asks for, while it is a candidate.
    pub fn ballot(&self) -> Option<Ballot> {
        match self.raft.role {
            RaftRole::Candidate { .. } => {
                Some(Ballot { term: self.raft.term, last: self.raft.last(), transfer: false })
            }
            RaftRole::Follower | RaftRole::Leader(_) => None,
        }
    }

    pub fn lacks_vote_of(&self, voter: Id) -> bool {
        match self.raft.role {
            RaftRole::Candidate { granted } => granted & (1 << voter) == 0,
            RaftRole::Follower | RaftRole::Leader(_) => false,
        }
    }
}
