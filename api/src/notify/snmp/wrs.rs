//! WRS-ALARM-MIB: what StarlingX sends, for managers that know it.
//!
//! Its key of an alarm is (AlarmId, EntityInstanceId), as in its tables.

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Catalogue, Known};
use klaxon_schemas::change::Change;
use klaxon_schemas::event::Details;
use klaxon_schemas::names::Follower;
use klaxon_schemas::notify::{Digest, Gap};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::starlingx::{event_type_number, probable_cause_number, severity_number};
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::{Oid, Value};

use super::draft::{Draft, cut, string};
use super::rfc3877::{State, state};
use crate::agent::starlingx::names;
use crate::agent::{Wrs, WrsProfile, values};
use crate::notify::{Notification, What};

/// wrsTrapPrefix
const PREFIX: &[u32] = &[1, 3, 6, 1, 4, 1, 731, 1, 1, 1, 1, 0];
const CRITICAL: u32 = 1;
const MAJOR: u32 = 2;
const MINOR: u32 = 3;
const WARNING: u32 = 4;
const MESSAGE: u32 = 5;
const CLEAR: u32 = 9;
/// wrsAlarmActiveEntry
const ENTRY: &[u32] = &[1, 3, 6, 1, 4, 1, 731, 1, 1, 1, 1, 1, 1];
const UUID: u32 = 2;
const ALARM_ID: u32 = 3;
const ENTITY: u32 = 4;
const TIME: u32 = 5;
const SEVERITY: u32 = 6;
const TEXT: u32 = 7;
const EVENT_TYPE: u32 = 8;
const PROBABLE_CAUSE: u32 = 9;
const REPAIR_ACTION: u32 = 10;
const SERVICE_AFFECTING: u32 = 11;
const SUPPRESSION_ALLOWED: u32 = 12;

/// The longest text: what StarlingX keeps of it.
const TEXT_BYTES_MAX: usize = 254;
/// The longest entity.
const ENTITY_BYTES_MAX: usize = 1024;
/// The id of what Klaxon says of its own delivery.
const DELIVERY_ID: &str = "900.000";

/// What is said of an alarm or a message.
struct Said<'a> {
    number: u32,
    uuid: String,
    alarm_id: String,
    entity: String,
    time: Timestamp,
    severity: u8,
    text: String,
    known: Known<'a>,
}

impl Wrs {
    /// The notification, if there are words for it: there are none for heartbeats.
    pub(super) fn draft(&self, catalogue: &Catalogue, index: u32, notification: &Notification) -> Option<Draft> {
        let nothing = Details::default();
        match &notification.what {
            What::Alarm { how, change, alarm, .. } => {
                let state = state(*how, change.as_deref());
                Some(self.put(index, &self.of_alarm(catalogue, alarm, state, change.as_deref())))
            }
            What::Log { change } => self.of_log(catalogue, change).map(|said| self.put(index, &said)),
            What::Digest(digest) => Some(self.put(0, &self.of_digest(&notification.receiver, digest, &nothing))),
            What::Gap(gap) => Some(self.put(0, &self.of_gap(&notification.receiver, gap, &nothing))),
            What::Heartbeat { .. } => None,
        }
    }

    fn of_alarm<'a>(&self, catalogue: &'a Catalogue, alarm: &'a Alarm, state: State, change: Option<&Change>) -> Said<'a> {
        let number = match (state, alarm.severity) {
            (State::Clear, _) => CLEAR,
            (State::Active, Severity::Critical) => CRITICAL,
            (State::Active, Severity::Major) => MAJOR,
            (State::Active, Severity::Minor) => MINOR,
            (State::Active, Severity::Warning | Severity::Indeterminate) => WARNING,
        };
        let ended_at = alarm.cleared.as_ref().map(|cleared| cleared.at);
        let (alarm_id, text) = names(Some(catalogue), &alarm.key, &alarm.text);
        Said {
            number,
            uuid: alarm.id.to_string(),
            alarm_id,
            entity: self.entity(&alarm.key),
            time: ended_at.or(change.map(|change| change.at)).unwrap_or(alarm.changed_at),
            severity: severity_number(alarm.severity),
            text,
            known: Known {
                details: &alarm.details,
                entry: catalogue.get(&alarm.key.alarm_type),
                severity: Some(alarm.severity),
            },
        }
    }

