//! What tests of plans begin with.

use std::collections::BTreeMap;

use super::{Host, UpgradeReport};
use crate::base::ids::{Role, UpgradeName};

pub fn name(name: &str) -> UpgradeName {
    UpgradeName::new(name).unwrap()
}

/// A ready validator that runs `current`, with nothing to be upgraded to.
pub fn host(id: &str, priority: u32, current: &str) -> Host {
    Host {
        id: id.into(),
        role: Role::Validator,
        priority,
        reachable: true,
        ready: Ok(()),
        synced: true,
        maintenance: false,
        height: 100,
        crashes: 0,
        report: Some(UpgradeReport {
            current: name(current),
            previous: None,
            binaries: BTreeMap::new(),
            under_way: None,
            failed: None,
        }),
    }
}
