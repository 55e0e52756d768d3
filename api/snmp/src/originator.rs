//! Traps and informs as they go out: the notification originator of RFC 3413 section 3.3, one for each receiver.
//!
//! A trap is gone when it is sent, and nobody says whether it arrived. An inform is over when the receiver has answered. What
//! the library cannot do is done here: a client knows one address and one engine for ever, so after an exchange that nobody
//! answered it is thrown away; the next one asks for the address again and discovers whoever is there now (a receiver that was
//! installed anew, or another one that took over the address).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::Mutex as Lock;
use std::time::{Duration, Instant};

use async_snmp::transport::{UdpHandle, UdpTransport};
use async_snmp::{
    Auth, Client, ClientBuilder, Error as WireError, ErrorStatus, GenericTrap, Retry, TrapV1Notification, VarBind,
};
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::notification::{SNMP_TRAP_ENTERPRISE, SNMP_TRAPS};
use crate::user::{Secret, User};
use crate::value::{Oid, Value, Varbind};

/// The largest message: what UDP can carry.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
/// The smallest that every engine must take (RFC 3411 section 5, snmpEngineMaxMessageSize).
pub const DATAGRAM_BYTES_MIN: usize = 484;
/// The most retransmissions.
const RETRIES_MAX: u32 = 16;
/// A name is looked up again for traps when this has passed, because no answer tells that the address is another.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(300);

/// snmpTrapAddress.0
const SNMP_TRAP_ADDRESS: &[u32] = &[1, 3, 6, 1, 6, 3, 18, 1, 3, 0];

/// As whom messages are sent, and thereby in which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// RFC 1157, with this community: traps only.
    V1(Secret),
    /// RFC 1901, with this community.
    V2c(Secret),
    /// RFC 3412 with the user-based security model, as capable as the user is.
    V3(User),
}

/// Where messages go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginatorConfig {
    /// Host and port: a name, an IPv4 address, or an IPv6 address in brackets.
    pub target: String,
    /// As whom.
    pub credentials: Credentials,
    /// The address to send from; the system's choice if absent.
    pub source: Option<IpAddr>,
    /// How long an answer is waited for before an inform is sent again.
    pub timeout: Duration,
    /// How often an inform is sent again, with the same request id, before it counts as not answered.
    pub retries: u32,
    /// The largest message, from [`DATAGRAM_BYTES_MIN`] to [`DATAGRAM_BYTES_MAX`].
    pub datagram_bytes_max: usize,
}

/// A notification to be sent; sysUpTime.0 and snmpTrapOID.0 are put before its variables.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The value of snmpTrapOID.0.
    pub trap_oid: Oid,
    /// All other variables, in their order.
    pub varbinds: Vec<Varbind>,
}

/// Why a notification was not sent, or not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginateError {
    /// Nobody answered.
    #[error("no answer from {0}")]
    Unanswered(String),
    /// It cannot be sent, or what answers is not who was spoken to.
    #[error("{0}")]
    Failed(String),
    /// The message is larger than may be sent, or than the receiver takes. Nothing was sent.
    #[error("a message of {bytes} bytes, at most {max} may be sent")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
    /// The receiver has it and answered with this error-status (RFC 3416 section 3): it is about what was sent.
    #[error("answered with the error-status {0}")]
    Refused(String),
    /// The receiver has it and answered with this error-status: it is about the receiver or about who sends, and may pass.
    #[error("answered for now with the error-status {0}")]
    Busy(String),
    /// It cannot be said in this version.
    #[error("cannot be encoded: {0}")]
    Unfit(String),
}

/// What sends to one receiver. Informs can be under way at the same time, as many as are asked for.
pub struct Originator {
    config: OriginatorConfig,
    engine: Engine,
    session: Mutex<Option<Session>>,
}

/// A client and what is known of it.
#[derive(Clone)]
struct Session {
    client: Client<UdpHandle>,
    own_address: IpAddr,
    made_at: Instant,
    /// When the last answer came.
    answered_at: Arc<Lock<Option<Instant>>>,
}

