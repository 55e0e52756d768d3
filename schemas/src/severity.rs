//! Perceived severity and event type.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// X.733 8.1.2.3 perceived severity without its `cleared`: being cleared is an axis of its own (RFC 8632, 4.2).
/// The order is that of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The level could not be determined.
    Indeterminate,
    /// A fault may come, nothing is affected yet.
    Warning,
    /// A fault that affects no service.
    Minor,
    /// A fault that affects service.
    Major,
    /// Service is gone.
    Critical,
}

impl Severity {
    /// All, the least urgent first.
    pub const ALL: [Self; 5] = [Self::Indeterminate, Self::Warning, Self::Minor, Self::Major, Self::Critical];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Indeterminate => "indeterminate",
            Self::Warning => "warning",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is none of indeterminate, warning, minor, major, critical")]
pub struct NoSeverity;

impl std::str::FromStr for Severity {
    type Err = NoSeverity;
    fn from_str(word: &str) -> Result<Self, NoSeverity> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == word).ok_or(NoSeverity)
    }
}

/// What an event says of a condition: X.733 perceived severity as reporters know it, with `cleared`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Perceived {
    /// The condition holds.
    Raised(Severity),
    /// It is over.
    Cleared,
}

/// X.733 8.1.1 event type, with the security alarms of X.736 8.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventType {
    /// None of the others.
    Other,
    /// Conveying information from one point to another.
    Communications,
    /// Degradation in the quality of a service.
    QualityOfService,
    /// A software or processing fault.
    ProcessingError,
    /// An equipment fault.
    Equipment,
    /// A condition of the enclosure.
    Environmental,
    /// X.736: information may have been modified.
    IntegrityViolation,
    /// X.736: a service could not be provided.
    OperationalViolation,
    /// X.736: a physical resource was violated.
    PhysicalViolation,
    /// X.736: a security service or mechanism was attacked.
    SecurityServiceOrMechanismViolation,
    /// X.736: an event outside its permitted time.
    TimeDomainViolation,
}
