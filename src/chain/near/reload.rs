//! A reload that neard refuses. It is all or nothing there: with a broken `config.json`, `log_config.json` or
//! key file everything stays as it was, the key too, and only its log and one metric tell.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// In the line of neard's log that says why.
const REFUSED: &str = "configs are not valid";
/// neard logs a handful of lines between a signal and our look at them.
const LOG_BYTES_MAX: u64 = 256 << 10;
const LINE_CHARS_MAX: usize = 400;

/// A moment in the node's log: what comes after it may be about the reload that follows.
#[derive(Clone, Debug)]
pub struct Reload {
    log: Option<(PathBuf, u64)>,
}

impl Reload {
    /// To be taken just before the signal. Without `log`, only the metric will tell.
    pub fn begin(log: Option<PathBuf>) -> Reload {
        Reload {
            log: log.map(|path| {
                let length = std::fs::metadata(&path).map_or(0, |found| found.len());
                (path, length)
            }),
        }
    }

    /// neard's own words on why it refused, if it has said so since. Blocking.
    pub fn refusal(&self) -> Option<String> {
        let (path, from) = self.log.as_ref()?;
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        // A log that was rotated meanwhile is read from its beginning.
        let from = if length < *from { 0 } else { (*from).max(length.saturating_sub(LOG_BYTES_MAX)) };
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().rev().find(|line| line.contains(REFUSED)).map(plain)
    }
}

/// Without colours and other control characters, and not too long.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // A colour: ESC [ … letter.
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() && out.chars().count() < LINE_CHARS_MAX {
            out.push(c);
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_logged_after_the_signal_counts() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("node.log");
        let line = "\u{1b}[2m2026-06-01\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m neard: Dynamically updatable configs are not \
                    valid. Please fix this ASAP: [Parse]\n";
        std::fs::write(&path, line).expect("log");
        let reload = Reload::begin(Some(path.clone()));
        assert_eq!(reload.refusal(), None);
        std::fs::write(&path, format!("{line}INFO ok\n{line}INFO later\n")).expect("log");
        let said = reload.refusal().expect("refused");
        assert!(said.starts_with("2026-06-01  WARN neard: Dynamically"), "{said:?}");
        assert!(said.ends_with("ASAP: [Parse]"), "{said:?}");
        std::fs::write(&path, line.split_at(20).1).expect("rotated");
        assert!(reload.refusal().is_some());
        assert_eq!(Reload::begin(None).refusal(), None);
    }
}
