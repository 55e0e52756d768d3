//! The journal.
use std::path::PathBuf;
use klaxon_schemas::ids::Position;

/// The most bytes in a frame.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of the journal that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{segment} is damaged at offset {offset}: {reason}")]
pub struct DamageError {
    /// In which file.
    pub segment: PathBuf,
    /// Where.
    pub offset: u64,
    /// How it was noticed.
    pub reason: String,
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
