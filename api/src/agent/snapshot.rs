//! What the tables show, as it was at one position of the journal. A snapshot is never written: whoever walks has one for each
//! request, and the next one shares with it whatever did not change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, ChangeNumber};
use klaxon_schemas::catalogue::{Catalogue, Digest, TypeEntry};
use klaxon_schemas::change::Change;
use klaxon_schemas::ids::{Epoch, Position};
use klaxon_schemas::names::AlarmType;
use klaxon_schemas::time::Timestamp;
use klaxon_store::SeverityCounts;
use sha2::{Digest as _, Sha256};

use super::receivers::ReceiverRow;
use super::sites::SiteRow;
use super::sorted::Sorted;
use super::tree::Key;
use super::values::octets_of_time;

/// What the tables show.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// Up to where the journal is in it.
    pub(super) position: Position,
    /// The numbering of changes.
    pub(super) epoch: Epoch,
    /// The last of them.
    pub(super) last_change: ChangeNumber,
    /// The catalogue in force.
    pub(super) catalogue: Option<Arc<Catalogue>>,
    /// Its types, as RFC 3877 models them.
    pub(super) models: Arc<Models>,
    /// All alarms that are active, by their number.
    pub(super) active: Sorted<u32, Row>,
    /// Those of them that are listed, by when they were raised: what RFC 3877 and StarlingX take for active.
    pub(super) by_time: Sorted<TimeKey, Row>,
    /// The same by their number.
    pub(super) listed: Sorted<u32, Row>,
    /// The last changes.
    pub(super) history: Sorted<u32, Step>,
    /// Those of them that StarlingX would log.
    pub(super) events: Sorted<u32, Step>,
    /// The last ends of alarms that were listed, by when they ended.
    pub(super) ends: Sorted<TimeKey, Row>,
    /// The counts of active alarms, in the order of [`klaxon_schemas::severity::Severity::ALL`].
    pub(super) severities: [SeverityCounts; 5],
    /// How many cleared alarms are kept.
    pub(super) cleared: u64,
    /// The sites, by their number.
    pub(super) sites: Arc<Vec<SiteRow>>,
    /// Who is told, by their number.
    pub(super) receivers: Arc<Vec<ReceiverRow>>,
    /// What is counted since the start.
    pub(super) since_start: SinceStart,
}

impl Snapshot {
    /// Of nothing.
    pub(super) fn empty(epoch: Epoch) -> Self {
        Self {
            position: Position::default(),
            epoch,
            last_change: ChangeNumber::default(),
            catalogue: None,
            models: Arc::default(),
            active: Sorted::default(),
            by_time: Sorted::default(),
            listed: Sorted::default(),
            history: Sorted::default(),
            events: Sorted::default(),
            ends: Sorted::default(),
            severities: [SeverityCounts::default(); 5],
            cleared: 0,
            sites: Arc::default(),
            receivers: Arc::default(),
            since_start: SinceStart::default(),
        }
    }
}

/// An alarm in a table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) alarm: Arc<Alarm>,
    pub(super) index: u32,
    pub(super) suppressed: bool,
    /// Since when nothing is heard of it because a node below is silent.
    pub(super) silent_since: Option<Timestamp>,
}

impl Row {
    /// Whether a list shows it unless asked for more.
    pub(super) fn is_listed(&self) -> bool {
        self.alarm.shelved.is_none() && !self.suppressed
    }
}

/// A change in a table.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) position: Position,
    pub(super) change: Arc<Change>,
}

/// What is counted since the start, or happened at what sysUpTime; 0 if it has not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SinceStart {
    /// How many alarms came to the list, or there to that severity, in the order of [`klaxon_schemas::severity::Severity::ALL`].
    pub(super) raised: [u32; 5],
    /// How many alarms came to the list: raised, or not shelved or suppressed any more.
    pub(super) raises: u32,
    /// When the last was.
    pub(super) last_raise: u32,
    /// When the last was cleared.
    pub(super) last_clear: u32,
    /// When a row came to or went from the active table of RFC 3877.
    pub(super) listed_changed: u32,
    /// When anything about an alarm changed.
    pub(super) changed: u32,
    /// When the models changed.
    pub(super) models_changed: u32,
}

