//! What a replica reads: changes and state of all partitions, from where its own store has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::change::Change;
use klaxon_schemas::state::Copied;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::cluster::{Cluster, ClusterError};
use super::record::{StateFact, Unread, read_change, read_state};
use super::topics::Topic;

/// How much may wait in memory to be copied.
const QUEUED_KBYTES_MAX: u32 = 32 * 1024;

/// How long the brokers are waited for to see whether they answer.
const LOOK_WAIT: Duration = Duration::from_secs(2);

/// A record that was read, of a partition, and the place behind it.
#[derive(Debug)]
pub enum Record {
    /// A change.
    Change {
        /// The partition.
        partition: u16,
        /// The place behind it.
        next: i64,
        /// What it is, or why it is nothing.
        change: Result<Arc<Change>, Unread>,
    },
    /// A part of the state.
    State {
        /// The partition.
        partition: u16,
        /// The place behind it.
        next: i64,
        /// What it is, or why it is nothing.
        fact: Result<StateFact, Unread>,
    },
}

/// What [`Copy::poll`] brings.
#[derive(Debug)]
pub enum Copying {
    /// A record.
    Record(Record),
    /// Nothing came in time.
    Nothing,
    /// No broker can be reached.
    Away,
    /// They say something else that passes.
    Trouble(KafkaError),
}

/// Reads changes and state.
pub struct Copy {
    consumer: BaseConsumer,
    changes: String,
}

impl Copy {
    /// Reads on from where `copied` says, of partitions that it does not name from the beginning.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn start(cluster: &Cluster, copied: &BTreeMap<u16, Copied>) -> Result<Self, ClusterError> {
        let mut config = cluster.reader("replicas", "read_committed");
        config.set("fetch.wait.max.ms", "100").set("queued.max.messages.kbytes", QUEUED_KBYTES_MAX.to_string());
        let consumer: BaseConsumer = config.create().map_err(ClusterError::Settings)?;
        let (changes, state) = (Topic::Changes.name(cluster), Topic::State.name(cluster));
        let mut assigned = TopicPartitionList::new();
        for partition in 0..cluster.partitions {
            let from = copied.get(&partition).copied().unwrap_or_default();
            for (topic, next) in [(&changes, from.changes), (&state, from.state)] {
                let offset = if next == 0 { Offset::Beginning } else { Offset::Offset(next) };
                assigned.add_partition_offset(topic, partition.into(), offset).map_err(ClusterError::Settings)?;
            }
        }
        consumer.assign(&assigned).map_err(ClusterError::Settings)?;
        Ok(Self { consumer, changes })
    }

    /// Waits so long for the next record.
    pub fn poll(&self, wait: Duration) -> Copying {
        match self.consumer.poll(wait) {
            None => Copying::Nothing,
            Some(Ok(message)) => self.read(&message),
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) => Copying::Away,
            Some(Err(error)) => Copying::Trouble(error),
        }
    }

    /// Whether the brokers answer now. It takes as long as that.
    pub fn is_there(&self) -> bool {
        self.consumer.fetch_watermarks(&self.changes, 0, LOOK_WAIT).is_ok()
    }

    fn read(&self, message: &BorrowedMessage<'_>) -> Copying {
        let Ok(partition) = u16::try_from(message.partition()) else { return Copying::Nothing };
        let next = message.offset() + 1;
        Copying::Record(if message.topic() == self.changes {
            Record::Change { partition, next, change: read_change(message) }
        } else {
            Record::State { partition, next, fact: read_state(message) }
        })
    }
}
