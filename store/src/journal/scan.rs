//! Reading the journal's files from the disk, at a start and offline: what is whole, what was torn, what is damaged.
//!
//! Only one frame is ever on its way to the disk. So what is not whole at the very end is a frame that nobody was told of, and
//! is cut off; anything else that is not whole is damage, and is refused.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use klaxon_schemas::ids::Position;

use super::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, RawRecord, Step, step};
use super::segment::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, segment_first, segment_path};
use super::{DamageError, Unusable};

/// How much is read at once when a whole frame is looked for behind one that is not.
const SEARCH_BYTES: usize = 1024 * 1024;

/// Why the files cannot be used.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// A newer program wrote one.
    Newer { path: PathBuf, found: u32 },
    /// One is damaged, and not only at the end.
    Damaged(DamageError),
    /// The system refuses.
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl From<DamageError> for ScanError {
    fn from(damage: DamageError) -> Self {
        Self::Damaged(damage)
    }
}

/// A segment file whose head was read.
#[derive(Debug, Clone)]
pub(crate) struct FoundSegment {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: u64,
}

/// The segment files of a journal.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The oldest first.
    pub(crate) segments: Vec<FoundSegment>,
    /// A last file that has not even a head: the node went down while it began a segment.
    pub(crate) torn_head: Option<PathBuf>,
}

/// What a scan of one segment met.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scanned {
    /// Up to where it is whole.
    pub(crate) end: u64,
    /// The last whole record; the one before the segment if there is none.
    pub(crate) last: Position,
    pub(crate) frames: u64,
    pub(crate) records: u64,
    /// How many bytes behind `end` are not a whole frame.
    pub(crate) torn_bytes: u64,
}

/// Lists the segments in `journal`, and reads their heads.
pub(crate) fn find(journal: &Path) -> Result<Found, ScanError> {
    let io = |action| move |source| ScanError::Io { action, path: journal.to_owned(), source };
    let mut firsts = Vec::new();
    match fs::read_dir(journal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(io("list")(error)),
        Ok(entries) => {
            for entry in entries {
                firsts.extend(segment_first(&entry.map_err(io("list"))?.path()));
            }
        }
    }
    firsts.sort_unstable();
    let mut found = Found::default();
    for (at, first) in firsts.iter().enumerate() {
        let is_last = at + 1 == firsts.len();
        match read_head(segment_path(journal, *first), *first, is_last)? {
            Ok(segment) => {
                if let Some(before) = found.segments.last()
                    && segment.header.follows.plus(1) < before.header.first
                {
                    return Err(gap(&segment));
                }
                found.segments.push(segment);
            }
            Err(torn) => found.torn_head = Some(torn),
        }
    }
    Ok(found)
}

/// A segment is missing between `segment` and the one before it.
pub(crate) fn gap(segment: &FoundSegment) -> ScanError {
    let reason = format!("it follows record {}, but the segment before it ends elsewhere", segment.header.follows);
    DamageError { segment: segment.path.clone(), offset: 0, reason, newer: false }.into()
}

fn read_head(path: PathBuf, first: Position, is_last: bool) -> Result<Result<FoundSegment, PathBuf>, ScanError> {
    let failed = |action: &'static str, path: &Path, source| ScanError::Io { action, path: path.to_owned(), source };
    let file = File::open(&path).map_err(|source| failed("open", &path, source))?;
    let bytes = file.metadata().map_err(|source| failed("read", &path, source))?.len();
    let damaged = |reason: &str| DamageError { segment: path.clone(), offset: 0, reason: reason.to_owned(), newer: false };
    let mut head = [0; SEGMENT_HEADER_BYTES];
    // The head is synced before anything follows it, so only a file without frames can have a torn one.
    let torn = is_last && bytes <= SEGMENT_HEADER_BYTES as u64;
    if bytes < SEGMENT_HEADER_BYTES as u64 {
        return if torn { Ok(Err(path)) } else { Err(damaged("the segment ends within its head").into()) };
    }
    file.read_exact_at(&mut head, 0).map_err(|source| failed("read", &path, source))?;
    match SegmentHeader::parse(&head) {
        Ok(header) if header.first != first || header.follows >= first => {
            Err(damaged("the head of the segment contradicts the file's name").into())
        }
        Ok(header) => Ok(Ok(FoundSegment { path, header, bytes })),
        Err(HeaderError::Newer(found)) => Err(ScanError::Newer { path, found }),
        Err(HeaderError::Damaged(_)) if torn => Ok(Err(path)),
        Err(HeaderError::Damaged(reason)) => Err(damaged(reason).into()),
    }
}

