//! Users of SNMPv3 (RFC 3414, RFC 3826, RFC 7860): who may speak, and how it is proved and hidden.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_snmp::v3::{AuthProtocol as WireAuth, MasterKeys, PrivProtocol as WirePriv};
use async_snmp::{UsmConfig, UsmUser};
use serde::{Deserialize, Deserializer, Serialize};

/// The longest name (RFC 3414 section 2.4, msgUserName).
pub const NAME_BYTES_MAX: usize = 32;
/// The shortest password (RFC 3414 section 11.2).
pub const PASSWORD_BYTES_MIN: usize = 8;

/// A word that is not shown.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl<'de> Deserialize<'de> for Secret {
    /// What is no text is refused without being shown.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self).map_err(|_| serde::de::Error::custom("is no text in quotes"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a message is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthProtocol {
    /// HMAC-MD5-96, RFC 3414. Weak.
    Md5,
    /// HMAC-SHA-96, RFC 3414.
    Sha1,
    /// RFC 7860.
    Sha224,
    /// RFC 7860.
    Sha256,
    /// RFC 7860.
    Sha384,
    /// RFC 7860.
    Sha512,
}

/// How a message is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrivProtocol {
    /// CBC-DES, RFC 3414. Weak.
    Des,
    /// CFB128-AES-128, RFC 3826.
    Aes128,
    /// AES-192 with keys as draft-blumenthal-aes-usm extends them: net-snmp's AES-192.
    Aes192,
    /// AES-192 with keys as draft-reeder-snmpv3-usm-3desede extends them: Cisco's.
    Aes192Cisco,
    /// AES-256 with keys as draft-blumenthal-aes-usm extends them: net-snmp's AES-256.
    Aes256,
    /// AES-256 with keys as draft-reeder-snmpv3-usm-3desede extends them: Cisco's.
    Aes256Cisco,
}

/// How much a message is protected (RFC 3411 section 3.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Not at all.
    NoAuthNoPriv,
    /// Authenticated.
    AuthNoPriv,
    /// Authenticated and hidden.
    AuthPriv,
}

/// Somebody who may speak. The keys are worked out once, which takes milliseconds by intent; clones share them.
#[derive(Clone)]
pub struct User {
    name: String,
    auth: Option<AuthProtocol>,
    privacy: Option<PrivProtocol>,
    keys: Option<Arc<MasterKeys>>,
    engine_id: Option<EngineId>,
}

/// The id of an engine (RFC 3411 section 5, SnmpEngineID): 5 to 32 octets, not all of them 0 or 255.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineId(Box<[u8]>);

impl EngineId {
    /// The id in these hexadecimal digits, which may begin with `0x`.
    pub fn parse(digits: &str) -> Option<Self> {
        let digits = digits.strip_prefix("0x").unwrap_or(digits).as_bytes();
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let octets: Vec<u8> = digits.chunks(2).map(octet).collect::<Option<_>>()?;
        async_snmp::v3::validate_engine_id(&octets).is_ok().then(|| Self(octets.into()))
    }

    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Why somebody can be no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// RFC 3414 section 5, usmUserName.
    #[error("a user's name has 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    /// RFC 3414 section 11.2.
    #[error("the password for {0} has fewer than {PASSWORD_BYTES_MIN} bytes")]
    Password(&'static str),
    /// RFC 3411 section 3.4.3: there is no such level.
    #[error("what is not authenticated cannot be hidden")]
    PrivWithoutAuth,
    /// MD5 and DES protect nothing any more.
    #[error("{0} is weak: it is taken only with `allow_weak = true`")]
    Weak(&'static str),
    /// The library refuses.
    #[error("{0}")]
    Keys(String),
}

impl User {
    /// The level of the user that [`User::new`] would make, or why it would not; without the work of keys.
    pub fn check(
        name: &str,
        auth: Option<(AuthProtocol, &Secret)>,
        privacy: Option<(PrivProtocol, &Secret)>,
        allow_weak: bool,
    ) -> Result<Level, UserError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(UserError::Name);
        }
        let weak = [
            (auth.is_some_and(|(protocol, _)| protocol == AuthProtocol::Md5), "MD5"),
            (privacy.is_some_and(|(protocol, _)| protocol == PrivProtocol::Des), "DES"),
        ];
        if let Some((_, what)) = weak.iter().find(|(is_used, _)| *is_used && !allow_weak) {
            return Err(UserError::Weak(what));
        }
        let is_short = |password: &Secret| password.0.len() < PASSWORD_BYTES_MIN;
        match (auth, privacy) {
            (None, Some(_)) => Err(UserError::PrivWithoutAuth),
            (Some((_, password)), _) if is_short(password) => Err(UserError::Password("authentication")),
            (_, Some((_, password))) if is_short(password) => Err(UserError::Password("privacy")),
            (None, None) => Ok(Level::NoAuthNoPriv),
            (Some(_), None) => Ok(Level::AuthNoPriv),
            (Some(_), Some(_)) => Ok(Level::AuthPriv),
        }
    }

