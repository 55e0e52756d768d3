//! What a report does to its alarm.
//!
//! ```text
//!                    raise                     clear, end, operator's clear
//!    (not there) ───────────▶  active  ──────────────────────────────────▶  cleared
//!         ▲                   │  ▲  ▲ │                                       │   │
//!         │                   │  │  │ │ lease over                            │   │
//!         │      other severity  │  │ ▼                                       │   │
//!         │        or words   └──┘  └ stale ── any report ─▶ active           │   │
//!         │                         ▲                                         │   │
//!         │                         └───────────── raise: next episode ───────┘   │
//!         └──────────────── purge: a time after the clear, or too many ───────────┘
//! ```
//!
//! * A raise that changes nothing is counted, and is no change.
//! * A rise in severity and a new episode reset the acknowledgement; a fall keeps it.
//! * Being shelved, assigned or suppressed outlives an episode.
//! * A report that a newer one of the same producer has overtaken has no effect and stands in history.
//! * A clear of what is not there leaves a tombstone if it has an order, so that a late raise finds it.
//! * A heartbeat is a clear that promises to come again; see `heartbeats.rs`.

use std::sync::Arc;

use klaxon_schemas::alarm::{
    Alarm, Clearance, ClearedBy, EndMark, EngineMarks, LeaseMark, ORDER_MARKS_MAX, OrderMark, Ordered, Stale,
};
use klaxon_schemas::change::{ChangeKind, Reason, Subject, Timer, WithoutEffect};
use klaxon_schemas::event::{AlarmKey, Details, Event, Report, SpanRule};
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::names::ChildName;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Novelty, Tombstone};
use klaxon_schemas::time::Timestamp;

use crate::engine::{Cause, Engine, Moment};
use crate::heartbeats::Promise;
use crate::mirror::is_heard;
use crate::output::{Disposition, Output};
use crate::timers::end_timer;

impl Engine {
    pub(crate) fn report(&mut self, moment: &Moment<'_>, event: &Arc<Event>, out: &mut Output) -> Disposition {
        if let Some(mark) = &event.origin.relay {
            match self.note_relayed(moment, mark, out) {
                Ok(false) => {}
                Ok(true) => return Disposition::Duplicate,
                Err(why) => return Disposition::NotTaken(why),
            }
        }
        // What an agent relays has been admitted there; here hosts may share the name of a producer, and its numbers.
        let novelty = event.origin.relay.as_ref().map_or_else(|| self.admission.novelty(event), |_| Novelty::New);
        match novelty {
            Novelty::Duplicate => return Disposition::Duplicate,
            Novelty::TooOld => {
                self.log(moment, event, Some(WithoutEffect::TooOld), out);
                return Disposition::TooOld;
            }
            Novelty::New if event.origin.relay.is_some() => {}
            Novelty::New => self.admission.note(event, moment.now, out),
        }
        let key = self.canonical(&event.key);
        match self.effect(&key, event) {
            Effect::Log => self.log(moment, event, None, out),
            Effect::None(why) => self.log(moment, event, Some(why), out),
            Effect::Raise(_) if self.is_one_too_many(event, &moment.entry.door) => {
                self.log(moment, event, Some(WithoutEffect::AlarmLimit), out);
                return Disposition::AlarmLimit;
            }
            Effect::Raise(severity) => self.raise(moment, key, event, severity, out),
            Effect::Clear if self.heartbeats.has(&key) => self.end_heartbeat(moment, &key, event, out),
            Effect::Clear => match self.find(&key).cloned() {
                None => self.clear_absent(moment, &key, event, out),
                Some(alarm) => self.clear_reported(moment, &alarm, event, out),
            },
            Effect::Heartbeat(_) if self.is_one_heartbeat_too_many(event, &moment.entry.door) => {
                self.log(moment, event, Some(WithoutEffect::HeartbeatLimit), out);
                return Disposition::HeartbeatLimit;
            }
            Effect::Heartbeat(promise) => self.heartbeat(moment, key, event, promise, out),
        }
        Disposition::Applied
    }

