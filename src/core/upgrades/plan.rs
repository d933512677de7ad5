//! The plans of upgrades that the cluster agreed on, as part of the replicated state.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, UpgradeName};
use crate::base::time::WallTime;

/// Plans that are kept; the oldest that has ended goes first.
pub const PLANS_MAX: usize = 20;

/// Bytes of a source: the whole state stays far below the size at which the store would put it into a file of its own.
pub const SOURCE_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    pub name: UpgradeName,
    /// At which the chain halts, so that every host swaps by itself; `None`: one host after the other.
    pub height: Option<u64>,
    /// Where a host without the binary gets it: an absolute path there, or a URL with a checksum. `None`: an operator
    /// puts it there. A plan that has ended has none.
    pub source: Option<String>,
    /// Back to a binary that ran before: no `pre-upgrade`.
    pub back: bool,
    pub planned_at: WallTime,
    pub stage: PlanStage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PlanStage {
    /// Hosts get the binary; nobody has had a turn.
    Preparing,
    /// Rolling: `turn` may stop its chain node, nobody else. Only a standby gets one.
    Rolling {
        turn: Option<NodeId>,
        done: BTreeSet<NodeId>,
    },
    Done {
        at: WallTime,
    },
    Cancelled {
        at: WallTime,
    },
    /// At this member, and why; the baton stays where it is.
    Failed {
        member: NodeId,
        reason: String,
        at: WallTime,
    },
}

impl PlanStage {
    pub fn has_ended(&self) -> bool {
        match self {
            PlanStage::Preparing | PlanStage::Rolling { .. } => false,
            PlanStage::Done { .. } | PlanStage::Cancelled { .. } | PlanStage::Failed { .. } => true,
        }
    }
}

impl Plan {
    /// Whose turn it is.
    pub fn turn(&self) -> Option<&NodeId> {
        match &self.stage {
            PlanStage::Rolling { turn, .. } => turn.as_ref(),
            PlanStage::Preparing | PlanStage::Done { .. } | PlanStage::Cancelled { .. } | PlanStage::Failed { .. } => {
                None
            }
        }
    }

    fn end(&mut self, stage: PlanStage) {
        self.stage = stage;
        self.source = None;
    }
}

/// What it is about, without where it stands.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match (self.height, self.back) {
            (Some(height), _) => write!(f, " at height {height}"),
            (None, false) => f.write_str(", one host after the other"),
            (None, true) => f.write_str(", back to what ran before, one host after the other"),
        }
    }
}

/// Newest last. At most one of them has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plans(pub VecDeque<Plan>);

/// A rejected command changed nothing; the reason is for the operator.
type Change = Result<(), String>;

impl Plans {
    /// The plan that has not ended.
    pub fn in_force(&self) -> Option<&Plan> {
        self.newest().filter(|plan| !plan.stage.has_ended())
    }

    pub fn newest(&self) -> Option<&Plan> {
        self.0.back()
    }

    fn named(&mut self, name: &UpgradeName) -> Result<&mut Plan, String> {
        let found = self.0.back_mut().filter(|plan| !plan.stage.has_ended() && plan.name == *name);
        found.ok_or_else(|| format!("no upgrade {name} is planned; baton upgrade list shows what is"))
    }

    pub(in crate::core) fn plan(
        &mut self,
        name: &UpgradeName,
        height: Option<u64>,
        source: &Option<String>,
        back: bool,
        at: WallTime,
    ) -> Change {
        if let Some(plan) = self.in_force() {
            let planned = &plan.name;
            return Err(format!("{plan}, is planned already; baton upgrade cancel {planned} ends that"));
        }
        if source.as_ref().is_some_and(|source| source.len() > SOURCE_BYTES_MAX) {
            return Err(format!("a source has at most {SOURCE_BYTES_MAX} bytes"));
        }
        if self.0.len() >= PLANS_MAX {
            self.0.pop_front();
        }
        let (name, source, stage) = (name.clone(), source.clone(), PlanStage::Preparing);
        self.0.push_back(Plan { name, height, source, back, planned_at: at, stage });
        Ok(())
    }

    pub(in crate::core) fn cancel(&mut self, name: &UpgradeName, at: WallTime) -> Change {
        self.named(name)?.end(PlanStage::Cancelled { at });
        Ok(())
    }

