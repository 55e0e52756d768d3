//! What a notification says in syslog: which message, with which structured data.
//!
//! | what | MSGID | level | RFC 5674 element |
//! |---|---|---|---|
//! | raised, changed, left | `alarm.raised` … | as RFC 5674 section 2 maps the severity | yes |
//! | cleared, retired | `alarm.cleared` … | notice | yes, `cleared` |
//! | a log event | `log` | as its severity | no: it is no alarm |
//! | a digest, a gap | `digest`, `gap` | warning | no |
//! | a heartbeat | `heartbeat` | informational | no |

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::notify::{Digest, Gap, How};
use klaxon_schemas::severity::{EventType, Severity};
use klaxon_schemas::time::Timestamp;

use super::message::{Element, Level, Message, SD_NAME_CHARS_MAX};
use crate::agent::causes;
use crate::agent::oids::Root;
use crate::notify::notification::word;
use crate::notify::receiver::wall;
use crate::notify::{Notification, What};

/// How many numbers of a root stand before the enterprise's.
const ENTERPRISES_ARCS: usize = 6;

/// What all messages have in common.
pub(super) struct Draft {
    /// The SD-ID of our own element.
    own_id: String,
    /// The node's address for people, without a slash at its end.
    external_url: Option<String>,
}

impl Draft {
    pub(super) fn new(root: &Root, external_url: Option<&str>) -> Self {
        let external_url = external_url.map(|url| url.trim_end_matches('/').to_owned());
        Self { own_id: own_id(root), external_url }
    }

    /// What is said of it.
    pub(super) fn message(&self, catalogue: &Catalogue, notification: &Notification) -> Message {
        let mut own = Element::new(self.own_id.clone());
        own.name("receiver", &notification.receiver);
        own.fact("epoch", notification.epoch);
        if !matches!(notification.what, What::Heartbeat { .. }) {
            own.fact("delivery_seq", notification.delivery_seq);
        }
        if notification.resent {
            own.fact("resent", true);
        }
        match &notification.what {
            What::Alarm { how, change, alarm, suppressed } => {
                self.alarm(own, catalogue, Step { how: *how, change: change.as_deref(), alarm, suppressed: *suppressed })
            }
            What::Log { change } => log(own, catalogue, change),
            What::Digest(digest) => of_digest(own, digest),
            What::Gap(gap) => of_gap(own, gap),
            What::Heartbeat { last } => {
                own.fact("last_delivery_seq", last);
                let text = "The node is there, and this receiver can be reached.".to_owned();
                Message { level: Level::Informational, at: wall(), kind: "heartbeat", elements: vec![own], text }
            }
        }
    }

    fn alarm(&self, mut own: Element, catalogue: &Catalogue, step: Step<'_>) -> Message {
        let Step { how, change, alarm, suppressed } = step;
        let entry = catalogue.get(&alarm.key.alarm_type);
        let is_over = matches!(how, How::Cleared | How::Retired);
        let severity = if is_over { "cleared" } else { alarm.severity.as_str() };
        let cause = alarm.details.probable_cause.as_ref().or(entry.map(|entry| &entry.probable_cause));

        let mut standard = Element::new("alarm".to_owned());
        standard.name("resource", &alarm.key.resource);
        standard.fact("probableCause", causes::label(cause.map(|cause| &**cause)));
        standard.fact("perceivedSeverity", severity);
        if let Some(event_type) = alarm.details.event_type.or(entry.map(|entry| entry.event_type)) {
            standard.extra("eventType", event_type_label(event_type));
        }
        if let Some(trend) = trend(how, change, alarm.severity) {
            standard.extra("trendIndication", trend);
        }
        if let Some(url) = &self.external_url {
            let resource =
                percent_encoding::utf8_percent_encode(alarm.key.resource.as_str(), percent_encoding::NON_ALPHANUMERIC);
            standard.extra("resourceURI", format_args!("{url}/#filter={resource}"));
        }

        about(&mut own, &alarm.key);
        own.fact("id", alarm.id);
        own.fact("how", how.as_str());
        if let Some(change) = change {
            step_of(&mut own, change);
        }
        own.fact("raise_seq", alarm.raise_seq);
        own.fact("severity", alarm.severity.as_str());
        own.extra("raised_at", alarm.raised_at);
        if let Some(cleared) = &alarm.cleared {
            own.extra("cleared_at", cleared.at);
        }
        if let Some(cause) = cause {
            own.extra("probable_cause", cause);
        }
        conditions(&mut own, alarm, suppressed);

        let level = if is_over { Level::Notice } else { level(alarm.severity) };
        let said = if alarm.text.is_empty() { entry.map_or("", |entry| &*entry.title) } else { &*alarm.text };
        let text = format!("{} {} {}", how.as_str(), alarm.severity.as_str(), words(&alarm.key, said));
        let at = change.map_or(alarm.changed_at, |change| change.at);
        Message { level, at, kind: kind(how), elements: vec![standard, own], text }
    }
}

