//! Upgrades of the own chain node: watches for what the chain and the cluster ask for, has binaries brought into their
//! place (`obtain.rs`), tells the core what is due, and carries out what the core then orders (`job.rs`).
//!
//! Nothing here waits for a disk on a thread that carries a lease: a look takes place on a thread for what blocks, and
//! what takes long on one of its own.

mod job;
mod obtain;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Effects, Hands};
use crate::base::guard_frame::{ExitCause, FromGuard};
use crate::base::ids::UpgradeName;
use crate::core::Event;
use crate::core::upgrades::{BinaryReport, UpgradeReport};
use crate::host::upgrade::{Binary, Due, UpgradeError, Upgrades};
pub(super) use job::carry_out;
use obtain::Obtaining;

/// After which a failed attempt is repeated although nothing has changed.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// For a look before the core hears that its chain node ended. A disk that is slower than this has an end taken for a
/// crash.
const LOOK_MAX: Duration = Duration::from_millis(250);
/// From what a chain node writes as it halts to its end.
const HALT_MAX: Duration = Duration::from_secs(10);

/// A plan in force, as far as a host's hands care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub name: UpgradeName,
    pub source: Option<String>,
    pub back: bool,
    /// It is this host's turn: the core hears that it is due, once the binary is there.
    pub now: bool,
}

impl Effects {
    /// `None` while the configuration has no `[upgrade]`.
    pub fn upgrade_report(&self) -> watch::Receiver<Option<UpgradeReport>> {
        self.hands.upgrade_report.subscribe()
    }

    /// The plan that has not ended, if there is one; said again whenever it changes.
    pub fn follow_plan(&self, plan: Option<Planned>) {
        if let Some(upgrader) = &self.hands.upgrader {
            upgrader.plan.send_if_modified(|known| {
                let changes = *known != plan;
                *known = plan;
                changes
            });
        }
    }
}

/// What the hands of a host with `[upgrade]` have for it.
pub(super) struct Upgrader {
    pub(super) upgrades: Upgrades,
    plan: watch::Sender<Option<Planned>>,
    news: mpsc::UnboundedSender<News>,
}

/// What the watcher is told.
enum News {
    /// The chain node ended by itself; answered once the core has heard what is due.
    Exited(oneshot::Sender<()>),
    Obtained {
        name: UpgradeName,
        outcome: Result<Binary, String>,
    },
    Ended {
        name: UpgradeName,
        failed: bool,
    },
}

impl Upgrader {
    pub(super) fn new(upgrades: Upgrades) -> (Upgrader, UpgradeNews) {
        let (news, heard) = mpsc::unbounded_channel();
        (Upgrader { upgrades, plan: watch::Sender::new(None), news }, UpgradeNews(heard))
    }
}

/// For the one watcher.
pub(super) struct UpgradeNews(mpsc::UnboundedReceiver<News>);

/// A chain node that asks for an upgrade ends by itself. The core hears of the upgrade first, and so does not take the
/// end for a crash, which would move the baton to a host whose node ends in the same way.
pub(super) async fn look_before_exit(hands: &Hands, frame: &FromGuard) {
    let FromGuard::Exited { pid, cause: ExitCause::ByItself, .. } = frame else { return };
    let Some(upgrader) = hands.upgrader.as_ref().filter(|_| hands.runs_node(*pid)) else { return };
    let (done, looked) = oneshot::channel();
    let _ = upgrader.news.send(News::Exited(done));
    if timeout(LOOK_MAX, looked).await.is_err() {
        warn!("whether the chain node ended to be upgraded is not known after {LOOK_MAX:?}; see to the disk");
    }
}

/// What an attempt is made with: another one may end differently.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attempt {
    name: UpgradeName,
    back: bool,
    /// `None` by a plan.
    due: Option<Due>,
    sha256: String,
}

/// What one look has found.
struct Found {
    current: UpgradeName,
    previous: Option<UpgradeName>,
    due: Option<Due>,
    binaries: BTreeMap<UpgradeName, Result<Option<Binary>, String>>,
}

struct Watcher {
    hands: Arc<Hands>,
    upgrades: Upgrades,
    plan: watch::Receiver<Option<Planned>>,
    news: mpsc::UnboundedSender<News>,
    /// The last that the chain node has told.
    height: Option<u64>,
    /// It answers, and probes of this kind tell no height.
    tells_none: bool,
    /// It ended by itself and never told any.
    ended_untold: bool,
    /// It ended by itself just after it had written what it asks for: the height that it told last is older than that,
    /// by as many blocks as fit between two probes.
    ended_asking: bool,
    /// What the core was told of and has not ended.
    told: Option<Attempt>,
    failed: Option<(Attempt, Instant)>,
    obtaining: Option<Obtaining>,
    /// What could not be obtained, from where, why, and when that was.
    not_obtained: Option<(UpgradeName, String, String, Instant)>,
    trouble: String,
}

