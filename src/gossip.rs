//! What members tell each other of themselves: one versioned record each, pushed when it changes and
//! exchanged in full every second. Soft state: it may veto or choose, and grants nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::identity::Identity;
use crate::ids::NodeId;
use crate::time::{BootTime, WallTime};
use crate::transport::MESSAGE_BYTES_MAX;
use crate::wire::Sender;
use crate::wire::proto::gossip_client::GossipClient;
use crate::wire::proto::gossip_server::{self, GossipServer};
use crate::wire::proto::{ExchangeRequest, ExchangeResponse, Record};

/// Shortest time between two pushes to one peer.
const PUSH_EVERY_MIN: Duration = Duration::from_millis(50);
/// Between two full exchanges with one peer.
const EXCHANGE_EVERY: Duration = Duration::from_secs(1);
const EXCHANGE_TIMEOUT: Duration = Duration::from_millis(500);
/// A peer that was not heard of for longer is away.
const HEARD_MAX: Duration = Duration::from_millis(2500);
/// Of that many exchanges, the fastest one tells the clock offset best.
const OFFSET_SAMPLES: usize = 8;

#[derive(Clone)]
pub struct Gossip {
    shared: Arc<Shared>,
}

struct Shared {
    me: NodeId,
    identity: Arc<Identity>,
    table: watch::Sender<Table>,
}

/// All that this member has heard, its own record included.
#[derive(Clone, Debug, Default)]
pub struct Table {
    members: BTreeMap<NodeId, Known>,
}

/// What is known of one member.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub record: Option<Record>,
    /// When it last answered or asked; relayed news do not count.
    heard_at: Option<BootTime>,
    /// The last exchange with it failed.
    failed: bool,
    pub rtt: Option<Duration>,
    samples: VecDeque<OffsetSample>,
}

#[derive(Clone, Copy, Debug)]
struct OffsetSample {
    rtt: Duration,
    offset_ns: i64,
}

impl Known {
    pub fn is_reachable(&self, now: BootTime) -> bool {
        !self.failed && self.heard_at.is_some_and(|at| now.since(at) <= HEARD_MAX)
    }

    /// Its wall clock minus ours, nanoseconds, by the fastest of the last exchanges. The error is at
    /// most half of that exchange's round trip.
    pub fn clock_offset_ns(&self) -> Option<i64> {
        self.samples.iter().min_by_key(|sample| sample.rtt).map(|sample| sample.offset_ns)
    }

    fn note_answer(&mut self, now: BootTime, rtt: Duration, offset_ns: i64) {
        self.heard_at = Some(now);
        self.failed = false;
        self.rtt = Some(rtt);
        if self.samples.len() == OFFSET_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(OffsetSample { rtt, offset_ns });
    }
}

impl Table {
    pub fn get(&self, member: &NodeId) -> Option<&Known> {
        self.members.get(member)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Known)> {
        self.members.iter()
    }

    fn record(&self, member: &NodeId) -> Option<&Record> {
        self.members.get(member).and_then(|known| known.record.as_ref())
    }

    /// Puts this member's own record in place, under the next version, when it says anything new or
    /// `anyway`.
    fn publish(&mut self, me: &NodeId, mut record: Record, anyway: bool) -> bool {
        let known = self.members.entry(me.clone()).or_default();
        if let Some(own) = &known.record {
            record.generation = record.generation.max(own.generation);
            record.version = own.version;
            if !anyway && lasting(&record) == lasting(own) {
                return false;
            }
        }
        record.version += 1;
        known.record = Some(record);
        true
    }

    /// Takes over what is newer. Nobody can change this member's own record: news of it from elsewhere
    /// that look newer only raise its version above them.
    fn merge(&mut self, me: &NodeId, records: Vec<Record>) -> bool {
        let mut changed = false;
        for record in records {
            let member = NodeId::from(record.member.as_str());
            let known = self.members.entry(member.clone()).or_default();
            let newer = known.record.as_ref().is_none_or(|own| age(&record) > age(own));
            if member == *me {
                if let Some(own) = known.record.as_mut().filter(|_| newer) {
                    own.generation = own.generation.max(record.generation);
                    own.version = record.version + 1;
                    changed = true;
                }
            } else if newer {
                known.record = Some(record);
                changed = true;
            }
        }
        changed
    }
}

