//! Tells the core what openraft's metrics say: who leads, and this member's own vote. Voters come from the log
//! itself (`mod.rs`): metrics may be late, and a lease counted over outdated voters is worthless.

use openraft::async_runtime::WatchReceiver;
use openraft::{Raft, ServerState};

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
