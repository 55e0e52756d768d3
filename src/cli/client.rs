//! Speaks HTTP with a node, over its Unix socket or over TCP, and finds the node in the first place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::failure::{Code, Failure, Outcome};
use crate::uplink::{Address, Token};
use klaxon_api::trust::ClientTls;

/// Where a node is looked for when nothing says where it is: one that was tried out here, then the one of the package.
const SOCKETS: [&str; 2] = ["./klaxon-data/klaxon.sock", PACKAGED_SOCKET];
/// Where the package's node listens. Whoever is in its group may connect.
pub(super) const PACKAGED_SOCKET: &str = "/run/klaxon/klaxon.sock";
const ADDRESS: &str = "http://127.0.0.1:7780";

/// Longer than the node takes at most, so that its own answer is heard.
const ANSWER_WAIT: Duration = Duration::from_secs(40);
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 << 20;

const BASE: &str = "/api/v1";

/// Where a node can be spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// Over TCP, perhaps by TLS.
    Net(Address),
}

/// What a person shows, and whom they believe.
#[derive(Debug, Clone, Default)]
pub(super) struct Pass {
    /// The token.
    pub(super) token: Option<Token>,
    /// Whether it is shown as OpenStack's services take it.
    pub(super) is_openstack: bool,
    /// Who vouches for the node, where it speaks TLS.
    pub(super) tls: ClientTls,
}

/// A node that answered when it was called.
#[derive(Debug, Clone)]
pub(super) struct Client {
    endpoint: Endpoint,
    pass: Pass,
    /// What was tried before and why it did not serve, where the reason is that the user may not use it.
    forbidden: Option<String>,
}

/// What a node says.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The body, null if there was none.
    pub(super) body: Value,
    /// After how many seconds to try again, if it says so.
    pub(super) retry_after_s: Option<u64>,
}

impl Endpoint {
    /// `https://HOST[:PORT]`, `http://HOST[:PORT]`, `unix:PATH`, or a path.
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let address = text.parse().map_err(|_| {
                Failure::new(
                    Code::Usage,
                    format!("{text:?} is no node: write https://HOST:PORT or http://HOST:PORT without a path"),
                )
            })?;
            return Ok(Self::Net(address));
        }
        Ok(Self::Unix(PathBuf::from(text.strip_prefix("unix:").unwrap_or(text))))
    }

    async fn connect(&self, tls: &ClientTls) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let connect = async {
            match self {
                Self::Unix(path) => spawn(UnixStream::connect(path).await?).await,
                Self::Net(address) => {
                    let stream = TcpStream::connect((&*address.host, address.port)).await?;
                    if !address.is_secure {
                        return spawn(stream).await;
                    }
                    let config = tls.read().map_err(anyhow::Error::msg)?;
                    let name = ServerName::try_from(address.host.clone())?;
                    spawn(TlsConnector::from(Arc::new(config)).connect(name, stream).await?).await
                }
            }
        };
        tokio::time::timeout(CONNECT_WAIT, connect).await.context("it does not answer")?
    }

    fn host(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Net(address) => address.authority(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Net(address) => write!(f, "{address}"),
        }
    }
}

/// Lets the connection run beside whoever uses it.
async fn spawn<S>(stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told of the error too.
        let _ = connection.await;
    });
    Ok(sender)
}

impl Client {
    /// The node that was named, or else the first that answers.
    pub(super) async fn find(named: Option<&str>, pass: Pass) -> Outcome<Self> {
        if let Some(named) = named {
            let endpoint = Endpoint::parse(named)?;
            if let (Endpoint::Net(address), Some(_)) = (&endpoint, &pass.token)
                && !address.is_secure
                && !address.is_loopback()
            {
                let message = format!("{endpoint}: a token is shown over https:// only, or on the node's own host");
                return Err(Failure::new(Code::Usage, message));
            }
            return match endpoint.connect(&pass.tls).await {
                Ok(_) => Ok(Self { endpoint, pass, forbidden: None }),
                Err(error) => {
                    Err(Failure::new(Code::NoNode, format!("no node answers at {endpoint}: {}", why(&endpoint, &error))))
                }
            };
        }
        // Whoever listens where a node is only looked for is not shown a token: it may be anybody.
        let pass = Pass { token: None, ..pass };
        let mut tried = Vec::new();
        let mut forbidden = None;
        for endpoint in SOCKETS.map(|path| Endpoint::Unix(PathBuf::from(path))).into_iter().chain([Endpoint::parse(ADDRESS)?]) {
            match endpoint.connect(&pass.tls).await {
                Ok(_) => return Ok(Self { endpoint, pass, forbidden }),
                Err(error) => {
                    let why = why(&endpoint, &error);
                    if is_forbidden(&error) {
                        forbidden = Some(format!("{endpoint}: {why}"));
                    }
                    tried.push(format!("{endpoint} ({why})"));
                }
            }
        }
        let message =
            format!("no node answers; tried {}. Start one with `klaxon run`, or name one with --node", tried.join(", "));
        Err(Failure::new(Code::NoNode, message))
    }

