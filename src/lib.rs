//! baton: several hosts share one validator identity; exactly one of them signs at any time.
//!
//! Layers, lowest first; a module imports from lower layers only (`tests/layers.rs` enforces it):
//! L0 `ids`, `time`, `realtime`, `private_file`, `processes`; L1 `timing`, `guard_frame`, `public_key`, `chain_node`;
//! L2 `core` (pure), `config`, `key_links`, `certificates`, `service_manager`; L3 `shared_core`, `shared_answer`, `transport`,
//! `wire`, `guard_client`, `metrics`, `chain`, `guard`, `upgrade`; L4 `store`, `identity`, `roster`, `admin`, `findings`, `effects`;
//! L5 `consensus`, `gossip`, `relay`, `joining`, `exporter`; L6 `driver`; L7 the binaries and `cli`.

pub mod ids;
pub mod private_file;
pub mod processes;
pub mod realtime;
pub mod time;

pub mod chain_node;
pub mod guard_frame;
pub mod public_key;
pub mod timing;

pub mod certificates;
pub mod config;
pub mod core;
pub mod key_links;
pub mod service_manager;

pub mod chain;
pub mod guard;
pub mod guard_client;
pub mod metrics;
pub mod shared_answer;
pub mod shared_core;
pub mod transport;
pub mod upgrade;
pub mod wire;

pub mod admin;
pub mod effects;
pub mod findings;
pub mod identity;
pub mod roster;
pub mod store;

pub mod consensus;
pub mod exporter;
pub mod gossip;
pub mod joining;
pub mod relay;

pub mod driver;

pub mod cli;
