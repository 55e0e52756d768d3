//! Alarms and changes in StarlingX's words.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Affecting, Catalogue, Known, TypeEntry};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::event::{AlarmKey, Details, Report};
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::starlingx::{self, NOT_APPLICABLE, event_type_word, severity_word, time_text};
use klaxon_schemas::time::Timestamp;
use klaxon_store::StateRead;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Api;
use super::super::serve::Reached;
use super::asked::Field;

/// The kind of thing that an alarm is about, where nothing says what it is.
const SOME_ENTITY: &str = "system";
/// The bits of a UUID's second half that are its own; those above say that it is one of RFC 9562.
const OWN_BITS: u64 = 0x3fff_ffff_ffff_ffff;

/// What is needed beside alarms to show them, taken from one state.
pub(super) struct View {
    pub(super) catalogue: Option<Arc<Catalogue>>,
    suppressed: HashSet<AlarmType>,
    /// The node's own site: its resources stand by themselves.
    site: Site,
}

/// What is said of an alarm or an event.
pub(super) struct Facts<'a> {
    view: &'a View,
    uuid: Uuid,
    key: &'a AlarmKey,
    entry: Option<&'a TypeEntry>,
    details: &'a Details,
    text: &'a str,
    severity: Option<Severity>,
    at: Timestamp,
    state: &'static str,
    is_shelved: bool,
}

impl View {
    pub(super) fn of(api: &Api, state: &StateRead<'_>) -> Self {
        Self {
            catalogue: state.catalogue(),
            suppressed: state.suppressions().map(|(alarm_type, _)| alarm_type.clone()).collect(),
            site: api.site().clone(),
        }
    }

    pub(super) fn is_suppressed(&self, alarm_type: &AlarmType) -> bool {
        self.suppressed.contains(alarm_type)
    }

    /// All types that are suppressed.
    pub(super) fn suppressed(&self) -> impl Iterator<Item = &AlarmType> {
        self.suppressed.iter()
    }

    /// The id by which StarlingX knows a type; its own if it does not.
    pub(super) fn id<'a>(&'a self, alarm_type: &'a AlarmType) -> &'a str {
        starlingx::alarm_id(self.catalogue.as_deref(), alarm_type)
    }

    fn entry(&self, alarm_type: &AlarmType) -> Option<&TypeEntry> {
        self.catalogue.as_ref()?.get(alarm_type)
    }

    /// The alarm.
    pub(super) fn alarm<'a>(&'a self, alarm: &'a Alarm) -> Facts<'a> {
        Facts {
            view: self,
            uuid: alarm.id.0,
            key: &alarm.key,
            entry: self.entry(&alarm.key.alarm_type),
            details: &alarm.details,
            text: &alarm.text,
            severity: Some(alarm.severity),
            at: alarm.raised_at,
            state: "set",
            is_shelved: alarm.shelved.is_some(),
        }
    }

    /// The change that stands at `position`, if it is one of those that StarlingX logs.
    pub(super) fn event<'a>(&'a self, position: Position, change: &'a Change) -> Option<Facts<'a>> {
        let (key, details, text, severity) = match &change.subject {
            Subject::Alarm { alarm, .. } => (&alarm.key, &alarm.details, &alarm.text, Some(alarm.severity)),
            Subject::Event { event, .. } => {
                let severity = match event.report {
                    Report::Raise(severity) | Report::Log(severity) | Report::Heartbeat { severity, .. } => Some(severity),
                    Report::Clear => None,
                };
                (&event.key, &event.details, &event.text, severity)
            }
            _ => return None,
        };
        let state = state_of(change.kind)?;
        let entry = self.entry(&key.alarm_type);
        let uuid = event_uuid(position, change);
        Some(Facts { view: self, uuid, key, entry, details, text, severity, at: change.at, state, is_shelved: false })
    }
}

/// The kinds of changes that StarlingX logs as the state of an alarm.
pub(super) const ALARM_KINDS: [ChangeKind; 5] =
    [ChangeKind::Raised, ChangeKind::Updated, ChangeKind::SeverityChanged, ChangeKind::Cleared, ChangeKind::Retired];

