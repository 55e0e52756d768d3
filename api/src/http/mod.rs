//! The HTTP front end.
//!
//! ```text
//! connection (serve) ─▶ trace: request id, span, count ─▶ render: problems ─▶ compression ─▶ panics ─▶ guard ─▶ bounds
//!      ─▶ decompression ─▶ right ─▶ handler
//! ```
//!
//! [`Api`] is what handlers share: the store to read from, the publisher to bring in by, the limits and the counts. The app
//! makes one, gives it to [`serve`] and [`serve_unix`], calls [`Api::started`] when the node takes events, and cancels
//! the token that it gave when the node is to stop.

mod above;
mod actions;
mod alarms;
mod alertmanager;
mod body;
mod collectors;
mod counters;
mod drill;
mod events;
mod guard;
mod health;
mod heartbeats;
mod history;
mod manners;
mod metrics;
mod openapi;
mod outcome;
mod page;
mod params;
mod problem;
mod query;
mod receivers;
mod request_id;
mod serve;
mod shares;
mod shown;
mod sites;
mod starlingx;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod uplink;
mod why;

use std::any::Any;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use klaxon_schemas::access::Right;
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::Site;
use klaxon_store::Store;
use klaxon_store::door::Door;
use klaxon_store::publish::SUBMISSION_ENTRIES_MAX;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use above::{UplinkObeys, UplinkOrder, UplinkParts, UplinkShown, UplinkShows, UplinkState};
pub use alertmanager::AlertmanagerConfig;
pub use collectors::CollectorsShown;
pub use guard::{AccessConfig, Grant, KeystoneConfig, NetPeer, Peer, Trust};
pub use metrics::{MetricKind, MetricsText};
pub use serve::{Listening, Reached, ServeError, Serves, serve, serve_unix};
pub(crate) use shown::enrich;
pub use tls::{Tls, TlsError, TlsFiles};

use crate::notify::Receivers;
use crate::uplink::Uplinks;
use counters::Responses;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use guard::{Access, Caller, Client, Denials};
use openapi::{Description, DescriptionText};
use problem::{Kind, Problem};
use shares::{Share, Shares};

/// The smallest limit on bodies: one event of the largest size must fit.
const BODY_BYTES_MIN: usize = 64 * 1024;
/// The largest limit on bodies.
const BODY_BYTES_LIMIT: usize = 64 * 1024 * 1024;
/// The most requests or streams that may be allowed at one time.
const AT_ONCE_LIMIT: usize = 100_000;
/// Clients whose pace is remembered; when there are more, those that have been quiet are forgotten.
const CLIENTS_KNOWN_MAX: usize = 4096;
/// How long a list waits for the position that it is to have come to.
const REACH_WAIT: Duration = Duration::from_secs(2);

/// Limits and manners of the front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// The largest request body, after decompression.
    pub body_bytes_max: usize,
    /// The most events in one request.
    pub batch_events_max: usize,
    /// How long a request may take until its answer begins.
    pub request_timeout: Duration,
    /// The most requests at work at one time.
    pub requests_max: usize,
    /// The most streams at one time.
    pub stream_subscribers_max: usize,
    /// The most connections to one listener at one time; more wait in the system's queue.
    pub connections_max: usize,
    /// The most of them from one other host.
    pub client_connections_max: usize,
    /// The most requests of one client at work at one time.
    pub client_requests_max: usize,
    /// The most requests of one client in a second; as many again may come at once.
    pub client_rate_max: u32,
    /// The most streams of one client.
    pub client_streams_max: usize,
    /// How long running requests may take to end when the node stops.
    pub drain: Duration,
    /// Origins of pages that may use the API besides the node's own, such as `https://noc.example`.
    pub origins: Vec<String>,
    /// How alerts of the Prometheus world become alarms.
    pub alertmanager: AlertmanagerConfig,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 * 1024 * 1024,
            batch_events_max: SUBMISSION_ENTRIES_MAX,
            request_timeout: Duration::from_secs(30),
            requests_max: 256,
            stream_subscribers_max: 256,
            connections_max: 1024,
            client_connections_max: 128,
            client_requests_max: 64,
            client_rate_max: 500,
            client_streams_max: 64,
            drain: Duration::from_secs(5),
            origins: Vec::new(),
            alertmanager: AlertmanagerConfig::default(),
        }
    }
}

