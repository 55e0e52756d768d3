//! The loop of a node whose journal is in a Kafka: what comes in by its doors is produced there, and what followed is copied
//! from there into its own store, from which it answers, also while the brokers are away.
//!
//! ```text
//! doors ─▶ intake ─▶ produced ─▶ acknowledged by the brokers ─▶ answered (an action: when its effect is here)
//! changes, state ─▶ copied, a frame at a time ─▶ the store ─▶ lists, history, streams, receivers
//! ```
//!
//! What followers keep is this node's own and goes to its store alone; what
//! receivers of notifications keep is shared, see [`crate::notifiers`]. It runs on a thread of its own and blocks.

mod read;
mod spool;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use klaxon_correlate::screen_step;
use klaxon_schemas::action::{Action, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::alarm::ChangeNumber;
use klaxon_schemas::change::{Change, Place as ChangePlace, Reason, Subject};
use klaxon_schemas::child::{ChildEvent, ChildFact, ChildKind, NotTaken, Relay, RelayContent, site_of};
use klaxon_schemas::entry::EntryKind;
use klaxon_schemas::ids::{ActionId, AlarmId, Position, Seq};
use klaxon_schemas::names::{ChildName, Door, Site};
use klaxon_schemas::state::{Copied, Cursor, StateKey, StateRecord};
use klaxon_store::kafka::{
    Cluster, ClusterError, Copy, Events, KafkaError, Mark, Place, Record, StateFact, Unread, is_full, partition_of,
};
use klaxon_store::publish::{Answer, Intake, Item, Next, PublishError, Published, Publisher, Rejection, Submission};
use klaxon_store::{AppendError, CloseError, Durable, Frame, Results, Store, Writer};
use tokio_util::sync::CancellationToken;

use crate::follow::Control;
use crate::held::Held;
use crate::notifiers::{Back, Keeper};
use crate::topics::Topics;
use read::read;
use spool::Spool;

/// The most records that are copied in one frame.
const FRAME_RECORDS_MAX: usize = 1_000;
/// The most such batches that wait to be copied.
const BATCHES_MAX: usize = 8;
/// How long records are gathered once one has come.
const GATHER_WAIT: Duration = Duration::from_millis(10);
/// How long the loop sleeps at most.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How long a state that is ahead of the changes waits for them: retention may have dropped them.
const CHANGES_WAIT: Duration = Duration::from_secs(1);
/// How long whoever acts waits until the effect is here.
const ACTION_WAIT: Duration = Duration::from_secs(5);
/// How long is waited for the effect of what a node below sent: the correlator of its partition may be gone, and another one takes
/// that over.
const CHILD_WAIT: Duration = Duration::from_secs(25);
/// How long the loop waits after a full disk before it tries anew.
const FULL_WAIT: Duration = Duration::from_millis(200);

/// What a replica tells of itself.
#[derive(Debug, Default)]
pub struct ReplicaStatus {
    /// Records copied.
    pub copied: AtomicU64,
    /// Records that cannot be read.
    pub unread: AtomicU64,
    /// Entries produced and acknowledged.
    pub produced: AtomicU64,
    /// How many partitions are not copied any more: a newer program wrote what comes next there.
    pub left_alone: AtomicU64,
}

/// What a replica is made of.
pub struct Parts {
    /// The Kafka.
    pub cluster: Cluster,
    /// The centre's own site.
    pub site: Site,
    /// Whether reports that come in while the brokers are away are kept until they are back.
    pub spool: bool,
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
    /// What receivers keep goes there first, if this node is one of the notifiers.
    pub keeper: Option<Keeper>,
    /// What it tells.
    pub status: Arc<ReplicaStatus>,
    /// Whether the topics are as they must be.
    pub topics: Topics,
    /// Ends it.
    pub stop: CancellationToken,
}

/// A submission whose items are on their way to the brokers.
struct Asked {
    submission: Option<Submission>,
    answers: Vec<Option<Answer>>,
    left: usize,
    failure: Option<PublishError>,
    /// What is answered when its effect is here, and which item it was.
    awaited: Vec<(usize, Awaited)>,
    /// Behind which records that is.
    places: BTreeMap<u16, i64>,
}

/// What is answered when its effect is here: whoever sent it goes by that.
enum Awaited {
    /// An action.
    Action(ActionId),
    /// A step of a node below.
    Step(Arc<Relay>),
    /// What became of a node below.
    Fact(ChildName),
}

impl Awaited {
    /// The node below that it is about.
    fn child(&self) -> Option<&ChildName> {
        match self {
            Self::Action(_) => None,
            Self::Step(relay) => Some(&relay.child),
            Self::Fact(child) => Some(child),
        }
    }
}

/// What the brokers have, and whose effect is not here yet.
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
    /// A newer program wrote what comes next: it is for that one.
    is_newer: bool,
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
    keeper: Option<Keeper>,
    events: Arc<Events>,
    records: mpsc::Receiver<Vec<Record>>,
    landed: (mpsc::Sender<Asked>, mpsc::Receiver<Asked>),
    partitions: BTreeMap<u16, Partition>,
    waiting: Vec<Waiting>,
    spool: Spool,
    /// Of which nodes below how many steps and facts are on their way.
    moving: BTreeMap<ChildName, usize>,
    failure: Arc<Mutex<Option<AppendError>>>,
    status: Arc<ReplicaStatus>,
    topics: Topics,
    cursor: Cursor,
}

