//! Events come in: one, a JSON array of them, or one a line. Each is judged by itself; what was answered is durable.

use std::fmt;

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::event::{COLLECTOR_PREFIX, Event};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::Site;
use klaxon_schemas::wire::v1::{self, InputError, parse_event};
use klaxon_store::door::{RejectReason, Tally};
use klaxon_store::publish::{Answer, Item, PublishError};
use serde::Serialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Form, WholeBody, count_unreadable, unsupported};
use super::guard::Caller;
use super::openapi::{Always, Intake};
use super::params::{FromParams, Params, Query};
use super::problem::{Kind, Problem};
use super::shown::json_sized;

/// About how long one result is when it is written.
const RESULT_BYTES: usize = 128;

/// How much is told.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsParams {
    /// `all` events, or only those that are `notable`: duplicates, rejected ones, and those with fields that were not
    /// understood. `all` for one event, `notable` for several, unless said otherwise.
    #[param(inline)]
    results: Option<Told>,
}

/// Of which events it is told what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Told {
    /// Of all.
    All,
    /// Of those that are not plainly accepted.
    Notable,
}

impl FromParams for EventsParams {
    fn take(params: &mut Params) -> Self {
        Self { results: params.word("results", &[("all", Told::All), ("notable", Told::Notable)]) }
    }
}

/// One event, or several.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it stands in the API's description only; bodies are read piece by piece")]
pub(crate) enum Events {
    /// One.
    One(Box<v1::Event>),
    /// Several.
    Several(Vec<v1::Event>),
}

/// What became of the events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventsAnswer {
    /// How many are durable now.
    accepted: u64,
    /// How many had come before.
    duplicate: u64,
    /// How many cannot be used.
    rejected: u64,
    /// Up to where the journal is durable; what a list shows that has `at_least` this position.
    position: Position,
    /// What became of each event that is told of.
    results: Vec<EventResult>,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct EventResult {
    /// Which: its place in the request, from 0.
    index: usize,
    #[serde(flatten)]
    outcome: Outcome,
}

/// What can become of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It is durable.
    Accepted {
        /// Where it stands in the journal.
        position: Position,
        /// The alarm that changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        alarm: Option<AlarmId>,
        /// What happened; absent if nothing did, as when an alarm is reported again.
        #[serde(skip_serializing_if = "Option::is_none")]
        change: Option<ChangeKind>,
        /// Fields that were not understood.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schema(required = false)]
        ignored: Vec<String>,
    },
    /// It had come before.
    Duplicate,
    /// It cannot be used.
    Rejected {
        /// Which field is wrong, if it is one; `.` for the whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Why.
        reason: String,
    },
}

impl Outcome {
    fn is_notable(&self) -> bool {
        match self {
            Self::Accepted { ignored, .. } => !ignored.is_empty(),
            Self::Duplicate | Self::Rejected { .. } => true,
        }
    }
}

/// Report events.
///
/// Each event is judged by itself. What is `accepted` is durable before this answers, and has taken effect.
#[utoipa::path(
    post,
    path = "/events",
    tag = "events",
    operation_id = "reportEvents",
    params(EventsParams),
    request_body(content((Events = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 200, description = "At least one event was good", body = EventsAnswer), Always, Intake)
)]
pub(crate) async fn post(
    State(api): State<Api>,
    caller: Caller,
    Query(params): Query<EventsParams>,
    body: Result<WholeBody, Problem>,
) -> Result<Response, Problem> {
    let read =
        body.map_err(Unread::from).and_then(|body| read(&body, api.config().batch_events_max, api.site(), caller.scope()));
    let (items, sent) = match read {
        Ok(read) => read,
        Err(Unread::Body(problem)) => {
            count_unreadable(&api, &problem);
            return Err(problem);
        }
        Err(Unread::TooMany { events, events_max }) => {
            let mut tally = Tally::default();
            tally.reject(RejectReason::TooLarge, events);
            api.door().counts().settle(&tally);
            let detail = format!("the body has {events} events, at most {events_max} are taken at once");
            return Err(Problem::new(Kind::TooLarge, detail));
        }
    };
    let mut tally = Tally::default();
    tally.reject(RejectReason::Invalid, (sent.len() - items.len()) as u64);
    if items.is_empty() {
        api.door().counts().settle(&tally);
        return Err(nothing_accepted(sent.into_iter().filter_map(Result::err).map(rejected)));
    }
    let published = api.door().publish(items, tally).await.map_err(|error| refused(&error))?;
    let told = params.results.unwrap_or(if sent.len() == 1 { Told::All } else { Told::Notable });
    let mut answers = published.answers.into_iter();
    let mut answer =
        EventsAnswer { accepted: 0, duplicate: 0, rejected: 0, position: published.durable.position(), results: Vec::new() };
    for (index, sent) in sent.into_iter().enumerate() {
        let outcome = match sent {
            Err(error) => rejected(error),
            Ok(ignored) => match answers.next() {
                Some(judged) => outcome(judged, ignored),
                None => return Err(Problem::new(Kind::Internal, "the journal answered for too few events")),
            },
        };
        match &outcome {
            Outcome::Accepted { .. } => answer.accepted += 1,
            Outcome::Duplicate => answer.duplicate += 1,
            Outcome::Rejected { .. } => answer.rejected += 1,
        }
        if told == Told::All || outcome.is_notable() {
            answer.results.push(EventResult { index, outcome });
        }
    }
    if answer.accepted + answer.duplicate == 0 {
        return Err(nothing_accepted(answer.results.into_iter().map(|result| result.outcome)));
    }
    json_sized(&answer, 256 + answer.results.len() * RESULT_BYTES)
}

