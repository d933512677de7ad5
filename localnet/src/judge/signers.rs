//! Every signature that any host's `baton-signer` made, whoever got to see it, and what was signed: read from what is
//! recorded of the signers' sockets (`stepped-clock/`). Where the log decides what is signed, each place has one content
//! and one time, over all hosts and for all time.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;

use anyhow::{Context, Result, bail};
use baton::base::signing::Hrs;
use baton::host::sign_bytes::SignBytes;
use baton::host::signer::frames::proto::{Answer, Request, Signatures, answer, request};
use baton::host::signer::frames::{self, FrameError};

use crate::hosts::clock;
use crate::net::Net;

const HEAD: usize = 9;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub host: String,
    pub place: Hrs,
    pub sign_bytes: Vec<u8>,
    pub signature: Vec<u8>,
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
}

fn of_host(host: &str, records: &[u8]) -> Result<Vec<Made>> {
    let mut processes: BTreeMap<[u8; 4], Streams> = BTreeMap::new();
    let mut rest = records;
    while let Some((head, behind)) = rest.split_at_checked(HEAD) {
        let pid: [u8; 4] = head[1..5].try_into()?;
        let length = u32::from_le_bytes(head[5..].try_into()?) as usize;
        // One that is being written.
        let Some((bytes, behind)) = behind.split_at_checked(length) else { break };
        let streams = processes.entry(pid).or_default();
        match head[0] {
            b'R' => streams.read.extend(bytes),
            b'W' => streams.written.extend(bytes),
            other => bail!("a record of kind {other}"),
        }
        rest = behind;
    }
    let mut made = Vec::new();
    for streams in processes.values() {
        let requests: HashMap<u64, Request> = messages(&streams.read, |stream| frames::read::<Request>(stream))?
            .into_iter()
            .map(|request| (request.id, request))
            .collect();
        for Answer { id, answer } in messages(&streams.written, |stream| frames::read(stream))? {
            let Some(answer::Answer::Signatures(Signatures { vote, extension: _ })) = answer else { continue };
            let Some(request::Ask::Sign(sign)) = requests.get(&id).and_then(|request| request.ask.clone()) else {
                bail!("{host}: a signature that was not asked for, answer {id}");
            };
            let place = SignBytes::read(&sign.sign_bytes)?.place;
            made.push(Made { host: host.into(), place, sign_bytes: sign.sign_bytes, signature: vote });
        }
    }
    Ok(made)
}

/// The whole ones; a process may end in the midst of one.
fn messages<M>(mut stream: &[u8], read: impl Fn(&mut &[u8]) -> Result<Option<M>, FrameError>) -> Result<Vec<M>> {
    let mut found = Vec::new();
    loop {
        match read(&mut stream) {
            Ok(Some(message)) => found.push(message),
            Ok(None) | Err(FrameError::Cut) => return Ok(found),
            Err(error) => return Err(error.into()),
        }
    }
}

/// In words, each place at which two contents or times were signed.
pub fn doubles(made: &[Made]) -> Vec<String> {
    let mut first: HashMap<Hrs, &Made> = HashMap::new();
    let mut doubles = Vec::new();
    for one in made {
        let before = *first.entry(one.place).or_insert(one);
        if (&before.sign_bytes, &before.signature) != (&one.sign_bytes, &one.signature) {
            doubles
                .push(format!("the signers of {} and {} signed two contents at {}", before.host, one.host, one.place));
        }
    }
    doubles
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
        [&[kind][..], &7_u32.to_le_bytes(), &(bytes.len() as u32).to_le_bytes(), bytes].concat()
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
        let expected = Made { host: "host-a".into(), place, sign_bytes: bytes, signature: vec![9; 64] };
        assert_eq!(made, [expected]);
        assert_eq!(of_host("host-a", &whole[..whole.len() - 1]).unwrap(), []);
        assert!(of_host("host-a", &record(b'W', &answer)).is_err(), "nobody asked for it");
    }

    #[test]
    fn another_time_at_the_same_place_is_a_double_and_the_same_signature_of_two_hosts_is_none() {
        let of = |host: &str, seconds| {
            let sign_bytes = sign_bytes(seconds);
            let place = SignBytes::read(&sign_bytes).unwrap().place;
            Made { host: host.into(), place, sign_bytes, signature: vec![seconds as u8; 64] }
        };
        assert_eq!(doubles(&[of("host-a", 1), of("host-b", 1)]), Vec::<String>::new());
        let found = doubles(&[of("host-a", 1), of("host-b", 2)]);
        assert!(found[0].contains("host-a") && found[0].contains("host-b"), "{found:?}");
    }
}
