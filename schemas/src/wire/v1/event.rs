//! The event as reporters write it, and as the journal keeps it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{AlarmKey, Attributes, Details, Lease, Origin, RelayMark, Report, SpanRule};
use crate::ids::Sequence;
use crate::labels::Labels;
use crate::names::{AlarmType, EventId, ProbableCause, Producer, Qualifier, Site, Text};
use crate::resource::Resource;
use crate::severity::{EventType, Severity};
use crate::time::Timestamp;

/// One report. The smallest useful one has `resource`, `alarm_type` and `severity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The site that owns the alarm; the receiving node's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// What it is about.
    pub resource: Resource,
    /// Which kind of alarm it is.
    pub alarm_type: AlarmType,
    /// Tells alarms of one type on one resource apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<Qualifier>,
    /// `alarm` (the default) reports a lasting state, `log` something that raises nothing, `heartbeat` that all is well and
    /// that this will be said again within `lease_s`: silence raises the alarm, until a report of kind `alarm` that clears it
    /// ends the promise.
    #[serde(default, skip_serializing_if = "EventKind::is_alarm")]
    pub kind: EventKind,
    /// How bad it is; `cleared` says that it is over. May be absent from a log event. In a heartbeat: how bad silence will be,
    /// `major` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<PerceivedSeverity>,
    /// What happened, in words (X.733 8.1.2.13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// When it happened, as the reporter claims. Kept and shown; it decides nothing unless `order_by_event_time` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<Timestamp>,
    /// X.733 8.1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// X.733 8.1.2.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probable_cause: Option<ProbableCause>,
    /// What to do about it (X.733 8.1.2.12).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_action: Option<Text>,
    /// Whether service is affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_affecting: Option<bool>,
    /// Additional information.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// The labels under which the Prometheus world knows it; they are made of the other fields if absent.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Who reports. Needed with `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
    /// The producer's epoch: it grows when the producer loses its count. Needed with `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The number of this report within the producer's epoch: a second delivery is recognised by it, and it orders the
    /// producer's reports of one alarm. A producer has at most 1024 reports on their way that are not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The reporter's identifier of this report: a second delivery is recognised by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// Seconds within which the reporter promises to report again; silence makes the alarm stale. A heartbeat needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<Lease>,
    /// When the condition ends, as the reporter declares; the alarm clears then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// How `event_time` and `ends_at` go with those of an earlier report: the end `replaces` the one before, unless said otherwise.
    #[serde(default, skip_serializing_if = "SpanRule::is_default")]
    #[schema(inline)]
    pub span: SpanRule,
    /// Unnumbered reports of one alarm are ordered by `event_time`: one that is older than the last has no effect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub order_by_event_time: bool,
    /// The agent that relayed it. Stored; a reporter that sends one is not heeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub relay: Option<RelayMark>,
}

/// What a report is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// A lasting state.
    #[default]
    Alarm,
    /// Something that lasts not.
    Log,
    /// The reporter itself: it is there.
    Heartbeat,
}

/// The severity with which silence raises an alarm, if the reporter says none.
pub const SILENCE_SEVERITY: Severity = Severity::Major;

impl EventKind {
    fn is_alarm(&self) -> bool {
        *self == Self::Alarm
    }
}

/// X.733 8.1.2.3 perceived severity as reporters know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PerceivedSeverity {
    /// The condition is over.
    Cleared,
    /// The level could not be determined.
    Indeterminate,
    /// A fault may come.
    Warning,
    /// A fault that affects no service.
    Minor,
    /// A fault that affects service.
    Major,
    /// Service is gone.
    Critical,
}

impl PerceivedSeverity {
    /// The severity, unless the condition is over.
    pub fn severity(self) -> Option<Severity> {
        match self {
            Self::Cleared => None,
            Self::Indeterminate => Some(Severity::Indeterminate),
            Self::Warning => Some(Severity::Warning),
            Self::Minor => Some(Severity::Minor),
            Self::Major => Some(Severity::Major),
            Self::Critical => Some(Severity::Critical),
        }
    }
}

impl From<Severity> for PerceivedSeverity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Indeterminate => Self::Indeterminate,
            Severity::Warning => Self::Warning,
            Severity::Minor => Self::Minor,
            Severity::Major => Self::Major,
            Severity::Critical => Self::Critical,
        }
    }
}

/// What is wrong with an input: the field, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InputError {
    /// The path of the field, `.` for the whole.
    pub field: String,
    /// Why it cannot be used.
    pub reason: String,
}

impl InputError {
    /// `field` cannot be used because of `reason`.
    pub fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }
}

