//! The alarm MIBs of RFC 3877: ALARM-MIB, with the catalogue as its models and what a list shows as its active alarms, and
//! ITU-ALARM-MIB beside it. There is one list of alarms, whose name is empty.
//!
//! Every model has all six states, because a report may give any severity. What refers to something refers to a row that is
//! there: an alarm to its model, a model of the one MIB to that of the other, an active alarm to the row of KLAXON-ALARM-MIB that
//! says the rest. Shelved alarms and those of suppressed types are not active here.

use std::net::IpAddr;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::severity::Severity;
use klaxon_snmp::{Found, Objects, Oid, Value};

use super::Shared;
use super::causes;
use super::cells::Shown;
use super::oids::{AlarmColumn, NotificationKind, NotificationObject};
use super::snapshot::{Model, Models, Row, Snapshot, TimeKey};
use super::tree::{Ask, Index, Key as _, Tree};
use super::values::{CLEARED, event_type, gauge, severity, text};

/// alarmMIB.
const ALARM_MIB: [u32; 8] = [1, 3, 6, 1, 2, 1, 118, 1];
/// ituAlarmMIB.
const ITU_ALARM_MIB: [u32; 8] = [1, 3, 6, 1, 2, 1, 121, 1];
/// alarmModelNotificationId, the first column of a model that can be read.
const MODEL_NOTIFICATION: [u32; 4] = [1, 2, 1, 3];
/// ituAlarmEventType, likewise.
const ITU_EVENT_TYPE: [u32; 4] = [1, 1, 1, 2];
/// ituAlarmActiveTrendIndication, likewise.
const ITU_TREND: [u32; 4] = [2, 1, 1, 1];
/// The most octets of an SnmpAdminString (RFC 3411).
const ADMIN_STRING: usize = 255;
/// sysUpTime and snmpTrapOID stand before the variables of a notification.
const VARBINDS_BEFORE: usize = 2;

/// The states of every model: clear, and the severities as they grow worse.
const STATES: [Option<Severity>; 6] = [
    None,
    Some(Severity::Indeterminate),
    Some(Severity::Warning),
    Some(Severity::Minor),
    Some(Severity::Major),
    Some(Severity::Critical),
];

/// What stands behind a column of alarmActiveTable for an alarm that was raised: the name of the list, when, and its number.
pub(crate) fn active_instance(alarm: &Alarm, index: u32) -> Vec<u32> {
    TimeKey::new(alarm.raised_at, index).index().arcs().to_vec()
}

/// The row of alarmModelTable that an alarm of the type has with this severity, or when it is over.
pub(crate) fn model_row(models: &Models, shown: &Shown<'_>, severity: Option<Severity>) -> Oid {
    model(models.number(shown.entry()), severity)
}

fn model(number: u32, severity: Option<Severity>) -> Oid {
    oid(&[&ALARM_MIB, &MODEL_NOTIFICATION, &[0, number, state(severity)]])
}

fn itu_model(number: u32, severity: Option<Severity>) -> Oid {
    oid(&[&ITU_ALARM_MIB, &ITU_EVENT_TYPE, &[0, number, perceived(severity)]])
}

/// alarmModelState: 1 is clear, and worse is more.
fn state(severity: Option<Severity>) -> u32 {
    severity.map_or(1, |severity| severity as u32 + 2)
}

/// ItuPerceivedSeverity.
fn perceived(of: Option<Severity>) -> u32 {
    u32::try_from(of.map_or(CLEARED, severity)).expect("is small")
}

fn oid(parts: &[&[u32]]) -> Oid {
    Oid::new(&parts.concat())
}

/// zeroDotZero: refers to nothing.
fn nothing() -> Value {
    Value::Oid(Oid::new(&[0, 0]))
}

/// A list of one row, whose name is empty.
const THE_LIST: [u32; 1] = [0];

/// A state of a model, by its place among all.
fn model_state<'m>(models: &'m Models, ask: Ask<'_>, number: impl Fn(Option<Severity>) -> u32) -> Option<ModelState<'m>> {
    // The states of the one MIB are not in the order of the other.
    let mut states = STATES;
    states.sort_by_key(|state| number(*state));
    let rows = models.rows();
    let index = |at: usize| Index::new(&[0, rows[at / states.len()].index, number(states[at % states.len()])]);
    let count = rows.len() * states.len();
    let at = match ask {
        Ask::First => 0,
        Ask::At(arcs) => partition_point(count, |at| index(at).arcs() < arcs),
        Ask::After(arcs) => partition_point(count, |at| index(at).arcs() <= arcs),
    };
    let found = (at < count).then(|| ModelState {
        index: index(at),
        model: &rows[at / states.len()],
        state: states[at % states.len()],
    })?;
    match ask {
        Ask::At(arcs) if found.index.arcs() != arcs => None,
        _ => Some(found),
    }
}

struct ModelState<'m> {
    index: Index,
    model: &'m Model,
    state: Option<Severity>,
}

