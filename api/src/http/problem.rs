//! Problems (RFC 9457): the one form in which the API says no.
//!
//! A handler returns a [`Problem`]. It travels beside an empty response up to [`render`], which knows the id of the request
//! and writes the body. There, too, what the layers refuse on their own (no such path, wrong method) becomes a problem.

use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use klaxon_schemas::change::Refusal;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::wire::v1::InputError;
use serde::Serialize;
use utoipa::ToSchema;

use super::events::EventResult;
use super::request_id::RequestId;
use super::serve::{Reached, Serves};
use super::starlingx;

/// The media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// What a client that was refused for lack of room or time is told to wait.
const RETRY_AFTER_S: u32 = 2;
/// The most characters of a client's own text that a problem repeats.
const QUOTED_CHARS_MAX: usize = 80;

/// The kinds of problems. Each has a type URI, a title and a status; the same kind always means the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request itself cannot be read.
    BadRequest,
    /// A query parameter or a part of the path is wrong.
    InvalidParameter,
    /// The body is no JSON.
    MalformedBody,
    /// The body is JSON, and says what cannot be.
    InvalidBody,
    /// None of the events was good.
    NothingAccepted,
    /// Nothing proves who it is.
    Unauthorized,
    /// Not on this connection.
    Forbidden,
    /// The request was meant for somebody else.
    Misdirected,
    /// No such thing.
    NotFound,
    /// No such method on this path.
    MethodNotAllowed,
    /// The client did not send its request in time.
    RequestTimeout,
    /// A short id stands for several alarms.
    Ambiguous,
    /// The owner refused the action.
    Refused,
    /// More than is taken at once.
    TooLarge,
    /// A body of a form that is not read here.
    UnsupportedMediaType,
    /// Something broke here.
    Internal,
    /// Too much of this at once from this client.
    TooMany,
    /// Too much at once; later it may work.
    Busy,
    /// The state has not come as far as was asked for.
    NotThereYet,
    /// The node is stopping.
    Stopping,
    /// It took too long.
    TimedOut,
    /// The disk has no room.
    DiskFull,
}

impl Kind {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "urn:klaxon:problem:bad-request", "Bad request"),
            Self::InvalidParameter => (StatusCode::BAD_REQUEST, "urn:klaxon:problem:invalid-parameter", "Invalid parameter"),
            Self::MalformedBody => (StatusCode::BAD_REQUEST, "urn:klaxon:problem:malformed-body", "Malformed body"),
            Self::InvalidBody => (StatusCode::UNPROCESSABLE_ENTITY, "urn:klaxon:problem:invalid-body", "Invalid body"),
            Self::NothingAccepted => {
                (StatusCode::UNPROCESSABLE_ENTITY, "urn:klaxon:problem:nothing-accepted", "None of the events was accepted")
            }
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "urn:klaxon:problem:unauthorized", "Unauthorized"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "urn:klaxon:problem:forbidden", "Forbidden"),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "urn:klaxon:problem:misdirected", "Misdirected request"),
            Self::NotFound => (StatusCode::NOT_FOUND, "urn:klaxon:problem:not-found", "Not found"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "urn:klaxon:problem:method-not-allowed", "Method not allowed")
            }
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "urn:klaxon:problem:request-timeout", "Request timeout"),
            Self::Ambiguous => (StatusCode::CONFLICT, "urn:klaxon:problem:ambiguous-id", "Ambiguous id"),
            Self::Refused => (StatusCode::CONFLICT, "urn:klaxon:problem:refused", "The action was refused"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "urn:klaxon:problem:too-large", "Too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "urn:klaxon:problem:unsupported-media-type", "Unsupported media type")
            }
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "urn:klaxon:problem:too-many-requests", "Too many requests"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "urn:klaxon:problem:internal", "Internal error"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "urn:klaxon:problem:busy", "Busy"),
            Self::NotThereYet => (StatusCode::SERVICE_UNAVAILABLE, "urn:klaxon:problem:not-there-yet", "Not there yet"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "urn:klaxon:problem:stopping", "Stopping"),
            Self::TimedOut => (StatusCode::SERVICE_UNAVAILABLE, "urn:klaxon:problem:timed-out", "Timed out"),
            Self::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "urn:klaxon:problem:disk-full", "Disk full"),
        }
    }

    /// What a layer meant that said no more than a status.
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::SERVICE_UNAVAILABLE => Self::Busy,
            other if other.is_client_error() => Self::BadRequest,
            _ => Self::Internal,
        }
    }

    fn is_passing(self) -> bool {
        matches!(self, Self::TooMany | Self::Busy | Self::NotThereYet | Self::Stopping | Self::TimedOut | Self::DiskFull)
    }
}

