//! The PEM files of certificates and keys: read once, closed to others, replaced as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::CertificateError;

const LINE: usize = 64;
/// A certificate or a key is a kilobyte or two; what is larger is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All certificates in `path`, in their order; at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = read(path, |_| Ok(()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(CertificateError::NoPem { path: path.to_owned(), what: "certificate" }),
    }
}

/// The private key in `path`.
///
/// # Errors
/// Group or others may use the file; it is not read then.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let text = read(path, |mode| match mode & 0o077 {
        0 => Ok(()),
        _ => Err(CertificateError::KeyOpenToOthers { path: path.to_owned(), mode }),
    })?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| CertificateError::NoPem { path: path.to_owned(), what: "private key" })
}

/// What is checked is what is read: the mode is that of the open file.
fn read(
    path: &Path,
    check_mode: impl FnOnce(u32) -> Result<(), CertificateError>,
) -> Result<Vec<u8>, CertificateError> {
    let failed = |reason| CertificateError::Os { what: "read", path: path.to_owned(), reason };
    // A pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    check_mode(file.metadata().map_err(failed)?.permissions().mode() & 0o7777)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines = body.as_bytes().chunks(LINE).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    let lines: Vec<&str> = lines.collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Makes `path`, which nobody else can read at any moment, and which is whole or not there.
///
/// # Errors
/// Something is there already, unless `replace`.
pub(super) fn write(path: &Path, text: &str, replace: bool) -> Result<(), CertificateError> {
    let failed = |what| move |reason| CertificateError::Os { what, path: path.to_owned(), reason };
    let temporary = temporary(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|reason| CertificateError::Os { what: "create", path: temporary.clone(), reason })?;
    let placed = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        // A link refuses to take the place of anything, where a rename would not.
        if replace { fs::rename(&temporary, path) } else { fs::hard_link(&temporary, path) }
    });
    if placed.is_err() || !replace {
        let _ = fs::remove_file(&temporary);
    }
    placed.map_err(failed("write"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("write"))
}

/// Beside `path`, and of this process alone.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    name.into()
}
