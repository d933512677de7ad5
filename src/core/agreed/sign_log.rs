//! The log as the one that decides what the validator's key signs, where no chain node has the key
//! (`custody = "signer"`): every request to sign is an entry, and every member answers it in the same way.
//!
//! Safety is the order of the log alone; no clock, lease or guard takes part. Of each place in the chain one content is
//! admitted, places are admitted in rising order, and a content that is admitted again keeps its first time, so that
//! what is signed twice is the same to the last byte.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, SignMark};
use crate::base::signing::{Hrs, SignDigest, SignTime};

/// What the log has admitted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignLog {
    pub chain: String,
    /// The validator's public key in words: its type, and Base64.
    pub key: String,
    pub last: Grant,
    /// Whose request was admitted last; `None` of what was signed before the log decided.
    pub by: Option<Requester>,
    /// Chain nodes have the key again, and nothing is admitted any more.
    pub closed: bool,
}

/// What is signed at a place, and at no other time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    pub place: Hrs,
    /// `None` of what was signed before the log decided, and is not known: nothing is admitted there again.
    pub digest: Option<SignDigest>,
    pub time: SignTime,
}

/// The chain node that asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requester {
    /// The host that was asked.
    pub host: NodeId,
    /// Where the node waits for its signer, when it is none that the host runs.
    pub sentry: Option<String>,
}

/// A chain node's request to sign.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignRequest {
    pub chain: String,
    pub place: Hrs,
    pub digest: SignDigest,
    pub time: SignTime,
    /// For people: it takes no part in what becomes of the request. `None` from a member that does not say it.
    pub by: Option<Requester>,
}

impl SignRequest {
    pub fn wanted(&self) -> Grant {
        Grant { place: self.place, digest: Some(self.digest), time: self.time }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing was admitted at this place or above.
    Granted,
    /// The same content was admitted here before, at this time.
    Repeated { time: SignTime },
    /// Another content was admitted here.
    Conflict { place: Hrs },
    /// Something was admitted above.
    Stale { last: Hrs },
    /// The log does not decide what is signed, or decides for another chain: for whom it does, if for any.
    NotHere { chain: Option<String> },
}

impl SignLog {
    /// What would become of `request`.
    pub fn weigh(&self, request: &SignRequest) -> Verdict {
        let Grant { place, digest, time } = self.last;
        if self.closed || request.chain != self.chain {
            let chain = (!self.closed).then(|| self.chain.clone());
            return Verdict::NotHere { chain };
        }
        if request.place > place {
            Verdict::Granted
        } else if request.place < place {
            Verdict::Stale { last: place }
        } else if digest == Some(request.digest) {
            Verdict::Repeated { time }
        } else {
            Verdict::Conflict { place }
        }
    }

    pub(super) fn admit(&mut self, request: &SignRequest) -> Verdict {
        let verdict = self.weigh(request);
        if verdict == Verdict::Granted {
            self.last = request.wanted();
            self.by.clone_from(&request.by);
        }
        verdict
    }

    /// Whether a log that begins anew with `chain`, `key` and `last` forgets nothing that this one knows.
    ///
    /// # Errors
    /// What it would forget.
    pub(super) fn may_begin_with(&self, chain: &str, key: &str, last: &Grant) -> Result<(), String> {
        if (chain, key) != (&self.chain, &self.key) {
            return Err(format!("this cluster signs for chain {} with the key {}", self.chain, self.key));
        }
        if last.place < self.last.place {
            return Err(format!("{} was signed, which is above {}", self.last.place, last.place));
        }
        // What is repeated there is what was admitted, and nothing that only an operator has told of.
        if last.place == self.last.place && last.digest.is_some() && *last != self.last {
            return Err(format!(
                "{} was signed, and not with this content and time as far as the log knows",
                last.place
            ));
        }
        Ok(())
    }

