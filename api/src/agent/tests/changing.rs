//! Tables while they change.

use std::collections::BTreeSet;

use klaxon_schemas::alarm::Shelved;
use klaxon_schemas::state::Suppression;

use super::*;
use crate::agent::Wrs;

fn all() -> TablesConfig {
    TablesConfig { wrs: Some(Wrs::default()), ..TablesConfig::default() }
}

/// The numbers of the rows that each of the three active tables has.
fn active(bench: &Bench) -> [BTreeSet<u32>; 3] {
    let indexes = |entry: &Oid| bench.rows(entry).into_keys().map(|index| *index.last().expect("has a number")).collect();
    [
        indexes(&Root::default().oid(&[1, 4, 1])),
        indexes(&oid("1.3.6.1.2.1.118.1.2.2.1")),
        indexes(&oid("1.3.6.1.4.1.731.1.1.1.1.1.1")),
    ]
}

#[test]
fn a_row_comes_goes_and_comes_again_with_its_number() {
    let mut bench = Bench::with(all(), vec![alarm(1), alarm(2)], None);
    let index = |bench: &Bench, number| bench.indexes.of(alarm(number).id);
    let (one, two, three) = (index(&bench, 1), index(&bench, 2), index(&bench, 3));
    assert_eq!(active(&bench), [(); 3].map(|()| BTreeSet::from([one, two])));

    bench.alarms(ChangeKind::Raised, vec![alarm(3)]);
    bench.alarms(ChangeKind::Cleared, vec![cleared(alarm(1), "2026-11-22T04:00:00Z")]);
    assert_eq!(active(&bench), [(); 3].map(|()| BTreeSet::from([one, two])), "not before it is published");
    bench.follow();
    assert_eq!(active(&bench), [(); 3].map(|()| BTreeSet::from([two, three])));

    // Raised again, later: the same number, another time.
    let mut again = alarm(1);
    (again.raise_seq, again.raised_at) = (2, at("2026-11-22T05:00:00Z"));
    bench.alarms(ChangeKind::Raised, vec![again.clone()]);
    bench.follow();
    assert_eq!(active(&bench), [(); 3].map(|()| BTreeSet::from([one, two, three])));
    assert_eq!(bench.cell(AlarmColumn::RaiseSeq, &again), Value::Gauge32(2));

    // Cleared and forgotten between two looks.
    bench.alarms(ChangeKind::Cleared, vec![cleared(again.clone(), "2026-11-22T06:00:00Z")]);
    bench.alarms(ChangeKind::Purged, vec![cleared(again, "2026-11-22T06:00:00Z")]);
    bench.follow();
    assert_eq!(active(&bench), [(); 3].map(|()| BTreeSet::from([two, three])));
    assert_eq!(bench.value(&Root::default().oid(&[1, 1, 8, 0])), Value::Gauge32(2));
}

#[test]
fn what_is_shelved_or_suppressed_is_not_what_a_list_shows() {
    let mut bench = Bench::with(all(), vec![alarm(1), alarm(2)], None);
    let index = |bench: &Bench, number| bench.indexes.of(alarm(number).id);
    let (one, two) = (index(&bench, 1), index(&bench, 2));
    let mut shelved = alarm(1);
    shelved.shelved = Some(Shelved {
        by: "jane".parse().expect("is a name"),
        at: at("2026-11-22T04:00:00Z"),
        until: at("2026-11-22T05:00:00Z"),
        reason: "works".parse().expect("is a text"),
        shelf: None,
    });
    bench.alarms(ChangeKind::Shelved, vec![shelved.clone()]);
    bench.follow();
    let both = BTreeSet::from([one, two]);
    assert_eq!(active(&bench), [both.clone(), BTreeSet::from([two]), BTreeSet::from([two])]);
    assert_eq!(bench.cell(AlarmColumn::Shelved, &shelved), Value::Integer(1));
    assert_eq!(bench.cell(AlarmColumn::ShelvedReason, &shelved), octets("works"));

    let suppression =
        Arc::new(Suppression { by: "jane".parse().expect("is a name"), at: at("2026-11-22T04:00:00Z"), reason: None });
    let key = StateKey::Suppression("disk.full".parse().expect("is a name"));
    let subject = |suppression: &Arc<Suppression>| Subject::Suppression {
        alarm_type: "disk.full".parse().expect("is a name"),
        suppression: Arc::clone(suppression),
    };
    let change = bench.change(ChangeKind::Suppressed, at("2026-11-22T04:00:00Z"), subject(&suppression));
    bench.commit(vec![change], vec![(key.clone(), Some(StateRecord::Suppression(Arc::clone(&suppression))))]);
    bench.follow();
    assert_eq!(active(&bench), [both.clone(), BTreeSet::new(), BTreeSet::new()]);
    assert_eq!(bench.cell(AlarmColumn::Suppressed, &alarm(2)), Value::Integer(1));

    // Its clear is no clear of what was listed.
    bench.alarms(ChangeKind::Cleared, vec![cleared(alarm(2), "2026-11-22T04:30:00Z")]);
    let change = bench.change(ChangeKind::Unsuppressed, at("2026-11-22T05:00:00Z"), subject(&suppression));
    bench.commit(vec![change], vec![(key, None)]);
    bench.alarms(ChangeKind::Unshelved, vec![alarm(1)]);
    bench.follow();
    assert_eq!(active(&bench), [(); 3].map(|()| BTreeSet::from([one])));
    assert!(bench.walk(&oid("1.3.6.1.2.1.118.1.3.2")).is_empty());
}

