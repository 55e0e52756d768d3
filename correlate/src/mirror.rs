//! The mirror: the alarms of the sites below, as they send them. Nothing here decides about an alarm; its owner does.
//!
//! ```text
//!  Alignment, Alignment …   how alarms stand, range by range: Realigned where that is not known
//!  Aligned                  reached = at; what is between is missing
//!  Live    after == reached ─▶ out as it is, the alarm replaces the one that is mirrored; reached = upto
//!  History after == missing ─▶ out as past; the stretch is shorter; when none is left: Child(CaughtUp)
//!  Gap                      as history that will never come
//!  Acted                    what became of actions has come with the changes before
//! ```
//!
//! Each step says where in the child's journal it begins, so one that has come before has no effect, and one that leaves
//! something out is not taken. A step is looked at whole before anything of it takes effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, Clearance, ClearedBy};
use klaxon_schemas::change::{Change, ChangeKind, Reason, Subject, Timer};
use klaxon_schemas::child::{
    ALIGNMENT_LOST_MAX, Below, Child, ChildKind, ChildStep, MISSING_SPANS_MAX, Meanwhile, NotTaken, Reached, Relay,
    RelayContent, Span, fingerprint, site_of,
};
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{ChildName, Site};
use klaxon_schemas::state::{StateKey, StateRecord};
use klaxon_schemas::time::JournalTime;

use crate::below::{note_below, rows_below};
use crate::engine::{Cause, Engine, Moment};
use crate::output::{Disposition, Output};
use crate::screen::takes_steps;

/// The most alarms that one alignment ends because a region had not heard that they are over; others wait for the next.
const GHOSTS_MAX: usize = 1024;

/// The alarms of other sites, and through which child each comes.
#[derive(Default)]
pub(crate) struct Mirror {
    alarms: BTreeMap<AlarmId, Arc<Alarm>>,
    by_child: BTreeMap<ChildName, BTreeSet<AlarmId>>,
    /// Cleared alarms, the one cleared first at the front.
    cleared: BTreeSet<(JournalTime, AlarmId)>,
}

impl Mirror {
    /// Takes in an alarm as it is now.
    pub(crate) fn put(&mut self, alarm: Arc<Alarm>) {
        self.remove(alarm.id);
        if let Some(via) = &alarm.via {
            self.by_child.entry(via.clone()).or_default().insert(alarm.id);
        }
        self.cleared.extend(alarm.engine.cleared_at.map(|at| (at, alarm.id)));
        self.alarms.insert(alarm.id, alarm);
    }

    pub(crate) fn remove(&mut self, id: AlarmId) -> Option<Arc<Alarm>> {
        let alarm = self.alarms.remove(&id)?;
        if let Some(via) = &alarm.via
            && let Some(ids) = self.by_child.get_mut(via)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_child.remove(via);
            }
        }
        if let Some(at) = alarm.engine.cleared_at {
            self.cleared.remove(&(at, id));
        }
        Some(alarm)
    }

    pub(crate) fn get(&self, id: AlarmId) -> Option<&Arc<Alarm>> {
        self.alarms.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.alarms.values()
    }

    /// At most `limit` of the alarms that come through `child`.
    pub(crate) fn some_of(&self, child: &ChildName, limit: usize) -> Vec<AlarmId> {
        self.by_child.get(child).into_iter().flatten().take(limit).copied().collect()
    }

    fn between(&self, child: &ChildName, from: AlarmId, to: AlarmId) -> impl Iterator<Item = AlarmId> {
        let ids = self.by_child.get(child).filter(|_| from <= to);
        ids.into_iter().flat_map(move |ids| ids.range(from..=to)).copied()
    }

    /// The alarm that was cleared first, and how many are cleared.
    pub(crate) fn first_cleared(&self) -> Option<(JournalTime, AlarmId, usize)> {
        self.cleared.first().map(|(at, id)| (*at, *id, self.cleared.len()))
    }
}

/// What a step is looked at with.
struct Sender<'a> {
    name: &'a ChildName,
    epoch: Epoch,
    child: Arc<Child>,
}

