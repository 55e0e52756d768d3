//! Records for others: what a receiver of notifications is told, in a topic that is no part of the journal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::cluster::{Heard, Sasl, Tls, client};

/// The most records that wait in the client.
const QUEUED_MAX: &str = "10000";
/// How long a topic that the brokers do not know is waited for: it may have been made just now.
const TOPIC_WAIT_MS: &str = "5000";
/// The longest record. The brokers and the topic may allow less.
const RECORD_BYTES_MAX: &str = "10000000";

/// Which topic is written to, and how long it is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TellerConfig {
    /// Where to find its brokers first: `host:port`.
    pub brokers: Vec<String>,
    /// Its name.
    pub name: String,
    /// TLS, if that is spoken.
    pub tls: Option<Tls>,
    /// Who the node is to the brokers, if they ask.
    pub sasl: Option<Sasl>,
    /// How long a record may take.
    pub timeout: Duration,
}

/// Why a record is not in the topic.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The settings make no client.
    #[error("the settings make no client: {0}")]
    Settings(KafkaError),
    /// The brokers were not reached, or did not take it, and may later.
    #[error("{0}")]
    Unreached(String),
    /// They will never take it.
    #[error("{0}")]
    Refused(KafkaError),
}

/// What writes to a topic. All in-sync replicas have what was written when it returns, and what the client itself tries again comes once.
pub struct Teller {
    topic: TellerConfig,
    heard: Arc<Heard>,
    /// Made when it is needed, and anew after an error that ends it.
    producer: Mutex<Option<FutureProducer<Hears>>>,
}

/// Hears why connections fail.
#[derive(Clone)]
struct Hears(Arc<Heard>);

impl ClientContext for Hears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.0.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl Teller {
    /// One for this topic; nothing is connected yet.
    pub fn new(topic: TellerConfig) -> Self {
        Self { topic, heard: Arc::default(), producer: Mutex::default() }
    }

    fn producer(&self) -> Result<FutureProducer<Hears>, TellError> {
        let mut kept = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = kept.as_ref().filter(|producer| producer.client().fatal_error().is_none()) {
            return Ok(producer.clone());
        }
        let TellerConfig { brokers, tls, sasl, timeout, .. } = &self.topic;
        let mut config = client(brokers, tls.as_ref(), sasl.as_ref());
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "zstd")
            .set("message.timeout.ms", timeout.as_millis().to_string())
            .set("message.max.bytes", RECORD_BYTES_MAX)
            .set("queue.buffering.max.messages", QUEUED_MAX)
            .set("topic.metadata.propagation.max.ms", TOPIC_WAIT_MS)
            .set_log_level(RDKafkaLogLevel::Info);
        let made = config.create_with_context(Hears(Arc::clone(&self.heard))).map_err(TellError::Settings)?;
        Ok(kept.insert(made).clone())
    }

    /// Writes a record, and returns when it is there. Dropped before, it may be there or not.
    ///
    /// # Errors
    /// It is not known to be there, and why.
    pub async fn tell(&self, key: Option<&str>, value: &[u8]) -> Result<(), TellError> {
        let producer = self.producer()?;
        let mut record = FutureRecord::<str, [u8]>::to(&self.topic.name).payload(value);
        record.key = key;
        match producer.send(record, self.topic.timeout).await {
            Ok(_) => {
                self.heard.take();
                Ok(())
            }
            Err((error, _)) => Err(self.judge(error)),
        }
    }

    fn judge(&self, error: KafkaError) -> TellError {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidMessageSize | Code::InvalidRecord) => {
                TellError::Refused(error)
            }
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                TellError::Unreached(format!("there is no topic {}", self.topic.name))
            }
            _ => TellError::Unreached(self.heard.take().unwrap_or_else(|| error.to_string())),
        }
    }
}
