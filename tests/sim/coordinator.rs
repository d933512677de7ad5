//! What surrounds a core in its coordinator, in the manner of `coordinator/`. Every `await` of the real one is a stage
//! of its own here, so that pauses and other events fall in between.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use baton::base::guard_frame::Armed;
use baton::base::ids::{Epoch, NodeId};
use baton::base::time::{BootTime, Now};
use baton::base::timing::{LeaseSpan, Timing};
use baton::core::agreed::replicated::{Baton, Command};
use baton::core::fences::votes::VoteGate;
use baton::core::{Action, ClockOffset, Core, Event, Memory, Peer};
use baton::rules::Witness;

use crate::disk::Dir;
use crate::members::Members;
use crate::network::Message;
use crate::raft::{Append, Appended, Ballot, Id};
use crate::signing::{Desk, Step};
use crate::silence::Owes;
use crate::worker::{Doing, Job};
use crate::world::{MS, World};

#[derive(Clone, Debug)]
pub enum Request {
    Append {
        from: Id,
        peer: u32,
        append: Append,
        snapshot: bool,
        sent_at: BootTime,
        lease: LeaseSpan,
        arrived_at: BootTime,
    },
    Vote {
        from: Id,
        peer: u32,
        ballot: Ballot,
    },
}

#[derive(Clone, Debug)]
pub enum Stage {
    Tick(u64),
    Heartbeat {
        term: u64,
    },
    Probe,
    Gossip,
    Attach,
    Campaign,
    AskVotes(Ballot),
    VotesOver {
        term: u64,
    },
    /// A few bytes are written and synced in each directory.
    Pulse,
    PulseLate(Dir),
    PulseBack(Dir),
    PutLinksAway,
    Transfer {
        to: Id,
    },
    Propose(Command),
    ProposalFailed,
    Replicate {
        to: Id,
    },
    Apply,
    Metrics,
    TellVoters,
    /// What the leader of `term` wrote itself is on its disk.
    Written {
        term: u64,
        upto: usize,
    },
    AwaitRelease {
        from: Id,
        peer: u32,
        ballot: Ballot,
        until: u64,
    },
    AwaitTransfer {
        from: Id,
        vote: (u64, Option<Id>),
        last: (u64, usize),
        until: u64,
    },
    Elect {
        vote: (u64, Option<Id>),
        last: (u64, usize),
    },
    Considers(Request),
    /// A snapshot has taken the place of the state.
    Installed {
        request: Request,
        appended: Appended,
    },
    Answers {
        request: Request,
        appended: Appended,
    },
    /// The promise stands on disk.
    Promises {
        request: Request,
        appended: Appended,
        promise: Duration,
    },
    Considered {
        from: Id,
        peer: u32,
        ballot: Ballot,
        granted: bool,
        vote: (u64, Option<Id>),
    },
    Worker(u64),
    /// What an order about the key comes to where no chain node has it.
    WithoutKey(Event),
    /// The chain node answers, or is asked again.
    AwaitAnswer {
        epoch: Epoch,
    },
    Sign(Step),
    Finish {
        stop_node: bool,
    },
}

pub struct Coordinator {
    pub core: Core,
    /// Follows the same events as the core's own gate, for the mutations that drop one rule of it.
    pub shadow: VoteGate,
    pub witness: Witness,
    me: NodeId,
    timing: Timing,
    /// When votes, or pre-votes, of this term were asked for.
    pub asked_votes: (u64, u64),
    pub asked_pre_votes: (u64, u64),
    /// When a snapshot was last sent to each.
    pub snapshots: BTreeMap<Id, u64>,
    pub readers: u32,
    pub writer: bool,
    pub queue: VecDeque<Request>,
    pub told: Option<(u64, bool)>,
    pub metrics: (u64, bool),
    pub told_voters: Option<Members>,
    /// Index of a change that this coordinator began, and will settle.
    pub changes: Option<usize>,
    /// Index and term of what was proposed and is not applied.
    pub pending: Vec<(usize, u64)>,
    pub jobs: VecDeque<Job>,
    pub doing: Option<Doing>,
    pub work_id: u64,
    pub let_go: u64,
    pub done: u64,
    pub armed: Option<Armed>,
    pub node_seen: Option<u32>,
    /// When a guard was first greeted that has not answered yet.
    pub greeted_at: Option<u64>,
    /// As it was told.
    pub guard_answers: bool,
    /// The node is proven gone as far as the guard told.
    pub gone: bool,
    pub closely: bool,
    pub tick: u64,
    pub owes: BTreeMap<Id, Owes>,
    pub desk: Desk,
    pub heard: BTreeMap<Id, (u64, Peer)>,
    pub told_peers: BTreeMap<NodeId, Peer>,
    pub told_clocks: BTreeMap<NodeId, ClockOffset>,
}

