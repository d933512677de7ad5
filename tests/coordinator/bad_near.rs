//! A host of driver near with something wrong: `baton check` says all that `baton run` refuses or warns of, in the same
//! words.

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Output};

use crate::kit::host::write_key;
use crate::kit::program::{BATON, Running, TWO_MEMBERS, command, coordinator_in, end_with_us, free_addresses};
use crate::kit::stage::Stage;

const ACCOUNT: &str = r#"{"account_id": "node3", "public_key": "ed25519:P", "secret_key": "ed25519:S"}"#;
const CHAIN: &str = r#"
[chain]
driver = "near"
home = "home"
command = ["sh", "-c", "exec sleep 60"]
log = "node.log"
[[chain.links]]
link = "validator_key.json"
validating = "shared.json"
[chain.probe]
url = "http://127.0.0.1:9/status"
"#;

/// A host on which nothing is wrong.
struct Host(Stage);

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.0
    }
}

impl Host {
    fn new() -> Host {
        let [peers] = free_addresses();
        let host = Host(Stage::new(&[TWO_MEMBERS, CHAIN].concat().replace("PEERS", &peers)));
        fs::write(host.path("home/config.json"), r#"{"tracked_shards_config": "AllShards"}"#).expect("a config.json");
        host.key("shared.json", ACCOUNT);
        host
    }

    fn key(&self, name: &str, text: &str) {
        write_key(&self.path(name), text);
    }

    fn tracks(&self, shards: &str) {
        let config = format!("{{\"tracked_shards_config\": {shards}}}");
        fs::write(self.path("home/config.json"), config).expect("written");
    }

    fn with_standby_key(&self, text: &str) {
        self.edit("validating = \"shared.json\"", "validating = \"shared.json\"\nstandby = \"standby.json\"");
        self.key("standby.json", text);
    }

    fn check(&self) -> Output {
        limited(&self.0, "check").output().expect("it runs")
    }

    /// Until what it says holds `words`; then it is killed, and what it left ends with this host.
    fn runs_and_says(&self, words: &str) -> String {
        let log = fs::File::options().append(true).create(true).open(self.path("log")).expect("a log");
        let mut run = limited(&self.0, "run");
        let mut run = Running(run.stderr(log).spawn().expect("it starts"));
        self.is_said(&mut run.0, words);
        // From here on its guard is found by `fence`.
        self.is_said(&mut run.0, "guard attached");
        self.log()
    }

    fn is_said(&self, run: &mut Child, words: &str) {
        self.until(&format!("said: {words:?}"), || {
            assert_eq!(run.try_wait().expect("ours"), None, "it ended: {}", self.log());
            self.log().contains(words).then_some(())
        });
    }
}

/// Of open files, and fewer than a neard needs.
const FILES: u32 = 4096;

/// `baton VERB`, which dies with the thread that starts it.
fn limited(dir: &Path, verb: &str) -> Command {
    let mut command = command("sh");
    command.args(["-c", &format!("ulimit -n {FILES} && exec {BATON} {verb} --config baton.toml")]).current_dir(dir);
    end_with_us(&mut command);
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn what_run_refuses_check_refuses_in_the_same_words() {
    type Mistake = (fn(&Host), &'static str);
    let mistakes: [Mistake; 9] = [
        (
            |host| host.edit("\"sh\", \"-c\", \"exec sleep 60\"", "\"no-such-neard\""),
            "no-such-neard is no executable file in PATH",
        ),
        (|host| fs::remove_file(host.path("home/config.json")).expect("removed"), "home/config.json"),
        (|host| fs::write(host.path("home/config.json"), "{\n\"a\": 1").expect("written"), "at line 2"),
        (
            |host| {
                fs::write(host.path("home/config.json"), r#"{"validator_key_file": "other.json"}"#).expect("written")
            },
            "validator_key_file is \"other.json\"",
        ),
        (|host| host.key("shared.json", "{}"), "no key with `account_id`"),
        (|host| host.with_standby_key("{}"), "no key with `account_id`"),
        (|host| host.with_standby_key(ACCOUNT), "is the validator key"),
        (
            |host| {
                let addrs = "[chain.near]\nvalidating_addr = \"0.0.0.0:1\"\nstandby_addr = \"0.0.0.0:2\"";
                host.edit("[chain.probe]", &format!("[chain.activate]\nhow = \"restart\"\n{addrs}\n[chain.probe]"));
            },
            "network",
        ),
        // Both look at the same first. A certificate is asked for after the chain node.
        (
            |host| {
                host.edit("[chain]", "[tls]\nca = \"gone.pem\"\ncert = \"gone.pem\"\nkey = \"gone.key\"\n[chain]");
                host.key("shared.json", "{}");
            },
            "no key with `account_id`",
        ),
    ];
    for (make, words) in mistakes {
        let host = Host::new();
        make(&host);
        let run = coordinator_in(&host.0).status().expect("it runs");
        let (run_said, check) = (host.log(), host.check());
        assert!(run_said.contains(words) && run_said.lines().count() == 1, "{words}: {run_said}");
        assert_eq!((run.code(), check.status.code()), (Some(2), Some(2)), "{run_said}");
        assert_eq!(text(&check.stderr), run_said);
    }
}

#[test]
fn what_run_warns_of_check_warns_of_in_the_same_words() {
    type Mistake = (fn(&Host), &'static str);
    let mistakes: [Mistake; 5] = [
        (|host| host.tracks(r#""NoShards""#), "this node tracks no shard"),
        (|host| host.tracks(r#"{"Accounts": ["node3"]}"#), "this node tracks its Accounts only"),
        (|host| host.tracks(r#"{"ShadowValidator": "gone"}"#), "this node tracks what validator gone needs"),
        (|host| host.with_standby_key(r#"{"account_id": "gone"}"#), "is a key of account gone"),
        (|_| (), "the limit of open files is 4096"),
    ];
    for (make, words) in mistakes {
        let host = Host::new();
        make(&host);
        let check = host.check();
        let said = text(&check.stdout);
        let warning = said.lines().find(|line| line.contains(words)).and_then(|line| line.strip_prefix("warning: "));
        let warning = warning.unwrap_or_else(|| panic!("{words}: {said}{}", text(&check.stderr)));
        assert_eq!(check.status.code(), Some(0), "{said}");
        assert!(host.runs_and_says(words).contains(warning), "{warning}: {}", host.log());
    }
}

#[test]
fn on_a_host_without_home_and_program_check_names_both_and_run_refuses() {
    let host = Host::new();
    fs::remove_dir_all(host.path("home")).expect("removed");
    host.edit("\"sh\", \"-c\", \"exec sleep 60\"", "\"no-such-neard\"");
    let check = host.check();
    let said = text(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{said}{}", text(&check.stderr));
    for words in ["home is not there", "no-such-neard is no executable file in PATH", "the limit of open files is 4096"]
    {
        assert!(said.lines().any(|line| line.starts_with("warning: ") && line.contains(words)), "{words}: {said}");
    }
    assert_eq!(coordinator_in(&host.0).status().expect("it runs").code(), Some(2));
    assert!(host.log().contains("chain.home"), "{}", host.log());
}
