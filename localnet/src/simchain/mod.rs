//! A small but honest chain that stands in for a real one: a proposer a slot, signed blocks and approvals gossiped
//! over TCP, evidence against keys that sign twice. Its nodes speak neard's shapes (`/status`, key files, SIGHUP)
//! and, like neard, protect nothing across hosts: two nodes that hold one key both sign with it.
//! The binary `simchain` runs it; nothing of it may know of baton's leases, links or guards.

pub mod encode;
pub mod genesis;
pub mod keys;
