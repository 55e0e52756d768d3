//! The nodes below: which there are and how each stands; enrolling them, letting them in, and giving them up.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use klaxon_schemas::child::{Child, ChildEvent, ChildFact, ChildKind, Join};
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::names::{Actor, ChildName};
use klaxon_schemas::time::Timestamp;
use klaxon_store::publish::Answer;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::body::WholeBody;
use super::events::refused;
use super::guard::{Acting, Caller};
use super::openapi::{Acts, Always, Found};
use super::params::{FromParams, NoParams, Params, Query};
use super::problem::{Kind, Problem};
use super::query::LIMIT_DEFAULT;
use super::shown::json;
use super::{Api, MetricKind, MetricsText};
use crate::uplink::{SiteShown, SiteState, Uplinks, new_token};

/// The most nodes on one page.
const LIMIT_MAX: usize = 1_000;
/// The largest body of an order about a node.
const BODY_BYTES_MAX: usize = 4096;
const KINDS: [(&str, ChildKind); 3] = [("site", ChildKind::Site), ("region", ChildKind::Region), ("agent", ChildKind::Agent)];
const STATES: [(&str, SiteState); 6] = [
    ("awaiting", SiteState::Awaiting),
    ("enrolled", SiteState::Enrolled),
    ("connected", SiteState::Connected),
    ("away", SiteState::Away),
    ("silent", SiteState::Silent),
    ("moved", SiteState::Moved),
];
const WHETHER: [(&str, bool); 2] = [("true", true), ("false", false)];

/// Which nodes; what is absent matches all.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SiteList {
    /// In one of these states; may be given more than once.
    #[param(value_type = Option<Vec<SiteState>>)]
    pub(crate) state: Vec<SiteState>,
    /// Of this kind.
    pub(crate) kind: Option<ChildKind>,
    /// Whose name begins so.
    pub(crate) prefix: Option<String>,
    /// At most so many; 100 unless said otherwise.
    #[param(required = false, minimum = 1, maximum = 1000)]
    pub(crate) limit: usize,
    /// The `next` of the page before; with the same filters.
    #[param(value_type = Option<String>)]
    pub(crate) cursor: Option<SiteCursor>,
    /// Wait, at most two seconds, until the state has come to this position.
    pub(crate) at_least: Option<Position>,
}

impl FromParams for SiteList {
    fn take(params: &mut Params) -> Self {
        Self {
            state: params.many("state", |text| super::params::word(text, &STATES)),
            kind: params.word("kind", &KINDS),
            prefix: params.text("prefix", 128),
            limit: params.limit("limit", LIMIT_DEFAULT, LIMIT_MAX),
            cursor: params.one("cursor"),
            at_least: params.number("at_least").map(Position),
        }
    }
}

/// The last name of a page. As text it is hexadecimal digits that mean nothing to anybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteCursor(ChildName);

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no cursor of a list of sites")]
pub(crate) struct SiteCursorError;

impl std::fmt::Display for SiteCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for SiteCursor {
    type Err = SiteCursorError;

    fn from_str(text: &str) -> Result<Self, SiteCursorError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs.map(|pair| Some(digit(pair[0])? * 16 + digit(*pair.get(1)?)?)).collect();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(SiteCursorError)?;
        ChildName::new(&text).map(Self).map_err(|_| SiteCursorError)
    }
}

/// One page of nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SitesAnswer {
    /// The state that this is of, at least.
    position: Position,
    /// The numbering of changes.
    epoch: Epoch,
    /// The nodes, by name.
    sites: Vec<SiteShown>,
    /// The cursor of the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many nodes there are, whatever was asked for.
    total: usize,
    /// How many of them are in which state.
    states: SiteStates,
}

/// How many nodes are in which state.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct SiteStates {
    /// A person must approve them.
    awaiting: usize,
    /// They have not joined yet.
    enrolled: usize,
    /// They are connected.
    connected: usize,
    /// They are not connected, and not silent yet.
    away: usize,
    /// They are silent.
    silent: usize,
    /// They have another node above them.
    moved: usize,
}

/// A node that may join.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrolRequest {
    /// Its name: of a site or region, the site's own; of an agent, its host's.
    name: ChildName,
    /// What it is; `site` unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<ChildKind>,
    /// Whether a person must approve it once it asks in; as the settings say (`sites.approve`) unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    approve: Option<bool>,
    /// Whether it is given a join token; if not, only a client certificate with its name proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<bool>,
}

/// How it may join anew.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenRequest {
    /// Whether a person must approve it once it asks in; as the settings say (`sites.approve`) unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    approve: Option<bool>,
}

/// With what it may join.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenAnswer {
    /// Up to where the journal is durable; what a list shows that has `at_least` this position.
    position: Position,
    /// Who.
    name: ChildName,
    /// The token. It is good once, and told only now.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Until when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SiteAnswer {
    /// Up to where the journal is durable; what a list shows that has `at_least` this position.
    position: Position,
    /// To whom.
    name: ChildName,
}

