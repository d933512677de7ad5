//! The signature log: one line for every signature that any host of the localnet made, and the checker that
//! judges them. It is the only oracle of "exactly one host signs at any time"; it knows nothing of baton.
//! Chain nodes append to it before a signature leaves the process; tests, bench and `simchain check` read it.
//!
//! A line is `host key height kind boot_ns`, all times on the one CLOCK_BOOTTIME of this machine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use baton::base::time::BootTime;
use serde::{Deserialize, Serialize};

/// Default of [`check`]: three slots of 50 ms. A move there and back needs more: two releases, two elections,
/// a restart of the node in between and a signature. Two holders that sign every slot are seen all the same.
pub const OVERLAP_WINDOW: Duration = Duration::from_millis(150);

/// What was signed. A key signs at most one message of either kind at a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Block,
    Approval,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Block => "block",
            Kind::Approval => "approval",
        }
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "block" => Ok(Kind::Block),
            "approval" => Ok(Kind::Approval),
            other => Err(format!("kind '{other}' is neither 'block' nor 'approval'")),
        }
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub host: String,
    /// The public key, `ed25519:` and base58.
    pub key: String,
    pub height: u64,
    pub kind: Kind,
    /// Just before the signature was made.
    pub at: BootTime,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signature { host, key, height, kind, at } = self;
        write!(f, "{host} {key} {height} {} {}", kind.as_str(), at.as_nanos())
    }
}

impl FromStr for Signature {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [host, key, height, kind, at] = fields[..] else {
            return Err(format!("{} fields instead of 'host key height kind boot_ns'", fields.len()));
        };
        let number = |name, text: &str| text.parse::<u64>().map_err(|_| format!("{name} '{text}' is not a number"));
        Ok(Signature {
            host: host.into(),
            key: key.into(),
            height: number("height", height)?,
            kind: kind.parse()?,
            at: BootTime::from_nanos(number("boot_ns", at)?),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{action} signature log {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("signature log {} line {line}: {reason}", path.display())]
    BadLine { path: PathBuf, line: usize, reason: String },
    #[error("host name '{0}' cannot stand in the signature log: use letters, digits, '-', '_' and '.'")]
    BadHost(String),
}

/// One host's handle for writing. The file is shared: every line is a single `write` on an O_APPEND descriptor.
pub struct SignLog {
    file: File,
    path: PathBuf,
    host: String,
}

impl SignLog {
    /// Opens the log, creating an empty one when there is none.
    ///
    /// # Errors
    /// The host name has characters that would break a line, or the file cannot be opened.
    pub fn open(path: &Path, host: &str) -> Result<SignLog, LogError> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if host.is_empty() || !host.chars().all(good) {
            return Err(LogError::BadHost(host.into()));
        }
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(|source| LogError::Io {
            action: "open",
            path: path.into(),
            source,
        })?;
        Ok(SignLog { file, path: path.into(), host: host.into() })
    }

    /// The line is in the kernel's hands: it outlives this process, though not the machine.
    ///
    /// # Errors
    /// The line may be absent or torn; the signature must not leave the process.
    pub fn append(&self, key: &str, height: u64, kind: Kind, at: BootTime) -> Result<(), LogError> {
        let signature = Signature { host: self.host.clone(), key: key.into(), height, kind, at };
        let line = format!("{signature}\n");
        let failed = |source| LogError::Io { action: "append to", path: self.path.clone(), source };
        let written = (&self.file).write(line.as_bytes()).map_err(failed)?;
        if written < line.len() {
            let reason = format!("{written} of {} bytes written", line.len());
            return Err(failed(io::Error::new(io::ErrorKind::WriteZero, reason)));
        }
        Ok(())
    }
}

/// All signatures in the order of the file. A last line without its line feed is being written: it is left out.
pub fn read(path: &Path) -> Result<Vec<Signature>, LogError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| LogError::Io { action: "read", path: path.into(), source })?;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let parsed = whole
        .lines()
        .enumerate()
        .map(|(i, line)| line.parse().map_err(|reason| LogError::BadLine { path: path.into(), line: i + 1, reason }));
    parsed.collect()
}

/// First signature of `key` after `at` by any host but `not_host`: the end of the gap that a move leaves.
pub fn gap_after<'a>(log: &'a [Signature], key: &str, at: BootTime, not_host: &str) -> Option<&'a Signature> {
    log.iter().filter(|s| s.key == key && s.at > at && s.host != not_host).min_by_key(|s| s.at)
}

/// Last signature of `key` at or before `at`, by any host: the start of that gap.
pub fn last_before<'a>(log: &'a [Signature], key: &str, at: BootTime) -> Option<&'a Signature> {
    log.iter().filter(|s| s.key == key && s.at <= at).max_by_key(|s| s.at)
}

