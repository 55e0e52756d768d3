//! Segment files: their names, their heads, and reading records from them.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use klaxon_schemas::ids::{Epoch, Position};

use super::frame::{FRAME_HEADER_BYTES, RawRecord, Step, step};
use super::index::{IndexBuilder, SegmentIndex};
use super::{DamageError, FORMAT, ReadError, Unusable};

/// The first bytes of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"klaxnseg";
/// Bytes before the first frame.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// How much is read at once.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Its first record.
    pub(crate) first: Position,
    /// The last record before it. Positions between the two were lost with a tail, and are not used again.
    pub(crate) follows: Position,
    /// The numbering that was in force when it was begun.
    pub(crate) epoch: Epoch,
}

/// Why a head is none.
#[derive(Debug)]
pub(crate) enum HeaderError {
    /// A newer program wrote it.
    Newer(u32),
    /// It is not what was written.
    Damaged(&'static str),
}

impl SegmentHeader {
    /// Its bytes.
    pub(crate) fn to_bytes(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.follows.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.epoch.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads them.
    pub(crate) fn parse(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[0..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Damaged("the segment does not begin as one"));
        }
        if crc32c::crc32c(&bytes[..60]) != word(60) {
            // A newer format may keep its checksum elsewhere; its number stands where it always stood.
            let format = word(8);
            return Err(match format {
                newer if newer > FORMAT && newer < FORMAT_PLAUSIBLE_MAX => HeaderError::Newer(newer),
                _ => HeaderError::Damaged("the head of the segment fails its checksum"),
            });
        }
        match word(8) {
            FORMAT => Ok(Self { first: Position(long(16)), follows: Position(long(24)), epoch: Epoch(long(32)) }),
            newer => Err(HeaderError::Newer(newer)),
        }
    }
}

/// Format numbers beyond this are damage and not the future.
const FORMAT_PLAUSIBLE_MAX: u32 = 256;

/// The path of the segment that begins at `first`.
pub(crate) fn segment_path(journal: &Path, first: Position) -> PathBuf {
    journal.join(format!("{:020}.seg", first.0))
}

/// The first position that a segment's name says, if `path` names a segment.
pub(crate) fn segment_first(path: &Path) -> Option<Position> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    (name.len() == 20).then(|| name.parse().ok().map(Position))?
}

/// One segment. The last one grows; readers see it up to what is synced.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    live: RwLock<Live>,
    reader: OnceLock<Arc<File>>,
    /// Held while the index is looked for or built, so that it is done once.
    indexing: Mutex<()>,
}

#[derive(Debug)]
struct Live {
    /// Up to where it is synced.
    end: u64,
    /// The last synced record; the one before the segment if it is empty.
    last: Position,
    index: IndexState,
}

#[derive(Debug)]
enum IndexState {
    /// In memory, while the segment grows and until the file is written.
    Building(IndexBuilder),
    /// In its file.
    Ready(Arc<SegmentIndex>),
    /// Not looked for yet.
    Unknown,
}

/// How far a walk has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walked {
    /// The last record that was handed out.
    pub(crate) last: Position,
}

impl Segment {
    /// A segment that grows, or that was scanned.
    pub(crate) fn scanned(path: PathBuf, header: SegmentHeader, end: u64, last: Position, index: IndexBuilder) -> Self {
        let live = RwLock::new(Live { end, last, index: IndexState::Building(index) });
        Self { path, header, live, reader: OnceLock::new(), indexing: Mutex::new(()) }
    }

    /// A segment that was not read, and whose last record the next one tells.
    pub(crate) fn sealed(path: PathBuf, header: SegmentHeader, bytes: u64, last: Position) -> Self {
        let live = RwLock::new(Live { end: bytes, last, index: IndexState::Unknown });
        Self { path, header, live, reader: OnceLock::new(), indexing: Mutex::new(()) }
    }

