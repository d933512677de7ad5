//! `baton cert` as an operator meets it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use baton::base::ids::NodeId;
use baton::cluster::certificates::{Bearer, Facts, read_certificates};
use baton::cluster::transport::Certificates;

use super::certs::{Certs, baton, expired};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The one line of a refusal, which leaves exit code 2.
fn refusal(args: &[&str]) -> String {
    let output = baton(args);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{args:?}");
    let line = text(&output.stderr).strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "{line}");
    line.strip_prefix("baton: ").expect("its name").to_owned()
}

#[test]
fn an_authority_and_a_member_are_made_with_two_commands() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let certs = dir.path().join("certs");
    let at = certs.to_str().expect("UTF-8");
    let made = baton(&["cert", "ca", "--dir", at, "--days", "30"]);
    assert!(made.status.success(), "{made:?}");
    assert!(text(&made.stdout).contains("ca.key"), "{made:?}");

    let issued = baton(&["cert", "issue", "host-a", "--addr", "10.0.0.1", "a.example.org", "--dir", at, "--days", "9"]);
    assert!(issued.status.success(), "{issued:?}");
    let said = text(&issued.stdout);
    let section = "[tls]\nca = \"ca.pem\"\ncert = \"host-a.pem\"\nkey = \"host-a.key\"\n";
    assert!(said.contains(section) && said.contains("10.0.0.1, a.example.org"), "{said}");

    for file in ["ca.pem", "ca.key", "host-a.pem", "host-a.key"] {
        let mode = fs::metadata(certs.join(file)).expect(file).permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{file}");
    }
    let all: Vec<_> =
        fs::read_dir(&certs).expect("readable").map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(all.len(), 4, "nothing else is left: {all:?}");
    let der = read_certificates(&certs.join("host-a.pem")).expect("a certificate");
    assert_eq!(Facts::read(&der[0]).expect("a name").bearer, Bearer::Member("host-a".into()));
}

#[test]
fn an_authority_is_never_overwritten_and_a_member_only_when_it_is_said() {
    let certs = Certs::new();
    let at = certs.dir().to_str().expect("UTF-8");
    let before = fs::read(certs.dir().join("ca.pem")).expect("readable");
    let line = refusal(&["cert", "ca", "--dir", at]);
    assert!(line.starts_with(&format!("{at}/ca.pem is there already and is not overwritten")), "{line}");
    fs::remove_file(certs.dir().join("ca.pem")).expect("removed");
    assert!(refusal(&["cert", "ca", "--dir", at]).contains("ca.key is there already"));
    fs::write(certs.dir().join("ca.pem"), before).expect("written");

    let issue = ["cert", "issue", "host-a", "--addr", "10.0.0.1", "--dir", at, "--days", "5"];
    assert!(baton(&issue).status.success());
    let first = fs::read(certs.dir().join("host-a.key")).expect("readable");
    let line = refusal(&issue);
    assert_eq!(line, format!("{at}/host-a.pem is there already and is not overwritten; add --replace to renew it"));
    assert!(baton(&[&issue[..], &["--replace"]].concat()).status.success());
    assert_ne!(fs::read(certs.dir().join("host-a.key")).expect("readable"), first, "a renewed one has a new key");
}

