//! The merge rule under a network that loses, repeats and reorders, with owners that restart on clocks
//! that went back. No task, no socket: tables and messages in memory.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::table::Change;
use super::*;
use crate::cluster::wire::proto::ChainHealth;

const NAMES: [&str; 4] = ["host-a", "host-b", "host-c", "host-d"];
const NOW: BootTime = BootTime::from_nanos(1_000_000_000);

fn table(owner: usize, generation: u64) -> Table {
    let others = NAMES.iter().filter(|name| **name != NAMES[owner]).map(|name| NodeId::from(*name));
    let me = Sender {
        cluster: "test".into(),
        member: NAMES[owner].into(),
        incarnation: 100 + owner as u64,
        protocol: crate::cluster::wire::PROTOCOL,
        founders: 0,
        session: crate::cluster::wire::Session::default(),
        knows: 0,
    };
    Table::new(&me, generation, others)
}

fn a_table() -> Table {
    table(0, 5)
}

/// A record of host-b's with its true incarnation.
fn of_b(generation: u64, version: u64, state: &str) -> Record {
    Record { member: "host-b".into(), generation, version, incarnation: 101, state: state.into(), ..Default::default() }
}

fn known(table: &Table, id: &str) -> Option<Arc<Record>> {
    table.get(&id.into()).unwrap().record.clone()
}

#[test]
fn only_a_higher_generation_or_version_replaces_a_record() {
    let mut table = a_table();
    assert_eq!(table.merge(of_b(7, 3, "Voting"), None, NOW), Merged::Newer);
    assert_eq!(table.merge(of_b(7, 3, "Syncing"), None, NOW), Merged::Old);
    assert_eq!(table.merge(of_b(7, 2, "Syncing"), None, NOW), Merged::Old);
    assert_eq!(table.merge(of_b(6, 9, "Syncing"), None, NOW), Merged::Old);
    assert_eq!(known(&table, "host-b").unwrap().state, "Voting");
    assert_eq!(table.merge(of_b(8, 0, "Startup"), None, NOW), Merged::Newer);
    assert_eq!(known(&table, "host-b").unwrap().state, "Startup");
}

#[test]
fn a_mark_of_the_owner_is_pushed_and_one_that_it_only_heard_of_waits_for_the_exchange() {
    let mut table = a_table();
    let mark = |height| Some(crate::base::ids::SignMark::at_height(height).into());
    let own = Record { last_signed: mark(7), ..Record::default() };
    assert_eq!(table.publish(own.clone(), NOW), Change::Facts);
    let signed_on = Record { last_signed: mark(8), mark_seen: mark(8), ..own };
    assert_eq!(table.publish(signed_on.clone(), NOW), Change::Facts);
    let heard = Record { mark_seen: mark(9), ..signed_on };
    assert_eq!(table.publish(heard, NOW), Change::Measures, "else every member would answer every block of the holder");
    assert_eq!(table.mine().mark_seen, mark(9));
}

#[test]
fn an_old_record_is_no_sign_of_life() {
    let mut table = a_table();
    table.merge(of_b(7, 3, ""), None, NOW);
    let later = NOW + Duration::from_secs(9);
    table.merge(of_b(7, 3, ""), None, later);
    assert_eq!(table.get(&"host-b".into()).unwrap().heard_at, Some(NOW));
    table.merge(of_b(7, 4, ""), None, later);
    assert_eq!(table.get(&"host-b".into()).unwrap().heard_at, Some(later));
}

#[test]
fn a_copy_of_the_own_record_that_claims_to_be_newer_is_outbid_and_never_taken() {
    let mut table = a_table();
    table.publish(Record { state: "Voting".into(), ..Default::default() }, NOW);
    let forged = |generation, version| Record {
        member: "host-a".into(),
        generation,
        version,
        state: "Validating".into(),
        ..Default::default()
    };
    for (generation, version, raised) in
        [(5, 1, (5, 2)), (9, 4, (9, 5)), (9, u64::MAX, (10, 0)), (u64::MAX, 3, (u64::MAX, 4))]
    {
        assert_eq!(table.merge(forged(generation, version), None, NOW), Merged::Outbid, "{generation} {version}");
        let mine = table.mine();
        assert_eq!((mine.generation, mine.version, mine.state.as_str()), (raised.0, raised.1, "Voting"));
        assert_eq!(mine.incarnation, 100);
    }
    assert_eq!(table.merge(forged(u64::MAX, u64::MAX), None, NOW), Merged::Refused);
    assert_eq!(table.merge((**table.mine()).clone(), None, NOW), Merged::Old, "an echo is no rival");
}