/// alarmListName, DateAndTime and a number: how RFC 3877 finds its rows. There is one list, and it has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimeKey {
    octets: [u8; super::values::DATE_AND_TIME],
    index: u32,
}

impl TimeKey {
    pub(super) fn new(time: Timestamp, index: u32) -> Self {
        Self { octets: octets_of_time(time), index }
    }
}

impl Key for TimeKey {
    fn arcs(&self) -> impl Iterator<Item = u32> {
        let len = u32::try_from(self.octets.len()).expect("is small");
        let time = self.octets.iter().map(|octet| u32::from(*octet));
        [0, len].into_iter().chain(time).chain([self.index])
    }
}

/// The catalogue's types as alarm models (RFC 3877 section 3.1).
#[derive(Debug, Default)]
pub(crate) struct Models {
    /// Of which catalogue.
    pub(super) digest: Option<Digest>,
    /// By their number.
    rows: Vec<Model>,
    numbers: HashMap<AlarmType, u32>,
}

/// The model of the types that the catalogue does not know.
pub(super) const UNKNOWN_MODEL: u32 = 1;

/// One model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) index: u32,
    /// What the catalogue says; nothing of the types that it does not know.
    pub(super) entry: Option<TypeEntry>,
}

impl Models {
    /// Those of a catalogue. A type's number is of its name, so another catalogue does not change it; of two types that meet, the
    /// one whose name sorts first has it.
    pub(crate) fn of(catalogue: &Catalogue) -> Self {
        let mut taken = HashSet::from([UNKNOWN_MODEL]);
        let mut models = Self {
            digest: Some(catalogue.digest().clone()),
            rows: vec![Model { index: UNKNOWN_MODEL, entry: None }],
            numbers: HashMap::new(),
        };
        for entry in catalogue.iter() {
            let index = number_of(&entry.id, |number| taken.insert(number));
            models.numbers.insert(entry.id.clone(), index);
            models.rows.push(Model { index, entry: Some(entry.clone()) });
        }
        models.rows.sort_by_key(|model| model.index);
        models
    }

    /// All, by their number.
    pub(super) fn rows(&self) -> &[Model] {
        &self.rows
    }

    /// The number of the model of an alarm type, if the catalogue's entry for it is `entry`.
    pub(crate) fn number(&self, entry: Option<&TypeEntry>) -> u32 {
        entry.and_then(|entry| self.numbers.get(&entry.id)).copied().unwrap_or(UNKNOWN_MODEL)
    }
}

/// A number of 31 bits that is of `name`, or the next one that `is_free`.
pub(super) fn number_of(name: &str, mut is_free: impl FnMut(u32) -> bool) -> u32 {
    let digest = Sha256::digest(name.as_bytes());
    let mut number = (u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) & 0x7fff_ffff).max(1);
    while !is_free(number) {
        number = if number == 0x7fff_ffff { 1 } else { number + 1 };
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_their_identifiers() {
        let key = |time: &str, index| TimeKey::new(time.parse().expect("is a time"), index);
        let keys = [
            key("1969-12-31T23:59:59.9Z", 9),
            key("2026-11-22T08:27:46.1Z", 8),
            key("2026-11-22T08:27:46.1Z", 300),
            key("2026-11-22T08:27:46.2Z", 1),
            key("2300-01-01T00:00:00Z", 1),
        ];
        assert!(keys.is_sorted());
        assert!(keys.iter().map(|key| key.index().arcs().to_vec()).is_sorted());
        assert_eq!(keys[1].index().arcs(), [0, 11, 7, 234, 11, 22, 8, 27, 46, 1, 43, 0, 0, 8]);
    }

    #[test]
    fn models_have_numbers_of_their_own() {
        let models = Models::of(&Catalogue::built_in());
        let catalogue = Catalogue::built_in();
        assert_eq!(models.rows().len(), catalogue.iter().count() + 1);
        assert!(models.rows().is_sorted_by(|one, other| one.index < other.index));
        for entry in catalogue.iter() {
            let number = models.number(Some(entry));
            assert!(number > UNKNOWN_MODEL, "{}", entry.id);
            let row = models.rows().iter().find(|model| model.index == number).expect("is there");
            assert_eq!(row.entry.as_ref(), Some(entry));
        }
        assert_eq!(models.number(None), UNKNOWN_MODEL);
    }
}
