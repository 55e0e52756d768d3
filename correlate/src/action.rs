//! What operators do. Each action takes effect once, however often it is delivered; what cannot be done is refused, and the
//! refusal stands in history.

use std::sync::Arc;

use klaxon_schemas::access::{TOKENS_MAX, Token, TokenNote, TokenOrder};
use klaxon_schemas::action::{Action, AlarmVerb, ShelfOrder, Target, Verb};
use klaxon_schemas::alarm::{Alarm, Assignment, ClearedBy, Mark, NOTES_MAX, Note, Ordered, Shelved};
use klaxon_schemas::change::{ChangeKind, Reason, Refusal, RefusalReason, Subject};
use klaxon_schemas::ids::{ActionId, AlarmId};
use klaxon_schemas::names::{AlarmType, Text};
use klaxon_schemas::state::{Shelf, ShelfPhase, StateKey, StateRecord, Suppression};

use crate::engine::{Cause, Engine, Moment};
use crate::output::{Disposition, Output};
use crate::pending::is_superseded;
use crate::report::set_cleared;

impl Engine {
    pub(crate) fn act(&mut self, moment: &Moment<'_>, action: &Action, out: &mut Output) -> Disposition {
        let seen = StateKey::Action(action.id);
        if self.admission.has_seen(&seen) {
            return Disposition::Duplicate;
        }
        self.admission.note_id(seen, moment.now, out);
        if self.is_too_late(moment, action) {
            self.refuse(moment, action, None, RefusalReason::Expired, out);
            return Disposition::Applied;
        }
        match &action.verb {
            Verb::OnAlarms(targets, verb) => {
                let own = self.send_down(moment, action, targets, verb, out);
                for target in own {
                    if let Err(reason) = self.act_on(moment, action, target, verb, out) {
                        self.refuse(moment, action, Some(target.id), reason, out);
                    }
                }
            }
            other => {
                if let Err(reason) = self.act_standing(moment, action, other, out) {
                    self.refuse(moment, action, None, reason, out);
                }
            }
        }
        Disposition::Applied
    }

    pub(crate) fn refuse(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        alarm: Option<AlarmId>,
        reason: RefusalReason,
        out: &mut Output,
    ) {
        let of_alarm = |id| self.any_alarm(id).map(|alarm| alarm.key.site.clone());
        let site = match &action.verb {
            Verb::AddShelf(order) => order.matcher.site.clone(),
            _ => alarm.and_then(of_alarm),
        };
        let refusal = Refusal { action: action.id, alarm, site, reason };
        self.emit(moment, cause(moment, action, ChangeKind::Refused, None), Subject::Refusal(refusal), out);
    }

    /// Does `verb` to one alarm.
    fn act_on(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        target: Target,
        verb: &AlarmVerb,
        out: &mut Output,
    ) -> Result<(), RefusalReason> {
        let alarm = self.alarms.get(&target.id).ok_or(RefusalReason::NoSuchAlarm)?;
        if target.raise_seq.is_some_and(|seen| seen != alarm.raise_seq) {
            return Err(RefusalReason::RaisedAgain);
        }
        let mut alarm = Alarm::clone(alarm);
        if is_superseded(moment, &mut alarm, verb, action.ordered_at) {
            return Err(RefusalReason::Superseded);
        }
        let ordered = alarm.engine.ordered.clone();
        let (kind, note) = match change_alarm(moment, action, &mut alarm, verb) {
            Ok(changed) => changed,
            Err(reason) => {
                if action.ordered_at.is_some() {
                    self.note_ordered(target.id, ordered, out);
                }
                return Err(reason);
            }
        };
        let cause = cause(moment, action, kind, note);
        match kind {
            ChangeKind::Purged => self.forget(moment, alarm.id, cause, out),
            ChangeKind::Retired => self.retire(moment, alarm, ClearedBy::Operator, cause, out),
            _ => self.commit(moment, alarm, None, cause, out),
        }
        Ok(())
    }

