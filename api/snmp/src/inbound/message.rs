//! Messages of v3 taken apart and put together (RFC 3412 section 6, RFC 3414 section 2.4).

use async_snmp::ber::{Decoder, EncodeBuf};
use async_snmp::message::{MsgFlags, MsgGlobalData, RawMsgData, RawV3Message, SecurityLevel};
use async_snmp::v3::auth::authenticate_message;
use async_snmp::v3::{DesSaltState, PrivProtocol, SaltCounter, UsmSecurityParams};
use async_snmp::{MessageSize, Result};
use bytes::Bytes;

use super::peers::Keys;
use crate::notification::{LENIENT, Unreadable, Version, shown};
use crate::user::Level;

/// The largest message that we take: what a datagram holds.
const MESSAGE_BYTES_MAX: usize = 65_507;

/// A message whose security has not been looked at.
pub(super) struct Message {
    /// From its first byte to its last.
    pub(super) whole: Bytes,
    pub(super) id: i32,
    pub(super) level: Level,
    pub(super) is_reportable: bool,
    pub(super) usm: UsmSecurityParams,
    pub(super) data: RawMsgData,
    pub(super) oddities: Vec<String>,
}

impl Message {
    pub(super) fn read(datagram: &Bytes) -> std::result::Result<Self, Unreadable> {
        let malformed = |error: Box<async_snmp::Error>| Unreadable::Malformed(error.to_string());
        let mut outer = Decoder::new(datagram.clone());
        outer.skip_tlv().map_err(malformed)?;
        let whole = datagram.slice(..datagram.len() - outer.remaining());
        let raw = RawV3Message::decode(datagram.clone(), LENIENT).map_err(malformed)?;
        let usm = UsmSecurityParams::decode(raw.value.security_params().clone(), LENIENT).map_err(malformed)?;
        let oddities = shown(&[raw.anomalies, usm.anomalies].concat());
        let flags = raw.value.global_data().msg_flags();
        Ok(Self {
            whole,
            id: raw.value.msg_id(),
            level: flags.security_level.into(),
            is_reportable: flags.reportable,
            usm: usm.value,
            data: raw.value.msg_data().clone(),
            oddities,
        })
    }

    /// msgUserName, for people.
    pub(super) fn user(&self) -> String {
        String::from_utf8_lossy(self.usm.username()).into_owned()
    }
}

/// What a message of ours is made of.
pub(super) struct Outgoing<'a> {
    pub(super) id: i32,
    pub(super) engine_id: &'a [u8],
    pub(super) boots: u32,
    pub(super) time: u32,
    pub(super) user: &'a [u8],
    pub(super) level: Level,
    /// Needed above noAuthNoPriv.
    pub(super) keys: Option<&'a Keys>,
    pub(super) salts: &'a SaltCounter,
    pub(super) des_salt: &'a DesSaltState,
    /// The element ScopedPDU.
    pub(super) scoped: &'a [u8],
    /// Whether its receiver may answer with a Report. No Report of ours is answered by another.
    pub(super) is_reportable: bool,
}

impl Outgoing<'_> {
    /// The message, protected.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let keys = self.keys.filter(|_| self.level > Level::NoAuthNoPriv);
        let mut usm =
            UsmSecurityParams::new(Bytes::copy_from_slice(self.engine_id), self.boots, self.time, self.user.to_vec())?;
        if let Some(keys) = keys {
            usm = usm.with_auth_placeholder(keys.auth.mac_len())?;
        }
        let mut hidden = None;
        if let Some(key) = keys.and_then(|keys| keys.privacy.as_ref()).filter(|_| self.level == Level::AuthPriv) {
            let sealed = match key.protocol() {
                PrivProtocol::Des | PrivProtocol::Des3 => key.encrypt_des_family(self.scoped, self.des_salt),
                _ => key.encrypt_aes(self.scoped, self.boots, self.time, self.salts),
            };
            let (text, parameters) = sealed.map_err(|error| Box::new(async_snmp::Error::Privacy(error)))?;
            usm = usm.with_priv_params(parameters)?;
            hidden = Some(text);
        }
        let flags = MsgFlags::new(self.level.into(), self.is_reportable);
        let head = MsgGlobalData::new(self.id, MessageSize::new(MESSAGE_BYTES_MAX).expect("is a size"), flags)?;
        let usm = usm.encode()?;
        let mut buffer = EncodeBuf::with_capacity(self.scoped.len() + 256);
        // It is filled from its end.
        buffer.push_sequence(|buffer| {
            match &hidden {
                Some(text) => buffer.push_octet_string(text)?,
                None => buffer.push_bytes(self.scoped),
            }
            buffer.push_octet_string(&usm)?;
            head.encode(buffer)?;
            buffer.push_integer(Version::V3.number());
            Ok(())
        })?;
        let mut message = buffer.finish_vec();
        if let Some(keys) = keys {
            let (at, length) = UsmSecurityParams::find_auth_params_offset(&message).expect("was just put there");
            authenticate_message(&keys.auth, &mut message, at, length).expect("its place is as long as it");
        }
        Ok(message)
    }
}

/// The element ScopedPDU around `pdu`, an element itself.
pub(super) fn scoped(engine_id: &[u8], context: &[u8], pdu: &[u8]) -> Result<Bytes> {
    let mut buffer = EncodeBuf::with_capacity(pdu.len() + 64);
    buffer.push_sequence(|buffer| {
        buffer.push_bytes(pdu);
        buffer.push_octet_string(context)?;
        buffer.push_octet_string(engine_id)
    })?;
    Ok(buffer.finish())
}

impl From<SecurityLevel> for Level {
    fn from(level: SecurityLevel) -> Self {
        match level {
            SecurityLevel::NoAuthNoPriv => Self::NoAuthNoPriv,
            SecurityLevel::AuthNoPriv => Self::AuthNoPriv,
            SecurityLevel::AuthPriv => Self::AuthPriv,
        }
    }
}

impl From<Level> for SecurityLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::NoAuthNoPriv => Self::NoAuthNoPriv,
            Level::AuthNoPriv => Self::AuthNoPriv,
            Level::AuthPriv => Self::AuthPriv,
        }
    }
}
