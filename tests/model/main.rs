//! Model checking of lease, vote gate and guard: the core as it is, three of it, with all that may happen around them
//! in every order, within a stated bound; also while one of them gets a vote or loses it. `docs/safety.md` says what
//! the model covers and what it found.
//!
//! `cargo test --test model -- --nocapture` prints the figures and the shortest trace that the loss of each rule
//! leads to; `cargo test --test model -- --ignored --nocapture --test-threads 1` explores further.

mod fair;
mod host;
mod machine;
#[allow(dead_code)] // Learners are there from the start.
#[path = "../sim/members.rs"]
mod members;
#[allow(dead_code)] // No disk and no transfer are in the model.
#[path = "../sim/raft.rs"]
mod raft;
mod rules;
mod settings;
mod shift;
mod signing;
mod stage;
mod table;
mod world;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton::core::Stage as Phase;
use baton::rules::Rule;
use fair::Healed;
use host::Host;
use members::{Change, Members};
use rules::{FAST, Rules, SLOW, Without};
use stage::Stage;
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use world::{Action, Cluster, State};

/// What is explored: every history of up to `steps` steps from `from`.
struct Bound {
    what: &'static str,
    rules: Rules,
    from: Stage,
    steps: usize,
}

type Trace = Path<State, Action>;

/// The first violation that `properties` see, by the shortest way. One thread, so that it is the shortest, and so that
/// no state is left out because it was first met by a detour.
fn explore(bound: &Bound, properties: fn() -> Vec<Property<Cluster>>) -> Option<(&'static str, Trace)> {
    let began = Instant::now();
    let (mut cluster, state) = bound.from.set(&bound.rules);
    cluster.init = vec![state];
    cluster.properties = properties;
    let checker = cluster.checker().finish_when(HasDiscoveries::AnyFailures).target_max_depth(bound.steps + 1);
    let checker = checker.spawn_bfs().join();
    eprintln!(
        "{}: {} states, {} transitions, {} states of single members, {} steps deep, {:.1?}",
        bound.what,
        checker.unique_state_count(),
        checker.state_count(),
        checker.model().table.len(),
        checker.max_depth() - 1,
        began.elapsed(),
    );
    checker.discoveries().into_iter().next()
}

fn tell(trace: &Trace) -> String {
    let mut ticks = 0;
    let mut lines = Vec::new();
    for action in trace.clone().into_actions() {
        ticks += u32::from(action == Action::Tick);
        lines.push(format!("  tick {ticks}  {action:?}"));
    }
    lines.join("\n")
}

fn assert_safe(bounds: &[Bound]) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(bound) = bounds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let whole = bound.rules.without == Without::Nothing;
                    if let Some((property, trace)) = explore(bound, if whole { safety_by_the_rules } else { safety }) {
                        panic!("{}: not {property}:\n{}", bound.what, tell(&trace));
                    }
                }
            });
        }
    });
}

fn safety() -> Vec<Property<Cluster>> {
    vec![
        Property::always("never two signers", |_, state: &State| state.signers() < 2),
        Property::always("a held baton has a live lease and an armed guard", |_, state: &State| {
            state.hosts.iter().all(|known| known.host.is_fenced())
        }),
    ]
}

fn safety_by_the_rules() -> Vec<Property<Cluster>> {
    let mut properties = safety();
    properties.push(Property::always("every rule of the argument is kept", |_, state: &State| {
        state.hosts.iter().all(|known| known.host.witness.breaches().is_empty())
    }));
    properties
}

fn rules(without: Without, change: impl FnOnce(&mut Rules)) -> Rules {
    let mut rules = Rules::new(without);
    change(&mut rules);
    rules
}

/// Histories of any length: nothing is bounded but the terms, the claims and the entries of the log, and requests
/// may be lost, answers not.
fn to_the_end(what: &'static str, without: Without, change: impl FnOnce(&mut Rules)) -> Bound {
    let rules = rules(without, |rules| {
        (rules.answers_lost, rules.entries_max) = (false, 5);
        change(rules);
    });
    Bound { what, rules, from: Stage::Held, steps: usize::MAX - 1 }
}

