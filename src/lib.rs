//! baton: several hosts share one validator identity; exactly one of them signs at any time.
//!
//! Layers, lowest first; a module imports from lower layers only (`tests/layers.rs` enforces it):
//! L0 `ids`, `time`; L1 `timing`, `guard_frame`, `replicated`; L2 `core`, `wire` (both pure); L3
//! `config`, `store`, `key_links`, `guard_client`, `metrics`, `chain`, `guard`; L4 `consensus`,
//! `gossip`, `admin`, `exporter`, `effects`; L5 `driver`; L6 the binaries and `cli`.

pub mod ids;
pub mod time;

pub mod guard_frame;
pub mod replicated;
pub mod timing;

pub mod core;
pub mod wire;

pub mod chain;
pub mod config;
pub mod guard;
pub mod guard_client;
pub mod key_links;
pub mod metrics;
pub mod store;

pub mod admin;
pub mod consensus;
pub mod effects;
pub mod exporter;
pub mod gossip;

pub mod driver;

pub mod cli;
