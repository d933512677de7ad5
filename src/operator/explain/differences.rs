//! Whether the members are configured alike where they are meant to be, in sentences. That they are not is safe, by the
//! table in docs/safety.md, and costs what each sentence says.

use std::time::Duration;

use crate::cluster::wire::proto::{MemberStatus, SettlingRules, StatusResponse, Timing};

/// Keys that are meant to be the same on all members, as a member tells them.
struct Alike<T> {
    keys: &'static str,
    told: fn(&MemberStatus) -> Option<T>,
    words: fn(&T) -> String,
    costs: &'static str,
}

const TIMING: Alike<Timing> = Alike {
    keys: "[timing]",
    told: |member| member.timing,
    words: timing_words,
    costs: "a lost host costs the longer lease",
};

const SETTLING: Alike<SettlingRules> = Alike {
    keys: "chain.clock_skew, chain.on_halt or chain.halt_after",
    told: |member| member.settling_rules,
    words: settling_words,
    costs: "whoever takes over goes by its own",
};

/// A sentence for each member that is configured otherwise than the one which was asked, or where that one has no such keys,
/// than the first that has them. Nothing of members that do not tell.
pub fn differences(status: &StatusResponse) -> Vec<String> {
    let own = || status.members.iter().filter(|member| member.id == status.member);
    let timing = own().find_map(|member| Some((member.timing?, &member.id)));
    let settling = own().chain(&status.members).find_map(|member| Some((member.settling_rules?, &member.id)));
    let of_timing = timing.map(|(timing, named)| TIMING.differences(&timing, named, &status.members));
    let of_settling = settling.map(|(rules, named)| SETTLING.differences(&rules, named, &status.members));
    of_timing.into_iter().chain(of_settling).flatten().collect()
}

/// So many other members tell another `[timing]` than the one which was asked.
pub fn timing_mismatches(status: &StatusResponse) -> usize {
    let own = status.members.iter().find(|member| member.id == status.member).and_then(|member| member.timing);
    own.map_or(0, |timing| TIMING.differences(&timing, &status.member, &status.members).len())
}

/// A sentence for each of `members` that is configured otherwise than `named`, with `timing` and, with a chain node, `settling`.
pub fn differences_to(
    timing: &Timing,
    settling: Option<&SettlingRules>,
    named: &str,
    members: &[MemberStatus],
) -> Vec<String> {
    let mut all = TIMING.differences(timing, named, members);
    all.extend(settling.map(|rules| SETTLING.differences(rules, named, members)).into_iter().flatten());
    all
}

impl<T: PartialEq> Alike<T> {
    fn differences(&self, own: &T, named: &str, members: &[MemberStatus]) -> Vec<String> {
        let Alike { keys, told, words, costs } = self;
        let others = members.iter().filter(|member| member.id != named);
        let differing = others.filter_map(|member| Some((&member.id, told(member).filter(|theirs| theirs != own)?)));
        differing
            .map(|(id, theirs)| {
                let (theirs, own) = (words(&theirs), words(own));
                format!("{id} has another {keys} than {named} ({theirs} instead of {own}): {costs}; give all members the same")
            })
            .collect()
    }
}

fn timing_words(timing: &Timing) -> String {
    let Timing { heartbeat_ns, lease_ns, kill_max_ns, drift_ppm } = *timing;
    let [heartbeat, lease, kill_max] = [heartbeat_ns, lease_ns, kill_max_ns].map(Duration::from_nanos);
    format!("heartbeat {heartbeat:?}, lease {lease:?}, kill_max {kill_max:?}, {drift_ppm} ppm")
}

fn settling_words(rules: &SettlingRules) -> String {
    let SettlingRules { clock_skew_ns, replica_on_halt, halt_after_ns } = *rules;
    let [skew, after] = [clock_skew_ns, halt_after_ns].map(Duration::from_nanos);
    let on_halt = if replica_on_halt { format!("\"replica\" after {after:?}") } else { "\"wait\"".to_owned() };
    format!("clock_skew {skew:?}, on_halt {on_halt}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, lease_s: u64) -> MemberStatus {
        let timing = (lease_s > 0).then_some(Timing { lease_ns: lease_s * 1_000_000_000, ..Timing::default() });
        MemberStatus { id: id.to_owned(), timing, ..MemberStatus::default() }
    }

    #[test]
    fn members_with_another_timing_are_named_and_those_that_tell_none_are_not() {
        let members = vec![member("host-a", 3), member("host-b", 1), member("host-c", 1), member("host-d", 0)];
        let status = StatusResponse { member: "host-b".to_owned(), members, ..StatusResponse::default() };
        let said = differences(&status);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("host-a has another [timing] than host-b (") && said[0].contains("lease 3s"),
            "{said:?}"
        );
        assert_eq!(timing_mismatches(&status), 1);
        let asked = |member: &str| StatusResponse { member: member.to_owned(), ..status.clone() };
        assert_eq!(timing_mismatches(&asked("host-a")), 2);
        assert_eq!(timing_mismatches(&asked("host-d")), 0, "an earlier version tells nothing");
    }

    #[test]
    fn a_key_that_no_lease_shows_is_a_mismatch_too() {
        let mut other = member("host-b", 1);
        let told = other.timing.expect("told");
        other.timing = Some(Timing { heartbeat_ns: told.heartbeat_ns + 1, ..told });
        let members = vec![member("host-a", 1), other];
        let status = StatusResponse { member: "host-a".to_owned(), members, ..StatusResponse::default() };
        assert_eq!(timing_mismatches(&status), 1);
    }

    #[test]
    fn the_file_counts_for_one_and_the_coordinator_that_runs_beside_it_for_another() {
        let members = vec![member("host-a", 1), member("host-b", 2), member("host-c", 2)];
        let file = Timing { lease_ns: 2_000_000_000, ..Timing::default() };
        let said = differences_to(&file, None, "this file", &members);
        assert!(said.len() == 1 && said[0].starts_with("host-a has another [timing] than this file"), "{said:?}");
    }

    #[test]
    fn a_host_that_settles_by_other_rules_is_named_also_by_an_arbiter_which_has_none() {
        let rules = |clock_skew_ms: u64, replica_on_halt| SettlingRules {
            clock_skew_ns: clock_skew_ms * 1_000_000,
            replica_on_halt,
            halt_after_ns: 30_000_000_000,
        };
        let with = |id: &str, rules| MemberStatus { settling_rules: Some(rules), ..member(id, 1) };
        let told = |b: SettlingRules| {
            let members = vec![with("host-a", rules(200, false)), with("host-b", b), member("host-c", 1)];
            differences(&StatusResponse { member: "host-c".to_owned(), members, ..StatusResponse::default() })
        };
        assert_eq!(told(rules(200, false)), [""; 0]);
        assert_eq!(
            told(rules(50, true)),
            [
                "host-b has another chain.clock_skew, chain.on_halt or chain.halt_after than host-a (clock_skew 50ms, on_halt \
                 \"replica\" after 30s instead of clock_skew 200ms, on_halt \"wait\"): whoever takes over goes by its own; give all \
                 members the same"
            ]
        );
    }
}
