//! Alerts in: each becomes an event. Good ones are taken even where others are bad, and nothing is answered before they are durable.
//!
//! | of the alert | becomes |
//! |---|---|
//! | `alertname` | alarm type |
//! | fingerprint of all labels | qualifier, so that two alerts that differ in any label are two alarms |
//! | `[alertmanager] resource_labels` | resource |
//! | `[alertmanager] site_label`, `severity_label` | site, severity |
//! | labels | labels, as they came |
//! | annotations | attributes; what is longer than one goes on in `NAME/2` and so on |
//! | `startsAt`, `endsAt` | event time, and the end by which the alarm clears |
//! | one that always fires (`[alertmanager] heartbeats`) | heartbeat: its silence is an alarm |

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use klaxon_schemas::access::Scope;
use klaxon_schemas::event::{ATTRIBUTES_MAX, AlarmKey, Attributes, Event, Report, SpanRule};
use klaxon_schemas::labels::{ALERT_NAME, LabelSet, Labels, label_name};
use klaxon_schemas::names::{AlarmType, AttributeName, AttributeValue, Name, Producer, Qualifier, Rule, Site, Text};
use klaxon_schemas::resource::{RESOURCE_BYTES_MAX, Resource};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_store::door::{RejectReason, Tally};
use klaxon_store::publish::{Answer, Item};
use serde::Deserialize;

use super::super::Api;
use super::super::body::{WholeBody, count_unreadable};
use super::super::events::{refused, split_elements};
use super::super::guard::Caller;
use super::super::problem::{Kind, Problem};
use super::AlertmanagerConfig;
use super::time::MaybeTime;
use crate::clock;

/// Who reports.
const PRODUCER: &str = "prometheus";
/// The type of the alarm that no heartbeat comes.
const SILENT: &str = "prometheus.silent";
/// The type of alerts without a name.
const NAMELESS: &str = "prometheus.alert";
/// What an alert is about that has none of the labels that say it.
const SOMEWHERE: &str = "prometheus";
/// What the names of attributes begin with that are no annotations.
pub(super) const OWN_PREFIX: &str = "prometheus/";
/// The attribute that says where the alert was made.
pub(super) const GENERATOR: &str = "prometheus/generator_url";
/// The attribute that names the annotations that are not as they came.
const CHANGED: &str = "prometheus/changed";
/// The most pieces in which a long annotation is kept.
pub(super) const PIECES_MAX: usize = 4;
/// The most bad alerts of which it is told why.
const REASONS_MAX: usize = 20;

/// An alert as it is sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    #[serde(borrow)]
    labels: LabelSet<'a>,
    #[serde(borrow, default)]
    annotations: Option<LabelSet<'a>>,
    #[serde(default)]
    starts_at: MaybeTime,
    #[serde(default)]
    ends_at: MaybeTime,
    #[serde(borrow, default, rename = "generatorURL")]
    generator_url: Option<Cow<'a, str>>,
}

/// Takes alerts. An empty answer says that all are durable.
pub(super) async fn post(State(api): State<Api>, caller: Caller, body: Result<WholeBody, Problem>) -> Result<(), Problem> {
    let read = body.and_then(|body| read(&api, &caller, &body)).inspect_err(|problem| count_unreadable(&api, problem));
    let (items, mut reasons) = read?;
    let mut tally = Tally::default();
    tally.reject(RejectReason::Invalid, reasons.count as u64);
    if items.is_empty() {
        api.door().counts().settle(&tally);
    } else {
        let published = api.door().publish(items, tally).await.map_err(|error| refused(&error))?;
        for answer in &published.answers {
            if let Answer::Rejected(rejection) = answer {
                reasons.add(rejection.to_string());
            }
        }
    }
    reasons.into_result()
}

/// Why alerts are bad.
#[derive(Debug, Default)]
struct Reasons {
    told: Vec<String>,
    count: usize,
}

impl Reasons {
    fn add(&mut self, reason: String) {
        self.count += 1;
        if self.told.len() < REASONS_MAX {
            self.told.push(reason);
        }
    }

    fn into_result(self) -> Result<(), Problem> {
        match self.count - self.told.len() {
            _ if self.count == 0 => Ok(()),
            0 => Err(Problem::new(Kind::InvalidParameter, self.told.join("; "))),
            more => Err(Problem::new(Kind::InvalidParameter, format!("{}; and {more} more", self.told.join("; ")))),
        }
    }
}

