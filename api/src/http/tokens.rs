//! Tokens: who may do what by showing which. What proves one is told when it is made, and never again.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use klaxon_schemas::access::{Role, SCOPE_SITES_MAX, Token, TokenOrder};
use klaxon_schemas::action::Verb;
use klaxon_schemas::ids::Position;
use klaxon_schemas::names::{Actor, NameError, Site, Text, TokenName};
use klaxon_schemas::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::actions::carry_out;
use super::body::WholeBody;
use super::guard::{Acting, Caller};
use super::openapi::{Acts, Always, Found};
use super::params::{NoParams, Params, Query};
use super::problem::{Kind, Problem};
use super::shown::json;
use crate::clock;
use crate::token::new_token;

/// The largest body of an order to make a token.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The roles by name.
const ROLES: [(&str, Role); 4] =
    [("reader", Role::Reader), ("operator", Role::Operator), ("publisher", Role::Publisher), ("admin", Role::Admin)];

/// A token that is wanted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenOrderRequest {
    /// Its name: the actor of what its bearer does.
    name: TokenName,
    /// What its bearer may do.
    role: Role,
    /// At these sites and no others; at all sites if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 64)]
    sites: Option<Vec<Site>>,
    /// Until when it is good; for good if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<Text>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewTokenAnswer {
    /// Up to where the journal is durable.
    position: Position,
    /// Its name.
    name: TokenName,
    /// The token. It is told only now.
    token: String,
}

/// A token, as it is listed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenShown {
    /// Its name: the actor of what its bearer does.
    name: TokenName,
    /// What its bearer may do.
    role: Role,
    /// At these sites and no others; at all sites if absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    sites: Vec<Site>,
    /// Who made it.
    by: Actor,
    /// When.
    at: Timestamp,
    /// Until when it is good; for good if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// Whether its time is over.
    expired: bool,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<Text>,
}

impl TokenShown {
    fn of(name: &TokenName, token: &Token) -> Self {
        Self {
            name: name.clone(),
            role: token.role,
            sites: token.sites.clone(),
            by: token.by.clone(),
            at: token.at,
            expires_at: token.expires_at,
            expired: token.expires_at.is_some_and(|end| end <= clock::now()),
            note: token.note.clone(),
        }
    }
}

/// All tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokensAnswer {
    /// The state that this is of.
    position: Position,
    /// The tokens, by name.
    tokens: Vec<TokenShown>,
}

/// A token that is good no longer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevokedAnswer {
    /// Up to where the journal is durable.
    position: Position,
    /// Its name.
    name: TokenName,
}

/// A token's name in a path.
pub(crate) struct NamedToken(TokenName);

impl<S: Send + Sync> FromRequestParts<S> for NamedToken {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let wrong = |reason: String| Problem::of_field(Kind::InvalidParameter, "name", reason);
        let Path(name) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| wrong(rejection.body_text()))?;
        name.parse().map(Self).map_err(|error: NameError| wrong(error.to_string()))
    }
}

/// List the tokens.
#[utoipa::path(
    get,
    path = "/tokens",
    tag = "access",
    operation_id = "listTokens",
    responses((status = 200, description = "The tokens, by name", body = TokensAnswer), Always)
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    // What others may do at other sites is nobody's business.
    caller.demand_all_sites()?;
    let answer = {
        let state = api.store().read();
        let tokens = state.tokens().iter().map(|(name, token)| TokenShown::of(name, token)).collect();
        TokensAnswer { position: state.position(), tokens }
    };
    json(&answer)
}

/// Make a token.
///
/// Whoever shows it has its role: as `Authorization: Bearer`, as the password of HTTP Basic, or as `X-Auth-Token`.
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "access",
    operation_id = "createToken",
    request_body(content = TokenOrderRequest),
    responses((status = 201, description = "The token; it is told only now", body = NewTokenAnswer), Always, Found, Acts)
)]
pub(crate) async fn create(
    State(api): State<Api>,
    acting: Acting,
    Query(NoParams): Query<NoParams>,
    body: WholeBody,
) -> Result<Response, Problem> {
    let mut order = order_of(&body)?;
    // Nobody gives away more than they have.
    acting.demand_all_sites()?;
    if api.store().read().tokens().contains_key(&order.name) {
        let detail = format!("there is a token {} already; revoke it first, or take another name", order.name);
        return Err(Problem::new(Kind::Refused, detail));
    }
    let token = new_token();
    order.hash.clone_from(&token.hash);
    let name = order.name.clone();
    let position = carry_out(&api, acting, Verb::CreateToken(order)).await?;
    let answer = json(&NewTokenAnswer { position, name, token: token.text })?;
    Ok((StatusCode::CREATED, answer).into_response())
}

/// Revoke a token. It is good no longer as soon as this answers.
#[utoipa::path(
    delete,
    path = "/tokens/{name}",
    tag = "access",
    operation_id = "revokeToken",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 200, description = "It is good no longer", body = RevokedAnswer), Always, Found, Acts)
)]
pub(crate) async fn revoke(
    State(api): State<Api>,
    acting: Acting,
    NamedToken(name): NamedToken,
    Query(NoParams): Query<NoParams>,
) -> Result<Response, Problem> {
    acting.demand_all_sites()?;
    if !api.store().read().tokens().contains_key(&name) {
        return Err(Problem::new(Kind::NotFound, format!("there is no token {name}")));
    }
    let position = carry_out(&api, acting, Verb::RevokeToken(name.clone())).await?;
    json(&RevokedAnswer { position, name })
}

fn order_of(body: &WholeBody) -> Result<TokenOrder, Problem> {
    let mut params = Params::of_body(body, BODY_BYTES_MAX)?;
    let name = params.one("name");
    let role = params.word("role", &ROLES);
    let sites = params.many("sites", |text| text.parse().map_err(|error: NameError| error.to_string()));
    let (expires_at, note) = (params.time("expires_at"), params.one("note"));
    if sites.len() > SCOPE_SITES_MAX {
        params.refuse("sites", format!("has {} sites, at most {SCOPE_SITES_MAX} are allowed", sites.len()));
    }
    if expires_at.is_some_and(|end| end <= clock::now()) {
        params.refuse("expires_at", "is past");
    }
    params.finish(Kind::InvalidBody)?;
    let missing = |field: &str| Problem::of_field(Kind::InvalidBody, field, "is missing");
    let name = name.ok_or_else(|| missing("name"))?;
    let role = role.ok_or_else(|| missing("role"))?;
    Ok(TokenOrder { name, role, sites, hash: String::new(), expires_at, note })
}
