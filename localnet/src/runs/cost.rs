//! What the coordination of a network costs while nothing happens: memory, CPU, bytes on the wire and to the
//! disk, by process, from /proc and from the proxies. Chain nodes are left out. Called by bench and `idle`.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::base::ids::Role;
use rustix::param::{clock_ticks_per_second, page_size};
use serde::Serialize;

use crate::hosts::faults::{What, of_host};
use crate::judge::table;
use crate::net::Net;
use crate::net::proxy::{self, Plane};
use crate::process::procs::Proc;

/// What one process costs, or the mean of several alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// What its host is: holder, standby or arbiter.
    pub part: String,
    pub program: String,
    pub processes: usize,
    pub rss_mib: f64,
    /// Of one core.
    pub cpu_percent: f64,
    /// To the file system, logs too.
    pub disk_bytes_per_s: f64,
    /// Of the program that talks to other hosts through the proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
}

/// Payload of TCP, of all the peers together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wire {
    pub sent_bytes_per_s: f64,
    pub received_bytes_per_s: f64,
}

/// Watches every process of coordination for `during`, and takes the mean of those that are alike.
///
/// # Errors
/// One of them ended meanwhile.
pub fn watch(net: &Net, holder: &str, during: Duration) -> Result<Vec<Cost>> {
    let watched: Vec<Proc> = net.hosts.iter().flat_map(|host| of_host(net, &host.id, What::Host)).collect();
    let watched: Vec<Proc> = watched.into_iter().filter(|proc| !What::Node.matches(proc)).collect();
    let look = || -> Result<(Vec<Spent>, Vec<proxy::Carried>)> {
        Ok((watched.iter().map(spent).collect::<Result<_>>()?, proxy::carried(&net.wires_socket())?))
    };
    let begun = Instant::now();
    let (spent_before, carried_before) = look()?;
    std::thread::sleep(during);
    let seconds = begun.elapsed().as_secs_f64();
    let (spent_after, carried_after) = look()?;

    let mut alike: BTreeMap<(&str, &str), Vec<Cost>> = BTreeMap::new();
    for ((proc, before), after) in watched.iter().zip(&spent_before).zip(&spent_after) {
        let part = part_of(net, holder, &proc.host)?;
        let talked = |host: fn(&proxy::Carried) -> &String| {
            (total(&carried_after, &proc.host, host) - total(&carried_before, &proc.host, host)) as f64 / seconds
        };
        let wire = (proc.program() == "baton")
            .then(|| Wire { sent_bytes_per_s: talked(|c| &c.from), received_bytes_per_s: talked(|c| &c.to) });
        alike.entry((part, proc.program())).or_default().push(Cost {
            part: part.into(),
            program: proc.program().into(),
            processes: 1,
            rss_mib: after.rss as f64 / 1024.0 / 1024.0,
            cpu_percent: (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0,
            disk_bytes_per_s: (after.written - before.written) as f64 / seconds,
            wire,
        });
    }
    Ok(alike.into_values().filter_map(mean).collect())
}

fn part_of(net: &Net, holder: &str, host: &str) -> Result<&'static str> {
    Ok(match net.host(host)?.role {
        Role::Arbiter => "arbiter",
        Role::Validator if host == holder => "holder",
        Role::Validator => "standby",
    })
}

fn total(carried: &[proxy::Carried], host: &str, end: fn(&proxy::Carried) -> &String) -> u64 {
    carried.iter().filter(|c| c.plane == Plane::Raft && end(c) == host).map(|c| c.bytes).sum()
}

fn mean(costs: Vec<Cost>) -> Option<Cost> {
    let first = costs.first()?.clone();
    let mean = |of: &dyn Fn(&Cost) -> f64| costs.iter().map(of).sum::<f64>() / costs.len() as f64;
    let wire = |of: fn(&Wire) -> f64| mean(&|cost| cost.wire.as_ref().map_or(0.0, of));
    Some(Cost {
        processes: costs.len(),
        rss_mib: mean(&|c| c.rss_mib),
        cpu_percent: mean(&|c| c.cpu_percent),
        disk_bytes_per_s: mean(&|c| c.disk_bytes_per_s),
        wire: first.wire.as_ref().map(|_| Wire {
            sent_bytes_per_s: wire(|w| w.sent_bytes_per_s),
            received_bytes_per_s: wire(|w| w.received_bytes_per_s),
        }),
        ..first
    })
}

/// What a process has used since its start, and holds now.
pub struct Spent {
    pub cpu: Duration,
    /// Bytes to the file system.
    pub written: u64,
    pub rss: u64,
}

/// # Errors
/// It has ended.
pub fn spent(proc: &Proc) -> Result<Spent> {
    let read = |file: &str| {
        let path = format!("/proc/{}/{file}", proc.pid);
        fs::read_to_string(&path).with_context(|| format!("read {path} of {}", proc.program()))
    };
    let written = read("io")?.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    let pages = read("statm")?.split(' ').nth(1).and_then(|field| field.parse::<u64>().ok());
    let (Some(cpu), Some(written), Some(pages)) = (cpu_time(&read("stat")?), written, pages) else {
        bail!("/proc/{} of {} is not as Linux writes it", proc.pid, proc.program());
    };
    Ok(Spent { cpu, written, rss: pages * page_size() as u64 })
}

/// User and system time in the text of /proc/PID/stat.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The name of the program stands in parentheses and may hold blanks; the state after it is field 3.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// One line a cost; what stands before it says which network it is of.
pub fn table<'a>(costs: impl Iterator<Item = (String, &'a Cost)>) -> String {
    let head =
        ["", "part", "program", "processes", "RSS MiB", "CPU % of a core", "sent B/s", "received B/s", "to disk B/s"];
    let line = |(of, cost): (String, &Cost)| {
        let wire = |bytes: fn(&Wire) -> f64| cost.wire.as_ref().map_or("-".into(), |w| format!("{:.0}", bytes(w)));
        vec![
            of,
            cost.part.clone(),
            cost.program.clone(),
            cost.processes.to_string(),
            format!("{:.1}", cost.rss_mib),
            format!("{:.2}", cost.cpu_percent),
            wire(|w| w.sent_bytes_per_s),
            wire(|w| w.received_bytes_per_s),
            format!("{:.0}", cost.disk_bytes_per_s),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head.map(String::from).to_vec()).chain(costs.map(line)).collect();
    table::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_with_a_blank_in_its_name_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 100 1 1 1";
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(cpu_time(stat), Some(Duration::from_secs_f64(42.0 / ticks)));
        assert_eq!(cpu_time("7 (a"), None);
    }

    #[test]
    fn a_process_that_works_and_writes_is_seen_to_have_done_so() {
        let own = Proc { pid: std::process::id() as i32, host: String::new(), argv: vec!["own".into()] };
        let before = spent(&own).unwrap();
        let begun = Instant::now();
        while spent(&own).unwrap().cpu <= before.cpu {
            assert!(begun.elapsed() < Duration::from_secs(20), "no CPU time is counted");
        }
        let after = spent(&own).unwrap();
        assert!(after.rss > 1024 * 1024 && after.written >= before.written);
    }
}
