//! The loop of a node whose journal is in a Kafka: what comes in by its doors is produced there, and what followed is copied
//! from there into its own store, from which it answers, also while the brokers are away.
//!
//! ```text
//! doors ─▶ intake ─▶ produced ─▶ acknowledged by the brokers ─▶ answered (an action: when its effect is here)
//! changes, state ─▶ copied, a frame at a time ─▶ the store ─▶ lists, history, streams, receivers
//! ```
//!
//! What followers keep is this node's own and goes to its store alone. It runs on a thread of its own and blocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use klaxon_schemas::action::{Action, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::alarm::ChangeNumber;
use klaxon_schemas::change::{Change, Reason, Subject};
use klaxon_schemas::child::site_of;
use klaxon_schemas::entry::EntryKind;
use klaxon_schemas::ids::{ActionId, AlarmId, Seq};
use klaxon_schemas::names::{Door, Site};
use klaxon_schemas::state::{Copied, Cursor, StateKey, StateRecord};
use klaxon_store::kafka::{
    Cluster, ClusterError, Copy, Copying, Events, KafkaError, Mark, Place, Record, StateFact, is_full, partition_of,
};
use klaxon_store::publish::{Answer, Intake, Item, Next, PublishError, Published, Publisher, Submission};
use klaxon_store::{AppendError, CloseError, Durable, Frame, Results, Store, Writer};
use tokio_util::sync::CancellationToken;

use crate::follow::Control;
use crate::held::Held;

/// The most records that are copied in one frame.
const FRAME_RECORDS_MAX: usize = 1_000;
/// The most such batches that wait to be copied.
const BATCHES_MAX: usize = 8;
/// How long records are gathered once one has come.
const GATHER_WAIT: Duration = Duration::from_millis(10);
/// How long is waited for the next record before it is looked whether to stop.
const POLL_WAIT: Duration = Duration::from_millis(200);
/// How long the loop sleeps at most.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How long a state that is ahead of the changes waits for them: retention may have dropped them.
const CHANGES_WAIT: Duration = Duration::from_secs(1);
/// How long whoever acts waits until the effect is here.
const EFFECT_WAIT: Duration = Duration::from_secs(5);
/// How long the loop waits after a full disk before it tries anew.
const FULL_WAIT: Duration = Duration::from_millis(200);

/// What a replica tells of itself.
#[derive(Debug, Default)]
pub struct ReplicaStatus {
    /// The brokers do not answer.
    pub is_away: AtomicBool,
    /// Records copied.
    pub copied: AtomicU64,
    /// Records that cannot be read.
    pub unread: AtomicU64,
    /// Entries produced and acknowledged.
    pub produced: AtomicU64,
}

