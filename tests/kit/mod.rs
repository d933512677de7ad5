//! What tests of several floors have in common.

#![allow(dead_code)] // Every program uses a part of this.

pub mod archives;
pub mod crash;
pub mod fake_node;
pub mod hang;
pub mod host;
pub mod links;
pub mod program;
pub mod refuse_unshare;
pub mod stage;
pub mod storage;