/// A setting that is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {reason}")]
pub struct HttpConfigError {
    /// Which.
    pub setting: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl HttpConfig {
    fn check(&self) -> Result<(), HttpConfigError> {
        let within = |setting, value: usize, least: usize, most: usize| {
            let reason = format!("is {value}, and must be between {least} and {most}");
            if (least..=most).contains(&value) { Ok(()) } else { Err(HttpConfigError { setting, reason }) }
        };
        within("body_bytes_max", self.body_bytes_max, BODY_BYTES_MIN, BODY_BYTES_LIMIT)?;
        within("batch_events_max", self.batch_events_max, 1, SUBMISSION_ENTRIES_MAX)?;
        within("requests_max", self.requests_max, 1, AT_ONCE_LIMIT)?;
        within("stream_subscribers_max", self.stream_subscribers_max, 1, AT_ONCE_LIMIT)?;
        within("connections_max", self.connections_max, 1, AT_ONCE_LIMIT)?;
        within("client_connections_max", self.client_connections_max, 1, AT_ONCE_LIMIT)?;
        within("client_requests_max", self.client_requests_max, 1, AT_ONCE_LIMIT)?;
        within("client_rate_max", self.client_rate_max as usize, 1, AT_ONCE_LIMIT)?;
        within("client_streams_max", self.client_streams_max, 1, AT_ONCE_LIMIT)?;
        if self.request_timeout < Duration::from_secs(1) {
            return Err(HttpConfigError { setting: "request_timeout", reason: "must be at least 1 s".to_owned() });
        }
        Ok(())
    }
}

/// Writes further metrics, such as those of the engine.
pub type MoreMetrics = Box<dyn Fn(&mut MetricsText) + Send + Sync>;

/// What the front end needs from the node.
pub struct Parts {
    /// By what events and actions come in.
    pub door: Door,
    /// By what the front end itself reports.
    pub own: Door,
    /// The other doors of the node, whose counts stand in the metrics.
    pub other_doors: Vec<Door>,
    /// The site of events that name none.
    pub site: Site,
    /// Cancelled when the node is to stop.
    pub stop: CancellationToken,
    /// How the collectors are, if the node has some.
    pub collectors: Option<CollectorsShown>,
    /// Who is told of alarms, if somebody is.
    pub receivers: Option<Receivers>,
    /// The node above, and what is told of it.
    pub uplink: Option<UplinkParts>,
    /// The door of the nodes below.
    pub uplinks: Uplinks,
    /// Metrics of other parts, if there are any.
    pub more_metrics: Option<MoreMetrics>,
}

/// What all handlers share. Cloning shares it.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    config: HttpConfig,
    parts: Parts,
    responses: Responses,
    requests: Semaphore,
    /// What each client has at work.
    client_requests: Shares<Client>,
    client_streams: Shares<Client>,
    rates: DefaultKeyedRateLimiter<Client>,
    bodies: Arc<Semaphore>,
    subscribers: Arc<Semaphore>,
    /// One drill at a time.
    drills: Arc<Semaphore>,
    /// Who may do what, beside the tokens that are journalled.
    access: ArcSwap<Access>,
    denials: Denials,
    /// How many listeners let whoever reaches them read and report.
    insecure: AtomicUsize,
    started: AtomicBool,
    description: DescriptionText,
}

impl Api {
    /// A front end over `parts`.
    pub fn new(config: HttpConfig, parts: Parts) -> Result<Self, HttpConfigError> {
        config.check()?;
        Ok(Self(Arc::new(Inner {
            responses: Responses::default(),
            requests: Semaphore::new(config.requests_max),
            client_requests: Shares::default(),
            client_streams: Shares::default(),
            rates: RateLimiter::keyed(Quota::per_second(NonZeroU32::new(config.client_rate_max).unwrap_or(NonZeroU32::MIN))),
            bodies: Arc::new(body::budget()),
            subscribers: Arc::new(Semaphore::new(config.stream_subscribers_max)),
            drills: Arc::new(Semaphore::new(1)),
            access: ArcSwap::default(),
            denials: Denials::default(),
            insecure: AtomicUsize::new(0),
            started: AtomicBool::new(false),
            description: DescriptionText(Arc::new(OnceLock::new())),
            config,
            parts,
        })))
    }

