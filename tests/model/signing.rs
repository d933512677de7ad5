//! Where the log decides what is signed: two hosts whose chain nodes ask for what they like, in any order and again,
//! with a leader that may lose its lead between an entry's way into the log, its commit and the answer, and hosts that
//! forget how far they had applied. The state machine is the real one. Every state within the bounds is visited.
//!
//! The signers' own marks are left out: they are for a log that was lost, which is no part of this.

use std::cell::RefCell;
use std::collections::BTreeSet;

use baton::base::signing::{Hrs, SignDigest, SignTime};
use baton::base::time::WallTime;
use baton::core::agreed::replicated::{Applied, Command, Replicated, Signing};
use baton::core::agreed::sign_log::{Grant, Requester, SignRequest, Verdict};
use stateright::{Checker, HasDiscoveries, Model, Property};

const HOSTS: usize = 2;
/// How often each host's node asks.
const ASKS: u8 = 2;
/// Entries of the log.
const LOG_MAX: usize = 2;
const HEIGHTS: [u64; 2] = [1, 2];
const CONTENTS: [u8; 2] = [1, 2];

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// A signature waits until its entry is committed.
    Commit,
    /// What the state machine says to an entry decides, not that it is committed.
    Verdict,
    /// What is signed again keeps the time that was admitted.
    FirstTime,
    /// Nothing is signed below what was admitted.
    LowerPlaces,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ask {
    height: u64,
    content: u8,
    time: u8,
}

/// A request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    ask: Ask,
    /// Where its entry is, as far as its host knows.
    entry: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// As the leader has it.
    log: Vec<Ask>,
    committed: usize,
    leader: usize,
    applied: [usize; HOSTS],
    waiting: [Option<Waiting>; HOSTS],
    asked: [u8; HOSTS],
    signed: BTreeSet<Ask>,
}

fn request(ask: Ask) -> SignRequest {
    SignRequest {
        chain: "c".into(),
        place: Hrs::new(ask.height, 0, Hrs::PRECOMMIT),
        digest: SignDigest([ask.content; 32]),
        time: SignTime { seconds: ask.time.into(), nanos: 0 },
        by: Some(Requester { host: "a".into(), sentry: None }),
    }
}

/// The state after the entries, and what the last one came to.
fn after(entries: &[Ask]) -> (Replicated, Option<Verdict>) {
    let mut state = Replicated::default();
    let last = Grant { place: Hrs::default(), digest: None, time: SignTime::default() };
    let at = WallTime::from_nanos(0);
    let opened = Command::Signing(Signing::Open { chain: "c".into(), key: "k".into(), last, at });
    assert_eq!(state.apply(1, &opened), Applied::Recorded);
    let mut came_to = None;
    for ask in entries {
        let Applied::Weighed(verdict) = state.apply(1, &Command::Signing(Signing::Sign(request(*ask)))) else {
            panic!("a request to sign came to something else");
        };
        came_to = Some(verdict);
    }
    (state, came_to)
}

fn weigh(entries: &[Ask], ask: Ask) -> Verdict {
    after(entries).0.sign_log.expect("it was opened").weigh(&request(ask))
}

impl World {
    fn first() -> World {
        World {
            log: Vec::new(),
            committed: 0,
            leader: 0,
            applied: [0; HOSTS],
            waiting: [None; HOSTS],
            asked: [0; HOSTS],
            signed: BTreeSet::new(),
        }
    }

