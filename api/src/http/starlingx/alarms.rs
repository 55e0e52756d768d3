//! Alarms: listed, counted, shown, and cleared by an operator.
//!
//! A list is answered from an order that the store keeps wherever there is one for it. Sorted by `uuid`, it is one that no alarm ever
//! leaves, so an alarm that stands all the while is met exactly once; in others one that moves over the place where a page ends is met
//! twice or not at all.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use klaxon_schemas::access::Scope;
use klaxon_schemas::action::{AlarmVerb, Target, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::severity::Severity;
use klaxon_store::{ALARMS_LIMIT_MAX, AlarmCursor, AlarmQuery, AlarmSort, Order, StateRead};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Api;
use super::super::actions::see_through;
use super::super::guard::{Acting, Caller};
use super::super::params::{FromParams, NoParams, Params, Query};
use super::super::problem::{Kind, Problem};
use super::super::shown::{blocking, json, json_sized};
use super::asked::{Conditions, DIRECTIONS, Direction, Field, LIMIT_MAX, OfLists, Paging, Turned, is_asked, uuid};
use super::fault::{Always, Changes, Found};
use super::shown::{AlarmShown, Base, View};

/// About how long one alarm is when it is written.
const ALARM_BYTES: usize = 400;
/// A page with more rows than this is written where it holds nobody up.
const ROWS_INLINE_MAX: usize = 200;
/// How many alarms are looked at in one step where few may be picked.
const STEP: usize = 1000;

const FIELDS: [(&str, Field); 6] = [
    ("uuid", Field::Uuid),
    ("alarm_id", Field::Id),
    ("entity_type_id", Field::EntityType),
    ("entity_instance_id", Field::Entity),
    ("severity", Field::Severity),
    ("alarm_type", Field::Type),
];
const SORTS: [(&str, Sort); 10] = [
    ("severity", Sort::Kept(AlarmSort::Severity)),
    ("timestamp", Sort::Kept(AlarmSort::RaisedAt)),
    ("created_at", Sort::Kept(AlarmSort::RaisedAt)),
    ("updated_at", Sort::Kept(AlarmSort::ChangedAt)),
    ("id", Sort::Id),
    ("uuid", Sort::Id),
    ("alarm_id", Sort::Shown(Field::Id)),
    ("entity_type_id", Sort::Shown(Field::EntityType)),
    ("entity_instance_id", Sort::Shown(Field::Entity)),
    ("alarm_type", Sort::Shown(Field::Type)),
];

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// What the store knows an order for.
    Kept(AlarmSort),
    /// The uuid.
    Id,
    /// What is shown in a field, then the uuid.
    Shown(Field),
}

/// Which alarms, in which order.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlarmsAsked {
    /// What each condition is about: `uuid`, `alarm_id`, `entity_type_id`, `entity_instance_id`, `severity` or `alarm_type`.
    #[param(rename = "q.field", value_type = Option<Vec<String>>)]
    conditions: Conditions,
    /// At most so many; 2000 unless said otherwise, and never more.
    #[param(rename = "limit", value_type = Option<u64>)]
    paging: Paging,
    /// Sorted by what; the most severe first unless said otherwise.
    #[param(value_type = Option<String>)]
    sort_key: Option<Sort>,
    /// `asc` or `desc`.
    #[param(value_type = Option<String>)]
    sort_dir: Option<Direction>,
    /// With those that are suppressed or shelved.
    #[param(required = false)]
    include_suppress: bool,
    /// With everything that is known of each.
    #[param(required = false)]
    expand: bool,
}

impl FromParams for AlarmsAsked {
    fn take(params: &mut Params) -> Self {
        Self {
            conditions: Conditions::take(params, &FIELDS),
            paging: Paging::take(params),
            sort_key: params.word("sort_key", &SORTS),
            sort_dir: params.word("sort_dir", &DIRECTIONS),
            include_suppress: is_asked(params, "include_suppress"),
            expand: is_asked(params, "expand"),
        }
    }
}

impl AlarmsAsked {
    fn sort(&self) -> (Sort, Direction) {
        match (self.sort_key, self.sort_dir) {
            (None, direction) => (Sort::Kept(AlarmSort::Severity), direction.unwrap_or(Direction::Descending)),
            (Some(sort), direction) => (sort, direction.unwrap_or(Direction::Ascending)),
        }
    }