/// What of a record is worth a push of its own; the rest changes all the time.
fn lasting(record: &Record) -> Record {
    let mut record = record.clone();
    (record.lease_remaining_ms, record.clock_offset_ns, record.disk_free_bytes) = (0, 0, 0);
    if let Some(chain) = &mut record.chain {
        chain.probe_latency_us = 0;
    }
    record
}

/// A higher one replaces a lower one.
fn age(record: &Record) -> (u64, u64) {
    (record.generation, record.version)
}

impl Gossip {
    /// Begins to speak with `peers`, each in a task of its own: one that hangs delays itself only.
    pub fn start(identity: Arc<Identity>, peers: Vec<(NodeId, Channel)>) -> Gossip {
        let me = identity.me().member.clone();
        let shared = Arc::new(Shared { me, identity, table: watch::Sender::default() });
        for (peer, channel) in peers {
            let client = GossipClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            tokio::spawn(speak_with(shared.clone(), peer, client));
        }
        Gossip { shared }
    }

    /// What answers the exchanges of peers.
    pub fn service(&self) -> GossipServer<Answerer> {
        GossipServer::new(Answerer { shared: self.shared.clone() }).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Tells everybody this member's own record, if it says anything new or `anyway`. Its version is
    /// ours to set.
    pub fn publish(&self, record: Record, anyway: bool) {
        self.shared.table.send_if_modified(|table| table.publish(&self.shared.me, record, anyway));
    }

    pub fn table(&self) -> watch::Receiver<Table> {
        self.shared.table.subscribe()
    }
}

async fn speak_with(shared: Arc<Shared>, peer: NodeId, mut client: GossipClient<Channel>) {
    let mut table = shared.table.subscribe();
    let mut told = (0, 0);
    loop {
        let mut full = false;
        let news = table.wait_for(|table| table.record(&shared.me).is_some_and(|own| age(own) != told));
        match timeout(EXCHANGE_EVERY, news).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_elapsed) => full = true,
        }
        let (records, own_age) = {
            let table = shared.table.borrow();
            let own_age = table.record(&shared.me).map_or((0, 0), age);
            let records = table.members.values().filter_map(|known| known.record.clone());
            (records.filter(|record| full || record.member == shared.me.as_str()).collect(), own_age)
        };
        match exchange(&shared, &peer, &mut client, records, full).await {
            Ok(()) => told = own_age,
            Err(reason) => {
                debug!(%peer, "gossip: {reason}");
                shared.table.send_if_modified(|table| note_failure(table, &peer));
                sleep(EXCHANGE_TIMEOUT).await;
            }
        }
        sleep(PUSH_EVERY_MIN).await;
    }
}

fn note_failure(table: &mut Table, peer: &NodeId) -> bool {
    let known = table.members.entry(peer.clone()).or_default();
    !std::mem::replace(&mut known.failed, true)
}

async fn exchange(
    shared: &Shared,
    peer: &NodeId,
    client: &mut GossipClient<Channel>,
    records: Vec<Record>,
    full: bool,
) -> Result<(), String> {
    let (sent_at, sent_wall) = (BootTime::now(), WallTime::now());
    let request =
        ExchangeRequest { sender: Some(shared.identity.me().into()), records, full, sent_at_ns: sent_wall.as_nanos() };
    let answered = timeout(EXCHANGE_TIMEOUT, client.exchange(Request::new(request))).await;
    let answer = answered.map_err(|_| "no answer in time".to_string())?;
    let answer = answer.map_err(|status| status.message().to_string())?.into_inner();
    let sender = sender_of(answer.sender)?;
    shared.identity.check_from(&sender, peer).map_err(|stranger| stranger.to_string())?;
    let now = BootTime::now();
    let rtt = now.since(sent_at);
    let halfway = sent_wall + rtt / 2;
    let offset_ns = answer.answered_at_ns.wrapping_sub(halfway.as_nanos()) as i64;
    shared.table.send_if_modified(|table| {
        let changed = table.merge(&shared.me, answer.records);
        let known = table.members.entry(peer.clone()).or_default();
        let returned = !known.is_reachable(now);
        known.note_answer(now, rtt, offset_ns);
        changed || returned
    });
    Ok(())
}

