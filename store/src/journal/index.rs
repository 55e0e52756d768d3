//! The index of a segment: where its records are, and which changes are about what.
//!
//! While a segment grows its index is in memory. When the next segment has begun, it is written to a file beside the segment
//! and only its table of chunks and the first hash of each block stay in memory. The file can be built anew from the segment
//! at any time, and is, when it is missing or damaged.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::time::JournalTime;

use super::frame::Kind;
use super::record::{self, Sketch};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::{FORMAT, ReadError};
use crate::files;

/// A new chunk begins when the last one has this many bytes.
pub(crate) const CHUNK_BYTES: u64 = 32 * 1024;
/// Pairs in a block of the file: a block is what is read and checked at once.
const BLOCK_PAIRS: usize = 340;
/// Bytes of a pair: the hash, and the position counted from the segment's first.
const PAIR_BYTES: usize = 12;
/// Bytes of a block: its pairs and their checksum.
const BLOCK_BYTES: usize = BLOCK_PAIRS * PAIR_BYTES + 4;
const INDEX_MAGIC: [u8; 8] = *b"klaxnidx";
const INDEX_HEADER_BYTES: usize = 64;
const CHUNK_ROW_BYTES: usize = 32;
/// More than this is damage: the tables of the largest segment are far smaller.
const TABLES_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The first record in it.
    pub(crate) position: Position,
    /// Where that begins, or its frame if it is the first of one.
    pub(crate) offset: u64,
    /// The earliest time of a change in it, in microseconds; larger than the latest if there is no change.
    pub(crate) earliest: i64,
    /// The latest.
    pub(crate) latest: i64,
}

/// Finds the changes that are about one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u64);

impl Key {
    /// FNV-1a over the kind of the key, and its parts behind separators that no name can hold.
    fn of(kind: u8, parts: &[&[u8]]) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = (OFFSET ^ u64::from(kind)).wrapping_mul(PRIME);
        for part in parts {
            hash = (hash ^ 0x1f).wrapping_mul(PRIME);
            for byte in *part {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
        }
        Self(hash)
    }

    /// About this alarm.
    pub(crate) fn alarm(id: AlarmId) -> Self {
        Self::of(b'a', &[id.0.as_bytes()])
    }

    /// About this resource or what lies under it.
    pub(crate) fn resource(site: &str, path: &str) -> Self {
        Self::of(b'r', &[site.as_bytes(), path.as_bytes()])
    }

    /// About this type.
    pub(crate) fn alarm_type(alarm_type: &str) -> Self {
        Self::of(b't', &[alarm_type.as_bytes()])
    }

    /// About this site.
    pub(crate) fn site(site: &str) -> Self {
        Self::of(b's', &[site.as_bytes()])
    }
}

/// What a change is found by.
pub(crate) struct Subjects<'a> {
    alarm: Option<AlarmId>,
    site: &'a str,
    resource: Option<Resource>,
    alarm_type: Option<&'a str>,
}

impl<'a> Subjects<'a> {
    /// Of a change that was read only as far as needed.
    fn of_sketch(sketch: &'a Sketch<'_>) -> Self {
        Self {
            alarm: sketch.alarm_id(),
            site: sketch.site(),
            resource: sketch.resource().and_then(|resource| Resource::new(resource).ok()),
            alarm_type: sketch.alarm_type(),
        }
    }

    /// Of a change; a test holds it equal to the one above.
    fn of_change(change: &'a Change) -> Self {
        let none = Self { alarm: None, site: change.concerns(), resource: None, alarm_type: None };
        match &change.subject {
            Subject::Alarm { alarm, .. } => Self {
                alarm: Some(alarm.id),
                resource: Some(alarm.key.resource.clone()),
                alarm_type: Some(&alarm.key.alarm_type),
                ..none
            },
            Subject::Event { event, .. } => {
                Self { resource: Some(event.key.resource.clone()), alarm_type: Some(&event.key.alarm_type), ..none }
            }
            Subject::Suppression { alarm_type, .. } => Self { alarm_type: Some(alarm_type), ..none },
            Subject::Refusal(refusal) => Self { alarm: refusal.alarm, ..none },
            Subject::Shelf(_) | Subject::Quarantine { .. } | Subject::Child(_) | Subject::Token(_) => none,
        }
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        let paths = self.resource.iter().flat_map(Resource::paths).map(|path| Key::resource(self.site, path));
        let rest = [self.alarm.map(Key::alarm), self.alarm_type.map(Key::alarm_type), Some(Key::site(self.site))];
        rest.into_iter().flatten().chain(paths)
    }
}

