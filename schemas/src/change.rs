//! The change: one step in an alarm's life, with its reasons and its place in the owner's numbering.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::TokenNote;
use crate::alarm::{Alarm, ChangeNumber};
use crate::child::ChildNote;
use crate::event::Event;
use crate::ids::{ActionId, AlarmId, Position};
use crate::names::{Actor, AlarmType, Site, Text};
use crate::severity::Severity;
use crate::state::{Shelf, Suppression};
use crate::time::Timestamp;

/// One step. Committed, it is a fact and is never derived again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The site whose numbering it is in.
    pub site: Site,
    /// Its place in that numbering.
    pub number: ChangeNumber,
    /// When, by the owner's wall clock.
    pub at: Timestamp,
    /// It stands in history only: it came from a site when what it led to was known already. It changes nothing and notifies
    /// nobody.
    pub past: bool,
    /// What happened.
    pub kind: ChangeKind,
    /// Why: what led to it, in order.
    pub reasons: Vec<Reason>,
    /// The person or program that did it, if one did.
    pub actor: Option<Actor>,
    /// From where they did it, in words.
    pub from: Option<Text>,
    /// That person's words.
    pub note: Option<Text>,
    /// What it happened to, as it is afterwards.
    pub subject: Subject,
    /// Where it stands in the journal that it was copied from; nothing where it came about.
    pub place: Option<Place>,
}

/// What no site is called.
const NO_SITE: &str = "";

impl Change {
    /// The site that it is about: that of its alarm, report, refusal or shelf, a node below that is one itself, else the one whose numbering
    /// it is in. A token is nothing of any site: it concerns only those who know of all.
    pub fn concerns(&self) -> &str {
        match &self.subject {
            Subject::Alarm { alarm, .. } => &alarm.key.site,
            Subject::Event { event, .. } => &event.key.site,
            Subject::Child(note) if note.kind.owns() => &note.name,
            Subject::Shelf(shelf) => shelf.order.matcher.site.as_ref().unwrap_or(&self.site),
            Subject::Refusal(refusal) => refusal.site.as_ref().unwrap_or(&self.site),
            Subject::Token(_) => NO_SITE,
            Subject::Child(_) | Subject::Suppression { .. } | Subject::Quarantine { .. } => &self.site,
        }
    }
}

/// Where a change stands in a journal that is kept elsewhere, in partitions. This is the only change from `from` up to `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// The partition.
    pub partition: u16,
    /// The place behind the change of this partition that was copied before it.
    pub from: i64,
    /// The place behind it.
    pub next: i64,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// An episode began.
    Raised,
    /// The text or an attribute changed.
    Updated,
    /// The perceived severity changed.
    SeverityChanged,
    /// The episode ended.
    Cleared,
    /// An operator has seen it.
    Acknowledged,
    /// The acknowledgement was taken back.
    Unacknowledged,
    /// It was given to somebody, or to nobody.
    Assigned,
    /// Somebody wrote about it.
    Noted,
    /// It was set aside.
    Shelved,
    /// It is no longer set aside.
    Unshelved,
    /// Its reporter fell silent.
    Staled,
    /// Its reporter is heard from again.
    Refreshed,
    /// It was cleared and forgotten by an operator.
    Retired,
    /// It was cleared before and is now forgotten. Notifies nobody.
    Purged,
    /// A log event: nothing was raised.
    Logged,
    /// A report that came too late to have an effect.
    Late,
    /// A shelf was put up.
    ShelfAdded,
    /// A shelf was taken away, or its time is over.
    ShelfRemoved,
    /// A type was suppressed.
    Suppressed,
    /// A type is no longer suppressed.
    Unsuppressed,
    /// An operator action was refused.
    Refused,
    /// An entry broke the engine and was put aside.
    Quarantined,
    /// A mirrored alarm was brought to how its owner says it stands, because what led there did not come in its order.
    Realigned,
    /// An action was ordered here for an alarm of another site, and is on its way to its owner.
    Pending,
    /// Something became of a node below this one: it was enrolled, fell silent, is heard from again, moved away, was retired.
    Child,
    /// A token was made.
    TokenCreated,
    /// A token is good no longer.
    TokenRevoked,
}