/// What a replica is made of.
pub struct Parts {
    /// The Kafka.
    pub cluster: Cluster,
    /// The centre's own site.
    pub site: Site,
    /// The store.
    pub store: Store,
    /// Its one writer.
    pub writer: Writer,
    /// What comes in.
    pub intake: Intake,
    /// What is asked of it.
    pub control: mpsc::Receiver<Control>,
    /// What the engines are held to.
    pub held: Arc<Held>,
    /// Wakes the loop.
    pub wake: Publisher,
    /// What it tells.
    pub status: Arc<ReplicaStatus>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// A submission whose items are on their way to the brokers.
struct Asked {
    submission: Option<Submission>,
    answers: Vec<Option<Answer>>,
    left: usize,
    failure: Option<PublishError>,
    /// Actions, and behind which records their effect is.
    actions: Vec<(usize, ActionId)>,
    places: BTreeMap<u16, i64>,
}

/// Actions that the brokers have, and whose effect is not here yet.
struct Waiting {
    asked: Asked,
    until: Instant,
    changes: BTreeMap<ActionId, Vec<Arc<Change>>>,
}

/// A transaction's part of the state.
struct Told {
    mark: Mark,
    facts: Vec<StateFact>,
    next: i64,
    came: Instant,
}

/// What is known of a partition.
#[derive(Default)]
struct Partition {
    copied: Copied,
    /// The number of the last change of the centre that was copied since the start.
    last: ChangeNumber,
    /// Facts of a transaction whose mark has not come yet.
    open: Vec<StateFact>,
    /// Transactions that wait for the changes that they are about.
    told: VecDeque<Told>,
}

/// The loop, ready to run.
pub struct Replica {
    site: Site,
    store: Store,
    writer: Writer,
    intake: Intake,
    control: mpsc::Receiver<Control>,
    held: Arc<Held>,
    wake: Publisher,
    events: Arc<Events>,
    records: mpsc::Receiver<Vec<Record>>,
    landed: (mpsc::Sender<Asked>, mpsc::Receiver<Asked>),
    partitions: BTreeMap<u16, Partition>,
    waiting: Vec<Waiting>,
    failure: Arc<Mutex<Option<AppendError>>>,
    status: Arc<ReplicaStatus>,
    cursor: Cursor,
}

impl Replica {
    /// Goes on from what the store has.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn start(parts: Parts) -> Result<Self, ClusterError> {
        let Parts { cluster, site, store, writer, intake, control, held, wake, status, stop } = parts;
        let events = Arc::new(Events::new(&cluster)?);
        let copied = copied(&store);
        let copy = Copy::start(&cluster, &copied)?;
        let (sender, records) = mpsc::sync_channel(BATCHES_MAX);
        let (waker, told) = (wake.clone(), Arc::clone(&status));
        std::thread::Builder::new()
            .name("copy".to_owned())
            .spawn(move || read(&copy, &sender, &waker, &told, &stop))
            .expect("a thread can be had at the start");
        let partitions = (0..cluster.partitions)
            .map(|number| {
                (number, Partition { copied: copied.get(&number).copied().unwrap_or_default(), ..Partition::default() })
            })
            .collect();
        let cursor = Cursor { epoch: store.epoch(), ..store.read().cursor().clone() };
        let (landed, waiting, failure) = (mpsc::channel(), Vec::new(), Arc::default());
        Ok(Self {
            site,
            store,
            writer,
            intake,
            control,
            held,
            wake,
            events,
            records,
            landed,
            partitions,
            waiting,
            failure,
            status,
            cursor,
        })
    }

    /// Runs until no door is left, then closes the store.
    ///
    /// # Errors
    /// The store did not close cleanly.
    pub fn run(mut self) -> Result<(), CloseError> {
        loop {
            let wait = if self.waiting.is_empty() { IDLE_WAIT } else { GATHER_WAIT };
            match self.intake.next(Some(wait)) {
                Next::Submission(submission) => self.serve(submission),
                Next::Nothing => {}
                Next::Ended => break,
            }
            self.obey();
            self.mend();
            self.take_in();
            self.answer_landed();
            self.writer.maintain();
        }
        self.events.flush();
        self.answer_landed();
        self.writer.drain();
        self.writer.close()
    }

    /// Does what was asked of the loop.
    fn obey(&mut self) {
        for control in self.control.try_iter() {
            match control {
                Control::Settings(settings) => self.held.set(Some(settings), None),
                Control::Catalogue(catalogue) => self.held.set(None, Some(catalogue)),
                Control::Retention(retention) => self.writer.set_retention(retention),
                // The numberings are those of the partitions, and have no node above. Whoever asks finds nobody.
                Control::NewEpoch(_, told) => drop(told),
            }
        }
    }

    /// Sends the items of a submission to the brokers. What followers keep stays here.
    fn serve(&mut self, mut submission: Submission) {
        let (items, door) = (std::mem::take(&mut submission.items), submission.door.clone());
        let mut answers: Vec<Option<Answer>> = vec![None; items.len()];
        let (mut sends, mut puts, mut actions) = (Vec::new(), Vec::new(), Vec::new());
        for (number, item) in items.into_iter().enumerate() {
            match item {
                Item::Event(event) => sends.push((number, Place::OfItsSite, EntryKind::Event(event))),
                Item::Relay(relay) => sends.push((number, Place::OfItsSite, EntryKind::Relay(relay))),
                Item::Child(fact) => sends.push((number, Place::OfItsSite, EntryKind::Child(fact))),
                Item::Action(action) => {
                    actions.push((number, action.id));
                    for (partition, action) in self.places(&action) {
                        sends.push((number, Place::Partition(partition), EntryKind::Action(action)));
                    }
                }
                Item::Keep(keep) => {
                    puts.extend(keep.puts());
                    answers[number] = Some(Answer::Accepted { position: self.writer.next_position(), changes: Vec::new() });
                }
            }
        }
        if sends.is_empty() {
            return self.keep(submission, answers, puts);
        }
        if !puts.is_empty() {
            self.commit(Results { puts, cursor: self.cursor(), ..Results::default() });
        }
        let asked =
            Asked { submission: Some(submission), answers, left: sends.len(), failure: None, actions, places: BTreeMap::new() };
        self.send(&door, asked, sends);
    }

