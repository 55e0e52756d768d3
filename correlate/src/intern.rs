//! Equal texts are held once: types, sites, producers and many messages recur on thousands of alarms.

use std::collections::HashSet;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::names::{Name, Rule};

/// Below so many texts nothing is thrown away.
const TEXTS_MIN: usize = 4096;

#[derive(Default)]
pub(crate) struct Interner {
    texts: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Interner {
    /// Lets `alarm` share its recurring texts with those seen before.
    pub(crate) fn alarm(&mut self, alarm: &mut Alarm) {
        self.name(&mut alarm.key.site);
        self.name(&mut alarm.key.alarm_type);
        self.name(&mut alarm.key.qualifier);
        self.name(&mut alarm.text);
        if let Some(producer) = &mut alarm.producer {
            self.name(producer);
        }
    }

    fn name<R: Rule>(&mut self, name: &mut Name<R>) {
        match self.texts.get(name.as_str()) {
            Some(held) => *name = name.with_shared(held),
            None => {
                self.sweep();
                self.texts.insert(Arc::clone(name.shared()));
            }
        }
    }

    /// Throws away what nobody else holds any more, whenever the number of texts has doubled.
    fn sweep(&mut self) {
        if self.texts.len() >= self.sweep_at.max(TEXTS_MIN) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = self.texts.len() * 2;
        }
    }
}
