//! Heartbeats: who has promised to be heard from. A short way to report one, so that a line in a crontab is enough, and what
//! promises there are. The same can be said by events of kind `heartbeat`; it goes the same way and is counted with them.

use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::response::Response;
use klaxon_schemas::change::{ChangeKind, Subject};
use klaxon_schemas::event::{AlarmKey, Event, Lease, Report};
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{AlarmType, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Cursor, Heartbeat, StateKey};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1;
use klaxon_store::StateRead;
use klaxon_store::publish::{Answer, Item};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{WholeBody, count_unreadable};
use super::events::refused;
use super::guard::Caller;
use super::openapi::{Always, Found, Intake};
use super::params::{FromParams, Params, Query};
use super::problem::{Kind, Problem, quoted};
use super::query::LIMIT_DEFAULT;
use super::shown::{json, json_sized};
use klaxon_store::door::Tally;

/// The type of the alarm that silence is, where no other is named.
const ALARM_TYPE: &str = "heartbeat.lost";
/// What stands in the resource before the name.
const RESOURCE_PREFIX: &str = "heartbeat=";
/// The most heartbeats on one page.
const LIMIT_MAX: usize = 10_000;
/// About how long one heartbeat is when it is written.
const HEARTBEAT_BYTES: usize = 400;
const WHETHER: [(&str, bool); 2] = [("true", true), ("false", false)];

/// What is promised; each by query or by body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(crate) struct HeartbeatRequest {
    /// Within which time the next one comes: `300`, `300s`, `5m`, `25h`. Needed, here or there.
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<SecondsOrText>)]
    pub(crate) every: Option<Lease>,
    /// The severity with which silence raises the alarm; `major` unless said otherwise.
    pub(crate) severity: Option<Severity>,
    /// What it is that reports, in words.
    pub(crate) text: Option<Text>,
    /// Its site; the node's unless said otherwise.
    pub(crate) site: Option<Site>,
}

/// A length of time.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it stands in the API's description only")]
pub(crate) enum SecondsOrText {
    /// In seconds.
    Seconds(u32),
    /// With its unit.
    Text(String),
}

impl FromParams for HeartbeatRequest {
    fn take(params: &mut Params) -> Self {
        Self {
            every: params.one("every"),
            severity: params.one("severity"),
            text: params.one("text"),
            site: params.one("site"),
        }
    }
}

/// Whose promise.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HeartbeatSite {
    /// Its site; the node's unless said otherwise.
    pub(crate) site: Option<Site>,
}

impl FromParams for HeartbeatSite {
    fn take(params: &mut Params) -> Self {
        Self { site: params.one("site") }
    }
}

/// Which promises; what is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HeartbeatList {
    /// At this site.
    pub(crate) site: Option<Site>,
    /// Lost or not.
    pub(crate) lost: Option<bool>,
    /// At most so many; 100 unless said otherwise.
    #[param(required = false, minimum = 1, maximum = 10000)]
    pub(crate) limit: usize,
    /// The `next` of the page before; with the same filters.
    #[param(value_type = Option<String>)]
    pub(crate) cursor: Option<HeartbeatCursor>,
    /// Wait, at most two seconds, until the state has come to this position.
    pub(crate) at_least: Option<Position>,
}

impl FromParams for HeartbeatList {
    fn take(params: &mut Params) -> Self {
        Self {
            site: params.one("site"),
            lost: params.word("lost", &WHETHER),
            limit: params.limit("limit", LIMIT_DEFAULT, LIMIT_MAX),
            cursor: params.one("cursor"),
            at_least: params.number("at_least").map(Position),
        }
    }
}

/// The last promise of a page. As text it is hexadecimal digits that mean nothing to anybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeartbeatCursor(AlarmKey);

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor of a list of heartbeats")]
pub(crate) struct HeartbeatCursorError;

