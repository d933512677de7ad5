//! The shipped alerts on a running network, with real Prometheus and Alertmanager: a fault is struck, its alerts fire
//! and arrive, it is healed, and that arrives too. And the shipped dashboard, every query of which has an answer.
//!
//! `cargo test -p localnet --test alerts -- --ignored --nocapture` prints how long each step took.

mod common;
#[path = "alerts/dashboard.rs"]
mod dashboard;
#[path = "alerts/monitors.rs"]
mod monitors;
#[path = "alerts/webhook.rs"]
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::{Ground, TestNet};
use localnet::hosts::faults::{self, What};
use localnet::judge::measure::Watch;
use localnet::judge::table::table;
use localnet::net::tls;
use localnet::net::{ChainKind, HookKind, Shape, write_file};
use localnet::process::launch::{self, diagnosis};
use localnet::runs::demo::Pair;
use monitors::{Alert, Monitors};
use webhook::{Delivered, Webhook};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For an alert to arrive, or its end: some times what `for` and the intervals of the shipped files add up to.
const ARRIVAL_BOUND: Duration = Duration::from_secs(100);
/// For the monitors to have seen a quiet cluster.
const QUIET_BOUND: Duration = Duration::from_secs(90);
const MOVE_BOUND: Duration = Duration::from_secs(15);
/// Of the machine, not of the cluster.
const NOT_OURS: [&str; 1] = ["BatonDiskLow"];

const NO_HOLDER: &str = "BatonNoHolder";

#[test]
#[ignore = "needs prometheus and prometheus-alertmanager; see README"]
fn alerts_fire_arrive_and_end_as_hosts_are_lost_and_return() {
    let t = TestNet::up(&[]);
    let pair = t.pair();
    let mut desk = Desk::open(&t);
    desk.await_quiet();

    let mut watch = t.or_logs(Watch::begin(&t.net));
    let struck_at = watch.now_ns();
    let targets = t.or_logs(faults::find(&t.net, &pair.holder, What::Host));
    desk.strike(format!("{}, the holder, killed", pair.holder));
    t.or_logs(faults::kill_host(&t.net, &pair.holder, &targets));
    let next = t.or_logs(watch.await_next(struck_at, &pair.holder, MOVE_BOUND));
    println!("{} signs {} ms after the kill of {}", next.host, (next.at_ns - struck_at) / 1_000_000, pair.holder);
    desk.await_arrival(&["BatonPeerDown", "BatonCoordinatorDown", "BatonNoReadyStandby"]);
    desk.heal(|| t.or_logs(launch::start_coordinator(&t.net, &pair.holder)));
    desk.await_end(&["BatonPeerDown", "BatonCoordinatorDown", "BatonNoReadyStandby"]);
    assert!(
        !desk.has_seen(NO_HOLDER),
        "a failover was told as the loss of all holders: {:#?}",
        desk.webhook.delivered()
    );

    let pair = t.pair();
    let arbiter = t.net.hosts.last().unwrap().id.clone();
    desk.strike(format!("{} and {arbiter} killed: no quorum", pair.standby));
    for host in [&arbiter, &pair.standby] {
        t.kill_host(host);
    }
    desk.await_arrival(&[NO_HOLDER, "BatonGuardFired", "BatonPeerDown", "BatonCoordinatorDown"]);
    desk.heal(|| {
        for host in [&arbiter, &pair.standby] {
            t.or_logs(launch::start_coordinator(&t.net, host));
        }
    });
    // The guard's goes on for ten minutes.
    desk.await_end(&[NO_HOLDER, "BatonPeerDown", "BatonCoordinatorDown"]);
    t.pair();
    t.assert_nothing_signed_twice();

    let pages: BTreeSet<String> = desk.of_path("/page").map(|delivered| delivered.name).collect();
    assert_eq!(pages, BTreeSet::from([NO_HOLDER.to_owned()]), "what is critical, and nothing else, goes to the pager");
    desk.assert_sentences();
    println!("\n{}", desk.time_line());
}

