//! Collectors: what looks at this machine and tells what holds there.
//!
//! ```text
//! run ── every interval, or woken ──▶ look ──▶ findings: all that holds now
//!                                                  │
//!                   alarms of the store ──▶ desk: what is new, what is over ──▶ door
//! ```
//!
//! A collector has no memory of what it told: the store has. So after a restart what still holds is not raised anew, what is
//! over is cleared, and what an operator cleared too early comes back. One that fails, hangs or panics is an alarm, its
//! alarms become stale, and the others go on.

mod certificates;
mod check;
mod cpu;
mod desk;
mod filesystem;
mod gate;
mod heartbeat;
mod link;
mod memory;
mod pattern;
mod program;
mod run;
mod set;
mod time;
mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::event::{Attributes, Lease};
use klaxon_schemas::names::{AlarmType, Qualifier, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
pub use klaxon_schemas::wire::v1::Reading;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use certificates::CertificatesConfig;
pub use check::{CHECK_TIMEOUT_MAX, CheckConfig, CheckConfigError, CheckFormat};
pub use cpu::CpuConfig;
pub use filesystem::FilesystemConfig;
pub use gate::{Level, Thresholds, ThresholdsError};
pub use heartbeat::HeartbeatConfig;
pub use link::{FLAPS_MAX, LinkConfig};
pub use memory::MemoryConfig;
pub use pattern::{PathGlob, Pattern, PatternError};
pub use set::{Board, CollectConfig, Collectors, Host, HostError, Spec, once};
pub use time::{TimeConfig, TimeDaemon};
pub use units::UnitsConfig;

/// What a finding is about: the key of its alarm without the site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// What it is about.
    pub resource: Resource,
    /// Which kind of alarm it is.
    pub alarm_type: AlarmType,
    /// Tells alarms of one type on one resource apart.
    pub qualifier: Qualifier,
}

impl Subject {
    /// The alarm of `alarm_type` on `resource`, without a qualifier.
    pub fn new(resource: Resource, alarm_type: &'static str) -> Self {
        let alarm_type = AlarmType::new(alarm_type).expect("the types of our own are names");
        Self { resource, alarm_type, qualifier: Qualifier::new("").expect("may be empty") }
    }
}

/// A condition that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// What is seen, in words.
    pub text: Text,
    /// What is known beyond the words.
    pub attributes: Attributes,
}

impl Finding {
    /// A finding without attributes; what cannot stand in a text is replaced, what is too long is cut.
    pub fn new(subject: Subject, severity: Severity, text: &str) -> Self {
        let text = Text::lossy(text).expect("may be empty");
        Self { subject, severity, text, attributes: Attributes::default() }
    }
}

/// What one look has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// All conditions that hold; what was told before and is not among them is over.
    pub findings: Vec<Finding>,
    /// Everything that was looked at.
    pub readings: Vec<Reading>,
    /// What could not be looked at this time: what stands raised about it stays as it is.
    pub unseen: Vec<Resource>,
    /// What promises to be heard from again, and is by this: silence is an alarm.
    pub heartbeats: Vec<Heartbeat>,
    /// When to look again, if that is before the interval is over: a debounce ends then.
    pub again_in: Option<Duration>,
    /// Why there is nothing to look at on this machine, in words; then there are no findings.
    pub not_applicable: Option<String>,
}

impl Look {
    /// There is nothing of its kind on this machine, and that is no fault.
    pub fn not_applicable(why: &str) -> Self {
        Self { not_applicable: Some(why.to_owned()), ..Self::default() }
    }
}

/// A promise to be heard from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The alarm that silence is.
    pub subject: Subject,
    /// How bad silence is.
    pub severity: Severity,
    /// How long the silence may be.
    pub every: Lease,
    /// Who it is, in words.
    pub text: Text,
}

/// A look failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct LookError {
    /// What it was about to do.
    pub action: String,
    /// Why it cannot.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl LookError {
    /// It was about to `action`, and cannot because of `source`.
    pub fn new(action: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { action: action.into(), source: source.into() }
    }
}

/// What of a collector's findings stands raised now, with its severity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told(pub BTreeMap<Subject, Severity>);

impl Told {
    /// The severity of the alarm, if it is raised.
    pub fn severity(&self, subject: &Subject) -> Option<Severity> {
        self.0.get(subject).copied()
    }
}

/// Looks at one part of the machine. It may block: each look runs on a thread of its own, is given a time, and is never run
/// twice at once.
pub trait Collector: Send {
    /// Looks at everything that it watches. `now` runs by CLOCK_BOOTTIME; `told` is what stands raised of what it found before.
    fn look(&mut self, now: Duration, told: &Told) -> Result<Look, LookError>;

    /// Where it says that a look is due before the interval is over.
    fn wakes(&self) -> Option<Arc<Notify>> {
        None
    }

    /// What ends the programs that its looks run: they are not to outlive it.
    fn programs(&self) -> Option<CancellationToken> {
        None
    }
}
