//! What is somebody else's on a host: `baton check` names it before anything runs, and a start refuses what no later
//! moment mends. A host that has only what is its own passes, also while it runs.

use std::fs;
use std::net::TcpListener;
use std::ops::Deref;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::kit::host::write_key;
use crate::kit::program::{ONE_MEMBER, Running, baton, coordinator_in, free_addresses};
use crate::kit::stage::Stage;

const BOUND: Duration = Duration::from_secs(60);
const CONFIG: &str = r#"
[timing]
profile = "wan"
[chain]
driver = "generic"
home = "home"
command = ["ME", "--ignored", "--exact", "foreign_node::node_process"]
env = { FOREIGN_NODE_LISTENS = "NODE" }
[[chain.links]]
link = "key"
validating = "key.json"
[chain.activate]
how = "restart"
[chain.probe]
tcp = "NODE"
every = "50ms"
"#;

/// Not a test: the coordinators of the others start it as their chain node.
#[test]
#[ignore = "the chain node that the other tests start"]
fn node_process() {
    if let Ok(addr) = std::env::var("FOREIGN_NODE_LISTENS") {
        let listener = TcpListener::bind(addr).expect("its address");
        listener.incoming().for_each(drop);
    }
}

struct Host {
    stage: Stage,
    node: String,
}

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Host {
    fn new(cluster: &str) -> Host {
        let [listen, node] = free_addresses();
        let me = std::env::current_exe().expect("this program");
        let text = [ONE_MEMBER, CONFIG].concat().replace("\"one\"", &format!("{cluster:?}")).replace("PEERS", &listen);
        let text = text.replace("ME\"", &format!("{}\"", me.display())).replace("\"NODE\"", &format!("{node:?}"));
        let stage = Stage::new(&text);
        write_key(&stage.path("key.json"), "{}");
        Host { stage, node }
    }

    fn set(self, from: &str, to: &str) -> Host {
        self.edit(from, to);
        self
    }

    /// Exit code, and both outputs.
    fn told(&self, verb: &str) -> (Option<i32>, String) {
        let mut command = baton(&[verb, "--config", "baton.toml"]);
        let output = command.current_dir(&*self.stage).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn assert_passes(&self) {
        let (code, told) = self.told("check");
        let of_place = ["warning: chain.probe: ", "warning: chain.home"];
        assert!(code == Some(0) && !of_place.iter().any(|warning| told.contains(warning)), "{code:?}: {told}");
    }

    fn assert_refused(&self, verb: &str, words: &[&str]) {
        let (code, told) = self.told(verb);
        assert_eq!((code, told.lines().count()), (Some(2), 1), "{verb}: {told}");
        for word in words {
            assert!(told.contains(word), "{verb} does not say {word:?}: {told}");
        }
    }

    /// A coordinator whose chain node is up.
    fn run(&self) -> Running {
        let running = Running(coordinator_in(&self.stage).spawn().expect("it starts"));
        self.until(&format!("a node at {}", self.node), || std::net::TcpStream::connect(&self.node).ok());
        running
    }
}

#[test]
fn a_node_that_listens_before_baton_does_is_named_by_check_with_its_pid() {
    let host = Host::new("one");
    host.assert_passes();
    let other = TcpListener::bind(&host.node).expect("its address");
    let pid = format!("(pid {})", std::process::id());
    host.assert_refused("check", &["chain.probe: ", &pid, &host.node, "baton did not start it; stop it"]);
    drop(other);
    // A process that another test starts at this moment has the listener too, until its program begins.
    let since = Instant::now();
    while host.told("check").0 != Some(0) {
        assert!(since.elapsed() < BOUND, "it is found for ever");
    }
    host.assert_passes();
}

#[test]
fn what_check_finds_of_a_host_that_runs_is_its_own() {
    let host = Host::new("one");
    let _running = host.run();
    host.assert_passes();
}

#[test]
fn guard_and_standby_that_wait_for_the_next_coordinator_are_still_its_own() {
    let host = Host::new("one");
    drop(host.run());
    host.assert_passes();
}

#[test]
fn a_home_that_another_process_has_locked_is_told_by_check() {
    let host = Host::new("one");
    let lock = host.path("home/data/LOCK");
    fs::create_dir(host.path("home/data")).expect("a folder");
    fs::write(&lock, "").expect("a file");
    let mut command = Command::new("flock");
    let held = command.arg(&lock).args(["sleep", "1000"]).spawn().expect("flock(1)");
    let held = Running(held);
    let since = Instant::now();
    while host.told("check").0 == Some(0) {
        assert!(since.elapsed() < BOUND, "it is never found");
    }
    host.assert_refused("check", &["chain.home: ", "(pid ", "home/data/LOCK open", "baton did not start it"]);
    end_children(held.0.id());
    drop(held);
}

/// flock(1) runs what it was told as its child.
fn end_children(pid: u32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    }
}