/// Why nothing was taken, as a problem.
pub(crate) fn refused(error: &PublishError) -> Problem {
    let kind = match error {
        PublishError::Busy | PublishError::Away { .. } => Kind::Busy,
        PublishError::TooMany { .. } => Kind::TooLarge,
        PublishError::DiskFull { .. } | PublishError::Unread { .. } => Kind::DiskFull,
        PublishError::Stopping => Kind::Stopping,
    };
    Problem::new(kind, error.to_string())
}

fn nothing_accepted(outcomes: impl Iterator<Item = Outcome>) -> Problem {
    let results: Vec<EventResult> = outcomes.enumerate().map(|(index, outcome)| EventResult { index, outcome }).collect();
    let detail = match results.first() {
        Some(EventResult { outcome: Outcome::Rejected { field: Some(field), reason }, .. }) => format!("{field}: {reason}"),
        Some(EventResult { outcome: Outcome::Rejected { field: None, reason }, .. }) => reason.clone(),
        Some(_) | None => "none of the events was accepted".to_owned(),
    };
    let detail = if results.len() > 1 { format!("event 0: {detail}") } else { detail };
    Problem::new(Kind::NothingAccepted, detail).with_results(results)
}

fn rejected(error: InputError) -> Outcome {
    Outcome::Rejected { field: Some(error.field), reason: error.reason }
}

fn outcome(answer: Answer, ignored: Vec<String>) -> Outcome {
    match answer {
        Answer::Accepted { position, changes } => {
            let change = changes.first();
            Outcome::Accepted {
                position,
                alarm: change.and_then(|change| alarm_of(change)),
                change: change.map(|change| change.kind),
                ignored,
            }
        }
        Answer::Duplicate => Outcome::Duplicate,
        Answer::Rejected(rejection) => Outcome::Rejected { field: None, reason: rejection.to_string() },
    }
}

fn alarm_of(change: &Change) -> Option<AlarmId> {
    match &change.subject {
        Subject::Alarm { alarm, .. } => Some(alarm.id),
        _ => None,
    }
}

/// Why the events of a body cannot be told apart.
#[derive(Debug)]
enum Unread {
    Body(Problem),
    TooMany { events: u64, events_max: usize },
}

impl From<Problem> for Unread {
    fn from(problem: Problem) -> Self {
        Self::Body(problem)
    }
}

/// The good events, and for each that was sent what was not understood in it, or why it is not good.
type Read = (Vec<Item>, Vec<Result<Vec<String>, InputError>>);

fn read(body: &WholeBody, events_max: usize, site: &Site, scope: &Scope) -> Result<Read, Unread> {
    let Some(form) = body.form else {
        return Err(unsupported("application/json or application/x-ndjson").into());
    };
    let texts = match form {
        Form::Json => split_json(body.text()?, events_max)?,
        Form::Ndjson => split_lines(body.text()?, events_max)?,
    };
    let mut items = Vec::with_capacity(texts.len());
    let mut sent = Vec::with_capacity(texts.len());
    for text in texts {
        let event = parse_event(text).and_then(|(event, ignored)| event.into_event(site).map(|event| (event, ignored)));
        let event = event.and_then(|(event, ignored)| is_others(&event).map(|()| (event, ignored)));
        let event = event.and_then(|(event, ignored)| is_within(scope, &event).map(|()| (event, ignored)));
        sent.push(event.map(|(event, ignored)| {
            items.push(Item::Event(Arc::new(event)));
            ignored
        }));
    }
    Ok((items, sent))
}

/// Refuses what pretends to come from a collector of the node: by that name the node knows what to clear.
fn is_others(event: &Event) -> Result<(), InputError> {
    match &event.origin.producer {
        Some(producer) if producer.starts_with(COLLECTOR_PREFIX) => {
            Err(InputError::new("producer", format!("{COLLECTOR_PREFIX} is kept for the collectors of the node")))
        }
        _ => Ok(()),
    }
}

/// Refuses what concerns a site that is out of reach.
fn is_within(scope: &Scope, event: &Event) -> Result<(), InputError> {
    if scope.includes(&event.key.site) {
        return Ok(());
    }
    Err(InputError::new("site", format!("is {}, to which your rights do not extend", event.key.site)))
}