/// A change of a child as it goes out here.
struct Adopted {
    change: Change,
    standing: Standing,
}

/// How what a child says stands to what is known by another way.
#[derive(Clone, Copy)]
struct Standing {
    /// Its owner is a child of this node itself, so that nobody else is heard about it.
    is_elsewhere: bool,
    /// Another way by which it is heard of knows more of the alarm. History it may be all the same.
    is_behind: bool,
}

impl Standing {
    fn is_current(self) -> bool {
        !self.is_elsewhere && !self.is_behind
    }
}

impl Engine {
    /// A site sent a step of what became of its alarms.
    pub(crate) fn mirror(&mut self, moment: &Moment<'_>, relay: &Arc<Relay>, out: &mut Output) -> Disposition {
        self.take_step(moment, relay, out).unwrap_or_else(Disposition::NotTaken)
    }

    /// A child whose steps are taken.
    pub(crate) fn steps_of(&self, name: &ChildName) -> Result<&Arc<Child>, NotTaken> {
        takes_steps(name, self.children.get(name))
    }

    fn take_step(&mut self, moment: &Moment<'_>, relay: &Relay, out: &mut Output) -> Result<Disposition, NotTaken> {
        let name = &relay.child;
        let child = Arc::clone(self.steps_of(name)?);
        let sender = Sender { name, epoch: relay.epoch, child };
        match &relay.content {
            RelayContent::Alignment { at, from, to, alarms, unread } => {
                self.align(moment, &sender, *at, (*from, *to), (alarms, unread), out)
            }
            RelayContent::Aligned { at, after, fingerprint, below } => {
                self.aligned(moment, &sender, Span { after: *after, upto: *at }, (*fingerprint, below), out)
            }
            RelayContent::Live { after, upto, changes, unread } => {
                self.live(moment, &sender, Span { after: *after, upto: *upto }, (changes, *unread), out)
            }
            RelayContent::History { after, upto, changes, unread } => {
                self.history(moment, &sender, Span { after: *after, upto: *upto }, Some((changes, *unread)), out)
            }
            RelayContent::Gap { after, upto } => self.history(moment, &sender, Span { after: *after, upto: *upto }, None, out),
            RelayContent::Acted { actions } => Ok(self.acted(name, actions, out)),
        }
    }

    /// How the alarms in a range of ids stand.
    fn align(
        &mut self,
        moment: &Moment<'_>,
        sender: &Sender<'_>,
        at: Position,
        (from, to): (AlarmId, AlarmId),
        (alarms, unread): (&[Arc<Alarm>], &[AlarmId]),
        out: &mut Output,
    ) -> Result<Disposition, NotTaken> {
        if let Some(reached) = sender.not_older()?
            && reached.epoch == sender.epoch
            && at < reached.position
        {
            return Ok(Disposition::Duplicate);
        }
        let mut part = BTreeMap::new();
        for alarm in alarms {
            if alarm.id < from || alarm.id > to {
                return Err(NotTaken::OutOfRange { alarm: alarm.id });
            }
            let (alarm, standing) = self.adopt_alarm(sender, alarm)?;
            part.insert(alarm.id, (alarm, standing));
        }
        if let Some(beyond) = unread.iter().find(|id| !(from..=to).contains(*id)) {
            return Err(NotTaken::OutOfRange { alarm: *beyond });
        }
        // What is not understood is there all the same.
        let unread: BTreeSet<_> = unread.iter().collect();
        let is_listed = |id: &AlarmId| part.contains_key(id) || unread.contains(id);
        let lost = self.mirror.between(sender.name, from, to).filter(|id| !is_listed(id));
        let gone: Vec<_> = lost.take(ALIGNMENT_LOST_MAX + 1).collect();
        if gone.len() > ALIGNMENT_LOST_MAX {
            return Err(NotTaken::TooManyLost { lost: gone.len() });
        }
        for (alarm, _) in part.into_values().filter(|(_, standing)| standing.is_current()) {
            let is_known = match self.mirror.get(alarm.id) {
                None => !alarm.is_active(),
                Some(before) => is_as(before, &alarm),
            };
            if !is_known {
                self.realign(moment, alarm, out);
            }
        }
        for id in gone {
            self.lose(moment, id, out);
        }
        Ok(Disposition::Applied)
    }