    /// Whether few of many alarms may be picked, or all must be looked at to know the first.
    fn is_laborious(&self) -> bool {
        let by_what_is_kept = matches!(self.sort(), (Sort::Kept(AlarmSort::Severity), _) | (Sort::Id, Direction::Ascending));
        self.paging.limit > ROWS_INLINE_MAX || !self.conditions.is_empty() || !by_what_is_kept
    }
}

/// One page of alarms.
#[derive(Serialize, ToSchema)]
#[schema(as = StarlingxAlarms)]
pub(crate) struct AlarmsAnswer {
    alarms: Vec<AlarmShown>,
    /// Where the next page is; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List alarms that are not cleared.
#[utoipa::path(
    get,
    path = "/v1/alarms",
    tag = "starlingx",
    operation_id = "starlingxAlarms",
    params(OfLists, AlarmsAsked),
    responses((status = 200, description = "One page of alarms", body = AlarmsAnswer), Always)
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Base(base): Base,
    Query(asked): Query<AlarmsAsked>,
) -> Result<Response, Problem> {
    if asked.is_laborious() {
        blocking(move || answer(&api, caller.scope(), &base, &asked)).await
    } else {
        answer(&api, caller.scope(), &base, &asked)
    }
}

fn answer(api: &Api, scope: &Scope, base: &str, asked: &AlarmsAsked) -> Result<Response, Problem> {
    let (view, mut picked) = {
        let state = api.store().read();
        let view = View::of(api, &state);
        let picked = Search { state: &state, view: &view, scope, asked }.page()?;
        (view, picked)
    };
    let is_more = picked.len() > asked.paging.limit;
    picked.truncate(asked.paging.limit);
    let next = picked.last().filter(|_| is_more).map(|last| asked.next(base, &view, last));
    let alarms: Vec<_> = picked.iter().map(|alarm| view.alarm(alarm).shown_alarm(asked.expand)).collect();
    let bytes = 512 + alarms.len() * ALARM_BYTES;
    json_sized(&AlarmsAnswer { alarms, next }, bytes)
}

impl AlarmsAsked {
    fn next(&self, base: &str, view: &View, last: &Alarm) -> String {
        let (sort, direction) = self.sort();
        let truth = |name: &str, is: bool| if is { format!("{name}=True&") } else { String::new() };
        Turned {
            list: "alarms",
            base,
            conditions: &self.conditions,
            fields: &FIELDS,
            sort: SORTS.iter().find(|(_, known)| *known == sort).map(|(word, _)| (*word, direction)),
            limit: self.paging.limit,
            more: truth("include_suppress", self.include_suppress) + &truth("expand", self.expand),
            marker: Some(last.id.0),
            after: match sort {
                Sort::Kept(sort) => Some(AlarmCursor::of(last, sort).to_string()),
                Sort::Id => None,
                Sort::Shown(field) => Some(view.alarm(last).field(field).into_owned()),
            },
        }
        .next()
    }
}

/// What a page is made of.
struct Search<'a> {
    state: &'a StateRead<'a>,
    view: &'a View,
    scope: &'a Scope,
    asked: &'a AlarmsAsked,
}

