//! Alertmanager's webhook form, version 4, for what already listens to one.
//!
//! Unless alarms are grouped, each is a group of its own, with one alert, so that whoever keeps groups by their key never sees an
//! alert vanish from one. Group key, group labels and fingerprint come from what names the alarm (site, resource, type, qualifier), and
//! so stay the same from firing to resolved, whatever the severity. If they are grouped, key and labels come from what they are grouped
//! by; what else stands in the group stands in each request with what changed, and what of it has no room is counted, so that a group
//! is resolved when nothing in it stands. What the form has no place for comes as an alert, too:
//!
//! | what | alert |
//! |---|---|
//! | raised, changed | firing |
//! | left (shelved, suppressed, no longer in the filter), cleared, retired | resolved |
//! | a log event, a digest, a gap | resolved as it comes: named after its type, `klaxon.digest`, `klaxon.gap` |
//! | a heartbeat | firing for ever, as Prometheus's `Watchdog` is: `klaxon.heartbeat` |

use std::collections::BTreeMap;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Catalogue, Known, TypeEntry};
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::event::{AlarmKey, Details, Event};
use klaxon_schemas::labels::{Named, label_name};
use klaxon_schemas::notify::{Digest, Gap, How};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::PerceivedSeverity;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::notification::word;
use super::super::{GroupLabel, Notification, What};

/// What stands for "not yet": Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

const FIRING: &str = "firing";
const RESOLVED: &str = "resolved";

type Words = BTreeMap<String, String>;

/// One request.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group<'a> {
    receiver: &'a str,
    status: &'static str,
    alerts: Vec<Alert>,
    group_labels: Words,
    common_labels: Words,
    common_annotations: Words,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    version: &'static str,
    group_key: String,
    truncated_alerts: usize,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    status: &'static str,
    labels: Words,
    annotations: Words,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: String,
}

/// What an alert is made of.
struct Draft {
    /// What names it.
    names: Words,
    /// Labels beside these.
    labels: Words,
    annotations: Words,
    starts_at: Option<Timestamp>,
    /// Absent while it fires.
    ends_at: Option<Timestamp>,
    is_firing: bool,
    /// Where more is told of it, under the node's address.
    path: String,
}

/// What is needed beside a notification.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) catalogue: &'a Catalogue,
    /// The node's address for people, without a slash at its end; may be empty.
    pub(super) external_url: &'a str,
}

