//! Brings a network up: files written, processes started in an order in which
//! each finds what it needs. Everything started carries the marker, so that whoever sweeps finds it.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::chains::cometbft;
use crate::chains::cosmovisor;
use crate::chains::sim;
use crate::compose;
use crate::hosts::clock;
use crate::hosts::disks;
use crate::hosts::faults::{self, What};
use crate::hosts::watchdog;
use crate::hosts::{self, make_dir};
use crate::judge::measure::height_in;
use crate::judge::status::{self, Status};
use crate::net::http;
use crate::net::namespaces;
use crate::net::wires::{self, Request};
use crate::net::{ChainKind, Custody, Ground, Net, Shape, Usage};
use crate::process::keeper;
use crate::process::limits::Confined;
use crate::process::procs::{HOST_MARKER, MARKER, describe, marked};
use crate::process::programs::find_programs;

/// From the start of the coordinators until a holder is Active, and the other host a ready standby.
const ACTIVE_BOUND: Duration = Duration::from_secs(60);
const STEP_BOUND: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// True once this command ends: nothing may be started any more.
static CLOSED: Mutex<bool> = Mutex::new(false);

/// After this, `spawn` refuses: what is swept then stays swept.
pub fn close() {
    *CLOSED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
}

/// The network folder, absolute; what an earlier network left in it is gone.
///
/// # Errors
/// A network runs there, or the folder holds something that is no network.
pub fn fresh_dir(dir: &Path) -> Result<PathBuf> {
    make_dir(dir)?;
    let dir = dir.canonicalize().with_context(|| format!("resolve {}", dir.display()))?;
    let running = marked(&dir);
    if !running.is_empty() {
        bail!("a network runs under {} ({}); end it with `localnet down`", dir.display(), describe(&running));
    }
    let used = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?.next().is_some();
    if used && !dir.join("net.json").exists() {
        bail!("{} holds files and no network; choose another folder with --dir", dir.display());
    }
    if let Some(net) = Net::load(&dir).ok().filter(|net| net.ground == Ground::Containers) {
        let running = compose::containers(&net, false)?;
        if !running.is_empty() {
            let (dir, running) = (dir.display(), running.join(", "));
            bail!("a network runs under {dir} ({running}); end it with `localnet down`");
        }
    }
    if used {
        keeper::take_down(&dir)?;
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        make_dir(&dir)?;
    }
    Ok(dir)
}

/// A network under `dir` (from [`fresh_dir`]) runs and a holder is Active.
///
/// # Errors
/// Processes may be left: whoever calls has a keeper.
pub fn up(dir: &Path, shape: Shape, seen: impl FnMut(&Status)) -> Result<Net> {
    let net = prepare(dir, shape)?;
    start(&net, seen)?;
    Ok(net)
}

/// A prepared network runs and a holder is Active.
///
/// # Errors
/// As [`up`].
pub fn start(net: &Net, seen: impl FnMut(&Status)) -> Result<()> {
    start_confined(net, &Confined::Free, seen)
}

/// As [`start`], with every host kept within its limits.
///
/// # Errors
/// As [`up`].
pub fn start_confined(net: &Net, confined: &Confined, seen: impl FnMut(&Status)) -> Result<()> {
    if net.custody == Custody::Single {
        return Err(Usage("--custody single has no hosts of baton: it is for `localnet bench`".into()).into());
    }
    start_wires(net)?;
    start_validators(net)?;
    start_hosts(net, confined, seen)
}

/// Beside wires, and a chain if one is wanted: the coordinators run, and a holder is Active.
///
/// # Errors
/// As [`up`].
pub fn start_hosts(net: &Net, confined: &Confined, seen: impl FnMut(&Status)) -> Result<()> {
    for host in &net.hosts {
        spawn_coordinator(net, &host.id, &host.id, confined)?;
        // What puts it within its limits becomes the coordinator a moment later.
        await_step(|| faults::find(net, &host.id, What::Coordinator).map(drop))
            .with_context(|| format!("start the coordinator of {}", host.id))?;
    }
    with_diagnosis(net, import_mark(net).and_then(|()| await_holder(net, seen)))
}

