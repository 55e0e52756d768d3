//! What the records of the topics are: JSON, as in a journal. Anybody may produce an event as `event.v1.schema.json` has it; what
//! a node sends beside that is marked by a header as an entry (`entry.v1.schema.json`).

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::child::site_of;
use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::error::chain;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{Door, Site};
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};
use klaxon_schemas::time::{JournalTime, Timestamp};
use klaxon_schemas::wire::v1;
use rdkafka::Message;
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use serde::{Deserialize, Serialize};

use super::place::partition_of;

/// Marks what is an entry and no event; its value is the form's number.
const ENTRY_HEADER: &str = "klaxon-entry";
/// Says which reader it needs at least, if that is more than the first.
const MIN_READER_HEADER: &str = "klaxon-min-reader";
/// The form that is written and read here.
const READER: u32 = 1;
/// What stands between the parts of a key, which no name can hold.
const SEPARATOR: char = '\u{1f}';
/// The key of how far the state has come.
const MARK_KEY: &str = "mark";

/// Up to where the events of a partition were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadUpTo {
    /// The offset of the first record that was not.
    pub next: i64,
    /// The latest time that the brokers gave one that was: what came in later and stands before `next` was never read. 0 where that
    /// is not known, and nothing can be told by it.
    #[serde(default)]
    pub at: JournalTime,
}

impl ReadUpTo {
    /// Whether a record stands where others were read before it came in.
    pub fn has_missed(&self, offset: i64, at: JournalTime) -> bool {
        self.at != JournalTime::default() && offset < self.next && at > self.at
    }
}

/// Where the state of a partition has come to: written with each transaction, so that it agrees with the offset of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Up to where the events were read.
    #[serde(flatten)]
    pub read: ReadUpTo,
    /// How far the engine has come, and the numbers it goes on with.
    pub cursor: Cursor,
}

/// Why a record is passed over, or the partition left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// A newer program wrote it: nothing behind it may be read either.
    #[error("it needs reader {needs}, and this program is reader {READER}: a newer program wrote it")]
    Newer {
        /// The reader that it needs.
        needs: u32,
    },
    /// Its site has its place elsewhere: whoever produced it hashes in another way, or counts other partitions.
    #[error("site {site} belongs to partition {belongs}; produce with the key {site} and murmur2_random")]
    Elsewhere {
        /// The site.
        site: Site,
        /// Where it belongs.
        belongs: u16,
    },
    /// It is of no known form.
    #[error("{0}")]
    Malformed(String),
}

/// The state's record that has this key, or lacks it.
#[derive(Debug)]
pub enum StateFact {
    /// An alarm as it is now; nothing if it is forgotten.
    Alarm(AlarmId, Option<Box<Alarm>>),
    /// A keyed record; nothing if it is gone.
    Put(StateKey, Option<StateRecord>),
    /// How far the state has come.
    Mark(Mark),
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names, numbers and times serialize")
}

fn malformed(error: &(dyn std::error::Error + 'static)) -> Unread {
    Unread::Malformed(chain(error))
}

fn header<'a, M: Message>(message: &'a M, name: &str) -> Option<&'a str> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    std::str::from_utf8(found.value?).ok()
}

pub(super) fn check_reader<M: Message>(message: &M) -> Result<(), Unread> {
    let needs = header(message, MIN_READER_HEADER).map_or(Ok(READER), str::parse);
    match needs {
        Ok(needs) if needs > READER => Err(Unread::Newer { needs }),
        Ok(_) => Ok(()),
        Err(_) => Err(Unread::Malformed(format!("the header {MIN_READER_HEADER} is no number"))),
    }
}

/// The site by which an entry has its place; nothing for what each partition gets for itself.
pub fn site_of_entry(kind: &EntryKind) -> Option<Site> {
    match kind {
        EntryKind::Event(event) => Some(event.key.site.clone()),
        EntryKind::Relay(relay) => Some(site_of(&relay.child)),
        EntryKind::Child(fact) => Some(site_of(&fact.child)),
        EntryKind::Action(_)
        | EntryKind::Started(_)
        | EntryKind::ClockStep { .. }
        | EntryKind::Deadline
        | EntryKind::Bundle { .. }
        | EntryKind::Settings(_) => None,
    }
}

/// An entry as a record: its payload and headers. Place and time are those that the broker gives it.
pub(super) fn write_entry(door: &Door, kind: EntryKind) -> (Vec<u8>, OwnedHeaders) {
    let entry = Entry { position: Position(0), at: JournalTime(0), wall: Timestamp::default(), door: door.clone(), kind };
    let headers = OwnedHeaders::new().insert(Header { key: ENTRY_HEADER, value: Some("1") });
    (json(&v1::Entry::from(&entry)), headers)
}

/// When a record came in, by the clock of the brokers.
pub(super) fn appended_at<M: Message>(message: &M) -> JournalTime {
    let millis = message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok());
    JournalTime(millis.unwrap_or(0).saturating_mul(1000))
}

