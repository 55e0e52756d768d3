//! Operator actions. An order names alarms (by id, or by the first digits of one) or a filter; what is journalled names each
//! alarm in full, so that it means the same whenever it is read.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use klaxon_schemas::access::Scope;
use klaxon_schemas::action::{Action, Matcher, TARGETS_MAX, Target, Verb};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::ids::{ActionId, Position};
use klaxon_schemas::names::{Actor, AlarmType, Text};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::{self, ActionOrder};
use klaxon_store::door::Tally;
use klaxon_store::publish::{Answer, Item};
use klaxon_store::{AlarmQuery, StateRead};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::alarms::{find, pick};
use super::body::WholeBody;
use super::events::refused;
use super::guard::Acting;
use super::openapi::{Acts, Always, Found};
use super::outcome::{self, PendingShown};
use super::params::{FromParams, NoParams, Params, Query};
use super::problem::{FieldError, Kind, Problem, RefusalShown, quoted};
use super::query::AlarmFilter;
use super::shown::{Lens, json};

/// The most bytes in the body of an action.
const ACTION_BYTES_MAX: usize = 256 * 1024;
/// What can be done to alarms, and so stand in a path behind one.
const ALARM_VERBS: [&str; 9] =
    ["acknowledge", "unacknowledge", "assign", "note", "shelve", "unshelve", "clear", "retire", "purge"];
/// What can be done without naming alarms.
const OTHER_VERBS: [&str; 4] = ["add-shelf", "remove-shelf", "suppress", "unsuppress"];

/// What is to be done. Beside `action` stand the members that its verb needs.
#[derive(Serialize, ToSchema)]
pub(crate) struct ActionRequest {
    /// The verb.
    #[schema(inline)]
    action: ActionVerb,
    /// Which alarms; each a UUID, the first digits of one, or an object with `id` and `raise_seq`. Either this or `filter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 1000)]
    alarms: Option<Vec<TargetRequest>>,
    /// All alarms that it picks, at most 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<AlarmFilter>,
    /// acknowledge, clear, retire: with which words.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<Text>,
    /// note: the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    /// assign: to whom; to nobody if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Actor>,
    /// shelve, add-shelf: until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// add-shelf: from when on; at once if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<Timestamp>,
    /// shelve, add-shelf, suppress: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    /// add-shelf: which alarms it takes.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    matcher: Option<Matcher>,
    /// remove-shelf: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    shelf: Option<ActionId>,
    /// suppress, unsuppress: which type.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm_type: Option<AlarmType>,
    /// The action's own id; the same id twice acts once. One is made if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<ActionId>,
    /// After this time it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// The verbs.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "it stands in the API's description only")]
enum ActionVerb {
    Acknowledge,
    Unacknowledge,
    Assign,
    Note,
    Shelve,
    Unshelve,
    Clear,
    Retire,
    Purge,
    AddShelf,
    RemoveShelf,
    Suppress,
    Unsuppress,
}

/// The verbs that can stand behind an alarm in a path: [`ALARM_VERBS`].
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "it stands in the API's description only")]
enum AlarmVerbName {
    Acknowledge,
    Unacknowledge,
    Assign,
    Note,
    Shelve,
    Unshelve,
    Clear,
    Retire,
    Purge,
}

/// One alarm that is named.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TargetRequest {
    /// A UUID, or the first digits of one, at least four.
    Id(String),
    /// The same, with what was seen of it.
    Seen(SeenTarget),
}

/// An alarm, as the actor saw it.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeenTarget {
    /// A UUID, or the first digits of one, at least four.
    id: String,
    /// The episode that was seen; refused if the alarm was raised again since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raise_seq: Option<u32>,
}

/// What is to be done to the alarm in the path. The same members as of an action, without `action`, `alarms` and `filter`.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlarmActionRequest {
    /// The episode that was seen; refused if the alarm was raised again since.
    #[serde(skip_serializing_if = "Option::is_none")]
    raise_seq: Option<u32>,
    /// acknowledge, clear, retire: with which words.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<Text>,
    /// note: the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text>,
    /// assign: to whom; to nobody if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Actor>,
    /// shelve: until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// shelve: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text>,
    /// The action's own id; the same id twice acts once. One is made if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<ActionId>,
    /// After this time it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionAnswer {
    /// The action.
    id: ActionId,
    /// Who did it.
    actor: Actor,
    /// Up to where the journal is durable; what a list shows that has `at_least` this position.
    position: Position,
    /// Whether an action with this id had been carried out before; then nothing was done now.
    duplicate: bool,
    /// What followed; for alarms of which the owner has not yet said what it made of it, that it is `pending`.
    changes: Vec<v1::Change>,
    /// What was not done, and why.
    refusals: Vec<RefusalShown>,
    /// To which owners it is on its way still.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pending: Vec<PendingShown>,
}

