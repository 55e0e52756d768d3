//! What engines are held to that are in more than one place: the settings and the catalogue in force at this node.

use std::sync::{Arc, Mutex, PoisonError};

use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::state::Settings;

/// Settings and catalogue, as they are now.
pub struct Held(Mutex<(u64, Settings, Arc<Catalogue>)>);

impl Held {
    /// At the start.
    pub fn new(settings: Settings, catalogue: Arc<Catalogue>) -> Self {
        Self(Mutex::new((0, settings, catalogue)))
    }

    /// They are others from now on, where one is given.
    pub fn set(&self, settings: Option<Settings>, catalogue: Option<Arc<Catalogue>>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 += 1;
        if let Some(settings) = settings {
            held.1 = settings;
        }
        if let Some(catalogue) = catalogue {
            held.2 = catalogue;
        }
    }

    /// How they are, and a number that is another one when they have changed.
    pub fn get(&self) -> (u64, Settings, Arc<Catalogue>) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (held.0, held.1.clone(), Arc::clone(&held.2))
    }
}
