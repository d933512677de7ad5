//! What a node is answered, request by request.

use baton::base::signing::Hrs;
use prost::Message as _;

use super::*;

#[tokio::test]
async fn public_key_and_ping_are_answered_without_asking_anybody() {
    let compressed = [vec![2], vec![6; 32]].concat();
    for (kind, name, bytes) in
        [(KeyKind::Ed25519, "ed25519", vec![5; 32]), (KeyKind::Secp256k1, "secp256k1", compressed)]
    {
        let mut stage = Stage::with_key(PublicKey { kind, bytes: bytes.clone() });
        let node = FakeNode::at(&stage.socket());
        let mut signer = node.accept().await;
        assert_eq!(signer.answer_to(ping()).await, Sum::PingResponse(proto::PingResponse {}));
        let request = Sum::PubKeyRequest(proto::PubKeyRequest { chain_id: CHAIN.into() });
        let Sum::PubKeyResponse(response) = signer.answer_to(request).await else { panic!("another answer") };
        let sum = response.pub_key.and_then(|key| key.sum).expect("a key for 0.38");
        match (kind, sum) {
            (KeyKind::Ed25519, proto::public_key::Sum::Ed25519(told)) => assert_eq!(told, bytes),
            (KeyKind::Secp256k1, proto::public_key::Sum::Secp256k1(told)) => assert_eq!(told, bytes),
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!((response.pub_key_type.as_str(), response.pub_key_bytes, response.error), (name, bytes, None));
        assert!(stage.asks.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_vote_comes_back_as_it_was_with_the_time_and_signature_of_the_signer() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    let wanted = vote(Kind::Prevote, Some(block()));
    signer.ask(sign_vote(wanted.clone())).await;
    let ask = stage.next_ask().await;
    assert_eq!(ask.node, "gaiad");
    assert_eq!((ask.bytes.chain.as_str(), ask.bytes.place), (CHAIN, Hrs::new(12, 1, Hrs::PREVOTE)));
    assert_eq!((ask.bytes.time, ask.extension, ask.bytes.is_nil), (TIME, None, false));
    ask.answer.send(Ok(Signed { time: OTHER_TIME, signature: vec![8; 64], extension: None })).expect("awaited");
    let expected = proto::Vote { timestamp: Some(timestamp(OTHER_TIME)), signature: vec![8; 64], ..wanted };
    let response = signer.vote_answer().await;
    assert_eq!(response, proto::SignedVoteResponse { vote: Some(expected), error: None });
}

#[tokio::test]
async fn a_proposal_comes_back_as_it_was_with_the_time_and_signature_of_the_signer() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    signer.ask(sign_proposal(proposal())).await;
    let ask = stage.next_ask().await;
    assert_eq!((ask.bytes.place, ask.extension), (Hrs::new(12, 0, Hrs::PROPOSAL), None));
    ask.answer.send(Ok(Signed { time: OTHER_TIME, signature: vec![8; 64], extension: None })).expect("awaited");
    let Some(Sum::SignedProposalResponse(response)) = signer.hear().await.expect("closed").sum else {
        panic!("another answer")
    };
    let expected = proto::Proposal { timestamp: Some(timestamp(OTHER_TIME)), signature: vec![8; 64], ..proposal() };
    assert_eq!(response, proto::SignedProposalResponse { proposal: Some(expected), error: None });
}

#[tokio::test]
async fn an_extension_is_signed_with_each_precommit_for_a_block_unless_the_node_skips_it() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    for extension in [b"ext".as_slice(), b""] {
        signer.ask(sign_vote(precommit(extension))).await;
        let ask = stage.next_ask().await;
        let bytes =
            canonical::VoteExtension { extension: extension.to_vec(), height: 12, round: 1, chain_id: CHAIN.into() };
        assert_eq!(ask.extension, Some(bytes.encode_length_delimited_to_vec()));
        baton::host::sign_bytes::check_extension(&ask.extension.clone().unwrap_or_default(), &ask.bytes)
            .expect("its own");
        ask.answer.send(signed(Some(b"of the extension"))).expect("awaited");
        let vote = signer.vote_answer().await.vote.expect("signed");
        assert_eq!(
            (vote.extension.as_slice(), vote.extension_signature.as_slice()),
            (extension, &b"of the extension"[..])
        );
    }
    let skipping =
        proto::SignVoteRequest { vote: Some(precommit(b"")), chain_id: CHAIN.into(), skip_extension_signing: true };
    for without in [Sum::SignVoteRequest(skipping), sign_vote(vote(Kind::Precommit, None))] {
        signer.ask(without).await;
        let ask = stage.next_ask().await;
        assert_eq!(ask.extension, None);
        ask.answer.send(signed(None)).expect("awaited");
        let vote = signer.vote_answer().await.vote.expect("signed");
        assert_eq!((vote.signature.as_slice(), vote.extension_signature.as_slice()), (&b"signature"[..], &b""[..]));
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_answer_of_its_request() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    signer.ask(sign_vote(precommit(b""))).await;
    stage.next_ask().await.answer.send(Err(Refusal("conflicting data".into()))).expect("awaited");
    let response = signer.vote_answer().await;
    assert_eq!(response, proto::SignedVoteResponse { vote: None, error: refused("conflicting data") });
    signer.ask(sign_proposal(proposal())).await;
    drop(stage.next_ask().await);
    let expected = proto::SignedProposalResponse { proposal: None, error: refused("baton does not sign this") };
    assert_eq!(signer.hear().await.expect("closed").sum, Some(Sum::SignedProposalResponse(expected)));
    stage.asks.close();
    signer.ask(sign_vote(vote(Kind::Prevote, None))).await;
    assert_eq!(signer.vote_answer().await.error, refused("baton is stopping"));
}

/// A vote with one signature too few or too many ends the node that gets it.
#[tokio::test]
async fn an_answer_that_lacks_a_signature_is_a_refusal() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    let nothing = Ok(Signed { time: TIME, signature: Vec::new(), extension: None });
    for (wanted, answer, lacks) in [
        (vote(Kind::Prevote, None), nothing, "the signer's answer has no signature"),
        (precommit(b"x"), signed(None), "the signer's answer has no signature of the vote extension"),
        (precommit(b"x"), signed(Some(b"")), "the signer's answer has no signature of the vote extension"),
        (
            vote(Kind::Prevote, Some(block())),
            signed(Some(b"y")),
            "the signer's answer has a signature of a vote extension, which was not asked for",
        ),
    ] {
        signer.ask(sign_vote(wanted)).await;
        stage.next_ask().await.answer.send(answer).expect("awaited");
        let response = signer.vote_answer().await;
        assert_eq!((response.vote, response.error), (None, refused(lacks)));
    }
}

#[tokio::test]
async fn what_no_node_votes_for_is_refused_without_asking_anybody() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    let good = || vote(Kind::Prevote, Some(block()));
    let extended = |kind, block_id| proto::Vote { extension: b"x".to_vec(), ..vote(kind, block_id) };
    let half = canonical::BlockId { hash: vec![9; 32], part_set_header: None };
    let unexpected = "unexpected vote extension: only a precommit for a block has one";
    for (bad, why) in [
        (extended(Kind::Prevote, Some(block())), unexpected),
        (extended(Kind::Precommit, None), unexpected),
        (proto::Vote { r#type: Kind::Proposal.into(), ..good() }, "a vote of type 32"),
        (proto::Vote { r#type: 7, ..good() }, "a vote of type 7"),
        (proto::Vote { height: 0, ..good() }, "height 0, round 1"),
        (proto::Vote { round: -1, ..good() }, "height 12, round -1"),
        (proto::Vote { timestamp: None, ..good() }, "no timestamp"),
        (vote(Kind::Precommit, Some(half)), "a block id of 32 bytes with 0 parts of 0 bytes"),
    ] {
        let Sum::SignedVoteResponse(response) = signer.answer_to(sign_vote(bad)).await else { panic!("{why}") };
        assert_eq!(response, proto::SignedVoteResponse { vote: None, error: refused(why) });
    }
    let voteless = proto::SignVoteRequest { vote: None, chain_id: CHAIN.into(), skip_extension_signing: false };
    let Sum::SignedVoteResponse(response) = signer.answer_to(Sum::SignVoteRequest(voteless)).await else {
        panic!("another answer")
    };
    assert_eq!(response.error, refused("no vote"));
    let chainless = proto::SignVoteRequest { vote: Some(good()), ..Default::default() };
    let Sum::SignedVoteResponse(response) = signer.answer_to(Sum::SignVoteRequest(chainless)).await else {
        panic!("another answer")
    };
    assert_eq!(response.error, refused("no chain_id"));
    for (bad, why) in [
        (proto::Proposal { block_id: None, ..proposal() }, "a proposal of no block"),
        (proto::Proposal { r#type: Kind::Prevote.into(), ..proposal() }, "a proposal of type 1"),
    ] {
        let Sum::SignedProposalResponse(response) = signer.answer_to(sign_proposal(bad)).await else { panic!("{why}") };
        assert_eq!(response, proto::SignedProposalResponse { proposal: None, error: refused(why) });
    }
    assert!(stage.asks.try_recv().is_err());
}

#[tokio::test]
async fn bytes_of_unknown_meaning_are_not_signed_and_unknown_requests_get_an_empty_answer() {
    let (_stage, _node, mut signer) = Stage::connected().await;
    let bytes = Sum::SignBytesRequest(proto::SignBytesRequest { value: b"x".to_vec() });
    let Sum::SignBytesResponse(response) = signer.answer_to(bytes).await else { panic!("another answer") };
    assert!(response.signature.is_empty());
    assert_eq!(response.error, refused("no bytes but those of votes and proposals are signed"));
    // A message of a kind of its own, one of no kind at all, and an answer of the node's own.
    let answer = Message { sum: Some(Sum::PingResponse(proto::PingResponse {})) };
    for unknown in [&[2, 0x5a, 0][..], &[0], &encode(&answer)] {
        signer.say(unknown).await;
        assert_eq!(signer.hear().await.expect("closed"), Message { sum: None });
    }
    assert_eq!(signer.answer_to(ping()).await, Sum::PingResponse(proto::PingResponse {}));
}

/// A node reads 10 KiB of an answer and takes time and signatures alone.
#[tokio::test]
async fn a_long_extension_is_signed_and_not_sent_back() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    for (length, is_sent_back) in [(9 << 10, true), (10 << 10, false), (1 << 20, false)] {
        let extension = vec![4; length];
        signer.ask(sign_vote(precommit(&extension))).await;
        let ask = stage.next_ask().await;
        assert!(ask.extension.is_some_and(|bytes| bytes.len() > length));
        ask.answer.send(signed(Some(b"of the extension"))).expect("awaited");
        let response = signer.vote_answer().await;
        let answered = encode(&Message { sum: Some(Sum::SignedVoteResponse(response.clone())) }).len();
        assert!(answered <= 10 << 10, "{answered} bytes");
        let vote = response.vote.expect("signed");
        assert_eq!(vote.extension, if is_sent_back { extension } else { Vec::new() });
        assert_eq!(vote.extension_signature, b"of the extension");
    }
}
