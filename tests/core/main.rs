//! Stories of one core, told in `tests/cases/*.txt`: what happens at which time, and what the core then asks for.
//! `UPDATE=1 cargo test --test core` writes the answers anew; read the difference before it is committed.
//!
//! A line `at 150ms  acked b 3 sent 100ms` is an event, `given holder` a few of them whose answers nobody needs to
//! see again. `expect` is an action, an answer of the vote gate or a time, `now` the state shown to operators when it
//! has changed. The wall clock shows the same as the steady one, until it is set `wall-ahead`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use baton::base::chain_node::{FloorBasis, Health, KeyLook, KeyState, MetFloor, SignFloor};
use baton::base::guard_frame::{Armed, Containment, ExitCause, NodeProcess};
use baton::base::ids::{Epoch, NodeId, Role, SignMark, UpgradeName};
use baton::base::signing::{Custody, Hrs, SignTime};
use baton::base::time::{BootTime, Now, WallTime};
use baton::base::timing::{LeaseSpan, Timing};
use baton::core::agreed::replicated::{Baton, Command, Replicated, Set, Signing};
use baton::core::agreed::sign_log::Grant;
use baton::core::tenure::{Halt, Reason};
use baton::core::{Action, ClockOffset, Core, Descendant, Event, Memory, Peer, Settings, Stage, Unheld};

const HANDOVER_TIMEOUT: Duration = Duration::from_secs(60);

struct Story {
    settings: Settings,
    memory: Memory,
    replicated: Replicated,
    core: Option<Core>,
    at: Duration,
    shown: String,
    /// The guard confirms every renewal at once.
    guard_answers: bool,
    /// How far the wall clock is ahead of the steady one.
    ahead: Duration,
    /// The last that was asked of it.
    deadline: BootTime,
}

#[test]
fn every_story_goes_as_it_is_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "txt"));
    paths.sort();
    assert!(!paths.is_empty(), "no stories in {}", folder.display());
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let written = fs::read_to_string(&path).unwrap();
        let told = tell(&written).unwrap_or_else(|(line, error)| panic!("{name}:{line}: {error}"));
        if told != written {
            if update {
                fs::write(&path, &told).unwrap();
            }
            wrong.push(format!("{name}:\n{}", first_difference(&written, &told)));
        }
    }
    assert!(wrong.is_empty() || update, "UPDATE=1 rewrites these:\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let told = tell("# A title.\n\ngiven standby\nat 1s  vote? b\n    expect no\n").unwrap();
    assert!(told.ends_with("at 1s  vote? b\n    expect yes\n"), "{told}");
}

fn first_difference(written: &str, told: &str) -> String {
    let (mut left, mut right) = (written.lines(), told.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (left.next(), right.next()) {
            (None, None) => return "  (only the ends differ)".into(),
            (a, b) if a == b => {}
            (a, b) => {
                return format!("  line {number}\n  written: {}\n  told:    {}", a.unwrap_or("-"), b.unwrap_or("-"));
            }
        }
    }
}

/// The story with the answers that the core gives now.
fn tell(written: &str) -> Result<String, (usize, String)> {
    let mut story = Story::new();
    let mut told = String::new();
    for (index, line) in written.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied() {
            Some("expect" | "now") => continue,
            None | Some("#") => writeln!(told, "{line}").unwrap(),
            Some(_) => {
                writeln!(told, "{line}").unwrap();
                let answers = story.happen(&words).map_err(|error| (index + 1, error))?;
                for answer in answers {
                    writeln!(told, "    {answer}").unwrap();
                }
            }
        }
    }
    Ok(told)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 150ms or 1.5s");
    match text.strip_suffix("ms") {
        Some(number) => number.parse().map(Duration::from_millis).map_err(|_| wrong()),
        None => {
            let seconds: f64 = text.strip_suffix('s').ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
            Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
        }
    }
}

fn boot(at: Duration) -> BootTime {
    BootTime::from_nanos(at.as_nanos() as u64)
}