impl Replica {
    /// Goes on from what the store has.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn start(parts: Parts) -> Result<Self, ClusterError> {
        let Parts { cluster, site, spool, store, writer, intake, control, held, wake, keeper, status, topics, stop } = parts;
        let events = Arc::new(Events::new(&cluster)?);
        let copied = copied(&store);
        let copy = Copy::start(&cluster, &copied)?;
        let (sender, records) = mpsc::sync_channel(BATCHES_MAX);
        store.is_copy(false);
        let (waker, told, checked) = (wake.clone(), store.clone(), topics.clone());
        std::thread::Builder::new()
            .name("copy".to_owned())
            .spawn(move || {
                // Until then the brokers count as away, and nothing is sent there.
                if checked.are_good(&stop) {
                    read(&copy, &sender, &waker, &told, &stop);
                }
            })
            .expect("a thread can be had at the start");
        let partitions = (0..cluster.partitions)
            .map(|number| {
                (number, Partition { copied: copied.get(&number).copied().unwrap_or_default(), ..Partition::default() })
            })
            .collect();
        let cursor = Cursor { epoch: store.epoch(), ..store.read().cursor().clone() };
        let spool = Spool::of(&store, spool);
        let (landed, waiting, moving, failure) = (mpsc::channel(), Vec::new(), BTreeMap::new(), Arc::default());
        Ok(Self {
            site,
            store,
            writer,
            intake,
            control,
            held,
            wake,
            keeper,
            events,
            records,
            landed,
            partitions,
            waiting,
            spool,
            moving,
            failure,
            status,
            topics,
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
            self.send_spool();
            self.take_back();
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
    fn serve(&mut self, submission: Submission) {
        let left = match &self.keeper {
            Some(keeper) => keeper.take(submission, &self.store),
            None => Some(submission),
        };
        let Some(mut submission) = left else { return };
        let is_away = self.store.original().is_some_and(|original| original.reached_since.is_none());
        // What agents relay they keep themselves.
        let is_report = |item: &Item| matches!(item, Item::Event(event) if event.origin.relay.is_none());
        if self.spool.takes(is_away) && submission.items.iter().all(is_report) {
            return self.spool_in(submission);
        }
        if is_away && !submission.items.iter().all(|item| matches!(item, Item::Keep(_))) {
            // The client would hold it for as long as it takes; whoever sends it can do that better.
            let reason = self.topics.amiss().unwrap_or_else(|| "no broker answers".to_owned());
            return submission.answer(Err(PublishError::Away { reason }));
        }
        let (items, door) = (std::mem::take(&mut submission.items), submission.door.clone());
        let mut answers: Vec<Option<Answer>> = vec![None; items.len()];
        let (mut sends, mut puts, mut awaited) = (Vec::new(), Vec::new(), Vec::new());
        for (number, item) in items.into_iter().enumerate() {
            match item {
                Item::Event(event) => sends.push((number, Place::OfItsSite, EntryKind::Event(event))),
                Item::Relay(relay) => match self.screen(&relay) {
                    Some(answer) => answers[number] = Some(answer),
                    None => {
                        *self.moving.entry(relay.child.clone()).or_default() += 1;
                        awaited.push((number, Awaited::Step(Arc::clone(&relay))));
                        sends.push((number, Place::OfItsSite, EntryKind::Relay(relay)));
                    }
                },
                Item::Child(fact) => {
                    *self.moving.entry(fact.child.clone()).or_default() += 1;
                    awaited.push((number, Awaited::Fact(fact.child.clone())));
                    sends.push((number, self.place(&fact), EntryKind::Child(fact)));
                }
                Item::Action(action) => {
                    awaited.push((number, Awaited::Action(action.id)));
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
            Asked { submission: Some(submission), answers, left: sends.len(), failure: None, awaited, places: BTreeMap::new() };
        self.send(&door, asked, sends);
    }

    /// Keeps reports until the brokers have them.
    fn spool_in(&mut self, mut submission: Submission) {
        let (first, epoch) = (self.writer.next_position(), self.store.epoch());
        let events = std::mem::take(&mut submission.items).into_iter().filter_map(|item| match item {
            Item::Event(event) => Some(event),
            _ => None,
        });
        let entries: Vec<_> =
            events.zip(0..).map(|(event, n)| self.spool.keep(first.plus(n), epoch, submission.door.clone(), &event)).collect();
        let answers =
            entries.iter().map(|entry| Some(Answer::Accepted { position: entry.position, changes: Vec::new() })).collect();
        self.submit(Frame { entries, results: None }, submission, answers);
    }

    /// What is to be said of a step before it is sent, as far as is known here. What comes behind one that is on its way is judged
    /// by where that leads.
    fn screen(&self, relay: &Relay) -> Option<Answer> {
        if self.moving.contains_key(&relay.child) {
            return None;
        }
        match self.judge(relay) {
            Ok(true) => None,
            Ok(false) => Some(Answer::Duplicate),
            Err(why) => Some(Answer::Rejected(Rejection::NotTaken(why))),
        }
    }

    /// Whether a step is new by what is known here.
    fn judge(&self, relay: &Relay) -> Result<bool, NotTaken> {
        let read = self.store.read();
        let state = read.state();
        let is_pending = |id: &ActionId| state.pending(&relay.child).any(|(pending, _)| pending == id);
        screen_step(state.children().get(&relay.child), is_pending, relay)
    }

    /// What became of a step whose effect must be here: one that is still new was not taken.
    fn verdict(&self, relay: &Relay) -> Option<Answer> {
        let not_taken = |why| Some(Answer::Rejected(Rejection::NotTaken(why)));
        match (self.judge(relay), &relay.content) {
            (Err(why), RelayContent::Alignment { .. } | RelayContent::Aligned { .. }) => not_taken(why),
            // What is missing may be another stretch by now.
            (Err(_), _) | (Ok(false), _) => None,
            // They may come again and again.
            (Ok(true), RelayContent::Alignment { .. } | RelayContent::Aligned { .. } | RelayContent::Acted { .. }) => None,
            (Ok(true), _) => not_taken(NotTaken::Broke { child: relay.child.clone() }),
        }
    }

    /// Keeps what a follower wants kept, and answers when it is on the disk.
    fn keep(&mut self, submission: Submission, answers: Vec<Option<Answer>>, puts: Vec<(StateKey, Option<StateRecord>)>) {
        let results = (!puts.is_empty()).then(|| Results { puts, cursor: self.cursor(), ..Results::default() });
        self.submit(Frame { entries: Vec::new(), results }, submission, answers);
    }

    /// Answers when a frame is on the disk.
    fn submit(&mut self, frame: Frame, submission: Submission, answers: Vec<Option<Answer>>) {
        let failure = Arc::clone(&self.failure);
        self.writer.submit(frame, move |durable| match durable {
            Ok(durable) => submission.answer(Ok(published(answers, durable))),
            Err(error) => {
                submission.answer(Err(PublishError::Busy));
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
    }

    /// What the notifiers have kept, or found there, is kept here as well.
    fn take_back(&mut self) {
        let all: Vec<Back> = self.keeper.as_ref().map(|keeper| keeper.back.try_iter().collect()).unwrap_or_default();
        for back in all {
            match back {
                Back::Kept(submission, puts) => {
                    let position = self.writer.next_position();
                    self.keep(submission, vec![Some(Answer::Accepted { position, changes: Vec::new() })], puts);
                }
                Back::Found { puts, done } => {
                    let results = Results { puts, cursor: self.cursor(), ..Results::default() };
                    let frame = Frame { entries: Vec::new(), results: Some(results) };
                    self.writer.submit(frame, move |durable| {
                        // Whoever asked may be gone.
                        let _ = done.send(durable.is_ok());
                    });
                }
            }
        }
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
                        let position = Position(u64::try_from(offset).unwrap_or(0) + 1);
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
            let partition = state.alarm(target.id).map_or(0, |alarm| self.partition(alarm));
            by_partition.entry(partition).or_default().push(*target);
        }
        let of = |targets| Arc::new(Action { verb: Verb::OnAlarms(targets, verb.clone()), ..Action::clone(action) });
        by_partition.into_iter().map(|(partition, targets)| (partition, of(targets))).collect()
    }

    /// What is mirrored is where the node is through which it comes.
    fn partition(&self, alarm: &Alarm) -> u16 {
        let through = alarm.via.as_ref().filter(|_| alarm.owner.is_some());
        self.partition_of(&through.map_or_else(|| alarm.key.site.clone(), site_of))
    }

    fn partition_of(&self, site: &Site) -> u16 {
        partition_of(site.as_bytes(), self.events.partitions())
    }

    /// An agent is where the alarms are that it reports.
    fn place(&self, fact: &ChildFact) -> Place {
        let kind = match &fact.what {
            ChildEvent::Enrolled { kind, .. } => Some(*kind),
            _ => self.store.read().state().children().get(&fact.child).map(|child| child.kind),
        };
        match kind {
            Some(ChildKind::Agent) => Place::Partition(self.partition_of(&self.site)),
            _ => Place::OfItsSite,
        }
    }

    fn answer_landed(&mut self) {
        let landed: Vec<Asked> = self.landed.1.try_iter().collect();
        for mut asked in landed {
            if let Some(failure) = asked.failure.take() {
                self.refuse(asked, failure);
            } else if asked.awaited.is_empty() {
                self.answer(asked);
            } else {
                let changes = BTreeMap::new();
                let is_of_child = asked.awaited.iter().any(|(_, awaited)| awaited.child().is_some());
                let until = Instant::now() + if is_of_child { CHILD_WAIT } else { ACTION_WAIT };
                self.waiting.push(Waiting { asked, until, changes });
            }
        }
        let (now, partitions) = (Instant::now(), &self.partitions);
        let is_here = |one: &Waiting| {
            let is_copied = |place: (&u16, &i64)| partitions.get(place.0).is_some_and(|one| one.copied.next >= *place.1);
            one.asked.places.iter().all(is_copied)
        };
        let done: Vec<(Waiting, bool)> = self
            .waiting
            .extract_if(.., |one| one.until <= now || is_here(one))
            .map(|one| {
                let is_here = is_here(&one);
                (one, is_here)
            })
            .collect();
        if !done.is_empty() {
            // They are answered by what the store says.
            self.writer.drain();
        }
        for (waiting, is_here) in done {
            self.answer_awaited(waiting, is_here);
        }
    }

    fn answer_awaited(&mut self, waiting: Waiting, is_here: bool) {
        let Waiting { mut asked, mut changes, .. } = waiting;
        let is_of_child = asked.awaited.iter().any(|(_, awaited)| awaited.child().is_some());
        if !is_here && is_of_child {
            // What was sent is on its way all the same; it comes again and is known then.
            return self.refuse(asked, PublishError::Busy);
        }
        for (number, awaited) in &asked.awaited {
            let answer = match awaited {
                Awaited::Action(id) => {
                    if let Some(Answer::Accepted { changes: told, .. }) = &mut asked.answers[*number] {
                        *told = changes.remove(id).unwrap_or_default();
                    }
                    None
                }
                Awaited::Step(relay) => self.verdict(relay),
                Awaited::Fact(_) => None,
            };
            if let Some(answer) = answer {
                asked.answers[*number] = Some(answer);
            }
        }
        self.stand(&asked);
        self.answer(asked);
    }

    fn refuse(&mut self, mut asked: Asked, failure: PublishError) {
        self.stand(&asked);
        if let Some(submission) = asked.submission.take() {
            submission.answer(Err(failure));
        }
    }

    /// Nothing of it is on its way any more.
    fn stand(&mut self, asked: &Asked) {
        for child in asked.awaited.iter().filter_map(|(_, awaited)| awaited.child()) {
            if let Some(count) = self.moving.get_mut(child) {
                *count -= 1;
                if *count == 0 {
                    self.moving.remove(child);
                }
            }
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
        let (Record::Change { partition, .. } | Record::State { partition, .. }) = record;
        if self.partitions.get(&partition).is_some_and(|one| one.is_newer) {
            return;
        }
        self.status.copied.fetch_add(1, Ordering::Relaxed);
        match record {
            Record::Change { partition, next, change: Err(error @ Unread::Newer { .. }) }
            | Record::State { partition, next, fact: Err(error @ Unread::Newer { .. }) } => self.leave(partition, next, &error),
            Record::Change { partition, next, change } => {
                let one = self.partitions.entry(partition).or_default();
                let from = std::mem::replace(&mut one.copied.changes, next);
                match change {
                    Ok(mut change) => {
                        Arc::make_mut(&mut change).place = Some(ChangePlace { partition, from, next });
                        if change.site == self.site {
                            one.last = change.number;
                        }
                        for waiting in &mut self.waiting {
                            for (_, awaited) in &waiting.asked.awaited {
                                if let Awaited::Action(id) = awaited
                                    && change.reasons.contains(&Reason::Action(*id))
                                {
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

    /// Copies no more of a partition: that is for a newer program, which goes on here.
    fn leave(&mut self, partition: u16, next: i64, error: &Unread) {
        self.partitions.entry(partition).or_default().is_newer = true;
        self.status.left_alone.fetch_add(1, Ordering::Relaxed);
        let offset = next - 1;
        tracing::error!(partition, offset, %error, "what stands in a partition is shown as it is now; this node is to be brought up to date");
    }

    fn unread(&self, partition: u16, next: i64, what: &str, error: &Unread) {
        self.status.unread.fetch_add(1, Ordering::Relaxed);
        tracing::error!(partition, offset = next - 1, %error, "a {what} cannot be read and is passed over");
    }

    /// One frame of the changes, and of what of the state is about changes that are here.
    fn copy(&mut self, changes: Vec<Arc<Change>>) {
        let mut results = Results { changes, ..Results::default() };
        let mut here: BTreeMap<AlarmId, ChangeNumber> = results.changes.iter().filter_map(|change| alarm_of(change)).collect();
        let (mut whole, mut touched, mut moved) = (BTreeMap::new(), BTreeMap::new(), false);
        // What is compared with must have all that was copied before.
        self.writer.drain();
        let state = self.store.read();
        for one in self.partitions.values_mut() {
            while let Some(told) = one.told.front() {
                let cursor = &told.mark.cursor;
                let wanted = ChangeNumber { epoch: cursor.epoch, seq: cursor.last_seq };
                let is_here = one.last >= wanted || cursor.last_seq == Seq(0) || told.came.elapsed() >= CHANGES_WAIT;
                if !is_here || whole.len() + touched.len() + results.puts.len() >= FRAME_RECORDS_MAX {
                    break;
                }
                let Some(told) = one.told.pop_front() else { break };
                one.copied = Copied { state: told.next, next: told.mark.read.next, at: told.mark.cursor.at, ..one.copied };
                self.cursor.at = self.cursor.at.max(told.mark.cursor.at);
                self.cursor.wall = self.cursor.wall.max(told.mark.cursor.wall);
                self.cursor.started_at = self.cursor.started_at.max(told.mark.cursor.started_at);
                if told.mark.cursor.catalogue.is_some() {
                    self.cursor.catalogue = told.mark.cursor.catalogue;
                }
                for fact in told.facts {
                    match fact {
                        StateFact::Alarm(id, Some(alarm)) => {
                            let known = here.get(&id).copied().or_else(|| state.alarm(id).map(|alarm| alarm.last_change));
                            if known > Some(alarm.last_change) {
                                continue;
                            }
                            here.insert(id, alarm.last_change);
                            if known == Some(alarm.last_change) && !whole.contains_key(&id) {
                                touched.insert(id, Arc::new(*alarm));
                            } else {
                                // The change that led there is in the history of others only.
                                touched.remove(&id);
                                whole.insert(id, Arc::new(*alarm));
                            }
                        }
                        StateFact::Put(key, record) if is_shown(&key) => results.puts.push((key, record)),
                        _ => {}
                    }
                }
                moved = true;
            }
        }
        drop(state);
        if results.changes.is_empty() && !moved {
            return;
        }
        (results.alarms, results.touched) = (whole.into_values().collect(), touched.into_values().collect());
        let copied =
            self.partitions.iter().map(|(number, one)| (StateKey::Partition(*number), Some(StateRecord::Copied(one.copied))));
        results.puts.extend(copied);
        self.cursor.mirrored += results.changes.len() as u64;
        results.cursor = self.cursor();
        self.commit(results);
    }

    fn send_spool(&mut self) {
        match self.spool.send(&self.store, &self.events, &self.wake) {
            Ok(true) => self.commit(Results { cursor: self.cursor(), ..Results::default() }),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "what was kept for the brokers cannot be read"),
        }
    }

    /// As a frame has it that is written now.
    fn cursor(&self) -> Cursor {
        let applied = self.spool.done().unwrap_or_else(|| self.writer.next_position());
        Cursor { applied, ..self.cursor.clone() }
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

/// The alarm that a change is about, and the change that it is as of.
fn alarm_of(change: &Change) -> Option<(AlarmId, ChangeNumber)> {
    match &change.subject {
        Subject::Alarm { alarm, .. } if !change.past => Some((alarm.id, alarm.last_change)),
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
