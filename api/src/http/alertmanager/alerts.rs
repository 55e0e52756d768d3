//! Alerts out: all alarms that are not cleared, wherever they came from, by the fingerprint of their labels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::labels::{self, LabelSet, Labels};
use klaxon_schemas::names::AlarmType;
use klaxon_schemas::time::{JournalTime, Timestamp};
use klaxon_store::StateRead;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};

use super::super::Api;
use super::super::guard::Caller;
use super::super::problem::{Kind, Problem};
use super::super::shown::{blocking, json_sized, json_written};
use super::RECEIVER;
use super::filter::{AlertFilter, Asked};
use super::intake::{GENERATOR, OWN_PREFIX, PIECES_MAX};
use super::time::Written;
use crate::clock;
use crate::notify::webhook::annotations_of;

/// The most that one answer may be made of.
const PICKED_MAX: usize = 100_000;
/// How many alarms are looked at while the state stands still.
const STEP: usize = 1000;
/// About how long one alert is when it is written.
const ALERT_BYTES: usize = 800;

/// Lists alerts.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Asked(filter): Asked<AlertFilter>,
) -> Result<Response, Problem> {
    blocking(move || {
        let (view, found) = find(&api, caller.scope(), &filter)?;
        let mut body = Vec::with_capacity(64 + found.len() * ALERT_BYTES);
        body.push(b'[');
        // One by one: all of them beside their text would be twice the memory.
        for (number, found) in found.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            serde_json::to_writer(&mut body, &view.alert(found)).map_err(|error| Problem::internal(&error))?;
        }
        body.push(b']');
        Ok(json_written(body))
    })
    .await
}

/// Lists alerts in groups.
pub(super) async fn groups(
    State(api): State<Api>,
    caller: Caller,
    Asked(filter): Asked<AlertFilter>,
) -> Result<Response, Problem> {
    blocking(move || {
        let (view, found) = find(&api, caller.scope(), &filter)?;
        let group_by = &api.config().alertmanager.group_by;
        let mut groups: BTreeMap<BTreeMap<&str, String>, Vec<Alert<'_>>> = BTreeMap::new();
        for found in &found {
            let labels = view.labels(&found.alarm);
            let of_group = group_by.iter().map(|name| (name.as_str(), labels.get(name).to_owned()));
            let of_group = of_group.filter(|(_, value)| !value.is_empty()).collect();
            groups.entry(of_group).or_default().push(view.alert(found));
        }
        let shown: Vec<_> = groups
            .into_iter()
            .map(|(labels, alerts)| Group { alerts, labels, receiver: Receiver { name: RECEIVER } })
            .collect();
        json_sized(&shown, 64 + found.len() * ALERT_BYTES)
    })
    .await
}

/// Alerts that have labels in common.
#[derive(Serialize)]
struct Group<'a> {
    alerts: Vec<Alert<'a>>,
    labels: BTreeMap<&'a str, String>,
    receiver: Receiver,
}

#[derive(Serialize)]
struct Receiver {
    name: &'static str,
}

/// An alert as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    #[serde(serialize_with = "words")]
    annotations: Words<'a>,
    ends_at: Written,
    fingerprint: Fingerprint,
    receivers: [Receiver; 1],
    starts_at: Written,
    status: Status,
    updated_at: Written,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator_url: Option<Cow<'a, str>>,
    labels: ShownLabels<'a>,
}

/// Sixteen digits, which need no room of their own.
struct Fingerprint(u64);

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut digits = [b'0'; 16];
        write!(&mut digits[..], "{:016x}", self.0).map_err(S::Error::custom)?;
        serializer.serialize_str(str::from_utf8(&digits).map_err(S::Error::custom)?)
    }
}

/// Names and what they say.
type Words<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

fn words<S: Serializer>(words: &Words<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(words.iter().map(|(name, text)| (name, text)))
}

/// How an alert stands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    inhibited_by: [String; 0],
    muted_by: Vec<&'static str>,
    silenced_by: Vec<String>,
    state: &'static str,
}

