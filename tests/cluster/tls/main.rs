//! Who may speak to a member over the network, and how a member knows whom it speaks to: certificates as
//! `baton cert` makes them, connections under TLS, and everybody who must be refused. Loopback only.

mod certs;
mod cluster;
#[path = "../../kit/mod.rs"]
mod kit;
mod making;
mod remote;
mod strangers;
