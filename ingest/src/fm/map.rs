//! What a fault of theirs is here, and the way back.

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Catalogue, Known};
use klaxon_schemas::event::{AlarmKey, Details, Event, Report};
use klaxon_schemas::labels::Labels;
use klaxon_schemas::names::{AlarmType, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::starlingx::{self, AlarmState, Extra, named};
use klaxon_schemas::time::Timestamp;

use super::wire::Fault;

/// Who reports, where the protocol names nobody.
const PRODUCER: &str = "fm";

/// A field that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Unusable {
    /// As their structure calls it.
    pub field: &'static str,
    /// Why.
    pub reason: String,
}

impl Unusable {
    fn new(field: &'static str, reason: &impl ToString) -> Self {
        Self { field, reason: reason.to_string() }
    }
}

/// The alarm at `site` that an id and an entity name. The type is the one of that name: what it stands for, the catalogue says.
pub(super) fn key(site: &Site, alarm_id: &str, entity: &str) -> Result<AlarmKey, Unusable> {
    Ok(AlarmKey {
        site: site.clone(),
        resource: Resource::new(named(entity)).map_err(|error| Unusable::new("entity_instance_id", &error))?,
        alarm_type: AlarmType::new(alarm_id).map_err(|error| Unusable::new("alarm_id", &error))?,
        qualifier: Qualifier::new("").expect("may be empty"),
    })
}

/// The event that a fault reports at `site`.
pub fn event(fault: &Fault, site: &Site) -> Result<Event, Unusable> {
    let number = |field: &'static str, number: u32| Unusable::new(field, &format!("{number} stands for nothing"));
    let key = key(site, &fault.alarm_id, &fault.entity_instance_id)?;
    let state = AlarmState::from_number(fault.alarm_state).ok_or_else(|| number("alarm_state", fault.alarm_state))?;
    let severity = starlingx::severity_from_number(fault.severity).ok_or_else(|| number("severity", fault.severity))?;
    let event_type =
        starlingx::event_type_from_number(fault.alarm_type).ok_or_else(|| number("alarm_type", fault.alarm_type))?;
    let probable_cause = starlingx::probable_cause_from_number(fault.probable_cause)
        .ok_or_else(|| number("probable_cause", fault.probable_cause))?;
    let event_time = match fault.timestamp {
        0 => None,
        micros => {
            let time = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_micros(micros).ok());
            Some(time.ok_or_else(|| {
                Unusable::new("timestamp", &format!("{micros} microseconds are no time before the year 10000"))
            })?)
        }
    };
    let report = match state {
        AlarmState::Set => Report::Raise(severity),
        AlarmState::Clear => Report::Clear,
        AlarmState::Message | AlarmState::Log => Report::Log(severity),
    };
    let extra = Extra {
        entity_type_id: fault.entity_type_id.clone(),
        suppression: fault.suppression,
        inhibit_alarms: fault.inhibit_alarms,
    };
    let details = Details {
        event_type: Some(event_type),
        probable_cause,
        repair_action: Some(words(&fault.proposed_repair_action)).filter(|words| !words.is_empty()),
        service_affecting: Some(fault.service_affecting),
        labels: Labels::default(),
        attributes: extra.attributes(),
    };
    Ok(Event { details, event_time, ..of_us(Event::new(key, report, words(&fault.reason_text))) })
}

/// The report that an alarm is over.
pub(super) fn clear(key: AlarmKey) -> Event {
    of_us(Event::new(key, Report::Clear, words("")))
}

fn of_us(event: Event) -> Event {
    event.of(Producer::new(PRODUCER).expect("is a name"))
}

fn words(text: &str) -> Text {
    Text::lossy(text).expect("may be empty")
}

/// An alarm as they know it. What its reports did not say, the catalogue says.
pub(super) fn fault(alarm: &Alarm, catalogue: Option<&Catalogue>) -> Fault {
    let details = &alarm.details;
    let entry = catalogue.and_then(|catalogue| catalogue.get(&alarm.key.alarm_type));
    let known = Known { details, entry, severity: Some(alarm.severity) };
    let extra = Extra::of(&details.attributes, &alarm.key.resource);
    let since = alarm.event_time.unwrap_or(alarm.raised_at);
    Fault {
        uuid: alarm.id.to_string(),
        alarm_id: starlingx::alarm_id(catalogue, &alarm.key.alarm_type).to_string(),
        alarm_state: 1,
        entity_type_id: extra.entity_type_id,
        entity_instance_id: starlingx::entity_instance_id(&alarm.key).into_owned(),
        timestamp: u64::try_from(since.as_micros()).unwrap_or(0),
        severity: starlingx::severity_number(alarm.severity).into(),
        reason_text: alarm.text.to_string(),
        alarm_type: starlingx::event_type_number(known.event_type()).into(),
        probable_cause: starlingx::probable_cause_number(known.probable_cause().map(|cause| &**cause)).into(),
        proposed_repair_action: known.repair_action().map(ToString::to_string).unwrap_or_default(),
        service_affecting: known.service_affecting().unwrap_or_default(),
        suppression: extra.suppression,
        inhibit_alarms: extra.inhibit_alarms,
        keep_existing_alarm: false,
    }
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::severity::{EventType, Severity};

    use super::*;

    fn site() -> Site {
        Site::new("here").expect("valid")
    }

    fn raised() -> Fault {
        Fault {
            alarm_id: "100.101".to_owned(),
            alarm_state: 1,
            entity_instance_id: "host=o'brien".to_owned(),
            severity: 4,
            alarm_type: 7,
            probable_cause: 77,
            reason_text: "hot\u{7}".to_owned(),
            timestamp: 1_000_000,
            ..Fault::default()
        }
    }

    #[test]
    fn a_fault_is_an_event() {
        let event = event(&raised(), &site()).expect("is one");
        assert_eq!((event.report, &*event.text), (Report::Raise(Severity::Critical), "hot?"));
        assert_eq!((event.key.resource.as_str(), &*event.key.alarm_type), ("host=o'brien", "100.101"));
        assert_eq!(event.details.event_type, Some(EventType::OperationalViolation));
        assert_eq!(event.details.probable_cause.as_deref(), Some("certificate-expiration"));
        assert_eq!((event.details.repair_action, event.details.service_affecting), (None, Some(false)));
        assert_eq!(event.event_time, Timestamp::from_micros(1_000_000).ok());
        let nameless = Fault { entity_instance_id: String::new(), alarm_state: 2, severity: 0, ..raised() };
        let log = super::event(&nameless, &site()).expect("is one");
        assert_eq!((log.report, log.key.resource.as_str()), (Report::Log(Severity::Indeterminate), " "));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let field = |change: fn(&mut Fault)| {
            let mut fault = raised();
            change(&mut fault);
            event(&fault, &site()).map(drop).expect_err("is wrong").field
        };
        assert_eq!(field(|fault| fault.alarm_id = "100 101".to_owned()), "alarm_id");
        assert_eq!(field(|fault| fault.alarm_id.clear()), "alarm_id");
        assert_eq!(field(|fault| fault.entity_instance_id.push('\n')), "entity_instance_id");
        assert_eq!(field(|fault| fault.alarm_state = 4), "alarm_state");
        assert_eq!(field(|fault| fault.severity = 5), "severity");
        assert_eq!(field(|fault| fault.alarm_type = 11), "alarm_type");
        assert_eq!(field(|fault| fault.probable_cause = 78), "probable_cause");
        assert_eq!(field(|fault| fault.timestamp = u64::MAX), "timestamp");
    }
}
