//! Several validators on one host: docs/many-validators.md carried out on host-a, and what becomes of them with the
//! package.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::guide::steps;
use super::host::{Ground, Host};
use super::{ACCOUNTS, BOUND, Chain, HOSTS, SHARED, address, assert_gone, package, simchain};

const PAGE: &str = include_str!("../../../docs/many-validators.md");
/// The chain stands still while more than a third of its validators are silent, as each is until it has a holder: so
/// the first of them is one, and the others' keys sign nothing.
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

#[test]
#[ignore = "needs root, cargo-deb, debootstrap and systemd-container; see the head of debian.rs"]
fn three_validators_share_a_host() {
    let ground = Ground::new();
    let chain = Chain::start(ground.dir.path().join("chain"), SHARED, &NAMES[1..]);
    let packages = ["0.1.0-1", "0.1.1-1"].map(|version| package(Some(version), ground.dir.path()));
    let (signs, places) = (chain.dir.join("signs"), NAMES.map(|name| format!("/var/lib/near-{name}/signs")));
    let host = ground.boot("host-a", "10.0.0.1", &places.each_ref().map(|place| (signs.as_path(), place.as_str())));
    for deb in &packages {
        fs::copy(deb, host.root.join("root").join(deb.file_name().expect("a file"))).expect("the package");
    }
    let [first, second] = packages.map(|deb| format!("./{}", deb.file_name().expect("a file").display()));
    host.sh(&format!("apt-get install -y {first}"));
    give_nodes(&host, &chain);

    carry_out_the_page(&host, &chain);
    for name in NAMES {
        host.sh(&format!("test -S /run/baton/{name}/admin.sock; test -d /var/lib/baton/{name}"));
        let told =
            host.sh(&format!("systemd-analyze verify --man=no baton@{name}.service baton-fence@{name}.service 2>&1"));
        assert_eq!(told, "", "{name}");
    }
    assert_eq!(headings(&host), NAMES.map(|name| format!("<h1>{name}")).join("\n"));

    let before = NAMES.map(|name| main_pid(&host, name));
    host.sh("systemctl restart baton@beta");
    let after = NAMES.map(|name| main_pid(&host, name));
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]), "a restart of beta restarts beta");
    assert_ne!(before[1], after[1]);
    await_all_active(&host);

    host.sh(&format!("apt-get install -y {second}"));
    let upgraded = NAMES.map(|name| main_pid(&host, name));
    assert!(after.iter().zip(&upgraded).all(|(old, new)| old != new), "{after:?} and {upgraded:?} after an upgrade");
    await_all_active(&host);
    for name in NAMES {
        let guards = format!("journalctl --no-pager -u baton@{name} | grep -o 'guard attached guard=[0-9]*' | sort -u");
        assert_eq!(host.sh(&guards).lines().count(), 1, "{name}: one guard for all coordinators");
    }

    host.sh("apt-get remove -y baton");
    host.sh("! pidof baton baton-guard simchain");
    host.sh("test -e /etc/baton/gamma/baton.toml; test -d /var/lib/baton/gamma");
    host.sh(&format!("apt-get install -y {second}; systemctl start baton@alpha"));
    host.until("BATON_CONFIG=/etc/baton/alpha/baton.toml baton active-validator", BOUND);
    let told = host.sh("apt-get purge -y baton 2>&1");
    host.sh("! pidof baton baton-guard simchain");
    for name in NAMES {
        assert!(told.contains(&format!("/etc/baton/{name}/keys is not empty and stays")), "{told}");
        host.sh(&format!("test -e /etc/baton/{name}/keys/validator_key.json"));
    }
    assert_gone(
        &host,
        &["/etc/baton/*/baton.toml", "/var/lib/baton", "/run/baton", "/etc/systemd/system/*/baton*.service"],
    );
    println!("{}", chain.assert_nothing_signed_twice());
}

/// A home for each, with ports of its own, and a `neard` that reads them there.
fn give_nodes(host: &Host, chain: &Chain) {
    let at = |path: &str| host.root.join(path);
    fs::copy(simchain(), at("usr/bin/simchain")).expect("a program");
    let peers = ACCOUNTS.map(address).join(",");
    let neard = format!(
        "#!/bin/sh\n# neard --home DIR run\nread rpc p2p < \"$2/ports\"\nexec /usr/bin/simchain run --home \"$2\" \
         --genesis \"$2/genesis.json\" --host host-a --rpc \"127.0.0.1:$rpc\" --p2p \"10.0.0.1:$p2p\" --peers {peers} \
         --sign-log \"$2/signs/log\"\n"
    );
    fs::write(at("usr/bin/neard"), neard).expect("a program");
    fs::set_permissions(at("usr/bin/neard"), fs::Permissions::from_mode(0o755)).expect("chmod");
    for (name, n) in NAMES.iter().zip(1..) {
        let home = at(&format!("var/lib/near-{name}"));
        fs::create_dir_all(&home).expect("a home");
        fs::write(home.join("config.json"), r#"{"tracked_shards_config": "AllShards"}"#).expect("a file");
        fs::write(home.join("ports"), format!("{} {}\n", 3030 + n, 24570 + n)).expect("a file");
        fs::copy(chain.dir.join("genesis.json"), home.join("genesis.json")).expect("a genesis");
    }
}

/// On a host that is alone, with its own addresses, so that it takes no certificate. The keys come once their
/// directories are there.
fn carry_out_the_page(host: &Host, chain: &Chain) {
    for step in steps(PAGE) {
        if step.command.starts_with("chmod 600") {
            NAMES.iter().zip(HOSTS).for_each(|(name, (node, _))| give_keys(host, chain, name, node));
        }
        let command = step.command.replace("10.0.0.", "127.0.0.").replace("--tls-dir /etc/baton", "");
        host.sh(&format!("timeout 120 bash -ec '{}'", command.replace('\'', "'\\''")));
        if step.command.contains("baton init") {
            host.sh("sed -i '/id = \"host-[bc]\"/d' /etc/baton/*/baton.toml");
        }
    }
}

/// Its node is `node` to its peers while it does not sign.
fn give_keys(host: &Host, chain: &Chain, name: &str, node: &str) {
    let keys = host.root.join(format!("etc/baton/{name}/keys"));
    let give = |from, to: &str| _ = fs::copy(from, keys.join(to)).expect("a key");
    let (key, node_key) = match name == NAMES[0] {
        true => (chain.key(SHARED), chain.node_key(SHARED)),
        false => (chain.node_key(name), chain.node_key(name)),
    };
    give(key, "validator_key.json");
    give(node_key, "validator_node_key.json");
    give(chain.node_key(node), "voter_node_key.json");
    host.sh(&format!("chown baton: /etc/baton/{name}/keys/*.json"));
}

fn await_all_active(host: &Host) {
    for name in NAMES {
        host.until(&format!("BATON_CONFIG=/etc/baton/{name}/baton.toml baton active-validator"), BOUND);
    }
}

fn main_pid(host: &Host, name: &str) -> String {
    host.sh(&format!("systemctl show baton@{name} -p MainPID --value"))
}

/// Of the status pages, each at an address of its own.
fn headings(host: &Host) -> String {
    host.sh("for port in 2241 2242 2243; do exec 3<>/dev/tcp/127.0.0.1/$port; printf 'GET / HTTP/1.0\r\n\r\n' >&3
         grep -o -m 1 '<h1>[a-z]*' <&3; exec 3>&-; done")
}
