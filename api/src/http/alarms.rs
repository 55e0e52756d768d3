//! Alarms: listed, counted, and one by one; with them what hides them, and the catalogue that explains them.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Digest, TypeEntry};
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{AlarmType, Site};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Shelf, Suppression};
use klaxon_schemas::wire::v1;
use klaxon_store::{ALARMS_LIMIT_MAX, AlarmCursor, AlarmQuery, Counts, SeverityCounts, StateRead};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::guard::Caller;
use super::history::page;
use super::openapi::{Always, Found};
use super::outcome::{self, PendingShown};
use super::params::{NoParams, Query};
use super::problem::{Kind, Problem, quoted};
use super::query::{AlarmFilter, AlarmHistoryParams, AlarmList, AlarmPaging, AtLeast};
use super::shown::{Lens, PlacedChange, Rows, blocking, json, json_sized};

/// About how long one alarm is when it is written.
const ALARM_BYTES: usize = 900;
/// A page with more rows than this is written where it holds nobody up.
const ROWS_INLINE_MAX: usize = 500;
/// The fewest digits of a shortened id.
const SHORT_ID_DIGITS_MIN: usize = 4;
/// How many alarms are named when a short id may mean several.
const CANDIDATES_MAX: usize = 10;

/// One page of alarms.
#[derive(Serialize, ToSchema)]
pub(crate) struct AlarmsAnswer {
    /// The state that this is of. A stream `from` here goes on where this ends.
    position: Position,
    /// The numbering of changes.
    epoch: Epoch,
    /// The alarms, in the order that was asked for.
    #[schema(value_type = Vec<v1::Alarm>)]
    alarms: Rows,
    /// The cursor of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many alarms there are, whatever was asked for.
    counts: Totals,
}

/// How many alarms are not cleared, and of what kind; one alarm may be several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub(crate) struct Totals {
    /// All that are not cleared.
    active: u64,
    /// The same by severity.
    by_severity: BySeverity,
    /// Acknowledged ones.
    acknowledged: u64,
    /// Shelved ones.
    shelved: u64,
    /// Those of a suppressed type.
    suppressed: u64,
    /// Stale ones.
    stale: u64,
    /// Cleared ones that are still there on request; not among `active`.
    cleared: u64,
}

/// How many alarms have which severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub(crate) struct BySeverity {
    critical: u64,
    major: u64,
    minor: u64,
    warning: u64,
    indeterminate: u64,
}

impl BySeverity {
    fn of(count: impl Fn(Severity) -> u64) -> Self {
        Self {
            critical: count(Severity::Critical),
            major: count(Severity::Major),
            minor: count(Severity::Minor),
            warning: count(Severity::Warning),
            indeterminate: count(Severity::Indeterminate),
        }
    }
}

impl Totals {
    /// The sums over all sites.
    pub(crate) fn of(counts: &Counts) -> Self {
        let sum = |pick: fn(&SeverityCounts) -> u64| -> u64 {
            counts.sites.values().flat_map(|site| site.by_severity.iter()).map(pick).sum()
        };
        Self {
            active: sum(|counts| counts.total),
            by_severity: BySeverity::of(|severity| counts.sites.values().map(|site| site.of(severity).total).sum()),
            acknowledged: sum(|counts| counts.acknowledged),
            shelved: sum(|counts| counts.shelved),
            suppressed: sum(|counts| counts.suppressed),
            stale: sum(|counts| counts.stale),
            cleared: counts.cleared(),
        }
    }
}

/// List alarms.
///
/// Those that are not cleared, the most severe first, unless asked for otherwise.
#[utoipa::path(
    get,
    path = "/alarms",
    tag = "alarms",
    operation_id = "listAlarms",
    params(AlarmFilter, AlarmPaging),
    responses((status = 200, description = "One page of alarms", body = AlarmsAnswer), Always)
)]
pub(crate) async fn list(State(api): State<Api>, caller: Caller, Query(list): Query<AlarmList>) -> Result<Response, Problem> {
    api.reach(list.paging.at_least).await?;
    if list.paging.limit > ROWS_INLINE_MAX || list.filter.is_laborious() {
        blocking(move || answer_list(&api, caller.scope(), list)).await
    } else {
        answer_list(&api, caller.scope(), list)
    }
}

