//! Traps and informs as they come in.
//!
//! v1 and v2c here, and what is common to all versions; v3 is in `inbound.rs`. A trap of v1 comes out as RFC 3584 section 3.1
//! translates it, so that behind this there is one form.

use std::net::Ipv4Addr;

use async_snmp::ber::Decoder;
use async_snmp::message::{CommunityMessage, CommunityPdu};
use async_snmp::pdu::{Pdu, PduType, TrapV1Pdu};
use async_snmp::{DecodeAnomaly, DecodeConfig, Version as WireVersion};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::inbound::{Answer, Discovery};
use crate::user::Level;
use crate::value::{Oid, Varbind};

/// sysUpTime.0
const SYS_UP_TIME: &[u32] = &[1, 3, 6, 1, 2, 1, 1, 3, 0];
/// snmpTrapOID.0
const SNMP_TRAP_OID: &[u32] = &[1, 3, 6, 1, 6, 3, 1, 1, 4, 1, 0];
/// snmpTrapEnterprise.0
pub(crate) const SNMP_TRAP_ENTERPRISE: &[u32] = &[1, 3, 6, 1, 6, 3, 1, 1, 4, 3, 0];
/// snmpTraps: the standard trap with the generic number N of v1 is N + 1 below it.
pub(crate) const SNMP_TRAPS: &[u32] = &[1, 3, 6, 1, 6, 3, 1, 1, 5];

/// The tag of an InformRequest.
const TAG_INFORM: u8 = 0xa6;
/// The tag of a Response.
const TAG_RESPONSE: u8 = 0xa2;

/// What devices get wrong and net-snmp takes all the same is taken, and told of in [`Notification::oddities`].
pub(crate) const LENIENT: DecodeConfig = DecodeConfig::DEFAULT;

/// The version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// RFC 1157.
    #[serde(rename = "1")]
    V1,
    /// RFC 1901.
    #[serde(rename = "2c")]
    V2c,
    /// RFC 3412.
    #[serde(rename = "3")]
    V3,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V1, Self::V2c, Self::V3];

    /// As it is written: `1`, `2c`, `3`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2c => "2c",
            Self::V3 => "3",
        }
    }

    /// The number of it in a message.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::V1 => 0,
            Self::V2c => 1,
            Self::V3 => 3,
        }
    }
}

/// What an inform asks for, and by what a second delivery of it is recognised.
#[derive(Debug, Clone)]
pub struct Inform {
    /// What acknowledges it.
    pub answer: Answer,
    /// What is the same in each delivery of it: its bytes without the community; in v3 user, engine and what was protected.
    pub pdu: Bytes,
}

/// Who sent a notification of v3, and how it was protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// msgUserName: the user's name.
    pub user: String,
    /// How much it was protected.
    pub level: Level,
    /// The engine that the sender is, where that is known: of a trap. An inform names the receiver's.
    pub engine_id: Option<Bytes>,
    /// contextEngineID, if it is another one than the authoritative engine.
    pub context_engine_id: Option<Bytes>,
    /// contextName; mostly empty.
    pub context_name: Bytes,
}

/// A trap or an inform.
#[derive(Debug, Clone)]
pub struct Notification {
    /// The version of the message.
    pub version: Version,
    /// Which trap: the value of snmpTrapOID.0.
    pub trap_oid: Oid,
    /// Hundredths of a second since the device's agent started.
    pub up_time: Option<u32>,
    /// The address that a v1 trap names as its device's.
    pub agent_address: Option<Ipv4Addr>,
    /// The value of snmpTrapEnterprise.0.
    pub enterprise: Option<Oid>,
    /// All variables but sysUpTime.0, snmpTrapOID.0 and snmpTrapEnterprise.0.
    pub varbinds: Vec<Varbind>,
    /// Set if it asks for a response.
    pub inform: Option<Inform>,
    /// Set if it came by v3.
    pub secured: Option<Secured>,
    /// What is wrong with the encoding, though it can be read.
    pub oddities: Vec<String>,
}