    /// Says that the node takes events now: it is ready.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Relaxed);
    }

    fn is_started(&self) -> bool {
        self.0.started.load(Ordering::Relaxed)
    }

    fn config(&self) -> &HttpConfig {
        &self.0.config
    }

    fn store(&self) -> &Store {
        self.door().store()
    }

    fn site(&self) -> &Site {
        &self.0.parts.site
    }

    fn stop(&self) -> &CancellationToken {
        &self.0.parts.stop
    }

    fn door(&self) -> &Door {
        &self.0.parts.door
    }

    /// Every door of the node.
    fn doors(&self) -> impl Iterator<Item = &Door> {
        std::iter::once(self.door()).chain(&self.0.parts.other_doors)
    }

    /// Says who may do what from now on, beside the tokens that are journalled.
    /// What is wrong with a file that is named changes nothing. Blocks.
    pub fn grant(&self, access: AccessConfig) -> Result<(), String> {
        let access = Access::new(access, &self.access())?;
        self.0.access.store(Arc::new(access));
        Ok(())
    }

    /// Reports who was turned away, until the node stops.
    pub async fn report_denials(&self) {
        self.denials().report(&self.0.parts.own, self.site(), self.stop()).await;
    }

    fn access(&self) -> Arc<Access> {
        self.0.access.load_full()
    }

    fn denials(&self) -> &Denials {
        &self.0.denials
    }

    fn insecure_listeners(&self) -> usize {
        self.0.insecure.load(Ordering::Relaxed)
    }

    fn responses(&self) -> &Responses {
        &self.0.responses
    }

    fn bodies(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.bodies)
    }

    /// A place for one more request of this client; or that it has too many, or sends them too fast.
    fn share(&self, caller: &Caller) -> Result<Option<Share<Client>>, Problem> {
        let Some(client) = caller.client() else { return Ok(None) };
        if self.0.rates.check_key(client).is_err() {
            let detail = format!("more than {} requests in a second", self.config().client_rate_max);
            return Err(Problem::new(Kind::TooMany, detail));
        }
        if self.0.rates.len() > CLIENTS_KNOWN_MAX {
            self.0.rates.retain_recent();
        }
        let most = self.config().client_requests_max;
        match self.0.client_requests.take(client.clone(), most, usize::MAX) {
            Some(share) => Ok(Some(share)),
            None => Err(Problem::new(Kind::TooMany, format!("{most} requests of this client are at work already"))),
        }
    }

    /// A place for one more stream of this client; or that it has too many.
    fn stream_share(&self, caller: &Caller) -> Result<Option<Share<Client>>, Problem> {
        let Some(client) = caller.client() else { return Ok(None) };
        let most = self.config().client_streams_max;
        match self.0.client_streams.take(client.clone(), most, usize::MAX) {
            Some(share) => Ok(Some(share)),
            None => Err(Problem::new(Kind::TooMany, format!("this client has {most} streams already"))),
        }
    }

    fn subscribers(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.subscribers)
    }

    fn drills(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.drills)
    }

    fn receivers(&self) -> Option<&Receivers> {
        self.0.parts.receivers.as_ref()
    }

    fn uplink(&self) -> Option<&UplinkParts> {
        self.0.parts.uplink.as_ref()
    }

    fn uplinks(&self) -> &Uplinks {
        &self.0.parts.uplinks
    }

    fn subscriber_count(&self) -> usize {
        self.0.config.stream_subscribers_max.saturating_sub(self.0.subscribers.available_permits())
    }

    fn description(&self) -> &DescriptionText {
        &self.0.description
    }

    fn waiting(&self) -> usize {
        self.door().waiting()
    }

    fn collectors(&self) -> Vec<klaxon_schemas::wire::v1::Collector> {
        self.0.parts.collectors.as_ref().map(|show| show()).unwrap_or_default()
    }

    fn more_metrics(&self, text: &mut MetricsText) {
        if let Some(more) = &self.0.parts.more_metrics {
            more(text);
        }
    }

    /// Waits until the state has come to `position`.
    async fn reach(&self, position: Option<Position>) -> Result<(), Problem> {
        let Some(position) = position else { return Ok(()) };
        let mut committed = self.store().committed();
        let reached = async { committed.wait_for(|here| *here >= position).await.map(drop) };
        match tokio::time::timeout(REACH_WAIT, reached).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Problem::new(Kind::Stopping, "the node is stopping")),
            Err(_elapsed) => {
                let here = *self.store().committed().borrow();
                Err(Problem::of_field(
                    Kind::NotThereYet,
                    "at_least",
                    format!("the state is at position {here}, not yet at {position}"),
                ))
            }
        }
    }
}

