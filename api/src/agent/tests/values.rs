//! The tables value by value.

use bytes::Bytes;
use klaxon_schemas::alarm::{Assignment, Mark, Note, Shelved, Stale};
use klaxon_schemas::event::{Attributes, Event, Report};
use klaxon_schemas::ids::Epoch;
use klaxon_schemas::severity::EventType;

use super::*;
use crate::agent::oids::HistoryColumn;
use crate::agent::{Wrs, WrsProfile};

fn name<N: std::str::FromStr>(text: &str) -> N
where
    N::Err: std::fmt::Debug,
{
    text.parse().expect("is a name")
}

fn time(octets: [u8; 8]) -> Value {
    Value::OctetString(Bytes::copy_from_slice(&[&octets[..], &[b'+', 0, 0]].concat()))
}

/// An alarm with everything.
fn full() -> Alarm {
    let mut alarm = alarm(7);
    let attributes = BTreeMap::from([(name("used"), name("97 %")), (name("device"), name("/dev/sda1"))]);
    alarm.key.qualifier = name("inode");
    alarm.text = name("Zu 97 % voll: größer machen");
    alarm.details = Details {
        event_type: Some(EventType::Equipment),
        probable_cause: Some(name("threshold-crossed")),
        repair_action: Some(name("aufräumen")),
        service_affecting: Some(true),
        attributes: Attributes::new(attributes).expect("are few"),
        ..Details::default()
    };
    alarm.raise_seq = 3;
    alarm.event_time = Some(at("2026-11-22T03:11:59Z"));
    alarm.last_change = ChangeNumber { epoch: Epoch(1_700_000_000_000), seq: Seq(u64::from(u32::MAX) + 7) };
    alarm.count = u64::from(u32::MAX) + 7;
    alarm.producer = Some(name("collector/filesystem"));
    let (by, at) = (name::<klaxon_schemas::names::Actor>("jane"), at("2026-11-22T04:00:00Z"));
    alarm.acknowledged = Some(Mark { by: by.clone(), at, note: Some(name("seen")) });
    alarm.assigned = Some(Assignment { to: name("storage"), by: by.clone(), at });
    alarm.notes = vec![Note { by: by.clone(), at, text: name("first") }, Note { by: by.clone(), at, text: name("second") }];
    alarm.shelved = Some(Shelved { by, at, until: self::at("2026-11-23T04:00:00Z"), reason: name("works"), shelf: None });
    alarm.stale = Some(Stale { since: at });
    alarm
}

#[test]
fn an_alarm_has_all_its_fields() {
    use AlarmColumn as C;
    let alarm = full();
    let bench = Bench::with(TablesConfig::default(), vec![alarm.clone()], None);
    let four = time([7, 234, 11, 22, 4, 0, 0, 0]);
    let raised = time([7, 234, 11, 22, 3, 12, 1, 2]);
    let expected = [
        (C::Id, octets(&alarm.id.to_string())),
        (C::Site, octets("depot-7")),
        (C::Resource, octets("host=web-7.filesystem=/var")),
        (C::Type, octets("disk.full")),
        (C::Qualifier, octets("inode")),
        (C::Severity, Value::Integer(4)),
        (C::EventType, Value::Integer(5)),
        (C::ProbableCause, octets("threshold-crossed")),
        (C::ProbableCauseNumber, Value::Gauge32(549)),
        (C::Text, octets("Zu 97 % voll: größer machen")),
        (C::RepairAction, octets("aufräumen")),
        (C::Runbook, octets("")),
        (C::ServiceAffecting, Value::Integer(1)),
        (C::FirstRaisedAt, raised.clone()),
        (C::RaisedAt, raised.clone()),
        (C::ChangedAt, raised.clone()),
        (C::EventTime, time([7, 234, 11, 22, 3, 11, 59, 0])),
        (C::ClearedAt, octets("")),
        (C::ClearedBy, Value::Integer(0)),
        (C::Acknowledged, Value::Integer(1)),
        (C::AcknowledgedBy, octets("jane")),
        (C::AcknowledgedAt, four.clone()),
        (C::AcknowledgedNote, octets("seen")),
        (C::AssignedTo, octets("storage")),
        (C::AssignedBy, octets("jane")),
        (C::AssignedAt, four.clone()),
        (C::Shelved, Value::Integer(1)),
        (C::ShelvedUntil, time([7, 234, 11, 23, 4, 0, 0, 0])),
        (C::ShelvedBy, octets("jane")),
        (C::ShelvedReason, octets("works")),
        (C::Suppressed, Value::Integer(2)),
        (C::Stale, Value::Integer(1)),
        (C::StaleSince, four),
        (C::Count, Value::Gauge32(u32::MAX)),
        (C::RaiseSeq, Value::Gauge32(3)),
        (C::LastReportedAt, raised),
        (C::Producer, octets("collector/filesystem")),
        (C::Catalogued, Value::Integer(1)),
        (C::Notes, Value::Gauge32(2)),
        (C::LastNote, octets("jane: second")),
        (C::ChangeEpoch, Value::Counter64(1_700_000_000_000)),
        (C::ChangeSeq, Value::Counter64(u64::from(u32::MAX) + 7)),
        (C::Attributes, octets("device=/dev/sda1\nused=97 %")),
    ];
    assert_eq!(expected.len() + 1, C::ALL.len());
    for (column, value) in expected {
        assert_eq!(bench.cell(column, &alarm), value, "{column:?}");
    }
}

