//! A network whose hosts are upgraded: which binary each of them has, starts and runs, and what it cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use localnet::chains::cosmovisor;
use localnet::judge::measure::{head, missed_blocks};
use localnet::judge::status::query;
use localnet::net::http;
use localnet::net::{ChainKind, Net, Shape, write_file};
use localnet::process::launch;
use localnet::runs::demo::{Pair, ask_baton};
use serde_json::Value;

use super::{Ground, TestNet, long_leases, said};

/// For a chain node to be stopped, swapped and in sync again, on a machine that is busy with other things.
pub const UPGRADE_BOUND: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A file of the data directory that no upgrade has to touch.
const KEPT: &str = "data/kept.db";

/// A network of the sim chain with cosmovisor homes, every host's configuration edited before the start. Its leases are
/// long: a busy machine does not lose them.
pub fn up_with(edit: impl Fn(String) -> String) -> TestNet {
    up_on(Ground::new(), edit)
}

pub fn up() -> TestNet {
    up_with(|config| config)
}

pub fn up_on(mut ground: Ground, edit: impl Fn(String) -> String) -> TestNet {
    let net = prepare(&ground, edit);
    ground.has_long_leases();
    launch::start(&net, |_| ()).unwrap();
    TestNet { ground, net }
}

/// As [`up_on`], and nothing runs.
pub fn prepare(ground: &Ground, edit: impl Fn(String) -> String) -> Net {
    let net = launch::prepare(&ground.dir, Shape { cosmovisor: true, ..Shape::usual(ChainKind::Sim) }).unwrap();
    for host in &net.hosts {
        let file = net.config_file(&host.id);
        write_file(&file, &edit(long_leases(fs::read_to_string(&file).unwrap()))).unwrap();
    }
    for host in net.signers() {
        let kept = net.chain_home(&host.id).join(KEPT);
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::write(kept, format!("blocks of {}", host.id)).unwrap();
    }
    net
}

/// Polls until `probe` says yes; its `Err` says what was seen instead.
#[track_caller]
pub fn until<T>(t: &TestNet, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > UPGRADE_BOUND => {
                panic!("{what}: not within {UPGRADE_BOUND:?}; last seen: {seen}\n{}", launch::diagnosis(&t.net))
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Where a link of cosmovisor's folder leads to: `current` or `previous`.
pub fn link(t: &TestNet, host: &str, link: &str) -> Option<PathBuf> {
    fs::read_link(t.net.chain_home(host).join("cosmovisor").join(link)).ok()
}

/// Where it leads to for the binary of `name`.
pub fn leads_to(name: &str) -> Option<PathBuf> {
    let folder = if name == cosmovisor::GENESIS { PathBuf::new() } else { PathBuf::from("upgrades") };
    Some(folder.join(name))
}

/// What the chain node of `host` says that it is.
pub fn version(t: &TestNet, host: &str) -> Result<String, String> {
    let answer = http::get_json(t.net.host(host).unwrap().rpc(), "/status").map_err(|error| format!("{error:#}"))?;
    answer["version"]["version"].as_str().map(str::to_owned).ok_or_else(|| answer.to_string())
}

/// Waits until the chain node of `host` runs as `name`.
#[track_caller]
pub fn runs(t: &TestNet, host: &str, name: &str) {
    until(t, &format!("the chain node of {host} runs {name}"), || match version(t, host) {
        Ok(version) if version == name => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    assert_eq!(link(t, host, "current"), leads_to(name), "current of {host}");
}

/// Waits until both hosts run `name`, one Active and the other a ready standby.
#[track_caller]
pub fn pair_runs(t: &TestNet, name: &str) -> Pair {
    for host in t.net.signers() {
        runs(t, &host.id, name);
    }
    t.pair()
}

/// What `baton upgrade status --json` says at `host`.
pub fn told(t: &TestNet, host: &str) -> Result<Value, String> {
    let answer = ask_baton(&t.net, host, &["upgrade", "status", "--json"]).map_err(|error| format!("{error:#}"))?;
    serde_json::from_str(&answer.stdout).map_err(|error| format!("{error}: {}{}", answer.stdout, answer.stderr))
}

/// Waits until `host` tells of upgrades what `seen` wants; `seen` says what it sees instead.
#[track_caller]
pub fn tells<T>(t: &TestNet, host: &str, what: &str, seen: impl Fn(&Value) -> Option<T>) -> T {
    until(t, what, || {
        let told = told(t, host)?;
        seen(&told).ok_or_else(|| told.to_string())
    })
}

/// Waits until the newest plan is that of `name`, and in that state.
#[track_caller]
pub fn await_plan(t: &TestNet, at: &str, name: &str, state: &str) -> Value {
    tells(t, at, &format!("the plan of {name} is {state}"), |told| {
        let plan = &told["plan"];
        (plan["name"] == name && plan["state"] == state).then(|| plan.clone())
    })
}

/// What `host` is at, as the coordinator of `at` tells it.
pub fn of_host<'a>(told: &'a Value, host: &str) -> &'a Value {
    told["hosts"].as_array().and_then(|hosts| hosts.iter().find(|one| one["id"] == host)).unwrap_or(&Value::Null)
}

/// As an operator sees it; into the test's output.
pub fn show(t: &TestNet, host: &str, when: &str) -> String {
    let shown = said_any(t, host, &["upgrade", "status"]);
    println!("--- baton upgrade status at {host}, {when}\n{shown}");
    shown
}

/// Whatever its exit code.
pub fn said_any(t: &TestNet, host: &str, args: &[&str]) -> String {
    let answer = t.or_logs(ask_baton(&t.net, host, args));
    format!("{}{}", answer.stdout, answer.stderr)
}

/// The epoch and holder now.
pub fn tenure(t: &TestNet) -> (u64, Option<String>) {
    let status = t.or_logs(query(&t.net));
    (status.epoch, status.holder)
}

pub struct Count<'a> {
    t: &'a TestNet,
    from: u64,
}

/// Slots from now on.
pub fn count(t: &TestNet) -> Count<'_> {
    Count { t, from: t.or_logs(head(&t.net)) }
}

