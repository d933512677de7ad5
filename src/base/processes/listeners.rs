//! Who listens at a TCP port of this network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A socket that takes connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub addr: IpAddr,
    pub inode: u64,
    pub uid: u32,
}

/// The state TCP_LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";

/// The sockets that listen at `port`, on whatever address.
///
/// # Errors
/// When the kernel does not show them. Without IPv6 there are none of that kind.
pub fn listening(port: u16) -> io::Result<Vec<Listener>> {
    // This thread's namespace is the one in which it would connect.
    let mut found = parse_listening(BufReader::new(File::open("/proc/thread-self/net/tcp")?), port)?;
    match File::open("/proc/thread-self/net/tcp6") {
        Ok(table) => found.extend(parse_listening(BufReader::new(table), port)?),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// A table in the form of /proc/net/tcp or tcp6. The kernel shows the listening sockets first: what comes after the
/// first other one, on a busy node thousands of lines, is not read.
pub fn parse_listening(table: impl BufRead, port: u16) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let line = line?;
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.get(3) != Some(&LISTEN) {
            break;
        }
        found.extend(listener(&fields).filter(|(at, _)| *at == port).map(|(_, listener)| listener));
    }
    Ok(found)
}

/// proc_pid_net(5): `sl local_address rem_address st queues timer retrnsmt uid timeout inode …`.
fn listener(fields: &[&str]) -> Option<(u16, Listener)> {
    let (addr, port) = fields.get(1)?.split_once(':')?;
    // Each group of eight digits is a number in this machine's order whose bytes are in the network's.
    let word = |at: usize| Some(u32::from_str_radix(addr.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let addr = match addr.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()
        }
        _ => return None,
    };
    let listener = Listener { addr, uid: fields.get(7)?.parse().ok()?, inode: fields.get(9)?.parse().ok()? };
    Some((u16::from_str_radix(port, 16).ok()?, listener))
}

