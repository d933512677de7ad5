//! Who this member is to its peers, and whom it listens to.
//!
//! Invariant: a member whose store was wiped or copied has forgotten promises and votes. Nothing that
//! it says counts as a vote or an acknowledgement once its first incarnation was recorded. A copy that still has its
//! original's incarnation is told by [`sessions`].

mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::ids::NodeId;
use crate::base::time::BootTime;
use crate::base::timing::Timing;
use crate::cluster::certificates::Bearer;
use crate::cluster::transport::{Speaker, Visitor};
use crate::cluster::wire::{AppliedState, KNOWS, PROTOCOL, Sender, Session};
use crate::core::agreed::members::Members;
use sessions::{Heard, Sessions};

pub struct Identity {
    cluster: String,
    me: NodeId,
    incarnation: u64,
    session: Session,
    known: Known,
    /// `None` where processes are not told apart.
    sessions: Option<Sessions>,
    /// `Sender::knows` of the newest message of every member that spoke since the start.
    heard: Mutex<BTreeMap<NodeId, u32>>,
    /// Who called last from another cluster of this name.
    rival: watch::Sender<Option<NodeId>>,
    /// Under the name of each member, what was refused last, and when.
    refused: Mutex<BTreeMap<NodeId, (BootTime, String)>>,
}

/// How long a refusal counts. Who lives and is refused is so once a second, by gossip; see `gossip::EXCHANGE_EVERY`.
const REFUSAL_COUNTS_FOR: Duration = Duration::from_secs(15);

/// What a member knows of the others.
pub struct Known {
    /// In this host's configuration. Counts until the log has a membership.
    pub listed: BTreeSet<NodeId>,
    /// By this member's log.
    pub members: watch::Receiver<Arc<Members>>,
    /// With the incarnations of founders, and who they were.
    pub applied: watch::Receiver<AppliedState>,
}

impl Known {
    /// A cluster that is not formed yet, of `listed`.
    pub fn listed(listed: impl IntoIterator<Item = NodeId>) -> Known {
        Known {
            listed: listed.into_iter().collect(),
            members: watch::channel(Arc::default()).1,
            applied: watch::channel(AppliedState::default()).1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error("{member} belongs to cluster {theirs:?}, this is {ours:?}; check cluster.name and the addresses")]
    OtherCluster { member: NodeId, theirs: String, ours: String },
    #[error("{member} speaks protocol {theirs}, this is {PROTOCOL}; upgrade the older one")]
    OtherProtocol { member: NodeId, theirs: u32 },
    #[error("{0} is not a member of this cluster; baton member list shows who is, baton member add takes it in")]
    NotAMember(NodeId),
    #[error("two coordinators run as member {0}; give each its own member.id, and check the addresses")]
    SecondSelf(NodeId),
    #[error("{bearer} speaks as member {member}; a certificate speaks for its own member alone")]
    OtherCertificate { member: NodeId, bearer: Bearer },
    #[error("nothing is known of the connection over which {0} speaks")]
    NoConnection(NodeId),
    #[error("{got} answers where {expected} should; check the addresses in cluster.members")]
    Impostor { expected: NodeId, got: NodeId },
    #[error(
        "{member} came with the store {got:016x} but joined with {joined:016x}: it was wiped or copied, and may have \
         forgotten a vote; remove the member from the cluster and add it again"
    )]
    OtherStore { member: NodeId, joined: u64, got: u64 },
    #[error(
        "another process speaks for {member} (start {known} of its store, and this is start {start}): one of the two has \
         a copy of the other's store and certificate; stop it, and remove what was copied"
    )]
    SecondProcess { member: NodeId, start: u64, known: u64 },
}

impl Identity {
    pub fn new(cluster: &str, me: NodeId, incarnation: u64, known: Known) -> Identity {
        let session = Session::default();
        Identity {
            cluster: cluster.to_string(),
            me,
            incarnation,
            session,
            known,
            sessions: None,
            heard: Mutex::default(),
            rival: watch::Sender::default(),
            refused: Mutex::default(),
        }
    }

