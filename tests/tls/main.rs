//! Who may speak to a member over the network, and how a member knows whom it speaks to: certificates as
//! `baton cert` makes them, connections under TLS, and everybody who must be refused. Loopback only.

mod cluster;
mod kit;
mod making;
#[path = "../program_kit/mod.rs"]
mod program_kit;
mod remote;
mod strangers;
