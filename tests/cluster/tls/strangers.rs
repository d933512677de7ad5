//! Whom a member turns away, and whom it does not talk to itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::base::time::BootTime;
use baton::cluster::certificates::Bearer;
use baton::cluster::transport::{BURST_MAX, HANDSHAKE_MAX, HANDSHAKES_MAX};
use baton::operator::admin::Ask;
use baton::operator::order::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tonic::Code;

use super::certs::{
    Certs, LONG, PREFACE, Served, admitted, are_refused, causes, connect, connect_over, eventually, expired, order,
    serve,
};

/// Answers the next order that arrives.
async fn answer_one(served: &mut Served) {
    match timeout(LONG, served.asked.recv()).await.expect("an order in time") {
        Some(Ask::Order { answer, .. }) => answer.send(Ok(Answer::Done("done".into()))).expect("somebody waits"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_member_is_let_in_and_its_order_arrives() {
    let certs = Certs::new();
    let mut b = serve("b", &certs).await;
    assert_eq!(admitted(&b.addr, Some(&certs.of("a")), &certs.files("a").ca).await, Ok(()));
    let (a, addr) = (certs.certificates("a"), b.addr.clone());
    let (said, ()) = tokio::join!(order("a", &a, "b", &addr), answer_one(&mut b));
    assert_eq!(said.expect("an answer"), "done");
    assert_eq!(b.certificates.refused(), 0);
}

#[tokio::test]
async fn nobody_without_a_good_certificate_is_let_in() {
    let (certs, foreign) = (Certs::new(), Certs::new());
    let ca = certs.files("a").ca;
    let b = serve("b", &certs).await;
    certs.issue(&Bearer::member("a").expect("plain"), expired());
    let visitors = [
        (None, "CertificateRequired"),
        (Some(foreign.of("a")), "UnknownCA"),
        (Some(certs.files("a")), "CertificateExpired"),
    ];
    are_refused(&b, &ca, &visitors).await;
}

#[tokio::test]
async fn plaintext_is_not_answered() {
    let certs = Certs::new();
    let b = serve("b", &certs).await;
    let mut stream = TcpStream::connect(&b.addr).await.expect("it listens");
    stream.write_all(PREFACE).await.expect("sent");
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it ends");
    // A TLS alert at most: type 21, and two bytes of what is wrong.
    assert!(answer.is_empty() || answer[0] == 21 && answer.len() == 7, "{answer:?}");
    eventually("it is counted", || b.certificates.refused() == 1).await;
}

#[tokio::test]
async fn a_member_speaks_in_no_other_ones_name() {
    let certs = Certs::new();
    certs.issue(&Bearer::admin("a").expect("plain"), baton::cluster::certificates::Validity::days(5));
    let mut b = serve("b", &certs).await;
    // Member c, with its own good certificate, says that it is a.
    let refused = order("a", &certs.certificates("c"), "b", &b.addr).await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().starts_with("member c speaks as member a"), "{refused}");
    assert!(b.asked.try_recv().is_err(), "nothing of it arrives");
    assert_eq!(admitted(&b.addr, Some(&certs.files("admin-a")), &certs.files("a").ca).await, Ok(()));
}

#[tokio::test]
async fn a_member_talks_to_nobody_but_the_one_it_dials() {
    let certs = Certs::new();
    let mut b = serve("b", &certs).await;
    // The address of c leads to b.
    let refused = causes(&order("a", &certs.certificates("a"), "c", &b.addr).await.expect_err("refused"));
    assert!(refused.contains("is to be member c, but its certificate names member b"), "{refused}");
    assert!(b.asked.try_recv().is_err(), "nothing was said");

    let foreign = Certs::new();
    let mut stranger = serve("b", &foreign).await;
    let refused = causes(&order("a", &certs.certificates("a"), "b", &stranger.addr).await.expect_err("refused"));
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    assert!(stranger.asked.try_recv().is_err(), "nothing was said");
}

/// Passes one connection on to `to`; what the client sent.
async fn recorder(to: String) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let tape = recorded.clone();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        let server = TcpStream::connect(to).await.expect("a server");
        let ((mut said, mut to_client), (mut answered, mut to_server)) = (client.into_split(), server.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut answered, &mut to_client).await });
        let mut buffer = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = said.read(&mut buffer).await {
            tape.lock().expect("no panic in here").extend(&buffer[..bytes]);
            if to_server.write_all(&buffer[..bytes]).await.is_err() {
                return;
            }
        }
    });
    (addr, recorded)
}