#[test]
#[ignore = "needs prometheus and prometheus-alertmanager; see README"]
fn every_query_of_the_dashboard_has_an_answer() {
    let ground = Ground::new();
    // Hooks are counted where there are some.
    let shape = Shape { cosmovisor: true, hooks: HookKind::Crash, ..Shape::usual(ChainKind::Sim) };
    let net = launch::prepare(&ground.dir, shape).unwrap();
    tls::write(&net).unwrap();
    for host in &net.hosts {
        let file = net.config_file(&host.id);
        write_file(&file, &(std::fs::read_to_string(&file).unwrap() + &tls::section(&net, host))).unwrap();
    }
    launch::start(&net, |_| ()).unwrap();
    let t = TestNet { ground, net };
    let Pair { holder, standby } = t.pair();
    let monitors = t.or_logs(Monitors::start(&t.net, Webhook::open().addr));
    // So that there is a gap to show, and a plan.
    common::said(&t, &holder, &["handover", "--to", &standby], 0);
    common::said(&t, &standby, &["upgrade", "plan", "v2", "--height", "1000000"], 0);
    t.active(&standby);

    // On this chain nobody asks a signer.
    let of_signer =
        |query: &String| ["baton_sign_", "baton_signed_", "baton_sentry_"].iter().any(|of| query.contains(of));
    let queries: Vec<String> = dashboard::queries().into_iter().filter(|query| !of_signer(query)).collect();
    assert!(queries.len() > 20, "{queries:#?}");
    let start = Instant::now();
    loop {
        let dumb = |query: &&String| {
            let answer = t.or_logs(monitors.ask(query));
            answer.is_empty() || answer.iter().any(|number| number.is_nan())
        };
        let left: Vec<&String> = queries.iter().filter(dumb).collect();
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < QUIET_BOUND, "without an answer: {left:#?}\n{}", diagnosis(&t.net));
        std::thread::sleep(LOOK_EVERY);
    }
    println!("{} queries, all answered", queries.len());
}

/// Where the alerts are looked at.
struct Desk<'a> {
    t: &'a TestNet,
    monitors: Monitors,
    webhook: Webhook,
    faults: Vec<Fault>,
}

/// Times count from `struck`.
struct Fault {
    what: String,
    struck: Instant,
    healed: Option<Instant>,
    /// When each alert was first seen to fire in Prometheus.
    firing: BTreeMap<String, Instant>,
    /// When each alert first came to the webhook, and when its end did after the healing.
    delivered: BTreeMap<String, Instant>,
    ended: BTreeMap<String, Instant>,
}