fn state_of(kind: ChangeKind) -> Option<&'static str> {
    match kind {
        ChangeKind::Raised | ChangeKind::Updated | ChangeKind::SeverityChanged => Some("set"),
        ChangeKind::Cleared | ChangeKind::Retired => Some("clear"),
        ChangeKind::Logged => Some("log"),
        _ => None,
    }
}

/// Names a change by where it stands in this node's journal, and what it is: RFC 9562, version 8.
///
/// ```text
/// 62 bits that are made of its site and number, and the version | 62 bits of position, and the variant
/// ```
pub(super) fn event_uuid(position: Position, change: &Change) -> Uuid {
    let name = format!("{}.{}.{}", change.site, change.number.epoch, change.number.seq);
    let (mark, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u64_pair();
    Uuid::from_u64_pair((mark & !0xf000) | 0x8000, (position.0 & OWN_BITS) | (1 << 63))
}

/// Where the event stands that `uuid` names, if it names one.
pub(super) fn position_of(uuid: Uuid) -> Option<Position> {
    let (_, position) = uuid.as_u64_pair();
    (uuid.get_version_num() == 8).then_some(Position(position & OWN_BITS))
}

impl Facts<'_> {
    fn entity(&self) -> Cow<'_, str> {
        let AlarmKey { site, resource, qualifier, .. } = self.key;
        if *site == self.view.site && qualifier.is_empty() {
            return Cow::Borrowed(resource.as_str());
        }
        let mut entity = String::new();
        if *site != self.view.site {
            entity = format!("system={site}.");
        }
        entity.push_str(resource.as_str());
        if !qualifier.is_empty() {
            entity.push_str(&format!(".qualifier={}", &**qualifier));
        }
        Cow::Owned(entity)
    }

    /// What the reporter called it, else the name of the resource's last part.
    fn entity_type(&self) -> &str {
        match starlingx::entity_type(&self.details.attributes, &self.key.resource) {
            "" => SOME_ENTITY,
            said => said,
        }
    }

    fn event_type(&self) -> &'static str {
        event_type_word(self.known().event_type())
    }

    fn probable_cause(&self) -> &str {
        self.known().probable_cause().map_or(NOT_APPLICABLE, |cause| &**cause)
    }

    fn repair_action(&self) -> &str {
        self.known().repair_action().map_or("", |words| &**words)
    }

    fn known(&self) -> Known<'_> {
        Known { details: self.details, entry: self.entry, severity: self.severity }
    }

    /// Whether it lasted not: such are never hidden.
    pub(super) fn is_log(&self) -> bool {
        self.state == "log"
    }

    /// Whether it is hidden unless it is asked for.
    pub(super) fn is_suppressed(&self) -> bool {
        self.is_shelved || self.view.is_suppressed(&self.key.alarm_type)
    }

    fn status(&self) -> &'static str {
        if self.is_suppressed() { "suppressed" } else { "unsuppressed" }
    }

    /// Whether an alarm hinders the system's management.
    fn management_affecting(&self) -> &'static str {
        self.truth(self.entry.and_then(|entry| entry.management_affecting).unwrap_or(Affecting::Warning))
    }

    /// Whether it degrades its host.
    fn degrade_affecting(&self) -> &'static str {
        self.truth(self.entry.and_then(|entry| entry.degrade_affecting).unwrap_or(Affecting::None))
    }

    fn truth(&self, affecting: Affecting) -> &'static str {
        if self.severity.is_some_and(|severity| affecting.includes(severity)) { "True" } else { "False" }
    }

    fn severity_word(&self) -> &'static str {
        self.severity.map_or(NOT_APPLICABLE, severity_word)
    }

    /// What is shown in a field.
    pub(super) fn field(&self, field: Field) -> Cow<'_, str> {
        match field {
            Field::Uuid => Cow::Owned(self.uuid.to_string()),
            Field::Id => Cow::Borrowed(self.view.id(&self.key.alarm_type)),
            Field::EntityType => Cow::Borrowed(self.entity_type()),
            Field::Entity => self.entity(),
            Field::Severity => Cow::Borrowed(self.severity_word()),
            Field::Type | Field::LogType => Cow::Borrowed(self.event_type()),
            Field::Status => Cow::Borrowed(self.status()),
            Field::Start | Field::End => Cow::Owned(time_text(self.at)),
        }
    }

    /// The alarm as it is shown, with everything or as in a list.
    pub(super) fn shown_alarm(&self, whole: bool) -> AlarmShown {
        AlarmShown {
            uuid: self.uuid,
            alarm_id: self.view.id(&self.key.alarm_type).to_owned(),
            alarm_state: whole.then_some(self.state),
            entity_type_id: whole.then(|| self.entity_type().to_owned()),
            entity_instance_id: self.entity().into_owned(),
            timestamp: time_text(self.at),
            severity: self.severity_word(),
            reason_text: self.text.to_owned(),
            alarm_type: whole.then(|| self.event_type()),
            probable_cause: whole.then(|| self.probable_cause().to_owned()),
            proposed_repair_action: whole.then(|| self.repair_action().to_owned()),
            service_affecting: whole.then(|| self.known().service_affecting().unwrap_or_default()),
            suppression: whole.then(|| starlingx::may_be_masked(&self.details.attributes)),
            suppression_status: self.status(),
            mgmt_affecting: self.management_affecting(),
            degrade_affecting: self.degrade_affecting(),
        }
    }

    /// The event as it is shown, with everything or as in a list.
    pub(super) fn shown_event(&self, whole: bool) -> EventShown {
        EventShown {
            uuid: self.uuid,
            event_log_id: self.view.id(&self.key.alarm_type).to_owned(),
            state: self.state,
            entity_type_id: whole.then(|| self.entity_type().to_owned()),
            entity_instance_id: self.entity().into_owned(),
            timestamp: time_text(self.at),
            severity: self.severity_word(),
            reason_text: self.text.to_owned(),
            event_log_type: whole.then(|| self.event_type()),
            probable_cause: whole.then(|| self.probable_cause().to_owned()),
            proposed_repair_action: whole.then(|| self.repair_action().to_owned()),
            service_affecting: whole.then(|| self.known().service_affecting().unwrap_or_default()),
            suppression: whole.then(|| starlingx::may_be_masked(&self.details.attributes)),
            // Types of log events are none that can be suppressed there.
            suppression_status: match self.entry.filter(|entry| !entry.is_log()) {
                None if !self.is_suppressed() => "None",
                _ => self.status(),
            },
        }
    }
}

