//! What one host does to its chain node and its keys: drivers, guard, links, signer, upgrades. How the binary of an
//! upgrade comes to its place is a program of its own, `upgrade_obtain`.

mod chain;
mod guard;
mod key_links;
mod key_links_kills;
#[path = "../kit/mod.rs"]
mod kit;
mod near_node;
mod privval;
mod processes;
mod signer;
mod upgrade;
mod upgrade_node;