#[test]
fn strangers_and_replaced_stores_are_refused_also_when_relayed() {
    let mut table = a_table();
    let stranger = Record { member: "host-z".into(), generation: 1, ..Default::default() };
    assert_eq!(table.merge(stranger, None, NOW), Merged::Refused);
    assert!(table.get(&"host-z".into()).is_none());
    assert_eq!(table.merge(of_b(7, 3, ""), Some(999), NOW), Merged::Refused);
    assert_eq!(known(&table, "host-b"), None);
}

#[test]
fn a_member_added_again_replaces_what_its_old_store_said_even_on_an_earlier_clock() {
    let mut table = a_table();
    assert_eq!(table.merge(of_b(900, 3, "old"), Some(101), NOW), Merged::Newer);
    let again = Record { incarnation: 555, ..of_b(7, 1, "new") };
    assert_eq!(table.merge(again, Some(555), NOW), Merged::Newer);
    assert_eq!(table.merge(of_b(900, 4, "old"), Some(555), NOW), Merged::Refused);
    assert_eq!(known(&table, "host-b").unwrap().state, "new");
}

#[test]
fn publishing_the_same_changes_nothing_and_measures_alone_are_not_urgent() {
    let mut table = a_table();
    let chain = ChainHealth { height: 10, probe_latency_us: 900, ..Default::default() };
    let record = Record { state: "Voting".into(), chain: Some(chain.clone()), ..Default::default() };
    assert_eq!(table.publish(record.clone(), NOW), Change::Facts);
    let version = table.mine().version;
    assert_eq!(table.publish(record.clone(), NOW), Change::Nothing);
    assert_eq!(table.mine().version, version);
    let chain = ChainHealth { probe_latency_us: 800, ..chain };
    let record = Record { lease_remaining_ms: 400, chain: Some(chain.clone()), ..record };
    assert_eq!(table.publish(record.clone(), NOW), Change::Measures);
    assert_eq!(table.mine().version, version + 1);
    let record = Record { chain: Some(ChainHealth { height: 11, ..chain }), ..record };
    assert_eq!(table.publish(record, NOW), Change::Facts);
}

#[test]
fn a_member_is_reachable_until_two_exchanges_failed_or_three_seconds_went_by() {
    let mut table = a_table();
    let (id, sample) = (NodeId::from("host-b"), ClockSample { rtt: Duration::from_millis(1), offset: -7 });
    assert!(!table.is_reachable(&id, NOW), "nothing is known of it yet");
    table.exchange_succeeded(&id, sample, NOW);
    assert!(table.is_reachable(&id, NOW + REACHABLE_FOR - Duration::from_nanos(1)));
    assert!(!table.is_reachable(&id, NOW + REACHABLE_FOR));
    assert!(table.exchange_failed(&id, "refused"));
    assert!(table.is_reachable(&id, NOW), "one may be lost");
    assert!(!table.exchange_failed(&id, "refused"), "the same failure is no news");
    assert!(!table.is_reachable(&id, NOW));
    table.exchange_succeeded(&id, sample, NOW);
    assert!(table.is_reachable(&id, NOW));
    assert_eq!(table.largest_clock_offset(NOW), Some(-7));
    assert!(table.is_reachable(&"host-a".into(), NOW) && !table.is_reachable(&"host-z".into(), NOW));
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        member: usize,
        height: u64,
    },
    Send {
        from: usize,
        to: usize,
    },
    Deliver {
        message: prop::sample::Index,
        keep: bool,
    },
    Lose {
        message: prop::sample::Index,
    },
    Beat {
        member: usize,
    },
    /// The generation comes from a clock that may have gone back.
    Restart {
        member: usize,
        generation: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let member = || 0..NAMES.len();
    let message = any::<prop::sample::Index>;
    let step = prop_oneof![
        3 => (member(), 0..50u64).prop_map(|(member, height)| Step::Publish { member, height }),
        5 => (member(), member()).prop_map(|(from, to)| Step::Send { from, to }),
        5 => (message(), any::<bool>()).prop_map(|(message, keep)| Step::Deliver { message, keep }),
        1 => message().prop_map(|message| Step::Lose { message }),
        1 => member().prop_map(|member| Step::Beat { member }),
        1 => (member(), 1..6u64).prop_map(|(member, generation)| Step::Restart { member, generation }),
    ];
    prop::collection::vec(step, 1..120)
}

