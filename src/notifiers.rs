//! The notifiers: nodes whose journal is in a Kafka divide the receivers of notifications among themselves, by the partitions of the
//! topic in which it is kept how far each receiver is. A node runs the receivers of the partitions that the group gave it, from its
//! own copy of the changes.
//!
//! ```text
//! group ─▶ given: what was kept is loaded, put in terms of this copy ─▶ its receivers run
//!       ─▶ taken: its receivers end, and what they kept last is out   ─▶ the partition goes
//!
//! receiver ─▶ keeps ─▶ replica ─▶ here: a transaction, fenced by the group ─▶ replica: its own store ─▶ answered
//! ```
//!
//! A receiver sends a notification only when what its number stands for was kept there. So whoever goes on with it, also after a
//! kill, gives the same number to nothing else; and a notifier that the group gave up keeps nothing, and so tells nothing new.

mod local;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use klaxon_api::notify::{IsOurs, Receivers};
use klaxon_schemas::names::Follower;
use klaxon_schemas::state::{Copied, StateKey, StateRecord};
use klaxon_store::Store;
use klaxon_store::kafka::{
    Cluster, ClusterError, ConsumerGroupMetadata, Cursors, KafkaError, KeptRecord, Notifiers, RestoreError, Topic,
    TransactionError, ends, load_cursors, partition_of, reaches,
};
use klaxon_store::publish::{Item, Keep, PublishError, Publisher, Submission};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::topics::Topics;
use local::Kept;

/// What is put into the store of this node together, of what was found.
const FOUND_RECORDS_MAX: usize = 512;
/// How long the group is listened to before it is looked whether to stop.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// When something that failed is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Trouble after so long without any is another.
const TROUBLE_QUIET: Duration = Duration::from_secs(60);
/// When it is looked again whether this copy has what the one before had.
const CATCH_UP_WAIT: Duration = Duration::from_millis(200);
/// How long receivers that go elsewhere may take to end.
const END_WAIT: Duration = Duration::from_secs(8);
/// How long the store of this node may take for what was found.
const STORE_WAIT: Duration = Duration::from_secs(30);
/// The most submissions that are kept in one transaction.
const TOGETHER_MAX: usize = 256;

/// What is put into the state, and deleted.
pub type Puts = Vec<(StateKey, Option<StateRecord>)>;

/// What is to go into the store of the node.
pub enum Back {
    /// The brokers have it: then it is kept here, and answered.
    Kept(Submission, Puts),
    /// It was found there, or is not this node's any more.
    Found {
        /// The records.
        puts: Puts,
        /// Told whether they are durable.
        done: mpsc::Sender<bool>,
    },
}

/// The replica's end: what receivers keep goes out there, and comes back.
pub struct Keeper {
    ours: Arc<Ours>,
    keeps: mpsc::Sender<(Submission, Arc<Keep>)>,
    /// What comes back.
    pub back: mpsc::Receiver<Back>,
}

impl Keeper {
    /// Takes what a receiver keeps; gives back what is something else.
    pub fn take(&self, submission: Submission, store: &Store) -> Option<Submission> {
        let keep = match submission.items.as_slice() {
            [Item::Keep(keep)] if is_of_receiver(keep, store) => Arc::clone(keep),
            _ => return Some(submission),
        };
        if let Err(mpsc::SendError((submission, _))) = self.keeps.send((submission, keep)) {
            submission.answer(Err(PublishError::Stopping));
        }
        None
    }

    /// Says whether the store of this node keeps nothing now: then others have its receivers.
    pub fn shut(&self, is_shut: bool) {
        self.ours.is_shut.store(is_shut, Ordering::Relaxed);
    }
}

/// Other followers of the changes keep their cursors at their node.
fn is_of_receiver(keep: &Keep, store: &Store) -> bool {
    let is_receiver = |name| store.read().state().followers().get(name).is_some_and(|followed| followed.delivery.is_some());
    let has_delivery = match &keep.followed {
        Some(followed) => followed.delivery.is_some(),
        None => is_receiver(&keep.follower),
    };
    has_delivery || !keep.told.is_empty() || !keep.outbox.is_empty()
}

/// Which partitions are this node's.
#[derive(Default)]
struct Ours {
    /// Their receivers are to run.
    run: Mutex<BTreeSet<u16>>,
    /// What their receivers keep is taken: also while they end.
    keep: Mutex<BTreeSet<u16>>,
    /// The store of this node keeps nothing now.
    is_shut: AtomicBool,
}

