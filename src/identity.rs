//! Who this member is to its peers, and whom it listens to.
//!
//! Invariant: a member whose store was wiped or copied has forgotten promises and votes. Nothing that
//! it says counts as a vote or an acknowledgement once its first incarnation was recorded.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::certificates::Bearer;
use crate::ids::NodeId;
use crate::transport::{Speaker, Visitor};
use crate::wire::{PROTOCOL, Sender};

pub struct Identity {
    me: Sender,
    members: BTreeSet<NodeId>,
    /// As recorded in the replicated state.
    incarnations: watch::Receiver<BTreeMap<NodeId, u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error("{member} belongs to cluster {theirs:?}, this is {ours:?}; check cluster.name and the addresses")]
    OtherCluster { member: NodeId, theirs: String, ours: String },
    #[error("{member} speaks protocol {theirs}, this is {PROTOCOL}; upgrade the older one")]
    OtherProtocol { member: NodeId, theirs: u32 },
    #[error("{0} is not in cluster.members of this host's configuration")]
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
}

impl Identity {
    pub fn new(
        cluster: &str,
        me: NodeId,
        incarnation: u64,
        members: BTreeSet<NodeId>,
        incarnations: watch::Receiver<BTreeMap<NodeId, u64>>,
    ) -> Identity {
        let me = Sender { cluster: cluster.to_string(), member: me, incarnation, protocol: PROTOCOL };
        Identity { me, members, incarnations }
    }

    pub fn me(&self) -> &Sender {
        &self.me
    }

    /// As [`Identity::check`], for a request of `visitor`. What the certificate of the other end names is what it is:
    /// a `sender` of another name is refused. One that is let in keeps its place among the connections.
    pub fn check_request(&self, sender: &Sender, visitor: &Visitor) -> Result<(), Stranger> {
        match visitor.speaker() {
            Some(Speaker::Unproven) => self.check(sender)?,
            Some(Speaker::Proven(Bearer::Member(id))) if *id == sender.member => self.check(sender)?,
            Some(Speaker::Proven(bearer)) => {
                return Err(Stranger::OtherCertificate { member: sender.member.clone(), bearer: bearer.clone() });
            }
            None => return Err(Stranger::NoConnection(sender.member.clone())),
        }
        visitor.is_a_member();
        Ok(())
    }

    /// # Errors
    /// Why what `sender` says must not count.
    pub fn check(&self, sender: &Sender) -> Result<(), Stranger> {
        let member = sender.member.clone();
        if sender.cluster != self.me.cluster {
            let (theirs, ours) = (sender.cluster.clone(), self.me.cluster.clone());
            return Err(Stranger::OtherCluster { member, theirs, ours });
        }
        if sender.protocol != PROTOCOL {
            return Err(Stranger::OtherProtocol { member, theirs: sender.protocol });
        }
        if member == self.me.member {
            return Err(Stranger::SecondSelf(member));
        }
        if !self.members.contains(&member) {
            return Err(Stranger::NotAMember(member));
        }
        match self.joined_with(&member) {
            Some(joined) if joined != sender.incarnation => {
                Err(Stranger::OtherStore { member, joined, got: sender.incarnation })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The incarnation that `member` is known by, for what others relay of it; `None` before its first
    /// one is recorded.
    pub fn joined_with(&self, member: &NodeId) -> Option<u64> {
        self.incarnations.borrow().get(member).copied()
    }

    /// As [`Identity::check`], for somebody who was addressed as `expected`.
    pub fn check_from(&self, sender: &Sender, expected: &NodeId) -> Result<(), Stranger> {
        if sender.member != *expected {
            let (expected, got) = (expected.clone(), sender.member.clone());
            return Err(Stranger::Impostor { expected, got });
        }
        self.check(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> (Identity, watch::Sender<BTreeMap<NodeId, u64>>) {
        let (sender, receiver) = watch::channel(BTreeMap::from([("b".into(), 7)]));
        let members = ["a", "b", "c"].map(NodeId::from).into();
        (Identity::new("net", "a".into(), 1, members, receiver), sender)
    }

    fn sender(member: &str, incarnation: u64) -> Sender {
        Sender { cluster: "net".into(), member: member.into(), incarnation, protocol: PROTOCOL }
    }

    #[test]
    fn a_member_with_another_store_than_it_joined_with_is_refused() {
        let (identity, _keep) = identity();
        assert_eq!(identity.check(&sender("b", 7)), Ok(()));
        assert!(matches!(identity.check(&sender("b", 8)), Err(Stranger::OtherStore { .. })));
        assert_eq!(identity.check(&sender("c", 8)), Ok(()), "not recorded yet");
    }

    #[test]
    fn a_certificate_speaks_for_its_own_member_alone() {
        let (identity, _keep) = identity();
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
    fn strangers_and_a_second_self_are_refused() {
        let (identity, _keep) = identity();
        let foreign = Sender { cluster: "other".into(), ..sender("b", 7) };
        assert!(matches!(identity.check(&foreign), Err(Stranger::OtherCluster { .. })));
        let newer = Sender { protocol: PROTOCOL + 1, ..sender("b", 7) };
        assert!(matches!(identity.check(&newer), Err(Stranger::OtherProtocol { .. })));
        assert!(matches!(identity.check(&sender("d", 1)), Err(Stranger::NotAMember(_))));
        assert!(matches!(identity.check(&sender("a", 1)), Err(Stranger::SecondSelf(_))));
        assert!(matches!(identity.check_from(&sender("b", 7), &"c".into()), Err(Stranger::Impostor { .. })));
    }
}
