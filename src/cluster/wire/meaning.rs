//! What the words of a member are to a program. A member says it beside its words (`proto::Meaning`); one of an earlier
//! version says the words alone, and those are read here and nowhere else. That can go, and words may change, once no
//! member is older than the first version that says `Meaning`.

use super::proto::{GuardSeen, LinksSeen, Meaning, MemberState, MemberStatus, Record, TenureStage};

/// The words of a record or a status.
struct Words<'a> {
    state: &'a str,
    phase: &'a str,
    guard: &'a str,
    links: &'a str,
    transport: &'a str,
    containment: &'a str,
    node_note: &'a str,
}

impl Words<'_> {
    fn meaning(&self) -> Meaning {
        /// The value of the enum that is called like the word; unspecified for another word.
        fn called<K: Default>(find: fn(&str) -> Option<K>, kind: &str, word: &str) -> K {
            find(&format!("{kind}_{}", word.to_uppercase())).unwrap_or_default()
        }
        Meaning {
            state: called(MemberState::from_str_name, "MEMBER_STATE", self.state).into(),
            stage: called(TenureStage::from_str_name, "TENURE_STAGE", self.phase).into(),
            guard: called(GuardSeen::from_str_name, "GUARD_SEEN", self.guard).into(),
            links: called(LinksSeen::from_str_name, "LINKS_SEEN", self.links).into(),
            insecure: self.transport == "insecure",
            direct_child: self.containment == "direct-child",
            good_news: self.node_note.starts_with("first ") && self.node_note.contains(" on chain "),
            // No word said these.
            needs_mending: false,
            disk_full: false,
        }
    }
}

impl Record {
    pub fn meaning(&self) -> Meaning {
        let Record { state, phase, guard, links, transport, containment, node_note, .. } = self;
        self.meaning
            .unwrap_or_else(|| Words { state, phase, guard, links, transport, containment, node_note }.meaning())
    }
}

impl MemberStatus {
    pub fn meaning(&self) -> Meaning {
        let MemberStatus { state, phase, guard, links, transport, containment, node_note, .. } = self;
        self.meaning
            .unwrap_or_else(|| Words { state, phase, guard, links, transport, containment, node_note }.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::guard_frame::{Containment, LinkState};
    use crate::core::State;
    use crate::core::tenure::Stage;

    #[test]
    fn every_word_of_this_version_has_a_meaning_of_its_own() {
        let of = |record: Record| record.meaning();
        for state in State::ALL {
            let word = state.as_str();
            let told = of(Record { state: word.into(), ..Record::default() }).state();
            assert_eq!(told.as_str_name(), format!("MEMBER_STATE_{}", word.to_uppercase()));
        }
        use Stage::{Activating, Active, Arming, Claiming, Linking, Settling, Stopping, Upgrading};
        for stage in [Claiming, Arming, Settling, Linking, Activating, Active, Upgrading, Stopping] {
            let told = of(Record { phase: stage.as_str().into(), ..Record::default() }).stage();
            assert_eq!(told.as_str_name(), format!("TENURE_STAGE_{}", stage.as_str().to_uppercase()));
        }
        for links in [LinkState::Standby, LinkState::Validating, LinkState::Broken] {
            let told = of(Record { links: links.as_str().into(), ..Record::default() }).links();
            assert_eq!(told.as_str_name(), format!("LINKS_SEEN_{}", links.as_str().to_uppercase()));
        }
        for guard in ["absent", "idle", "armed", "unreachable"] {
            let told = of(Record { guard: guard.into(), ..Record::default() }).guard();
            assert_eq!(told.as_str_name(), format!("GUARD_SEEN_{}", guard.to_uppercase()));
        }
        let alone = of(Record { containment: Containment::DirectChild.word().into(), ..Record::default() });
        assert!(alone.direct_child && !of(Record::default()).direct_child);
    }

    #[test]
    fn what_a_member_means_counts_and_not_its_words() {
        let stage = TenureStage::Active.into();
        let newer = Record {
            phase: "Works".into(),
            node_note: "first things first, on chain 7 or not".into(),
            meaning: Some(Meaning { stage, ..Meaning::default() }),
            ..Record::default()
        };
        assert_eq!(newer.meaning().stage(), TenureStage::Active, "of a later version, in words of its own");
        assert!(!newer.meaning().good_news);
        let older = Record { phase: "Active".into(), node_note: "first vote on chain 1.2 s after".into(), ..newer };
        let older = Record { meaning: None, ..older };
        assert_eq!(older.meaning().stage(), TenureStage::Active);
        assert!(older.meaning().good_news);
        let unknown = Record { phase: "Works".into(), ..Record::default() };
        assert_eq!(unknown.meaning().stage(), TenureStage::Unspecified);
    }
}