#[test]
fn the_catalogue_says_what_the_report_did_not() {
    use AlarmColumn as C;
    let mut strange = alarm(2);
    (strange.key.alarm_type, strange.catalogued) = (name("no.such"), false);
    let bench = Bench::with(TablesConfig::default(), vec![alarm(1), strange.clone()], None);
    let Value::OctetString(action) = bench.cell(C::RepairAction, &alarm(1)) else { panic!("is a text") };
    assert!(action.starts_with(b"Find what has grown"));
    assert_eq!(bench.cell(C::EventType, &alarm(1)), Value::Integer(4));
    assert_eq!(bench.cell(C::ProbableCauseNumber, &alarm(1)), Value::Gauge32(547));
    assert_eq!(bench.cell(C::ServiceAffecting, &alarm(1)), Value::Integer(3));
    for (column, value) in [
        (C::EventType, Value::Integer(0)),
        (C::ProbableCause, octets("")),
        (C::ProbableCauseNumber, Value::Gauge32(0)),
        (C::RepairAction, octets("")),
        (C::Catalogued, Value::Integer(2)),
    ] {
        assert_eq!(bench.cell(column, &strange), value, "{column:?}");
    }
}

#[test]
fn long_texts_are_cut_between_characters() {
    let mut long = alarm(1);
    long.text = name(&"ä".repeat(2_000));
    long.key.resource = format!("host={}", "€".repeat(339)).parse().expect("is a resource");
    let bench = Bench::with(
        TablesConfig { wrs: Some(Wrs { form: WrsProfile::AsStarlingx, ..Wrs::default() }), ..TablesConfig::default() },
        vec![long.clone()],
        None,
    );
    assert_eq!(bench.cell(AlarmColumn::Text, &long), octets(&"ä".repeat(512)));
    assert_eq!(bench.cell(AlarmColumn::Resource, &long), octets(&format!("host={}", "€".repeat(339))));
    let index = bench.indexes.of(long.id);
    let instance = |column: u32| {
        let mut arcs = oid("1.3.6.1.2.1.118.1.2.2.1").arcs().to_vec();
        arcs.push(column);
        arcs.extend(crate::agent::rfc3877::active_instance(&long, index));
        Oid::new(&arcs)
    };
    assert_eq!(bench.text(&instance(11)), format!("host={}", "€".repeat(83)), "of 255 octets, 254 are whole characters");
    assert_eq!(bench.text(&oid(&format!("1.3.6.1.4.1.731.1.1.1.1.1.1.7.{index}"))), "ä".repeat(127));
}

