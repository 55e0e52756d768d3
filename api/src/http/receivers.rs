//! Who is told of alarms: how each receiver stands, and sending again what it has lost.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use klaxon_schemas::names::Follower;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::body::WholeBody;
use super::guard::{Acting, Caller};
use super::openapi::{Acts, Always, Found};
use super::params::{NoParams, Query};
use super::problem::{FieldError, Kind, Problem};
use super::shown::json;
use super::{Api, MetricKind, MetricsText};
use crate::notify::{ReceiverShown, Receivers, ResendError};

/// The largest body of an order to send again.
const BODY_BYTES_MAX: usize = 4096;

/// The receivers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReceiversAnswer {
    /// Each, by name.
    receivers: Vec<ReceiverShown>,
}

/// What is to be sent again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResendRequest {
    /// The `delivery_seq` of the first notification that is sent again, in the receiver's present epoch.
    #[schema(minimum = 1)]
    from: u64,
}

/// What is being sent again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResendAnswer {
    /// To whom.
    receiver: Follower,
    /// From which number on.
    from: u64,
    /// How many notifications.
    count: u64,
}

/// A receiver's name in a path.
pub(crate) struct Named(pub(crate) Follower);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::of_field(Kind::InvalidParameter, "name", reason);
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| wrong(rejection.body_text()))?;
        name.parse().map(Self).map_err(|error: klaxon_schemas::names::NameError| wrong(error.to_string()))
    }
}

/// There is no such receiver.
pub(crate) fn unknown(name: &Follower) -> Problem {
    Problem::new(Kind::NotFound, format!("no receiver is called {name}"))
}

/// List who is told of alarms, and how each stands.
#[utoipa::path(
    get,
    path = "/receivers",
    tag = "receivers",
    operation_id = "listReceivers",
    responses((status = 200, description = "The receivers, by name", body = ReceiversAnswer), Always)
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    caller.demand_all_sites()?;
    json(&ReceiversAnswer { receivers: api.receivers().map(Receivers::list).unwrap_or_default() })
}

/// Show how one receiver stands.
#[utoipa::path(
    get,
    path = "/receivers/{name}",
    tag = "receivers",
    operation_id = "showReceiver",
    params(("name" = String, Path, description = "The receiver, as the settings call it")),
    responses((status = 200, description = "The receiver", body = ReceiverShown), Always, Found)
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Named(name): Named,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    caller.demand_all_sites()?;
    let shown = api.receivers().and_then(|receivers| receivers.get(&name));
    json(&shown.ok_or_else(|| unknown(&name))?)
}

/// Send notifications again.
///
/// They come under their old numbers and say that they were sent
/// before; what is kept for this is limited (`replay_max`). It is refused where the number is kept no more, or was not given out.
#[utoipa::path(
    post,
    path = "/receivers/{name}/resend",
    tag = "receivers",
    operation_id = "resend",
    params(("name" = String, Path, description = "The receiver, as the settings call it")),
    request_body(content = ResendRequest),
    responses((status = 200, description = "They are being sent", body = ResendAnswer), Always, Found, Acts)
)]
pub(crate) async fn resend(
    State(api): State<Api>,
    acting: Acting,
    Named(name): Named,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    let from = from_of(&body)?;
    let receivers = api.receivers().ok_or_else(|| unknown(&name))?;
    match receivers.resend(&name, from).await {
        Ok(count) => {
            tracing::info!(receiver = %name, from, count, %actor, "notifications are sent again on request");
            json(&ResendAnswer { receiver: name, from, count })
        }
        Err(ResendError::NoSuchReceiver) => Err(unknown(&name)),
        Err(ResendError::Stopping) => Err(Problem::new(Kind::Stopping, "the receiver is being stopped")),
        Err(error @ (ResendError::TooOld { .. } | ResendError::Ahead { .. })) => {
            Err(Problem::of_field(Kind::Refused, "from", error.to_string()))
        }
    }
}

fn from_of(body: &WholeBody) -> Result<u64, Problem> {
    let text = body.json()?;
    if text.len() > BODY_BYTES_MAX {
        return Err(Problem::new(Kind::TooLarge, format!("an order to send again has at most {BODY_BYTES_MAX} bytes")));
    }
    let wrong = |reason: &str| Problem::of_field(Kind::InvalidBody, "from", reason);
    match serde_json::from_str(text) {
        Ok(Value::Object(mut members)) => {
            let from = members.remove("from").ok_or_else(|| wrong("is missing: which number is the first?"))?;
            if let Some(other) = members.keys().next() {
                return Err(Problem::of_fields(Kind::InvalidBody, vec![FieldError::new(other, "is unknown")]));
            }
            from.as_u64().filter(|from| *from > 0).ok_or_else(|| wrong("is no number from 1 on"))
        }
        Ok(_) => Err(Problem::new(Kind::InvalidBody, "the body is no JSON object")),
        Err(error) => Err(Problem::new(Kind::MalformedBody, format!("the body is no JSON: {error}"))),
    }
}

/// What is counted of receivers.
pub(crate) fn metrics(text: &mut MetricsText, receivers: &Receivers) {
    let mut family = "";
    for metric in receivers.metrics() {
        if metric.name != family {
            let kind = if metric.is_counter { MetricKind::Counter } else { MetricKind::Gauge };
            text.family(metric.name, kind, metric.help);
            family = metric.name;
        }
        text.sample(metric.name, &[("receiver", &metric.receiver)], metric.value);
    }
}
