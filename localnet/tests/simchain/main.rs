//! The stand-in chain as real processes: what the end-to-end tests of baton rely on.

mod net;
mod upgrades;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use baton::base::time::BootTime;
use localnet::judge::signlog::{self, Signature};
use net::{Host, Net, SOON, assert_one_chain, signed_by, simchain, until};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn four_nodes_make_one_chain_and_no_evidence() {
    let net = Net::new("a,b,c,d");
    let hosts = net.mesh(&["a", "b", "c", "d"]);
    hosts[0].advance(40);
    for host in &hosts {
        host.synced();
        assert_eq!(host.metric("simchain_evidence"), 0, "{}", host.stderr());
        assert_eq!(host.metric("simchain_bad_messages_total"), 0, "{}", host.stderr());
        assert_eq!(host.metric("simchain_peers"), 3);
    }
    assert_one_chain(&hosts);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.keys.len(), 4, "{report}");
    for (key, of_key) in &report.keys {
        let signatures: usize = of_key.signatures.values().sum();
        assert!(signatures >= 20, "{key} signed {signatures} of 40 heights\n{report}");
    }
}

#[test]
fn status_has_the_shape_of_neard_and_connections_stay_open() {
    let net = Net::new("a");
    let mut host = net.host("host-a", Some("a"));
    net.start(&mut host, &[]);
    host.advance(2);
    let status = host.json("/status").expect("status");
    let key = net.public_key("a");
    let expected = [("/validator_account_id", "a"), ("/validator_public_key", &key), ("/validators/0/account_id", "a")];
    for (pointer, value) in expected {
        assert_eq!(status.pointer(pointer).and_then(Value::as_str), Some(value), "{pointer} of {status}");
    }
    for pointer in ["/sync_info/latest_block_hash", "/sync_info/latest_state_root", "/node_public_key", "/rpc_addr"] {
        assert!(status.pointer(pointer).is_some_and(Value::is_string), "{pointer} of {status}");
    }
    let time = status["sync_info"]["latest_block_time"].as_str().expect("time");
    assert!(time.len() == 30 && time.ends_with('Z'), "{time}");

    let mut stream = TcpStream::connect(host.rpc).expect("connect");
    stream.set_read_timeout(Some(SOON)).expect("timeout");
    for _ in 0..3 {
        stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").expect("ask");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("answer");
        assert_eq!(&answer, b"HTTP/1.1 404");
        let mut rest = Vec::new();
        while !rest.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("body");
            rest.push(byte[0]);
        }
    }
}

