//! What the core is told and what it asks for: its whole contact with the world.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::chain_node::{Health, KeyLook, MetFloor, SignFloor};
use crate::base::guard_frame::{Armed, ExitCause, NodeProcess};
use crate::base::ids::{Epoch, NodeId, SignMark, Term, UpgradeName};
use crate::base::time::BootTime;
use crate::core::agreed::replicated::{Applied, Command, View};
use crate::core::clock::ClockOffset;
use crate::core::fences::lease::VoterSets;
use crate::core::host::Descendant;
use crate::core::key_watch::Unheld;
use crate::core::peers::Peer;
use crate::core::tenure::Reason;

/// Something that happened. The shell reports each once, in the order in which it learnt of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Nothing but time.
    Tick,
    /// The host was suspended since the last event.
    Slept,

    /// A request of this leader, which arrived at `arrived_at`, was accepted. Reported before the answer leaves this
    /// host. `promise` is what [`Core::promise_to`](super::Core::promise_to) said of the leader's lease, and the store
    /// remembers it.
    Accepted {
        leader: NodeId,
        term: Term,
        arrived_at: BootTime,
        promise: Duration,
    },
    /// This member is about to let Raft consider a vote in `term`; the gate has agreed.
    Voting {
        term: Term,
    },
    /// Raft has considered it, and this member's own vote is of `term` now. Follows every `Voting`.
    Considered {
        term: Term,
    },
    /// This member's own vote is of `term`, whoever brought that about.
    Voted {
        term: Term,
    },
    /// A `Release` written in `term` stands in this member's log.
    ReleaseLogged {
        term: Term,
    },
    /// This member is the leader of `term`.
    Led {
        term: Term,
    },
    /// This member leads no term.
    LeadLost,
    /// `from` accepted a request that this member, leading `term`, sent at `sent_at`, and promised to elect nobody else
    /// for `promised` by its own clock. `None` of a version that does not say.
    Acked {
        from: NodeId,
        term: Term,
        sent_at: BootTime,
        promised: Option<Duration>,
    },
    /// The voters by the last membership in this member's log, committed or not.
    ///
    /// Invariant (fence 1): reported before anybody else can have that entry from here; see `lease`.
    Voters(VoterSets),
    /// All who belong by that membership, voters and learners, and the priority of each as configured. This
    /// member stands in it unless its store must not vote.
    Members(BTreeMap<NodeId, u32>),
    /// A committed command of an entry of `term` was applied, with this outcome and leaving this view.
    Applied {
        term: Term,
        command: Command,
        outcome: Applied,
        view: View,
    },
    /// Another member's snapshot has replaced the replicated state, and the log up to it. The newest `Release` in it
    /// was written in `released_term`.
    Restored {
        view: View,
        released_term: Option<Term>,
    },
    /// The membership changed, and the replicated state with it.
    Forgotten {
        view: View,
    },
    /// What this member proposed did not commit in its term.
    ProposalFailed {
        reason: String,
    },

    /// A guard answers. `node` and `armed` are what it found or was doing; without `node`, no chain
    /// node of this member runs.
    GuardAttached {
        node: Option<NodeProcess>,
        armed: Option<Armed>,
    },
    /// Whether it answers pings, each time that this changes.
    GuardAnswers(bool),
    /// It refuses an `Arm`, since it was armed under a higher epoch before.
    GuardSuperseded {
        by: Epoch,
    },
    /// The guard is gone; whether all of its chain node is proven gone too.
    GuardGone {
        node_proven_dead: bool,
    },
    /// The guard keeps this deadline.
    GuardArmed {
        epoch: Epoch,
        deadline: BootTime,
    },
    NodeStarted {
        validator_epoch: Option<Epoch>,
    },
    NodeStartFailed {
        reason: String,
    },
    /// The chain node and its descendants are gone.
    NodeExited {
        cause: ExitCause,
    },
    /// The guard fired.
    Fenced {
        epoch: Epoch,
    },

    /// What makes a standby of this host's node sign, or leads the node past its links; `None` once nothing does. A
    /// holder goes on: it is the one that signs.
    KeyDefect {
        reason: Option<String>,
    },
    /// The links are validating and the node is ready to be activated.
    Linked {
        epoch: Epoch,
    },
    /// The links could not be brought where they should be.
    LinksFailed {
        reason: String,
    },
    /// Links of which `LinksFailed` said that they are late are in standby.
    LinksPutAway,
    /// The node was proven to run with the key.
    Activated {
        epoch: Epoch,
    },
    ActivationFailed {
        epoch: Epoch,
        reason: String,
    },
    /// The node was proven stopped, or keyless with its links in standby; what it signed last, when the chain node
    /// records it. Links that are not in standby by then are told of by `LinksFailed`.
    Inactive {
        last_signed: Option<SignMark>,
    },

    /// This upgrade of the chain node is to be carried out now, and its binary is there.
    UpgradeDue {
        name: UpgradeName,
        /// To a binary that ran before.
        back: bool,
    },
    /// What `Upgrade` came to; the chain node is stopped, and its old binary starts if it failed.
    UpgradeEnded {
        name: UpgradeName,
        failed: Option<String>,
    },

    Probed(Health),
    ProbeFailed {
        reason: String,
    },
    /// The node is to give its key away or to end, has answered before, and does not answer a probe now.
    NodeSilent,
    Peers(BTreeMap<NodeId, Peer>),
    /// What was measured of the wall clocks of members in reach.
    ClockOffsets(BTreeMap<NodeId, ClockOffset>),
    /// `member` of another cluster of this name, which other members formed, has called this one as its own.
    RivalHeard {
        member: NodeId,
    },
    /// A process below the running chain node that the kernel would not end with the guard; `None`: there is none any
    /// more. Never told of a node that has a PID namespace.
    NodeHides {
        below: Option<Descendant>,
    },
    /// Somebody, this host included, is known to have signed up to here with the shared key.
    MarkSeen(SignMark),
    /// The chain was asked what the shared key signed.
    KeyLooked(KeyLook),
    /// A leader says that nobody holds the baton.
    UnheldTold(Unheld),

    /// Answered by `AnswerHandover` within `timeout`.
    HandoverWanted {
        to: Option<NodeId>,
        timeout: Duration,
        /// `Operator`, or `Upgrade` for a plan that the cluster carries out.
        reason: Reason,
    },
    /// The coordinator is to end. A chain node that is proven to have no key stays, unless it is to stop too.
    ShutdownWanted {
        stop_node: bool,
    },
    StoreFailed {
        reason: String,
    },
    /// A chain node that is not ours answers where ours is probed, or has its home open: who it is, and what to do.
    /// `None` when it is gone. Nothing that it answers is reported as `Probed`.
    ForeignNode {
        found: Option<String>,
    },
    /// `StartStandby` was not carried out, because of a `ForeignNode` or an order to let go; the guard was not asked.
    StartWithheld,
    /// The disk of this directory has not answered for longer than the configuration allows.
    DiskHung {
        dir: String,
    },
    /// It answers again. Follows every `DiskHung`, if anything does.
    DiskBack {
        dir: String,
    },
    /// The store has given up its reserve of room, and what is left; `None`: it has a reserve.
    DiskFull {
        room: Option<String>,
    },
    /// What keeps a validator's key from being linked, while the node may run as a standby; `None` once nothing does.
    KeysUnusable {
        reason: Option<String>,
    },
    /// The log has admitted a request to sign at this height, and is applied here so far.
    Admitted {
        height: u64,
    },

    /// This member's vote of `term` for itself is on its disk, and the others are asked for theirs. Told once for each.
    VotesAsked {
        term: Term,
    },
    /// `by` has refused its vote of `term`, or was asked in vain.
    VoteDenied {
        by: NodeId,
        term: Term,
    },
}