impl Search<'_> {
    /// The alarms of a page, and one more if there are more.
    fn page(&self) -> Result<Vec<Arc<Alarm>>, Problem> {
        match self.asked.sort() {
            (Sort::Kept(sort), direction) => self.in_kept_order(sort, direction),
            (Sort::Id, Direction::Ascending) => Ok(self.by_id()),
            (Sort::Id, Direction::Descending) => self.sorted(Field::Uuid, Direction::Descending),
            (Sort::Shown(field), direction) => self.sorted(field, direction),
        }
    }

    fn enough(&self) -> usize {
        self.asked.paging.limit + 1
    }

    fn query(&self) -> AlarmQuery {
        let hidden = (!self.asked.include_suppress).then_some(false);
        AlarmQuery { scope: self.scope.clone(), suppressed: hidden, shelved: hidden, ..AlarmQuery::default() }
    }

    fn picks(&self, alarm: &Alarm) -> bool {
        self.asked.conditions.is_empty() || {
            let facts = self.view.alarm(alarm);
            self.asked.conditions.pick(|field| facts.field(field))
        }
    }

    fn in_kept_order(&self, sort: AlarmSort, direction: Direction) -> Result<Vec<Arc<Alarm>>, Problem> {
        let order = match direction {
            Direction::Ascending => Order::Ascending,
            Direction::Descending => Order::Descending,
        };
        let limit = if self.asked.conditions.is_empty() { self.enough() } else { ALARMS_LIMIT_MAX };
        let mut query = AlarmQuery { sort, order, limit, after: self.cursor(sort)?, ..self.query() };
        let mut picked = Vec::new();
        loop {
            let page = self.state.list(&query);
            let wanted = self.enough() - picked.len();
            picked.extend(page.items.into_iter().filter(|alarm| self.picks(alarm)).take(wanted));
            match page.next {
                Some(next) if picked.len() < self.enough() => query.after = Some(next),
                _ => return Ok(picked),
            }
        }
    }

    fn cursor(&self, sort: AlarmSort) -> Result<Option<AlarmCursor>, Problem> {
        if let Some(after) = &self.asked.paging.after {
            let cursor = after.parse().ok().filter(|cursor: &AlarmCursor| cursor.sort() == sort);
            return cursor.map(Some).ok_or_else(|| wrong_after("is no place in a list that is sorted so"));
        }
        Ok(self.marked()?.map(|alarm| AlarmCursor::of(&alarm, sort)))
    }

    /// The alarm that the marker names. It may have been cleared meanwhile.
    fn marked(&self) -> Result<Option<Arc<Alarm>>, Problem> {
        let Some(marker) = self.asked.paging.marker else { return Ok(None) };
        let marked = self.state.alarm(AlarmId(marker)).filter(|alarm| self.scope.includes(&alarm.key.site));
        let gone = || {
            let reason = format!("{marker} is no alarm, or none any more; follow next, or sort by uuid");
            Problem::of_field(Kind::InvalidParameter, "marker", reason)
        };
        marked.cloned().map(Some).ok_or_else(gone)
    }

    /// Every alarm has its place by itself, so it matters not what became of that which the marker names.
    fn by_id(&self) -> Vec<Arc<Alarm>> {
        let mut after = self.asked.paging.marker.map(AlarmId);
        let mut picked = Vec::new();
        loop {
            let step = self.state.state().alarms_behind(after, STEP);
            after = step.last().map(|last| last.id);
            let wanted = self.enough() - picked.len();
            let is_last = step.len() < STEP;
            picked.extend(step.into_iter().filter(|alarm| self.is_listed(alarm) && self.picks(alarm)).take(wanted));
            if is_last || picked.len() == self.enough() {
                return picked;
            }
        }
    }

    /// What the store's query says, where it is not asked.
    fn is_listed(&self, alarm: &Alarm) -> bool {
        let is_shown = || self.asked.include_suppress || !self.view.alarm(alarm).is_suppressed();
        alarm.is_active() && self.scope.includes(&alarm.key.site) && is_shown()
    }

    /// No order is kept for it, so all are looked at.
    fn sorted(&self, field: Field, direction: Direction) -> Result<Vec<Arc<Alarm>>, Problem> {
        let shown = |alarm: &Alarm| self.view.alarm(alarm).field(field).into_owned();
        let place = match (self.asked.paging.marker, &self.asked.paging.after) {
            (Some(marker), Some(after)) => Some((after.clone(), AlarmId(marker))),
            (None, Some(_)) => return Err(wrong_after("stands beside a marker only")),
            (Some(marker), None) if field == Field::Uuid => Some((marker.to_string(), AlarmId(marker))),
            (_, None) => self.marked()?.map(|alarm| (shown(&alarm), alarm.id)),
        };
        let turn = |ordering: Ordering| match direction {
            Direction::Ascending => ordering,
            Direction::Descending => ordering.reverse(),
        };
        let listed = self.state.alarms().filter(|alarm| self.is_listed(alarm) && self.picks(alarm));
        let mut found: Vec<_> = listed.map(|alarm| (shown(alarm), alarm.id)).collect();
        if let Some(place) = place {
            found.retain(|one| turn(one.cmp(&place)).is_gt());
        }
        if found.len() > self.enough() {
            found.select_nth_unstable_by(self.enough(), |one, other| turn(one.cmp(other)));
            found.truncate(self.enough());
        }
        found.sort_unstable_by(|one, other| turn(one.cmp(other)));
        Ok(found.into_iter().filter_map(|(_, id)| self.state.alarm(id).cloned()).collect())
    }
}

