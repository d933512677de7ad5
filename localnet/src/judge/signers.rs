//! Every signature that any host's `baton-signer` made, whoever got to see it, and what was signed: read from what is
//! recorded of the signers' sockets (`stepped-clock/`). Where the log decides what is signed, each place has one content
//! and one time, over all hosts and for all time. And nobody is late: what leaves for the first time is not below what
//! left long before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io;

use anyhow::{Context, Result, bail};
use baton::base::signing::Hrs;
use baton::host::sign_bytes::SignBytes;
use baton::host::signer::frames::proto::{Answer, Request, Signatures, answer, request};
use baton::host::signer::frames::{self, FrameError};

use crate::hosts::clock;
use crate::net::Net;

const HEAD: usize = 17;
/// For how long a request may wait for its signature: two leases of the longest profile that a network has here. A
/// host that was frozen for longer finds it refused.
const LATE_NS: u64 = 6_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub host: String,
    pub place: Hrs,
    pub sign_bytes: Vec<u8>,
    pub signature: Vec<u8>,
    /// By the monotonic clock of the machine that all hosts share.
    pub at_ns: u64,
}

/// What must not have been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub hosts: [String; 2],
    pub height: u64,
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// All so far, of every host.
///
/// # Errors
/// A record is not understood, or a signature was not asked for.
pub fn read(net: &Net) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    for host in net.signers() {
        let file = clock::signer_stream(net, &host.id);
        match fs::read(&file) {
            Ok(records) => made.extend(of_host(&host.id, &records).with_context(|| file.display().to_string())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        }
    }
    Ok(made)
}

/// What a process read and wrote.
#[derive(Default)]
struct Streams {
    read: Vec<u8>,
    written: Vec<u8>,
    /// Up to where it had written, and when.
    written_at: Vec<(usize, u64)>,
}

impl Streams {
    /// When the byte before `end` was written.
    fn at_ns(&self, end: usize) -> u64 {
        let piece = self.written_at.partition_point(|(up_to, _)| *up_to < end);
        self.written_at.get(piece).map_or(0, |(_, at_ns)| *at_ns)
    }
}

fn of_host(host: &str, records: &[u8]) -> Result<Vec<Made>> {
    let mut processes: BTreeMap<[u8; 4], Streams> = BTreeMap::new();
    let mut rest = records;
    while let Some((head, behind)) = rest.split_at_checked(HEAD) {
        let pid: [u8; 4] = head[1..5].try_into()?;
        let length = u32::from_le_bytes(head[5..9].try_into()?) as usize;
        let at_ns = u64::from_le_bytes(head[9..].try_into()?);
        // One that is being written.
        let Some((bytes, behind)) = behind.split_at_checked(length) else { break };
        let streams = processes.entry(pid).or_default();
        match head[0] {
            b'R' => streams.read.extend(bytes),
            b'W' => {
                streams.written.extend(bytes);
                streams.written_at.push((streams.written.len(), at_ns));
            }
            other => bail!("a record of kind {other}"),
        }
        rest = behind;
    }
    let mut made = Vec::new();
    for streams in processes.values() {
        let requests: HashMap<u64, Request> = messages(&streams.read, |stream| frames::read::<Request>(stream))?
            .into_iter()
            .map(|(request, _)| (request.id, request))
            .collect();
        for (Answer { id, answer }, end) in messages(&streams.written, |stream| frames::read(stream))? {
            let Some(answer::Answer::Signatures(Signatures { vote, extension: _ })) = answer else { continue };
            let Some(request::Ask::Sign(sign)) = requests.get(&id).and_then(|request| request.ask.clone()) else {
                bail!("{host}: a signature that was not asked for, answer {id}");
            };
            let place = SignBytes::read(&sign.sign_bytes)?.place;
            let (host, sign_bytes) = (host.into(), sign.sign_bytes);
            made.push(Made { host, place, sign_bytes, signature: vote, at_ns: streams.at_ns(end) });
        }
    }
    Ok(made)
}

