//! Identifiers and numbers that say where something is.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Identifies one alarm from its first raise until it is purged or retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct AlarmId(pub Uuid);

/// The name space under which alarm ids are derived (RFC 9562, version 5).
const ALARM_NAMESPACE: Uuid = Uuid::from_u128(0x6b6c_6178_6f6e_5a2d_8f1c_616c_6172_6d00);

impl AlarmId {
    /// The id of the alarm whose first raise is the change `seq` of `epoch` at `site`: the numbers are never used twice,
    /// so neither is the id.
    pub fn derive(site: &str, epoch: Epoch, seq: Seq) -> Self {
        let mut name = Vec::with_capacity(site.len() + 17);
        name.extend_from_slice(site.as_bytes());
        name.push(0);
        name.extend_from_slice(&epoch.0.to_be_bytes());
        name.extend_from_slice(&seq.0.to_be_bytes());
        Self(Uuid::new_v5(&ALARM_NAMESPACE, &name))
    }
}

impl fmt::Display for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Identifies one operator action, chosen by who sends it; the same id twice acts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct ActionId(pub Uuid);

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Whose numbering it is: milliseconds since 1970 at which the numbering began, and always beyond the one before it. A
/// restore, or a tail that went missing, begins a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The last that a numbering may be: those of nodes are milliseconds since 1970, and this is the year 2200.
    pub const LATEST: Self = Self(7_258_118_400_000);
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a change: contiguous from 1 within an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The number behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The place of a record in a journal: every record has one, contiguous from 1 for the life of the store. Zero is before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The place `records` further on.
    pub fn plus(self, records: u64) -> Self {
        Self(self.0 + records)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a producer stands in its own numbering: ordered by epoch, then by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Sequence {
    /// The producer's epoch: larger after it lost its count.
    pub epoch: u64,
    /// The number within it.
    pub seq: u64,
}