#[test]
fn the_history_says_what_happened_to_what() {
    let mut bench = Bench::new(TablesConfig::default());
    let mut event = Event::new(alarm(1).key, Report::Log(Severity::Minor), name("a reboot"));
    event.origin.producer = Some(name("ipmi"));
    let logged = Subject::Event { event: Arc::new(event), catalogued: true, without_effect: None };
    let logged = bench.change(ChangeKind::Logged, at("2026-11-22T03:12:00Z"), logged);
    let mut worse = alarm(2);
    worse.severity = Severity::Critical;
    let subject = Subject::Alarm { alarm: Arc::new(worse), previous_severity: Some(Severity::Major) };
    let mut worse = Change::clone(&bench.change(ChangeKind::SeverityChanged, at("2026-11-22T03:13:00Z"), subject));
    worse.reasons = vec![
        klaxon_schemas::change::Reason::Entry(Position(17)),
        klaxon_schemas::change::Reason::Timer(klaxon_schemas::change::Timer::EndsAt),
    ];
    (worse.actor, worse.note) = (Some(name("jane")), Some(name("so be it")));
    bench.commit(vec![logged, Arc::new(worse)], Vec::new());
    bench.follow();
    let rows: Vec<_> = bench.rows(&Root::default().oid(&[1, 5, 1])).into_values().collect();
    let cell = |row: usize, column: u32| rows[row][&column].clone();
    assert_eq!(rows.len(), 2);
    assert_eq!(cell(0, AlarmColumn::Text as u32), octets("a reboot"));
    assert_eq!(cell(0, AlarmColumn::Severity as u32), Value::Integer(5));
    assert_eq!(cell(0, AlarmColumn::Producer as u32), octets("ipmi"));
    assert_eq!(cell(0, AlarmColumn::Id as u32), octets(""));
    assert_eq!(cell(0, HistoryColumn::Kind as u32), Value::Integer(15));
    assert_eq!(cell(1, AlarmColumn::Severity as u32), Value::Integer(3));
    assert_eq!(cell(1, HistoryColumn::Kind as u32), Value::Integer(3));
    assert_eq!(cell(1, HistoryColumn::PreviousSeverity as u32), Value::Integer(4));
    assert_eq!(cell(1, HistoryColumn::At as u32), time([7, 234, 11, 22, 3, 13, 0, 0]));
    assert_eq!(cell(1, HistoryColumn::Actor as u32), octets("jane"));
    assert_eq!(cell(1, HistoryColumn::Note as u32), octets("so be it"));
    assert_eq!(cell(1, HistoryColumn::Reasons as u32), octets("entry 17\ntimer ends-at"));
    assert!(!rows[1].contains_key(&(AlarmColumn::Suppressed as u32)));
}

#[test]
fn what_refers_to_a_row_refers_to_one_that_is_there() {
    let mut strange = alarm(2);
    (strange.key.alarm_type, strange.severity) = (name("no.such"), Severity::Indeterminate);
    let mut bench = Bench::with(TablesConfig::default(), vec![alarm(1), strange, alarm(3)], None);
    bench.alarms(ChangeKind::Cleared, vec![cleared(alarm(3), "2026-11-22T04:00:00Z")]);
    bench.follow();
    let mut pointers = 0;
    for root in ["1.3.6.1.2.1.118", "1.3.6.1.2.1.121"] {
        for (oid, value) in bench.walk(&super::oid(root)) {
            let Value::Oid(target) = value else { continue };
            let is_of_kind =
                target.arcs().starts_with(Root::default().oid(&[0]).arcs()) || target == Root::default().oid(&[1, 4, 1, 4]);
            if target != super::oid("0.0") && !is_of_kind {
                assert!(matches!(bench.get(&target), Found::Value(_)), "{oid} refers to {target}");
                pointers += 1;
            }
        }
    }
    // A model of each type and one more, each with six states, refer to each other; an alarm to three rows, a clear to one.
    let models = Catalogue::built_in().iter().count() + 1;
    assert_eq!(pointers, models * 6 * 2 + 2 * 3 + 1);
}

#[test]
fn the_tables_of_rfc_3877_have_their_values() {
    let bench = Bench::with(TablesConfig::default(), vec![alarm(1)], None);
    let index = bench.indexes.of(alarm(1).id);
    let rows = bench.rows(&oid("1.3.6.1.2.1.118.1.2.2.1"));
    assert_eq!(rows.keys().collect::<Vec<_>>(), [&vec![0, 11, 7, 234, 11, 22, 3, 12, 0, 6, 43, 0, 0, index]]);
    let row = rows.values().next().expect("there is one");
    assert_eq!(row.keys().copied().collect::<Vec<u32>>(), (4..=14).collect::<Vec<u32>>());
    let Value::OctetString(engine) = &row[&4] else { panic!("is octets") };
    assert_eq!(engine.len(), 21);
    assert_eq!((&row[&5], &row[&6]), (&Value::Integer(1), &Value::OctetString(Bytes::from_static(&[192, 0, 2, 7]))));
    assert_eq!(row[&11], octets("host=web-1.filesystem=/var: /var is 1 % full"));
    let Value::Oid(model) = &row[&13] else { panic!("refers to its model") };
    assert_eq!(model.arcs()[..12], oid("1.3.6.1.2.1.118.1.1.2.1.3").arcs()[..]);
    assert_eq!(model.arcs().last(), Some(&5), "major is the fifth state");
    // The model of its type, in this state.
    let number = model.arcs()[13];
    let of_model = |column: u32| bench.value(&oid(&format!("1.3.6.1.2.1.118.1.1.2.1.{column}.0.{number}.5")));
    assert_eq!(of_model(6), octets("File system nearly full: major"));
    assert_eq!((of_model(4), of_model(5)), (Value::Gauge32(14), Value::Integer(4)));
    let of_itu = |column: u32| bench.value(&oid(&format!("1.3.6.1.2.1.121.1.1.1.1.{column}.0.{number}.4")));
    assert_eq!((of_itu(2), of_itu(3)), (Value::Integer(4), Value::Integer(547)));
    assert_eq!(bench.value(&oid("1.3.6.1.2.1.121.1.2.2.1.3.0")), Value::Gauge32(1));
    assert_eq!(bench.value(&oid("1.3.6.1.2.1.118.1.2.4.1.1.0")), Value::Gauge32(1));
    assert_eq!(bench.value(&oid("1.3.6.1.2.1.118.1.2.4.1.2.0")), Value::Gauge32(0), "it stood before the start");
}

