//! The command line of `localnet`, by what its commands have to do with a network.

use std::process::ExitCode;

pub(crate) mod args;
pub(crate) mod runs;
pub(crate) mod slips;
pub(crate) mod verbs;

pub(crate) fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