/// A node's name in a path.
pub(crate) struct NamedSite(ChildName);

impl<S: Send + Sync> FromRequestParts<S> for NamedSite {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::of_field(Kind::InvalidParameter, "name", reason);
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| wrong(rejection.body_text()))?;
        name.parse().map(Self).map_err(|error: klaxon_schemas::names::NameError| wrong(error.to_string()))
    }
}

fn unknown(name: &ChildName) -> Problem {
    Problem::new(Kind::NotFound, format!("no node below this one is called {name}"))
}

fn known(api: &Api, name: &ChildName) -> Result<Arc<Child>, Problem> {
    api.uplinks().child(name).filter(|child| child.retired.is_none()).ok_or_else(|| unknown(name))
}

/// List the nodes below, and how each stands.
#[utoipa::path(
    get,
    path = "/sites",
    tag = "sites",
    operation_id = "listSites",
    params(SiteList),
    responses((status = 200, description = "The nodes, by name", body = SitesAnswer), Always)
)]
pub(crate) async fn list(State(api): State<Api>, caller: Caller, Query(query): Query<SiteList>) -> Result<Response, Problem> {
    api.reach(query.at_least).await?;
    let (position, epoch) = (*api.store().committed().borrow(), api.store().epoch());
    let mut all = api.uplinks().sites();
    all.retain(|site| caller.scope().includes(whose(&api, site)));
    let mut states = SiteStates::default();
    for site in &all {
        *match site.state {
            SiteState::Awaiting => &mut states.awaiting,
            SiteState::Enrolled => &mut states.enrolled,
            SiteState::Connected => &mut states.connected,
            SiteState::Away => &mut states.away,
            SiteState::Silent => &mut states.silent,
            SiteState::Moved => &mut states.moved,
        } += 1;
    }
    let total = all.len();
    let is_asked_for = |site: &SiteShown| {
        (query.state.is_empty() || query.state.contains(&site.state))
            && query.kind.is_none_or(|kind| site.kind == kind)
            && query.prefix.as_ref().is_none_or(|prefix| site.name.starts_with(prefix.as_str()))
            && query.cursor.as_ref().is_none_or(|SiteCursor(last)| site.name > *last)
    };
    let mut sites: Vec<_> = all.into_iter().filter(is_asked_for).take(query.limit + 1).collect();
    let is_more = sites.len() > query.limit;
    sites.truncate(query.limit);
    let next = sites.last().filter(|_| is_more).map(|site| SiteCursor(site.name.clone()).to_string());
    json(&SitesAnswer { position, epoch, sites, next, total, states })
}

/// The site whose alarms a node below reports.
fn whose<'a>(api: &'a Api, site: &'a SiteShown) -> &'a str {
    if site.kind.owns() { &site.name } else { api.site() }
}

/// Show how one node below stands.
#[utoipa::path(
    get,
    path = "/sites/{name}",
    tag = "sites",
    operation_id = "showSite",
    params(("name" = String, Path, description = "The node's name")),
    responses((status = 200, description = "The node", body = SiteShown), Always, Found)
)]
pub(crate) async fn show(
    State(api): State<Api>,
    caller: Caller,
    NamedSite(name): NamedSite,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let shown = api.uplinks().site_shown(&name).filter(|site| caller.scope().includes(whose(&api, site)));
    json(&shown.ok_or_else(|| unknown(&name))?)
}

/// Enrol a node, so that it may join.
///
/// What is answered is durable; the join token is told this once. One that went elsewhere is enrolled anew, and may come back.
#[utoipa::path(
    post,
    path = "/sites",
    tag = "sites",
    operation_id = "enrolSite",
    request_body(content = EnrolRequest),
    responses((status = 200, description = "It may join", body = TokenAnswer), Always, Found, Acts)
)]
pub(crate) async fn enrol(
    State(api): State<Api>,
    acting: Acting,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    let mut params = Params::of_body(&body, BODY_BYTES_MAX)?;
    let (name, kind) = (params.one::<ChildName>("name"), params.word("kind", &KINDS));
    let (approve, token) = (params.word("approve", &WHETHER), params.word("token", &WHETHER));
    if let Some(name) = &name
        && **name == **api.site()
    {
        params.refuse("name", "is the site of this node itself");
    }
    params.finish(Kind::InvalidBody)?;
    let name = name.ok_or_else(|| Problem::of_field(Kind::InvalidBody, "name", "is missing"))?;
    let known = api.uplinks().child(&name);
    if known.as_ref().is_some_and(|child| child.retired.is_some()) {
        return Err(Problem::new(Kind::Busy, format!("{name} was retired, and its alarms are still being forgotten")));
    }
    // One that went elsewhere may come back when it is enrolled anew, also by its certificate alone.
    if known.as_ref().is_some_and(|child| child.moved.is_none()) {
        let reason = "is enrolled already; it is given another join token by POST /api/v1/sites/{name}/token";
        return Err(Problem::of_field(Kind::Refused, "name", reason));
    }
    let kind = kind.or(known.map(|child| child.kind)).unwrap_or(ChildKind::Site);
    enrolled(&api, name, actor, kind, approve, token.unwrap_or(true)).await
}

