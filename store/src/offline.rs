//! Reading a store's files without opening it: nothing is locked and nothing is written.
use std::io::Write;
use std::path::{Path, PathBuf};
use klaxon_schemas::ids::Position;
use crate::journal::DamageError;
use crate::open::TornTail;
use crate::state::State;

/// Why the files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no store.
    #[error("{dir} holds no store")]
    NoStore {
        /// The folder.
        dir: PathBuf,
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
    /// The journal is damaged, and not only at its end.
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
    /// What is exported cannot be written.
    #[error("cannot write the export")]
    Write(#[source] std::io::Error),
}

/// What the files hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// How many segments.
    pub segments: usize,
    /// How many bytes in them.
    pub bytes: u64,
    /// How many frames.
    pub frames: u64,
    /// How many records.
    pub records: u64,
    /// The first record that is kept.
    pub first_position: Position,
    /// The last record.
    pub last_position: Position,
    /// A last frame that is not whole: a node that writes at this moment, or a crash. The next start cuts it off.
    pub torn_tail: Option<TornTail>,
    /// How many alarms the journal leaves, cleared ones with them.
    pub alarms: usize,
    /// How many keyed records.
    pub state_records: usize,
    /// Index files that are missing or damaged; they are built anew when needed.
    pub bad_indexes: Vec<PathBuf>,
    /// Other oddities, in words.
    pub notes: Vec<String>,
}

/// The state that follows from the journal in `dir`.
pub fn read_state(_dir: &Path) -> Result<State, OfflineError> {
    unimplemented!()
}

/// Reads everything in `dir` and checks it. Damage is an error that names file and offset.
pub fn verify(_dir: &Path) -> Result<VerifyReport, OfflineError> {
    unimplemented!()
}

/// Writes every record from position `from` on as one line of JSON; tells how many.
pub fn export(_dir: &Path, _from: Position, _writer: &mut dyn Write) -> Result<u64, OfflineError> {
    unimplemented!()
}
