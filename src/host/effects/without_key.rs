//! The orders about the validator's key where no chain node ever has it (`custody = "signer"`): each is done at once.
//!
//! Invariant: what is signed is decided by the log alone (`core/agreed/sign_log.rs`). So the guard is never armed, and
//! its deadline ends no node; an order to let go touches no node either, and what it proves holds at any time.

use std::sync::Arc;

use tracing::info;

use super::node::Job;
use super::{Effects, Hands};
use crate::core::{Action, Event};

impl Effects {
    /// Gives back what is no order about the key.
    pub(super) fn perform_without_key(&self, action: Action) -> Option<Action> {
        let core = &self.hands.core;
        match action {
            Action::Arm { epoch, deadline } => core.step(Event::GuardArmed { epoch, deadline }),
            Action::Disarm { epoch: _ } => {}
            Action::LinkValidating { epoch, floor: _ } => core.step(Event::Linked { epoch }),
            Action::Activate { epoch } => {
                if self.hands.running_pid().is_none() {
                    self.queue(Job::StartStandby);
                }
                let hands = self.hands.clone();
                tokio::spawn(async move {
                    await_answer(&hands).await;
                    info!(epoch = epoch.0, "this host's chain node is the one that is answered");
                    hands.core.step(Event::Activated { epoch });
                });
            }
            Action::Deactivate { kill: _ } => core.step(Event::Inactive { last_signed: None }),
            other => return Some(other),
        }
        None
    }
}

/// Returns once the node that runs has answered a probe. One that is started for a tenure that is over by then answers
/// too, and the core knows that it asked for nothing.
async fn await_answer(hands: &Arc<Hands>) {
    let mut answered = hands.answered.subscribe();
    // Fails only at the end of all.
    let _ = answered.wait_for(|pid| pid.is_some_and(|pid| hands.runs_node(pid))).await;
}
