//! This host: the guard and its client, the signer and its client, the links to the keys, the chain node and its
//! upgrades, the operator's hooks, the watchdog. `effects` does here what the core asks for.

pub mod chain;
pub mod effects;
pub mod guard;
pub mod guard_client;
pub mod hooks;
pub mod key_links;
pub mod privval;
pub mod sign_bytes;
pub mod signer;
pub mod signer_client;
pub mod upgrade;
pub mod watchdog;
