//! Suppression: of which types alarms are hidden. A type's uuid is made of its name, so it is the same everywhere and always.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::action::Verb;
use klaxon_schemas::names::AlarmType;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Api;
use super::super::actions::carry_out;
use super::super::body::WholeBody;
use super::super::guard::{Acting, Caller};
use super::super::params::{FromParams, NoParams, Params, Query};
use super::super::problem::{Kind, Problem, quoted};
use super::super::shown::{blocking, json};
use super::alarms::Named;
use super::asked::{Conditions, Field, OfLists, Paging, Turned};
use super::fault::{Always, Changes, Found};
use super::shown::{Base, View};
use super::versions::Link;

/// The most bytes in the body of a change.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// The most steps in one change: clients send those of the types before with each.
const STEPS_MAX: usize = 2000;
const STATUS_PATH: &str = "/suppression_status";
const SUPPRESSED: &str = "suppressed";
const UNSUPPRESSED: &str = "unsuppressed";

const FIELDS: [(&str, Field); 3] = [("uuid", Field::Uuid), ("alarm_id", Field::Id), ("suppression_status", Field::Status)];

/// Which types.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TypesAsked {
    /// What each condition is about: `uuid`, `alarm_id` or `suppression_status`.
    #[param(rename = "q.field", value_type = Option<Vec<String>>)]
    conditions: Conditions,
    /// At most so many; all unless said otherwise.
    #[param(value_type = Option<u64>)]
    limit: Option<Paging>,
}

impl FromParams for TypesAsked {
    fn take(params: &mut Params) -> Self {
        let conditions = Conditions::take(params, &FIELDS);
        let is_limited = params.is_given("limit");
        let paging = Paging::take(params);
        let limit = (is_limited || paging.marker.is_some()).then_some(paging);
        Self { conditions, limit }
    }
}

/// A type, and whether its alarms are hidden.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = StarlingxEventSuppression)]
pub(crate) struct TypeShown {
    /// A number that is made of its name; only where one is shown by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    uuid: Uuid,
    /// The type, by the id that StarlingX gives it, or by its own.
    alarm_id: String,
    description: String,
    /// `suppressed` or `unsuppressed`.
    suppression_status: &'static str,
    links: Vec<Link>,
}

/// The types.
#[derive(Serialize, ToSchema)]
#[schema(as = StarlingxEventSuppressions)]
pub(crate) struct TypesAnswer {
    event_suppression: Vec<TypeShown>,
    /// Where the next page is; absent at the end, and where there was no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// All types that there are, by the ids under which they are shown.
struct Types {
    view: View,
    by_id: BTreeMap<String, AlarmType>,
}

impl Types {
    fn of(api: &Api, scope: &Scope) -> Self {
        let state = api.store().read();
        let view = View::of(api, &state);
        let mut by_id = BTreeMap::new();
        let mut note = |alarm_type: &AlarmType| {
            by_id.entry(view.id(alarm_type).to_owned()).or_insert_with(|| alarm_type.clone());
        };
        let known = view.catalogue.iter().flat_map(|catalogue| catalogue.iter());
        known.filter(|entry| !entry.is_log()).for_each(|entry| note(&entry.id));
        view.suppressed().for_each(&mut note);
        // Of which types there are alarms elsewhere is nobody's business whose sites they are not.
        if scope.is_all() {
            state.state().alarm_types().for_each(&mut note);
        }
        Self { view, by_id }
    }

    fn status(&self, alarm_type: &AlarmType) -> &'static str {
        if self.view.is_suppressed(alarm_type) { SUPPRESSED } else { UNSUPPRESSED }
    }

    fn shown(&self, base: &str, id: &str, alarm_type: &AlarmType) -> TypeShown {
        let uuid = uuid_of(alarm_type);
        let entry = self.view.catalogue.as_ref().and_then(|catalogue| catalogue.get(alarm_type));
        TypeShown {
            id: None,
            uuid,
            alarm_id: id.to_owned(),
            description: entry.map(|entry| entry.text.to_string()).unwrap_or_default(),
            suppression_status: self.status(alarm_type),
            links: vec![
                Link::itself(format!("{base}/v1/event_suppression/{uuid}")),
                Link::bookmark(format!("{base}/event_suppression/{uuid}")),
            ],
        }
    }

    fn find(&self, uuid: Uuid) -> Result<(&String, &AlarmType), Problem> {
        let found = self.by_id.iter().find(|(_, alarm_type)| uuid_of(alarm_type) == uuid);
        found.ok_or_else(|| Problem::new(Kind::NotFound, format!("there is no alarm type {uuid}")))
    }

    /// The type by itself.
    fn one(&self, base: &str, uuid: Uuid) -> Result<TypeShown, Problem> {
        let (id, alarm_type) = self.find(uuid)?;
        let (half, _) = uuid.as_u64_pair();
        // Clients read it as a number of 32 bits with a sign.
        let number = u32::try_from(half >> 33).expect("31 bits are left");
        Ok(TypeShown { id: Some(number), ..self.shown(base, id, alarm_type) })
    }
}

fn uuid_of(alarm_type: &AlarmType) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("klaxon alarm type {alarm_type}").as_bytes())
}

/// List all alarm types, and which of them are suppressed.
#[utoipa::path(
    get,
    path = "/v1/event_suppression",
    tag = "starlingx",
    operation_id = "starlingxTypes",
    params(OfLists, TypesAsked),
    responses((status = 200, description = "The types, by their ids", body = TypesAnswer), Always)
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Base(base): Base,
    Query(asked): Query<TypesAsked>,
) -> Result<Response, Problem> {
    blocking(move || answer(&Types::of(&api, caller.scope()), &base, &asked)).await
}