impl std::fmt::Display for HeartbeatCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = v1::state_key_text(&StateKey::Heartbeat(self.0.clone()));
        text.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for HeartbeatCursor {
    type Err = HeartbeatCursorError;

    fn from_str(text: &str) -> Result<Self, HeartbeatCursorError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if text.len() % 2 == 1 {
            return Err(HeartbeatCursorError);
        }
        let bytes: Option<Vec<u8>> =
            text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?)).collect();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(HeartbeatCursorError)?;
        match v1::state_key(&text) {
            Ok(StateKey::Heartbeat(key)) => Ok(Self(key)),
            Ok(_) | Err(_) => Err(HeartbeatCursorError),
        }
    }
}

/// A promise to be heard from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct HeartbeatShown {
    /// The name by which a path means it; absent where only events do, because its resource, type or qualifier is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its site.
    site: Site,
    /// What the alarm is about that silence is.
    resource: Resource,
    /// The type of that alarm.
    alarm_type: AlarmType,
    /// Its qualifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    qualifier: Option<Qualifier>,
    /// Within which time the next one comes.
    every_s: Lease,
    /// The severity with which silence raises the alarm.
    severity: Severity,
    /// What it is that reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    /// Who reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<Producer>,
    /// When the last one arrived.
    last_heard_at: Timestamp,
    /// When silence will be too long; absent while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    /// Whether it has been silent for too long.
    lost: bool,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_at: Option<Timestamp>,
}

impl HeartbeatShown {
    fn of(key: &AlarmKey, heartbeat: &Heartbeat, now: &Cursor) -> Self {
        let due_at = heartbeat.due(now.started_at).map(|due| {
            let away = due.0.cast_signed().saturating_sub(now.at.0.cast_signed());
            now.wall.saturating_add_micros(away)
        });
        let named = *key.alarm_type == *ALARM_TYPE && key.qualifier.is_empty();
        Self {
            name: key.resource.as_str().strip_prefix(RESOURCE_PREFIX).filter(|_| named).map(str::to_owned),
            site: key.site.clone(),
            resource: key.resource.clone(),
            alarm_type: key.alarm_type.clone(),
            qualifier: Some(key.qualifier.clone()).filter(|qualifier| !qualifier.is_empty()),
            every_s: heartbeat.every_s,
            severity: heartbeat.severity,
            text: Some(heartbeat.text.clone()).filter(|text| !text.is_empty()),
            producer: heartbeat.producer.clone(),
            last_heard_at: heartbeat.last_heard_at,
            due_at,
            lost: heartbeat.lost_at.is_some(),
            lost_at: heartbeat.lost_at,
        }
    }
}

/// One page of promises.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeartbeatsAnswer {
    /// The state that this is of.
    position: Position,
    /// The numbering of changes.
    epoch: Epoch,
    /// The promises, by site, resource, type and qualifier.
    heartbeats: Vec<HeartbeatShown>,
    /// The cursor of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many promises there are, whatever was asked for.
    total: usize,
    /// How many of them are lost.
    lost: usize,
}

/// What became of a heartbeat, or of the end of a promise.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeartbeatAnswer {
    /// Up to where the journal is durable; what a list shows that has `at_least` this position.
    position: Position,
    /// What happened: `cleared` if its alarm was raised, `logged` if a promise began, changed or ended; absent if it was only
    /// renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<ChangeKind>,
    /// The alarm that was cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<AlarmId>,
    /// The promise as it is now; absent if it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<HeartbeatShown>,
}

/// The name of a heartbeat in a path, as the resource that it stands for.
pub(crate) struct NamedResource {
    name: String,
    resource: Resource,
}

impl<S: Send + Sync> FromRequestParts<S> for NamedResource {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::of_field(Kind::InvalidParameter, "name", reason);
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| wrong(rejection.body_text()))?;
        let resource = Resource::new(&format!("{RESOURCE_PREFIX}{name}")).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { name, resource })
    }
}

