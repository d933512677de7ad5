//! How far a block's time may be ahead of the time at which it was made, by the chain's own rule: with proposer-based
//! timestamps (CometBFT 1.0), validators accept a block whose time is ahead of their own clocks by up to
//! `synchrony.precision`. Read from the genesis file, of which an upgrade of the chain may have changed the parameters
//! since. Without that rule, block times are a median of the validators' clocks, and nothing bounds them that could be
//! read here.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::host::chain::DriverError;

/// In the place of CometBFT or of the Cosmos SDK. The file can be large.
#[derive(Deserialize)]
struct Genesis {
    consensus_params: Option<Params>,
    consensus: Option<Consensus>,
}

#[derive(Deserialize)]
struct Consensus {
    params: Option<Params>,
}

#[derive(Deserialize)]
struct Params {
    synchrony: Option<Synchrony>,
    feature: Option<Feature>,
}

#[derive(Deserialize)]
struct Synchrony {
    precision: Option<Value>,
}

#[derive(Deserialize)]
struct Feature {
    pbts_enable_height: Option<Value>,
}

#[derive(Deserialize)]
struct Named {
    chain_id: Option<String>,
}

/// Which chain it begins.
pub fn chain_id(path: &Path) -> Result<String, DriverError> {
    let failed = |error: String| DriverError::file("read the chain_id of", path, error);
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let named: Named = serde_json::from_reader(BufReader::new(file)).map_err(|error| failed(error.to_string()))?;
    named.chain_id.filter(|id| !id.is_empty()).ok_or_else(|| failed("it names none".to_owned()))
}

/// `None` when the file is not there, or says no such rule.
fn precision(path: &Path) -> Result<Option<Duration>, DriverError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DriverError::file("read", path, error)),
    };
    let genesis: Genesis = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| DriverError::file("read the consensus parameters of", path, error))?;
    let params = genesis.consensus_params.or_else(|| genesis.consensus?.params);
    Ok(params.and_then(|params| {
        let enabled_at = params.feature?.pbts_enable_height?;
        let is_enabled = !matches!(text(&enabled_at).as_str(), "" | "0");
        duration(&text(&params.synchrony?.precision?)).filter(|_| is_enabled)
    }))
}

/// A number may stand there as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Nanoseconds, or seconds with an `s` as the Cosmos SDK writes them.
fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix('s') {
        Some(secs) => Duration::try_from_secs_f64(secs.parse().ok()?).ok(),
        None => text.parse().ok().map(Duration::from_nanos),
    }
}

/// What an operator should know of `clock_skew`, if anything. Blocking.
pub fn clock_skew_warning(clock_skew: Duration, genesis: &Path) -> Result<Option<String>, DriverError> {
    let precision = precision(genesis)?.filter(|precision| *precision > clock_skew);
    Ok(precision.map(|precision| {
        format!(
            "chain.clock_skew = {clock_skew:?} is less than the {precision:?} by which {} lets a block's time be ahead \
             (consensus parameter synchrony.precision): after a failover, a block of before the lease could pass for a later \
             one; set it to {}ms or more",
            genesis.display(),
            precision.as_nanos().div_ceil(1_000_000)
        )
    }))
}
