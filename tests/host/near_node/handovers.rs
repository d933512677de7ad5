//! Handovers between two hosts on a chain whose blocks come when the test says so, or that waits for nobody: how many
//! slots nobody signs is counted, and not timed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::base::chain_node::SignFloor;
use baton::base::ids::SignMark;
use baton::base::time::WallTime;
use baton::config::OnHalt;
use baton::core::agreed::replicated::Replicated;
use baton::core::{Event, Stage};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::fake_neard::{SLOT, TURN};
use super::stage::Host;

const HANDOVERS: u32 = 5;

struct Pair {
    hosts: [Host; 2],
    terms: [watch::Sender<Option<u64>>; 2],
    chain: PathBuf,
    head: u64,
    term: u64,
    /// Last: the chain's file is in it.
    _dir: tempfile::TempDir,
}

impl Pair {
    /// The first host holds, and has endorsed the successor of the head. The chain stands still by nobody's judgement.
    async fn new(on_halt: OnHalt) -> Pair {
        Pair::with(on_halt, Duration::from_secs(3600)).await
    }

    /// As `new`; without a block for `halt_after` the chain stands still.
    async fn with(on_halt: OnHalt, halt_after: Duration) -> Pair {
        let dir = tempfile::tempdir().expect("a directory");
        let chain = dir.path().join("chain");
        std::fs::write(&chain, "block 10 1\n").expect("a chain");
        let log = Arc::new(Mutex::new(Replicated::default()));
        let (mut hosts, mut terms) = (Vec::new(), Vec::new());
        for leads in [Some(1), None] {
            let mut host = Host::following(&chain, on_halt, halt_after).await;
            let (sender, term) = watch::channel(leads);
            host.obey_in(log.clone(), term);
            hosts.push(host);
            terms.push(sender);
        }
        let (hosts, terms) = (hosts.try_into().ok().expect("two"), terms.try_into().expect("two"));
        let mut pair = Pair { hosts, terms, chain, head: 10, term: 1, _dir: dir };
        pair.hosts[0].until("settling", |host| host.stage() == Some(Stage::Settling)).await;
        pair.hosts[1].event(0, "start key=-").await;
        pair.reach(1, 10).await;
        // The first claim of all waits for a block of after it.
        pair.block();
        pair.is_active(0).await;
        pair.block();
        pair.endorses(0, pair.head + 1).await;
        pair.reach(1, pair.head).await;
        pair
    }

    fn brings(&self, line: &str) {
        append(&self.chain, line);
    }

    /// The next block, made after all that a new holder waits for.
    fn block(&mut self) {
        self.head += 1;
        let quiet = self.hosts.iter().filter_map(|host| {
            let (floor, _) = host.core.read(|core, now| core.settling(now.boot))?;
            let SignFloor::BlockAfter(quiet) = floor else { return None };
            Some(quiet + Duration::from_millis(1))
        });
        let time = quiet.fold(WallTime::now(), WallTime::max);
        self.brings(&format!("block {} {}", self.head, time.as_nanos()));
    }

    async fn is_active(&self, at: usize) {
        self.hosts[at].until("active", |host| host.stage() == Some(Stage::Active)).await;
    }

    async fn endorses(&self, at: usize, target: u64) {
        self.hosts[at].event(0, &format!("signs endorsement {target}")).await;
    }

    /// The node of this host runs, and has this head.
    async fn reach(&self, at: usize, head: u64) {
        let reached = |host: &crate::kit::host::Host| {
            let seen = host.effects.seen();
            seen.borrow().health.as_ref().is_some_and(|health| health.height >= head)
        };
        self.hosts[at].until(&format!("at {head}"), reached).await;
    }

    /// The holder lets go, and what its `Release` says.
    async fn let_go(&mut self, from: usize) -> String {
        let before = self.hosts[from].events().len();
        self.hosts[from].hand_over();
        let released = self.hosts[from].event(before, "raft Release").await;
        self.hosts[from].events()[released].clone()
    }

    /// The other host leads the next term.
    fn elect(&mut self, to: usize) {
        self.term += 1;
        self.terms[1 - to].send_replace(None);
        self.terms[to].send_replace(Some(self.term));
    }

