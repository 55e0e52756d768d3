//! Notifications by HTTP POST: to programs of any kind in our own form (`schemas/json/notification.v1.schema.json`), or as
//! Alertmanager sends them.
//!
//! | what the receiver answers | what it means |
//! |---|---|
//! | 2xx | confirmed, whatever the body says |
//! | nothing, 3xx, 5xx, 408, 425, 429 | not now: again, later; `Retry-After` is kept to within [`RETRY_AFTER_MAX`] |
//! | 401, 402, 403, 404, 405, 407, 410, 421, 426 | it is about who sends or where to, not about what is sent: again, until it is put right |
//! | any other 4xx | it has it, and will never take it |
//!
//! No redirect is followed and no proxy is taken from the environment: a receiver is where the settings say it is. Nothing that is
//! logged or shown has the address's user, password, path or query, a token, a header's value or the secret in it: to many services
//! the path is the password.

mod alertmanager;
mod client;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, RETRY_AFTER};
use hyper::{Response, StatusCode, Uri};
use klaxon_schemas::error::chain;
use tokio::time::Instant;

use super::{Delivered, GroupLabel, Notification, SendError, Sink, SinkLimits, SinkTools, form};
use alertmanager::Frame;
pub(crate) use alertmanager::annotations_of;
use client::Ready;

/// The longest that a receiver may ask us to wait before the next request.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(50);
/// The longest that a request may be set to take. With the wait before it, it is shorter than what a delivery may take.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The most requests at a time to one receiver.
pub const WINDOW_MAX: usize = 64;
/// The most notifications in one request.
pub const BATCH_MAX: usize = 100;
/// The most headers that may be set by hand.
pub const HEADERS_MAX: usize = 32;

/// How much of an answer's body is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long an answer's body is waited for: what was answered is known without it.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How much of it is told.
const ANSWER_CHARS_MAX: usize = 160;
/// A part of the address's path that is as long as this may be a key; what is shorter is a word such as `hook`.
const SEGMENT_CHARS_MIN: usize = 8;
/// How often it is looked whether files have changed.
const FILES_EVERY: Duration = Duration::from_secs(1);

/// Where a webhook is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// The address: `http://` or `https://`, perhaps with user and password for basic authentication.
    pub address: Word,
    /// The form of what is sent.
    pub shape: Shape,
    /// What requests are signed with, if they are.
    pub secret: Option<Word>,
    /// The token for `Authorization: Bearer`.
    pub bearer: Option<Word>,
    /// Further headers.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The authorities that vouch for the server, in PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate that we show, with its chain, in PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How many requests are on their way at a time: each is about other alarms.
    pub window: usize,
    /// How many notifications are in one request, at most.
    pub batch_max: usize,
    /// The node's address for people, for links in what is sent.
    pub external_url: Option<String>,
    /// What alarms are grouped by, if they are.
    pub group_by: Option<Vec<GroupLabel>>,
}

/// The form of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Our own, version 1: everything that is known.
    #[default]
    Klaxon,
    /// Alertmanager's webhook, version 4.
    Alertmanager,
}

/// Something that is not shown. Settings have it as a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A word that may be secret: said in the settings, or in a file, which is read when the word is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// This.
    Said(Secret),
    /// What the file holds, without the end of its line.
    File(PathBuf),
}

impl Word {
    /// What it is now. Blocks, if it is in a file.
    fn read(&self, what: &str) -> Result<String, String> {
        let word = match self {
            Self::Said(Secret(word)) => word.clone(),
            Self::File(path) => crate::trust::read_text(path)?.trim_end_matches(['\r', '\n']).to_owned(),
        };
        if word.is_empty() { Err(format!("{what} is empty")) } else { Ok(word) }
    }
}

/// An address that can be posted to.
struct Address {
    /// Without user and password.
    uri: Uri,
    /// `user:password`.
    basic: Option<Secret>,
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is no http:// or https:// address";
        let parts = text.parse::<Uri>().map_err(|_| WRONG)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(WRONG) };
        if !["http", "https"].contains(&scheme.as_str()) || authority.host().is_empty() {
            return Err(WRONG);
        }
        let (user, host) =
            authority.as_str().rsplit_once('@').map_or((None, authority.as_str()), |(user, host)| (Some(user), host));
        let basic = user.map(|user| {
            let user = percent_encoding::percent_decode_str(user).decode_utf8().map_err(|_| "has a user that is no UTF-8")?;
            Ok::<_, &'static str>(Secret(if user.contains(':') { user.into_owned() } else { format!("{user}:") }))
        });
        let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(parts.path_and_query.ok_or(WRONG)?);
        Ok(Self { uri: uri.build().map_err(|_| WRONG)?, basic: basic.transpose()? })
    }
}

