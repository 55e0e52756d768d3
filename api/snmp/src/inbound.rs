//! Notifications of all versions as they come in, and what RFC 3414 section 3.2 and RFC 3412 section 7.2 ask of v3.
//!
//! ```text
//! trap     its sender is the authoritative engine: the keys are made for its id, and its time is known from its messages
//! inform   this node is:  sender                                        node
//!                           │── no engine id ────────────────────────────▶│  asks for the engine
//!                           │◀──────────── Report usmStatsUnknownEngineIDs │
//!                           │── inform with a wrong time, authenticated ─▶│  asks for the time
//!                           │◀─ Report usmStatsNotInTimeWindows, authentic │
//!                           │── inform ──────────────────────────────────▶│  is a notification
//!                           │◀─────────────── Response, when it is durable │
//! ```
//!
//! No engine has to be registered. What cannot be believed costs one localization of keys and one digest, takes no memory, and is
//! answered with a Report only where its sender asks for that; a Report is less than twice as long as the shortest message
//! that asks, and there are at most [`REPORTS_PER_SECOND_MAX`].
//!
//! What the protocol does not promise: a trap that is sent again by somebody else within 150 seconds is taken again (the RFC has
//! nothing against that), and so is an old one that is the first of its engine since this process began. Informs that come again
//! are recognised by whoever takes them.

mod message;
mod peers;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_snmp::ber::Decoder;
use async_snmp::message::{RawMsgData, ScopedPdu};
use async_snmp::v3::auth::verify_message;
use async_snmp::v3::{SaltCounter, UsmSecurityParams, in_authoritative_time_window, validate_engine_id};
use bytes::Bytes;

use self::message::{Message, Outgoing};
use self::peers::{EngineTime, Keys, PEERS_MAX, PeerKey, Peers, Told};
use crate::engine::{Engine, EngineHome};
use crate::notification::{
    Inform, LENIENT, Notification, Secured, Unreadable, Version, content, decode, is_inform, noted, response,
};
use crate::user::{Level, User};

/// The most Reports in a second, to all senders together.
pub const REPORTS_PER_SECOND_MAX: u32 = 5_000;
/// What a cipher of blocks may leave behind what it hid.
const PADDING_BYTES_MAX: usize = 15;

/// Who may send, by name. Clones share it: what is set counts from the next message on.
#[derive(Clone, Default)]
pub struct Users(Arc<RwLock<Arc<Table>>>);

/// By msgUserName: those of one engine, and one of all others.
type Table = HashMap<Box<[u8]>, Vec<User>>;

impl Users {
    /// These users; of two that cannot be told apart the first.
    pub fn new(users: impl IntoIterator<Item = User>) -> Self {
        let these = Self::default();
        these.set(users);
        these
    }

    /// These users from now on.
    pub fn set(&self, users: impl IntoIterator<Item = User>) {
        let mut table = Table::new();
        for user in users {
            table.entry(user.name().as_bytes().into()).or_default().push(user);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.table().values().flatten()).finish()
    }
}

/// Whoever is called so at this engine.
fn find<'a>(table: &'a Table, name: &[u8], engine_id: &[u8]) -> Option<&'a User> {
    let users = table.get(name)?;
    let is_there = |user: &&User| user.engine_id().is_some_and(|only| only.octets() == engine_id);
    users.iter().find(is_there).or_else(|| users.iter().find(|user| user.engine_id().is_none()))
}

/// The counters of RFC 3414 section 5, usmStats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usm {
    /// usmStatsUnsupportedSecLevels.
    UnsupportedSecLevels,
    /// usmStatsNotInTimeWindows.
    NotInTimeWindows,
    /// usmStatsUnknownUserNames.
    UnknownUserNames,
    /// usmStatsUnknownEngineIDs.
    UnknownEngineIds,
    /// usmStatsWrongDigests.
    WrongDigests,
    /// usmStatsDecryptionErrors.
    DecryptionErrors,
}

impl Usm {
    /// All of them, in the order of the MIB.
    pub const ALL: [Self; 6] = [
        Self::UnsupportedSecLevels,
        Self::NotInTimeWindows,
        Self::UnknownUserNames,
        Self::UnknownEngineIds,
        Self::WrongDigests,
        Self::DecryptionErrors,
    ];

