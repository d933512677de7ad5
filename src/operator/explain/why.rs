//! Who holds the baton and why, why this host does not, whether a failover would work now, what is wrong: from the
//! replicated history and from gossip as the coordinator of one host knows them.

use std::time::Duration;

use serde::Serialize;

use super::signer::{lost_sentries, signed};
use super::timings::timing_differences;
use super::upgrades::upgrade_troubles;
use super::words::{active_holder, ago, defects, is_active, is_good_news, key_alarm, refusal, settling};
use crate::base::ids::{Role, Vote};
use crate::base::time::WallTime;
use crate::cluster::wire::proto::{GuardSeen, LinksSeen, MemberState, MemberStatus, Move, StatusResponse, TenureStage};

/// The answers. The names are part of baton's contract; the sentences are for people and may change.
#[derive(Serialize)]
pub struct Why {
    member: String,
    holder: Option<String>,
    /// The holder signs, by its own word.
    active: bool,
    holder_because: String,
    this_host: String,
    failover: Failover,
    /// How far the log has admitted signatures, and at whose request; null where a chain node has the key.
    signed: Option<String>,
    /// Nothing in it when all is well.
    wrong: Vec<String>,
}

#[derive(Serialize)]
struct Failover {
    works: bool,
    /// Who would be asked first.
    to: Option<String>,
    /// From the holder's last sign of life; what the new holder's chain node needs comes on top.
    at_least_ms: Option<u64>,
    /// The gap of the last move that was completed.
    last_gap_ms: Option<u64>,
    because: String,
}

impl Why {
    /// `moves` is the history, the oldest first.
    pub fn of(status: &StatusResponse, moves: &[Move], now: WallTime) -> Why {
        let seen = Seen { status, moves, now };
        Why {
            member: status.member.clone(),
            holder: Some(status.holder.clone()).filter(|holder| !holder.is_empty()),
            active: active_holder(status).is_some(),
            holder_because: seen.holder(),
            this_host: seen.this_host(),
            failover: seen.failover(),
            signed: signed(status),
            wrong: seen.wrong(),
        }
    }

    /// What is wrong, why no failover would work, and what else an operator should know; the gravest first, none when
    /// all is well. `status` is the one that this was made of.
    pub fn warnings(&self, status: &StatusResponse, now: WallTime) -> Vec<String> {
        let mut texts = self.wrong.clone();
        texts.extend(self.successor().err().map(str::to_owned));
        let more: Vec<String> = status.warnings.iter().filter(|text| !texts.contains(text)).cloned().collect();
        texts.extend(more);
        for member in &status.members {
            let of_member =
                settling(member).into_iter().chain(defects(member, now)).filter(|note| !is_good_news(member, note));
            texts.extend(of_member.map(|text| format!("{}: {text}", member.id)));
        }
        texts
    }

    /// Who holds the baton, why this host does or does not, and what a failover would do; a sentence or two each.
    pub fn sentences(&self) -> [&str; 3] {
        [&self.holder_because, &self.this_host, &self.failover.because]
    }

    /// Who would take the baton now, or the sentence that says why nobody would.
    pub fn successor(&self) -> Result<&str, &str> {
        self.failover.to.as_deref().ok_or(&self.failover.because)
    }

    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("strings, numbers and booleans have a JSON form");
        format!("{text}\n")
    }

    pub fn text(&self) -> String {
        let mut out = self.sentences().map(|sentence| format!("{sentence}\n")).concat();
        out.extend(self.signed.iter().map(|signed| format!("{signed}.\n")));
        match self.wrong.as_slice() {
            [] => out.push_str("Nothing is wrong.\n"),
            wrong => {
                out.push_str("What is wrong:\n");
                wrong.iter().for_each(|sentence| out.push_str(&format!("- {sentence}\n")));
            }
        }
        out
    }
}

/// What there is to go by.
struct Seen<'a> {
    status: &'a StatusResponse,
    moves: &'a [Move],
    now: WallTime,
}

