//! Packages of other kinds than tests/debian.rs installs: the Debian package for arm64, whose programs run here under qemu, and
//! the RPM in a root of its own. Both packages for Debian are clean by lintian.
//!
//!     cargo test -p localnet --test packages -- --ignored --nocapture --test-threads=1
//!
//! Needs cargo-deb, cargo-generate-rpm, lintian, rpm, qemu-user-static, gcc-aarch64-linux-gnu with libc6-dev-arm64-cross, musl-tools,
//! and what tests/debian.rs needs. They pack debug programs.

mod common;
#[allow(dead_code)] // Of hosts that several tests share.
#[path = "debian/host.rs"]
mod host;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::TestNet;
use host::{need, run, script};
use localnet::chains::sim;
use localnet::judge::measure::Watch;
use localnet::net::{ChainKind, Shape};
use localnet::process::launch;
use localnet::runs::demo::{Pair, hand_over};

const QEMU: &str = "qemu-aarch64-static";
/// The C library for arm64, of libc6-arm64-cross.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// By the script at `path`, for `arch` into `into`; its path.
fn build(path: &str, arch: &str, into: &Path) -> PathBuf {
    let mut command = script(path);
    command
        .env("BATON_DEB_PROFILE", "dev")
        .env("DEBFULLNAME", "A Maintainer")
        .env("DEBEMAIL", "a.maintainer@debian.org");
    run(command.args(["--arch", arch, "--output"]).arg(into)).lines().last().expect("the package's path").into()
}

fn is_clean(deb: &Path) {
    let told = run(Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(deb));
    assert_eq!(told, "", "{}", deb.display());
}

/// A program at `file` that runs that of arm64 at `program` under qemu, and is shown as it by `ps`.
fn under_qemu(file: &Path, program: &Path) {
    let name = program.file_name().and_then(|name| name.to_str()).expect("a name");
    let text = format!("#!/bin/bash\nexec -a {name} {QEMU} -L {LIBRARIES} {} \"$@\"\n", program.display());
    fs::write(file, text).expect("a script");
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("chmod");
}

#[test]
#[ignore = "needs cargo-deb, lintian, qemu-user-static and a compiler for arm64; see the head of this file"]
fn three_coordinators_of_arm64_elect_one_and_move_the_baton() {
    need(&[
        ("cargo-deb", "cargo install cargo-deb --locked"),
        ("lintian", "apt-get install lintian"),
        (QEMU, "apt-get install qemu-user-static"),
        ("aarch64-linux-gnu-gcc", "apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
    ]);
    let dir = tempfile::tempdir().expect("a directory");
    let debs = ["amd64", "arm64"].map(|arch| build("deploy/debian/build", arch, dir.path()));
    debs.iter().for_each(|deb| is_clean(deb));
    let [_, deb] = debs;
    assert_eq!(run(Command::new("dpkg-deb").arg("-f").arg(&deb).arg("Architecture")).trim(), "arm64");
    let root = dir.path().join("root");
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&root));
    let bin = root.join("usr/bin");
    let qemu = |program: &str| {
        let mut command = Command::new(QEMU);
        command.args(["-L", LIBRARIES]).arg(bin.join(program));
        command
    };
    assert_eq!(run(qemu("baton").arg("--version")), format!("baton {}\n", env!("CARGO_PKG_VERSION")));

    let mut t = TestNet::prepared(Shape::usual(ChainKind::Sim), common::long_leases);
    let key = sim::shared_key_file(&t.net);
    let told = run(qemu("baton-guard").args(["public-key", "--format", "near"]).arg(&key));
    assert!(told.contains("ed25519:"), "{told}");
    // qemu knows nothing of prctl(PR_SET_CHILD_SUBREAPER): the guards are this machine's, beside the coordinators.
    fs::copy(t.net.programs.baton.with_file_name("baton-guard"), bin.join("baton-guard")).expect("the guard");
    let baton = dir.path().join("baton");
    under_qemu(&baton, &bin.join("baton"));
    t.net.programs.baton = baton.clone();
    t.net.save().expect("the network's file");
    for host in &t.net.hosts {
        let told = run(Command::new(&baton).args(["check", "--config"]).arg(t.net.config_file(&host.id)));
        println!("{}", told.trim_end());
    }
    t.or_logs(launch::start(&t.net, |_| ()));
    let Pair { holder, standby } = t.pair();
    let moved = t.or_logs(hand_over(&t.net, &Pair { holder: holder.clone(), standby: standby.clone() }));
    println!("{holder} -> {} after {:?}", moved.first.host, moved.pause);
    assert_eq!(t.pair(), Pair { holder: standby.clone(), standby: holder.clone() });
    let mut watch = t.or_logs(Watch::begin(&t.net));
    let lost_ns = watch.now_ns();
    t.kill_host(&standby);
    let next = t.or_logs(watch.await_next(lost_ns, &standby, std::time::Duration::from_secs(60)));
    println!("{standby} is lost, {} signs after {} ms", next.host, (next.at_ns - lost_ns) / 1_000_000);
    assert_eq!(next.host, holder);
    t.or_logs(launch::start_coordinator(&t.net, &standby));
    t.pair();
    t.assert_nothing_signed_twice();
}

