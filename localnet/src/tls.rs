//! Certificates for hosts that reach each other at addresses of their own, made as an operator makes them. Called
//! when a network is laid out.

use std::path::PathBuf;

use anyhow::Result;
use baton::certificates::{Authority, Bearer, Validity};

use crate::hosts::quoted;
use crate::net::{Host, Net};

const VALID_DAYS: u32 = 30;

fn dir(net: &Net) -> PathBuf {
    net.dir.join("tls")
}

/// The files that [`section`] names exist.
pub fn write(net: &Net) -> Result<()> {
    let validity = Validity::days(VALID_DAYS);
    Authority::create(&dir(net), validity)?;
    let authority = Authority::open(&dir(net))?;
    for host in &net.hosts {
        authority.issue(&Bearer::member(&host.id)?, &[host.addr.to_string()], validity, false)?;
    }
    Ok(())
}

/// The part of a host's `baton.toml`.
pub fn section(net: &Net, host: &Host) -> String {
    let [ca, cert, key] = ["ca.pem".into(), format!("{}.pem", host.id), format!("{}.key", host.id)]
        .map(|name| quoted(dir(net).join(name)));
    format!("\n[tls]\nca = {ca}\ncert = {cert}\nkey = {key}\n")
}