impl<'a> Frame<'a> {
    /// What is delivered together, in this form. With several, they are of one group, which is made by these labels.
    pub(super) fn group(&self, batch: &'a [Notification], by: Option<&[GroupLabel]>) -> Group<'a> {
        let [.., last] = batch else { unreachable!("something is delivered") };
        // Of an alarm, what was said last.
        let mut alerts: Vec<Alert> = Vec::with_capacity(batch.len());
        for alert in batch.iter().map(|notification| self.finish(self.draft(notification))) {
            let is_same = |other: &Alert| other.fingerprint == alert.fingerprint;
            alerts.retain(|other| !is_same(other));
            alerts.push(alert);
        }
        let group_labels = match (by, key_of(&last.what)) {
            (Some(by), Some(key)) => {
                let labels = by.iter().map(|label| (label_of(label), label.value(key, None).to_owned()));
                // What an alarm has not is no label of it.
                labels.filter(|(_, value)| !value.is_empty()).collect()
            }
            _ => self.draft(last).names,
        };
        let beside = last.beside.as_deref();
        let others = beside.into_iter().flat_map(|beside| &beside.alarms);
        alerts.extend(others.map(|alarm| self.finish(self.standing(alarm))));
        let truncated_alerts = beside.map_or(0, |beside| beside.more);
        let is_firing = truncated_alerts > 0 || alerts.iter().any(|alert| alert.status == FIRING);
        Group {
            receiver: last.receiver.as_str(),
            status: if is_firing { FIRING } else { RESOLVED },
            common_labels: common(alerts.iter().map(|alert| &alert.labels)),
            common_annotations: common(alerts.iter().map(|alert| &alert.annotations)),
            alerts,
            group_key: group_key(&group_labels),
            group_labels,
            external_url: self.external_url,
            version: "4",
            truncated_alerts,
        }
    }

    fn draft(&self, notification: &Notification) -> Draft {
        let mut draft = match &notification.what {
            What::Alarm { how, change, alarm, suppressed } => self.alarm(*how, change.as_deref(), alarm, *suppressed),
            What::Log { change } => self.log(change),
            What::Digest(digest) => self.digest(digest),
            What::Gap(gap) => gap_draft(gap),
            What::Heartbeat { last } => heartbeat_draft(*last),
        };
        draft.note("klaxon_epoch", notification.epoch);
        if !matches!(notification.what, What::Heartbeat { .. }) {
            draft.note("klaxon_delivery_seq", notification.delivery_seq);
        }
        if notification.resent {
            draft.note("klaxon_resent", true);
        }
        draft
    }

    /// An alarm of which nothing new is told.
    fn standing(&self, alarm: &Alarm) -> Draft {
        let mut draft = self.alarm(How::Changed, None, alarm, false);
        draft.note("klaxon_how", "standing");
        draft
    }

    fn finish(&self, draft: Draft) -> Alert {
        let Draft { names, mut labels, annotations, starts_at, ends_at, is_firing, path } = draft;
        let fingerprint = fingerprint(&names);
        labels.extend(names);
        let time = |at: Option<Timestamp>| at.map_or_else(|| NEVER.to_owned(), |at| at.to_string());
        Alert {
            status: if is_firing { FIRING } else { RESOLVED },
            labels,
            annotations,
            starts_at: time(starts_at),
            ends_at: time(ends_at),
            generator_url: if self.external_url.is_empty() { String::new() } else { format!("{}{path}", self.external_url) },
            fingerprint,
        }
    }

    fn alarm(&self, how: How, change: Option<&Change>, alarm: &Alarm, suppressed: bool) -> Draft {
        let at = |otherwise: Timestamp| change.map_or(otherwise, |change| change.at);
        let ends_at = match (how.stands(), &alarm.cleared) {
            (true, _) => None,
            (false, Some(cleared)) => Some(cleared.at),
            (false, None) => Some(at(alarm.changed_at)),
        };
        let mut draft = self.about(&alarm.key, Some(alarm.severity), &alarm.text, &alarm.details);
        draft.starts_at = Some(alarm.raised_at);
        draft.ends_at = ends_at;
        draft.is_firing = how.stands();
        draft.path = format!("/#alarm={}", alarm.id);
        draft.note("klaxon_alarm_id", alarm.id);
        draft.note("klaxon_how", how.as_str());
        draft.note("klaxon_raise_seq", alarm.raise_seq);
        if let Some(producer) = &alarm.producer {
            draft.note("producer", producer);
        }
        if let Some(mark) = &alarm.acknowledged {
            draft.note("acknowledged_by", &mark.by);
        }
        if let Some(assignment) = &alarm.assigned {
            draft.note("assigned_to", &assignment.to);
        }
        if let Some(shelved) = &alarm.shelved {
            draft.note("shelved_until", shelved.until);
            draft.note("shelved_reason", &shelved.reason);
        }
        if suppressed {
            draft.note("suppressed", true);
        }
        if alarm.stale.is_some() {
            draft.note("stale", true);
        }
        draft
    }

    fn log(&self, change: &Change) -> Draft {
        let Subject::Event { event, .. } = &change.subject else {
            return Draft::named("klaxon.log", "Something that is no event was logged.");
        };
        let event: &Event = event;
        let severity = klaxon_schemas::wire::v1::Event::from(event).severity.and_then(PerceivedSeverity::severity);
        let mut draft = self.about(&event.key, severity, &event.text, &event.details);
        draft.starts_at = Some(event.event_time.unwrap_or(change.at).min(change.at));
        draft.ends_at = Some(change.at);
        draft.note("klaxon_how", "logged");
        draft
    }

    fn digest(&self, digest: &Digest) -> Draft {
        let Digest { changes, logged, came_and_went, .. } = digest;
        let mut draft = Draft::named(
            "klaxon.digest",
            &format!(
                "{changes} changes came while this receiver was not reached; {came_and_went} alarms came and went unseen."
            ),
        );
        draft.starts_at = digest.first_at;
        draft.ends_at = digest.last_at;
        draft.note("changes", changes);
        draft.note("logged", logged);
        draft.note("came_and_went", came_and_went);
        for count in &digest.by_severity {
            draft.note(&format!("came_and_went_{}", count.severity.as_str()), count.count);
        }
        let named: Vec<String> = digest
            .named
            .iter()
            .map(|alarm| {
                let title = self.catalogue.get(&alarm.alarm_type).map_or(alarm.alarm_type.as_str(), |entry| &entry.title);
                format!("{} {}: {title}", alarm.severity.as_str(), alarm.resource)
            })
            .collect();
        if !named.is_empty() {
            draft.note("description", named.join("\n"));
        }
        draft
    }

    /// What an alarm and a log event have in common.
    fn about(&self, key: &AlarmKey, severity: Option<Severity>, text: &str, details: &Details) -> Draft {
        let entry = self.catalogue.get(&key.alarm_type);
        let Named { names, more } = Named::of(key, severity, details, Some(self.catalogue));
        let mut draft = Draft::named(&key.alarm_type, title(key, entry));
        // What names it here comes first; the labels with which it came are there for those who route by them.
        draft.labels = details.labels.set().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        draft.labels.extend(more);
        draft.names = names;
        annotate(&mut draft.annotations, text, &Known { details, entry, severity });
        draft
    }
}

impl Draft {
    fn named(name: &str, summary: &str) -> Self {
        let mut draft = Self {
            names: Words::from([("alertname".to_owned(), name.to_owned())]),
            labels: Words::new(),
            annotations: Words::new(),
            starts_at: None,
            ends_at: None,
            is_firing: false,
            path: "/".to_owned(),
        };
        draft.note("summary", summary);
        draft
    }