/// An index in memory, or the part of one that a frame adds.
#[derive(Debug, Default, Clone)]
pub(crate) struct IndexBuilder {
    first: Position,
    chunks: Vec<Chunk>,
    pairs: Vec<(Key, u32)>,
    sites: BTreeSet<Box<str>>,
    changes: u64,
    newest: JournalTime,
}

impl IndexBuilder {
    /// Of a segment that begins at `first`.
    pub(crate) fn new(first: Position) -> Self {
        Self { first, ..Self::default() }
    }

    /// For the next frame of the same segment.
    pub(crate) fn clear(&mut self, first: Position) {
        self.first = first;
        self.chunks.clear();
        self.pairs.clear();
        self.sites.clear();
        self.changes = 0;
        self.newest = JournalTime::default();
    }

    /// A record begins at `offset`, or its frame if it is the first of one; `last_chunk` is where the last chunk began.
    pub(crate) fn place(&mut self, position: Position, offset: u64, last_chunk: &mut Option<u64>) {
        if last_chunk.is_none_or(|began| offset - began >= CHUNK_BYTES) {
            self.chunks.push(Chunk { position, offset, earliest: i64::MAX, latest: i64::MIN });
            *last_chunk = Some(offset);
        }
    }

    /// An entry came, or the engine had come to, journal time `at`.
    pub(crate) fn time(&mut self, at: JournalTime) {
        self.newest = self.newest.max(at);
    }

    /// The change at `position`.
    pub(crate) fn change(&mut self, position: Position, change: &Change) {
        self.add(position, change.at.as_micros(), &Subjects::of_change(change));
    }

    /// The same, read from the journal.
    pub(crate) fn sketch(&mut self, position: Position, sketch: &Sketch<'_>) {
        self.add(position, sketch.at.as_micros(), &Subjects::of_sketch(sketch));
    }

    fn add(&mut self, position: Position, at: i64, subjects: &Subjects<'_>) {
        let number = u32::try_from(position.0 - self.first.0).expect("a segment has far fewer records");
        self.pairs.extend(subjects.keys().map(|key| (key, number)));
        if !self.sites.contains(subjects.site) {
            self.sites.insert(subjects.site.into());
        }
        self.changes += 1;
        // A frame's part may have no chunk of its own: then the times go to the chunk before it, in `absorb`.
        match self.chunks.last_mut() {
            Some(chunk) => {
                chunk.earliest = chunk.earliest.min(at);
                chunk.latest = chunk.latest.max(at);
            }
            None => self.chunks.push(Chunk { position: Position(0), offset: 0, earliest: at, latest: at }),
        }
    }

    /// Takes in the part that a frame added.
    pub(crate) fn absorb(&mut self, part: &Self) {
        for chunk in &part.chunks {
            match self.chunks.last_mut() {
                Some(last) if chunk.position == Position(0) => {
                    last.earliest = last.earliest.min(chunk.earliest);
                    last.latest = last.latest.max(chunk.latest);
                }
                _ => self.chunks.push(*chunk),
            }
        }
        self.pairs.extend_from_slice(&part.pairs);
        for site in &part.sites {
            if !self.sites.contains(site) {
                self.sites.insert(site.clone());
            }
        }
        self.changes += part.changes;
        self.time(part.newest);
    }

