//! Answers to operators: status and history from what is known here, a handover when it has ended.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::report::Reporter;
use crate::admin::Ask;
use crate::core::{Event, Handover};
use crate::ids::NodeId;
use crate::time::BootTime;
use crate::wire::proto::HandoverResponse;

type HandoverAnswer = oneshot::Sender<Result<HandoverResponse, String>>;

/// The operator who waits for a handover, if one does.
#[derive(Clone, Default)]
pub(super) struct Answers {
    waiting: Arc<Mutex<Option<HandoverAnswer>>>,
}

impl Answers {
    pub(super) fn handover_ended(&self, me: &NodeId, ended: Result<Handover, String>) {
        let Some(waiting) = self.take() else { return };
        let answer = ended.map(|done| HandoverResponse {
            from: me.to_string(),
            to: done.to.to_string(),
            epoch: done.epoch.0,
            took_ns: BootTime::now().since(done.asked_at).as_nanos() as u64,
        });
        // An operator who went away misses nothing: the history has it too.
        let _ = waiting.send(answer);
    }

    fn take(&self) -> Option<HandoverAnswer> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the place of who waits; `Err` gives the answer channel back when somebody waits already.
    fn wait(&self, answer: HandoverAnswer) -> Result<(), HandoverAnswer> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &*waiting {
            Some(other) if !other.is_closed() => Err(answer),
            Some(_) | None => {
                *waiting = Some(answer);
                Ok(())
            }
        }
    }
}

pub(super) async fn answer(reporter: Reporter, answers: Answers, mut asks: mpsc::Receiver<Ask>) {
    while let Some(ask) = asks.recv().await {
        match ask {
            // Who asked may be gone by now.
            Ask::Status(answer) => drop(answer.send(reporter.status())),
            Ask::History(answer) => drop(answer.send(reporter.history())),
            Ask::Handover { to, answer } => match answers.wait(answer) {
                Ok(()) => reporter.core.step(Event::HandoverWanted { to, timeout: std::time::Duration::from_secs(60) }),
                Err(answer) => drop(answer.send(Err("another handover is under way".into()))),
            },
        }
    }
}
