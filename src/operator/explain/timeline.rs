//! The steps of one move, for `baton history --detail` and the status page.

use crate::base::time::WallTime;
use crate::cluster::wire::proto::{Moment, Timeline};

/// A moment of a move, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    pub step: &'a str,
    pub at: WallTime,
    /// From the beginning of the move until the moment before, and until this one.
    pub from_ns: u64,
    pub until_ns: u64,
    /// What has happened, in general, and why or how in this move; empty when there is nothing to add.
    pub what: &'static str,
    pub because: &'a str,
}

impl Part<'_> {
    pub fn took_ns(&self) -> u64 {
        self.until_ns.saturating_sub(self.from_ns)
    }
}

/// In the order in which they were seen.
pub fn parts<'a>(timeline: &'a Timeline) -> Vec<Part<'a>> {
    let mut before = 0;
    let part = |moment: &'a Moment| Part {
        step: &moment.step,
        at: WallTime::from_nanos(moment.at_ns),
        from_ns: std::mem::replace(&mut before, moment.after_ns),
        until_ns: moment.after_ns,
        what: what(&moment.step),
        because: &moment.because,
    };
    timeline.moments.iter().map(part).collect()
}

/// What a newer version tells has no words here.
fn what(step: &str) -> &'static str {
    match step {
        "last-word" => "the old holder was heard last",
        "detected" => "the baton has to move",
        "elected" => "the new holder leads",
        "claimed" => "the claim is in the log",
        "armed" => "the guard keeps a deadline",
        "settled" => "the sign floor is met",
        "linked" => "the key is linked",
        "active" => "the chain node runs with the key",
        "recorded" => "the activation is in the log",
        "let-go" => "the baton is let go",
        _ => "",
    }
}

/// `0.4 ms`, `1004 ms`.
pub fn in_ms(nanos: u64) -> String {
    if nanos < 9_950_000 { format!("{:.1} ms", nanos as f64 / 1e6) } else { format!("{:.0} ms", nanos as f64 / 1e6) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Step;

    #[test]
    fn every_step_of_this_version_has_words() {
        use Step::{Active, Armed, Claimed, Detected, Elected, LastWord, LetGo, Linked, Recorded, Settled};
        for step in [LastWord, Detected, Elected, Claimed, Armed, Settled, Linked, Active, Recorded, LetGo] {
            assert_ne!(what(step.as_str()), "", "{step:?}");
        }
    }

    #[test]
    fn short_times_have_a_tenth_of_a_millisecond() {
        let told = [0, 400_000, 9_940_000, 9_960_000, 1_004_499_999].map(in_ms);
        assert_eq!(told, ["0.0 ms", "0.4 ms", "9.9 ms", "10 ms", "1004 ms"]);
    }
}
