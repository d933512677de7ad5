//! The `[hooks]` section: commands that are told what has happened on this host. `check_hooks` looks at their programs,
//! at the start and in `baton check`.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::error::ConfigError;
use super::file::Document;
use super::{HookCommand, Hooks};
use crate::base::hooks::HookEvent;
use crate::base::ids::{NodeId, Role};

const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

pub(super) fn hooks(doc: &Document, id: &NodeId, role: Role) -> Result<Hooks, ConfigError> {
    let mut commands = BTreeMap::new();
    for event in HookEvent::ALL {
        let key = format!("hooks.{}", event.as_str());
        let Some(argv) = doc.argv(&key)? else { continue };
        if role == Role::Arbiter && event != HookEvent::LostQuorum {
            let problem = format!("{id} is an arbiter and never holds the baton, so this never runs; remove it");
            return Err(doc.bad(&key, problem));
        }
        let at = doc.at(&key);
        commands.insert(event, HookCommand { key, at, argv });
    }
    let timeout = doc.duration_within("hooks.timeout", TIMEOUT_MIN, TIMEOUT_MAX)?;
    if timeout.is_some() && commands.is_empty() {
        return Err(doc.bad("hooks.timeout", "means nothing without a hook; name one, as on_holder, or remove it"));
    }
    Ok(Hooks { commands, timeout: timeout.unwrap_or(TIMEOUT) })
}

/// The program of every hook is a file that this user may execute.
///
/// # Errors
/// Names the first that is not, where it was written, and what to do. Nothing was executed.
pub fn check_hooks(hooks: &Hooks) -> Result<(), ConfigError> {
    hooks.commands.values().try_for_each(|command| {
        let program = command.argv.first().map(String::as_str).unwrap_or_default();
        check_program(program).map_err(|problem| ConfigError::Bad {
            key: command.key.clone(),
            at: command.at.clone(),
            problem,
        })
    })
}

fn check_program(program: &str) -> Result<(), String> {
    if !program.contains('/') {
        let path = env::var_os("PATH").unwrap_or_default();
        return match found_in(&path, program) {
            Some(_) => Ok(()),
            None => Err(format!("{program:?} is in no directory of PATH; install it, or write its whole path")),
        };
    }
    let file = Path::new(program);
    let found = file.metadata().map_err(|error| format!("{program}: {error}; put the program there"))?;
    if !found.is_file() {
        return Err(format!("{program} is not a regular file; name the program itself"));
    }
    if !is_executable(file) {
        return Err(format!("{program} cannot be executed by this user; run: chmod +x {program}"));
    }
    Ok(())
}

fn found_in(path: &OsStr, program: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|dir| dir.join(program)).find(|file| file.is_file() && is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}
