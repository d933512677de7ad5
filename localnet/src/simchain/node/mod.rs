//! One node of the chain: decides when to propose, approve, relay and ask for blocks. It owns the chain, the signer
//! and the table of connections; sockets, timers and signals are elsewhere (`gossip.rs`, `run.rs`) and call in
//! here with the time as an argument. Everything runs on one thread.

mod halt;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use baton::base::time::{BootTime, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::sync::{Notify, mpsc};

use super::chain::{Added, Anchor, Chain, KEEP};
use super::encode::{Hash, PublicKey};
use super::genesis::Genesis;
use super::message::{Approval, BadMessage, Block, Evidence, Frame};
use super::pretend::Pretend;
use super::seen::Seen;
use super::signer::{Signer, load_validator_key};
use super::upgrades::Upgrades;
use crate::judge::signlog::Kind;

/// A head at most this many slots old counts as current: blocks are approved, the node is in sync.
const CURRENT_SLOTS: u64 = 8;

/// Blocks in one answer: verifying so many must not keep `/status` waiting.
const BATCH: usize = 16;

/// How long an answer to `GetBlocks` is awaited before another peer may be asked.
const SYNC_PATIENCE: Duration = Duration::from_secs(1);

/// Frames that may wait for one peer; one that takes less is given up.
pub const QUEUE: usize = 1024;

pub type ConnId = u64;
pub type Outbox = mpsc::Sender<Rc<[u8]>>;

/// Both clocks at one moment.
#[derive(Clone, Copy)]
pub struct Now {
    pub wall: WallTime,
    pub boot: BootTime,
}

impl Now {
    pub fn read() -> Now {
        Now { wall: chain_time(), boot: BootTime::now() }
    }
}

/// The wall clock by the kernel, past whatever steps it for the other programs of a host: this chain takes its
/// heights from it, which no real chain does.
fn chain_time() -> WallTime {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    WallTime::from_nanos(tv_sec as u64 * 1_000_000_000 + tv_nsec as u64)
}

/// Tells the nodes at the other ends of connections apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PeerName {
    host: String,
    node_key: PublicKey,
}

struct Connection {
    outbox: Outbox,
    /// `None` before its hello.
    name: Option<PeerName>,
    /// Height of its head, as far as it told.
    head: u64,
}

/// A question for blocks that waits for its answer.
struct Asked {
    conn: ConnId,
    at: BootTime,
    anchor: Anchor,
}

#[derive(Clone, Copy, Default)]
pub struct Counters {
    pub blocks_produced: u64,
    pub approvals_signed: u64,
    pub sign_failures: u64,
    pub bad_messages: u64,
}

/// What a node is started with.
pub struct NodeConfig {
    pub host: String,
    pub node_key: PublicKey,
    pub key_path: PathBuf,
    /// Where `upgrade-info.json` is left.
    pub data: PathBuf,
    /// As `/status` tells it.
    pub version: String,
    /// Addresses that it dials; with none the node is content to be alone.
    pub configured_peers: usize,
}

pub struct Node {
    pub config: NodeConfig,
    pub genesis: Rc<Genesis>,
    pub chain: Chain,
    pub signer: Signer,
    pub counters: Counters,
    pub pretend: Pretend,
    pub upgrades: Upgrades,
    /// Why it neither signs nor takes a block any more.
    pub halted: Option<String>,
    /// The last one before the halt, which `/status` tells also when nobody has proposed at it.
    pub halt_height: Option<u64>,
    /// Told when the process is to end with what `halted` says.
    pub ends: Rc<Notify>,
    /// False while the key file is garbled and an older key (or none) stays active.
    pub key_file_good: bool,
    pub started: BootTime,
    connections: BTreeMap<ConnId, Connection>,
    next_conn: ConnId,
    asked: Option<Asked>,
    seen: Seen,
    /// The head was current, and has moved ever since.
    caught_up: bool,
    /// When the head last moved by somebody else's block, or by ours if we are the only validator.
    last_news: BootTime,
}

impl Node {
    pub fn new(config: NodeConfig, genesis: Rc<Genesis>, signer: Signer, upgrades: Upgrades, now: Now) -> Node {
        Node {
            config,
            chain: Chain::new(genesis.clone()),
            genesis,
            signer,
            counters: Counters::default(),
            pretend: Pretend::default(),
            upgrades,
            halted: None,
            halt_height: None,
            ends: Rc::default(),
            key_file_good: true,
            started: now.boot,
            connections: BTreeMap::new(),
            next_conn: 0,
            asked: None,
            seen: Seen::default(),
            caught_up: false,
            last_news: now.boot,
        }
    }

