//! How far the receivers of notifications are: a compacted topic, whose partitions a group of notifiers divides among itself. What is
//! written there is fenced by the group (KIP-447), so that a notifier that was taken for dead changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use klaxon_schemas::state::{StateKey, StateRecord};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::cluster::{Cluster, ClusterError, Quiet, REQUEST_WAIT, say};
use super::record::write_put;
use super::restore::{RestoreError, Restorer};
use super::topics::Topic;
use super::transaction::{TransactionError, Transactional};

/// After this time without a word of a notifier, others take its receivers over.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one record is waited for before the time is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Lets go of partitions: called while they are still this member's, which they are no longer when it returns.
type LetGo = Box<dyn Fn(&BTreeSet<u16>) + Send + Sync>;

struct Context {
    let_go: LetGo,
    here: Mutex<BTreeSet<u16>>,
}

impl Context {
    fn here(&self) -> std::sync::MutexGuard<'_, BTreeSet<u16>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        say(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let gone = numbers(partitions);
            self.here().retain(|partition| !gone.contains(partition));
            if !gone.is_empty() {
                (self.let_go)(&gone);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            // It is read when it is taken over, to its end and by another client.
            if let Err(error) = consumer.pause(partitions) {
                tracing::debug!(%error, "partitions of the receivers cannot be paused");
            }
            self.here().extend(numbers(partitions));
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> BTreeSet<u16> {
    partitions.elements().iter().filter_map(|element| u16::try_from(element.partition()).ok()).collect()
}

/// A member of the notifiers' group.
pub struct Notifiers {
    consumer: BaseConsumer<Context>,
    topic: String,
}

impl Notifiers {
    /// Joins the group. `let_go` is called from [`Notifiers::poll`] when partitions go elsewhere; nobody else has them before it
    /// returns, unless the brokers gave this member up.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn new(cluster: &Cluster, let_go: impl Fn(&BTreeSet<u16>) + Send + Sync + 'static) -> Result<Self, ClusterError> {
        let mut config = cluster.client();
        config
            .set("group.id", format!("{}notifiers", cluster.prefix))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "latest")
            .set("isolation.level", "read_committed");
        let context = Context { let_go: Box::new(let_go), here: Mutex::default() };
        let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(ClusterError::Settings)?;
        let notifiers = Self { consumer, topic: Topic::Cursors.name(cluster) };
        notifiers.join().map_err(ClusterError::Settings)?;
        Ok(notifiers)
    }

    /// Joins the group, also once it has left it.
    ///
    /// # Errors
    /// The client is broken.
    pub fn join(&self) -> Result<(), KafkaError> {
        self.consumer.subscribe(&[&self.topic])
    }

    /// Leaves the group: what is here goes elsewhere, as [`Notifiers::poll`] brings it about.
    pub fn leave(&self) {
        self.consumer.unsubscribe();
    }

    /// Lets the group do what it does, for so long. What passes is told.
    pub fn poll(&self, wait: Duration) -> Option<KafkaError> {
        self.consumer.poll(wait)?.err()
    }

    /// The partitions that came here since it was asked last, and are here still.
    pub fn here(&self) -> BTreeSet<u16> {
        std::mem::take(&mut *self.consumer.context().here())
    }

    /// Waits until nothing is on its way any more that the member wrote which had the partition before.
    ///
    /// # Errors
    /// The brokers do not tell, or a transaction is not over.
    pub fn settled(&self, partition: u16) -> Result<(), KafkaError> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, partition.into());
        let told = self.consumer.committed_offsets(asked, REQUEST_WAIT)?;
        told.elements().iter().try_for_each(TopicPartitionListElem::error)
    }

    /// As what the group knows this member. Whoever writes asks first for this and then whether the partition is its own: what the
    /// group gave away meanwhile is refused then.
    pub fn group(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.consumer.group_metadata().map(Arc::new)
    }
}

/// What is kept, by its partition.
pub type KeptRecord = (u16, StateKey, Option<StateRecord>);

/// The one transactional producer of a notifier.
pub struct Cursors {
    producer: Transactional,
    topic: String,
}

impl Cursors {
    /// A producer by this name, which fences off whoever had it before.
    ///
    /// # Errors
    /// No broker answers, or it is told to give up before one does.
    pub fn new(cluster: &Cluster, name: &str, give_up: &dyn Fn() -> bool) -> Result<Self, ClusterError> {
        let producer = Transactional::new(cluster, &format!("{name}.notifier"), give_up)?;
        Ok(Self { producer, topic: Topic::Cursors.name(cluster) })
    }

