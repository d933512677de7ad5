//! The words for single facts: of a member, of a move, of a length of time.

use std::time::Duration;

use crate::base::ids::{Role, Vote};
use crate::base::time::WallTime;
use crate::cluster::transport::EXPIRY_NEAR;
use crate::cluster::wire::proto::{MemberStatus, Move, StatusResponse, TenureStage};

/// `-` in place of nothing.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Two units at most: `3 d 4 h`, `12 min`, `40 s`.
pub fn ago(since: Duration) -> String {
    let secs = since.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

/// How long nobody signed in a move, in words.
pub fn gap(m: &Move) -> String {
    if finished(m) { format!("{}ms", m.gap_ns / 1_000_000) } else { "unfinished".to_owned() }
}

/// Whether the new holder of `m` became active.
pub fn finished(m: &Move) -> bool {
    m.active_at_ns != 0
}
/// All that is to be said of one member beside its row. `paused`: the cluster is.
pub fn notes(member: &MemberStatus, paused: bool, now: WallTime) -> Vec<String> {
    let fitness = match member.not_ready_because.as_str() {
        _ if member.maintenance && !member.phase.is_empty() => Some(if paused {
            "in maintenance: keeps the baton while the cluster is paused".to_owned()
        } else {
            "in maintenance: hands over as soon as another member is ready".to_owned()
        }),
        _ if member.maintenance => Some("in maintenance".to_owned()),
        "" => None,
        // It never is, and is not meant to be; but it is there for its vote.
        _ if member.role == Role::Arbiter.as_str() && !needs_mending(member) => None,
        reason => Some(format!("not ready: {reason}")),
    };
    let learner = (member.vote == Vote::Learner.as_str()).then(|| "a learner: it has no vote".to_owned());
    let said = settling(member).into_iter().chain(learner).chain(fitness).chain(refusal(member));
    said.chain(defects(member, now)).collect()
}

/// Whether what keeps it from taking the baton is to be mended, also where it is not meant to take it.
pub fn needs_mending(member: &MemberStatus) -> bool {
    member.gives_no_vote || member.meaning().needs_mending
}

/// Why the member that was asked does not listen to who speaks as this one.
pub fn refusal(member: &MemberStatus) -> Option<String> {
    (!member.refused.is_empty()).then(|| member.refused.clone())
}

/// What a member that settles waits for.
pub fn settling(member: &MemberStatus) -> Option<String> {
    (!member.settling.is_empty()).then(|| format!("settling, waits for {}", member.settling))
}

/// That the validator's key is in use elsewhere, by the word of `member`.
pub fn key_alarm(member: &MemberStatus) -> Option<String> {
    let MemberStatus { id, key_alarm, reachable, .. } = member;
    (*reachable && !key_alarm.is_empty())
        .then(|| format!("The validator's key is in use elsewhere, as {id} sees: {key_alarm}."))
}

/// What is to be known of a member that does not keep it from taking the baton.
pub fn defects(member: &MemberStatus, now: WallTime) -> impl Iterator<Item = String> {
    let of_node = Some(member.node_note.clone()).filter(|note| !note.is_empty());
    let of_host = containment_note(member).into_iter().chain(foreign_node(member));
    of_node.into_iter().chain(of_host).chain(certificate_note(member, now))
}

/// A node on a member's host that is not its own, unless that is said to be why it is not ready.
pub fn foreign_node(member: &MemberStatus) -> Option<String> {
    let unsaid = !member.not_ready_because.contains(&member.foreign_node) || member.maintenance;
    (!member.foreign_node.is_empty() && unsaid).then(|| member.foreign_node.clone())
}

fn containment_note(member: &MemberStatus) -> Option<String> {
    member
        .meaning()
        .direct_child
        .then(|| "no PID namespace: only the process of chain.command ends with a killed guard".into())
}

/// Whether a note of [`notes`] or [`defects`] says that all is well. A member tells that in the same field as its troubles.
pub fn is_good_news(member: &MemberStatus, note: &str) -> bool {
    member.meaning().good_news && note == member.node_note
}

/// Whether the chain node of `member` signs, by its own word.
pub fn is_active(member: &MemberStatus) -> bool {
    member.meaning().stage() == TenureStage::Active
}

/// `None` without TLS.
pub fn certificate_until(member: &MemberStatus) -> Option<WallTime> {
    Some(member.certificate_until_ns).filter(|until| *until > 0).map(WallTime::from_nanos)
}

fn certificate_note(member: &MemberStatus, now: WallTime) -> Option<String> {
    if member.meaning().insecure {
        return Some("INSECURE: whoever reaches its port can speak as any member (tls.insecure)".to_owned());
    }
    let until = certificate_until(member)?;
    let left = until.since(now);
    match left.as_secs() / 86_400 {
        _ if left.is_zero() => Some(format!("certificate EXPIRED at {until}: no member listens to it")),
        days if left <= EXPIRY_NEAR => Some(format!("certificate expires in {days} days, at {until}")),
        _ => None,
    }
}

/// The holder, when it says itself that its chain node signs.
pub fn active_holder(status: &StatusResponse) -> Option<&MemberStatus> {
    let holder = Some(&status.holder).filter(|holder| !holder.is_empty())?;
    status.members.iter().find(|member| member.id == *holder && member.reachable && is_active(member))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_node_without_a_namespace_is_named_and_an_older_member_is_not_accused() {
        let of = |containment: &str| MemberStatus { containment: containment.to_owned(), ..MemberStatus::default() };
        let now = WallTime::from_nanos(0);
        let notes: Vec<String> = defects(&of("direct-child"), now).collect();
        assert!(notes.len() == 1 && notes[0].starts_with("no PID namespace: "), "{notes:?}");
        assert_eq!(defects(&of("pid-namespace"), now).count() + defects(&of(""), now).count(), 0);
    }

    #[test]
    fn what_is_wrong_with_the_connections_of_a_member_stands_below_it() {
        let day = std::time::Duration::from_secs(86_400);
        let now = WallTime::from_nanos(1_800_000_000_000_000_000);
        let until = |until: WallTime| MemberStatus {
            transport: "tls".to_owned(),
            certificate_until_ns: until.as_nanos(),
            ..MemberStatus::default()
        };
        assert_eq!(certificate_note(&until(now + 31 * day), now), None);
        let soon = certificate_note(&until(now + 12 * day), now).expect("a note");
        assert_eq!(soon, "certificate expires in 12 days, at 2027-01-27T08:00:00.000Z");
        let over = certificate_note(&until(now), now).expect("a note");
        assert_eq!(over, "certificate EXPIRED at 2027-01-15T08:00:00.000Z: no member listens to it");
        assert_eq!(certificate_note(&MemberStatus::default(), now), None, "without TLS, on loopback");
        let insecure = MemberStatus { transport: "insecure".to_owned(), ..MemberStatus::default() };
        assert!(certificate_note(&insecure, now).is_some_and(|note| note.starts_with("INSECURE")));
    }
}
