//! Opening a store: what is checked, what is repaired, and what is refused.
//!
//! The lock, the identity, the heads of all segments, the last segment whole; then the view, and the records behind it. What a
//! crash can leave behind is repaired and said; what it cannot is refused.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::error::chain;
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::state::StateKey;

use crate::config::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, StoreConfig};
use crate::files;
use crate::journal::append::{self, Appender};
use crate::journal::frame::RawRecord;
use crate::journal::index::{self, IndexBuilder};
use crate::journal::record::Fact;
use crate::journal::scan::{self, Found, ScanError};
use crate::journal::segment::{Segment, SegmentHeader};
use crate::journal::{DamageError, FORMAT, Journal, ReadError, Unusable, record};
use crate::keeper::{Keeper, view_path};
use crate::lock::{LockError, StoreLock};
use crate::node::{HighWater, NodeError, NodeIdentity};
use crate::state::State;
use crate::store::{Shared, Store};
use crate::view::{Dirty, View, ViewError};
use crate::writer::Writer;

/// How far positions leap over a tail that is missing: more than can be written between two high-water marks, so that none
/// is used twice.
const LEAP_RECORDS: u64 = 10_000_000;

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

/// The folder of the segments.
pub(crate) fn journal_path(dir: &Path) -> PathBuf {
    dir.join("journal")
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { action, path, source }
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Newer { path, found } => Self::Newer { path, found, known: FORMAT },
            ScanError::Damaged(damage) => Self::Damaged(damage),
            ScanError::Io { action, path, source } => Self::Io { action, path, source },
        }
    }
}

/// Opens the store that `config` says.
pub(crate) fn open(config: StoreConfig) -> Result<(Store, Writer, OpenReport), OpenError> {
    check(&config)?;
    fs::create_dir_all(journal_path(&config.dir)).map_err(io_error("make", &config.dir))?;
    // The names of the folders must outlive a power cut as what is acknowledged in them does. Not every system lets the
    // folder above be opened; then the one who made it has to see to that.
    files::sync_dir(&config.dir).map_err(io_error("sync", &config.dir))?;
    if let Err(error) = fs::canonicalize(&config.dir).and_then(|dir| files::sync_parent(&dir)) {
        tracing::debug!(%error, "the folder above the store cannot be synced");
    }
    let lock = lock(&config.dir)?;
    open_locked(config, lock)
}

/// Takes the store in `dir`.
pub(crate) fn lock(dir: &Path) -> Result<StoreLock, OpenError> {
    StoreLock::take(dir).map_err(|error| match error {
        LockError::Held(pid) => OpenError::Locked { dir: dir.to_owned(), pid },
        LockError::Io(source) => OpenError::Io { action: "lock", path: dir.to_owned(), source },
    })
}

