//! A small but honest chain that stands in for a real one. Its nodes speak neard's shapes (`/status`, key files,
//! SIGHUP) and, like neard, protect a key within one home and not across hosts: two nodes that hold one key both sign.
//! The binary `simchain` runs it; nothing here may know of baton's leases, links or guards.
//!
//! The rules. Height h belongs to the slot that starts at genesis_time + h·slot; validators[h % n] proposes on its
//! head as that slot starts, and a missing one leaves a gap. Every other validator approves the block when it first
//! receives it as its new head, not more than a few slots late and above everything it signed. So a key signs one
//! message a height, and nearly every height. The head is the highest valid block; there is no finality, hence no
//! halt: what is left of the validators goes on. A node whose binary lacks a planned upgrade halts alone.
//!
//! What evidence can and cannot show: ed25519 is deterministic, so two hosts that approve the same block send the
//! same bytes. Only the blocks that they propose differ. The signature log sees both cases.
//!
//! From below: `encode`, `keys`, `genesis`, `message`; `chain` (pure), `signer` and `upgrades`; `node` decides;
//! `gossip`, `rpc` and `run` are its sockets, timers and signals; `pretend` is what it says to be tried with,
//! `pre_upgrade` a command of its own.

pub mod chain;
pub mod encode;
pub mod genesis;
pub mod keys;
pub mod message;
pub mod node;
pub mod pre_upgrade;
pub mod pretend;
pub mod run;
pub mod signer;
pub mod upgrades;

mod gossip;
mod rpc;
mod seen;