fn read(api: &Api, caller: &Caller, body: &WholeBody) -> Result<(Vec<Item>, Reasons), Problem> {
    let most = api.config().batch_events_max;
    let elements = split_elements(body.json()?, most)?;
    let mapping = Mapping { config: &api.config().alertmanager, site: api.site(), scope: caller.scope(), now: clock::now() };
    let mut items = Vec::with_capacity(elements.len());
    let mut reasons = Reasons::default();
    for (index, element) in elements.into_iter().enumerate() {
        match serde_json::from_str(element).map_err(|error| error.to_string()).and_then(|sent| mapping.event(&sent)) {
            Ok(event) => items.push(Item::Event(Arc::new(event))),
            Err(reason) => reasons.add(format!("alert {index}: {reason}")),
        }
    }
    Ok((items, reasons))
}

/// What an alert is read with.
struct Mapping<'a> {
    config: &'a AlertmanagerConfig,
    site: &'a Site,
    scope: &'a Scope,
    now: Timestamp,
}

impl Mapping<'_> {
    fn event(&self, sent: &Sent<'_>) -> Result<Event, String> {
        let labels = Labels::new(&sent.labels).map_err(|error| format!("labels {error}"))?;
        if labels.is_empty() {
            return Err("labels: at least one label with a value is needed".to_owned());
        }
        let set = &sent.labels;
        let (starts_at, ends_at, span) = self.span(sent)?;
        let name = set.get(ALERT_NAME);
        let site = self.site(set)?;
        let alarm_type =
            if name.is_empty() { NAMELESS.to_owned() } else { token::<klaxon_schemas::names::AlarmTypeRule>(name) };
        let key = AlarmKey {
            site,
            resource: self.resource(set),
            alarm_type: AlarmType::new(&alarm_type).map_err(|error| format!("alertname: {error}"))?,
            qualifier: Qualifier::new(&format!("{:016x}", set.fingerprint())).expect("is short"),
        };
        if self.config.heartbeats.iter().any(|heartbeat| heartbeat == name) {
            return Ok(self.heartbeat(key, name, &labels, ends_at));
        }
        let annotations = sent.annotations.as_ref();
        let is_over = ends_at <= self.now;
        let report = if is_over { Report::Clear } else { Report::Raise(self.severity(set)) };
        let mut event = Event::new(key, report, self.text(annotations)).of(producer());
        event.event_time = Some(if is_over { ends_at } else { starts_at });
        event.details.attributes = attributes(annotations, sent.generator_url.as_deref());
        event.details.labels = labels;
        if !is_over {
            event.ends_at = Some(ends_at);
            event.span = span;
        }
        Ok(event)
    }

    /// From when to when, as Alertmanager understands it: an alert that names only its end began there, too.
    fn span(&self, sent: &Sent<'_>) -> Result<(Timestamp, Timestamp, SpanRule), String> {
        let timeout = i64::try_from(self.config.resolve_timeout.as_micros()).unwrap_or(i64::MAX);
        let starts_at = sent.starts_at.0.or(sent.ends_at.0).unwrap_or(self.now);
        match sent.ends_at.0 {
            Some(ends_at) if ends_at < starts_at => Err("endsAt: is before startsAt".to_owned()),
            Some(ends_at) => Ok((starts_at, ends_at, SpanRule::Merges)),
            None => Ok((starts_at, self.now.saturating_add_micros(timeout), SpanRule::Assumed)),
        }
    }

    fn site(&self, labels: &LabelSet<'_>) -> Result<Site, String> {
        let named = labels.get(&self.config.site_label);
        let site = match named {
            "" => self.site.clone(),
            named => Site::new(&token::<klaxon_schemas::names::SiteRule>(named))
                .map_err(|error| format!("{}: {error}", self.config.site_label))?,
        };
        if self.scope.includes(&site) {
            return Ok(site);
        }
        Err(format!("{}: is {site}, to which your rights do not extend", self.config.site_label))
    }

    fn resource(&self, labels: &LabelSet<'_>) -> Resource {
        let mut path = String::new();
        for name in &self.config.resource_labels {
            let value = labels.get(name);
            if !value.is_empty() {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&label_name(name));
                path.push('=');
                path.extend(value.chars().map(|character| if character.is_control() { '?' } else { character }));
            }
        }
        path.truncate(cut(&path, RESOURCE_BYTES_MAX).len());
        Resource::new(&path).unwrap_or_else(|_| Resource::new(SOMEWHERE).expect("is one"))
    }

    fn severity(&self, labels: &LabelSet<'_>) -> Severity {
        let word = labels.get(&self.config.severity_label);
        let known = self.config.severities.get(word).or_else(|| self.config.severities.get(&word.to_ascii_lowercase()));
        known.copied().unwrap_or(self.config.severity_otherwise)
    }

    fn text(&self, annotations: Option<&LabelSet<'_>>) -> Text {
        let given = |name: &String| annotations.map(|set| set.get(name)).filter(|text| !text.is_empty());
        let text = self.config.text_annotations.iter().find_map(given).unwrap_or_default();
        Text::new(text).or_else(|_| Text::lossy(text)).expect("may be empty")
    }

    /// That it fires says that Prometheus is there. Its silence is an alarm of a type of its own: an alert that is called Watchdog and
    /// is there means the opposite to whoever knows Prometheus.
    fn heartbeat(&self, key: AlarmKey, name: &str, labels: &Labels, ends_at: Timestamp) -> Event {
        let key = AlarmKey { alarm_type: AlarmType::new(SILENT).expect("is one"), ..key };
        let text = Text::lossy(&format!("{name} {}", labels.json())).expect("may be empty");
        let report = match ends_at <= self.now {
            true => Report::Clear,
            false => Report::Heartbeat { every: self.config.heartbeat_within, severity: self.config.heartbeat_severity },
        };
        Event::new(key, report, text).of(producer())
    }
}

