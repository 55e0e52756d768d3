//! WRS-ALARM-MIB: the tables of StarlingX, for managers that know no other. The enterprise number is Wind River's, so they are
//! there only if asked for.
//!
//! Where StarlingX does not do what its MIB says, one setting says which is wanted:
//!
//! | | `as-specified` | `as-starlingx` |
//! |---|---|---|
//! | column 1, the index | not accessible | can be read, as INTEGER |
//! | uuid | 36 characters | 35, cut as theirs |
//! | texts | as long as ours are | at most 254 octets |

use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::{Catalogue, Known};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::event::{AlarmKey, Event};
use klaxon_schemas::severity::{EventType, Severity};
use klaxon_schemas::starlingx::{event_log_uuid, event_type_number, probable_cause_number, severity_number};
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::{Found, Objects, Oid, Value};
use uuid::Uuid;

use super::Shared;
use super::cells::{Shown, WORDS, reported};
use super::snapshot::Snapshot;
use super::starlingx::{Wrs, WrsProfile, names};
use super::tree::{Ask, Index, Tree};
use super::values::{date_and_time, text};

/// wrsAlarmMIB, where the tables of StarlingX hang.
pub const WRS_ALARM_MIB: [u32; 9] = [1, 3, 6, 1, 4, 1, 731, 1, 1];
/// wrsAlarmObjects under it.
const OBJECTS: [u32; 2] = [1, 1];
const ACTIVE: u32 = 1;
const EVENT: u32 = 4;
/// The most octets of WrsAlarmId.
const ALARM_ID: usize = 7;
/// The most octets of the texts that StarlingX keeps.
const STARLINGX_TEXT: usize = 254;
/// The most octets of the uuids that StarlingX shows.
const STARLINGX_UUID: usize = 35;

/// Whether StarlingX would log a change of this kind.
pub(super) fn is_event(kind: ChangeKind) -> bool {
    state(kind).is_some()
}

/// WrsAlarmState.
fn state(kind: ChangeKind) -> Option<i32> {
    match kind {
        ChangeKind::Cleared | ChangeKind::Retired => Some(0),
        ChangeKind::Raised | ChangeKind::Updated | ChangeKind::SeverityChanged => Some(1),
        ChangeKind::Logged => Some(3),
        _ => None,
    }
}

/// WRS-ALARM-MIB.
pub(super) struct WrsMib {
    shared: Arc<Shared>,
    tree: Tree<Object>,
    wrs: Wrs,
}

#[derive(Debug, Clone, Copy)]
enum Object {
    Active(u32),
    Event(u32),
}

/// What both tables say.
struct Facts<'a> {
    id: Uuid,
    key: &'a AlarmKey,
    at: Timestamp,
    severity: Option<Severity>,
    text: &'a str,
    event_type: Option<EventType>,
    cause: Option<&'a str>,
    repair_action: Option<&'a str>,
    service_affecting: Option<bool>,
}

impl<'a> Facts<'a> {
    fn of_alarm(alarm: &'a Alarm, id: Uuid, at: Timestamp, catalogue: Option<&'a Catalogue>) -> Self {
        let shown = Shown::new(alarm, false, catalogue);
        Self {
            id,
            key: &alarm.key,
            at,
            severity: Some(alarm.severity),
            text: &alarm.text,
            event_type: shown.event_type(),
            cause: shown.probable_cause().map(|cause| &**cause),
            repair_action: shown.repair_action().map(|words| &**words),
            service_affecting: shown.service_affecting(),
        }
    }

    fn of_event(event: &'a Event, id: Uuid, at: Timestamp, catalogue: Option<&'a Catalogue>) -> Self {
        let entry = catalogue.and_then(|catalogue| catalogue.get(&event.key.alarm_type));
        let known = Known { details: &event.details, entry, severity: reported(event.report) };
        Self {
            id,
            key: &event.key,
            at,
            severity: known.severity,
            text: &event.text,
            event_type: known.event_type(),
            cause: known.probable_cause().map(|cause| &**cause),
            repair_action: known.repair_action().map(|words| &**words),
            service_affecting: known.service_affecting(),
        }
    }