/// Histories of up to some steps, `deeper` more than the usual ones, in which more may go wrong.
fn up_to(without: Without, deeper: isize) -> Vec<Bound> {
    let bound = |what, from, steps: usize, change: fn(&mut Rules)| {
        let rules = rules(without, change);
        Bound { what, rules, from, steps: steps.saturating_add_signed(deeper) }
    };
    vec![
        bound("a slow holder", Stage::Held, 12, |_| {}),
        bound("a fast holder", Stage::Held, 12, |rules| rules.rates = [FAST, SLOW, SLOW]),
        bound("an arbiter", Stage::Held, 12, |rules| rules.arbiter = true),
        bound("two restarts", Stage::Held, 9, |rules| (rules.restarts_max, rules.power) = (2, true)),
        bound("late and doubled messages", Stage::Held, 9, |rules| rules.late_max = 2),
        bound("handover", Stage::Held, 10, |rules| {
            (rules.handovers, rules.terms_max, rules.epochs_max) = (true, 3, 3);
        }),
        bound("handover, restart, late message", Stage::Held, 7, |rules| {
            (rules.handovers, rules.terms_max, rules.epochs_max) = (true, 3, 3);
            (rules.restarts_max, rules.power, rules.late_max) = (1, true, 1);
        }),
        bound("third term", Stage::HandedOver, 11, |rules| (rules.terms_max, rules.epochs_max) = (3, 3)),
        bound("third term, restart, late message", Stage::HandedOver, 7, |rules| {
            (rules.terms_max, rules.epochs_max) = (3, 3);
            (rules.restarts_max, rules.late_max) = (1, 1);
        }),
        bound("upgrade of a holder", Stage::Held, 9, |rules| rules.upgrades = true),
        bound("upgrade of a holder, restart, late message", Stage::Held, 6, |rules| {
            (rules.upgrades, rules.restarts_max, rules.power, rules.late_max) = (true, 1, true, 1);
        }),
        bound("first holder", Stage::Fresh, 8, |rules| rules.restarts_max = 1),
    ]
}

#[test]
fn no_two_of_three_members_sign_at_one_moment_however_long_the_history() {
    assert_safe(&[to_the_end("to the end", Without::Nothing, |_| {})]);
}

#[test]
fn no_two_of_three_members_sign_at_one_moment_with_restarts_handovers_and_late_messages() {
    assert_safe(&up_to(Without::Nothing, 0));
}

#[test]
#[ignore = "takes minutes"]
fn no_two_of_three_members_sign_at_one_moment_within_wider_bounds() {
    let to_the_end = |what, change: fn(&mut Rules)| to_the_end(what, Without::Nothing, change);
    let mut bounds = vec![
        to_the_end("a fast holder to the end", |rules| rules.rates = [FAST, SLOW, SLOW]),
        to_the_end("an arbiter to the end", |rules| rules.arbiter = true),
    ];
    bounds.extend(up_to(Without::Nothing, 2));
    assert_safe(&bounds);
}

/// Asserts that two nodes sign without a rule, and tells by which shortest history.
fn assert_needed(without: Without, from: Stage, change: impl FnOnce(&mut Rules)) {
    let name = format!("without {without:?}");
    let bound = Bound { what: name.leak(), rules: rules(without, change), from, steps: 14 };
    let two = || vec![Property::always("never two signers", |_: &Cluster, state: &State| state.signers() < 2)];
    let (_, trace) = explore(&bound, two).expect("two signers");
    eprintln!("{}:\n{}", bound.what, tell(&trace));
}

/// Asserts that the member that does without a rule is seen to break `rule`, whether anything comes of it or not.
fn assert_seen(rule: fn() -> Vec<Property<Cluster>>, without: Without, from: Stage, change: impl FnOnce(&mut Rules)) {
    let name = format!("without {without:?}, seen");
    let bound = Bound { what: name.leak(), rules: rules(without, change), from, steps: 14 };
    let (_, trace) = explore(&bound, rule).expect("a broken rule");
    eprintln!("{}:\n{}", bound.what, tell(&trace));
}

fn keeps(state: &State, rule: Rule) -> bool {
    state.hosts.iter().all(|known| known.host.witness.breaches().iter().all(|breach| breach.rule != rule))
}

