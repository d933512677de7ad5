//! The process: whose it is, what it dies with, what its mark survives, and who can see its memory.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use baton::base::realtime::{Priority, take};
use baton::base::signing::Hrs;
use baton::host::signer::frames::proto::{RefusedKind, Request, answer::Answer};
use baton::host::signer::{MarkFile, Signer as InProcess, SigningKey};
use baton::host::signer_client::{SignerClient, SignerSettings, SignerState};
use rustix::process::Signal;

use super::kit::*;
use crate::kit::crash::may_trace;
use crate::kit::crash::trace::{Open, Recording, TraceError, record};
use crate::kit::hang::Disk;
use crate::kit::program::Running;

const PREVOTE: u32 = Hrs::PREVOTE;

#[test]
fn no_signature_leaves_while_the_disk_hangs_and_a_signer_killed_then_has_signed_nothing() {
    let place = Place::new();
    place.imported().signed(&vote(PREVOTE, 3, 0, Some(1)));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (child, disk) = Disk::under(&mut place.command(OwnedFd::from(theirs)), |command| command.spawn().unwrap());
    let mut signer = Signer::new(child, ours);
    signer.next().expect("a public key");
    for (height, killed) in [(4, false), (5, true)] {
        disk.hang();
        let held = disk.held();
        signer.send(sign(&vote(PREVOTE, height, 0, Some(1))));
        await_that("a sync that hangs", || (disk.held() > held).then_some(()));
        signer.stream.set_nonblocking(true).unwrap();
        let early = signer.stream.read(&mut [0]);
        assert_eq!(early.unwrap_err().kind(), ErrorKind::WouldBlock, "it answered before the disk");
        signer.stream.set_nonblocking(false).unwrap();
        if killed {
            signer.child.kill().unwrap();
        }
        disk.thaw();
        if !killed {
            signer.next().expect("a signature");
        }
    }
    signer.child.wait().unwrap();
    // Whatever was asked for and not signed may be asked for otherwise.
    let mut next = place.signer();
    assert_eq!(next.ask(raise(0, 0, 0)), raised(4, 0, PREVOTE));
    next.signed(&vote(PREVOTE, 5, 0, Some(2)));
}

#[test]
fn a_sync_that_fails_gives_no_signature_and_no_other_content_a_place() {
    let place = Place::new();
    drop(place.imported());
    for failing in 0..2 {
        let count = Cell::new(0);
        let fail_one = move |_: &Path| {
            count.set(count.get() + 1);
            if count.get() == failing + 1 { Err(io::Error::other("no sync")) } else { Ok(()) }
        };
        let mark = MarkFile::open(&place.mark()).unwrap().observed(Box::new(fail_one));
        let mut signer = InProcess::new(SigningKey::parse(ED25519_FILE.as_bytes()).unwrap(), mark);
        let mut ask = |ask| signer.answer(Request { id: 1, ask: Some(ask) }).answer.expect("an answer");
        let asked = vote(PREVOTE, i64::from(failing) + 1, 0, Some(1));
        let Answer::Refused(refused) = ask(sign(&asked)) else { panic!("signed without sync {failing}") };
        assert_eq!(refused.kind(), RefusedKind::Mark);
        assert!(refused.text.contains("no sync"), "{}", refused.text);
        assert!(matches!(ask(sign(&asked)), Answer::Signatures(_)), "the disk is well again");
    }
}

#[test]
fn the_mark_outlives_the_signer_and_a_torn_one_is_named() {
    let place = Place::new();
    let asked = vote(PREVOTE, 8, 0, Some(1));
    let signature = place.imported().signed(&asked);
    let mut signer = place.signer();
    assert_eq!(signer.refused(sign(&vote(PREVOTE, 8, 0, None))).0, RefusedKind::Conflict);
    assert_eq!(signer.signed(&asked), signature);
    drop(signer);
    let whole = fs::read(place.mark()).unwrap();
    for torn in [&whole[..whole.len() - 1], &whole[..0]] {
        fs::write(place.mark(), torn).unwrap();
        let (kind, text) = place.refused_start();
        assert_eq!(kind, RefusedKind::Mark);
        assert!(text.contains(&place.mark().display().to_string()) && text.contains("checksum"), "{text}");
    }
    fs::remove_file(place.mark()).unwrap();
    fs::create_dir(place.mark()).unwrap();
    assert_eq!(place.refused_start().0, RefusedKind::Mark, "what cannot be read is not taken for none");
}