impl Address {
    /// Without what may be secret: whoever knows the path of a chat's webhook may post there.
    fn shown(&self) -> String {
        let (scheme, authority) = (self.uri.scheme_str().unwrap_or_default(), self.uri.authority());
        let is_bare = self.uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
        let rest = if is_bare { "/" } else { "/…" };
        format!("{scheme}://{}{rest}", authority.map_or("", |authority| authority.as_str()))
    }

    /// What must not be seen of path and query, as a whole and in parts, as it is sent and as it may be told back.
    fn secrets(&self) -> Vec<String> {
        let (path, query) = (self.uri.path(), self.uri.query().unwrap_or_default());
        let segments = path.split('/').filter(|segment| segment.len() >= SEGMENT_CHARS_MIN);
        let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let sent = [path, query].into_iter().chain(segments).chain(values);
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        sent.flat_map(|text| [text.to_owned(), decoded(text)]).collect()
    }
}

impl WebhookConfig {
    /// The defaults, for `address`.
    pub fn new(address: Word) -> Self {
        Self {
            address,
            shape: Shape::default(),
            secret: None,
            bearer: None,
            headers: Vec::new(),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            timeout: Duration::from_secs(10),
            window: 1,
            batch_max: 1,
            external_url: None,
            group_by: None,
        }
    }

    /// Where it is, without secrets.
    pub fn target(&self) -> String {
        match &self.address {
            Word::Said(Secret(text)) => text.parse().map_or_else(|_| "?".to_owned(), |address: Address| address.shown()),
            Word::File(path) => format!("the address in {}", path.display()),
        }
    }

    /// The first setting that cannot be, and why, without secrets.
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        let no = |key, reason: &str| Some((key, reason.to_owned()));
        let said = match &self.address {
            Word::Said(Secret(text)) => match text.parse::<Address>() {
                Ok(address) => Some(address),
                Err(reason) => return no("url", reason),
            },
            Word::File(_) => None,
        };
        let has_tls_keys = self.ca_file.is_some() || self.certificate_file.is_some() || self.key_file.is_some();
        if said.as_ref().is_some_and(|address| address.uri.scheme_str() == Some("http")) && has_tls_keys {
            return no("url", "is http://, and has certificates: write https://");
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return no("certificate_file", "needs key_file, and key_file needs certificate_file");
        }
        if said.is_some_and(|address| address.basic.is_some()) && self.bearer.is_some() {
            return no("bearer", "is one way to say who sends, and the user in the address another: one is enough");
        }
        if self.headers.len() > HEADERS_MAX {
            return no("headers", &format!("has {} headers, at most {HEADERS_MAX} are sent", self.headers.len()));
        }
        for (name, Secret(value)) in &self.headers {
            if !client::is_free(name) {
                return no("headers", &format!("{name} is set by the node itself"));
            }
            if client::header(value).is_err() {
                return no("headers", &format!("{name} has characters that no header may have"));
            }
        }
        for (key, word) in [("secret", &self.secret), ("bearer", &self.bearer)] {
            if matches!(word, Some(Word::Said(Secret(word))) if word.is_empty()) {
                return no(key, "is empty");
            }
        }
        if !(Duration::from_millis(100)..=TIMEOUT_MAX).contains(&self.timeout) {
            return no("timeout", &format!("must be between 100ms and {}s", TIMEOUT_MAX.as_secs()));
        }
        if !(1..=WINDOW_MAX).contains(&self.window) {
            return no("window", &format!("must be between 1 and {WINDOW_MAX}"));
        }
        if !(1..=BATCH_MAX).contains(&self.batch_max) {
            return no("batch_max", &format!("must be between 1 and {BATCH_MAX}"));
        }
        if self.shape == Shape::Alertmanager && self.batch_max > 1 && self.group_by.is_none() {
            return no(
                "batch_max",
                "must be 1 in Alertmanager's form: each alarm is a group of its own there, unless they are grouped",
            );
        }
        None
    }
}

/// Posts to one receiver.
pub struct WebhookSink {
    config: WebhookConfig,
    tools: SinkTools,
    external_url: String,
    /// What was made ready, and when it was looked at last.
    ready: tokio::sync::Mutex<Option<(Instant, Arc<Ready>)>>,
    /// The receiver asked not to be sent to before.
    not_before: Mutex<Option<Instant>>,
}

impl WebhookSink {
    /// A sink; what the catalogue knows of a type is told with its alarms.
    pub fn new(config: WebhookConfig, tools: &SinkTools) -> Self {
        let external_url = config.external_url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned();
        Self { config, tools: tools.clone(), external_url, ready: tokio::sync::Mutex::default(), not_before: Mutex::default() }
    }

