//! Handovers between two nodes that sign as `slots.rs` has it, in random histories: with the floor as it is nothing is
//! signed that one node would not sign; with either half of the mark left out, something is.

use std::collections::VecDeque;
use std::time::Duration;

use baton::base::chain_node::{Health, KeyState, SignFloor};
use baton::base::ids::SignMark;
use baton::core::fences::floor;

use super::slots::{Signed, Slots, conflict};

const HISTORIES: u64 = 4_000;
const STEPS: u32 = 400;
/// The account's turn comes every so many heights.
const TURN: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The head of the old holder: as if it had none.
    Head,
    /// Its approvals: as if it had made none.
    Approvals,
}

struct History {
    random: u64,
    /// The newest block of the chain.
    tip: u64,
    nodes: [Slots; 2],
    /// Blocks on their way to each.
    coming: [VecDeque<u64>; 2],
    /// The node that has the key, or is to get it once it has met the floor.
    holder: usize,
    floor: Option<SignFloor>,
    signed: Vec<Signed>,
    handovers: u32,
}

impl History {
    fn of(seed: u64) -> History {
        let mut nodes = [0, 1].map(|_| Slots::of_database(10, 11));
        nodes[0].has_key = true;
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let (coming, signed) = (Default::default(), Vec::new());
        History { random, tip: 10, nodes, coming, holder: 0, floor: None, signed, handovers: 0 }
    }

    /// Below `below`.
    fn any(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn comes(&mut self, height: u64) {
        self.tip = height;
        self.coming.iter_mut().for_each(|coming| coming.push_back(height));
    }

    fn step(&mut self, without: Without) {
        let at = self.any(2) as usize;
        match self.any(20) {
            0..4 => {
                let next = self.tip + 1 + self.any(8) / 6;
                if !next.is_multiple_of(TURN) {
                    self.comes(next);
                }
            }
            4 => self.turn(at),
            5..12 => {
                if let Some(height) = self.coming[at].pop_front() {
                    let chunk = self.nodes[at].accept(height);
                    self.signed.extend(chunk);
                }
            }
            12..17 => {
                let endorsement = self.nodes[at].endorse();
                self.signed.extend(endorsement);
            }
            17..19 => {
                let endorsement = self.nodes[at].endorse();
                let skip = self.nodes[at].skip();
                self.signed.extend(endorsement.into_iter().chain(skip));
            }
            _ => self.let_go(without),
        }
        self.take_over();
    }

    /// The account makes the block after the newest one, or one that it had left out.
    fn turn(&mut self, at: usize) {
        let height = (self.tip + 1) / TURN * TURN;
        let Some(block) = self.nodes[at].make_block(height) else { return };
        self.signed.push(block);
        // It is the node's own head before the node can say that its key is gone.
        let chunk = self.nodes[at].accept(height);
        self.signed.extend(chunk);
        if height > self.tip {
            self.tip = height;
            self.coming[1 - at].push_back(height);
        }
    }

    fn let_go(&mut self, without: Without) {
        let old = &mut self.nodes[self.holder];
        if !std::mem::take(&mut old.has_key) {
            return;
        }
        let mark = match without {
            Without::Nothing => SignMark::of_approvals(old.head, old.gauge.max(old.head)),
            Without::Head => SignMark::of_approvals(0, old.gauge.max(old.head)),
            Without::Approvals => SignMark::at_height(old.head),
        };
        self.holder = 1 - self.holder;
        self.floor = Some(SignFloor::Mark(mark));
    }

    fn take_over(&mut self) {
        let node = &mut self.nodes[self.holder];
        let health = Health {
            synced: true,
            height: node.head,
            head_time: None,
            approved: node.gauge,
            peers: None,
            key: KeyState::Absent,
            latency: Duration::ZERO,
            version: String::new(),
        };
        if self.floor.take_if(|floor| floor::is_met(floor, &health, false)).is_some() {
            node.has_key = true;
            self.handovers += 1;
        }
    }
}

/// In how many histories something was signed twice, and how many handovers there were in all.
fn doubles(without: Without) -> (usize, u32) {
    let (mut found, mut handovers) = (Vec::new(), 0);
    for seed in 1..=HISTORIES {
        let mut history = History::of(seed);
        (0..STEPS).for_each(|_| history.step(without));
        handovers += history.handovers;
        found.extend(conflict(&history.signed).map(|conflict| (seed, conflict)));
    }
    eprintln!("without {without:?}: {} of {HISTORIES}, {handovers} handovers; first {:?}", found.len(), found.first());
    (found.len(), handovers)
}

#[test]
fn with_both_halves_of_the_mark_nothing_is_signed_that_one_node_would_not_sign() {
    let (found, handovers) = doubles(Without::Nothing);
    assert_eq!(found, 0);
    assert!(handovers > 4 * HISTORIES as u32, "only {handovers} handovers came to their end");
}

#[test]
fn without_the_old_holders_head_something_is_signed_twice() {
    assert!(doubles(Without::Head).0 > 0);
}

#[test]
fn without_the_old_holders_approvals_a_height_is_endorsed_that_was_skipped() {
    assert!(doubles(Without::Approvals).0 > 0);
}
