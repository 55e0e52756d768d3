//! What a partition's state was when it was last committed: the compacted topic, read to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Subject;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::state::{StateKey, StateRecord};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::cluster::{Cluster, ClusterError, Quiet, REQUEST_WAIT};
use super::record::{Mark, StateFact, Unread, check_reader, read_change, read_fact};
use super::topics::Topic;
use crate::journal::record::forgets;

/// How long the next record is waited for.
const RESTORE_WAIT: Duration = Duration::from_secs(60);
/// How long one record is waited for before the time is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a broker waits for more where nothing more comes: the end is told behind that.
const FETCH_WAIT_MS: u32 = 10;
/// The most that one answer of a broker has of a partition: a state is read in few of them.
const FETCH_BYTES_MAX: u32 = 8 << 20;

/// What stood in a partition.
#[derive(Debug, Default)]
pub struct Restored {
    /// The alarms.
    pub alarms: HashMap<AlarmId, Arc<Alarm>>,
    /// The keyed records.
    pub records: HashMap<StateKey, StateRecord>,
    /// How far it has come; nothing if there is no state.
    pub mark: Option<Mark>,
}

/// Why a partition's state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// No broker answers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A record cannot be read.
    #[error("record {offset} of {topic} cannot be read")]
    Unread {
        /// The topic with the partition.
        topic: String,
        /// The record's place.
        offset: i64,
        /// Why.
        #[source]
        source: Unread,
    },
    /// A transaction stands open in it: what it becomes belongs to the state. If nobody ends it the brokers do, in seconds.
    #[error("a transaction stands open in {topic} at {stable} of {end}")]
    Open {
        /// The topic with the partition.
        topic: String,
        /// Where it begins.
        stable: i64,
        /// Where the partition ends.
        end: i64,
    },
    /// The brokers are too slow, or fall away while it is read.
    #[error("nothing of {topic} came for {}s, and its end is not reached", RESTORE_WAIT.as_secs())]
    Slow {
        /// The topic with the partition.
        topic: String,
    },
}

impl Restored {
    fn take(&mut self, fact: StateFact) {
        match fact {
            StateFact::Alarm(id, Some(alarm)) => drop(self.alarms.insert(id, Arc::new(*alarm))),
            StateFact::Alarm(id, None) => drop(self.alarms.remove(&id)),
            StateFact::Put(key, Some(record)) => drop(self.records.insert(key, record)),
            StateFact::Put(key, None) => drop(self.records.remove(&key)),
            StateFact::Mark(mark) => self.mark = Some(mark),
        }
    }
}

/// Reads what stood in partitions.
pub struct Restorer {
    cluster: Cluster,
    topic: String,
    /// Tells where a partition ends, with what is not over.
    ends: BaseConsumer<Quiet>,
    /// Tells where the first transaction begins that is not over.
    stable: BaseConsumer<Quiet>,
}

/// The last record with a key, as it came.
struct Raw {
    offset: i64,
    reader: Result<(), Unread>,
    payload: Box<[u8]>,
}

