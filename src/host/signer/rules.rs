//! What the signer does: which request moves its mark, which one gets a signature, and which none. It knows no clock, no
//! lease and no other host.
//!
//! Invariant: whatever a signature was given for is on the disk already, as the mark or below it.

use std::cmp::Ordering;
use std::path::Path;

use super::frames::proto::request::Ask;
use super::frames::proto::{self, RefusedKind};
use super::key::SigningKey;
use super::mark::{Mark, MarkFile};
use crate::base::signing::{Hrs, PublicKey, SignDigest};
use crate::host::sign_bytes::{SignBytes, check_extension};

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusedKind,
    pub text: String,
}

impl Refusal {
    fn new(kind: RefusedKind, text: impl ToString) -> Refusal {
        Refusal { kind, text: text.to_string() }
    }
}

impl From<Refusal> for proto::Refused {
    fn from(refusal: Refusal) -> proto::Refused {
        proto::Refused { kind: refusal.kind.into(), text: refusal.text }
    }
}

pub struct Signer {
    key: Box<SigningKey>,
    public: PublicKey,
    mark: MarkFile,
}

impl Signer {
    /// # Errors
    /// `Key` or `Mark`: one of the two cannot be used.
    pub fn open(key: &Path, mark: &Path) -> Result<Signer, Refusal> {
        // The mark first: whoever may not sign needs no key in its memory.
        let mark = MarkFile::open(mark).map_err(|error| Refusal::new(RefusedKind::Mark, error))?;
        let key = SigningKey::read(key).map_err(|error| Refusal::new(RefusedKind::Key, error))?;
        Ok(Signer::new(key, mark))
    }

    pub fn new(key: SigningKey, mark: MarkFile) -> Signer {
        let key = Box::new(key);
        Signer { public: key.public(), key, mark }
    }

    pub fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    /// Where the mark is.
    pub fn place(&self) -> Option<Hrs> {
        self.mark.kept().map(|mark| mark.place)
    }

    /// Does what is asked, or refuses it and changes nothing.
    pub fn answer(&mut self, request: proto::Request) -> proto::Answer {
        let answer = match request.ask {
            Some(ask) => self.perform(ask),
            None => Err(Refusal::new(RefusedKind::BadBytes, "the request asks for nothing that this version knows")),
        };
        let answer = answer.unwrap_or_else(|refusal| proto::answer::Answer::Refused(refusal.into()));
        proto::Answer { id: request.id, answer: Some(answer) }
    }

    fn perform(&mut self, ask: Ask) -> Result<proto::answer::Answer, Refusal> {
        match ask {
            Ask::PublicKey(proto::PublicKeyRequest {}) => {
                Ok(proto::answer::Answer::PublicKey(self.public_key().into()))
            }
            Ask::Reserve(proto::Reserve { sign_bytes }) => {
                self.reserve(&read(&sign_bytes)?)?;
                Ok(proto::answer::Answer::Reserved(proto::Reserved {}))
            }
            Ask::Sign(proto::Sign { sign_bytes, extension }) => {
                let vote = read(&sign_bytes)?;
                if let Some(extension) = &extension {
                    check_extension(extension, &vote).map_err(|error| Refusal::new(RefusedKind::BadBytes, error))?;
                }
                self.reserve(&vote)?;
                Ok(proto::answer::Answer::Signatures(proto::Signatures {
                    vote: self.key.sign(&sign_bytes),
                    extension: extension.map(|extension| self.key.sign(&extension)),
                }))
            }
            Ask::Raise(proto::Raise { place }) => {
                let mark = self.raise(place.map(Hrs::from))?;
                Ok(proto::answer::Answer::Raised(proto::Raised { mark: Some(mark.into()) }))
            }
        }
    }

    /// The mark is at `asked`, with its content, on the disk.
    fn reserve(&mut self, asked: &SignBytes) -> Result<(), Refusal> {
        let refuse = |kind, text: String| Err(Refusal::new(kind, text));
        let Some(mark) = self.mark.kept() else {
            return refuse(RefusedKind::NoMark, "no mark yet: import one, so that nothing is signed twice".into());
        };
        if let Some(chain) = mark.chain.as_ref().filter(|chain| **chain != asked.chain) {
            return refuse(RefusedKind::OtherChain, format!("chain {:?}; the mark is of {chain:?}", asked.chain));
        }
        if has_to_move(mark, asked.place, asked.digest)? {
            let (chain, place, digest) = (Some(asked.chain.clone()), asked.place, Some(asked.digest));
            self.advance(Mark { chain, place, digest })?;
        }
        Ok(())
    }

    /// Where the mark is now: at `place`, or above it already.
    fn raise(&mut self, place: Option<Hrs>) -> Result<Hrs, Refusal> {
        let place = place.filter(is_possible).ok_or_else(|| {
            Refusal::new(RefusedKind::BadBytes, "a mark that is no height, round and step of a chain")
        })?;
        match self.mark.kept() {
            Some(mark) if mark.place >= place => Ok(mark.place),
            kept => {
                let chain = kept.and_then(|mark| mark.chain.clone());
                self.advance(Mark { chain, place, digest: None })?;
                Ok(place)
            }
        }
    }

    fn advance(&mut self, mark: Mark) -> Result<(), Refusal> {
        self.mark.advance(mark).map_err(|error| Refusal::new(RefusedKind::Mark, error))
    }
}

/// Whether the mark has to be at `place`, with this content, before it is signed.
///
/// # Errors
/// The mark is above it, or at it with another content: it is not signed.
pub fn has_to_move(mark: &Mark, place: Hrs, digest: SignDigest) -> Result<bool, Refusal> {
    match place.cmp(&mark.place) {
        Ordering::Greater => Ok(true),
        Ordering::Equal if mark.digest == Some(digest) => Ok(false),
        Ordering::Equal => {
            let had = mark.digest.map_or("content that is not known".into(), |digest| format!("content {digest}"));
            let text = format!("{place}: {had} is marked there, not {digest}");
            Err(Refusal::new(RefusedKind::Conflict, text))
        }
        Ordering::Less => {
            let text = format!("{place} is below the mark, which is at {}", mark.place);
            Err(Refusal::new(RefusedKind::Stale, text))
        }
    }
}

fn read(sign_bytes: &[u8]) -> Result<SignBytes, Refusal> {
    SignBytes::read(sign_bytes).map_err(|error| Refusal::new(RefusedKind::BadBytes, error))
}

/// The chain counts heights in 63 bits and rounds in 31.
fn is_possible(place: &Hrs) -> bool {
    i64::try_from(place.height).is_ok() && i32::try_from(place.round).is_ok() && place.step <= Hrs::PRECOMMIT
}
