//! What a core of the model is made with.

use std::time::Duration;

use baton::base::ids::Role;
use baton::core::{Memory, Settings};

use crate::host::{NAMES, name};
use crate::raft::{Id, Raft};
use crate::rules::Rules;

pub fn is_arbiter(me: Id, rules: &Rules) -> bool {
    rules.arbiter && me == NAMES.len() - 1
}

pub fn settings(me: Id, rules: &Rules) -> Settings {
    Settings {
        me: name(me),
        role: if is_arbiter(me, rules) { Role::Arbiter } else { Role::Validator },
        priorities: (0..NAMES.len()).map(|member| (name(member), 100)).collect(),
        timing: rules.timings[me],
        unstated_lease: None,
        failback: false,
        clock_skew: Duration::ZERO,
        node_refuses: false,
        probe_failures_max: 3,
        head_still_max: Duration::from_secs(10_000),
        activation_max: Duration::from_secs(10_000),
        stop_timeout: Duration::from_secs(10_000),
        settle_max: None,
        sees_key_on_chain: false,
        custody: baton::base::signing::Custody::Links,
        min_peers: None,
    }
}

pub fn memory(raft: &Raft, fresh: bool, promised: Duration) -> Memory {
    Memory {
        fresh,
        vote_term: raft.term,
        released_term: raft.released_term(),
        view: raft.state.view(),
        promised,
        promise_lost: false,
        mark_seen: None,
    }
}