/// Reads what came in. `own` is the site of an event that names none, neither by itself nor by its key; `door` that of one
/// which is no entry. It is not earlier than `not_before`.
pub(super) fn read_entry<M: Message>(
    message: &M,
    partitions: u16,
    own: &Site,
    door: &Door,
    not_before: JournalTime,
) -> Result<Entry, Unread> {
    check_reader(message)?;
    let payload = message.payload().ok_or_else(|| Unread::Malformed("it is empty".to_owned()))?;
    let position = Position(u64::try_from(message.offset()).unwrap_or(0) + 1);
    let mut entry = match header(message, ENTRY_HEADER) {
        Some(_) => {
            let form: v1::Entry = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
            form.into_entry(position, own).map_err(|error| malformed(&error))?
        }
        None => {
            let key = message.key().map(std::str::from_utf8);
            let site = match key {
                Some(Ok(key)) => Site::new(key).map_err(|error| Unread::Malformed(format!("key: {error}")))?,
                Some(Err(_)) => return Err(Unread::Malformed("key: is no UTF-8".to_owned())),
                None => own.clone(),
            };
            let (form, _) = v1::parse_event(std::str::from_utf8(payload).map_err(|error| malformed(&error))?)
                .map_err(|error| malformed(&error))?;
            let event = form.into_event(&site).map_err(|error| malformed(&error))?;
            let wall = Timestamp::default();
            Entry { position, at: JournalTime(0), wall, door: door.clone(), kind: EntryKind::Event(Arc::new(event)) }
        }
    };
    if let Some(site) = site_of_entry(&entry.kind) {
        let place = |site: &Site| partition_of(site.as_bytes(), partitions);
        let (belongs, here) = (place(&site), u16::try_from(message.partition()).ok());
        // An agent is where the alarms are that it reports.
        let may_be_agent = matches!(entry.kind, EntryKind::Child(_)) && here == Some(place(own));
        if here != Some(belongs) && !may_be_agent {
            return Err(Unread::Elsewhere { site, belongs });
        }
    }
    // One clock for all: that of the brokers, which may be set back between them.
    let appended = appended_at(message);
    entry.at = appended.max(not_before);
    entry.wall = i64::try_from(appended.0).ok().and_then(|micros| Timestamp::from_micros(micros).ok()).unwrap_or_default();
    Ok(entry)
}

/// A change as a record: the site that it is about, and its payload.
pub(super) fn write_change(change: &Change) -> (String, Vec<u8>) {
    let site = match &change.subject {
        Subject::Alarm { alarm, .. } => &alarm.key.site,
        Subject::Event { event, .. } => &event.key.site,
        _ => &change.site,
    };
    (site.to_string(), json(&v1::Change::stored(change)))
}

/// Reads a change.
pub(super) fn read_change<M: Message>(message: &M) -> Result<Arc<Change>, Unread> {
    check_reader(message)?;
    let payload = message.payload().ok_or_else(|| Unread::Malformed("it is empty".to_owned()))?;
    let form: v1::Change = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
    form.try_into().map(Arc::new).map_err(|error: v1::FormError| malformed(&error))
}

/// An alarm as a record of the state.
pub(super) fn write_alarm(alarm: &Alarm) -> Vec<u8> {
    json(&v1::Alarm::stored(alarm))
}

/// The key of an alarm's record.
pub(super) fn alarm_key(id: AlarmId) -> String {
    format!("alarm{SEPARATOR}{id}")
}

/// A keyed record of the state; without a payload it is gone.
pub(super) fn write_put(key: &StateKey, record: Option<&StateRecord>) -> (String, Option<Vec<u8>>) {
    (v1::state_key_text(key), record.map(|record| json(&v1::StatePut::new(key, record))))
}

/// How far the state has come, as a record.
pub(super) fn write_mark(mark: &Mark) -> (&'static str, Vec<u8>) {
    (MARK_KEY, json(mark))
}

/// Reads a record of the state.
pub(super) fn read_state<M: Message>(message: &M) -> Result<StateFact, Unread> {
    check_reader(message)?;
    read_fact(message.key(), message.payload())
}

/// Reads what a record of the state says, by its key and payload.
pub(super) fn read_fact(key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<StateFact, Unread> {
    let key = key.and_then(|key| std::str::from_utf8(key).ok());
    let key = key.ok_or_else(|| Unread::Malformed("it has no key".to_owned()))?;
    if key == MARK_KEY {
        let payload = payload.ok_or_else(|| Unread::Malformed("mark: is empty".to_owned()))?;
        return serde_json::from_slice(payload).map(StateFact::Mark).map_err(|error| malformed(&error));
    }
    if let Some(id) = key.strip_prefix("alarm").and_then(|rest| rest.strip_prefix(SEPARATOR)) {
        let id = id.parse().map(AlarmId).map_err(|_| Unread::Malformed("key: names no alarm".to_owned()))?;
        let alarm = match payload {
            Some(payload) => {
                let form: v1::Alarm = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
                Some(Box::new(form.try_into().map_err(|error: v1::FormError| malformed(&error))?))
            }
            None => None,
        };
        return Ok(StateFact::Alarm(id, alarm));
    }
    match payload {
        Some(payload) => {
            let form: v1::StatePut = serde_json::from_slice(payload).map_err(|error| malformed(&error))?;
            let (key, record) = form.into_record().map_err(|error| malformed(&error))?;
            Ok(StateFact::Put(key, Some(record)))
        }
        None => Ok(StateFact::Put(v1::state_key(key).map_err(|error| malformed(&error))?, None)),
    }
}
