//! The Debian package on fresh roots with systemd as their first process: its units, its life from installation to
//! purge, and docs/installing.md carried out from top to bottom by three hosts until the validator signs.
//!
//!     cargo test -p localnet --test debian -- --ignored --nocapture --test-threads=1
//!
//! Needs root, cargo-deb, debootstrap, systemd-container, systemd (systemd-analyze) and a mirror in /etc/apt. It packs
//! debug programs unless BATON_DEB names a package.

#[path = "debian/guide.rs"]
mod guide;
#[path = "debian/host.rs"]
mod host;
#[path = "debian/many.rs"]
mod many;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guide::Step;
use host::{Ground, Host, OUTSIDE, end_with_us, need, repository, run, script};

const PAGE: &str = include_str!("../../docs/installing.md");
const README: &str = include_str!("../../README.md");
/// The section of the README that shows the page's commands without their reasons.
const README_SECTION: &str = "Install it on three hosts";
const UNITS: [&str; 2] = ["baton", "baton-fence"];
const ACCOUNTS: [&str; 3] = ["val-1", "val-2", "val-3"];
const SHARED: &str = "shared";
const NODE_PORT: u16 = 24567;
const BOUND: Duration = Duration::from_secs(120);

/// Exposure by systemd's own measure, times ten: what the chain node leaves open in one, and almost nothing in the
/// other.
const EXPOSURE_MAX: [(&str, u32); 2] = [("baton", 25), ("baton-fence", 20)];

/// A package of `version`, newly packed below `into`; the one that BATON_DEB names, if it does, when any version will
/// do.
fn package(version: Option<&str>, into: &Path) -> PathBuf {
    if let (None, Some(made)) = (version, std::env::var_os("BATON_DEB")) {
        return made.into();
    }
    need(&[("cargo-deb", "cargo install cargo-deb --locked"), ("readelf", "apt-get install binutils")]);
    let mut command = script("deploy/debian/build");
    command.env("BATON_DEB_PROFILE", "dev").arg("--output").arg(into);
    command.args(["--version", version.unwrap_or("0.1.0-1")]);
    run(&mut command).lines().last().expect("the package's path").into()
}

fn simchain() -> &'static str {
    env!("CARGO_BIN_EXE_simchain")
}

/// The stand-in chain's other validators, on this side of the bridge. They die with the test.
struct Chain {
    dir: PathBuf,
    nodes: Vec<std::process::Child>,
}