    fn of_change(change: &'a Change, catalogue: Option<&'a Catalogue>) -> Option<Self> {
        let id = event_log_uuid(change)?;
        match &change.subject {
            Subject::Alarm { alarm, .. } => Some(Self::of_alarm(alarm, id, change.at, catalogue)),
            Subject::Event { event, .. } => Some(Self::of_event(event, id, change.at, catalogue)),
            _ => None,
        }
    }
}

impl WrsMib {
    pub(super) fn new(shared: Arc<Shared>, wrs: Wrs) -> Self {
        // Column 1 is the index.
        let first = match wrs.form {
            WrsProfile::AsSpecified => 2,
            WrsProfile::AsStarlingx => 1,
        };
        let place = |table: u32, column: u32| [&OBJECTS[..], &[table, 1, column]].concat();
        let mut all = Vec::new();
        all.extend((first..=12).map(|column| (place(ACTIVE, column), Object::Active(column))));
        all.extend((first..=13).map(|column| (place(EVENT, column), Object::Event(column))));
        Self { shared, tree: Tree::new(Oid::new(&WRS_ALARM_MIB), all), wrs }
    }

    fn find(&self, snapshot: &Snapshot, object: Object, ask: Ask<'_>) -> Option<(Index, Value)> {
        let catalogue = snapshot.catalogue.as_deref();
        match object {
            Object::Active(column) => {
                let (index, number, row) = ask.of(&snapshot.listed)?;
                let facts = Facts::of_alarm(&row.alarm, row.alarm.id.0, row.alarm.raised_at, catalogue);
                // The active table has no state; behind where it would be, columns are one lower.
                let column = if column > 3 { column + 1 } else { column };
                Some((index, self.cell(catalogue, &facts, number, 1, column)))
            }
            Object::Event(column) => {
                let (index, number, step) = ask.of(&snapshot.events)?;
                let facts = Facts::of_change(&step.change, catalogue)?;
                let state = state(step.change.kind).expect("only such are kept");
                Some((index, self.cell(catalogue, &facts, number, state, column)))
            }
        }
    }

    /// The variable in a column of the event table.
    fn cell(&self, catalogue: Option<&Catalogue>, facts: &Facts<'_>, index: u32, state: i32, column: u32) -> Value {
        let is_theirs = self.wrs.form == WrsProfile::AsStarlingx;
        let words = |words: &str| text(words, if is_theirs { STARLINGX_TEXT } else { WORDS });
        match column {
            1 => Value::Integer(i32::try_from(index).unwrap_or(i32::MAX)),
            2 => text(&facts.id.to_string(), if is_theirs { STARLINGX_UUID } else { 36 }),
            3 => text(&names(catalogue, facts.key, "").0, ALARM_ID),
            4 => Value::Integer(state),
            5 => text(&self.wrs.entity(facts.key), WORDS),
            6 => date_and_time(facts.at),
            7 => Value::Integer(facts.severity.map_or(0, severity_number).into()),
            8 => words(&names(catalogue, facts.key, facts.text).1),
            9 => Value::Integer(event_type_number(facts.event_type).into()),
            10 => Value::Integer(probable_cause_number(facts.cause).into()),
            11 => words(facts.repair_action.unwrap_or_default()),
            12 => Value::Integer(facts.service_affecting.unwrap_or_default().into()),
            // Any type can be suppressed.
            _ => Value::Integer(1),
        }
    }
}

impl Objects for WrsMib {
    fn root(&self) -> Oid {
        self.tree.root().clone()
    }

    fn get(&self, oid: &[u32]) -> Found {
        let snapshot = self.shared.snapshot();
        self.tree.get(oid, |object, ask| self.find(&snapshot, object, ask))
    }

    fn next(&self, after: &[u32]) -> Option<(Oid, Value)> {
        let snapshot = self.shared.snapshot();
        self.tree.next(after, |object, ask| self.find(&snapshot, object, ask))
    }
}