/// Give a node another join token.
///
/// What proved it before is void. What is known of it stays.
#[utoipa::path(
    post,
    path = "/sites/{name}/token",
    tag = "sites",
    operation_id = "newJoinToken",
    params(("name" = String, Path, description = "The node's name")),
    request_body(content = Option<TokenRequest>),
    responses((status = 200, description = "It may join anew", body = TokenAnswer), Always, Found, Acts)
)]
pub(crate) async fn token(
    State(api): State<Api>,
    acting: Acting,
    NamedSite(name): NamedSite,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    let mut approve = None;
    if !body.is_empty() {
        let mut params = Params::of_body(&body, BODY_BYTES_MAX)?;
        approve = params.word("approve", &WHETHER);
        params.finish(Kind::InvalidBody)?;
    }
    let kind = known(&api, &name)?.kind;
    let response = enrolled(&api, name.clone(), actor, kind, approve, true).await?;
    api.uplinks().cut(&name);
    Ok(response)
}

async fn enrolled(
    api: &Api,
    name: ChildName,
    actor: Actor,
    kind: ChildKind,
    approve: Option<bool>,
    has_token: bool,
) -> Result<Response, Problem> {
    let token = has_token.then(new_token);
    let expires_at = api.uplinks().join_expires_at();
    let what = ChildEvent::Enrolled {
        kind,
        join: token.as_ref().map(|token| Join { hash: token.hash.clone(), expires_at }),
        needs_approval: approve.unwrap_or(api.uplinks().config().approve),
    };
    tracing::info!(child = %name, ?kind, %actor, "a node below is enrolled");
    let position = tell(api, &name, actor, what).await?;
    let expires_at = token.as_ref().map(|_| expires_at);
    json(&TokenAnswer { position, name, token: token.map(|token| token.text), expires_at })
}

/// Approve a node that asked in.
#[utoipa::path(
    post,
    path = "/sites/{name}/approve",
    tag = "sites",
    operation_id = "approveSite",
    params(("name" = String, Path, description = "The node's name")),
    responses((status = 200, description = "It is let in when it comes again", body = SiteAnswer), Always, Found, Acts)
)]
pub(crate) async fn approve(
    State(api): State<Api>,
    acting: Acting,
    NamedSite(name): NamedSite,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    if !known(&api, &name)?.awaits_approval {
        return Err(Problem::new(Kind::Refused, format!("{name} does not wait for approval")));
    }
    let position = tell(&api, &name, actor, ChildEvent::Approved).await?;
    json(&SiteAnswer { position, name })
}

/// Give a node up.
///
/// Its alarms are forgotten here, and what proved it is void.
#[utoipa::path(
    delete,
    path = "/sites/{name}",
    tag = "sites",
    operation_id = "retireSite",
    params(("name" = String, Path, description = "The node's name")),
    responses((status = 200, description = "It is there no more", body = SiteAnswer), Always, Found, Acts)
)]
pub(crate) async fn retire(
    State(api): State<Api>,
    acting: Acting,
    NamedSite(name): NamedSite,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    let actor = acting.everywhere()?;
    known(&api, &name)?;
    tracing::info!(child = %name, %actor, "a node below is retired");
    let position = tell(&api, &name, actor, ChildEvent::Retired).await?;
    api.uplinks().cut(&name);
    json(&SiteAnswer { position, name })
}

async fn tell(api: &Api, name: &ChildName, actor: Actor, what: ChildEvent) -> Result<Position, Problem> {
    let fact = ChildFact { child: name.clone(), actor: Some(actor), what };
    let published = api.uplinks().tell(vec![fact]).await.map_err(|error| refused(&error))?;
    match published.answers.first() {
        Some(Answer::Rejected(rejection)) => Err(Problem::new(Kind::Refused, rejection.to_string())),
        _ => Ok(published.durable.position()),
    }
}

/// What is counted of nodes below.
pub(crate) fn metrics(text: &mut MetricsText, uplinks: &Uplinks) {
    let mut family = "";
    for metric in uplinks.metrics() {
        if metric.name != family {
            let kind = if metric.is_counter { MetricKind::Counter } else { MetricKind::Gauge };
            text.family(metric.name, kind, metric.help);
            family = metric.name;
        }
        text.sample(metric.name, &metric.labels, metric.value);
    }
}
