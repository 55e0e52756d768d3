//! Who is told of alarms, as the table of receivers shows them.

use std::collections::HashSet;
use std::sync::Arc;

use klaxon_schemas::time::Timestamp;
use klaxon_snmp::{BoxFuture, Value};

use super::cells::{NAME, WORDS};
use super::oids::ReceiverColumn;
use super::snapshot::number_of;
use super::values::{gauge, maybe_text, maybe_time, text};

/// The most octets of the kind of a receiver.
const KIND: usize = 32;

/// What is asked for the receivers, at most once a second.
pub type ReceiversShown = Arc<dyn Fn() -> Vec<ReceiverShown> + Send + Sync>;

/// Has a receiver sent everything from a number on again; fails with the reason.
pub type Resend = Arc<dyn Fn(String, u64) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A receiver as the table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverShown {
    /// Its name.
    pub name: String,
    /// What it is, in a word, e.g. `webhook`.
    pub kind: String,
    /// How it is.
    pub state: ReceiverState,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// How many changes it has not been told of.
    pub lag_changes: u64,
    /// How old the first of them is.
    pub lag_s: u64,
    /// Whose numbering.
    pub epoch: u64,
    /// The last number that was given out.
    pub assigned: u64,
    /// Up to which number all are settled.
    pub confirmed: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How a receiver is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiverState {
    /// Nothing was sent yet.
    Starting = 1,
    /// It takes what it is sent.
    Ok = 2,
    /// It failed, and is tried again.
    Retrying = 3,
    /// It has failed for so long that there is an alarm.
    Unreachable = 4,
}

/// A receiver, and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceiverRow {
    pub(super) index: u32,
    pub(super) shown: ReceiverShown,
}

/// The rows of `shown`, by their number. It is of the name, so it is the same for as long as the name is; of two names that meet,
/// the one that sorts first has it.
pub(super) fn rows(mut shown: Vec<ReceiverShown>) -> Vec<ReceiverRow> {
    shown.sort_by(|one, other| one.name.cmp(&other.name));
    let mut taken = HashSet::new();
    let numbered = shown.into_iter().map(|shown| {
        let index = number_of(&shown.name, |number| taken.insert(number));
        ReceiverRow { index, shown }
    });
    let mut rows: Vec<_> = numbered.collect();
    rows.sort_by_key(|row| row.index);
    rows
}

impl ReceiverRow {
    pub(super) fn cell(&self, column: ReceiverColumn) -> Value {
        let shown = &self.shown;
        match column {
            ReceiverColumn::Index => Value::Gauge32(self.index),
            ReceiverColumn::Name => text(&shown.name, NAME),
            ReceiverColumn::Kind => text(&shown.kind, KIND),
            ReceiverColumn::State => Value::Integer(shown.state as i32),
            ReceiverColumn::Since => maybe_time(shown.since),
            ReceiverColumn::LagChanges => gauge(shown.lag_changes),
            ReceiverColumn::LagSeconds => gauge(shown.lag_s),
            ReceiverColumn::Epoch => Value::Counter64(shown.epoch),
            ReceiverColumn::Assigned => Value::Counter64(shown.assigned),
            ReceiverColumn::Confirmed => Value::Counter64(shown.confirmed),
            ReceiverColumn::LastError => maybe_text(shown.last_error.as_deref(), WORDS),
            // What was set is done, and nothing of it stays.
            ReceiverColumn::ResendFrom => Value::Gauge32(0),
        }
    }
}
