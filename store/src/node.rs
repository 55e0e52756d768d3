//! Whose store it is: the node's id and the numbering it is in, kept in `node.json`.
use std::path::PathBuf;
use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::ids::Epoch;
use klaxon_schemas::time::Timestamp;
use uuid::Uuid;

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
        source: std::io::Error,
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
