//! Folding: a backlog that nobody could be told of becomes one line.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::ids::{AlarmId, Position};
use klaxon_schemas::names::{AlarmType, Text};
use klaxon_schemas::notify::{DIGEST_NAMED_MAX, Digest, DigestAlarm, SeverityCount};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;

use super::plan::{Rules, is_update};

/// The most bytes of an alarm's text in a digest.
const TEXT_BYTES_MAX: usize = 256;

/// A backlog, as far as it was looked at.
#[derive(Debug)]
pub(super) struct Fold {
    from: Position,
    changes: u64,
    logged: u64,
    came_and_went: u64,
    by_severity: [u64; 5],
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    named: Vec<DigestAlarm>,
    /// Episodes that began in it and stand; as many as there are active alarms at most.
    open: HashMap<AlarmId, Option<Severity>>,
}

impl Fold {
    /// A backlog that begins at `from`.
    pub(super) fn new(from: Position) -> Self {
        Self {
            from,
            changes: 0,
            logged: 0,
            came_and_went: 0,
            by_severity: [0; 5],
            first_at: None,
            last_at: None,
            named: Vec::new(),
            open: HashMap::new(),
        }
    }

    /// Looks at one change. `is_told` says whether the receiver was told of the alarm before the backlog.
    pub(super) fn look(
        &mut self,
        rules: &Rules,
        change: &Change,
        suppressed: impl Fn(&AlarmType) -> bool,
        is_told: impl Fn(AlarmId) -> bool,
    ) {
        match &change.subject {
            Subject::Alarm { alarm, .. } => {
                let passes = rules.filter.passes(alarm, suppressed(&alarm.key.alarm_type));
                self.look_at_alarm(rules, change, alarm, passes, is_told(alarm.id));
            }
            Subject::Event { event, .. } if rules.logs(change, suppressed(&event.key.alarm_type)) => {
                self.logged += 1;
                self.count(change);
            }
            _ => {}
        }
    }

    fn look_at_alarm(&mut self, rules: &Rules, change: &Change, alarm: &Alarm, passes: bool, is_told: bool) {
        if change.past || matches!(change.kind, ChangeKind::Purged | ChangeKind::Pending) {
            return;
        }
        if change.kind == ChangeKind::Raised {
            self.open.insert(alarm.id, None);
        }
        let mut seen = is_told;
        if let Some(highest) = self.open.get_mut(&alarm.id) {
            if passes {
                *highest = (*highest).max(Some(alarm.severity));
            }
            seen |= highest.is_some();
        }
        let is_over = !alarm.is_active() || change.kind == ChangeKind::Retired;
        if (passes || seen) && (rules.updates || !is_update(change.kind)) {
            self.count(change);
        }
        if is_over && let Some(Some(severity)) = self.open.remove(&alarm.id) {
            self.came_and_went += 1;
            self.by_severity[severity as usize] += 1;
            self.name(change, alarm, severity);
        }
    }

    fn count(&mut self, change: &Change) {
        self.changes += 1;
        self.first_at.get_or_insert(change.at);
        self.last_at = Some(change.at);
    }

    fn name(&mut self, change: &Change, alarm: &Alarm, severity: Severity) {
        if self.named.len() >= DIGEST_NAMED_MAX && self.named.last().is_some_and(|last| last.severity >= severity) {
            return;
        }
        let text = alarm.text.char_indices().take_while(|(at, _)| *at < TEXT_BYTES_MAX).map(|(_, character)| character);
        let key = &alarm.key;
        let place = self.named.partition_point(|named| Reverse(named.severity) <= Reverse(severity));
        let named = DigestAlarm {
            id: alarm.id,
            site: key.site.clone(),
            resource: key.resource.clone(),
            alarm_type: key.alarm_type.clone(),
            qualifier: (!key.qualifier.is_empty()).then(|| key.qualifier.clone()),
            severity,
            text: Text::new(&text.collect::<String>()).expect("part of a text is one"),
            raised_at: alarm.raised_at,
            cleared_at: alarm.cleared.as_ref().map_or(change.at, |cleared| cleared.at),
        };
        self.named.insert(place, named);
        self.named.truncate(DIGEST_NAMED_MAX);
    }

    /// The digest of what was looked at, up to `to`; nothing, if none of it would have been told.
    pub(super) fn digest(self, to: Position) -> Option<Digest> {
        let counts: BTreeMap<_, _> = Severity::ALL.into_iter().zip(self.by_severity).filter(|(_, count)| *count > 0).collect();
        (self.changes > 0).then(|| Digest {
            from: self.from,
            to,
            changes: self.changes,
            logged: self.logged,
            came_and_went: self.came_and_went,
            by_severity: counts.into_iter().rev().map(|(severity, count)| SeverityCount { severity, count }).collect(),
            first_at: self.first_at,
            last_at: self.last_at,
            named: self.named,
        })
    }
}
