//! docs/operating.md, carried out from top to bottom: three hosts start with empty directories and become a cluster
//! with certificates, and every command on that page is given where the page gives it. What it prints has to be what
//! the page shows. Between the commands happens what the page tells of: hosts die, coordinators hang.

mod book;

use baton::record;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::common::{Ground, TestNet};
use book::Shown;
use localnet::hosts;
use localnet::hosts::faults::{self, What};
use localnet::judge::status::{Answer, Status, query_host, run_bounded};
use localnet::net::{ChainKind, Shape, write_file};
use localnet::process::launch::{self, diagnosis};
use localnet::process::procs;
use localnet::runs::demo::{self, Pair};
use rustix::process::Signal;

const PAGE: &str = include_str!("../../../docs/operating.md");
const CERTIFICATES: &str = "Certificates";
/// Who runs commands on the machine that has no coordinator.
const DESK: &str = "desk";
const JOINER: &str = "host-d";
const BOUND: Duration = Duration::from_secs(60);
/// For a coordinator to run.
const START_BOUND: Duration = Duration::from_secs(20);

/// Commands of the page that no prompt shows, and the test that runs each.
const ELSEWHERE: [(&str, &str); 9] = [
    ("status --json", include_str!("../../../tests/cli/shown.rs")),
    ("status --watch --every", include_str!("../../../tests/cli/watch.rs")),
    ("floor --above --because", include_str!("../../../tests/cli/orders.rs")),
    ("run --stop-node", include_str!("e2e_restart.rs")),
    ("run --key-signed-outside", include_str!("../../../tests/coordinator/bad_input.rs")),
    ("member add --addr --priority", include_str!("../../../tests/cli/orders.rs")),
    ("upgrade plan status rollback", include_str!("upgrade.rs")),
    ("signer import --state", include_str!("../e2e_cometbft.rs")),
    ("signer close", include_str!("../e2e_cometbft.rs")),
];

struct Walk {
    t: TestNet,
    desk: PathBuf,
    /// Coordinators that hang.
    stopped: Vec<procs::Proc>,
    /// Chain node of host-a when it was last the holder.
    node_with_key: Option<u32>,
    unlike: Vec<String>,
}

#[test]
fn every_command_of_the_page_does_what_it_shows() {
    let shown = book::commands(PAGE);
    let (setup, rest): (Vec<_>, Vec<_>) = shown.into_iter().partition(|shown| shown.section == CERTIFICATES);
    let all: Vec<&Shown> = setup.iter().chain(&rest).collect();
    let missing: Vec<String> = book::mentions(PAGE).into_iter().filter(|mention| !is_run(&all, mention)).collect();
    assert_eq!(missing, Vec::<String>::new(), "the page names these, and no test runs them");
    let mut walk = Walk::prepare();
    for command in &setup {
        walk.run(command);
    }
    walk.start();
    let mut before = "";
    let mut nth = 0;
    for command in &rest {
        nth = if command.section == before { nth + 1 } else { 0 };
        before = &command.section;
        walk.meanwhile(&command.section, nth);
        walk.run(command);
    }
    assert!(walk.unlike.is_empty(), "{}", walk.unlike.join("\n"));
    walk.t.assert_nothing_signed_twice();
}

