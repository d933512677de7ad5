//! A configuration file with a comment at every key, as `baton init` writes it. What the comments say stands in
//! `key_list.rs`; here is which keys a host gets, and in what order. Nothing is checked: the reader does that.
//!
//! A line that begins with `#` shows a default or an example and may be taken in alone; lines with `##` go with a
//! choice that the comment above them names.

use std::fmt::Write as _;

use super::key_list::Absent;
use super::{DriverKind, Member, schema};
use crate::base::ids::Role;

/// What a host's file is to say. Texts stand in it as they are.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub id: String,
    pub state_dir: String,
    pub run_dir: String,
    pub join: bool,
    pub cluster: String,
    pub listen: String,
    /// In the order of the file, which is to be that of every host.
    pub members: Vec<Member>,
    /// ca, cert and key.
    pub tls: Option<[String; 3]>,
    /// `None` on an arbiter.
    pub chain: Option<WantedChain>,
    pub metrics: Option<String>,
}

#[derive(Clone, Debug)]
pub struct WantedChain {
    pub driver: DriverKind,
    pub home: String,
    pub command: Vec<String>,
    /// The first one is the validator key.
    pub links: Vec<WantedLink>,
    pub probe: WantedProbe,
}

#[derive(Clone, Debug)]
pub struct WantedLink {
    pub link: String,
    pub validating: String,
    pub standby: Standby,
}

#[derive(Clone, Debug)]
pub enum Standby {
    /// No link, without a word.
    None,
    At(String),
    /// As an example of what may be said.
    Perhaps {
        example: String,
        /// What is so otherwise.
        absent: &'static str,
    },
}

#[derive(Clone, Debug)]
pub enum WantedProbe {
    Url(String),
    /// For driver generic alone.
    Tcp(String),
}

