//! A correlator: the loop of a node whose journal is in a Kafka. It takes what came in of the partitions that its group gave it,
//! applies it, and commits what followed together with how far it has read.
//!
//! ```text
//! events ─▶ gather ─▶ apply, each partition to its engine ─▶ one transaction: changes, state, offsets
//!              ▲                                                      │ aborted
//!              └──────────── back to what is committed ◀──────────────┘
//! ```
//!
//! While a transaction is committed, what comes next is gathered.
//!
//! What it has in memory of a partition is what is committed of it and nothing else: whatever fails, the engine is built anew
//! from there. It runs on a thread of its own and blocks.

mod away;
mod say;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use klaxon_correlate::{Engine, Output};
use klaxon_schemas::child::ChildEvent;
use klaxon_schemas::entry::{Entry, EntryKind, Started};
use klaxon_schemas::names::{Door, Site, Text};
use klaxon_schemas::state::Cursor;
use klaxon_schemas::time::JournalTime;
use klaxon_store::kafka::{
    Cluster, ClusterError, ConsumerGroupMetadata, Events, Input, KafkaError, Moved, Place, Polled, Probe, ReadUpTo,
    RestoreError, Restorer, TransactionError, Transactions, Unread, new_epoch,
};
use klaxon_store::{Results, Store};
use tokio_util::sync::CancellationToken;

use self::away::Away;
use crate::engine::{committed, panic_text};
use crate::held::Held;
use crate::own::{self, OwnAlarm};
use crate::topics::Topics;

/// The most entries in one transaction.
const BATCH_ENTRIES_MAX: usize = 2_000;
/// How long the next entry is waited for before it is looked whether a transaction is over.
const AHEAD_WAIT: Duration = Duration::from_millis(1);
/// How long entries are gathered once one has come.
const GATHER_WAIT: Duration = Duration::from_millis(20);
/// How long the loop sleeps at most.
const IDLE_WAIT: Duration = Duration::from_millis(500);
/// When something that failed is tried again; each time in a row the wait is twice as long, up to the longest.
const RETRY_WAIT: Duration = Duration::from_secs(1);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long what passes may keep a partition from being taken over before it is an alarm.
const PASSING_MAX: Duration = Duration::from_secs(30);
/// When it is looked again whether a transaction is over that somebody else left open.
const OPEN_WAIT: Duration = Duration::from_millis(250);
/// How long the loop sleeps before it looks whether it is to stop.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// How long it is waited for an entry that says that a deadline has passed, before another one is sent.
const DEADLINE_WAIT: Duration = Duration::from_secs(2);

/// What a correlator tells of itself.
#[derive(Debug, Default)]
pub struct CorrelatorStatus {
    /// Entries applied and committed.
    pub applied: AtomicU64,
    /// Transactions committed.
    pub committed: AtomicU64,
    /// Transactions that came to nothing; what was in them was applied anew.
    pub aborted: AtomicU64,
    /// Records that are no entries, or in a partition where they do not belong.
    pub rejected: AtomicU64,
    /// Entries that broke the engine.
    pub quarantined: AtomicU64,
    /// How many partitions it has.
    pub partitions: AtomicU64,
    /// How many of those that its group gave it it does not correlate now: their state cannot be had, or a newer program wrote
    /// what comes next there.
    pub left_alone: AtomicU64,
}

/// What a correlator is made of.
pub struct Parts {
    /// The Kafka.
    pub cluster: Cluster,
    /// Its name among the correlators: whoever starts by the same one takes its place.
    pub name: String,
    /// The centre's own site.
    pub site: Site,
    /// What the engines are held to.
    pub held: Arc<Held>,
    /// This node's copy, if it has one: what it says of itself stands there.
    pub store: Option<Store>,
    /// What it tells.
    pub status: Arc<CorrelatorStatus>,
    /// Whether the topics are as they must be.
    pub topics: Topics,
    /// Ends it.
    pub stop: CancellationToken,
}

