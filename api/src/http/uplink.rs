//! The way in for nodes below: a WebSocket. What is spoken over it is no part of this description.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::Api;
use super::guard::Peer;
use super::openapi::Always;
use super::params::{NoParams, Query};
use super::problem::{Kind, Problem};
use crate::uplink::{Caller, Denied};

/// Connect as a node below.
///
/// Becomes a WebSocket (RFC 6455) for a node that was enrolled, and says so by its token (`Authorization: Bearer`) or by a client
/// certificate. Klaxon nodes speak it with each other.
#[utoipa::path(
    get,
    path = "/api/v1/uplink",
    tag = "sites",
    operation_id = "connectUplink",
    responses((status = 101, description = "From here on messages of an uplink"), (status = 401, description = "Nothing proves who it is"), Always)
)]
pub(crate) async fn connect(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    Query(NoParams): Query<NoParams>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| {
        Problem::new(Kind::BadRequest, format!("this is the way in for nodes below, and becomes a WebSocket: {rejection}"))
    })?;
    let caller = match peer {
        Peer::Net(peer) => Caller { address: peer.remote.to_string().into(), names: peer.names.clone().into() },
        Peer::Unix { actor } => Caller { address: format!("unix:{actor}").into(), names: [].into() },
    };
    api.uplinks().admit(caller, &headers, upgrade).await.map_err(|denied| {
        let kind = match denied {
            Denied::Unknown => Kind::Unauthorized,
            Denied::Busy | Denied::Full => Kind::Busy,
            Denied::Stopping => Kind::Stopping,
        };
        Problem::new(kind, denied.to_string())
    })
}
