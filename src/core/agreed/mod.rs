//! What the members have agreed on: the commands of the Raft log, the state that they make, and who is a member.

pub mod members;
pub mod orders;
pub mod replicated;
pub mod sign_log;
