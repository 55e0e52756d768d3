//! Which Kafka it is, and how it is spoken with.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

/// How long one request to the brokers may take.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(15);
/// When no broker is waited for any more if all of them were tried in vain: one may just be starting.
const DOWN_WAIT: Duration = Duration::from_secs(3);
/// How often it is looked what the client has heard.
const HEAR_WAIT: Duration = Duration::from_millis(200);
/// What the client calls some settings, and what they are called here.
const SETTINGS: [(&str, &str); 3] = [
    ("ssl.ca.location", "ca_file"),
    ("security.protocol configuration", "tls and sasl settings"),
    ("security.protocol", "tls or sasl"),
];

/// A Kafka, and the topics in it that are one centre's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Where to find its brokers first: `host:port`.
    pub brokers: Vec<String>,
    /// What the names of the topics begin with.
    pub prefix: String,
    /// How many partitions each topic has, 1 to [`PARTITIONS_MAX`](super::PARTITIONS_MAX). It never changes: a site stays where
    /// it is.
    pub partitions: u16,
    /// How many brokers have a copy of each partition.
    pub replication: u16,
    /// How many of them must have what is acknowledged.
    pub min_insync: u16,
    /// TLS, if that is spoken.
    pub tls: Option<Tls>,
    /// Who the node is to the brokers, if they ask.
    pub sasl: Option<Sasl>,
}

/// TLS towards the brokers. All files are PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Who vouches for the brokers; the system's authorities if absent.
    pub authorities: Option<PathBuf>,
    /// The certificate by which the node proves who it is, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A name and a password (RFC 4422).
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How they are proven.
    pub mechanism: SaslMechanism,
    /// The name.
    pub user: String,
    /// The password. It is in no log.
    pub password: String,
}

impl std::fmt::Debug for Sasl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sasl").field("mechanism", &self.mechanism).field("user", &self.user).finish_non_exhaustive()
    }
}

/// How a password is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// It is sent (RFC 4616).
    Plain,
    /// By a challenge (RFC 7677).
    ScramSha256,
    /// By a challenge, with SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Why the Kafka could not be spoken with.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The settings do not make a client.
    #[error("the settings make no client")]
    Settings(#[source] rdkafka::error::KafkaError),
    /// No broker answers, or those that do refuse.
    #[error("no broker among {brokers} answers as it should")]
    Unreachable {
        /// Where they were looked for.
        brokers: String,
        /// Why, as far as it is known.
        #[source]
        source: Unreached,
    },
}

/// Why no broker answers. A request only times out; what was wrong with the connections is told beside it.
#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    /// They refuse the name, the password or the certificate.
    #[error("they do not let this client in: {0}")]
    Refused(String),
    /// What became of a connection.
    #[error("{0}")]
    Connection(String),
    /// All that is known is what became of the request.
    #[error(transparent)]
    Request(#[from] KafkaError),
}

/// Hears why connections fail.
#[derive(Default)]
pub(super) struct Heard(Mutex<Trouble>);

#[derive(Default)]
struct Trouble {
    refused: Option<String>,
    connection: Option<String>,
    are_all_down: bool,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing gets through, as far as it was heard since this was asked last.
    pub(super) fn take(&self) -> Option<String> {
        let mut trouble = self.lock();
        let refused = trouble.refused.take().map(|why| Unreached::Refused(why).to_string());
        let connection = trouble.connection.take();
        refused.or(connection)
    }
}

/// What clients report: most of it is no error but the end of a partition, or is returned by the call that it belongs to.
pub(super) fn say(error: &KafkaError, reason: &str) {
    tracing::debug!(%error, reason, "a client of the brokers reports");
}

/// A client that has nothing else to do than what it is asked.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        say(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// What the client calls by the names of its settings, by those of ours.
fn in_our_words(text: &str) -> String {
    SETTINGS.iter().fold(text.to_owned(), |text, (its, ours)| text.replace(its, ours))
}

impl ClientContext for Heard {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(facility, line, "the client of the brokers says");
        // That a broker hung up is told in its log only.
        if facility == "FAIL" {
            let mut text = in_our_words(line.split_once("]: ").map_or(line, |(_, text)| text));
            if text.contains("state APIVERSION_QUERY") {
                text.push_str("; it may want tls or sasl");
            }
            self.lock().connection.get_or_insert(text);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut trouble = self.lock();
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => trouble.are_all_down = true,
            Some(RDKafkaErrorCode::Authentication) => trouble.refused = Some(in_our_words(reason)),
            _ => trouble.connection = Some(in_our_words(reason)),
        }
    }
}

impl ProducerContext for Heard {
    type DeliveryOpaque = ();

    // It produces nothing.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// What every client of these brokers is made with.
pub(super) fn client(brokers: &[String], tls: Option<&Tls>, sasl: Option<&Sasl>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.join(","));
    config.set("client.id", "klaxon");
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = tls {
        if let Some(authorities) = &tls.authorities {
            config.set("ssl.ca.location", authorities.display().to_string());
        }
        if let Some((certificate, key)) = &tls.client {
            config.set("ssl.certificate.location", certificate.display().to_string());
            config.set("ssl.key.location", key.display().to_string());
        }
    }
    if let Some(sasl) = sasl {
        config.set("sasl.mechanism", sasl.mechanism.as_str());
        config.set("sasl.username", &sasl.user);
        config.set("sasl.password", &sasl.password);
    }
    config
}

impl Cluster {
    /// What every client of it is made with.
    pub(super) fn client(&self) -> ClientConfig {
        client(&self.brokers, self.tls.as_ref(), self.sasl.as_ref())
    }

    /// What a consumer is made with that is told what to read: it joins no group, and the client wants the name of one all the same.
    pub(super) fn reader(&self, group: &str, isolation: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", format!("{}{group}", self.prefix))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", isolation);
        config
    }

    /// Waits until a broker answers, and asks it for all topics: to ask for one that is missing may make it, as the brokers like
    /// it. Blocks.
    ///
    /// # Errors
    /// None answers, and why.
    pub(super) fn reach(&self) -> Result<Metadata, ClusterError> {
        let mut config = self.client();
        config.set_log_level(RDKafkaLogLevel::Info);
        let client: BaseProducer<Heard> = config.create_with_context(Heard::default()).map_err(ClusterError::Settings)?;
        let begun = Instant::now();
        loop {
            let asked = client.client().fetch_metadata(None, HEAR_WAIT);
            client.poll(Duration::ZERO);
            let error = match asked {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            let mut trouble = client.context().lock();
            let is_over = begun.elapsed() >= if trouble.are_all_down { DOWN_WAIT } else { REQUEST_WAIT };
            if let Some(refused) = trouble.refused.take() {
                return Err(self.unreachable(Unreached::Refused(refused)));
            }
            if is_over {
                let heard = trouble.connection.take().map(Unreached::Connection);
                return Err(self.unreachable(heard.unwrap_or(Unreached::Request(error))));
            }
        }
    }

    pub(super) fn unreachable(&self, source: impl Into<Unreached>) -> ClusterError {
        ClusterError::Unreachable { brokers: self.brokers.join(", "), source: source.into() }
    }
}
