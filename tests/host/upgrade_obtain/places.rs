//! Where the binary goes, and what a crash or another process may have left there.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use baton::base::ids::UpgradeName;
use baton::config::Upgrade;
use baton::host::upgrade::Upgrades;
use baton::host::upgrade::obtain::{Request, Source, obtain};

use super::servers::{BYTES_MAX, Host, NAME, PATIENCE, Server, program, serve};
use crate::kit::archives::Tar;

const INTO: &str = "BATON_TEST_INTO";
const FROM: &str = "BATON_TEST_FROM";

impl Host {
    fn puts(&self, path: &str, content: &[u8]) -> String {
        let path = self.outside(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn a_binary_that_is_there_stays_as_it_is() {
    let (host, program) = (Host::new(), program(1000));
    let source = host.puts("new", &program);
    host.puts("cosmovisor/upgrades/v2/bin/noded", b"put there by hand");
    for source in [source.as_str(), "/nowhere", "no source at all"] {
        host.obtain(source).unwrap();
        assert_eq!(fs::read(host.binary()).unwrap(), b"put there by hand");
    }
    assert!(!host.download_dir().exists());
}

#[test]
fn a_binary_that_comes_there_meanwhile_stays_as_it_is() {
    let (host, program) = (Host::new(), program(1000));
    let source = host.puts("new", &program);
    let mut by_hand = Some(b"put there by hand");
    host.obtain_as(Source::Operator(&source), &mut |done, _| {
        if let Some(content) = by_hand.take_if(|_| done > 0) {
            host.puts("cosmovisor/upgrades/v2/bin/noded", content);
        }
        true
    })
    .unwrap();
    assert_eq!(by_hand, None);
    assert_eq!(fs::read(host.binary()).unwrap(), b"put there by hand");
    assert!(!host.download_dir().exists());
}

#[test]
fn what_is_no_file_is_not_taken_for_a_binary() {
    let host = Host::new();
    let source = host.puts("new", &program(100));
    fs::create_dir_all(host.binary()).unwrap();
    assert!(host.obtain(&source).unwrap_err().contains("it is no file; move it away"));
    fs::remove_dir(host.binary()).unwrap();
    symlink("/nowhere", host.binary()).unwrap();
    assert!(host.obtain(&source).unwrap_err().contains("cannot read"));
}

#[test]
fn what_a_crash_left_is_neither_taken_nor_in_the_way() {
    let (host, program) = (Host::new(), program(1000));
    let source = host.puts("new", &program);
    for left in ["binary", "copy", "sha256-0123456789abcdef.part", "sha256-0123456789abcdef.from", "lock"] {
        host.puts(&format!("cosmovisor/upgrades/v2/.download/{left}"), b"half of it");
    }
    host.obtain(&source).unwrap();
    host.assert_has(&program);
}

/// A crash after the binary came to its place: it has a second name, which nothing may be written through.
#[test]
fn a_crash_at_the_very_end_leaves_the_whole_binary() {
    let (host, program) = (Host::new(), program(1000));
    let source = host.puts("new", &program);
    host.obtain(&source).unwrap();
    let second = host.download_dir().join("binary");
    let set_aside = host.outside("set-aside");
    fs::create_dir(host.download_dir()).unwrap();
    fs::hard_link(host.binary(), &second).unwrap();
    fs::rename(host.binary(), &set_aside).unwrap();
    fs::write(&source, b"#!/bin/sh\n# another\n").unwrap();
    host.obtain(&source).unwrap();
    assert_eq!(fs::read(&set_aside).unwrap(), program);

    fs::create_dir(host.download_dir()).unwrap();
    fs::hard_link(host.binary(), &second).unwrap();
    host.obtain(&source).unwrap();
    host.assert_has(b"#!/bin/sh\n# another\n");
}

/// Runs as a process of its own, for the test below.
#[test]
#[ignore = "needs an environment that another test makes"]
fn obtains_into_the_directory_that_the_environment_names() {
    let (Ok(upgrade_dir), Ok(source)) = (std::env::var(INTO), std::env::var(FROM)) else { return };
    let request = Request {
        upgrade_dir: upgrade_dir.as_ref(),
        binary_name: NAME,
        bytes_max: 100 << 20,
        source: Source::Operator(&source),
        patience: PATIENCE,
    };
    obtain(&request, &mut |_, _| true).unwrap();
}

/// Each process lives a little longer than the one before, so that the kills fall everywhere between its first step and
/// its last.
#[test]
fn a_process_killed_at_any_moment_leaves_a_whole_binary_or_none() {
    let (host, program) = (Host::new(), program(8 << 20));
    let archive = Tar::default().file("README", b"read me").file("bin/noded", &program).gz();
    let body = archive.clone();
    let server = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    let source = server.link("/noded.tar.gz", &archive);
    let (mut lives, mut kills) = (Duration::from_millis(5), 0);
    while !host.binary().exists() {
        let test = "places::obtains_into_the_directory_that_the_environment_names";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--include-ignored"])
            .env(INTO, host.upgrade_dir())
            .env(FROM, &source)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(lives);
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        lives += lives / 4;
        assert!(lives < Duration::from_secs(60), "it never comes to an end");
    }
    println!("{kills} kills, {} requests", server.asked().len());
    assert_eq!(fs::read(host.binary()).unwrap().len(), program.len());
    host.obtain(&source).unwrap();
    host.assert_has(&program);
}

#[test]
fn one_at_a_time() {
    let (host, program) = (Host::new(), program(1000));
    let source = host.puts("new", &program);
    let mut second = None;
    host.obtain_as(Source::Operator(&source), &mut |_, _| {
        second.get_or_insert_with(|| host.obtain(&source));
        true
    })
    .unwrap();
    let error = second.unwrap().unwrap_err();
    assert!(error.contains("by another process already"), "{error}");
    host.assert_has(&program);
}

#[test]
fn a_workshop_that_is_a_link_is_not_entered() {
    let (host, program) = (Host::new(), program(1000));
    let source = host.puts("new", &program);
    fs::create_dir_all(host.upgrade_dir()).unwrap();
    symlink(host.outside(""), host.download_dir()).unwrap();
    assert!(host.obtain(&source).unwrap_err().contains("it is no directory; move it away"));
}

#[test]
fn a_place_that_cannot_be_made_is_named() {
    let host = Host::new();
    let source = host.puts("new", &program(100));
    host.puts("cosmovisor", b"a file");
    let error = host.obtain(&source).unwrap_err();
    assert!(error.contains("cosmovisor/upgrades/v2"), "{error}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let host = Host::new();
    for name in ["", ".", "..", "../noded", "/noded"] {
        let request = Request {
            upgrade_dir: &host.upgrade_dir(),
            binary_name: name,
            bytes_max: BYTES_MAX,
            source: Source::Operator("/nowhere"),
            patience: PATIENCE,
        };
        assert!(obtain(&request, &mut |_, _| true).unwrap_err().to_string().contains("no name for a binary"));
    }
}

#[test]
fn an_upgrade_of_this_host_is_obtained_into_cosmovisors_layout() {
    let (host, program) = (Host::new(), program(1000));
    let source = host.puts("new", &program);
    let root = host.outside("home");
    let settings = Upgrade::at(&root, NAME);
    let upgrades = Upgrades::new(Upgrade { allow_download: true, download_bytes_max: BYTES_MAX, ..settings });
    let name = UpgradeName::new("v2.1 beta/x").unwrap();
    let binary = upgrades.obtain(&name, Source::Operator(&source), &mut |_, _| true).unwrap();
    assert_eq!(binary.path, root.join("cosmovisor/upgrades/v2.1%20beta%2Fx/bin/noded"));
    assert_eq!(fs::read(&binary.path).unwrap(), program);
}
