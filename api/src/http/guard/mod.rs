//! Who is asking, and may they?
//!
//! ```text
//! a token is shown ───────▶ its role, or 401
//! else a Unix socket ─────▶ the login name, which may do everything: the system says who it is, and the socket's mode who connects
//! else a certificate ─────▶ what the settings give its name
//! else from this host ────▶ nobody by name; may read and report, unless `http.trust_loopback` is off
//! else ───────────────────▶ nobody, who may see that the node lives
//! ```
//!
//! Every request has a [`Caller`] from here on. [`demand`] stands before the handlers and asks for the right that they need; what
//! of it is limited to sites, the handlers respect by the caller's [`Scope`].

mod credential;
mod denials;
mod local;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::Uri;
use axum::http::header::{HeaderMap, UPGRADE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use klaxon_schemas::access::{Right, Rights, Role, Scope, Token};
use klaxon_schemas::names::{Actor, Site, Text, TokenName};
use klaxon_schemas::wire::v1::uplink::PATH;
use klaxon_store::StateRead;

use super::Api;
use super::problem::{Kind, Problem};
use crate::{clock, token};
use credential::Shown;
pub(crate) use denials::Denials;

/// What whoever is on this host may do without being known by name.
const LOCAL_ROLES: [Role; 2] = [Role::Reader, Role::Publisher];
/// What is shown to anybody: a balancer of loads knows no token.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The other side of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// Somebody over TCP.
    Net(Arc<NetPeer>),
    /// Somebody who is known.
    Unix {
        /// The login name, or `uid:` and the number of one that has none.
        actor: Actor,
    },
}

/// Somebody over TCP.
#[derive(Debug)]
pub struct NetPeer {
    /// Our address, as the other side dialled it.
    pub local: SocketAddr,
    /// Theirs.
    pub remote: SocketAddr,
    /// Whom the listener trusts.
    pub trust: Trust,
    /// The names in the certificate that they showed, if they showed one that is good.
    pub names: Vec<String>,
}

/// Who may read and report without being known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nobody.
    Nobody,
    /// Whoever is on this host, and not behind a proxy.
    Local,
    /// Whoever can connect.
    Anybody,
}

/// What the settings give to the name in a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What its bearer may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

/// Who may do what, beside the tokens that are journalled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessConfig {
    /// By the names in client certificates.
    pub certificates: BTreeMap<String, Grant>,
}

/// Who asks, and what they may do.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Their name, if they are known by one.
    actor: Option<Actor>,
    rights: Rights,
    scope: Scope,
    /// From where they come and how they were known, in words.
    from: Text,
    /// Why they are nobody, if it is not that they showed nothing.
    because: Option<String>,
    /// The token that they showed, with its hash.
    token: Option<(TokenName, String)>,
}

/// Who acts. A handler that takes this is out of reach for those who are not known by name.
pub(crate) struct Acting {
    /// Who.
    pub(crate) actor: Actor,
    /// From where, in words.
    pub(crate) from: Text,
    /// On what.
    pub(crate) scope: Scope,
}

impl Caller {
    fn new(actor: Option<Actor>, rights: Rights, scope: Scope, from: &str) -> Self {
        let from = Text::lossy(from).expect("addresses and names are short");
        Self { actor, rights, scope, from, because: None, token: None }
    }

    fn nobody(from: &str, because: Option<String>) -> Self {
        Self { because, ..Self::new(None, Rights::none(), Scope::all(), from) }
    }

    /// The sites of which they may know.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether what they showed is still good.
    pub(crate) fn holds(&self, state: &StateRead<'_>) -> bool {
        let Some((name, hash)) = &self.token else { return true };
        state.tokens().get(name).is_some_and(|token| token.hash == *hash && is_good(token))
    }

    /// Refuses who may not.
    pub(crate) fn demand(&self, right: Right) -> Result<(), Problem> {
        match &self.actor {
            _ if self.rights.include(right) => Ok(()),
            Some(actor) => Err(Problem::new(Kind::Forbidden, format!("{actor} may not {}", right.as_str()))),
            None => {
                let need = format!(
                    "to {} one must be known by name: show a token (Authorization: Bearer), or use the node's Unix socket on its host",
                    right.as_str()
                );
                let because = self.because.as_ref().map(|because| format!("; {because}")).unwrap_or_default();
                Err(Problem::new(Kind::Unauthorized, need + &because))
            }
        }
    }

    /// Refuses whose rights do not extend to `site`.
    pub(crate) fn demand_site(&self, site: &Site) -> Result<(), Problem> {
        if self.scope.includes(site) {
            return Ok(());
        }
        Err(Problem::new(Kind::Forbidden, format!("this concerns {site}, and your rights are limited to other sites")))
    }

    /// Refuses whose rights are limited to sites: what is asked for concerns them all.
    pub(crate) fn demand_all_sites(&self) -> Result<(), Problem> {
        demand_all_sites(&self.scope)
    }
}

impl Acting {
    /// Refuses whose rights are limited to sites: what they want concerns them all.
    pub(crate) fn demand_all_sites(&self) -> Result<(), Problem> {
        demand_all_sites(&self.scope)
    }

    /// Who acts, where what they do concerns all sites.
    pub(crate) fn everywhere(self) -> Result<Actor, Problem> {
        self.demand_all_sites().map(|()| self.actor)
    }
}

