//! `[receivers.NAME.kafka]`: a topic that is told.

use std::path::PathBuf;

use klaxon_api::notify::SinkConfig;
#[cfg(feature = "kafka")]
use klaxon_api::notify::{KafkaConfig, RecordKey};
#[cfg(feature = "kafka")]
use klaxon_store::kafka::TellerConfig;
use serde::{Deserialize, Serialize};

#[cfg(feature = "kafka")]
use super::super::brokers::Brokers;
use super::super::brokers::SaslMechanism;
use super::super::units::Span;
use super::Mistake;

#[cfg(feature = "kafka")]
mod bounds {
    use std::time::Duration;

    /// The longest name that Kafka takes.
    pub(super) const TOPIC_CHARS_MAX: usize = 249;
    /// How long a record may take, and how long that may be set to.
    pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
    pub(super) const TIMEOUT_MIN: Duration = Duration::from_secs(1);
    pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(60);
}
#[cfg(feature = "kafka")]
use bounds::{TIMEOUT, TIMEOUT_MAX, TIMEOUT_MIN, TOPIC_CHARS_MAX};

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KafkaSection {
    brokers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sasl: Option<SaslMechanism>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_file: Option<PathBuf>,
}

/// What a record's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyWord {
    Alarm,
    Site,
}

#[cfg(not(feature = "kafka"))]
impl KafkaSection {
    /// Nothing that this build could make.
    pub(super) fn build(&self, _: &str) -> Result<SinkConfig, Mistake> {
        Err((String::new(), super::super::brokers::NOT_BUILT.to_owned()))
    }
}

#[cfg(feature = "kafka")]
impl KafkaSection {
    /// As the notifier takes it, or the key that is wrong and why. Reads the file that holds the password. `receiver` is its name.
    pub(super) fn build(&self, receiver: &str) -> Result<SinkConfig, Mistake> {
        let wrong = |key: &str, reason: &str| (format!(".{key}"), reason.to_owned());
        let section = format!("receivers.{receiver}.kafka");
        let brokers = Brokers {
            section: &section,
            addresses: &self.brokers,
            tls: self.tls,
            ca_file: self.ca_file.as_ref(),
            client_certificate: self.client_certificate.as_ref(),
            client_key: self.client_key.as_ref(),
            sasl: self.sasl,
            user: self.user.as_ref(),
            password_file: self.password_file.as_ref(),
        };
        if self.brokers.is_empty() {
            return Err(wrong("brokers", "is missing: a Kafka is found by one of its brokers"));
        }
        if let Some((key, reason)) = brokers.wrong_address().or_else(|| brokers.contradiction()) {
            return Err(wrong(key, &reason));
        }
        let name = self.topic.clone().ok_or_else(|| wrong("topic", "is missing"))?;
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > TOPIC_CHARS_MAX || !name.chars().all(is_of_a_name) || [".", ".."].contains(&&*name) {
            let form = format!("must have 1 to {TOPIC_CHARS_MAX} letters, digits, dots, hyphens and underscores");
            return Err(wrong("topic", &form));
        }
        let timeout = self.timeout.map_or(TIMEOUT, |span| span.0);
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
            let (min, max) = (TIMEOUT_MIN.as_secs(), TIMEOUT_MAX.as_secs());
            return Err(wrong("timeout", &format!("must be between {min}s and {max}s")));
        }
        let sasl = brokers.sasl().map_err(|reason| wrong("password_file", &reason))?;
        let topic = TellerConfig { brokers: self.brokers.clone(), name, tls: brokers.tls(), sasl, timeout };
        let key = match self.key {
            None | Some(KeyWord::Alarm) => RecordKey::Alarm,
            Some(KeyWord::Site) => RecordKey::Site,
        };
        Ok(SinkConfig::Kafka(Box::new(KafkaConfig { topic, key })))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn error(keys: &str) -> String {
        Config::parse(&format!("[receivers.bus.kafka]\n{keys}\n"), Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_build_without_kafka_says_so_where_a_topic_is_set() {
        let said = error("brokers = [\"a:9092\"]\ntopic = \"alarms\"");
        assert_eq!(said, "k.toml:1: receivers.bus.kafka: this build has no Kafka; build with `--features kafka`");
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn a_topic_needs_brokers_and_a_name_and_no_more() {
        let text = "[receivers.bus.kafka]\nbrokers = [\"a:9092\", \"b:9092\"]\ntopic = \"alarms\"\n";
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let receivers = config.receivers(&config.users().expect("are right")).expect("is right");
        assert_eq!((receivers[0].sink.kind(), receivers[0].sink.target()), ("kafka", "alarms at a:9092, b:9092".to_owned()));
        assert!(receivers[0].updates);
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn what_cannot_be_is_named() {
        let to = |keys: &str| error(&format!("brokers = [\"a:9092\"]\ntopic = \"alarms\"\n{keys}"));
        for (said, expected) in [
            (error("topic = \"alarms\""), "receivers.bus.kafka.brokers: is missing: a Kafka is found by"),
            (error("brokers = [\"a\"]\ntopic = \"alarms\""), "receivers.bus.kafka.brokers: \"a\" is no broker such as"),
            (error("brokers = [\"a:9092\"]"), "receivers.bus.kafka.topic: is missing"),
            (error("brokers = [\"a:9092\"]\ntopic = \"a b\""), "receivers.bus.kafka.topic: must have 1 to 249 letters"),
            (to("timeout = \"100s\""), "receivers.bus.kafka.timeout: must be between 1s and 60s"),
            (to("key = \"type\""), "receivers.bus.kafka.key: "),
            (to("ca_file = \"/c\""), "receivers.bus.kafka.ca_file: is for TLS, and receivers.bus.kafka.tls is not set"),
            (to("sasl = \"plain\"\nuser = \"a\""), "receivers.bus.kafka.password_file: is missing"),
            (
                to("sasl = \"plain\"\nuser = \"a\"\npassword_file = \"/nowhere\""),
                "receivers.bus.kafka.password_file: cannot read /nowhere",
            ),
        ] {
            assert!(said.contains(expected), "{said}: {expected}");
        }
    }
}
