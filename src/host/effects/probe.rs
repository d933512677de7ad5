//! Asks the chain node for its health, at the configured pace or, while a block is awaited, as fast as
//! blocks can come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::approvals::Told;
use super::descendants::Lookout;
use super::{Hands, owner};
use crate::base::guard_frame::NodeProcess;
use crate::base::time::BootTime;
use crate::core::Event;

/// Between two probes of a node that has not answered since it was started.
const STARTING: Duration = Duration::from_millis(25);
/// For long enough to be worth a word: most nodes answer sooner after their start.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Between two probes while a block or a change of key is awaited.
pub(super) const CLOSELY: Duration = Duration::from_millis(4);

pub(super) async fn watch(hands: Arc<Hands>) {
    let mut closely = hands.closely.subscribe();
    let mut failure_counts_at = Instant::now();
    let mut silence = Silence::default();
    let mut lookout = Lookout::default();
    let mut told = Told::nothing();
    loop {
        let Some(process) = owner::watch_until_running(&hands).await else { return };
        let pid = Some(process.pid);
        let watched_closely = *closely.borrow();
        match probe(&hands, &process, &mut lookout, &mut told, watched_closely).await {
            Ok(()) => hands.note_answer(process.pid),
            // A node that only starts is not an unhealthy one. It decides nothing, however long that takes.
            Err(reason) if *hands.answered.borrow() != pid => silence.tell(&hands, &process, &reason),
            // However closely the node is watched, it fails at the configured pace.
            Err(reason) if Instant::now() >= failure_counts_at => {
                failure_counts_at = Instant::now() + hands.probe_every;
                hands.core.step(Event::ProbeFailed { reason });
            }
            Err(_) => {}
        }
        let pause = match *closely.borrow_and_update() {
            true => CLOSELY,
            false if *hands.answered.borrow() == pid => hands.probe_every,
            false => STARTING.min(hands.probe_every),
        };
        tokio::select! {
            () = sleep(pause) => {}
            _ = closely.changed() => {}
        }
    }
}

/// What is said of a process that gives no answer, or a wrong one, since its start.
#[derive(Default)]
struct Silence {
    told_of: Option<u32>,
}

impl Silence {
    /// For people, once for each process that has had time to answer; its first answer takes it back.
    fn tell(&mut self, hands: &Hands, process: &NodeProcess, reason: &str) {
        let runs_for = BootTime::now().since(process.started_at);
        if runs_for > SILENT_AFTER && self.told_of.replace(process.pid) != Some(process.pid) {
            let told = format!("the chain node has run for {} s without a good answer: {reason}", runs_for.as_secs());
            warn!("{told}");
            hands.note(told);
        }
    }
}

/// One probe; an answer is reported to the core, unless the process that was asked is gone meanwhile: what it said of
/// its key is not true of the next.
async fn probe(
    hands: &Hands,
    process: &NodeProcess,
    lookout: &mut Lookout,
    told: &mut Told,
    closely: bool,
) -> Result<(), String> {
    let mut answer = owner::ask(hands).await;
    if let Ok(health) = &mut answer {
        health.approved = told.by(hands, process.pid, closely).await;
    }
    match answer {
        Ok(_) if !hands.runs_node(process.pid) => Err("the chain node ended meanwhile".to_owned()),
        Ok(health) => {
            debug!(height = health.height, "probed");
            lookout.look(hands, process).await;
            hands.seen.send_modify(|seen| seen.health = Some(health.clone()));
            hands.core.step(Event::Probed(health));
            Ok(())
        }
        Err(error) => {
            debug!("{error}");
            hands.seen.send_modify(|seen| seen.health = None);
            Err(error)
        }
    }
}