/// Act on alarms, shelves or suppressions.
///
/// What another site owns is done there; the answer waits up to two seconds
/// for what became of it.
#[utoipa::path(
    post,
    path = "/actions",
    tag = "operators",
    operation_id = "act",
    request_body(content = ActionRequest),
    responses(
        (status = 200, description = "At least one of the targets was acted on", body = ActionAnswer),
        (status = 202, description = "It is on its way to the owners; GET /actions/{id} tells how it stands", body = ActionAnswer),
        Always,
        Found,
        Acts
    )
)]
pub(crate) async fn post(
    State(api): State<Api>,
    acting: Acting,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let mut members = members(&body)?;
    drop(body);
    let named = (members.remove("alarms"), members.remove("filter"));
    let verb = match members.get("action").and_then(Value::as_str) {
        Some(verb) if ALARM_VERBS.contains(&verb) || OTHER_VERBS.contains(&verb) => verb.to_owned(),
        Some(_) => return Err(invalid("action", format!("is none of {}, {}", ALARM_VERBS.join(", "), OTHER_VERBS.join(", ")))),
        None => return Err(invalid("action", "is missing, or no text")),
    };
    let targets = match named {
        (None, None) if OTHER_VERBS.contains(&&*verb) => None,
        (Some(_), _) if OTHER_VERBS.contains(&&*verb) => return Err(invalid("alarms", format!("has no meaning for {verb}"))),
        (_, Some(_)) if OTHER_VERBS.contains(&&*verb) => return Err(invalid("filter", format!("has no meaning for {verb}"))),
        (None, None) => return Err(invalid("alarms", "is missing, and there is no filter")),
        (Some(_), Some(_)) => return Err(invalid("filter", "cannot stand beside alarms")),
        (Some(alarms), None) => Some(named_targets(&api, &acting.scope, alarms)?),
        (None, Some(filter)) => Some(filtered_targets(&api, &acting.scope, filter)?),
    };
    act(&api, acting, members, targets).await
}

/// One alarm and what is done to it, in a path.
pub(crate) struct AlarmAndVerb {
    reference: String,
    verb: String,
}

impl<S: Send + Sync> FromRequestParts<S> for AlarmAndVerb {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((reference, verb))) if ALARM_VERBS.contains(&&*verb) => Ok(Self { reference, verb }),
            Ok(Path((_, verb))) => {
                let detail = format!("{} is nothing to do to an alarm; there are {}", quoted(&verb), ALARM_VERBS.join(", "));
                Err(Problem::new(Kind::NotFound, detail))
            }
            Err(rejection) => Err(Problem::of_field(Kind::InvalidParameter, "id", rejection.body_text())),
        }
    }
}

/// Act on one alarm.
///
/// The body may be left out.
#[utoipa::path(
    post,
    path = "/alarms/{id}/{verb}",
    tag = "operators",
    operation_id = "actOnAlarm",
    params(
        ("id" = String, Path, description = "The alarm's UUID, or its first digits, at least four"),
        ("verb" = inline(AlarmVerbName), Path, description = "What is done to it")
    ),
    request_body(content = Option<AlarmActionRequest>),
    responses(
        (status = 200, description = "It was done", body = ActionAnswer),
        (status = 202, description = "It is on its way to the owner; GET /actions/{id} tells how it stands", body = ActionAnswer),
        Always,
        Found,
        Acts
    )
)]
pub(crate) async fn post_on_alarm(
    State(api): State<Api>,
    acting: Acting,
    AlarmAndVerb { reference, verb }: AlarmAndVerb,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let mut members = if body.is_empty() { Map::new() } else { members(&body)? };
    drop(body);
    for foreign in ["action", "alarms", "filter"] {
        if members.contains_key(foreign) {
            return Err(invalid(foreign, "is said by the path"));
        }
    }
    let raise_seq = match members.remove("raise_seq") {
        Some(value) => check::<Option<u32>>("raise_seq", &value).map_err(of_field)?,
        None => None,
    };
    let id = find(&api.store().read(), &acting.scope, &reference)?.id;
    members.insert("action".to_owned(), verb.into());
    act(&api, acting, members, Some(vec![Target { id, raise_seq }])).await
}

