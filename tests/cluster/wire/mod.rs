//! Every message and every stored value comes back as it was, and one that lacks a field is refused
//! with the names of message and field.

mod commands;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton::base::chain_node::{FloorBasis, MetFloor, SignFloor};
use baton::base::ids::{Epoch, NodeId, Role, SignMark, UpgradeName};
use baton::base::signing::{Hrs, SignDigest, SignTime};
use baton::base::time::WallTime;
use baton::base::timing::LeaseSpan;
use baton::cluster::wire::{
    AppliedState, Entry, LogId, Membership, Message, Node, OfLeader, PROTOCOL, Promising, Sender, Session,
    SnapshotMeta, SnapshotRequest, StoredMembership, TransferAnswer, TypeConfig, Vote, WireError, decode, proto,
    read_entry,
};
use baton::core::agreed::orders::Orders;
use baton::core::agreed::replicated::{
    Baton, Command, LaidFloor, Move, MoveEnd, MoveKind, ReleaseInfo, Replicated, Set, Signing, Upgrade,
};
use baton::core::agreed::sign_log::{Grant, Requester, SignLog, SignRequest};
use baton::core::upgrades::{BinaryReport, Failed, Plan, PlanStage, Plans, Step, UnderWay, UpgradeReport};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::vote::leader_id_std::CommittedLeaderId;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn sender() -> Sender {
    Sender {
        cluster: "test".into(),
        member: "a".into(),
        incarnation: u64::MAX,
        protocol: PROTOCOL,
        founders: 77,
        session: Session { number: u64::MAX - 1, start: 5 },
        knows: 3,
    }
}

fn names() -> impl Strategy<Value = NodeId> {
    "[a-z0-9.-]{1,12}".prop_map(NodeId::from)
}

fn times() -> impl Strategy<Value = WallTime> {
    any::<u64>().prop_map(WallTime::from_nanos)
}

fn durations() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn leases() -> impl Strategy<Value = Option<LeaseSpan>> {
    let span = |(ms, ppm)| LeaseSpan::new(Duration::from_millis(ms), ppm).expect("in range");
    option::of((10..=120_000_u64, 0..=100_000_u32).prop_map(span))
}

fn promises() -> impl Strategy<Value = Option<Duration>> {
    option::of((1..=u64::MAX).prop_map(Duration::from_nanos))
}

fn votes() -> impl Strategy<Value = Vote> {
    let committed = |(term, name): (u64, NodeId)| Vote::new_committed(term, name);
    let open = |(term, name): (u64, NodeId)| Vote::new(term, name);
    prop_oneof![(any::<u64>(), names()).prop_map(committed), (any::<u64>(), names()).prop_map(open)]
}

fn log_ids() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId { leader_id: CommittedLeaderId::new(term), index })
}

fn marks() -> impl Strategy<Value = SignMark> {
    prop_oneof![
        (any::<u64>(), any::<u32>(), any::<u32>())
            .prop_map(|(height, round, step)| SignMark::at_step(height, round, step)),
        (any::<u64>(), 1..u64::MAX).prop_map(|(head, approved)| SignMark::of_approvals(head, approved)),
    ]
}

fn floors() -> impl Strategy<Value = SignFloor> {
    prop_oneof![Just(SignFloor::None), marks().prop_map(SignFloor::Mark), times().prop_map(SignFloor::BlockAfter)]
}

fn met_floors() -> impl Strategy<Value = MetFloor> {
    use FloorBasis::{NeverSigned, Operator, Release, Replica, Settled};
    let bases = option::of(prop::sample::select(vec![NeverSigned, Release, Settled, Replica, Operator]));
    (floors(), bases, any::<u64>(), durations()).prop_map(|(floor, basis, height, settled_in)| MetFloor {
        floor,
        basis,
        height,
        settled_in,
    })
}

