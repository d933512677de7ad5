//! The steps of moves, for operators.

use super::{name_or_empty, proto};
use crate::record::{Moment, Timeline};

impl From<&Timeline> for proto::Timeline {
    fn from(timeline: &Timeline) -> Self {
        let Timeline { epoch, from, to, reason, released: _, moments } = timeline;
        let begins = moments.first().map(|first| first.at.boot);
        let moment = |Moment { step, at, because }: &Moment| proto::Moment {
            step: step.as_str().into(),
            at_ns: at.wall.as_nanos(),
            after_ns: begins.map_or(0, |begins| at.boot.since(begins).as_nanos() as u64),
            because: because.clone(),
        };
        proto::Timeline {
            epoch: epoch.0,
            from: name_or_empty(from),
            to: to.to_string(),
            reason: reason.clone(),
            moments: moments.iter().map(moment).collect(),
        }
    }
}
