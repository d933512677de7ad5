//! How the binary of an upgrade comes to its place: from files, from servers that break off, change their mind or never
//! end, and out of archives that mean no good. Loopback only.
//!
//! A program of its own: a place is locked while a binary is brought to it, and every process that another test starts
//! keeps that lock until its program begins.

mod archives;
mod download;
mod https;
#[path = "../../kit/mod.rs"]
mod kit;
mod places;
mod servers;
mod sources;
