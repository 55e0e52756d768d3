//! What goes up in one message: changes of the journal, alarms of a snapshot, events. All of it blocks.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use klaxon_api::uplink::codec::{self, CodecError};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::child::{Span, bucket_bounds};
use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::event::Event;
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::ChildName;
use klaxon_schemas::resource::Resource;
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::{PlacedEvent, Up};
use klaxon_store::{Item, ReadError, Store};
use uuid::Uuid;

/// The most changes or events in one message.
pub(super) const ITEMS_MAX: usize = 2048;
/// How many changes are read at once.
const PAGE: usize = 256;
/// The most pages that are read for one message: what is found then goes up, and the rest later.
const PAGES_MAX: usize = 64;

/// Why a message cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Read(#[from] ReadError),
    /// It does not fit.
    #[error(transparent)]
    Message(#[from] CodecError),
}

/// A message that is ready to be sent.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) bytes: Bytes,
    /// Up to where it goes.
    pub(super) upto: Position,
    /// Up to where the journal was looked at.
    pub(super) looked: Position,
    /// How many changes or events are in it.
    pub(super) items: usize,
}

impl Ready {
    /// What there is waits for more.
    fn waiting(sent: Position, looked: Position) -> Self {
        Self { bytes: Bytes::new(), upto: sent, looked, items: 0 }
    }
}

/// What was found in the journal.
#[derive(Debug, Default)]
struct Found {
    changes: Vec<v1::Change>,
    upto: Position,
}

/// Changes behind `after`, up to `until`, as much as goes into one message.
fn changes(store: &Store, after: Position, until: Option<Position>, json_bytes_max: usize) -> Result<Found, ReadError> {
    let mut found = Found { changes: Vec::new(), upto: after };
    let mut json_bytes = 0;
    let is_beyond = |position: Position| until.is_some_and(|until| position > until);
    for _ in 0..PAGES_MAX {
        let page = store.changes_after(found.upto, PAGE)?;
        for (position, item) in page.items {
            if is_beyond(position) {
                break;
            }
            if let Item::Change(change) = item {
                let form = v1::Change::shown(&change, |_| false);
                json_bytes += serde_json::to_vec(&form).map_or(0, |json| json.len());
                found.changes.push(form);
            }
            found.upto = position;
            if json_bytes >= json_bytes_max || found.changes.len() >= ITEMS_MAX {
                return Ok(found);
            }
        }
        let is_end = page.reached == found.upto && *store.committed().borrow() <= page.reached;
        found.upto = until.map_or(page.reached, |until| page.reached.min(until));
        if is_end || until == Some(found.upto) || *store.committed().borrow() <= found.upto {
            break;
        }
    }
    Ok(found)
}

/// Whether any change stands behind `after`; one may, if what stands there is not kept any more.
pub(super) fn has_changes(store: &Store, after: Position) -> Result<bool, ReadError> {
    let mut after = after;
    loop {
        let page = match store.changes_after(after, PAGE) {
            Ok(page) => page,
            Err(ReadError::Gap { .. }) => return Ok(true),
            Err(error) => return Err(error),
        };
        if page.items.iter().any(|(_, item)| matches!(item, Item::Change(_))) {
            return Ok(true);
        }
        if page.reached >= *store.committed().borrow() || page.reached <= after {
            return Ok(false);
        }
        after = page.reached;
    }
}

/// What is live: all changes behind `looked`, where those up to `sent` were sent. Without any there is nothing to send yet, unless
/// there would be very much to look at again; nor are there fewer than `least`, which wait for more.
pub(super) fn live(
    store: &Store,
    (sent, looked): (Position, Position),
    least: usize,
    json_bytes_max: usize,
) -> Result<Ready, BatchError> {
    /// So many records without a change are told of.
    const QUIET_RECORDS_MAX: u64 = 10_000;
    let Found { changes, upto } = changes(store, looked, None, json_bytes_max)?;
    let items = changes.len();
    if (1..least).contains(&items) {
        return Ok(Ready::waiting(sent, looked));
    }
    let is_told = items > 0 || upto.0.saturating_sub(sent.0) >= QUIET_RECORDS_MAX;
    let message = || codec::encode(&Up::Relay(v1::RelayContent::Live { after: sent, upto, changes: changes.into() }));
    let bytes = if is_told { message()? } else { Bytes::new() };
    Ok(Ready { bytes, upto, looked: upto, items })
}

/// The next of the oldest stretch of history that is missing above.
pub(super) fn history(store: &Store, span: Span, json_bytes_max: usize) -> Result<Ready, BatchError> {
    let lost = |upto: Position| {
        let bytes = codec::encode(&Up::Relay(v1::RelayContent::Gap { after: span.after, upto }))?;
        Ok(Ready { bytes, upto, looked: upto, items: 0 })
    };
    match changes(store, span.after, Some(span.upto), json_bytes_max) {
        Ok(Found { changes, upto }) => {
            let items = changes.len();
            let bytes =
                codec::encode(&Up::Relay(v1::RelayContent::History { after: span.after, upto, changes: changes.into() }))?;
            Ok(Ready { bytes, upto, looked: upto, items })
        }
        Err(ReadError::Gap { first_retained }) => lost(span.upto.min(Position(first_retained.0.saturating_sub(1)))),
        // It is of a journal that this one is not any more.
        Err(ReadError::Beyond { .. }) => lost(span.upto),
        Err(error) => Err(error.into()),
    }
}

/// How things stand at one position, and what of it is yet to be sent.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) at: Position,
    /// By id.
    pub(super) alarms: Vec<Arc<Alarm>>,
    /// Ranges of ids, in order.
    ranges: VecDeque<(AlarmId, AlarmId)>,
}