    /// Its name in the MIB, without what all have in common.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedSecLevels => "UnsupportedSecLevels",
            Self::NotInTimeWindows => "NotInTimeWindows",
            Self::UnknownUserNames => "UnknownUserNames",
            Self::UnknownEngineIds => "UnknownEngineIDs",
            Self::WrongDigests => "WrongDigests",
            Self::DecryptionErrors => "DecryptionErrors",
        }
    }

    /// The element Report-PDU that says how far it has counted.
    fn report(self, count: u32) -> Vec<u8> {
        // usmStats: each counter is a scalar below it.
        let oid = [0x2b, 6, 1, 6, 3, 15, 1, 1, self as u8 + 1, 0];
        let digits = count.to_be_bytes();
        let value = [&[0x41, 5, 0][..], &digits].concat();
        let variable = element(0x30, &[element(0x06, &oid), value].concat());
        // The request id, which cannot be known, and two zeros.
        let head = [2, 1, 0, 2, 1, 0, 2, 1, 0];
        element(0xa8, &[&head[..], &element(0x30, &variable)].concat())
    }
}

/// A short element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80).expect("is short");
    [&[tag, length], content].concat()
}

/// What was counted.
#[derive(Debug, Default)]
pub struct UsmStats {
    counters: [AtomicU32; 6],
    reports: AtomicU64,
    reports_withheld: AtomicU64,
}

impl UsmStats {
    /// How far a counter has come. It goes round as a Counter32 does.
    pub fn get(&self, counter: Usm) -> u32 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    /// How many Reports were made.
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    /// How many were not, because there were [`REPORTS_PER_SECOND_MAX`] in their second.
    pub fn reports_withheld(&self) -> u64 {
        self.reports_withheld.load(Ordering::Relaxed)
    }

    fn count(&self, counter: Usm) -> u32 {
        self.counters[counter as usize].fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

/// What somebody must know before it can send an inform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// The id of this engine.
    Engine,
    /// How late it is here.
    Time,
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "the engine's id",
            Self::Time => "the engine's time",
        })
    }
}

/// A datagram that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Unreadable,
    /// What its sender is to be told.
    pub report: Option<Vec<u8>>,
}

impl From<Unreadable> for Refused {
    fn from(why: Unreadable) -> Self {
        Self { why, report: None }
    }
}

/// A refusal on its way out.
struct Failure {
    why: Unreadable,
    counter: Option<Usm>,
    /// With which keys the Report is authentic.
    keys: Option<Arc<Keys>>,
}

impl From<Unreadable> for Failure {
    fn from(why: Unreadable) -> Self {
        let counter = match why {
            Unreadable::UnknownEngine { .. } | Unreadable::Discovery(Discovery::Engine) => Some(Usm::UnknownEngineIds),
            Unreadable::UnknownUser { .. } | Unreadable::UserElsewhere { .. } => Some(Usm::UnknownUserNames),
            Unreadable::Level { .. } => Some(Usm::UnsupportedSecLevels),
            Unreadable::WrongDigest { .. } => Some(Usm::WrongDigests),
            Unreadable::Undecryptable { .. } => Some(Usm::DecryptionErrors),
            // Of what is said to another engine the RFC counts nothing; of what is said to this one it is counted where it is found.
            _ => None,
        };
        Self { why, counter, keys: None }
    }
}

/// Reads what comes in. It remembers whom it has heard; one thread has it.
pub struct Inbound {
    /// Where the engine is; an onlooker has none.
    home: Option<Arc<EngineHome>>,
    /// From the first message on that finds it started.
    engine: Option<Engine>,
    /// It takes part in nothing; see [`Self::onlooker`].
    is_onlooker: bool,
    users: Users,
    versions: Vec<Version>,
    peers: Peers,
    /// Who has been told how late it is here.
    told: Told,
    salts: Arc<SaltCounter>,
    stats: Arc<UsmStats>,
    /// The second that is counted in, and the Reports in it.
    reports: (Option<Instant>, u32),
}

impl Inbound {
    /// Reads for the engine of `home` what `users` send. Traps of v3 need no engine; informs are answered as soon as there is one.
    /// Without users there is no v3.
    pub fn new(home: Arc<EngineHome>, users: Users) -> Self {
        Self::reading(Some(home), users)
    }

    /// Reads for somebody who looks on: informs to any engine, at any of its times, as that engine would take them from `users`. What
    /// it is asked or told beside notifications is said as such, and nothing is answered.
    pub fn onlooker(users: Users) -> Self {
        Self { is_onlooker: true, ..Self::reading(None, users) }
    }