    async fn hand_over(&mut self, from: usize) -> String {
        let released = self.let_go(from).await;
        self.elect(1 - from);
        released
    }

    /// The floor that `at` waits for, once its node has told `approved` since it waits.
    async fn waits(&self, at: usize, approved: u64) -> SignFloor {
        let host = &self.hosts[at];
        host.until("settling", |host| host.stage() == Some(Stage::Settling)).await;
        let told = |host: &crate::kit::host::Host| {
            let seen = host.effects.seen();
            seen.borrow().health.as_ref().map(|health| health.approved)
        };
        host.until("told", |host| told(host) == Some(approved)).await;
        // Two more answers with it were weighed.
        let mut seen = host.effects.seen();
        for _ in 0..2 {
            seen.changed().await.expect("effects");
        }
        assert_eq!(host.stage(), Some(Stage::Settling), "{:?}", host.events());
        host.core.read(|core, now| core.settling(now.boot)).expect("settling").0
    }

    /// Of both hosts, the heights that were endorsed, each with its host.
    fn endorsed(&self) -> Vec<(u64, usize)> {
        self.signed("endorsement")
    }

    fn signed(&self, what: &str) -> Vec<(u64, usize)> {
        let signs = format!("signs {what} ");
        let of = |at: usize| {
            let events = self.hosts[at].events();
            let heights = events.into_iter().filter_map(|event| event.split_once(&signs)?.1.parse().ok());
            heights.map(|height| (height, at)).collect::<Vec<(u64, usize)>>()
        };
        let mut all = [of(0), of(1)].concat();
        all.sort_unstable();
        all
    }

    /// From now on a block comes every slot, whoever signs.
    fn run_on(&self) -> Blocks {
        let (chain, mut head) = (self.chain.clone(), self.head);
        Blocks(tokio::spawn(async move {
            let mut slots = interval(SLOT);
            slots.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                slots.tick().await;
                head += 1;
                append(&chain, &format!("block {head} {}", WallTime::now().as_nanos()));
            }
        }))
    }

    /// The next height in which `at` has a chunk to make, once it has made it.
    async fn made_chunk(&self, at: usize) -> u64 {
        let made = self.signed("chunk").into_iter().filter(|(_, by)| *by == at).map(|(height, _)| height);
        let next = made.max().unwrap_or(self.head) / TURN * TURN + TURN;
        self.hosts[at].event(0, &format!("signs chunk {next}")).await;
        next
    }

    async fn is_ready(&self, at: usize) {
        let ready = |host: &crate::kit::host::Host| host.core.read(|core, now| core.not_ready(now.boot).is_none());
        self.hosts[at].until("ready again", ready).await;
    }

    fn flag(&self, at: usize, name: &str) {
        std::fs::write(self.hosts[at].home(name), "").expect("a flag");
    }
}

/// Blocks come until it is dropped.
struct Blocks(JoinHandle<()>);

impl Drop for Blocks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn append(chain: &Path, line: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(chain).expect("the chain");
    writeln!(file, "{line}").expect("written");
}

/// Slots without anybody's endorsement at each change of the holder.
fn pauses(endorsed: &[(u64, usize)]) -> Vec<u64> {
    endorsed.windows(2).filter(|two| two[0].1 != two[1].1).map(|two| two[1].0 - two[0].0 - 1).collect()
}

#[tokio::test]
async fn a_handover_awaits_no_block_and_no_slot_is_missed_or_signed_twice() {
    let mut pair = Pair::new(OnHalt::Wait).await;
    for (round, from) in [0, 1, 0].into_iter().enumerate() {
        let released = pair.hand_over(from).await;
        let mark = SignMark::of_approvals(pair.head, pair.head + 1);
        assert!(released.contains(&format!("last signed {mark}")), "round {round}: {released}");
        // Nothing comes until it has the key.
        pair.is_active(1 - from).await;
        pair.reach(from, pair.head).await;
        for _ in 0..2 {
            pair.block();
            pair.endorses(1 - from, pair.head + 1).await;
        }
        pair.is_ready(from).await;
    }
    let endorsed = pair.endorsed();
    let heights: Vec<u64> = endorsed.iter().map(|(height, _)| *height).collect();
    assert_eq!(heights, (heights[0]..=pair.head + 1).collect::<Vec<u64>>(), "{endorsed:?}");
    assert_eq!(pauses(&endorsed), [0; 3], "slots without anybody's endorsement, of {endorsed:?}");
}

