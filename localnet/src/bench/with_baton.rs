//! The bench's faults on a network of baton.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{Contender, Fault, Round, gap_since};
use crate::demo::{Pair, await_pair, measured_hand_over};
use crate::faults::{self, What};
use crate::launch;
use crate::measure::Watch;
use crate::net::Net;
use crate::procs;
use crate::wires::{self, Request, Way};

const STOPPED_FOR: Duration = Duration::from_secs(10);

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
        Fault::Host => {
            let targets = faults::find(net, holder, What::Host)?;
            let at = watch.now_ns();
            faults::kill_host(net, holder, &targets)?;
            let gap = gap_since(watch, at, holder)?;
            launch::start_coordinator(net, holder)?;
            Ok(gap)
        }
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
        Fault::CoordinatorStop => {
            let targets = faults::find(net, holder, What::Coordinator)?;
            let (at, stopped) = (watch.now_ns(), Instant::now());
            procs::signal(&targets, Signal::STOP)?;
            let gap = gap_since(watch, at, holder);
            std::thread::sleep(STOPPED_FOR.saturating_sub(stopped.elapsed()));
            procs::signal(&targets, Signal::CONT)?;
            gap
        }
        Fault::Cut => {
            let at = watch.now_ns();
            wires::ask(&net.wires_socket(), &Request::Cut { host: holder.into(), ways: vec![Way::In, Way::Out] })?;
            let gap = gap_since(watch, at, holder);
            wires::ask(&net.wires_socket(), &Request::Heal { host: holder.into() })?;
            gap
        }
    }
}