    /// A mirrored alarm is not as it was known.
    fn realign(&mut self, moment: &Moment<'_>, alarm: Alarm, out: &mut Output) {
        self.make_way(moment, &alarm, out);
        let previous_severity =
            self.mirror.get(alarm.id).map(|before| before.severity).filter(|severity| *severity != alarm.severity);
        let alarm = self.keep_mirrored(moment, alarm);
        let cause = Cause::new(ChangeKind::Realigned, &[moment.reason()]);
        self.emit(moment, cause, Subject::Alarm { alarm, previous_severity }, out);
    }

    /// A site whose store was lost numbers anew, and may give another alarm the id of one that it had before: that one is gone.
    fn make_way(&mut self, moment: &Moment<'_>, alarm: &Alarm, out: &mut Output) {
        if self.mirror.get(alarm.id).is_some_and(|before| before.key != alarm.key) {
            self.lose(moment, alarm.id, out);
        }
    }

    /// Its owner lists an alarm no more, and how it ended did not come.
    fn lose(&mut self, moment: &Moment<'_>, id: AlarmId, out: &mut Output) {
        if let Some(alarm) = self.mirror.get(id).filter(|alarm| alarm.is_active()) {
            let alarm = ended(moment, alarm);
            self.realign(moment, alarm, out);
        }
        self.forget_mirrored(moment, id, Cause::new(ChangeKind::Purged, &[moment.reason()]), out);
    }

    fn keep_mirrored(&mut self, moment: &Moment<'_>, mut alarm: Alarm) -> Arc<Alarm> {
        let known = self.mirror.get(alarm.id).and_then(|known| known.engine.cleared_at);
        alarm.engine.cleared_at = if alarm.is_active() { None } else { known.or(Some(moment.now)) };
        self.interner.alarm(&mut alarm);
        let alarm = Arc::new(alarm);
        self.mirror.put(Arc::clone(&alarm));
        alarm
    }

    /// Forgets a mirrored alarm, with a change of this node's own.
    pub(crate) fn forget_mirrored(&mut self, moment: &Moment<'_>, id: AlarmId, cause: Cause, out: &mut Output) {
        if let Some(alarm) = self.mirror.remove(id) {
            self.emit(moment, cause, Subject::Alarm { alarm, previous_severity: None }, out);
        }
    }

    /// Forgets a mirrored alarm whose owner is there no more, as one that has ended.
    pub(crate) fn retire_mirrored(&mut self, moment: &Moment<'_>, id: AlarmId, cause: Cause, out: &mut Output) {
        let Some(alarm) = self.mirror.remove(id) else { return };
        let alarm = if alarm.is_active() { Arc::new(ended(moment, &alarm)) } else { alarm };
        self.emit(moment, cause, Subject::Alarm { alarm, previous_severity: None }, out);
    }

    /// Forgets the mirrored alarm that was cleared first, if its time is over or there are too many.
    pub(crate) fn purge_mirrored(&mut self, moment: &Moment<'_>, out: &mut Output) -> bool {
        let Some((cleared_at, id, count)) = self.mirror.first_cleared() else { return false };
        if count <= self.settings.cleared_max && cleared_at + self.purge_after() > moment.now {
            return false;
        }
        let cause = Cause::new(ChangeKind::Purged, &[Reason::Timer(Timer::Purge), moment.reason()]);
        self.forget_mirrored(moment, id, cause, out);
        true
    }

    /// The engine broke on forgetting the mirrored alarm that was cleared first: it is kept as if it were cleared now.
    pub(crate) fn keep_first_cleared(&mut self, moment: &Moment<'_>, out: &mut Output) {
        let Some(alarm) = self.mirror.first_cleared().and_then(|(_, id, _)| self.mirror.get(id)) else { return };
        let mut alarm = Alarm::clone(alarm);
        alarm.engine.cleared_at = Some(moment.now);
        out.touch(alarm.id);
        self.mirror.put(Arc::new(alarm));
    }

