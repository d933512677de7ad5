//! The coordinator's end: a signer that is always there, and errors that say why when it is not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use baton::base::signing::Hrs;
use baton::host::signer::PublicKey;
use baton::host::signer_client::{ANSWER_MAX, SignerClient, SignerError, SignerSettings, SignerState};
use rustix::process::Signal;
use tokio::time::timeout;

use super::keys::verify;
use super::kit::*;
use crate::guard::harness::SOON;

const PRECOMMIT: u32 = Hrs::PRECOMMIT;

/// Its process once it runs, and is not `other_than`.
async fn running(client: &SignerClient, other_than: Option<u32>) -> (u32, PublicKey) {
    let mut state = client.state();
    let is_new = |state: &SignerState| matches!(state, SignerState::Running { pid, .. } if Some(*pid) != other_than);
    let seen = timeout(SOON, state.wait_for(is_new)).await.expect("a signer in time").expect("a client").clone();
    let SignerState::Running { pid, public_key, .. } = seen else { panic!("{seen:?}") };
    (pid, public_key)
}

/// Why there is none, once it is known.
async fn down(client: &SignerClient, is: impl Fn(&SignerError) -> bool) -> String {
    let mut state = client.state();
    let is_down = |state: &SignerState| matches!(state, SignerState::Down { reason } if is(reason));
    let seen = timeout(SOON, state.wait_for(is_down)).await.expect("it is down in time").expect("a client").clone();
    let SignerState::Down { reason } = seen else { panic!("{seen:?}") };
    reason.to_string()
}

#[tokio::test]
async fn a_client_gets_what_it_asks_for_and_why_not() {
    let place = Place::new();
    let client = SignerClient::start(place.settings());
    let key = client.public_key().await.unwrap();
    assert_eq!(running(&client, None).await.1, key);
    let asked = vote(PRECOMMIT, 5, 0, Some(1));
    assert!(matches!(client.reserve(&asked).await, Err(SignerError::NoMark(_))));
    assert!(matches!(client.sign(&asked, None).await, Err(SignerError::NoMark(_))));
    assert_eq!(client.raise(Hrs::default()).await, Ok(Hrs::default()));
    client.reserve(&asked).await.unwrap();
    let signed = client.sign(&asked, None).await.unwrap();
    verify(&key, &asked.bytes(), &signed.vote);
    assert_eq!((&signed.extension, client.clone().sign(&asked, None).await.as_ref()), (&None, Ok(&signed)));
    let both = client.sign(&asked, Some(extension(5, 0, 7))).await.unwrap();
    assert_eq!(both.vote, signed.vote);
    verify(&key, &extension(5, 0, 7), &both.extension.expect("one was asked for"));
    let other = vote(PRECOMMIT, 5, 0, None);
    assert!(matches!(client.reserve(&other).await, Err(SignerError::Conflict(_))));
    assert!(matches!(client.sign(&vote(PRECOMMIT, 4, 0, None), None).await, Err(SignerError::Stale(_))));
    assert!(matches!(client.sign(&vote_on("c-2", PRECOMMIT, 6, 0, None), None).await, Err(SignerError::OtherChain(_))));
    assert!(matches!(client.sign(&asked, Some(extension(6, 0, 7))).await, Err(SignerError::BadBytes(_))));
    assert_eq!(client.raise(Hrs::new(9, 0, 1)).await, Ok(Hrs::new(9, 0, 1)));
    assert_eq!(client.raise(Hrs::new(8, 0, 1)).await, Ok(Hrs::new(9, 0, 1)));
}

#[tokio::test]
async fn many_requests_at_once_get_their_own_answers() {
    let place = Place::new();
    let client = SignerClient::start(place.settings());
    client.raise(Hrs::default()).await.unwrap();
    let key = client.public_key().await.unwrap();
    let asked = vote(PRECOMMIT, 5, 0, Some(1));
    client.reserve(&asked).await.unwrap();
    let asking = (0..20).map(|content| {
        let (client, asked) = (client.clone(), asked.clone());
        tokio::spawn(async move { client.sign(&asked, Some(extension(5, 0, content))).await })
    });
    for (content, answer) in asking.collect::<Vec<_>>().into_iter().enumerate() {
        let signed = answer.await.unwrap().unwrap();
        verify(&key, &extension(5, 0, content as u8), &signed.extension.unwrap());
    }
}

