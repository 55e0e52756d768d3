//! What happened: the changes, by alarm, place, type, kind, time or text.

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::ids::Position;
use klaxon_store::{HistoryPage, HistoryQuery, ReadError};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::guard::Caller;
use super::openapi::Always;
use super::params::Query;
use super::problem::{Kind, Problem};
use super::query::HistoryParams;
use super::shown::{Lens, PlacedChange, blocking, json_sized};

/// About how long one change is when it is written.
const CHANGE_BYTES: usize = 1200;

/// One page of changes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryAnswer {
    /// Up to where the history goes.
    position: Position,
    /// The changes, in the order that was asked for.
    changes: Vec<PlacedChange>,
    /// The cursor of the next page; absent at the end. A page may be short, even empty, and still have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// List changes.
#[utoipa::path(
    get,
    path = "/history",
    tag = "history",
    operation_id = "listChanges",
    params(HistoryParams),
    responses((status = 200, description = "One page of changes", body = HistoryAnswer), Always)
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(params): Query<HistoryParams>,
) -> Result<Response, Problem> {
    api.reach(params.at_least).await?;
    let query = HistoryQuery { scope: caller.scope().clone(), ..params.into() };
    blocking(move || {
        let (position, lens) = {
            let state = api.store().read();
            (state.position(), Lens::of(&state))
        };
        let page = page(&api, &query)?;
        let answer = HistoryAnswer {
            position,
            changes: page.items.iter().map(|(position, change)| lens.placed(*position, change)).collect(),
            next: page.next.map(|position| position.to_string()),
        };
        json_sized(&answer, 256 + answer.changes.len() * CHANGE_BYTES)
    })
    .await
}

/// One page of history. Reads files.
pub(crate) fn page(api: &Api, query: &HistoryQuery) -> Result<HistoryPage, Problem> {
    api.store().history(query).map_err(|error| unreadable(&error))
}

/// Why the journal cannot be read, as a problem.
pub(crate) fn unreadable(error: &ReadError) -> Problem {
    match error {
        ReadError::Gap { .. } | ReadError::Beyond { .. } => {
            Problem::of_field(Kind::InvalidParameter, "cursor", error.to_string())
        }
        // Which part, the log and an alarm say; where the files lie is no business of a client.
        ReadError::Damaged(_) => {
            Problem::new(Kind::Internal, "a part of the journal is damaged; an alarm and the log say which")
        }
        ReadError::Io { .. } => Problem::internal(error),
    }
}