impl Coordinator {
    /// `earlier` is who followed the run before.
    pub fn new(
        core: Core,
        me: NodeId,
        memory: Memory,
        timing: Timing,
        now: BootTime,
        earlier: Option<Witness>,
    ) -> Coordinator {
        let witness = match earlier {
            None => Witness::new(&core, now),
            Some(earlier) => Witness::again(&core, now, earlier),
        };
        Coordinator {
            core,
            witness,
            shadow: VoteGate::new(timing.promise(), now, &memory),
            me,
            timing,
            asked_votes: (0, 0),
            asked_pre_votes: (0, 0),
            snapshots: BTreeMap::new(),
            readers: 0,
            writer: false,
            queue: VecDeque::new(),
            told: None,
            metrics: (0, false),
            told_voters: None,
            changes: None,
            pending: Vec::new(),
            jobs: VecDeque::new(),
            doing: None,
            work_id: 0,
            let_go: 0,
            done: 0,
            armed: None,
            node_seen: None,
            greeted_at: None,
            guard_answers: true,
            gone: false,
            closely: false,
            tick: 0,
            owes: BTreeMap::new(),
            desk: Desk::default(),
            heard: BTreeMap::new(),
            told_peers: BTreeMap::new(),
            told_clocks: BTreeMap::new(),
        }
    }

    fn before_step(&mut self, event: &Event) {
        match event {
            Event::Accepted { leader, term, arrived_at, promise } => {
                self.shadow.note_accepted(leader, *term, *arrived_at, *promise);
            }
            Event::ReleaseLogged { term } => self.shadow.note_release(*term),
            Event::Voted { term } | Event::Considered { term } | Event::Led { term } => self.shadow.note_vote(*term),
            Event::Applied { term, command: Command::Baton(Baton::Release { .. }), .. } => {
                self.shadow.note_release(*term)
            }
            _ => {}
        }
    }

    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.before_step(&event);
        let actions = self.core.step(now, event.clone());
        self.witness.step(&self.core, now.boot, &event, &actions);
        self.after_step(now);
        actions
    }

    fn after_step(&mut self, now: Now) {
        if let Some(left) = self.core.lease_remaining(now.boot) {
            let acked_at = now.boot + left - (self.timing.lease_min() - self.timing.kill_max());
            let term = self.core.leads().expect("it has a lease");
            self.shadow.note_own_lease(&self.me, term, acked_at);
        }
    }
}

impl World {
    pub fn proceed(&mut self, host: Id, stage: Stage) {
        match stage {
            Stage::Tick(tick) => {
                if self.hosts[host].coordinator.as_ref().is_some_and(|c| c.tick == tick) {
                    self.step(host, Event::Tick);
                }
            }
            Stage::Heartbeat { term } => self.heartbeat(host, term),
            Stage::Probe => self.probe(host),
            Stage::Gossip => self.gossip(host),
            Stage::Attach => self.attach(host),
            Stage::Campaign => self.campaign(host),
            Stage::AskVotes(ballot) => self.ask_votes(host, &ballot),
            Stage::VotesOver { term } => self.votes_over(host, term),
            Stage::Pulse => self.pulse(host),
            Stage::PutLinksAway => self.put_links_away(host),
            Stage::PulseLate(dir) => self.pulse_late(host, dir),
            Stage::PulseBack(dir) => self.step(host, Event::DiskBack { dir: dir.name().to_owned() }),
            Stage::Transfer { to } => self.transfer(host, to),
            Stage::Propose(command) => self.propose(host, command),
            Stage::ProposalFailed => self.step(host, Event::ProposalFailed { reason: "not committed".into() }),
            Stage::Replicate { to } => self.replicate(host, to),
            Stage::Apply => {
                self.apply(host);
                if self.has_to_apply(host) {
                    let after = self.random.between(0, MS);
                    self.own(host, after, Stage::Apply);
                }
            }
            Stage::Metrics => self.metrics(host),
            Stage::TellVoters => self.tell_voters(host),
            Stage::Written { term, upto } => self.written(host, term, upto),
            Stage::AwaitRelease { from, peer, ballot, until } => {
                if self.gate(host, from) || self.at >= until {
                    self.enter(host, Request::Vote { from, peer, ballot });
                } else {
                    self.own(host, 4 * MS, Stage::AwaitRelease { from, peer, ballot, until });
                }
            }
            Stage::AwaitTransfer { from, vote, last, until } => {
                if self.gate(host, host) {
                    let after = self.moment();
                    self.own(host, after, Stage::Elect { vote, last });
                } else if self.at < until {
                    self.own(host, 4 * MS, Stage::AwaitTransfer { from, vote, last, until });
                }
            }
            Stage::Elect { vote, last } => {
                if self.vote_of(host) == vote && self.hosts[host].raft.last() >= last {
                    self.elect(host, true);
                }
            }
            Stage::Considers(request) => self.considers(host, request),
            Stage::Installed { request, appended } => self.installed(host, request, appended),
            Stage::Answers { request, appended } => self.answers(host, request, appended),
            Stage::Promises { request, appended, promise } => self.promises(host, request, appended, promise),
            Stage::Considered { from, peer, ballot, granted, vote } => {
                self.step(host, Event::Considered { term: vote.0 });
                self.report_lead(host);
                self.send(host, from, peer, Message::Voted { round: ballot.term, granted, vote });
                self.leave_turn(host, true);
            }
            Stage::Worker(id) => self.worker_wakes(host, id),
            Stage::WithoutKey(event) => self.step(host, event),
            Stage::AwaitAnswer { epoch } => self.await_answer(host, epoch),
            Stage::Sign(step) => self.sign(host, step),
            Stage::Finish { stop_node } => {
                self.note(|| format!("{host} coordinator ends"));
                if stop_node {
                    self.hosts[host].machine.crash();
                    self.hosts[host].machine.links = false;
                }
                self.lose_coordinator(host);
            }
        }
    }
}