/// A step in an alarm's life.
#[derive(Clone, Copy)]
struct Step<'a> {
    how: How,
    change: Option<&'a Change>,
    alarm: &'a Alarm,
    suppressed: bool,
}

/// `klaxon@` and the enterprise with its sub-identifiers (RFC 5424 section 7.2.2), as far as they fit.
fn own_id(root: &Root) -> String {
    let arcs: Vec<String> = root.arcs().iter().skip(ENTERPRISES_ARCS).map(u32::to_string).collect();
    let id = |arcs: &[String]| format!("klaxon@{}", arcs.join("."));
    let fitting = (1..=arcs.len()).rev().map(|count| id(&arcs[..count])).find(|id| id.len() <= SD_NAME_CHARS_MAX);
    fitting.unwrap_or_else(|| id(&arcs))
}

/// How urgent it is (RFC 5674 section 2).
fn level(severity: Severity) -> Level {
    match severity {
        Severity::Critical => Level::Alert,
        Severity::Major => Level::Critical,
        Severity::Minor => Level::Error,
        Severity::Warning => Level::Warning,
        Severity::Indeterminate => Level::Notice,
    }
}

fn kind(how: How) -> &'static str {
    match how {
        How::Raised => "alarm.raised",
        How::Changed => "alarm.changed",
        How::Left => "alarm.left",
        How::Cleared => "alarm.cleared",
        How::Retired => "alarm.retired",
    }
}

/// As IANAItuEventType has it (RFC 5674 section 3.4).
fn event_type_label(event_type: EventType) -> &'static str {
    match event_type {
        EventType::Other => "other",
        EventType::Communications => "communicationsAlarm",
        EventType::QualityOfService => "qualityOfServiceAlarm",
        EventType::ProcessingError => "processingErrorAlarm",
        EventType::Equipment => "equipmentAlarm",
        EventType::Environmental => "environmentalAlarm",
        EventType::IntegrityViolation => "integrityViolation",
        EventType::OperationalViolation => "operationalViolation",
        EventType::PhysicalViolation => "physicalViolation",
        EventType::SecurityServiceOrMechanismViolation => "securityServiceOrMechanismViolation",
        EventType::TimeDomainViolation => "timeDomainViolation",
    }
}

/// Where the severity goes (RFC 5674 section 3.5), if that is known.
fn trend(how: How, change: Option<&Change>, severity: Severity) -> Option<&'static str> {
    let Subject::Alarm { previous_severity, .. } = &change?.subject else { return None };
    Some(match (how, previous_severity) {
        (How::Changed | How::Left, Some(before)) if *before < severity => "moreSevere",
        (How::Changed | How::Left, Some(before)) if *before > severity => "lessSevere",
        (How::Changed, _) => "noChange",
        _ => return None,
    })
}

fn about(own: &mut Element, key: &AlarmKey) {
    own.name("site", &key.site);
    own.name("type", &key.alarm_type);
    if !key.qualifier.is_empty() {
        own.name("qualifier", &key.qualifier);
    }
}

/// What happened, who did it, and in which words.
fn step_of(own: &mut Element, change: &Change) {
    own.extra("change", word(&change.kind));
    own.extra("change_epoch", change.number.epoch);
    own.extra("change_seq", change.number.seq);
    if let Some(actor) = &change.actor {
        own.text("actor", actor);
    }
    if let Some(note) = &change.note {
        own.text("note", note);
    }
}