    /// The condition holds, in whichever state its alarm is.
    pub(crate) fn raise(&mut self, moment: &Moment<'_>, key: AlarmKey, event: &Event, severity: Severity, out: &mut Output) {
        match self.find(&key).cloned() {
            None => self.raise_new(moment, key, event, severity, out),
            Some(alarm) if alarm.is_active() => self.raise_again(moment, &alarm, event, severity, out),
            Some(alarm) => self.raise_anew(moment, &alarm, event, severity, out),
        }
    }

    /// Whether a raise would begin an episode, and not only be logged, or change one.
    pub(crate) fn would_begin_episode(&self, event: &Event) -> bool {
        let key = self.canonical(&event.key);
        matches!(self.effect(&key, event), Effect::Raise(_)) && !self.find(&key).is_some_and(|alarm| alarm.is_active())
    }

    /// What a report is to do, before it is known in which state its alarm is.
    fn effect(&self, key: &AlarmKey, event: &Event) -> Effect {
        let entry = self.catalogue.get(&key.alarm_type);
        let is_for_ever = entry.is_some_and(|entry| !entry.will_clear && entry.lifetime_s.is_none());
        match event.report {
            Report::Log(_) => Effect::Log,
            // Nobody would ever clear it, unless the reporter says itself when it ends.
            Report::Raise(_) if is_for_ever && event.ends_at.is_none() => Effect::Log,
            _ if self.is_overtaken(key, event) => Effect::None(WithoutEffect::Overtaken),
            Report::Raise(severity) => Effect::Raise(severity),
            Report::Heartbeat { every, severity } => Effect::Heartbeat(Promise { every, severity }),
            Report::Clear if is_for_ever && self.find(key).is_none() && !self.heartbeats.has(key) => {
                Effect::None(WithoutEffect::NeverClears)
            }
            Report::Clear => Effect::Clear,
        }
    }

    /// Whether a newer report of the same alarm was there before.
    fn is_overtaken(&self, key: &AlarmKey, event: &Event) -> bool {
        let of_alarm = match (self.find(key), self.tombstones.get(key)) {
            (Some(alarm), _) => Some((&alarm.engine.order, alarm.last_event_time)),
            (None, Some(tombstone)) => Some((&tombstone.order, tombstone.event_time)),
            (None, None) => None,
        };
        let of_heartbeat = self.heartbeats.get(key).map(|heartbeat| (&heartbeat.order, heartbeat.last_event_time));
        of_alarm.into_iter().chain(of_heartbeat).any(|(order, last_event_time)| {
            match (&event.origin.producer, event.origin.sequence) {
                (Some(producer), Some(sequence)) => {
                    order.iter().any(|mark| mark.producer == *producer && mark.sequence >= sequence)
                }
                _ if event.order_by_event_time => event.event_time < last_event_time,
                _ => false,
            }
        })
    }

    pub(crate) fn log(&mut self, moment: &Moment<'_>, event: &Arc<Event>, why: Option<WithoutEffect>, out: &mut Output) {
        let kind = if why.is_some() { ChangeKind::Late } else { ChangeKind::Logged };
        let catalogued = self.catalogue.get(&event.key.alarm_type).is_some();
        let subject = Subject::Event { event: Arc::clone(event), catalogued, without_effect: why };
        self.emit(moment, Cause::new(kind, &[moment.reason()]), subject, out);
    }

