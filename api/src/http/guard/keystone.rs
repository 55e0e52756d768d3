//! Keystone: whose token it is, OpenStack says (Identity API v3, `GET /v3/auth/tokens`), for StarlingX's clients.
//!
//! A token validates itself, as Keystone's policy allows, unless there is a service token for it. What Keystone says is believed
//! for a while, and so is that it does not know a token. While it does not answer, what was said before holds as long as it would
//! have; anything else is told to come again, because nobody knows.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use klaxon_schemas::names::Actor;
use klaxon_schemas::time::Timestamp;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::credential::Shown;
use super::{Grant, X_AUTH_TOKEN};
use crate::http::problem::{Kind, Problem};
use crate::trust::{self, ClientTls};
use crate::{clock, token};

/// How long Keystone may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The most that is asked of it at one time.
const ASKED_MAX: usize = 16;
/// The largest answer that is read: the catalogue of services is in it.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How many tokens are remembered.
const KNOWN_MAX: usize = 1024;
/// How long it is believed that a token is not good.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// How long a connection is kept that nothing is sent on.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// Where Keystone is, and what its roles are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeystoneConfig {
    /// Its address, up to before `/v3`.
    pub url: Uri,
    /// Who vouches for it; the system's authorities if absent.
    pub ca_file: Option<PathBuf>,
    /// The file with the token by which this node asks; without one, each token is asked of by itself.
    pub service_token_file: Option<PathBuf>,
    /// What its roles may do here; a role that is not named may do nothing.
    pub roles: BTreeMap<String, Grant>,
    /// How long what it said is believed.
    pub cache: Duration,
}

/// Keystone, as it is asked.
pub(super) struct Keystone {
    config: KeystoneConfig,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    places: Semaphore,
    known: Mutex<HashMap<String, Known>>,
}

/// What Keystone said of a token.
#[derive(Clone)]
struct Known {
    who: Option<Whose>,
    believed_until: Instant,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whose {
    pub(super) actor: Actor,
    /// What they may do; nothing if none of their roles has a meaning here.
    pub(super) grant: Option<Grant>,
    /// Until when.
    pub(super) until: Option<Timestamp>,
}

impl Keystone {
    /// Reads what the settings name. Blocks.
    pub(super) fn new(config: KeystoneConfig) -> Result<Self, String> {
        let tls = if config.url.scheme_str() == Some("https") {
            ClientTls { authorities: config.ca_file.clone(), client: None }.read()?
        } else {
            trust::nobody()?
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(ANSWER_WAIT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(ASKED_MAX)
            .build(connector);
        Ok(Self { config, client, places: Semaphore::new(ASKED_MAX), known: Mutex::default() })
    }

    /// Whether it is as `config` says.
    pub(super) fn is(&self, config: &KeystoneConfig) -> bool {
        self.config == *config
    }

    /// How long what it said is believed.
    pub(super) fn believed_for(&self) -> Duration {
        self.config.cache
    }

    /// Whose token it is; nobody's, if Keystone does not know it or its time is over.
    pub(super) async fn whose(&self, shown: &Shown) -> Result<Option<Whose>, Problem> {
        let Some(hash) = token::hash_of_any(shown.secret()) else { return Ok(None) };
        if let Some(known) = self.known(&hash) {
            return Ok(known.who);
        }
        let who = match tokio::time::timeout(ANSWER_WAIT, self.ask(shown)).await {
            Ok(Ok(who)) => who,
            Ok(Err(reason)) => {
                tracing::warn!(url = %self.config.url, reason, "Keystone cannot be asked whose token it is");
                return Err(Problem::new(Kind::Busy, "Keystone does not say whose token it is; come again"));
            }
            Err(_elapsed) => {
                tracing::warn!(url = %self.config.url, "Keystone does not answer");
                return Err(Problem::new(Kind::Busy, "Keystone does not answer; come again"));
            }
        };
        let believed_for = if who.is_some() { self.config.cache } else { UNKNOWN_FOR };
        self.note(hash, Known { who: who.clone(), believed_until: Instant::now() + believed_for });
        Ok(who)
    }

    fn known(&self, hash: &str) -> Option<Known> {
        let known = self.known.lock().expect("nobody panics while holding it").get(hash).cloned()?;
        let is_over = known.who.as_ref().and_then(|who| who.until).is_some_and(|until| until <= clock::now());
        (known.believed_until > Instant::now() && !is_over).then_some(known)
    }

    fn note(&self, hash: String, said: Known) {
        let mut known = self.known.lock().expect("nobody panics while holding it");
        if known.len() >= KNOWN_MAX {
            let now = Instant::now();
            known.retain(|_, known| known.believed_until > now);
        }
        // Whoever shows many that are nobody's costs nobody else what is known of theirs.
        if known.len() >= KNOWN_MAX {
            known.retain(|_, known| known.who.is_some());
        }
        if known.len() >= KNOWN_MAX
            && let Some(first) = known.iter().min_by_key(|(_, known)| known.believed_until).map(|(hash, _)| hash.clone())
        {
            known.remove(&first);
        }
        known.insert(hash, said);
    }

    async fn ask(&self, shown: &Shown) -> Result<Option<Whose>, String> {
        let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
        let secret = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| "the token has characters that no header may have")?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        let Ok(subject) = secret(shown.secret()) else { return Ok(None) };
        let asking = match self.config.service_token_file.clone() {
            None => subject.clone(),
            Some(path) => {
                let read =
                    tokio::task::spawn_blocking(move || trust::read_text(&path)).await.map_err(|error| error.to_string())??;
                secret(read.trim())?
            }
        };
        let base = self.config.url.to_string();
        let request = Request::get(format!("{}/v3/auth/tokens?nocatalog", base.trim_end_matches('/')))
            .header(X_AUTH_TOKEN, asking)
            .header("x-subject-token", subject)
            .header(USER_AGENT, concat!("klaxon/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| klaxon_schemas::error::chain(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            // Unknown, over, or revoked: by itself it is not even let in.
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED if self.config.service_token_file.is_none() => return Ok(None),
            status => return Err(format!("it answers {status}")),
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        let Answer { token } =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("its answer cannot be read: {error}"))?;
        Ok(self.of(token))
    }

    fn of(&self, said: Token) -> Option<Whose> {
        let until = said.expires_at.as_deref().map(Timestamp::parse);
        let until = match until {
            None => None,
            Some(Ok(until)) if until > clock::now() => Some(until),
            Some(_) => return None,
        };
        let domain = said.user.domain.map(|domain| domain.name).filter(|domain| domain != "Default");
        let name = domain.map_or_else(|| said.user.name.clone(), |domain| format!("{}@{domain}", said.user.name));
        let grants = said.roles.iter().filter_map(|role| self.config.roles.get(&role.name));
        // Of several the one that may do most, and no sum of them: each is good at its own sites.
        let grant = grants.max_by_key(|grant| (grant.role.rank(), grant.scope.is_all())).cloned();
        Some(Whose { actor: Actor::lossy(&name).ok()?, grant, until })
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    roles: Vec<Named>,
    user: User,
}

#[derive(Deserialize)]
struct User {
    name: String,
    #[serde(default)]
    domain: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}
