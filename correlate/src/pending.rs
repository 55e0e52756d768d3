//! Operator actions on alarms of other sites: ordered here, on their way to the owner, and what becomes of them.
//!
//! ```text
//! ordered ─▶ own alarms: done here
//!         └▶ mirrored ones, by child: Pending ─▶ sent down ─▶ the owner's changes come up, then Acted ─▶ done
//!                                        │ expires, and the owner has not said        └▶ refused: Unanswered
//!                                        └ the child is retired                        ─▶ refused: OwnerGone
//! ```
//!
//! Two people may act on one alarm at two places while they cannot be heard of each other. On each axis the action that was
//! ordered later wins; the other is refused as superseded, and both stand in history. What is ordered where the alarm is owned
//! is never superseded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klaxon_schemas::action::{Action, AlarmVerb, ShelfOrder, Target, Verb};
use klaxon_schemas::alarm::{Alarm, Ordered};
use klaxon_schemas::change::{ChangeKind, RefusalReason, Subject};
use klaxon_schemas::child::PendingAction;
use klaxon_schemas::ids::ActionId;
use klaxon_schemas::names::ChildName;
use klaxon_schemas::state::{Shelf, ShelfPhase, StateKey, StateRecord};
use klaxon_schemas::time::{JournalTime, Timestamp};

use crate::action::cause;
use crate::engine::{Engine, Moment};
use crate::output::{Disposition, Output};

/// How long the owner has to say what became of an action that says itself nothing about it.
const ANSWER_WITHIN: Duration = Duration::from_secs(24 * 3600);

impl Engine {
    /// The child through which an alarm that is not this node's own is reached.
    fn way_to(&self, target: &Target) -> Option<ChildName> {
        self.mirror.get(target.id)?.via.clone()
    }

    /// Sends what `action` orders for mirrored alarms on its way; what remains is to be done here.
    pub(crate) fn send_down(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        targets: &[Target],
        verb: &AlarmVerb,
        out: &mut Output,
    ) -> Vec<Target> {
        let mut own = Vec::new();
        let mut by_child: BTreeMap<ChildName, Vec<Target>> = BTreeMap::new();
        for target in targets {
            match self.way_to(target) {
                Some(child) => by_child.entry(child).or_default().push(*target),
                None => own.push(*target),
            }
        }
        for (child, targets) in by_child {
            self.send_to(moment, action, &child, &targets, verb, out);
        }
        own
    }

    fn send_to(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        child: &ChildName,
        targets: &[Target],
        verb: &AlarmVerb,
        out: &mut Output,
    ) {
        let mut sent = Vec::new();
        for target in targets {
            let Some(alarm) = self.mirror.get(target.id).cloned() else { continue };
            let reason = if target.raise_seq.is_some_and(|seen| seen != alarm.raise_seq) {
                Some(RefusalReason::RaisedAgain)
            } else {
                self.no_way_down(child)
            };
            match reason {
                Some(reason) => self.refuse(moment, action, Some(target.id), reason, out),
                // What the actor saw is this episode: one that began since is not meant.
                None => sent.push((Target { raise_seq: Some(alarm.raise_seq), ..*target }, alarm)),
            }
        }
        if sent.is_empty() {
            return;
        }
        let verb = Verb::OnAlarms(sent.iter().map(|(target, _)| *target).collect(), verb.clone());
        self.put_pending(moment, action, child, verb, out);
        for (_, alarm) in sent {
            let subject = Subject::Alarm { alarm, previous_severity: None };
            self.emit(moment, cause(moment, action, ChangeKind::Pending, None), subject, out);
        }
    }

    /// Why nothing can be sent to a child now, if so. One that is silent gets it when it is heard from again.
    fn no_way_down(&self, child: &ChildName) -> Option<RefusalReason> {
        let is_gone = self.children.get(child).is_none_or(|child| child.retired.is_some() || child.moved.is_some());
        let count = || self.pending.get(child).map_or(0, BTreeMap::len);
        match () {
            () if is_gone => Some(RefusalReason::OwnerGone),
            () if count() >= self.settings.pending_actions_max => Some(RefusalReason::LimitReached),
            () => None,
        }
    }

    fn pending_of(&self, child: &ChildName) -> impl Iterator<Item = (ActionId, &Arc<PendingAction>)> {
        self.pending.get(child).into_iter().flatten().map(|(id, pending)| (*id, pending))
    }

