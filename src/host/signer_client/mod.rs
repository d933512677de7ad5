//! The coordinator's end of the signer: starts `baton-signer`, starts it again when it ends, and asks it. It decides
//! nothing: which request may be signed is the log's matter, and in the end the signer's.
//!
//! One task owns the process and everybody who waits for an answer (`supervise.rs`); a client only sends it requests.

mod process;
mod supervise;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::base::guard_frame::LinesAs;
use crate::base::signing::Hrs;
use crate::base::time::WallTime;
use crate::host::sign_bytes::SignBytes;
use crate::host::signer::PublicKey;
use crate::host::signer::frames::proto::{self, RefusedKind, answer, request};

/// For the answer to a request: whoever asked hears of a signer that hangs.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Requests that wait to be sent. A chain asks for three a second.
const QUEUE_MAX: usize = 64;

#[derive(Clone, Debug)]
pub struct SignerSettings {
    /// `default_binary()` unless a test says otherwise.
    pub binary: PathBuf,
    /// The validator's key file.
    pub key: PathBuf,
    /// The signer's mark, in a directory that is there.
    pub mark: PathBuf,
    /// How the signer writes its lines, on our standard error.
    pub lines_as: LinesAs,
}

/// Signatures of a vote or proposal, and of the extension that was asked for with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures {
    pub vote: Vec<u8>,
    pub extension: Option<Vec<u8>>,
}

/// How the signer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerState {
    /// It was started for the first time and has not said yet that it can sign.
    Starting,
    Running {
        pid: u32,
        since: WallTime,
        public_key: PublicKey,
    },
    /// It ended, or could not be started; it is started again, and this holds until it can sign.
    Down {
        reason: SignerError,
    },
}

/// Why there is no answer. After `Gone`, `TimedOut` and `Mark` the mark may have moved to what was asked for; asking for
/// the same again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    #[error("the signer refuses: {0}")]
    Conflict(String),
    #[error("the signer refuses: {0}")]
    Stale(String),
    #[error("the signer refuses: {0}")]
    NoMark(String),
    #[error("the signer refuses: {0}")]
    OtherChain(String),
    #[error("the signer refuses: {0}")]
    BadBytes(String),
    #[error("the signer cannot use its mark: {0}")]
    Mark(String),
    #[error("the signer cannot use its key: {0}")]
    Key(String),
    #[error("the signer is gone: {0}")]
    Gone(String),
    #[error("the signer gave no answer within {ANSWER_MAX:?}")]
    TimedOut,
    /// It is of another version, or broken.
    #[error("the signer gave an answer that is none: {0}")]
    Garbled(String),
}

impl From<proto::Refused> for SignerError {
    fn from(refused: proto::Refused) -> SignerError {
        let kind = refused.kind();
        let text = refused.text;
        match kind {
            RefusedKind::Conflict => SignerError::Conflict(text),
            RefusedKind::Stale => SignerError::Stale(text),
            RefusedKind::NoMark => SignerError::NoMark(text),
            RefusedKind::OtherChain => SignerError::OtherChain(text),
            RefusedKind::BadBytes => SignerError::BadBytes(text),
            RefusedKind::Mark => SignerError::Mark(text),
            RefusedKind::Key => SignerError::Key(text),
            RefusedKind::Unknown => SignerError::Garbled(format!("refused for a reason that we do not know: {text}")),
        }
    }
}

type Answered = Result<answer::Answer, SignerError>;

/// A request, and whom to answer.
struct Asked {
    ask: request::Ask,
    answer: oneshot::Sender<Answered>,
}

/// Cheap to clone. The signer ends with the last clone, and with this process.
#[derive(Clone, Debug)]
pub struct SignerClient {
    asked: mpsc::Sender<Asked>,
    state: watch::Receiver<SignerState>,
}

impl SignerClient {
    /// Starts the signer, and keeps one running. To be called in a runtime.
    pub fn start(settings: SignerSettings) -> SignerClient {
        let (asked, queue) = mpsc::channel(QUEUE_MAX);
        let (tell, state) = watch::channel(SignerState::Starting);
        tokio::spawn(supervise::run(settings, queue, tell));
        SignerClient { asked, state }
    }

