//! Every kind of fault: how it strikes one host, how it is healed, and whether it was really in force.

use std::fmt;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::ids::Role;
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::process::Signal;

use crate::faults::{self, What};
use crate::hosts::{loopback, make_dir, quoted};
use crate::launch;
use crate::net::{Net, write_file};
use crate::ports;
use crate::procs::{self, Proc};
use crate::proxy::{self, Request, Slow, Way};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Cut,
    CutIn,
    CutOut,
    Delay,
    Loss,
    KillCoordinator,
    KillGuard,
    KillNode,
    KillHost,
    StopCoordinator,
    StopGuard,
    StopNode,
    StopHost,
    /// A byte of the store is another one when the host comes back.
    TornStore,
    /// The host comes back with an empty store.
    WipedMember,
    /// A second coordinator with the same id, and a store of its own, joins in.
    DuplicateMember,
}

impl Kind {
    pub const ALL: [Kind; 16] = [
        Kind::Cut,
        Kind::CutIn,
        Kind::CutOut,
        Kind::Delay,
        Kind::Loss,
        Kind::KillCoordinator,
        Kind::KillGuard,
        Kind::KillNode,
        Kind::KillHost,
        Kind::StopCoordinator,
        Kind::StopGuard,
        Kind::StopNode,
        Kind::StopHost,
        Kind::TornStore,
        Kind::WipedMember,
        Kind::DuplicateMember,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Cut => "cut both ways",
            Kind::CutIn => "cut inwards",
            Kind::CutOut => "cut outwards",
            Kind::Delay => "delay",
            Kind::Loss => "loss",
            Kind::KillCoordinator => "SIGKILL coordinator",
            Kind::KillGuard => "SIGKILL guard",
            Kind::KillNode => "SIGKILL node",
            Kind::KillHost => "SIGKILL host",
            Kind::StopCoordinator => "SIGSTOP coordinator",
            Kind::StopGuard => "SIGSTOP guard",
            Kind::StopNode => "SIGSTOP node",
            Kind::StopHost => "SIGSTOP host",
            Kind::TornStore => "torn store",
            Kind::WipedMember => "wiped member",
            Kind::DuplicateMember => "duplicate member id",
        }
    }

    pub fn can_strike(self, role: Role) -> bool {
        match self {
            Kind::KillGuard | Kind::KillNode | Kind::StopGuard | Kind::StopNode => role == Role::Validator,
            // The second coordinator would run the same chain node.
            Kind::DuplicateMember => role == Role::Arbiter,
            Kind::Cut | Kind::CutIn | Kind::CutOut | Kind::Delay | Kind::Loss => true,
            Kind::KillCoordinator | Kind::KillHost | Kind::StopCoordinator | Kind::StopHost => true,
            Kind::TornStore | Kind::WipedMember => true,
        }
    }
}

pub struct Fault {
    pub kind: Kind,
    pub host: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind.name(), self.host)
    }
}

/// What a strike leaves to be put right.
pub enum Struck {
    /// There was nothing to strike.
    Nothing,
    Wires,
    Killed,
    Stopped(Vec<Proc>),
    /// The store as it was before.
    Store {
        kept: PathBuf,
    },
    Twin {
        host: String,
    },
}

/// A coordinator answers by then, or has refused to run.
const START_BOUND: Duration = Duration::from_secs(20);

impl Fault {
    pub fn strike(&self, net: &Net, rng: &mut StdRng) -> Result<Struck> {
        match self.kind {
            Kind::Cut => self.cut(net, &[Way::In, Way::Out]),
            Kind::CutIn => self.cut(net, &[Way::In]),
            Kind::CutOut => self.cut(net, &[Way::Out]),
            Kind::Delay => self.slow(net, Slow { delay_ms_max: rng.random_range(20..250), ..Slow::default() }),
            Kind::Loss => {
                let slow = Slow { delay_ms_max: 2, lost_percent: rng.random_range(5..40), retransmit_ms: 220 };
                self.slow(net, slow)
            }
            Kind::KillCoordinator => self.kill(net, What::Coordinator),
            Kind::KillGuard => self.kill(net, What::Guard),
            Kind::KillNode => self.kill(net, What::Node),
            Kind::KillHost => self.kill(net, What::Host),
            Kind::StopCoordinator => self.stop(net, What::Coordinator),
            Kind::StopGuard => self.stop(net, What::Guard),
            Kind::StopNode => self.stop(net, What::Node),
            Kind::StopHost => self.stop(net, What::Host),
            Kind::TornStore => self.tear_store(net, rng),
            Kind::WipedMember => self.wipe(net),
            Kind::DuplicateMember => self.duplicate(net),
        }
    }

    /// The host can recover; true when the fault was in force until now.
    pub fn heal(&self, net: &Net, struck: Struck) -> Result<bool> {
        match struck {
            Struck::Nothing => Ok(false),
            Struck::Killed => Ok(true),
            Struck::Wires => {
                let wires = proxy::ask(&net.proxy_socket(), &Request::List)?;
                let in_force =
                    wires.cuts.iter().any(|(host, _)| *host == self.host) || wires.slow.contains_key(&self.host);
                proxy::ask(&net.proxy_socket(), &Request::Heal { host: self.host.clone() })?;
                Ok(in_force)
            }
            Struck::Stopped(targets) => {
                procs::signal(&targets, Signal::CONT)?;
                Ok(true)
            }
            Struck::Store { kept } => self.bring_store_back(net, &kept).map(|()| true),
            Struck::Twin { host } => {
                let said = fs::read_to_string(net.host_dir(&host).join("coordinator.log")).unwrap_or_default();
                faults::kill(&faults::of_host(net, &host, What::Host))?;
                let dir = net.host_dir(&host);
                fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
                Ok(!said.is_empty())
            }
        }
    }

