//! What can be wrong with a certificate or its files, in one line each.

use std::io;
use std::path::PathBuf;

use super::Bearer;
use crate::base::time::WallTime;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{what} {path}: {reason}")]
    Os { what: &'static str, path: PathBuf, reason: io::Error },
    #[error("{path} holds no {what} in PEM form; check that it is the right file")]
    NoPem { path: PathBuf, what: &'static str },
    #[error("private key {path} can be used by group or others (mode {mode:04o}); chmod 600 it")]
    KeyOpenToOthers { path: PathBuf, mode: u32 },
    #[error("{path} is no certificate that baton can read: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("a certificate cannot be read: {0}")]
    Malformed(String),
    #[error(
        "a certificate names neither a member nor an admin: it has no URI baton:member:ID or baton:admin:NAME; make one \
         with baton cert issue"
    )]
    Nameless,
    #[error("a certificate names more than one member or admin")]
    TwoNames,
    #[error("{path} is there already and is not overwritten; {advice}")]
    Exists { path: PathBuf, advice: &'static str },
    #[error("{path} is a certificate of {found} and makes no room for one of {wanted}; use another --dir")]
    OfAnother { path: PathBuf, found: Bearer, wanted: Bearer },
    #[error("{path} is not the private key of the authority in {authority}")]
    NotTheAuthoritysKey { path: PathBuf, authority: PathBuf },
    #[error("{0:?} is not a host: write a name or an IP address, without a port")]
    NotAHost(String),
    #[error("{0:?} is not a name for a certificate; use up to 64 letters, digits, '-', '_' and '.'")]
    NotAName(String),
    #[error("it would be valid until {wanted}, longer than its authority ({until}); ask for fewer --days")]
    OutlivesAuthority { wanted: WallTime, until: WallTime },
    #[error("make the certificate: {0}")]
    Make(rcgen::Error),
}

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        CertificateError::Make(error)
    }
}