fn members(body: &WholeBody) -> Result<Map<String, Value>, Problem> {
    let text = body.json()?;
    if text.len() > ACTION_BYTES_MAX {
        return Err(Problem::new(Kind::TooLarge, format!("an action has at most {ACTION_BYTES_MAX} bytes")));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Problem::new(Kind::InvalidBody, "the body is no JSON object")),
        Err(error) => Err(Problem::new(Kind::MalformedBody, format!("the body is no JSON: {error}"))),
    }
}

fn named_targets(api: &Api, scope: &Scope, alarms: Value) -> Result<Vec<Target>, Problem> {
    let Value::Array(alarms) = alarms else { return Err(invalid("alarms", "is no list")) };
    match alarms.len() {
        0 => return Err(invalid("alarms", "is empty")),
        count if count > TARGETS_MAX => {
            return Err(invalid("alarms", format!("has {count} alarms, at most {TARGETS_MAX} are allowed")));
        }
        _ => {}
    }
    let mut requests = Vec::with_capacity(alarms.len());
    let mut errors = Vec::new();
    for (index, alarm) in alarms.into_iter().enumerate() {
        match serde_json::from_value(alarm) {
            Ok(TargetRequest::Id(id)) => requests.push(SeenTarget { id, raise_seq: None }),
            Ok(TargetRequest::Seen(seen)) => requests.push(seen),
            Err(_) => errors.push(FieldError {
                index: Some(index),
                ..FieldError::new("alarms", "is neither an id nor an object with id and perhaps raise_seq")
            }),
        }
    }
    if !errors.is_empty() {
        return Err(Problem::of_fields(Kind::InvalidBody, errors));
    }
    let state = api.store().read();
    let mut taken = HashSet::new();
    let mut targets = Vec::with_capacity(requests.len());
    for request in requests {
        let id = find(&state, scope, &request.id)?.id;
        if taken.insert(id) {
            targets.push(Target { id, raise_seq: request.raise_seq });
        }
    }
    Ok(targets)
}

fn filtered_targets(api: &Api, scope: &Scope, filter: Value) -> Result<Vec<Target>, Problem> {
    let Value::Object(members) = filter else { return Err(invalid("filter", "is no object")) };
    let mut params = Params::of_json(members);
    let filter = AlarmFilter::take(&mut params);
    params.finish(Kind::InvalidBody)?;
    if filter.is_empty() {
        return Err(invalid("filter", "asks for nothing; an action on every alarm must say at least cleared: false"));
    }
    let query = AlarmQuery { limit: TARGETS_MAX, scope: scope.clone(), ..filter.query() };
    let (alarms, next) = pick(&api.store().read(), query, &filter);
    if next.is_some() {
        return Err(invalid("filter", format!("picks more than {TARGETS_MAX} alarms; narrow it, or act in several steps")));
    }
    if alarms.is_empty() {
        return Err(Problem::new(Kind::NotFound, "the filter picks no alarm"));
    }
    Ok(alarms.iter().map(|alarm| Target { id: alarm.id, raise_seq: Some(alarm.raise_seq) }).collect())
}

