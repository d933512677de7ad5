//! A neard that refuses to reload, since one of its files is broken: the file and its line stand wherever an operator looks.

use super::{Cluster, Host};

const BROKEN: &str = "{\n  \"tracked_shards_config\": \"AllShards\"";
const SOUND: &str = "{\"tracked_shards_config\": \"AllShards\"}";
const REFUSED: &str = "the chain node refused to reload and keeps what it had: ";

/// How baton names the broken file.
fn place(host: &Host) -> String {
    let file = host.home("config.json").canonicalize().expect("a path");
    format!("{}, line 2: ", file.display())
}

/// The log says `because` with the file, its line and what is wrong there. `status` and `why` of every host say the same,
/// and nobody repeats the time of neard's own line.
fn is_named(cluster: &Cluster, of: usize, because: &str) {
    let host = &cluster.hosts[of];
    let wanted = format!("{because}{REFUSED}{}EOF while parsing an object", place(host));
    let line = host.until(&format!("in the log: {wanted}"), || {
        host.stage.log().lines().find(|line| line.contains(&wanted)).map(str::to_owned)
    });
    assert!(!line.contains("neard"), "neard's own words around it: {line}");
    // Its node is stopped and cannot start again, for the same reason.
    host.until("stopped", || host.stage.log().contains("the chain node ended with exit code 1").then_some(()));
    for asked in &cluster.hosts {
        for verb in ["status", "why"] {
            let told = asked.until(&format!("{verb} names it"), || {
                let told = asked.told(verb);
                (told.contains("exit code 1") && told.contains(place(host).trim_end())).then_some(told)
            });
            assert!(!told.contains("2026-06-01T10:00:00"), "neard's own time, by {verb}: {told}");
        }
    }
}

#[test]
fn a_refused_reload_is_named_with_file_and_line_in_the_log_in_status_and_in_why() {
    let cluster = Cluster::start();
    let old = cluster.holder();
    let new = 1 - old;

    // The new holder does not get the key, and lets go again.
    cluster.hosts[new].set("config.json", BROKEN);
    let failed = cluster.hand_over(old, &["--now", "--to", ["a", "b"][new]]).ends();
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && !said.contains("did not take the baton"), "it has claimed, and failed: {said}");
    is_named(&cluster, new, "not activated: ");
    cluster.hosts[new].set("config.json", SOUND);
    assert_eq!(cluster.holder(), old);
    cluster.is_ready(new);

    // The old holder keeps its key, so its node is stopped.
    cluster.hosts[old].set("config.json", BROKEN);
    let done = cluster.hand_over(old, &["--now"]).ends();
    assert!(done.status.success(), "{done:?}");
    is_named(&cluster, old, "the chain node is stopped, since it is not proven keyless: ");
    assert_eq!(cluster.holder(), new);
}