fn epochs() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        (epochs(), names(), ".{0,40}", times()).prop_map(|(epoch, member, reason, at)| Command::Baton(Baton::Claim {
            epoch,
            member,
            reason,
            at
        })),
        (epochs(), option::of(marks()), ".{0,40}", times(), option::of(names())).prop_map(
            |(epoch, last_signed, reason, at, to)| Command::Baton(Baton::Release {
                epoch,
                last_signed,
                reason,
                at,
                to
            })
        ),
        (epochs(), any::<u64>(), ".{0,40}", times()).prop_map(|(epoch, above, because, at)| Command::LayFloor {
            epoch,
            above,
            because,
            at
        }),
        (epochs(), times(), met_floors(), durations())
            .prop_map(|(epoch, at, floor, took)| Command::Baton(Baton::Activated { epoch, at, floor, took })),
        (names(), any::<u64>()).prop_map(|(member, incarnation)| Command::Join { member, incarnation }),
        (names(), any::<bool>(), times()).prop_map(|(member, on, at)| Command::Set(Set::Maintenance {
            member,
            on,
            at
        })),
        (any::<bool>(), times()).prop_map(|(on, at)| Command::Set(Set::Pause { on, at })),
        (names(), option::of(any::<u32>()))
            .prop_map(|(member, priority)| Command::Set(Set::Priority { member, priority })),
        (upgrade_names(), option::of(any::<u64>()), option::of("/[a-z]{1,9}"), any::<bool>(), times()).prop_map(
            |(name, height, source, back, at)| Command::Upgrade(Upgrade::Plan { name, height, source, back, at })
        ),
        (upgrade_names(), times()).prop_map(|(name, at)| Command::Upgrade(Upgrade::Cancel { name, at })),
        (upgrade_names(), names(), times()).prop_map(|(name, member, at)| Command::Upgrade(Upgrade::Turn {
            name,
            member,
            at
        })),
        (upgrade_names(), option::of((names(), ".{0,20}")), times())
            .prop_map(|(name, failed, at)| Command::Upgrade(Upgrade::End { name, failed, at })),
        (".{1,9}", ".{1,9}", grants(), times()).prop_map(|(chain, key, last, at)| Command::Signing(Signing::Open {
            chain,
            key,
            last,
            at
        })),
        times().prop_map(|at| Command::Signing(Signing::Close { at })),
        (".{1,9}", grants(), any::<[u8; 32]>(), option::of(requesters())).prop_map(
            |(chain, Grant { place, time, .. }, digest, by)| {
                Command::Signing(Signing::Sign(SignRequest { chain, place, digest: SignDigest(digest), time, by }))
            }
        ),
    ]
}

fn grants() -> impl Strategy<Value = Grant> {
    let places = any::<(u64, u32, u32)>().prop_map(|(height, round, step)| Hrs { height, round, step });
    let times = any::<(i64, i32)>().prop_map(|(seconds, nanos)| SignTime { seconds, nanos });
    (places, option::of(any::<[u8; 32]>()), times).prop_map(|(place, digest, time)| Grant {
        place,
        digest: digest.map(SignDigest),
        time,
    })
}

fn upgrade_names() -> impl Strategy<Value = UpgradeName> {
    "[a-zA-Z0-9 /.:-]{1,12}".prop_map(|name| UpgradeName::new(&name).unwrap())
}

fn plans() -> impl Strategy<Value = Plans> {
    let stages = prop_oneof![
        Just(PlanStage::Preparing),
        (option::of(names()), btree_set(names(), 0..3)).prop_map(|(turn, done)| PlanStage::Rolling { turn, done }),
        times().prop_map(|at| PlanStage::Done { at }),
        times().prop_map(|at| PlanStage::Cancelled { at }),
        (names(), ".{0,20}", times()).prop_map(|(member, reason, at)| PlanStage::Failed { member, reason, at }),
    ];
    let what = (upgrade_names(), option::of(any::<u64>()), option::of("/[a-z]{1,9}"), any::<bool>());
    let plan = (what, times(), stages).prop_map(|((name, height, source, back), planned_at, stage)| Plan {
        name,
        height,
        source,
        back,
        planned_at,
        stage,
    });
    vec(plan, 0..4).prop_map(|plans| Plans(plans.into()))
}

