//! `baton signer`: what reaches the coordinator of another signer's record and key.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use baton::cluster::wire::proto::order_request::Order;
use baton::cluster::wire::proto::{Grant, OpenSignLog, SignLogChange, sign_log_change::Change};

use crate::fake_coordinator::{Host, assert_refused, baton, serve, text, two_members};

const STATE: &str = r#"{"height": "41", "round": 2, "step": 3}"#;
/// tmkms' softsign: base64 of a seed of zeros, and its public half.
const SEED: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const PUBLIC: &str = "ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=";

fn written(host: &Host, name: &str, content: &str, mode: u32) -> String {
    let path = host.path(name);
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn an_import_names_the_mark_and_the_public_half_of_the_key() {
    let host = Host::new();
    let _server = serve(two_members(), &host.path("run/admin.sock"));
    let (config, state) = (host.config(), written(&host, "state.json", STATE, 0o600));
    let key = written(&host, "softsign.key", SEED, 0o600);
    for (more, public) in [(&[][..], ""), (&["--validator-key", &key], PUBLIC)] {
        let output = baton(&[&["signer", "import", "--state", &state, "--config", &config], more].concat(), &[]);
        let last = Grant { height: 41, round: 2, step: 3, ..Grant::default() };
        let open = OpenSignLog { key: public.into(), last: Some(last), ..OpenSignLog::default() };
        let said = format!("{:?}\n", Some(Order::SignLog(SignLogChange { change: Some(Change::Open(open)) })));
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), said.as_str()), "{output:?}");
    }
}

#[test]
fn a_key_that_is_none_or_open_to_others_is_one_line() {
    let host = Host::new();
    let (config, state) = (host.config(), written(&host, "state.json", STATE, 0o600));
    let import =
        |key: &str| baton(&["signer", "import", "--state", &state, "--validator-key", key, "--config", &config], &[]);
    let open = written(&host, "open.key", SEED, 0o644);
    let line = format!("baton: the key file {open} has mode 0644: others than its owner may use it; chmod 600");
    assert_refused(&import(&open), 2, &line);
    let none = written(&host, "none.key", "{}", 0o600);
    let output = import(&none);
    let told = text(&output.stderr);
    assert!(told.starts_with(&format!("baton: the key file {none}: ")), "{told}");
    assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
}
