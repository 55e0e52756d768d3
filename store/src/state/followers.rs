//! Who follows the changes, and which records each of them keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::Follower;
use klaxon_schemas::notify::{Outbox, Told};
use klaxon_schemas::state::{Followed, StateKey, StateRecord};

use super::State;

/// The followers, by name.
#[derive(Debug, Default)]
pub(super) struct Followers {
    cursors: BTreeMap<Follower, Followed>,
    told: BTreeMap<Follower, BTreeSet<AlarmId>>,
    outboxes: BTreeMap<Follower, BTreeSet<u64>>,
}

impl Followers {
    /// The record under `key` is this, or is gone.
    pub(super) fn note(&mut self, key: &StateKey, record: Option<&StateRecord>) {
        match (key, record) {
            (StateKey::Follower(follower), Some(StateRecord::Followed(followed))) => {
                self.cursors.insert(follower.clone(), followed.clone());
            }
            (StateKey::Follower(follower), _) => {
                self.cursors.remove(follower);
            }
            (StateKey::Told(follower, alarm), record) => keep(&mut self.told, follower, *alarm, record.is_some()),
            (StateKey::Outbox(follower, first), record) => keep(&mut self.outboxes, follower, *first, record.is_some()),
            _ => {}
        }
    }
}

fn keep<K: Ord>(kept: &mut BTreeMap<Follower, BTreeSet<K>>, follower: &Follower, key: K, is_there: bool) {
    match kept.get_mut(follower) {
        Some(keys) if is_there => {
            keys.insert(key);
        }
        Some(keys) => {
            keys.remove(&key);
            if keys.is_empty() {
                kept.remove(follower);
            }
        }
        None if is_there => {
            kept.insert(follower.clone(), BTreeSet::from([key]));
        }
        None => {}
    }
}

impl State {
    /// Who follows the changes with a cursor that is kept, and how far each has come.
    pub fn followers(&self) -> &BTreeMap<Follower, Followed> {
        &self.followers.cursors
    }

    /// How far the slowest follower has come.
    pub(crate) fn followed(&self) -> Option<Position> {
        self.followers.cursors.values().map(|followed| followed.position).min()
    }

    /// Everybody of whom anything is kept, and how many records each has.
    pub fn keepers(&self) -> BTreeMap<Follower, usize> {
        let Followers { cursors, told, outboxes } = &self.followers;
        let mut keepers = BTreeMap::new();
        let rows = cursors.keys().map(|follower| (follower, 1));
        let rows = rows.chain(told.iter().map(|(follower, keys)| (follower, keys.len())));
        for (follower, count) in rows.chain(outboxes.iter().map(|(follower, keys)| (follower, keys.len()))) {
            *keepers.entry(follower.clone()).or_default() += count;
        }
        keepers
    }

    /// At most `limit` of what `follower` was told of alarms, behind `after`, by id.
    pub fn told_behind(&self, follower: &Follower, after: Option<AlarmId>, limit: usize) -> Vec<(AlarmId, Arc<Told>)> {
        let Some(keys) = self.followers.told.get(follower) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = keys.range((from, Bound::Unbounded)).take(limit);
        let told = keys.filter_map(|id| match self.record(&StateKey::Told(follower.clone(), *id)) {
            Some(StateRecord::Told(told)) => Some((*id, Arc::clone(told))),
            _ => None,
        });
        told.collect()
    }

    /// At most `limit` records of what the numbers of `follower` stand for, from the record `first` on, by their first number.
    pub fn outbox_from(&self, follower: &Follower, first: u64, limit: usize) -> Vec<(u64, Arc<Outbox>)> {
        let Some(keys) = self.followers.outboxes.get(follower) else { return Vec::new() };
        let outboxes = keys.range(first..).take(limit);
        let outboxes = outboxes.filter_map(|first| match self.record(&StateKey::Outbox(follower.clone(), *first)) {
            Some(StateRecord::Outbox(outbox)) => Some((*first, Arc::clone(outbox))),
            _ => None,
        });
        outboxes.collect()
    }
}
