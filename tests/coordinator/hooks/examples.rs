//! The hooks in deploy/hooks, run with stand-ins for curl, ip and arping.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::kit::stand_in;

const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/hooks");

/// With the stand-ins of `dir` first, and what a holder's hook is told.
fn run(dir: &Path, hook: &str, event: &str, arguments: &[&str]) -> Output {
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").expect("a PATH"));
    let mut command = Command::new(format!("{HOOKS}/{hook}"));
    command.args(arguments).current_dir(dir).env("PATH", path);
    for (name, value) in [
        ("BATON_EVENT", event),
        ("BATON_CLUSTER", "my-validator"),
        ("BATON_MEMBER", "host-a"),
        ("BATON_HOLDER", "host-a"),
        ("BATON_EPOCH", "7"),
        ("BATON_TERM", "12"),
        ("BATON_SINCE", "2026-06-14T09:31:07.204Z"),
        ("BATON_REASON", "said \"stop\" \\ and went"),
    ] {
        command.env(name, value);
    }
    command.output().expect("it runs")
}

fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_webhook_hands_curl_one_line_of_json_and_keeps_the_url_off_its_command_line() {
    let dir = tempfile::tempdir().expect("a directory");
    stand_in(dir.path(), "curl", "cat > config; for word; do printf '%s\\n' \"$word\"; done > words");
    fs::write(dir.path().join("url"), "https://chat.example/hooks/secret").expect("a file");
    assert_ok(&run(dir.path(), "webhook", "on_holder", &["url"]));
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("written");
    assert_eq!(read("config"), "url = \"https://chat.example/hooks/secret\"\n");
    let words = read("words");
    assert!(!words.contains("secret"), "{words}");
    assert!(words.contains("--max-time\n8\n") && words.contains("--retry-max-time\n20\n"), "unbounded: {words}");
    let json = words.lines().find(|word| word.starts_with('{')).expect("a body");
    let body: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let text = "my-validator: host-a on_holder, epoch 7, holder host-a, since 2026-06-14T09:31:07.204Z: said \"stop\" \\ and went";
    assert_eq!((body["text"].as_str(), body["content"].as_str()), (Some(text), Some(text)));
}

#[test]
fn a_webhook_that_is_not_answered_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    stand_in(dir.path(), "curl", "exit 22");
    fs::write(dir.path().join("url"), "https://chat.example/\n").expect("a file");
    assert_eq!(run(dir.path(), "webhook", "on_fenced", &["url"]).status.code(), Some(22));
    assert_eq!(run(dir.path(), "webhook", "on_fenced", &[]).status.code(), Some(2));
}

/// What `ip` and `arping` were called with by the service, after the hook was told `event`.
fn moved(dir: &Path, event: &str) -> Vec<String> {
    let _ = fs::remove_file(dir.join("calls"));
    assert_ok(&run(dir, "tell-role", event, &["role"]));
    assert_ok(&run(dir, "move-address", "", &["role", "10.0.0.100/24", "eth0"]));
    let calls = fs::read_to_string(dir.join("calls")).expect("something was called");
    calls.lines().map(str::to_owned).collect()
}

#[test]
fn the_address_is_on_the_holder_and_on_no_standby() {
    let dir = tempfile::tempdir().expect("a directory");
    stand_in(dir.path(), "arping", "");
    stand_in(dir.path(), "ip", "case \"$*\" in *show*) echo '2: eth0    inet 10.0.0.100/24 scope global eth0';; esac");
    let announce = "arping -q -A -c 3 -w 4 -I eth0 10.0.0.100";
    assert_eq!(moved(dir.path(), "on_holder"), ["ip address replace 10.0.0.100/24 dev eth0", announce]);
    let look = "ip -oneline address show dev eth0";
    assert_eq!(moved(dir.path(), "on_standby"), [look, "ip address del 10.0.0.100/24 dev eth0"]);
    // It has it no more.
    stand_in(dir.path(), "ip", "");
    assert_eq!(moved(dir.path(), "on_standby"), [look]);
    // A neighbour that is not told learns it by itself.
    stand_in(dir.path(), "arping", "exit 1");
    assert_eq!(moved(dir.path(), "on_holder").len(), 2);
}

#[test]
fn the_service_takes_no_other_word_from_the_hooks_user() {
    let dir = tempfile::tempdir().expect("a directory");
    stand_in(dir.path(), "ip", "");
    fs::write(dir.path().join("role"), "holder; reboot\n").expect("a file");
    let output = run(dir.path(), "move-address", "", &["role", "10.0.0.100/24", "eth0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!dir.path().join("calls").exists(), "something was called");
    assert_eq!(run(dir.path(), "tell-role", "on_fenced", &["role"]).status.code(), Some(2));
}
