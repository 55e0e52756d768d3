//! How the brokers of an Apache Kafka are reached: what the journal's settings and those of receivers have in common.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(feature = "kafka")]
use klaxon_store::kafka;

/// What a build without Kafka says.
#[cfg(not(feature = "kafka"))]
pub(super) const NOT_BUILT: &str = "this build has no Kafka; build with `--features kafka`";

/// How a password is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaslMechanism {
    /// It is sent.
    Plain,
    /// By a challenge, with SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// By a challenge, with SHA-512.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// The settings of a section, which is `section`.
pub(super) struct Brokers<'a> {
    pub(super) section: &'a str,
    pub(super) addresses: &'a [String],
    pub(super) tls: bool,
    pub(super) ca_file: Option<&'a PathBuf>,
    pub(super) client_certificate: Option<&'a PathBuf>,
    pub(super) client_key: Option<&'a PathBuf>,
    pub(super) sasl: Option<SaslMechanism>,
    pub(super) user: Option<&'a String>,
    pub(super) password_file: Option<&'a PathBuf>,
}

impl Brokers<'_> {
    /// The first address that is none, if one is not.
    pub(super) fn wrong_address(&self) -> Option<(&'static str, String)> {
        let is_address = |broker: &String| {
            broker
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        let wrong = self.addresses.iter().find(|broker| broker.contains([',', '/', ' ']) || !is_address(broker))?;
        Some(("brokers", format!("{wrong:?} is no broker such as kafka-1.example:9092")))
    }

    /// The first setting of TLS or SASL that contradicts another, and why.
    pub(super) fn contradiction(&self) -> Option<(&'static str, String)> {
        let (wrong, section) = (|key: &'static str, reason: &str| Some((key, reason.to_owned())), self.section);
        let of_tls =
            [("ca_file", self.ca_file), ("client_certificate", self.client_certificate), ("client_key", self.client_key)];
        if let Some((key, _)) = of_tls.into_iter().find(|(_, file)| file.is_some() && !self.tls) {
            return wrong(key, &format!("is for TLS, and {section}.tls is not set"));
        }
        match (self.client_certificate, self.client_key) {
            (Some(_), None) => return wrong("client_key", "is missing: the certificate needs its key"),
            (None, Some(_)) => return wrong("client_certificate", "is missing: the key needs its certificate"),
            _ => {}
        }
        match (self.sasl, self.user, self.password_file) {
            (None, None, None) | (Some(_), Some(_), Some(_)) => None,
            (None, Some(_), _) => wrong("user", &format!("is for SASL, and {section}.sasl is not set")),
            (None, None, Some(_)) => wrong("password_file", &format!("is for SASL, and {section}.sasl is not set")),
            (Some(_), None, _) => wrong("user", "is missing: SASL needs a name"),
            (Some(_), Some(_), None) => wrong("password_file", "is missing: SASL needs a password"),
        }
    }

    /// TLS as the store takes it, if it is spoken.
    #[cfg(feature = "kafka")]
    pub(super) fn tls(&self) -> Option<kafka::Tls> {
        self.tls.then(|| kafka::Tls {
            authorities: self.ca_file.cloned(),
            client: self.client_certificate.cloned().zip(self.client_key.cloned()),
        })
    }

    /// Who the node is to the brokers, if that is set. Reads the file that holds the password; the error says why it cannot.
    #[cfg(feature = "kafka")]
    pub(super) fn sasl(&self) -> Result<Option<kafka::Sasl>, String> {
        let (Some(mechanism), Some(user), Some(file)) = (self.sasl, self.user, self.password_file) else { return Ok(None) };
        let password = super::snmp::read(file)?.0;
        Ok(Some(kafka::Sasl { mechanism: mechanism.of_store(), user: user.clone(), password }))
    }
}

#[cfg(feature = "kafka")]
impl SaslMechanism {
    fn of_store(self) -> kafka::SaslMechanism {
        match self {
            Self::Plain => kafka::SaslMechanism::Plain,
            Self::ScramSha256 => kafka::SaslMechanism::ScramSha256,
            Self::ScramSha512 => kafka::SaslMechanism::ScramSha512,
        }
    }
}
