//! The pure heart of baton: told what happened, it answers what to do. No clock, no I/O, no runtime,
//! no logging; time is an argument. `coordinator` feeds it and performs its actions in order.
//!
//! `fences` has the safety argument; `agreed` what the log says; `host` knows the own chain node, `key_watch` whether
//! the key is in use elsewhere, `rival` of another cluster of this name, `lead` the leadership of a term, `resigned` of
//! one that was given up, `election` when to campaign, `tenure` how the baton is taken and let go.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod agreed;
mod clock;
pub mod degraded;
pub mod election;
pub mod event;
pub mod fences;
pub mod host;
mod key_watch;
mod lead;
pub mod left_out;
pub mod peers;
mod resigned;
mod rival;
mod settings;
mod shown;
pub mod standing;
pub mod tenure;
pub mod upgrades;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use agreed::replicated::View;
pub use clock::ClockOffset;
pub use event::{Action, Event, Handover};
pub use host::{Descendant, NotReady};
pub use key_watch::Unheld;
pub use peers::Peer;
pub use settings::{Memory, Settings};
pub use standing::Standing;
pub use tenure::Stage;

use crate::base::ids::{NodeId, Role, SignMark, Term};
use crate::base::time::{BootTime, Now};
use crate::base::timing::LeaseSpan;
use clock::OwnClock;
use degraded::CatchUp;
use election::{Campaigns, Turn};
use fences::lease::VoterSets;
use fences::votes::{Refusal, VoteGate};
use host::Host;
use key_watch::KeyWatch;
use lead::Lead;
use resigned::Resigned;
use tenure::{AskedHandover, Tenure};

/// A coordinator that was asked to stop waits no longer for somebody to take the baton.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// The coordinator was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Shutdown {
    since: BootTime,
    /// The chain node is to end with it.
    stop_node: bool,
}

/// The states shown to operators. `Voting` is a member that could take the baton now, or an arbiter, in
/// touch with a leader; `Registering` is one that is not there yet or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Startup,
    Syncing,
    Registering,
    Voting,
    Validating,
    Shutdown,
}

impl State {
    pub const ALL: [State; 6] =
        [State::Startup, State::Syncing, State::Registering, State::Voting, State::Validating, State::Shutdown];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Startup => "Startup",
            State::Syncing => "Syncing",
            State::Registering => "Registering",
            State::Voting => "Voting",
            State::Validating => "Validating",
            State::Shutdown => "Shutdown",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Core {
    settings: Settings,
    gate: VoteGate,
    host: Host,
    /// During a change of membership, the newest last.
    voters: VoterSets,
    /// The log does not forbid this member to vote.
    belongs: bool,
    /// The priority of every member, as configured.
    configured: BTreeMap<NodeId, u32>,
    /// A vote in this term is being considered by Raft.
    voting_in: Option<Term>,
    lead: Option<Lead>,
    resigned: Option<Resigned>,
    tenure: Option<Tenure>,
    campaigns: Campaigns,
    peers: BTreeMap<NodeId, Peer>,
    /// Since when another host's head has been ahead of the own one, which has not moved since.
    behind_since: Option<BootTime>,
    /// While the own node syncs, and another host's head is ahead.
    catch_up: Option<CatchUp>,
    /// Never goes back.
    mark_seen: Option<SignMark>,
    key_watch: KeyWatch,
    clock: OwnClock,
    view: View,
    /// The priority of every member, as the orders in `view` leave it.
    priorities: BTreeMap<NodeId, u32>,
    asked: Option<AskedHandover>,
    /// Who called from another cluster of this name, and when last.
    rival: Option<(NodeId, BootTime)>,
    shutdown: Option<Shutdown>,
    finished: bool,
}

impl Core {
    pub fn new(settings: Settings, memory: Memory, started_at: BootTime) -> Self {
        let gate = VoteGate::new(settings.timing.promise(), started_at, &memory);
        let runs_node = settings.role == Role::Validator;
        Core {
            priorities: priorities(&settings.priorities, &memory.view),
            gate,
            host: Host::new(runs_node, settings.probe_failures_max, settings.min_peers, started_at),
            voters: vec![settings.priorities.keys().cloned().collect()],
            belongs: true,
            configured: settings.priorities.clone(),
            voting_in: None,
            lead: None,
            resigned: None,
            tenure: None,
            campaigns: Campaigns::new(started_at),
            peers: BTreeMap::new(),
            behind_since: None,
            catch_up: None,
            mark_seen: memory.mark_seen,
            key_watch: KeyWatch::default(),
            clock: OwnClock::default(),
            view: memory.view,
            asked: None,
            rival: None,
            shutdown: None,
            finished: false,
            settings,
        }
    }

