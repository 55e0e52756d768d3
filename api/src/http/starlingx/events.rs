//! The event log: what was raised, changed and cleared, and log events, out of history.
//!
//! An event's uuid says where it stands in this node's journal, so a page begins behind any of them without a search, for as long as
//! history is kept.

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::change::{Change, ChangeKind};
use klaxon_schemas::ids::Position;
use klaxon_store::{HISTORY_LIMIT_MAX, HistoryPage, HistoryQuery, Order};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::Api;
use super::super::guard::Caller;
use super::super::history::page;
use super::super::params::{FromParams, NoParams, Params, Query};
use super::super::problem::{Kind, Problem};
use super::super::shown::{blocking, json, json_sized};
use super::alarms::Named;
use super::asked::{Conditions, DIRECTIONS, Direction, Field, OfLists, Paging, Turned, is_asked};
use super::fault::{Always, Found};
use super::shown::{ALARM_KINDS, Base, EventShown, Facts, View, event_uuid, position_of};

/// About how long one event is when it is written.
const EVENT_BYTES: usize = 400;
/// The most pages of history that are looked through for one page of events: then `next` goes on.
const PAGES_MAX: usize = 64;

const FIELDS: [(&str, Field); 8] = [
    ("uuid", Field::Uuid),
    ("event_log_id", Field::Id),
    ("entity_type_id", Field::EntityType),
    ("entity_instance_id", Field::Entity),
    ("severity", Field::Severity),
    ("event_log_type", Field::LogType),
    ("start", Field::Start),
    ("end", Field::End),
];
/// An event stands where it does because of when it happened: there is no other order.
const SORTS: [(&str, ()); 3] = [("timestamp", ()), ("created_at", ()), ("id", ())];

/// Which events, in which order.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsAsked {
    /// What each condition is about: `uuid`, `event_log_id`, `entity_type_id`, `entity_instance_id`, `severity`, `event_log_type`, `start`
    /// or `end`.
    #[param(rename = "q.field", value_type = Option<Vec<String>>)]
    conditions: Conditions,
    /// At most so many; 2000 unless said otherwise, and never more.
    #[param(rename = "limit", value_type = Option<u64>)]
    paging: Paging,
    /// Only `timestamp`.
    #[param(value_type = Option<String>)]
    sort_key: (),
    /// `asc` or `desc`, the newest first, unless said otherwise.
    #[param(value_type = Option<String>)]
    sort_dir: Direction,
    /// Only what happened to alarms.
    #[param(required = false)]
    alarms: bool,
    /// Only log events.
    #[param(required = false)]
    logs: bool,
    /// With those of suppressed types.
    #[param(required = false)]
    include_suppress: bool,
    /// With everything that is known of each.
    #[param(required = false)]
    expand: bool,
}

impl FromParams for EventsAsked {
    fn take(params: &mut Params) -> Self {
        Self {
            conditions: Conditions::take(params, &FIELDS),
            paging: Paging::take(params),
            sort_key: params.word("sort_key", &SORTS).unwrap_or_default(),
            sort_dir: params.word("sort_dir", &DIRECTIONS).unwrap_or(Direction::Descending),
            alarms: is_asked(params, "alarms"),
            logs: is_asked(params, "logs"),
            include_suppress: is_asked(params, "include_suppress"),
            expand: is_asked(params, "expand"),
        }
    }
}

/// One page of events.
#[derive(Serialize, ToSchema)]
#[schema(as = StarlingxEvents)]
pub(crate) struct EventsAnswer {
    event_log: Vec<EventShown>,
    /// Where the next page is; absent at the end. A page may be short, even empty, and still have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List what happened.
#[utoipa::path(
    get,
    path = "/v1/event_log",
    tag = "starlingx",
    operation_id = "starlingxEvents",
    params(OfLists, EventsAsked),
    responses((status = 200, description = "One page of events", body = EventsAnswer), Always)
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Base(base): Base,
    Query(asked): Query<EventsAsked>,
) -> Result<Response, Problem> {
    blocking(move || {
        let view = View::of(&api, &api.store().read());
        let HistoryPage { items: found, next } = asked.search(&api, caller.scope(), &view)?;
        let events = found.iter().filter_map(|(position, change)| view.event(*position, change));
        let event_log: Vec<_> = events.map(|event| event.shown_event(asked.expand)).collect();
        let last = found.last().map(|(position, change)| event_uuid(*position, change));
        let next = next.map(|next| asked.next(&base, last, next));
        let bytes = 512 + event_log.len() * EVENT_BYTES;
        json_sized(&EventsAnswer { event_log, next }, bytes)
    })
    .await
}

