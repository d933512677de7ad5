//! `chain.custody = "signer"` and its section.

use std::path::Path;

use super::load;
use baton::base::privval_address::PrivvalAddress;

/// A validator host's file with these lines in `[signer]`.
pub fn with_signer(lines: &str) -> String {
    format!(
        r#"
[member]
id = "a"
state_dir = "/s"
run_dir = "/r"
[cluster]
name = "one"
listen = "127.0.0.1:7401"
members = [{{ id = "a", addr = "127.0.0.1:7401" }}]
[chain]
driver = "cometbft"
custody = "signer"
home = "/h"
command = ["gaiad", "start"]
[chain.activate]
how = "restart"
[chain.probe]
url = "http://127.0.0.1:26657"
[signer]
key = "/k/priv_validator_key.json"
{lines}
"#
    )
}

#[test]
fn the_nodes_that_ask_are_those_that_are_named() {
    let config = load(&with_signer(r#"sentries = ["tcp://10.0.0.5:26659", "unix:///run/other.sock"]"#));
    let signer = config.expect("sound").chain.expect("a validator").signer.expect("custody by a signer");
    assert_eq!(signer.node, Path::new("/r/privval.sock"));
    let unix = PrivvalAddress::Unix("/run/other.sock".into());
    assert_eq!(signer.sentries, [PrivvalAddress::Tcp("10.0.0.5:26659".into()), unix]);
    let alone = load(&with_signer("")).expect("sound").chain.expect("a validator").signer;
    assert!(alone.expect("custody by a signer").sentries.is_empty());
}

#[test]
fn what_is_wrong_with_a_sentry_is_said_by_file_and_key() {
    let many: Vec<String> = (1..=17).map(|host| format!("\"tcp://10.0.0.{host}:26659\"")).collect();
    let many = format!("sentries = [{}]", many.join(", "));
    for (lines, expected) in [
        (r#"sentries = "tcp://10.0.0.5:26659""#, "is not a list of strings"),
        (
            r#"sentries = ["10.0.0.5:26659"]"#,
            "\"10.0.0.5:26659\" begins with neither unix:// nor tcp://; write \"tcp://10.0.0.5:26659\"",
        ),
        (r#"sentries = ["tcp://0.0.0.0:26659"]"#, "is where a node listens; name the host that it runs on"),
        (r#"sentries = ["tcp://ab12@10.0.0.5:26659"]"#, "names a node's id, and a node has another one at each start"),
        (r#"sentries = ["tcp://h:1", "tcp://h:2", "tcp://h:1"]"#, "\"tcp://h:1\" stands there twice"),
        (r#"sentries = ["unix:///r/privval.sock"]"#, "is signer.node already, the node that baton runs"),
        (many.as_str(), "has 17 addresses; at most 16 are served"),
    ] {
        let refused = load(&with_signer(lines)).expect_err(lines);
        assert!(refused.starts_with("signer.sentries in baton.toml:21: ") && refused.contains(expected), "{refused}");
    }
    let node = load(&with_signer(r#"node = "tcp://127.0.0.1:26659""#)).expect_err("baton runs it");
    assert!(node.contains("signer.node in baton.toml:21: ") && node.contains("is not unix://"), "{node}");
}