/// A problem. Boxed, because almost every result might hold one and almost none does.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Problem(Box<Content>);

/// What a problem says, RFC 9457.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Content {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    type_uri: &'static str,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// The fields or parameters that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// What became of each event, if none was good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    results: Vec<EventResult>,
    /// The alarms that a short id may mean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    candidates: Vec<AlarmId>,
    /// On which alarms an action was refused, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    refusals: Vec<RefusalShown>,
    /// The request it is about, as the logs name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip)]
    kind: Kind,
}

/// Stands beside a response whose status looks like a problem and is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IsNoProblem;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// The place in a list, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    /// Which field or parameter.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// An action that was not carried out on an alarm.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct RefusalShown {
    /// On which alarm, if on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<AlarmId>,
    /// Why.
    reason: klaxon_schemas::change::RefusalReason,
    /// Why, in words.
    text: &'static str,
}

impl RefusalShown {
    /// Why, in words.
    pub(crate) fn text(&self) -> &'static str {
        self.text
    }
}

impl From<&Refusal> for RefusalShown {
    fn from(refusal: &Refusal) -> Self {
        Self { alarm: refusal.alarm, reason: refusal.reason, text: refusal.reason.as_str() }
    }
}

impl FieldError {
    /// `field` cannot be used because of `reason`.
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { index: None, field: field.into(), reason: reason.into() }
    }
}

impl From<InputError> for FieldError {
    fn from(error: InputError) -> Self {
        Self::new(error.field, error.reason)
    }
}

impl Problem {
    /// A problem of `kind`; `detail` says what is wrong this time.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, type_uri, title) = kind.parts();
        Self(Box::new(Content {
            type_uri,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            results: Vec::new(),
            candidates: Vec::new(),
            refusals: Vec::new(),
            request_id: None,
            kind,
        }))
    }

    /// A problem of `kind` with these fields; its detail names the first.
    pub(crate) fn of_fields(kind: Kind, errors: Vec<FieldError>) -> Self {
        let detail = match errors.first() {
            Some(first) if errors.len() == 1 => format!("{}: {}", first.field, first.reason),
            Some(first) => format!("{}: {} (and {} more)", first.field, first.reason, errors.len() - 1),
            None => String::new(),
        };
        let mut problem = Self::new(kind, detail);
        problem.0.errors = errors;
        problem
    }

    /// A problem of `kind` with one field.
    pub(crate) fn of_field(kind: Kind, field: &str, reason: impl Into<String>) -> Self {
        Self::of_fields(kind, vec![FieldError::new(field, reason)])
    }

    /// Something that no client can cause. What it was is logged, and not told.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = klaxon_schemas::error::chain(error), "a request failed");
        Self::new(Kind::Internal, "something broke here; the log says more under this request's id")
    }

    /// Whether it is of this kind.
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.0.kind == kind
    }

    /// With what became of each event.
    pub(crate) fn with_results(mut self, results: Vec<EventResult>) -> Self {
        self.0.results = results;
        self
    }

    /// With the alarms that were perhaps meant.
    pub(crate) fn with_candidates(mut self, candidates: Vec<AlarmId>) -> Self {
        self.0.candidates = candidates;
        self
    }

    /// With what was refused.
    pub(crate) fn with_refusals(mut self, refusals: Vec<RefusalShown>) -> Self {
        self.0.refusals = refusals;
        self
    }

    fn write(mut self, request_id: Option<&RequestId>, form: Form, response: &mut Response) {
        self.0.request_id = request_id.map(|id| id.as_str().to_owned());
        let (body, content_type) = match form {
            Form::Problem => (serde_json::to_vec(&self).unwrap_or_default(), PROBLEM_JSON),
            Form::Text => (serde_json::to_vec(&self.0.detail).unwrap_or_default(), "application/json"),
            Form::Fault => {
                let (status, body) = starlingx::fault(response.status(), &self.0.detail);
                *response.status_mut() = status;
                (body, "application/json")
            }
        };
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.is(Kind::Unauthorized) {
            // A browser asks the person only for the second.
            for scheme in ["Bearer realm=\"klaxon\"", "Basic realm=\"klaxon\", charset=\"UTF-8\""] {
                response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
        }
        if self.0.kind.is_passing() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        *response.body_mut() = body.into();
    }
}

