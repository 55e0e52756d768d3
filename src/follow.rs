//! The one loop: take what came in, apply it, commit one frame, answer.
//!
//! ```text
//! intake ─▶ gather ─▶ screen, stamp, apply ─▶ one frame: entries, changes, state, cursor ─▶ answers
//!                          │ more than a frame holds
//!                          └▶ entries run ahead in a frame of their own ─▶ their results follow in several
//! ```
//!
//! It runs on a thread of its own and blocks. While the journal's writer syncs a frame, the loop applies the next batch; if a
//! frame fails, the engine is built anew from what was committed. An entry on which the engine breaks is put aside: it is
//! journalled, passed over and told of, and the node lives.
//!
//! It knows nothing of HTTP, SNMP or who follows the changes.

mod size;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use klaxon_correlate::{Disposition, Engine, Output, Screening};
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::Change;
use klaxon_schemas::entry::{Entry, EntryKind, NewEpoch, Started};
use klaxon_schemas::ids::Epoch;
use klaxon_schemas::names::{Door, Site};
use klaxon_schemas::state::{FOLLOWERS_MAX, Settings, StateKey, StateRecord};
use klaxon_store::publish::{
    Answer, Intake, Item, KEEP_RECORDS_MAX, Keep, Next, PublishError, Published, Rejection, Submission,
};
use klaxon_store::{AppendError, Durable, Frame, NodeError, OpenReport, Retention, Room, Store, Writer};

use crate::clock::{Clock, Reading};
use crate::engine::{committed, panic_text};
use crate::own::{self, OwnAlarm, Standing};
pub(crate) use size::no_room;
use size::{FRAME_BYTES_ROUGH_MAX, FRAME_ENTRIES_MAX, child_of, chunks, frame_bytes, within_bounds};

/// The most entries taken from the intake at once.
const GATHER_ENTRIES_MAX: usize = 8 * FRAME_ENTRIES_MAX;
/// How long the loop sleeps at most: retention and new settings wait that long.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How long the loop waits after a full disk before it tries anew.
const FULL_WAIT: Duration = Duration::from_millis(200);

/// What others may ask of the loop.
#[derive(Debug)]
pub enum Control {
    /// The engine is held to these from now on.
    Settings(Settings),
    /// The catalogue to read from now on.
    Catalogue(Arc<Catalogue>),
    /// How much history the store keeps from now on.
    Retention(Retention),
    /// A new numbering of changes is to begin, beyond this one: the node above knows others under the same numbers.
    NewEpoch(Epoch, tokio::sync::oneshot::Sender<Result<Epoch, NodeError>>),
}

/// What the loop tells of itself.
#[derive(Debug, Default)]
pub struct FollowStatus {
    /// No intake is taken for want of room.
    pub disk_full: AtomicBool,
    /// Entries applied.
    pub applied: AtomicU64,
    /// Entries that broke the engine.
    pub quarantined: AtomicU64,
    /// Frames that found no room.
    pub appends_failed: AtomicU64,
    /// Alarms raised of types that the catalogue does not know.
    pub uncatalogued: AtomicU64,
    /// Batches whose entries ran ahead of their results.
    pub ran_ahead: AtomicU64,
}

/// What the loop is made of.
pub struct Parts {
    /// The node's site.
    pub site: Site,
    /// Whether it is an agent of a node above, where operators act on its alarms.
    pub is_agent: bool,
    /// The store.
    pub store: Store,
    /// Its one writer.
    pub writer: Writer,
    /// What was found when it was opened.
    pub report: OpenReport,
    /// What comes in.
    pub intake: Intake,
    /// What is asked of it.
    pub control: mpsc::Receiver<Control>,
    /// What it tells.
    pub status: Arc<FollowStatus>,
}