    /// Keeps what a follower wants kept, and answers when it is on the disk.
    fn keep(&mut self, submission: Submission, answers: Vec<Option<Answer>>, puts: Vec<(StateKey, Option<StateRecord>)>) {
        let results = (!puts.is_empty()).then(|| Results { puts, cursor: self.cursor(), ..Results::default() });
        let failure = Arc::clone(&self.failure);
        self.writer.submit(Frame { entries: Vec::new(), results }, move |durable| match durable {
            Ok(durable) => submission.answer(Ok(published(answers, durable))),
            Err(error) => {
                submission.answer(Err(PublishError::Busy));
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
    }

    fn send(&self, door: &Door, asked: Asked, sends: Vec<(usize, Place, EntryKind)>) {
        let shared = Arc::new(Mutex::new(Some(asked)));
        for (number, place, kind) in sends {
            let (shared, landed, wake) = (Arc::clone(&shared), self.landed.0.clone(), self.wake.clone());
            let status = Arc::clone(&self.status);
            self.events.send(place, door, kind, move |sent| {
                let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(asked) = held.as_mut() else { return };
                asked.left -= 1;
                match sent {
                    Ok((partition, offset)) => {
                        status.produced.fetch_add(1, Ordering::Relaxed);
                        let reached = asked.places.entry(partition).or_default();
                        *reached = (*reached).max(offset + 1);
                        let position = klaxon_schemas::ids::Position(u64::try_from(offset).unwrap_or(0) + 1);
                        asked.answers[number] = Some(Answer::Accepted { position, changes: Vec::new() });
                    }
                    Err(error) => asked.failure = Some(refusal(&error)),
                }
                if asked.left == 0
                    && let Some(asked) = held.take()
                {
                    // The loop may have ended: then nobody waits for an answer.
                    let _ = landed.send(asked);
                    wake.wake();
                }
            });
        }
    }

    /// To which partitions an action goes: where its alarms are, or to all of them.
    fn places(&self, action: &Arc<Action>) -> Vec<(u16, Arc<Action>)> {
        let all = || (0..self.events.partitions()).map(|partition| (partition, Arc::clone(action))).collect();
        let Verb::OnAlarms(targets, verb) = &action.verb else { return all() };
        let state = self.store.read();
        let mut by_partition: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for target in targets {
            // One that is not known anywhere is refused where it would be found first.
            let partition = state.alarm(target.id).map_or(0, |alarm| self.partition(&alarm));
            by_partition.entry(partition).or_default().push(*target);
        }
        let of = |targets| Arc::new(Action { verb: Verb::OnAlarms(targets, verb.clone()), ..Action::clone(action) });
        by_partition.into_iter().map(|(partition, targets)| (partition, of(targets))).collect()
    }

    /// What is mirrored is where the node is through which it comes.
    fn partition(&self, alarm: &Alarm) -> u16 {
        let site = alarm.via.as_ref().map_or_else(|| alarm.key.site.clone(), site_of);
        partition_of(site.as_bytes(), self.events.partitions())
    }

    fn answer_landed(&mut self) {
        let landed: Vec<Asked> = self.landed.1.try_iter().collect();
        for mut asked in landed {
            if let Some(failure) = asked.failure.take() {
                if let Some(submission) = asked.submission.take() {
                    submission.answer(Err(failure));
                }
            } else if asked.actions.is_empty() {
                self.answer(asked);
            } else {
                let changes = BTreeMap::new();
                self.waiting.push(Waiting { asked, until: Instant::now() + EFFECT_WAIT, changes });
            }
        }
        let now = Instant::now();
        let is_here = |place: (&u16, &i64)| self.partitions.get(place.0).is_some_and(|one| one.copied.next >= *place.1);
        let done: Vec<Waiting> =
            self.waiting.extract_if(.., |one| one.until <= now || one.asked.places.iter().all(is_here)).collect();
        for Waiting { mut asked, mut changes, .. } in done {
            for (number, id) in &asked.actions {
                if let Some(Answer::Accepted { changes: told, .. }) = &mut asked.answers[*number] {
                    *told = changes.remove(id).unwrap_or_default();
                }
            }
            self.answer(asked);
        }
    }

    /// Answers behind all that was copied by now.
    fn answer(&mut self, mut asked: Asked) {
        let Some(submission) = asked.submission.take() else { return };
        self.writer.submit(Frame::default(), move |durable| {
            submission.answer(durable.map(|durable| published(asked.answers, durable)).map_err(|_| PublishError::Busy));
        });
    }

    /// Copies what has come.
    fn take_in(&mut self) {
        if self.has_failed() {
            return;
        }
        for _ in 0..BATCHES_MAX {
            let Ok(batch) = self.records.try_recv() else { break };
            let mut changes = Vec::new();
            for record in batch {
                self.take(record, &mut changes);
            }
            self.copy(changes);
        }
        self.copy(Vec::new());
    }

    fn take(&mut self, record: Record, changes: &mut Vec<Arc<Change>>) {
        self.status.copied.fetch_add(1, Ordering::Relaxed);
        match record {
            Record::Change { partition, next, change } => {
                let one = self.partitions.entry(partition).or_default();
                one.copied.changes = next;
                match change {
                    Ok(change) => {
                        if change.site == self.site {
                            one.last = change.number;
                        }
                        for waiting in &mut self.waiting {
                            for (_, id) in &waiting.asked.actions {
                                if change.reasons.contains(&Reason::Action(*id)) {
                                    waiting.changes.entry(*id).or_default().push(Arc::clone(&change));
                                }
                            }
                        }
                        changes.push(change);
                    }
                    Err(error) => self.unread(partition, next, "change", &error),
                }
            }
            Record::State { partition, next, fact } => match fact {
                Ok(StateFact::Mark(mark)) => {
                    let one = self.partitions.entry(partition).or_default();
                    let facts = std::mem::take(&mut one.open);
                    one.told.push_back(Told { mark, facts, next, came: Instant::now() });
                }
                Ok(fact) => self.partitions.entry(partition).or_default().open.push(fact),
                Err(error) => self.unread(partition, next, "record of the state", &error),
            },
        }
    }

    fn unread(&self, partition: u16, next: i64, what: &str, error: &klaxon_store::kafka::Unread) {
        self.status.unread.fetch_add(1, Ordering::Relaxed);
        tracing::error!(partition, offset = next - 1, %error, "a {what} cannot be read and is passed over");
    }

    /// One frame of the changes, and of what of the state is about changes that are here.
    fn copy(&mut self, changes: Vec<Arc<Change>>) {
        let mut results = Results { changes, ..Results::default() };
        let mut seen: BTreeSet<AlarmId> = results.changes.iter().filter_map(|change| alarm_of(change)).collect();
        let mut moved = BTreeSet::new();
        // What is compared with must have all that was copied before.
        self.writer.drain();
        let state = self.store.read();
        for (number, one) in &mut self.partitions {
            while let Some(told) = one.told.front() {
                let cursor = &told.mark.cursor;
                let wanted = ChangeNumber { epoch: cursor.epoch, seq: cursor.last_seq };
                let is_here = one.last >= wanted || cursor.last_seq == Seq(0) || told.came.elapsed() >= CHANGES_WAIT;
                if !is_here || results.alarms.len() + results.puts.len() >= FRAME_RECORDS_MAX {
                    break;
                }
                let Some(told) = one.told.pop_front() else { break };
                one.copied = Copied { state: told.next, next: told.mark.next, at: told.mark.cursor.at, ..one.copied };
                self.cursor.at = self.cursor.at.max(told.mark.cursor.at);
                self.cursor.wall = self.cursor.wall.max(told.mark.cursor.wall);
                self.cursor.started_at = self.cursor.started_at.max(told.mark.cursor.started_at);
                if told.mark.cursor.catalogue.is_some() {
                    self.cursor.catalogue = told.mark.cursor.catalogue;
                }
                for fact in told.facts {
                    match fact {
                        StateFact::Alarm(id, Some(alarm)) if !seen.contains(&id) => {
                            let alarm = Arc::new(*alarm);
                            match state.alarm(id) {
                                Some(here) if here.last_change == alarm.last_change => results.touched.push(alarm),
                                Some(_) => continue,
                                None => results.alarms.push(alarm),
                            }
                            seen.insert(id);
                        }
                        StateFact::Put(key, record) if is_shown(&key) => results.puts.push((key, record)),
                        _ => {}
                    }
                }
                moved.insert(*number);
            }
        }
        drop(state);
        if results.changes.is_empty() && moved.is_empty() {
            return;
        }
        let copied =
            self.partitions.iter().map(|(number, one)| (StateKey::Partition(*number), Some(StateRecord::Copied(one.copied))));
        results.puts.extend(copied);
        self.cursor.mirrored += results.changes.len() as u64;
        results.cursor = self.cursor();
        self.commit(results);
    }

    /// As a frame has it that is written now.
    fn cursor(&self) -> Cursor {
        Cursor { applied: self.writer.next_position(), ..self.cursor.clone() }
    }

    fn commit(&mut self, results: Results) {
        let failure = Arc::clone(&self.failure);
        self.writer.submit(Frame { entries: Vec::new(), results: Some(results) }, move |outcome| {
            if let Err(error) = outcome {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// If a frame failed, the node starts anew: what was copied behind it must be read again.
    fn mend(&mut self) {
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tracing::error!(%error, "what comes from the brokers cannot be kept; the node stops");
            std::thread::sleep(FULL_WAIT);
            self.wake.close();
        }
    }
}

fn alarm_of(change: &Change) -> Option<AlarmId> {
    match &change.subject {
        Subject::Alarm { alarm, .. } => Some(alarm.id),
        _ => None,
    }
}

/// Whether anybody looks at such a record: the rest is the engines' own.
fn is_shown(key: &StateKey) -> bool {
    !matches!(key, StateKey::Window(_) | StateKey::EventId(..) | StateKey::Tombstone(_))
}

fn refusal(error: &KafkaError) -> PublishError {
    if is_full(error) { PublishError::Busy } else { PublishError::Away { reason: error.to_string() } }
}

fn published(answers: Vec<Option<Answer>>, durable: Durable) -> Published {
    Published { answers: answers.into_iter().flatten().collect(), durable }
}

/// How far the store has each partition.
fn copied(store: &Store) -> BTreeMap<u16, Copied> {
    let state = store.read();
    let records = state.records().filter_map(|(key, record)| match (key, record) {
        (StateKey::Partition(number), StateRecord::Copied(copied)) => Some((*number, *copied)),
        _ => None,
    });
    records.collect()
}

/// Reads what is to be copied, until nobody takes it any more.
fn read(
    copy: &Copy,
    records: &mpsc::SyncSender<Vec<Record>>,
    wake: &Publisher,
    status: &ReplicaStatus,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        let mut batch = Vec::new();
        let mut until = Instant::now() + POLL_WAIT;
        while batch.len() < FRAME_RECORDS_MAX {
            match copy.poll(until.saturating_duration_since(Instant::now())) {
                Copying::Record(record) => {
                    if batch.is_empty() {
                        until = Instant::now() + GATHER_WAIT;
                    }
                    batch.push(record);
                }
                Copying::Nothing => break,
                Copying::Trouble(error) => {
                    if !status.is_away.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "the brokers do not answer; what is shown is as old as that");
                    }
                }
            }
        }
        if batch.is_empty() {
            continue;
        }
        if status.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the brokers answer again");
        }
        if records.send(batch).is_err() {
            return;
        }
        wake.wake();
    }
}