    fn next(&self, without: Without) -> Vec<World> {
        let next = RefCell::new(Vec::new());
        let may = |step: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            step(&mut world);
            next.borrow_mut().push(world);
        };
        for host in 0..HOSTS {
            if self.waiting[host].is_none() && self.asked[host] < ASKS {
                let all = HEIGHTS.into_iter().flat_map(|height| CONTENTS.map(|content| (height, content)));
                // Which content comes first is a matter of names.
                let is_first = self.asked == [0; HOSTS];
                for (height, content) in all.filter(|(_, content)| !is_first || *content == CONTENTS[0]) {
                    may(&|world| {
                        let time = world.asked[host] * 2 + host as u8;
                        world.asked[host] += 1;
                        world.waiting[host] = Some(Waiting { ask: Ask { height, content, time }, entry: None });
                    });
                }
            }
            if self.applied[host] < self.committed {
                may(&|world| world.applied[host] += 1);
            }
            // The coordinator starts again, from a state or a snapshot of before.
            if self.applied[host] > 0 {
                may(&|world| {
                    world.applied[host] = 0;
                    world.waiting[host] = None;
                });
            }
            if let Some(waiting) = self.waiting[host] {
                let granted = weigh(&self.log[..self.applied[host]], waiting.ask) == Verdict::Granted;
                let leads = self.leader == host && self.log.len() < LOG_MAX;
                if leads && waiting.entry.is_none() && granted {
                    may(&|world| {
                        world.waiting[host] = Some(Waiting { entry: Some(world.log.len()), ..waiting });
                        world.log.push(waiting.ask);
                    });
                }
                next.borrow_mut().extend(self.answered(host, waiting, without));
            }
        }
        if self.committed < self.log.len() {
            may(&|world| world.committed += 1);
        }
        // The next leader has all that is committed, and any part of the rest.
        for kept in self.committed..=self.log.len() {
            may(&|world| {
                world.log.truncate(kept);
                let lost = world.leader;
                world.leader = 1 - lost;
                // Whoever proposed hears that the lead is lost, and knows nothing of its entry.
                if let Some(waiting) = &mut world.waiting[lost] {
                    waiting.entry = None;
                }
            });
        }
        next.into_inner()
    }

    /// What the request of `host` comes to, once it comes to something.
    fn answered(&self, host: usize, waiting: Waiting, without: Without) -> Option<World> {
        let ask = waiting.ask;
        let known = &self.log[..self.applied[host]];
        let verdict = match waiting.entry {
            Some(entry) if entry < self.applied[host] => after(&self.log[..=entry]).1?,
            Some(entry) if without == Without::Commit && entry < self.log.len() => after(&self.log[..=entry]).1?,
            Some(_) => return None,
            None => weigh(known, ask),
        };
        let of_entry = waiting.entry.is_some();
        if verdict == Verdict::Granted && !of_entry {
            return None;
        }
        let asked_for = SignTime { seconds: ask.time.into(), nanos: 0 };
        let admitted = match &verdict {
            Verdict::Repeated { .. } if without == Without::FirstTime => Some(asked_for),
            Verdict::Stale { .. } if without == Without::LowerPlaces => Some(asked_for),
            Verdict::Conflict { .. } | Verdict::Stale { .. } if without == Without::Verdict && of_entry => {
                Some(asked_for)
            }
            verdict => verdict.admits(asked_for),
        };
        let mut world = self.clone();
        world.waiting[host] = None;
        if let Some(time) = admitted {
            world.signed.insert(Ask { time: time.seconds as u8, ..ask });
        }
        Some(world)
    }

    /// Two signatures of one place that differ.
    fn conflict(&self) -> Option<(Ask, Ask)> {
        let pairs = self.signed.iter().zip(self.signed.iter().skip(1));
        pairs.into_iter().find(|(one, other)| one.height == other.height).map(|(one, other)| (*one, *other))
    }
}

struct Askers(Without);

impl Model for Askers {
    type State = World;
    /// The world that follows.
    type Action = World;

    fn init_states(&self) -> Vec<World> {
        vec![World::first()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<World>) {
        *actions = world.next(self.0);
    }

    fn next_state(&self, _: &World, next: World) -> Option<World> {
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Askers>> {
        vec![Property::always("one content and one time", |_, world: &World| world.conflict().is_none())]
    }
}

/// Every world within the bounds, and the first in which a place was signed twice.
fn explore(without: Without) -> (usize, Option<World>) {
    let checker = Askers(without).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let worlds = checker.unique_state_count();
    let found = checker.discoveries().into_values().next().map(|path| path.last_state().clone());
    eprintln!("two askers without {without:?}: {worlds} worlds, {found:?}");
    (worlds, found)
}

#[test]
fn whatever_two_hosts_ask_a_place_is_signed_with_one_content_and_one_time() {
    let (worlds, found) = explore(Without::Nothing);
    assert_eq!(found, None);
    assert!(worlds > 10_000, "{worlds}: the bounds leave nothing to find");
}

#[test]
fn each_rule_about_signing_is_needed() {
    for without in [Without::Commit, Without::Verdict, Without::FirstTime, Without::LowerPlaces] {
        let (_, found) = explore(without);
        assert!(found.is_some(), "without {without:?} nothing is signed twice");
    }
}