#[tokio::test]
async fn a_signer_that_is_killed_is_there_again_at_once_with_its_mark() {
    let place = Place::new();
    let client = SignerClient::start(place.settings());
    client.raise(Hrs::default()).await.unwrap();
    let asked = vote(PRECOMMIT, 5, 0, Some(1));
    let signed = client.sign(&asked, None).await.unwrap();
    let (first, _) = running(&client, None).await;
    signal(first, Signal::KILL);
    let (second, _) = running(&client, Some(first)).await;
    assert_eq!(client.sign(&asked, None).await.as_ref(), Ok(&signed));
    assert!(matches!(client.sign(&vote(PRECOMMIT, 5, 0, None), None).await, Err(SignerError::Conflict(_))));
    // Whoever asks while it is being started again waits for it.
    signal(second, Signal::KILL);
    await_death(second);
    let mut again = client.sign(&asked, None).await;
    while let Err(SignerError::Gone(_)) = again {
        running(&client, Some(second)).await;
        again = client.sign(&asked, None).await;
    }
    assert_eq!(again, Ok(signed));
}

#[tokio::test]
async fn a_stopped_signer_costs_a_request_its_time_and_no_more() {
    let place = Place::new();
    let client = SignerClient::start(place.settings());
    client.raise(Hrs::default()).await.unwrap();
    let (pid, _) = running(&client, None).await;
    signal(pid, Signal::STOP);
    let since = std::time::Instant::now();
    assert_eq!(client.sign(&vote(PRECOMMIT, 5, 0, None), None).await, Err(SignerError::TimedOut));
    assert!(since.elapsed() >= ANSWER_MAX);
    signal(pid, Signal::CONT);
    // An answer that came too late is nobody's.
    let asked = vote(PRECOMMIT, 6, 0, Some(1));
    let key = client.public_key().await.unwrap();
    verify(&key, &asked.bytes(), &client.sign(&asked, None).await.unwrap().vote);
}

/// A signer that runs `script`.
fn fake(place: &Place, script: &str) -> SignerSettings {
    let binary: PathBuf = place.dir().join("fake-signer");
    fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&binary, Permissions::from_mode(0o700)).unwrap();
    SignerSettings { binary, ..place.settings() }
}

#[tokio::test]
async fn a_request_in_flight_fails_with_the_signer_and_says_so() {
    let place = Place::new();
    // One that never says a word.
    let client = SignerClient::start(fake(&place, &format!("echo $$ > {}/pid; exec sleep 60", place.dir().display())));
    let pid = async {
        loop {
            let text = fs::read_to_string(place.dir().join("pid")).unwrap_or_default();
            match text.strip_suffix('\n') {
                Some(pid) => break pid.parse().unwrap(),
                None => tokio::time::sleep(ms(2)).await,
            }
        }
    };
    let pid = timeout(SOON, pid).await.expect("the signer starts");
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.public_key().await }
    });
    // The one thread of this runtime: what was asked is on its way when the others had their turns.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    signal(pid, Signal::KILL);
    let error = timeout(SOON, asking).await.expect("in time").unwrap().unwrap_err();
    assert!(matches!(&error, SignerError::Gone(_)), "{error}");
}

#[tokio::test]
async fn a_signer_that_cannot_be_started_or_has_no_key_says_why_until_it_can() {
    let place = Place::new();
    let missing = SignerSettings { binary: place.dir().join("none"), ..place.settings() };
    let client = SignerClient::start(missing);
    let reason = down(&client, |_| true).await;
    assert!(reason.contains("start ") && reason.contains("No such file"), "{reason}");
    drop(client);

    let key = fs::read_to_string(place.key()).unwrap();
    fs::write(place.key(), "{}").unwrap();
    let client = SignerClient::start(place.settings());
    let reason = down(&client, |reason| matches!(reason, SignerError::Key(_))).await;
    assert!(reason.contains("no `priv_key`"), "{reason}");
    let asked = client.public_key().await;
    assert!(matches!(asked, Err(SignerError::Key(_))), "{asked:?}");
    fs::write(place.key(), key).unwrap();
    running(&client, None).await;
    client.public_key().await.unwrap();
}

#[tokio::test]
async fn a_signer_that_speaks_otherwise_is_not_believed() {
    let place = Place::new();
    let client = SignerClient::start(fake(&place, "printf '\\000\\000\\000\\002\\377\\377' >&0; exec sleep 60"));
    let reason = down(&client, |_| true).await;
    assert!(reason.contains("not understood"), "{reason}");
}

#[tokio::test]
async fn the_signer_ends_with_the_last_client() {
    let place = Place::new();
    let client = SignerClient::start(place.settings());
    let (pid, _) = running(&client, None).await;
    let other = client.clone();
    drop(client);
    other.public_key().await.unwrap();
    drop(other);
    let gone = async {
        while lives(pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, gone).await.expect("the signer ends");
}
