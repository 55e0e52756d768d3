//! What receivers of notifications are told, and what is kept of it.
//!
//! The records ([`Delivery`], [`Told`], [`Outbox`]) are stored as they stand here, like those in [`crate::state`]: a change of one
//! is a change of the stored format, version 1, and must read what was written before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::alarm::{Alarm, ChangeNumber};
use crate::change::Place;
use crate::event::AlarmKey;
use crate::ids::{AlarmId, Epoch, Position, Seq};
use crate::names::{AlarmType, Qualifier, Site, Text};
use crate::resource::Resource;
use crate::severity::Severity;
use crate::time::Timestamp;

/// The most alarms that a [`Digest`] names.
pub const DIGEST_NAMED_MAX: usize = 20;
/// The most notifications that one [`Outbox`] record holds.
pub const OUTBOX_ENTRIES_MAX: usize = 32;

/// What a notification about an alarm means to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It stands: told for the first time in this episode, or again after it had left.
    Raised,
    /// It stands as it did, and something about it is different.
    Changed,
    /// It is active and passes the receiver's filter no more, is shelved, or its type is suppressed. Nothing more is told of it
    /// until it passes again or ends.
    Left,
    /// Its episode is over.
    Cleared,
    /// It is over and forgotten.
    Retired,
}

impl How {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Changed => "changed",
            Self::Left => "left",
            Self::Cleared => "cleared",
            Self::Retired => "retired",
        }
    }

    /// Whether the alarm stands for the receiver afterwards.
    pub fn stands(self) -> bool {
        matches!(self, Self::Raised | Self::Changed)
    }
}

/// What happened while a receiver could not be reached, in one line: how the alarms stand follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Digest {
    /// The first position of the journal that it stands for.
    pub from: Position,
    /// The last.
    pub to: Position,
    /// How many changes it stands for that would have been told.
    pub changes: u64,
    /// Of these: log events.
    pub logged: u64,
    /// How many episodes began and ended unseen.
    pub came_and_went: u64,
    /// The same, by the highest severity each of them had; without those that are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_severity: Vec<SeverityCount>,
    /// When the first of the changes was, by the owner's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<Timestamp>,
    /// When the last was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// Some of the alarms that came and went, the most urgent first, at most [`DIGEST_NAMED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<DigestAlarm>,
}

/// How many there were of one severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SeverityCount {
    /// The severity.
    pub severity: Severity,
    /// How many.
    pub count: u64,
}

/// An alarm that came and went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DigestAlarm {
    /// Which.
    pub id: AlarmId,
    /// Whose.
    pub site: Site,
    /// What it was about.
    pub resource: Resource,
    /// Which kind of alarm it was.
    pub alarm_type: AlarmType,
    /// Which of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<Qualifier>,
    /// The highest severity it had.
    pub severity: Severity,
    /// What it said last; cut short.
    pub text: Text,
    /// When it began.
    pub raised_at: Timestamp,
    /// When it ended.
    pub cleared_at: Timestamp,
}

/// Changes that are not told one by one: how the alarms stand follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The first position of the journal that was not told.
    pub from: Position,
    /// The last.
    pub to: Position,
    /// How many changes there were, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
}

/// Why there is a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// Retention by size dropped what was still to be told.
    Retention,
    /// The store was restored, or the end of its journal was lost: a new numbering begins.
    NewEpoch,
    /// What one number stood for is kept no more, and nothing that it could be told from.
    Forgotten,
    /// A part of the journal is damaged.
    Damaged,
}

/// How far the delivery to one receiver is: part of [`crate::state::Followed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Whose numbering it is.
    pub epoch: Epoch,
    /// The last number that was given to a notification.
    pub assigned: u64,
    /// All up to this number are settled: confirmed, or given up after the receiver refused them.
    pub confirmed: u64,
    /// Numbers above it that are settled as well, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirmed_above: Vec<u64>,
    /// The changes up to here have been looked at.
    pub read: Position,
    /// The number of the last change that was looked at, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_seq: Option<Seq>,
    /// How many changes of other sites had come in up to there.
    #[serde(default, skip_serializing_if = "crate::child::is_zero")]
    pub read_mirrored: u64,
    /// The same where the journal is kept elsewhere: up to which place of each of its partitions. Positions are those of one copy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<u16, i64>,
    /// Which filter was used, so that another one is noticed.
    pub filter: String,
    /// How the alarms stand is being told, and this is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realign: Option<Realign>,
}

