//! Some hosts, one validator identity and a small chain on one machine: what the `localnet` and
//! `simchain` binaries and the end-to-end tests are made of. Nothing here is part of baton itself.
//!
//! The only oracle is the log of signatures: every `simchain` node appends each signature before it leaves the process, and
//! CometBFT nodes log what they sign (`signlog`, `votelog`). Everything that runs dies with the `keeper`, which ends when its
//! owner does, however that dies.
//!
//! Hosts are processes on loopback behind proxies that can cut and delay (`proxy`). As root they are network namespaces
//! with a switch in between (`namespaces`, `switch`), disks of their own (`disks`) and a wall clock that can be stepped
//! (`stepped-clock`). Or they are containers (`compose`). `bench` strikes one fault at a time and measures; `nemesis` strikes
//! at random and judges; `slip` makes an operator's slips; `soak` looks for what grows; `load` keeps a holder busy.

pub mod signlog;
pub mod simchain;
pub mod votelog;

pub mod http;
pub mod namespaces;
pub mod ports;
pub mod procs;
pub mod proxy;
pub mod wires;

pub mod keeper;
pub mod net;
pub mod status;

pub mod chain_cometbft;
pub mod chain_sim;
pub mod clock;
pub mod compose;
pub mod cosmovisor;
pub mod disks;
pub mod hosts;
pub mod limits;
pub mod switch;
pub mod tls;

pub mod check;
pub mod cost;
pub mod faults;
pub mod flood;
pub mod folders;
pub mod launch;
pub mod logs;
pub mod measure;
pub mod programs;
pub mod table;
pub mod timing;

pub mod bench;
pub mod demo;
pub mod etcd;
pub mod foreground;
pub mod idle;
pub mod load;
pub mod nemesis;
pub mod slip;
pub mod soak;
