//! A link's file, brought into the workshop and held against its checksum. What came before a connection broke, or
//! before the process ended, is kept with what the server called it by, and the rest is asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE};
use serde::{Deserialize, Serialize};

use super::http::{Answer, Client, HttpError, causes};
use super::source::{Link, shown};
use super::watch::{Cut, Unwanted, Watch};
use super::{ObtainError, at};

/// A file that is not whole yet.
struct Partial {
    path: PathBuf,
    notes: PathBuf,
}

/// What a partial file is part of.
#[derive(PartialEq, Serialize, Deserialize)]
struct Notes {
    url: String,
    /// The server's strong `ETag`, or its `Last-Modified`.
    validator: String,
}

/// Leaves the file of `link` in `directory`, with the checksum that it is to have.
pub(super) fn fetch(
    client: &Client,
    link: &Link,
    directory: &Path,
    bytes_max: u64,
    watch: &mut Watch<'_>,
) -> Result<PathBuf, ObtainError> {
    let stem = link.checksum.stem();
    let partial =
        Partial { path: directory.join(format!("{stem}.part")), notes: directory.join(format!("{stem}.from")) };
    if partial.bytes() > 0 && link.checksum.found_at(&partial.path).map_err(at("read", &partial.path))? == link.checksum
    {
        watch.done = partial.bytes();
        return Ok(partial.path);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(at("start to download into", directory))?;
    let came = runtime.block_on(attempts(client, link, &partial, bytes_max, watch));
    // A name that is still looked up is nothing to wait for.
    runtime.shutdown_background();
    came?;
    let found = link.checksum.found_at(&partial.path).map_err(at("read", &partial.path))?;
    if found != link.checksum {
        partial.forget()?;
        return Err(ObtainError::Mismatch {
            of: shown(&link.uri),
            expected: link.checksum.to_string(),
            found: found.to_string(),
        });
    }
    Ok(partial.path)
}

async fn attempts(
    client: &Client,
    link: &Link,
    partial: &Partial,
    bytes_max: u64,
    watch: &mut Watch<'_>,
) -> Result<(), ObtainError> {
    let mut pause = client.patience.pause;
    for attempt in 1.. {
        match once(client, link, partial, bytes_max, watch).await {
            Ok(()) => break,
            Err(ObtainError::Http(error)) if error.is_passing() && attempt < client.patience.attempts => {
                tracing::info!("download of {}: {error}; once more in {pause:?}", shown(&link.uri));
            }
            Err(error) => return Err(error),
        }
        watch.pause(pause).await?;
        pause = (pause * 2).min(client.patience.pause_max);
    }
    Ok(())
}

async fn once(
    client: &Client,
    link: &Link,
    partial: &Partial,
    bytes_max: u64,
    watch: &mut Watch<'_>,
) -> Result<(), ObtainError> {
    let have = partial.bytes();
    let known = partial.notes().filter(|notes| have > 0 && notes.url == link.uri.to_string());
    let headers: Vec<(HeaderName, String)> = match &known {
        Some(notes) => vec![(RANGE, format!("bytes={have}-")), (IF_RANGE, notes.validator.clone())],
        None => Vec::new(),
    };
    watch.done = if known.is_some() { have } else { 0 };
    let answer = client.get(&link.uri, &headers, watch).await?;
    let start = match answer.status {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT
            if known.is_some() && range_of(&answer.headers).is_some_and(|(from, _)| from == have) =>
        {
            have
        }
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if known.is_some() => {
            // What is here is no part of what the server has. The next attempt asks for all of it.
            partial.forget()?;
            return Err(HttpError::OtherFile { url: answer.url }.into());
        }
        status => return Err(HttpError::Status { url: answer.url, status }.into()),
    };
    let length = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let total =
        range_of(&answer.headers).and_then(|(_, total)| total).or(length.map(|length| start.saturating_add(length)));
    if total.is_some_and(|total| total > bytes_max) {
        partial.forget()?;
        return Err(ObtainError::TooLarge { of: answer.url, bytes_max });
    }
    if start == 0 {
        partial.begin(&link.uri.to_string(), &answer.headers)?;
    }
    (watch.done, watch.total) = (start, total);
    receive(client, answer, partial, bytes_max, watch).await
}

async fn receive(
    client: &Client,
    mut answer: Answer,
    partial: &Partial,
    bytes_max: u64,
    watch: &mut Watch<'_>,
) -> Result<(), ObtainError> {
    let mut file = OpenOptions::new().append(true).open(&partial.path).map_err(at("write", &partial.path))?;
    let stall = client.patience.stall;
    watch.tell()?;
    loop {
        let frame = match watch.within(stall, answer.body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(reason))) => {
                return Err(
                    HttpError::Broken { server: answer.server, got: watch.done, reason: causes(&reason) }.into()
                );
            }
            Err(Cut::Late) => {
                let seconds = stall.as_secs_f32();
                return Err(HttpError::Stalled { server: answer.server, got: watch.done, seconds }.into());
            }
            Err(Cut::Unwanted) => return Err(Unwanted.into()),
        };
        let Ok(piece) = frame.into_data() else { continue };
        if watch.done.saturating_add(piece.len() as u64) > bytes_max {
            partial.forget()?;
            return Err(ObtainError::TooLarge { of: answer.url, bytes_max });
        }
        file.write_all(&piece).map_err(at("write", &partial.path))?;
        watch.done += piece.len() as u64;
        watch.tell()?;
    }
    file.sync_all().map_err(at("write", &partial.path))
}

/// Where the answer's part begins, and how long the whole is if that is known.
fn range_of(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// What `If-Range` may name: a weak `ETag` may stand for other bytes.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|tag| tag.starts_with('"')).or_else(|| text(LAST_MODIFIED))
}

impl Partial {
    /// Zero while it is not there.
    fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |found| found.len())
    }

    fn notes(&self) -> Option<Notes> {
        serde_json::from_slice(&fs::read(&self.notes).ok()?).ok()
    }

    /// An empty file, with notes when the server has said what to call it by.
    fn begin(&self, url: &str, headers: &HeaderMap) -> Result<(), ObtainError> {
        self.forget()?;
        if let Some(validator) = validator(headers) {
            let notes = Notes { url: url.to_owned(), validator };
            let text = serde_json::to_vec(&notes).map_err(io::Error::from).map_err(at("write", &self.notes))?;
            fs::write(&self.notes, text).map_err(at("write", &self.notes))?;
        }
        File::create(&self.path).map_err(at("write", &self.path))?;
        Ok(())
    }

    /// The bytes go first: notes without bytes say nothing.
    fn forget(&self) -> Result<(), ObtainError> {
        for path in [&self.path, &self.notes] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", path)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
