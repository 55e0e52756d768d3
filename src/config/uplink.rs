//! `[uplink]`: the node above this one.

use std::path::PathBuf;
use std::time::Duration;

use klaxon_schemas::child::ChildKind;
use serde::{Deserialize, Serialize};

use super::units::{Size, Span};
use crate::uplink::{Address, Backoff, Plan};
use klaxon_api::trust::ClientTls;

/// The least that a bandwidth may be: less and not even what is live gets through.
const BANDWIDTH_MIN: Size = Size(128);
/// The longest that an attempt to reach the node above may take.
const CONNECT_TIMEOUT_MAX: Span = Span::seconds(300);
/// The longest time between two attempts.
const RETRY_MAX: Span = Span::hours(1);

/// The node above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UplinkConfig {
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Address>,
    /// What this node is to it.
    pub kind: ChildKind,
    /// The file with the token with which this node joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_token_file: Option<PathBuf>,
    /// Who vouches for the node above; the system's authorities if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The certificate by which this node proves who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// Whether it may be spoken to without TLS over a network.
    pub insecure: bool,
    /// How many bytes a second are sent at most; as many as the line takes if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Size>,
    /// How long an attempt to reach it may take.
    pub connect_timeout: Span,
    /// The shortest time until the next attempt.
    pub retry_min: Span,
    /// The longest.
    pub retry_max: Span,
    /// How long it may be out of reach until that is an alarm.
    pub down_after: Span,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self {
            url: None,
            kind: ChildKind::Site,
            join_token_file: None,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            insecure: false,
            bandwidth: None,
            connect_timeout: Span::seconds(20),
            retry_min: Span::seconds(1),
            retry_max: Span::seconds(60),
            down_after: Span::seconds(600),
        }
    }
}

impl UplinkConfig {
    /// As the uplink takes it.
    pub fn plan(&self) -> Plan {
        let client = self.client_certificate.clone().zip(self.client_key.clone());
        Plan {
            configured: self.url.clone(),
            kind: self.kind,
            join_token_file: self.join_token_file.clone(),
            tls: ClientTls { authorities: self.ca_file.clone(), client },
            insecure: self.insecure,
            bandwidth: self.bandwidth.map(|bytes| bytes.0),
            connect_timeout: self.connect_timeout.0,
            backoff: Backoff { min: self.retry_min.0, max: self.retry_max.0 },
            down_after: self.down_after.0,
        }
    }

    /// The first setting that is outside its bounds or contradicts another, and why.
    pub(super) fn mistake(&self) -> Option<(String, String)> {
        let wrong = |key: &str, reason: String| Some((format!("uplink.{key}"), reason));
        if let Some(refusal) = self.url.as_ref().and_then(|url| url.refusal(self.insecure)) {
            return wrong("url", refusal);
        }
        match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => return wrong("client_key", "is missing: the certificate needs its key".to_owned()),
            (None, Some(_)) => return wrong("client_certificate", "is missing: the key needs its certificate".to_owned()),
            _ => {}
        }
        if self.bandwidth.is_some_and(|bytes| bytes < BANDWIDTH_MIN) {
            return wrong("bandwidth", format!("must be at least {}B a second", BANDWIDTH_MIN.0));
        }
        if !(Span::seconds(1)..=CONNECT_TIMEOUT_MAX).contains(&self.connect_timeout) {
            return wrong("connect_timeout", format!("must be between 1s and {CONNECT_TIMEOUT_MAX}"));
        }
        if !(Span(Duration::from_millis(10))..=RETRY_MAX).contains(&self.retry_min) {
            return wrong("retry_min", format!("must be between 10ms and {RETRY_MAX}"));
        }
        if !(self.retry_min..=RETRY_MAX).contains(&self.retry_max) {
            return wrong("retry_max", format!("must be between uplink.retry_min and {RETRY_MAX}"));
        }
        if self.down_after < Span::seconds(1) {
            return wrong("down_after", "must be at least 1s".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn without_tls_only_this_host_is_spoken_to_unless_it_is_allowed() {
        let refused = error("[uplink]\nurl = \"http://noc.example:7780\"\n");
        assert!(refused.starts_with("k.toml:2: uplink.url: ") && refused.contains("insecure"), "{refused}");
        for url in ["http://127.0.0.1:7780", "http://[::1]:7780", "http://localhost:7780", "https://noc.example"] {
            Config::parse(&format!("[uplink]\nurl = \"{url}\"\n"), Path::new("k.toml")).expect(url);
        }
        let allowed = "[uplink]\ninsecure = true\nurl = \"http://noc.example:7780\"\n";
        Config::parse(allowed, Path::new("k.toml")).expect("is allowed");
        assert!(error("[uplink]\nurl = \"noc.example\"\n").contains("https://"));
    }

    #[test]
    fn what_contradicts_is_named() {
        assert!(error("[uplink]\nclient_key = \"k\"\n").contains("uplink.client_certificate: "));
        assert!(error("[uplink]\nbandwidth = \"5B\"\n").starts_with("k.toml:2: uplink.bandwidth: "));
        assert!(error("[uplink]\nretry_max = \"20ms\"\n").starts_with("k.toml:2: uplink.retry_max: "));
        assert!(error("[uplink]\nkind = \"moon\"\n").starts_with("k.toml:2: uplink.kind: "));
    }
}
