//! A process in place of a chain node of CometBFT, for runs that make its requests to sign themselves: it tells a chain
//! that makes a block a second, and is in sync. Where a node waits for its signer nobody listens, until the run does.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use baton::base::time::WallTime;
use serde_json::{Value, json};

use crate::hosts::quoted;
use crate::net::{Custody, Host, Net, Usage, write_file};

/// Of the hidden command.
pub const COMMAND: &str = "stand-in";
const TIMEOUT: Duration = Duration::from_secs(5);

/// The hosts of a prepared network start stand-ins.
///
/// # Errors
/// A chain node of theirs would have the key.
pub fn take_the_place_of_nodes(net: &Net) -> Result<()> {
    if net.custody != Custody::Signer {
        bail!(Usage("nobody asks for signatures here: give --chain cometbft --custody signer".into()));
    }
    for host in net.signers() {
        let file = net.config_file(&host.id);
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let argv = [
            net.programs.localnet.to_string_lossy().into_owned(),
            COMMAND.into(),
            "--rpc".into(),
            host.rpc().to_string(),
            "--home".into(),
            net.chain_home(&host.id).to_string_lossy().into_owned(),
        ];
        let other = |line: &str| match line.starts_with("command = ") {
            true => format!("command = {}\n", quoted(argv.as_slice())),
            false => format!("{line}\n"),
        };
        write_file(&file, &text.lines().map(other).collect::<String>())?;
    }
    Ok(())
}

/// What the node of `host` would name in its requests.
pub fn chain_id(net: &Net, host: &Host) -> Result<String> {
    let file = net.chain_home(&host.id).join("config/genesis.json");
    let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let genesis: Value = serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))?;
    Ok(genesis["chain_id"].as_str().context("the genesis names no chain")?.into())
}

/// Answers `/status` until the process is killed.
pub fn serve(rpc: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(rpc).with_context(|| format!("listen on {rpc}"))?;
    for stream in listener.incoming() {
        let stream = stream.context("accept")?;
        // Whoever asks may go away meanwhile.
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().context("no request")??;
    while !lines.next().context("half a request")??.is_empty() {}
    let (code, body) = match first.split(' ').nth(1) {
        Some("/status") => ("200 OK", status(SystemTime::now())?.to_string()),
        Some(_) | None => ("404 Not Found", "{}".into()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {length}");
    write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}")?;
    Ok(())
}

fn status(now: SystemTime) -> Result<Value> {
    let now = now.duration_since(UNIX_EPOCH).context("the clock")?;
    let made_at = WallTime::from_nanos(now.as_secs() * 1_000_000_000);
    Ok(json!({ "result": {
        "node_info": { "version": "stand-in" },
        "sync_info": {
            "latest_block_height": now.as_secs().to_string(),
            "latest_block_time": made_at.to_string(),
            "catching_up": false,
        },
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_tells_a_block_a_second() {
        let at = |ms| status(UNIX_EPOCH + Duration::from_millis(ms)).unwrap()["result"]["sync_info"].clone();
        assert_eq!(at(7_900)["latest_block_height"], "7");
        assert_eq!(at(7_900)["latest_block_time"], "1970-01-01T00:00:07.000Z");
        assert_eq!(at(8_000)["latest_block_height"], "8");
    }
}
