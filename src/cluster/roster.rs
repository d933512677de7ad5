//! Who belongs to the cluster, as this host reaches them: the log says who and, of those whom an operator added,
//! everything; of the founders this host's configuration says the address, role and priority. Also keeps the
//! connections. `raft`, `gossip` and `relay` take theirs from here, the coordinator reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tonic::transport::Channel;

use crate::base::ids::{NodeId, Vote};
use crate::base::timing::Timing;
use crate::cluster::transport::{Certificates, channel};
use crate::config::{Cluster, Member};
use crate::core::agreed::members::Members;

pub struct Roster {
    me: NodeId,
    listed: Vec<Member>,
    members: watch::Receiver<Arc<Members>>,
    certificates: Option<Certificates>,
    timing: Timing,
    /// The address that each leads to, and the connection.
    channels: Mutex<BTreeMap<NodeId, (String, Channel)>>,
}

impl Roster {
    pub fn new(
        me: NodeId,
        cluster: &Cluster,
        members: watch::Receiver<Arc<Members>>,
        certificates: Option<Certificates>,
        timing: Timing,
    ) -> Arc<Roster> {
        let listed = cluster.members.clone();
        Arc::new(Roster { me, listed, members, certificates, timing, channels: Mutex::default() })
    }

    /// Changes with the membership.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// All members by name, this one included: by the log or, while that knows none, by the configuration.
    pub fn all(&self) -> Vec<(Member, Vote)> {
        let members = self.members.borrow().clone();
        if members.all.is_empty() {
            return self.listed.iter().map(|member| (member.clone(), Vote::Unknown)).collect();
        }
        let vote = |id: &NodeId| if members.is_voter(id) { Vote::Voter } else { Vote::Learner };
        self.resolved(&members).into_iter().map(|member| (member.clone(), vote(&member.id))).collect()
    }

    pub fn get(&self, id: &NodeId) -> Option<Member> {
        self.all().into_iter().map(|(member, _)| member).find(|member| member.id == *id)
    }

    /// The members of `members` as seen from this host.
    pub fn resolved(&self, members: &Members) -> Vec<Member> {
        let resolve = |(id, laid_down): (&NodeId, &crate::core::agreed::members::Member)| {
            let listed = self.listed.iter().find(|member| member.id == *id);
            match listed.filter(|_| laid_down.incarnation.is_none()) {
                Some(listed) => listed.clone(),
                None => Member {
                    id: id.clone(),
                    addr: laid_down.addr.clone(),
                    role: laid_down.role,
                    priority: laid_down.priority,
                },
            }
        };
        members.all.iter().map(resolve).collect()
    }

    /// The connection to a member; `None` when it is none, or its address is no address.
    pub fn channel(&self, id: &NodeId) -> Option<Channel> {
        let addr = self.get(id)?.addr;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        match channels.get(id) {
            Some((known, channel)) if *known == addr => Some(channel.clone()),
            Some(_) | None => {
                let made = self.connect(id, &addr)?;
                channels.insert(id.clone(), (addr, made.clone()));
                Some(made)
            }
        }
    }

    /// A connection to `id` at `addr`, which need not be a member.
    pub fn connect(&self, id: &NodeId, addr: &str) -> Option<Channel> {
        let toward = self.certificates.as_ref().map(|certificates| certificates.toward(id));
        let made = channel(addr, toward, &self.timing);
        made.inspect_err(|error| tracing::error!("{error}")).ok()
    }

    /// The other members, by name.
    pub fn others(&self) -> Vec<NodeId> {
        self.all().into_iter().map(|(member, _)| member.id).filter(|id| *id != self.me).collect()
    }

    /// In what the configuration of this host and the log differ: one line each, for the operator.
    pub fn differences(&self) -> Vec<String> {
        let members = self.members.borrow().clone();
        if members.all.is_empty() {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for listed in self.listed.iter().filter(|listed| !members.all.contains_key(&listed.id)) {
            let id = &listed.id;
            lines.push(if *id == self.me {
                format!("{id} is not a member of the cluster (any more): baton member add {id}, on another host, takes it in")
            } else {
                format!("cluster.members lists {id}, which is not a member of the cluster; take it out of the file")
            });
        }
        for member in self.resolved(&members) {
            let Member { id, addr, .. } = &member;
            match self.listed.iter().find(|listed| listed.id == *id) {
                None => lines.push(format!("cluster.members does not list {id}, a member at {addr}; add it to the file")),
                Some(listed) if *listed != member => lines.push(format!(
                    "cluster.members has {id} as {} at {} with priority {}; it was added as {} at {addr} with priority {}, \
                     and that counts: correct the file",
                    listed.role.as_str(),
                    listed.addr,
                    listed.priority,
                    member.role.as_str(),
                    member.priority,
                )),
                Some(_) => {}
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Role;

    fn listed(id: &str, addr: &str) -> Member {
        Member { id: id.into(), addr: addr.into(), role: Role::Validator, priority: 100 }
    }

    /// a's file lists a, b and c; the log has a, b and d, which was added, as was b if `b_added`.
    fn roster(b_added: bool) -> Arc<Roster> {
        let member = |id: &str, added: bool| {
            let (addr, incarnation) = (format!("log-{id}:1"), added.then_some(9));
            (id.into(), crate::core::agreed::members::Member { addr, role: Role::Validator, priority: 7, incarnation })
        };
        let all: BTreeMap<NodeId, _> = [member("a", false), member("b", b_added), member("d", true)].into();
        let voters = vec![["a", "b"].map(NodeId::from).into()];
        let members = watch::channel(Arc::new(Members { voters, all })).1;
        let cluster = Cluster {
            name: "net".into(),
            listen: ([127, 0, 0, 1], 1).into(),
            members: ["a", "b", "c"].map(|id| listed(id, &format!("file-{id}:1"))).into(),
            failback: false,
        };
        Roster::new("a".into(), &cluster, members, None, Timing::LAN)
    }

    #[test]
    fn the_log_says_who_and_the_file_where_a_founder_is() {
        let seen = roster(false).all().into_iter().map(|(member, vote)| (member.addr, vote));
        let told = [("file-a:1", Vote::Voter), ("file-b:1", Vote::Voter), ("log-d:1", Vote::Learner)];
        assert_eq!(seen.collect::<Vec<_>>(), told.map(|(addr, vote)| (addr.to_string(), vote)));
    }

    #[test]
    fn what_member_add_laid_down_counts_before_the_file() {
        let b = roster(true).get(&"b".into()).unwrap();
        assert_eq!((b.addr.as_str(), b.priority), ("log-b:1", 7));
    }

    #[test]
    fn each_difference_between_file_and_log_is_told_and_says_what_to_do() {
        assert_eq!(
            roster(false).differences(),
            [
                "cluster.members lists c, which is not a member of the cluster; take it out of the file",
                "cluster.members does not list d, a member at log-d:1; add it to the file",
            ]
        );
        let b = &roster(true).differences()[1];
        assert!(b.starts_with("cluster.members has b as validator at file-b:1") && b.contains("log-b:1"), "{b}");
    }
}