#[test]
#[ignore = "needs root, cargo-generate-rpm, rpm and what tests/debian.rs needs; see the head of this file"]
fn an_rpm_is_installed_into_a_root_of_its_own_and_removed_again() {
    need(&[
        ("cargo-generate-rpm", "cargo install cargo-generate-rpm --locked"),
        ("rpm", "apt-get install rpm"),
        ("musl-gcc", "apt-get install musl-tools"),
    ]);
    let ground = host::Ground::new();
    let rpm = build("deploy/rpm/build", std::env::consts::ARCH, ground.dir.path());
    let host = ground.boot("host-a", "10.0.0.1", &[]);
    // Nobody has told this root's RPM database what Debian's packages provide: systemd and a shell.
    let rpm_there = |args: &[&str]| run(Command::new("rpm").arg("--root").arg(&host.root).args(args));
    let file = rpm.to_str().expect("a path");
    rpm_there(&["--install", "--nodeps", file]);
    assert_eq!(rpm_there(&["--verify", "--nodeps", "baton"]), "");
    let named = format!("baton {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(host.sh("baton --version"), named);
    for unit in ["baton", "baton-fence", "baton@one", "baton-fence@one"] {
        assert_eq!(host.sh(&format!("systemd-analyze verify --man=no {unit}.service 2>&1")), "", "{unit}");
    }
    assert!(host.sh("getent passwd baton").ends_with("/usr/sbin/nologin"));
    // Their script had no /proc to work with in a root that is not this machine's; the next boot does it too.
    host.sh("systemd-tmpfiles --create baton.conf");
    assert_eq!(host.sh("stat -c '%U %a' /etc/baton/keys"), "baton 700");
    host.sh("test -s /usr/share/man/man8/baton-guard.8; test -s /usr/share/man/man1/baton.1; test -s /usr/share/doc/baton/examples/baton.toml");

    // An arbiter needs nothing else.
    host.sh(
        "baton init --out /etc/baton/baton.toml --member host-a=127.0.0.1:7401,arbiter --cluster one --listen 127.0.0.1:7401 \
         --peer host-b=127.0.0.1:7402 --peer host-c=127.0.0.1:7403 --chain none; chown baton: /etc/baton/baton.toml
         systemctl daemon-reload; systemctl start baton",
    );
    host.until("baton status | grep 'seen by host-a'", std::time::Duration::from_secs(60));
    host.sh("systemctl disable --now baton baton-fence 2>&1");
    rpm_there(&["--erase", "baton"]);
    host.sh("! ls /usr/bin/baton* /usr/lib/systemd/system/baton* /usr/share/doc/baton 2>/dev/null");
    host.sh("test -e /etc/baton/baton.toml");
}
