//! The present state: the alarms and the engine's keyed records in memory, as of a position of the journal.
//!
//! It must not know files: it is told facts in the order of the journal, by the commit, by the replay at a start, or by
//! whoever reads the journal offline, and the same facts make the same state.

mod followers;
mod indexes;
mod list;
mod query;
mod via;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use klaxon_schemas::access::{Scope, Token};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::ids::{ActionId, AlarmId, Position};
use klaxon_schemas::names::{AlarmType, TokenName};
use klaxon_schemas::state::{Cursor, Heartbeat, Shelf, StateKey, StateRecord, Suppression};
use klaxon_schemas::wire::v1::Touched;
use uuid::Uuid;

use crate::journal::record::{self, Fact};
use followers::Followers;
use indexes::Indexes;
use via::Children;

pub(crate) use list::Needle;

pub use indexes::{Counts, SeverityCounts, SiteCounts};
pub use query::{ALARMS_LIMIT_MAX, AlarmCursor, AlarmCursorError, AlarmPage, AlarmQuery, AlarmSort, Cleared};
pub use via::Silences;

/// The alarms and the engine's keyed records as of a position.
#[derive(Debug, Default)]
pub struct State {
    position: Position,
    cursor: Cursor,
    cursor_written: Position,
    alarms: BTreeMap<AlarmId, Held<Arc<Alarm>>>,
    records: HashMap<StateKey, Held<StateRecord>>,
    indexes: Indexes,
    suppressions: BTreeMap<AlarmType, Arc<Suppression>>,
    tokens: BTreeMap<TokenName, Arc<Token>>,
    followers: Followers,
    shelves: BTreeMap<ActionId, Arc<Shelf>>,
    heartbeats: BTreeMap<AlarmKey, Arc<Heartbeat>>,
    children: Children,
}

/// Something, and the record of the journal that holds it whole.
#[derive(Debug, Clone)]
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) written: Position,
}

/// What must be written again before the journal may lose its records up to a position.
#[derive(Debug, Default)]
pub(crate) struct Carry {
    pub(crate) alarms: Vec<AlarmId>,
    pub(crate) records: Vec<StateKey>,
    pub(crate) cursor: bool,
}

impl Carry {
    pub(crate) fn is_empty(&self) -> bool {
        self.alarms.is_empty() && self.records.is_empty() && !self.cursor
    }
}

/// Two states are equal if they hold the same; positions may differ, because carrying state forward takes some.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.cursor == other.cursor
            && self.alarms().eq(other.alarms())
            && self.records.len() == other.records.len()
            && self.records().all(|(key, record)| other.record(key) == Some(record))
    }
}

impl State {
    /// Up to where the journal is in it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How far the engine has come.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The alarm `id`.
    pub fn alarm(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.alarms.get(&id).map(|held| &held.value)
    }