/// Until the coordinator ends.
pub(super) async fn watch(hands: Arc<Hands>, news: UpgradeNews) {
    let Some(upgrader) = &hands.upgrader else { return };
    let mut watcher = Watcher {
        upgrades: upgrader.upgrades.clone(),
        plan: upgrader.plan.subscribe(),
        news: upgrader.news.clone(),
        hands: hands.clone(),
        height: None,
        tells_none: false,
        ended_untold: false,
        ended_asking: false,
        told: None,
        failed: None,
        obtaining: None,
        not_obtained: None,
        trouble: String::new(),
    };
    let UpgradeNews(mut heard) = news;
    let mut plan = upgrader.plan.subscribe();
    let poll = upgrader.upgrades.settings().poll;
    loop {
        watcher.look().await;
        tokio::select! {
            () = sleep(poll) => {}
            _ = plan.changed() => {}
            Some(news) = heard.recv() => watcher.hear(news).await,
        }
    }
}

impl Watcher {
    async fn hear(&mut self, news: News) {
        match news {
            News::Exited(done) => {
                self.note_height();
                self.ended_untold |= self.height.is_none();
                let upgrades = self.upgrades.clone();
                self.ended_asking = spawn_blocking(move || upgrades.was_asked_within(HALT_MAX)).await.unwrap_or(false);
                self.look().await;
                let _ = done.send(());
            }
            News::Obtained { name, outcome } => {
                let source = self.obtaining.take().map(|obtaining| obtaining.source).unwrap_or_default();
                match outcome {
                    Ok(binary) => info!(sha256 = binary.sha256, "the binary of {name} is at {}", binary.path.display()),
                    Err(reason) => {
                        warn!("the binary of {name} was not obtained: {reason}");
                        self.not_obtained = Some((name, source, reason, Instant::now()));
                    }
                }
            }
            News::Ended { name, failed } => {
                // What the core was told of meanwhile it has not noted, and is told of again.
                let ended = self.told.take().filter(|attempt| failed && attempt.name == name);
                self.failed = ended.map(|attempt| (attempt, Instant::now()));
                if !failed {
                    (self.height, self.ended_untold, self.ended_asking) = (None, false, false);
                }
            }
        }
    }

    fn note_height(&mut self) {
        let seen = self.hands.seen.borrow();
        let Some(health) = &seen.health else { return };
        if health.height > 0 {
            self.height = Some(health.height);
        }
        self.tells_none = health.height == 0 && health.head_time.is_none();
    }

