//! `[sites]`: the manners towards nodes below.

use klaxon_api::uplink::{CONNECTIONS_LIMIT, SitesConfig};
use serde::{Deserialize, Serialize};

use super::Span;

/// Manners towards the nodes below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SitesSection {
    /// How often a node that has nothing to say is to be heard from.
    pub heartbeat: Span,
    /// After how long without a word it is silent.
    pub silent_after: Span,
    /// Whether a person must approve it.
    pub approve: bool,
    /// How long a join token is good.
    pub join_token_lifetime: Span,
    /// How old a credential becomes.
    pub credential_lifetime: Span,
    /// The most uplinks at one time.
    pub connections_max: usize,
}

impl Default for SitesSection {
    fn default() -> Self {
        let config = SitesConfig::default();
        Self {
            heartbeat: Span(config.heartbeat),
            silent_after: Span(config.silent_after),
            approve: config.approve,
            join_token_lifetime: Span(config.join_token_lifetime),
            credential_lifetime: Span(config.credential_lifetime),
            connections_max: config.connections_max,
        }
    }
}

impl SitesSection {
    /// As the door of the nodes below takes it.
    pub(super) fn build(&self) -> SitesConfig {
        SitesConfig {
            heartbeat: self.heartbeat.0,
            silent_after: self.silent_after.0,
            approve: self.approve,
            join_token_lifetime: self.join_token_lifetime.0,
            credential_lifetime: self.credential_lifetime.0,
            connections_max: self.connections_max,
        }
    }

    /// The setting that is out of bounds, and why.
    pub(super) fn mistake(&self) -> Option<(&'static str, String)> {
        if self.heartbeat < Span::seconds(1) || self.heartbeat > Span::hours(1) {
            return Some(("sites.heartbeat", "must be between 1s and 1h".to_owned()));
        }
        if self.silent_after.0 < 2 * self.heartbeat.0 {
            return Some(("sites.silent_after", "must be at least twice sites.heartbeat".to_owned()));
        }
        if self.join_token_lifetime < Span::seconds(60) {
            return Some(("sites.join_token_lifetime", "must be at least 60s".to_owned()));
        }
        if self.credential_lifetime < Span::seconds(10) {
            return Some(("sites.credential_lifetime", "must be at least 10s".to_owned()));
        }
        if !(1..=CONNECTIONS_LIMIT).contains(&self.connections_max) {
            return Some(("sites.connections_max", format!("must be between 1 and {CONNECTIONS_LIMIT}")));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    #[test]
    fn what_contradicts_itself_is_named() {
        let error = |text: &str| Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string();
        let silent = error("[sites]\nheartbeat = \"2m\"\n");
        assert_eq!(silent, "k.toml:1: sites.silent_after: must be at least twice sites.heartbeat");
    }
}