/// Something to do. The shell starts each in the given order; what has an outcome reports it as an
/// [`Event`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// → `NodeStarted`, `NodeStartFailed` or `StartWithheld`. The guard puts the links into standby first.
    StartStandby,
    /// → `GuardGone`. Its chain node ends with it.
    EndGuard,
    /// → `GuardArmed` or `GuardSuperseded`. Renews as well.
    Arm {
        epoch: Epoch,
        deadline: BootTime,
    },
    Disarm {
        epoch: Epoch,
    },
    /// → `Linked` or `LinksFailed`. Needs the guard's word for this epoch. After an upgrade in a tenure that met its
    /// floor, that is the own last mark or nothing: the node is stopped, and shows no block.
    LinkValidating {
        epoch: Epoch,
        floor: SignFloor,
    },
    /// → `Activated` or `ActivationFailed`. Starts the node as a validator when it is not running.
    Activate {
        epoch: Epoch,
    },
    /// → `Inactive`, always: when the gentle way does not prove it in time, the node is stopped, then
    /// killed.
    Deactivate {
        kill: bool,
    },
    /// → `UpgradeEnded`, always. The chain node, which has no key, is stopped first.
    Upgrade {
        name: UpgradeName,
        back: bool,
    },
    /// Whether to probe as fast as blocks can come, or at the configured pace.
    WatchChain {
        closely: bool,
    },

    /// → `Applied` or `ProposalFailed`. So do the other proposals.
    ProposeClaim {
        epoch: Epoch,
        reason: String,
    },
    ProposeRelease {
        epoch: Epoch,
        last_signed: Option<SignMark>,
        reason: String,
        to: Option<NodeId>,
    },
    ProposeActivated {
        epoch: Epoch,
        floor: MetFloor,
        began_at: BootTime,
    },
    Campaign,
    TransferLead {
        to: NodeId,
    },

    AnswerHandover(Result<Handover, String>),
    /// The coordinator may end, and the chain node is to end with it or stays as a standby.
    Finish {
        stop_node: bool,
    },
}

/// A handover that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    pub to: NodeId,
    pub epoch: Epoch,
    pub asked_at: BootTime,
}
