//! What gossip last told of another member. It may veto or choose; it never grants.

use crate::ids::SignMark;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// By its own word, it could take the baton now.
    pub ready: bool,
    pub reachable: bool,
    /// By its own word, its chain node signs.
    pub active: bool,
    pub height: u64,
    pub last_signed: Option<SignMark>,
}
