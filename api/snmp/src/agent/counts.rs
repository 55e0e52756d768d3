//! What the agent counts, in one life or in several: it is built anew when its users change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_snmp::Agent as WireAgent;

use super::Refusals;

/// What the agent counts.
#[derive(Default)]
pub struct AgentCounts {
    gets: AtomicU64,
    nexts: AtomicU64,
    sets: AtomicU64,
    refusals: Refusals,
    lives: RwLock<Lives>,
}

#[derive(Default)]
struct Lives {
    /// Of those before.
    before: Library,
    now: Option<WireAgent>,
}

/// What the library counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Library {
    pub(super) malformed: u64,
    pub(super) invalid: u64,
    pub(super) unknown_models: u64,
    pub(super) silent_drops: u64,
    pub(super) unknown_contexts: u64,
    pub(super) unknown_engine_ids: u64,
    pub(super) unknown_users: u64,
    pub(super) wrong_digests: u64,
    pub(super) outside_time_windows: u64,
    pub(super) unsupported_levels: u64,
    pub(super) decryption_errors: u64,
}

/// A metric: its name, what it says, whether it only grows, its label if it has one, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMetric {
    /// As Prometheus has it.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Whether it is a counter; else it is a gauge.
    pub is_counter: bool,
    /// The name of its label, and the label's value.
    pub label: Option<(&'static str, &'static str)>,
    /// How much.
    pub value: u64,
}

impl AgentCounts {
    /// Counts that begin at zero, but for `refusals`, which are counted where the log is.
    pub fn new(refusals: Refusals) -> Self {
        Self { refusals, ..Self::default() }
    }

    pub(super) fn got(&self) {
        self.gets.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn walked(&self) {
        self.nexts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set(&self) {
        self.sets.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// A life begins; it ends when what comes back is dropped.
    pub(super) fn live(self: &Arc<Self>, agent: &WireAgent) -> Life {
        self.lives.write().unwrap_or_else(PoisonError::into_inner).now = Some(agent.clone());
        Life(Arc::clone(self))
    }

    /// snmpEngineBoots and snmpEngineTime.
    pub(super) fn boots_time(&self) -> (u32, u32) {
        let lives = self.lives.read().unwrap_or_else(PoisonError::into_inner);
        lives.now.as_ref().and_then(|agent| agent.engine_boots_time().ok()).unwrap_or_default()
    }

    pub(super) fn library(&self) -> Library {
        let lives = self.lives.read().unwrap_or_else(PoisonError::into_inner);
        lives.now.as_ref().map_or(lives.before, |agent| lives.before.plus(Library::of(agent)))
    }

    /// Refused requests by who asked for what they may not have: what somebody should look at.
    pub fn strangers(&self) -> u64 {
        let Library { unknown_users, wrong_digests, unsupported_levels, decryption_errors, .. } = self.library();
        let by_key = unknown_users + wrong_digests + unsupported_levels + decryption_errors;
        by_key + self.refusals.community() + self.refusals.access()
    }

    /// Requests that cannot be read.
    pub fn malformed(&self) -> u64 {
        let Library { malformed, invalid, unknown_models, .. } = self.library();
        malformed + invalid + unknown_models
    }

    /// All of them; the samples of one metric stand together.
    pub fn rows(&self) -> Vec<AgentMetric> {
        let library = self.library();
        let refusals = &self.refusals;
        let row = |name, help, label, value| AgentMetric { name, help, is_counter: true, label: Some(label), value };
        let objects = |operation, count: &AtomicU64| {
            let help = "Variables that managers asked the SNMP agent for, or to set.";
            row("klaxon_snmp_agent_variables_total", help, ("operation", operation), count.load(Ordering::Relaxed))
        };
        let refused = |reason, count| {
            let help = "Requests to the SNMP agent that were refused or could not be read.";
            row("klaxon_snmp_agent_requests_rejected_total", help, ("reason", reason), count)
        };
        let failed = |reason, count| {
            let help = "Requests to the SNMP agent that were taken, and whose sender has no response.";
            row("klaxon_snmp_agent_requests_failed_total", help, ("reason", reason), count)
        };
        vec![
            objects("get", &self.gets),
            objects("next", &self.nexts),
            objects("set", &self.sets),
            refused("malformed", library.malformed + library.invalid + library.unknown_models),
            refused("community", refusals.community()),
            refused("access", refusals.access()),
            refused("user", library.unknown_users),
            refused("digest", library.wrong_digests),
            refused("level", library.unsupported_levels),
            refused("time_window", library.outside_time_windows),
            refused("decryption", library.decryption_errors),
            refused("context", library.unknown_contexts),
            failed("too_big", library.silent_drops),
            failed("unsent", refusals.unsent()),
            failed("broken", refusals.broken()),
            AgentMetric {
                name: "klaxon_snmp_agent_discoveries_total",
                help: "Requests that asked the SNMP agent for its engine id, as every new manager of SNMPv3 does.",
                is_counter: true,
                label: None,
                value: library.unknown_engine_ids,
            },
        ]
    }
}

impl Library {
    fn of(agent: &WireAgent) -> Self {
        Self {
            malformed: agent.snmp_in_asn_parse_errs().into(),
            invalid: agent.snmp_invalid_msgs().into(),
            unknown_models: agent.snmp_unknown_security_models().into(),
            silent_drops: agent.snmp_silent_drops().into(),
            unknown_contexts: agent.snmp_unknown_contexts().into(),
            unknown_engine_ids: agent.usm_unknown_engine_ids().into(),
            unknown_users: agent.usm_unknown_usernames().into(),
            wrong_digests: agent.usm_wrong_digests().into(),
            outside_time_windows: agent.usm_not_in_time_windows().into(),
            unsupported_levels: agent.usm_unsupported_sec_levels().into(),
            decryption_errors: agent.usm_decryption_errors().into(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            malformed: self.malformed + other.malformed,
            invalid: self.invalid + other.invalid,
            unknown_models: self.unknown_models + other.unknown_models,
            silent_drops: self.silent_drops + other.silent_drops,
            unknown_contexts: self.unknown_contexts + other.unknown_contexts,
            unknown_engine_ids: self.unknown_engine_ids + other.unknown_engine_ids,
            unknown_users: self.unknown_users + other.unknown_users,
            wrong_digests: self.wrong_digests + other.wrong_digests,
            outside_time_windows: self.outside_time_windows + other.outside_time_windows,
            unsupported_levels: self.unsupported_levels + other.unsupported_levels,
            decryption_errors: self.decryption_errors + other.decryption_errors,
        }
    }
}

/// The present life of an agent. Its counts are kept, and nothing of it holds the port.
pub(super) struct Life(Arc<AgentCounts>);

impl Drop for Life {
    fn drop(&mut self) {
        let mut lives = self.0.lives.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = lives.now.take() {
            lives.before = lives.before.plus(Library::of(&agent));
        }
    }
}
