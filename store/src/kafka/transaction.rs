//! A transactional producer: what it writes, and how far its group has come with what that followed from, counts together or not
//! at all (KIP-98, KIP-447).

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use super::cluster::{Cluster, ClusterError, REQUEST_WAIT};

/// After this time a transaction that nobody ends is aborted by the brokers, and what waits behind it goes on.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
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

/// One for each name.
pub(super) struct Transactional(ThreadedProducer<DefaultProducerContext>);

impl Transactional {
    /// A producer by this name, which fences off whoever had it before and ends what that left open.
    ///
    /// # Errors
    /// No broker answers, or it is told to give up before one does.
    pub(super) fn new(cluster: &Cluster, name: &str, give_up: &dyn Fn() -> bool) -> Result<Self, ClusterError> {
        // Why none answers is known to this one only.
        cluster.reach()?;
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
        asked_again(&|| Instant::now() > until || give_up(), || producer.init_transactions(ANSWER_WAIT))
            .map_err(|error| cluster.unreachable(error))?;
        Ok(Self(producer))
    }

    /// Does in one transaction what `work` does.
    ///
    /// # Errors
    /// Nothing of it counts then; or it is not known whether it does, and a producer by the same name finds out as it begins.
    pub(super) fn commit(
        &self,
        give_up: &dyn Fn() -> bool,
        work: impl FnOnce(&Self) -> Result<(), KafkaError>,
    ) -> Result<(), TransactionError> {
        let begun = self.0.begin_transaction().and_then(|()| work(self));
        // What the outcome is may take longer to be known than one request does.
        begun.and_then(|()| asked_again(give_up, || self.0.commit_transaction(ANSWER_WAIT))).map_err(|error| self.failed(error))
    }

    /// The group is there from now on, if `group` is a member of it and has these partitions.
    pub(super) fn send_offsets(&self, offsets: &TopicPartitionList, group: &ConsumerGroupMetadata) -> Result<(), KafkaError> {
        self.0.send_offsets_to_transaction(offsets, group, REQUEST_WAIT)
    }

    /// Writes a record; without a payload its key is gone. It waits for room.
    pub(super) fn send(&self, topic: &str, partition: i32, key: &str, payload: Option<&[u8]>) -> Result<(), KafkaError> {
        let mut record = BaseRecord::to(topic).partition(partition).key(key);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        loop {
            match self.0.send(record) {
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
        match self.0.abort_transaction(REQUEST_WAIT) {
            Ok(()) => TransactionError::Aborted(error),
            Err(abort) => {
                tracing::debug!(error = %abort, "a transaction cannot be aborted");
                TransactionError::Fatal(error)
            }
        }
    }
}

/// Asks until there is an answer, or it is given up.
fn asked_again(give_up: &dyn Fn() -> bool, ask: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    loop {
        match ask() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && !give_up() => {
                tracing::debug!(%error, "the brokers are asked again");
            }
            outcome => return outcome,
        }
    }
}
