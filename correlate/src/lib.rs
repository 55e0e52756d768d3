//! The engine: from journal entries to changes. Pure: it does no I/O, has no clock, no randomness, and nothing it decides
//! depends on the order of a hash table. The same engine version makes of the same entries the same changes, to the byte.
//!
//! ```text
//! entry ─▶ timers   deadlines at or before the entry fire first
//!       ─▶ admit    has this report come before?            ─▶ duplicate
//!       ─▶ report   raise, update, change severity, clear   ─▶ changes, touched alarms
//!       ─▶ heartbeats  who has promised to be heard from    ─▶ renewed promises; silence raises an alarm
//!       ─▶ action   what operators do                       ─▶ changes, refusals
//!       ─▶ shelves  what a standing shelf does to many alarms, in steps
//!       ─▶ pending  what operators do to alarms of other sites, on its way to them
//!       ─▶ mirror   what sites below send of their alarms    ─▶ their changes, as they are
//!       ─▶ below    what regions say of nodes further below
//!       ─▶ screen   what of that has come before, or is not taken, before it is journalled
//!       ─▶ children what becomes of the nodes below
//! ```
//!
//! It knows no store: whoever runs it commits what is in [`Output`] and, if that fails, builds the engine anew from what was
//! committed.

mod action;
mod admit;
mod aging;
mod below;
mod children;
mod engine;
mod heartbeats;
mod intern;
mod mirror;
mod output;
mod pending;
mod report;
mod screen;
mod shelves;
mod timers;

pub use admit::Screening;
pub use engine::{Engine, TIMERS_PER_ENTRY_MAX};
pub use output::{Disposition, Output, Results};
pub use screen::screen_step;
