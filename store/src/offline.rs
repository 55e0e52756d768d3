//! Reading a store's files without opening it: nothing is written, and a node may be running. It removes no segment meanwhile.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use klaxon_schemas::ids::Position;

use crate::config::ViewEngine;
use crate::journal::frame::{Kind, RawRecord};
use crate::journal::index::{SegmentIndex, index_path};
use crate::journal::scan::{self, Found, ScanError};
use crate::journal::segment::Segment;
use crate::journal::{DamageError, FORMAT, Unusable, record};
use crate::keeper::view_path;
use crate::lock::{self, RetentionLock, StoreLock};
use crate::node::{HighWater, NodeError, NodeIdentity};
use crate::open::{self, OpenError, TornTail};
use crate::state::State;
use crate::view;

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
    /// The node's identity cannot be read.
    #[error(transparent)]
    Node(NodeError),
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

/// No node runs on a store while this lives.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "it is held by living")] StoreLock);

/// Keeps nodes from the store in `dir` while the answer lives; refused while one runs. Tells also which files it made for that.
pub fn hold(dir: &Path) -> Result<(Held, Vec<PathBuf>), OpenError> {
    let missing: Vec<_> = lock::FILES.iter().map(|name| dir.join(name)).filter(|path| !path.exists()).collect();
    let lock = open::lock(dir)?;
    Ok((Held(lock), missing))
}

/// The state that follows from the journal in `dir`.
pub fn read_state(dir: &Path) -> Result<State, OfflineError> {
    let mut state = State::default();
    read(dir, |record| open::fold(&mut state, record))?;
    Ok(state)
}

/// The engine that keeps the view of the store in `dir`, if there is one.
pub fn view_engine(dir: &Path) -> Option<ViewEngine> {
    view::kept_by(&view_path(dir))
}

/// Reads everything in `dir` and checks it. Damage is an error that names file and offset.
pub fn verify(dir: &Path) -> Result<VerifyReport, OfflineError> {
    let mut state = State::default();
    let Walked { mut report, found, segments } = read(dir, |record| {
        // Every form is read whole, not only what the state needs.
        let whole = match record.kind {
            Kind::Entry => record::entry(record.payload, record.position).map(drop),
            Kind::Change => record::change(record.payload).map(drop),
            _ => Ok(()),
        };
        whole.map_err(|error| record::unreadable(record.kind, &error))?;
        open::fold(&mut state, record)
    })?;
    report.alarms = state.alarms_len();
    report.state_records = state.records_len();
    let full = found.segments.len().saturating_sub(1);
    for segment in &segments[..full] {
        let whole = SegmentIndex::open(segment).is_ok_and(|index| index.verify().unwrap_or(false));
        if !whole {
            report.bad_indexes.push(index_path(&segment.path));
        }
    }
    if let Some(known) = HighWater::read(dir).filter(|known| *known > report.last_position) {
        report.notes.push(format!(
            "the journal ends at {}, but was known to have come to {known}: the next start begins a new epoch",
            report.last_position
        ));
    }
    Ok(report)
}

/// Writes every record from position `from` on as one line of JSON; tells how many. If `from` is no longer kept, it begins with
/// the first record that is.
pub fn export(dir: &Path, from: Position, writer: &mut dyn Write) -> Result<u64, OfflineError> {
    let mut exported = 0;
    let mut failure = None;
    let outcome = read(dir, |record| {
        if record.position < from {
            return Ok(());
        }
        match write_line(record, writer) {
            Ok(()) => exported += 1,
            Err(error) => {
                failure = Some(error);
                return Err("the export could not be written".into());
            }
        }
        Ok(())
    });
    match failure {
        Some(error) => Err(OfflineError::Write(error)),
        None => outcome.map(|_| exported),
    }
}

/// One line: position, kind, and the record as it stands (the key alone of what is deleted).
fn write_line(record: &RawRecord<'_>, writer: &mut dyn Write) -> io::Result<()> {
    write!(writer, "{{\"position\":{},\"kind\":\"{}\",\"record\":", record.position, record.kind.as_str())?;
    match record.kind {
        Kind::Delete => serde_json::to_writer(&mut *writer, &String::from_utf8_lossy(record.payload))?,
        _ => writer.write_all(record.payload)?,
    }
    writer.write_all(b"}\n")
}

/// What was read.
pub(crate) struct Walked {
    pub(crate) report: VerifyReport,
    pub(crate) found: Found,
    pub(crate) segments: Vec<Segment>,
}

/// Hands every record in `dir` to `visit`, in order. What `visit` refuses is damage.
pub(crate) fn read(dir: &Path, visit: impl FnMut(&RawRecord<'_>) -> Result<(), Unusable>) -> Result<Walked, OfflineError> {
    match NodeIdentity::read(dir) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(OfflineError::NoStore { dir: dir.to_owned() }),
        Err(NodeError::Newer { path, found, known }) => return Err(OfflineError::Newer { path, found, known }),
        Err(error) => return Err(OfflineError::Node(error)),
    }
    read_journal(dir, visit)
}

/// The same, also where nothing says whose journal it is.
pub(crate) fn read_journal(
    dir: &Path,
    mut visit: impl FnMut(&RawRecord<'_>) -> Result<(), Unusable>,
) -> Result<Walked, OfflineError> {
    let held = RetentionLock::beside(dir).map_err(|source| OfflineError::Io { path: dir.to_owned(), source })?;
    let found = scan::find(&open::journal_path(dir))?;
    let mut report = VerifyReport { segments: found.segments.len(), ..VerifyReport::default() };
    if let Some(path) = &found.torn_head {
        report.notes.push(format!("{} was only begun; the next start removes it", path.display()));
    }
    let mut segments = Vec::new();
    for (at, segment) in found.segments.iter().enumerate() {
        let next = found.segments.get(at + 1);
        let scanned = scan::scan(segment, next.is_none(), |record, _| visit(&record))?;
        if let Some(next) = next
            && next.header.follows != scanned.last
        {
            return Err(scan::gap(next).into());
        }
        if scanned.torn_bytes > 0 {
            let torn = TornTail { segment: segment.path.clone(), offset: scanned.end, bytes: scanned.torn_bytes };
            report.torn_tail = Some(torn);
        }
        report.bytes += scanned.end;
        report.frames += scanned.frames;
        report.records += scanned.records;
        report.last_position = scanned.last;
        segments.push(Segment::sealed(segment.path.clone(), segment.header, scanned.end, scanned.last));
    }
    drop(held);
    report.first_position = found.segments.first().map_or(Position(0), |segment| segment.header.first);
    Ok(Walked { report, found, segments })
}

impl From<ScanError> for OfflineError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Newer { path, found } => Self::Newer { path, found, known: FORMAT },
            ScanError::Damaged(damage) => Self::Damaged(damage),
            ScanError::Io { path, source, .. } => Self::Io { path, source },
        }
    }
}
