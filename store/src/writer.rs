//! The writer: the handle that the applying loop holds, and the thread that encodes, writes, syncs, and then publishes.
//!
//! ```text
//! loop:    submit ──▶ (at most pipeline_frames_max in flight) ──▶ thread: encode ▶ write ▶ sync ▶ index, state, ring ▶ watchers ▶ done
//! keeper:  plans what must be carried forward ──▶ loop: maintain ──▶ thread, as a frame of its own
//! ```
//!
//! After a frame has failed, those behind it are dropped until the loop has loaded its engine anew and says so.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Subject;
use klaxon_schemas::entry::NewEpoch;
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};

use crate::config::Retention;
use crate::files;
use crate::frame::{Frame, Results};
use crate::journal::FRAME_BYTES_MAX;
use crate::journal::append::{Appender, WriteError};
use crate::journal::record;
use crate::lock::StoreLock;
use crate::node::NodeError;
use crate::store::Shared;
use crate::stream::Item;

/// How long an answer about free space holds.
const ROOM_INTERVAL: Duration = Duration::from_millis(250);
/// The most alarms and records carried forward in one frame: even the largest fit into it.
const CARRY_ROWS_MAX: usize = 512;
/// The most such frames for one call of [`Writer::maintain`].
const CARRY_FRAMES_MAX: usize = 64;

/// The one who appends. It belongs to the loop that applies the engine, and blocks.
pub struct Writer {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    pipeline: Arc<Pipeline>,
    next: Position,
    room: Mutex<Option<(Instant, Room)>>,
    thread: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<Result<(), CloseError>>>,
    #[cfg(test)]
    disk_room: Arc<std::sync::atomic::AtomicU64>,
    /// Last, so that it is let go when nobody writes any more.
    _lock: StoreLock,
}

/// Proof that a frame is on the disk. Only the journal makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    position: Position,
}

impl Durable {
    /// The last record of the frame.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// Why a frame was not appended. Nothing of it is in the journal.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk, a quota or a limit is full; the append was taken back.
    #[error("the disk has no room for {bytes} bytes of the journal")]
    Full {
        /// How large the frame is.
        bytes: u64,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A frame before it failed, so this one was not tried.
    #[error("a frame before this one could not be appended")]
    Dropped,
    /// More than a frame may hold.
    #[error("the frame is {bytes} bytes long, at most {bytes_max} are allowed")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u64,
    },
}

/// Where things stand after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// The last committed record: the engine is to be loaded from the state at this position.
    pub committed: Position,
    /// Where the next frame begins.
    pub next_position: Position,
}

/// Whether there is room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Ok,
    /// Free space is below the watermark: refuse intake.
    Low {
        /// How much is free.
        free_bytes: u64,
        /// How much should be.
        watermark_bytes: u64,
    },
    /// As much of the journal as may be is kept for a follower that has yet to read it: refuse intake.
    Unread {
        /// How large the journal is.
        journal_bytes: u64,
        /// How large it may grow.
        history_max_bytes: u64,
    },
}

/// Why a store did not close cleanly. Nothing that was acknowledged is lost.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The view could not be brought up to date; it is caught up at the next start.
    #[error("cannot bring the view up to date: {0}")]
    View(String),
    /// The high-water mark could not be written.
    #[error("cannot write the high-water mark")]
    HighWater(#[source] std::io::Error),
    /// A thread of the store panicked before.
    #[error("a thread of the store has panicked")]
    Panicked,
}

type Done = Box<dyn FnOnce(Result<Durable, AppendError>) + Send>;

/// What the thread is given.
enum Job {
    Frame { first: Position, frame: Frame, done: Done },
    Carry { first: Position, rows: CarryRows },
}

/// State that is written again as it is.
#[derive(Default)]
struct CarryRows {
    alarms: Vec<Arc<Alarm>>,
    records: Vec<(StateKey, StateRecord)>,
    cursor: Option<Cursor>,
}

impl CarryRows {
    fn len(&self) -> usize {
        self.alarms.len() + self.records.len() + usize::from(self.cursor.is_some())
    }
}

