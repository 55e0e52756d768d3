//! The reader's handle.
use std::sync::{Arc, RwLockReadGuard};
use klaxon_schemas::entry::Entry;
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::AlarmType;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::state::{Cursor, Shelf, StateKey, StateRecord, Suppression};
use tokio::sync::watch;
use crate::config::StoreConfig;
use crate::history::{HistoryPage, HistoryQuery};
use crate::journal::ReadError;
use crate::node::NodeIdentity;
use crate::open::{OpenError, OpenReport};
use crate::state::{AlarmPage, AlarmQuery, Counts, State};
use crate::stream::Page;
use crate::writer::Writer;

/// The store as everybody reads it; cloning shares it.
#[derive(Clone)]
pub struct Store(Arc<()>);

/// The committed state, held still while this lives. Commits wait meanwhile: take what is needed, and let go.
pub struct StateRead<'a>(RwLockReadGuard<'a, State>);

/// What the store is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Whose store it is.
    pub node: NodeIdentity,
    /// The first record that retention has kept.
    pub first_position: Position,
    /// The last committed record.
    pub last_position: Position,
    /// How many segments there are.
    pub segments: usize,
    /// How large they are together.
    pub journal_bytes: u64,
    /// Up to where the view has come.
    pub view_position: Position,
    /// How large the view is.
    pub view_bytes: u64,
    /// How much space is free where the store is, if the system says.
    pub free_bytes: Option<u64>,
    /// The free space below which intake is refused.
    pub free_space_watermark_bytes: u64,
    /// How many alarms are held, cleared ones with them.
    pub alarms: usize,
    /// How many keyed records are held.
    pub records: usize,
    /// How often the view had to be opened or built anew since the start.
    pub view_repairs: u64,
}

impl Store {
    /// Opens the store in `config.dir`, making it if there is none.
    pub fn open(_config: StoreConfig) -> Result<(Self, Writer, OpenReport), OpenError> {
        unimplemented!()
    }
    /// The committed state.
    pub fn read(&self) -> StateRead<'_> {
        unimplemented!()
    }
    /// The last committed position, as it moves.
    pub fn committed(&self) -> watch::Receiver<Position> {
        unimplemented!()
    }
    /// The changes and touches behind `after`, at most `limit` (and at most [`crate::STREAM_LIMIT_MAX`]).
    pub fn changes_after(&self, _after: Position, _limit: usize) -> Result<Page, ReadError> {
        unimplemented!()
    }
    /// The changes that `query` asks for.
    pub fn history(&self, _query: &HistoryQuery) -> Result<HistoryPage, ReadError> {
        unimplemented!()
    }
    /// The entry at `position`, if one stands there and is still kept.
    pub fn entry(&self, _position: Position) -> Result<Option<Entry>, ReadError> {
        unimplemented!()
    }
    /// What the store is at the moment.
    pub fn info(&self) -> Info {
        unimplemented!()
    }
    /// Whose store it is.
    pub fn node(&self) -> NodeIdentity {
        unimplemented!()
    }
    /// The numbering of changes.
    pub fn epoch(&self) -> Epoch {
        unimplemented!()
    }
}

impl StateRead<'_> {
    /// Up to where the journal is in this state.
    pub fn position(&self) -> Position {
        self.0.position()
    }
    /// How far the engine has come.
    pub fn cursor(&self) -> &Cursor {
        self.0.cursor()
    }
    /// The alarm `id`.
    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.0.alarm(id)
    }
    /// The alarms whose id begins with these hexadecimal digits (dashes are ignored), at most `limit`.
    pub fn find_by_prefix(&self, hex_prefix: &str, limit: usize) -> Vec<&Arc<Alarm>> {
        self.0.find_by_prefix(hex_prefix, limit)
    }
    /// All alarms, cleared ones with them, by id.
    pub fn alarms(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.0.alarms()
    }
    /// All keyed records.
    pub fn records(&self) -> impl Iterator<Item = (&StateKey, &StateRecord)> {
        self.0.records()
    }
    /// The record under `key`.
    pub fn record(&self, key: &StateKey) -> Option<&StateRecord> {
        self.0.record(key)
    }
    /// One page of the alarms that `query` asks for.
    pub fn list(&self, query: &AlarmQuery) -> AlarmPage {
        self.0.list(query)
    }
    /// How many alarms there are of what kind.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
    /// Whether the type is suppressed.
    pub fn is_suppressed(&self, alarm_type: &AlarmType) -> bool {
        self.0.is_suppressed(alarm_type)
    }
    /// The suppressed types.
    pub fn suppressions(&self) -> impl Iterator<Item = (&AlarmType, &Arc<Suppression>)> {
        self.0.suppressions()
    }
    /// The shelves.
    pub fn shelves(&self) -> impl Iterator<Item = &Arc<Shelf>> {
        self.0.shelves()
    }
    /// The catalogue in force.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.0.catalogue()
    }
}
