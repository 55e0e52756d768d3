//! The node above this one: how it stands, joining it, and going to another one.

use axum::extract::State;
use axum::response::Response;
use klaxon_schemas::child::ChildKind;
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::{ChildName, Site};
use klaxon_schemas::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::body::WholeBody;
use super::guard::{Acting, Caller};
use super::openapi::{Acts, Always, Found};
use super::params::{NoParams, Query};
use super::problem::{FieldError, Kind, Problem};
use super::shown::json;

/// The largest body of an order.
const BODY_BYTES_MAX: usize = 8192;

/// Whether the node above is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UplinkState {
    /// There is no node above.
    Off,
    /// It is not reached.
    Disconnected,
    /// It is.
    Connected,
}

/// How the uplink stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UplinkShown {
    /// Whether the node above is reached.
    pub state: UplinkState,
    /// What this node is to it.
    pub kind: ChildKind,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// By which name this node is known there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<ChildName>,
    /// Its site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Site>,
    /// The version of its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_version: Option<String>,
    /// Since when it is reached, or not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it was not reached, the last time that it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<Timestamp>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try_at: Option<Timestamp>,
    /// The last position of this node's journal.
    pub position: Position,
    /// Up to where it has come in there, but for what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<Position>,
    /// How many records of the journal are behind that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    /// Over how many records of the journal history is missing there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_missing_records: Option<u64>,
    /// Changes, or events of an agent, that were sent as they came, since the start.
    pub changes_sent: u64,
    /// Changes that were sent as history, since the start.
    pub history_sent: u64,
    /// Connections since the start.
    pub connections: u64,
    /// Bytes sent since the start, with TLS.
    pub sent_bytes: u64,
    /// Bytes received since the start, with TLS.
    pub received_bytes: u64,
    /// By how many milliseconds the clock there is ahead of this one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// How long an answer took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<i64>,
}

/// An order about the node above.
#[derive(Debug)]
pub enum UplinkOrder {
    /// To have one above.
    Join {
        /// Where it is.
        url: String,
        /// The token with which this node joins.
        token: String,
    },
    /// To have another one above: the one that is above now is left once that one has let this node in.
    Rehome {
        /// Where it is.
        url: String,
        /// The token with which this node joins; without one it is the same node at another address, which takes the credential.
        token: Option<String>,
    },
    /// To have none above.
    Leave,
}

/// Tells how the uplink stands.
pub type UplinkShows = Box<dyn Fn() -> UplinkShown + Send + Sync>;
/// Carries out an order, or says why not. Blocks.
pub type UplinkObeys = Box<dyn Fn(UplinkOrder) -> Result<(), String> + Send + Sync>;

/// What the front end needs of the uplink.
pub struct UplinkParts {
    /// How it stands.
    pub shown: UplinkShows,
    /// What it is told.
    pub order: UplinkObeys,
}

/// Where the node above is.
#[derive(Serialize, ToSchema)]
pub(crate) struct JoinRequest {
    /// Its address: `https://HOST[:PORT]`, or `http://HOST:PORT` on this host.
    url: String,
    /// The token that was made there for this node; good once.
    token: String,
}

/// Where another node is, or the same one by now.
#[derive(Serialize, ToSchema)]
pub(crate) struct RehomeRequest {
    /// Its address: `https://HOST[:PORT]`, or `http://HOST:PORT` on this host.
    url: String,
    /// The token that was made there for this node; good once. Without one it must be the node that is above already, at another
    /// address: the credential that it gave is shown there.
    token: Option<String>,
}

/// Show how the uplink stands: the node above this one.
#[utoipa::path(
    get,
    path = "/uplink/state",
    tag = "node",
    operation_id = "getUplink",
    responses((status = 200, description = "How it stands", body = UplinkShown), Always)
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    caller.demand_site(api.site())?;
    json(&(uplink(&api)?.shown)())
}

