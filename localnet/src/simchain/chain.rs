//! What one node knows of the chain: recent blocks, the head, approvals, and who signed what, from which evidence
//! follows. Pure: no clock, no I/O, no keys; the current slot is an argument. Called by `node.rs`.
//!
//! The head is the highest valid block received. There is no finality: a fork ends when one side is overtaken.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::encode::Hash;
use super::genesis::{Genesis, Validator};
use super::message::{Approval, BadMessage, Block, Evidence, Signed, not_future};

/// Heights below the head for which blocks and signatures are kept. Older ones are forgotten: a node that is further
/// behind takes the oldest block that a peer still has as its starting point.
pub const KEEP: u64 = 256;

/// Pieces of evidence kept; one is enough to condemn a key, so later ones may be dropped.
pub const EVIDENCE_MAX: usize = 1000;

/// What [`Chain::add_block`] did with a valid block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    NewHead,
    /// Kept, but not higher than the head.
    Side,
    Known,
    /// Too old to matter.
    Old,
    /// Not kept: its parent is missing.
    Orphan,
}

/// Whether a block without its parent may be the start of what we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Refuse,
    Accept,
}

pub struct Chain {
    genesis: Rc<Genesis>,
    blocks: HashMap<Hash, Rc<Block>>,
    head: Rc<Block>,
    /// By height, then in the order of arrival; one for an account and block.
    approvals: BTreeMap<u64, Vec<Approval>>,
    /// The first statement of an account at a height.
    signed: BTreeMap<u64, HashMap<String, Signed>>,
    evidence: Vec<Evidence>,
    /// Blocks and approvals of each account that were seen, since this process started.
    seen: HashMap<String, (u64, u64)>,
    /// How many of `evidence` have been handed out by `take_new_evidence`.
    evidence_taken: usize,
}

impl Chain {
    pub fn new(genesis: Rc<Genesis>) -> Chain {
        let first = Rc::new(Block::genesis(&genesis));
        Chain {
            genesis,
            blocks: HashMap::from([(first.hash, first.clone())]),
            head: first,
            approvals: BTreeMap::new(),
            signed: BTreeMap::new(),
            evidence: Vec::new(),
            evidence_taken: 0,
            seen: HashMap::new(),
        }
    }

    /// Whether `block` could become the next of what we know.
    pub fn continues(&self, block: &Block, anchor: Anchor) -> bool {
        anchor == Anchor::Accept || self.blocks.contains_key(&block.parent)
    }

    /// Blocks and approvals of `account` that were seen.
    pub fn seen_of(&self, account: &str) -> (u64, u64) {
        self.seen.get(account).copied().unwrap_or_default()
    }

    pub fn head(&self) -> &Rc<Block> {
        &self.head
    }

    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// Evidence that came up since the last call.
    pub fn take_new_evidence(&mut self) -> Vec<Evidence> {
        let new = self.evidence[self.evidence_taken..].to_vec();
        self.evidence_taken = self.evidence.len();
        new
    }

    /// Lowest height that is still looked at.
    fn floor(&self) -> u64 {
        self.head.height.saturating_sub(KEEP)
    }

    pub fn add_block(&mut self, block: Block, slot: u64, anchor: Anchor) -> Result<Added, BadMessage> {
        if self.blocks.contains_key(&block.hash) {
            return Ok(Added::Known);
        }
        if block.height <= self.floor() {
            return Ok(Added::Old);
        }
        block.verify(&self.genesis, slot)?;
        let parent = self.blocks.get(&block.parent);
        if parent.is_none() && anchor == Anchor::Refuse {
            return Ok(Added::Orphan);
        }
        if let Some(parent) = parent {
            let height = block.height;
            if parent.height >= height || block.approvals.iter().any(|a| a.height != parent.height) {
                return Err(BadMessage::WrongField { height, field: "parent" });
            }
        }
        for approval in &block.approvals {
            self.add_approval(approval, slot)?;
        }
        self.record(&block.proposer, block.height, block.signed());
        self.seen.entry(block.proposer.clone()).or_default().0 += 1;
        let block = Rc::new(block);
        self.blocks.insert(block.hash, block.clone());
        if block.height <= self.head.height {
            return Ok(Added::Side);
        }
        self.head = block;
        self.forget_old();
        Ok(Added::NewHead)
    }