/// What is served where requests come in as `reached` says. They must carry a `ConnectInfo<Peer>`.
pub fn router(api: &Api, reached: Reached) -> Router {
    let routes = match reached.serves {
        Serves::Everything => everything(api),
        Serves::Starlingx | Serves::Dcmanager => {
            Router::new().route("/healthz", get(health::health)).route("/readyz", get(health::readiness))
        }
    };
    routes
        .merge(starlingx::routes(api, reached.serves))
        .layer(Extension(reached))
        .layer(from_fn_with_state(api.clone(), guard::check))
        .layer(manners::origins(&api.config().origins))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(reached, problem::render))
        .layer(CompressionLayer::new().gzip(true).zstd(true).quality(CompressionLevel::Fastest))
        .layer(manners::headers())
        .layer(from_fn_with_state(api.clone(), request_id::trace))
        .with_state(api.clone())
}

/// The node's own interfaces, and their description with that of all others.
fn everything(api: &Api) -> Router<Api> {
    let needs = |right: Right| from_fn_with_state((api.clone(), right), guard::demand);
    let reporting = OpenApiRouter::new()
        .routes(routes!(events::post))
        .routes(routes!(heartbeats::post, heartbeats::end))
        .route_layer(needs(Right::Publish));
    let operating = OpenApiRouter::new()
        .routes(routes!(actions::post))
        .routes(routes!(actions::post_on_alarm))
        .routes(routes!(receivers::resend))
        .routes(routes!(drill::one))
        .routes(routes!(drill::all))
        .route_layer(needs(Right::Operate));
    let administering = OpenApiRouter::new()
        .routes(routes!(above::join))
        .routes(routes!(above::rehome))
        .routes(routes!(above::leave))
        .routes(routes!(sites::enrol))
        .routes(routes!(sites::retire))
        .routes(routes!(sites::approve))
        .routes(routes!(sites::token))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .route_layer(needs(Right::Administer));
    let showing = OpenApiRouter::new()
        .routes(routes!(alarms::list))
        .routes(routes!(alarms::summary))
        .routes(routes!(alarms::show))
        .routes(routes!(why::why))
        .routes(routes!(alarms::catalogue))
        .routes(routes!(alarms::catalogue_entry))
        .routes(routes!(alarms::suppressions))
        .routes(routes!(alarms::shelves))
        .routes(routes!(outcome::show))
        .routes(routes!(collectors::list))
        .routes(routes!(heartbeats::list))
        .routes(routes!(heartbeats::show))
        .routes(routes!(receivers::list))
        .routes(routes!(receivers::show))
        .routes(routes!(sites::list))
        .routes(routes!(sites::show))
        .routes(routes!(history::list))
        .routes(routes!(above::show))
        .routes(routes!(stream::follow))
        // The same description as at the root, for those who know the base of the API only; described once.
        .route("/openapi.json", get(openapi::show))
        .route_layer(needs(Right::Read));
    let taking = reporting.merge(operating).merge(administering);
    let taking = taking.layer(RequestDecompressionLayer::new().gzip(true).zstd(true));
    let bounded = taking.merge(showing).layer(from_fn_with_state(api.clone(), bounds));
    let shown = OpenApiRouter::new()
        .routes(routes!(metrics::show))
        .routes(routes!(openapi::show))
        .merge(page::routes().into())
        .route_layer(needs(Right::Read));
    let open = OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::readiness))
        .routes(routes!(uplink::connect));
    let mut described = Description::openapi();
    described.merge(starlingx::Described::openapi());
    let (router, description) =
        OpenApiRouter::with_openapi(described).nest("/api/v1", bounded).merge(shown).merge(open).split_for_parts();
    api.description().0.get_or_init(|| serde_json::to_vec(&description).expect("a description serializes").into());
    router.merge(alertmanager::routes(api))
}

/// Holds requests to their number and time. What tells how the node is stays outside: it must answer under load, too.
async fn bounds(State(api): State<Api>, caller: Caller, request: Request, next: Next) -> Result<Response, Problem> {
    let _share = api.share(&caller)?;
    let Ok(_place) = api.0.requests.try_acquire() else {
        return Err(Problem::new(Kind::Busy, format!("{} requests are at work already", api.config().requests_max)));
    };
    let wait = api.config().request_timeout;
    match tokio::time::timeout(wait, next.run(request)).await {
        Ok(response) => Ok(response),
        Err(_) => {
            let detail = format!("there was no answer within {} s; what was sent may have been taken", wait.as_secs());
            Err(Problem::new(Kind::TimedOut, detail))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer gives it so")]
fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let words = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    tracing::error!(panic = words.unwrap_or("without words"), "a handler broke");
    Problem::new(Kind::Internal, "something broke here; the log says more under this request's id").into_response()
}
