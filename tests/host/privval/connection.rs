//! When the connection is made, lost and made again, and in which order and time it answers.

use std::os::unix::net::UnixListener as StdListener;
use std::time::Instant;

use baton::host::privval::ANSWER_MAX;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::*;

#[tokio::test]
async fn a_node_is_dialled_when_it_comes_and_when_it_comes_again() {
    let stage = Stage::new();
    let why = stage.until("nobody listens", |link| *link != Link::Down { why: "not dialled yet".into() }).await;
    assert!(matches!(&why, Link::Down { why } if why.contains("no chain node listens at")), "{why:?}");
    for _ in 0..3 {
        let node = FakeNode::at(&stage.socket());
        let began = Instant::now();
        let mut signer = node.accept().await;
        let dialled = began.elapsed();
        assert!(dialled < Duration::from_secs(3), "dialled after {dialled:?}: a node waits for 3 s");
        stage.until("nothing was asked yet", |link| matches!(link, Link::Waiting { .. })).await;
        assert_eq!(signer.answer_to(ping()).await, Sum::PingResponse(proto::PingResponse {}));
        stage.until("the node asks", |link| matches!(link, Link::Up { .. })).await;
        drop((node, signer));
        std::fs::remove_file(stage.socket()).expect("the socket");
        let why = stage.until("the node is gone", |link| matches!(link, Link::Down { .. })).await;
        assert!(matches!(&why, Link::Down { why } if why.contains("chain node")), "{why:?}");
    }
}

#[tokio::test]
async fn a_node_that_drops_the_connection_is_dialled_again() {
    let (mut stage, node, mut signer) = Stage::connected().await;
    for _ in 0..3 {
        signer.ask(sign_vote(precommit(b""))).await;
        let ask = stage.next_ask().await;
        drop(signer);
        let began = Instant::now();
        signer = node.accept().await;
        let dialled = began.elapsed();
        assert!(dialled < Duration::from_secs(3), "{dialled:?}: a node that ended and starts again waits for 3 s");
        let mut answer = ask.answer;
        timeout(SOON, answer.closed()).await.expect("nobody waits for that answer any more");
    }
    signer.ask(sign_vote(vote(Kind::Prevote, None))).await;
    stage.next_ask().await.answer.send(signed(None)).expect("awaited");
    assert_eq!(signer.vote_answer().await.error, None);
}

#[tokio::test]
async fn requests_are_answered_in_order_and_one_at_a_time() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    signer.ask(sign_vote(vote(Kind::Prevote, Some(block())))).await;
    signer.ask(sign_vote(precommit(b""))).await;
    signer.ask(ping()).await;
    let first = stage.next_ask().await;
    assert_eq!(first.bytes.place.step, 2);
    let early = timeout(Duration::from_millis(200), stage.asks.recv()).await;
    assert!(early.is_err(), "asked before the first one was answered: {early:?}");
    first.answer.send(signed(None)).expect("awaited");
    stage.next_ask().await.answer.send(signed(Some(b"of the extension"))).expect("awaited");
    let kinds = [Kind::Prevote, Kind::Precommit];
    for kind in kinds {
        assert_eq!(signer.vote_answer().await.vote.expect("signed").r#type(), kind);
    }
    let last = signer.hear().await.expect("closed").sum;
    assert_eq!(last, Some(Sum::PingResponse(proto::PingResponse {})));
}

/// No node does this: what it says meanwhile waits in the socket, not in the memory of the coordinator.
#[tokio::test]
async fn a_node_that_says_ever_more_while_it_waits_is_read_no_further() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    signer.ask(sign_vote(vote(Kind::Prevote, None))).await;
    let ask = stage.next_ask().await;
    // A ping with a field of 1,000 bytes that nobody knows.
    let long_ping = [&[0xee, 0x07, 0x3a, 0xeb, 0x07, 0x7a, 0xe8, 0x07][..], &[1; 1000]].concat();
    let (reading, mut writing) = signer.stream.into_split();
    let mut said = tokio::spawn(async move { writing.write_all(&long_ping.repeat(4000)).await.map(|()| writing) });
    let early = timeout(Duration::from_millis(500), &mut said).await;
    assert!(early.is_err(), "4 MiB were read while an answer was awaited");
    ask.answer.send(signed(None)).expect("awaited");
    let (mut reading, mut unread, mut chunk) = (reading, FrameBuffer::default(), vec![0; 64 << 10]);
    let mut answers = 0;
    while answers < 4001 {
        let read = timeout(SOON, reading.read(&mut chunk)).await.expect("an answer").expect("read");
        assert!(read > 0, "closed after {answers} answers");
        unread.push(&chunk[..read]);
        while let Some(answer) = unread.take().expect("a message") {
            assert!(answers == 0 || answer.sum == Some(Sum::PingResponse(proto::PingResponse {})), "{answer:?}");
            answers += 1;
        }
    }
    said.await.expect("no panic").expect("all was read");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_refusal_before_the_node_gives_up() {
    let (mut stage, _node, mut signer) = Stage::connected().await;
    let began = Instant::now();
    signer.ask(sign_vote(vote(Kind::Prevote, None))).await;
    let mut ask = stage.next_ask().await;
    assert_eq!(signer.vote_answer().await.error, refused("baton has no signature within 4s"));
    let took = began.elapsed();
    assert!(took >= ANSWER_MAX, "{took:?}");
    timeout(SOON, ask.answer.closed()).await.expect("nobody waits any more");
    // Of the next one nobody takes note: the queue of this stage has room for one.
    signer.ask(sign_vote(vote(Kind::Prevote, None))).await;
    assert_eq!(signer.vote_answer().await.error, refused("baton has no signature within 4s"));
    signer.ask(sign_vote(vote(Kind::Precommit, None))).await;
    assert_eq!(signer.vote_answer().await.error, refused("baton has no signature within 4s"));
    assert_eq!(signer.answer_to(ping()).await, Sum::PingResponse(proto::PingResponse {}));
}

