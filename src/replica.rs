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
mod source;
mod spool;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use klaxon_correlate::screen_step;
use klaxon_schemas::action::{Action, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Change;
use klaxon_schemas::child::{ChildEvent, ChildFact, ChildKind, NotTaken, Relay, RelayContent, site_of};
use klaxon_schemas::entry::EntryKind;
use klaxon_schemas::ids::{ActionId, Position};
use klaxon_schemas::names::{ChildName, Door, Site};
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};
use klaxon_store::kafka::{Cluster, ClusterError, Events, KafkaError, Place, is_full, partition_of};
use klaxon_store::publish::{Answer, Intake, Item, Next, PublishError, Published, Publisher, Rejection, Submission};
use klaxon_store::{AppendError, CloseError, Durable, Frame, Results, Store, Writer};
use tokio_util::sync::CancellationToken;

use crate::follow::{Control, no_room};
use crate::held::Held;
use crate::notifiers::{Back, Keeper};
use crate::topics::Topics;
use source::Source;
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
/// How long is waited for the effect of an action, and of what a node below sent: the correlator of its partition may be gone, and
/// another one takes that over.
const EFFECT_WAIT: Duration = Duration::from_secs(25);

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

/// An action on its way.
#[derive(Default)]
struct Acted {
    /// How often it was asked for.
    asked: usize,
    /// What of its effect is here, by its place.
    changes: BTreeMap<(u16, i64), Arc<Change>>,
}

/// What the brokers have, and whose effect is not here yet.
struct Waiting {
    asked: Asked,
    until: Instant,
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
    source: Source,
    /// Nothing can be kept now.
    is_full: bool,
    landed: (mpsc::Sender<Asked>, mpsc::Receiver<Asked>),
    waiting: Vec<Waiting>,
    /// The actions on their way, and what of their effect is here.
    acted: BTreeMap<ActionId, Acted>,
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
        let source = Source::start(cluster, topics.clone(), wake.clone(), stop, &store)?;
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
            source,
            is_full: false,
            landed,
            waiting,
            acted: BTreeMap::new(),
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
        let is_kept_here = submission.items.iter().all(|item| matches!(item, Item::Keep(_)));
        if self.is_full && !is_kept_here {
            return submission.answer(Err(no_room(self.writer.room()).unwrap_or(PublishError::Busy)));
        }
        if is_away && !is_kept_here {
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
        for (_, awaited) in &awaited {
            if let Awaited::Action(id) = awaited {
                self.acted.entry(*id).or_default().asked += 1;
            }
        }
        let asked =
            Asked { submission: Some(submission), answers, left: sends.len(), failure: None, awaited, places: BTreeMap::new() };
        self.send(&door, asked, sends);
    }

    /// Keeps reports until the brokers have them.
    fn spool_in(&mut self, mut submission: Submission) {
        if let Some(full) = no_room(self.writer.room()) {
            return submission.answer(Err(full));
        }
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

    /// Answers when a frame is on the disk, and has the loop look up then: a report may be to be sent.
    fn submit(&mut self, frame: Frame, submission: Submission, answers: Vec<Option<Answer>>) {
        let (failure, wake) = (Arc::clone(&self.failure), self.wake.clone());
        self.writer.submit(frame, move |durable| {
            match durable {
                Ok(durable) => submission.answer(Ok(published(answers, durable))),
                Err(error) => {
                    submission.answer(Err(PublishError::Busy));
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
            wake.wake();
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
                    let (frame, failure) = (Frame { entries: Vec::new(), results: Some(results) }, Arc::clone(&self.failure));
                    self.writer.submit(frame, move |durable| {
                        // Whoever asked may be gone.
                        let _ = done.send(durable.is_ok());
                        if let Err(error) = durable {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
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
                self.waiting.push(Waiting { asked, until: Instant::now() + EFFECT_WAIT });
            }
        }
        let (now, partitions) = (Instant::now(), &self.source.partitions);
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
        let mut asked = waiting.asked;
        if !is_here {
            // What was sent is on its way all the same; if it comes again it is known then.
            let is_action = asked.awaited.iter().any(|(_, awaited)| awaited.child().is_none());
            let reason = || "the action is on its way, and no correlator has told what became of it".to_owned();
            let failure = if is_action { PublishError::Away { reason: reason() } } else { PublishError::Busy };
            return self.refuse(asked, failure);
        }
        for (number, awaited) in &asked.awaited {
            let answer = match awaited {
                Awaited::Action(id) => {
                    if let Some(Answer::Accepted { changes: told, .. }) = &mut asked.answers[*number] {
                        *told = self.acted.get(id).map(|acted| acted.changes.values().cloned().collect()).unwrap_or_default();
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
        for (_, awaited) in &asked.awaited {
            if let Awaited::Action(id) = awaited
                && let Some(acted) = self.acted.get_mut(id)
            {
                acted.asked -= 1;
                if acted.asked == 0 {
                    self.acted.remove(id);
                }
            }
        }
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

    /// If a frame failed, what was to be kept from there on is read again as soon as there is room.
    fn mend(&mut self) {
        if let Some(error) = self.take_failure() {
            self.source.end(&self.store);
            self.writer.drain();
            self.take_failure();
            self.writer.recover();
            self.cursor = Cursor { epoch: self.store.epoch(), ..self.store.read().cursor().clone() };
            self.spool.begin_anew(&self.store);
            self.shut(true);
            if !std::mem::replace(&mut self.is_full, true) {
                tracing::error!(%error, "what comes from the brokers cannot be kept; what is shown is as old as this");
            }
        }
        if self.is_full && no_room(self.writer.room()).is_none() {
            match self.source.go_on(&self.store) {
                Ok(()) => {
                    self.is_full = false;
                    self.shut(false);
                    self.status.left_alone.store(0, Ordering::Relaxed);
                    tracing::info!("there is room again; what came meanwhile is copied");
                }
                Err(error) => tracing::warn!(%error, "it cannot be read from the brokers again; it is tried anew"),
            }
        }
    }

    /// The notifiers know whether anything is kept here.
    fn shut(&self, is_shut: bool) {
        if let Some(keeper) = &self.keeper {
            keeper.shut(is_shut);
        }
    }

    /// What a frame failed for, if one did.
    fn take_failure(&self) -> Option<AppendError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn refusal(error: &KafkaError) -> PublishError {
    if is_full(error) { PublishError::Busy } else { PublishError::Away { reason: error.to_string() } }
}

fn published(answers: Vec<Option<Answer>>, durable: Durable) -> Published {
    Published { answers: answers.into_iter().flatten().collect(), durable }
}
