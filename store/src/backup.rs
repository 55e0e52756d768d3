//! Backing up, also beside a running node, restoring, and building anew what can be.
use std::path::{Path, PathBuf};
use klaxon_schemas::ids::{Epoch, Position};
use crate::node::NodeError;
use crate::offline::OfflineError;
use crate::open::{OpenError, OpenReport};

/// Why a backup, a restore or a rebuild failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] OfflineError),
    /// The identity cannot be read or written.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// There is something already.
    #[error("{dir} is not empty; name a folder that is not there")]
    NotEmpty {
        /// Where it was to go.
        dir: PathBuf,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be closed.
    #[error(transparent)]
    Close(#[from] crate::writer::CloseError),
    /// The system refuses.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupReport {
    /// How many segments.
    pub segments: usize,
    /// How many bytes.
    pub bytes: u64,
    /// The first record in it.
    pub first_position: Position,
    /// The last record in it.
    pub last_position: Position,
    /// The numbering of changes: of a restored store, the new one.
    pub epoch: Epoch,
}

/// Copies the store in `dir` to the folder `to`, up to the last frame that is whole. A node may be running on it.
pub fn backup(_dir: &Path, _to: &Path) -> Result<BackupReport, BackupError> {
    unimplemented!()
}

/// Makes a store in `dir` of the backup `from`, after checking all of it. A new numbering of changes begins with it.
pub fn restore(_from: &Path, _dir: &Path) -> Result<BackupReport, BackupError> {
    unimplemented!()
}

/// Removes the view and the indexes of the store in `dir`, which nobody may have open, and builds them anew.
pub fn rebuild(_dir: &Path) -> Result<OpenReport, BackupError> {
    unimplemented!()
}
