//! The bytes of a frame and of its records. `FORMAT.md` draws them; nothing here knows files or what a record means.

use klaxon_schemas::ids::Position;

use super::{FRAME_BYTES_MAX, Unusable};

/// The first bytes of a frame. The second and third never occur in UTF-8, so no payload can hold them, and the last is no
/// kind of record, so that a walk over records sees where a frame begins.
pub(crate) const FRAME_MAGIC: [u8; 4] = [b'K', 0xfe, 0xff, b'F'];
/// Bytes before a frame's records.
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
/// Bytes before a record's payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
/// The most bytes in a payload: its length has 24 bits.
const PAYLOAD_BYTES_MAX: usize = (1 << 24) - 1;

/// What is said of a record that is whole and not understood.
pub(crate) const NEWER: &str =
    "its checksum is right, so a newer program wrote it: run that one, or restore a backup that was made before it ran";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Entry = 1,
    Change = 2,
    Touched = 3,
    Alarm = 4,
    Put = 5,
    Delete = 6,
    Cursor = 7,
}

impl Kind {
    const ALL: [Self; 7] = [Self::Entry, Self::Change, Self::Touched, Self::Alarm, Self::Put, Self::Delete, Self::Cursor];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Its name for messages and exports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Change => "change",
            Self::Touched => "touched",
            Self::Alarm => "alarm",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Cursor => "cursor",
        }
    }
}

/// One record as it stands in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) position: Position,
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
}

/// A frame that is being written; used again for the next one.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    first: Position,
    records: u32,
    /// A payload is longer than a record's head can say.
    overlong: bool,
}

impl FrameBuffer {
    /// Empties it, for a frame whose first record is at `first`.
    pub(crate) fn begin(&mut self, first: Position) {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEADER_BYTES, 0);
        self.first = first;
        self.records = 0;
        self.overlong = false;
    }

    /// How large it is up to now.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The position of the next record.
    pub(crate) fn next(&self) -> Position {
        self.first.plus(self.records.into())
    }

    /// Appends a record whose payload `write` appends.
    pub(crate) fn push(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        write(&mut self.bytes);
        let payload = start + RECORD_HEADER_BYTES;
        let length = self.bytes.len() - payload;
        // `finish` refuses such a frame.
        self.overlong |= length > PAYLOAD_BYTES_MAX;
        let length = length.min(PAYLOAD_BYTES_MAX) as u32;
        let word = (u32::from(kind as u8) << 24 | length).to_le_bytes();
        let crc = record_crc(self.next(), word, &self.bytes[payload..]);
        self.bytes[start..start + 4].copy_from_slice(&word);
        self.bytes[start + 4..payload].copy_from_slice(&crc.to_le_bytes());
        self.records += 1;
    }

    /// The whole frame, or its length if that is too much.
    pub(crate) fn finish(&mut self) -> Result<&[u8], usize> {
        if self.overlong || self.bytes.len() > FRAME_BYTES_MAX {
            return Err(self.bytes.len());
        }
        let body = (self.bytes.len() - FRAME_HEADER_BYTES) as u32;
        self.bytes[0..4].copy_from_slice(&FRAME_MAGIC);
        self.bytes[4..8].copy_from_slice(&body.to_le_bytes());
        self.bytes[12..20].copy_from_slice(&self.first.0.to_le_bytes());
        self.bytes[20..24].copy_from_slice(&self.records.to_le_bytes());
        let crc = frame_crc(&self.bytes);
        self.bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        Ok(&self.bytes)
    }

    /// Gives back memory beyond what frames usually need.
    pub(crate) fn shrink(&mut self, usual: usize) {
        if self.bytes.capacity() > usual {
            self.bytes.clear();
            self.bytes.shrink_to(usual);
        }
    }
}

/// Over everything but the magic and the checksum itself.
fn frame_crc(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[4..8]), &frame[12..])
}

/// Over position, head and payload: a record that stands elsewhere than it was written is noticed.
fn record_crc(position: Position, word: [u8; 4], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&position.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &word), payload)
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body_bytes: usize,
    pub(crate) crc: u32,
    pub(crate) first: Position,
    pub(crate) records: u32,
}

impl FrameHeader {
    /// Reads the header at the beginning of `bytes`, if it can be one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[0..4] != FRAME_MAGIC {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let first = u64::from_le_bytes(bytes[12..20].try_into().expect("eight bytes"));
        let header = Self { body_bytes: word(4) as usize, crc: word(8), first: Position(first), records: word(20) };
        let possible = header.body_bytes <= FRAME_BYTES_MAX - FRAME_HEADER_BYTES
            && header.records as usize <= header.body_bytes / RECORD_HEADER_BYTES
            && first > 0
            && first.checked_add(header.records.into()).is_some();
        possible.then_some(header)
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes
    }

    /// The last record.
    pub(crate) fn last(&self) -> Position {
        Position(self.first.0 + u64::from(self.records) - 1)
    }

    /// Whether `frame`, which has this header, is what was written.
    pub(crate) fn verify(&self, frame: &[u8]) -> Result<(), &'static str> {
        if self.records == 0 {
            return Err("the frame has no records");
        }
        if frame_crc(frame) != self.crc {
            return Err("the frame fails its checksum");
        }
        Ok(())
    }
}

/// What a walk over records meets.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// The head of a frame, of [`FRAME_HEADER_BYTES`].
    Frame(FrameHeader),
    /// A record, and how many bytes it takes.
    Record(RawRecord<'a>, usize),
    /// `bytes` end before what begins here; so many are needed.
    Short(usize),
}

/// What stands at the beginning of `bytes`, where the record at `position` is expected, or the head of its frame.
pub(crate) fn step(bytes: &[u8], position: Position) -> Result<Step<'_>, Unusable> {
    let Some(head) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        return Ok(Step::Short(RECORD_HEADER_BYTES));
    };
    if head[0..4] == FRAME_MAGIC {
        if bytes.len() < FRAME_HEADER_BYTES {
            return Ok(Step::Short(FRAME_HEADER_BYTES));
        }
        let header = FrameHeader::parse(bytes).ok_or("the head of the frame cannot be one")?;
        return Ok(Step::Frame(header));
    }
    let word = [head[0], head[1], head[2], head[3]];
    let length = (u32::from_le_bytes(word) & 0x00ff_ffff) as usize;
    let whole = RECORD_HEADER_BYTES + length;
    let Some(payload) = bytes.get(RECORD_HEADER_BYTES..whole) else {
        return Ok(Step::Short(whole));
    };
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if record_crc(position, word, payload) != crc {
        return Err(match Kind::from_byte(word[3]) {
            Some(_) => "the record fails its checksum".into(),
            None => "the record is of no known kind".into(),
        });
    }
    let Some(kind) = Kind::from_byte(word[3]) else {
        let reason = format!("a record is of kind {}; {NEWER}", word[3]);
        return Err(Unusable { reason, newer: true });
    };
    Ok(Step::Record(RawRecord { position, kind, payload }, whole))
}
