//! The numbers of one receiver: which were given out, what they stand for, and which are settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::notify::{Delivery, OUTBOX_ENTRIES_MAX, Outbox, OutboxEntry};

/// A last record with fewer entries than this is written again with what follows; so single notifications share records.
const APPEND_BELOW: usize = 8;
/// The most records that are given up in one step.
const TRIM_MAX: usize = 128;

/// A record to be put, or deleted.
pub(super) type OutboxPut = (u64, Option<Arc<Outbox>>);

/// The numbers.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) epoch: Epoch,
    pub(super) assigned: u64,
    pub(super) confirmed: u64,
    above: BTreeSet<u64>,
    /// What is needed from the journal for each number that is not settled.
    open: BTreeMap<u64, Position>,
    records: BTreeMap<u64, Arc<Outbox>>,
    replay_max: u64,
}

impl Ledger {
    /// The numbers of a new receiver, or of a new epoch.
    pub(super) fn new(epoch: Epoch, replay_max: u64) -> Self {
        Self {
            epoch,
            assigned: 0,
            confirmed: 0,
            above: BTreeSet::new(),
            open: BTreeMap::new(),
            records: BTreeMap::new(),
            replay_max,
        }
    }

    /// As it was kept.
    pub(super) fn load(delivery: &Delivery, records: BTreeMap<u64, Arc<Outbox>>, replay_max: u64) -> Self {
        let mut ledger = Self {
            epoch: delivery.epoch,
            assigned: delivery.assigned,
            confirmed: delivery.confirmed.min(delivery.assigned),
            above: delivery.confirmed_above.iter().copied().filter(|number| *number <= delivery.assigned).collect(),
            open: BTreeMap::new(),
            records,
            replay_max,
        };
        for (number, entry) in ledger.unsettled() {
            ledger.open.insert(number, position_of(&entry).unwrap_or(delivery.read));
        }
        ledger
    }

    /// What was given out and is not settled, in order.
    pub(super) fn unsettled(&self) -> Vec<(u64, OutboxEntry)> {
        let numbers = self.confirmed + 1..=self.assigned;
        let open = numbers.filter(|number| !self.above.contains(number));
        open.filter_map(|number| Some((number, self.entry(number)?.clone()))).collect()
    }

    /// Whether `number` was given out and is settled.
    pub(super) fn is_settled(&self, number: u64) -> bool {
        number <= self.confirmed || self.above.contains(&number)
    }

    /// Keeps nothing that is settled any more: their numbering is over.
    pub(super) fn end(&mut self) {
        self.replay_max = 0;
    }

    /// What `number` stands for, if that is kept.
    pub(super) fn entry(&self, number: u64) -> Option<&OutboxEntry> {
        let (first, outbox) = self.records.range(..=number).next_back()?;
        outbox.0.get(usize::try_from(number - first).ok()?)
    }

    /// The oldest number of which it is known what it stands for.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.records.first_key_value().map(|(first, _)| *first)
    }

    /// Gives the next numbers to `entries`, in order; each with what it needs of the journal. What is to be put for it.
    pub(super) fn assign(&mut self, entries: Vec<(OutboxEntry, Position)>) -> (Vec<u64>, Vec<OutboxPut>) {
        let mut numbers = Vec::with_capacity(entries.len());
        let mut touched = BTreeSet::new();
        for (entry, read) in entries {
            self.assigned += 1;
            let number = self.assigned;
            self.open.insert(number, position_of(&entry).unwrap_or(read));
            let first = self.record_for(number, &touched);
            let outbox = self.records.entry(first).or_insert_with(|| Arc::new(Outbox(Vec::new())));
            Arc::make_mut(outbox).0.push(entry);
            touched.insert(first);
            numbers.push(number);
        }
        let puts = touched.into_iter().map(|first| (first, self.records.get(&first).cloned())).collect();
        (numbers, puts)
    }

    /// Under which first number `number` goes.
    fn record_for(&self, number: u64, touched: &BTreeSet<u64>) -> u64 {
        match self.records.last_key_value() {
            Some((first, outbox)) if first + outbox.0.len() as u64 == number => {
                let room = if touched.contains(first) { OUTBOX_ENTRIES_MAX } else { APPEND_BELOW };
                if outbox.0.len() < room { *first } else { number }
            }
            _ => number,
        }
    }

    /// `number` is settled; whether it was not before.
    pub(super) fn settle(&mut self, number: u64) -> bool {
        if self.open.remove(&number).is_none() {
            return false;
        }
        self.above.insert(number);
        while self.above.remove(&(self.confirmed + 1)) {
            self.confirmed += 1;
        }
        true
    }

    /// Up to where nothing of the journal is needed for what was given out, given how far was read.
    pub(super) fn needs_behind(&self, read: Position) -> Position {
        let first = self.open.values().min().map_or(read, |position| Position(position.0.saturating_sub(1)));
        first.min(read)
    }

    /// Gives up records that are not to be sent again, some at a time.
    pub(super) fn trim(&mut self) -> Vec<OutboxPut> {
        let keep_from = (self.confirmed + 1).saturating_sub(self.replay_max);
        let over = |first: &u64, outbox: &Arc<Outbox>| first + outbox.0.len() as u64 <= keep_from;
        let gone = self.records.iter().take_while(|(first, outbox)| over(first, outbox)).take(TRIM_MAX);
        let gone: Vec<u64> = gone.map(|(first, _)| *first).collect();
        gone.into_iter().filter_map(|first| self.records.remove(&first).map(|_| (first, None))).collect()
    }

    /// All records, for when their numbering is over.
    pub(super) fn record_keys(&self) -> impl Iterator<Item = u64> {
        self.records.keys().copied()
    }

    /// Settled numbers above [`Self::confirmed`].
    pub(super) fn confirmed_above(&self) -> Vec<u64> {
        self.above.iter().copied().collect()
    }
}

