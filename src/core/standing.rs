//! Where a member stands, as operators are shown it, and why: for the line that is logged when it changes. Decides
//! nothing.

use std::fmt;

use super::{Core, Stage, State};
use crate::base::ids::{Epoch, Term};
use crate::base::time::BootTime;

/// Two are equal when an operator would see the same state and phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    pub stage: Option<Stage>,
}

impl fmt::Display for Standing {
    /// `Voting`, or with the phase `Validating/Active`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            Some(stage) => write!(f, "{}/{}", self.state.as_str(), stage.as_str()),
            None => f.write_str(self.state.as_str()),
        }
    }
}

impl Core {
    pub fn standing(&self, now: BootTime) -> Standing {
        Standing { state: self.state(now), stage: self.stage() }
    }

    /// The epoch of this member's tenure, also before its claim is committed; else the newest known epoch.
    pub fn epoch(&self) -> Epoch {
        self.tenure.as_ref().map_or(self.view.epoch, |tenure| tenure.epoch())
    }

    /// The newest that this member voted in or followed.
    pub fn term(&self) -> Term {
        self.gate.vote_term()
    }

    /// Why it stands where it does, in words for the log.
    pub fn why_standing(&self, now: BootTime) -> String {
        let not_ready = || self.not_ready(now).map(|reason| reason.to_string());
        match (self.stage(), self.state(now)) {
            (Some(Stage::Claiming), _) => format!("it leads term {}", self.term()),
            (Some(Stage::Arming), _) => "its claim is committed".to_owned(),
            (Some(Stage::Settling), _) => "the guard is armed".to_owned(),
            (Some(Stage::Linking), _) => "the sign floor is met".to_owned(),
            (Some(Stage::Activating), _) => "the links are validating".to_owned(),
            (Some(Stage::Active), _) => "the chain node runs with the key".to_owned(),
            (Some(Stage::Upgrading), _) => not_ready().unwrap_or_else(|| "the new binary is in its place".to_owned()),
            (Some(Stage::Stopping), _) => {
                let reason = self.tenure.as_ref().and_then(|tenure| tenure.ending());
                reason.map_or("", |reason| reason.as_str()).to_owned()
            }
            (None, State::Voting | State::Registering) if self.resigned_for().is_some() => {
                let reason = self.resigned_for().map_or("", |reason| reason.as_str());
                format!("it gave up the lead of term {}: {reason}", self.term())
            }
            (None, State::Shutdown) => "the coordinator was asked to stop".to_owned(),
            (None, State::Voting) => match self.gate.loyal_to(now).filter(|_| self.leads().is_none()) {
                Some(leader) => format!("it follows {leader}"),
                None => format!("it leads term {}", self.term()),
            },
            (None, State::Startup) => not_ready().unwrap_or_else(|| "the chain node has not answered yet".to_owned()),
            (None, State::Syncing) => not_ready().unwrap_or_else(|| "the chain node is syncing".to_owned()),
            (None, State::Registering | State::Validating) => {
                let unfit = not_ready().filter(|_| self.host.runs_node());
                unfit.unwrap_or_else(|| "no leader is heard".to_owned())
            }
        }
    }
}
