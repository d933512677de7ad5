//! Any chain node, by configuration alone: what to ask and where in the answer to look. Geth-like and
//! bitcoin-like nodes take `JsonRpc`, nodes with a status page `Http`, everything else `Exec`.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::net::TcpStream;

use super::answer;
use super::exec::{self, ExecError};
use super::http::{HttpClient, excerpt};
use super::key_reader::KeyReader;
use super::{ChainDriver, DriverError, Health, KeyState, ProbeError};
use crate::config::{Chain, OnHalt, Pointers, ProbeTarget, RpcCall, reference};

pub struct Generic {
    chain: Chain,
    keys: KeyReader,
    target: Target,
}

enum Target {
    Http { client: HttpClient, pointers: Pointers },
    JsonRpc { client: HttpClient, calls: Vec<RpcCall>, pointers: Pointers },
    Exec { command: Vec<String> },
    Tcp { addr: String },
}

impl Generic {
    pub fn new(chain: &Chain, keys: KeyReader) -> Result<Generic, DriverError> {
        let client = |url: &str| HttpClient::new("chain.probe.url", url, chain.probe.timeout);
        let target = match &chain.probe.target {
            ProbeTarget::Http { url, pointers } => {
                check_pointers(pointers)?;
                Target::Http { client: client(url)?, pointers: pointers.clone() }
            }
            ProbeTarget::JsonRpc { url, calls, pointers } => {
                check_pointers(pointers)?;
                if calls.is_empty() {
                    return Err(DriverError::setting("chain.probe.calls", "is empty; name at least one method"));
                }
                Target::JsonRpc { client: client(url)?, calls: calls.clone(), pointers: pointers.clone() }
            }
            ProbeTarget::Exec { command } if command.first().is_none_or(String::is_empty) => {
                return Err(DriverError::setting("chain.probe.exec", "is empty; give an argv"));
            }
            ProbeTarget::Exec { command } => Target::Exec { command: command.clone() },
            ProbeTarget::Tcp { addr } => match addr.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Target::Tcp { addr: addr.clone() }
                }
                Some(_) | None => {
                    return Err(DriverError::setting("chain.probe.tcp", format!("`{addr}` is not host:port")));
                }
            },
        };
        Ok(Generic { chain: chain.clone(), keys, target })
    }
}

impl ChainDriver for Generic {
    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn key_reader(&self) -> &KeyReader {
        &self.keys
    }

    /// Only what a command says cannot be known before it was run.
    async fn inspect_outside(&self) -> Result<Vec<String>, DriverError> {
        let tells_time = match &self.target {
            Target::Http { pointers, .. } | Target::JsonRpc { pointers, .. } => pointers.head_time.is_some(),
            Target::Exec { .. } => true,
            Target::Tcp { .. } => false,
        };
        Ok(match self.chain.on_halt {
            OnHalt::Wait if !tells_time => vec![
                "chain.probe tells no head_time: after a failover this host waits for ever for a block that is late \
                 enough; add head_time, or set on_halt = \"replica\" with [chain.last_signed]"
                    .to_owned(),
            ],
            OnHalt::Wait | OnHalt::Replica => Vec::new(),
        })
    }

    /// A command or a bare connection cannot be relied on to tell.
    fn tells_key(&self) -> bool {
        match &self.target {
            Target::Http { pointers, .. } | Target::JsonRpc { pointers, .. } => pointers.key.is_some(),
            Target::Exec { .. } | Target::Tcp { .. } => false,
        }
    }

    async fn probe(&self) -> Result<Health, ProbeError> {
        let asked_at = Instant::now();
        let health = match &self.target {
            Target::Http { client, pointers } => health(client, &client.get().await?, pointers)?,
            Target::JsonRpc { client, calls, pointers } => {
                let results = call(client, calls, self.chain.probe.timeout).await?;
                health(client, &results, pointers)?
            }
            Target::Exec { command } => self.probe_exec(command).await?,
            Target::Tcp { addr } => self.probe_tcp(addr).await?,
        };
        Ok(Health { latency: asked_at.elapsed(), ..health })
    }
}

impl Generic {
    /// Exit code 0 means synced, any other not synced. When standard output is a JSON object, its
    /// fields `height`, `head_time`, `peers`, `key` and `version` count, each optional and of the same
    /// kinds as behind [`Pointers`].
    async fn probe_exec(&self, command: &[String]) -> Result<Health, ProbeError> {
        let (target, timeout) = (command.join(" "), self.chain.probe.timeout);
        let output = match exec::run(&self.chain, command, timeout).await {
            Ok(output) => output,
            Err(ExecError::Timeout) => return Err(ProbeError::Timeout { target, timeout }),
            Err(ExecError::Spawn(error)) => {
                return Err(ProbeError::Unreachable { target, reason: format!("cannot be started: {error}") });
            }
        };
        let Some(code) = output.status.code() else {
            let reason = format!("{}: {}", output.status, excerpt(&output.stderr));
            return Err(ProbeError::BadAnswer { target, reason });
        };
        let told = match serde_json::from_slice(&output.stdout) {
            Ok(Value::Object(fields)) => fields,
            Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | Err(_) => {
                Map::new()
            }
        };
        let field = |name: &str| told.contains_key(name).then(|| format!("/{name}"));
        let pointers = Pointers {
            height: field("height"),
            head_time: field("head_time"),
            peers: field("peers"),
            key: field("key"),
            version: field("version"),
            ..Pointers::default()
        };
        let health = answer::health(&Value::Object(told), &pointers);
        let health = health.map_err(|reason| ProbeError::BadAnswer { target, reason })?;
        Ok(Health { synced: code == 0, ..health })
    }