impl<'a> Desk<'a> {
    fn open(t: &'a TestNet) -> Desk<'a> {
        let webhook = Webhook::open();
        let monitors = t.or_logs(Monitors::start(&t.net, webhook.addr));
        Desk { t, monitors, webhook, faults: Vec::new() }
    }

    /// All hosts are scraped, one holds the baton, another is ready, and no alert even waits.
    fn await_quiet(&self) {
        let start = Instant::now();
        let facts = [
            ("sum(up{job=\"baton\"})", 3.0),
            ("sum(baton_holder_seen)", 3.0),
            ("max(baton_node_restarts_total)", 0.0),
            ("min(baton_standbys_ready)", 1.0),
        ];
        loop {
            let told = facts.map(|(expr, _)| self.t.or_logs(self.monitors.ask(expr)));
            let alerts = self.alerts();
            if facts.iter().zip(&told).all(|((_, fact), told)| told == &[*fact]) && alerts.is_empty() {
                return;
            }
            let logs = || diagnosis(&self.t.net);
            assert!(start.elapsed() < QUIET_BOUND, "not quiet: {facts:?} are {told:?}; {alerts:?}\n{}", logs());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn alerts(&self) -> BTreeSet<Alert> {
        let mut alerts = self.t.or_logs(self.monitors.alerts());
        alerts.retain(|alert| !NOT_OURS.contains(&alert.name.as_str()));
        alerts
    }

    fn strike(&mut self, what: String) {
        let struck = Instant::now();
        let (firing, delivered, ended) = Default::default();
        self.faults.push(Fault { what, struck, healed: None, firing, delivered, ended });
    }

    fn heal(&mut self, heal: impl FnOnce()) {
        self.faults.last_mut().unwrap().healed = Some(Instant::now());
        heal();
    }

    fn await_arrival(&mut self, names: &[&str]) {
        self.await_all(names, "not delivered", |fault| &fault.delivered);
        self.await_all(names, "not seen to fire", |fault| &fault.firing);
    }

    fn await_end(&mut self, names: &[&str]) {
        self.await_all(names, "whose end was not delivered", |fault| &fault.ended);
    }

    fn await_all(&mut self, names: &[&str], what: &str, of: impl Fn(&Fault) -> &BTreeMap<String, Instant>) {
        let start = Instant::now();
        loop {
            self.look();
            let fault = self.faults.last().unwrap();
            let left: Vec<&&str> = names.iter().filter(|name| !of(fault).contains_key(**name)).collect();
            if left.is_empty() {
                return;
            }
            if start.elapsed() > ARRIVAL_BOUND {
                let (alerts, came, logs) = (self.alerts(), self.webhook.delivered(), diagnosis(&self.t.net));
                panic!("{}: {what}: {left:?}\nin Prometheus: {alerts:#?}\ndelivered: {came:#?}\n{logs}", fault.what);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn look(&mut self) {
        let (alerts, now) = (self.alerts(), Instant::now());
        let fault = self.faults.last_mut().unwrap();
        for alert in alerts.into_iter().filter(|alert| alert.firing) {
            fault.firing.entry(alert.name).or_insert(now);
        }
        for Delivered { at, name, resolved, .. } in self.webhook.delivered() {
            match fault.healed {
                Some(healed) if resolved && at >= healed => drop(fault.ended.entry(name).or_insert(at)),
                _ if !resolved && at >= fault.struck => drop(fault.delivered.entry(name).or_insert(at)),
                Some(_) | None => {}
            }
        }
    }

    fn has_seen(&self, name: &str) -> bool {
        let fired = self.faults.iter().any(|fault| fault.firing.contains_key(name));
        fired || self.webhook.delivered().iter().any(|delivered| delivered.name == name)
    }

    fn of_path(&self, path: &str) -> impl Iterator<Item = Delivered> {
        self.webhook.delivered().into_iter().filter(move |delivered| delivered.path == path)
    }

    /// What an operator reads is whole: no template failed, and the section to read exists.
    fn assert_sentences(&self) {
        const RUNBOOK: &str = include_str!("../../docs/alerts.md");
        for Delivered { name, alert, .. } in self.webhook.delivered() {
            let [summary, description, runbook] =
                ["summary", "description", "runbook"].map(|key| alert["annotations"][key].as_str().unwrap_or_default());
            for text in [summary, description] {
                let broken = ["<no value>", "<error", "%!", "  "].iter().any(|mark| text.contains(mark));
                assert!(!text.is_empty() && !broken, "{alert:#}");
            }
            assert!(summary.contains("my-validator"), "which cluster is it? {alert:#}");
            assert!(
                RUNBOOK.contains(&format!("\n## {name}\n")) && runbook.ends_with(&name.to_lowercase()),
                "{alert:#}"
            );
        }
    }

    /// Seconds since the fault was struck.
    fn time_line(&self) -> String {
        let head =
            ["fault", "alert", "fires in Prometheus", "delivered", "healed", "its end delivered", "after healing"];
        let mut rows = vec![head.map(String::from).to_vec()];
        for fault in &self.faults {
            let since = |at: Option<Instant>, from: Instant| {
                at.map_or("-".into(), |at| format!("{:.1}", at.saturating_duration_since(from).as_secs_f64()))
            };
            let mut names: Vec<_> = fault.delivered.iter().map(|(name, at)| (*at, name)).collect();
            names.sort();
            for (delivered, name) in names {
                let (firing, ended) = (fault.firing.get(name).copied(), fault.ended.get(name).copied());
                let times = [firing, Some(delivered), fault.healed, ended].map(|at| since(at, fault.struck));
                let after = since(ended, fault.healed.unwrap_or(fault.struck));
                rows.push([&[fault.what.clone(), name.clone()][..], &times, &[after]].concat());
            }
        }
        table(&rows)
    }
}
