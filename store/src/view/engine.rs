//! The seam behind which the key-value engines are: open, get, a range both ways of owned rows, an atomic batch, sync, bytes
//! used. Nothing else of an engine is used.

use std::path::Path;

use super::fjall::Fjall;
#[cfg(feature = "sled")]
use super::sled::Sled;
use crate::config::{ViewConfig, ViewEngine};

/// The most rows that a range gives.
pub(crate) const ROWS_MAX: usize = 1000;

/// The tables of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Alarms by id.
    Alarms,
    /// Keyed records by the text of their key.
    Records,
    /// How far it has come.
    Meta,
}

impl Table {
    /// All.
    pub(crate) const ALL: [Self; 3] = [Self::Alarms, Self::Records, Self::Meta];

    /// Its name in the engine.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Alarms => "alarms",
            Self::Records => "records",
            Self::Meta => "meta",
        }
    }
}

/// An engine failed; it must be opened anew.
#[derive(Debug, thiserror::Error)]
#[error("{engine} cannot {action}")]
pub(crate) struct EngineError {
    pub(crate) engine: &'static str,
    pub(crate) action: &'static str,
    #[source]
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
}

/// A row that is owned.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// What is done at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(super) rows: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Puts a row.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.rows.push((table, key.to_vec(), Some(value)));
    }

    /// Deletes a row.
    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.rows.push((table, key.to_vec(), None));
    }
}

/// An engine that is open.
#[derive(Debug)]
pub(crate) enum Engine {
    Fjall(Fjall),
    #[cfg(feature = "sled")]
    Sled(Sled),
}

impl Engine {
    /// Opens it in `dir`.
    pub(crate) fn open(dir: &Path, config: &ViewConfig) -> Result<Self, EngineError> {
        match config.engine {
            ViewEngine::Fjall => Fjall::open(dir, config).map(Self::Fjall),
            #[cfg(feature = "sled")]
            ViewEngine::Sled => Sled::open(dir, config).map(Self::Sled),
            #[cfg(not(feature = "sled"))]
            ViewEngine::Sled => unreachable!("a store does not open with an engine that this build lacks"),
        }
    }

    /// The value under `key`.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        match self {
            Self::Fjall(fjall) => fjall.get(table, key),
            #[cfg(feature = "sled")]
            Self::Sled(sled) => sled.get(table, key),
        }
    }

    /// The rows behind `after`, at most `limit` and at most [`ROWS_MAX`].
    pub(crate) fn range(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, EngineError> {
        match self {
            Self::Fjall(fjall) => fjall.range(table, after, limit.min(ROWS_MAX)),
            #[cfg(feature = "sled")]
            Self::Sled(sled) => sled.range(table, after, limit.min(ROWS_MAX)),
        }
    }

    /// Does all of `batch` or nothing.
    pub(crate) fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        match self {
            Self::Fjall(fjall) => fjall.apply(batch),
            #[cfg(feature = "sled")]
            Self::Sled(sled) => sled.apply(batch),
        }
    }

    /// Makes what was done durable.
    pub(crate) fn sync(&self) -> Result<(), EngineError> {
        match self {
            Self::Fjall(fjall) => fjall.sync(),
            #[cfg(feature = "sled")]
            Self::Sled(sled) => sled.sync(),
        }
    }

    /// How large it is on the disk; 0 if it does not say.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Fjall(fjall) => fjall.bytes(),
            #[cfg(feature = "sled")]
            Self::Sled(sled) => sled.bytes(),
        }
    }
}