fn wall(at: Duration) -> WallTime {
    WallTime::from_nanos(at.as_nanos() as u64)
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

fn epoch(word: &str) -> Result<Epoch, String> {
    number(word).map(Epoch)
}

fn mark(word: &str) -> Result<Option<SignMark>, String> {
    if word == "-" { Ok(None) } else { number(word).map(SignMark::at_height).map(Some) }
}

impl Story {
    fn new() -> Story {
        let settings = Settings {
            me: "a".into(),
            role: Role::Validator,
            priorities: [("a", 100), ("b", 90), ("c", 0)].map(|(id, priority)| (id.into(), priority)).into(),
            timing: Timing::LAN,
            failback: false,
            clock_skew: Duration::from_millis(10),
            node_refuses: false,
            probe_failures_max: 3,
            min_peers: None,
            unstated_lease: None,
            head_still_max: Duration::from_secs(10),
            activation_max: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(30),
            settle_max: None,
            sees_key_on_chain: false,
            custody: Custody::Links,
        };
        let replicated = Replicated::default();
        let memory = Memory { view: replicated.view(), ..Memory::fresh() };
        Story {
            settings,
            memory,
            replicated,
            core: None,
            at: Duration::ZERO,
            shown: String::new(),
            guard_answers: true,
            ahead: Duration::ZERO,
            deadline: BootTime::default(),
        }
    }

    fn happen(&mut self, words: &[&str]) -> Result<Vec<String>, String> {
        match words {
            ["set", rest @ ..] => self.set(rest).map(|()| Vec::new()),
            ["given", "standby"] => self.given(&STANDBY),
            ["given", "holder"] => {
                self.given(&STANDBY)?;
                self.given(&HOLDER)
            }
            ["at", at, rest @ ..] => {
                let at = duration(at)?;
                if at < self.at {
                    return Err(format!("{at:?} lies before {:?}", self.at));
                }
                self.at = at;
                self.tell(rest)
            }
            _ => Err("expected: set, given or at".into()),
        }
    }

    fn given(&mut self, lines: &[&str]) -> Result<Vec<String>, String> {
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            self.happen(&words)?;
        }
        Ok(Vec::new())
    }

    fn set(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["me", me] => self.settings.me = (*me).into(),
            ["custody", "signer"] => self.settings.custody = Custody::Signer,
            ["node_refuses"] => self.settings.node_refuses = true,
            ["arbiter"] => self.settings.role = Role::Arbiter,
            ["failback"] => self.settings.failback = true,
            ["sees_key_on_chain"] => self.settings.sees_key_on_chain = true,
            ["on_halt", "replica", "after", max] => self.settings.settle_max = Some(duration(max)?),
            ["min_peers", min] => self.settings.min_peers = Some(number(min)? as u32),
            ["mark_seen", height] => self.memory.mark_seen = Some(SignMark::at_height(number(height)?)),
            ["lease", lease] => self.settings.timing = timing(lease)?,
            ["older_members_lease", lease] => self.settings.unstated_lease = Some(duration(lease)?),
            ["promised", promise] => self.memory.promised = duration(promise)?,
            ["promise_lost"] => (self.memory.promised, self.memory.promise_lost) = (Timing::promise_max(), true),
            ["restarted", "vote", term] => (self.memory.fresh, self.memory.vote_term) = (false, number(term)?),
            ["log", term, rest @ ..] => {
                let command = self.command(rest)?;
                self.replicated.apply(number(term)?, &command);
                self.memory.view = self.replicated.view();
                self.memory.released_term = self.replicated.last_release.map(|release| release.term);
            }
            _ => return Err("set what?".into()),
        }
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Result<Command, String> {
        let at = wall(self.at);
        Ok(match words {
            ["claim", of, member] => {
                Command::Baton(Baton::Claim { epoch: epoch(of)?, member: (*member).into(), reason: "test".into(), at })
            }
            ["release", of, "mark", last] => Command::Baton(Baton::Release {
                epoch: epoch(of)?,
                last_signed: mark(last)?,
                reason: "operator".into(),
                at,
                to: None,
            }),
            ["release", of, "mark", last, "to", to] => Command::Baton(Baton::Release {
                epoch: epoch(of)?,
                last_signed: mark(last)?,
                reason: "operator".into(),
                at,
                to: Some((*to).into()),
            }),
            ["maintenance", "on", member] => Command::Set(Set::Maintenance { member: (*member).into(), on: true, at }),
            ["maintenance", "off", member] => {
                Command::Set(Set::Maintenance { member: (*member).into(), on: false, at })
            }
            ["floor", of, "above", above] => {
                Command::LayFloor { epoch: epoch(of)?, above: number(above)?, because: "test".into(), at }
            }
            ["open_sign_log", "above", height] => Command::Signing(Signing::Open {
                chain: "c-1".into(),
                key: "ed25519:AAAA".into(),
                last: Grant { place: Hrs::new(number(height)?, 0, 0), digest: None, time: SignTime::default() },
                at,
            }),
            ["close_sign_log"] => Command::Signing(Signing::Close { at }),
            ["pause"] => Command::Set(Set::Pause { on: true, at }),
            ["resume"] => Command::Set(Set::Pause { on: false, at }),
            ["priority", member, priority] => {
                Command::Set(Set::Priority { member: (*member).into(), priority: Some(number(priority)? as u32) })
            }
            ["activated", of] => Command::Baton(Baton::Activated {
                epoch: epoch(of)?,
                at,
                floor: MetFloor::default(),
                took: Duration::ZERO,
            }),
            _ => return Err(format!("no command: {words:?}")),
        })
    }

    /// Steps the core, or asks it, and returns what it says.
    fn tell(&mut self, words: &[&str]) -> Result<Vec<String>, String> {
        let now = Now { boot: boot(self.at), wall: wall(self.at + self.ahead) };
        let (settings, memory) = (&self.settings, &self.memory);
        let core = self.core.get_or_insert_with(|| Core::new(settings.clone(), memory.clone(), now.boot));
        match words {
            ["vote?", candidate] => {
                let answer = core.may_vote(now.boot, &(*candidate).into());
                return Ok(vec![match answer {
                    Ok(()) => "expect yes".into(),
                    Err(refusal) => format!("expect no: {refusal}"),
                }]);
            }
            ["handover?"] => {
                let answer = core.handover_target(None);
                return Ok(vec![answer.map_or_else(|no| format!("expect no: {no}"), |to| format!("expect {to}"))]);
            }
            ["ready?"] => {
                let answer = core.not_ready(now.boot);
                return Ok(vec![answer.map_or("expect yes".into(), |reason| format!("expect no: {reason}"))]);
            }
            ["lease?"] => {
                let left = core.lease_remaining(now.boot);
                let told = |left: Duration| format!("expect {} left", time(left.as_nanos() as u64));
                return Ok(vec![left.map_or("expect none".into(), told)]);
            }
            ["settling?"] => {
                let answer = core.settling(now.boot);
                let told = |(floor, basis): (SignFloor, FloorBasis)| {
                    format!("expect floor={} by={}", show_floor(&floor), basis.as_str())
                };
                return Ok(vec![answer.map_or("expect nothing".into(), told)]);
            }
            ["halt?"] => {
                let told = |Halt { height, since, known }: Halt| {
                    format!("expect head {height} since {}, known {known}", time(since.as_nanos()))
                };
                return Ok(vec![core.halt(now).map_or("expect none".into(), told)]);
            }
            ["key?"] => {
                let answer = core.key_alarm();
                return Ok(vec![answer.map_or("expect no alarm".into(), |alarm| format!("expect alarm: {alarm}"))]);
            }
            ["unheld?"] => {
                let told = |unheld: Unheld| format!("expect since {}", time(unheld.since.as_nanos()));
                return Ok(vec![core.unheld(now).map_or("expect nobody can tell".into(), told)]);
            }
            ["looks?"] => {
                return Ok(vec![if core.wants_key_look(now) { "expect yes".into() } else { "expect no".into() }]);
            }
            ["wakeup?"] => {
                let at = core.next_wakeup(now.boot);
                return Ok(vec![at.map_or("expect never".into(), |at| format!("expect {}", time(at.as_nanos())))]);
            }
            _ => {}
        }
        if let ["wall-ahead", ahead] = words {
            self.ahead = duration(ahead)?;
            return Ok(Vec::new());
        }
        if let ["guard-silent"] = words {
            self.guard_answers = false;
            return Ok(Vec::new());
        }
        let event = self.event(words)?;
        let Some(core) = &mut self.core else { return Err("no core".into()) };
        let mut actions = core.step(now, event);
        if let Some((epoch, deadline)) = actions.iter().find_map(asked_to_arm) {
            self.deadline = deadline;
            if self.guard_answers && core.stage() != Some(Stage::Arming) {
                actions.extend(core.step(now, Event::GuardArmed { epoch, deadline }));
            }
        }
        let mut answers: Vec<String> = actions.iter().map(|a| format!("expect {}", show(a))).collect();
        let stage = core.stage().map_or("", |stage| stage.as_str());
        let shown = format!("{} {stage}", core.state(now.boot).as_str()).trim_end().to_string();
        if shown != self.shown {
            answers.push(format!("now {shown}"));
            self.shown = shown;
        }
        Ok(answers)
    }

    /// As the shell reports it: it has asked the core for how long to promise.
    fn accepted(&self, leader: &str, term: &str, lease: LeaseSpan) -> Result<Event, String> {
        let own = self.settings.timing.span();
        let promise = self.core.as_ref().map_or(own.joined(lease).promise(), |core| core.promise_to(Some(lease)));
        Ok(Event::Accepted { leader: leader.into(), term: number(term)?, arrived_at: boot(self.at), promise })
    }

    fn event(&mut self, words: &[&str]) -> Result<Event, String> {
        let at = boot(self.at);
        Ok(match words {
            ["tick"] => Event::Tick,
            ["armed", of] => Event::GuardArmed { epoch: epoch(of)?, deadline: self.deadline },
            ["slept"] => Event::Slept,
            ["accepted", leader, term] => self.accepted(leader, term, Timing::LAN.span())?,
            ["accepted", leader, term, "lease", lease] => self.accepted(leader, term, span(lease)?)?,
            ["voting", term] => Event::Voting { term: number(term)? },
            ["considered", term] => Event::Considered { term: number(term)? },
            ["voted", term] => Event::Voted { term: number(term)? },
            ["release-logged", term] => Event::ReleaseLogged { term: number(term)? },
            ["led", term] => Event::Led { term: number(term)? },
            ["lead-lost"] => Event::LeadLost,
            ["acked", from, term, "sent", sent] => acked(from, term, sent, Some(Timing::LAN.promise()))?,
            ["acked", from, term, "sent", sent, "silent"] => acked(from, term, sent, None)?,
            ["acked", from, term, "sent", sent, "promises", promised] => {
                acked(from, term, sent, Some(duration(promised)?))?
            }
            ["applied", term, rest @ ..] => {
                let (term, command) = (number(term)?, self.command(rest)?);
                let outcome = self.replicated.apply(term, &command);
                Event::Applied { term, command, outcome, view: self.replicated.view() }
            }
            ["proposal-failed"] => Event::ProposalFailed { reason: "not committed".into() },
            ["voters", ..] => Event::Voters(words[1..].split(|word| *word == "and").map(names).collect()),
            ["peers", ..] => Event::Peers(peers(&words[1..])?),
            ["handover-wanted"] => {
                Event::HandoverWanted { to: None, timeout: HANDOVER_TIMEOUT, reason: Reason::Operator }
            }
            ["handover-wanted", to] => {
                Event::HandoverWanted { to: Some((*to).into()), timeout: HANDOVER_TIMEOUT, reason: Reason::Operator }
            }
            ["restored", term, rest @ ..] => {
                let command = self.command(rest)?;
                self.replicated.apply(number(term)?, &command);
                let released_term = self.replicated.last_release.map(|release| release.term);
                Event::Restored { view: self.replicated.view(), released_term }
            }
            ["clocks", ..] => Event::ClockOffsets(clocks(&words[1..])?),
            ["rival", member] => Event::RivalHeard { member: (*member).into() },
            ["key-looked", height, "after", after, shown @ ("signed" | "clear")] => Event::KeyLooked(KeyLook {
                height: number(height)?,
                after: wall(duration(after)?),
                signed: *shown == "signed",
                looked_at: wall(self.at),
            }),
            ["unheld-told", "since", since, "until", until] => {
                Event::UnheldTold(Unheld { since: wall(duration(since)?), until: wall(duration(until)?) })
            }
            ["mark-seen", height] => Event::MarkSeen(SignMark::at_height(number(height)?)),
            ["mark-seen", height, "approved", approved] => {
                Event::MarkSeen(SignMark::of_approvals(number(height)?, number(approved)?))
            }
            ["handover-wanted", to, "to-upgrade"] => {
                Event::HandoverWanted { to: Some((*to).into()), timeout: HANDOVER_TIMEOUT, reason: Reason::Upgrade }
            }
            ["shutdown-wanted"] => Event::ShutdownWanted { stop_node: false },
            ["shutdown-wanted", "stop-node"] => Event::ShutdownWanted { stop_node: true },
            ["store-failed"] => Event::StoreFailed { reason: "disk full".into() },
            _ => return host_event(words, at),
        })
    }
}

