//! Strangers flood every member with TLS handshakes that come to nothing, and no lease is lost: the holder keeps the
//! baton while the other members come back one after the other, whose handshakes find a place among those of the
//! strangers.

use std::time::{Duration, Instant};

use crate::common::{TestNet, long_leases};
use localnet::judge::status::{self, await_status, query_host};
use localnet::net::{ChainKind, Shape};
use localnet::process::launch::{self, diagnosis};
use localnet::runs::demo::{Pair, hand_over};
use localnet::runs::flood::{Counts, Flood};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);
/// Of strangers, at each member.
const PER_S: u64 = 100;
/// Handshakes that each member ends before and after it is restarted: strangers of every manner, from one address and
/// from many.
const ENDED: u64 = 100;

/// Waits until every member has ended so many more than when this was called.
fn await_ended(t: &TestNet, flood: &Flood) {
    let (start, before) = (Instant::now(), flood.at_each());
    let has_ended = |(now, before): (&Counts, &Counts)| now.ended >= before.ended + ENDED;
    while !flood.at_each().iter().zip(&before).all(has_ended) {
        let seen = || flood.at_each().iter().map(Counts::to_string).collect::<Vec<_>>().join("; ");
        assert!(start.elapsed() < PATIENCE, "{ENDED} handshakes at each: {}\n{}", seen(), diagnosis(&t.net));
        std::thread::sleep(status::POLL_EVERY);
    }
}

/// The coordinator of `host` is another one, and the holder reaches it.
fn restart(t: &TestNet, host: &str, holder: &str) {
    t.end_coordinator(host, Signal::TERM);
    t.or_logs(launch::start_coordinator(&t.net, host));
    let own = || query_host(&t.net, host).is_ok_and(|own| own.holder.as_deref() == Some(holder) && own.quorum);
    let what = format!("{host} is back and knows the holder");
    t.or_logs(await_status(&t.net, &what, PATIENCE, |_| (), |_| own()));
}

#[test]
fn a_flood_of_handshakes_costs_no_lease_and_keeps_no_member_out() {
    let t = TestNet::prepared(Shape { tls: true, ..Shape::usual(ChainKind::Sim) }, long_leases);
    t.or_logs(launch::start(&t.net, |_| ()));
    let Pair { holder, standby } = t.pair();
    let before = t.or_logs(status::query(&t.net));
    let flood = t.or_logs(Flood::begin(&t.net, &t.net.hosts, PER_S));
    await_ended(&t, &flood);
    for host in t.net.hosts.iter().filter(|host| host.id != holder) {
        restart(&t, &host.id, &holder);
    }
    assert_eq!(t.pair(), Pair { holder: holder.clone(), standby: standby.clone() });
    await_ended(&t, &flood);
    let after = t.or_logs(status::query(&t.net));
    assert_eq!((after.epoch, after.holder), (before.epoch, before.holder), "a lease was lost\n{}", diagnosis(&t.net));

    // What needs votes works as well.
    t.or_logs(hand_over(&t.net, &Pair { holder, standby: standby.clone() }));
    t.active(&standby);
    println!("{}; epoch {}, terms {} to {}", flood.counts(), after.epoch, before.term, after.term);
    t.assert_nothing_signed_twice();
}