#[test]
fn one_signer_at_a_time_uses_a_mark() {
    let place = Place::new();
    let mut first = place.imported();
    let (kind, text) = place.refused_start();
    assert_eq!(kind, RefusedKind::Mark);
    assert!(text.contains("another signer"), "{text}");
    first.kill();
    place.signer().signed(&vote(PREVOTE, 1, 0, None));
}

#[test]
fn it_ends_when_the_coordinator_closes_its_end() {
    let place = Place::new();
    let mut signer = place.signer();
    signer.stream.shutdown(Shutdown::Both).unwrap();
    assert_eq!(signer.exit_code(), 0);
}

#[test]
fn wrong_arguments_are_one_clear_line_and_code_2() {
    for (args, expected) in [
        (&[][..], "--key is missing"),
        (&["--key", "a"], "--mark is missing"),
        (&["--key", "a", "--mark"], "--mark needs a file"),
        (&["--key", "a", "--key", "b"], "--key stands there twice"),
        (&["--socket", "a"], "unknown argument --socket"),
    ] {
        let output = Command::new(SIGNER).args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected) && said.contains("usage: ") && said.lines().count() == 1, "{said}");
    }
    let mut json = Command::new(SIGNER);
    let output = json.args(["--json-lines", "--key", "a", "--mark", "b"]).stdin(Stdio::null()).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!((output.status.code(), said["program"].as_str()), (Some(1), Some("baton-signer")));
}

/// What signs for nobody: it says why and ends.
fn refuses_to_serve(place: &Place, command: &mut Command, expected: &str) {
    let mut child = Running(command.spawn().unwrap());
    let status = await_that("the end of what serves nobody", || child.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1), "{}", place.log());
    assert!(place.log().contains(expected), "{expected:?} is not in {}", place.log());
    assert!(!place.mark().with_added_extension("lock").exists(), "it came as far as its mark");
}

#[test]
fn it_serves_nobody_but_the_coordinator_that_started_it() {
    let place = Place::new();
    refuses_to_serve(&place, &mut place.command(Stdio::null()), "no socket of a coordinator");
    // Its parent is a shell, which stays, and the socket ours.
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#""$0" "$@"; exit $?"#, SIGNER, "--key"]).arg(place.key()).arg("--mark").arg(place.mark());
    let log = File::options().append(true).open(place.dir().join("log")).unwrap();
    refuses_to_serve(&place, shell.stdin(OwnedFd::from(theirs)).stderr(log), "the parent is");
    let Some((_ours, theirs)) = sockets_of_another_user() else { return };
    refuses_to_serve(&place, &mut place.command(OwnedFd::from(theirs)), "the coordinator is of user 65534");
}

/// Only root can make one; its own thread, since the kernel notes the user of the thread.
fn sockets_of_another_user() -> Option<(UnixStream, UnixStream)> {
    if !rustix::process::getuid().is_root() {
        eprintln!("left out: only root becomes another user");
        return None;
    }
    let made = thread::spawn(|| {
        // SAFETY: one system call, of this thread alone, which then ends.
        #[allow(unsafe_code)]
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, -1) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        UnixStream::pair().unwrap()
    });
    Some(made.join().unwrap())
}