    fn cut(&self, net: &Net, ways: &[Way]) -> Result<Struck> {
        proxy::ask(&net.proxy_socket(), &Request::Cut { host: self.host.clone(), ways: ways.to_vec() })?;
        Ok(Struck::Wires)
    }

    fn slow(&self, net: &Net, slow: Slow) -> Result<Struck> {
        proxy::ask(&net.proxy_socket(), &Request::Slow { host: self.host.clone(), slow })?;
        Ok(Struck::Wires)
    }

    fn kill(&self, net: &Net, what: What) -> Result<Struck> {
        let targets = faults::of_host(net, &self.host, what);
        if targets.is_empty() {
            return Ok(Struck::Nothing);
        }
        match what {
            What::Host => faults::kill_host(net, &self.host, &targets)?,
            What::Coordinator | What::Guard | What::Node => faults::kill(&targets)?,
        }
        Ok(Struck::Killed)
    }

    fn stop(&self, net: &Net, what: What) -> Result<Struck> {
        let targets = faults::of_host(net, &self.host, what);
        if targets.is_empty() {
            return Ok(Struck::Nothing);
        }
        procs::signal(&targets, Signal::STOP)?;
        Ok(Struck::Stopped(targets))
    }

    /// The host is down, and the store as it was lies beside it.
    fn take_store(&self, net: &Net) -> Result<PathBuf> {
        let running = faults::of_host(net, &self.host, What::Host);
        faults::kill_host(net, &self.host, &running)?;
        let kept = net.host_dir(&self.host).join("state.kept");
        copy_dir(&state_dir(net, &self.host), &kept)?;
        Ok(kept)
    }

    /// A member that refuses its store must not run; one that takes it has found it whole.
    fn tear_store(&self, net: &Net, rng: &mut StdRng) -> Result<Struck> {
        let kept = self.take_store(net)?;
        let files = files_with_content(&state_dir(net, &self.host))?;
        let file = files.get(rng.random_range(0..files.len().max(1))).context("a store without files")?;
        let mut bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let at = rng.random_range(0..bytes.len());
        if rng.random_bool(0.5) {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        fs::write(file, &bytes).with_context(|| format!("tear {}", file.display()))?;
        self.start_to_an_end(net)?;
        Ok(Struck::Store { kept })
    }

    fn wipe(&self, net: &Net) -> Result<Struck> {
        let kept = self.take_store(net)?;
        let state = state_dir(net, &self.host);
        fs::remove_dir_all(&state).with_context(|| format!("remove {}", state.display()))?;
        make_dir(&state)?;
        launch::start_coordinator(net, &self.host)?;
        Ok(Struck::Store { kept })
    }

    /// The member has its own store again. One that ran on with the torn store keeps that: it may have voted since.
    fn bring_store_back(&self, net: &Net, kept: &Path) -> Result<()> {
        let state = state_dir(net, &self.host);
        let runs_on = !faults::of_host(net, &self.host, What::Coordinator).is_empty();
        if self.kind == Kind::WipedMember || !runs_on {
            faults::kill_host(net, &self.host, &faults::of_host(net, &self.host, What::Host))?;
            fs::remove_dir_all(&state).with_context(|| format!("remove {}", state.display()))?;
            copy_dir(kept, &state)?;
        }
        fs::remove_dir_all(kept).with_context(|| format!("remove {}", kept.display()))
    }

    /// The host's coordinator serves, or has ended.
    fn start_to_an_end(&self, net: &Net) -> Result<()> {
        launch::start_coordinator(net, &self.host)?;
        let (began, port) = (Instant::now(), net.host(&self.host)?.metrics_port);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if faults::of_host(net, &self.host, What::Coordinator).is_empty() {
                return Ok(());
            }
            if began.elapsed() > START_BOUND {
                bail!("{}: its coordinator neither serves nor ends", self.host);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn duplicate(&self, net: &Net) -> Result<Struck> {
        let twin = format!("{}-twin", self.host);
        let (dir, original) = (net.host_dir(&twin), net.host(&self.host)?);
        let [listen, metrics] = ports::pick(2)?[..] else { bail!("two ports were asked for") };
        let run_dir = original.run_dir.with_file_name(format!("{twin}-run"));
        for folder in [&dir, &dir.join("state"), &run_dir] {
            make_dir(folder)?;
        }
        let text = fs::read_to_string(net.config_file(&self.host)).context("read the configuration to duplicate")?;
        let text = text
            .replace(&quoted(state_dir(net, &self.host)), &quoted(dir.join("state")))
            .replace(&quoted(&original.run_dir), &quoted(&run_dir))
            .replace(&loopback(original.raft_port), &loopback(listen))
            .replace(&loopback(original.metrics_port), &loopback(metrics));
        write_file(&net.config_file(&twin), &text)?;
        launch::start_coordinator(net, &twin)?;
        Ok(Struck::Twin { host: twin })
    }
}

fn state_dir(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("state")
}

/// Every file under `dir` that is not empty, in order.
fn files_with_content(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_with_content(&path)?);
        } else if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    make_dir(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            copy_dir(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}
