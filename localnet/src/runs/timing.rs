//! Changes `[timing]` of one host, as an operator does it: the file, then the coordinator. What a coordinator runs with
//! is read from what it tells of itself. Called by the nemesis, by `localnet slip` and by tests.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::hosts::faults::{self, What};
use crate::net::http;
use crate::net::namespaces;
use crate::net::{Net, write_file};
use crate::process::launch;
use crate::process::procs::{self, Awaited};

/// The section of a host's file that says how long a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// 1 s, as the localnet is laid out.
    Lan,
    /// 450 ms, of a network that is laid out with it; no fault gives it to a host.
    Signer,
    /// 2 s at the pace of `Lan`.
    Lengthened,
    /// 3 s.
    Wan,
}

impl Timing {
    /// What a host can be given.
    pub const ALL: [Timing; 3] = [Timing::Lan, Timing::Lengthened, Timing::Wan];
    const KNOWN: [Timing; 4] = [Timing::Lan, Timing::Signer, Timing::Lengthened, Timing::Wan];

    pub fn lease(self) -> Duration {
        match self {
            Timing::Lan => Duration::from_secs(1),
            Timing::Signer => Duration::from_millis(450),
            Timing::Lengthened => Duration::from_secs(2),
            Timing::Wan => Duration::from_secs(3),
        }
    }

    fn section(self) -> &'static str {
        match self {
            Timing::Lan => "[timing]\nprofile = \"lan\"\n",
            Timing::Signer => "[timing]\nprofile = \"signer\"\n",
            Timing::Lengthened => "[timing]\nprofile = \"lan\"\nlease = \"2s\"\n",
            Timing::Wan => "[timing]\nprofile = \"wan\"\n",
        }
    }

    /// The most that a renewal of the lease can leave, in seconds, as the metrics of a coordinator tell it.
    fn lease_max_s(self) -> f64 {
        match self {
            Timing::Lan => 0.849,
            Timing::Signer => 0.369_55,
            Timing::Lengthened => 1.848,
            Timing::Wan => 2.697,
        }
    }
}

/// Longer than a handover and the stop of a node together.
const END_BOUND: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the file of `host` says.
pub fn written(net: &Net, host: &str) -> Result<Timing> {
    let (file, text) = read(net, host)?;
    let section = section_of(&text).with_context(|| format!("{} has no [timing]", file.display()))?;
    let found = Timing::KNOWN.into_iter().find(|timing| timing.section() == section);
    found.with_context(|| format!("{}: nobody here wrote {section:?}", file.display()))
}

/// The file of `host` says so; its coordinator, if one runs, has not read it yet.
pub fn write(net: &Net, host: &str, timing: Timing) -> Result<()> {
    let (file, text) = read(net, host)?;
    let section = section_of(&text).with_context(|| format!("{} has no [timing]", file.display()))?;
    write_file(&file, &text.replacen(section, timing.section(), 1))
}

fn read(net: &Net, host: &str) -> Result<(std::path::PathBuf, String)> {
    let file = net.config_file(host);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    Ok((file, text))
}

/// With its head and without the empty line behind it.
fn section_of(text: &str) -> Option<&str> {
    let from = text.find("[timing]\n")?;
    let length = text[from..].find("\n\n").map_or(text.len() - from, |end| end + 1);
    Some(&text[from..from + length])
}

/// A coordinator of `host` has been started anew, in the place of the one that ran; a holder handed over first.
///
/// # Errors
/// The old one does not end.
pub fn restart(net: &Net, host: &str) -> Result<()> {
    end(net, host, END_BOUND)?;
    launch::start_coordinator(net, host)
}

/// No coordinator of `host` runs. It is asked to end, and after `grace` killed.
///
/// # Errors
/// It survives that.
pub fn end(net: &Net, host: &str, grace: Duration) -> Result<()> {
    let old = faults::of_host(net, host, What::Coordinator);
    let awaited = Awaited::new(&old);
    procs::signal(&old, Signal::TERM)?;
    if !awaited.ended_within(grace) {
        faults::kill(&old)?;
    }
    Ok(())
}

/// The timing that the coordinator of `host` runs with, by its own metrics.
///
/// # Errors
/// It does not answer, or runs with none that is written here.
pub fn in_force(net: &Net, host: &str) -> Result<Timing> {
    let addr = net.host(host)?.metrics();
    let body = match launch::namespace_of(net, host)? {
        None => http::get(addr, "/metrics"),
        // A host that is cut off answers itself all the same.
        Some(namespace) => namespaces::in_network(&namespace, move || http::get(addr, "/metrics")),
    };
    let text = body.with_context(|| format!("ask {host} for its metrics"))?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("baton_lease_max_seconds"));
    let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse::<f64>().ok());
    let seconds = value.with_context(|| format!("{host} tells no baton_lease_max_seconds"))?;
    let found = Timing::KNOWN.into_iter().find(|timing| (timing.lease_max_s() - seconds).abs() < 0.01);
    found.with_context(|| format!("{host} counts on {seconds} s of a lease, which no timing here gives"))
}

/// The coordinator of `host` answers and runs with `timing`.
pub fn await_in_force(net: &Net, host: &str, timing: Timing, bound: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        let last = match in_force(net, host) {
            Ok(found) if found == timing => return Ok(()),
            Ok(found) => format!("it runs with {found:?}"),
            Err(error) => format!("{error:#}"),
        };
        if began.elapsed() > bound {
            bail!("{host} does not run with {timing:?} within {bound:?}: {last}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts;
    use crate::net::{ChainKind, Programs, Shape};
    use baton::config::Config;

    #[test]
    fn a_timing_that_is_written_is_read_back_by_baton_and_its_lease_is_what_stands_here() {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        hosts::write_all(&net).unwrap();
        for timing in [Timing::Wan, Timing::Signer, Timing::Lengthened, Timing::Lan, Timing::Wan] {
            write(&net, "host-a", timing).unwrap();
            assert_eq!(written(&net, "host-a").unwrap(), timing);
            let read = Config::load(&net.config_file("host-a"), std::iter::empty()).unwrap().timing;
            let lease_max = (read.lease_min() - read.kill_max()).as_secs_f64();
            assert_eq!(read.lease(), timing.lease());
            assert!((lease_max - timing.lease_max_s()).abs() < 1e-9, "{timing:?}: {lease_max}");
        }
        assert_eq!(written(&net, "host-b").unwrap(), Timing::Lan, "one host alone");
    }
}
