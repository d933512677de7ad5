//! `baton init`: writes this host's configuration from flags, and asks for what they leave out when somebody sits at a
//! terminal. It looks at nothing but the file that it is to write, and talks to nobody.
//!
//! `ask` has the questions, `plan` makes of the answers what `config::template` writes down.

mod ask;
mod member;
mod plan;

use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::config_file::{DEFAULT_CONFIG, USUAL_CREDENTIALS};
use super::{Failure, print};
use crate::base::ids::Role;
use crate::base::private_file;
use crate::config::{CREDENTIALS_DIRECTORY, Config, ConfigError, DriverKind, is_loopback, template};

/// What the command line says, and what the answers add to it.
#[derive(Clone, Debug, Args)]
pub(super) struct Init {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    out: PathBuf,
    /// Take the place of a file that is there already
    #[arg(long)]
    force: bool,
    /// This host: ID[=HOST:PORT][,arbiter][,priority=N]; without an address, the others reach it where it listens
    #[arg(long, value_name = "MEMBER")]
    member: Option<String>,
    /// Another member: ID=HOST:PORT[,arbiter][,priority=N]; once for each. Without priorities, validators have 100, 90,
    /// 80 and so on in the order of their ids
    #[arg(long = "peer", value_name = "MEMBER")]
    peers: Vec<String>,
    /// The cluster's name, the same on every host
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Where this host waits for the others
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// What kind of chain node runs here; none makes this host an arbiter
    #[arg(long, value_enum)]
    chain: Option<ChainKind>,
    /// The chain node's home
    #[arg(long, value_name = "DIR")]
    home: Option<String>,
    /// Where the key files are; $CREDENTIALS_DIRECTORY, in quotes, for systemd's credentials [default: /etc/baton/keys]
    #[arg(long, value_name = "DIR")]
    keys: Option<String>,
    /// With --chain generic: the file in the home that the node reads its validator key from
    #[arg(long, value_name = "FILE")]
    link: Option<String>,
    /// Where the node is asked for its health: an http:// address, or IP:PORT with --chain generic [default: the
    /// chain's usual one]
    #[arg(long, value_name = "URL")]
    probe: Option<String>,
    /// Serve a status page, /metrics, /health, /ready and /node-pid here
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<String>,
    /// Where ca.pem, ID.pem and ID.key are [default: the directory of the file; none if every address is loopback]
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<String>,
    /// The store
    #[arg(long, value_name = "DIR", default_value = "/var/lib/baton")]
    state_dir: String,
    /// Sockets
    #[arg(long, value_name = "DIR", default_value = "/run/baton")]
    run_dir: String,
    /// This host will be added to a cluster that runs (baton member add)
    #[arg(long)]
    join: bool,
    /// The chain node's command line [default: the chain's usual one]
    #[arg(last = true, value_name = "NODE COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ChainKind {
    Near,
    Cometbft,
    Generic,
    None,
}

impl ChainKind {
    fn driver(self) -> Option<DriverKind> {
        match self {
            ChainKind::Near => Some(DriverKind::Near),
            ChainKind::Cometbft => Some(DriverKind::CometBft),
            ChainKind::Generic => Some(DriverKind::Generic),
            ChainKind::None => None,
        }
    }
}

/// Nothing has changed when it fails.
pub(super) fn run(mut init: Init) -> Result<ExitCode, Failure> {
    let out = std::path::absolute(&init.out).map_err(|error| unwritten(&init.out, &error))?;
    let before = std::fs::metadata(&out).ok();
    if before.is_some() && !init.force {
        return Err(exists(&out));
    }
    if !init.missing().is_empty() && std::io::stdin().is_terminal() {
        ask::missing(&mut init).map_err(Failure::BadInput)?;
    }
    let wanted = plan::of(&init).map_err(Failure::Faults)?;
    let text = template::write(&wanted);
    // The reader has the last word: what it would refuse is not written.
    let credentials = (CREDENTIALS_DIRECTORY.to_owned(), USUAL_CREDENTIALS.to_owned());
    let config = Config::read(&out, &text, std::iter::once(credentials)).map_err(refused)?;
    if let Some(dir) = out.parent() {
        std::fs::create_dir_all(dir).map_err(|error| unwritten(&out, &error))?;
    }
    private_file::write(&out, &text, init.force, before.as_ref()).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(&out),
        _ => unwritten(&out, &error),
    })?;
    print(&told(&config, &out));
    Ok(ExitCode::SUCCESS)
}

fn exists(out: &Path) -> Failure {
    let out = out.display();
    Failure::BadInput(anyhow!("init: {out} is there already and is not overwritten; use --force, or another --out"))
}

fn unwritten(out: &Path, error: &std::io::Error) -> Failure {
    Failure::BadInput(anyhow!("init: write {}: {error}", out.display()))
}

/// Without the line of a file that is not there.
fn refused(error: ConfigError) -> Failure {
    Failure::BadInput(match error {
        ConfigError::Bad { key, problem, .. } => anyhow!("init: {key}: {problem}"),
        other => anyhow!("init: {other}"),
    })
}

/// What was written, what is doubtful about it, and what comes next.
fn told(config: &Config, out: &Path) -> String {
    let (id, members) = (&config.id, &config.cluster.members);
    let me = members.iter().find(|member| member.id == *id);
    let role = match me.map(|me| me.role) {
        Some(Role::Validator) | None => "a validator",
        Some(Role::Arbiter) => "an arbiter",
    };
    let mut text = format!("wrote {}: {id}, {role}, one of {} members\n", out.display(), members.len());
    for warning in &config.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str("\nNext:\n");
    let mut step = |what: &str| text.push_str(&format!("- {what}\n"));
    if members.len() > 1 {
        step("the same on every other member: [cluster] says the same everywhere, but for listen");
    }
    if let Some(tls) = &config.tls {
        let host = me.and_then(|me| me.addr.rsplit_once(':')).map_or("HOST", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let dir = tls.cert.parent().unwrap_or(Path::new("/")).display();
        step(&format!(
            "certificates: baton cert ca, once and on a machine of your own; baton cert issue {id} --addr {host}; then \
             ca.pem, {id}.pem and {id}.key to {dir}"
        ));
    }
    if config.chain.as_ref().is_some_and(|chain| chain.driver == DriverKind::Generic) {
        step(
            "[chain.probe]: say where the node's answer has its height and head_time; without the latter, no failover",
        );
    }
    let keys = config.chain.iter().flat_map(|chain| &chain.links);
    let keys: Vec<String> =
        keys.flat_map(|link| std::iter::once(&link.validating).chain(&link.standby)).map(|key| shown(key)).collect();
    if !keys.is_empty() {
        step(&format!("keys, mode 0600: {}", keys.join(", ")));
    }
    if rustix::process::geteuid().is_root() {
        step(&format!("owner: {} and the files that it names go to the user that runs baton", out.display()));
    }
    let out = out.display();
    step(&format!("baton check --config {out}"));
    step(&format!("baton run --config {out}, or the service of your package"));
    text
}

/// A credential by the name that LoadCredential= gives it.
fn shown(key: &Path) -> String {
    match key.strip_prefix(USUAL_CREDENTIALS) {
        Ok(name) => format!("LoadCredential={}:FILE", name.display()),
        Err(_) => key.display().to_string(),
    }
}

/// Whether members speak without TLS.
fn all_loopback<'a>(mut addrs: impl Iterator<Item = &'a str>) -> bool {
    addrs.all(is_loopback)
}