    fn reading(home: Option<Arc<EngineHome>>, users: Users) -> Self {
        Self {
            home,
            engine: None,
            is_onlooker: false,
            users,
            versions: Version::ALL.into(),
            peers: Peers::new(PEERS_MAX),
            told: Told::new(PEERS_MAX),
            salts: Arc::new(SaltCounter::new().expect("the system has random numbers")),
            stats: Arc::default(),
            reports: (None, 0),
        }
    }

    /// Reads messages of `versions` only.
    pub fn only(self, versions: &[Version]) -> Self {
        Self { versions: versions.to_vec(), ..self }
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<UsmStats> {
        Arc::clone(&self.stats)
    }

    /// Reads a datagram that came from `source` at `at`. `is_welcome` says whether a community is taken.
    pub fn read(
        &mut self,
        datagram: &Bytes,
        source: IpAddr,
        is_welcome: impl Fn(&[u8]) -> bool,
        at: Instant,
    ) -> Result<Notification, Refused> {
        let number = Decoder::new(datagram.clone()).read_sequence().and_then(|mut message| message.read_integer());
        match number.ok().and_then(|number| Version::ALL.into_iter().find(|version| version.number() == number)) {
            Some(version) if !self.versions.contains(&version) => Err(Unreadable::Version(version.number()).into()),
            Some(Version::V3) => self.read_v3(datagram, source, at),
            // What is of no version is for that to say.
            _ => Ok(decode(datagram, is_welcome)?),
        }
    }

    fn read_v3(&mut self, datagram: &Bytes, source: IpAddr, at: Instant) -> Result<Notification, Refused> {
        let table = self.users.table();
        if table.is_empty() && !self.is_onlooker {
            return Err(Unreadable::Version(Version::V3.number()).into());
        }
        if self.engine.is_none() {
            self.engine = self.home.as_ref().and_then(|home| home.started());
        }
        let message = Message::read(datagram)?;
        let engine_id = message.usm.engine_id();
        // Who sends an inform asks for Reports, and who sends a trap does not: that tells whose engine is named.
        let is_ours = match &self.engine {
            Some(engine) => engine.id() == engine_id,
            None => self.is_onlooker && message.is_reportable,
        };
        let user = message.user();
        if self.is_onlooker {
            is_sent_to_be_noted(&message)?;
        }
        let read = if engine_id.is_empty() && message.is_reportable && (self.engine.is_some() || self.is_onlooker) {
            Err(Unreadable::Discovery(Discovery::Engine).into())
        } else if validate_engine_id(engine_id).is_err() {
            Err(Unreadable::UnknownEngine { user }.into())
        } else {
            let taken = self.secured(&table, &message, is_ours, (source, at));
            // Who asks for Reports takes this node for the authoritative engine. Whatever else is wrong, that comes first: it may
            // know this node by an id that is lost, and must ask anew. Traps of devices that ask for no reason are taken above.
            let is_mistaken = !is_ours && message.is_reportable;
            taken.map_err(|failure| if is_mistaken { Unreadable::UnknownEngine { user }.into() } else { failure })
        };
        read.map_err(|failure| self.refuse(&message, failure, at))
    }

    /// RFC 3414 section 3.2, steps 4 to 8, and what is behind it.
    fn secured(
        &mut self,
        table: &Table,
        message: &Message,
        is_ours: bool,
        (source, at): (IpAddr, Instant),
    ) -> Result<Notification, Failure> {
        let (name, engine_id) = (message.usm.username(), message.usm.engine_id());
        let user = || message.user();
        let known = find(table, name, engine_id).ok_or_else(|| match table.contains_key(&**name) {
            true => Unreadable::UserElsewhere { user: user() },
            false => Unreadable::UnknownUser { user: user() },
        })?;
        // A user whose password is guessed at must not become one that needs none.
        if message.level != known.level() {
            return Err(Unreadable::Level { user: user(), stated: message.level, needed: known.level() }.into());
        }
        let mut keys = None;
        if let Some(master) = known.keys() {
            let peer = PeerKey::new(engine_id, name);
            let these = self.peers.keys(&peer, master, engine_id);
            if !is_authentic(message, &these) {
                return Err(Unreadable::WrongDigest { user: user() }.into());
            }
            let time = self.peers.heard(peer, master, &these);
            if is_ours {
                self.check_our_time(message, &these, source, at)?;
            } else {
                let (boots, time_s) = (message.usm.engine_boots(), message.usm.engine_time());
                EngineTime::check(time, boots, time_s, at).map_err(|known| out_of_window(message, known))?;
            }
            keys = Some(these);
        }
        let (plain, pdu) = unhidden(message, keys.as_deref())?;
        let is_inform = is_inform(&pdu.pdu)?;
        if is_inform && !is_ours {
            return Err(Unreadable::UnknownEngine { user: user() }.into());
        }
        let unanswered =
            (is_inform && self.is_onlooker).then(|| Inform { answer: Answer::made(Vec::new()), pdu: plain.clone() });
        let answered = self.engine.as_ref().filter(|_| is_inform).map(|engine| {
            // Behind the context's engine and name.
            let context = content(&plain, 0).start;
            let pdu_start = content(&plain, content(&plain, context).end).end;
            let answer = AnswerV3 {
                engine: engine.clone(),
                salts: Arc::clone(&self.salts),
                keys: keys.clone(),
                id: message.id,
                user: name.clone(),
                level: message.level,
                scoped: response(&plain, pdu_start, pdu.pdu.error_fields()),
            };
            let head = [PeerKey::new(engine_id, name).octets(), &plain].concat();
            Inform { answer: Answer(Form::V3(Box::new(answer))), pdu: head.into() }
        });
        let context_engine_id = Some(pdu.context_engine_id).filter(|id| !id.is_empty() && id != engine_id);
        let secured = Secured {
            user: user(),
            level: message.level,
            // Of an inform it is the receiver's; a device that asks for Reports of its traps is only taken for that by an onlooker.
            engine_id: (!is_ours || self.is_onlooker && !is_inform).then(|| engine_id.clone()),
            context_engine_id,
            context_name: pdu.context_name,
        };
        let notification = noted(Version::V3, &pdu.pdu, message.oddities.clone())?;
        Ok(Notification { inform: answered.or(unanswered), secured: Some(secured), ..notification })
    }

    /// Step 7a.
    fn check_our_time(&mut self, message: &Message, keys: &Arc<Keys>, source: IpAddr, at: Instant) -> Result<(), Failure> {
        let (said_boots, said_time) = (message.usm.engine_boots(), message.usm.engine_time());
        let is_blank = (said_boots, said_time) == (0, 0);
        let Some(engine) = &self.engine else {
            // Of an engine that is looked on at nobody knows the time, but who sends these asks for it (RFC 3414 section 4).
            return if is_blank { Err(Unreadable::Discovery(Discovery::Time).into()) } else { Ok(()) };
        };
        let (boots, time) = engine.boots_and_time(at);
        if in_authoritative_time_window(boots, time, said_boots, said_time) {
            return Ok(());
        }
        // Whoever asks for Reports is told the time and sends again: so it is how an exchange begins, with zeros, or with what the
        // sender knew before this node started. Who has been told and is still wrong does not ask any more.
        let is_question = message.is_reportable && (self.told.is_first(message.usm.username(), source) || is_blank);
        let why = if is_question { Unreadable::Discovery(Discovery::Time) } else { out_of_window(message, (boots, time)) };
        Err(Failure { why, counter: Some(Usm::NotInTimeWindows), keys: Some(Arc::clone(keys)) })
    }

    /// Counts a refusal, and makes the Report of it if there is to be one (RFC 3412 section 7.1 step 3).
    fn refuse(&mut self, message: &Message, failure: Failure, at: Instant) -> Refused {
        let Failure { why, counter, keys } = failure;
        let Some(counter) = counter else { return why.into() };
        let count = self.stats.count(counter);
        let report = match self.engine.clone().filter(|_| message.is_reportable) {
            Some(_) if !self.may_report(at) => {
                self.stats.reports_withheld.fetch_add(1, Ordering::Relaxed);
                None
            }
            Some(engine) => self.report(&engine, message, &counter.report(count), keys.as_deref()),
            None => None,
        };
        Refused { why, report }
    }

    fn report(&self, engine: &Engine, message: &Message, pdu: &[u8], keys: Option<&Keys>) -> Option<Vec<u8>> {
        let (boots, time) = engine.boots_and_time(Instant::now());
        let outgoing = Outgoing {
            id: message.id,
            engine_id: engine.id(),
            boots,
            time,
            user: message.usm.username(),
            level: if keys.is_some() { Level::AuthNoPriv } else { Level::NoAuthNoPriv },
            keys,
            salts: &self.salts,
            des_salt: &engine.des_salt,
            scoped: &message::scoped(engine.id(), b"", pdu).ok()?,
            is_reportable: false,
        };
        let report = outgoing.encode().ok()?;
        self.stats.reports.fetch_add(1, Ordering::Relaxed);
        Some(report)
    }

    fn may_report(&mut self, at: Instant) -> bool {
        let (second, made) = &mut self.reports;
        if second.is_none_or(|second| at.saturating_duration_since(second) >= Duration::from_secs(1)) {
            (*second, *made) = (Some(at), 0);
        }
        *made = made.saturating_add(1);
        *made <= REPORTS_PER_SECOND_MAX
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("users", &self.users).field("versions", &self.versions).finish_non_exhaustive()
    }
}

fn out_of_window(message: &Message, (known_boots, known_time): (u32, u32)) -> Unreadable {
    let (boots, time) = (message.usm.engine_boots(), message.usm.engine_time());
    Unreadable::TimeWindow { user: message.user(), boots, time, known_boots, known_time }
}

/// What can be read of any message without a key: whether it is a Report, a response or a request and no notification. A question
/// for the engine's id may come as one.
fn is_sent_to_be_noted(message: &Message) -> Result<(), Unreadable> {
    let is_question = message.usm.engine_id().is_empty() && message.is_reportable;
    let RawMsgData::Plaintext { data, .. } = &message.data else { return Ok(()) };
    match ScopedPdu::decode(&mut Decoder::new(data.clone()).with_decode_config(LENIENT)) {
        Ok(pdu) if !is_question => is_inform(&pdu.pdu).map(drop),
        _ => Ok(()),
    }
}

/// Step 6.
fn is_authentic(message: &Message, keys: &Keys) -> bool {
    let Some((at, length)) = UsmSecurityParams::find_auth_params_offset(&message.whole) else { return false };
    length == keys.auth.mac_len() && verify_message(&keys.auth, &message.whole, at, length).unwrap_or(false)
}

/// Step 8: the element ScopedPDU and what it says.
fn unhidden(message: &Message, keys: Option<&Keys>) -> Result<(Bytes, ScopedPdu), Unreadable> {
    let (plain, is_hidden) = match &message.data {
        RawMsgData::Plaintext { data, .. } => (data.clone(), false),
        RawMsgData::Encrypted(text) => {
            let usm = &message.usm;
            let key = keys.and_then(|keys| keys.privacy.as_ref()).expect("its level is its user's");
            let plain = key.decrypt(text, usm.engine_boots(), usm.engine_time(), usm.priv_params());
            (plain.map_err(|_| Unreadable::Undecryptable { user: message.user() })?, true)
        }
    };
    let mut decoder = Decoder::new(plain.clone()).with_decode_config(LENIENT);
    match ScopedPdu::decode(&mut decoder) {
        Ok(pdu) if decoder.remaining() <= PADDING_BYTES_MAX => Ok((plain.slice(..plain.len() - decoder.remaining()), pdu)),
        // It is authentic. So it is not broken, but was hidden with another key, of which no cipher here can tell.
        _ if is_hidden => Err(Unreadable::Undecryptable { user: message.user() }),
        Ok(_) => Err(Unreadable::Malformed("there is something behind its PDU".to_owned())),
        Err(error) => Err(Unreadable::Malformed(error.to_string())),
    }
}

/// What acknowledges an inform. It is made at the moment it is sent: one of v3 says how late it is.
#[derive(Debug, Clone)]
pub struct Answer(Form);

/// An answer cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AnswerError(String);

#[derive(Clone)]
enum Form {
    Made(Vec<u8>),
    V3(Box<AnswerV3>),
}

#[derive(Clone)]
struct AnswerV3 {
    engine: Engine,
    salts: Arc<SaltCounter>,
    keys: Option<Arc<Keys>>,
    id: i32,
    user: Bytes,
    level: Level,
    scoped: Vec<u8>,
}

impl Answer {
    /// A message that need not be made.
    pub fn made(message: Vec<u8>) -> Self {
        Self(Form::Made(message))
    }

    /// The message.
    pub fn encode(&self) -> Result<Vec<u8>, AnswerError> {
        let AnswerV3 { engine, salts, keys, id, user, level, scoped } = match &self.0 {
            Form::Made(message) => return Ok(message.clone()),
            Form::V3(answer) => &**answer,
        };
        let (boots, time) = engine.boots_and_time(Instant::now());
        let outgoing = Outgoing {
            id: *id,
            engine_id: engine.id(),
            boots,
            time,
            user,
            level: *level,
            keys: keys.as_deref(),
            salts,
            des_salt: &engine.des_salt,
            scoped,
            is_reportable: false,
        };
        outgoing.encode().map_err(|error| AnswerError(error.to_string()))
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(message) => write!(f, "{} bytes", message.len()),
            Self::V3(answer) => write!(f, "message {} at {:?}", answer.id, answer.level),
        }
    }
}
