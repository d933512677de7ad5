//! The containers of `deploy/` on a real Docker engine, which the test starts and ends itself: the image is built from
//! static programs and nothing else, a lost container fails over, and nothing is signed twice.

#[path = "compose/engine.rs"]
mod engine;

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Ground, LOCALNET};
use engine::Engine;
use localnet::net::Net;
use localnet::signlog;
use rustix::process::{Resource, getrlimit};
use serde_json::Value;

/// Containers without a real-time priority on a busy machine may lose a lease on the way.
const MOVE_BOUND: Duration = Duration::from_secs(120);

/// A network of containers, and the engine that it is on.
struct Containers {
    // Dropped in this order: the network is taken down on an engine that runs.
    ground: Ground,
    engine: Engine,
    net: Net,
}

impl Containers {
    fn up() -> Containers {
        let ground = Ground::new();
        let engine = Engine::start(Path::new(LOCALNET));
        let mut up = ground.command(&["up", "--on", "compose"]);
        // An engine that may not raise limits, as in a container, has those that we have.
        for (name, wanted, limit) in [
            ("BATON_MEMLOCK", 64 << 20, Resource::Memlock),
            ("BATON_RTPRIO", 2, Resource::Rtprio),
            ("BATON_NOFILE", 65535, Resource::Nofile),
        ] {
            up.env(name, getrlimit(limit).maximum.map_or(wanted, |most| most.min(wanted)).to_string());
        }
        let up = engine.output(up);
        let text = format!("{}{}", String::from_utf8_lossy(&up.stdout), String::from_utf8_lossy(&up.stderr));
        assert!(up.status.success(), "localnet up --on compose: {text}");
        let net = ground.net();
        Containers { ground, engine, net }
    }

