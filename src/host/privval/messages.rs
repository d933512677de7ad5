//! What a chain node asks of its signer, and what it is answered. Pure.

use prost::Message as _;

use super::canonical::{self, Timestamp};
use super::proto::message::Sum;
use super::proto::{self, Message, Proposal, RemoteSignerError, Vote};
use super::{Refusal, Signed, key};
use crate::base::signing::PublicKey;
use crate::base::signing::SignTime;
use crate::host::sign_bytes::{BadSignBytes, SignBytes};

/// Longest message that a node reads of its signer.
pub const NODE_READS_MAX: usize = 10 << 10;
/// Of a block or of its parts.
const HASH_LENGTH: usize = 32;

/// What follows from a message of the chain node.
#[derive(Debug)]
pub enum Next {
    Answer(Message),
    /// The same, to a request that no chain node should make, and why it should not.
    Refuse(Message, String),
    Sign(Box<Wanted>),
}

/// A vote or proposal to be signed.
#[derive(Debug)]
pub struct Wanted {
    pub bytes: SignBytes,
    /// Bytes of the extension to be signed along with it.
    pub extension: Option<Vec<u8>>,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    Vote(Vote),
    Proposal(Proposal),
}

pub fn read(message: Message, public_key: &PublicKey) -> Next {
    match message.sum {
        Some(Sum::PingRequest(_)) => Next::Answer(say(Sum::PingResponse(proto::PingResponse {}))),
        Some(Sum::PubKeyRequest(_)) => Next::Answer(say(Sum::PubKeyResponse(key::response(public_key)))),
        Some(Sum::SignVoteRequest(request)) => match vote(request) {
            Ok(wanted) => Next::Sign(Box::new(wanted)),
            Err(BadSignBytes(why)) => Next::Refuse(no_vote(&why), why),
        },
        Some(Sum::SignProposalRequest(request)) => match proposal(request) {
            Ok(wanted) => Next::Sign(Box::new(wanted)),
            Err(BadSignBytes(why)) => Next::Refuse(no_proposal(&why), why),
        },
        // Bytes of which nobody can tell what they mean are not signed.
        Some(Sum::SignBytesRequest(_)) => {
            let why = "no bytes but those of votes and proposals are signed".to_owned();
            let refused = proto::SignBytesResponse { signature: Vec::new(), error: Some(error(&why)) };
            Next::Refuse(say(Sum::SignBytesResponse(refused)), why)
        }
        // The chain's own signer answers these by an empty message too.
        None => Next::Refuse(Message { sum: None }, "a request of an unknown kind".to_owned()),
        Some(
            Sum::PubKeyResponse(_)
            | Sum::SignedVoteResponse(_)
            | Sum::SignedProposalResponse(_)
            | Sum::PingResponse(_)
            | Sum::SignBytesResponse(_),
        ) => Next::Refuse(Message { sum: None }, "an answer in place of a request".to_owned()),
    }
}

impl Wanted {
    /// As it was asked for, with time and signatures. What lacks one of them is refused: a node that is sent such a vote
    /// ends itself.
    pub fn answer(self, signed: Result<Signed, Refusal>) -> Message {
        let signed = signed.and_then(|signed| self.check(signed));
        match (self.asked, signed) {
            (Asked::Vote(vote), Ok(signed)) => signed_vote(vote, signed),
            (Asked::Proposal(proposal), Ok(Signed { time, signature, .. })) => {
                let proposal = Proposal { timestamp: Some(timestamp(time)), signature, ..proposal };
                let response = proto::SignedProposalResponse { proposal: Some(proposal), error: None };
                say(Sum::SignedProposalResponse(response))
            }
            (Asked::Vote(_), Err(Refusal(why))) => no_vote(&why),
            (Asked::Proposal(_), Err(Refusal(why))) => no_proposal(&why),
        }
    }

    fn check(&self, signed: Signed) -> Result<Signed, Refusal> {
        let refuse = |what: &str| Err(Refusal(format!("the signer's answer has {what}")));
        match (&self.extension, &signed.extension) {
            _ if signed.signature.is_empty() => refuse("no signature"),
            (Some(_), Some(signature)) if !signature.is_empty() => Ok(signed),
            (Some(_), Some(_) | None) => refuse("no signature of the vote extension"),
            (None, Some(_)) => refuse("a signature of a vote extension, which was not asked for"),
            (None, None) => Ok(signed),
        }
    }
}

