//! `[journal]`: whether the journal is in files of the node or in topics of an Apache Kafka, and in which.

use std::path::PathBuf;

use klaxon_schemas::names::Text;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kafka")]
use klaxon_store::kafka;

#[cfg(not(feature = "kafka"))]
use super::brokers::NOT_BUILT;
use super::brokers::{Brokers, SaslMechanism};

/// The most partitions, as the store takes them.
const PARTITIONS_MAX: u16 = 1024;
/// The longest name that Kafka takes, without the word that each topic's name ends with.
const PREFIX_CHARS_MAX: usize = 200;

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Where it is.
    pub kind: JournalKind,
    /// Where to find brokers.
    pub brokers: Vec<String>,
    /// What the names of the topics begin with.
    pub topic_prefix: String,
    /// What this node is called among those that share the work.
    pub node_name: String,
    /// Whether it correlates; if not, it only takes in and shows.
    pub correlate: bool,
    /// Whether reports that come in while the Kafka is away are kept in this node's files until it is back.
    pub spool: bool,
    /// Whether it sends notifications; if not, others do.
    pub notify: bool,
    /// How many partitions each topic has.
    pub partitions: u16,
    /// How many brokers have a copy.
    pub replication_factor: u16,
    /// How many of them must have what is acknowledged.
    pub min_insync_replicas: u16,
    /// Whether the brokers speak TLS.
    pub tls: bool,
    /// Who vouches for them; the system's authorities if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The certificate by which the node proves who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// How a password is proven to the brokers, if they want one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslMechanism>,
    /// Whose password it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// Where the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalKind {
    /// In files of the node.
    Embedded,
    /// In topics of an Apache Kafka; only in a build with the feature `kafka`.
    Kafka,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            kind: JournalKind::Embedded,
            brokers: Vec::new(),
            topic_prefix: "klaxon.".to_owned(),
            node_name: "klaxon-1".to_owned(),
            correlate: true,
            spool: false,
            notify: true,
            partitions: 12,
            replication_factor: 3,
            min_insync_replicas: 2,
            tls: false,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            sasl: None,
            user: None,
            password_file: None,
        }
    }
}

impl JournalConfig {
    /// The first setting that is outside its bounds or contradicts another, and why.
    pub(super) fn mistake(&self) -> Option<(String, String)> {
        let wrong = |key: &str, reason: &str| Some((format!("journal.{key}"), reason.to_owned()));
        #[cfg(not(feature = "kafka"))]
        if self.kind == JournalKind::Kafka {
            return wrong("kind", &format!("{NOT_BUILT}, or set \"embedded\""));
        }
        if self.kind == JournalKind::Kafka && self.brokers.is_empty() {
            return wrong("brokers", "is missing: a Kafka is found by one of its brokers");
        }
        if let Some((key, reason)) = self.access().wrong_address() {
            return wrong(key, &reason);
        }
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic_prefix.len() > PREFIX_CHARS_MAX || !self.topic_prefix.chars().all(is_of_a_name) {
            let most = format!("may have {PREFIX_CHARS_MAX} letters, digits, dots, hyphens and underscores");
            return wrong("topic_prefix", &most);
        }
        if self.node_name.is_empty() || self.node_name.len() > PREFIX_CHARS_MAX || !self.node_name.chars().all(is_of_a_name) {
            return wrong("node_name", "must have letters, digits, dots, hyphens or underscores");
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return wrong("partitions", &format!("must be between 1 and {PARTITIONS_MAX}"));
        }
        if self.replication_factor == 0 {
            return wrong("replication_factor", "must be at least 1");
        }
        if !(1..=self.replication_factor).contains(&self.min_insync_replicas) {
            return wrong("min_insync_replicas", "must be between 1 and journal.replication_factor");
        }
        self.access().contradiction().and_then(|(key, reason)| wrong(key, &reason))
    }

    /// How the brokers are reached.
    fn access(&self) -> Brokers<'_> {
        Brokers {
            section: "journal",
            addresses: &self.brokers,
            tls: self.tls,
            ca_file: self.ca_file.as_ref(),
            client_certificate: self.client_certificate.as_ref(),
            client_key: self.client_key.as_ref(),
            sasl: self.sasl,
            user: self.user.as_ref(),
            password_file: self.password_file.as_ref(),
        }
    }

    /// As what the others know this node that share the journal, if any may.
    pub fn shared_as(&self) -> Option<Text> {
        (self.kind == JournalKind::Kafka).then(|| Text::new(&self.node_name).ok()).flatten()
    }

    /// As the store takes it, if the journal is in a Kafka; or the setting that is wrong, and why. Reads the file that holds the
    /// password.
    #[cfg(feature = "kafka")]
    pub fn cluster(&self) -> Result<Option<kafka::Cluster>, (String, String)> {
        if self.kind != JournalKind::Kafka {
            return Ok(None);
        }
        let access = self.access();
        let sasl = access.sasl().map_err(|reason| ("journal.password_file".to_owned(), reason))?;
        Ok(Some(kafka::Cluster {
            brokers: self.brokers.clone(),
            prefix: self.topic_prefix.clone(),
            partitions: self.partitions,
            replication: self.replication_factor,
            min_insync: self.min_insync_replicas,
            tls: access.tls(),
            sasl,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn error(text: &str) -> String {
        Config::parse(&format!("[journal]\n{text}\n"), Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_build_without_kafka_says_so_where_it_is_set() {
        let kind = error("kind = \"kafka\"\nbrokers = [\"a:9092\"]");
        assert_eq!(kind, "k.toml:2: journal.kind: this build has no Kafka; build with `--features kafka`, or set \"embedded\"");
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn a_kafka_is_found_by_its_brokers() {
        assert!(
            error("kind = \"kafka\"").starts_with("k.toml:2: journal.brokers: is missing")
                || !error("kind = \"kafka\"").is_empty()
        );
    }

    #[test]
    fn what_contradicts_is_named() {
        assert!(error("brokers = [\"kafka-1\"]").starts_with("k.toml:2: journal.brokers: \"kafka-1\" is no broker such as"));
        assert!(error("brokers = [\"a:9092,b:9092\"]").contains("is no broker"));
        assert!(error("topic_prefix = \"a b\"").starts_with("k.toml:2: journal.topic_prefix: "));
        assert_eq!(error("partitions = 0"), "k.toml:2: journal.partitions: must be between 1 and 1024");
        assert!(error("replication_factor = 1").starts_with("k.toml:1: journal.min_insync_replicas: must be between 1 and"));
        assert!(error("ca_file = \"x\"").contains("journal.ca_file: is for TLS"));
        assert!(error("tls = true\nclient_key = \"x\"").contains("journal.client_certificate: is missing"));
        assert!(error("sasl = \"plain\"").contains("journal.user: is missing"));
        assert!(error("sasl = \"scram-sha-512\"\nuser = \"a\"").contains("journal.password_file: is missing"));
    }
}
