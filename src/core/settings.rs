//! What the core is made with: the configuration, as far as it decides by it, and what the store remembers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, Role, SignMark, Term};
use crate::base::signing::Custody;
use crate::base::timing::Timing;
use crate::core::agreed::replicated::View;

/// What the configuration says, as far as the core decides by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    pub me: NodeId,
    pub role: Role,
    /// The priority of every configured member.
    pub priorities: BTreeMap<NodeId, u32>,
    pub timing: Timing,
    /// `timing.lease` of members that do not state theirs, as an operator vouches for it; `None`: not known.
    pub unstated_lease: Option<Duration>,
    pub failback: bool,
    pub clock_skew: Duration,
    /// Whether the chain node itself refuses to sign at or below a mark it was given.
    pub node_refuses: bool,
    /// Failed probes in a row until the chain node counts as unhealthy.
    pub probe_failures_max: u32,
    /// Fewer peers than this make a chain node unfit; `None` asks for none.
    pub min_peers: Option<u32>,
    /// A holder whose head stands still this long while another's is ahead, or that is out of sync or
    /// short of peers for this long, lets go.
    pub head_still_max: Duration,
    /// From linking until the node is proven to run with the key.
    pub activation_max: Duration,
    /// For the chain node to end when it is asked to.
    pub stop_timeout: Duration,
    /// Once the chain has stood still this long, the last mark seen is trusted (`on_halt = "replica"`);
    /// `None` waits for a block for ever.
    pub settle_max: Option<Duration>,
    /// Whether the chain can be asked what the shared key signs.
    pub sees_key_on_chain: bool,
    /// Who has the validator's key on this host.
    pub custody: Custody,
}

/// What the store remembers of earlier runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Memory {
    /// Never voted and never logged anything.
    pub fresh: bool,
    pub vote_term: Term,
    pub released_term: Option<Term>,
    pub view: View,
    /// The longest promise that an earlier run may have made and not kept to its end.
    pub promised: Duration,
    /// That is not known, and `promised` is the longest promise that there can be.
    pub promise_lost: bool,
    /// See [`super::Event::MarkSeen`].
    pub mark_seen: Option<SignMark>,
}

impl Memory {
    /// The memory of a store that was just made.
    pub fn fresh() -> Memory {
        Memory {
            fresh: true,
            vote_term: 0,
            released_term: None,
            view: View::default(),
            promised: Duration::ZERO,
            promise_lost: false,
            mark_seen: None,
        }
    }
}
