//! `baton run` where it must not run: each mistake ends it with exit code 2 and one line on standard error
//! that names the thing and what to do, before any link or process is touched. `baton check` says the same line. What the configuration
//! alone shows is in `tests/config`, the command line in `tests/cli`.

use std::fs;
use std::net::TcpListener;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::kit::host::write_key;
use crate::kit::program::{Running, TWO_MEMBERS, baton, end_with_us, free_addresses};
use crate::kit::stage::Stage;
use crate::kit::storage::{apply, claim, entry, release};
use baton::cluster::store::{Opened, Store};
use baton::cluster::wire::Vote;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use rustix::process::{Pid, Signal, kill_process};

const CHAIN: &str = r#"
[chain]
driver = "generic"
home = "home"
command = ["sh", "-c", "touch started; exec sleep 60"]
[[chain.links]]
link = "validator_key.json"
validating = "validator_key.json"
[chain.activate]
how = "restart"
[chain.probe]
tcp = "127.0.0.1:9"
[metrics]
listen = "METRICS"
"#;

/// A validator that would run if nothing were wrong. Its link leads nowhere, which every start repairs, and
/// its configuration earns a warning (two members).
struct Host {
    stage: Stage,
    before: Vec<File>,
}

/// Path, inode, time of the last change, and where a link leads.
type File = (PathBuf, u64, i64, i64, Option<PathBuf>);

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Host {
    fn new() -> Host {
        let [peers, metrics] = free_addresses();
        let text = [TWO_MEMBERS, CHAIN].concat().replace("PEERS", &peers).replace("METRICS", &metrics);
        let stage = Stage::new(&text);
        symlink("nowhere", stage.path("home/validator_key.json")).expect("a dangling link");
        write_key(&stage.path("validator_key.json"), "{}");
        let before = files(&stage.path("home"));
        Host { stage, before }
    }

    fn replace_in_home(&mut self, change: impl FnOnce(&Path)) {
        change(&self.path("home/validator_key.json"));
        self.before = files(&self.path("home"));
    }

    /// What `baton check` says, which changes nothing; with this directory taken out.
    fn checked(&self) -> String {
        let everything = || ["", "state", "state/store", "run"].map(|dir| files_if_any(&self.path(dir)));
        let before = everything();
        let output = baton(&["check", "--config"]).arg(self.path("baton.toml")).output().expect("it runs");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{stderr}");
        // What changes where another coordinator runs is that one's.
        assert!(self.path("arbiter.toml").exists() || everything() == before, "baton check has changed something");
        self.shortened(&stderr)
    }

    /// The line of an error.
    fn shortened(&self, stderr: &str) -> String {
        let said = stderr.strip_prefix("baton: ").unwrap_or_else(|| panic!("not an error line: {stderr}"));
        let line = said.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains('\n'), "more than one line:\n{stderr}");
        line.replace(&format!("{}/", self.stage.to_str().expect("UTF-8")), "")
    }

    /// Runs the coordinator to its end; what it said, and `baton check` before, with this directory taken out.
    fn refusal(&self) -> String {
        let checked = self.checked();
        let line = self.refused();
        assert_eq!(checked, line, "said by baton check, and by baton run");
        line
    }

    fn refused(&self) -> String {
        let output = run_to_its_end(&self.path("baton.toml"));
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{stderr}");
        let line = self.shortened(&stderr);
        assert_eq!(files(&self.path("home")), self.before, "something was touched in the node's home: {line}");
        assert!(!self.path("run/guard.sock").exists(), "a guard was started: {line}");
        let dir = self.stage.to_str().expect("UTF-8");
        assert_eq!(processes_of(dir), Vec::<String>::new(), "left running: {line}");
        line
    }

    /// A store is let go of when its last thread has ended and every child that this process forked meanwhile, for
    /// another test, has executed what it was made for. A look that opened the file could itself be inherited.
    fn close(&self, opened: Opened) {
        drop(opened);
        let inode = fs::metadata(self.path("state/lock")).expect("a lock").ino();
        let (began_at, ours) = (Instant::now(), format!(":{inode} "));
        while fs::read_to_string("/proc/locks").expect("readable").contains(&ours) {
            assert!(began_at.elapsed() < Duration::from_secs(20), "state/lock is held");
            sleep(Duration::from_millis(5));
        }
    }

    /// Runs the coordinator until it has a guard, and ends both.
    fn starts(&self, arguments: &[&str]) {
        let mut coordinator = command(&self.path("baton.toml"));
        let mut coordinator = Running(coordinator.args(arguments).stderr(Stdio::null()).spawn().expect("it starts"));
        let began_at = Instant::now();
        // No connection: the guard would take it in the place of the coordinator's.
        while !self.path("run/guard.sock").exists() {
            assert!(began_at.elapsed() < Duration::from_secs(20), "no guard");
            assert_eq!(coordinator.0.try_wait().expect("ours"), None, "it ended");
            sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&coordinator.0), Signal::INT).expect("ours");
        assert!(coordinator.0.wait().expect("ours").success());
        assert!(UnixStream::connect(self.path("run/guard.sock")).is_err(), "its guard runs on");
    }

    /// Starts another coordinator, an arbiter, in directories of this host, and waits until it answers.
    fn occupied_by_an_arbiter(&self, state_dir: &str, run_dir: &str) -> Running {
        let text = fs::read_to_string(self.path("baton.toml")).expect("readable");
        let (head, _) = text.split_once("[chain]").expect("the section");
        let text = head
            .replace("id = \"host-a\"\nstate", "id = \"host-c\"\nstate")
            .replace("\"state\"", &format!("{state_dir:?}"))
            .replace("\"run\"", &format!("{run_dir:?}"))
            .replace(
                "members = [",
                &format!("members = [\n{{ id = \"host-c\", addr = \"{0}\", role = \"arbiter\" }},", "127.0.0.1:8"),
            );
        let listen = text.lines().find(|line| line.starts_with("listen")).expect("the key").to_owned();
        let [free] = free_addresses();
        let text = text.replace(&listen, &format!("listen = {free:?}"));
        fs::write(self.path("arbiter.toml"), text).expect("writable");
        let coordinator =
            Running(command(&self.path("arbiter.toml")).stderr(Stdio::null()).spawn().expect("it starts"));
        let (socket, asked_at) = (self.path(run_dir).join("admin.sock"), Instant::now());
        while UnixStream::connect(&socket).is_err() {
            assert!(asked_at.elapsed() < Duration::from_secs(20), "no coordinator at {}", socket.display());
            sleep(Duration::from_millis(10));
        }
        // The store is opened after the socket was bound.
        while !self.path(state_dir).join("store/seal").exists() {
            assert!(asked_at.elapsed() < Duration::from_secs(20), "no store in {state_dir}");
            sleep(Duration::from_millis(10));
        }
        coordinator
    }
}

