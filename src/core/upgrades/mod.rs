//! Upgrades of the chain node across the cluster: the plans that the members agreed on, what each host tells of its own
//! binaries, and whose turn is next. Pure. An upgrade decides who stops when, never whether it is safe to sign: the
//! fences know nothing of it.

#[cfg(test)]
mod kit;
pub mod next;
pub mod plan;
pub mod report;
pub mod request;

pub use next::{Host, Next, Situation, next};
pub use plan::{Plan, PlanStage, Plans, check_source};
pub use report::{BinaryReport, Failed, Step, UnderWay, UpgradeReport};
pub use request::{Facts, Wanted, check_known};
