//! What a receiver is told: pure decisions over its filter, what it was told, and a change or how an alarm stands.
//!
//! ```text
//!                    passes: raised                 passes: changed
//!  not told ──────────────────────────▶ told ◀──────────────────────┐
//!     ▲                                  │ └────────────────────────┘
//!     │ cleared, retired                 │ passes no more: left
//!     ├──────────────────────────────────┤
//!     │ cleared, retired                 ▼
//!     └──────────────────────────────── left ── passes again: raised ──▶ told
//! ```
//!
//! The end of what was told is told whatever the filter says. A purge is told to nobody: it is of what was cleared before.

use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, Clearance, ClearedBy, EngineMarks};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::event::{AlarmKey, Report};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::Text;
use klaxon_schemas::notify::{How, Realign, Told, condition_sum};
use klaxon_schemas::time::Timestamp;

use super::{Filter, ReceiverConfig};

/// By what it is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) filter: Filter,
    pub(super) updates: bool,
    pub(super) log_events: bool,
}

impl From<&ReceiverConfig> for Rules {
    fn from(config: &ReceiverConfig) -> Self {
        Self { filter: config.filter.clone(), updates: config.updates, log_events: config.log_events }
    }
}

/// What follows for the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Silent,
    /// Nothing is told, and what was told is forgotten.
    Forget,
    /// It is told.
    Tell(How),
}

impl Rules {
    /// What follows from a change of an alarm, given what was told of it.
    ///
    /// Numbers are of the alarm's owner and begin anew; what is known already is told by the place in this node's journal.
    pub(super) fn judge(
        &self,
        told: Option<&Told>,
        (at, change): (Position, &Change),
        alarm: &Alarm,
        suppressed: bool,
    ) -> Verdict {
        let is_known = |told: &Told| told.seen.map_or(change.number <= told.number, |seen| at <= seen);
        if change.past || told.is_some_and(is_known) {
            return Verdict::Silent;
        }
        let ended = |how| if told.is_some() { Verdict::Tell(how) } else { Verdict::Silent };
        match change.kind {
            ChangeKind::Purged if told.is_some() => Verdict::Forget,
            ChangeKind::Purged | ChangeKind::Pending => Verdict::Silent,
            ChangeKind::Retired => ended(How::Retired),
            _ if !alarm.is_active() => ended(How::Cleared),
            kind => match self.stand(told, alarm, suppressed) {
                Some(How::Changed)
                    if kind == ChangeKind::Realigned && told.is_some_and(|told| told.severity == alarm.severity) =>
                {
                    Verdict::Silent
                }
                Some(How::Raised | How::Changed) if is_update(kind) && !self.updates => Verdict::Silent,
                Some(how) => Verdict::Tell(how),
                None => Verdict::Silent,
            },
        }
    }

    /// What follows from how an alarm stands (nothing, if it is there no more), given what was told of it.
    pub(super) fn compare(&self, told: Option<&Told>, alarm: Option<&Alarm>, suppressed: bool, mode: Realign) -> Verdict {
        match (told, alarm.filter(|alarm| alarm.is_active())) {
            (None, None) => Verdict::Silent,
            // The journal has yet to say how it ended.
            (Some(_), None) if mode == Realign::Standing => Verdict::Silent,
            (Some(_), None) if alarm.is_none() => Verdict::Tell(How::Retired),
            (Some(_), None) => Verdict::Tell(How::Cleared),
            (told, Some(alarm)) => match self.stand(told, alarm, suppressed) {
                Some(How::Changed) if mode == Realign::Standing => Verdict::Silent,
                Some(How::Changed) if told.is_some_and(|told| self.is_as_told(told, alarm)) => Verdict::Silent,
                Some(how) => Verdict::Tell(how),
                None => Verdict::Silent,
            },
        }
    }

    /// Whether a log event is told.
    pub(super) fn logs(&self, change: &Change, suppressed: bool) -> bool {
        let Subject::Event { event, .. } = &change.subject else { return false };
        let Report::Log(severity) = event.report else { return false };
        self.log_events
            && !change.past
            && change.kind == ChangeKind::Logged
            && (self.filter.suppressed || !suppressed)
            && self.filter.picks(&event.key, severity)
    }

    /// Whether what was told of an alarm still says all that the receiver is told.
    fn is_as_told(&self, told: &Told, alarm: &Alarm) -> bool {
        // The owner of a mirrored alarm may have gone back in time.
        let is_same = if alarm.is_mirrored() { told.number == alarm.last_change } else { told.number >= alarm.last_change };
        is_same || (!self.updates && told.said == condition_sum(alarm))
    }

    /// How an active alarm stands for the receiver, if it is a thing to tell.
    fn stand(&self, told: Option<&Told>, alarm: &Alarm, suppressed: bool) -> Option<How> {
        let told = told.filter(|told| !told.left);
        match (told, self.filter.passes(alarm, suppressed)) {
            (None, false) => None,
            (None, true) => Some(How::Raised),
            (Some(_), false) => Some(How::Left),
            (Some(told), true) if told.raise_seq != alarm.raise_seq => Some(How::Raised),
            (Some(_), true) => Some(How::Changed),
        }
    }
}

/// Whether it is about what people and reporters do, and not about the condition.
pub(super) fn is_update(kind: ChangeKind) -> bool {
    matches!(
        kind,
        ChangeKind::Acknowledged
            | ChangeKind::Unacknowledged
            | ChangeKind::Assigned
            | ChangeKind::Noted
            | ChangeKind::Staled
            | ChangeKind::Refreshed
    )
}

/// What is kept of what was told, as of a place of the journal; nothing, if it was the end.
pub(super) fn told_of(how: How, alarm: &Alarm, seen: Position) -> Option<Arc<Told>> {
    match how {
        How::Cleared | How::Retired => None,
        How::Raised | How::Changed | How::Left => Some(Arc::new(Told {
            key: (&alarm.key).into(),
            raise_seq: alarm.raise_seq,
            severity: alarm.severity,
            number: alarm.last_change,
            seen: Some(seen),
            raised_at: alarm.raised_at,
            said: condition_sum(alarm),
            left: how == How::Left,
        })),
    }
}

/// As much of an alarm as was told, for its end when nothing else is left of it. When it ended nobody knows: it is said to be
/// when that was found.
pub(super) fn remains(id: AlarmId, told: &Told, found: Timestamp) -> Alarm {
    Alarm {
        id,
        key: AlarmKey::from(&told.key),
        owner: None,
        via: None,
        catalogued: false,
        severity: told.severity,
        cleared: Some(Clearance { at: found, by: ClearedBy::Report }),
        text: Text::new("").expect("may be empty"),
        details: Default::default(),
        raise_seq: told.raise_seq,
        first_raised_at: told.raised_at,
        raised_at: told.raised_at,
        event_time: None,
        changed_at: found,
        last_change: told.number,
        count: 1,
        last_reported_at: told.raised_at,
        last_event_time: None,
        producer: None,
        acknowledged: None,
        assigned: None,
        notes: Vec::new(),
        shelved: None,
        stale: None,
        engine: EngineMarks::default(),
    }
}