    /// Takes note of `event` and returns what follows from it, to be started in this order.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.note(now, event, &mut out);
        self.weigh_sightings(now);
        self.upgrade_node(&mut out);
        self.replace_silent_guard(now, &mut out);
        self.supervise_node(now, &mut out);
        self.leave_hung_disk(now, &mut out);
        self.advance_tenure(now, &mut out);
        self.end_overlong_phase(now, &mut out);
        self.give_up_on_handover(now, &mut out);
        self.lead_again(now, &mut out);
        self.use_lead(now, &mut out);
        self.campaign(now, &mut out);
        self.leave(now, &mut out);
        out
    }

    /// For how long this member promises to elect nobody else, by its own clock, when it accepts a request of a leader
    /// with this lease: the longer of the two. A leader of a version that does not say it counts on its own
    /// configuration.
    pub fn promise_to(&self, leader: Option<LeaseSpan>) -> Duration {
        let own = self.settings.timing.span();
        leader.map_or(own, |leader| own.joined(leader)).promise()
    }

    /// The vote gate, for a request of `candidate` or for this member's own candidacy.
    ///
    /// # Errors
    /// The rule that forbids it now.
    pub fn may_vote(&self, now: BootTime, candidate: &NodeId) -> Result<(), Refusal> {
        if !self.belongs {
            return Err(Refusal::NoMember);
        }
        self.gate.check(now, candidate, self.host.is_proven())
    }

    /// The vote gate for this member's own candidacy. Raft would let a learner lead, and a member without
    /// any membership elect itself.
    ///
    /// # Errors
    /// The rule that forbids it now.
    pub fn may_campaign(&self, now: BootTime) -> Result<(), Refusal> {
        if !self.is_voter(&self.settings.me) {
            return Err(Refusal::NoVoter);
        }
        self.may_vote(now, &self.settings.me)
    }

