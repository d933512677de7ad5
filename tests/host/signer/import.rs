//! The records of other signers, of which a first mark is made.

use baton::base::signing::{Hrs, SignDigest, SignTime};
use baton::host::sign_bytes::SignBytes;
use baton::host::signer::import::{Imported, Origin, read_state};

const COMETBFT: &str = include_str!("../../data/cometbft-sign-state.json");
const TMKMS: &str = include_str!("../../data/tmkms-sign-state.json");
const HORCRUX: &str = include_str!("../../data/horcrux-sign-state.json");

/// Of the vote in the samples, which CometBFT's own tests have: a precommit for no block.
fn signed() -> (SignDigest, SignTime, String) {
    let mut bytes = vec![0x30, 8, 2, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x19, 1, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([0x2a, 0xb, 8, 0x80, 0x92, 0xb8, 0xc3, 0x98, 0xfe, 0xff, 0xff, 0xff, 1, 0x32, 0xd]);
    bytes.extend(b"test_chain_id");
    let vote = SignBytes::read(&bytes).expect("a vote");
    (vote.digest, vote.time, vote.chain)
}

fn place_of(text: &str) -> Hrs {
    read_state(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}")).place
}

#[test]
fn each_of_the_three_is_read_with_what_it_has() {
    let (digest, time, chain) = signed();
    let place = Hrs::new(1, 1, Hrs::PRECOMMIT);
    for (text, origin) in [(COMETBFT, Origin::CometBft), (HORCRUX, Origin::Horcrux)] {
        let expected = Imported { origin, place, digest: Some(digest), time, chain: Some(chain.clone()) };
        assert_eq!(read_state(text.as_bytes()), Ok(expected));
    }
    // Its steps count from zero.
    let place = Hrs::new(500_001, 2, Hrs::PRECOMMIT);
    let expected = Imported { origin: Origin::Tmkms, place, digest: None, time: SignTime::default(), chain: None };
    assert_eq!(read_state(TMKMS.as_bytes()), Ok(expected));
}

#[test]
fn a_step_is_never_read_as_a_lower_one() {
    let tmkms = |step: u32| place_of(&format!(r#"{{"height":"9","round":"0","step":{step},"block_id":null}}"#)).step;
    assert_eq!([0, 1, 2].map(tmkms), [Hrs::PROPOSAL, Hrs::PREVOTE, Hrs::PRECOMMIT]);
    // Of its first versions: a proposal, and a vote that may have been either.
    assert_eq!([3, 6].map(tmkms), [Hrs::PRECOMMIT; 2]);
    let cometbft = |step: u32| place_of(&format!(r#"{{"height":"9","round":0,"step":{step}}}"#)).step;
    assert_eq!([0, 1, 2, 3].map(cometbft), [0, 1, 2, 3]);
    let horcrux = |step: u32| place_of(&format!(r#"{{"height":"9","round":"0","step":{step},"nonce_public":null}}"#));
    assert_eq!(horcrux(2), Hrs::new(9, 0, Hrs::PREVOTE));
    // Of its first versions.
    let text = r#"{"height":"9","round":"0","step":2,"ephemeral_public":"AAAA"}"#;
    assert_eq!(place_of(text), Hrs::new(9, 0, Hrs::PREVOTE));
}

#[test]
fn a_signer_that_has_signed_nothing_is_read_as_that() {
    for text in [
        r#"{"height": "0", "round": 0, "step": 0}"#,
        r#"{"height":"0","round":"0","step":0,"block_id":null}"#,
        r#"{"height": "0", "round": "0", "step": 0, "nonce_public": null, "FilePath": "a"}"#,
    ] {
        assert_eq!(place_of(text), Hrs::default(), "{text}");
    }
}

#[test]
fn what_is_of_another_shape_or_contradicts_itself_is_refused_in_words() {
    let of_another_place = COMETBFT.replace(r#""1""#, r#""2""#);
    for (text, expected) in [
        ("", "no JSON object"),
        ("[1]", "no JSON object"),
        ("{}", "it has no `height`"),
        (r#"{"height": "9", "round": 0}"#, "it has no `step`"),
        (r#"{"height": "-9", "round": 0, "step": 3}"#, "`height` is no number from 0"),
        (r#"{"height": "+9", "round": 0, "step": 3}"#, "`height` is no number from 0"),
        (r#"{"height": "", "round": 0, "step": 3}"#, "`height` is no number from 0"),
        (r#"{"height": 9.5, "round": 0, "step": 3}"#, "`height` is no number from 0"),
        (r#"{"height": "9223372036854775808", "round": 0, "step": 3}"#, "`height` is no number from 0"),
        (r#"{"height": "9", "round": 2147483648, "step": 3}"#, "`round` is no number from 0"),
        (r#"{"height": "9", "round": 0, "step": 4}"#, "step 4 is out of range"),
        (r#"{"height": "9", "round": "0", "step": 4, "block_id": null}"#, "step 4 is out of range"),
        (r#"{"height": "9", "round": 0, "step": 3, "slot": 1}"#, "it has \"slot\""),
        (r#"{"height": "9", "round": 0, "step": 3, "block_id": null, "signature": ""}"#, "it has \"signature\""),
        (r#"{"height": "9", "round": 0, "step": 3, "signbytes": 7}"#, "`signbytes` are no text"),
        (r#"{"height": "9", "round": 0, "step": 3, "signbytes": "xyz"}"#, "`signbytes` are neither hex nor base64"),
        (r#"{"height": "9", "round": 0, "step": 3, "signbytes": "00"}"#, "`signbytes`: "),
        (&of_another_place, "it is at 2/1/3, and its `signbytes` are of 1/1/3"),
    ] {
        let error = read_state(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(expected) && error.starts_with("no record of a signer: "), "{text}: {error}");
    }
}