    /// Where it is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The socket that the user may not use, and why, if one was passed over for the present endpoint.
    pub(super) fn forbidden(&self) -> Option<&str> {
        self.forbidden.as_deref()
    }

    /// Asks whether the node takes events.
    pub(super) async fn readiness(&self) -> Outcome<Answer> {
        self.send(Method::GET, "/readyz", None).await
    }

    /// Gets what is at a path that another server has.
    pub(super) async fn get_at(&self, path: &str) -> Outcome<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// Gets what is at a path under the API's base.
    pub(super) async fn get(&self, path: &str, query: &Query) -> Outcome<Value> {
        self.send(Method::GET, &query.on(&under_base(path)), None).await?.good()
    }

    /// Posts JSON to a path under the API's base.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Outcome<Answer> {
        self.send(Method::POST, &under_base(path), Some(("application/json", Bytes::from(body.to_string())))).await
    }

    /// Deletes what is at a path under the API's base.
    pub(super) async fn delete(&self, path: &str, query: &Query) -> Outcome<Answer> {
        self.send(Method::DELETE, &query.on(&under_base(path)), None).await
    }

    /// Posts what is JSON, or should be.
    pub(super) async fn post_text(&self, path: &str, text: &str) -> Outcome<Answer> {
        self.send(Method::POST, &under_base(path), Some(("application/json", Bytes::copy_from_slice(text.as_bytes())))).await
    }

    /// Posts newline-delimited JSON to a path under the API's base.
    pub(super) async fn post_lines(&self, path: &str, lines: Bytes) -> Outcome<Answer> {
        self.send(Method::POST, &under_base(path), Some(("application/x-ndjson", lines))).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<(&str, Bytes)>) -> Outcome<Answer> {
        let exchange = async {
            let response = self.exchange(method, path, body, "application/json").await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
            let retry_after_s = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let body = match serde_json::from_slice(&body) {
                Ok(body) => body,
                Err(_) if body.is_empty() => Value::Null,
                Err(_) => Value::String(String::from_utf8_lossy(&body).into_owned()),
            };
            anyhow::Ok(Answer { status: head.status, body, retry_after_s })
        };
        match tokio::time::timeout(ANSWER_WAIT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                Err(Failure::new(Code::NoNode, format!("the node at {} does not answer: {error:#}", self.endpoint)))
            }
            Err(_) => {
                let message = format!("the node at {} did not answer within {} s", self.endpoint, ANSWER_WAIT.as_secs());
                Err(Failure::new(Code::Later, message))
            }
        }
    }

    /// Opens the stream of changes; its body has no end of its own.
    pub(super) async fn stream(&self, query: &Query) -> Outcome<Incoming> {
        let response = self
            .exchange(Method::GET, &query.on(&under_base("/stream")), None, "text/event-stream")
            .await
            .map_err(|error| Failure::new(Code::NoNode, format!("no node answers at {}: {error:#}", self.endpoint)))?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let status = response.status();
        let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status, body, retry_after_s: None }.good().and_then(|_| Err(Failure::new(Code::Failed, format!("{status}"))))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        accept: &str,
    ) -> anyhow::Result<hyper::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.endpoint.host())
            .header(USER_AGENT, concat!("klaxon/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept);
        if let Some((content_type, _)) = &body {
            request = request.header(CONTENT_TYPE, *content_type);
        }
        if let Some(token) = &self.pass.token {
            let (name, shown) = if self.pass.is_openstack {
                (HeaderName::from_static("x-auth-token"), token.0.clone())
            } else {
                (AUTHORIZATION, format!("Bearer {}", token.0))
            };
            let mut shown = HeaderValue::from_str(&shown).context("the token is no token")?;
            shown.set_sensitive(true);
            request = request.header(name, shown);
        }
        let request = request.body(Full::new(body.map_or_else(Bytes::new, |(_, bytes)| bytes)))?;
        let mut sender = self.endpoint.connect(&self.pass.tls).await?;
        Ok(sender.send_request(request).await?)
    }
}

