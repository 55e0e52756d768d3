//! The order in which notifications that have their numbers are sent: at most one about an alarm at a time, digests and gaps
//! alone, everything else side by side; or, if alarms are grouped, group by group.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use klaxon_schemas::ids::AlarmId;

use super::What;
use super::group::{GroupKey, Groups};

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
    /// The group that it is sent with, if it waits for others.
    pub(super) group: Option<GroupKey>,
    not_before: Option<Instant>,
}

impl Parcel {
    /// One that was not tried yet.
    pub(super) fn new(number: u64, what: What, resent: bool) -> Self {
        let (tries, refusals, outdone, confirmed_then) = (0, 0, 0, 0);
        let (alone, group, not_before) = (false, None, None);
        Self { number, what, resent, tries, refusals, alone, outdone, confirmed_then, group, not_before }
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

    /// The next delivery of a receiver whose alarms are grouped, at most `max`: what waits of the first group that may be sent, in
    /// its order, also several of one alarm; or one that has no group. Groups wait no longer if `hurries`, or if a digest or gap
    /// waits for them.
    pub(super) fn take_group(&mut self, now: Instant, max: usize, groups: &mut Groups, hurries: bool) -> Vec<Parcel> {
        if self.barrier {
            return Vec::new();
        }
        let barrier = self.ready.iter().position(Parcel::holds);
        let Some(first) = self.first_of_group(now, groups, barrier, hurries) else { return Vec::new() };
        let group = self.ready[first].group.clone().filter(|_| !self.ready[first].alone);
        let mut batch: Vec<Parcel> = self.ready.remove(first).into_iter().collect();
        self.barrier = batch.iter().any(Parcel::holds);
        if let Some(key) = group {
            let mut behind: HashSet<AlarmId> = HashSet::new();
            let (mut place, mut end) = (0, barrier.map_or(self.ready.len(), |barrier| barrier - 1));
            let mut is_full = false;
            while place < end {
                let parcel = &self.ready[place];
                let alarm = parcel.what.alarm();
                let is_behind = alarm.is_some_and(|alarm| self.busy.contains(&alarm) || behind.contains(&alarm));
                if parcel.group.as_ref() == Some(&key) && !parcel.alone && parcel.is_due(now) && !is_behind {
                    if batch.len() == max {
                        is_full = true;
                        break;
                    }
                    batch.extend(self.ready.remove(place));
                    end -= 1;
                } else {
                    behind.extend(alarm);
                    place += 1;
                }
            }
            if !is_full {
                // What goes alone waits for nobody.
                let is_left = self.ready.iter().any(|parcel| parcel.group.as_ref() == Some(&key) && !parcel.alone);
                groups.sent(&key, is_left, now);
            }
            groups.goes(&key);
        }
        self.busy.extend(batch.iter().filter_map(|parcel| parcel.what.alarm()));
        self.under_way += batch.len();
        batch
    }

    /// Where the first stands that may be sent now.
    fn first_of_group(&self, now: Instant, groups: &Groups, barrier: Option<usize>, hurries: bool) -> Option<usize> {
        let mut behind: HashSet<AlarmId> = HashSet::new();
        let end = barrier.unwrap_or(self.ready.len());
        for (place, parcel) in self.ready.iter().take(end).enumerate() {
            let alarm = parcel.what.alarm();
            let is_behind = alarm.is_some_and(|alarm| self.busy.contains(&alarm) || behind.contains(&alarm));
            let may_go = parcel.group.as_ref().is_none_or(|key| {
                let has_waited = hurries || barrier.is_some() || parcel.tries > 0 || parcel.resent || groups.is_due(key, now);
                has_waited && !groups.is_busy(key)
            });
            if may_go && !is_behind && parcel.is_due(now) {
                return Some(place);
            }
            behind.extend(alarm);
        }
        // What it waits for has gone, or failed so often that nothing waits for it.
        let is_clear = self.under_way == 0 && self.ready.iter().take(end).all(Parcel::is_worn);
        barrier.filter(|place| is_clear && self.ready[*place].is_due(now))
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

    /// What is here waits no longer for others of its group.
    pub(super) fn hurry_groups(&self, groups: Option<&mut Groups>, now: Instant) {
        if let Some(groups) = groups {
            self.ready.iter().filter_map(|parcel| parcel.group.as_ref()).for_each(|key| groups.hurry(key, now));
        }
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

    /// Everything is one group that waits for long.
    fn groups() -> Groups {
        let long = Duration::from_secs(3600);
        Groups::new(crate::notify::Grouping { by: Vec::new(), wait: long, interval: long })
    }

    fn waiting(groups: &mut Groups, mut parcel: Parcel, now: Instant) -> Parcel {
        parcel.group = groups.wait(&parcel.what, now);
        parcel
    }

    #[test]
    fn a_group_goes_as_a_whole_and_one_at_a_time() {
        let (mut queue, mut groups, now) = (Queue::default(), groups(), Instant::now());
        for (number, alarm) in [(1, 7), (2, 8), (3, 7)] {
            queue.push(waiting(&mut groups, parcel(number, alarm), now));
        }
        assert!(queue.take_group(now, 9, &mut groups, false).is_empty());
        let later = now + Duration::from_secs(3600);
        let first = queue.take_group(later, 2, &mut groups, false);
        assert_eq!(numbers(&first), [1, 2]);
        assert!(queue.take_group(later, 9, &mut groups, true).is_empty(), "the group is on its way");
        let key = first[0].group.clone().expect("has one");
        groups.landed(&key, later);
        for parcel in first {
            queue.again(parcel, later + Duration::from_secs(1));
        }
        assert!(numbers(&queue.take_group(later, 9, &mut groups, true)).is_empty(), "what is behind a failed one waits for it");
        let again = queue.take_group(later + Duration::from_secs(1), 9, &mut groups, false);
        assert_eq!(numbers(&again), [1, 2, 3], "in its order, also of one alarm");
    }

    #[test]
    fn in_a_group_nothing_passes_what_its_alarm_waits_for() {
        let (mut queue, mut groups, now) = (Queue::default(), groups(), Instant::now());
        for (number, alarm) in [(1, 7), (2, 8)] {
            queue.push(waiting(&mut groups, parcel(number, alarm), now));
        }
        let batch = queue.take_group(now, 9, &mut groups, true);
        groups.landed(batch[0].group.as_ref().expect("has one"), now);
        let (soon, later) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        for (parcel, not_before) in batch.into_iter().zip([later, soon]) {
            queue.again(Parcel { tries: 1, ..parcel }, not_before);
        }
        queue.push(waiting(&mut groups, parcel(3, 7), now));
        queue.push(waiting(&mut groups, parcel(4, 9), now));
        assert_eq!(numbers(&queue.take_group(soon, 9, &mut groups, false)), [2, 4]);
    }

    #[test]
    fn what_goes_alone_leaves_nothing_behind_that_waits() {
        let (mut queue, mut groups, now) = (Queue::default(), groups(), Instant::now());
        queue.push(waiting(&mut groups, parcel(1, 7), now));
        queue.push(waiting(&mut groups, parcel(2, 8), now));
        let batch = queue.take_group(now, 9, &mut groups, true);
        let key = batch[0].group.clone().expect("has one");
        groups.landed(&key, now);
        let later = now + Duration::from_secs(9);
        batch.into_iter().for_each(|parcel| queue.again(Parcel { alone: true, tries: 1, ..parcel }, later));
        queue.push(waiting(&mut groups, parcel(3, 9), now));
        assert_eq!(numbers(&queue.take_group(now, 9, &mut groups, true)), [3]);
        groups.landed(&key, now);
        assert_eq!(groups.next_due(now), None, "nothing waits for others");
        assert_eq!(numbers(&queue.take_group(later, 9, &mut groups, false)), [1]);
        assert_eq!(numbers(&queue.take_group(later, 9, &mut groups, false)), [2]);
        // What comes then waits as long as it should, not since then.
        queue.push(waiting(&mut groups, parcel(4, 9), now + Duration::from_secs(7200)));
        assert_eq!(groups.next_due(now), Some(now + Duration::from_secs(3 * 3600)));
    }

    #[test]
    fn a_gap_hurries_what_it_waits_for() {
        let (mut queue, mut groups, now) = (Queue::default(), groups(), Instant::now());
        queue.push(waiting(&mut groups, parcel(1, 7), now));
        queue.push(gap(2));
        queue.push(waiting(&mut groups, parcel(3, 8), now));
        let first = queue.take_group(now, 9, &mut groups, false);
        assert_eq!(numbers(&first), [1]);
        assert!(queue.take_group(now, 9, &mut groups, false).is_empty());
        groups.landed(first[0].group.as_ref().expect("has one"), now);
        queue.done(&first[0]);
        let gap = queue.take_group(now, 9, &mut groups, false);
        assert_eq!(numbers(&gap), [2]);
        queue.done(&gap[0]);
        assert!(queue.take_group(now, 9, &mut groups, false).is_empty(), "what came behind it waits for others");
        assert_eq!(numbers(&queue.take_group(now, 9, &mut groups, true)), [3]);
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