    fn raise_new(&mut self, moment: &Moment<'_>, key: AlarmKey, event: &Event, severity: Severity, out: &mut Output) {
        let number = self.next_number();
        let order = self.exhume(&key, out);
        let alarm = Alarm {
            id: AlarmId::derive(&self.site, number.epoch, number.seq),
            owner: None,
            via: None,
            catalogued: self.catalogue.get(&key.alarm_type).is_some(),
            key,
            severity,
            cleared: None,
            text: event.text.clone(),
            details: Details::default(),
            raise_seq: 0,
            first_raised_at: moment.wall,
            raised_at: moment.wall,
            event_time: event.event_time,
            changed_at: moment.wall,
            last_change: number,
            count: 0,
            last_reported_at: moment.wall,
            last_event_time: None,
            producer: None,
            acknowledged: None,
            assigned: None,
            notes: Vec::new(),
            shelved: None,
            stale: None,
            engine: EngineMarks { order, ..EngineMarks::default() },
        };
        self.begin_episode(moment, alarm, event, severity, out);
    }

    fn raise_anew(&mut self, moment: &Moment<'_>, before: &Alarm, event: &Event, severity: Severity, out: &mut Output) {
        let mut alarm = before.clone();
        alarm.cleared = None;
        alarm.engine.cleared_at = None;
        alarm.acknowledged = None;
        alarm.engine.ordered = alarm.engine.ordered.as_deref().and_then(outliving);
        alarm.catalogued = self.catalogue.get(&alarm.key.alarm_type).is_some();
        // A report that clears says when it was over.
        let said =
            before.last_event_time.filter(|_| before.cleared.as_ref().is_some_and(|cleared| cleared.by == ClearedBy::Report));
        let ended = said.or(before.cleared.as_ref().map(|cleared| cleared.at));
        alarm.event_time = ended.map_or(event.event_time, |ended| began(before, ended, event));
        self.begin_episode(moment, alarm, event, severity, out);
    }

    fn begin_episode(&mut self, moment: &Moment<'_>, mut alarm: Alarm, event: &Event, severity: Severity, out: &mut Output) {
        alarm.severity = severity;
        alarm.raise_seq = alarm.raise_seq.saturating_add(1);
        alarm.raised_at = moment.wall;
        alarm.count = 0;
        self.take_report(moment, &mut alarm, event);
        alarm.text = event.text.clone();
        let mut cause = Cause::new(ChangeKind::Raised, &moment.reasons());
        if alarm.shelved.is_none()
            && let Some(shelf) = self.shelf_for(&alarm)
        {
            alarm.shelved = Some(crate::shelves::shelved_by(shelf));
            cause.reasons.push(Reason::Shelf(shelf.id));
        }
        self.commit(moment, alarm, None, cause, out);
    }

    fn raise_again(&mut self, moment: &Moment<'_>, before: &Alarm, event: &Event, severity: Severity, out: &mut Output) {
        let mut alarm = before.clone();
        self.take_report(moment, &mut alarm, event);
        alarm.severity = severity;
        if !event.text.is_empty() {
            alarm.text = event.text.clone();
        }
        if let Some(end) = before.engine.end {
            alarm.event_time = match event.span {
                SpanRule::Replaces => alarm.event_time,
                SpanRule::Merges | SpanRule::Assumed => began(before, moment.wall_time(end.at), event),
            };
        }
        let refreshed = alarm.stale.take().is_some();
        if severity > before.severity {
            alarm.acknowledged = None;
        }
        let kind = if severity != before.severity {
            ChangeKind::SeverityChanged
        } else if alarm.text != before.text
            || alarm.details != before.details
            || alarm.via != before.via
            || alarm.event_time != before.event_time
        {
            ChangeKind::Updated
        } else if refreshed {
            ChangeKind::Refreshed
        } else {
            return self.touch(alarm, out);
        };
        let previous = (severity != before.severity).then_some(before.severity);
        let mut cause = Cause::new(kind, &moment.reasons());
        cause.reasons.extend(self.follow_labels(before, &mut alarm));
        self.commit(moment, alarm, previous, cause, out);
    }

