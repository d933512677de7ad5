//! The plans of upgrades: tells the own hands what is planned and whether it is their turn, says what a plan waits for,
//! and, while this member leads, carries the plan on. What to do next is decided in `core::upgrades`.
//!
//! A plan travels as a change of the membership does. The leader weighs it by the plans and by what gossip tells of
//! each host's binaries, then commits `PlanUpgrade`. Every member follows the replicated plan and asks
//! `core::upgrades::next` what it waits for, on changes and once a second; `baton upgrade status` shows those words.
//! Whoever leads also does what `next` says: it proposes `UpgradeTurn` and `EndUpgrade`, and as the holder it hands
//! over. `next` is pure and made of the replicated state and gossip, so a new leader decides the same; it does not
//! inherit how long the old one had waited. What hosts tell can hold a plan up or end it. It grants nothing, and the
//! fences know of no upgrade.
//!
//! A member of a version that does not know an entry refuses to append it. So every message carries what its sender
//! can read (`Sender.knows`), and the leader writes no plan while a member is not known to read it. Once there are
//! plans, it adds no member that cannot. Both are looked at under one lock (`Reporter::changing`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::answers::Answers;
use super::orders::{ATTEMPT_MAX, propose};
use super::report::Reporter;
use super::sources::is_active;
use crate::base::ids::{NodeId, UpgradeName};
use crate::base::time::{BootTime, WallTime};
use crate::cluster::gossip::Table;
use crate::cluster::wire::proto::upgrade_change_request::Change;
use crate::cluster::wire::proto::{UpgradeChangeRequest, UpgradeChangeResponse};
use crate::core::Event;
use crate::core::agreed::replicated::{Applied, Command, Replicated, Upgrade};
use crate::core::tenure::Reason;
use crate::core::upgrades::{Facts, Host, Next, Plan, Plans, Situation, Wanted, check_known, next};
use crate::host::effects::Planned;
use crate::operator::admin::NotDone;
use crate::operator::order::HANDOVER_MAX;

/// Between two looks at a plan in force.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(200);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
/// Between two attempts to hand the baton over.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(10);

/// Follows the plan in force for as long as the coordinator runs.
pub(super) async fn follow(reporter: Reporter, answers: Answers, next: watch::Sender<Option<Next>>) {
    let mut applied = reporter.applied.clone();
    let mut table = reporter.gossip.table();
    let mut follower = Follower { reporter, answers, planned: None, seen: None, unheld_at: None, handover: None };
    loop {
        let replicated = applied.borrow_and_update().replicated.clone();
        follower.tell_hands(replicated.plans.in_force());
        let Some(plan) = replicated.plans.in_force() else {
            next.send_if_modified(|said| said.take().is_some());
            (follower.seen, follower.unheld_at) = (None, None);
            if applied.changed().await.is_err() {
                return;
            }
            continue;
        };
        let now = BootTime::now();
        let todo = follower.judge(&replicated, plan, &table.borrow_and_update().clone(), now);
        let said = next.send_if_modified(|said| {
            let differs = said.as_ref() != Some(&todo);
            *said = Some(todo.clone());
            differs
        });
        if follower.leads() {
            if said {
                info!("upgrade {}: waits for {todo}", plan.name);
            }
            follower.carry_on(plan, todo, now).await;
        }
        sleep(LOOK_EVERY_MIN).await;
        let changed = async {
            tokio::select! {
                changed = applied.changed() => changed,
                changed = table.changed() => changed,
            }
        };
        if let Ok(Err(_)) = timeout(LOOK_EVERY_MAX - LOOK_EVERY_MIN, changed).await {
            return;
        }
    }
}

struct Follower {
    reporter: Reporter,
    answers: Answers,
    /// As the hands were told last.
    planned: Option<Planned>,
    seen: Option<SeenTurn>,
    /// Since when nobody is known to be active.
    unheld_at: Option<BootTime>,
    handover: Option<(JoinHandle<()>, BootTime)>,
}

/// The turn that this member saw last.
struct SeenTurn {
    of: (UpgradeName, WallTime, NodeId),
    since: BootTime,
    /// When its host was last seen at work.
    busy_at: BootTime,
}

impl Follower {
    fn leads(&self) -> bool {
        self.reporter.core.read(|core, _| core.is_active() || core.leads().is_some() && core.stage().is_none())
    }