/// How far the telling of how the alarms stand goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Realign {
    /// What no longer stands ends, and what stands is told.
    Whole,
    /// What stands and is not told, or is told and passes no longer; ends follow from the journal.
    Standing,
    /// As [`Self::Whole`], behind a gap that is to be told first: the changes behind what was looked at are not here.
    Lost,
}

/// An alarm that a receiver was told of, and whose end it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Told {
    /// Which alarm it is, in words: it must be possible to tell its end when it is forgotten.
    pub key: AlarmKeyForm,
    /// The episode.
    pub raise_seq: u32,
    /// The severity as it was told last.
    pub severity: Severity,
    /// The number of the alarm's last change in what was told, by its owner.
    pub number: ChangeNumber,
    /// Changes up to this place of the journal are in what was told; in what was stored before this was kept, those up to
    /// `number`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Position>,
    /// When the episode began.
    pub raised_at: Timestamp,
    /// A sum over what was said of the condition ([`condition_sum`]), so that a difference is noticed.
    #[serde(default)]
    pub said: u64,
    /// It was told that it passes no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// A sum over what an alarm says of its condition: severity, text and attributes, and nothing of what people did about it. Two that
/// differ have the same sum once in 2⁶⁴ (FNV-1a; it is stored, so it stays this one).
pub fn condition_sum(alarm: &Alarm) -> u64 {
    let said = serde_json::to_vec(&(alarm.severity, &alarm.text, &alarm.details)).expect("names and words serialize");
    said.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// An [`AlarmKey`] as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlarmKeyForm {
    /// The site that owns it.
    pub site: Site,
    /// What it is about.
    pub resource: Resource,
    /// Which kind of alarm it is.
    pub alarm_type: AlarmType,
    /// Tells alarms of one type on one resource apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<Qualifier>,
}

impl From<&AlarmKey> for AlarmKeyForm {
    fn from(key: &AlarmKey) -> Self {
        let AlarmKey { site, resource, alarm_type, qualifier } = key.clone();
        let qualifier = (!qualifier.is_empty()).then_some(qualifier);
        Self { site, resource, alarm_type, qualifier }
    }
}

impl From<&AlarmKeyForm> for AlarmKey {
    fn from(form: &AlarmKeyForm) -> Self {
        let AlarmKeyForm { site, resource, alarm_type, qualifier } = form.clone();
        let qualifier = qualifier.unwrap_or_else(|| Qualifier::new("").expect("may be empty"));
        Self { site, resource, alarm_type, qualifier }
    }
}

/// What consecutive numbers stand for, from the one in the record's key on. Written before any of them is sent, so that a number
/// never means two things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Outbox(pub Vec<OutboxEntry>);

/// What one number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum OutboxEntry {
    /// An alarm, as it was after a change.
    Alarm(OutboxAlarm),
    /// The log event at this position.
    Log {
        /// Where the change stands.
        position: Position,
        /// The same in a journal that is kept elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
    },
    /// A digest.
    Digest {
        /// The digest.
        digest: Digest,
    },
    /// A gap.
    Gap {
        /// The gap.
        gap: Gap,
    },
}

/// What one number says of an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxAlarm {
    /// Which.
    pub alarm: AlarmId,
    /// What it means.
    pub how: How,
    /// Where the change stands that led to it; absent where it follows from how the alarms stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// The same in a journal that is kept elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The number of the alarm's change that it shows.
    pub number: ChangeNumber,
    /// Whether its type is suppressed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suppressed: bool,
    /// What was told of it before, for an end: it may be all that is left of the alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Box<Told>>,
}
