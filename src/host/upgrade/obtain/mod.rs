//! Brings the binary of an upgrade into its place: from a file of this host, from a link with a checksum, or from where
//! a chain's plan says that it is. Nothing is unpacked before its checksum was found right, and nothing stands in the
//! binary's place but the whole of it. Blocks; called from a thread that carries no lease. Everything unfinished lies
//! in `.download` beside the target's `bin`, where the next call goes on.

mod archive;
mod checksum;
mod fetch;
mod http;
mod place;
mod source;
mod watch;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Binary;
use archive::ArchiveError;
use checksum::Checksum;
use http::{Client, HttpError};
use place::{NoProgram, Target, Workshop};
use source::{SourceError, Wanted};
use watch::{Unwanted, Watch};

pub use source::Source;

/// Longer texts are none that say where binaries are.
const INFO_BYTES_MAX: u64 = 1 << 20;
const PIECE_BYTES: usize = 256 << 10;

pub struct Request<'a> {
    /// `<root>/cosmovisor/upgrades/<name>`; it is made when it is not there.
    pub upgrade_dir: &'a Path,
    /// The binary goes to `bin/<binary_name>` below it.
    pub binary_name: &'a str,
    /// Limits what is downloaded, and what is unpacked from it.
    pub bytes_max: u64,
    pub source: Source<'a>,
    pub patience: Patience,
}

/// With servers.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a name, a connection and the agreement on TLS, each.
    pub connect: Duration,
    /// Without a byte.
    pub stall: Duration,
    /// In one call, the first included.
    pub attempts: u32,
    /// Before the second attempt; twice as long before each further one.
    pub pause: Duration,
    pub pause_max: Duration,
}

impl Patience {
    pub const USUAL: Patience = Patience {
        connect: Duration::from_secs(10),
        stall: Duration::from_secs(30),
        attempts: 6,
        pause: Duration::from_secs(1),
        pause_max: Duration::from_secs(10),
    };
}

#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    NoProgram(#[from] NoProgram),
    #[error(
        "{of} has the checksum {found}, and {expected} was expected; what came was removed. Find out which of the two is right"
    )]
    Mismatch { of: String, expected: String, found: String },
    #[error("{of} is larger than the {bytes_max} bytes that upgrade.download_max_mib allows")]
    TooLarge { of: String, bytes_max: u64 },
    #[error("cannot {doing} {}: {reason}", path.display())]
    File { doing: &'static str, path: PathBuf, reason: io::Error },
    #[error("{} is no name for a binary", name)]
    Name { name: String },
    #[error("the binary is being brought to {} by another process already", path.display())]
    Busy { path: PathBuf },
    #[error("the download was ended; what has come is kept for the next time")]
    Ended,
}

impl From<Unwanted> for ObtainError {
    fn from(Unwanted: Unwanted) -> ObtainError {
        ObtainError::Ended
    }
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ObtainError + use<> {
    let path = path.to_owned();
    move |reason| ObtainError::File { doing, path, reason }
}

/// Returns the binary in its place; one that is there already stays as it is.
///
/// `progress` hears of bytes done and, where that is known, of how many there are, and ends the work by returning
/// false.
///
/// # Errors
/// There is no binary then. What has come of a download is kept if it can be gone on with: call again.
pub fn obtain(
    request: &Request<'_>,
    progress: &mut dyn FnMut(u64, Option<u64>) -> bool,
) -> Result<Binary, ObtainError> {
    let target = Target::new(request.upgrade_dir, request.binary_name)?;
    if let Some(binary) = target.find()? {
        Workshop::clear_away(request.upgrade_dir);
        return Ok(binary);
    }
    let wanted = source::read(request.source)?;
    let workshop = Workshop::open(request.upgrade_dir)?;
    // Whoever had the workshop until now may have put it there.
    if let Some(binary) = target.find()? {
        return Ok(binary);
    }
    let mut watch = Watch::new(progress);
    let (file, of) = bring(request, wanted, &workshop, &mut watch)?;
    let made = workshop.file("binary");
    archive::unpack(&file, workshop.create("binary")?, request.binary_name, &of, request.bytes_max, &mut watch)?;
    place::make_program(&made, &of)?;
    let binary = target.put(&made)?;
    workshop.clear();
    Ok(binary)
}

/// The file of the source, with its checksum found right, and what to call it.
fn bring(
    request: &Request<'_>,
    wanted: Wanted,
    workshop: &Workshop,
    watch: &mut Watch<'_>,
) -> Result<(PathBuf, String), ObtainError> {
    let client = Client::new(request.patience);
    let mut fetch = |link: &source::Link| {
        let file = fetch::fetch(&client, link, workshop.path(), request.bytes_max, watch)?;
        Ok::<_, ObtainError>((file, source::shown(&link.uri)))
    };
    match wanted {
        Wanted::File { path, checksum } => copy(&path, checksum.as_ref(), workshop, request.bytes_max, watch),
        Wanted::Link(link) => fetch(&link),
        Wanted::LinkToEither(link) => {
            let (file, of) = fetch(&link)?;
            match info_in(&file)? {
                Some(text) => fetch(&source::read_info(&text, &of)?),
                None => Ok((file, of)),
            }
        }
    }
}

/// The text of a file that is no binary but says where one is. Programs and archives begin otherwise.
fn info_in(path: &Path) -> Result<Option<String>, ObtainError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(at("read", path))?;
    file.take(INFO_BYTES_MAX + 1).read_to_end(&mut text).map_err(at("read", path))?;
    if text.len() as u64 > INFO_BYTES_MAX {
        return Ok(None);
    }
    Ok(String::from_utf8(text).ok().filter(|text| text.trim_start().starts_with('{')))
}

fn copy(
    from: &Path,
    checksum: Option<&Checksum>,
    workshop: &Workshop,
    bytes_max: u64,
    watch: &mut Watch<'_>,
) -> Result<(PathBuf, String), ObtainError> {
    let (to, of) = (workshop.file("copy"), from.display().to_string());
    let found = fs::metadata(from).map_err(at("read", from))?;
    if !found.is_file() {
        return Err(at("read", from)(io::Error::other("it is no file")));
    }
    if found.len() > bytes_max {
        return Err(ObtainError::TooLarge { of, bytes_max });
    }
    watch.total = Some(found.len());
    let mut source = File::open(from).map_err(at("read", from))?.take(bytes_max);
    let mut target = workshop.create("copy")?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        watch.tell()?;
        match source.read(&mut piece).map_err(at("read", from))? {
            0 => break,
            read => target.write_all(&piece[..read]).map_err(at("write", &to))?,
        }
        watch.done = target.metadata().map_err(at("write", &to))?.len();
    }
    if let Some(expected) = checksum {
        let found = expected.found_at(&to).map_err(at("read", &to))?;
        if found != *expected {
            let (expected, found) = (expected.to_string(), found.to_string());
            return Err(ObtainError::Mismatch { of, expected, found });
        }
    }
    Ok((to, of))
}