    /// `localnet ARGS`, which ends with `code`; what it said.
    fn localnet(&self, args: &[&str], code: i32) -> String {
        let output = self.engine.output(self.ground.command(args));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "localnet {args:?}: {out}{err}");
        format!("{out}{err}")
    }

    fn name(&self, host: &str) -> String {
        localnet::compose::container(&self.net, host).unwrap()
    }

    /// What a host says of all, by `localnet exec`.
    fn status(&self, host: &str) -> Option<Value> {
        let output = self.engine.output(self.ground.command(&["exec", host, "--", "baton", "status", "--json"]));
        serde_json::from_slice(&output.stdout).ok()
    }

    fn await_member(&self, seen_from: &str, awaited: &str, is_there: impl Fn(&Value) -> bool) -> String {
        let start = Instant::now();
        loop {
            let status = self.status(seen_from);
            let members = status.as_ref().and_then(|status| status["members"].as_array()).cloned().unwrap_or_default();
            if let Some(found) = members.iter().find(|member| is_there(member)) {
                return found["id"].as_str().unwrap().to_string();
            }
            let logs = || localnet::compose::diagnosis(&self.net);
            assert!(start.elapsed() < MOVE_BOUND, "{awaited}: not seen from {seen_from}: {status:?}\n{}", logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn await_active(&self, seen_from: &str, but: &str) -> String {
        let awaited = format!("somebody but {but:?} is Active");
        self.await_member(seen_from, &awaited, |m| m["phase"] == "Active" && m["reachable"] == true && m["id"] != but)
    }

    fn await_standby(&self, seen_from: &str, host: &str) {
        self.await_member(seen_from, &format!("{host} is a ready standby"), |m| {
            let ready = m["state"] == "Voting" && m["synced"] == true && m["reachable"] == true;
            m["id"] == host && ready && m["not_ready_because"].as_str().unwrap_or_default().is_empty()
        });
    }

    fn await_healthy(&self, hosts: &[&str]) {
        let start = Instant::now();
        for host in hosts {
            loop {
                let health = self.inspect(host)["State"]["Health"].clone();
                if health["Status"] == "healthy" {
                    break;
                }
                assert!(start.elapsed() < MOVE_BOUND, "{host}: {health}");
                std::thread::sleep(Duration::from_millis(250));
            }
        }
    }

    fn inspect(&self, host: &str) -> Value {
        let text = self.engine.said(&["inspect", &self.name(host)]);
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }

    /// How often the shared key has signed at `host`.
    fn signatures(&self, host: &str) -> usize {
        let log = signlog::read(&self.net.sign_log()).unwrap();
        log.iter().filter(|s| s.key == self.net.shared_key && s.host == host).count()
    }

    fn await_signature_by(&self, host: &str) {
        let (start, before) = (Instant::now(), self.signatures(host));
        while self.signatures(host) <= before {
            assert!(start.elapsed() < MOVE_BOUND, "{host} signs nothing");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
#[ignore = "needs root, a Docker engine, compose and static programs; see README"]
fn containers_fail_over_hand_over_and_leave_nothing_behind() {
    let t = Containers::up();
    let holder = t.await_active("host-c", "");
    let standby = if holder == "host-a" { "host-b" } else { "host-a" };
    t.await_healthy(&["host-a", "host-b", "host-c"]);
    is_confined(&t);

    println!("{holder} holds the baton; its container is killed");
    t.await_signature_by(&holder);
    let killed = Instant::now();
    t.localnet(&["kill", &holder, "host"], 0);
    assert_eq!(t.await_active("host-c", &holder), standby);
    t.await_signature_by(standby);
    println!("{standby} signs {:?} after the order to kill", killed.elapsed());
    assert_eq!(t.inspect(&holder)["State"]["Running"], false, "docker kill counts as the user's wish");

    t.localnet(&["start", &holder], 0);
    t.await_standby("host-c", &holder);
    t.await_healthy(&[&holder]);

    println!("docker stop hands over first");
    let before = t.status("host-c").unwrap()["epoch"].as_u64().unwrap();
    t.engine.said(&["stop", &t.name(standby)]);
    assert_eq!(t.inspect(standby)["State"]["ExitCode"], 0, "it ended within its grace period");
    assert_eq!(t.await_active("host-c", standby), holder);
    let history = t.localnet(&["exec", "host-c", "--", "baton", "history", "--json"], 0);
    let history: Value = serde_json::from_str(&history).unwrap();
    let last = history["moves"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["from"], &last["to"], last["epoch"].as_u64()),
        (&standby.into(), &holder.as_str().into(), Some(before + 1)),
        "{last}"
    );
    assert_eq!(last["kind"], "handover", "{last}");
    t.localnet(&["start", standby], 0);
    t.await_standby("host-c", standby);

    says_what_happens(&t, &holder);
    let verdict = t.localnet(&["check"], 0);
    assert!(verdict.contains("double signatures: 0") && verdict.contains("clean"), "{verdict}");
    println!("{verdict}");
    leaves_nothing(&t);
}

/// What compose.yaml promises, as the engine has it.
fn is_confined(t: &Containers) {
    for host in ["host-a", "host-b", "host-c"] {
        let seen = t.inspect(host);
        let of = &seen["HostConfig"];
        assert_eq!(of["ReadonlyRootfs"], true, "{host}: {of}");
        assert_eq!(of["CapDrop"], serde_json::json!(["ALL"]), "{host}");
        assert_eq!(of["Init"], true, "{host}");
        assert!(of["SecurityOpt"].to_string().contains("no-new-privileges"), "{host}: {}", of["SecurityOpt"]);
        assert_eq!(of["LogConfig"]["Type"], "json-file", "{host}");
        assert_eq!(of["LogConfig"]["Config"], serde_json::json!({"max-size": "10m", "max-file": "3"}), "{host}");
        assert!(of["Tmpfs"]["/run/baton"].is_string(), "{host}: {of}");
        assert_eq!(seen["Config"]["User"], "65532:65532", "{host}");
        assert_eq!(seen["Config"]["Healthcheck"]["Test"][0], "CMD", "{host}");
        let bound = seen["NetworkSettings"]["Ports"].as_object().unwrap().values().flat_map(|p| p.as_array().cloned());
        let bound: Vec<Value> = bound.flatten().collect();
        assert!(!bound.is_empty() && bound.iter().all(|p| p["HostIp"] == "127.0.0.1"), "{host}: {bound:?}");
        assert_no_key_without_need(t, host, &seen);
    }
    // The word of the kernel: the published ports listen on loopback and nowhere else.
    let mut listening = Command::new("cat");
    listening.args(["/proc/net/tcp", "/proc/net/tcp6"]);
    let text = String::from_utf8(t.engine.output(listening).stdout).unwrap();
    for port in &t.net.containers.as_ref().unwrap().published {
        let listens: Vec<&str> =
            text.lines().filter(|line| line.contains(&format!(":{port:04X} 0")) && line.contains(" 0A ")).collect();
        assert!(
            !listens.is_empty() && listens.iter().all(|l| l.contains(&format!("0100007F:{port:04X}"))),
            "{port}: {listens:?}"
        );
    }
}

fn assert_no_key_without_need(t: &Containers, host: &str, seen: &Value) {
    let mounts: Vec<String> =
        seen["Mounts"].as_array().unwrap().iter().map(|m| m["Destination"].as_str().unwrap().to_string()).collect();
    let has_key = mounts.iter().any(|m| m == "/run/secrets/validator_key.json");
    assert_eq!(has_key, host != "host-c", "{host}: {mounts:?}");
    let top = t.engine.said(&["top", &t.name(host), "-eo", "pid,uid,args"]);
    assert!(top.lines().skip(1).all(|line| line.split_whitespace().nth(1) == Some("65532")), "{host}:\n{top}");
    let first = top.lines().nth(1).unwrap_or_default();
    assert!(first.contains("init"), "{host}: PID 1 is not an init:\n{top}");
}

fn says_what_happens(t: &Containers, holder: &str) {
    let status = t.localnet(&["status"], 0);
    assert!(status.contains(&format!("holder {holder}")), "{status}");
    let logs = t.localnet(&["logs", holder, "--lines", "1000"], 0);
    let has = |program: &str| logs.lines().any(|line| line.starts_with(&format!("{holder} {program:<11} | ")));
    assert!(has("coordinator") && has("node"), "{logs}");
    let refused = t.localnet(&["kill", holder, "node"], 2);
    assert!(refused.contains("whole"), "{refused}");
}

fn leaves_nothing(t: &Containers) {
    let again = t.localnet(&["up", "--on", "compose"], 1);
    assert!(again.contains("localnet down"), "{again}");
    t.localnet(&["reset"], 0);
    assert!(!t.ground.dir.exists());
    assert_eq!(t.engine.said(&["ps", "--all", "--quiet"]), "");
    assert_eq!(t.engine.said(&["images", "--quiet"]), "");
    let networks = t.engine.said(&["network", "ls", "--format", "{{.Name}}"]);
    let mut networks: Vec<&str> = networks.lines().collect();
    networks.sort_unstable();
    assert_eq!(networks, ["bridge", "host", "none"]);
}
