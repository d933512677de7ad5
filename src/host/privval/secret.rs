//! `tcp://`: messages over CometBFT's SecretConnection.
//!
//! It keeps what is said from everybody between the two ends, and says nothing about who they are: a node makes a new
//! key at each start, and asks whoever dials it.

use std::io;
use std::time::Duration;

use cometbft_p2p::rand_core::OsRng;
use cometbft_p2p::{AsyncReadMsg as _, AsyncSecretConnection, AsyncSecretWriter, AsyncWriteMsg as _, IdentitySecret};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::{Channel, Lost};
use super::proto::Message;

/// For the connection, and once more for the handshake.
const DIAL_MAX: Duration = Duration::from_secs(3);
/// A chain node pings its signer every 3.3 s: one that says nothing for so long is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Secret {
    writer: AsyncSecretWriter<TcpStream>,
    /// What the crate reads is lost when that is cancelled, so a task of its own reads.
    heard: mpsc::Receiver<Result<Message, Lost>>,
    _reading: JoinSet<()>,
}

/// # Errors
/// In words, why nobody is there.
pub(super) async fn dial(endpoint: &str) -> Result<Secret, String> {
    let stream = match timeout(DIAL_MAX, TcpStream::connect(endpoint)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("no chain node is reached at {endpoint}: {error}")),
        Err(_) => return Err(format!("no chain node is reached at {endpoint} within {DIAL_MAX:?}")),
    };
    stream.set_nodelay(true).map_err(|error| format!("the connection to {endpoint}: {error}"))?;
    let own = IdentitySecret::generate(&mut OsRng);
    let connection = match timeout(DIAL_MAX, AsyncSecretConnection::new(stream, &own)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(format!("no handshake with a chain node at {endpoint}: {}", in_words(error))),
        Err(_) => return Err(format!("no handshake with a chain node at {endpoint} within {DIAL_MAX:?}")),
    };
    let (mut reader, writer) = connection.split();
    let (told, heard) = mpsc::channel(1);
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        loop {
            let message = reader.read_msg().await.map_err(|error| lost("it cannot be read", error));
            let is_last = message.is_err();
            if told.send(message).await.is_err() || is_last {
                return;
            }
        }
    });
    Ok(Secret { writer, heard, _reading: reading })
}

impl Channel for Secret {
    async fn next(&mut self) -> Result<Message, Lost> {
        match timeout(SILENCE_MAX, self.heard.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => Err(Lost::Closed),
            Err(_) => Err(Lost::Broken(format!("it has said nothing for {SILENCE_MAX:?}"))),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Lost> {
        self.writer.write_msg(message).await.map_err(|error| lost("an answer could not be written", error))
    }
}

fn lost(what: &str, error: cometbft_p2p::Error) -> Lost {
    match error {
        cometbft_p2p::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Lost::Closed,
        cometbft_p2p::Error::Io(error) => Lost::by(what, &error),
        error => Lost::Broken(format!("{what}: {}", in_words(error))),
    }
}

/// With the cause, which the crate keeps beside its own words.
fn in_words(error: cometbft_p2p::Error) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
