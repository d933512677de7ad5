//! `baton-signer [--json-lines] --key FILE --mark FILE`: the only process that opens the validator's key. All it does is
//! in `host/signer/`; here are its arguments and its last words.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use baton::base::guard_frame::{JSON_LINES, LinesAs};
use baton::host::signer::{run, say, speak};

const USAGE: &str = "usage: baton-signer [--json-lines] --key FILE --mark FILE, started by `baton run` and not by hand";

enum Task {
    Help,
    Sign { key: PathBuf, mark: PathBuf },
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Task::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Task::Sign { key, mark }) => match run(&key, &mark) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                say(&reason);
                ExitCode::FAILURE
            }
        },
        Err(reason) => {
            say(&format!("{reason}; {USAGE}"));
            ExitCode::from(2)
        }
    }
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Task, String> {
    let (mut key, mut mark) = (None, None);
    while let Some(arg) = args.next() {
        let place = match arg.to_str() {
            Some("--help" | "-h") => return Ok(Task::Help),
            Some(JSON_LINES) => {
                speak(LinesAs::Json);
                continue;
            }
            Some("--key") => &mut key,
            Some("--mark") => &mut mark,
            Some(_) | None => return Err(format!("unknown argument {}", arg.display())),
        };
        let file = args.next().ok_or_else(|| format!("{} needs a file", arg.display()))?;
        if place.replace(PathBuf::from(file)).is_some() {
            return Err(format!("{} stands there twice", arg.display()));
        }
    }
    match (key, mark) {
        (Some(key), Some(mark)) => Ok(Task::Sign { key, mark }),
        (None, _) => Err("--key is missing".into()),
        (_, None) => Err("--mark is missing".into()),
    }
}
