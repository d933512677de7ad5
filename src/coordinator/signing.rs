//! Where no chain node has the key: the own chain node's requests to sign are answered by what the log admits.
//!
//! The holder's node is the one that is answered. Its request becomes an entry; the signature is made once that is
//! committed and applied here. Another host's node gets the same signature when it asks for what was admitted, and is
//! held back otherwise, until the holder's node has asked, or its own host holds the baton, or it is refused. So one
//! node decides what is voted, and after a loss the next host's request is waiting already. Safety rests on none of
//! this, but on the log alone (`core/agreed/sign_log.rs`).
//!
//! A sentry, a node that baton does not run, asks the holder, and steps back behind the node that the holder runs: its
//! request becomes an entry when that one has not asked within [`SENTRY_WAITS`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::base::ids::NodeId;
use crate::base::privval_address::PrivvalAddress;
use crate::base::signing::{PublicKey, SignTime};
use crate::base::time::WallTime;
use crate::base::timing::Timing;
use crate::cluster::raft::Consensus;
use crate::cluster::wire::{AppliedState, proto};
use crate::core::Event;
use crate::core::agreed::replicated::{Applied, Command, Signing as Step};
use crate::core::agreed::sign_log::{Requester, SignLog, SignRequest, Verdict};
use crate::core_handle::SharedCore;
use crate::host::privval::{Ask, Link, Privval, PrivvalSettings, Refusal, Signed};
use crate::host::sign_bytes::SignBytes;
use crate::host::signer_client::{SignerClient, SignerError, SignerState};
use crate::operator::metrics::{Metrics, SignOutcome, SignTook};

use super::agreed_key::{against, agreed_key};
use super::sentries::{self, Sentries};
use super::turns::Turns;

/// A signer that ends, or a connection that is lost, for a shorter time costs a holder nothing but that.
const GONE_MAX: Duration = Duration::from_millis(500);
/// A chain node pings its signer every 3.3 s.
const UNASKED_MAX: Duration = Duration::from_secs(7);
const NOBODY_ADMITS: &str = "another host's chain node is the one that is answered, or no quorum is there";
const TOO_LATE: &str = "it was admitted too late to be of use";
/// Nodes of one chain ask within this time of each other, and one vote more late than that is still in time for a block.
const SENTRY_WAITS: Duration = Duration::from_millis(200);
/// Requests of one chain node come one after the other.
const ASKS_MAX: usize = 4;

/// For which chain and with which key this host signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub chain: String,
    pub key: String,
    /// `signer.key`, for people.
    pub file: PathBuf,
}

/// What the reporter tells of it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Signing {
    identity: watch::Receiver<Option<Identity>>,
    signed_at: Arc<Mutex<Option<WallTime>>>,
    sentries: Sentries,
}

impl Signing {
    /// `None` until the signer has told its key.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity.borrow().clone()
    }

    /// When a signature last left this host.
    pub(super) fn signed_at(&self) -> Option<WallTime> {
        *lock(&self.signed_at)
    }

    /// The nodes that this host dials beside its own, while it is Active.
    pub(super) fn sentries(&self) -> Vec<proto::Sentry> {
        self.sentries.seen()
    }
}

/// What the requests of a chain node are answered with.
pub(super) struct Setup {
    pub me: NodeId,
    pub chain: String,
    pub signer: SignerClient,
    /// `signer.key`, which it has opened.
    pub key_file: PathBuf,
    /// Where the chain node waits for its signer.
    pub node: PrivvalSettings,
    /// Nodes that ask while this host is Active.
    pub sentries: Vec<PrivvalAddress>,
    pub timing: Timing,
    pub core: Arc<SharedCore>,
    pub consensus: Consensus,
    pub applied: watch::Receiver<AppliedState>,
    pub metrics: Metrics,
}

