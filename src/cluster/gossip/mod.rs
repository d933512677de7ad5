//! Soft state: every member owns one versioned record and tells every other one. A change is pushed
//! at once, and a full exchange each second repairs whatever was lost and carries records around a
//! cut between two members. Gossip may veto an activation or choose a target; it never grants
//! anything. `coordinator` owns the `Gossip`, publishes to it and reads its table.

mod clock;
mod peer;
mod server;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

pub use clock::ClockSample;
pub use server::GossipService;
pub use table::{FAILURES_MAX, Heard, Merged, REACHABLE_FOR, Table};

use crate::base::ids::NodeId;
use crate::base::time::{BootTime, WallTime};
use crate::cluster::identity::Identity;
use crate::cluster::roster::Roster;
use crate::cluster::transport::MESSAGE_BYTES_MAX;
use crate::cluster::wire::proto::Record;
use crate::cluster::wire::proto::gossip_server::GossipServer;
use crate::cluster::wire::{Sender, WireError, proto};
use table::Change;

/// Between two full exchanges with the same peer.
pub const EXCHANGE_EVERY: Duration = Duration::from_secs(1);
/// Between two pushes to the same peer; what changes meanwhile goes with the next one.
pub const PUSH_EVERY: Duration = Duration::from_millis(50);
/// For one answer of a peer.
pub const RPC_TIMEOUT: Duration = Duration::from_millis(500);

/// This member's part in gossip. Dropping the last clone ends its tasks, closes its table, and services
/// made from it answer `unavailable`.
#[derive(Clone)]
pub struct Gossip {
    shared: Arc<Shared>,
    roster: Arc<Roster>,
    _tasks: Arc<JoinSet<()>>,
}

impl Gossip {
    /// Starts exchanging with every other member, each on its own task, so that a hanging one delays nobody
    /// else, and with those who become members later. Must be called inside a tokio runtime.
    pub fn start(identity: Arc<Identity>, roster: Arc<Roster>) -> Gossip {
        let generation = WallTime::now().as_nanos();
        let table = Table::new(&identity.me(), generation, roster.others());
        let shared =
            Arc::new(Shared { identity, table: watch::Sender::new(Arc::new(table)), to_push: watch::Sender::new(()) });
        let mut tasks = JoinSet::new();
        tasks.spawn(beat(shared.clone()));
        tasks.spawn(tend(shared.clone(), roster.clone()));
        Gossip { shared, roster, _tasks: Arc::new(tasks) }
    }

    /// Makes `record` this member's own when it differs from the last one. `member`, `generation`,
    /// `version`, `incarnation` and `clock_offset_ns` are filled in and may be left empty. A change of
    /// nothing but the remaining lease, free disk and probe latency waits for the next full exchange.
    pub fn publish(&self, record: Record) {
        let mut change = Change::Nothing;
        self.shared.update(|table| {
            change = table.publish(record, BootTime::now());
            change != Change::Nothing
        });
        match change {
            Change::Nothing | Change::Measures => {}
            Change::Facts => self.shared.push(),
        }
    }

    /// Publishes `record`, and returns once every member that was reachable has it or is late with its answer. The
    /// others would go by the record before it until an exchange fails.
    pub async fn take_leave(&self, record: Record) {
        self.publish(record);
        let now = BootTime::now();
        let table = self.shared.table();
        let mut told = JoinSet::new();
        for (id, _) in table.others().filter(|(_, heard)| heard.is_reachable(now)) {
            let Some(channel) = self.roster.channel(id) else { continue };
            told.spawn(peer::tell(self.shared.clone(), id.clone(), channel));
        }
        told.join_all().await;
    }

    /// The table, marked as changed whenever anything in it changed.
    pub fn table(&self) -> watch::Receiver<Arc<Table>> {
        self.shared.table.subscribe()
    }

    /// The service to mount on the server that the other members connect to.
    pub fn service(&self) -> GossipServer<GossipService> {
        GossipServer::new(GossipService::new(Arc::downgrade(&self.shared)))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

struct Shared {
    identity: Arc<Identity>,
    table: watch::Sender<Arc<Table>>,
    /// Marked as changed when the own record is to be pushed.
    to_push: watch::Sender<()>,
}

impl Shared {
    /// Changes the table in place; readers are told when `change` returns true.
    fn update(&self, change: impl FnOnce(&mut Table) -> bool) {
        self.table.send_if_modified(|table| change(Arc::make_mut(table)));
    }

    fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    fn push(&self) {
        self.to_push.send_replace(());
    }

    /// Takes in what a member that passed [`Identity::check`] sent.
    fn merge(&self, records: Vec<Record>, now: BootTime) {
        let mut outbid = false;
        self.update(|table| {
            let mut changed = false;
            for record in records {
                let owner = NodeId::from(record.member.as_str());
                match table.merge(record, self.identity.joined_with(&owner), now) {
                    Merged::Newer => changed = true,
                    Merged::Old => {}
                    Merged::Outbid => (changed, outbid) = (true, true),
                    Merged::Refused => tracing::debug!(%owner, "gossip: record refused"),
                }
            }
            changed
        });
        if outbid {
            self.push();
        }
    }
}

/// Who speaks in `message`. Whether it may speak here is for [`Identity`] to say.
fn sender_of(sender: Option<proto::Sender>, message: &'static str) -> Result<Sender, WireError> {
    sender.ok_or(WireError::Missing { message, field: "sender" })?.try_into()
}

/// Has a task exchange with each other member, and no longer with those that went.
async fn tend(shared: Arc<Shared>, roster: Arc<Roster>) {
    let mut members = roster.members();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<NodeId, (String, AbortHandle)> = BTreeMap::new();
    loop {
        members.mark_unchanged();
        let others: Vec<NodeId> = roster.others();
        shared.update(|table| table.set_others(&others));
        running.retain(|id, (addr, task)| {
            let stays = roster.get(id).is_some_and(|member| member.addr == *addr);
            if !stays {
                task.abort();
            }
            stays
        });
        for id in others {
            let (Some(member), false) = (roster.get(&id), running.contains_key(&id)) else { continue };
            let Some(channel) = roster.channel(&id) else { continue };
            let task = tasks.spawn(peer::run(shared.clone(), id.clone(), channel));
            running.insert(id, (member.addr, task));
        }
        if members.changed().await.is_err() {
            // The store is closed; those that run go on until the last clone is dropped.
            while tasks.join_next().await.is_some() {}
            return;
        }
    }
}

/// Gives the own record a new version each second. The next full exchanges carry it.
async fn beat(shared: Arc<Shared>) {
    loop {
        shared.update(|table| {
            table.beat(BootTime::now());
            true
        });
        sleep(BootTime::now().until_multiple_of(EXCHANGE_EVERY)).await;
    }
}
