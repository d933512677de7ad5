//! Orders of operators: read, checked against the membership, and committed by whoever leads, wherever they
//! were given.
//!
//! An order travels from `cli` to the admin socket (or the members' port), to `operator::admin`, to this file. This
//! file checks it against the membership and lets the leader commit it: itself, or another member's coordinator
//! through `operator::relay`, which passes an order on once and no further. It asks again until a leader has
//! committed the order or its time is over. Orders may be committed twice, since each only sets something.
//!
//! Orders act in two places. The core obeys them through its `View`: before a claim, in the rank of a candidate, in
//! the choice of a target, and in a holder that lets go for maintenance. And the state machine rejects a `Claim` that
//! an earlier entry forbids, so a leader that has not applied the order yet cannot act against it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::report::Reporter;
use super::{custody, members, upgrades};
use crate::base::chain_node::FloorBasis;
use crate::base::ids::{Epoch, NodeId, Role};
use crate::base::time::WallTime;
use crate::cluster::wire::proto::{LayFloor, MemberChangeRequest, SetMaintenance, SetPause, SetPriority};
use crate::config::{Member, PRIORITY_MAX};
use crate::core::agreed::orders::Orders;
use crate::core::agreed::replicated::knows::{KNOWS_LAID_FLOORS, KNOWS_SIGNING};
use crate::core::agreed::replicated::{Applied, Command, Set};
use crate::operator::admin::{Asker, NotDone};
use crate::operator::order::{Answer, Order};
use crate::operator::relay::Relay;

/// For one leader to commit it; another one may lead by then.
pub(super) const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);

/// What an operator wants of the leader, read.
enum Wanted {
    Committed(Command),
    Member(MemberChangeRequest),
    Upgrade { change: crate::core::upgrades::Wanted, dry_run: bool },
}

/// Returns once `order` is committed and in force here, with what is so now; after a dry run at once, with what would be.
///
/// # Errors
/// It was refused, or is not known to be committed after its limit.
pub(super) async fn carry_out(
    reporter: &Reporter,
    relay: &Relay,
    order: Order,
    from: Asker,
) -> Result<Answer, NotDone> {
    let order = addressed(reporter, order, from);
    let wanted = read(reporter, &order).map_err(NotDone::Refused)?;
    let (me, order, wanted) = (&reporter.config.id, &order, &wanted);
    if from == Asker::Peer {
        return lead(reporter, wanted).await;
    }
    let attempt_max = match wanted {
        Wanted::Committed(_) | Wanted::Upgrade { .. } => ATTEMPT_MAX,
        Wanted::Member(_) => members::ATTEMPT_MAX,
    };
    let done = by_the_leader(reporter, order.limit(), attempt_max, |leader| async move {
        if leader == *me { lead(reporter, wanted).await } else { relay.order(&leader, order.clone()).await }
    })
    .await?;
    await_in_force(reporter, wanted).await;
    Ok(done)
}

/// What can be said without being the leader.
fn read(reporter: &Reporter, order: &Order) -> Result<Wanted, String> {
    match order {
        Order::Member(request) => members::check_form(reporter, request).map(|()| Wanted::Member(request.clone())),
        Order::SignLog(change) => custody::read(reporter, change).map(Wanted::Committed),
        Order::Upgrade(request) => {
            upgrades::read(request).map(|change| Wanted::Upgrade { change, dry_run: request.dry_run })
        }
        order => {
            let members: Vec<Member> = reporter.roster.all().into_iter().map(|(member, _)| member).collect();
            let epoch = reporter.applied.borrow().replicated.epoch;
            checked(&members, epoch, order).map(Wanted::Committed)
        }
    }
}

/// As the leader.
async fn lead(reporter: &Reporter, wanted: &Wanted) -> Result<Answer, NotDone> {
    check_leads(reporter)?;
    match wanted {
        Wanted::Committed(command) => commit(reporter, command.clone()).await.map(Answer::Done),
        Wanted::Member(request) => members::lead_change(reporter, request).await.map(Answer::Member),
        Wanted::Upgrade { change, dry_run } => {
            upgrades::lead_change(reporter, change, *dry_run).await.map(Answer::Upgrade)
        }
    }
}