impl Originator {
    /// What sends as `config` says; nothing is looked up or sent yet. The engine is the node's: traps of SNMPv3 are its word.
    pub fn new(config: OriginatorConfig, engine: Engine) -> Self {
        Self { config, engine, session: Mutex::new(None) }
    }

    /// The address that the receiver sees messages come from, if nothing translates it on the way.
    pub async fn own_address(&self) -> Result<IpAddr, OriginateError> {
        self.session(false).await.map(|session| session.own_address)
    }

    /// Sends a trap. That it is sent says nothing of whether it arrives.
    pub async fn trap(&self, notification: &Outgoing) -> Result<(), OriginateError> {
        let session = self.session(true).await?;
        let sent = match self.config.credentials {
            Credentials::V1(_) => {
                let own = match session.own_address {
                    IpAddr::V4(address) => address,
                    IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
                };
                let trap = to_v1(notification, own, self.engine.uptime_ticks())?;
                session.client.send_v1_trap(trap).await
            }
            Credentials::V2c(_) | Credentials::V3(_) => {
                let (oid, varbinds) = to_wire(notification)?;
                session.client.send_trap(&oid, self.engine.uptime_ticks(), varbinds).await
            }
        };
        self.judge(&session, Instant::now(), sent).await
    }

    /// Sends an inform, and again as often as is set, until the receiver answers. It may be dropped; then nobody knows whether
    /// the receiver has it.
    pub async fn inform(&self, notification: &Outgoing) -> Result<(), OriginateError> {
        let session = self.session(false).await?;
        let begun = Instant::now();
        let (oid, varbinds) = to_wire(notification)?;
        let answer = session.client.send_inform(&oid, self.engine.uptime_ticks(), varbinds).await;
        let is_community = !matches!(self.config.credentials, Credentials::V3(_));
        let answer = match answer {
            // The request id and the community are ours and there is no error: it is taken, though the receiver does not repeat
            // the variables, as RFC 3416 section 4.2.7 wants it to.
            Err(error) if is_community && matches!(*error, WireError::MalformedResponse { .. }) => Ok(()),
            other => other,
        };
        if answer.is_ok() {
            *session.answered_at.lock().expect("nobody panics while holding it") = Some(Instant::now());
        }
        self.judge(&session, begun, answer).await
    }

    /// What came of an exchange that began at `begun`; after a failure the session is over, unless others are answered.
    async fn judge(&self, session: &Session, begun: Instant, result: Result<(), Box<WireError>>) -> Result<(), OriginateError> {
        let Err(error) = result else { return Ok(()) };
        let error = self.explain(&error);
        let is_over = match error {
            OriginateError::Unanswered(_) => {
                session.answered_at.lock().expect("nobody panics while holding it").is_none_or(|at| at < begun)
            }
            OriginateError::Failed(_) => true,
            OriginateError::TooLarge { .. }
            | OriginateError::Refused(_)
            | OriginateError::Busy(_)
            | OriginateError::Unfit(_) => false,
        };
        if is_over {
            let mut current = self.session.lock().await;
            if current.as_ref().is_some_and(|current| current.made_at == session.made_at) {
                *current = None;
            }
        }
        Err(error)
    }

    fn explain(&self, error: &WireError) -> OriginateError {
        match error {
            WireError::SharedOperation { source } => self.explain(source),
            WireError::Exchange { source, .. } => self.explain(source),
            WireError::Timeout { .. } => OriginateError::Unanswered(self.config.target.clone()),
            WireError::OutboundMessageTooLarge { size, limit } => OriginateError::TooLarge { bytes: *size, max: *limit },
            WireError::Snmp { status, .. } if is_about_content(*status) => OriginateError::Refused(status.to_string()),
            WireError::Snmp { status, .. } => OriginateError::Busy(status.to_string()),
            WireError::InvalidMessage(reason) | WireError::InvalidOid(reason) => OriginateError::Unfit(reason.to_string()),
            WireError::Network { source, .. } => {
                OriginateError::Failed(format!("cannot send to {}: {source}", self.config.target))
            }
            WireError::Report { status, .. } => {
                OriginateError::Failed(format!("{} answers with a report: {status}", self.config.target))
            }
            WireError::Auth { .. } => OriginateError::Failed(format!(
                "what {} answers is not authentic or out of its time window",
                self.config.target
            )),
            other => OriginateError::Failed(other.to_string()),
        }
    }

