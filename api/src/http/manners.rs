//! What browsers are told: how to treat an answer, and which pages from elsewhere may read it.

use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Method};
use tower::layer::util::{Identity, Stack};
use tower_http::cors::CorsLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::guard::X_AUTH_TOKEN;

/// A header that stands in each answer that does not say something else.
type Unless = SetResponseHeaderLayer<HeaderValue>;
/// All of them.
type Headers = Stack<Unless, Stack<Unless, Stack<Unless, Stack<Unless, Stack<Unless, Identity>>>>>;

/// Says that an answer is what it says it is, is shown in no frame, runs nothing, and is kept by nobody.
pub(super) fn headers() -> Headers {
    let unless = |name: HeaderName, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    let policy = "default-src 'none'; frame-ancestors 'none'";
    let builder = tower::ServiceBuilder::new()
        .layer(unless(X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(unless(X_FRAME_OPTIONS, "DENY"))
        .layer(unless(REFERRER_POLICY, "no-referrer"))
        .layer(unless(CONTENT_SECURITY_POLICY, policy))
        .layer(unless(CACHE_CONTROL, "no-store"));
    builder.into_inner()
}

/// Lets pages of `origins` read answers (WHATWG Fetch, CORS protocol); those of no other.
pub(super) fn origins(origins: &[String]) -> CorsLayer {
    let allowed: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    if allowed.is_empty() {
        return CorsLayer::new();
    }
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static(X_AUTH_TOKEN)])
}