/// What loop and thread know of each other.
#[derive(Debug, Default)]
struct Pipeline {
    flight: Mutex<Flight>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct Flight {
    frames: usize,
    failed: bool,
}

impl Pipeline {
    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().expect("nobody panics while holding it")
    }

    /// Waits until fewer than `frames` are in flight.
    fn wait_below(&self, frames: usize) -> MutexGuard<'_, Flight> {
        self.landed.wait_while(self.flight(), |flight| flight.frames >= frames).expect("nobody panics while holding it")
    }

    fn land(&self, failed: bool) {
        let mut flight = self.flight();
        flight.frames -= 1;
        flight.failed |= failed;
        self.landed.notify_all();
    }
}

impl Writer {
    /// Starts the writer thread at the end of the journal.
    pub(crate) fn start(
        shared: Arc<Shared>,
        appender: Appender,
        keeper: JoinHandle<Result<(), CloseError>>,
        lock: StoreLock,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let pipeline = Arc::new(Pipeline::default());
        let next = appender.next();
        #[cfg(test)]
        let disk_room = Arc::clone(&appender.room);
        let thread = {
            let (shared, pipeline) = (Arc::clone(&shared), Arc::clone(&pipeline));
            std::thread::Builder::new()
                .name("klaxon-journal".to_owned())
                .spawn(move || Thread { shared, pipeline, appender, sizes: Vec::new() }.run(&queue))?
        };
        Ok(Self {
            shared,
            jobs: Some(jobs),
            pipeline,
            next,
            room: Mutex::new(None),
            thread: Some(thread),
            keeper: Some(keeper),
            #[cfg(test)]
            disk_room,
            _lock: lock,
        })
    }

    /// The position of the first record of the next frame. Ask anew before each frame: carrying state forward takes positions.
    pub fn next_position(&self) -> Position {
        self.next
    }

    /// Hands `frame` to the writer thread; blocks while as many frames as may be are in flight. `done` is run on that thread
    /// after the frame is synced, the state published and the watchers woken. Frames are committed in order. A frame without
    /// records is durable at once, behind those before it. `done` must be short, and must not wait for this writer.
    pub fn submit(&mut self, frame: Frame, done: impl FnOnce(Result<Durable, AppendError>) + Send + 'static) {
        let records = frame.records();
        let job = Job::Frame { first: self.next, frame, done: Box::new(done) };
        self.send(job, records);
        if self.shared.carry_wanted() {
            self.carry(1);
        }
    }

    fn send(&mut self, job: Job, records: u64) {
        self.pipeline.wait_below(self.shared.config.pipeline_frames_max).frames += 1;
        self.next = self.next.plus(records);
        let jobs = self.jobs.as_ref().expect("only closing takes it");
        jobs.send(job).expect("the writer thread ends only when this is closed");
    }

    /// Waits until nothing is in flight.
    pub fn drain(&mut self) {
        drop(self.pipeline.wait_below(1));
    }

    /// After an [`AppendError`]: waits until the pipeline is empty and goes on at the committed end. The engine must be loaded
    /// anew from the committed state.
    pub fn recover(&mut self) -> Recovered {
        self.pipeline.wait_below(1).failed = false;
        let committed = self.shared.journal.last();
        self.next = committed.plus(1);
        Recovered { committed, next_position: self.next }
    }

    /// Does what retention asks of the writer, a bounded piece at a time. To be called when idle, about once a second.
    pub fn maintain(&mut self) {
        if self.shared.carry_wanted() {
            self.carry(CARRY_FRAMES_MAX);
        }
    }

    /// Writes again what the segment that is to go alone holds: of the committed state, with nothing in flight that could be
    /// newer.
    fn carry(&mut self, frames: usize) {
        for _ in 0..frames {
            if self.pipeline.wait_below(1).failed {
                return;
            }
            let Some(rows) = self.take_carry() else { return };
            let records = rows.len() as u64;
            if records > 0 {
                let first = self.next;
                self.send(Job::Carry { first, rows }, records);
                // If it fails, the loop would have to recover for a frame that it knows nothing of.
                let mut flight = self.pipeline.wait_below(1);
                if std::mem::take(&mut flight.failed) {
                    self.next = self.shared.journal.last().plus(1);
                    drop(flight);
                    self.shared.plan_carry(None);
                    return;
                }
            }
        }
    }

