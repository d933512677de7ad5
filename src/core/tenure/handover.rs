//! An operator's handover: refused in words, or begun and answered when it has ended.

use std::time::Duration;

use super::{AskedHandover, Reason, Stage, Tenure};
use crate::base::ids::{Epoch, NodeId};
use crate::base::time::Now;
use crate::core::agreed::replicated::Applied;
use crate::core::event::{Action, Handover};
use crate::core::{Core, Peer};

impl Core {
    pub(in crate::core) fn note_handover_wanted(
        &mut self,
        now: Now,
        to: Option<NodeId>,
        timeout: Duration,
        reason: Reason,
        out: &mut Vec<Action>,
    ) {
        match self.handover_target(to) {
            Ok(target) => {
                let epoch = self.view.epoch;
                self.asked =
                    Some(AskedHandover { to: target.clone(), epoch, claimed: false, asked_at: now.boot, timeout });
                self.let_go(now, reason, Some(target), out);
            }
            Err(refusal) => out.push(Action::AnswerHandover(Err(refusal))),
        }
    }

    /// To whom the baton would be handed over now. A pause is no obstacle: this is the operator's own word.
    ///
    /// # Errors
    /// Why a handover would be refused.
    pub fn handover_target(&self, to: Option<NodeId>) -> Result<NodeId, String> {
        if !self.may_hand_over() {
            let me = &self.settings.me;
            return Err(match &self.view.holder {
                Some(holder) if holder == me && self.stage() == Some(Stage::Upgrading) => {
                    format!("{me} is being upgraded; try again later")
                }
                Some(holder) if holder != me => format!("{me} does not hold the baton; ask {holder}, who does"),
                Some(_) => format!("{me} is taking or leaving the baton; try again in a moment"),
                None => "nobody holds the baton; there is nothing to hand over".into(),
            });
        }
        let Some(to) = to else {
            return self.best_for_operator().cloned().ok_or_else(|| self.nobody_can_take_it());
        };
        if to == self.settings.me {
            return Err(format!("{to} holds the baton already"));
        }
        if self.view.orders.is_in_maintenance(&to) {
            return Err(format!("{to} is in maintenance; `baton maintenance off --member {to}` ends it"));
        }
        if self.configured.contains_key(&to) && !self.stays_voter(&to) {
            return Err(format!("{to} has no vote; `baton member list` shows who has one"));
        }
        match self.peers.get(&to) {
            Some(peer) if peer.ready && peer.reachable => Ok(to),
            Some(Peer { reachable: true, not_ready_because: reason, .. }) if reason.is_empty() => {
                Err(format!("{to} is not ready to take the baton, and does not say why; see `baton status`"))
            }
            Some(Peer { reachable: true, not_ready_because: reason, .. }) => {
                Err(format!("{to} is not ready to take the baton: {reason}"))
            }
            Some(_) => Err(format!("{to} cannot be reached from here")),
            None if self.stays_voter(&to) => Err(format!("{to} has not been heard of yet")),
            None => Err(format!("{to} is not a member of this cluster")),
        }
    }

    /// Of every other member, why not.
    fn nobody_can_take_it(&self) -> String {
        let others = self.configured.keys().filter(|id| **id != self.settings.me);
        let refusals: Vec<String> = others.filter_map(|id| self.handover_target(Some(id.clone())).err()).collect();
        if refusals.is_empty() {
            return format!("{} is the only member: nobody else can take the baton", self.settings.me);
        }
        format!("no other member can take the baton: {}", refusals.join("; "))
    }

    /// Active, or without the key and with nothing to wait for.
    fn may_hand_over(&self) -> bool {
        match self.stage() {
            Some(Stage::Active | Stage::Settling) => true,
            Some(Stage::Upgrading) => !self.tenure.as_ref().is_some_and(Tenure::may_key_come),
            Some(Stage::Claiming | Stage::Arming | Stage::Linking | Stage::Activating | Stage::Stopping) | None => {
                false
            }
        }
    }

    /// Whoever takes the baton may still fail to become active.
    pub(super) fn note_claim_of(&mut self, member: &NodeId, epoch: Epoch, outcome: &Applied) {
        if let (Some(asked), Applied::Claimed { .. }) = (&mut self.asked, outcome) {
            asked.claimed |= asked.to == *member && epoch > asked.epoch;
        }
    }

    pub(super) fn answer_handover(&mut self, epoch: Epoch, out: &mut Vec<Action>) {
        let Some(asked) = self.asked.take_if(|asked| epoch > asked.epoch) else { return };
        out.push(Action::AnswerHandover(match &self.view.holder {
            Some(holder) if *holder == asked.to => Ok(Handover { to: asked.to, epoch, asked_at: asked.asked_at }),
            Some(holder) if asked.claimed => {
                Err(format!("{} took the baton and did not become active; {holder} holds it now", asked.to))
            }
            Some(holder) => Err(format!("{} did not take the baton; {holder} holds it now", asked.to)),
            None => Err(format!("{} took the baton and let it go again", asked.to)),
        }));
    }

    /// The operator is answered in time, also by a member that leads and holds nothing any more.
    pub(in crate::core) fn give_up_on_handover(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(asked) = self.asked.take_if(|asked| now.boot.since(asked.asked_at) >= asked.timeout) {
            let AskedHandover { to, timeout, .. } = asked;
            let unready = self.peers.get(&to).filter(|peer| peer.reachable).map(|peer| peer.not_ready_because.as_str());
            let because = unready.filter(|reason| !reason.is_empty()).map(|reason| format!(": {reason}"));
            out.push(Action::AnswerHandover(Err(format!(
                "{to} is not active after {timeout:?}{}; should it fail, the next ready member takes the baton; see \
                 `baton status`",
                because.unwrap_or_default()
            ))));
        }
    }
}
