//! Admins on other machines: what their certificate opens, what it does not, and who else is refused there.

use std::process::Output;

use baton::cluster::transport::{self, Credentials};
use baton::cluster::wire::proto::admin_client::AdminClient;
use baton::cluster::wire::proto::gossip_client::GossipClient;
use baton::cluster::wire::proto::joining_client::JoiningClient;
use baton::cluster::wire::proto::raft_client::RaftClient;
use baton::cluster::wire::proto::relay_client::RelayClient;
use baton::cluster::wire::proto::{
    ExchangeRequest, HandoverResponse, HistoryResponse, IntroduceRequest, MemberChangeResponse, OrderRequest,
    RelayedOrder, SetPause, StatusRequest, StatusResponse, VoteRequest,
};
use baton::config::Tls;
use baton::operator::admin::{self, Ask, Asker, NotDone};
use baton::operator::order::{Answer, Order};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::version::TLS13;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::certs::{
    Certs, LONG, PREFACE, are_refused, baton_with, causes, connect, expired, identity, serve, unhurried,
};

/// `baton` with these arguments, the address and the files in its variables.
async fn asked_by(args: &'static [&'static str], addr: &str, files: &Tls) -> Output {
    let (addr, files) = (addr.to_owned(), files.clone());
    let run = move || {
        let [ca, cert, key] = [&files.ca, &files.cert, &files.key].map(|path| path.to_str().expect("UTF-8"));
        baton_with(args, &[("BATON_ADDR", &addr), ("BATON_CA", ca), ("BATON_CERT", cert), ("BATON_KEY", key)])
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// The one line of a refusal after which nothing was done.
fn refusal(output: &Output) -> &str {
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{output:?}");
    let line = text(&output.stderr).strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "{line}");
    line
}

/// As a driver with a holder; host-x can take no baton.
fn answer(ask: Ask) {
    match ask {
        Ask::Status(to) => drop(to.send(StatusResponse { holder: "host-a".into(), ..StatusResponse::default() })),
        Ask::History(to) => drop(to.send(HistoryResponse::default())),
        Ask::Order { order, from: Asker::Operator, answer } => drop(answer.send(match order {
            Order::Handover(request) if request.to == "host-x" => Err(NotDone::Refused("host-x is not ready".into())),
            Order::Handover(_) => Ok(Answer::Handover(HandoverResponse {
                from: "host-a".into(),
                to: "host-b".into(),
                epoch: 3,
                took_ns: 9_000_000,
                ..HandoverResponse::default()
            })),
            Order::Pause(_) => Ok(Answer::Done("paused".into())),
            Order::Member(_) => {
                let lines = vec!["it is no member any more".into()];
                Ok(Answer::Member(MemberChangeResponse { lines, refused: String::new() }))
            }
            other => panic!("{other:?}"),
        })),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_asks_and_orders_from_any_machine() {
    let certs = Certs::new();
    let b = serve("b", &certs).await;
    let (ops, addr, mut asked) = (certs.of_admin("ops"), b.addr.clone(), b.asked);
    tokio::spawn(async move {
        while let Some(ask) = asked.recv().await {
            answer(ask);
        }
    });
    for (args, code, said) in [
        (&["status", "--json"][..], 1, "\"holder\": \"host-a\""),
        (&["history"], 0, ""),
        (&["handover"], 0, "host-a -> host-b under epoch 3 in 9 ms\n"),
        (&["pause"], 0, "paused\n"),
        (&["member", "remove", "host-c"], 0, "it is no member any more\n"),
        (&["handover", "--to", "host-x"], 1, ""),
    ] {
        let output = asked_by(args, &addr, &ops).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(text(&output.stdout).contains(said), "{args:?}: {output:?}");
    }
    // By flags, `member add` too, which has another --addr.
    let [ca, cert, key] = [ops.ca, ops.cert, ops.key].map(|path| path.to_str().expect("UTF-8").to_owned());
    let by_flags = move || {
        let files = ["--ca", &ca, "--cert", &cert, "--key", &key];
        let pause = baton_with(&[&["pause", "--addr", &addr][..], &files].concat(), &[]);
        let add = ["member", "add", "host-d", "--addr", "10.0.0.4:7401", "--via", &addr];
        (pause, baton_with(&[&add[..], &files].concat(), &[]))
    };
    let (pause, add) = tokio::task::spawn_blocking(by_flags).await.expect("no panic");
    assert_eq!((pause.status.code(), text(&pause.stdout)), (Some(0), "paused\n"), "{pause:?}");
    assert_eq!(add.status.code(), Some(0), "{add:?}");
    assert_eq!(b.certificates.refused(), 0);
}

/// What an admin is told who speaks to the members' services.
fn refused<T>(answer: Result<T, Status>) -> String {
    let status = answer.err().expect("refused");
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    status.message().to_owned()
}

#[tokio::test]
async fn an_admin_reaches_no_service_of_the_members() {
    let certs = Certs::new();
    // In the name of a member as well: nothing of the request is even read.
    certs.of("a");
    let (mut b, ops) = (serve("b", &certs).await, Credentials::read(&certs.of_admin("a")).expect("good files"));
    let channel = ops.call(&b.addr).await.expect("let in");
    let sender = || Some((&identity("a").me()).into());
    let vote = VoteRequest { sender: sender(), ..VoteRequest::default() };
    let exchange = ExchangeRequest { sender: sender(), ..ExchangeRequest::default() };
    let order = Some(OrderRequest { order: Some(Order::Pause(SetPause { on: true, at_ns: 0 })) });
    let relayed = RelayedOrder { sender: sender(), order };
    for (path, message) in [
        ("Raft/Vote", refused(RaftClient::new(channel.clone()).vote(vote.clone()).await)),
        ("Raft/PreVote", refused(RaftClient::new(channel.clone()).pre_vote(vote).await)),
        ("Gossip/Exchange", refused(GossipClient::new(channel.clone()).exchange(exchange).await)),
        ("Relay/Order", refused(RelayClient::new(channel.clone()).order(relayed).await)),
        (
            "Joining/Introduce",
            refused(JoiningClient::new(channel).introduce(IntroduceRequest { sender: sender() }).await),
        ),
    ] {
        let expected =
            format!("admin a asks for /baton.v1.{path}; the certificate of an admin is good for orders alone");
        assert_eq!(message, expected);
    }
    assert!(b.asked.try_recv().is_err(), "nothing of it arrives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_gives_no_orders() {
    let certs = Certs::new();
    let mut b = serve("b", &certs).await;
    let toward = Some(certs.certificates("a").toward(&"b".into()));
    let channel = transport::channel(&b.addr, toward, &unhurried()).expect("an address");
    let mut client = AdminClient::new(channel);
    let reason = "member a gives no orders: they need the certificate of an admin, as baton cert issue --admin NAME \
                  makes it";
    assert_eq!(refused(client.status(StatusRequest {}).await), reason);
    assert_eq!(refused(client.order(OrderRequest { order: None }).await), reason);
    // The command says so before it connects.
    let output = asked_by(&["pause"], &b.addr, &certs.of("a")).await;
    assert!(refusal(&output).contains("a.pem names member a, who gives no orders; name the certificate of an admin"));
    assert!(b.asked.try_recv().is_err(), "nothing of it arrives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_without_a_good_certificate_is_refused() {
    let (certs, foreign) = (Certs::new(), Certs::new());
    let mut b = serve("b", &certs).await;
    let ca = certs.files("a").ca;
    certs.issue(&baton::cluster::certificates::Bearer::admin("old").expect("plain"), expired());
    let visitors = [
        (None, "CertificateRequired"),
        (Some(foreign.of_admin("ops")), "UnknownCA"),
        (Some(certs.files("admin-old")), "CertificateExpired"),
    ];
    are_refused(&b, &ca, &visitors).await;
    // What the command can tell by itself, and what only the connection shows.
    let output = asked_by(&["pause"], &b.addr, &certs.files("admin-old")).await;
    assert!(refusal(&output).ends_with("issue a new one with baton cert issue --admin old --replace"), "{output:?}");
    let mixed = Tls { ca, ..foreign.of_admin("ops") };
    let output = asked_by(&["pause"], &b.addr, &mixed).await;
    assert!(refusal(&output).contains("is not signed by the authority"), "{output:?}");
    let output = asked_by(&["pause"], &b.addr, &foreign.of_admin("ops")).await;
    let at = format!("baton: cannot reach the coordinator at {}: ", b.addr);
    let line = refusal(&output).strip_prefix(&at).expect("its address");
    assert!(line.contains("is not proven to be of this cluster") && line.contains("UnknownIssuer"), "{line}");
    // One that trusts both authorities hears what the member has against it.
    let both = foreign.dir().join("both.pem");
    let authorities = [&certs, &foreign].map(|certs| std::fs::read_to_string(certs.files("a").ca).expect("readable"));
    std::fs::write(&both, authorities.concat()).expect("written");
    let output = asked_by(&["pause"], &b.addr, &Tls { ca: both, ..foreign.of_admin("ops") }).await;
    let line = refusal(&output).strip_prefix(&at).expect("its address");
    assert!(line.contains("it does not take this certificate") && line.contains("UnknownCA"), "{line}");
    assert!(b.asked.try_recv().is_err(), "nothing of it arrives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tls_orders_are_taken_on_the_own_host_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let server = transport::server(&unhurried()).add_service(admin::NotHere);
    tokio::spawn(server.serve_with_incoming(transport::incoming(listener, None, &unhurried())));
    let channel = Endpoint::from_shared(format!("http://{addr}")).expect("an address").connect().await.expect("let in");
    let message = refused(AdminClient::new(channel).status(StatusRequest {}).await);
    assert!(message.starts_with("this coordinator has no [tls], so it takes orders only on its own host"), "{message}");
    let output = asked_by(&["status"], &addr, &Certs::new().of_admin("ops")).await;
    let line = refusal(&output);
    assert!(line.contains("a coordinator without [tls] takes orders on its own host alone"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_gets_no_order_through_under_tls() {
    let certs = Certs::new();
    let mut b = serve("b", &certs).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", b.addr)).expect("an address");
    let client = AdminClient::new(endpoint.connect_lazy()).order(OrderRequest { order: None }).await;
    let refused = client.expect_err("no TLS");
    assert_ne!(refused.code(), Code::InvalidArgument, "it was read: {}", causes(&refused));
    super::certs::eventually("it is counted", || b.certificates.refused() >= 1).await;
    assert!(b.asked.try_recv().is_err(), "nothing of it arrives");
}

/// Waits with TLS for one client, as whoever has `files`.
async fn listen_as(files: &Tls) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let certificates = baton::cluster::certificates::read_certificates(&files.cert).expect("a certificate");
    let key = baton::cluster::certificates::read_key(&files.key).expect("a key");
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .expect("a pair");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        if let Ok(mut stream) = TlsAcceptor::from(std::sync::Arc::new(config)).accept(stream).await {
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    addr
}

#[tokio::test]
async fn an_admin_talks_to_nobody_but_a_member() {
    let certs = Certs::new();
    let ops = Credentials::read(&certs.of_admin("ops")).expect("good files");
    // An authority says of an admin's certificate that it is none of a server.
    let addr = listen_as(&certs.of_admin("other")).await;
    let refused = timeout(LONG, ops.call(&addr)).await.expect("an end").expect_err("no member").to_string();
    assert!(refused.contains("is not proven to be of this cluster"), "{refused}");
    let stranger = serve("b", &Certs::new()).await;
    let refused =
        timeout(LONG, ops.call(&stranger.addr)).await.expect("an end").expect_err("another cluster").to_string();
    assert!(refused.contains("is not proven to be of this cluster"), "{refused}");
}

/// A connection on which the other end has begun to speak.
async fn open(addr: &str, files: &Tls) -> TlsStream<TcpStream> {
    let mut stream = connect(addr, Some(files), &files.ca).await.expect("TLS");
    stream.write_all(PREFACE).await.expect("sent");
    let mut settings = [0; 9];
    timeout(LONG, stream.read_exact(&mut settings)).await.expect("in time").expect("let in");
    timeout(LONG, stream.read_exact(&mut vec![0; settings[2].into()])).await.expect("in time").expect("let in");
    stream
}

/// Whether the other end still answers a PING of HTTP/2.
async fn answers(stream: &mut TlsStream<TcpStream>) -> bool {
    const PING: u8 = 6;
    let asked = async {
        stream.write_all(&[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut body).await?;
            // An answer, and not a question of its own.
            if (head[3], head[4]) == (PING, 1) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    timeout(LONG, asked).await.expect("neither answered nor ended").is_ok()
}

#[tokio::test]
async fn admins_take_no_place_from_a_member_and_make_room_among_themselves() {
    let certs = Certs::new();
    let b = serve("b", &certs).await;
    // It has asked nothing yet, so that it would be the first to make room.
    let mut member = open(&b.addr, &certs.of("a")).await;
    let ops = certs.of_admin("ops");
    let mut admins = Vec::new();
    // More than a member's port has places.
    for _ in 0..130 {
        admins.push(open(&b.addr, &ops).await);
    }
    assert!(answers(&mut member).await, "it was sent away");
    assert!(!answers(&mut admins[0]).await, "the oldest admin still has a place");
    assert!(answers(admins.last_mut().expect("many")).await, "the newest admin has none");
    assert_eq!(b.certificates.refused(), 0);
}

#[tokio::test]
async fn admins_whom_nobody_serves_are_refused_and_counted() {
    let certs = Certs::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let certificates = certs.certificates("b");
    let entrance = transport::Entrance {
        certificates: certificates.clone(),
        admins: mpsc::channel(1).0,
        homes: Default::default(),
    };
    let _incoming = transport::incoming(listener, Some(entrance), &unhurried());
    let ops = Credentials::read(&certs.of_admin("ops")).expect("good files");
    let refused = timeout(LONG, ops.call(&addr)).await.expect("an end").expect_err("nobody serves").to_string();
    assert!(refused.contains("it has closed the connection"), "{refused}");
    super::certs::eventually("it is counted", || certificates.refused() == 1).await;
}