fn vote(request: proto::SignVoteRequest) -> Result<Wanted, BadSignBytes> {
    let vote = request.vote.ok_or_else(|| bad("no vote"))?;
    let block_id = block(vote.block_id.as_ref())?;
    let bytes = SignBytes::of_vote(canonical::Vote {
        r#type: vote.r#type,
        height: vote.height,
        round: vote.round.into(),
        block_id,
        timestamp: vote.timestamp,
        chain_id: request.chain_id.clone(),
    })?;
    if !bytes.takes_extension() && !vote.extension.is_empty() {
        return Err(bad("unexpected vote extension: only a precommit for a block has one"));
    }
    // An empty one is signed as well.
    let is_signed = bytes.takes_extension() && !request.skip_extension_signing;
    let extension = is_signed.then(|| {
        let extension = canonical::VoteExtension {
            extension: vote.extension.clone(),
            height: vote.height,
            round: vote.round.into(),
            chain_id: request.chain_id,
        };
        extension.encode_length_delimited_to_vec()
    });
    Ok(Wanted { bytes, extension, asked: Asked::Vote(vote) })
}

fn proposal(request: proto::SignProposalRequest) -> Result<Wanted, BadSignBytes> {
    let proposal = request.proposal.ok_or_else(|| bad("no proposal"))?;
    let block_id = block(proposal.block_id.as_ref())?.ok_or_else(|| bad("a proposal of no block"))?;
    let bytes = SignBytes::of_proposal(canonical::Proposal {
        r#type: proposal.r#type,
        height: proposal.height,
        round: proposal.round.into(),
        pol_round: proposal.pol_round.into(),
        block_id: Some(block_id),
        timestamp: proposal.timestamp,
        chain_id: request.chain_id,
    })?;
    Ok(Wanted { bytes, extension: None, asked: Asked::Proposal(proposal) })
}

/// `None` of a vote for nil. In between are block ids that no node votes for.
fn block(id: Option<&canonical::BlockId>) -> Result<Option<canonical::BlockId>, BadSignBytes> {
    let canonical::BlockId { hash, part_set_header } = id.cloned().unwrap_or_default();
    let parts = part_set_header.unwrap_or_default();
    if hash.is_empty() && parts == canonical::PartSetHeader::default() {
        Ok(None)
    } else if hash.len() == HASH_LENGTH && parts.hash.len() == HASH_LENGTH && parts.total > 0 {
        Ok(Some(canonical::BlockId { hash, part_set_header: Some(parts) }))
    } else {
        let (of_block, of_parts, total) = (hash.len(), parts.hash.len(), parts.total);
        Err(bad(format!("a block id of {of_block} bytes with {total} parts of {of_parts} bytes")))
    }
}

/// Without its extension when the answer would be longer than the node reads: it takes time and signatures alone.
fn signed_vote(vote: Vote, signed: Signed) -> Message {
    let Signed { time, signature, extension } = signed;
    let mut vote = Vote {
        timestamp: Some(timestamp(time)),
        signature,
        extension_signature: extension.unwrap_or_default(),
        ..vote
    };
    let answer = |vote| say(Sum::SignedVoteResponse(proto::SignedVoteResponse { vote: Some(vote), error: None }));
    // What comes around the vote is far shorter than what is left here for it.
    if vote.encoded_len() + 64 > NODE_READS_MAX {
        vote.extension.clear();
    }
    answer(vote)
}

fn no_vote(why: &str) -> Message {
    say(Sum::SignedVoteResponse(proto::SignedVoteResponse { vote: None, error: Some(error(why)) }))
}

fn no_proposal(why: &str) -> Message {
    say(Sum::SignedProposalResponse(proto::SignedProposalResponse { proposal: None, error: Some(error(why)) }))
}

fn say(sum: Sum) -> Message {
    Message { sum: Some(sum) }
}

/// The chain's own signer has no other code, and no node looks at it.
fn error(why: &str) -> RemoteSignerError {
    RemoteSignerError { code: 0, description: why.to_owned() }
}

fn timestamp(time: SignTime) -> Timestamp {
    Timestamp { seconds: time.seconds, nanos: time.nanos }
}

fn bad(what: impl Into<String>) -> BadSignBytes {
    BadSignBytes(what.into())
}
