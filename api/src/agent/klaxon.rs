//! KLAXON-ALARM-MIB: everything an alarm has, the last changes, counts, sites and receivers; and what can be set.

use std::sync::Arc;

use klaxon_schemas::severity::Severity;
use klaxon_snmp::{BoxFuture, Found, Objects, Oid, Set, SetError, SetFailed, Value, Varbind};

use super::Shared;
use super::cells::{self, Shown, change_cell, subject_cell};
use super::oids::{
    ALARMS, AlarmColumn, HISTORY, HistoryColumn, NODE, NodeObject, OBJECTS, RECEIVERS, ReceiverColumn, Root, SEVERITIES, SITES,
    SeverityColumn, SiteColumn,
};
use super::set::{self, Placed};
use super::snapshot::Snapshot;
use super::tree::{Ask, Index, Tree};
use super::values::{gauge, severity, text};
use crate::clock;

/// The objects of KLAXON-ALARM-MIB.
pub(super) struct KlaxonMib {
    shared: Arc<Shared>,
    tree: Tree<Object>,
    root: Root,
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Node(NodeObject),
    Severity(SeverityColumn),
    Site(SiteColumn),
    Alarm(AlarmColumn),
    /// What the history has of an alarm.
    Subject(AlarmColumn),
    Change(HistoryColumn),
    Receiver(ReceiverColumn),
}

impl Object {
    fn all() -> Vec<(Vec<u32>, Self)> {
        let column = |table: u32, column: u32| vec![OBJECTS, table, 1, column];
        // An index is in the identifiers of its row and nowhere else.
        let alarm = || AlarmColumn::ALL.iter().filter(|column| **column != AlarmColumn::Index);
        let mut all: Vec<(Vec<u32>, Self)> = Vec::new();
        all.extend(NodeObject::ALL.iter().map(|object| (vec![OBJECTS, NODE, *object as u32], Self::Node(*object))));
        let severities = SeverityColumn::ALL.iter().filter(|column| **column != SeverityColumn::Index);
        all.extend(severities.map(|object| (column(SEVERITIES, *object as u32), Self::Severity(*object))));
        let sites = SiteColumn::ALL.iter().filter(|column| **column != SiteColumn::Index);
        all.extend(sites.map(|object| (column(SITES, *object as u32), Self::Site(*object))));
        all.extend(alarm().map(|object| (column(ALARMS, *object as u32), Self::Alarm(*object))));
        // Whether a type was suppressed then is not known.
        let subject = alarm().filter(|column| **column != AlarmColumn::Suppressed);
        all.extend(subject.map(|object| (column(HISTORY, *object as u32), Self::Subject(*object))));
        all.extend(HistoryColumn::ALL.iter().map(|object| (column(HISTORY, *object as u32), Self::Change(*object))));
        let receivers = ReceiverColumn::ALL.iter().filter(|column| **column != ReceiverColumn::Index);
        all.extend(receivers.map(|object| (column(RECEIVERS, *object as u32), Self::Receiver(*object))));
        all
    }

    fn is_counter64(self) -> bool {
        matches!(
            self,
            Self::Node(NodeObject::Epoch | NodeObject::Position | NodeObject::LastChange | NodeObject::TablesPosition)
                | Self::Alarm(AlarmColumn::ChangeEpoch | AlarmColumn::ChangeSeq)
                | Self::Subject(AlarmColumn::ChangeEpoch | AlarmColumn::ChangeSeq)
                | Self::Change(HistoryColumn::Position)
                | Self::Receiver(ReceiverColumn::Epoch | ReceiverColumn::Assigned | ReceiverColumn::Confirmed)
        )
    }
}