    async fn probe_tcp(&self, addr: &str) -> Result<Health, ProbeError> {
        let timeout = self.chain.probe.timeout;
        match tokio::time::timeout(timeout, TcpStream::connect(addr)).await {
            Ok(Ok(_)) => Ok(Health {
                approved: 0,
                synced: true,
                height: 0,
                head_time: None,
                peers: None,
                key: KeyState::Untold,
                latency: timeout,
                version: String::new(),
            }),
            Ok(Err(error)) => {
                Err(ProbeError::Unreachable { target: addr.to_owned(), reason: format!("connect: {error}") })
            }
            Err(_) => Err(ProbeError::Timeout { target: addr.to_owned(), timeout }),
        }
    }
}

fn health(client: &HttpClient, answer: &Value, pointers: &Pointers) -> Result<Health, ProbeError> {
    answer::health(answer, pointers).map_err(|reason| ProbeError::BadAnswer { target: client.target(), reason })
}

/// An object of `method: result`. Calls that need the result of another go in a second batch; `timeout` is
/// for both.
async fn call(client: &HttpClient, calls: &[RpcCall], timeout: Duration) -> Result<Value, ProbeError> {
    let asked_at = Instant::now();
    let bad = |reason: String| ProbeError::BadAnswer { target: client.target(), reason };
    let mut results = Value::Object(Map::new());
    let (mut first, mut then) = (Vec::new(), Vec::new());
    for RpcCall { method, params } in calls {
        match resolved(params, None) {
            Some(params) => first.push((method, params)),
            None => then.push((method, params)),
        }
    }
    batch(client, &first, timeout, &mut results).await?;
    let mut second = Vec::new();
    for (method, params) in then {
        let params = resolved(params, Some(&results))
            .ok_or_else(|| bad(format!("`{method}` needs {params} from the results {}", answer::brief(&results))))?;
        second.push((method, params));
    }
    if !second.is_empty() {
        batch(client, &second, timeout.saturating_sub(asked_at.elapsed()), &mut results).await?;
    }
    Ok(results)
}

/// `params` with every reference replaced by what `results` have there; `None` when one leads nowhere.
fn resolved(params: &Value, results: Option<&Value>) -> Option<Value> {
    match params {
        Value::Array(items) => items.iter().map(|item| resolved(item, results)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| Some((name.clone(), resolved(field, results)?)));
            fields.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => match reference(params) {
            Some(pointer) => results?.pointer(pointer).cloned(),
            None => Some(params.clone()),
        },
    }
}

async fn batch(
    client: &HttpClient,
    calls: &[(&String, Value)],
    timeout: Duration,
    results: &mut Value,
) -> Result<(), ProbeError> {
    let body: Vec<Value> = (0_u64..)
        .zip(calls)
        .map(|(id, (method, params))| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
        .collect();
    let answer = client.post(&Value::Array(body), timeout).await?;
    let bad = |reason: String| ProbeError::BadAnswer { target: client.target(), reason };
    let Some(answers) = answer.as_array() else {
        return Err(bad(format!("a JSON-RPC batch was answered by {}", answer::brief(&answer))));
    };
    for (id, (method, _)) in (0_u64..).zip(calls) {
        let Some(answer) = answers.iter().find(|answer| answer["id"].as_u64() == Some(id)) else {
            return Err(bad(format!("`{method}` was not answered: {}", answer::brief(&answer))));
        };
        match (&answer["error"], answer.get("result")) {
            (Value::Null, Some(result)) => results[method.as_str()] = result.clone(),
            (Value::Null, None) => return Err(bad(format!("`{method}` has no result"))),
            (error, _) => return Err(bad(format!("`{method}` failed: {}", answer::brief(error)))),
        }
    }
    Ok(())
}

fn check_pointers(pointers: &Pointers) -> Result<(), DriverError> {
    let Pointers { syncing, height, target, head_time, peers, key, key_names: _, version } = pointers;
    let target = target.as_ref().map(|target| target.pointer.clone());
    let named = [
        ("syncing", syncing),
        ("height", height),
        ("target_height", &target),
        ("head_time", head_time),
        ("peers", peers),
        ("key", key),
        ("version", version),
    ];
    for (name, pointer) in named {
        if let Some(pointer) = pointer
            && !pointer.is_empty()
            && !pointer.starts_with('/')
        {
            let reason = format!("`{pointer}` is no JSON pointer (RFC 6901); try `/{}`", pointer.replace('.', "/"));
            return Err(DriverError::setting(format!("chain.probe.{name}"), reason));
        }
    }
    Ok(())
}
