//! A chain on which heights are approved ahead of their blocks, as on NEAR: a node endorses the block that it has just
//! got, and skips the next height when none comes. What a node does is `near_node/slots.rs`, which has the facts; here
//! are its clock, the key that it has or not, and the judge of all that was signed.
//!
//! `handovers` is a history in which blocks come late and the baton moves meanwhile, most often from node to node with
//! a mark: the old one's head, and how far it has approved.

use baton::base::ids::SignMark;
use baton::base::time::BootTime;

use crate::faults::Fault;
use crate::oracle::End;
use crate::raft::Id;
use crate::schedule::What;
use crate::signlog::{Kind, Signature};
use crate::slots::{Signed, Slots, conflict};
use crate::world::{MS, Without, World};

/// Blocks come late by many of these.
const SLOT_MAX: u64 = 100 * MS;

pub struct Approvals {
    nodes: Vec<Node>,
    signed: Vec<Signed>,
    /// Marks that were passed on.
    pub marks: u32,
}

/// What a chain node has in its database and does next.
struct Node {
    slots: Slots,
    endorse_at: u64,
    skip_at: u64,
}

pub fn handovers(seed: u64, without: Without, traced: bool) -> End {
    let mut world = World::deaths(seed, without, traced);
    let slots = Slots::of_database(0, 0);
    let nodes = (0..world.count()).map(|_| Node { slots: slots.clone(), endorse_at: 0, skip_at: 0 }).collect();
    world.approvals = Some(Approvals { nodes, signed: Vec::new(), marks: 0 });
    world.hot = true;
    world.chain.slot = world.chain.slot.min(SLOT_MAX);
    for host in 0..world.count() {
        world.later(0, What::Approve { host });
    }
    world.run_to_end()
}

impl Approvals {
    /// What no single node would have signed.
    pub fn conflict(&self) -> Option<String> {
        conflict(&self.signed)
    }

    pub fn gauge(&self, host: Id) -> u64 {
        self.nodes[host].slots.gauge
    }

    /// Of a node that runs and no longer has the key.
    pub fn mark(&mut self, host: Id, without: Without) -> SignMark {
        self.marks += 1;
        let Slots { head, gauge, .. } = self.nodes[host].slots;
        let approved = gauge.max(head).max(1);
        match without {
            Without::MarkHead => SignMark::of_approvals(0, approved),
            Without::MarkApprovals => SignMark::at_height(head),
            _ => SignMark::of_approvals(head, approved),
        }
    }
}

impl World {
    /// The block of `height` is at `host`.
    pub fn accept(&mut self, host: Id, height: u64) {
        let (at, slot) = (self.at, self.chain.slot);
        let has_key = self.hosts[host].machine.proves_key(at);
        let Some(approvals) = &mut self.approvals else { return };
        let node = &mut approvals.nodes[host];
        node.slots.has_key = has_key;
        approvals.signed.extend(node.slots.accept(height));
        (node.endorse_at, node.skip_at) = (at + slot / 4, at + slot * 3 / 2);
    }

    pub fn approve(&mut self, host: Id) {
        let (at, slot) = (self.at, self.chain.slot);
        self.later(slot / 8, What::Approve { host });
        let machine = &self.hosts[host].machine;
        let (runs, has_key) = (machine.answers(at) && !machine.is_stuck(at), machine.proves_key(at));
        let Some(approvals) = &mut self.approvals else { return };
        let node = &mut approvals.nodes[host];
        if !runs {
            node.skip_at = at + slot * 3 / 2;
            return;
        }
        node.slots.has_key = has_key;
        let skips = at >= node.skip_at;
        let endorsed = if skips || at >= node.endorse_at { node.slots.endorse() } else { None };
        let skipped = if skips { node.slots.skip() } else { None };
        node.skip_at += if skips { slot } else { 0 };
        approvals.signed.extend(endorsed.clone().into_iter().chain(skipped.clone()));
        for signed in endorsed.iter().chain(&skipped) {
            self.note(|| format!("{host} signs {signed}"));
        }
        if let Some(Signed::Endorsement { target: height }) = endorsed {
            let (host_name, at) = (self.name(host).to_string(), BootTime::from_nanos(at));
            let signature = Signature { host: host_name, key: "shared".into(), height, kind: Kind::Approval, at };
            self.chain.log.push(signature);
            self.die_as_planned(host);
        }
    }

    /// Some time after blocks have begun to come late.
    pub fn move_while_late(&mut self, host: Id) -> (Fault, u64) {
        let after = self.random.between(0, 2500) * MS;
        if self.random.chance(50) {
            // Most of all its own.
            let lag = self.random.between(800, 2500) * MS;
            self.set_lag(host, lag);
        }
        let fault = match self.random.between(0, 100) {
            0..10 => Fault::Host(host),
            10..20 => Fault::Node(host),
            _ => Fault::Handover(host),
        };
        (fault, after)
    }
}
