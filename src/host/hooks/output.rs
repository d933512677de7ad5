//! What a hook says: its first lines go into the log, the rest is read and counted, so that it never stands still for want
//! of a reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::base::hooks::HookEvent;

/// In the log, of one run.
pub(super) const BYTES_MAX: usize = 8 * 1024;
pub(super) const LINES_MAX: usize = 64;
/// As much as a pipe holds unless told otherwise.
const CHUNK: usize = 64 * 1024;

pub(super) struct Output {
    event: HookEvent,
    pipe: OwnedFd,
    /// Until nobody has the other end any more.
    is_open: bool,
    /// The beginning of a line.
    line: Vec<u8>,
    logged_bytes: usize,
    logged_lines: usize,
    dropped_bytes: u64,
}

impl Output {
    /// Also the end for the hook.
    pub(super) fn new(event: HookEvent) -> io::Result<(Output, OwnedFd)> {
        let (pipe, hook_end) = pipe_with(PipeFlags::CLOEXEC)?;
        // Ours alone: a hook expects an end that waits.
        fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        let output =
            Output { event, pipe, is_open: true, line: Vec::new(), logged_bytes: 0, logged_lines: 0, dropped_bytes: 0 };
        Ok((output, hook_end))
    }

    /// To be awaited: there is more for the log, or the end of it.
    pub(super) fn wanted(&self) -> Option<BorrowedFd<'_>> {
        (self.is_open && !self.is_full()).then(|| self.pipe.as_fd())
    }

    /// It still says something, which nobody reads.
    pub(super) fn is_to_be_dropped(&self) -> bool {
        self.is_open && self.is_full()
    }

    fn is_full(&self) -> bool {
        self.logged_lines >= LINES_MAX || self.logged_bytes >= BYTES_MAX
    }

    /// Takes what is there, at most what a pipe holds. Waits for nothing.
    pub(super) fn take(&mut self) {
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(&self.pipe, &mut buffer) {
            Ok(0) => self.is_open = false,
            Ok(read) => self.add(&buffer[..read]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.is_open = false,
        }
    }

    /// After the last of it.
    pub(super) fn end(mut self) {
        self.take();
        self.log_line();
        if self.dropped_bytes > 0 {
            let hook = self.event.as_str();
            tracing::info!(hook, bytes = self.dropped_bytes, "a hook said more, which is not logged");
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.is_full() {
                self.dropped_bytes += (bytes.len() - at) as u64;
                return;
            }
            match byte {
                b'\n' => self.log_line(),
                byte => {
                    self.line.push(*byte);
                    self.logged_bytes += 1;
                }
            }
        }
    }

    fn log_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line).trim_end().replace(char::is_control, " ");
        if !line.is_empty() {
            self.logged_lines += 1;
            tracing::info!(hook = self.event.as_str(), line, "a hook says");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(said: &[u8]) -> Output {
        let (mut output, _end) = Output::new(HookEvent::Holder).expect("a pipe");
        output.add(said);
        output
    }

    #[test]
    fn lines_and_bytes_beyond_the_bound_are_counted_and_not_kept() {
        let lines = after("x\n".repeat(LINES_MAX + 10).as_bytes());
        assert_eq!((lines.logged_lines, lines.dropped_bytes, lines.line.len()), (LINES_MAX, 20, 0));
        let long = after(&vec![b'x'; BYTES_MAX + 7]);
        assert_eq!((long.line.len(), long.dropped_bytes), (BYTES_MAX, 7));
        // Empty lines say nothing.
        let empty = after(&vec![b'\n'; BYTES_MAX * 2]);
        assert_eq!((empty.logged_lines, empty.dropped_bytes), (0, 0));
    }
}