    /// How it is, now and at every change.
    pub fn state(&self) -> watch::Receiver<SignerState> {
        self.state.clone()
    }

    /// # Errors
    /// The signer has not said it.
    pub async fn public_key(&self) -> Result<PublicKey, SignerError> {
        match self.ask(request::Ask::PublicKey(proto::PublicKeyRequest {})).await? {
            answer::Answer::PublicKey(key) => key.try_into().map_err(SignerError::Garbled),
            other => Err(unasked(&other)),
        }
    }

    /// Afterwards the signer's mark is at `bytes`, on its disk: nothing else is signed there, nor anything below. Nothing
    /// is signed by it.
    ///
    /// # Errors
    /// As [`SignerError`] says.
    pub async fn reserve(&self, bytes: &SignBytes) -> Result<(), SignerError> {
        match self.ask(request::Ask::Reserve(proto::Reserve { sign_bytes: bytes.bytes() })).await? {
            answer::Answer::Reserved(proto::Reserved {}) => Ok(()),
            other => Err(unasked(&other)),
        }
    }

    /// The signature of `bytes`, and that of the bytes of a vote extension along with it.
    ///
    /// # Errors
    /// As [`SignerError`] says; no signature has left the signer but where the answer came too late.
    pub async fn sign(&self, bytes: &SignBytes, extension: Option<Vec<u8>>) -> Result<Signatures, SignerError> {
        let extended = extension.is_some();
        match self.ask(request::Ask::Sign(proto::Sign { sign_bytes: bytes.bytes(), extension })).await? {
            answer::Answer::Signatures(proto::Signatures { vote, extension }) if extension.is_some() == extended => {
                Ok(Signatures { vote, extension })
            }
            other => Err(unasked(&other)),
        }
    }

    /// Where the signer's mark is afterwards, which is at `place` or above: nothing is signed below it any more.
    ///
    /// # Errors
    /// As [`SignerError`] says.
    pub async fn raise(&self, place: Hrs) -> Result<Hrs, SignerError> {
        match self.ask(request::Ask::Raise(proto::Raise { place: Some(place.into()) })).await? {
            answer::Answer::Raised(proto::Raised { mark: Some(mark) }) => Ok(mark.into()),
            other => Err(unasked(&other)),
        }
    }

    async fn ask(&self, ask: request::Ask) -> Answered {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            let over = || SignerError::Gone("nobody looks after it any more".into());
            self.asked.send(Asked { ask, answer }).await.map_err(|_| over())?;
            answered.await.map_err(|_| over())?
        };
        timeout(ANSWER_MAX, asking).await.unwrap_or(Err(SignerError::TimedOut))
    }
}

/// `baton-signer` beside the running executable.
///
/// # Errors
/// The system does not tell which executable runs.
pub fn default_binary() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("baton-signer"))
}

fn unasked(answer: &answer::Answer) -> SignerError {
    let what = match answer {
        answer::Answer::PublicKey(_) => "a public key",
        answer::Answer::Reserved(_) => "Reserved",
        answer::Answer::Signatures(_) => "signatures of something else",
        answer::Answer::Raised(_) => "Raised",
        answer::Answer::Refused(_) => "a refusal",
    };
    SignerError::Garbled(format!("{what} for another question"))
}

/// The state that an answer to nobody tells of: the first one of a process.
fn first_words(answer: proto::Answer, pid: u32) -> Result<SignerState, SignerError> {
    match answer.answer {
        Some(answer::Answer::PublicKey(key)) => {
            let public_key = key.try_into().map_err(SignerError::Garbled)?;
            Ok(SignerState::Running { pid, since: WallTime::now(), public_key })
        }
        Some(answer::Answer::Refused(refused)) => Err(refused.into()),
        Some(other) => Err(unasked(&other)),
        None => Err(SignerError::Garbled("it began with nothing".into())),
    }
}