fn lock(partitions: &Mutex<BTreeSet<u16>>) -> MutexGuard<'_, BTreeSet<u16>> {
    partitions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why receivers are not taken over now.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("what was written last is not settled")]
    Unsettled(#[from] KafkaError),
    #[error("this copy does not have all that the one before had")]
    Behind,
    #[error("the history cannot be read")]
    History(#[from] klaxon_store::ReadError),
    #[error("the store of this node does not take it")]
    Store,
}

/// A notifier, ready to run.
pub struct Notifier {
    cluster: Cluster,
    name: String,
    store: Store,
    wake: Publisher,
    ours: Arc<Ours>,
    keeps: Option<mpsc::Receiver<(Submission, Arc<Keep>)>>,
    back: mpsc::Sender<Back>,
    receivers: mpsc::Receiver<(Receivers, Handle)>,
    topics: Topics,
    stop: CancellationToken,
}

/// What makes receivers this node's share of them.
pub struct Share {
    /// Which are.
    pub is_ours: IsOurs,
    /// Takes the receivers, once they are set.
    pub receivers: mpsc::Sender<(Receivers, Handle)>,
}

/// A notifier by this name, with the replica's end of it and what the receivers need.
pub fn notifier(
    cluster: Cluster,
    name: &str,
    store: Store,
    wake: Publisher,
    topics: Topics,
    stop: CancellationToken,
) -> (Notifier, Keeper, Share) {
    let ((keeps, kept), (back, returned), (receivers, set)) = (mpsc::channel(), mpsc::channel(), mpsc::channel());
    let ours = Arc::<Ours>::default();
    let (partitions, run) = (cluster.partitions, Arc::clone(&ours));
    let is_ours: IsOurs = Box::new(move |name| lock(&run.run).contains(&partition(name, partitions)));
    let shared = Arc::clone(&ours);
    let notifier = Notifier {
        cluster,
        name: name.to_owned(),
        store,
        wake,
        ours: shared,
        keeps: Some(kept),
        back,
        receivers: set,
        topics,
        stop,
    };
    (notifier, Keeper { ours, keeps, back: returned }, Share { is_ours, receivers })
}

fn partition(name: &Follower, partitions: u16) -> u16 {
    partition_of(name.as_bytes(), partitions)
}

/// Lets the receivers be divided anew, and waits until that is done.
#[derive(Clone)]
struct Divide {
    receivers: Receivers,
    runtime: Handle,
}

impl Divide {
    fn again(&self) {
        let (done, told) = mpsc::channel();
        let receivers = self.receivers.clone();
        self.runtime.spawn(async move {
            receivers.divide().await;
            drop(done);
        });
        // It ends with the task, also if the node stops.
        if told.recv_timeout(END_WAIT) == Err::<(), _>(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("receivers that go to another node take long to end; what they confirmed last is told once more");
        }
    }
}

impl Notifier {
    /// Runs until it is told to stop, and then until the replica has ended.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn run(mut self) -> Result<(), ClusterError> {
        // As long as this is there, what receivers keep waits.
        let Some(keeps) = self.keeps.take() else { return Ok(()) };
        let Some((receivers, runtime)) = self.wait_for(|| self.receivers.try_recv().ok(), POLL_WAIT) else { return Ok(()) };
        if !self.topics.are_good(&self.stop) {
            return Ok(());
        }
        let divide = Divide { receivers, runtime };
        if !self.is_up() {
            return Ok(());
        }
        let gone = Arc::<Mutex<BTreeSet<u16>>>::default();
        let group = {
            let (ours, divide, gone) = (Arc::clone(&self.ours), divide.clone(), Arc::clone(&gone));
            Arc::new(Notifiers::new(&self.cluster, move |partitions| {
                lock(&ours.run).retain(|partition| !partitions.contains(partition));
                divide.again();
                lock(&ours.keep).retain(|partition| !partitions.contains(partition));
                lock(&gone).extend(partitions);
                tracing::info!(?partitions, "receivers went to another node");
            })?)
        };
        let Self { cluster, name, wake, ours, back, .. } = &self;
        std::thread::scope(|scope| {
            let keeping = Keeping { cluster, name, group: &group, wake, ours, back: back.clone(), stop: &self.stop };
            // It takes over what the receivers keep until nobody keeps anything any more.
            let keeping = std::thread::Builder::new().name("keep".to_owned()).spawn_scoped(scope, move || keeping.run(&keeps));
            keeping.expect("a thread can be had at the start");
            self.follow_group(&group, &divide, &gone);
        });
        Ok(())
    }

    fn follow_group(&self, group: &Notifiers, divide: &Divide, gone: &Mutex<BTreeSet<u16>>) {
        let mut waiting: BTreeMap<u16, Instant> = BTreeMap::new();
        let mut said: BTreeMap<u16, String> = BTreeMap::new();
        let (mut trouble, mut is_out) = (None::<Instant>, false);
        while !self.stop.is_cancelled() {
            let is_shut = self.ours.is_shut.load(Ordering::Relaxed);
            if is_shut && !is_out {
                is_out = true;
                tracing::warn!("the receivers of this node go to others: its store keeps nothing");
                group.leave();
            } else if is_out && !is_shut && lock(&self.ours.keep).is_empty() && self.is_up() {
                is_out = false;
                if let Err(error) = group.join() {
                    tracing::error!(%error, "the notifiers' group cannot be joined again");
                }
            }
            if let Some(error) = group.poll(POLL_WAIT) {
                if trouble.replace(Instant::now()).is_none_or(|before| before.elapsed() > TROUBLE_QUIET) {
                    tracing::warn!(%error, "the notifiers have trouble with the brokers");
                }
                std::thread::sleep(POLL_WAIT);
            }
            let away = std::mem::take(&mut *lock(gone));
            if !away.is_empty() {
                waiting.retain(|partition, _| !away.contains(partition));
                self.found(&self.forgotten(|name| away.contains(&partition(name, self.cluster.partitions))));
            }
            let now = Instant::now();
            waiting.extend(group.here().into_iter().map(|partition| (partition, now)));
            let due: Vec<u16> = waiting.iter().filter(|(_, at)| **at <= now).map(|(partition, _)| *partition).collect();
            let mut taken = false;
            for partition in due {
                match self.take_over(group, partition) {
                    Ok(receivers) => {
                        waiting.remove(&partition);
                        said.remove(&partition);
                        taken = true;
                        tracing::info!(partition, receivers, "the receivers of a partition are taken over");
                    }
                    Err(error) => {
                        let wait = if matches!(error, NotTaken::Behind) { CATCH_UP_WAIT } else { RETRY_WAIT };
                        waiting.insert(partition, Instant::now() + wait);
                        let text = format!("{:#}", anyhow::Error::new(error));
                        if said.insert(partition, text.clone()).as_ref() != Some(&text) {
                            tracing::warn!(partition, error = %text, "receivers cannot be taken over yet; it is tried again");
                        }
                    }
                }
            }
            if taken {
                divide.again();
            }
        }
    }

    /// What was kept of the receivers of a partition, put in terms of this node's copy. How many those are.
    fn take_over(&self, group: &Notifiers, of: u16) -> Result<usize, NotTaken> {
        group.settled(of)?;
        let all = Kept::sort(load_cursors(&self.cluster, of)?);
        let mut puts = self.forgotten(|name| partition(name, self.cluster.partitions) == of && !all.contains_key(name));
        for (name, kept) in &all {
            puts.extend(kept.local(name, &self.store)?.ok_or(NotTaken::Behind)?);
        }
        if !self.found(&puts) {
            return Err(NotTaken::Store);
        }
        lock(&self.ours.keep).insert(of);
        lock(&self.ours.run).insert(of);
        Ok(all.len())
    }

    /// What is to be put so that nothing is kept here of these receivers.
    fn forgotten(&self, of: impl Fn(&Follower) -> bool) -> Puts {
        let state = self.store.read();
        let is_receiver = |name: &Follower| state.state().followers().get(name).is_none_or(|one| one.delivery.is_some());
        let names = state.state().keepers().into_keys().filter(|name| is_receiver(name) && of(name));
        names.flat_map(|name| local::keys(&state, &name)).map(|key| (key, None)).collect()
    }

    /// Puts it into the store of this node; whether it is durable there.
    fn found(&self, puts: &[(StateKey, Option<StateRecord>)]) -> bool {
        puts.chunks(FOUND_RECORDS_MAX).all(|puts| {
            let (done, told) = mpsc::channel();
            let is_there = self.back.send(Back::Found { puts: puts.to_vec(), done }).is_ok();
            self.wake.wake();
            is_there && told.recv_timeout(STORE_WAIT).unwrap_or(false)
        })
    }

    /// Waits until this node's own store is such that receivers can be taken over; not if it is told to stop meanwhile.
    fn is_up(&self) -> bool {
        // What is kept here is a copy of what the brokers have, and most of it is another node's now.
        let of_all = |_: &Follower| true;
        self.wait_for(|| self.found(&self.forgotten(of_all)).then_some(()), RETRY_WAIT).is_some() && self.catch_up()
    }

    /// Waits until this node has copied what the brokers have now: what stands is compared with what receivers were told.
    fn catch_up(&self) -> bool {
        let topics = [Topic::Changes, Topic::State];
        let ends = || topics.into_iter().map(|topic| ends(&self.cluster, topic)).collect::<Result<Vec<_>, _>>();
        let mut is_said = false;
        let mut say = |error: ClusterError| {
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!(error = %anyhow::Error::new(error), "receivers wait for the brokers");
            }
        };
        let Some(ends) = self.wait_for(|| ends().map_err(&mut say).ok(), RETRY_WAIT) else { return false };
        let is_here = || {
            let copied = self.copied();
            let all = topics.into_iter().zip(&ends).map(|(topic, ends)| {
                let next = |of: &Copied| if topic == Topic::Changes { of.changes } else { of.state };
                let copied = copied.iter().map(|(partition, of)| (*partition, next(of))).collect();
                reaches(&self.cluster, topic, &copied, ends)
            });
            all.collect::<Result<Vec<_>, _>>()
        };
        let mut look = || is_here().map_err(&mut say).is_ok_and(|all| all.into_iter().all(|is_so| is_so)).then_some(());
        self.wait_for(&mut look, CATCH_UP_WAIT).is_some()
    }

    fn copied(&self) -> BTreeMap<u16, Copied> {
        let state = self.store.read();
        (0..self.cluster.partitions).filter_map(|partition| Some((partition, local::copied(&state, partition)?))).collect()
    }

    /// Asks again and again, until there is an answer or the node stops.
    fn wait_for<T>(&self, mut ask: impl FnMut() -> Option<T>, wait: Duration) -> Option<T> {
        while !self.stop.is_cancelled() {
            if let Some(answer) = ask() {
                return Some(answer);
            }
            std::thread::sleep(wait);
        }
        None
    }
}

