//! Does baton keep its lease on a busy host? Status is asked of the holder's coordinator at a fixed rate, its metrics
//! are scraped as fast as it answers, strangers flood every member with TLS handshakes that come to nothing, and busy
//! loops take all cores of the machine, on which the other hosts are too. Counts the moves that this causes; none is
//! the goal. Called by the command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::cluster::wire::proto::StatusRequest;
use baton::cluster::wire::proto::admin_client::AdminClient;
use serde::Serialize;
use tokio::sync::Semaphore;
use tonic::transport::{Channel, Endpoint};

use crate::judge::check::check;
use crate::judge::measure::Watch;
use crate::judge::status;
use crate::net::http;
use crate::net::{Net, Shape};
use crate::process::launch::{self, with_diagnosis};
use crate::runs::bench::await_steady;
use crate::runs::flood::Flood;

/// Calls that may wait for their answers; what is due beyond is not made.
const WAITING_MAX: usize = 256;
const CALL_BOUND: Duration = Duration::from_secs(3);
/// Calls are made in small batches.
const BATCH_EVERY: Duration = Duration::from_millis(5);
const REPORT_EVERY: Duration = Duration::from_secs(30);
const RECONNECT_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub during: Duration,
    pub calls_per_s: u64,
    pub busy_per_core: usize,
    /// Of strangers, at all members together.
    pub handshakes_per_s: u64,
}

/// What the load was and what it did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub seconds: f64,
    pub calls: u64,
    pub calls_per_s: f64,
    pub calls_failed: u64,
    pub call_ms_mean: f64,
    pub call_ms_max: f64,
    pub scrapes: u64,
    pub scrapes_per_s: f64,
    pub scrapes_failed: u64,
    /// Begun by strangers.
    pub handshakes: u64,
    pub handshakes_per_s: f64,
    /// Of these, those that the members ended under the load.
    pub handshakes_ended: u64,
    pub busy_loops: usize,
    /// Epochs that began under the load: every one is a lease lost.
    pub leases_lost: u64,
    /// Terms that began under the load, with or without a leader.
    pub terms: u64,
    /// The least time to the guard's deadline that the holder told in any answer.
    pub lease_ms_min: u64,
    /// Between two signatures of the shared key.
    pub pause_ms_max: f64,
    /// By the checker over the whole log.
    pub clean: bool,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.leases_lost == 0 && self.clean
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.0} s with {} busy loops", self.seconds, self.busy_loops)?;
        let Report { calls, calls_per_s, calls_failed, call_ms_mean, call_ms_max, .. } = self;
        writeln!(f, "status:  {calls} calls, {calls_per_s:.0} a second, {calls_failed} failed")?;
        writeln!(f, "         answered after {call_ms_mean:.1} ms on average, {call_ms_max:.0} ms at most")?;
        let Report { scrapes, scrapes_per_s, scrapes_failed, .. } = self;
        writeln!(f, "metrics: {scrapes} scrapes, {scrapes_per_s:.0} a second, {scrapes_failed} failed")?;
        let Report { handshakes, handshakes_per_s, handshakes_ended, .. } = self;
        writeln!(
            f,
            "strangers' TLS handshakes: {handshakes}, {handshakes_per_s:.0} a second, {handshakes_ended} ended by members"
        )?;
        writeln!(f, "least time to the guard's deadline: {} ms", self.lease_ms_min)?;
        writeln!(f, "longest pause between two signatures: {:.0} ms", self.pause_ms_max)?;
        writeln!(f, "leases lost: {}; terms begun: {}", self.leases_lost, self.terms)?;
        writeln!(f, "{}", if self.clean { "clean" } else { "VIOLATED" })
    }
}

/// Brings a network up under `dir` and puts its holder under load.
pub fn run(dir: &Path, plan: &Plan) -> Result<Report> {
    // Without a port under TLS there is no handshake.
    let shape = Shape { tls: plan.shape.tls || plan.handshakes_per_s > 0, ..plan.shape };
    let net = launch::up(dir, shape, |_| ())?;
    with_diagnosis(&net, load(&net, plan))
}

fn load(net: &Net, plan: &Plan) -> Result<Report> {
    await_steady(net)?;
    let before = status::query(net)?;
    let mut watch = Watch::begin(net)?;
    let busy_loops = plan.busy_per_core * thread::available_parallelism().context("count the cores")?.get();
    let tally = Arc::new(Tally::default());
    let begun = Instant::now();
    let strangers = {
        let flood = match plan.handshakes_per_s {
            0 => None,
            all => Some(Flood::begin(net, &net.hosts, all.div_ceil(net.hosts.len() as u64))?),
        };
        let _busy: Vec<Background> = (0..busy_loops).map(|_| Background::start(busy)).collect();
        while begun.elapsed() < plan.during {
            let Some(holder) = status::query(net).ok().and_then(|status| Some(status.active()?.id.clone())) else {
                thread::sleep(RECONNECT_AFTER);
                continue;
            };
            eprintln!("load: {holder} holds the baton, {:.0} s", begun.elapsed().as_secs_f64());
            let (metrics, counts) = (net.host(&holder)?.metrics(), tally.clone());
            let _scraper = Background::start(move |stop| scrape(metrics, &counts, stop));
            call(net, &holder, plan, begun, &tally)?;
        }
        flood.map(|flood| flood.counts()).unwrap_or_default()
    };
    let seconds = begun.elapsed().as_secs_f64();
    // Whatever was lost has to be seen, also in the last moment.
    await_steady(net)?;
    let after = status::query(net)?;
    let leases_lost = after.epoch - before.epoch;
    watch.poll()?;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (calls, scrapes) = (of(&tally.calls), of(&tally.scrapes));
    if calls == 0 {
        bail!("no status call was answered in {seconds:.0} s, {leases_lost} leases lost: there was no load to judge");
    }
    Ok(Report {
        seconds,
        calls,
        calls_per_s: calls as f64 / seconds,
        calls_failed: of(&tally.calls_failed),
        call_ms_mean: of(&tally.call_us_sum) as f64 / 1000.0 / calls.max(1) as f64,
        call_ms_max: of(&tally.call_us_max) as f64 / 1000.0,
        scrapes,
        scrapes_per_s: scrapes as f64 / seconds,
        scrapes_failed: of(&tally.scrapes_failed),
        handshakes: strangers.begun,
        handshakes_per_s: strangers.begun as f64 / seconds,
        handshakes_ended: strangers.ended,
        busy_loops,
        leases_lost,
        terms: after.term - before.term,
        lease_ms_min: of(&tally.lease_ms_min),
        pause_ms_max: watch.longest_pause().unwrap_or_default().as_secs_f64() * 1000.0,
        clean: check(net)?.is_clean(),
    })
}

