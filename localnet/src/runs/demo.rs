//! The demo: a network comes up, the holder's host dies, another takes over, the dead one returns and
//! gets the baton back by handover, the checker judges. Shows it all as it happens. The caller has a
//! keeper that takes everything down afterwards.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::hosts::faults::{self, What};
use crate::judge::check::check;
use crate::judge::measure::{Signed, Watch};
use crate::judge::status::{Answer, Status, await_status, baton_at, run_bounded};
use crate::judge::table::{Screen, millis, table};
use crate::net::{ChainKind, Net, Shape};
use crate::process::launch::{self, with_diagnosis};
use crate::process::procs::describe;

const READY_BOUND: Duration = Duration::from_secs(60);
const SIGN_BOUND: Duration = Duration::from_secs(30);
const HANDOVER_BOUND: Duration = Duration::from_secs(40);

/// Runs the whole story; true when nothing was signed twice.
pub fn run(dir: &Path, shape: Shape) -> Result<bool> {
    // Cargo may have to build baton first, which is no part of the story.
    let net = launch::prepare(dir, shape)?;
    let mut screen = Screen::default();
    screen.note(&format!(
        "starting {} hosts and a chain of three other validators under {}",
        shape.hosts,
        dir.display()
    ));
    launch::start(&net, |status| screen.show(status))?;
    with_diagnosis(&net, story(&net, &mut screen))
}

fn story(net: &Net, screen: &mut Screen) -> Result<bool> {
    let first = await_pair(net, |status| screen.show(status))?;
    screen.note(&format!("{} holds the baton, {} is ready", first.holder, first.standby));
    let failover = lose_host(net, screen, &first)?;

    launch::start_coordinator(net, &first.holder)?;
    screen.note(&format!("{} is started again", first.holder));
    let second = await_pair(net, |status| screen.show(status))?;
    screen.note(&format!("{} holds the baton, {} is a ready standby", second.holder, second.standby));
    Watch::begin(net)?.await_by(&second.holder, quiet_signatures(net), SIGN_BOUND)?;
    let handover = hand_over(net, &second)?;
    screen.note(&format!("handover: {} signs after a pause of {}", second.standby, millis(handover.pause)));
    Watch::begin(net)?.await_by(&second.standby, quiet_signatures(net), SIGN_BOUND)?;

    let verdict = check(net)?;
    screen.note("verdict of the checker:");
    print!("{verdict}");
    let row = |what: String, pause: String| vec![what, pause];
    let rows = [
        row("move".into(), "pause in signing".into()),
        row(format!("host lost: {} to {}", first.holder, first.standby), millis(failover)),
        row(format!("handover: {} to {}", second.holder, second.standby), millis(handover.pause)),
    ];
    println!("\n{}\ndouble signatures: {}", table(&rows), verdict.doubles);
    Ok(verdict.is_clean())
}

/// So many signatures without an event are enough to see that all is well.
fn quiet_signatures(net: &Net) -> usize {
    match net.chain {
        ChainKind::Sim => 60,
        ChainKind::Cometbft => 12,
    }
}

/// Kills the holder's host; from that instant to the next signature by another host.
fn lose_host(net: &Net, screen: &mut Screen, pair: &Pair) -> Result<Duration> {
    let mut watch = Watch::begin(net)?;
    watch.await_by(&pair.holder, quiet_signatures(net), SIGN_BOUND)?;
    let targets = faults::find(net, &pair.holder, What::Host)?;
    let killed_at = watch.now_ns();
    faults::kill_host(net, &pair.holder, &targets)?;
    screen.note(&format!("killed {}: {}", pair.holder, describe(&targets)));
    let next = watch.await_next(killed_at, &pair.holder, SIGN_BOUND)?;
    let gap = Duration::from_nanos(next.at_ns - killed_at);
    screen.note(&format!("{} signs height {} {} after the kill", next.host, next.height, millis(gap)));
    Ok(gap)
}

/// Who holds the baton and who could take it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub holder: String,
    pub standby: String,
}

impl Pair {
    fn of(net: &Net, status: &Status) -> Option<Pair> {
        let holder = status.active()?.id.clone();
        let standby = net.signers().find(|h| h.id != holder && status.is_ready_standby(&h.id))?.id.clone();
        Some(Pair { holder, standby })
    }
}

/// Waits until one host is Active and the other a ready standby.
pub fn await_pair(net: &Net, seen: impl FnMut(&Status)) -> Result<Pair> {
    await_pair_within(READY_BOUND, net, seen)
}

/// As [`await_pair`], with another bound.
pub fn await_pair_within(bound: Duration, net: &Net, seen: impl FnMut(&Status)) -> Result<Pair> {
    let awaited = "a holder is Active and the other host a ready standby";
    let status = await_status(net, awaited, bound, seen, |status| Pair::of(net, status).is_some())?;
    Pair::of(net, &status).context("a pair that was there")
}

/// A handover that was done, and what it cost.
pub struct Handover {
    pub first: Signed,
    /// Last signature of the old holder to the first of the new one.
    pub pause: Duration,
}

/// Moves the baton from `pair.holder` to `pair.standby` and measures it.
pub fn hand_over(net: &Net, pair: &Pair) -> Result<Handover> {
    let mut watch = Watch::begin(net)?;
    measured_hand_over(net, pair, &mut watch)
}

/// As [`hand_over`], with the caller's watch, which began before.
pub fn measured_hand_over(net: &Net, pair: &Pair, watch: &mut Watch) -> Result<Handover> {
    // A move may be faster than a slot: see the old holder sign first.
    watch.await_by(&pair.holder, 1, SIGN_BOUND)?;
    let asked_at = watch.now_ns();
    let answer = request_handover(net, &pair.holder, Some(&pair.standby))?;
    if answer.code != Some(0) {
        bail!("baton handover --to {}: exit code {:?}: {}{}", pair.standby, answer.code, answer.stdout, answer.stderr);
    }
    let first = watch.await_next(asked_at, &pair.holder, SIGN_BOUND)?;
    let pause = watch.pause_before(&pair.holder, &first);
    let pause = pause.with_context(|| format!("{} signed nothing before the handover", pair.holder))?;
    Ok(Handover { first, pause })
}

/// Asks the coordinator of `host` as an operator would.
pub fn request_handover(net: &Net, host: &str, to: Option<&str>) -> Result<Answer> {
    let to: Vec<&str> = to.map(|to| ["--to", to]).into_iter().flatten().collect();
    ask_baton(net, host, &[&["handover"], &to[..]].concat())
}

/// Runs `baton` with `args` to its end, as an operator on `host` would.
pub fn ask_baton(net: &Net, host: &str, args: &[&str]) -> Result<Answer> {
    ask_baton_within(HANDOVER_BOUND, net, host, args)
}

/// As [`ask_baton`], by one who gives up sooner.
pub fn ask_baton_within(bound: Duration, net: &Net, host: &str, args: &[&str]) -> Result<Answer> {
    run_bounded(baton_at(net, host, args)?, bound)
}
