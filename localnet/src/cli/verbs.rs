//! Commands that act on a network which runs.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use localnet::chains::cosmovisor;
use localnet::compose;
use localnet::hosts::faults::{self, What};
use localnet::judge::logs;
use localnet::judge::measure;
use localnet::judge::status;
use localnet::judge::table::status_table;
use localnet::net::namespaces;
use localnet::net::wires::{self, Request};
use localnet::net::{Ground, Net, Usage};
use localnet::process::keeper;
use localnet::process::launch;
use localnet::process::procs::{self, describe, marked};
use localnet::runs::demo;
use rustix::process::Signal;

use super::args::{Target, UpgradeArgs};
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
        ended => println!("ended {ended} processes or containers; files stay under {}", dir.display()),
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
    if net.ground == Ground::Containers {
        net.host(&target.host)?;
        if (signal, target.what) != (Signal::KILL, What::Host) {
            return only_on_processes("of a container, only the whole can be killed: `localnet kill HOST host`");
        }
        print!("killed {}", compose::act(net, &["kill"], &target.host)?);
        return Ok(ExitCode::SUCCESS);
    }
    let targets = faults::find(net, &target.host, target.what)?;
    match (signal, target.what) {
        (Signal::KILL, What::Host) => faults::kill_host(net, &target.host, &targets)?,
        (Signal::KILL, What::Coordinator | What::Guard | What::Node | What::Signer) => faults::kill(&targets)?,
        (other, What::Coordinator | What::Guard | What::Node | What::Signer | What::Host) => {
            procs::signal(&targets, other)?
        }
    }
    println!("{}: {}", target.host, describe(&targets));
    Ok(ExitCode::SUCCESS)
}

fn only_on_processes(what: &str) -> Result<ExitCode> {
    Err(Usage(what.into()).into())
}

pub(crate) fn start(net: &Net, host: &str) -> Result<ExitCode> {
    net.host(host)?;
    if net.ground == Ground::Containers {
        print!("started {}", compose::act(net, &["start"], host)?);
        return Ok(ExitCode::SUCCESS);
    }
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
    if net.ground == Ground::Containers {
        return only_on_processes("containers have no wires to cut; use a network of processes");
    }
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

/// The hosts have a binary of that name, and the chain has planned it.
pub(crate) fn upgrade(net: &Net, args: &UpgradeArgs) -> Result<ExitCode> {
    let UpgradeArgs { name, after, without } = args;
    if !net.cosmovisor {
        let what = "the hosts have no cosmovisor homes; start the network with `localnet up --cosmovisor`";
        return Err(Usage(what.into()).into());
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(Usage(format!("name {name:?}: use letters, digits, '-', '_' and '.'")).into());
    }
    without.iter().try_for_each(|host| net.host(host).map(drop))?;
    for host in net.signers().filter(|host| !without.contains(&host.id)) {
        cosmovisor::give(net, &host.id, name)?;
        println!("{} has {}", host.id, cosmovisor::place(net, &host.id, name).display());
    }
    if let Some(after) = after {
        let height = measure::head(net)? + after;
        cosmovisor::plan_on_chain(net, name, height, "")?;
        println!("the chain wants {name} at height {height}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn show_logs(net: &Net, host: Option<&str>, lines: usize, follow: bool) -> Result<ExitCode> {
    let hosts = match host {
        Some(host) => vec![net.host(host)?],
        None => net.hosts.iter().collect(),
    };
    logs::show(net, &hosts, lines, follow, std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// Ends as the command ends. `baton` is found there, and finds the host's configuration.
pub(crate) fn exec(net: &Net, host: &str, argv: &[String]) -> Result<ExitCode> {
    net.host(host)?;
    let (program, args) = argv.split_first().context("clap wants a command")?;
    let mut child = match net.ground {
        Ground::Containers => {
            let flags: &[&str] =
                if std::io::stdin().is_terminal() { &["--interactive", "--tty"] } else { &["--interactive"] };
            let mut command = compose::at_host(net, host, flags)?;
            command.args(argv);
            command.spawn().context("run docker exec")?
        }
        Ground::Loopback | Ground::Namespaces => {
            let folder = net.programs.baton.parent().context("baton has no folder")?;
            let path = std::env::var_os("PATH").unwrap_or_default();
            let path = std::env::join_paths([folder.into()].into_iter().chain(std::env::split_paths(&path)))?;
            let mut command = Command::new(program);
            command.args(args).env("PATH", path).env("BATON_CONFIG", net.config_file(host));
            match launch::namespace_of(net, host)? {
                Some(namespace) => namespaces::spawn_in(&namespace, command)?,
                None => command.spawn().with_context(|| format!("run {program}"))?,
            }
        }
    };
    let status = child.wait().with_context(|| format!("await {program}"))?;
    // As a shell tells of a signal.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Nothing runs, and nothing of the network is left on the disk.
pub(crate) fn reset(dir: &Path) -> Result<ExitCode> {
    let net = Net::load(dir)?;
    let dir = dir.canonicalize().with_context(|| format!("resolve {}", dir.display()))?;
    if net.dir != dir {
        let (dir, other) = (dir.display(), net.dir.display());
        return Err(Usage(format!("{dir}/net.json tells of a network under {other}: nothing was removed")).into());
    }
    down(&dir)?;
    std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    println!("removed {}", dir.display());
    Ok(ExitCode::SUCCESS)
}
