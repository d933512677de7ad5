//! Which gossip frames were handled lately. Frames are relayed byte for byte, so in a full mesh most of what comes in
//! is known by its bytes and need not be parsed. Forgetting one costs a little work; it is no part of correctness.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

const REMEMBERED: usize = 2048;

#[derive(Default)]
pub struct Seen {
    state: RandomState,
    marks: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.marks.contains(&self.state.hash_one(bytes))
    }

    pub fn insert(&mut self, bytes: &[u8]) {
        let mark = self.state.hash_one(bytes);
        if self.marks.insert(mark) {
            self.order.push_back(mark);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.marks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut seen = Seen::default();
        for i in 0..=REMEMBERED {
            seen.insert(&i.to_le_bytes());
        }
        assert!(!seen.contains(&0usize.to_le_bytes()));
        assert!(seen.contains(&1usize.to_le_bytes()));
        assert!(seen.contains(&REMEMBERED.to_le_bytes()));
    }
}
