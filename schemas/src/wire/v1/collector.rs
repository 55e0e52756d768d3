//! How a collector of a node is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::severity::Severity;
use crate::time::Timestamp;

/// A collector of this node: what looks at one part of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Collector {
    /// Its name, as in the configuration: `cpu`, or `check/NAME`.
    pub name: String,
    /// How it is.
    pub state: CollectorState,
    /// Why it is not at work, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it looks, in seconds.
    pub interval_s: u64,
    /// When it looked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<Timestamp>,
    /// How long that took, in microseconds.
    pub look_us: u64,
    /// How often it has looked since the start.
    pub looks: u64,
    /// How many of these looks failed.
    pub failures: u64,
    /// How many conditions hold.
    pub holds: usize,
    /// What it saw at the last look, well or not; at most 256.
    pub readings: Vec<Reading>,
}

/// How a collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CollectorState {
    /// It has not looked yet.
    Starting,
    /// It looks.
    Running,
    /// There is nothing of its kind on this machine.
    NotApplicable,
    /// It does not answer, or its looks fail.
    Failed,
}

impl CollectorState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::NotApplicable => "not-applicable",
            Self::Failed => "failed",
        }
    }
}

/// One thing that a collector saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reading {
    /// What it looked at.
    pub what: String,
    /// How that was, with its unit.
    pub value: String,
    /// How bad that is, without hysteresis and debounce; absent if it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}
