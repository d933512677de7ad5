//! The alarm "key in use elsewhere": what leaders say of a time in which nobody holds, to the core; and a line in the
//! log when the alarm begins and when it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info};

use crate::base::time::{BootTime, WallTime};
use crate::cluster::gossip::Table;
use crate::cluster::wire::proto::Record;
use crate::core::{Event, Unheld};
use crate::core_handle::SharedCore;

/// Between two words of one leader to the core; gossip comes more often.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The word that reaches furthest. It is true however old it is, whoever leads by now.
fn newest<'a>(records: impl Iterator<Item = &'a Record>) -> Option<Unheld> {
    let unheld = |record: &Record| Unheld {
        since: WallTime::from_nanos(record.unheld_since_ns),
        until: WallTime::from_nanos(record.unheld_until_ns),
    };
    let told = records.filter(|record| record.unheld_since_ns > 0);
    told.map(unheld).max_by_key(|unheld| unheld.until)
}

pub(super) async fn hear(core: Arc<SharedCore>, mut table: watch::Receiver<Arc<Table>>) {
    let mut known = None;
    loop {
        let told = newest(table.borrow_and_update().others().filter_map(|(_, heard)| heard.record.as_deref()));
        if let Some(unheld) = told.filter(|_| told != known) {
            known = told;
            core.step(Event::UnheldTold(unheld));
        }
        sleep(BootTime::now().until_multiple_of(TELL_EVERY)).await;
        if table.changed().await.is_err() {
            return;
        }
    }
}

pub(super) async fn log(core: Arc<SharedCore>) {
    let mut news = core.news();
    let mut told = None;
    loop {
        news.mark_unchanged();
        let alarm = core.read(|core, _| core.key_alarm());
        match &alarm {
            Some(reason) if told.is_none() => error!("the validator's key is in use elsewhere: {reason}"),
            None if told.is_some() => info!("the validator's key is not in use elsewhere any more"),
            Some(_) | None => {}
        }
        told = alarm;
        if news.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_heard_that_knows_most_and_a_member_that_says_nothing_is_not() {
        let record = |since, until| Record { unheld_since_ns: since, unheld_until_ns: until, ..Record::default() };
        let (silent, old, new) = (record(0, 0), record(10, 20), record(15, 30));
        let told = newest([&silent, &new, &old].into_iter()).expect("told");
        assert_eq!((told.since, told.until), (WallTime::from_nanos(15), WallTime::from_nanos(30)));
        assert_eq!(newest([&silent].into_iter()), None);
    }
}
