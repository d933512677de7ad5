//! The signals that end a command, for those that have something to say or to put back before they end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// From its making on, SIGINT, SIGTERM and SIGHUP end nothing by themselves.
pub(super) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    pub(super) fn catch() -> io::Result<Ends> {
        Ok(Ends {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns the next one; none is lost when it is given up waiting for.
    pub(super) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        }
    }
}

/// Ends this process as `signal` would have done, had nobody caught it.
pub(super) fn end_by(signal: SignalKind) {
    // It does not return for a signal that ends a process.
    let _ = signal_hook::low_level::emulate_default_handler(signal.as_raw_value());
}
