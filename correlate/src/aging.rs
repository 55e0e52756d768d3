//! Records that are forgotten: after a time, or when there are too many, the oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klaxon_schemas::state::StateKey;
use klaxon_schemas::time::JournalTime;

/// Keys in the order in which they are forgotten.
#[derive(Default)]
pub(crate) struct Aging {
    order: BTreeSet<(JournalTime, StateKey)>,
    since: BTreeMap<StateKey, JournalTime>,
}

impl Aging {
    /// Notes that the record `key` was made, or used again, at `at`.
    pub(crate) fn note(&mut self, key: StateKey, at: JournalTime) {
        if let Some(before) = self.since.insert(key.clone(), at) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((at, key));
    }

    pub(crate) fn has(&self, key: &StateKey) -> bool {
        self.since.contains_key(key)
    }

    pub(crate) fn remove(&mut self, key: &StateKey) {
        if let Some(since) = self.since.remove(key) {
            self.order.remove(&(since, key.clone()));
        }
    }

    /// The next record that is to be forgotten at `now`: the oldest, if its `lifetime` is over or more than `count_max` are held.
    pub(crate) fn pop(&mut self, now: JournalTime, lifetime: Option<Duration>, count_max: usize) -> Option<StateKey> {
        let (since, _) = self.order.first()?;
        if self.order.len() <= count_max && lifetime.is_none_or(|lifetime| *since + lifetime > now) {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.since.remove(&key);
        Some(key)
    }
}
