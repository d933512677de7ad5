//! The containers of `deploy/` on a real Docker engine, which the test starts and ends itself: the image is built from
//! static programs and nothing else, a lost container fails over, and nothing is signed twice.

#[path = "compose/engine.rs"]
mod engine;
#[path = "compose/own_chain.rs"]
mod own_chain;

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Ground, LOCALNET};
use engine::Engine;
use localnet::judge::signlog;
use localnet::judge::status::POLL_EVERY;
use localnet::net::Net;
use rustix::process::{Resource, getrlimit};
use serde_json::Value;

/// Containers without a real-time priority on a busy machine may lose a lease on the way.
const MOVE_BOUND: Duration = Duration::from_secs(120);

const STOPS_MAX: u32 = 3;

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
        ask_for_limits(&mut up);
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

    /// Asks `seen_from` until its answer holds what `find` looks for.
    fn await_seen<T>(&self, seen_from: &str, awaited: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let status = self.status(seen_from);
            if let Some(found) = status.as_ref().and_then(&find) {
                return found;
            }
            assert!(start.elapsed() < MOVE_BOUND, "{awaited}: not seen from {seen_from}: {status:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn await_active(&self, seen_from: &str, but: &str) -> String {
        self.await_seen(seen_from, &format!("somebody but {but:?} is Active"), |status| active(status, but))
    }

    /// The holder, its ready standby and the epoch as they are now: a busy machine may have moved the baton since the
    /// last look.
    fn await_pair(&self) -> (String, &'static str, u64) {
        self.await_seen("host-c", "a holder and a ready standby", |status| {
            let holder = active(status, "")?;
            let standby = if holder == "host-a" { "host-b" } else { "host-a" };
            is_ready_standby(status, standby).then_some((holder, standby, status["epoch"].as_u64()?))
        })
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

    /// Who signs next with the shared key.
    fn next_signer(&self) -> String {
        let signers = || -> Vec<String> {
            let log = signlog::read(&self.net.sign_log()).unwrap();
            log.into_iter().filter(|s| s.key == self.net.shared_key).map(|s| s.host).collect()
        };
        let (start, before) = (Instant::now(), signers().len());
        loop {
            if let Some(host) = signers().get(before..).and_then(<[String]>::last) {
                return host.clone();
            }
            assert!(start.elapsed() < MOVE_BOUND, "nobody signs with the shared key");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// An engine that may not raise limits, as in a container, has those that we have.
fn ask_for_limits(up: &mut Command) {
    for (name, wanted, limit) in [
        ("BATON_MEMLOCK", 64 << 20, Resource::Memlock),
        ("BATON_RTPRIO", 2, Resource::Rtprio),
        ("BATON_NOFILE", 65535, Resource::Nofile),
    ] {
        up.env(name, getrlimit(limit).maximum.map_or(wanted, |most| most.min(wanted)).to_string());
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", localnet::compose::diagnosis(&self.net));
        }
    }
}

/// Who is Active, unless it is `but`.
fn active(status: &Value, but: &str) -> Option<String> {
    let is = |m: &&Value| m["phase"] == "Active" && m["reachable"] == true && m["id"] != but;
    status["members"].as_array()?.iter().find(is)?["id"].as_str().map(String::from)
}

fn is_ready_standby(status: &Value, host: &str) -> bool {
    status["members"].as_array().into_iter().flatten().any(|m| {
        let ready = m["state"] == "Voting" && m["synced"] == true && m["reachable"] == true;
        m["id"] == host && ready && m["not_ready_because"].as_str().unwrap_or_default().is_empty()
    })
}

#[test]
#[ignore = "needs root, a Docker engine, compose and static programs; see README"]
fn containers_fail_over_hand_over_and_leave_nothing_behind() {
    let t = Containers::up();
    t.await_healthy(&["host-a", "host-b", "host-c"]);
    is_confined(&t);
    let killed = a_killed_container_fails_over(&t);
    t.localnet(&["start", &killed], 0);
    t.await_pair();
    t.await_healthy(&[&killed]);
    docker_stop_hands_over(&t);
    own_chain::runs_by_the_override(&t);
    says_what_happens(&t);
    let verdict = t.localnet(&["check"], 0);
    assert!(verdict.contains("double signatures: 0") && verdict.contains("clean"), "{verdict}");
    println!("{verdict}");
    leaves_nothing(&t);
}

/// Returns whose container was killed.
fn a_killed_container_fails_over(t: &Containers) -> String {
    t.await_pair();
    let holder = t.next_signer();
    let standby = if holder == "host-a" { "host-b" } else { "host-a" };
    println!("{holder} has the baton and signs; its container is killed");
    let killed = Instant::now();
    t.localnet(&["kill", &holder, "host"], 0);
    assert_eq!(t.await_active("host-c", &holder), standby);
    assert_eq!(t.next_signer(), standby);
    println!("{standby} signs {:?} after the order to kill", killed.elapsed());
    assert_eq!(t.inspect(&holder)["State"]["Running"], false, "docker kill counts as the user's wish");
    holder
}

/// Where the holder loses its lease between the look and the stop, the stop has nothing to hand over: then again.
fn docker_stop_hands_over(t: &Containers) {
    let mut seen = Vec::new();
    for _ in 0..STOPS_MAX {
        let (holder, standby, before) = t.await_pair();
        println!("docker stop of {holder} hands over first");
        t.engine.said(&["stop", &t.name(&holder)]);
        assert_eq!(t.inspect(&holder)["State"]["ExitCode"], 0, "{holder} did not end within its grace period");
        assert_eq!(t.await_active("host-c", &holder), standby);
        let history = t.localnet(&["exec", "host-c", "--", "baton", "history", "--json"], 0);
        let history: Value = serde_json::from_str(&history).unwrap();
        let mut moves = history["moves"].as_array().unwrap().iter();
        let next = moves.find(|m| m["epoch"].as_u64() == Some(before + 1));
        let next = next.unwrap_or_else(|| panic!("no epoch {} in {history}", before + 1));
        t.localnet(&["start", &holder], 0);
        t.await_pair();
        if next["kind"] == "handover" && next["from"] == holder.as_str() && next["to"] == standby {
            return;
        }
        println!("no handover: {next}");
        seen.push(next.clone());
    }
    panic!("no docker stop of {STOPS_MAX} handed over: {seen:?}");
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
    let first = seen["State"]["Pid"].to_string();
    let top = t.engine.said(&["top", &t.name(host), "-eo", "pid,uid,args"]);
    // A health check that is just being started is still the engine's own program, and root.
    let processes = || top.lines().skip(1).filter(|line| !line.contains("runc"));
    assert!(processes().all(|line| line.split_whitespace().nth(1) == Some("65532")), "{host}:\n{top}");
    let mut firsts = processes().filter(|line| line.split_whitespace().next() == Some(first.as_str()));
    assert!(firsts.any(|line| line.contains("init")), "{host}: PID 1 ({first}) is not an init:\n{top}");
}

fn says_what_happens(t: &Containers) {
    let (holder, ..) = t.await_pair();
    let holder = holder.as_str();
    // It says with exit code 1 that nobody holds the baton, as for the moment of a lost lease.
    let start = Instant::now();
    loop {
        let output = t.engine.output(t.ground.command(&["status"]));
        let status = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && status.contains("holder host-") {
            break;
        }
        assert!(start.elapsed() < MOVE_BOUND, "localnet status: {output:?}");
        std::thread::sleep(POLL_EVERY);
    }
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
