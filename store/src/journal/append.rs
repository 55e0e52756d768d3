//! Writing frames: one write and one sync each, at the end of the last segment.
//!
//! A write that finds no room is taken back. Any other error, and any failed sync, ends the process: what the disk then holds
//! is not known, and only a new start reads what is really there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use klaxon_schemas::ids::{Epoch, Position};

use super::Journal;
use super::frame::FrameBuffer;
use super::index::IndexBuilder;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, segment_path};
use crate::files;

/// What the process ends with when the disk fails (sysexits.h: EX_IOERR).
const EXIT_IO_ERROR: i32 = 74;
/// A buffer larger than this is given back after the frame.
const BUFFER_BYTES_USUAL: usize = 4 * 1024 * 1024;

/// Why a frame was not written. Nothing of it is in the file.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// There is no room.
    NoRoom { bytes: u64, source: io::Error },
    /// It is larger than a frame may be.
    TooLarge { bytes: u64 },
}

/// The end of the journal, and the frame that is made to be put there.
#[derive(Debug)]
pub(crate) struct Appender {
    journal: Arc<Journal>,
    segment: Arc<Segment>,
    file: File,
    end: u64,
    next: Position,
    /// The numbering that new segments begin in.
    pub(crate) epoch: Epoch,
    segment_bytes: u64,
    last_chunk: Option<u64>,
    /// The chunk began in the frame that is being made.
    frame_chunk: Option<u64>,
    /// The frame.
    pub(crate) frame: FrameBuffer,
    /// What the frame adds to the segment's index.
    pub(crate) part: IndexBuilder,
    /// Tests let the disk be full from this size of a segment on.
    #[cfg(test)]
    pub(crate) room: Arc<std::sync::atomic::AtomicU64>,
}

impl Appender {
    /// At the end of `journal`.
    pub(crate) fn open(journal: &Arc<Journal>, epoch: Epoch, segment_bytes: u64) -> io::Result<Self> {
        let segment = journal.active();
        let file = OpenOptions::new().write(true).open(&segment.path)?;
        let (end, next) = (segment.bytes(), segment.last().plus(1));
        let last_chunk = segment.with_builder(IndexBuilder::last_chunk).flatten();
        Ok(Self {
            journal: Arc::clone(journal),
            segment,
            file,
            end,
            next,
            epoch,
            segment_bytes,
            last_chunk,
            frame_chunk: last_chunk,
            frame: FrameBuffer::default(),
            part: IndexBuilder::default(),
            #[cfg(test)]
            room: Arc::new(u64::MAX.into()),
        })
    }

    /// The position of the next record.
    pub(crate) fn next(&self) -> Position {
        self.next
    }

    /// Begins a frame, in a new segment if the last one is full.
    pub(crate) fn begin(&mut self) -> Result<(), WriteError> {
        if self.end >= self.segment_bytes && self.end > SEGMENT_HEADER_BYTES as u64 {
            self.roll()?;
        }
        self.frame.begin(self.next);
        self.part.clear(self.segment.header.first);
        self.frame_chunk = self.last_chunk;
        Ok(())
    }

    /// The next record of the frame is about to be pushed: tells its position.
    pub(crate) fn place(&mut self) -> Position {
        let position = self.frame.next();
        // A chunk that begins with a frame's first record begins at the frame's head.
        let within = if position == self.next { 0 } else { self.frame.len() as u64 };
        self.part.place(position, self.end + within, &mut self.frame_chunk);
        position
    }

    /// Writes and syncs the frame; tells its last record.
    pub(crate) fn commit(&mut self) -> Result<Position, WriteError> {
        let last = Position(self.frame.next().0 - 1);
        let bytes = match self.frame.finish() {
            Ok(bytes) => bytes,
            Err(bytes) => {
                self.frame.shrink(BUFFER_BYTES_USUAL);
                return Err(WriteError::TooLarge { bytes: bytes as u64 });
            }
        };
        let length = bytes.len() as u64;
        #[cfg(test)]
        let written = {
            let room = self.room.load(std::sync::atomic::Ordering::Relaxed).saturating_sub(self.end);
            let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            self.file.write_all_at(&bytes[..fits], self.end).and_then(|()| {
                let full = || io::Error::from(rustix::io::Errno::NOSPC);
                if fits == bytes.len() { Ok(()) } else { Err(full()) }
            })
        };
        #[cfg(not(test))]
        let written = self.file.write_all_at(bytes, self.end);
        if let Err(error) = written {
            return Err(self.take_back(length, error));
        }
        let begun = Instant::now();
        if let Err(error) = self.file.sync_data() {
            die("sync", &self.segment.path, &error);
        }
        self.journal.syncs.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.journal.sync_us.fetch_add(took, Ordering::Relaxed);
        self.end += length;
        self.next = last.plus(1);
        self.last_chunk = self.frame_chunk;
        self.segment.grow(self.end, last, |index| index.absorb(&self.part));
        self.frame.shrink(BUFFER_BYTES_USUAL);
        Ok(last)
    }

    fn take_back(&self, bytes: u64, error: io::Error) -> WriteError {
        if !files::is_no_room(&error) {
            die("write", &self.segment.path, &error);
        }
        if let Err(error) = self.file.set_len(self.end) {
            die("truncate", &self.segment.path, &error);
        }
        WriteError::NoRoom { bytes, source: error }
    }

    fn roll(&mut self) -> Result<(), WriteError> {
        let follows = Position(self.next.0 - 1);
        let header = SegmentHeader { first: self.next, follows, epoch: self.epoch };
        match create(&self.journal.dir, header) {
            Ok((segment, file)) => {
                self.file = file;
                self.segment = Arc::new(segment);
                self.end = SEGMENT_HEADER_BYTES as u64;
                self.last_chunk = None;
                self.journal.push(Arc::clone(&self.segment));
                Ok(())
            }
            Err(error) if files::is_no_room(&error) => {
                let path = segment_path(&self.journal.dir, header.first);
                if let Err(error) = files::remove_file(&path) {
                    die("remove", &path, &error);
                }
                Err(WriteError::NoRoom { bytes: SEGMENT_HEADER_BYTES as u64, source: error })
            }
            Err(error) => die("begin", &segment_path(&self.journal.dir, header.first), &error),
        }
    }
}

/// Makes a segment file in `journal`, durable with its name.
pub(crate) fn create(journal: &Path, header: SegmentHeader) -> io::Result<(Segment, File)> {
    let path = segment_path(journal, header.first);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    file.write_all_at(&header.to_bytes(), 0)?;
    file.sync_all()?;
    files::sync_dir(journal)?;
    let last = Position(header.first.0 - 1);
    let segment = Segment::scanned(path, header, SEGMENT_HEADER_BYTES as u64, last, IndexBuilder::new(header.first));
    Ok((segment, file))
}

fn die(action: &'static str, path: &Path, error: &io::Error) -> ! {
    tracing::error!(action, path = %path.display(), %error, "the journal's disk fails; the process ends");
    std::process::exit(EXIT_IO_ERROR)
}