/// How many of the first numbers are `before`.
fn partition_point(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// ALARM-MIB.
pub(super) struct AlarmMib {
    shared: Arc<Shared>,
    tree: Tree<Object>,
    /// The place of klaxonAlarmSeverity among the variables of klaxonAlarmRaised.
    severity_varbind: u32,
}

#[derive(Debug, Clone, Copy)]
enum Object {
    ModelLastChanged,
    Model(u32),
    ActiveLastChanged,
    Active(u32),
    ActiveStats(u32),
    ActiveOverflow,
    ClearMaximum,
    Clear(u32),
}

impl AlarmMib {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let columns = |table: [u32; 2], columns: std::ops::RangeInclusive<u32>, object: fn(u32) -> Object| {
            columns.map(move |column| (vec![table[0], table[1], 1, column], object(column)))
        };
        let mut all = vec![
            (vec![1, 1], Object::ModelLastChanged),
            (vec![2, 1], Object::ActiveLastChanged),
            (vec![2, 5], Object::ActiveOverflow),
            (vec![3, 1], Object::ClearMaximum),
        ];
        all.extend(columns([1, 2], 3..=10, Object::Model));
        all.extend(columns([2, 2], 4..=14, Object::Active));
        all.extend(columns([2, 4], 1..=4, Object::ActiveStats));
        all.extend(columns([3, 2], 3..=10, Object::Clear));
        let is_severity = |object: NotificationObject| object == NotificationObject::Alarm(AlarmColumn::Severity);
        let place = NotificationKind::Raised.objects().position(is_severity).expect("it is one of them");
        let severity_varbind = u32::try_from(place + VARBINDS_BEFORE + 1).expect("is small");
        Self { shared, tree: Tree::new(Oid::new(&ALARM_MIB), all), severity_varbind }
    }

    fn find(&self, snapshot: &Snapshot, object: Object, ask: Ask<'_>) -> Option<(Index, Value)> {
        let scalar = |value| ask.only(&[0]).map(|index| (index, value));
        let stats = &snapshot.since_start;
        match object {
            Object::ModelLastChanged => scalar(Value::TimeTicks(stats.models_changed)),
            Object::Model(column) => {
                let row = model_state(&snapshot.models, ask, state)?;
                Some((row.index, self.model(&row, column)))
            }
            Object::ActiveLastChanged => scalar(Value::TimeTicks(stats.listed_changed)),
            Object::Active(column) => {
                let (index, _, row) = ask.of(&snapshot.by_time)?;
                Some((index, self.active(snapshot, row, column)))
            }
            Object::ActiveStats(column) => {
                let index = ask.only(&THE_LIST)?;
                let value = match column {
                    1 => gauge(snapshot.by_time.len() as u64),
                    2 => Value::Gauge32(stats.raises),
                    3 => Value::TimeTicks(stats.last_raise),
                    _ => Value::TimeTicks(stats.last_clear),
                };
                Some((index, value))
            }
            // There is a row for every one of them.
            Object::ActiveOverflow => scalar(Value::Counter32(0)),
            Object::ClearMaximum => scalar(gauge(self.shared.config.history_rows as u64)),
            Object::Clear(column) => {
                let (index, _, row) = ask.of(&snapshot.ends)?;
                Some((index, self.clear(snapshot, row, column)))
            }
        }
    }

    fn model(&self, row: &ModelState<'_>, column: u32) -> Value {
        let root = &self.shared.config.root;
        match column {
            3 => {
                let kind = if row.state.is_some() { NotificationKind::Raised } else { NotificationKind::Cleared };
                Value::Oid(root.notification(kind))
            }
            // A clear is told by the notification alone.
            4 => Value::Gauge32(if row.state.is_some() { self.severity_varbind } else { 0 }),
            5 => Value::Integer(row.state.map_or(0, severity)),
            6 => {
                let title =
                    row.model.entry.as_ref().map_or("Alarm of a type that the catalogue does not know", |entry| &entry.title);
                let state = row.state.map_or("cleared", Severity::as_str);
                text(&format!("{title}: {state}"), ADMIN_STRING)
            }
            7 => Value::Oid(itu_model(row.model.index, row.state)),
            8 => Value::Oid(column_of(&root.alarm(AlarmColumn::Resource, 0))),
            9 => nothing(),
            // active(1) of RowStatus.
            _ => Value::Integer(1),
        }
    }

    fn active(&self, snapshot: &Snapshot, row: &Row, column: u32) -> Value {
        let root = &self.shared.config.root;
        let shown = Shown::new(&row.alarm, row.suppressed, snapshot.catalogue.as_deref());
        match column {
            4..=7 => self.origin(column - 4),
            // alarmActiveVariableTable has none: the row of KLAXON-ALARM-MIB has what they would say.
            8 => Value::Gauge32(0),
            9 => Value::Oid(root.notification(NotificationKind::Raised)),
            10 => Value::Oid(root.alarm(AlarmColumn::Resource, row.index)),
            11 => text(&format!("{}: {}", row.alarm.key.resource, row.alarm.text), ADMIN_STRING),
            12 => nothing(),
            13 => Value::Oid(model_row(&snapshot.models, &shown, Some(row.alarm.severity))),
            _ => Value::Oid(oid(&[&ITU_ALARM_MIB, &ITU_TREND, &active_instance(&row.alarm, row.index)])),
        }
    }

    fn clear(&self, snapshot: &Snapshot, row: &Row, column: u32) -> Value {
        let shown = Shown::new(&row.alarm, row.suppressed, snapshot.catalogue.as_deref());
        match column {
            3..=6 => self.origin(column - 3),
            7 => Value::Oid(self.shared.config.root.notification(NotificationKind::Cleared)),
            // It has no row any more that could be referred to.
            8 => nothing(),
            9 => Value::Gauge32(0),
            _ => Value::Oid(model_row(&snapshot.models, &shown, None)),
        }
    }

    /// The engine that the alarm is of, which is this one: its id, what kind of address it has, the address, the context.
    fn origin(&self, number: u32) -> Value {
        let octets = |octets: &[u8]| Value::OctetString(bytes::Bytes::copy_from_slice(octets));
        let address = self.shared.address.load().as_deref().copied();
        match (number, address) {
            (0, _) => octets(self.shared.engine_id()),
            // unknown(0), ipv4(1), ipv6(2) of InetAddressType.
            (1, None) => Value::Integer(0),
            (1, Some(IpAddr::V4(_))) => Value::Integer(1),
            (1, Some(IpAddr::V6(_))) => Value::Integer(2),
            (2, Some(IpAddr::V4(address))) => octets(&address.octets()),
            (2, Some(IpAddr::V6(address))) => octets(&address.octets()),
            _ => octets(&[]),
        }
    }
}

