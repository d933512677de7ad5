//! The private half of the validator's key never comes into a coordinator: a running one is watched by its system
//! calls, by its memory and by its log. The helper that does read the key file closes its memory first.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use crate::kit::crash::may_trace;
use crate::kit::crash::trace::{Open, Recording, TraceError, record};
use crate::kit::host::write_key;
use crate::kit::program::{BATON, ONE_MEMBER, baton, command, free_addresses};
use crate::kit::stage::Stage;
use baton::base::time::WallTime;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const GUARD: &str = env!("CARGO_BIN_EXE_baton-guard");
const KEY: &str = "keys/validator_key.json";

const ACCOUNT: &str = "shared-account-of-three-hosts.near";
const PUBLIC: &str = "HeaBJ3xLgvZacQWmEctTeUqyfSU4SDEnEwckWxd92W2G";
/// Of no key that anybody uses.
const SECRET: &str = "4KdPdNgbDkCkVMMoVRhUqCbWVBPJdPZpSHwX1dJ5zQEsjKRKbVwqNsvYvAx1kEVdh3NRhFFVFcC3qX4Wq1Nn7YrA";

const CONFIG: &str = r#"
[timing]
heartbeat = "1s"
lease = "30s"
kill_max = "1s"
[chain]
home = "home"
command = ["sh", "-c", "trap '' HUP; exec \"$0\" --ignored --exact secret_key::node_process", "ME"]
env = { SECRET_KEY_NODE = "NODE" }
[chain.probe]
url = "http://NODE/status"
every = "100ms"
"#;

const NEAR: &str = r#"
[[chain.links]]
link = "validator_key.json"
validating = "keys/validator_key.json"
[chain.activate]
how = "signal"
signal = "SIGHUP"
"#;

const COMETBFT: &str = r#"
[[chain.links]]
link = "config/priv_validator_key.json"
validating = "keys/validator_key.json"
"#;

struct Host(Stage);

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.0
    }
}

impl Host {
    fn new(driver: &str, links: &str, key: &Value) -> Host {
        let [free, addr] = free_addresses();
        let me = std::env::current_exe().expect("this program");
        let text = [ONE_MEMBER, CONFIG].concat().replace("PEERS", &free).replace("\"NODE\"", &format!("{addr:?}"));
        let text = text.replace("http://NODE/", &format!("http://{addr}/")).replace("ME", me.to_str().expect("UTF-8"));
        let text = text.replace("[chain]", &format!("[chain]\ndriver = {driver:?}"));
        let host = Host(Stage::new(&(text + links)));
        for dir in ["home/config", "home/data", "keys"] {
            fs::create_dir_all(host.path(dir)).expect("a directory");
        }
        fs::write(host.path("home/config.json"), r#"{"tracked_shards_config": "AllShards"}"#).expect("a file");
        fs::write(host.path("home/config/config.toml"), "").expect("a file");
        write_key(&host.path(KEY), &key.to_string());
        host
    }

    fn near() -> Host {
        let key = json!({"account_id": ACCOUNT, "public_key": format!("ed25519:{PUBLIC}"),
                         "secret_key": format!("ed25519:{SECRET}")});
        Host::new("near", NEAR, &key)
    }

    fn cometbft() -> Host {
        let half = |kind: &str, value: &str| json!({"type": format!("tendermint/{kind}Ed25519"), "value": value});
        let key = json!({"address": "00", "pub_key": half("PubKey", PUBLIC), "priv_key": half("PrivKey", SECRET)});
        Host::new("cometbft", COMETBFT, &key)
    }

    /// A shell that becomes `baton run` when the tracer says go, and has written down its number.
    fn coordinator(&self) -> Command {
        let script = r#"echo $$ > pid; read go; exec "$0" run --config baton.toml 2> log"#;
        self.shell(script, &[BATON])
    }

    fn shell(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = command("sh");
        command.args(["-c", script]).args(arguments).current_dir(&*self.0);
        command
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(fs::read_to_string(self.path("pid")).ok()?.trim().parse().ok()?)
    }

    fn is_active(&self) -> Option<()> {
        let mut status = baton(&["status", "--config", "baton.toml"]);
        status.current_dir(&*self.0);
        let status = status.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
        status.success().then_some(())
    }
}

/// Not a test: the coordinators of the others start it as their chain node, in its home.
#[test]
#[ignore = "the chain node that the other tests start"]
fn node_process() {
    if let Ok(addr) = std::env::var("SECRET_KEY_NODE") {
        serve(&TcpListener::bind(addr).expect("its address"), Path::new("validator_key.json"));
    }
}

/// A neard that has loaded whatever key its link leads to.
fn serve(node: &TcpListener, link: &Path) {
    for stream in node.incoming().flatten() {
        // Whoever asked may be gone.
        let _ = answer(stream, link.exists());
    }
}

fn answer(mut stream: TcpStream, loaded: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let body = json!({
        "version": {"version": "1"},
        "sync_info": {"latest_block_height": WallTime::now().as_nanos() / 1_000_000_000, "latest_block_time": WallTime::now().to_string(), "syncing": false},
        "validator_account_id": loaded.then_some(ACCOUNT), "validator_public_key": loaded.then_some(PUBLIC),
    })
    .to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Whether `text` stands in memory that the process may write.
fn in_memory(pid: Pid, text: &str) -> bool {
    let at = |what: &str| format!("/proc/{}/{what}", pid.as_raw_nonzero());
    let memory = File::open(at("mem")).expect("the memory of a process of ours");
    let maps = fs::read_to_string(at("maps")).expect("readable");
    let writable = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-').filter(|_| rest.starts_with("rw"))?;
        Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
    });
    let mut page = vec![0; 1 << 20];
    for (from, to) in writable {
        let mut at = from;
        while at < to {
            let wanted = page.len().min((to - at) as usize);
            // What is unmapped meanwhile holds nothing any more.
            let Ok(read) = memory.read_at(&mut page[..wanted], at) else { break };
            if contains(&page[..read], text.as_bytes()) {
                return true;
            }
            if read <= text.len() || at + read as u64 >= to {
                break;
            }
            at += (read - text.len()) as u64;
        }
    }
    false
}

