//! The REST interface of StarlingX Fault Management, and Distributed Cloud's summary of alarms, for programs that know no other: an
//! unmodified `fm`, dashboards, orchestrators.
//!
//! | there | here |
//! |---|---|
//! | alarm, by its uuid | alarm that is not cleared, by its id; it stays the same for as long as the alarm is there |
//! | alarm_id | the id by which StarlingX knows the type (`starlingx_id` of the catalogue), else the type itself |
//! | entity_instance_id | resource; that of another site below `system=SITE`, a qualifier as last part, as in the tables of SNMP |
//! | timestamp | when this episode began |
//! | suppressed alarm | alarm of a suppressed type, or shelved: hidden unless `include_suppress` asks for it |
//! | event log | history: what was raised, changed and cleared, and log events; the uuid says where one stands (`events.rs`) |
//! | delete an alarm | an operator clears it |
//! | subcloud | site below |
//!
//! Lists end with a `next` that goes on to the end whatever comes and goes; all operators of `q` count, and sorting sorts. What is
//! refused is said in their form (`fault.rs`). A listener may serve nothing else ([`Serves`]); the version may then be left out.

mod alarms;
mod asked;
mod events;
mod fault;
mod report;
mod shown;
mod subclouds;
mod suppression;
#[cfg(test)]
mod tests;
mod versions;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post};
use klaxon_schemas::access::Right;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::OpenApi;

pub(crate) use fault::{fault, name_request};

use super::serve::Serves;
use super::{Api, bounds, guard};

/// What the description of all interfaces says of these.
#[derive(OpenApi)]
#[openapi(
    paths(
        alarms::list,
        alarms::summary,
        alarms::show,
        alarms::delete,
        report::post,
        events::list,
        events::show,
        suppression::list,
        suppression::show,
        suppression::change,
        subclouds::summary,
        versions::v1,
    ),
    components(schemas(fault::FaultAnswer)),
    tags((name = "starlingx", description = "As StarlingX Fault Management and Distributed Cloud have it"))
)]
pub(crate) struct Described;

/// The versions of the interfaces, which stand at the beginning of their paths.
const FM: &str = "/v1";
const DCMANAGER: &str = "/v1.0";

/// Whether what is at `path` answers as StarlingX does.
pub(crate) fn is_theirs(serves: Serves, path: &str) -> bool {
    let is_under = |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    serves != Serves::Everything || is_under(FM) || is_under(DCMANAGER)
}

/// What a listener serves of it.
pub(crate) fn routes(api: &Api, serves: Serves) -> Router<Api> {
    match serves {
        Serves::Everything => fault_management(api, FM).merge(distributed_cloud(api)).merge(versions::of_v1()),
        Serves::Starlingx => {
            let all = fault_management(api, FM).merge(fault_management(api, ""));
            all.merge(versions::of_v1()).merge(Router::new().route("/", get(versions::of_fault_management)))
        }
        Serves::Dcmanager => distributed_cloud(api).merge(Router::new().route("/", get(versions::of_distributed_cloud))),
    }
}

/// Fault Management, with paths that begin with `base`. Its lists have a slash at their end in the links that it gives.
fn fault_management(api: &Api, base: &str) -> Router<Api> {
    let needs = |right: Right| from_fn_with_state((api.clone(), right), guard::demand);
    let at = |path: &str| format!("{base}{path}");
    let reporting = Router::new()
        .route(&at("/alarms"), post(report::post))
        .route(&at("/alarms/"), post(report::post))
        .route_layer(needs(Right::Publish));
    let operating = Router::new()
        .route(&at("/alarms/{uuid}"), delete(alarms::delete))
        .route(&at("/event_suppression/{uuid}"), patch(suppression::change))
        .route_layer(needs(Right::Operate));
    let mut showing = Router::new()
        .route(&at("/alarms/summary"), get(alarms::summary))
        .route(&at("/alarms/{uuid}"), get(alarms::show))
        .route(&at("/event_log/{uuid}"), get(events::show))
        .route(&at("/event_suppression/{uuid}"), get(suppression::show));
    for end in ["", "/"] {
        showing = showing
            .route(&at(&format!("/alarms{end}")), get(alarms::list))
            .route(&at(&format!("/event_log{end}")), get(events::list))
            .route(&at(&format!("/event_suppression{end}")), get(suppression::list));
    }
    let taking = reporting.merge(operating).layer(RequestDecompressionLayer::new().gzip(true).zstd(true));
    taking.merge(showing.route_layer(needs(Right::Read))).layer(from_fn_with_state(api.clone(), bounds))
}

/// What Distributed Cloud says of the alarms of its subclouds.
fn distributed_cloud(api: &Api) -> Router<Api> {
    Router::new()
        .route("/v1.0/alarms", get(subclouds::summary))
        .route("/v1.0/alarms/", get(subclouds::summary))
        .route_layer(from_fn_with_state((api.clone(), Right::Read), guard::demand))
        .layer(from_fn_with_state(api.clone(), bounds))
}
