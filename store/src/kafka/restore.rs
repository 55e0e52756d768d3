//! What a partition's state was when it was last committed: the compacted topic, read to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::state::{StateKey, StateRecord};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::cluster::{Cluster, ClusterError, REQUEST_WAIT};
use super::output::TRANSACTION_TIMEOUT;
use super::record::{Mark, StateFact, Unread, read_state};
use super::topics::Topic;

/// How long the end of a state is waited for: a transaction that nobody ends is aborted before that.
const RESTORE_WAIT: Duration = Duration::from_secs(60).saturating_add(TRANSACTION_TIMEOUT);
/// How long one record is waited for before the time is looked at.
const LOOK: Duration = Duration::from_millis(200);

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
    /// A transaction stands open in it.
    #[error("the end of {topic} did not come within {}s: a transaction stands open", RESTORE_WAIT.as_secs())]
    Open {
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

/// Reads the state of a partition, as of all transactions that have begun by now.
///
/// # Errors
/// The brokers do not answer, a transaction stays open, or a record cannot be read.
pub fn restore(cluster: &Cluster, partition: u16) -> Result<Restored, RestoreError> {
    let (topic, number) = (Topic::State.name(cluster), i32::from(partition));
    let unreachable = |error: KafkaError| RestoreError::Cluster(cluster.unreachable(error));
    let consumer = |isolation: &str| -> Result<BaseConsumer, RestoreError> {
        let mut config = cluster.client();
        // It joins no group; the client wants a name all the same.
        config
            .set("group.id", format!("{}restore", cluster.prefix))
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true");
        config.create().map_err(|error| ClusterError::Settings(error).into())
    };
    // Where the last record is, also one of a transaction that is not over: what it becomes belongs to the state.
    let (_, end) = consumer("read_uncommitted")?.fetch_watermarks(&topic, number, REQUEST_WAIT).map_err(unreachable)?;
    let reader = consumer("read_committed")?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(&topic, number, Offset::Beginning).map_err(unreachable)?;
    reader.assign(&assigned).map_err(unreachable)?;
    let (begun, mut restored, mut reached) = (Instant::now(), Restored::default(), 0);
    while reached < end {
        if begun.elapsed() > RESTORE_WAIT {
            return Err(RestoreError::Open { topic: format!("{topic}/{partition}") });
        }
        match reader.poll(LOOK) {
            Some(Ok(message)) => {
                let fact = read_state(&message).map_err(|source| {
                    let topic = format!("{topic}/{partition}");
                    RestoreError::Unread { topic, offset: message.offset(), source }
                })?;
                restored.take(fact);
                reached = message.offset() + 1;
            }
            // The last records may be marks of transactions, which are not shown; the position has gone beyond them.
            Some(Err(KafkaError::PartitionEOF(_))) => reached = position(&reader, reached),
            Some(Err(error)) => tracing::debug!(%error, partition, "the state is read on"),
            None => {}
        }
    }
    Ok(restored)
}

fn position(reader: &BaseConsumer, reached: i64) -> i64 {
    let told = reader.position().ok();
    let offset = told.as_ref().and_then(|told| told.elements().first().map(|element| element.offset()));
    match offset {
        Some(Offset::Offset(next)) => reached.max(next),
        _ => reached,
    }
}
