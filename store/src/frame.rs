//! What is committed at once.

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Change;
use klaxon_schemas::entry::Entry;
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};

/// One commit: there whole, or not at all. Its records take positions in the order entries, changes, alarms, touched, puts, cursor.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// What came in, at the positions that the writer said.
    pub entries: Vec<Entry>,
    /// What followed from the entries applied so far; absent while entries run ahead.
    pub results: Option<Results>,
}

/// What followed from entries.
#[derive(Debug, Clone, Default)]
pub struct Results {
    /// The changes, in order.
    pub changes: Vec<Arc<Change>>,
    /// Alarms as they are, where the changes that led there are not known: those of a state that was kept elsewhere.
    pub alarms: Vec<Arc<Alarm>>,
    /// The alarms that were only reported again, as they are now; each at most once, and after its changes.
    pub touched: Vec<Arc<Alarm>>,
    /// The engine's keyed records: put, or deleted where there is none.
    pub puts: Vec<(StateKey, Option<StateRecord>)>,
    /// How far the engine has come.
    pub cursor: Cursor,
}

impl Frame {
    /// How many records, and so positions, it takes.
    pub fn records(&self) -> u64 {
        let results = self.results.as_ref().map_or(0, Results::records);
        self.entries.len() as u64 + results
    }
}

impl Results {
    /// How many records it takes.
    fn records(&self) -> u64 {
        (self.changes.len() + self.alarms.len() + self.touched.len() + self.puts.len()) as u64 + 1
    }
}