    /// The alarms whose id begins with these hexadecimal digits (dashes are ignored), at most `limit`.
    pub fn find_by_prefix(&self, hex_prefix: &str, scope: &Scope, limit: usize) -> Vec<&Arc<Alarm>> {
        let digits: String = hex_prefix.chars().filter(|character| *character != '-').collect();
        if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Vec::new();
        }
        let bound = |fill: char| {
            let padded: String = digits.chars().chain(std::iter::repeat(fill)).take(32).collect();
            AlarmId(Uuid::from_u128(u128::from_str_radix(&padded, 16).expect("32 hexadecimal digits")))
        };
        let found = self.alarms.range(bound('0')..=bound('f')).map(|(_, held)| &held.value);
        found.filter(|alarm| scope.includes(&alarm.key.site)).take(limit).collect()
    }

    /// All alarms, cleared ones with them, by id.
    pub fn alarms(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.alarms.values().map(|held| &held.value)
    }

    /// At most `limit` alarms behind `after`, cleared ones with them, by id: all of them in pieces, without holding the state
    /// still for long.
    pub fn alarms_behind(&self, after: Option<AlarmId>, limit: usize) -> Vec<Arc<Alarm>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.alarms.range((from, Bound::Unbounded)).take(limit).map(|(_, held)| Arc::clone(&held.value)).collect()
    }

    /// How many alarms there are.
    pub fn alarms_len(&self) -> usize {
        self.alarms.len()
    }

    /// All keyed records, in no order.
    pub fn records(&self) -> impl Iterator<Item = (&StateKey, &StateRecord)> {
        self.records.iter().map(|(key, held)| (key, &held.value))
    }

    /// How many keyed records there are.
    pub fn records_len(&self) -> usize {
        self.records.len()
    }

    /// The record under `key`.
    pub fn record(&self, key: &StateKey) -> Option<&StateRecord> {
        self.records.get(key).map(|held| &held.value)
    }

    /// Where in the journal the record under `key` was last written.
    pub fn written_at(&self, key: &StateKey) -> Option<Position> {
        self.records.get(key).map(|held| held.written)
    }

    /// How many alarms there are of what kind.
    pub fn counts(&self) -> Counts {
        let mut counts = self.indexes.counts(self.suppressions.keys());
        self.count_silent(&mut counts.sites);
        counts
    }

    /// Whether the type is suppressed.
    pub fn is_suppressed(&self, alarm_type: &AlarmType) -> bool {
        !self.suppressions.is_empty() && self.suppressions.contains_key(alarm_type)
    }

    /// The suppressed types.
    pub fn suppressions(&self) -> impl Iterator<Item = (&AlarmType, &Arc<Suppression>)> {
        self.suppressions.iter()
    }

    /// The types of which there are alarms, cleared ones among them, in no order.
    pub fn alarm_types(&self) -> impl Iterator<Item = &AlarmType> {
        self.indexes.types.keys()
    }

    /// The shelves.
    pub fn shelves(&self) -> impl Iterator<Item = &Arc<Shelf>> {
        self.shelves.values()
    }

    /// Who may do what by showing which token.
    pub fn tokens(&self) -> &BTreeMap<TokenName, Arc<Token>> {
        &self.tokens
    }

    /// Who has promised to be heard from, by the alarm that silence is.
    pub fn heartbeats(&self) -> &BTreeMap<AlarmKey, Arc<Heartbeat>> {
        &self.heartbeats
    }

    /// The catalogue in force.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        match self.record(&StateKey::Bundle(self.cursor.catalogue.clone()?))? {
            StateRecord::Bundle(catalogue) => Some(Arc::clone(catalogue)),
            _ => None,
        }
    }

    /// The journal is in it up to `position`.
    pub(crate) fn reach(&mut self, position: Position) {
        self.position = position;
    }

    /// A change was committed at `position`.
    pub(crate) fn apply_change(&mut self, change: &Change, position: Position) {
        if change.past {
            return;
        }
        if let Subject::Alarm { alarm, .. } = &change.subject {
            if record::forgets(change.kind) {
                self.forget(alarm.id);
            } else {
                self.put_alarm(alarm, position);
            }
        }
    }

    /// `alarm` is as it is now, and was written whole at `written`.
    pub(crate) fn put_alarm(&mut self, alarm: &Arc<Alarm>, written: Position) {
        let old = self.alarms.insert(alarm.id, Held { value: Arc::clone(alarm), written });
        self.indexes.change(old.as_ref().map(|held| &*held.value), Some(alarm));
    }

    /// `alarm` was only reported again: where it was written whole stays.
    pub(crate) fn touch(&mut self, alarm: &Arc<Alarm>) {
        if let Some(held) = self.alarms.get_mut(&alarm.id) {
            self.indexes.change(Some(&held.value), Some(alarm));
            held.value = Arc::clone(alarm);
        }
    }

    fn forget(&mut self, id: AlarmId) {
        if let Some(held) = self.alarms.remove(&id) {
            self.indexes.change(Some(&held.value), None);
        }
    }

    /// The record under `key` is this, or is gone.
    pub(crate) fn put_record(&mut self, key: StateKey, record: Option<StateRecord>, written: Position) {
        match (&key, &record) {
            (StateKey::Suppression(alarm_type), Some(StateRecord::Suppression(suppression))) => {
                self.suppressions.insert(alarm_type.clone(), Arc::clone(suppression));
            }
            (StateKey::Suppression(alarm_type), _) => {
                self.suppressions.remove(alarm_type);
            }
            (StateKey::Shelf(id), Some(StateRecord::Shelf(shelf))) => {
                self.shelves.insert(*id, Arc::clone(shelf));
            }
            (StateKey::Shelf(id), _) => {
                self.shelves.remove(id);
            }
            (StateKey::Token(name), Some(StateRecord::Token(token))) => {
                self.tokens.insert(name.clone(), Arc::clone(token));
            }
            (StateKey::Token(name), _) => {
                self.tokens.remove(name);
            }
            (StateKey::Heartbeat(key), Some(StateRecord::Heartbeat(heartbeat))) => {
                self.heartbeats.insert(key.clone(), Arc::clone(heartbeat));
            }
            (StateKey::Heartbeat(key), _) => {
                self.heartbeats.remove(key);
            }
            (StateKey::Child(_) | StateKey::Below(_) | StateKey::Pending(..), record) => {
                self.children.note(&key, record.as_ref());
            }
            _ => self.followers.note(&key, record.as_ref()),
        }
        match record {
            Some(value) => self.records.insert(key, Held { value, written }),
            None => self.records.remove(&key),
        };
    }

    /// How far the engine has come, written at `written`.
    pub(crate) fn put_cursor(&mut self, cursor: Cursor, written: Position) {
        self.cursor = cursor;
        self.cursor_written = written;
    }

    /// A fact was read from the journal at `position`. The error says how it contradicts what stands before it.
    pub(crate) fn apply_fact(&mut self, fact: Fact, position: Position) -> Result<(), String> {
        match fact {
            Fact::Nothing => {}
            Fact::Alarm(alarm) => self.put_alarm(&alarm, position),
            Fact::Forgotten(id) => self.forget(id),
            Fact::Touched(touched) => self.touch_as_read(*touched)?,
            Fact::Put(key, record) => self.put_record(key, Some(record), position),
            Fact::Deleted(key) => self.put_record(key, None, position),
            Fact::Cursor(cursor) => self.put_cursor(cursor, position),
        }
        self.position = position;
        Ok(())
    }

    fn touch_as_read(&mut self, touched: Touched) -> Result<(), String> {
        let Some(held) = self.alarms.get(&touched.alarm) else {
            // Before what retention has kept stood the alarm; what follows carries it whole.
            return Ok(());
        };
        let mut alarm = Alarm::clone(&held.value);
        alarm.count = touched.count;
        alarm.last_reported_at = touched.last_reported_at;
        alarm.last_event_time = touched.last_event_time;
        alarm.producer = touched.producer;
        alarm.engine = touched.engine.ok_or("an alarm was reported again, but what the engine keeps with it is missing")?;
        self.touch(&Arc::new(alarm));
        Ok(())
    }

    /// All alarms with where they were written.
    pub(crate) fn held_alarms(&self) -> impl Iterator<Item = (&Arc<Alarm>, Position)> {
        self.alarms.values().map(|held| (&held.value, held.written))
    }

    /// The alarm `id` with where it was written.
    pub(crate) fn held_alarm(&self, id: AlarmId) -> Option<&Held<Arc<Alarm>>> {
        self.alarms.get(&id)
    }

    /// All keyed records with where they were written.
    pub(crate) fn held_records(&self) -> impl Iterator<Item = (&StateKey, &Held<StateRecord>)> {
        self.records.iter()
    }

    /// The record under `key` with where it was written.
    pub(crate) fn held_record(&self, key: &StateKey) -> Option<&Held<StateRecord>> {
        self.records.get(key)
    }

    /// Where the cursor was written.
    pub(crate) fn cursor_written(&self) -> Position {
        self.cursor_written
    }

    /// What only the records up to `position` hold.
    pub(crate) fn written_up_to(&self, position: Position) -> Carry {
        Carry {
            alarms: self.alarms.iter().filter(|(_, held)| held.written <= position).map(|(id, _)| *id).collect(),
            records: self.records.iter().filter(|(_, held)| held.written <= position).map(|(key, _)| key.clone()).collect(),
            cursor: self.cursor_written > Position(0) && self.cursor_written <= position,
        }
    }
}
