//! Has this report come before? By (producer, epoch, number) in a window of 1024 numbers, and by event id in a bounded set.

use std::collections::HashMap;
use std::time::Duration;

use klaxon_schemas::event::Event;
use klaxon_schemas::names::Producer;
use klaxon_schemas::state::{Novelty, Seen, Settings, StateKey, StateRecord, Window};
use klaxon_schemas::time::JournalTime;

use crate::aging::Aging;
use crate::output::Output;

/// A window's time of use is kept to so much, so that a busy producer does not move in the order with every report.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// What a door may learn before it journals a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screening {
    /// Nothing speaks against it.
    Fresh,
    /// It has come before.
    Duplicate,
    /// Its number is below the window.
    TooOld,
    /// It would raise one alarm more than there may be.
    AlarmLimit,
    /// It would be one promise to be heard from more than there may be.
    HeartbeatLimit,
}

#[derive(Default)]
pub(crate) struct Admission {
    windows: HashMap<Producer, Window>,
    windows_by_use: Aging,
    /// Apart, so that a storm of events pushes no action out.
    events: Aging,
    actions: Aging,
}

impl Admission {
    pub(crate) fn load(&mut self, key: StateKey, record: &StateRecord) {
        match (key, record) {
            (StateKey::Window(producer), StateRecord::Window(window)) => {
                self.windows_by_use.note(StateKey::Window(producer.clone()), window.used_at);
                self.windows.insert(producer, window.clone());
            }
            (key, StateRecord::Seen(seen)) => self.ids(&key).note(key, seen.at),
            _ => {}
        }
    }

    pub(crate) fn novelty(&self, event: &Event) -> Novelty {
        let origin = &event.origin;
        let by_number = match (&origin.producer, origin.sequence) {
            (Some(producer), Some(number)) => {
                self.windows.get(producer).map_or(Novelty::New, |window| window.novelty(number.epoch, number.seq))
            }
            _ => Novelty::New,
        };
        match &origin.event_id {
            // An id that is remembered is certain, a number below the window is not.
            Some(id) if self.has_seen(&StateKey::EventId(origin.producer.clone(), id.clone())) => Novelty::Duplicate,
            _ => by_number,
        }
    }

    pub(crate) fn has_seen(&self, key: &StateKey) -> bool {
        if matches!(key, StateKey::Action(_)) { self.actions.has(key) } else { self.events.has(key) }
    }

    fn ids(&mut self, key: &StateKey) -> &mut Aging {
        if matches!(key, StateKey::Action(_)) { &mut self.actions } else { &mut self.events }
    }

    /// Notes that a new report has come.
    pub(crate) fn note(&mut self, event: &Event, now: JournalTime, out: &mut Output) {
        let origin = &event.origin;
        if let (Some(producer), Some(number)) = (&origin.producer, origin.sequence) {
            let window = self.windows.entry(producer.clone()).or_insert_with(|| Window::new(number.epoch, JournalTime(0)));
            let used_at = if now.since(window.used_at) >= USE_RESOLUTION { now } else { window.used_at };
            if used_at != window.used_at {
                self.windows_by_use.note(StateKey::Window(producer.clone()), used_at);
            }
            window.note(number.epoch, number.seq, used_at);
            out.put(StateKey::Window(producer.clone()), StateRecord::Window(window.clone()));
        }
        if let Some(id) = &origin.event_id {
            self.note_id(StateKey::EventId(origin.producer.clone(), id.clone()), now, out);
        }
    }

    pub(crate) fn note_id(&mut self, key: StateKey, now: JournalTime, out: &mut Output) {
        out.put(key.clone(), StateRecord::Seen(Seen { at: now }));
        self.ids(&key).note(key, now);
    }

    /// Forgets what is too old or too much.
    pub(crate) fn age(&mut self, now: JournalTime, settings: &Settings, out: &mut Output) {
        let lifetime = Duration::from_secs(settings.event_id_lifetime_s);
        for ids in [&mut self.events, &mut self.actions] {
            while let Some(key) = ids.pop(now, Some(lifetime), settings.event_ids_max) {
                out.delete(key);
            }
        }
        while let Some(key) = self.windows_by_use.pop(now, None, settings.producers_max) {
            if let StateKey::Window(producer) = &key {
                self.windows.remove(producer);
            }
            out.delete(key);
        }
    }
}
