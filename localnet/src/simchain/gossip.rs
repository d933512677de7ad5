//! The sockets between nodes: frames of a big-endian length and so many bytes of JSON. Dials every configured peer
//! for ever, accepts whoever comes, and closes a connection on the first bad message or after a silence.
//! What a frame means is `node.rs`'s business.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::message::BadMessage;
use super::node::{Node, Now, QUEUE};

/// A batch of blocks of a large validator set fits well.
const FRAME_MAX: usize = 4 << 20;

/// Heads are announced so often, which also keeps connections alive.
pub const ANNOUNCE_EVERY: Duration = Duration::from_millis(500);

/// A connection on which nothing came for so long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(2);

const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

pub type Shared = Rc<RefCell<Node>>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("nothing came for {SILENCE_MAX:?}")]
    Silent,
    #[error("frame of {0} bytes, at most {FRAME_MAX} are allowed")]
    TooLong(usize),
    #[error("bad message: {0}")]
    Bad(#[from] BadMessage),
}

pub async fn accept(listener: TcpListener, node: Shared) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let node = node.clone();
                spawn_local(async move { converse(stream, from, &node).await });
            }
            // Out of descriptors or a connection that died in the queue: neither gets better by trying at once.
            Err(_) => sleep(BACKOFF_MIN).await,
        }
    }
}

/// Keeps a connection to `addr` as long as the process lives.
pub async fn dial(addr: SocketAddr, node: Shared) {
    let mut backoff = BACKOFF_MIN;
    loop {
        if let Ok(Ok(stream)) = timeout(DIAL_TIMEOUT, TcpStream::connect(addr)).await
            && converse(stream, addr, &node).await
        {
            backoff = BACKOFF_MIN;
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Returns when the connection is closed; true when at least one good frame came over it.
async fn converse(stream: TcpStream, addr: SocketAddr, node: &Shared) -> bool {
    // A connection whose latency is unknown still works; the option cannot fail on a live one.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (outbox, queue) = mpsc::channel(QUEUE);
    let writing = spawn_local(write_frames(writer, queue));
    let conn = node.borrow_mut().attach(outbox);
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut useful = false;
    let closed = loop {
        let frame = match timeout(SILENCE_MAX, read_frame(&mut reader)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(closed)) => break closed,
            Err(_) => break Closed::Silent,
        };
        if let Err(bad) = node.borrow_mut().on_frame(conn, &frame, Now::read()) {
            break bad.into();
        }
        useful = true;
    };
    writing.abort();
    let mut node = node.borrow_mut();
    node.detach(conn);
    match closed {
        Closed::Bad(BadMessage::Overrun) | Closed::Io(_) | Closed::Silent => {}
        Closed::Bad(_) | Closed::TooLong(_) => {
            node.counters.bad_messages += 1;
            node.note(format_args!("closed the connection with {addr}: {closed}"));
        }
    }
    useful
}

async fn read_frame(reader: &mut BufReader<OwnedReadHalf>) -> Result<Vec<u8>, Closed> {
    let length = reader.read_u32().await? as usize;
    if length > FRAME_MAX {
        return Err(Closed::TooLong(length));
    }
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Ends when the connection fails or the node lets go of the outbox. Frames that wait together go out together.
async fn write_frames(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Rc<[u8]>>) {
    let mut waiting = Vec::new();
    let mut bytes = Vec::new();
    while queue.recv_many(&mut waiting, 64).await > 0 {
        bytes.clear();
        for frame in waiting.drain(..) {
            bytes.extend((frame.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&frame);
        }
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
