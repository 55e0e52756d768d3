//! A report comes in as an alarm: it stands (`set`), is over (`clear`), or says what lasts not (`msg`, `log`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::event::{AlarmKey, Attributes, Details, Event, Report};
use klaxon_schemas::labels::Labels;
use klaxon_schemas::names::{AlarmType, AttributeName, AttributeValue, ProbableCause, Qualifier, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::{EventType, Severity};
use klaxon_schemas::starlingx::{
    AlarmState, ENTITY_TYPE, INHIBIT_ALARMS, NOT_APPLICABLE, SUPPRESSION, event_type_from_word, probable_cause_from_word,
    severity_from_word, time_of,
};
use klaxon_schemas::time::Timestamp;
use klaxon_store::door::{RejectReason, Tally};
use klaxon_store::publish::{Answer, Item};
use klaxon_store::{AlarmQuery, AlarmSort, Order};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::Api;
use super::super::body::{WholeBody, count_unreadable};
use super::super::events::refused;
use super::super::guard::Caller;
use super::super::params::{NoParams, Params, Query};
use super::super::problem::{Kind, Problem, quoted};
use super::super::shown::{blocking, json};
use super::asked::is_asked;
use super::events::uuid_behind;
use super::fault::{Always, Changes, Found};

/// The most bytes in the body of a report.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// What is shown of an alarm and said by nobody: a client may send it back.
const SHOWN_ONLY: [&str; 5] = ["uuid", "masked", "suppression_status", "mgmt_affecting", "degrade_affecting"];

/// A report.
#[derive(Serialize, ToSchema)]
#[schema(as = StarlingxReport)]
pub(crate) struct ReportRequest {
    /// The type, by the id that StarlingX gives it, or by its own.
    alarm_id: AlarmType,
    /// `set` (unless said otherwise), `clear`, `msg` or `log`.
    alarm_state: Option<String>,
    /// What kind of thing it is about.
    entity_type_id: Option<AttributeValue>,
    /// What it is about.
    entity_instance_id: Resource,
    /// When it happened.
    timestamp: Option<String>,
    /// `warning`, `minor`, `major` or `critical`; it must be said of what stands.
    severity: Option<String>,
    /// What happened, in words.
    reason_text: Option<Text>,
    /// What kind of alarm it is, in StarlingX's words.
    alarm_type: Option<String>,
    probable_cause: Option<ProbableCause>,
    proposed_repair_action: Option<Text>,
    service_affecting: Option<bool>,
    /// Whether it may be masked by an alarm that stands above it.
    suppression: Option<bool>,
    /// Whether it masks alarms that stand under it.
    inhibit_alarms: Option<bool>,
}

/// What is read of it.
struct Read {
    alarm_type: Option<AlarmType>,
    resource: Option<Resource>,
    state: AlarmState,
    severity: Option<Severity>,
    text: Option<Text>,
    at: Option<Timestamp>,
    event_type: Option<EventType>,
    probable_cause: Option<ProbableCause>,
    repair_action: Option<Text>,
    service_affecting: Option<bool>,
    entity_type: Option<AttributeValue>,
    suppression: Option<bool>,
    inhibit_alarms: Option<bool>,
}

impl Read {
    fn take(params: &mut Params) -> Self {
        let said = |params: &mut Params, name| params.is_given(name).then(|| is_asked(params, name));
        let read = Self {
            alarm_type: params.one("alarm_id"),
            resource: params.one("entity_instance_id"),
            state: params
                .read("alarm_state", |word| {
                    AlarmState::from_word(word).ok_or_else(|| unknown(word, "state: set, clear, msg or log"))
                })
                .unwrap_or(AlarmState::Set),
            severity: params
                .read("severity", |word| severity_from_word(word).ok_or_else(|| unknown(word, "severity, such as major"))),
            text: params.one("reason_text"),
            at: params.read("timestamp", |text| time_of(text).ok_or_else(|| unknown(text, "time such as 2026-11-22T08:19:34"))),
            event_type: params.read("alarm_type", |word| {
                event_type_from_word(word).ok_or_else(|| unknown(word, "alarm type, such as equipment"))
            }),
            probable_cause: params
                .read("probable_cause", |word| match probable_cause_from_word(word) {
                    None if word != NOT_APPLICABLE => Err(unknown(word, "probable cause")),
                    cause => Ok(cause),
                })
                .flatten(),
            repair_action: params.one("proposed_repair_action"),
            service_affecting: said(params, "service_affecting"),
            entity_type: params.one("entity_type_id"),
            suppression: said(params, "suppression"),
            inhibit_alarms: said(params, "inhibit_alarms"),
        };
        for name in SHOWN_ONLY {
            params.many(name, |_| Ok(()));
        }
        read
    }

    /// What it reports; or the field that is wrong, and why.
    fn into_event(self, api: &Api) -> Result<Event, (&'static str, &'static str)> {
        let report = match (self.state, self.severity) {
            (AlarmState::Set, None) => return Err(("severity", "is missing")),
            (AlarmState::Set, Some(Severity::Indeterminate)) => {
                return Err(("severity", "must be one of warning, minor, major, critical where alarm_state is set"));
            }
            (AlarmState::Set, Some(severity)) => Report::Raise(severity),
            (AlarmState::Clear, _) => Report::Clear,
            (AlarmState::Message | AlarmState::Log, severity) => Report::Log(severity.unwrap_or(Severity::Indeterminate)),
        };
        let key = AlarmKey {
            site: api.site().clone(),
            resource: self.resource.ok_or(("entity_instance_id", "is missing"))?,
            alarm_type: self.alarm_type.ok_or(("alarm_id", "is missing"))?,
            qualifier: Qualifier::new("").expect("may be empty"),
        };
        let truth = |is: bool| AttributeValue::new(if is { "true" } else { "false" }).expect("is short");
        let attributes = [
            (ENTITY_TYPE, self.entity_type),
            (SUPPRESSION, self.suppression.map(truth)),
            (INHIBIT_ALARMS, self.inhibit_alarms.map(truth)),
        ];
        let attributes: BTreeMap<_, _> = attributes
            .into_iter()
            .filter_map(|(name, value)| Some((AttributeName::new(name).expect("is a name"), value?)))
            .collect();
        let mut event = Event::new(key, report, self.text.unwrap_or_else(|| Text::new("").expect("may be empty")));
        event.event_time = self.at;
        event.details = Details {
            event_type: self.event_type,
            probable_cause: self.probable_cause,
            repair_action: self.repair_action,
            service_affecting: self.service_affecting,
            labels: Labels::default(),
            attributes: Attributes::new(attributes).expect("there are three at most"),
        };
        Ok(event)
    }
}

fn unknown(text: &str, what: &str) -> String {
    format!("{} is no {what}", quoted(text))
}

/// Report an alarm, its end, or an event.
///
/// It is durable before this answers, and has taken effect. Answers as StarlingX does with a text that is a JSON object, of which `uuid`
/// names the alarm or the event.
#[utoipa::path(
    post,
    path = "/v1/alarms",
    tag = "starlingx",
    operation_id = "starlingxReport",
    request_body(content = ReportRequest),
    responses(
        (status = 200, description = "A JSON object with a uuid, as a text", body = String, content_type = "application/json"),
        Always,
        Found,
        Changes
    )
)]
pub(super) async fn post(
    State(api): State<Api>,
    caller: Caller,
    Query(NoParams): Query<NoParams>,
    body: Result<WholeBody, Problem>,
) -> Result<Response, Problem> {
    let event = body.and_then(|body| read(&api, &body)).inspect_err(|problem| count_unreadable(&api, problem))?;
    let event = Arc::new(event);
    if let Err(problem) = caller.demand_site(&event.key.site) {
        let mut tally = Tally::default();
        tally.reject(RejectReason::Invalid, 1);
        api.door().counts().settle(&tally);
        return Err(problem);
    }
    let published = api.door().publish(vec![Item::Event(Arc::clone(&event))], Tally::default()).await;
    let answer = published.map_err(|error| refused(&error))?.answers.into_iter().next();
    let uuid = match answer {
        Some(Answer::Accepted { position, changes }) => match named_by(&changes) {
            Some(uuid) => Some(uuid),
            None => match changes.into_iter().next() {
                Some(change) if matches!(event.report, Report::Log(_)) => {
                    let api = api.clone();
                    blocking(move || uuid_behind(&api, position, &change)).await?
                }
                // It was raised before, and nothing changed.
                _ => find(&api, &event.key),
            },
        },
        Some(Answer::Duplicate) => find(&api, &event.key),
        Some(Answer::Rejected(rejection)) => return Err(Problem::new(Kind::Refused, rejection.to_string())),
        None => return Err(Problem::new(Kind::Internal, "the journal gave no answer to the report")),
    };
    let AlarmKey { alarm_type, resource, .. } = &event.key;
    let absent = || Problem::new(Kind::NotFound, format!("there is no alarm {alarm_type} of {}", quoted(resource.as_str())));
    json(&format!("{{\"uuid\": \"{}\"}}", uuid.ok_or_else(absent)?))
}

