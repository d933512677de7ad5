//! What a neard signs, by the facts of its source that were seen on a running one. Pure; the fake neard follows it, and
//! the tests here are the facts.
//!
//! - The gauge (`near_largest_target_height`) is the highest height that was approved or would have been: it rises in every
//!   node, with or without a key, also while the chain stands still, and is kept in the database.
//! - The successor of the tip is endorsed only when the tip is at or above the gauge, which is raised by that.
//! - A skip goes to a height above the tip's successor, and raises the gauge to it. One node may repeat it on a newer tip.
//! - A block is made only above all that the node knows, and a chunk in the moment in which the block before it is accepted.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    Endorsement { target: u64 },
    Skip { parent: u64, target: u64 },
    Chunk { height: u64 },
    Block { height: u64 },
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signed::Endorsement { target } => write!(f, "endorsement {target}"),
            Signed::Skip { parent, target } => write!(f, "skip {target} on {parent}"),
            Signed::Chunk { height } => write!(f, "chunk {height}"),
            Signed::Block { height } => write!(f, "block {height}"),
        }
    }
}

/// What of this no single node signs: two blocks, chunks or endorsements of a height, or a height endorsed and skipped.
pub fn conflict(signed: &[Signed]) -> Option<String> {
    let clash = |one: &Signed, other: &Signed| match (one, other) {
        (Signed::Endorsement { target }, Signed::Skip { target: skipped, .. })
        | (Signed::Skip { target: skipped, .. }, Signed::Endorsement { target }) => target == skipped,
        (Signed::Skip { .. }, Signed::Skip { .. }) => false,
        (one, other) => one == other,
    };
    let later = |at: usize| signed[at + 1..].iter().find(|other| clash(&signed[at], other));
    (0..signed.len()).find_map(|at| later(at).map(|other| format!("{} and {other}", signed[at])))
}

#[derive(Clone, Debug)]
pub struct Slots {
    pub has_key: bool,
    pub head: u64,
    pub gauge: u64,
    /// The highest block that was made or accepted.
    known: u64,
    /// The next skip goes to the height after this one.
    timer: u64,
    endorses: bool,
}

impl Slots {
    /// A node that starts with what its database says.
    pub fn of_database(head: u64, gauge: u64) -> Slots {
        Slots { has_key: false, head, gauge, known: head, timer: head + 1, endorses: false }
    }

    /// A block of `height` is here.
    #[must_use]
    pub fn accept(&mut self, height: u64) -> Option<Signed> {
        if height <= self.head {
            return None;
        }
        (self.head, self.known, self.timer, self.endorses) = (height, self.known.max(height), height + 1, true);
        self.has_key.then_some(Signed::Chunk { height: height + 1 })
    }

    #[must_use]
    pub fn endorse(&mut self) -> Option<Signed> {
        if !std::mem::take(&mut self.endorses) || self.head < self.gauge {
            return None;
        }
        self.gauge = self.head + 1;
        self.has_key.then_some(Signed::Endorsement { target: self.gauge })
    }

    /// No block came for so long that the next height is given up. Whatever there was to endorse was endorsed before.
    #[must_use]
    pub fn skip(&mut self) -> Option<Signed> {
        assert!(!self.endorses);
        self.timer += 1;
        self.gauge = self.gauge.max(self.timer);
        self.has_key.then_some(Signed::Skip { parent: self.head, target: self.timer })
    }

    /// The account's turn at `height`, which enough validators have approved.
    #[must_use]
    pub fn make_block(&mut self, height: u64) -> Option<Signed> {
        let makes = self.has_key && height > self.known;
        makes.then(|| {
            self.known = height;
            Signed::Block { height }
        })
    }
}

#[test]
fn the_gauge_rises_in_every_node_with_or_without_a_key_also_while_the_chain_stands_still() {
    let mut nodes = [true, false].map(|has_key| Slots { has_key, ..Slots::of_database(6886, 6886) });
    for node in &mut nodes {
        let _ = node.accept(6887);
        assert_eq!(node.gauge, 6886, "an endorsement takes its time");
        let endorsed = node.endorse();
        assert_eq!((node.gauge, endorsed.is_some()), (6888, node.has_key));
        for gauge in 6889..6893 {
            let skipped = node.skip();
            let expected = node.has_key.then_some(Signed::Skip { parent: 6887, target: gauge });
            assert_eq!((node.head, node.gauge, skipped), (6887, gauge, expected));
        }
    }
}

#[test]
fn the_successor_of_the_tip_is_endorsed_only_by_a_node_whose_gauge_is_not_above_its_tip() {
    let mut node = Slots { has_key: true, ..Slots::of_database(7, 10) };
    let mut endorsed = Vec::new();
    for height in 8..13 {
        assert_eq!(node.accept(height), Some(Signed::Chunk { height: height + 1 }));
        endorsed.extend(node.endorse());
        assert_eq!(node.endorse(), None, "once a block");
    }
    assert_eq!(endorsed, [11, 12, 13].map(|target| Signed::Endorsement { target }));
}

#[test]
fn a_skip_goes_above_the_successor_of_the_tip_and_may_be_repeated_on_a_newer_tip() {
    let mut node = Slots { has_key: true, ..Slots::of_database(7, 8) };
    assert_eq!(node.skip(), Some(Signed::Skip { parent: 7, target: 9 }));
    assert_eq!(node.skip(), Some(Signed::Skip { parent: 7, target: 10 }));
    let _ = node.accept(8);
    assert_eq!(node.endorse(), None, "9 was skipped");
    assert_eq!(node.skip(), Some(Signed::Skip { parent: 8, target: 10 }));
    assert_eq!(node.gauge, 10);
}

#[test]
fn a_block_is_made_only_above_all_that_the_node_knows() {
    let mut node = Slots { has_key: true, ..Slots::of_database(7, 8) };
    assert_eq!(node.make_block(7), None);
    assert_eq!(node.make_block(8), Some(Signed::Block { height: 8 }));
    assert_eq!(node.make_block(8), None, "its own one counts before it is accepted");
}

#[test]
fn what_no_single_node_signs_is_a_conflict() {
    let (skip, endorsement) = (Signed::Skip { parent: 7, target: 9 }, Signed::Endorsement { target: 9 });
    assert!(conflict(&[skip.clone(), Signed::Chunk { height: 9 }, endorsement.clone()]).is_some());
    assert!(conflict(&[endorsement.clone(), endorsement.clone()]).is_some());
    assert!(conflict(&[Signed::Chunk { height: 9 }, Signed::Chunk { height: 9 }]).is_some());
    assert!(conflict(&[skip.clone(), Signed::Skip { parent: 8, target: 9 }]).is_none());
    assert!(conflict(&[endorsement, Signed::Block { height: 9 }, Signed::Chunk { height: 9 }]).is_none());
}
