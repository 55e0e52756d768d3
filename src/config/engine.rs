//! `[engine]`: the engine's limits.

use klaxon_schemas::state::Settings;
use serde::{Deserialize, Serialize};

use super::Span;

/// The engine's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// How long what is cleared is kept.
    pub purge_cleared_after: Span,
    /// How many cleared alarms are kept.
    pub cleared_max: usize,
    /// How many alarms may be active.
    pub active_alarms_max: usize,
    /// How long the order of an alarm that is not there is kept.
    pub tombstone_lifetime: Span,
    /// How many such orders.
    pub tombstones_max: usize,
    /// How long ids of events and actions are kept.
    pub event_id_lifetime: Span,
    /// How many such ids.
    pub event_ids_max: usize,
    /// How many producers' windows.
    pub producers_max: usize,
    /// How many shelves.
    pub shelves_max: usize,
    /// How many suppressions.
    pub suppressions_max: usize,
    /// How many promises to be heard from.
    pub heartbeats_max: usize,
    /// How many nodes below.
    pub children_max: usize,
    /// How many actions on their way to one of them.
    pub pending_actions_max: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            purge_cleared_after: Span::hours(24),
            cleared_max: 20_000,
            active_alarms_max: 200_000,
            tombstone_lifetime: Span::hours(1),
            tombstones_max: 10_000,
            event_id_lifetime: Span::hours(24),
            event_ids_max: 100_000,
            producers_max: 10_000,
            shelves_max: 256,
            suppressions_max: 1_000,
            heartbeats_max: 10_000,
            children_max: 10_000,
            pending_actions_max: 1_000,
        }
    }
}

impl EngineConfig {
    /// As the engine takes it.
    pub fn settings(&self) -> Settings {
        Settings {
            purge_cleared_after_s: self.purge_cleared_after.0.as_secs(),
            cleared_max: self.cleared_max,
            active_alarms_max: self.active_alarms_max,
            tombstone_lifetime_s: self.tombstone_lifetime.0.as_secs(),
            tombstones_max: self.tombstones_max,
            event_id_lifetime_s: self.event_id_lifetime.0.as_secs(),
            event_ids_max: self.event_ids_max,
            producers_max: self.producers_max,
            shelves_max: self.shelves_max,
            suppressions_max: self.suppressions_max,
            heartbeats_max: self.heartbeats_max,
            children_max: self.children_max,
            pending_actions_max: self.pending_actions_max,
        }
    }
}