/// Has `attempt` made with the leader of the moment, again and again for as long as there may be one to come.
///
/// # Errors
/// It was refused, or is not known to be done after `limit`.
async fn by_the_leader<Attempt, Ended>(
    reporter: &Reporter,
    limit: Duration,
    attempt_max: Duration,
    attempt: Attempt,
) -> Result<Answer, NotDone>
where
    Attempt: Fn(NodeId) -> Ended,
    Ended: Future<Output = Result<Answer, NotDone>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let (leader, _) = reporter.consensus.leader();
        let made = async {
            match leader.clone() {
                Some(leader) => attempt(leader).await,
                None => Err(NotDone::NotNow("no leader is known here".into())),
            }
        };
        let ended = timeout_at(deadline.min(Instant::now() + attempt_max), made).await;
        let reason = match ended {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(NotDone::Refused(reason))) => return Err(NotDone::Refused(reason)),
            Ok(Err(NotDone::NotNow(reason))) => reason,
            Err(_) => format!("no quorum of members has answered the leader {}", leader_or_none(&leader)),
        };
        if Instant::now() + AGAIN >= deadline {
            return Err(NotDone::NotNow(format!(
                "not known to be committed after {limit:?}: {reason}; baton status shows who can be reached, and \
                 whether the order has come into force after all"
            )));
        }
        sleep(AGAIN).await;
    }
}

fn leader_or_none(leader: &Option<NodeId>) -> &str {
    leader.as_ref().map_or("(none)", NodeId::as_str)
}

async fn commit(reporter: &Reporter, command: Command) -> Result<String, NotDone> {
    // Until it is committed, so that nobody who cannot read it is added meanwhile.
    let _changing = match &command {
        Command::LayFloor { above, .. } => {
            let changing = reporter.changing.lock().await;
            check_floor(reporter, *above).map_err(NotDone::Refused)?;
            Some(changing)
        }
        Command::Signing(_) => {
            let changing = reporter.changing.lock().await;
            check_read_by_all(reporter, KNOWS_SIGNING).map_err(NotDone::Refused)?;
            Some(changing)
        }
        Command::Baton(_) | Command::Join { .. } | Command::Set(_) | Command::Upgrade(_) => None,
    };
    propose(reporter, command.clone()).await?;
    Ok(sentence(reporter, &command))
}

/// # Errors
/// This member, which leads, does not settle, somebody could not read the order, or the key has signed above.
fn check_floor(reporter: &Reporter, above: u64) -> Result<(), String> {
    let me = &reporter.config.id;
    let (settling, seen) = reporter.core.read(|core, now| (core.settling(now.boot), core.mark_seen()));
    match settling {
        None => return Err(format!("{me} does not settle: a floor is laid only while a holder waits for one")),
        Some((_, FloorBasis::Release)) => {
            return Err(format!(
                "{me} waits for the mark of the last release, which is exact: let its chain node catch up"
            ));
        }
        Some((
            _,
            FloorBasis::NeverSigned
            | FloorBasis::Settled
            | FloorBasis::Replica
            | FloorBasis::Operator
            | FloorBasis::Log,
        )) => {}
    }
    if let Some(signed) = seen.map(|seen| seen.height.max(seen.approved)).filter(|signed| *signed > above) {
        return Err(format!("the key has signed at height {signed}, above {above}; name that height or a higher one"));
    }
    // Whoever has not been heard is not waited for: the chain may stand still because that host is gone for good.
    check_read_by_all(reporter, KNOWS_LAID_FLOORS)
}

/// # Errors
/// Somebody could not follow a log with what asks for `knows`.
fn check_read_by_all(reporter: &Reporter, knows: u32) -> Result<(), String> {
    match reporter.members_below(knows).first() {
        Some(older) => {
            Err(format!("{older} runs a baton that could not read this in the log: upgrade baton on {older} first"))
        }
        None => Ok(()),
    }
}

/// # Errors
/// This member does not lead.
fn check_leads(reporter: &Reporter) -> Result<(), NotDone> {
    let me = &reporter.config.id;
    match reporter.consensus.leader() {
        (Some(leader), _) if leader == *me => Ok(()),
        (leader, _) => Err(NotDone::NotNow(format!("{me} does not lead, {} does", leader_or_none(&leader)))),
    }
}