fn reports() -> impl Strategy<Value = UpgradeReport> {
    let binary = prop_oneof![
        "[0-9a-f]{64}".prop_map(|sha256| BinaryReport::Present { sha256 }),
        ".{0,20}".prop_map(|reason| BinaryReport::Missing { reason }),
        (any::<u64>(), option::of(any::<u64>())).prop_map(|(done, total)| BinaryReport::Fetching { done, total }),
    ];
    let steps = || prop::sample::select(Step::ALL.to_vec());
    let work = (upgrade_names(), steps(), any::<u64>(), any::<u64>()).prop_map(|(name, step, done, total)| UnderWay {
        name,
        step,
        done,
        total,
    });
    let failed = (upgrade_names(), steps(), ".{0,20}").prop_map(|(name, step, reason)| Failed { name, step, reason });
    let binaries = btree_map(upgrade_names(), binary, 0..3);
    (upgrade_names(), option::of(upgrade_names()), binaries, option::of(work), option::of(failed)).prop_map(
        |(current, previous, binaries, under_way, failed)| UpgradeReport {
            current,
            previous,
            binaries,
            under_way,
            failed,
        },
    )
}

/// Voters of one or two sets, and learners.
fn memberships() -> impl Strategy<Value = Membership> {
    let roles = prop::sample::select(vec![Role::Validator, Role::Arbiter]);
    let node = ("[a-z0-9:.]{0,20}", roles, any::<u32>(), option::of(1..u64::MAX));
    let node = node.prop_map(|(addr, role, priority, incarnation)| Node { addr, role, priority, incarnation });
    (btree_map(names(), node, 1..6), vec(vec(any::<prop::sample::Index>(), 1..4), 0..3)).prop_map(|(nodes, sets)| {
        let all: Vec<NodeId> = nodes.keys().cloned().collect();
        let pick = |set: Vec<prop::sample::Index>| set.iter().map(|i| i.get(&all).clone()).collect::<BTreeSet<_>>();
        let configs =
            if sets.is_empty() { vec![all.iter().cloned().collect()] } else { sets.into_iter().map(pick).collect() };
        Membership::new(configs, nodes).expect("voters have addresses")
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let payloads = prop_oneof![
        Just(EntryPayload::Blank),
        commands().prop_map(EntryPayload::Normal),
        memberships().prop_map(EntryPayload::Membership),
    ];
    (log_ids(), payloads).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

fn stored_memberships() -> impl Strategy<Value = StoredMembership> {
    prop_oneof![
        Just(StoredMembership::default()),
        (option::of(log_ids()), memberships()).prop_map(|(id, membership)| StoredMembership::new(id, membership)),
    ]
}

fn metas() -> impl Strategy<Value = SnapshotMeta> {
    (option::of(log_ids()), stored_memberships())
        .prop_map(|(last_log_id, last_membership)| SnapshotMeta { last_log_id, last_membership })
}

fn releases() -> impl Strategy<Value = ReleaseInfo> {
    (epochs(), any::<u64>(), option::of(marks()), times()).prop_map(|(epoch, term, last_signed, at)| ReleaseInfo {
        epoch,
        term,
        last_signed,
        at,
    })
}

fn moves() -> impl Strategy<Value = Move> {
    let kinds = prop_oneof![Just(MoveKind::First), Just(MoveKind::Failover), Just(MoveKind::Handover)];
    let ends = (times(), durations(), durations(), met_floors()).prop_map(|(active_at, gap, took, floor)| MoveEnd {
        active_at,
        gap,
        took,
        floor,
    });
    let laid = (any::<u64>(), ".{0,20}", times()).prop_map(|(above, because, at)| LaidFloor { above, because, at });
    (epochs(), option::of(names()), names(), kinds, ".{0,20}", times(), option::of(ends), option::of(laid)).prop_map(
        |(epoch, from, to, kind, reason, claimed_at, end, laid)| Move {
            epoch,
            from,
            to,
            kind,
            reason,
            claimed_at,
            end,
            laid,
        },
    )
}

fn requesters() -> impl Strategy<Value = Requester> {
    (names(), option::of(".{1,9}")).prop_map(|(host, sentry)| Requester { host, sentry })
}

fn states() -> impl Strategy<Value = Replicated> {
    let people = (option::of(names()), btree_map(names(), any::<u64>(), 0..4), vec(moves(), 0..5));
    let numbers = (epochs(), any::<u64>(), times(), ".{0,20}");
    let sign_logs = (".{1,9}", ".{1,9}", grants(), option::of(requesters()), any::<bool>())
        .prop_map(|(chain, key, last, by, closed)| SignLog { chain, key, last, by, closed });
    let wishes = (option::of(names()), orders(), btree_set(names(), 0..4), plans(), option::of(sign_logs));
    (people, numbers, (option::of(releases()), option::of(releases())), wishes).prop_map(
        |(people, (epoch, claimed_in_term, gap_from, release_reason), (last_release, let_go), wishes)| {
            let (heir, orders, founders, plans, sign_log) = wishes;
            let (holder, incarnations, moves) = people;
            let moves = moves.into();
            Replicated {
                epoch,
                holder,
                claimed_in_term,
                last_release,
                let_go,
                gap_from,
                release_reason,
                incarnations,
                moves,
                heir,
                orders,
                founders,
                plans,
                sign_log,
            }
        },
    )
}

fn orders() -> impl Strategy<Value = Orders> {
    let (maintenance, priorities) = (btree_map(names(), times(), 0..3), btree_map(names(), any::<u32>(), 0..3));
    (maintenance, option::of(times()), priorities).prop_map(|(maintenance, paused, priorities)| Orders {
        maintenance,
        paused,
        priorities,
    })
}

/// Sends a message through its bytes and asserts that it comes back with its sender.
fn assert_travels<M>(message: &M)
where
    M: Message + std::fmt::Debug,
    M::Proto: prost::Message + Default,
{
    let bytes = prost::Message::encode_to_vec(&message.to_proto(&sender()));
    let (from, back) = M::from_proto(decode("message", &bytes).unwrap()).unwrap();
    assert_eq!(from, sender());
    // Not every message of openraft can be compared; all can be shown.
    assert_eq!(format!("{back:?}"), format!("{message:?}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn append_requests_travel(vote in votes(), prev_log_id in option::of(log_ids()), entries in vec(entries(), 0..6),
                              leader_commit in option::of(log_ids()), lease in leases()) {
        let request = AppendEntriesRequest::<TypeConfig> { vote, prev_log_id, entries, leader_commit };
        assert_travels(&OfLeader { lease, request });
    }

    #[test]
    fn append_responses_travel(id in option::of(log_ids()), vote in votes(), promised in promises()) {
        let answers = [
            AppendEntriesResponse::<TypeConfig>::Success,
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::PartialSuccess(id),
            AppendEntriesResponse::HigherVote(vote),
        ];
        for answer in answers {
            assert_travels(&Promising { promised, answer });
        }
    }

    #[test]
    fn votes_travel(vote in votes(), last_log_id in option::of(log_ids()), flag in any::<bool>()) {
        let mut request = VoteRequest::<TypeConfig>::new(vote.clone(), last_log_id);
        request.leadership_transfer = flag;
        assert_travels(&request);
        assert_travels(&VoteResponse::<TypeConfig>::new(vote, last_log_id, flag));
    }

    #[test]
    fn snapshots_travel(vote in votes(), meta in metas(), data in vec(any::<u8>(), 0..99), lease in leases(),
                        promised in promises()) {
        assert_travels(&OfLeader { lease, request: SnapshotRequest { vote: vote.clone(), meta, data } });
        assert_travels(&Promising { promised, answer: SnapshotResponse::<TypeConfig>::new(vote) });
    }

    #[test]
    fn transfers_travel(vote in votes(), to in names(), last_log_id in option::of(log_ids()), reason in ".{1,30}") {
        assert_travels(&TransferLeaderRequest::<TypeConfig>::new(vote, to, last_log_id));
        assert_travels(&TransferAnswer::Accepted);
        assert_travels(&TransferAnswer::Refused(reason));
    }

    #[test]
    fn entries_are_stored_as_they_were(entry in entries()) {
        let bytes = prost::Message::encode_to_vec(&proto::Entry::from(&entry));
        prop_assert_eq!(read_entry(decode("Entry", &bytes).unwrap()).unwrap(), entry);
    }

    #[test]
    fn applied_states_are_stored_as_they_were(last_applied in option::of(log_ids()), membership in stored_memberships(),
                                              replicated in states(), from_snapshot in any::<bool>()) {
        let state = AppliedState { last_applied, membership, replicated: Arc::new(replicated), from_snapshot };
        let bytes = prost::Message::encode_to_vec(&proto::StoredState::from(&state));
        let back = AppliedState::try_from(decode::<proto::StoredState>("StoredState", &bytes).unwrap()).unwrap();
        prop_assert_eq!(back, state);
    }

    #[test]
    fn reports_of_binaries_travel(report in reports()) {
        let record = proto::Record { upgrade: Some((&report).into()), ..Default::default() };
        let bytes = prost::Message::encode_to_vec(&record);
        let back: proto::Record = decode("Record", &bytes).unwrap();
        prop_assert_eq!(UpgradeReport::try_from(back.upgrade.unwrap()).unwrap(), report);
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(request) = decode::<proto::AppendEntriesRequest>("AppendEntriesRequest", &bytes) {
            let _ = OfLeader::<AppendEntriesRequest<TypeConfig>>::from_proto(request);
        }
        if let Ok(state) = decode::<proto::StoredState>("StoredState", &bytes) {
            let _ = AppliedState::try_from(state);
        }
    }
}

fn missing(message: &'static str, field: &'static str) -> WireError {
    WireError::Missing { message, field }
}

#[test]
fn a_message_without_its_sender_is_refused() {
    let vote = Vote::new(1, "a".into());
    let request = VoteRequest::<TypeConfig>::new(vote, None);
    let anonymous = proto::VoteRequest { sender: None, ..request.to_proto(&sender()) };
    assert_eq!(VoteRequest::from_proto(anonymous).unwrap_err(), missing("VoteRequest", "sender"));
    for (change, field) in [("member", "member"), ("cluster", "cluster"), ("protocol", "protocol")] {
        let mut message = request.to_proto(&sender());
        let who = message.sender.as_mut().unwrap();
        match change {
            "member" => who.member.clear(),
            "cluster" => who.cluster.clear(),
            "protocol" => who.protocol = 0,
            other => panic!("{other}"),
        }
        assert_eq!(VoteRequest::from_proto(message).unwrap_err(), missing("Sender", field));
    }
}

#[test]
fn a_missing_field_is_named() {
    let from = Some(proto::Sender::from(&sender()));
    let empty = proto::AppendEntriesRequest { sender: from.clone(), ..Default::default() };
    assert_eq!(
        OfLeader::<AppendEntriesRequest<TypeConfig>>::from_proto(empty).unwrap_err(),
        missing("AppendEntriesRequest", "ballot")
    );
    let empty = proto::AppendEntriesResponse { sender: from.clone(), ..Default::default() };
    assert_eq!(
        Promising::<AppendEntriesResponse<TypeConfig>>::from_proto(empty).unwrap_err(),
        missing("AppendEntriesResponse", "result")
    );
    let nameless = proto::VoteRequest { sender: from, ballot: Some(proto::Ballot::default()), ..Default::default() };
    assert_eq!(VoteRequest::from_proto(nameless).unwrap_err(), missing("Ballot", "candidate"));
    let id = Some(proto::LogId { term: 1, index: 1 });
    assert_eq!(read_entry(proto::Entry { id, payload: None }).unwrap_err(), missing("Entry", "payload"));
    let blank = Some(proto::entry::Payload::Blank(proto::Blank {}));
    assert_eq!(read_entry(proto::Entry { id: None, payload: blank }).unwrap_err(), missing("Entry", "id"));
    assert_eq!(Command::try_from(proto::Command { command: None }).unwrap_err(), missing("Command", "command"));
    assert_eq!(SignFloor::try_from(proto::SignFloor { floor: None }).unwrap_err(), missing("SignFloor", "floor"));
    assert_eq!(missing("Entry", "id").to_string(), "Entry has no id");
}

#[test]
fn a_membership_of_an_earlier_version_has_addresses_alone() {
    let set = proto::VoterSet { members: vec!["a".into()] };
    let addresses = [("a".to_owned(), "a:1".to_owned())].into();
    let read = Membership::try_from(proto::Membership { configs: vec![set], addresses, members: BTreeMap::new() });
    let node = read.unwrap().get_node(&"a".into()).cloned().unwrap();
    assert_eq!((node.addr.as_str(), node.incarnation), ("a:1", None), "a founder: its configuration says the rest");
}

#[test]
fn a_voter_without_an_address_is_refused() {
    let set = proto::VoterSet { members: vec!["a".into()] };
    let membership = proto::Membership { configs: vec![set], addresses: BTreeMap::new(), members: BTreeMap::new() };
    let error = Membership::try_from(membership).unwrap_err();
    assert!(matches!(error, WireError::Invalid { message: "Membership", field: "configs", .. }), "{error}");
}

#[test]
fn a_duration_that_is_too_long_is_stored_as_the_longest() {
    let command = |took| {
        Command::Baton(Baton::Activated { epoch: Epoch(1), at: WallTime::default(), floor: MetFloor::default(), took })
    };
    let back = Command::try_from(proto::Command::from(&command(Duration::MAX))).unwrap();
    assert_eq!(back, command(Duration::from_nanos(u64::MAX)));
}

#[test]
fn a_state_that_was_written_before_there_were_orders_has_none() {
    let mut written = proto::Replicated::from(&Replicated { epoch: Epoch(3), ..Replicated::default() });
    written.orders = None;
    let read = Replicated::try_from(written).unwrap();
    assert_eq!((read.epoch, read.orders, read.heir), (Epoch(3), Orders::default(), None));
}

/// A version that knows only heights would give the key to a host that approves what was approved.
#[test]
fn a_mark_with_approvals_is_none_to_a_version_that_does_not_know_of_them() {
    let last_signed = Some(SignMark::of_approvals(7, 9));
    let at = WallTime::default();
    let release =
        Command::Baton(Baton::Release { epoch: Epoch(1), last_signed, reason: "operator".into(), at, to: None });
    let Some(proto::command::Command::Release(written)) = proto::Command::from(&release).command else { panic!() };
    assert_eq!(written.last_signed, None);
    assert_eq!(written.approvals, Some(proto::Approvals { head: 7, approved: 9 }));
    let stored = proto::ReleaseInfo::from(ReleaseInfo { epoch: Epoch(1), term: 1, last_signed, at });
    assert_eq!((stored.last_signed, ReleaseInfo::from(stored).last_signed), (None, last_signed));
    let without = proto::Release { approvals: None, ..written };
    let entry = proto::Command { command: Some(proto::command::Command::Release(without)) };
    let read = Command::try_from(entry).unwrap();
    assert!(matches!(read, Command::Baton(Baton::Release { last_signed: None, .. })), "it settles: {read}");
}

/// Rows and entries of a version that recorded no more than the floor itself.
#[test]
fn what_an_earlier_version_wrote_of_a_floor_is_read_without_its_basis() {
    let floor = SignFloor::Mark(SignMark::at_height(7));
    let whole = MetFloor { floor, basis: Some(FloorBasis::Release), height: 9, settled_in: Duration::from_millis(3) };
    let old = MetFloor { floor, ..MetFloor::default() };
    let (epoch, at, took) = (Epoch(1), WallTime::default(), Duration::from_millis(5));
    let entry = proto::Command::from(&Command::Baton(Baton::Activated { epoch, at, floor: whole, took }));
    let Some(proto::command::Command::Activated(mut entry)) = entry.command else { panic!("no Activated") };
    (entry.basis, entry.met_at_height, entry.settled_in_ns) = (0, 0, 0);
    let entry = proto::Command { command: Some(proto::command::Command::Activated(entry)) };
    assert_eq!(Command::try_from(entry).unwrap(), Command::Baton(Baton::Activated { epoch, at, floor: old, took }));
    assert_eq!(old.to_string(), "above 7");
    assert_eq!(whole.to_string(), "release, above 7, met at height 9 in 3 ms");
}

/// What a later version may append to any message: a number and a text under numbers that this one does not know.
const LATER: [u8; 10] = [0xc0, 0x3e, 0x07, 0xca, 0x3e, 0x04, b'l', b'a', b't', b'e'];

#[test]
fn a_sender_of_an_earlier_version_knows_nothing_and_one_of_a_later_version_is_listened_to() {
    let request = VoteRequest::<TypeConfig>::new(Vote::new(1, "a".into()), None);
    let mut earlier = request.to_proto(&sender());
    earlier.sender.as_mut().unwrap().knows = 0;
    let bytes = prost::Message::encode_to_vec(&earlier);
    let (from, _) = VoteRequest::<TypeConfig>::from_proto(decode("VoteRequest", &bytes).unwrap()).unwrap();
    assert_eq!(
        (from.knows, from.member.as_str()),
        (0, "a"),
        "zero is written as nothing, as by who knows no such field"
    );

    let mut who = prost::Message::encode_to_vec(&proto::Sender { knows: 999, ..(&sender()).into() });
    who.extend(LATER);
    let rest = proto::VoteRequest { sender: None, ..request.to_proto(&sender()) };
    let mut bytes = vec![0x0a, u8::try_from(who.len()).unwrap()];
    bytes.extend(&who);
    bytes.extend(prost::Message::encode_to_vec(&rest));
    bytes.extend(LATER);
    let (from, back) = VoteRequest::<TypeConfig>::from_proto(decode("VoteRequest", &bytes).unwrap()).unwrap();
    assert_eq!(from, Sender { knows: 999, ..sender() });
    assert_eq!(format!("{back:?}"), format!("{request:?}"));
}

#[test]
fn a_record_of_an_earlier_version_tells_of_no_binaries_and_one_of_a_later_version_is_read() {
    let earlier = proto::Record { member: "a".into(), state: "Voting".into(), ..Default::default() };
    let mut bytes = prost::Message::encode_to_vec(&earlier);
    assert_eq!(decode::<proto::Record>("Record", &bytes).unwrap(), earlier);
    bytes.extend(LATER);
    let read = decode::<proto::Record>("Record", &bytes).unwrap();
    assert_eq!((read.upgrade, read.node_crashes, read.state.as_str()), (None, 0, "Voting"));

    // A kind of binary and a step that this version has no word for.
    let work = proto::UpgradeWork { name: "v2".into(), step: 99, ..Default::default() };
    let later = proto::UpgradeReport {
        current: "v1".into(),
        binaries: [("v2".to_owned(), proto::UpgradeBinary { state: None })].into(),
        under_way: Some(work),
        ..Default::default()
    };
    let read = UpgradeReport::try_from(later).unwrap();
    assert!(read.binaries.is_empty(), "nobody knows that it is there");
    assert!(read.under_way.is_some(), "it is at work, whatever at");
    let nameless = proto::UpgradeReport::default();
    assert!(UpgradeReport::try_from(nameless).is_err(), "and who calls it takes that for no report");
}

/// Which is why a leader proposes none of them before all members are known to read it.
#[test]
fn an_entry_that_a_member_does_not_know_is_refused() {
    // `Command { set_pause }` under a number that nobody has.
    let bytes = [0xa2, 0x06, 0x02, 0x08, 0x01];
    let command: proto::Command = decode("Command", &bytes).unwrap();
    assert_eq!(Command::try_from(command).unwrap_err(), missing("Command", "command"));
}

#[test]
fn a_state_that_was_written_before_there_were_plans_has_none() {
    let written = proto::Replicated::from(&Replicated { epoch: Epoch(3), ..Replicated::default() });
    let bytes = prost::Message::encode_to_vec(&proto::Replicated { plans: Vec::new(), ..written });
    assert!(!bytes.windows(2).any(|pair| pair[0] == 13 << 3 | 2), "nothing is written for none");
    let read = Replicated::try_from(decode::<proto::Replicated>("Replicated", &bytes).unwrap()).unwrap();
    assert_eq!((read.epoch, read.plans), (Epoch(3), Plans::default()));
}