impl EventsAsked {
    /// The events of a page, and where the next begins.
    fn search(&self, api: &Api, scope: &Scope, view: &View) -> Result<HistoryPage, Problem> {
        let mut query = self.query(scope, view)?;
        let limit = self.paging.limit;
        let mut found: Vec<(Position, Change)> = Vec::new();
        for _ in 0..PAGES_MAX {
            let history = page(api, &query)?;
            for (position, change) in history.items {
                let is_picked = view.event(position, &change).is_some_and(|event| self.picks(&event));
                if !is_picked {
                    continue;
                }
                if found.len() == limit {
                    let next = found.last().map(|(position, _)| *position);
                    return Ok(HistoryPage { items: found, next });
                }
                found.push((position, change));
            }
            match history.next {
                Some(next) => query.cursor = Some(next),
                None => return Ok(HistoryPage { items: found, next: None }),
            }
        }
        Ok(HistoryPage { items: found, next: query.cursor })
    }

    fn query(&self, scope: &Scope, view: &View) -> Result<HistoryQuery, Problem> {
        let mut kinds = Vec::new();
        if self.alarms || !self.logs {
            kinds.extend(ALARM_KINDS);
        }
        if self.logs || !self.alarms {
            kinds.push(ChangeKind::Logged);
        }
        let wrong = |field, reason: &str| Problem::of_field(Kind::InvalidParameter, field, reason);
        let cursor = match (&self.paging.after, self.paging.marker) {
            (Some(after), _) => {
                let position = after.parse().map(Position);
                Some(position.map_err(|_| wrong("after", "is no place in the log"))?)
            }
            (None, Some(marker)) => {
                Some(position_of(marker).ok_or_else(|| wrong("marker", "is the uuid of no event of this log"))?)
            }
            (None, None) => None,
        };
        let (from, until) = self.conditions.span();
        let order = match self.sort_dir {
            Direction::Ascending => Order::Ascending,
            Direction::Descending => Order::Descending,
        };
        // Where some are left out, more are looked at than there is room for.
        let is_plain = self.conditions.is_empty() && (self.include_suppress || view.suppressed().next().is_none());
        let limit = if is_plain { (self.paging.limit + 1).min(HISTORY_LIMIT_MAX) } else { HISTORY_LIMIT_MAX };
        Ok(HistoryQuery { scope: scope.clone(), kinds, from, until, order, cursor, limit, ..HistoryQuery::default() })
    }

    fn picks(&self, event: &Facts<'_>) -> bool {
        (self.include_suppress || event.is_log() || !event.is_suppressed()) && self.conditions.pick(|field| event.field(field))
    }

    fn next(&self, base: &str, marker: Option<Uuid>, after: Position) -> String {
        let asked = [
            ("alarms", self.alarms),
            ("logs", self.logs),
            ("include_suppress", self.include_suppress),
            ("expand", self.expand),
        ];
        Turned {
            list: "event_log",
            base,
            conditions: &self.conditions,
            fields: &FIELDS,
            sort: Some(("timestamp", self.sort_dir)),
            limit: self.paging.limit,
            more: asked.into_iter().filter(|(_, is)| *is).map(|(name, _)| format!("{name}=True&")).collect(),
            marker,
            after: Some(after.to_string()),
        }
        .next()
    }
}

/// Show one event.
#[utoipa::path(
    get,
    path = "/v1/event_log/{uuid}",
    tag = "starlingx",
    operation_id = "starlingxEvent",
    params(("uuid" = Uuid, Path, description = "The event's")),
    responses((status = 200, description = "The event", body = EventShown), Always, Found)
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Named(uuid): Named,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    blocking(move || {
        let view = View::of(&api, &api.store().read());
        let gone = || Problem::new(Kind::NotFound, format!("there is no event {uuid}, or history does not reach back to it"));
        let position = position_of(uuid).ok_or_else(gone)?;
        let cursor = Some(Position(position.0.saturating_add(1)));
        let query = HistoryQuery { scope: caller.scope().clone(), cursor, limit: 1, ..HistoryQuery::default() };
        let found = page(&api, &query)?.items.into_iter().next();
        let found = found.filter(|(position, change)| event_uuid(*position, change) == uuid);
        let (position, change) = found.ok_or_else(gone)?;
        json(&view.event(position, &change).ok_or_else(gone)?.shown_event(true))
    })
    .await
}

/// The uuid under which the change of this number is shown, which stands behind `after`. Reads files.
pub(super) fn uuid_behind(api: &Api, after: Position, change: &Change) -> Result<Option<Uuid>, Problem> {
    let query = HistoryQuery {
        kinds: vec![change.kind],
        order: Order::Ascending,
        cursor: Some(after),
        limit: HISTORY_LIMIT_MAX,
        ..HistoryQuery::default()
    };
    let found =
        page(api, &query)?.items.into_iter().find(|(_, other)| other.site == change.site && other.number == change.number);
    Ok(found.map(|(position, change)| event_uuid(position, &change)))
}