#[test]
fn each_rule_that_is_left_out_is_seen_broken() {
    let quarantine = || vec![Property::always("(a)", |_: &Cluster, state: &State| keeps(state, Rule::Quarantine))];
    let promise = || vec![Property::always("(b)", |_: &Cluster, state: &State| keeps(state, Rule::Promise))];
    let proof = || vec![Property::always("(c)", |_: &Cluster, state: &State| keeps(state, Rule::NodeProof))];
    let one_claim = || vec![Property::always("W", |_: &Cluster, state: &State| keeps(state, Rule::SecondClaim))];
    assert_seen(quarantine, Without::Quarantine, Stage::Held, |rules| rules.restarts_max = 1);
    assert_seen(promise, Without::Promise, Stage::Held, |_| {});
    assert_seen(promise, Without::OwnPromise, Stage::Held, |_| {});
    assert_seen(proof, Without::NodeProof, Stage::Held, |_| {});
    assert_seen(promise, Without::ReleaseOfTheTerm, Stage::HandedOver, |rules| {
        (rules.terms_max, rules.epochs_max) = (3, 3);
    });
    assert_seen(one_claim, Without::NoSecondClaim, Stage::Held, |rules| {
        (rules.handovers, rules.epochs_max) = (true, 3);
    });
}

#[test]
fn without_the_guards_deadline_two_nodes_sign() {
    assert_needed(Without::Deadline, Stage::Held, |_| {});
}

#[test]
fn without_a_term_for_the_drift_of_clocks_two_nodes_sign() {
    assert_needed(Without::Drift, Stage::Held, |_| {});
}

#[test]
fn without_quarantine_after_a_restart_two_nodes_sign() {
    assert_needed(Without::Quarantine, Stage::Held, |rules| rules.restarts_max = 2);
}

#[test]
fn without_promises_two_nodes_sign() {
    assert_needed(Without::Promise, Stage::Held, |_| {});
}

#[test]
fn without_proof_of_its_node_and_without_its_own_promise_a_leader_helps_its_successor_too_early() {
    assert_needed(Without::NodeProofAndOwnPromise, Stage::Held, |_| {});
}

#[test]
fn with_a_release_of_any_term_as_waiver_two_nodes_sign() {
    assert_needed(Without::ReleaseOfTheTerm, Stage::HandedOver, |rules| {
        (rules.terms_max, rules.epochs_max) = (3, 3);
    });
}

#[test]
fn with_a_second_claim_in_a_released_term_two_nodes_sign() {
    assert_needed(Without::NoSecondClaim, Stage::Held, |rules| {
        (rules.handovers, rules.epochs_max) = (true, 3);
    });
}

/// Each of the two suffices as long as the guard keeps its deadline; see docs/safety.md.
#[test]
fn proof_of_the_node_and_the_leaders_own_promise_stand_in_for_each_other() {
    for without in [Without::NodeProof, Without::OwnPromise] {
        eprintln!("without {without:?}");
        assert_safe(&up_to(without, -2));
    }
}

#[test]
#[ignore = "takes minutes"]
fn proof_of_the_node_and_the_leaders_own_promise_stand_in_for_each_other_however_long_the_history() {
    assert_safe(&[
        to_the_end("without rule (c), to the end", Without::NodeProof, |_| {}),
        to_the_end("without the own promise, to the end", Without::OwnPromise, |_| {}),
    ]);
}

/// `a` has a longer lease than `b` and `c`, or `b` a longer one than the others.
fn two_leases() -> Vec<Bound> {
    let bound = |what, steps, change: fn(&mut Rules)| {
        let rules = rules(Without::Nothing, change);
        Bound { what, rules, from: Stage::Held, steps }
    };
    vec![
        bound("a longer lease of the holder", 12, |rules| rules.has_longer_lease(0)),
        bound("a longer lease of a fast holder", 12, |rules| {
            rules.has_longer_lease(0);
            rules.rates = [FAST, SLOW, SLOW];
        }),
        bound("a longer lease of the holder, two restarts", 10, |rules| {
            rules.has_longer_lease(0);
            rules.restarts_max = 2;
        }),
        bound("a longer lease of a follower", 12, |rules| rules.has_longer_lease(1)),
    ]
}

#[test]
fn no_two_of_three_members_sign_at_one_moment_though_their_leases_differ() {
    assert_safe(&two_leases());
}

#[test]
fn with_a_follower_that_promises_for_its_own_lease_alone_two_nodes_sign() {
    assert_needed(Without::Comparison, Stage::Held, |rules| rules.has_longer_lease(0));
}

#[test]
fn with_a_member_that_forgets_a_longer_promise_as_it_restarts_two_nodes_sign() {
    assert_needed(Without::Remembered, Stage::Held, |rules| {
        rules.has_longer_lease(0);
        rules.restarts_max = 2;
    });
}

/// `a` is fast, so that its own promise is over first.
fn reports_late(rules: &mut Rules) {
    (rules.rates, rules.late_reports) = ([FAST, SLOW, SLOW], true);
    (rules.terms_max, rules.epochs_max) = (3, 3);
}