    fn note(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        match event {
            // Nobody acknowledges the lease of a sole voter: it lasts from now on, again and again.
            Event::Tick => self.renew(now, out),
            Event::Slept => self.note_slept(now, out),
            Event::Accepted { leader, term, arrived_at, promise } => {
                self.gate.note_accepted(&leader, term, arrived_at, promise);
            }
            Event::Voting { term } => self.note_voting(now, term, out),
            Event::Considered { term } => {
                // Raft's own report of the vote may have come before this.
                if self.voting_in.take() == Some(term) {
                    self.campaigns.voted(now.boot, &self.settings.timing);
                }
                self.note_vote(now, term, out);
            }
            Event::Voted { term } => self.note_vote(now, term, out),
            Event::ReleaseLogged { term } => self.gate.note_release(term),
            Event::Led { term } => self.note_led(now, term, out),
            Event::LeadLost => self.note_lead_lost(now, out),
            Event::Acked { from, term, sent_at, promised } => {
                self.note_acked(now, &from, term, sent_at, promised, out);
            }
            Event::Voters(voters) => self.voters = voters,
            Event::Members(configured) => {
                self.belongs = configured.contains_key(&self.settings.me);
                self.configured = configured;
                self.priorities = priorities(&self.configured, &self.view);
            }
            Event::Applied { term, command, outcome, view } => {
                self.note_applied(now, term, &command, &outcome, view, out);
            }
            Event::Restored { view, released_term } => {
                released_term.into_iter().for_each(|term| self.gate.note_release(term));
                self.note_view(view);
            }
            Event::Forgotten { view } => self.note_view(view),
            Event::ProposalFailed { reason: _ } => self.note_proposal_failed(out),
            Event::GuardAttached { node, armed } => {
                self.host.guard_attached(now.boot, node.as_ref(), armed.as_ref(), out);
            }
            Event::GuardAnswers(answers) => self.host.guard_answers(now.boot, answers),
            Event::GuardSuperseded { by: _ } => self.replace_superseded_guard(out),
            Event::GuardGone { node_proven_dead } => {
                self.host.guard_gone(node_proven_dead);
                if let Some(shutdown) = &mut self.shutdown {
                    // Somebody ends this host's processes: none is left for them to find afterwards.
                    shutdown.stop_node = true;
                }
                self.tenure_lost_node(now, tenure::Reason::GuardGone, out);
            }
            Event::GuardArmed { epoch, deadline } => self.note_armed(now, epoch, deadline, out),
            Event::NodeStarted { validator_epoch } => {
                self.host.started(now.boot, validator_epoch);
                self.stop_unwanted_validator(validator_epoch, out);
            }
            Event::NodeStartFailed { reason } => self.host.start_failed(now.boot, reason),
            Event::NodeExited { cause } => {
                self.host.exited(now.boot, cause);
                // Rule (c): whoever works on the node may have ordered the next start already, with the key.
                if self.tenure.as_ref().is_some_and(Tenure::may_key_come) {
                    self.host.give_key();
                }
                self.note_exited(now, cause, out);
            }
            Event::Fenced { epoch } => self.note_fenced(now, epoch, out),
            Event::Linked { epoch } => self.note_linked(now, epoch, out),
            Event::LinksFailed { reason } => {
                self.host.links_failed(reason);
                self.host.distrust(now.boot);
                self.let_go(now, tenure::Reason::LinksFailed, None, out);
            }
            Event::LinksPutAway => self.host.links_put_away(),
            Event::KeyDefect { reason } => self.host.note_key_defect(reason),
            Event::Activated { epoch } => self.note_activated(now, epoch, out),
            Event::ActivationFailed { epoch, reason: _ } => self.note_activation_failed(now, epoch, out),
            Event::Inactive { last_signed } => self.note_inactive(now, last_signed, out),
            Event::UpgradeDue { name, back } => self.note_upgrade_due(now, name, back, out),
            Event::UpgradeEnded { name: _, failed } => self.note_upgrade_ended(now, failed.is_some(), out),
            Event::Probed(health) => {
                self.host.probed(now.boot, health);
                self.weigh_own_key(now, out);
                self.compare_heads(now.boot);
                self.note_catch_up(now.boot);
            }
            Event::ProbeFailed { reason } => self.host.probe_failed(reason),
            Event::NodeSilent => self.kill_silent_node(now, out),
            Event::NodeHides { below } => self.host.node_hides(below),
            Event::Peers(peers) => {
                self.peers = peers;
                self.compare_heads(now.boot);
                self.note_catch_up(now.boot);
            }
            Event::ClockOffsets(offsets) => self.note_clock_offsets(now, &offsets),
            Event::RivalHeard { member } => self.note_rival(now, member, out),
            Event::KeyLooked(look) => self.note_key_looked(now, look),
            Event::UnheldTold(unheld) => self.note_unheld_told(now, unheld),
            Event::MarkSeen(mark) => self.mark_seen = SignMark::of_both(self.mark_seen, Some(mark)),
            Event::HandoverWanted { to, timeout, reason } => self.note_handover_wanted(now, to, timeout, reason, out),
            Event::ShutdownWanted { stop_node } => self.shut_down(now, stop_node),
            Event::StoreFailed { reason: _ } => {
                self.shut_down(now, true);
                self.let_go(now, tenure::Reason::StoreFailed, None, out);
            }
            Event::ForeignNode { found } => self.host.found_foreign(found),
            Event::StartWithheld => self.host.start_withheld(),
            Event::DiskHung { dir } => self.host.disk_hung(dir),
            Event::DiskBack { dir } => self.host.disk_back(&dir),
            Event::DiskFull { room } => self.host.note_disk_full(room),
            Event::KeysUnusable { reason } => self.host.note_keys_unusable(reason),
            Event::Admitted { height } => self.host.note_admitted(height),
            Event::VotesAsked { term } => self.campaigns.asked(now.boot, term, &self.settings.timing),
            Event::VoteDenied { by, term } => {
                let gone = |id: &NodeId| self.peers.get(id).is_some_and(|peer| !peer.reachable);
                self.campaigns.denied(by, term, &self.voters, gone);
            }
        }
    }

    pub(in crate::core) fn note_view(&mut self, view: View) {
        self.priorities = priorities(&self.configured, &view);
        self.view = view;
    }

    /// Starts the chain node as a standby whenever it is down and nobody else is at work on it.
    fn supervise_node(&mut self, now: Now, out: &mut Vec<Action>) {
        let busy = self.tenure.as_ref().is_some_and(Tenure::works_on_node);
        if self.host.runs_node()
            && self.host.has_guard()
            && self.host.is_node_stopped()
            && self.host.is_proven()
            && !busy
            && self.host.upgrading().is_none()
            && self.host.foreign_node().is_none()
            && !self.finished
            && self.shutdown.is_none_or(|shutdown| !shutdown.stop_node)
            && now.boot >= self.host.start_at()
        {
            self.host.starting();
            out.push(Action::StartStandby);
        }
    }

    /// A holder's guard ends at its deadline, by the kernel or by the coordinator.
    fn replace_silent_guard(&mut self, now: Now, out: &mut Vec<Action>) {
        let idle = self.tenure.is_none();
        if idle && self.host.replace_guard_at().is_some_and(|at| now.boot >= at) {
            self.host.end_guard(out);
        }
    }

    /// By the log, no epoch as high as the guard's was ever claimed: it is from before the stores were made anew.
    fn replace_superseded_guard(&mut self, out: &mut Vec<Action>) {
        if self.stage() == Some(Stage::Arming) {
            self.host.end_guard(out);
        }
    }

