//! An operator's handover on the holder's host: from when on it can begin, and what became of one that took too long.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time;

use super::answers::Answers;
use super::moment;
use super::report::Reporter;
use crate::base::ids::{Epoch, NodeId};
use crate::base::time::{BootTime, WallTime};
use crate::cluster::wire::proto::HandoverResponse;
use crate::core::Event;
use crate::core::agreed::replicated::{Move, MoveKind};
use crate::core::tenure::{Reason, Stage};
use crate::operator::admin::NotDone;
use crate::operator::order::WantedHandover;

/// A handover is so recent that the old holder's node may still be on its way to be a standby.
const RECENT: Duration = Duration::from_secs(120);
/// For the end of a move that completes at the moment of the time-out. Shorter than whoever passes the answer on waits.
const COMPLETES_WITHIN: Duration = Duration::from_millis(300);

/// Begins it as soon as it can, within its timeout, and returns when it has ended.
pub(super) async fn carry_out(
    reporter: &Reporter,
    answers: &Answers,
    wanted: &WantedHandover,
) -> Result<HandoverResponse, String> {
    let WantedHandover { to, dry_run: _, timeout, within } = wanted;
    let (asked_at, epoch) = (BootTime::now(), reporter.core.read(|core, _| core.view().epoch));
    let waited = || BootTime::now().since(asked_at);
    let mut steps = reporter.core.steps();
    while let Some(passing) = passing_refusal(reporter, to.as_ref()) {
        // A holder's core steps at every heartbeat, if at nothing else.
        if time::timeout(timeout.saturating_sub(waited()), steps.changed()).await.is_err() {
            return Err(format!("{passing}; waited {timeout:?} for that to pass"));
        }
    }
    let moment = match asks_for_moment(reporter, to.as_ref()) {
        // What is left is for the move itself.
        true => moment::come(reporter, (*within).min(timeout.saturating_sub(waited()) / 2)).await,
        false => String::new(),
    };
    let (done, ended) = oneshot::channel();
    answers.wait(done).map_err(|_| "another handover is under way".to_owned())?;
    let left = timeout.saturating_sub(waited());
    reporter.core.step(Event::HandoverWanted { to: to.clone(), timeout: left, reason: Reason::Operator });
    let ended = ended.await.map_err(|_| "this coordinator ends".to_owned())?;
    let done = match ended {
        Err(NotDone::Refused(reason)) if waited() >= *timeout => became(reporter, epoch, reason, waited).await,
        ended => ended.map_err(NotDone::reason),
    };
    done.map(|done| HandoverResponse { moment, ..done })
}

/// Whether the chain could miss something by it: this host signs, and the handover is not to be refused.
fn asks_for_moment(reporter: &Reporter, to: Option<&NodeId>) -> bool {
    reporter.core.read(|core, _| core.stage() == Some(Stage::Active) && core.handover_target(to.cloned()).is_ok())
}

/// Why a handover is refused now, when that passes by itself.
fn passing_refusal(reporter: &Reporter, to: Option<&NodeId>) -> Option<String> {
    let (refused, stage) = reporter.core.read(|core, _| (core.handover_target(to.cloned()).err(), core.stage()));
    let state = reporter.applied.borrow();
    let last = state.replicated.moves.back()?;
    refused.filter(|_| passes(last, &reporter.config.id, stage, to, WallTime::now()))
}

/// Whether this host is only taking the baton, or the node of the host that it was taken over from may be on its way to
/// be a standby again.
fn passes(last: &Move, me: &NodeId, stage: Option<Stage>, to: Option<&NodeId>, now: WallTime) -> bool {
    let recent = last.to == *me && last.kind == MoveKind::Handover && now.since(last.claimed_at) < RECENT;
    let from = last.from.as_ref().filter(|from| *from != me);
    recent
        && match stage {
            Some(Stage::Active) => from.is_some_and(|from| to.is_none_or(|to| to == from)),
            Some(Stage::Upgrading) | None => false,
            Some(_) => true,
        }
}

