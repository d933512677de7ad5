//! Answers to operators: status and history from what is known here, a handover when it has ended, an order when
//! it is committed. What another member has to do is passed on to it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::report::Reporter;
use super::{handover, orders};
use crate::base::ids::NodeId;
use crate::base::time::BootTime;
use crate::cluster::wire::proto::{HandoverRequest, HandoverResponse};
use crate::core::Handover;
use crate::operator::admin::{Ask, Asker, NotDone};
use crate::operator::order::{Answer, Answers as _, Order, WantedHandover};
use crate::operator::relay::Relay;

pub(super) type HandoverAnswer = oneshot::Sender<Result<HandoverResponse, NotDone>>;

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
            moment: String::new(),
        });
        // An operator who went away misses nothing: the history has it too.
        let _ = waiting.send(answer.map_err(NotDone::Refused));
    }

    fn take(&self) -> Option<HandoverAnswer> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the place of who waits; `Err` gives the answer channel back when somebody waits already.
    pub(super) fn wait(&self, answer: HandoverAnswer) -> Result<(), HandoverAnswer> {
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

pub(super) async fn answer(reporter: Reporter, relay: Relay, answers: Answers, mut asks: mpsc::Receiver<Ask>) {
    while let Some(ask) = asks.recv().await {
        // Who asked may be gone by the time of an answer.
        match ask {
            Ask::Status(answer) => drop(answer.send(reporter.status())),
            Ask::History(answer) => drop(answer.send(reporter.history())),
            Ask::Order { order, from, mut answer } => {
                let (reporter, relay, answers) = (reporter.clone(), relay.clone(), answers.clone());
                tokio::spawn(async move {
                    let done = match order {
                        Order::Handover(request) => tokio::select! {
                            done = hand_over(&reporter, &relay, &answers, request, from) => done.map(Answer::Handover),
                            // An operator who went away misses nothing: the history has it too.
                            () = answer.closed() => return,
                        },
                        order => orders::carry_out(&reporter, &relay, order, from).await,
                    };
                    let _ = answer.send(done);
                });
            }
        }
    }
}

async fn hand_over(
    reporter: &Reporter,
    relay: &Relay,
    answers: &Answers,
    request: HandoverRequest,
    from: Asker,
) -> Result<HandoverResponse, NotDone> {
    let wanted = WantedHandover::read(request);
    match elsewhere(reporter, from) {
        Some(holder) => {
            let answer = relay.order(&holder, Order::Handover(wanted.request())).await?;
            HandoverResponse::of(answer).map_err(|other| NotDone::Refused(other.message().to_owned()))
        }
        None if wanted.dry_run => foreseen(reporter, wanted),
        None => handover::carry_out(reporter, answers, &wanted).await.map_err(NotDone::Refused),
    }
}

/// The holder, when it is another member that was not asked yet.
fn elsewhere(reporter: &Reporter, from: Asker) -> Option<NodeId> {
    let holder = reporter.core.read(|core, _| core.view().holder.clone());
    holder.filter(|holder| *holder != reporter.config.id && from == Asker::Operator)
}

fn foreseen(reporter: &Reporter, wanted: WantedHandover) -> Result<HandoverResponse, NotDone> {
    reporter.core.read(|core, _| {
        let to = core.handover_target(wanted.to).map_err(NotDone::Refused)?;
        let (from, epoch) = (reporter.config.id.to_string(), core.view().epoch.0);
        Ok(HandoverResponse { from, to: to.to_string(), epoch, ..HandoverResponse::default() })
    })
}
