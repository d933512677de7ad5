//! The rules of the safety argument, as `baton::rules` judges them, over whole histories. A rule that is left out is seen
//! broken also where nothing comes of it.

use std::time::Duration;

use baton::base::time::BootTime;
use baton::rules::cluster::{self, Leases, Signed};
use baton::rules::{Breach, Rule};

use crate::oracle::End;
use crate::world::{Without, World, run};
use crate::{chain, plot};

/// What the clocks of the simulation are rounded to.
const ERROR: Duration = Duration::from_micros(1);

impl World {
    /// Of every member that ever ran, and of all together.
    pub fn breaches(&self) -> Vec<Breach> {
        let mut broken = Vec::new();
        let mut leases = Vec::new();
        for host in &self.hosts {
            let runs = host.coordinator.as_ref().map(|coordinator| &coordinator.witness);
            let Some(witness) = runs.or(host.witness.as_ref()) else { continue };
            broken.extend_from_slice(witness.breaches());
            let real = |local: BootTime| BootTime::from_nanos(host.clock.when(local));
            let spans = witness.spans().iter().map(|span| span.by(real)).collect();
            let kill_max = BootTime::from_nanos(host.clock.when(host.clock.read(0) + witness.kill_max()));
            let kill_max = kill_max.since(BootTime::default());
            let member = witness.member().clone();
            leases.push(Leases { member, spans, kill_max, unknown: Vec::new(), released: Vec::new() });
        }
        let signed = self.chain.log.iter().map(|signature| Signed {
            member: signature.host.as_str().into(),
            height: signature.height,
            at: signature.at,
        });
        broken.extend(cluster::one_lease(&leases, ERROR));
        // Where nothing kills a stopped guard in time, its node signs on.
        if self.without != Without::Backstop && !self.late_backstops {
            broken.extend(cluster::signed_inside(&leases, &signed.collect::<Vec<_>>(), ERROR));
        }
        broken
    }
}

/// In how many of the first histories `rule` is broken, if any is.
fn found(story: impl Fn(u64, Without) -> Option<End>, without: Without, rule: Rule) -> usize {
    let breaks = |seed: u64| story(seed, without).is_some_and(|end| end.broken.iter().any(|b| b.rule == rule));
    let found = (1..=60).filter(|seed| breaks(*seed)).count();
    eprintln!("without {without:?}: {rule} is broken in {found} of 60 histories");
    found
}

#[test]
fn each_rule_that_is_left_out_is_seen_broken() {
    let random = |seed, without| Some(run(seed, without, false));
    assert!(found(random, Without::Quarantine, Rule::Quarantine) > 0);
    assert!(found(random, Without::Promise, Rule::Promise) > 0);
    assert!(found(random, Without::ReleaseOfTheTerm, Rule::Promise) > 0);
    assert!(found(|seed, w| plot::guard_that_is_late(seed, w, false), Without::NodeProof, Rule::NodeProof) > 0);
    assert!(found(|seed, w| plot::released_and_claimed(seed, w, false), Without::NoSecondClaim, Rule::SecondClaim) > 0);
    assert!(found(|seed, w| Some(chain::deaths(seed, w, false)), Without::Deadline, Rule::SignedInLease) > 0);
    assert!(
        found(random, Without::Comparison, Rule::OneLease) > 0 || found(random, Without::Voters, Rule::OneLease) > 0
    );
}