    /// What is needed to send. Files that have changed are read anew.
    async fn ready(&self) -> Result<Arc<Ready>, SendError> {
        let mut kept = self.ready.lock().await;
        if let Some((looked, ready)) = &*kept
            && (!ready.has_files() || looked.elapsed() < FILES_EVERY)
        {
            return Ok(Arc::clone(ready));
        }
        let before = kept.take().map(|(_, ready)| ready);
        let (config, authorities) = (self.config.clone(), self.tools.authorities.clone());
        let look = move || match before {
            Some(ready) if ready.is_current(&config) => Ok(ready),
            _ => Ready::prepare(&config, &authorities).map(Arc::new),
        };
        let ready = tokio::task::spawn_blocking(look).await.map_err(|error| SendError::Unreachable(error.to_string()))?;
        let ready = ready.map_err(SendError::Unreachable)?;
        *kept = Some((Instant::now(), Arc::clone(&ready)));
        Ok(ready)
    }

    async fn post(&self, batch: &[Notification]) -> Result<(), SendError> {
        let not_before = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(not_before) = not_before {
            tokio::time::sleep_until(not_before).await;
        }
        let ready = self.ready().await?;
        let body = self.body(batch).map_err(|error| SendError::Refused(format!("cannot be written as JSON: {error}")))?;
        let answer = ready.client.request(ready.request(body, SystemTime::now()));
        let response = match tokio::time::timeout(self.config.timeout, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(SendError::Unreachable(ready.scrub(&chain(&error)))),
            Err(_) => {
                return Err(SendError::Unreachable(format!(
                    "there was no answer within {} s",
                    self.config.timeout.as_secs_f64()
                )));
            }
        };
        self.judge(&ready, response).await
    }

    async fn judge(&self, ready: &Ready, response: Response<Incoming>) -> Result<(), SendError> {
        let (head, body) = response.into_parts();
        let text = answer_text(body).await;
        if head.status.is_success() {
            return Ok(());
        }
        if let Some(wait) = retry_after(&head.headers, SystemTime::now())
            && is_passing(head.status)
        {
            *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait.min(RETRY_AFTER_MAX));
        }
        let status = head.status;
        // First: half of a secret would not be found.
        let words = printable(&ready.scrub(&text));
        let words = if words.is_empty() { format!("it answers {status}") } else { format!("it answers {status}: {words}") };
        Err(match status {
            status if status.is_redirection() => SendError::Unreachable(format!("{words}; redirects are not followed")),
            status if is_passing(status) || is_about_us(status) => SendError::Unreachable(words),
            _ => SendError::Refused(words),
        })
    }

    fn body(&self, batch: &[Notification]) -> Result<Bytes, serde_json::Error> {
        let body = match self.config.shape {
            Shape::Alertmanager => {
                let frame = Frame { catalogue: &self.tools.catalogue.load(), external_url: &self.external_url };
                serde_json::to_vec(&frame.group(batch, self.config.group_by.as_deref()))
            }
            Shape::Klaxon => serde_json::to_vec(&form::notifications(&self.tools.catalogue.load(), batch)),
        };
        body.map(Bytes::from)
    }
}

impl Sink for WebhookSink {
    fn limits(&self) -> SinkLimits {
        SinkLimits { window: self.config.window, batch_max: self.config.batch_max }
    }

    fn send(&self, batch: Vec<Notification>) -> BoxFuture<'_, Result<Delivered, SendError>> {
        Box::pin(async move {
            if batch.is_empty() {
                return Ok(Delivered::Nothing);
            }
            self.post(&batch).await.map(|()| Delivered::Confirmed)
        })
    }
}

/// It says when to come again, or means that later it may work.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [408, 425, 429].contains(&status.as_u16())
}

/// It is about who sends, or where to.
fn is_about_us(status: StatusCode) -> bool {
    [401, 402, 403, 404, 405, 407, 410, 421, 426].contains(&status.as_u16())
}

/// How long the receiver asks us to wait: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(text).ok().map(|at| at.duration_since(now).unwrap_or_default()))
}

/// As much of an answer's body as is read. Read to its end, its connection can be used again.
async fn answer_text(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data[..data.len().min(ANSWER_BYTES_MAX - bytes.len())]);
            }
            if bytes.len() >= ANSWER_BYTES_MAX {
                break;
            }
        }
    };
    // What has come by then is enough.
    let _ = tokio::time::timeout(ANSWER_WAIT, all).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The beginning of somebody's text, in one line and without control characters.
fn printable(text: &str) -> String {
    let words: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(ANSWER_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests;