    fn live(&self) -> std::sync::RwLockReadGuard<'_, Live> {
        self.live.read().expect("nobody panics while holding it")
    }

    /// The last synced record.
    pub(crate) fn last(&self) -> Position {
        self.live().last
    }

    /// The synced bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.live().end
    }

    /// Whether `position` is in it.
    pub(crate) fn holds(&self, position: Position) -> bool {
        self.header.first <= position && position <= self.last()
    }

    /// It has grown: `index` takes in what came.
    pub(crate) fn grow(&self, end: u64, last: Position, index: impl FnOnce(&mut IndexBuilder)) {
        let mut live = self.live.write().expect("nobody panics while holding it");
        live.end = end;
        live.last = last;
        if let IndexState::Building(builder) = &mut live.index {
            index(builder);
        }
    }

    /// What `look` sees in the index while that is in memory.
    pub(crate) fn with_builder<T>(&self, look: impl FnOnce(&IndexBuilder) -> T) -> Option<T> {
        match &self.live().index {
            IndexState::Building(builder) => Some(look(builder)),
            _ => None,
        }
    }

    /// The index in its file: read, or built anew if it is missing or damaged. `None` while it is in memory.
    pub(crate) fn index(&self) -> Result<Option<Arc<SegmentIndex>>, ReadError> {
        let known = || match &self.live().index {
            IndexState::Building(_) => Some(None),
            IndexState::Ready(index) => Some(Some(Arc::clone(index))),
            IndexState::Unknown => None,
        };
        if let Some(index) = known() {
            return Ok(index);
        }
        let _alone = self.indexing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known() {
            return Ok(index);
        }
        let index = Arc::new(SegmentIndex::open_or_build(self)?);
        self.set_index(Arc::clone(&index));
        Ok(Some(index))
    }

    /// The index is in its file from here on.
    pub(crate) fn set_index(&self, index: Arc<SegmentIndex>) {
        self.live.write().expect("nobody panics while holding it").index = IndexState::Ready(index);
    }

    /// The index in its file is not to be trusted.
    pub(crate) fn forget_index(&self) {
        self.live.write().expect("nobody panics while holding it").index = IndexState::Unknown;
    }

    /// Whether the index has yet to be written or looked for.
    pub(crate) fn lacks_index(&self) -> bool {
        !matches!(self.live().index, IndexState::Ready(_))
    }

    fn reader(&self) -> Result<Arc<File>, ReadError> {
        if let Some(file) = self.reader.get() {
            return Ok(Arc::clone(file));
        }
        let file = File::open(&self.path).map_err(|source| self.io(source))?;
        Ok(Arc::clone(self.reader.get_or_init(|| Arc::new(file))))
    }

    fn io(&self, source: io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), source }
    }

    /// Damage in it.
    pub(crate) fn damage(&self, offset: u64, what: impl Into<Unusable>) -> DamageError {
        let Unusable { reason, newer } = what.into();
        DamageError { segment: self.path.clone(), offset, reason, newer }
    }

    /// Where to begin reading for `from`: a place at or before it.
    fn start_of(&self, from: Position) -> Result<(Position, u64), ReadError> {
        if from <= self.header.first {
            return Ok((self.header.first, SEGMENT_HEADER_BYTES as u64));
        }
        let place = match self.with_builder(|builder| builder.chunk_before(from)) {
            Some(place) => place,
            None => self.index()?.and_then(|index| index.chunk_before(from)),
        };
        Ok(place.map_or((self.header.first, SEGMENT_HEADER_BYTES as u64), |chunk| (chunk.position, chunk.offset)))
    }

    /// Hands the records from `from` on to `visit`, each with its offset, until it breaks or the synced end is reached.
    pub(crate) fn walk(
        &self,
        from: Position,
        visit: impl FnMut(RawRecord<'_>, u64) -> ControlFlow<()>,
    ) -> Result<Walked, ReadError> {
        let (position, offset) = self.start_of(from)?;
        self.walk_at((position, offset), from, visit)
    }

    /// The same, from a place that is known to be at or before `from`.
    pub(crate) fn walk_at(
        &self,
        (mut position, mut offset): (Position, u64),
        from: Position,
        mut visit: impl FnMut(RawRecord<'_>, u64) -> ControlFlow<()>,
    ) -> Result<Walked, ReadError> {
        let file = self.reader()?;
        let (end, last) = {
            let live = self.live();
            (live.end, live.last)
        };
        let mut window = Vec::new();
        let mut walked = Walked { last: Position(position.0.saturating_sub(1)) };
        let mut used = 0;
        while position <= last {
            match step(&window[used..], position).map_err(|reason| self.damage(offset, reason))? {
                Step::Short(needed) => {
                    let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
                    if needed > left {
                        let reason = format!("the segment ends before record {last}, which is known to be in it");
                        return Err(self.damage(offset, reason).into());
                    }
                    window.resize(needed.max(READ_BYTES).min(left), 0);
                    used = 0;
                    file.read_exact_at(&mut window, offset).map_err(|source| match source.kind() {
                        io::ErrorKind::UnexpectedEof => self.damage(offset, "the file is shorter than it was").into(),
                        _ => self.io(source),
                    })?;
                }
                Step::Frame(header) => {
                    if header.first != position {
                        let reason = format!("the frame says that it begins at record {}, not at {position}", header.first);
                        return Err(self.damage(offset, reason).into());
                    }
                    used += FRAME_HEADER_BYTES;
                    offset += FRAME_HEADER_BYTES as u64;
                }
                Step::Record(record, bytes) => {
                    walked.last = position;
                    if position >= from && visit(record, offset).is_break() {
                        return Ok(walked);
                    }
                    used += bytes;
                    offset += bytes as u64;
                    position = position.plus(1);
                }
            }
        }
        Ok(walked)
    }
}