    async fn look(&mut self) {
        self.note_height();
        let (upgrades, planned) = (self.upgrades.clone(), self.plan.borrow().clone());
        let name = planned.as_ref().map(|plan| plan.name.clone());
        let found = spawn_blocking(move || find(&upgrades, name).map_err(|error| error.to_string())).await;
        match found.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(found) => {
                self.trouble.clear();
                self.obtain_missing(&found, planned.as_ref());
                self.report(&found);
                self.tell(&found, planned.as_ref());
            }
            Err(trouble) if trouble == self.trouble => {}
            Err(trouble) => {
                warn!("no upgrade can be seen to: {trouble}");
                self.trouble = trouble;
            }
        }
    }

    /// Whether the chain has come to where it halts. The file may have been written long before, by an operator.
    fn has_halted(&self, due: &Due) -> bool {
        let by_height = |height: u64| height.saturating_add(1) >= due.height;
        self.ended_asking || self.height.map_or(self.ended_untold || self.tells_none, by_height)
    }

    /// Tells the core what is due and there, once.
    fn tell(&mut self, found: &Found, planned: Option<&Planned>) {
        let by_chain =
            found.due.clone().filter(|due| self.has_halted(due)).map(|due| (due.name.clone(), false, Some(due)));
        let turn = planned.filter(|plan| plan.now && plan.name != found.current);
        let Some((name, back, due)) = by_chain.or_else(|| turn.map(|plan| (plan.name.clone(), plan.back, None))) else {
            return;
        };
        let Some(Ok(Some(binary))) = found.binaries.get(&name) else { return };
        let attempt = Attempt { name, back, due, sha256: binary.sha256.clone() };
        let failed_now = |(failed, at): &(Attempt, Instant)| *failed == attempt && at.elapsed() < AGAIN_AFTER;
        if self.told.as_ref() == Some(&attempt) || self.failed.as_ref().is_some_and(failed_now) {
            return;
        }
        let height = attempt.due.as_ref().map(|due| due.height);
        info!(height, back, "the chain node is due to be upgraded from {} to {}", found.current, attempt.name);
        self.hands.core.step(Event::UpgradeDue { name: attempt.name.clone(), back });
        self.told = Some(attempt);
    }

    /// Binaries come from where the plan says; what the chain says of it counts only where the configuration allows
    /// that.
    fn source(&self, name: &UpgradeName, due: Option<&Due>, planned: Option<&Planned>) -> Option<(String, bool)> {
        let by_plan = planned.filter(|plan| plan.name == *name).and_then(|plan| Some((plan.source.clone()?, true)));
        let by_chain = || {
            let due = due.filter(|due| due.name == *name && self.upgrades.settings().allow_download)?;
            Some((due.info.clone(), false)).filter(|(info, _)| !info.trim().is_empty())
        };
        by_plan.or_else(by_chain)
    }

    fn obtain_missing(&mut self, found: &Found, planned: Option<&Planned>) {
        let missing = |name: &&UpgradeName| matches!(found.binaries.get(*name), Some(Ok(None)));
        let wanted: Vec<(UpgradeName, (String, bool))> = (found.binaries.keys().filter(missing))
            .filter_map(|name| Some((name.clone(), self.source(name, found.due.as_ref(), planned)?)))
            .collect();
        if let Some(obtaining) = &self.obtaining {
            if !wanted.iter().any(|(name, (source, _))| obtaining.is_of(name, source)) {
                obtaining.give_up();
            }
            return;
        }
        let next = wanted.into_iter().find(|(name, (source, _))| {
            let failed = |(of, from, _, at): &(UpgradeName, String, String, Instant)| {
                of == name && from == source && at.elapsed() < AGAIN_AFTER
            };
            !self.not_obtained.as_ref().is_some_and(failed)
        });
        if let Some((name, (source, by_plan))) = next {
            info!("obtaining the binary of {name}");
            self.not_obtained = None;
            let (report, news) = (self.hands.upgrade_report.clone(), self.news.clone());
            self.obtaining = Some(Obtaining::start(self.upgrades.clone(), name, source, by_plan, report, news));
        }
    }

    fn report(&self, found: &Found) {
        self.hands.upgrade_report.send_if_modified(|report| {
            let before = report.take();
            let known = |name: &UpgradeName| before.as_ref().and_then(|before| before.binaries.get(name)).cloned();
            let binaries: BTreeMap<UpgradeName, BinaryReport> = (found.binaries.iter())
                .map(|(name, binary)| (name.clone(), self.binary_report(name, binary, found, known(name))))
                .collect();
            for (name, binary) in &binaries {
                tell_change(name, known(name).as_ref(), binary);
            }
            let (under_way, failed) =
                before.as_ref().map(|before| (before.under_way.clone(), before.failed.clone())).unwrap_or_default();
            let (current, previous) = (found.current.clone(), found.previous.clone());
            *report = Some(UpgradeReport { current, previous, binaries, under_way, failed });
            *report != before
        });
    }

    fn binary_report(
        &self,
        name: &UpgradeName,
        binary: &Result<Option<Binary>, String>,
        found: &Found,
        known: Option<BinaryReport>,
    ) -> BinaryReport {
        let path = self.upgrades.path_of(name);
        match binary {
            Ok(Some(binary)) => BinaryReport::Present { sha256: binary.sha256.clone() },
            Err(reason) => BinaryReport::Missing { reason: reason.clone() },
            Ok(None) if self.obtaining.as_ref().is_some_and(|obtaining| obtaining.name == *name) => match known {
                Some(BinaryReport::Fetching { done, total }) => BinaryReport::Fetching { done, total },
                Some(BinaryReport::Present { .. } | BinaryReport::Missing { .. }) | None => {
                    BinaryReport::Fetching { done: 0, total: None }
                }
            },
            Ok(None) => {
                let failed = self.not_obtained.as_ref().filter(|(of, ..)| of == name).map(|(_, _, reason, _)| reason);
                let tells = found.due.as_ref().is_some_and(|due| due.name == *name && !due.info.trim().is_empty());
                let reason = match failed {
                    Some(reason) => format!("it was not obtained: {reason}; put it at {}", path.display()),
                    None if tells && !self.upgrades.settings().allow_download => {
                        format!("put it at {}, or set upgrade.allow_download", path.display())
                    }
                    None => format!("put it at {}", path.display()),
                };
                BinaryReport::Missing { reason }
            }
        }
    }
}

fn tell_change(name: &UpgradeName, before: Option<&BinaryReport>, now: &BinaryReport) {
    match now {
        BinaryReport::Missing { reason } if before != Some(now) => warn!("the binary of {name} is missing: {reason}"),
        BinaryReport::Present { sha256 } if before != Some(now) => {
            info!(sha256, "the binary of {name} is in its place")
        }
        BinaryReport::Missing { .. } | BinaryReport::Present { .. } | BinaryReport::Fetching { .. } => {}
    }
}

fn find(upgrades: &Upgrades, planned: Option<UpgradeName>) -> Result<Found, UpgradeError> {
    let due = upgrades.due()?;
    let names: BTreeSet<UpgradeName> = due.iter().map(|due| due.name.clone()).chain(planned).collect();
    let binary = |name: &UpgradeName| upgrades.binary(name).map_err(|error| error.to_string());
    Ok(Found {
        current: upgrades.current()?,
        previous: upgrades.previous(),
        binaries: names.into_iter().map(|name| (name.clone(), binary(&name))).collect(),
        due,
    })
}
