//! KLAXON-ALARM-MIB: one notification says all that there is to say, so that nobody has to look anything up.

use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::notify::{Digest, DigestAlarm, Gap, How};
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{Oid, Value};

use super::draft::{Draft, string};
use crate::agent::oids::{AlarmColumn, DeliveryObject, NotificationKind, NotificationObject, Root};
use crate::agent::{Shown, WORDS, empty, event_cell, values};
use crate::notify::{Notification, What};

/// The notification of KLAXON-ALARM-MIB under `root`; `index` is the row of the alarm that it is about.
pub(super) fn draft(root: &Root, catalogue: &Catalogue, index: u32, notification: &Notification) -> Draft {
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
    let say = Say { root, catalogue, index, notification };
    kind.objects().for_each(|object| put(&mut draft, &say, object));
    for (oid, value) in kind.more_objects().map(|object| say.of(object)).filter(|(_, value)| !is_nothing(value)) {
        draft.put_extra(oid, value);
    }
    draft
}

fn put(draft: &mut Draft, say: &Say<'_>, object: NotificationObject) {
    let (oid, value) = say.of(object);
    match object {
        NotificationObject::Delivery(DeliveryObject::DigestNamed)
        | NotificationObject::Alarm(AlarmColumn::Text | AlarmColumn::RepairAction) => draft.put_text(oid, value),
        NotificationObject::Alarm(AlarmColumn::Resource | AlarmColumn::Qualifier) => draft.put_name(oid, value),
        _ => draft.put(oid, value),
    }
}

/// What is said of what.
struct Say<'a> {
    root: &'a Root,
    catalogue: &'a Catalogue,
    index: u32,
    notification: &'a Notification,
}

impl Say<'_> {
    fn of(&self, object: NotificationObject) -> (Oid, Value) {
        match object {
            NotificationObject::Delivery(object) => (self.root.delivery(object), delivery(self.notification, object)),
            NotificationObject::Alarm(column) => (self.root.alarm(column, self.index), self.cell(column)),
        }
    }

    fn cell(&self, column: AlarmColumn) -> Value {
        match &self.notification.what {
            What::Alarm { alarm, suppressed, .. } => Shown::new(alarm, *suppressed, Some(self.catalogue)).cell(column),
            What::Log { change } => match &change.subject {
                Subject::Event { event, catalogued, .. } => event_cell(event, *catalogued, Some(self.catalogue), column),
                _ => empty(column),
            },
            What::Digest(_) | What::Gap(_) | What::Heartbeat { .. } => empty(column),
        }
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
        D::Note => values::maybe_text(change.and_then(|change| change.note.as_deref()), WORDS),
        D::PreviousSeverity => Value::Integer(change.and_then(previous_severity).map_or(values::NO_SEVERITY, values::severity)),
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
        _ => string(values::cut(&named(digest), WORDS)),
    }
}

/// The alarms that a digest names, one a line.
fn named(digest: &Digest) -> String {
    let line = |alarm: &DigestAlarm| {
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
