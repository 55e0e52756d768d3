//! The alarm as the API shows it; with `engine` as the journal and the view keep it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::FormError;
use super::event::{no_qualifier, no_text, unless_empty};
use crate::alarm::{Assignment, ChangeNumber, Clearance, ClearedBy, EngineMarks, Mark, Note, Shelved, Stale};
use crate::event::{AlarmKey, Attributes, Details};
use crate::ids::{ActionId, AlarmId};
use crate::labels::Labels;
use crate::names::{AlarmType, ChildName, ProbableCause, Producer, Qualifier, Site, Text};
use crate::resource::Resource;
use crate::severity::{EventType, Severity};
use crate::time::Timestamp;

/// One alarm: a lasting state of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// Stays the same from episode to episode, until the alarm is purged or retired.
    pub id: AlarmId,
    /// The site that owns it.
    pub site: Site,
    /// Whose alarm it is, if it is mirrored here; only that site changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Site>,
    /// The node below this one through which it was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<ChildName>,
    /// What it is about.
    pub resource: Resource,
    /// Which kind of alarm it is.
    pub alarm_type: AlarmType,
    /// Tells alarms of one type on one resource apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<Qualifier>,
    /// Whether the catalogue knows the type.
    #[serde(default)]
    pub catalogued: bool,
    /// The last perceived severity; kept when the alarm clears.
    pub severity: Severity,
    /// Whether it is over.
    pub cleared: bool,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<Timestamp>,
    /// What ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared_by: Option<ClearedBy>,
    /// What happened, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// X.733 8.1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// X.733 8.1.2.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probable_cause: Option<ProbableCause>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_action: Option<Text>,
    /// Whether service is affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_affecting: Option<bool>,
    /// Additional information.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// The labels under which it came from the Prometheus world; absent if it came otherwise.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The episode: 1 with the first raise, one more with each raise after a clear.
    pub raise_seq: u32,
    /// When the first episode began, by the owner's clock.
    pub first_raised_at: Timestamp,
    /// When this episode began, by the owner's clock.
    pub raised_at: Timestamp,
    /// When this episode began, as the reporter claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<Timestamp>,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// The number of its last change.
    pub last_change: ChangeNumber,
    /// How many reports this episode had.
    pub count: u64,
    /// When the last of them arrived.
    pub last_reported_at: Timestamp,
    /// The reporter's claim in the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_time: Option<Timestamp>,
    /// Who sent the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
    /// Who has seen it; absent if nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Mark>,
    /// Whose it is; absent if nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Assignment>,
    /// What people wrote about it, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// Who set it aside, until when and why; absent if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelved: Option<Shelved>,
    /// Whether its type is suppressed. Not stored with the alarm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suppressed: bool,
    /// Actions that are on their way to its owner, the first ordered first. Shown by lists and of single alarms only, and not stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub pending: Vec<ActionId>,
    /// Since when its reporter is silent; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// The node below that is silent, and its alarms stale with it; absent if it is only the alarm's own reporter. Only shown, and
    /// not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<ChildName>,
    /// What the engine keeps with it. Stored, not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub engine: Option<EngineMarks>,
}

impl Alarm {
    /// The form that is stored.
    pub fn stored(alarm: &crate::alarm::Alarm) -> Self {
        Self { engine: Some(alarm.engine.clone()), ..Self::shown(alarm, false) }
    }

    /// The form that is shown.
    pub fn shown(alarm: &crate::alarm::Alarm, suppressed: bool) -> Self {
        let details = &alarm.details;
        Self {
            id: alarm.id,
            site: alarm.key.site.clone(),
            owner: alarm.owner.clone(),
            via: alarm.via.clone(),
            resource: alarm.key.resource.clone(),
            alarm_type: alarm.key.alarm_type.clone(),
            qualifier: unless_empty(&alarm.key.qualifier),
            catalogued: alarm.catalogued,
            severity: alarm.severity,
            cleared: alarm.cleared.is_some(),
            cleared_at: alarm.cleared.as_ref().map(|cleared| cleared.at),
            cleared_by: alarm.cleared.as_ref().map(|cleared| cleared.by),
            text: unless_empty(&alarm.text),
            event_type: details.event_type,
            probable_cause: details.probable_cause.clone(),
            repair_action: details.repair_action.clone(),
            service_affecting: details.service_affecting,
            attributes: details.attributes.clone(),
            labels: details.labels.clone(),
            raise_seq: alarm.raise_seq,
            first_raised_at: alarm.first_raised_at,
            raised_at: alarm.raised_at,
            event_time: alarm.event_time,
            changed_at: alarm.changed_at,
            last_change: alarm.last_change,
            count: alarm.count,
            last_reported_at: alarm.last_reported_at,
            last_event_time: alarm.last_event_time,
            producer: alarm.producer.clone(),
            acknowledged: alarm.acknowledged.clone(),
            assigned: alarm.assigned.clone(),
            notes: alarm.notes.clone(),
            shelved: alarm.shelved.clone(),
            suppressed,
            pending: Vec::new(),
            stale: alarm.stale.clone(),
            silent: None,
            engine: None,
        }
    }
}

impl TryFrom<Alarm> for crate::alarm::Alarm {
    type Error = FormError;

    fn try_from(form: Alarm) -> Result<Self, FormError> {
        let cleared = match (form.cleared, form.cleared_at, form.cleared_by) {
            (false, _, _) => None,
            (true, Some(at), Some(by)) => Some(Clearance { at, by }),
            (true, ..) => return Err(FormError::Field { field: "cleared_at", reason: "is missing from a cleared alarm" }),
        };
        Ok(Self {
            id: form.id,
            key: AlarmKey {
                site: form.site,
                resource: form.resource,
                alarm_type: form.alarm_type,
                qualifier: form.qualifier.unwrap_or_else(no_qualifier),
            },
            owner: form.owner,
            via: form.via,
            catalogued: form.catalogued,
            severity: form.severity,
            cleared,
            text: form.text.unwrap_or_else(no_text),
            details: Details {
                event_type: form.event_type,
                probable_cause: form.probable_cause,
                repair_action: form.repair_action,
                service_affecting: form.service_affecting,
                attributes: form.attributes,
                labels: form.labels,
            },
            raise_seq: form.raise_seq,
            first_raised_at: form.first_raised_at,
            raised_at: form.raised_at,
            event_time: form.event_time,
            changed_at: form.changed_at,
            last_change: form.last_change,
            count: form.count,
            last_reported_at: form.last_reported_at,
            last_event_time: form.last_event_time,
            producer: form.producer,
            acknowledged: form.acknowledged,
            assigned: form.assigned,
            notes: form.notes,
            shelved: form.shelved,
            stale: form.stale,
            engine: form.engine.unwrap_or_default(),
        })
    }
}