/// Why a partition is not taken over now.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("the brokers do not tell where the group has read it up to")]
    Offset(#[source] KafkaError),
    /// KAFKA-10167: a group's offset from before a transaction that was on its way.
    #[error("its state goes up to offset {state} and the group's to {group}: where that stays so, klaxon kafka reset helps")]
    Apart { state: i64, group: i64 },
    #[error("its state is gone, and the group has read it up to offset {group}: klaxon kafka reset begins anew")]
    Lost { group: i64 },
    /// Brokers that lost what they had not written to their disks, or a topic that was made anew.
    #[error("its state goes up to offset {state} of other events than those that are there: see klaxon kafka reset --force")]
    Beyond { state: i64 },
}

impl NotTaken {
    /// Whether it is as usual while a member of the group or a broker goes, and over soon after.
    fn may_pass(&self) -> bool {
        match self {
            Self::Restore(error) => !matches!(error, RestoreError::Unread { .. }),
            Self::Offset(_) => true,
            Self::Apart { .. } | Self::Lost { .. } | Self::Beyond { .. } => false,
        }
    }
}

/// A partition that is this correlator's.
struct Part {
    engine: Engine,
    /// Up to where its events are applied.
    read: ReadUpTo,
    /// Nothing was behind the last record when it was read.
    at_end: bool,
    /// Up to here entries are applied one by one, because one of them broke the engine.
    careful_until: i64,
    /// Which deadline was sent, and when.
    deadline: Option<(JournalTime, Instant)>,
}

impl Part {
    /// A record is applied, or passed over.
    fn note(&mut self, offset: i64, at: JournalTime) {
        self.read = ReadUpTo { next: offset + 1, at: self.read.at.max(at) };
    }
}

/// A record that was gathered.
struct Came {
    offset: i64,
    /// By the clock of the brokers.
    at: JournalTime,
    entry: Result<Entry, Unread>,
}

/// What was gathered of a partition.
type Gathered = Vec<Came>;

/// What followed from what was gathered of a partition.
#[derive(Default)]
struct Applied {
    out: Output,
    entries: u64,
    rejected: u64,
    /// A newer program wrote what comes next.
    newer: Option<Unread>,
}

/// The engine broke on an entry of these partitions, with these words.
struct Broken(BTreeMap<u16, Text>);

/// What a look at the input has brought.
enum Seen {
    Record,
    /// Nothing is behind what came of a partition.
    End,
    Trouble,
    Nothing,
}

/// When what failed is tried again.
struct Retry {
    /// When it failed first.
    since: Instant,
    at: Instant,
    wait: Duration,
}

/// A correlator, ready to run.
pub struct Correlator {
    parts: Parts,
    events: Events,
    away: Arc<Away>,
}

impl Correlator {
    /// Nothing is asked of the brokers yet: they may be away.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn start(parts: Parts) -> Result<Self, ClusterError> {
        let events = Events::new(&parts.cluster)?;
        let away = Away::watch(Probe::new(&parts.cluster)?, parts.stop.clone());
        Ok(Self { parts, events, away })
    }

    /// Joins the group of correlators as soon as the topics are good, and runs until it is told to stop.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn run(self) -> Result<(), ClusterError> {
        let Self { parts, events, away } = self;
        if !parts.topics.are_good(&parts.stop) {
            return Ok(());
        }
        let Some(output) = producer(&parts, Duration::ZERO)? else { return Ok(()) };
        let door = Door::new("kafka").expect("a door may be called so");
        let input = Input::join(&parts.cluster, parts.site.clone(), door)?;
        let restorer = Restorer::new(&parts.cluster)?;
        let work = Work {
            parts,
            input,
            output: Arc::new(output),
            events,
            restorer,
            away,
            mine: BTreeMap::new(),
            ahead: BTreeMap::new(),
            waiting: BTreeMap::new(),
            newer: BTreeSet::new(),
            said: BTreeMap::new(),
            in_trouble: false,
            lost_producers: 0,
            held_version: 0,
            said_again: Instant::now(),
        };
        work.run()
    }
}

/// The transactional producer, as soon as the brokers give one; nothing if it is to stop before.
fn producer(parts: &Parts, wait: Duration) -> Result<Option<Transactions>, ClusterError> {
    let (mut wait, mut is_said) = (wait, false);
    while !stops_within(&parts.stop, wait) {
        match Transactions::new(&parts.cluster, &parts.name, &|| parts.stop.is_cancelled()) {
            Ok(output) => return Ok(Some(output)),
            Err(error @ ClusterError::Settings(_)) => return Err(error),
            Err(error) if !std::mem::replace(&mut is_said, true) => {
                let error = anyhow::Error::new(error);
                tracing::warn!(error = %format!("{error:#}"), "no transaction can be had of the brokers; it is tried again");
            }
            Err(_) => {}
        }
        wait = (2 * wait).clamp(RETRY_WAIT, RETRY_WAIT_MAX);
    }
    Ok(None)
}

