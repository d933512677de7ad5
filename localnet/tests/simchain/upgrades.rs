//! Planned upgrades: a node whose binary lacks one halts before its height, as a node of a Cosmos chain does.

use std::fs;
use std::net::SocketAddr;

use localnet::judge::signlog;
use rustix::process::Signal;
use serde_json::Value;

use crate::net::{Host, Net, assert_one_chain, signed_by, simchain, until};

const OLD: [&str; 3] = ["--upgrades", "", "--as-version=old"];
const NEW: [&str; 3] = ["--upgrades", "test1", "--as-version=new"];

/// Hosts with the keys of a, b, c and d, each with the flags of its binary, and the addresses of all.
fn hosts(net: &Net, binaries: [&[&str]; 4]) -> (Vec<Host>, Vec<SocketAddr>) {
    let names = ["a", "b", "c", "d"].into_iter().zip(binaries);
    let hosts: Vec<Host> = names
        .map(|(account, flags)| {
            let mut host = net.host(&format!("host-{account}"), Some(account));
            host.flags = vec![format!("--planned={}", net.path("upgrades.json").display())];
            host.flags.extend(flags.iter().map(ToString::to_string));
            host
        })
        .collect();
    let addrs = hosts.iter().map(|host| host.p2p).collect();
    (hosts, addrs)
}

fn plan(net: &Net, height: u64) {
    let temp = net.path("temp");
    fs::write(&temp, format!(r#"[{{"name":"test1","height":{height},"info":"read me"}}]"#)).expect("plan");
    fs::rename(temp, net.path("upgrades.json")).expect("plan");
}

fn version(host: &Host) -> Value {
    host.json("/status").expect("status")["version"]["version"].clone()
}

fn highest_signed_by(net: &Net, host: &str) -> u64 {
    net.sign_log().iter().filter(|s| s.host == host).map(|s| s.height).max().expect("it has signed")
}

#[test]
fn a_binary_without_the_handler_halts_before_the_height_and_the_new_one_goes_on() {
    let net = Net::new("a,b,c,d");
    let stays = [&OLD[..], &["--halt=stay"]].concat();
    let (mut hosts, addrs) = hosts(&net, [&OLD, &stays, &NEW, &[]]);
    net.start_mesh(&mut hosts);
    let height = hosts[0].advance(10) + 30;
    plan(&net, height);

    assert_eq!(hosts[0].ended(), Some(2));
    let words = format!("UPGRADE \"test1\" NEEDED at height: {height}: read me");
    assert!(hosts[0].stderr().ends_with(&format!("error: {words}\n")), "{}", hosts[0].stderr());
    let info = fs::read_to_string(hosts[0].home.join("data/upgrade-info.json")).expect("upgrade-info.json");
    let time = "0001-01-01T00:00:00Z";
    assert_eq!(info, format!(r#"{{"name":"test1","time":"{time}","height":{height},"info":"read me"}}"#));
    until("the node that stays up says so", || match hosts[1].stderr() {
        text if text.contains(&words) => Ok(()),
        text => Err(text),
    });

    hosts[3].advance(20);
    let halted = hosts[1].height();
    assert!(halted < height && halted + 20 > height, "{halted} of {height}");
    for host in ["host-a", "host-b"] {
        let highest = highest_signed_by(&net, host);
        assert!(highest < height && highest + 20 > height, "{host} signed {highest}, and {height} is another binary's");
    }
    assert!(!hosts[2].home.join("data/upgrade-info.json").exists(), "it has the handler");

    net.start(&mut hosts[0], &addrs);
    assert_eq!(hosts[0].ended(), Some(2), "the old binary halts whenever it is started");
    hosts[1].end(Signal::TERM);
    for host in &mut hosts[..2] {
        host.flags.truncate(1);
        host.flags.extend(NEW.map(String::from));
        net.start(host, &addrs);
    }
    for host in &hosts[..2] {
        host.synced();
        assert_eq!(version(host), "new");
        until("it signs above the height", || match highest_signed_by(&net, &host.name) {
            signed if signed > height => Ok(()),
            signed => Err(format!("{signed}; {}", host.stderr())),
        });
    }
    assert_eq!(version(&hosts[3]), "simchain");
    hosts[0].advance(6);
    assert_one_chain(&hosts);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_chain_of_which_no_node_has_the_handler_stands_still() {
    let net = Net::new("a,b,c,d");
    let (mut hosts, _) = hosts(&net, [&OLD; 4]);
    net.start_mesh(&mut hosts);
    let height = hosts[0].advance(10) + 20;
    plan(&net, height);
    for host in &mut hosts {
        assert_eq!(host.ended(), Some(2), "{}", host.stderr());
        assert!(highest_signed_by(&net, &host.name) < height);
    }
}

#[test]
fn a_strict_binary_does_not_run_before_the_height_of_its_upgrade() {
    let net = Net::new("a,b,c,d");
    let strict = [&NEW[..], &["--strict"]].concat();
    let skips = [&OLD[..], &["--unsafe-skip-upgrades=100000"]].concat();
    let (mut hosts, addrs) = hosts(&net, [&strict, &[], &[], &skips]);
    plan(&net, 100_000);
    net.start_mesh(&mut hosts);
    assert_eq!(hosts[0].ended(), Some(2));
    let words = "BINARY UPDATED BEFORE TRIGGER! UPGRADE \"test1\" - in binary but not executed on chain";
    assert!(hosts[0].stderr().contains(words), "{}", hosts[0].stderr());
    assert!(!hosts[0].home.join("data/upgrade-info.json").exists());

    let height = hosts[1].advance(5);
    plan(&net, height);
    let before = signed_by(&net.sign_log(), "host-a");
    net.start(&mut hosts[0], &addrs);
    until("it runs", || match signed_by(&net.sign_log(), "host-a") {
        signed if signed > before => Ok(()),
        signed => Err(format!("{signed} signatures; {}", hosts[0].stderr())),
    });
    assert_eq!(hosts[3].ended(), Some(2), "only the skipped height is skipped: {}", hosts[3].stderr());
}

#[test]
fn pre_upgrade_ends_as_its_script_says_and_waits_when_told_to() {
    let dir = tempfile::tempdir().expect("temp dir");
    let script = dir.path().join("script");
    let path = script.to_str().expect("utf-8").to_owned();
    let call = |path: &str| simchain(&["pre-upgrade", "--script", path]).status.code();
    assert_eq!(call(&path), Some(1), "as a binary without the command");
    fs::write(&script, "31\n0\n").expect("script");
    assert_eq!([call(&path), call(&path)], [Some(31), Some(0)]);
    fs::write(&script, "wait").expect("script");
    let waiting = std::thread::spawn(move || call(&path));
    let calls = dir.path().join("script.calls");
    until("it has been called", || match fs::read_to_string(&calls).unwrap_or_default().lines().count() {
        3 => Ok(()),
        calls => Err(format!("{calls} calls")),
    });
    assert!(!waiting.is_finished(), "it did not wait");
    fs::write(&script, "30").expect("script");
    assert_eq!(waiting.join().expect("joins"), Some(30));
}
