//! Hooks of real coordinators: each event is told with its facts, and a hook that hangs, crashes, forks or floods costs a
//! line in the log and a number in a metric.

mod examples;
mod kit;

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::kit::program::{BATON, Running, baton, coordinator_in, free_addresses};
use crate::kit::stage::Stage;
use kit::{Host, Leftover, is_gone, signal};

const ROLES: &str = "on_holder = [\"./tell\"]\non_standby = [\"./tell\"]\n";

#[test]
fn the_start_a_tenure_a_fence_and_the_stop_are_told_with_their_facts() {
    let host = Host::new(&format!("{ROLES}on_fenced = [\"./tell\"]\n"));
    let mut running = host.run();
    let told = host.await_told("on_holder", 1);
    assert_eq!(told[0], "on_standby|one|a||0|start");
    assert!(told[1].starts_with("on_holder|one|a|a|1|"), "{told:?}");

    // A coordinator that does not run renews nothing; its guard takes the key away.
    assert!(host.path("home/key").is_symlink(), "the holder has a key");
    signal(&running, Signal::STOP);
    host.until("fenced", || (!host.path("home/key").is_symlink()).then_some(()));
    signal(&running, Signal::CONT);
    for (event, times) in [("on_fenced", 1), ("on_standby", 2), ("on_holder", 2)] {
        host.await_told(event, times);
    }
    // Those of different lanes may come in any order.
    let told = host.told();
    let told_of = |event: &str| told.iter().find(|line| line.starts_with(event) && line.contains("|1|"));
    let fenced = told_of("on_fenced|").unwrap_or_else(|| panic!("no fence in {told:?}"));
    assert!(fenced.ends_with("|1|nobody renewed the deadline of the guard in time"), "{fenced}");
    let standby = told_of("on_standby|").unwrap_or_else(|| panic!("no standby in {told:?}"));
    assert!(!standby.ends_with("|1|"), "no reason: {standby}");
    assert!(told.iter().any(|line| line.starts_with("on_holder|one|a|a|2|")), "{told:?}");
    for hook in ["on_holder", "on_standby", "on_fenced"] {
        host.await_runs(hook, "ok", 1);
        assert_eq!(host.runs(hook, "failed"), Some(0));
    }

    signal(&running, Signal::TERM);
    assert!(running.0.wait().expect("it ends").success(), "{}", host.log());
    let told = host.told();
    let last = told.last().expect("many were told");
    assert!(last.starts_with("on_standby|one|a|") && last.ends_with("|2|shutdown"), "{told:?}");
}

#[test]
fn a_member_whose_majority_is_gone_tells_it_once() {
    let [a, b] = free_addresses();
    let members = |me: &str, listen: &str| {
        format!(
            "[member]\nid = \"{me}\"\nstate_dir = \"state\"\nrun_dir = \"run\"\n[cluster]\nname = \"two\"\nlisten = \"{listen}\"\n\
             members = [{{ id = \"a\", addr = \"{a}\" }}, {{ id = \"b\", addr = \"{b}\", role = \"arbiter\" }}]\n"
        )
    };
    let host = Host::of(&members("a", &a), &format!("{ROLES}on_lost_quorum = [\"./tell\"]\n"));
    let other = Stage::new(&members("b", &b));
    let _running = host.run();
    let arbiter = || Running(coordinator_in(&other).spawn().expect("it starts"));
    let first = arbiter();
    host.await_told("on_holder", 1);
    assert!(!host.read("told").contains("on_lost_quorum"), "{:?}", host.told());
    drop(first);
    let told = host.await_told("on_lost_quorum", 1);
    let lost = told.iter().find(|line| line.starts_with("on_lost_quorum|two|a|")).expect("its own line");
    assert!(lost.ends_with("|1 of 2 members cannot be reached: b"), "{lost}");
    // Once: the next comes with the next loss.
    let _second = arbiter();
    host.await_told("on_holder", 2);
    let times = host.told().iter().filter(|line| line.starts_with("on_lost_quorum|")).count();
    assert_eq!(times, 1, "{:?}", host.told());
}

