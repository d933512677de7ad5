//! Which coordinator a command asks: the one of this host over its socket, or any member over TLS, with the certificate
//! of an admin. Flags come first, then variables; what is said twice is refused.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::Failure;
use super::config_file::ConfigFile;
use crate::config::{Config, Tls};

#[derive(Debug, Args)]
pub(super) struct Reach {
    #[command(flatten)]
    here: Here,
    /// A member, to be asked over TLS from any machine [default: BATON_ADDR; without it, the coordinator of this host]
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["config", "socket"])]
    addr: Option<String>,
    #[command(flatten)]
    files: AdminFiles,
}

/// [`Reach`] of a command that has another --addr.
#[derive(Debug, Args)]
pub(super) struct ReachVia {
    #[command(flatten)]
    here: Here,
    /// A member, to be asked over TLS from any machine [default: BATON_ADDR; without it, the coordinator of this host]
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["config", "socket"])]
    via: Option<String>,
    #[command(flatten)]
    files: AdminFiles,
}

impl From<ReachVia> for Reach {
    fn from(ReachVia { here, via, files }: ReachVia) -> Reach {
        Reach { here, addr: via, files }
    }
}

/// The coordinator of this host.
#[derive(Debug, Args)]
struct Here {
    #[command(flatten)]
    file: ConfigFile,
    /// The coordinator's socket, instead of a configuration that names its directory
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct AdminFiles {
    /// The cluster's authority, to ask a member over TLS [default: BATON_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate of an admin, as baton cert issue --admin makes it [default: BATON_CERT]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key [default: BATON_KEY]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Where a coordinator is asked.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Socket(PathBuf),
    Member { addr: String, files: Tls },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(path) => path.display().fmt(f),
            Place::Member { addr, .. } => addr.fmt(f),
        }
    }
}

impl Reach {
    pub(super) fn place(&self) -> Result<Place, Failure> {
        match self.member(|name| std::env::var_os(name).filter(|value| !value.is_empty())).map_err(Failure::BadInput)? {
            Some((addr, files)) => Ok(Place::Member { addr, files }),
            None => match &self.here.socket {
                Some(socket) => Ok(Place::Socket(socket.clone())),
                None => Ok(Place::Socket(
                    self.here.file.load_without_keys()?.run_dir.join(crate::operator::admin::SOCKET_NAME),
                )),
            },
        }
    }

    /// The configuration of this host, for `what`: "--window asks the chain node".
    ///
    /// # Errors
    /// Another host is asked, which has another.
    pub(super) fn own_config(&self, what: &str) -> Result<Config, Failure> {
        match self.place()? {
            Place::Socket(_) => self.here.file.load_without_keys(),
            Place::Member { addr, .. } => Err(Failure::BadInput(anyhow!(
                "{what} of this host and not of the one at {addr}; leave it out, or run baton there"
            ))),
        }
    }

    /// Whether the coordinator that is asked is the one of a configuration: neither at an address nor at a bare socket.
    pub(super) fn is_by_config(&self) -> Result<bool, Failure> {
        Ok(self.here.socket.is_none() && matches!(self.place()?, Place::Socket(_)))
    }

    /// `None`: the coordinator of this host.
    fn member(&self, variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Option<(String, Tls)>> {
        let Reach { here: Here { file, socket }, addr, files: AdminFiles { ca, cert, key } } = self;
        let said_here = file.config.is_some() || socket.is_some();
        let addr = match (addr, variable("BATON_ADDR")) {
            (Some(addr), _) => addr.clone(),
            (None, Some(_)) if !said_here && variable("BATON_CONFIG").is_some() => {
                return Err(anyhow!(
                    "BATON_ADDR and BATON_CONFIG lead to two coordinators; unset one of them, or say --addr or --config"
                ));
            }
            (None, Some(addr)) if !said_here => {
                addr.into_string().map_err(|_| anyhow!("BATON_ADDR is not UTF-8; write HOST:PORT"))?
            }
            (None, _) if ca.is_some() || cert.is_some() || key.is_some() => {
                return Err(anyhow!(
                    "--ca, --cert and --key are for a member at an address; name it, or leave them out"
                ));
            }
            (None, _) => return Ok(None),
        };
        let file = |said: &Option<PathBuf>, flag: &str, name: &str| {
            let found = said.clone().or_else(|| variable(name).map(PathBuf::from));
            found.ok_or_else(|| anyhow!("{addr} is asked over TLS, which takes {flag} FILE (or {name})"))
        };
        let files = Tls {
            ca: file(ca, "--ca", "BATON_CA")?,
            cert: file(cert, "--cert", "BATON_CERT")?,
            key: file(key, "--key", "BATON_KEY")?,
        };
        Ok(Some((addr, files)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        reach: Reach,
    }

    const FILES: [(&str, &str); 3] = [("BATON_CA", "v.ca"), ("BATON_CERT", "v.pem"), ("BATON_KEY", "v.key")];

    fn chosen(args: &str, variables: &[(&str, &str)]) -> Result<Option<(String, Tls)>, String> {
        let words = std::iter::once("x").chain(args.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        line.reach.member(find).map_err(|error| error.to_string())
    }

    fn at(addr: &str, [ca, cert, key]: [&str; 3]) -> Result<Option<(String, Tls)>, String> {
        Ok(Some((addr.into(), Tls { ca: ca.into(), cert: cert.into(), key: key.into() })))
    }

    #[test]
    fn a_flag_comes_before_its_variable_and_this_host_is_asked_without_either() {
        let all = [&[("BATON_ADDR", "v:1")], &FILES[..]].concat();
        assert_eq!(chosen("", &FILES), Ok(None));
        assert_eq!(chosen("", &all), at("v:1", ["v.ca", "v.pem", "v.key"]));
        assert_eq!(chosen("--addr f:1 --cert f.pem", &all), at("f:1", ["v.ca", "f.pem", "v.key"]));
        assert_eq!(chosen("--addr f:1 --ca a --cert b --key c", &[]), at("f:1", ["a", "b", "c"]));
        assert_eq!(chosen("--socket s", &all), Ok(None), "what the line says");
        assert_eq!(chosen("--config c", &all), Ok(None), "what the line says");
        assert_eq!(chosen("--addr f:1", &[&all[..], &[("BATON_CONFIG", "c")]].concat()), {
            at("f:1", ["v.ca", "v.pem", "v.key"])
        });
    }

    #[test]
    fn two_coordinators_at_once_and_half_a_set_of_files_are_refused() {
        for (args, variables, part) in [
            ("--addr f:1 --socket s", &[][..], "cannot be used with"),
            ("--addr f:1 --config c", &[], "cannot be used with"),
            ("", &[("BATON_ADDR", "v:1"), ("BATON_CONFIG", "c")], "BATON_ADDR and BATON_CONFIG lead to two"),
            ("--addr f:1", &FILES[..2], "f:1 is asked over TLS, which takes --key FILE (or BATON_KEY)"),
            ("--ca a", &[], "--ca, --cert and --key are for a member at an address"),
            ("--socket s --key a", &[("BATON_ADDR", "v:1")], "--ca, --cert and --key are for a member at an address"),
        ] {
            let refused = chosen(args, variables).expect_err(args);
            assert!(refused.contains(part), "{args} {variables:?}: {refused}");
        }
    }
}
