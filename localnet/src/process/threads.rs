//! How often the threads of a process wake up and for how long they work, by name, from /proc/PID/task. Called by
//! `cost`, which looks every second: what a thread did after the last look before its end is not counted.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use serde::Serialize;

use crate::process::procs::Proc;

/// The threads of one name: what one process of its kind has, when several are alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThreadCost {
    pub name: String,
    /// That were seen at all.
    pub threads: usize,
    /// Times that a thread which had waited was run: its voluntary context switches.
    pub wakeups_per_s: f64,
    /// Of one core.
    pub cpu_percent: f64,
}

#[derive(Clone, Debug, PartialEq)]
struct Thread {
    name: String,
    wakeups: u64,
    cpu: Duration,
}

/// The threads of one process, from the first look to the last.
pub struct Watched {
    proc: Proc,
    /// By number, as they were found at the first look.
    first: BTreeMap<i32, Thread>,
    /// As they were seen last. One that began meanwhile is in this alone.
    last: BTreeMap<i32, Thread>,
}

impl Watched {
    /// # Errors
    /// The process has ended.
    pub fn begin(proc: &Proc) -> Result<Watched> {
        let first = threads_of(proc)?;
        Ok(Watched { proc: proc.clone(), last: first.clone(), first })
    }

    /// # Errors
    /// The process has ended.
    pub fn look(&mut self) -> Result<()> {
        self.last.extend(threads_of(&self.proc)?);
        Ok(())
    }

    /// What they did from the first look to the last one, which was so many `seconds` later; by name.
    pub fn costs(&self, seconds: f64) -> Vec<ThreadCost> {
        let mut by_name: BTreeMap<&str, ThreadCost> = BTreeMap::new();
        for (id, Thread { name, wakeups, cpu }) in &self.last {
            let before = self.first.get(id).map_or((0, Duration::ZERO), |first| (first.wakeups, first.cpu));
            let new = || ThreadCost { name: name.clone(), threads: 0, wakeups_per_s: 0.0, cpu_percent: 0.0 };
            let cost = by_name.entry(name).or_insert_with(new);
            cost.threads += 1;
            cost.wakeups_per_s += wakeups.saturating_sub(before.0) as f64 / seconds;
            cost.cpu_percent += cpu.saturating_sub(before.1).as_secs_f64() / seconds * 100.0;
        }
        by_name.into_values().collect()
    }
}

fn threads_of(proc: &Proc) -> Result<BTreeMap<i32, Thread>> {
    let tasks = format!("/proc/{}/task", proc.pid);
    let listed = fs::read_dir(&tasks).with_context(|| format!("read {tasks} of {}", proc.program()))?;
    let ids = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // One that ended after it was listed is as good as not listed.
    Ok(ids.filter_map(|id| Some((id, read_thread(&format!("{tasks}/{id}"))?))).collect())
}

fn read_thread(folder: &str) -> Option<Thread> {
    let read = |file: &str| fs::read_to_string(format!("{folder}/{file}")).ok();
    let name = group_of(read("comm")?.trim_end()).to_owned();
    let wakeups =
        read("status")?.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok());
    Some(Thread { name, wakeups: wakeups?, cpu: cpu_time(&read("stat")?)? })
}

/// User and system time in the text of /proc/PID/stat, or of /proc/PID/task/TID/stat.
pub(crate) fn cpu_time(stat: &str) -> Option<Duration> {
    // The name of the program stands in parentheses and may hold blanks; the state after it is field 3.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Threads that are numbered do the same.
fn group_of(name: &str) -> &str {
    let without = name.trim_end_matches(|c: char| c.is_ascii_digit());
    without.strip_suffix('-').filter(|group| without.len() < name.len() && !group.is_empty()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_time_of_a_process_with_a_blank_in_its_name_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 100 1 1 1";
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(cpu_time(stat), Some(Duration::from_secs_f64(42.0 / ticks)));
        assert_eq!(cpu_time("7 (a"), None);
    }

    #[test]
    fn threads_that_are_numbered_are_one_line_and_others_keep_their_names() {
        assert_eq!(group_of("sled-io-12"), "sled-io");
        for name in ["node-log", "tokio2", "-3", "worker-"] {
            assert_eq!(group_of(name), name);
        }
    }

    #[test]
    fn the_wakeups_of_a_thread_are_counted_and_those_of_a_sleeping_one_are_none() {
        const WAKEUPS: u64 = 200;
        let own = Proc { pid: std::process::id() as i32, host: String::new(), argv: vec!["own".into()] };
        let (ask, asked) = mpsc::channel::<()>();
        let (answer, answered) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let woken = named("woken-1").spawn(move || asked.iter().try_for_each(|()| answer.send(()))).unwrap();
        let sleeper = named("sleeper").spawn(move || stopped.recv()).unwrap();
        let begun = Instant::now();
        let mut watched = Watched::begin(&own).unwrap();
        // A thread may still be on its way to its first wait when it is asked, so not every question is a wake-up.
        let wakeups = |watched: &Watched, name: &str| {
            watched.costs(1.0).iter().find(|cost| cost.name == name).map_or(0.0, |cost| cost.wakeups_per_s)
        };
        while wakeups(&watched, "woken") < WAKEUPS as f64 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", watched.costs(1.0));
            ask.send(()).unwrap();
            answered.recv().unwrap();
            watched.look().unwrap();
        }
        assert!(wakeups(&watched, "sleeper") <= 2.0, "{:?}", watched.costs(1.0));
        drop((ask, stop));
        woken.join().unwrap().unwrap();
        sleeper.join().unwrap().unwrap_err();
    }
}
