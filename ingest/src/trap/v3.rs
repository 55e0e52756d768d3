//! What is counted and kept of version 3: who sent a notification, who could not be believed, and who only asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use klaxon_snmp::{Discovery, Level, Notification, Unreadable, Usm, UsmStats};

use crate::metric::Metric;

/// Why a message of v3 is refused: the values of the label `reason`, beside those of all versions.
const REASONS: [&str; 6] = ["unknown_engine", "unknown_user", "security_level", "wrong_digest", "time_window", "decryption"];

/// What is counted of v3.
#[derive(Debug, Default)]
pub(super) struct V3Counts {
    pub(super) notifications: AtomicU64,
    usm: Arc<UsmStats>,
    /// By [`REASONS`].
    refused: [AtomicU64; 6],
    /// For the engine, for the time.
    discoveries: [AtomicU64; 2],
}

impl V3Counts {
    pub(super) fn new(usm: Arc<UsmStats>) -> Self {
        Self { usm, ..Self::default() }
    }

    /// Where a refusal is counted that only v3 has.
    pub(super) fn refusal(&self, why: &Unreadable) -> Option<&AtomicU64> {
        Some(match why {
            Unreadable::Discovery(Discovery::Engine) => &self.discoveries[0],
            Unreadable::Discovery(Discovery::Time) => &self.discoveries[1],
            Unreadable::UnknownEngine { .. } => &self.refused[0],
            Unreadable::UnknownUser { .. } | Unreadable::UserElsewhere { .. } => &self.refused[1],
            Unreadable::Level { .. } => &self.refused[2],
            Unreadable::WrongDigest { .. } => &self.refused[3],
            Unreadable::TimeWindow { .. } => &self.refused[4],
            Unreadable::Undecryptable { .. } => &self.refused[5],
            _ => return None,
        })
    }

    /// The samples of the metric of refusals.
    pub(super) fn refused_rows(&self, name: &'static str, help: &'static str) -> impl Iterator<Item = Metric> {
        REASONS.iter().zip(&self.refused).map(move |(reason, count)| row(name, help, ("reason", reason), load(count)))
    }

    /// The metrics of v3 alone.
    pub(super) fn rows(&self) -> Vec<Metric> {
        let name = "klaxon_trap_discoveries_total";
        let help = "Questions of senders for this node's SNMP engine and its time; they are no notifications.";
        let mut rows: Vec<Metric> = ["engine", "time"]
            .iter()
            .zip(&self.discoveries)
            .map(|(of, count)| row(name, help, ("of", of), load(count)))
            .collect();
        let name = "klaxon_trap_reports_total";
        let help =
            "Reports to senders of SNMPv3, by whether they were made or withheld because there were too many in a second.";
        rows.push(row(name, help, ("made", "yes"), self.usm.reports()));
        rows.push(row(name, help, ("made", "no"), self.usm.reports_withheld()));
        let name = "klaxon_trap_usm_stats_total";
        let help = "The counters usmStats of RFC 3414, as Reports have them.";
        rows.extend(Usm::ALL.map(|counter| row(name, help, ("counter", counter.as_str()), self.usm.get(counter).into())));
        rows
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn row(name: &'static str, help: &'static str, label: (&'static str, &'static str), value: u64) -> Metric {
    Metric { name, help, is_counter: true, label: Some(label), value }
}

/// The attributes of an event that say who sent it by v3.
pub(super) fn attributes(notification: &Notification) -> impl Iterator<Item = (&'static str, String)> {
    let secured = notification.secured.as_ref();
    let level = |level| match level {
        Level::NoAuthNoPriv => "noAuthNoPriv",
        Level::AuthNoPriv => "authNoPriv",
        Level::AuthPriv => "authPriv",
    };
    let octets = |octets: &bytes::Bytes| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    let context = secured.map(|secured| &secured.context_name).filter(|name| !name.is_empty());
    [
        ("security_name", secured.map(|secured| secured.user.clone())),
        ("security_level", secured.map(|secured| level(secured.level).to_owned())),
        ("engine_id", secured.and_then(|secured| secured.engine_id.as_ref()).map(octets)),
        ("context_engine_id", secured.and_then(|secured| secured.context_engine_id.as_ref()).map(octets)),
        ("context_name", context.map(|name| String::from_utf8_lossy(name).into_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}
