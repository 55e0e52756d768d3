//! The engine's keyed records beside the alarms. They are stored as they stand here: a change of one is a change of the
//! stored format, version 1, and must read what was written before.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Token;
use crate::action::ShelfOrder;
use crate::alarm::OrderMark;
use crate::catalogue::{Catalogue, Digest};
use crate::child::{Below, Child, PendingAction};
use crate::entry::Boot;
use crate::event::{AlarmKey, Details, Lease};
use crate::ids::{ActionId, AlarmId, Epoch, Position, Seq};
use crate::names::{Actor, AlarmType, ChildName, EventId, Follower, Producer, Text, TokenName};
use crate::notify::{Delivery, Outbox, Told};
use crate::severity::Severity;
use crate::time::{JournalTime, Timestamp};

/// Names one keyed record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKey {
    /// [`Window`] of a producer.
    Window(Producer),
    /// [`Seen`] of an event id, in its producer's name space.
    EventId(Option<Producer>, EventId),
    /// [`Seen`] of an action.
    Action(ActionId),
    /// [`Tombstone`] of an alarm that is not there.
    Tombstone(AlarmKey),
    /// [`Shelf`].
    Shelf(ActionId),
    /// [`Suppression`] of a type.
    Suppression(AlarmType),
    /// A catalogue.
    Bundle(Digest),
    /// [`Quarantined`] entry.
    Quarantine(Position),
    /// [`Settings`] in force.
    Settings,
    /// [`Followed`]: how far a follower of the changes has come.
    Follower(Follower),
    /// [`Told`]: what a receiver was told of an alarm whose end it was not told.
    Told(Follower, AlarmId),
    /// [`Outbox`]: what the numbers of a receiver from this one on stand for.
    Outbox(Follower, u64),
    /// [`Heartbeat`]: the promise to be heard from, whose breach is this alarm.
    Heartbeat(AlarmKey),
    /// [`Child`]: a node whose uplink ends here.
    Child(ChildName),
    /// [`Below`]: the nodes further below that node, as it says.
    Below(ChildName),
    /// [`PendingAction`]: ordered here for alarms of that node, which has not yet said what became of it.
    Pending(ChildName, ActionId),
    /// [`Token`]: who shows it has its role.
    Token(TokenName),
    /// [`Copied`]: how far a partition of a journal that is kept elsewhere has been copied.
    Partition(u16),
}

/// The record that belongs to a [`StateKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateRecord {
    /// Which numbers of a producer have come.
    Window(Window),
    /// When an id was seen.
    Seen(Seen),
    /// The order of a removed or never raised alarm.
    Tombstone(Tombstone),
    /// A shelf.
    Shelf(Arc<Shelf>),
    /// A suppression.
    Suppression(Arc<Suppression>),
    /// A catalogue.
    Bundle(Arc<Catalogue>),
    /// An entry that was put aside.
    Quarantine(Quarantined),
    /// What the engine is held to.
    Settings(Settings),
    /// How far a follower has come.
    Followed(Followed),
    /// What a receiver was told of an alarm.
    Told(Arc<Told>),
    /// What numbers of a receiver stand for.
    Outbox(Arc<Outbox>),
    /// A promise to be heard from.
    Heartbeat(Arc<Heartbeat>),
    /// A node whose uplink ends here.
    Child(Arc<Child>),
    /// The nodes further below one.
    Below(Arc<Vec<Below>>),
    /// An action on its way down.
    Pending(Arc<PendingAction>),
    /// A token.
    Token(Arc<Token>),
    /// How far a partition has been copied.
    Copied(Copied),
}

/// How many numbers below the highest a producer's [`Window`] remembers.
pub const WINDOW_NUMBERS: u64 = 1024;

/// Which numbers of a producer's epoch have come: the highest, and which of the [`WINDOW_NUMBERS`] up to it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Window {
    /// The producer's epoch.
    pub epoch: u64,
    /// The highest number that came.
    pub highest: u64,
    /// Bit `n % 1024` says whether number `n` came; as hexadecimal words.
    #[serde(with = "bits")]
    #[schema(value_type = String)]
    bits: [u64; 16],
    /// When it was last used; the one used least recently gives way.
    pub used_at: JournalTime,
}

/// What a [`Window`] says of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It has not come yet.
    New,
    /// It has come.
    Duplicate,
    /// It is below the window, or of an earlier epoch: nobody can tell.
    TooOld,
}

impl Window {
    /// A window in which no number has come.
    pub fn new(epoch: u64, used_at: JournalTime) -> Self {
        Self { epoch, highest: 0, bits: [0; 16], used_at }
    }