    fn take_carry(&self) -> Option<CarryRows> {
        let mut plan = self.shared.carry();
        let (up_to, carry) = plan.as_mut()?;
        let state = self.shared.state();
        let mut rows = CarryRows::default();
        while rows.len() < CARRY_ROWS_MAX {
            if let Some(id) = carry.alarms.pop() {
                let held = state.held_alarm(id).filter(|held| held.written <= *up_to);
                rows.alarms.extend(held.map(|held| Arc::clone(&held.value)));
            } else if let Some(key) = carry.records.pop() {
                let held = state.held_record(&key).filter(|held| held.written <= *up_to);
                let large = matches!(key, StateKey::Bundle(_));
                rows.records.extend(held.map(|held| (key, held.value.clone())));
                if large {
                    break;
                }
            } else {
                rows.cursor = (carry.cursor && state.cursor_written() <= *up_to).then(|| state.cursor().clone());
                *plan = None;
                break;
            }
        }
        // It tells the segment's time, by which it ages.
        if rows.len() > 0 {
            rows.cursor.get_or_insert_with(|| state.cursor().clone());
        }
        drop(state);
        if plan.is_none() {
            self.shared.carry_planned(false);
        }
        Some(rows)
    }

    /// From now on so much history is kept.
    pub fn set_retention(&mut self, retention: Retention) {
        self.shared.set_retention(retention);
    }

    /// Begins a new numbering of changes, beyond `beyond`: it is on the disk when this returns. The engine is to be told, by an
    /// entry. What is in flight is in the old numbering.
    pub fn begin_epoch(&mut self, beyond: Epoch, reason: NewEpoch) -> Result<Epoch, NodeError> {
        self.drain();
        let beyond = beyond.max(self.shared.state().cursor().epoch);
        let node = self.shared.node().in_new_epoch(beyond, reason, self.shared.journal.last());
        node.write(&self.shared.config.dir)?;
        let epoch = node.epoch;
        self.shared.set_node(node);
        Ok(epoch)
    }

    /// Whether free space is above the watermark; cheap.
    pub fn room(&self) -> Room {
        let mut last = self.room.lock().expect("nobody panics while holding it");
        if let Some((asked, room)) = *last
            && asked.elapsed() < ROOM_INTERVAL
        {
            return room;
        }
        let watermark_bytes = self.shared.config.free_space_watermark_bytes;
        // Where the system does not say, a write that finds no room does.
        let room = match files::free_bytes(&self.shared.config.dir) {
            Ok(free_bytes) if free_bytes < watermark_bytes => Room::Low { free_bytes, watermark_bytes },
            _ if self.shared.unread.load(Ordering::Relaxed) => Room::Unread {
                journal_bytes: self.shared.journal.bytes(),
                history_max_bytes: self.shared.retention().history_max_bytes,
            },
            _ => Room::Ok,
        };
        *last = Some((Instant::now(), room));
        room
    }

    /// Finishes what is in flight, brings the view up to date and lets the folder go.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.stop()
    }

    /// Lets the disk be full when a segment has `bytes`.
    #[cfg(test)]
    pub(crate) fn limit_segment_bytes(&self, bytes: u64) {
        self.disk_room.store(bytes, std::sync::atomic::Ordering::Relaxed);
    }

    fn stop(&mut self) -> Result<(), CloseError> {
        self.jobs = None;
        let written = self.thread.take().map(JoinHandle::join);
        self.shared.stop_keeper();
        let kept = self.keeper.take().map(JoinHandle::join);
        match (written, kept) {
            (Some(Err(_)), _) | (_, Some(Err(_))) => Err(CloseError::Panicked),
            (_, Some(Ok(outcome))) => outcome,
            (_, None) => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
    }
}

