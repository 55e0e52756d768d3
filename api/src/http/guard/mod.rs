//! Who is asking, and may they?
//!
//! ```text
//! a token is shown ───────▶ its role, whoever made it: this node, or Keystone; or 401
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
mod keystone;
mod local;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::Uri;
use axum::http::header::{HeaderMap, UPGRADE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use klaxon_schemas::access::{Right, Rights, Role, Scope, Token};
use klaxon_schemas::names::{Actor, Site, Text, TokenName};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1::uplink::PATH;
use klaxon_store::StateRead;
use tokio::time::Instant;

use super::Api;
use super::alertmanager;
use super::problem::{Kind, Problem};
use crate::{clock, token};
use credential::Shown;
pub(crate) use credential::X_AUTH_TOKEN;
pub(crate) use denials::Denials;
use keystone::Keystone;
pub use keystone::KeystoneConfig;

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
    /// Who says whose the tokens are that this node did not make, if somebody does.
    pub keystone: Option<KeystoneConfig>,
}

/// Who may do what, as requests are held to it.
#[derive(Default)]
pub(crate) struct Access {
    certificates: BTreeMap<String, Grant>,
    keystone: Option<Arc<Keystone>>,
}

impl Access {
    /// As `config` says; what Keystone has said before holds if nothing about it has changed. Blocks.
    pub(crate) fn new(config: AccessConfig, before: &Self) -> Result<Self, String> {
        let keystone = match config.keystone {
            None => None,
            Some(config) => match before.keystone.as_ref().filter(|keystone| keystone.is(&config)) {
                Some(same) => Some(Arc::clone(same)),
                None => Some(Arc::new(Keystone::new(config)?)),
            },
        };
        Ok(Self { certificates: config.certificates, keystone })
    }
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
    /// What proves it, for those who stay.
    proof: Proof,
    /// Whose limits they are held to; nobody's in particular if they are on this host without a name.
    client: Option<Client>,
}

/// By what somebody is known, so that it can be asked again whether it is still good.
#[derive(Debug, Clone)]
enum Proof {
    /// By where they come from.
    Place,
    /// By a token of this node, with its hash.
    Token(TokenName, String),
    /// By a name in a certificate, and what the settings gave to it.
    Certificate(String, Grant),
    /// By what Keystone said.
    Keystone(Box<SaidByKeystone>),
}

/// What Keystone said of somebody, and when it is asked again.
#[derive(Debug, Clone)]
struct SaidByKeystone {
    shown: Shown,
    grant: Option<Grant>,
    until: Option<Timestamp>,
    asked_again_at: Instant,
}

/// Whom limits are counted for: a name, or an address of another host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Known by name.
    Named(Actor),
    /// From there.
    Address(IpAddr),
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
        Self { actor, rights, scope, from, because: None, proof: Proof::Place, client: None }
    }

    fn nobody(from: &str, because: Option<String>) -> Self {
        Self { because, ..Self::new(None, Rights::none(), Scope::all(), from) }
    }

    /// Whose limits they are held to.
    pub(crate) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// The sites of which they may know.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether what they showed is still good, as far as this node knows by itself.
    pub(crate) fn holds(&self, api: &Api, state: &StateRead<'_>) -> bool {
        match &self.proof {
            Proof::Place => true,
            Proof::Token(name, hash) => state.tokens().get(name).is_some_and(|token| token.hash == *hash && is_good(token)),
            Proof::Certificate(name, grant) => api.access().certificates.get(name) == Some(grant),
            Proof::Keystone(said) => said.until.is_none_or(|until| until > clock::now()),
        }
    }

    /// The same, and Keystone is asked again where what it said is believed no longer. While it does not answer, a token is good for as long
    /// as it was said to be.
    pub(crate) async fn still_holds(&mut self, api: &Api) -> bool {
        if let Proof::Keystone(said) = &mut self.proof
            && said.asked_again_at <= Instant::now()
        {
            let Some(keystone) = api.access().keystone.clone() else { return false };
            match keystone.whose(&said.shown).await {
                Ok(Some(whose)) if whose.grant == said.grant => said.until = whose.until,
                Ok(_) => return false,
                Err(_away) => {}
            }
            said.asked_again_at = Instant::now() + keystone.believed_for();
        }
        self.holds(api, &api.store().read())
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
        let mut caller = identify(&api, &peer, request.uri(), request.headers()).await?;
        caller.client = match &peer {
            // Whoever owns the node is not kept from it.
            Peer::Unix { .. } => None,
            Peer::Net(peer) => {
                let address = Some(peer.remote.ip().to_canonical()).filter(|address| !address.is_loopback());
                caller.actor.clone().map(Client::Named).or(address.map(Client::Address))
            }
        };
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

/// Whether it is shown to anybody.
fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(&path) || alertmanager::OPEN_PATHS.contains(&path)
}

/// Whether it asks for an uplink, which proves itself by more than where it comes from.
fn is_uplink(request: &Request) -> bool {
    request.uri().path() == PATH && request.headers().get(UPGRADE).is_some()
}

async fn identify(api: &Api, peer: &Peer, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Problem> {
    if let Some(shown) = Shown::of(headers)? {
        local::is_of_this_page(headers, &api.config().origins)?;
        let place = place_of(peer);
        let caller = match of_token(api, &shown, &place) {
            Some(caller) => Some(caller),
            None => of_keystone(api, &shown, &place).await?,
        };
        return match caller {
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
        let caller = Caller::new(actor, Rights::of([grant.role]), grant.scope.clone(), &format!("{address}, by a certificate"));
        return Ok(Caller { proof: Proof::Certificate(name.clone(), grant.clone()), ..caller });
    }
    let known = || Caller::new(None, Rights::of(LOCAL_ROLES), Scope::all(), &address);
    match peer.trust {
        Trust::Nobody => Ok(Caller::nobody(&address, None)),
        Trust::Anybody => local::is_of_this_page(headers, &api.config().origins).map(|()| known()),
        Trust::Local if is_open(uri.path()) => Ok(known()),
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
    Some(Caller { proof: Proof::Token(name.clone(), hash), ..caller })
}

/// Whose token it is, if Keystone is asked and knows it.
async fn of_keystone(api: &Api, shown: &Shown, place: &str) -> Result<Option<Caller>, Problem> {
    if shown.secret().starts_with(token::PREFIX) {
        return Ok(None);
    }
    let Some(keystone) = api.access().keystone.clone() else { return Ok(None) };
    let Some(whose) = keystone.whose(shown).await? else { return Ok(None) };
    let (rights, scope) = match &whose.grant {
        Some(grant) => (Rights::of([grant.role]), grant.scope.clone()),
        None => (Rights::none(), Scope::of([])),
    };
    let caller = Caller::new(Some(whose.actor), rights, scope, &format!("{place}, by Keystone"));
    let said = SaidByKeystone {
        shown: shown.clone(),
        grant: whose.grant,
        until: whose.until,
        asked_again_at: Instant::now() + keystone.believed_for(),
    };
    Ok(Some(Caller { proof: Proof::Keystone(Box::new(said)), ..caller }))
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