#[test]
fn no_two_of_three_members_sign_at_one_moment_when_an_acceptance_is_reported_late() {
    assert_safe(&[
        Bound { what: "a late report", rules: rules(Without::Nothing, reports_late), from: Stage::Held, steps: 9 },
        Bound {
            what: "a late report of an earlier leader's",
            rules: rules(Without::Nothing, reports_late),
            from: Stage::Overtaken,
            steps: 10,
        },
    ]);
}

#[test]
fn with_a_promise_that_has_no_term_two_nodes_sign() {
    assert_needed(Without::PromiseTerm, Stage::Overtaken, reports_late);
}

/// `c` learns, `a` and `b` vote.
const LEARNER: Members = Members { leaving: None, voters: 0b011, learners: 0b100 };
/// `b` and `c` learn.
const LEARNERS: Members = Members { leaving: None, voters: 0b001, learners: 0b110 };
const PROMOTE_B: Change = Change::Promote(1);
const PROMOTE_C: Change = Change::Promote(2);
const REMOVE_C: Change = Change::Remove(2);

fn promotes(rules: &mut Rules) {
    (rules.members, rules.changes) = (LEARNER, &[PROMOTE_C]);
}

fn removes(rules: &mut Rules) {
    rules.changes = &[Change::Remove(0), Change::Remove(1), REMOVE_C];
}

/// A leader changes the voters by one, at any moment. Histories of up to some steps, `deeper` more than the usual ones.
fn changes(without: Without, deeper: isize) -> Vec<Bound> {
    let bound = |what, from, steps: usize, change: fn(&mut Rules)| {
        let rules = rules(without, change);
        Bound { what, rules, from, steps: steps.saturating_add_signed(deeper) }
    };
    fn faults(rules: &mut Rules) {
        (rules.restarts_max, rules.power, rules.late_max) = (1, true, 1);
    }
    vec![
        bound("c is promoted", Stage::Held, 10, promotes),
        bound("c is being promoted", Stage::Joint(PROMOTE_C), 10, promotes),
        bound("c is promoted, its leader lost", Stage::Inherited(PROMOTE_C, 1), 9, |rules| {
            promotes(rules);
            (rules.terms_max, rules.epochs_max) = (3, 3);
        }),
        bound("c is promoted, restart, late message", Stage::Joint(PROMOTE_C), 6, |rules| {
            promotes(rules);
            faults(rules);
        }),
        bound("one is removed", Stage::Held, 9, removes),
        bound("c is being removed", Stage::Joint(REMOVE_C), 10, removes),
        bound("c is removed, and leads", Stage::Inherited(REMOVE_C, 2), 8, |rules| {
            removes(rules);
            (rules.terms_max, rules.epochs_max) = (3, 3);
        }),
        bound("c is removed, restart, late message", Stage::Joint(REMOVE_C), 7, |rules| {
            removes(rules);
            faults(rules);
        }),
    ]
}

#[test]
fn no_two_of_three_members_sign_at_one_moment_while_a_member_comes_or_goes() {
    assert_safe(&changes(Without::Nothing, 0));
}

#[test]
#[ignore = "takes minutes"]
fn no_two_of_three_members_sign_at_one_moment_while_a_member_comes_or_goes_within_wider_bounds() {
    assert_safe(&changes(Without::Nothing, 1));
}

#[test]
fn without_the_promise_of_a_member_that_does_not_know_of_its_vote_two_nodes_sign() {
    assert_needed(Without::LearnersPromise, Stage::Joint(PROMOTE_C), promotes);
}

#[test]
fn with_a_leader_that_does_not_hear_of_two_new_voters_two_nodes_sign() {
    assert_needed(Without::Voters, Stage::Changed(&[PROMOTE_B, PROMOTE_C]), |rules| {
        (rules.members, rules.changes, rules.changes_max) = (LEARNERS, &[PROMOTE_B, PROMOTE_C], 2);
        rules.late_max = 1;
    });
}

/// One change at a time never moves a majority so far that a wrong count of it would matter; see docs/safety.md.
#[test]
#[ignore = "takes minutes"]
fn a_lease_that_is_counted_over_one_set_of_a_change_still_meets_every_election() {
    for without in [Without::OlderSet, Without::NewerSet, Without::TwoSets, Without::VotersAtAppend] {
        eprintln!("without {without:?}");
        assert_safe(&changes(without, -1));
    }
}