fn answer(types: &Types, base: &str, asked: &TypesAsked) -> Result<Response, Problem> {
    let wrong = |field, reason: String| Problem::of_field(Kind::InvalidParameter, field, reason);
    let begin = match &asked.limit {
        Some(Paging { after: Some(after), .. }) => Some(after.clone()),
        Some(Paging { marker: Some(marker), .. }) => {
            let marked = types.find(*marker).map_err(|_| wrong("marker", format!("{marker} is no alarm type")))?;
            Some(marked.0.clone())
        }
        _ => None,
    };
    let behind = types.by_id.iter().filter(|(id, _)| begin.as_ref().is_none_or(|begin| *id > begin));
    let picked = behind.filter(|(id, alarm_type)| {
        asked.conditions.pick(|field| match field {
            Field::Uuid => uuid_of(alarm_type).to_string().into(),
            Field::Status => types.status(alarm_type).into(),
            _ => id.as_str().into(),
        })
    });
    let limit = asked.limit.as_ref().map_or(usize::MAX - 1, |paging| paging.limit);
    let mut event_suppression: Vec<_> =
        picked.take(limit + 1).map(|(id, alarm_type)| types.shown(base, id, alarm_type)).collect();
    let is_more = event_suppression.len() > limit;
    event_suppression.truncate(limit);
    let next = event_suppression.last().filter(|_| is_more).map(|last| {
        Turned {
            list: "event_suppression",
            base,
            conditions: &asked.conditions,
            fields: &FIELDS,
            sort: None,
            limit,
            more: String::new(),
            marker: Some(last.uuid),
            after: Some(last.alarm_id.clone()),
        }
        .next()
    });
    json(&TypesAnswer { event_suppression, next })
}

/// Show one alarm type.
#[utoipa::path(
    get,
    path = "/v1/event_suppression/{uuid}",
    tag = "starlingx",
    operation_id = "starlingxType",
    params(("uuid" = Uuid, Path, description = "The type's")),
    responses((status = 200, description = "The type", body = TypeShown), Always, Found)
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Base(base): Base,
    Named(uuid): Named,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    blocking(move || json(&Types::of(&api, caller.scope()).one(&base, uuid)?)).await
}

/// One step of a change (RFC 6902).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = StarlingxPatch)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// `/suppression_status`
    path: String,
    /// `suppressed` or `unsuppressed`.
    value: String,
    /// `replace`
    op: String,
}

/// Suppress an alarm type, or end that.
#[utoipa::path(
    patch,
    path = "/v1/event_suppression/{uuid}",
    tag = "starlingx",
    operation_id = "starlingxSuppress",
    params(("uuid" = Uuid, Path, description = "The type's")),
    request_body(content = Vec<Step>),
    responses((status = 200, description = "The type, as it is now", body = TypeShown), Always, Found, Changes)
)]
pub(super) async fn change(
    State(api): State<Api>,
    acting: Acting,
    Base(base): Base,
    Named(uuid): Named,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    acting.demand_all_sites()?;
    let suppress = read(&body)?;
    drop(body);
    let types = types(&api).await?;
    let (_, alarm_type) = types.find(uuid)?;
    let alarm_type = alarm_type.clone();
    if types.view.is_suppressed(&alarm_type) != suppress {
        let verb = match suppress {
            true => Verb::Suppress { alarm_type, reason: None },
            false => Verb::Unsuppress { alarm_type },
        };
        carry_out(&api, acting, verb).await?;
    }
    json(&self::types(&api).await?.one(&base, uuid)?)
}

async fn types(api: &Api) -> Result<Types, Problem> {
    let api = api.clone();
    blocking(move || Ok(Types::of(&api, &Scope::all()))).await
}

/// Whether the type is to be suppressed: what the last of the steps says.
fn read(body: &WholeBody) -> Result<bool, Problem> {
    let wrong = |field: &str, reason: String| Problem::of_field(Kind::InvalidBody, field, reason);
    let text = body.json()?;
    if text.len() > BODY_BYTES_MAX {
        return Err(Problem::new(Kind::TooLarge, format!("such a body has at most {BODY_BYTES_MAX} bytes")));
    }
    let steps: Vec<Step> = serde_json::from_str(text).map_err(|error| {
        Problem::new(Kind::MalformedBody, format!("the body is no list of steps with path, value and op: {error}"))
    })?;
    if steps.len() > STEPS_MAX {
        return Err(Problem::new(Kind::TooLarge, format!("there are {} steps, at most {STEPS_MAX} are taken", steps.len())));
    }
    let mut last = None;
    for Step { path, value, op } in &steps {
        if path != STATUS_PATH {
            return Err(wrong("path", format!("is {}, and only {STATUS_PATH} can be changed", quoted(path))));
        }
        if op != "replace" {
            return Err(wrong("op", format!("is {}, and must be replace", quoted(op))));
        }
        last = match value.as_str() {
            SUPPRESSED => Some(true),
            UNSUPPRESSED => Some(false),
            other => return Err(wrong("value", format!("is {}, and must be {SUPPRESSED} or {UNSUPPRESSED}", quoted(other)))),
        };
    }
    last.ok_or_else(|| wrong("path", "is missing: there is no step".to_owned()))
}
