//! How long each phase of a tenure may last. A holder that is past its limit signs nothing and keeps a lease with which
//! somebody else could: it lets go where it can, and gives up the lead where it cannot.
//!
//! This decides about liveness only: who gives up the lead without a `Release` leaves all promises and the guard's
//! deadline as they are (`core/resigned.rs`).

use std::time::Duration;

use super::upgrading::InPlace;
use super::{ALL_UPGRADE_WITHIN, Reason, Stage, Tenure};
use crate::base::time::{BootTime, Now};
use crate::core::event::Action;
use crate::core::{Core, Settings};

/// For a `Claim` or a `Release` to be committed and applied, on slow disks too.
const COMMIT_MAX: Duration = Duration::from_secs(5);
/// After the guard's last confirmed deadline. One that works has confirmed a later one long before, or has killed the
/// node.
const GUARD_SILENT_MAX: Duration = Duration::from_millis(500);
/// For a killed node to be proven gone.
const KILL_MAX: Duration = Duration::from_secs(2);
/// Besides the time that the chain node is given to end: for what is asked of it before, and for links and files.
const AROUND_STOP_MAX: Duration = Duration::from_secs(5);

impl Tenure {
    /// When the present phase has lasted too long, and why that is said to be.
    fn limit(&self, settings: &Settings) -> Option<(BootTime, Reason)> {
        let after = |limit: Duration| Some((self.stage_since + limit, Reason::Stalled));
        let stop_max = settings.stop_timeout + AROUND_STOP_MAX;
        let of_stage = match self.stage {
            Stage::Claiming => after(COMMIT_MAX),
            Stage::Arming => Some((self.stage_since + settings.timing.lease(), Reason::GuardSilent)),
            Stage::Linking => after(stop_max),
            Stage::Upgrading if self.deactivates_to_upgrade() => after(stop_max),
            Stage::Stopping => match &self.ending {
                Some(ending) if ending.inactive => after(COMMIT_MAX),
                Some(ending) if ending.kill => after(KILL_MAX),
                Some(_) | None => after(stop_max),
            },
            // The chain decides how long it takes to settle, `activation_max` how long to activate.
            Stage::Settling | Stage::Activating | Stage::Active | Stage::Upgrading => None,
        };
        of_stage.into_iter().chain(self.guard_silent_at()).min_by_key(|(at, _)| *at)
    }

    /// The guard was asked for a later deadline than the last that it has confirmed, and that one has passed.
    fn guard_silent_at(&self) -> Option<(BootTime, Reason)> {
        let expected = !self.ending.as_ref().is_some_and(|ending| ending.inactive);
        let last = self.armed_until?.max(self.asked_since.filter(|_| expected)?);
        Some((last + GUARD_SILENT_MAX, Reason::GuardSilent))
    }

    /// Since when a chain node without the key has been changed for another binary, when that may take long.
    fn changes_binary_since(&self) -> Option<BootTime> {
        let keyless = matches!(self.in_place, Some(InPlace::Inactive { .. }));
        (self.stage == Stage::Upgrading && keyless).then_some(self.stage_since)
    }
}

impl Core {
    /// A phase that has lasted too long ends when somebody else is ready.
    pub(in crate::core) fn end_overlong_phase(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        if tenure.changes_binary_since().is_some_and(|since| now.boot >= since + ALL_UPGRADE_WITHIN)
            && self.best_target().is_some()
        {
            return self.let_go(now, Reason::Upgrade, None, out);
        }
        let Some((at, reason)) = tenure.limit(&self.settings) else { return };
        // Without a live lease this member keeps nobody from being elected, and what the guard has said may be unread.
        let live = self.deadline(now.boot).is_some_and(|deadline| now.boot < deadline);
        if now.boot < at || !live || self.best_target().is_none() {
            return;
        }
        self.host.distrust(now.boot);
        // The key was not given: there is nothing to wait for, and the release saves a lease.
        if matches!(tenure.stage, Stage::Arming | Stage::Settling) {
            self.let_go(now, reason, None, out);
        } else {
            self.resign(now, reason, out);
        }
    }

    pub(super) fn limit_wakeups(&self) -> impl Iterator<Item = BootTime> {
        let tenure = self.tenure.as_ref();
        let limit = tenure.and_then(|tenure| tenure.limit(&self.settings)).map(|(at, _)| at);
        let upgrade = tenure.and_then(Tenure::changes_binary_since).map(|since| since + ALL_UPGRADE_WITHIN);
        limit.into_iter().chain(upgrade)
    }
}