/// The column that an instance with one number is in.
fn column_of(instance: &Oid) -> Oid {
    let arcs = instance.arcs();
    Oid::new(&arcs[..arcs.len() - 1])
}

impl Objects for AlarmMib {
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

/// ITU-ALARM-MIB.
pub(super) struct ItuAlarmMib {
    shared: Arc<Shared>,
    tree: Tree<ItuObject>,
}

#[derive(Debug, Clone, Copy)]
enum ItuObject {
    Model(u32),
    Active(u32),
    ActiveStats(u32),
}

impl ItuAlarmMib {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut all: Vec<(Vec<u32>, ItuObject)> = Vec::new();
        all.extend((2..=5).map(|column| (vec![1, 1, 1, column], ItuObject::Model(column))));
        all.extend((1..=4).map(|column| (vec![2, 1, 1, column], ItuObject::Active(column))));
        all.extend((1..=10).map(|column| (vec![2, 2, 1, column], ItuObject::ActiveStats(column))));
        Self { shared, tree: Tree::new(Oid::new(&ITU_ALARM_MIB), all) }
    }

    fn find(snapshot: &Snapshot, object: ItuObject, ask: Ask<'_>) -> Option<(Index, Value)> {
        match object {
            ItuObject::Model(column) => {
                let row = model_state(&snapshot.models, ask, perceived)?;
                let entry = row.model.entry.as_ref();
                let value = match column {
                    // other(1): what has none here may have one in its report.
                    2 => Value::Integer(entry.map_or(1, |entry| event_type(Some(entry.event_type)))),
                    3 => Value::Integer(causes::iana(entry.map(|entry| entry.probable_cause.as_str()))),
                    4 => text(entry.map_or("", |entry| &entry.text), ADMIN_STRING),
                    _ => Value::Oid(model(row.model.index, row.state)),
                };
                Some((row.index, value))
            }
            ItuObject::Active(column) => {
                let (index, _, _) = ask.of(&snapshot.by_time)?;
                // noChange(2) of ItuTrendIndication: an alarm says how it is, the history how it was.
                Some((index, if column == 1 { Value::Integer(2) } else { nothing() }))
            }
            ItuObject::ActiveStats(column) => {
                let index = ask.only(&THE_LIST)?;
                use Severity as S;
                let order = [S::Indeterminate, S::Critical, S::Major, S::Minor, S::Warning];
                let place = column as usize - 1;
                let value = match order.get(place) {
                    Some(of) => gauge(snapshot.severities[*of as usize].shown),
                    None => Value::Gauge32(snapshot.since_start.raised[order[place - order.len()] as usize]),
                };
                Some((index, value))
            }
        }
    }
}

impl Objects for ItuAlarmMib {
    fn root(&self) -> Oid {
        self.tree.root().clone()
    }

    fn get(&self, oid: &[u32]) -> Found {
        let snapshot = self.shared.snapshot();
        self.tree.get(oid, |object, ask| Self::find(&snapshot, object, ask))
    }

    fn next(&self, after: &[u32]) -> Option<(Oid, Value)> {
        let snapshot = self.shared.snapshot();
        self.tree.next(after, |object, ask| Self::find(&snapshot, object, ask))
    }
}
