//! The bench's faults on a network of baton.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use baton::base::ids::Role;
use rustix::process::Signal;

use super::{Contender, Fault, Round, SIGN_BOUND, gap_since};
use crate::hosts::clock;
use crate::hosts::faults::{self, What};
use crate::judge::measure::Watch;
use crate::net::Net;
use crate::net::wires::{self, Request, Slow, Way};
use crate::process::launch;
use crate::process::procs;
use crate::runs::demo::{Pair, await_pair, measured_hand_over};

const STOPPED_FOR: Duration = Duration::from_secs(10);
const STOPPED_FOR_LONG: Duration = Duration::from_secs(20);
const CUT_FOR_LONG: Duration = Duration::from_secs(20);
/// A guest that a hypervisor had stopped.
const FROZEN_FOR: Duration = Duration::from_secs(30);
const SLOW_FOR: Duration = Duration::from_secs(10);

pub(super) struct WithBaton<'a>(pub &'a Net);

impl Contender for WithBaton<'_> {
    fn name(&self) -> &'static str {
        "baton"
    }

    fn net(&self) -> &Net {
        self.0
    }

    fn await_steady(&self) -> Result<Pair> {
        await_steady(self.0)
    }

    fn strike(&self, fault: Fault, pair: &Pair, watch: &mut Watch) -> Result<Duration> {
        strike(self.0, fault, pair, watch)
    }

    fn await_recovered(&self) -> Result<()> {
        await_pair(self.0, |_| ()).map(drop)
    }

    fn with_diagnosis(&self, result: Result<Round>) -> Result<Round> {
        launch::with_diagnosis(self.0, result)
    }
}

/// A holder that signed this often has been one for longer than the overlap window.
const STEADY_SIGNATURES: usize = 12;
const STEADY_BOUND: Duration = Duration::from_secs(20);
/// On a busy machine a holder may lose its lease by itself; one that never keeps it is no ground to measure on.
const STEADY_ATTEMPTS: usize = 3;

/// A holder that has been one for a while, and a ready standby. A move there and back within the overlap window
/// would look like two signers at once.
pub fn await_steady(net: &Net) -> Result<Pair> {
    let mut lost = None;
    for _ in 0..STEADY_ATTEMPTS {
        let pair = await_pair(net, |_| ())?;
        match Watch::begin(net)?.await_by(&pair.holder, STEADY_SIGNATURES, STEADY_BOUND) {
            Ok(()) => return Ok(pair),
            Err(error) => lost = Some(error),
        }
    }
    Err(lost.context("no attempt was made")?)
}

fn strike(net: &Net, fault: Fault, pair: &Pair, watch: &mut Watch) -> Result<Duration> {
    let holder = pair.holder.as_str();
    match fault {
        Fault::Handover => Ok(measured_hand_over(net, pair, watch)?.pause),
        Fault::Host => lose(net, holder, watch),
        Fault::Node => {
            let targets = faults::find(net, holder, What::Node)?;
            let at = watch.now_ns();
            faults::kill(&targets)?;
            gap_since(watch, at, holder)
        }
        Fault::CoordinatorKill => {
            let targets = faults::find(net, holder, What::Coordinator)?;
            let at = watch.now_ns();
            faults::kill(&targets)?;
            let gap = gap_since(watch, at, holder)?;
            launch::start_coordinator(net, holder)?;
            Ok(gap)
        }
        Fault::CoordinatorStop => stop(net, holder, &[What::Coordinator], STOPPED_FOR, watch),
        Fault::CoordinatorStop20 => stop(net, holder, &[What::Coordinator], STOPPED_FOR_LONG, watch),
        Fault::HostStop => stop(net, holder, &[What::Host], FROZEN_FOR, watch),
        Fault::Cut => cut(net, holder, &[Way::In, Way::Out], Duration::ZERO, watch),
        Fault::CutIn => cut(net, holder, &[Way::In], Duration::ZERO, watch),
        Fault::Cut20 => cut(net, holder, &[Way::In, Way::Out], CUT_FOR_LONG, watch),
        Fault::HostSyncs90 | Fault::HostSyncs200 => {
            let longer = fault.syncs_take().context("a fault of syncs")?;
            net.hosts.iter().try_for_each(|host| clock::slow_syncs(net, &host.id, longer))?;
            let gap = strike(net, Fault::Host, pair, watch);
            net.hosts.iter().try_for_each(|host| clock::slow_syncs(net, &host.id, Duration::ZERO))?;
            gap
        }
        Fault::SlowFollower => slow_follower(net, pair, watch),
        Fault::NodeStop => stop(net, holder, &[What::Node], Duration::ZERO, watch),
        Fault::SignerKill => {
            let targets = faults::find(net, holder, What::Signer)?;
            let at = watch.now_ns();
            faults::kill(&targets)?;
            gap_since(watch, at, "nobody")
        }
        Fault::StandbyHost => lose(net, &pair.standby, watch),
        Fault::ArbiterHost => {
            let arbiter = net.hosts.iter().find(|host| host.role == Role::Arbiter).context("no arbiter")?;
            lose(net, &arbiter.id, watch)
        }
        Fault::GuardAndNodeStop => stop(net, holder, &[What::Guard, What::Node], Duration::ZERO, watch),
    }
}