fn read(api: &Api, body: &WholeBody) -> Result<Event, Problem> {
    let mut params = Params::of_body(body, BODY_BYTES_MAX)?;
    let read = Read::take(&mut params);
    params.finish(Kind::InvalidBody)?;
    read.into_event(api).map_err(|(field, reason)| Problem::of_field(Kind::InvalidBody, field, reason))
}

/// The alarm that changed.
fn named_by(changes: &[Arc<Change>]) -> Option<Uuid> {
    changes.iter().find_map(|change| match &change.subject {
        Subject::Alarm { alarm, .. } => Some(alarm.id.0),
        _ => None,
    })
}

/// The alarm of this key that is not cleared.
fn find(api: &Api, key: &AlarmKey) -> Option<Uuid> {
    let state = api.store().read();
    let catalogue = state.catalogue();
    let known = catalogue.as_ref().and_then(|catalogue| catalogue.get(&key.alarm_type));
    let query = AlarmQuery {
        site: Some(key.site.clone()),
        resource: Some(key.resource.clone()),
        alarm_type: Some(known.map_or(&key.alarm_type, |entry| &entry.id).clone()),
        // The resource itself comes before what is under it.
        sort: AlarmSort::Resource,
        order: Order::Ascending,
        limit: 1000,
        ..AlarmQuery::default()
    };
    let found = state.list(&query).items;
    found.iter().find(|alarm| alarm.key.resource == key.resource && alarm.key.qualifier.is_empty()).map(|alarm| alarm.id.0)
}
