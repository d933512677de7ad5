//! Whom a certificate names. The name is a URI among the subject's alternative names, beside the addresses
//! and never one of them: an address may pass from one member to another, a name may not.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::CertificateError;
use crate::base::ids::{NodeId, is_plain_name};
use crate::base::time::WallTime;

const MEMBER: &str = "baton:member:";
const ADMIN: &str = "baton:admin:";

/// Who holds the private key of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    Member(NodeId),
    /// May ask and order, and is no member: it never votes nor tells what it saw.
    Admin(String),
}

impl Bearer {
    /// # Errors
    /// Names of other characters could hide in a log line or a path.
    pub fn member(id: &str) -> Result<Bearer, CertificateError> {
        plain(id).map(|id| Bearer::Member(id.into()))
    }

    pub fn admin(name: &str) -> Result<Bearer, CertificateError> {
        plain(name).map(|name| Bearer::Admin(name.to_owned()))
    }

    pub fn name(&self) -> &str {
        match self {
            Bearer::Member(id) => id.as_str(),
            Bearer::Admin(name) => name,
        }
    }

    /// As `baton cert issue` takes it.
    pub fn argument(&self) -> String {
        match self {
            Bearer::Member(id) => id.to_string(),
            Bearer::Admin(name) => format!("--admin {name}"),
        }
    }

    pub(super) fn uri(&self) -> String {
        match self {
            Bearer::Member(id) => format!("{MEMBER}{id}"),
            Bearer::Admin(name) => format!("{ADMIN}{name}"),
        }
    }

    /// `None` for a URI that is none of ours.
    fn from_uri(uri: &str) -> Option<Result<Bearer, CertificateError>> {
        let member = uri.strip_prefix(MEMBER).map(Bearer::member);
        member.or_else(|| uri.strip_prefix(ADMIN).map(Bearer::admin))
    }
}

impl fmt::Display for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bearer::Member(id) => write!(f, "member {id}"),
            Bearer::Admin(name) => write!(f, "admin {name}"),
        }
    }
}

fn plain(name: &str) -> Result<&str, CertificateError> {
    if is_plain_name(name) { Ok(name) } else { Err(CertificateError::NotAName(name.to_owned())) }
}

/// What a certificate says. Whether an authority stands for it is for TLS to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub bearer: Bearer,
    /// The last moment at which it is valid.
    pub until: WallTime,
}

impl Facts {
    /// # Errors
    /// It names nobody, or more than one.
    pub fn read(der: &[u8]) -> Result<Facts, CertificateError> {
        let malformed = |reason: String| CertificateError::Malformed(reason);
        let (_, certificate) = parse_x509_certificate(der).map_err(|e| malformed(e.to_string()))?;
        let names = certificate.subject_alternative_name().map_err(|e| malformed(e.to_string()))?;
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let mut bearers = names.filter_map(|name| match name {
            GeneralName::URI(uri) => Bearer::from_uri(uri),
            _ => None,
        });
        let bearer = bearers.next().ok_or(CertificateError::Nameless)??;
        match bearers.next() {
            None => Ok(Facts { bearer, until: until(&certificate) }),
            Some(_) => Err(CertificateError::TwoNames),
        }
    }
}

/// The last moment at which `der` is valid, whomever it names.
pub(super) fn valid_until(der: &[u8]) -> Result<WallTime, CertificateError> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|e| CertificateError::Malformed(e.to_string()))?;
    Ok(until(&certificate))
}

fn until(certificate: &x509_parser::certificate::X509Certificate<'_>) -> WallTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    WallTime::from_nanos(seconds.saturating_mul(1_000_000_000))
}