/// Waits so long; whether it is to stop.
pub(crate) fn stops_within(stop: &CancellationToken, wait: Duration) -> bool {
    let until = Instant::now() + wait;
    while !stop.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(STOP_LOOK));
    }
    true
}

/// A member of the group.
struct Work {
    parts: Parts,
    input: Input,
    output: Arc<Transactions>,
    events: Events,
    restorer: Restorer,
    away: Arc<Away>,
    mine: BTreeMap<u16, Part>,
    /// What was gathered and is not served yet.
    ahead: BTreeMap<u16, Gathered>,
    /// Partitions that could not be taken over, and when that is tried again.
    waiting: BTreeMap<u16, Retry>,
    /// Partitions in which a newer program wrote what comes next: it is for that one.
    newer: BTreeSet<u16>,
    /// What was said of them, so that it is said once.
    said: BTreeMap<u16, String>,
    in_trouble: bool,
    /// Transactional producers that came to their end without a transaction since the last one that had one.
    lost_producers: u32,
    /// Which of what the engines are held to was told.
    held_version: u64,
    /// When it was said again what should have been heard.
    said_again: Instant,
}

impl Work {
    fn run(mut self) -> Result<(), ClusterError> {
        while !self.parts.stop.is_cancelled() {
            let mut gathered = self.gather();
            self.follow_group(&mut gathered);
            if !gathered.is_empty() {
                // Whether leases run anew is to be known before time passes for them.
                self.away.settle();
                self.serve(gathered)?;
            }
            self.try_again();
            self.look_at_held();
            self.send_deadlines();
            self.tell();
        }
        self.events.flush();
        Ok(())
    }

    fn tell(&self) {
        let status = &self.parts.status;
        status.partitions.store(self.mine.len() as u64, Ordering::Relaxed);
        status.left_alone.store((self.waiting.len() + self.newer.len()) as u64, Ordering::Relaxed);
    }

    /// What came in meanwhile, and what is here of it by now; if that is nothing, what comes next.
    fn gather(&mut self) -> BTreeMap<u16, Gathered> {
        let mut until = Instant::now();
        if self.ahead.is_empty() {
            until += self.idle_wait();
        }
        // What the group did is to be followed before anything behind it is applied.
        while self.count_ahead() < BATCH_ENTRIES_MAX && !self.input.has_moved() {
            let is_first = self.ahead.is_empty();
            match self.gather_next(until.saturating_duration_since(Instant::now())) {
                Seen::Record if is_first => until = Instant::now() + GATHER_WAIT,
                // Behind it may be what came since: all that is here goes together, and nothing more is waited for.
                Seen::End if !is_first => until = Instant::now(),
                Seen::Record | Seen::End | Seen::Trouble => {}
                Seen::Nothing => break,
            }
        }
        std::mem::take(&mut self.ahead)
    }

    fn count_ahead(&self) -> usize {
        self.ahead.values().map(Vec::len).sum()
    }

    /// Waits so long for one record.
    fn gather_next(&mut self, wait: Duration) -> Seen {
        let (ahead, mine) = (&self.ahead, &self.mine);
        let at = |partition| {
            let of_batch = ahead.get(&partition).and_then(|all| all.iter().rev().find_map(|one| one.entry.as_ref().ok()));
            let applied = || mine.get(&partition).map(|part| part.engine.cursor().at);
            of_batch.map(|entry| entry.at).or_else(applied).unwrap_or_default()
        };
        match self.input.poll(wait, at) {
            Polled::Record { partition, offset, at, entry } => {
                if let Some(part) = self.mine.get_mut(&partition) {
                    part.at_end = false;
                }
                self.ahead.entry(partition).or_default().push(Came { offset, at, entry });
                if std::mem::take(&mut self.in_trouble) {
                    tracing::info!("the brokers are there again");
                }
                Seen::Record
            }
            Polled::End(partition) => {
                if let Some(part) = self.mine.get_mut(&partition) {
                    part.at_end = true;
                }
                Seen::End
            }
            Polled::Nothing => Seen::Nothing,
            Polled::Trouble(error) => {
                self.trouble(&error);
                Seen::Trouble
            }
        }
    }