/// Where the log decides what is signed, it has the mark of before.
fn import_mark(net: &Net) -> Result<()> {
    let Some(host) = net.signers().next().filter(|_| net.custody == Custody::Signer) else { return Ok(()) };
    await_step(|| {
        let mut command = Command::new(&net.programs.baton);
        command.args(["signer", "import", "--state"]).arg(cometbft::first_mark(net));
        command.arg("--config").arg(net.config_file(&host.id));
        let answer = status::run_bounded(command, STEP_BOUND)?;
        if answer.code != Some(0) {
            bail!("baton signer import: exit code {:?}: {}", answer.code, answer.stderr.trim());
        }
        Ok(())
    })
}

/// Gives up at once when a coordinator ends.
fn await_holder(net: &Net, mut seen: impl FnMut(&Status)) -> Result<()> {
    let deadline = Instant::now() + ACTIVE_BOUND;
    loop {
        let status = status::query(net);
        if let Ok(status) = &status {
            seen(status);
            if status.active().is_some() {
                return Ok(());
            }
        }
        let coordinators = marked(&net.dir).into_iter().filter(|p| What::Coordinator.matches(p)).map(|p| p.host);
        let running: Vec<String> = coordinators.collect();
        if let Some(host) = net.hosts.iter().find(|host| !running.contains(&host.id)) {
            bail!("{}: its coordinator ended during the start", host.id);
        }
        if Instant::now() > deadline {
            let last = status.map_or_else(|error| format!("{error:#}"), |status| status.summary());
            bail!("no holder is Active within {ACTIVE_BOUND:?}; last seen: {last}");
        }
        std::thread::sleep(status::POLL_EVERY);
    }
}

/// All files of a network exist and nothing runs. For hosts in namespaces, `namespaces::enter` has made room.
pub fn prepare(dir: &Path, shape: Shape) -> Result<Net> {
    let mut net = Net::lay_out(dir, shape, find_programs(shape.chain)?)?;
    net.save()?;
    if net.ground == Ground::Namespaces
        && let Err(error) = disks::mount_all(&net)
    {
        eprintln!("no disk of a host can be frozen here: {error:#}");
    }
    net.shared_key = match net.chain {
        ChainKind::Sim => sim::write(&net)?,
        ChainKind::Cometbft => cometbft::write(&net)?,
    };
    hosts::write_all(&net)?;
    if net.custody == Custody::Signer {
        // What every signer makes is recorded by the same library.
        clock::install(&net)?;
    }
    if net.cosmovisor {
        cosmovisor::write(&net)?;
    }
    disks::sync_all(&net)?;
    net.save()?;
    Ok(net)
}

/// The proxies listen, or the switch carries packets.
pub fn start_wires(net: &Net) -> Result<()> {
    let mut command = Command::new(&net.programs.localnet);
    command.arg("--dir").arg(&net.dir).arg("wires");
    spawn(net, command, "", &net.dir.join("wires.log"), None)?;
    await_step(|| wires::ask(&net.wires_socket(), &Request::List).map(|_| ()))
}

/// The genesis validators answer and their chain moves.
pub fn start_validators(net: &Net) -> Result<()> {
    for v in &net.validators {
        let command = match net.chain {
            ChainKind::Sim => sim::node_command(net, &v.id, &net.validator_home(&v.id), v.rpc(), v.p2p()),
            ChainKind::Cometbft => cometbft::node_command(net, &net.validator_home(&v.id)),
        };
        spawn(net, command, &v.id, &net.validator_home(&v.id).join("node.log"), None)?;
    }
    await_step(|| net.validators.iter().try_for_each(|v| moves(net, v.rpc()))).with_context(|| {
        format!("start the genesis validators; logs in {}/*/node.log", net.dir.join("validators").display())
    })
}

fn moves(net: &Net, rpc: SocketAddr) -> Result<()> {
    let status = http::get_json(rpc, "/status")?;
    let height = height_in(net.chain, &status);
    if height.unwrap_or(0) == 0 {
        bail!("no block yet: {}", status);
    }
    Ok(())
}