    /// This process's `start`th: it says so, and listens to one process a member from now on.
    pub fn in_session(self, start: u64, timing: &Timing) -> Identity {
        let session = Session { number: rand::random_range(1..=u64::MAX), start };
        Identity { session, sessions: Some(Sessions::new(timing)), ..self }
    }

    /// What an operator should know of who speaks for other members, one a line.
    pub fn warnings(&self, now: BootTime) -> Vec<String> {
        self.sessions.as_ref().map(|sessions| sessions.warnings(now)).unwrap_or_default()
    }

    /// Why this member does not listen to who speaks as `member`, or answers at its address. Of one that it `hears`, a
    /// second process under its name is told by [`Identity::warnings`].
    pub fn refused(&self, member: &NodeId, hears: bool, now: BootTime) -> Option<String> {
        let noted = self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(member).cloned();
        let noted = noted.filter(|(at, _)| now.since(*at) < REFUSAL_COUNTS_FOR).map(|(_, why)| why);
        noted.or_else(|| self.sessions.as_ref().filter(|_| !hears)?.refused(member, now))
    }

    /// Keeps what an operator has to know of `member`; the rest of what is refused is somebody else's or passes by
    /// itself.
    fn noted<T>(&self, member: &NodeId, checked: Result<T, Stranger>) -> Result<T, Stranger> {
        match &checked {
            Err(why @ (Stranger::OtherStore { .. } | Stranger::Impostor { .. } | Stranger::OtherCluster { .. })) => {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                // Names that nobody knows are not collected.
                if self.knows(member) {
                    refused.insert(member.clone(), (BootTime::now(), why.to_string()));
                }
            }
            Err(
                Stranger::OtherProtocol { .. }
                | Stranger::NotAMember(_)
                | Stranger::SecondSelf(_)
                | Stranger::OtherCertificate { .. }
                | Stranger::NoConnection(_)
                | Stranger::SecondProcess { .. },
            )
            | Ok(_) => {}
        }
        checked
    }

    fn admit(&self, sender: &Sender, heard: Heard) -> Result<(), Stranger> {
        self.sessions.as_ref().map_or(Ok(()), |sessions| sessions.admit(sender, heard, BootTime::now()))?;
        if self.knows(&sender.member) {
            let mut told = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            told.insert(sender.member.clone(), sender.knows);
        }
        Ok(())
    }

