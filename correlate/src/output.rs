//! What applying entries yields: changes in their order, alarms that were only reported again, keyed records put or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Change;
use klaxon_schemas::child::NotTaken;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};

use crate::Engine;

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// It had its effect, which may be none.
    Applied,
    /// It had come before.
    Duplicate,
    /// Its number is below the window; it went to history only.
    TooOld,
    /// As many alarms are active as there may be; it went to history only.
    AlarmLimit,
    /// As many reporters have promised to be heard from as may; it went to history only.
    HeartbeatLimit,
    /// It does not fit what is known of the node below that it is from, or about; it had no effect.
    NotTaken(NotTaken),
}

/// What some entries led to, gathered until it is committed.
#[derive(Debug, Default)]
pub struct Output {
    changes: Vec<Arc<Change>>,
    touched: BTreeSet<AlarmId>,
    puts: BTreeMap<StateKey, Option<StateRecord>>,
    /// Where the changes begin that the last entry itself led to.
    own_from: usize,
}

/// What is to be committed.
#[derive(Debug)]
pub struct Results {
    /// The changes, contiguous in number.
    pub changes: Vec<Arc<Change>>,
    /// Alarms that were only reported again, as they are now.
    pub touched: Vec<Arc<Alarm>>,
    /// Keyed records: put, or deleted if `None`.
    pub puts: Vec<(StateKey, Option<StateRecord>)>,
    /// How far the engine has come.
    pub cursor: Cursor,
}

impl Output {
    /// The changes so far.
    pub fn changes(&self) -> &[Arc<Change>] {
        &self.changes
    }

    /// The changes that the entry applied last led to by itself. What was due before it came is not among them, though it
    /// happened as the entry was applied.
    pub fn own_changes(&self) -> &[Arc<Change>] {
        &self.changes[self.own_from..]
    }

    /// All of it, with the alarms as `engine` has them now; leaves this empty.
    pub fn take(&mut self, engine: &Engine) -> Results {
        let touched = std::mem::take(&mut self.touched);
        self.own_from = 0;
        Results {
            changes: std::mem::take(&mut self.changes),
            touched: touched.into_iter().filter_map(|id| engine.any_alarm(id).cloned()).collect(),
            puts: std::mem::take(&mut self.puts).into_iter().collect(),
            cursor: engine.cursor().clone(),
        }
    }

    pub(crate) fn begin_own(&mut self) {
        self.own_from = self.changes.len();
    }

    pub(crate) fn change(&mut self, change: Change) {
        if let klaxon_schemas::change::Subject::Alarm { alarm, .. } = &change.subject {
            self.touched.remove(&alarm.id);
        }
        self.changes.push(Arc::new(change));
    }

    pub(crate) fn touch(&mut self, id: AlarmId) {
        self.touched.insert(id);
    }

    pub(crate) fn put(&mut self, key: StateKey, record: StateRecord) {
        self.puts.insert(key, Some(record));
    }

    pub(crate) fn delete(&mut self, key: StateKey) {
        self.puts.insert(key, None);
    }
}
