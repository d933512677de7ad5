//! What gossip last told of another member. It may veto or choose; it never grants.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// By its own word, it could take the baton now.
    pub ready: bool,
    /// Why it could not, in its own words; of a version that does not say it, empty.
    pub not_ready_because: String,
    pub reachable: bool,
    pub height: u64,
    /// It has been heard, and does not state its lease: a member of an earlier version.
    pub silent_on_lease: bool,
}
