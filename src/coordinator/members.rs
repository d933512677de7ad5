//! Changes of the membership: read, looked at by the leader with what it knows at that moment, and made by it,
//! wherever they were asked for. The rules are in `core::members`.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::report::Reporter;
use crate::base::ids::NodeId;
use crate::cluster::introduce::{ANSWER_MAX, Introduced, introduce};
use crate::cluster::wire::proto::member_change_request::Change as Wanted;
use crate::cluster::wire::proto::{AddMember, MemberChangeRequest, MemberChangeResponse};
use crate::config::{PRIORITY_MAX, check_address, check_id, is_loopback};
use crate::core::agreed::members::{Change, Facts, Member, Members, Plan, Refused};
use crate::core::agreed::replicated::knows;
use crate::operator::admin::NotDone;

/// For one leader to make it; another one may lead by then.
pub(super) const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// For a quorum to commit it. A joint membership that is not committed by then may still be, later.
const COMMIT_MAX: Duration = Duration::from_secs(5);
/// For a learner to catch up before it is promoted.
const CATCH_UP_MAX: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What can be said without being the leader.
pub(super) fn check_form(reporter: &Reporter, request: &MemberChangeRequest) -> Result<(), String> {
    match &request.change {
        Some(Wanted::Add(AddMember { id, addr, priority })) => {
            check_id(id.clone())?;
            check_address(addr)?;
            if priority.is_some_and(|priority| priority > PRIORITY_MAX) {
                return Err(format!("a priority is at most {PRIORITY_MAX}"));
            }
            if reporter.config.tls.is_none() && !is_loopback(addr) {
                return Err(format!("{addr} is not a loopback address, so [tls] is required on every member"));
            }
            Ok(())
        }
        Some(Wanted::Promote(id) | Wanted::Remove(id)) => {
            let members = reporter.consensus.members();
            let known = members.all.is_empty() || members.all.contains_key(&NodeId::from(id.as_str()));
            let stranger = || format!("{id:?} is not a member of this cluster; there are {}", members.names());
            if known { Ok(()) } else { Err(stranger()) }
        }
        None => Err("the request names no change".into()),
    }
}

/// As the leader: returns once the change is committed as a whole, with sentences about what is so now; after a dry run at
/// once, with what would be.
pub(super) async fn lead_change(
    reporter: &Reporter,
    request: &MemberChangeRequest,
) -> Result<MemberChangeResponse, NotDone> {
    // Until it is committed: an upgrade is planned only while every member can read that.
    let _changing = reporter.changing.lock().await;
    let change = match request.change.clone() {
        Some(Wanted::Add(wanted)) => addition(reporter, wanted).await?,
        Some(Wanted::Promote(id)) => Change::Promote { id: id.into() },
        Some(Wanted::Remove(id)) => Change::Remove { id: id.into() },
        None => return Err(NotDone::Refused("the request names no change".into())),
    };
    if let (Change::Promote { id }, false) = (&change, request.dry_run) {
        await_caught_up(reporter, id).await;
    }
    let (plan, checked) = judge(reporter, &change);
    if request.dry_run {
        let refused = checked.err().map(Refused::reason).unwrap_or_default();
        return Ok(MemberChangeResponse { lines: plan.lines(), refused });
    }
    match checked {
        Err(Refused::Done(reason)) => return Ok(said([reason])),
        Err(Refused::NotYet(reason)) => return Err(NotDone::NotNow(reason)),
        Err(Refused::Unforced(_)) if request.force => {}
        Err(refused) => return Err(NotDone::Refused(refused.reason())),
        Ok(()) => {}
    }
    tracing::info!("an operator wants to {}", plan.lines().join("; "));
    let done = sentence(&change);
    match timeout(COMMIT_MAX, reporter.consensus.change_members(change)).await {
        Ok(Ok(())) => Ok(said([done].into_iter().chain(plan.warning().map(|warning| format!("WARNING: {warning}"))))),
        Ok(Err(not_changed)) => Err(NotDone::NotNow(not_changed.to_string())),
        Err(_elapsed) => Err(NotDone::NotNow(format!("no quorum of members has committed it within {COMMIT_MAX:?}"))),
    }
}

