//! The page at `/`: the alarms as they are now, for people with a browser.
//!
//! Its files lie in `api/web` as a browser takes them, without a build step, and are part of the program. They ask the API
//! like anybody else and know nothing that it does not say. The page loads nothing from elsewhere and runs nothing that does
//! not stand in its files, and the browser is told to hold it to that.

use std::future::ready;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::Api;

/// What the page may do in a browser.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Where each file is served, as what, and what is in it.
const FILES: [(&str, &str, &[u8]); 10] = [
    ("/", HTML, include_bytes!("../../web/index.html")),
    ("/page/app.css", CSS, include_bytes!("../../web/app.css")),
    ("/page/app.mjs", SCRIPT, include_bytes!("../../web/app.mjs")),
    ("/page/detail.mjs", SCRIPT, include_bytes!("../../web/detail.mjs")),
    ("/page/feed.mjs", SCRIPT, include_bytes!("../../web/feed.mjs")),
    ("/page/filter.mjs", SCRIPT, include_bytes!("../../web/filter.mjs")),
    ("/page/grid.mjs", SCRIPT, include_bytes!("../../web/grid.mjs")),
    ("/page/sites.mjs", SCRIPT, include_bytes!("../../web/sites.mjs")),
    ("/page/words.mjs", SCRIPT, include_bytes!("../../web/words.mjs")),
    ("/page/favicon.svg", SVG, include_bytes!("../../web/favicon.svg")),
];

/// A file, and the tag of its content.
#[derive(Debug, Clone)]
struct Asset {
    form: &'static str,
    content: Bytes,
    tag: HeaderValue,
}

impl Asset {
    fn new(form: &'static str, content: &'static [u8]) -> Self {
        // Weak: the content is the same, and its bytes are not when they are compressed on the way.
        let tag = format!("W/\"{}\"", hex(&Sha256::digest(content)));
        Self { form, content: Bytes::from_static(content), tag: tag.try_into().expect("digits are a header value") }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let headers = [
            (ETAG, self.tag.clone()),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        if self.is_held_by(asked) {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, [(CONTENT_TYPE, HeaderValue::from_static(self.form))], self.content.clone()).into_response()
        }
    }

    /// Whether the other side says that it has this content (RFC 9110, 13.1.2).
    fn is_held_by(&self, asked: &HeaderMap) -> bool {
        let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
        let ours = self.tag.to_str().map(opaque).unwrap_or_default();
        let held = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        held.flat_map(|value| value.split(',')).map(str::trim).any(|tag| tag == "*" || opaque(tag) == ours)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of the page. They are for people, so the API's description leaves them out.
pub(crate) fn routes() -> Router<Api> {
    FILES.iter().fold(Router::new(), |router, (path, form, content)| {
        let asset = Asset::new(form, content);
        router.route(path, get(move |asked: HeaderMap| ready(asset.answer(&asked))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_not_sent_again() {
        let asset = Asset::new(CSS, b"a {}");
        let tag = asset.tag.to_str().expect("is text").to_owned();
        let held = |value: &str| {
            let mut asked = HeaderMap::new();
            asked.insert(IF_NONE_MATCH, value.try_into().expect("is a header value"));
            asset.is_held_by(&asked)
        };
        for yes in [tag.as_str(), &tag[2..], "*", &format!("\"other\", {tag}")] {
            assert!(held(yes), "{yes}");
        }
        for no in ["", "\"other\"", &tag[3..], Asset::new(CSS, b"b {}").tag.to_str().expect("is text")] {
            assert!(!held(no), "{no}");
        }
        assert!(!asset.is_held_by(&HeaderMap::new()));
    }

    #[test]
    fn the_page_asks_for_nothing_that_is_not_served() {
        let texts = FILES.iter().map(|(path, _, content)| (*path, std::str::from_utf8(content).expect("is text")));
        for (path, text) in texts {
            // Files of the page, as they stand in attributes and imports.
            for part in text.split(['"', '\'']).filter(|part| part.starts_with("/page/") || part.starts_with("./")) {
                let named = part.replacen("./", "/page/", 1);
                assert!(FILES.iter().any(|(served, ..)| *served == named), "{path} names {part}");
            }
            let own_words = text.replace("\"http://www.w3.org/2000/svg\"", "");
            let is_link = |part: &str| ["//", "http:", "https:"].iter().any(|start| part.starts_with(start));
            let links = own_words.split(['"', '\'']).filter(|part| is_link(part) && !part.contains(char::is_whitespace));
            assert_eq!(links.collect::<Vec<_>>(), [""; 0], "{path} names what lies elsewhere");
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "url(",
                "@import",
                " style=",
                " onclick=",
            ] {
                assert!(!text.contains(word), "{path} has {word}");
            }
        }
    }
}
