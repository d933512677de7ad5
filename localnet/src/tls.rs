//! Certificates for hosts that reach each other at addresses of their own: one authority, and a certificate for
//! each host's address, as an operator would make them. Called when a network is laid out.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use crate::hosts::{make_dir, quoted};
use crate::net::{Host, Net, write_file};

fn file(net: &Net, name: &str) -> PathBuf {
    net.dir.join("tls").join(name)
}

/// The files that [`section`] names exist.
pub fn write(net: &Net) -> Result<()> {
    make_dir(&net.dir.join("tls"))?;
    let mut params = CertificateParams::new(Vec::new()).context("describe an authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().context("make a key")?;
    let ca = params.self_signed(&ca_key).context("make an authority")?;
    write_file(&file(net, "ca.pem"), &ca.pem())?;
    for host in &net.hosts {
        let key = KeyPair::generate().context("make a key")?;
        let params = CertificateParams::new(vec![host.addr.to_string()]).context("describe a host")?;
        let cert = params.signed_by(&key, &ca, &ca_key).with_context(|| format!("certify {}", host.id))?;
        write_file(&file(net, &format!("{}.pem", host.id)), &cert.pem())?;
        write_file(&file(net, &format!("{}.key", host.id)), &key.serialize_pem())?;
    }
    Ok(())
}

/// The part of a host's `baton.toml`.
pub fn section(net: &Net, host: &Host) -> String {
    let [ca, cert, key] =
        ["ca.pem".into(), format!("{}.pem", host.id), format!("{}.key", host.id)].map(|name| quoted(file(net, &name)));
    format!("\n[tls]\nca = {ca}\ncert = {cert}\nkey = {key}\n")
}
