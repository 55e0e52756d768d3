//! The present state.
mod query;
use std::collections::BTreeMap;
use std::sync::Arc;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Cursor, Shelf, StateKey, StateRecord, Suppression};
pub use query::*;

/// The alarms and the engine's keyed records as of a position.
#[derive(Debug, Default)]
pub struct State {}

/// How many alarms there are of what kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Those that are not cleared, by site. A site without any is not listed.
    pub sites: BTreeMap<Site, SiteCounts>,
    /// How many cleared ones are kept.
    pub cleared: u64,
}

/// The alarms of one site that are not cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SiteCounts {
    /// By severity, in the order of [`Severity::ALL`].
    pub by_severity: [SeverityCounts; 5],
}

/// Alarms that are not cleared: all, and how many of them are what; one alarm may be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeverityCounts {
    /// All.
    pub total: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Shelved.
    pub shelved: u64,
    /// Of a suppressed type.
    pub suppressed: u64,
    /// Stale.
    pub stale: u64,
    /// Neither shelved nor of a suppressed type: what a list shows unless asked for more.
    pub shown: u64,
}

impl SiteCounts {
    /// Those of one severity.
    pub fn of(&self, severity: Severity) -> &SeverityCounts {
        &self.by_severity[severity as usize]
    }
}

impl State {
    /// See the reader of the same name.
    pub fn position(&self) -> Position { unimplemented!() }
    /// See the reader of the same name.
    pub fn cursor(&self) -> &Cursor { unimplemented!() }
    /// See the reader of the same name.
    pub fn alarm(&self, _id: AlarmId) -> Option<&Arc<Alarm>> { unimplemented!() }
    /// See the reader of the same name.
    pub fn find_by_prefix(&self, _hex_prefix: &str, _limit: usize) -> Vec<&Arc<Alarm>> { unimplemented!() }
    /// See the reader of the same name.
    pub fn alarms(&self) -> impl Iterator<Item = &Arc<Alarm>> { std::iter::empty() }
    /// See the reader of the same name.
    pub fn records(&self) -> impl Iterator<Item = (&StateKey, &StateRecord)> { std::iter::empty() }
    /// See the reader of the same name.
    pub fn record(&self, _key: &StateKey) -> Option<&StateRecord> { unimplemented!() }
    /// See the reader of the same name.
    pub fn list(&self, _query: &AlarmQuery) -> AlarmPage { unimplemented!() }
    /// See the reader of the same name.
    pub fn counts(&self) -> Counts { unimplemented!() }
    /// See the reader of the same name.
    pub fn is_suppressed(&self, _t: &AlarmType) -> bool { unimplemented!() }
    /// See the reader of the same name.
    pub fn suppressions(&self) -> impl Iterator<Item = (&AlarmType, &Arc<Suppression>)> { std::iter::empty() }
    /// See the reader of the same name.
    pub fn shelves(&self) -> impl Iterator<Item = &Arc<Shelf>> { std::iter::empty() }
    /// See the reader of the same name.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> { unimplemented!() }
}
