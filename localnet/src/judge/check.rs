//! The verdict on a network: did two hosts ever sign at once, was a height signed twice, does the chain
//! hold evidence. Reads the signature log and asks the chain nodes; knows nothing of baton.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::chains::cometbft;
use crate::hosts::clock;
use crate::judge::measure;
use crate::judge::signers::{self, Wrong};
use crate::judge::signlog::{self, Breach, KeyReport, Report};
use crate::judge::votelog;
use crate::net::http;
use crate::net::{ChainKind, ChainNode, Custody, Net};

#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// By host; of CometBFT also those in the blocks of the chain.
    pub signatures: BTreeMap<String, usize>,
    /// Messages signed at a height that the key had signed before.
    pub doubles: usize,
    /// Signatures of one host between those of another.
    pub overlap: usize,
    /// Signatures below a height that the key had signed before.
    pub out_of_order: usize,
    /// Pieces of evidence, the most that any chain node holds.
    pub evidence: usize,
    /// Without what is known from evidence alone.
    pub breach: Breach,
    pub examples: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.doubles == 0 && self.overlap == 0 && self.out_of_order == 0 && self.evidence == 0
    }

    /// What was violated, by whom and where, in one line; `None` when nothing was.
    pub fn failure(&self) -> Option<String> {
        if self.is_clean() {
            None
        } else if self.breach.hosts.is_empty() {
            Some(format!("the chain holds {} pieces of evidence, though the hosts logged no violation", self.evidence))
        } else {
            Some(self.breach.to_string())
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (host, count) in &self.signatures {
            writeln!(f, "{host:<12} {count:>8} signatures")?;
        }
        writeln!(f, "double signatures: {}", self.doubles)?;
        writeln!(f, "overlapping signatures: {}", self.overlap)?;
        writeln!(f, "signatures out of order: {}", self.out_of_order)?;
        writeln!(f, "evidence on chain: {}", self.evidence)?;
        self.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))?;
        f.write_str(if self.is_clean() { "clean" } else { "VIOLATED" })?;
        f.write_char('\n')
    }
}

/// Judges everything signed since the network was started.
///
/// # Errors
/// There is nothing to judge, or nobody to ask for evidence: no verdict is not a clean one.
pub fn check(net: &Net) -> Result<Verdict> {
    match net.chain {
        ChainKind::Sim => check_sim(net),
        ChainKind::Cometbft => check_cometbft(net),
    }
}

fn check_sim(net: &Net) -> Result<Verdict> {
    let mut log = signlog::read(&net.sign_log())?;
    log.retain(|signature| signature.key == net.shared_key);
    let report: Report = signlog::check(&log);
    let Some(KeyReport { signatures, doubles, overlap, out_of_order, breach, examples }) =
        report.keys.get(&net.shared_key).cloned()
    else {
        bail!("{} has no signature of the shared key: nothing to judge", net.sign_log().display());
    };
    let mut verdict = Verdict { signatures, doubles, overlap, out_of_order, evidence: 0, breach, examples };
    let mut refusals = Vec::new();
    let nodes = net.chain_nodes();
    for ChainNode { name, rpc, .. } in &nodes {
        match http::get_json(*rpc, "/evidence") {
            Ok(answer) => {
                let list = answer["evidence"].as_array().with_context(|| format!("{name}: no list of evidence"))?;
                if !list.is_empty() {
                    verdict.examples.push(format!("evidence at {name}: {}", list[0]));
                }
                verdict.evidence = verdict.evidence.max(list.len());
            }
            Err(error) => refusals.push(format!("{name}: {error:#}")),
        }
    }
    if refusals.len() == nodes.len() {
        bail!("no chain node tells its evidence: {}", refusals.join("; "));
    }
    verdict.examples.extend(refusals.into_iter().map(|refusal| format!("not asked for evidence: {refusal}")));
    Ok(verdict)
}

/// What the hosts' nodes signed by their logs; and the chain's own word: two votes of one key at one step are
/// evidence, put into a block by any validator that saw both.
fn check_cometbft(net: &Net) -> Result<Verdict> {
    let address = cometbft::shared_address(net)?;
    let KeyReport { signatures, doubles, overlap, out_of_order, breach, examples } =
        votelog::check(&votelog::read(net)?, net.custody);
    let mut verdict = Verdict { signatures, doubles, overlap, out_of_order, evidence: 0, breach, examples };
    add_signers(net, &mut verdict)?;
    let head = measure::head(net)?;
    let found = evidence_on_cometbft(net, 1..head + 1)?;
    verdict.evidence = found.len();
    verdict.examples.extend(found);
    let signed = (head as usize).saturating_sub(1) - measure::missed_blocks(net, 1, head)?;
    if signed == 0 {
        bail!("no block carries a signature of the shared validator {address}: nothing to judge");
    }
    verdict.signatures.insert("on chain".into(), signed);
    Ok(verdict)
}

/// What the hosts' signers made, whether or not any node got it.
fn add_signers(net: &Net, verdict: &mut Verdict) -> Result<()> {
    let made = signers::read(net)?;
    if net.custody == Custody::Signer && clock::is_installed(net) && made.is_empty() {
        bail!("nothing of what the signers made is on record: nothing to judge");
    }
    if !made.is_empty() {
        verdict.signatures.insert("all signers".into(), made.len());
    }
    let found = [(signers::doubles(&made), &mut verdict.doubles), (signers::stale(&made), &mut verdict.out_of_order)];
    for (found, count) in found {
        *count += found.len();
        for Wrong { hosts: [one, other], height, what } in found {
            verdict.breach.add([&one, &other], height);
            verdict.examples.push(what);
        }
    }
    Ok(())
}

/// Evidence in the blocks of these heights, in words, by every chain node: each has its own copy of the chain.
/// A node that is behind tells of the blocks that it has.
///
/// # Errors
/// No node has one of the blocks.
pub fn evidence_on_cometbft(net: &Net, heights: Range<u64>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for height in heights {
        let mut told = false;
        for ChainNode { name, rpc, .. } in net.chain_nodes() {
            let Ok(answer) = http::get_json(rpc, &format!("/block?height={height}")) else { continue };
            let block = &answer["result"]["block"];
            told |= block.is_object();
            match &block["evidence"]["evidence"] {
                Value::Null => {}
                Value::Array(list) => {
                    found.extend(list.iter().map(|one| format!("evidence in block {height} of {name}: {one}")))
                }
                other => bail!("block {height} of {name}: evidence is no list: {other}"),
            }
        }
        if !told {
            bail!("no chain node has block {height}");
        }
    }
    Ok(found)
}
