//! What may be written as the source of a binary.

use std::fs;

use baton::host::upgrade::obtain::Source;

use super::servers::{Host, Server, program, say, serve, sha256, sha512};

#[cfg(target_arch = "x86_64")]
const HERE: &str = "linux/amd64";
#[cfg(target_arch = "aarch64")]
const HERE: &str = "linux/arm64";

fn file_server(content: Vec<u8>) -> Server {
    Server::start(move |asked, wire| serve(asked, wire, &content, "\"one\"", None))
}

#[test]
fn a_file_of_this_host_is_copied() {
    let (host, program) = (Host::new(), program(300_000));
    let path = host.outside("new-binary");
    fs::write(&path, &program).unwrap();
    let mut last = (0, None);
    host.obtain_as(Source::Operator(path.to_str().unwrap()), &mut |done, total| {
        last = (done, total);
        true
    })
    .unwrap();
    host.assert_has(&program);
    assert_eq!(last, (300_000, Some(300_000)));
    assert!(path.exists(), "the operator's own file stays");
}

#[test]
fn a_file_may_have_a_checksum_and_then_it_counts() {
    let (host, program) = (Host::new(), program(1000));
    let path = host.outside("new-binary");
    fs::write(&path, &program).unwrap();
    let path = path.display();
    let wrong = sha256(b"else");
    host.assert_refused(&format!("{path}?checksum=sha256:{wrong}"), &[&wrong, &sha256(&program)]);
    host.obtain(&format!("file://{path}?checksum={}", sha512(&program))).unwrap();
    host.assert_has(&program);
}

#[test]
fn a_file_that_is_not_there_or_no_file_is_named() {
    let host = Host::new();
    host.assert_refused("/nowhere/noded", &["cannot read /nowhere/noded"]);
    host.assert_refused(host.outside("").to_str().unwrap(), &["it is no file"]);
}

#[test]
fn links_take_either_kind_of_checksum() {
    let program = program(5000);
    let server = file_server(program.clone());
    let url = server.url("/noded");
    for checksum in [
        format!("sha256:{}", sha256(&program)),
        format!("sha512:{}", sha512(&program)),
        format!("sha256%3A{}", sha256(&program).to_uppercase()),
        sha256(&program),
    ] {
        let host = Host::new();
        host.obtain(&format!("{url}?checksum={checksum}")).unwrap_or_else(|error| panic!("{checksum}: {error}"));
        host.assert_has(&program);
    }
}

#[test]
fn the_server_is_asked_without_what_is_meant_for_us() {
    let (host, program) = (Host::new(), program(5000));
    let server = file_server(program.clone());
    let (url, sum) = (server.url("/noded"), sha256(&program));
    host.obtain(&format!("{url}?token=a%20b&checksum=sha256:{sum}&archive=false&x=1")).unwrap();
    assert_eq!(server.asked()[0].path, "/noded?token=a%20b&x=1");
    assert_eq!(server.asked()[0].header("host"), Some(server.addr.to_string()));
}