    /// Invariant: who holds the baton gets no turn, whatever its proposer knew of the holder.
    pub(in crate::core) fn give_turn(
        &mut self,
        name: &UpgradeName,
        member: &NodeId,
        holder: Option<&NodeId>,
    ) -> Change {
        let plan = self.named(name)?;
        if plan.height.is_some() {
            return Err(format!("{plan}, gives nobody a turn: the chain says when"));
        }
        if holder == Some(member) {
            return Err(format!("{member} holds the baton, and only a standby gets a turn"));
        }
        let mut done = match &mut plan.stage {
            PlanStage::Rolling { turn: Some(turn), .. } if turn == member => return Ok(()),
            PlanStage::Rolling { turn, done } => {
                done.extend(turn.take());
                std::mem::take(done)
            }
            PlanStage::Preparing | PlanStage::Done { .. } | PlanStage::Cancelled { .. } | PlanStage::Failed { .. } => {
                BTreeSet::new()
            }
        };
        done.remove(member);
        plan.stage = PlanStage::Rolling { turn: Some(member.clone()), done };
        Ok(())
    }

    pub(in crate::core) fn end(
        &mut self,
        name: &UpgradeName,
        failed: Option<(NodeId, String)>,
        at: WallTime,
    ) -> Change {
        self.named(name)?.end(match failed {
            None => PlanStage::Done { at },
            Some((member, reason)) => PlanStage::Failed { member, reason, at },
        });
        Ok(())
    }

    /// Whoever belongs no more has no turn.
    pub(in crate::core) fn retain(&mut self, kept: impl Fn(&NodeId) -> bool) {
        if let Some(PlanStage::Rolling { turn, done }) = self.0.back_mut().map(|plan| &mut plan.stage) {
            turn.take_if(|member| !kept(member));
            done.retain(kept);
        }
    }
}

/// # Errors
/// Why no host can get a binary from there, in words. Whether there is one is for the hosts to find out.
pub fn check_source(source: &str) -> Result<(), String> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(format!("a source has at most {SOURCE_BYTES_MAX} bytes"));
    }
    if source.chars().any(char::is_control) {
        return Err(format!("{source:?} has a control character in it"));
    }
    if source.starts_with('/') {
        return Ok(());
    }
    let Some(rest) = ["https://", "http://"].iter().find_map(|scheme| source.strip_prefix(scheme)) else {
        return Err(format!(
            "{source:?} is neither an absolute path, the same on every host, nor an https:// or http:// URL"
        ));
    };
    let query = rest.split('#').next().and_then(|rest| rest.split_once('?')).map_or("", |(_, query)| query);
    let checksum = query.split('&').find_map(|pair| pair.strip_prefix("checksum="));
    match checksum.map(is_checksum) {
        Some(true) => Ok(()),
        Some(false) => Err(format!("the checksum of {source} is neither sha256:HEX nor sha512:HEX")),
        None => {
            Err(format!("{source} has no checksum; append ?checksum=sha256:HEX, so that every host gets the same file"))
        }
    }
}

