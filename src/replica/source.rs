//! What is copied: the changes and the state of all partitions, from where the store has them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use klaxon_schemas::alarm::ChangeNumber;
use klaxon_schemas::change::{Change, Place as ChangePlace, Reason, Subject};
use klaxon_schemas::ids::{AlarmId, Seq};
use klaxon_schemas::state::{Copied, StateKey, StateRecord};
use klaxon_store::kafka::{Cluster, ClusterError, Copy, Mark, Record, StateFact, Unread};
use klaxon_store::publish::Publisher;
use klaxon_store::{Results, Store};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::read::read;
use super::{BATCHES_MAX, CHANGES_WAIT, FRAME_RECORDS_MAX, Replica};
use crate::topics::Topics;

/// Where it is copied from, and how far.
pub(super) struct Source {
    cluster: Cluster,
    topics: Topics,
    wake: Publisher,
    stop: CancellationToken,
    /// Nothing while what was copied cannot be kept.
    reading: Option<Reading>,
    pub(super) partitions: BTreeMap<u16, Partition>,
}

/// The thread that reads.
struct Reading {
    records: mpsc::Receiver<Vec<Record>>,
    ends: DropGuard,
    thread: JoinHandle<()>,
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
pub(super) struct Partition {
    pub(super) copied: Copied,
    /// The number of the last change of the centre that was copied since the start.
    last: ChangeNumber,
    /// Facts of a transaction whose mark has not come yet.
    open: Vec<StateFact>,
    /// Transactions that wait for the changes that they are about.
    told: VecDeque<Told>,
    /// A newer program wrote what comes next: it is for that one.
    is_newer: bool,
}

impl Source {
    /// Begins to read where the store is.
    ///
    /// # Errors
    /// The settings make no client.
    pub(super) fn start(
        cluster: Cluster,
        topics: Topics,
        wake: Publisher,
        stop: CancellationToken,
        store: &Store,
    ) -> Result<Self, ClusterError> {
        let mut source = Self { cluster, topics, wake, stop, reading: None, partitions: BTreeMap::new() };
        source.read_on(store)?;
        Ok(source)
    }

    fn read_on(&mut self, store: &Store) -> Result<(), ClusterError> {
        let copied = copied(store);
        let copy = Copy::start(&self.cluster, &copied)?;
        let (sender, records) = mpsc::sync_channel(BATCHES_MAX);
        store.note_original(false);
        let (wake, store, topics, stop) = (self.wake.clone(), store.clone(), self.topics.clone(), self.stop.child_token());
        let ends = stop.clone().drop_guard();
        let thread = std::thread::Builder::new().name("copy".to_owned()).spawn(move || {
            // Until then the brokers count as away, and nothing is sent there.
            if topics.are_good(&stop) {
                read(&copy, &sender, &wake, &store, &stop);
            }
        });
        let thread = thread.expect("a thread can be had");
        self.reading = Some(Reading { records, ends, thread });
        self.partitions = (0..self.cluster.partitions)
            .map(|number| {
                (number, Partition { copied: copied.get(&number).copied().unwrap_or_default(), ..Partition::default() })
            })
            .collect();
        Ok(())
    }

    /// Reads no more: what is read cannot be kept.
    pub(super) fn end(&mut self, store: &Store) {
        if let Some(Reading { records, ends, thread }) = self.reading.take() {
            drop((records, ends));
            if thread.join().is_err() {
                tracing::error!("the thread that reads from the brokers broke");
            }
        }
        // What was read and not kept is not copied: no frame may say so.
        self.partitions.clear();
        store.note_original(false);
    }

    /// Reads again from where the store is, if it does not read.
    ///
    /// # Errors
    /// The settings make no client.
    pub(super) fn go_on(&mut self, store: &Store) -> Result<(), ClusterError> {
        if self.reading.is_none() { self.read_on(store) } else { Ok(()) }
    }

    fn next(&self) -> Option<Vec<Record>> {
        self.reading.as_ref()?.records.try_recv().ok()
    }
}

impl Replica {
    /// Copies what has come.
    pub(super) fn take_in(&mut self) {
        for _ in 0..BATCHES_MAX {
            let Some(batch) = self.source.next() else { break };
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
        if self.source.partitions.get(&partition).is_some_and(|one| one.is_newer) {
            return;
        }
        self.status.copied.fetch_add(1, Ordering::Relaxed);
        match record {
            Record::Change { partition, next, change: Err(error @ Unread::Newer { .. }) }
            | Record::State { partition, next, fact: Err(error @ Unread::Newer { .. }) } => self.leave(partition, next, &error),
            Record::Change { partition, next, change } => {
                let one = self.source.partitions.entry(partition).or_default();
                let from = std::mem::replace(&mut one.copied.changes, next);
                match change {
                    Ok(mut change) => {
                        Arc::make_mut(&mut change).place = Some(ChangePlace { partition, from, next });
                        if change.site == self.site {
                            one.last = change.number;
                        }
                        for reason in &change.reasons {
                            if let Reason::Action(id) = reason
                                && let Some(effect) = self.acted.get_mut(id)
                            {
                                effect.changes.insert((partition, next), Arc::clone(&change));
                            }
                        }
                        changes.push(change);
                    }
                    Err(error) => self.unread(partition, next, "change", &error),
                }
            }
            Record::State { partition, next, fact } => match fact {
                Ok(StateFact::Mark(mark)) => {
                    let one = self.source.partitions.entry(partition).or_default();
                    let facts = std::mem::take(&mut one.open);
                    one.told.push_back(Told { mark, facts, next, came: Instant::now() });
                }
                Ok(fact) => self.source.partitions.entry(partition).or_default().open.push(fact),
                Err(error) => self.unread(partition, next, "record of the state", &error),
            },
        }
    }

    /// Copies no more of a partition: that is for a newer program, which goes on here.
    fn leave(&mut self, partition: u16, next: i64, error: &Unread) {
        self.source.partitions.entry(partition).or_default().is_newer = true;
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
        for one in self.source.partitions.values_mut() {
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
        let copied = self
            .source
            .partitions
            .iter()
            .map(|(number, one)| (StateKey::Partition(*number), Some(StateRecord::Copied(one.copied))));
        results.puts.extend(copied);
        self.cursor.mirrored += results.changes.len() as u64;
        results.cursor = self.cursor();
        self.commit(results);
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

/// How far the store has each partition.
fn copied(store: &Store) -> BTreeMap<u16, Copied> {
    let state = store.read();
    let records = state.records().filter_map(|(key, record)| match (key, record) {
        (StateKey::Partition(number), StateRecord::Copied(copied)) => Some((*number, *copied)),
        _ => None,
    });
    records.collect()
}
