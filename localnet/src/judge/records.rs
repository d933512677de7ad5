//! What the members' own records say of a stretch of time: every decision is made once more, and all of them together are
//! held against the rules of the safety argument.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use baton::base::time::BootTime;
use baton::record::{self, Clocks, Pieces, Replay};
use baton::rules::cluster::Signed;

use crate::judge::measure;
use crate::net::Net;

/// A record is written twice a second, by a thread that may be late.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Wall clocks of files are coarse.
const COARSE: Duration = Duration::from_secs(1);

/// Since when records are judged.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    boot: BootTime,
    file: SystemTime,
}

impl Since {
    pub fn now() -> Since {
        Since { boot: BootTime::now(), file: SystemTime::now() - COARSE }
    }
}

/// What the records of all members come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Decisions that were made once more.
    pub replayed: u64,
    /// Those that came out otherwise.
    pub differences: Vec<String>,
    /// Rules that were broken.
    pub broken: Vec<String>,
}

impl Findings {
    pub fn failure(&self) -> Option<String> {
        let Findings { replayed, differences, broken } = self;
        (!differences.is_empty() || !broken.is_empty()).then(|| {
            let first = |all: &[String]| all.first().map_or(String::new(), |first| format!(", the first: {first}"));
            format!(
                "{} of {replayed} decisions differ{}; rules were broken {} times{}",
                differences.len(),
                first(differences),
                broken.len(),
                first(broken),
            )
        })
    }
}

/// Judges what happened from `since` until now. Each member runs. Signatures count where they are given: none after a
/// fault that keeps a record from being written.
///
/// # Errors
/// A record cannot be read, or does not get as far as now.
pub fn judge(net: &Net, since: Since, signed: &[measure::Signed]) -> Result<Findings> {
    let until = BootTime::now();
    let ids = net.hosts.iter().map(|host| host.id.as_str());
    let members = ids.map(|id| replay(net, id, since, until)).collect::<Result<Vec<Replay>>>()?;
    let mut findings = Findings::default();
    for member in &members {
        findings.replayed += member.replayed;
        let new = member.differences.iter().filter(|difference| difference.at.boot >= since.boot);
        findings.differences.extend(new.map(|difference| difference.text.clone()));
        let new = member.observed.breaches().iter().filter(|breach| breach.at >= since.boot);
        findings.broken.extend(new.map(ToString::to_string));
    }
    let signed: Vec<Signed> = signed
        .iter()
        .map(|one| Signed { member: one.host.as_str().into(), height: one.height, at: BootTime::from_nanos(one.at_ns) })
        .collect();
    let observed: Vec<_> = members.iter().map(|member| &member.observed).collect();
    let together = record::merged(&observed, Clocks::OneKernel, &signed);
    let new = together.breaches.iter().filter(|breach| breach.at >= since.boot);
    findings.broken.extend(new.map(ToString::to_string));
    Ok(findings)
}

/// The record of `id` as one file, which `baton replay` reads.
///
/// # Errors
/// It cannot be read or written.
pub fn keep(net: &Net, id: &str, file: &Path) -> Result<()> {
    let dir = net.state_dir(id).join(record::DIRECTORY);
    let bytes = record::read(&dir, SystemTime::UNIX_EPOCH).with_context(|| format!("read {}", dir.display()))?;
    fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
}

/// Once the record of `id` has got as far as `until`.
fn replay(net: &Net, id: &str, since: Since, until: BootTime) -> Result<Replay> {
    let dir = net.state_dir(id).join(record::DIRECTORY);
    let began = Instant::now();
    loop {
        let bytes = record::read(&dir, since.file).with_context(|| format!("read {}", dir.display()))?;
        // A head that is just being written is no record yet.
        if let Ok(pieces) = Pieces::read(&bytes) {
            let replay = record::replay(pieces);
            if replay.observed.last().is_some_and(|last| last.boot >= until) {
                return Ok(replay);
            }
        }
        if began.elapsed() > WRITTEN_WITHIN {
            bail!("the record of {id} in {} does not get on", dir.display());
        }
        sleep(LOOK_EVERY);
    }
}