#[test]
fn a_late_node_syncs_and_then_takes_its_turns() {
    let net = Net::new("a,b,c,d");
    let mut hosts: Vec<Host> = ["a", "b", "c", "d"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    let addrs: Vec<SocketAddr> = hosts.iter().map(|h| h.p2p).collect();
    for host in &mut hosts[..3] {
        net.start(host, &addrs);
    }
    hosts[0].advance(60);
    net.start(&mut hosts[3], &addrs);
    hosts[3].synced();
    until("the late node produces", || match hosts[3].metric("simchain_blocks_produced_total") {
        0 => Err(hosts[3].stderr()),
        blocks => Ok(blocks),
    });
    hosts[0].advance(10);
    assert_one_chain(&hosts);
    assert!(hosts[3].blocks()[1].0 < 30, "it did not fetch the past: {:?}", hosts[3].blocks()[1]);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn two_hosts_with_one_key_are_caught_by_every_node_and_by_the_checker() {
    let net = Net::new("a,b,c,d");
    let mut hosts: Vec<Host> = ["a", "b", "c", "d"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    hosts.push(net.host("twin-a", Some("a")));
    net.start_mesh(&mut hosts);
    let key = net.public_key("a");
    for host in &hosts {
        until(&format!("{} has evidence against a", host.name), || {
            let evidence = host.json("/evidence")?;
            let condemned = |e: &Value| e["public_key"] == key.as_str() && e["account_id"] == "a";
            let list = evidence["evidence"].as_array().ok_or("no list")?;
            if list.iter().any(condemned) { Ok(()) } else { Err(format!("{evidence}\n{}", host.stderr())) }
        });
        assert!(host.metric("simchain_evidence") > 0);
    }
    let report = signlog::check(&net.sign_log());
    let of_key = &report.keys[&key];
    assert!(of_key.doubles > 0 && of_key.overlap > 0, "{report}");
    let honest = report.keys.iter().filter(|(k, _)| **k != key);
    assert!(honest.clone().all(|(_, r)| r.is_clean()) && honest.count() == 3, "{report}");

    let log = net.path("sign.log").to_str().expect("utf-8").to_string();
    let checked = simchain(&["check", "--sign-log", &log, "--key", &key]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let from = hosts[2].rpc.to_string();
    let key_file = net.key_file("b").to_str().expect("utf-8").to_string();
    let checked = simchain(&["check", "--sign-log", &log, "--key", &key_file, "--evidence-from", &from]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[test]
fn sighup_loads_and_drops_the_key_and_status_shows_it() {
    let net = Net::new("a,b,c,d");
    let mut hosts: Vec<Host> = ["b", "c", "d"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    hosts.push(net.host("standby-a", None));
    net.start_mesh(&mut hosts);
    let standby = &hosts[3];
    standby.synced();
    standby.shows_key(None);
    assert_eq!(signed_by(&net.sign_log(), "standby-a"), 0);

    std::os::unix::fs::symlink(net.key_file("a"), standby.key_link()).expect("link");
    standby.signal(Signal::HUP);
    standby.shows_key(Some(&net.public_key("a")));
    until("the new holder signs", || match signed_by(&net.sign_log(), "standby-a") {
        0 => Err(standby.stderr()),
        signatures => Ok(signatures),
    });

    // A dangling link counts as no key.
    std::fs::remove_file(standby.key_link()).expect("unlink");
    std::os::unix::fs::symlink("nowhere.json", standby.key_link()).expect("link");
    standby.signal(Signal::HUP);
    standby.shows_key(None);
    let dropped = BootTime::now();
    hosts[0].advance(10);
    let later: Vec<Signature> =
        net.sign_log().into_iter().filter(|s| s.host == "standby-a" && s.at > dropped).collect();
    assert!(later.is_empty(), "signed without a key: {later:?}");
}

#[test]
fn a_garbled_key_leaves_the_old_one_active() {
    let net = Net::new("a,b");
    let hosts = net.mesh(&["a", "b"]);
    hosts[0].advance(5);
    std::fs::remove_file(hosts[0].key_link()).expect("unlink");
    std::fs::write(hosts[0].key_link(), "{ \"account_id\": ").expect("garble");
    hosts[0].signal(Signal::HUP);
    until("the failed reload is noted", || match hosts[0].stderr() {
        text if text.contains("reload failed") && text.contains("stays active") => Ok(()),
        text => Err(text),
    });
    assert_eq!(hosts[0].metric("near_config_correct"), 0);
    hosts[0].shows_key(Some(&net.public_key("a")));
    let before = signed_by(&net.sign_log(), "host-a");
    hosts[1].advance(6);
    assert!(signed_by(&net.sign_log(), "host-a") > before, "{}", hosts[0].stderr());
}

#[test]
fn a_killed_validator_leaves_gaps_and_no_halt() {
    let net = Net::new("a,b,c,d");
    let mut hosts = net.mesh(&["a", "b", "c", "d"]);
    hosts[0].advance(12);
    assert_eq!(hosts[3].end(Signal::KILL), None);
    let mark: Value =
        serde_json::from_slice(&std::fs::read(hosts[3].home.join("data/last_signed.json")).expect("mark"))
            .expect("mark JSON");
    let logged = net.sign_log().iter().filter(|s| s.host == "host-d").map(|s| s.height).max();
    assert!(mark["height"].as_u64() >= logged, "mark {mark} below the signature at {logged:?}");

    let killed_at = hosts[0].height() + 2;
    hosts[0].advance(30);
    hosts.truncate(3);
    for host in &hosts {
        host.synced();
    }
    assert_one_chain(&hosts);
    let heights: Vec<u64> =
        hosts[0].blocks().into_iter().map(|(height, _)| height).filter(|h| *h > killed_at).collect();
    // Validator d is the fourth of the list: it proposes at heights 3, 7, 11 and so on.
    assert!(heights.iter().all(|h| h % 4 != 3), "{heights:?}");
    assert!(heights.len() >= 12, "{heights:?}");
}

#[test]
fn a_restarted_validator_signs_no_height_twice() {
    let net = Net::new("a,b,c");
    let mut hosts = net.mesh(&["a", "b", "c"]);
    let addrs: Vec<SocketAddr> = hosts.iter().map(|h| h.p2p).collect();
    for _ in 0..3 {
        hosts[0].advance(6);
        hosts[2].end(Signal::KILL);
        net.start(&mut hosts[2], &addrs);
        let before = signed_by(&net.sign_log(), "host-c");
        until("the restarted validator signs", || match signed_by(&net.sign_log(), "host-c") {
            now if now > before => Ok(()),
            now => Err(format!("{now} signatures\n{}", hosts[2].stderr())),
        });
    }
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_paused_node_is_dropped_by_its_peers_and_follows_again_when_it_goes_on() {
    let net = Net::new("a,b,c,d");
    let hosts = net.mesh(&["a", "b", "c", "d"]);
    hosts[0].advance(10);
    hosts[3].signal(Signal::STOP);
    until("the paused node is dropped", || match hosts[0].metric("simchain_peers") {
        2 => Ok(()),
        peers => Err(format!("{peers} peers")),
    });
    hosts[0].synced();
    hosts[3].signal(Signal::CONT);
    let before = hosts[3].metric("simchain_blocks_produced_total");
    until("it produces again", || match hosts[3].metric("simchain_blocks_produced_total") {
        now if now > before => Ok(()),
        now => Err(format!("{now} blocks\n{}", hosts[3].stderr())),
    });
    hosts[0].advance(6);
    assert_one_chain(&hosts);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn nodes_without_a_link_between_them_hear_each_other_through_a_third() {
    let net = Net::new("a,b,c");
    let mut hosts: Vec<Host> = ["a", "b", "c"].map(|a| net.host(&format!("host-{a}"), Some(a))).into();
    let middle = hosts[2].p2p;
    net.start(&mut hosts[0], &[middle]);
    net.start(&mut hosts[1], &[middle]);
    net.start(&mut hosts[2], &[]);
    hosts[0].advance(30);
    assert_eq!((hosts[0].metric("simchain_peers"), hosts[2].metric("simchain_peers")), (1, 2));
    assert_one_chain(&hosts);
    let report = signlog::check(&net.sign_log());
    assert!(report.is_clean() && report.keys.len() == 3, "{report}");
}

#[test]
fn a_node_without_peers_is_out_of_sync() {
    let net = Net::new("a,b");
    let mut hosts = net.mesh(&["a", "b"]);
    hosts[0].advance(5);
    hosts[0].synced();
    hosts[1].end(Signal::TERM);
    until("the lonely node is out of sync", || {
        let status = hosts[0].json("/status")?;
        if status["sync_info"]["syncing"] == true { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(hosts[0].metric("simchain_peers"), 0);
}

#[test]
fn a_bad_message_closes_the_connection() {
    let net = Net::new("a");
    let mut host = net.host("host-a", Some("a"));
    net.start(&mut host, &[]);
    host.advance(1);
    let too_long = u32::MAX.to_be_bytes().to_vec();
    let no_json = [&3u32.to_be_bytes()[..], b"???"].concat();
    let before_hello = [&18u32.to_be_bytes()[..], br#"{"head":{"head":1}}"#.as_slice()].concat();
    for (i, bad) in [too_long, no_json, before_hello].iter().enumerate() {
        let mut stream = TcpStream::connect(host.p2p).expect("connect");
        stream.set_read_timeout(Some(SOON)).expect("timeout");
        stream.write_all(bad).expect("send");
        // The hello of the node, and then the end; a reset is an end, too.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(host.metric("simchain_bad_messages_total"), i as u64 + 1, "{}", host.stderr());
    }
    host.advance(2);
}

#[test]
fn bad_input_is_one_line_and_exit_code_2_and_sigterm_is_0() {
    let net = Net::new("a");
    let dir = net.dir.path().to_str().expect("utf-8");
    let missing = net.path("missing.log").to_str().expect("utf-8").to_string();
    let bad: [&[&str]; 4] = [
        &["init", "--dir", dir, "--validators", "a"],
        &["init", "--dir", dir, "--validators", "a/b"],
        &["run", "--home", dir],
        &["check", "--sign-log", &missing, "--key", "ed25519:x"],
    ];
    for args in bad {
        let output = simchain(args);
        let stderr = String::from_utf8(output.stderr).expect("utf-8");
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{args:?}: {stderr}");
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&Path::metadata(&net.key_file("a")).expect("key"));
    assert_eq!(mode & 0o777, 0o600);

    let mut host = net.host("host-a", Some("a"));
    net.start(&mut host, &[]);
    host.advance(1);
    assert_eq!(host.end(Signal::TERM), Some(0));
}
