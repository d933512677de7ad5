//! Whether the disks that this host rests on still answer. Each directory has a thread of its own, for which nobody
//! waits: once a second it writes a few bytes there and has them synced, or looks, where this user may not write. One
//! that has not come back in time is told to the core, which gives the baton up, or does not take it, by the name of
//! that directory.

use std::fs::{File, OpenOptions, read_dir, remove_file};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::base::time::BootTime;
use crate::config::Config;
use crate::core::Event;
use crate::core_handle::SharedCore;
use crate::operator::metrics::Metrics;

const EVERY: Duration = Duration::from_secs(1);
/// The file that is written, while it has a name.
const FILE: &str = ".baton-pulse";

/// A directory whose disk is felt.
#[derive(Clone, Debug)]
struct Place {
    /// The key of the configuration that names the directory.
    key: &'static str,
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    Begun(Instant),
    Done,
}

/// Watches the directories of `config` until the coordinator ends.
///
/// # Errors
/// No thread could be started.
pub(super) fn watch(config: &Config, core: &Arc<SharedCore>, metrics: &Metrics) -> io::Result<()> {
    let place = |key, dir: &Path| Place { key, dir: dir.to_path_buf() };
    let own = [place("member.state_dir", &config.state_dir), place("member.run_dir", &config.run_dir)];
    let home = config.chain.as_ref().map(|chain| place("chain.home", &chain.home));
    for place in own.into_iter().chain(home) {
        let beats = beat_on(place.clone())?;
        metrics.disk_hangs(place.key, false);
        let (core, metrics, key) = (core.clone(), metrics.clone(), place.key);
        let tell = move |event: Event| {
            let hangs = matches!(event, Event::DiskHung { .. });
            core.step(event);
            metrics.disk_hangs(key, hangs);
        };
        tokio::spawn(follow(place, beats, config.disk_timeout, tell));
    }
    Ok(())
}

fn beat_on(place: Place) -> io::Result<watch::Receiver<Beat>> {
    let (beats, seen) = watch::channel(Beat::Done);
    std::thread::Builder::new().name("disk-pulse".into()).spawn(move || {
        let mut told = String::new();
        while !beats.is_closed() {
            beats.send_replace(Beat::Begun(Instant::now()));
            let trouble = beat(&place).err().map(|error| error.to_string()).unwrap_or_default();
            beats.send_replace(Beat::Done);
            // It answers, which is all that is asked here.
            if !trouble.is_empty() && trouble != told {
                warn!("{} {}: {trouble}", place.key, place.dir.display());
            }
            told = trouble;
            std::thread::sleep(EVERY);
        }
    })?;
    Ok(seen)
}

/// A file that is made anew each time and has no name when it is written: one that stays open would look like somebody
/// at work in the home, and one that stays would be left behind.
fn beat(place: &Place) -> io::Result<()> {
    let file = place.dir.join(FILE);
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file);
    match open {
        Ok(mut nameless) => {
            remove_file(&file)?;
            nameless.write_all(b"baton\n")?;
            nameless.sync_data()
        }
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            read_dir(&place.dir)?.try_for_each(|entry| entry.map(drop))?;
            File::open(&place.dir)?.sync_all()
        }
        Err(error) => Err(error),
    }
}

/// Tells when a beat takes longer than `limit`, and when it came back all the same. Looks once a second, and waits for
/// the end of no beat but one that takes its time.
async fn follow(place: Place, mut beats: watch::Receiver<Beat>, limit: Duration, tell: impl Fn(Event)) {
    let dir = format!("{} ({})", place.key, place.dir.display());
    while beats.has_changed().is_ok() {
        let beat = *beats.borrow_and_update();
        if let Beat::Begun(at) = beat
            && timeout_at(at + limit, beats.changed()).await.is_err()
        {
            // Before it is said: the log may lie there too.
            tell(Event::DiskHung { dir: dir.clone() });
            error!("the disk of {dir} has not answered for {limit:?}: see to it");
            // It fails when the thread has ended, which is seen above.
            let _ = beats.changed().await;
            tell(Event::DiskBack { dir: dir.clone() });
            info!("the disk of {dir} answers again, after {:?}", at.elapsed());
        }
        sleep(BootTime::now().until_multiple_of(EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    /// A pipe in the place of the file: whoever opens it to write waits until somebody reads.
    #[tokio::test]
    async fn a_disk_that_hangs_is_told_by_name_and_told_again_when_it_is_back() {
        const SOON: Duration = Duration::from_secs(20);
        let dir = tempfile::tempdir().expect("dir");
        let pipe = dir.path().join(FILE);
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let place = Place { key: "member.state_dir", dir: dir.path().into() };
        let named = format!("member.state_dir ({})", dir.path().display());
        let (told, mut events) = mpsc::unbounded_channel();
        let beats = beat_on(place.clone()).expect("a thread");
        tokio::spawn(follow(place, beats, Duration::from_millis(50), move |event| drop(told.send(event))));
        let hung = timeout(SOON, events.recv()).await.expect("told");
        assert_eq!(hung, Some(Event::DiskHung { dir: named.clone() }));
        // Read from a thread, to the end of what is written.
        let reader = std::thread::spawn(move || std::fs::read(&pipe));
        let back = timeout(SOON, events.recv()).await.expect("told");
        assert_eq!(back, Some(Event::DiskBack { dir: named }));
        assert_eq!(reader.join().expect("read").expect("bytes"), b"baton\n");
    }

    #[test]
    fn a_pulse_writes_where_it_may_and_looks_where_it_may_not() {
        let dir = tempfile::tempdir().expect("dir");
        let place = Place { key: "member.state_dir", dir: dir.path().into() };
        for _ in 0..2 {
            beat(&place).expect("written");
            assert_eq!(read_dir(dir.path()).expect("read").count(), 0, "nothing is left behind");
        }
        // /proc is written by nobody, root included.
        let place = Place { key: "chain.home", dir: "/proc/self/fdinfo".into() };
        let error = beat(&place).err().map(|error| error.kind());
        assert!(matches!(error, None | Some(ErrorKind::NotFound | ErrorKind::InvalidInput)), "{error:?}");
    }
}
