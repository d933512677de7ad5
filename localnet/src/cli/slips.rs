//! `localnet slip`: makes an operator's slip on a network that runs, prints the sentence of baton's that names it, and
//! puts things back.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use localnet::net::Net;
use localnet::runs::slip::{self, Slip};

use super::code;

#[derive(Args)]
pub(crate) struct SlipArgs {
    #[arg(value_enum, required_unless_present = "undo")]
    kind: Option<Slip>,
    /// Where; else where it matters most, the standby or, for `timings`, the holder
    host: Option<String>,
    /// Seconds until a slip that nothing named counts as not named
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    within: u64,
    /// Leave the slip in place, to look at it; `--undo` ends it
    #[arg(long)]
    keep: bool,
    /// End the slip that was kept on this host
    #[arg(long, value_name = "HOST", conflicts_with_all = ["kind", "host", "keep"])]
    undo: Option<String>,
}

/// 0: named, and undone unless it is to be kept; 1: not named.
pub(crate) fn make(net: &Net, args: &SlipArgs) -> Result<ExitCode> {
    if let Some(host) = &args.undo {
        let slip = slip::undo(net, host)?;
        println!("{host}: {} is undone", name(slip));
        return Ok(ExitCode::SUCCESS);
    }
    let kind = args.kind.context("clap wants a kind")?;
    let host = match &args.host {
        Some(host) => host.clone(),
        None => slip::usual_host(net, kind)?,
    };
    let made = slip::make(net, kind, &host)?;
    println!("{host}: {}", made.done);
    let tried = try_out(net, &made, Duration::from_secs(args.within));
    if args.keep {
        println!("it stays so: `localnet slip --undo {host}`");
    } else {
        slip::undo(net, &host)?;
        println!("{host}: undone");
    }
    tried.map(code)
}

/// True when baton named the slip and nothing of the host outlived what was to end it.
fn try_out(net: &Net, made: &slip::Made, within: Duration) -> Result<bool> {
    let named = slip::await_named(net, made, within)?;
    match &named {
        Some(named) => println!("{named}"),
        None => println!("NOT NAMED within {within:?}: neither check, why nor status say a word about it"),
    }
    let left = slip::left_behind(net, made)?;
    if let Some(left) = &left {
        println!("NOT ENDED: coordinator and guard were killed, and {left} runs on with what it had");
    }
    Ok(named.is_some() && left.is_none())
}

fn name(slip: Slip) -> String {
    clap::ValueEnum::to_possible_value(&slip).map(|value| value.get_name().to_string()).unwrap_or_default()
}
