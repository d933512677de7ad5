//! By when somebody has to sign while faults last. Whatever they leave of the hosts, a quorum and one that was holder
//! or ready standby when they struck are enough; without these nothing is asked. A host that votes for nobody, since an
//! earlier fault tore the record of its promises, counts as struck. What is too long is a silence, and fails the run as
//! something signed twice does.
//!
//! The limits are those of docs/safety.md for a machine that is not busy, by kind of fault; a lease more from the moment in
//! which all faults have ended. Every round has [`NOISE`] besides: the whole network, the checker and whatever else runs
//! share the cores of one machine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::fault::{Fault, Kind};
use crate::judge::measure::Watch;
use crate::judge::status;
use crate::net::{ChainKind, Net};
use crate::process::launch;
use crate::runs::demo::Pair;

/// On top of the limit of each round, for a machine that is busy.
pub const NOISE: Duration = Duration::from_secs(5);
/// The probes of these networks have failed by then.
const PROBES_FAIL: Duration = Duration::from_millis(750);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a host is still good for under a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Good {
    ForNothing,
    /// Its coordinator votes, and its chain node or guard does not do its part.
    ToVote,
    ToSign,
}

fn good_under(kind: Kind) -> Good {
    match kind {
        Kind::Cut | Kind::CutIn | Kind::CutOut | Kind::Delay | Kind::Loss => Good::ForNothing,
        Kind::KillCoordinator | Kind::KillHost | Kind::StopCoordinator | Kind::StopHost => Good::ForNothing,
        Kind::DiskFull | Kind::TornStore | Kind::WipedMember | Kind::DuplicateMember => Good::ForNothing,
        Kind::FrozenDisk | Kind::FrozenState | Kind::SlowSyncs | Kind::SlowFollower => Good::ForNothing,
        // By a wrong clock the others can tell less of theirs.
        Kind::ClockStep | Kind::ChangedTiming => Good::ForNothing,
        Kind::KillGuard | Kind::KillNode | Kind::StopGuard | Kind::StopNode | Kind::HungIdleGuard => Good::ToVote,
        Kind::FrozenHome => Good::ToVote,
        // Its coordinator leads on, and may hand over.
        Kind::KillSigner | Kind::StopSigner => Good::ToVote,
        // By the time anybody looks, it has power again.
        Kind::PowerCut => Good::ToSign,
        Kind::HandshakeFlood => Good::ToSign,
    }
}

/// By when somebody signs again, with leases of this length. Measured ones stand in docs/measurements.md.
fn limit_of(kind: Kind, lease: Duration) -> Duration {
    let ms = Duration::from_millis;
    match kind {
        Kind::KillNode => ms(300),
        // The promises to the lost holder run out, and somebody is elected.
        Kind::KillHost | Kind::KillCoordinator | Kind::StopHost | Kind::StopCoordinator => lease + ms(500),
        Kind::Cut | Kind::CutOut | Kind::TornStore | Kind::WipedMember | Kind::KillGuard => lease + ms(500),
        // What the holder sends prolongs the promises until its connections end.
        Kind::CutIn => lease + ms(1_500),
        Kind::StopGuard | Kind::HungIdleGuard => lease + ms(3_000),
        Kind::StopNode => PROBES_FAIL + ms(3_000),
        Kind::SlowSyncs => lease + ms(2_000),
        Kind::FrozenDisk | Kind::FrozenState | Kind::FrozenHome => ms(10_000),
        // As a lost holder at worst, with an election over slow wires.
        Kind::Delay | Kind::Loss | Kind::SlowFollower | Kind::ClockStep => lease + ms(2_000),
        Kind::DiskFull | Kind::DuplicateMember | Kind::ChangedTiming => lease + ms(2_000),
        Kind::KillSigner => lease + ms(500),
        Kind::StopSigner => lease + ms(3_000),
        // Every program starts, and the chain nodes find their peers.
        Kind::PowerCut => 2 * lease + ms(10_000),
        // It may cost no lease.
        Kind::HandshakeFlood => lease,
    }
}

/// For the next slot. A node of CometBFT is restarted to be given the key, and makes a block a second.
fn of_chain(net: &Net) -> Duration {
    match net.chain {
        ChainKind::Sim => Duration::from_millis(net.slot_ms),
        ChainKind::Cometbft => Duration::from_secs(6),
    }
}

/// Somebody who has signed within this has not fallen silent.
fn fresh(net: &Net) -> Duration {
    match net.chain {
        ChainKind::Sim => 5 * Duration::from_millis(net.slot_ms),
        ChainKind::Cometbft => Duration::from_millis(2_500),
    }
}

