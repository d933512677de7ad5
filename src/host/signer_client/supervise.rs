//! Keeps one signer running, and hands requests to it and answers back. It never waits for a request: whoever asks has
//! a limit of its own.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::process::{Heard, Process, Starter};
use super::{Answered, Asked, SignerError, SignerSettings, SignerState, first_words};
use crate::host::signer::frames::proto::Request;

/// A process that ran for so long is started again at once.
const SHORT_LIFE: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Ends, and the process with it, when nobody can ask any more.
pub(super) async fn run(settings: SignerSettings, mut queue: mpsc::Receiver<Asked>, state: watch::Sender<SignerState>) {
    let mut pauses = Pauses::default();
    let binary = settings.binary.clone();
    let starter = Starter::new(settings);
    loop {
        let began = Instant::now();
        let process = match &starter {
            Ok(starter) => starter.start().await,
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let reason = match process {
            Ok(process) => Serving::new(process).serve(&mut queue, &state).await,
            Err(error) => Some(SignerError::Gone(format!("start {}: {error}", binary.display()))),
        };
        let Some(reason) = reason else { return };
        let pause = pauses.after(began.elapsed());
        tracing::warn!(%reason, ?pause, "the signer is started again");
        if pause.is_zero() {
            continue;
        }
        state.send_replace(SignerState::Down { reason: reason.clone() });
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                asked = queue.recv() => match asked {
                    Some(asked) => drop(asked.answer.send(Err(reason.clone()))),
                    None => return,
                },
            }
        }
    }
}

/// One process, and who waits for its answers.
struct Serving {
    process: Process,
    waiting: HashMap<u64, oneshot::Sender<Answered>>,
    last_id: u64,
    /// Why it serves nobody: it says no more, or its first words were why it ends.
    fault: Option<SignerError>,
}

impl Serving {
    fn new(process: Process) -> Serving {
        Serving { process, waiting: HashMap::new(), last_id: 0, fault: None }
    }

    /// Until the process has ended, and why; `None` when nobody can ask any more.
    async fn serve(
        mut self,
        queue: &mut mpsc::Receiver<Asked>,
        state: &watch::Sender<SignerState>,
    ) -> Option<SignerError> {
        loop {
            tokio::select! {
                heard = self.process.heard.recv() => match heard {
                    Some(Heard::Answer(answer)) if answer.id == 0 => match first_words(answer, self.process.pid) {
                        Ok(running) => drop(state.send_replace(running)),
                        Err(fault) => self.fail(fault, state),
                    },
                    Some(Heard::Answer(answer)) => self.hand_on(answer.id, answer.answer),
                    Some(Heard::Silent(reason)) => self.fail(SignerError::Gone(reason), state),
                    Some(Heard::Ended(how)) => return Some(self.fault.unwrap_or(SignerError::Gone(how))),
                    None => return Some(SignerError::Gone("its end was not seen".into())),
                },
                asked = queue.recv() => self.ask(asked?),
            }
        }
    }

    fn ask(&mut self, Asked { ask, answer }: Asked) {
        // What is answered after all is nobody's any more.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        if let Some(fault) = &self.fault {
            let _ = answer.send(Err(fault.clone()));
            return;
        }
        self.last_id += 1;
        match self.process.requests.try_send(Request { id: self.last_id, ask: Some(ask) }) {
            Ok(()) => drop(self.waiting.insert(self.last_id, answer)),
            Err(_) => drop(answer.send(Err(SignerError::Gone("it reads no requests any more".into())))),
        }
    }

    fn hand_on(&mut self, id: u64, answer: Option<super::answer::Answer>) {
        // An answer that comes too late is nobody's.
        let Some(waiting) = self.waiting.remove(&id) else { return };
        let _ = waiting.send(match answer {
            Some(super::answer::Answer::Refused(refused)) => Err(refused.into()),
            Some(answer) => Ok(answer),
            None => Err(SignerError::Garbled("an answer without content".into())),
        });
    }

    /// The first reason counts.
    fn fail(&mut self, reason: SignerError, state: &watch::Sender<SignerState>) {
        let reason = self.fault.get_or_insert(reason).clone();
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.send(Err(reason.clone()));
        }
        state.send_replace(SignerState::Down { reason });
    }
}

/// How long to wait before the next start: not at all after the first end, and after a long life; else longer and
/// longer.
#[derive(Default)]
struct Pauses {
    last: Option<Duration>,
}

impl Pauses {
    fn after(&mut self, lived: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if lived < SHORT_LIFE => (last * 2).clamp(PAUSE_MIN, PAUSE_MAX),
            Some(_) | None => Duration::ZERO,
        };
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_each_short_life_and_is_over_after_a_long_one() {
        let mut pauses = Pauses::default();
        let mut after = |ms| pauses.after(Duration::from_millis(ms)).as_millis();
        assert_eq!([0; 9].map(&mut after), [0, 50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!([1000, 999, 5].map(after), [0, 50, 100]);
    }
}
