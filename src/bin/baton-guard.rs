//! `baton-guard --socket PATH`: the small process between coordinator and chain node. All it does is in
//! `guard/`; here are its arguments and its last words.

use std::path::PathBuf;
use std::process::ExitCode;

use baton::guard::{run, say};

const USAGE: &str = "usage: baton-guard --socket PATH (absolute); started by `baton run`, not by hand";

fn main() -> ExitCode {
    let socket = match parse(std::env::args_os().skip(1)) {
        Ok(Some(socket)) => socket,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            say(&format!("{reason}; {USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(&socket, tell_ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&e.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The socket, or `None` for `--help`.
fn parse(mut args: impl Iterator<Item = std::ffi::OsString>) -> Result<Option<PathBuf>, String> {
    let socket = match args.next() {
        Some(arg) if arg == "--help" || arg == "-h" => return Ok(None),
        Some(arg) if arg == "--socket" => PathBuf::from(args.next().ok_or("--socket needs a path")?),
        Some(arg) => return Err(format!("unknown argument {}", arg.display())),
        None => return Err("--socket is missing".into()),
    };
    match args.next() {
        Some(arg) => Err(format!("unknown argument {}", arg.display())),
        None if !socket.is_absolute() => Err(format!("--socket {} is not an absolute path", socket.display())),
        None => Ok(Some(socket)),
    }
}

/// One line for whoever started us; then standard output is where standard error is, so that a reader
/// sees the end of the line and a chain node without a log inherits something open.
fn tell_ready() {
    let _ = rustix::io::write(rustix::stdio::stdout(), b"ready\n");
    let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
}