fn is_checksum(text: &str) -> bool {
    // As a query has it, the colon may be escaped.
    let text = text.replace("%3A", ":").replace("%3a", ":");
    let digits = match text.split_once(':') {
        Some(("sha256", digits)) if digits.len() == 64 => digits.to_owned(),
        Some(("sha512", digits)) if digits.len() == 128 => digits.to_owned(),
        Some(_) | None => return false,
    };
    digits.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::upgrades::kit::name;

    fn at(secs: u64) -> WallTime {
        WallTime::from_nanos(secs * 1_000_000_000)
    }

    fn planned(height: Option<u64>) -> Plans {
        let mut plans = Plans::default();
        plans.plan(&name("v2"), height, &Some("/srv/v2".into()), false, at(1)).unwrap();
        plans
    }

    #[track_caller]
    fn assert_rejected(plans: &Plans, words: &str, change: impl FnOnce(&mut Plans) -> Change) {
        let mut changed = plans.clone();
        let reason = change(&mut changed).expect_err("rejected");
        assert!(reason.contains(words), "{reason}");
        assert_eq!(changed, *plans, "it was rejected and changed something");
    }

    #[test]
    fn there_is_one_plan_at_a_time() {
        let mut plans = planned(None);
        assert_rejected(&plans, "v2, one host after the other, is planned already; baton upgrade cancel v2", |plans| {
            plans.plan(&name("v3"), Some(9), &None, false, at(2))
        });
        plans.cancel(&name("v2"), at(3)).unwrap();
        plans.plan(&name("v3"), Some(9), &None, false, at(4)).unwrap();
        assert_eq!(plans.in_force().unwrap().to_string(), "v3 at height 9");
        assert_eq!(plans.0[0].source, None, "a plan that has ended needs no source");
    }

    #[test]
    fn a_turn_ends_the_one_before_and_none_is_the_holders() {
        let mut plans = planned(None);
        let turn = |plans: &mut Plans, member: &str| plans.give_turn(&name("v2"), &member.into(), Some(&"a".into()));
        assert_rejected(&plans, "a holds the baton", |plans| turn(plans, "a"));
        turn(&mut plans, "c").unwrap();
        turn(&mut plans, "c").unwrap();
        assert_eq!(plans.newest().unwrap().turn(), Some(&"c".into()));
        turn(&mut plans, "b").unwrap();
        let stage = PlanStage::Rolling { turn: Some("b".into()), done: ["c".into()].into() };
        assert_eq!(plans.newest().unwrap().stage, stage);
        plans.end(&name("v2"), Some(("b".into(), "backup".into())), at(9)).unwrap();
        assert!(plans.in_force().is_none());
        assert_rejected(&plans, "no upgrade v2 is planned", |plans| turn(plans, "b"));
    }

    #[test]
    fn a_plan_for_a_height_gives_no_turns() {
        assert_rejected(&planned(Some(7)), "the chain says when", |plans| {
            plans.give_turn(&name("v2"), &"b".into(), None)
        });
    }

    #[test]
    fn what_is_about_another_plan_is_rejected() {
        let plans = planned(None);
        assert_rejected(&plans, "no upgrade v3 is planned", |plans| plans.cancel(&name("v3"), at(2)));
        assert_rejected(&plans, "no upgrade v3 is planned", |plans| plans.end(&name("v3"), None, at(2)));
    }

    #[test]
    fn a_member_that_goes_has_no_turn_and_had_none() {
        let mut plans = planned(None);
        for member in ["b", "c"] {
            plans.give_turn(&name("v2"), &member.into(), None).unwrap();
        }
        plans.retain(|member| member.as_str() == "a");
        assert_eq!(plans.newest().unwrap().stage, PlanStage::Rolling { turn: None, done: BTreeSet::new() });
    }

    #[test]
    fn the_oldest_go() {
        let mut plans = Plans::default();
        for number in 0..30 {
            plans.plan(&name(&format!("v{number}")), None, &None, false, at(number)).unwrap();
            plans.end(&name(&format!("v{number}")), None, at(number)).unwrap();
        }
        assert_eq!((plans.0.len(), plans.0[0].name.as_str()), (PLANS_MAX, "v10"));
    }

    #[test]
    fn a_source_is_an_absolute_path_or_a_url_with_a_checksum() {
        let sum = "0f".repeat(32);
        for good in [
            "/srv/binaries/v2".to_owned(),
            format!("https://example.org/v2.tar.gz?checksum=sha256:{sum}"),
            format!("http://example.org/v2?a=b&checksum=sha512:{sum}{sum}"),
            format!("https://example.org/v2?checksum=sha256%3A{sum}"),
        ] {
            assert_eq!(check_source(&good), Ok(()), "{good}");
        }
        for (bad, words) in [
            ("binaries/v2".to_owned(), "neither an absolute path"),
            ("ftp://example.org/v2".to_owned(), "neither an absolute path"),
            ("https://example.org/v2".to_owned(), "has no checksum"),
            (format!("https://example.org/v2#checksum=sha256:{sum}"), "has no checksum"),
            ("https://example.org/v2?checksum=sha256:12".to_owned(), "neither sha256:HEX"),
            (format!("https://example.org/v2?checksum=md5:{sum}"), "neither sha256:HEX"),
            ("/srv/v2\n".to_owned(), "control character"),
            (format!("/{}", "x".repeat(SOURCE_BYTES_MAX)), "at most"),
        ] {
            let reason = check_source(&bad).expect_err(&bad);
            assert!(reason.contains(words), "{bad}: {reason}");
        }
    }
}
