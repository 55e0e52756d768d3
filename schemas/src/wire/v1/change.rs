//! The change, as it is stored, streamed and listed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Alarm, Event, FormError};
use crate::access::TokenNote;
use crate::alarm::ChangeNumber;
use crate::change::{ChangeKind, Place, Reason, Refusal, Subject, WithoutEffect};
use crate::child::ChildNote;
use crate::ids::{Epoch, Position, Seq};
use crate::names::{Actor, AlarmType, Site, Text};
use crate::severity::Severity;
use crate::state::{Shelf, Suppression};
use crate::time::Timestamp;

/// One step in an alarm's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The site whose numbering it is in.
    pub site: Site,
    /// Whose numbering it is.
    pub epoch: Epoch,
    /// Contiguous from 1 within the epoch.
    pub seq: Seq,
    /// When, by the owner's clock.
    pub at: Timestamp,
    /// It stands in history only: it came when what it led to was known already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub past: bool,
    /// What happened.
    pub kind: ChangeKind,
    /// What led to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// Who did it, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// From where they did it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    /// In which words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
    /// What it happened to.
    #[serde(flatten)]
    pub subject: ChangeSubject,
    /// Where it was copied from; a node's own, that it shows to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub place: Option<Place>,
}

/// What a change happened to: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ChangeSubject {
    /// An alarm, as it is afterwards.
    Alarm {
        /// The alarm.
        alarm: Box<Alarm>,
        /// The severity before, where it changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_severity: Option<Severity>,
    },
    /// A report that raised nothing.
    Event {
        /// The report.
        event: Box<Event>,
        /// Whether the catalogue knows its type.
        #[serde(default)]
        catalogued: bool,
        /// Why it had no effect, if it was to have one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        without_effect: Option<WithoutEffect>,
    },
    /// A shelf.
    Shelf {
        /// The shelf.
        shelf: Box<Shelf>,
    },
    /// The suppression of a type.
    Suppression {
        /// The type.
        alarm_type: AlarmType,
        /// Who, when and why.
        suppression: Suppression,
    },
    /// An action that was refused.
    Refusal {
        /// Which, and why.
        refusal: Refusal,
    },
    /// An entry that was put aside.
    Quarantine {
        /// Which.
        entry: Position,
        /// How the engine broke on it.
        failure: Text,
    },
    /// A node below this one.
    Child {
        /// Which, and what became of it.
        child: ChildNote,
    },
    /// A token.
    Token {
        /// Which.
        token: TokenNote,
    },
}

impl Change {
    /// The form that is stored.
    pub fn stored(change: &crate::change::Change) -> Self {
        Self { place: change.place, ..Self::of(change, Alarm::stored) }
    }

    /// The form that is shown.
    pub fn shown(change: &crate::change::Change, suppressed: impl Fn(&AlarmType) -> bool) -> Self {
        Self::of(change, |alarm| Alarm::shown(alarm, suppressed(&alarm.key.alarm_type)))
    }

    fn of(change: &crate::change::Change, form: impl Fn(&crate::alarm::Alarm) -> Alarm) -> Self {
        Self {
            site: change.site.clone(),
            epoch: change.number.epoch,
            seq: change.number.seq,
            at: change.at,
            past: change.past,
            kind: change.kind,
            reasons: change.reasons.clone(),
            actor: change.actor.clone(),
            from: change.from.clone(),
            note: change.note.clone(),
            subject: match &change.subject {
                Subject::Alarm { alarm, previous_severity } => {
                    ChangeSubject::Alarm { alarm: Box::new(form(alarm)), previous_severity: *previous_severity }
                }
                Subject::Event { event, catalogued, without_effect } => ChangeSubject::Event {
                    event: Box::new((&**event).into()),
                    catalogued: *catalogued,
                    without_effect: *without_effect,
                },
                Subject::Shelf(shelf) => ChangeSubject::Shelf { shelf: Box::new((**shelf).clone()) },
                Subject::Suppression { alarm_type, suppression } => {
                    ChangeSubject::Suppression { alarm_type: alarm_type.clone(), suppression: (**suppression).clone() }
                }
                Subject::Refusal(refusal) => ChangeSubject::Refusal { refusal: refusal.clone() },
                Subject::Child(note) => ChangeSubject::Child { child: (**note).clone() },
                Subject::Token(note) => ChangeSubject::Token { token: (**note).clone() },
                Subject::Quarantine { entry, failure } => ChangeSubject::Quarantine { entry: *entry, failure: failure.clone() },
            },
            place: None,
        }
    }
}

impl TryFrom<Change> for crate::change::Change {
    type Error = FormError;

    fn try_from(form: Change) -> Result<Self, FormError> {
        let subject = match form.subject {
            ChangeSubject::Alarm { alarm, previous_severity } => {
                Subject::Alarm { alarm: Arc::new((*alarm).try_into()?), previous_severity }
            }
            ChangeSubject::Event { event, catalogued, without_effect } => {
                let event = (*event)
                    .into_event(&form.site)
                    .map_err(|_| FormError::Field { field: "event", reason: "contradicts itself" })?;
                Subject::Event { event: Arc::new(event), catalogued, without_effect }
            }
            ChangeSubject::Shelf { shelf } => Subject::Shelf(Arc::from(shelf)),
            ChangeSubject::Suppression { alarm_type, suppression } => {
                Subject::Suppression { alarm_type, suppression: Arc::new(suppression) }
            }
            ChangeSubject::Refusal { refusal } => Subject::Refusal(refusal),
            ChangeSubject::Child { child } => Subject::Child(Arc::new(child)),
            ChangeSubject::Token { token } => Subject::Token(Arc::new(token)),
            ChangeSubject::Quarantine { entry, failure } => Subject::Quarantine { entry, failure },
        };
        Ok(Self {
            site: form.site,
            number: ChangeNumber { epoch: form.epoch, seq: form.seq },
            at: form.at,
            past: form.past,
            kind: form.kind,
            reasons: form.reasons,
            actor: form.actor,
            from: form.from,
            note: form.note,
            subject,
            place: form.place,
        })
    }
}
