//! fjall behind the seam. Pinned; small memtables, so that it opens fast; no `clear()` and no key-value separation, which lost
//! data in earlier versions. After any error it refuses to go on until it is opened anew.

use std::ops::Bound;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::engine::{Batch, EngineError, Row, Table};
use crate::config::ViewConfig;

/// The least that fjall allows for its own journal.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Threads that write memtables out and merge tables: more would only take the processors from the commits.
const WORKERS: usize = 1;

/// An open fjall database.
pub(crate) struct Fjall {
    database: Database,
    tables: [Keyspace; Table::ALL.len()],
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fjall").finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl Fn(fjall::Error) -> EngineError {
    move |source| EngineError { engine: "fjall", action, source: Box::new(source) }
}

impl Fjall {
    pub(super) fn open(dir: &Path, config: &ViewConfig) -> Result<Self, EngineError> {
        let database = Database::builder(dir)
            .cache_size(config.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKERS)
            .open()
            .map_err(failed("open"))?;
        let table = |table: Table| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(config.memtable_bytes);
            database.keyspace(table.as_str(), options).map_err(failed("open a keyspace"))
        };
        let tables = [table(Table::Alarms)?, table(Table::Records)?, table(Table::Meta)?];
        Ok(Self { database, tables })
    }

    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.table(table).get(key).map_err(failed("read"))?.map(|value| value.to_vec()))
    }

    pub(super) fn range(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, EngineError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.table(table).range::<&[u8], _>((from, Bound::Unbounded));
        rows.take(limit)
            .map(|row| row.into_inner().map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(failed("read")))
            .collect()
    }

    pub(super) fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        let mut rows = self.database.batch();
        for (table, key, value) in batch.rows {
            match value {
                Some(value) => rows.insert(self.table(table), key, value),
                None => rows.remove(self.table(table), key),
            }
        }
        rows.commit().map_err(failed("write"))
    }

    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.database.persist(PersistMode::SyncAll).map_err(failed("sync"))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}
