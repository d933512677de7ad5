//! Histories that chance hardly ever finds, since something has to go wrong in the very moment in which something else
//! is under way. A plot has acts: after every event the next one looks whether its moment has come. Each of these shows
//! what one rule is good for; with the rule in force, it ends well.

use std::time::Duration;

use baton::base::ids::Epoch;
use baton::base::timing::Timing;
use baton::core::agreed::replicated::{Baton, Command};
use baton::core::tenure::Reason;
use baton::core::{Core, Event};

use crate::faults::Fault;
use crate::members::ids;
use crate::oracle::End;
use crate::raft::Id;
use crate::worker::Doing;
use crate::world::{MS, Without, World};

/// Does its part and says so, once its moment has come.
pub type Act = fn(&mut World, &mut Cast) -> bool;

#[derive(Clone, Debug)]
pub struct Plot {
    acts: &'static [Act],
    next: usize,
    cast: Cast,
}

impl Plot {
    pub fn new(acts: &'static [Act]) -> Plot {
        Plot { acts, next: 0, cast: Cast::default() }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Cast {
    /// The holder of the first act, and its epoch then.
    pub old: Id,
    epoch: Epoch,
    /// Another one that can hold the baton.
    pub new: Id,
    pub third: Id,
}

const ENDS: u64 = 8_000 * MS;

/// A holder's key is taken away in the midst of its start with the key, and its coordinator is lost as soon as the
/// others have its `Release`.
pub fn start_under_way(seed: u64, without: Without, traced: bool) -> Option<End> {
    play(seed, without, traced, &[hand_over, order_start, leave_as_it_starts, crash_once_released])
}

/// A holder that released is not heard by the next one any more, and a moment later by nobody.
pub fn released_and_claimed(seed: u64, without: Without, traced: bool) -> Option<End> {
    play(seed, without, traced, &[hand_over, hide_from_the_next, isolate_once_voted])
}

/// The third member has the `Release` of the holder before, and not the `Claim` of the next, whom it hears.
pub fn release_of_an_earlier_term(seed: u64, without: Without, traced: bool) -> Option<End> {
    play(seed, without, traced, &[hand_over_past_the_third, part_the_holders, isolate_the_next_once_voted])
}

/// A guard keeps no deadline, nor does the kernel in its place: against what fence 1 rests on. Its coordinator starts
/// anew, and the next holder is elected with its vote, or not at all.
pub fn guard_that_is_late(seed: u64, without: Without, traced: bool) -> Option<End> {
    play(seed, without, traced, &[stop_guard_for_long])
}

/// All had a lease of 3 s. The holder is cut off, and the others start anew with one of 1 s.
pub fn shorter_lease_after_a_restart(seed: u64, without: Without, traced: bool) -> Option<End> {
    let mut world = cluster_of_three(seed, without, traced)?;
    world.hosts.iter_mut().for_each(|host| host.timing = Timing::WAN);
    world.longest_lease = Timing::WAN.lease().as_nanos() as u64;
    Some(play_in(world, &[isolate_and_restart_the_others]))
}

fn play(seed: u64, without: Without, traced: bool, acts: &'static [Act]) -> Option<End> {
    Some(play_in(cluster_of_three(seed, without, traced)?, acts))
}

/// `None` for a seed that makes another cluster.
fn cluster_of_three(seed: u64, without: Without, traced: bool) -> Option<World> {
    let world = World::new(seed, without, traced);
    let three = world.count() == 3 && ids(world.newest_members().voters).count() == 3;
    three.then_some(world)
}

fn play_in(mut world: World, acts: &'static [Act]) -> End {
    // A node takes the key by a start.
    world.hot = false;
    world.plot = Some(Plot::new(acts));
    world.plan_end(ENDS);
    world.run_to_end()
}

impl World {
    pub fn go_on_with_plot(&mut self) {
        let Some(mut plot) = self.plot.take() else { return };
        while let Some(act) = plot.acts.get(plot.next)
            && act(self, &mut plot.cast)
        {
            plot.next += 1;
            self.note(|| format!("act {} is over", plot.next));
        }
        self.plot = Some(plot);
    }

    fn core(&self, host: Id) -> Option<&Core> {
        self.hosts[host].coordinator.as_ref().map(|coordinator| &coordinator.core)
    }

    pub fn could_hand_over(&self, holder: Id, to: Id) -> bool {
        self.core(holder).is_some_and(|core| core.handover_target(Some(self.name(to))).is_ok())
    }

    fn is_active(&self, host: Id) -> bool {
        self.core(host).is_some_and(Core::is_active)
    }

    pub fn isolate(&mut self, host: Id) {
        for other in self.others(host) {
            self.cut([(host, other), (host, other)], true);
        }
    }
}

/// Somebody has held the baton for a while, and everybody knows all that there is.
pub fn has_settled(world: &World, cast: &mut Cast) -> bool {
    let Some([old, new, third]) = world.cast().filter(|_| world.at > 2_500 * MS) else { return false };
    let Some(holder) = world.core(old) else { return false };
    *cast = Cast { old, new, third, epoch: holder.view().epoch };
    let last = world.hosts[old].raft.last();
    world.could_hand_over(old, new) && [new, third].iter().all(|host| world.hosts[*host].raft.last() == last)
}

fn hand_over(world: &mut World, cast: &mut Cast) -> bool {
    let settled = has_settled(world, cast);
    if settled {
        let (to, timeout) = (Some(world.name(cast.new)), Duration::from_secs(60));
        world.step(cast.old, Event::HandoverWanted { to, timeout, reason: Reason::Operator });
    }
    settled
}

/// The guard's word that it did so will be late.
fn order_start(world: &mut World, cast: &mut Cast) -> bool {
    let coordinator = world.hosts[cast.new].coordinator.as_ref();
    let ordered = coordinator.is_some_and(|coordinator| {
        matches!(coordinator.doing, Some(Doing::Activating { asked: true, .. })) && coordinator.node_seen.is_none()
    });
    if ordered {
        let until = world.at + 150 * MS;
        world.hosts[cast.new].machine.hold_back_news(until);
    }
    ordered
}

fn leave_as_it_starts(world: &mut World, cast: &mut Cast) -> bool {
    let started = world.hosts[cast.new].machine.has_key();
    if started {
        world.step(cast.new, Event::ShutdownWanted { stop_node: false });
    }
    started
}

fn crash_once_released(world: &mut World, cast: &mut Cast) -> bool {
    let own = world.hosts[cast.new].raft.last();
    let released = world.hosts[cast.new].raft.ends_released() && own.0 == world.hosts[cast.new].raft.term;
    let known = [cast.old, cast.third].iter().all(|host| world.hosts[*host].raft.last() >= own);
    if released && known {
        world.strike(Fault::Coordinator(cast.new));
    }
    released && known
}

fn hide_from_the_next(world: &mut World, cast: &mut Cast) -> bool {
    let again = world.core(cast.old).is_some_and(|core| core.is_active() && core.view().epoch > cast.epoch);
    let newest = world.hosts[cast.new].raft.log.last().and_then(|entry| entry.command());
    // Nobody votes for a shorter log.
    let hidden = again && matches!(newest, Some(Command::Baton(Baton::Activated { .. })));
    if hidden {
        world.cut([(cast.old, cast.new), (cast.old, cast.new)], true);
    }
    hidden
}

fn isolate_once_voted(world: &mut World, cast: &mut Cast) -> bool {
    let voted = world.hosts[cast.third].raft.voted_for == Some(cast.new);
    if voted {
        world.isolate(cast.old);
    }
    voted
}

fn hand_over_past_the_third(world: &mut World, cast: &mut Cast) -> bool {
    let settled = hand_over(world, cast);
    if settled {
        world.no_entries = Some((cast.new, cast.third));
    }
    settled
}

fn part_the_holders(world: &mut World, cast: &mut Cast) -> bool {
    let holds = world.is_active(cast.new);
    if holds {
        world.cut([(cast.old, cast.new), (cast.old, cast.new)], true);
    }
    holds
}

fn isolate_the_next_once_voted(world: &mut World, cast: &mut Cast) -> bool {
    let third = &world.hosts[cast.third].raft;
    let voted = third.voted_for == Some(cast.old) && third.term > world.hosts[cast.new].raft.term;
    if voted {
        world.isolate(cast.new);
    }
    voted
}

fn stop_guard_for_long(world: &mut World, cast: &mut Cast) -> bool {
    let settled = has_settled(world, cast);
    if settled {
        world.late_backstops = true;
        world.strike(Fault::GuardStop(cast.old, ENDS - world.at - 500 * MS));
        world.strike(Fault::Coordinator(cast.old));
        world.strike(Fault::Restart(cast.old));
        world.strike(Fault::Host(cast.third));
    }
    settled
}

fn isolate_and_restart_the_others(world: &mut World, cast: &mut Cast) -> bool {
    let settled = has_settled(world, cast);
    if settled {
        world.isolate(cast.old);
        for other in [cast.new, cast.third] {
            world.hosts[other].timing = Timing::LAN;
            world.strike(Fault::Coordinator(other));
            world.strike(Fault::Restart(other));
        }
    }
    settled
}
