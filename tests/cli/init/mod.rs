//! `baton init`: whatever it is asked to write, the reader of configurations takes, also with every line of it that is
//! commented out; and what it says without a terminal and at one.

mod page;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Output, Stdio};

use crate::kit::program::{Running, baton, end_with_us};
use baton::base::chain_node::Activation;
use baton::base::ids::Role;
use baton::config::{Absent, Config, DriverKind, KEYS, ProbeTarget};
use page::Page;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const NEAR: &[&str] = &["--chain", "near", "--home", "/var/lib/near"];
const COMETBFT: &[&str] = &["--chain", "cometbft", "--home", "/var/lib/cometbft"];
const GENERIC: &[&str] =
    &["--chain", "generic", "--home", "/var/lib/geth", "--link", "geth/nodekey", "--probe", "http://127.0.0.1:8545/"];
const BY_PORT: &[&str] = &["--chain", "generic", "--home", "/n", "--link", "key", "--probe", "127.0.0.1:9"];
const ARBITER: &[&str] = &["--chain", "none"];

const THREE: &[&str] = &[
    "--member",
    "host-a",
    "--cluster",
    "my-validator",
    "--listen",
    "10.0.0.1:7401",
    "--peer",
    "host-b=10.0.0.2:7401",
    "--peer",
    "host-c=10.0.0.3:7401,arbiter",
];
const LOOPBACK: &[&str] =
    &["--member", "b", "--cluster", "one", "--listen", "127.0.0.1:7401", "--peer", "a=localhost:1,priority=7"];