/// In which form a problem is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// RFC 9457.
    Problem,
    /// What is wrong as a JSON string, as Alertmanager says no.
    Text,
    /// As StarlingX says no.
    Fault,
}

impl Form {
    fn at(serves: Serves, path: &str) -> Self {
        if starlingx::is_theirs(serves, path) {
            Self::Fault
        } else if path.starts_with(super::alertmanager::BASE) {
            Self::Text
        } else {
            Self::Problem
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, ..) = self.0.kind.parts();
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the problem that a handler left beside its response, or one for a bare error status.
pub(crate) async fn render(State(reached): State<Reached>, request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let form = Form::at(reached.serves, request.uri().path());
    let mut response = rendered(form, id.as_ref(), request, next).await;
    if let (Form::Fault, Some(id)) = (form, id) {
        starlingx::name_request(&id, &mut response);
    }
    response
}

async fn rendered(form: Form, id: Option<&RequestId>, request: Request, next: Next) -> Response {
    let path = quoted(request.uri().path());
    let method = request.method().clone();
    let mut response = next.run(request).await;
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if response.extensions().get::<IsNoProblem>().is_some() => return response,
        None if status.is_client_error() || status.is_server_error() => {
            let kind = Kind::of(status);
            let detail = match kind {
                Kind::NotFound => format!("there is nothing at {path}"),
                Kind::MethodNotAllowed => match response.headers().get(ALLOW).and_then(|allow| allow.to_str().ok()) {
                    Some(allow) => format!("{method} is not allowed at {path}, but {allow}"),
                    None => format!("{method} is not allowed at {path}"),
                },
                Kind::UnsupportedMediaType => "only the content encodings gzip and zstd are read".to_owned(),
                _ => status.canonical_reason().unwrap_or("unknown").to_lowercase(),
            };
            Problem::new(kind, detail)
        }
        None => return response,
    };
    problem.write(id, form, &mut response);
    response
}

/// Somebody's text, fit to be repeated to them: cut, and without control characters.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String =
        text.chars().take(QUOTED_CHARS_MAX).map(|character| if character.is_control() { '?' } else { character }).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_every_field_and_in_its_detail_the_first() {
        let errors = vec![FieldError::new("limit", "is no number"), FieldError::new("sort", "is unknown")];
        let problem = Problem::of_fields(Kind::InvalidParameter, errors);
        let mut response = Response::default();
        problem.clone().write(None, Form::Problem, &mut response);
        assert_eq!(problem.0.detail, "limit: is no number (and 1 more)");
        let json = serde_json::to_value(&problem).expect("serializes");
        assert_eq!(json["status"], 400);
        assert_eq!(json["type"], "urn:klaxon:problem:invalid-parameter");
        assert_eq!(json["errors"][1]["field"], "sort");
        assert!(json.get("results").is_none() && json["errors"][0].get("index").is_none());
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert!(response.headers().get(RETRY_AFTER).is_none());
    }

    #[test]
    fn what_will_pass_says_when_to_come_back() {
        for kind in [Kind::Busy, Kind::DiskFull, Kind::Stopping, Kind::NotThereYet] {
            let mut response = Response::default();
            Problem::new(kind, "x").write(None, Form::Problem, &mut response);
            assert!(response.headers().get(RETRY_AFTER).is_some());
        }
    }

    #[test]
    fn what_a_client_wrote_is_repeated_with_care() {
        assert_eq!(quoted("a\0b\n"), "a?b?");
        assert_eq!(quoted(&"ü".repeat(200)).chars().count(), QUOTED_CHARS_MAX + 1);
    }
}