    /// Commits what followed in some partitions. If it `reads_on`, what comes next is gathered meanwhile: that it is applied waits for
    /// the outcome, and for what the group did to be followed. Nothing that was gathered before may still be to be served then.
    fn commit_results(
        &mut self,
        group: Arc<ConsumerGroupMetadata>,
        results: Vec<(u16, ReadUpTo, Results)>,
        reads_on: bool,
    ) -> Result<(), TransactionError> {
        let (output, stop) = (Arc::clone(&self.output), self.parts.stop.clone());
        std::thread::scope(|scope| {
            let commit = scope.spawn(move || output.commit(&group, results, &|| stop.is_cancelled()));
            while reads_on && !commit.is_finished() && self.count_ahead() < BATCH_ENTRIES_MAX && !self.input.has_moved() {
                self.gather_next(AHEAD_WAIT);
            }
            commit.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        })
    }

    /// Said once, however often the client says it.
    fn trouble(&mut self, error: &KafkaError) {
        if !self.in_trouble {
            self.in_trouble = true;
            tracing::warn!(%error, "there is trouble with the brokers; what comes in waits there");
        }
    }

    fn idle_wait(&self) -> Duration {
        let now = journal_now();
        let due = self.mine.values().filter(|part| part.at_end).filter_map(|part| part.engine.next_deadline()).min();
        due.map_or(IDLE_WAIT, |due| due.since(now).clamp(Duration::from_millis(1), IDLE_WAIT))
    }

    /// Takes over what the group gave, and lets go what it took. What was gathered there before counts no more: it is read again
    /// from where the partition is taken over.
    fn follow_group(&mut self, gathered: &mut BTreeMap<u16, Gathered>) {
        for moved in self.input.moved() {
            let (Moved::Here(partitions) | Moved::Away(partitions)) = &moved;
            for partition in partitions {
                gathered.remove(partition);
                self.mine.remove(partition);
                self.waiting.remove(partition);
                self.newer.remove(partition);
                self.said.remove(partition);
            }
            match moved {
                Moved::Away(partitions) if !partitions.is_empty() => tracing::info!(?partitions, "partitions go to others"),
                Moved::Away(_) => {}
                Moved::Here(partitions) => partitions.into_iter().for_each(|partition| self.take_over(partition)),
            }
        }
    }

    fn take_over(&mut self, partition: u16) {
        self.mine.remove(&partition);
        // It is read again from where it is taken over.
        self.ahead.remove(&partition);
        let begun = Instant::now();
        match self.load(partition) {
            Ok(part) => {
                let (alarms, millis) = (part.engine.active_alarms(), begun.elapsed().as_millis());
                tracing::info!(partition, next = part.read.next, alarms, millis, "a partition is taken over");
                self.waiting.remove(&partition);
                self.mine.insert(partition, part);
                self.tell_engine(partition);
                // What another one raised is cleared when it is looked what stands.
                if self.said.remove(&partition).is_some() {
                    self.clear_refused(partition);
                }
            }
            Err(error) => {
                // What a client knows of who leads a partition may stay as it is for long: another one asks anew.
                if matches!(error, NotTaken::Restore(RestoreError::Cluster(_)))
                    && let Ok(restorer) = Restorer::new(&self.parts.cluster)
                {
                    self.restorer = restorer;
                }
                let is_open = matches!(error, NotTaken::Restore(RestoreError::Open { .. }));
                let since = self.waiting.get(&partition).map_or_else(Instant::now, |retry| retry.since);
                let may_pass = error.may_pass() && since.elapsed() < PASSING_MAX;
                let error = anyhow::Error::new(error);
                let text = format!("{error:#}");
                // Each time it is said where it begins.
                if may_pass {
                    if !self.waiting.contains_key(&partition) {
                        tracing::info!(partition, reason = %text, "a partition is taken over when that is known");
                    }
                } else if self.said.insert(partition, text.clone()).as_ref() != Some(&text) {
                    tracing::error!(partition, error = %text, "a partition cannot be taken over; it is tried again");
                    self.refuse(partition, &text);
                }
                if let Err(error) = self.input.pause(partition) {
                    tracing::debug!(%error, partition, "a partition cannot be paused");
                }
                let before = self.waiting.get(&partition).map_or(Duration::ZERO, |retry| retry.wait);
                let wait = if is_open { OPEN_WAIT } else { (2 * before).clamp(RETRY_WAIT, RETRY_WAIT_MAX) };
                self.waiting.insert(partition, Retry { since, at: Instant::now() + wait, wait });
            }
        }
    }

