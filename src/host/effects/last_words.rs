//! What a chain node wrote last that ended soon after its start, for people: mostly why. In the coordinator's log, and
//! the last line as the member's note. It decides nothing, and nothing waits for it but the next start, for as long as
//! a look at the log's length takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::{Hands, NodeSeen};
use crate::base::guard_frame::ExitStatus;
use crate::base::time::BootTime;
use crate::host::chain::last_lines;

/// A node that ran for longer has written of other things since.
const SOON: Duration = Duration::from_secs(10);
const LINES: usize = 10;
/// A disk that hangs keeps no node from being started.
const LENGTH_MAX: Duration = Duration::from_millis(500);

/// What comes after this in the log is of the node that is about to be started.
pub(super) async fn before_start(hands: &Hands) {
    let Some(file) = log_file(hands) else { return };
    let length = spawn_blocking(move || std::fs::metadata(file).map_or(0, |found| found.len()));
    if let Ok(Ok(length)) = timeout(LENGTH_MAX, length).await {
        hands.log_before_start.store(length, Ordering::Relaxed);
    }
}

/// To be called when the running node has ended by itself, and before it is forgotten.
pub(super) fn tell(hands: &Arc<Hands>, status: ExitStatus) {
    let ran = match &*hands.node.borrow() {
        NodeSeen::Running(process) => BootTime::now().since(process.started_at),
        NodeSeen::Unknown | NodeSeen::Stopped | NodeSeen::Refused(_) => return,
    };
    if ran < SOON {
        let from = hands.log_before_start.load(Ordering::Relaxed);
        tokio::spawn(tell_lines(hands.clone(), from, ended(status, ran)));
    }
}

async fn tell_lines(hands: Arc<Hands>, from: u64, ended: String) {
    // Its last line may be the end of a longer story.
    let ended = match hands.chain.broken_file().await {
        Some(file) => format!("{ended}; {file}"),
        None => ended,
    };
    let Some(file) = log_file(&hands) else {
        return show(&hands, format!("{ended}; set chain.log, and its last line stands here"));
    };
    let shown = file.display().to_string();
    let told = match spawn_blocking(move || last_lines(&file, from, LINES)).await {
        Ok(Ok(lines)) => {
            lines.iter().for_each(|line| warn!("the chain node's last lines: {line}"));
            match lines.last() {
                Some(last) => format!("{ended}; its last line: {last}"),
                None => format!("{ended} and wrote nothing to {shown}"),
            }
        }
        Ok(Err(error)) => format!("{ended}; {shown}: {error}"),
        Err(error) => format!("{ended}; {shown}: {error}"),
    };
    show(&hands, told);
}

/// Unless the next one does well already.
fn show(hands: &Hands, told: String) {
    warn!("{told}");
    if hands.answered_pid().is_none() {
        hands.note(told);
    }
}

fn ended(status: ExitStatus, ran: Duration) -> String {
    let how = match status {
        ExitStatus::Code(code) => format!("with exit code {code}"),
        ExitStatus::Signal(signal) => format!("by signal {signal}"),
    };
    format!("the chain node ended {how}, {:.1} s after its start", ran.as_secs_f64())
}

fn log_file(hands: &Hands) -> Option<PathBuf> {
    hands.chain.node_spec().log
}