    /// What every report of an alarm leaves with it.
    fn take_report(&self, moment: &Moment<'_>, alarm: &mut Alarm, event: &Event) {
        alarm.count = alarm.count.saturating_add(1);
        alarm.last_reported_at = moment.wall;
        alarm.last_event_time = event.event_time.or(alarm.last_event_time);
        alarm.producer = event.origin.producer.clone().or_else(|| alarm.producer.take());
        alarm.via = self.via(alarm, event);
        merge(&mut alarm.details, &event.details);
        note_order(&mut alarm.engine.order, event);
        alarm.engine.lease = event.lease.map(|seconds| LeaseMark { seconds, renewed_at: moment.now });
        let assumed = event.span == SpanRule::Assumed;
        let declared = event.ends_at.map(|time| EndMark { at: moment.journal_time(time), by: ClearedBy::EndsAt, assumed });
        let declared = declared.map(|end| match alarm.engine.end {
            Some(before) if event.span != SpanRule::Replaces && !before.assumed => EndMark { at: end.at.max(before.at), ..end },
            _ => end,
        });
        alarm.engine.end = declared.or_else(|| {
            let lifetime = self.catalogue.get(&alarm.key.alarm_type)?.lifetime_s?;
            Some(EndMark { at: moment.now + lifetime.duration(), by: ClearedBy::Lifetime, assumed: false })
        });
    }

    /// The agent by which an alarm is reported. Of several ways of reporting one the first stays while it can be heard: each
    /// repeat would be a change otherwise.
    fn via(&self, alarm: &Alarm, event: &Event) -> Option<ChildName> {
        let is_repeat = alarm.count > 1;
        let is_heard = |via: &ChildName| self.children.get(via).is_some_and(|child| is_heard(child));
        match &alarm.via {
            None if is_repeat => None,
            Some(via) if is_repeat && is_heard(via) => Some(via.clone()),
            _ => event.origin.relay.as_ref().map(|mark| mark.child.clone()),
        }
    }

    fn clear_absent(&mut self, moment: &Moment<'_>, key: &AlarmKey, event: &Arc<Event>, out: &mut Output) {
        self.bury_clear(moment, key, event, &[], out);
        self.log(moment, event, Some(WithoutEffect::NothingToClear), out);
    }

    /// Leaves a tombstone where a clear finds no alarm, if it has an order, or `more` has.
    pub(crate) fn bury_clear(
        &mut self,
        moment: &Moment<'_>,
        key: &AlarmKey,
        event: &Event,
        more: &[OrderMark],
        out: &mut Output,
    ) {
        if event.origin.sequence.is_none() && !event.order_by_event_time && more.is_empty() {
            return;
        }
        let before = self.tombstones.get(key);
        let mut order = before.map(|tombstone| tombstone.order.clone()).unwrap_or_default();
        more.iter().for_each(|mark| note_mark(&mut order, mark.clone()));
        note_order(&mut order, event);
        let opted_in = event.event_time.filter(|_| event.order_by_event_time);
        let event_time = opted_in.max(before.and_then(|tombstone| tombstone.event_time));
        self.bury(key, Tombstone { order, event_time, at: moment.now }, out);
    }

    pub(crate) fn clear_reported(&mut self, moment: &Moment<'_>, before: &Alarm, event: &Event, out: &mut Output) {
        let mut alarm = before.clone();
        note_order(&mut alarm.engine.order, event);
        alarm.last_event_time = event.event_time.or(alarm.last_event_time);
        if !before.is_active() {
            // Told twice: only the order is noted.
            return self.touch(alarm, out);
        }
        if !event.text.is_empty() {
            alarm.text = event.text.clone();
        }
        alarm.last_reported_at = moment.wall;
        let cause = Cause::new(ChangeKind::Cleared, &[moment.reason()]);
        self.clear(moment, alarm, ClearedBy::Report, cause, out);
    }

    /// Ends an episode.
    pub(crate) fn clear(&mut self, moment: &Moment<'_>, mut alarm: Alarm, by: ClearedBy, cause: Cause, out: &mut Output) {
        set_cleared(moment, &mut alarm, by);
        self.commit(moment, alarm, None, cause, out);
    }