/// Answers the chain node until the coordinator ends.
pub(super) fn start(setup: Setup) -> Signing {
    setup.metrics.sees_signing(setup.sentries.iter().map(ToString::to_string));
    let (known, identity) = watch::channel(None);
    let (signed_at, sentries) = (Arc::default(), Sentries::default());
    let signing = Signing { identity, signed_at: Arc::clone(&signed_at), sentries: sentries.clone() };
    let desk = Arc::new(Desk {
        me: setup.me,
        signer: setup.signer,
        // An election and a claim fit in, so that the next holder's request is waiting when its host has won.
        hold_max: setup.timing.lease() * 2,
        core: setup.core,
        consensus: setup.consensus,
        applied: setup.applied,
        proposals: Turns::default(),
        metrics: setup.metrics,
        signed_at,
    });
    let nodes = Nodes { own: setup.node, elsewhere: setup.sentries, sentries };
    tokio::spawn(serve(desk, (setup.chain, setup.key_file), nodes, known));
    signing
}

struct Nodes {
    own: PrivvalSettings,
    elsewhere: Vec<PrivvalAddress>,
    sentries: Sentries,
}

/// Dials the chain nodes once the key is known that they are told of.
async fn serve(
    desk: Arc<Desk>,
    (chain, file): (String, PathBuf),
    nodes: Nodes,
    known: watch::Sender<Option<Identity>>,
) {
    let key = desk.await_key().await;
    let identity = Identity { chain, key: key.to_string(), file };
    info!(chain = %identity.chain, key = %identity.key, "the signer is there");
    known.send_replace(Some(identity.clone()));
    desk.core.step(Event::KeysUnusable { reason: None });
    let (asks_in, mut asks) = mpsc::channel(ASKS_MAX);
    let node = Privval::dial(nodes.own, key.clone(), asks_in);
    tokio::spawn(tell_usable(Arc::clone(&desk), identity, node.link()));
    let (sentries_in, mut sentries_ask) = mpsc::channel(ASKS_MAX);
    let (active, is_active) = watch::channel(false);
    let setup = sentries::Setup {
        addresses: nodes.elsewhere,
        public_key: key,
        asks: sentries_in,
        is_active,
        metrics: desk.metrics.clone(),
    };
    sentries::start(setup, nodes.sentries);
    tokio::spawn(tell_active(Arc::clone(&desk.core), active));
    loop {
        let (ask, is_sentry) = tokio::select! {
            Some(ask) = asks.recv() => (ask, false),
            Some(ask) = sentries_ask.recv() => (ask, true),
            else => return,
        };
        let sentry = is_sentry.then(|| ask.node.clone());
        let by = Requester { host: desk.me.clone(), sentry };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move { desk.answer(ask, by).await });
    }
}

async fn tell_active(core: Arc<SharedCore>, active: watch::Sender<bool>) {
    let mut news = core.news();
    loop {
        let is_active = core.read(|core, _| core.is_active());
        active.send_if_modified(|told| std::mem::replace(told, is_active) != is_active);
        if news.changed().await.is_err() {
            return;
        }
    }
}

struct Desk {
    me: NodeId,
    core: Arc<SharedCore>,
    consensus: Consensus,
    applied: watch::Receiver<AppliedState>,
    signer: SignerClient,
    /// For a request to be admitted.
    hold_max: Duration,
    proposals: Turns,
    metrics: Metrics,
    signed_at: Arc<Mutex<Option<WallTime>>>,
}

impl Desk {
    /// Returns once the signer has told its key.
    async fn await_key(&self) -> PublicKey {
        let mut state = self.signer.state();
        loop {
            let found = match &*state.borrow_and_update() {
                SignerState::Running { public_key, .. } => Ok(public_key.clone()),
                SignerState::Starting => Err("the signer has not said yet that it can sign".to_owned()),
                SignerState::Down { reason } => Err(reason.to_string()),
            };
            match found {
                Ok(key) => return key,
                Err(reason) => self.core.step(Event::KeysUnusable { reason: Some(reason) }),
            }
            // The sender lives as long as the client.
            let _ = state.changed().await;
        }
    }