    /// The engine in the state that was committed, and the input there.
    fn load(&self, partition: u16) -> Result<Part, NotTaken> {
        let restored = self.restorer.restore(partition)?;
        let group = self.input.committed(partition).map_err(NotTaken::Offset)?;
        let (mut read, cursor) = match (restored.mark, group) {
            (Some(mark), Some(group)) if mark.read.next == group => (mark.read, mark.cursor),
            (Some(mark), group) => return Err(NotTaken::Apart { state: mark.read.next, group: group.unwrap_or(-1) }),
            (None, Some(group)) => return Err(NotTaken::Lost { group }),
            (None, None) => (ReadUpTo::default(), Cursor { epoch: new_epoch(partition), ..Cursor::default() }),
        };
        let first = self.input.first(partition, read).map_err(NotTaken::Offset)?;
        // What came in since would be taken for what is applied already.
        let first = first.ok_or(NotTaken::Beyond { state: read.next })?;
        if group.is_some() && read.next < first {
            tracing::error!(partition, from = read.next, to = first, "the brokers have dropped events that nobody had read");
        }
        read.next = read.next.max(first);
        let engine = Engine::load(self.parts.site.clone(), restored.alarms.into_values(), restored.records, cursor);
        self.input.begin_at(partition, read.next).map_err(NotTaken::Offset)?;
        Ok(Part { engine, read, at_end: false, careful_until: 0, deadline: None })
    }

    /// Leaves a partition to a newer program.
    fn leave(&mut self, partition: u16, error: &Unread) {
        let Some(part) = self.mine.remove(&partition) else { return };
        tracing::error!(partition, offset = part.read.next, %error, "a partition is left alone; this node is to be brought up to date");
        self.refuse(partition, &error.to_string());
        if let Err(error) = self.input.pause(partition) {
            tracing::debug!(%error, partition, "a partition cannot be paused");
        }
        self.newer.insert(partition);
    }

    fn send(&self, place: Place, kind: EntryKind) {
        self.events.send(place, &own::door(), kind, move |sent| {
            if let Err(error) = sent {
                tracing::warn!(?place, %error, "an entry of the correlator did not reach the brokers");
            }
        });
    }

    fn try_again(&mut self) {
        let now = Instant::now();
        let due: Vec<u16> = self.waiting.iter().filter(|(_, retry)| retry.at <= now).map(|(partition, _)| *partition).collect();
        due.into_iter().for_each(|partition| self.take_over(partition));
    }

    /// Lets time pass where nothing comes in. Only at the end of what came in: what stands there may be earlier.
    fn send_deadlines(&mut self) {
        let (now, sent_at) = (journal_now(), Instant::now());
        let mut due = Vec::new();
        for (partition, part) in &mut self.mine {
            let is_at_end = part.at_end && !self.ahead.contains_key(partition);
            let Some(deadline) = part.engine.next_deadline().filter(|at| is_at_end && *at <= now) else { continue };
            let is_sent = part.deadline.is_some_and(|(of, at)| of == deadline && sent_at - at < DEADLINE_WAIT);
            if !is_sent {
                part.deadline = Some((deadline, sent_at));
                due.push(*partition);
            }
        }
        due.into_iter().for_each(|partition| self.send(Place::Partition(partition), EntryKind::Deadline));
    }

