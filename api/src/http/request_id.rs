//! The id of a request: the client's own if it is sane, else one made here. It is in the log, in problems and in the answer.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::Api;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// As of when what is shown is, if that is not now.
const AS_OF: HeaderName = HeaderName::from_static("klaxon-as-of");
/// The longest id that is taken from a client.
const BYTES_MAX: usize = 128;

/// The id of one request.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    fn of(header: Option<&HeaderValue>) -> Self {
        match header.and_then(|value| value.to_str().ok()) {
            Some(id) if is_sane(id) => Self(id.into()),
            _ => Self(uuid::Uuid::new_v4().to_string().into()),
        }
    }

    /// The id.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_sane(id: &str) -> bool {
    (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
}

/// As of when what is shown is, where the journal is kept elsewhere and cannot be reached.
fn as_of(api: &Api) -> Option<HeaderValue> {
    let original = api.store().original().filter(|original| original.reached_since.is_none())?;
    HeaderValue::from_str(&original.as_of.to_string()).ok()
}

/// Gives a request its id and a span to log in, and counts what became of it.
pub(crate) async fn trace(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers().get(HEADER));
    let span = tracing::info_span!("http", request_id = id.as_str(), method = %request.method(), path = request.uri().path());
    request.extensions_mut().insert(id.clone());
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let took = began.elapsed();
    api.responses().count(response.status(), took);
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), took_us = took.as_micros(), "request answered"));
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    if let Some(value) = as_of(&api) {
        response.headers_mut().insert(AS_OF, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        let of = |text: &'static str| RequestId::of(Some(&HeaderValue::from_static(text))).as_str().to_owned();
        assert_eq!(of("abc-1"), "abc-1");
        for bad in ["", "a b", "a\"b"] {
            assert_ne!(of(bad), bad);
        }
        assert_eq!(RequestId::of(None).as_str().len(), 36);
        let long = "x".repeat(BYTES_MAX + 1);
        assert_ne!(RequestId::of(HeaderValue::from_str(&long).ok().as_ref()).as_str(), long);
    }
}