/// Opens a store that is ours already.
pub(crate) fn open_locked(config: StoreConfig, lock: StoreLock) -> Result<(Store, Writer, OpenReport), OpenError> {
    let dir = config.dir.clone();
    let mut report = OpenReport::default();
    let mut found = scan::find(&journal_path(&dir))?;
    let mut node = identity(&dir, !found.segments.is_empty())?;
    if let Some(path) = found.torn_head.take() {
        tracing::warn!(segment = %path.display(), "a segment that was only begun is removed");
        report.notes.push(format!("{} was only begun, and was removed", path.display()));
        files::remove_file(&path).map_err(io_error("remove", &path))?;
    }
    if found.segments.is_empty() {
        let header = SegmentHeader { first: Position(1), follows: Position(0), epoch: node.epoch };
        append::create(&journal_path(&dir), header).map_err(io_error("begin a segment in", &dir))?;
        found = scan::find(&journal_path(&dir))?;
    }
    remove_orphans(&journal_path(&dir)).map_err(io_error("clear", &dir))?;
    let (high_water, mark) = HighWater::open(&dir).map_err(io_error("open the high-water mark in", &dir))?;

    // The view is read while the last segment is checked: each takes about as long.
    let path = view_path(&dir);
    let (loaded, active) = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load_view(&path, &config, node.node_id));
        let active = repair_last(&found, &mut report);
        (loading.join().unwrap_or_else(|_| Err(ViewError::Panicked)), active)
    });
    let active = active?;
    check_full(&found)?;
    let last = active.last();
    let segments = segments(&found, active);
    let view_position = loaded.as_ref().ok().map(|(_, state)| state.position());

    let Present { state, view, position, ahead } = present_state(&config, &node, &found, &segments, loaded, &mut report)?;
    let known = mark.max(view_position).unwrap_or(Position(0));
    let journal = Journal::new(journal_path(&dir), segments);
    if known > last {
        node = node.in_new_epoch(state.cursor().epoch, NewEpoch::TailMissing, last);
        leap(&journal, &node, &dir, last, known, &mut report)?;
    }
    report.epoch = node.epoch;
    report.new_epoch = (state.cursor().epoch != node.epoch).then_some(node.new_epoch);

    let journal = Arc::new(journal);
    let appender = Appender::open(&journal, node.epoch, config.segment_bytes).map_err(io_error("append to", &dir))?;
    let shared = Arc::new(Shared::new(config, node, journal, state, position, ahead));
    let keeper = Keeper::new(Arc::clone(&shared), view, high_water);
    let keeper = std::thread::Builder::new().name("klaxon-keeper".to_owned()).spawn(move || keeper.run());
    let keeper = keeper.map_err(io_error("start a thread for", &dir))?;
    let writer = Writer::start(Arc::clone(&shared), appender, keeper, lock).map_err(io_error("start a thread for", &dir))?;
    Ok((Store::new(shared), writer, report))
}

/// Whether the settings can be.
pub(crate) fn check(config: &StoreConfig) -> Result<(), OpenError> {
    let refuse = |setting, reason| Err(OpenError::Config { setting, reason });
    if config.segment_bytes < SEGMENT_BYTES_MIN {
        return refuse("segment_bytes", "is below 64 KiB");
    }
    if config.segment_bytes > SEGMENT_BYTES_MAX {
        return refuse("segment_bytes", "is above 1 GiB");
    }
    if config.pipeline_frames_max == 0 {
        return refuse("pipeline_frames_max", "is zero");
    }
    if config.view.memtable_bytes == 0 {
        return refuse("view.memtable_bytes", "is zero");
    }
    if !config.view.engine.is_built() {
        return refuse("view.engine", "is sled, and this build has no sled; build with `--features sled`");
    }
    Ok(())
}

fn identity(dir: &Path, has_journal: bool) -> Result<NodeIdentity, OpenError> {
    match NodeIdentity::read(dir)? {
        Some(node) => Ok(node),
        None if has_journal => Err(NodeError::Missing { path: NodeIdentity::path(dir) }.into()),
        None => {
            let node = NodeIdentity::first();
            node.write(dir)?;
            Ok(node)
        }
    }
}

/// Checks the last segment, and cuts off what a crash left behind its last whole frame.
fn repair_last(found: &Found, report: &mut OpenReport) -> Result<Arc<Segment>, OpenError> {
    let segment = found.segments.last().expect("one was made if there was none");
    let mut index = IndexBuilder::new(segment.header.first);
    let mut last_chunk = None;
    let scanned = scan::scan(segment, true, |record, offset| {
        index.read(&record, offset, &mut last_chunk).map_err(|error| record::unreadable(record.kind, &error))
    })?;
    if scanned.torn_bytes > 0 {
        let torn = TornTail { segment: segment.path.clone(), offset: scanned.end, bytes: scanned.torn_bytes };
        tracing::warn!(
            segment = %torn.segment.display(), offset = torn.offset, bytes = torn.bytes,
            "the last frame was not written whole and is cut off"
        );
        let cut = || {
            let file = fs::OpenOptions::new().write(true).open(&segment.path)?;
            file.set_len(scanned.end)?;
            file.sync_all()
        };
        cut().map_err(io_error("cut", &segment.path))?;
        report.torn_tail = Some(torn);
    }
    let (path, header) = (segment.path.clone(), segment.header);
    Ok(Arc::new(Segment::scanned(path, header, scanned.end, scanned.last, index)))
}

