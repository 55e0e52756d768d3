//! The notification as a webhook gets it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Alarm, Event};
use crate::change::{ChangeKind, Reason, WithoutEffect};
use crate::ids::{Epoch, Seq};
use crate::names::{Actor, Follower, Site, Text};
use crate::notify::{Digest, Gap, How};
use crate::severity::Severity;
use crate::time::Timestamp;

/// The version of this form, as it says it itself.
pub const NOTIFICATIONS_VERSION: u32 = 1;

/// What one request to a webhook carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notifications {
    /// The version of this form: 1.
    pub version: u32,
    /// The name of the receiver, as the node's settings have it.
    pub receiver: Follower,
    /// One or more; what is about one alarm stands in its order.
    pub notifications: Vec<Notification>,
}

/// One notification. Receiver, epoch and number together never mean two things: what comes twice can be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    /// Whose numbering it is: it grows when the node's store was restored or lost its end, and the numbers begin at 1 again.
    pub epoch: Epoch,
    /// Contiguous from 1 within receiver and epoch. Absent from a heartbeat, which has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_seq: Option<u64>,
    /// Somebody asked for it to be sent again.
    pub resent: bool,
    /// What it says.
    #[serde(flatten)]
    pub what: Notified,
}

/// What a notification says: `what` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Notified {
    /// A step in an alarm's life as this receiver sees it.
    Alarm {
        /// What it means to the receiver.
        how: How,
        /// The alarm, as it is afterwards.
        alarm: Box<Alarm>,
        /// The change that led to it. Absent where it follows from how the alarms stand, and where the change is kept no more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<Step>,
    },
    /// A log event: a report that raised nothing.
    Log {
        /// The change that it is.
        change: Step,
        /// The report.
        event: Box<Event>,
        /// Whether the catalogue knows its type.
        catalogued: bool,
        /// Why it had no effect, if it was to have one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        without_effect: Option<WithoutEffect>,
    },
    /// What happened in a backlog that was folded; how the alarms stand follows.
    Digest {
        /// The digest.
        digest: Digest,
    },
    /// Changes that are not told one by one; how the alarms stand follows.
    Gap {
        /// The gap.
        gap: Gap,
    },
    /// The receiver can be reached.
    Heartbeat {
        /// The last number that was given to a notification: whoever has it, and all before it, has missed nothing.
        last_delivery_seq: u64,
    },
}

/// A change without what it happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// The site whose numbering it is in.
    pub site: Site,
    /// Whose numbering it is.
    pub epoch: Epoch,
    /// Contiguous from 1 within the epoch.
    pub seq: Seq,
    /// When, by the owner's clock.
    pub at: Timestamp,
    /// What happened.
    pub kind: ChangeKind,
    /// What led to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Who did it, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// In which words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
    /// The severity before, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_severity: Option<Severity>,
}

impl Step {
    /// What `change` says beside its subject.
    pub fn of(change: &crate::change::Change) -> Self {
        let previous_severity = match &change.subject {
            crate::change::Subject::Alarm { previous_severity, .. } => *previous_severity,
            _ => None,
        };
        Self {
            site: change.site.clone(),
            epoch: change.number.epoch,
            seq: change.number.seq,
            at: change.at,
            kind: change.kind,
            reasons: change.reasons.clone(),
            actor: change.actor.clone(),
            note: change.note.clone(),
            previous_severity,
        }
    }
}