/// Reads one event, and names the fields that were not understood and are ignored.
pub fn parse_event(json: &str) -> Result<(Event, Vec<String>), InputError> {
    // serde would take an array for the fields in their order.
    if !json.trim_start().starts_with('{') {
        return Err(InputError::new(".", "is no JSON object"));
    }
    let mut ignored = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let event: Result<Event, _> = serde_ignored::deserialize(&mut deserializer, |path| ignored.push(path.to_string()));
    match event.and_then(|event| deserializer.end().map(|()| event)) {
        Ok(mut event) => {
            ignored.extend(event.relay.take().map(|_| "relay".to_owned()));
            Ok((event, ignored))
        }
        // Read once more, and slower, to learn which field it was.
        Err(error) => {
            let field = serde_path_to_error::deserialize::<_, Event>(&mut serde_json::Deserializer::from_str(json))
                .map_or_else(|located| located.path().to_string(), |_| ".".to_owned());
            Err(InputError { field, reason: without_place(&error.to_string()) })
        }
    }
}

/// A JSON error without ` at line 1 column 17`: the place within one event helps nobody, the field does.
fn without_place(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message.to_owned(),
    }
}

impl Event {
    /// The event itself, at `site` if it names none.
    pub fn into_event(self, site: &Site) -> Result<crate::event::Event, InputError> {
        let mut lease = self.lease_s;
        let report = match (self.kind, self.severity) {
            (EventKind::Alarm, None) => return Err(InputError::new("severity", "is missing")),
            (EventKind::Alarm, Some(perceived)) => perceived.severity().map_or(Report::Clear, Report::Raise),
            (EventKind::Log, None) => Report::Log(Severity::Indeterminate),
            (EventKind::Log, Some(perceived)) => match perceived.severity() {
                Some(severity) => Report::Log(severity),
                None => return Err(InputError::new("severity", "cannot be cleared in a log event")),
            },
            (EventKind::Heartbeat, perceived) => {
                let severity = perceived.map_or(Some(SILENCE_SEVERITY), PerceivedSeverity::severity).ok_or_else(|| {
                    InputError::new(
                        "severity",
                        "cannot be cleared in a heartbeat; an ordinary report that clears ends the promise",
                    )
                })?;
                let every = lease.take().ok_or_else(|| {
                    InputError::new("lease_s", "is missing: a heartbeat says within which time the next one comes")
                })?;
                if self.ends_at.is_some() {
                    return Err(InputError::new("ends_at", "has no meaning in a heartbeat"));
                }
                Report::Heartbeat { every, severity }
            }
        };
        let sequence = match (self.epoch, self.seq) {
            (Some(epoch), Some(seq)) => Some(Sequence { epoch, seq }),
            (None, None) => None,
            (None, Some(_)) => return Err(InputError::new("epoch", "is missing beside seq")),
            (Some(_), None) => return Err(InputError::new("seq", "is missing beside epoch")),
        };
        if sequence.is_some() && self.producer.is_none() {
            return Err(InputError::new("producer", "is missing beside seq"));
        }
        if self.order_by_event_time && self.event_time.is_none() {
            return Err(InputError::new("event_time", "is missing beside order_by_event_time"));
        }
        Ok(crate::event::Event {
            key: AlarmKey {
                site: self.site.unwrap_or_else(|| site.clone()),
                resource: self.resource,
                alarm_type: self.alarm_type,
                qualifier: self.qualifier.unwrap_or_else(no_qualifier),
            },
            report,
            text: self.text.unwrap_or_else(no_text),
            details: Details {
                event_type: self.event_type,
                probable_cause: self.probable_cause,
                repair_action: self.repair_action,
                service_affecting: self.service_affecting,
                attributes: self.attributes,
                labels: self.labels,
            },
            event_time: self.event_time,
            origin: Origin { producer: self.producer, sequence, event_id: self.event_id, relay: self.relay },
            lease,
            ends_at: self.ends_at,
            span: self.span,
            order_by_event_time: self.order_by_event_time,
        })
    }
}

pub(super) fn no_qualifier() -> Qualifier {
    Qualifier::new("").expect("may be empty")
}

pub(super) fn no_text() -> Text {
    Text::new("").expect("may be empty")
}

pub(super) fn unless_empty<R>(name: &crate::names::Name<R>) -> Option<crate::names::Name<R>> {
    (!name.is_empty()).then(|| name.clone())
}

