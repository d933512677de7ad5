//! The guard's own log: short lines on standard error, which may be a pipe that nobody reads or a file on a
//! disk that hangs. While the guard has a validator to fence it therefore holds its lines back: in that time
//! it makes no system call that could wait for anything but the deadline.

use std::cell::RefCell;
use std::collections::VecDeque;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Lines held back at most, the newest; older ones are counted and dropped.
const HELD_MAX: usize = 64;

#[derive(Default)]
struct Held {
    on: bool,
    lines: VecDeque<String>,
    dropped: usize,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// Says one line, now or when nothing is to be fenced any more.
pub fn say(line: &str) {
    HELD.with_borrow_mut(|held| {
        if !held.on {
            return write(line);
        }
        if held.lines.len() == HELD_MAX {
            held.lines.pop_front();
            held.dropped += 1;
        }
        held.lines.push_back(line.into());
    });
}

/// Holds lines back from now on, or says those that were held back.
pub(super) fn hold(on: bool) {
    HELD.with_borrow_mut(|held| {
        held.on = on;
        if !on && !held.lines.is_empty() {
            match std::mem::take(&mut held.dropped) {
                0 => (),
                dropped => write(&format!("{dropped} lines were dropped before these")),
            }
            held.lines.drain(..).for_each(|line| write(&line));
        }
    });
}

/// Dropped rather than waited for when a pipe is full.
fn write(line: &str) {
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
    if poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(stderr, format!("baton-guard: {line}\n").as_bytes());
    }
}