/// Hosts whose coordinators cannot read what they have promised. They vote for nobody, themselves included, for as long
/// as the longest promise could last, and say so when they start.
#[derive(Clone, Default)]
pub struct Mute {
    until: BTreeMap<String, Instant>,
    /// How often each has said so.
    said: BTreeMap<String, usize>,
}

/// In the log of a coordinator, before the seconds.
const VOTES_FOR_NOBODY: &str = "votes for nobody for ";

impl Mute {
    /// Takes in what the coordinators have said since the last look.
    pub fn look(&mut self, net: &Net) -> Result<()> {
        for host in &net.hosts {
            let log = net.host_dir(&host.id).join("coordinator.log");
            let text = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
            self.hear(&host.id, &String::from_utf8_lossy(&text));
        }
        Ok(())
    }

    fn hear(&mut self, host: &str, log: &str) {
        let said = self.said.entry(host.into()).or_default();
        for words in log.split(VOTES_FOR_NOBODY).skip(1 + *said) {
            *said += 1;
            let secs = words.split(' ').next().and_then(|secs| secs.parse().ok()).unwrap_or_default();
            let until = Instant::now() + Duration::from_secs(secs);
            self.until.entry(host.into()).and_modify(|before| *before = until.max(*before)).or_insert(until);
        }
    }

    fn is_mute(&self, host: &str) -> bool {
        self.until.get(host).is_some_and(|until| Instant::now() < *until)
    }
}

/// What is asked of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of the faults together; see [`NOISE`].
    pub goal: Duration,
}

impl Limit {
    /// `None`: these faults leave too little for anybody to have to sign.
    pub fn of(net: &Net, pair: &Pair, faults: &[Fault], lease: Duration, mute: &Mute) -> Option<Limit> {
        let good = |host: &str| {
            if mute.is_mute(host) {
                return Good::ForNothing;
            }
            let struck = faults.iter().filter(|fault| fault.host == host);
            let good = |fault: &Fault| match fault.kind {
                // SIGKILL waits for that disk, and without the proof that its node is dead a holder votes for nobody.
                Kind::FrozenHome if pair.holder == host => Good::ForNothing,
                kind => good_under(kind),
            };
            struck.map(good).min().unwrap_or(Good::ToSign)
        };
        let votes = net.hosts.iter().filter(|host| good(&host.id) >= Good::ToVote).count();
        let signs = [&pair.holder, &pair.standby].into_iter().any(|host| good(host) == Good::ToSign);
        let goal = || faults.iter().map(|fault| limit_of(fault.kind, lease)).sum::<Duration>() + of_chain(net);
        (votes > net.hosts.len() / 2 && signs).then(|| Limit { goal: goal() })
    }

    /// By when somebody signs once all faults have ended, and the promises to whoever was lost then with them.
    pub fn after(net: &Net, pair: &Pair, faults: &[Fault], lease: Duration, mute: &Mute) -> Option<Limit> {
        let votes = net.hosts.iter().filter(|host| !mute.is_mute(&host.id)).count();
        let signs = [&pair.holder, &pair.standby].into_iter().any(|host| !mute.is_mute(host));
        let goal = || faults.iter().map(|fault| limit_of(fault.kind, lease)).sum::<Duration>() + lease + of_chain(net);
        (votes > net.hosts.len() / 2 && signs).then(|| Limit { goal: goal() })
    }

    fn with_noise(self) -> Duration {
        self.goal + NOISE
    }
}

/// The longest time of a round in which nobody signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    pub lasted: Duration,
    pub limit: Limit,
}

impl Silence {
    pub fn is_too_long(self) -> bool {
        self.lasted > self.limit.with_noise()
    }

    /// Of what is allowed on a machine that is not busy.
    pub fn permille(self) -> u128 {
        1000 * self.lasted.as_millis() / self.limit.goal.as_millis().max(1)
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s of {:.1} s", self.lasted.as_secs_f64(), self.limit.goal.as_secs_f64())
    }
}

