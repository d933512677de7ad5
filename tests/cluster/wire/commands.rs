//! The bytes of every command, as they stand in logs and travel between members since before commands had groups.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem::discriminant;
use std::time::Duration;

use baton::base::chain_node::{FloorBasis, MetFloor, SignFloor};
use baton::base::ids::{Epoch, NodeId, SignMark, UpgradeName};
use baton::base::signing::{Hrs, SignDigest, SignTime};
use baton::base::time::WallTime;
use baton::cluster::wire::{decode, proto};
use baton::core::agreed::replicated::{Baton, Command, Set, Signing, Upgrade};
use baton::core::agreed::sign_log::{Grant, Requester, SignRequest};

/// One command a line: its bytes, then its words.
const WRITTEN: &str = include_str!("../../data/commands.txt");

fn commands() -> Vec<Command> {
    let (epoch, at, took) = (Epoch(7), WallTime::from_nanos(1_700_000_000_123_456_789), Duration::from_millis(1_234));
    let (member, to) = (NodeId::from("host-a"), Some(NodeId::from("host-b")));
    let name = UpgradeName::new("v2.1").expect("a name");
    let floor = |floor, basis| MetFloor { floor, basis, height: 901, settled_in: Duration::from_millis(2_500) };
    let at_step = SignFloor::Mark(SignMark::at_step(900, 1, 3));
    let approved = SignMark::of_approvals(900, 904);
    let (place, digest) = (Hrs::new(906, 1, Hrs::PRECOMMIT), SignDigest([0xab; 32]));
    let time = SignTime { seconds: -62_135_596_800, nanos: 7 };
    let grant = |digest| Grant { place, digest, time };
    let by = |sentry| Some(Requester { host: "host-b".into(), sentry });
    let sentry = "tcp://10.0.0.5:26659".to_owned();
    vec![
        Command::Baton(Baton::Claim { epoch, member: member.clone(), reason: "lease-lost".into(), at }),
        Command::Baton(Baton::Release {
            epoch,
            last_signed: Some(SignMark::at_step(900, 1, 3)),
            reason: "operator".into(),
            at,
            to: to.clone(),
        }),
        Command::Baton(Baton::Release { epoch, last_signed: None, reason: "shutdown".into(), at, to: None }),
        Command::Baton(Baton::Release {
            epoch,
            last_signed: Some(approved),
            reason: "operator".into(),
            at,
            to: to.clone(),
        }),
        Command::Baton(Baton::Activated {
            epoch,
            at,
            floor: floor(SignFloor::None, Some(FloorBasis::NeverSigned)),
            took,
        }),
        Command::Baton(Baton::Activated { epoch, at, floor: floor(at_step, Some(FloorBasis::Release)), took }),
        Command::Baton(Baton::Activated { epoch, at, floor: floor(SignFloor::BlockAfter(at), None), took }),
        Command::Join { member: member.clone(), incarnation: u64::MAX - 1 },
        Command::Set(Set::Maintenance { member: member.clone(), on: true, at }),
        Command::Set(Set::Maintenance { member: member.clone(), on: false, at }),
        Command::Set(Set::Pause { on: true, at }),
        Command::Set(Set::Pause { on: false, at }),
        Command::Set(Set::Priority { member: member.clone(), priority: Some(0) }),
        Command::Set(Set::Priority { member: member.clone(), priority: None }),
        Command::LayFloor { epoch, above: 905, because: "power cut".into(), at },
        Command::Upgrade(Upgrade::Plan {
            name: name.clone(),
            height: Some(1_000),
            source: Some("https://example.org/v2".into()),
            back: false,
            at,
        }),
        Command::Upgrade(Upgrade::Plan { name: name.clone(), height: None, source: None, back: true, at }),
        Command::Upgrade(Upgrade::Cancel { name: name.clone(), at }),
        Command::Upgrade(Upgrade::Turn { name: name.clone(), member: member.clone(), at }),
        Command::Upgrade(Upgrade::End { name: name.clone(), failed: None, at }),
        Command::Upgrade(Upgrade::End { name, failed: Some((member, "no space left".into())), at }),
        Command::Signing(Signing::Open { chain: "c-1".into(), key: "ed25519:AAAA".into(), last: grant(None), at }),
        Command::Signing(Signing::Close { at }),
        Command::Signing(Signing::Sign(SignRequest { chain: "c-1".into(), place, digest, time, by: None })),
        Command::Signing(Signing::Sign(SignRequest { chain: "c-1".into(), place, digest, time, by: by(None) })),
        Command::Signing(Signing::Sign(SignRequest { chain: "c-1".into(), place, digest, time, by: by(Some(sentry)) })),
    ]
}

#[test]
fn every_command_is_written_and_read_as_before() {
    let mut now = String::new();
    for command in commands() {
        for byte in prost::Message::encode_to_vec(&proto::Command::from(&command)) {
            write!(now, "{byte:02x}").expect("written");
        }
        writeln!(now, " {command}").expect("written");
    }
    assert_eq!(now, WRITTEN, "members of an earlier version read other bytes; now they are\n{now}");

    let mut kinds = BTreeSet::new();
    for (line, command) in WRITTEN.lines().zip(commands()) {
        let hex = line.split(' ').next().expect("bytes");
        let bytes = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
        let bytes: Vec<u8> = bytes.map(|pair| u8::from_str_radix(pair, 16).expect("a byte")).collect();
        let stored: proto::Command = decode("Command", &bytes).expect("decoded");
        kinds.insert(format!("{:?}", discriminant(stored.command.as_ref().expect("a known one"))));
        assert_eq!(Command::try_from(stored).as_ref(), Ok(&command), "{line}");
    }
    assert_eq!(kinds.len(), 15, "each field of proto::Command has a line: {kinds:?}");
}
