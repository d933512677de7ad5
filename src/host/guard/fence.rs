//! What the guard is armed with, and what it may still be armed with. Pure: the time is an argument, and
//! whoever calls `expire` does the killing.

use crate::base::guard_frame::Armed;
use crate::base::ids::Epoch;
use crate::base::time::BootTime;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    armed: Option<Armed>,
    /// The highest epoch of all accepted `Arm`s; `armed` never has a lower one.
    highest: Epoch,
    /// The newest epoch whose deadline passed here.
    fenced: Option<Epoch>,
}

impl Fence {
    pub fn armed(&self) -> Option<Armed> {
        self.armed
    }

    /// Arms, or renews when already armed under `epoch`: then the later of the two deadlines holds. A new
    /// epoch brings its own deadline, also an earlier one, since the old lease says nothing about it.
    pub fn arm(&mut self, epoch: Epoch, deadline: BootTime, now: BootTime) -> Result<Armed, String> {
        if epoch < self.highest {
            return Err(format!("epoch {epoch} is over, epoch {} was armed", self.highest));
        }
        if self.fenced.is_some_and(|fenced| epoch <= fenced) {
            return Err(format!("epoch {epoch} was fenced; claim a new one"));
        }
        if deadline <= now {
            return Err(format!("its deadline passed {:?} ago", now.since(deadline)));
        }
        let deadline = match self.armed {
            Some(armed) if armed.epoch() == epoch => deadline.max(armed.deadline()),
            Some(_) | None => deadline,
        };
        let armed = Armed::by_guard(epoch, deadline);
        self.highest = epoch;
        self.armed = Some(armed);
        Ok(armed)
    }

    /// The higher epoch of an `Arm` that was accepted before one of `epoch` came.
    pub fn superseded(&self, epoch: Epoch) -> Option<Epoch> {
        (epoch < self.highest).then_some(self.highest)
    }

    /// Nothing is armed afterwards, unless a later epoch is: that one has something to fence.
    pub fn disarm(&mut self, epoch: Epoch) -> Result<(), String> {
        match self.armed {
            Some(armed) if armed.epoch() != epoch => Err(format!("armed under epoch {}, not {epoch}", armed.epoch())),
            Some(_) | None => {
                self.armed = None;
                Ok(())
            }
        }
    }

    /// Whether something may be done that makes the chain node a validator of `epoch`.
    pub fn permit(&self, epoch: Epoch) -> Result<(), String> {
        match self.armed {
            Some(armed) if armed.epoch() == epoch => Ok(()),
            Some(armed) => Err(format!("armed under epoch {}, not {epoch}", armed.epoch())),
            None => Err(format!("not armed under epoch {epoch}")),
        }
    }

    /// Takes what is armed when its deadline has come: kill the chain node now.
    pub fn expire(&mut self, now: BootTime) -> Option<Epoch> {
        let epoch = self.armed.filter(|armed| armed.deadline() <= now)?.epoch();
        self.armed = None;
        self.fenced = Some(epoch);
        Some(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E2: Epoch = Epoch(2);
    const E3: Epoch = Epoch(3);

    const fn at(nanos: u64) -> BootTime {
        BootTime::from_nanos(nanos)
    }

    #[test]
    fn a_renewal_moves_the_deadline_on_and_never_back() {
        let mut fence = Fence::default();
        assert_eq!(fence.arm(E2, at(100), at(0)), Ok(Armed::by_guard(E2, at(100))));
        assert_eq!(fence.arm(E2, at(150), at(1)), Ok(Armed::by_guard(E2, at(150))));
        assert_eq!(fence.arm(E2, at(120), at(2)), Ok(Armed::by_guard(E2, at(150))));
        assert_eq!(fence.expire(at(149)), None);
        assert_eq!(fence.expire(at(150)), Some(E2), "the deadline itself is too late");
    }

    #[test]
    fn a_new_epoch_inherits_nothing_from_the_lease_before() {
        let mut fence = Fence::default();
        fence.arm(E2, at(500), at(0)).unwrap();
        assert_eq!(fence.arm(E3, at(300), at(1)), Ok(Armed::by_guard(E3, at(300))));
        assert!(fence.arm(E2, at(900), at(2)).unwrap_err().contains("epoch 2 is over"));
        assert!(fence.disarm(E2).is_err(), "the end of epoch 2 says nothing about epoch 3");
        assert_eq!(fence.permit(E3), Ok(()));
        assert!(fence.permit(E2).is_err());
    }

    #[test]
    fn a_fenced_epoch_is_never_armed_again() {
        let mut fence = Fence::default();
        fence.arm(E2, at(100), at(0)).unwrap();
        assert_eq!(fence.expire(at(100)), Some(E2));
        assert_eq!(fence.expire(at(200)), None);
        assert!(fence.arm(E2, at(900), at(200)).unwrap_err().contains("fenced"));
        assert!(fence.permit(E2).is_err());
        assert!(fence.arm(E3, at(900), at(200)).is_ok());
    }

    #[test]
    fn a_deadline_that_has_passed_arms_nothing() {
        let mut fence = Fence::default();
        assert!(fence.arm(E2, at(100), at(100)).is_err());
        assert_eq!(fence.armed(), None);
    }
}
