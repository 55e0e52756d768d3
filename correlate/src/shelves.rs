//! Standing shelves: they take what matches when it is raised, and work on what is there already in bounded steps.

use std::cell::LazyCell;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::alarm::{Alarm, Shelved};
use klaxon_schemas::change::{ChangeKind, Reason, Subject};
use klaxon_schemas::ids::{ActionId, AlarmId};
use klaxon_schemas::labels::{self, LabelSet};
use klaxon_schemas::state::{Shelf, ShelfPhase, StateKey, StateRecord};

use crate::engine::{Cause, Engine, Moment};
use crate::output::Output;

/// How long a shelf of labels is shown after it has ended: as long as Alertmanager keeps silences.
const ENDED_KEPT: Duration = Duration::from_secs(120 * 3600);

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
    /// The first shelf that takes `alarm`.
    pub(crate) fn shelf_for(&self, alarm: &Alarm) -> Option<&Shelf> {
        let labels = self.labels_of(alarm);
        let mut taking = self.shelves.values().filter(|shelf| shelf.is_taking());
        taking.find(|shelf| shelf.order.matcher.matches(&alarm.key, &labels)).map(|shelf| &**shelf)
    }

    /// The labels of `alarm`, taken apart only where a shelf asks for them.
    fn labels_of<'a>(&self, alarm: &'a Alarm) -> LazyCell<LabelSet<'a>, impl FnOnce() -> LabelSet<'a>> {
        LazyCell::new(move || labels::of_alarm(alarm, Some(&self.catalogue)))
    }

    fn is_taken_by(&self, alarm: &Alarm, shelf: &Shelf) -> bool {
        shelf.order.matcher.matches(&alarm.key, &self.labels_of(alarm))
    }

    /// Puts `alarm` where its labels want it, which are not those that it had `before`: shelves that pick by labels let it go or
    /// take it. What an operator took off a shelf stays off it as long as nothing changes for that shelf.
    pub(crate) fn follow_labels(&self, before: &Alarm, alarm: &mut Alarm) -> Option<Reason> {
        let by_labels = |shelf: &&Shelf| !shelf.order.matcher.labels.is_empty();
        let held_by = alarm.shelved.as_ref().and_then(|shelved| self.shelves.get(&shelved.shelf?)).map(|shelf| &**shelf);
        let lets_go = held_by.filter(by_labels).is_some_and(|shelf| !self.is_taken_by(alarm, shelf));
        if alarm.shelved.is_some() && !lets_go {
            return None;
        }
        let takes_now = |shelf: &&Shelf| lets_go || by_labels(shelf) && !self.is_taken_by(before, shelf);
        let next = self.shelf_for(alarm).filter(takes_now);
        alarm.shelved = next.map(shelved_by);
        next.map(|shelf| Reason::Shelf(shelf.id))
    }

    /// How many shelves have not ended, or hold something still.
    pub(crate) fn standing_shelves(&self) -> usize {
        self.shelves.values().filter(|shelf| shelf.forgotten_at.is_none()).count()
    }

    /// Replaces a shelf by what it is after a change, and its deadlines with it.
    pub(crate) fn put_shelf(&mut self, shelf: Shelf, out: &mut Output) -> Arc<Shelf> {
        let shelf = Arc::new(shelf);
        out.put(StateKey::Shelf(shelf.id), StateRecord::Shelf(Arc::clone(&shelf)));
        if let Some(before) = self.shelves.insert(shelf.id, Arc::clone(&shelf)) {
            self.timers.remove_shelf(&before);
        }
        self.timers.add_shelf(&shelf);
        shelf
    }

    /// The time of a shelf has come.
    pub(crate) fn begin_shelf(&mut self, id: ActionId, out: &mut Output) {
        let Some(shelf) = self.shelves.get(&id).filter(|shelf| shelf.begins_at.is_some()) else { return };
        let shelf = Shelf { begins_at: None, phase: ShelfPhase::Filling, ..Shelf::clone(shelf) };
        self.put_shelf(shelf, out);
    }

    /// Takes a shelf away; what it shelved is unshelved in steps.
    pub(crate) fn end_shelf(&mut self, moment: &Moment<'_>, id: ActionId, cause: Cause, out: &mut Output) {
        let Some(shelf) = self.shelves.get(&id).cloned() else { return };
        let ended = Shelf { phase: ShelfPhase::Emptying, begins_at: None, ended_at: Some(moment.wall), ..Shelf::clone(&shelf) };
        let shelf = self.put_shelf(ended, out);
        self.emit(moment, cause, Subject::Shelf(shelf), out);
    }

    /// Does up to `bound` steps of what shelves still have to do.
    pub(crate) fn sweep_shelves(&mut self, moment: &Moment<'_>, bound: usize, out: &mut Output) {
        let mut left = bound;
        let working: Vec<_> = self.shelves.values().filter(|shelf| shelf.is_working()).cloned().collect();
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
                self.finish(moment, &shelf, out);
            }
        }
    }

    /// The alarms that a shelf has still to work on, in a fixed order.
    fn waiting_for(&self, shelf: &Shelf) -> Vec<AlarmId> {
        let is_waiting = |alarm: &Alarm| match shelf.phase {
            ShelfPhase::Filling => match &alarm.shelved {
                None => alarm.is_active() && self.is_taken_by(alarm, shelf),
                // The order was amended since.
                Some(shelved) => shelved.shelf == Some(shelf.id) && *shelved != shelved_by(shelf),
            },
            _ => alarm.shelved.as_ref().is_some_and(|shelved| shelved.shelf == Some(shelf.id)),
        };
        let mut ids: Vec<_> = self.alarms.values().filter(|alarm| is_waiting(alarm)).map(|alarm| alarm.id).collect();
        ids.sort_unstable();
        ids
    }

    fn finish(&mut self, moment: &Moment<'_>, shelf: &Shelf, out: &mut Output) {
        match shelf.phase {
            ShelfPhase::Filling => {
                self.put_shelf(Shelf { phase: ShelfPhase::Standing, ..shelf.clone() }, out);
            }
            // Whoever silenced by labels expects to find the silence again, and to renew it.
            _ if !shelf.order.matcher.labels.is_empty() => {
                self.put_shelf(Shelf { forgotten_at: Some(moment.now + ENDED_KEPT), ..shelf.clone() }, out);
                let ended = || self.shelves.values().filter_map(|shelf| Some((shelf.forgotten_at?, shelf.id)));
                if ended().count() > self.settings.shelves_max
                    && let Some((_, oldest)) = ended().min()
                {
                    self.forget_shelf(oldest, out);
                }
            }
            _ => self.forget_shelf(shelf.id, out),
        }
    }

    /// Nobody is told of a shelf any more.
    pub(crate) fn forget_shelf(&mut self, id: ActionId, out: &mut Output) {
        if let Some(shelf) = self.shelves.remove(&id) {
            self.timers.remove_shelf(&shelf);
            out.delete(StateKey::Shelf(id));
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
        let Some(shelf) = self.shelf_for(alarm) else {
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