    async fn answer(self: &Arc<Self>, ask: Ask, by: Requester) {
        let Ask { node, bytes, extension, asked_at, answer } = ask;
        let (place, digest) = (bytes.place, bytes.digest);
        let asker = by.sentry.clone();
        let request = SignRequest { chain: bytes.chain.clone(), place, digest, time: bytes.time, by: Some(by) };
        let (outcome, signed) = match self.admitted(&request, &bytes, asked_at).await {
            None => (SignOutcome::Held, Err(NOBODY_ADMITS.to_owned())),
            Some(verdict) => match Weighed::by(&verdict, bytes.time, asked_at.elapsed() >= self.hold_max) {
                Weighed::Refused => (self.refused_by(&verdict, &request), Err(verdict.to_string())),
                Weighed::TooLate => (SignOutcome::Held, Err(TOO_LATE.to_owned())),
                Weighed::Admitted(time) => match self.sign(&bytes.at(time), extension, asked_at).await {
                    Ok(signed) => (outcome_of(&verdict), Ok(signed)),
                    Err(error) => (SignOutcome::NotSigned, Err(error.to_string())),
                },
            },
        };
        let outcome_said = outcome.as_str();
        let (took, answered) = match signed {
            Ok((signed, took)) => {
                debug!(%node, %place, %digest, outcome = outcome_said, ?took, "signed");
                *lock(&self.signed_at) = Some(WallTime::now());
                (Some(took), Ok(signed))
            }
            Err(reason) => {
                match outcome {
                    SignOutcome::Conflict | SignOutcome::NotSigned | SignOutcome::NotHere => {
                        warn!(%node, %place, %digest, outcome = outcome_said, "not signed: {reason}");
                    }
                    SignOutcome::Granted
                    | SignOutcome::Repeated
                    | SignOutcome::Outvoted
                    | SignOutcome::Stale
                    | SignOutcome::Held => {
                        debug!(%node, %place, %digest, outcome = outcome_said, "not signed: {reason}");
                    }
                }
                (None, Err(Refusal(reason)))
            }
        };
        self.metrics.sign_ended(asker.as_deref(), outcome, took);
        // Whoever asked may have gone meanwhile, and asks again.
        let _ = answer.send(answered);
    }

    /// Every node makes up its own mind: that another one wanted something else is no conflict.
    fn refused_by(&self, verdict: &Verdict, request: &SignRequest) -> SignOutcome {
        let by_another = || {
            let applied = self.applied.borrow();
            applied.replicated.sign_log.as_ref().is_some_and(|log| log.by.is_some() && log.by != request.by)
        };
        match outcome_of(verdict) {
            SignOutcome::Conflict if by_another() => SignOutcome::Outvoted,
            outcome => outcome,
        }
    }

    /// What was admitted is signed.
    async fn sign(
        &self,
        bytes: &SignBytes,
        extension: Option<Vec<u8>>,
        asked_at: Instant,
    ) -> Result<(Signed, SignTook), SignerError> {
        let committed_at = Instant::now();
        let made = match self.signer.sign(bytes, extension.clone()).await {
            // The log knows what was signed before, and this is above all of it.
            Err(SignerError::NoMark(_)) => {
                let mark = self.signer.raise(bytes.place.before()).await?;
                info!(%mark, "the signer has its mark from the log");
                self.signer.sign(bytes, extension).await
            }
            made => made,
        }?;
        let took = SignTook { commit: committed_at - asked_at, sign: committed_at.elapsed() };
        Ok((Signed { time: bytes.time, signature: made.vote, extension: made.extension }, took))
    }

    /// What the log says to `request`; `None` when it has not admitted it in time.
    ///
    /// Invariant: only what is committed and applied here is signed. What was admitted once may be signed at any later
    /// time, since it is the same to the last byte.
    async fn admitted(
        self: &Arc<Self>,
        request: &SignRequest,
        bytes: &SignBytes,
        asked_at: Instant,
    ) -> Option<Verdict> {
        let asked_at = tokio::time::Instant::from_std(asked_at);
        let is_sentry = request.by.as_ref().is_some_and(|by| by.sentry.is_some());
        let (turn, deadline) =
            (asked_at + if is_sentry { SENTRY_WAITS } else { Duration::ZERO }, asked_at + self.hold_max);
        let mut applied = self.applied.clone();
        let mut news = self.core.news();
        loop {
            news.mark_unchanged();
            let verdict = weigh(&applied.borrow_and_update(), request);
            if verdict != Verdict::Granted {
                return Some(verdict);
            }
            let is_its_turn = turn <= tokio::time::Instant::now();
            if is_its_turn && self.core.read(|core, _| core.is_active()) {
                let (desk, theirs) = (Arc::clone(self), (request.clone(), bytes.clone()));
                let proposal = self.proposals.take(async move { desk.propose(&theirs.0, &theirs.1).await });
                match timeout_at(deadline, proposal).await {
                    Ok(Ok(verdict)) => return Some(verdict),
                    // It may be committed all the same, or by another leader.
                    Ok(Err(reason)) => debug!("{reason}"),
                    Err(_) => return None,
                }
            }
            tokio::select! {
                changed = applied.changed() => changed.ok()?,
                changed = news.changed() => changed.ok()?,
                () = sleep_until(turn), if !is_its_turn => {}
                () = sleep_until(deadline) => return None,
            }
        }
    }

