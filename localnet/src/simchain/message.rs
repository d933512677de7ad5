//! What travels between nodes and what is signed. A signature covers a statement: kind, height and the hash of the
//! block, nothing else; so two statements of one key at one height are evidence that anybody can verify.
//! Checks here need the genesis and the current slot only; what depends on other blocks is in `chain.rs`.

use ed25519_dalek::Signature;
use serde::{Deserialize, Serialize};

use super::encode::{Hash, PublicKey, Sig};
use super::genesis::{Genesis, Validator, rfc3339};
use crate::judge::signlog::Kind;

/// A message that no honest node sends; the connection that it came over is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    #[error("cannot be parsed: {0}")]
    Unreadable(String),
    #[error("{what} at height {height} lies beyond the next slot ({slot} is now)")]
    Future { what: &'static str, height: u64, slot: u64 },
    #[error("{account} is no validator")]
    NotAValidator { account: String },
    #[error("block {height} is proposed by {proposer} in a slot of {expected}")]
    WrongProposer { height: u64, proposer: String, expected: String },
    #[error("block {height} has a wrong {field}")]
    WrongField { height: u64, field: &'static str },
    #[error("signature of {account} on a {what} at height {height} does not verify")]
    WrongSignature { account: String, what: &'static str, height: u64 },
    #[error("evidence against {account} at height {height} is of two equal messages")]
    NoConflict { account: String, height: u64 },
    #[error("hello of chain {theirs}, while ours is {ours}")]
    OtherChain { theirs: Hash, ours: Hash },
    #[error("it came before hello")]
    NoHello,
    #[error("it has our own host name and node key; take our address out of --peers, or give each host its own key")]
    Ourselves,
    #[error("the peer takes too little of what is sent to it")]
    Overrun,
}

/// The bytes under a signature.
pub fn statement(genesis: Hash, kind: Kind, height: u64, block: Hash) -> Vec<u8> {
    let mut bytes = b"simchain statement\0".to_vec();
    bytes.extend(genesis.0);
    bytes.push(match kind {
        Kind::Block => 0,
        Kind::Approval => 1,
    });
    bytes.extend(height.to_le_bytes());
    bytes.extend(block.0);
    bytes
}

/// One statement with its signature; who signed and at which height stands around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signed {
    pub kind: Kind,
    pub block: Hash,
    pub signature: Sig,
}

impl Signed {
    /// Verified by `validator`'s key at `height`, which is at most one slot ahead of `slot`, the current one.
    pub fn verify(&self, genesis: &Genesis, validator: &Validator, height: u64, slot: u64) -> Result<(), BadMessage> {
        not_future(self.kind.as_str(), height, slot)?;
        let bytes = statement(genesis.hash, self.kind, height, self.block);
        validator.verifying.verify_strict(&bytes, &Signature::from_bytes(&self.signature.0)).map_err(|_| {
            BadMessage::WrongSignature { account: validator.account_id.clone(), what: self.kind.as_str(), height }
        })
    }

    /// Two statements of one key at one height that an honest key never makes both.
    pub fn conflicts(&self, other: &Signed) -> bool {
        (self.kind, self.block) != (other.kind, other.block)
    }
}

/// "I have received this block in time": the one signature of a validator that does not propose at a height.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    pub account_id: String,
    pub height: u64,
    pub block: Hash,
    pub signature: Sig,
}

impl Approval {
    pub fn signed(&self) -> Signed {
        Signed { kind: Kind::Approval, block: self.block, signature: self.signature }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    pub height: u64,
    pub parent: Hash,
    /// Start of the slot, RFC 3339.
    pub time: String,
    pub proposer: String,
    /// Random: it stands for the transactions that this host happened to hold, so that two hosts which propose at
    /// one height make two different blocks, as real ones do.
    pub state_root: Hash,
    /// Of the parent, those that the proposer had.
    pub approvals: Vec<Approval>,
    /// Of everything above.
    pub hash: Hash,
    pub signature: Sig,
}

impl Block {
    /// A block on `parent` with its hash, still without its signature.
    pub fn unsigned(genesis: &Genesis, height: u64, parent: Hash, state_root: Hash, approvals: Vec<Approval>) -> Block {
        let mut block = Block {
            height,
            parent,
            time: rfc3339(genesis.time_of(height)),
            proposer: genesis.proposer(height).account_id.clone(),
            state_root,
            approvals,
            hash: Hash([0; 32]),
            signature: Sig([0; 64]),
        };
        block.hash = block.compute_hash();
        block
    }