    /// It stands here as there.
    fn aligned(
        &mut self,
        moment: &Moment<'_>,
        sender: &Sender<'_>,
        span: Span,
        (fingerprint, below): (u64, &[Below]),
        out: &mut Output,
    ) -> Result<Disposition, NotTaken> {
        span.check()?;
        let mut child = Child::clone(&sender.child);
        let known = sender.not_older()?;
        let mut missing = known.map(|known| known.missing.clone()).unwrap_or_default();
        let (mut after, mut is_new_epoch) = (span.after, false);
        match known {
            Some(known) if known.epoch == sender.epoch => {
                if span.upto < known.position {
                    return Ok(Disposition::Duplicate);
                }
                if span.after > known.position {
                    return Err(NotTaken::OutOfPlace { after: span.after, reached: known.position });
                }
                after = known.position;
            }
            Some(known) => {
                is_new_epoch = true;
                let left_out = span.after.0.saturating_sub(known.position.0);
                let lost = cut_behind(&mut missing, span.after) + left_out;
                child.lose_records(moment, lost);
            }
            None => {}
        }
        if after < span.upto {
            let is_full = missing.len() >= MISSING_SPANS_MAX;
            match missing.last_mut() {
                Some(last) if last.upto == after => last.upto = span.upto,
                // Nothing could come out of the list before this is taken: what it has no room for is given up.
                _ if is_full => child.lose_records(moment, span.upto.0 - after.0),
                _ => missing.push(Span { after, upto: span.upto }),
            }
        }
        child.reached = Some(Reached { epoch: sender.epoch, position: span.upto, fingerprint, missing });
        if child.kind == ChildKind::Region {
            child.below = Arc::new(rows_below(sender.name, below));
        }
        for id in self.ghosts(sender.name) {
            self.lose(moment, id, out);
        }
        if is_new_epoch {
            self.note_child(moment, sender.name, child.kind, ChildStep::NewEpoch, None, out);
        }
        self.settle(moment, sender.name, child, out);
        Ok(Disposition::Applied)
    }

    /// Alarms of a site that is heard itself, and has just listed all it has, that still come through a region: it has them no
    /// more, and the region had not heard.
    fn ghosts(&self, name: &ChildName) -> Vec<AlarmId> {
        let owner = site_of(name);
        let regions = self.children.iter().filter(|(via, child)| child.kind == ChildKind::Region && *via != name);
        let ids = regions.flat_map(|(via, _)| self.mirror.by_child.get(via).into_iter().flatten());
        let is_its = |id: &&AlarmId| self.mirror.get(**id).is_some_and(|alarm| alarm.owner.as_ref() == Some(&owner));
        ids.filter(is_its).take(GHOSTS_MAX).copied().collect()
    }

    /// Changes as they happened.
    fn live(
        &mut self,
        moment: &Moment<'_>,
        sender: &Sender<'_>,
        span: Span,
        (changes, unread): (&[Arc<Change>], u64),
        out: &mut Output,
    ) -> Result<Disposition, NotTaken> {
        span.check()?;
        let reached = sender.same_epoch()?;
        if span.upto <= reached.position {
            return Ok(Disposition::Duplicate);
        }
        if span.after != reached.position {
            return Err(NotTaken::OutOfPlace { after: span.after, reached: reached.position });
        }
        let adopted = self.adopt_all(sender, changes)?;
        let mut child = Child::clone(&sender.child);
        let mut reached = reached.clone();
        reached.position = span.upto;
        match changes.last() {
            // The last may be the one that is not understood: then nothing is said of it.
            _ if unread > 0 => reached.fingerprint = 0,
            Some(last) => reached.fingerprint = fingerprint(last),
            None => {}
        }
        for Adopted { change, standing } in adopted {
            if standing.is_current() {
                note_below(&mut child, sender.name, &change);
                self.take_change(moment, change, out);
            }
        }
        child.reached = Some(reached);
        child.lose_records(moment, unread);
        if unread > 0 {
            self.settle(moment, sender.name, child, out);
        } else {
            child.last_heard_at = Some(moment.wall);
            self.put_child(sender.name, child, out);
        }
        Ok(Disposition::Applied)
    }