/// `baton run`, which dies with the thread that starts it.
fn command(config: &Path) -> Command {
    let mut command = baton(&["run", "--config"]);
    command.arg(config).stdin(Stdio::null());
    end_with_us(&mut command);
    command
}

fn run_to_its_end(config: &Path) -> Output {
    let mut child = command(config).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let started_at = Instant::now();
    while child.try_wait().expect("it is our child").is_none() {
        if started_at.elapsed() > Duration::from_secs(10) {
            child.kill().expect("it is our child");
            panic!("it runs: {:?}", child.wait_with_output());
        }
        sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it has ended")
}

fn files(dir: &Path) -> Vec<File> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
    let mut found: Vec<File> = entries
        .map(|path| {
            let meta = fs::symlink_metadata(&path).expect("readable");
            let leads_to = fs::read_link(&path).ok();
            (path, meta.ino(), meta.ctime(), meta.ctime_nsec(), leads_to)
        })
        .collect();
    found.sort();
    found
}

/// None where there is no directory.
fn files_if_any(dir: &Path) -> Vec<File> {
    if dir.is_dir() { files(dir) } else { Vec::new() }
}

/// Command lines of processes that name `dir`, but for coordinators of this test.
fn processes_of(dir: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").expect("readable").map(|entry| entry.expect("readable").path());
    let lines = pids.filter_map(|path| fs::read(path.join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(dir) && !line.contains("arbiter.toml")).collect()
}

#[test]
fn an_address_in_use_is_named_by_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address");
    let host = Host::new();
    host.edit("name = \"one\"\nlisten = ", &format!("name = \"one\"\nlisten = \"{addr}\" #"));
    let in_use = "Address already in use (os error 98); stop what listens there or choose another address of this host";
    assert_eq!(host.refusal(), format!("cluster.listen {addr}: {in_use}"));
    let refusal = || {
        let host = Host::new();
        host.edit("[metrics]\nlisten = ", &format!("[metrics]\nlisten = \"{addr}\" #"));
        host.refusal()
    };
    // Another test may have got the address of the host's other port meanwhile.
    let refused = (0..10).map(|_| refusal()).find(|refused| !refused.starts_with("cluster.listen"));
    let in_use = "is in use by another program; stop that or choose another address";
    assert_eq!(refused, Some(format!("metrics.listen {addr} {in_use}")));
}

