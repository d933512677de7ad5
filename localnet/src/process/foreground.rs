//! Commands that bring up a network of their own: the work is done in a fresh folder under a keeper, and what
//! it started ends with it, whatever ends the command. Called by `main`.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::keeper::Keeper;
use crate::process::launch;

/// What becomes of the network when a foreground command has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    Sweep,
    Leave,
}

/// The user or the system ended the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Does `work` with a fresh network folder under a keeper. A failure, Ctrl-C, SIGTERM or SIGHUP ends
/// all that was started before this returns; SIGKILL leaves that to the keeper.
///
/// # Errors
/// Those of the work; [`Interrupted`] when a signal came first.
pub fn foreground<T: Send + 'static>(
    dir: &Path,
    afterwards: Afterwards,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let dir = launch::fresh_dir(dir)?;
    let keeper = Keeper::start(&std::env::current_exe().context("find the own executable")?, &dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let outcome = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let work = tokio::task::spawn_blocking(move || work(&dir));
        tokio::select! {
            done = work => done.context("the command panicked")?,
            _ = interrupt.recv() => Err(Interrupted.into()),
            _ = terminate.recv() => Err(Interrupted.into()),
            _ = hangup.recv() => Err(Interrupted.into()),
        }
    });
    // An interrupted command may still be at work in its thread: it can start nothing any more.
    runtime.shutdown_background();
    match outcome {
        Ok(done) if afterwards == Afterwards::Leave => keeper.release().map(|()| done),
        Ok(done) => keeper.sweep().map(|()| done),
        Err(error) => {
            launch::close();
            keeper.sweep()?;
            Err(error)
        }
    }
}