impl Snapshot {
    /// Of nothing.
    pub(super) fn empty() -> Self {
        Self { at: Position(0), alarms: Vec::new(), ranges: VecDeque::new() }
    }

    /// Of all alarms.
    pub(super) fn take(store: &Store) -> Self {
        let read = store.read();
        let mut alarms: Vec<_> = read.alarms().cloned().collect();
        let at = read.position();
        drop(read);
        alarms.sort_unstable_by_key(|alarm| alarm.id);
        Self { at, alarms, ranges: VecDeque::new() }
    }

    /// These ranges of ids are to be sent: neighbours together.
    pub(super) fn want(&mut self, mut buckets: Vec<u8>) {
        buckets.sort_unstable();
        buckets.dedup();
        self.ranges.clear();
        for bucket in buckets {
            let (first, last) = bucket_bounds(bucket);
            match self.ranges.back_mut() {
                Some((_, end)) if end.0.as_u128() + 1 == first.0.as_u128() => *end = last,
                _ => self.ranges.push_back((first, last)),
            }
        }
    }

    /// The next part; nothing, if all of them are made.
    pub(super) fn next(&mut self, json_bytes_max: usize) -> Result<Option<Ready>, CodecError> {
        let Some((from, last)) = self.ranges.pop_front() else { return Ok(None) };
        let begin = self.alarms.partition_point(|alarm| alarm.id < from);
        let mut alarms = Vec::new();
        let (mut json_bytes, mut to) = (0, last);
        for alarm in self.alarms[begin..].iter().take_while(|alarm| alarm.id <= last) {
            let form = v1::Alarm::shown(alarm, false);
            json_bytes += serde_json::to_vec(&form).map_or(0, |json| json.len());
            alarms.push(form);
            if json_bytes >= json_bytes_max && alarm.id < last {
                to = alarm.id;
                self.ranges.push_front((AlarmId(Uuid::from_u128(to.0.as_u128() + 1)), last));
                break;
            }
        }
        let items = alarms.len();
        let part = v1::RelayContent::Alignment { at: self.at, from, to, alarms: alarms.into() };
        Ok(Some(Ready { bytes: codec::encode(&Up::Relay(part))?, upto: self.at, looked: self.at, items }))
    }
}

/// Events of an agent's journal behind `looked`, where those up to `sent` were sent; fewer than `least` wait for more.
pub(super) fn events(
    store: &Store,
    name: &ChildName,
    (sent, looked): (Position, Position),
    least: usize,
    json_bytes_max: usize,
) -> Result<Ready, BatchError> {
    let (mut lost, mut behind, before) = (0, looked, looked);
    let (entries, looked) = loop {
        match store.entries_page(behind, ITEMS_MAX, json_bytes_max) {
            // What was dropped will never come: it goes on with what is kept, and says so.
            Err(ReadError::Gap { first_retained }) if first_retained.0 > behind.0 + 1 => {
                behind = Position(first_retained.0 - 1);
                lost = behind.0.saturating_sub(sent.0);
            }
            page => break page?,
        }
    };
    let events: Vec<_> = entries.iter().filter_map(|entry| placed(entry, name)).collect();
    let items = events.len();
    if lost == 0 && (1..least).contains(&items) {
        return Ok(Ready::waiting(sent, before));
    }
    // What an agent sent may go, so that it is told of also where nothing came of it.
    let is_told = items > 0 || lost > 0 || looked.0.saturating_sub(sent.0) >= PAGE as u64;
    // The last event says how far it has come; what stands behind it costs the node above nothing.
    let upto = events.last().map_or(looked, |last| last.position);
    let bytes = if is_told { codec::encode(&Up::Events { after: sent, upto, lost, events })? } else { Bytes::new() };
    Ok(Ready { bytes, upto, looked, items })
}

/// The event in an entry, as it goes up.
fn placed(entry: &Entry, name: &ChildName) -> Option<PlacedEvent> {
    let EntryKind::Event(event) = &entry.kind else { return None };
    let mut event = Event::clone(event);
    if *entry.door == *"node" {
        event = renamed(event, name)?;
    }
    Some(PlacedEvent { position: entry.position, received_at: entry.wall, event: (&event).into() })
}

/// What the node says of itself is about this host above; nothing, if it is not to be told there.
pub(super) fn renamed(event: Event, name: &ChildName) -> Option<Event> {
    if event.key.resource.as_str() != "klaxon=node" {
        return Some(event);
    }
    // That it cannot be reached is said by the node above, once it is.
    if &*event.key.alarm_type == super::UPLINK_DOWN {
        return None;
    }
    let mut event = event;
    event.key.resource = Resource::new(&format!("host={name}.klaxon=node")).ok()?;
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_neighbours_are_sent_together_and_cover_all() {
        let mut snapshot = Snapshot { at: Position(9), alarms: Vec::new(), ranges: VecDeque::new() };
        snapshot.want((0..=u8::MAX).rev().collect());
        let all = (AlarmId(Uuid::from_u128(0)), AlarmId(Uuid::from_u128(u128::MAX)));
        assert_eq!(snapshot.ranges, [all]);
        snapshot.want(vec![7, 3, 4, 3]);
        assert_eq!(snapshot.ranges.len(), 2);
        assert_eq!(snapshot.ranges[0], (bucket_bounds(3).0, bucket_bounds(4).1));
        assert!(snapshot.next(1 << 20).expect("is made").is_some());
        assert!(snapshot.next(1 << 20).expect("is made").is_some());
        assert!(snapshot.next(1 << 20).expect("is made").is_none());
    }
}