/// What a change happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An alarm, as it is after the change (for what is forgotten: as it was last).
    Alarm {
        /// The alarm.
        alarm: Arc<Alarm>,
        /// The severity before, where it changed.
        previous_severity: Option<Severity>,
    },
    /// A report that raised nothing: a log event, or one that came too late.
    Event {
        /// The report.
        event: Arc<Event>,
        /// Whether the catalogue knows its type.
        catalogued: bool,
        /// Why it had no effect, if it was to have one.
        without_effect: Option<WithoutEffect>,
    },
    /// A shelf.
    Shelf(Arc<Shelf>),
    /// The suppression of a type.
    Suppression {
        /// The type.
        alarm_type: AlarmType,
        /// Who did it, when and why.
        suppression: Arc<Suppression>,
    },
    /// An action that was refused.
    Refusal(Refusal),
    /// An entry that was put aside.
    Quarantine {
        /// Which entry.
        entry: Position,
        /// How the engine broke on it.
        failure: Text,
    },
    /// A node below this one.
    Child(Arc<ChildNote>),
    /// A token.
    Token(Arc<TokenNote>),
}

/// Why a report that was to raise or clear something did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutEffect {
    /// A newer report of the same alarm was there before.
    Overtaken,
    /// Its number is below the window in which duplicates are recognised.
    TooOld,
    /// Reports of this type cannot be cleared.
    NeverClears,
    /// As many alarms are active as there may be.
    AlarmLimit,
    /// As many reporters have promised to be heard from as may.
    HeartbeatLimit,
    /// It clears what was not there.
    NothingToClear,
}

/// An operator action that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// Which action.
    pub action: ActionId,
    /// On which alarm, if on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<AlarmId>,
    /// Of which site that alarm is, or what else the action is about, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// Why.
    pub reason: RefusalReason,
}

/// Why an action is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// There is no such alarm.
    NoSuchAlarm,
    /// There is no such shelf.
    NoSuchShelf,
    /// The alarm was raised again since the actor saw it.
    RaisedAgain,
    /// Its time was over before it reached the owner.
    Expired,
    /// The alarm is cleared.
    AlreadyCleared,
    /// Only what is cleared can be purged.
    NotCleared,
    /// It is so already.
    NoEffect,
    /// The time until which it was to hold is over.
    UntilIsPast,
    /// As many shelves or suppressions are held as there may be.
    LimitReached,
    /// Somebody did the like later, before it reached the owner.
    Superseded,
    /// Its time was over, and its owner has not said what became of it.
    Unanswered,
    /// Its owner is there no more.
    OwnerGone,
}

impl RefusalReason {
    /// The reason as words for a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchAlarm => "there is no such alarm",
            Self::NoSuchShelf => "there is no such shelf",
            Self::RaisedAgain => "the alarm was raised again since you saw it",
            Self::Expired => "the action's time was over",
            Self::AlreadyCleared => "the alarm is cleared already",
            Self::NotCleared => "the alarm is not cleared",
            Self::NoEffect => "it is so already",
            Self::UntilIsPast => "the time until which it was to hold is over",
            Self::LimitReached => "as many are held as there may be",
            Self::Superseded => "somebody did the like later",
            Self::Unanswered => "its time was over, and its owner has not said what became of it",
            Self::OwnerGone => "the site that owns the alarm is there no more",
        }
    }
}

/// Why a change happened: the ids of the entries, timers and actions that led to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The journal entry at this position.
    Entry(Position),
    /// A deadline that passed.
    Timer(Timer),
    /// An operator action.
    Action(ActionId),
    /// A shelf that matches.
    Shelf(ActionId),
}

/// The deadlines the engine keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Timer {
    /// A reporter's promise to report again.
    Lease,
    /// A reporter's promise to be heard from, whose breach is an alarm.
    Heartbeat,
    /// The end the reporter declared.
    EndsAt,
    /// The lifetime of the type.
    Lifetime,
    /// The end of shelving.
    Shelved,
    /// The purge of what is cleared.
    Purge,
}