impl Chain {
    /// With the validator `shared`, which runs elsewhere, and keys for `others`, who are not on the chain.
    fn start(dir: PathBuf, shared: &str, others: &[&str]) -> Chain {
        fs::create_dir_all(dir.join("signs")).expect("a directory");
        fs::write(dir.join("signs/log"), "").expect("a file");
        for (path, mode) in [("signs", 0o777), ("signs/log", 0o666)] {
            fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).expect("chmod");
        }
        let accounts = [&ACCOUNTS[..], &[shared]].concat().join(",");
        run(Command::new(simchain()).args(["init", "--validators", &accounts, "--dir"]).arg(&dir));
        let others = [HOSTS.map(|(host, _)| host).as_slice(), &[shared], others].concat().join(",");
        run(Command::new(simchain()).args(["init", "--validators", &others, "--dir"]).arg(dir.join("nodes")));
        let mut chain = Chain { dir, nodes: Vec::new() };
        for (i, account) in ACCOUNTS.iter().enumerate() {
            let home = chain.dir.join(account);
            fs::create_dir_all(&home).expect("a home");
            fs::copy(chain.key(account), home.join("validator_key.json")).expect("a key");
            let mut command = Command::new(simchain());
            command.args(["run", "--host", account, "--peers", &peers(account), "--home"]).arg(&home);
            command
                .arg("--genesis")
                .arg(chain.dir.join("genesis.json"))
                .arg("--sign-log")
                .arg(chain.dir.join("signs/log"));
            command.args(["--rpc", &format!("{OUTSIDE}:{}", 3031 + i), "--p2p", &address(account)]);
            let log = fs::File::create(home.join("log")).expect("a log");
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
            end_with_us(&mut command);
            chain.nodes.push(command.spawn().expect("simchain"));
        }
        chain
    }

    fn key(&self, account: &str) -> PathBuf {
        self.dir.join(format!("keys/{account}.json"))
    }

    /// Of a host's chain node, or the one that goes with the shared key.
    fn node_key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("nodes/keys/{name}.json"))
    }

    /// What the operator has to begin with.
    fn give_keys(&self, to: &Path) {
        fs::copy(self.key(SHARED), to.join("validator_key.json")).expect("a key");
        fs::copy(self.node_key(SHARED), to.join("validator_node_key.json")).expect("a key");
    }

    /// What `host` has before baton comes: a `neard` whose home has no validator key.
    fn give_node(&self, host: &Host) {
        let at = |path: &str| host.root.join(path);
        fs::create_dir_all(at("var/lib/near")).expect("a home");
        fs::write(at("var/lib/near/config.json"), r#"{"tracked_shards_config": "AllShards"}"#).expect("a file");
        fs::copy(self.dir.join("genesis.json"), at("var/lib/near/genesis.json")).expect("a genesis");
        fs::copy(self.node_key(&host.name), at("var/lib/near/node_key.json")).expect("a node key");
        fs::copy(simchain(), at("usr/bin/simchain")).expect("a program");
        let (name, p2p, peers) = (&host.name, address(&host.name), peers(&host.name));
        let neard = format!(
            "#!/bin/sh\n# neard --home DIR run\nexec /usr/bin/simchain run --home \"$2\" --genesis \"$2/genesis.json\" \
             --host {name} --rpc 127.0.0.1:3030 --p2p {p2p} --peers {peers} --sign-log \"$2/signs/log\"\n"
        );
        fs::write(at("usr/bin/neard"), neard).expect("a program");
        fs::set_permissions(at("usr/bin/neard"), fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// By the checker, over everything signed with the shared key.
    fn assert_nothing_signed_twice(&self) -> String {
        let mut command = Command::new(simchain());
        command.arg("check").arg("--sign-log").arg(self.dir.join("signs/log")).arg("--key").arg(self.key(SHARED));
        run(&mut command)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

const HOSTS: [(&str, &str); 3] = [("host-a", "10.0.0.1"), ("host-b", "10.0.0.2"), ("host-c", "10.0.0.3")];

/// Where the chain node of a host or account waits for its peers.
fn address(name: &str) -> String {
    match HOSTS.iter().find(|(host, _)| *host == name) {
        Some((_, addr)) => format!("{addr}:{NODE_PORT}"),
        None => format!("{OUTSIDE}:{}", NODE_PORT + name.bytes().last().map_or(0, u16::from)),
    }
}

fn peers(name: &str) -> String {
    let all = HOSTS[..2].iter().map(|(host, _)| *host).chain(ACCOUNTS);
    all.filter(|other| *other != name).map(address).collect::<Vec<_>>().join(",")
}

/// The guard: each chain node has a first process of its PID namespace beside it, which is younger and has the same
/// name.
fn guard_of(host: &Host) -> String {
    host.sh("pidof baton-guard | tr ' ' '\\n' | sort -n | head -n 1")
}

/// Asserts that the guard is still `guard`, and that the coordinator that now validates has found a chain node running.
fn assert_adopted(host: &Host, guard: &str, after: &str) {
    host.until("baton active-validator", BOUND);
    assert_eq!(guard_of(host), guard, "another guard after {after}");
    let attached = host.sh("journalctl --no-pager -u baton | grep 'guard attached' | tail -n 1");
    assert!(attached.contains(&format!("node=Some({})", host.sh("pidof simchain"))), "after {after}: {attached}");
}

fn assert_gone(host: &Host, paths: &[&str]) {
    let left: Vec<&&str> = paths.iter().filter(|path| host.try_sh(&format!("ls -d {path}")).status.success()).collect();
    assert!(left.is_empty(), "left on {}: {left:?}", host.name);
}

/// A cluster of one, on a root with the package, by the page as far as it goes: its life is the package's.
fn configure_alone(host: &Host, chain: &Chain) {
    chain.give_keys(&host.root.join("etc/baton/keys"));
    let on = |step: &Step| match step.prompt.as_str() {
        "nodes#" | "host-a#" => step.section.starts_with(['3', '4']),
        "each#" => step.section.starts_with('4'),
        _ => false,
    };
    let others = "sed -i '/id = \"host-[bc]\"/d' /etc/baton/baton.toml";
    for step in guide::steps(PAGE).iter().filter(|step| on(step)) {
        // Addresses of this host alone, so that it takes no certificate.
        host.sh(&step.command.replace("10.0.0.", "127.0.0."));
        if step.command.starts_with("baton init") {
            host.sh(others);
        }
    }
    assert_eq!(host.sh("stat -c '%U %a' /etc/baton/baton.toml"), "baton 600");
}

/// Pages and completions of the very programs, where their readers look.
fn assert_documented(host: &Host) {
    let commands = host.sh("baton --help | sed -n '/^Commands:/,/^$/s/^  \\([a-z-]*\\) .*/\\1/p'");
    let commands = commands.lines().filter(|name| *name != "help").map(|name| format!("man1/baton-{name}.1"));
    let pages: Vec<String> = ["man1/baton.1", "man8/baton-guard.8", "man8/baton-signer.8"]
        .map(str::to_owned)
        .into_iter()
        .chain(commands)
        .collect();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        let told = host.sh(&format!("gunzip -c /usr/share/man/{page}.gz"));
        assert!(told.contains(".SH NAME"), "{page}: {told}");
    }
    let complete = ". /usr/share/bash-completion/completions/baton; complete -p baton; COMP_WORDS=(baton hando); \
                    COMP_CWORD=1; _baton baton hando baton; echo \"${COMPREPLY[*]}\"";
    assert!(host.sh(complete).ends_with("\nhandover"), "{}", host.sh(complete));
    host.sh(
        "test -s /usr/share/zsh/vendor-completions/_baton; test -s /usr/share/fish/vendor_completions.d/baton.fish",
    );
}

#[test]
fn the_readme_shows_the_same_commands_as_the_page() {
    let commands = |steps: Vec<Step>| -> Vec<(String, String)> {
        steps.into_iter().map(|step| (step.prompt, step.command)).collect()
    };
    let shown = guide::steps(README).into_iter().filter(|step| step.section == README_SECTION).collect();
    assert_eq!(commands(shown), commands(guide::steps(PAGE)), "README.md and docs/installing.md, in this order");
}

#[test]
#[ignore = "needs root, cargo-deb, debootstrap and systemd-container; see the head of this file"]
fn the_package_lives_from_installation_to_purge() {
    need(&[("systemd-analyze", "apt-get install systemd")]);
    let ground = Ground::new();
    let chain = Chain::start(ground.dir.path().join("chain"), SHARED, &[]);
    let (first, second) = (package(Some("0.1.0-1"), ground.dir.path()), package(Some("0.1.1-1"), ground.dir.path()));
    let host = ground.boot("host-a", "10.0.0.1", &[(&chain.dir.join("signs"), "/var/lib/near/signs")]);
    chain.give_node(&host);
    for deb in [&first, &second] {
        fs::copy(deb, host.root.join("root").join(deb.file_name().expect("a file"))).expect("the package");
    }
    let install = |deb: &Path| host.sh(&format!("apt-get install -y ./{}", deb.file_name().unwrap().display()));

    install(&first);
    for file in ["/usr/bin/baton", "/usr/bin/baton-guard", "/usr/share/doc/baton/operating.md", "/etc/baton/keys"] {
        host.sh(&format!("test -e {file}"));
    }
    assert_eq!(host.sh("stat -c '%U %a' /etc/baton/keys"), "baton 700");
    assert!(host.sh("getent passwd baton").ends_with("/usr/sbin/nologin"));
    for unit in UNITS {
        assert_eq!(host.sh(&format!("systemctl is-enabled {unit}")), "enabled");
    }
    host.sh("systemctl start baton; ! systemctl is-active baton");
    verify_units(&host);
    assert_documented(&host);

    configure_alone(&host, &chain);
    host.sh("systemctl start baton");
    host.until("baton active-validator", BOUND);
    host.until("systemctl status baton | grep 'Status: \"Validating: Active, epoch 1\"'", BOUND);
    assert_eq!(host.sh("systemctl show baton -p NRestarts -p Type --value"), "notify\n0");
    restarts_and_hangs(&host);

    let guard = guard_of(&host);
    let coordinator = host.sh("systemctl show baton -p MainPID --value");
    let told = install(&second);
    assert_ne!(host.sh("systemctl show baton -p MainPID --value"), coordinator, "an upgrade restarts it: {told}");
    assert_adopted(&host, &guard, "an upgrade");
    assert_eq!(host.sh("dpkg-query -W -f '${Version}' baton"), "0.1.1-1");

    host.sh("apt-get remove -y baton");
    host.sh("! pidof baton baton-guard simchain");
    assert_gone(&host, &["/usr/bin/baton*", "/usr/lib/systemd/system/baton*", "/usr/lib/sysusers.d/baton*"]);
    host.sh("test -e /etc/baton/baton.toml; test -e /etc/baton/keys/validator_key.json; test -e /var/lib/baton/incarnation || ls /var/lib/baton/*");
    assert_gone(&host, &["/var/lib/near/validator_key.json"]);

    install(&second);
    host.sh("systemctl start baton");
    host.until("baton active-validator", BOUND);
    let told = host.sh("apt-get purge -y baton 2>&1");
    assert!(told.contains("/etc/baton/keys is not empty and stays"), "{told}");
    host.sh("! pidof baton baton-guard simchain");
    assert_gone(
        &host,
        &["/etc/baton/baton.toml", "/var/lib/baton", "/run/baton", "/etc/systemd/system/*/baton*.service"],
    );
    host.sh("test -e /etc/baton/keys/validator_key.json; rm /etc/baton/keys/*.json");

    install(&first);
    host.sh("apt-get purge -y baton");
    assert_gone(&host, &["/etc/baton", "/usr/share/doc/baton", "/usr/lib/tmpfiles.d/baton.conf"]);
    assert_eq!(
        host.sh(
            "find / -xdev -name '*baton*' -not -path '/proc/*' -not -path '/root/*' -not -path '/etc/systemd/system/*'"
        ),
        ""
    );
    println!("{}", chain.assert_nothing_signed_twice());
}

/// As systemd reads them on a host with the package, and how much they leave open.
fn verify_units(host: &Host) {
    for (unit, exposure) in EXPOSURE_MAX {
        let told = host.sh(&format!("systemd-analyze verify --man=no {unit}.service 2>&1"));
        assert_eq!(told, "", "{unit}");
        let file = repository().join(format!("deploy/systemd/{unit}.service"));
        run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={exposure}"))
            .arg(file));
    }
}

/// A restart and a stop leave the node, a coordinator that hangs is replaced, a stop of both units leaves nothing.
fn restarts_and_hangs(host: &Host) {
    let guard = guard_of(host);
    host.sh("systemctl restart baton");
    assert_adopted(host, &guard, "a restart");

    host.sh("systemctl stop baton");
    let left = host.sh("pidof baton-guard simchain");
    host.sh("systemctl start baton");
    assert_adopted(host, &guard, "a stop and a start");
    assert_eq!(host.sh("pidof baton-guard simchain"), left, "what a stop had left");

    let hung = host.sh("systemctl show baton -p MainPID --value");
    host.sh(&format!("kill -STOP {hung}"));
    let began_at = Instant::now();
    host.until(&format!("test $(systemctl show baton -p MainPID --value) -gt {hung}"), BOUND);
    println!("a coordinator that hangs was replaced after {:.1} s", began_at.elapsed().as_secs_f64());
    assert_eq!(host.sh("systemctl show baton -p NRestarts --value"), "1");
    host.sh("journalctl -u baton | grep -i 'watchdog timeout'");
    host.until("baton active-validator", BOUND);

    host.sh("systemctl stop baton baton-fence; ! pidof baton baton-guard simchain");
    // As an operator does it, and as root.
    host.sh("baton fence; systemctl start baton");
    host.until("baton active-validator", BOUND);
}

#[test]
#[ignore = "needs root, cargo-deb, debootstrap and systemd-container; see the head of this file"]
fn three_hosts_go_from_nothing_to_active_by_the_commands_of_the_page() {
    let ground = Ground::new();
    let dir = ground.dir.path();
    let deb = package(None, dir);
    let chain = Chain::start(dir.join("chain"), SHARED, &[]);
    let signs = chain.dir.join("signs");
    let boot = |(name, addr): &(&str, &str)| ground.boot(name, addr, &[(&signs, "/var/lib/near/signs")]);
    let hosts: Vec<Host> = HOSTS.iter().map(boot).collect();
    hosts[..2].iter().for_each(|host| chain.give_node(host));
    for host in &hosts {
        fs::copy(&deb, host.root.join("root").join(deb.file_name().expect("a file"))).expect("the package");
    }
    let desk = guide::Desk::new(dir.join("desk"), &hosts, &HOSTS);
    chain.give_keys(&desk.dir);

    let mut table = guide::Table::default();
    for step in guide::steps(PAGE) {
        let began_at = Instant::now();
        perform(&step, &hosts, &desk);
        table.add(&step, began_at.elapsed());
    }
    println!("{table}");
    let told = hosts[0].sh("baton status");
    println!("{told}");
    hosts[0].until("baton handover --dry-run", BOUND);
    println!("{}", hosts[0].sh("baton handover"));
    // The holder last: it hands over as it stops.
    for host in ["host-c", "host-a", "host-b"].map(|name| hosts.iter().find(|host| host.name == name).expect("a host"))
    {
        keep_the_key_from_the_service(host);
    }
    println!("{}", chain.assert_nothing_signed_twice());
}

/// As credentials.conf says: the key of the member's certificate is root's alone, and the coordinator gets a copy.
fn keep_the_key_from_the_service(host: &Host) {
    let (name, drop_in) = (&host.name, "/etc/systemd/system/baton.service.d/credentials.conf");
    let before = host.sh("systemctl show baton -p MainPID --value");
    host.sh(&format!(
        "install -D -m 644 /usr/share/doc/baton/examples/systemd/credentials.conf {drop_in}
         sed -i 's/host-a/{name}/' {drop_in}
         chown root:root /etc/baton/{name}.key; chmod 400 /etc/baton/{name}.key
         grep -v '^#' {drop_in}; systemctl daemon-reload"
    ));
    let told = host.sh("systemd-analyze verify --man=no baton.service 2>&1");
    assert_eq!(told, "", "the unit with its drop-in");
    // The configuration still has the path that the service may not read any more.
    let key = format!("/etc/baton/{name}.key");
    let check = format!("setpriv --reuid baton --regid baton --clear-groups baton check 2>&1 | grep {key}");
    println!("{name}: {}", host.sh(&check));
    host.sh("sed -i 's|^key = .*|key = \"$CREDENTIALS_DIRECTORY/tls.key\"|' /etc/baton/baton.toml");
    host.sh("grep '^key = \"$CREDENTIALS_DIRECTORY/tls.key\"' /etc/baton/baton.toml");
    // A handover on the way needs a standby that can take it.
    host.until("baton why | grep -q 'host-' && systemctl restart baton", BOUND);
    assert_ne!(host.sh("systemctl show baton -p MainPID --value"), before);
    let copy = "/run/credentials/baton.service/tls.key";
    assert_eq!(
        host.sh(&format!("setpriv --reuid baton --regid baton --clear-groups cat {copy}")),
        host.sh(&format!("cat {key}"))
    );
    let others = host.try_sh(&format!("setpriv --reuid nobody --regid nogroup --clear-groups cat {copy}"));
    assert!(!others.status.success(), "nobody may read {copy}");
    host.until("systemctl is-active baton && baton active-validator", BOUND);
    host.sh("! journalctl --no-pager -u baton -o cat | grep -i 'credentials.*\\(fail\\|error\\)'");
}

fn perform(step: &Step, hosts: &[Host], desk: &guide::Desk) {
    match step.prompt.as_str() {
        "desk$" => desk.sh(&step.command),
        "each#" => hosts.iter().for_each(|host| _ = host.sh(&step.command)),
        "nodes#" => hosts[..2].iter().for_each(|host| _ = host.sh(&step.command)),
        other => {
            let host = hosts.iter().find(|host| other.strip_suffix('#') == Some(host.name.as_str()));
            let host = host.unwrap_or_else(|| panic!("docs/installing.md:{}: who is {other}?", step.line));
            host.sh(&format!("timeout 60 bash -ec '{}'", step.command.replace('\'', "'\\''")));
        }
    }
}