/// A coordinator of `host` runs, with the log of its predecessor continued.
pub fn start_coordinator(net: &Net, host: &str) -> Result<()> {
    start_coordinator_on(net, host, host)
}

/// A coordinator runs as `name`, with the files of that name, in the network and with the clock of `host`.
pub fn start_coordinator_on(net: &Net, host: &str, name: &str) -> Result<()> {
    spawn_coordinator(net, host, name, &Confined::Free)
}

fn spawn_coordinator(net: &Net, host: &str, name: &str, confined: &Confined) -> Result<()> {
    let mut command = Command::new(&net.programs.baton);
    command.args(["run", "--config"]).arg(net.config_file(name));
    clock::give_to(net, host, &mut command);
    watchdog::give_to(net, host, &mut command);
    spawn(
        net,
        confined.wrap(host, command),
        name,
        &net.host_dir(name).join("coordinator.log"),
        namespace_of(net, host)?.as_deref(),
    )
}

/// The network that is `host`'s own, where hosts have one.
pub fn namespace_of(net: &Net, host: &str) -> Result<Option<PathBuf>> {
    match net.ground {
        Ground::Loopback | Ground::Containers => Ok(None),
        Ground::Namespaces => {
            let wires = wires::ask(&net.wires_socket(), &Request::List)?;
            Ok(Some(wires.namespaces.get(host).with_context(|| format!("{host} has no network"))?.clone()))
        }
    }
}

/// Starts a marked process in a group of its own, its output appended to `log`; it is reaped when it
/// ends, so that it never stays as a zombie. Its network is that of `namespace` where there is one.
pub fn spawn(net: &Net, mut command: Command, host: &str, log: &Path, namespace: Option<&Path>) -> Result<()> {
    let what = || format!("start {:?}", command.get_program());
    let out = append_to(log)?;
    let err = out.try_clone().with_context(what)?;
    let what = what();
    command.env(MARKER, &net.dir).env(HOST_MARKER, host).env("NO_COLOR", "1").current_dir(&net.dir);
    command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err);
    let closed = CLOSED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if *closed {
        bail!("{what}: this command is ending");
    }
    let mut child = match namespace {
        None => command.spawn().context(what)?,
        Some(namespace) => namespaces::spawn_in(namespace, command)?,
    };
    drop(closed);
    std::thread::spawn(move || child.wait());
    Ok(())
}

fn append_to(log: &Path) -> Result<File> {
    let open = OpenOptions::new().append(true).create(true).open(log);
    open.with_context(|| format!("open {}", log.display()))
}

pub fn await_step(step: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + STEP_BOUND;
    loop {
        match step() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("not within {STEP_BOUND:?}"))),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Adds to an error what runs and what does not, what the coordinators say, and the ends of the logs.
pub fn with_diagnosis<T>(net: &Net, result: Result<T>) -> Result<T> {
    result.map_err(|error| anyhow!("{error:#}\n{}", diagnosis(net)))
}

/// What runs, what the coordinators say, and the ends of the logs: for the message of a network that
/// does not work.
pub fn diagnosis(net: &Net) -> String {
    if net.ground == Ground::Containers {
        return compose::diagnosis(net);
    }
    let running = marked(&net.dir);
    let mut text = format!("running: {}", if running.is_empty() { "nothing".into() } else { describe(&running) });
    for host in &net.hosts {
        if !running.iter().any(|p| p.host == host.id && What::Coordinator.matches(p)) {
            text += &format!("\n{}: its coordinator does not run", host.id);
        } else if let Ok(said) = status::for_people(net, &host.id) {
            text += &format!("\n--- baton status on {}\n{}", host.id, said.trim_end());
        }
        for name in ["coordinator.log", "node.log"] {
            let file = net.host_dir(&host.id).join(name);
            if let Ok(end) = tail(&file, 12) {
                text += &format!("\n--- {}\n{end}", file.display());
            }
        }
    }
    text
}

/// The last `lines` lines of a log.
pub fn tail(file: &Path, lines: usize) -> Result<String> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}
