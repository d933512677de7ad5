//! The wires of hosts in network namespaces: one process that holds the only network device of each (`namespaces.rs`)
//! and carries packets between them. It drops what a cut forbids, in one direction or both, and what a slow host
//! loses, and lets the rest of a slow host's packets come late and out of order; TCP sees real loss. The genesis
//! validators and the harness stand outside the hosts, behind one more device. Started by the launcher.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::unix::AsyncFd;

use crate::net::namespaces::{self, MTU, Namespace};
use crate::net::wires::{Board, Wires};
use crate::net::{Ground, Net, OUTSIDE};

/// One end of the network.
struct Port {
    name: String,
    addr: Ipv4Addr,
    device: AsyncFd<OwnedFd>,
}

/// What becomes of a packet, and whom it is because of.
#[derive(Debug, PartialEq)]
struct Fate<'a> {
    /// `None`: it is lost.
    late_by: Option<Duration>,
    because_of: Vec<&'a str>,
}

impl<'a> Fate<'a> {
    fn draw(wires: &Wires, from: &'a str, to: &'a str) -> Fate<'a> {
        let cutters: Vec<&str> = wires.cutters(from, to).collect();
        if !cutters.is_empty() {
            return Fate { late_by: None, because_of: cutters };
        }
        let slow = wires.slow_ends(from, to);
        let lost: Vec<&str> = slow.iter().filter(|(_, slow)| slow.loses()).map(|(host, _)| *host).collect();
        if !lost.is_empty() {
            return Fate { late_by: None, because_of: lost };
        }
        let late_by = slow.iter().map(|(_, slow)| slow.delay()).sum();
        // What only loses has not touched a packet that got through.
        let late = slow.iter().filter(|(_, slow)| slow.delay_ms_max > 0).map(|(host, _)| *host);
        Fate { late_by: Some(late_by), because_of: late.collect() }
    }
}

/// Makes the namespaces, which last as long as this process or any in them, and serves until it is killed.
pub fn serve(net: &Net) -> Result<()> {
    let mut made = Vec::new();
    for host in &net.hosts {
        let namespace = Namespace::make(host.addr).with_context(|| format!("make the network of {}", host.id))?;
        made.push((host.id.clone(), host.addr, namespace));
    }
    let own = std::process::id();
    let path = |namespace: &Namespace| PathBuf::from(format!("/proc/{own}/fd/{}", namespace.net.as_raw_fd()));
    let paths: BTreeMap<String, PathBuf> = made.iter().map(|(id, _, made)| (id.clone(), path(made))).collect();
    let outside = Ground::Namespaces.addr(OUTSIDE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let mut ports = vec![port("outside".into(), outside, namespaces::device(outside)?)?];
        let mut kept_open = Vec::new();
        for (id, addr, namespace) in made {
            ports.push(port(id, addr, namespace.device)?);
            kept_open.push(namespace.net);
        }
        let (ports, board) = (Arc::new(ports), Arc::new(Board::new(paths)));
        for i in 0..ports.len() {
            tokio::spawn(carry(ports.clone(), i, board.clone()));
        }
        board.serve(&net.wires_socket(), || bail!("the switch counts no bytes: ask on loopback")).await
    })
}

fn port(name: String, addr: Ipv4Addr, device: OwnedFd) -> Result<Port> {
    // SAFETY: It stays open, and this one, for as long as the port owns it, which is until the process ends.
    #[allow(unsafe_code)]
    let device = unsafe { AsyncFd::register(device) }.with_context(|| format!("await packets of {name}"))?;
    Ok(Port { name, addr, device })
}

/// Every packet that `ports[from]` sends gets its fate.
async fn carry(ports: Arc<Vec<Port>>, from: usize, board: Arc<Board>) {
    let wires = board.watch();
    let mut packet = vec![0; MTU];
    let sender = &ports[from];
    loop {
        let read = sender.device.async_io(tokio::io::Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut packet)?));
        let Ok(size) = read.await else {
            eprintln!("{}: its device is gone", sender.name);
            return;
        };
        let packet = &packet[..size];
        let Some(to) = destination(packet).and_then(|addr| ports.iter().position(|port| port.addr == addr)) else {
            continue; // multicast, IPv6: nobody's
        };
        let fate = Fate::draw(&wires.borrow(), &sender.name, &ports[to].name);
        fate.because_of.iter().for_each(|host| board.strike(host));
        match fate.late_by {
            None => {}
            Some(Duration::ZERO) => deliver(&ports[to], packet),
            Some(late_by) => {
                let (ports, packet) = (ports.clone(), packet.to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep(late_by).await;
                    deliver(&ports[to], &packet);
                });
            }
        }
    }
}

/// A device that takes no more loses the packet, as devices do.
fn deliver(port: &Port, packet: &[u8]) {
    let _ = rustix::io::write(port.device.get_ref(), packet);
}

/// Of an IPv4 packet.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let version = packet.first()? >> 4;
    let field: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (version == 4).then_some(Ipv4Addr::from(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::wires::{Slow, Way};

    #[test]
    fn a_one_way_cut_drops_one_direction_and_names_its_host() {
        let wires = Wires { cuts: [("a".into(), Way::Out)].into(), ..Wires::default() };
        assert_eq!(Fate::draw(&wires, "a", "b"), Fate { late_by: None, because_of: vec!["a"] });
        assert_eq!(Fate::draw(&wires, "b", "a"), Fate { late_by: Some(Duration::ZERO), because_of: vec![] });
    }

    #[test]
    fn a_packet_is_late_or_lost_by_either_end() {
        let slow = |slow| Wires { slow: [("b".into(), slow)].into(), ..Wires::default() };
        let lossy = slow(Slow { lost_percent: 100, ..Slow::default() });
        assert_eq!(Fate::draw(&lossy, "a", "b"), Fate { late_by: None, because_of: vec!["b"] });
        assert_eq!(Fate::draw(&lossy, "a", "c"), Fate { late_by: Some(Duration::ZERO), because_of: vec![] });
        let fate = Fate::draw(&slow(Slow { delay_ms_max: 30, ..Slow::default() }), "b", "a");
        let Some(late_by) = fate.late_by else { panic!("lost: {fate:?}") };
        assert!(late_by <= Duration::from_millis(30) && fate.because_of == ["b"], "{late_by:?}");
    }

    #[test]
    fn only_an_ipv4_packet_has_a_destination() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 77, 0, 2]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(10, 77, 0, 2)));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
    }
}
