//! Names of things that every layer speaks of. No behaviour beyond ordering and display.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A Raft term: at most one leader each.
pub type Term = u64;

/// The configured name of a member, such as `host-a`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

impl NodeId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `name` can name a member: it stands in files, URIs and log lines, and hides in none of them.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

impl Default for NodeId {
    fn default() -> Self {
        NodeId("".into())
    }
}

impl From<&str> for NodeId {
    fn from(name: &str) -> Self {
        NodeId(name.into())
    }
}

impl From<String> for NodeId {
    fn from(name: String) -> Self {
        NodeId(name.into())
    }
}

/// openraft's storage test suite numbers its members.
impl From<u64> for NodeId {
    fn from(number: u64) -> Self {
        NodeId(number.to_string().into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an upgrade of the chain node is called: by the chain's own plan, or by an operator. Never empty. In file names
/// it is URI-encoded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpgradeName(Arc<str>);

impl UpgradeName {
    /// The binary that a chain begins with.
    pub const GENESIS: &str = "genesis";

    /// # Errors
    /// What no upgrade can be called, in words.
    pub fn new(name: &str) -> Result<UpgradeName, String> {
        if name.is_empty() {
            Err("an upgrade has a name".to_owned())
        } else if name.len() > 128 {
            Err(format!("{} bytes are too long for the name of an upgrade; 128 are allowed", name.len()))
        } else if name.chars().any(char::is_control) {
            Err(format!("{name:?} has a control character in it"))
        } else {
            Ok(UpgradeName(name.into()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpgradeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UpgradeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fencing token: one per committed `Claim`, strictly increasing. Zero before the first claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a key signed lies at or below this: a height and, on chains that vote in rounds, where in it; and, on chains
/// where a node approves heights that have no block yet, the highest of those.
///
/// The two rise apart from each other, so marks have no order: one may be above another in blocks, and below it in
/// approvals. [`covers`](SignMark::covers) and [`with`](SignMark::with) look at both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignMark {
    pub height: u64,
    pub round: u32,
    pub step: u32,
    /// No higher height was approved. Zero on chains where nothing is approved ahead of its block.
    #[serde(default)]
    pub approved: u64,
}

impl SignMark {
    /// The last step of the last round that a height can have: chains count rounds in 31 bits, and a
    /// precommit is the third and last step of one.
    const LAST_ROUND: u32 = i32::MAX.unsigned_abs();
    const LAST_STEP: u32 = 3;

    pub fn at_height(height: u64) -> Self {
        SignMark::at_step(height, 0, 0)
    }

    pub fn at_step(height: u64, round: u32, step: u32) -> Self {
        SignMark { height, round, step, approved: 0 }
    }

    /// Blocks up to `head`, and approvals up to `approved`, which is above zero.
    pub fn of_approvals(head: u64, approved: u64) -> Self {
        SignMark { approved, ..SignMark::at_height(head) }
    }

    /// All of `height` counts as signed, in whatever round.
    pub fn whole_height(height: u64) -> Self {
        SignMark::at_step(height, SignMark::LAST_ROUND, SignMark::LAST_STEP)
    }

    pub fn is_whole_height(&self) -> bool {
        self.place() == SignMark::whole_height(self.height).place()
    }

    fn place(&self) -> (u64, u32, u32) {
        (self.height, self.round, self.step)
    }

    /// All that lies at or below `other` lies at or below this one.
    pub fn covers(&self, other: &SignMark) -> bool {
        self.place() >= other.place() && self.approved >= other.approved
    }

    /// The lowest mark that covers both.
    pub fn with(self, other: SignMark) -> SignMark {
        let higher = if other.place() > self.place() { other } else { self };
        SignMark { approved: self.approved.max(other.approved), ..higher }
    }

    /// The lowest mark that covers whichever of the two there are.
    pub fn of_both(one: Option<SignMark>, other: Option<SignMark>) -> Option<SignMark> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.with(other)),
            (one, other) => one.or(other),
        }
    }

    /// Whether `told` says more than what is `known`.
    pub fn is_news(told: Option<SignMark>, known: Option<SignMark>) -> bool {
        told.is_some_and(|told| !known.is_some_and(|known| known.covers(&told)))
    }
}

impl fmt::Display for SignMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole_height() {
            write!(f, "{} (whole height)", self.height)
        } else if self.round == 0 && self.step == 0 {
            write!(f, "{}", self.height)
        } else {
            write!(f, "{}/{}/{}", self.height, self.round, self.step)
        }?;
        if self.approved == 0 { Ok(()) } else { write!(f, " (approved to {})", self.approved) }
    }
}

/// What a member may do, by configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs a chain node and can hold the baton.
    Validator,
    /// Votes, and runs no chain node.
    Arbiter,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Validator => "validator",
            Role::Arbiter => "arbiter",
        }
    }
}

/// What a member may do in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    Voter,
    /// It gets the log.
    Learner,
    /// It stands in the configuration of a host whose log knows no membership yet.
    Unknown,
}

impl Vote {
    pub fn as_str(self) -> &'static str {
        match self {
            Vote::Voter => "voter",
            Vote::Learner => "learner",
            Vote::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_shown_as_finely_as_it_is_known() {
        assert_eq!(SignMark::at_height(3).to_string(), "3");
        assert_eq!(SignMark::at_step(3, 1, 2).to_string(), "3/1/2");
        assert_eq!(SignMark::of_approvals(3, 4).to_string(), "3 (approved to 4)");
        assert_eq!(SignMark::whole_height(3).to_string(), "3 (whole height)");
    }

    #[test]
    fn a_whole_height_lies_above_every_step_in_it_and_below_the_next() {
        let last = SignMark::at_step(3, u32::MAX >> 1, 3);
        assert!(SignMark::whole_height(3).covers(&last) && !SignMark::whole_height(3).covers(&SignMark::at_height(4)));
    }

    #[test]
    fn a_mark_covers_another_only_in_blocks_and_approvals_alike() {
        let (ahead, behind) = (SignMark::of_approvals(10, 11), SignMark::of_approvals(9, 14));
        assert!(!ahead.covers(&behind) && !behind.covers(&ahead));
        let both = SignMark::of_approvals(10, 14);
        assert_eq!((ahead.with(behind), behind.with(ahead)), (both, both));
        assert!(both.covers(&ahead) && both.covers(&behind) && both.covers(&both));
        assert!(SignMark::is_news(Some(behind), Some(ahead)) && SignMark::is_news(Some(ahead), Some(behind)));
        assert!(SignMark::is_news(Some(ahead), None) && !SignMark::is_news(None, Some(ahead)));
        assert!(!SignMark::is_news(Some(ahead), Some(both)));
        assert_eq!(SignMark::of_both(Some(ahead), None), Some(ahead));
    }
}
