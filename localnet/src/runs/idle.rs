//! What networks of different sizes cost while nothing happens, beside what a user would pick instead of baton, and how
//! long nobody signs when the holder's host is lost: one network after the other. Called by the command line.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::judge::check::check;
use crate::net::Shape;
use crate::process::launch;
use crate::runs::bench::{self, Fault, Row, rows_table};
use crate::runs::cost::{self, Cost};
use crate::runs::etcd::EtcdNet;

pub struct Plan {
    pub shape: Shape,
    /// For which the network is watched.
    pub during: Duration,
    /// Losses of the holder's host after that.
    pub rounds: usize,
    /// Of the moments of those.
    pub seed: u64,
}

/// What it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rival {
    /// Three members of etcd, and the chain node run by `etcdctl lock` with a lease of 10 s
    Etcd,
}

impl Rival {
    /// # Errors
    /// Names the program that is missing and its package.
    pub fn check_programs(self) -> Result<()> {
        match self {
            Rival::Etcd => EtcdNet::check_programs(),
        }
    }
}

/// What one network gave.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// What coordinates it.
    pub system: &'static str,
    pub members: usize,
    pub idle: Vec<Cost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_loss: Option<Row>,
    /// By the checker over the whole log.
    pub clean: bool,
}

impl Size {
    fn title(&self) -> String {
        format!("{}, {} members", self.system, self.members)
    }
}

/// Brings up the network of the plan.
pub fn measure(dir: &Path, plan: &Plan) -> Result<Size> {
    eprintln!("idle: {} members", plan.shape.hosts);
    let net = launch::up(dir, plan.shape, |_| ())?;
    let idle = bench::idle_cost_of_baton(&net, plan.during)?;
    let (host_loss, clean) = if plan.rounds == 0 {
        (None, check(&net)?.is_clean())
    } else {
        let losses = bench::Plan { shape: plan.shape, rounds: plan.rounds, faults: vec![Fault::Host], seed: plan.seed };
        let results = bench::run_on(&net, &losses)?;
        (results.rows.into_iter().next().map(|(_, row)| row), results.clean)
    };
    Ok(Size { system: "baton", members: net.hosts.len(), idle, host_loss, clean })
}

/// That something is signed twice there is a result and not an error.
pub fn measure_rival(dir: &Path, rival: Rival, shape: Shape, during: Duration) -> Result<Size> {
    match rival {
        Rival::Etcd => {
            eprintln!("idle: {} members of etcd", shape.hosts);
            let idle = bench::idle_cost_of_etcd(dir, shape, during)?;
            Ok(Size { system: "etcd", members: shape.hosts, idle, host_loss: None, clean: true })
        }
    }
}

pub fn table(sizes: &[Size]) -> String {
    let costs = || sizes.iter().flat_map(|size| size.idle.iter().map(|cost| (size.title(), cost)));
    let mut text = format!("{}\n{}", cost::table(costs()), cost::threads_table(costs()));
    let losses: Vec<_> = sizes.iter().filter_map(|size| Some(([size.title()], size.host_loss.as_ref()?))).collect();
    if !losses.is_empty() {
        text += &format!("\n{}", rows_table(["loss of the holder's host"], losses.into_iter()));
    }
    text
}
