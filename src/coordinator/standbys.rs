//! How many hosts could take the baton now: for the alert that stands for there being none. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::NodeId;

/// What a member that is reached says of itself.
pub(super) struct Told {
    pub ready: bool,
    pub active: bool,
    pub gives_vote: bool,
}

/// None while those that give no vote leave no majority without the holder; members that are not reached have their own
/// alert.
pub(super) fn count(voters: &BTreeSet<NodeId>, holder: Option<&NodeId>, told: &BTreeMap<NodeId, Told>) -> usize {
    let refuses = |id: &&NodeId| told.get(id).is_some_and(|told| !told.gives_vote);
    let votes_left = voters.iter().filter(|id| Some(*id) != holder && !refuses(id)).count();
    if voters.iter().any(|id| refuses(&id)) && votes_left <= voters.len() / 2 {
        return 0;
    }
    told.values().filter(|told| told.ready && !told.active).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ready: bool, active: bool, gives_vote: bool) -> Told {
        Told { ready, active, gives_vote }
    }

    #[test]
    fn a_standby_that_lacks_the_vote_of_an_arbiter_could_not_take_the_baton() {
        let voters: BTreeSet<NodeId> = ["a", "b", "c"].map(NodeId::from).into();
        let cluster = |of_c: Told| -> BTreeMap<NodeId, Told> {
            [("a".into(), told(true, true, true)), ("b".into(), told(true, false, true)), ("c".into(), of_c)].into()
        };
        let holder = Some(&"a".into());
        assert_eq!(count(&voters, holder, &cluster(told(false, false, true))), 1);
        assert_eq!(count(&voters, holder, &cluster(told(false, false, false))), 0, "b's vote alone elects nobody");
        let mut without_c = cluster(told(false, false, true));
        without_c.remove(&"c".into());
        assert_eq!(count(&voters, holder, &without_c), 1, "that is BatonPeerDown");
    }
}
