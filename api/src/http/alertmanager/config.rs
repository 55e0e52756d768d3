//! How alerts become alarms.

use std::collections::BTreeMap;
use std::time::Duration;

use klaxon_schemas::event::Lease;
use klaxon_schemas::severity::Severity;

/// What is made of which label and annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertmanagerConfig {
    /// When an alert ends that names no end and does not come again.
    pub resolve_timeout: Duration,
    /// The labels that become elements of the resource, the outermost first.
    pub resource_labels: Vec<String>,
    /// The label that names the site; the node's own where an alert has none.
    pub site_label: String,
    /// The label that says how bad it is.
    pub severity_label: String,
    /// What its words mean, in lower case.
    pub severities: BTreeMap<String, Severity>,
    /// What any other word means, or none.
    pub severity_otherwise: Severity,
    /// The annotation that becomes the text: the first that an alert has.
    pub text_annotations: Vec<String>,
    /// The names of alerts that always fire, to show that Prometheus is there.
    pub heartbeats: Vec<String>,
    /// How long these may stay away.
    pub heartbeat_within: Lease,
    /// How bad it is if they do.
    pub heartbeat_severity: Severity,
    /// The labels by which alerts are shown in groups.
    pub group_by: Vec<String>,
}

/// The words that are in use for severities.
const SEVERITIES: [(&str, Severity); 11] = [
    ("critical", Severity::Critical),
    ("page", Severity::Critical),
    ("error", Severity::Major),
    ("high", Severity::Major),
    ("major", Severity::Major),
    ("minor", Severity::Minor),
    ("warn", Severity::Warning),
    ("warning", Severity::Warning),
    ("indeterminate", Severity::Indeterminate),
    ("info", Severity::Indeterminate),
    ("none", Severity::Indeterminate),
];

impl Default for AlertmanagerConfig {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            resolve_timeout: Duration::from_secs(300),
            resource_labels: words(&["cluster", "namespace", "node", "host", "pod", "instance"]),
            site_label: "site".to_owned(),
            severity_label: "severity".to_owned(),
            severities: SEVERITIES.into_iter().map(|(word, severity)| (word.to_owned(), severity)).collect(),
            severity_otherwise: Severity::Indeterminate,
            text_annotations: words(&["summary", "description", "message"]),
            heartbeats: words(&["Watchdog"]),
            heartbeat_within: Lease::new(300).expect("is within bounds"),
            heartbeat_severity: Severity::Critical,
            group_by: words(&["alertname"]),
        }
    }
}
