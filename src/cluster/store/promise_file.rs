//! How long the longest promise lasts that this member may still have to keep. A leader may ask for a longer one than
//! this member's own `[timing]`, and that may have been changed before a restart: rule (a) waits out what stands here.
//! In a file of its own, off the path of Raft's writes: it changes only when somebody's `[timing]` has changed.

use std::path::Path;
use std::time::Duration;

use super::StoreError;
use super::sealed_file::SealedFile;
use crate::base::time::BootTime;
use crate::base::timing::Timing;

const MAGIC: &[u8; 8] = b"BTNPROM1";

/// Its directory is the store's; nobody else writes the file.
pub struct PromiseFile {
    file: SealedFile,
    /// As the file says it.
    longest: LongestPromise,
}

/// The longest promise that a member may have made, and from when on a shorter one may take its place.
pub struct LongestPromise {
    /// Zero when there is none.
    kept: Duration,
    /// The length of the newest promise, and when it was made.
    newest: (Duration, BootTime),
    /// All promises that were longer than the newest are over by then.
    longer_until: BootTime,
}

impl LongestPromise {
    /// For a member that starts at `started_at` and may have promised for `kept` before.
    pub fn new(kept: Duration, started_at: BootTime) -> LongestPromise {
        LongestPromise { kept, newest: (Duration::ZERO, started_at), longer_until: started_at + kept }
    }

    /// The longest promise that may have been made before, and is not known to be over.
    pub fn kept(&self) -> Duration {
        self.kept
    }

    /// Whether a promise of this length that is made at `made_at` leaves `kept` as it is.
    pub fn covers(&self, promise: Duration, made_at: BootTime) -> bool {
        promise == self.kept || promise < self.kept && made_at < self.longer_until_with(promise)
    }

    pub fn note(&mut self, promise: Duration, made_at: BootTime) {
        if !self.covers(promise, made_at) {
            self.kept = promise;
        }
        self.longer_until = self.longer_until_with(promise);
        self.newest = (promise, made_at.max(self.newest.1));
    }

    /// When all promises that are longer than `promise` are over.
    fn longer_until_with(&self, promise: Duration) -> BootTime {
        let (newest, made_at) = self.newest;
        if newest > promise { self.longer_until.max(made_at + newest) } else { self.longer_until }
    }
}

impl PromiseFile {
    /// The file of `state_dir`, of a member that starts at `started_at`, and what is wrong with it. One that cannot be
    /// read counts as the longest promise that there can be. A store without one was written by a version that promised
    /// what its own `[timing]` said.
    pub fn open(state_dir: &Path, started_at: BootTime) -> (PromiseFile, Option<StoreError>) {
        let file = SealedFile::new(state_dir.join("promise"), MAGIC);
        let (kept, error) = match read(&file) {
            Ok(kept) => (kept, None),
            Err(error) => (Timing::promise_max(), Some(error)),
        };
        (PromiseFile { file, longest: LongestPromise::new(kept, started_at) }, error)
    }

    /// See [`LongestPromise::kept`].
    pub fn kept(&self) -> Duration {
        self.longest.kept()
    }

    /// Whether the file has nothing to learn from a promise of this length that is made at `made_at`.
    pub fn covers(&self, promise: Duration, made_at: BootTime) -> bool {
        self.longest.covers(promise, made_at)
    }

    /// The file says for good that a promise may last for `promise`, or longer while longer ones last. To be called
    /// before anybody hears of the promise.
    ///
    /// # Errors
    /// It says what it said before, and the promise must not be given.
    pub fn note(&mut self, promise: Duration, made_at: BootTime) -> Result<(), StoreError> {
        if !self.covers(promise, made_at) {
            let nanos = u64::try_from(promise.as_nanos()).unwrap_or(u64::MAX);
            let written = self.file.write(&nanos.to_le_bytes());
            written.map_err(|error| StoreError::io("replace", self.file.path(), error))?;
        }
        self.longest.note(promise, made_at);
        Ok(())
    }
}

fn read(file: &SealedFile) -> Result<Duration, StoreError> {
    let failed = |error: String| StoreError::io("read", file.path(), error);
    let Some(body) = file.read().map_err(|error| failed(error.to_string()))? else { return Ok(Duration::ZERO) };
    let nanos = body.as_slice().try_into().map(u64::from_le_bytes);
    nanos.map(Duration::from_nanos).map_err(|_| failed("no number of eight bytes".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: Duration = Duration::from_millis(1001);
    const BETWEEN: Duration = Duration::from_millis(2002);
    const WAN: Duration = Duration::from_millis(3003);

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    fn kept(dir: &Path) -> Duration {
        PromiseFile::open(dir, at(0)).0.kept()
    }

    #[test]
    fn a_longer_promise_stands_in_the_file_before_it_is_given_and_a_shorter_one_lowers_it_when_that_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, error) = PromiseFile::open(dir.path(), at(0));
        assert!(file.kept().is_zero() && error.is_none(), "{error:?}");
        file.note(LAN, at(0)).unwrap();
        assert_eq!(kept(dir.path()), LAN);
        file.note(WAN, at(10)).unwrap();
        assert_eq!(kept(dir.path()), WAN);
        file.note(LAN, at(3012)).unwrap();
        assert_eq!(kept(dir.path()), WAN, "the promise of 10 ms lasts until 3013 ms");
        file.note(LAN, at(3013)).unwrap();
        assert_eq!(kept(dir.path()), LAN);
    }

    #[test]
    fn a_promise_in_between_is_not_forgotten_while_it_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = PromiseFile::open(dir.path(), at(0));
        file.note(WAN, at(0)).unwrap();
        file.note(BETWEEN, at(3000)).unwrap();
        file.note(LAN, at(3100)).unwrap();
        assert_eq!(kept(dir.path()), WAN);
        file.note(LAN, at(5002)).unwrap();
        assert_eq!(kept(dir.path()), LAN);
    }

    #[test]
    fn what_an_earlier_run_promised_is_kept_until_it_is_over_after_the_start() {
        let dir = tempfile::tempdir().unwrap();
        PromiseFile::open(dir.path(), at(0)).0.note(WAN, at(0)).unwrap();
        let (mut file, _) = PromiseFile::open(dir.path(), at(50_000));
        file.note(LAN, at(53_002)).unwrap();
        assert_eq!(kept(dir.path()), WAN);
        file.note(LAN, at(53_003)).unwrap();
        assert_eq!(kept(dir.path()), LAN);
    }

    #[test]
    fn a_damaged_file_counts_as_the_longest_promise_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        PromiseFile::open(dir.path(), at(0)).0.note(LAN, at(0)).unwrap();
        let path = dir.path().join("promise");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (file, error) = PromiseFile::open(dir.path(), at(0));
        assert_eq!(file.kept(), Timing::promise_max());
        assert!(error.unwrap().to_string().contains("promise"));
    }
}
