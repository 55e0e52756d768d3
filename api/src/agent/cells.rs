//! The columns of KLAXON-ALARM-MIB that are about an alarm, for the active table, the history and notifications.

use bytes::Bytes;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Catalogue, Known, TypeEntry};
use klaxon_schemas::change::{Change, Reason, Subject};
use klaxon_schemas::event::{Attributes, Details, Event, Report};
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::{Actor, ProbableCause, Producer, Site, Text};
use klaxon_schemas::severity::{EventType, Severity};
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::Value;

use super::causes;
use super::oids::{AlarmColumn, HistoryColumn};
use super::values::{
    NO_SEVERITY, NO_TIME, change_kind, cleared_by, cut, date_and_time, event_type, gauge, maybe_text, maybe_time, maybe_truth,
    severity, text, truth,
};

/// The most octets of words for people, KlaxonText. With it any variable fits into the smallest message that managers use.
pub const WORDS: usize = 1024;
/// The most octets of names, KlaxonName.
pub const NAME: usize = 128;
const QUALIFIER: usize = 256;
const CAUSE: usize = 64;

/// An alarm, and what is said of it that it does not hold itself.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The alarm.
    pub alarm: &'a Alarm,
    /// Whether its type is suppressed.
    pub suppressed: bool,
    /// What knows its type.
    catalogue: Option<&'a Catalogue>,
    /// Since when nothing is heard of it because a node below is silent.
    silent_since: Option<Timestamp>,
}

impl<'a> Shown<'a> {
    /// The alarm as `catalogue` knows its type.
    pub fn new(alarm: &'a Alarm, suppressed: bool, catalogue: Option<&'a Catalogue>) -> Self {
        Self { alarm, suppressed, catalogue, silent_since: None }
    }

    /// The alarm of which nothing is heard because a node below is silent, since then.
    pub(super) fn silent_since(self, silent_since: Option<Timestamp>) -> Self {
        Self { silent_since, ..self }
    }

    /// What the catalogue knows of its type. It is looked up here, because most columns do not ask for it.
    pub(crate) fn entry(&self) -> Option<&'a TypeEntry> {
        self.catalogue?.get(&self.alarm.key.alarm_type)
    }

    pub(super) fn event_type(&self) -> Option<EventType> {
        self.known().event_type()
    }

    pub(super) fn probable_cause(&self) -> Option<&'a ProbableCause> {
        self.known().probable_cause()
    }

    pub(super) fn repair_action(&self) -> Option<&'a Text> {
        self.known().repair_action()
    }

    pub(super) fn service_affecting(&self) -> Option<bool> {
        self.known().service_affecting()
    }

    fn known(&self) -> Known<'a> {
        Known { details: &self.alarm.details, entry: self.entry(), severity: Some(self.alarm.severity) }
    }

    /// The variable in `column`. For the index, which has none, it is the number zero.
    pub fn cell(&self, column: AlarmColumn) -> Value {
        use AlarmColumn as C;
        let Self { alarm, suppressed, silent_since, .. } = *self;
        let (acknowledged, assigned) = (alarm.acknowledged.as_ref(), alarm.assigned.as_ref());
        let shelved = alarm.shelved.as_ref();
        let stale_since = alarm.stale.as_ref().map(|stale| stale.since).or(silent_since);
        match column {
            C::Index => Value::Gauge32(0),
            C::Id => id(alarm.id.0),
            C::Site => text(&alarm.key.site, NAME),
            C::Resource => text(alarm.key.resource.as_str(), WORDS),
            C::Type => text(&alarm.key.alarm_type, NAME),
            C::Qualifier => text(&alarm.key.qualifier, QUALIFIER),
            C::Severity => Value::Integer(severity(alarm.severity)),
            C::EventType => Value::Integer(event_type(self.event_type())),
            C::ProbableCause => maybe_text(self.probable_cause().map(ProbableCause::as_str), CAUSE),
            C::ProbableCauseNumber => cause_number(self.probable_cause()),
            C::Text => text(&alarm.text, WORDS),
            C::RepairAction => maybe_text(self.repair_action().map(Text::as_str), WORDS),
            C::Runbook => runbook(self.entry()),
            C::ServiceAffecting => maybe_truth(self.service_affecting()),
            C::FirstRaisedAt => date_and_time(alarm.first_raised_at),
            C::RaisedAt => date_and_time(alarm.raised_at),
            C::ChangedAt => date_and_time(alarm.changed_at),
            C::EventTime => maybe_time(alarm.event_time),
            C::ClearedAt => maybe_time(alarm.cleared.as_ref().map(|clearance| clearance.at)),
            C::ClearedBy => Value::Integer(cleared_by(alarm.cleared.as_ref().map(|clearance| clearance.by))),
            C::Acknowledged => truth(acknowledged.is_some()),
            C::AcknowledgedBy => maybe_text(acknowledged.map(|mark| mark.by.as_str()), NAME),
            C::AcknowledgedAt => maybe_time(acknowledged.map(|mark| mark.at)),
            C::AcknowledgedNote => maybe_text(acknowledged.and_then(|mark| mark.note.as_deref()), WORDS),
            C::AssignedTo => maybe_text(assigned.map(|assignment| assignment.to.as_str()), NAME),
            C::AssignedBy => maybe_text(assigned.map(|assignment| assignment.by.as_str()), NAME),
            C::AssignedAt => maybe_time(assigned.map(|assignment| assignment.at)),
            C::Shelved => truth(shelved.is_some()),
            C::ShelvedUntil => maybe_time(shelved.map(|shelved| shelved.until)),
            C::ShelvedBy => maybe_text(shelved.map(|shelved| shelved.by.as_str()), NAME),
            C::ShelvedReason => maybe_text(shelved.map(|shelved| shelved.reason.as_str()), WORDS),
            C::Suppressed => truth(suppressed),
            C::Stale => truth(stale_since.is_some()),
            C::StaleSince => maybe_time(stale_since),
            C::Count => gauge(alarm.count),
            C::RaiseSeq => Value::Gauge32(alarm.raise_seq),
            C::LastReportedAt => date_and_time(alarm.last_reported_at),
            C::Producer => maybe_text(alarm.producer.as_ref().map(Producer::as_str), NAME),
            C::Catalogued => truth(alarm.catalogued),
            C::Notes => gauge(alarm.notes.len() as u64),
            C::LastNote => {
                alarm.notes.last().map_or_else(|| text("", 0), |note| text(&format!("{}: {}", note.by, note.text), WORDS))
            }
            C::ChangeEpoch => Value::Counter64(alarm.last_change.epoch.0),
            C::ChangeSeq => Value::Counter64(alarm.last_change.seq.0),
            C::Attributes => attributes(&alarm.details),
        }
    }
}

