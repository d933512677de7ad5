//! What the members of a cluster make of each other: votes and log, store, gossip.
//!
//! No test here starts a process. A fork keeps the lock of every open store until its program begins, and a store that is
//! closed and opened again meanwhile is found locked: what starts processes is in programs of its own (`store_crash`, `tls`).

mod consensus;
mod gossip;
#[path = "../kit/mod.rs"]
mod kit;
mod store;
mod store_damage;
mod wire;