/// What came is written as it came.
enum ShownLabels<'a> {
    Kept(&'a Labels),
    Made(LabelSet<'a>),
}

impl Serialize for ShownLabels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kept(labels) => labels.serialize(serializer),
            Self::Made(labels) => serializer.collect_map(labels.iter()),
        }
    }
}

/// An alarm that was found, with the fingerprint of its labels.
struct Found {
    fingerprint: u64,
    alarm: Arc<Alarm>,
}

/// What is needed beside alarms to show them as alerts, taken from one state.
pub(super) struct View {
    catalogue: Option<Arc<Catalogue>>,
    suppressed: Vec<AlarmType>,
    /// One moment by both clocks.
    at: JournalTime,
    wall: Timestamp,
    /// When what declares no end is said to end.
    assumed_end: Timestamp,
}

impl View {
    pub(super) fn of(state: &StateRead<'_>, resolve_timeout: std::time::Duration) -> Self {
        let cursor = state.state().cursor();
        let timeout = i64::try_from(resolve_timeout.as_micros()).unwrap_or(i64::MAX);
        Self {
            catalogue: state.catalogue(),
            suppressed: state.suppressions().map(|(alarm_type, _)| alarm_type.clone()).collect(),
            at: cursor.at,
            wall: cursor.wall,
            assumed_end: clock::now().saturating_add_micros(timeout),
        }
    }

    /// The labels of an alarm.
    pub(super) fn labels<'a>(&self, alarm: &'a Alarm) -> LabelSet<'a> {
        labels::of_alarm(alarm, self.catalogue.as_deref())
    }

    fn is_suppressed(&self, alarm: &Alarm) -> bool {
        self.suppressed.binary_search(&alarm.key.alarm_type).is_ok()
    }

    fn picks(&self, filter: &AlertFilter, alarm: &Alarm) -> bool {
        let (shelved, suppressed) = (alarm.shelved.is_some(), self.is_suppressed(alarm));
        // What is suppressed is hidden for reasons that Alertmanager knows two words for.
        (filter.active || shelved || suppressed)
            && (filter.silenced || !shelved)
            && ((filter.inhibited && filter.muted) || !suppressed)
    }

    /// The fingerprint of an alarm's labels, if they are picked. Those that are kept are looked into only if something is asked of them.
    fn picked(&self, filter: &AlertFilter, alarm: &Alarm) -> Option<u64> {
        let kept = &alarm.details.labels;
        if !kept.is_empty() && filter.labels.is_empty() {
            return Some(kept.fingerprint());
        }
        let labels = self.labels(alarm);
        filter.labels.picks_at(&labels, &alarm.key.site).then(|| labels.fingerprint())
    }

    fn alert<'a>(&self, found: &'a Found) -> Alert<'a> {
        let alarm = &*found.alarm;
        let is_kept = !alarm.details.labels.is_empty();
        let (annotations, generator_url) = if is_kept {
            kept(alarm)
        } else {
            let entry = self.catalogue.as_deref().and_then(|catalogue| catalogue.get(&alarm.key.alarm_type));
            let made = annotations_of(alarm, entry).into_iter();
            (made.map(|(name, value)| (Cow::Owned(name), Cow::Owned(value))).collect(), None)
        };
        let (shelved, suppressed) = (alarm.shelved.as_ref(), self.is_suppressed(alarm));
        let silence = shelved.map(|shelved| shelved.shelf.map_or_else(|| alarm.id.to_string(), |shelf| shelf.to_string()));
        Alert {
            annotations,
            ends_at: Written(self.end(alarm)),
            fingerprint: Fingerprint(found.fingerprint),
            receivers: [Receiver { name: RECEIVER }],
            starts_at: Written(alarm.event_time.filter(|_| is_kept).unwrap_or(alarm.raised_at)),
            status: Status {
                inhibited_by: [],
                muted_by: if suppressed { vec!["suppressed"] } else { Vec::new() },
                silenced_by: silence.into_iter().collect(),
                state: if shelved.is_some() || suppressed { "suppressed" } else { "active" },
            },
            updated_at: Written(alarm.last_reported_at.max(alarm.changed_at)),
            generator_url,
            labels: if is_kept { ShownLabels::Kept(&alarm.details.labels) } else { ShownLabels::Made(self.labels(alarm)) },
        }
    }

    /// When an alarm ends, as far as is known. Another node's deadlines are in its own time.
    fn end(&self, alarm: &Alarm) -> Timestamp {
        let Some(end) = alarm.engine.end.filter(|_| !alarm.is_mirrored()) else { return self.assumed_end };
        let micros = |time: std::time::Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        self.wall.saturating_add_micros(micros(end.at.since(self.at)) - micros(self.at.since(end.at)))
    }
}

