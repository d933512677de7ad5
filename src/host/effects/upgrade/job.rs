//! One upgrade, as the core has ordered it: the chain node is stopped, which is proven, and the steps are taken.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Hands, News, Upgrader};
use crate::base::ids::UpgradeName;
use crate::core::Event;
use crate::core::upgrades::{Failed, Step, UnderWay, UpgradeReport};
use crate::host::upgrade::Wanted;

/// `UpgradeEnded` follows, always. An end of this process in the midst of it is one of the moments after which the next
/// one finds the upgrade still due.
pub(in crate::host::effects) async fn carry_out(hands: &Arc<Hands>, name: UpgradeName, back: bool) {
    let Some(upgrader) = &hands.upgrader else {
        let failed = Some("the configuration has no [upgrade]".to_owned());
        return hands.core.step(Event::UpgradeEnded { name, failed });
    };
    info!(epoch = hands.epoch(), back, "upgrading the chain node to {name}");
    let failed = take_steps(hands, upgrader, &name, back).await.err();
    report(hands, |report| (report.under_way, report.failed) = (None, failed.clone()));
    match &failed {
        None => info!(epoch = hands.epoch(), "the chain node was upgraded to {name}"),
        Some(Failed { step, reason, .. }) => {
            let step = step.as_str();
            warn!(epoch = hands.epoch(), step, "the chain node was not upgraded to {name}: {reason}");
        }
    }
    if failed.is_none() && !upgrader.upgrades.settings().restart_after {
        warn!("this coordinator ends and leaves the chain node stopped: upgrade.restart_after is false");
        // Before the core hears of the end, after which it starts the node.
        hands.core.step(Event::ShutdownWanted { stop_node: true });
    }
    let _ = upgrader.news.send(News::Ended { name: name.clone(), failed: failed.is_some() });
    hands.core.step(Event::UpgradeEnded { name, failed: failed.map(|failed| failed.reason) });
}

async fn take_steps(hands: &Arc<Hands>, upgrader: &Upgrader, name: &UpgradeName, back: bool) -> Result<(), Failed> {
    let failed = |step: Step, reason: String| Failed { name: name.clone(), step, reason };
    let stop = UnderWay { name: name.clone(), step: Step::Stop, done: 0, total: 0 };
    report(hands, |report| (report.under_way, report.failed) = (Some(stop), None));
    hands.stop_node(hands.stop_timeout).await;
    hands.chain.after_stop().await.map_err(|error| failed(Step::Stop, error.to_string()))?;
    let (done, outcome) = oneshot::channel();
    let (upgrades, wanted) = (upgrader.upgrades.clone(), Wanted { name: name.clone(), back });
    let progress = hands.clone();
    // A thread that is nobody's: a backup takes as long as it takes, and the end of the process does not wait for it.
    let work = move || {
        let mut told = Step::Stop;
        let outcome = upgrades.carry_out(&wanted, &mut |under_way: UnderWay| {
            if std::mem::replace(&mut told, under_way.step) != under_way.step {
                info!(step = under_way.step.as_str(), "upgrading to {}", under_way.name);
            }
            report(&progress, |report| report.under_way = Some(under_way));
        });
        let _ = done.send(outcome);
    };
    let thread = std::thread::Builder::new().name("upgrade".into()).spawn(work);
    thread.map_err(|error| failed(Step::Stop, format!("start a thread: {error}")))?;
    outcome.await.unwrap_or_else(|_| Err(failed(Step::Stop, "its thread ended; see the log".to_owned())))
}

fn report(hands: &Hands, change: impl FnOnce(&mut UpgradeReport)) {
    hands.upgrade_report.send_if_modified(|report| report.as_mut().map(change).is_some());
}
