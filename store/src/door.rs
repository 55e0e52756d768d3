//! A door: a way in, under a name, with the counts of what became of everything that came by it.
//!
//! received = journalled + rejected + dropped + duplicate, always: a submission is counted once, when it is known what became
//! of all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use klaxon_schemas::names::Door as DoorName;

use crate::Store;
use crate::publish::{Answer, Item, Lane, Pending, PublishError, Published, Publisher, Rejection};

/// A way in. Cloning shares it.
#[derive(Clone)]
pub struct Door {
    name: DoorName,
    publisher: Publisher,
    store: Store,
    counts: Arc<DoorCounts>,
}

impl Door {
    /// The door `name`, whose submissions `publisher` takes to the journal of `store`.
    pub fn new(name: DoorName, publisher: Publisher, store: Store) -> Self {
        Self { name, publisher, store, counts: Arc::default() }
    }

    /// Under which name entries come in.
    pub fn name(&self) -> &DoorName {
        &self.name
    }

    /// What is read from.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What it counts.
    pub fn counts(&self) -> &DoorCounts {
        &self.counts
    }

    /// How many entries of all doors wait to be journalled.
    pub fn waiting(&self) -> usize {
        self.publisher.waiting()
    }

    /// Brings `items` in, waits until they are durable, and counts what became of them, together with what `tally` says was
    /// rejected before. It goes on when the caller is gone, so that nothing is left uncounted.
    pub async fn publish(&self, items: Vec<Item>, mut tally: Tally) -> Result<Published, PublishError> {
        let door = self.clone();
        let publishing = tokio::spawn(async move {
            let uncatalogued = door.uncatalogued(&items);
            let count = items.len() as u64;
            let outcome = door.publisher.publish(door.name.clone(), items).await;
            match &outcome {
                Ok(published) => {
                    published.answers.iter().for_each(|answer| tally.note(answer));
                    tally.uncatalogued = uncatalogued;
                }
                Err(error) => tally.refuse(error, count),
            }
            door.counts.settle(&tally);
            outcome
        });
        publishing.await.unwrap_or(Err(PublishError::Stopping))
    }

    /// Gives `items` their place in the queue to the journal, behind those of the same lane, and does not wait until they are
    /// durable. Nothing is counted: whoever submits knows when it is done with an item and settles [`Door::counts`].
    pub async fn submit(&self, items: Vec<Item>, lane: &Lane) -> Result<Pending, PublishError> {
        self.publisher.submit(self.name.clone(), items, lane).await
    }

    /// How many of the events are of a type that the catalogue does not know.
    pub fn uncatalogued(&self, items: &[Item]) -> u64 {
        let Some(catalogue) = self.store.read().catalogue() else { return 0 };
        let unknown = items.iter().filter(|item| match item {
            Item::Event(event) => catalogue.get(&event.key.alarm_type).is_none(),
            Item::Action(_) | Item::Relay(_) | Item::Child(_) | Item::Keep(_) => false,
        });
        unknown.count() as u64
    }
}

/// Why something is not taken: the values of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// It is no event or action.
    Invalid,
    /// Its number is below the window in which duplicates are recognised.
    TooOld,
    /// As many alarms are active as there may be.
    AlarmLimit,
    /// It is too large, or one of too many.
    TooLarge,
    /// As many reporters have promised to be heard from as may.
    HeartbeatLimit,
}

impl RejectReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Invalid, Self::TooOld, Self::AlarmLimit, Self::TooLarge, Self::HeartbeatLimit];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooOld => "too_old",
            Self::AlarmLimit => "alarm_limit",
            Self::TooLarge => "too_large",
            Self::HeartbeatLimit => "heartbeat_limit",
        }
    }
}

impl From<&Rejection> for RejectReason {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::TooOld => Self::TooOld,
            // No request keeps a follower's cursor.
            Rejection::AlarmLimit { .. } | Rejection::FollowerLimit { .. } => Self::AlarmLimit,
            Rejection::TooLarge { .. } | Rejection::KeepTooLarge { .. } => Self::TooLarge,
            Rejection::AtTheSite => Self::Invalid,
            Rejection::HeartbeatLimit { .. } => Self::HeartbeatLimit,
            Rejection::NotTaken(_) => Self::Invalid,
        }
    }
}