/// Why the loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// What the node must journal to begin does not fit on the disk.
    #[error("cannot journal the start of the node")]
    Start(#[source] AppendError),
    /// The journal cannot be read.
    #[error("cannot read what waits in the journal")]
    Read(#[from] klaxon_store::ReadError),
    /// The brokers that hold the journal cannot be had.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Kafka(klaxon_store::kafka::ClusterError),
    /// The store did not close cleanly.
    #[error(transparent)]
    Close(#[from] klaxon_store::CloseError),
}

/// The loop, ready to run.
pub struct Follow {
    site: Site,
    is_agent: bool,
    store: Store,
    writer: Writer,
    engine: Engine,
    clock: Clock,
    intake: Intake,
    control: mpsc::Receiver<Control>,
    status: Arc<FollowStatus>,
    failure: Arc<Mutex<Option<AppendError>>>,
    own: own::Told,
    /// Kept for followers, with the next results.
    puts: Vec<(StateKey, Option<StateRecord>)>,
    /// Entries may be journalled that have no results yet: they come before anything new.
    is_behind: bool,
    /// What the node has to say of itself once what it is doing is done.
    untold: Vec<EntryKind>,
}

/// A submission, and the answers to its items that are known so far.
type Asked = (Submission, Vec<Option<Answer>>);
/// Whose item it is: submission and item.
type Place = (usize, usize);
/// What became of the frame of entries that went ahead of their results.
type Ahead = Arc<OnceLock<Result<Durable, PublishError>>>;

/// Submissions whose items have been looked at.
struct Batch {
    asked: Vec<Asked>,
    /// What is to be journalled, and whose item it is.
    fresh: Vec<(EntryKind, Door, Place)>,
    /// What is kept for followers. It is no entry: the engine has no part in it.
    puts: Vec<(StateKey, Option<StateRecord>)>,
}

impl Follow {
    /// Journals that the node started, and works off what a crash left without results.
    pub fn start(parts: Parts, settings: Settings, catalogue: Arc<Catalogue>) -> Result<Self, FollowError> {
        let engine = load(&parts.site, &parts.store);
        let clock = Clock::resume(engine.cursor());
        let own = own::Told::before(&parts.site, &engine);
        let mut follow = Self {
            site: parts.site,
            is_agent: parts.is_agent,
            store: parts.store,
            writer: parts.writer,
            engine,
            clock,
            intake: parts.intake,
            control: parts.control,
            status: parts.status,
            failure: Arc::default(),
            own,
            puts: Vec::new(),
            is_behind: true,
            untold: Vec::new(),
        };
        follow.catch_up()?;
        // What was applied just now may be later than the cursor said before.
        follow.clock = Clock::resume(follow.engine.cursor());
        follow.begin(&parts.report, settings, catalogue)?;
        Ok(follow)
    }

    /// Runs until no door is left, then closes the store.
    pub fn run(mut self) -> Result<(), FollowError> {
        loop {
            self.mend();
            self.catch_up()?;
            if !self.is_behind {
                self.obey();
                let untold = std::mem::take(&mut self.untold);
                self.journal_own(untold);
                self.now();
            }
            let wait = self.idle_wait();
            match self.intake.next(Some(wait)) {
                Next::Submission(first) => self.serve(first),
                Next::Nothing => self.idle(),
                Next::Ended => break,
            }
        }
        self.writer.drain();
        self.mend();
        Ok(self.writer.close()?)
    }

    fn idle(&mut self) {
        if !self.is_behind && !self.has_failed() {
            self.writer.maintain();
            self.look_at_room();
            self.tell_own();
        }
    }

    fn idle_wait(&mut self) -> Duration {
        if self.status.disk_full.load(Ordering::Relaxed) {
            return FULL_WAIT;
        }
        let now = self.clock.read().at;
        self.engine.next_deadline().map_or(IDLE_WAIT, |due| due.since(now).min(IDLE_WAIT))
    }

    /// Applies what is journalled and has no results yet: after a crash, or after the disk filled up between the two.
    fn catch_up(&mut self) -> Result<(), FollowError> {
        if !self.is_behind || self.has_failed() {
            return Ok(());
        }
        let waiting = self.store.entries_after(self.engine.cursor().applied)?;
        if !waiting.is_empty() {
            tracing::info!(entries = waiting.len(), "applying what was journalled and has no results yet");
        }
        for entry in waiting {
            self.apply_alone(&entry);
        }
        self.writer.drain();
        self.is_behind = self.has_failed();
        Ok(())
    }

    fn begin(&mut self, report: &OpenReport, settings: Settings, catalogue: Arc<Catalogue>) -> Result<(), FollowError> {
        let started = self.started(report.epoch, report.new_epoch);
        // The start comes before what was due while the node was away, and that, in bounded steps, before the rest.
        let now = self.clock.read();
        self.journal_own_at(now, vec![EntryKind::Started(started)]);
        let mut kinds: Vec<_> = self.settings_entry(settings).into_iter().collect();
        kinds.extend(self.catalogue_entry(catalogue));
        match (report.new_epoch, report.tail_missing) {
            (_, Some(missing)) => {
                let text = format!("Records {} to at least {} of the journal are missing.", missing.from, missing.to);
                kinds.push(own::raise(&self.site, OwnAlarm::TailMissing, &text));
            }
            // Found at an earlier start, which did not come to tell.
            (Some(NewEpoch::TailMissing), None) => {
                kinds.push(own::raise(&self.site, OwnAlarm::TailMissing, "Records are missing from the journal."));
            }
            (Some(NewEpoch::Restored), None) => {
                tracing::warn!(epoch = %report.epoch, "restored from a backup: a new epoch begins");
            }
            _ => {}
        }
        self.journal_own(kinds);
        self.writer.drain();
        match self.take_failure() {
            Some(error) => Err(FollowError::Start(error)),
            None => Ok(()),
        }
    }

    fn settings_entry(&self, settings: Settings) -> Option<EntryKind> {
        (*self.engine.settings() != settings || self.engine.cursor().catalogue.is_none())
            .then_some(EntryKind::Settings(settings))
    }

    fn catalogue_entry(&self, catalogue: Arc<Catalogue>) -> Option<EntryKind> {
        let digest = catalogue.digest().clone();
        (self.engine.cursor().catalogue.as_ref() != Some(&digest)).then_some(EntryKind::Bundle { digest, catalogue })
    }

    /// Does what was asked of the loop.
    fn obey(&mut self) {
        let asked: Vec<_> = self.control.try_iter().collect();
        for control in asked {
            let entry = match control {
                Control::Settings(settings) => self.settings_entry(settings),
                Control::Catalogue(catalogue) => self.catalogue_entry(catalogue),
                Control::Retention(retention) => {
                    self.writer.set_retention(retention);
                    None
                }
                Control::NewEpoch(beyond, told) => self.begin_epoch(beyond, told),
            };
            self.journal_own(entry.into_iter().collect());
        }
    }

    /// Begins a new numbering: on the disk before anything is numbered in it. If the entry is lost, it is the numbering all the
    /// same, as after a start.
    fn begin_epoch(
        &mut self,
        beyond: Epoch,
        told: tokio::sync::oneshot::Sender<Result<Epoch, NodeError>>,
    ) -> Option<EntryKind> {
        let begun = self.writer.begin_epoch(beyond, NewEpoch::Diverged);
        let entry = begun.as_ref().ok().map(|epoch| {
            tracing::warn!(%epoch, "the node above knows other changes under the same numbers: a new epoch begins");
            EntryKind::Started(self.started(*epoch, Some(NewEpoch::Diverged)))
        });
        // Whoever asked may have gone.
        let _ = told.send(begun);
        entry
    }

    /// Now, with the deadlines up to now worked off, each bounded step with an entry of its own. While intake is refused they
    /// wait: a reporter that is not let in is not silent.
    fn now(&mut self) -> Reading {
        let now = self.clock.read();
        let is_full = self.status.disk_full.load(Ordering::Relaxed);
        while !is_full && self.engine.next_deadline().is_some_and(|due| due <= now.at) && !self.has_failed() {
            self.journal_own_at(now, vec![EntryKind::Deadline]);
        }
        now
    }

    /// Journals what the node itself has to say, and applies it.
    fn journal_own(&mut self, kinds: Vec<EntryKind>) {
        if !kinds.is_empty() {
            let now = self.now();
            self.journal_own_at(now, kinds);
        }
    }

    fn journal_own_at(&mut self, now: Reading, kinds: Vec<EntryKind>) {
        let door = own::door();
        let entries = self.stamp(now, kinds.into_iter().map(|kind| (kind, door.clone())));
        let mut out = Output::default();
        if self.apply_all(&entries, &mut out).is_ok() {
            self.submit(entries, Some(out), |_| {});
        } else {
            self.apply_apart(entries, Vec::new(), &[]);
        }
    }

    /// One round: the submission that came and those that wait behind it.
    fn serve(&mut self, first: Submission) {
        let records = |submission: &Submission| submission.items.iter().map(Item::records).sum::<usize>();
        let mut submissions = vec![first];
        let mut gathered = records(&submissions[0]);
        while gathered < GATHER_ENTRIES_MAX {
            let Some(next) = self.intake.waiting() else { break };
            gathered += records(&next);
            submissions.push(next);
        }
        let mut submissions = submissions;
        if let Some(error) = self.refusal() {
            // What a follower has read is what makes room.
            let is_kept = |submission: &mut Submission| {
                matches!(error, PublishError::Unread { .. })
                    && submission.items.iter().all(|item| matches!(item, Item::Keep(_)))
            };
            let refused: Vec<_> = submissions.extract_if(.., |submission| !is_kept(submission)).collect();
            for submission in refused {
                submission.answer(Err(error.clone()));
            }
            if submissions.is_empty() {
                return;
            }
        }
        let mut batch = self.screen(submissions);
        self.puts.append(&mut batch.puts);
        let rough: usize = batch.fresh.iter().map(|(kind, ..)| frame_bytes(kind)).sum();
        if batch.fresh.is_empty() && self.puts.is_empty() {
            self.answer_known(batch);
        } else if batch.fresh.len() <= FRAME_ENTRIES_MAX && rough <= FRAME_BYTES_ROUGH_MAX {
            self.commit_together(batch);
        } else {
            self.run_ahead(batch);
        }
    }

    fn started(&self, epoch: Epoch, new_epoch: Option<NewEpoch>) -> Started {
        Started { version: env!("CARGO_PKG_VERSION").to_owned(), epoch, new_epoch, boot: self.clock.boot() }
    }

    /// Leases run anew: while intake was refused nobody could be heard, as while the node was away.
    fn listen_anew(&mut self) {
        let started = self.started(self.store.epoch(), None);
        let now = self.clock.read();
        self.journal_own_at(now, vec![EntryKind::Started(started)]);
    }

    fn look_at_room(&mut self) -> Room {
        let room = self.writer.room();
        let is_full = room != Room::Ok;
        if self.status.disk_full.swap(is_full, Ordering::Relaxed) != is_full {
            if !is_full && self.engine.next_deadline().is_some() {
                self.listen_anew();
            }
            self.tell_own();
        }
        room
    }

    /// Why nothing is taken now, if so.
    fn refusal(&mut self) -> Option<PublishError> {
        if self.is_behind || self.has_failed() {
            // What is durable and has no results yet comes first; with room again that takes a moment.
            return Some(no_room(self.writer.room()).unwrap_or(PublishError::Busy));
        }
        no_room(self.look_at_room())
    }

    /// Looks at each item before it is journalled. What has come before, or cannot be taken, is answered without a trace in
    /// the journal. Items of one batch that repeat each other are told apart by the engine.
    fn screen(&self, submissions: Vec<Submission>) -> Batch {
        let mut batch = Batch { asked: Vec::with_capacity(submissions.len()), fresh: Vec::new(), puts: Vec::new() };
        // What comes behind a step of theirs is judged by where that leads.
        let mut moving = BTreeSet::new();
        for (whose, mut submission) in submissions.into_iter().enumerate() {
            let mut answers = Vec::with_capacity(submission.items.len());
            for (which, item) in std::mem::take(&mut submission.items).into_iter().enumerate() {
                let kind = match item {
                    Item::Event(event) => match self.engine.screen(&event, &submission.door) {
                        Screening::Fresh => Ok(EntryKind::Event(event)),
                        Screening::Duplicate => Err(Answer::Duplicate),
                        Screening::TooOld => Err(Answer::Rejected(Rejection::TooOld)),
                        Screening::AlarmLimit => {
                            let limit = self.engine.settings().active_alarms_max;
                            Err(Answer::Rejected(Rejection::AlarmLimit { limit }))
                        }
                        Screening::HeartbeatLimit => {
                            let limit = self.engine.settings().heartbeats_max;
                            Err(Answer::Rejected(Rejection::HeartbeatLimit { limit }))
                        }
                    },
                    Item::Action(_) if self.is_agent => Err(Answer::Rejected(Rejection::AtTheSite)),
                    Item::Action(action) => Ok(EntryKind::Action(action)),
                    Item::Relay(relay) if moving.contains(&relay.child) => Ok(EntryKind::Relay(relay)),
                    Item::Relay(relay) => match self.engine.screen_relay(&relay) {
                        Ok(true) => Ok(EntryKind::Relay(relay)),
                        Ok(false) => Err(Answer::Duplicate),
                        Err(why) => Err(Answer::Rejected(Rejection::NotTaken(why))),
                    },
                    Item::Child(fact) => Ok(EntryKind::Child(fact)),
                    Item::Keep(keep) => Err(self.keep(&keep, &mut batch.puts)),
                };
                match kind.and_then(|kind| within_bounds(&kind).map(|()| kind)) {
                    Ok(kind) => {
                        moving.extend(child_of(&kind).cloned());
                        answers.push(None);
                        batch.fresh.push((kind, submission.door.clone(), (whose, which)));
                    }
                    Err(answer) => answers.push(Some(answer)),
                }
            }
            batch.asked.push((submission, answers));
        }
        batch
    }

    /// Keeps how far a follower has come and what it was told, if there is room for one more.
    fn keep(&self, keep: &Keep, puts: &mut Vec<(StateKey, Option<StateRecord>)>) -> Answer {
        if keep.records() > KEEP_RECORDS_MAX {
            return Answer::Rejected(Rejection::KeepTooLarge { records: keep.records() });
        }
        let state = self.store.read();
        let followers = state.state().followers();
        if keep.followed.is_some() && followers.len() >= FOLLOWERS_MAX && !followers.contains_key(&keep.follower) {
            return Answer::Rejected(Rejection::FollowerLimit { limit: FOLLOWERS_MAX });
        }
        puts.extend(keep.puts());
        Answer::Accepted { position: self.writer.next_position(), changes: Vec::new() }
    }

    /// Nothing is to be journalled; but what the duplicates repeat may still be on its way to the disk.
    fn answer_known(&mut self, batch: Batch) {
        // A frame without records is durable as soon as those before it are.
        self.writer.submit(Frame::default(), |durable| answer(batch.asked, &durable.map_err(|error| refused(&error))));
    }

    /// The usual way: one frame holds the entries and what followed from them.
    fn commit_together(&mut self, batch: Batch) {
        let Batch { mut asked, fresh, .. } = batch;
        let (kinds, places): (Vec<_>, Vec<_>) = fresh.into_iter().map(|(kind, door, place)| ((kind, door), place)).unzip();
        let now = self.now();
        let entries = self.stamp(now, kinds.into_iter());
        // A clock step that was noticed stands before them.
        let own = entries.len() - places.len();
        let mut out = Output::default();
        match self.apply_all(&entries, &mut out) {
            Ok(answers) => {
                place(&mut asked, &places, answers.into_iter().skip(own));
                self.submit(entries, Some(out), move |durable| {
                    answer(asked, &durable.map_err(refused));
                });
            }
            Err(Broken) => self.apply_apart(entries, asked, &places),
        }
        self.notice_limit();
    }

    /// Under pressure: all entries are made durable at once, and their results follow in frames of their own. Each submission
    /// is answered as soon as the frame with the last of its results is on the disk; the loop waits for none of them.
    fn run_ahead(&mut self, batch: Batch) {
        self.status.ran_ahead.fetch_add(1, Ordering::Relaxed);
        let Batch { mut asked, fresh, .. } = batch;
        let (kinds, places): (Vec<_>, Vec<_>) = fresh.into_iter().map(|(kind, door, place)| ((kind, door), place)).unzip();
        let now = self.now();
        self.submit_puts();
        let entries = self.stamp(now, kinds.into_iter());
        let own = entries.len() - places.len();
        let ahead = self.submit_ahead(entries.clone());
        let mut places = std::iter::repeat_n(None, own).chain(places.into_iter().map(Some));
        let mut gone = 0;
        for chunk in chunks(&entries) {
            let (answers, out) = self.apply_journalled(chunk);
            for (answer, place) in answers.into_iter().zip(&mut places) {
                if let Some((whose, which)) = place {
                    asked[whose - gone].1[which] = Some(answer);
                }
            }
            let known = asked.iter().take_while(|(_, answers)| answers.iter().all(Option::is_some)).count();
            gone += known;
            self.submit(Vec::new(), out, answer_behind(asked.drain(..known).collect(), &ahead));
        }
        self.notice_limit();
    }

    /// Journals entries whose results follow in other frames.
    fn submit_ahead(&mut self, entries: Vec<Entry>) -> Ahead {
        let ahead = Ahead::default();
        let told = Arc::clone(&ahead);
        self.submit(entries, None, move |durable| {
            let _ = told.set(durable.map_err(refused));
        });
        ahead
    }

    /// Applies entries that went ahead. What comes of them is yet to be journalled, unless the engine broke on one of them.
    fn apply_journalled(&mut self, entries: &[Entry]) -> (Vec<Answer>, Option<Output>) {
        if !self.has_failed() {
            let mut out = Output::default();
            if let Ok(answers) = self.apply_all(entries, &mut out) {
                return (answers, Some(out));
            }
            // What stands before them must have its results first, and only what is journalled can be put aside.
            self.writer.drain();
            if !self.has_failed() {
                self.reload();
            }
        }
        (entries.iter().map(|entry| self.apply_alone(entry)).collect(), None)
    }

    /// Gives what came its place and time. A wall clock that was set is an entry of its own before it.
    fn stamp(&mut self, now: Reading, kinds: impl Iterator<Item = (EntryKind, Door)>) -> Vec<Entry> {
        let step = self.clock.take_step().map(|micros| {
            tracing::warn!(seconds = micros / 1_000_000, "the wall clock was set");
            (EntryKind::ClockStep { micros }, own::door())
        });
        let first = self.writer.next_position();
        step.into_iter()
            .chain(kinds)
            .zip(0..)
            .map(|((kind, door), n)| Entry { position: first.plus(n), at: now.at, wall: now.wall, door, kind })
            .collect()
    }

    /// Applies entries; if the engine breaks, it is to be thrown away.
    fn apply_all(&mut self, entries: &[Entry], out: &mut Output) -> Result<Vec<Answer>, Broken> {
        let engine = &mut self.engine;
        let applied =
            catch_unwind(AssertUnwindSafe(|| entries.iter().map(|entry| apply_one(engine, entry, out)).collect::<Vec<_>>()));
        match applied {
            Ok(answers) => {
                self.status.applied.fetch_add(entries.len() as u64, Ordering::Relaxed);
                let unknown = out.changes().iter().filter(|change| is_uncatalogued_raise(change)).count();
                self.status.uncatalogued.fetch_add(unknown as u64, Ordering::Relaxed);
                Ok(answers)
            }
            Err(_) => Err(Broken),
        }
    }

    /// The engine broke on one of `entries`: all of them are journalled, then applied one by one.
    fn apply_apart(&mut self, mut entries: Vec<Entry>, mut asked: Vec<Asked>, places: &[Place]) {
        // What is in flight may fail, and then stands before this.
        self.writer.drain();
        if self.has_failed() {
            return answer(asked, &Err(PublishError::Busy));
        }
        self.reload();
        self.submit_puts();
        let first = self.writer.next_position();
        for (entry, n) in entries.iter_mut().zip(0..) {
            entry.position = first.plus(n);
        }
        let ahead = self.submit_ahead(entries.clone());
        // Only what is journalled can be put aside.
        self.writer.drain();
        let answers: Vec<_> = entries.iter().map(|entry| self.apply_alone(entry)).collect();
        place(&mut asked, places, answers.into_iter().skip(entries.len() - places.len()));
        self.submit(Vec::new(), None, answer_behind(asked, &ahead));
    }

    /// Applies one entry that is journalled. If the engine breaks on it, it is put aside. Once a frame has failed it is left
    /// for [`Self::catch_up`]: what came of it now would not count.
    fn apply_alone(&mut self, entry: &Entry) -> Answer {
        if self.has_failed() {
            return Answer::Accepted { position: entry.position, changes: Vec::new() };
        }
        let mut out = Output::default();
        let engine = &mut self.engine;
        let applied = catch_unwind(AssertUnwindSafe(|| apply_one(engine, entry, &mut out)));
        match applied {
            Ok(answer) => {
                self.status.applied.fetch_add(1, Ordering::Relaxed);
                self.submit(Vec::new(), Some(out), |_| {});
                answer
            }
            Err(payload) => {
                // What stands before it must have its results first.
                self.writer.drain();
                if self.has_failed() {
                    return Answer::Accepted { position: entry.position, changes: Vec::new() };
                }
                let failure = panic_text(&*payload);
                tracing::error!(entry = %entry.position, failure = %failure, "an entry broke the engine and is put aside");
                self.status.quarantined.fetch_add(1, Ordering::Relaxed);
                self.reload();
                let mut out = Output::default();
                let broke = self.engine.quarantine(entry, failure.clone(), &mut out);
                let changes = out.changes().to_vec();
                self.submit(Vec::new(), Some(out), |_| {});
                let text = format!("Entry {} broke the engine: {failure}", entry.position);
                self.untold.push(own::raise(&self.site, OwnAlarm::Quarantine, &text));
                broke.map_or(Answer::Accepted { position: entry.position, changes }, |why| Answer::Rejected(why.into()))
            }
        }
    }

    /// Commits what is kept for followers, before what goes ahead of its results is acknowledged together with it.
    fn submit_puts(&mut self) {
        if !self.puts.is_empty() {
            self.submit(Vec::new(), Some(Output::default()), |_| {});
        }
    }

    fn submit(
        &mut self,
        entries: Vec<Entry>,
        out: Option<Output>,
        done: impl FnOnce(Result<Durable, &AppendError>) + Send + 'static,
    ) {
        let results = out.map(|mut out| {
            let mut results = out.take(&self.engine);
            results.puts.append(&mut self.puts);
            committed(results)
        });
        let failure = Arc::clone(&self.failure);
        let status = Arc::clone(&self.status);
        self.writer.submit(Frame { entries, results }, move |outcome| match outcome {
            Ok(durable) => done(Ok(durable)),
            Err(error) => {
                status.appends_failed.fetch_add(1, Ordering::Relaxed);
                done(Err(&error));
                // The first failure is the cause, those behind it follow from it.
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take_failure(&self) -> Option<AppendError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// If a frame failed, goes back to what was committed.
    fn mend(&mut self) {
        if !self.has_failed() {
            return;
        }
        self.reload();
        self.puts.clear();
        self.is_behind = true;
        let was_full = self.status.disk_full.swap(true, Ordering::Relaxed);
        if let Some(error) = self.take_failure()
            && !was_full
        {
            tracing::error!(error = %error, "nothing can be journalled now; intake is refused until there is room");
        }
    }

    /// Builds the engine anew from what was committed.
    fn reload(&mut self) {
        self.writer.drain();
        self.writer.recover();
        self.engine = load(&self.site, &self.store);
        self.own = own::Told::before(&self.site, &self.engine);
    }

    /// Raises or clears the node's alarms about itself where something has changed.
    fn tell_own(&mut self) {
        let standing = Standing {
            room: self.writer.room(),
            active: self.engine.active_alarms(),
            active_max: self.engine.settings().active_alarms_max,
            heartbeats: self.engine.heartbeats(),
            heartbeats_max: self.engine.settings().heartbeats_max,
            damage: self.store.damage().map(|damage| damage.to_string()),
            is_checked: self.store.is_checked(),
        };
        let kinds = self.own.look(&self.site, &standing);
        self.journal_own(kinds);
    }

    fn notice_limit(&mut self) {
        let settings = self.engine.settings();
        if self.engine.active_alarms() >= settings.active_alarms_max || self.engine.heartbeats() >= settings.heartbeats_max {
            self.tell_own();
        }
    }
}

/// The engine broke and is to be thrown away.
struct Broken;

fn load(site: &Site, store: &Store) -> Engine {
    let state = store.read();
    let records = state.records().map(|(key, record)| (key.clone(), record.clone()));
    let mut engine = Engine::load(site.clone(), state.alarms().cloned(), records, state.cursor().clone());
    // After a restore, what was journalled and has no results yet is numbered anew as well.
    engine.adopt(store.epoch());
    engine
}

fn apply_one(engine: &mut Engine, entry: &Entry, out: &mut Output) -> Answer {
    crate::faults::break_on(entry);
    match engine.apply(entry, out) {
        Disposition::Duplicate => Answer::Duplicate,
        Disposition::NotTaken(why) => Answer::Rejected(Rejection::NotTaken(why)),
        Disposition::Applied | Disposition::TooOld | Disposition::AlarmLimit | Disposition::HeartbeatLimit => {
            Answer::Accepted { position: entry.position, changes: out.own_changes().to_vec() }
        }
    }
}

fn is_uncatalogued_raise(change: &Change) -> bool {
    use klaxon_schemas::change::{ChangeKind, Subject};
    change.kind == ChangeKind::Raised && matches!(&change.subject, Subject::Alarm { alarm, .. } if !alarm.catalogued)
}

fn refused(error: &AppendError) -> PublishError {
    match error {
        AppendError::Full { bytes, .. } => PublishError::DiskFull { free_bytes: 0, needed_bytes: *bytes },
        AppendError::Dropped | AppendError::TooLarge { .. } => PublishError::Busy,
    }
}

/// Puts the answers of what was journalled where they belong.
fn place(asked: &mut [Asked], places: &[Place], answers: impl Iterator<Item = Answer>) {
    for ((whose, which), answer) in places.iter().zip(answers) {
        asked[*whose].1[*which] = Some(answer);
    }
}

fn answer(asked: Vec<Asked>, outcome: &Result<Durable, PublishError>) {
    for (submission, answers) in asked {
        let outcome = outcome.clone().and_then(|durable| {
            let answers: Option<Vec<_>> = answers.into_iter().collect();
            // Each item has its answer, whatever failed; if not, whoever asked must ask again.
            answers.map(|answers| Published { answers, durable }).ok_or(PublishError::Stopping)
        });
        submission.answer(outcome);
    }
}

/// Answers behind the results of entries that went ahead: then they have taken effect. If there was no room for the results, the
/// entries are durable all the same, and take effect as soon as there is room. That is answered without the changes, which have
/// yet to be made.
fn answer_behind(mut asked: Vec<Asked>, ahead: &Ahead) -> impl FnOnce(Result<Durable, &AppendError>) + Send + 'static {
    let ahead = Arc::clone(ahead);
    move |outcome| match outcome {
        Ok(durable) => answer(asked, &Ok(durable)),
        Err(_) => {
            for known in asked.iter_mut().flat_map(|(_, answers)| answers).flatten() {
                if let Answer::Accepted { changes, .. } = known {
                    changes.clear();
                }
            }
            // Frames end in their order, so it is known.
            answer(asked, ahead.get().unwrap_or(&Err(PublishError::Stopping)));
        }
    }
}
