//! What /proc shows of a process that does nothing but execute one program after the other.

use std::process::Command;

use crate::kit::program::{Running, end_with_us, write_program};
use baton::base::processes::{Environment, environment, read_at_once};

const LOOKS: usize = 20_000;
/// Longer than what a reader takes at first.
const LONG: &str = "/srv/a/path/that/is/long/enough/to/be/read/in/more/than/one/call/and/then/some";

/// Invariants: the proof of a node's end (rule (c)) rests on the environment, and the home of a chain node is judged by its
/// arguments.
#[test]
fn its_arguments_and_its_environment_are_seen_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("again");
    write_program(&program, "#!/bin/sh\nexec \"$0\" \"$@\"\n");
    let mut command = Command::new(&program);
    command.args(["--home", LONG]).env_clear().env("HOME_OF_NODE", LONG);
    end_with_us(&mut command);
    let running = Running(command.spawn().expect("it starts"));
    let pid = running.0.id();
    let arguments = format!("/bin/sh\0{}\0--home\0{LONG}\0", program.display()).into_bytes();
    let variable = format!("HOME_OF_NODE={LONG}").into_bytes();
    let (mut whole, mut unclear) = (0, 0);
    for look in 0..LOOKS {
        let line = read_at_once(format!("/proc/{pid}/cmdline")).expect("it runs");
        assert!(line.is_empty() || line == arguments, "look {look}: {}", String::from_utf8_lossy(&line));
        match environment(pid) {
            Environment::Of(all) => {
                let is_whole = all.split(|byte| *byte == 0).any(|one| one == variable);
                assert!(is_whole, "look {look}: {}", String::from_utf8_lossy(&all));
                whole += 1;
            }
            Environment::Unclear => unclear += 1,
            Environment::None => panic!("look {look}: it has an environment, and runs"),
        }
    }
    println!("of {LOOKS} looks, {whole} showed the environment, and {unclear} that it cannot be seen yet");
    assert!(whole > LOOKS / 2, "{whole} of {LOOKS}");
}