fn contains(mut bytes: &[u8], text: &[u8]) -> bool {
    while let Some(at) = bytes.iter().position(|byte| *byte == text[0]) {
        if bytes[at..].starts_with(text) {
            return true;
        }
        bytes = &bytes[at + 1..];
    }
    false
}

/// Runs a coordinator under ptrace; `meanwhile` has it until it is told to end. `None` where nothing may be traced.
fn traced(host: &Host, meanwhile: impl FnOnce(Pid)) -> Option<Recording> {
    let recording = thread::scope(|scope| {
        let recorder = scope.spawn(|| record(&host.0, &mut host.coordinator(), |_| false));
        // No connection: the guard would take it in the place of the coordinator's.
        let up = || host.path("run/guard.sock").exists().then_some(());
        host.until("up", || if recorder.is_finished() { Some(()) } else { up() });
        if !recorder.is_finished() {
            let pid = host.pid().expect("it wrote its number");
            meanwhile(pid);
            kill_process(pid, Signal::INT).expect("it runs");
        }
        recorder.join().expect("the tracer")
    });
    may_trace(&recording).then(|| recording.expect("a recording"))
}

fn opened(recording: &Recording, file: &str) -> Vec<Open> {
    recording.opens.iter().filter(|open| open.path == Path::new(file)).cloned().collect()
}

#[test]
fn a_coordinator_that_validates_has_never_opened_the_key_and_nothing_private_in_memory_or_log() {
    let host = Host::near();
    let recording = traced(&host, |pid| {
        host.until("active", || host.is_active());
        let target = fs::read_link(host.path("home/validator_key.json")).expect("linked");
        assert_eq!(target.canonicalize().expect("a key"), host.path(KEY).canonicalize().expect("a key"));
        assert!(in_memory(pid, ACCOUNT), "the account, of the same file, is known: the scan sees what is there");
        assert!(!in_memory(pid, SECRET), "the private half is in the coordinator's memory");
    });
    let Some(recording) = recording else { return };
    assert!(recording.ended, "{}", host.log());
    assert!(!opened(&recording, "home/config.json").is_empty(), "the tracer sees what is opened");
    assert_eq!(opened(&recording, KEY), []);
    assert_eq!(opened(&recording, "home/validator_key.json"), [], "by way of the link");
    assert!(!host.log().contains(SECRET));
}

