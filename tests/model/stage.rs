//! Where explorations begin: states that are reached by a short history without faults.

use crate::host::NAMES;
use crate::members::Change;
use crate::raft::Id;
use crate::rules::Rules;
use crate::table::Op;
use crate::world::{Cluster, Fate, State, others};

/// Longer than the core makes it wait, also by a slow clock.
const SOLE_FOUNDER_TICKS: u32 = 25;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has ever campaigned.
    Fresh,
    /// `a` holds the baton in term 1, and everybody knows.
    Held,
    /// `a` has released, `b` holds in term 2 by the word of `a`, and `c` has not heard of its claim.
    HandedOver,
    /// The same, and `c` has still to report that it accepted the last entries of `a`.
    Overtaken,
    /// `a` holds, a change is joint and committed, and `c` has not heard of it.
    Joint(Change),
    /// `a` lost its lease when a change was joint, and all have elected the other.
    Inherited(Change, Id),
    /// `a` holds, the changes are complete, and everybody knows.
    Changed(&'static [Change]),
}

impl Stage {
    pub fn set(self, rules: &Rules) -> (Cluster, State) {
        let cluster = Cluster::new(*rules);
        let mut state = cluster.fresh();
        work_off(&cluster, &mut state);
        if self != Stage::Fresh {
            take(&cluster, &mut state, 0, &[1, 2]);
        }
        if matches!(self, Stage::HandedOver | Stage::Overtaken) {
            cluster.own(&mut state, 0, Op::Handover);
            work_off(&cluster, &mut state);
            let report = if self == Stage::Overtaken { Fate::ReportLate } else { Fate::Answered };
            for (to, fate) in [(1, Fate::Answered), (2, report)] {
                cluster.append(&mut state, 0, to, true, fate);
            }
            cluster.append(&mut state, 0, 1, true, Fate::Answered);
            take(&cluster, &mut state, 1, &[0]);
        }
        match self {
            Stage::Joint(change) => step(&cluster, &mut state, change, &[1]),
            Stage::Inherited(change, heir) => {
                step(&cluster, &mut state, change, &[1, 2]);
                for _ in 0..4 {
                    cluster.tick(&mut state);
                    work_off(&cluster, &mut state);
                }
                elect(&cluster, &mut state, heir);
            }
            Stage::Changed(changes) => {
                for change in changes.iter().flat_map(|change| [*change, Change::Settle]) {
                    step(&cluster, &mut state, change, &[1, 2]);
                }
            }
            Stage::Fresh | Stage::Held | Stage::HandedOver | Stage::Overtaken => {}
        }
        (cluster, state)
    }
}

/// A step of a change by `a`, of which `hearers` hear, and that it is committed.
fn step(cluster: &Cluster, state: &mut State, change: Change, hearers: &[Id]) {
    cluster.own(state, 0, Op::Change(change));
    for _ in 0..2 {
        for to in hearers {
            cluster.append(state, 0, *to, true, Fate::Answered);
        }
    }
    let raft = &state.host(0).raft;
    assert!(raft.commit == raft.log.len() && raft.members.leaving.is_some() != (change == Change::Settle));
}

fn work_off(cluster: &Cluster, state: &mut State) {
    for me in 0..NAMES.len() {
        while state.host(me).has_work() {
            cluster.own(state, me, Op::Work);
        }
    }
}

fn elect(cluster: &Cluster, state: &mut State, host: Id) {
    cluster.own(state, host, Op::Campaign);
    for to in others(host) {
        cluster.ask_vote(state, host, to, Fate::Answered);
        cluster.consider(state, to, Fate::Answered);
        if state.host(to).is_to_report() {
            cluster.own(state, to, Op::NoticeLoss);
        }
    }
    assert!(state.host(host).core.leads().is_some());
}

/// `host` is elected by all, and takes the baton while only `hearers` hear of it.
fn take(cluster: &Cluster, state: &mut State, host: Id, hearers: &[Id]) {
    elect(cluster, state, host);
    // A sole founder waits for a call of another cluster before the first claim of all.
    let is_sole = state.host(host).raft.members.voters == 1 << host;
    for _ in 0..SOLE_FOUNDER_TICKS * u32::from(is_sole) {
        cluster.tick(state);
        cluster.own(state, host, Op::Wake);
    }
    for _ in 0..3 {
        for to in hearers {
            cluster.append(state, host, *to, true, Fate::Answered);
        }
    }
    work_off(cluster, state);
    assert!(state.host(host).core.is_active(), "{:?}", state.host(host).core.stage());
}