#[test]
fn what_never_came_to_the_list_is_not_counted_as_raised() {
    let mut bench = Bench::with(all(), vec![alarm(1)], None);
    // alarmActiveStatsActives; ituAlarmActiveStatsMajors and …Criticals.
    let counts = |bench: &Bench| {
        let of = |entry: &str, column: u32| match bench.rows(&oid(entry)).into_values().next() {
            Some(row) => row[&column].clone(),
            None => panic!("{entry} has no row"),
        };
        let itu = "1.3.6.1.2.1.121.1.2.2.1";
        [of("1.3.6.1.2.1.118.1.2.4.1", 2), of(itu, 8), of(itu, 7)].map(|count| match count {
            Value::Gauge32(count) | Value::Counter32(count) => count,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(counts(&bench), [0, 0, 0], "it stood before");
    let mut shelved = alarm(2);
    shelved.shelved = Some(Shelved {
        by: "jane".parse().expect("is a name"),
        at: at("2026-11-22T04:00:00Z"),
        until: at("2026-11-22T05:00:00Z"),
        reason: "works".parse().expect("is a text"),
        shelf: None,
    });
    bench.alarms(ChangeKind::Raised, vec![shelved.clone(), alarm(3)]);
    bench.follow();
    assert_eq!(counts(&bench), [1, 1, 0], "the shelved one is in no list");
    shelved.severity = Severity::Critical;
    bench.alarms(ChangeKind::SeverityChanged, vec![shelved.clone()]);
    bench.follow();
    assert_eq!(counts(&bench), [1, 1, 0]);
    shelved.shelved = None;
    bench.alarms(ChangeKind::Unshelved, vec![shelved]);
    bench.follow();
    assert_eq!(counts(&bench), [2, 1, 1], "now it is");
    bench.alarms(ChangeKind::SeverityChanged, vec![Alarm { severity: Severity::Critical, ..alarm(3) }]);
    bench.alarms(ChangeKind::Updated, vec![alarm(1)]);
    bench.follow();
    assert_eq!(counts(&bench), [2, 1, 2]);
    // Raised anew between two looks.
    let again = Alarm { raise_seq: 2, raised_at: at("2026-11-22T05:00:00Z"), ..alarm(1) };
    bench.alarms(ChangeKind::Cleared, vec![cleared(alarm(1), "2026-11-22T04:00:00Z")]);
    bench.alarms(ChangeKind::Raised, vec![again]);
    bench.follow();
    assert_eq!(counts(&bench), [3, 2, 2]);
}

#[test]
fn the_address_follows_the_agent() {
    let bench = Bench::with(all(), vec![alarm(1)], None);
    let address = |bench: &Bench| {
        let row = bench.rows(&oid("1.3.6.1.2.1.118.1.2.2.1")).into_values().next().expect("has a row");
        [row[&5].clone(), row[&6].clone()]
    };
    let octets = |octets: &'static [u8]| Value::OctetString(bytes::Bytes::from_static(octets));
    assert_eq!(address(&bench), [Value::Integer(1), octets(&[192, 0, 2, 7])]);
    bench.control.reached_at(Some([192, 0, 2, 8].into()));
    assert_eq!(address(&bench), [Value::Integer(1), octets(&[192, 0, 2, 8])]);
    bench.control.reached_at(None);
    assert_eq!(address(&bench), [Value::Integer(0), octets(&[])]);
}

#[test]
fn a_walk_during_changes_has_all_that_stands_throughout_once() {
    const CHANGES: u64 = 900;
    let stays: Vec<Alarm> = (0..600).map(|number| alarm(number * 2)).collect();
    let mut bench = Bench::with(all(), stays.clone(), None);
    for entry in [Root::default().oid(&[1, 4, 1, 2]), oid("1.3.6.1.2.1.118.1.2.2.1.11"), oid("1.3.6.1.4.1.731.1.1.1.1.1.1.2")] {
        let mut seen = Vec::new();
        let mut after = entry.clone();
        let mut step = 0;
        while let Some((oid, _)) = bench.next(&after).filter(|(oid, _)| oid.arcs().starts_with(entry.arcs())) {
            assert!(oid > after, "{oid} is not behind {after}");
            seen.push(*oid.arcs().last().expect("has an index"));
            after = oid;
            // At each step something comes and something that came goes. Where rows stand by their time, what comes comes behind the
            // walk: it ends only when less comes than is walked.
            step += 1;
            if step < CHANGES {
                bench.alarms(ChangeKind::Raised, vec![alarm(step * 2 + 1)]);
                if step > 20 {
                    bench.alarms(ChangeKind::Cleared, vec![cleared(alarm(step * 2 - 39), "2026-11-22T04:00:00Z")]);
                }
                bench.follow();
            }
            assert!(step < 5_000, "it does not end");
        }
        let once: BTreeSet<u32> = seen.iter().copied().collect();
        assert_eq!(once.len(), seen.len(), "nothing twice");
        for alarm in &stays {
            assert!(once.contains(&bench.indexes.of(alarm.id)), "{} was skipped", alarm.key.resource);
        }
        let rest: Vec<Alarm> = (0..=CHANGES).map(|step| cleared(alarm(step * 2 + 1), "2026-11-22T04:00:00Z")).collect();
        bench.alarms(ChangeKind::Cleared, rest);
        bench.follow();
    }
}

#[test]
fn the_history_is_a_window_that_a_restart_finds_again() {
    let config = TablesConfig { history_rows: 5, ..all() };
    let mut bench = Bench::new(config.clone());
    let entry = Root::default().oid(&[1, 5, 1]);
    for number in 1..=9 {
        bench.alarms(ChangeKind::Raised, vec![alarm(number)]);
        if number % 2 == 0 {
            bench.follow();
        }
    }
    bench.follow();
    let rows = bench.rows(&entry);
    let resources: Vec<&Value> = rows.values().map(|row| &row[&4]).collect();
    let last: Vec<Value> = (5..=9).map(|number| octets(&format!("host=web-{number}.filesystem=/var"))).collect();
    assert_eq!(resources, last.iter().collect::<Vec<_>>());
    assert_eq!(
        rows.values().map(|row| row[&43].clone()).collect::<Vec<_>>(),
        (5..=9).map(Value::Counter64).collect::<Vec<_>>()
    );

    bench.tracker.end();
    assert!(bench.rows(&entry).is_empty());
    bench.tracker.begin();
    assert_eq!(bench.rows(&entry), rows);
    bench.tracker.begin();
    assert_eq!(bench.rows(&entry), rows);
    // Of what was, StarlingX's table has the same.
    assert_eq!(bench.rows(&oid("1.3.6.1.4.1.731.1.1.1.1.4.1")).len(), 5);
}

#[test]
fn clears_are_kept_by_when_they_were_and_the_earliest_gives_way() {
    let config = TablesConfig { history_rows: 2, ..all() };
    let mut bench = Bench::with(config, (1..=3).map(alarm).collect(), None);
    for (number, time) in [(1, "2026-11-22T06:00:00Z"), (2, "2026-11-22T04:00:00Z"), (3, "2026-11-22T05:00:00Z")] {
        bench.alarms(ChangeKind::Cleared, vec![cleared(alarm(number), time)]);
    }
    bench.follow();
    let rows = bench.rows(&oid("1.3.6.1.2.1.118.1.3.2.1"));
    let indexes: Vec<u32> = rows.keys().map(|index| *index.last().expect("has a number")).collect();
    assert_eq!(indexes, [bench.indexes.of(alarm(3).id), bench.indexes.of(alarm(1).id)]);
    assert_eq!(bench.value(&oid("1.3.6.1.2.1.118.1.3.1.0")), Value::Gauge32(2));
    assert_eq!(bench.value(&oid("1.3.6.1.2.1.118.1.2.4.1.1.0")), Value::Gauge32(0));
}

#[test]
fn what_is_far_behind_is_taken_from_the_state() {
    let mut bench = Bench::with(all(), (1..=500).map(alarm).collect(), None);
    bench.alarms(ChangeKind::Cleared, (1..=200).map(|number| cleared(alarm(number), "2026-11-22T04:00:00Z")).collect());
    bench.alarms(ChangeKind::Purged, (1..=100).map(|number| cleared(alarm(number), "2026-11-22T04:00:00Z")).collect());
    bench.alarms(ChangeKind::Raised, (501..=510).map(alarm).collect());
    bench.tracker.begin();
    let expected: BTreeSet<u32> = (201..=510).map(|number| bench.indexes.of(alarm(number).id)).collect();
    assert_eq!(active(&bench), [(); 3].map(|()| expected.clone()));
}

#[test]
fn the_next_is_the_next_whatever_is_asked_behind() {
    let bench = Bench::with(TablesConfig { history_rows: 2, ..all() }, (1..=3).map(alarm).collect(), None);
    let everything = bench.walk(&Oid::new(&[1, 3]));
    let instances: Vec<&Oid> = everything.iter().map(|(oid, _)| oid).collect();
    assert!(instances.is_sorted() && instances.len() > 1_000);
    let check = |asked: &[u32]| {
        let asked = Oid::new(asked);
        let expected = instances.get(instances.partition_point(|oid| **oid <= asked)).copied().cloned();
        assert_eq!(bench.next(&asked).map(|(oid, _)| oid), expected, "behind {asked}");
    };
    for oid in instances.iter().step_by(7) {
        let arcs = oid.arcs();
        (1..=arcs.len()).for_each(|end| check(&arcs[..end]));
        check(&[arcs, &[0]].concat());
        for place in 6..arcs.len() {
            for other in [arcs[place].saturating_sub(1), arcs[place].saturating_add(1), 0, u32::MAX] {
                let mut near = arcs.to_vec();
                near[place] = other;
                check(&near);
            }
        }
    }
}

#[test]
fn a_row_is_stale_while_the_node_is_silent_through_which_it_comes_or_one_further_below() {
    use klaxon_schemas::child::{Below, Child, ChildKind};
    use klaxon_schemas::names::ChildName;

    let name = |text: &str| ChildName::new(text).expect("is a name");
    let of = |number, owner: &str| {
        let (owner, via) = (owner.parse().expect("is a name"), name("r"));
        Alarm { owner: Some(owner), via: Some(via), ..alarm(number) }
    };
    let (own, of_r, of_s) = (alarm(1), of(2, "r"), of(3, "s"));
    let mut bench = Bench::with(all(), vec![own.clone(), of_r.clone(), of_s.clone()], None);
    let child = |silent: Option<Timestamp>| {
        let json = serde_json::json!({"kind": "region", "enrolled_by": "ann", "enrolled_at": at("2026-11-22T01:00:00Z")});
        let child: Child = serde_json::from_value(json).expect("is one");
        vec![(StateKey::Child(name("r")), Some(StateRecord::Child(Arc::new(Child { silent_since: silent, ..child }))))]
    };
    let below = |silent_since: Option<Timestamp>| {
        let row =
            |row: &str, silent_since, via| Below { name: name(row), kind: ChildKind::Site, version: None, silent_since, via };
        let rows = vec![row("b", silent_since, None), row("s", None, Some(name("b")))];
        vec![(StateKey::Below(name("r")), Some(StateRecord::Below(Arc::new(rows))))]
    };
    let mut stale = |puts| {
        bench.commit(Vec::new(), puts);
        bench.follow();
        [&own, &of_r, &of_s].map(|alarm| {
            let since = bench.cell(AlarmColumn::StaleSince, alarm);
            let is_stale = bench.cell(AlarmColumn::Stale, alarm) == Value::Integer(1);
            assert_eq!(is_stale, since != crate::agent::values::NO_TIME);
            is_stale
        })
    };
    let silent = Some(at("2026-11-22T04:00:00Z"));
    assert_eq!(stale(child(None)), [false, false, false]);
    assert_eq!(stale(child(silent)), [false, true, true]);
    assert_eq!(stale(below(silent)), [false, true, true]);
    assert_eq!(stale(child(None)), [false, false, true]);
    assert_eq!(stale(below(None)), [false, false, false]);
    // What is raised while it is silent is stale from the beginning.
    assert_eq!(stale(child(silent)), [false, true, true]);
    let late = of(4, "r");
    bench.alarms(ChangeKind::Raised, vec![late.clone()]);
    bench.follow();
    assert_eq!(bench.cell(AlarmColumn::Stale, &late), Value::Integer(1));
}
