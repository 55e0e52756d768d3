//! The order in which notifications that have their numbers are sent: at most one about an alarm at a time, digests and gaps
//! alone, everything else side by side.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use klaxon_schemas::ids::AlarmId;

use super::What;

/// One notification on its way.
#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) number: u64,
    pub(super) what: What,
    pub(super) resent: bool,
    /// How often it was tried.
    pub(super) tries: u32,
    /// How often the receiver refused it.
    pub(super) refusals: u32,
    /// It was refused together with others: it goes alone, so that it is known which of them was meant.
    pub(super) alone: bool,
    not_before: Option<Instant>,
}

impl Parcel {
    /// One that was not tried yet.
    pub(super) fn new(number: u64, what: What, resent: bool) -> Self {
        Self { number, what, resent, tries: 0, refusals: 0, alone: false, not_before: None }
    }
}

/// What waits and what is under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: VecDeque<Parcel>,
    busy: HashSet<AlarmId>,
    under_way: usize,
    barrier: bool,
}

impl Queue {
    /// How many there are, those under way with them.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.under_way
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Puts it behind the others.
    pub(super) fn push(&mut self, parcel: Parcel) {
        self.ready.push_back(parcel);
    }

    /// The next delivery, at most `max`: what is first, without anything that must wait for another.
    pub(super) fn take(&mut self, now: Instant, max: usize) -> Vec<Parcel> {
        if self.barrier {
            return Vec::new();
        }
        let mut batch: Vec<Parcel> = Vec::new();
        let mut behind: HashSet<AlarmId> = HashSet::new();
        let mut place = 0;
        while place < self.ready.len() && batch.len() < max {
            let parcel = &self.ready[place];
            if parcel.what.is_barrier() {
                let is_free = place == 0 && self.under_way == 0 && batch.is_empty();
                if is_free && parcel.not_before.is_none_or(|from| from <= now) {
                    self.barrier = true;
                    batch.extend(self.ready.pop_front());
                }
                break;
            }
            let alarm = parcel.what.alarm();
            let must_wait = parcel.not_before.is_some_and(|from| from > now)
                || alarm.is_some_and(|alarm| self.busy.contains(&alarm) || behind.contains(&alarm))
                || (parcel.alone && !batch.is_empty());
            if must_wait {
                behind.extend(alarm);
                place += 1;
                continue;
            }
            let alone = parcel.alone;
            behind.extend(alarm);
            batch.extend(self.ready.remove(place));
            if alone {
                break;
            }
        }
        self.busy.extend(batch.iter().filter_map(|parcel| parcel.what.alarm()));
        self.under_way += batch.len();
        batch
    }

    /// It is settled.
    pub(super) fn done(&mut self, parcel: &Parcel) {
        self.under_way -= 1;
        if let Some(alarm) = parcel.what.alarm() {
            self.busy.remove(&alarm);
        }
        if parcel.what.is_barrier() {
            self.barrier = false;
        }
    }

    /// It was not delivered, and goes back to its place, not to be tried before that time.
    pub(super) fn again(&mut self, mut parcel: Parcel, not_before: Instant) {
        self.done(&parcel);
        parcel.not_before = Some(not_before);
        // What is sent again on request stands before the rest, in its own order.
        let place = self.ready.partition_point(|other| (!other.resent, other.number) < (!parcel.resent, parcel.number));
        self.ready.insert(place, parcel);
    }

    /// The receiver is there again: what failed may be tried at once.
    pub(super) fn hurry(&mut self) {
        for parcel in self.ready.iter_mut().filter(|parcel| parcel.refusals == 0) {
            parcel.not_before = None;
        }
    }

    /// When the first of what waits for its time may be tried.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.ready.iter().filter_map(|parcel| parcel.not_before).min()
    }

    /// What is to be sent again, in order, goes before the rest. What of it waits already goes in its place.
    pub(super) fn push_resent(&mut self, parcels: Vec<Parcel>) {
        let asked: HashSet<u64> = parcels.iter().map(|parcel| parcel.number).collect();
        self.ready.retain(|parcel| !(parcel.resent && asked.contains(&parcel.number)));
        let place = self.ready.partition_point(|other| other.resent);
        let rest = self.ready.split_off(place);
        self.ready.extend(parcels);
        self.ready.make_contiguous().sort_by_key(|parcel| parcel.number);
        self.ready.extend(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klaxon_schemas::ids::Position;
    use klaxon_schemas::notify::{Gap, GapReason, How};
    use std::sync::Arc;
    use std::time::Duration;

    fn parcel(number: u64, alarm: u128) -> Parcel {
        let told = serde_json::from_value(serde_json::json!({
            "key": {"site": "s", "resource": "host=a", "alarm_type": "t"}, "raise_seq": 1, "severity": "major",
            "number": {"epoch": 1, "seq": number}, "raised_at": "2026-11-22T03:12:00Z"
        }));
        let id = AlarmId(uuid::Uuid::from_u128(alarm));
        let alarm = super::super::plan::remains(id, &told.expect("is sound"), Default::default());
        let what = What::Alarm { how: How::Cleared, change: None, alarm: Arc::new(alarm), suppressed: false };
        Parcel::new(number, what, false)
    }

    fn gap(number: u64) -> Parcel {
        let gap = Gap { reason: GapReason::Retention, from: Position(1), to: Position(2), changes: None };
        Parcel::new(number, What::Gap(gap), false)
    }

    fn numbers(batch: &[Parcel]) -> Vec<u64> {
        batch.iter().map(|parcel| parcel.number).collect()
    }

    #[test]
    fn an_alarm_is_told_in_order_and_others_pass_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (number, alarm) in [(1, 7), (2, 7), (3, 8), (4, 7), (5, 9)] {
            queue.push(parcel(number, alarm));
        }
        let first = queue.take(now, 2);
        assert_eq!(numbers(&first), [1, 3]);
        assert_eq!(numbers(&queue.take(now, 9)), [5]);
        assert!(queue.take(now, 9).is_empty());
        let later = now + Duration::from_secs(3);
        queue.again(first[0].clone(), later);
        assert!(queue.take(now, 9).is_empty(), "what is behind a failed one waits for it");
        assert_eq!(queue.next_due(), Some(later));
        assert_eq!(numbers(&queue.take(later, 9)), [1]);
        queue.done(&first[0]);
        assert_eq!(numbers(&queue.take(now, 9)), [2]);
        assert_eq!((queue.len(), queue.waiting()), (4, 1));
    }

    #[test]
    fn a_gap_goes_alone() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(parcel(1, 7));
        queue.push(gap(2));
        queue.push(parcel(3, 8));
        let first = queue.take(now, 9);
        assert_eq!(numbers(&first), [1]);
        assert!(queue.take(now, 9).is_empty());
        queue.done(&first[0]);
        let gap = queue.take(now, 9);
        assert_eq!(numbers(&gap), [2]);
        assert!(queue.take(now, 9).is_empty());
        queue.again(gap[0].clone(), now + Duration::from_secs(1));
        assert!(queue.take(now, 9).is_empty());
        queue.hurry();
        assert_eq!(numbers(&queue.take(now, 9)), [2]);
        queue.done(&gap[0]);
        assert_eq!(numbers(&queue.take(now, 9)), [3]);
    }
}