impl Restorer {
    /// Of what stands. Nothing is read yet.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn new(cluster: &Cluster) -> Result<Self, ClusterError> {
        Self::of(cluster, Topic::State)
    }

    /// Of a topic that holds keyed records.
    pub(super) fn of(cluster: &Cluster, topic: Topic) -> Result<Self, ClusterError> {
        let (ends, stable) = (consumer(cluster, "read_uncommitted")?, consumer(cluster, "read_committed")?);
        Ok(Self { cluster: cluster.clone(), topic: topic.name(cluster), ends, stable })
    }

    /// The state of a partition, as of all transactions that have begun by now.
    ///
    /// # Errors
    /// The brokers do not answer, a transaction is open, or a record cannot be read.
    pub fn restore(&self, partition: u16) -> Result<Restored, RestoreError> {
        let mut last: HashMap<Box<[u8]>, Raw> = HashMap::new();
        self.read(partition, |message| {
            let key: Box<[u8]> = message.key().unwrap_or_default().into();
            match message.payload() {
                Some(payload) => {
                    let (offset, reader) = (message.offset(), check_reader(message));
                    last.insert(key, Raw { offset, reader, payload: payload.into() });
                }
                None => drop(last.remove(&key)),
            }
            Ok(())
        })?;
        // Of what was overwritten nothing needs to be understood.
        let mut restored = Restored::default();
        for (key, Raw { offset, reader, payload }) in last {
            let fact = reader.and_then(|()| read_fact(Some(&key), Some(&payload)));
            restored.take(fact.map_err(|source| self.unread(partition, offset, source))?);
        }
        Ok(restored)
    }

    /// The alarms that stand in a partition by its changes, those that are still there: of [`Topic::Changes`].
    ///
    /// # Errors
    /// The brokers do not answer, a transaction is open, or a record cannot be read.
    pub(super) fn standing(&self, partition: u16) -> Result<BTreeMap<AlarmId, Arc<Alarm>>, RestoreError> {
        let mut alarms = BTreeMap::new();
        self.read(partition, |message| {
            let change = read_change(message).map_err(|source| self.unread(partition, message.offset(), source))?;
            if let Subject::Alarm { alarm, .. } = &change.subject
                && !change.past
            {
                match forgets(change.kind) {
                    true => drop(alarms.remove(&alarm.id)),
                    false => drop(alarms.insert(alarm.id, Arc::clone(alarm))),
                }
            }
            Ok(())
        })?;
        Ok(alarms)
    }

    fn unread(&self, partition: u16, offset: i64, source: Unread) -> RestoreError {
        RestoreError::Unread { topic: self.name(partition), offset, source }
    }

    /// Shows what is there of a partition, as of all transactions that have begun by now.
    fn read(
        &self,
        partition: u16,
        mut show: impl FnMut(&BorrowedMessage<'_>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let (number, unreachable) = (i32::from(partition), |error| RestoreError::Cluster(self.cluster.unreachable(error)));
        let end_of = |consumer: &BaseConsumer<Quiet>| consumer.fetch_watermarks(&self.topic, number, REQUEST_WAIT);
        // Where the last record is, also one of a transaction that is not over.
        let (first, end) = end_of(&self.ends).map_err(unreachable)?;
        let (_, stable) = end_of(&self.stable).map_err(unreachable)?;
        if stable < end {
            return Err(RestoreError::Open { topic: self.name(partition), stable, end });
        }
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(&self.topic, number, Offset::Offset(first)).map_err(unreachable)?;
        // A client of its own: where one has read the same partition before, its position is still that for a while.
        let reader = consumer(&self.cluster, "read_committed")?;
        reader.assign(&assigned).map_err(unreachable)?;
        let (mut moved, mut reached) = (Instant::now(), first);
        while reached < end {
            if moved.elapsed() > RESTORE_WAIT {
                return Err(RestoreError::Slow { topic: self.name(partition) });
            }
            match reader.poll(LOOK) {
                Some(Ok(message)) => {
                    show(&message)?;
                    (moved, reached) = (Instant::now(), message.offset() + 1);
                }
                // The last records may be marks of transactions, which are not shown; the position has gone beyond them.
                Some(Err(KafkaError::PartitionEOF(_))) | None => reached = position(&reader, reached),
                Some(Err(error)) => tracing::debug!(%error, partition, "it is read on"),
            }
        }
        tracing::debug!(topic = self.topic, partition, first, end, "a partition is read");
        Ok(())
    }

    fn name(&self, partition: u16) -> String {
        format!("{}/{partition}", self.topic)
    }
}

fn consumer(cluster: &Cluster, isolation: &str) -> Result<BaseConsumer<Quiet>, ClusterError> {
    let mut config = cluster.reader("restore", isolation);
    config
        .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
        .set("max.partition.fetch.bytes", FETCH_BYTES_MAX.to_string())
        .set("enable.partition.eof", "true");
    config.create_with_context(Quiet).map_err(ClusterError::Settings)
}

fn position(reader: &BaseConsumer<Quiet>, reached: i64) -> i64 {
    let told = reader.position().ok();
    let offset = told.as_ref().and_then(|told| told.elements().first().map(TopicPartitionListElem::offset));
    match offset {
        Some(Offset::Offset(next)) => reached.max(next),
        _ => reached,
    }
}
