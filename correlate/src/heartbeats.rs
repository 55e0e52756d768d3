//! Who has promised to be heard from: silence is an alarm.
//!
//! ```text
//!                 heartbeat             lease over: the alarm is raised
//!  (no promise) ────────────▶   kept  ──────────────────────────────────▶  lost
//!     ▲   ▲                    │  ▲ ▲                                       │ │
//!     │   │          heartbeat └──┘ └─── heartbeat: the alarm is cleared ───┘ │
//!     │   └─ clear, retire ────┘                                              │
//!     └───── clear, retire ───────────────────────────────────────────────────┘
//! ```
//!
//! * The lease runs from the last heartbeat, or from the last start of the node, because nobody could be heard while it was away.
//! * A heartbeat that only renews the promise is no change. One that begins a promise, or says another lease or severity, is a
//!   log event, and so is the end of a promise whose alarm is not raised: who is watched, and how, stands in history.
//! * While a promise is lost no deadline runs. So what an operator clears stays cleared until a heartbeat is missed anew.
//! * Silence raises also where as many alarms are active as there may be: the promise was accepted, and there are only so many.

use std::collections::HashMap;
use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, ClearedBy};
use klaxon_schemas::change::{ChangeKind, Timer};
use klaxon_schemas::event::{AlarmKey, Event, Lease, Origin, Report};
use klaxon_schemas::names::Text;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Heartbeat, StateKey, StateRecord};

use crate::engine::{Cause, Engine, Moment, NODE_DOOR};
use crate::output::Output;
use crate::report::{note_mark, note_order};

/// The promises by the alarm that their breach is.
#[derive(Default)]
pub(crate) struct Heartbeats(HashMap<Arc<AlarmKey>, Arc<Heartbeat>>);

/// What a heartbeat promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) every: Lease,
    pub(crate) severity: Severity,
}

impl Heartbeats {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn has(&self, key: &AlarmKey) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn get(&self, key: &AlarmKey) -> Option<&Arc<Heartbeat>> {
        self.0.get(key)
    }

    /// In no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<AlarmKey>, &Arc<Heartbeat>)> {
        self.0.iter()
    }

    pub(crate) fn put(&mut self, key: Arc<AlarmKey>, heartbeat: Arc<Heartbeat>) {
        self.0.insert(key, heartbeat);
    }

    fn take(&mut self, key: &AlarmKey) -> Option<(Arc<AlarmKey>, Arc<Heartbeat>)> {
        self.0.remove_entry(key)
    }
}

impl Engine {
    /// Whether `event` would be one promise more than there may be.
    pub(crate) fn is_one_heartbeat_too_many(&self, event: &Event, door: &str) -> bool {
        matches!(event.report, Report::Heartbeat { .. })
            && self.heartbeats.len() >= self.settings.heartbeats_max
            && door != NODE_DOOR
            && !self.heartbeats.has(&self.canonical(&event.key))
    }

    /// Begins a promise or renews it; what silence has raised is over.
    pub(crate) fn heartbeat(
        &mut self,
        moment: &Moment<'_>,
        key: AlarmKey,
        event: &Arc<Event>,
        promise: Promise,
        out: &mut Output,
    ) {
        let before = self.take_heartbeat(&key);
        let (key, before) = match before {
            Some((key, before)) => (key, Some(before)),
            None => (Arc::new(key), None),
        };
        let mut order = before.as_ref().map(|before| before.order.clone()).unwrap_or_default();
        note_order(&mut order, event);
        let heartbeat = Heartbeat {
            every_s: promise.every,
            severity: promise.severity,
            text: event.text.clone(),
            details: event.details.clone(),
            producer: event.origin.producer.clone(),
            last_heard_at: moment.wall,
            last_event_time: event.event_time.or(before.as_ref().and_then(|before| before.last_event_time)),
            renewed_at: moment.now,
            lost_at: None,
            order,
        };
        self.put_heartbeat(Arc::clone(&key), heartbeat, out);
        if let Some(alarm) = self.find(&key).filter(|alarm| alarm.is_active()).cloned() {
            let mut alarm = Alarm::clone(&alarm);
            alarm.last_event_time = event.event_time.or(alarm.last_event_time);
            alarm.last_reported_at = moment.wall;
            note_order(&mut alarm.engine.order, event);
            self.clear(moment, alarm, ClearedBy::Report, Cause::new(ChangeKind::Cleared, &[moment.reason()]), out);
        }
        if before.is_none_or(|before| (before.every_s, before.severity) != (promise.every, promise.severity)) {
            self.log(moment, event, None, out);
        }
    }

