//! Starts, watches and ends processes; all of them die with the keeper.

pub mod foreground;
pub mod keeper;
pub mod launch;
pub mod limits;
pub mod procs;
pub mod programs;
pub mod threads;
