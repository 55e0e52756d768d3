//! What a correlator reads: the events of the partitions that its group gave it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klaxon_schemas::entry::Entry;
use klaxon_schemas::names::{Door, Site};
use klaxon_schemas::time::JournalTime;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::cluster::{Cluster, ClusterError, REQUEST_WAIT, say};
use super::record::{self, ReadUpTo, Unread};
use super::topics::Topic;

/// After this time without a word of a correlator, others take its sites over.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is waited for the outcome of a transaction that moves the group's offset; then others go first.
const STABLE_WAIT: Duration = Duration::from_secs(2);
const MICROS_IN_MS: u64 = 1_000;
/// How long brokers that have nothing wait until they say so.
const FETCH_WAIT_MS: u32 = 100;
/// How much may wait in memory to be applied.
const QUEUED_KBYTES_MAX: u32 = 64 * 1024;

/// What the group did with partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// They are this correlator's from now on.
    Here(BTreeSet<u16>),
    /// They are not any more.
    Away(BTreeSet<u16>),
}

/// What was polled.
#[derive(Debug)]
pub enum Polled {
    /// A record at its place.
    Record {
        /// The partition.
        partition: u16,
        /// Its place there.
        offset: i64,
        /// When it came in, by the clock of the brokers.
        at: JournalTime,
        /// What it is, or why it is nothing.
        entry: Result<Entry, Unread>,
    },
    /// This partition was read to its end.
    End(u16),
    /// Nothing came in time.
    Nothing,
    /// The brokers cannot be reached now, or say something else that passes.
    Trouble(KafkaError),
}

/// What the group did that was not asked for yet, and as what it knows this member since then.
#[derive(Default)]
struct Context {
    moved: Mutex<Vec<Moved>>,
    group: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        say(&error, reason);
    }
}

impl ConsumerContext for Context {
    /// The client would begin where the group is, and wait for that of all partitions if a transaction is open on one of them.
    /// Each begins where its state is instead, and nothing of it is read before: see [`Input::begin_at`].
    ///
    /// The place that it is given is never read from, and is a number all the same: what place "the end" is the client would ask the
    /// brokers, and an answer that comes late, after others were sought, moves it there. What came in meanwhile would be passed over.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let done = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let begin = partitions.set_all_offsets(Offset::Offset(0));
            let done = begin.and_then(|()| consumer.incremental_assign(partitions)).and_then(|()| consumer.pause(partitions));
            lock(&self.moved).push(Moved::Here(numbers(partitions)));
            done
        } else {
            lock(&self.moved).push(Moved::Away(numbers(partitions)));
            consumer.incremental_unassign(partitions)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "what the group gave or took cannot be followed");
        }
        let group = if consumer.assignment_lost() { None } else { consumer.group_metadata() };
        *lock(&self.group) = group.map(Arc::new);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the records of a partition are others than those that were read: they end before, or one that came in later stands
/// among them. The brokers lost what they had not written to their disks, or the topic was made anew.
pub(super) fn are_others<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: u16,
    read: ReadUpTo,
) -> Result<bool, KafkaError> {
    let (_, end) = consumer.fetch_watermarks(topic, partition.into(), REQUEST_WAIT)?;
    if read.next > end || read.at == JournalTime::default() {
        return Ok(read.next > end);
    }
    let later = i64::try_from(read.at.0 / MICROS_IN_MS).unwrap_or(i64::MAX - 1) + 1;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_offset(topic, partition.into(), Offset::Offset(later))?;
    let told = consumer.offsets_for_times(asked, REQUEST_WAIT)?;
    let told = told.elements();
    let Some(first) = told.first() else { return Ok(false) };
    first.error()?;
    Ok(matches!(first.offset(), Offset::Offset(first) if first < read.next))
}

/// The name of the correlators' group, behind what all names begin with.
pub(super) const CORRELATORS: &str = "correlators";

/// The whole name.
pub(super) fn group_of(cluster: &Cluster) -> String {
    format!("{}{CORRELATORS}", cluster.prefix)
}

fn numbers(partitions: &TopicPartitionList) -> BTreeSet<u16> {
    partitions.elements().iter().filter_map(|element| u16::try_from(element.partition()).ok()).collect()
}

/// The events, as a member of the correlators' group.
pub struct Input {
    consumer: BaseConsumer<Context>,
    events: String,
    partitions: u16,
    own: Site,
    door: Door,
}