/// What [`check`] found out about one key. Signatures are taken in the order of their time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    pub signatures: BTreeMap<String, usize>,
    /// Entries at a height that the key had already signed, by whichever host and of whichever kind.
    pub doubles: usize,
    /// Signatures of a host that lie between two signatures of one other host which are less than the overlap
    /// window apart: A, B, A in less time than any move of the baton there and back takes. Two hosts that each
    /// signed in one stretch, and a host that got the baton back later, do not count. When slots are
    /// longer than the window this can see nothing; `doubles` and `out_of_order` still do.
    pub overlap: usize,
    /// Entries below a height that the key had already signed, on whichever host. (Equal is a double.)
    pub out_of_order: usize,
    pub breach: Breach,
    /// The first few violations, in words.
    pub examples: Vec<String>,
}

/// Who took part in the violations, and at which heights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Breach {
    pub hosts: BTreeSet<String>,
    pub heights: BTreeSet<u64>,
}

impl Breach {
    pub fn add(&mut self, hosts: [&str; 2], height: u64) {
        self.hosts.extend(hosts.map(String::from));
        self.heights.insert(height);
    }
}

impl fmt::Display for Breach {
    /// As in `host-a and host-b signed against each other at 3 heights, 7 to 12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.hosts.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
        let (Some(first), Some(last)) = (self.heights.first(), self.heights.last()) else {
            return f.write_str("nobody signed against anybody");
        };
        // One host alone can sign a height twice.
        let how = if self.hosts.len() > 1 { "against each other" } else { "against itself" };
        match self.heights.len() {
            1 => write!(f, "{hosts} signed {how} at height {first}"),
            count => write!(f, "{hosts} signed {how} at {count} heights, {first} to {last}"),
        }
    }
}

impl KeyReport {
    pub fn is_clean(&self) -> bool {
        self.doubles == 0 && self.overlap == 0 && self.out_of_order == 0
    }

    fn violation(&mut self, what: &str, signature: &Signature, against: &Signature) {
        self.breach.add([&signature.host, &against.host], signature.height);
        const EXAMPLES_MAX: usize = 10;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{what}: '{signature}' against '{against}'"));
        }
    }
}

/// The verdict on a whole log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub keys: BTreeMap<String, KeyReport>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.keys.values().all(KeyReport::is_clean)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, report) in &self.keys {
            writeln!(f, "{key}")?;
            for (host, count) in &report.signatures {
                writeln!(f, "  {host}: {count} signatures")?;
            }
            let KeyReport { doubles, overlap, out_of_order, .. } = report;
            writeln!(f, "  doubles {doubles}, overlap {overlap}, out of order {out_of_order}")?;
            for example in &report.examples {
                writeln!(f, "  {example}")?;
            }
        }
        Ok(())
    }
}

/// Judges every key of the log with the default [`OVERLAP_WINDOW`].
pub fn check(log: &[Signature]) -> Report {
    check_with(log, OVERLAP_WINDOW)
}

pub fn check_with(log: &[Signature], overlap_window: Duration) -> Report {
    let mut by_key: BTreeMap<&str, Vec<&Signature>> = BTreeMap::new();
    for signature in log {
        by_key.entry(&signature.key).or_default().push(signature);
    }
    let judge = |(key, mut signatures): (&str, Vec<&Signature>)| {
        signatures.sort_by_key(|s| s.at);
        (key.to_string(), check_key(&signatures, overlap_window))
    };
    Report { keys: by_key.into_iter().map(judge).collect() }
}

/// `signatures` are of one key, in the order of their time.
fn check_key(signatures: &[&Signature], overlap_window: Duration) -> KeyReport {
    let mut report = KeyReport::default();
    let mut first_at: HashMap<u64, &Signature> = HashMap::new();
    let mut highest: Option<&Signature> = None;
    for &signature in signatures {
        *report.signatures.entry(signature.host.clone()).or_default() += 1;
        match first_at.get(&signature.height) {
            Some(earlier) => {
                report.doubles += 1;
                report.violation("double", signature, earlier);
            }
            None => {
                first_at.insert(signature.height, signature);
            }
        }
        match highest {
            Some(highest) if signature.height < highest.height => {
                report.out_of_order += 1;
                report.violation("out of order", signature, highest);
            }
            Some(_) | None => highest = Some(signature),
        }
    }
    count_overlap(signatures, overlap_window, &mut report);
    report
}