fn demand_all_sites(scope: &Scope) -> Result<(), Problem> {
    if scope.is_all() {
        return Ok(());
    }
    Err(Problem::new(Kind::Forbidden, "this concerns all sites, and your rights are limited to some"))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(Kind::Internal, "nothing is known of who asks"))
    }
}

impl<S: Sync> FromRequestParts<S> for Acting {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Caller { actor, from, scope, .. } = Caller::from_request_parts(parts, state).await?;
        let actor = actor.ok_or_else(|| Problem::new(Kind::Unauthorized, "whoever acts must be known by name"))?;
        Ok(Self { actor, from, scope })
    }
}

/// The actor behind a user id.
pub(crate) fn actor_of_uid(uid: u32) -> Actor {
    let name = uzers::get_user_by_uid(uid).and_then(|user| Actor::lossy(&user.name().to_string_lossy()).ok());
    name.unwrap_or_else(|| Actor::new(&format!("uid:{uid}")).expect("a number is a name"))
}

/// Says of every request who asks; refuses who shows what is not good, and pages from elsewhere.
pub(crate) async fn check(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>().cloned() else {
        return Err(Problem::new(Kind::Internal, "nothing is known of where the request comes from"));
    };
    // A page cannot show the token that an uplink needs, and its other side need not know the node by a name of its host.
    if !is_uplink(&request) {
        let caller = identify(&api, &peer, request.uri(), request.headers()).await?;
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}

/// Stands before handlers that need `right`.
pub(crate) async fn demand(
    State((api, right)): State<(Api, Right)>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if let Err(problem) = caller.demand(right) {
        api.denials().note(&caller.from, caller.actor.as_ref(), right.as_str());
        return Err(problem);
    }
    Ok(next.run(request).await)
}

/// Whether it asks for an uplink, which proves itself by more than where it comes from.
fn is_uplink(request: &Request) -> bool {
    request.uri().path() == PATH && request.headers().get(UPGRADE).is_some()
}

async fn identify(api: &Api, peer: &Peer, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Problem> {
    if let Some(shown) = Shown::of(headers)? {
        local::is_of_this_page(headers, &api.config().origins)?;
        let place = place_of(peer);
        return match of_token(api, &shown, &place) {
            Some(caller) => Ok(caller),
            None => Err(api.denials().slow(peer, &place).await),
        };
    }
    match peer {
        Peer::Unix { actor } => match local::proxy_of(headers) {
            None => Ok(Caller::new(Some(actor.clone()), Rights::of([Role::Admin]), Scope::all(), "the Unix socket")),
            Some(because) => Ok(Caller::nobody("the Unix socket", Some(because))),
        },
        Peer::Net(net) => of_address(api, net, uri, headers),
    }
}

/// Whoever shows nothing but where they come from, and perhaps a certificate.
fn of_address(api: &Api, peer: &NetPeer, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Problem> {
    let address = peer.remote.ip().to_string();
    let access = api.access();
    if let Some((name, grant)) = peer.names.iter().find_map(|name| access.certificates.get_key_value(name)) {
        local::is_of_this_page(headers, &api.config().origins)?;
        let actor = Actor::lossy(name).ok();
        return Ok(Caller::new(actor, Rights::of([grant.role]), grant.scope.clone(), &format!("{address}, by a certificate")));
    }
    let known = || Caller::new(None, Rights::of(LOCAL_ROLES), Scope::all(), &address);
    match peer.trust {
        Trust::Nobody => Ok(Caller::nobody(&address, None)),
        Trust::Anybody => local::is_of_this_page(headers, &api.config().origins).map(|()| known()),
        Trust::Local if OPEN_PATHS.contains(&uri.path()) => Ok(known()),
        Trust::Local => match local::proxy_of(headers) {
            Some(because) => Ok(Caller::nobody(&address, Some(because))),
            None => local::is_local(peer.local, uri.authority(), headers, &api.config().origins).map(|()| known()),
        },
    }
}

/// From where a request comes, in words.
fn place_of(peer: &Peer) -> String {
    match peer {
        Peer::Net(peer) => peer.remote.ip().to_string(),
        Peer::Unix { actor } => format!("the Unix socket of {actor}"),
    }
}

/// Whose token it is. It is compared with all that are kept, so that how long it takes says nothing.
fn of_token(api: &Api, shown: &Shown, place: &str) -> Option<Caller> {
    let hash = token::hash_of(shown.secret())?;
    let state = api.store().read();
    let mut found = None;
    for (name, token) in state.tokens() {
        if token::is_same(&token.hash, &hash) {
            found = Some((name, token));
        }
    }
    let (name, token) = found.filter(|(_, token)| is_good(token))?;
    let from = format!("{place}, by a token");
    let caller = Caller::new(Some(name.into()), Rights::of([token.role]), token.scope(), &from);
    Some(Caller { token: Some((name.clone(), hash)), ..caller })
}

/// Whether its time is not over.
fn is_good(token: &Token) -> bool {
    token.expires_at.is_none_or(|end| end > clock::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_name_is_a_number() {
        assert_eq!(actor_of_uid(4_000_000_000).as_str(), "uid:4000000000");
        assert_eq!(actor_of_uid(0).as_str(), "root");
    }
}
