//! A real HAProxy with the shipped configuration, in which only addresses are replaced: it follows the baton.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::TestNet;
use localnet::net::{http, ports, write_file};
use localnet::process::launch::{self, diagnosis, spawn};
use localnet::runs::demo::{Pair, hand_over};

const SHIPPED: &str = include_str!("../../../deploy/haproxy/haproxy.cfg");
const FOLLOWED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where clients of HAProxy connect to.
struct Fronts {
    holder: SocketAddr,
    standby: SocketAddr,
}

fn haproxy(t: &TestNet) -> Fronts {
    let found = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
    found.expect("haproxy is missing: apt-get install haproxy, and stop its service");
    let picked = t.or_logs(ports::pick(&t.net.dir, 2));
    let [holder, standby] = [picked[0], picked[1]].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut config = replaced(SHIPPED, "127.0.0.1:3030", &holder.to_string());
    config = replaced(&config, "127.0.0.1:3031", &standby.to_string());
    for (host, shown) in t.net.signers().zip(["10.0.0.1", "10.0.0.2"]) {
        let checked = host.metrics();
        config = replaced(&config, &format!("{shown}:26657"), &host.rpc().to_string());
        let check = format!("addr {} port {}", checked.ip(), checked.port());
        config = replaced(&config, &format!("addr {shown} port 2233"), &check);
    }
    let file = t.net.dir.join("haproxy.cfg");
    t.or_logs(write_file(&file, &config));
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    t.or_logs(spawn(&t.net, command, "", &t.net.dir.join("haproxy.log"), None));
    Fronts { holder, standby }
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the shipped file lacks {from:?}:\n{text}");
    text.replace(from, to)
}

/// Waits until the chain node of `host` answers at `front`.
fn await_answer_of(t: &TestNet, front: SocketAddr, host: &str) {
    let expected = t.or_logs(t.net.host(host)).rpc().to_string();
    let started = Instant::now();
    loop {
        let answer = http::get_json(front, "/status");
        if answer.as_ref().is_ok_and(|status| status["rpc_addr"] == expected) {
            println!("{host} answers at {front} after {} ms", started.elapsed().as_millis());
            return;
        }
        let in_time = started.elapsed() < FOLLOWED_WITHIN;
        assert!(in_time, "{host}, {expected}, does not answer at {front}: {answer:?}\n{}", diagnosis(&t.net));
        std::thread::sleep(LOOK_EVERY);
    }
}

#[test]
#[ignore = "needs haproxy; see README"]
fn haproxy_follows_a_handover_and_a_failover() {
    let t = TestNet::up(&[]);
    let pair = t.pair();
    let Pair { holder, standby } = &pair;
    let fronts = haproxy(&t);
    await_answer_of(&t, fronts.holder, holder);
    await_answer_of(&t, fronts.standby, standby);

    t.or_logs(hand_over(&t.net, &pair));
    await_answer_of(&t, fronts.holder, standby);
    await_answer_of(&t, fronts.standby, holder);

    // Nobody stands by any more: the new holder answers at either address.
    t.kill_host(standby);
    await_answer_of(&t, fronts.holder, holder);
    await_answer_of(&t, fronts.standby, holder);
    t.or_logs(launch::start_coordinator(&t.net, standby));
    await_answer_of(&t, fronts.standby, standby);
    t.assert_nothing_signed_twice();
}