/// Reads and checks every frame of `segment`, and hands its records to `visit`, each with its offset (that of its frame, if it is
/// the first of one). What `visit` refuses is damage. A torn end is suffered only in the last segment.
pub(crate) fn scan(
    segment: &FoundSegment,
    is_last: bool,
    mut visit: impl FnMut(RawRecord<'_>, u64) -> Result<(), Unusable>,
) -> Result<Scanned, ScanError> {
    let failed = |action, source| ScanError::Io { action, path: segment.path.clone(), source };
    let unusable = |offset, Unusable { reason, newer }| DamageError { segment: segment.path.clone(), offset, reason, newer };
    let damaged = |offset, reason: String| unusable(offset, reason.into());
    let file = File::open(&segment.path).map_err(|source| failed("open", source))?;
    let mut scanned = Scanned {
        end: SEGMENT_HEADER_BYTES as u64,
        last: if segment.header.first.0 == segment.header.follows.0 + 1 {
            segment.header.follows
        } else {
            Position(segment.header.first.0 - 1)
        },
        frames: 0,
        records: 0,
        torn_bytes: 0,
    };
    let mut frame = Vec::new();
    while scanned.end < segment.bytes {
        let offset = scanned.end;
        let expected = scanned.last.plus(1);
        let header = match read_frame(&file, offset, segment.bytes, &mut frame).map_err(|source| failed("read", source))? {
            Ok(header) => header,
            Err(reason) => {
                if !is_last {
                    return Err(damaged(offset, reason.to_owned()).into());
                }
                let behind =
                    whole_frame_behind(&file, offset, segment.bytes, expected).map_err(|source| failed("read", source))?;
                if let Some(behind) = behind {
                    return Err(damaged(offset, format!("{reason}, but a whole frame follows at offset {behind}")).into());
                }
                scanned.torn_bytes = segment.bytes - offset;
                break;
            }
        };
        if header.first != expected {
            // It is whole, so it is not what a crash leaves behind.
            let reason = format!("the frame begins at record {} where {expected} is expected", header.first);
            return Err(damaged(offset, reason).into());
        }
        let mut at = FRAME_HEADER_BYTES;
        let mut position = expected;
        while at < frame.len() {
            let place = if at == FRAME_HEADER_BYTES { offset } else { offset + at as u64 };
            match step(&frame[at..], position) {
                Ok(Step::Record(record, bytes)) => {
                    visit(record, place).map_err(|what| unusable(place, what))?;
                    at += bytes;
                    position = position.plus(1);
                }
                Ok(Step::Short(_) | Step::Frame(_)) => {
                    return Err(damaged(place, "a record reaches beyond its frame".to_owned()).into());
                }
                Err(what) => return Err(unusable(place, what).into()),
            }
        }
        if position != header.last().plus(1) {
            return Err(damaged(offset, "the frame has another number of records than it says".to_owned()).into());
        }
        scanned.end += frame.len() as u64;
        scanned.last = header.last();
        scanned.frames += 1;
        scanned.records += u64::from(header.records);
    }
    Ok(scanned)
}

/// Reads the frame at `offset` if it is whole; else says why it is not.
fn read_frame(file: &File, offset: u64, end: u64, frame: &mut Vec<u8>) -> io::Result<Result<FrameHeader, &'static str>> {
    let left = end - offset;
    if left < FRAME_HEADER_BYTES as u64 {
        return Ok(Err("the file ends within the head of a frame"));
    }
    frame.resize(FRAME_HEADER_BYTES, 0);
    file.read_exact_at(frame, offset)?;
    let Some(header) = FrameHeader::parse(frame) else {
        return Ok(Err("no frame begins here"));
    };
    if header.frame_bytes() as u64 > left {
        return Ok(Err("the file ends within a frame"));
    }
    frame.resize(header.frame_bytes(), 0);
    file.read_exact_at(frame, offset)?;
    if let Err(reason) = header.verify(frame) {
        return Ok(Err(reason));
    }
    Ok(Ok(header))
}

/// Where a whole frame of this journal stands behind `offset`, if one does.
fn whole_frame_behind(file: &File, offset: u64, end: u64, expected: Position) -> io::Result<Option<u64>> {
    let mut window = Vec::new();
    let mut frame = Vec::new();
    let mut start = offset + 1;
    while start + FRAME_HEADER_BYTES as u64 <= end {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX).min(SEARCH_BYTES);
        window.resize(length, 0);
        file.read_exact_at(&mut window, start)?;
        for at in (0..length).filter(|at| window[*at..].starts_with(&FRAME_MAGIC)) {
            let candidate = start + at as u64;
            if end - candidate < FRAME_HEADER_BYTES as u64 {
                break;
            }
            frame.resize(FRAME_HEADER_BYTES, 0);
            file.read_exact_at(&mut frame, candidate)?;
            let Some(header) = FrameHeader::parse(&frame) else { continue };
            if header.first < expected || header.frame_bytes() as u64 > end - candidate {
                continue;
            }
            frame.resize(header.frame_bytes(), 0);
            file.read_exact_at(&mut frame, candidate)?;
            if header.verify(&frame).is_ok() {
                return Ok(Some(candidate));
            }
        }
        // A magic may lie across the border of two windows.
        start += (length - (FRAME_MAGIC.len() - 1).min(length - 1)) as u64;
    }
    Ok(None)
}
