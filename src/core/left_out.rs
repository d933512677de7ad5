//! Rules of the safety argument that a coordinator can be run without, to see that its record shows it. Only a build with
//! the feature `left-out-rules` can leave one out; in every other, [`is_left_out`] is `false` before the program runs.

#[cfg(feature = "left-out-rules")]
use std::sync::OnceLock;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Rule (a).
    Quarantine,
    /// Rule (b).
    Promise,
    /// Rule (b), as far as a leader promises itself what its followers promised it.
    OwnPromise,
    /// Rule (c).
    NodeProof,
    /// Rule W without "of term T".
    ReleaseOfTheTerm,
    /// Rule W without "never again in T".
    NoSecondClaim,
    /// The guard is given a deadline that does not come.
    Deadline,
    /// The deadline is reckoned for clocks without error.
    Drift,
}

impl LeftOut {
    pub const ALL: [LeftOut; 8] = [
        LeftOut::Quarantine,
        LeftOut::Promise,
        LeftOut::OwnPromise,
        LeftOut::NodeProof,
        LeftOut::ReleaseOfTheTerm,
        LeftOut::NoSecondClaim,
        LeftOut::Deadline,
        LeftOut::Drift,
    ];
}

#[cfg(feature = "left-out-rules")]
static LEFT_OUT: OnceLock<LeftOut> = OnceLock::new();

/// From now on this process goes without `rule`, and without no other.
#[cfg(feature = "left-out-rules")]
pub fn leave_out(rule: LeftOut) {
    LEFT_OUT.get_or_init(|| rule);
}

#[cfg(feature = "left-out-rules")]
pub(super) fn is_left_out(rule: LeftOut) -> bool {
    LEFT_OUT.get() == Some(&rule)
}

#[cfg(not(feature = "left-out-rules"))]
pub(super) const fn is_left_out(_: LeftOut) -> bool {
    false
}
