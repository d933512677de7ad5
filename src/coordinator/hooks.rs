//! When the operator's hooks are run, and with which facts. A thread of its own follows what the coordinator publishes for
//! the exporter; nothing of the coordinator waits for it but the very end of the process, and then for a bound. What a
//! hook does with it is the operator's business: no answer comes back. `host::hooks` runs them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

use crate::base::hooks::{CLUSTER_VARIABLE, HookEvent, MEMBER_VARIABLE};
use crate::base::ids::Role;
use crate::base::time::BootTime;
use crate::cluster::wire::proto::{MemberStatus, TenureStage};
use crate::config::Config;
use crate::host::hooks::{HookOrder, Hooks};
use crate::operator::exporter::Overview;
use crate::operator::metrics::Metrics;

/// At the end of the coordinator, for hooks that still run. Nobody waits for this host any more then.
const LAST_MAX: Duration = Duration::from_secs(5);
/// Since its start, for a member that has not reached a majority yet.
const FIRST_QUORUM_MAX: Duration = Duration::from_secs(10);

/// Tells hooks until it is told the last.
pub(super) struct Following {
    last: oneshot::Sender<Arc<Overview>>,
    done: oneshot::Receiver<()>,
}

/// `None` when there are no hooks.
///
/// # Errors
/// The host gives no thread.
pub(super) fn follow(
    config: &Config,
    overview: watch::Receiver<Arc<Overview>>,
    metrics: Metrics,
) -> Result<Option<Following>> {
    if config.hooks.commands.is_empty() {
        return Ok(None);
    }
    metrics.sees_hooks(config.hooks.commands.keys().copied());
    let told = move |event, outcome| metrics.hook_ended(event, outcome);
    let hooks = Hooks::start(config.hooks.timeout, told).context("start the threads of the hooks")?;
    let teller = Teller { config: config.clone(), watcher: Watcher::new(config.timing.promise()), hooks };
    // No timer is set on it: what is published comes twice a second, and whatever is due is told with the next.
    let runtime = Builder::new_current_thread().build().context("start the runtime of the hooks")?;
    let ((last, to_come), (ended, done)) = (oneshot::channel(), oneshot::channel());
    let thread = thread::Builder::new().name("baton-hooks".into());
    let work = move || {
        runtime.block_on(teller.tell_until(overview, to_come));
        // The coordinator may have waited for long enough.
        let _ = ended.send(());
    };
    thread.spawn(work).context("start the thread of the hooks")?;
    Ok(Some(Following { last, done }))
}

impl Following {
    /// Hooks are told of the `last` state, in which this host is no holder any more, and had `LAST_MAX` to end.
    pub(super) async fn end(self, mut last: Overview) {
        let me = last.status.member.clone();
        if let Some(own) = last.status.members.iter_mut().find(|member| member.id == me) {
            let mut meaning = own.meaning();
            meaning.set_stage(TenureStage::Unspecified);
            own.meaning = Some(meaning);
        }
        if self.last.send(Arc::new(last)).is_ok() {
            // An error says that the thread is gone, which is no reason to wait.
            let _ = self.done.await;
        }
    }
}

struct Teller {
    config: Config,
    watcher: Watcher,
    hooks: Hooks,
}

impl Teller {
    async fn tell_until(
        mut self,
        mut overview: watch::Receiver<Arc<Overview>>,
        mut last: oneshot::Receiver<Arc<Overview>>,
    ) {
        loop {
            let seen = overview.borrow_and_update().clone();
            self.tell(&seen);
            let last = tokio::select! {
                Ok(()) = overview.changed() => continue,
                last = &mut last => last,
            };
            if let Ok(last) = last {
                self.tell(&last);
            }
            if !self.hooks.finish(LAST_MAX) {
                tracing::warn!("hooks did not end within {LAST_MAX:?}; they end with this coordinator");
            }
            return;
        }
    }

    fn tell(&mut self, seen: &Overview) {
        for happened in self.watcher.see(seen, BootTime::now()) {
            let Some(command) = self.config.hooks.commands.get(&happened.event) else { continue };
            let facts = facts(seen, &happened);
            self.hooks.run(HookOrder { event: happened.event, argv: command.argv.clone(), facts });
        }
    }
}

/// What a hook is told in its environment; docs/operating.md has the table.
fn facts(seen: &Overview, happened: &Happened) -> Vec<(&'static str, String)> {
    let Overview { status, at, .. } = seen;
    vec![
        ("BATON_EVENT", happened.event.as_str().into()),
        (CLUSTER_VARIABLE, status.cluster.clone()),
        (MEMBER_VARIABLE, status.member.clone()),
        ("BATON_HOLDER", status.holder.clone()),
        ("BATON_EPOCH", happened.epoch.to_string()),
        ("BATON_TERM", status.term.to_string()),
        ("BATON_SINCE", at.to_string()),
        ("BATON_REASON", happened.reason.clone()),
    ]
}