    fn put_pending(&mut self, moment: &Moment<'_>, action: &Action, child: &ChildName, verb: Verb, out: &mut Output) {
        let ordered_at = action.ordered_at.unwrap_or(moment.wall);
        let within = i64::try_from(ANSWER_WITHIN.as_micros()).unwrap_or(i64::MAX);
        // The owner must not do it behind the time at which it is given up here.
        let expires_at = action.expires_at.unwrap_or_else(|| moment.wall.saturating_add_micros(within));
        // Whoever has done it remembers its id for so long: sent again later, it would be done twice.
        let expires_at = expires_at.min(moment.wall.saturating_add_micros(self.ids_kept_micros()));
        let expires = moment.journal_time(expires_at);
        let action = Action {
            id: action.id,
            actor: action.actor.clone(),
            from: action.from.clone(),
            ordered_at: Some(ordered_at),
            expires_at: Some(expires_at),
            verb,
        };
        let key = (child.clone(), action.id);
        let ordered_by = moment.position();
        let pending = Arc::new(PendingAction { action: Arc::new(action), ordered_at, ordered_by, expires: Some(expires) });
        self.timers.add_pending(&key, &pending);
        out.put(StateKey::Pending(key.0.clone(), key.1), StateRecord::Pending(Arc::clone(&pending)));
        self.pending.entry(key.0).or_default().insert(key.1, pending);
    }

    /// For how long it is remembered here which actions were done.
    fn ids_kept_micros(&self) -> i64 {
        i64::try_from(self.settings.event_id_lifetime_s).unwrap_or(i64::MAX).saturating_mul(1_000_000)
    }

    /// Whether it is too late for an action: by what it says itself, or because one that was ordered elsewhere may have been done
    /// so long ago that nobody here remembers it.
    pub(crate) fn is_too_late(&self, moment: &Moment<'_>, action: &Action) -> bool {
        let is_forgotten = |ordered_at: Timestamp| moment.wall.micros_since(ordered_at) > self.ids_kept_micros();
        action.expires_at.is_some_and(|expires_at| expires_at < moment.wall) || action.ordered_at.is_some_and(is_forgotten)
    }

    /// The child whose site's alarms a shelf is over, if there is one: it goes down whole. Refused if there is no way to it now.
    pub(crate) fn child_with(&self, order: &ShelfOrder) -> Result<Option<ChildName>, RefusalReason> {
        let child = order.matcher.site.as_deref().and_then(|site| self.child_for(site));
        match child.as_ref().and_then(|child| self.no_way_down(child)) {
            Some(reason) => Err(reason),
            None => Ok(child),
        }
    }

    /// Sends a shelf over the alarms of a child's site, or that it ends, on its way.
    pub(crate) fn send_shelf_down(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        child: &ChildName,
        order: &ShelfOrder,
        out: &mut Output,
    ) {
        self.put_pending(moment, action, child, action.verb.clone(), out);
        let id = if let Verb::RemoveShelf(id) = &action.verb { *id } else { action.id };
        let shelf = Shelf {
            id,
            by: action.actor.clone(),
            at: moment.wall,
            order: order.clone(),
            ends_at: moment.journal_time(order.until),
            phase: ShelfPhase::Filling,
            begins_at: None,
            amended_at: None,
            ended_at: None,
            forgotten_at: None,
        };
        self.emit(moment, cause(moment, action, ChangeKind::Pending, None), Subject::Shelf(Arc::new(shelf)), out);
    }

    /// The child that is a site, or says that the site is below it.
    fn child_for(&self, site: &str) -> Option<ChildName> {
        let here = self.children.iter().filter(|(_, child)| child.kind.owns() && child.retired.is_none());
        let mut below = here.clone().filter(|(_, child)| child.below.iter().any(|below| *below.name == *site));
        here.clone().find(|(name, _)| ***name == *site).or_else(|| below.next()).map(|(name, _)| name.clone())
    }

    /// The child through which an alarm comes that the shelf `id` holds at its owner.
    pub(crate) fn way_to_shelf(&self, id: ActionId) -> Option<ChildName> {
        let mut held = self.mirror.iter().filter(|alarm| alarm.shelved.as_ref().is_some_and(|held| held.shelf == Some(id)));
        held.find_map(|alarm| alarm.via.clone())
    }

    /// Takes a shelf away that stands at its owner.
    pub(crate) fn send_unshelf_down(
        &mut self,
        moment: &Moment<'_>,
        action: &Action,
        shelf: ActionId,
        out: &mut Output,
    ) -> Result<(), RefusalReason> {
        let child = self.way_to_shelf(shelf).ok_or(RefusalReason::NoSuchShelf)?;
        match self.no_way_down(&child) {
            Some(reason) => Err(reason),
            None => {
                self.put_pending(moment, action, &child, action.verb.clone(), out);
                Ok(())
            }
        }
    }