impl Seen<'_> {
    fn member(&self, id: &str) -> Option<&MemberStatus> {
        self.status.members.iter().find(|member| member.id == id)
    }

    /// Who could take the baton now, in the order in which they campaign: priority, height, id.
    fn standbys(&self) -> Vec<&MemberStatus> {
        let holder = &self.status.holder;
        let mut ready: Vec<&MemberStatus> =
            self.status.members.iter().filter(|member| member.id != *holder && could_take_it(member)).collect();
        ready.sort_by(|a, b| (b.priority, b.height, &a.id).cmp(&(a.priority, a.height, &b.id)));
        ready
    }

    fn holder(&self) -> String {
        let (holder, epoch) = (&self.status.holder, self.status.epoch);
        let last = self.moves.iter().rev().find(|last| last.epoch == epoch);
        if holder.is_empty() {
            return match self.moves.last() {
                None => "Nobody holds the baton, and nobody ever did.".to_owned(),
                Some(last) => {
                    format!("Nobody holds the baton. {} was the last to take it, under epoch {}.", last.to, last.epoch)
                }
            };
        }
        let came = last.map(|last| format!(" {}", self.came(last))).unwrap_or_default();
        match self.member(holder) {
            Some(member) if !member.reachable => format!(
                "{holder} was the last to take the baton, under epoch {epoch}, and cannot be reached from here: if it runs, it \
                 signs until its lease is over.{came}"
            ),
            Some(member) if is_active(member) => {
                format!("{holder} holds the baton under epoch {epoch} and signs.{came}")
            }
            Some(member) if member.phase.is_empty() => format!(
                "{holder} was the last to take the baton, under epoch {epoch}, and does not hold it now: it is in state \
                 {}.{came}",
                member.state
            ),
            Some(member) if member.settling.is_empty() => {
                format!("{holder} has the baton under epoch {epoch} and does not sign: {}.{came}", member.phase)
            }
            Some(member) => format!(
                "{holder} has the baton under epoch {epoch} and does not sign yet: it waits for {}.{came}",
                member.settling
            ),
            None => format!("{holder} holds the baton under epoch {epoch} and is not in this host's configuration."),
        }
    }

    /// How the holder came to it.
    fn came(&self, last: &Move) -> String {
        let since = ago(self.now.since(WallTime::from_nanos(last.claimed_at_ns)));
        let reason = in_words(&last.reason);
        match (last.from.as_str(), last.kind.as_str()) {
            ("", _) => format!("It was the first, {since} ago."),
            (from, _) if from == last.to => format!("It took it up again {since} ago: {reason}."),
            (from, "failover") => format!("It took it {since} ago, after {from} was lost: {reason}."),
            (from, _) => format!("{from} handed it over {since} ago: {reason}."),
        }
    }

    fn this_host(&self) -> String {
        let (me, holder) = (&self.status.member, &self.status.holder);
        let Some(own) = self.member(me) else { return format!("{me} is not a member of this cluster.") };
        let paused = self.status.paused_since_ns.is_some();
        match (own.meaning().stage(), own.phase.as_str()) {
            (TenureStage::Active, _) => format!("{me} is this host."),
            (TenureStage::Stopping, _) => format!("{me} (this host) is letting the baton go."),
            (_, "") if own.role == Role::Arbiter.as_str() && own.gives_no_vote => {
                format!("{me} (this host) is an arbiter, and gives no vote now: {}.", own.not_ready_because)
            }
            (_, "") if own.role == Role::Arbiter.as_str() => format!("{me} (this host) only votes."),
            (_, "") if own.maintenance => format!("{me} (this host) does not take the baton: it is in maintenance."),
            (_, "") if !could_take_it(own) => format!("{me} (this host) cannot take the baton: {}.", unready(own)),
            (_, "") if paused && me != holder => {
                format!("{me} (this host) is ready; the cluster is paused, so the baton does not move.")
            }
            (_, "") if !self.status.quorum => {
                format!("{me} (this host) is ready; nobody can be elected without a quorum.")
            }
            (_, "") if holder.is_empty() => format!("{me} (this host) is ready, and has not been elected yet."),
            (_, "") => format!("{me} (this host) is ready; {holder} holds the baton."),
            (_, phase) => format!("{me} (this host) is taking the baton: {phase}."),
        }
    }

    fn failover(&self) -> Failover {
        let StatusResponse { holder, lease_ms, promise_ms, .. } = self.status;
        let ended = self.moves.iter().rev().find(|last| last.kind == "failover" && last.active_at_ns != 0);
        let last_gap_ms = ended.map(|last| last.gap_ns / 1_000_000);
        // Before the cluster is formed nobody is known to be a learner.
        let members = || self.status.members.iter().filter(|member| member.vote != Vote::Learner.as_str());
        let left = || members().filter(|member| member.reachable && member.id != *holder);
        let (up, voting) = (left().count(), left().filter(|member| !member.gives_no_vote).count());
        let members = members().count();
        let standbys = self.standbys();
        let obstacle = if self.status.paused_since_ns.is_some() {
            Some("the cluster is paused, and the baton stays where it is until baton resume".to_owned())
        } else if up <= members / 2 {
            Some(format!("without the holder {up} of {members} members are left, and {} must agree", members / 2 + 1))
        } else if voting <= members / 2 {
            let silent: Vec<&str> =
                left().filter(|member| member.gives_no_vote).map(|member| member.id.as_str()).collect();
            let (silent, needed) = (silent.join(" and "), members / 2 + 1);
            Some(format!(
                "without the holder {voting} of {members} members give a vote, and {needed} must; {silent} gives none"
            ))
        } else if standbys.is_empty() {
            Some("no other member could take it now".to_owned())
        } else {
            None
        };
        let what =
            if holder.is_empty() { "A member would take it now" } else { "If it were lost now, a failover would work" };
        let (to, because) = match (obstacle, standbys.first()) {
            (None, Some(to)) => {
                let (to, lease) = (to.id.clone(), Duration::from_millis(u64::from(*lease_ms)));
                let before = last_gap_ms
                    .map(|gap| format!("; the last failover took {gap} ms from its claim on"))
                    .unwrap_or_default();
                let text = format!(
                    "{what}: {to} would take it, not before the lease of {lease:?} is over and its own node has seen a block \
                     made after that{before}."
                );
                (Some(to), text)
            }
            (obstacle, _) => {
                let what = if holder.is_empty() { "Nobody can take it now" } else { "A failover would NOT work now" };
                (None, format!("{what}: {}.", obstacle.unwrap_or_default()))
            }
        };
        let at_least_ms = to.is_some().then_some(u64::from(*promise_ms));
        Failover { works: to.is_some(), to, at_least_ms, last_gap_ms, because }
    }

    /// What an operator would want to mend, the gravest first.
    fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self.status.members.iter().filter_map(key_alarm).collect();
        if !self.status.quorum {
            wrong.push("No quorum of members can be reached from here: nobody can be elected.".to_owned());
        }
        if active_holder(self.status).is_none() {
            wrong.push("Nobody signs.".to_owned());
        }
        for member in &self.status.members {
            wrong.extend(self.wrong_with(member));
        }
        wrong.extend(timing_differences(self.status));
        wrong.extend(lost_sentries(&self.status.sentries));
        wrong.extend(upgrade_troubles(self.status));
        if let Some(since) = self.status.paused_since_ns.map(WallTime::from_nanos) {
            let since = ago(self.now.since(since));
            wrong.push(format!("The cluster has been paused for {since}; baton resume ends that."));
        }
        wrong
    }

    fn wrong_with(&self, member: &MemberStatus) -> Vec<String> {
        let id = &member.id;
        if !member.reachable {
            return vec![match member.refused.as_str() {
                "" => format!("{id} cannot be reached from here."),
                why => format!("{id} cannot be reached from here: {why}."),
            }];
        }
        let mut wrong: Vec<String> = refusal(member).into_iter().map(|why| format!("{id}: {why}.")).collect();
        let validates = member.role != Role::Arbiter.as_str();
        if validates && member.maintenance {
            wrong.push(format!("{id} is in maintenance; baton maintenance off --member {id} ends that."));
        } else if validates && member.phase.is_empty() && !could_take_it(member) && member.key_alarm.is_empty() {
            wrong.push(format!("{id} could not take the baton: {}.", unready(member)));
        }
        if !validates && member.gives_no_vote {
            wrong.push(format!("{id}: {}.", member.not_ready_because));
        }
        if member.meaning().guard() == GuardSeen::Unreachable {
            wrong.push(format!("{id}: its guard does not answer."));
        }
        if member.meaning().links() == LinksSeen::Broken {
            wrong.push(format!("{id}: its links are broken; its log says how."));
        }
        if member.meaning().links() == LinksSeen::Validating && member.phase.is_empty() {
            wrong.push(format!("{id}: its links are validating, and it does not hold the baton."));
        }
        // What was said above of a member that was asked is not repeated.
        if !member.foreign_node.is_empty() && (member.maintenance || !member.phase.is_empty()) {
            wrong.push(format!("{id}: {}.", member.foreign_node));
        }
        wrong
    }
}