    /// The client that is there, or a new one.
    async fn session(&self, is_trap: bool) -> Result<Session, OriginateError> {
        let mut current = self.session.lock().await;
        if let Some(session) = &*current
            && !(is_trap && session.made_at.elapsed() > LOOK_UP_AGAIN)
        {
            return Ok(session.clone());
        }
        let session = self.connect().await?;
        *current = Some(session.clone());
        Ok(session)
    }

    async fn connect(&self) -> Result<Session, OriginateError> {
        let OriginatorConfig { target, credentials, source, timeout, retries, datagram_bytes_max } = &self.config;
        let unknown = |reason: String| OriginateError::Failed(format!("cannot look up {target}: {reason}"));
        let found = tokio::time::timeout(*timeout, tokio::net::lookup_host(target.as_str())).await;
        let found: Vec<SocketAddr> =
            found.map_err(|_| unknown("no answer".to_owned()))?.map_err(|error| unknown(error.to_string()))?.collect();
        let peer = found.iter().find(|peer| source.is_none_or(|source| source.is_ipv4() == peer.is_ipv4()));
        let peer = *peer.ok_or_else(|| unknown("it has no address of the family of the source".to_owned()))?;
        let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let bind = SocketAddr::new(source.unwrap_or(any), 0);
        let own_address = route(bind, peer)
            .map_err(|error| OriginateError::Failed(format!("cannot send to {target} from {}: {error}", bind.ip())))?;
        let transport = UdpTransport::builder()
            .bind(bind.to_string())
            .send_capacity(*datagram_bytes_max)
            .receive_capacity(DATAGRAM_BYTES_MAX)
            .build()
            .await
            .map_err(|error| self.explain(&error))?;
        let auth = match credentials {
            Credentials::V1(Secret(community)) => Auth::v1(community),
            Credentials::V2c(Secret(community)) => Auth::v2c(community),
            Credentials::V3(user) => Auth::Usm(user.outbound()),
        };
        let retry = Retry::fixed((*retries).min(RETRIES_MAX), Duration::ZERO).expect("is at most the library's limit");
        let client = ClientBuilder::new(auth)
            .request_timeout(*timeout)
            .send_timeout(*timeout)
            .retry(retry)
            .local_authoritative_engine(self.engine.authoritative.clone())
            .des_salt_state(self.engine.des_salt.clone())
            .target(peer.to_string())
            .build_with(&transport)
            .await
            .map_err(|error| self.explain(&error))?;
        Ok(Session { client, own_address, made_at: Instant::now(), answered_at: Arc::default() })
    }
}

/// Whether an error-status is about what was sent, so that it will be the same each time. genErr, resourceUnavailable, commitFailed
/// and the like say how the receiver is, noAccess and authorizationError what the sender may: both can be put right.
fn is_about_content(status: ErrorStatus) -> bool {
    use ErrorStatus as Is;
    match status {
        Is::TooBig
        | Is::NoSuchName
        | Is::BadValue
        | Is::WrongType
        | Is::WrongLength
        | Is::WrongEncoding
        | Is::WrongValue
        | Is::InconsistentValue
        | Is::InconsistentName
        | Is::NoCreation => true,
        // NoError, ReadOnly, GenErr, NoAccess, ResourceUnavailable, CommitFailed, UndoFailed, AuthorizationError, NotWritable, and
        // what nobody knows.
        _ => false,
    }
}

