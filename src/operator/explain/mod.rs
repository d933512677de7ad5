//! What a coordinator's answers mean to people: who holds the baton and why, whether a failover would work now, what is
//! wrong. In sentences that `baton why`, `baton status` and the status page share. Reads the answers and nothing else,
//! and judges nothing that the coordinators do not judge themselves.

mod differences;
mod signer;
mod timeline;
pub mod upgrades;
mod why;
mod words;

pub use differences::{differences, differences_to, timing_mismatches};
pub use signer::{granted_at, lost_sentries, sign_log, signed};
pub use timeline::{Part, in_ms, parts};
pub use why::{Why, in_words};
pub use words::{
    active_holder, ago, certificate_until, defects, finished, gap, is_active, is_good_news, key_alarm, notes, or_dash,
    settling,
};