/// The whole ones, each with where it ends; a process may end in the midst of one.
fn messages<M>(
    mut stream: &[u8],
    read: impl Fn(&mut &[u8]) -> Result<Option<M>, FrameError>,
) -> Result<Vec<(M, usize)>> {
    let (length, mut found) = (stream.len(), Vec::new());
    loop {
        match read(&mut stream) {
            Ok(Some(message)) => found.push((message, length - stream.len())),
            Ok(None) | Err(FrameError::Cut) => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

/// All by which the log would be judged to have failed.
pub fn wrongs(made: &[Made]) -> Vec<Wrong> {
    [doubles(made), stale(made)].concat()
}

/// Each place at which two contents or times were signed.
pub fn doubles(made: &[Made]) -> Vec<Wrong> {
    let mut first: HashMap<Hrs, &Made> = HashMap::new();
    let mut doubles = Vec::new();
    for one in made {
        let before = *first.entry(one.place).or_insert(one);
        if (&before.sign_bytes, &before.signature) != (&one.sign_bytes, &one.signature) {
            let hosts = [before.host.clone(), one.host.clone()];
            let what = format!("the signers of {} and {} signed two contents at {}", before.host, one.host, one.place);
            doubles.push(Wrong { hosts, height: one.place.height, what });
        }
    }
    doubles
}

/// Each place that was signed for the first time by any host, and long after a higher one. A repeat is none: it is the
/// same to the last byte.
pub fn stale(made: &[Made]) -> Vec<Wrong> {
    let mut in_order: Vec<&Made> = made.iter().collect();
    in_order.sort_by_key(|one| one.at_ns);
    let (mut seen, mut stale) = (HashSet::new(), Vec::new());
    let (mut passed, mut highest) = (0, None::<&Made>);
    for one in &in_order {
        while let Some(before) = in_order.get(passed).filter(|before| before.at_ns + LATE_NS <= one.at_ns) {
            highest = highest.into_iter().chain([*before]).max_by_key(|made| made.place);
            passed += 1;
        }
        let is_first = seen.insert(one.place);
        if let Some(above) = highest.filter(|above| is_first && above.place > one.place) {
            let late_ms = (one.at_ns - above.at_ns) / 1_000_000;
            let what = format!(
                "the signer of {} signed {} for the first time {late_ms} ms after that of {} had signed {}",
                one.host, one.place, above.host, above.place
            );
            let hosts = [above.host.clone(), one.host.clone()];
            stale.push(Wrong { hosts, height: one.place.height, what });
        }
    }
    stale
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton::host::sign_bytes::proto::{SignedMsgType, Timestamp, Vote};
    use baton::host::signer::frames::proto::{Reserve, Sign};

    fn sign_bytes(seconds: i64) -> Vec<u8> {
        let timestamp = Some(Timestamp { seconds, nanos: 0 });
        let vote = Vote {
            r#type: SignedMsgType::Prevote.into(),
            height: 4,
            chain_id: "c".into(),
            timestamp,
            ..Vote::default()
        };
        SignBytes::of_vote(vote).unwrap().bytes()
    }

    fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let at_ns = u64::from(kind);
        [&[kind][..], &7_u32.to_le_bytes(), &(bytes.len() as u32).to_le_bytes(), &at_ns.to_le_bytes(), bytes].concat()
    }

    #[test]
    fn signatures_are_read_with_what_was_asked_and_a_cut_record_is_none() {
        let bytes = sign_bytes(1);
        let reserve = Request { id: 1, ask: Some(request::Ask::Reserve(Reserve { sign_bytes: bytes.clone() })) };
        let sign = Sign { sign_bytes: bytes.clone(), extension: None };
        let sign = Request { id: 2, ask: Some(request::Ask::Sign(sign)) };
        let asked = [frames::encode(&reserve).unwrap(), frames::encode(&sign).unwrap()].concat();
        let signatures = Signatures { vote: vec![9; 64], extension: None };
        let answer = frames::encode(&Answer { id: 2, answer: Some(answer::Answer::Signatures(signatures)) }).unwrap();
        let whole = [record(b'R', &asked[..5]), record(b'R', &asked[5..]), record(b'W', &answer)].concat();
        let made = of_host("host-a", &whole).unwrap();
        let place = Hrs::new(4, 0, Hrs::PREVOTE);
        let expected =
            Made { host: "host-a".into(), place, sign_bytes: bytes, signature: vec![9; 64], at_ns: b'W'.into() };
        assert_eq!(made, [expected]);
        assert_eq!(of_host("host-a", &whole[..whole.len() - 1]).unwrap(), []);
        assert!(of_host("host-a", &record(b'W', &answer)).is_err(), "nobody asked for it");
    }

    #[test]
    fn a_place_below_what_was_signed_long_before_is_stale_unless_it_was_signed_then_as_well() {
        let of = |host: &str, height, at_s: u64| Made {
            host: host.into(),
            place: Hrs::new(height, 0, Hrs::PREVOTE),
            sign_bytes: vec![height as u8],
            signature: Vec::new(),
            at_ns: at_s * 1_000_000_000,
        };
        let none = Vec::<Wrong>::new();
        // The frozen host had signed 4, and signs it again when it thaws, whatever the others have signed since.
        assert_eq!(stale(&[of("a", 4, 1), of("b", 5, 2), of("b", 9, 10), of("a", 4, 31)]), none);
        assert_eq!(stale(&[of("b", 5, 2), of("a", 4, 3)]), none, "side by side");
        let found = stale(&[of("a", 3, 1), of("a", 4, 31), of("b", 5, 2), of("b", 9, 40)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].what.starts_with("the signer of a signed 4/0/2 for the first time 29000 ms after"),
            "{found:?}"
        );
    }

    #[test]
    fn another_time_at_the_same_place_is_a_double_and_the_same_signature_of_two_hosts_is_none() {
        let of = |host: &str, seconds| {
            let sign_bytes = sign_bytes(seconds);
            let place = SignBytes::read(&sign_bytes).unwrap().place;
            Made { host: host.into(), place, sign_bytes, signature: vec![seconds as u8; 64], at_ns: 0 }
        };
        assert_eq!(doubles(&[of("host-a", 1), of("host-b", 1)]), Vec::<Wrong>::new());
        let found = doubles(&[of("host-a", 1), of("host-b", 2)]);
        assert_eq!(found[0].hosts, ["host-a", "host-b"], "{found:?}");
    }
}