/// Where the change stands that the entry is made of.
fn position_of(entry: &OutboxEntry) -> Option<Position> {
    match entry {
        OutboxEntry::Alarm(alarm) => alarm.position,
        OutboxEntry::Log { position, .. } => Some(*position),
        OutboxEntry::Digest { .. } | OutboxEntry::Gap { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(position: u64) -> (OutboxEntry, Position) {
        (OutboxEntry::Log { position: Position(position), place: None }, Position(position))
    }

    fn load(ledger: &Ledger) -> Ledger {
        let delivery = Delivery {
            epoch: ledger.epoch,
            assigned: ledger.assigned,
            confirmed: ledger.confirmed,
            confirmed_above: ledger.confirmed_above(),
            read: Position(1000),
            read_seq: None,
            read_mirrored: 0,
            places: BTreeMap::new(),
            filter: String::new(),
            realign: None,
        };
        Ledger::load(&delivery, ledger.records.clone(), ledger.replay_max)
    }

    #[test]
    fn numbers_settle_in_any_order_and_what_they_need_of_the_journal_is_known() {
        let mut ledger = Ledger::new(Epoch(1), 4);
        for position in [10, 20, 30] {
            ledger.assign(vec![log(position)]);
        }
        assert_eq!(ledger.needs_behind(Position(30)), Position(9));
        assert!(ledger.settle(2) && !ledger.settle(2));
        assert_eq!((ledger.confirmed, ledger.confirmed_above()), (0, vec![2]));
        let again = load(&ledger);
        assert_eq!(again.unsettled(), [(1, log(10).0), (3, log(30).0)]);
        assert_eq!(again.needs_behind(Position(30)), Position(9));
        assert!(ledger.settle(1));
        assert_eq!((ledger.confirmed, ledger.needs_behind(Position(30))), (2, Position(29)));
        assert!(ledger.settle(3));
        assert_eq!(ledger.needs_behind(Position(30)), Position(30));
    }

    #[test]
    fn single_notifications_share_records_and_the_oldest_are_given_up() {
        let mut ledger = Ledger::new(Epoch(1), 4);
        for number in 1..=20 {
            let (numbers, puts) = ledger.assign(vec![log(number)]);
            assert_eq!((numbers, puts.len()), (vec![number], 1));
        }
        assert_eq!(ledger.record_keys().collect::<Vec<_>>(), [1, 9, 17]);
        let (_, puts) = ledger.assign((21..=100).map(log).collect());
        let lens: Vec<_> = puts.iter().map(|(first, put)| (*first, put.as_ref().map_or(0, |put| put.0.len()))).collect();
        assert_eq!(lens, [(17, 32), (49, 32), (81, 20)]);
        assert!((1..=100).all(|number| ledger.entry(number) == Some(&log(number).0)) && ledger.entry(101).is_none());
        assert!(ledger.trim().is_empty());
        assert!((1..=100).all(|number| ledger.settle(number)));
        assert_eq!(ledger.trim().len(), 4, "the last record holds what may be asked for again");
        assert_eq!((ledger.oldest(), ledger.entry(97).is_some()), (Some(81), true));
    }
}
