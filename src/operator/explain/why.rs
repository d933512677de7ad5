//! Who holds the baton and why, why this host does not, whether a failover would work now, what is wrong: from the
//! replicated history and from gossip as the coordinator of one host knows them.

use std::time::Duration;

use serde::Serialize;

use super::differences::differences;
use super::signer::{lost_sentries, sign_log, signed};
use super::upgrades::upgrade_troubles;
use super::words::{active_holder, ago, defects, is_active, is_good_news, key_alarm, needs_mending, refusal, settling};
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
            signed: signed(status, now),
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
            let told: Vec<String> = of_member.map(|text| format!("{}: {text}", member.id)).collect();
            texts.extend(told.into_iter().filter(|text| !self.wrong.contains(&format!("{text}."))));
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
            (_, "") if own.role == Role::Arbiter.as_str() && needs_mending(own) => {
                format!("{me} (this host) is an arbiter, and only votes: {}.", own.not_ready_because)
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
                let and = if sign_log(self.status).is_some() {
                    ". Its chain node runs, asks already, and is answered from then on"
                } else {
                    " and its own node has seen a block made after that"
                };
                let text =
                    format!("{what}: {to} would take it, not before the lease of {lease:?} is over{and}{before}.");
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
        wrong.extend(self.quorum_hangs());
        if active_holder(self.status).is_none() {
            wrong.push("Nobody signs.".to_owned());
        }
        for member in &self.status.members {
            wrong.extend(self.wrong_with(member));
        }
        wrong.extend(differences(self.status));
        wrong.extend(lost_sentries(&self.status.sentries));
        wrong.extend(upgrade_troubles(self.status));
        if let Some(since) = self.status.paused_since_ns.map(WallTime::from_nanos) {
            let since = ago(self.now.since(since));
            wrong.push(format!("The cluster has been paused for {since}; baton resume ends that."));
        }
        wrong
    }

    /// On members that vote as long as the last of their room lasts.
    fn quorum_hangs(&self) -> Option<String> {
        let voters = || self.status.members.iter().filter(|member| member.vote != Vote::Learner.as_str());
        let (full, sound): (Vec<&MemberStatus>, Vec<&MemberStatus>) = voters()
            .filter(|member| member.reachable && !member.gives_no_vote)
            .partition(|member| member.meaning().disk_full);
        let names: Vec<&str> = full.iter().map(|member| member.id.as_str()).collect();
        let hangs = self.status.quorum && !full.is_empty() && sound.len() <= voters().count() / 2;
        hangs.then(|| {
            format!("The quorum hangs on {}: with its disk full a member votes only for a while.", names.join(" and "))
        })
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
        if !validates && needs_mending(member) {
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
        let note = &member.node_note;
        if !note.is_empty() && !is_good_news(member, note) && !member.not_ready_because.contains(note) {
            wrong.push(format!("{id}: {note}."));
        }
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
mod tests;