/// What a hook is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Happened {
    event: HookEvent,
    /// Of the tenure that it is about.
    epoch: u64,
    reason: String,
}

/// Compares what is published with what was published before.
struct Watcher {
    /// `None` until something was published, and on an arbiter.
    place: Option<Place>,
    fences: u64,
    quorum: Quorum,
    /// How long no majority is reached until that counts as lost.
    lost_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Holder { epoch: u64 },
    Beside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quorum {
    /// Not since this coordinator began.
    NeverReached {
        since: BootTime,
    },
    Reached,
    Missed {
        since: BootTime,
    },
    /// Hooks were told.
    Lost,
}

impl Watcher {
    fn new(lost_after: Duration) -> Watcher {
        let quorum = Quorum::NeverReached { since: BootTime::now() };
        Watcher { place: None, fences: 0, quorum, lost_after }
    }

    /// In the order in which hooks are to be told.
    fn see(&mut self, seen: &Overview, now: BootTime) -> Vec<Happened> {
        let fenced = self.see_fences(seen);
        let moved = self.see_place(seen);
        let lost = self.see_quorum(seen, now);
        fenced.into_iter().chain(moved).chain(lost).collect()
    }

    fn see_fences(&mut self, seen: &Overview) -> Option<Happened> {
        let before = std::mem::replace(&mut self.fences, seen.fences);
        let own = seen.moves.iter().rev().find(|row| row.to == seen.status.member);
        (seen.fences > before).then(|| Happened {
            event: HookEvent::Fenced,
            epoch: own.map_or(seen.status.epoch, |row| row.epoch),
            reason: "nobody renewed the deadline of the guard in time".into(),
        })
    }

    fn see_place(&mut self, seen: &Overview) -> Option<Happened> {
        let own = own(seen).filter(|own| own.role != Role::Arbiter.as_str())?;
        let before = self.place;
        let now = match own.meaning().stage() {
            TenureStage::Active => Place::Holder { epoch: seen.status.epoch },
            // It is the holder still, or not yet.
            TenureStage::Upgrading => before?,
            TenureStage::Unspecified
            | TenureStage::Claiming
            | TenureStage::Arming
            | TenureStage::Settling
            | TenureStage::Linking
            | TenureStage::Activating
            | TenureStage::Stopping => Place::Beside,
        };
        self.place = Some(now);
        let standby = |epoch, reason| Some(Happened { event: HookEvent::Standby, epoch, reason });
        match (before, now) {
            (before, now) if before == Some(now) => None,
            (_, Place::Holder { epoch }) => {
                Some(Happened { event: HookEvent::Holder, epoch, reason: reason_of_move(seen, epoch) })
            }
            (Some(Place::Holder { epoch }), Place::Beside) => standby(epoch, reason_of_end(seen, epoch)),
            (None | Some(Place::Beside), Place::Beside) => standby(seen.status.epoch, "start".into()),
        }
    }