/// Those of `listeners` that may get a connection to `target`. With SO_REUSEPORT they are several, in turn.
pub fn reaching(target: IpAddr, listeners: &[Listener]) -> Vec<Listener> {
    let target = match target.to_canonical() {
        // A connection to "any address" is one to this host.
        IpAddr::V4(addr) if addr.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(addr) if addr.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    let of_kind = |any: IpAddr| -> Vec<Listener> {
        listeners.iter().filter(|listener| listener.addr == target || listener.addr == any).cloned().collect()
    };
    match target {
        IpAddr::V6(_) => of_kind(Ipv6Addr::UNSPECIFIED.into()),
        // A socket of any IPv6 address takes those of IPv4 too, unless it was told not to or there is one for them.
        IpAddr::V4(_) => match of_kind(Ipv4Addr::UNSPECIFIED.into()) {
            none if none.is_empty() => of_kind(Ipv6Addr::UNSPECIFIED.into()),
            some => some,
        },
    }
}

/// Which of `pids` have each of the sockets `inodes` open, and those of `pids` that may not be looked at.
pub fn holders(inodes: &BTreeSet<u64>, pids: impl Iterator<Item = u32>) -> (BTreeMap<u64, BTreeSet<u32>>, Vec<u32>) {
    let (mut holders, mut unreadable) = (BTreeMap::<u64, BTreeSet<u32>>::new(), Vec::new());
    for pid in pids {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                unreadable.push(pid);
                continue;
            }
            // It has ended.
            Err(_) => continue,
        };
        for link in entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                holders.entry(inode).or_default().insert(pid);
            }
        }
    }
    (holders, unreadable)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    /// A line as this machine's kernel would write it.
    fn line(addr: &str, port: u16, state: &str, uid: u32, inode: u64) -> String {
        let bytes = match addr.parse().expect("an address") {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let words = bytes.chunks(4).map(|four| u32::from_ne_bytes(four.try_into().expect("four")));
        let addr: String = words.map(|word| format!("{word:08X}")).collect();
        format!(
            "   0: {addr}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5} 0 {inode} 1 x\n"
        )
    }

    fn parse(table: &str, port: u16) -> Vec<Listener> {
        parse_listening(table.as_bytes(), port).expect("a table")
    }

    fn at(addr: &str, inode: u64) -> Listener {
        Listener { addr: addr.parse().expect("an address"), inode, uid: 7 }
    }

    #[test]
    fn a_table_of_ipv4_tells_address_inode_and_user_of_those_that_listen_at_the_port() {
        let table = [
            HEAD,
            &line("127.0.0.1", 3030, "0A", 1001, 11),
            &line("0.0.0.0", 3031, "0A", 0, 12),
            &line("10.0.0.1", 3030, "0A", 0, 13),
            &line("127.0.0.1", 3030, "01", 1001, 14),
            &line("127.0.0.1", 3030, "0A", 1001, 15),
        ];
        let found = parse(&table.concat(), 3030);
        let expected = [Listener { uid: 1001, ..at("127.0.0.1", 11) }, Listener { uid: 0, ..at("10.0.0.1", 13) }];
        assert_eq!(found, expected, "what follows the first connection is not read");
    }

    #[test]
    fn a_line_that_a_kernel_wrote_is_understood() {
        if cfg!(target_endian = "little") {
            let line =
                "   0: 0100007F:0BD6 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 5123 1\n";
            assert_eq!(parse(&format!("{HEAD}{line}"), 3030), [Listener { uid: 1001, ..at("127.0.0.1", 5123) }]);
        }
    }

    #[test]
    fn a_table_of_ipv6_tells_mapped_addresses_as_those_of_ipv4() {
        let table = [HEAD, &line("::", 3030, "0A", 7, 1), &line("::ffff:127.0.0.1", 3030, "0A", 7, 2)].concat();
        assert_eq!(parse(&table, 3030), [at("::", 1), at("127.0.0.1", 2)]);
    }

    #[test]
    fn lines_that_make_no_sense_are_no_listeners() {
        for line in ["", "x", "0: 0100007F 0 0A 0 0 0 1 0 1", "0: 01:0BD6 0 0A 0 0 0 1 0 1", "0: 0100007F:0BD6 0 0A"] {
            assert_eq!(parse(&format!("{HEAD}{line}\n"), 3030), [], "{line:?}");
        }
    }

    #[test]
    fn a_connection_reaches_the_sockets_of_its_address_and_of_any() {
        let reached = |target: &str, sockets: &[&str]| -> Vec<u64> {
            let sockets: Vec<Listener> = (0..).zip(sockets).map(|(inode, addr)| at(addr, inode)).collect();
            reaching(target.parse().expect("an address"), &sockets).iter().map(|listener| listener.inode).collect()
        };
        assert_eq!(reached("127.0.0.1", &["127.0.0.1", "10.0.0.1", "0.0.0.0"]), [0, 2]);
        assert_eq!(reached("127.0.0.1", &["::1", "::"]), [1], "of both kinds");
        assert_eq!(reached("127.0.0.1", &["0.0.0.0", "::"]), [0], "one for IPv4 goes before one of both kinds");
        assert_eq!(reached("::1", &["::1", "::", "127.0.0.1", "0.0.0.0"]), [0, 1]);
        assert_eq!(reached("0.0.0.0", &["127.0.0.1", "10.0.0.1"]), [0]);
        assert_eq!(reached("::ffff:127.0.0.1", &["127.0.0.1"]), [0]);
    }

    #[test]
    fn a_socket_of_this_process_is_found_with_its_holder() {
        for addr in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            // A machine may have no IPv6.
            let Ok(listener) = TcpListener::bind(addr) else { continue };
            let addr = listener.local_addr().expect("an address");
            let found = listening(addr.port()).expect("a table");
            let [Listener { addr: shown, inode, .. }] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!(*shown, addr.ip());
            let me = std::process::id();
            let (holders, unreadable) = holders(&[*inode].into(), [me].into_iter());
            assert_eq!((holders, unreadable), ([(*inode, [me].into())].into(), vec![]));
        }
    }
}
