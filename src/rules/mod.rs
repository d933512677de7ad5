//! The rules of docs/safety.md, judged from outside: what must hold of each member, and of all of them together, by
//! what they were told, what they asked for and what they answered.
//!
//! [`Witness`] follows one member and does its own sums: it does not ask the gate or the lease of the core that it
//! watches. [`cluster`] compares members. The model, the simulation and the replay of records share this module. Where
//! a witness did not see the beginning it gives the member the benefit of the doubt, so a breach is always a real one.

pub mod cluster;
mod guard;
mod promises;
mod quorum;
mod witness;

use std::fmt;

use crate::base::ids::NodeId;
use crate::base::time::BootTime;
pub use guard::ArmedSpan;
pub use witness::Witness;

/// A rule of docs/safety.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Fence 2, (a): no vote while a promise of before the start may be alive.
    Quarantine,
    /// Fence 2, (b): no vote for others within a promise.
    Promise,
    /// Fence 2, (c): no vote while the own chain node may sign.
    NodeProof,
    /// Rule W: no claim counts in a term after a `Release` of it.
    SecondClaim,
    /// Fence 1: the guard's deadline lies inside the lease that a quorum has promised.
    LeaseBound,
    /// A `Release` is proposed once the chain node is proven to have no key.
    ReleaseProof,
    /// The key is linked only under an armed guard of the epoch.
    ArmedLink,
    /// Never two guards are armed at once.
    OneLease,
    /// What is signed is signed inside the lease of its host.
    SignedInLease,
}

impl Rule {
    pub const ALL: [Rule; 9] = [
        Rule::Quarantine,
        Rule::Promise,
        Rule::NodeProof,
        Rule::SecondClaim,
        Rule::LeaseBound,
        Rule::ReleaseProof,
        Rule::ArmedLink,
        Rule::OneLease,
        Rule::SignedInLease,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Quarantine => "rule (a)",
            Rule::Promise => "rule (b)",
            Rule::NodeProof => "rule (c)",
            Rule::SecondClaim => "rule W",
            Rule::LeaseBound => "fence 1",
            Rule::ReleaseProof => "proof before release",
            Rule::ArmedLink => "key under an armed guard",
            Rule::OneLease => "one lease at a time",
            Rule::SignedInLease => "signed inside the lease",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Breach {
    pub rule: Rule,
    /// Who broke it, or the later of two.
    pub member: NodeId,
    /// By that member's clock.
    pub at: BootTime,
    pub text: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Breach { rule, member, at, text } = self;
        let millis = at.as_nanos() / 1_000_000;
        write!(f, "{rule} is broken by {member} at {}.{:03} s of its clock: {text}", millis / 1000, millis % 1000)
    }
}