#[tokio::test]
async fn nonsense_closes_the_connection_and_the_next_one_is_served() {
    let (_stage, node, mut signer) = Stage::connected().await;
    let too_long = [0x80, 0x80, 0x80, 0x80, 0x10];
    let garbage = [5, 0xff, 0xff, 0xff, 0xff, 0xff];
    let no_length = [0xff; 10];
    for (bytes, expected) in [
        (&too_long[..], "its message of 4294967296 bytes is longer than 2097152"),
        (&garbage, "is no message of a chain node to its signer"),
        (&no_length, "is no message of a chain node to its signer"),
    ] {
        signer.say(bytes).await;
        assert_eq!(signer.hear().await, None, "{expected}");
        signer = node.accept().await;
        let said = logged();
        assert!(said.lines().last().is_some_and(|line| line.contains("WARN") && line.contains(expected)), "{said}");
    }
    assert_eq!(signer.answer_to(ping()).await, Sum::PingResponse(proto::PingResponse {}));
}

#[tokio::test]
async fn a_message_comes_in_pieces_or_its_connection_is_closed() {
    let (stage, node, mut signer) = Stage::connected().await;
    let bytes = encode(&Message { sum: Some(ping()) });
    for byte in &bytes {
        signer.say(std::slice::from_ref(byte)).await;
        tokio::task::yield_now().await;
    }
    assert!(signer.hear().await.is_some());
    signer.say(&bytes[..1]).await;
    assert_eq!(signer.hear().await, None, "half a message");
    let mut signer = node.accept().await;
    assert_eq!(signer.answer_to(ping()).await, Sum::PingResponse(proto::PingResponse {}));
    drop(stage);
}

#[tokio::test]
async fn the_log_has_one_line_when_the_node_asks_and_one_when_it_is_gone() {
    let stage = Stage::new();
    stage.until("nobody listens", |link| matches!(link, Link::Down { why } if why.starts_with("no chain node"))).await;
    for _ in 0..2 {
        let node = FakeNode::at(&stage.socket());
        let mut signer = node.accept().await;
        for _ in 0..3 {
            signer.answer_to(ping()).await;
        }
        std::fs::remove_file(stage.socket()).expect("the socket");
        // A connection that lives for longer than a moment is told of each time.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        drop((node, signer));
        stage.until("it is gone", |link| matches!(link, Link::Down { .. })).await;
        stage
            .until("nobody listens", |link| matches!(link, Link::Down { why } if why.starts_with("no chain node")))
            .await;
    }
    let up = " INFO the chain node asks this coordinator for its signatures node=\"gaiad\"";
    let gone = " INFO the chain node has closed its connection node=\"gaiad\"";
    assert_eq!(logged().lines().collect::<Vec<_>>(), [up, gone, up, gone]);
}

#[tokio::test]
async fn it_ends_with_its_handle() {
    let (mut stage, node, mut signer) = Stage::connected().await;
    signer.ask(sign_vote(vote(Kind::Prevote, None))).await;
    let mut ask = stage.next_ask().await;
    stage.privval = None;
    assert_eq!(signer.hear().await, None);
    timeout(SOON, ask.answer.closed()).await.expect("nobody waits any more");
    let again = timeout(Duration::from_millis(300), node.listener.accept()).await;
    assert!(again.is_err(), "dialled again");
}

#[tokio::test]
async fn a_node_of_another_user_is_not_served() {
    const OTHER: u32 = 1977;
    if !geteuid().is_root() {
        println!("skipped: only root can listen as another user");
        return;
    }
    let mut stage = Stage::new();
    std::fs::set_permissions(stage.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let path = stage.socket();
    // The users of a thread are its own; that of the connection is the one that listens.
    let listening = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(OTHER), Gid::from_raw(OTHER));
        set_thread_res_gid(group, group, group).expect("another group");
        set_thread_res_uid(user, user, user).expect("another user");
        StdListener::bind(path).expect("bind")
    });
    let listener = listening.join().expect("a listener");
    let expected = format!("user {OTHER} listens at {}; only a chain node of user 0", stage.socket().display());
    stage.until("refused", |link| matches!(link, Link::Down { why } if why.starts_with(&expected))).await;
    let (mut stream, _) = listener.accept().expect("it was dialled");
    let read = std::io::Read::read(&mut stream, &mut [0; 1]).expect("closed");
    assert_eq!((read, stage.asks.try_recv().is_err()), (0, true));
}
