//! Free loopback ports for a network that has to find them free again after a host was down for a
//! while. So they lie below the range from which the kernel takes ports for outgoing connections
//! (binding port 0 would hand out one of those). Called when a network is laid out.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};
use rand::RngExt;

const LOWEST: u16 = 10_000;
const DEFAULT_EPHEMERAL_START: u16 = 32_768;

/// `count` different ports of 127.0.0.1, each free at the moment of asking.
pub fn pick(count: usize) -> Result<Vec<u16>> {
    let end = ephemeral_start();
    let mut rng = rand::rng();
    let mut picked = BTreeSet::new();
    let mut held = Vec::new();
    for _ in 0..count * 200 {
        let port = rng.random_range(LOWEST..end);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            picked.insert(port);
            held.push(listener);
        }
        if picked.len() == count {
            return Ok(picked.into_iter().collect());
        }
    }
    bail!("pick {count} free ports of 127.0.0.1 in {LOWEST}..{end}: found only {}", picked.len())
}

fn ephemeral_start() -> u16 {
    read_range().ok().filter(|start| *start > LOWEST + 2_000).unwrap_or(DEFAULT_EPHEMERAL_START)
}

fn read_range() -> Result<u16> {
    let file = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let low = text.split_whitespace().next().context("empty port range")?;
    low.parse().with_context(|| format!("read {file}: {low:?} is not a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picked_ports_differ_are_free_and_never_serve_outgoing_connections() {
        let ports = pick(60).unwrap();
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(distinct.len(), 60, "{ports:?}");
        assert!(ports.iter().all(|p| *p < ephemeral_start()), "{ports:?}");
        // A test beside this one may just be starting a process, which holds our listeners up to its exec.
        let start = std::time::Instant::now();
        let busy = |port: &&u16| TcpListener::bind((Ipv4Addr::LOCALHOST, **port)).is_err();
        while let Some(port) = ports.iter().find(busy) {
            assert!(start.elapsed() < std::time::Duration::from_secs(5), "port {port} is not free");
        }
    }
}
