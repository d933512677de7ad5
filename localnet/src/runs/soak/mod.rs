//! Does baton stay small on a small host? A network runs for an hour, every host within one processor and 1 GiB, the
//! baton handed over now and then; memory, processor, open files, store and logs of every process are looked at
//! every few seconds, and what grows without bound fails the run. Called by the command line.

mod look;
mod report;
mod series;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::judge::check::check;
use crate::judge::status;
use crate::net::{Net, Shape};
use crate::process::launch::{self, with_diagnosis};
use crate::process::limits::{Confine, Confined, Size};
use crate::runs::bench::await_steady;
use crate::runs::demo::{await_pair, hand_over};
use look::{Figure, Looker};
pub use report::Report;
use series::Series;

const PROGRESS_EVERY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub during: Duration,
    pub every: Duration,
    /// Between two handovers; none when it is as long as the run.
    pub handover_every: Duration,
    pub confine: Confine,
    pub size: Size,
}

/// Brings a network up under `dir`, watches it and judges. Every sample is in `dir/soak.csv` at once.
///
/// # Errors
/// Something ended by itself, or could not be looked at. That something grows is no error but in the report.
pub fn run(dir: &Path, plan: &Plan) -> Result<Report> {
    let net = launch::prepare(dir, plan.shape)?;
    let confined = Confined::make(&net, plan.confine, plan.size)?;
    launch::start_confined(&net, &confined, |_| ())?;
    eprintln!("soak: {}; samples in {}", confined.describe(plan.size), dir.join("soak.csv").display());
    with_diagnosis(&net, soak(&net, plan, &confined))
}

fn soak(net: &Net, plan: &Plan, confined: &Confined) -> Result<Report> {
    await_steady(net)?;
    let epoch_before = status::query(net)?.epoch;
    let mut samples = Samples::new(net, 3600.0 / plan.handover_every.as_secs_f64())?;
    let (mut handovers, mut handover_at) = (0, plan.handover_every);
    let (begun, mut progress_at) = (Instant::now(), Duration::ZERO);
    for tick in 0.. {
        let due = plan.every * tick;
        if due > plan.during {
            break;
        }
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        samples.take(net, confined, begun.elapsed())?;
        if begun.elapsed() >= progress_at {
            progress_at += PROGRESS_EVERY;
            eprintln!("soak: {:.0} s, {handovers} handovers; {}", begun.elapsed().as_secs_f64(), samples.newest());
        }
        if begun.elapsed() >= handover_at && handover_at < plan.during {
            handover_at += plan.handover_every;
            hand_over(net, &await_pair(net, |_| ())?)?;
            handovers += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    // Whatever was lost has to be seen, also in the last moment.
    await_steady(net)?;
    let leases_lost = (status::query(net)?.epoch - epoch_before).saturating_sub(handovers);
    let (mut killed_for_memory, mut throttled) = (0, BTreeMap::new());
    for host in &net.hosts {
        if let Some(group) = confined.group(&host.id) {
            killed_for_memory += group.killed_for_memory()?;
            throttled.insert(host.id.clone(), group.throttled_periods()?);
        }
    }
    Ok(Report {
        seconds,
        limits: confined.describe(plan.size),
        handovers,
        leases_lost,
        killed_for_memory,
        throttled_periods: throttled,
        figures: samples.series.values().filter_map(Series::summary).collect(),
        clean: check(net)?.is_clean(),
    })
}

/// All that was seen, by host and figure, and in the file.
struct Samples {
    series: BTreeMap<(String, Figure), Series>,
    looker: Looker,
    file: File,
    handovers_per_hour: f64,
}

impl Samples {
    fn new(net: &Net, handovers_per_hour: f64) -> Result<Samples> {
        let path = net.dir.join("soak.csv");
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        writeln!(file, "seconds,host,figure,value").with_context(|| format!("write {}", path.display()))?;
        Ok(Samples { series: BTreeMap::new(), looker: Looker::default(), file, handovers_per_hour })
    }

    fn take(&mut self, net: &Net, confined: &Confined, now: Duration) -> Result<()> {
        for host in &net.hosts {
            let seen = self.looker.look(net, &host.id, confined, now)?;
            if !seen.iter().any(|(figure, _)| *figure == Figure::CoordinatorRss) {
                bail!("{}: its coordinator ended after {:.0} s", host.id, now.as_secs_f64());
            }
            for (figure, value) in seen {
                let (seconds, name) = (now.as_secs_f64(), figure.name());
                writeln!(self.file, "{seconds:.1},{},\"{name}\",{value:.3}", host.id).context("write soak.csv")?;
                let new = || Series {
                    host: host.id.clone(),
                    figure: name,
                    rule: figure.rule(self.handovers_per_hour),
                    samples: Vec::new(),
                };
                let series = self.series.entry((host.id.clone(), figure)).or_insert_with(new);
                series.samples.push((seconds, value));
            }
        }
        Ok(())
    }

    /// Memory of the coordinators and size of the stores, for whoever watches.
    fn newest(&self) -> String {
        let of = |figure: Figure| {
            let all = self.series.iter().filter(|((_, of), _)| *of == figure);
            let values = all.filter_map(|(_, series)| Some(format!("{:.1}", series.samples.last()?.1)));
            values.collect::<Vec<_>>().join("/")
        };
        format!("coordinators {} MiB, stores {} MiB", of(Figure::CoordinatorRss), of(Figure::StateDir))
    }
}
