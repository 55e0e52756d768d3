//! The seam to what delivers: one sink for each kind of receiver.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_snmp::EngineHome;

use super::{Notification, SnmpConfig, SnmpProfile, SnmpSink, SyslogConfig, SyslogSink, WebhookConfig, WebhookSink};
use crate::agent::Indexes;
use crate::trust::Authorities;

/// The longest that a delivery may take, whatever a sink is set to: then it counts as not delivered.
pub const SEND_TIME_MAX: Duration = Duration::from_secs(120);

/// What delivers notifications to one receiver. It keeps connections, it does not keep notifications: order, retries, the rate
/// and everything that must survive are the receiver's.
pub trait Sink: Send + Sync + 'static {
    /// How much it takes at once.
    fn limits(&self) -> SinkLimits;

    /// Delivers, in their order, and returns when the receiver has confirmed all of them (for an unconfirmed transport: when
    /// they are handed over). What is in one batch is about different alarms, unless alarms are grouped; then it is of one group. A
    /// heartbeat comes alone. It may be dropped at any time; then nothing is known of the delivery, and it is made again.
    fn send(&self, batch: Vec<Notification>) -> BoxFuture<'_, Result<Delivered, SendError>>;

    /// Takes leave of the receiver, as its protocol asks for it: nothing is sent after it. It takes at most about a second.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What became of a delivery that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// The receiver has it, or it was handed over.
    Confirmed,
    /// There was nothing to say in the receiver's words, so nothing was sent: it is settled, and says nothing of the receiver.
    Nothing,
}

/// How much a sink takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkLimits {
    /// Deliveries at a time; at least 1.
    pub window: usize,
    /// Notifications in one delivery; at least 1.
    pub batch_max: usize,
}

/// Why something was not delivered. Both say it in words, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver could not be reached, is busy, or does not answer: it is tried again for ever.
    #[error("{0}")]
    Unreachable(String),
    /// The receiver has it and will never take it: it is given up after a few tries.
    #[error("refused: {0}")]
    Refused(String),
}

/// What a receiver is told by, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkConfig {
    /// HTTP POST of JSON.
    Webhook(Box<WebhookConfig>),
    /// SNMP traps or informs.
    Snmp(Box<SnmpConfig>),
    /// Syslog messages.
    Syslog(Box<SyslogConfig>),
    /// Records of a topic.
    #[cfg(feature = "kafka")]
    Kafka(Box<super::KafkaConfig>),
}

/// What of the node sinks need. Cloning shares it.
#[derive(Clone)]
pub struct SinkTools {
    /// As which engine the node speaks SNMP.
    pub engine: Arc<EngineHome>,
    /// What is known of the types of alarms. It may change.
    pub catalogue: Arc<ArcSwap<Catalogue>>,
    /// The rows of the alarms in SNMP's tables.
    pub indexes: Arc<Indexes>,
    /// Who vouches for servers, unless a receiver names others.
    pub authorities: Authorities,
}

impl SinkConfig {
    /// The word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Snmp(_) => "snmp",
            Self::Syslog(_) => "syslog",
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
        }
    }

    /// Where the receiver is, without secrets.
    pub fn target(&self) -> String {
        match self {
            Self::Webhook(webhook) => webhook.target(),
            Self::Snmp(snmp) => snmp.target(),
            Self::Syslog(syslog) => syslog.target(),
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.target(),
        }
    }

    /// Whether acknowledgements, notes and the like are told unless the settings say otherwise: most can show them; in SNMP
    /// a notification is about the alarm's condition (RFC 3877), so there they are not.
    pub fn updates_by_default(&self) -> bool {
        !matches!(self, Self::Snmp(_))
    }

    /// Whether there are words for a heartbeat: where there are none, it would say nothing of the receiver.
    pub fn has_heartbeats(&self) -> bool {
        match self {
            Self::Webhook(_) | Self::Syslog(_) => true,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => true,
            Self::Snmp(snmp) => snmp.profile == SnmpProfile::Klaxon,
        }
    }

    /// The sink. The error says what is wrong, in words and without secrets.
    pub fn build(&self, tools: &SinkTools) -> Result<Arc<dyn Sink>, String> {
        match self {
            Self::Webhook(webhook) => Ok(Arc::new(WebhookSink::new((**webhook).clone(), tools))),
            Self::Snmp(snmp) => Ok(Arc::new(SnmpSink::new(snmp, tools)?)),
            Self::Syslog(syslog) => Ok(Arc::new(SyslogSink::new(syslog, tools))),
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => Ok(Arc::new(super::KafkaSink::new(kafka, tools))),
        }
    }
}
