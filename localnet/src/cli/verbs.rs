//! Commands that act on a network which runs.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use localnet::faults::{self, What};
use localnet::net::Net;
use localnet::procs::{self, describe, marked};
use localnet::table::status_table;
use localnet::wires::{self, Request};
use localnet::{demo, keeper, launch, status};
use rustix::process::Signal;

use super::args::Target;
use super::code;

pub(crate) fn down(dir: &Path) -> Result<ExitCode> {
    // The folder may have been removed under a network that still runs.
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(_) => std::path::absolute(dir).with_context(|| format!("resolve {}", dir.display()))?,
    };
    let ended = keeper::take_down(&dir)?;
    let left = marked(&dir);
    if !left.is_empty() {
        bail!("still running: {}", describe(&left));
    }
    match ended {
        0 => println!("nothing ran under {}", dir.display()),
        ended => println!("ended {ended} processes; logs stay under {}", dir.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit codes as `baton status` has them.
pub(crate) fn show_status(net: &Net) -> Result<ExitCode> {
    match status::query(net) {
        Ok(status) => {
            print!("{}", status_table(&status));
            Ok(code(status.active().is_some()))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

pub(crate) fn strike(net: &Net, target: &Target, signal: Signal) -> Result<ExitCode> {
    let targets = faults::find(net, &target.host, target.what)?;
    match (signal, target.what) {
        (Signal::KILL, What::Host) => faults::kill_host(net, &target.host, &targets)?,
        (Signal::KILL, What::Coordinator | What::Guard | What::Node) => faults::kill(&targets)?,
        (other, What::Coordinator | What::Guard | What::Node | What::Host) => procs::signal(&targets, other)?,
    }
    println!("{}: {}", target.host, describe(&targets));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn start(net: &Net, host: &str) -> Result<ExitCode> {
    net.host(host)?;
    let running = faults::of_host(net, host, What::Coordinator);
    if !running.is_empty() {
        bail!("{host}: its coordinator runs already ({})", describe(&running));
    }
    launch::start_coordinator(net, host)?;
    println!("{host}: coordinator started");
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn tell_wires(net: &Net, host: &str, request: Request) -> Result<ExitCode> {
    net.host(host)?;
    let wires = wires::ask(&net.wires_socket(), &request)?;
    let list: Vec<String> = wires.cuts.iter().map(|(host, way)| format!("{host} {way:?}").to_lowercase()).collect();
    println!("cut: {}", if list.is_empty() { "nothing".into() } else { list.join(", ") });
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn hand_over(net: &Net, to: Option<&str>) -> Result<ExitCode> {
    to.map(|to| net.host(to)).transpose()?;
    let status = status::query(net)?;
    let host = status.active().map_or(status.member.as_str(), |holder| holder.id.as_str());
    let answer = demo::request_handover(net, host, to)?;
    print!("{}", answer.stdout);
    eprint!("{}", answer.stderr);
    Ok(answer.code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

pub(crate) fn logs(net: &Net, host: &str, lines: usize) -> Result<ExitCode> {
    net.host(host)?;
    for name in ["coordinator.log", "node.log"] {
        let file = net.host_dir(host).join(name);
        if file.exists() {
            println!("--- {}\n{}", file.display(), launch::tail(&file, lines)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