    /// True when it is new, and verified.
    pub fn add_approval(&mut self, approval: &Approval, slot: u64) -> Result<bool, BadMessage> {
        not_future("approval", approval.height, slot)?;
        if approval.height < self.floor() {
            return Ok(false);
        }
        let known = self.approvals.get(&approval.height);
        if known.is_some_and(|known| known.contains(approval)) {
            return Ok(false);
        }
        let validator = self.known_validator(&approval.account_id)?;
        approval.signed().verify(&self.genesis, validator, approval.height, slot)?;
        self.record(&approval.account_id, approval.height, approval.signed());
        self.seen.entry(approval.account_id.clone()).or_default().1 += 1;
        self.approvals.entry(approval.height).or_default().push(approval.clone());
        Ok(true)
    }

    /// True when it is new, and verified.
    pub fn add_evidence(&mut self, evidence: Evidence, slot: u64) -> Result<bool, BadMessage> {
        if self.is_condemned(&evidence.account_id, evidence.height) || self.evidence.len() >= EVIDENCE_MAX {
            return Ok(false);
        }
        evidence.verify(&self.genesis, slot)?;
        self.evidence.push(evidence);
        Ok(true)
    }

    fn known_validator(&self, account: &str) -> Result<&Validator, BadMessage> {
        self.genesis.validator(account).ok_or_else(|| BadMessage::NotAValidator { account: account.into() })
    }

    fn is_condemned(&self, account: &str, height: u64) -> bool {
        // The newest is the likeliest one.
        self.evidence.iter().rev().any(|e| e.height == height && e.account_id == account)
    }

    /// Remembers a verified statement; the second, different one of an account at a height becomes evidence.
    fn record(&mut self, account: &str, height: u64, second: Signed) {
        let at_height = self.signed.entry(height).or_default();
        let Some(&first) = at_height.get(account) else {
            at_height.insert(account.into(), second);
            return;
        };
        if !first.conflicts(&second) || self.is_condemned(account, height) || self.evidence.len() >= EVIDENCE_MAX {
            return;
        }
        if let Some(validator) = self.genesis.validator(account) {
            let (account_id, public_key) = (account.into(), validator.public_key);
            self.evidence.push(Evidence { account_id, public_key, height, first, second });
        }
    }

    /// The block that `height`'s proposer builds on the head, unsigned.
    pub fn build(&self, height: u64, state_root: Hash) -> Block {
        assert!(height > self.head.height, "building {height} on head {}", self.head.height);
        let of_head = self.approvals.get(&self.head.height).into_iter().flatten();
        let mut approvals: Vec<Approval> = Vec::new();
        for approval in of_head.filter(|a| a.block == self.head.hash) {
            if approvals.iter().all(|a| a.account_id != approval.account_id) {
                approvals.push(approval.clone());
            }
        }
        Block::unsigned(&self.genesis, height, self.head.hash, state_root, approvals)
    }

    /// The head and its ancestors as far as they are kept, lowest first, from height `from` on.
    pub fn from_height(&self, from: u64) -> Vec<Rc<Block>> {
        let mut blocks = Vec::new();
        let mut next = Some(&self.head);
        while let Some(block) = next.filter(|b| b.height >= from) {
            blocks.push(block.clone());
            next = self.blocks.get(&block.parent);
        }
        blocks.reverse();
        blocks
    }

    /// The lowest block of the chain that is still kept.
    pub fn earliest(&self) -> Rc<Block> {
        let lowest = self.blocks.values().min_by_key(|b| b.height);
        lowest.unwrap_or(&self.head).clone()
    }

