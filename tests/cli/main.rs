//! The `baton` program as an operator meets it: one clear line for bad input, exit codes, tables and
//! JSON. The coordinator is a small server in this process that answers the admin protocol.

mod canary;
mod fake_coordinator;
mod handover_at;
mod init;
#[path = "../kit/mod.rs"]
mod kit;
mod orders;
mod pages;
mod past;
mod refusals;
mod shown;
mod signer;
mod watch;
mod windows;