fn sender_of(sender: Option<crate::wire::proto::Sender>) -> Result<Sender, String> {
    let sender = sender.ok_or("an exchange without a sender")?;
    Sender::try_from(sender).map_err(|error| error.to_string())
}

/// The other end of an exchange.
pub struct Answerer {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl gossip_server::Gossip for Answerer {
    async fn exchange(&self, request: Request<ExchangeRequest>) -> Result<Response<ExchangeResponse>, Status> {
        let request = request.into_inner();
        let sender = sender_of(request.sender).map_err(Status::invalid_argument)?;
        let identity = &self.shared.identity;
        identity.check(&sender).map_err(|stranger| Status::permission_denied(stranger.to_string()))?;
        let (me, full) = (&self.shared.me, request.full);
        let now = BootTime::now();
        self.shared.table.send_if_modified(|table| {
            let changed = table.merge(me, request.records);
            let known = table.members.entry(sender.member).or_default();
            let returned = !known.is_reachable(now);
            known.heard_at = Some(now);
            known.failed = false;
            changed || returned
        });
        let records = {
            let table = self.shared.table.borrow();
            let records = table.members.values().filter_map(|known| known.record.clone());
            records.filter(|record| full || record.member == me.as_str()).collect()
        };
        let answered_at_ns = WallTime::now().as_nanos();
        Ok(Response::new(ExchangeResponse { sender: Some(identity.me().into()), records, answered_at_ns }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(member: &str, generation: u64, version: u64, phase: &str) -> Record {
        Record { member: member.into(), generation, version, phase: phase.into(), ..Record::default() }
    }

    fn phase_of<'a>(table: &'a Table, member: &str) -> &'a str {
        &table.record(&member.into()).unwrap().phase
    }

    #[test]
    fn a_newer_record_replaces_an_older_one_whatever_order_they_come_in() {
        let mut table = Table::default();
        assert!(table.merge(&"me".into(), vec![record("b", 1, 5, "new"), record("b", 1, 4, "old")]));
        assert_eq!(phase_of(&table, "b"), "new");
        assert!(!table.merge(&"me".into(), vec![record("b", 1, 5, "same age")]));
        assert!(table.merge(&"me".into(), vec![record("b", 2, 1, "restarted")]));
        assert_eq!(phase_of(&table, "b"), "restarted");
    }

    #[test]
    fn nobody_changes_my_record_and_mine_ends_up_newest() {
        let mut table = Table::default();
        let me = NodeId::from("me");
        table.publish(&me, record("me", 1, 0, "mine"), false);
        assert!(table.merge(&me, vec![record("me", 7, 9, "forged")]));
        assert_eq!(phase_of(&table, "me"), "mine");
        assert!(age(table.record(&me).unwrap()) > (7, 9));
    }

    #[test]
    fn a_record_that_says_nothing_new_is_not_told() {
        let mut table = Table::default();
        let me = NodeId::from("me");
        assert!(table.publish(&me, record("me", 1, 0, "x"), false));
        assert!(!table.publish(&me, record("me", 1, 0, "x"), false));
        assert!(table.publish(&me, record("me", 1, 0, "y"), false));
        assert_eq!(table.record(&me).unwrap().version, 2);
    }

    #[test]
    fn the_fastest_exchange_tells_the_offset() {
        let mut known = Known::default();
        let now = BootTime::from_nanos(1);
        known.note_answer(now, Duration::from_millis(9), 900);
        known.note_answer(now, Duration::from_millis(1), 100);
        assert_eq!(known.clock_offset_ns(), Some(100));
        for _ in 0..OFFSET_SAMPLES {
            known.note_answer(now, Duration::from_millis(5), 500);
        }
        assert_eq!(known.clock_offset_ns(), Some(500));
    }
}
