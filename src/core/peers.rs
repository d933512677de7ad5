//! What gossip last told of another member. It may veto or choose; it never grants.

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// By its own word, it could take the baton now.
    pub ready: bool,
    pub reachable: bool,
    pub height: u64,
}