    pub fn mark(&self) -> SignMark {
        self.last.place.into()
    }
}

impl Verdict {
    /// When the content is to be signed, if it is, for a request that asked for `time`.
    pub fn admits(&self, time: SignTime) -> Option<SignTime> {
        match self {
            Verdict::Granted => Some(time),
            Verdict::Repeated { time } => Some(*time),
            Verdict::Conflict { .. } | Verdict::Stale { .. } | Verdict::NotHere { .. } => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Granted => write!(f, "granted"),
            Verdict::Repeated { .. } => write!(f, "granted before"),
            Verdict::Conflict { place } => write!(f, "conflicting data: something else was signed at {place}"),
            Verdict::Stale { last } => write!(f, "step regression: {last} was signed"),
            Verdict::NotHere { chain: Some(chain) } => write!(f, "this cluster signs for chain {chain:?}"),
            Verdict::NotHere { chain: None } => write!(f, "no mark was imported; see baton signer import"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn digest(of: u8) -> SignDigest {
        SignDigest([of; 32])
    }

    fn time(seconds: i64) -> SignTime {
        SignTime { seconds, nanos: 0 }
    }

    fn request(place: Hrs, content: u8, at: i64) -> SignRequest {
        SignRequest { chain: "c-1".into(), place, digest: digest(content), time: time(at), by: None }
    }

    fn log(last: Grant) -> SignLog {
        SignLog { chain: "c-1".into(), key: "k".into(), last, by: None, closed: false }
    }

    fn places() -> Vec<Hrs> {
        let steps = || [Hrs::PROPOSAL, Hrs::PREVOTE, Hrs::PRECOMMIT];
        let rounds = |height| (0..2).flat_map(move |round| steps().map(|step| Hrs::new(height, round, step)));
        (1..3).flat_map(rounds).collect()
    }

    /// Every sequence of three requests over twelve places, two contents and two times.
    #[test]
    fn whatever_is_asked_a_place_has_one_content_and_one_time() {
        let contents = [(1, 1), (1, 2), (2, 1)];
        let asked: Vec<SignRequest> =
            places().into_iter().flat_map(|place| contents.map(|(content, at)| request(place, content, at))).collect();
        let count = asked.len();
        for number in 0..count.pow(3) {
            let sequence = [number / count.pow(2), number / count % count, number % count].map(|index| &asked[index]);
            let mut log = log(Grant { place: Hrs::default(), digest: None, time: time(0) });
            let mut signed = BTreeMap::new();
            for request in sequence {
                let before = log.last.place;
                let verdict = log.admit(request);
                if let Some(time) = verdict.admits(request.time) {
                    let content = (request.digest.0, time.seconds);
                    assert_eq!(*signed.entry(request.place).or_insert(content), content, "{sequence:?}");
                    assert!(request.place >= before, "{request:?} after {before}");
                } else {
                    assert_eq!(log.last.place, before, "a refusal changes nothing");
                }
            }
        }
    }

    #[test]
    fn what_was_signed_before_is_refused_at_its_place_unless_its_content_is_known() {
        let place = Hrs::new(7, 0, Hrs::PREVOTE);
        let mut unknown = log(Grant { place, digest: None, time: time(0) });
        assert_eq!(unknown.admit(&request(place, 1, 1)), Verdict::Conflict { place });
        let mut known = log(Grant { place, digest: Some(digest(1)), time: time(9) });
        assert_eq!(known.admit(&request(place, 1, 1)), Verdict::Repeated { time: time(9) });
        assert_eq!(known.admit(&request(place, 2, 9)), Verdict::Conflict { place });
    }

    #[test]
    fn who_asks_takes_no_part_in_what_is_admitted_and_who_asked_first_is_remembered() {
        let place = Hrs::new(7, 0, Hrs::PREVOTE);
        let by = |host: &str| Some(Requester { host: host.into(), sentry: None });
        let mut log = log(Grant { place: Hrs::default(), digest: None, time: time(0) });
        let first = SignRequest { by: by("a"), ..request(place, 1, 1) };
        assert_eq!(log.admit(&first), Verdict::Granted);
        for (content, expected) in [(1, Verdict::Repeated { time: time(1) }), (2, Verdict::Conflict { place })] {
            assert_eq!(log.admit(&SignRequest { by: by("b"), ..request(place, content, 2) }), expected);
        }
        assert_eq!(log.by, by("a"));
    }

    #[test]
    fn another_chain_and_a_closed_log_admit_nothing() {
        let mut log = log(Grant { place: Hrs::default(), digest: None, time: time(0) });
        let place = Hrs::new(1, 0, Hrs::PREVOTE);
        let other = SignRequest { chain: "c-2".into(), ..request(place, 1, 1) };
        assert_eq!(log.admit(&other), Verdict::NotHere { chain: Some("c-1".into()) });
        log.closed = true;
        assert_eq!(log.admit(&request(place, 1, 1)), Verdict::NotHere { chain: None });
        assert_eq!(log.last.place, Hrs::default());
    }
}