#[test]
fn a_store_of_another_cluster_or_member_is_not_taken() {
    for (cluster, member) in [("two", "host-a"), ("one", "host-b")] {
        let host = Host::new();
        host.close(Store::open(&host.path("state"), cluster, &member.into()).expect("a store"));
        let line = format!(
            "store state/store belongs to cluster \"{cluster}\", member \"{member}\"; this is cluster \"one\", member \
             \"host-a\": correct cluster.name, member.id or member.state_dir"
        );
        assert_eq!(host.refusal(), line);
    }
}

#[tokio::test]
async fn a_damaged_store_is_not_repaired() {
    let host = Host::new();
    let mut opened = Store::open(&host.path("state"), "one", &"host-a".into()).expect("a store");
    opened.log.save_vote(&Vote::new(3, "host-b".into())).await.expect("saved");
    host.close(opened);
    let [vote, db] = ["vote", "db"].map(|name| host.path("state/store").join(name));
    let (whole_vote, whole_db) = (fs::read(&vote).expect("readable"), fs::read(&db).expect("readable"));
    let damaged = |what: &str| {
        format!(
            "store state/store is damaged: {what}; a member must not vote after losing what it promised: remove it \
             from the cluster, move state/store away and add it again"
        )
    };

    fs::write(&vote, &whole_vote[..11]).expect("writable");
    assert_eq!(host.refusal(), damaged("state/store/vote (11 bytes) fails its checksum"));
    fs::write(&vote, whole_vote).expect("writable");
    let used = whole_db.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    fs::write(&db, &whole_db[..used / 2]).expect("writable");
    assert_eq!(host.refusal(), damaged("its database fails a checksum"));
}

