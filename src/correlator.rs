//! A correlator: the loop of a node whose journal is in a Kafka. It takes what came in of the partitions that its group gave it,
//! applies it, and commits what followed together with how far it has read.
//!
//! ```text
//! events ─▶ gather ─▶ apply, each partition to its engine ─▶ one transaction: changes, state, offsets
//!              ▲                                                      │ aborted
//!              └──────────── back to what is committed ◀──────────────┘
//! ```
//!
//! What it has in memory of a partition is what is committed of it and nothing else: whatever fails, the engine is built anew
//! from there. It runs on a thread of its own and blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use klaxon_correlate::{Engine, Output};
use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::ids::Epoch;
use klaxon_schemas::names::{Door, Site};
use klaxon_schemas::state::Cursor;
use klaxon_schemas::time::JournalTime;
use klaxon_store::Results;
use klaxon_store::kafka::{
    Cluster, ClusterError, Events, Input, KafkaError, Moved, Place, Polled, RestoreError, TransactionError, Transactions,
    Unread, restore,
};
use tokio_util::sync::CancellationToken;

use crate::follow::{committed, panic_text};
use crate::held::Held;
use crate::own;

/// The most entries in one transaction.
const BATCH_ENTRIES_MAX: usize = 2_000;
/// How long entries are gathered once one has come.
const GATHER_WAIT: Duration = Duration::from_millis(20);
/// How long the loop sleeps at most.
const IDLE_WAIT: Duration = Duration::from_millis(500);
/// When something that failed is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// How long it is waited for an entry that says that a deadline has passed, before another one is sent.
const DEADLINE_WAIT: Duration = Duration::from_secs(2);
/// An epoch is the time in milliseconds at which it begins, followed by so many bits with the partition: no two partitions
/// number changes in the same one.
const PARTITION_BITS: u32 = 10;

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
    /// What it tells.
    pub status: Arc<CorrelatorStatus>,
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
    #[error("its state goes up to offset {state} and the group's to {group}")]
    Apart { state: i64, group: i64 },
    #[error("its state is gone, and the group has read it up to offset {group}: klaxon kafka reset begins anew")]
    Lost { group: i64 },
}

/// A partition that is this correlator's.
struct Part {
    engine: Engine,
    /// The first record that is not applied.
    next: i64,
    /// Nothing was behind the last record when it was read.
    at_end: bool,
    /// Up to here entries are applied one by one, because one of them broke the engine.
    careful_until: i64,
    /// Which deadline was sent, and when.
    deadline: Option<(JournalTime, Instant)>,
}

/// What was gathered of a partition.
type Gathered = Vec<(i64, Result<Entry, Unread>)>;

/// The engine broke on an entry of these partitions.
struct Broken(BTreeSet<u16>);

/// The loop, ready to run.
pub struct Correlator {
    parts: Parts,
    input: Input,
    output: Transactions,
    events: Events,
    mine: BTreeMap<u16, Part>,
    /// Partitions that could not be taken over, and when that is tried again.
    waiting: BTreeMap<u16, Instant>,
    /// What was said of them, so that it is said once.
    said: BTreeMap<u16, String>,
    in_trouble: bool,
    /// Which of what the engines are held to was told.
    held_version: u64,
}

impl Correlator {
    /// Joins the group of correlators.
    ///
    /// # Errors
    /// No broker answers.
    pub fn start(parts: Parts) -> Result<Self, ClusterError> {
        let output = Transactions::new(&parts.cluster, &parts.name)?;
        let events = Events::new(&parts.cluster)?;
        let door = Door::new("kafka").expect("a door may be called so");
        let input = Input::join(&parts.cluster, parts.site.clone(), door)?;
        let (mine, waiting, said) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { parts, input, output, events, mine, waiting, said, in_trouble: false, held_version: 0 })
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// Its transactional producer can be had no more.
    pub fn run(mut self) -> Result<(), ClusterError> {
        while !self.parts.stop.is_cancelled() {
            let gathered = self.gather();
            self.follow_group();
            if !gathered.is_empty() {
                self.serve(gathered)?;
            }
            self.try_again();
            self.look_at_held();
            self.send_deadlines();
        }
        self.events.flush();
        Ok(())
    }

