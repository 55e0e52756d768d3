//! Whose store it is: the node's id and the numbering it is in, kept in `node.json`; and the high-water mark, which tells how
//! far the journal is known to have come.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files;
use crate::journal::FORMAT;

/// So many numberings before the present one are known. Of what is beyond, only the end is: a node above that knows nothing newer is
/// told what came behind the oldest that is known.
pub const EARLIER_MAX: usize = 64;
const NODE: &str = "node.json";
const HIGH_WATER: &str = "high-water";
const HIGH_WATER_MAGIC: [u8; 8] = *b"klaxnhwm";
const HIGH_WATER_BYTES: usize = 32;
/// The two slots of the mark are in different sectors: a torn write leaves the other one.
const HIGH_WATER_SLOT_BYTES: u64 = 4096;

/// Whose store it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node.
    pub node_id: Uuid,
    /// The numbering of changes.
    pub epoch: Epoch,
    /// Why that numbering began.
    pub new_epoch: NewEpoch,
    /// When the store was made.
    pub created_at: Timestamp,
    /// The last record of the journal before that numbering; what is behind it is of that numbering.
    pub epoch_after: Position,
    /// The numberings before that one, the oldest first: those of which the journal is, and no more than [`EARLIER_MAX`].
    pub earlier: Vec<Numbering>,
}

/// A numbering of changes, and where in the journal it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbering {
    /// The numbering.
    pub epoch: Epoch,
    /// The last record of the journal before it.
    pub after: Position,
    /// Why it began.
    pub reason: NewEpoch,
}

/// Why the identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The system refuses.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not of the form that was expected.
    #[error("{path} cannot be read as a node's identity")]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// There is a journal, but nothing says whose.
    #[error("{path} is missing beside a journal; restore it from a backup")]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("{path} is damaged: its checksum is {found:08x}, and that of what it says {computed:08x}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What stands in it.
        found: u32,
        /// What should.
        computed: u32,
    },
    /// A newer program wrote it.
    #[error("{path} has format {found}, which is newer than this program, which knows {known}")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this program reads.
        known: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct NodeFile {
    format: u32,
    node_id: Uuid,
    epoch: Epoch,
    new_epoch: NewEpoch,
    created_at: Timestamp,
    /// It came later, and is not among what the checksum is over, so that an older program reads the file too.
    #[serde(default)]
    epoch_after: Position,
    /// As for `epoch_after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Numbering>,
    /// CRC32C over what the other fields say, see [`NodeIdentity::checksum`].
    checksum: u32,
}

impl NodeIdentity {
    fn checksum(&self) -> u32 {
        let said = format!("{FORMAT} {} {} {:?} {}", self.node_id, self.epoch, self.new_epoch, self.created_at);
        crc32c::crc32c(said.as_bytes())
    }

    /// The numberings of which the journal is, as far as they are known; the present one is the last.
    pub fn numberings(&self) -> impl Iterator<Item = Numbering> {
        let present = Numbering { epoch: self.epoch, after: self.epoch_after, reason: self.new_epoch };
        self.earlier.iter().copied().chain([present])
    }

