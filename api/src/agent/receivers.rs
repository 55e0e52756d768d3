//! Who is told of alarms, as the table of receivers shows them.

use std::collections::HashSet;
use std::sync::Arc;

use klaxon_schemas::names::Follower;
use klaxon_snmp::{BoxFuture, Value};

use super::cells::{NAME, WORDS};
use super::oids::ReceiverColumn;
use super::snapshot::number_of;
use super::values::{gauge, maybe_text, maybe_time, text};
use crate::notify::{ReceiverShown, ReceiverState};

/// The most octets of the kind of a receiver.
const KIND: usize = 32;

/// What is asked for the receivers, at most once a second.
pub type ReceiversShown = Arc<dyn Fn() -> Vec<ReceiverShown> + Send + Sync>;

/// Has a receiver sent everything from a number on again; fails with the reason.
pub type Resend = Arc<dyn Fn(Follower, u64) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

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
            ReceiverColumn::Kind => text(shown.kind, KIND),
            ReceiverColumn::State => Value::Integer(state(shown.state)),
            ReceiverColumn::Since => maybe_time(Some(shown.since)),
            ReceiverColumn::LagChanges => gauge(shown.lag_changes),
            ReceiverColumn::LagSeconds => gauge(shown.lag_s),
            ReceiverColumn::Epoch => Value::Counter64(shown.epoch.0),
            ReceiverColumn::Assigned => Value::Counter64(shown.assigned),
            ReceiverColumn::Confirmed => Value::Counter64(shown.confirmed),
            ReceiverColumn::LastError => maybe_text(shown.last_error.as_deref(), WORDS),
            // What was set is done, and nothing of it stays.
            ReceiverColumn::ResendFrom => Value::Gauge32(0),
        }
    }
}

/// klaxonReceiverState.
fn state(state: ReceiverState) -> i32 {
    match state {
        ReceiverState::Starting => 1,
        ReceiverState::Ok => 2,
        ReceiverState::Retrying => 3,
        ReceiverState::Unreachable => 4,
    }
}