    fn see_quorum(&mut self, seen: &Overview, now: BootTime) -> Option<Happened> {
        if seen.status.quorum {
            self.quorum = Quorum::Reached;
            return None;
        }
        let (since, max) = match self.quorum {
            Quorum::NeverReached { since } => (since, FIRST_QUORUM_MAX.max(self.lost_after)),
            Quorum::Missed { since } => (since, self.lost_after),
            Quorum::Reached => {
                self.quorum = Quorum::Missed { since: now };
                return None;
            }
            Quorum::Lost => return None,
        };
        (now.since(since) > max).then(|| {
            self.quorum = Quorum::Lost;
            Happened { event: HookEvent::LostQuorum, epoch: seen.status.epoch, reason: unreachable(seen) }
        })
    }
}

fn own(seen: &Overview) -> Option<&MemberStatus> {
    seen.status.members.iter().find(|member| member.id == seen.status.member)
}

/// As in the history, which may be behind for a moment.
fn reason_of_move(seen: &Overview, epoch: u64) -> String {
    let row = seen.moves.iter().rev().find(|row| row.epoch == epoch);
    row.map_or_else(String::new, |row| row.reason.clone())
}

fn reason_of_end(seen: &Overview, epoch: u64) -> String {
    let end = seen.let_go.as_ref().filter(|end| end.epoch == epoch);
    end.map_or_else(String::new, |end| end.why.clone())
}

fn unreachable(seen: &Overview) -> String {
    let lost = seen.status.members.iter().filter(|member| !member.reachable);
    let lost: Vec<&str> = lost.map(|member| member.id.as_str()).collect();
    format!("{} of {} members cannot be reached: {}", lost.len(), seen.status.members.len(), lost.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire::proto::{Meaning, Move, StatusResponse};
    use crate::operator::exporter::LetGo;

    const LEASE: Duration = Duration::from_secs(1);

    fn overview(stage: TenureStage, epoch: u64, role: Role) -> Overview {
        let mut meaning = Meaning::default();
        meaning.set_stage(stage);
        let own = MemberStatus {
            id: "a".into(),
            role: role.as_str().into(),
            reachable: true,
            meaning: Some(meaning),
            ..MemberStatus::default()
        };
        let other = MemberStatus { id: "b".into(), ..MemberStatus::default() };
        let status = StatusResponse {
            member: "a".into(),
            epoch,
            quorum: true,
            members: vec![own, other],
            ..StatusResponse::default()
        };
        let row = |epoch| Move { epoch, to: "a".into(), reason: format!("reason {epoch}"), ..Move::default() };
        Overview { status, moves: Arc::new((1..=epoch).map(row).collect()), ..Overview::default() }
    }

    fn validator(stage: TenureStage, epoch: u64) -> Overview {
        overview(stage, epoch, Role::Validator)
    }

    fn told(watcher: &mut Watcher, seen: &Overview) -> Vec<(HookEvent, u64, String)> {
        watcher.see(seen, BootTime::now()).into_iter().map(|it| (it.event, it.epoch, it.reason)).collect()
    }

    #[test]
    fn a_standby_is_told_at_the_start_and_each_tenure_once() {
        let watcher = &mut Watcher::new(LEASE);
        let start = (HookEvent::Standby, 0, "start".to_owned());
        assert_eq!(told(watcher, &validator(TenureStage::Unspecified, 0)), [start]);
        for stage in [TenureStage::Claiming, TenureStage::Arming, TenureStage::Settling, TenureStage::Activating] {
            assert_eq!(told(watcher, &validator(stage, 1)), []);
        }
        let holder = |epoch: u64| (HookEvent::Holder, epoch, format!("reason {epoch}"));
        assert_eq!(told(watcher, &validator(TenureStage::Active, 1)), [holder(1)]);
        assert_eq!(told(watcher, &validator(TenureStage::Active, 1)), []);
        // It lost and won the baton between two looks.
        assert_eq!(told(watcher, &validator(TenureStage::Active, 3)), [holder(3)]);
        let let_go = Some(LetGo { epoch: 3, why: "operator".into() });
        let stopping = Overview { let_go, ..validator(TenureStage::Stopping, 3) };
        assert_eq!(told(watcher, &stopping), [(HookEvent::Standby, 3, "operator".to_owned())]);
        assert_eq!(told(watcher, &validator(TenureStage::Unspecified, 4)), []);
    }

    #[test]
    fn an_upgrade_of_the_holders_node_is_no_change_of_its_place() {
        let watcher = &mut Watcher::new(LEASE);
        told(watcher, &validator(TenureStage::Active, 1));
        assert_eq!(told(watcher, &validator(TenureStage::Upgrading, 1)), []);
        assert_eq!(told(watcher, &validator(TenureStage::Active, 1)), []);
    }

    #[test]
    fn an_arbiter_is_in_no_place() {
        let watcher = &mut Watcher::new(LEASE);
        assert_eq!(told(watcher, &overview(TenureStage::Unspecified, 1, Role::Arbiter)), []);
    }

    #[test]
    fn a_fence_is_told_before_the_loss_of_the_baton_with_the_epoch_of_the_own_tenure() {
        let watcher = &mut Watcher::new(LEASE);
        told(watcher, &validator(TenureStage::Active, 2));
        let mut fenced = Overview { fences: 1, ..validator(TenureStage::Unspecified, 2) };
        // Another host has taken over since.
        fenced.status.epoch = 3;
        let events: Vec<_> = watcher.see(&fenced, BootTime::now()).into_iter().map(|it| (it.event, it.epoch)).collect();
        assert_eq!(events, [(HookEvent::Fenced, 2), (HookEvent::Standby, 2)]);
        assert_eq!(told(watcher, &fenced), []);
    }

    #[test]
    fn a_lost_quorum_is_told_once_and_only_after_a_lease() {
        let watcher = &mut Watcher::new(LEASE);
        let reached = validator(TenureStage::Unspecified, 0);
        let mut missed = reached.clone();
        missed.status.quorum = false;
        let began_at = BootTime::now();
        let mut lost = |seen: &Overview, after_ms: u64| {
            let happened = watcher.see(seen, began_at + Duration::from_millis(after_ms));
            happened.into_iter().filter(|it| it.event == HookEvent::LostQuorum).map(|it| it.reason).collect::<Vec<_>>()
        };
        // It has reached none since its start.
        assert_eq!(lost(&missed, 9_000), Vec::<String>::new());
        assert_eq!(lost(&missed, 11_000).len(), 1);
        assert_eq!(lost(&reached, 12_000), Vec::<String>::new());
        assert_eq!(lost(&missed, 13_000), Vec::<String>::new());
        assert_eq!(lost(&reached, 13_900), Vec::<String>::new());
        assert_eq!(lost(&missed, 14_000), Vec::<String>::new());
        assert_eq!(lost(&missed, 15_000), Vec::<String>::new());
        assert_eq!(lost(&missed, 15_001), ["1 of 2 members cannot be reached: b"]);
        assert_eq!(lost(&missed, 90_000), Vec::<String>::new());
    }
}
