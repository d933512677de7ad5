//! What a network is like: what its maker chooses.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::{Ground, VALIDATORS};

/// As many hosts as a cluster has at least, and as baton is measured with at most.
pub const HOSTS: RangeInclusive<usize> = 3..=9;

/// What every hook of a network does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HookKind {
    /// There are none
    #[default]
    None,
    /// Never ends
    Hang,
    /// Writes without end
    Flood,
    /// Leaves a hundred processes that keep its output open, and forks without end
    Fork,
    /// Ends by a signal
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ChainKind {
    /// The stand-in chain of this crate: short slots, a signature log, reload by SIGHUP.
    Sim,
    /// Real CometBFT v0.38, activated by restart.
    Cometbft,
}

/// `timing.profile` of all hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Fast,
    #[default]
    Lan,
    Signer,
    Wan,
}

impl Profile {
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Fast => "fast",
            Profile::Lan => "lan",
            Profile::Signer => "signer",
            Profile::Wan => "wan",
        }
    }
}

/// `chain.custody` of all hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Custody {
    /// The holder's chain node has the key.
    #[default]
    Links,
    /// No chain node has it: the log decides what is signed (CometBFT alone).
    Signer,
    /// One chain node alone, without baton (`bench` on CometBFT).
    Single,
}

/// What a network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub ground: Ground,
    pub chain: ChainKind,
    pub slot_ms: u64,
    /// Within [`HOSTS`]. The smallest majority of them runs a chain node, the others are arbiters.
    pub hosts: usize,
    /// The hosts have homes in which upgrades swap the chain node's binary.
    pub cosmovisor: bool,
    /// Members prove themselves to each other on loopback too. Elsewhere they always do.
    pub tls: bool,
    pub profile: Profile,
    pub custody: Custody,
    /// One way between a host and whatever is none of its own, on loopback.
    pub delay_ms: u64,
    /// `member.record_mib` of all hosts, where it is not the usual.
    pub record_mib: Option<u32>,
    /// What the hooks of all hosts do.
    pub hooks: HookKind,
}

impl Shape {
    /// Three hosts on loopback, and slots of 50 ms where the chain has slots.
    pub fn usual(chain: ChainKind) -> Shape {
        Shape {
            ground: Ground::Loopback,
            chain,
            slot_ms: 50,
            hosts: *HOSTS.start(),
            cosmovisor: false,
            tls: false,
            profile: Profile::Lan,
            custody: Custody::Links,
            delay_ms: 0,
            record_mib: None,
            hooks: HookKind::None,
        }
    }

    pub(super) fn signers(self) -> usize {
        self.hosts / 2 + 1
    }

    pub(super) fn ports(self) -> usize {
        let (hosts, signers, validators) = (self.hosts, self.signers(), VALIDATORS.len());
        let wires = match self.ground {
            Ground::Loopback => hosts * (hosts - 1) + signers * (signers - 1) + 2 * signers * validators,
            Ground::Namespaces | Ground::Containers => 0,
        };
        2 * hosts + 2 * signers + 2 * validators + wires
    }
}
