//! baton: several hosts share one validator identity; exactly one of them signs at any time.
//!
//! Layers, lowest first; a module imports from lower layers only (`tests/layers.rs` enforces it):
//! L0 `ids`, `time`; L1 `timing`, `guard_frame`, `chain_node`; L2 `core` (pure), `config`; L3 `wire`,
//! `store`, `key_links`, `guard_client`, `metrics`, `chain`, `guard`; L4 `consensus`, `gossip`,
//! `admin`, `exporter`, `effects`; L5 `driver`; L6 the binaries and `cli`.

pub mod ids;
pub mod time;

pub mod chain_node;
pub mod guard_frame;
pub mod timing;

pub mod config;
pub mod core;

pub mod chain;
pub mod guard;
pub mod guard_client;
pub mod key_links;
pub mod metrics;
pub mod store;
pub mod wire;

pub mod admin;
pub mod consensus;
pub mod effects;
pub mod exporter;
pub mod gossip;

pub mod driver;

pub mod cli;
