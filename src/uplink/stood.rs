//! What an agent says of how things stand, to a node above that is new or knows less than it did: each alarm as a report of its own,
//! in place of all that led there, which would be old news.
//!
//! ```text
//! places in the agent's journal   0 ──── here ──── upto ───────── end
//! what goes up                      had  │ what stands │ all events, in order
//! ```
//!
//! The reports take the first free places behind `here`. There are enough: an alarm that stood at `upto` took two records of the
//! journal at least, and one that was raised later is told by its event.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use klaxon_api::uplink::codec::{self, CodecError};
use klaxon_schemas::alarm::{Alarm, ClearedBy};
use klaxon_schemas::change::{ChangeKind, Subject};
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::ChildName;
use klaxon_schemas::time::{JournalTime, Timestamp};
use klaxon_schemas::wire::v1::uplink::{PlacedEvent, Up};
use klaxon_store::{HISTORY_LIMIT_MAX, HistoryQuery, Order, ReadError, Store};

use super::batch::{ITEMS_MAX, Ready, renamed};

/// What stands, and what of it is yet to be sent.
#[derive(Debug)]
pub(super) struct Stood {
    alarms: VecDeque<Arc<Alarm>>,
    name: ChildName,
    next: Position,
    /// The journal's time, and the wall clock's, of now.
    now: (JournalTime, Timestamp),
}

impl Stood {
    /// The alarms that stand and were raised up to `upto`, the oldest first, and to a node above that may know them the others that
    /// are kept as cleared. They have the places from behind `here` up to there; nothing, if that is too little because some of it
    /// was taken before. Blocks.
    pub(super) fn take(
        store: &Store,
        name: &ChildName,
        is_known: bool,
        here: Position,
        upto: Position,
    ) -> Result<Option<Self>, ReadError> {
        let read = store.read();
        let now = (read.cursor().at, super::now());
        let is_told = |alarm: &Alarm| (alarm.is_active() || is_known) && !alarm.is_mirrored();
        let mut alarms: Vec<_> = read.alarms().filter(|alarm| is_told(alarm)).cloned().collect();
        let last = read.state().position();
        drop(read);
        let later = raised_between(store, upto, last)?;
        alarms.retain(|alarm| !later.contains(&alarm.id));
        alarms.sort_unstable_by_key(|alarm| (alarm.raised_at, alarm.id));
        let room = usize::try_from(upto.0.saturating_sub(here.0)).unwrap_or(usize::MAX);
        if alarms.len() > room {
            if here > Position(0) {
                return Ok(None);
            }
            alarms.truncate(room);
        }
        Ok(Some(Self { alarms: alarms.into(), name: name.clone(), next: here.plus(1), now }))
    }

    /// The next message, behind `after`; the last goes up to `upto`. Blocks.
    pub(super) fn next(&mut self, after: Position, upto: Position, json_bytes_max: usize) -> Result<Ready, CodecError> {
        let (mut events, mut json_bytes) = (Vec::new(), 0);
        while json_bytes < json_bytes_max && events.len() < ITEMS_MAX {
            let Some(alarm) = self.alarms.pop_front() else { break };
            let Some(event) = renamed(self.event(&alarm), &self.name) else { continue };
            let placed = PlacedEvent { position: self.next, received_at: alarm.last_reported_at, event: (&event).into() };
            self.next = self.next.plus(1);
            json_bytes += serde_json::to_vec(&placed).map_or(0, |json| json.len());
            events.push(placed);
        }
        let upto = events.last().filter(|_| !self.alarms.is_empty()).map_or(upto, |last| last.position);
        let items = events.len();
        let bytes = codec::encode(&Up::Events { after, upto, lost: 0, events })?;
        Ok(Ready { bytes, upto, looked: upto, items })
    }

    /// The report that says how `alarm` stands.
    fn event(&self, alarm: &Alarm) -> Event {
        let report = if alarm.is_active() { Report::Raise(alarm.severity) } else { Report::Clear };
        let mut event = Event::new(alarm.key.clone(), report, alarm.text.clone());
        event.origin.producer = alarm.producer.clone();
        if let Some(cleared) = &alarm.cleared {
            event.event_time = Some(cleared.at);
            return event;
        }
        event.details = alarm.details.clone();
        event.event_time = alarm.event_time.or(Some(alarm.raised_at));
        event.lease = alarm.engine.lease.map(|lease| lease.seconds);
        let (at, wall) = self.now;
        event.ends_at = alarm.engine.end.filter(|end| end.by == ClearedBy::EndsAt).map(|end| {
            let left = i64::try_from(end.at.since(at).as_micros()).unwrap_or(i64::MAX);
            wall.saturating_add_micros(left)
        });
        event
    }
}

/// Which alarms were raised behind `after`, up to `last`. Blocks.
fn raised_between(store: &Store, after: Position, last: Position) -> Result<HashSet<AlarmId>, ReadError> {
    let (mut raised, mut from) = (HashSet::new(), after);
    while from < last {
        let kinds = vec![ChangeKind::Raised];
        let limit = HISTORY_LIMIT_MAX;
        let query = HistoryQuery { kinds, order: Order::Ascending, cursor: Some(from), limit, ..HistoryQuery::default() };
        let page = store.history(&query)?;
        raised.extend(page.items.iter().filter_map(|(_, change)| match &change.subject {
            Subject::Alarm { alarm, .. } => Some(alarm.id),
            _ => None,
        }));
        match page.next {
            Some(next) if next > from => from = next,
            _ => break,
        }
    }
    Ok(raised)
}