/// What stands beside the severity, where it does.
fn conditions(own: &mut Element, alarm: &Alarm, suppressed: bool) {
    if let Some(producer) = &alarm.producer {
        own.text("producer", producer);
    }
    if let Some(affecting) = alarm.details.service_affecting {
        own.extra("service_affecting", affecting);
    }
    if let Some(mark) = &alarm.acknowledged {
        own.text("acknowledged_by", &mark.by);
    }
    if let Some(assignment) = &alarm.assigned {
        own.text("assigned_to", &assignment.to);
    }
    if let Some(shelved) = &alarm.shelved {
        own.extra("shelved_until", shelved.until);
        own.text("shelved_reason", &shelved.reason);
    }
    if suppressed {
        own.extra("suppressed", true);
    }
    if alarm.stale.is_some() {
        own.extra("stale", true);
    }
}

fn words(key: &AlarmKey, said: &str) -> String {
    let qualifier = if key.qualifier.is_empty() { String::new() } else { format!(" ({})", key.qualifier) };
    format!("{} {} {}{qualifier}: {said}", key.alarm_type, key.site, key.resource)
}

fn log(mut own: Element, catalogue: &Catalogue, change: &Change) -> Message {
    let Subject::Event { event, .. } = &change.subject else { unreachable!("only an event is logged") };
    let event: &Event = event;
    about(&mut own, &event.key);
    own.name("resource", &event.key.resource);
    step_of(&mut own, change);
    let severity = match event.report {
        Report::Log(severity) | Report::Raise(severity) | Report::Heartbeat { severity, .. } => Some(severity),
        Report::Clear => None,
    };
    if let Some(severity) = severity {
        own.fact("severity", severity.as_str());
    }
    if let Some(producer) = &event.origin.producer {
        own.text("producer", producer);
    }
    let title = || catalogue.get(&event.key.alarm_type).map_or("", |entry| &*entry.title);
    let said = if event.text.is_empty() { title() } else { &*event.text };
    let (level, text) = (severity.map_or(Level::Informational, level), format!("logged {}", words(&event.key, said)));
    Message { level, at: event.event_time.unwrap_or(change.at), kind: "log", elements: vec![own], text }
}

fn of_digest(mut own: Element, digest: &Digest) -> Message {
    let Digest { changes, logged, came_and_went, .. } = digest;
    own.fact("changes", changes);
    own.fact("logged", logged);
    own.fact("came_and_went", came_and_went);
    let span = [("first_at", digest.first_at), ("last_at", digest.last_at)];
    span.into_iter().filter_map(|(name, at)| Some((name, at?))).for_each(|(name, at): (_, Timestamp)| own.extra(name, at));
    let named = |alarm: &klaxon_schemas::notify::DigestAlarm| {
        format!("{} {} {} {}", alarm.severity.as_str(), alarm.alarm_type, alarm.site, alarm.resource)
    };
    let named: Vec<String> = digest.named.iter().map(named).collect();
    let which = if named.is_empty() { String::new() } else { format!(": {}", named.join("; ")) };
    let text = format!(
        "{changes} changes came while this receiver was not reached; {came_and_went} alarms came and went unseen{which}"
    );
    Message { level: Level::Warning, at: wall(), kind: "digest", elements: vec![own], text }
}

fn of_gap(mut own: Element, gap: &Gap) -> Message {
    own.fact("reason", word(&gap.reason));
    own.fact("from", gap.from);
    own.fact("to", gap.to);
    if let Some(changes) = gap.changes {
        own.fact("changes", changes);
    }
    let text = "Changes are not told one by one; how the alarms stand follows.".to_owned();
    Message { level: Level::Warning, at: wall(), kind: "gap", elements: vec![own], text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_element_is_named_after_the_enterprise() {
        let id = |root: &str| own_id(&root.parse().expect("is a root"));
        assert_eq!(own_id(&Root::default()), "klaxon@8072.9999.9999.7780");
        assert_eq!(id("1.3.6.1.4.1.4242.7"), "klaxon@4242.7");
        assert_eq!(id("1.3.6.1.4.1.4242.1000000000.1000000000.1000000000"), "klaxon@4242.1000000000");
    }
}
