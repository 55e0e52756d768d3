//! What is counted of uplinks.

use std::sync::atomic::{AtomicU64, Ordering};

use klaxon_schemas::wire::v1::uplink::Refusal;

use super::Uplinks;
use super::shown::SiteState;

/// The refusals with their words, as metrics name them.
const REFUSALS: [(Refusal, &str); 8] = [
    (Refusal::Protocol, "protocol"),
    (Refusal::Mismatch, "mismatch"),
    (Refusal::AwaitsApproval, "awaits_approval"),
    (Refusal::Doubled, "doubled"),
    (Refusal::Gone, "gone"),
    (Refusal::Malformed, "malformed"),
    (Refusal::Busy, "busy"),
    (Refusal::Other, "other"),
];

/// The counts since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    denied: AtomicU64,
    refused: [AtomicU64; 8],
    connected: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    changes: AtomicU64,
    events: AtomicU64,
    events_rejected: AtomicU64,
    events_lost: AtomicU64,
    left_out: AtomicU64,
    new_epochs: AtomicU64,
}

impl Counts {
    pub(super) fn denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, code: Refusal) {
        let place = REFUSALS.iter().position(|(other, _)| *other == code).unwrap_or(REFUSALS.len() - 1);
        self.refused[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes_in(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes_out(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn changes(&self, count: u64) {
        self.changes.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn events(&self, count: u64) {
        self.events.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn events_rejected(&self, count: u64) {
        self.events_rejected.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn events_lost(&self, records: u64) {
        self.events_lost.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn left_out(&self, count: u64) {
        self.left_out.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn new_epoch(&self) {
        self.new_epochs.fetch_add(1, Ordering::Relaxed);
    }
}

/// One number of a metric.
#[derive(Debug, Clone)]
pub struct UplinkMetric {
    /// The metric.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// It only grows.
    pub is_counter: bool,
    /// The labels of this number.
    pub labels: Vec<(&'static str, &'static str)>,
    /// The number.
    pub value: u64,
}

impl Uplinks {
    /// What is counted, metric by metric. Children are counted by kind and state, and not named: there may be thousands.
    pub fn metrics(&self) -> Vec<UplinkMetric> {
        let mut all = Vec::new();
        let mut push = |name, help, is_counter, labels, value| all.push(UplinkMetric { name, help, is_counter, labels, value });
        let sites = self.sites();
        for kind in super::shown::KINDS {
            for state in SiteState::ALL {
                let count = sites.iter().filter(|site| (site.kind, site.state) == (kind, state)).count();
                let labels = vec![("kind", super::shown::kind_word(kind)), ("state", state.as_str())];
                push("klaxon_sites", "Nodes below this one, by kind and state.", false, labels, count as u64);
            }
        }
        let missing = sites.iter().map(|site| site.missing).sum();
        push("klaxon_sites_missing_records", "Records of their journals that are yet to come.", false, vec![], missing);
        let pending = sites.iter().map(|site| site.pending).sum();
        push("klaxon_sites_pending_actions", "Actions on their way down.", false, vec![], pending);
        let counts = self.counts();
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        push("klaxon_uplink_connections", "Nodes that are connected.", false, vec![], self.table().len() as u64);
        let counters = [
            ("klaxon_uplink_connected_total", "Nodes that connected and were welcome.", &counts.connected),
            ("klaxon_sites_received_bytes_total", "Bytes of messages from below.", &counts.bytes_in),
            ("klaxon_sites_sent_bytes_total", "Bytes of messages sent down.", &counts.bytes_out),
            ("klaxon_uplink_changes_total", "Changes and alarms that sites sent.", &counts.changes),
            ("klaxon_uplink_events_total", "Events that agents sent.", &counts.events),
            ("klaxon_sites_events_rejected_total", "Events of agents that cannot be taken.", &counts.events_rejected),
            (
                "klaxon_sites_lost_records_total",
                "Records that agents kept no longer when they were to come.",
                &counts.events_lost,
            ),
            (
                "klaxon_sites_left_out_total",
                "Alarms and changes of sites that are left out, or kept without their notes and attributes.",
                &counts.left_out,
            ),
            ("klaxon_uplink_epochs_begun_total", "Nodes that were told to begin a new numbering.", &counts.new_epochs),
            ("klaxon_uplink_denied_total", "Requests that proved nothing.", &counts.denied),
        ];
        for (name, help, count) in counters {
            push(name, help, true, vec![], load(count));
        }
        for ((_, word), count) in REFUSALS.iter().zip(&counts.refused) {
            let help = "Uplinks that were refused, by reason.";
            push("klaxon_uplink_refused_total", help, true, vec![("reason", word)], load(count));
        }
        all
    }
}
