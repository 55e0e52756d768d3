//! The journal entry. Its place is the frame's, so it is not in the form.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Action, Event, FormError, Relay};
use crate::catalogue::{Catalogue, CatalogueFile, Digest};
use crate::child::ChildFact;
use crate::entry::Started;
use crate::ids::Position;
use crate::names::{Door, Site};
use crate::state::Settings;
use crate::time::{JournalTime, Timestamp};

/// What came in.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Journal time in microseconds.
    pub at: JournalTime,
    /// The wall clock beside it.
    pub wall: Timestamp,
    /// By which way it came.
    pub door: Door,
    /// What came.
    #[serde(flatten)]
    pub kind: EntryKind,
}

/// What can come in: exactly one of these.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A report.
    Event(Box<Event>),
    /// An operator action.
    Action(Box<Action>),
    /// The node started.
    Started(Started),
    /// The wall clock was set.
    ClockStep {
        /// By how many microseconds.
        micros: i64,
    },
    /// A deadline passed.
    Deadline {},
    /// What the engine reads from here on.
    Bundle(CatalogueFile),
    /// What the engine is held to from here on.
    Settings(Settings),
    /// What a site below this one sent of its alarms.
    Relay(Box<Relay>),
    /// What became of a node below this one.
    Child(Box<ChildFact>),
}

impl From<&crate::entry::Entry> for Entry {
    fn from(entry: &crate::entry::Entry) -> Self {
        use crate::entry::EntryKind as Kind;
        let kind = match &entry.kind {
            Kind::Event(event) => EntryKind::Event(Box::new((&**event).into())),
            Kind::Action(action) => EntryKind::Action(Box::new((&**action).into())),
            Kind::Started(started) => EntryKind::Started(started.clone()),
            Kind::ClockStep { micros } => EntryKind::ClockStep { micros: *micros },
            Kind::Deadline => EntryKind::Deadline {},
            Kind::Bundle { catalogue, .. } => EntryKind::Bundle(catalogue.to_file()),
            Kind::Settings(settings) => EntryKind::Settings(settings.clone()),
            Kind::Relay(relay) => EntryKind::Relay(Box::new((&**relay).into())),
            Kind::Child(fact) => EntryKind::Child(Box::new((**fact).clone())),
        };
        Self { at: entry.at, wall: entry.wall, door: entry.door.clone(), kind }
    }
}

impl Entry {
    /// The entry at its place, at `site` where it names none.
    pub fn into_entry(self, position: Position, site: &Site) -> Result<crate::entry::Entry, FormError> {
        use crate::entry::EntryKind as Kind;
        let broken = |field| move |_| FormError::Field { field, reason: "contradicts itself" };
        let kind = match self.kind {
            EntryKind::Event(event) => Kind::Event(Arc::new(event.into_event(site).map_err(broken("event"))?)),
            EntryKind::Action(action) => Kind::Action(Arc::new((*action).try_into().map_err(broken("action"))?)),
            EntryKind::Started(started) => Kind::Started(started),
            EntryKind::ClockStep { micros } => Kind::ClockStep { micros },
            EntryKind::Deadline {} => Kind::Deadline,
            EntryKind::Bundle(file) => {
                let catalogue = Catalogue::try_from(file)
                    .map_err(|_| FormError::Field { field: "bundle", reason: "contradicts itself" })?;
                Kind::Bundle { digest: Digest::clone(catalogue.digest()), catalogue: Arc::new(catalogue) }
            }
            EntryKind::Settings(settings) => Kind::Settings(settings),
            EntryKind::Relay(relay) => Kind::Relay(Arc::new((*relay).try_into()?)),
            EntryKind::Child(fact) => Kind::Child(Arc::new(*fact)),
        };
        Ok(crate::entry::Entry { position, at: self.at, wall: self.wall, door: self.door, kind })
    }
}
