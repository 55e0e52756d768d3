//! Alertmanager's API, version 2: Prometheus sends its alerts here, and amtool, karma and Grafana read and silence here, as they would
//! at an Alertmanager.
//!
//! | there | here |
//! |---|---|
//! | alert | alarm; its labels and annotations are kept as they came (`intake.rs`) |
//! | end of an alert | the end that its reporter declares, by which the engine clears it |
//! | silence | shelf that picks by labels (`silences.rs`) |
//! | route, inhibition, cluster | none: who is told is said by `[receivers]` |
//!
//! What is refused is answered as Alertmanager does, with a JSON string (`problem.rs`). `docs/ALERTMANAGER.md` says what differs.

mod alerts;
mod config;
mod filter;
mod intake;
mod silences;
mod status;
mod time;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use klaxon_schemas::access::Right;
use tower_http::decompression::RequestDecompressionLayer;

pub use config::AlertmanagerConfig;
pub(crate) use status::{OPEN_PATHS, metrics};

use super::{Api, bounds, guard};

/// What all paths of the API begin with.
pub(crate) const BASE: &str = "/api/v2/";
/// The receiver that stands for all of this node's: an alert of Alertmanager has one, and groups are a receiver's.
const RECEIVER: &str = "klaxon";

/// All paths of the API, and those at the root that clients of Alertmanager look at.
pub(crate) fn routes(api: &Api) -> Router<Api> {
    let needs = |right: Right| from_fn_with_state((api.clone(), right), guard::demand);
    let reporting = Router::new().route("/api/v2/alerts", axum::routing::post(intake::post)).route_layer(needs(Right::Publish));
    let operating = Router::new()
        .route("/api/v2/silences", axum::routing::post(silences::post))
        .route("/api/v2/silence/{id}", axum::routing::delete(silences::delete))
        .route_layer(needs(Right::Operate));
    let showing = Router::new()
        .route("/api/v2/alerts", get(alerts::list))
        .route("/api/v2/alerts/groups", get(alerts::groups))
        .route("/api/v2/silences", get(silences::list))
        .route("/api/v2/silence/{id}", get(silences::show))
        .route("/api/v2/status", get(status::show))
        .route("/api/v2/receivers", get(status::receivers))
        .route_layer(needs(Right::Read));
    let taking = reporting.merge(operating).layer(RequestDecompressionLayer::new().gzip(true).zstd(true));
    let bounded = taking.merge(showing).layer(from_fn_with_state(api.clone(), bounds));
    let open = Router::new().route(OPEN_PATHS[0], get(status::healthy)).route(OPEN_PATHS[1], get(status::ready));
    bounded.merge(open)
}
