//! baton on whole networks of real processes, a file for each thing that may happen to them. One program, so that
//! networks of different files run side by side: most of their time they wait.

#[path = "../common/mod.rs"]
mod common;

mod balancer;
mod degraded;
mod e2e;
mod e2e_members;
mod e2e_orders;
mod e2e_restart;
mod edges;
mod flood;
mod floor;
mod frozen_disk;
mod logs;
mod namespaces;
mod operating;
mod power;
mod ready_host;
mod realtime;
mod sabotage;
mod slips;
mod timings;
mod unready;
mod upgrade;
mod upgrade_failures;
mod upgrade_killed;
mod upgrade_mixed;
mod verbs;
mod watchdog;
mod wires;
mod wrapper;