    fn gather(&mut self) -> BTreeMap<u16, Gathered> {
        let mut gathered: BTreeMap<u16, Gathered> = BTreeMap::new();
        let (mut count, mut until) = (0, Instant::now() + self.idle_wait());
        while count < BATCH_ENTRIES_MAX {
            let wait = until.saturating_duration_since(Instant::now());
            let at = |partition| {
                let of_batch =
                    gathered.get(&partition).and_then(|all| all.iter().rev().find_map(|(_, entry)| entry.as_ref().ok()));
                let applied = || self.mine.get(&partition).map(|part| part.engine.cursor().at);
                of_batch.map(|entry| entry.at).or_else(applied).unwrap_or_default()
            };
            match self.input.poll(wait, at) {
                Polled::Record { partition, offset, entry } => {
                    if count == 0 {
                        until = Instant::now() + GATHER_WAIT;
                    }
                    count += 1;
                    if let Some(part) = self.mine.get_mut(&partition) {
                        part.at_end = false;
                    }
                    gathered.entry(partition).or_default().push((offset, entry));
                }
                Polled::End(partition) => {
                    if let Some(part) = self.mine.get_mut(&partition) {
                        part.at_end = true;
                    }
                    if count > 0 {
                        break;
                    }
                }
                Polled::Nothing => break,
                Polled::Trouble(error) => self.trouble(&error),
            }
            // What the group did is to be followed before anything behind it is applied.
            if self.input.has_moved() {
                break;
            }
        }
        if count > 0 && self.in_trouble {
            self.in_trouble = false;
            tracing::info!("the brokers are there again");
        }
        gathered
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

    /// Takes over what the group gave, and lets go what it took.
    fn follow_group(&mut self) {
        for moved in self.input.moved() {
            match moved {
                Moved::Away(partitions) => {
                    for partition in partitions {
                        self.mine.remove(&partition);
                        self.waiting.remove(&partition);
                        tracing::info!(partition, "a partition went to another correlator");
                    }
                }
                Moved::Here(partitions) => partitions.into_iter().for_each(|partition| self.take_over(partition)),
            }
        }
        self.parts.status.partitions.store(self.mine.len() as u64, Ordering::Relaxed);
    }

    fn take_over(&mut self, partition: u16) {
        self.mine.remove(&partition);
        match self.load(partition) {
            Ok(part) => {
                let alarms = part.engine.active_alarms();
                tracing::info!(partition, next = part.next, alarms, "a partition is taken over");
                self.waiting.remove(&partition);
                self.said.remove(&partition);
                self.mine.insert(partition, part);
                self.tell_engine(partition);
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                let text = format!("{error:#}");
                if self.said.insert(partition, text.clone()).as_ref() != Some(&text) {
                    tracing::error!(partition, error = %text, "a partition cannot be taken over; it is tried again");
                }
                if let Err(error) = self.input.pause(partition) {
                    tracing::debug!(%error, partition, "a partition cannot be paused");
                }
                self.waiting.insert(partition, Instant::now() + RETRY_WAIT);
            }
        }
    }

    /// The engine in the state that was committed, and the input there.
    fn load(&self, partition: u16) -> Result<Part, NotTaken> {
        let restored = restore(&self.parts.cluster, partition)?;
        let group = self.input.committed(partition).map_err(NotTaken::Offset)?;
        let (next, cursor) = match (restored.mark, group) {
            (Some(mark), Some(group)) if mark.next == group => (mark.next, mark.cursor),
            (Some(mark), group) => return Err(NotTaken::Apart { state: mark.next, group: group.unwrap_or(-1) }),
            (None, Some(group)) => return Err(NotTaken::Lost { group }),
            (None, None) => (0, Cursor { epoch: new_epoch(partition), ..Cursor::default() }),
        };
        let engine = Engine::load(self.parts.site.clone(), restored.alarms.into_values(), restored.records, cursor);
        self.input.seek(partition, next).map_err(NotTaken::Offset)?;
        self.input.resume(partition).map_err(NotTaken::Offset)?;
        Ok(Part { engine, next, at_end: false, careful_until: 0, deadline: None })
    }

    /// What the engine is held to, where it is held to something else.
    fn tell_engine(&self, partition: u16) {
        let Some(part) = self.mine.get(&partition) else { return };
        let (_, settings, catalogue) = self.parts.held.get();
        let is_new = part.engine.cursor().catalogue.is_none();
        if is_new || *part.engine.settings() != settings {
            self.send(partition, EntryKind::Settings(settings));
        }
        if part.engine.cursor().catalogue.as_ref() != Some(catalogue.digest()) {
            self.send(partition, EntryKind::Bundle { digest: catalogue.digest().clone(), catalogue });
        }
    }

    /// Tells all engines when what they are held to has changed.
    fn look_at_held(&mut self) {
        let (version, ..) = self.parts.held.get();
        if std::mem::replace(&mut self.held_version, version) != version {
            self.mine.keys().for_each(|partition| self.tell_engine(*partition));
        }
    }

    fn send(&self, partition: u16, kind: EntryKind) {
        self.events.send(Place::Partition(partition), &own::door(), kind, move |sent| {
            if let Err(error) = sent {
                tracing::warn!(partition, %error, "an entry of the correlator did not reach the brokers");
            }
        });
    }

    fn try_again(&mut self) {
        let now = Instant::now();
        let due: Vec<u16> = self.waiting.iter().filter(|(_, at)| **at <= now).map(|(partition, _)| *partition).collect();
        due.into_iter().for_each(|partition| self.take_over(partition));
    }

    /// Lets time pass where nothing comes in. Only at the end of what came in: what stands there may be earlier.
    fn send_deadlines(&mut self) {
        let (now, sent_at) = (journal_now(), Instant::now());
        let mut due = Vec::new();
        for (partition, part) in &mut self.mine {
            let Some(deadline) = part.engine.next_deadline().filter(|at| part.at_end && *at <= now) else { continue };
            let is_sent = part.deadline.is_some_and(|(of, at)| of == deadline && sent_at - at < DEADLINE_WAIT);
            if !is_sent {
                part.deadline = Some((deadline, sent_at));
                due.push(*partition);
            }
        }
        due.into_iter().for_each(|partition| self.send(partition, EntryKind::Deadline));
    }

    fn serve(&mut self, gathered: BTreeMap<u16, Gathered>) -> Result<(), ClusterError> {
        let touched: BTreeSet<u16> = gathered.keys().copied().collect();
        let is_careful = |part: &Part, offset: i64| offset < part.careful_until;
        let careful = gathered.iter().any(|(partition, all)| {
            self.mine.get(partition).is_some_and(|part| all.first().is_some_and(|(offset, _)| is_careful(part, *offset)))
        });
        if careful {
            return self.serve_one_by_one(gathered);
        }
        match self.apply(&gathered) {
            Ok(outs) => self.commit(outs, &touched),
            Err(Broken(broken)) => {
                for partition in &broken {
                    let last = gathered[partition].last().map_or(0, |(offset, _)| offset + 1);
                    self.reload(*partition);
                    if let Some(part) = self.mine.get_mut(partition) {
                        part.careful_until = last;
                    }
                }
                // What the others made of theirs is not committed either.
                touched.difference(&broken).for_each(|partition| self.reload(*partition));
                Ok(())
            }
        }
    }

    /// Each entry in a transaction of its own: one that breaks the engine is put aside.
    fn serve_one_by_one(&mut self, gathered: BTreeMap<u16, Gathered>) -> Result<(), ClusterError> {
        for (partition, all) in gathered {
            for (offset, entry) in all {
                let one = BTreeMap::from([(partition, vec![(offset, entry)])]);
                let outs = match self.apply(&one) {
                    Ok(outs) => outs,
                    Err(Broken(_)) => {
                        let careful_until = self.mine.get(&partition).map_or(0, |part| part.careful_until);
                        self.reload(partition);
                        let Some(part) = self.mine.get_mut(&partition) else { break };
                        part.careful_until = careful_until;
                        let Some((_, Ok(entry))) = one.into_values().flatten().next() else { break };
                        let mut out = Output::default();
                        let text = panic_text(&"the engine broke on it; see the log");
                        part.engine.quarantine(&entry, text, &mut out);
                        part.next = offset + 1;
                        self.parts.status.quarantined.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(partition, offset, "an entry broke the engine and is put aside");
                        BTreeMap::from([(partition, (out, 1))])
                    }
                };
                self.commit(outs, &BTreeSet::from([partition]))?;
            }
        }
        Ok(())
    }

    /// Applies what was gathered of each partition that is this correlator's: what followed, and from how many entries.
    fn apply(&mut self, gathered: &BTreeMap<u16, Gathered>) -> Result<BTreeMap<u16, (Output, u64)>, Broken> {
        let (mut outs, mut broken) = (BTreeMap::new(), BTreeSet::new());
        for (partition, all) in gathered {
            let Some(part) = self.mine.get_mut(partition) else { continue };
            let (mut out, mut applied) = (Output::default(), 0);
            for (offset, entry) in all {
                // It was read before the partition came back to what is committed.
                if *offset < part.next {
                    continue;
                }
                match entry {
                    Ok(entry) => {
                        let engine = &mut part.engine;
                        let done = catch_unwind(AssertUnwindSafe(|| {
                            crate::faults::break_on(entry);
                            engine.apply(entry, &mut out)
                        }));
                        if done.is_err() {
                            broken.insert(*partition);
                            break;
                        }
                        applied += 1;
                    }
                    Err(error) => {
                        self.parts.status.rejected.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(partition, offset, %error, "a record of the events is passed over");
                    }
                }
                part.next = offset + 1;
            }
            outs.insert(*partition, (out, applied));
        }
        if broken.is_empty() { Ok(outs) } else { Err(Broken(broken)) }
    }

    fn commit(&mut self, outs: BTreeMap<u16, (Output, u64)>, touched: &BTreeSet<u16>) -> Result<(), ClusterError> {
        let Some(group) = self.input.group() else { return Ok(()) };
        let applied: u64 = outs.values().map(|(_, applied)| applied).sum();
        let results: Vec<(u16, i64, Results)> = outs
            .into_iter()
            .filter_map(|(partition, (mut out, _))| {
                let part = self.mine.get(&partition)?;
                Some((partition, part.next, committed(out.take(&part.engine))))
            })
            .collect();
        if results.is_empty() {
            return Ok(());
        }
        match self.output.commit(&group, results) {
            Ok(()) => {
                self.parts.status.applied.fetch_add(applied, Ordering::Relaxed);
                self.parts.status.committed.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => {
                self.parts.status.aborted.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %anyhow::format_err!("{error}"), "a transaction came to nothing; its entries are applied anew");
                if let TransactionError::Fatal(_) = error {
                    self.output = Transactions::new(&self.parts.cluster, &self.parts.name)?;
                }
            }
        }
        touched.iter().for_each(|partition| self.reload(*partition));
        Ok(())
    }

    /// Back to what is committed, if it is still this correlator's.
    fn reload(&mut self, partition: u16) {
        if self.mine.contains_key(&partition) {
            self.take_over(partition);
        }
    }
}

/// The wall clock, as journal time is: that of the brokers, which is near it.
fn journal_now() -> JournalTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    JournalTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

fn new_epoch(partition: u16) -> Epoch {
    Epoch((journal_now().0 / 1000) << PARTITION_BITS | u64::from(partition))
}