    fn serve(&mut self, mut gathered: BTreeMap<u16, Gathered>) -> Result<(), ClusterError> {
        // Where the brokers lost events, they give what has their places now.
        let others: Vec<u16> = gathered
            .iter()
            .filter(|(partition, all)| {
                let read = self.mine.get(partition).map(|part| part.read);
                read.is_some_and(|read| all.iter().any(|one| read.has_missed(one.offset, one.at)))
            })
            .map(|(partition, _)| *partition)
            .collect();
        for partition in others {
            gathered.remove(&partition);
            self.take_over(partition);
        }
        let touched: BTreeSet<u16> = gathered.keys().copied().collect();
        let is_careful = |part: &Part, offset: i64| offset < part.careful_until;
        let careful = gathered.iter().any(|(partition, all)| {
            self.mine.get(partition).is_some_and(|part| all.first().is_some_and(|one| is_careful(part, one.offset)))
        });
        if careful {
            return self.serve_one_by_one(gathered);
        }
        match self.apply(&gathered) {
            Ok(outs) => self.commit(outs, true).map(drop),
            Err(Broken(broken)) => {
                for partition in broken.keys() {
                    let last = gathered[partition].last().map_or(0, |one| one.offset + 1);
                    self.reload(*partition);
                    if let Some(part) = self.mine.get_mut(partition) {
                        part.careful_until = last;
                    }
                }
                // What the others made of theirs is not committed either.
                touched.iter().filter(|one| !broken.contains_key(one)).for_each(|partition| self.reload(*partition));
                Ok(())
            }
        }
    }

