//! Certificates for the hosts of a network, made as an operator makes them, and for a stranger to it. Called when a
//! network is laid out, and by whoever floods it.

use std::path::PathBuf;

use anyhow::Result;
use baton::cluster::certificates::{Authority, Bearer, Validity};

use crate::hosts::{make_dir, quoted};
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

/// Of the network's authority, which everybody may know.
pub fn authority_file(net: &Net) -> PathBuf {
    dir(net).join("ca.pem")
}

/// Certificate and key of a stranger who calls itself by the first host's name. An authority of its own has signed it.
pub fn stranger(net: &Net) -> Result<[PathBuf; 2]> {
    let (dir, id) = (net.dir.join("stranger"), &net.hosts[0].id);
    let files = ["pem", "key"].map(|kind| dir.join(format!("{id}.{kind}")));
    if !files.iter().all(|file| file.exists()) {
        make_dir(&dir)?;
        let validity = Validity::days(VALID_DAYS);
        Authority::create(&dir, validity)?;
        Authority::open(&dir)?.issue(&Bearer::member(id)?, &[], validity, false)?;
    }
    Ok(files)
}

/// The part of a host's `baton.toml`.
pub fn section(net: &Net, host: &Host) -> String {
    let [ca, cert, key] = ["ca.pem".into(), format!("{}.pem", host.id), format!("{}.key", host.id)]
        .map(|name| quoted(dir(net).join(name)));
    format!("\n[tls]\nca = {ca}\ncert = {cert}\nkey = {key}\n")
}
