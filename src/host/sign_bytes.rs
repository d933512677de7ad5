//! The bytes that a CometBFT validator signs: made from a vote or proposal, read back, and given another time. Whoever
//! reads them takes only what the chain itself writes: each message has one encoding.

use std::fmt;

use prost::Message;
use ring::digest::{SHA256, digest};

use crate::base::signing::{Hrs, SignDigest, SignTime};
use proto::SignedMsgType as Kind;

#[allow(clippy::all)]
pub mod proto {
    tonic::include_proto!("cometbft.canonical");
}

/// What stands in a vote or a proposal that is to be signed.
#[derive(Clone, Debug, PartialEq)]
pub struct SignBytes {
    pub chain: String,
    pub place: Hrs,
    pub digest: SignDigest,
    pub time: SignTime,
    /// A vote for no block.
    pub is_nil: bool,
    message: Canonical,
}

#[derive(Clone, Debug, PartialEq)]
enum Canonical {
    Vote(proto::Vote),
    Proposal(proto::Proposal),
}

/// Why bytes are no vote, proposal or vote extension of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSignBytes(pub String);

impl fmt::Display for BadSignBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BadSignBytes {}

impl SignBytes {
    /// A prevote or precommit.
    ///
    /// # Errors
    /// It is neither, or its place is none.
    pub fn of_vote(vote: proto::Vote) -> Result<SignBytes, BadSignBytes> {
        let step = match vote.r#type() {
            Kind::Prevote => Hrs::PREVOTE,
            Kind::Precommit => Hrs::PRECOMMIT,
            Kind::Proposal | Kind::Unknown => return Err(bad(format!("a vote of type {}", vote.r#type))),
        };
        let place = place(vote.height, vote.round, step)?;
        SignBytes::of(place, vote.chain_id.clone(), vote.timestamp, vote.block_id.is_none(), Canonical::Vote(vote))
    }

    /// # Errors
    /// It is of another type, or its place is none.
    pub fn of_proposal(proposal: proto::Proposal) -> Result<SignBytes, BadSignBytes> {
        if proposal.r#type() != Kind::Proposal {
            return Err(bad(format!("a proposal of type {}", proposal.r#type)));
        }
        let place = place(proposal.height, proposal.round, Hrs::PROPOSAL)?;
        SignBytes::of(place, proposal.chain_id.clone(), proposal.timestamp, false, Canonical::Proposal(proposal))
    }

    /// # Errors
    /// They are not the one encoding of a vote or a proposal.
    pub fn read(bytes: &[u8]) -> Result<SignBytes, BadSignBytes> {
        // Both begin with their type; of the types each has its own.
        let vote = proto::Vote::decode_length_delimited(bytes).ok();
        let read = match vote.filter(|vote| matches!(vote.r#type(), Kind::Prevote | Kind::Precommit)) {
            Some(vote) => SignBytes::of_vote(vote),
            None => proto::Proposal::decode_length_delimited(bytes)
                .map_err(|error| bad(format!("no vote and no proposal: {error}")))
                .and_then(SignBytes::of_proposal),
        }?;
        if read.bytes() == bytes { Ok(read) } else { Err(bad("not as the chain writes a vote or a proposal")) }
    }

    fn of(
        place: Hrs,
        chain: String,
        time: Option<proto::Timestamp>,
        is_nil: bool,
        message: Canonical,
    ) -> Result<SignBytes, BadSignBytes> {
        let proto::Timestamp { seconds, nanos } = time.ok_or_else(|| bad("no timestamp"))?;
        if chain.is_empty() {
            return Err(bad("no chain_id"));
        }
        let digest = SignDigest(sha256(&message.with_time(None).bytes()));
        Ok(SignBytes { chain, place, digest, time: SignTime { seconds, nanos }, is_nil, message })
    }

    /// What is signed.
    pub fn bytes(&self) -> Vec<u8> {
        self.message.bytes()
    }

    /// The same content at another time.
    pub fn at(&self, time: SignTime) -> SignBytes {
        let message = self.message.with_time(Some(proto::Timestamp { seconds: time.seconds, nanos: time.nanos }));
        SignBytes { time, message, ..self.clone() }
    }

    /// Whether the chain asks for a vote extension to be signed along with it.
    pub fn takes_extension(&self) -> bool {
        self.place.step == Hrs::PRECOMMIT && !self.is_nil
    }
}

impl Canonical {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Canonical::Vote(vote) => vote.encode_length_delimited_to_vec(),
            Canonical::Proposal(proposal) => proposal.encode_length_delimited_to_vec(),
        }
    }

    fn with_time(&self, timestamp: Option<proto::Timestamp>) -> Canonical {
        match self {
            Canonical::Vote(vote) => Canonical::Vote(proto::Vote { timestamp, ..vote.clone() }),
            Canonical::Proposal(proposal) => Canonical::Proposal(proto::Proposal { timestamp, ..proposal.clone() }),
        }
    }
}

/// Checks the bytes of a vote extension that is to be signed along with `vote`.
///
/// # Errors
/// They are not the one encoding of one, or it belongs to another vote.
pub fn check_extension(bytes: &[u8], vote: &SignBytes) -> Result<(), BadSignBytes> {
    let extension = proto::VoteExtension::decode_length_delimited(bytes)
        .map_err(|error| bad(format!("no vote extension: {error}")))?;
    if extension.encode_length_delimited_to_vec() != bytes {
        return Err(bad("not as the chain writes a vote extension"));
    }
    if !vote.takes_extension() {
        return Err(bad("unexpected vote extension: only a precommit for a block has one"));
    }
    let place = place(extension.height, extension.round, Hrs::PRECOMMIT)?;
    if place == vote.place && extension.chain_id == vote.chain {
        Ok(())
    } else {
        Err(bad(format!("a vote extension of {place} on {:?} with a vote of {}", extension.chain_id, vote.place)))
    }
}

fn place(height: i64, round: i64, step: u32) -> Result<Hrs, BadSignBytes> {
    let no_place = || bad(format!("height {height}, round {round}"));
    let height = u64::try_from(height).ok().filter(|height| *height > 0).ok_or_else(no_place)?;
    // The chain counts rounds in 31 bits.
    let round = i32::try_from(round).ok().and_then(|round| u32::try_from(round).ok()).ok_or_else(no_place)?;
    Ok(Hrs { height, round, step })
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}

fn bad(what: impl Into<String>) -> BadSignBytes {
    BadSignBytes(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> proto::BlockId {
        let part_set_header = Some(proto::PartSetHeader { total: 1, hash: vec![7; 32] });
        proto::BlockId { hash: vec![9; 32], part_set_header }
    }

    fn vote(kind: Kind, block_id: Option<proto::BlockId>) -> proto::Vote {
        let timestamp = Some(proto::Timestamp { seconds: 1_700_000_000, nanos: 5 });
        proto::Vote { r#type: kind.into(), height: 12, round: 1, block_id, timestamp, chain_id: "c-1".into() }
    }

    fn proposal() -> proto::Proposal {
        proto::Proposal {
            r#type: Kind::Proposal.into(),
            height: 12,
            round: 0,
            pol_round: -1,
            block_id: Some(block()),
            timestamp: Some(proto::Timestamp::default()),
            chain_id: "c-1".into(),
        }
    }

    /// From the chain's own test of its sign bytes (`types/vote_test.go`).
    #[test]
    fn bytes_are_those_of_the_chain() {
        let time = Some(proto::Timestamp { seconds: -62_135_596_800, nanos: 0 });
        let vote = proto::Vote {
            r#type: Kind::Precommit.into(),
            height: 1,
            round: 1,
            block_id: None,
            timestamp: time,
            chain_id: "test_chain_id".into(),
        };
        let expected = [
            0x30, 0x8, 0x2, 0x11, 0x1, 0, 0, 0, 0, 0, 0, 0, 0x19, 0x1, 0, 0, 0, 0, 0, 0, 0, 0x2a, 0xb, 0x8, 0x80, 0x92,
            0xb8, 0xc3, 0x98, 0xfe, 0xff, 0xff, 0xff, 0x1, 0x32, 0xd,
        ];
        let bytes = SignBytes::of_vote(vote).expect("a vote").bytes();
        assert_eq!(bytes, [&expected[..], b"test_chain_id"].concat());
    }

    #[test]
    fn what_is_read_is_what_was_made() {
        for made in [
            SignBytes::of_vote(vote(Kind::Prevote, None)),
            SignBytes::of_vote(vote(Kind::Precommit, Some(block()))),
            SignBytes::of_proposal(proposal()),
        ] {
            let made = made.expect("well formed");
            assert_eq!(SignBytes::read(&made.bytes()), Ok(made.clone()));
        }
    }

    #[test]
    fn the_digest_is_of_all_but_the_time() {
        let one = SignBytes::of_vote(vote(Kind::Precommit, Some(block()))).expect("a vote");
        let later = one.at(SignTime { seconds: 1_700_000_009, nanos: 0 });
        assert_eq!((one.digest, one.place), (later.digest, later.place));
        assert_ne!(one.bytes(), later.bytes());
        assert_eq!(SignBytes::read(&later.bytes()), Ok(later));
        let nil = SignBytes::of_vote(vote(Kind::Precommit, None)).expect("a vote");
        assert_ne!(one.digest, nil.digest);
    }

    #[test]
    fn other_encodings_are_refused() {
        let good = SignBytes::of_vote(vote(Kind::Precommit, Some(block()))).expect("a vote").bytes();
        let mut with_unknown_field = good[1..].to_vec();
        with_unknown_field.extend([0x78, 1]);
        with_unknown_field.insert(0, good[0] + 2);
        let trailing = [&good[..], &[0]].concat();
        for bytes in [&good[..good.len() - 1], &trailing, &with_unknown_field, b"", b"\x00"] {
            assert!(SignBytes::read(bytes).is_err(), "{bytes:?}");
        }
        let placeless = |height, round| proto::Vote { height, round, ..vote(Kind::Prevote, None) };
        for (height, round) in [(0, 0), (-1, 0), (1, -1), (1, 1 << 31)] {
            assert!(SignBytes::of_vote(placeless(height, round)).is_err(), "{height}/{round}");
        }
        assert!(SignBytes::of_vote(proto::Vote { timestamp: None, ..vote(Kind::Prevote, None) }).is_err());
        assert!(SignBytes::of_vote(vote(Kind::Proposal, None)).is_err());
    }

    #[test]
    fn an_extension_goes_with_its_own_precommit_for_a_block() {
        let extension =
            |height, round| proto::VoteExtension { extension: vec![1], height, round, chain_id: "c-1".into() };
        let bytes = extension(12, 1).encode_length_delimited_to_vec();
        let precommit = SignBytes::of_vote(vote(Kind::Precommit, Some(block()))).expect("a vote");
        assert_eq!(check_extension(&bytes, &precommit), Ok(()));
        let others = [vote(Kind::Precommit, None), vote(Kind::Prevote, Some(block()))];
        for other in others.map(|vote| SignBytes::of_vote(vote).expect("a vote")) {
            assert!(check_extension(&bytes, &other).is_err());
        }
        assert!(check_extension(&extension(13, 1).encode_length_delimited_to_vec(), &precommit).is_err());
        assert!(check_extension(&extension(12, 2).encode_length_delimited_to_vec(), &precommit).is_err());
        // No vote can be passed off as an extension, nor the other way round.
        assert!(check_extension(&precommit.bytes(), &precommit).is_err());
        assert!(SignBytes::read(&bytes).is_err());
    }
}
