//! What a record's payload is: the wire form, version 1, as JSON. Read in three ways: whole, as far as the state needs it,
//! and as far as an index or a filter needs it.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, EngineMarks};
use klaxon_schemas::change::{Change, ChangeKind};
use klaxon_schemas::child::ChildKind;
use klaxon_schemas::entry::Entry;
use klaxon_schemas::error::chain;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{Producer, Site};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};
use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Unusable;
use super::frame::{FrameBuffer, Kind, NEWER};

/// The site of a stored event that names none; doors always name one.
const NO_SITE: &str = "-";

/// A record as far as the state needs it.
#[derive(Debug)]
pub(crate) enum Fact {
    /// Changes nothing in the state.
    Nothing,
    /// An alarm as it is now.
    Alarm(Arc<Alarm>),
    /// An alarm that is forgotten.
    Forgotten(AlarmId),
    /// An alarm was only reported again.
    Touched(Box<v1::Touched>),
    /// A keyed record.
    Put(StateKey, StateRecord),
    /// A keyed record that is gone.
    Deleted(StateKey),
    /// How far the engine has come.
    Cursor(Cursor),
}

fn json(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(bytes, value).expect("names, numbers and times serialize, and a vector takes them");
}

/// Appends an entry.
pub(crate) fn push_entry(frame: &mut FrameBuffer, entry: &Entry) {
    frame.push(Kind::Entry, |bytes| json(bytes, &v1::Entry::from(entry)));
}

/// Appends a change.
pub(crate) fn push_change(frame: &mut FrameBuffer, change: &Change) {
    frame.push(Kind::Change, |bytes| json(bytes, &v1::Change::stored(change)));
}

/// [`v1::Touched`] without copies.
#[derive(Serialize)]
struct TouchedRef<'a> {
    alarm: AlarmId,
    count: u64,
    last_reported_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<&'a Producer>,
    engine: &'a EngineMarks,
}

/// Appends that an alarm was reported again.
pub(crate) fn push_touched(frame: &mut FrameBuffer, alarm: &Alarm) {
    let touched = TouchedRef {
        alarm: alarm.id,
        count: alarm.count,
        last_reported_at: alarm.last_reported_at,
        last_event_time: alarm.last_event_time,
        producer: alarm.producer.as_ref(),
        engine: &alarm.engine,
    };
    frame.push(Kind::Touched, |bytes| json(bytes, &touched));
}

/// Appends an alarm that is carried forward.
pub(crate) fn push_alarm(frame: &mut FrameBuffer, alarm: &Alarm) {
    frame.push(Kind::Alarm, |bytes| json(bytes, &v1::Alarm::stored(alarm)));
}

/// Appends a keyed record, or that it is gone.
pub(crate) fn push_put(frame: &mut FrameBuffer, key: &StateKey, record: Option<&StateRecord>) {
    match record {
        Some(record) => frame.push(Kind::Put, |bytes| json(bytes, &v1::StatePut::new(key, record))),
        None => frame.push(Kind::Delete, |bytes| {
            bytes.write_all(v1::state_key_text(key).as_bytes()).expect("a vector takes them");
        }),
    }
}

/// Appends how far the engine has come.
pub(crate) fn push_cursor(frame: &mut FrameBuffer, cursor: &Cursor) {
    frame.push(Kind::Cursor, |bytes| json(bytes, cursor));
}

/// What followers are told of an alarm that was reported again.
pub(crate) fn shown_touched(alarm: &Alarm) -> v1::Touched {
    v1::Touched {
        alarm: alarm.id,
        count: alarm.count,
        last_reported_at: alarm.last_reported_at,
        last_event_time: alarm.last_event_time,
        producer: alarm.producer.clone(),
        engine: None,
    }
}

/// A payload that is of no form, though its checksum is right.
pub(crate) type DecodeError = v1::FormError;

/// What is said of such a record: no damage makes one.
pub(crate) fn unreadable(kind: Kind, error: &DecodeError) -> Unusable {
    let reason = format!("a {} cannot be read: {}; {NEWER}", kind.as_str(), chain(error));
    Unusable { reason, newer: true }
}

/// Reads an entry.
pub(crate) fn entry(payload: &[u8], position: Position) -> Result<Entry, DecodeError> {
    let form: v1::Entry = serde_json::from_slice(payload)?;
    form.into_entry(position, &Site::new(NO_SITE).expect("is a valid name"))
}

/// Reads a change.
pub(crate) fn change(payload: &[u8]) -> Result<Change, DecodeError> {
    serde_json::from_slice::<v1::Change>(payload)?.try_into()
}

/// Reads that an alarm was reported again, as followers are told.
pub(crate) fn touched(payload: &[u8]) -> Result<v1::Touched, DecodeError> {
    let touched: v1::Touched = serde_json::from_slice(payload)?;
    Ok(v1::Touched { engine: None, ..touched })
}

/// Reads an alarm.
pub(crate) fn alarm(payload: &[u8]) -> Result<Alarm, DecodeError> {
    serde_json::from_slice::<v1::Alarm>(payload)?.try_into()
}

/// Reads a keyed record.
pub(crate) fn put(payload: &[u8]) -> Result<(StateKey, StateRecord), DecodeError> {
    serde_json::from_slice::<v1::StatePut>(payload)?.into_record()
}

/// What the state needs of a change: far cheaper to read than the whole.
#[derive(Deserialize)]
struct AlarmOfChange {
    #[serde(default)]
    past: bool,
    kind: ChangeKind,
    alarm: Option<Box<v1::Alarm>>,
}

