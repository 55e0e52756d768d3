//! Who is asking, and may they?
//!
//! On a Unix socket the system itself says who the other side is: everything is allowed, and the login name is the actor. On
//! loopback TCP anybody on the host may read and report, but nobody is known by name, so nobody acts on alarms. A browser on
//! this host is somebody else's hand: a page from elsewhere must neither reach the API under a name of its own (DNS
//! rebinding: the `Host`) nor send to it (`Origin`), and what came through a proxy is not local at all.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header::{FORWARDED, HOST, HeaderMap, ORIGIN, UPGRADE, VIA};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::Response;
use klaxon_schemas::names::Actor;
use klaxon_schemas::wire::v1::uplink::PATH;

use super::Api;
use super::problem::{Kind, Problem, quoted};

/// What is served to other hosts.
const SERVED_OVER_TLS: [&str; 3] = [PATH, "/healthz", "/readyz"];

/// The other side of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Somebody on this host, over loopback.
    Tcp {
        /// Our address, as the other side dialled it.
        local: SocketAddr,
        /// Theirs.
        remote: SocketAddr,
    },
    /// Somebody anywhere, over TLS.
    Tls {
        /// Their address.
        remote: SocketAddr,
        /// The names in the certificate that they showed, if they showed one that is good.
        names: Arc<[String]>,
    },
    /// Somebody who is known.
    Unix {
        /// The login name, or `uid:` and the number of one that has none.
        actor: Actor,
    },
}

/// Who acts. A handler that takes this is out of reach for those who are not known.
pub(crate) struct Acting(pub(crate) Actor);

impl<S: Sync> FromRequestParts<S> for Acting {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.extensions.get::<ConnectInfo<Peer>>() {
            Some(ConnectInfo(Peer::Unix { actor })) => Ok(Self(actor.clone())),
            Some(ConnectInfo(Peer::Tcp { .. } | Peer::Tls { .. })) | None => Err(Problem::new(
                Kind::Forbidden,
                "over TCP nobody is known by name; act on alarms through the node's Unix socket, as `klaxon alarms` does on the \
                 host itself",
            )),
        }
    }
}

/// The actor behind a user id.
pub(crate) fn actor_of_uid(uid: u32) -> Actor {
    let name = uzers::get_user_by_uid(uid).and_then(|user| Actor::lossy(&user.name().to_string_lossy()).ok());
    name.unwrap_or_else(|| Actor::new(&format!("uid:{uid}")).expect("a number is a name"))
}

/// Lets through what comes from this host itself.
pub(crate) async fn check(State(api): State<Api>, request: Request, next: Next) -> Result<Response, Problem> {
    match request.extensions().get::<ConnectInfo<Peer>>() {
        Some(ConnectInfo(Peer::Unix { .. })) => {}
        // A page cannot show the token that an uplink needs, and its other side need not know the node by a name of its host.
        Some(ConnectInfo(Peer::Tcp { .. })) if is_uplink(&request) => {}
        Some(ConnectInfo(Peer::Tls { .. })) if SERVED_OVER_TLS.contains(&request.uri().path()) => {}
        Some(ConnectInfo(Peer::Tls { .. })) => {
            return Err(Problem::new(
                Kind::Forbidden,
                "over TLS only the uplink of nodes below and the checks of health are served",
            ));
        }
        Some(ConnectInfo(Peer::Tcp { local, .. })) => {
            let authority = request.uri().authority();
            is_local(*local, authority, request.headers(), &api.config().origins)?;
        }
        None => return Err(Problem::new(Kind::Forbidden, "nothing is known of where the request comes from")),
    }
    Ok(next.run(request).await)
}

/// Whether it asks for an uplink, which proves itself by more than where it comes from.
fn is_uplink(request: &Request) -> bool {
    request.uri().path() == PATH && request.headers().get(UPGRADE).is_some()
}

fn is_local(local: SocketAddr, authority: Option<&Authority>, headers: &HeaderMap, origins: &[String]) -> Result<(), Problem> {
    let proxied = headers.keys().find(|name| **name == FORWARDED || **name == VIA || name.as_str().starts_with("x-forwarded-"));
    if let Some(name) = proxied {
        let detail =
            format!("the header {name} says that a proxy sent this; behind one everybody would seem to be on this host");
        return Err(Problem::new(Kind::Forbidden, detail));
    }
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
            let detail = format!("the header origin says that a page from {} sent this", quoted(text));
            return Err(Problem::new(Kind::Forbidden, detail));
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
    use axum::http::{HeaderName, HeaderValue};

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
    fn what_a_proxy_sends_is_refused() {
        for header in ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix"] {
            assert_eq!(verdict(&[("host", "localhost"), (header, "x")]), Some(403), "{header}");
        }
    }

    #[test]
    fn a_user_without_a_name_is_a_number() {
        assert_eq!(actor_of_uid(4_000_000_000).as_str(), "uid:4000000000");
        assert_eq!(actor_of_uid(0).as_str(), "root");
    }
}
