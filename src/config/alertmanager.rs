//! `[alertmanager]`: how alerts of the Prometheus world become alarms.

use klaxon_api::http::AlertmanagerConfig;
use klaxon_schemas::event::Lease;
use klaxon_schemas::severity::Severity;
use serde::{Deserialize, Serialize};

use super::Span;
use super::collect::Mistake;

/// The most names in one list.
const NAMES_MAX: usize = 64;
/// The longest time after which an alert ends that is not repeated.
const RESOLVE_TIMEOUT_MAX: Span = Span::days(1);

/// How alerts become alarms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertmanagerSection {
    resolve_timeout: Span,
    resource_labels: Vec<String>,
    site_label: String,
    severity_label: String,
    severity_otherwise: Severity,
    text_annotations: Vec<String>,
    heartbeats: Vec<String>,
    heartbeat_within: Span,
    heartbeat_severity: Severity,
    group_by: Vec<String>,
    severities: SeverityWords,
}

/// The words that mean a severity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SeverityWords {
    critical: Vec<String>,
    major: Vec<String>,
    minor: Vec<String>,
    warning: Vec<String>,
    indeterminate: Vec<String>,
}

impl Default for SeverityWords {
    fn default() -> Self {
        Self::of(&AlertmanagerConfig::default())
    }
}

impl SeverityWords {
    fn of(config: &AlertmanagerConfig) -> Self {
        let of = |severity| {
            config.severities.iter().filter(|(_, means)| **means == severity).map(|(word, _)| word.clone()).collect()
        };
        Self {
            critical: of(Severity::Critical),
            major: of(Severity::Major),
            minor: of(Severity::Minor),
            warning: of(Severity::Warning),
            indeterminate: of(Severity::Indeterminate),
        }
    }

    fn lists(&self) -> [(&Vec<String>, Severity); 5] {
        [
            (&self.critical, Severity::Critical),
            (&self.major, Severity::Major),
            (&self.minor, Severity::Minor),
            (&self.warning, Severity::Warning),
            (&self.indeterminate, Severity::Indeterminate),
        ]
    }
}

impl Default for AlertmanagerSection {
    fn default() -> Self {
        let config = AlertmanagerConfig::default();
        Self {
            resolve_timeout: Span(config.resolve_timeout),
            severities: SeverityWords::of(&config),
            resource_labels: config.resource_labels,
            site_label: config.site_label,
            severity_label: config.severity_label,
            severity_otherwise: config.severity_otherwise,
            text_annotations: config.text_annotations,
            heartbeats: config.heartbeats,
            heartbeat_within: Span(config.heartbeat_within.duration()),
            heartbeat_severity: config.heartbeat_severity,
            group_by: config.group_by,
        }
    }
}

impl AlertmanagerSection {
    /// As the front end takes it; or the setting that is wrong, and why.
    pub(super) fn build(&self) -> Result<AlertmanagerConfig, Mistake> {
        let wrong = |key: &str, reason: String| Err((format!("alertmanager.{key}"), reason));
        if self.resolve_timeout < Span::seconds(1) || self.resolve_timeout > RESOLVE_TIMEOUT_MAX {
            return wrong("resolve_timeout", format!("must be between 1s and {RESOLVE_TIMEOUT_MAX}"));
        }
        let lists = [
            ("resource_labels", &self.resource_labels),
            ("text_annotations", &self.text_annotations),
            ("heartbeats", &self.heartbeats),
            ("group_by", &self.group_by),
        ];
        for (key, list) in lists {
            if list.len() > NAMES_MAX {
                return wrong(key, format!("has {} names, at most {NAMES_MAX} are allowed", list.len()));
            }
            if list.iter().any(String::is_empty) {
                return wrong(key, "has an empty name".to_owned());
            }
        }
        let mut severities = std::collections::BTreeMap::new();
        for (words, severity) in self.severities.lists() {
            for word in words {
                if severities.insert(word.to_lowercase(), severity).is_some() {
                    return wrong(&format!("severities.{severity}"), format!("{word:?} stands in the severities twice"));
                }
            }
        }
        let within = u32::try_from(self.heartbeat_within.0.as_secs()).ok().and_then(|seconds| Lease::new(seconds).ok());
        let Some(heartbeat_within) = within else {
            return wrong("heartbeat_within", "must be between 1s and 366d".to_owned());
        };
        Ok(AlertmanagerConfig {
            resolve_timeout: self.resolve_timeout.0,
            resource_labels: self.resource_labels.clone(),
            site_label: self.site_label.clone(),
            severity_label: self.severity_label.clone(),
            severities,
            severity_otherwise: self.severity_otherwise,
            text_annotations: self.text_annotations.clone(),
            heartbeats: self.heartbeats.clone(),
            heartbeat_within,
            heartbeat_severity: self.heartbeat_severity,
            group_by: self.group_by.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klaxon_schemas::severity::Severity;

    use super::super::Config;

    #[test]
    fn words_for_severities_can_be_set() {
        let read = |text: &str| Config::parse(text, Path::new("k.toml"));
        let config = read("[alertmanager.severities]\nmajor = [\"P2\"]\n").expect("is sound");
        let built = config.alertmanager.build().expect("is sound");
        assert_eq!((built.severities.get("p2"), built.severities.get("error")), (Some(&Severity::Major), None));
        assert_eq!(built.severities.get("critical"), Some(&Severity::Critical), "what is not named stays");
        let error = |text: &str| read(text).expect_err("is wrong").to_string();
        let twice = error("[alertmanager.severities]\nmajor = [\"Page\"]\n");
        assert_eq!(twice, "k.toml:2: alertmanager.severities.major: \"Page\" stands in the severities twice");
        assert!(
            error("[alertmanager]\nresolve_timeout = \"2d\"\n").starts_with("k.toml:2: alertmanager.resolve_timeout: must be")
        );
        assert!(error("[alertmanager]\ngroup_by = [\"\"]\n").starts_with("k.toml:2: alertmanager.group_by: has an empty name"));
    }
}
