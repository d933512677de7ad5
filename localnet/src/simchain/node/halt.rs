//! Where a node stops because its binary is not the one that the chain wants now.

use super::super::chain::Anchor;
use super::super::message::{BadMessage, Block};
use super::super::upgrades::{self, Halt, Planned};
use super::Node;

impl Node {
    /// Halts when this binary may not go on. A block of the slot before may still be on its way: so a node that waits
    /// for others to propose halts one slot later.
    pub(super) fn look_for_upgrades(&mut self, slot: u64) {
        if let Err(error) = self.upgrades.look() {
            self.note(error);
        }
        if self.halted.is_some() || !self.caught_up {
            return;
        }
        if let Some(planned) = self.upgrades.needed_at(slot.saturating_sub(1)).cloned() {
            self.halt_for(&planned);
        } else if let Some(planned) = self.upgrades.too_early_at(slot).cloned() {
            self.halt(upgrades::too_early(&planned));
        }
    }

    /// True when the block is not to be taken in, because this binary lacks an upgrade at or below its height.
    pub(super) fn halts_before(&mut self, block: &Block, slot: u64, anchor: Anchor) -> Result<bool, BadMessage> {
        let Some(planned) = self.upgrades.needed_at(block.height).cloned() else { return Ok(false) };
        block.verify(&self.genesis, slot)?;
        let reached = self.chain.continues(block, anchor);
        if reached {
            self.halt_for(&planned);
        }
        Ok(reached)
    }

    pub(super) fn halt_for(&mut self, planned: &Planned) {
        if let Err(error) = upgrades::leave_info(&self.config.data, planned) {
            self.note(format_args!("leave upgrade-info.json in {}: {error}", self.config.data.display()));
        }
        self.halt_height = Some(planned.height.saturating_sub(1));
        self.halt(upgrades::needed(planned));
    }

    fn halt(&mut self, why: String) {
        match self.upgrades.options.halt {
            Halt::Exit => self.ends.notify_one(),
            // The process ends with these words otherwise.
            Halt::Stay => self.note(&why),
        }
        self.halted = Some(why);
    }
}