/// Each begins after a chunk of the account, as a maintenance window would have it.
#[tokio::test]
async fn on_a_chain_that_waits_for_nobody_a_handover_pauses_for_a_slot_and_no_chunk_is_missed() {
    let mut pair = Pair::new(OnHalt::Wait).await;
    let first = pair.head + 1;
    let _blocks = pair.run_on();
    let mut holder = 0;
    for round in 0..HANDOVERS {
        pair.made_chunk(holder).await;
        // At another moment of the slot each time.
        sleep(SLOT * round / HANDOVERS).await;
        pair.hand_over(holder).await;
        pair.is_active(1 - holder).await;
        pair.is_ready(holder).await;
        holder = 1 - holder;
    }
    let last = pair.made_chunk(holder).await;
    let (endorsed, chunks) = (pair.endorsed(), pair.signed("chunk"));
    let twice = |signed: &[(u64, usize)]| signed.windows(2).any(|two| two[0].0 == two[1].0);
    assert!(!twice(&endorsed) && !twice(&chunks), "{endorsed:?}\n{chunks:?}");
    let made = |height: &u64| chunks.iter().any(|(at, _)| at == height);
    let missed: Vec<u64> = (first..=last).filter(|height| height.is_multiple_of(TURN) && !made(height)).collect();
    assert!(missed.is_empty(), "chunks {missed:?} were due and not made, of {chunks:?}");
    let mut pauses = pauses(&endorsed);
    pauses.sort_unstable();
    eprintln!("{HANDOVERS} handovers, slots without anybody's endorsement: {pauses:?}");
    assert_eq!(pauses.len(), HANDOVERS as usize, "{endorsed:?}");
    assert!(pauses[pauses.len() / 2] <= 1, "slots without anybody's endorsement: {pauses:?}, of {endorsed:?}");
}

#[tokio::test]
async fn a_new_holder_whose_own_approvals_are_behind_waits_for_them_and_for_no_block() {
    let mut pair = Pair::new(OnHalt::Wait).await;
    pair.flag(1, "slow");
    // The chain stands still, and the old holder gives up two heights.
    pair.brings("skip");
    pair.brings("skip");
    let top = pair.head + 3;
    pair.hosts[0].event(0, &format!("signs skip {top} on {}", pair.head)).await;
    let released = pair.hand_over(0).await;
    let mark = SignMark::of_approvals(pair.head, top);
    assert!(released.contains(&mark.to_string()), "{released}");
    assert_eq!(pair.waits(1, top - 2).await, SignFloor::Mark(mark));
    std::fs::remove_file(pair.hosts[1].home("slow")).expect("removed");
    pair.brings("skip");
    pair.brings("skip");
    pair.is_active(1).await;
}

#[tokio::test]
async fn without_a_word_of_approvals_the_new_holder_waits_for_a_block() {
    let mut pair = Pair::new(OnHalt::Wait).await;
    // Of the old holder.
    pair.flag(0, "mute");
    let released = pair.hand_over(0).await;
    assert!(released.contains("no mark"), "{released}");
    let floor = pair.waits(1, pair.head + 1).await;
    assert!(matches!(floor, SignFloor::BlockAfter(_)), "{floor:?}");
    pair.block();
    pair.is_active(1).await;
    pair.block();
    pair.endorses(1, pair.head + 1).await;
    std::fs::remove_file(pair.hosts[0].home("mute")).expect("removed");
    pair.reach(0, pair.head).await;
    // Of the new one. Its process is another since then, which has told nothing yet.
    pair.flag(0, "mute");
    let released = pair.hand_over(1).await;
    let mark = SignMark::of_approvals(pair.head, pair.head + 1);
    assert!(released.contains(&mark.to_string()), "{released}");
    assert_eq!(pair.waits(0, 0).await, SignFloor::Mark(mark));
    pair.block();
    pair.is_active(0).await;
}

