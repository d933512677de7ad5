//! `baton upgrade`: upgrades of the chain nodes, planned for the whole cluster.

mod show;

use std::process::ExitCode;

use clap::Subcommand;

use crate::base::ids::UpgradeName;
use crate::cluster::wire::proto::upgrade_change_request::Change;
use crate::cluster::wire::proto::{Blank, PlanUpgrade, UpgradeChangeRequest, UpgradeChangeResponse};
use crate::core::upgrades::check_source;
use crate::operator::order::Order;

use super::reach::Reach;
use super::{Failure, ask, print, tell_change};

#[derive(Debug, Subcommand)]
pub(super) enum Upgrade {
    /// Have every host run another binary: at a height, or one host after the other and the holder last
    Plan {
        /// As the chain calls it, and the directory of its binary
        #[arg(value_parser = name)]
        name: String,
        /// At which the chain halts for it; without it, one host after the other, now
        #[arg(long, value_name = "HEIGHT")]
        height: Option<u64>,
        /// Where a host without the binary gets it: a path that is the same on every host, or a URL with
        /// ?checksum=sha256:HEX; without it, it has to be put into its place on every host
        #[arg(long, value_name = "PATH|URL", value_parser = source)]
        binary: Option<String>,
        /// Only say what would come of it (exit code 1: it would be refused)
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show the plans that the cluster remembers, the oldest first
    List {
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give up the plan in force; a host in the middle of it goes on to its end
    Cancel {
        #[arg(value_parser = name)]
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Show what every host runs, how far it is, and what the plan waits for
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        reach: Reach,
    },
    /// Go back to the binary of before the newest upgrade, one host after the other; data stays as it is
    Rollback {
        /// Only say what would come of it (exit code 1: it would be refused)
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        reach: Reach,
    },
}

fn name(text: &str) -> Result<String, String> {
    UpgradeName::new(text).map(|name| name.to_string())
}

fn source(text: &str) -> Result<String, String> {
    check_source(text).map(|()| text.to_owned())
}

pub(super) fn run(upgrade: Upgrade) -> Result<ExitCode, Failure> {
    match upgrade {
        Upgrade::Plan { name, height, binary, dry_run, reach } => {
            let source = binary.unwrap_or_default();
            let plan = PlanUpgrade { name, height, source, back: false, at_ns: 0 };
            make(&reach, "plan", UpgradeChangeRequest { change: Some(Change::Plan(plan)), dry_run })
        }
        Upgrade::List { json, reach } => ask(&reach, async |client| {
            let plans = client.plans().await?;
            print(&if json { show::list_json(&plans) } else { show::list(&plans) });
            Ok(ExitCode::SUCCESS)
        }),
        Upgrade::Cancel { name, reach } => {
            make(&reach, "cancel", UpgradeChangeRequest { change: Some(Change::Cancel(name)), dry_run: false })
        }
        Upgrade::Status { json, reach } => ask(&reach, async |client| {
            let answer = client.status().await?;
            print(&if json { show::json(&answer) } else { show::table(&answer) });
            Ok(ExitCode::SUCCESS)
        }),
        Upgrade::Rollback { dry_run, reach } => {
            make(&reach, "rollback", UpgradeChangeRequest { change: Some(Change::Rollback(Blank {})), dry_run })
        }
    }
}

fn make(reach: &Reach, what: &str, change: UpgradeChangeRequest) -> Result<ExitCode, Failure> {
    ask(reach, async |client| {
        let what = format!("upgrade {what}");
        let done: UpgradeChangeResponse = client.order(&what, Order::Upgrade(change)).await?;
        tell_change(&what, &done.lines, &done.refused)
    })
}
