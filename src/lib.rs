//! baton: several hosts share one validator identity; exactly one of them signs at any time.
//!
//! Floors, lowest first; each imports only from those below it (`tests/layers.rs` reads this list and enforces it):
//!
//! - `base`: words that all floors use, and what the operating system is asked for
//! - `core`: decides; pure
//! - `rules`: what must hold of each member and of all together, judged from outside
//! - `record`: what the core was told and answered, kept and replayed
//! - `core_handle`: the core behind its mutex
//! - `config`: `baton.toml` as typed values
//! - `host`: this host, its guard, key links and chain node; never imports `cluster`
//! - `cluster`: the other members, Raft, gossip and TLS; never imports `host`
//! - `operator`: what people ask and see; reaches neither the guard nor the links
//! - `coordinator`: joins the floors below into one running member
//! - `cli`: the command line

pub mod base;
pub mod core;
pub mod core_handle;
pub mod record;
pub mod rules;

pub mod config;

pub mod cluster;
pub mod host;

pub mod operator;

pub mod coordinator;

pub mod cli;
