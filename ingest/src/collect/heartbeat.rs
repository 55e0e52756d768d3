//! The node's own heartbeat: as long as what looks and reports here is at work, it is heard from. If it is not, the engine
//! raises the alarm that was promised; on a site's node that says that its collectors stand still, at the far end of an uplink
//! that the host is silent.

use std::time::Duration;

use klaxon_schemas::event::Lease;
use klaxon_schemas::names::Text;
use klaxon_schemas::severity::Severity;

use super::{Collector, Heartbeat, Host, Look, LookError, Reading, Subject, Told};

/// How many heartbeats may fail to come.
const MISSED_MAX: u32 = 3;

/// What the collector `heartbeat` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// How often it is heard from.
    pub interval: Duration,
    /// How bad it is if three did not come.
    pub severity: Severity,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), severity: Severity::Critical }
    }
}

pub(super) struct OwnHeartbeat {
    heartbeat: Heartbeat,
}

impl OwnHeartbeat {
    pub(super) fn new(config: &HeartbeatConfig, host: &Host) -> Self {
        let seconds = config.interval.saturating_mul(MISSED_MAX).as_secs().max(1);
        let every = Lease::new(u32::try_from(seconds).unwrap_or(u32::MAX))
            .unwrap_or_else(|_| Lease::new(klaxon_schemas::event::LEASE_S_MAX).expect("is the longest"));
        let text = Text::new("the collectors of this host").expect("printable");
        let subject = Subject::new(host.resource(), "heartbeat.lost");
        Self { heartbeat: Heartbeat { subject, severity: config.severity, every, text } }
    }
}

impl Collector for OwnHeartbeat {
    fn look(&mut self, _now: Duration, _told: &Told) -> Result<Look, LookError> {
        let reading = Reading {
            what: self.heartbeat.subject.resource.to_string(),
            value: format!("is heard from; silence of {} is an alarm", self.heartbeat.every),
            severity: None,
        };
        Ok(Look { readings: vec![reading], heartbeats: vec![self.heartbeat.clone()], ..Look::default() })
    }
}
