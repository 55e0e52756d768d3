//! Request bodies: read whole, within a limit on what they are after decompression, a time, and a budget that all share.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use klaxon_store::door::{RejectReason, Tally};
use klaxon_store::publish::PublishError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Api;
use super::problem::{Kind, Problem, quoted};

/// How many bytes of bodies are held at one time, all requests together.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a request waits for its part of that.
const ROOM_WAIT: Duration = Duration::from_secs(2);
/// How long a client may take to send a body.
const SEND_WAIT: Duration = Duration::from_secs(20);

/// The room for bodies.
pub(crate) fn budget() -> Semaphore {
    Semaphore::new(HELD_BYTES_MAX)
}

/// The forms in which a body may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One JSON value.
    Json,
    /// One JSON value a line.
    Ndjson,
}

impl Form {
    /// What the header says; `None` if it is something else, or missing.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = text.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if ["application/x-ndjson", "application/ndjson"].iter().any(|name| essence.eq_ignore_ascii_case(name)) {
            Some(Self::Ndjson)
        } else {
            None
        }
    }
}

/// A body that is there whole, and its place in the budget while it lives.
pub(crate) struct WholeBody {
    pub(crate) form: Option<Form>,
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl FromRequest<Api> for WholeBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let form = Form::of(request.headers());
        let limit = api.config().body_bytes_max;
        if length(request.headers()).is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        let room = usize::min(expected_bytes(request.headers(), limit), HELD_BYTES_MAX);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let Ok(Ok(room)) = tokio::time::timeout(ROOM_WAIT, api.bodies().acquire_many_owned(room)).await else {
            return Err(Problem::new(Kind::Busy, "too many request bodies are held at one time"));
        };
        let bytes = read(request.into_body(), limit).await?;
        Ok(Self { form, bytes, _room: room })
    }
}

impl WholeBody {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The text.
    pub(crate) fn text(&self) -> Result<&str, Problem> {
        let text = std::str::from_utf8(&self.bytes);
        text.map_err(|error| {
            Problem::new(Kind::MalformedBody, format!("the body is no UTF-8 from byte {} on", error.valid_up_to()))
        })
    }

    /// The text of a body that says it is JSON.
    pub(crate) fn json(&self) -> Result<&str, Problem> {
        match self.form {
            Some(Form::Json) => self.text(),
            Some(Form::Ndjson) | None => Err(unsupported("application/json")),
        }
    }
}

/// The body is of a form that is not read here.
pub(crate) fn unsupported(wanted: &str) -> Problem {
    Problem::new(Kind::UnsupportedMediaType, format!("the header content-type must be {wanted}"))
}

/// Counts a submission that cannot even be taken apart as one thing that was received, and rejected or dropped.
pub(crate) fn count_unreadable(api: &Api, problem: &Problem) {
    let mut tally = Tally::default();
    if problem.is(Kind::Busy) {
        tally.refuse(&PublishError::Busy, 1);
    } else if problem.is(Kind::TooLarge) {
        tally.reject(RejectReason::TooLarge, 1);
    } else {
        tally.reject(RejectReason::Invalid, 1);
    }
    api.door().counts().settle(&tally);
}

/// How large the body may become, as far as can be told beforehand. Decompression takes the header away with the coding.
fn expected_bytes(headers: &HeaderMap, limit: usize) -> usize {
    length(headers).and_then(|length| usize::try_from(length).ok()).map_or(limit, |length| length.min(limit))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("the body is larger than {limit} bytes, decompressed"))
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(SEND_WAIT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_limit(&error) => Err(too_large(limit)),
        Ok(Err(error)) => {
            let source = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Err(Problem::new(Kind::BadRequest, format!("the body cannot be read: {}", quoted(&source))))
        }
        Err(_) => Err(Problem::new(Kind::RequestTimeout, format!("the body did not come within {} s", SEND_WAIT.as_secs()))),
    }
}

fn is_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<LengthLimitError>() {
            return true;
        }
        source = cause.source();
    }
    false
}