impl NamedResource {
    /// The alarm that its silence is, under the catalogue's id of its type.
    fn key(&self, api: &Api, caller: &Caller, site: Option<Site>) -> Result<AlarmKey, Problem> {
        let site = site.unwrap_or_else(|| api.site().clone());
        caller.demand_site(&site)?;
        let alarm_type = AlarmType::new(ALARM_TYPE).expect("is a type");
        let catalogue = api.store().read().catalogue();
        Ok(AlarmKey {
            site,
            resource: self.resource.clone(),
            alarm_type: catalogue.and_then(|catalogue| Some(catalogue.get(&alarm_type)?.id.clone())).unwrap_or(alarm_type),
            qualifier: Qualifier::new("").expect("may be empty"),
        })
    }

    fn unknown(&self, key: &AlarmKey) -> Problem {
        Problem::new(Kind::NotFound, format!("at {} nobody has promised to be heard from as {}", key.site, quoted(&self.name)))
    }
}

/// Report a heartbeat.
///
/// The program is there, and promises to say so again in time: silence raises the alarm `heartbeat.lost` of the resource
/// `heartbeat=NAME`, and the next heartbeat clears it. What is answered is durable. The body may be left out, as in
/// `curl -X POST http://localhost:7780/api/v1/heartbeats/backup?every=25h`.
#[utoipa::path(
    post,
    path = "/heartbeats/{name}",
    tag = "heartbeats",
    operation_id = "reportHeartbeat",
    params(("name" = String, Path, description = "Who reports"), HeartbeatRequest),
    request_body(content = Option<HeartbeatRequest>),
    responses((status = 200, description = "It was heard", body = HeartbeatAnswer), Always, Intake)
)]
pub(crate) async fn post(
    State(api): State<Api>,
    caller: Caller,
    named: NamedResource,
    RawQuery(query): RawQuery,
    body: Result<WholeBody, Problem>,
) -> Result<Response, Problem> {
    let request = body.and_then(|body| read(query.as_deref().unwrap_or_default(), &body));
    let (request, every) = request.inspect_err(|problem| count_unreadable(&api, problem))?;
    let severity = request.severity.unwrap_or(v1::SILENCE_SEVERITY);
    let key = named.key(&api, &caller, request.site)?;
    let mut answer = publish(&api, event(&key, Report::Heartbeat { every, severity }, request.text)).await?;
    answer.heartbeat = find(&api.store().read(), &key);
    json(&answer)
}

/// End a promise to be heard from.
///
/// Its alarm clears, if it is raised. The same as a report that clears it.
#[utoipa::path(
    delete,
    path = "/heartbeats/{name}",
    tag = "heartbeats",
    operation_id = "endHeartbeat",
    params(("name" = String, Path, description = "Who reports no more"), HeartbeatSite),
    responses((status = 200, description = "It has ended", body = HeartbeatAnswer), Always, Found, Intake)
)]
pub(crate) async fn end(
    State(api): State<Api>,
    caller: Caller,
    named: NamedResource,
    Query(HeartbeatSite { site }): Query<HeartbeatSite>,
) -> Result<Response, Problem> {
    let key = named.key(&api, &caller, site)?;
    if find(&api.store().read(), &key).is_none() {
        return Err(named.unknown(&key));
    }
    json(&publish(&api, event(&key, Report::Clear, None)).await?)
}

/// Show one promise to be heard from.
#[utoipa::path(
    get,
    path = "/heartbeats/{name}",
    tag = "heartbeats",
    operation_id = "showHeartbeat",
    params(("name" = String, Path, description = "Who reports"), HeartbeatSite),
    responses((status = 200, description = "The promise", body = HeartbeatShown), Always, Found)
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    named: NamedResource,
    Query(HeartbeatSite { site }): Query<HeartbeatSite>,
) -> Result<Response, Problem> {
    let key = named.key(&api, &caller, site)?;
    let heartbeat = find(&api.store().read(), &key);
    json(&heartbeat.ok_or_else(|| named.unknown(&key))?)
}

