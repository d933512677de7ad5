//! The validator's public key as the chain node is told it.

use super::proto;
use crate::base::signing::{KeyKind, PublicKey};

/// In the fields of every version; each skips those of the others.
pub(super) fn response(key: &PublicKey) -> proto::PubKeyResponse {
    let bytes = key.bytes.clone();
    let sum = match key.kind {
        KeyKind::Ed25519 => proto::public_key::Sum::Ed25519(bytes),
        KeyKind::Secp256k1 => proto::public_key::Sum::Secp256k1(bytes),
    };
    proto::PubKeyResponse {
        pub_key: Some(proto::PublicKey { sum: Some(sum) }),
        error: None,
        pub_key_bytes: key.bytes.clone(),
        pub_key_type: key.kind.as_str().to_owned(),
    }
}