    /// What was ordered elsewhere and changes nothing is later than what was ordered before it all the same.
    fn note_ordered(&mut self, id: AlarmId, ordered: Option<Box<Ordered>>, out: &mut Output) {
        let Some(alarm) = self.alarms.get(&id).filter(|alarm| alarm.engine.ordered != ordered) else { return };
        let mut alarm = Alarm::clone(alarm);
        alarm.engine.ordered = ordered;
        self.touch(alarm, out);
    }

    /// Clears an alarm and forgets it, in one change; a promise to be heard from ends with it.
    pub(crate) fn retire(&mut self, moment: &Moment<'_>, mut alarm: Alarm, by: ClearedBy, cause: Cause, out: &mut Output) {
        let id = alarm.id;
        self.break_off_heartbeat(&mut alarm, out);
        if alarm.is_active() {
            set_cleared(moment, &mut alarm, by);
            self.replace_quietly(alarm);
        }
        self.forget(moment, id, cause, out);
    }

    /// Shelves by matcher, and suppressions by type.
    fn act_standing(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        verb: &Verb,
        out: &mut Output,
    ) -> Result<(), RefusalReason> {
        match verb {
            Verb::AddShelf(order) => match self.child_with(order)? {
                None => self.add_shelf(moment, action, order, out),
                Some(child) => {
                    // What this node itself says of the site, above all that it is silent, is set aside here.
                    self.add_shelf(moment, action, order, out)?;
                    self.send_shelf_down(moment, action, &child, order, out);
                    Ok(())
                }
            },
            Verb::RemoveShelf(id) => {
                let shelf = self.shelves.get(id).filter(|shelf| shelf.phase != ShelfPhase::Emptying).cloned();
                let Some(shelf) = shelf else { return self.send_unshelf_down(moment, action, *id, out) };
                self.end_shelf(moment, *id, cause(moment, action, ChangeKind::ShelfRemoved, None), out);
                match self.child_with(&shelf.order) {
                    Ok(Some(child)) => self.send_shelf_down(moment, action, &child, &shelf.order, out),
                    Ok(None) => {}
                    Err(reason) => self.refuse(moment, action, None, reason, out),
                }
                Ok(())
            }
            Verb::Suppress { alarm_type, reason } => self.suppress(moment, action, alarm_type, reason.clone(), out),
            Verb::Unsuppress { alarm_type } => {
                let alarm_type = self.canonical_type(alarm_type);
                let suppression = self.suppressions.remove(&alarm_type).ok_or(RefusalReason::NoEffect)?;
                out.delete(StateKey::Suppression(alarm_type.clone()));
                let cause = cause(moment, action, ChangeKind::Unsuppressed, None);
                self.emit(moment, cause, Subject::Suppression { alarm_type, suppression }, out);
                Ok(())
            }
            Verb::CreateToken(order) => self.create_token(moment, action, order, out),
            Verb::RevokeToken(name) => {
                let token = self.tokens.remove(name).ok_or(RefusalReason::NoEffect)?;
                out.delete(StateKey::Token(name.clone()));
                let note = Arc::new(TokenNote::of(name, &token));
                self.emit(moment, cause(moment, action, ChangeKind::TokenRevoked, None), Subject::Token(note), out);
                Ok(())
            }
            Verb::OnAlarms(..) => Ok(()),
        }
    }

    fn create_token(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        order: &TokenOrder,
        out: &mut Output,
    ) -> Result<(), RefusalReason> {
        if self.tokens.contains_key(&order.name) {
            return Err(RefusalReason::NoEffect);
        }
        if order.expires_at.is_some_and(|end| end <= moment.wall) {
            return Err(RefusalReason::UntilIsPast);
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(RefusalReason::LimitReached);
        }
        let token = Arc::new(Token {
            role: order.role,
            sites: order.sites.clone(),
            hash: order.hash.clone(),
            by: action.actor.clone(),
            at: moment.wall,
            expires_at: order.expires_at,
            note: order.note.clone(),
        });
        out.put(StateKey::Token(order.name.clone()), StateRecord::Token(Arc::clone(&token)));
        let note = Arc::new(TokenNote::of(&order.name, &token));
        self.tokens.insert(order.name.clone(), token);
        let cause = cause(moment, action, ChangeKind::TokenCreated, order.note.clone());
        self.emit(moment, cause, Subject::Token(note), out);
        Ok(())
    }

