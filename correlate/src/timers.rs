//! Deadlines, in journal time. They are derived from what the alarms and shelves say, so they survive whatever the process
//! does not.

use std::collections::BTreeSet;
use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, ClearedBy};
use klaxon_schemas::change::Timer;
use klaxon_schemas::child::PendingAction;
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::ids::{ActionId, AlarmId};
use klaxon_schemas::names::ChildName;
use klaxon_schemas::state::{Heartbeat, Shelf, ShelfPhase};
use klaxon_schemas::time::JournalTime;

/// What a deadline belongs to. Of those due at the same time an alarm's end comes before its lease, so that nothing goes
/// stale only to clear.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    End(AlarmId),
    Lease(AlarmId),
    Unshelve(AlarmId),
    ShelfBegin(ActionId),
    ShelfEnd(ActionId),
    ShelfForgotten(ActionId),
    Silence(Arc<AlarmKey>),
    Unanswered(ChildName, ActionId),
}

#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeSet<(JournalTime, Due)>,
}

impl Timers {
    /// Sets the deadlines of `alarm`, given the last start of the node: leases run from there at the earliest.
    pub(crate) fn add(&mut self, alarm: &Alarm, started_at: JournalTime) {
        self.due.extend(deadlines(alarm, started_at));
    }

    /// Takes the deadlines of `alarm` away.
    pub(crate) fn remove(&mut self, alarm: &Alarm, started_at: JournalTime) {
        for deadline in deadlines(alarm, started_at) {
            self.due.remove(&deadline);
        }
    }

    /// Sets the deadlines of a shelf.
    pub(crate) fn add_shelf(&mut self, shelf: &Shelf) {
        self.due.extend(shelf_deadlines(shelf));
    }

    /// Takes the deadlines of a shelf away.
    pub(crate) fn remove_shelf(&mut self, shelf: &Shelf) {
        for deadline in shelf_deadlines(shelf) {
            self.due.remove(&deadline);
        }
    }

    /// Sets the deadline of a promise to be heard from, given the last start of the node.
    pub(crate) fn add_heartbeat(&mut self, key: &Arc<AlarmKey>, heartbeat: &Heartbeat, started_at: JournalTime) {
        self.due.extend(heartbeat.due(started_at).map(|due| (due, Due::Silence(Arc::clone(key)))));
    }

    /// Takes the deadline of a promise to be heard from away.
    pub(crate) fn remove_heartbeat(&mut self, key: &Arc<AlarmKey>, heartbeat: &Heartbeat, started_at: JournalTime) {
        if let Some(due) = heartbeat.due(started_at) {
            self.due.remove(&(due, Due::Silence(Arc::clone(key))));
        }
    }

    /// Sets the time at which an action on its way down is given up.
    pub(crate) fn add_pending(&mut self, (child, id): &(ChildName, ActionId), pending: &PendingAction) {
        self.due.extend(pending.expires.map(|at| (at, Due::Unanswered(child.clone(), *id))));
    }

    /// Takes that time away.
    pub(crate) fn remove_pending(&mut self, (child, id): &(ChildName, ActionId), pending: &PendingAction) {
        if let Some(at) = pending.expires {
            self.due.remove(&(at, Due::Unanswered(child.clone(), *id)));
        }
    }

    pub(crate) fn first(&self) -> Option<JournalTime> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the first deadline if it is at or before `now`.
    pub(crate) fn pop(&mut self, now: JournalTime) -> Option<Due> {
        match self.due.first() {
            Some((at, _)) if *at <= now => self.due.pop_first().map(|(_, due)| due),
            _ => None,
        }
    }
}

fn deadlines(alarm: &Alarm, started_at: JournalTime) -> impl Iterator<Item = (JournalTime, Due)> {
    let marks = &alarm.engine;
    let lease = marks
        .lease
        .filter(|_| alarm.is_active() && alarm.stale.is_none())
        .map(|lease| (lease.renewed_at.max(started_at) + lease.seconds.duration(), Due::Lease(alarm.id)));
    let end = marks.end.filter(|_| alarm.is_active()).map(|end| (end.at, Due::End(alarm.id)));
    let unshelve = marks.shelved_until.map(|until| (until, Due::Unshelve(alarm.id)));
    [lease, end, unshelve].into_iter().flatten()
}

fn shelf_deadlines(shelf: &Shelf) -> impl Iterator<Item = (JournalTime, Due)> {
    let end = (shelf.phase != ShelfPhase::Emptying).then_some((shelf.ends_at, Due::ShelfEnd(shelf.id)));
    let begin = shelf.begins_at.map(|at| (at, Due::ShelfBegin(shelf.id)));
    let forgotten = shelf.forgotten_at.map(|at| (at, Due::ShelfForgotten(shelf.id)));
    [begin, end, forgotten].into_iter().flatten()
}

/// The timer that a declared end is.
pub(crate) fn end_timer(by: ClearedBy) -> Timer {
    match by {
        ClearedBy::Lifetime => Timer::Lifetime,
        ClearedBy::EndsAt | ClearedBy::Report | ClearedBy::Operator | ClearedBy::Realignment => Timer::EndsAt,
    }
}
