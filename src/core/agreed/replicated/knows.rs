//! What a member must know to follow a log. Later versions write entries that earlier ones cannot read, and a member
//! that cannot read an entry refuses to append it, and follows no longer. Each says what it knows in every message
//! (`Sender.knows`). `coordinator` asks here before such an entry is written, and before a member is added.

use super::Replicated;

/// Upgrade plans.
pub const KNOWS_PLANS: u32 = 1;
/// Floors that an operator lays.
pub const KNOWS_LAID_FLOORS: u32 = 2;
/// What this build can read in a log.
pub const KNOWS: u32 = KNOWS_LAID_FLOORS;

impl Replicated {
    /// What a member must know that is to follow the log of this state. The entries themselves may be gone from it;
    /// then this asks for more than it must.
    pub fn needs(&self) -> u32 {
        let laid = self.moves.iter().any(|row| row.laid.is_some());
        let planned = !self.plans.0.is_empty();
        match (laid, planned) {
            (true, _) => KNOWS_LAID_FLOORS,
            (false, true) => KNOWS_PLANS,
            (false, false) => 0,
        }
    }
}

/// The newest of what a log that `needs` this has in it, for operators.
pub fn in_words(needs: u32) -> &'static str {
    if needs >= KNOWS_LAID_FLOORS { "floors that an operator laid" } else { "upgrade plans" }
}
