//! What neard is asked besides `/status`, at the same address: its JSON-RPC and one of its metrics. None
//! of it proves anything about the key; it tells operators how the node does. It has a connection of its
//! own, so that no long answer holds up a probe.

use std::ops::Range;
use std::time::Duration;

use serde_json::{Value, json};

use crate::base::time::WallTime;
use crate::host::chain::http::{HttpClient, excerpt};
use crate::host::chain::{DriverError, OnChain, ProbeError, answer};

/// `validators` of a large chain and `/metrics` are some hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);
const METRICS_TIMEOUT: Duration = Duration::from_millis(400);

pub struct Rpc {
    client: HttpClient,
    /// Its answers are waited for while a floor is to be met, and in no queue.
    metrics: HttpClient,
    /// The path of `/status` without its last word.
    base: String,
}

impl Rpc {
    /// `url` is that of `/status`.
    pub fn new(url: &str) -> Result<Rpc, DriverError> {
        let client = HttpClient::new("chain.probe.url", url, TIMEOUT)?.reading_up_to(ANSWER_BYTES_MAX);
        let path = client.path().split('?').next().unwrap_or_default();
        let base = path.rsplit_once('/').map_or("/", |(folder, _)| folder).trim_end_matches('/').to_owned() + "/";
        let metrics = HttpClient::new("chain.probe.url", url, METRICS_TIMEOUT)?.reading_up_to(ANSWER_BYTES_MAX);
        Ok(Rpc { client, metrics, base })
    }

    /// What the chain counts of `account` in the present epoch.
    pub async fn on_chain(&self, account: &str) -> Result<OnChain, ProbeError> {
        let result = self.call("validators", json!([null])).await?;
        let bad = |reason: String| self.bad(reason);
        let read = |value: &Value, pointer: &str| {
            answer::read(value, Some(pointer), "a whole number", answer::as_number).map_err(bad)
        };
        let epoch = read(&result, "/epoch_start_height")?.unwrap_or_default();
        let Some(validators) = result["current_validators"].as_array() else {
            return Err(bad("`current_validators` is not a list".into()));
        };
        let Some(ours) = validators.iter().find(|validator| validator["account_id"] == account) else {
            return Ok(OnChain { epoch, validates: false, blocks: 0, chunks: 0, endorsements: 0 });
        };
        // A neard that knows no endorsements does not name them.
        let endorsements = answer::as_number(&ours["num_produced_endorsements"]).unwrap_or(0);
        let blocks = read(ours, "/num_produced_blocks")?.unwrap_or_default();
        let chunks = read(ours, "/num_produced_chunks")?.unwrap_or_default();
        Ok(OnChain { epoch, validates: true, blocks, chunks, endorsements })
    }

    /// The heights, the end of each range not included, at which `account` produces neither block nor
    /// chunk, as far as the present epoch goes.
    pub async fn maintenance_windows(&self, account: &str) -> Result<Vec<Range<u64>>, ProbeError> {
        let params = json!({ "account_id": account });
        let result = match self.call("EXPERIMENTAL_maintenance_windows", params.clone()).await {
            Ok(result) => result,
            // Its name in a neard that has dropped the old one.
            Err(error) => self.call("maintenance_windows", params).await.map_err(|_| error)?,
        };
        let window = |value: &Value| {
            let (start, end) = match value {
                Value::Array(ends) if ends.len() == 2 => (&ends[0], &ends[1]),
                other => (&other["start"], &other["end"]),
            };
            Some(answer::as_number(start)?..answer::as_number(end)?)
        };
        let windows: Option<Vec<_>> = result.as_array().and_then(|list| list.iter().map(window).collect());
        windows.ok_or_else(|| self.bad(format!("{} is no list of height ranges", answer::brief(&result))))
    }

    /// Header time of the block at `height`, or of the first one after it that is there among a few.
    pub async fn block_time(&self, height: u64) -> Result<(u64, WallTime), ProbeError> {
        const SKIPPED_MAX: u64 = 5;
        let mut last = None;
        for height in height..height + SKIPPED_MAX {
            match self.call("block", json!({ "block_id": height })).await {
                Ok(block) => {
                    let time = answer::read(&block, Some("/header/timestamp_nanosec"), "a number", answer::as_number);
                    let nanos = time.map_err(|reason| self.bad(reason))?.unwrap_or_default();
                    return Ok((height, WallTime::from_nanos(nanos)));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.bad("no block".into())))
    }

    /// `near_config_correct`: false after a reload that neard refused. `None` when it is not told.
    pub async fn config_correct(&self) -> Result<Option<bool>, ProbeError> {
        let text = self.client.get_text(&self.metrics_path()).await?;
        Ok(metric(&text, "near_config_correct").and_then(|value| value.parse::<f64>().ok()).map(|value| value != 0.0))
    }

    /// `near_largest_target_height`: the highest height that the node has endorsed or skipped, or would have with a
    /// key. neard raises it before an approval leaves, and keeps it in its database.
    pub async fn largest_target_height(&self) -> Result<u64, ProbeError> {
        let text = self.metrics.get_text(&self.metrics_path()).await?;
        let told = metric(&text, "near_largest_target_height");
        told.and_then(|value| value.parse().ok()).ok_or_else(|| ProbeError::BadAnswer {
            target: self.metrics.target_of(&self.metrics_path()),
            reason: match told {
                Some(value) => format!("near_largest_target_height is {value:?}, which is no height"),
                None => "it has no near_largest_target_height".to_owned(),
            },
        })
    }

    fn metrics_path(&self) -> String {
        format!("{}metrics", self.base)
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, ProbeError> {
        let request = json!({ "jsonrpc": "2.0", "id": "baton", "method": method, "params": params });
        let mut answer = self.client.post_path(&self.base, &request).await?;
        match answer.get_mut("result").map(Value::take) {
            Some(result) => Ok(result),
            None => {
                let error = excerpt(answer.get("error").unwrap_or(&answer).to_string().as_bytes());
                Err(self.bad(format!("{method} is answered with the error {error}")))
            }
        }
    }

    fn bad(&self, reason: String) -> ProbeError {
        ProbeError::BadAnswer { target: self.client.target_of(&self.base), reason }
    }
}

/// The value of a metric without labels in Prometheus' text format.
fn metric<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::trim)
}