#[test]
fn two_coordinators_with_one_home_are_refused_by_the_second() {
    let (first, second) = (Host::new("one"), Host::new("one"));
    let running = first.run();
    let pid = format!("(pid {})", running.0.id());
    let home = first.path("home").canonicalize().expect("a path");
    let second = second.set("\"home\"", &format!("{:?}", home.to_str().expect("UTF-8")));
    second.assert_refused("run", &["chain.home ", &pid, "another coordinator"]);
    // Its node is found first.
    second.assert_refused("check", &["chain.home", "(pid "]);
}

#[test]
fn two_clusters_with_one_key_are_refused_by_the_second_and_members_of_one_are_not() {
    let (first, second, third) = (Host::new("one"), Host::new("two"), Host::new("one"));
    let running = first.run();
    let pid = format!("(pid {})", running.0.id());
    let shares = |host: Host| {
        let key = first.path("key.json").canonicalize().expect("a path");
        host.set("\"key.json\"", &format!("{:?}", key.to_str().expect("UTF-8")))
    };
    let (second, third) = (shares(second), shares(third));
    for verb in ["check", "run"] {
        second.assert_refused(verb, &["key.json", &pid, "cluster one", "two clusters with one key sign twice"]);
    }
    third.assert_passes();
    drop(third.run());
}

/// As neard writes it; its halves are no key of anybody's.
fn validator_key(public: &str) -> String {
    format!(r#"{{"account_id": "node3", "public_key": "ed25519:{public}", "secret_key": "ed25519:S{public}"}}"#)
}

impl Host {
    /// Of a driver that knows how its key is written.
    fn of_near(cluster: &str, key: &str) -> Host {
        let host = Host::new(cluster);
        write_key(&host.path("key.json"), key);
        let config = r#"{"tracked_shards_config": "AllShards"}"#;
        fs::write(host.path("home/config.json"), config).expect("a config.json");
        let (tcp, url) = (format!("tcp = {:?}", host.node), format!("url = \"http://{}/status\"", host.node));
        host.set("\"generic\"", "\"near\"").set("link = \"key\"", "link = \"validator_key.json\"").set(&tcp, &url)
    }
}

#[test]
fn two_clusters_with_copies_of_one_key_are_refused_by_the_second_and_those_with_two_keys_are_not() {
    let first = Host::of_near("one", &validator_key("P"));
    let running = first.run();
    let pid = format!("(pid {})", running.0.id());
    // Written otherwise.
    let copy = validator_key("P").replace(": \"ed25519:", ":\"");
    let (second, third, fourth) =
        (Host::of_near("two", &copy), Host::of_near("one", &copy), Host::of_near("two", &validator_key("Q")));
    for verb in ["check", "run"] {
        let words =
            ["a copy of validator key", "key.json", &pid, "cluster one", "two clusters with one key sign twice"];
        second.assert_refused(verb, &words);
    }
    third.assert_passes();
    fourth.assert_passes();
    drop((third.run(), fourth.run()));
}

#[test]
fn a_probe_of_another_members_node_is_refused() {
    // Of a range that is for documentation alone (RFC 5737).
    let host = Host::new("one");
    let listen = fs::read_to_string(host.path("baton.toml")).expect("a configuration");
    let listen = listen.lines().find_map(|line| line.strip_prefix("listen = ")).expect("its address").to_owned();
    let members = format!(
        "members = [{{ id = \"a\", addr = {listen} }}, {{ id = \"b\", addr = \"192.0.2.7:7401\" }}, \
         {{ id = \"c\", addr = \"192.0.2.8:7401\", role = \"arbiter\" }}]\n[tls]\ninsecure = true\n#"
    );
    let host = host.set("members = ", &members);
    let probe = format!("tcp = {:?}", host.node);
    let host = host.set(&probe, "tcp = \"192.0.2.7:3030\"");
    let words = ["192.0.2.7:3030", "no address of this host", "address of member b", "127.0.0.1:3030"];
    host.assert_refused("check", &words);
    host.assert_refused("run", &words);
    let host = host.set("192.0.2.7:3030", "192.0.2.9:3030");
    let (code, told) = host.told("check");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("warning: chain.probe: 192.0.2.9:3030"), "{told}");
}
