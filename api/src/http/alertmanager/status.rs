//! What an Alertmanager says of itself. Clients go by the version, and read the configuration as YAML.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use klaxon_schemas::time::Timestamp;
use serde_json::{Value, json};

use super::super::Api;
use super::super::health;
use super::super::metrics::{MetricKind, MetricsText};
use super::super::params::{NoParams, Query};
use super::super::problem::{IsNoProblem, Problem};
use super::super::shown;
use super::time::Written;
use super::{AlertmanagerConfig, RECEIVER};
use crate::clock;

/// The release of Alertmanager whose API this is.
const VERSION: &str = "0.27.0";
/// Where it says whether it lives, and whether it takes alerts; shown to anybody.
pub(crate) const OPEN_PATHS: [&str; 2] = ["/-/healthy", "/-/ready"];

/// Version, configuration, and that there is no cluster.
pub(super) async fn show(State(api): State<Api>) -> Result<Response, Problem> {
    let version = json!({
        "version": VERSION,
        "revision": format!("klaxon-{}", env!("CARGO_PKG_VERSION")),
        "branch": "klaxon",
        "buildUser": "klaxon",
        "buildDate": "",
        "goVersion": "none",
    });
    shown::json(&json!({
        "cluster": { "status": "disabled", "peers": [] },
        "config": { "original": original(&api.config().alertmanager) },
        "uptime": Written(started_at(&api)),
        "versionInfo": version,
    }))
}

/// The one receiver that stands for all.
pub(super) async fn receivers() -> Result<Response, Problem> {
    shown::json(&json!([{ "name": RECEIVER }]))
}

/// Whether the process lives.
pub(super) async fn healthy() -> &'static str {
    "OK"
}

/// Whether the node takes alerts.
pub(super) async fn ready(State(api): State<Api>) -> Result<Response, Problem> {
    let readiness = health::readiness(State(api), Query(NoParams)).await?;
    let mut response = match readiness.status() {
        StatusCode::OK => (StatusCode::OK, "OK").into_response(),
        other => (other, "not ready; /readyz says why").into_response(),
    };
    response.extensions_mut().insert(IsNoProblem);
    Ok(response)
}

/// The metric by which clients tell releases of Alertmanager apart.
pub(crate) fn metrics(text: &mut MetricsText) {
    let name = "alertmanager_build_info";
    text.family(name, MetricKind::Gauge, "The release of Alertmanager whose API is served; always 1.");
    text.sample(name, &[("version", VERSION)], 1);
}

/// The smallest configuration of an Alertmanager that would show alerts in the same way. A JSON string is one of YAML.
fn original(config: &AlertmanagerConfig) -> String {
    let mut yaml = format!("global:\n  resolve_timeout: {}s\n", config.resolve_timeout.as_secs());
    write!(yaml, "route:\n  receiver: {RECEIVER}\n  group_by: {}\n", Value::from(config.group_by.clone())).expect("writes");
    write!(yaml, "receivers:\n- name: {RECEIVER}\n").expect("writes");
    yaml
}

/// When the engine began, by the wall clock.
fn started_at(api: &Api) -> Timestamp {
    let state = api.store().read();
    let cursor = state.state().cursor();
    let up = i64::try_from(cursor.at.since(cursor.started_at).as_micros()).unwrap_or(i64::MAX);
    if cursor.wall == Timestamp::default() { clock::now() } else { cursor.wall.saturating_add_micros(-up) }
}