#[tokio::test]
async fn what_was_overheard_cannot_be_said_again() {
    let certs = Certs::new();
    let mut b = serve("b", &certs).await;
    let (tapped, tape) = recorder(b.addr.clone()).await;
    let a = certs.certificates("a");
    let (said, ()) = tokio::join!(order("a", &a, "b", &tapped), answer_one(&mut b));
    assert_eq!(said.expect("an answer"), "done");

    let overheard = tape.lock().expect("no panic in here").clone();
    let mut stream = TcpStream::connect(&b.addr).await.expect("it listens");
    stream.write_all(&overheard).await.expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it is ended");
    eventually("it is refused", || b.certificates.refused() == 1).await;
    assert!(b.asked.try_recv().is_err(), "the order has arrived a second time");
}

#[tokio::test]
async fn peers_that_say_nothing_hold_up_nobody() {
    let certs = Certs::new();
    let mut b = serve("b", &certs).await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX + 20 {
        silent.push(TcpStream::connect(&b.addr).await.expect("it listens"));
    }
    let began_at = BootTime::now();
    let (a, addr) = (certs.certificates("a"), b.addr.clone());
    let (said, ()) = tokio::join!(order("a", &a, "b", &addr), answer_one(&mut b));
    let took = BootTime::now().since(began_at);
    assert_eq!(said.expect("an answer"), "done");
    assert!(took < HANDSHAKE_MAX, "it waited for the silent ones: {took:?}");
    // All of them are given up; the last one, which nobody pushes out, because its time is over.
    let mut last = silent.pop().expect("the last one");
    let ended = timeout(HANDSHAKE_MAX + Duration::from_secs(10), last.read(&mut [0; 1])).await;
    assert!(!matches!(ended, Err(_) | Ok(Ok(1..))), "{ended:?}");
    eventually("all are counted", || b.certificates.refused() == HANDSHAKES_MAX as u64 + 20).await;
}

/// A connection to `addr` that comes from 127.0.0.`host`.
async fn connect_from(host: u8, addr: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, host], 0).into()).expect("an address of this host");
    socket.connect(addr.parse().expect("an address")).await.expect("it listens")
}

#[tokio::test]
async fn strangers_take_no_place_from_the_addresses_of_members() {
    let certs = Certs::new();
    let b = serve("b", &certs).await;
    let late = TcpStream::connect(&b.addr).await.expect("it listens");
    let mut strangers = Vec::new();
    for host in 2..22 {
        for _ in 0..10 {
            strangers.push(connect_from(host, &b.addr).await);
        }
    }
    eventually("the oldest strangers are pushed out", || b.certificates.refused() >= 200 - HANDSHAKES_MAX as u64).await;
    let (own, ca) = (certs.of("a"), certs.files("a").ca);
    connect_over(late, Some(&own), &ca).await.expect("the oldest of all is still there");
    assert_eq!(admitted(&b.addr, Some(&own), &ca).await, Ok(()));
}

#[tokio::test]
async fn one_source_begins_no_more_handshakes_than_its_rate_and_a_member_from_elsewhere_does() {
    let certs = Certs::new();
    let b = serve("b", &certs).await;
    let (own, ca) = (certs.of("a"), certs.files("a").ca);
    let mut strangers = Vec::new();
    for _ in 0..3 * BURST_MAX {
        strangers.push(connect_from(2, &b.addr).await);
    }
    // Each that was let begin would be counted only when its time is over.
    eventually("the others are turned away at once", || b.certificates.refused() >= u64::from(BURST_MAX)).await;
    // A member at an address that nobody knows yet is let in, and known from then on.
    let stream = connect_from(3, &b.addr).await;
    connect_over(stream, Some(&own), &ca).await.expect("let in");
    assert_eq!(admitted(&b.addr, Some(&own), &ca).await, Ok(()));
}

#[tokio::test]
async fn a_handshake_waits_for_no_thread_that_carries_the_lease() {
    let certs = Certs::new();
    let b = serve("b", &certs).await;
    let (addr, own, ca) = (b.addr.clone(), certs.of("a"), certs.files("a").ca);
    let (told, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        told.send(runtime.block_on(connect(&addr, Some(&own), &ca)).map(drop))
    });
    // The one thread of this runtime, which serves b, waits here and drives nothing.
    done.recv_timeout(LONG).expect("done in time").expect("a handshake");
}