/// An alarm, as StarlingX shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StarlingxAlarm)]
pub(crate) struct AlarmShown {
    /// Stays the same for as long as the alarm is there.
    uuid: Uuid,
    /// The type, by the id that StarlingX gives it, or by its own.
    alarm_id: String,
    /// Always `set`.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm_state: Option<&'static str>,
    /// What kind of thing it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type_id: Option<String>,
    /// What it is about.
    entity_instance_id: String,
    /// When it was raised, in UTC.
    timestamp: String,
    severity: &'static str,
    reason_text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probable_cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposed_repair_action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_affecting: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppression: Option<bool>,
    /// `suppressed` if its type is, or it is shelved.
    suppression_status: &'static str,
    /// `True` or `False`.
    mgmt_affecting: &'static str,
    /// `True` or `False`.
    degrade_affecting: &'static str,
}

/// An event, as StarlingX shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StarlingxEvent)]
pub(crate) struct EventShown {
    /// Says where it stands in this node's journal.
    uuid: Uuid,
    /// The type, by the id that StarlingX gives it, or by its own.
    event_log_id: String,
    /// `set`, `clear` or `log`.
    state: &'static str,
    /// What kind of thing it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type_id: Option<String>,
    /// What it is about.
    entity_instance_id: String,
    /// When it happened, in UTC.
    timestamp: String,
    severity: &'static str,
    reason_text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_log_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probable_cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposed_repair_action: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_affecting: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppression: Option<bool>,
    /// `suppressed`, `unsuppressed`, or `None` of a type that the catalogue does not know.
    suppression_status: &'static str,
}

/// What links begin with: the node, as the client reached it.
pub(super) struct Base(pub(super) String);

impl<S: Sync> axum::extract::FromRequestParts<S> for Base {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let is_tls = parts.extensions.get::<Reached>().is_some_and(|reached| reached.tls);
        // A proxy says what the client speaks.
        let forwarded = parts.headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
        let scheme = if is_tls || forwarded { "https" } else { "http" };
        let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = named.or_else(|| parts.uri.authority().map(Authority::as_str)).unwrap_or("localhost");
        Ok(Self(format!("{scheme}://{host}")))
    }
}
