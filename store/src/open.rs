//! Opening.
use std::path::PathBuf;
use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::ids::{Epoch, Position};
use crate::journal::DamageError;
use crate::node::NodeError;

/// What was found at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// A last frame that was not written whole, and was cut off. Nobody had been told of it.
    pub torn_tail: Option<TornTail>,
    /// The journal ends before what was known to be written.
    pub tail_missing: Option<TailMissing>,
    /// Why the view was built anew, if it was.
    pub view_rebuilt: Option<String>,
    /// How many records were read from the journal to bring the state up to date.
    pub replayed_records: u64,
    /// The numbering of changes.
    pub epoch: Epoch,
    /// Why that numbering is to begin, if no start has been journalled in it yet.
    pub new_epoch: Option<NewEpoch>,
    /// Other oddities, in words; nothing was lost by them.
    pub notes: Vec<String>,
}

/// A last frame that was not written whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// In which segment.
    pub segment: PathBuf,
    /// Where it began.
    pub offset: u64,
    /// How much was cut off.
    pub bytes: u64,
}

/// What was known to be written and is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailMissing {
    /// The first record that is missing.
    pub from: Position,
    /// The last that is known to have been written; there may have been more.
    pub to: Position,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{dir} is in use by process {pid}")]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process, as far as it says.
        pid: String,
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
    /// The node's identity cannot be read or written.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The view can be neither opened nor built anew.
    #[error("cannot open or build the view in {path}: {reason}")]
    View {
        /// Where it is.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A setting is out of bounds.
    #[error("setting {setting} {reason}")]
    Config {
        /// Which.
        setting: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
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