fn split_lines(text: &str, events_max: usize) -> Result<Vec<&str>, Unread> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines().count() {
        0 => Err(no_event()),
        events if events > events_max => Err(Unread::TooMany { events: events as u64, events_max }),
        _ => Ok(lines().collect()),
    }
}

fn split_json(text: &str, events_max: usize) -> Result<Vec<&str>, Unread> {
    let malformed = |error: serde_json::Error| Problem::new(Kind::MalformedBody, format!("the body is no JSON: {error}"));
    if !text.trim_start().starts_with('[') {
        let one: &RawValue = serde_json::from_str(text).map_err(malformed)?;
        return Ok(vec![one.get()]);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let elements = deserializer.deserialize_seq(Elements { events_max }).map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    match elements {
        Split { surplus: 0, texts } if texts.is_empty() => Err(no_event()),
        Split { surplus: 0, texts } => Ok(texts),
        Split { surplus, texts } => Err(Unread::TooMany { events: surplus + texts.len() as u64, events_max }),
    }
}

/// The elements of an array of at most `most`, as they are written.
pub(crate) fn split_elements(text: &str, most: usize) -> Result<Vec<&str>, Problem> {
    let malformed = |error: serde_json::Error| Problem::new(Kind::MalformedBody, format!("the body is no JSON array: {error}"));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let split = deserializer.deserialize_seq(Elements { events_max: most }).map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    match split.surplus {
        0 => Ok(split.texts),
        surplus => {
            let count = surplus + split.texts.len() as u64;
            Err(Problem::new(Kind::TooLarge, format!("the body has {count} elements, at most {most} are taken at once")))
        }
    }
}

fn no_event() -> Unread {
    Problem::new(Kind::MalformedBody, "the body holds no event").into()
}

/// The elements of an array, as they are written.
struct Split<'a> {
    texts: Vec<&'a str>,
    /// How many more there were than are taken.
    surplus: u64,
}

struct Elements {
    events_max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Split<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Split<'de>, A::Error> {
        let mut split = Split { texts: Vec::new(), surplus: 0 };
        while split.texts.len() < self.events_max {
            match seq.next_element::<&RawValue>()? {
                Some(element) => split.texts.push(element.get()),
                None => return Ok(split),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            split.surplus += 1;
        }
        Ok(split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Option<Vec<&str>> {
        split_json(text, 3).ok()
    }

    #[test]
    fn a_body_is_split_into_events_as_they_are_written() {
        assert_eq!(json(r#" {"a": 1} "#), Some(vec![r#"{"a": 1}"#]));
        assert_eq!(json(r#"[{"a":[1,2]},3, "x" ]"#), Some(vec![r#"{"a":[1,2]}"#, "3", r#""x""#]));
        assert_eq!(json("7"), Some(vec!["7"]));
        for malformed in ["", " ", "[", "[1", "[1,]", "[1]x", "{}{}", "{", "nul", "[]", "\u{feff}{}", "[1,2,3,4", "\0"] {
            assert!(matches!(split_json(malformed, 3), Err(Unread::Body(_))), "{malformed:?}");
        }
        assert!(matches!(split_json("[1,2,3,4,5]", 3), Err(Unread::TooMany { events: 5, events_max: 3 })));
    }

    #[test]
    fn lines_may_be_blank_and_end_as_they_like() {
        assert_eq!(split_lines("{}\r\n\n {} \n", 3).ok(), Some(vec!["{}", "{}"]));
        assert!(matches!(split_lines("\n\n", 3), Err(Unread::Body(_))));
        assert!(matches!(split_lines("1\n2\n3\n4", 3), Err(Unread::TooMany { events: 4, .. })));
    }

    #[test]
    fn results_have_the_form_that_was_promised() {
        let result = |outcome| serde_json::to_string(&EventResult { index: 1, outcome }).expect("serializes");
        assert_eq!(result(Outcome::Duplicate), r#"{"index":1,"status":"duplicate"}"#);
        let accepted =
            Outcome::Accepted { position: Position(7), alarm: None, change: Some(ChangeKind::Raised), ignored: vec![] };
        assert!(!accepted.is_notable());
        assert_eq!(result(accepted), r#"{"index":1,"status":"accepted","position":7,"change":"raised"}"#);
        let rejected = rejected(InputError::new("severity", "is missing"));
        assert_eq!(result(rejected), r#"{"index":1,"status":"rejected","field":"severity","reason":"is missing"}"#);
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(json(&deep).map(|texts| texts.len()), Some(1));
        let object = format!(
            r#"{{"resource":"a","alarm_type":"x","severity":"major","x":{}1{}}}"#,
            "[".repeat(50_000),
            "]".repeat(50_000)
        );
        assert_eq!(parse_event(&object).expect("unknown fields are passed over").1, ["x"]);
    }
}
