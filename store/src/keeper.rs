//! The keeper: a thread off the way of the acknowledgement, which brings the view up to date, writes the indexes of full
//! segments, moves the high-water mark, and lets old segments go.
//!
//! Nothing waits for it but retention, and nothing is lost if it is behind: a start reads from the journal what it had not done.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use klaxon_schemas::ids::Position;
use klaxon_schemas::time::JournalTime;

use crate::files;
use crate::journal::ReadError;
use crate::journal::frame::Kind;
use crate::journal::index::{IndexBuilder, SegmentIndex, index_path};
use crate::journal::segment::Segment;
use crate::lock::RetentionLock;
use crate::node::HighWater;
use crate::store::Shared;
use crate::view::{Dirty, View, ViewError, guarded, seal};
use crate::writer::CloseError;

/// How often the view is synced: a power cut costs a replay of so much at the next start.
const VIEW_SYNC_INTERVAL: Duration = Duration::from_secs(10);
/// After a view could be neither opened nor built, how long until the next attempt.
const VIEW_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// What an alarm is reckoned to take in the journal, to see how far retention can go.
const ALARM_BYTES: u64 = 1024;
/// And a keyed record.
const RECORD_BYTES: u64 = 256;

pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) view: Option<View>,
    pub(crate) high_water: HighWater,
    marked: Position,
    synced_at: Instant,
    failed_at: Option<Instant>,
    /// The view was synced at least up to here.
    view_synced: Position,
    /// Full segments up to here were read and are sound.
    checked: Position,
}

/// Where the view is in the store's folder.
pub(crate) fn view_path(dir: &Path) -> PathBuf {
    dir.join("view")
}

impl Keeper {
    /// A keeper for what was found at the start.
    pub(crate) fn new(shared: Arc<Shared>, view: View, high_water: HighWater) -> Self {
        Self {
            shared,
            view: Some(view),
            high_water,
            marked: Position(0),
            synced_at: Instant::now(),
            failed_at: None,
            view_synced: Position(0),
            checked: Position(0),
        }
    }

    /// Works until it is told to stop; then finishes.
    pub(crate) fn run(mut self) -> Result<(), CloseError> {
        loop {
            let (dirty, stop) = self.shared.take_dirty(self.shared.config.keep_every);
            if stop {
                // There is no later.
                self.failed_at = None;
            }
            let written = self.update_view(&dirty);
            let marked = self.mark();
            if stop {
                let path = view_path(&self.shared.config.dir);
                let synced = written.and_then(|()| self.sync_view());
                // Nothing writes to it any more once it is closed.
                let closed = self.view.take().map_or(Ok(()), View::close);
                synced
                    .and(closed)
                    .and_then(|()| seal::write(&path, seal::Use::AtRest))
                    .map_err(|error| CloseError::View(error.to_string()))?;
                return marked.map_err(CloseError::HighWater);
            }
            if let Err(error) = marked {
                tracing::warn!(%error, "the high-water mark could not be written");
            }
            if self.synced_at.elapsed() >= VIEW_SYNC_INTERVAL
                && let Err(error) = self.sync_view()
            {
                tracing::warn!(%error, "the view could not be synced");
                self.give_up(&error);
            }
            if let Err(error) = self.write_indexes() {
                tracing::warn!(error = &error as &dyn std::error::Error, "the index of a segment could not be written");
            }
            self.check_one();
            if let Err(error) = self.retain() {
                tracing::warn!(error = &error as &dyn std::error::Error, "an old segment could not be removed");
            }
        }
    }

