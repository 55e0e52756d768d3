//! What a number stands for, read again: after a restart, or because somebody asked for it.

use std::ops::ControlFlow;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, Subject};
use klaxon_schemas::ids::Position;
use klaxon_schemas::notify::{Gap, GapReason, OutboxAlarm, OutboxEntry};
use klaxon_schemas::time::Timestamp;
use klaxon_store::{HISTORY_LIMIT_MAX, HistoryQuery, Item, Order, Store};

use super::What;
use super::plan::remains;

/// The most pages of an alarm's history that are looked through for one change.
const HISTORY_PAGES_MAX: usize = 8;

/// What `entry` says. It reads the disk. What is kept nowhere any more is a gap.
pub(super) fn restore(store: &Store, entry: &OutboxEntry, now: Timestamp) -> What {
    match entry {
        OutboxEntry::Digest { digest } => What::Digest(Arc::new(digest.clone())),
        OutboxEntry::Gap { gap } => What::Gap(gap.clone()),
        OutboxEntry::Log { position, .. } => match change_at(store, *position) {
            Some(change) => What::Log { change },
            None => forgotten(*position),
        },
        OutboxEntry::Alarm(entry) => restore_alarm(store, entry, now),
    }
}

fn restore_alarm(store: &Store, entry: &OutboxAlarm, now: Timestamp) -> What {
    let change = entry.position.and_then(|position| change_at(store, position));
    let alarm = change.as_ref().and_then(|change| alarm_of(change)).or_else(|| {
        let standing = store.read().alarm(entry.alarm).cloned();
        let is_it = standing.as_ref().is_some_and(|alarm| alarm.last_change == entry.number);
        let told = || entry.last.as_ref().map(|told| Arc::new(remains(entry.alarm, told, now)));
        if is_it { standing } else { in_history(store, entry).or_else(told).or(standing) }
    });
    match alarm {
        Some(alarm) => {
            let alarm = store.read().state().as_told(&alarm);
            What::Alarm { how: entry.how, change, alarm, suppressed: entry.suppressed }
        }
        None => forgotten(entry.position.unwrap_or_default()),
    }
}

fn forgotten(position: Position) -> What {
    What::Gap(Gap { reason: GapReason::Forgotten, from: position, to: position, changes: Some(1) })
}

fn change_at(store: &Store, position: Position) -> Option<Arc<Change>> {
    let before = Position(position.0.checked_sub(1)?);
    let page = store.changes_after(before, 1).ok()?;
    match page.items.into_iter().next()? {
        (at, Item::Change(change)) if at == position => Some(change),
        _ => None,
    }
}

fn alarm_of(change: &Change) -> Option<Arc<Alarm>> {
    match &change.subject {
        Subject::Alarm { alarm, .. } => Some(Arc::clone(alarm)),
        _ => None,
    }
}

/// The alarm as it was after the change that the entry names.
fn in_history(store: &Store, entry: &OutboxAlarm) -> Option<Arc<Alarm>> {
    let mut query =
        HistoryQuery { alarm: Some(entry.alarm), order: Order::Descending, limit: HISTORY_LIMIT_MAX, ..Default::default() };
    let mut found = None;
    let mut look = || {
        let Ok(page) = store.history(&query) else { return ControlFlow::Break(()) };
        found = page.items.iter().filter_map(|(_, change)| alarm_of(change)).find(|alarm| alarm.last_change == entry.number);
        query.cursor = page.next;
        if found.is_some() || page.next.is_none() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let _ = (0..HISTORY_PAGES_MAX).try_for_each(|_| look());
    found
}
