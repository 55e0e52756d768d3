//! What became of an action: known at once where this node owns the alarms, else when their owner has said so.
//!
//! ```text
//! journalled ─▶ nothing of it is on its way ───────────────▶ 200, or 409 if all was refused
//!           └─▶ on its way to owners ─▶ they say in time ──▶ 200, or 409
//!                                   └─▶ 2 s are over ──────▶ 202; from then on GET /actions/{id} tells
//! ```

use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use klaxon_schemas::access::Scope;
use klaxon_schemas::action::{AlarmVerb, Verb};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::child::PendingAction;
use klaxon_schemas::ids::{ActionId, AlarmId, Position};
use klaxon_schemas::names::{Actor, ChildName, Site};
use klaxon_schemas::state::StateKey;
use klaxon_schemas::time::Timestamp;
use klaxon_store::{HISTORY_LIMIT_MAX, HistoryQuery, Order, StateRead};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::guard::Caller;
use super::history::unreadable;
use super::openapi::{Always, Found};
use super::params::Query;
use super::problem::{Kind, Problem, RefusalShown};
use super::query::AtLeast;
use super::shown::{Lens, PlacedChange, blocking, json};

/// How long whoever acts waits for what the owners make of it.
const OWNERS_WAIT: Duration = Duration::from_secs(2);
/// The most pages of history that are looked through for what an action led to.
const PAGES_MAX: usize = 20;
/// The changes of an action stand before the note that it was seen, in one frame: that much earlier they are looked for.
const FRAME_RECORDS: u64 = 50_000;

/// An action that is on its way to the owner of alarms.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct PendingShown {
    /// Which.
    action: ActionId,
    /// To which node below.
    child: ChildName,
    /// What is to be done.
    verb: &'static str,
    /// Who ordered it.
    actor: Actor,
    /// When.
    since: Timestamp,
    /// When it is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// To which alarms; absent where one is shown, and of a shelf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    alarms: Vec<AlarmId>,
}

impl PendingShown {
    /// To which alarms.
    pub(crate) fn alarms(&self) -> &[AlarmId] {
        &self.alarms
    }

    /// What lies within `scope` of it: the child may be only on the way to the site.
    fn within(child: &ChildName, pending: &PendingAction, state: &StateRead<'_>, scope: &Scope) -> Option<Self> {
        let mut shown = Self::of(child, pending);
        if scope.is_all() {
            return Some(shown);
        }
        let is_in = |site: Option<&Site>| site.is_some_and(|site| scope.includes(site));
        let is_some_of_it = match &pending.action.verb {
            Verb::OnAlarms(..) => {
                shown.alarms.retain(|id| is_in(state.alarm(*id).map(|alarm| &alarm.key.site)));
                !shown.alarms.is_empty()
            }
            Verb::AddShelf(order) => is_in(order.matcher.site.as_ref()),
            Verb::RemoveShelf(id) => {
                state.shelves().find(|shelf| shelf.id == *id).is_some_and(|shelf| is_in(shelf.order.matcher.site.as_ref()))
            }
            Verb::Suppress { .. } | Verb::Unsuppress { .. } | Verb::CreateToken(_) | Verb::RevokeToken(_) => false,
        };
        is_some_of_it.then_some(shown)
    }

    fn of(child: &ChildName, pending: &PendingAction) -> Self {
        let alarms = match &pending.action.verb {
            Verb::OnAlarms(targets, _) => targets.iter().map(|target| target.id).collect(),
            _ => Vec::new(),
        };
        Self {
            action: pending.action.id,
            child: child.clone(),
            verb: verb_name(&pending.action.verb),
            actor: pending.action.actor.clone(),
            since: pending.ordered_at,
            expires_at: pending.action.expires_at,
            alarms,
        }
    }
}

/// The verb as an order names it.
fn verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::OnAlarms(_, AlarmVerb::Acknowledge { .. }) => "acknowledge",
        Verb::OnAlarms(_, AlarmVerb::Unacknowledge) => "unacknowledge",
        Verb::OnAlarms(_, AlarmVerb::Assign { .. }) => "assign",
        Verb::OnAlarms(_, AlarmVerb::Note { .. }) => "note",
        Verb::OnAlarms(_, AlarmVerb::Shelve { .. }) => "shelve",
        Verb::OnAlarms(_, AlarmVerb::Unshelve) => "unshelve",
        Verb::OnAlarms(_, AlarmVerb::Clear { .. }) => "clear",
        Verb::OnAlarms(_, AlarmVerb::Retire { .. }) => "retire",
        Verb::OnAlarms(_, AlarmVerb::Purge) => "purge",
        Verb::AddShelf(_) => "add-shelf",
        Verb::RemoveShelf(_) => "remove-shelf",
        Verb::Suppress { .. } => "suppress",
        Verb::Unsuppress { .. } => "unsuppress",
        Verb::CreateToken(_) => "create-token",
        Verb::RevokeToken(_) => "revoke-token",
    }
}

/// What is on its way to the owner of `alarm`, the first ordered first.
pub(crate) fn pending_on(state: &StateRead<'_>, alarm: AlarmId) -> Vec<PendingShown> {
    let Some(via) = state.alarm(alarm).and_then(|alarm| alarm.via.clone()) else { return Vec::new() };
    let ids = state.state().pending_on(alarm).iter();
    let all = ids.filter_map(|id| state.state().pending_action(*id).find(|(child, _)| **child == via));
    all.map(|(child, pending)| PendingShown { alarms: Vec::new(), ..PendingShown::of(child, pending) }).collect()
}

/// Where the action `id` is on its way to, as far as that lies within `scope`.
fn pending(state: &StateRead<'_>, id: ActionId, scope: &Scope) -> Vec<PendingShown> {
    let all = state.state().pending_action(id);
    all.filter_map(|(child, pending)| PendingShown::within(child, pending, state, scope)).collect()
}