    fn campaign(&mut self, now: Now, out: &mut Vec<Action>) {
        let leads = self.lead.is_some() || self.resigned.is_some();
        if self.shutdown.is_some() || leads || self.tenure.is_some() || self.voting_in.is_some() {
            return;
        }
        if self.host.has_hung_disk() {
            // Its own vote would wait for that disk.
            return;
        }
        if now.boot >= self.campaign_due(now.boot) && self.may_campaign(now.boot).is_ok() {
            self.campaigns.started(now.boot, self.turn(now.boot), &self.settings.timing);
            out.push(Action::Campaign);
        }
    }

    /// A second word can add that the node is to stop, and takes nothing back.
    fn shut_down(&mut self, now: Now, stop_node: bool) {
        self.shutdown.get_or_insert(Shutdown { since: now.boot, stop_node }).stop_node |= stop_node;
    }

    /// Ends once the baton is in other hands, or nobody has taken it for too long; never while the node
    /// may still sign.
    ///
    /// Invariant (fence 1): a running chain node is left behind only when it is proven to have no key.
    fn leave(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(Shutdown { since, stop_node }) = self.shutdown.filter(|_| !self.finished) else { return };
        let done = self.tenure.is_none() && !self.is_offering_lead() && (stop_node || self.host.is_at_rest());
        let waited_enough = now.boot.since(since) >= SHUTDOWN_MAX && self.host.is_proven();
        if done || waited_enough {
            self.finished = true;
            out.push(Action::Finish { stop_node });
        }
    }

    /// Somebody could still take over from here.
    fn is_offering_lead(&self) -> bool {
        self.lead.is_some() && self.has_released() && self.best_target().is_some()
    }

    fn campaign_due(&self, now: BootTime) -> BootTime {
        let opens_at = self.gate.promise_end().unwrap_or(BootTime::from_nanos(0));
        self.campaigns.due_at(opens_at, self.turn(now), &self.settings.timing)
    }

    fn turn(&self, now: BootTime) -> Turn {
        let me = &self.settings.me;
        if !self.may_hold(now) {
            let place = self.configured.keys().position(|id| id == me).unwrap_or(0) as u32;
            return Turn::Ineligible { place };
        }
        let lost = self.gate.last_leader().filter(|leader| *leader != me);
        let may_claim = |id: &NodeId| self.stays_voter(id) && self.view.may_claim(id).is_ok();
        Turn::Rank(election::rank(me, self.host.height(), &self.priorities, &self.peers, may_claim, lost))
    }

    /// Ready, a voter, and no order of an operator forbids it.
    fn may_hold(&self, now: BootTime) -> bool {
        let me = &self.settings.me;
        self.not_ready(now).is_none() && self.stays_voter(me) && self.view.may_claim(me).is_ok()
    }

    /// Whether `member` votes, or will once the change of membership under way is done. Gossip tells of others too: one
    /// that only learns, or was removed. Its Raft would not follow, or not be followed.
    fn stays_voter(&self, member: &NodeId) -> bool {
        self.voters.last().is_some_and(|newest| newest.contains(member))
    }

    /// To whom the baton may go by itself; nobody but its keepers during a pause.
    fn best_target(&self) -> Option<&NodeId> {
        election::best_target(&self.priorities, &self.peers, |id| {
            self.stays_voter(id) && self.view.may_claim(id).is_ok()
        })
    }

    /// To whom an operator may move it.
    fn best_for_operator(&self) -> Option<&NodeId> {
        election::best_target(&self.priorities, &self.peers, |id| {
            self.stays_voter(id) && !self.view.orders.is_in_maintenance(id)
        })
    }
}

fn priorities(configured: &BTreeMap<NodeId, u32>, view: &View) -> BTreeMap<NodeId, u32> {
    configured.iter().map(|(id, priority)| (id.clone(), view.orders.priority(id, *priority))).collect()
}

impl Core {
    /// The next moment at which time alone changes what this member does.
    pub fn next_wakeup(&self, now: BootTime) -> Option<BootTime> {
        let mut moments = Vec::new();
        if self.host.is_node_stopped() && self.host.runs_node() {
            moments.push(self.host.start_at());
        }
        moments.push(self.host.steady_at());
        moments.extend(self.degrades_at());
        moments.extend(self.host.replace_guard_at());
        if self.lead.is_none() {
            moments.push(self.campaign_due(now));
            moments.push(self.gate.opens_at(&self.settings.me));
        } else if let Some(deadline) = self.deadline(now) {
            moments.push(deadline);
        }
        if let Some(lead) = &self.lead {
            moments.push(lead.offered_at.unwrap_or(lead.since) + self.settings.timing.lease());
        }
        moments.extend(self.resigned_until());
        moments.extend(self.rival_forgotten_at());
        moments.extend(self.sole_founder_waits_until());
        moments.extend(self.shutdown.map(|shutdown| shutdown.since + SHUTDOWN_MAX));
        moments.extend(self.tenure_wakeup());
        moments.into_iter().filter(|at| *at > now).min()
    }
}