#[test]
fn a_move_goes_on_while_a_hook_hangs_and_the_hook_dies_with_the_coordinator() {
    let host = Host::new("on_standby = [\"./hang\"]\non_lost_quorum = [\"./tell\"]\ntimeout = \"10m\"\n");
    host.program("hang", "#!/bin/sh\necho $$ > \"${0%/*}/pid\"\nexec sleep 1000\n");
    let running = host.run();
    let hook = host.await_pid("pid");
    host.await_active();
    assert!(!is_gone(hook), "it was to hang: {}", host.log());
    signal(&running, Signal::KILL);
    host.await_gone(hook);
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_children_and_the_newest_is_told_next() {
    let host = Host::new("on_standby = [\"./hang\"]\non_holder = [\"./tell\"]\ntimeout = \"3s\"\n");
    host.program("hang", "#!/bin/sh\nsleep 1000 &\necho $! > \"${0%/*}/pid\"\nsleep 1000\n");
    let _running = host.run();
    let child = host.await_pid("pid");
    host.await_runs("on_standby", "timeout", 1);
    host.await_gone(child);
    let told = host.await_told("on_holder", 1);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(host.log().contains("did not end within 3s and was killed with its process group"), "{}", host.log());
    assert_eq!(host.runs("on_standby", "ok"), Some(0));
}

#[test]
fn a_crash_and_a_program_that_cannot_be_executed_are_counted() {
    let host = Host::new("on_standby = [\"./crash\"]\non_holder = [\"./nowhere\", \"word\"]\n");
    host.program("crash", "#!/bin/sh\necho last words >&2\nkill -SEGV $$\n");
    host.program("nowhere", "#!/nowhere/interpreter\n");
    let _running = host.run();
    host.await_runs("on_standby", "failed", 1);
    host.await_runs("on_holder", "not-started", 1);
    let log = host.log();
    for line in ["ended with signal 11", "last words", "was not started: No such file"] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn what_a_hook_leaves_running_holds_up_nothing() {
    let host = Host::new("on_standby = [\"./leave\"]\n");
    // One in its process group, and one that has left it; both keep its output open.
    let text = "#!/bin/sh\ncd \"${0%/*}\"\nsleep 1000 &\necho $! > pid\nsetsid sh -c 'echo $$ > escaped; exec sleep 1000' &\n\
                while [ ! -s escaped ]; do :; done\n";
    host.program("leave", text);
    let _running = host.run();
    let (child, escaped) = (host.await_pid("pid"), Leftover(host.await_pid("escaped")));
    host.await_runs("on_standby", "ok", 1);
    host.await_gone(child);
    assert!(!is_gone(escaped.0), "what leaves the group is the operator's own");
}

#[test]
fn a_flood_is_read_to_its_end_and_little_of_it_logged() {
    let host = Host::new("on_standby = [\"./flood\"]\n");
    host.program("flood", "#!/bin/sh\nyes flood | head -c 1000000\n");
    let _running = host.run();
    host.await_runs("on_standby", "ok", 1);
    assert_eq!(host.said(), 64, "{}", host.log());
    let dropped = 1_000_000 - 64 * "flood\n".len();
    let line = format!("a hook said more, which is not logged hook=\"on_standby\" bytes={dropped}");
    assert!(host.log().contains(&line), "{line}: {}", host.log());
}

#[test]
fn a_hook_has_nothing_of_the_coordinator_but_its_user() {
    let host = Host::new("on_standby = [\"./look\"]\n");
    let text = "#!/bin/sh\nbegan_in=$PWD\ncd \"${0%/*}\"\n{ env; echo \"in $began_in\"\n\
                grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs):' /proc/self/status\nreadlink /proc/$$/fd/* | sed 's/^/fd /'\n\
                cut -d ' ' -f 41 /proc/$$/stat | sed 's/^/policy /'; } > seen.new\nmv seen.new seen\n";
    host.program("look", text);
    // The coordinator gets a file that every program which it starts would get too.
    let secret = std::fs::File::create(host.path("secret")).expect("a file");
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).expect("an open file");
    let mut command = coordinator_in(&host);
    command.env("CREDENTIALS_DIRECTORY", "/credentials").env("BATON_LOG", "info").env("SECRET", "of somebody");
    let _running = Running(command.spawn().expect("it starts"));
    let seen = host.until("seen", || Some(host.read("seen")).filter(|seen| !seen.is_empty()));
    for name in ["CREDENTIALS_DIRECTORY", "BATON_LOG", "SECRET"] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = seen.lines().filter(|line| !line.is_empty()).map(words).collect();
    let of = |name: &str| lines.iter().find(|line| line[0] == name).unwrap_or_else(|| panic!("no {name}: {seen}"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(of(set)[1], "0000000000000000", "{seen}");
    }
    let idle = libc::SCHED_IDLE.to_string();
    assert_eq!((of("NoNewPrivs:")[1].as_str(), &of("policy")[1]), ("1", &idle), "{seen}");
    assert_eq!(of("in")[1], "/", "{seen}");
    let of_its_own = |file: &str| ["/dev/null", "pipe:", "/look", "/seen.new"].iter().any(|own| file.contains(own));
    assert!(lines.iter().filter(|line| line[0] == "fd").all(|line| of_its_own(&line[1])), "{seen}");
}

/// The variables of a hook are no keys of the configuration.
#[test]
fn a_hook_can_ask_the_coordinator() {
    let host = Host::new("on_holder = [\"./ask\"]\n");
    host.program(
        "ask",
        &format!("#!/bin/sh\ncd \"${{0%/*}}\"\n{BATON} active-validator --config baton.toml > answer 2>&1\n"),
    );
    let _running = host.run();
    host.await_runs("on_holder", "ok", 1);
    assert_eq!(host.read("answer"), "Name: a\n");
}

#[test]
fn a_stop_waits_for_hooks_no_longer_than_it_says() {
    let host = Host::new("on_standby = [\"./hang\"]\ntimeout = \"10m\"\n");
    host.program("hang", "#!/bin/sh\necho $$ > \"${0%/*}/pid\"\nexec sleep 1000\n");
    let mut running = host.run();
    let hook = host.await_pid("pid");
    host.await_active();
    signal(&running, Signal::TERM);
    let since = Instant::now();
    assert!(running.0.wait().expect("it ends").success(), "{}", host.log());
    assert!(since.elapsed() < Duration::from_secs(60), "a hook has held it up for {:?}", since.elapsed());
    assert!(host.log().contains("hooks did not end within 5s"), "{}", host.log());
    host.await_gone(hook);
}

#[test]
fn check_and_run_refuse_a_program_that_could_not_run_and_say_where_it_is_named() {
    let host = Host::new("on_holder = [\"./absent\"]\n");
    let refused = |says: &str| {
        for verb in ["check", "run"] {
            let output = baton(&[verb, "--config", "baton.toml"]).current_dir(&**host).output().expect("it runs");
            let line = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{verb}: {line}");
            assert!(line.starts_with("baton: hooks.on_holder in baton.toml:") && line.contains(says), "{verb}: {line}");
        }
    };
    refused("absent: No such file or directory (os error 2); put the program there");
    std::fs::write(host.path("absent"), "").expect("a file");
    refused("absent cannot be executed by this user; run: chmod +x ");
    host.edit("./absent", "no-such-program");
    refused("\"no-such-program\" is in no directory of PATH; install it, or write its whole path");
    host.edit("no-such-program", "./home");
    refused("home is not a regular file; name the program itself");
    host.edit("./home", "true");
    let output = baton(&["check", "--config", "baton.toml"]).current_dir(&**host).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
