//! The metric of the operator's hooks: a family of its own, absent on a host that has none.

use prometheus::{IntCounterVec, Registry};

use super::counters;
use crate::base::hooks::{HookEvent, HookOutcome};

pub(super) struct OfHooks {
    runs: IntCounterVec,
}

impl OfHooks {
    pub(super) fn new(r: &Registry) -> OfHooks {
        let runs = "Hooks that were to run, by what became of it, count since start";
        OfHooks { runs: counters(r, "baton_hook_runs_total", runs, &["hook", "outcome"]) }
    }

    pub(super) fn show_all(&self, hooks: impl Iterator<Item = HookEvent>) {
        for hook in hooks {
            for outcome in HookOutcome::ALL {
                self.runs.with_label_values(&[hook.as_str(), outcome.as_str()]).inc_by(0);
            }
        }
    }

    pub(super) fn ended(&self, hook: HookEvent, outcome: HookOutcome) {
        self.runs.with_label_values(&[hook.as_str(), outcome.as_str()]).inc();
    }
}
