//! What follows when the faults end: no message is lost or late any more, nobody crashes, everybody does what there is
//! to do in every tick, and members campaign when their own policy says so, with pre-votes. One such history follows
//! from each state, and the baton must be held in it soon. (Weaker than "in every fair history", and free of the traps
//! that cycles are to a checker of `eventually`.)

use std::collections::HashMap;
use std::sync::Mutex;

use crate::host::NAMES;
use crate::raft::{Ballot, Id};
use crate::table::{Answer, Op};
use crate::world::{Cluster, Fate, State, others};

/// Ticks until the baton is held, for states from which it is known.
#[derive(Default)]
pub struct Healed(Mutex<HashMap<[u32; 3], u32>>);

impl Healed {
    /// Ticks until somebody holds the baton; `None` when that takes more than `ticks_max`.
    pub fn after(&self, cluster: &Cluster, state: &State, ticks_max: u32) -> Option<u32> {
        let mut state = state.clone();
        state.drop_late();
        state.wants = Default::default();
        let mut passed = Vec::new();
        let left = loop {
            let ids = [0, 1, 2].map(|me| state.hosts[me].id);
            if let Some(left) = self.0.lock().unwrap().get(&ids) {
                break *left;
            }
            passed.push(ids);
            if passed.len() as u32 > ticks_max {
                return None;
            }
            everybody_acts(cluster, &mut state);
            if is_held(&state) {
                break 0;
            }
            cluster.tick(&mut state);
        };
        let mut known = self.0.lock().unwrap();
        for (before, ids) in passed.iter().rev().enumerate() {
            known.insert(*ids, left + before as u32 + u32::from(left > 0));
        }
        let ticks = left + passed.len() as u32;
        (ticks <= ticks_max).then_some(ticks)
    }
}

fn is_held(state: &State) -> bool {
    state.hosts.iter().any(|known| known.may_sign && known.host.core.is_active() && known.host.machine.firing.is_none())
}

/// Until nothing is left to do in this tick.
fn everybody_acts(cluster: &Cluster, state: &mut State) {
    loop {
        let before = state.clone();
        for me in 0..NAMES.len() {
            own_acts(cluster, state, me);
            if state.host(me).raft.leads() {
                for to in others(me) {
                    cluster.append(state, me, to, false, Fate::Answered);
                    cluster.append(state, me, to, true, Fate::Answered);
                }
            }
            let wants = std::mem::take(&mut state.wants[me]);
            if wants.lead && has_pre_votes(cluster, state, me) {
                campaign(cluster, state, me);
            }
            if let Some(to) = wants.to_offer.filter(|to| state.hosts[*to].gate[*to]) {
                campaign(cluster, state, to);
            }
        }
        if *state == before {
            return;
        }
    }
}

fn own_acts(cluster: &Cluster, state: &mut State, me: Id) {
    cluster.own(state, me, Op::TakeUpCampaigns);
    cluster.own(state, me, Op::Wake);
    while state.host(me).has_work() {
        cluster.own(state, me, Op::Work);
    }
    if state.host(me).machine.firing.is_some() {
        cluster.own(state, me, Op::Kill);
    }
    if state.host(me).is_to_report() {
        cluster.own(state, me, Op::NoticeLoss);
    }
    cluster.consider(state, me, Fate::Answered);
}

fn has_pre_votes(cluster: &Cluster, state: &mut State, candidate: Id) -> bool {
    if !state.hosts[candidate].gate[candidate] || state.host(candidate).raft.leads() {
        return false;
    }
    cluster.own(state, candidate, Op::PreCampaign);
    let (round, last) = (state.host(candidate).raft.term + 1, state.host(candidate).raft.last());
    let ballot = Ballot { term: round, last, transfer: false };
    others(candidate).any(|peer| {
        let voter = &state.hosts[peer];
        let granted = voter.gate[candidate] && voter.host.raft.on_pre_vote(candidate, &ballot);
        let vote = (voter.host.raft.term, voter.host.raft.voted_for);
        let answer = Op::OnPreVoted { from: peer, round, granted, vote };
        matches!(cluster.own(state, candidate, answer), Answer::Electable)
    })
}

fn campaign(cluster: &Cluster, state: &mut State, candidate: Id) {
    cluster.own(state, candidate, Op::Campaign);
    for voter in others(candidate) {
        cluster.ask_vote(state, candidate, voter, Fate::Answered);
        cluster.consider(state, voter, Fate::Answered);
    }
}