/// Removes what a crash left of segments that are gone: indexes without a segment, and files that were being replaced.
fn remove_orphans(journal: &Path) -> io::Result<()> {
    for entry in fs::read_dir(journal)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some("tmp") || extension == Some("idx") && !path.with_extension("seg").exists() {
            files::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Checks that the full segments are as long as their indexes say; one whose index does not tell is read as a whole. Their bytes
/// are read behind the start, by the keeper.
fn check_full(found: &Found) -> Result<(), OpenError> {
    for pair in found.segments.windows(2) {
        let [this, next] = pair else { unreachable!("windows of two") };
        if index::head(&this.path) == Some((this.header.first, this.bytes, next.header.follows)) {
            continue;
        }
        let scanned = scan::scan(this, false, |_, _| Ok(()))?;
        if scanned.last != next.header.follows {
            return Err(scan::gap(next).into());
        }
    }
    Ok(())
}

fn segments(found: &Found, active: Arc<Segment>) -> Vec<Arc<Segment>> {
    let sealed = found.segments.windows(2).map(|pair| {
        let [this, next] = pair else { unreachable!("windows of two") };
        Arc::new(Segment::sealed(this.path.clone(), this.header, this.bytes, next.header.follows))
    });
    sealed.chain([active]).collect()
}

fn load_view(path: &Path, config: &StoreConfig, node_id: uuid::Uuid) -> Result<(View, State), ViewError> {
    View::open_and_load(path, &config.view, node_id)
}

/// Where things stand at the start.
struct Present {
    /// The state at the end of the journal.
    state: State,
    view: View,
    /// How far the view has come.
    position: Position,
    /// What the view has yet to be told.
    ahead: Dirty,
}

/// What was read behind the view.
#[derive(Default)]
struct Replayed {
    records: u64,
    alarms: HashSet<AlarmId>,
    keys: HashSet<StateKey>,
}

impl Replayed {
    fn note(&mut self, fact: &Fact) {
        self.records += 1;
        match fact {
            Fact::Alarm(alarm) => drop(self.alarms.insert(alarm.id)),
            Fact::Forgotten(id) => drop(self.alarms.insert(*id)),
            Fact::Touched(touched) => drop(self.alarms.insert(touched.alarm)),
            Fact::Put(key, _) | Fact::Deleted(key) => drop(self.keys.insert(key.clone())),
            Fact::Cursor(_) | Fact::Nothing => {}
        }
    }

    /// What the view lacks of `state`.
    fn ahead(self, state: &State) -> Dirty {
        let alarm = |id| state.held_alarm(id).map(|held| (Arc::clone(&held.value), held.written));
        let record = |key: &StateKey| state.held_record(key).map(|held| (held.value.clone(), held.written));
        Dirty {
            alarms: self.alarms.into_iter().map(|id| (id, alarm(id))).collect(),
            records: self.keys.into_iter().map(|key| (key.clone(), record(&key))).collect(),
            cursor: Some((state.cursor().clone(), state.cursor_written())),
            position: state.position(),
        }
    }
}

/// The state at the end of the journal, and the view with how far it has come.
fn present_state(
    config: &StoreConfig,
    node: &NodeIdentity,
    found: &Found,
    segments: &[Arc<Segment>],
    loaded: Result<(View, State), ViewError>,
    report: &mut OpenReport,
) -> Result<Present, OpenError> {
    let (first, last) = (segments[0].header.follows, segments[segments.len() - 1].last());
    let is_new = last == Position(0);
    let unusable = match loaded {
        Ok((view, mut state)) => {
            let position = state.position();
            if (first..=last).contains(&position) {
                let replayed = replay(found, segments, &mut state)?;
                report.replayed_records = replayed.records;
                return Ok(Present { view, position, ahead: replayed.ahead(&state), state });
            }
            format!("it is at {position}, but the journal goes from {first} to {last}")
        }
        Err(error) => chain(&error),
    };
    let mut state = State::default();
    state.reach(first);
    report.replayed_records = replay(found, segments, &mut state)?.records;
    if !is_new {
        tracing::warn!(reason = unusable, records = report.replayed_records, "the view is built anew from the journal");
        report.view_rebuilt = Some(unusable);
    }
    let path = view_path(&config.dir);
    let position = state.position();
    match View::build(&path, &config.view, node.node_id, Dirty::everything(&state)) {
        Ok(view) => Ok(Present { view, position, ahead: Dirty { position, ..Dirty::default() }, state }),
        Err(error) => Err(OpenError::View { path, reason: chain(&error) }),
    }
}

/// Brings `state` to the end of the journal; tells what that took.
fn replay(found: &Found, segments: &[Arc<Segment>], state: &mut State) -> Result<Replayed, OpenError> {
    let after = state.position();
    let mut replayed = Replayed::default();
    let mut take = |record: RawRecord<'_>| {
        if record.position <= after {
            return Ok(());
        }
        let fact = fact(&record)?;
        replayed.note(&fact);
        Ok::<_, Unusable>(state.apply_fact(fact, record.position)?)
    };
    for (at, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.last() > after) {
        match found.segments.get(at + 1) {
            Some(next) => {
                let scanned = scan::scan(&found.segments[at], false, |record, _| take(record))?;
                if scanned.last != next.header.follows {
                    return Err(scan::gap(next).into());
                }
            }
            // The last one was checked as a whole before.
            None => {
                let mut failure = Ok(());
                let from = after.plus(1).max(segment.header.first);
                let walked = segment.walk(from, |record, offset| match take(record) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(reason) => {
                        failure = Err(segment.damage(offset, reason));
                        ControlFlow::Break(())
                    }
                });
                walked.map_err(|error| match error {
                    ReadError::Damaged(damage) => OpenError::Damaged(damage),
                    ReadError::Io { path, source } => OpenError::Io { action: "read", path, source },
                    ReadError::Gap { .. } | ReadError::Beyond { .. } => unreachable!("a walk within a segment meets neither"),
                })?;
                failure?;
            }
        }
    }
    state.reach(segments[segments.len() - 1].last().max(after));
    Ok(replayed)
}

