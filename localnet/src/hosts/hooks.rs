//! The `[hooks]` of a host: commands that behave as badly as the run asks for, to show that no move waits for them.

use std::fmt::Write;

use baton::base::hooks::HookEvent;
use baton::base::ids::Role;

use super::quoted;
use crate::net::HookKind;

fn script(kind: HookKind) -> Option<&'static str> {
    match kind {
        HookKind::None => None,
        HookKind::Hang => Some("exec sleep 600"),
        HookKind::Flood => Some("exec yes flood"),
        HookKind::Fork => Some("for n in $(seq 100); do sleep 60 & done; while :; do (:); done"),
        HookKind::Crash => Some("kill -SEGV $$"),
    }
}

/// Empty without hooks. An arbiter is told of a lost quorum alone.
pub(super) fn section(kind: HookKind, role: Role) -> String {
    let Some(script) = script(kind) else { return String::new() };
    let mut text = String::from("\n[hooks]\n");
    for event in HookEvent::ALL.into_iter().filter(|event| role == Role::Validator || *event == HookEvent::LostQuorum) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} = {}", event.as_str(), quoted(["sh", "-c", script]));
    }
    text
}