/// With the other values of [`Timing::LAN`].
fn timing(lease: &str) -> Result<Timing, String> {
    let lan = Timing::LAN;
    Timing::new(lan.heartbeat(), duration(lease)?, lan.kill_max(), lan.drift_ppm()).map_err(|error| error.to_string())
}

fn span(lease: &str) -> Result<LeaseSpan, String> {
    timing(lease).map(|timing| timing.span())
}

fn acked(from: &str, term: &str, sent: &str, promised: Option<Duration>) -> Result<Event, String> {
    Ok(Event::Acked { from: from.into(), term: number(term)?, sent_at: boot(duration(sent)?), promised })
}

fn host_event(words: &[&str], at: BootTime) -> Result<Event, String> {
    let node = |validator_epoch| {
        Some(NodeProcess {
            pid: 7,
            started_at: at,
            validator_epoch,
            containment: Containment::default(),
            stopping: false,
        })
    };
    Ok(match words {
        ["guard-attached"] => Event::GuardAttached { node: None, armed: None },
        ["guard-attached", "stopping"] => {
            Event::GuardAttached { node: node(None).map(|node| NodeProcess { stopping: true, ..node }), armed: None }
        }
        ["guard-answers", "not"] => Event::GuardAnswers(false),
        ["guard-answers"] => Event::GuardAnswers(true),
        ["guard-superseded", by] => Event::GuardSuperseded { by: epoch(by)? },
        ["guard-attached", "standby"] => Event::GuardAttached { node: node(None), armed: None },
        ["guard-attached", "validator", of, "deadline", deadline] => Event::GuardAttached {
            node: node(Some(epoch(of)?)),
            armed: Some(Armed::by_guard(epoch(of)?, boot(duration(deadline)?))),
        },
        ["guard-gone"] => Event::GuardGone { node_proven_dead: true },
        ["guard-gone", "unproven"] => Event::GuardGone { node_proven_dead: false },
        ["node-started"] => Event::NodeStarted { validator_epoch: None },
        ["node-started", "validator", of] => Event::NodeStarted { validator_epoch: Some(epoch(of)?) },
        ["node-start-failed"] => Event::NodeStartFailed { reason: "no such file".into() },
        ["node-exited"] => Event::NodeExited { cause: ExitCause::ByItself },
        ["node-exited", "stopped"] => Event::NodeExited { cause: ExitCause::Stopped { killed: false } },
        ["node-exited", "fenced"] => Event::NodeExited { cause: ExitCause::Fenced },
        ["fenced", of] => Event::Fenced { epoch: epoch(of)? },
        ["linked", of] => Event::Linked { epoch: epoch(of)? },
        ["links-failed"] => Event::LinksFailed { reason: "key.json is a regular file".into() },
        ["links-put-away"] => Event::LinksPutAway,
        ["disk-hung", dir] => Event::DiskHung { dir: (*dir).into() },
        ["disk-back", dir] => Event::DiskBack { dir: (*dir).into() },
        ["disk-full"] => Event::DiskFull { room: Some("the disk of state_dir is full".into()) },
        ["disk-full", "gone"] => Event::DiskFull { room: None },
        ["keys-unusable"] => Event::KeysUnusable { reason: Some("key.json does not exist".into()) },
        ["admitted", height] => Event::Admitted { height: number(height)? },
        ["keys-unusable", "gone"] => Event::KeysUnusable { reason: None },
        ["key-defect"] => Event::KeyDefect { reason: Some("standby.json is the validator key".into()) },
        ["key-defect", "gone"] => Event::KeyDefect { reason: None },
        ["activated", of] => Event::Activated { epoch: epoch(of)? },
        ["activation-failed", of] => Event::ActivationFailed { epoch: epoch(of)?, reason: "no key".into() },
        ["inactive", "mark", last] => Event::Inactive { last_signed: mark(last)? },
        ["probed", height, "head", head] => Event::Probed(health(true, number(height)?, duration(head)?)),
        ["probed", height, "head", head, "syncing"] => Event::Probed(health(false, number(height)?, duration(head)?)),
        ["probed", height, "head", head, "key", says] => Event::Probed(Health {
            key: match *says {
                "loaded" => KeyState::Loaded,
                "absent" => KeyState::Absent,
                _ => return Err(format!("{says:?} is none of loaded, absent")),
            },
            ..health(true, number(height)?, duration(head)?)
        }),
        ["probed", height, "head", head, "approved", approved] => {
            Event::Probed(Health { approved: number(approved)?, ..health(true, number(height)?, duration(head)?) })
        }
        ["probed", height, "head", head, "peers", peers] => Event::Probed(Health {
            peers: Some(number(peers)? as u32),
            ..health(true, number(height)?, duration(head)?)
        }),
        ["upgrade-due", name] => Event::UpgradeDue { name: upgrade(name)?, back: false },
        ["upgrade-due", name, "back"] => Event::UpgradeDue { name: upgrade(name)?, back: true },
        ["upgrade-ended", name] => Event::UpgradeEnded { name: upgrade(name)?, failed: None },
        ["upgrade-ended", name, "failed"] => {
            Event::UpgradeEnded { name: upgrade(name)?, failed: Some("disk full".into()) }
        }
        ["foreign-node"] => Event::ForeignNode { found: Some("neard (pid 7) listens here".into()) },
        ["foreign-node", "gone"] => Event::ForeignNode { found: None },
        ["node-silent"] => Event::NodeSilent,
        ["start-withheld"] => Event::StartWithheld,
        ["node-hides", pid, name] => {
            Event::NodeHides { below: Some(Descendant { pid: number(pid)? as u32, name: (*name).to_owned() }) }
        }
        ["node-hides", "nothing"] => Event::NodeHides { below: None },
        ["probe-failed"] => Event::ProbeFailed { reason: "connection refused".into() },
        _ => return Err(format!("no event: {}", words.join(" "))),
    })
}

