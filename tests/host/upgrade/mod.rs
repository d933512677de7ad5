//! Upgrades of the chain node on one host: cosmovisor's layout and its rules of what an upgrade is, one test each, and
//! the steps from one binary to the next, stopped between any two operations, on a full disk and on one that lies.

mod backup;
mod crashes;
mod detection;
mod kit;
mod layout;
mod pre_upgrade;