    fn note(&mut self, name: &str, value: impl std::fmt::Display) {
        self.annotations.insert(name.to_owned(), value.to_string());
    }
}

/// What an alarm is called.
fn title<'a>(key: &'a AlarmKey, entry: Option<&'a TypeEntry>) -> &'a str {
    entry.map_or(key.alarm_type.as_str(), |entry| &entry.title)
}

/// What an alarm says, as annotations.
pub(crate) fn annotations_of(alarm: &Alarm, entry: Option<&TypeEntry>) -> Words {
    let mut annotations = Words::from([("summary".to_owned(), title(&alarm.key, entry).to_owned())]);
    annotate(&mut annotations, &alarm.text, &Known { details: &alarm.details, entry, severity: Some(alarm.severity) });
    annotations
}

fn annotate(annotations: &mut Words, text: &str, known: &Known<'_>) {
    let mut note = |name: &str, value: &dyn std::fmt::Display| annotations.insert(name.to_owned(), value.to_string());
    for (name, value) in known.details.attributes.iter() {
        note(&format!("attribute_{}", label_name(name)), value);
    }
    if !text.is_empty() {
        note("description", &text);
    }
    if let Some(cause) = known.probable_cause() {
        note("probable_cause", cause);
    }
    if let Some(action) = known.repair_action() {
        note("repair_action", action);
    }
    if let Some(runbook) = known.entry.and_then(|entry| entry.runbook.as_ref()) {
        note("runbook_url", runbook);
    }
    if let Some(affecting) = known.service_affecting() {
        note("service_affecting", &affecting);
    }
}

fn gap_draft(gap: &Gap) -> Draft {
    let mut draft = Draft::named("klaxon.gap", "Changes are not told one by one; how the alarms stand follows.");
    draft.note("reason", word(&gap.reason));
    draft.note("from", gap.from);
    draft.note("to", gap.to);
    if let Some(changes) = gap.changes {
        draft.note("changes", changes);
    }
    draft
}

fn heartbeat_draft(last: u64) -> Draft {
    let mut draft = Draft::named("klaxon.heartbeat", "The node is there, and this receiver can be reached.");
    draft.labels.insert("severity".to_owned(), "none".to_owned());
    draft.is_firing = true;
    draft.note("klaxon_last_delivery_seq", last);
    draft
}

/// What is the same in all.
fn common<'a>(mut all: impl Iterator<Item = &'a Words>) -> Words {
    let mut common = all.next().cloned().unwrap_or_default();
    all.for_each(|words| common.retain(|name, value| words.get(name) == Some(value)));
    common
}

/// What an alarm or a report is about.
fn key_of(what: &What) -> Option<&AlarmKey> {
    match what {
        What::Alarm { alarm, .. } => Some(&alarm.key),
        What::Log { change } => match &change.subject {
            Subject::Event { event, .. } => Some(&event.key),
            _ => None,
        },
        What::Digest(_) | What::Gap(_) | What::Heartbeat { .. } => None,
    }
}

/// What a label is called here.
fn label_of(label: &GroupLabel) -> String {
    match label {
        GroupLabel::AlarmType => "alertname".to_owned(),
        GroupLabel::Element(name) => label_name(name),
        other => other.to_string(),
    }
}

fn group_key(names: &Words) -> String {
    let mut key = String::from("{}:{");
    for (number, (name, value)) in names.iter().enumerate() {
        if number > 0 {
            key.push_str(", ");
        }
        key.push_str(name);
        key.push_str("=\"");
        for character in value.chars() {
            match character {
                '"' | '\\' => key.extend(['\\', character]),
                other => key.push(other),
            }
        }
        key.push('"');
    }
    key.push('}');
    key
}

fn fingerprint(names: &Words) -> String {
    let mut hash = Sha256::new();
    for (name, value) in names {
        // Neither has control characters.
        hash.update(name);
        hash.update([0]);
        hash.update(value);
        hash.update([0]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