#[tokio::test]
async fn a_node_that_was_stopped_leaves_no_mark() {
    let mut pair = Pair::new(OnHalt::Wait).await;
    pair.flag(0, "deaf");
    let released = pair.let_go(0).await;
    assert!(released.contains("no mark"), "{released}");
    assert!(pair.hosts[0].event_after(0, " term").is_some(), "{:?}", pair.hosts[0].events());
}

#[tokio::test]
async fn a_holder_gossips_how_far_it_has_approved_and_nothing_above_what_it_releases() {
    let mut pair = Pair::new(OnHalt::Replica).await;
    let mark = SignMark::of_approvals(pair.head, pair.head + 1);
    let told = |host: &crate::kit::host::Host| host.effects.seen().borrow().last_signed;
    pair.hosts[0].until("told", |host| told(host) == Some(mark)).await;
    assert_eq!(pair.hosts[0].core.read(|core, _| core.mark_seen()), Some(mark));
    assert_eq!(told(&pair.hosts[1]), None, "a standby has approved nothing");
    let released = pair.let_go(0).await;
    assert!(released.contains(&mark.to_string()), "{released}");
    // The node goes on without the key, and what it would approve is none of the key's.
    pair.block();
    pair.reach(1, pair.head).await;
    pair.hosts[0].event(0, " term").await;
    assert_eq!(told(&pair.hosts[0]), Some(mark));
}

/// The old holder is lost without a word, and no block comes without its successor.
#[tokio::test]
async fn on_a_halted_chain_a_lost_holders_gossiped_mark_is_met_by_approvals_alone() {
    let mut pair = Pair::with(OnHalt::Replica, Duration::from_millis(1500)).await;
    pair.flag(1, "slow");
    pair.brings("skip");
    let top = pair.head + 2;
    pair.hosts[0].event(0, &format!("signs skip {top} on {}", pair.head)).await;
    let mark = SignMark::of_approvals(pair.head, top);
    let told = |host: &crate::kit::host::Host| host.effects.seen().borrow().last_signed == Some(mark);
    pair.hosts[0].until("told", told).await;
    // As gossip does.
    pair.hosts[1].core.step(Event::MarkSeen(mark));
    pair.elect(1);
    pair.hosts[1].until("settling", |host| host.stage() == Some(Stage::Settling)).await;
    let floor = |host: &crate::kit::host::Host| host.core.read(|core, now| core.settling(now.boot)).map(|told| told.0);
    pair.hosts[1].until("on its own", |host| floor(host) == Some(SignFloor::Mark(mark))).await;
    assert_eq!(pair.waits(1, top - 1).await, SignFloor::Mark(mark));
    std::fs::remove_file(pair.hosts[1].home("slow")).expect("removed");
    pair.brings("skip");
    pair.is_active(1).await;
    assert!(pair.hosts[1].event_after(0, &format!("signs skip {top}")).is_none(), "{:?}", pair.hosts[1].events());
}

#[tokio::test]
async fn a_holder_is_told_at_which_heights_it_has_no_chunk_to_make() {
    let mut pair = Pair::new(OnHalt::Wait).await;
    let first_of_turn = (pair.head / TURN + 1) * TURN + 1;
    let told = async |pair: &Pair, length| {
        let told = pair.hosts[0].effects.maintenance_window(length).await.expect("near tells windows");
        let (pace, window) = told.expect("an answer");
        assert_eq!(pace.head, pair.head);
        // A status tells milliseconds.
        assert!(pace.block_time.abs_diff(SLOT) < Duration::from_millis(1), "{pace:?}");
        window
    };
    assert_eq!(told(&pair, SLOT * TURN as u32).await, None, "no window has a whole turn");
    // The next block is the one before the chunk of this turn.
    while pair.head + 2 < first_of_turn - 1 {
        pair.block();
        pair.reach(0, pair.head).await;
    }
    let window = told(&pair, SLOT * 4).await.expect("the next turn has one");
    assert_eq!(window.heights, first_of_turn..first_of_turn + TURN - 1);
    assert!(!window.starts_in.is_zero(), "{window:?}");
    for _ in 0..2 {
        pair.block();
        pair.reach(0, pair.head).await;
    }
    let window = told(&pair, SLOT * 4).await.expect("an open one");
    assert_eq!((window.heights.start, window.starts_in), (pair.head + 1, Duration::ZERO));
}