    /// Where the last chunk begins.
    pub(crate) fn last_chunk(&self) -> Option<u64> {
        self.chunks.last().map(|chunk| chunk.offset)
    }

    /// The chunk in which `position` is.
    pub(crate) fn chunk_before(&self, position: Position) -> Option<Chunk> {
        chunk_before(&self.chunks, position)
    }

    /// The chunks.
    pub(crate) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The changes under `key`, in order.
    pub(crate) fn find(&self, key: Key) -> Vec<Position> {
        let mut found: Vec<_> =
            self.pairs.iter().filter(|pair| pair.0 == key).map(|pair| self.first.plus(pair.1.into())).collect();
        found.dedup();
        found
    }

    /// The sites that changes are about.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &str> {
        self.sites.iter().map(|site| &**site)
    }

    /// The newest journal time of its entries and cursors; zero if it has neither.
    pub(crate) fn newest(&self) -> JournalTime {
        self.newest
    }

    /// Takes in one record as it is read from the journal. A change that cannot be understood is an error.
    pub(crate) fn read(
        &mut self,
        record: &super::frame::RawRecord<'_>,
        offset: u64,
        last_chunk: &mut Option<u64>,
    ) -> Result<(), record::DecodeError> {
        self.place(record.position, offset, last_chunk);
        match record.kind {
            Kind::Change => self.sketch(record.position, &Sketch::read(record.payload)?),
            Kind::Entry | Kind::Cursor => self.time(journal_time(record.payload)?),
            _ => {}
        }
        Ok(())
    }
}

/// The journal time of an entry or a cursor.
fn journal_time(payload: &[u8]) -> Result<JournalTime, record::DecodeError> {
    #[derive(serde::Deserialize)]
    struct Time {
        at: JournalTime,
    }
    Ok(serde_json::from_slice::<Time>(payload)?.at)
}

fn chunk_before(chunks: &[Chunk], position: Position) -> Option<Chunk> {
    let behind = chunks.partition_point(|chunk| chunk.position <= position);
    behind.checked_sub(1).map(|at| chunks[at])
}

/// An index in its file.
#[derive(Debug)]
pub(crate) struct SegmentIndex {
    path: PathBuf,
    file: File,
    first: Position,
    chunks: Vec<Chunk>,
    /// The first hash of each block.
    fences: Vec<u64>,
    pairs: u64,
    pairs_offset: u64,
    sites: Vec<Box<str>>,
    newest: JournalTime,
}

/// The path of the index of the segment at `segment`.
pub(crate) fn index_path(segment: &Path) -> PathBuf {
    segment.with_extension("idx")
}

/// The first record, the bytes and the last record of the segment at `segment`, as the head of its index says; nothing if that
/// is not sound.
pub(crate) fn head(segment: &Path) -> Option<(Position, u64, Position)> {
    let mut header = [0; INDEX_HEADER_BYTES];
    File::open(index_path(segment)).and_then(|file| file.read_exact_at(&mut header, 0)).ok()?;
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let records = u32::from_le_bytes(header[56..60].try_into().expect("four bytes"));
    let first = Position(long(16));
    is_sound(&header).then(|| (first, long(24), Position((first.0 + u64::from(records)).saturating_sub(1))))
}

fn is_sound(header: &[u8; INDEX_HEADER_BYTES]) -> bool {
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    header[0..8] == INDEX_MAGIC && word(8) == FORMAT && crc32c::crc32c(&header[..60]) == word(60)
}