/// What became of a move that was not seen to end in time.
async fn became(
    reporter: &Reporter,
    before: Epoch,
    reason: String,
    took: impl Fn() -> Duration,
) -> Result<HandoverResponse, String> {
    let mut applied = reporter.applied.clone();
    let me = &reporter.config.id;
    let done = applied.wait_for(|state| move_after(state.replicated.moves.back(), before).is_some_and(is_done));
    let in_time = time::timeout(COMPLETES_WITHIN, done).await.is_ok();
    let state = reporter.applied.borrow();
    match move_after(state.replicated.moves.back(), before) {
        Some(done) if in_time && done.to != *me => Ok(HandoverResponse {
            from: me.to_string(),
            to: done.to.to_string(),
            epoch: done.epoch.0,
            took_ns: took().as_nanos() as u64,
            moment: String::new(),
        }),
        last => Err(format!("{reason}; {}", words(last, me, state.replicated.holder.as_ref()))),
    }
}

fn move_after(last: Option<&Move>, before: Epoch) -> Option<&Move> {
    last.filter(|last| last.epoch > before)
}

fn is_done(last: &Move) -> bool {
    last.end.is_some()
}

fn words(last: Option<&Move>, me: &NodeId, holder: Option<&NodeId>) -> String {
    match (last, holder) {
        (Some(Move { to, epoch, end: None, .. }), _) => {
            format!("{to} took it under epoch {epoch} and is not active yet")
        }
        (Some(Move { to, epoch, end: Some(_), .. }), _) => format!("{to} holds it under epoch {epoch} and is active"),
        (None, Some(holder)) if holder == me => format!("{me} has not let it go yet"),
        (None, Some(holder)) => format!("{holder} holds it"),
        (None, None) => format!("{me} let it go, and nobody has taken it yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chain_node::{MetFloor, SignFloor};
    use crate::base::ids::SignMark;
    use crate::core::agreed::replicated::MoveEnd;

    fn at(secs: u64) -> WallTime {
        WallTime::from_nanos(secs * 1_000_000_000)
    }

    /// a handed over to b at second 1000.
    fn moved(kind: MoveKind, end: Option<MoveEnd>) -> Move {
        let (from, to) = (Some("a".into()), "b".into());
        Move { epoch: Epoch(4), from, to, kind, reason: "operator".into(), claimed_at: at(1000), end, laid: None }
    }

    #[test]
    fn right_after_a_handover_the_next_one_waits_for_the_old_holders_node_and_for_nobody_else() {
        let (a, b, c) = (NodeId::from("a"), NodeId::from("b"), NodeId::from("c"));
        let last = moved(MoveKind::Handover, None);
        let passes = |last: &Move, me: &NodeId, stage, to: Option<&NodeId>, secs| passes(last, me, stage, to, at(secs));
        let active = Some(Stage::Active);
        assert!(passes(&last, &b, active, Some(&a), 1002) && passes(&last, &b, active, None, 1002));
        assert!(!passes(&last, &b, active, Some(&c), 1002), "c's node was never ours to wait for");
        assert!(!passes(&last, &b, active, Some(&a), 1200), "that is no handover's doing any more");
        assert!(!passes(&moved(MoveKind::Failover, None), &b, active, Some(&a), 1002), "a was lost");
        assert!(passes(&last, &b, Some(Stage::Activating), Some(&c), 1001), "b is only taking it");
        assert!(!passes(&last, &b, Some(Stage::Upgrading), Some(&a), 1002));
        assert!(!passes(&last, &a, None, Some(&c), 1002), "a does not hold it");
    }

    #[test]
    fn a_move_that_was_not_seen_to_end_is_told_as_it_stands() {
        let (a, b) = (NodeId::from("a"), NodeId::from("b"));
        let mark = SignFloor::Mark(SignMark::at_step(7, 0, 0));
        let floor = MetFloor { floor: mark, basis: None, height: 7, settled_in: Duration::ZERO };
        let end = MoveEnd { active_at: at(1001), gap: Duration::ZERO, took: Duration::ZERO, floor };
        assert_eq!(
            words(Some(&moved(MoveKind::Handover, Some(end))), &a, Some(&b)),
            "b holds it under epoch 4 and is active"
        );
        let taking = words(Some(&moved(MoveKind::Handover, None)), &a, Some(&b));
        assert_eq!(taking, "b took it under epoch 4 and is not active yet");
        assert_eq!(words(None, &a, Some(&a)), "a has not let it go yet");
        assert_eq!(words(None, &a, None), "a let it go, and nobody has taken it yet");
        assert!(move_after(Some(&moved(MoveKind::Handover, None)), Epoch(4)).is_none(), "that was before");
    }
}
