//! The coordinator and the operator's commands. All of it is in `baton::cli`; nothing is decided here.

use std::process::ExitCode;

fn main() -> ExitCode {
    baton::cli::main()
}