/// List who has promised to be heard from, and who is silent.
#[utoipa::path(
    get,
    path = "/heartbeats",
    tag = "heartbeats",
    operation_id = "listHeartbeats",
    params(HeartbeatList),
    responses((status = 200, description = "One page of promises", body = HeartbeatsAnswer), Always)
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(list): Query<HeartbeatList>,
) -> Result<Response, Problem> {
    api.reach(list.at_least).await?;
    let answer = {
        let state = api.store().read();
        let after = list.cursor.map_or(Bound::Unbounded, |HeartbeatCursor(key)| Bound::Excluded(key));
        let is_lost = |heartbeat: &Heartbeat| heartbeat.lost_at.is_some();
        let is_seen = |key: &AlarmKey| caller.scope().includes(&key.site);
        let mut asked = state.heartbeats().range((after, Bound::Unbounded)).filter(|(key, heartbeat)| {
            is_seen(key)
                && list.site.as_ref().is_none_or(|site| key.site == *site)
                && list.lost.is_none_or(|lost| lost == is_lost(heartbeat))
        });
        let page: Vec<_> = asked.by_ref().take(list.limit).collect();
        let next = page.last().filter(|_| asked.next().is_some()).map(|(key, _)| HeartbeatCursor((*key).clone()).to_string());
        HeartbeatsAnswer {
            position: state.position(),
            epoch: api.store().epoch(),
            heartbeats: page.iter().map(|(key, beat)| HeartbeatShown::of(key, beat, state.cursor())).collect(),
            next,
            total: state.heartbeats().keys().filter(|key| is_seen(key)).count(),
            lost: state.heartbeats().iter().filter(|(key, heartbeat)| is_seen(key) && is_lost(heartbeat)).count(),
        }
    };
    json_sized(&answer, 256 + answer.heartbeats.len() * HEARTBEAT_BYTES)
}

fn find(state: &StateRead<'_>, key: &AlarmKey) -> Option<HeartbeatShown> {
    state.heartbeats().get(key).map(|heartbeat| HeartbeatShown::of(key, heartbeat, state.cursor()))
}

/// What query and body say together.
fn read(query: &str, body: &WholeBody) -> Result<(HeartbeatRequest, Lease), Problem> {
    let mut params = Params::of_query(query)?;
    let of_query = HeartbeatRequest::take(&mut params);
    params.finish(Kind::InvalidParameter)?;
    let of_body = if body.is_empty() { HeartbeatRequest::default() } else { read_body(body.json()?)? };
    let request = merge(of_query, of_body)?;
    match request.every {
        Some(every) => Ok((request, every)),
        None => {
            let reason = "is missing: say within which time the next heartbeat comes, such as every=5m";
            Err(Problem::of_field(Kind::InvalidParameter, "every", reason))
        }
    }
}

fn read_body(text: &str) -> Result<HeartbeatRequest, Problem> {
    let members = match serde_json::from_str(text) {
        Ok(Value::Object(members)) => members,
        Ok(_) => return Err(Problem::new(Kind::InvalidBody, "the body is no JSON object")),
        Err(error) => return Err(Problem::new(Kind::MalformedBody, format!("the body is no JSON: {error}"))),
    };
    let mut params = Params::of_json(members);
    let request = HeartbeatRequest::take(&mut params);
    params.finish(Kind::InvalidBody).map(|()| request)
}

fn merge(of_query: HeartbeatRequest, of_body: HeartbeatRequest) -> Result<HeartbeatRequest, Problem> {
    fn one<T>(field: &str, of_query: Option<T>, of_body: Option<T>) -> Result<Option<T>, Problem> {
        if of_query.is_some() && of_body.is_some() {
            return Err(Problem::of_field(Kind::InvalidBody, field, "is said by the query, too"));
        }
        Ok(of_query.or(of_body))
    }
    Ok(HeartbeatRequest {
        every: one("every", of_query.every, of_body.every)?,
        severity: one("severity", of_query.severity, of_body.severity)?,
        text: one("text", of_query.text, of_body.text)?,
        site: one("site", of_query.site, of_body.site)?,
    })
}