    /// Each entry in a transaction of its own: one that breaks the engine is put aside.
    fn serve_one_by_one(&mut self, gathered: BTreeMap<u16, Gathered>) -> Result<(), ClusterError> {
        for (partition, all) in gathered {
            for came in all {
                let (offset, at) = (came.offset, came.at);
                let one = BTreeMap::from([(partition, vec![came])]);
                let outs = match self.apply(&one) {
                    Ok(outs) => outs,
                    Err(Broken(mut broken)) => {
                        let Some(failure) = broken.remove(&partition) else { break };
                        let Some(Came { entry: Ok(entry), .. }) = one.into_values().flatten().next() else { break };
                        tracing::error!(partition, offset, %failure, "an entry broke the engine and is put aside");
                        let text = format!("Entry {} of partition {partition} broke the engine: {failure}", entry.position);
                        self.send(Place::OfItsSite, own::raise(&self.parts.site, OwnAlarm::Quarantine, &text));
                        let careful_until = self.mine.get(&partition).map_or(0, |part| part.careful_until);
                        self.reload(partition);
                        let Some(part) = self.mine.get_mut(&partition) else { break };
                        part.careful_until = careful_until;
                        let mut out = Output::default();
                        part.engine.quarantine(&entry, failure, &mut out);
                        part.note(offset, at);
                        self.parts.status.quarantined.fetch_add(1, Ordering::Relaxed);
                        BTreeMap::from([(partition, Applied { out, entries: 1, ..Applied::default() })])
                    }
                };
                // What is behind one that is not committed is read again, as it is.
                if !self.commit(outs, false)? || !self.mine.contains_key(&partition) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Applies what was gathered of each partition that is this correlator's.
    fn apply(&mut self, gathered: &BTreeMap<u16, Gathered>) -> Result<BTreeMap<u16, Applied>, Broken> {
        let (mut outs, mut broken) = (BTreeMap::new(), BTreeMap::new());
        for (partition, all) in gathered {
            let Some(part) = self.mine.get_mut(partition) else { continue };
            let (mut applied, before) = (Applied::default(), part.read.next);
            for Came { offset, at, entry } in all {
                // It was read before the partition came back to what is committed.
                if *offset < part.read.next {
                    continue;
                }
                match entry {
                    Ok(entry) if is_overtaken(&part.engine, entry) => applied.entries += 1,
                    Ok(entry) => {
                        let (engine, out) = (&mut part.engine, &mut applied.out);
                        let renewed = self.away.leases_anew(*partition, engine.cursor().started_at, entry.at);
                        let done = catch_unwind(AssertUnwindSafe(|| {
                            crate::faults::break_on(entry);
                            if renewed {
                                engine.apply(&started(engine, entry), out);
                            }
                            engine.apply(entry, out)
                        }));
                        if let Err(payload) = done {
                            broken.insert(*partition, panic_text(&*payload));
                            break;
                        }
                        applied.entries += 1;
                    }
                    Err(error @ Unread::Newer { .. }) => {
                        applied.newer = Some(error.clone());
                        break;
                    }
                    Err(error) => {
                        applied.rejected += 1;
                        tracing::warn!(partition, offset, %error, "a record of the events is passed over");
                    }
                }
                part.note(*offset, *at);
            }
            if part.read.next > before || applied.newer.is_some() {
                outs.insert(*partition, applied);
            }
        }
        if broken.is_empty() { Ok(outs) } else { Err(Broken(broken)) }
    }

    /// Whether it is committed; if not, all that it is about is as it was before.
    fn commit(&mut self, outs: BTreeMap<u16, Applied>, reads_on: bool) -> Result<bool, ClusterError> {
        let (mut entries, mut rejected) = (0, 0);
        let (mut touched, mut newer, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, mut applied) in outs {
            let Some(part) = self.mine.get(&partition) else { continue };
            if applied.entries + applied.rejected > 0 {
                let of_part: Results = committed(applied.out.take(&part.engine));
                results.push((partition, part.read, of_part));
                touched.push(partition);
            }
            entries += applied.entries;
            rejected += applied.rejected;
            newer.extend(applied.newer.map(|error| (partition, error)));
        }
        let status = Arc::clone(&self.parts.status);
        let outcome = match self.input.group() {
            _ if results.is_empty() => Ok(()),
            Some(group) => self.commit_results(group, results, reads_on),
            // The group has put it out; it learns what it lost when it asks the next time.
            None => Err(TransactionError::Aborted(KafkaError::Canceled)),
        };
        if let Err(error) = outcome {
            status.aborted.fetch_add(1, Ordering::Relaxed);
            let is_fatal = matches!(error, TransactionError::Fatal(_));
            let error = anyhow::Error::new(error);
            tracing::warn!(error = %format!("{error:#}"), "a transaction came to nothing; its entries are applied anew");
            if is_fatal && !self.renew_producer()? {
                return Ok(false);
            }
            // What the group took meanwhile is not this correlator's to take over again.
            let mut ahead = std::mem::take(&mut self.ahead);
            self.follow_group(&mut ahead);
            self.ahead = ahead;
            touched.into_iter().for_each(|partition| self.reload(partition));
            return Ok(false);
        }
        if !touched.is_empty() {
            self.lost_producers = 0;
            status.committed.fetch_add(1, Ordering::Relaxed);
        }
        status.applied.fetch_add(entries, Ordering::Relaxed);
        status.rejected.fetch_add(rejected, Ordering::Relaxed);
        newer.into_iter().for_each(|(partition, error)| self.leave(partition, &error));
        Ok(true)
    }

    /// Another transactional producer in place of one that can do no more; false if it is to stop before there is one. While the
    /// next is waited for, the group may give its partitions to others.
    fn renew_producer(&mut self) -> Result<bool, ClusterError> {
        self.lost_producers += 1;
        if self.lost_producers == 2 {
            let name = &self.parts.name;
            tracing::error!(%name, "it is put out again and again; does another node have the same journal.node_name?");
        }
        let wait = RETRY_WAIT * (self.lost_producers - 1).min(10);
        let Some(output) = producer(&self.parts, wait)? else { return Ok(false) };
        self.output = Arc::new(output);
        Ok(true)
    }

    /// Back to what is committed, if it is still this correlator's.
    fn reload(&mut self, partition: u16) {
        if self.mine.contains_key(&partition) {
            self.take_over(partition);
        }
    }
}

/// Whether an entry says that a node below is silent, and it was heard since: where nothing was correlated for a while, other nodes
/// could not know of that.
fn is_overtaken(engine: &Engine, entry: &Entry) -> bool {
    let EntryKind::Child(fact) = &entry.kind else { return false };
    let ChildEvent::Silent { since } = fact.what else { return false };
    engine.child_heard_at(&fact.child).is_some_and(|heard| heard > since)
}

/// Says to the engine of a partition that nobody was heard for a while, just before `entry`.
fn started(engine: &Engine, entry: &Entry) -> Entry {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let started = Started { version, epoch: engine.cursor().epoch, new_epoch: None, boot: None };
    Entry { door: own::door(), kind: EntryKind::Started(started), ..entry.clone() }
}

/// The wall clock, as journal time is: that of the brokers, which is near it.
fn journal_now() -> JournalTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    JournalTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
