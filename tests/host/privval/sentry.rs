//! Over `tcp://`: a chain node's side made by the same crate, and whoever else may listen there.

use cometbft_p2p::rand_core::OsRng;
use cometbft_p2p::{AsyncReadMsg as _, AsyncSecretConnection, AsyncWriteMsg as _, IdentitySecret};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A dialler, and who decides what it signs.
struct Far {
    _privval: Privval,
    link: tokio::sync::watch::Receiver<Link>,
    asks: mpsc::Receiver<Ask>,
}

impl Far {
    async fn dialling(node: &TcpListener) -> Far {
        keep_logs();
        let address = PrivvalAddress::Tcp(node.local_addr().expect("bound").to_string());
        let (wanted, asks) = mpsc::channel(1);
        let key = PublicKey { kind: KeyKind::Ed25519, bytes: vec![5; 32] };
        let privval = Privval::dial(PrivvalSettings { address, node: "sentry".into() }, key, wanted);
        Far { link: privval.link(), _privval: privval, asks }
    }

    async fn until_down(&mut self, expected: &str) {
        let is_down = |link: &Link| matches!(link, Link::Down { why } if why.contains(expected));
        let found = timeout(SOON, self.link.wait_for(is_down)).await.is_ok_and(|link| link.is_ok());
        assert!(found, "not told that it is down with {expected:?}: {:?}", self.link.borrow());
    }

    async fn next_ask(&mut self) -> Ask {
        timeout(SOON, self.asks.recv()).await.expect("nothing was asked").expect("the dialler ended")
    }
}

async fn listening() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

async fn accept(node: &TcpListener) -> TcpStream {
    timeout(SOON, node.accept()).await.expect("nobody dialled").expect("accepted").0
}

async fn served(node: &TcpListener) -> AsyncSecretConnection<TcpStream> {
    let key = IdentitySecret::generate(&mut OsRng);
    let stream = accept(node).await;
    timeout(SOON, AsyncSecretConnection::new(stream, &key)).await.expect("in time").expect("a handshake")
}

async fn say(signer: &mut AsyncSecretConnection<TcpStream>, sum: Sum) {
    timeout(SOON, signer.write_msg(Message { sum: Some(sum) })).await.expect("read").expect("written");
}

async fn hear(signer: &mut AsyncSecretConnection<TcpStream>) -> Option<Sum> {
    let message: Result<Message, _> = timeout(SOON, signer.read_msg()).await.expect("no answer");
    message.ok().map(|message| message.sum.expect("an empty message"))
}

#[tokio::test]
async fn a_sentry_is_answered_in_order_whatever_the_length_of_its_requests() {
    let node = listening().await;
    let mut far = Far::dialling(&node).await;
    let mut signer = served(&node).await;
    // Of more than one frame of 1,024 bytes, and with the next ones behind it.
    let long = [7; 5000];
    say(&mut signer, sign_vote(precommit(&long))).await;
    say(&mut signer, sign_vote(vote(Kind::Prevote, None))).await;
    say(&mut signer, ping()).await;
    let first = far.next_ask().await;
    assert_eq!((first.node.as_str(), first.bytes.place.step), ("sentry", 3));
    assert!(first.extension.as_ref().is_some_and(|bytes| bytes.len() > long.len()), "{:?}", first.extension);
    first.answer.send(signed(Some(b"of the extension"))).expect("awaited");
    far.next_ask().await.answer.send(signed(None)).expect("awaited");
    for kind in [Kind::Precommit, Kind::Prevote] {
        match hear(&mut signer).await {
            Some(Sum::SignedVoteResponse(response)) => {
                let vote = response.vote.expect("signed");
                assert_eq!((vote.r#type(), vote.signature), (kind, b"signature".to_vec()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(hear(&mut signer).await, Some(Sum::PingResponse(proto::PingResponse {})));
    assert!(matches!(*far.link.borrow(), Link::Up { .. }), "{:?}", far.link.borrow());
}

#[tokio::test]
async fn a_sentry_that_goes_is_dialled_again_and_its_request_is_dropped() {
    let node = listening().await;
    let mut far = Far::dialling(&node).await;
    for _ in 0..2 {
        let mut signer = served(&node).await;
        say(&mut signer, sign_vote(vote(Kind::Prevote, None))).await;
        let mut ask = far.next_ask().await;
        drop(signer);
        timeout(SOON, ask.answer.closed()).await.expect("nobody waits for that answer any more");
    }
    let mut signer = served(&node).await;
    say(&mut signer, ping()).await;
    assert_eq!(hear(&mut signer).await, Some(Sum::PingResponse(proto::PingResponse {})));
}

#[tokio::test]
async fn whoever_shakes_no_hands_gets_nothing_and_is_dialled_again() {
    let node = listening().await;
    let mut far = Far::dialling(&node).await;
    let silent = accept(&node).await;
    far.until_down("within 3s").await;
    drop(silent);
    let mut garbage = accept(&node).await;
    garbage.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n bytes for a whole first message").await.expect("written");
    far.until_down("no handshake with a chain node at 127.0.0.1").await;
    drop(garbage);
    let mut signer = served(&node).await;
    say(&mut signer, ping()).await;
    assert_eq!(hear(&mut signer).await, Some(Sum::PingResponse(proto::PingResponse {})));
    let address = node.local_addr().expect("bound");
    drop((node, signer));
    far.until_down(&format!("no chain node is reached at {address}")).await;
}

/// As one whose host is lost: no end of the connection is ever seen.
#[tokio::test]
async fn a_sentry_that_falls_silent_is_cut_off_and_dialled_again() {
    let node = listening().await;
    let mut far = Far::dialling(&node).await;
    let mut silent = served(&node).await;
    say(&mut silent, ping()).await;
    assert_eq!(hear(&mut silent).await, Some(Sum::PingResponse(proto::PingResponse {})));
    far.until_down("it has said nothing for 10s").await;
    assert_eq!(hear(&mut silent).await, None);
    let mut signer = served(&node).await;
    say(&mut signer, ping()).await;
    assert_eq!(hear(&mut signer).await, Some(Sum::PingResponse(proto::PingResponse {})));
}
