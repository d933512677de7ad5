//! Which request moves the mark, which one gets a signature, and which none.

use std::fs;
use std::io::Write as _;
use std::net::Shutdown;

use baton::base::signing::{Hrs, SignTime};
use baton::host::signer::frames::proto::{RefusedKind, answer, request};
use baton::host::signer::frames::{self, proto};

use super::kit::*;

const PREVOTE: u32 = Hrs::PREVOTE;
const PRECOMMIT: u32 = Hrs::PRECOMMIT;

#[test]
fn without_a_mark_nothing_is_signed_until_one_is_imported() {
    let place = Place::new();
    let mut signer = place.signer();
    let asked = vote(PREVOTE, 5, 0, Some(1));
    assert_eq!(signer.refused(reserve(&asked)).0, RefusedKind::NoMark);
    assert_eq!(signer.refused(sign(&asked)).0, RefusedKind::NoMark);
    assert!(!place.mark().exists());
    let answer::Answer::PublicKey(_) = signer.ask(request::Ask::PublicKey(proto::PublicKeyRequest {})) else {
        panic!("it is no secret");
    };
    assert_eq!(signer.ask(raise(5, 0, PREVOTE)), raised(5, 0, PREVOTE));
    // What was signed there before is not known.
    assert_eq!(signer.refused(sign(&asked)).0, RefusedKind::Conflict);
    assert_eq!(signer.refused(sign(&vote(PRECOMMIT, 4, 9, None))).0, RefusedKind::Stale);
    signer.signed(&vote(PRECOMMIT, 5, 0, Some(1)));
}

#[test]
fn what_was_reserved_is_signed_and_nothing_else_there_or_below() {
    let place = Place::new();
    let mut signer = place.imported();
    for (asked, other) in [
        (proposal(7, 0, 1), proposal(7, 0, 2)),
        (vote(PREVOTE, 7, 0, Some(1)), vote(PREVOTE, 7, 0, None)),
        (vote(PRECOMMIT, 7, 0, None), vote(PRECOMMIT, 7, 0, Some(1))),
        (proposal(7, 1, 1), proposal(7, 1, 2)),
        (vote(PREVOTE, 9, 0, Some(3)), vote(PREVOTE, 9, 0, Some(4))),
    ] {
        assert_eq!(signer.ask(reserve(&asked)), reserved());
        assert_eq!(signer.ask(reserve(&asked)), reserved(), "again");
        for refused in [reserve(&other), sign(&other)] {
            let (kind, text) = signer.refused(refused);
            assert_eq!(kind, RefusedKind::Conflict);
            assert!(text.contains(&asked.place.to_string()) && text.contains(&asked.digest.to_string()), "{text}");
        }
        signer.signed(&asked);
    }
    for below in [vote(PRECOMMIT, 8, 0, None), proposal(9, 0, 1), vote(PRECOMMIT, 7, 0, None)] {
        let (kind, text) = signer.refused(sign(&below));
        assert_eq!(kind, RefusedKind::Stale, "{}", below.place);
        assert!(text.contains("9/0/2"), "{text}");
    }
}

#[test]
fn a_vote_may_be_signed_again_and_at_another_time() {
    let place = Place::new();
    let mut signer = place.imported();
    let asked = vote(PRECOMMIT, 3, 0, Some(1));
    let later = asked.at(SignTime { seconds: 1_800_000_000, nanos: 0 });
    let written = || fs::metadata(place.mark()).unwrap().modified().unwrap();
    let (first, at) = (signer.signed(&asked), written());
    assert_ne!(signer.signed(&later), first);
    assert_eq!(signer.signed(&asked), first);
    assert_eq!(written(), at, "nothing new was written");
}

#[test]
fn raising_never_lowers_the_mark_and_forgets_no_content_at_it() {
    let place = Place::new();
    let mut signer = place.imported();
    let asked = vote(PREVOTE, 4, 0, Some(1));
    signer.signed(&asked);
    assert_eq!(signer.ask(raise(3, 0, 1)), raised(4, 0, PREVOTE));
    assert_eq!(signer.ask(raise(4, 0, PREVOTE)), raised(4, 0, PREVOTE));
    signer.signed(&asked);
    assert_eq!(signer.ask(raise(6, 0, 1)), raised(6, 0, 1));
    assert_eq!(signer.refused(sign(&asked)).0, RefusedKind::Stale);
    assert_eq!(signer.refused(sign(&proposal(6, 0, 1))).0, RefusedKind::Conflict);
    for impossible in [raise(u64::MAX, 0, 1), raise(7, 1 << 31, 1), raise(7, 0, 4)] {
        assert_eq!(signer.refused(impossible).0, RefusedKind::BadBytes);
    }
    assert_eq!(signer.refused(request::Ask::Raise(proto::Raise { place: None })).0, RefusedKind::BadBytes);
    assert_eq!(signer.ask(raise(0, 0, 0)), raised(6, 0, 1));
}

