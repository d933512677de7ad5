//! Standard error for threads that must not wait: it may be a file on a disk that hangs, or a pipe that nobody reads.
//! Lines go through a queue to a thread of their own; while that one waits, the queue fills, and what does not fit is
//! counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most.
const WAITING_MAX: usize = 4096;
/// For the last lines, at the end of the process.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);

enum Said {
    Line(Vec<u8>),
    /// To be answered once all before it is written.
    Flush(SyncSender<()>),
}

#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Said>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// # Errors
    /// No thread could be started.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<Lines> {
        let (queue, said) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        thread::Builder::new().name("log".into()).spawn(move || write_all(out, &said, &lost))?;
        Ok(Lines { queue, dropped })
    }

    /// What was said before is written, or does not get written within a second.
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Said::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_LINES_MAX);
        }
    }
}

fn write_all(mut out: impl Write, said: &Receiver<Said>, dropped: &AtomicU64) {
    while let Ok(said) = said.recv() {
        // A line that cannot be written is lost, as it always was.
        match said {
            Said::Line(line) => drop(out.write_all(&line)),
            Said::Flush(done) => drop((out.flush(), done.try_send(()))),
        }
        match dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => drop(writeln!(out, "{lost} lines of the log were dropped here: nobody took them in time")),
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

/// A call is a line.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.queue.try_send(Said::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    /// Takes nothing before it is told to.
    struct Stuck {
        go_on: Option<Receiver<()>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(go_on) = self.go_on.take() {
                let _ = go_on.recv();
            }
            self.taken.lock().expect("whole").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_takes_holds_up_nobody_and_says_later_what_is_missing() {
        let (go, go_on) = channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::to(Stuck { go_on: Some(go_on), taken: taken.clone() }).expect("a thread");
        let said = 3 * WAITING_MAX;
        for number in 0..said {
            (&lines).write_all(format!("{number}\n").as_bytes()).expect("never an error");
        }
        go.send(()).expect("it waits");
        let written = || String::from_utf8(taken.lock().expect("whole").clone()).expect("text");
        let lost = |text: &str| {
            let line = text.lines().find(|line| line.ends_with("in time")).map(str::to_owned);
            line.and_then(|line| line.split(' ').next()?.parse::<usize>().ok())
        };
        // The line about them comes after the first that was taken.
        while lost(&written()).is_none() {
            thread::yield_now();
        }
        while {
            lines.flush();
            written().lines().count()
        } < said - lost(&written()).unwrap_or(0) + 1
        {}
        let text = written();
        assert!(text.starts_with("0\n"), "{text}");
        assert_eq!(text.lines().count(), said - lost(&text).expect("a number") + 1);
    }
}
