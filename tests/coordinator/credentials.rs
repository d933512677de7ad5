//! A host whose key files are systemd's credentials: `baton check` inside of the service, what an operator may ask
//! outside of it, and links into a directory that comes and goes with the service.

use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::kit::program::{ONE_MEMBER, baton};
use crate::kit::stage::Stage;
use baton::base::guard_frame::LinkState;
use baton::config::Config;
use baton::host::key_links::KeyLinks;

const CONFIG: &str = r#"
[chain]
driver = "generic"
home = "home"
command = ["true"]
[[chain.links]]
link = "key"
validating = "$CREDENTIALS_DIRECTORY/validator"
standby = "$CREDENTIALS_DIRECTORY/throwaway"
[chain.probe]
tcp = "127.0.0.1:9"
"#;

struct Host(Stage);

impl Deref for Host {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.0
    }
}

impl Host {
    fn new() -> Host {
        let host = Host(Stage::new(&[ONE_MEMBER, CONFIG].concat().replace("PEERS", "127.0.0.1:7401")));
        for dir in ["state", "run"] {
            fs::create_dir(host.path(dir)).expect("a directory");
        }
        host.load_credentials();
        host
    }

    /// As systemd does it at every start of the service: files that can be read and no more, in a directory of their
    /// own.
    fn load_credentials(&self) {
        let dir = self.path("credentials");
        fs::create_dir(&dir).expect("a directory");
        for name in ["validator", "throwaway"] {
            fs::write(dir.join(name), name).expect("a key");
            fs::set_permissions(dir.join(name), Permissions::from_mode(0o400)).expect("chmod");
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o500)).expect("chmod");
    }

    /// As systemd does it at every end of the service.
    fn drop_credentials(&self) {
        fs::set_permissions(self.path("credentials"), Permissions::from_mode(0o700)).expect("chmod");
        fs::remove_dir_all(self.path("credentials")).expect("removed");
    }

    fn baton(&self, args: &[&str], in_service: bool) -> Output {
        let mut command = baton(args);
        command.arg("--config").arg(self.path("baton.toml")).env_remove("CREDENTIALS_DIRECTORY").stdin(Stdio::null());
        if in_service {
            command.env("CREDENTIALS_DIRECTORY", self.path("credentials"));
        }
        command.output().expect("the baton program starts")
    }
}

fn told(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn check_takes_the_keys_from_the_credentials_and_says_so_when_there_are_none() {
    let host = Host::new();
    let file = host.path("baton.toml").display().to_string();
    assert_eq!(told(&host.baton(&["check"], true)).0, Some(0));
    let outside = format!(
        "baton: chain.links[0].validating in {file}:17: CREDENTIALS_DIRECTORY is not set; systemd sets it for a service with \
         LoadCredential=validator:FILE, and by hand CREDENTIALS_DIRECTORY=DIR does\n"
    );
    assert_eq!(told(&host.baton(&["check"], false)), (Some(2), outside));
    host.drop_credentials();
    let (code, line) = told(&host.baton(&["check"], true));
    assert_eq!(code, Some(2));
    assert!(line.contains("credentials/validator cannot be read: No such file"), "{line}");
}

#[test]
fn an_operator_outside_of_the_service_asks_and_fences_all_the_same() {
    let host = Host::new();
    let (code, line) = told(&host.baton(&["status"], false));
    assert_eq!(code, Some(2));
    assert!(line.contains("admin.sock"), "it is the coordinator that is missing: {line}");
    symlink(host.path("credentials/validator"), host.path("home/key")).expect("a link");
    let (code, line) = told(&host.baton(&["fence"], false));
    assert_eq!(code, Some(0), "{line}");
    assert!(line.starts_with("a is fenced: links in standby"), "{line}");
    let target = fs::read_link(host.path("home/key")).expect("a link");
    assert_eq!(target, PathBuf::from("/run/credentials/baton.service/throwaway"));
}

/// What a guard does with its links while the service is stopped, and what the next start finds.
#[test]
fn links_into_credentials_that_are_gone_lead_nowhere_and_are_right_again_with_the_next_start() {
    let host = Host::new();
    let directory = ("CREDENTIALS_DIRECTORY".to_owned(), host.path("credentials").display().to_string());
    let config = Config::load(&host.path("baton.toml"), std::iter::once(directory)).expect("sound");
    let links = KeyLinks::new(config.chain.expect("a chain node").links).expect("links");
    let content = || fs::read_to_string(host.path("home/key")).ok();

    symlink(host.path("credentials/validator"), host.path("home/key")).expect("as a holder has it");
    assert_eq!(links.state(), LinkState::Validating);
    host.drop_credentials();
    assert_eq!((links.state(), content()), (LinkState::Broken, None), "no key, and nobody takes it for a standby's");
    links.to_standby().expect("a fence needs no target");
    assert_eq!((links.state(), content()), (LinkState::Broken, None));
    assert!(links.check_keys().is_err(), "and no way to validating");
    host.load_credentials();
    assert_eq!((links.state(), content().as_deref()), (LinkState::Standby, Some("throwaway")));
    links.check_keys().expect("files that only their owner may read");
}
