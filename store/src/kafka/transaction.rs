//! A transactional producer: what it writes, and how far its group has come with what that followed from, counts together or not
//! at all (KIP-98, KIP-447).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
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
/// How long the queue is waited for before it is looked at again.
const QUEUE_LOOK: Duration = Duration::from_millis(1);
/// How long the loop waits for a call before it is looked whether to give up.
const CALL_LOOK: Duration = Duration::from_millis(500);
/// The most calls that are left behind unanswered at one time, each with its client.
const LEFT_BEHIND_MAX: usize = 8;

/// How many calls are left behind.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

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
pub(super) struct Transactional(Arc<ThreadedProducer<DefaultProducerContext>>);

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
        Ok(Self(Arc::new(producer)))
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
        if begun.is_ok() {
            self.wait_until_sent(give_up);
        }
        // What the outcome is may take longer to be known than one request does.
        begun.and_then(|()| asked_again(give_up, || self.0.commit_transaction(ANSWER_WAIT))).map_err(|error| self.failed(error))
    }

    /// Waits until the brokers have what was sent. The client's own flush sleeps 100 ms at a time where another thread hears of it.
    fn wait_until_sent(&self, give_up: &dyn Fn() -> bool) {
        let begun = Instant::now();
        while self.0.in_flight_count() > 0 && begun.elapsed() < ANSWER_WAIT && !give_up() {
            std::thread::sleep(QUEUE_LOOK);
        }
    }

    /// The group is there from now on, if `group` is a member of it and has these partitions.
    ///
    /// librdkafka 2.12 keeps to no time limit here: where the group's coordinator goes away at the wrong moment, the call comes
    /// back when a connection to some other broker happens to change, which may be never. By then the brokers have ended the
    /// transaction. So the call is made on a thread of its own, and when it is overdue it is left behind, with its client: another
    /// one by the same name fences it off.
    pub(super) fn send_offsets(
        &self,
        offsets: TopicPartitionList,
        group: Arc<ConsumerGroupMetadata>,
        give_up: &dyn Fn() -> bool,
    ) -> Result<(), KafkaError> {
        let client = Arc::clone(&self.0);
        let call = move || client.send_offsets_to_transaction(&offsets, &group, TRANSACTION_TIMEOUT);
        answered_within(TRANSACTION_TIMEOUT + ANSWER_WAIT, give_up, call).unwrap_or_else(|| {
            tracing::warn!("the client of the brokers does not come back with an answer; another one takes its place");
            Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut))
        })
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

/// How a call on a thread of its own stands.
const RUNS: u8 = 0;
const ENDED: u8 = 1;
const LEFT: u8 = 2;

/// Says that a call has ended, however it does.
struct Ends(Arc<AtomicU8>);

impl Drop for Ends {
    fn drop(&mut self) {
        if self.0.swap(ENDED, Ordering::AcqRel) == LEFT {
            LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What the call answers; nothing if it is overdue or given up. It is waited for however long where too many are left behind.
fn answered_within<T: Send + 'static>(
    limit: Duration,
    give_up: &dyn Fn() -> bool,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (answers, answer) = mpsc::sync_channel(1);
    let (begun, standing) = (Instant::now(), Arc::new(AtomicU8::new(RUNS)));
    let ends = Ends(Arc::clone(&standing));
    let spawned = std::thread::Builder::new().name("klaxon-offsets".to_owned()).spawn(move || {
        let _ends = ends;
        // Who left it behind does not wait for it.
        let _ = answers.send(call());
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread can be had");
        return None;
    }
    loop {
        match answer.recv_timeout(CALL_LOOK.min(limit)) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let is_overdue = begun.elapsed() >= limit && LEFT_BEHIND.load(Ordering::Relaxed) < LEFT_BEHIND_MAX;
        if is_overdue || give_up() {
            break;
        }
    }
    LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
    if standing.compare_exchange(RUNS, LEFT, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        return None;
    }
    // It has answered after all.
    LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
    answer.try_recv().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_call_that_does_not_come_back_is_left_behind_up_to_a_limit() {
        let never = || false;
        assert_eq!(answered_within(Duration::from_secs(60), &never, || 7), Some(7));

        let (limit, gate) = (Duration::from_millis(5), Arc::new(Mutex::new(())));
        let shut = gate.lock().expect("nobody broke it");
        let hangs = || {
            let gate = Arc::clone(&gate);
            move || drop(gate.lock())
        };
        for _ in 0..LEFT_BEHIND_MAX {
            assert_eq!(answered_within(limit, &never, hangs()), None);
        }
        // One more is waited for, until it answers or is given up.
        let looked = std::cell::Cell::new(0);
        let gives_up = || looked.replace(looked.get() + 1) > 20;
        assert_eq!(answered_within(limit, &gives_up, hangs()), None);
        assert!(looked.get() > 20, "it is given up, not overdue");
        drop(shut);
        while LEFT_BEHIND.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }
}
