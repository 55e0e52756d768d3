//! What befalls one node of several in one process: a full disk, and a wall clock that is set. The shim does it, by the folder and
//! by the names of threads; what each reporter was told is told by the same clock.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use klaxon_schemas::time::Timestamp;

use super::inside::now;

/// Where the shim looks for clocks.
pub(crate) const NODES: &str = "KLAXON_SHIM_NODES";
/// A file system in memory, where one is: what a sync costs there says nothing of the node.
const MEMORY: &str = "/dev/shm";

/// A folder for a schedule. What a kill leaves behind is the same without a disk: only a power cut would tell.
pub(crate) fn scratch() -> Folder {
    let mut folder = tempfile::Builder::new();
    folder.prefix("klaxon-");
    let made = if Path::new(MEMORY).is_dir() { folder.tempdir_in(MEMORY) } else { folder.tempdir() };
    Folder(Some(made.expect("a folder can be made")))
}

/// Where a schedule failed its nodes live on, and end the process when their disks vanish: then it stays, to be looked at.
pub(crate) struct Folder(Option<tempfile::TempDir>);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().expect("is there while this is").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.take().map(tempfile::TempDir::keep);
        }
    }
}

/// Of one node.
pub(crate) struct Mishaps {
    threads: String,
    full: std::sync::Mutex<PathBuf>,
    was_full: AtomicBool,
    has_met: AtomicU64,
    offset_s: AtomicI64,
}

fn beside(dir: &Path) -> PathBuf {
    dir.with_extension("full")
}

impl Mishaps {
    /// Of the node whose folder is `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let threads = format!("node-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self {
            threads,
            full: beside(dir).into(),
            was_full: AtomicBool::new(false),
            has_met: AtomicU64::new(0),
            offset_s: AtomicI64::new(0),
        }
    }

    /// What its threads are to be called.
    pub(crate) fn threads(&self) -> &str {
        &self.threads
    }

    /// It is in another folder now.
    pub(crate) fn moved(&self, dir: &Path) {
        self.make_room();
        *self.full.lock().expect("nobody panics while holding it") = beside(dir);
    }

    fn file(&self) -> PathBuf {
        self.full.lock().expect("nobody panics while holding it").clone()
    }

    pub(crate) fn fill(&self) {
        std::fs::write(self.file(), "").expect("can be written");
        self.was_full.store(true, Ordering::Relaxed);
    }

    /// There is room again. What was to be written meanwhile is counted.
    pub(crate) fn make_room(&self) {
        let full = self.file();
        let _ = std::fs::remove_file(&full);
        let has_met = std::fs::remove_file(full.with_extension("met")).is_ok();
        self.has_met.fetch_add(u64::from(has_met), Ordering::Relaxed);
    }

    /// How often it was full while something was to be written.
    pub(crate) fn times_met(&self) -> u64 {
        self.has_met.load(Ordering::Relaxed)
    }

    /// Whether its clock says what time it is.
    pub(crate) fn is_right(&self) -> bool {
        self.offset_s.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.file().exists()
    }

    /// Whether it was ever full: when there is room again is seen a moment later.
    pub(crate) fn was_full(&self) -> bool {
        self.was_full.load(Ordering::Relaxed)
    }

    /// Sets its clock so far from what time it is; whether that is forward.
    pub(crate) fn set_clock(&self, seconds: i64) -> bool {
        let dir = PathBuf::from(std::env::var_os(NODES).expect("the shim is loaded"));
        let new = dir.join(format!("{}.new", self.threads));
        std::fs::write(&new, seconds.to_string()).expect("can be written");
        std::fs::rename(new, dir.join(&self.threads)).expect("can be renamed");
        self.offset_s.swap(seconds, Ordering::Relaxed) < seconds
    }

    /// What time it is there.
    pub(crate) fn now(&self) -> Timestamp {
        now().saturating_add_micros(self.offset_s.load(Ordering::Relaxed) * 1_000_000)
    }
}

impl Drop for Mishaps {
    fn drop(&mut self) {
        if let Some(dir) = std::env::var_os(NODES) {
            let _ = std::fs::remove_file(Path::new(&dir).join(&self.threads));
        }
    }
}