    fn update_view(&mut self, dirty: &Dirty) -> Result<(), ViewError> {
        let position = dirty.position;
        let outcome = match &self.view {
            Some(_) if position.0 <= self.shared.view_position.load(Ordering::Relaxed) => return Ok(()),
            Some(view) => guarded(|| view.write(dirty)),
            None => Err(ViewError::Missing),
        };
        let position = match outcome {
            Ok(()) => position,
            Err(error) => self.repair_view(&error)?,
        };
        self.shared.view_position.store(position.0, Ordering::Relaxed);
        if let Some(view) = &self.view {
            self.shared.view_bytes.store(view.bytes(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lets go of a view that has failed.
    fn give_up(&mut self, error: &ViewError) {
        match self.view.take() {
            Some(view) if matches!(error, ViewError::Panicked) => view.abandon(),
            Some(view) => {
                if let Err(error) = view.close() {
                    tracing::warn!(%error, "the view could not be closed");
                }
            }
            None => {}
        }
    }

    /// Builds the view anew from the state, which is what the journal says.
    fn repair_view(&mut self, error: &ViewError) -> Result<Position, ViewError> {
        self.give_up(error);
        if self.failed_at.is_some_and(|at| at.elapsed() < VIEW_RETRY_INTERVAL) {
            return Err(ViewError::Missing);
        }
        tracing::warn!(error = error as &dyn std::error::Error, "the view failed and is built anew");
        self.failed_at = Some(Instant::now());
        let config = &self.shared.config;
        let path = view_path(&config.dir);
        let all = Dirty::everything(&self.shared.state());
        let position = all.position;
        self.view = Some(View::build(&path, &config.view, self.shared.node().node_id, all)?);
        self.failed_at = None;
        self.shared.view_repairs.fetch_add(1, Ordering::Relaxed);
        Ok(position)
    }

    fn sync_view(&mut self) -> Result<(), ViewError> {
        self.synced_at = Instant::now();
        let position = Position(self.shared.view_position.load(Ordering::Relaxed));
        if position > self.view_synced {
            guarded(|| self.view.as_ref().ok_or(ViewError::Missing)?.sync())?;
            self.view_synced = position;
        }
        Ok(())
    }

    fn mark(&mut self) -> std::io::Result<()> {
        let committed = self.shared.committed();
        if committed > self.marked {
            self.high_water.write(committed, self.shared.epoch())?;
            self.marked = committed;
        }
        Ok(())
    }

    /// Writes the indexes that are only in memory although their segments are full.
    fn write_indexes(&self) -> Result<(), ReadError> {
        let segments = self.shared.journal.segments();
        let (_, full) = segments.split_last().expect("there is always one");
        for segment in full.iter().filter(|segment| segment.lacks_index()) {
            match segment.with_builder(|builder| SegmentIndex::write(segment, builder)) {
                Some(index) => segment.set_index(Arc::new(index?)),
                // It is read, or built anew, one in a round.
                None => return segment.index().map(drop),
            }
        }
        Ok(())
    }

    /// Reads one full segment that was not read since the start: a start checks only the last one as a whole.
    fn check_one(&mut self) {
        let segments = self.shared.journal.segments();
        let (_, full) = segments.split_last().expect("there is always one");
        let Some(segment) = full.iter().find(|segment| segment.last() > self.checked) else {
            return self.shared.checked.store(true, Ordering::Relaxed);
        };
        match segment.walk(segment.header.first, |_, _| ControlFlow::Continue(())) {
            Err(ReadError::Damaged(damage)) => self.shared.note_damage(damage),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a segment could not be read"),
            Ok(_) => {}
        }
        self.checked = segment.last();
    }

    /// Lets the oldest segment go if it is too much or too old, and nothing of the present state stands only in it.
    fn retain(&mut self) -> Result<(), ReadError> {
        while let Some(oldest) = self.expendable()? {
            if self.shared.carry_wanted() {
                return Ok(());
            }
            let last = oldest.last();
            let carry = {
                let state = self.shared.state();
                if state.cursor().applied < last && !applied_all(&oldest, state.cursor().applied) {
                    return Ok(());
                }
                state.written_up_to(last)
            };
            if !carry.is_empty() {
                self.shared.plan_carry(Some((last, carry)));
                return Ok(());
            }
            // A start must find the view beyond what goes, or it has to read the whole journal.
            let (dirty, _) = self.shared.take_dirty(Duration::ZERO);
            if self.update_view(&dirty).and_then(|()| self.sync_view()).is_err() || self.view_synced < last {
                return Ok(());
            }
            if !self.remove(&oldest)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The oldest segment, if it is to go.
    fn expendable(&self) -> Result<Option<Arc<Segment>>, ReadError> {
        let segments = self.shared.journal.segments();
        let [oldest, _, ..] = &segments[..] else {
            self.shared.unread.store(false, Ordering::Relaxed);
            return Ok(None);
        };
        let config = &self.shared.config;
        let floor = {
            let state = self.shared.state();
            let live = state.alarms_len() as u64 * ALARM_BYTES + state.records_len() as u64 * RECORD_BYTES;
            2 * live + 2 * config.segment_bytes
        };
        let bytes = self.shared.journal.bytes();
        let tight = || files::free_bytes(&config.dir).is_ok_and(|free| free < config.free_space_watermark_bytes);
        let retention = self.shared.retention();
        let too_much = bytes > retention.history_max_bytes.max(floor) || (bytes > floor && tight());
        let is_unread = retention.kept_for.is_some_and(|follower| {
            let state = self.shared.state();
            state.followers().get(&follower).is_some_and(|followed| followed.position < oldest.last())
        });
        self.shared.unread.store(too_much && is_unread, Ordering::Relaxed);
        if is_unread {
            return Ok(None);
        }
        Ok((too_much || self.is_too_old(oldest)?).then(|| Arc::clone(oldest)))
    }

    /// Whether all of `segment` is older than history is kept, by journal time: a wall clock that is set ages nothing. What a
    /// follower has yet to read is not, as long as there is room for it.
    fn is_too_old(&self, segment: &Segment) -> Result<bool, ReadError> {
        let newest = match segment.with_builder(IndexBuilder::newest) {
            Some(newest) => newest,
            None => segment.index()?.map_or(JournalTime::default(), |index| index.newest()),
        };
        let state = self.shared.state();
        let is_followed = state.followed().is_some_and(|position| position < segment.last());
        let now = state.cursor().at;
        Ok(!is_followed && now.since(newest) > self.shared.retention().history_max_age)
    }

    /// Removes `segment`, unless a backup is running.
    fn remove(&self, segment: &Segment) -> Result<bool, ReadError> {
        let dir = &self.shared.config.dir;
        let failed = |source| ReadError::Io { path: segment.path.clone(), source };
        let Some(_alone) = RetentionLock::exclusive(dir).map_err(failed)? else { return Ok(false) };
        files::remove_file(&segment.path).map_err(failed)?;
        self.shared.journal.remove_first();
        files::remove_file(&index_path(&segment.path)).map_err(failed)?;
        files::sync_dir(&self.shared.journal.dir).map_err(failed)?;
        tracing::info!(segment = %segment.path.display(), "an old segment was removed");
        Ok(true)
    }
}

/// Whether no entry of `segment` stands behind `applied`: one that was not applied yet must stay.
fn applied_all(segment: &Segment, applied: Position) -> bool {
    let mut all = true;
    let walked = segment.walk(applied.plus(1), |record, _| {
        all = record.kind != Kind::Entry;
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    all && walked.is_ok()
}