fn answer_list(api: &Api, scope: &Scope, list: AlarmList) -> Result<Response, Problem> {
    let AlarmList { filter, paging } = list;
    let query = AlarmQuery {
        scope: scope.clone(),
        sort: paging.sort.unwrap_or_default().into(),
        order: paging.order.unwrap_or_default().into(),
        after: paging.cursor,
        limit: paging.limit,
        ..filter.query()
    };
    let (answer, rows) = {
        let state = api.store().read();
        let (alarms, next) = pick(&state, query, &filter);
        let rows = alarms.len();
        let answer = AlarmsAnswer {
            position: state.position(),
            epoch: api.store().epoch(),
            alarms: Rows { lens: Lens::over(&state, &alarms), alarms },
            next: next.map(|cursor| cursor.to_string()),
            counts: Totals::of(&state.counts().within(scope)),
        };
        (answer, rows)
    };
    json_sized(&answer, 512 + rows * ALARM_BYTES)
}

/// One page of what `filter` picks, where the store's `query` may bring more.
pub(crate) fn pick(
    state: &StateRead<'_>,
    mut query: AlarmQuery,
    filter: &AlarmFilter,
) -> (Vec<Arc<Alarm>>, Option<AlarmCursor>) {
    if filter.is_said_by_query() {
        let page = state.list(&query);
        return (page.items, page.next);
    }
    let limit = query.limit;
    query.limit = ALARMS_LIMIT_MAX;
    let mut picked: Vec<Arc<Alarm>> = Vec::new();
    loop {
        let page = state.list(&query);
        for alarm in page.items.into_iter().filter(|alarm| filter.picks(alarm.severity)) {
            if picked.len() == limit {
                let next = picked.last().map(|last| AlarmCursor::of(last, query.sort));
                return (picked, next);
            }
            picked.push(alarm);
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return (picked, None),
        }
    }
}

/// The state of all sites in a few numbers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Summary {
    /// The state that this is of.
    position: Position,
    /// The numbering of changes.
    epoch: Epoch,
    /// `critical` with a critical alarm, `degraded` with a major or minor one, else `ok`. Shelved alarms and suppressed
    /// types do not count for it.
    status: Status,
    #[serde(flatten)]
    totals: Totals,
    /// The sites that have alarms, by name.
    by_site: Vec<SiteSummary>,
}

/// How things are, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Nothing worse than a warning.
    Ok,
    /// A major or minor alarm.
    Degraded,
    /// A critical alarm.
    Critical,
}

impl Status {
    fn of(counts: &Counts) -> Self {
        let shown = |severity| counts.sites.values().any(|site| site.of(severity).shown > 0);
        if shown(Severity::Critical) {
            Self::Critical
        } else if shown(Severity::Major) || shown(Severity::Minor) {
            Self::Degraded
        } else {
            Self::Ok
        }
    }
}

/// The alarms of one site that are not cleared.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SiteSummary {
    /// Which.
    site: Site,
    /// All.
    active: u64,
    #[serde(flatten)]
    by_severity: BySeverity,
}

/// Count alarms.
#[utoipa::path(
    get,
    path = "/alarms/summary",
    tag = "alarms",
    operation_id = "summarizeAlarms",
    params(AtLeast),
    responses((status = 200, description = "How many alarms there are", body = Summary), Always)
)]
pub(crate) async fn summary(State(api): State<Api>, caller: Caller, Query(least): Query<AtLeast>) -> Result<Response, Problem> {
    api.reach(least.at_least).await?;
    let (position, counts) = {
        let state = api.store().read();
        (state.position(), state.counts().within(caller.scope()))
    };
    let by_site = counts.sites.iter().map(|(site, counts)| SiteSummary {
        site: site.clone(),
        active: counts.by_severity.iter().map(|counts| counts.total).sum(),
        by_severity: BySeverity::of(|severity| counts.of(severity).total),
    });
    json(&Summary {
        position,
        epoch: api.store().epoch(),
        status: Status::of(&counts),
        totals: Totals::of(&counts),
        by_site: by_site.collect(),
    })
}

