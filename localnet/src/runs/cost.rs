//! What the coordination of a network costs while nothing happens: memory, CPU, wake-ups, bytes on the wire and to
//! the disk, by process, from /proc and from the proxies. Chain nodes are left out. Called by bench and `idle`.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton::base::ids::Role;
use rustix::param::page_size;
use serde::Serialize;

use crate::hosts::faults::{What, of_host};
use crate::judge::table;
use crate::net::Net;
use crate::net::proxy::{self, Plane};
use crate::process::procs::Proc;
use crate::process::threads::{ThreadCost, Watched, cpu_time};

/// Between two looks at the threads, some of which live for seconds only.
const THREADS_EVERY: Duration = Duration::from_secs(1);

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
    /// Times that one of its threads which had waited was run.
    pub wakeups_per_s: f64,
    /// To the file system, logs too.
    pub disk_bytes_per_s: f64,
    /// Of the program that talks to other hosts through the proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
    pub threads: Vec<ThreadCost>,
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
    let mut threads: Vec<Watched> = watched.iter().map(Watched::begin).collect::<Result<_>>()?;
    while let Some(left) = during.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::sleep(left.min(THREADS_EVERY));
        threads.iter_mut().try_for_each(Watched::look)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (spent_after, carried_after) = look()?;

    let mut alike: BTreeMap<(&str, &str), Vec<Cost>> = BTreeMap::new();
    for (((proc, before), after), threads) in watched.iter().zip(&spent_before).zip(&spent_after).zip(&threads) {
        let threads = threads.costs(seconds);
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
            wakeups_per_s: threads.iter().map(|thread| thread.wakeups_per_s).sum(),
            disk_bytes_per_s: (after.written - before.written) as f64 / seconds,
            wire,
            threads,
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
        wakeups_per_s: mean(&|c| c.wakeups_per_s),
        disk_bytes_per_s: mean(&|c| c.disk_bytes_per_s),
        wire: first.wire.as_ref().map(|_| Wire {
            sent_bytes_per_s: wire(|w| w.sent_bytes_per_s),
            received_bytes_per_s: wire(|w| w.received_bytes_per_s),
        }),
        threads: mean_threads(&costs),
        ..first
    })
}

/// By name; a process that has none of a name counts as one whose threads of that name do nothing.
fn mean_threads(costs: &[Cost]) -> Vec<ThreadCost> {
    let mut by_name: BTreeMap<&str, ThreadCost> = BTreeMap::new();
    for thread in costs.iter().flat_map(|cost| &cost.threads) {
        let new = || ThreadCost { threads: 0, wakeups_per_s: 0.0, cpu_percent: 0.0, ..thread.clone() };
        let mean = by_name.entry(&thread.name).or_insert_with(new);
        mean.threads = mean.threads.max(thread.threads);
        mean.wakeups_per_s += thread.wakeups_per_s / costs.len() as f64;
        mean.cpu_percent += thread.cpu_percent / costs.len() as f64;
    }
    by_name.into_values().collect()
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

/// One line a cost; what stands before it says which network it is of.
pub fn table<'a>(costs: impl Iterator<Item = (String, &'a Cost)>) -> String {
    let head = [
        "",
        "part",
        "program",
        "processes",
        "RSS MiB",
        "CPU % of a core",
        "wake-ups/s",
        "sent B/s",
        "received B/s",
        "to disk B/s",
    ];
    let line = |(of, cost): (String, &Cost)| {
        let wire = |bytes: fn(&Wire) -> f64| cost.wire.as_ref().map_or("-".into(), |w| format!("{:.0}", bytes(w)));
        vec![
            of,
            cost.part.clone(),
            cost.program.clone(),
            cost.processes.to_string(),
            format!("{:.1}", cost.rss_mib),
            format!("{:.2}", cost.cpu_percent),
            format!("{:.1}", cost.wakeups_per_s),
            wire(|w| w.sent_bytes_per_s),
            wire(|w| w.received_bytes_per_s),
            format!("{:.0}", cost.disk_bytes_per_s),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head.map(String::from).to_vec()).chain(costs.map(line)).collect();
    table::table(&rows)
}

/// One line for the threads of a name, of the processes that have threads of several.
pub fn threads_table<'a>(costs: impl Iterator<Item = (String, &'a Cost)>) -> String {
    let head = ["", "part", "program", "thread", "threads", "CPU % of a core", "wake-ups/s"];
    let lines = |(of, cost): (String, &'a Cost)| {
        let line = move |thread: &ThreadCost| {
            vec![
                of.clone(),
                cost.part.clone(),
                cost.program.clone(),
                thread.name.clone(),
                thread.threads.to_string(),
                format!("{:.2}", thread.cpu_percent),
                format!("{:.1}", thread.wakeups_per_s),
            ]
        };
        cost.threads.iter().map(line)
    };
    let costs = costs.filter(|(_, cost)| cost.threads.len() > 1).flat_map(lines);
    let rows: Vec<Vec<String>> = std::iter::once(head.map(String::from).to_vec()).chain(costs).collect();
    table::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

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
