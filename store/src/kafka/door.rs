//! The doors' side: what comes in is produced, and acknowledged when enough brokers have it.

use klaxon_schemas::entry::EntryKind;
use klaxon_schemas::names::Door;
use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};

use super::cluster::{Cluster, ClusterError, REQUEST_WAIT, say};
use super::place::partition_of;
use super::record::{site_of_entry, write_entry};
use super::topics::Topic;

/// The most records that wait to be sent; what comes then is refused.
const QUEUE_RECORDS_MAX: u32 = 20_000;
/// After this time without an answer of the brokers a record is given up, and whoever sent it is told.
const DELIVERY_TIMEOUT_MS: u32 = 20_000;
/// How long a record waits for others to go with it.
const LINGER_MS: u32 = 5;

/// What becomes of a record: its partition and place there, or why it has none.
pub type Sent = Result<(u16, i64), KafkaError>;
type Done = Box<dyn FnOnce(Sent) + Send + Sync>;

struct Context;

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        say(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Done>;

    fn delivery(&self, result: &DeliveryResult<'_>, done: Self::DeliveryOpaque) {
        let sent = match result {
            Ok(message) => Ok((u16::try_from(message.partition()).unwrap_or(0), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        (*done)(sent);
    }
}

/// Produces what comes in.
pub struct Events {
    producer: ThreadedProducer<Context>,
    topic: String,
    partitions: u16,
}

/// Where an entry goes that has no site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Where its site belongs.
    OfItsSite,
    /// To this partition, for itself.
    Partition(u16),
}

impl Events {
    /// An idempotent producer that waits for all copies that are in sync.
    ///
    /// # Errors
    /// The settings make no client.
    pub fn new(cluster: &Cluster) -> Result<Self, ClusterError> {
        let mut config = cluster.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", LINGER_MS.to_string())
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS.to_string())
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string());
        let producer = config.create_with_context(Context).map_err(ClusterError::Settings)?;
        Ok(Self { producer, topic: Topic::Events.name(cluster), partitions: cluster.partitions })
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Sends an entry, and calls `done` when it is known what became of it: at once where too many wait already.
    pub fn send(&self, place: Place, door: &Door, kind: EntryKind, done: impl FnOnce(Sent) + Send + Sync + 'static) {
        let site = site_of_entry(&kind);
        let key = site.as_ref().map_or("", |site| site.as_str());
        let partition = match place {
            Place::OfItsSite => partition_of(key.as_bytes(), self.partitions),
            Place::Partition(partition) => partition,
        };
        let (payload, headers) = write_entry(door, kind);
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(Box::new(done) as Done))
            .partition(partition.into())
            .payload(&payload)
            .headers(headers);
        if site.is_some() {
            record = record.key(key);
        }
        if let Err((error, record)) = self.producer.send(record) {
            (*record.delivery_opaque)(Err(error));
        }
    }

    /// Waits until what was sent has its outcome.
    pub fn flush(&self) {
        if let Err(error) = self.producer.flush(REQUEST_WAIT) {
            tracing::warn!(%error, "the outcome of what was sent last is not known");
        }
    }
}

/// Whether it was refused for want of room, and may come again at once.
pub fn is_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}
