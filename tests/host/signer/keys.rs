//! Key files and the signatures that come from them, held against vectors that others have published.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use baton::base::signing::Hrs;
use baton::host::signer::frames::proto::RefusedKind;
use baton::host::signer::{KeyKind, PublicKey, SigningKey};
use k256::ecdsa::signature::Verifier as _;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::kit::*;

fn hex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn parse(content: &str) -> SigningKey {
    SigningKey::parse(content.as_bytes()).expect(content)
}

fn secp256k1_file(secret: &[u8]) -> String {
    let value = STANDARD.encode(secret);
    format!(r#"{{"priv_key": {{"type": "tendermint/PrivKeySecp256k1", "value": "{value}"}}}}"#)
}

/// Panics unless `signature` is one of `bytes`, as the chain checks it.
pub fn verify(key: &PublicKey, bytes: &[u8], signature: &[u8]) {
    match key.kind {
        KeyKind::Ed25519 => UnparsedPublicKey::new(&ED25519, &key.bytes).verify(bytes, signature).expect("it verifies"),
        KeyKind::Secp256k1 => {
            let signature = k256::ecdsa::Signature::from_slice(signature).expect("64 bytes");
            assert_eq!(signature.normalize_s(), signature, "the chain takes the lower S alone");
            let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&key.bytes).expect("a point");
            key.verify(bytes, &signature).expect("it verifies");
        }
    }
}

/// RFC 8032, 7.1, TEST 2.
#[test]
fn ed25519_signs_as_its_specification_does() {
    let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    let public = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                    085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    // As tmkms keeps it: the seed, or both halves.
    for file in [STANDARD.encode(&seed) + "\n", STANDARD.encode([&seed[..], &public].concat())] {
        let key = parse(&file);
        assert_eq!(key.public(), PublicKey { kind: KeyKind::Ed25519, bytes: public.clone() });
        assert_eq!(key.sign(&[0x72]), hex(expected));
    }
}

/// The signature with the nonce of RFC 6979 that libraries of this curve compare themselves with; CometBFT's is that of
/// its `SignCompact`. The public key is from CometBFT's crypto/secp256k1/secp256k1_test.go.
#[test]
fn secp256k1_signs_as_the_chain_does() {
    let mut one = [0; 32];
    one[31] = 1;
    let key = parse(&secp256k1_file(&one));
    let expected = "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8\
                    2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5";
    assert_eq!(key.sign(b"Satoshi Nakamoto"), hex(expected));
    let key = parse(&secp256k1_file(&hex("a96e62ed3955e65be32703f12d87b6b5cf26039ecfa948dc5107a495418e5330")));
    let public = hex("02950e1cdfcb133d6024109fd489f734eeb4502418e538c28481f22bce276f248c");
    assert_eq!(key.public(), PublicKey { kind: KeyKind::Secp256k1, bytes: public });
}

#[test]
fn every_signature_verifies_and_is_the_same_the_next_time() {
    for (file, kind, public) in [
        (ED25519_FILE, KeyKind::Ed25519, "UjxDQgVTlHJOZ7axpMl/iczMIJXiQpFxCFjwKGvzYqE="),
        (SECP256K1_FILE, KeyKind::Secp256k1, "AhRzbjoZaiyrbCE/yJ6gwIBXjwzl8+H7W8KMAphJVUzt"),
    ] {
        let key = parse(file).public();
        assert_eq!(key, PublicKey { kind, bytes: STANDARD.decode(public).unwrap() });
        let place = Place::with_key(file);
        let mut signer = place.imported();
        let mut given = Vec::new();
        for height in 1..20 {
            let asked = vote(Hrs::PRECOMMIT, height, 0, Some(1));
            let signature = signer.signed(&asked);
            verify(&key, &asked.bytes(), &signature);
            given.push((asked, signature));
        }
        drop(signer);
        let (last, signature) = given.last().expect("some");
        assert_eq!(&place.signer().signed(last), signature);
    }
}

#[test]
fn what_is_no_key_is_refused_without_a_word_of_it() {
    let public_of_another = ED25519_FILE.replace("UjxDQgVT", "AAAAAAAA");
    let other_kind = ED25519_FILE.replace("PrivKeyEd25519", "PrivKeySr25519");
    let not_base64 = ED25519_FILE.replace("9giFjwnm", "9giF*wnm");
    let halves_differ = ED25519_FILE.replace("9giFjwnm", "AAAAAAAA");
    let secp256k1_as_ed25519 = SECP256K1_FILE.replace("Secp256k1", "Ed25519");
    for (file, expected) in [
        (public_of_another.as_str(), "`pub_key` is not that of `priv_key`"),
        (&other_kind, "neither tendermint/PrivKeyEd25519 nor"),
        (&not_base64, "no base64"),
        (&halves_differ, "no Ed25519 key"),
        (&secp256k1_as_ed25519, "has 32 bytes"),
        (&secp256k1_file(&[0; 32]), "no secp256k1 key"),
        (&secp256k1_file(&[0xff; 32]), "no secp256k1 key"),
        ("{}", "no `priv_key`"),
        (r#"{"priv_key": "9giFjwnmAKCAI95l4Q32kXsau"}"#, "no `priv_key`"),
        ("", "an Ed25519 key has 32 or 64"),
        ("9giFjwnmAKCAI95l4Q32kXsau", "neither a priv_validator_key.json nor base64"),
        ("9giFjwnmAKCAI95l4Q32kQ==", "an Ed25519 key has 32 or 64"),
    ] {
        let error = SigningKey::parse(file.as_bytes()).map(|_| ()).expect_err(file);
        assert!(error.contains(expected), "{file}: {error}");
        assert!(!error.contains("9giF") && !error.contains("giFj"), "{error}");
    }
}

#[test]
fn a_signer_without_a_good_key_says_why_and_ends() {
    let place = Place::new();
    let set = |mode| fs::set_permissions(place.key(), Permissions::from_mode(mode)).unwrap();
    set(0o640);
    let (kind, text) = place.refused_start();
    assert_eq!(kind, RefusedKind::Key);
    assert!(text.contains("mode 0640") && text.contains("chmod 600"), "{text}");
    set(0o600);
    fs::write(place.key(), "{}").unwrap();
    assert!(place.refused_start().1.contains("no `priv_key`"));
    fs::write(place.key(), vec![b' '; 70_000]).unwrap();
    assert!(place.refused_start().1.contains("this is no key file"));
    fs::remove_file(place.key()).unwrap();
    assert!(place.refused_start().1.contains("No such file"));
    fs::create_dir(place.key()).unwrap();
    assert!(place.refused_start().1.contains("not a regular file"));
}