    /// Whether number `seq` of `epoch` has come.
    pub fn novelty(&self, epoch: u64, seq: u64) -> Novelty {
        match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Greater => Novelty::New,
            std::cmp::Ordering::Less => Novelty::TooOld,
            std::cmp::Ordering::Equal if seq > self.highest => Novelty::New,
            std::cmp::Ordering::Equal if self.highest - seq >= WINDOW_NUMBERS => Novelty::TooOld,
            std::cmp::Ordering::Equal if self.has(seq) => Novelty::Duplicate,
            std::cmp::Ordering::Equal => Novelty::New,
        }
    }

    /// Notes that number `seq` of `epoch` has come; only for one that is [`Novelty::New`].
    pub fn note(&mut self, epoch: u64, seq: u64, at: JournalTime) {
        self.used_at = at;
        if epoch > self.epoch {
            *self = Self::new(epoch, at);
        }
        if seq > self.highest {
            if seq - self.highest >= WINDOW_NUMBERS {
                self.bits = [0; 16];
            } else {
                for skipped in self.highest + 1..seq {
                    self.set(skipped, false);
                }
            }
            self.highest = seq;
        }
        self.set(seq, true);
    }

    fn has(&self, seq: u64) -> bool {
        let bit = seq % WINDOW_NUMBERS;
        self.bits[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    fn set(&mut self, seq: u64, came: bool) {
        let bit = seq % WINDOW_NUMBERS;
        let mask = 1 << (bit % 64);
        if came {
            self.bits[(bit / 64) as usize] |= mask;
        } else {
            self.bits[(bit / 64) as usize] &= !mask;
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window(epoch {}, highest {})", self.epoch, self.highest)
    }
}

mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bits: &[u64; 16], serializer: S) -> Result<S::Ok, S::Error> {
        let text: Vec<String> = bits.iter().map(|word| format!("{word:x}")).collect();
        serializer.serialize_str(&text.join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u64; 16], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bits = [0; 16];
        let mut words = text.split(',');
        for word in &mut bits {
            let hex = words.next().ok_or_else(|| serde::de::Error::custom("has fewer than 16 words"))?;
            *word = u64::from_str_radix(hex, 16).map_err(serde::de::Error::custom)?;
        }
        match words.next() {
            Some(_) => Err(serde::de::Error::custom("has more than 16 words")),
            None => Ok(bits),
        }
    }
}

/// When an id was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// In journal time; it is forgotten a set time later.
    pub at: JournalTime,
}

/// What remains of an alarm that is not there: how far its producers' reports had come. A raise that a clear has overtaken
/// meets it and has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tombstone {
    /// The newest numbered report of each producer.
    pub order: Vec<OrderMark>,
    /// The newest event time of reports that are ordered by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<Timestamp>,
    /// In journal time; it is forgotten a set time later.
    pub at: JournalTime,
}

/// A standing order to shelve what matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shelf {
    /// The action that put it up.
    pub id: ActionId,
    /// Who did.
    pub by: Actor,
    /// When, by the owner's wall clock.
    pub at: Timestamp,
    /// Which alarms, until when by the wall clock of that time, and why.
    #[serde(flatten)]
    pub order: ShelfOrder,
    /// When it ends, in journal time.
    pub ends_at: JournalTime,
    /// How far it is.
    pub phase: ShelfPhase,
    /// When it begins, in journal time, as long as it has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_at: Option<JournalTime>,
    /// When its order was last amended, by the owner's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amended_at: Option<Timestamp>,
    /// When it ended, by the owner's wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When it is forgotten, in journal time: it has ended, holds nothing any more, and is only shown to those who ask what there was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten_at: Option<JournalTime>,
}

impl Shelf {
    /// Whether something is still to be done to alarms.
    pub fn is_working(&self) -> bool {
        self.phase != ShelfPhase::Standing && self.forgotten_at.is_none()
    }

    /// Whether it takes what it matches.
    pub fn is_taking(&self) -> bool {
        self.phase != ShelfPhase::Emptying && self.begins_at.is_none()
    }
}

/// How far a shelf is. What it does to many alarms is done in steps, which a restart goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShelfPhase {
    /// What was active when it was put up is being shelved.
    Filling,
    /// It takes what is raised.
    Standing,
    /// It has ended, and what it shelved is being unshelved.
    Emptying,
}

/// A type is suppressed: its alarms are kept and counted, hidden unless asked for, and notify nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suppression {
    /// Who did it.
    pub by: Actor,
    /// When, by the owner's wall clock.
    pub at: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
}

/// The promise of a reporter to be heard from again and again. It stands until a clear or a retire ends it; while it is
/// broken its alarm is raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// How long it may be silent, in seconds.
    pub every_s: Lease,
    /// The severity with which silence raises the alarm.
    pub severity: Severity,
    /// What it is that reports, in its own words.
    pub text: Text,
    /// What the alarm says beyond the text.
    #[serde(default)]
    pub details: Details,
    /// Who reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
    /// When it was heard from last, by the owner's wall clock.
    pub last_heard_at: Timestamp,
    /// The reporter's claim in the last heartbeat that made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_time: Option<Timestamp>,
    /// When it was heard from last, in journal time: the lease runs from there, or from the last start.
    pub renewed_at: JournalTime,
    /// Since when it has been silent for too long, by the owner's wall clock; no deadline runs until it is heard from again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
    /// The newest numbered heartbeat of each producer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<OrderMark>,
}