    /// Block 0, which nobody signs.
    pub fn genesis(genesis: &Genesis) -> Block {
        let nothing = Hash([0; 32]);
        Block { hash: genesis.hash, ..Block::unsigned(genesis, 0, nothing, nothing, Vec::new()) }
    }

    fn compute_hash(&self) -> Hash {
        let mut bytes = Vec::with_capacity(256 + 160 * self.approvals.len());
        bytes.extend(self.height.to_le_bytes());
        bytes.extend(self.parent.0);
        bytes.extend(self.state_root.0);
        for text in [&self.time, &self.proposer] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        for approval in &self.approvals {
            bytes.extend((approval.account_id.len() as u64).to_le_bytes());
            bytes.extend(approval.account_id.as_bytes());
            bytes.extend(approval.height.to_le_bytes());
            bytes.extend(approval.block.0);
            bytes.extend(approval.signature.0);
        }
        Hash::of(&bytes)
    }

    pub fn signed(&self) -> Signed {
        Signed { kind: Kind::Block, block: self.hash, signature: self.signature }
    }

    /// Time, proposer, hash and the proposer's signature are right. The approvals inside are not looked at, except
    /// that all are of the parent and no account stands twice.
    pub fn verify(&self, genesis: &Genesis, slot: u64) -> Result<(), BadMessage> {
        let height = self.height;
        not_future("block", height, slot)?;
        let expected = genesis.proposer(height);
        if self.proposer != expected.account_id {
            let (proposer, expected) = (self.proposer.clone(), expected.account_id.clone());
            return Err(BadMessage::WrongProposer { height, proposer, expected });
        }
        let approvals_fit = self.approvals.iter().enumerate().all(|(i, approval)| {
            let repeated = self.approvals[..i].iter().any(|a| a.account_id == approval.account_id);
            approval.block == self.parent && approval.height < height && !repeated
        });
        let checks = [
            ("height", height > 0),
            ("time", self.time == rfc3339(genesis.time_of(height))),
            ("approval", approvals_fit),
            ("hash", self.hash == self.compute_hash()),
        ];
        if let Some((field, _)) = checks.into_iter().find(|(_, right)| !right) {
            return Err(BadMessage::WrongField { height, field });
        }
        self.signed().verify(genesis, expected, height, slot)
    }
}

/// One key signed two different messages at one height.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub account_id: String,
    pub public_key: PublicKey,
    pub height: u64,
    pub first: Signed,
    pub second: Signed,
}

impl Evidence {
    pub fn verify(&self, genesis: &Genesis, slot: u64) -> Result<(), BadMessage> {
        let account = || self.account_id.clone();
        let validator = genesis.validator(&self.account_id).filter(|v| v.public_key == self.public_key);
        let validator = validator.ok_or_else(|| BadMessage::NotAValidator { account: account() })?;
        if !self.first.conflicts(&self.second) {
            return Err(BadMessage::NoConflict { account: account(), height: self.height });
        }
        self.first.verify(genesis, validator, self.height, slot)?;
        self.second.verify(genesis, validator, self.height, slot)
    }
}

/// One length-prefixed JSON message between two nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Frame {
    /// The first one, in both directions. The name and the key tell nodes apart; they prove nothing.
    Hello {
        genesis: Hash,
        host: String,
        node_key: PublicKey,
        head: u64,
    },
    /// "I am alive and this is the height of my head"; a few times a second.
    Head {
        head: u64,
    },
    /// Asks for blocks of the peer's chain, `from` included.
    GetBlocks {
        from: u64,
    },
    /// The answer: ascending, a bounded number, empty when there are no more.
    Blocks {
        blocks: Vec<Block>,
    },
    Block(Block),
    Approval(Approval),
    Evidence(Evidence),
}

pub fn not_future(what: &'static str, height: u64, slot: u64) -> Result<(), BadMessage> {
    if height > slot.saturating_add(1) {
        return Err(BadMessage::Future { what, height, slot });
    }
    Ok(())
}
