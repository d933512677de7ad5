//! One binary that is being brought into its place, on a thread of its own at the lowest priority: the chain node runs
//! on, and nothing about a holder waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::News;
use crate::base::ids::UpgradeName;
use crate::core::upgrades::{BinaryReport, UpgradeReport};
use crate::host::upgrade::{Source, Upgrades};

const NICE: i32 = 19;
/// Between two reports of progress, which gossip carries to every member.
const REPORT_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Obtaining {
    pub(super) name: UpgradeName,
    pub(super) source: String,
    wanted: Arc<AtomicBool>,
}

impl Obtaining {
    /// `Obtained` follows, always.
    pub(super) fn start(
        upgrades: Upgrades,
        name: UpgradeName,
        source: String,
        by_plan: bool,
        report: watch::Sender<Option<UpgradeReport>>,
        news: mpsc::UnboundedSender<News>,
    ) -> Obtaining {
        let wanted = Arc::new(AtomicBool::new(true));
        let obtaining = Obtaining { name: name.clone(), source: source.clone(), wanted: wanted.clone() };
        let told = news.clone();
        let of = name.clone();
        let work = move || {
            // On Linux this changes this thread alone.
            let _ = setpriority_process(None, NICE);
            let mut report_at = Instant::now();
            let mut progress = |done: u64, total: Option<u64>| {
                if Instant::now() >= report_at {
                    report_at = Instant::now() + REPORT_EVERY;
                    report.send_modify(|report| {
                        if let Some(report) = report {
                            report.binaries.insert(name.clone(), BinaryReport::Fetching { done, total });
                        }
                    });
                }
                wanted.load(Ordering::Relaxed)
            };
            let source = if by_plan { Source::Operator(&source) } else { Source::Chain(&source) };
            let outcome = upgrades.obtain(&name, source, &mut progress).map_err(|error| error.to_string());
            let _ = news.send(News::Obtained { name, outcome });
        };
        if let Err(error) = std::thread::Builder::new().name("obtain".into()).spawn(work) {
            let _ = told.send(News::Obtained { name: of, outcome: Err(format!("start a thread: {error}")) });
        }
        obtaining
    }

    pub(super) fn is_of(&self, name: &UpgradeName, source: &str) -> bool {
        self.name == *name && self.source == source
    }

    /// Nobody asks for it any more.
    pub(super) fn give_up(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}
