//! `[receivers.NAME.syslog]`: a syslog receiver that is told.

use std::num::NonZeroU32;
use std::path::PathBuf;

use klaxon_api::agent::oids::Root;
use klaxon_api::notify::SyslogConfig;
use klaxon_api::notify::syslog::Transport;
use serde::{Deserialize, Serialize};

use super::super::units::Span;
use super::Mistake;

/// A syslog receiver. What is absent is as [`SyslogConfig::new`] has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SyslogSection {
    address: Option<String>,
    transport: Option<TransportWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facility: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_bytes_max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagram_rate: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TransportWord {
    Udp,
    Tcp,
    Tls,
}

impl SyslogSection {
    /// As the notifier takes it, or the key that is wrong and why.
    pub(super) fn build(&self, root: &Root) -> Result<SyslogConfig, Mistake> {
        let wrong = |key: &str, reason: String| (key.to_owned(), reason);
        let address = self.address.clone().ok_or_else(|| wrong("address", "is missing".to_owned()))?;
        let transport = match self.transport.ok_or_else(|| wrong("transport", "is missing: udp, tcp or tls".to_owned()))? {
            TransportWord::Udp => Transport::Udp,
            TransportWord::Tcp => Transport::Tcp,
            TransportWord::Tls => Transport::Tls,
        };
        let defaults = SyslogConfig::new(address, transport);
        let facility =
            self.facility.as_ref().map(|word| word.parse()).transpose().map_err(|reason| wrong("facility", reason))?;
        let config = SyslogConfig {
            facility: facility.unwrap_or(defaults.facility),
            app_name: self.app_name.clone().unwrap_or(defaults.app_name),
            hostname: self.hostname.clone(),
            root: root.clone(),
            message_bytes_max: self.message_bytes_max.unwrap_or(defaults.message_bytes_max),
            datagram_rate: self.datagram_rate.unwrap_or(defaults.datagram_rate),
            timeout: self.timeout.map_or(defaults.timeout, |span| span.0),
            ca_file: self.ca_file.clone(),
            certificate_file: self.certificate_file.clone(),
            key_file: self.key_file.clone(),
            external_url: self.external_url.clone(),
            ..defaults
        };
        match config.mistake() {
            None => Ok(config),
            Some((key, reason)) => Err((key.to_owned(), reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use klaxon_api::notify::syslog::{Facility, Transport};
    use klaxon_api::notify::{SinkConfig, SyslogConfig};

    use crate::config::Config;

    fn parsed(keys: &str) -> SyslogConfig {
        let config = Config::parse(&format!("[receivers.siem.syslog]\n{keys}\n"), Path::new("k.toml")).expect("is right");
        let receivers = config.receivers(&config.users().expect("are right")).expect("is right");
        assert!(receivers[0].updates, "a log may hold it all");
        let SinkConfig::Syslog(syslog) = receivers[0].sink.clone() else { panic!("{receivers:?}") };
        *syslog
    }

    fn error(keys: &str) -> String {
        Config::parse(&format!("[receivers.siem.syslog]\n{keys}\n"), Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn a_receiver_needs_address_and_transport_and_no_more() {
        let siem = parsed("address = \"[2001:db8::1]:514\"\ntransport = \"udp\"");
        assert_eq!(siem.target(), "[2001:db8::1]:514 (udp)");
        assert_eq!((siem.facility, siem.message_bytes_max), (Facility::Daemon, 1472));
        let siem = parsed("address = \"siem:6514\"\ntransport = \"tls\"");
        assert_eq!((siem.app_name.as_str(), siem.message_bytes_max), ("klaxon", 8192));
    }

    #[test]
    fn all_that_can_be_said_is_taken() {
        let siem = parsed(
            "address = \"siem:6514\"\ntransport = \"tls\"\nfacility = \"local4\"\napp_name = \"alarms\"\nhostname = \"gate\"\n\
             message_bytes_max = 2048\ndatagram_rate = 50\ntimeout = \"5s\"\nca_file = \"/c\"\ncertificate_file = \"/d\"\n\
             key_file = \"/k\"\nexternal_url = \"https://klaxon.example\"",
        );
        assert_eq!((siem.transport, siem.facility, siem.timeout), (Transport::Tls, Facility::Local4, Duration::from_secs(5)));
        assert_eq!((siem.hostname.as_deref(), siem.message_bytes_max), (Some("gate"), 2048));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let to = |keys: &str| error(&format!("address = \"siem:514\"\ntransport = \"tcp\"\n{keys}"));
        for (said, expected) in [
            (error("transport = \"udp\""), "receivers.siem.syslog.address: is missing"),
            (error("address = \"siem:514\""), "receivers.siem.syslog.transport: is missing: udp, tcp or tls"),
            (error("address = \"siem\"\ntransport = \"udp\""), "receivers.siem.syslog.address: is no host and port"),
            (error("address = \"siem:514\"\ntransport = \"relp\""), "receivers.siem.syslog.transport: "),
            (to("facility = \"mail2\""), "receivers.siem.syslog.facility: is none of user, daemon"),
            (to("app_name = \"a b\""), "receivers.siem.syslog.app_name: must have 1 to 48 printable"),
            (to("hostname = \"\""), "receivers.siem.syslog.hostname: must have 1 to 255 printable"),
            (to("message_bytes_max = 479"), "receivers.siem.syslog.message_bytes_max: must be between 480 and 65507"),
            (to("timeout = \"41s\""), "receivers.siem.syslog.timeout: must be between 100ms and 40s"),
            (to("ca_file = \"/c\""), "receivers.siem.syslog.ca_file: is for the transport tls"),
            (
                error("address = \"siem:514\"\ntransport = \"tls\"\nkey_file = \"/k\""),
                "receivers.siem.syslog.certificate_file: needs key_file",
            ),
            (
                error("address = \"siem:514\"\ntransport = \"udp\"\ndatagram_rate = 1"),
                "receivers.siem.syslog.datagram_rate: is too low: 100 messages would wait 100 s",
            ),
            (to("adress = \"a\""), "receivers.siem.syslog.adress"),
        ] {
            assert!(said.contains(expected), "{said}: {expected}");
        }
    }
}
