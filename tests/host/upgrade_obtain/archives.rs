//! What is unpacked, what is taken of it, and archives that mean no good.

use std::fs;
use std::path::PathBuf;

use baton::host::upgrade::obtain::Source;

use super::servers::{BYTES_MAX, Host, NAME, Server, program, serve};
use crate::kit::archives::{DEVICE, DIRECTORY, HARD_LINK, LONG_NAME, PAX, PAX_GLOBAL, SYMLINK, Tar, Zip, gz, pax};

impl Host {
    fn has(&self, content: &[u8]) -> String {
        let path = self.outside("archive");
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A thousand times what an archive may name to get out.
    fn assert_nothing_outside(&self) {
        let known = [self.outside("archive"), self.outside("cosmovisor")];
        let all: Vec<PathBuf> = super::servers::listing(&self.outside(""));
        assert!(all.iter().all(|path| known.contains(path)), "{all:?}");
        assert!(!PathBuf::from("/tmp/baton-escaped").exists());
    }
}

#[track_caller]
fn taken(what: &str, content: &[u8], program: &[u8]) {
    let host = Host::new();
    let path = host.has(content);
    host.obtain(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
    host.assert_has(program);
    host.assert_nothing_outside();
}

#[track_caller]
fn refused(content: &[u8], words: &[&str]) {
    let host = Host::new();
    let path = host.has(content);
    host.assert_refused(&path, words);
    host.assert_nothing_outside();
}

#[test]
fn every_form_is_recognized_by_what_it_contains() {
    let program = program(100_000);
    let tar = || Tar::default().file(NAME, &program);
    taken("bare", &program, &program);
    taken("gz", &gz(&program), &program);
    taken("tar", &tar().end(), &program);
    taken("tar.gz", &tar().gz(), &program);
    taken("tar.gz in two members", &[gz(&tar().end()[..50_000]), gz(&tar().end()[50_000..])].concat(), &program);
    taken("the oldest tar", &gz(&Tar::default().oldest(NAME, &program).end()), &program);
    taken("zip", &Zip::default().file(NAME, &program).end(), &program);
    taken("zip, stored", &Zip::default().entry(NAME, 0, &program, false).end(), &program);
}

#[test]
fn an_archive_comes_over_the_network_as_a_binary_does() {
    let (host, program) = (Host::new(), program(100_000));
    let archive = Tar::default().file("bin/noded", &program).gz();
    let body = archive.clone();
    let server = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    host.obtain(&server.link("/release.bin", &archive)).unwrap();
    host.assert_has(&program);
}

#[test]
fn the_binary_is_found_where_cosmovisor_finds_it() {
    let (program, other) = (program(3000), b"#!/bin/sh\n# another\n".as_slice());
    let bin = "bin/noded";
    taken("bin before top", &Tar::default().file(NAME, other).file(bin, &program).gz(), &program);
    taken("bin before top, the other way round", &Tar::default().file(bin, &program).file(NAME, other).gz(), &program);
    taken("top", &Tar::default().file("README", other).file("./noded", &program).file("lib/x", other).gz(), &program);
    taken("the only file", &Tar::default().file("release/noded-v2-linux-amd64", &program).gz(), &program);
    taken("bin before top", &Zip::default().file(NAME, other).file(bin, &program).end(), &program);
    taken("top", &Zip::default().file("README", other).file(NAME, &program).end(), &program);
    taken("the only file", &Zip::default().file("noded-v2", &program).end(), &program);
    let folders = Tar::default().entry(DIRECTORY, "./", "", b"", 0).entry(DIRECTORY, "./bin/", "", b"", 0);
    taken("folders", &folders.file("./bin/noded", &program).gz(), &program);
    let folders = Zip::default().entry("bin/", 0o040_755, b"", false).file(bin, &program);
    taken("folders", &folders.end(), &program);
}

#[test]
fn an_archive_without_the_binary_says_what_it_has() {
    let other = b"#!/bin/sh\n".as_slice();
    refused(
        &Tar::default().file("v2/noded", other).file("v2/README", other).gz(),
        &["no bin/noded, no noded", "\"v2/noded\", \"v2/README\""],
    );
    refused(&Zip::default().file("a", other).file("b", other).end(), &["no bin/noded", "\"a\", \"b\""]);
    refused(&Zip::default().end(), &["nothing"]);
    let many = (0..20).fold(Tar::default(), |tar, at| tar.file(&format!("file-{at}"), other));
    refused(&many.gz(), &["\"file-7\"], …"]);
}

#[test]
fn two_binaries_are_one_too_many() {
    let program = program(100);
    refused(&Tar::default().file("noded", &program).file("./noded", &program).gz(), &["\"./noded\" is there twice"]);
    refused(&Zip::default().file("noded", &program).file("./noded", &program).end(), &["\"./noded\" is there twice"]);
}

#[test]
fn names_that_lead_out_are_refused() {
    let program = program(1000);
    for (name, words) in [
        ("/tmp/baton-escaped", "\"/tmp/baton-escaped\" has an absolute path"),
        ("../baton-escaped", "\"../baton-escaped\" leads out of the archive with .."),
        ("bin/../../../../baton-escaped", "leads out of the archive with .."),
        ("..", "leads out of the archive with .."),
    ] {
        refused(&Tar::default().file(NAME, &program).file(name, &program).gz(), &[words]);
        refused(&Zip::default().file(NAME, &program).file(name, &program).end(), &[words]);
    }
    let long = "../".repeat(60) + "baton-escaped";
    let tar = Tar::default().entry(LONG_NAME, "././@LongLink", "", long.as_bytes(), long.len() as u64);
    refused(&tar.file("short", &program).gz(), &["leads out of the archive with .."]);
    let said = pax(&[("path", "/tmp/baton-escaped")]);
    let tar = Tar::default().entry(PAX, "pax", "", &said, said.len() as u64);
    refused(&tar.file("short", &program).gz(), &["has an absolute path"]);
}

#[test]
fn links_that_lead_out_are_refused() {
    let program = program(1000);
    for kind in [SYMLINK, HARD_LINK] {
        for to in ["/tmp", "..", "a/../../b"] {
            let tar = Tar::default().file(NAME, &program).link(kind, "out", to).file("out/baton-escaped", &program);
            refused(&tar.gz(), &["\"out\" is a link that leads out of the archive"]);
        }
    }
    let zip = |to: &[u8]| Zip::default().entry("out", 0o120_777, to, false).file(NAME, &program).end();
    refused(&zip(b"/tmp"), &["\"out\" is a link that leads out"]);
    refused(&zip(b"../x"), &["\"out\" is a link that leads out"]);
    let said = pax(&[("linkpath", "/etc/passwd")]);
    let tar = Tar::default().entry(PAX, "pax", "", &said, said.len() as u64).link(SYMLINK, "lib/x", "y");
    refused(&tar.file(NAME, &program).gz(), &["\"lib/x\" is a link that leads out"]);
}

#[test]
fn links_within_are_left_out() {
    let program = program(1000);
    let tar = Tar::default().link(SYMLINK, "lib/x.so", "../lib/x.so.1").file("lib/x.so.1", b"x").file(NAME, &program);
    taken("links within", &tar.link(HARD_LINK, "again", "lib/x.so.1").gz(), &program);
    for kind in [SYMLINK, HARD_LINK] {
        let tar = Tar::default().file("other", &program).link(kind, "bin/noded", "other");
        refused(&tar.gz(), &["\"bin/noded\" is a link, where the binary itself is expected"]);
    }
    refused(&Zip::default().entry(NAME, 0o120_777, b"other", false).end(), &["\"noded\" is a link, where"]);
}

#[test]
fn devices_are_refused() {
    refused(&Tar::default().link(DEVICE, "null", "").gz(), &["\"null\" is neither a file nor a directory"]);
    refused(&Zip::default().entry("null", 0o020_666, b"", false).end(), &["is neither a file nor a directory"]);
}

#[test]
fn bombs_do_not_go_off() {
    let zeros = vec![0; BYTES_MAX as usize + 1];
    let words = ["unpacks to more than the 1048576 bytes", "upgrade.download_max_mib"];
    refused(&gz(&[b"#!".as_slice(), &zeros].concat()), &words);
    refused(&Tar::default().file(NAME, &zeros).gz(), &words);
    // What is not taken counts as well, where it has to be read.
    refused(&Tar::default().file("other", &zeros).file(NAME, b"#!").gz(), &words);
    refused(&Zip::default().file(NAME, &zeros).end(), &words);
    // A size is believed neither way.
    refused(&Zip::default().said(NAME, 0, 8, &gz(&zeros)[10..], 10, 0).end(), &["unpack"]);
    let declared = Tar::default().entry(b'0', NAME, "", b"#!/bin/sh\n", 0o77_777_777_777);
    refused(&declared.gz(), &["cannot be unpacked"]);
    refused(&gz(&gz(&zeros)), &["is no program"]);
}

#[test]
fn an_archive_of_very_many_entries_is_refused() {
    let many = (0..10_001).fold(Tar::default(), |tar, at| tar.entry(DIRECTORY, &format!("{at}/"), "", b"", 0));
    let host = Host { bytes_max: 100 << 20, ..Host::new() };
    let path = host.has(&many.gz());
    host.assert_refused(&path, &["more than 10000 entries"]);
    let many = (0..10_001).fold(Zip::default(), |zip, at| zip.entry(&format!("{at}/"), 0, b"", false));
    let path = host.has(&many.end());
    host.assert_refused(&path, &["more than 10000 entries"]);
}

#[test]
fn a_name_of_a_megabyte_is_not_taken_into_memory() {
    let name = vec![b'a'; 500_000];
    let tar = Tar::default().entry(LONG_NAME, "long", "", &name, name.len() as u64);
    refused(&tar.file(NAME, b"#!").gz(), &["a name of more than 65536 bytes"]);
}

#[test]
fn extensions_that_name_things_are_read() {
    let (program, said) = (program(1000), pax(&[("mtime", "1.5"), ("path", "bin/noded")]));
    let tar = Tar::default().entry(PAX_GLOBAL, "pax_global_header", "", b"", 0).file("README", b"x");
    let tar = tar.entry(PAX, "pax", "", &said, said.len() as u64);
    taken("pax", &tar.file("some/short/name", &program).gz(), &program);
    for (key, value) in [("size", "5"), ("GNU.sparse.major", "1")] {
        let said = pax(&[(key, value)]);
        let tar = Tar::default().entry(PAX, "pax", "", &said, said.len() as u64).file(NAME, &program);
        refused(&tar.gz(), &["cannot be unpacked: an entry"]);
    }
}

#[test]
fn what_is_cut_off_or_damaged_is_not_taken() {
    let program = program(50_000);
    let tar = Tar::default().file(NAME, &program).gz();
    refused(&tar[..tar.len() / 2], &["cannot be unpacked", "a whole tar.gz or zip"]);
    let mut zip = Zip::default().file(NAME, &program).end();
    refused(&zip[..zip.len() / 2], &["cannot be unpacked"]);
    zip[20_000] ^= 1;
    refused(&zip, &["cannot be unpacked"]);
    let gz = gz(&program);
    refused(&gz[..gz.len() - 4], &["cannot be unpacked"]);
}

#[test]
fn other_compressions_are_named() {
    refused(b"BZh91AY&SY....", &["compressed with bzip2", "tar.gz or a zip"]);
    refused(b"\xfd7zXZ\0....", &["compressed with xz"]);
    refused(b"\x28\xb5\x2f\xfd....", &["compressed with zstd"]);
}

#[test]
fn what_this_host_cannot_run_is_not_put_in_place() {
    refused(b"<!DOCTYPE html><html>", &["is no program", "<!DOCTYPE html>"]);
    refused(b"", &["is no program"]);
    refused(b"\x7fELF", &["is no program"]);
    let mut foreign = b"\x7fELF\x02\x01\x01".to_vec();
    foreign.resize(64, 0);
    foreign[18] = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    refused(&foreign, &["is a program for", "name the one for this host"]);
    foreign[18] = 8;
    refused(&foreign, &["a program for machine 8"]);
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    let host = Host { bytes_max: u64::MAX, ..Host::new() };
    host.obtain(&host.has(&own)).unwrap();
    host.assert_has(&own);
}

#[test]
fn unpacking_may_be_ended_as_well() {
    let host = Host::new();
    let path = host.has(&gz(&program(500_000)));
    let size = fs::metadata(&path).unwrap().len();
    let mut after = 0;
    let ended = host.obtain_as(Source::Operator(&path), &mut |done, _| {
        after += u32::from(done == size);
        after < 3
    });
    assert!(ended.unwrap_err().contains("was ended"));
    assert!(!host.binary().exists());
}