impl KlaxonMib {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let root = shared.config.root.clone();
        Self { tree: Tree::new(root.oid(&[]), Object::all()), root, shared }
    }

    fn find(&self, snapshot: &Snapshot, object: Object, ask: Ask<'_>) -> Option<(Index, Value)> {
        let catalogue = snapshot.catalogue.as_deref();
        match object {
            Object::Node(object) => ask.only(&[0]).map(|index| (index, self.node(snapshot, object))),
            Object::Severity(column) => {
                // Their numbers are those of KlaxonSeverity, which has the most urgent before the least.
                let severities = [2, 3, 4, 5, 6_u32];
                let (index, number) = ask.of_slice(&severities, |number| *number)?;
                Some((index, counts(snapshot, i32::try_from(*number).expect("is small"), column)))
            }
            Object::Site(column) => {
                let (index, row) = ask.of_slice(&snapshot.sites, |row| row.index)?;
                Some((index, row.cell(column, clock::now())))
            }
            Object::Alarm(column) => {
                let (index, _, row) = ask.of(&snapshot.active)?;
                let shown = Shown::new(&row.alarm, row.suppressed, catalogue).silent_since(row.silent_since);
                Some((index, shown.cell(column)))
            }
            Object::Subject(column) => {
                let (index, _, step) = ask.of(&snapshot.history)?;
                Some((index, subject_cell(&step.change, catalogue, column)))
            }
            Object::Change(column) => {
                let (index, _, step) = ask.of(&snapshot.history)?;
                Some((index, change_cell(step.position, &step.change, column)))
            }
            Object::Receiver(column) => {
                let (index, row) = ask.of_slice(&snapshot.receivers, |row| row.index)?;
                Some((index, row.cell(column)))
            }
        }
    }

    fn node(&self, snapshot: &Snapshot, object: NodeObject) -> Value {
        let shared = &self.shared;
        match object {
            NodeObject::Id => text(&shared.node_id, cells::NAME),
            NodeObject::Site => cells::site(&shared.site),
            NodeObject::Version => text(env!("CARGO_PKG_VERSION"), cells::NAME),
            NodeObject::Epoch => Value::Counter64(snapshot.epoch.0),
            NodeObject::Position => Value::Counter64(shared.committed.borrow().0),
            NodeObject::LastChange => Value::Counter64(snapshot.last_change.seq.0),
            NodeObject::TablesPosition => Value::Counter64(snapshot.position.0),
            NodeObject::Active => gauge(snapshot.active.len() as u64),
            NodeObject::Cleared => gauge(snapshot.cleared),
            NodeObject::LastChanged => Value::TimeTicks(snapshot.since_start.changed),
            NodeObject::HistoryMax => gauge(shared.config.history_rows as u64),
        }
    }
}

impl Objects for KlaxonMib {
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

    fn counter64(&self) -> Vec<Oid> {
        let counters = Object::all().into_iter().filter(|(_, object)| object.is_counter64());
        counters.map(|(place, _)| self.root.oid(&place)).collect()
    }

    fn check(&self, varbind: &Varbind, before: &[Varbind]) -> Result<(), SetError> {
        let (object, index) = self.tree.object(varbind.oid.arcs()).ok_or(SetError::NoCreation)?;
        self.shared.check(object, index, &varbind.value)?;
        let this = Placed { object, index, value: &varbind.value };
        let fits = |other: &Varbind| {
            let (object, index) = self.tree.object(other.oid.arcs())?;
            Some(set::fit(this, Placed { object, index, value: &other.value }))
        };
        let fit_all = before.iter().all(|other| fits(other).unwrap_or(false));
        if fit_all { Ok(()) } else { Err(SetError::InconsistentValue) }
    }

    fn set(&self, request: Set) -> BoxFuture<'_, Result<(), SetFailed>> {
        let placed = |varbind: Varbind| {
            let (object, index) = self.tree.object(varbind.oid.arcs())?;
            Some((object, *index.first()?, varbind.value))
        };
        let orders = request.varbinds.clone().into_iter().filter_map(placed).collect();
        Box::pin(self.shared.set(request, orders))
    }
}

fn counts(snapshot: &Snapshot, number: i32, column: SeverityColumn) -> Value {
    let of = Severity::ALL.into_iter().find(|other| severity(*other) == number).expect("every number is one's");
    let counts = &snapshot.severities[of as usize];
    match column {
        SeverityColumn::Index => Value::Integer(number),
        SeverityColumn::Alarms => gauge(counts.total),
        SeverityColumn::Acknowledged => gauge(counts.acknowledged),
        SeverityColumn::Shelved => gauge(counts.shelved),
        SeverityColumn::Suppressed => gauge(counts.suppressed),
        SeverityColumn::Stale => gauge(counts.stale),
        SeverityColumn::Shown => gauge(counts.shown),
    }
}