/// The variable in `column` of an event that raised nothing; what only alarms have is empty.
pub fn event_cell(event: &Event, catalogued: bool, catalogue: Option<&Catalogue>, column: AlarmColumn) -> Value {
    use AlarmColumn as C;
    let entry = catalogue.and_then(|catalogue| catalogue.get(&event.key.alarm_type));
    let details = &event.details;
    let known = Known { details, entry, severity: reported(event.report) };
    let cause = known.probable_cause();
    match column {
        C::Site => text(&event.key.site, NAME),
        C::Resource => text(event.key.resource.as_str(), WORDS),
        C::Type => text(&event.key.alarm_type, NAME),
        C::Qualifier => text(&event.key.qualifier, QUALIFIER),
        C::Severity => Value::Integer(reported(event.report).map_or(NO_SEVERITY, severity)),
        C::EventType => Value::Integer(event_type(known.event_type())),
        C::ProbableCause => maybe_text(cause.map(ProbableCause::as_str), CAUSE),
        C::ProbableCauseNumber => cause_number(cause),
        C::Text => text(&event.text, WORDS),
        C::RepairAction => maybe_text(known.repair_action().map(Text::as_str), WORDS),
        C::Runbook => runbook(entry),
        C::ServiceAffecting => maybe_truth(known.service_affecting()),
        C::EventTime => maybe_time(event.event_time),
        C::Producer => maybe_text(event.origin.producer.as_ref().map(Producer::as_str), NAME),
        C::Catalogued => truth(catalogued),
        C::Attributes => attributes(details),
        _ => empty(column),
    }
}

/// The severity that a report gives.
pub(super) fn reported(report: Report) -> Option<Severity> {
    match report {
        Report::Raise(severity) | Report::Log(severity) | Report::Heartbeat { severity, .. } => Some(severity),
        Report::Clear => None,
    }
}

/// What stands in `column` where there is nothing to say.
pub fn empty(column: AlarmColumn) -> Value {
    use AlarmColumn as C;
    match column {
        C::Severity | C::EventType | C::ClearedBy => Value::Integer(0),
        C::ServiceAffecting => maybe_truth(None),
        C::Acknowledged | C::Shelved | C::Suppressed | C::Stale | C::Catalogued => truth(false),
        C::Index | C::ProbableCauseNumber | C::Count | C::RaiseSeq | C::Notes => Value::Gauge32(0),
        C::ChangeEpoch | C::ChangeSeq => Value::Counter64(0),
        C::FirstRaisedAt
        | C::RaisedAt
        | C::ChangedAt
        | C::EventTime
        | C::ClearedAt
        | C::AcknowledgedAt
        | C::AssignedAt
        | C::ShelvedUntil
        | C::StaleSince
        | C::LastReportedAt => NO_TIME,
        C::Id
        | C::Site
        | C::Resource
        | C::Type
        | C::Qualifier
        | C::ProbableCause
        | C::Text
        | C::RepairAction
        | C::Runbook
        | C::AcknowledgedBy
        | C::AcknowledgedNote
        | C::AssignedTo
        | C::AssignedBy
        | C::ShelvedBy
        | C::ShelvedReason
        | C::Producer
        | C::LastNote
        | C::Attributes => text("", 0),
    }
}

