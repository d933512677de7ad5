//! What a chain node has started below its own process, where the kernel would not end it with the guard.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process that the chain node has started, and that would outlive a guard that is killed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Descendant {
    pub pid: u32,
    pub name: String,
}

impl fmt::Display for Descendant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Descendant { pid, name } = self;
        write!(
            f,
            "process {pid} ({name}) would outlive a killed guard: end the script in chain.command in exec; this host gives the \
             chain node no PID namespace"
        )
    }
}