#[test]
fn the_variable_that_tells_a_state_is_where_the_model_says() {
    use crate::agent::oids::{NotificationKind, NotificationObject};
    let place =
        NotificationKind::Raised.objects().position(|object| object == NotificationObject::Alarm(AlarmColumn::Severity));
    // sysUpTime and snmpTrapOID are the first two, and the first is 1.
    assert_eq!(place.map(|place| place + 3), Some(14));
}

#[test]
fn the_tables_of_starlingx_are_as_specified_or_as_they_are() {
    let mut own = alarm(2);
    (own.key.alarm_type, own.severity) = (name("no.such.type"), Severity::Indeterminate);
    let entity = format!("region=RegionOne.system={}.host=web-1.filesystem=/var", alarm(1).key.site);
    let (strange, _) = crate::agent::starlingx::names(None, &own.key, "");
    for (profile, columns, uuid) in [(WrsProfile::AsSpecified, 11, 36), (WrsProfile::AsStarlingx, 12, 35)] {
        let config = TablesConfig { wrs: Some(Wrs { form: profile, ..Wrs::default() }), ..TablesConfig::default() };
        let mut bench = Bench::with(config, vec![full(), alarm(1), own.clone()], None);
        let (one, two) = (bench.indexes.of(alarm(1).id), bench.indexes.of(own.id));
        let rows = bench.rows(&oid("1.3.6.1.4.1.731.1.1.1.1.1.1"));
        assert_eq!(rows.len(), 2, "what is shelved is not listed");
        let row = &rows[&vec![one]];
        assert_eq!(row.len(), columns);
        assert_eq!(row[&2], octets(&alarm(1).id.to_string()[..uuid]));
        assert_eq!((&row[&3], &rows[&vec![two]][&3]), (&octets("100.104"), &octets(&strange)));
        assert_eq!(row[&4], octets(&entity));
        assert_eq!(row[&5], time([7, 234, 11, 22, 3, 12, 0, 6]));
        assert_eq!((&row[&6], &rows[&vec![two]][&6]), (&Value::Integer(3), &Value::Integer(1)));
        assert_eq!(row[&7], octets("/var is 1 % full"));
        assert_eq!((&row[&8], &row[&9]), (&Value::Integer(3), &Value::Integer(48)));
        assert_eq!((&row[&11], &row[&12]), (&Value::Integer(0), &Value::Integer(1)));

        bench.alarms(ChangeKind::Acknowledged, vec![alarm(1)]);
        bench.alarms(ChangeKind::Cleared, vec![cleared(alarm(1), "2026-11-22T04:00:00Z")]);
        bench.follow();
        let events: Vec<_> = bench.rows(&oid("1.3.6.1.4.1.731.1.1.1.1.4.1")).into_values().collect();
        assert_eq!(events.iter().map(|row| row[&4].clone()).collect::<Vec<_>>(), [1, 1, 1, 0].map(Value::Integer));
        assert_eq!(events[3].len(), columns + 1);
        assert_eq!(events[3][&5], octets(&entity));
        assert_eq!(events[3][&6], time([7, 234, 11, 22, 4, 0, 0, 0]));
        assert_ne!(events[1][&2], events[3][&2], "each line has an id of its own");
    }
}
