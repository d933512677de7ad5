//! The files of a record: segments with growing numbers, of which the oldest goes when there would be too much. Nothing
//! is synced: what is lost with the host's power is lost, and what the kernel has outlives the process.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::statvfs;

use super::entry::{Entry, Head};
use super::format::{encode_entry, encode_head, is_core, push_frame};

const SUFFIX: &str = ".rec";
/// A segment is as large as this part of the whole, so no more than this part is lost at a time.
const SEGMENTS: u64 = 16;
/// So much of the disk is left to the store, which keeps two of these megabytes for votes.
const LEFT_BYTES: u64 = 8 << 20;

/// A file of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub path: PathBuf,
    /// Grows from one to the next.
    pub number: u64,
    pub bytes: u64,
}

/// What the segments in `dir` hold that were written to at `since` or later, one after the other.
///
/// # Errors
/// The directory or a segment cannot be read.
pub fn read(dir: &Path, since: SystemTime) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for segment in segments(dir)? {
        let found = fs::metadata(&segment.path).and_then(|found| found.modified());
        match found.and_then(|at| if at < since { Ok(Vec::new()) } else { fs::read(&segment.path) }) {
            Ok(segment) => bytes.extend(segment),
            // The oldest may be dropped at any moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Those in `dir`, the oldest first.
///
/// # Errors
/// The directory cannot be read. One that does not exist has no segments.
pub fn segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let found = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let mut segments = Vec::new();
    for file in found {
        let file = file?;
        let name = file.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|number| number.parse().ok());
        // A segment may be dropped while this looks.
        if let (Some(number), Ok(found)) = (number, file.metadata()) {
            segments.push(Segment { path: file.path(), number, bytes: found.len() });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// Appends to the newest segment, and begins a new one when that is full.
pub(super) struct Ring {
    dir: PathBuf,
    bytes_max: u64,
    head: Vec<u8>,
    /// Asks for an [`Entry::Core`], with which a segment can begin.
    wants_core: Arc<AtomicBool>,
    /// The newest last.
    segments: VecDeque<Segment>,
    writing: Writing,
    /// What went wrong last, which is said once.
    told: String,
}

enum Writing {
    /// To the newest segment.
    To(File),
    /// Nothing can be replayed before the next core.
    AwaitsCore { lost: u64 },
}

impl Ring {
    pub(super) fn open(dir: PathBuf, bytes_max: u64, head: &Head, wants_core: Arc<AtomicBool>) -> Ring {
        let mut ring = Ring {
            segments: VecDeque::new(),
            dir,
            bytes_max,
            head: encode_head(head),
            wants_core,
            writing: Writing::AwaitsCore { lost: 0 },
            told: String::new(),
        };
        match DirBuilder::new().recursive(true).mode(0o700).create(&ring.dir).and_then(|()| segments(&ring.dir)) {
            Ok(segments) => ring.segments = segments.into(),
            Err(error) => ring.tell(&error),
        }
        ring
    }

    /// Each is what [`encode_entry`] made of an entry.
    pub(super) fn append(&mut self, entries: &[Vec<u8>]) {
        if entries.is_empty() {
            return;
        }
        let room = self.has_room();
        let mut bytes = Vec::new();
        let mut written = 0;
        for entry in entries {
            let begins = room && is_core(entry) && self.begins_segment(bytes.len());
            if begins && !(self.flush(&mut bytes, &mut written) && self.begin()) {
                continue;
            }
            match &mut self.writing {
                Writing::To(_) if room => {
                    push_frame(&mut bytes, entry);
                    written += 1;
                }
                Writing::To(_) => self.writing = Writing::AwaitsCore { lost: 1 },
                Writing::AwaitsCore { lost } => *lost += 1,
            }
        }
        self.flush(&mut bytes, &mut written);
        let full = self.is_full(0);
        if room && (full || matches!(self.writing, Writing::AwaitsCore { .. })) {
            self.wants_core.store(true, Ordering::Relaxed);
        }
    }

    fn begins_segment(&self, unwritten: usize) -> bool {
        matches!(self.writing, Writing::AwaitsCore { .. }) || self.is_full(unwritten as u64)
    }

    fn is_full(&self, unwritten: u64) -> bool {
        self.segments.back().is_some_and(|segment| segment.bytes + unwritten >= self.segment_bytes())
    }

    fn segment_bytes(&self) -> u64 {
        self.bytes_max / SEGMENTS
    }

    /// Writes and forgets `bytes`, which are that many entries. Whether they are in the file.
    fn flush(&mut self, bytes: &mut Vec<u8>, entries: &mut u64) -> bool {
        let (bytes, entries) = (std::mem::take(bytes), std::mem::take(entries));
        let (Writing::To(file), Some(segment)) = (&mut self.writing, self.segments.back_mut()) else { return true };
        match file.write_all(&bytes) {
            Ok(()) => {
                segment.bytes += bytes.len() as u64;
                true
            }
            // Perhaps half of them are there: a reader finds the next segment.
            Err(error) => {
                self.writing = Writing::AwaitsCore { lost: entries };
                self.tell(&error);
                false
            }
        }
    }

    /// Begins a segment, and says in it what is missing before it.
    fn begin(&mut self) -> bool {
        let lost = match self.writing {
            Writing::To(_) => 0,
            Writing::AwaitsCore { lost } => lost,
        };
        match self.make_segment(lost) {
            Ok(file) => {
                self.writing = Writing::To(file);
                self.told.clear();
                true
            }
            Err(error) => {
                self.writing = Writing::AwaitsCore { lost: lost + 1 };
                self.tell(&error);
                false
            }
        }
    }

    fn make_segment(&mut self, lost: u64) -> io::Result<File> {
        self.make_room()?;
        let number = self.segments.back().map_or(1, |segment| segment.number + 1);
        let path = self.dir.join(format!("{number:010}{SUFFIX}"));
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        let mut bytes = self.head.clone();
        if lost > 0 {
            push_frame(&mut bytes, &encode_entry(&Entry::Gap { entries: lost }));
        }
        self.segments.push_back(Segment { path, number, bytes: bytes.len() as u64 });
        file.write_all(&bytes)?;
        Ok(file)
    }

    fn make_room(&mut self) -> io::Result<()> {
        let keep = self.bytes_max.saturating_sub(self.segment_bytes());
        while self.segments.iter().map(|segment| segment.bytes).sum::<u64>() > keep && !self.segments.is_empty() {
            self.remove_oldest()?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.segments.front() else { return Ok(()) };
        match fs::remove_file(&oldest.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.segments.pop_front(),
        };
        Ok(())
    }

    /// The store and its votes come first: what the record has of the disk it gives back, the oldest first.
    fn has_room(&mut self) -> bool {
        match statvfs(&self.dir) {
            Ok(found) if found.f_bavail.saturating_mul(found.f_frsize) >= LEFT_BYTES => true,
            Ok(_) => {
                match self.segments.len() {
                    0 | 1 => self.tell(&"the disk is almost full"),
                    _ => drop(self.remove_oldest()),
                }
                false
            }
            Err(error) => {
                self.tell(&error);
                false
            }
        }
    }

    fn tell(&mut self, trouble: &dyn std::fmt::Display) {
        let trouble = trouble.to_string();
        if trouble != self.told {
            tracing::warn!("{}: {trouble}; what happens meanwhile is not recorded", self.dir.display());
            self.told = trouble;
        }
    }
}