impl Count<'_> {
    /// Of the slots since then, how many the shared validator did not sign; printed.
    pub fn missed(self, what: &str) -> usize {
        let to = self.t.or_logs(head(&self.t.net));
        let missed = self.t.or_logs(missed_blocks(&self.t.net, self.from, to));
        println!("{what}: {missed} of {} slots missed", to - self.from);
        missed
    }
}

/// Nothing was signed twice, no data is lost, and one chain went on.
pub fn assert_sound(t: &TestNet) {
    t.assert_nothing_signed_twice();
    for host in t.net.signers() {
        let home = t.net.chain_home(&host.id);
        let kept = fs::read_to_string(home.join(KEPT)).unwrap_or_else(|error| format!("{error}"));
        assert_eq!(kept, format!("blocks of {}", host.id));
        let mark = fs::read(home.join("data/last_signed.json")).unwrap_or_default();
        assert!(mark.is_empty() || serde_json::from_slice::<Value>(&mark).is_ok(), "the sign mark of {}", host.id);
    }
}

/// The folders of finished backups at `host`.
pub fn backups(t: &TestNet, host: &str) -> Vec<PathBuf> {
    in_backups(t, host).into_iter().filter(|path| !is_partial(path)).collect()
}

pub fn is_partial(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".partial"))
}

/// Also of those that are being made.
pub fn in_backups(t: &TestNet, host: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(cosmovisor::backups(&t.net, host)).unwrap();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Every host has the binary of `name`.
pub fn give_all(t: &TestNet, name: &str) {
    for host in t.net.signers() {
        cosmovisor::give(&t.net, &host.id, name).unwrap();
    }
}

/// The chain halts for `name` so many slots from now; the height.
pub fn plan_on_chain(t: &TestNet, name: &str, slots: u64) -> u64 {
    let height = t.or_logs(head(&t.net)) + slots;
    cosmovisor::plan_on_chain(&t.net, name, height, "").unwrap();
    height
}

/// A binary for a rolling plan, outside of every home.
pub fn binary(t: &TestNet, version: &str) -> String {
    let file = t.net.dir.join("binaries").join(version);
    cosmovisor::make(&t.net, &file, version, &[]).unwrap();
    file.to_str().unwrap().to_owned()
}

/// `baton upgrade ARGS` at `host`; asserts the exit code.
pub fn upgrade(t: &TestNet, host: &str, args: &[&str], code: i32) -> String {
    let line = said(t, host, &[&["upgrade"], args].concat(), code);
    println!("{host}$ baton upgrade {}\n{line}", args.join(" "));
    line
}
