//! Three hosts, one validator identity and a small chain on one machine: what the `localnet` and
//! `simchain` binaries and the end-to-end tests are made of. Nothing here is part of baton itself.

pub mod http;
pub mod ports;
pub mod procs;
pub mod proxy;