/// The id of an alarm in a path: a UUID, or its first digits.
pub(crate) struct AlarmRef(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for AlarmRef {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state).await.map(Self)
    }
}

/// The one part of a path that is open.
async fn path_part<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, Problem> {
    match Path::<String>::from_request_parts(parts, state).await {
        Ok(Path(part)) => Ok(part),
        Err(rejection) => Err(Problem::of_field(Kind::InvalidParameter, "id", rejection.body_text())),
    }
}

/// The alarm within `scope` that `reference` means: a UUID, or enough of its first digits.
pub(crate) fn find(state: &StateRead<'_>, scope: &Scope, reference: &str) -> Result<Arc<Alarm>, Problem> {
    let digits: String = reference.chars().filter(|character| *character != '-').collect();
    let well_formed =
        (SHORT_ID_DIGITS_MIN..=32).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !well_formed {
        let reason =
            format!("{} is neither a UUID nor the first {SHORT_ID_DIGITS_MIN} or more of its digits", quoted(reference));
        return Err(Problem::of_field(Kind::InvalidParameter, "id", reason));
    }
    let not_found = || {
        let detail = format!("there is no alarm {}; if it was purged or retired, the history still has it", quoted(reference));
        Problem::new(Kind::NotFound, detail)
    };
    if digits.len() == 32 {
        let id = Uuid::try_parse(&digits).map(AlarmId).map_err(|_| not_found())?;
        return state.alarm(id).filter(|alarm| scope.includes(&alarm.key.site)).cloned().ok_or_else(not_found);
    }
    let found = state.find_by_prefix(&digits.to_ascii_lowercase(), scope, CANDIDATES_MAX);
    match found[..] {
        [] => Err(not_found()),
        [alarm] => Ok(Arc::clone(alarm)),
        _ => {
            let detail = format!("{} may mean several alarms; give more digits", quoted(reference));
            Err(Problem::new(Kind::Ambiguous, detail).with_candidates(found.iter().map(|alarm| alarm.id).collect()))
        }
    }
}

/// One alarm with what belongs to it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlarmAnswer {
    /// The state that this is of.
    position: Position,
    /// The alarm.
    alarm: v1::Alarm,
    /// What is on its way to its owner, the first ordered first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pending: Vec<PendingShown>,
    /// What the catalogue knows of its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    catalogue: Option<TypeEntry>,
    /// Its changes, the newest first.
    history: Vec<PlacedChange>,
    /// The cursor of older changes; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Show one alarm, and how it came to be what it is.
#[utoipa::path(
    get,
    path = "/alarms/{id}",
    tag = "alarms",
    operation_id = "showAlarm",
    params(("id" = String, Path, description = "The alarm's UUID, or its first digits, at least four"), AlarmHistoryParams),
    responses((status = 200, description = "The alarm", body = AlarmAnswer), Always, Found)
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    AlarmRef(reference): AlarmRef,
    Query(params): Query<AlarmHistoryParams>,
) -> Result<Response, Problem> {
    api.reach(params.at_least).await?;
    let (position, alarm, lens, pending) = {
        let state = api.store().read();
        let alarm = find(&state, caller.scope(), &reference)?;
        let pending = outcome::pending_on(&state, alarm.id);
        (state.position(), Arc::clone(&alarm), Lens::over(&state, &[alarm]), pending)
    };
    blocking(move || {
        let history = page(&api, &params.query(alarm.id))?;
        json(&AlarmAnswer {
            position,
            alarm: lens.alarm(&alarm),
            pending,
            catalogue: lens.entry(&alarm.key.alarm_type).cloned(),
            history: history.items.iter().map(|(position, change)| lens.placed(*position, change)).collect(),
            next: history.next.map(|position| position.to_string()),
        })
    })
    .await
}

/// The types that are known.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CatalogueAnswer {
    /// Names this content; absent while no catalogue is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// The types, by id.
    types: Vec<TypeEntry>,
}

