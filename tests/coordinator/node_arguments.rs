//! What `baton run` hands to the chain node: the arguments behind `--`, and its own standard output and standard error
//! where `chain.log` is not set. And what `baton check` says of a chain node in cosmovisor's layout.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use crate::kit::host::write_key;
use crate::kit::program::{ONE_MEMBER, Running, baton, end_with_us, free_addresses, write_program};
use crate::kit::stage::Stage;

const CONFIG: &str = r#"
[chain]
driver = "generic"
home = "home"
command = ["home/noded", "start"]
[[chain.links]]
link = "key"
validating = "key"
[chain.probe]
exec = ["true"]
"#;

const NODE: &str = "#!/bin/sh\necho \"it says $*\"\necho \"it moans $*\" >&2\nexec sleep 1000\n";

fn executable(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
    write_program(file, text);
}

fn host(more: &str) -> Stage {
    let [listen] = free_addresses();
    let stage = Stage::new(&[ONE_MEMBER, CONFIG, more].concat().replace("PEERS", &listen));
    executable(&stage.path("home/noded"), NODE);
    write_key(&stage.path("key"), "{}");
    stage
}

#[test]
fn the_chain_node_gets_what_follows_two_dashes_and_the_standard_output_and_error_of_baton() {
    let dir = host("");
    let (out, err) = (dir.path("out"), dir.path("err"));
    let mut command = baton(&["run", "--config", "baton.toml", "--", "--halt-height", "7", "-x"]);
    command.current_dir(&*dir).stdin(Stdio::null());
    command.stdout(File::create(&out).expect("a file")).stderr(File::create(&err).expect("a file"));
    end_with_us(&mut command);
    let running = Running(command.spawn().expect("it starts"));
    let read = |file: &Path| fs::read_to_string(file).expect("a file");
    let (says, moans) = ("it says start --halt-height 7 -x\n", "it moans start --halt-height 7 -x\n");
    dir.until("both said", || (read(&out).contains(says) && read(&err).contains(moans)).then_some(()));
    let (out, err) = (read(&out), read(&err));
    drop(running);
    drop(dir);
    assert!(out.lines().all(|line| line.starts_with("it says ")), "{out}");
    assert!(!err.contains("it says "), "{err}");
}

#[test]
fn a_chain_node_that_is_not_laid_out_is_told_by_check_before_anything_starts() {
    let dir = host("[upgrade]\nname = \"noded\"\n");
    let run = |verb: &str| {
        let output = baton(&[verb, "--config", "baton.toml"]).current_dir(&*dir).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let home = dir.canonicalize().expect("a path").join("home/cosmovisor");
    let line = format!(
        "baton: [upgrade] {} is no directory; put the node's binary at {}, or correct upgrade.root\n",
        home.display(),
        home.join("genesis/bin/noded").display()
    );
    assert_eq!(run("check"), (Some(2), line.clone()));
    assert_eq!(run("run"), (Some(2), line));
    executable(&home.join("genesis/bin/noded"), NODE);
    assert_eq!(run("check"), (Some(0), String::new()));
    assert!(!home.join("current").exists(), "a check changes nothing");
}
