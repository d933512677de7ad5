//! Where a binary is to come from, read from what an operator wrote or from the `info` of a chain's plan. Links have
//! go-getter's form, as cosmovisor takes them: `checksum` and `archive` in the query are for us and not for the server.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::PathBuf;

use hyper::Uri;
use serde::Deserialize;

use super::checksum::Checksum;

/// Go's words for this host, which plans use.
const HOST: &str = match ARCH.as_bytes() {
    b"x86_64" => "linux/amd64",
    b"aarch64" => "linux/arm64",
    _ => "linux",
};
const ANY: &str = "any";

/// Who says where the binary comes from. Only an operator may name a file of this host.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// An absolute path, a URL, or what a plan may say.
    Operator(&'a str),
    /// The `info` of a chain's plan.
    Chain(&'a str),
}

#[derive(Debug)]
pub(super) enum Wanted {
    File {
        path: PathBuf,
        checksum: Option<Checksum>,
    },
    Link(Link),
    /// To the binary, or to a text that says where the binary is.
    LinkToEither(Link),
}

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) uri: Uri,
    pub(super) checksum: Checksum,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(
        "the chain's plan does not say where its binary is (its info is {text:?}); put the binary in its place by hand"
    )]
    NotSaid { text: String },
    #[error(
        "{text:?} is no source of a binary; write the absolute path of a file, https://HOST/PATH?checksum=sha256:HEX, or \
         {{\"binaries\":{{\"{HOST}\":\"https://…\"}}}}"
    )]
    Unknown { text: String },
    #[error(
        "the chain's plan names {path:?}, and a plan may not name a file of this host; put the binary in its place by hand"
    )]
    FileOfAPlan { path: String },
    #[error("{text:?} is no URL ({reason}); write https://HOST/PATH?checksum=sha256:HEX")]
    NoUrl { text: String, reason: String },
    #[error(
        "{url} has a user in it, and none is sent to servers; take it from a place that needs none, or put the binary in its place by hand"
    )]
    User { url: String },
    #[error(
        "{url} has no checksum, and nothing is taken from a network without one; append {joint}checksum=sha256:HEX with what \
         `sha256sum FILE` prints, or put the binary in its place by hand"
    )]
    NoChecksum { url: String, joint: char },
    #[error("{of}: {reason}")]
    Checksum { of: String, reason: String },
    #[error(
        "{url} asks for archive={form}, which is not unpacked here; tar.gz, tgz, tar, gz and zip are, or put the binary in its place by hand"
    )]
    Archive { url: String, form: String },
    #[error(
        "{of} does not say where binaries are ({reason}); it is to be {{\"binaries\":{{\"{HOST}\":\"https://…\"}}}}"
    )]
    NoBinaries { of: String, reason: String },
    #[error("{of} has binaries for {has}, and none for {HOST} or \"{ANY}\"; put the binary in its place by hand")]
    NotForThisHost { of: String, has: String },
}

#[derive(Deserialize)]
struct Info {
    binaries: BTreeMap<String, String>,
}

pub(super) fn read(source: Source<'_>) -> Result<Wanted, SourceError> {
    let (text, by_operator) = match source {
        Source::Operator(text) => (text.trim(), true),
        Source::Chain(text) => (text.trim(), false),
    };
    let path = text.strip_prefix("file://").unwrap_or(text);
    if text.starts_with('{') {
        read_info(text, "the plan's info").map(Wanted::Link)
    } else if path.starts_with('/') && by_operator {
        read_path(path)
    } else if path.starts_with('/') {
        Err(SourceError::FileOfAPlan { path: short(path) })
    } else if is_link(text) || by_operator {
        read_link(text).map(Wanted::LinkToEither)
    } else {
        Err(SourceError::NotSaid { text: short(text) })
    }
}

/// The link for this host in a text such as a plan has; `of` says whose text it is.
pub(super) fn read_info(text: &str, of: &str) -> Result<Link, SourceError> {
    let info: Info = serde_json::from_str(text)
        .map_err(|error| SourceError::NoBinaries { of: of.to_owned(), reason: short(&error.to_string()) })?;
    match info.binaries.get(HOST).or_else(|| info.binaries.get(ANY)) {
        Some(link) => read_link(link.trim()),
        None => {
            let names: Vec<String> = info.binaries.keys().take(8).map(|name| short(name)).collect();
            let has = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            Err(SourceError::NotForThisHost { of: of.to_owned(), has })
        }
    }
}

fn read_path(text: &str) -> Result<Wanted, SourceError> {
    let Some((path, checksum)) = text.rsplit_once("?checksum=") else {
        return Ok(Wanted::File { path: text.into(), checksum: None });
    };
    let checksum = Checksum::parse(checksum).map_err(|reason| SourceError::Checksum { of: path.to_owned(), reason })?;
    Ok(Wanted::File { path: path.into(), checksum: Some(checksum) })
}

fn is_link(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn read_link(text: &str) -> Result<Link, SourceError> {
    let no_url = |reason: String| SourceError::NoUrl { text: short(without_secrets(text)), reason };
    if !is_link(text) {
        return Err(SourceError::Unknown { text: short(text) });
    }
    let whole: Uri = text.parse().map_err(|error: hyper::http::uri::InvalidUri| no_url(error.to_string()))?;
    let shown = shown(&whole);
    if whole.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(SourceError::User { url: shown });
    }
    let mut checksum = None;
    let mut for_server = Vec::new();
    for part in whole.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("checksum", value)) if !value.is_empty() => {
                checksum = Some(value.replace("%3A", ":").replace("%3a", ":"))
            }
            Some(("checksum" | "filename", _)) => {}
            Some(("archive", "" | "false" | "tar.gz" | "tgz" | "tar" | "gz" | "zip")) => {}
            Some(("archive", form)) => return Err(SourceError::Archive { url: shown, form: short(form) }),
            Some(_) | None => for_server.push(part),
        }
    }
    let Some(checksum) = checksum else {
        let joint = if for_server.is_empty() { '?' } else { '&' };
        return Err(SourceError::NoChecksum { url: shown, joint });
    };
    let checksum = Checksum::parse(&checksum).map_err(|reason| SourceError::Checksum { of: shown, reason })?;
    let query = if for_server.is_empty() { String::new() } else { format!("?{}", for_server.join("&")) };
    let uri = with_path(&whole, &format!("{}{query}", whole.path())).map_err(no_url)?;
    Ok(Link { uri, checksum })
}

/// Another path, with its query, of the same server.
pub(super) fn with_path(uri: &Uri, path: &str) -> Result<Uri, String> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().map_err(|error: hyper::http::uri::InvalidUri| error.to_string())?);
    Uri::from_parts(parts).map_err(|error| error.to_string())
}

/// Without user and query, which may be somebody's secrets.
pub(super) fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

/// As [`shown`], of a text that need not be a URL.
pub(super) fn without_secrets(text: &str) -> &str {
    let text = text.split('?').next().unwrap_or_default();
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

/// As much of a text that nobody vouches for as an error has room for.
pub(super) fn short(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