#[test]
fn its_memory_is_closed_before_the_key_is_opened() {
    let place = Place::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let fd = theirs.as_raw_fd();
    let mut command = Command::new("sh");
    command.args(["-c", r#"read go; exec "$0" "$@" <&3"#, SIGNER]);
    command.arg("--key").arg(place.key()).arg("--mark").arg(place.mark());
    // SAFETY: one system call.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || if libc::dup2(fd, 3) == 3 { Ok(()) } else { Err(io::Error::last_os_error()) });
    }
    let recording: Result<Recording, TraceError> = record(place.dir(), &mut command, |_| false);
    if !may_trace(&recording) {
        return;
    }
    let recording = recording.unwrap();
    assert!(recording.ended);
    let opened: Vec<_> = recording.opens.into_iter().filter(|open| open.path.as_os_str() == "key.json").collect();
    assert_eq!(opened, [Open { path: "key.json".into(), dumpable: false }]);
}

#[test]
fn its_memory_is_locked_or_it_says_that_it_is_not() {
    let place = Place::new();
    let signer = place.signer();
    let status = fs::read_to_string(format!("/proc/{}/status", signer.child.id())).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    let is_locked = locked.trim() != "0 kB";
    assert_eq!(is_locked, !place.log().contains("memory is not locked"), "{locked}, {}", place.log());
}

/// Policy and nice value, as proc(5) tells them.
fn scheduling(pid: u32) -> (i32, i32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[38].parse().unwrap(), fields[16].parse().unwrap())
}

#[test]
fn it_has_no_real_time_priority_however_it_was_started() {
    let result = thread::spawn(|| {
        take(Priority::Coordinator)?;
        let place = Place::new();
        let signer = place.signer();
        assert_eq!(scheduling(signer.child.id()).0, libc::SCHED_OTHER, "from a coordinator");
        drop(signer);
        // By somebody who hands it down.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = place.command(OwnedFd::from(theirs));
        // SAFETY: one system call, which reads one int.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                let parameters: libc::c_int = 1;
                let policy = libc::SCHED_FIFO;
                match libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let mut signer = Signer::new(command.spawn()?, ours);
        signer.next().expect("a public key");
        assert_eq!(scheduling(signer.child.id()).0, libc::SCHED_OTHER, "from a FIFO");
        Ok::<(), io::Error>(())
    });
    if let Err(error) = result.join().unwrap() {
        assert!(std::env::var_os("BATON_REQUIRE_REALTIME").is_none(), "no real-time priority here: {error}");
        eprintln!("left out: no real-time priority here: {error}");
    }
}

const VICTIM: &str = "BATON_SIGNER_PLACE";

/// The coordinator of [`it_dies_with_its_coordinator_stopped_or_not`]. Without its environment, there is nothing to do.
#[tokio::test]
async fn coordinator() {
    let Ok(dir) = std::env::var(VICTIM) else { return };
    let dir = Path::new(&dir);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let settings = SignerSettings {
        binary: SIGNER.into(),
        key: dir.join("key.json"),
        mark: dir.join("mark"),
        lines_as: Default::default(),
    };
    let client = SignerClient::start(settings);
    let mut state = client.state();
    loop {
        if let SignerState::Running { pid, .. } = &*state.borrow_and_update() {
            fs::write(dir.join("pid.new"), pid.to_string()).unwrap();
            fs::rename(dir.join("pid.new"), dir.join("pid")).unwrap();
        }
        state.changed().await.expect("the client is there");
    }
}

#[test]
fn it_dies_with_its_coordinator_stopped_or_not() {
    for stopped in [false, true] {
        let place = Place::new();
        let mut coordinator = Command::new(std::env::current_exe().unwrap());
        coordinator.args(["--exact", "signer::process::coordinator", "--nocapture"]).env(VICTIM, place.dir());
        coordinator.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut coordinator = Running(coordinator.spawn().unwrap());
        let pid = await_that("a signer", || fs::read_to_string(place.dir().join("pid")).ok()?.parse::<u32>().ok());
        assert!(lives(pid));
        if stopped {
            signal(pid, Signal::STOP);
        }
        coordinator.0.kill().unwrap();
        coordinator.0.wait().unwrap();
        await_death(pid);
    }
}