    /// What `member` can read in a log, by its newest message; `None` while it has sent none since the start.
    pub fn known_by(&self, member: &NodeId) -> Option<u32> {
        if *member == self.me {
            return Some(KNOWS);
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(member).copied()
    }

    pub fn member(&self) -> &NodeId {
        &self.me
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What this member signs its messages with.
    pub fn me(&self) -> Sender {
        Sender {
            cluster: self.cluster.clone(),
            member: self.me.clone(),
            incarnation: self.incarnation,
            protocol: PROTOCOL,
            session: self.session,
            knows: KNOWS,
            founders: number_of(&self.known.applied.borrow().replicated.founders),
        }
    }

    /// Marked as changed with every call from a cluster of this name that other members formed.
    pub fn rivals(&self) -> watch::Receiver<Option<NodeId>> {
        self.rival.subscribe()
    }

    /// A request that this member gets because the other one has it in its list. Nobody else's list is ours.
    fn note_rival(&self, sender: &Sender) {
        let ours = self.me().founders;
        if self.check_kin(sender).is_ok() && ours != 0 && sender.founders != 0 && sender.founders != ours {
            self.rival.send_replace(Some(sender.member.clone()));
        }
    }

    /// As [`Identity::check`], for a request of `visitor`.
    pub fn check_request(&self, sender: &Sender, visitor: &Visitor) -> Result<(), Stranger> {
        check_speaker(sender, visitor)?;
        self.note_rival(sender);
        self.noted(&sender.member, self.check(sender))?;
        self.admit(sender, Heard::Asking)?;
        visitor.is_a_member();
        Ok(())
    }

    /// As [`Identity::check_raft`], for a request of `visitor`.
    pub fn check_raft_request(&self, sender: &Sender, visitor: &Visitor) -> Result<(), Stranger> {
        check_speaker(sender, visitor)?;
        self.note_rival(sender);
        self.noted(&sender.member, self.check_raft(sender))?;
        self.admit(sender, Heard::Asking)?;
        visitor.is_a_member();
        Ok(())
    }

    /// As [`Identity::check_kin`], for a request of `visitor`, who need not be a member.
    pub fn check_kin_request(&self, sender: &Sender, visitor: &Visitor) -> Result<(), Stranger> {
        check_speaker(sender, visitor)?;
        self.check_kin(sender)
    }

    /// # Errors
    /// Why what `sender` says must not count.
    pub fn check(&self, sender: &Sender) -> Result<(), Stranger> {
        let member = sender.member.clone();
        self.check_kin(sender)?;
        if !self.knows(&member) {
            return Err(Stranger::NotAMember(member));
        }
        match self.joined_with(&member) {
            Some(joined) if joined != sender.incarnation => {
                Err(Stranger::OtherStore { member, joined, got: sender.incarnation })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// As [`Identity::check`], for a request of Raft. The log of this member may lack the entry that added the
    /// sender, and it may be the sender alone that can bring it: so a stranger passes when this member knows
    /// nobody yet, or when the same founders formed the cluster of both. What it may do then is for Raft to say.
    ///
    /// # Errors
    /// As [`Identity::check`].
    pub fn check_raft(&self, sender: &Sender) -> Result<(), Stranger> {
        match self.check(sender) {
            Err(Stranger::NotAMember(_)) if !self.is_formed() => Ok(()),
            Err(Stranger::NotAMember(_)) if sender.founders != 0 && sender.founders == self.me().founders => Ok(()),
            checked => checked,
        }
    }

    /// Whether `sender` is another process of this cluster and this version, member or not.
    ///
    /// # Errors
    /// What it is instead.
    pub fn check_kin(&self, sender: &Sender) -> Result<(), Stranger> {
        let member = sender.member.clone();
        if sender.cluster != self.cluster {
            let (theirs, ours) = (sender.cluster.clone(), self.cluster.clone());
            return Err(Stranger::OtherCluster { member, theirs, ours });
        }
        if sender.protocol != PROTOCOL {
            return Err(Stranger::OtherProtocol { member, theirs: sender.protocol });
        }
        if member == self.me {
            return Err(Stranger::SecondSelf(member));
        }
        Ok(())
    }

    fn is_formed(&self) -> bool {
        !self.known.members.borrow().all.is_empty()
    }

    fn knows(&self, member: &NodeId) -> bool {
        let members = self.known.members.borrow();
        if members.all.is_empty() { self.known.listed.contains(member) } else { members.all.contains_key(member) }
    }

    /// The incarnation that `member` is known by, for what others relay of it; `None` before its first
    /// one is recorded.
    pub fn joined_with(&self, member: &NodeId) -> Option<u64> {
        let added = self.known.members.borrow().all.get(member).and_then(|member| member.incarnation);
        added.or_else(|| self.known.applied.borrow().replicated.incarnations.get(member).copied())
    }

    /// As [`Identity::check`], for somebody who was addressed as `expected`.
    pub fn check_from(&self, sender: &Sender, expected: &NodeId) -> Result<(), Stranger> {
        if sender.member != *expected {
            let why = Stranger::Impostor { expected: expected.clone(), got: sender.member.clone() };
            return self.noted(expected, Err(why));
        }
        self.noted(expected, self.check(sender))?;
        self.admit(sender, Heard::Answering)
    }
}

/// FNV-1a over the names; zero for nobody.
fn number_of(founders: &BTreeSet<NodeId>) -> u64 {
    if founders.is_empty() {
        return 0;
    }
    let bytes = founders.iter().flat_map(|id| id.as_str().bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)).max(1)
}

/// What the certificate of the other end names is what it is: a `sender` of another name is refused.
fn check_speaker(sender: &Sender, visitor: &Visitor) -> Result<(), Stranger> {
    let member = sender.member.clone();
    match visitor.speaker() {
        Some(Speaker::Unproven) => Ok(()),
        Some(Speaker::Proven(Bearer::Member(id))) if *id == member => Ok(()),
        Some(Speaker::Proven(bearer)) => Err(Stranger::OtherCertificate { member, bearer: bearer.clone() }),
        None => Err(Stranger::NoConnection(member)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Role;
    use crate::core::agreed::members::Member;
    use crate::core::agreed::replicated::Replicated;

    fn names(names: &str) -> BTreeSet<NodeId> {
        names.split(' ').map(NodeId::from).collect()
    }

    /// a, in a log of `members`, of whom d was added with the store 4; b joined with the store 7.
    fn identity(members: &str) -> Identity {
        let member = |id: &NodeId| {
            let incarnation = (id.as_str() == "d").then_some(4);
            (id.clone(), Member { addr: format!("{id}:1"), role: Role::Validator, priority: 1, incarnation })
        };
        let all = names(members).iter().map(member).collect();
        let members = Members { voters: vec![names(members)], all };
        let incarnations = [("b".into(), 7), ("d".into(), 5)].into();
        let replicated = Replicated { incarnations, founders: names("a b c"), ..Replicated::default() };
        let applied = AppliedState { replicated: Arc::new(replicated), ..AppliedState::default() };
        let known = Known {
            listed: names("a b c e"),
            members: watch::channel(Arc::new(members)).1,
            applied: watch::channel(applied).1,
        };
        Identity::new("net", "a".into(), 1, known)
    }

    fn sender(member: &str, incarnation: u64) -> Sender {
        let (cluster, session) = ("net".into(), Session::default());
        Sender { cluster, member: member.into(), incarnation, protocol: PROTOCOL, founders: 0, session, knows: 0 }
    }

    #[test]
    fn a_member_with_another_store_than_it_joined_with_is_refused() {
        let identity = identity("a b c");
        assert_eq!(identity.check(&sender("b", 7)), Ok(()));
        assert!(matches!(identity.check(&sender("b", 8)), Err(Stranger::OtherStore { .. })));
        assert_eq!(identity.check(&sender("c", 8)), Ok(()), "not recorded yet");
    }

    #[test]
    fn what_was_refused_under_a_members_name_is_told_for_a_while() {
        let identity = identity("a b c");
        let (b, c) = (NodeId::from("b"), NodeId::from("c"));
        let told = |member: &NodeId, after| identity.refused(member, false, BootTime::now() + after);
        let _ = identity.check_request(&sender("b", 7), &Speaker::Unproven.into());
        assert_eq!(told(&b, Duration::ZERO), None);
        let _ = identity.check_request(&sender("b", 8), &Speaker::Unproven.into());
        assert!(told(&b, Duration::ZERO).is_some_and(|why| why.contains("it was wiped or copied")));
        assert_eq!(told(&b, REFUSAL_COUNTS_FOR), None);
        let _ = identity.check_from(&sender("b", 7), &c);
        assert!(told(&c, Duration::ZERO).is_some_and(|why| why.starts_with("b answers where c should")));
        let _ = identity.check_request(&sender("x", 1), &Speaker::Unproven.into());
        assert_eq!(told(&"x".into(), Duration::ZERO), None, "nobody's names are collected");
    }

    #[test]
    fn a_certificate_speaks_for_its_own_member_alone() {
        let identity = identity("a b c");
        let of = |bearer| Visitor::from(Speaker::Proven(bearer));
        let check = |visitor: Visitor| identity.check_request(&sender("b", 7), &visitor);
        assert_eq!(check(of(Bearer::Member("b".into()))), Ok(()));
        assert_eq!(check(Speaker::Unproven.into()), Ok(()), "without TLS");
        for other in [Bearer::Member("c".into()), Bearer::Member("a".into()), Bearer::Admin("b".into())] {
            let refused = Err(Stranger::OtherCertificate { member: "b".into(), bearer: other.clone() });
            assert_eq!(check(of(other)), refused);
        }
        assert_eq!(check(Visitor::default()), Err(Stranger::NoConnection("b".into())));
    }

    #[test]
    fn the_store_that_an_operator_added_counts_and_not_the_one_before_it() {
        let identity = identity("a b d");
        assert_eq!(identity.check(&sender("d", 4)), Ok(()));
        for before in [identity.check(&sender("d", 5)), identity.check_raft(&sender("d", 5))] {
            assert!(matches!(before, Err(Stranger::OtherStore { joined: 4, got: 5, .. })));
        }
    }

    #[test]
    fn once_the_log_has_members_it_counts_and_no_longer_the_configuration() {
        assert!(matches!(identity("a b d").check(&sender("e", 1)), Err(Stranger::NotAMember(_))));
        let unformed = Identity::new("net", "a".into(), 1, Known::listed(names("a e")));
        assert_eq!(unformed.check(&sender("e", 1)), Ok(()));
        assert!(matches!(unformed.check(&sender("x", 1)), Err(Stranger::NotAMember(_))));
        assert_eq!(unformed.check_raft(&sender("x", 1)), Ok(()), "who brings the log may be new to it");
    }

    #[test]
    fn raft_listens_to_a_stranger_of_the_same_founders_and_to_no_other() {
        let identity = identity("a b c");
        let of = |founders: &str| Sender { founders: number_of(&names(founders)), ..sender("x", 1) };
        assert_eq!(identity.check_raft(&of("a b c")), Ok(()), "it was added while a was away");
        assert!(matches!(identity.check_raft(&of("a x y")), Err(Stranger::NotAMember(_))), "of another cluster");
        assert!(matches!(identity.check_raft(&sender("x", 1)), Err(Stranger::NotAMember(_))), "it does not say");
        assert!(matches!(identity.check(&of("a b c")), Err(Stranger::NotAMember(_))), "for all but Raft");
    }

    #[test]
    fn who_calls_from_another_cluster_of_this_name_is_told_and_nobody_else() {
        let identity = identity("a b c");
        let rivals = identity.rivals();
        let call = |sender: &Sender| {
            let _ = identity.check_raft_request(sender, &Speaker::Unproven.into());
        };
        let of = |founders: &str| Sender { founders: number_of(&names(founders)), ..sender("b", 7) };
        call(&of("a b c"));
        call(&sender("b", 7));
        call(&Sender { cluster: "other".into(), ..of("a x y") });
        assert!(!rivals.has_changed().unwrap(), "{:?}", *rivals.borrow());
        call(&of("a b"));
        assert_eq!(*rivals.borrow(), Some("b".into()));
    }

    #[test]
    fn what_a_member_can_read_is_what_it_said_last_itself() {
        let identity = identity("a b c");
        let says = |member: &str, knows| {
            let sender = Sender { knows, ..sender(member, 7) };
            let _ = identity.check_from(&sender, &member.into());
            identity.known_by(&member.into())
        };
        assert_eq!(identity.known_by(&"a".into()), Some(KNOWS));
        assert_eq!(identity.known_by(&"b".into()), None, "it has said nothing yet");
        assert_eq!(says("b", 1), Some(1));
        assert_eq!(says("b", 0), Some(0), "an older baton was put back");
        assert_eq!(says("b", 9), Some(9), "a later one");
        assert_eq!(says("x", 1), None, "it is no member");
        let other_store = Sender { knows: 1, ..sender("b", 8) };
        assert!(identity.check_from(&other_store, &"b".into()).is_err());
        assert_eq!(identity.known_by(&"b".into()), Some(9), "what another store says does not count");
    }

    #[test]
    fn strangers_and_a_second_self_are_refused() {
        let identity = identity("a b c");
        let foreign = Sender { cluster: "other".into(), ..sender("b", 7) };
        assert!(matches!(identity.check_raft(&foreign), Err(Stranger::OtherCluster { .. })));
        let newer = Sender { protocol: PROTOCOL + 1, ..sender("b", 7) };
        assert!(matches!(identity.check_raft(&newer), Err(Stranger::OtherProtocol { .. })));
        assert!(matches!(identity.check(&sender("d", 1)), Err(Stranger::NotAMember(_))));
        assert!(matches!(identity.check_raft(&sender("a", 1)), Err(Stranger::SecondSelf(_))));
        assert!(matches!(identity.check_from(&sender("b", 7), &"c".into()), Err(Stranger::Impostor { .. })));
    }
}
