//! Watches the signatures of the shared key as they are made, and measures pauses between them. The
//! stand-in chain's log names the host and the time of every signature. CometBFT leaves the precommits
//! in its blocks, with the signer's wall clock and without a host: there a move shows as a pause.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::time::{BootTime, WallTime};
use serde_json::Value;

use crate::net::{ChainKind, Net};
use crate::signlog::Signature;
use crate::simchain::genesis::parse_rfc3339;
use crate::{chain_cometbft, http};

const LOG_EVERY: Duration = Duration::from_millis(20);
const BLOCKS_EVERY: Duration = Duration::from_millis(100);

/// One signature of the shared key.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// `None` where the chain does not tell.
    pub host: Option<String>,
    pub height: u64,
    /// On the clock of [`Watch::now_ns`].
    pub at_ns: u64,
}

/// Everything that the shared key signed since the watch began.
pub struct Watch<'a> {
    net: &'a Net,
    source: Source,
    seen: Vec<Signed>,
    /// As the log has them; empty for CometBFT.
    logged: Vec<Signature>,
}

enum Source {
    Log { file: File, torn: String },
    Blocks { address: String, next: u64 },
}

impl<'a> Watch<'a> {
    pub fn begin(net: &'a Net) -> Result<Watch<'a>> {
        let source = match net.chain {
            ChainKind::Sim => {
                let mut file =
                    File::open(net.sign_log()).with_context(|| format!("open {}", net.sign_log().display()))?;
                file.seek(SeekFrom::End(0)).context("seek in the signature log")?;
                // Every line is one write, so the end of the file is the end of a line.
                Source::Log { file, torn: String::new() }
            }
            ChainKind::Cometbft => {
                let next = head(net)?.saturating_sub(2).max(1);
                Source::Blocks { address: chain_cometbft::shared_address(net)?, next }
            }
        };
        Ok(Watch { net, source, seen: Vec::new(), logged: Vec::new() })
    }

    /// Now on the clock by which signatures are stamped.
    pub fn now_ns(&self) -> u64 {
        match self.source {
            Source::Log { .. } => BootTime::now().as_nanos(),
            Source::Blocks { .. } => WallTime::now().as_nanos(),
        }
    }

    pub fn logged(&self) -> &[Signature] {
        &self.logged
    }

    /// Takes in what was signed meanwhile.
    pub fn poll(&mut self) -> Result<()> {
        match &mut self.source {
            Source::Log { file, torn } => {
                let mut fresh = Vec::new();
                file.read_to_end(&mut fresh).context("read the signature log")?;
                torn.push_str(&String::from_utf8_lossy(&fresh));
                let Some(end) = torn.rfind('\n') else { return Ok(()) };
                let whole: String = torn.drain(..=end).collect();
                for line in whole.lines() {
                    let signature: Signature =
                        line.parse().map_err(anyhow::Error::msg).with_context(|| format!("signature log: {line:?}"))?;
                    if signature.key == self.net.shared_key {
                        let (host, at_ns) = (Some(signature.host.clone()), signature.at.as_nanos());
                        self.seen.push(Signed { host, height: signature.height, at_ns });
                        self.logged.push(signature);
                    }
                }
            }
            Source::Blocks { address, next } => {
                // The commit of the newest block is still growing.
                let complete = head(self.net)?.saturating_sub(1);
                while *next <= complete {
                    let answer = first_answer(self.net, &format!("/commit?height={next}"))?;
                    if let Some(at_ns) = precommit_time(&answer, address)? {
                        self.seen.push(Signed { host: None, height: *next, at_ns });
                    }
                    *next += 1;
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
            let others = self.seen.iter().filter(|s| s.at_ns > at_ns && s.host.as_deref() != Some(not_host));
            if let Some(first) = others.min_by_key(|s| s.at_ns) {
                return Ok(first.clone());
            }
            if Instant::now() > deadline {
                let own = self.seen.iter().filter(|s| s.at_ns > at_ns).count();
                bail!("no other host signed within {bound:?}; {not_host} itself signed {own} times meanwhile");
            }
            self.pause();
        }
    }

    /// `host` has signed `times` since the watch began. Where hosts are not told: anyone has.
    pub fn await_by(&mut self, host: &str, times: usize, bound: Duration) -> Result<()> {
        let deadline = Instant::now() + bound;
        loop {
            let by_host = self.seen.iter().filter(|s| s.host.as_deref().is_none_or(|by| by == host)).count();
            if by_host >= times {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{host} signed {by_host} times within {bound:?}, not {times}");
            }
            self.pause();
            self.poll()?;
        }
    }

    fn pause(&self) {
        std::thread::sleep(match self.source {
            Source::Log { .. } => LOG_EVERY,
            Source::Blocks { .. } => BLOCKS_EVERY,
        });
    }

    /// From the last signature of `old` before `first` to `first`, by another host. Where hosts are not
    /// told: the longest pause up to `first`.
    pub fn pause_before(&self, old: &str, first: &Signed) -> Option<Duration> {
        let mut before: Vec<u64> = self.seen.iter().filter(|s| s.at_ns < first.at_ns).map(|s| s.at_ns).collect();
        if first.host.is_some() {
            let by_old = self.seen.iter().filter(|s| s.host.as_deref() == Some(old) && s.at_ns < first.at_ns);
            return by_old.map(|s| s.at_ns).max().map(|last| Duration::from_nanos(first.at_ns - last));
        }
        before.push(first.at_ns);
        before.sort_unstable();
        before.windows(2).map(|w| w[1] - w[0]).max().map(Duration::from_nanos)
    }
}

/// Height of the newest block that any chain node tells of.
pub fn head(net: &Net) -> Result<u64> {
    let status = first_answer(net, "/status")?;
    let text = status["result"]["sync_info"]["latest_block_height"].as_str().context("/status tells no height")?;
    text.parse().with_context(|| format!("height {text:?}"))
}

/// The answer of the first genesis validator that gives one.
pub fn first_answer(net: &Net, path: &str) -> Result<Value> {
    let mut refusals = Vec::new();
    for validator in &net.validators {
        match http::get_json(validator.rpc_port, path) {
            Ok(answer) => return Ok(answer),
            Err(error) => refusals.push(format!("{}: {error:#}", validator.id)),
        }
    }
    bail!("no genesis validator answers: {}", refusals.join("; "))
}

/// When `address` signed the commit in a /commit answer; `None` when it did not.
pub fn precommit_time(answer: &Value, address: &str) -> Result<Option<u64>> {
    const ABSENT: u64 = 1;
    let commit = &answer["result"]["signed_header"]["commit"];
    let signatures = commit["signatures"].as_array().with_context(|| format!("no commit in {answer}"))?;
    let own =
        |s: &&Value| s["validator_address"].as_str() == Some(address) && s["block_id_flag"].as_u64() != Some(ABSENT);
    let Some(signature) = signatures.iter().find(own) else { return Ok(None) };
    let text = signature["timestamp"].as_str().context("a commit signature without a timestamp")?;
    let time = parse_rfc3339(text).with_context(|| format!("commit timestamp {text:?}"))?;
    Ok(Some(time.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_absent_signature_has_no_time() {
        let answer = |flag: u64| {
            json!({"result": {"signed_header": {"commit": {"signatures": [
                {"block_id_flag": 2, "validator_address": "OTHER", "timestamp": "2026-01-01T00:00:00.5Z"},
                {"block_id_flag": flag, "validator_address": "OURS", "timestamp": "1970-01-01T00:00:01.5Z"},
            ]}}}})
        };
        assert_eq!(precommit_time(&answer(2), "OURS").unwrap(), Some(1_500_000_000));
        assert_eq!(precommit_time(&answer(1), "OURS").unwrap(), None);
        assert!(precommit_time(&json!({"error": 1}), "OURS").is_err());
    }
}
