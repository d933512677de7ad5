//! One history that chance hardly ever finds: a snapshot of the holder is being installed when the baton is handed
//! over, and its acceptance is reported inside the lease of the next holder, who is cut off then.

use std::time::Duration;

use baton::base::ids::Role;
use baton::core::Event;
use baton::core::agreed::replicated::{Command, Set};
use baton::core::tenure::Reason;

use crate::faults::Fault;
use crate::members::ids;
use crate::oracle::End;
use crate::raft::Id;
use crate::world::{MS, Without, World};

#[derive(Clone, Copy, Debug)]
pub enum Scene {
    /// One member hears no more than the holder's heartbeats while entries are written and forgotten.
    Lags,
    /// It hears all of the holder again, and gets a snapshot.
    CatchesUp,
    HandsOver,
    /// The member hears the next holder too.
    Hears,
    /// The two holders do not hear each other any more.
    Parts,
    /// Nobody hears the next holder any more.
    Isolated,
}

/// `None` for a seed that makes another cluster than one of three.
pub fn overtaken(seed: u64, without: Without, traced: bool) -> Option<End> {
    let mut world = World::new(seed, without, traced);
    if world.count() != 3 || ids(world.newest_members().voters).count() != 3 {
        return None;
    }
    (world.snapshots.every, world.snapshots.takes) = (Some(1), Some((1750, 2000)));
    let steps = [
        (2500, Scene::Lags),
        (2800, Scene::CatchesUp),
        (2950, Scene::HandsOver),
        (3300, Scene::Hears),
        (3900, Scene::Parts),
        (4600, Scene::Isolated),
    ];
    for (at, scene) in steps {
        world.plan(at * MS, Fault::Scene(scene));
    }
    world.plan_end(8_000 * MS);
    Some(world.run_to_end())
}

impl World {
    pub fn play_scene(&mut self, scene: Scene) {
        let Some([old, new, lagging]) = self.scene.or_else(|| self.cast()) else { return };
        self.scene = Some([old, new, lagging]);
        match scene {
            Scene::Lags => {
                self.no_entries = Some((old, lagging));
                self.cut([(new, lagging), (new, lagging)], true);
                for priority in [Some(7), None] {
                    self.order(Command::Set(Set::Priority { member: self.name(lagging), priority }));
                }
            }
            Scene::CatchesUp => {
                self.no_entries = None;
                self.cuts[lagging][new] = false;
            }
            Scene::HandsOver => {
                self.snapshots.every = None;
                let (to, timeout) = (Some(self.name(new)), Duration::from_secs(60));
                self.step(old, Event::HandoverWanted { to, timeout, reason: Reason::Operator });
            }
            Scene::Hears => self.cut([(new, lagging), (new, lagging)], false),
            Scene::Parts => self.cut([(old, new), (old, new)], true),
            Scene::Isolated => self.cut([(new, lagging), (old, new)], true),
        }
    }

    /// The holder, who holds next, and who lags.
    pub fn cast(&self) -> Option<[Id; 3]> {
        let old = self.holder()?;
        let new = self.others(old).find(|host| self.hosts[*host].role == Role::Validator)?;
        let lagging = self.others(old).find(|host| *host != new)?;
        Some([old, new, lagging])
    }

    pub fn cut(&mut self, links: [(Id, Id); 2], cut: bool) {
        for (one, other) in links {
            (self.cuts[one][other], self.cuts[other][one]) = (cut, cut);
        }
    }
}
