//! The PEM files of certificates and keys: read once, closed to others, replaced as a whole.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::CertificateError;
use crate::base::private_file;

const LINE: usize = 64;
/// A certificate or a key is a kilobyte or two; what is larger is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All certificates in `path`, in their order; at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = read(path, |_, _| Ok(()))?;
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
    let text = read(path, |file, found| {
        if private_file::is_open_file_open_to_others(file, found) {
            let mode = found.permissions().mode() & 0o7777;
            return Err(CertificateError::KeyOpenToOthers { path: path.to_owned(), mode });
        }
        Ok(())
    })?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| CertificateError::NoPem { path: path.to_owned(), what: "private key" })
}

/// What is checked is what is read: the mode is that of the open file.
fn read(
    path: &Path,
    check_mode: impl FnOnce(&File, &Metadata) -> Result<(), CertificateError>,
) -> Result<Vec<u8>, CertificateError> {
    let failed = |reason| CertificateError::Os { what: "read", path: path.to_owned(), reason };
    // A pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    check_mode(&file, &file.metadata().map_err(failed)?)?;
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
    let failed = |reason| CertificateError::Os { what: "write", path: path.to_owned(), reason };
    private_file::write(path, text, replace, None).map_err(failed)
}
