//! The three byte strings of the chain and how they are written in JSON: hashes in base58, public keys and
//! signatures as `ed25519:` and base58, as neard writes them. No cryptography beyond hashing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

const CURVE: &str = "ed25519:";

/// Why a text is not what it should be; the caller says which text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("does not start with 'ed25519:'")]
    NoCurve,
    #[error("is not base58 of {0} bytes")]
    NotBase58(usize),
}

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sig(pub [u8; 64]);

impl Hash {
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }
}

impl FromStr for Hash {
    type Err = EncodeError;
    fn from_str(text: &str) -> Result<Self, EncodeError> {
        base58(text).map(Hash)
    }
}

impl FromStr for PublicKey {
    type Err = EncodeError;
    fn from_str(text: &str) -> Result<Self, EncodeError> {
        after_curve(text).map(PublicKey)
    }
}

impl FromStr for Sig {
    type Err = EncodeError;
    fn from_str(text: &str) -> Result<Self, EncodeError> {
        after_curve(text).map(Sig)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_curve(&self.0))
    }
}

impl fmt::Display for Sig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_curve(&self.0))
    }
}

/// `ed25519:` and base58 of `bytes`.
pub fn with_curve(bytes: &[u8]) -> String {
    format!("{CURVE}{}", bs58::encode(bytes).into_string())
}

/// The bytes of a text that [`with_curve`] wrote.
pub fn after_curve<const N: usize>(text: &str) -> Result<[u8; N], EncodeError> {
    base58(text.strip_prefix(CURVE).ok_or(EncodeError::NoCurve)?)
}

fn base58<const N: usize>(text: &str) -> Result<[u8; N], EncodeError> {
    let mut bytes = [0; N];
    match bs58::decode(text).onto(&mut bytes) {
        Ok(n) if n == N => Ok(bytes),
        Ok(_) | Err(_) => Err(EncodeError::NotBase58(N)),
    }
}

/// Serde by `Display` and `FromStr`, and `Debug` like `Display`.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(|e| de::Error::custom(format!("'{text}' {e}")))
            }
        }
    )*};
}
as_text!(Hash, PublicKey, Sig);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_hashes_come_back_from_their_text() {
        let key = PublicKey([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        let hash = Hash::of(b"x");
        assert_eq!(serde_json::from_str::<Hash>(&serde_json::to_string(&hash).expect("json")).expect("hash"), hash);
    }

    #[test]
    fn a_text_of_the_wrong_length_or_curve_is_refused() {
        assert_eq!(with_curve(&[1; 31]).parse::<PublicKey>(), Err(EncodeError::NotBase58(32)));
        assert_eq!("secp256k1:abc".parse::<PublicKey>(), Err(EncodeError::NoCurve));
    }
}
