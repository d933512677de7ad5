//! The end of a guard and its chain node, for a host on which no coordinator runs: asked for first, enforced if need
//! be, and proven. Nothing here can make a node live longer: no deadline is moved, and no guard is started.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::start::{self, Greeted, socket_error};
use super::sweep::{Held, carries_marker, sweep};
use super::{DEATH_BOUND, GuardError, GuardSettings, SILENCE_BOUND, canonical};
use crate::base::guard_frame::{FromGuard, ToGuard, encode};
use crate::base::processes;

/// What ran and does not run any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    pub guard: Option<u32>,
    /// As far as the guard told.
    pub node: Option<u32>,
    /// What had to be killed after the end of the guard.
    pub strays: Vec<u32>,
}

/// Afterwards no guard serves the socket and no chain node of it runs. The node gets SIGTERM, and SIGKILL after
/// `stop_timeout` or at the guard's own deadline; all of it at once when the guard does not answer.
///
/// # Errors
/// Nothing is proven then. After `Refused` the guard serves another member and was left alone.
pub async fn end_all(settings: &GuardSettings, stop_timeout: Duration) -> Result<Ended, GuardError> {
    let socket = canonical(&settings.socket).map_err(|e| socket_error(&settings.socket, e))?;
    let mut ended = Ended::default();
    let mut node = None;
    if let Some(running) = start::connect(&socket).await? {
        let pid = start::peer(&running).map_err(|e| socket_error(&socket, e))?;
        ended.guard = Some(pid);
        match start::greet(settings, &socket, running).await {
            Ok(Some(greeted)) => {
                ended.node = greeted.attached.node.as_ref().map(|node| node.pid);
                let ours = |node: &u32| {
                    processes::stat(*node).is_some_and(|stat| stat.parent == pid)
                        || carries_marker(*node, &socket) == Some(true)
                };
                node = ended.node.filter(ours).and_then(|node| Held::open(node).ok()?);
                stop(greeted, stop_timeout).await;
            }
            Err(refused @ GuardError::Refused { .. }) => return Err(refused),
            // One that hangs, fails or speaks another version is ended all the same, and the kernel ends its node.
            Ok(None) | Err(_) => {}
        }
        start::end(&socket, pid).await?;
    }
    let swept = socket.clone();
    let sweeping = spawn_blocking(move || sweep(&swept, node.as_ref(), DEATH_BOUND));
    ended.strays = sweeping.await.map_err(|e| socket_error(&socket, e))??;
    Ok(ended)
}

/// Asks the guard to end its node, then itself. What it does not do is done to it.
async fn stop(mut greeted: Greeted, stop_timeout: Duration) {
    let gone = async {
        if let Some(node) = greeted.attached.node.clone() {
            greeted.connection.write_all(&encode(&ToGuard::Stop { timeout: stop_timeout }).ok()?).await.ok()?;
            while !matches!(next(&mut greeted).await?, FromGuard::Exited { pid, .. } if pid == node.pid) {}
        }
        Some(())
    };
    if timeout(stop_timeout + DEATH_BOUND, gone).await.ok().flatten().is_none() {
        return;
    }
    let quit = async {
        greeted.connection.write_all(&encode(&ToGuard::Quit).ok()?).await.ok()?;
        while next(&mut greeted).await.is_some() {}
        Some(())
    };
    // It puts the links into standby as it goes.
    let _ = timeout(SILENCE_BOUND, quit).await;
}

/// `None` at the end of the connection.
async fn next(greeted: &mut Greeted) -> Option<FromGuard> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(frame) = greeted.buffer.take::<FromGuard>().ok()? {
            return Some(frame);
        }
        match greeted.connection.read(&mut chunk).await.ok()? {
            0 => return None,
            n => greeted.buffer.push(&chunk[..n]),
        }
    }
}
