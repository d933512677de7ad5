//! The signer's own log: short lines on standard error, dropped rather than waited for when that is a pipe that nobody
//! reads.

use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::base::guard_frame::LinesAs;
use crate::base::time::WallTime;

static LINES_AS: OnceLock<LinesAs> = OnceLock::new();

/// How lines look from now on. Counts once.
pub fn speak(lines_as: LinesAs) {
    let _ = LINES_AS.set(lines_as);
}

/// Says one line.
pub fn say(text: &str) {
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
    if poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        let line = shown(LINES_AS.get().copied().unwrap_or_default(), WallTime::now(), text);
        let _ = rustix::io::write(stderr, line.as_bytes());
    }
}

fn shown(lines_as: LinesAs, at: WallTime, text: &str) -> String {
    match lines_as {
        LinesAs::Text => format!("baton-signer: {text}\n"),
        LinesAs::Json => {
            let object = json!({
                "timestamp": at.to_string(), "level": "INFO", "message": text, "program": "baton-signer",
            });
            format!("{object}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_text_or_an_object() {
        let at = WallTime::from_nanos(0);
        assert_eq!(shown(LinesAs::Text, at, "a \"b\""), "baton-signer: a \"b\"\n");
        let shown: serde_json::Value = serde_json::from_str(&shown(LinesAs::Json, at, "a \"b\"")).expect("JSON");
        let expected = json!({
            "timestamp": "1970-01-01T00:00:00.000Z", "level": "INFO", "message": "a \"b\"", "program": "baton-signer",
        });
        assert_eq!(shown, expected);
    }
}
