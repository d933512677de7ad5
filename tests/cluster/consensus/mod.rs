//! openraft behind our gate, in clusters of three inside this process: each of its traps that the design
//! names (section 10) has a test here that fails when our protection is taken away.

mod elections;
mod front;
mod gate;
mod hostile;
mod kit;
mod lease;
mod members;
mod pause;
mod slow;
mod slow_disk;
mod snapshots;
mod strangers;
mod timings;
mod transfer;
