//! Some hosts, one validator identity and a small chain on one machine: what the `localnet` and
//! `simchain` binaries and the end-to-end tests are made of. Nothing here is part of baton itself.
//!
//! The only oracle is the log of signatures: every `simchain` node appends each signature before it leaves the process,
//! and CometBFT nodes log what they sign (`signlog`, `votelog`). Everything that runs dies with the `keeper`, which
//! ends when its owner does, however that dies.
//!
//! Hosts are processes on loopback behind proxies that can cut and delay (`proxy`). As root they are network namespaces
//! with a switch in between (`namespaces`, `switch`), disks of their own (`disks`) and a wall clock that can be stepped
//! (`stepped-clock`). Or they are containers (`compose`). `bench` strikes one fault at a time and measures; `nemesis`
//! strikes at random and judges; `slip` makes an operator's slips; `soak` looks for what grows; `load` keeps a holder
//! busy.
//!
//! - `net`: the network of one run, what lies between its hosts, and its ports
//! - `process`: starts, watches and ends processes
//! - `hosts`: what a host is made of, and what can be done to it
//! - `chains`: the stand-in chain, CometBFT and cosmovisor as a network uses them; `simchain` is the stand-in itself
//! - `judge`: who signed what, and how the members see it
//! - `runs`: what brings up a network of its own and judges it
//! - `compose`: the same in containers

pub mod chains;
pub mod compose;
pub mod hosts;
pub mod judge;
pub mod net;
pub mod process;
pub mod runs;
pub mod simchain;