/// The thread.
struct Thread {
    shared: Arc<Shared>,
    pipeline: Arc<Pipeline>,
    appender: Appender,
    /// How many bytes each record of the frame has that followers are told of.
    sizes: Vec<usize>,
}

/// A panic on the writer thread is a broken invariant, and whoever waits for it would wait for ever: the process ends.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the thread that writes the journal has panicked");
            std::process::abort();
        }
    }
}

impl Thread {
    fn run(mut self, queue: &Receiver<Job>) {
        let _end = EndOnPanic;
        while let Ok(job) = queue.recv() {
            let failed = match job {
                Job::Frame { first, mut frame, done } => {
                    let outcome = self.expect_at(first).and_then(|()| self.append(&frame));
                    let failed = outcome.is_err();
                    if let Ok(last) = outcome {
                        self.publish(first, &mut frame, last);
                    }
                    done(outcome.map(|position| Durable { position }));
                    failed
                }
                Job::Carry { first, rows } => {
                    let outcome = self.expect_at(first).and_then(|()| self.append_carry(&rows));
                    match outcome {
                        Ok(last) => self.publish_carry(first, rows, last),
                        Err(ref error) => tracing::warn!(%error, "state could not be carried forward yet"),
                    }
                    outcome.is_err()
                }
            };
            self.pipeline.land(failed);
        }
    }

    /// A frame behind one that failed was made for another place.
    fn expect_at(&self, first: Position) -> Result<(), AppendError> {
        let dropped = self.pipeline.flight().failed || first != self.appender.next();
        if dropped { Err(AppendError::Dropped) } else { Ok(()) }
    }

    fn append(&mut self, frame: &Frame) -> Result<Position, AppendError> {
        if frame.records() == 0 {
            return Ok(Position(self.appender.next().0 - 1));
        }
        let appender = &mut self.appender;
        appender.epoch = self.shared.epoch();
        appender.begin()?;
        for entry in &frame.entries {
            let position = appender.place();
            debug_assert_eq!(entry.position, position, "an entry is at the place that the writer said");
            record::push_entry(&mut appender.frame, entry);
            appender.part.time(entry.at);
            too_large_yet(appender)?;
        }
        self.sizes.clear();
        if let Some(results) = &frame.results {
            for change in &results.changes {
                let (position, before) = (appender.place(), appender.frame.len());
                record::push_change(&mut appender.frame, change);
                appender.part.change(position, change);
                self.sizes.push(appender.frame.len() - before);
                too_large_yet(appender)?;
            }
            for alarm in &results.alarms {
                appender.place();
                record::push_alarm(&mut appender.frame, alarm);
                too_large_yet(appender)?;
            }
            for alarm in &results.touched {
                appender.place();
                let before = appender.frame.len();
                record::push_touched(&mut appender.frame, alarm);
                self.sizes.push(appender.frame.len() - before);
            }
            for (key, put) in &results.puts {
                appender.place();
                record::push_put(&mut appender.frame, key, put.as_ref());
                too_large_yet(appender)?;
            }
            appender.place();
            record::push_cursor(&mut appender.frame, &results.cursor);
            appender.part.time(results.cursor.at);
        }
        Ok(appender.commit()?)
    }

    /// Indexes, state, ring, view and watchers, in this order: who is woken finds everything.
    fn publish(&mut self, first: Position, frame: &mut Frame, last: Position) {
        if let Some(results) = frame.results.take() {
            self.publish_results(first.plus(frame.entries.len() as u64), results, last);
        } else {
            self.shared.state_mut().reach(last);
            self.shared.ring_mut().extend(std::iter::empty(), last);
            self.shared.dirty(|dirty| dirty.position = last);
        }
        self.shared.commit(last);
    }