#[test]
fn a_coordinator_of_cometbft_knows_its_keys_without_opening_them() {
    let host = Host::cometbft();
    // Beside the one that is made: a standby key that has to be compared with the validator's.
    let other = json!({"type": "tendermint/PubKeyEd25519", "value": "of nobody"});
    let other = json!({"address": "00", "pub_key": other, "priv_key": {"type": "x", "value": "of nobody either"}});
    fs::create_dir_all(host.path("state")).expect("a directory");
    fs::write(host.path("state/standby_priv_validator_key.json"), other.to_string()).expect("a key");
    let recording = traced(&host, |pid| {
        assert!(in_memory(pid, PUBLIC), "the public half, of the same file, is known");
        assert!(!in_memory(pid, SECRET), "the private half is in the coordinator's memory");
    });
    let Some(recording) = recording else { return };
    assert!(recording.ended, "{}", host.log());
    assert!(!opened(&recording, "home/config/config.toml").is_empty(), "the tracer sees what is opened");
    assert_eq!(opened(&recording, KEY), []);
    assert!(!host.log().contains(SECRET));
}

#[test]
fn the_reader_of_a_key_closes_its_memory_first() {
    let host = Host::near();
    let trace = |arguments: &[&str]| -> Result<Recording, TraceError> {
        record(&host.0, &mut host.shell(r#"read go; exec "$0" "$@""#, arguments), |_| false)
    };
    let reader = trace(&[GUARD, "public-key", "--format", "near", KEY]);
    if !may_trace(&reader) {
        return;
    }
    assert_eq!(opened(&reader.expect("a recording"), KEY), [Open { path: KEY.into(), dumpable: false }]);
    let other = trace(&["cat", KEY]).expect("a recording");
    assert_eq!(opened(&other, KEY), [Open { path: KEY.into(), dumpable: true }], "a program that closes nothing");
}

#[test]
fn the_comparer_of_keys_closes_its_memory_first_and_tells_which_are_the_same_and_no_more() {
    let host = Host::near();
    let copy = fs::read_to_string(host.path(KEY)).expect("a key").replace(',', ",\n\t");
    fs::write(host.path("keys/copy.json"), copy).expect("a copy");
    let files = [KEY, "keys/none.json", "home/config.json", "keys/copy.json"];
    let output = Command::new(GUARD).arg("same-key").args(files).current_dir(&*host.0).output().expect("it runs");
    assert_eq!((output.status.code(), &output.stdout[..], &output.stderr[..]), (Some(0), &b"[[0,3]]\n"[..], &b""[..]));
    let none = Command::new(GUARD).arg("same-key").output().expect("it runs");
    assert_eq!(none.status.code(), Some(2));

    let comparer = [&[GUARD, "same-key"][..], &files].concat();
    let comparer = record(&host.0, &mut host.shell(r#"read go; exec "$0" "$@""#, &comparer), |_| false);
    if !may_trace(&comparer) {
        return;
    }
    let comparer = comparer.expect("a recording");
    for file in [KEY, "keys/copy.json"] {
        assert_eq!(opened(&comparer, file), [Open { path: file.into(), dumpable: false }]);
    }
}

fn public_key(format: &str, file: &Path) -> Output {
    let output = Command::new(GUARD).args(["public-key", "--format", format]).arg(file).output().expect("it runs");
    for said in [&output.stdout, &output.stderr] {
        assert!(!contains(said, SECRET.as_bytes()), "the private half was printed");
    }
    output
}

#[test]
fn the_public_half_is_one_json_object_and_a_mistake_one_line() {
    let (near, cometbft) = (Host::near(), Host::cometbft());
    let half = |output: Output| serde_json::from_slice::<Value>(&output.stdout).expect("JSON");
    let expected = json!({"account_id": ACCOUNT, "public_key": format!("ed25519:{PUBLIC}")});
    assert_eq!(half(public_key("near", &near.path(KEY))), expected);
    let expected = json!({"address": "00", "pub_key": {"type": "tendermint/PubKeyEd25519", "value": PUBLIC}});
    assert_eq!(half(public_key("cometbft", &cometbft.path(KEY))), expected);

    let refused = |format: &str, file: &Path| {
        let output = public_key(format, file);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        said.strip_prefix(&format!("baton-guard: {}: ", file.display())).expect("the file is named").to_owned()
    };
    let other = "no `pub_key` with `type` and `value` (line 1)\n";
    assert_eq!(refused("cometbft", &near.path(KEY)), other, "the key of another chain");
    assert_eq!(refused("near", &near.path("keys")), "not a regular file; put the key there\n");
    assert_eq!(refused("near", &near.path("none")), "No such file or directory (os error 2)\n");
    fs::write(near.path(KEY), vec![b' '; (64 << 10) + 1]).expect("a large file");
    assert_eq!(refused("near", &near.path(KEY)), "longer than 65536 bytes; this is no key file\n");
}