impl Heartbeat {
    /// When silence will be too long, given the last start of the node: nobody could be heard while it was away.
    pub fn due(&self, started_at: JournalTime) -> Option<JournalTime> {
        self.lost_at.is_none().then(|| self.renewed_at.max(started_at) + self.every_s.duration())
    }
}

/// An entry on which the engine broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// How it broke.
    pub failure: Text,
    /// When, by the owner's wall clock.
    pub at: Timestamp,
}

/// What the engine is held to: it comes in as an entry, because it decides with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Settings {
    /// Seconds after which a cleared alarm is purged.
    pub purge_cleared_after_s: u64,
    /// How many cleared alarms are kept; the one cleared first gives way.
    pub cleared_max: usize,
    /// How many alarms may be active.
    pub active_alarms_max: usize,
    /// Seconds for which the order of an alarm that is not there is remembered.
    pub tombstone_lifetime_s: u64,
    /// How many such are remembered.
    pub tombstones_max: usize,
    /// Seconds for which event and action ids are remembered.
    pub event_id_lifetime_s: u64,
    /// How many ids are remembered.
    pub event_ids_max: usize,
    /// How many producers' numbering is remembered; the one heard from least recently gives way.
    pub producers_max: usize,
    /// How many shelves may stand.
    pub shelves_max: usize,
    /// How many types may be suppressed.
    pub suppressions_max: usize,
    /// How many reporters may promise to be heard from.
    pub heartbeats_max: usize,
    /// How many nodes may have their uplink end here.
    pub children_max: usize,
    /// How many actions may be on their way to one of them.
    pub pending_actions_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            purge_cleared_after_s: 24 * 3600,
            cleared_max: 20_000,
            active_alarms_max: 200_000,
            tombstone_lifetime_s: 3600,
            tombstones_max: 10_000,
            event_id_lifetime_s: 24 * 3600,
            event_ids_max: 100_000,
            producers_max: 10_000,
            shelves_max: 256,
            suppressions_max: 1_000,
            heartbeats_max: 10_000,
            children_max: 10_000,
            pending_actions_max: 1_000,
        }
    }
}

/// The most followers whose cursors are kept.
pub const FOLLOWERS_MAX: usize = 4096;

/// How far a follower of the changes has come. The engine has no part in it; retention by age waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Followed {
    /// It needs nothing at or before this position any more.
    pub position: Position,
    /// How far the delivery is, if the follower is a receiver of notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Box<Delivery>>,
}

/// How far a partition of a journal that is kept elsewhere has been copied. The engine has no part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Copied {
    /// The first record of the changes that is not here.
    pub changes: i64,
    /// The first record of the state that is not here.
    pub state: i64,
    /// The first record of what came in that has no effect here yet.
    pub next: i64,
    /// The journal time of what came in last of what has.
    pub at: JournalTime,
}

/// How far the engine has come, and the numbers it goes on with. One stands at the end of every frame that has results.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Cursor {
    /// The last entry that was applied.
    pub applied: Position,
    /// The journal time of that entry.
    pub at: JournalTime,
    /// The numbering that changes are in.
    pub epoch: Epoch,
    /// The number of the last change.
    pub last_seq: Seq,
    /// How many changes of other sites have come in so far.
    #[serde(default, skip_serializing_if = "crate::child::is_zero")]
    pub mirrored: u64,
    /// The journal time of the last start: leases run from there at the earliest.
    pub started_at: JournalTime,
    /// The wall clock at the last entry.
    #[serde(default)]
    pub wall: Timestamp,
    /// The machine's boot at the last start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// The catalogue that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_window_tells_new_from_duplicate_from_too_old() {
        let mut window = Window::new(1, JournalTime(0));
        assert_eq!(window.novelty(1, 5), Novelty::New);
        window.note(1, 5, JournalTime(0));
        assert_eq!(window.novelty(1, 5), Novelty::Duplicate);
        assert_eq!(window.novelty(1, 4), Novelty::New);
        window.note(1, 1029, JournalTime(0));
        assert_eq!(window.novelty(1, 5), Novelty::TooOld);
        assert_eq!(window.novelty(1, 6), Novelty::New);
        assert_eq!(window.novelty(0, 2000), Novelty::TooOld);
        assert_eq!(window.novelty(2, 1), Novelty::New);
        window.note(2, 1, JournalTime(0));
        assert_eq!(window.novelty(1, 1030), Novelty::TooOld);
    }

    proptest! {
        #[test]
        fn a_window_agrees_with_a_set(numbers in prop::collection::vec(1u64..6000, 1..300)) {
            let mut window = Window::new(7, JournalTime(0));
            let mut came = HashSet::new();
            for number in numbers {
                let novelty = window.novelty(7, number);
                if number + WINDOW_NUMBERS <= window.highest {
                    prop_assert_eq!(novelty, Novelty::TooOld);
                    continue;
                }
                prop_assert_eq!(novelty == Novelty::New, came.insert(number));
                if novelty == Novelty::New {
                    window.note(7, number, JournalTime(0));
                }
                let stored = serde_json::to_string(&window).expect("serializes");
                prop_assert_eq!(&serde_json::from_str::<Window>(&stored).expect("reads"), &window);
            }
        }
    }
}