    fn add_shelf(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        order: &ShelfOrder,
        out: &mut Output,
    ) -> Result<(), RefusalReason> {
        let starts_at = order.starts_at.filter(|at| *at > moment.wall);
        if order.until <= moment.wall || starts_at.is_some_and(|at| order.until <= at) {
            return Err(RefusalReason::UntilIsPast);
        }
        if let Some(id) = order.amends {
            return self.amend_shelf(moment, action, id, order, out);
        }
        if self.shelves.contains_key(&action.id) {
            return Err(RefusalReason::NoEffect);
        }
        if self.standing_shelves() >= self.settings.shelves_max {
            return Err(RefusalReason::LimitReached);
        }
        let mut order = order.clone();
        order.matcher.alarm_type = order.matcher.alarm_type.map(|alarm_type| self.canonical_type(&alarm_type));
        let begins_at = starts_at.map(|at| moment.journal_time(at));
        let shelf = Shelf {
            id: action.id,
            by: action.actor.clone(),
            at: moment.wall,
            ends_at: moment.journal_time(order.until),
            order,
            phase: if begins_at.is_some() { ShelfPhase::Standing } else { ShelfPhase::Filling },
            begins_at,
            amended_at: None,
            ended_at: None,
            forgotten_at: None,
        };
        let shelf = self.put_shelf(shelf, out);
        self.emit(moment, cause(moment, action, ChangeKind::ShelfAdded, None), Subject::Shelf(shelf), out);
        self.sweep_shelves(moment, crate::TIMERS_PER_ENTRY_MAX, out);
        Ok(())
    }

    /// The times, reason and owner of a shelf become those of `order`. What it holds already is marked anew, in steps.
    fn amend_shelf(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        id: ActionId,
        order: &ShelfOrder,
        out: &mut Output,
    ) -> Result<(), RefusalReason> {
        let shelf = self.shelves.get(&id).filter(|shelf| shelf.phase != ShelfPhase::Emptying);
        let shelf = shelf.filter(|shelf| shelf.order.matcher == order.matcher).ok_or(RefusalReason::NoSuchShelf)?;
        let mut shelf = Shelf::clone(shelf);
        if shelf.begins_at.is_some() {
            shelf.begins_at = order.starts_at.filter(|at| *at > moment.wall).map(|at| moment.journal_time(at));
            shelf.order.starts_at = order.starts_at;
        }
        if shelf.begins_at.is_none() {
            shelf.phase = ShelfPhase::Filling;
        }
        shelf.order.until = order.until;
        shelf.order.reason = order.reason.clone();
        shelf.order.created_by = order.created_by.clone();
        shelf.ends_at = moment.journal_time(order.until);
        shelf.amended_at = Some(moment.wall);
        let shelf = self.put_shelf(shelf, out);
        self.emit(moment, cause(moment, action, ChangeKind::ShelfAdded, None), Subject::Shelf(shelf), out);
        self.sweep_shelves(moment, crate::TIMERS_PER_ENTRY_MAX, out);
        Ok(())
    }