impl SegmentIndex {
    /// Reads the index of `segment`, or builds it anew and says so.
    pub(crate) fn open_or_build(segment: &Segment) -> Result<Self, ReadError> {
        let path = index_path(&segment.path);
        match Self::open(segment) {
            Ok(index) => return Ok(index),
            Err(reason) => {
                tracing::warn!(index = %path.display(), reason, "the index of a segment is built anew");
            }
        }
        let mut builder = IndexBuilder::new(segment.header.first);
        let mut last_chunk = None;
        let mut failure = None;
        let start = (segment.header.first, SEGMENT_HEADER_BYTES as u64);
        segment.walk_at(start, segment.header.first, |record, offset| {
            match builder.read(&record, offset, &mut last_chunk) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(segment.damage(offset, record::unreadable(record.kind, &error)));
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(damage) = failure {
            return Err(damage.into());
        }
        Self::write(segment, &builder)
    }

    /// Writes the index of `segment`.
    pub(crate) fn write(segment: &Segment, builder: &IndexBuilder) -> Result<Self, ReadError> {
        let path = index_path(&segment.path);
        let failed = |source| ReadError::Io { path: path.clone(), source };
        files::replace(&path, &to_bytes(builder, segment.bytes(), segment.last())).map_err(failed)?;
        Self::open(segment).map_err(|reason| failed(std::io::Error::other(reason)))
    }

    /// Reads the tables of the index of `segment`; the error says why they cannot be used.
    pub(crate) fn open(segment: &Segment) -> Result<Self, String> {
        let path = index_path(&segment.path);
        let file = File::open(&path).map_err(|error| error.to_string())?;
        let mut header = [0; INDEX_HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(|error| error.to_string())?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        if !is_sound(&header) {
            return Err("its head is damaged or of another format".to_owned());
        }
        if (long(16), long(24)) != (segment.header.first.0, segment.bytes()) {
            return Err("it belongs to another segment".to_owned());
        }
        let (pairs, tables_bytes) = (long(32), long(40));
        if tables_bytes > TABLES_BYTES_MAX {
            return Err("its tables are too large".to_owned());
        }
        let mut tables = vec![0; tables_bytes as usize];
        file.read_exact_at(&mut tables, INDEX_HEADER_BYTES as u64).map_err(|error| error.to_string())?;
        if crc32c::crc32c(&tables) != word(12) {
            return Err("its tables fail their checksum".to_owned());
        }
        let newest = JournalTime(long(48));
        let blocks = pairs.div_ceil(BLOCK_PAIRS as u64) as usize;
        let (chunks, fences, sites) = parse_tables(&tables, blocks).ok_or("its tables contradict themselves")?;
        let pairs_offset = INDEX_HEADER_BYTES as u64 + tables_bytes;
        Ok(Self { path, file, first: segment.header.first, chunks, fences, pairs, pairs_offset, sites, newest })
    }

    /// The chunk in which `position` is.
    pub(crate) fn chunk_before(&self, position: Position) -> Option<Chunk> {
        chunk_before(&self.chunks, position)
    }

    /// The chunks.
    pub(crate) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The sites that changes are about.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &str> {
        self.sites.iter().map(|site| &**site)
    }

    /// The newest journal time of its entries and cursors; zero if it has neither.
    pub(crate) fn newest(&self) -> JournalTime {
        self.newest
    }

    /// The changes under `key`, in order. `None` if a block is damaged: the index is to be built anew.
    pub(crate) fn find(&self, key: Key) -> Result<Option<Vec<Position>>, ReadError> {
        let mut found = Vec::new();
        // Equal hashes may begin in the block before the first fence that is not below.
        let from = self.fences.partition_point(|fence| *fence < key.0).saturating_sub(1);
        for block in from..self.fences.len() {
            if self.fences[block] > key.0 {
                break;
            }
            let Some(pairs) = self.block(block)? else { return Ok(None) };
            found.extend(pairs.filter(|pair| pair.0 == key).map(|pair| self.first.plus(pair.1.into())));
        }
        found.dedup();
        Ok(Some(found))
    }

    /// Reads every block; tells whether all are as they were written.
    pub(crate) fn verify(&self) -> Result<bool, ReadError> {
        for block in 0..self.fences.len() {
            if self.block(block)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn block(&self, block: usize) -> Result<Option<impl Iterator<Item = (Key, u32)> + use<>>, ReadError> {
        let count = (self.pairs as usize - block * BLOCK_PAIRS).min(BLOCK_PAIRS);
        let mut bytes = vec![0; count * PAIR_BYTES + 4];
        let offset = self.pairs_offset + (block * BLOCK_BYTES) as u64;
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(source) => return Err(ReadError::Io { path: self.path.clone(), source }),
        }
        let crc = bytes.split_off(count * PAIR_BYTES);
        if crc32c::crc32c(&bytes).to_le_bytes() != crc[..] {
            return Ok(None);
        }
        Ok(Some((0..count).map(move |at| {
            let row = &bytes[at * PAIR_BYTES..(at + 1) * PAIR_BYTES];
            let hash = u64::from_le_bytes(row[..8].try_into().expect("eight bytes"));
            (Key(hash), u32::from_le_bytes(row[8..].try_into().expect("four bytes")))
        })))
    }
}

/// The whole file.
fn to_bytes(builder: &IndexBuilder, segment_bytes: u64, last: Position) -> Vec<u8> {
    let mut pairs = builder.pairs.clone();
    pairs.sort_unstable();
    let mut tables = Vec::new();
    let mut long = |value: u64| tables.extend_from_slice(&value.to_le_bytes());
    long(last.0);
    long(builder.changes);
    long(builder.chunks.len() as u64);
    for chunk in &builder.chunks {
        long(chunk.position.0);
        long(chunk.offset);
        long(chunk.earliest as u64);
        long(chunk.latest as u64);
    }
    pairs.iter().step_by(BLOCK_PAIRS).for_each(|pair| long(pair.0.0));
    long(builder.sites.len() as u64);
    for site in &builder.sites {
        tables.extend_from_slice(&(site.len() as u64).to_le_bytes());
        tables.extend_from_slice(site.as_bytes());
    }

    let mut bytes = vec![0; INDEX_HEADER_BYTES];
    bytes[0..8].copy_from_slice(&INDEX_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&crc32c::crc32c(&tables).to_le_bytes());
    bytes[16..24].copy_from_slice(&builder.first.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&segment_bytes.to_le_bytes());
    bytes[32..40].copy_from_slice(&(pairs.len() as u64).to_le_bytes());
    bytes[40..48].copy_from_slice(&(tables.len() as u64).to_le_bytes());
    bytes[48..56].copy_from_slice(&builder.newest.0.to_le_bytes());
    let records = u32::try_from((last.0 + 1).saturating_sub(builder.first.0)).unwrap_or(u32::MAX);
    bytes[56..60].copy_from_slice(&records.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&tables);
    for block in pairs.chunks(BLOCK_PAIRS) {
        let start = bytes.len();
        for (key, number) in block {
            bytes.extend_from_slice(&key.0.to_le_bytes());
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[start..]);
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
    bytes
}

type Tables = (Vec<Chunk>, Vec<u64>, Vec<Box<str>>);

fn parse_tables(mut tables: &[u8], blocks: usize) -> Option<Tables> {
    fn long(tables: &mut &[u8]) -> Option<u64> {
        let (head, rest) = tables.split_first_chunk::<8>()?;
        *tables = rest;
        Some(u64::from_le_bytes(*head))
    }
    let tables = &mut tables;
    let (_last, _changes) = (long(tables)?, long(tables)?);
    let count = usize::try_from(long(tables)?).ok().filter(|count| *count <= tables.len() / CHUNK_ROW_BYTES)?;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        chunks.push(Chunk {
            position: Position(long(tables)?),
            offset: long(tables)?,
            earliest: long(tables)? as i64,
            latest: long(tables)? as i64,
        });
    }
    let mut fences = Vec::with_capacity(blocks.min(tables.len() / 8));
    for _ in 0..blocks {
        fences.push(long(tables)?);
    }
    let mut sites = Vec::new();
    for _ in 0..long(tables)? {
        let length = usize::try_from(long(tables)?).ok()?;
        let (site, rest) = tables.split_at_checked(length)?;
        sites.push(std::str::from_utf8(site).ok()?.into());
        *tables = rest;
    }
    tables.is_empty().then_some((chunks, fences, sites))
}
