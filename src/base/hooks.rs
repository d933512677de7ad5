//! The words of hooks, commands of the operator's that are told what has happened. `config` reads the commands,
//! `coordinator` says when, `host::hooks` runs them, `operator::metrics` counts.

/// Variables of a hook whose names begin like a section of the configuration's, of which they are no keys.
pub const CLUSTER_VARIABLE: &str = "BATON_CLUSTER";
pub const MEMBER_VARIABLE: &str = "BATON_MEMBER";

/// What a hook can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookEvent {
    /// This host has become Active.
    Holder,
    /// This host is not the holder: since a moment ago, or as its coordinator begins.
    Standby,
    /// This member reaches no majority any more.
    LostQuorum,
    /// The guard ended this host's chain node at its deadline.
    Fenced,
}

impl HookEvent {
    pub const ALL: [HookEvent; 4] = [HookEvent::Holder, HookEvent::Standby, HookEvent::LostQuorum, HookEvent::Fenced];

    /// As in the configuration, the metrics and the environment of a hook.
    pub fn as_str(self) -> &'static str {
        match self {
            HookEvent::Holder => "on_holder",
            HookEvent::Standby => "on_standby",
            HookEvent::LostQuorum => "on_lost_quorum",
            HookEvent::Fenced => "on_fenced",
        }
    }
}

/// What became of a run of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    Ok,
    /// Another exit code than 0, or a signal.
    Failed,
    /// It was killed after `hooks.timeout`.
    TimedOut,
    /// It could not be executed.
    NotStarted,
    /// Something newer happened before its turn came.
    Superseded,
}

impl HookOutcome {
    pub const ALL: [HookOutcome; 5] =
        [HookOutcome::Ok, HookOutcome::Failed, HookOutcome::TimedOut, HookOutcome::NotStarted, HookOutcome::Superseded];

    pub fn as_str(self) -> &'static str {
        match self {
            HookOutcome::Ok => "ok",
            HookOutcome::Failed => "failed",
            HookOutcome::TimedOut => "timeout",
            HookOutcome::NotStarted => "not-started",
            HookOutcome::Superseded => "superseded",
        }
    }
}