#[test]
fn nothing_comes_over_the_network_without_a_checksum() {
    let host = Host::new();
    let server = file_server(program(100));
    let url = server.url("/noded");
    host.assert_refused(&url, &["no checksum", "?checksum=sha256:HEX", "sha256sum FILE"]);
    host.assert_refused(&format!("{url}?v=1"), &["&checksum=sha256:HEX"]);
    host.assert_refused(&format!("{url}?checksum="), &["no checksum"]);
    host.assert_refused(&format!(r#"{{"binaries":{{"any":"{url}"}}}}"#), &["no checksum"]);
    assert!(server.asked().is_empty(), "{:?}", server.asked());
}

#[test]
fn checksums_that_prove_nothing_are_refused() {
    let host = Host::new();
    let refused = |checksum: &str, words: &[&str]| {
        host.assert_refused(&format!("https://host.example/noded?checksum={checksum}"), words);
    };
    refused("md5:b7d96c89d09d9e204f5fedc4d5d55b21", &["\"md5\"", "sha256:HEX"]);
    refused("b7d96c89d09d9e204f5fedc4d5d55b21", &["has 32 digits"]);
    refused("file:https://host.example/SHA256SUMS", &["checksum=file:", "write the checksum itself"]);
    refused("sha256:abc", &["64 hexadecimal digits", "sha256sum FILE"]);
    refused(&format!("sha256:{}", "g".repeat(64)), &["64 hexadecimal digits"]);
}

#[test]
fn what_is_no_source_is_said_to_be_none() {
    let host = Host::new();
    let sum = sha256(b"");
    host.assert_refused("noded", &["\"noded\" is no source", "absolute path", HERE]);
    host.assert_refused("git::https://host.example/x", &["is no source"]);
    host.assert_refused("ftp://host.example/x", &["is no source"]);
    host.assert_refused("https://ho st/x", &["is no URL"]);
    host.assert_refused(&format!("https://me:secret@host.example/x?checksum={sum}"), &["has a user in it"]);
    host.assert_refused(&format!("https://host.example/x?checksum={sum}&archive=tar.xz"), &["archive=tar.xz"]);
}

#[test]
fn no_error_tells_a_secret() {
    let (host, sum) = (Host::new(), sha256(b""));
    for source in [
        format!("https://me:secret@host.example/x?checksum={sum}"),
        format!("https://me:secret@ho st/x?checksum={sum}"),
        format!("https://host.example/x?token=secret&checksum=md5:{sum}"),
        "https://host.example/x?token=secret".to_owned(),
        "https://ho st/x?token=secret".to_owned(),
    ] {
        let error = host.assert_refused(&source, &[]);
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_plan_names_the_binary_of_each_kind_of_host() {
    let program = program(5000);
    let server = file_server(program.clone());
    let (right, other) = (server.link("/right", &program), server.link("/other", b"other"));
    for (info, path) in [
        (format!(r#" {{"binaries":{{"{HERE}":"{right}","any":"{other}","darwin/arm64":"{other}"}}}}"#), "/right"),
        (format!(r#"{{"binaries":{{"any":"{right}","darwin/arm64":"{other}"}},"more":[1]}}"#), "/right"),
    ] {
        let host = Host::new();
        host.obtain_as(Source::Chain(&info), &mut |_, _| true).unwrap();
        host.assert_has(&program);
        assert_eq!(server.asked().last().unwrap().path, path);
    }
}

#[test]
fn a_plan_without_a_binary_for_this_host_says_which_it_has() {
    let host = Host::new();
    let info = r#"{"binaries":{"darwin/arm64":"https://host.example/x","windows/amd64":"https://host.example/x"}}"#;
    host.assert_refused(info, &["darwin/arm64, windows/amd64", HERE, "by hand"]);
    host.assert_refused(r#"{"binaries":{}}"#, &["binaries for nothing"]);
    host.assert_refused(r#"{"binary":{}}"#, &["the plan's info does not say", "binaries"]);
    host.assert_refused(r#"{"binaries""#, &["the plan's info does not say"]);
    for info in [" ", "Upgrade to v2, see the forum"] {
        let error = host.obtain_as(Source::Chain(info), &mut |_, _| true).unwrap_err();
        assert!(error.contains("does not say where its binary is") && error.contains(info.trim()), "{error}");
    }
}

#[test]
fn a_plan_may_not_name_a_file_of_this_host() {
    let host = Host::new();
    let path = host.outside("anything");
    fs::write(&path, program(100)).unwrap();
    let path = path.display();
    for info in [path.to_string(), format!("file://{path}")] {
        let error = host.obtain_as(Source::Chain(&info), &mut |_, _| true).unwrap_err();
        assert!(error.contains("may not name a file"), "{error}");
    }
    host.assert_refused(&format!(r#"{{"binaries":{{"any":"{path}"}}}}"#), &["is no source"]);
    host.assert_refused(&format!(r#"{{"binaries":{{"any":"file://{path}"}}}}"#), &["is no source"]);
    assert!(!host.binary().exists());
}

#[test]
fn a_link_may_lead_to_the_text_of_a_plan() {
    let program = program(5000);
    let binary = file_server(program.clone());
    let info = format!("\n{{\"binaries\":{{\"{HERE}\":\"{}\"}}}}\n", binary.link("/noded", &program)).into_bytes();
    let text = file_server(info.clone());
    let host = Host::new();
    host.obtain_as(Source::Chain(&text.link("/info.json", &info)), &mut |_, _| true).unwrap();
    host.assert_has(&program);

    let host = Host::new();
    host.assert_refused(&text.url("/info.json"), &["no checksum"]);
    host.assert_refused(&text.link("/info.json", b"another"), &[&sha256(b"another"), &sha256(&info)]);
}

#[test]
fn a_text_does_not_lead_to_another_text() {
    let host = Host::new();
    let server = Server::start(|_, wire| say(wire, "200 OK", "", br#"{"binaries":{}}"#));
    let inner = server.link("/inner", br#"{"binaries":{}}"#);
    host.assert_refused(&format!(r#"{{"binaries":{{"any":"{inner}"}}}}"#), &["is no program", "binaries"]);
}
