//! What a site sends of its alarms, as the journal of the node above it keeps it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Alarm, Change, FormError};
use crate::child::Below;
use crate::ids::{ActionId, AlarmId, Epoch, Position};
use crate::names::ChildName;

/// One step of what a site sends.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Relay {
    /// Who sends it.
    pub child: ChildName,
    /// Its numbering.
    pub epoch: Epoch,
    /// What.
    #[serde(flatten)]
    pub content: RelayContent,
}

/// What a site can send: exactly one of these.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelayContent {
    /// How its alarms within a range of ids stand.
    Alignment {
        /// As of this position.
        at: Position,
        /// The first id.
        from: AlarmId,
        /// The last id.
        to: AlarmId,
        /// The alarms.
        alarms: Vec<Alarm>,
    },
    /// It stands here as there.
    Aligned {
        /// As of this position.
        at: Position,
        /// History behind this is missing.
        after: Position,
        /// What its last change is there.
        #[serde(default)]
        fingerprint: u64,
        /// The nodes below it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        below: Vec<Below>,
    },
    /// Changes as they happened.
    Live {
        /// Behind this position,
        after: Position,
        /// up to this.
        upto: Position,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Changes that were missing.
    History {
        /// Behind this position,
        after: Position,
        /// up to this.
        upto: Position,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Changes that will never come.
    Gap {
        /// Behind this position,
        after: Position,
        /// up to this.
        upto: Position,
    },
    /// What became of actions is known.
    Acted {
        /// Of which.
        actions: Vec<ActionId>,
    },
}

impl From<&crate::child::Relay> for Relay {
    fn from(relay: &crate::child::Relay) -> Self {
        Self { child: relay.child.clone(), epoch: relay.epoch, content: (&relay.content).into() }
    }
}

impl TryFrom<Relay> for crate::child::Relay {
    type Error = FormError;

    fn try_from(form: Relay) -> Result<Self, FormError> {
        Ok(Self { child: form.child, epoch: form.epoch, content: form.content.try_into()? })
    }
}

/// The forms in which changes go up: as they are shown, because what the engine keeps is its owner's.
impl From<&crate::child::RelayContent> for RelayContent {
    fn from(content: &crate::child::RelayContent) -> Self {
        use crate::child::RelayContent as Content;
        let forms = |changes: &[Arc<crate::change::Change>]| {
            changes.iter().map(|change| Change::shown(change, |_| false)).collect::<Vec<_>>()
        };
        match content {
            Content::Alignment { at, from, to, alarms } => Self::Alignment {
                at: *at,
                from: *from,
                to: *to,
                alarms: alarms.iter().map(|alarm| Alarm::shown(alarm, false)).collect(),
            },
            Content::Aligned { at, after, fingerprint, below } => {
                Self::Aligned { at: *at, after: *after, fingerprint: *fingerprint, below: below.clone() }
            }
            Content::Live { after, upto, changes } => Self::Live { after: *after, upto: *upto, changes: forms(changes) },
            Content::History { after, upto, changes } => Self::History { after: *after, upto: *upto, changes: forms(changes) },
            Content::Gap { after, upto } => Self::Gap { after: *after, upto: *upto },
            Content::Acted { actions } => Self::Acted { actions: actions.clone() },
        }
    }
}

impl TryFrom<RelayContent> for crate::child::RelayContent {
    type Error = FormError;

    fn try_from(form: RelayContent) -> Result<Self, FormError> {
        let read = |changes: Vec<Change>| {
            changes.into_iter().map(|change| change.try_into().map(Arc::new)).collect::<Result<Vec<_>, FormError>>()
        };
        Ok(match form {
            RelayContent::Alignment { at, from, to, alarms } => {
                let alarms = alarms.into_iter().map(|alarm| alarm.try_into().map(Arc::new));
                Self::Alignment { at, from, to, alarms: alarms.collect::<Result<_, FormError>>()? }
            }
            RelayContent::Aligned { at, after, fingerprint, below } => Self::Aligned { at, after, fingerprint, below },
            RelayContent::Live { after, upto, changes } => Self::Live { after, upto, changes: read(changes)? },
            RelayContent::History { after, upto, changes } => Self::History { after, upto, changes: read(changes)? },
            RelayContent::Gap { after, upto } => Self::Gap { after, upto },
            RelayContent::Acted { actions } => Self::Acted { actions },
        })
    }
}