/// The node's own words after `--`, which `near` and `cometbft` can do without.
fn node(chain: &[&'static str]) -> Vec<&'static str> {
    let needs_command = chain.contains(&"generic");
    if needs_command { vec!["--", "/usr/bin/the node", "--quote", "a\"b'c\\d", "--wide=ä"] } else { Vec::new() }
}

fn init(dir: &Path, args: &[&[&str]]) -> Output {
    let mut command = baton(&["init", "--out", "baton.toml"]);
    command.args(args.concat()).current_dir(dir).stdin(Stdio::null());
    command.output().expect("the baton program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The page that `args` lead to.
fn page(args: &[&[&str]]) -> Page {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = init(dir.path(), args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    Page::of(&fs::read_to_string(dir.path().join("baton.toml")).expect("it was written"))
}

fn read(text: &str) -> Result<Config, String> {
    let credentials = ("CREDENTIALS_DIRECTORY".to_owned(), "/run/credentials/baton.service".to_owned());
    Config::read(Path::new("/etc/baton/baton.toml"), text, std::iter::once(credentials))
        .map_err(|error| format!("{error}\n{text}"))
}

fn config(args: &[&[&str]]) -> Config {
    read(&page(args).as_written()).unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// Every driver with every group of flags that changes what is in the file.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    for chain in [NEAR, COMETBFT, GENERIC, BY_PORT, ARBITER] {
        for members in [THREE, LOOPBACK] {
            let node = node(chain);
            pages.push(page(&[members, chain, &node]));
            let more: &[&str] = &["--metrics", "127.0.0.1:2233", "--tls-dir", "certs", "--join", "--run-dir", "run"];
            let keys: &[&str] = if chain == ARBITER { &[] } else { &["--keys", "$CREDENTIALS_DIRECTORY"] };
            pages.push(page(&[members, chain, more, keys, &node]));
        }
    }
    pages
}

/// Comments cannot go stale: the reader takes each line that is commented out, alone and with all others, and the ones
/// that show a default change nothing.
#[test]
fn the_reader_takes_every_file_and_every_line_that_is_commented_out_in_it() {
    for page in pages() {
        let bare = read(&page.as_written()).expect("as it was written");
        read(&page.with_all()).expect("with everything in it");
        for line in page.shown() {
            let with = read(&page.with(line)).unwrap_or_else(|error| panic!("{}: {error}", page.line(line)));
            if page.is_default(line) {
                assert_eq!(with, bare, "{} is no default", page.line(line));
            }
        }
        for choice in page.choices() {
            let (without, with) = page.chosen(&choice);
            let with = read(&with).unwrap_or_else(|error| panic!("{choice:?}: {error}"));
            if let Some(without) = without {
                assert_eq!(with, read(&without).expect("the choice alone"), "{choice:?} shows no defaults");
            }
        }
    }
}

#[test]
fn every_key_is_in_a_file_with_its_comment_and_its_default() {
    let mut seen = BTreeSet::new();
    for page in pages() {
        for (path, value, comment) in page.keys() {
            let key = KEYS.iter().find(|key| key.path == path).unwrap_or_else(|| panic!("{path} is no key"));
            assert!(comment.contains(key.says), "{path}: {comment}");
            let shown = comment.split_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
            match (&key.absent, shown) {
                (Absent::AsExample, Some(shown)) if path == "chain.activate.how" => assert_eq!(shown, value),
                (Absent::AsExample, Some(shown)) => assert_eq!(shown, key.example_value(), "{path}"),
                (Absent::Refused | Absent::So(_), None) => {}
                (_, shown) => panic!("{path} shows the default {shown:?}"),
            }
            seen.insert(path);
        }
        let written = page.as_written();
        let mut wide = written.lines().filter(|line| line.starts_with('#') && line.chars().count() > 120);
        assert_eq!(wide.next(), None, "too wide to be read");
    }
    // Members are a list of tables on one line each, and their keys stand above it.
    let missing: Vec<&str> = KEYS.iter().map(|key| key.path).filter(|path| !seen.contains(*path)).collect();
    let members = ["id", "addr", "role", "priority"].map(|key| format!("cluster.members[].{key}"));
    assert_eq!(missing, members, "not in any file");
}

#[test]
fn a_file_says_what_the_flags_say() {
    let near = config(&[THREE, NEAR, &["--metrics", "127.0.0.1:2233"]]);
    let members: Vec<_> =
        near.cluster.members.iter().map(|m| (m.id.as_str(), m.addr.as_str(), m.role, m.priority)).collect();
    let three = [
        ("host-a", "10.0.0.1:7401", Role::Validator, 100),
        ("host-b", "10.0.0.2:7401", Role::Validator, 90),
        ("host-c", "10.0.0.3:7401", Role::Arbiter, 0),
    ];
    assert_eq!(
        (members.as_slice(), near.id.as_str(), near.cluster.name.as_str()),
        (&three[..], "host-a", "my-validator")
    );
    assert_eq!(near.tls.as_ref().expect("TLS").key, Path::new("/etc/baton/host-a.key"));
    let chain = near.chain.expect("a chain node");
    assert_eq!((chain.driver, chain.activation), (DriverKind::Near, Activation::Signal(1)));
    // There the driver reads why a reload was refused.
    assert_eq!(chain.log.expect("a log").file, Path::new("/var/lib/near/neard.log"));
    assert_eq!(chain.command, ["neard", "--home", "/var/lib/near", "run"]);
    assert_eq!(chain.links[1].standby.as_deref(), Some(Path::new("/etc/baton/keys/voter_node_key.json")));

    let generic =
        config(&[THREE, BY_PORT, &["--keys", "${CREDENTIALS_DIRECTORY}"], &node(BY_PORT)]).chain.expect("a node");
    assert_eq!(generic.probe.target, ProbeTarget::Tcp { addr: "127.0.0.1:9".into() });
    assert_eq!(generic.command, node(BY_PORT)[1..]);
    assert_eq!(generic.links[0].validating, Path::new("/run/credentials/baton.service/key"));

    let arbiter = config(&[LOOPBACK, ARBITER]);
    assert_eq!((arbiter.chain, arbiter.tls, arbiter.join), (None, None, false));
    assert_eq!(arbiter.cluster.members[1].role, Role::Arbiter, "who runs no chain node is one");
    assert!(config(&[LOOPBACK, ARBITER, &["--join"]]).join);
}

#[test]
fn a_file_for_neard_offers_nothing_of_another_chain() {
    let written = page(&[THREE, NEAR]).as_written();
    for word in
        ["gaia", "priv_validator", "/var/log", "preupgrade_retries", "upgrade-info", "min_peers", "allow_download"]
    {
        assert!(!written.contains(word), "{word}: {written}");
    }
    assert!(written.contains("backup_dir = \"/var/backups/neard\""), "{written}");
}

#[test]
fn every_host_of_a_cluster_gets_the_same_members() {
    let of = |args: &[&str]| config(&[&["--cluster", "c"], args]).cluster.members;
    let (a, b, c) = ("a=10.0.0.1:1", "b=10.0.0.2:1,priority=500", "c=10.0.0.3:1");
    let first = of(&[&["--member", "a", "--listen", "10.0.0.1:1", "--peer", c, "--peer", b], NEAR].concat());
    let second = of(&[&["--member", b, "--listen", "0.0.0.0:1", "--peer", a, "--peer", c], COMETBFT].concat());
    assert_eq!(first, second);
    assert_eq!(first.iter().map(|member| member.priority).collect::<Vec<_>>(), [100, 500, 80]);
}

#[test]
fn without_a_terminal_everything_that_is_missing_or_wrong_is_told_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (args, lines) in [
        (
            &[][..],
            &["--member, --cluster, --listen, --peer, --chain are missing; without a terminal nothing is asked"][..],
        ),
        (
            &["--chain", "generic", "--member", "a b", "--peer", "b", "--peer", "c=h:1,90", "--listen", "h:1"],
            &[
                "--cluster, --home, --link, --probe, -- NODE COMMAND are missing; without a terminal nothing is asked",
                "--listen h:1: \"h:1\" is not IP:PORT; write 10.0.0.1:7401 or [::]:7401",
                "--member a b: \"a b\" is not a member id; use up to 64 letters, digits, '-', '_' and '.'",
                "--peer b: has no address; write b=HOST:PORT, for example b=10.0.0.2:7401",
                "--peer c=h:1,90: \"90\" is not known; after the address comes arbiter or validator, or priority=N from 0 to \
                 1000000",
            ],
        ),
        (
            &[LOOPBACK, ARBITER, &["--home", "/x", "--link", "k", "--metrics", "1:0"]].concat(),
            &[
                "--metrics 1:0: \"1:0\" is not IP:PORT; write 10.0.0.1:7401 or [::]:7401",
                "--home: an arbiter (--chain none) runs no chain node; leave it out",
                "--link: an arbiter (--chain none) runs no chain node; leave it out",
            ],
        ),
        (
            &[&["--member", "a,arbiter", "--listen", "0.0.0.0:1", "--cluster", " ", "--peer", "b=h:1"], NEAR].concat(),
            &[
                "--cluster is empty",
                "--member: a is an arbiter and runs no chain node; say --chain none",
                "--listen 0.0.0.0:1: nobody reaches a at that address; add --member a=HOST:PORT",
            ],
        ),
        (
            &[LOOPBACK, NEAR, &["--peer", "a=h:2"]].concat(),
            &["cluster.members[1].id: a is the id of members[0] too; give each \
                                                            member its own"],
        ),
        (
            &[LOOPBACK, NEAR, &["--probe", "https://h/"]].concat(),
            &["--probe https://h/: \"https://h/\" is not an http:// address; write http://127.0.0.1:3030/status"],
        ),
    ] {
        let output = init(dir.path(), &[args]);
        let told: Vec<&str> = text(&output.stderr).lines().collect();
        let lines: Vec<String> = lines.iter().map(|line| format!("baton: init: {line}")).collect();
        assert_eq!(
            (told, output.status.code(), text(&output.stdout)),
            (lines.iter().map(String::as_str).collect(), Some(2), "")
        );
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "{args:?} wrote something");
    }
}

#[test]
fn a_file_is_closed_to_others_and_overwritten_only_when_asked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("baton.toml");
    let mode = || fs::metadata(&file).expect("the file").permissions().mode() & 0o7777;
    assert!(init(dir.path(), &[THREE, NEAR]).status.success());
    assert_eq!(mode(), 0o600);
    let first = fs::read_to_string(&file).expect("the file");
    let again = init(dir.path(), &[LOOPBACK, ARBITER]);
    let line = format!(
        "baton: init: {} is there already and is not overwritten; use --force, or another --out\n",
        file.canonicalize().expect("a path").display()
    );
    assert_eq!((text(&again.stderr), again.status.code()), (line.as_str(), Some(2)));
    assert_eq!(fs::read_to_string(&file).expect("the file"), first);
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("chmod");
    assert!(init(dir.path(), &[LOOPBACK, ARBITER, &["--force"]]).status.success());
    assert_ne!(fs::read_to_string(&file).expect("the file"), first);
    assert_eq!(mode(), 0o640, "as the operator has it");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing is left beside it");
}

#[test]
fn what_comes_next_and_what_is_doubtful_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let told = |args: &[&[&str]]| {
        let output = init(dir.path(), &[&[&["--force"][..]][..], args].concat());
        text(&output.stdout).to_owned()
    };
    let three = told(&[&["--keys", "$CREDENTIALS_DIRECTORY/"], THREE, NEAR]);
    assert!(three.contains("host-a, a validator, one of 3 members\n\nNext:\n"), "{three}");
    assert!(three.contains("baton cert issue host-a --addr 10.0.0.1;"), "{three}");
    assert!(
        three.contains("LoadCredential=validator_key.json:FILE, LoadCredential=validator_node_key.json:FILE"),
        "{three}"
    );
    assert!(three.contains("- baton check --config "), "{three}");
    let generic = told(&[THREE, BY_PORT, &node(BY_PORT)]);
    assert!(generic.contains("- [chain.probe]: say where the node's answer has its height and head_time"), "{generic}");
    let two = told(&[LOOPBACK, NEAR]);
    assert!(two.contains("\nwarning: cluster.members has 2 members: the loss of EITHER stops signing; use 3"), "{two}");
    assert!(!two.contains("baton cert"), "{two}");
}