    /// Changes of the oldest stretch that is missing; or that they will never come.
    fn history(
        &mut self,
        moment: &Moment<'_>,
        sender: &Sender<'_>,
        span: Span,
        changes: Option<(&[Arc<Change>], u64)>,
        out: &mut Output,
    ) -> Result<Disposition, NotTaken> {
        span.check()?;
        let reached = sender.same_epoch()?;
        if span.upto <= reached.needed_after() {
            return Ok(Disposition::Duplicate);
        }
        let Some(oldest) = reached.missing.first() else {
            return Err(NotTaken::OutOfPlace { after: span.after, reached: reached.position });
        };
        if span.after != oldest.after || span.upto > oldest.upto {
            return Err(NotTaken::OutOfPlace { after: span.after, reached: oldest.after });
        }
        let adopted = self.adopt_all(sender, changes.map_or(&[], |(changes, _)| changes))?;
        let mut child = Child::clone(&sender.child);
        let mut reached = reached.clone();
        shorten(&mut reached.missing, span.upto);
        child.reached = Some(reached);
        child.lose_records(moment, changes.map_or(span.upto.0 - span.after.0, |(_, unread)| unread));
        for Adopted { change, standing } in adopted {
            if !standing.is_elsewhere {
                child.count(&change);
                self.cursor.mirrored += 1;
                out.change(Change { past: true, ..change });
            }
        }
        self.settle(moment, sender.name, child, out);
        Ok(Disposition::Applied)
    }

    /// The engine broke on a step. One that was live is as if it had not come, and the child is to come again: it says then how its
    /// alarms stand, and sends what was in the step as history. History that breaks the engine is counted as lost, or it would
    /// come for ever.
    pub(crate) fn pass_over(&mut self, moment: &Moment<'_>, relay: &Relay, out: &mut Output) -> Option<NotTaken> {
        let known = self.children.get(&relay.child).filter(|child| child.retired.is_none() && child.kind.owns());
        let mut child = known.map(|child| Child::clone(child))?;
        let reached = child.reached.as_mut().filter(|reached| reached.epoch == relay.epoch)?;
        match &relay.content {
            RelayContent::Live { after, upto, .. } if *after == reached.position && upto > after => {
                return Some(NotTaken::Broke { child: relay.child.clone() });
            }
            RelayContent::History { after, upto, .. } | RelayContent::Gap { after, upto } if upto > after => {
                let oldest = reached.missing.first()?;
                if oldest.after == *after && oldest.upto >= *upto {
                    shorten(&mut reached.missing, *upto);
                    child.lose_records(moment, upto.0 - after.0);
                    self.settle(moment, &relay.child, child, out);
                }
            }
            _ => {}
        }
        None
    }

    /// Keeps a child as it is after a step; if nothing is missing any more, tells what came meanwhile.
    fn settle(&mut self, moment: &Moment<'_>, name: &ChildName, mut child: Child, out: &mut Output) {
        child.last_heard_at = Some(moment.wall);
        let is_whole = child.reached.as_ref().is_none_or(|reached| reached.missing.is_empty());
        if is_whole && let Some(meanwhile) = child.meanwhile.take() {
            self.note_child(moment, name, child.kind, ChildStep::CaughtUp(meanwhile), None, out);
        }
        self.put_child(name, child, out);
    }

    pub(crate) fn put_child(&mut self, name: &ChildName, child: Child, out: &mut Output) {
        let below = self.children.get(name).map(|before| Arc::clone(&before.below)).unwrap_or_default();
        if below != child.below {
            let key = StateKey::Below(name.clone());
            match child.below.is_empty() {
                true => out.delete(key),
                false => out.put(key, StateRecord::Below(Arc::clone(&child.below))),
            }
        }
        let kept = Child { below: Arc::default(), ..child.clone() };
        out.put(StateKey::Child(name.clone()), StateRecord::Child(Arc::new(kept)));
        self.note_record(name, Arc::new(child));
    }

