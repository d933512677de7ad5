//! `simchain pre-upgrade`: what a new binary does to the data of the old one, before its first start. Here it does what
//! a script says, for the sake of whoever calls it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As a program of the SDK answers that has no such command.
const NO_SUCH_COMMAND: u8 = 1;

/// The script stays like this until somebody has replaced it.
const WAIT: &str = "wait";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The exit code on the first line of `script`, which is then gone from it unless it is the last one; first it
/// waits as long as the script says `wait`. Every call leaves a line in `SCRIPT.calls`.
///
/// # Errors
/// The script cannot be read, or says something else.
pub fn run(script: &Path) -> io::Result<u8> {
    let text = match fs::read_to_string(script) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(NO_SUCH_COMMAND),
        Err(error) => return Err(error),
    };
    let mut calls = OpenOptions::new().append(true).create(true).open(calls(script))?;
    calls.write_all(b"called\n")?;
    let mut text = text;
    while text.trim() == WAIT {
        std::thread::sleep(LOOK_EVERY);
        text = fs::read_to_string(script)?;
    }
    let (first, rest) = text.trim().split_once('\n').unwrap_or((text.trim(), ""));
    let bad = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {first:?}: {error}", script.display()));
    let code = first.trim().parse().map_err(bad)?;
    if !rest.is_empty() {
        fs::write(script, rest)?;
    }
    Ok(code)
}

/// Has a line for every call.
pub fn calls(script: &Path) -> PathBuf {
    script.with_added_extension("calls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_takes_a_line_and_the_last_one_stays() {
        let dir = tempfile::tempdir().expect("temp dir");
        let script = dir.path().join("script");
        assert_eq!(run(&script).expect("no script"), 1);
        fs::write(&script, "31\n31\n0\n").expect("write");
        let codes: Vec<u8> = (0..4).map(|_| run(&script).expect("code")).collect();
        assert_eq!(codes, [31, 31, 0, 0]);
        assert_eq!(fs::read_to_string(calls(&script)).expect("calls").lines().count(), 4);
    }
}
