//! The agent, RFC 3411's command responder: managers ask it for objects (RFC 3416) in SNMPv1, v2c and v3.
//!
//! ```text
//! datagram ─▶ async-snmp: codec, USM, VACM, GETBULK ─▶ Tree: view, which part ─▶ Objects: a snapshot
//! ```
//!
//! Who may speak is settled when an agent is built. For other users, communities or views it is stopped, which lets running
//! requests finish, and built anew: between the two nobody has the port for a few milliseconds, what arrives then is lost, and
//! managers send it again.

mod counts;
mod own;
mod refusals;
mod scalars;
#[cfg(test)]
mod tests;
mod tree;
mod view;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_snmp::agent::{SecurityModel, VacmBuilder};
use async_snmp::message::SecurityLevel;
use async_snmp::{Agent as WireAgent, AgentShutdownPolicy, Community, DecodeConfig, Error as WireError, Oid as WireOid};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::{Engine, Level, Oid, Secret, User, Value, Varbind};

pub use counts::{AgentCounts, AgentMetric};
pub use refusals::Refusals;
pub use view::View;

use counts::Life;
use tree::{Nested, Tree};

/// The smallest size of a message that every engine must take (RFC 3417 section 3.2).
pub const MESSAGE_BYTES_MIN: usize = 484;
/// The largest payload of UDP over IPv4.
pub const MESSAGE_BYTES_MAX: usize = async_snmp::MAX_UDP_PAYLOAD;
/// How many requests are answered at one time; those behind them wait in the kernel's buffer.
const REQUESTS_MAX: usize = 256;
/// How long an agent that stops lets managers have what they asked for. A set is always let finish.
const DRAIN: Duration = Duration::from_secs(1);

/// A future that can be kept.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A part of the tree of objects, under one root. It is asked for every variable of every request, so it answers from a snapshot:
/// at once, without a lock and without making more than the answer.
pub trait Objects: Send + Sync + 'static {
    /// The subtree that it owns. No other's root lies in it.
    fn root(&self) -> Oid;

    /// What the instance `oid` is. It is within the root.
    fn get(&self, oid: &[u32]) -> Found;

    /// The first instance behind `after` that is within the root, if there is one. `after` may lie before the root or anywhere in
    /// it, and need not be an instance: what a stranger writes, up to 128 numbers of any size.
    fn next(&self, after: &[u32]) -> Option<(Oid, Value)>;

    /// Subtrees of the root with nothing but Counter64, as columns: a manager that speaks SNMPv1 is led past them, because it has
    /// no such type (RFC 3584 section 4.2.2.1). Asked once.
    fn counter64(&self) -> Vec<Oid> {
        Vec::new()
    }

    /// Whether this variable could be set together with those that stand `before` it in the request, within the root: what is wrong
    /// with it, if anything. Nothing is done before all have passed.
    fn check(&self, _varbind: &Varbind, _before: &[Varbind]) -> Result<(), SetError> {
        Err(SetError::NotWritable)
    }

    /// Sets all the variables of one request that are within the root, each of which [`Self::check`] has let pass: all of them,
    /// and then it stands, or none. Sets come one at a time. What a manager does not hear of in time it may send again. It ends
    /// within seconds, whatever happens: an agent that stops waits for it.
    fn set(&self, _request: Set) -> BoxFuture<'_, Result<(), SetFailed>> {
        Box::pin(std::future::ready(Err(SetFailed)))
    }
}

/// What an instance is.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It is there.
    Value(Value),
    /// There is no such object (RFC 3416 section 4.2.1).
    NoSuchObject,
    /// The object is there, this instance of it is not.
    NoSuchInstance,
}

/// What is to be set, by whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// The name of the user. It came authenticated and hidden.
    pub user: String,
    /// Where from.
    pub source: SocketAddr,
    /// The request's id: what comes again from there with the same may be the same request.
    pub request_id: i32,
    /// The variables, in their order.
    pub varbinds: Vec<Varbind>,
}

