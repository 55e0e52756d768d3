//! The journal: segment files of frames, and the index of each.
//!
//! * `frame`: the bytes of a frame and its records,
//! * `record`: what a record's payload is,
//! * `segment`: a file of frames, and reading from it,
//! * `scan`: what is done to the files at a start,
//! * `index`: finding records in a segment,
//! * `append`: writing frames.
//!
//! The journal must not know what follows from a record: it keeps them in order, and finds them again.

pub(crate) mod append;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod record;
pub(crate) mod scan;
pub(crate) mod segment;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use klaxon_schemas::ids::Position;

use frame::RawRecord;
use segment::Segment;

/// The format of everything in a store's folder.
pub(crate) const FORMAT: u32 = 1;

/// The most bytes in a frame.
pub const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of the journal that are not what was written; or are, and say what this program does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{segment} {} at offset {offset}: {reason}", if *newer { "has what this program does not know" } else { "is damaged" })]
pub struct DamageError {
    /// In which file.
    pub segment: PathBuf,
    /// Where.
    pub offset: u64,
    /// How it was noticed.
    pub reason: String,
    /// Nothing is broken: another program, a newer one, wrote it.
    pub newer: bool,
}

/// What is wrong with a record.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) reason: String,
    /// Its checksum is right, so it is what was written.
    pub(crate) newer: bool,
}

impl From<String> for Unusable {
    fn from(reason: String) -> Self {
        Self { reason, newer: false }
    }
}

impl From<&str> for Unusable {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// Why something cannot be read from the journal.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Retention has overtaken the reader.
    #[error("what is behind the position was removed by retention; the journal begins at {first_retained}")]
    Gap {
        /// The first record that is kept.
        first_retained: Position,
    },
    /// The position is of another store.
    #[error("the position is beyond the end of the journal, which is {committed}")]
    Beyond {
        /// The last record.
        committed: Position,
    },
    /// The journal is damaged there.
    #[error(transparent)]
    Damaged(#[from] DamageError),
    /// The system refuses.
    #[error("cannot read {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The segments, the oldest first; the last one grows. There is always one.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) dir: PathBuf,
    segments: RwLock<Vec<Arc<Segment>>>,
    /// How many frames were synced, and how long that took in microseconds.
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_us: AtomicU64,
}

impl Journal {
    /// Over what the scan found.
    pub(crate) fn new(dir: PathBuf, segments: Vec<Arc<Segment>>) -> Self {
        debug_assert!(!segments.is_empty());
        Self { dir, segments: RwLock::new(segments), syncs: AtomicU64::new(0), sync_us: AtomicU64::new(0) }
    }

    /// The segments as they are now.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().expect("nobody panics while holding it").clone()
    }

    /// The segment that grows.
    pub(crate) fn active(&self) -> Arc<Segment> {
        Arc::clone(self.segments.read().expect("nobody panics while holding it").last().expect("there is always one"))
    }

    /// The last synced record.
    pub(crate) fn last(&self) -> Position {
        self.active().last()
    }

    /// The first record that is kept, or is to come.
    pub(crate) fn first(&self) -> Position {
        self.segments.read().expect("nobody panics while holding it").first().expect("there is always one").header.first
    }

    /// A new segment follows.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.segments.write().expect("nobody panics while holding it").push(segment);
    }

    /// The oldest segment is gone.
    pub(crate) fn remove_first(&self) {
        let mut segments = self.segments.write().expect("nobody panics while holding it");
        debug_assert!(segments.len() > 1);
        segments.remove(0);
    }

    /// How large it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.bytes()).sum()
    }

    /// Hands the records behind `after` to `visit` until it breaks; tells the last one that was looked at. The error is a gap
    /// if retention was there, before or meanwhile.
    pub(crate) fn walk(
        &self,
        after: Position,
        mut visit: impl FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<Position, ReadError> {
        let segments = self.segments();
        let first_retained = segments[0].header.first;
        if after < segments[0].header.follows {
            return Err(ReadError::Gap { first_retained });
        }
        let mut reached = after;
        let mut broken = false;
        for segment in segments.iter().filter(|segment| segment.last() > after) {
            let walked = segment.walk(after.plus(1).max(segment.header.first), |record, _| {
                let flow = visit(record);
                broken = flow.is_break();
                flow
            });
            reached = self.or_gap(walked)?.last.max(reached);
            if broken {
                break;
            }
        }
        Ok(reached)
    }

    /// A file that cannot be opened because retention removed it is a gap.
    fn or_gap<T>(&self, outcome: Result<T, ReadError>) -> Result<T, ReadError> {
        match outcome {
            Err(ReadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(ReadError::Gap { first_retained: self.first() })
            }
            outcome => outcome,
        }
    }
}
