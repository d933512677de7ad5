//! How often each kind of fault was in force: a fault that was planned and met nobody does not count.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a message, each of them.
    Loss,
    Doubling,
    Delay,
    OneWayCut,
    Cut,
    /// An event that a stopped coordinator saw late.
    Pause,
    Suspend,
    /// Of a coordinator that ran, or a host.
    Crash,
    HostCrash,
    LostWrites,
    SlowDisk,
    NodeCrash,
    GuardCrash,
    /// A guard that was stopped with work to do.
    GuardStop,
    /// One that stays so.
    GuardHangs,
    /// A stopped guard that the kernel killed, since it did not keep its deadline.
    Backstop,
    /// A guard that killed a validator.
    Fenced,
    OutOfSync,
    /// Of a wall clock, by more than `clock_skew`; and back.
    ClockJump,
    /// A host that was not ready for its clock.
    ClockOff,
    Shutdown,
    Handover,
    Order,
    LearnerAdded,
    Promoted,
    Removed,
    /// A change that another leader than the one who began it brought to its end.
    ChangeTakenOver,
    /// That began.
    Upgrade,
    /// Of a holder in its place.
    UpgradeOfHolder,
    UpgradeFailed,
    /// Its coordinator or host was lost in the midst.
    UpgradeCut,
    /// A coordinator that started with another timing than the one before.
    Retimed,
    /// A promise for a leader's lease that is longer than the own one.
    LongerLease,
    /// One that a restarted member had to wait out, since it was longer than its own lease asks for.
    RememberedPromise,
    /// That took the place of entries.
    Snapshot,
    /// An acceptance that was reported when a later leader had been accepted already.
    LateAcceptance,
    /// An answer that came when its caller had given it up: of an append or a heartbeat, of a vote.
    LateAnswer,
    LateVote,
    /// A flush that took up to 300 ms longer.
    SlowSync,
    /// A flush that did not end before the disk thawed.
    StuckDisk,
    /// A probe that was not answered.
    NodeHangs,
    /// A request that was not sent, since its leader had given up the lead.
    Resigned,
    /// A heartbeat that was not sent, since whom it was for owed answers and was silent.
    KeptSilent,
    /// A disk, a guard or a chain node that is there and does not answer.
    Trouble,
}

impl Kind {
    pub const ALL: [Kind; 44] = [
        Kind::Loss,
        Kind::Doubling,
        Kind::Delay,
        Kind::OneWayCut,
        Kind::Cut,
        Kind::Pause,
        Kind::Suspend,
        Kind::Crash,
        Kind::HostCrash,
        Kind::LostWrites,
        Kind::SlowDisk,
        Kind::NodeCrash,
        Kind::GuardCrash,
        Kind::GuardStop,
        Kind::GuardHangs,
        Kind::Backstop,
        Kind::Fenced,
        Kind::OutOfSync,
        Kind::ClockJump,
        Kind::ClockOff,
        Kind::Shutdown,
        Kind::Handover,
        Kind::Order,
        Kind::LearnerAdded,
        Kind::Promoted,
        Kind::Removed,
        Kind::ChangeTakenOver,
        Kind::Upgrade,
        Kind::UpgradeOfHolder,
        Kind::UpgradeFailed,
        Kind::UpgradeCut,
        Kind::Retimed,
        Kind::LongerLease,
        Kind::RememberedPromise,
        Kind::Snapshot,
        Kind::LateAcceptance,
        Kind::LateAnswer,
        Kind::LateVote,
        Kind::SlowSync,
        Kind::StuckDisk,
        Kind::NodeHangs,
        Kind::Resigned,
        Kind::KeptSilent,
        Kind::Trouble,
    ];
}

#[derive(Clone, Debug)]
pub struct Tally([u64; Kind::ALL.len()]);

impl Default for Tally {
    fn default() -> Tally {
        Tally([0; Kind::ALL.len()])
    }
}

impl Tally {
    pub fn note(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }
}