/// Why a variable cannot be set (RFC 3416 section 4.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is no such variable, and none can be made.
    #[error("noCreation")]
    NoCreation,
    /// It cannot be set, ever.
    #[error("notWritable")]
    NotWritable,
    /// The value is of another type.
    #[error("wrongType")]
    WrongType,
    /// The value is too long or too short.
    #[error("wrongLength")]
    WrongLength,
    /// The value can never be this.
    #[error("wrongValue")]
    WrongValue,
    /// The value could be this, but not as things stand.
    #[error("inconsistentValue")]
    InconsistentValue,
    /// The variable could be made, but not as things stand.
    #[error("inconsistentName")]
    InconsistentName,
    /// There is no room.
    #[error("resourceUnavailable")]
    ResourceUnavailable,
}

/// It was let pass, and then could not be set: commitFailed. Nothing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("commitFailed")]
pub struct SetFailed;

/// How an agent is to be.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where UDP is listened on.
    pub listen: SocketAddr,
    /// The receive buffer that the kernel is asked for.
    pub receive_buffer_bytes: usize,
    /// The largest response, in bytes of UDP's payload. Beyond what the network takes in one piece it is sent in fragments.
    pub message_bytes_max: usize,
    /// What the agent says of the system.
    pub system: System,
    /// Who may ask. Nobody else has an answer.
    pub access: Vec<Access>,
}

/// What an agent says of the system it is on (RFC 3418).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// sysDescr.
    pub description: String,
    /// sysObjectID.
    pub object_id: Oid,
    /// sysContact.
    pub contact: String,
    /// sysName.
    pub name: String,
    /// sysLocation.
    pub location: String,
}

/// Somebody who may ask, and for what.
#[derive(Debug, Clone)]
pub struct Access {
    /// Who.
    pub who: Who,
    /// What may be asked for.
    pub read: View,
    /// What may be set, if anything. Only a user who authenticates and hides may; with anybody else it counts for nothing.
    pub write: Option<View>,
}

/// Somebody who asks.
#[derive(Debug, Clone)]
pub enum Who {
    /// Whoever knows this word and speaks SNMPv1 or v2c.
    Community(Secret),
    /// This user, with all the protection that the user has keys for and not less.
    User(User),
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address cannot be had.
    #[error("cannot listen for SNMP requests on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Two parts own the same objects.
    #[error("objects under {inner} are also those under {outer}")]
    Nested {
        /// The one root.
        outer: Box<Oid>,
        /// The other, within it.
        inner: Box<Oid>,
    },
    /// The library refuses.
    #[error("{0}")]
    Refused(String),
    /// The socket does not work any more.
    #[error("cannot receive SNMP requests on {listen}")]
    Receive {
        /// The address.
        listen: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// An agent that has its port.
pub struct Agent {
    wire: WireAgent,
    _life: Life,
}

impl Agent {
    /// An agent as `config` says, that answers from `objects` and from its own, with the identity of `engine`. It stops when `stop`
    /// is cancelled.
    pub async fn bind(
        config: &AgentConfig,
        engine: &Engine,
        objects: &[Arc<dyn Objects>],
        counts: &Arc<AgentCounts>,
        stop: CancellationToken,
    ) -> Result<Self, AgentError> {
        match Self::bind_to(config.listen, config, engine, objects, counts, stop.clone()).await {
            // Where the kernel has no IPv6, all addresses are those of IPv4.
            Err(AgentError::Listen { listen, source })
                if listen.is_ipv6() && listen.ip().is_unspecified() && source.raw_os_error() == Some(NO_SUCH_FAMILY) =>
            {
                let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port()));
                Self::bind_to(instead, config, engine, objects, counts, stop).await
            }
            bound => bound,
        }
    }

