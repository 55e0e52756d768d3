//! Files that settings of receivers name are read again when they have changed.

use std::path::PathBuf;
use std::time::SystemTime;

/// How a file was when it was read: another time or length means another content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(PathBuf, Option<(SystemTime, u64)>);

impl Stamp {
    /// How it is now. Blocks.
    pub(super) fn of(path: &PathBuf) -> Self {
        let metadata = std::fs::metadata(path).ok();
        Self(path.clone(), metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))))
    }
}
