//! The order in which notifications that have their numbers are sent: at most one about an alarm at a time, digests and gaps
//! alone, everything else side by side.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use klaxon_schemas::ids::AlarmId;

use super::What;

/// So often a notification has failed, and one more for each that waits, before another alarm is tried in its stead.
const WORN_TRIES: usize = 3;
/// So often a digest or gap has failed before what is behind it no longer waits for it.
const BARRIER_TRIES: u32 = 20;

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
    /// It was refused or failed together with others: it goes alone, so that it is known which of them was meant.
    pub(super) alone: bool,
    /// How often it failed after others had been confirmed since it failed before.
    pub(super) outdone: u32,
    /// How many deliveries were confirmed when it failed last.
    pub(super) confirmed_then: u64,
    not_before: Option<Instant>,
}

impl Parcel {
    /// One that was not tried yet.
    pub(super) fn new(number: u64, what: What, resent: bool) -> Self {
        Self { number, what, resent, tries: 0, refusals: 0, alone: false, outdone: 0, confirmed_then: 0, not_before: None }
    }

    /// It failed so often that it holds up nothing but what is about its alarm.
    fn is_worn(&self) -> bool {
        self.tries as usize >= WORN_TRIES
    }

    /// What is behind it waits for it.
    fn holds(&self) -> bool {
        self.what.is_barrier() && self.tries < BARRIER_TRIES
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|from| from <= now)
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
        let (mut place, mut is_clear) = (0, true);
        while place < self.ready.len() && batch.len() < max {
            let parcel = &self.ready[place];
            if parcel.holds() {
                if is_clear && self.under_way == 0 && batch.is_empty() && parcel.is_due(now) {
                    self.barrier = true;
                    batch.extend(self.ready.remove(place));
                }
                break;
            }
            let alarm = parcel.what.alarm();
            let alone = parcel.alone || parcel.what.is_barrier();
            let is_behind = alarm.is_some_and(|alarm| self.busy.contains(&alarm) || behind.contains(&alarm));
            if !parcel.is_due(now) || is_behind || (alone && !batch.is_empty()) {
                // What waits for one that failed often holds up a digest or gap as little as that.
                is_clear &= is_behind || parcel.is_worn();
                behind.extend(alarm);
                place += 1;
                continue;
            }
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

    /// One to find out whether the receiver is there again: the first, or if all failed often, the one that did least. If
    /// `fresh`, only one that was not tried yet.
    pub(super) fn take_probe(&mut self, now: Instant, fresh: bool) -> Option<Parcel> {
        if self.barrier {
            return None;
        }
        let places = self.heads().filter(|place| {
            let parcel = &self.ready[*place];
            let is_free = !parcel.holds() || self.under_way == 0;
            is_free && parcel.is_due(now) && (!fresh || parcel.tries == 0)
        });
        let tries = |place: &usize| Some(self.ready[*place].tries).filter(|_| self.ready[*place].is_worn());
        let parcel = places.min_by_key(tries).and_then(|place| self.ready.remove(place))?;
        self.barrier = parcel.holds();
        self.busy.extend(parcel.what.alarm());
        self.under_way += 1;
        Some(parcel)
    }

    /// Where those stand that wait for no other.
    fn heads(&self) -> impl Iterator<Item = usize> {
        let (mut seen, mut is_held, mut is_clear) = (self.busy.clone(), false, true);
        (0..self.ready.len()).filter(move |place| {
            let parcel = &self.ready[*place];
            let is_first = parcel.what.alarm().is_none_or(|alarm| seen.insert(alarm));
            let is_head = !is_held && is_first && (is_clear || !parcel.holds());
            is_held |= parcel.holds();
            is_clear &= !is_first || parcel.is_worn();
            is_head
        })
    }

    /// Whether all that waits for no other failed often: the more there are, the more often. Then it may be because of what they
    /// say, and another alarm is worth a try.
    pub(super) fn is_worn(&self) -> bool {
        let heads: Vec<_> = self.heads().map(|place| &self.ready[place]).collect();
        let is_worn = |parcel: &&Parcel| parcel.tries as usize >= WORN_TRIES + heads.len() && !parcel.holds();
        self.under_way == 0 && heads.iter().all(is_worn)
    }

    /// Whether all but one of them did, and that one was not tried yet.
    pub(super) fn has_fresh(&self) -> bool {
        let (fresh, tried): (Vec<_>, Vec<_>) =
            self.heads().map(|place| &self.ready[place]).partition(|parcel| parcel.tries == 0);
        self.under_way == 0 && fresh.len() == 1 && !tried.is_empty() && tried.iter().all(|parcel| parcel.is_worn())
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

    /// When the first of what waits for its time behind `now` may be tried.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.ready.iter().filter_map(|parcel| parcel.not_before).filter(|at| *at > now).min()
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
        assert_eq!(queue.next_due(now), Some(later));
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