/// Why something that was good is not taken: the values of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The queue to the journal stayed full.
    Busy,
    /// The disk has no room.
    DiskFull,
    /// The node is stopping.
    Stopping,
    /// Its source sends more than it may.
    RateLimited,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Busy, Self::DiskFull, Self::Stopping, Self::RateLimited];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::DiskFull => "disk_full",
            Self::Stopping => "stopping",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// What became of one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Durable.
    pub journalled: u64,
    /// Had come before.
    pub duplicate: u64,
    /// Not usable, by [`RejectReason::ALL`].
    pub rejected: [u64; 5],
    /// Usable, and refused all the same, by [`DropReason::ALL`].
    pub dropped: [u64; 4],
    /// Of those that are durable: of a type that the catalogue does not know.
    pub uncatalogued: u64,
}

impl Tally {
    /// Notes `count` that are not usable.
    pub fn reject(&mut self, reason: RejectReason, count: u64) {
        self.rejected[reason as usize] += count;
    }

    /// Notes what the journal said of one item.
    pub fn note(&mut self, answer: &Answer) {
        match answer {
            Answer::Accepted { .. } => self.journalled += 1,
            Answer::Duplicate => self.duplicate += 1,
            Answer::Rejected(rejection) => self.reject(rejection.into(), 1),
        }
    }

    /// Notes that `count` were refused together.
    pub fn refuse(&mut self, error: &PublishError, count: u64) {
        match error {
            PublishError::Busy | PublishError::Away { .. } => self.dropped[DropReason::Busy as usize] += count,
            PublishError::DiskFull { .. } | PublishError::Unread { .. } => self.dropped[DropReason::DiskFull as usize] += count,
            PublishError::Stopping => self.dropped[DropReason::Stopping as usize] += count,
            PublishError::TooMany { .. } => self.reject(RejectReason::TooLarge, count),
        }
    }

    /// How many there were.
    pub fn received(&self) -> u64 {
        self.journalled + self.duplicate + self.rejected.iter().sum::<u64>() + self.dropped.iter().sum::<u64>()
    }
}

/// The counts of a door since the start.
#[derive(Debug, Default)]
pub struct DoorCounts {
    received: AtomicU64,
    journalled: AtomicU64,
    duplicate: AtomicU64,
    rejected: [AtomicU64; 5],
    dropped: [AtomicU64; 4],
    uncatalogued: AtomicU64,
}

impl DoorCounts {
    /// Counts a submission of which it is known what became.
    pub fn settle(&self, tally: &Tally) {
        self.received.fetch_add(tally.received(), Ordering::Relaxed);
        self.journalled.fetch_add(tally.journalled, Ordering::Relaxed);
        self.duplicate.fetch_add(tally.duplicate, Ordering::Relaxed);
        for (counter, count) in self.rejected.iter().zip(tally.rejected) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
        for (counter, count) in self.dropped.iter().zip(tally.dropped) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
        self.uncatalogued.fetch_add(tally.uncatalogued, Ordering::Relaxed);
    }

    /// The sums of everything that was settled, and how many were received.
    pub fn totals(&self) -> (u64, Tally) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let tally = Tally {
            journalled: load(&self.journalled),
            duplicate: load(&self.duplicate),
            rejected: std::array::from_fn(|reason| load(&self.rejected[reason])),
            dropped: std::array::from_fn(|reason| load(&self.dropped[reason])),
            uncatalogued: load(&self.uncatalogued),
        };
        (load(&self.received), tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_balance() {
        let counts = DoorCounts::default();
        let mut tally = Tally::default();
        tally.reject(RejectReason::Invalid, 3);
        tally.note(&Answer::Duplicate);
        tally.note(&Answer::Rejected(Rejection::TooOld));
        counts.settle(&tally);
        let mut refused = Tally::default();
        refused.refuse(&PublishError::Busy, 5);
        refused.refuse(&PublishError::TooMany { items: 9 }, 9);
        refused.refuse(&PublishError::DiskFull { free_bytes: 0, needed_bytes: 1 }, 2);
        counts.settle(&refused);
        let (received, totals) = counts.totals();
        assert_eq!((received, totals.received()), (21, 21));
        assert_eq!(totals.rejected, [3, 1, 0, 9, 0]);
        assert_eq!(totals.dropped, [5, 2, 0, 0]);
    }
}