fn producer() -> Producer {
    Producer::new(PRODUCER).expect("is one")
}

/// A name of the kind `R` that is as much like `text` as can be.
fn token<R: Rule>(text: &str) -> String {
    let mut name: String = text.chars().map(|character| if R::allows(character) { character } else { '_' }).collect();
    name.truncate(cut(&name, R::BYTES_MAX).len());
    name
}

/// What of `text` fits into `bytes_max`.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Annotations as attributes, with where the alert was made.
fn attributes(annotations: Option<&LabelSet<'_>>, generator_url: Option<&str>) -> Attributes {
    let mut kept = Kept::default();
    if let Some(url) = generator_url {
        kept.put(GENERATOR, url);
    }
    let given = annotations.into_iter().flat_map(LabelSet::iter);
    for (name, value) in given.filter(|(name, value)| !value.is_empty() && !name.starts_with(OWN_PREFIX)) {
        kept.put(name, value);
    }
    kept.finish()
}

/// Attributes in the making.
#[derive(Default)]
struct Kept {
    attributes: BTreeMap<AttributeName, AttributeValue>,
    changed: Vec<String>,
}

impl Kept {
    /// Keeps `value`, in pieces if it is long; notes where that cannot be done as it is.
    fn put(&mut self, name: &str, value: &str) {
        let most = <klaxon_schemas::names::AttributeValueRule as Rule>::BYTES_MAX;
        let mut rest = value;
        let mut number = 1;
        let mut is_whole = true;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(cut(rest, most).len());
            let piece_name = if number == 1 { Cow::Borrowed(name) } else { Cow::Owned(format!("{name}/{number}")) };
            // One place is kept for the note of what was changed.
            let room = number <= PIECES_MAX && self.attributes.len() < ATTRIBUTES_MAX - 1;
            let (true, Ok(piece_name)) = (room, AttributeName::new(&piece_name)) else {
                is_whole = false;
                break;
            };
            let (piece, as_it_came) = exact_or_lossy(piece);
            is_whole &= as_it_came;
            self.attributes.insert(piece_name, piece);
            rest = behind;
            number += 1;
        }
        if !is_whole {
            self.changed.push(name.to_owned());
        }
    }

    fn finish(mut self) -> Attributes {
        if !self.changed.is_empty() {
            let words = format!("cut, or not kept: {}", self.changed.join(", "));
            self.attributes.insert(AttributeName::new(CHANGED).expect("is one"), exact_or_lossy(&words).0);
        }
        Attributes::new(self.attributes).expect("are counted")
    }
}

/// The text as a name of the kind `R` that may be empty, and whether it is as it came.
fn exact_or_lossy<R: Rule>(text: &str) -> (Name<R>, bool) {
    match Name::new(text) {
        Ok(name) => (name, true),
        Err(_) => (Name::lossy(text).expect("may be empty"), false),
    }
}