    /// The end that was declared, or the lifetime, is over.
    pub(crate) fn end(&mut self, moment: &Moment<'_>, id: AlarmId, out: &mut Output) {
        let Some(alarm) = self.alarms.get(&id).filter(|alarm| alarm.is_active()) else { return };
        let Some(end) = alarm.engine.end else { return };
        let alarm = Alarm::clone(alarm);
        let cause = Cause::new(ChangeKind::Cleared, &[Reason::Timer(end_timer(end.by)), moment.reason()]);
        self.clear(moment, alarm, end.by, cause, out);
    }

    /// The promise to report again was not kept: not heard from is not cleared.
    pub(crate) fn stale(&mut self, moment: &Moment<'_>, id: AlarmId, out: &mut Output) {
        let Some(alarm) = self.alarms.get(&id).filter(|alarm| alarm.is_active()) else { return };
        let mut alarm = Alarm::clone(alarm);
        alarm.stale = Some(Stale { since: moment.wall });
        let cause = Cause::new(ChangeKind::Staled, &[Reason::Timer(Timer::Lease), moment.reason()]);
        self.commit(moment, alarm, None, cause, out);
    }
}

/// What a report is to do.
enum Effect {
    Log,
    Raise(Severity),
    Clear,
    Heartbeat(Promise),
    None(WithoutEffect),
}

/// Makes an alarm cleared.
pub(crate) fn set_cleared(moment: &Moment<'_>, alarm: &mut Alarm, by: ClearedBy) {
    alarm.cleared = Some(Clearance { at: moment.wall, by });
    alarm.stale = None;
    alarm.engine.lease = None;
    alarm.engine.end = None;
    alarm.engine.cleared_at = Some(moment.now);
}

/// When what `event` tells of began, if it was told `before` and ended, or will end, at `end`: with the earlier of two reports whose
/// spans overlap as Alertmanager sees it, if the reporter wants that; else with the later one.
fn began(before: &Alarm, end: Timestamp, event: &Event) -> Option<Timestamp> {
    let (Some(first), Some(start)) = (before.event_time, event.event_time) else { return event.event_time };
    let is_within = |time: Timestamp| time > first && time < end;
    let overlap = is_within(start) || event.ends_at.is_some_and(is_within);
    if event.span != SpanRule::Replaces && overlap { Some(first.min(start)) } else { Some(start) }
}

/// What was ordered of what outlives an episode.
fn outliving(ordered: &Ordered) -> Option<Box<Ordered>> {
    let ordered = Ordered { acknowledge: None, clear: None, ..*ordered };
    (ordered != Ordered::default()).then(|| Box::new(ordered))
}

/// An attribute stays as it was last given.
fn merge(kept: &mut Details, given: &Details) {
    kept.event_type = given.event_type.or(kept.event_type);
    kept.probable_cause = given.probable_cause.clone().or_else(|| kept.probable_cause.take());
    kept.repair_action = given.repair_action.clone().or_else(|| kept.repair_action.take());
    kept.service_affecting = given.service_affecting.or(kept.service_affecting);
    if !given.attributes.is_empty() {
        kept.attributes = given.attributes.clone();
    }
    if !given.labels.is_empty() {
        kept.labels = given.labels.clone();
    }
}

/// Notes the number of a report among its producer's; the producer heard from last stands at the end.
pub(crate) fn note_order(order: &mut Vec<OrderMark>, event: &Event) {
    if let (Some(producer), Some(sequence)) = (&event.origin.producer, event.origin.sequence) {
        note_mark(order, OrderMark { producer: producer.clone(), sequence });
    }
}

/// Notes a mark among those of the other producers, unless its own is newer.
pub(crate) fn note_mark(order: &mut Vec<OrderMark>, new: OrderMark) {
    if order.iter().any(|mark| mark.producer == new.producer && mark.sequence > new.sequence) {
        return;
    }
    order.retain(|mark| mark.producer != new.producer);
    if order.len() >= ORDER_MARKS_MAX {
        order.remove(0);
    }
    order.push(new);
}