impl Input {
    /// Joins the group. Events that name no site are of `own`; those that no node sent came by `door`.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn join(cluster: &Cluster, own: Site, door: Door) -> Result<Self, ClusterError> {
        let mut config = cluster.client();
        config
            .set("group.id", group_of(cluster))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // What else is asked of a broker waits behind a fetch that waits there.
            .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
            .set("queued.max.messages.kbytes", QUEUED_KBYTES_MAX.to_string());
        let consumer: BaseConsumer<Context> = config.create_with_context(Context::default()).map_err(ClusterError::Settings)?;
        let events = Topic::Events.name(cluster);
        consumer.subscribe(&[&events]).map_err(ClusterError::Settings)?;
        Ok(Self { consumer, events, partitions: cluster.partitions, own, door })
    }

    /// Waits so long for the next record. `not_before` is the journal time of a partition.
    pub fn poll(&self, wait: Duration, not_before: impl Fn(u16) -> JournalTime) -> Polled {
        match self.consumer.poll(wait) {
            None => Polled::Nothing,
            Some(Ok(message)) => self.read(&message, not_before),
            Some(Err(KafkaError::PartitionEOF(partition))) => u16::try_from(partition).map_or(Polled::Nothing, Polled::End),
            Some(Err(error)) => Polled::Trouble(error),
        }
    }

    fn read(&self, message: &BorrowedMessage<'_>, not_before: impl Fn(u16) -> JournalTime) -> Polled {
        let Ok(partition) = u16::try_from(message.partition()) else { return Polled::Nothing };
        let entry = record::read_entry(message, self.partitions, &self.own, &self.door, not_before(partition));
        Polled::Record { partition, offset: message.offset(), at: record::appended_at(message), entry }
    }

    /// What the group did since it was asked last, in its order. It does so only while [`Input::poll`] runs.
    pub fn moved(&self) -> Vec<Moved> {
        std::mem::take(&mut *lock(&self.consumer.context().moved))
    }

    /// Whether the group did something since it was asked last.
    pub fn has_moved(&self) -> bool {
        !lock(&self.consumer.context().moved).is_empty()
    }

    /// As what the group knew this member when it gave or took partitions last, for a transaction that moves its offsets.
    ///
    /// Not as what it knows it now: whoever slept while others took its partitions over may be a member again, or be none, for
    /// whom the brokers ask nothing, before it has learnt what it lost.
    pub fn group(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        lock(&self.consumer.context().group).clone()
    }

    /// Where the group has read a partition up to, as far as is certain: a transaction that is not over is waited for.
    ///
    /// # Errors
    /// The brokers do not tell, or the transaction is not over.
    pub fn committed(&self, partition: u16) -> Result<Option<i64>, KafkaError> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.events, partition.into());
        let told = self.consumer.committed_offsets(asked, STABLE_WAIT)?;
        let offset = told.elements().first().map(TopicPartitionListElem::offset);
        Ok(match offset {
            Some(Offset::Offset(next)) => Some(next),
            _ => None,
        })
    }

    /// The first record of a partition that is still there; nothing if its records are [others](are_others) than those that were
    /// read.
    ///
    /// # Errors
    /// The brokers do not tell.
    pub fn first(&self, partition: u16, read: ReadUpTo) -> Result<Option<i64>, KafkaError> {
        let (first, _) = self.consumer.fetch_watermarks(&self.events, partition.into(), REQUEST_WAIT)?;
        Ok((!are_others(&self.consumer, &self.events, partition, read)?).then_some(first))
    }

    /// Reads a partition from there on, and not before. Of one that was read already, what came before that may still come.
    ///
    /// # Errors
    /// It is not this member's.
    pub fn begin_at(&self, partition: u16, next: i64) -> Result<(), KafkaError> {
        self.consumer.seek(&self.events, partition.into(), Offset::Offset(next), REQUEST_WAIT)?;
        self.consumer.resume(&self.list(partition))
    }

    /// Reads nothing of a partition until [`Input::begin_at`].
    ///
    /// # Errors
    /// It is not this member's.
    pub fn pause(&self, partition: u16) -> Result<(), KafkaError> {
        self.consumer.pause(&self.list(partition))
    }

    fn list(&self, partition: u16) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.events, partition.into());
        list
    }
}
