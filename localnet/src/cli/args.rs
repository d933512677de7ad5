//! The flags of the commands that have some, and what they may say. Called by the command line alone.

use std::path::PathBuf;

use clap::Args;
use localnet::hosts::faults::What;
use localnet::net::{ChainKind, Custody, HOSTS, HookKind, Profile, Shape};
use localnet::process::limits::Confine;
use localnet::runs::bench::{Against, Fault};
use localnet::runs::idle::Rival;
use localnet::runs::nemesis::{Kind, Sabotage};

#[derive(Args, Clone, Copy)]
pub(crate) struct ChainArgs {
    #[arg(long, value_enum, default_value = "sim")]
    pub(crate) chain: ChainKind,
    #[command(flatten)]
    pub(crate) slot: Slot,
    /// Of which the smallest majority runs a chain node and the others are arbiters
    #[arg(long, default_value_t = *HOSTS.start(), value_parser = hosts)]
    pub(crate) hosts: usize,
    /// Heartbeat, lease and kill_max of all hosts
    #[arg(long, value_enum, default_value = "lan")]
    pub(crate) profile: Profile,
    /// Who has the validator's key
    #[arg(long, value_enum, default_value = "links")]
    pub(crate) custody: Custody,
}

/// Of the runs that measure.
#[derive(Args, Clone, Copy)]
pub(crate) struct Recorded {
    /// `member.record_mib` of all hosts; 0 measures them without a record
    #[arg(long, value_name = "MIB")]
    pub(crate) record_mib: Option<u32>,
}

impl ChainArgs {
    pub(crate) fn shape(self) -> Shape {
        let ChainArgs { chain, slot, hosts, profile, custody } = self;
        Shape { slot_ms: slot.slot_ms, hosts, profile, custody, ..Shape::usual(chain) }
    }
}

#[derive(Args, Clone, Copy)]
pub(crate) struct UpArgs {
    /// What the hosts are
    #[arg(long, value_enum, default_value = "processes")]
    pub(crate) on: On,
    /// Give the hosts homes in which upgrades swap the chain node's binary; see `localnet upgrade`
    #[arg(long)]
    pub(crate) cosmovisor: bool,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

impl UpArgs {
    pub(crate) fn shape(self) -> Shape {
        Shape { cosmovisor: self.cosmovisor, ..self.chain.shape() }
    }
}

#[derive(Args)]
pub(crate) struct UpgradeArgs {
    pub(crate) name: String,
    /// Blocks from now until the chain wants it; without, the hosts get the binary and the chain plans nothing
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) after: Option<u64>,
    /// Hosts that do not get the binary
    #[arg(long, value_delimiter = ',', value_name = "HOST")]
    pub(crate) without: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum On {
    /// Plain processes of this machine
    Processes,
    /// Containers of the Docker engine that `docker` reaches, as deploy/compose has them
    Compose,
}

fn hosts(text: &str) -> Result<usize, String> {
    let (from, to) = (HOSTS.start(), HOSTS.end());
    let hosts: Option<usize> = text.parse().ok().filter(|hosts| HOSTS.contains(hosts));
    hosts.ok_or_else(|| format!("a network has {from} to {to} hosts"))
}

#[derive(Args, Clone, Copy)]
pub(crate) struct Slot {
    /// Time between two blocks of the sim chain
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub(crate) slot_ms: u64,
}

#[derive(Args)]
pub(crate) struct Target {
    pub(crate) host: String,
    #[arg(value_enum)]
    pub(crate) what: What,
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) recorded: Recorded,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) rounds: u64,
    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) faults: Vec<Fault>,
    /// Of the moments at which faults strike
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Then do the same with what a user would pick instead of baton
    #[arg(long, value_enum)]
    pub(crate) against: Option<Against>,
    /// One way, between a host and all others
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub(crate) delay_ms: u64,
    /// Give every host hooks for every event, all of which do this
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) hooks: HookKind,
    /// Draw the gaps of each fault as DIR/bench-FAULT.svg
    #[arg(long, value_name = "DIR")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

#[derive(Args)]
pub(crate) struct RequestsArgs {
    /// At the holder and at its standby, one after the other
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) requests: u64,
    /// One way, between a host and all others
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub(crate) delay_ms: u64,
    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

#[derive(Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) recorded: Recorded,
    /// Sizes of the networks, one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [3], value_parser = hosts)]
    pub(crate) members: Vec<usize>,
    /// For which each is watched
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) seconds: u64,
    /// Then lose the holder's host so often, and measure how long nobody signs
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub(crate) rounds: u64,
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Members prove themselves to each other
    #[arg(long)]
    pub(crate) tls: bool,
    /// Then watch what a user would pick instead of baton, in networks of the same sizes
    #[arg(long, value_enum)]
    pub(crate) against: Option<Rival>,
    /// One JSON array on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Time between two blocks of the sim chain
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub(crate) slot_ms: u64,
    /// Heartbeat, lease and kill_max of all hosts
    #[arg(long, value_enum, default_value = "lan")]
    pub(crate) profile: Profile,
}

#[derive(Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) recorded: Recorded,
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// Status calls a second
    #[arg(long, default_value_t = 1000)]
    pub(crate) calls: u64,
    /// Busy loops for every core
    #[arg(long, default_value_t = 2)]
    pub(crate) busy: usize,
    /// TLS handshakes a second that strangers begin at the members' ports, at all members together
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) handshakes: u64,
    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

#[derive(Args)]
pub(crate) struct SoakArgs {
    #[arg(long, default_value_t = 60.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// Seconds between two samples
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) every_s: u64,
    /// Seconds between two handovers
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    pub(crate) handover_every_s: u64,
    /// How hosts are kept to their size
    #[arg(long, value_enum, default_value = "cgroup")]
    pub(crate) confine: Confine,
    /// Processors of each host
    #[arg(long, default_value_t = 1.0)]
    pub(crate) cpus: f64,
    /// Memory of each host
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub(crate) memory_mib: u64,
    /// One JSON object on standard output, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: Option<f64> = text.parse().ok().filter(|minutes| (0.1..=10_000.0).contains(minutes));
    minutes.ok_or_else(|| "0.1 to 10000 minutes".into())
}

#[derive(Args)]
pub(crate) struct NemesisArgs {
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rounds: u64,
    /// Of the faults and of their moments; a random one unless given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// These kinds of faults alone; some need --custody signer
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "without")]
    pub(crate) faults: Vec<Kind>,
    /// Kinds of faults that shall not strike
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) without: Vec<Kind>,
    /// Break the promise on purpose in every round, to see that it is seen
    #[arg(long, value_enum, hide = true)]
    pub(crate) sabotage: Option<Sabotage>,
    /// Fail where hosts cannot have network namespaces of their own, instead of using loopback proxies
    #[arg(long)]
    pub(crate) require_namespaces: bool,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}
