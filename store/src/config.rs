//! What an operator can set about the store.

use std::path::PathBuf;
use std::time::Duration;

use klaxon_schemas::names::Follower;

/// The smallest segment: below it the files would be too many.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 64 * 1024;

/// The largest segment: its index is made in memory.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How the store is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The folder.
    pub dir: PathBuf,
    /// A segment that has reached this size is followed by the next one.
    pub segment_bytes: u64,
    /// How much history is kept.
    pub retention: Retention,
    /// Below this much free space intake is to be refused.
    pub free_space_watermark_bytes: u64,
    /// The view.
    pub view: ViewConfig,
    /// How many frames may be on their way to the disk.
    pub pipeline_frames_max: usize,
    /// How often the keeper looks at least: a segment that is to go goes in a look or two.
    pub keep_every: Duration,
}

/// How much history is kept. It can change while the store is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Above this size the oldest segments go. It never falls below what the present state needs.
    pub history_max_bytes: u64,
    /// Segments in which everything is older go.
    pub history_max_age: Duration,
    /// What this follower has yet to read stays, also where there is too much: then intake is to be refused. Nothing is kept for
    /// one that has no cursor.
    pub kept_for: Option<Follower>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { history_max_bytes: 8 * 1024 * 1024 * 1024, history_max_age: Duration::from_secs(90 * 24 * 3600), kept_for: None }
    }
}

/// How the view is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewConfig {
    /// What keeps it.
    pub engine: ViewEngine,
    /// The engine's cache of blocks or pages.
    pub cache_bytes: u64,
    /// A memtable of this size is written out. sled has none.
    pub memtable_bytes: u64,
}

/// The key-value engines that can keep the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ViewEngine {
    /// fjall.
    #[default]
    Fjall,
    /// sled 0.34.7, with the feature `sled`.
    Sled,
}

impl ViewEngine {
    /// All, also those that this build lacks.
    pub const ALL: [Self; 2] = [Self::Fjall, Self::Sled];

    /// Its name, as in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        }
    }

    /// Whether this build has it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Fjall => true,
            Self::Sled => cfg!(feature = "sled"),
        }
    }
}

impl StoreConfig {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 * 1024 * 1024,
            retention: Retention::default(),
            free_space_watermark_bytes: 256 * 1024 * 1024,
            view: ViewConfig::default(),
            pipeline_frames_max: 2,
            keep_every: Duration::from_secs(1),
        }
    }
}

impl Default for ViewConfig {
    fn default() -> Self {
        Self { engine: ViewEngine::Fjall, cache_bytes: 16 * 1024 * 1024, memtable_bytes: 8 * 1024 * 1024 }
    }
}
