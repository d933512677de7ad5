//! The disk below the links hangs while the baton is let go: the node is ended all the same, and the core hears of it.

use baton::core::NotReady;

use super::*;
use crate::kit::hang::Disk;

/// In a thread of its own: what runs there, and what it starts, has the disk that hangs.
fn on_disk<T: Future<Output = ()>>(test: impl FnOnce(Disk) -> T + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let disk = Disk::here();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(test(disk));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The reason why this host could not take the baton, when it is about links.
fn links_error(host: &host_kit::Host) -> Option<String> {
    match host.core.read(|core, now| core.not_ready(now.boot)) {
        Some(NotReady::Links { reason }) => Some(reason),
        _ => None,
    }
}

fn lets_go_on_a_hung_disk(activation: Activation) {
    on_disk(async move |disk: Disk| {
        let host = Host::holding(activation).await;
        // Dropped before the host, so that nothing of a test that fails waits for the disk.
        let disk = disk;
        let began = Instant::now();
        disk.hang();
        host.hand_over();
        host.until("released", |host| host.event_after(0, "raft Release").is_some()).await;
        println!("released after {:?}", began.elapsed());
        assert!(disk.held() > 0, "nothing hung");
        assert_eq!(host.effects.node_pid(), None, "it runs");
        host.until("named", |host| links_error(host).is_some_and(|why| why.contains("not in standby yet"))).await;
        assert_eq!(host.effects.link_state(), LinkState::Validating, "the disk hangs");

        disk.thaw();
        host.until("in standby", |host| host.effects.link_state() == LinkState::Standby).await;
        // The standby starts once the links are away, and not before.
        host.until("no links to mend", |host| links_error(host).is_none()).await;
        host.until("a standby again", |host| host.effects.node_pid().is_some()).await;
        assert_eq!(host.effects.link_state(), LinkState::Standby);
    });
}

#[test]
fn a_node_that_is_stopped_to_let_go_is_stopped_beside_links_that_hang() {
    lets_go_on_a_hung_disk(Activation::Restart);
}

#[test]
fn a_node_that_could_give_its_key_away_is_stopped_when_its_links_hang() {
    lets_go_on_a_hung_disk(HOT);
}
