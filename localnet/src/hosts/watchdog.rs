//! A watchdog for a host that resets nothing: `stepped-clock/` stands in for the device, and writes down what is done with
//! it. What is read here is when a real one would have reset the host.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use baton::base::time::BootTime;

use crate::hosts::clock;
use crate::net::{Net, write_file};

pub fn device(net: &Net, host: &str) -> PathBuf {
    net.host_dir(host).join("watchdog")
}

fn log(net: &Net, host: &str) -> PathBuf {
    device(net, host).with_extension("log")
}

/// From its next start on, each host with a chain node has one that `says`: its shortest time-out in seconds, or `busy`.
pub fn install(net: &Net, says: &str) -> Result<()> {
    clock::install(net)?;
    net.signers().try_for_each(|host| write_file(&device(net, &host.id), says))
}

/// What `command` starts on `host` finds that host's, where it has one.
pub fn give_to(net: &Net, host: &str, command: &mut Command) {
    let device = device(net, host);
    if device.exists() {
        command.env("STAND_IN_WATCHDOG", device);
    }
}

/// What has become of a host's device so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub feedings: usize,
    /// How often it was stopped in an orderly way.
    pub stops: usize,
    /// When it has reset the host, or will unless it is fed before.
    pub resets_at: Option<BootTime>,
}

pub fn story(net: &Net, host: &str) -> Result<Story> {
    let file = log(net, host);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    read(&text).with_context(|| format!("in {}", file.display()))
}

/// The kernel's: a device runs from `open` on, its time starts anew with `timeout` and `feed`, and a `close` right behind a
/// `stop` ends it.
fn read(text: &str) -> Result<Story> {
    let (mut story, mut timeout, mut stopped) = (Story::default(), Duration::from_secs(60), false);
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, what, rest @ ..] = &words[..] else { bail!("a line without an event: {line:?}") };
        let at = rest.last().and_then(|nanos| nanos.parse().ok()).map(BootTime::from_nanos);
        let at = at.with_context(|| format!("a line without a time: {line:?}"))?;
        if story.resets_at.is_some_and(|reset| reset < at) {
            return Ok(story);
        }
        match *what {
            "open" => {}
            "timeout" => timeout = Duration::from_secs(rest[0].parse().context("a time-out")?),
            "feed" => story.feedings += 1,
            "stop" => {
                (stopped, story.stops) = (true, story.stops + 1);
                continue;
            }
            "close" if stopped => {
                (stopped, story.resets_at) = (false, None);
                continue;
            }
            "close" => continue,
            other => bail!("an event of which nothing is known: {other:?}"),
        }
        (stopped, story.resets_at) = (false, Some(at + timeout));
    }
    Ok(story)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_runs_until_it_is_stopped_and_resets_when_it_is_not_fed() {
        let s = |seconds: u64| BootTime::from_nanos(seconds * 1_000_000_000);
        let fed = "7 open 1000000000\n7 timeout 2 1000000000\n7 feed 2000000000\n";
        let told = |rest: &str| read(&format!("{fed}{rest}")).unwrap();
        assert_eq!(told("").resets_at, Some(s(4)));
        assert_eq!(told("7 stop 3000000000\n7 close 3000000000\n"), Story { feedings: 1, stops: 1, resets_at: None });
        assert_eq!(told("7 close 3000000000\n").resets_at, Some(s(4)), "its process has died");
        assert_eq!(told("7 feed 5000000000\n").resets_at, Some(s(4)), "too late");
        assert!(read("7 open\n").is_err() && read("7 bark 1\n").is_err());
    }
}
