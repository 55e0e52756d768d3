//! Standing shelves: they take what matches when it is raised, and work on what is there already in bounded steps.

use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, Shelved};
use klaxon_schemas::change::{ChangeKind, Reason, Subject};
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::ids::{ActionId, AlarmId};
use klaxon_schemas::state::{Shelf, ShelfPhase, StateKey, StateRecord};

use crate::engine::{Cause, Engine, Moment};
use crate::output::Output;

/// The mark that `shelf` leaves on an alarm.
pub(crate) fn shelved_by(shelf: &Shelf) -> Shelved {
    Shelved {
        by: shelf.by.clone(),
        at: shelf.at,
        until: shelf.order.until,
        reason: shelf.order.reason.clone(),
        shelf: Some(shelf.id),
    }
}

impl Engine {
    /// The first shelf that takes the alarm `key`.
    pub(crate) fn shelf_for(&self, key: &AlarmKey) -> Option<&Shelf> {
        self.shelves
            .values()
            .find(|shelf| shelf.phase != ShelfPhase::Emptying && shelf.order.matcher.matches(key))
            .map(|shelf| &**shelf)
    }

    pub(crate) fn put_shelf(&mut self, shelf: Shelf, out: &mut Output) -> Arc<Shelf> {
        let shelf = Arc::new(shelf);
        out.put(StateKey::Shelf(shelf.id), StateRecord::Shelf(Arc::clone(&shelf)));
        self.shelves.insert(shelf.id, Arc::clone(&shelf));
        shelf
    }

    /// Takes a shelf away; what it shelved is unshelved in steps.
    pub(crate) fn end_shelf(&mut self, moment: &Moment<'_>, id: ActionId, cause: Cause, out: &mut Output) {
        let Some(shelf) = self.shelves.get(&id).cloned() else { return };
        self.timers.remove_shelf(id, shelf.ends_at);
        let shelf = self.put_shelf(Shelf { phase: ShelfPhase::Emptying, ..Shelf::clone(&shelf) }, out);
        self.emit(moment, cause, Subject::Shelf(shelf), out);
    }

    /// Does up to `bound` steps of what shelves still have to do.
    pub(crate) fn sweep_shelves(&mut self, moment: &Moment<'_>, bound: usize, out: &mut Output) {
        let mut left = bound;
        let working: Vec<_> = self.shelves.values().filter(|shelf| shelf.phase != ShelfPhase::Standing).cloned().collect();
        for shelf in working {
            if left == 0 {
                return;
            }
            let mut waiting = self.waiting_for(&shelf);
            let is_last_step = waiting.len() <= left;
            waiting.truncate(left);
            left -= waiting.len();
            for id in waiting {
                let reasons = [Reason::Shelf(shelf.id), moment.reason()];
                match shelf.phase {
                    ShelfPhase::Filling => self.shelve_by(moment, id, &shelf, Cause::new(ChangeKind::Shelved, &reasons), out),
                    _ => self.hand_over(moment, id, &reasons, out),
                }
            }
            if is_last_step {
                self.finish(&shelf, out);
            }
        }
    }

    /// The alarms that a shelf has still to work on, in a fixed order.
    fn waiting_for(&self, shelf: &Shelf) -> Vec<AlarmId> {
        let is_waiting = |alarm: &Alarm| match shelf.phase {
            ShelfPhase::Filling => alarm.is_active() && alarm.shelved.is_none() && shelf.order.matcher.matches(&alarm.key),
            _ => alarm.shelved.as_ref().is_some_and(|shelved| shelved.shelf == Some(shelf.id)),
        };
        let mut ids: Vec<_> = self.alarms.values().filter(|alarm| is_waiting(alarm)).map(|alarm| alarm.id).collect();
        ids.sort_unstable();
        ids
    }

    fn finish(&mut self, shelf: &Shelf, out: &mut Output) {
        match shelf.phase {
            ShelfPhase::Filling => {
                self.put_shelf(Shelf { phase: ShelfPhase::Standing, ..shelf.clone() }, out);
            }
            _ => {
                self.shelves.remove(&shelf.id);
                out.delete(StateKey::Shelf(shelf.id));
            }
        }
    }

    fn shelve_by(&mut self, moment: &Moment<'_>, id: AlarmId, shelf: &Shelf, cause: Cause, out: &mut Output) {
        let Some(alarm) = self.alarms.get(&id) else { return };
        let mut alarm = Alarm::clone(alarm);
        alarm.shelved = Some(shelved_by(shelf));
        self.commit(moment, alarm, None, cause, out);
    }

    /// The time of a shelf, or of an operator's shelving, is over: another shelf that takes the alarm goes on with it.
    pub(crate) fn hand_over(&mut self, moment: &Moment<'_>, id: AlarmId, reasons: &[Reason], out: &mut Output) {
        let Some(alarm) = self.alarms.get(&id).filter(|alarm| alarm.shelved.is_some()) else { return };
        let Some(shelf) = self.shelf_for(&alarm.key) else {
            return self.unshelve(moment, id, Cause::new(ChangeKind::Unshelved, reasons), out);
        };
        let mut cause = Cause::new(ChangeKind::Shelved, reasons);
        cause.reasons.push(Reason::Shelf(shelf.id));
        let mut alarm = Alarm::clone(alarm);
        alarm.shelved = Some(shelved_by(shelf));
        alarm.engine.shelved_until = None;
        self.commit(moment, alarm, None, cause, out);
    }

    /// Takes an alarm off the shelf.
    pub(crate) fn unshelve(&mut self, moment: &Moment<'_>, id: AlarmId, cause: Cause, out: &mut Output) {
        let Some(alarm) = self.alarms.get(&id).filter(|alarm| alarm.shelved.is_some()) else { return };
        let mut alarm = Alarm::clone(alarm);
        alarm.shelved = None;
        alarm.engine.shelved_until = None;
        self.commit(moment, alarm, None, cause, out);
    }
}
