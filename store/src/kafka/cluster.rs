//! Which Kafka it is, and how it is spoken with.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;

/// How long one request to the brokers may take.
pub(super) const REQUEST_WAIT: Duration = Duration::from_secs(15);

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
        /// What the client says.
        #[source]
        source: rdkafka::error::KafkaError,
    },
}

impl Cluster {
    /// What every client of it is made with.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(","));
        config.set("client.id", "klaxon");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            if let Some(authorities) = &tls.authorities {
                config.set("ssl.ca.location", authorities.display().to_string());
            }
            if let Some((certificate, key)) = &tls.client {
                config.set("ssl.certificate.location", certificate.display().to_string());
                config.set("ssl.key.location", key.display().to_string());
            }
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.as_str());
            config.set("sasl.username", &sasl.user);
            config.set("sasl.password", &sasl.password);
        }
        config
    }

    pub(super) fn unreachable(&self, source: rdkafka::error::KafkaError) -> ClusterError {
        ClusterError::Unreachable { brokers: self.brokers.join(", "), source }
    }
}