/// List the alarm types that are known.
#[utoipa::path(
    get,
    path = "/catalogue",
    tag = "catalogue",
    operation_id = "listTypes",
    responses((status = 200, description = "The catalogue in force", body = CatalogueAnswer), Always)
)]
pub(crate) async fn catalogue(State(api): State<Api>, Query(NoParams): Query<NoParams>) -> Result<Response, Problem> {
    let catalogue = api.store().read().catalogue();
    json(&CatalogueAnswer {
        digest: catalogue.as_ref().map(|catalogue| catalogue.digest().clone()),
        types: catalogue.iter().flat_map(|catalogue| catalogue.iter()).cloned().collect(),
    })
}

/// The name of an alarm type in a path.
pub(crate) struct TypeRef(String);

impl<S: Send + Sync> FromRequestParts<S> for TypeRef {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_part(parts, state).await.map(Self)
    }
}

/// Show one alarm type.
#[utoipa::path(
    get,
    path = "/catalogue/{id}",
    tag = "catalogue",
    operation_id = "showType",
    params(("id" = String, Path, description = "The type's id, or an id under which StarlingX knows it")),
    responses((status = 200, description = "The type", body = TypeEntry), Always, Found)
)]
pub(crate) async fn catalogue_entry(
    State(api): State<Api>,
    TypeRef(id): TypeRef,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let catalogue = api.store().read().catalogue();
    match catalogue.as_ref().and_then(|catalogue| catalogue.get(&id)) {
        Some(entry) => json(entry),
        None => Err(Problem::new(Kind::NotFound, format!("the catalogue does not know the type {}", quoted(&id)))),
    }
}

/// A suppressed type.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuppressedType {
    /// Which.
    alarm_type: AlarmType,
    #[serde(flatten)]
    suppression: Suppression,
}

/// The suppressed types.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuppressionsAnswer {
    /// The state that this is of.
    position: Position,
    /// The types, by name.
    suppressions: Vec<SuppressedType>,
}

/// List the suppressed types.
#[utoipa::path(
    get,
    path = "/suppressions",
    tag = "operators",
    operation_id = "listSuppressions",
    params(AtLeast),
    responses((status = 200, description = "The suppressed types", body = SuppressionsAnswer), Always)
)]
pub(crate) async fn suppressions(State(api): State<Api>, Query(least): Query<AtLeast>) -> Result<Response, Problem> {
    api.reach(least.at_least).await?;
    let mut answer = {
        let state = api.store().read();
        let suppressions = state.suppressions().map(|(alarm_type, suppression)| SuppressedType {
            alarm_type: alarm_type.clone(),
            suppression: (**suppression).clone(),
        });
        SuppressionsAnswer { position: state.position(), suppressions: suppressions.collect() }
    };
    answer.suppressions.sort_by(|one, other| one.alarm_type.cmp(&other.alarm_type));
    json(&answer)
}

/// The shelves.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShelvesAnswer {
    /// The state that this is of.
    position: Position,
    /// The shelves, the oldest first.
    shelves: Vec<Shelf>,
}

/// List the shelves.
#[utoipa::path(
    get,
    path = "/shelves",
    tag = "operators",
    operation_id = "listShelves",
    params(AtLeast),
    responses((status = 200, description = "The shelves", body = ShelvesAnswer), Always)
)]
pub(crate) async fn shelves(State(api): State<Api>, caller: Caller, Query(least): Query<AtLeast>) -> Result<Response, Problem> {
    api.reach(least.at_least).await?;
    let mut answer = {
        let state = api.store().read();
        let scope = caller.scope();
        let is_seen =
            |shelf: &Shelf| scope.is_all() || shelf.order.matcher.site.as_ref().is_some_and(|site| scope.includes(site));
        let stands = |shelf: &Shelf| shelf.forgotten_at.is_none();
        let shelves = state.shelves().filter(|shelf| stands(shelf) && is_seen(shelf)).map(|shelf| (**shelf).clone());
        ShelvesAnswer { position: state.position(), shelves: shelves.collect() }
    };
    answer.shelves.sort_by_key(|shelf| (shelf.at, shelf.id));
    json(&answer)
}
