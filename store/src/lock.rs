//! The locks on a store's folder: one process has it open, and a backup holds off retention.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The file whose holder has the store open.
const LOCK: &str = "lock";
/// The file that a backup holds shared, and retention alone.
const RETENTION_LOCK: &str = "retention.lock";
/// Both.
pub(crate) const FILES: [&str; 2] = [LOCK, RETENTION_LOCK];
/// The most bytes read of who holds the lock.
const PID_BYTES_MAX: u64 = 20;

/// The store is ours while this lives.
#[derive(Debug)]
pub(crate) struct StoreLock(#[expect(dead_code, reason = "the lock is held by the open file")] File);

/// Retention removes nothing (a backup's), or no backup runs (retention's), while this lives.
#[derive(Debug)]
pub(crate) struct RetentionLock(#[expect(dead_code, reason = "the lock is held by the open file")] File);

/// Why the store is not ours.
#[derive(Debug)]
pub(crate) enum LockError {
    /// The process with this id, as it says itself, has it.
    Held(String),
    /// The system refuses.
    Io(io::Error),
}

impl StoreLock {
    /// Takes the store in `dir`.
    pub(crate) fn take(dir: &Path) -> Result<Self, LockError> {
        let mut file = open(&dir.join(LOCK)).map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Who holds it is only for the message: an unreadable file says "unknown".
                let read = (&mut file).take(PID_BYTES_MAX).read_to_string(&mut pid).is_ok();
                let pid = pid.trim();
                return Err(LockError::Held(if read && !pid.is_empty() { pid.to_owned() } else { "unknown".to_owned() }));
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        file.set_len(0).map_err(LockError::Io)?;
        writeln!(file, "{}", std::process::id()).map_err(LockError::Io)?;
        // Whoever only reads does not make this file, so it is made before anything can be removed.
        open(&dir.join(RETENTION_LOCK)).map_err(LockError::Io)?;
        Ok(Self(file))
    }
}

impl RetentionLock {
    /// For a backup: waits while retention removes a segment.
    pub(crate) fn shared(dir: &Path) -> io::Result<Self> {
        let file = open(&dir.join(RETENTION_LOCK))?;
        flock(&file, FlockOperation::LockShared)?;
        Ok(Self(file))
    }

    /// For who only reads: the same, without making the file. Where it is missing no node has been, and nothing is removed.
    pub(crate) fn beside(dir: &Path) -> io::Result<Option<Self>> {
        match File::open(dir.join(RETENTION_LOCK)) {
            Ok(file) => {
                flock(&file, FlockOperation::LockShared)?;
                Ok(Some(Self(file)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// For retention: nothing while a backup runs.
    pub(crate) fn exclusive(dir: &Path) -> io::Result<Option<Self>> {
        let file = open(&dir.join(RETENTION_LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}