fn could_take_it(member: &MemberStatus) -> bool {
    member.reachable
        && member.role != Role::Arbiter.as_str()
        && member.meaning().state() == MemberState::Voting
        && !member.maintenance
        && member.not_ready_because.is_empty()
}

fn unready(member: &MemberStatus) -> String {
    match member.not_ready_because.as_str() {
        "" => format!("it is in state {}", member.state),
        reason => reason.to_owned(),
    }
}

/// What stands in the history, for people. What a newer version wrote is said as it is.
pub fn in_words(reason: &str) -> &str {
    match reason {
        "operator" => "an operator ordered it",
        "maintenance" => "its host went into maintenance",
        "failback" => "the new one is preferred",
        "shutdown" => "its coordinator was asked to stop",
        "node-exited" => "its chain node ended",
        "probe-failed" => "its chain node did not answer",
        "out-of-sync" => "its chain node was out of sync",
        "head-stuck" => "its chain node's head stood still",
        "few-peers" => "its chain node had too few peers",
        "links-failed" => "its links could not be set",
        "activation-failed" => "its chain node did not become active",
        "guard-gone" => "its guard was gone",
        "guard-silent" => "its guard did not answer",
        "clock-off" => "its host's wall clock was off",
        "stalled" => "it waited for too long for a disk, its guard or its chain node",
        "store-failed" => "its disk failed",
        "lead-lost" => "another member was elected",
        "lease-lost" => "its lease ran out",
        "host-slept" => "its host slept",
        "cannot-hold" => "the member that was elected could not hold it",
        "taken-up-again" => "nobody else took it",
        "upgrade" => "its chain node was to be upgraded",
        "other-cluster" => "another cluster of the same name takes its host for a member",
        "upgrade-failed" => "the upgrade of its chain node failed",
        "key-elsewhere" => "the validator's key signed elsewhere",
        "disk-hung" => "a disk of its host did not answer",
        "start" => "the cluster began",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::NotReady;

    fn member(id: &str, state: &str, phase: &str) -> MemberStatus {
        MemberStatus {
            id: id.to_owned(),
            role: "validator".to_owned(),
            state: state.to_owned(),
            phase: phase.to_owned(),
            reachable: true,
            guard: "idle".to_owned(),
            links: "standby".to_owned(),
            ..MemberStatus::default()
        }
    }

    fn healthy() -> (StatusResponse, Vec<Move>) {
        let mut holder = member("host-a", "Validating", "Active");
        holder.links = "validating".to_owned();
        let arbiter = MemberStatus { role: "arbiter".to_owned(), ..member("host-c", "Voting", "") };
        let status = StatusResponse {
            member: "host-b".to_owned(),
            holder: "host-a".to_owned(),
            epoch: 4,
            quorum: true,
            lease_ms: 1000,
            promise_ms: 1001,
            members: vec![holder, member("host-b", "Voting", ""), arbiter],
            ..StatusResponse::default()
        };
        let mv = |epoch, from: &str, to: &str, kind: &str, reason: &str| Move {
            epoch,
            from: from.to_owned(),
            to: to.to_owned(),
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            claimed_at_ns: 1_000_000_000_000,
            active_at_ns: 1_000_500_000_000,
            gap_ns: 1_130_000_000,
            ..Move::default()
        };
        let moves = vec![
            mv(3, "host-a", "host-b", "failover", "lease-lost"),
            mv(4, "host-b", "host-a", "handover", "operator"),
        ];
        (status, moves)
    }

    fn why(change: impl FnOnce(&mut StatusResponse)) -> Why {
        let (mut status, moves) = healthy();
        change(&mut status);
        Why::of(&status, &moves, WallTime::from_nanos(12_000_000_000_000))
    }

    #[test]
    fn a_member_that_is_refused_is_told_from_one_that_is_unreachable() {
        let (mut status, moves) = healthy();
        let wrong = |status: &StatusResponse| Why::of(status, &moves, WallTime::from_nanos(2_000_000_000_000)).wrong;
        status.members[2].reachable = false;
        assert!(wrong(&status).contains(&"host-c cannot be reached from here.".to_owned()));
        status.members[2].refused = "host-c came with another store".to_owned();
        let told = "host-c cannot be reached from here: host-c came with another store.".to_owned();
        assert!(wrong(&status).contains(&told), "{:?}", wrong(&status));
        status.members[2].reachable = true;
        let told = "host-c: host-c came with another store.".to_owned();
        assert!(wrong(&status).contains(&told), "{:?}", wrong(&status));
        let notes = crate::operator::explain::words::notes(&status.members[2], false, WallTime::from_nanos(0));
        assert!(notes.contains(&status.members[2].refused), "{notes:?}");
    }

    #[test]
    fn a_healthy_cluster_is_told_in_four_sentences() {
        let expected = "host-a holds the baton under epoch 4 and signs. host-b handed it over 3 h 3 min ago: an operator \
                        ordered it.\nhost-b (this host) is ready; host-a holds the baton.\nIf it were lost now, a \
                        failover would work: host-b would take it, not before the lease of 1s is over and its own node has \
                        seen a block made after that; the last failover took 1130 ms from its claim on.\nNothing is wrong.\n";
        assert_eq!(why(|_| ()).text(), expected);
    }

    #[test]
    fn a_node_that_is_not_ours_is_told_once_whatever_else_is_told_of_its_host() {
        let told = "neard (pid 7) listens at 127.0.0.1:3030";
        let count = |change: &dyn Fn(&mut MemberStatus)| {
            let told_of = why(|status| {
                let member = &mut status.members[1];
                member.foreign_node = told.to_owned();
                member.not_ready_because = told.to_owned();
                change(member);
            });
            told_of.wrong.iter().filter(|line| line.contains(told)).count()
        };
        assert_eq!(count(&|_| {}), 1, "a standby");
        assert_eq!(
            count(&|member| (member.maintenance, member.not_ready_because) = (true, "in maintenance".into())),
            1
        );
        assert_eq!(count(&|member| member.phase = "Active".to_owned()), 1, "a holder");
    }

    #[test]
    fn a_standby_that_is_not_ready_leaves_no_failover_and_is_named() {
        let why = why(|status| {
            status.members[1].state = "Syncing".to_owned();
            status.members[1].not_ready_because = "the chain node is syncing".to_owned();
        });
        assert_eq!(why.this_host, "host-b (this host) cannot take the baton: the chain node is syncing.");
        assert!(!why.failover.works, "{}", why.failover.because);
        assert_eq!(why.failover.because, "A failover would NOT work now: no other member could take it now.");
        assert_eq!(why.wrong, ["host-b could not take the baton: the chain node is syncing."]);
    }

    #[test]
    fn an_arbiter_that_votes_for_nobody_leaves_too_few_and_is_named() {
        let reason = NotReady::PromiseLost { left: Duration::from_millis(100_400) }.to_string();
        let why = why(|status| {
            status.members[2].state = "Registering".to_owned();
            (status.members[2].gives_no_vote, status.members[2].not_ready_because) = (true, reason.clone());
        });
        let because = "A failover would NOT work now: without the holder 1 of 3 members give a vote, and 2 must; host-c gives \
                       none.";
        assert_eq!(why.failover.because, because);
        assert_eq!(why.wrong, [format!("host-c: {reason}.")]);
        assert!(
            reason.starts_with("it votes for nobody for 101 s more: state_dir/promise could not be read"),
            "{reason}"
        );
        let plain = super::Why::of(&healthy().0, &[], WallTime::from_nanos(0));
        assert!(plain.failover.works, "{}", plain.text());
    }

    #[test]
    fn a_lost_arbiter_leaves_too_few_to_replace_the_holder() {
        let why = why(|status| status.members[2].reachable = false);
        assert!(why.active && !why.failover.works);
        let because = "A failover would NOT work now: without the holder 1 of 3 members are left, and 2 must agree.";
        assert_eq!(why.failover.because, because);
        assert_eq!(why.wrong, ["host-c cannot be reached from here."]);
    }

    #[test]
    fn a_learner_that_answers_does_not_make_up_for_a_lost_voter() {
        let why = why(|status| {
            status.members[2].reachable = false;
            status.members.push(MemberStatus { vote: "learner".to_owned(), ..member("host-d", "Registering", "") });
        });
        assert!(why.failover.because.ends_with("without the holder 1 of 3 members are left, and 2 must agree."));
    }

    #[test]
    fn a_pause_forbids_the_failover_and_says_how_to_end_it() {
        let why = why(|status| status.paused_since_ns = Some(11_940_000_000_000));
        assert!(!why.failover.works && why.failover.because.contains("baton resume"), "{}", why.failover.because);
        assert_eq!(why.wrong, ["The cluster has been paused for 1 min; baton resume ends that."]);
    }

    #[test]
    fn a_holder_that_settles_says_what_it_waits_for_and_one_that_is_gone_what_it_may_still_do() {
        let settling = why(|status| {
            status.members[0].phase = "Settling".to_owned();
            status.members[0].settling = "settled: a block after 09:00".to_owned();
        });
        assert!(
            settling.holder_because.contains("does not sign yet: it waits for settled: a block"),
            "{}",
            settling.text()
        );
        assert_eq!(settling.wrong, ["Nobody signs."]);
        let gone = why(|status| {
            status.members[0].reachable = false;
            status.members[0].phase.clear();
        });
        assert!(gone.holder_because.contains("signs until its lease is over"), "{}", gone.text());
        assert!(gone.failover.works, "the others are a quorum: {}", gone.text());
    }

    #[test]
    fn a_key_in_use_elsewhere_is_the_gravest_and_told_once() {
        let (mut status, moves) = healthy();
        let alarm = "the chain node had the validator's key at height 40 without the baton";
        let own = status.members.iter_mut().find(|member| member.id == "host-b").expect("host-b");
        (own.state, own.key_alarm, own.not_ready_because) = ("Registering".into(), alarm.into(), alarm.into());
        status.warnings = status.members.iter().filter_map(key_alarm).collect();
        let now = WallTime::from_nanos(0);
        let why = Why::of(&status, &moves, now);
        assert_eq!(why.wrong, [format!("The validator's key is in use elsewhere, as host-b sees: {alarm}.")]);
        assert_eq!(why.warnings(&status, now).iter().filter(|text| text.contains(alarm)).count(), 1);
        assert!(!why.failover.works, "{}", why.text());
    }
}