fn asked_to_arm(action: &Action) -> Option<(Epoch, BootTime)> {
    match action {
        Action::Arm { epoch, deadline } => Some((*epoch, *deadline)),
        _ => None,
    }
}

fn upgrade(word: &str) -> Result<UpgradeName, String> {
    UpgradeName::new(word)
}

fn health(synced: bool, height: u64, head: Duration) -> Health {
    let latency = Duration::from_millis(1);
    let head_time = Some(wall(head));
    Health {
        synced,
        height,
        head_time,
        approved: 0,
        peers: None,
        key: KeyState::Untold,
        latency,
        version: String::new(),
    }
}

/// `b ready 12, c away 0`: in what shape a peer is, and its height.
fn names(words: &[&str]) -> BTreeSet<NodeId> {
    words.iter().map(|word| NodeId::from(*word)).collect()
}

fn peers(words: &[&str]) -> Result<BTreeMap<NodeId, Peer>, String> {
    let text = words.join(" ");
    text.split(',')
        .map(|part| {
            let (id, shape, height, reason) = match part.split_whitespace().collect::<Vec<_>>()[..] {
                [id, shape, height] => (id, shape, height, String::new()),
                [id, shape @ "unready", height, "because", ref reason @ ..] => (id, shape, height, reason.join(" ")),
                _ => return Err(format!("{part:?} is not such as `b ready 12`")),
            };
            let height = number(height)?;
            let (ready, reachable, silent_on_lease) = match shape {
                "ready" => (true, true, false),
                "unready" => (false, true, false),
                "away" => (true, false, false),
                "older" => (true, true, true),
                _ => return Err(format!("{shape:?} is none of ready, unready, away, older")),
            };
            Ok((id.into(), Peer { ready, not_ready_because: reason, reachable, height, silent_on_lease }))
        })
        .collect()
}