    /// The user `name`, who proves and hides with these protocols and passwords. MD5 and DES are refused unless `allow_weak`.
    pub fn new(
        name: &str,
        auth: Option<(AuthProtocol, &Secret)>,
        privacy: Option<(PrivProtocol, &Secret)>,
        allow_weak: bool,
    ) -> Result<Self, UserError> {
        Self::check(name, auth, privacy, allow_weak)?;
        let derive = |(protocol, Secret(password)): (AuthProtocol, &Secret)| {
            let keys = MasterKeys::new(protocol.into(), password.as_bytes()).and_then(|keys| match privacy {
                Some((protocol, Secret(password))) => keys.with_privacy(protocol.into(), password.as_bytes()),
                None => Ok(keys),
            });
            keys.map(Arc::new).map_err(|error| UserError::Keys(error.to_string()))
        };
        let keys = auth.map(derive).transpose()?;
        let (auth, privacy) = (auth.map(|(protocol, _)| protocol), privacy.map(|(protocol, _)| protocol));
        Ok(Self { name: name.to_owned(), auth, privacy, keys, engine_id: None })
    }

    /// The same, at one engine only: another user may have its name elsewhere.
    pub fn at_engine(self, engine_id: EngineId) -> Self {
        Self { engine_id: Some(engine_id), ..self }
    }

    /// The only engine that it is a user of, if there is one.
    pub fn engine_id(&self) -> Option<&EngineId> {
        self.engine_id.as_ref()
    }

    /// msgUserName.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it proves who it is.
    pub fn auth(&self) -> Option<AuthProtocol> {
        self.auth
    }

    /// How it hides what it says.
    pub fn privacy(&self) -> Option<PrivProtocol> {
        self.privacy
    }

    /// The most protection that it is capable of.
    pub fn level(&self) -> Level {
        match (self.auth, self.privacy) {
            (None, _) => Level::NoAuthNoPriv,
            (Some(_), None) => Level::AuthNoPriv,
            (Some(_), Some(_)) => Level::AuthPriv,
        }
    }

    /// The keys, if there are any.
    pub(crate) fn keys(&self) -> Option<&Arc<MasterKeys>> {
        self.keys.as_ref()
    }

    /// As an agent takes it.
    pub(crate) fn inbound(&self) -> UsmUser {
        let user = UsmUser::new(self.name.clone());
        match self.keys() {
            Some(keys) => user.with_master_keys(MasterKeys::clone(keys)).expect("keys and backend are of one build"),
            None => user,
        }
    }

    /// As a client takes it.
    pub(crate) fn outbound(&self) -> UsmConfig {
        let user = UsmConfig::new(self.name.clone());
        match self.keys() {
            Some(keys) => user.with_master_keys(MasterKeys::clone(keys)).expect("keys and backend are of one build"),
            None => user,
        }
    }
}