/// Both ends of a pseudo terminal.
fn terminal() -> (File, File) {
    const NOCTTY: i32 = rustix::fs::OFlags::NOCTTY.bits() as i32;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let slave = OpenOptions::new().read(true).write(true).custom_flags(NOCTTY).open(name).expect("its other end");
    (File::from(master), slave)
}

/// What `baton init` with `args` says to somebody who types `answers`, and whether it succeeds.
fn asked(dir: &Path, args: &[&str], answers: &str) -> (String, Option<i32>) {
    let (mut master, slave) = terminal();
    let mut command = baton(&["init", "--out", "baton.toml"]);
    command.args(args).current_dir(dir).stdin(slave.try_clone().expect("a copy"));
    command.stdout(slave.try_clone().expect("a copy")).stderr(slave);
    end_with_us(&mut command);
    let mut running = Running(command.spawn().expect("it starts"));
    // Ours are the copies that would keep the terminal open.
    drop(command);
    master.write_all(answers.as_bytes()).expect("typed");
    let mut said = Vec::new();
    // Ends with an error when nobody has the other end any more.
    let _ = master.read_to_end(&mut said);
    let code = running.0.wait().expect("ours").code();
    (String::from_utf8_lossy(&said).into_owned(), code)
}

#[test]
fn at_a_terminal_what_is_missing_is_asked_until_it_will_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let answers = [
        "host a",
        "host-a",
        "",
        "one",
        "solana",
        "",
        "0.0.0.0:7401",
        "10.0.0.1:7401",
        "host-b",
        "host-b=10.0.0.2:7401",
        "host-c=10.0.0.3:7401,arbiter",
        "",
        "",
        "",
        "",
        "nearder 'x'",
        "",
        "",
    ];
    let (said, code) = asked(dir.path(), &[], &(answers.join("\n") + "\n"));
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "\"host a\" is not a member id",
        "this one has to be answered",
        "\"solana\" is not known; use near, cometbft, generic or none",
        "HOST:PORT where the others reach host-a: ",
        "has no address; write host-b=HOST:PORT",
        "the loss of EITHER stops signing",
        "Home of the chain node [/var/lib/near]: ",
        "Command line of the chain node [neard --home /var/lib/near run]: ",
        "quotes and the like mean nothing here",
        "wrote ",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    let written = fs::read_to_string(dir.path().join("baton.toml")).expect("it was written");
    let config = read(&written).expect("sound");
    assert_eq!((config.id.as_str(), config.cluster.members.len()), ("host-a", 3));
    assert_eq!(config.cluster.members[0].addr, "10.0.0.1:7401");
    assert_eq!(config.chain.expect("a node").command, ["neard", "--home", "/var/lib/near", "run"]);
}

#[test]
fn at_a_terminal_nothing_is_asked_when_all_is_said_and_nothing_written_when_the_answers_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Ctrl-D.
    let (said, code) = asked(dir.path(), &["--member", "host-a"], "one\n\u{4}");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("baton: init: the input ended before all was said; nothing was written"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    let (said, code) = asked(dir.path(), &[LOOPBACK, ARBITER].concat(), "");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("wrote "), "{said}");
}
