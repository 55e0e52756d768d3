//! The view: a copy of the state in a key-value engine, so that a start need not read the whole journal.
//!
//! It is written behind the journal, a batch at a time, and each batch says how far it has come. Whatever goes wrong with it, it
//! is built anew from the journal. It must not know frames or segments, and nobody answers from it.

pub(crate) mod engine;
mod fjall;
pub(crate) mod seal;
#[cfg(feature = "sled")]
mod sled;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};
use klaxon_schemas::wire::v1;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{ViewConfig, ViewEngine};
use crate::files;
use crate::journal::{FORMAT, record};
use crate::state::State;
use engine::{Batch, Engine, EngineError, ROWS_MAX, Table};
use seal::Use;

/// Bytes before a value's payload: its checksum, and the position at which the journal holds it whole.
const VALUE_HEADER_BYTES: usize = 12;
/// The key of [`Meta`].
const META: &[u8] = b"meta";
/// The most alarms and records in one batch while a view is built anew.
const BATCH_ROWS_MAX: usize = 4096;

/// Why the view cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    /// The engine says so.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A value is not what was written.
    #[error("a value in {0} fails its checksum or its form")]
    Damaged(&'static str),
    /// There is none.
    #[error("it is missing")]
    Missing,
    /// The setting has changed.
    #[error("{is} keeps it, and {wanted} is to", is = is.as_str(), wanted = wanted.as_str())]
    OtherEngine {
        /// The engine that keeps it.
        is: ViewEngine,
        /// The one that is set.
        wanted: ViewEngine,
    },
    /// What is in its place cannot be removed.
    #[error("it cannot be removed")]
    Remove(#[source] std::io::Error),
    /// The engine panicked.
    #[error("the engine panicked")]
    Panicked,
    /// It is of another store, or of another format.
    #[error("it belongs to another store or format")]
    Foreign,
    /// The process ended while it was opened the last time.
    #[error("the last attempt to open it did not come to an end")]
    Unfinished,
    /// A file of the engine is not what it was.
    #[error("{0} is not what it was")]
    Changed(String),
    /// The system refuses.
    #[error("its files cannot be looked after")]
    Io(#[source] std::io::Error),
}

/// Runs `work` on a view that lives on; a panic of the engine is an error like any other, because the view can always be built
/// anew. The view must not be dropped after a panic, see [`View::abandon`].
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, ViewError>) -> Result<T, ViewError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(Err(ViewError::Panicked))
}

/// The engine that keeps the view in `dir`: each has its folder there.
pub(crate) fn kept_by(dir: &Path) -> Option<ViewEngine> {
    ViewEngine::ALL.into_iter().find(|engine| dir.join(engine.as_str()).is_dir())
}

/// What the view says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    format: u32,
    node_id: Uuid,
    position: Position,
    cursor: Cursor,
    cursor_written: Position,
}

/// The view.
#[derive(Debug)]
pub(crate) struct View {
    engine: Engine,
    node_id: Uuid,
}

/// What is to be written next: of each alarm and record only the last.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) alarms: std::collections::HashMap<AlarmId, Option<(Arc<Alarm>, Position)>>,
    pub(crate) records: std::collections::HashMap<StateKey, Option<(StateRecord, Position)>>,
    pub(crate) cursor: Option<(Cursor, Position)>,
    pub(crate) position: Position,
}

impl Dirty {
    /// All of `state`.
    pub(crate) fn everything(state: &State) -> Self {
        let alarms = state.held_alarms().map(|(alarm, written)| (alarm.id, Some((Arc::clone(alarm), written))));
        let records = state.held_records().map(|(key, held)| (key.clone(), Some((held.value.clone(), held.written))));
        Self {
            alarms: alarms.collect(),
            records: records.collect(),
            cursor: Some((state.cursor().clone(), state.cursor_written())),
            position: state.position(),
        }
    }

    /// How many rows it is.
    pub(crate) fn rows(&self) -> usize {
        self.alarms.len() + self.records.len()
    }
}

impl View {
    /// Opens the view in `dir` and loads what it holds.
    pub(crate) fn open_and_load(dir: &Path, config: &ViewConfig, node_id: Uuid) -> Result<(Self, State), ViewError> {
        let is = kept_by(dir).ok_or(ViewError::Missing)?;
        if is != config.engine {
            return Err(ViewError::OtherEngine { is, wanted: config.engine });
        }
        let attempt = seal::Attempt::begin(dir)?;
        seal::check(dir)?;
        // From here on the engine may write.
        seal::write(dir, Use::Open)?;
        let opened = guarded(|| {
            let view = Self::open(dir, config, node_id)?;
            let state = view.load()?;
            Ok((view, state))
        })?;
        seal::write(dir, Use::Open)?;
        attempt.end()?;
        Ok(opened)
    }

    /// Removes the view in `dir`, and makes one that holds `all`.
    pub(crate) fn build(dir: &Path, config: &ViewConfig, node_id: Uuid, all: Dirty) -> Result<Self, ViewError> {
        // Whichever engine kept it.
        files::remove_dir(dir).map_err(ViewError::Remove)?;
        let view = guarded(|| {
            let view = Self::open(dir, config, node_id)?;
            view.fill(all)?;
            Ok(view)
        })?;
        seal::write(dir, Use::Open)?;
        seal::Attempt::forget(dir)?;
        Ok(view)
    }

    /// Leaves the view to itself: an engine that has panicked may panic again when it is dropped.
    pub(crate) fn abandon(self) {
        std::mem::forget(self);
    }

