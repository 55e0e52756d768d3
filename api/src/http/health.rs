//! Whether the process lives, and whether it takes events.

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::openapi::Always;
use super::params::{NoParams, Query};
use super::problem::Problem;
use super::shown::json;

/// Whether the node takes events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether it does.
    ready: bool,
    /// If not, why.
    reasons: Vec<&'static str>,
}

/// Tell whether the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "node",
    operation_id = "health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"), Always)
)]
pub(crate) async fn health(Query(NoParams): Query<NoParams>) -> &'static str {
    "ok\n"
}

/// Tell whether the node takes events.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "node",
    operation_id = "readiness",
    responses(
        (status = 200, description = "It does", body = Readiness),
        Always,
        (status = 503, description = "It does not, and why", body = Readiness),
    )
)]
pub(crate) async fn readiness(State(api): State<Api>, Query(NoParams): Query<NoParams>) -> Result<Response, Problem> {
    let info = api.store().info();
    let mut reasons = Vec::new();
    if !api.is_started() {
        reasons.push("starting");
    }
    if info.free_bytes.is_some_and(|free| free < info.free_space_watermark_bytes) {
        reasons.push("disk full");
    }
    if api.store().original().is_some_and(|original| original.reached_since.is_none()) {
        reasons.push("journal away");
    }
    if api.stop().is_cancelled() {
        reasons.push("stopping");
    }
    let ready = reasons.is_empty();
    let mut response = json(&Readiness { ready, reasons })?;
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        response.extensions_mut().insert(super::problem::IsNoProblem);
    }
    Ok(response.into_response())
}
