//! What an operator can set about one receiver, checked.

use std::num::NonZeroU32;
use std::time::Duration;

use klaxon_schemas::names::Follower;

use super::{Filter, Grouping, SinkConfig};

/// The most receivers.
pub const RECEIVERS_MAX: usize = 1000;
/// The most confirmed notifications that are kept for sending them again.
pub const REPLAY_MAX: u64 = 65_536;
/// The shortest time between two heartbeats.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// The longest of all times that may be set.
pub const SPAN_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The most alarms that all receivers together may have been told of and not of their end. Each is a record in the store and in
/// memory, some hundreds of bytes.
pub const TOLD_MAX: u64 = 10_000_000;

/// One receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Its name: the cursor is kept under it.
    pub name: Follower,
    /// What it is told of.
    pub filter: Filter,
    /// By what, and where it is.
    pub sink: SinkConfig,
    /// What it is told of when it is new.
    pub start: Start,
    /// A backlog that is older than this when the receiver is reached again is folded into one digest; never, if absent.
    pub fold_after: Option<Duration>,
    /// How many notifications a second at most, or deliveries, if they are grouped; as many as it takes, if absent.
    pub rate: Option<NonZeroU32>,
    /// How often it hears that it can be reached; never, if absent.
    pub heartbeat: Option<Duration>,
    /// Not reached for so long, it is an alarm.
    pub unreachable_after: Duration,
    /// How many confirmed notifications are kept for sending them again; at most [`REPLAY_MAX`].
    pub replay_max: u64,
    /// Whether it is told that somebody acknowledged, assigned or wrote, and that a reporter fell silent.
    pub updates: bool,
    /// Whether it is told of log events.
    pub log_events: bool,
    /// How long it waits before it tries again.
    pub backoff: Backoff,
    /// What is sent together, and how long it waits for that; nothing waits, if absent.
    pub group: Option<Grouping>,
}

/// How long to wait after failures: twice as long after each, spread a little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// How long to wait after so many failures in a row; `chance` spreads receivers over a quarter of it.
    pub(super) fn after(self, failures: u32, chance: u64) -> Duration {
        let doubled = self.min.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.max);
        let spread = doubled / 4;
        doubled - spread + Duration::from_nanos(chance % (u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX) + 1))
    }
}

/// What a receiver is told of when it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// What changes from now on.
    #[default]
    Now,
    /// First what stands.
    Active,
}

impl ReceiverConfig {
    /// The defaults, for `sink`.
    pub fn new(name: Follower, sink: SinkConfig) -> Self {
        Self {
            name,
            filter: Filter::default(),
            start: Start::default(),
            fold_after: Some(Duration::from_secs(60)),
            rate: None,
            heartbeat: None,
            unreachable_after: Duration::from_secs(300),
            replay_max: 4096,
            updates: sink.updates_by_default(),
            log_events: false,
            backoff: Backoff::default(),
            group: None,
            sink,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute() {
        let secs = |failures, chance| Backoff::default().after(failures, chance).as_secs_f64();
        assert_eq!((secs(1, 0), secs(2, 0), secs(7, 0), secs(99, 0)), (0.75, 1.5, 45.0, 45.0));
        assert!((1..20).all(|failures| (0.75..=60.0).contains(&secs(failures, u64::MAX / u64::from(failures)))));
    }
}