/// Why a datagram is no notification for us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no SNMP message.
    #[error("no SNMP message: {0}")]
    Malformed(String),
    /// It is of a version that is not taken.
    #[error("a message of the SNMP version with the number {0}, which is not taken")]
    Version(i32),
    /// It is of a community that is not taken.
    #[error("its community is none of those in traps.communities")]
    Community,
    /// It is a request or a response.
    #[error("no trap and no inform, but a {0}")]
    Kind(String),
    /// It does not say which trap it is.
    #[error("a notification without snmpTrapOID.0")]
    NoTrapOid,
    /// It is no notification but asks what its sender must know before it can send an inform, and is told.
    #[error("no trap and no inform, but a question for {0}")]
    Discovery(Discovery),
    /// It takes this node for another engine, or for none that there can be.
    #[error("of the user {user:?} for an engine that this node is not")]
    UnknownEngine {
        /// As it names its user.
        user: String,
    },
    /// There is no user of this name, or none of it for this engine.
    #[error("of the user {user:?}, who is not known")]
    UnknownUser {
        /// As it names its user.
        user: String,
    },
    /// There is a user of this name, for another engine only. An inform names this one.
    #[error("of the user {user:?}, who is known at another engine only: its engine_id is not the one in the message")]
    UserElsewhere {
        /// As it names its user.
        user: String,
    },
    /// It is protected more or less than its user can and must.
    #[error("of the user {user:?} at {stated:?}, which must be {needed:?}")]
    Level {
        /// Whose it is.
        user: String,
        /// How it is protected.
        stated: Level,
        /// How it must be.
        needed: Level,
    },
    /// It was not made with the user's keys, or was changed on its way.
    #[error("of the user {user:?} with a wrong digest: another password or protocol than here, or not its own")]
    WrongDigest {
        /// Whose it claims to be.
        user: String,
    },
    /// It is old, or its sender has forgotten how often it has started.
    #[error(
        "of the user {user:?}, not in the time window: it says boots {boots} and time {time}, when {known_boots} and {known_time} are known"
    )]
    TimeWindow {
        /// Whose it is.
        user: String,
        /// How often its engine has started, as it says.
        boots: u32,
        /// For how many seconds it has run, as it says.
        time: u32,
        /// How often it has started, as is known.
        known_boots: u32,
        /// For how many seconds it has run, as is known.
        known_time: u32,
    },
    /// It was hidden with another key.
    #[error("of the user {user:?}, cannot be decrypted: another privacy password or protocol than here")]
    Undecryptable {
        /// Whose it is.
        user: String,
    },
}

/// Reads a message. `is_welcome` says whether a community is taken.
pub fn decode(datagram: &Bytes, is_welcome: impl Fn(&[u8]) -> bool) -> Result<Notification, Unreadable> {
    let malformed = |error: Box<async_snmp::Error>| Unreadable::Malformed(error.to_string());
    let mut outer = Decoder::new(datagram.clone());
    let mut message = outer.read_sequence().map_err(malformed)?;
    let version = match message.read_integer().map_err(malformed)? {
        0 => Version::V1,
        1 => Version::V2c,
        other => return Err(Unreadable::Version(other)),
    };
    let community = message.read_octet_string().map_err(malformed)?;
    if !is_welcome(&community) {
        return Err(Unreadable::Community);
    }
    let trailing = outer.remaining();
    let message_end = datagram.len() - trailing;
    let pdu_start = message_end - message.remaining();
    let decoded = CommunityMessage::decode(datagram.clone(), LENIENT).map_err(malformed)?;
    let oddities = shown(&decoded.anomalies);
    let (wire_version, _, pdu) = decoded.value.into_parts();
    debug_assert_eq!(wire_version == WireVersion::V1, version == Version::V1);
    match pdu {
        CommunityPdu::TrapV1(trap) => Ok(Notification { oddities, ..translated(&trap)? }),
        CommunityPdu::Standard(pdu) => {
            let inform = is_inform(&pdu)?.then(|| Inform {
                answer: Answer::made(response(&datagram[..message_end], pdu_start, pdu.error_fields())),
                pdu: datagram.slice(pdu_start..message_end),
            });
            Ok(Notification { inform, ..noted(version, &pdu, oddities)? })
        }
    }
}