fn event(key: &AlarmKey, report: Report, text: Option<Text>) -> Event {
    Event::new(key.clone(), report, text.unwrap_or_else(|| Text::new("").expect("may be empty")))
}

/// Brings the report in, and tells what followed.
async fn publish(api: &Api, event: Event) -> Result<HeartbeatAnswer, Problem> {
    let published = api.door().publish(vec![Item::Event(Arc::new(event))], Tally::default()).await;
    let published = published.map_err(|error| refused(&error))?;
    let changes = match published.answers.into_iter().next() {
        Some(Answer::Accepted { changes, .. }) => changes,
        Some(Answer::Rejected(rejection)) => return Err(Problem::new(Kind::NothingAccepted, rejection.to_string())),
        Some(Answer::Duplicate) | None => return Err(Problem::new(Kind::Internal, "the journal gave no answer to the report")),
    };
    if changes.iter().any(|change| change.kind == ChangeKind::Late) {
        // Others came before it while it was on its way.
        return Err(Problem::new(Kind::NothingAccepted, "it had no effect; the history says why"));
    }
    let first = changes.first();
    Ok(HeartbeatAnswer {
        position: published.durable.position(),
        change: first.map(|change| change.kind),
        alarm: first.and_then(|change| match &change.subject {
            Subject::Alarm { alarm, .. } => Some(alarm.id),
            _ => None,
        }),
        heartbeat: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_place_of_a_promise() {
        let key = AlarmKey {
            site: Site::new("a/b").expect("valid"),
            resource: Resource::new("heartbeat=ü b").expect("valid"),
            alarm_type: AlarmType::new(ALARM_TYPE).expect("valid"),
            qualifier: Qualifier::new("").expect("valid"),
        };
        let cursor = HeartbeatCursor(key);
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        for wrong in ["", "0", "zz", "ff", "é1", "00", "736574746996e6773", "73657474696e6773"] {
            assert_eq!(wrong.parse::<HeartbeatCursor>(), Err(HeartbeatCursorError), "{wrong}");
        }
    }

    #[test]
    fn what_is_documented_is_what_is_read() {
        fn known<T: FromParams>() -> Vec<String> {
            let mut params = Params::default();
            T::take(&mut params);
            params.known().iter().map(|name| (*name).to_owned()).collect()
        }
        let documented = |parameters: Vec<utoipa::openapi::path::Parameter>| -> Vec<String> {
            parameters.into_iter().map(|parameter| parameter.name).collect()
        };
        assert_eq!(documented(HeartbeatRequest::into_params(|| None)), known::<HeartbeatRequest>());
        assert_eq!(documented(HeartbeatSite::into_params(|| None)), known::<HeartbeatSite>());
        assert_eq!(documented(HeartbeatList::into_params(|| None)), known::<HeartbeatList>());
    }

    #[test]
    fn query_and_body_add_to_each_other() {
        let of_query = |query: &str| {
            let mut params = Params::of_query(query).expect("is a query");
            HeartbeatRequest::take(&mut params)
        };
        let both = |query: &str, body: &str| read_body(body).and_then(|of_body| merge(of_query(query), of_body));
        let request = both("every=5m", r#"{"severity":"minor","text":"nightly"}"#).expect("is sound");
        assert_eq!((request.every.map(Lease::seconds), request.severity), (Some(300), Some(Severity::Minor)));
        assert_eq!(read_body(r#"{"every":300}"#).expect("is sound"), read_body(r#"{"every":"5m"}"#).expect("is sound"));
        let status = |problem: Problem| serde_json::to_value(&problem).expect("serializes")["errors"][0]["field"].clone();
        assert_eq!(both("every=5m", r#"{"every":300}"#).map_err(status), Err("every".into()));
        assert_eq!(read_body(r#"{"every":0}"#).map_err(status), Err("every".into()));
        assert_eq!(read_body(r#"{"evry":1}"#).map_err(status), Err("evry".into()));
        assert_eq!(read_body(r#"{"severity":"cleared"}"#).map_err(status), Err("severity".into()));
    }
}
