//! The tables over a real store, of which the tests write the changes themselves: value by value, as they change, and as the MIB
//! says.

mod changing;
mod module;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use klaxon_schemas::alarm::{Alarm, ChangeNumber, Clearance, ClearedBy, EngineMarks};
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::event::{AlarmKey, Details};
use klaxon_schemas::ids::{AlarmId, Position, Seq};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::{Cursor, StateKey, StateRecord};
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::{EngineHome, Found, Objects, Oid, Value};
use klaxon_store::door::Door;
use klaxon_store::{Frame, Results, Store, StoreConfig, Writer};

use super::oids::{AlarmColumn, Root};
use super::track::Tracker;
use super::{Indexes, Parts, ReceiversShown, Shared, Tables, TablesConfig};

/// A store, the tables over it, and whoever writes it.
struct Bench {
    store: Store,
    writer: Writer,
    cursor: Cursor,
    shared: Arc<Shared>,
    tracker: Tracker,
    indexes: Arc<Indexes>,
    objects: Vec<Arc<dyn Objects>>,
    /// From where on receivers were sent everything again.
    resent: Arc<std::sync::Mutex<Vec<u64>>>,
    control: super::TablesControl,
    _dir: tempfile::TempDir,
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("is a time")
}

/// The alarm `number`, just raised.
fn alarm(number: u64) -> Alarm {
    let time = at("2026-11-22T03:12:00.5Z").saturating_add_micros(i64::try_from(number).expect("is small") * 100_000);
    Alarm {
        id: AlarmId::derive("depot-7", Default::default(), Seq(number)),
        key: AlarmKey {
            site: "depot-7".parse().expect("is a name"),
            resource: format!("host=web-{number}.filesystem=/var").parse().expect("is a resource"),
            alarm_type: "disk.full".parse().expect("is a name"),
            qualifier: "".parse().expect("is a name"),
        },
        owner: None,
        via: None,
        catalogued: true,
        severity: Severity::Major,
        cleared: None,
        text: format!("/var is {number} % full").parse().expect("is a text"),
        details: Details::default(),
        raise_seq: 1,
        first_raised_at: time,
        raised_at: time,
        event_time: None,
        changed_at: time,
        last_change: ChangeNumber::default(),
        count: 1,
        last_reported_at: time,
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

/// The same, cleared.
fn cleared(mut alarm: Alarm, time: &str) -> Alarm {
    alarm.cleared = Some(Clearance { at: at(time), by: ClearedBy::Report });
    alarm
}

impl Bench {
    fn new(config: TablesConfig) -> Self {
        Self::with(config, Vec::new(), None)
    }

    /// With these alarms raised before the tables begin.
    fn with(config: TablesConfig, before: Vec<Alarm>, receivers: Option<ReceiversShown>) -> Self {
        let dir = tempfile::tempdir().expect("can be made");
        let (store, writer, _) = Store::open(StoreConfig::new(dir.path())).expect("opens");
        let mut cursor = Cursor { epoch: store.epoch(), ..Cursor::default() };
        let catalogue = Arc::new(Catalogue::built_in());
        cursor.catalogue = Some(catalogue.digest().clone());
        let (publisher, _intake) = klaxon_store::publish::queue();
        let engine = Arc::new(EngineHome::new(dir.path()));
        engine.engine().expect("starts");
        let path = dir.path().to_owned();
        let resent = Arc::<std::sync::Mutex<Vec<u64>>>::default();
        let resends = Arc::clone(&resent);
        let resend: super::Resend = Arc::new(move |_, from| {
            resends.lock().expect("nobody broke it").push(from);
            Box::pin(std::future::ready(Ok(())))
        });
        let parts = move |store: &Store| Parts {
            door: Door::new("snmp".parse().expect("is a name"), publisher.clone(), store.clone()),
            site: "depot-7".parse().expect("is a name"),
            indexes: super::indexes(store, &path),
            engine: Arc::clone(&engine),
            address: Some([192, 0, 2, 7].into()),
            receivers: receivers.clone(),
            sites: None,
            resend: Some(Arc::clone(&resend)),
        };
        let (tables, control) = Tables::new(config.clone(), parts(&store), false);
        let indexes = super::indexes(&store, dir.path());
        let mut bench = Self {
            objects: tables.objects(),
            shared: tables.shared,
            tracker: tables.tracker,
            indexes,
            store,
            writer,
            cursor,
            resent,
            control,
            _dir: dir,
        };
        let key = StateKey::Bundle(catalogue.digest().clone());
        bench.commit(Vec::new(), vec![(key, Some(StateRecord::Bundle(catalogue)))]);
        bench.alarms(ChangeKind::Raised, before);
        let (tables, control) = Tables::new(config, parts(&bench.store), true);
        bench.control = control;
        bench.objects = tables.objects();
        bench.indexes = Arc::clone(&tables.tracker.indexes);
        (bench.shared, bench.tracker) = (tables.shared, tables.tracker);
        bench
    }

    fn commit(&mut self, changes: Vec<Arc<Change>>, puts: Vec<(StateKey, Option<StateRecord>)>) {
        let cursor = self.cursor.clone();
        let results = Results { changes, puts, cursor, ..Results::default() };
        self.writer.submit(Frame { entries: Vec::new(), results: Some(results) }, |outcome| {
            outcome.expect("there is room");
        });
        self.writer.drain();
    }

    fn change(&mut self, kind: ChangeKind, time: Timestamp, subject: Subject) -> Arc<Change> {
        self.cursor.last_seq = self.cursor.last_seq.next();
        let number = ChangeNumber { epoch: self.cursor.epoch, seq: self.cursor.last_seq };
        let site = "depot-7".parse().expect("is a name");
        Arc::new(Change {
            site,
            number,
            at: time,
            past: false,
            kind,
            reasons: Vec::new(),
            actor: None,
            from: None,
            note: None,
            subject,
            place: None,
        })
    }

    /// Writes that this happened to these alarms, in one frame.
    fn alarms(&mut self, kind: ChangeKind, alarms: Vec<Alarm>) {
        let changes = alarms.into_iter().map(|alarm| {
            let time = alarm.cleared.as_ref().map_or(alarm.changed_at, |clearance| clearance.at);
            self.change(kind, time, Subject::Alarm { alarm: Arc::new(alarm), previous_severity: None })
        });
        let changes: Vec<_> = changes.collect();
        for part in changes.chunks(4_000) {
            self.commit(part.to_vec(), Vec::new());
        }
    }

    /// Has the tables take up what was written.
    fn follow(&mut self) {
        self.tracker.gather();
        if self.tracker.is_stirred() {
            self.tracker.take_and_publish();
        }
    }

    fn get(&self, oid: &Oid) -> Found {
        let part = self.objects.iter().find(|part| oid.arcs().starts_with(part.root().arcs()));
        part.map_or(Found::NoSuchObject, |part| part.get(oid.arcs()))
    }

    /// The value that there must be.
    fn value(&self, oid: &Oid) -> Value {
        match self.get(oid) {
            Found::Value(value) => value,
            other => panic!("{oid}: {other:?}"),
        }
    }

    fn cell(&self, column: AlarmColumn, alarm: &Alarm) -> Value {
        self.value(&Root::default().alarm(column, self.indexes.of(alarm.id)))
    }

    fn text(&self, oid: &Oid) -> String {
        match self.value(oid) {
            Value::OctetString(bytes) => String::from_utf8(bytes.to_vec()).expect("is UTF-8"),
            other => panic!("{oid}: {other:?}"),
        }
    }

    /// Everything under `root`, in order, as a manager walks it.
    fn walk(&self, root: &Oid) -> Vec<(Oid, Value)> {
        let mut all: Vec<(Oid, Value)> = Vec::new();
        let mut after = root.clone();
        while let Some((oid, value)) = self.next(&after) {
            assert!(oid > after, "{oid} is not behind {after}");
            if !oid.arcs().starts_with(root.arcs()) {
                break;
            }
            // A time may be of the clock, and go on between two looks.
            let is_time = matches!(&value, Value::OctetString(octets) if octets.len() == 11);
            assert!(is_time || self.get(&oid) == Found::Value(value.clone()), "{oid}");
            after = oid.clone();
            all.push((oid, value));
        }
        all
    }

    /// The next variable of all parts.
    fn next(&self, after: &Oid) -> Option<(Oid, Value)> {
        self.objects.iter().filter_map(|part| part.next(after.arcs())).min_by(|one, other| one.0.cmp(&other.0))
    }

    /// The rows of a table by their index: column and value.
    fn rows(&self, entry: &Oid) -> BTreeMap<Vec<u32>, BTreeMap<u32, Value>> {
        let mut rows: BTreeMap<Vec<u32>, BTreeMap<u32, Value>> = BTreeMap::new();
        for (oid, value) in self.walk(entry) {
            let rest = &oid.arcs()[entry.arcs().len()..];
            rows.entry(rest[1..].to_vec()).or_default().insert(rest[0], value);
        }
        rows
    }
}

fn oid(text: &str) -> Oid {
    let arcs: Vec<u32> = text.split('.').map(|arc| arc.parse().expect("is a number")).collect();
    Oid::new(&arcs)
}

fn octets(text: &str) -> Value {
    Value::OctetString(bytes::Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn an_empty_store_has_tables_without_rows() {
    let bench = Bench::new(TablesConfig::default());
    let root = Root::default();
    assert_eq!(bench.get(&root.alarm(AlarmColumn::Id, 1)), Found::NoSuchInstance);
    assert_eq!(bench.get(&root.oid(&[1, 99, 0])), Found::NoSuchObject);
    assert_eq!(bench.get(&root.oid(&[1, 1, 1])), Found::NoSuchInstance, "a scalar without its 0");
    assert!(bench.walk(&root.oid(&[1, 4])).is_empty());
    assert!(bench.walk(&oid("1.3.6.1.2.1.118.1.2.2")).is_empty());
    let first = bench.next(&oid("1.3")).expect("there is something");
    assert_eq!(first.0, oid("1.3.6.1.2.1.118.1.1.1.0"));
    assert_eq!(bench.next(&oid("1.3.6.1.4.1.9000")), None);
    assert_eq!(bench.store.committed().borrow().clone(), bench.shared.snapshot().position);
    assert!(bench.shared.snapshot().position > Position(0));
}