/// `b 3600s, c -20ms`: by how much each peer's clock is ahead of the own one.
fn clocks(words: &[&str]) -> Result<BTreeMap<NodeId, ClockOffset>, String> {
    let text = words.join(" ");
    text.split(',')
        .map(|part| {
            let [id, ahead] = part.split_whitespace().collect::<Vec<_>>()[..] else {
                return Err(format!("{part:?} is not such as `b -20ms`"));
            };
            let size = duration(ahead.trim_start_matches('-'))?.as_nanos() as i64;
            let nanos = if ahead.starts_with('-') { -size } else { size };
            Ok((id.into(), ClockOffset { nanos, error: Duration::from_millis(1) }))
        })
        .collect()
}

fn time(nanos: u64) -> String {
    if nanos.is_multiple_of(1_000_000) {
        format!("{}ms", nanos / 1_000_000)
    } else {
        format!("{:.3}ms", nanos as f64 / 1e6)
    }
}

fn show_floor(floor: &SignFloor) -> String {
    match floor {
        SignFloor::None => "none".into(),
        SignFloor::Mark(mark) => format!("mark:{mark}"),
        SignFloor::BlockAfter(at) => format!("block-after:{}", time(at.as_nanos())),
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::StartStandby => "StartStandby".into(),
        Action::EndGuard => "EndGuard".into(),
        Action::Arm { epoch, deadline } => format!("Arm epoch={epoch} deadline={}", time(deadline.as_nanos())),
        Action::Disarm { epoch } => format!("Disarm epoch={epoch}"),
        Action::LinkValidating { epoch, floor } => format!("LinkValidating epoch={epoch} floor={}", show_floor(floor)),
        Action::Activate { epoch } => format!("Activate epoch={epoch}"),
        Action::Deactivate { kill } => format!("Deactivate{}", if *kill { " kill" } else { "" }),
        Action::Upgrade { name, back } => format!("Upgrade to={name}{}", if *back { " back" } else { "" }),
        Action::WatchChain { closely } => format!("WatchChain{}", if *closely { " closely" } else { "" }),
        Action::ProposeClaim { epoch, reason } => format!("ProposeClaim epoch={epoch} reason={reason}"),
        Action::ProposeRelease { epoch, last_signed, reason, to } => {
            let mark = last_signed.map_or("-".into(), |mark| mark.to_string());
            let to = to.as_ref().map(|to| format!(" to={to}")).unwrap_or_default();
            format!("ProposeRelease epoch={epoch} mark={mark} reason={reason}{to}")
        }
        Action::ProposeActivated { epoch, floor, began_at } => {
            let began = time(began_at.as_nanos());
            let MetFloor { floor, basis, height, settled_in } = floor;
            let (floor, basis) = (show_floor(floor), basis.map_or("untold", FloorBasis::as_str));
            let settled = time(settled_in.as_nanos() as u64);
            format!(
                "ProposeActivated epoch={epoch} floor={floor} by={basis} at={height} settled={settled} began={began}"
            )
        }
        Action::Campaign => "Campaign".into(),
        Action::TransferLead { to } => format!("TransferLead to={to}"),
        Action::AnswerHandover(Ok(done)) => format!("AnswerHandover to={} epoch={}", done.to, done.epoch),
        Action::AnswerHandover(Err(reason)) => format!("AnswerHandover refused: {reason}"),
        Action::Finish { stop_node: true } => "Finish stop-node".into(),
        Action::Finish { stop_node: false } => "Finish".into(),
    }
}

/// `a`, a validator whose node is in sync, hears of a ready `b` and of the arbiter `c`.
const STANDBY: [&str; 4] =
    ["at 0s guard-attached", "at 0s node-started", "at 0s probed 10 head 0s", "at 0s peers b ready 10, c unready 0"];

/// `a` leads term 1 and has been active under epoch 1 since 200 ms.
const HOLDER: [&str; 10] = [
    "at 100ms voted 1",
    "at 100ms led 1",
    "at 100ms acked c 1 sent 100ms",
    "at 100ms applied 1 claim 1 a",
    "at 100ms armed 1",
    "at 200ms probed 11 head 150ms",
    "at 200ms linked 1",
    "at 200ms node-started validator 1",
    "at 200ms activated 1",
    "at 200ms applied 1 activated 1",
];