    /// The signer writes its mark beside the members that write the entry.
    ///
    /// Invariant: one proposal after the other, each weighed by what the one before came to. Of two at one place, the
    /// signer could mark the one and the log admit the other; then neither would ever be signed.
    async fn propose(&self, request: &SignRequest, bytes: &SignBytes) -> Result<Verdict, String> {
        let verdict = weigh(&self.applied.borrow(), request);
        if verdict != Verdict::Granted {
            return Ok(verdict);
        }
        let command = Command::Signing(Step::Sign(request.clone()));
        let (committed, reserved) = tokio::join!(self.consensus.propose(command), self.signer.reserve(bytes));
        if let Err(error) = reserved {
            // The signature that follows is refused for the same reason, which is then said.
            debug!("{error}");
        }
        match committed? {
            Applied::Weighed(verdict) => Ok(verdict),
            other @ (Applied::Claimed { .. }
            | Applied::Released { .. }
            | Applied::Recorded
            | Applied::Rejected { .. }) => Err(format!("a request to sign came to {other:?}")),
        }
    }
}

/// What the log, as far as it is applied here, says to `request`.
fn weigh(applied: &AppliedState, request: &SignRequest) -> Verdict {
    match &applied.replicated.sign_log {
        Some(log) => log.weigh(request),
        None => Verdict::NotHere { chain: None },
    }
}

/// What becomes of a request that the log has weighed.
#[derive(Debug, PartialEq, Eq)]
enum Weighed {
    /// Signed, with this time.
    Admitted(SignTime),
    Refused,
    /// A host that was frozen has its entry, and others have gone on since.
    TooLate,
}

impl Weighed {
    fn by(verdict: &Verdict, asked_for: SignTime, late: bool) -> Weighed {
        match verdict.admits(asked_for) {
            None => Weighed::Refused,
            Some(_) if late => Weighed::TooLate,
            Some(time) => Weighed::Admitted(time),
        }
    }
}

fn outcome_of(verdict: &Verdict) -> SignOutcome {
    match verdict {
        Verdict::Granted => SignOutcome::Granted,
        Verdict::Repeated { .. } => SignOutcome::Repeated,
        Verdict::Conflict { .. } => SignOutcome::Conflict,
        Verdict::Stale { .. } => SignOutcome::Stale,
        Verdict::NotHere { .. } => SignOutcome::NotHere,
    }
}

/// Tells the core what keeps this host from signing, once that has lasted for [`GONE_MAX`].
async fn tell_usable(desk: Arc<Desk>, identity: Identity, mut link: watch::Receiver<Link>) {
    let (mut signer, mut applied) = (desk.signer.state(), desk.applied.clone());
    let mut admitted = 0;
    let (mut told, mut since) = (None, Instant::now());
    let mut found_before: Option<String> = None;
    loop {
        let log = applied.borrow_and_update().replicated.sign_log.clone();
        if let Some(log) = log.as_ref().filter(|log| !log.closed && log.last.place.height > admitted) {
            admitted = log.last.place.height;
            desk.core.step(Event::Admitted { height: admitted });
        }
        let found = defect(&identity, log.as_ref(), &signer.borrow_and_update(), &link.borrow_and_update());
        if found.is_some() != found_before.is_some() {
            since = Instant::now();
        }
        found_before.clone_from(&found);
        let lasts = found.is_none() || told.is_some() || since.elapsed() >= GONE_MAX;
        if found != told && lasts {
            match &found {
                Some(reason) => warn!("this host signs nothing: {reason}"),
                None => info!("this host can sign"),
            }
            told.clone_from(&found);
            desk.core.step(Event::KeysUnusable { reason: found });
        }
        tokio::select! {
            changed = signer.changed() => if changed.is_err() { return },
            changed = link.changed() => if changed.is_err() { return },
            changed = applied.changed() => if changed.is_err() { return },
            // What lasts too long by then shows without a change.
            () = sleep(GONE_MAX) => {}
        }
    }
}

