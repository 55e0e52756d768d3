//! What was kept of a receiver at another node, in terms of this node's copy of the changes: the same places have other positions here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use klaxon_schemas::change::Place;
use klaxon_schemas::ids::{AlarmId, Position, Seq};
use klaxon_schemas::names::Follower;
use klaxon_schemas::notify::{Delivery, Outbox, OutboxEntry, Realign, Told};
use klaxon_schemas::state::{Copied, Followed, StateKey, StateRecord};
use klaxon_store::{HISTORY_LIMIT_MAX, HistoryQuery, Order, ReadError, StateRead, Store};

use super::Puts;

/// How many changes before those that are still to be looked at are searched for what was told and may be asked for again.
const BACK_CHANGES_MAX: usize = 20_000;

/// What was kept of one receiver.
#[derive(Debug, Default)]
pub(super) struct Kept {
    followed: Option<Followed>,
    told: BTreeMap<AlarmId, Arc<Told>>,
    outbox: BTreeMap<u64, Arc<Outbox>>,
}

/// Where the walk back through the history has come to.
#[derive(Debug)]
struct Found {
    /// The position behind which all stands that is to be looked at.
    read: Position,
    /// How many changes stand there.
    behind: u64,
    /// Where the changes are that numbers stand for.
    places: HashMap<(u16, i64), Position>,
    /// Some of what is to be looked at is not here any more.
    lost: bool,
}

/// How far a partition has been copied.
pub(super) fn copied(state: &StateRead<'_>, partition: u16) -> Option<Copied> {
    match state.record(&StateKey::Partition(partition)) {
        Some(StateRecord::Copied(copied)) => Some(*copied),
        _ => None,
    }
}

/// All that is kept here of a receiver.
pub(super) fn keys(state: &StateRead<'_>, name: &Follower) -> Vec<StateKey> {
    let told = state.state().told_behind(name, None, usize::MAX).into_iter();
    let outbox = state.state().outbox_from(name, 0, usize::MAX).into_iter();
    let told = told.map(|(id, _)| StateKey::Told(name.clone(), id));
    let outbox = outbox.map(|(first, _)| StateKey::Outbox(name.clone(), first));
    let followed = state.state().followers().contains_key(name).then(|| StateKey::Follower(name.clone()));
    told.chain(outbox).chain(followed).collect()
}

impl Kept {
    /// By the receivers.
    pub(super) fn sort(records: HashMap<StateKey, StateRecord>) -> BTreeMap<Follower, Self> {
        let mut all: BTreeMap<Follower, Self> = BTreeMap::new();
        for (key, record) in records {
            match (key, record) {
                (StateKey::Follower(name), StateRecord::Followed(followed)) => {
                    all.entry(name).or_default().followed = Some(followed);
                }
                (StateKey::Told(name, id), StateRecord::Told(told)) => drop(all.entry(name).or_default().told.insert(id, told)),
                (StateKey::Outbox(name, first), StateRecord::Outbox(outbox)) => {
                    all.entry(name).or_default().outbox.insert(first, outbox);
                }
                _ => {}
            }
        }
        all
    }

    /// What is to be put here in its stead; nothing if this copy does not have yet what it was told from. It reads the disk.
    pub(super) fn local(&self, name: &Follower, store: &Store) -> Result<Option<Puts>, ReadError> {
        let (stale, has, head, mirrored) = {
            let state = store.read();
            let copied = (0..).map_while(|partition| copied(&state, partition));
            let has: Vec<i64> = copied.map(|copied| copied.changes).collect();
            (keys(&state, name), has, state.position(), state.cursor().mirrored)
        };
        let mut puts: BTreeMap<StateKey, Option<StateRecord>> = stale.into_iter().map(|key| (key, None)).collect();
        let Some(delivery) = self.followed.as_ref().and_then(|followed| followed.delivery.clone()) else {
            return Ok(Some(puts.into_iter().collect()));
        };
        let is_here = |(partition, next): (&u16, &i64)| has.get(usize::from(*partition)).is_some_and(|has| has >= next);
        if !delivery.places.iter().all(is_here) {
            return Ok(None);
        }
        let found = self.walk_back(&delivery, &has, head, store)?;
        for (id, told) in &self.told {
            // What it was told of how things stood is known by the alarm's number where this copy has it further on.
            let seen = told.seen.filter(|seen| *seen <= delivery.read).map(|_| found.read);
            let told = Arc::new(Told { seen, ..(**told).clone() });
            puts.insert(StateKey::Told(name.clone(), *id), Some(StateRecord::Told(told)));
        }
        let mut needed = found.read;
        for (first, outbox) in &self.outbox {
            let entries = outbox.0.iter().map(|entry| here(entry, &found.places)).collect();
            puts.insert(StateKey::Outbox(name.clone(), *first), Some(StateRecord::Outbox(Arc::new(Outbox(entries)))));
        }
        for (_, entry) in self.entries().filter(|(number, _)| is_open(&delivery, *number)) {
            let position = place_of(entry).and_then(|place| found.places.get(&(place.partition, place.next)));
            needed = position.map_or(needed, |position| needed.min(Position(position.0.saturating_sub(1))));
        }
        let delivery = Delivery {
            read: found.read,
            read_seq: Some(Seq(0)),
            read_mirrored: mirrored.saturating_sub(found.behind),
            realign: if found.lost { Some(Realign::Lost) } else { delivery.realign },
            ..*delivery
        };
        let followed = Followed { position: needed, delivery: Some(Box::new(delivery)) };
        puts.insert(StateKey::Follower(name.clone()), Some(StateRecord::Followed(followed)));
        Ok(Some(puts.into_iter().collect()))
    }