    fn tell_hands(&mut self, plan: Option<&Plan>) {
        let me = &self.reporter.config.id;
        let planned = plan.map(|plan| Planned {
            name: plan.name.clone(),
            source: plan.source.clone(),
            back: plan.back,
            now: plan.turn() == Some(me),
        });
        let Some(effects) = self.reporter.effects.as_ref().filter(|_| self.reporter.runs_upgrades()) else { return };
        if planned != self.planned {
            self.planned.clone_from(&planned);
            effects.follow_plan(planned);
        }
    }

    fn judge(&mut self, replicated: &Replicated, plan: &Plan, table: &Table, now: BootTime) -> Next {
        let hosts = self.reporter.hosts(table, now);
        let active = self.reporter.sees_active(table, now);
        let unheld_at = if active { None } else { Some(self.unheld_at.unwrap_or(now)) };
        self.unheld_at = unheld_at;
        let (turn_for, idle_for) = self.note_turn(plan, &hosts, now);
        next(&Situation {
            plan,
            hosts: &hosts,
            holder: replicated.holder.as_ref(),
            active,
            paused: replicated.orders.is_paused(),
            moves: &replicated.moves,
            turn_for,
            idle_for,
            unheld_for: unheld_at.map_or(Duration::ZERO, |since| now.since(since)),
        })
    }

    /// For how long it has been this host's turn, and for how long the host is not at work.
    fn note_turn(&mut self, plan: &Plan, hosts: &[Host], now: BootTime) -> (Duration, Duration) {
        let Some(turn) = plan.turn() else {
            self.seen = None;
            return (Duration::ZERO, Duration::ZERO);
        };
        let of = (plan.name.clone(), plan.planned_at, turn.clone());
        let seen = match self.seen.take().filter(|seen| seen.of == of) {
            Some(seen) => self.seen.insert(seen),
            None => self.seen.insert(SeenTurn { of, since: now, busy_at: now }),
        };
        let report = hosts.iter().find(|host| host.id == *turn).and_then(|host| host.report.as_ref());
        if report.is_some_and(|report| report.under_way.is_some()) {
            seen.busy_at = now;
        }
        (now.since(seen.since), now.since(seen.busy_at))
    }

    async fn carry_on(&mut self, plan: &Plan, todo: Next, now: BootTime) {
        let (name, at) = (plan.name.clone(), WallTime::now());
        match todo {
            Next::Underway(_) | Next::Wait(_) => {}
            Next::Turn(member) => self.propose(Command::Upgrade(Upgrade::Turn { name, member, at })).await,
            Next::HandOver(to) => self.hand_over(to, now),
            Next::End => self.propose(Command::Upgrade(Upgrade::End { name, failed: None, at })).await,
            Next::Fail { member, reason } => {
                warn!("upgrade {name} failed at {member}: {reason}");
                self.propose(Command::Upgrade(Upgrade::End { name, failed: Some((member, reason)), at })).await;
            }
        }
    }

    /// What fails is tried again at the next look, by whoever leads then.
    async fn propose(&self, command: Command) {
        info!("proposing {command}");
        match timeout(ATTEMPT_MAX, self.reporter.consensus.propose(command)).await {
            Ok(Ok(Applied::Rejected { reason })) => debug!("{reason}"),
            Ok(Ok(Applied::Recorded | Applied::Claimed { .. } | Applied::Released { .. } | Applied::Weighed(_))) => {}
            Ok(Err(reason)) => debug!("{reason}"),
            Err(_elapsed) => debug!("no quorum of members has committed it within {ATTEMPT_MAX:?}"),
        }
    }

    /// In the way of an operator's; only the holder itself does, and the next look sees what came of it.
    fn hand_over(&mut self, to: NodeId, now: BootTime) {
        let under_way = |(task, begun_at): &(JoinHandle<()>, BootTime)| {
            !task.is_finished() || now.since(*begun_at) < HAND_OVER_AGAIN
        };
        if !self.reporter.core.read(|core, _| core.is_active()) || self.handover.as_ref().is_some_and(under_way) {
            return;
        }
        let (answer, ended) = oneshot::channel();
        if self.answers.wait(answer).is_err() {
            return;
        }
        self.reporter.core.step(Event::HandoverWanted {
            to: Some(to.clone()),
            timeout: HANDOVER_MAX,
            reason: Reason::Upgrade,
        });
        let task = tokio::spawn(async move {
            let taken = |_| Err(NotDone::NotNow("another handover took its place".into()));
            match ended.await.unwrap_or_else(taken) {
                Ok(done) => info!("handed the baton to {} for the upgrade, under epoch {}", done.to, done.epoch),
                Err(not_done) => warn!("{to} does not get the baton for the upgrade: {}", not_done.reason()),
            }
        });
        self.handover = Some((task, now));
    }
}