/// Fence 3: the mark of a `Release` is no exact floor once the key has signed elsewhere.
#[tokio::test]
async fn a_key_that_signed_outside_of_the_cluster_is_not_taken_unawares() {
    let host = Host::new();
    host.edit("[metrics]", "[chain.last_signed]\nfile = \"../signed.json\"\nheight = \"/height\"\n[metrics]");
    let mut opened = Store::open(&host.path("state"), "one", &"host-a".into()).expect("a store");
    opened.log.save_vote(&Vote::new(3, "host-a".into())).await.expect("saved");
    let entries = vec![entry(3, 0, claim(1, "host-a")), entry(3, 1, release(1, 7))];
    opened.log.blocking_append(entries.clone()).await.expect("appended");
    apply(&mut opened.state_machine, entries).await;
    host.close(opened);

    let signed =
        |height: u64| fs::write(host.path("signed.json"), format!(r#"{{"height":{height}}}"#)).expect("written");
    signed(8);
    let line = "this host's record of what the validator key signed is at 8, above 7, where the cluster let go of the key: it \
                was used outside of the cluster since; stop whatever else signs with it, then start baton once with \
                --key-signed-outside, and the next holder waits for a later block";
    assert_eq!(host.refusal(), line);
    host.starts(&["--key-signed-outside"]);
    signed(7);
    host.starts(&[]);
}

/// Root reads everything, so a directory stands in for a file that cannot be read.
#[test]
fn a_key_that_cannot_be_used_is_named() {
    let host = Host::new();
    fs::remove_file(host.path("validator_key.json")).expect("removed");
    let missing = "key validator_key.json cannot be read: No such file or directory (os error 2); put the validator key \
                   there, or correct chain.links";
    assert_eq!(host.refusal(), missing);
    fs::create_dir(host.path("validator_key.json")).expect("a directory in its place");
    assert_eq!(host.refusal(), "key validator_key.json is not a regular file; correct chain.links");
}

#[test]
fn a_file_in_the_place_of_a_link_is_named_and_kept() {
    let mut host = Host::new();
    host.replace_in_home(|link| {
        fs::remove_file(link).expect("removed");
        fs::write(link, "the only copy").expect("written");
    });
    assert_eq!(host.refusal(), "link home/validator_key.json is a regular file; move it away and restart");
    assert_eq!(fs::read(host.path("home/validator_key.json")).expect("readable"), b"the only copy");
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    for (from, to, line) in [
        (
            "[chain]\n",
            "[timing]\nlease = \"600ms\"\n[chain]\n",
            "timing.lease = 600ms is too short: 3 × heartbeat (150ms) + kill_max (150ms) = 600ms must be less than \
             lease × (1 − 1000 ppm) = 599.4ms; raise lease or lower heartbeat",
        ),
        (
            "id = \"host-b\"",
            "id = \"host-a\"",
            "cluster.members[1].id in baton.toml:11: host-a is the id of members[0] too; give each member its own",
        ),
        (
            "id = \"host-a\"\nstate",
            "id = \"host-x\"\nstate",
            "member.id in baton.toml:3: host-x is not in cluster.members (host-a, host-b); add it or correct the id",
        ),
        (
            "home = \"home\"\n",
            "",
            "missing key chain.home in baton.toml; for example: [chain] home = \"/var/lib/near\"",
        ),
    ] {
        let host = Host::new();
        host.edit(from, to);
        assert_eq!(host.refusal(), line);
    }
}

#[test]
fn a_chain_node_that_cannot_be_started_is_found_before_the_lease() {
    let what_to_do = "install the chain node or correct the command";
    for (from, to, line) in [
        (
            "\"sh\"",
            "\"no-such-node\"",
            format!("chain.command: no-such-node is no executable file in PATH; {what_to_do}"),
        ),
        (
            "\"sh\"",
            "\"/nowhere/node\"",
            format!("chain.command: /nowhere/node is no executable file at that path; {what_to_do}"),
        ),
    ] {
        let host = Host::new();
        host.edit(from, to);
        assert_eq!(host.refusal(), line);
    }
    // A host is configured before its chain node is initialised, too: a warning to baton check.
    let host = Host::new();
    host.edit("\"home\"", "\"no-such-home\"");
    let line = "chain.home: no-such-home is not a directory; initialise the chain node there first";
    assert_eq!(host.refused(), line);
    let output = baton(&["check", "--config"]).arg(host.path("baton.toml")).output().expect("it runs");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success() && said.contains("and baton run needs it"), "{said}");
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    for (key, dir) in [("member.run_dir", "run"), ("member.state_dir", "state")] {
        let host = Host::new();
        fs::write(host.path(dir), "a file in the way").expect("written");
        let line = format!("create {key} {dir}: File exists (os error 17); make it for this user, or correct {key}");
        assert_eq!(host.refusal(), line);
    }
}

#[test]
fn a_second_coordinator_in_the_same_directories_is_refused() {
    let same_run_dir =
        "a coordinator already answers at run/admin.sock; stop it, or give this one a member.run_dir of its own";
    let same_state_dir =
        "store state/store is in use by another process, which holds state/lock; stop that process first";
    for (state_dir, run_dir, line) in
        [("state", "other-run", same_state_dir), ("other-state", "run", same_run_dir), ("state", "run", same_run_dir)]
    {
        let host = Host::new();
        let mut first = host.occupied_by_an_arbiter(state_dir, run_dir);
        assert_eq!(host.refusal(), line);
        assert_eq!(first.0.try_wait().expect("it is our child"), None, "the first coordinator runs on");
    }
}

#[test]
fn a_copy_of_the_key_as_standby_target_is_refused() {
    let host = Host::new();
    host.edit("validating = \"validator_key.json\"", "validating = \"validator_key.json\"\nstandby = \"standby.json\"");
    fs::write(host.path("validator_key.json"), "[1, 2, 3]").expect("a key");
    fs::write(host.path("standby.json"), "[1,2,3]\n").expect("a copy");
    let line = host.refusal();
    let expected = "chain.links: the standby target standby.json of link home/validator_key.json is the validator key \
                    validator_key.json once more: every standby would sign; remove that file, and name one with another \
                    key, or none, in `standby`";
    assert_eq!(line, expected);
}

#[test]
fn a_command_that_leads_past_the_links_is_refused() {
    let host = Host::new();
    let command = "command = [\"sh\", \"-c\", \"touch started; exec sleep 60\"]";
    host.edit(command, "command = [\"sleep\", \"60\", \"--datadir\", \"/srv/other\"]");
    let line = host.refusal();
    assert!(line.starts_with("chain.command: --datadir /srv/other has not the link home/validator_key.json"), "{line}");
    host.edit("driver = \"generic\"", "driver = \"near\"");
    host.edit("tcp = \"127.0.0.1:9\"", "url = \"http://127.0.0.1:9/status\"");
    host.edit("\"--datadir\", \"/srv/other\"", "\"--home\", \"/srv/other\"");
    let line = host.refusal();
    assert!(line.starts_with("chain.command: --home /srv/other is not chain.home = "), "{line}");
    assert!(line.contains("/home; the links lie below chain.home") || line.contains("= home; the links lie"), "{line}");
}
