//! WRS-ALARM-MIB: what StarlingX sends, for managers that know it.
//!
//! Its key of an alarm is (AlarmId, EntityInstanceId). The id is the one by which StarlingX knows the type; other types have one in
//! the groups 900 to 999 made of their name, and the name before their text. A qualifier is the last part of the entity.

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Catalogue, TypeEntry};
use klaxon_schemas::change::Change;
use klaxon_schemas::event::{AlarmKey, Details};
use klaxon_schemas::names::Follower;
use klaxon_schemas::notify::{Digest, Gap};
use klaxon_schemas::severity::{EventType, Severity};
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::{Oid, Value};
use sha2::{Digest as _, Sha256};

use super::draft::{Draft, cut, string};
use super::rfc3877::{State, state};
use crate::agent::{WrsProfile, causes, values};
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

/// How StarlingX is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrs {
    /// As specified: the MIB's variables in its order, of the alarm's row, with times in octets. As StarlingX does it:
    /// wrsAlarmActiveUuid before the others, all of the instance 0, times as text, and messages without probable cause and never
    /// service-affecting.
    pub form: WrsProfile,
    /// The region, which every entity begins with.
    pub region: String,
    /// The system, which comes next; the alarm's site if absent.
    pub system: Option<String>,
}

impl Default for Wrs {
    fn default() -> Self {
        Self { form: WrsProfile::default(), region: "RegionOne".to_owned(), system: None }
    }
}

/// What is said of an alarm or a message.
struct Said<'a> {
    number: u32,
    uuid: String,
    alarm_id: String,
    entity: String,
    time: Timestamp,
    severity: i32,
    text: String,
    details: &'a Details,
    /// What the catalogue knows of its type, for what the report did not say.
    entry: Option<&'a TypeEntry>,
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
        let (alarm_id, text) = names(catalogue, &alarm.key, &alarm.text);
        Said {
            number,
            uuid: alarm.id.to_string(),
            alarm_id,
            entity: self.entity(&alarm.key),
            time: ended_at.or(change.map(|change| change.at)).unwrap_or(alarm.changed_at),
            severity: severity(alarm.severity),
            text,
            details: &alarm.details,
            entry: catalogue.get(&alarm.key.alarm_type),
        }
    }

    fn of_log<'a>(&self, catalogue: &'a Catalogue, change: &'a Change) -> Option<Said<'a>> {
        let event = super::event(change)?;
        let (alarm_id, text) = names(catalogue, &event.key, &event.text);
        Some(Said {
            number: MESSAGE,
            uuid: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{} {:?}", change.site, change.number).as_bytes())
                .to_string(),
            alarm_id,
            entity: self.entity(&event.key),
            time: event.event_time.unwrap_or(change.at),
            severity: super::event_severity(event).map_or(0, severity),
            text,
            details: &event.details,
            entry: catalogue.get(&event.key.alarm_type),
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
            time: at.unwrap_or_else(super::now),
            severity: severity(Severity::Warning),
            text,
            details,
            entry: None,
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
        let details = said.details;
        let is_blank = is_as_starlingx && said.number == MESSAGE;
        let cause = details.probable_cause.as_deref().or(said.entry.map(|entry| &*entry.probable_cause));
        let cause = causes::wrs(cause.filter(|_| !is_blank));
        let repair_action = details.repair_action.as_deref().or(said.entry.map(|entry| &*entry.repair_action));
        let affecting = details.service_affecting == Some(true) && !is_blank;
        draft.put(column(SEVERITY), Value::Integer(said.severity));
        draft.put_text(column(TEXT), string(cut(&said.text, TEXT_BYTES_MAX)));
        draft.put(
            column(EVENT_TYPE),
            Value::Integer(event_type(details.event_type.or(said.entry.map(|entry| entry.event_type)))),
        );
        draft.put(column(PROBABLE_CAUSE), Value::Integer(cause));
        draft.put_text(column(REPAIR_ACTION), string(cut(repair_action.unwrap_or_default(), TEXT_BYTES_MAX)));
        draft.put(column(SERVICE_AFFECTING), Value::Integer(affecting.into()));
        // Whatever Klaxon knows can be suppressed.
        draft.put(column(SUPPRESSION_ALLOWED), Value::Integer(1));
        draft
    }

    /// The resource below its region and system, unless it says itself where it is.
    fn entity(&self, key: &AlarmKey) -> String {
        let resource = key.resource.as_str();
        let qualifier = if key.qualifier.is_empty() { String::new() } else { format!(".qualifier={}", &*key.qualifier) };
        if resource.starts_with("region=") {
            return format!("{resource}{qualifier}");
        }
        let system = if resource.starts_with("system=") {
            String::new()
        } else {
            format!("system={}.", self.system.as_deref().unwrap_or(&key.site))
        };
        format!("region={}.{system}{resource}{qualifier}", self.region)
    }
}

/// The id by which StarlingX knows a type, and the text. A type that it does not know has an id of its own, and its name is put
/// before the text.
fn names(catalogue: &Catalogue, key: &AlarmKey, text: &str) -> (String, String) {
    let alias = catalogue.get(&key.alarm_type).and_then(|entry| entry.starlingx_id.as_deref());
    let known = alias.or(Some(&*key.alarm_type)).filter(|id| is_id(id));
    match known {
        Some(id) => (id.to_owned(), text.to_owned()),
        None => (own_id(&key.alarm_type), format!("{}: {text}", &*key.alarm_type)),
    }
}

/// `GGG.EEE`
fn is_id(text: &str) -> bool {
    let is_three = |part: &str| part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(group, number)| is_three(group) && is_three(number))
}

/// An id in the groups 901 to 999, the same everywhere and always.
fn own_id(alarm_type: &str) -> String {
    let sum = Sha256::digest(alarm_type.as_bytes());
    let number = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]) % 99_000;
    format!("{:03}.{:03}", 901 + number / 1000, number % 1000)
}

/// WrsAlarmSeverity. It has no indeterminate: something is wrong, so it is a warning.
fn severity(severity: Severity) -> i32 {
    match severity {
        Severity::Critical => 4,
        Severity::Major => 3,
        Severity::Minor => 2,
        Severity::Warning | Severity::Indeterminate => 1,
    }
}

/// WrsAlarmEventType: that of IANA, which begins with 1, begins with 0 here.
fn event_type(event_type: Option<EventType>) -> i32 {
    (values::event_type(event_type) - 1).max(0)
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
    fn a_type_has_the_id_that_starlingx_gives_it_or_one_of_its_own() {
        assert!(is_id("100.104") && !is_id("disk.full") && !is_id("100.1040") && !is_id("100104"));
        let own = own_id("disk.inodes");
        assert!(is_id(&own) && own.starts_with('9') && own != own_id("disk.full"), "{own}");
        assert_ne!(own, DELIVERY_ID);
    }

    #[test]
    fn times_are_written_as_starlingx_does() {
        assert_eq!(time_as_text("2026-11-22T08:27:46Z".parse().expect("is a time")), "2026-11-22,08:27:46.0,+0:0");
    }
}