/// Journals the action that `members` say, and tells what followed.
async fn act(
    api: &Api,
    acting: Acting,
    members: Map<String, Value>,
    targets: Option<Vec<Target>>,
) -> Result<Response, Problem> {
    let scope = acting.scope.clone();
    let action = Arc::new(action(acting, members, targets)?);
    within(&scope, &action.verb, &api.store().read())?;
    let Carried { changes, duplicate, position } = journal(api, &action).await?;
    let later = outcome::wait(api, action.id, position, &scope).await?;
    let lens = Lens::of(&api.store().read());
    let mut answer = ActionAnswer {
        id: action.id,
        actor: action.actor.clone(),
        position: later.position,
        duplicate,
        changes: Vec::new(),
        refusals: Vec::new(),
        pending: later.pending,
    };
    let still: HashSet<_> = answer.pending.iter().flat_map(PendingShown::alarms).copied().collect();
    for change in changes.iter().map(|change| &**change).chain(&later.changes) {
        match &change.subject {
            Subject::Refusal(refusal) => answer.refusals.push(refusal.into()),
            // That it was on its way says nothing once it has come.
            Subject::Alarm { alarm, .. } if change.kind == ChangeKind::Pending && !still.contains(&alarm.id) => {}
            Subject::Shelf(_) if change.kind == ChangeKind::Pending && answer.pending.is_empty() => {}
            _ => answer.changes.push(lens.news(change)),
        }
    }
    match answer.refusals.first() {
        Some(first) if answer.changes.is_empty() && answer.pending.is_empty() => {
            Err(Problem::new(Kind::Refused, first.text()).with_refusals(answer.refusals))
        }
        _ if answer.pending.is_empty() => json(&answer),
        _ => Ok((StatusCode::ACCEPTED, json(&answer)?).into_response()),
    }
}

/// What the journal made of an action.
struct Carried {
    changes: Vec<Arc<Change>>,
    duplicate: bool,
    position: Position,
}

async fn journal(api: &Api, action: &Arc<Action>) -> Result<Carried, Problem> {
    let published = api.door().publish(vec![Item::Action(Arc::clone(action))], Tally::default()).await;
    let published = published.map_err(|error| refused(&error))?;
    let position = published.durable.position();
    match published.answers.into_iter().next() {
        Some(Answer::Accepted { changes, .. }) => Ok(Carried { changes, duplicate: false, position }),
        Some(Answer::Duplicate) => Ok(Carried { changes: Vec::new(), duplicate: true, position }),
        Some(Answer::Rejected(rejection)) => Err(Problem::new(Kind::InvalidBody, rejection.to_string())),
        None => Err(Problem::new(Kind::Internal, "the journal gave no answer to the action")),
    }
}

/// Does `verb`, which concerns what this node itself owns, or says why it was refused; up to where the journal is durable.
pub(crate) async fn carry_out(api: &Api, acting: Acting, verb: Verb) -> Result<Position, Problem> {
    let Acting { actor, from, .. } = acting;
    let id = ActionId(Uuid::new_v4());
    let action = Action { id, actor, from: Some(from), ordered_at: None, expires_at: None, verb };
    let carried = journal(api, &Arc::new(action)).await?;
    match carried.changes.iter().find_map(|change| refusal(change)) {
        Some(refused) => Err(refused),
        None => Ok(carried.position),
    }
}

/// Does `verb`, also to what other sites own, or says why it was refused; whether it is done, and not on its way still.
pub(crate) async fn see_through(api: &Api, acting: Acting, verb: Verb) -> Result<bool, Problem> {
    let Acting { actor, from, scope } = acting;
    let id = ActionId(Uuid::new_v4());
    let action = Action { id, actor, from: Some(from), ordered_at: None, expires_at: None, verb };
    let Carried { changes, position, .. } = journal(api, &Arc::new(action)).await?;
    let later = outcome::wait(api, id, position, &scope).await?;
    match changes.iter().map(|change| &**change).chain(&later.changes).find_map(refusal) {
        Some(refusal) => Err(refusal),
        None => Ok(later.pending.is_empty()),
    }
}

/// That it was refused, if the change says so.
fn refusal(change: &Change) -> Option<Problem> {
    let Subject::Refusal(refusal) = &change.subject else { return None };
    let refusal = RefusalShown::from(refusal);
    Some(Problem::new(Kind::Refused, refusal.text()).with_refusals(vec![refusal]))
}

/// Refuses what concerns sites that are out of reach.
fn within(scope: &Scope, verb: &Verb, state: &StateRead<'_>) -> Result<(), Problem> {
    let (of_site, field) = match verb {
        // Those that are named were looked for within the scope.
        Verb::OnAlarms(..) => return Ok(()),
        Verb::AddShelf(order) => (order.matcher.site.clone(), "match.site"),
        Verb::RemoveShelf(id) => {
            let mut shelves = state.shelves();
            (shelves.find(|shelf| shelf.id == *id).and_then(|shelf| shelf.order.matcher.site.clone()), "shelf")
        }
        Verb::Suppress { .. } | Verb::Unsuppress { .. } => (None, "alarm_type"),
        Verb::CreateToken(_) | Verb::RevokeToken(_) => (None, "name"),
    };
    if scope.is_all() || of_site.is_some_and(|site| scope.includes(&site)) {
        return Ok(());
    }
    Err(Problem::of_field(Kind::Forbidden, field, "concerns sites to which your rights do not extend"))
}

