//! A chain node on this host that is not ours: it answers where ours is probed, or has its home open.

use super::{Host, Node};

impl Host {
    /// Who it is, and what to do about it.
    pub fn foreign_node(&self) -> Option<&str> {
        self.foreign_node.as_deref()
    }

    /// Its health is not ours, and what was known of ours before may have been its already.
    pub fn found_foreign(&mut self, found: Option<String>) {
        if found.is_some() {
            self.health = None;
        }
        self.foreign_node = found;
    }

    /// Nothing was started, and nothing has failed: it is tried again at once when the other node is gone.
    pub fn start_withheld(&mut self) {
        if self.node == Node::Starting {
            self.node = Node::Stopped;
        }
    }
}
