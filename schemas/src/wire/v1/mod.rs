//! Version 1.
//!
//! A reader ignores fields it does not know, so a newer writer may add some; a field never changes its meaning. Times are
//! RFC 3339, except journal time, which is a number of microseconds.

mod action;
mod alarm;
mod change;
mod collector;
mod entry;
mod event;
mod notification;
mod relay;
pub mod schema;
mod state;
pub mod uplink;

pub use action::{Action, ActionOrder};
pub use alarm::Alarm;
pub use change::{Change, ChangeSubject};
pub use collector::{Collector, CollectorState, Reading};
pub use entry::{Entry, EntryKind};
pub use event::{Event, EventKind, InputError, PerceivedSeverity, SILENCE_SEVERITY, parse_event};
pub use notification::{NOTIFICATIONS_VERSION, Notification, Notifications, Notified, Step};
pub use relay::{Relay, RelayContent};
pub use state::{StatePut, Touched, state_key, state_key_text};

/// A stored form that this program cannot read, though its checksum is right.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// Not JSON of the form, or a value outside its bounds.
    #[error("is not of the form that was expected")]
    Json(#[from] serde_json::Error),
    /// A field that the form needs is missing or contradicts another.
    #[error("{field} {reason}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}
