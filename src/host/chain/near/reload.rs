//! A reload that neard refuses. It is all or nothing there: with a broken `config.json`, `log_config.json` or
//! key file everything stays as it was, the key too, and only its log and one metric tell.

use std::path::{Path, PathBuf};

use super::config_json;
use crate::host::chain::log_text::{plain, written_since};

/// In the line of neard's log that says why.
const REFUSED: &str = "configs are not valid";
/// A cause takes some lines of its own. The next record begins with a time.
const CAUSE_LINES_MAX: usize = 20;
/// What neard reads again, besides its keys.
const CONFIGS: [&str; 2] = ["config.json", "log_config.json"];

/// A moment in the node's log: what comes after it may be about the reload that follows.
#[derive(Clone, Debug)]
pub struct Reload {
    log: Option<(PathBuf, u64)>,
}

impl Reload {
    /// To be taken just before the signal. Without `log`, only the metric will tell. Blocking.
    pub fn begin(log: Option<PathBuf>) -> Reload {
        Reload {
            log: log.map(|path| {
                let length = std::fs::metadata(&path).map_or(0, |found| found.len());
                (path, length)
            }),
        }
    }

    /// Which file neard refused, in which line and why, if it has said since that it refused one. Blocking.
    pub fn refusal(&self, home: &Path) -> Option<String> {
        let (path, from) = self.log.as_ref()?;
        let text = written_since(path, *from).ok()?;
        let lines: Vec<String> = text.lines().map(plain).collect();
        let at = lines.iter().rposition(|line| line.contains(REFUSED))?;
        let cause = lines[at + 1..].iter().take(CAUSE_LINES_MAX).take_while(|line| !begins_record(line));
        let said = cause.fold(lines[at].clone(), |said, line| format!("{said} {line}"));
        Some(in_words(&said, home))
    }
}

/// What is wrong with a file of `home` that neard reads again; `None` where they can be read. Blocking.
pub fn broken_config(home: &Path) -> Option<String> {
    CONFIGS.iter().find_map(|name| {
        let file = home.join(name);
        let text = std::fs::read_to_string(&file).ok()?;
        let problem = config_json::parse(&text).err()?;
        Some(told(&file.display().to_string(), line_in(&problem), problem.split(" at line ").next()?))
    })
}

fn begins_record(line: &str) -> bool {
    let mut chars = line.chars();
    chars.by_ref().take(4).filter(char::is_ascii_digit).count() == 4 && chars.next() == Some('-')
}

/// neard's words without its time, its advice and the Rust around the cause.
fn in_words(said: &str, home: &Path) -> String {
    let cause = said.split_once(REFUSED).map_or(said, |(_, cause)| cause);
    let cause = cause.split_once("restart: ").map_or(cause, |(_, cause)| cause);
    let file = between(cause, "file: \"", "\"");
    let innermost = cause.rsplit_once("Caused by:").map(|(_, innermost)| innermost);
    let innermost = innermost.or_else(|| between(cause, "err: Error(\"", "\", line:"));
    let innermost = innermost.or_else(|| cause.split_once("err: ").map(|(_, error)| error)).unwrap_or(cause);
    let problem = innermost.split(" at line ").next().unwrap_or(innermost).trim_matches([' ', '[', ']', '}']);
    match (file, line_in(cause)) {
        (Some(file), Some(line)) => told(&home.join(file).display().to_string(), Some(line), problem),
        // Whatever neard leaves out of its words, the file itself says.
        (Some(file), None) => {
            broken_config(home).unwrap_or_else(|| told(&home.join(file).display().to_string(), None, problem))
        }
        (None, _) => broken_config(home).unwrap_or_else(|| problem.to_owned()),
    }
}

fn told(file: &str, line: Option<u64>, problem: &str) -> String {
    line.map_or_else(|| format!("{file}: {problem}"), |line| format!("{file}, line {line}: {problem}"))
}

/// `at line 3 column 5` or `line: 3, column: 5`: the last of them is of the innermost cause.
fn line_in(words: &str) -> Option<u64> {
    let (_, rest) = words.rsplit_once("line: ").or_else(|| words.rsplit_once("at line "))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Dynamically updatable configs are not valid. Please fix this ASAP otherwise the node will be unable \
                        to restart: ";

    #[test]
    fn only_what_was_logged_after_the_signal_counts_and_no_time_or_colour_of_it_is_shown() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("node.log");
        let line = format!(
            "\u{1b}[2m2026-06-01T10:00:00Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m neard: {SAID}[Parse {{ file: \
             \"log_config.json\", err: Error(\"expected `,` or `}}`\", line: 3, column: 5) }}]\n"
        );
        std::fs::write(&path, &line).expect("log");
        let reload = Reload::begin(Some(path.clone()));
        assert_eq!(reload.refusal(dir.path()), None);
        std::fs::write(&path, format!("{line}INFO ok\n{line}INFO later\n")).expect("log");
        let file = dir.path().join("log_config.json").display().to_string();
        let told = Some(format!("{file}, line 3: expected `,` or `}}`"));
        assert_eq!(reload.refusal(dir.path()), told);
        std::fs::write(&path, line.split_at(20).1).expect("rotated");
        assert_eq!(reload.refusal(dir.path()), told);
        assert_eq!(Reload::begin(None).refusal(dir.path()), None);
    }

    #[test]
    fn a_cause_in_lines_of_its_own_is_read_to_its_end() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("node.log");
        let reload = Reload::begin(Some(path.clone()));
        let cause = "[ConfigFileError { file: \"config.json\", err: Failed to deserialize config from \
                     /var/lib/near/config.json\n\nCaused by:\n    expected `,` or `}` at line 12 column 3 }]";
        let next = "2026-06-01T10:00:01Z  INFO stats: # 7 at line 99";
        std::fs::write(&path, format!("2026-06-01T10:00:00Z  WARN neard: {SAID}{cause}\n{next}\n")).expect("log");
        let told = reload.refusal(Path::new("/var/lib/near"));
        assert_eq!(told.as_deref(), Some("/var/lib/near/config.json, line 12: expected `,` or `}`"));
    }

    #[test]
    fn a_line_that_neard_does_not_say_is_found_in_the_file() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(broken_config(dir.path()), None, "nothing there");
        std::fs::write(dir.path().join("config.json"), "{\n  // a comment\n  \"a\": 1\n  \"b\": 2\n}\n")
            .expect("config");
        let told = broken_config(dir.path()).expect("broken");
        assert!(told.starts_with(&format!("{}, line 4: ", dir.path().join("config.json").display())), "{told}");
        assert_eq!(
            in_words(&format!("{SAID}[ConfigFileError {{ file: \"config.json\", err: broken }}]"), dir.path()),
            told
        );
        std::fs::write(dir.path().join("config.json"), "{}").expect("config");
        let key = format!("{SAID}[ValidatorKeyFileError {{ file: \"validator_key.json\", err: no such file }}]");
        assert!(in_words(&key, dir.path()).ends_with("validator_key.json: no such file"));
    }
}