impl Reporter {
    /// Whether this host's binaries follow one another.
    pub(super) fn runs_upgrades(&self) -> bool {
        self.config.chain.as_ref().is_some_and(|chain| chain.upgrade.is_some())
    }

    /// Every member as gossip tells of it.
    fn hosts(&self, table: &Table, now: BootTime) -> Vec<Host> {
        let orders = self.core.read(|core, _| core.view().orders.clone());
        let members = self.roster.all().into_iter().map(|(member, _)| member);
        let host = |member: crate::config::Member| {
            let record = table.get(&member.id).and_then(|heard| heard.record.as_deref());
            let told = record.cloned().unwrap_or_default();
            let chain = told.chain.unwrap_or_default();
            Host {
                reachable: table.is_reachable(&member.id, now),
                role: member.role,
                priority: orders.priority(&member.id, member.priority),
                ready: if told.ready { Ok(()) } else { Err(told.not_ready_because) },
                synced: chain.synced,
                maintenance: orders.is_in_maintenance(&member.id),
                height: chain.height,
                crashes: told.node_crashes,
                // What a later version says beyond recognition is not said.
                report: told.upgrade.and_then(|report| report.try_into().ok()),
                id: member.id,
            }
        };
        members.map(host).collect()
    }

    /// Whether the holder, here or elsewhere, says that its node signs.
    fn sees_active(&self, table: &Table, now: BootTime) -> bool {
        let (own, holder) = self.core.read(|core, _| (core.is_active(), core.view().holder.clone()));
        let says = |id: &NodeId| {
            let heard = table.get(id).filter(|heard| heard.is_reachable(now));
            heard.and_then(|heard| heard.record.as_deref()).is_some_and(is_active)
        };
        own || holder.is_some_and(|holder| holder != self.config.id && says(&holder))
    }
}

pub(super) fn read(request: &UpgradeChangeRequest) -> Result<Wanted, String> {
    Ok(match &request.change {
        Some(Change::Plan(plan)) => Wanted::Plan {
            name: UpgradeName::new(&plan.name)?,
            height: plan.height,
            source: Some(plan.source.clone()).filter(|source| !source.is_empty()),
        },
        Some(Change::Cancel(name)) => Wanted::Cancel { name: UpgradeName::new(name)? },
        Some(Change::Rollback(_)) => Wanted::Rollback,
        None => return Err("the request names no change".into()),
    })
}

/// As the leader: returns once it is committed, with sentences about what is so now; after a dry run at once, with what
/// would be.
pub(super) async fn lead_change(
    reporter: &Reporter,
    wanted: &Wanted,
    dry_run: bool,
) -> Result<UpgradeChangeResponse, NotDone> {
    // Until it is committed, so that nobody who cannot read it is added meanwhile.
    let _changing = reporter.changing.lock().await;
    let judged = judge(reporter, wanted);
    if dry_run {
        return Ok(match judged {
            Ok((_, lines)) => UpgradeChangeResponse { lines, refused: String::new() },
            Err(refused) => UpgradeChangeResponse { lines: Vec::new(), refused },
        });
    }
    let (command, lines) = judged.map_err(NotDone::Refused)?;
    let done = UpgradeChangeResponse { lines, refused: String::new() };
    if let Some(command) = command {
        propose(reporter, command).await?;
    }
    Ok(done)
}

/// By what this member, which leads, knows now.
fn judge(reporter: &Reporter, wanted: &Wanted) -> Result<(Option<Command>, Vec<String>), String> {
    let replicated = reporter.applied.borrow().replicated.clone();
    let table: Arc<Table> = reporter.gossip.table().borrow().clone();
    let hosts = reporter.hosts(&table, BootTime::now());
    match wanted {
        Wanted::Plan { .. } | Wanted::Rollback => {
            check_known(reporter.consensus.members().all.keys(), |id| reporter.identity.known_by(id))?;
        }
        // It ends what every member has read already.
        Wanted::Cancel { .. } => {}
    }
    let facts = Facts { plans: &replicated.plans, hosts: &hosts, holder: replicated.holder.as_ref() };
    wanted.judge(&facts, WallTime::now())
}

pub(super) fn is_in_force(plans: &Plans, wanted: &Wanted) -> bool {
    let newest = plans.newest();
    match wanted {
        Wanted::Plan { name, .. } => newest.is_some_and(|plan| plan.name == *name && !plan.stage.has_ended()),
        Wanted::Cancel { name } => newest.is_some_and(|plan| plan.name == *name && plan.stage.has_ended()),
        Wanted::Rollback => newest.is_some_and(|plan| plan.back),
    }
}