/// Takes one record into `state`; the error says why it cannot be.
pub(crate) fn fold(state: &mut State, record: &RawRecord<'_>) -> Result<(), Unusable> {
    Ok(state.apply_fact(fact(record)?, record.position)?)
}

fn fact(record: &RawRecord<'_>) -> Result<Fact, Unusable> {
    record::fact(record.kind, record.payload).map_err(|error| record::unreadable(record.kind, &error))
}

/// The journal goes on beyond what is missing: in a new numbering of changes, and at positions that were not used.
fn leap(
    journal: &Journal,
    node: &NodeIdentity,
    dir: &Path,
    last: Position,
    known: Position,
    report: &mut OpenReport,
) -> Result<(), OpenError> {
    tracing::error!(
        journal_ends_at = last.0,
        known = known.0,
        epoch = node.epoch.0,
        "the journal ends before what was known to be written; it goes on from there in a new epoch"
    );
    report.tail_missing = Some(TailMissing { from: last.plus(1), to: known });
    node.write(dir)?;
    let active = journal.active();
    let header = SegmentHeader { first: known.plus(LEAP_RECORDS), follows: last, epoch: node.epoch };
    let (segment, _) = append::create(&journal.dir, header).map_err(io_error("begin a segment in", dir))?;
    debug_assert!(active.last() == last);
    journal.push(Arc::new(segment));
    Ok(())
}
