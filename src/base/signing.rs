//! What a validator is asked to sign: its place in the chain, its content, and its time. Words of the log, of the
//! signer and of the chain node's connection to it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::ids::SignMark;

/// A place in the chain at which a validator signs one content, and no other: height, round and step, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hrs {
    pub height: u64,
    pub round: u32,
    /// One of the constants; zero lies before the first.
    pub step: u32,
}

impl Hrs {
    pub const PROPOSAL: u32 = 1;
    pub const PREVOTE: u32 = 2;
    pub const PRECOMMIT: u32 = 3;

    pub fn new(height: u64, round: u32, step: u32) -> Hrs {
        Hrs { height, round, step }
    }
}

impl From<Hrs> for SignMark {
    fn from(place: Hrs) -> SignMark {
        SignMark::at_step(place.height, place.round, place.step)
    }
}

impl fmt::Display for Hrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.height, self.round, self.step)
    }
}

/// SHA-256 of what is signed, with its time left out: two requests with the same digest ask for the same vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignDigest(pub [u8; 32]);

impl fmt::Debug for SignDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SignDigest {
    /// Enough of it to tell two apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// As the chain writes it: seconds since 1970, which may be far before, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignTime {
    pub seconds: i64,
    pub nanos: i32,
}