    fn publish_results(&mut self, first: Position, results: Results, last: Position) {
        let alarms_first = first.plus(results.changes.len() as u64);
        let touched_first = alarms_first.plus(results.alarms.len() as u64);
        let puts_first = touched_first.plus(results.touched.len() as u64);
        let at = |first: Position, number: usize| first.plus(number as u64);
        {
            let mut state = self.shared.state_mut();
            for (number, change) in results.changes.iter().enumerate() {
                state.apply_change(change, at(first, number));
            }
            for (number, alarm) in results.alarms.iter().enumerate() {
                state.put_alarm(alarm, at(alarms_first, number));
            }
            for alarm in &results.touched {
                state.touch(alarm);
            }
            for (number, (key, record)) in results.puts.iter().enumerate() {
                state.put_record(key.clone(), record.clone(), at(puts_first, number));
            }
            state.put_cursor(results.cursor.clone(), last);
            state.reach(last);
        }
        {
            let state = self.shared.state();
            self.shared.dirty(|dirty| {
                let changed = results.changes.iter().filter_map(|change| match &change.subject {
                    Subject::Alarm { alarm, .. } => Some(alarm.id),
                    _ => None,
                });
                let whole = results.alarms.iter().chain(&results.touched).map(|alarm| alarm.id);
                for id in changed.chain(whole) {
                    let held = state.held_alarm(id).map(|held| (Arc::clone(&held.value), held.written));
                    dirty.alarms.insert(id, held);
                }
                for (number, (key, record)) in results.puts.into_iter().enumerate() {
                    dirty.records.insert(key, record.map(|record| (record, at(puts_first, number))));
                }
                dirty.cursor = Some((results.cursor, last));
                dirty.position = last;
            });
        }
        let changes = results.changes.into_iter().enumerate().map(|(number, change)| (at(first, number), Item::Change(change)));
        let touched = results.touched.iter().enumerate();
        let touched = touched.map(|(number, alarm)| (at(touched_first, number), Item::Touched(record::shown_touched(alarm))));
        let items = changes.chain(touched).zip(&self.sizes).map(|((position, item), size)| (position, item, *size));
        self.shared.ring_mut().extend(items, last);
    }

    fn append_carry(&mut self, rows: &CarryRows) -> Result<Position, AppendError> {
        let appender = &mut self.appender;
        appender.begin()?;
        for alarm in &rows.alarms {
            appender.place();
            record::push_alarm(&mut appender.frame, alarm);
        }
        for (key, put) in &rows.records {
            appender.place();
            record::push_put(&mut appender.frame, key, Some(put));
        }
        if let Some(cursor) = &rows.cursor {
            appender.place();
            record::push_cursor(&mut appender.frame, cursor);
            appender.part.time(cursor.at);
        }
        Ok(appender.commit()?)
    }

    fn publish_carry(&mut self, first: Position, rows: CarryRows, last: Position) {
        {
            let mut positions = (0..).map(|number| first.plus(number));
            let mut next = || positions.next().expect("positions do not end");
            let mut state = self.shared.state_mut();
            self.shared.dirty(|dirty| {
                for alarm in rows.alarms {
                    let written = next();
                    state.put_alarm(&alarm, written);
                    dirty.alarms.insert(alarm.id, Some((alarm, written)));
                }
                for (key, record) in rows.records {
                    let written = next();
                    dirty.records.insert(key.clone(), Some((record.clone(), written)));
                    state.put_record(key, Some(record), written);
                }
                if let Some(cursor) = rows.cursor {
                    dirty.cursor = Some((cursor.clone(), last));
                    state.put_cursor(cursor, last);
                }
                dirty.position = last;
            });
            state.reach(last);
        }
        self.shared.ring_mut().extend(std::iter::empty(), last);
        self.shared.commit(last);
    }
}

/// A frame that is too large is given up before it has taken much more memory.
fn too_large_yet(appender: &Appender) -> Result<(), AppendError> {
    let bytes = appender.frame.len();
    if bytes > FRAME_BYTES_MAX {
        return Err(AppendError::TooLarge { bytes: bytes as u64, bytes_max: FRAME_BYTES_MAX as u64 });
    }
    Ok(())
}

impl From<WriteError> for AppendError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NoRoom { bytes, source } => Self::Full { bytes, source },
            WriteError::TooLarge { bytes } => Self::TooLarge { bytes, bytes_max: FRAME_BYTES_MAX as u64 },
        }
    }
}