/// The action that `members` say. Every member is checked by itself first, so that what is wrong can be named.
fn action(acting: Acting, mut members: Map<String, Value>, targets: Option<Vec<Target>>) -> Result<Action, Problem> {
    let mut errors = Vec::new();
    for (name, value) in &members {
        let outcome = match name.as_str() {
            "action" => Ok(()),
            "note" | "text" | "reason" => check::<Option<Text>>(name, value).map(drop),
            "to" => check::<Option<Actor>>(name, value).map(drop),
            "until" | "starts_at" | "expires_at" => check::<Option<Timestamp>>(name, value).map(drop),
            "alarm_type" => check::<Option<AlarmType>>(name, value).map(drop),
            "shelf" | "id" => check::<Option<Uuid>>(name, value).map(drop),
            "match" => check_matcher(value),
            _ => Err(FieldError::new(quoted(name), "is unknown")),
        };
        errors.extend(outcome.err());
    }
    if !errors.is_empty() {
        return Err(Problem::of_fields(Kind::InvalidBody, errors));
    }
    members.retain(|_, value| !value.is_null());
    let id = match members.remove("id") {
        Some(value) => check("id", &value).map_err(of_field)?,
        None => ActionId(Uuid::new_v4()),
    };
    let expires_at = match members.remove("expires_at") {
        Some(value) => Some(check("expires_at", &value).map_err(of_field)?),
        None => None,
    };
    let mut order = members.clone();
    if targets.is_some() {
        order.insert("alarms".to_owned(), Value::Array(Vec::new()));
    }
    let order: ActionOrder = serde_json::from_value(Value::Object(order)).map_err(|error| {
        let message = error.to_string();
        match message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            Some(field) => invalid(field, "is missing"),
            None => Problem::new(Kind::InvalidBody, message),
        }
    })?;
    let kept = serde_json::to_value(&order).map_err(|error| Problem::internal(&error))?;
    if let Some(foreign) = members.keys().find(|name| kept.get(name).is_none()) {
        return Err(invalid(foreign, "has no meaning for this action"));
    }
    let order = match targets {
        Some(targets) => with_targets(order, targets),
        None => order,
    };
    let verb = Verb::try_from(order).map_err(|error| of_field(error.into()))?;
    let Acting { actor, from, .. } = acting;
    Ok(Action { id, actor, from: Some(from), ordered_at: None, expires_at, verb })
}

fn with_targets(mut order: ActionOrder, targets: Vec<Target>) -> ActionOrder {
    match &mut order {
        ActionOrder::Acknowledge { alarms, .. }
        | ActionOrder::Unacknowledge { alarms }
        | ActionOrder::Assign { alarms, .. }
        | ActionOrder::Note { alarms, .. }
        | ActionOrder::Shelve { alarms, .. }
        | ActionOrder::Unshelve { alarms }
        | ActionOrder::Clear { alarms, .. }
        | ActionOrder::Retire { alarms, .. }
        | ActionOrder::Purge { alarms } => *alarms = targets,
        ActionOrder::AddShelf(_)
        | ActionOrder::RemoveShelf { .. }
        | ActionOrder::Suppress { .. }
        | ActionOrder::Unsuppress { .. }
        | ActionOrder::CreateToken(_)
        | ActionOrder::RevokeToken { .. } => {}
    }
    order
}

fn check<T: DeserializeOwned>(name: &str, value: &Value) -> Result<T, FieldError> {
    T::deserialize(value).map_err(|error| FieldError::new(name, error.to_string()))
}