/// What keeps this host from signing; `None` when nothing does.
fn defect(identity: &Identity, log: Option<&SignLog>, signer: &SignerState, link: &Link) -> Option<String> {
    let Identity { chain, key, file } = identity;
    if let Some(agreed) = agreed_key(log).filter(|agreed| agreed != key) {
        return Some(format!("signer.key {} is the key {key}, {}", file.display(), against(agreed)));
    }
    if let Some(log) = log.filter(|log| !log.closed && log.chain != *chain) {
        return Some(format!("the chain node is one of {chain}, and the cluster has agreed on chain {}", log.chain));
    }
    match signer {
        SignerState::Running { .. } => {}
        SignerState::Starting => return Some("the signer has not said yet that it can sign".to_owned()),
        SignerState::Down { reason } => return Some(reason.to_string()),
    }
    match link {
        Link::Down { why } => Some(format!("the chain node does not wait for its signer: {why}")),
        Link::Waiting { since } if since.elapsed() >= UNASKED_MAX => {
            Some("the chain node asks nothing of this signer: it may be served by another one".to_owned())
        }
        Link::Waiting { .. } | Link::Up { .. } => None,
    }
}

/// No code panics while it holds it.
fn lock(signed_at: &Mutex<Option<WallTime>>) -> MutexGuard<'_, Option<WallTime>> {
    signed_at.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::signing::{Hrs, KeyKind};
    use crate::core::agreed::sign_log::Grant;

    #[test]
    fn what_is_admitted_too_late_is_not_signed() {
        let [asked_for, recorded] = [20, 10].map(|seconds| SignTime { seconds, nanos: 0 });
        let (granted, repeated) = (Verdict::Granted, Verdict::Repeated { time: recorded });
        let stale = Verdict::Stale { last: Hrs::default() };
        assert_eq!(Weighed::by(&granted, asked_for, false), Weighed::Admitted(asked_for));
        assert_eq!(Weighed::by(&repeated, asked_for, false), Weighed::Admitted(recorded));
        for verdict in [granted, repeated] {
            assert_eq!(Weighed::by(&verdict, asked_for, true), Weighed::TooLate, "{verdict}");
        }
        for late in [false, true] {
            assert_eq!(Weighed::by(&stale, asked_for, late), Weighed::Refused);
        }
    }

    #[test]
    fn a_key_or_a_chain_that_is_not_the_agreed_one_is_told_with_its_file() {
        let (chain, file) = ("c-1".to_owned(), PathBuf::from("/etc/baton/key.json"));
        let own = Identity { chain, key: "ed25519:A".into(), file };
        let public_key = PublicKey { kind: KeyKind::Ed25519, bytes: vec![0; 32] };
        let signer = SignerState::Running { pid: 1, since: WallTime::now(), public_key };
        let told = |chain: &str, key: &str, closed| {
            let last = Grant { place: Hrs::default(), digest: None, time: SignTime { seconds: 0, nanos: 0 } };
            let log = SignLog { chain: chain.into(), key: key.into(), last, by: None, closed };
            defect(&own, Some(&log), &signer, &Link::Up { since: Instant::now() })
        };
        assert_eq!(told("c-1", "ed25519:A", false), None);
        let of_key = "signer.key /etc/baton/key.json is the key ed25519:A, and the cluster has agreed on ed25519:B; put \
                      the file of that key there";
        assert_eq!(told("c-1", "ed25519:B", false).as_deref(), Some(of_key));
        let of_chain = "the chain node is one of c-1, and the cluster has agreed on chain c-2";
        assert_eq!(told("c-2", "ed25519:A", false).as_deref(), Some(of_chain));
        assert_eq!(told("c-2", "ed25519:B", true), None, "nothing is signed here any more");
    }
}