fn count_overlap(signatures: &[&Signature], window: Duration, report: &mut KeyReport) {
    let hosts: Vec<String> = report.signatures.keys().cloned().collect();
    // For each other host: its last signature before each entry, then from the back its first one after it.
    let mut overlapped: Vec<Option<(&Signature, &Signature)>> = vec![None; signatures.len()];
    for host in &hosts {
        let mut before = None;
        let last_before: Vec<Option<&Signature>> =
            signatures.iter().map(|s| if s.host == *host { before.replace(*s) } else { before }).collect();
        let mut after: Option<&Signature> = None;
        for (i, signature) in signatures.iter().enumerate().rev() {
            if signature.host == *host {
                after = Some(signature);
            } else if let (Some(before), Some(after)) = (last_before[i], after)
                && after.at.since(before.at) < window
            {
                overlapped[i] = Some((before, after));
            }
        }
    }
    for (signature, around) in signatures.iter().zip(overlapped) {
        if let Some((before, _)) = around {
            report.overlap += 1;
            report.violation("overlap", signature, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(host: &str, height: u64, ms: u64) -> Signature {
        let at = BootTime::from_nanos(ms * MS);
        Signature { host: host.into(), key: "ed25519:K".into(), height, kind: Kind::Approval, at }
    }

    fn verdict(log: &[Signature]) -> KeyReport {
        check(log).keys.remove("ed25519:K").unwrap_or_default()
    }

    #[test]
    fn a_move_there_and_back_is_clean() {
        let log = [at("a", 1, 50), at("a", 2, 100), at("b", 5, 280), at("b", 6, 330), at("a", 9, 510)];
        let report = verdict(&log);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.signatures, BTreeMap::from([("a".into(), 3), ("b".into(), 2)]));
    }

    #[test]
    fn a_signature_between_two_of_another_host_is_an_overlap() {
        let log = [at("a", 1, 50), at("b", 2, 100), at("a", 3, 150)];
        let report = verdict(&log);
        assert_eq!((report.overlap, report.doubles, report.out_of_order), (1, 0, 0), "{report:?}");
        assert!(!check(&log).is_clean());
    }

    #[test]
    fn an_overlap_is_seen_between_any_two_of_three_hosts() {
        let log = [at("a", 1, 50), at("b", 2, 100), at("c", 3, 150), at("b", 4, 200), at("a", 9, 900)];
        assert_eq!(verdict(&log).overlap, 1);
    }

    #[test]
    fn the_overlap_window_is_exclusive() {
        let log = [at("a", 1, 0), at("b", 2, 100), at("a", 9, 400)];
        assert_eq!(verdict(&log).overlap, 0);
        let wider = check_with(&log, Duration::from_millis(401));
        assert_eq!(wider.keys["ed25519:K"].overlap, 1);
    }

    #[test]
    fn two_hosts_that_sign_at_once_overlap_on_both_sides() {
        let log: Vec<_> = (0..10).flat_map(|i| [at("a", i, i * 50), at("b", i, i * 50 + 1)]).collect();
        let report = verdict(&log);
        assert_eq!((report.overlap, report.doubles), (18, 10), "{report:?}");
        assert_eq!(report.breach.to_string(), "a and b signed against each other at 10 heights, 0 to 9");
    }

    #[test]
    fn a_height_signed_twice_is_a_double_even_on_one_host() {
        let mut again = at("a", 7, 1000);
        again.kind = Kind::Block;
        let report = verdict(&[at("a", 7, 50), again]);
        assert_eq!((report.doubles, report.overlap, report.out_of_order), (1, 0, 0), "{report:?}");
        assert_eq!(report.breach.to_string(), "a signed against itself at height 7");
    }

    #[test]
    fn a_height_signed_after_a_higher_one_is_out_of_order() {
        let report = verdict(&[at("b", 8, 5000), at("a", 9, 50)]);
        assert_eq!((report.out_of_order, report.doubles), (1, 0), "{report:?}");
    }

    #[test]
    fn keys_are_judged_apart() {
        let mut other = at("b", 1, 60);
        other.key = "ed25519:L".into();
        let report = check(&[at("a", 1, 50), other, at("a", 2, 100)]);
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.keys.len(), 2);
    }

    #[test]
    fn a_gap_runs_from_the_last_signature_to_the_first_of_another_host() {
        let log = [at("a", 1, 50), at("a", 2, 100), at("a", 3, 200), at("b", 9, 400), at("b", 10, 450)];
        let killed = BootTime::from_nanos(150 * MS);
        assert_eq!(last_before(&log, "ed25519:K", killed), Some(&log[1]));
        assert_eq!(gap_after(&log, "ed25519:K", killed, "a"), Some(&log[3]));
        assert_eq!(gap_after(&log, "ed25519:K", killed, "b"), Some(&log[2]));
        assert_eq!(gap_after(&log, "ed25519:L", killed, "a"), None);
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_broken_one_before_it_is_an_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("sign.log");
        let log = SignLog::open(&path, "a").expect("open");
        let written = at("a", 1, 50);
        log.append(&written.key, 1, Kind::Approval, written.at).expect("append");
        std::fs::OpenOptions::new().append(true).open(&path).and_then(|mut f| f.write_all(b"b ed25")).expect("tear");
        assert_eq!(read(&path).expect("torn log"), [written]);
        std::fs::OpenOptions::new().append(true).open(&path).and_then(|mut f| f.write_all(b"\n")).expect("break");
        let error = read(&path).expect_err("broken line").to_string();
        assert!(error.contains("line 2: 2 fields"), "{error}");
    }

    #[test]
    fn a_host_name_that_would_break_a_line_is_refused() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert!(SignLog::open(&dir.path().join("sign.log"), "host a").is_err());
    }
}
