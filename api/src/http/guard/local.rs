//! Whether a request comes from this host itself.
//!
//! A browser on this host is somebody else's hand: a page from elsewhere must neither reach the API under a name of its own (DNS
//! rebinding: the `Host`) nor send to it (`Origin`), and what came through a proxy is not local at all.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA};
use axum::http::uri::Authority;

use crate::http::problem::{Kind, Problem, quoted};

/// Why what the headers came by was a proxy, if it was one.
pub(super) fn proxy_of(headers: &HeaderMap) -> Option<String> {
    let is_proxys = |name: &&HeaderName| **name == FORWARDED || **name == VIA || name.as_str().starts_with("x-forwarded-");
    let name = headers.keys().find(is_proxys)?;
    Some(format!("the header {name} says that a proxy sent this; behind one everybody would seem to be on this host"))
}

/// Refuses what a page sends that is not from the host that the request names, nor from one of `origins`. A browser shows what was
/// typed for another page also where this one did not ask for it.
pub(super) fn is_of_this_page(headers: &HeaderMap, origins: &[String]) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    for origin in headers.get_all(ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        let from = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let ours = from.is_some_and(|from| !from.is_empty() && from.eq_ignore_ascii_case(host));
        if !ours && !origins.iter().any(|allowed| allowed == text) {
            return Err(foreign(text));
        }
    }
    Ok(())
}

fn foreign(origin: &str) -> Problem {
    let detail = format!("the header origin says that a page from {} sent this", quoted(origin));
    Problem::new(Kind::Forbidden, detail)
}

/// Refuses what names another host, or comes from a page of another one.
pub(super) fn is_local(
    local: SocketAddr,
    authority: Option<&Authority>,
    headers: &HeaderMap,
    origins: &[String],
) -> Result<(), Problem> {
    let misdirected = |host: &str| {
        let detail = format!("{} is not this node; it is reached as localhost, 127.0.0.1 or [::1]", quoted(host));
        Problem::new(Kind::Misdirected, detail)
    };
    let mut hosts = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Problem::new(Kind::Misdirected, "the header host is given more than once")),
        (Some(host), None) if !is_ours(host, local) => return Err(misdirected(host)),
        (None, _) if authority.is_none() => return Err(Problem::new(Kind::Misdirected, "the header host is missing")),
        (Some(_) | None, None) | (None, Some(_)) => {}
    }
    if let Some(authority) = authority
        && !is_ours(authority.as_str(), local)
    {
        return Err(misdirected(authority.as_str()));
    }
    for origin in headers.get_all(ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        let ours = text.strip_prefix("http://").is_some_and(|host| is_ours_exactly(host, local));
        if !ours && !origins.iter().any(|allowed| allowed == text) {
            return Err(foreign(text));
        }
    }
    Ok(())
}

/// Whether `host` names this node, with its port or with none.
fn is_ours(host: &str, local: SocketAddr) -> bool {
    match split_port(host) {
        Some((name, None)) => is_local_name(name),
        Some((name, Some(port))) => is_local_name(name) && port == local.port(),
        None => false,
    }
}

/// Whether `host` names this node and its port: an origin without a port is that of another program, on port 80.
fn is_ours_exactly(host: &str, local: SocketAddr) -> bool {
    split_port(host).is_some_and(|(name, port)| is_local_name(name) && port.unwrap_or(80) == local.port())
}

fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    let name_end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, rest) = host.split_at(name_end);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((name, None)),
        None => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some((name, Some(port.parse().ok()?))),
        Some(_) => None,
    }
}

fn is_local_name(name: &str) -> bool {
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn verdict(headers: &[(&'static str, &'static str)]) -> Option<u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let local = "127.0.0.1:7780".parse().expect("valid");
        let refused = is_local(local, None, &map, &["https://noc.example".to_owned()]).err()?;
        serde_json::to_value(refused).expect("serializes")["status"].as_u64().and_then(|status| u16::try_from(status).ok())
    }

    #[test]
    fn only_our_own_names_are_hosts() {
        for ours in ["localhost", "LOCALHOST:7780", "127.0.0.1:7780", "127.0.0.1", "[::1]:7780", "[::1]"] {
            assert_eq!(verdict(&[("host", ours)]), None, "{ours}");
        }
        for other in [
            "evil.example",
            "localhost:80",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7780",
            "127.0.0.1:",
            "[::1",
            "[::1]x",
            "10.0.0.1:7780",
            "",
            "localhost:+7780",
            "localhost:99999",
            "user@localhost",
        ] {
            assert_eq!(verdict(&[("host", other)]), Some(421), "{other}");
        }
        assert_eq!(verdict(&[]), Some(421));
        assert_eq!(verdict(&[("host", "localhost"), ("host", "localhost")]), Some(421));
    }

    #[test]
    fn a_page_from_elsewhere_is_refused() {
        let origin = |value| verdict(&[("host", "localhost:7780"), ("origin", value)]);
        assert_eq!(origin("http://localhost:7780"), None);
        assert_eq!(origin("http://127.0.0.1:7780"), None);
        assert_eq!(origin("https://noc.example"), None);
        for other in ["null", "http://localhost", "http://localhost:3000", "https://localhost:7780", "http://evil.example", ""]
        {
            assert_eq!(origin(other), Some(403), "{other}");
        }
    }

    #[test]
    fn what_a_proxy_sends_is_known() {
        for header in ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix"] {
            let mut map = HeaderMap::new();
            map.insert(HeaderName::from_static(header), HeaderValue::from_static("x"));
            assert!(proxy_of(&map).is_some_and(|why| why.contains(header)), "{header}");
        }
        assert_eq!(proxy_of(&HeaderMap::new()), None);
    }

    #[test]
    fn with_a_name_of_its_own_a_page_is_still_held_to_its_origin() {
        let verdict = |host: &'static str, origin: &'static str| {
            let mut map = HeaderMap::new();
            map.insert(HOST, HeaderValue::from_static(host));
            map.insert(ORIGIN, HeaderValue::from_static(origin));
            is_of_this_page(&map, &["https://noc.example".to_owned()]).is_ok()
        };
        assert!(verdict("alarms.example:7443", "https://alarms.example:7443"));
        assert!(verdict("alarms.example", "https://noc.example"));
        for other in
            ["https://evil.example", "null", "", "https://", "https://alarms.example.evil", "https://alarms.example:8080"]
        {
            assert!(!verdict("alarms.example", other), "{other}");
        }
    }
}