    fn adopt_all(&self, sender: &Sender<'_>, changes: &[Arc<Change>]) -> Result<Vec<Adopted>, NotTaken> {
        changes.iter().map(|change| self.adopt_change(sender, change)).collect()
    }

    fn adopt_change(&self, sender: &Sender<'_>, change: &Change) -> Result<Adopted, NotTaken> {
        let mut standing = Standing { is_elsewhere: self.speaks_for(sender, &change.site)?, is_behind: false };
        let mut change = change.clone();
        if let Subject::Alarm { alarm, .. } = &mut change.subject {
            let (adopted, of_alarm) = self.adopt_alarm(sender, alarm)?;
            standing.is_elsewhere |= of_alarm.is_elsewhere;
            standing.is_behind = of_alarm.is_behind;
            *alarm = Arc::new(adopted);
        }
        Ok(Adopted { change, standing })
    }

    /// An alarm as it is mirrored here, and how that stands to what is known.
    fn adopt_alarm(&self, sender: &Sender<'_>, alarm: &Alarm) -> Result<(Alarm, Standing), NotTaken> {
        let owner = alarm.owner.clone().unwrap_or_else(|| site_of(sender.name));
        let is_elsewhere = self.speaks_for(sender, &owner)?;
        let mirrored = self.mirror.get(alarm.id);
        let is_others = mirrored.is_some_and(|mirrored| mirrored.owner.as_ref() != Some(&owner));
        if is_others || self.alarms.contains_key(&alarm.id) {
            return Err(NotTaken::TakenId { child: sender.name.clone(), alarm: alarm.id });
        }
        let mut alarm = alarm.clone();
        alarm.owner = Some(owner);
        alarm.via = Some(sender.name.clone());
        alarm.engine = Default::default();
        // Of two ways by which a site is heard of, the one that knows more is kept.
        let is_behind = mirrored.is_some_and(|mirrored| self.is_better(mirrored, &alarm));
        Ok((alarm, Standing { is_elsewhere, is_behind }))
    }

    /// Whether a child may speak for a site: an error if not; else whether that site is heard itself. One that is silent, or has
    /// another node above it now, is not: what a region says of it is better than nothing.
    fn speaks_for(&self, sender: &Sender<'_>, owner: &Site) -> Result<bool, NotTaken> {
        let is_its_own = **owner == **sender.name;
        if is_its_own {
            return Ok(false);
        }
        if sender.child.kind != ChildKind::Region || *owner == self.site {
            return Err(NotTaken::Foreign { child: sender.name.clone(), owner: owner.clone() });
        }
        let direct = ChildName::new(owner).ok().and_then(|name| self.children.get(&name));
        Ok(direct.is_some_and(|direct| direct.kind.owns() && direct.reached.is_some() && is_heard(direct)))
    }

    /// Whether what is mirrored through another child is kept rather than `new`.
    fn is_better(&self, mirrored: &Alarm, new: &Alarm) -> bool {
        if is_from_owner(new) || mirrored.via == new.via || mirrored.last_change < new.last_change {
            return false;
        }
        let via = mirrored.via.as_ref().and_then(|via| self.children.get(via));
        let is_heard = via.is_some_and(|via| via.silent_for(mirrored.owner.as_ref()).is_none());
        // Through its owner it stays until there is news: else it would be stale with the region when its owner is back.
        let is_no_news = is_from_owner(mirrored) && facets(mirrored) == facets(new);
        mirrored.last_change > new.last_change || is_heard || is_no_news
    }

    /// A change of a child goes out as it is; the mirror follows it.
    fn take_change(&mut self, moment: &Moment<'_>, mut change: Change, out: &mut Output) {
        // What a site hides, it hides from its own people: here it is history.
        change.past |= matches!(change.subject, Subject::Suppression { .. });
        if let Subject::Alarm { alarm, .. } = &mut change.subject
            && !change.past
        {
            match change.kind {
                // By whichever way it came before: this one is heard now, and the change goes out.
                ChangeKind::Purged | ChangeKind::Retired => drop(self.mirror.remove(alarm.id)),
                _ => {
                    self.make_way(moment, alarm, out);
                    *alarm = self.keep_mirrored(moment, Alarm::clone(alarm));
                }
            }
        }
        self.cursor.mirrored += 1;
        out.change(change);
    }
}

