//! Tells the core what openraft's metrics say: who leads, and this member's own vote. Voters come from the log
//! itself (`mod.rs`): metrics may be late, and a lease counted over outdated voters is worthless.
//! Also has a leader send its heartbeats.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Raft, ServerState};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cluster::store::StateMachine;
use crate::cluster::wire::TypeConfig;
use crate::core::Event;
use crate::core_handle::SharedCore;

/// Reports the present leadership. The core takes it for what it is: a view that may be late.
pub fn report_lead(raft: &Raft<TypeConfig, StateMachine>, core: &SharedCore) {
    let (leads, term) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader, metrics.current_term)
    };
    core.step(if leads { Event::Led { term } } else { Event::LeadLost });
}

/// Reports votes and leadership as they change, until Raft ends.
pub async fn follow(raft: Raft<TypeConfig, StateMachine>, core: std::sync::Arc<SharedCore>) {
    let mut metrics = raft.metrics();
    let mut told = None;
    loop {
        let (vote_term, leads) = {
            let seen = metrics.borrow_watched();
            (seen.vote.leader_id.term, seen.state == ServerState::Leader)
        };
        // The metrics change with every acknowledgement as well.
        if told != Some((vote_term, leads)) {
            told = Some((vote_term, leads));
            core.step(Event::Voted { term: vote_term });
            report_lead(&raft, &core);
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Has openraft send a heartbeat `every` so often while this member leads, until Raft ends.
///
/// openraft's own clock, which is off, looks five times as often whether one is due, also on members that lead nothing,
/// and is up to a fifth late with each.
pub async fn beat(raft: Raft<TypeConfig, StateMachine>, every: Duration) {
    let mut metrics = raft.metrics();
    loop {
        if metrics.wait_until(|metrics| metrics.state == ServerState::Leader).await.is_err() {
            return;
        }
        // The first entry of a leader is as good as a heartbeat.
        let mut beats = interval_at(Instant::now() + every, every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            if metrics.borrow_watched().state != ServerState::Leader {
                break;
            }
            if raft.trigger().heartbeat().await.is_err() {
                return;
            }
        }
    }
}
