//! How StarlingX says no: a JSON object with a text that is a JSON object.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

use super::super::request_id::RequestId;

/// By which header answers name their requests.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// What is said if something is refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FaultAnswer {
    /// A JSON object as text: `faultcode` is `Client` or `Server`, `faultstring` says what is wrong, `debuginfo` is null.
    error_message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
struct Fault<'a> {
    #[serde(rename = "faultcode")]
    code: &'static str,
    #[serde(rename = "faultstring")]
    string: &'a str,
    #[serde(rename = "debuginfo")]
    info: Option<&'a str>,
}

/// What is wrong, in words, in this form; and the status that goes with it. There is no 422.
pub(crate) fn fault(status: StatusCode, detail: &str) -> (StatusCode, Vec<u8>) {
    let code = if status.is_server_error() { "Server" } else { "Client" };
    let fault = serde_json::to_string(&Fault { code, string: detail, info: None }).unwrap_or_default();
    let status = if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
    (status, serde_json::to_vec(&FaultAnswer { error_message: fault }).unwrap_or_default())
}

/// Says to which request it is the answer, as OpenStack does.
pub(crate) fn name_request(id: &RequestId, response: &mut Response) {
    if let Ok(value) = HeaderValue::from_str(&format!("req-{}", id.as_str())) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
}

/// What any of the handlers may answer.
pub(super) struct Always;
/// What a handler that looks for something may answer.
pub(super) struct Found;
/// What a handler that changes something may answer.
pub(super) struct Changes;

impl IntoResponses for Always {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        faults(&[
            (400, "The request, or one of its parameters, is wrong"),
            (401, "Whoever asks must be known by name"),
            (403, "They may not, or not on this connection"),
            (421, "The header host does not name this node"),
            (429, "Too much at once from this client"),
            (500, "Something broke"),
            (503, "Too much at once, or stopping; come again"),
        ])
    }
}

impl IntoResponses for Found {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        faults(&[(404, "There is no such thing")])
    }
}

impl IntoResponses for Changes {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        faults(&[
            (408, "The body did not come in time"),
            (409, "It was refused"),
            (413, "The body is too large"),
            (415, "The body is no JSON"),
            (507, "The disk has no room"),
        ])
    }
}

fn faults(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<Described>> {
    let described = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("FaultAnswer"))).build();
        ResponseBuilder::new().description(description).content("application/json", content).build()
    };
    statuses.iter().map(|(status, description)| (status.to_string(), RefOr::T(described(description)))).collect()
}
