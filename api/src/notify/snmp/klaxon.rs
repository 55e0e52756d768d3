//! KLAXON-ALARM-MIB: one notification says all that there is to say, so that nobody has to look anything up.

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::event::{AlarmKey, Details};
use klaxon_schemas::notify::{Digest, Gap, How};
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{Oid, Value};

use super::draft::{Draft, string};
use crate::agent::oids::{AlarmColumn, DeliveryObject, NotificationKind, NotificationObject, Root};
use crate::agent::values;
use crate::notify::{Notification, What};

/// The longest text of the MIB.
const TEXT_BYTES_MAX: usize = 4096;
/// The longest name of the MIB.
const NAME_BYTES_MAX: usize = 1024;

/// The notification of KLAXON-ALARM-MIB under `root`; `index` is the row of the alarm that it is about.
pub(super) fn draft(root: &Root, index: u32, notification: &Notification) -> Draft {
    let kind = match &notification.what {
        What::Alarm { how: How::Raised, .. } => NotificationKind::Raised,
        What::Alarm { how: How::Changed, .. } => NotificationKind::Changed,
        What::Alarm { how: How::Cleared, .. } => NotificationKind::Cleared,
        What::Alarm { how: How::Left, .. } => NotificationKind::Left,
        What::Alarm { how: How::Retired, .. } => NotificationKind::Retired,
        What::Log { .. } => NotificationKind::Logged,
        What::Digest(_) => NotificationKind::Digest,
        What::Gap(_) => NotificationKind::Gap,
        What::Heartbeat { .. } => NotificationKind::Heartbeat,
    };
    let mut draft = Draft::new(root.notification(kind));
    let (required, extra): (Vec<NotificationObject>, Vec<NotificationObject>) =
        kind.objects().partition(|object| is_required(kind, *object));
    for object in required {
        put(&mut draft, root, index, notification, object);
    }
    for object in extra {
        let said = match object {
            NotificationObject::Delivery(object) => Some((root.delivery(object), delivery(notification, object))),
            NotificationObject::Alarm(column) => cell(notification, column).map(|cell| (root.alarm(column, index), cell.value())),
        };
        if let Some((oid, value)) = said.filter(|(_, value)| !is_nothing(value)) {
            draft.put_extra(oid, value);
        }
    }
    draft
}

/// Whether it is among the OBJECTS of the notification; what is not comes behind them where it says something and has room.
fn is_required(kind: NotificationKind, object: NotificationObject) -> bool {
    use AlarmColumn as A;
    use NotificationKind as K;
    match object {
        NotificationObject::Delivery(object) => {
            matches!(kind, K::Digest | K::Gap | K::Heartbeat) || object <= DeliveryObject::ChangeAt
        }
        NotificationObject::Alarm(column) => matches!(
            column,
            A::Id
                | A::Site
                | A::Resource
                | A::Type
                | A::Qualifier
                | A::Severity
                | A::EventType
                | A::ProbableCause
                | A::Text
                | A::RepairAction
                | A::RaisedAt
                | A::ChangedAt
                | A::EventTime
                | A::ClearedAt
                | A::Acknowledged
                | A::Shelved
                | A::RaiseSeq
        ),
    }
}

fn put(draft: &mut Draft, root: &Root, index: u32, notification: &Notification, object: NotificationObject) {
    match object {
        NotificationObject::Delivery(object @ DeliveryObject::DigestNamed) => {
            let named = if let What::Digest(digest) = &notification.what { named(digest) } else { String::new() };
            draft.put_text(root.delivery(object), &named, TEXT_BYTES_MAX);
        }
        NotificationObject::Delivery(object) => draft.put(root.delivery(object), delivery(notification, object)),
        NotificationObject::Alarm(column) => {
            let oid = root.alarm(column, index);
            match cell(notification, column) {
                Some(Cell::Text(text)) => draft.put_text(oid, text, TEXT_BYTES_MAX),
                Some(Cell::Name(name)) => draft.put_name(oid, name, NAME_BYTES_MAX),
                Some(Cell::Value(value)) => draft.put(oid, value),
                None => draft.put(oid, string("")),
            }
        }
    }
}

/// A value, and whether it may be cut.
enum Cell<'a> {
    Text(&'a str),
    Name(&'a str),
    Value(Value),
}

impl Cell<'_> {
    fn value(self) -> Value {
        match self {
            Self::Text(text) => string(values::cut(text, TEXT_BYTES_MAX)),
            Self::Name(name) => string(values::cut(name, NAME_BYTES_MAX)),
            Self::Value(value) => value,
        }
    }
}

