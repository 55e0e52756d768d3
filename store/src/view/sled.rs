//! sled behind the seam. Pinned to 0.34.7, and not trusted further than it was measured:
//!
//! * its `flush()` returns before the disk has what was flushed, so [`Sled::sync`] syncs its files itself;
//! * a flipped bit in its file can make it go back to older rows in one place and not in another, each with a checksum that is
//!   right. So a sum over all rows is kept as a row of its own, changed in the same batch, and checked at each open;
//! * it panics on what it does not expect: whoever calls it does so in [`super::guarded`], and after a panic it is not dropped.
//!
//! One tree, a byte for the table before each key: its batches are atomic in one tree only.
//!
//! A page that is larger than a quarter of a segment goes to a file of its own under `blobs/`, which sled never syncs and is slow
//! to remove: a row of 4 MiB whose neighbours changed forty times took 350 MB. So large values are cut into parts, segments are
//! large enough for a page of seventeen of them, and a blob is an error.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use sled::{Config, Db, Mode};

use super::engine::{Batch, EngineError, Row, Table};
use crate::config::ViewConfig;
use crate::files;

/// The key of the sum; tables begin behind it.
const SUM: &[u8] = &[0];
/// Added to a table's byte before the keys of its parts of values.
const PARTS: u8 = 0x80;
/// A value that is longer is kept in parts of so much.
const PART_BYTES: usize = 16 * 1024;
/// The first byte of what is stored: the value is behind it, or how many parts it has.
const WHOLE: u8 = 0;
const IN_PARTS: u8 = 1;
/// A quarter of it holds a page of 17 rows, or of 257 keys, as large as they get.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
/// How long its threads may take to let go of a database that was closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
const CLOSE_ROUND: Duration = Duration::from_millis(2);

/// An open sled database.
pub(crate) struct Sled {
    /// There, except while it is dropped.
    database: Option<Db>,
    /// Its main file, opened once more.
    file: File,
    blobs: PathBuf,
}

impl std::fmt::Debug for Sled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::result::Result<(), std::fmt::Error> {
        f.debug_struct("Sled").finish_non_exhaustive()
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(action: &'static str) -> impl Fn(E) -> EngineError {
    move |source| EngineError { engine: "sled", action, source: Box::new(source) }
}

/// It has a page outside its file.
#[derive(Debug, thiserror::Error)]
#[error("it has a page outside its file, which it does not sync")]
struct BlobError;

/// A part of a value is not there.
#[derive(Debug, thiserror::Error)]
#[error("a part of a value is missing")]
struct PartError;

/// The rows are not those that were written.
#[derive(Debug, thiserror::Error)]
#[error("its rows are not those that were written: {found:?} instead of {wanted:?}")]
struct SumError {
    wanted: Sum,
    found: Sum,
}

impl Sled {
    pub(super) fn open(dir: &Path, config: &ViewConfig) -> Result<Self, EngineError> {
        let database = Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(config.cache_bytes)
            .mode(Mode::LowSpace)
            .flush_every_ms(None)
            .open()
            .map_err(failed("open"))?;
        let file = File::open(dir.join("db")).map_err(failed("open its file"))?;
        let sled = Self { database: Some(database), file, blobs: dir.join("blobs") };
        sled.check_blobs()?;
        sled.check_sum()?;
        files::sync_dir(dir).map_err(failed("sync its folder"))?;
        Ok(sled)
    }

    fn database(&self) -> &Db {
        self.database.as_ref().expect("it is there until it is dropped")
    }

    fn check_blobs(&self) -> Result<(), EngineError> {
        let mut blobs = fs::read_dir(&self.blobs).map_err(failed("list its large pages"))?;
        if blobs.next().is_none() { Ok(()) } else { Err(failed("be relied upon")(BlobError)) }
    }

    /// Compares all rows with their sum.
    fn check_sum(&self) -> Result<(), EngineError> {
        let (wanted, mut found) = (self.sum()?, Sum::default());
        for row in self.database().range::<&[u8], _>((Bound::Excluded(SUM), Bound::Unbounded)) {
            let (key, value) = row.map_err(failed("read"))?;
            found.add(&key, &value);
        }
        if found == wanted { Ok(()) } else { Err(failed("vouch for what it holds")(SumError { wanted, found })) }
    }

    fn sum(&self) -> Result<Sum, EngineError> {
        let value = self.database().get(SUM).map_err(failed("read"))?;
        Ok(value.map_or(Sum::default(), |value| Sum::from_bytes(&value)))
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let stored = self.database().get(place(table, key)).map_err(failed("read"))?;
        stored.map(|stored| self.value(table, key, &stored)).transpose()
    }

