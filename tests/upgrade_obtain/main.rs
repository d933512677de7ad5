//! How the binary of an upgrade comes to its place: from files, from servers that break off, change their mind or never
//! end, and out of archives that mean no good. Loopback only.

mod archives;
mod download;
mod https;
mod kit;
mod making;
mod places;
mod sources;
