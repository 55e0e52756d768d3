//! What there is at the roots: which versions, and what they have. It is shown to anybody.

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::problem::Problem;
use super::super::shown::json;
use super::fault::Always;
use super::shown::Base;

/// Where something is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = StarlingxLink)]
pub(super) struct Link {
    href: String,
    rel: &'static str,
}

impl Link {
    pub(super) fn itself(href: String) -> Self {
        Self { href, rel: "self" }
    }

    /// The same without the version.
    pub(super) fn bookmark(href: String) -> Self {
        Self { href, rel: "bookmark" }
    }
}

#[derive(Clone, Serialize)]
struct Version {
    id: &'static str,
    links: Vec<Link>,
}

impl Version {
    fn at(base: &str, id: &'static str) -> Self {
        Self { id, links: vec![Link::itself(format!("{base}/{id}/"))] }
    }
}

#[derive(Serialize)]
struct Root {
    name: &'static str,
    description: &'static str,
    versions: Vec<Version>,
    default_version: Version,
}

/// The root of Fault Management.
pub(super) async fn of_fault_management(Base(base): Base) -> Result<Response, Problem> {
    let version = Version::at(&base, "v1");
    json(&Root {
        name: "Fault Management API",
        description: "The alarms and events of this node, as StarlingX Fault Management shows them.",
        versions: vec![version.clone()],
        default_version: version,
    })
}

/// The root of Distributed Cloud.
pub(super) async fn of_distributed_cloud(Base(base): Base) -> Result<Response, Problem> {
    let version = Version::at(&base, "v1.0");
    json(&Root {
        name: "Distributed Cloud Manager API",
        description: "How many alarms the sites below this node have.",
        versions: vec![version.clone()],
        default_version: version,
    })
}

#[derive(Debug, Serialize, ToSchema)]
struct MediaType {
    base: &'static str,
    r#type: &'static str,
}

/// What a version has.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StarlingxVersion)]
pub(crate) struct V1 {
    id: &'static str,
    media_types: Vec<MediaType>,
    links: Vec<Link>,
    alarms: Vec<Link>,
    event_log: Vec<Link>,
    event_suppression: Vec<Link>,
}

/// Show what version 1 of Fault Management has.
#[utoipa::path(
    get,
    path = "/v1",
    tag = "starlingx",
    operation_id = "starlingxVersion",
    responses((status = 200, description = "Where what is", body = V1), Always)
)]
pub(super) async fn v1(Base(base): Base) -> Result<Response, Problem> {
    let of = |list: &str| vec![Link::itself(format!("{base}/v1/{list}/")), Link::bookmark(format!("{base}/{list}/"))];
    json(&V1 {
        id: "v1",
        media_types: vec![MediaType { base: "application/json", r#type: "application/vnd.openstack.fm.v1+json" }],
        links: vec![Link::itself(format!("{base}/v1/"))],
        alarms: of("alarms"),
        event_log: of("event_log"),
        event_suppression: of("event_suppression"),
    })
}

/// The document of version 1.
pub(super) fn of_v1() -> Router<Api> {
    Router::new().route("/v1", get(v1)).route("/v1/", get(v1))
}
