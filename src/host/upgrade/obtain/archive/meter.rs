//! How much is unpacked, and whether it is still wanted. Counts what comes out of a decompressor, whatever an archive
//! says of itself.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};

use super::ArchiveError;
use crate::host::upgrade::obtain::ObtainError;
use crate::host::upgrade::obtain::watch::{Unwanted, Watch};

pub(super) struct Meter<'a, 'w> {
    bytes_max: u64,
    left: Cell<u64>,
    watch: RefCell<&'a mut Watch<'w>>,
    /// Why reading was ended here; what libraries make of the error says less.
    ended: Cell<Option<Ended>>,
}

#[derive(Clone, Copy)]
enum Ended {
    TooLarge,
    Unwanted,
}

/// Why nothing was unpacked.
pub(super) enum Stop {
    Io(io::Error),
    Entry { entry: String, why: &'static str },
    TooMany { max: u64 },
    NoBinary { has: String },
}

pub(super) struct Metered<'m, 'a, 'w, R> {
    meter: &'m Meter<'a, 'w>,
    inner: R,
}

impl<'a, 'w> Meter<'a, 'w> {
    pub(super) fn new(bytes_max: u64, watch: &'a mut Watch<'w>) -> Meter<'a, 'w> {
        Meter { bytes_max, left: Cell::new(bytes_max), watch: RefCell::new(watch), ended: Cell::new(None) }
    }

    pub(super) fn reading<R>(&self, inner: R) -> Metered<'_, 'a, 'w, R> {
        Metered { meter: self, inner }
    }

    fn end(&self, why: Ended) -> io::Error {
        self.ended.set(Some(why));
        io::Error::other("ended")
    }
}

impl<R: Read> Read for Metered<'_, '_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.meter.left.get().checked_sub(read as u64) {
            Some(left) => self.meter.left.set(left),
            None => return Err(self.meter.end(Ended::TooLarge)),
        }
        self.meter.watch.borrow_mut().tell().map_err(|Unwanted| self.meter.end(Ended::Unwanted))?;
        Ok(read)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

impl Stop {
    pub(super) fn into_error(self, of: &str, name: &str, meter: &Meter<'_, '_>) -> ObtainError {
        let of = of.to_owned();
        match (meter.ended.get(), self) {
            (Some(Ended::Unwanted), _) => ObtainError::Ended,
            (Some(Ended::TooLarge), _) => ArchiveError::TooLarge { of, bytes_max: meter.bytes_max }.into(),
            (None, Stop::Io(error)) => ArchiveError::Broken { of, reason: one_line(&error) }.into(),
            (None, Stop::Entry { entry, why }) => ArchiveError::Refused { of, entry, why }.into(),
            (None, Stop::TooMany { max }) => ArchiveError::TooMany { of, max }.into(),
            (None, Stop::NoBinary { has }) => ArchiveError::NoBinary { of, name: name.to_owned(), has }.into(),
        }
    }
}

fn one_line(error: &io::Error) -> String {
    crate::host::upgrade::obtain::source::short(&error.to_string().replace(char::is_control, " "))
}
