//! The number by which tables know an alarm: small, and the same for as long as the alarm is kept.
//!
//! It is taken from the alarm's id, 31 bits of it, so it is the same after a restart without being kept. Of 200 000 alarms about
//! nine meet another with the same number. Who comes second is moved to another number, and that is kept, in a file of its own
//! beside the journal, written before anybody hears of it: so a number stays although the other alarm goes. If the file is lost,
//! the older alarm of such a pair has its number, and the other one may get a new one at that start; nothing else depends on it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use klaxon_schemas::ids::AlarmId;
use uuid::Uuid;

/// The file in the node's data directory.
pub const INDEXES_FILE: &str = "snmp-indexes.json";
/// The largest number: some managers read it as signed.
const INDEX_MAX: u32 = 0x7fff_ffff;

/// The numbers of all alarms that are kept.
#[derive(Debug)]
pub struct Indexes {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Whose a number is.
    taken: HashMap<u32, AlarmId>,
    /// Those that do not have the number of their id.
    moved: BTreeMap<Uuid, u32>,
}

/// The file with the moved ones cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}; without it a few rows may have other numbers than before", path.display())]
pub struct IndexesError {
    path: PathBuf,
    source: io::Error,
}

impl Indexes {
    /// The numbers of `alarms`, the oldest first, as they were when the node in `dir` ran last. What was moved and is gone is
    /// forgotten. If what was kept cannot be read, they are made anew, and the error says so.
    pub fn load(dir: &Path, alarms: impl IntoIterator<Item = AlarmId>) -> (Self, Option<IndexesError>) {
        let path = dir.join(INDEXES_FILE);
        let (before, error) = match read(&path) {
            Ok(before) => (before, None),
            Err(source) => (BTreeMap::new(), Some(IndexesError { path: path.clone(), source })),
        };
        let alarms: Vec<AlarmId> = alarms.into_iter().collect();
        let mut kept = Kept::default();
        for id in &alarms {
            if let Some(index) = before.get(&id.0) {
                kept.taken.insert(*index, *id);
                kept.moved.insert(id.0, *index);
            }
        }
        let indexes = Self { path, kept: Mutex::new(kept) };
        for id in alarms {
            indexes.hold(id);
        }
        (indexes, error)
    }

    /// The number of the alarm `id`, which is kept for it from now on.
    pub(super) fn hold(&self, id: AlarmId) -> u32 {
        let mut kept = self.kept();
        let index = self.find(&mut kept, id);
        kept.taken.insert(index, id);
        index
    }

    /// The number of the alarm `id`.
    pub fn of(&self, id: AlarmId) -> u32 {
        self.find(&mut self.kept(), id)
    }

    /// The alarm is no longer kept.
    pub(super) fn release(&self, id: AlarmId) {
        let mut kept = self.kept();
        let moved = kept.moved.remove(&id.0);
        let index = moved.unwrap_or_else(|| natural(id));
        if kept.taken.get(&index) == Some(&id) {
            kept.taken.remove(&index);
        }
        if moved.is_some() {
            self.write(&kept);
        }
    }

    /// Only alarms of which `is_kept` is true are still there.
    pub(super) fn retain(&self, is_kept: impl Fn(&AlarmId) -> bool) {
        let mut kept = self.kept();
        kept.taken.retain(|_, id| is_kept(id));
        let moved = kept.moved.len();
        kept.moved.retain(|id, _| is_kept(&AlarmId(*id)));
        if kept.moved.len() != moved {
            self.write(&kept);
        }
    }

    fn find(&self, kept: &mut Kept, id: AlarmId) -> u32 {
        if let Some(index) = kept.moved.get(&id.0) {
            return *index;
        }
        let natural = natural(id);
        if kept.taken.get(&natural).is_none_or(|other| *other == id) {
            return natural;
        }
        let mut index = natural;
        while kept.taken.contains_key(&index) {
            index = if index == INDEX_MAX { 1 } else { index + 1 };
        }
        kept.taken.insert(index, id);
        kept.moved.insert(id.0, index);
        self.write(kept);
        index
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nobody panics while holding it")
    }