/// What came of an action behind some position.
pub(crate) struct Later {
    /// Up to where the journal was looked at.
    pub(crate) position: Position,
    /// Where it is on its way to still.
    pub(crate) pending: Vec<PendingShown>,
    /// What was done, and refused, by the owners.
    pub(crate) changes: Vec<Change>,
}

/// Waits, for a while, until all owners have said what they made of the action `id`, which was journalled up to `after`; what that is,
/// within `scope`: whoever names the action of somebody else learns nothing by it.
pub(crate) async fn wait(api: &Api, id: ActionId, after: Position, scope: &Scope) -> Result<Later, Problem> {
    let is_pending = || api.store().read().state().pending_action(id).next().is_some();
    let mut committed = api.store().committed();
    if !is_pending() {
        return Ok(Later { position: after, pending: Vec::new(), changes: Vec::new() });
    }
    let settled = async {
        while is_pending() {
            // The store is gone: nothing more will come.
            if committed.changed().await.is_err() {
                break;
            }
        }
    };
    // Whoever waits is told that it is on its way, also when the node stops.
    let _ = tokio::time::timeout(OWNERS_WAIT, api.stop().run_until_cancelled(settled)).await;
    let (api, scope) = (api.clone(), scope.clone());
    blocking(move || {
        let (position, pending) = {
            let state = api.store().read();
            (state.position().max(after), pending(&state, id, &scope))
        };
        let (found, _) = changes(&api, id, &scope, after)?;
        Ok(Later { position, pending, changes: found.into_iter().map(|(_, change)| change).collect() })
    })
    .await
}

/// What the action `id` led to within `scope` behind `after`, the oldest first; and whether that is all. Reads files.
fn changes(api: &Api, id: ActionId, scope: &Scope, after: Position) -> Result<(Vec<(Position, Change)>, bool), Problem> {
    let mut found = Vec::new();
    let mut query = HistoryQuery {
        action: Some(id),
        scope: scope.clone(),
        order: Order::Ascending,
        cursor: Some(after),
        limit: HISTORY_LIMIT_MAX,
        ..HistoryQuery::default()
    };
    for _ in 0..PAGES_MAX {
        let page = api.store().history(&query).map_err(|error| unreadable(&error))?;
        found.extend(page.items);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok((found, true)),
        }
    }
    Ok((found, false))
}

/// How an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActionStatus {
    /// It is on its way to the owner of an alarm.
    Pending,
    /// It was carried out. What it led to may still be on its way here.
    Done,
    /// It was refused as a whole.
    Refused,
}

/// How an action stands, and what it led to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionShown {
    /// The action.
    id: ActionId,
    /// The state that this is of.
    position: Position,
    /// How it stands.
    status: ActionStatus,
    /// Where it is on its way to.
    pending: Vec<PendingShown>,
    /// What it led to, the oldest first.
    changes: Vec<PlacedChange>,
    /// What was not done, and why.
    refusals: Vec<RefusalShown>,
    /// Whether the history was too long to be looked through to its end: there may be more changes.
    more: bool,
}

/// The id of an action in a path.
pub(crate) struct ActionRef(ActionId);

impl<S: Send + Sync> FromRequestParts<S> for ActionRef {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::of_field(Kind::InvalidParameter, "id", reason);
        let text = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = text.map_err(|rejection| wrong(rejection.body_text()))?;
        text.parse().map(|id| Self(ActionId(id))).map_err(|_| wrong("is no UUID".to_owned()))
    }
}

/// Show how an action stands.
///
/// As long as its id is remembered: a day, unless set otherwise.
#[utoipa::path(
    get,
    path = "/actions/{id}",
    tag = "operators",
    operation_id = "showAction",
    params(("id" = uuid::Uuid, Path, description = "The action's id"), AtLeast),
    responses((status = 200, description = "How it stands", body = ActionShown), Always, Found)
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    ActionRef(id): ActionRef,
    Query(least): Query<AtLeast>,
) -> Result<Response, Problem> {
    api.reach(least.at_least).await?;
    blocking(move || {
        let (position, noted, pending, lens) = {
            let state = api.store().read();
            (
                state.position(),
                state.state().written_at(&StateKey::Action(id)),
                pending(&state, id, caller.scope()),
                Lens::of(&state),
            )
        };
        let not_remembered = || {
            let detail = format!("no action {id} is remembered; if one was carried out long ago, the history has its changes");
            Problem::new(Kind::NotFound, detail)
        };
        let noted = noted.or_else(|| (!pending.is_empty()).then_some(Position(0))).ok_or_else(not_remembered)?;
        let (found, is_all) = changes(&api, id, caller.scope(), Position(noted.0.saturating_sub(FRAME_RECORDS)))?;
        if found.is_empty() && pending.is_empty() && !caller.scope().is_all() {
            return Err(not_remembered());
        }
        let is_done = |change: &Change| change.kind != ChangeKind::Pending && !matches!(change.subject, Subject::Refusal(_));
        let mut shown =
            ActionShown { id, position, status: ActionStatus::Done, pending, changes: vec![], refusals: vec![], more: !is_all };
        let mut was_done = false;
        for (position, change) in &found {
            was_done |= is_done(change);
            match &change.subject {
                Subject::Refusal(refusal) => shown.refusals.push(refusal.into()),
                _ => shown.changes.push(lens.placed(*position, change)),
            }
        }
        if !shown.pending.is_empty() {
            shown.status = ActionStatus::Pending;
        } else if !was_done && !shown.refusals.is_empty() {
            shown.status = ActionStatus::Refused;
        }
        json(&shown)
    })
    .await
}