/// What a notification about an alarm or a log event says in a column of the alarms.
fn cell(notification: &Notification, column: AlarmColumn) -> Option<Cell<'_>> {
    match &notification.what {
        What::Alarm { alarm, suppressed, .. } => alarm_cell(alarm, *suppressed, column),
        What::Log { change } => {
            let event = super::event(change)?;
            let severity = super::event_severity(event);
            match column {
                AlarmColumn::Id => Some(Cell::Name("")),
                AlarmColumn::Severity => {
                    Some(Cell::Value(Value::Integer(severity.map_or(values::NO_SEVERITY, values::severity))))
                }
                AlarmColumn::Text => Some(Cell::Text(&event.text)),
                AlarmColumn::EventTime => Some(Cell::Value(values::maybe_time(event.event_time))),
                AlarmColumn::Producer => event.origin.producer.as_deref().map(Cell::Name),
                AlarmColumn::Acknowledged | AlarmColumn::Shelved => Some(Cell::Value(values::truth(false))),
                AlarmColumn::RaiseSeq => Some(Cell::Value(Value::Gauge32(0))),
                AlarmColumn::RaisedAt | AlarmColumn::ChangedAt | AlarmColumn::ClearedAt => Some(Cell::Value(values::NO_TIME)),
                _ => common(&event.key, &event.details, column),
            }
        }
        What::Digest(_) | What::Gap(_) | What::Heartbeat { .. } => None,
    }
}

fn alarm_cell(alarm: &Alarm, suppressed: bool, column: AlarmColumn) -> Option<Cell<'_>> {
    use AlarmColumn as A;
    let time = |time| Some(Cell::Value(values::maybe_time(time)));
    let truth = |is| Some(Cell::Value(values::truth(is)));
    let gauge = |number| Some(Cell::Value(values::gauge(number)));
    match column {
        A::Id => Some(Cell::Value(string(alarm.id.to_string()))),
        A::Severity => Some(Cell::Value(Value::Integer(values::severity(alarm.severity)))),
        A::Text => Some(Cell::Text(&alarm.text)),
        A::FirstRaisedAt => time(Some(alarm.first_raised_at)),
        A::RaisedAt => time(Some(alarm.raised_at)),
        A::ChangedAt => time(Some(alarm.changed_at)),
        A::EventTime => time(alarm.event_time),
        A::ClearedAt => time(alarm.cleared.as_ref().map(|cleared| cleared.at)),
        A::ClearedBy => Some(Cell::Value(Value::Integer(values::cleared_by(alarm.cleared.as_ref().map(|cleared| cleared.by))))),
        A::Acknowledged => truth(alarm.acknowledged.is_some()),
        A::AcknowledgedBy => alarm.acknowledged.as_ref().map(|mark| Cell::Name(&mark.by)),
        A::AcknowledgedAt => time(alarm.acknowledged.as_ref().map(|mark| mark.at)),
        A::AcknowledgedNote => alarm.acknowledged.as_ref().and_then(|mark| mark.note.as_deref()).map(Cell::Text),
        A::AssignedTo => alarm.assigned.as_ref().map(|assigned| Cell::Name(&assigned.to)),
        A::AssignedBy => alarm.assigned.as_ref().map(|assigned| Cell::Name(&assigned.by)),
        A::AssignedAt => time(alarm.assigned.as_ref().map(|assigned| assigned.at)),
        A::Shelved => truth(alarm.shelved.is_some()),
        A::ShelvedUntil => time(alarm.shelved.as_ref().map(|shelved| shelved.until)),
        A::ShelvedBy => alarm.shelved.as_ref().map(|shelved| Cell::Name(&shelved.by)),
        A::ShelvedReason => alarm.shelved.as_ref().map(|shelved| Cell::Text(&shelved.reason)),
        A::Suppressed => truth(suppressed),
        A::Stale => truth(alarm.stale.is_some()),
        A::StaleSince => time(alarm.stale.as_ref().map(|stale| stale.since)),
        A::Count => gauge(alarm.count),
        A::RaiseSeq => gauge(alarm.raise_seq.into()),
        A::LastReportedAt => time(Some(alarm.last_reported_at)),
        A::Producer => alarm.producer.as_deref().map(Cell::Name),
        A::Catalogued => truth(alarm.catalogued),
        A::Notes => gauge(alarm.notes.len() as u64),
        A::LastNote => alarm.notes.last().map(|note| Cell::Text(&note.text)),
        A::ChangeEpoch => Some(Cell::Value(Value::Counter64(alarm.last_change.epoch.0))),
        A::ChangeSeq => Some(Cell::Value(Value::Counter64(alarm.last_change.seq.0))),
        _ => common(&alarm.key, &alarm.details, column),
    }
}

