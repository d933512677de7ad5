//! What networks of different sizes cost while nothing happens, and how long nobody signs when the holder's host
//! is lost: one network after the other. Called by the command line.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::process::launch;
use crate::runs::bench::{self, Fault, Plan, Row, rows_table};
use crate::runs::cost::{self, Cost};

/// What one size gave.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    pub members: usize,
    pub idle: Vec<Cost>,
    pub host_loss: Row,
    /// By the checker over the whole log.
    pub clean: bool,
}

/// Brings up the network of the plan, which has one fault: the loss of the host.
pub fn measure(dir: &Path, plan: &Plan) -> Result<Size> {
    eprintln!("idle: {} members", plan.shape.hosts);
    let net = launch::up(dir, plan.shape, |_| ())?;
    let idle = bench::idle_cost_of_baton(&net)?;
    let results = bench::run_on(&net, plan)?;
    let [(Fault::Host, host_loss)] = &results.rows[..] else {
        anyhow::bail!("a plan of other faults than the loss of a host");
    };
    Ok(Size { members: net.hosts.len(), idle, host_loss: host_loss.clone(), clean: results.clean })
}

pub fn table(sizes: &[Size]) -> String {
    let of = |size: &Size| format!("{} members", size.members);
    let idle = cost::table(sizes.iter().flat_map(|size| size.idle.iter().map(|cost| (of(size), cost))));
    let loss = rows_table(["loss of the holder's host"], sizes.iter().map(|size| ([of(size)], &size.host_loss)));
    format!("{idle}\n{loss}")
}
