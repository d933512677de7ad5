//! What a chain node has written to its log, as operators may be shown it: without colours and control characters, and
//! bounded. Blocking.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

const BYTES_MAX: u64 = 256 << 10;
const LINE_CHARS_MAX: usize = 400;

/// The last 256 KiB at most of what stands in `file` after its first `from` bytes; all of it, if it is shorter than
/// that by now, since it was cut meanwhile.
pub(super) fn written_since(file: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    let from = if length < from { 0 } else { from.max(length.saturating_sub(BYTES_MAX)) };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last `count` lines of a log that say something, of those that stand after its first `from` bytes.
///
/// # Errors
/// The log cannot be read.
pub fn last_lines(file: &Path, from: u64, count: usize) -> io::Result<Vec<String>> {
    if !file.metadata()?.is_file() {
        return Ok(Vec::new());
    }
    let text = written_since(file, from)?;
    let mut lines: Vec<String> = text.lines().rev().map(plain).filter(|line| !line.is_empty()).take(count).collect();
    lines.reverse();
    Ok(lines)
}

/// Without colours and other control characters, and not too long.
pub(super) fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    let mut count = 0;
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // A colour: ESC [ … letter.
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() && count < LINE_CHARS_MAX {
            out.push(c);
            count += 1;
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_of_what_was_written_since_and_can_be_shown_to_people() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("node.log");
        let old = "of the process before\n";
        std::fs::write(&path, format!("{old}one\n\n\u{1b}[33mtwo\u{1b}[0m\u{7}\nthree\n")).expect("log");
        let from = old.len() as u64;
        assert_eq!(last_lines(&path, from, 10).expect("lines"), ["one", "two", "three"]);
        assert_eq!(last_lines(&path, from, 2).expect("lines"), ["two", "three"]);
        std::fs::write(&path, "cut\n").expect("log");
        assert_eq!(last_lines(&path, from, 2).expect("lines"), ["cut"]);
        assert!(last_lines(dir.path(), 0, 2).expect("no file").is_empty());
        assert!(last_lines(&dir.path().join("none"), 0, 2).is_err());
    }
}