struct World {
    tables: Vec<Table>,
    in_flight: Vec<(usize, Vec<Record>)>,
    /// What each member last published, and everything it ever did.
    height: Vec<u64>,
    said: Vec<BTreeSet<u64>>,
}

impl World {
    fn new() -> World {
        let members = NAMES.len();
        World {
            tables: (0..members).map(|owner| table(owner, 3)).collect(),
            in_flight: Vec::new(),
            height: vec![0; members],
            said: vec![BTreeSet::from([0]); members],
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Publish { member, height } => self.publish(member, height),
            Step::Send { from, to } => self.in_flight.push((to, self.tables[from].records())),
            Step::Deliver { message, keep } if !self.in_flight.is_empty() => {
                let at = message.index(self.in_flight.len());
                let (to, records) = if keep { self.in_flight[at].clone() } else { self.in_flight.swap_remove(at) };
                self.deliver(to, records);
            }
            Step::Lose { message } if !self.in_flight.is_empty() => {
                let at = message.index(self.in_flight.len());
                self.in_flight.swap_remove(at);
            }
            Step::Deliver { .. } | Step::Lose { .. } => {}
            Step::Beat { member } => self.tables[member].beat(NOW),
            Step::Restart { member, generation } => {
                self.tables[member] = table(member, generation);
                self.height[member] = 0;
            }
        }
    }

    fn publish(&mut self, member: usize, height: u64) {
        let chain = Some(ChainHealth { height, ..Default::default() });
        self.tables[member].publish(Record { chain, ..Default::default() }, NOW);
        self.height[member] = height;
        self.said[member].insert(height);
    }

    fn deliver(&mut self, to: usize, records: Vec<Record>) {
        let before = self.tables[to].clone();
        for record in records {
            let owner = NAMES.iter().position(|name| *name == record.member).unwrap();
            self.tables[to].merge(record, Some(100 + owner as u64), NOW);
        }
        for (id, heard) in self.tables[to].iter() {
            let order = |record: &Option<Arc<Record>>| record.as_ref().map(|r| (r.generation, r.version));
            let (was, is) = (order(&before.get(id).unwrap().record), order(&heard.record));
            assert!(was <= is, "{id}'s record went back at {}: {was:?} to {is:?}", NAMES[to]);
        }
    }

    fn check(&self) {
        for (at, table) in self.tables.iter().enumerate() {
            assert_eq!(height(table.mine()), self.height[at], "{} did not say this of itself", NAMES[at]);
            for (owner, name) in NAMES.iter().enumerate() {
                let heard = known(table, name);
                let said = heard.is_none_or(|record| self.said[owner].contains(&height(&record)));
                assert!(said, "{} believes what {name} never said", NAMES[at]);
            }
        }
    }

    /// Full exchanges along a chain of members: the ends hear of each other through the others alone.
    /// Beats go on for a while, as they do each second: on clocks that went back, two lives of an owner can
    /// give different records the same number, and only the next number tells them apart.
    fn settle(&mut self) {
        let rounds = 2 * NAMES.len();
        for round in 0..2 * rounds {
            if round < rounds {
                self.tables.iter_mut().for_each(|table| table.beat(NOW));
            }
            for left in 0..NAMES.len() - 1 {
                let there = self.tables[left].records();
                self.deliver(left + 1, there);
                let back = self.tables[left + 1].records();
                self.deliver(left, back);
            }
        }
        for (at, table) in self.tables.iter().enumerate() {
            for (owner, name) in NAMES.iter().enumerate() {
                let (heard, own) = (known(table, name), self.tables[owner].mine());
                assert_eq!(heard.as_ref(), Some(own), "{} has another record of {name}", NAMES[at]);
            }
        }
    }
}

fn height(record: &Record) -> u64 {
    record.chain.as_ref().map_or(0, |chain| chain.height)
}

proptest! {
    #[test]
    fn whatever_the_network_does_nobody_speaks_for_another_and_all_agree_in_the_end(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
            world.check();
        }
        world.settle();
        world.check();
    }
}