    /// Keeps the moved ones. If that fails the number stands until the next start.
    fn write(&self, kept: &Kept) {
        if let Err(error) = write(&self.path, &kept.moved) {
            tracing::warn!(path = %self.path.display(), %error, "a row's number cannot be kept; it may be another one after a restart");
        }
    }
}

/// The number that the id itself gives.
fn natural(id: AlarmId) -> u32 {
    let bytes = id.0.as_bytes();
    (u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & INDEX_MAX).max(1)
}

fn read(path: &Path) -> io::Result<BTreeMap<Uuid, u32>> {
    match fs::read(path) {
        Ok(bytes) => {
            let moved: BTreeMap<Uuid, u32> = serde_json::from_slice(&bytes)?;
            let fits = moved.values().all(|index| (1..=INDEX_MAX).contains(index));
            if fits { Ok(moved) } else { Err(io::Error::other("has a number that no row can have")) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Whole or not at all, and on the disk.
fn write(path: &Path, moved: &BTreeMap<Uuid, u32>) -> io::Result<()> {
    let dir = path.parent().expect("is a file in a folder");
    let next = path.with_extension("json.new");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(moved)?)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(high: u32, low: u128) -> AlarmId {
        AlarmId(Uuid::from_u128(u128::from(high) << 96 | low))
    }

    fn load(dir: &Path, alarms: &[AlarmId]) -> Indexes {
        let (indexes, error) = Indexes::load(dir, alarms.iter().copied());
        assert!(error.is_none());
        indexes
    }

    #[test]
    fn a_number_stays_although_the_alarm_that_had_it_first_goes() {
        let dir = tempfile::tempdir().expect("can be made");
        let (first, second, third) = (id(77, 1), id(77 | 1 << 31, 2), id(78, 3));
        let indexes = load(dir.path(), &[]);
        assert!(!dir.path().join(INDEXES_FILE).exists());
        assert_eq!((indexes.hold(first), indexes.hold(second), indexes.hold(third)), (77, 78, 79));
        assert_eq!((indexes.hold(first), indexes.of(second), indexes.hold(third)), (77, 78, 79));
        drop(indexes);

        // Another order, as a restart may bring it.
        let indexes = load(dir.path(), &[third, second, first]);
        assert_eq!((indexes.of(first), indexes.of(second), indexes.of(third)), (77, 78, 79));
        indexes.release(first);
        drop(indexes);
        let indexes = load(dir.path(), &[third, second]);
        assert_eq!((indexes.hold(second), indexes.hold(third)), (78, 79));
        assert_eq!(indexes.hold(id(77, 9)), 77, "it is free");

        indexes.release(second);
        indexes.release(third);
        drop(indexes);
        let indexes = load(dir.path(), &[]);
        assert_eq!((indexes.hold(second), indexes.hold(third)), (77, 78), "they are new, as far as anybody knows");
    }

    #[test]
    fn numbers_wrap_and_none_is_zero() {
        let dir = tempfile::tempdir().expect("can be made");
        let indexes = load(dir.path(), &[id(INDEX_MAX, 0), id(0, 0)]);
        assert_eq!((indexes.of(id(0, 0)), indexes.hold(id(1, 5)), indexes.hold(id(u32::MAX, 1))), (1, 2, 3));
    }

    #[test]
    fn what_is_damaged_is_said_and_made_anew() {
        let dir = tempfile::tempdir().expect("can be made");
        for wrong in ["", "[]", r#"{"00000000-0000-0000-0000-000000000001":0}"#] {
            fs::write(dir.path().join(INDEXES_FILE), wrong).expect("is written");
            let (indexes, error) = Indexes::load(dir.path(), [id(5, 1), id(5, 2)]);
            assert!(error.expect("is damaged").to_string().contains("snmp-indexes.json"), "{wrong}");
            assert_eq!((indexes.of(id(5, 1)), indexes.of(id(5, 2))), (5, 6));
        }
    }
}
