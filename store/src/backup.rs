//! Backing up, also beside a running node, restoring, and building anew what can be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::ids::{Epoch, Position};

use crate::config::StoreConfig;
use crate::files;
use crate::journal::ReadError;
use crate::journal::index::index_path;
use crate::journal::scan;
use crate::journal::segment::segment_path;
use crate::keeper::view_path;
use crate::lock::RetentionLock;
use crate::node::{NodeError, NodeIdentity};
use crate::offline::{self, OfflineError};
use crate::open::{self, OpenError, OpenReport};

/// The longest file that is backed up beside the journal.
const OTHER_BYTES_MAX: u64 = 64 << 20;

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
    /// An index cannot be built.
    #[error("cannot build the index of a segment")]
    Index(#[source] Box<ReadError>),
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

/// A file beside the journal that others keep for the node, and replace as a whole. If it is there, it is backed up and restored.
#[derive(Debug, Clone, Copy)]
pub struct OtherFile {
    /// Its name in the store's folder.
    pub name: &'static str,
    /// What it holds in a restored store, by what it held in the backup.
    pub restored: fn(Vec<u8>) -> Vec<u8>,
}

/// Copies the store in `dir`, and `others` beside it, to the folder `to`, up to the last frame that is whole. A node may be running
/// on it.
pub fn backup(dir: &Path, to: &Path, others: &[OtherFile]) -> Result<BackupReport, BackupError> {
    let node = NodeIdentity::read(dir)?.ok_or_else(|| OfflineError::NoStore { dir: dir.to_owned() })?;
    let _held = RetentionLock::shared(dir).map_err(failed("lock", dir))?;
    make_empty(to)?;
    copy(dir, to)?;
    copy_others(dir, to, others, |_, content| content)?;
    // What the copy says of itself counts, not what was copied.
    let report = checked(to, &node)?;
    node.write(to)?;
    files::sync_dir(to).map_err(failed("sync", to))?;
    Ok(report)
}

/// Makes a store in `dir` of the backup `from`, after checking all of it, and restores `others`. A new numbering of changes begins
/// with it.
pub fn restore(from: &Path, dir: &Path, others: &[OtherFile]) -> Result<BackupReport, BackupError> {
    let state = offline::read_state(from)?;
    let old = NodeIdentity::read(from)?.ok_or_else(|| OfflineError::NoStore { dir: from.to_owned() })?;
    make_empty(dir)?;
    copy(from, dir)?;
    copy_others(from, dir, others, |other, content| (other.restored)(content))?;
    let report = checked(dir, &old)?;
    let node = old.in_new_epoch(state.cursor().epoch, NewEpoch::Restored, report.last_position);
    let report = BackupReport { epoch: node.epoch, ..report };
    // Last: without it the folder is no store, and an interrupted restore cannot be taken for one.
    node.write(dir)?;
    files::sync_dir(dir).map_err(failed("sync", dir))?;
    Ok(report)
}

/// Removes the view and the indexes of the store in `dir`, which nobody may have open, and builds them anew. The engine that
/// keeps the view goes on keeping it.
pub fn rebuild(dir: &Path) -> Result<OpenReport, BackupError> {
    if NodeIdentity::read(dir)?.is_none() {
        return Err(OfflineError::NoStore { dir: dir.to_owned() }.into());
    }
    let lock = open::lock(dir)?;
    let mut config = StoreConfig::new(dir);
    config.view.engine = offline::view_engine(dir).unwrap_or_default();
    open::check(&config)?;
    files::remove_dir(&view_path(dir)).map_err(failed("remove", dir))?;
    let journal = open::journal_path(dir);
    for segment in scan::find(&journal).map_err(OpenError::from)?.segments {
        let index = index_path(&segment.path);
        files::remove_file(&index).map_err(failed("remove", &index))?;
    }
    let (store, writer, report) = open::open_locked(config, lock)?;
    store.build_indexes().map_err(|error| BackupError::Index(Box::new(error)))?;
    writer.close()?;
    Ok(report)
}

/// Makes the folder `dir`, which must not hold anything.
fn make_empty(dir: &Path) -> Result<(), BackupError> {
    fs::create_dir_all(dir).map_err(failed("make", dir))?;
    let mut entries = fs::read_dir(dir).map_err(failed("list", dir))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(BackupError::NotEmpty { dir: dir.to_owned() }),
    }
}

/// Copies the segments of `from` to `to`, each as far as it reaches when the copy begins; the last one may end within a frame.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let (source, target) = (open::journal_path(from), open::journal_path(to));
    fs::create_dir(&target).map_err(failed("make", &target))?;
    let found = scan::find(&source).map_err(OfflineError::from)?;
    for segment in &found.segments {
        let path = segment_path(&target, segment.header.first);
        copy_file(&segment.path, &path, segment.bytes).map_err(failed("copy", &segment.path))?;
    }
    files::sync_dir(&target).map_err(failed("sync", &target))
}

/// Copies those of `others` that there are, each as `made` has it.
fn copy_others(
    from: &Path,
    to: &Path,
    others: &[OtherFile],
    made: impl Fn(&OtherFile, Vec<u8>) -> Vec<u8>,
) -> Result<(), BackupError> {
    for other in others {
        let (source, target) = (from.join(other.name), to.join(other.name));
        let content = match read_whole(&source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            content => content.map_err(failed("read", &source))?,
        };
        files::replace(&target, &made(other, content)).map_err(failed("write", &target))?;
    }
    Ok(())
}

fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(OTHER_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > OTHER_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("has more than {OTHER_BYTES_MAX} bytes")));
    }
    Ok(content)
}

fn copy_file(from: &Path, to: &Path, bytes: u64) -> io::Result<()> {
    let mut target = File::create_new(to)?;
    io::copy(&mut File::open(from)?.take(bytes), &mut target)?;
    target.sync_all()
}

/// Checks the journal in `dir`, of which nothing else is there yet, and cuts off a frame that was being written.
fn checked(dir: &Path, node: &NodeIdentity) -> Result<BackupReport, BackupError> {
    let report = offline::read_journal(dir, |_| Ok(()))?.report;
    if let Some(torn) = &report.torn_tail {
        let cut = || {
            let file = OpenOptions::new().write(true).open(&torn.segment)?;
            file.set_len(torn.offset)?;
            file.sync_all()
        };
        cut().map_err(failed("cut", &torn.segment))?;
    }
    Ok(BackupReport {
        segments: report.segments,
        bytes: report.bytes,
        first_position: report.first_position,
        last_position: report.last_position,
        epoch: node.epoch,
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path, source }
}