    /// The promise was broken.
    pub(crate) fn silence(&mut self, moment: &Moment<'_>, key: &Arc<AlarmKey>, out: &mut Output) {
        let Some(heartbeat) = self.lose_heartbeat(moment, key, out) else { return };
        let words = if heartbeat.text.is_empty() { String::new() } else { format!(": {}", heartbeat.text) };
        let said = format!("No heartbeat within {}, the last came at {}{words}", heartbeat.every_s, heartbeat.last_heard_at);
        let text = Text::lossy(&said).expect("may be empty");
        let report = Event {
            details: heartbeat.details.clone(),
            origin: Origin { producer: heartbeat.producer.clone(), ..Origin::default() },
            ..Event::new(AlarmKey::clone(key), Report::Raise(heartbeat.severity), text)
        };
        let moment = Moment { timer: Some(Timer::Heartbeat), ..*moment };
        self.raise(&moment, AlarmKey::clone(key), &report, heartbeat.severity, out);
    }

    /// Notes that the promise was broken. No deadline of it runs until the next heartbeat.
    pub(crate) fn lose_heartbeat(&mut self, moment: &Moment<'_>, key: &AlarmKey, out: &mut Output) -> Option<Arc<Heartbeat>> {
        let (key, before) = self.take_heartbeat(key)?;
        let lost = Heartbeat { lost_at: Some(moment.wall), ..Heartbeat::clone(&before) };
        self.put_heartbeat(key, lost, out);
        Some(before)
    }

    /// A report ends the promise, and clears the alarm if it is raised.
    pub(crate) fn end_heartbeat(&mut self, moment: &Moment<'_>, key: &AlarmKey, event: &Arc<Event>, out: &mut Output) {
        let Some(ended) = self.forget_heartbeat(key, out) else { return };
        let Some(alarm) = self.find(key).cloned() else {
            // A heartbeat that this has overtaken must find its order.
            self.bury_clear(moment, key, event, &ended.order, out);
            return self.log(moment, event, None, out);
        };
        let mut with_order = Alarm::clone(&alarm);
        ended.order.iter().for_each(|mark| note_mark(&mut with_order.engine.order, mark.clone()));
        self.clear_reported(moment, &with_order, event, out);
        if !alarm.is_active() {
            self.log(moment, event, None, out);
        }
    }

    /// Ends the promise that goes with `alarm`, which is about to be forgotten and keeps its order.
    pub(crate) fn break_off_heartbeat(&mut self, alarm: &mut Alarm, out: &mut Output) {
        if let Some(ended) = self.forget_heartbeat(&alarm.key, out) {
            ended.order.iter().for_each(|mark| note_mark(&mut alarm.engine.order, mark.clone()));
            self.replace_quietly(alarm.clone());
        }
    }

    fn forget_heartbeat(&mut self, key: &AlarmKey, out: &mut Output) -> Option<Arc<Heartbeat>> {
        let (key, heartbeat) = self.take_heartbeat(key)?;
        out.delete(StateKey::Heartbeat(AlarmKey::clone(&key)));
        Some(heartbeat)
    }

    fn take_heartbeat(&mut self, key: &AlarmKey) -> Option<(Arc<AlarmKey>, Arc<Heartbeat>)> {
        let (key, heartbeat) = self.heartbeats.take(key)?;
        self.timers.remove_heartbeat(&key, &heartbeat, self.cursor.started_at);
        Some((key, heartbeat))
    }

    fn put_heartbeat(&mut self, key: Arc<AlarmKey>, heartbeat: Heartbeat, out: &mut Output) {
        let heartbeat = Arc::new(heartbeat);
        self.timers.add_heartbeat(&key, &heartbeat, self.cursor.started_at);
        out.put(StateKey::Heartbeat(AlarmKey::clone(&key)), StateRecord::Heartbeat(Arc::clone(&heartbeat)));
        self.heartbeats.put(key, heartbeat);
    }
}