/// Everything of `host` is killed. Until another one signs.
fn lose(net: &Net, host: &str, watch: &mut Watch) -> Result<Duration> {
    let targets = faults::find(net, host, What::Host)?;
    let at = watch.now_ns();
    faults::kill_host(net, host, &targets)?;
    let gap = gap_since(watch, at, host)?;
    launch::start_coordinator(net, host)?;
    Ok(gap)
}

/// What of it is still there goes on when another host signs, and not before `at_least` has passed.
fn stop(net: &Net, holder: &str, what: &[What], at_least: Duration, watch: &mut Watch) -> Result<Duration> {
    let mut targets = Vec::new();
    for what in what {
        targets.extend(faults::find(net, holder, *what)?);
    }
    let (at, stopped) = (watch.now_ns(), Instant::now());
    procs::signal(&targets, Signal::STOP)?;
    let gap = gap_since(watch, at, holder);
    std::thread::sleep(at_least.saturating_sub(stopped.elapsed()));
    procs::signal(&targets, Signal::CONT)?;
    gap
}

/// Healed when another host signs, and not before `at_least` has passed.
fn cut(net: &Net, holder: &str, ways: &[Way], at_least: Duration, watch: &mut Watch) -> Result<Duration> {
    let (at, cut) = (watch.now_ns(), Instant::now());
    wires::ask(&net.wires_socket(), &Request::Cut { host: holder.into(), ways: ways.to_vec() })?;
    let gap = gap_since(watch, at, holder);
    std::thread::sleep(at_least.saturating_sub(cut.elapsed()));
    wires::ask(&net.wires_socket(), &Request::Heal { host: holder.into() })?;
    gap
}

/// A quorum answers all the time: the holder and its standby, whose answers come late.
fn slow_follower(net: &Net, pair: &Pair, watch: &mut Watch) -> Result<Duration> {
    let others = net.hosts.iter().filter(|host| host.id != pair.holder && host.id != pair.standby);
    for host in others {
        wires::ask(&net.wires_socket(), &Request::Cut { host: host.id.clone(), ways: vec![Way::In, Way::Out] })?;
    }
    let slow = Slow { delay_ms_min: 200, delay_ms_max: 200, only: Some(Way::Out), ..Slow::default() };
    wires::ask(&net.wires_socket(), &Request::Slow { host: pair.standby.clone(), slow })?;
    std::thread::sleep(SLOW_FOR);
    for host in &net.hosts {
        wires::ask(&net.wires_socket(), &Request::Heal { host: host.id.clone() })?;
    }
    // A pause that lasts until now ends with the next signature.
    watch.await_next(watch.now_ns(), "nobody", SIGN_BOUND)?;
    watch.longest_pause().context("no two signatures")
}
