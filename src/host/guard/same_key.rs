//! `baton-guard same-key`: a process that compares key files so that the coordinator never reads one, answers which of
//! them hold the same key, and is gone. It tells nothing else of them: no byte and no digest.
//!
//! The invariant is that of `public_key.rs`: before the first byte is read nothing can be dumped, traced or paged out,
//! and no byte of a file is left in memory when the answer is.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::public_key::close_memory;
use crate::base::closed_memory::{FILE_MAX, Secret, read};

/// Files too large to be held, such as wallets, are compared in pieces of this size.
const CHUNK: usize = 64 << 10;

/// A file to compare, as far as it is there.
struct Found {
    place: usize,
    meta: Metadata,
    content: Secret,
    length: usize,
}

/// A JSON list of pairs of places in `files`, such as `[[0,2]]`: these two hold the same key. They are one file, or
/// hold the same bytes but for white space, or the same public or private half. What is not there, or is no regular
/// file, is the same as nothing.
///
/// # Errors
/// Which file could not be read and why, without anything of its content.
pub fn same_key(files: &[PathBuf]) -> Result<String, String> {
    let buffers: Vec<Secret> = files.iter().map(|_| Secret::new(FILE_MAX + 1)).collect();
    let mut chunks = [Secret::new(CHUNK), Secret::new(CHUNK)];
    close_memory()
        .map_err(|error| format!("not read, since the reader's memory cannot be closed to others: {error}"))?;
    let mut found: Vec<Found> = Vec::new();
    for ((place, file), mut content) in files.iter().enumerate().zip(buffers) {
        let failed = |error: io::Error| format!("{}: {error}", file.display());
        let meta = match std::fs::metadata(file) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let opened = File::open(file).map_err(failed)?;
        let length = read(&opened, content.bytes_mut()).map_err(failed)?;
        found.push(Found { place, meta, content, length });
    }
    let mut pairs: Vec<[usize; 2]> = Vec::new();
    for (index, one) in found.iter().enumerate() {
        for other in &found[index + 1..] {
            let paths = [&files[one.place], &files[other.place]];
            if is_same(one, other, paths, &mut chunks).map_err(|error| format!("{}: {error}", paths[1].display()))? {
                pairs.push([one.place, other.place]);
            }
        }
    }
    serde_json::to_string(&pairs).map_err(|error| error.to_string())
}

fn is_same(one: &Found, other: &Found, paths: [&PathBuf; 2], chunks: &mut [Secret; 2]) -> io::Result<bool> {
    if (one.meta.dev(), one.meta.ino()) == (other.meta.dev(), other.meta.ino()) {
        return Ok(true);
    }
    match (one.length > FILE_MAX, other.length > FILE_MAX) {
        (false, false) => {
            let (one, other) = (&one.content.bytes()[..one.length], &other.content.bytes()[..other.length]);
            Ok(same_text(one, other) || same_half(one, other))
        }
        (true, true) if one.meta.len() == other.meta.len() => same_bytes(paths, chunks),
        (true, true) | (true, false) | (false, true) => Ok(false),
    }
}

/// White space aside; an empty file holds no key.
fn same_text(one: &[u8], other: &[u8]) -> bool {
    let mut words = [one, other].map(|text| text.iter().filter(|byte| !byte.is_ascii_whitespace()).peekable());
    let [one, other] = &mut words;
    one.peek().is_some() && one.eq(other)
}

/// As `neard` and CometBFT write keys; every field borrows from the file's content, so that no copy is made.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    public_key: Option<&'a RawValue>,
    #[serde(borrow)]
    secret_key: Option<&'a RawValue>,
    /// neard takes this name too.
    #[serde(borrow)]
    private_key: Option<&'a RawValue>,
    #[serde(borrow)]
    pub_key: Option<&'a RawValue>,
    #[serde(borrow)]
    priv_key: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
}

/// CometBFT signs with the private half whatever stands for the public one, so that either half tells.
fn same_half(one: &[u8], other: &[u8]) -> bool {
    let (Some(one), Some(other)) = (halves(one), halves(other)) else { return false };
    one.into_iter().zip(other).any(|(one, other)| one.is_some() && one == other)
}

/// The public half and the private one.
fn halves(content: &[u8]) -> Option<[Option<&str>; 2]> {
    let fields: Fields = serde_json::from_slice(content).ok()?;
    Some([
        fields.public_key.or(fields.pub_key).and_then(text_of),
        fields.secret_key.or(fields.private_key).or(fields.priv_key).and_then(text_of),
    ])
}

/// `"ed25519:TEXT"` and `{"type": …, "value": "TEXT"}` as `TEXT`.
fn text_of(raw: &RawValue) -> Option<&str> {
    let text = match serde_json::from_str::<Typed>(raw.get()) {
        Ok(Typed { value }) => value.get(),
        Err(_) => raw.get(),
    };
    let text = text.strip_prefix('"')?.strip_suffix('"')?;
    // neard takes a key without its curve for one of this.
    Some(text.strip_prefix("ed25519:").unwrap_or(text)).filter(|text| !text.is_empty())
}

fn same_bytes(paths: [&PathBuf; 2], chunks: &mut [Secret; 2]) -> io::Result<bool> {
    let [mut one, mut other] = [File::open(paths[0])?, File::open(paths[1])?];
    let [first, second] = chunks;
    loop {
        let length = one.read(first.bytes_mut())?;
        if length == 0 {
            return Ok(true);
        }
        match other.read_exact(&mut second.bytes_mut()[..length]) {
            Ok(()) if first.bytes()[..length] == second.bytes()[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_however_it_is_written_and_another_is_not() {
        let near = r#"{"account_id": "a.near", "public_key": "ed25519:P", "secret_key": "ed25519:S"}"#;
        let comet =
            r#"{"address": "00", "pub_key": {"type": "t", "value": "P"}, "priv_key": {"type": "t", "value": "S"}}"#;
        for (one, other, expected) in [
            (near, near, true),
            (near, "{\n  \"secret_key\":\"ed25519:S\",\n\"public_key\": \"P\", \"account_id\": \"a.near\"}\n", true),
            (near, r#"{"account_id": "a.near", "public_key": "ed25519:Q", "private_key": "ed25519:S"}"#, true),
            (near, r#"{"account_id": "a.near", "public_key": "ed25519:Q", "secret_key": "ed25519:R"}"#, false),
            (near, r#"{"account_id": "a.near"}"#, false),
            (comet, r#"{"priv_key":{"value":"S","type":"t"},"pub_key":{"value":"P","type":"t"},"address":"00"}"#, true),
            (
                comet,
                r#"{"pub_key": {"type": "t", "value": "of another"}, "priv_key": {"type": "t", "value": "S"}}"#,
                true,
            ),
            (comet, r#"{"pub_key": {"type": "t", "value": "Q"}, "priv_key": {"type": "t", "value": "R"}}"#, false),
            ("0a1b\n", "0a1b", true),
            ("[1, 2,\n3]", "[1,2,3]", true),
            ("[1,23]", "[12,3]", false),
            ("", "", false),
            ("{}", "{ }", true),
            ("{\"public_key\": null}", "{\"public_key\": null, \"x\": 1}", false),
        ] {
            let same = |one: &str, other: &str| {
                let (one, other) = (one.as_bytes(), other.as_bytes());
                same_text(one, other) || same_half(one, other)
            };
            assert_eq!((same(one, other), same(other, one)), (expected, expected), "{one:?} and {other:?}");
        }
    }
}