fn wrong_after(reason: &str) -> Problem {
    Problem::of_field(Kind::InvalidParameter, "after", reason)
}

/// What is to be counted.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SummaryAsked {
    /// With those that are suppressed or shelved.
    #[param(required = false)]
    include_suppress: bool,
}

impl FromParams for SummaryAsked {
    fn take(params: &mut Params) -> Self {
        Self { include_suppress: is_asked(params, "include_suppress") }
    }
}

/// How many alarms there are.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = StarlingxSummary)]
pub(crate) struct SummaryAnswer {
    pub(super) critical: u64,
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) warnings: u64,
    /// `critical` with a critical alarm, `degraded` with a major or minor one, else `OK`.
    pub(super) status: &'static str,
}

impl SummaryAnswer {
    /// What `count` says of each severity.
    pub(super) fn of(count: impl Fn(Severity) -> u64) -> Self {
        let (critical, major, minor) = (count(Severity::Critical), count(Severity::Major), count(Severity::Minor));
        let warnings = count(Severity::Warning) + count(Severity::Indeterminate);
        let status = match () {
            () if critical > 0 => "critical",
            () if major + minor > 0 => "degraded",
            () => "OK",
        };
        Self { critical, major, minor, warnings, status }
    }
}

/// Count alarms that are not cleared.
#[utoipa::path(
    get,
    path = "/v1/alarms/summary",
    tag = "starlingx",
    operation_id = "starlingxSummary",
    params(SummaryAsked),
    responses((status = 200, description = "How many alarms there are", body = SummaryAnswer), Always)
)]
pub(super) async fn summary(
    State(api): State<Api>,
    caller: Caller,
    Query(asked): Query<SummaryAsked>,
) -> Result<Response, Problem> {
    let counts = api.store().read().counts().within(caller.scope());
    json(&SummaryAnswer::of(|severity| {
        let of_sites = counts.sites.values().map(|site| site.of(severity));
        of_sites.map(|counts| if asked.include_suppress { counts.total } else { counts.shown }).sum()
    }))
}

/// A uuid in a path.
pub(crate) struct Named(pub(super) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::of_field(Kind::InvalidParameter, "uuid", reason);
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| wrong(rejection.body_text()))?;
        uuid(&text).map(Self).map_err(wrong)
    }
}

/// The alarm that is not cleared.
fn find(state: &StateRead<'_>, scope: &Scope, uuid: Uuid) -> Result<Arc<Alarm>, Problem> {
    let alarm = state.alarm(AlarmId(uuid)).filter(|alarm| alarm.is_active() && scope.includes(&alarm.key.site));
    alarm.cloned().ok_or_else(|| Problem::new(Kind::NotFound, format!("there is no active alarm {uuid}")))
}

/// Show one alarm that is not cleared.
#[utoipa::path(
    get,
    path = "/v1/alarms/{uuid}",
    tag = "starlingx",
    operation_id = "starlingxAlarm",
    params(("uuid" = Uuid, Path, description = "The alarm's")),
    responses((status = 200, description = "The alarm", body = AlarmShown), Always, Found)
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Named(uuid): Named,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let (view, alarm) = {
        let state = api.store().read();
        (View::of(&api, &state), find(&state, caller.scope(), uuid)?)
    };
    json(&view.alarm(&alarm).shown_alarm(true))
}

/// Clear one alarm, as an operator.
///
/// The next report of it raises it again. What another site owns is cleared there; the answer waits up to two seconds for it.
#[utoipa::path(
    delete,
    path = "/v1/alarms/{uuid}",
    tag = "starlingx",
    operation_id = "starlingxDelete",
    params(("uuid" = Uuid, Path, description = "The alarm's")),
    responses(
        (status = 202, description = "It is on its way to the site that owns the alarm"),
        (status = 204, description = "It is cleared"),
        Always,
        Found,
        Changes
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    acting: Acting,
    Named(uuid): Named,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let alarm = find(&api.store().read(), &acting.scope, uuid)?;
    let target = Target { id: alarm.id, raise_seq: Some(alarm.raise_seq) };
    let is_done = see_through(&api, acting, Verb::OnAlarms(vec![target], AlarmVerb::Clear { note: None })).await?;
    let status = if is_done { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
    Ok(status.into_response())
}

const _: () = assert!(LIMIT_MAX < ALARMS_LIMIT_MAX, "one more than a page must fit into one of the store");