fn said(lines: impl IntoIterator<Item = String>) -> MemberChangeResponse {
    MemberChangeResponse { lines: lines.into_iter().collect(), refused: String::new() }
}

/// What the change would lead to as things are, and whether it may be made.
fn judge(reporter: &Reporter, change: &Change) -> (Plan, Result<(), Refused>) {
    let members = reporter.consensus.members();
    let (answering, holder) = reporter.core.read(|core, now| (core.answering(now.boot), core.view().holder.clone()));
    let facts = Facts {
        members: &members,
        leader: &reporter.config.id,
        holder: holder.as_ref(),
        answering: &answering,
        behind: reporter.consensus.behind(change.id()),
    };
    let plan = change.plan(&facts);
    let checked = change.check(&facts, &plan);
    (plan, checked)
}

/// Until the learner has the log and acknowledges the leader, or [`CATCH_UP_MAX`] has passed.
async fn await_caught_up(reporter: &Reporter, id: &NodeId) {
    let deadline = Instant::now() + CATCH_UP_MAX;
    let change = Change::Promote { id: id.clone() };
    while judge(reporter, &change).1.is_err() && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
}

/// The member that answers at the address, as it is to be added.
///
/// Invariant (fence 2): its store is known before it belongs, so that no other store ever speaks for it.
async fn addition(reporter: &Reporter, wanted: AddMember) -> Result<Change, NotDone> {
    let AddMember { id, addr, priority } = wanted;
    let id = NodeId::from(id);
    if id == reporter.config.id {
        return Err(NotDone::Refused(format!("{id} is a member already, and leads")));
    }
    let channel =
        reporter.roster.connect(&id, &addr).ok_or_else(|| NotDone::Refused(format!("{addr} is no address")))?;
    let answer = introduce(channel, &reporter.identity, ANSWER_MAX).await;
    let found = answer.map_err(|reason| {
        NotDone::Refused(format!(
            "nobody that could be added as {id} answers {} at {addr}: {reason}; start baton there first, with \
             member.join = true",
            reporter.config.id
        ))
    })?;
    check_joins(&id, &addr, &found, reporter.identity.me().founders, &reporter.consensus.members())
        .map_err(NotDone::Refused)?;
    check_reads(&id, &found, reporter.applied.borrow().replicated.needs()).map_err(NotDone::Refused)?;
    let Introduced { sender, role, priority: own_priority, .. } = found;
    let priority = priority.unwrap_or(own_priority);
    Ok(Change::Add { id, member: Member { addr, role, priority, incarnation: Some(sender.incarnation) } })
}

/// # Errors
/// What answers at `addr` must not be added as `id`.
fn check_joins(id: &NodeId, addr: &str, found: &Introduced, founders: u64, members: &Members) -> Result<(), String> {
    let answers = &found.sender.member;
    if answers != id {
        return Err(format!("{answers} answers at {addr}, not {id}"));
    }
    let of_our_founders = founders != 0 && found.sender.founders == founders;
    // A member that was removed and kept its store has forgotten nothing. Of one that is still in, the
    // rules for changes tell more.
    if found.joins || found.led && of_our_founders || members.all.contains_key(id) {
        return Ok(());
    }
    Err(format!(
        "{id} was not started to join, so it may have formed a cluster of its own, or forgotten what it voted for as a \
         member: stop it, set member.join = true in its configuration, move its state_dir away and start it again"
    ))
}

/// # Errors
/// The log has in it what answers could not read, so that it could not follow.
fn check_reads(id: &NodeId, found: &Introduced, needs: u32) -> Result<(), String> {
    if found.sender.knows >= needs {
        return Ok(());
    }
    Err(format!(
        "{id} runs a baton that knows no {}, and the log of this cluster has some, which it could not read: upgrade baton on \
         {id} first, then add it",
        knows::in_words(needs)
    ))
}

