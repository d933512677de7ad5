//! The metrics of a host whose signatures the log admits. Families of their own, absent where a chain node has the key.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::{NO_LABEL, add, counters, forget, gauges, show, whole};
use crate::base::signing::Hrs;
use crate::base::time::WallTime;

/// Upper bounds of `baton_sign_seconds`: from a disk that syncs at once to a vote that comes too late.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.003, 0.005, 0.008, 0.015, 0.03, 0.06, 0.15, 0.5, 1.0, 4.0];

/// The chain node that this host runs; sentries are named by their addresses.
const OWN_NODE: &str = "own";

/// What became of a chain node's request to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignOutcome {
    Granted,
    /// The same was granted before, here or on another host.
    Repeated,
    /// Something else was granted at the same place, to the same chain node or to one that is not known.
    Conflict,
    /// Something else was granted at the same place, to another chain node.
    Outvoted,
    /// Something was granted above.
    Stale,
    /// The log admitted nothing in time: another host's node is the one that is answered, or there is no quorum.
    Held,
    /// It was admitted, and there is no signature.
    NotSigned,
    /// The log decides for another chain, or not at all.
    NotHere,
}

impl SignOutcome {
    const ALL: [SignOutcome; 8] = [
        SignOutcome::Granted,
        SignOutcome::Repeated,
        SignOutcome::Conflict,
        SignOutcome::Outvoted,
        SignOutcome::Stale,
        SignOutcome::Held,
        SignOutcome::NotSigned,
        SignOutcome::NotHere,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            SignOutcome::Granted => "granted",
            SignOutcome::Repeated => "repeated",
            SignOutcome::Conflict => "conflict",
            SignOutcome::Outvoted => "outvoted",
            SignOutcome::Stale => "stale",
            SignOutcome::Held => "held",
            SignOutcome::NotSigned => "not-signed",
            SignOutcome::NotHere => "not-here",
        }
    }
}

/// What a signature took, from the request on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignTook {
    /// Until the log had admitted it.
    pub commit: Duration,
    /// From then on.
    pub sign: Duration,
}

pub(super) struct OfSigning {
    requests: IntCounterVec,
    seconds: HistogramVec,
    height: IntGaugeVec,
    answered_at: IntGaugeVec,
    sentries: IntGaugeVec,
}

impl OfSigning {
    pub(super) fn new(r: &Registry) -> OfSigning {
        let help =
            "From a chain node's request to its signature: until it was committed, from then on, and all, seconds";
        let seconds = HistogramOpts::new("baton_sign_seconds", help).buckets(SECONDS.to_vec());
        let answered = "When this host last gave its chain node a signature, absent until then, seconds since 1970";
        OfSigning {
            requests: counters(
                r,
                "baton_sign_requests_total",
                "Requests of a chain node to sign, by who asked and what became of them, count since start",
                &["node", "outcome"],
            ),
            seconds: add(r, HistogramVec::new(seconds, &["part"])),
            height: gauges(
                r,
                "baton_signed_height",
                "Highest height that the log has admitted a signature for, blocks",
                &NO_LABEL,
            ),
            answered_at: gauges(r, "baton_sign_answered_timestamp_seconds", answered, &NO_LABEL),
            sentries: gauges(
                r,
                "baton_sentry_connected",
                "Whether that sentry asks this host, which holds the baton, for signatures, 1 or 0",
                &["sentry"],
            ),
        }
    }

    /// Every outcome is shown before it happens: an alert on its increase would miss the first one otherwise.
    pub(super) fn show_all(&self, sentries: impl Iterator<Item = String>) {
        for node in sentries.chain([OWN_NODE.to_owned()]) {
            for outcome in SignOutcome::ALL {
                self.requests.with_label_values(&[node.as_str(), outcome.as_str()]);
            }
        }
    }

    pub(super) fn ended(&self, sentry: Option<&str>, outcome: SignOutcome, took: Option<SignTook>, at: WallTime) {
        self.requests.with_label_values(&[sentry.unwrap_or(OWN_NODE), outcome.as_str()]).inc();
        let Some(SignTook { commit, sign }) = took else { return };
        for (part, took) in [("commit", commit), ("sign", sign), ("all", commit + sign)] {
            self.seconds.with_label_values(&[part]).observe(took.as_secs_f64());
        }
        show(&self.answered_at, Some(whole(at.as_nanos() / 1_000_000_000)));
    }

    pub(super) fn sentry(&self, sentry: &str, is_connected: Option<bool>) {
        match is_connected {
            Some(is_connected) => self.sentries.with_label_values(&[sentry]).set(is_connected.into()),
            None => forget(self.sentries.remove_label_values(&[sentry])),
        }
    }

    pub(super) fn admitted(&self, place: Option<Hrs>) {
        show(&self.height, place.map(|place| whole(place.height)));
    }
}