impl Sender<'_> {
    /// What is known of the child, if the step is not of a numbering before.
    fn not_older(&self) -> Result<Option<&Reached>, NotTaken> {
        match &self.child.reached {
            Some(known) if known.epoch > self.epoch => Err(NotTaken::OtherEpoch { is: self.epoch, known: known.epoch }),
            known => Ok(known.as_ref()),
        }
    }

    /// What is known of the child in the numbering of the step.
    fn same_epoch(&self) -> Result<&Reached, NotTaken> {
        let known = self.child.reached.as_ref();
        known
            .filter(|known| known.epoch == self.epoch)
            .ok_or_else(|| NotTaken::OtherEpoch { is: self.epoch, known: known.map_or(Epoch(0), |known| known.epoch) })
    }
}

/// An alarm that was active, as it is when nobody says how it ended.
fn ended(moment: &Moment<'_>, alarm: &Alarm) -> Alarm {
    let cleared = Some(Clearance { at: moment.wall, by: ClearedBy::Realignment });
    Alarm { cleared, stale: None, ..alarm.clone() }
}

/// Whether a child is there, as far as is known.
pub(crate) fn is_heard(child: &Child) -> bool {
    child.silent_since.is_none() && child.moved.is_none() && child.retired.is_none()
}

/// Whether an alarm comes from its owner itself.
fn is_from_owner(alarm: &Alarm) -> bool {
    alarm.via.as_deref() == alarm.owner.as_deref()
}

/// Whether two say the same of an alarm, and come the same way.
fn is_as(before: &Alarm, alarm: &Alarm) -> bool {
    before.key == alarm.key && before.via == alarm.via && facets(before) == facets(alarm)
}

/// By what it is seen that an alarm is not as it was.
fn facets(alarm: &Alarm) -> impl PartialEq {
    let marks = (alarm.acknowledged.is_some(), alarm.shelved.is_some(), alarm.is_active());
    (alarm.last_change, alarm.raise_seq, alarm.severity, marks)
}

/// Leaves out what is missing behind `end`: there the numbering is another one. Tells how many records that were.
fn cut_behind(missing: &mut Vec<Span>, end: Position) -> u64 {
    let mut lost = 0;
    missing.retain_mut(|span| {
        let upto = span.upto.min(end).max(span.after);
        lost += span.upto.0 - upto.0;
        span.upto = upto;
        span.after < span.upto
    });
    lost
}

/// Of the oldest stretch that is missing, what goes up to `upto` is not any more.
fn shorten(missing: &mut Vec<Span>, upto: Position) {
    match missing.first_mut() {
        Some(oldest) if upto < oldest.upto => oldest.after = upto,
        Some(_) => drop(missing.remove(0)),
        None => {}
    }
}

/// What a [`Child`] counts of what comes as history.
trait Counting {
    fn count(&mut self, change: &Change);
    fn lose_records(&mut self, moment: &Moment<'_>, lost: u64);
}

impl Counting for Child {
    fn count(&mut self, change: &Change) {
        let meanwhile = self.meanwhile.get_or_insert(Meanwhile { from: change.at, until: change.at, ..Meanwhile::default() });
        meanwhile.from = meanwhile.from.min(change.at);
        meanwhile.until = meanwhile.until.max(change.at);
        meanwhile.changes += 1;
        meanwhile.raised += u64::from(change.kind == ChangeKind::Raised);
        meanwhile.cleared += u64::from(change.kind == ChangeKind::Cleared);
    }

    fn lose_records(&mut self, moment: &Moment<'_>, lost: u64) {
        if lost > 0 {
            let at = moment.wall;
            self.meanwhile.get_or_insert(Meanwhile { from: at, until: at, ..Meanwhile::default() }).lost += lost;
        }
    }
}