    fn suppress(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        alarm_type: &AlarmType,
        reason: Option<Text>,
        out: &mut Output,
    ) -> Result<(), RefusalReason> {
        let alarm_type = self.canonical_type(alarm_type);
        if self.suppressions.contains_key(&alarm_type) {
            return Err(RefusalReason::NoEffect);
        }
        if self.suppressions.len() >= self.settings.suppressions_max {
            return Err(RefusalReason::LimitReached);
        }
        let suppression = Arc::new(Suppression { by: action.actor.clone(), at: moment.wall, reason });
        out.put(StateKey::Suppression(alarm_type.clone()), StateRecord::Suppression(Arc::clone(&suppression)));
        self.suppressions.insert(alarm_type.clone(), Arc::clone(&suppression));
        let cause = cause(moment, action, ChangeKind::Suppressed, suppression.reason.clone());
        self.emit(moment, cause, Subject::Suppression { alarm_type, suppression }, out);
        Ok(())
    }

    fn canonical_type(&self, alarm_type: &AlarmType) -> AlarmType {
        self.catalogue.get(alarm_type).map_or_else(|| alarm_type.clone(), |entry| entry.id.clone())
    }
}

/// Changes one alarm as `verb` says; tells which change that is, and the actor's words.
fn change_alarm(
    moment: &Moment<'_>,
    action: &Action,
    alarm: &mut Alarm,
    verb: &AlarmVerb,
) -> Result<(ChangeKind, Option<Text>), RefusalReason> {
    let by = || action.actor.clone();
    let at = moment.wall;
    Ok(match verb {
        AlarmVerb::Acknowledge { .. } if alarm.acknowledged.is_some() => return Err(RefusalReason::NoEffect),
        AlarmVerb::Acknowledge { note } => {
            alarm.acknowledged = Some(Mark { by: by(), at, note: note.clone() });
            (ChangeKind::Acknowledged, note.clone())
        }
        AlarmVerb::Unacknowledge => {
            alarm.acknowledged.take().ok_or(RefusalReason::NoEffect)?;
            (ChangeKind::Unacknowledged, None)
        }
        AlarmVerb::Assign { to } => {
            let assigned = to.clone().map(|to| Assignment { to, by: by(), at });
            if assigned.as_ref().map(|assigned| &assigned.to) == alarm.assigned.as_ref().map(|assigned| &assigned.to) {
                return Err(RefusalReason::NoEffect);
            }
            alarm.assigned = assigned;
            (ChangeKind::Assigned, None)
        }
        AlarmVerb::Note { text } => {
            if alarm.notes.len() >= NOTES_MAX {
                alarm.notes.remove(0);
            }
            alarm.notes.push(Note { by: by(), at, text: text.clone() });
            (ChangeKind::Noted, Some(text.clone()))
        }
        AlarmVerb::Shelve { until, .. } if *until <= moment.wall => return Err(RefusalReason::UntilIsPast),
        AlarmVerb::Shelve { until, reason } => {
            alarm.shelved = Some(Shelved { by: by(), at, until: *until, reason: reason.clone(), shelf: None });
            alarm.engine.shelved_until = Some(moment.journal_time(*until));
            (ChangeKind::Shelved, Some(reason.clone()))
        }
        AlarmVerb::Unshelve => {
            alarm.shelved.take().ok_or(RefusalReason::NoEffect)?;
            alarm.engine.shelved_until = None;
            (ChangeKind::Unshelved, None)
        }
        AlarmVerb::Clear { .. } if !alarm.is_active() => return Err(RefusalReason::AlreadyCleared),
        AlarmVerb::Clear { note } => {
            set_cleared(moment, alarm, ClearedBy::Operator);
            (ChangeKind::Cleared, note.clone())
        }
        AlarmVerb::Retire { note } => (ChangeKind::Retired, note.clone()),
        AlarmVerb::Purge if alarm.is_active() => return Err(RefusalReason::NotCleared),
        AlarmVerb::Purge => (ChangeKind::Purged, None),
    })
}

pub(crate) fn cause(moment: &Moment<'_>, action: &Action, kind: ChangeKind, note: Option<Text>) -> Cause {
    Cause {
        kind,
        reasons: vec![Reason::Action(action.id), moment.reason()],
        actor: Some(action.actor.clone()),
        from: action.from.clone(),
        note,
    }
}