/// The address from which the system sends to `peer`. Nothing is sent.
fn route(bind: SocketAddr, peer: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind(bind)?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

fn wire_oid(oid: &Oid) -> async_snmp::Oid {
    async_snmp::Oid::from_slice(oid.arcs())
}

fn to_wire(notification: &Outgoing) -> Result<(async_snmp::Oid, Vec<VarBind>), OriginateError> {
    let varbinds: Result<Vec<VarBind>, OriginateError> = notification.varbinds.iter().map(wire_varbind).collect();
    Ok((wire_oid(&notification.trap_oid), varbinds?))
}

fn wire_varbind(varbind: &Varbind) -> Result<VarBind, OriginateError> {
    use async_snmp::Value as Wire;
    let unfit = |what: &str| OriginateError::Unfit(format!("{} is {what}", varbind.oid));
    let value = match &varbind.value {
        Value::Integer(number) => Wire::Integer(*number),
        Value::OctetString(bytes) => Wire::OctetString(bytes.clone()),
        Value::Null => Wire::Null,
        Value::Oid(oid) => Wire::ObjectIdentifier(wire_oid(oid)),
        Value::IpAddress(address) => Wire::IpAddress(address.octets()),
        Value::Counter32(number) => Wire::Counter32(*number),
        Value::Gauge32(number) => Wire::Gauge32(*number),
        Value::TimeTicks(ticks) => Wire::TimeTicks(*ticks),
        Value::Counter64(number) => Wire::Counter64(*number),
        Value::Opaque(bytes) => Wire::Opaque(bytes.clone()),
        Value::Float(_) => return Err(unfit("a float, which SNMP has not")),
        Value::Exception(what) => return Err(unfit(what)),
        Value::Other(tag, _) => return Err(unfit(&format!("of the unknown type {tag}"))),
    };
    Ok(VarBind::new(wire_oid(&varbind.oid), value))
}

/// The trap of v1 that says the same (RFC 3584 section 3.2). v1 has no Counter64: such variables are left out. The device is the
/// one of snmpTrapAddress.0, or `own`.
fn to_v1(notification: &Outgoing, own: Ipv4Addr, up_time: u32) -> Result<TrapV1Notification, OriginateError> {
    let unfit = |reason: &str| OriginateError::Unfit(format!("{} as a trap of v1: {reason}", notification.trap_oid));
    let value_of =
        |oid: &[u32]| notification.varbinds.iter().find(|varbind| varbind.oid.arcs() == oid).map(|varbind| &varbind.value);
    let arcs = notification.trap_oid.arcs();
    let (generic, specific, enterprise) = match arcs {
        [traps @ .., number @ 1..=6] if traps == SNMP_TRAPS => {
            let enterprise = match value_of(SNMP_TRAP_ENTERPRISE) {
                Some(Value::Oid(enterprise)) => enterprise.arcs(),
                _ => SNMP_TRAPS,
            };
            let generic = i32::try_from(*number).expect("is at most 6") - 1;
            (GenericTrap::from_i32(generic), 0, enterprise)
        }
        [enterprise @ .., 0, specific] | [enterprise @ .., specific] if enterprise.len() >= 2 => {
            let specific = i32::try_from(*specific).map_err(|_| unfit("its last number is too large"))?;
            (GenericTrap::EnterpriseSpecific, specific, enterprise)
        }
        _ => return Err(unfit("it is too short")),
    };
    let device = match value_of(SNMP_TRAP_ADDRESS) {
        Some(Value::IpAddress(address)) => *address,
        _ => own,
    };
    // What became a field of the trap is not said twice.
    let is_field = |varbind: &&Varbind| [SNMP_TRAP_ENTERPRISE, SNMP_TRAP_ADDRESS].contains(&varbind.oid.arcs());
    let is_sayable = |varbind: &&Varbind| !is_field(varbind) && !matches!(varbind.value, Value::Counter64(_));
    let varbinds: Result<Vec<VarBind>, OriginateError> =
        notification.varbinds.iter().filter(is_sayable).map(wire_varbind).collect();
    let enterprise = async_snmp::Oid::from_slice(enterprise);
    TrapV1Notification::new(enterprise, device.octets(), generic, specific, up_time, varbinds?)
        .map_err(|error| unfit(&error.to_string()))
}
