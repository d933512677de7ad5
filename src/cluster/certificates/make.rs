//! A certificate authority of one directory: `ca.pem`, `ca.key`, and a pair of files for each member and
//! admin that it has issued for. Called by `baton cert` and the localnet; a coordinator
//! makes no certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

use super::files::{pem, read_certificates, read_key, write};
use super::name::valid_until;
use super::{Bearer, CertificateError, Facts};
use crate::base::time::WallTime;

/// Clocks of hosts differ: a new certificate is valid at once on one whose clock is behind.
const BEFORE_NOW: Duration = Duration::from_secs(3600);

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    pub from: WallTime,
    pub until: WallTime,
}

impl Validity {
    /// From now on, with allowance for clocks that are behind.
    pub fn days(days: u32) -> Validity {
        let now = WallTime::now();
        let from = WallTime::from_nanos(now.as_nanos().saturating_sub(BEFORE_NOW.as_nanos() as u64));
        // X.509 tells whole seconds.
        let until = now.as_nanos() / 1_000_000_000 + u64::from(days) * 86_400;
        Validity { from, until: WallTime::from_nanos(until * 1_000_000_000) }
    }

    fn write(self, params: &mut CertificateParams) {
        let moment = |time: WallTime| date_time_ymd(1970, 1, 1) + Duration::from_nanos(time.as_nanos());
        (params.not_before, params.not_after) = (moment(self.from), moment(self.until));
    }
}

/// Two files that belong together.
#[derive(Clone, Debug)]
pub struct Made {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub until: WallTime,
}

pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    until: WallTime,
}

impl Authority {
    /// Makes `ca.pem` and `ca.key` in `dir`.
    ///
    /// # Errors
    /// One of them is there already: an authority is never overwritten, for every member trusts it.
    pub fn create(dir: &Path, validity: Validity) -> Result<Made, CertificateError> {
        let (certificate, key) = files(dir, "ca");
        refuse_existing(&[&certificate, &key], "name another --dir, or move it away if no member uses it any more")?;
        std::fs::create_dir_all(dir).map_err(|reason| CertificateError::Os {
            what: "create",
            path: dir.to_owned(),
            reason,
        })?;
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Each its own name: verifiers look for the authority by name and tell two of one name badly apart.
        params.distinguished_name.push(DnType::CommonName, format!("baton ca {:08x}", rand::random::<u32>()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity.write(&mut params);
        let made = params.self_signed(&pair)?;
        // The key first: a certificate without it looks like an authority and is none.
        write(&key, &pem("PRIVATE KEY", pair.serialized_der()), false)?;
        write(&certificate, &pem("CERTIFICATE", made.der()), false)?;
        Ok(Made { certificate, key, until: validity.until })
    }

    /// The authority that [`Authority::create`] made in `dir`.
    pub fn open(dir: &Path) -> Result<Authority, CertificateError> {
        let (certificate, key) = files(dir, "ca");
        let der = read_certificates(&certificate)?.swap_remove(0);
        let unreadable = |path: &Path, reason: rcgen::Error| CertificateError::Unreadable {
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        let pair = KeyPair::try_from(&read_key(&key)?).map_err(|reason| unreadable(&key, reason))?;
        if !is_key_of(&pair, &der)? {
            return Err(CertificateError::NotTheAuthoritysKey { path: key, authority: certificate });
        }
        let until = valid_until(&der)?;
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|reason| unreadable(&certificate, reason))?;
        Ok(Authority { dir: dir.to_owned(), issuer, until })
    }

    /// Makes a certificate and a new key for `bearer`, reachable at `hosts` (names or IP addresses; an admin
    /// has none), in files of its name.
    ///
    /// # Errors
    /// The files are there already, unless `replace`; those of somebody else also then.
    pub fn issue(
        &self,
        bearer: &Bearer,
        hosts: &[String],
        validity: Validity,
        replace: bool,
    ) -> Result<Made, CertificateError> {
        if validity.until > self.until {
            return Err(CertificateError::OutlivesAuthority { wanted: validity.until, until: self.until });
        }
        let (certificate, key) = files(&self.dir, &file_name(bearer));
        if replace {
            refuse_anothers(&certificate, bearer)?;
        } else {
            refuse_existing(&[&certificate, &key], "add --replace to renew it")?;
        }
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, bearer.name());
        params.subject_alt_names.push(SanType::URI(bearer.uri().try_into()?));
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match bearer {
            Bearer::Member(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Bearer::Admin(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        validity.write(&mut params);
        let made = params.signed_by(&pair, &self.issuer)?;
        write(&key, &pem("PRIVATE KEY", pair.serialized_der()), replace)?;
        write(&certificate, &pem("CERTIFICATE", made.der()), replace)?;
        Ok(Made { certificate, key, until: validity.until })
    }
}

fn files(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")))
}

/// A member may be called `ca` or as an admin is, also as the files of an admin are.
fn file_name(bearer: &Bearer) -> String {
    match bearer {
        Bearer::Member(id) if id.as_str() == "ca" || id.as_str().starts_with("admin-") => format!("member-{id}"),
        Bearer::Member(id) => id.to_string(),
        Bearer::Admin(name) => format!("admin-{name}"),
    }
}

fn refuse_existing(paths: &[&PathBuf], advice: &'static str) -> Result<(), CertificateError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(CertificateError::Exists { path: (*path).clone(), advice }),
        None => Ok(()),
    }
}

/// What is no certificate may be replaced: it is of no use to anybody.
fn refuse_anothers(path: &Path, wanted: &Bearer) -> Result<(), CertificateError> {
    let found = read_certificates(path).ok().and_then(|found| Facts::read(&found[0]).ok());
    match found {
        Some(Facts { bearer: found, .. }) if found != *wanted => {
            Err(CertificateError::OfAnother { path: path.to_owned(), found, wanted: wanted.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

fn is_key_of(pair: &KeyPair, der: &[u8]) -> Result<bool, CertificateError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|e| CertificateError::Malformed(e.to_string()))?;
    Ok(certificate.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(pair))
}

fn host_name(host: &str) -> Result<SanType, CertificateError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.chars().all(plain) {
        return Err(CertificateError::NotAHost(host.to_owned()));
    }
    Ok(SanType::DnsName(host.try_into()?))
}
