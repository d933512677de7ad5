//! The other members: Raft and its store, gossip, who may talk to whom, and the connections that carry it all.

pub mod certificates;
pub mod gossip;
pub mod identity;
pub mod introduce;
pub mod raft;
pub mod roster;
pub mod store;
pub mod transport;
pub mod wire;