    fn entries(&self) -> impl Iterator<Item = (u64, &OutboxEntry)> {
        self.outbox.iter().flat_map(|(first, outbox)| (*first..).zip(&outbox.0))
    }

    /// From where this copy is, back until all that was not looked at has been met, and what numbers stand for that are not settled.
    fn walk_back(&self, delivery: &Delivery, has: &[i64], head: Position, store: &Store) -> Result<Found, ReadError> {
        let looked_at = |partition: u16| delivery.places.get(&partition).copied().unwrap_or_default();
        let mut open: BTreeSet<u16> =
            (0..).zip(has).filter(|(partition, has)| **has > looked_at(*partition)).map(|(partition, _)| partition).collect();
        let (mut needed, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        for (number, entry) in self.entries() {
            let Some(place) = place_of(entry) else { continue };
            let of = if is_open(delivery, number) { &mut needed } else { &mut wanted };
            of.insert((place.partition, place.next));
        }
        let mut found = Found { read: head, behind: 0, places: HashMap::new(), lost: false };
        let mut query = HistoryQuery {
            order: Order::Descending,
            cursor: Some(head.plus(1)),
            limit: HISTORY_LIMIT_MAX,
            ..HistoryQuery::default()
        };
        let (mut met, mut back) = (0, 0);
        loop {
            let is_enough = open.is_empty() && needed.is_empty();
            if is_enough && (wanted.is_empty() || back >= BACK_CHANGES_MAX) {
                return Ok(found);
            }
            let page = store.history(&query)?;
            for (position, change) in &page.items {
                met += 1;
                back += usize::from(open.is_empty() && needed.is_empty());
                let Some(place) = change.place else { continue };
                let key = (place.partition, place.next);
                if needed.remove(&key) || wanted.remove(&key) {
                    found.places.insert(key, *position);
                }
                let from = looked_at(place.partition);
                if place.next > from {
                    (found.read, found.behind) = (Position(position.0.saturating_sub(1)), met);
                    if place.from <= from {
                        open.remove(&place.partition);
                    }
                }
            }
            let Some(next) = page.next else {
                // Here it ends.
                found.lost = !open.is_empty();
                return Ok(found);
            };
            query.cursor = Some(next);
        }
    }
}

fn is_open(delivery: &Delivery, number: u64) -> bool {
    number > delivery.confirmed && number <= delivery.assigned && !delivery.confirmed_above.contains(&number)
}

fn place_of(entry: &OutboxEntry) -> Option<Place> {
    match entry {
        OutboxEntry::Alarm(alarm) => alarm.place,
        OutboxEntry::Log { place, .. } => *place,
        OutboxEntry::Digest { .. } | OutboxEntry::Gap { .. } => None,
    }
}

/// The entry, with the position that its change has here. One that is not here is told from what is left of it.
fn here(entry: &OutboxEntry, places: &HashMap<(u16, i64), Position>) -> OutboxEntry {
    let position = |place: Option<Place>| place.and_then(|place| places.get(&(place.partition, place.next)).copied());
    let mut entry = entry.clone();
    match &mut entry {
        OutboxEntry::Alarm(alarm) => alarm.position = position(alarm.place),
        OutboxEntry::Log { position: at, place } => *at = position(*place).unwrap_or_default(),
        OutboxEntry::Digest { .. } | OutboxEntry::Gap { .. } => {}
    }
    entry
}