impl From<&crate::event::Event> for Event {
    fn from(event: &crate::event::Event) -> Self {
        let (kind, severity) = match event.report {
            Report::Raise(severity) => (EventKind::Alarm, severity.into()),
            Report::Clear => (EventKind::Alarm, PerceivedSeverity::Cleared),
            Report::Log(severity) => (EventKind::Log, severity.into()),
            Report::Heartbeat { severity, .. } => (EventKind::Heartbeat, severity.into()),
        };
        let lease_s = match event.report {
            Report::Heartbeat { every, .. } => Some(every),
            Report::Raise(_) | Report::Clear | Report::Log(_) => event.lease,
        };
        let key = &event.key;
        let details = &event.details;
        Self {
            site: Some(key.site.clone()),
            resource: key.resource.clone(),
            alarm_type: key.alarm_type.clone(),
            qualifier: unless_empty(&key.qualifier),
            kind,
            severity: Some(severity),
            text: unless_empty(&event.text),
            event_time: event.event_time,
            event_type: details.event_type,
            probable_cause: details.probable_cause.clone(),
            repair_action: details.repair_action.clone(),
            service_affecting: details.service_affecting,
            attributes: details.attributes.clone(),
            labels: details.labels.clone(),
            producer: event.origin.producer.clone(),
            epoch: event.origin.sequence.map(|sequence| sequence.epoch),
            seq: event.origin.sequence.map(|sequence| sequence.seq),
            event_id: event.origin.event_id.clone(),
            relay: event.origin.relay.clone(),
            lease_s,
            ends_at: event.ends_at,
            span: event.span,
            order_by_event_time: event.order_by_event_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site::new("here").expect("valid")
    }

    #[test]
    fn the_smallest_useful_event() {
        let json = r#"{"resource":"host=web-1.filesystem=/var","alarm_type":"disk.full","severity":"major","text":"…"}"#;
        let (event, ignored) = parse_event(json).expect("valid");
        assert!(ignored.is_empty());
        let event = event.into_event(&site()).expect("valid");
        assert_eq!(event.report, Report::Raise(Severity::Major));
        assert_eq!(event.key.site, site());
        let again = Event::from(&event).into_event(&site()).expect("round-trips");
        assert_eq!(again, event);
    }

    #[test]
    fn an_error_names_the_field_and_the_reason() {
        let error = |json: &str| parse_event(json).and_then(|(event, _)| event.into_event(&site())).expect_err("is wrong");
        let with = |field: &str| format!(r#"{{"resource":"host=a","alarm_type":"x",{field}}}"#);
        assert_eq!(error(&with(r#""severity":"bad""#)).field, "severity");
        assert_eq!(error(&with(r#""severity":null"#)), InputError::new("severity", "is missing"));
        assert_eq!(error(&with(r#""severity":"major","attributes":{"a":1}"#)).field, "attributes.a");
        assert_eq!(error(&with(r#""severity":"major","seq":1"#)).field, "epoch");
        assert_eq!(error(&with(r#""severity":"major","seq":1,"epoch":1"#)).field, "producer");
        assert_eq!(error(&with(r#""severity":"cleared","kind":"log""#)).field, "severity");
        assert_eq!(error(&with(r#""severity":"major","lease_s":0"#)).field, "lease_s");
        let long = error(&with(&format!(r#""severity":"major","text":"{}""#, "x".repeat(5000))));
        assert_eq!(long, InputError::new("text", "is 5000 bytes long, at most 4096 are allowed"));
        assert_eq!(error(r#"{"alarm_type":"x","severity":"major"}"#).reason, "missing field `resource`");
        assert_eq!(error("[1]").field, ".");
    }

    #[test]
    fn a_heartbeat_says_when_the_next_one_comes() {
        let read = |rest: &str| {
            let json = format!(r#"{{"resource":"heartbeat=a","alarm_type":"heartbeat.lost","kind":"heartbeat"{rest}}}"#);
            parse_event(&json).and_then(|(event, _)| event.into_event(&site()))
        };
        let every = Lease::new(300).expect("in bounds");
        let event = read(r#","lease_s":300"#).expect("valid");
        assert_eq!((event.report, event.lease), (Report::Heartbeat { every, severity: Severity::Major }, None));
        assert_eq!(Event::from(&event).into_event(&site()).expect("round-trips"), event);
        let minor = read(r#","lease_s":300,"severity":"minor""#).expect("valid");
        assert_eq!(minor.report, Report::Heartbeat { every, severity: Severity::Minor });
        for (rest, field) in [
            ("", "lease_s"),
            (r#","lease_s":300,"severity":"cleared""#, "severity"),
            (r#","lease_s":300,"ends_at":"2026-11-22T03:12:00Z""#, "ends_at"),
            (r#","lease_s":300,"seq":1"#, "epoch"),
        ] {
            assert_eq!(read(rest).expect_err("is wrong").field, field);
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let json = r#"{"resource":"host=a","alarm_type":"x","severity":"major","severty":"minor"}"#;
        assert_eq!(parse_event(json).expect("valid").1, ["severty"]);
    }
}
