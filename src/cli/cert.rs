//! `baton cert`: an authority of one's own and the certificates that it issues, with what to do next in words.
//! It talks to no coordinator and may run on any machine; best on one that runs none.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Subcommand};

use super::{Failure, print};
use crate::cluster::certificates::{Authority, Bearer, CertificateError, Made, Validity};

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Make a certificate authority: DIR/ca.pem and DIR/ca.key
    Ca {
        /// Where to, made when it is missing
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
        /// How long it is valid
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Issue a certificate to a member or an admin: DIR/ID.pem and DIR/ID.key
    #[command(group = ArgGroup::new("bearer").required(true))]
    Issue {
        /// The member, as in member.id of its configuration
        #[arg(group = "bearer", requires = "addr")]
        id: Option<String>,
        /// An operator who may ask and order from another machine, in place of a member
        #[arg(long, value_name = "NAME", group = "bearer", conflicts_with = "addr")]
        admin: Option<String>,
        /// Names and IP addresses by which the other members reach this one, without a port
        #[arg(long, value_name = "HOST", num_args = 1..)]
        addr: Vec<String>,
        /// Where the authority is
        #[arg(long, value_name = "DIR", default_value = "certs")]
        dir: PathBuf,
        /// How long it is valid
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// Take the place of an earlier one, with a new key
        #[arg(long)]
        replace: bool,
    },
}

pub(super) fn run(command: CertCommand) -> Result<ExitCode, Failure> {
    let text = match command {
        CertCommand::Ca { dir, days } => authority(&dir, days),
        CertCommand::Issue { id, admin, addr, dir, days, replace } => {
            let bearer = match (id, admin) {
                (Some(id), _) => Bearer::member(&id),
                (None, admin) => Bearer::admin(&admin.unwrap_or_default()),
            };
            bearer.and_then(|bearer| issue(&bearer, &addr, &dir, days, replace))
        }
    };
    print(&text.map_err(|error| Failure::BadInput(error.into()))?);
    Ok(ExitCode::SUCCESS)
}

fn authority(dir: &Path, days: u32) -> Result<String, CertificateError> {
    let made = Authority::create(dir, Validity::days(days))?;
    let (written, dir) = (written(&made), dir.display());
    Ok(format!(
        "{written}\n\nWhoever has ca.key can become any member: keep it off the hosts, and keep a copy.\n\
         Next, for each member:  baton cert issue ID --addr HOST --dir {dir}\n"
    ))
}

fn issue(bearer: &Bearer, hosts: &[String], dir: &Path, days: u32, replace: bool) -> Result<String, CertificateError> {
    let made = Authority::open(dir)?.issue(bearer, hosts, Validity::days(days), replace)?;
    let written = written(&made);
    let (certificate, key) = (file_name(&made.certificate), file_name(&made.key));
    Ok(match bearer {
        Bearer::Member(id) => format!(
            "{written}\nIt names {bearer} at {}.\n\n\
             Copy ca.pem, {certificate} and {key} to the host of {id}, beside its baton.toml,\n\
             owned by the user that runs baton, {key} with mode 0600. Its baton.toml says:\n\n\
             [tls]\nca = \"ca.pem\"\ncert = \"{certificate}\"\nkey = \"{key}\"\n\n\
             A coordinator that runs takes replaced files up by itself.\n",
            hosts.join(", ")
        ),
        Bearer::Admin(_) => format!(
            "{written}\nIt names {bearer}, who may ask and order from any machine, and is no member.\n\n\
             Give ca.pem, {certificate} and {key} to its owner alone. Then, with the address of any member:\n\n\
             baton status --addr HOST:PORT --ca ca.pem --cert {certificate} --key {key}\n\n\
             or once in the environment: BATON_ADDR, BATON_CA, BATON_CERT and BATON_KEY.\n"
        ),
    })
}

fn written(made: &Made) -> String {
    format!("wrote {} and {}, valid until {}", made.certificate.display(), made.key.display(), made.until)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