/// Join a node above this one.
///
/// Refused if another node is above.
#[utoipa::path(
    post,
    path = "/uplink/join",
    tag = "node",
    operation_id = "joinUplink",
    request_body(content = JoinRequest),
    responses((status = 200, description = "It is kept, and the node is being joined", body = UplinkShown), Always, Acts, Found)
)]
pub(crate) async fn join(
    State(api): State<Api>,
    acting: Acting,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    let (url, token) = order_of(&body)?;
    let token = token.ok_or_else(|| Problem::of_field(Kind::InvalidBody, "token", "is missing"))?;
    order(&api, UplinkOrder::Join { url, token }, &actor).await
}

/// Go to another node above this one. The one that is above now is told once the other has let this node in; if that one does not
/// answer, or refuses, all stays as it is. Without a token it is the same node at another address, and nobody is told.
#[utoipa::path(
    post,
    path = "/uplink/rehome",
    tag = "node",
    operation_id = "rehomeUplink",
    request_body(content = RehomeRequest),
    responses((status = 200, description = "The other node has let this one in, and that is kept", body = UplinkShown), Always, Acts, Found)
)]
pub(crate) async fn rehome(
    State(api): State<Api>,
    acting: Acting,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    let (url, token) = order_of(&body)?;
    order(&api, UplinkOrder::Rehome { url, token }, &actor).await
}

/// Leave the node above this one, for none. It is told, as soon as it is reached; this node's journal is kept for nobody any more.
///
/// Refused if no node is above.
#[utoipa::path(
    post,
    path = "/uplink/leave",
    tag = "node",
    operation_id = "leaveUplink",
    responses((status = 200, description = "It is kept, and no node is above any more", body = UplinkShown), Always, Acts, Found)
)]
pub(crate) async fn leave(
    State(api): State<Api>,
    acting: Acting,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    order(&api, UplinkOrder::Leave, &actor).await
}

fn uplink(api: &Api) -> Result<&UplinkParts, Problem> {
    api.uplink().ok_or_else(|| Problem::new(Kind::NotFound, "this node has no uplink"))
}

async fn order(api: &Api, order: UplinkOrder, actor: &klaxon_schemas::names::Actor) -> Result<Response, Problem> {
    uplink(api)?;
    let (url, what) = match &order {
        UplinkOrder::Join { url, .. } => (url.clone(), "joined"),
        UplinkOrder::Rehome { url, .. } => (url.clone(), "gone to"),
        UplinkOrder::Leave => (String::new(), "left"),
    };
    let obeying = api.clone();
    let done = tokio::task::spawn_blocking(move || uplink(&obeying).map(|uplink| (uplink.order)(order))).await;
    match done {
        Ok(Ok(Ok(()))) => {
            tracing::info!(%url, what, %actor, "another node, or none, is above from now on");
            json(&(uplink(api)?.shown)())
        }
        Ok(Ok(Err(reason))) => Err(Problem::new(Kind::Refused, reason)),
        Ok(Err(problem)) => Err(problem),
        Err(_broken) => Err(Problem::new(Kind::Internal, "the order broke; the log says more")),
    }
}

/// Where a node is, and the token with which it is joined, if there is one.
fn order_of(body: &WholeBody) -> Result<(String, Option<String>), Problem> {
    let text = body.json()?;
    if text.len() > BODY_BYTES_MAX {
        return Err(Problem::new(Kind::TooLarge, format!("an order to join has at most {BODY_BYTES_MAX} bytes")));
    }
    let Ok(Value::Object(mut members)) = serde_json::from_str(text) else {
        return Err(Problem::new(Kind::MalformedBody, "the body is no JSON object"));
    };
    let mut take = |name: &str| match members.remove(name) {
        Some(Value::String(word)) => Ok(Some(word)),
        Some(_) => Err(Problem::of_field(Kind::InvalidBody, name, "is no text")),
        None => Ok(None),
    };
    let url = take("url")?.ok_or_else(|| Problem::of_field(Kind::InvalidBody, "url", "is missing"))?;
    let token = take("token")?;
    match members.keys().next() {
        Some(other) => Err(Problem::of_fields(Kind::InvalidBody, vec![FieldError::new(other, "is unknown")])),
        None => Ok((url, token)),
    }
}
