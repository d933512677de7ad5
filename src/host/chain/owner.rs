//! Whose node answers where ours is probed. Another process at that address is taken for the chain node otherwise: its
//! health for ours, its word on the key for ours. The proof is positive: the kernel's table names the socket, and a
//! process that descends from our guard has it open. `effects` asks before it believes an answer, `driver` before
//! anything runs.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};

use crate::base::processes::{self, Listener, Stat};
use crate::config::ProbeTarget;

/// Where a chain node is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// These sockets, and all of them, are of the guard's descendants.
    Ours(BTreeSet<u64>),
    /// No connection can be made.
    Nobody,
    /// Somebody else's node, or somebody else's beside ours; in words, with what to do.
    Foreign(String),
    /// The address is none of this host's.
    Elsewhere(IpAddr),
    /// It cannot be known, and why.
    Unknown(String),
}

impl Endpoint {
    /// `None` for a probe that is a program.
    pub fn of(target: &ProbeTarget) -> Option<Endpoint> {
        let authority = match target {
            ProbeTarget::Http { url, .. } | ProbeTarget::JsonRpc { url, .. } => {
                let uri: hyper::Uri = url.parse().ok()?;
                let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
                return Some(Endpoint { host, port: uri.port_u16().unwrap_or(80) });
            }
            ProbeTarget::Tcp { addr } => addr,
            ProbeTarget::Exec { .. } => return None,
        };
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Endpoint { host, port: port.parse().ok()? })
    }

    /// Blocks for as long as a name takes to be resolved; one that cannot be is that of nobody.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        found.map(|found| found.map(|addr| addr.ip()).collect()).unwrap_or_default()
    }

    /// Who would answer now. `proven` are sockets that were shown to be ours before; `guard` has no descendants where
    /// none runs. Blocks for as long as /proc takes, and a name.
    pub fn owner(&self, guard: Option<u32>, proven: &BTreeSet<u64>) -> Owner {
        match self.look(guard, proven) {
            // No look at /proc is a snapshot: the socket may have been closed, or its holder have ended, in the middle
            // of it.
            Owner::Foreign(_) => self.look(guard, proven),
            owner => owner,
        }
    }

    fn look(&self, guard: Option<u32>, proven: &BTreeSet<u64>) -> Owner {
        let addresses = self.addresses();
        if let Some(addr) = addresses.iter().find(|addr| !is_of_this_host(**addr)) {
            return match in_another_network(&family(guard, &processes::all().unwrap_or_default())) {
                true => Owner::Unknown("the chain node runs in a network namespace of its own".to_owned()),
                false => Owner::Elsewhere(*addr),
            };
        }
        let listeners = match processes::listening(self.port) {
            Ok(listeners) => listeners,
            Err(error) => return Owner::Unknown(format!("the kernel does not show who listens: {error}")),
        };
        let reached: Vec<Listener> = addresses.iter().flat_map(|addr| processes::reaching(*addr, &listeners)).collect();
        let inodes: BTreeSet<u64> = reached.iter().map(|listener| listener.inode).collect();
        let unproven: BTreeSet<u64> = inodes.difference(proven).copied().collect();
        if inodes.is_empty() {
            return Owner::Nobody;
        }
        if unproven.is_empty() {
            return Owner::Ours(inodes);
        }
        let all = match processes::all() {
            Ok(all) => all,
            Err(error) => return Owner::Unknown(format!("the kernel shows no processes: {error}")),
        };
        let ours = family(guard, &all);
        let (held, unreadable) = processes::holders(&unproven, ours.iter().copied());
        let left: Vec<&Listener> = reached
            .iter()
            .filter(|listener| unproven.contains(&listener.inode) && !held.contains_key(&listener.inode))
            .collect();
        if left.is_empty() {
            return Owner::Ours(inodes);
        }
        let others = all.iter().map(|process| process.pid).filter(|pid| !ours.contains(pid));
        let (theirs, _) = processes::holders(&left.iter().map(|listener| listener.inode).collect(), others);
        let hidden = |listener: &Listener| unreadable.iter().any(|pid| processes::user(*pid) == Some(listener.uid));
        match left.iter().find(|listener| theirs.contains_key(&listener.inode) || !hidden(listener)) {
            Some(listener) => {
                let pids = theirs.get(&listener.inode).map(|pids| pids.iter().copied().collect());
                Owner::Foreign(self.foreign(listener, pids.unwrap_or_default(), &all))
            }
            None => Owner::Unknown(format!("what process {unreadable:?} has open may not be looked at by this user")),
        }
    }

    /// `pids` have the socket open; there are none when they are another user's, and we are not root.
    fn foreign(&self, listener: &Listener, pids: Vec<u32>, all: &[Stat]) -> String {
        let at = self.shown();
        if let Some(first) = pids.first() {
            let who = processes::named(*first);
            return format!("{who} listens at {at}, and baton did not start it; {}", processes::remedy(&pids));
        }
        let user = processes::user_name(listener.uid);
        let suspects: Vec<u32> = all
            .iter()
            .map(|process| process.pid)
            .filter(|pid| processes::user(*pid) == Some(listener.uid) && processes::is_unreadable(*pid))
            .collect();
        match suspects.as_slice() {
            [one] => {
                let who = processes::named(*one);
                format!("{who} listens at {at}, and baton did not start it; {}", processes::remedy(&[*one]))
            }
            [] => format!(
                "a process of user {user} listens at {at}, and baton did not start it; baton check, run as root, names it; \
                 stop it, and whatever starts it"
            ),
            several => {
                let found: Vec<String> = several.iter().take(4).map(|pid| processes::named_shortly(*pid)).collect();
                let found = found.join(", ");
                format!(
                    "a process of user {user} listens at {at}, and baton did not start it: one of {found}; {}",
                    processes::remedy(several)
                )
            }
        }
    }

    /// What is said of an address that is none of this host's.
    pub fn elsewhere(&self, addr: IpAddr) -> String {
        format!(
            "{}, where the chain node is probed, is no address of this host ({addr}), so another host's node answers; write \
             one of this host into [chain.probe], as 127.0.0.1:{}",
            self.shown(),
            self.port
        )
    }

    pub fn shown(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// The guard and what descends from it; nobody without one.
fn family(guard: Option<u32>, all: &[Stat]) -> BTreeSet<u32> {
    processes::family(guard.into_iter().collect(), all, std::process::id())
}

/// Only an address of an interface can be bound.
fn is_of_this_host(addr: IpAddr) -> bool {
    let bound = || UdpSocket::bind((addr, 0));
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrNotAvailable;
    addr.is_loopback() || addr.is_unspecified() || !bound().is_err_and(|error| missing(&error))
}

fn in_another_network(family: &BTreeSet<u32>) -> bool {
    let own = processes::network(std::process::id());
    family.iter().filter_map(|pid| processes::network(*pid)).any(|network| Some(network) != own)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
    use std::os::fd::OwnedFd;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket, sockopt};

    use super::*;
    use crate::config::Pointers;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint { host: host.to_owned(), port }
    }

    /// The owner once it is the `wanted` one, or after half a minute: a process that another test starts has every socket of
    /// this one until it runs its own program.
    fn await_owner(ask: impl Fn() -> Owner, wanted: &Owner) -> Owner {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let owner = ask();
            if owner == *wanted || Instant::now() > until {
                return owner;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_kind_of_probe_but_a_program_has_an_address() {
        let http = |url: &str| ProbeTarget::Http { url: url.to_owned(), pointers: Pointers::default() };
        let of = |target| Endpoint::of(&target);
        assert_eq!(of(http("http://127.0.0.1:3030/status")), Some(endpoint("127.0.0.1", 3030)));
        assert_eq!(of(http("http://user:secret@localhost/x")), Some(endpoint("localhost", 80)));
        assert_eq!(of(http("http://[::1]:3030")), Some(endpoint("::1", 3030)));
        assert_eq!(of(ProbeTarget::Tcp { addr: "[::1]:8545".to_owned() }), Some(endpoint("::1", 8545)));
        assert_eq!(of(ProbeTarget::Exec { command: vec!["true".to_owned()] }), None);
    }

    #[test]
    fn a_listener_that_no_guard_started_is_named_with_its_pid() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = endpoint("127.0.0.1", listener.local_addr().expect("an address").port());
        let Owner::Foreign(told) = endpoint.owner(None, &BTreeSet::new()) else { panic!("not foreign") };
        let pid = format!("(pid {})", std::process::id());
        assert!(told.contains(&pid) && told.contains(&endpoint.shown()), "{told}");
        let inodes = processes::listening(endpoint.port).expect("a table").iter().map(|found| found.inode).collect();
        assert_eq!(endpoint.owner(None, &inodes), Owner::Ours(inodes.clone()), "what was proven stays so");
        drop(listener);
        assert_eq!(await_owner(|| endpoint.owner(None, &inodes), &Owner::Nobody), Owner::Nobody);
    }

    /// Listens at `port`, or anywhere, beside others that do so too.
    fn shared(port: u16) -> (OwnedFd, u16) {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseport(&socket, true).expect("set");
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).expect("bound");
        listen(&socket, 1).expect("it listens");
        let addr = std::net::SocketAddr::try_from(getsockname(&socket).expect("an address")).expect("of IP");
        (socket, addr.port())
    }

    #[test]
    fn a_socket_of_a_descendant_is_ours_until_somebody_else_shares_the_port() {
        let (first, port) = shared(0);
        let mut node = Command::new("sleep").arg("1000").stdin(first).spawn().expect("sleep starts");
        let endpoint = endpoint("127.0.0.1", port);
        let guard = node.id();
        let ask = || endpoint.owner(Some(guard), &BTreeSet::new());
        let alone = ask();
        let (second, _) = shared(port);
        let shared = ask();
        drop(second);
        let again = await_owner(ask, &alone);
        node.kill().expect("it runs");
        node.wait().expect("its end");
        assert!(matches!(&alone, Owner::Ours(inodes) if inodes.len() == 1), "{alone:?}");
        assert!(
            matches!(&shared, Owner::Foreign(told) if told.contains(&format!("(pid {})", std::process::id()))),
            "{shared:?}"
        );
        assert_eq!(again, alone);
        assert_eq!(await_owner(ask, &Owner::Nobody), Owner::Nobody);
    }

    #[test]
    fn an_address_of_another_host_is_told_as_such() {
        // An address of a range for documentation alone (RFC 5737).
        let other = endpoint("192.0.2.7", 3030);
        let addr = "192.0.2.7".parse().expect("an address");
        assert_eq!(other.owner(None, &BTreeSet::new()), Owner::Elsewhere(addr));
        assert!(other.elsewhere(addr).contains("192.0.2.7:3030") && other.elsewhere(addr).contains("127.0.0.1:3030"));
    }

    const INSIDE: &str = "host::chain::owner::tests::inside_a_pid_namespace_the_listener_is_somebody_elses";
    const PORT: &str = "BATON_TEST_PORT";

    /// A program in a PID namespace of its own, in this network namespace.
    fn in_pid_namespace(program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(program);
        command
    }

    /// As of containers that share a network: the kernel shows the socket, and not who has it.
    #[test]
    fn a_listener_in_another_pid_namespace_is_not_believed() {
        let tried = in_pid_namespace("true").output().expect("unshare(1)");
        if !tried.status.success() {
            let said = String::from_utf8_lossy(&tried.stderr);
            assert!(std::env::var_os("BATON_REQUIRE_NAMESPACES").is_none(), "{said}");
            eprintln!("left out: no PID namespace here: {said}");
            return;
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut inside = in_pid_namespace(std::env::current_exe().expect("this program"));
        let asked = inside.args([INSIDE, "--exact", "--ignored"]).env(PORT, port.to_string()).output();
        let asked = asked.expect("unshare(1)");
        let said = String::from_utf8_lossy(&asked.stdout);
        assert!(asked.status.success() && said.contains("1 passed"), "asked from inside: {said}");

        let mut node =
            in_pid_namespace("sleep").arg("1000").stdin(OwnedFd::from(listener)).spawn().expect("unshare(1)");
        let outside = endpoint("127.0.0.1", port).owner(None, &BTreeSet::new());
        node.kill().expect("it runs");
        node.wait().expect("its end");
        let pid = format!("(pid {})", node.id());
        assert!(matches!(&outside, Owner::Foreign(told) if told.contains(&pid)), "asked from outside: {outside:?}");
    }

    #[test]
    #[ignore = "run by the test above, in a namespace"]
    fn inside_a_pid_namespace_the_listener_is_somebody_elses() {
        let Ok(port) = std::env::var(PORT) else { return };
        let port = port.parse().expect("a number");
        let owner = endpoint("127.0.0.1", port).owner(Some(std::process::id()), &BTreeSet::new());
        let told = "and baton did not start it; baton check, run as root, names it";
        assert!(matches!(&owner, Owner::Foreign(said) if said.contains(told)), "{owner:?}");
    }
}