    /// Keeps all of it or nothing, as this member of the group.
    ///
    /// # Errors
    /// Nothing of it is kept then; if it is not known, asking for the same again does no harm.
    pub fn keep(
        &self,
        group: &Arc<ConsumerGroupMetadata>,
        records: &[KeptRecord],
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), TransactionError> {
        self.producer.commit(give_up, |producer| {
            let mut offsets = TopicPartitionList::new();
            for partition in records.iter().map(|(partition, ..)| *partition).collect::<BTreeSet<u16>>() {
                // Nobody reads by it: that it may be moved is what fences.
                offsets.add_partition_offset(&self.topic, partition.into(), Offset::Offset(0))?;
            }
            // First, so that whoever may not does not write either.
            producer.send_offsets(offsets, Arc::clone(group), give_up)?;
            records.iter().try_for_each(|(partition, key, record)| {
                let (key, payload) = write_put(key, record.as_ref());
                producer.send(&self.topic, (*partition).into(), &key, payload.as_deref())
            })
        })
    }
}

/// What is kept of the receivers of a partition, as of all transactions that have begun by now.
///
/// # Errors
/// The brokers do not answer, a transaction stays open, or a record cannot be read.
pub fn load_cursors(cluster: &Cluster, partition: u16) -> Result<HashMap<StateKey, StateRecord>, RestoreError> {
    Ok(Restorer::of(cluster, Topic::Cursors)?.restore(partition)?.records)
}

/// Behind the last record of each partition of a topic, as of now.
///
/// # Errors
/// No broker answers.
pub fn ends(cluster: &Cluster, topic: Topic) -> Result<BTreeMap<u16, i64>, ClusterError> {
    let (reader, name) = (reader(cluster)?, topic.name(cluster));
    let end = |partition: u16| {
        let told = reader.fetch_watermarks(&name, partition.into(), REQUEST_WAIT);
        told.map(|(_, end)| (partition, end)).map_err(|error| cluster.unreachable(error))
    };
    (0..cluster.partitions).map(end).collect()
}

/// Whether all that counts and stands before `ends` stands before `copied`: between them are only marks of transactions, and what was
/// in transactions that came to nothing.
///
/// # Errors
/// No broker answers in time.
pub fn reaches(
    cluster: &Cluster,
    topic: Topic,
    copied: &BTreeMap<u16, i64>,
    ends: &BTreeMap<u16, i64>,
) -> Result<bool, ClusterError> {
    let (reader, name) = (reader(cluster)?, topic.name(cluster));
    let mut open: BTreeMap<u16, i64> = BTreeMap::new();
    let mut assigned = TopicPartitionList::new();
    for (partition, end) in ends {
        let next = copied.get(partition).copied().unwrap_or_default();
        if next < *end {
            open.insert(*partition, *end);
            let from = if next == 0 { Offset::Beginning } else { Offset::Offset(next) };
            assigned.add_partition_offset(&name, (*partition).into(), from).map_err(ClusterError::Settings)?;
        }
    }
    if open.is_empty() {
        return Ok(true);
    }
    reader.assign(&assigned).map_err(ClusterError::Settings)?;
    let begun = Instant::now();
    while !open.is_empty() {
        let partition = match reader.poll(LOOK) {
            Some(Ok(message)) => {
                let Ok(partition) = u16::try_from(message.partition()) else { continue };
                if open.get(&partition).is_some_and(|end| message.offset() < *end) {
                    return Ok(false);
                }
                partition
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => u16::try_from(partition).unwrap_or_default(),
            Some(Err(error)) if begun.elapsed() > REQUEST_WAIT => return Err(cluster.unreachable(error)),
            None if begun.elapsed() > REQUEST_WAIT => return Ok(false),
            _ => continue,
        };
        open.remove(&partition);
    }
    Ok(true)
}

fn reader(cluster: &Cluster) -> Result<BaseConsumer<Quiet>, ClusterError> {
    let mut config = cluster.reader("notifiers-look", "read_committed");
    config.set("enable.partition.eof", "true");
    config.create_with_context(Quiet).map_err(ClusterError::Settings)
}