/// Whether a command with all these words is shown, or run elsewhere with the same options.
fn is_run(shown: &[&Shown], mention: &str) -> bool {
    let has_all = |args: &[&str]| mention.split(' ').all(|word| args.contains(&word));
    let is_shown = shown.iter().any(|shown| has_all(&shown.args.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut options = mention.split(' ').filter(|word| word.starts_with("--"));
    let is_elsewhere = |(command, test): &(&str, &str)| {
        has_all(&command.split(' ').collect::<Vec<_>>()) && options.all(|option| test.contains(&format!("{option}\"")))
    };
    is_shown || mention == "run" || ELSEWHERE.iter().any(is_elsewhere)
}

impl Walk {
    /// Three hosts with a configuration and nothing else, and a desk without even that.
    fn prepare() -> Walk {
        let ground = Ground::new();
        let net = launch::prepare(&ground.dir, Shape::usual(ChainKind::Sim)).unwrap();
        let desk = ground.dir.with_file_name(DESK);
        hosts::make_dir(&desk).unwrap();
        for host in &net.hosts {
            assert_eq!(fs::read_dir(net.state_dir(&host.id)).unwrap().count(), 0, "{} is not empty", host.id);
        }
        Walk { t: TestNet { ground, net }, desk, stopped: Vec::new(), node_with_key: None, unlike: Vec::new() }
    }

    /// With the certificates that were made at the desk. An operator has moved the baton to host-a when it ends.
    fn start(&mut self) {
        launch::start(&self.t.net, |_| ()).unwrap();
        if self.settle() == "host-a" {
            crate::common::said(&self.t, "host-b", &["handover"], 0);
        }
        self.bring_to_host_a();
    }

    fn bring_to_host_a(&self) {
        if self.settle() != "host-a" {
            crate::common::said(&self.t, "host-b", &["handover", "--to", "host-a"], 0);
            self.settle();
        }
    }

    /// As the command that has issued it says.
    fn copy_certificate(&self, id: &str) {
        let (to, config) = (self.t.net.host_dir(id), self.t.net.config_file(id));
        for name in ["ca.pem".into(), format!("{id}.pem"), format!("{id}.key")] {
            fs::copy(self.desk.join("certs").join(&name), to.join(&name)).unwrap();
        }
        let text = fs::read_to_string(&config).unwrap();
        if text.contains("[tls]") {
            return;
        }
        let section = format!("\n[tls]\nca = \"ca.pem\"\ncert = \"{id}.pem\"\nkey = \"{id}.key\"\n");
        let text = crate::common::long_leases(text) + &section;
        write_file(&config, &text).unwrap();
    }

    /// What has happened by the time of the `nth` command of `section`.
    fn meanwhile(&mut self, section: &str, nth: usize) {
        match (section, nth) {
            ("An incident", 0) => {
                self.t.kill_host("host-a");
                self.await_answer("host-b", "it is Active", |status| is_active(status, "host-b"));
            }
            ("Be certain that a host does not sign: fence", 0) => {
                launch::start_coordinator(&self.t.net, "host-a").unwrap();
                self.settle();
                self.t.end_coordinator("host-a", Signal::TERM);
                self.await_answer("host-b", "host-a has left", |status| !status.is_ready_standby("host-a"));
            }
            ("From another machine", 0) => {
                launch::start_coordinator(&self.t.net, "host-a").unwrap();
                self.settle();
            }
            ("Move the baton", 2) => {
                self.settle();
                self.stopped = faults::find(&self.t.net, "host-b", What::Coordinator).unwrap();
                procs::signal(&self.stopped, Signal::STOP).unwrap();
            }
            ("At a time of your choice", 0) => {
                procs::signal(&self.stopped, Signal::CONT).unwrap();
                self.settle();
            }
            ("Work on a host: maintenance", 0) => {
                self.bring_to_host_a();
                self.node_with_key = node_pid(&query_host(&self.t.net, "host-a").unwrap(), "host-a");
            }
            ("Work on a host: maintenance", 1) => {
                // A host that was the holder starts its chain node once more.
                let rests = |status: &Status| {
                    let node = node_pid(status, "host-a");
                    let anew = node.is_some() && node != self.node_with_key;
                    is_active(status, "host-b") && state(status, "host-a") == "Registering" && anew
                };
                self.await_answer("host-b", "host-b is Active, and host-a in sync again", rests);
            }
            ("Touch nothing: pause", _) | ("Prefer a host: priority", 0) => {
                self.settle();
            }
            ("Who belongs: members", 0) => {
                self.t.kill_host("host-b");
                self.await_answer("host-a", "host-b is gone", |status| !is_reachable(status, "host-b"));
            }
            ("Look at a night again", 0) => self.await_recorded("host-b"),
            ("Replace a dead host", 0) => hosts::add_joiner(&mut self.t.net, JOINER).unwrap(),
            ("Replace a dead host", 1) => {
                launch::start_coordinator(&self.t.net, JOINER).unwrap();
                self.t.await_log(JOINER, "coordinator runs", 1, START_BOUND);
            }
            ("Without a quorum", 0) => {
                ["host-c", JOINER].iter().for_each(|host| self.t.kill_host(host));
                self.await_answer("host-a", "there is no quorum", |status| !status.quorum);
            }
            _ => {}
        }
    }

    fn run(&mut self, shown: &Shown) {
        let Answer { code, stdout, stderr } = self.t.or_logs(self.ask(shown));
        let told = format!("{stdout}{stderr}");
        if let ["cert", "issue", id, ..] = shown.args.iter().map(String::as_str).collect::<Vec<_>>()[..]
            && id != "--admin"
        {
            self.copy_certificate(id);
        }
        let fails = shown.output.starts_with("baton: ");
        // Of then, it may find that something was wrong.
        let ended_well = code == Some(0) || shown.args.iter().any(|arg| arg == "--at") && code == Some(1);
        if !book::is_alike(&shown.output, &told) || fails == ended_well {
            let Shown { prompt, args, output, line, .. } = shown;
            let args = args.join(" ");
            let seen = if self.unlike.is_empty() { diagnosis(&self.t.net) } else { String::new() };
            self.unlike.push(format!(
                "docs/operating.md:{line}: {prompt}$ baton {args}\n--- is shown as\n{output}--- and printed, with exit code {code:?},\n{told}{seen}"
            ));
        }
    }

    fn ask(&self, shown: &Shown) -> anyhow::Result<Answer> {
        let args: Vec<String> = shown.args.iter().map(|arg| self.real(arg)).collect();
        // A replay has no configuration.
        if shown.prompt == DESK || shown.args.first().is_some_and(|verb| verb == "replay") {
            let mut command = Command::new(&self.t.net.programs.baton);
            command.args(&args).current_dir(&self.desk);
            return run_bounded(command, BOUND);
        }
        demo::ask_baton(&self.t.net, &shown.prompt, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The page's addresses are those of hosts on a network of their own: `10.0.0.N` is the `N`th. Its night comes
    /// soon, and its files are this test's own.
    fn real(&self, arg: &str) -> String {
        match arg {
            "03:00" => return "+1s".to_owned(),
            // What that night was, is a moment ago.
            "12:40:07" => return "2s".to_owned(),
            "4" => return self.last_epoch_of("host-b").to_string(),
            _ => {}
        }
        if let Some(file) = arg.strip_prefix("/tmp/") {
            return self.desk.join(file).display().to_string();
        }
        let Some(rest) = arg.strip_prefix("10.0.0.") else { return arg.to_owned() };
        let (number, port) = rest.split_once(':').unwrap_or((rest, ""));
        let place: usize = number.parse().unwrap();
        match (self.t.net.hosts.get(place - 1), port) {
            (Some(host), "7401") => host.raft().to_string(),
            (Some(host), "2233") => host.metrics().to_string(),
            _ => self.t.net.hosts[0].addr.to_string(),
        }
    }

    /// `host` holds the baton, and its record has how it came to that.
    fn await_recorded(&self, host: &str) {
        self.await_answer(host, "it holds the baton", |status| status.holder.as_deref() == Some(host));
        let active = format!("proof: the chain node runs with the key, epoch {}", self.last_epoch_of(host));
        let dir = self.t.net.state_dir(host).join(record::DIRECTORY);
        self.t.or_logs(launch::await_step(|| {
            let bytes = record::read(&dir, std::time::SystemTime::UNIX_EPOCH)?;
            let told = record::replay(record::Pieces::read(&bytes)?).story;
            anyhow::ensure!(told.iter().any(|told| told.text == active), "{host} has not recorded: {active}");
            Ok(())
        }));
    }

    /// Under which `host` took the baton last.
    fn last_epoch_of(&self, host: &str) -> u64 {
        let told = crate::common::said(&self.t, host, &["history", "--json"], 0);
        let history: serde_json::Value = serde_json::from_str(&told).unwrap();
        let moves = history["moves"].as_array().unwrap_or_else(|| panic!("{told}"));
        let own = moves.iter().filter(|row| row["to"] == host).filter_map(|row| row["epoch"].as_u64());
        own.max().unwrap_or_else(|| panic!("{host} never took the baton: {told}"))
    }

    /// Who holds the baton, once the holder itself knows of a ready standby.
    fn settle(&self) -> String {
        let Pair { holder, standby } = self.t.pair();
        self.await_answer(&holder, "the standby is ready", |status| status.is_ready_standby(&standby));
        holder
    }

    /// Waits until `host` sees it so.
    fn await_answer(&self, host: &str, what: &str, so: impl Fn(&Status) -> bool) {
        self.t.or_logs(launch::await_step(|| match query_host(&self.t.net, host)? {
            status if so(&status) => Ok(()),
            status => anyhow::bail!("{host} does not see that {what}: {status:#?}"),
        }));
    }
}

fn state<'a>(status: &'a Status, host: &str) -> &'a str {
    status.members.iter().find(|member| member.id == host).map_or("", |member| &member.state)
}

fn node_pid(status: &Status, host: &str) -> Option<u32> {
    status.members.iter().find(|member| member.id == host)?.node_pid.filter(|pid| *pid != 0)
}

fn is_reachable(status: &Status, host: &str) -> bool {
    status.members.iter().any(|member| member.id == host && member.reachable)
}

fn is_active(status: &Status, host: &str) -> bool {
    status.active().is_some_and(|member| member.id == host)
}