    fn of_log<'a>(&self, catalogue: &'a Catalogue, change: &'a Change) -> Option<Said<'a>> {
        let event = super::event(change)?;
        let (alarm_id, text) = names(Some(catalogue), &event.key, &event.text);
        let severity = super::event_severity(event);
        Some(Said {
            number: MESSAGE,
            uuid: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{} {:?}", change.site, change.number).as_bytes())
                .to_string(),
            alarm_id,
            entity: self.entity(&event.key),
            time: event.event_time.unwrap_or(change.at),
            severity: severity.map_or(0, severity_number),
            text,
            known: Known { details: &event.details, entry: catalogue.get(&event.key.alarm_type), severity },
        })
    }

    fn of_digest<'a>(&self, receiver: &Follower, digest: &Digest, details: &'a Details) -> Said<'a> {
        let text = format!(
            "{} changes were not told one by one while this receiver could not be reached: {} alarms came and went, {} log events. \
             The alarms that stand follow.",
            digest.changes, digest.came_and_went, digest.logged
        );
        self.of_delivery(receiver, digest.last_at, text, details)
    }

    fn of_gap<'a>(&self, receiver: &Follower, gap: &Gap, details: &'a Details) -> Said<'a> {
        let changes = gap.changes.map_or("Changes".to_owned(), |changes| format!("{changes} changes"));
        self.of_delivery(
            receiver,
            None,
            format!("{changes} were lost to this receiver. The alarms that stand follow."),
            details,
        )
    }

    fn of_delivery<'a>(&self, receiver: &Follower, at: Option<Timestamp>, text: String, details: &'a Details) -> Said<'a> {
        let system = self.system.as_deref().unwrap_or("klaxon");
        Said {
            number: MESSAGE,
            uuid: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes()).to_string(),
            alarm_id: DELIVERY_ID.to_owned(),
            entity: format!("region={}.system={system}.klaxon=node.receiver={receiver}", self.region),
            time: at.unwrap_or_else(crate::clock::now),
            severity: severity_number(Severity::Warning),
            text,
            known: Known { details, entry: None, severity: None },
        }
    }

    fn put(&self, index: u32, said: &Said<'_>) -> Draft {
        let is_as_starlingx = self.form == WrsProfile::AsStarlingx;
        let instance = if is_as_starlingx { 0 } else { index };
        let column = |column: u32| Oid::new(&[ENTRY, &[column, instance]].concat());
        let mut draft = Draft::new(Oid::new(&[PREFIX, &[said.number]].concat()));
        if is_as_starlingx {
            draft.put(column(UUID), string(&said.uuid));
        }
        draft.put(column(ALARM_ID), string(&said.alarm_id));
        draft.put_name(column(ENTITY), string(cut(&said.entity, ENTITY_BYTES_MAX)));
        draft.put(
            column(TIME),
            if is_as_starlingx { string(time_as_text(said.time)) } else { values::date_and_time(said.time) },
        );
        if said.number == CLEAR {
            draft.put_text(column(TEXT), string(cut(&said.text, TEXT_BYTES_MAX)));
            return draft;
        }
        let known = &said.known;
        let is_blank = is_as_starlingx && said.number == MESSAGE;
        let cause = probable_cause_number(known.probable_cause().map(|cause| &**cause).filter(|_| !is_blank));
        let affecting = known.service_affecting() == Some(true) && !is_blank;
        draft.put(column(SEVERITY), Value::Integer(said.severity.into()));
        draft.put_text(column(TEXT), string(cut(&said.text, TEXT_BYTES_MAX)));
        draft.put(column(EVENT_TYPE), Value::Integer(event_type_number(known.event_type()).into()));
        draft.put(column(PROBABLE_CAUSE), Value::Integer(cause.into()));
        draft.put_text(column(REPAIR_ACTION), string(cut(known.repair_action().map_or("", |words| &**words), TEXT_BYTES_MAX)));
        draft.put(column(SERVICE_AFFECTING), Value::Integer(affecting.into()));
        // Whatever Klaxon knows can be suppressed.
        draft.put(column(SUPPRESSION_ALLOWED), Value::Integer(1));
        draft
    }
}

/// `2026-11-22,08:27:46.0,+0:0`
fn time_as_text(time: Timestamp) -> String {
    let octets = values::octets_of_time(time);
    let [high, low, month, day, hour, minute, second, tenth, ..] = octets;
    let year = u16::from_be_bytes([high, low]);
    format!("{year}-{month:02}-{day:02},{hour:02}:{minute:02}:{second:02}.{tenth},+0:0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_starlingx_does() {
        assert_eq!(time_as_text("2026-11-22T08:27:46Z".parse().expect("is a time")), "2026-11-22,08:27:46.0,+0:0");
    }
}