    /// Ends its use, also if the engine panics at that.
    pub(crate) fn close(self) -> Result<(), ViewError> {
        guarded(|| {
            drop(self);
            Ok(())
        })
    }

    /// Opens the view in `dir`, making an empty one if there is none.
    pub(crate) fn open(dir: &Path, config: &ViewConfig, node_id: Uuid) -> Result<Self, ViewError> {
        let own = dir.join(config.engine.as_str());
        fs::create_dir_all(&own).map_err(ViewError::Io)?;
        files::sync_dir(dir).and_then(|()| files::sync_parent(dir)).map_err(ViewError::Io)?;
        Ok(Self { engine: Engine::open(&own, config)?, node_id })
    }

    /// The state that it holds.
    pub(crate) fn load(&self) -> Result<State, ViewError> {
        let meta = self.meta()?;
        let mut state = State::default();
        self.each(Table::Alarms, |_, payload, written| {
            let alarm = record::alarm(payload).ok()?;
            state.put_alarm(&Arc::new(alarm), written);
            Some(())
        })?;
        self.each(Table::Records, |key, payload, written| {
            let key = v1::state_key(std::str::from_utf8(key).ok()?).ok()?;
            let (stored, record) = record::put(payload).ok()?;
            (stored == key).then(|| state.put_record(key, Some(record), written))
        })?;
        state.put_cursor(meta.cursor, meta.cursor_written);
        state.reach(meta.position);
        Ok(state)
    }

    fn meta(&self) -> Result<Meta, ViewError> {
        let value = self.engine.get(Table::Meta, META)?.ok_or(ViewError::Missing)?;
        let (payload, _) = open_value(META, &value).ok_or(ViewError::Damaged("meta"))?;
        let meta: Meta = serde_json::from_slice(payload).map_err(|_| ViewError::Damaged("meta"))?;
        if meta.format != FORMAT || meta.node_id != self.node_id {
            return Err(ViewError::Foreign);
        }
        Ok(meta)
    }

    fn each(&self, table: Table, mut row: impl FnMut(&[u8], &[u8], Position) -> Option<()>) -> Result<(), ViewError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.engine.range(table, after.as_deref(), ROWS_MAX)?;
            for (key, value) in &rows {
                let damaged = ViewError::Damaged(table.as_str());
                let Some((payload, written)) = open_value(key, value) else { return Err(damaged) };
                if row(key, payload, written).is_none() {
                    return Err(damaged);
                }
            }
            match rows.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => return Ok(()),
            }
        }
    }

    /// Writes `dirty` in one batch.
    pub(crate) fn write(&self, dirty: &Dirty) -> Result<(), ViewError> {
        let mut batch = rows(dirty);
        let (cursor, cursor_written) = match &dirty.cursor {
            Some((cursor, written)) => (cursor.clone(), *written),
            None => self.meta().map(|meta| (meta.cursor, meta.cursor_written))?,
        };
        let meta = Meta { format: FORMAT, node_id: self.node_id, position: dirty.position, cursor, cursor_written };
        batch.put(Table::Meta, META, value(META, dirty.position, &meta));
        Ok(self.engine.apply(batch)?)
    }

    /// Fills an empty view. It counts only once the last batch, which says how far it has come, is in.
    pub(crate) fn fill(&self, all: Dirty) -> Result<(), ViewError> {
        let mut part = Dirty::default();
        for (id, alarm) in all.alarms {
            part.alarms.insert(id, alarm);
            self.flush(&mut part)?;
        }
        for (key, record) in all.records {
            part.records.insert(key, record);
            self.flush(&mut part)?;
        }
        self.write(&Dirty { cursor: all.cursor, position: all.position, ..part })?;
        self.sync()
    }

    fn flush(&self, part: &mut Dirty) -> Result<(), ViewError> {
        if part.rows() < BATCH_ROWS_MAX {
            return Ok(());
        }
        Ok(self.engine.apply(rows(&std::mem::take(part)))?)
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), ViewError> {
        Ok(self.engine.sync()?)
    }

    /// How large it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.engine.bytes()
    }
}

fn rows(dirty: &Dirty) -> Batch {
    let mut batch = Batch::default();
    for (id, alarm) in &dirty.alarms {
        let key = id.0.as_bytes();
        match alarm {
            Some((alarm, written)) => batch.put(Table::Alarms, key, value(key, *written, &v1::Alarm::stored(alarm))),
            None => batch.delete(Table::Alarms, key),
        }
    }
    for (key, record) in &dirty.records {
        let text = v1::state_key_text(key);
        match record {
            Some((record, written)) => {
                let value = value(text.as_bytes(), *written, &v1::StatePut::new(key, record));
                batch.put(Table::Records, text.as_bytes(), value);
            }
            None => batch.delete(Table::Records, text.as_bytes()),
        }
    }
    batch
}

/// Checksum over key, position and payload; position; payload.
fn value(key: &[u8], written: Position, payload: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0; VALUE_HEADER_BYTES];
    bytes[4..].copy_from_slice(&written.0.to_le_bytes());
    serde_json::to_writer(&mut bytes, payload).expect("names, numbers and times serialize, and a vector takes them");
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn open_value<'a>(key: &[u8], value: &'a [u8]) -> Option<(&'a [u8], Position)> {
    let (head, payload) = value.split_at_checked(VALUE_HEADER_BYTES)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &value[4..]);
    if head[..4] != crc.to_le_bytes() {
        return None;
    }
    Some((payload, Position(u64::from_le_bytes(head[4..].try_into().expect("eight bytes")))))
}
