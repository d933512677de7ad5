//! What a validator is asked to sign: its place in the chain, its content, and its time. Words of the log, of the
//! signer and of the chain node's connection to it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::base::ids::SignMark;

/// Who has the validator's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Custody {
    /// The holder's chain node: key links lead it there.
    #[default]
    Links,
    /// `baton-signer` on every host, and no chain node: the log decides what is signed.
    Signer,
}

impl Custody {
    pub fn as_str(self) -> &'static str {
        match self {
            Custody::Links => "links",
            Custody::Signer => "signer",
        }
    }
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What kind of key a CometBFT validator signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    Ed25519,
    Secp256k1,
}

impl KeyKind {
    /// As CometBFT names it.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::Ed25519 => "ed25519",
            KeyKind::Secp256k1 => "secp256k1",
        }
    }
}

/// What the chain knows the validator by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey {
    pub kind: KeyKind,
    /// Ed25519: 32; secp256k1: 33, the compressed point.
    pub bytes: Vec<u8>,
}

impl fmt::Display for PublicKey {
    /// Its kind, and Base64.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), BASE64.encode(&self.bytes))
    }
}

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

    /// A place with nothing between it and this one, at which nothing is signed.
    pub fn before(self) -> Hrs {
        Hrs { step: self.step.saturating_sub(1), ..self }
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