/// What all calls and scrapes gave so far.
struct Tally {
    calls: AtomicU64,
    calls_failed: AtomicU64,
    call_us_sum: AtomicU64,
    call_us_max: AtomicU64,
    scrapes: AtomicU64,
    scrapes_failed: AtomicU64,
    lease_ms_min: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Tally {
            calls: zero(),
            calls_failed: zero(),
            call_us_sum: zero(),
            call_us_max: zero(),
            scrapes: zero(),
            scrapes_failed: zero(),
            lease_ms_min: AtomicU64::new(u64::MAX),
        }
    }
}

/// A thread that works until this is dropped.
struct Background {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Background {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        Background { stop, thread: Some(thread::spawn(move || work(&seen))) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("load: a thread panicked");
        }
    }
}

fn busy(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

fn scrape(metrics: SocketAddr, tally: &Tally, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match http::get(metrics, "/metrics") {
            Ok(_) => tally.scrapes.fetch_add(1, Ordering::Relaxed),
            Err(_) => {
                thread::sleep(RECONNECT_AFTER);
                tally.scrapes_failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

/// Asks `holder` for its status at the rate of the plan, until time is up or it says that it holds no more.
fn call(net: &Net, holder: &str, plan: &Plan, begun: Instant, tally: &Arc<Tally>) -> Result<()> {
    let socket = net.host(holder)?.run_dir.join("admin.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let Ok(admin) = connect(&socket).await else {
            // Its coordinator is ending, or too busy to answer: whoever holds the baton is looked for again.
            tally.calls_failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RECONNECT_AFTER).await;
            return Ok(());
        };
        let caller = Caller { admin, holder: holder.into(), tally: tally.clone() };
        let (places, moved) = (Arc::new(Semaphore::new(WAITING_MAX)), Arc::new(AtomicBool::new(false)));
        let (from, mut due, mut report_at) = (Instant::now(), 0, Instant::now() + REPORT_EVERY);
        while begun.elapsed() < plan.during && !moved.load(Ordering::Relaxed) {
            let by_now = (from.elapsed().as_secs_f64() * plan.calls_per_s as f64) as u64;
            for _ in due..by_now {
                let Ok(place) = places.clone().try_acquire_owned() else { break };
                let (caller, moved) = (caller.clone(), moved.clone());
                tokio::spawn(async move {
                    if !caller.call().await {
                        moved.store(true, Ordering::Relaxed);
                    }
                    drop(place);
                });
            }
            due = by_now;
            if Instant::now() > report_at {
                report_at += REPORT_EVERY;
                let (calls, least) = (&tally.calls, &tally.lease_ms_min);
                let (calls, least) = (calls.load(Ordering::Relaxed), least.load(Ordering::Relaxed));
                eprintln!("load: {:.0} s, {calls} calls, least lease {least} ms", begun.elapsed().as_secs_f64());
            }
            tokio::time::sleep(BATCH_EVERY).await;
        }
        // Those still on their way are given up with the runtime, and not counted.
        Ok(())
    })
}

async fn connect(socket: &Path) -> Result<AdminClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
    let channel = endpoint.timeout(CALL_BOUND).connect().await;
    Ok(AdminClient::new(channel.with_context(|| format!("connect to {}", socket.display()))?))
}

#[derive(Clone)]
struct Caller {
    admin: AdminClient<Channel>,
    holder: String,
    tally: Arc<Tally>,
}

impl Caller {
    /// False when the answer says that the baton has moved.
    async fn call(mut self) -> bool {
        let asked = Instant::now();
        let Ok(answer) = self.admin.status(StatusRequest {}).await else {
            self.tally.calls_failed.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        let (answer, took_us) = (answer.into_inner(), asked.elapsed().as_micros() as u64);
        self.tally.calls.fetch_add(1, Ordering::Relaxed);
        self.tally.call_us_sum.fetch_add(took_us, Ordering::Relaxed);
        self.tally.call_us_max.fetch_max(took_us, Ordering::Relaxed);
        let own = answer.members.iter().find(|member| member.id == self.holder);
        let active = own.filter(|own| own.phase == "Active");
        let left = active.map_or(0, |own| own.lease_remaining_ms.max(0) as u64);
        self.tally.lease_ms_min.fetch_min(left, Ordering::Relaxed);
        active.is_some()
    }
}