    /// The value of which `stored` is kept.
    fn value(&self, table: Table, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, EngineError> {
        if let Some((&WHOLE, value)) = stored.split_first() {
            return Ok(value.to_vec());
        }
        let mut value = Vec::new();
        for number in 0..parts(stored) {
            let part = self.database().get(part_place(table, key, number)).map_err(failed("read"))?;
            value.extend_from_slice(&part.ok_or(PartError).map_err(failed("read"))?);
        }
        Ok(value)
    }

    pub(super) fn range(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, EngineError> {
        let from = match after {
            Some(after) => Bound::Excluded(place(table, after)),
            None => Bound::Included(place(table, &[])),
        };
        let rows = self.database().range((from, Bound::Excluded(vec![prefix(table) + 1])));
        rows.take(limit)
            .map(|row| {
                let (key, stored) = row.map_err(failed("read"))?;
                Ok((key[1..].to_vec(), self.value(table, &key[1..], &stored)?))
            })
            .collect()
    }

    pub(super) fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        let mut sum = self.sum()?;
        let mut changes = sled::Batch::default();
        for (key, Stored { old, new }) in self.stored(batch)? {
            if let Some(old) = old {
                sum.remove(&key, &old);
            }
            match new {
                Some(new) => {
                    sum.add(&key, &new);
                    changes.insert(key, new);
                }
                None => changes.remove(key),
            }
        }
        changes.insert(SUM, &sum.to_bytes());
        self.database().apply_batch(changes).map_err(failed("write"))
    }

    /// What `batch` changes of what is stored, in the order of the keys: neighbours share a page.
    fn stored(&self, batch: Batch) -> Result<BTreeMap<Vec<u8>, Stored>, EngineError> {
        let old = |key: &[u8]| self.database().get(key).map_err(failed("read"));
        // Of a row that is there twice the last counts.
        let rows: BTreeMap<_, _> =
            batch.rows.into_iter().map(|(table, key, value)| ((prefix(table), key), (table, value))).collect();
        let mut stored = BTreeMap::new();
        for ((_, key), (table, value)) in rows {
            let place = place(table, &key);
            let before = old(&place)?;
            let parts_before = before.as_deref().map_or(0, parts);
            let mut number = 0;
            let new = match value {
                Some(value) if value.len() > PART_BYTES => {
                    for part in value.chunks(PART_BYTES) {
                        let place = part_place(table, &key, number);
                        stored.insert(place.clone(), Stored { old: old(&place)?, new: Some(part.to_vec()) });
                        number += 1;
                    }
                    Some([&[IN_PARTS][..], &number.to_le_bytes()].concat())
                }
                Some(value) => Some([&[WHOLE], &value[..]].concat()),
                None => None,
            };
            stored.insert(place, Stored { old: before, new });
            for number in number..parts_before {
                let place = part_place(table, &key, number);
                stored.insert(place.clone(), Stored { old: old(&place)?, new: None });
            }
        }
        Ok(stored)
    }

    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.database().flush().map_err(failed("flush"))?;
        self.check_blobs()?;
        self.file.sync_all().map_err(failed("sync"))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.database().size_on_disk().unwrap_or(0)
    }
}

impl Drop for Sled {
    /// Its threads may still hold the files when it is dropped, and it takes no files that are held.
    fn drop(&mut self) {
        let database = self.database.take();
        if std::thread::panicking() {
            // It would panic again.
            return std::mem::forget(database);
        }
        drop(database);
        let closed = Instant::now();
        while rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if closed.elapsed() > CLOSE_PATIENCE {
                return tracing::warn!("sled does not let go of its files");
            }
            std::thread::sleep(CLOSE_ROUND);
        }
    }
}

/// What is stored under a key, before a batch and after it.
struct Stored {
    old: Option<sled::IVec>,
    new: Option<Vec<u8>>,
}

fn prefix(table: Table) -> u8 {
    table as u8 + 1
}

fn place(table: Table, key: &[u8]) -> Vec<u8> {
    [&[prefix(table)], key].concat()
}

/// Nobody looks for these in their order.
fn part_place(table: Table, key: &[u8], number: u32) -> Vec<u8> {
    [&[PARTS + prefix(table)], key, &number.to_be_bytes()].concat()
}

/// How many parts the value has of which `stored` is kept.
fn parts(stored: &[u8]) -> u32 {
    match stored.split_first() {
        Some((&IN_PARTS, number)) => number.try_into().map_or(0, u32::from_le_bytes),
        _ => 0,
    }
}

/// How many rows there are, and the sum of their checksums: what it is does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    rows: u64,
    checksums: u64,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.checksums = self.checksums.wrapping_add(checksum(key, value));
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.checksums = self.checksums.wrapping_sub(checksum(key, value));
    }

    /// What is not as long as it was written is no sum of anything.
    fn from_bytes(bytes: &[u8]) -> Self {
        let number =
            |at: usize| bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(u64::MAX, u64::from_le_bytes);
        Self { rows: number(0), checksums: number(8) }
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rows.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksums.to_le_bytes());
        bytes
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u64 {
    u64::from(crc32c::crc32c_append(crc32c::crc32c(key), value))
}