/// Reads what the state needs.
pub(crate) fn fact(kind: Kind, payload: &[u8]) -> Result<Fact, DecodeError> {
    Ok(match kind {
        Kind::Entry => Fact::Nothing,
        Kind::Change => {
            let change: AlarmOfChange = serde_json::from_slice(payload)?;
            match change.alarm {
                None => Fact::Nothing,
                Some(_) if change.past => Fact::Nothing,
                Some(alarm) if forgets(change.kind) => Fact::Forgotten(alarm.id),
                Some(alarm) => Fact::Alarm(Arc::new((*alarm).try_into()?)),
            }
        }
        Kind::Touched => Fact::Touched(Box::new(serde_json::from_slice(payload)?)),
        Kind::Alarm => Fact::Alarm(Arc::new(alarm(payload)?)),
        Kind::Put => {
            let (key, record) = put(payload)?;
            Fact::Put(key, record)
        }
        Kind::Delete => {
            let text = std::str::from_utf8(payload).map_err(|_| DecodeError::Field { field: "key", reason: "is no UTF-8" })?;
            Fact::Deleted(v1::state_key(text)?)
        }
        Kind::Cursor => Fact::Cursor(serde_json::from_slice(payload)?),
    })
}

/// Whether an alarm is forgotten with such a change.
pub(crate) fn forgets(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::Retired | ChangeKind::Purged)
}

/// A text that is borrowed where the JSON has no escapes in it.
#[derive(Debug, Deserialize)]
pub(crate) struct Str<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// A change as far as indexes and filters need it.
#[derive(Debug, Deserialize)]
pub(crate) struct Sketch<'a> {
    #[serde(borrow)]
    pub(crate) site: Cow<'a, str>,
    pub(crate) at: Timestamp,
    pub(crate) kind: ChangeKind,
    #[serde(borrow)]
    pub(crate) actor: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) note: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) alarm: Option<SubjectSketch<'a>>,
    #[serde(borrow)]
    pub(crate) event: Option<SubjectSketch<'a>>,
    #[serde(borrow)]
    pub(crate) alarm_type: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) refusal: Option<RefusalSketch<'a>>,
    #[serde(borrow)]
    pub(crate) shelf: Option<ShelfSketch<'a>>,
    #[serde(borrow)]
    pub(crate) child: Option<ChildSketch<'a>>,
    pub(crate) token: Option<IgnoredAny>,
}

/// An alarm or an event as far as indexes and filters need it.
#[derive(Debug, Deserialize)]
pub(crate) struct SubjectSketch<'a> {
    pub(crate) id: Option<AlarmId>,
    #[serde(borrow)]
    pub(crate) site: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) resource: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) alarm_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) severity: Option<Str<'a>>,
    #[serde(borrow)]
    pub(crate) text: Option<Str<'a>>,
}

/// A note about a child as far as indexes need it.
#[derive(Debug, Deserialize)]
pub(crate) struct ChildSketch<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    pub(crate) kind: ChildKind,
}

/// A refusal as far as indexes need it.
#[derive(Debug, Deserialize)]
pub(crate) struct RefusalSketch<'a> {
    pub(crate) alarm: Option<AlarmId>,
    #[serde(borrow)]
    pub(crate) site: Option<Str<'a>>,
}

/// A shelf as far as indexes need it.
#[derive(Debug, Deserialize)]
pub(crate) struct ShelfSketch<'a> {
    #[serde(borrow, rename = "match")]
    pub(crate) matcher: MatcherSketch<'a>,
}

/// What a shelf picks, as far as indexes need it.
#[derive(Debug, Deserialize)]
pub(crate) struct MatcherSketch<'a> {
    #[serde(borrow)]
    pub(crate) site: Option<Str<'a>>,
}

impl Sketch<'_> {
    /// Reads as much of a change.
    pub(crate) fn read(payload: &[u8]) -> Result<Sketch<'_>, DecodeError> {
        Ok(serde_json::from_slice(payload)?)
    }

    fn subject(&self) -> Option<&SubjectSketch<'_>> {
        self.alarm.as_ref().or(self.event.as_ref())
    }

    /// Who did it.
    pub(crate) fn actor(&self) -> Option<&str> {
        self.actor.as_ref().map(|actor| &*actor.0)
    }

    /// The alarm it is about.
    pub(crate) fn alarm_id(&self) -> Option<AlarmId> {
        self.alarm.as_ref().and_then(|alarm| alarm.id).or_else(|| self.refusal.as_ref().and_then(|refusal| refusal.alarm))
    }

    /// The site it is about.
    pub(crate) fn site(&self) -> &str {
        if self.token.is_some() {
            return "";
        }
        let said = self.subject().and_then(|subject| subject.site.as_ref());
        let said = said.or_else(|| self.refusal.as_ref()?.site.as_ref());
        let said = said.or_else(|| self.shelf.as_ref()?.matcher.site.as_ref());
        let of_child = || self.child.as_ref().filter(|child| child.kind.owns()).map_or(&*self.site, |child| &*child.name);
        said.map_or_else(of_child, |site| &site.0)
    }

    /// The resource it is about.
    pub(crate) fn resource(&self) -> Option<&str> {
        self.subject().map(|subject| &*subject.resource)
    }

    /// The type it is about.
    pub(crate) fn alarm_type(&self) -> Option<&str> {
        match self.subject() {
            Some(subject) => Some(&subject.alarm_type),
            None => self.alarm_type.as_ref().map(|alarm_type| &*alarm_type.0),
        }
    }

    /// The perceived severity, where there is one.
    pub(crate) fn severity(&self) -> Option<Severity> {
        self.subject()?.severity.as_ref()?.0.parse().ok()
    }

    /// The words for people in it.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let text = self.subject().and_then(|subject| subject.text.as_ref()).map(|text| &*text.0);
        let note = self.note.as_ref().map(|note| &*note.0);
        [text, self.resource(), self.alarm_type(), note].into_iter().flatten()
    }
}
