//! Performs the core's actions: what is about this host through [`Effects`], the rest through Raft.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::answers::Answers;
use super::proposals::{self, Proposals};
use crate::base::ids::NodeId;
use crate::base::time::{BootTime, WallTime};
use crate::cluster::raft::Consensus;
use crate::core::agreed::replicated::{Baton, Command};
use crate::core::{Action, Event};
use crate::core_handle::SharedCore;
use crate::host::effects::Effects;

/// Pause before the core hears of a failed claim, which it repeats. openraft takes none before it has seen
/// the acknowledgement by which we know of our lease.
const CLAIM_AGAIN: Duration = Duration::from_millis(2);
/// The same for every other proposal.
const PROPOSE_AGAIN: Duration = Duration::from_millis(200);

pub(super) struct Performer {
    pub me: NodeId,
    pub core: Arc<SharedCore>,
    pub consensus: Consensus,
    pub effects: Option<Effects>,
    pub answers: Answers,
    pub proposals: Arc<Mutex<Proposals>>,
}

impl Performer {
    /// Ends with [`Action::Finish`]; whether the chain node is to end too.
    pub(super) async fn perform_all(&self, mut actions: mpsc::UnboundedReceiver<Action>) -> bool {
        while let Some(action) = actions.recv().await {
            let left = match &self.effects {
                Some(effects) => effects.perform(action),
                None => Some(action),
            };
            match left {
                None => {}
                Some(Action::Finish { stop_node }) => return stop_node,
                Some(action) => self.perform(action),
            }
        }
        true
    }

    fn perform(&self, action: Action) {
        let at = WallTime::now();
        match action {
            Action::ProposeClaim { epoch, reason } => {
                self.propose(Baton::Claim { epoch, member: self.me.clone(), reason, at });
            }
            Action::ProposeRelease { epoch, last_signed, reason, to } => {
                self.propose(Baton::Release { epoch, last_signed, reason, at, to });
            }
            Action::ProposeActivated { epoch, floor, began_at } => {
                let took = BootTime::now().since(began_at);
                self.propose(Baton::Activated { epoch, at, floor, took });
            }
            Action::Campaign => {
                let consensus = self.consensus.clone();
                tokio::spawn(async move { consensus.campaign().await });
            }
            Action::TransferLead { to } => {
                info!(%to, epoch = self.core.read(|core, _| core.epoch().0), "offering the lead");
                let consensus = self.consensus.clone();
                tokio::spawn(async move { consensus.transfer_lead(to).await });
            }
            Action::AnswerHandover(answer) => self.answers.handover_ended(&self.me, answer),
            Action::StartStandby
            | Action::Arm { .. }
            | Action::Disarm { .. }
            | Action::LinkValidating { .. }
            | Action::Activate { .. }
            | Action::Deactivate { .. }
            | Action::WatchChain { .. }
            | Action::Upgrade { .. }
            | Action::EndGuard
            | Action::Finish { .. } => error!(?action, "a host without a chain node was asked for this"),
        }
    }

    fn propose(&self, command: Baton) {
        let epoch = command.epoch().0;
        if lock(&self.proposals).begins(&command) {
            info!(epoch, "proposing {command}");
        }
        let (consensus, core, proposals) = (self.consensus.clone(), self.core.clone(), self.proposals.clone());
        let again = if matches!(command, Baton::Claim { .. }) { CLAIM_AGAIN } else { PROPOSE_AGAIN };
        tokio::spawn(async move {
            let Err(reason) = consensus.propose(Command::Baton(command.clone())).await else {
                if let Some(line) = lock(&proposals).committed(&command, BootTime::now()) {
                    info!(epoch, "{line}");
                }
                return;
            };
            let (times, is_new) = lock(&proposals).failed(&command, BootTime::now());
            if is_new {
                warn!("{reason}");
            }
            sleep(again).await;
            core.step(Event::ProposalFailed { reason });
            sleep(proposals::GIVEN_UP_AFTER).await;
            if let Some(line) = lock(&proposals).given_up(&command, times, BootTime::now()) {
                info!(epoch, "{line}");
            }
        });
    }

    /// Leaves no chain node behind, or a standby.
    pub(super) async fn leave(&self, stop_node: bool) {
        match &self.effects {
            Some(effects) if stop_node => effects.stop(false).await,
            Some(effects) => effects.leave_standby().await,
            None => {}
        }
    }

    /// Leaves no chain node behind and waits for none to end by itself.
    pub(super) async fn leave_at_once(&self) {
        if let Some(effects) = &self.effects {
            effects.stop(true).await;
        }
    }
}

/// No code panics while it holds it.
fn lock(proposals: &Mutex<Proposals>) -> MutexGuard<'_, Proposals> {
    proposals.lock().unwrap_or_else(PoisonError::into_inner)
}