/// What takes what receivers keep to the brokers.
struct Keeping<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    group: &'a Notifiers,
    wake: &'a Publisher,
    ours: &'a Ours,
    back: mpsc::Sender<Back>,
    stop: &'a CancellationToken,
}

impl Keeping<'_> {
    fn run(&self, keeps: &mpsc::Receiver<(Submission, Arc<Keep>)>) {
        let mut cursors = None;
        while let Ok(first) = keeps.recv() {
            let all: Vec<_> = std::iter::once(first).chain(keeps.try_iter().take(TOGETHER_MAX - 1)).collect();
            // In this order: what the group gave away behind this is not kept in its name.
            let group = self.group.group();
            let ours = lock(&self.ours.keep).clone();
            let place = |keep: &Keep| partition(&keep.follower, self.cluster.partitions);
            let (ours, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, keep)| ours.contains(&place(keep)));
            let refuse = |submission: Submission, reason: &str| {
                submission.answer(Err(PublishError::Away { reason: reason.to_owned() }));
            };
            others.into_iter().for_each(|(submission, _)| refuse(submission, "the receiver is another node's now"));
            if ours.is_empty() {
                continue;
            }
            let records: Vec<KeptRecord> =
                ours.iter().flat_map(|(_, keep)| keep.puts().map(|(key, record)| (place(keep), key, record))).collect();
            let outcome = match group {
                Some(group) => self.keep(&mut cursors, &group, &records),
                None => Err("the notifiers' group is not joined".to_owned()),
            };
            match outcome {
                Ok(()) => {
                    for (submission, keep) in ours {
                        // The replica may have ended: then nobody waits for an answer.
                        let _ = self.back.send(Back::Kept(submission, keep.puts().collect()));
                    }
                    self.wake.wake();
                }
                Err(reason) => ours.into_iter().for_each(|(submission, _)| refuse(submission, &reason)),
            }
        }
    }

    fn keep(
        &self,
        cursors: &mut Option<Cursors>,
        group: &Arc<ConsumerGroupMetadata>,
        records: &[KeptRecord],
    ) -> Result<(), String> {
        let words = |error: anyhow::Error| format!("{error:#}");
        let stops = || self.stop.is_cancelled();
        let producer = match cursors.take() {
            Some(producer) => producer,
            None => Cursors::new(self.cluster, self.name, &stops).map_err(|error| words(error.into()))?,
        };
        let outcome = producer.keep(group, records, &stops);
        if !matches!(outcome, Err(TransactionError::Fatal(_))) {
            *cursors = Some(producer);
        }
        outcome.map_err(|error| words(error.into()))
    }
}
