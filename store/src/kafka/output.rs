//! What a correlator writes: changes and state, with how far it has read, in one transaction (KIP-98, KIP-447).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Subject;
use klaxon_schemas::ids::AlarmId;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::cluster::{Cluster, ClusterError, REQUEST_WAIT};
use super::record::{Mark, alarm_key, write_alarm, write_change, write_mark, write_put};
use super::topics::Topic;
use crate::Results;
use crate::journal::record::forgets;

/// After this time a transaction that nobody ends is aborted by the brokers, and what waits behind it goes on.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The most records that wait to be sent.
const QUEUE_RECORDS_MAX: u32 = 100_000;
/// How long one answer of the transaction's coordinator is waited for before it is looked whether to give up.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long a full queue is waited for before it is looked at again.
const QUEUE_LOOK: Duration = Duration::from_millis(1);

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Nothing of it counts; what was applied must be applied anew from what is committed.
    #[error("the transaction is aborted")]
    Aborted(#[source] KafkaError),
    /// This producer can do no more: another one has its name, or has taken its partitions, or the brokers gave it up.
    #[error("the transactional producer is done for")]
    Fatal(#[source] KafkaError),
}

/// The one transactional producer of a correlator.
pub struct Transactions {
    producer: ThreadedProducer<DefaultProducerContext>,
    changes: String,
    state: String,
    events: String,
}

impl Transactions {
    /// A producer by this name, which fences off whoever had it before and ends what that left open.
    ///
    /// # Errors
    /// No broker answers, or it is told to give up before one does.
    pub fn new(cluster: &Cluster, name: &str, give_up: &dyn Fn() -> bool) -> Result<Self, ClusterError> {
        let mut config = cluster.client();
        config
            .set("transactional.id", format!("{}{name}", cluster.prefix))
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string())
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            // A transaction ends with a flush: to wait for more costs time and brings nothing.
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string());
        let producer: ThreadedProducer<_> = config.create().map_err(ClusterError::Settings)?;
        let until = Instant::now() + REQUEST_WAIT;
        asked_again(|| Instant::now() > until || give_up(), || producer.init_transactions(ANSWER_WAIT))
            .map_err(|error| cluster.unreachable(error))?;
        let name = |topic: Topic| topic.name(cluster);
        Ok(Self { producer, changes: name(Topic::Changes), state: name(Topic::State), events: name(Topic::Events) })
    }

    /// Commits what followed in some partitions, each with where its events were read up to, as one.
    ///
    /// # Errors
    /// Nothing of it is committed then; or it is not known whether it is, and a producer by the same name finds out as it begins.
    pub fn commit(
        &self,
        group: &ConsumerGroupMetadata,
        parts: impl IntoIterator<Item = (u16, i64, Results)>,
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), TransactionError> {
        self.producer.begin_transaction().map_err(|error| self.failed(error))?;
        let mut offsets = TopicPartitionList::new();
        for (partition, next, results) in parts {
            self.send_all(partition.into(), next, results).map_err(|error| self.failed(error))?;
            let offset = rdkafka::Offset::Offset(next);
            offsets.add_partition_offset(&self.events, partition.into(), offset).map_err(|error| self.failed(error))?;
        }
        let sent = self.producer.send_offsets_to_transaction(&offsets, group, REQUEST_WAIT);
        // What the outcome is may take longer to be known than one request does.
        sent.and_then(|()| asked_again(give_up, || self.producer.commit_transaction(ANSWER_WAIT)))
            .map_err(|error| self.failed(error))
    }

    fn send_all(&self, partition: i32, next: i64, results: Results) -> Result<(), KafkaError> {
        // However often an alarm changed in it, the state has it once.
        let mut alarms: BTreeMap<AlarmId, Option<&Arc<Alarm>>> = BTreeMap::new();
        for change in &results.changes {
            let (key, payload) = write_change(change);
            self.send(&self.changes, partition, &key, Some(&payload))?;
            if let Subject::Alarm { alarm, .. } = &change.subject
                && !change.past
            {
                alarms.insert(alarm.id, (!forgets(change.kind)).then_some(alarm));
            }
        }
        alarms.extend(results.touched.iter().map(|alarm| (alarm.id, Some(alarm))));
        for (id, alarm) in alarms {
            let payload = alarm.map(|alarm| write_alarm(alarm));
            self.send(&self.state, partition, &alarm_key(id), payload.as_deref())?;
        }
        for (key, record) in &results.puts {
            let (key, payload) = write_put(key, record.as_ref());
            self.send(&self.state, partition, &key, payload.as_deref())?;
        }
        let (key, payload) = write_mark(&Mark { next, cursor: results.cursor });
        self.send(&self.state, partition, key, Some(&payload))
    }

    fn send(&self, topic: &str, partition: i32, key: &str, payload: Option<&[u8]>) -> Result<(), KafkaError> {
        let mut record = BaseRecord::to(topic).partition(partition).key(key);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(QUEUE_LOOK);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn failed(&self, error: KafkaError) -> TransactionError {
        if let KafkaError::Transaction(why) = &error
            && why.is_fatal()
        {
            return TransactionError::Fatal(error);
        }
        match self.producer.abort_transaction(REQUEST_WAIT) {
            Ok(()) => TransactionError::Aborted(error),
            Err(abort) => {
                tracing::debug!(error = %abort, "a transaction cannot be aborted");
                TransactionError::Fatal(error)
            }
        }
    }
}

/// Asks until there is an answer, or it is given up.
fn asked_again(give_up: impl Fn() -> bool, ask: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    loop {
        match ask() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !give_up() => {
                tracing::debug!(%error, "the brokers are asked again");
            }
            outcome => return outcome,
        }
    }
}
