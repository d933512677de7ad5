//! Whether the members are configured with one `[timing]`, in sentences. Different ones are safe, since every promise
//! lasts for the longer lease, and cost time when a host is lost.

use std::time::Duration;

use crate::cluster::wire::proto::{MemberStatus, StatusResponse, Timing};

/// A sentence for each member whose `[timing]` is another one than that of the member which was asked. Nothing of
/// members that do not tell.
pub fn timing_differences(status: &StatusResponse) -> Vec<String> {
    let own = status.members.iter().find(|member| member.id == status.member).and_then(|member| member.timing);
    own.map(|own| differences_to(&own, &status.member, &status.members)).unwrap_or_default()
}

/// A sentence for each of `members`, but for `named` itself, whose `[timing]` is not `timing`, which is that of
/// `named`.
pub fn differences_to(timing: &Timing, named: &str, members: &[MemberStatus]) -> Vec<String> {
    let others = members.iter().filter(|member| member.id != named);
    let differing = others.filter_map(|member| Some((&member.id, member.timing.filter(|theirs| theirs != timing)?)));
    differing
        .map(|(id, theirs)| {
            format!(
                "{id} has another [timing] than {named} ({} instead of {}): a lost host costs the longer lease; give all members \
                 the same",
                words(&theirs),
                words(timing)
            )
        })
        .collect()
}

fn words(timing: &Timing) -> String {
    let Timing { heartbeat_ns, lease_ns, kill_max_ns, drift_ppm } = *timing;
    let [heartbeat, lease, kill_max] = [heartbeat_ns, lease_ns, kill_max_ns].map(Duration::from_nanos);
    format!("heartbeat {heartbeat:?}, lease {lease:?}, kill_max {kill_max:?}, {drift_ppm} ppm")
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
        let said = timing_differences(&status);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("host-a has another [timing] than host-b (") && said[0].contains("lease 3s"),
            "{said:?}"
        );
    }
}
