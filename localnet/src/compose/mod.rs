//! The network in containers: `deploy/compose` with the stand-in chain, on whichever Docker engine the environment
//! names. Writes what compose needs, runs it, and asks it; what the verbs do elsewhere with processes, they do here
//! with containers. Called by the command line, the keeper and whatever talks to a coordinator.

mod engine;
mod files;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::judge::status::{Status, run_bounded};
use crate::net::{ChainKind, Ground, HOSTS, Net, Shape, Usage};
use crate::process::launch::with_diagnosis;
use crate::runs::demo::await_pair_within;
use engine::Engine;

/// From the start of the containers until a holder is Active and the other host a ready standby.
const READY_BOUND: Duration = Duration::from_secs(120);
/// For the engine to answer what costs it nothing.
const ANSWER_BOUND: Duration = Duration::from_secs(20);
/// For the engine to end containers, of which each may take its grace period.
const DOWN_BOUND: Duration = Duration::from_secs(180);

/// What makes a network one of containers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Containers {
    /// Of the names of containers, network and image; of this folder alone.
    pub project: String,
    engine: Engine,
    /// The first three parts of every address.
    pub subnet: String,
    pub uid: u32,
    pub gid: u32,
    /// Where a host's metrics are published on this machine's loopback, in the order of the hosts.
    pub published: Vec<u16>,
}

/// What compose.yaml is made for.
pub fn shape(shape: Shape) -> Result<Shape> {
    if shape.chain != ChainKind::Sim || shape.hosts != *HOSTS.start() || shape.cosmovisor {
        let what = "containers run three hosts and the sim chain; leave --hosts, --chain and --cosmovisor away";
        return Err(Usage(what.into()).into());
    }
    Ok(Shape { ground: Ground::Containers, ..shape })
}

/// A network of containers under `dir` (from `launch::fresh_dir`) runs, with a holder and a ready standby.
///
/// # Errors
/// Containers may be left: whoever calls has a keeper.
pub fn up(dir: &Path, shape: Shape, seen: impl FnMut(&Status)) -> Result<Net> {
    let net = prepare(dir, shape)?;
    start(&net)?;
    with_diagnosis(&net, await_pair_within(READY_BOUND, &net, seen))?;
    Ok(net)
}

/// All files exist and the image is built from them, without a look at any registry.
pub fn prepare(dir: &Path, shape: Shape) -> Result<Net> {
    let engine = Engine::find()?;
    let net = files::write(dir, shape, engine)?;
    build_image(&net)?;
    Ok(net)
}

fn build_image(net: &Net) -> Result<()> {
    let context = files::image_context(net);
    let mut build = of(net)?.engine.docker();
    // The classic builder is in every engine; the other one is a plugin.
    build.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--target", "sim", "--tag"]);
    build.arg(image(net)?).arg(&context);
    succeed(build, Duration::from_secs(300)).context("build the image")?;
    // The programs are in the image now, and large.
    std::fs::remove_dir_all(&context).with_context(|| format!("remove {}", context.display()))
}

/// The containers run.
pub fn start(net: &Net) -> Result<()> {
    succeed(compose(net, &["up", "--detach", "--no-build"])?, DOWN_BOUND).context("start the containers").map(drop)
}

/// Nothing of the network is left on the engine: no container, no network, no image. Files stay. Returns how many
/// containers there were.
pub fn take_down(net: &Net) -> Result<usize> {
    let count = containers(net, true)?.len();
    succeed(compose(net, &["down", "--volumes", "--remove-orphans"])?, DOWN_BOUND).context("end the containers")?;
    let mut remove = of(net)?.engine.docker();
    remove.args(["image", "rm", "--force", &image(net)?]);
    succeed(remove, ANSWER_BOUND).context("remove the image")?;
    Ok(count)
}

/// Names of the network's containers; with `all`, also of those that have ended.
///
/// # Errors
/// The engine does not answer.
pub fn containers(net: &Net, all: bool) -> Result<Vec<String>> {
    let own = of(net)?;
    let mut list = own.engine.docker();
    list.args(["ps", "--format", "{{.Names}}", "--filter"]);
    list.arg(format!("label=com.docker.compose.project={}", own.project));
    if all {
        list.arg("--all");
    }
    Ok(succeed(list, ANSWER_BOUND)?.lines().map(String::from).collect())
}

/// Name of the container of a host or genesis validator.
pub fn container(net: &Net, id: &str) -> Result<String> {
    Ok(format!("{}-{id}", of(net)?.project))
}

/// `docker ARGS CONTAINER` has been done.
pub fn act(net: &Net, args: &[&str], host: &str) -> Result<String> {
    let mut command = of(net)?.engine.docker();
    command.args(args).arg(container(net, host)?);
    succeed(command, DOWN_BOUND)
}

/// The state of every container, and the end of what it said.
pub fn diagnosis(net: &Net) -> String {
    let said = |command: Result<Command>| match command.and_then(|command| run_bounded(command, ANSWER_BOUND)) {
        Ok(answer) => format!("{}{}", answer.stdout, answer.stderr),
        Err(error) => format!("{error:#}"),
    };
    let listed = docker(net).map(|mut docker| {
        docker.args(["ps", "--all", "--format", "{{.Names}}: {{.Status}}"]);
        docker
    });
    let mut text = said(listed);
    for name in containers(net, true).unwrap_or_default() {
        let logs = docker(net).map(|mut docker| {
            docker.args(["logs", "--tail", "12", &name]);
            docker
        });
        text += &format!("--- docker logs {name}\n{}", said(logs));
    }
    text
}

/// `docker`, at the engine that the network runs on.
pub fn docker(net: &Net) -> Result<Command> {
    Ok(of(net)?.engine.docker())
}

/// A command that runs at a host: in its container, with that container's environment.
pub fn at_host(net: &Net, host: &str, flags: &[&str]) -> Result<Command> {
    let mut command = of(net)?.engine.docker();
    command.arg("exec").args(flags).arg(container(net, host)?);
    Ok(command)
}

/// `docker-compose ARGS` for this network.
pub fn compose(net: &Net, args: &[&str]) -> Result<Command> {
    let own = of(net)?;
    let mut command = own.engine.compose();
    command.arg("--project-name").arg(&own.project);
    for file in files::compose_files(net) {
        command.arg("--file").arg(file);
    }
    command.args(args).envs(files::variables(net)?);
    Ok(command)
}

fn of(net: &Net) -> Result<&Containers> {
    net.containers.as_ref().with_context(|| format!("the network under {} is not one of containers", net.dir.display()))
}

pub fn image(net: &Net) -> Result<String> {
    Ok(format!("{}:sim", of(net)?.project))
}

/// Runs to the end; returns standard output.
fn succeed(command: Command, bound: Duration) -> Result<String> {
    let what = format!("{command:?}");
    let answer = run_bounded(command, bound)?;
    if answer.code != Some(0) {
        bail!("{what}: exit code {:?}: {}{}", answer.code, answer.stdout, answer.stderr.trim());
    }
    Ok(answer.stdout)
}

/// For a program that is found by running it.
fn answers(mut command: Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