/// The text of the file.
pub fn write(wanted: &Wanted) -> String {
    let mut page = Page::default();
    page.head(&wanted.id);
    page.member(wanted);
    page.cluster(wanted);
    page.timing();
    page.tls(wanted);
    if let Some(chain) = &wanted.chain {
        page.chain(chain);
        page.links(&chain.links);
        page.activate(chain.driver);
        page.probe(chain);
        page.more(chain.driver);
        page.upgrade(chain);
    }
    page.table("metrics");
    page.set_or_show("metrics.listen", wanted.metrics.as_deref());
    if wanted.chain.is_some() {
        page.text.push_str("\n# A host whose kernel hangs is reset: docs/operating.md.\n#[watchdog]\n");
        page.show("watchdog.device");
    }
    page.hooks(wanted.chain.is_some());
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

/// How a line stands in the file.
#[derive(Clone, Copy)]
enum Mark<'a> {
    Said,
    Shown,
    /// Only with another value of another key, or in the place of other keys.
    With(&'a str),
}

impl Page {
    fn head(&mut self, id: &str) {
        self.text = format!(
            "# Configuration of baton on {id}. Every key and its range: docs/configuration.md.\n\
             # A line with # shows a default or an example; take the # away to say something else. Lines with ## go\n\
             # with the choice that is named above them. A relative path starts at the directory of this file.\n"
        );
    }

    fn table(&mut self, name: &str) {
        let _ = writeln!(self.text, "\n[{name}]");
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {text}");
    }

    /// The comment and the line of the key at `path` with a value in TOML.
    fn line(&mut self, path: &str, value: &str, mark: Mark<'_>) {
        let key = schema::key(path).unwrap_or_else(|| panic!("{path} is no key"));
        let default = match key.absent {
            Absent::Refused => String::new(),
            Absent::AsExample if path == "chain.activate.how" => format!(" [default: {value}]"),
            Absent::AsExample => format!(" [default: {}]", key.example_value()),
            Absent::So(words) => format!(" [without it: {words}]"),
        };
        let (condition, sign) = match mark {
            Mark::Said => (String::new(), ""),
            Mark::Shown => (String::new(), "#"),
            Mark::With(condition) => (format!("{condition}: "), "##"),
        };
        let name = path.rsplit('.').next().unwrap_or(path);
        let _ = writeln!(self.text, "# {condition}{}{default}\n{sign}{name} = {value}", key.says);
    }

    fn set(&mut self, path: &str, text: &str) {
        self.line(path, &quoted(text), Mark::Said);
    }

    /// With its default or an example, commented out.
    fn show(&mut self, path: &str) {
        let value = schema::key(path).map_or("", |key| key.example_value());
        self.line(path, value, Mark::Shown);
    }

    fn set_or_show(&mut self, path: &str, text: Option<&str>) {
        match text {
            Some(text) => self.set(path, text),
            None => self.show(path),
        }
    }

    fn show_with(&mut self, path: &str, condition: &str) {
        let value = schema::key(path).map_or("", |key| key.example_value());
        self.line(path, value, Mark::With(condition));
    }

    fn member(&mut self, wanted: &Wanted) {
        self.table("member");
        self.set("member.id", &wanted.id);
        self.set("member.state_dir", &wanted.state_dir);
        self.set("member.run_dir", &wanted.run_dir);
        self.show("member.disk_timeout");
        self.show("member.record_mib");
        self.show("member.snapshot_every");
        match wanted.join {
            true => self.line("member.join", "true", Mark::Said),
            false => self.show("member.join"),
        }
    }

    fn cluster(&mut self, wanted: &Wanted) {
        self.text.push_str("\n# The same on every host, but for listen.\n[cluster]\n");
        self.set("cluster.name", &wanted.cluster);
        self.set("cluster.listen", &wanted.listen);
        self.show("cluster.failback");
        let says = |path: &str| schema::key(path).map_or("", |key| key.says);
        self.comment("Every member, this one too; their keys are:");
        self.comment(&format!("id, addr: {}", says("cluster.members[].addr")));
        self.comment(&format!("role: {} [default: \"validator\"]", says("cluster.members[].role")));
        self.comment(&format!("priority: {} [default: 100, of an arbiter 0]", says("cluster.members[].priority")));
        self.text.push_str("members = [\n");
        for Member { id, addr, role, priority } in &wanted.members {
            let (id, addr) = (quoted(id.as_str()), quoted(addr));
            let _ = match (role, priority) {
                (Role::Arbiter, 0) => writeln!(self.text, "  {{ id = {id}, addr = {addr}, role = \"arbiter\" }},"),
                (role, priority) => {
                    let role = match role {
                        Role::Validator => "validator",
                        Role::Arbiter => "arbiter",
                    };
                    writeln!(self.text, "  {{ id = {id}, addr = {addr}, role = \"{role}\", priority = {priority} }},")
                }
            };
        }
        self.text.push_str("]\n");
    }

    fn timing(&mut self) {
        self.text.push_str("\n# The same on every host. 3 x heartbeat + kill_max < lease has to hold.\n[timing]\n");
        for key in ["profile", "heartbeat", "lease", "kill_max", "drift_ppm", "older_members_lease"] {
            self.show(&format!("timing.{key}"));
        }
    }

    fn tls(&mut self, wanted: &Wanted) {
        const FILES: [&str; 3] = ["tls.ca", "tls.cert", "tls.key"];
        let comment = "PEM files as `baton cert` makes them; needed unless every address is loopback";
        match &wanted.tls {
            Some(files) => {
                let _ = writeln!(self.text, "\n# {comment}.\n[tls]");
                FILES.into_iter().zip(files).for_each(|(key, file)| self.set(key, file));
                self.line("tls.insecure", "true", Mark::With("In place of ca, cert and key"));
            }
            None => {
                let _ = writeln!(self.text, "\n# {comment}.\n#[tls]");
                FILES.into_iter().for_each(|key| self.show(key));
            }
        }
    }

    fn chain(&mut self, chain: &WantedChain) {
        self.table("chain");
        let driver = match chain.driver {
            DriverKind::Near => "near",
            DriverKind::CometBft => "cometbft",
            DriverKind::Generic => "generic",
        };
        self.set("chain.driver", driver);
        self.set("chain.home", &chain.home);
        let words: Vec<String> = chain.command.iter().map(|word| quoted(word)).collect();
        self.line("chain.command", &format!("[{}]", words.join(", ")), Mark::Said);
        self.show("chain.env");
        self.log(chain);
        for key in ["chain.stop_timeout", "chain.clock_skew", "chain.on_halt"] {
            self.show(key);
        }
        self.show_with("chain.halt_after", "Only with on_halt = \"replica\"");
        self.show("chain.keys_on_tmpfs");
        if chain.driver == DriverKind::CometBft {
            self.show("chain.custody");
        }
    }

    fn log(&mut self, chain: &WantedChain) {
        const BOUNDS: [&str; 2] = ["chain.log_max_mib", "chain.log_kept"];
        let file = |folder: &str| quoted(&format!("{folder}/{}.log", program(&chain.command)));
        match chain.driver {
            // The driver reads there why a reload was refused.
            DriverKind::Near => {
                self.line("chain.log", &file(&chain.home), Mark::Said);
                BOUNDS.into_iter().for_each(|key| self.show(key));
            }
            DriverKind::CometBft | DriverKind::Generic => {
                self.line("chain.log", &file("/var/log"), Mark::Shown);
                BOUNDS.into_iter().for_each(|key| self.show_with(key, "Only with log"));
            }
        }
    }

    fn links(&mut self, links: &[WantedLink]) {
        for WantedLink { link, validating, standby } in links {
            self.text.push_str("\n[[chain.links]]\n");
            self.set("chain.links[].link", link);
            self.set("chain.links[].validating", validating);
            match standby {
                Standby::None => {}
                Standby::At(file) => self.set("chain.links[].standby", file),
                Standby::Perhaps { example, absent } => {
                    let says = schema::key("chain.links[].standby").map_or("", |key| key.says);
                    let _ = writeln!(self.text, "# {says} [without it: {absent}]\n#standby = {}", quoted(example));
                }
            }
        }
    }

    fn activate(&mut self, driver: DriverKind) {
        self.table("chain.activate");
        let usual = match driver {
            DriverKind::Near => "\"signal\"",
            DriverKind::CometBft => {
                self.comment("cometbft reads its key at start only.");
                "\"restart\""
            }
            DriverKind::Generic => "\"restart\"",
        };
        self.line("chain.activate.how", usual, Mark::Shown);
        match driver {
            DriverKind::CometBft => return,
            DriverKind::Near => self.show("chain.activate.signal"),
            DriverKind::Generic => self.show_with("chain.activate.signal", "Only with how = \"signal\""),
        }
        for key in ["chain.activate.activate", "chain.activate.deactivate"] {
            self.show_with(key, "Only with how = \"exec\"");
        }
    }

    fn probe(&mut self, chain: &WantedChain) {
        self.table("chain.probe");
        let by_url = match &chain.probe {
            WantedProbe::Url(url) => {
                self.set("chain.probe.url", url);
                true
            }
            WantedProbe::Tcp(addr) => {
                self.set("chain.probe.tcp", addr);
                false
            }
        };
        if chain.driver == DriverKind::Generic {
            let (other, here) = if by_url { ("chain.probe.tcp", "url") } else { ("chain.probe.url", "tcp") };
            let condition = format!("In place of {here}");
            self.show_with("chain.probe.exec", &condition);
            self.show_with(other, &condition);
        }
        for key in ["chain.probe.every", "chain.probe.timeout", "chain.probe.failures"] {
            self.show(key);
        }
        match chain.driver {
            DriverKind::Near => {}
            DriverKind::CometBft => self.show("chain.probe.min_peers"),
            DriverKind::Generic if by_url => self.pointers(),
            DriverKind::Generic => self.comment("With url, JSON pointers say what the answer tells: docs/chains.md."),
        }
    }

    fn pointers(&mut self) {
        self.comment("JSON pointers into what url answers; with calls, they begin with the method: /eth_syncing.");
        for key in ["syncing", "height", "target_height", "behind_max", "head_time", "peers", "min_peers", "key"] {
            match key {
                "target_height" => self.show_with("chain.probe.target_height", "Only with height"),
                "behind_max" => self.show_with("chain.probe.behind_max", "Only with target_height"),
                "min_peers" => self.show_with("chain.probe.min_peers", "Only with peers"),
                key => self.show(&format!("chain.probe.{key}")),
            }
        }
        for key in ["chain.probe.key_validating", "chain.probe.key_standby"] {
            self.show_with(key, "Only with key");
        }
        self.show("chain.probe.version");
        self.comment("Each call makes url be asked by POST, in one JSON-RPC batch.");
        self.text.push_str("#[[chain.probe.calls]]\n");
        self.show("chain.probe.calls[].method");
        self.show("chain.probe.calls[].params");
    }

    /// A neard leaves no file that asks for an upgrade, and has no pre-upgrade: only the cluster's plans upgrade it.
    fn upgrade(&mut self, chain: &WantedChain) {
        let (when, by_chain) = match chain.driver {
            DriverKind::Near => ("by baton upgrade plan", false),
            DriverKind::CometBft | DriverKind::Generic => ("at the chain's upgrades", true),
        };
        let name = program(&chain.command);
        let _ =
            writeln!(self.text, "\n# Binaries in cosmovisor's layout, swapped {when}: docs/upgrades.md.\n#[upgrade]");
        self.line("upgrade.name", &quoted(name), Mark::Shown);
        self.line("upgrade.root", &quoted(&chain.home), Mark::Shown);
        if by_chain {
            self.show("upgrade.allow_download");
        }
        self.show("upgrade.restart_after");
        if by_chain {
            self.show("upgrade.poll");
        }
        self.show("upgrade.backup");
        self.line("upgrade.backup_dir", &quoted(&format!("/var/backups/{name}")), Mark::Shown);
        if by_chain {
            self.show("upgrade.preupgrade_retries");
        }
        self.show("upgrade.download_max_mib");
    }

    fn hooks(&mut self, has_chain: bool) {
        self.text.push_str(
            "\n# Commands that are told what has happened; they decide nothing: docs/operating.md.\n#[hooks]\n",
        );
        if has_chain {
            ["hooks.on_holder", "hooks.on_standby", "hooks.on_fenced"].into_iter().for_each(|key| self.show(key));
        }
        self.show("hooks.on_lost_quorum");
        self.show("hooks.timeout");
    }

    /// What only some drivers have.
    fn more(&mut self, driver: DriverKind) {
        match driver {
            DriverKind::CometBft => {
                let condition = "Only with chain.custody = \"signer\"";
                let _ = writeln!(self.text, "\n# {condition}: in place of links, see docs/signer.md.\n##[signer]");
                self.show_with("signer.key", condition);
                self.show_with("signer.node", condition);
                self.show_with("signer.sentries", condition);
            }
            DriverKind::Near => {
                let condition = "Only with chain.activate.how = \"restart\"";
                let _ = writeln!(self.text, "\n# {condition}: neard's network address goes with its node key.");
                self.text.push_str("##[chain.near]\n");
                self.show_with("chain.near.validating_addr", condition);
                self.show_with("chain.near.standby_addr", condition);
            }
            DriverKind::Generic => {
                self.text.push_str("\n# Where the node records what it signed last.\n#[chain.last_signed]\n");
                for key in ["file", "height", "round", "step"] {
                    self.show(&format!("chain.last_signed.{key}"));
                }
            }
        }
    }
}

fn program(command: &[String]) -> &str {
    command.first().and_then(|program| program.rsplit('/').next()).filter(|name| !name.is_empty()).unwrap_or("node")
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
