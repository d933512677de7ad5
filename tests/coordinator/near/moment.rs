//! The moment at which a handover begins, by a holder that has chunks of its own to make.

use std::process::Output;
use std::time::Instant;

use super::{Cluster, Handover};

/// Chunks are so far apart that a handover fits between them, however slow the machine.
const TURN: u64 = 100;

/// What it says before the line of the move.
fn moment(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let (moment, _) = out.trim_end().rsplit_once('\n').unwrap_or_default();
    moment.to_owned()
}

/// Of "begun after 2.1s …".
fn waited_secs(moment: &str) -> f64 {
    let after = moment.strip_prefix("begun after ").and_then(|rest| rest.split_once('s')).map(|(secs, _)| secs);
    after.and_then(|secs| secs.parse().ok()).unwrap_or_else(|| panic!("no time in {moment:?}"))
}

#[test]
fn a_handover_waits_until_its_own_chunk_is_made_and_says_so_and_now_waits_for_nothing() {
    let cluster = Cluster::start();
    let first = cluster.holder();
    let hosts = &cluster.hosts;
    // A window is never long enough: without --now, it would begin at the end of its time, and say that.
    hosts[first].set("turn", "1");
    let began_at = Instant::now();
    let told = moment(&cluster.hand_over(first, &["--now"]).ends());
    eprintln!("--now: {:?}", began_at.elapsed());
    assert_eq!(told, "");
    let asked = hosts[first].events().into_iter().find(|event| event.contains("asked for windows"));
    assert_eq!(asked, None, "it looked for a window");

    // One height is left before the next chunk, which is too little for any handover.
    let second = cluster.holder();
    assert_eq!(second, 1 - first);
    cluster.is_ready(first);
    hosts[second].set("turn", &TURN.to_string());
    let head = cluster.chain.stops_before(TURN, 2);
    let from = hosts[second].event(0, &format!("signs chunk {}", head + 1));
    let handover = cluster.hand_over(second, &["--within", "60s", "--timeout", "5m"]);
    let (told, begun) = waits_for_own_chunk(&cluster, second, from, head, handover);
    let heights = format!("heights {} to {} ({} blocks)", head + 3, head + 1 + TURN, TURN - 1);
    let words = format!(": the validator has no block and no chunk to produce at {heights}");
    assert!(waited_secs(&told) > 0.0 && told.ends_with(&words), "{told}, and not {words:?}");
    let made = hosts[second].event(from, &format!("signs chunk {}", head + 2));
    assert!(made < begun, "its chunk {} was missed: {:?}", head + 2, hosts[second].events());
    cluster.chain.runs_on();

    // The chain has no stretch without a chunk.
    assert_eq!(cluster.holder(), first);
    cluster.is_ready(second);
    let told = moment(&cluster.hand_over(first, &["--within", "2s"]).ends());
    let words = "in which the validator has nothing to produce: none came";
    assert!(waited_secs(&told) >= 2.0 && told.ends_with(words), "{told}");
    assert_eq!(cluster.holder(), second);
}

#[test]
fn a_handover_that_is_refused_waits_for_no_moment() {
    let cluster = Cluster::start();
    let holder = cluster.holder();
    let (host, other) = (&cluster.hosts[holder], ["a", "b"][1 - holder]);
    host.set("turn", "1");
    let maintained = host.ask(&["maintenance", "on", "--member", other]);
    assert!(maintained.status.success(), "{maintained:?}");
    let refused = cluster.hand_over(holder, &["--to", other, "--within", "60s", "--timeout", "5m"]).ends();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("is in maintenance"), "{said}");
    let asked = host.events().into_iter().find(|event| event.contains("asked for windows"));
    assert_eq!(asked, None, "it looked for a window");
}

/// From `head` on, the next height but one has a chunk of the holder. What it said, and where it gave the key away.
fn waits_for_own_chunk(
    cluster: &Cluster,
    holder: usize,
    from: usize,
    head: u64,
    mut handover: Handover,
) -> (String, usize) {
    let host = &cluster.hosts[holder];
    let mut from = from;
    for height in [head, head + 1] {
        // Once the second question has come, the first answer did not begin it.
        for _ in 0..2 {
            from = host.event(from + 1, &format!("asked for windows at {height}"));
        }
        assert!(handover.is_under_way(), "it has ended at {height}: {:?}", handover.ends());
        let gone = host.events().into_iter().skip(from).find(|event| event.contains("hup key=-"));
        assert_eq!(gone, None, "begun at {height}, with a chunk to make");
        cluster.chain.block();
    }
    let told = moment(&handover.ends());
    (told, host.event(from, "hup key=-"))
}
