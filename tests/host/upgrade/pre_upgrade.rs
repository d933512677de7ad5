//! `pre-upgrade` of the new binary, and what its exit codes mean.

use std::fs;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use baton::core::upgrades::Step;
use baton::host::upgrade::{OsFiles, Upgrades, Wanted};
use rustix::process::{Pid, test_kill_process};

use super::kit::{Home, carry_out, failed_in, name, wanted, without_backup};

/// For what is sure to happen, on any machine.
const BOUND: Duration = Duration::from_secs(60);

fn home(script: &str) -> Home {
    let home = without_backup(Home::with_v2_due());
    home.put_script("upgrades/v2", script);
    home
}

/// Why the upgrade does not go on, and that the old binary starts then.
fn fails(home: &Home) -> String {
    let reason = failed_in(home.carry_out(&wanted("v2")), Step::PreUpgrade);
    assert_eq!(home.upgrades().program().expect("a binary"), home.path("cosmovisor/genesis/bin/gaiad"));
    assert!(home.due().is_some(), "it is still to be done");
    let shown = home.path("cosmovisor/upgrades/v2/bin/gaiad");
    reason.strip_prefix(&format!("{} pre-upgrade ", shown.display())).unwrap_or(&reason).to_owned()
}

#[test]
fn it_is_the_new_binary_with_one_argument_in_the_home_and_environment_of_the_chain_node() {
    let mut home = home("echo \"$@ $PWD $DAEMON_HOME $DAEMON_NAME $OWN\" > seen");
    fs::create_dir(home.path("home")).expect("a folder");
    home.settings.home = home.path("home").canonicalize().expect("a path");
    home.settings.env.insert("OWN".to_owned(), "yes".to_owned());
    home.carry_out(&wanted("v2")).expect("carried out");
    let (at, root) = (home.settings.home.display(), home.settings.root.display());
    assert_eq!(home.read("home/seen"), format!("pre-upgrade {at} {root} gaiad yes\n"));
}

#[test]
fn it_runs_before_the_swap() {
    let home = home("readlink \"$DAEMON_HOME/cosmovisor/current\" > \"$DAEMON_HOME/seen\"");
    home.upgrades().program().expect("current is made");
    home.carry_out(&wanted("v2")).expect("carried out");
    assert_eq!(home.read("seen"), "genesis\n");
}

#[test]
fn code_0_and_a_binary_without_the_command_go_on() {
    for code in [0, 1] {
        let home = home(&format!("exit {code}"));
        home.carry_out(&wanted("v2")).expect("carried out");
        assert_eq!(home.current(), "v2", "{code}");
    }
}

#[test]
fn code_30_and_any_other_fail_with_what_it_said_last() {
    let reason = fails(&home("echo first; echo migrate by hand >&2; exit 30"));
    assert_eq!(reason, "has failed with code 30 (migrate by hand); see the log, mend what it says");
    assert_eq!(fails(&home("exit 2")), "ended with code 2; see the log, mend what it says");
    assert_eq!(fails(&home("kill -KILL $$")), "was ended by signal 9; see the log");
}

#[test]
fn code_31_is_run_again_as_often_as_is_allowed() {
    let script = "echo x >> \"$DAEMON_HOME/runs\"; test $(wc -l < \"$DAEMON_HOME/runs\") -gt 2 || exit 31";
    let mut home = home(script);
    home.settings.preupgrade_retries = 1;
    let reason = fails(&home);
    assert_eq!(reason, "asked 2 times to be run again; see the log, or raise upgrade.preupgrade_retries");
    assert_eq!(home.read("runs"), "x\nx\n");
    fs::remove_file(home.path("runs")).expect("removed");
    home.settings.preupgrade_retries = 2;
    home.carry_out(&wanted("v2")).expect("the third one ends well");
    assert_eq!(home.read("runs"), "x\nx\nx\n");
}

#[test]
fn on_the_way_back_it_is_not_run() {
    let home = home("exit 30");
    home.carry_out(&Wanted { name: name("v2"), back: true }).expect("carried out");
    assert_eq!(home.current(), "v2");
}

#[test]
fn one_that_does_not_end_is_killed_with_all_that_it_has_started() {
    let home = home("echo begun; sleep 1000 & echo $! > \"$DAEMON_HOME/child\"; wait");
    // Long enough to write the number of its child on any machine, if not to sleep.
    let upgrades = Upgrades::on(home.settings.clone(), Arc::new(OsFiles), Duration::from_secs(5));
    let reason = failed_in(carry_out(&upgrades, &wanted("v2")), Step::PreUpgrade);
    assert!(reason.ends_with("did not end within 5s and was killed; see the log"), "{reason}");
    let child = home.read("child").trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
    // It was told to die; that and whoever reaps it take a moment.
    let stat = || fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero())).unwrap_or_default();
    let began_at = Instant::now();
    while test_kill_process(child).is_ok() && !stat().contains(") Z ") {
        assert!(began_at.elapsed() < BOUND, "it is still there: {}", stat());
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn one_that_leaves_something_running_does_not_keep_the_upgrade() {
    let home = home("sleep 1000 & echo done");
    home.carry_out(&wanted("v2")).expect("carried out");
}

#[test]
fn more_output_than_a_pipe_holds_does_not_stop_it() {
    let home =
        home("i=0; while [ $i -lt 4000 ]; do echo a line of some length, again and again; i=$((i+1)); done; exit 30");
    assert!(fails(&home).contains("(a line of some length, again and again)"));
}

#[test]
fn a_binary_that_cannot_be_run_fails_and_the_old_one_stays() {
    let home = without_backup(Home::with_v2_due());
    home.write("cosmovisor/upgrades/v2/bin/gaiad", "#!/nowhere/at/all\n");
    let reason = fails(&home);
    assert!(reason.contains("pre-upgrade: ") && reason.ends_with("; replace it"), "{reason}");
}

#[test]
fn a_binary_that_is_missing_is_told_with_its_place() {
    let home = without_backup(Home::new());
    let reason = failed_in(home.carry_out(&wanted("v2")), Step::Swap);
    let place = home.path("cosmovisor/upgrades/v2/bin/gaiad");
    assert_eq!(reason, format!("its binary is not at {}; put it there with mode 755", place.display()));
}
