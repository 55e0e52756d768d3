//! The sink that writes to a topic of an Apache Kafka: a record for each notification, in our own form, as a webhook gets it.
//!
//! A record is delivered when all in-sync replicas have it. Of one alarm there is never more than one under way, so what is about one
//! alarm stands in its order in its partition. What is tried again after an answer that never came may be there twice: epoch and
//! `delivery_seq` say so. Digests, gaps and heartbeats are about no alarm and no site, and have no key.

use futures_util::future::{BoxFuture, try_join_all};
use klaxon_schemas::change::Subject;
use klaxon_store::kafka::{TellError, Teller, TellerConfig};

use super::{Delivered, Notification, SendError, Sink, SinkLimits, SinkTools, What, form};

/// How many records are handed over at a time.
const BATCH_MAX: usize = 100;
/// How many such batches are under way.
const WINDOW: usize = 4;

/// Which topic is told, and under which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// The topic.
    pub topic: TellerConfig,
    /// What a record's key is.
    pub key: RecordKey,
}

/// What a record's key is: records with the same go to the same partition, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordKey {
    /// The alarm's id; of a log event, its site.
    #[default]
    Alarm,
    /// The site.
    Site,
}

impl RecordKey {
    fn of(self, what: &What) -> Option<String> {
        match (self, what) {
            (Self::Alarm, What::Alarm { alarm, .. }) => Some(alarm.id.to_string()),
            (Self::Site, What::Alarm { alarm, .. }) => Some(alarm.key.site.to_string()),
            (_, What::Log { change }) => match &change.subject {
                Subject::Event { event, .. } => Some(event.key.site.to_string()),
                _ => None,
            },
            (_, What::Digest(_) | What::Gap(_) | What::Heartbeat { .. }) => None,
        }
    }
}

impl KafkaConfig {
    /// Where it is.
    pub fn target(&self) -> String {
        format!("{} at {}", self.topic.name, self.topic.brokers.join(", "))
    }
}

/// What tells one topic.
pub struct KafkaSink {
    key: RecordKey,
    teller: Teller,
    tools: SinkTools,
}

impl KafkaSink {
    /// The sink of `config`.
    pub fn new(config: &KafkaConfig, tools: &SinkTools) -> Self {
        Self { key: config.key, teller: Teller::new(config.topic.clone()), tools: tools.clone() }
    }

    async fn tell(&self, notification: &Notification) -> Result<(), SendError> {
        let value = serde_json::to_vec(&form::notifications(&self.tools.catalogue.load(), std::slice::from_ref(notification)));
        let value = value.map_err(|error| SendError::Refused(format!("cannot be written as JSON: {error}")))?;
        let told = self.teller.tell(self.key.of(&notification.what).as_deref(), &value).await;
        told.map_err(|error| match error {
            TellError::Refused(_) => SendError::Refused(error.to_string()),
            TellError::Settings(_) | TellError::Unreached(_) => SendError::Unreachable(error.to_string()),
        })
    }
}

impl Sink for KafkaSink {
    fn limits(&self) -> SinkLimits {
        SinkLimits { window: WINDOW, batch_max: BATCH_MAX }
    }

    fn send(&self, batch: Vec<Notification>) -> BoxFuture<'_, Result<Delivered, SendError>> {
        Box::pin(async move {
            try_join_all(batch.iter().map(|notification| self.tell(notification))).await?;
            Ok(Delivered::Confirmed)
        })
    }
}
