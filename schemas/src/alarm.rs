//! The alarm: a lasting state of a resource. Its axes are apart: cleared, severity, acknowledged, assigned, shelved, stale.
//! (Suppression is one fact about a type and is kept there, see [`crate::state::Suppression`].)

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{AlarmKey, Details, Lease};
use crate::ids::{ActionId, AlarmId, Epoch, Seq, Sequence};
use crate::names::{Actor, ChildName, Producer, Site, Text};
use crate::severity::Severity;
use crate::time::{JournalTime, Timestamp};

/// The most notes an alarm keeps; an older one gives way and stays in history.
pub const NOTES_MAX: usize = 16;
/// The most producers whose order is kept per alarm; the one heard from least recently gives way.
pub const ORDER_MARKS_MAX: usize = 8;

/// One alarm, from its first raise until it is purged or retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Stays the same from episode to episode.
    pub id: AlarmId,
    /// What it is about.
    pub key: AlarmKey,
    /// Whose alarm it is, if it is not this node's own: this node mirrors it, and only that site changes it.
    pub owner: Option<Site>,
    /// The node below this one through which it was last heard of: the site that it is mirrored from, or the agent that
    /// relayed its last report.
    pub via: Option<ChildName>,
    /// Whether the catalogue knows its type.
    pub catalogued: bool,
    /// The last perceived severity; kept when the alarm clears.
    pub severity: Severity,
    /// Set while it is cleared.
    pub cleared: Option<Clearance>,
    /// X.733 additional text of the last report.
    pub text: Text,
    /// X.733 attributes of the last report that gave them.
    pub details: Details,
    /// The episode: 1 with the first raise, one more with each raise after a clear.
    pub raise_seq: u32,
    /// When the first episode began, by the owner's wall clock.
    pub first_raised_at: Timestamp,
    /// When this episode began, by the owner's wall clock.
    pub raised_at: Timestamp,
    /// The reporter's claim of when this episode began.
    pub event_time: Option<Timestamp>,
    /// When it last changed, by the owner's wall clock.
    pub changed_at: Timestamp,
    /// The number of its last change.
    pub last_change: ChangeNumber,
    /// How many reports this episode had.
    pub count: u64,
    /// When the last of them arrived.
    pub last_reported_at: Timestamp,
    /// The reporter's claim in the last of them.
    pub last_event_time: Option<Timestamp>,
    /// Who sent the last of them.
    pub producer: Option<Producer>,
    /// Set while it is acknowledged.
    pub acknowledged: Option<Mark>,
    /// Set while it is assigned.
    pub assigned: Option<Assignment>,
    /// What people wrote about it, the oldest first, at most [`NOTES_MAX`].
    pub notes: Vec<Note>,
    /// Set while it is shelved.
    pub shelved: Option<Shelved>,
    /// Set while its reporter is silent.
    pub stale: Option<Stale>,
    /// What the engine keeps with it.
    pub engine: EngineMarks,
}

impl Alarm {
    /// Whether the condition holds.
    pub fn is_active(&self) -> bool {
        self.cleared.is_none()
    }

    /// Whether it is another site's, and this node only mirrors it.
    pub fn is_mirrored(&self) -> bool {
        self.owner.is_some()
    }
}

/// The place of a change in its owner's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
pub struct ChangeNumber {
    /// Whose numbering.
    pub epoch: Epoch,
    /// Contiguous from 1 within it.
    pub seq: Seq,
}

/// The end of an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clearance {
    /// When, by the owner's wall clock.
    pub at: Timestamp,
    /// What ended it.
    pub by: ClearedBy,
}

/// What ends an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClearedBy {
    /// A report.
    Report,
    /// An operator.
    Operator,
    /// The end that the reporter had declared.
    EndsAt,
    /// The lifetime that the catalogue gives the type.
    Lifetime,
    /// Its owner, or the agent that reported it, lists it no more or is there no more, and how it ended did not come through.
    Realignment,
}

/// An operator's mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mark {
    /// Who.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// With which words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
}

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assignment {
    /// To whom.
    pub to: Actor,
    /// By whom.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
}

/// What somebody wrote about an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// Who.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// What.
    pub text: Text,
}

/// ISA-18.2 shelving: an operator set the alarm aside, until a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shelved {
    /// Who.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Until when, by the wall clock of that time.
    pub until: Timestamp,
    /// Why.
    pub reason: Text,
    /// The shelf that did it, if it was done by a matcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelf: Option<ActionId>,
}

/// The reporter is silent: what the alarm says is the last that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stale {
    /// Since when, by the owner's wall clock.
    pub since: Timestamp,
}

/// What the engine keeps with an alarm: the order of its reports, and its deadlines in journal time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct EngineMarks {
    /// The newest numbered report of each producer, at most [`ORDER_MARKS_MAX`], the one heard from last at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<OrderMark>,
    /// The promise to report again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseMark>,
    /// When it clears by itself, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndMark>,
    /// When it is unshelved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved_until: Option<JournalTime>,
    /// When it was cleared; it is purged a set time later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<JournalTime>,
    /// When what operators did to it last was ordered, axis by axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered: Option<Box<Ordered>>,
}

/// When the last action on each axis of an alarm was ordered, in this node's journal time, which no clock that is set moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Ordered {
    /// That somebody has seen it, or nobody.
    #[serde(default, rename = "acknowledge_at", skip_serializing_if = "Option::is_none")]
    pub acknowledge: Option<JournalTime>,
    /// Whose it is.
    #[serde(default, rename = "assign_at", skip_serializing_if = "Option::is_none")]
    pub assign: Option<JournalTime>,
    /// That it is set aside, or not.
    #[serde(default, rename = "shelve_at", skip_serializing_if = "Option::is_none")]
    pub shelve: Option<JournalTime>,
    /// That it is over.
    #[serde(default, rename = "clear_at", skip_serializing_if = "Option::is_none")]
    pub clear: Option<JournalTime>,
}

/// The newest numbered report of one producer about one alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderMark {
    /// Who.
    pub producer: Producer,
    /// Its number.
    pub sequence: Sequence,
}

/// A running lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseMark {
    /// How long a report is good for.
    pub seconds: Lease,
    /// When the last one came.
    pub renewed_at: JournalTime,
}

/// An end that is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndMark {
    /// When.
    pub at: JournalTime,
    /// Why.
    pub by: ClearedBy,
    /// Nobody declared it: the door assumed it, because reports of this kind end some time after the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
}