/// A matcher with a member that nobody knows would match more than was meant.
fn check_matcher(value: &Value) -> Result<(), FieldError> {
    let matcher: Option<Matcher> = check("match", value)?;
    let kept = serde_json::to_value(matcher).map_err(|error| FieldError::new("match", error.to_string()))?;
    let members = value.as_object().into_iter().flatten();
    match members.into_iter().find(|(name, member)| !member.is_null() && kept.get(name).is_none()) {
        Some((foreign, _)) => Err(FieldError::new(format!("match.{}", quoted(foreign)), "is unknown")),
        None => Ok(()),
    }
}

fn invalid(field: &str, reason: impl Into<String>) -> Problem {
    Problem::of_field(Kind::InvalidBody, field, reason)
}

fn of_field(error: FieldError) -> Problem {
    Problem::of_fields(Kind::InvalidBody, vec![error])
}

#[cfg(test)]
mod tests {
    use super::*;
    use klaxon_schemas::action::AlarmVerb;
    use klaxon_schemas::ids::AlarmId;
    use serde_json::json;

    fn parse(body: Value, targets: Option<Vec<Target>>) -> Result<Action, (String, String)> {
        let Value::Object(members) = body else { panic!("is an object") };
        let (actor, from) = (Actor::new("ada").expect("valid"), Text::new("the Unix socket").expect("valid"));
        action(Acting { actor, from, scope: Scope::all() }, members, targets).map_err(|problem| {
            let json = serde_json::to_value(&problem).expect("serializes");
            let text = |name: &str| json["errors"][0][name].as_str().unwrap_or_default().to_owned();
            (text("field"), text("reason"))
        })
    }

    fn one() -> Option<Vec<Target>> {
        Some(vec![Target { id: AlarmId(Uuid::nil()), raise_seq: Some(2) }])
    }

    #[test]
    fn an_order_becomes_an_action() {
        let action =
            parse(json!({"action": "acknowledge", "note": "mine", "id": Uuid::from_u128(7)}), one()).expect("is sound");
        assert_eq!((action.id.0.as_u128(), action.actor.as_str()), (7, "ada"));
        let Verb::OnAlarms(targets, AlarmVerb::Acknowledge { note: Some(note) }) = action.verb else {
            panic!("is acknowledge")
        };
        assert_eq!((targets.len(), note.as_str()), (1, "mine"));
        assert!(parse(json!({"action": "assign", "to": null}), one()).is_ok());
        let shelf = json!({"action": "add-shelf", "match": {"site": "a"}, "until": "2030-01-01T00:00:00Z", "reason": "x"});
        assert!(matches!(parse(shelf, None).map(|action| action.verb), Ok(Verb::AddShelf(_))));
        assert!(matches!(
            parse(json!({"action": "suppress", "alarm_type": "x"}), None).map(|action| action.verb),
            Ok(Verb::Suppress { .. })
        ));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |body| parse(body, one()).expect_err("is wrong").0;
        assert_eq!(field(json!({"action": "shelve", "reason": "x"})), "until");
        assert_eq!(field(json!({"action": "shelve", "reason": "x", "until": "tomorrow"})), "until");
        assert_eq!(field(json!({"action": "acknowledge", "note": 7})), "note");
        assert_eq!(field(json!({"action": "acknowledge", "note": "a\u{0}"})), "note");
        assert_eq!(field(json!({"action": "acknowledge", "txt": "x"})), "txt");
        assert_eq!(field(json!({"action": "acknowledge", "until": "2030-01-01T00:00:00Z"})), "until");
        assert_eq!(field(json!({"action": "note", "text": ""})), "text");
        assert_eq!(field(json!({"action": "acknowledge", "id": "x"})), "id");
        assert_eq!(field(json!({"action": "acknowledge", "expires_at": 1})), "expires_at");
        let without = |body| parse(body, None).expect_err("is wrong").0;
        let until = "2030-01-01T00:00:00Z";
        assert_eq!(without(json!({"action": "add-shelf", "match": {}, "until": until, "reason": "x"})), "match");
        assert_eq!(
            without(json!({"action": "add-shelf", "match": {"resorce": "a"}, "until": until, "reason": "x"})),
            "match.resorce"
        );
        assert_eq!(without(json!({"action": "add-shelf", "until": until, "reason": "x"})), "match");
        assert_eq!(without(json!({"action": "suppress"})), "alarm_type");
        assert_eq!(without(json!({"action": "remove-shelf", "shelf": "7"})), "shelf");
    }
}