    /// The path of the identity in `dir`.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join(NODE)
    }

    /// A new node's.
    pub(crate) fn first() -> Self {
        Self {
            node_id: Uuid::new_v4(),
            epoch: Epoch(now_ms()),
            new_epoch: NewEpoch::FirstStart,
            created_at: now(),
            epoch_after: Position(0),
            earlier: Vec::new(),
        }
    }

    /// The same node in a new numbering, beyond its own and beyond `beyond`, from behind the record `after` on.
    pub(crate) fn in_new_epoch(&self, beyond: Epoch, reason: NewEpoch, after: Position) -> Self {
        let epoch = Epoch(now_ms().max(self.epoch.0.saturating_add(1)).max(beyond.0.saturating_add(1)));
        let mut earlier: Vec<_> = self.numberings().collect();
        earlier.drain(..earlier.len().saturating_sub(EARLIER_MAX));
        Self { epoch, new_epoch: reason, epoch_after: after, earlier, ..self.clone() }
    }

    /// Reads it from `dir`, if it is there.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, NodeError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let path = Self::path(dir);
        let json = match std::fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(NodeError::Io { action: "read", path, source }),
        };
        let format: Format = match serde_json::from_slice(&json) {
            Ok(format) => format,
            Err(source) => return Err(NodeError::Form { path, source }),
        };
        if format.format > FORMAT {
            return Err(NodeError::Newer { path, found: format.format, known: FORMAT });
        }
        match serde_json::from_slice::<NodeFile>(&json) {
            Ok(file) => {
                let node = Self {
                    node_id: file.node_id,
                    epoch: file.epoch,
                    new_epoch: file.new_epoch,
                    created_at: file.created_at,
                    epoch_after: file.epoch_after,
                    earlier: file.earlier,
                };
                match (file.checksum, node.checksum()) {
                    (found, computed) if found == computed => Ok(Some(node)),
                    (found, computed) => Err(NodeError::Damaged { path, found, computed }),
                }
            }
            Err(source) => Err(NodeError::Form { path, source }),
        }
    }

    /// Writes it to `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), NodeError> {
        let path = Self::path(dir);
        let file = NodeFile {
            format: FORMAT,
            node_id: self.node_id,
            epoch: self.epoch,
            new_epoch: self.new_epoch,
            created_at: self.created_at,
            epoch_after: self.epoch_after,
            earlier: self.earlier.clone(),
            checksum: self.checksum(),
        };
        let mut json = serde_json::to_vec_pretty(&file).expect("numbers and times serialize");
        json.push(b'\n');
        files::replace(&path, &json).map_err(|source| NodeError::Io { action: "write", path, source })
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let micros = i64::try_from(now_ms()).unwrap_or(i64::MAX).saturating_mul(1000);
    Timestamp::from_micros(micros).unwrap_or_else(|_| Timestamp::from_micros(0).expect("1970 can be written"))
}

/// The mark up to which the journal is known to have come.
#[derive(Debug)]
pub(crate) struct HighWater {
    file: File,
    slot: u64,
}

impl HighWater {
    /// Opens the mark in `dir`, and tells what it says, if it says anything.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Option<Position>)> {
        let path = dir.join(HIGH_WATER);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let mut known: Option<(Position, u64)> = None;
        for slot in 0..2 {
            let mut bytes = [0; HIGH_WATER_BYTES];
            match file.read_exact_at(&mut bytes, slot * HIGH_WATER_SLOT_BYTES) {
                Ok(()) => known = known.max(parse_mark(&bytes).map(|position| (position, slot))),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        if known.is_none() {
            files::sync_dir(dir)?;
        }
        let slot = known.map_or(0, |(_, slot)| 1 - slot);
        Ok((Self { file, slot }, known.map(|(position, _)| position)))
    }

    /// Reads the mark in `dir`, if there is one, and changes nothing.
    pub(crate) fn read(dir: &Path) -> Option<Position> {
        let file = File::open(dir.join(HIGH_WATER)).ok()?;
        let slot = |slot: u64| {
            let mut bytes = [0; HIGH_WATER_BYTES];
            file.read_exact_at(&mut bytes, slot * HIGH_WATER_SLOT_BYTES).ok()?;
            parse_mark(&bytes)
        };
        slot(0).max(slot(1))
    }

    /// The journal has come, synced, to `position`.
    pub(crate) fn write(&mut self, position: Position, epoch: Epoch) -> io::Result<()> {
        let mut bytes = [0; HIGH_WATER_BYTES];
        bytes[0..8].copy_from_slice(&HIGH_WATER_MAGIC);
        bytes[8..16].copy_from_slice(&position.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&epoch.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all_at(&bytes, self.slot * HIGH_WATER_SLOT_BYTES)?;
        self.file.sync_data()?;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

fn parse_mark(bytes: &[u8; HIGH_WATER_BYTES]) -> Option<Position> {
    let crc = crc32c::crc32c(&bytes[..28]);
    let whole = bytes[0..8] == HIGH_WATER_MAGIC && bytes[28..] == crc.to_le_bytes();
    whole.then(|| Position(u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"))))
}