impl Reporter {
    /// Members that have said that they know less of a log than `needed`.
    pub(super) fn members_below(&self, needed: u32) -> Vec<NodeId> {
        let knows_less = |id: &NodeId| self.identity.known_by(id).is_some_and(|known| known < needed);
        self.consensus.members().all.keys().filter(|id| knows_less(id)).cloned().collect()
    }

    /// Members whose baton was put back to one that cannot read the log.
    pub(super) fn log_warnings(&self) -> Vec<String> {
        let needs = self.applied.borrow().replicated.needs();
        self.members_below(needs).iter().map(|id| unreadable_by(id, needs)).collect()
    }
}

fn unreadable_by(id: &NodeId, needs: u32) -> String {
    let what = knows::in_words(needs);
    format!("{id} runs a baton that cannot read the {what} in the log, and does not follow it: upgrade it")
}

fn sentence(change: &Change) -> String {
    match change {
        Change::Add { id, .. } => {
            format!("{id} is a learner: it gets the log and has no vote; baton member promote {id} gives it one")
        }
        Change::Promote { id } => format!("{id} is a voter"),
        Change::Remove { id } => format!("{id} is no member any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Role;
    use crate::cluster::wire::{KNOWS, PROTOCOL, Sender, Session};

    fn found(member: &str, founders: u64, led: bool, joins: bool) -> Introduced {
        let sender = Sender {
            cluster: "net".into(),
            member: member.into(),
            incarnation: 4,
            protocol: PROTOCOL,
            founders,
            session: Session::default(),
            knows: KNOWS,
        };
        Introduced { sender, role: Role::Validator, priority: 9, led, joins }
    }

    fn refusal(found: &Introduced) -> Option<String> {
        check_joins(&"d".into(), "d:1", found, 7, &Members::default()).err()
    }

    #[test]
    fn only_a_store_that_joins_or_comes_back_is_added() {
        assert_eq!(refusal(&found("d", 0, false, true)), None, "it waits to be added");
        assert_eq!(refusal(&found("d", 7, true, false)), None, "it was a member and kept its store");
        for stranger in [found("d", 0, false, false), found("d", 8, true, false), found("d", 0, true, false)] {
            let reason = refusal(&stranger).expect("refused");
            assert!(reason.contains("set member.join = true"), "{stranger:?}: {reason}");
        }
        assert_eq!(refusal(&found("x", 0, false, true)).as_deref(), Some("x answers at d:1, not d"));
    }

    #[test]
    fn what_cannot_read_what_stands_in_the_log_is_not_added() {
        use crate::base::ids::{Epoch, UpgradeName};
        use crate::core::agreed::replicated::{Baton, Command, Replicated, Upgrade};

        let refused = |knows: u32, state: &Replicated| {
            let mut older = found("d", 0, false, true);
            older.sender.knows = knows;
            check_reads(&"d".into(), &older, state.needs()).err()
        };
        let mut state = Replicated::default();
        assert_eq!(refused(0, &state), None, "nothing but what every version reads");
        let (name, at) = (UpgradeName::new("v2").unwrap(), crate::base::time::WallTime::default());
        state.apply(1, &Command::Upgrade(Upgrade::Plan { name, height: None, source: None, back: false, at }));
        let reason = refused(0, &state).expect("refused");
        assert!(reason.contains("knows no upgrade plans"), "{reason}");
        assert!(reason.ends_with("upgrade baton on d first, then add it"), "{reason}");
        assert_eq!(refused(1, &state), None);

        let (epoch, reason) = (Epoch(1), "start".to_owned());
        state.apply(1, &Command::Baton(Baton::Claim { epoch, member: "a".into(), reason, at }));
        state.apply(1, &Command::LayFloor { epoch, above: 7, because: "power cut".into(), at });
        let reason = refused(1, &state).expect("refused");
        assert!(reason.contains("knows no floors that an operator laid"), "{reason}");
        assert_eq!(refused(KNOWS, &state), None);
        let told = unreadable_by(&"d".into(), state.needs());
        assert!(
            told.starts_with("d runs a baton that cannot read the floors that an operator laid in the log"),
            "{told}"
        );
    }
}
