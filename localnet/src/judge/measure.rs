//! Watches the signatures of the shared key as they are made, by whichever host, and measures pauses between
//! them. The stand-in chain has one log of its own for that; of CometBFT, the nodes of the hosts log what they sign.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::base::time::{BootTime, WallTime};
use serde_json::Value;

use crate::chains::cometbft;
use crate::judge::signlog::{self, KeyReport, Signature};
use crate::judge::votelog::{self, Vote};
use crate::net::http;
use crate::net::{ChainKind, Net};

const LOG_EVERY: Duration = Duration::from_millis(20);

/// One signature of the shared key.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    pub host: String,
    pub height: u64,
    /// On the clock of [`Watch::now_ns`].
    pub at_ns: u64,
}

/// Times in which nobody signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silences {
    pub longest: Duration,
    /// That which lasts until now.
    pub present: Duration,
}

/// Everything that the shared key signed since the watch began.
pub struct Watch<'a> {
    net: &'a Net,
    source: Source,
    seen: Vec<Signed>,
}

enum Source {
    Signatures { log: Tail, seen: Vec<Signature> },
    Votes { logs: Vec<(String, Tail)>, seen: Vec<Vote> },
}

/// The whole lines that are appended to a file.
struct Tail {
    path: PathBuf,
    file: File,
    torn: String,
}

impl Tail {
    /// From the present end of the file on. Every line is one write, so that is the end of a line.
    fn begin(path: &Path) -> Result<Tail> {
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        file.seek(SeekFrom::End(0)).with_context(|| format!("seek in {}", path.display()))?;
        Ok(Tail { path: path.into(), file, torn: String::new() })
    }

    fn read(&mut self) -> Result<String> {
        let mut fresh = Vec::new();
        self.file.read_to_end(&mut fresh).with_context(|| format!("read {}", self.path.display()))?;
        self.torn.push_str(&String::from_utf8_lossy(&fresh));
        Ok(self.torn.rfind('\n').map(|end| self.torn.drain(..=end).collect()).unwrap_or_default())
    }
}

impl<'a> Watch<'a> {
    pub fn begin(net: &'a Net) -> Result<Watch<'a>> {
        let source = match net.chain {
            ChainKind::Sim => Source::Signatures { log: Tail::begin(&net.sign_log())?, seen: Vec::new() },
            ChainKind::Cometbft => {
                let logs = net.signers().map(|host| Ok((host.id.clone(), Tail::begin(&net.node_log(&host.id))?)));
                Source::Votes { logs: logs.collect::<Result<_>>()?, seen: Vec::new() }
            }
        };
        Ok(Watch { net, source, seen: Vec::new() })
    }

    /// Now on the clock by which signatures are stamped.
    pub fn now_ns(&self) -> u64 {
        match self.source {
            Source::Signatures { .. } => BootTime::now().as_nanos(),
            Source::Votes { .. } => WallTime::now().as_nanos(),
        }
    }

    /// The checker's word on what was seen; `None` when that is nothing.
    pub fn report(&self) -> Option<KeyReport> {
        match &self.source {
            Source::Signatures { seen, .. } => signlog::check(seen).keys.remove(&self.net.shared_key),
            Source::Votes { seen, .. } => (!seen.is_empty()).then(|| votelog::check(seen, self.net.custody)),
        }
    }

    /// All that was signed so far, as of the last look.
    pub fn signatures(&self) -> &[Signed] {
        &self.seen
    }

    /// Takes in what was signed meanwhile.
    pub fn poll(&mut self) -> Result<()> {
        match &mut self.source {
            Source::Signatures { log, seen } => {
                for line in log.read()?.lines() {
                    let signature: Signature =
                        line.parse().map_err(anyhow::Error::msg).with_context(|| format!("signature log: {line:?}"))?;
                    if signature.key == self.net.shared_key {
                        let (host, at_ns) = (signature.host.clone(), signature.at.as_nanos());
                        self.seen.push(Signed { host, height: signature.height, at_ns });
                        seen.push(signature);
                    }
                }
            }
            Source::Votes { logs, seen } => {
                for (host, log) in logs {
                    for line in log.read()?.lines() {
                        let Some(vote) = votelog::parse(host, line).map_err(anyhow::Error::msg)? else { continue };
                        let (height, at_ns) = (vote.place.height, vote.at.as_nanos());
                        self.seen.push(Signed { host: host.clone(), height, at_ns });
                        seen.push(vote);
                    }
                }
            }
        }
        Ok(())
    }

    /// The first signature after `at_ns` that is not by `not_host`.
    ///
    /// # Errors
    /// There was none within `bound`; says what was signed instead.
    pub fn await_next(&mut self, at_ns: u64, not_host: &str, bound: Duration) -> Result<Signed> {
        let deadline = Instant::now() + bound;
        loop {
            self.poll()?;
            let others = self.seen.iter().filter(|s| s.at_ns > at_ns && s.host != not_host);
            if let Some(first) = others.min_by_key(|s| s.at_ns) {
                return Ok(first.clone());
            }
            if Instant::now() > deadline {
                let own = self.seen.iter().filter(|s| s.at_ns > at_ns).count();
                bail!("no other host signed within {bound:?}; {not_host} itself signed {own} times meanwhile");
            }
            std::thread::sleep(LOG_EVERY);
        }
    }

    /// `host` has signed `times` since the watch began.
    pub fn await_by(&mut self, host: &str, times: usize, bound: Duration) -> Result<()> {
        let deadline = Instant::now() + bound;
        loop {
            let by_host = self.seen.iter().filter(|s| s.host == host).count();
            if by_host >= times {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{host} signed {by_host} times within {bound:?}, not {times}");
            }
            std::thread::sleep(LOG_EVERY);
            self.poll()?;
        }
    }

    /// `host` has signed `times` more than it had by now.
    pub fn await_more_by(&mut self, host: &str, times: usize, bound: Duration) -> Result<()> {
        self.poll()?;
        let so_far = self.seen.iter().filter(|s| s.host == host).count();
        self.await_by(host, so_far + times, bound)
    }

    /// Between one signature, by whichever host, and the next.
    pub fn longest_pause(&self) -> Option<Duration> {
        let mut times: Vec<u64> = self.seen.iter().map(|s| s.at_ns).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| Duration::from_nanos(pair[1] - pair[0])).max()
    }