    async fn bind_to(
        listen: SocketAddr,
        config: &AgentConfig,
        engine: &Engine,
        objects: &[Arc<dyn Objects>],
        counts: &Arc<AgentCounts>,
        stop: CancellationToken,
    ) -> Result<Self, AgentError> {
        let own = own::objects(&config.system, engine, counts);
        let all = objects.iter().cloned().chain(own).collect();
        let views = config.access.iter().enumerate().map(|(number, access)| (read_view(number), access.read.clone()));
        let tree =
            Tree::new(all, views, Arc::clone(counts)).map_err(|Nested { outer, inner }| AgentError::Nested { outer, inner })?;
        let mut builder = WireAgent::builder()
            .bind(listen.to_string())
            .recv_buffer_size(Some(config.receive_buffer_bytes))
            .max_message_size(config.message_bytes_max)
            .decode_config(decoding())
            .max_concurrent_requests(Some(REQUESTS_MAX))
            .authoritative_engine(engine.authoritative.clone())
            .des_salt_state(engine.des_salt.clone())
            .without_builtin_handlers()
            .handler(WireOid::from_slice(&ALL), Arc::new(tree))
            .shutdown_policy(AgentShutdownPolicy::AbortCancellationSafeRetrievalsAfter(DRAIN))
            .cancellation_token(stop)
            .vacm(|vacm| config.access.iter().enumerate().fold(vacm, grant));
        for access in &config.access {
            builder = match &access.who {
                Who::Community(Secret(community)) => builder.community(community.as_bytes()),
                Who::User(user) => {
                    let added = builder.usm_user(user.name().to_owned(), |_| Ok(user.inbound()));
                    added.map_err(|error| AgentError::Refused(error.to_string()))?
                }
            };
        }
        let wire = builder.build().await.map_err(|error| match *error {
            WireError::Network { source, .. } => AgentError::Listen { listen, source },
            other => AgentError::Refused(other.to_string()),
        })?;
        let life = counts.live(&wire);
        Ok(Self { wire, _life: life })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.wire.local_addr()
    }

    /// Answers until it is stopped. Then it has finished what it was at, and the port is free.
    pub async fn run(self) -> Result<(), AgentError> {
        let receive = |error: Box<WireError>| AgentError::Receive { listen: self.local_addr(), reason: error.to_string() };
        self.wire.run().await.map_err(receive)
    }
}

/// EAFNOSUPPORT of Linux.
const NO_SUCH_FAMILY: i32 = 97;
/// The root of all object identifiers that anybody uses.
const ALL: [u32; 1] = [1];

/// What a manager asks to be set is set as it said, or not at all: a number that is too large is not cut.
fn decoding() -> DecodeConfig {
    let mut decoding = DecodeConfig::DEFAULT;
    decoding.truncate_numeric_values = false;
    decoding.clamp_bounded_strings = false;
    decoding.empty_counter64_as_zero = false;
    decoding
}

fn read_view(number: usize) -> Bytes {
    format!("read-{number}").into()
}

/// Lets somebody ask: a group, and views, for each.
fn grant(vacm: VacmBuilder, (number, access): (usize, &Access)) -> VacmBuilder {
    let group = Bytes::from(format!("group-{number}"));
    let vacm = vacm.view(read_view(number), |_| access.read.wire());
    match &access.who {
        Who::Community(Secret(community)) => [SecurityModel::V1, SecurityModel::V2c].into_iter().fold(vacm, |vacm, model| {
            vacm.group(Community::from(community.as_bytes()).into_bytes(), model, group.clone()).access(
                group.clone(),
                model,
                SecurityLevel::NoAuthNoPriv,
                |entry| entry.read_view(read_view(number)),
            )
        }),
        Who::User(user) => {
            let level = user.level();
            let wire_level = match level {
                Level::NoAuthNoPriv => SecurityLevel::NoAuthNoPriv,
                Level::AuthNoPriv => SecurityLevel::AuthNoPriv,
                Level::AuthPriv => SecurityLevel::AuthPriv,
            };
            let write = access.write.as_ref().filter(|_| level == Level::AuthPriv);
            let write_view = format!("write-{number}");
            let vacm = match write {
                Some(view) => vacm.view(write_view.clone(), |_| view.wire()),
                None => vacm,
            };
            let name = user.name().to_owned();
            vacm.group(name, SecurityModel::Usm, group.clone()).access(group, SecurityModel::Usm, wire_level, |entry| {
                let entry = entry.read_view(read_view(number));
                if write.is_some() { entry.write_view(write_view) } else { entry }
            })
        }
    }
}
