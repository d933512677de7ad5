//! The bench's faults where etcd hands the key around, and the chain node runs under `etcdctl lock`. Each is what
//! the fault of the same name is for baton; what a service manager or an operator would do is done here.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{Contender, Fault, Round, SIGN_BOUND, gap_since};
use crate::hosts::faults::{self, What};
use crate::judge::measure::Watch;
use crate::net::Net;
use crate::process::procs::{self, Awaited, describe};
use crate::runs::demo::Pair;
use crate::runs::etcd::EtcdNet;

/// Longer than the lease.
const STOPPED_FOR: Duration = Duration::from_secs(15);
/// How long somebody takes, after all is said to be well again, to see that two hosts sign.
const UNNOTICED_FOR: Duration = Duration::from_secs(5);
const STEADY_SIGNATURES: usize = 12;
const STEADY_BOUND: Duration = Duration::from_secs(20);
const END_BOUND: Duration = Duration::from_secs(5);

impl Contender for EtcdNet {
    fn name(&self) -> &'static str {
        "etcd-lock"
    }

    fn net(&self) -> &Net {
        &self.net
    }

    fn await_steady(&self) -> Result<Pair> {
        let pair = self.await_ready()?;
        Watch::begin(&self.net)?.await_by(&pair.holder, STEADY_SIGNATURES, STEADY_BOUND)?;
        Ok(pair)
    }

    fn strike(&self, fault: Fault, pair: &Pair, watch: &mut Watch) -> Result<Duration> {
        let holder = pair.holder.as_str();
        match fault {
            Fault::Host => {
                let targets = self.of_host(holder);
                let at = watch.now_ns();
                faults::kill_host(&self.net, holder, &targets)?;
                gap_since(watch, at, holder)
            }
            Fault::Node => {
                let targets = faults::find(&self.net, holder, What::Node)?;
                let at = watch.now_ns();
                faults::kill(&targets)?;
                gap_since(watch, at, holder)
            }
            Fault::Handover => self.hand_over(holder, watch),
            Fault::CoordinatorStop => {
                let targets = faults::find(&self.net, holder, What::Coordinator)?;
                let (at, stopped) = (watch.now_ns(), Instant::now());
                procs::signal(&targets, Signal::STOP)?;
                let gap = gap_since(watch, at, holder);
                std::thread::sleep(STOPPED_FOR.saturating_sub(stopped.elapsed()));
                procs::signal(&targets, Signal::CONT)?;
                self.notice(holder)?;
                gap
            }
            Fault::CoordinatorKill => {
                let targets = faults::find(&self.net, holder, What::Coordinator)?;
                let at = watch.now_ns();
                faults::kill(&targets)?;
                let gap = gap_since(watch, at, holder);
                self.notice(holder)?;
                gap
            }
            Fault::Cut | Fault::CutIn | Fault::Cut20 | Fault::SlowFollower => {
                bail!("members of etcd reach each other without the proxies: there is nothing to cut")
            }
            Fault::SignerKill => bail!("etcdctl lock has no signer"),
            Fault::StandbyHost => bail!("etcdctl lock is measured by what its holder loses"),
            Fault::ArbiterHost | Fault::CoordinatorStop20 | Fault::HostStop => {
                bail!("{} is measured where the log decides what is signed", fault.name())
            }
            Fault::NodeStop | Fault::GuardAndNodeStop => bail!("etcdctl lock looks at no chain node and has no guard"),
            Fault::HostSyncs90 | Fault::HostSyncs200 => bail!("etcd's syncs cannot be made slow"),
        }
    }

    fn await_recovered(&self) -> Result<()> {
        self.await_ready().map(drop)
    }

    fn with_diagnosis(&self, result: Result<Round>) -> Result<Round> {
        EtcdNet::with_diagnosis(self, result)
    }
}

impl EtcdNet {
    /// From the last signature of `holder` to the first of another. The service is stopped as service managers do
    /// it, every process of it by SIGTERM: etcdctl alone pays no heed to it while its command runs.
    fn hand_over(&self, holder: &str, watch: &mut Watch) -> Result<Duration> {
        watch.await_by(holder, 1, SIGN_BOUND)?;
        let at = watch.now_ns();
        self.stop_service(holder)?;
        let first = watch.await_next(at, holder, SIGN_BOUND)?;
        watch.pause_before(holder, &first).with_context(|| format!("{holder} signed nothing before the handover"))
    }

    /// After a while somebody finds the chain node of the host that has lost the lock, if it is still there, and
    /// stops it.
    fn notice(&self, host: &str) -> Result<()> {
        std::thread::sleep(UNNOTICED_FOR);
        let left = faults::of_host(&self.net, host, What::Node);
        if !left.is_empty() {
            eprintln!("bench: {host} has lost the lock and still runs {}", describe(&left));
        }
        self.stop_service(host)
    }

    fn stop_service(&self, host: &str) -> Result<()> {
        let service = self.service(host);
        let awaited = Awaited::new(&service);
        procs::signal(&service, Signal::TERM)?;
        if !awaited.ended_within(END_BOUND) {
            bail!("SIGTERM: not all of {} ended within {END_BOUND:?}", describe(&service));
        }
        Ok(())
    }
}
