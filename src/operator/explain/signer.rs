//! Where the log decides what is signed: how far it has admitted, when and at whose request, and which sentries ask for
//! nothing.

use super::ago;
use crate::base::signing::Hrs;
use crate::base::time::WallTime;
use crate::cluster::wire::proto::{Grant, Sentry, SignLog, StatusResponse};

/// The log that decides what is signed; `None` where a chain node has the key.
pub fn sign_log(status: &StatusResponse) -> Option<&SignLog> {
    status.sign_log.as_ref().filter(|log| !log.closed)
}

/// The time of what was admitted last, as its node stamped it; `None` of what was signed before the log decided.
pub fn granted_at(log: &SignLog) -> Option<WallTime> {
    let Grant { seconds, nanos, .. } = log.last.as_ref().filter(|last| !last.digest.is_empty())?;
    let nanos = u64::try_from(*nanos).ok()?;
    Some(WallTime::from_nanos(u64::try_from(*seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

/// How far the key has signed; `None` where a chain node has it.
pub fn signed(status: &StatusResponse, now: WallTime) -> Option<String> {
    let log = sign_log(status)?;
    let Grant { height, round, step, .. } = log.last.clone().unwrap_or_default();
    let step = match step {
        Hrs::PROPOSAL => "proposal",
        Hrs::PREVOTE => "prevote",
        Hrs::PRECOMMIT => "precommit",
        _ => "start",
    };
    let by = match (log.by.as_str(), log.sentry.as_str()) {
        ("", _) => String::new(),
        (host, "") => format!(", asked by the node of {host}"),
        (host, sentry) => format!(", asked by {sentry} of {host}"),
    };
    let when = granted_at(log).map(|at| format!(", {} ago", ago(now.since(at)))).unwrap_or_default();
    Some(format!("Signed by the log on {}: up to height {height}, round {round}, {step}{by}{when}", log.chain))
}

/// A sentence for each sentry that does not ask.
pub fn lost_sentries(sentries: &[Sentry]) -> impl Iterator<Item = String> {
    let lost = sentries.iter().filter(|sentry| !sentry.lost_because.is_empty());
    lost.map(|sentry| format!("The sentry {} asks for no signatures: {}.", sentry.address, sentry.lost_because))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime::from_nanos(100_000_000_000);

    #[test]
    fn what_was_signed_is_told_with_its_age_unless_the_log_did_not_see_it() {
        let said = |digest: Vec<u8>, seconds| {
            let last = Grant { height: 12, step: 1, digest, seconds, nanos: 500_000_000, ..Default::default() };
            let log = SignLog { chain: "c-1".into(), last: Some(last), ..Default::default() };
            signed(&StatusResponse { sign_log: Some(log), ..Default::default() }, NOW).expect("open")
        };
        let up_to = "Signed by the log on c-1: up to height 12, round 0, proposal";
        assert_eq!(said(vec![1; 32], 30), format!("{up_to}, 1 min ago"));
        assert_eq!(said(vec![1; 32], 100), format!("{up_to}, 0 s ago"), "stamped by a clock that is ahead");
        assert_eq!(said(vec![1; 32], i64::MAX), up_to);
        assert_eq!(said(vec![1; 32], -1), up_to);
        assert_eq!(said(Vec::new(), 30), up_to);
    }

    #[test]
    fn what_was_signed_is_told_with_whose_request_it_was() {
        let said = |by: &str, sentry: &str, closed| {
            let last = Grant { height: 12, round: 1, step: 3, ..Default::default() };
            let (chain, by, sentry) = ("c-1".to_owned(), by.to_owned(), sentry.to_owned());
            let log = SignLog { chain, last: Some(last), by, sentry, closed, ..Default::default() };
            signed(&StatusResponse { sign_log: Some(log), ..Default::default() }, NOW)
        };
        let up_to = "Signed by the log on c-1: up to height 12, round 1, precommit";
        assert_eq!(said("", "", false).expect("open"), up_to);
        assert_eq!(said("host-a", "", false).expect("open"), format!("{up_to}, asked by the node of host-a"));
        let by_sentry = format!("{up_to}, asked by tcp://s:1 of host-a");
        assert_eq!(said("host-a", "tcp://s:1", false).expect("open"), by_sentry);
        assert_eq!(said("host-a", "", true), None);
        assert_eq!(signed(&StatusResponse::default(), NOW), None);
    }

    #[test]
    fn a_sentry_that_asks_is_not_told_of() {
        let sentry = |address: &str, lost: &str| Sentry { address: address.into(), lost_because: lost.into() };
        let lost: Vec<String> = lost_sentries(&[sentry("tcp://s:1", ""), sentry("tcp://s:2", "no route")]).collect();
        assert_eq!(lost, ["The sentry tcp://s:2 asks for no signatures: no route."]);
    }
}