/// Returns once what an operator wants is committed.
pub(super) async fn propose(reporter: &Reporter, command: Command) -> Result<(), NotDone> {
    tracing::info!("an operator wants {command}");
    match reporter.consensus.propose(command).await {
        Ok(Applied::Rejected { reason }) => Err(NotDone::Refused(reason)),
        Ok(Applied::Recorded | Applied::Claimed { .. } | Applied::Released { .. } | Applied::Weighed(_)) => Ok(()),
        Err(reason) => Err(NotDone::NotNow(reason)),
    }
}

/// So that the next question here is answered by what was just ordered.
async fn await_in_force(reporter: &Reporter, wanted: &Wanted) {
    let mut applied = reporter.applied.clone();
    let seen = applied.wait_for(|state| match wanted {
        Wanted::Committed(command) => is_in_force(&state.replicated.orders, command),
        Wanted::Upgrade { change, dry_run } => *dry_run || upgrades::is_in_force(&state.replicated.plans, change),
        Wanted::Member(_) => true,
    });
    // It is committed, whether this member comes to it in time or not.
    let _ = tokio::time::timeout(ATTEMPT_MAX, seen).await;
}

fn is_in_force(orders: &Orders, command: &Command) -> bool {
    if let Command::Set(set) = command { orders.has(set) } else { true }
}

/// The order with the name of the member that it is about.
fn addressed(reporter: &Reporter, order: Order, from: Asker) -> Order {
    match order {
        Order::SignLog(change) if from != Asker::Peer => Order::SignLog(custody::addressed(reporter, change)),
        order => with_member(order, &reporter.config.id),
    }
}

fn with_member(order: Order, me: &NodeId) -> Order {
    match order {
        Order::Maintenance(set) if set.member.is_empty() => {
            Order::Maintenance(SetMaintenance { member: me.to_string(), ..set })
        }
        order => order,
    }
}

/// # Errors
/// It names nobody who could hold the baton, or gives no reason where one is asked for.
fn checked(members: &[Member], epoch: Epoch, order: &Order) -> Result<Command, String> {
    let at = WallTime::now();
    Ok(match order {
        Order::Maintenance(SetMaintenance { member, on, .. }) => {
            Command::Set(Set::Maintenance { member: validator(members, member)?.id.clone(), on: *on, at })
        }
        Order::Pause(SetPause { on, .. }) => Command::Set(Set::Pause { on: *on, at }),
        Order::Priority(SetPriority { priority: Some(priority), .. }) if *priority > PRIORITY_MAX => {
            return Err(format!("{priority} is more than {PRIORITY_MAX}, the highest priority"));
        }
        Order::Priority(SetPriority { member, priority }) => {
            Command::Set(Set::Priority { member: validator(members, member)?.id.clone(), priority: *priority })
        }
        Order::Floor(LayFloor { because, .. }) if because.trim().is_empty() => {
            return Err("a floor needs a reason, for the history: --because TEXT".to_owned());
        }
        Order::Floor(LayFloor { above, because, .. }) => {
            Command::LayFloor { epoch, above: *above, because: because.trim().to_owned(), at }
        }
        Order::Handover(_) | Order::Member(_) | Order::Upgrade(_) | Order::SignLog(_) => {
            return Err("it is read elsewhere".to_owned());
        }
    })
}

fn validator<'a>(members: &'a [Member], id: &str) -> Result<&'a Member, String> {
    match members.iter().find(|member| member.id.as_str() == id) {
        Some(member) if member.role == Role::Validator => Ok(member),
        Some(_) => Err(format!("{id} is an arbiter and never holds the baton")),
        None => {
            let known: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
            Err(format!("{id:?} is not a member of this cluster; there are {}", known.join(", ")))
        }
    }
}

