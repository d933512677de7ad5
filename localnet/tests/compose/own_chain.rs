//! The example override of `deploy/compose`, taken as it stands: an image of the chain's own, its node keys and its
//! ports.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Instant;

use localnet::compose;

use super::{Containers, MOVE_BOUND, a_killed_container_fails_over, ask_for_limits};

const EXAMPLE: &str = include_str!("../../../deploy/compose/compose.override.example.yaml");
/// In the example.
const IMAGE: &str = "my-neard-with-baton";
const NODE_KEYS: [&str; 2] = ["validator_node_key.json", "voter_node_key.json"];

/// The hosts that run are made anew by it, and do what they did before.
pub fn runs_by_the_override(t: &Containers) {
    assert!(EXAMPLE.contains(&format!("image: {IMAGE}\n")));
    t.engine.said(&["tag", &compose::image(&t.net).unwrap(), IMAGE]);
    give_node_keys(t);
    let file = t.net.dir.join("compose.override.yaml");
    fs::write(&file, EXAMPLE).unwrap();
    // One after the other, as docs/containers.md says.
    for host in ["host-a", "host-b"] {
        let mut up = compose::compose(&t.net, &["--file", file.to_str().unwrap()]).unwrap();
        up.args(["up", "--detach", "--no-build", host]);
        ask_for_limits(&mut up);
        let up = t.engine.output(up);
        assert!(up.status.success(), "{host}: {}", String::from_utf8_lossy(&up.stderr));
        t.await_pair();
    }

    for (host, ports) in [("host-a", [24567, 3030]), ("host-b", [24568, 3031])] {
        assert_as_the_example_says(t, host, ports);
    }
    await_node_keys(t);
    let arbiter = t.inspect("host-c");
    assert!(!arbiter["Mounts"].to_string().contains("node_key"), "{}", arbiter["Mounts"]);

    let killed = a_killed_container_fails_over(t);
    t.localnet(&["start", &killed], 0);
    t.await_pair();
    t.engine.said(&["rmi", IMAGE]);
}

/// What the nodes have made for themselves, in the files of the example, and links to those at both hosts.
fn give_node_keys(t: &Containers) {
    let own = t.net.containers.as_ref().unwrap();
    for (host, name) in ["host-a", "host-b"].into_iter().zip(NODE_KEYS) {
        let key = t.net.dir.join("keys").join(name);
        fs::rename(t.net.chain_home(host).join("node_key.json"), &key).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        chown(&key, Some(own.uid), Some(own.gid)).unwrap();
    }
    for host in ["host-a", "host-b"] {
        let mut config = OpenOptions::new().append(true).open(t.net.config_file(host)).unwrap();
        let [validating, standby] = NODE_KEYS.map(|name| format!("\"/run/secrets/{name}\""));
        let link =
            format!("\n[[chain.links]]\nlink = \"node_key.json\"\nvalidating = {validating}\nstandby = {standby}\n");
        config.write_all(link.as_bytes()).unwrap();
    }
}

/// Each host has the node key of its role.
fn await_node_keys(t: &Containers) {
    let start = Instant::now();
    loop {
        let (holder, ..) = t.await_pair();
        let links = ["host-a", "host-b"].map(|host| {
            let key = if holder == host { NODE_KEYS[0] } else { NODE_KEYS[1] };
            let leads_to = fs::read_link(t.net.chain_home(host).join("node_key.json")).ok();
            (host, leads_to == Some(Path::new("/run/secrets").join(key)))
        });
        if links.iter().all(|(_, right)| *right) {
            return;
        }
        assert!(start.elapsed() < MOVE_BOUND, "{holder} holds the baton; node keys right at: {links:?}");
    }
}

fn assert_as_the_example_says(t: &Containers, host: &str, [p2p, rpc]: [u16; 2]) {
    let seen = t.inspect(host);
    assert_eq!(seen["Config"]["Image"], IMAGE, "{host}");
    assert_eq!(seen["HostConfig"]["Memory"], 24_u64 << 30, "{host}");
    assert_eq!(seen["HostConfig"]["PidsLimit"], 4096, "{host}");
    let bound = &seen["HostConfig"]["PortBindings"];
    // The chain's peers come from anywhere, everything else stays on this machine.
    assert_eq!(bound["24567/tcp"][0]["HostPort"], p2p.to_string(), "{host}: {bound}");
    assert_eq!(bound["3030/tcp"][0]["HostPort"], rpc.to_string(), "{host}: {bound}");
    assert_eq!(bound["3030/tcp"][0]["HostIp"], "127.0.0.1", "{host}: {bound}");
    assert_eq!(bound["2233/tcp"][0]["HostIp"], "127.0.0.1", "{host}: {bound}");
}