/// Waits until somebody signs, or has not for too long. The longest silence since `struck_ns`.
///
/// From `moves_from`, whom its fault stops only after a while, it waits until another host has signed, or the limit has
/// passed.
pub fn judge(net: &Net, watch: &mut Watch, struck_ns: u64, limit: Limit, moves_from: Option<&str>) -> Result<Silence> {
    let began = Instant::now();
    loop {
        watch.poll()?;
        let seen = watch.silences_since(struck_ns);
        let silence = Silence { lasted: seen.longest, limit };
        let moved = moves_from.is_none_or(|host| watch.others_signed_since(struck_ns, host));
        let settled = moved || began.elapsed() > limit.with_noise();
        if silence.is_too_long() || (seen.present < fresh(net) && settled) {
            return Ok(silence);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What every host tells of itself and of the others now.
pub fn statuses(net: &Net) -> String {
    let of = |id: &str| match status::query_host(net, id) {
        Ok(status) => status.summary(),
        Err(error) => format!("{error:#}"),
    };
    let lines = net.hosts.iter().map(|host| format!("{}: {}", host.id, of(&host.id)));
    lines.chain([launch::diagnosis(net)]).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Programs, Shape};

    const LEASE: Duration = Duration::from_secs(1);
    const SLOT: Duration = Duration::from_millis(50);

    fn goal(faults: &[(Kind, &str)]) -> Option<Duration> {
        goal_with(faults, &Mute::default())
    }

    fn goal_with(faults: &[(Kind, &str)], mute: &Mute) -> Option<Duration> {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        let pair = Pair { holder: "host-a".into(), standby: "host-b".into() };
        let faults: Vec<Fault> =
            faults.iter().map(|(kind, host)| Fault { kind: *kind, host: (*host).into() }).collect();
        Limit::of(&net, &pair, &faults, LEASE, mute).map(|limit| limit.goal)
    }

    fn goal_after(mute: &Mute) -> Option<Duration> {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::lay_out(dir.path(), Shape::usual(ChainKind::Sim), Programs::nowhere()).unwrap();
        let pair = Pair { holder: "host-a".into(), standby: "host-b".into() };
        let faults = [Fault { kind: Kind::KillHost, host: "host-a".into() }];
        Limit::after(&net, &pair, &faults, LEASE, mute).map(|limit| limit.goal)
    }

    #[test]
    fn one_host_that_is_lost_keeps_nobody_from_signing_whatever_its_fault() {
        for kind in Kind::ALL {
            for host in ["host-a", "host-b", "host-c"] {
                assert_eq!(goal(&[(kind, host)]), Some(limit_of(kind, LEASE) + SLOT), "{kind:?} at {host}");
                let twice = goal(&[(kind, host), (Kind::Delay, host)]);
                assert_eq!(
                    twice,
                    Some(limit_of(kind, LEASE) + limit_of(Kind::Delay, LEASE) + SLOT),
                    "{kind:?} at {host}"
                );
            }
        }
    }

    #[test]
    fn a_host_that_votes_for_nobody_counts_as_struck_until_it_votes_again() {
        let mut mute = Mute::default();
        mute.hear("host-b", "fails its checksum; this member votes for nobody for 132 s, the longest promise\n");
        assert_eq!(goal_with(&[(Kind::FrozenHome, "host-a")], &mute), None);
        assert!(goal_after(&mute).is_some(), "two vote once the faults are over");
        let mut two = mute.clone();
        two.hear("host-c", "this member votes for nobody for 132 s, the longest promise\n");
        assert_eq!(goal_after(&two), None);
        assert!(goal_with(&[(Kind::FrozenHome, "host-b")], &mute).is_some(), "the holder and the arbiter are left");
        let mut over = Mute::default();
        over.hear("host-b", "this member votes for nobody for 0 s, the longest promise\n");
        assert!(goal_with(&[(Kind::FrozenHome, "host-a")], &over).is_some());
    }

    #[test]
    fn without_a_quorum_or_a_standby_nothing_is_asked() {
        assert_eq!(goal(&[(Kind::KillHost, "host-a"), (Kind::Cut, "host-c")]), None, "no quorum");
        assert_eq!(goal(&[(Kind::FrozenHome, "host-a"), (Kind::WipedMember, "host-c")]), None, "no proof, no vote");
        assert!(goal(&[(Kind::FrozenHome, "host-b"), (Kind::WipedMember, "host-c")]).is_some(), "it had no key");
        assert_eq!(goal(&[(Kind::StopNode, "host-a"), (Kind::KillNode, "host-b")]), None, "no host with a node");
        assert!(goal(&[(Kind::StopNode, "host-a"), (Kind::Cut, "host-c")]).is_some(), "the holder's coordinator votes");
        assert!(goal(&[(Kind::KillHost, "host-a"), (Kind::HandshakeFlood, "host-b")]).is_some());
    }
}