/// What is wrong with an encoding, in words.
pub(crate) fn shown(anomalies: &[DecodeAnomaly]) -> Vec<String> {
    anomalies.iter().map(|anomaly| format!("{anomaly:?}")).collect()
}

/// Whether it is an inform; else it is a trap.
pub(crate) fn is_inform(pdu: &Pdu) -> Result<bool, Unreadable> {
    match pdu.pdu_type() {
        PduType::TrapV2 => Ok(false),
        PduType::InformRequest => Ok(true),
        other => Err(Unreadable::Kind(format!("{other:?}"))),
    }
}

/// What a trap or an inform says.
pub(crate) fn noted(version: Version, pdu: &Pdu, oddities: Vec<String>) -> Result<Notification, Unreadable> {
    let mut notification = Notification {
        version,
        trap_oid: Oid::new(&[]),
        up_time: None,
        agent_address: None,
        enterprise: None,
        varbinds: Vec::with_capacity(pdu.varbinds().len()),
        inform: None,
        secured: None,
        oddities,
    };
    let mut trap_oid = None;
    // They should be the first two; not every device knows.
    for varbind in pdu.varbinds() {
        match (varbind.oid.arcs(), &varbind.value) {
            (SYS_UP_TIME, async_snmp::Value::TimeTicks(ticks)) if notification.up_time.is_none() => {
                notification.up_time = Some(*ticks);
            }
            (SNMP_TRAP_OID, async_snmp::Value::ObjectIdentifier(oid)) if trap_oid.is_none() && !oid.is_empty() => {
                trap_oid = Some(Oid::new(oid.arcs()));
            }
            (SNMP_TRAP_ENTERPRISE, async_snmp::Value::ObjectIdentifier(oid)) if notification.enterprise.is_none() => {
                notification.enterprise = Some(Oid::new(oid.arcs()));
            }
            _ => notification.varbinds.push(varbind.into()),
        }
    }
    notification.trap_oid = trap_oid.ok_or(Unreadable::NoTrapOid)?;
    Ok(notification)
}

/// RFC 3584 section 3.1: what the trap would be in v2.
fn translated(trap: &TrapV1Pdu) -> Result<Notification, Unreadable> {
    let generic = trap.generic_trap().as_i32();
    let trap_oid = match (u32::try_from(generic), u32::try_from(trap.specific_trap())) {
        (Ok(6), Ok(specific)) => [trap.enterprise().arcs(), &[0, specific]].concat(),
        (Ok(6), Err(_)) => {
            return Err(Unreadable::Malformed(format!("the specific trap {} is negative", trap.specific_trap())));
        }
        (Ok(generic @ 0..6), _) => [SNMP_TRAPS, &[generic + 1]].concat(),
        _ => return Err(Unreadable::Malformed(format!("there is no generic trap {generic}"))),
    };
    let agent_address = Ipv4Addr::from(trap.agent_addr());
    Ok(Notification {
        version: Version::V1,
        trap_oid: Oid::new(&trap_oid),
        up_time: Some(trap.time_stamp()),
        agent_address: (!agent_address.is_unspecified()).then_some(agent_address),
        enterprise: Some(Oid::new(trap.enterprise().arcs())),
        varbinds: trap.varbinds().iter().map(Varbind::from).collect(),
        inform: None,
        secured: None,
        oddities: Vec::new(),
    })
}

/// RFC 3416 section 4.2.7: the response has the same request id and the same variables, and no error. So it is the same message
/// under another tag. To encode it anew would change what the device wrote oddly, and fail for types of old.
pub(crate) fn response(message: &[u8], pdu_start: usize, error_fields: Option<(i32, i32)>) -> Vec<u8> {
    let mut response = message.to_vec();
    debug_assert_eq!(response[pdu_start], TAG_INFORM);
    response[pdu_start] = TAG_RESPONSE;
    if error_fields != Some((0, 0)) {
        clear_error(&mut response, pdu_start);
    }
    response
}

/// Puts zeros where a request should have had them: into the two integers behind the request id.
fn clear_error(message: &mut [u8], pdu_start: usize) {
    // It was decoded before, so each element is there and its length is right.
    let mut at = content(message, pdu_start).start;
    for field in 0..3 {
        let content = content(message, at);
        at = content.end;
        if field > 0 {
            message[content].fill(0);
        }
    }
}