    /// What became of actions has come before this.
    pub(crate) fn acted(&mut self, child: &ChildName, actions: &[ActionId], out: &mut Output) -> Disposition {
        let mut was_any = false;
        for id in actions {
            was_any |= self.take_pending(&(child.clone(), *id), out).is_some();
        }
        if was_any { Disposition::Applied } else { Disposition::Duplicate }
    }

    fn take_pending(&mut self, key: &(ChildName, ActionId), out: &mut Output) -> Option<Arc<PendingAction>> {
        let of_child = self.pending.get_mut(&key.0)?;
        let pending = of_child.remove(&key.1)?;
        if of_child.is_empty() {
            self.pending.remove(&key.0);
        }
        self.timers.remove_pending(key, &pending);
        out.delete(StateKey::Pending(key.0.clone(), key.1));
        Some(pending)
    }

    /// An action is given up: nobody knows what became of it, or nobody is there to do it. Tells of how many alarms.
    pub(crate) fn give_up(
        &mut self,
        moment: &Moment<'_>,
        key: &(ChildName, ActionId),
        reason: RefusalReason,
        out: &mut Output,
    ) -> usize {
        let Some(pending) = self.take_pending(key, out) else { return 0 };
        match &pending.action.verb {
            Verb::OnAlarms(targets, _) => {
                for target in targets {
                    self.refuse(moment, &pending.action, Some(target.id), reason, out);
                }
                targets.len()
            }
            _ => {
                self.refuse(moment, &pending.action, None, reason, out);
                1
            }
        }
    }

    /// Gives up what is on its way to a child that is there no more, about `bound` alarms of it. Tells how much of `bound` it took.
    pub(crate) fn give_up_pending(&mut self, moment: &Moment<'_>, child: &ChildName, bound: usize, out: &mut Output) -> usize {
        let mut done = 0;
        let ids: Vec<_> = self.pending_of(child).map(|(id, _)| id).collect();
        for id in ids {
            if done >= bound {
                return bound;
            }
            done += self.give_up(moment, &(child.clone(), id), RefusalReason::OwnerGone, out);
        }
        done.min(bound)
    }

    /// The engine broke on giving an action up alarm by alarm: it is refused as a whole.
    pub(crate) fn drop_pending(&mut self, moment: &Moment<'_>, child: &ChildName, id: ActionId, out: &mut Output) {
        if let Some(pending) = self.take_pending(&(child.clone(), id), out) {
            self.refuse(moment, &pending.action, None, RefusalReason::Unanswered, out);
        }
    }
}

/// The axis of an alarm on which `verb` acts, if on one.
fn axis<'a>(verb: &AlarmVerb, ordered: &'a mut Ordered) -> Option<&'a mut Option<JournalTime>> {
    match verb {
        AlarmVerb::Acknowledge { .. } | AlarmVerb::Unacknowledge => Some(&mut ordered.acknowledge),
        AlarmVerb::Assign { .. } => Some(&mut ordered.assign),
        AlarmVerb::Shelve { .. } | AlarmVerb::Unshelve => Some(&mut ordered.shelve),
        AlarmVerb::Clear { .. } => Some(&mut ordered.clear),
        AlarmVerb::Note { .. } | AlarmVerb::Retire { .. } | AlarmVerb::Purge => None,
    }
}

/// Notes on the alarm when `verb` was ordered, if elsewhere: at `ordered_at`; whether the like was ordered later, and this has no
/// effect. What is ordered here is the latest by that.
///
/// All of it is in journal time: a wall clock that was wrong when somebody here did something, and is set since, neither kills an
/// order that came behind it nor lets one win that came before.
pub(crate) fn is_superseded(moment: &Moment<'_>, alarm: &mut Alarm, verb: &AlarmVerb, ordered_at: Option<Timestamp>) -> bool {
    let mut ordered = alarm.engine.ordered.as_deref().copied().unwrap_or_default();
    let Some(last) = axis(verb, &mut ordered) else { return false };
    // Whose clock is fast cannot claim what is yet to come.
    let at = ordered_at.map(|at| moment.now.saturating_add_micros(at.micros_since(moment.wall).min(0)));
    if at.is_some_and(|at| last.is_some_and(|last| last > at)) {
        return true;
    }
    *last = Some(at.unwrap_or(moment.now));
    alarm.engine.ordered = Some(Box::new(ordered));
    false
}
