//! Some hosts, one validator identity and a small chain on one machine: what the `localnet` and
//! `simchain` binaries and the end-to-end tests are made of. Nothing here is part of baton itself.

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
pub mod threads;
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
