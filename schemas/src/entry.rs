//! The journal entry: the one door. Whatever can change an alarm reaches the engine as one of these.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::action::Action;
use crate::catalogue::{Catalogue, Digest};
use crate::child::{ChildFact, Relay};
use crate::event::Event;
use crate::ids::{Epoch, Position};
use crate::names::Door;
use crate::state::Settings;
use crate::time::{JournalTime, Timestamp};

/// The most bytes an entry may have in its wire form.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;
/// The most bytes the entry of a [`Relay`] may have.
pub const RELAY_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes a bundle's entry may have.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One entry, at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the journal.
    pub position: Position,
    /// The journal's time: never earlier than that of the entry before it.
    pub at: JournalTime,
    /// The wall clock beside it (for an event: `received_at`).
    pub wall: Timestamp,
    /// By which way it came.
    pub door: Door,
    /// What came.
    pub kind: EntryKind,
}

/// What can come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A report.
    Event(Arc<Event>),
    /// An operator action.
    Action(Arc<Action>),
    /// The node started: leases run anew from here.
    Started(Started),
    /// The wall clock was set. Expires nothing.
    ClockStep {
        /// By how many microseconds, backwards if negative.
        micros: i64,
    },
    /// A deadline passed while nothing came in.
    Deadline,
    /// What the engine reads from here on.
    Bundle {
        /// Names the content.
        digest: Digest,
        /// The content.
        catalogue: Arc<Catalogue>,
    },
    /// What the engine is held to from here on.
    Settings(Settings),
    /// What a site below this one sent of its alarms.
    Relay(Arc<Relay>),
    /// What became of a node below this one.
    Child(Arc<ChildFact>),
}

/// A start of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// The program's version.
    pub version: String,
    /// The numbering of changes from here on.
    pub epoch: Epoch,
    /// Why the numbering is a new one, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_epoch: Option<NewEpoch>,
    /// The machine's boot, so that the time until a restart within it is known without the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
}

/// A moment within one boot of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Boot {
    /// The kernel's name for the boot.
    pub id: String,
    /// Microseconds of CLOCK_BOOTTIME at that moment.
    pub elapsed_us: u64,
}

/// Why a numbering begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NewEpoch {
    /// The store is new.
    FirstStart,
    /// The store was restored from a backup.
    Restored,
    /// The journal ends before what was known to be written.
    TailMissing,
    /// The node that its uplink goes to knows other changes under the same numbers: this is a copy, or went back in time.
    Diverged,
}