fn under_base(path: &str) -> String {
    format!("{BASE}{path}")
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn why(endpoint: &Endpoint, error: &anyhow::Error) -> String {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    match (endpoint, kind) {
        (Endpoint::Unix(path), Some(std::io::ErrorKind::NotFound)) if !path.parent().is_some_and(Path::exists) => {
            "no such folder".to_owned()
        }
        (_, Some(std::io::ErrorKind::NotFound)) => "no such socket".to_owned(),
        (_, Some(std::io::ErrorKind::ConnectionRefused)) => "nobody listens".to_owned(),
        (Endpoint::Unix(path), Some(std::io::ErrorKind::PermissionDenied)) if path == Path::new(PACKAGED_SOCKET) => {
            "only the group klaxon may use it; `sudo adduser YOU klaxon`, then log in anew".to_owned()
        }
        (_, Some(std::io::ErrorKind::PermissionDenied)) => "you may not use it".to_owned(),
        _ => format!("{error:#}"),
    }
}

impl Answer {
    /// The body, or what the problem (RFC 9457) says.
    pub(super) fn good(self) -> Outcome<Value> {
        if self.status.is_success() { Ok(self.body) } else { Err(self.failure()) }
    }

    /// What the problem says, in one line.
    pub(super) fn failure(&self) -> Failure {
        let code = match self.status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::BAD_REQUEST => Code::Usage,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE | StatusCode::TOO_MANY_REQUESTS => Code::Later,
            _ => Code::Failed,
        };
        let word = |key: &str| self.body.get(key).and_then(Value::as_str);
        let mut message = word("detail").or_else(|| word("title")).map_or_else(|| self.status.to_string(), str::to_owned);
        let errors = self.body.get("errors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for error in errors {
            let part = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
            // The detail may name the first of them already.
            if !message.contains(part("reason")) {
                message = format!("{message}; {}: {}", part("field"), part("reason"));
            }
        }
        let candidates = self.body.get("candidates").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let missing: Vec<&str> = candidates.iter().filter_map(Value::as_str).filter(|id| !message.contains(id)).collect();
        if !missing.is_empty() {
            message = format!("{message}: {}", missing.join(", "));
        }
        Failure::new(code, message)
    }
}

/// Query parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// One more, if there is a value.
    pub(super) fn add(&mut self, key: &'static str, value: Option<impl fmt::Display>) {
        self.0.extend(value.map(|value| (key, value.to_string())));
    }

    /// The path with the parameters.
    pub(super) fn on(&self, path: &str) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={}", percent(value))).collect();
        if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
    }

    /// As a JSON object, as the actions' filter has it.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(key, value)| ((*key).to_owned(), Value::String(value.clone()))).collect())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// RFC 3986, 2.1: whatever is not unreserved is percent-encoded.
pub(super) fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_in_three_ways() {
        let parse = |text| Endpoint::parse(text).expect("is a node");
        assert_eq!(parse("http://127.0.0.1:99/").to_string(), "http://127.0.0.1:99");
        assert_eq!(parse("http://[::1]:99").to_string(), "http://[::1]:99");
        assert_eq!(parse("http://localhost").to_string(), "http://localhost:7780");
        assert_eq!(parse("https://noc.example").to_string(), "https://noc.example:443");
        assert_eq!(parse("unix:/run/k.sock"), Endpoint::Unix("/run/k.sock".into()));
        assert_eq!(parse("k.sock"), Endpoint::Unix("k.sock".into()));
        assert_eq!(Endpoint::parse("https://x/y").expect_err("a path").code, Code::Usage);
    }

    #[test]
    fn parameters_are_encoded() {
        let mut query = Query::default();
        query.add("resource", Some("host=a b.fs=/ü"));
        query.add("site", None::<&str>);
        assert_eq!(query.on("/alarms"), "/alarms?resource=host%3Da%20b.fs%3D%2F%C3%BC");
    }

    #[test]
    fn a_problem_becomes_one_line() {
        let body = serde_json::json!({"title": "Invalid parameter", "status": 400, "detail": "a parameter is wrong",
            "errors": [{"field": "limit", "reason": "is no number"}]});
        let failure = Answer { status: StatusCode::BAD_REQUEST, body, retry_after_s: None }.failure();
        assert_eq!((failure.code, failure.message.as_str()), (Code::Usage, "a parameter is wrong; limit: is no number"));
    }
}
