//! The collectors of this node, and what they see.

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::wire::v1::Collector;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::guard::Caller;
use super::openapi::Always;
use super::params::{NoParams, Query};
use super::problem::Problem;
use super::shown::json;

/// Tells how the collectors are.
pub type CollectorsShown = Box<dyn Fn() -> Vec<Collector> + Send + Sync>;

/// The collectors.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectorsAnswer {
    /// Each that is on, by name.
    collectors: Vec<Collector>,
}

/// List the collectors of this node and what they saw last.
#[utoipa::path(
    get,
    path = "/collectors",
    tag = "node",
    operation_id = "listCollectors",
    responses((status = 200, description = "The collectors that are on, by name", body = CollectorsAnswer), Always)
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    caller.demand_site(api.site())?;
    json(&CollectorsAnswer { collectors: api.collectors() })
}