/// What alarms and log events have in common.
fn common<'a>(key: &'a AlarmKey, details: &'a Details, column: AlarmColumn) -> Option<Cell<'a>> {
    use AlarmColumn as A;
    match column {
        A::Site => Some(Cell::Name(&key.site)),
        A::Resource => Some(Cell::Name(key.resource.as_str())),
        A::Type => Some(Cell::Name(&key.alarm_type)),
        A::Qualifier => Some(Cell::Name(&key.qualifier)),
        A::EventType => Some(Cell::Value(Value::Integer(values::event_type(details.event_type)))),
        A::ProbableCause => Some(Cell::Name(details.probable_cause.as_deref().unwrap_or_default())),
        A::RepairAction => Some(Cell::Text(details.repair_action.as_deref().unwrap_or_default())),
        A::ServiceAffecting => Some(Cell::Value(values::maybe_truth(details.service_affecting))),
        _ => None,
    }
}

/// What a notification says about its delivery.
fn delivery(notification: &Notification, object: DeliveryObject) -> Value {
    use DeliveryObject as D;
    let change = match &notification.what {
        What::Alarm { change, .. } => change.as_deref(),
        What::Log { change } => Some(&**change),
        What::Digest(_) | What::Gap(_) | What::Heartbeat { .. } => None,
    };
    match object {
        D::Receiver => string(notification.receiver.as_str()),
        D::Epoch => Value::Counter64(notification.epoch.0),
        D::Seq => Value::Counter64(notification.delivery_seq),
        D::Resent => values::truth(notification.resent),
        D::Change => Value::Integer(values::change_kind(change.map(|change| change.kind))),
        D::ChangeAt => values::maybe_time(change.map(|change| change.at)),
        D::Actor => string(change.and_then(|change| change.actor.as_deref()).unwrap_or_default()),
        D::Note => string(change.and_then(|change| change.note.as_deref()).unwrap_or_default()),
        D::PreviousSeverity => {
            Value::Integer(change.and_then(previous_severity).map_or(values::NO_SEVERITY, values::severity))
        }
        // The change's own place is in klaxonAlarmChangeEpoch and klaxonAlarmChangeSeq; the journal's is not known here.
        D::Position => Value::Counter64(0),
        _ => match &notification.what {
            What::Digest(digest) => in_digest(digest, object),
            What::Gap(gap) => in_gap(gap, object),
            What::Heartbeat { last } if object == D::HeartbeatLast => Value::Counter64(*last),
            _ => Value::Gauge32(0),
        },
    }
}

fn previous_severity(change: &Change) -> Option<Severity> {
    match &change.subject {
        Subject::Alarm { previous_severity, .. } => *previous_severity,
        _ => None,
    }
}

fn in_digest(digest: &Digest, object: DeliveryObject) -> Value {
    use DeliveryObject as D;
    let of = |severity: Severity| {
        let found = digest.by_severity.iter().find(|count| count.severity == severity);
        values::gauge(found.map_or(0, |count| count.count))
    };
    match object {
        D::DigestChanges => values::gauge(digest.changes),
        D::DigestUnseen => values::gauge(digest.came_and_went),
        D::DigestCritical => of(Severity::Critical),
        D::DigestMajor => of(Severity::Major),
        D::DigestMinor => of(Severity::Minor),
        D::DigestWarning => of(Severity::Warning),
        D::DigestIndeterminate => of(Severity::Indeterminate),
        D::DigestFirstAt => values::maybe_time(digest.first_at),
        D::DigestLastAt => values::maybe_time(digest.last_at),
        _ => string(""),
    }
}

/// The alarms that a digest names, one a line.
fn named(digest: &Digest) -> String {
    let line = |alarm: &klaxon_schemas::notify::DigestAlarm| {
        format!(
            "{} {} {} {} {} {} {}",
            alarm.raised_at, alarm.cleared_at, alarm.severity, alarm.alarm_type, alarm.site, alarm.resource, alarm.text
        )
    };
    digest.named.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn in_gap(gap: &Gap, object: DeliveryObject) -> Value {
    match object {
        DeliveryObject::GapFirst => Value::Counter64(gap.from.0),
        DeliveryObject::GapLast => Value::Counter64(gap.to.0),
        _ => values::gauge(gap.changes.unwrap_or(0)),
    }
}

/// Whether a value says nothing that its absence would not.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::OctetString(bytes) => bytes.is_empty(),
        Value::Integer(number) => *number == 0,
        Value::Counter64(number) => *number == 0,
        _ => false,
    }
}

/// Where the resource of the alarm's row is written: what other MIBs point to.
pub(super) fn resource_oid(root: &Root, index: u32) -> Oid {
    root.alarm(AlarmColumn::Resource, index)
}