/// The variable in `column` of what a change happened to, as it was afterwards. Whether its type was suppressed then is not
/// known, and not in the history.
pub(super) fn subject_cell(change: &Change, catalogue: Option<&Catalogue>, column: AlarmColumn) -> Value {
    use AlarmColumn as C;
    match (&change.subject, column) {
        (_, C::ChangeEpoch) => Value::Counter64(change.number.epoch.0),
        (_, C::ChangeSeq) => Value::Counter64(change.number.seq.0),
        (Subject::Alarm { alarm, .. }, _) => Shown::new(alarm, false, catalogue).cell(column),
        (Subject::Event { event, catalogued, .. }, _) => event_cell(event, *catalogued, catalogue, column),
        (_, C::Site) => text(&change.site, NAME),
        (Subject::Suppression { alarm_type, .. }, C::Type) => text(alarm_type, NAME),
        (Subject::Suppression { suppression, .. }, C::Text) => maybe_text(suppression.reason.as_deref(), WORDS),
        (Subject::Shelf(shelf), C::Text) => text(&shelf.order.reason, WORDS),
        (Subject::Shelf(shelf), C::ShelvedUntil) => date_and_time(shelf.order.until),
        (Subject::Refusal(refusal), C::Id) => refusal.alarm.map_or_else(|| text("", 0), |alarm| id(alarm.0)),
        (Subject::Refusal(refusal), C::Text) => text(refusal.reason.as_str(), WORDS),
        (Subject::Child(note), C::Text) => text(&format!("{}: {}", note.name, note.what), WORDS),
        (Subject::Quarantine { failure, .. }, C::Text) => text(failure, WORDS),
        _ => empty(column),
    }
}

/// The variable in `column` of a change at `position`.
pub(super) fn change_cell(position: Position, change: &Change, column: HistoryColumn) -> Value {
    match column {
        HistoryColumn::Position => Value::Counter64(position.0),
        HistoryColumn::Kind => Value::Integer(change_kind(Some(change.kind))),
        HistoryColumn::At => date_and_time(change.at),
        HistoryColumn::Actor => maybe_text(change.actor.as_ref().map(Actor::as_str), NAME),
        HistoryColumn::Note => maybe_text(change.note.as_deref(), WORDS),
        HistoryColumn::PreviousSeverity => match &change.subject {
            Subject::Alarm { previous_severity: Some(before), .. } => Value::Integer(severity(*before)),
            _ => Value::Integer(NO_SEVERITY),
        },
        HistoryColumn::Reasons => {
            let words: Vec<String> = change.reasons.iter().map(reason).collect();
            text(&words.join("\n"), WORDS)
        }
    }
}

/// A reason as the API writes it, in one word and its number.
fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Entry(position) => format!("entry {position}"),
        Reason::Timer(timer) => {
            let word = serde_json::to_value(timer).ok().and_then(|word| word.as_str().map(str::to_owned));
            format!("timer {}", word.unwrap_or_default())
        }
        Reason::Action(action) => format!("action {action}"),
        Reason::Shelf(shelf) => format!("shelf {shelf}"),
    }
}

fn id(id: uuid::Uuid) -> Value {
    let mut buffer = uuid::Uuid::encode_buffer();
    Value::OctetString(Bytes::copy_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes()))
}

fn cause_number(cause: Option<&ProbableCause>) -> Value {
    Value::Gauge32(cause.map_or(0, |cause| u32::try_from(causes::iana(Some(cause))).expect("is small")))
}

fn runbook(entry: Option<&TypeEntry>) -> Value {
    maybe_text(entry.and_then(|entry| entry.runbook.as_deref()), WORDS)
}

/// `name=value`, one a line.
fn attributes(details: &Details) -> Value {
    if details.attributes == Attributes::default() {
        return text("", 0);
    }
    let mut lines = String::new();
    for (name, value) in details.attributes.iter() {
        if lines.len() > WORDS {
            break;
        }
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(name);
        lines.push('=');
        lines.push_str(value);
    }
    text(cut(&lines, WORDS), WORDS)
}

/// The name of a site.
pub(super) fn site(site: &Site) -> Value {
    text(site, NAME)
}
