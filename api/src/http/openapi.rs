//! The API's description of itself, made from the handlers. What it leaves out does not exist; the page at `/` is no part of
//! the API, but a client of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi as Text, Ref, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi};

use super::Api;
use super::params::{NoParams, Query};
use super::problem::{Content, PROBLEM_JSON};
use super::stream::{Hello, Reset};

/// What the description begins with.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Klaxon",
        description = "Reports come in as events and become alarms, lasting states of resources. Problems are RFC 9457, but \
                       for those of the interfaces that are StarlingX's. \
                       Parameters that are not described here are refused."
    ),
    modifiers(&WaysToBeKnown),
    components(schemas(Content, Hello, Reset, klaxon_schemas::wire::v1::Change, klaxon_schemas::wire::v1::Touched)),
    tags(
        (name = "events", description = "What is reported"),
        (name = "heartbeats", description = "Who has promised to be heard from; silence is an alarm"),
        (name = "alarms", description = "What lasts"),
        (name = "history", description = "What happened"),
        (name = "operators", description = "What people do about it; acting needs a token, or the Unix socket"),
        (name = "receivers", description = "Who is told of alarms"),
        (name = "sites", description = "The nodes below this one"),
        (name = "catalogue", description = "What is known of alarm types"),
        (name = "node", description = "The node itself"),
    )
)]
pub(crate) struct Description;

/// How a client says who it is: all ways are good everywhere. On the node's own host nothing needs to be said to read and report.
struct WaysToBeKnown;

impl Modify for WaysToBeKnown {
    fn modify(&self, text: &mut Text) {
        let ways = [
            ("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer))),
            ("basic", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic))),
            ("x_auth_token", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Auth-Token")))),
            ("certificate", SecurityScheme::MutualTls { description: None, extensions: None }),
        ];
        let any_of = ways.iter().map(|(name, _)| SecurityRequirement::new(*name, Vec::<String>::new()));
        text.security = Some(any_of.chain([SecurityRequirement::default()]).collect());
        let components = text.components.get_or_insert_default();
        components.security_schemes.extend(ways.map(|(name, way)| (name.to_owned(), way)));
    }
}

/// The description as it is served.
#[derive(Debug, Clone)]
pub(crate) struct DescriptionText(pub(crate) Arc<std::sync::OnceLock<Bytes>>);

/// Show this description.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "node",
    operation_id = "describe",
    responses((status = 200, description = "OpenAPI 3.1", body = Object), Always)
)]
pub(crate) async fn show(State(api): State<Api>, Query(NoParams): Query<NoParams>) -> Response {
    let text = api.description().0.get().cloned().unwrap_or_default();
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

/// What any handler may answer.
pub(crate) struct Always;
/// What a handler that looks for something may answer.
pub(crate) struct Found;
/// What a handler that takes events may answer.
pub(crate) struct Intake;
/// What a handler that takes actions may answer.
pub(crate) struct Acts;

impl IntoResponses for Always {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        problems(&[
            (400, "The request, or one of its parameters, is wrong"),
            (401, "Nobody is known by what was shown, or nothing was; or there were too many wrong tokens from there"),
            (403, "Whoever asks may not do this, or a page from elsewhere asks"),
            (421, "The header host does not name this node"),
            (429, "More than one client's share; come again"),
            (500, "Something broke"),
            (503, "Too much at once, not there yet, or stopping; come again"),
        ])
    }
}

impl IntoResponses for Found {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        problems(&[(404, "There is no such thing"), (409, "The short id may mean several alarms, or the action was refused")])
    }
}

impl IntoResponses for Intake {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let mut responses = bodies();
        responses.extend(problems(&[(422, "None of the events was good"), (507, "The disk has no room")]));
        responses
    }
}

impl IntoResponses for Acts {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let mut responses = bodies();
        responses.extend(problems(&[(422, "The body says what cannot be"), (507, "The disk has no room")]));
        responses
    }
}

fn bodies() -> BTreeMap<String, RefOr<Described>> {
    problems(&[
        (408, "The body did not come in time"),
        (413, "The body is too large, or has too many events"),
        (415, "The body is of a form that is not read here"),
    ])
}

fn problems(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<Described>> {
    let described = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build()
    };
    statuses.iter().map(|(status, description)| (status.to_string(), RefOr::T(described(description)))).collect()
}