    /// One line on stderr. Nobody reading it must not stop the chain.
    pub fn note(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr(), "{} {} {text}", WallTime::now(), self.config.host);
    }

    /// Distinct nodes that have said hello.
    pub fn peers(&self) -> usize {
        self.connections.values().filter_map(|c| c.name.as_ref()).collect::<BTreeSet<_>>().len()
    }

    /// A head that stands still for so long means that the node is out of sync.
    fn stall_limit(&self) -> Duration {
        (self.genesis.slot * 40).max(Duration::from_secs(2))
    }

    pub fn syncing(&self, now: Now) -> bool {
        let alone = self.peers() == 0 && self.config.configured_peers > 0;
        alone || !self.caught_up || now.boot.since(self.last_news) > self.stall_limit()
    }

    /// Reads the validator key again. A garbled one changes nothing, as in neard: the old one stays active.
    pub fn reload_key(&mut self) {
        let describe = |signer: &Signer| match signer.key() {
            Some(key) => format!("key {} of {}", key.public_key, key.account_id),
            None => "no key".into(),
        };
        match load_validator_key(&self.config.key_path, &self.genesis) {
            Ok(key) => {
                self.signer.set_key(key);
                self.key_file_good = true;
                self.note(format_args!("reload: {} is active", describe(&self.signer)));
            }
            Err(error) => {
                self.key_file_good = false;
                self.note(format_args!("reload failed: {error}; {} stays active", describe(&self.signer)));
            }
        }
    }

    // ---- slots -------------------------------------------------------------------------------------------------

    /// Called once in every slot, as early in it as the machine allows. `slot` is the one that `now` lies in.
    pub fn on_slot(&mut self, slot: u64, now: Now) {
        self.look_for_upgrades(slot);
        if self.halted.is_some() {
            return;
        }
        if now.boot.since(self.last_news) > self.stall_limit() {
            self.caught_up = false;
        }
        let public_key = self.genesis.proposer(slot).public_key;
        let mine = self.signer.can_sign(public_key, slot) && slot > self.chain.head().height;
        if mine && self.may_propose() {
            match self.upgrades.needed_at(slot).cloned() {
                Some(planned) => self.halt_for(&planned),
                None => self.propose(slot, now),
            }
        }
    }

    /// Nobody is known to be ahead. A node that is not in sync also wants to have heard half of its peers: at the
    /// start of a chain, or after a halt, somebody has to go first, but not one who knows nothing yet.
    fn may_propose(&self) -> bool {
        let heads = self.connections.values().filter(|c| c.name.is_some()).map(|c| c.head);
        let ahead = heads.max().unwrap_or(0) > self.chain.head().height + CURRENT_SLOTS;
        let peers = self.peers();
        let connected = peers > 0 || self.config.configured_peers == 0;
        !ahead && connected && (self.caught_up || 2 * peers >= self.config.configured_peers)
    }

    fn propose(&mut self, slot: u64, now: Now) {
        let mut block = self.chain.build(slot, Hash(rand::random()));
        block.signature = match self.signer.sign(&self.genesis, Kind::Block, slot, block.hash) {
            Ok(signed) => signed.signature,
            Err(error) => return self.on_sign_failure(error),
        };
        self.counters.blocks_produced += 1;
        let frame = Frame::Block(block.clone());
        match self.chain.add_block(block, slot, Anchor::Refuse) {
            Ok(Added::NewHead) => {}
            other => panic!("our own block {slot} on our own head gave {other:?}"),
        }
        if self.genesis.validators.len() == 1 {
            self.on_news(slot, now);
        }
        self.broadcast(&frame, None);
        self.publish_evidence();
    }

    /// Approves the block that has just become the head, when the loaded key has that to do.
    fn approve(&mut self, height: u64, block: Hash, slot: u64) {
        let Some(key) = self.signer.key() else { return };
        let (account_id, public_key) = (key.account_id.clone(), key.public_key);
        let validates = self.genesis.validator(&account_id).is_some();
        let proposed_it = self.genesis.proposer(height).public_key == public_key;
        if !validates || proposed_it || !self.signer.can_sign(public_key, height) {
            return;
        }
        let signature = match self.signer.sign(&self.genesis, Kind::Approval, height, block) {
            Ok(signed) => signed.signature,
            Err(error) => return self.on_sign_failure(error),
        };
        self.counters.approvals_signed += 1;
        let approval = Approval { account_id, height, block, signature };
        if let Err(error) = self.chain.add_approval(&approval, slot) {
            panic!("our own approval of {height} was refused: {error}");
        }
        self.broadcast(&Frame::Approval(approval), None);
    }

    fn on_sign_failure(&mut self, error: super::signer::SignError) {
        self.counters.sign_failures += 1;
        self.note(format_args!("not signed: {error}"));
    }

    fn on_news(&mut self, slot: u64, now: Now) {
        self.last_news = now.boot;
        if self.chain.head().height + CURRENT_SLOTS >= slot {
            self.caught_up = true;
        }
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// A new connection; hello goes out first.
    pub fn attach(&mut self, outbox: Outbox) -> ConnId {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.connections.insert(conn, Connection { outbox, name: None, head: 0 });
        let hello = Frame::Hello {
            genesis: self.genesis.hash,
            host: self.config.host.clone(),
            node_key: self.config.node_key,
            head: self.chain.head().height,
        };
        self.send(conn, &hello);
        conn
    }

    pub fn detach(&mut self, conn: ConnId) {
        self.connections.remove(&conn);
        if self.asked.as_ref().is_some_and(|a| a.conn == conn) {
            self.asked = None;
        }
    }

    /// Tells every peer the height of the head.
    pub fn announce(&mut self) {
        let head = self.chain.head().height;
        // On every connection: a silent one is taken for dead by the other side.
        for conn in self.connections.keys().copied().collect::<Vec<_>>() {
            self.send(conn, &Frame::Head { head });
        }
    }

    fn send(&mut self, conn: ConnId, frame: &Frame) {
        self.send_bytes(conn, encode(frame));
    }

    fn send_bytes(&mut self, conn: ConnId, bytes: Rc<[u8]>) {
        let Some(connection) = self.connections.get(&conn) else { return };
        if connection.outbox.try_send(bytes).is_err() {
            self.detach(conn);
        }
    }

    /// To every node once, though two nodes may have two connections, and not to the one that `from` leads to.
    fn broadcast(&mut self, frame: &Frame, from: Option<ConnId>) {
        let bytes = encode(frame);
        self.seen.insert(&bytes);
        self.broadcast_bytes(bytes, from);
    }

    fn broadcast_bytes(&mut self, bytes: Rc<[u8]>, from: Option<ConnId>) {
        let source = from.and_then(|conn| self.connections.get(&conn)?.name.clone());
        let mut chosen: BTreeMap<&PeerName, ConnId> = BTreeMap::new();
        for (conn, connection) in &self.connections {
            if let Some(name) = connection.name.as_ref().filter(|name| Some(*name) != source.as_ref()) {
                chosen.entry(name).or_insert(*conn);
            }
        }
        for conn in chosen.into_values().collect::<Vec<_>>() {
            self.send_bytes(conn, bytes.clone());
        }
    }

    // ---- what peers say ----------------------------------------------------------------------------------------

    /// # Errors
    /// The connection is to be closed; nothing of the message was taken in.
    pub fn on_frame(&mut self, conn: ConnId, bytes: &[u8], now: Now) -> Result<(), BadMessage> {
        if self.seen.contains(bytes) {
            return Ok(());
        }
        let connection = self.connections.get_mut(&conn).ok_or(BadMessage::Overrun)?;
        let frame: Frame = serde_json::from_slice(bytes).map_err(|e| BadMessage::Unreadable(e.to_string()))?;
        if connection.name.is_none() && !matches!(frame, Frame::Hello { .. }) {
            return Err(BadMessage::NoHello);
        }
        let slot = self.genesis.slot_at(now.wall);
        match frame {
            Frame::Hello { genesis, host, node_key, head } => {
                let ours = self.genesis.hash;
                if genesis != ours {
                    return Err(BadMessage::OtherChain { theirs: genesis, ours });
                }
                if host == self.config.host && node_key == self.config.node_key {
                    return Err(BadMessage::Ourselves);
                }
                connection.name = Some(PeerName { host, node_key });
                self.on_peer_head(conn, head, slot, now)?;
                // Evidence from before this connection.
                for evidence in self.chain.evidence().to_vec().into_iter().rev().take(QUEUE / 4) {
                    self.send(conn, &Frame::Evidence(evidence));
                }
            }
            Frame::Head { head } => self.on_peer_head(conn, head, slot, now)?,
            Frame::GetBlocks { from } => {
                let kept = self.chain.from_height(from.max(1));
                let blocks = kept.iter().take(BATCH).map(|block| Block::clone(block)).collect();
                self.send(conn, &Frame::Blocks { blocks });
            }
            Frame::Blocks { blocks } => self.on_blocks(conn, blocks, slot, now)?,
            Frame::Block(block) => self.on_block(conn, block, bytes, slot, now)?,
            Frame::Approval(approval) => {
                let new = self.chain.add_approval(&approval, slot)?;
                self.relay(conn, bytes, new);
            }
            Frame::Evidence(evidence) => {
                let new = self.chain.add_evidence(evidence, slot)?;
                self.relay(conn, bytes, new);
            }
        }
        self.publish_evidence();
        Ok(())
    }

    fn relay(&mut self, from: ConnId, bytes: &[u8], new: bool) {
        self.seen.insert(bytes);
        if new {
            self.broadcast_bytes(bytes.into(), Some(from));
        }
    }

    fn on_block(&mut self, conn: ConnId, block: Block, bytes: &[u8], slot: u64, now: Now) -> Result<(), BadMessage> {
        let (height, hash) = (block.height, block.hash);
        if self.halted.is_some() || self.halts_before(&block, slot, Anchor::Refuse)? {
            return Ok(());
        }
        let added = self.chain.add_block(block, slot, Anchor::Refuse)?;
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.head = connection.head.max(height);
        }
        match added {
            Added::NewHead => {
                self.relay(conn, bytes, true);
                self.on_news(slot, now);
                if height + CURRENT_SLOTS >= slot {
                    self.approve(height, hash, slot);
                }
            }
            Added::Side => self.relay(conn, bytes, true),
            Added::Known | Added::Old => self.relay(conn, bytes, false),
            Added::Orphan => self.ask_for_blocks(conn, Anchor::Refuse, now),
        }
        Ok(())
    }

    fn on_peer_head(&mut self, conn: ConnId, head: u64, slot: u64, now: Now) -> Result<(), BadMessage> {
        super::message::not_future("head", head, slot)?;
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.head = head;
        }
        if head > self.chain.head().height {
            self.ask_for_blocks(conn, Anchor::Refuse, now);
        }
        Ok(())
    }

    /// Asks from a little below our head on, which also bridges short forks. When a peer has forgotten so much, or
    /// with `Anchor::Accept`, from the oldest that it keeps.
    fn ask_for_blocks(&mut self, conn: ConnId, anchor: Anchor, now: Now) {
        if self.asked.as_ref().is_some_and(|asked| now.boot.since(asked.at) < SYNC_PATIENCE) {
            return;
        }
        let peer_head = self.connections.get(&conn).map_or(0, |c| c.head);
        let oldest_kept = peer_head.saturating_sub(KEEP - 1);
        let next = self.chain.head().height.saturating_sub(CURRENT_SLOTS) + 1;
        let (from, anchor) = match anchor {
            Anchor::Refuse if next >= oldest_kept => (next, Anchor::Refuse),
            Anchor::Refuse | Anchor::Accept => (oldest_kept, Anchor::Accept),
        };
        self.asked = Some(Asked { conn, at: now.boot, anchor });
        self.send(conn, &Frame::GetBlocks { from });
    }

    fn on_blocks(&mut self, conn: ConnId, blocks: Vec<Block>, slot: u64, now: Now) -> Result<(), BadMessage> {
        // An answer to nothing, or one that came too late.
        let Some(Asked { anchor, .. }) = self.asked.take_if(|asked| asked.conn == conn) else { return Ok(()) };
        let full = blocks.len() >= BATCH;
        let mut last = 0;
        for (i, block) in blocks.into_iter().enumerate() {
            last = block.height;
            let allowed = if i == 0 { anchor } else { Anchor::Refuse };
            if self.halted.is_some() || self.halts_before(&block, slot, allowed)? {
                return Ok(());
            }
            match self.chain.add_block(block, slot, allowed)? {
                Added::NewHead => self.on_news(slot, now),
                Added::Side | Added::Known | Added::Old => {}
                Added::Orphan => {
                    self.ask_for_blocks(conn, Anchor::Accept, now);
                    return Ok(());
                }
            }
        }
        if full {
            self.asked = Some(Asked { conn, at: now.boot, anchor: Anchor::Refuse });
            self.send(conn, &Frame::GetBlocks { from: last + 1 });
        }
        Ok(())
    }

    fn publish_evidence(&mut self) {
        for evidence in self.chain.take_new_evidence() {
            let Evidence { account_id, height, first, second, .. } = &evidence;
            let (one, two) = (first.kind.as_str(), second.kind.as_str());
            self.note(format_args!("evidence: {account_id} signed at height {height} twice: {one} and {two}"));
            self.broadcast(&Frame::Evidence(evidence), None);
        }
    }
}

fn encode(frame: &Frame) -> Rc<[u8]> {
    serde_json::to_vec(frame).expect("frames have string keys only").into()
}