#[test]
fn an_admin_has_a_certificate_that_no_member_could_have() {
    let certs = Certs::new();
    let at = certs.dir().to_str().expect("UTF-8");
    let issue = ["cert", "issue", "--admin", "a", "--dir", at, "--days", "5"];
    let issued = baton(&issue);
    assert!(issued.status.success(), "{issued:?}");
    let said = text(&issued.stdout);
    let usage = "baton status --addr HOST:PORT --ca ca.pem --cert admin-a.pem --key admin-a.key\n";
    assert!(said.contains(usage), "{said}");
    let (certificate, key) = (certs.dir().join("admin-a.pem"), certs.dir().join("admin-a.key"));
    for file in [&certificate, &key] {
        assert_eq!(fs::metadata(file).expect("there").permissions().mode() & 0o7777, 0o600, "{file:?}");
    }
    let bearer = |path| Facts::read(&read_certificates(path).expect("a certificate")[0]).expect("a name").bearer;
    assert_eq!(bearer(&certificate), Bearer::Admin("a".into()));

    // A member of the same name, and one that is called as the admin's files are.
    for id in ["a", "admin-a"] {
        let issued = baton(&["cert", "issue", id, "--addr", "10.0.0.1", "--dir", at, "--days", "5", "--replace"]);
        assert!(issued.status.success(), "{issued:?}");
    }
    assert_eq!(bearer(&certificate), Bearer::Admin("a".into()));
    assert_eq!(bearer(&certs.dir().join("member-admin-a.pem")), Bearer::Member("admin-a".into()));

    assert!(refusal(&issue).contains("admin-a.pem is there already"));
    fs::copy(certs.dir().join("a.pem"), &certificate).expect("copied");
    let line = refusal(&[&issue[..], &["--replace"]].concat());
    assert!(line.contains("admin-a.pem is a certificate of member a and makes no room for one of admin a"), "{line}");
    assert!(refusal(&["cert", "issue", "--admin", "a", "--addr", "h", "--dir", at]).contains("cannot be used with"));
}

#[test]
fn what_cannot_be_issued_is_refused_in_one_line() {
    let certs = Certs::new();
    let at = certs.dir().to_str().expect("UTF-8");
    for (args, part) in [
        (&["cert", "issue", "../b", "--addr", "h", "--dir", at, "--days", "5"][..], "is not a name for a certificate"),
        (&["cert", "issue", "b", "--addr", "h:7401", "--dir", at, "--days", "5"], "\"h:7401\" is not a host"),
        (&["cert", "issue", "b", "--dir", at], "--addr"),
        (&["cert", "issue", "--dir", at], "required"),
        (&["cert", "issue", "b", "--addr", "h", "--dir", at, "--days", "0"], "days"),
        (&["cert", "issue", "b", "--addr", "h", "--dir", at, "--days", "11"], "longer than its authority"),
        (&["cert", "issue", "b", "--addr", "h", "--dir", "/nonexistent"], "/nonexistent/ca.pem"),
    ] {
        let line = refusal(args);
        assert!(line.contains(part), "{args:?}: {line}");
    }
    let key = certs.dir().join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("chmod");
    let line = refusal(&["cert", "issue", "b", "--addr", "h", "--dir", at, "--days", "5"]);
    assert!(line.contains("can be used by group or others (mode 0640); chmod 600 it"), "{line}");
    fs::copy(Certs::new().dir().join("ca.key"), &key).expect("another one's key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    let line = refusal(&["cert", "issue", "b", "--addr", "h", "--dir", at, "--days", "5"]);
    assert!(line.contains("is not the private key of the authority"), "{line}");
}

#[test]
fn a_member_does_not_start_with_certificates_that_nobody_would_accept() {
    let certs = Certs::new();
    let refused = |files: &baton::config::Tls, me: &str| {
        Certificates::read(files, &NodeId::from(me)).err().expect("refused").to_string()
    };
    let good = certs.of("a");
    assert!(Certificates::read(&good, &"a".into()).is_ok());
    assert!(refused(&good, "b").contains("names member a, this is member b"));

    certs.issue(&Bearer::member("old").expect("plain"), expired());
    assert!(refused(&certs.files("old"), "old").contains("expired at"));

    let foreign = Certs::new();
    let mut mixed = foreign.of("a");
    mixed.ca.clone_from(&good.ca);
    assert!(refused(&mixed, "a").contains("is not signed by the authority"));

    let swapped = baton::config::Tls { key: certs.of("b").key, ..good.clone() };
    assert!(refused(&swapped, "a").contains("do not belong together"));

    let nameless = baton::config::Tls { cert: good.ca.clone(), ..good.clone() };
    assert!(refused(&nameless, "a").contains("names neither a member nor an admin"));

    fs::set_permissions(&good.key, fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(refused(&good, "a").contains("(mode 0644); chmod 600 it"));
    fs::remove_file(&good.key).expect("removed");
    assert!(refused(&good, "a").contains("a.key: No such file"));
}
