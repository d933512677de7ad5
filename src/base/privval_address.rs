//! Where a chain node waits for its remote signer, written as in its `priv_validator_laddr`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path of a socket, without the zero byte behind it (`sun_path` of unix(7)).
const PATH_MAX: usize = 107;
const UNIX: &str = "unix://";
const TCP: &str = "tcp://";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PrivvalAddress {
    /// Absolute. The node is one of this host.
    Unix(PathBuf),
    /// HOST:PORT, with a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp(String),
}

/// What is wrong with an address, in words that follow it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} {problem}")]
pub struct BadAddress {
    address: String,
    problem: String,
}

impl FromStr for PrivvalAddress {
    type Err = BadAddress;

    fn from_str(address: &str) -> Result<PrivvalAddress, BadAddress> {
        let parsed = if let Some(path) = address.strip_prefix(UNIX) {
            unix(path)
        } else if let Some(endpoint) = address.strip_prefix(TCP) {
            tcp(endpoint)
        } else {
            Err("begins with neither unix:// nor tcp://".to_owned())
        };
        parsed.map_err(|problem| BadAddress { address: address.to_owned(), problem })
    }
}

impl fmt::Display for PrivvalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrivvalAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            PrivvalAddress::Tcp(endpoint) => write!(f, "{TCP}{endpoint}"),
        }
    }
}

fn unix(path: &str) -> Result<PrivvalAddress, String> {
    if !path.starts_with('/') {
        return Err("has no absolute path".to_owned());
    }
    if path.len() > PATH_MAX {
        return Err(format!("has a path of {} bytes, and a socket's has at most {PATH_MAX}", path.len()));
    }
    Ok(PrivvalAddress::Unix(path.into()))
}

fn tcp(endpoint: &str) -> Result<PrivvalAddress, String> {
    if endpoint.contains('@') {
        return Err("names a node's id, and a node has another one at each start; leave it out".to_owned());
    }
    let (host, port) = endpoint.rsplit_once(':').ok_or("has no port")?;
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("has no port from 1 to 65535, but {port:?}"));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip: Option<IpAddr> = bare.unwrap_or(host).parse().ok();
    match ip {
        Some(ip) if ip.is_unspecified() => Err("is where a node listens; name the host that it runs on".to_owned()),
        Some(IpAddr::V6(_)) if bare.is_none() => Err("has an IPv6 address without brackets".to_owned()),
        Some(IpAddr::V4(_)) if bare.is_some() => Err("has brackets around what is no IPv6 address".to_owned()),
        None if bare.is_some() => Err("has brackets around what is no IPv6 address".to_owned()),
        None if host.is_empty() => Err("has no host".to_owned()),
        None if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) => {
            Err(format!("has {host:?} in place of a host's name or address"))
        }
        Some(_) | None => Ok(PrivvalAddress::Tcp(endpoint.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_written() {
        for address in [
            "unix:///run/node/privval.sock",
            "tcp://10.0.0.5:26659",
            "tcp://[fd00::5]:26659",
            "tcp://sentry-1.example.org:26659",
        ] {
            assert_eq!(address.parse::<PrivvalAddress>().expect(address).to_string(), address);
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        let long = format!("unix:///{}", "x".repeat(PATH_MAX));
        for (bad, expected) in [
            ("/run/node/privval.sock", "begins with neither unix:// nor tcp://"),
            ("unix://privval.sock", "has no absolute path"),
            (long.as_str(), "has a path of 108 bytes"),
            ("tcp://10.0.0.5", "has no port"),
            ("tcp://10.0.0.5:0", "has no port from 1 to 65535, but \"0\""),
            ("tcp://10.0.0.5:privval", "has no port from 1 to 65535"),
            ("tcp://0.0.0.0:26659", "is where a node listens"),
            ("tcp://[::]:26659", "is where a node listens"),
            ("tcp://fd00::5:26659", "has an IPv6 address without brackets"),
            ("tcp://[10.0.0.5]:26659", "has brackets around"),
            ("tcp://[sentry]:26659", "has brackets around"),
            ("tcp://:26659", "has no host"),
            ("tcp://a b:26659", "in place of a host's name"),
            ("tcp://0a0b@10.0.0.5:26659", "names a node's id"),
        ] {
            let refused = bad.parse::<PrivvalAddress>().expect_err(bad).to_string();
            assert!(refused.starts_with(&format!("{bad:?} ")) && refused.contains(expected), "{refused}");
        }
    }
}