    /// Since `from_ns`, which is no signature. As of the last poll.
    pub fn silences_since(&self, from_ns: u64) -> Silences {
        let now_ns = self.now_ns().max(from_ns);
        let mut times: Vec<u64> = self.seen.iter().map(|s| s.at_ns).filter(|at| *at > from_ns).collect();
        times.push(from_ns);
        times.sort_unstable();
        let present = Duration::from_nanos(now_ns.saturating_sub(times[times.len() - 1]));
        let between = times.windows(2).map(|pair| Duration::from_nanos(pair[1] - pair[0])).max();
        Silences { longest: between.unwrap_or_default().max(present), present }
    }

    /// Whether anybody but `host` has signed since `from_ns`.
    pub fn others_signed_since(&self, from_ns: u64, host: &str) -> bool {
        self.seen.iter().any(|s| s.at_ns > from_ns && s.host != host)
    }

    /// From the last signature of `old` before `first` to `first`, by another host.
    pub fn pause_before(&self, old: &str, first: &Signed) -> Option<Duration> {
        let by_old = self.seen.iter().filter(|s| s.host == old && s.at_ns < first.at_ns);
        by_old.map(|s| s.at_ns).max().map(|last| Duration::from_nanos(first.at_ns - last))
    }
}

/// Heights from `from` up to and without `to` that the shared validator did not sign: by the commits of CometBFT, and
/// by the signature log of the stand-in chain, where a height is a slot.
pub fn missed_blocks(net: &Net, from: u64, to: u64) -> Result<usize> {
    match net.chain {
        ChainKind::Sim => {
            let ours = signlog::read(&net.sign_log())?.into_iter().filter(|one| one.key == net.shared_key);
            let signed: BTreeSet<u64> = ours.map(|one| one.height).collect();
            Ok((from..to).filter(|height| !signed.contains(height)).count())
        }
        ChainKind::Cometbft => missed_commits(net, from, to),
    }
}

fn missed_commits(net: &Net, from: u64, to: u64) -> Result<usize> {
    let address = cometbft::shared_address(net)?;
    let mut missed = 0;
    for height in from..to {
        let answer = first_answer(net, &format!("/commit?height={height}"))?;
        missed += usize::from(!signed_commit(&answer, &address)?);
    }
    Ok(missed)
}

/// Height of the newest block that any chain node tells of.
pub fn head(net: &Net) -> Result<u64> {
    let status = first_answer(net, "/status")?;
    height_in(net.chain, &status).context("/status tells no height")
}

/// The height that the answer of a node's `/status` tells.
pub fn height_in(chain: ChainKind, status: &Value) -> Option<u64> {
    match chain {
        ChainKind::Sim => status["sync_info"]["latest_block_height"].as_u64(),
        ChainKind::Cometbft => status["result"]["sync_info"]["latest_block_height"].as_str()?.parse().ok(),
    }
}

/// The answer of the first genesis validator that gives one.
pub fn first_answer(net: &Net, path: &str) -> Result<Value> {
    let mut refusals = Vec::new();
    for validator in &net.validators {
        match http::get_json(validator.rpc(), path) {
            Ok(answer) => return Ok(answer),
            Err(error) => refusals.push(format!("{}: {error:#}", validator.id)),
        }
    }
    bail!("no genesis validator answers: {}", refusals.join("; "))
}

/// Whether `address` signed the commit in a /commit answer.
fn signed_commit(answer: &Value, address: &str) -> Result<bool> {
    const ABSENT: u64 = 1;
    let commit = &answer["result"]["signed_header"]["commit"];
    let signatures = commit["signatures"].as_array().with_context(|| format!("no commit in {answer}"))?;
    let own =
        |s: &Value| s["validator_address"].as_str() == Some(address) && s["block_id_flag"].as_u64() != Some(ABSENT);
    Ok(signatures.iter().any(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_validator_that_is_absent_from_a_commit_missed_it() {
        let answer = |flag: u64| {
            json!({"result": {"signed_header": {"commit": {"signatures": [
                {"block_id_flag": 2, "validator_address": "OTHER"},
                {"block_id_flag": flag, "validator_address": "OURS"},
            ]}}}})
        };
        assert!(signed_commit(&answer(2), "OURS").unwrap());
        assert!(!signed_commit(&answer(1), "OURS").unwrap());
        assert!(signed_commit(&json!({"error": 1}), "OURS").is_err());
    }
}