/// Where the content of the element is that begins at `at`.
pub(crate) fn content(message: &[u8], at: usize) -> std::ops::Range<usize> {
    let first = usize::from(message[at + 1]);
    let more = if first < 0x80 { 0 } else { first & 0x7f };
    let start = at + 2 + more;
    let long = message[at + 2..start].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    start..start + if more == 0 { first } else { long }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of version v2c around a PDU, put together byte by byte.
    fn message(pdu: &[u8]) -> Bytes {
        let inner = [&[2, 1, 1, 4, 6][..], b"public", pdu].concat();
        [&[0x30, u8::try_from(inner.len()).expect("is short")][..], &inner].concat().into()
    }

    /// `error` and `index` where zeros belong, and a variable of the old type UInteger32.
    fn inform(error: u8, index: u8) -> Bytes {
        let trap_oid = [&[0x30, 23, 6, 10][..], &[43, 6, 1, 6, 3, 1, 1, 4, 1, 0], &[6, 9, 43, 6, 1, 6, 3, 1, 1, 5, 1]].concat();
        let old = [0x30, 8, 6, 3, 43, 6, 1, 0x47, 1, 7];
        let variables = [&[0x30, 35][..], &trap_oid, &old].concat();
        let head = [2, 2, 0x12, 0x34, 2, 1, error, 2, 1, index];
        let length = u8::try_from(head.len() + variables.len()).expect("is short");
        message(&[&[TAG_INFORM, length][..], &head, &variables].concat())
    }

    #[test]
    fn a_response_says_what_the_inform_said_and_no_error() {
        for (error, index) in [(0, 0), (5, 1)] {
            let notification = decode(&inform(error, index), |_| true).expect("is an inform");
            let response = Bytes::from(notification.inform.expect("is an inform").answer.encode().expect("is made"));
            let (_, community, pdu) = CommunityMessage::decode(response, LENIENT).expect("is a message").value.into_parts();
            let pdu: Pdu = pdu.standard().expect("is a response").clone();
            assert_eq!(community.as_bytes(), b"public");
            assert_eq!((pdu.pdu_type(), pdu.request_id()), (PduType::Response, 0x1234));
            assert_eq!(pdu.error_fields(), Some((0, 0)));
            assert_eq!(pdu.varbinds().len(), 2);
        }
    }

    #[test]
    fn what_is_behind_the_message_is_not_sent_back() {
        let clean = inform(0, 0);
        let longer = Bytes::from([&clean[..], b"rest"].concat());
        let notification = decode(&longer, |_| true).expect("is an inform");
        assert_eq!(notification.oddities.len(), 1, "{:?}", notification.oddities);
        let known = |notification: Notification| {
            let inform = notification.inform.expect("is an inform");
            (inform.answer.encode().expect("is made"), inform.pdu)
        };
        assert_eq!(known(notification), known(decode(&clean, |_| true).expect("is an inform")));
    }

    #[test]
    fn what_is_no_notification_is_said() {
        let decode = |bytes: &[u8]| decode(&Bytes::copy_from_slice(bytes), |community| community == b"public");
        assert!(matches!(decode(b""), Err(Unreadable::Malformed(_))));
        assert!(matches!(decode(b"GET / HTTP/1.1\r\n"), Err(Unreadable::Malformed(_))));
        assert_eq!(decode(&[0x30, 3, 2, 1, 3]).err(), Some(Unreadable::Version(3)));
        let stranger = [&[0x30, 14, 2, 1, 1, 4, 6][..], b"secret", &[0xa7, 0, 0]].concat();
        assert_eq!(decode(&stranger).err(), Some(Unreadable::Community));
        let get = message(&[0xa0, 11, 2, 1, 1, 2, 1, 0, 2, 1, 0, 0x30, 0]);
        assert_eq!(decode(&get).err(), Some(Unreadable::Kind("GetRequest".to_owned())));
        let nameless = message(&[0xa7, 11, 2, 1, 1, 2, 1, 0, 2, 1, 0, 0x30, 0]);
        assert_eq!(decode(&nameless).err(), Some(Unreadable::NoTrapOid));
    }
}