/// Equal users have the same name, protocols and keys.
impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        let keys = |user: &Self| user.keys.clone().map(|keys| (keys.auth_master().as_bytes().to_vec(), private_key(&keys)));
        (&self.name, self.auth, self.privacy) == (&other.name, other.auth, other.privacy) && keys(self) == keys(other)
    }
}

impl Eq for User {}

impl Hash for User {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.auth, self.privacy).hash(state);
        if let Some(keys) = &self.keys {
            (keys.auth_master().as_bytes(), private_key(keys)).hash(state);
        }
    }
}

fn private_key(keys: &MasterKeys) -> Option<Vec<u8>> {
    keys.priv_master().map(|key| key.as_bytes().to_vec())
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("auth", &self.auth).field("privacy", &self.privacy).finish()
    }
}

impl From<AuthProtocol> for WireAuth {
    fn from(protocol: AuthProtocol) -> Self {
        match protocol {
            AuthProtocol::Md5 => Self::Md5,
            AuthProtocol::Sha1 => Self::Sha1,
            AuthProtocol::Sha224 => Self::Sha224,
            AuthProtocol::Sha256 => Self::Sha256,
            AuthProtocol::Sha384 => Self::Sha384,
            AuthProtocol::Sha512 => Self::Sha512,
        }
    }
}

impl From<PrivProtocol> for WirePriv {
    fn from(protocol: PrivProtocol) -> Self {
        match protocol {
            PrivProtocol::Des => Self::Des,
            PrivProtocol::Aes128 => Self::Aes128,
            PrivProtocol::Aes192 => Self::Aes192Blumenthal,
            PrivProtocol::Aes192Cisco => Self::Aes192Reeder,
            PrivProtocol::Aes256 => Self::Aes256Blumenthal,
            PrivProtocol::Aes256Cisco => Self::Aes256Reeder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    #[test]
    fn a_user_is_capable_of_what_it_has_passwords_for() {
        let (long, longer) = (secret("authpass"), secret("privpass1"));
        let auth = Some((AuthProtocol::Sha256, &long));
        let privacy = Some((PrivProtocol::Aes256, &longer));
        let level = |auth, privacy| User::new("noc", auth, privacy, false).map(|user| user.level());
        assert_eq!(level(None, None), Ok(Level::NoAuthNoPriv));
        assert_eq!(level(auth, None), Ok(Level::AuthNoPriv));
        assert_eq!(level(auth, privacy), Ok(Level::AuthPriv));
        assert_eq!(level(None, privacy), Err(UserError::PrivWithoutAuth));
    }

    #[test]
    fn what_protects_nothing_is_taken_only_if_asked_for() {
        let (long, short) = (secret("password"), secret("passwor"));
        let user = |auth, privacy, allow_weak| User::new("noc", Some(auth), Some(privacy), allow_weak).map(|_| ());
        let (sha, aes) = ((AuthProtocol::Sha1, &long), (PrivProtocol::Aes128, &long));
        assert_eq!(user(sha, aes, false), Ok(()));
        assert_eq!(user((AuthProtocol::Md5, &long), aes, false), Err(UserError::Weak("MD5")));
        assert_eq!(user(sha, (PrivProtocol::Des, &long), false), Err(UserError::Weak("DES")));
        assert_eq!(user((AuthProtocol::Md5, &long), (PrivProtocol::Des, &long), true), Ok(()));
        assert_eq!(user((AuthProtocol::Sha1, &short), aes, true), Err(UserError::Password("authentication")));
        assert_eq!(user(sha, (PrivProtocol::Aes128, &short), true), Err(UserError::Password("privacy")));
        assert_eq!(User::new(&"x".repeat(33), None, None, true).map(|_| ()), Err(UserError::Name));
    }

    #[test]
    fn secrets_are_not_shown() {
        let hush = secret("hush-hush");
        let user = User::new("noc", Some((AuthProtocol::Sha1, &hush)), None, false).expect("is right");
        assert!(!format!("{user:?} {hush:?}").contains("hush-"));
    }
}
