//! `baton-guard [--json-lines] --socket PATH`: the small process between coordinator and chain node. `baton-guard
//! public-key`: a smaller one, which reads a key file for the coordinator; `baton-guard same-key` compares some.
//! `baton-guard first-process`: the smallest, beside a chain node. All they do is in `guard/`; here are their arguments
//! and their last words.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use baton::base::guard_frame::{Containment, JSON_LINES, LinesAs};
use baton::base::public_key::KeyFormat;
use baton::host::guard::{
    FIRST_PROCESS, TRY_NAMESPACE, first_process, public_key, run, same_key, say, speak, try_namespace,
};
use rustix::fs::{OFlags, fcntl_getfl};

const USAGE: &str = "usage: baton-guard [--json-lines] --socket PATH (absolute), started by `baton run` and not by hand; \
                     or baton-guard public-key --format near|cometbft FILE; or baton-guard same-key FILE FILE…";

enum Task {
    Help,
    Guard { socket: PathBuf },
    PublicKey { format: KeyFormat, file: PathBuf },
    FirstProcess,
    TryNamespace,
    SameKey { files: Vec<PathBuf> },
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Task::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Task::Guard { socket }) => ended(run(&socket, tell_ready).map_err(|error| error.to_string())),
        Ok(Task::PublicKey { format, file }) => {
            let key = public_key(format, &file).map_err(|reason| format!("{}: {reason}", file.display()));
            ended(key.map(|key| println!("{key}")))
        }
        Ok(Task::TryNamespace) => {
            println!("{}", try_namespace().err().unwrap_or_else(|| Containment::PidNamespace.word().into()));
            ExitCode::SUCCESS
        }
        Ok(Task::FirstProcess) => ended(first_process().map_err(|error| error.to_string())),
        Ok(Task::SameKey { files }) => ended(same_key(&files).map(|pairs| println!("{pairs}"))),
        Err(reason) => {
            say(&format!("{reason}; {USAGE}"));
            ExitCode::from(2)
        }
    }
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(&reason);
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Task, String> {
    let mut first = args.next();
    if first.as_ref().is_some_and(|arg| arg == JSON_LINES) {
        speak(LinesAs::Json);
        first = args.next();
    }
    let task = match first {
        Some(arg) if arg == "--help" || arg == "-h" => return Ok(Task::Help),
        Some(arg) if arg == "--socket" => Task::Guard { socket: absolute(args.next(), "--socket")? },
        Some(arg) if arg == "public-key" => {
            if args.next().is_none_or(|option| option != "--format") {
                return Err("public-key needs --format".into());
            }
            let format = args.next().unwrap_or_default();
            let format = format.to_str().and_then(KeyFormat::named).ok_or("--format is near or cometbft")?;
            Task::PublicKey { format, file: args.next().ok_or("public-key needs a file")?.into() }
        }
        Some(arg) if arg == TRY_NAMESPACE => Task::TryNamespace,
        Some(arg) if arg.as_encoded_bytes() == FIRST_PROCESS.to_bytes() => Task::FirstProcess,
        Some(arg) if arg == "same-key" => {
            let files: Vec<PathBuf> = args.by_ref().map(PathBuf::from).collect();
            if files.is_empty() {
                return Err("same-key needs files".into());
            }
            Task::SameKey { files }
        }
        Some(arg) => return Err(format!("unknown argument {}", arg.display())),
        None => return Err("--socket is missing".into()),
    };
    match args.next() {
        Some(arg) => Err(format!("unknown argument {}", arg.display())),
        None => Ok(task),
    }
}

fn absolute(path: Option<OsString>, option: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path.ok_or_else(|| format!("{option} needs a path"))?);
    if path.is_absolute() { Ok(path) } else { Err(format!("{option} {} is not an absolute path", path.display())) }
}

/// One line for whoever started us; then standard output is where a chain node without a log is to write: what we were
/// given as standard input if that can be written, else standard error. So a reader sees the end of the line.
fn tell_ready() {
    let _ = rustix::io::write(rustix::stdio::stdout(), b"ready\n");
    let given = rustix::stdio::stdin();
    let is_output = fcntl_getfl(given).is_ok_and(|flags| flags.intersection(OFlags::RWMODE) != OFlags::RDONLY);
    let _ = rustix::stdio::dup2_stdout(if is_output { given } else { rustix::stdio::stderr() });
}