#[test]
fn the_first_chain_is_the_only_one() {
    let place = Place::new();
    let mut signer = place.imported();
    signer.signed(&vote_on("c-1", PREVOTE, 4, 0, Some(1)));
    signer.ask(raise(5, 0, 1));
    for other in [vote_on("c-2", PREVOTE, 9, 0, Some(1)), vote_on("c-2", PREVOTE, 4, 0, Some(1))] {
        let (kind, text) = signer.refused(sign(&other));
        assert_eq!(kind, RefusedKind::OtherChain);
        assert!(text.contains("c-1") && text.contains("c-2"), "{text}");
    }
    signer.signed(&vote_on("c-1", PREVOTE, 9, 0, Some(1)));
}

#[test]
fn an_extension_is_signed_with_its_precommit_for_a_block_alone_and_anew_each_time() {
    let place = Place::new();
    let mut signer = place.imported();
    let precommit = vote(PRECOMMIT, 3, 1, Some(1));
    for (with, refused) in [
        (vote(PRECOMMIT, 3, 1, None), extension(3, 1, 0)),
        (vote(PREVOTE, 3, 1, Some(1)), extension(3, 1, 0)),
        (precommit.clone(), extension(3, 2, 0)),
        (precommit.clone(), extension(4, 1, 0)),
        (precommit.clone(), precommit.bytes()),
        (precommit.clone(), Vec::new()),
    ] {
        assert_eq!(signer.refused(sign_with(&with, refused)).0, RefusedKind::BadBytes, "{}", with.place);
    }
    assert_eq!(signer.ask(raise(0, 0, 0)), raised(0, 0, 0), "what is refused moves no mark");
    let mut signatures = |content| match signer.ask(sign_with(&precommit, extension(3, 1, content))) {
        answer::Answer::Signatures(proto::Signatures { vote, extension: Some(extension) }) => (vote, extension),
        other => panic!("instead of two signatures: {other:?}"),
    };
    let (first, second) = (signatures(1), signatures(2));
    assert_eq!(first.0, second.0);
    assert_ne!(first.1, second.1, "the content of an extension may change");
    assert_eq!(signatures(1), first);
}

#[test]
fn bytes_that_are_no_vote_are_refused_and_others_served_after_them() {
    let place = Place::new();
    let mut signer = place.imported();
    let good = vote(PREVOTE, 3, 0, Some(1));
    let mut trailing = good.bytes();
    trailing.push(0);
    for bytes in [Vec::new(), vec![0], trailing, good.bytes()[1..].to_vec(), extension(3, 0, 1)] {
        let ask = request::Ask::Sign(proto::Sign { sign_bytes: bytes.clone(), extension: None });
        assert_eq!(signer.refused(ask).0, RefusedKind::BadBytes, "{bytes:?}");
        let ask = request::Ask::Reserve(proto::Reserve { sign_bytes: bytes });
        assert_eq!(signer.refused(ask).0, RefusedKind::BadBytes);
    }
    signer.stream.write_all(&frames::encode(&proto::Request { id: 9, ask: None }).unwrap()).unwrap();
    let answer = signer.next().expect("an answer");
    let Some(answer::Answer::Refused(refused)) = answer.answer else { panic!("{answer:?}") };
    assert_eq!((answer.id, refused.kind()), (9, RefusedKind::BadBytes));
    signer.signed(&good);
}

#[test]
fn a_stream_that_is_none_of_frames_ends_the_signer() {
    for garbage in [vec![0xff; 8], vec![0, 0, 0, 2, 0xff, 0xff], vec![0, 0]] {
        let place = Place::new();
        let mut signer = place.imported();
        signer.stream.write_all(&garbage).unwrap();
        signer.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(signer.next(), None, "{garbage:?}");
        assert_eq!(signer.exit_code(), 1);
        assert!(place.log().contains("not understood"), "{}", place.log());
    }
}