/// All that are asked for, sorted by fingerprint, and what shows them.
fn find(api: &Api, scope: &Scope, filter: &AlertFilter) -> Result<(View, Vec<Found>), Problem> {
    let view = View::of(&api.store().read(), api.config().alertmanager.resolve_timeout);
    if !filter.receiver {
        return Ok((view, Vec::new()));
    }
    let mut found = gather(api, |alarm| {
        let may_be = alarm.is_active() && scope.includes(&alarm.key.site) && view.picks(filter, &alarm);
        let fingerprint = may_be.then(|| view.picked(filter, &alarm)).flatten()?;
        Some(Found { fingerprint, alarm })
    })?;
    found.sort_by_key(|found| (found.fingerprint, found.alarm.id));
    Ok((view, found))
}

/// What `pick` makes of the alarms. The state stands still for a step at a time only.
pub(super) fn gather<T>(api: &Api, pick: impl Fn(Arc<Alarm>) -> Option<T>) -> Result<Vec<T>, Problem> {
    let (mut picked, mut after) = (Vec::new(), None);
    loop {
        let step = api.store().read().state().alarms_behind(after, STEP);
        let Some(last) = step.last() else { return Ok(picked) };
        after = Some(last.id);
        picked.extend(step.into_iter().filter_map(&pick));
        if picked.len() > PICKED_MAX {
            return Err(Problem::new(
                Kind::TooLarge,
                format!("there are more than {PICKED_MAX} of them; narrow them by filter"),
            ));
        }
    }
}

/// The annotations with which an alert came, and where it was made. A long one is put together again: its pieces come behind it, because
/// attributes are sorted by name.
fn kept(alarm: &Alarm) -> (Words<'_>, Option<Cow<'_, str>>) {
    let mut annotations: Words<'_> = Vec::with_capacity(4);
    let mut generator: Option<Cow<'_, str>> = None;
    for (name, value) in alarm.details.attributes.iter() {
        match piece_of(name) {
            Some(GENERATOR) => generator.iter_mut().for_each(|url| url.to_mut().push_str(value)),
            base => match annotations.iter_mut().rfind(|(name, _)| Some(&**name) == base) {
                Some((_, whole)) => whole.to_mut().push_str(value),
                None if name.as_str() == GENERATOR => generator = Some(Cow::Borrowed(value)),
                None if name.starts_with(OWN_PREFIX) => {}
                None => annotations.push((Cow::Borrowed(name), Cow::Borrowed(value))),
            },
        }
    }
    (annotations, generator)
}

/// The name of what an attribute continues, if it may do that.
fn piece_of(name: &str) -> Option<&str> {
    let (base, number) = name.rsplit_once('/')?;
    number.parse().is_ok_and(|number| (2..=PIECES_MAX).contains(&number)).then_some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_number_continues_a_name() {
        assert_eq!(
            (piece_of("a/2"), piece_of("a/b/4"), piece_of("prometheus/generator_url/3")),
            (Some("a"), Some("a/b"), Some(GENERATOR))
        );
        for name in ["a", "a/", "a/1", "a/5", "a/x", "2", "a/2x"] {
            assert_eq!(piece_of(name), None, "{name}");
        }
    }
}
