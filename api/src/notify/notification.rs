//! What a sink is given to deliver.

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Change;
use klaxon_schemas::ids::{AlarmId, Epoch};
use klaxon_schemas::names::Follower;
use klaxon_schemas::notify::{Digest, Gap, How};
use klaxon_schemas::time::Timestamp;
use serde::Serialize;

use super::Standing;

/// One notification to one receiver. Cloning shares what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Who is told.
    pub receiver: Follower,
    /// Whose numbering [`Self::delivery_seq`] is in; a new one begins at 1 when the store was restored or lost its end.
    pub epoch: Epoch,
    /// Contiguous from 1 within receiver and epoch; a number never means two things. Of a [`What::Heartbeat`], which has no
    /// number of its own: that of the last notification before it.
    pub delivery_seq: u64,
    /// Somebody asked for it to be sent again.
    pub resent: bool,
    /// What it says.
    pub what: What,
    /// What else stands in its group, if alarms are grouped: the same for all that is delivered together.
    pub beside: Option<Arc<Standing>>,
}

/// What a notification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A step in an alarm's life as this receiver sees it.
    Alarm {
        /// What it means to the receiver.
        how: How,
        /// The change that led to it. Absent where it follows from how the alarms stand (a realignment, a suppression of its
        /// type), and when the change is kept no more.
        change: Option<Arc<Change>>,
        /// The alarm, as it is afterwards. Of one that is forgotten, as much as was told: key, episode, severity.
        alarm: Arc<Alarm>,
        /// Whether its type is suppressed.
        suppressed: bool,
    },
    /// A log event: nothing was raised. The change's subject is an event.
    Log {
        /// The change.
        change: Arc<Change>,
    },
    /// What happened in a backlog that was folded; how the alarms stand follows.
    Digest(Arc<Digest>),
    /// Changes that are not told one by one; how the alarms stand follows.
    Gap(Gap),
    /// The receiver can be reached, and up to this number everything was given out. Without a number of its own.
    Heartbeat {
        /// The last number that was given to a notification.
        last: u64,
    },
}

impl What {
    /// The alarm it is about, if it is about one.
    pub fn alarm(&self) -> Option<AlarmId> {
        match self {
            Self::Alarm { alarm, .. } => Some(alarm.id),
            Self::Log { .. } | Self::Digest(_) | Self::Gap(_) | Self::Heartbeat { .. } => None,
        }
    }

    /// Whether everything before it is settled before it is sent, and it before everything behind it.
    pub fn is_barrier(&self) -> bool {
        matches!(self, Self::Digest(_) | Self::Gap(_))
    }

    /// When what it says happened.
    pub(super) fn happened_at(&self) -> Option<Timestamp> {
        match self {
            Self::Alarm { change: Some(change), .. } | Self::Log { change } => Some(change.at),
            Self::Alarm { alarm, .. } => Some(alarm.changed_at),
            Self::Digest(digest) => digest.last_at,
            Self::Gap(_) | Self::Heartbeat { .. } => None,
        }
    }
}

/// The word that stands for a value on the wire.
pub(super) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}
