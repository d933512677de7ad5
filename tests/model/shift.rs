//! Hashes a value that holds moments of one clock as what they still mean: those that lie ahead by how far they do,
//! those that have passed by how long ago, up to a bound. Moments are told from other numbers by their size: every
//! clock of the model starts at [`ORIGIN`], and nothing else reaches half of it.

use std::hash::{Hash, Hasher};

pub const ORIGIN: u64 = 1 << 50;

struct Shifted<'a, H> {
    out: &'a mut H,
    /// The oldest moment that is told from older ones.
    oldest: u64,
}

/// Hashes `value`, all of whose moments are of one clock, on which `oldest` is the first that counts.
pub fn hash_shifted<T: Hash, H: Hasher>(value: &T, oldest: u64, out: &mut H) {
    value.hash(&mut Shifted { out, oldest });
}

impl<H: Hasher> Hasher for Shifted<'_, H> {
    fn finish(&self) -> u64 {
        self.out.finish()
    }

    fn write_u64(&mut self, number: u64) {
        self.out.write_u64(if number >= ORIGIN / 2 { ORIGIN + number.saturating_sub(self.oldest) } else { number });
    }

    fn write(&mut self, bytes: &[u8]) {
        self.out.write(bytes);
    }

    fn write_u8(&mut self, number: u8) {
        self.out.write_u8(number);
    }

    fn write_u32(&mut self, number: u32) {
        self.out.write_u32(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.out.write_usize(number);
    }

    fn write_isize(&mut self, number: isize) {
        self.out.write_isize(number);
    }
}