fn is_active(state: &State, host: usize) -> bool {
    state.host(host).core.is_active()
}

#[test]
fn the_model_reaches_changes_that_a_successor_ends_and_a_holder_by_a_new_vote() {
    /// By a membership of all that is complete and committed.
    fn leads(state: &State, member: usize) -> bool {
        let Host { core, raft, .. } = state.host(member);
        let is_complete = raft.members == Members::first(3) && raft.commit == raft.log.len();
        core.leads() == Some(2) && is_complete
    }
    fn reaches(from: Stage, change: fn(&mut Rules), sought: fn() -> Vec<Property<Cluster>>) {
        let (mut cluster, state) = from.set(&rules(Without::Nothing, change));
        (cluster.init, cluster.properties) = (vec![state], sought);
        let checker = cluster.checker().finish_when(HasDiscoveries::All).target_max_depth(12).spawn_bfs().join();
        assert_eq!(checker.discoveries().len(), 1, "from {from:?}");
    }
    reaches(Stage::Inherited(PROMOTE_C, 1), promotes, || {
        vec![Property::sometimes("b has completed it", |_, state| leads(state, 1) && is_active(state, 1))]
    });
    reaches(Stage::Inherited(REMOVE_C, 2), removes, || {
        vec![Property::sometimes("c has taken it back", |_, state| leads(state, 2))]
    });
    reaches(Stage::Changed(&[PROMOTE_C]), promotes, || {
        vec![Property::sometimes("c holds by its new vote and b's", |_, state| leads(state, 2) && is_active(state, 2))]
    });
}

/// What the model would prove nothing about if it could not happen in it.
#[test]
fn the_model_reaches_failover_handover_and_a_lease_lost_and_taken_again() {
    let reached = || {
        vec![
            Property::sometimes("b holds after a failover", |_: &Cluster, s: &State| {
                is_active(s, 1) && s.host(1).raft.released_term().is_none()
            }),
            Property::sometimes("c holds after a handover", |_: &Cluster, s: &State| {
                is_active(s, 2) && s.host(2).raft.released_term().is_some()
            }),
            Property::sometimes("a holds again in its term", |_: &Cluster, s: &State| {
                is_active(s, 0) && s.host(0).core.view().epoch.0 == 2 && s.host(0).raft.term == 1
            }),
            Property::sometimes("a guard fires before its coordinator knows", |_: &Cluster, s: &State| {
                s.host(0).machine.firing.is_some() && is_active(s, 0)
            }),
            Property::sometimes("a lead is lost while the key is being linked", |_: &Cluster, s: &State| {
                s.host(1).core.stage() == Some(Phase::Stopping) && s.host(1).machine.may_sign()
            }),
        ]
    };
    let rules = rules(Without::Nothing, |rules| rules.handovers = true);
    let (mut cluster, state) = Stage::Held.set(&rules);
    cluster.init = vec![state];
    cluster.properties = reached;
    let checker = cluster.checker().target_max_depth(14).spawn_bfs().join();
    let found: Vec<_> = checker.discoveries().into_keys().collect();
    assert_eq!(found.len(), reached().len(), "found only {found:?}");
}

static HEALED: std::sync::LazyLock<Healed> = std::sync::LazyLock::new(Healed::default);
static TICKS: AtomicU32 = AtomicU32::new(0);
/// A promise and a quarantine are four ticks each, the turns of candidates two.
const HEALED_WITHIN: u32 = 12;

#[test]
fn from_every_state_within_the_bound_the_baton_is_held_again_soon_after_the_faults_end() {
    let heals = || {
        vec![Property::always("held again", |cluster: &Cluster, state: &State| {
            let after = HEALED.after(cluster, state, HEALED_WITHIN);
            TICKS.fetch_max(after.unwrap_or(u32::MAX), Ordering::Relaxed);
            after.is_some()
        })]
    };
    let rules = rules(Without::Nothing, |rules| {
        (rules.handovers, rules.restarts_max, rules.power, rules.terms_max) = (true, 1, true, 3);
        // When a member campaigns depends on moments that have passed, and every claim counts.
        (rules.past, rules.epochs_max) = (Duration::from_millis(1200), u64::MAX);
    });
    let bound = Bound { what: "held again", rules, from: Stage::Held, steps: 7 };
    if let Some((_, trace)) = explore(&bound, heals) {
        panic!("nobody holds the baton {HEALED_WITHIN} ticks after\n{}", tell(&trace));
    }
    eprintln!("held again within {TICKS:?} ticks");
}
