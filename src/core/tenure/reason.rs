//! Why a member lets go.

use serde::{Deserialize, Serialize};

/// Why a member lets go. The text stands in the history and labels a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    Operator,
    Maintenance,
    Failback,
    Shutdown,
    NodeExited,
    ProbeFailed,
    OutOfSync,
    HeadStuck,
    FewPeers,
    LinksFailed,
    ActivationFailed,
    GuardGone,
    /// It keeps its deadline to itself, and may not run.
    GuardSilent,
    /// The wall clock, by which the floor is judged.
    ClockOff,
    /// A phase that signs nothing has lasted too long.
    Stalled,
    StoreFailed,
    LeadLost,
    LeaseLost,
    Slept,
    CannotHold,
    /// Somebody else carries the baton while this host is upgraded.
    Upgrade,
    UpgradeFailed,
    /// Another cluster of this name takes this host for its member.
    OtherCluster,
    /// The key signs on the chain, and no host of the cluster has it.
    KeyElsewhere,
    /// Its signer, or the chain node's way to it.
    SignerGone,
    /// A disk below its coordinator or its chain node does not answer.
    DiskHung,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Operator => "operator",
            Reason::Maintenance => "maintenance",
            Reason::Failback => "failback",
            Reason::Shutdown => "shutdown",
            Reason::NodeExited => "node-exited",
            Reason::ProbeFailed => "probe-failed",
            Reason::OutOfSync => "out-of-sync",
            Reason::HeadStuck => "head-stuck",
            Reason::FewPeers => "few-peers",
            Reason::LinksFailed => "links-failed",
            Reason::ActivationFailed => "activation-failed",
            Reason::GuardGone => "guard-gone",
            Reason::GuardSilent => "guard-silent",
            Reason::ClockOff => "clock-off",
            Reason::Stalled => "stalled",
            Reason::StoreFailed => "store-failed",
            Reason::LeadLost => "lead-lost",
            Reason::LeaseLost => "lease-lost",
            Reason::Slept => "host-slept",
            Reason::CannotHold => "cannot-hold",
            Reason::Upgrade => "upgrade",
            Reason::UpgradeFailed => "upgrade-failed",
            Reason::OtherCluster => "other-cluster",
            Reason::KeyElsewhere => "key-elsewhere",
            Reason::SignerGone => "signer-gone",
            Reason::DiskHung => "disk-hung",
        }
    }
}
