//! Keeps the chain node's log within bounds. The node writes to the file itself, with nobody in between: no pipe that
//! could fill up or break, and nothing for the guard to do. So the file cannot be changed for another under the node.
//! Its older part is copied away, and then taken off the front of the very file (FALLOC_FL_COLLAPSE_RANGE), while the
//! node goes on appending at its end; no byte is lost. A file system that cannot do that has the file emptied after the
//! copy, and loses what the node writes in the moment between. A thread of its own, which may wait for a disk as long
//! as it likes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use tracing::{info, warn};

use crate::config::ChainLog;

/// Between two looks at the file: it may outgrow its bound by what the node writes meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The file that the guard opens for the chain node. All of it together stays below `bytes_max * (kept + 2)`, but for
/// what is written between two looks.
#[derive(Clone, Debug)]
pub(super) struct NodeLog(pub(super) ChainLog);

/// The older part went to `FILE.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    bytes: u64,
    /// The file system could not take it off the front: the file was emptied.
    emptied: bool,
}

impl NodeLog {
    /// Looks after the log until this process ends.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn keep_bounded(self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("node-log".into());
        thread.spawn(move || {
            let mut told = String::new();
            loop {
                std::thread::sleep(LOOK_EVERY);
                let trouble = match self.cut() {
                    Ok(Some(Cut { bytes, emptied })) => {
                        info!(file = %self.0.file.display(), bytes, emptied, "the chain node's log was cut");
                        String::new()
                    }
                    Ok(None) => continue,
                    Err(error) => error.to_string(),
                };
                if !trouble.is_empty() && trouble != told {
                    warn!("the chain node's log {} grows: {trouble}; make room there", self.0.file.display());
                }
                told = trouble;
            }
        })?;
        Ok(())
    }

    /// Cuts the log if it is a file and has outgrown its bound. What is no file, such as a container's standard output,
    /// is not even opened: a socket cannot be, and a pipe or terminal would count one more who holds it.
    ///
    /// # Errors
    /// The older part could not be copied, mostly for want of room. The oldest of what was kept is gone then; a log of
    /// twice its bound is cut all the same, and its older part lost.
    fn cut(&self) -> io::Result<Option<Cut>> {
        match fs::metadata(&self.0.file) {
            Ok(named) if named.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let live = OpenOptions::new().read(true).write(true).open(&self.0.file)?;
        let found = live.metadata()?;
        let size = found.len();
        if size <= self.0.bytes_max {
            return Ok(None);
        }
        let block = fstatvfs(&live)?.f_bsize.max(1);
        let older = (size - 1) / block * block;
        let copied = self.keep(&live, older, found.permissions().mode());
        if let Err(error) = copied {
            let _ = fs::remove_file(self.part("new"));
            let _ = fs::remove_file(self.part(&self.0.kept.to_string()));
            if size > 2 * self.0.bytes_max {
                self.take_off(&live, older, None)?;
            }
            return Err(error);
        }
        let newest = OpenOptions::new().append(true).open(self.part("1"))?;
        self.take_off(&live, older, Some(newest)).map(Some)
    }

    /// The first `bytes` of the log stand in `FILE.1`, and what was there in `FILE.2`.
    fn keep(&self, live: &File, bytes: u64, mode: u32) -> io::Result<()> {
        let new = self.part("new");
        let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(mode & 0o777).open(&new)?;
        let mut from = live;
        from.seek(SeekFrom::Start(0))?;
        let copied = io::copy(&mut from.take(bytes), &mut copy)?;
        if copied != bytes {
            return Err(io::Error::other(format!(
                "{copied} of {bytes} bytes could be read; somebody else cuts it too"
            )));
        }
        for number in (1..self.0.kept).rev() {
            match fs::rename(self.part(&number.to_string()), self.part(&(number + 1).to_string())) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(new, self.part("1"))
    }

    /// Takes the first `older` bytes off the log. Where that cannot be done it is emptied, and its rest goes to `rest`
    /// first.
    fn take_off(&self, live: &File, older: u64, rest: Option<File>) -> io::Result<Cut> {
        if older > 0 && fallocate(live, FallocateFlags::COLLAPSE_RANGE, 0, older).is_ok() {
            return Ok(Cut { bytes: older, emptied: false });
        }
        let mut bytes = older;
        if let Some(mut rest) = rest {
            let mut from = live;
            from.seek(SeekFrom::Start(older))?;
            bytes += io::copy(&mut from, &mut rest)?;
        }
        live.set_len(0)?;
        Ok(Cut { bytes, emptied: true })
    }

    fn part(&self, name: &str) -> PathBuf {
        self.0.file.with_added_extension(name)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn log(dir: &Path, bytes_max: u64, kept: u32) -> NodeLog {
        NodeLog(ChainLog { file: dir.join("node.log"), bytes_max, kept })
    }

    /// As the guard opens it for the chain node.
    fn appender(log: &NodeLog) -> File {
        OpenOptions::new().append(true).create(true).open(&log.0.file).expect("the log")
    }

    fn text(log: &NodeLog) -> String {
        let parts = (1..=log.0.kept).rev().map(|number| log.part(&number.to_string())).chain([log.0.file.clone()]);
        parts.filter_map(|part| fs::read_to_string(part).ok()).collect()
    }

    #[test]
    fn a_log_that_is_cut_while_the_node_writes_loses_no_line() {
        let dir = tempfile::tempdir().expect("dir");
        let log = log(dir.path(), 32 << 10, 10_000);
        let (mut node, enough) = (appender(&log), AtomicBool::new(false));
        let (mut cuts, mut emptied) = (0, false);
        let written = std::thread::scope(|scope| {
            let node = scope.spawn(|| {
                let mut number = 0;
                while number < 60_000 || !enough.load(Ordering::SeqCst) {
                    writeln!(node, "{number:06} of the chain node").expect("written");
                    number += 1;
                }
                number
            });
            while !node.is_finished() {
                if let Some(cut) = log.cut().expect("cut") {
                    (cuts, emptied) = (cuts + 1, emptied || cut.emptied);
                    enough.store(cuts > 3, Ordering::SeqCst);
                }
            }
            node.join().expect("written")
        });
        let text = text(&log);
        let numbers: Vec<u32> = text.lines().filter_map(|line| line.get(..6)?.parse().ok()).collect();
        assert!(cuts > 3 && numbers.is_sorted(), "{cuts} cuts");
        // Without COLLAPSE_RANGE a line may be lost with every cut, and not more than the node writes in that moment.
        let lost = written - numbers.len();
        assert!(if emptied { lost < written / 2 } else { lost == 0 }, "{lost} of {written} lines lost in {cuts} cuts");
    }

    #[test]
    fn all_of_a_log_stays_within_its_bound() {
        let dir = tempfile::tempdir().expect("dir");
        let log = log(dir.path(), 16 << 10, 2);
        let mut node = appender(&log);
        for _ in 0..64 {
            node.write_all(&[b'x'; 8 << 10]).expect("written");
            log.cut().expect("cut");
        }
        let sizes: Vec<u64> = fs::read_dir(dir.path())
            .expect("dir")
            .map(|file| file.expect("file").metadata().expect("size").len())
            .collect();
        assert!(sizes.len() == 3 && sizes.iter().sum::<u64>() <= (16 << 10) * 4, "{sizes:?}");
    }

    #[test]
    fn a_log_whose_older_part_cannot_be_kept_is_cut_at_twice_its_bound() {
        let dir = tempfile::tempdir().expect("dir");
        let log = log(dir.path(), 16 << 10, 1);
        // Nothing can be written under this name.
        fs::create_dir(log.part("new")).expect("dir");
        let mut node = appender(&log);
        node.write_all(&[b'x'; 20 << 10]).expect("written");
        log.cut().expect_err("not kept");
        assert_eq!(fs::metadata(&log.0.file).expect("log").len(), 20 << 10);
        node.write_all(&[b'x'; 20 << 10]).expect("written");
        log.cut().expect_err("not kept");
        assert!(fs::metadata(&log.0.file).expect("log").len() <= 8 << 10);
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(log(dir.path(), 1, 1).cut().expect("nothing there"), None);
        let device = NodeLog(ChainLog { file: "/dev/null".into(), bytes_max: 1, kept: 1 });
        assert_eq!(device.cut().expect("a device"), None);
        // As /proc/1/fd/1 is in a container; a socket there cannot even be opened.
        let (reader, mut writer) = io::pipe().expect("pipe");
        writer.write_all(b"of the chain node").expect("written");
        let (socket, _peer) = UnixStream::pair().expect("sockets");
        for fd in [writer.as_raw_fd(), socket.as_raw_fd()] {
            let log = NodeLog(ChainLog { file: format!("/proc/self/fd/{fd}").into(), bytes_max: 1, kept: 1 });
            assert_eq!(log.cut().expect("left alone"), None, "{:?}", log.0.file);
        }
        drop(writer);
        assert_eq!(io::read_to_string(reader).expect("read"), "of the chain node");
    }
}