    fn forget_old(&mut self) {
        let floor = self.floor();
        // In strides, so that the whole table is not walked for every block.
        if self.blocks.len() as u64 > KEEP + 64 {
            self.blocks.retain(|_, block| block.height >= floor);
        }
        self.approvals = self.approvals.split_off(&floor);
        self.signed = self.signed.split_off(&floor);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton::base::time::WallTime;

    use super::super::genesis::{GenesisFile, GenesisValidator, rfc3339};
    use super::super::keys::KeyPair;
    use super::super::message::statement;
    use super::*;
    use crate::judge::signlog::Kind;

    struct World {
        genesis: Rc<Genesis>,
        keys: Vec<KeyPair>,
    }

    impl World {
        fn new() -> World {
            let keys: Vec<KeyPair> = ["a", "b", "c"].map(KeyPair::generate).into();
            let file = GenesisFile {
                chain_id: "test".into(),
                genesis_time: rfc3339(WallTime::from_nanos(0) + Duration::from_secs(1000)),
                slot_ms: 50,
                validators: keys
                    .iter()
                    .map(|k| GenesisValidator { account_id: k.account_id.clone(), public_key: k.public_key })
                    .collect(),
            };
            World { genesis: Rc::new(Genesis::new(&file).expect("genesis")), keys }
        }

        fn sign(&self, by: usize, kind: Kind, height: u64, block: Hash) -> Signed {
            let signature = self.keys[by].sign(&statement(self.genesis.hash, kind, height, block));
            Signed { kind, block, signature }
        }

        /// A block of the right proposer on `chain`'s head; `salt` makes it different from others.
        fn block(&self, chain: &Chain, height: u64, salt: u8) -> Block {
            let mut block = chain.build(height, Hash([salt; 32]));
            block.signature = self.sign(height as usize % 3, Kind::Block, height, block.hash).signature;
            block
        }

        fn approval(&self, by: usize, height: u64, block: Hash) -> Approval {
            let signature = self.sign(by, Kind::Approval, height, block).signature;
            Approval { account_id: self.keys[by].account_id.clone(), height, block, signature }
        }

        fn chain(&self) -> Chain {
            Chain::new(self.genesis.clone())
        }
    }

    #[test]
    fn the_head_is_the_highest_valid_block_and_gaps_are_allowed() {
        let (world, now) = (World::new(), 10);
        let mut chain = world.chain();
        let late = world.block(&chain, 2, 0);
        let five = world.block(&chain, 5, 0);
        assert_eq!(chain.add_block(five.clone(), now, Anchor::Refuse), Ok(Added::NewHead));
        assert_eq!(chain.add_block(five.clone(), now, Anchor::Refuse), Ok(Added::Known));
        assert_eq!(chain.add_block(late, now, Anchor::Refuse), Ok(Added::Side));
        assert_eq!(chain.head().hash, five.hash);
    }

    #[test]
    fn forged_misplaced_and_future_blocks_are_bad() {
        let (world, now) = (World::new(), 4);
        let mut chain = world.chain();
        let good = world.block(&chain, 5, 0);
        let mut forged = good.clone();
        forged.signature = world.sign(0, Kind::Block, 5, good.hash).signature;
        let mut changed = good.clone();
        changed.state_root = Hash([9; 32]);
        let mut usurped = good.clone();
        usurped.proposer = "a".into();
        let mut add = |block| chain.add_block(block, now, Anchor::Refuse);
        assert!(matches!(add(forged), Err(BadMessage::WrongSignature { .. })));
        assert!(matches!(add(changed), Err(BadMessage::WrongField { field: "hash", .. })));
        assert!(matches!(add(usurped), Err(BadMessage::WrongProposer { .. })));
        let chain = world.chain();
        let future = world.block(&chain, 6, 0);
        assert!(matches!(world.chain().add_block(future, now, Anchor::Refuse), Err(BadMessage::Future { .. })));
        assert_eq!(world.chain().add_block(good, now, Anchor::Refuse), Ok(Added::NewHead));
    }

    #[test]
    fn a_block_carries_the_approvals_of_its_parent() {
        let (world, now) = (World::new(), 10);
        let mut chain = world.chain();
        let one = world.block(&chain, 1, 0);
        assert_eq!(chain.add_block(one.clone(), now, Anchor::Refuse), Ok(Added::NewHead));
        for by in [0, 2] {
            assert_eq!(chain.add_approval(&world.approval(by, 1, one.hash), now), Ok(true));
        }
        let two = world.block(&chain, 2, 0);
        assert_eq!(two.approvals.len(), 2);

        let mut other = world.chain();
        assert_eq!(other.add_block(two.clone(), now, Anchor::Refuse), Ok(Added::Orphan));
        assert_eq!(other.add_block(one, now, Anchor::Refuse), Ok(Added::NewHead));
        assert_eq!(other.add_block(two.clone(), now, Anchor::Refuse), Ok(Added::NewHead));
        assert_eq!(other.add_approval(&two.approvals[0], now), Ok(false), "already known from the block");
        let mut forged = two.approvals[0].clone();
        forged.account_id = "b".into();
        assert!(matches!(other.add_approval(&forged, now), Err(BadMessage::WrongSignature { .. })));
    }

    #[test]
    fn a_key_that_signs_two_messages_at_a_height_is_condemned_once() {
        let (world, now) = (World::new(), 10);
        let mut chain = world.chain();
        let (one, other) = (world.block(&chain, 1, 1), world.block(&chain, 1, 2));
        for block in [&one, &other] {
            chain.add_block(block.clone(), now, Anchor::Refuse).expect("valid");
        }
        // b proposed twice, c approved both, a approved one; b also approves what it proposed.
        for (by, block) in [(2, &one), (2, &other), (0, &one), (1, &one)] {
            chain.add_approval(&world.approval(by, 1, block.hash), now).expect("valid");
        }
        let found = chain.take_new_evidence();
        let accounts: Vec<&str> = found.iter().map(|e| e.account_id.as_str()).collect();
        assert_eq!(accounts, ["b", "c"]);
        assert!(chain.take_new_evidence().is_empty());

        let mut far = world.chain();
        assert_eq!(far.add_evidence(found[1].clone(), now), Ok(true));
        assert_eq!(far.add_evidence(found[1].clone(), now), Ok(false));
        let mut forged = found[0].clone();
        forged.second = forged.first;
        assert!(matches!(far.add_evidence(forged, now), Err(BadMessage::NoConflict { .. })));
        let mut blamed = found[0].clone();
        (blamed.account_id, blamed.public_key) = ("a".into(), world.keys[0].public_key);
        assert!(matches!(far.add_evidence(blamed, now), Err(BadMessage::WrongSignature { .. })));
    }

    #[test]
    fn old_blocks_are_forgotten_and_a_newcomer_starts_from_what_is_kept() {
        let (world, now) = (World::new(), 1000);
        let mut chain = world.chain();
        for height in 1..=900 {
            let block = world.block(&chain, height, 0);
            assert_eq!(chain.add_block(block, now, Anchor::Refuse), Ok(Added::NewHead));
        }
        assert!(chain.blocks.len() as u64 <= KEEP + 65, "{} blocks kept", chain.blocks.len());
        assert!(chain.signed.len() as u64 <= KEEP + 1, "{} heights kept", chain.signed.len());
        let kept = chain.from_height(900 - KEEP + 1);
        assert_eq!(kept.len() as u64, KEEP);
        let mut newcomer = world.chain();
        assert_eq!(newcomer.add_block(Block::clone(&kept[0]), now, Anchor::Refuse), Ok(Added::Orphan));
        assert_eq!(newcomer.add_block(Block::clone(&kept[0]), now, Anchor::Accept), Ok(Added::NewHead));
        assert_eq!(newcomer.add_block(Block::clone(&kept[1]), now, Anchor::Refuse), Ok(Added::NewHead));
    }
}
