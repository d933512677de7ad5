//! An upgrade of the own chain node, as far as it keeps the node from being started: due, then under way, then over.

use serde::{Deserialize, Serialize};

use super::{Host, Node};
use crate::base::ids::UpgradeName;
use crate::base::time::BootTime;
use crate::core::Action;

/// One that is to be carried out, or is being.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Upgrade {
    pub(super) name: UpgradeName,
    back: bool,
    under_way: bool,
}

impl Host {
    /// The newest word counts until it is under way. What is asked for after that is told again when this one is over.
    pub fn upgrade_due(&mut self, name: UpgradeName, back: bool) {
        let under_way = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.under_way);
        if self.runs_node && !under_way {
            self.upgrade = Some(Upgrade { name, back, under_way });
        }
    }

    /// To what the node is being upgraded, or is about to be.
    pub fn upgrading(&self) -> Option<&UpgradeName> {
        self.upgrade.as_ref().map(|upgrade| &upgrade.name)
    }

    /// Invariant (rule (c)): a node is stopped for an upgrade only once it is proven to have no key, so that the
    /// upgrade, however long it takes and however it ends, leaves nothing to prove.
    pub fn begin_upgrade(&mut self, out: &mut Vec<Action>) {
        let ready = self.guard && self.proven && self.is_at_rest();
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| ready && !upgrade.under_way) else { return };
        upgrade.under_way = true;
        out.push(Action::Upgrade { name: upgrade.name.clone(), back: upgrade.back });
        if self.is_node_running() {
            self.node = Node::Stopping;
        }
    }

    /// Whether one was under way. The node may be started at once; a new binary has nothing to answer for.
    pub fn upgrade_ended(&mut self, now: BootTime, failed: bool) -> bool {
        if self.upgrade.take_if(|upgrade| upgrade.under_way).is_none() {
            return false;
        }
        self.start_at = now;
        if !failed {
            (self.crashes, self.steady_at) = (0, now);
            self.probe_error.clear();
        }
        true
    }
}
