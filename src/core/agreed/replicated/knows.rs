//! What a member must know to follow a log. Later versions write entries that earlier ones cannot read, and a member
//! that cannot read an entry refuses to append it, and follows no longer. Each says what it knows in every message
//! (`Sender.knows`). `coordinator` asks here before such an entry is written, and before a member is added.

use super::Replicated;

/// Upgrade plans.
pub const KNOWS_PLANS: u32 = 1;
/// Floors that an operator lays.
pub const KNOWS_LAID_FLOORS: u32 = 2;
/// Requests to sign.
pub const KNOWS_SIGNING: u32 = 3;
/// What this build can read in a log.
pub const KNOWS: u32 = KNOWS_SIGNING;

impl Replicated {
    /// What a member must know that is to follow the log of this state. The entries themselves may be gone from it;
    /// then this asks for more than it must.
    pub fn needs(&self) -> u32 {
        let laid = self.moves.iter().any(|row| row.laid.is_some());
        let planned = !self.plans.0.is_empty();
        if self.sign_log.is_some() {
            KNOWS_SIGNING
        } else if laid {
            KNOWS_LAID_FLOORS
        } else if planned {
            KNOWS_PLANS
        } else {
            0
        }
    }
}

/// The newest of what a log that `needs` this has in it, for operators.
pub fn in_words(needs: u32) -> &'static str {
    match needs {
        KNOWS_SIGNING.. => "requests to sign",
        KNOWS_LAID_FLOORS => "floors that an operator laid",
        _ => "upgrade plans",
    }
}