/// What is so now, as far as the leader knows.
fn sentence(reporter: &Reporter, command: &Command) -> String {
    let replicated = reporter.applied.borrow().replicated.clone();
    let holder = replicated.holder.as_ref();
    match command {
        Command::Set(Set::Maintenance { member, on: true, .. }) if holder != Some(member) => {
            format!("{member} is in maintenance and takes no baton")
        }
        Command::Set(Set::Maintenance { member, on: true, .. }) if replicated.orders.is_paused() => {
            format!("{member} is in maintenance and keeps the baton while the cluster is paused")
        }
        Command::Set(Set::Maintenance { member, on: true, .. }) => {
            format!("{member} is in maintenance and hands the baton over as soon as another member is ready")
        }
        Command::Set(Set::Maintenance { member, on: false, .. }) => format!("{member} is not in maintenance"),
        Command::Set(Set::Pause { on: true, .. }) => {
            let keeper = holder.or(replicated.moves.back().map(|last| &last.to));
            let stays =
                keeper.map_or("nobody takes the baton".into(), |keeper| format!("the baton stays with {keeper}"));
            format!("paused: {stays} until baton resume")
        }
        Command::Set(Set::Pause { on: false, .. }) => "not paused: the baton moves by itself".into(),
        Command::Set(Set::Priority { member, priority: Some(priority) }) => format!("{member} has priority {priority}"),
        Command::Set(Set::Priority { member, priority: None }) => format!("{member} has its configured priority"),
        Command::LayFloor { epoch, above, .. } => {
            let holder = holder.map_or("the holder", NodeId::as_str);
            format!("{holder} signs above height {above} under epoch {epoch}, once its chain node is past the floor")
        }
        Command::Signing(step) => custody::sentence(step),
        Command::Baton(_) | Command::Join { .. } | Command::Upgrade(_) => command.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<Member> {
        let file = std::path::Path::new("tests/data/design-example.toml");
        crate::config::Config::load(file, std::iter::empty()).unwrap().cluster.members
    }

    fn refused(order: Order) -> String {
        checked(&members(), Epoch(3), &order).expect_err("refused")
    }

    #[test]
    fn an_order_is_about_a_validator_of_the_cluster() {
        let maintenance =
            |member: &str| Order::Maintenance(SetMaintenance { member: member.into(), on: true, at_ns: 7 });
        assert!(refused(maintenance("host-c")).contains("is an arbiter"));
        assert!(refused(maintenance("host-d")).contains("there are host-a, host-b, host-c"));
        let own = checked(&members(), Epoch(3), &with_member(maintenance(""), &"host-a".into())).unwrap();
        let Command::Set(Set::Maintenance { member, on: true, at }) = own else { panic!("{own}") };
        assert_eq!(member, "host-a".into(), "nobody is named: the member that was asked");
        assert!(at.as_nanos() > 7, "the time is the proposer's own");
    }

    #[test]
    fn a_priority_has_the_bounds_of_the_configuration() {
        let priority = |priority| Order::Priority(SetPriority { member: "host-b".into(), priority });
        assert!(refused(priority(Some(PRIORITY_MAX + 1))).contains("more than 1000000"));
        for allowed in [Some(PRIORITY_MAX), Some(0), None] {
            assert!(checked(&members(), Epoch(3), &priority(allowed)).is_ok(), "{allowed:?}");
        }
    }

    #[test]
    fn a_floor_is_laid_for_the_present_epoch_and_for_a_reason() {
        let floor = |because: &str| Order::Floor(LayFloor { above: 7, because: because.into(), ..LayFloor::default() });
        assert!(refused(floor(" ")).contains("--because"));
        let laid = checked(&members(), Epoch(3), &floor(" power cut ")).expect("allowed");
        let Command::LayFloor { epoch: Epoch(3), above: 7, because, .. } = laid else { panic!("{laid}") };
        assert_eq!(because, "power cut");
    }

    #[test]
    fn an_order_is_in_force_when_the_state_says_so() {
        let mut state = crate::core::agreed::replicated::Replicated::default();
        let (member, at): (NodeId, _) = ("host-b".into(), WallTime::now());
        for command in [
            Command::Set(Set::Maintenance { member: member.clone(), on: true, at }),
            Command::Set(Set::Pause { on: true, at }),
            Command::Set(Set::Priority { member: member.clone(), priority: Some(3) }),
            Command::Set(Set::Maintenance { member: member.clone(), on: false, at }),
            Command::Set(Set::Pause { on: false, at }),
            Command::Set(Set::Priority { member, priority: None }),
        ] {
            assert!(!is_in_force(&state.orders, &command), "before {command}");
            state.apply(1, &command);
            assert!(is_in_force(&state.orders, &command), "after {command}");
        }
    }
}
