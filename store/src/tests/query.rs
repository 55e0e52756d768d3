//! Lists and counts agree with looking at every alarm.

use super::*;
use crate::state::State;
use crate::{AlarmQuery, AlarmSort, Cleared, Order};
use klaxon_schemas::access::Scope;
use klaxon_schemas::alarm::{Mark, Shelved};
use klaxon_schemas::names::Actor;
use klaxon_schemas::state::Suppression;
use proptest::prelude::*;

fn some_alarm() -> impl Strategy<Value = Alarm> {
    (0u64..40, 0usize..5, any::<(bool, bool, bool)>(), 0u64..10, 0u64..10).prop_map(
        |(number, severity, (cleared, acknowledged, shelved), raised, changed)| {
            let by = Actor::new("ann").expect("valid");
            let mut alarm = alarm(number);
            alarm.severity = Severity::ALL[severity];
            alarm.cleared = cleared.then(|| Clearance { at: at(changed), by: ClearedBy::Report });
            alarm.acknowledged = acknowledged.then(|| Mark { by: by.clone(), at: at(changed), note: None });
            let reason = Text::new("").expect("valid");
            alarm.shelved = shelved.then(|| Shelved { by, at: at(changed), until: at(99), reason, shelf: None });
            alarm.raised_at = at(raised);
            alarm.changed_at = at(changed);
            alarm.count = changed;
            alarm
        },
    )
}

fn some_query() -> impl Strategy<Value = AlarmQuery> {
    let names = (
        prop::option::of(prop::sample::select(vec!["north", "south", "west"])),
        prop::option::of(prop::sample::select(vec!["host=web-1", "host=web-3.filesystem=/var/3", "host=web"])),
        prop::option::of(prop::sample::select(vec!["disk.full", "link.down", "none"])),
        prop::option::of(prop::sample::select(vec!["NUMBER 1", "web-2", "nowhere", ""])),
    );
    let axes = (
        prop::sample::select(vec![Cleared::No, Cleared::Yes, Cleared::Both]),
        prop::option::of(0usize..5),
        any::<(Option<bool>, Option<bool>, Option<bool>)>(),
        prop::option::of(0u64..10),
    );
    let sort = (
        prop::sample::select(vec![
            AlarmSort::Severity,
            AlarmSort::RaisedAt,
            AlarmSort::ChangedAt,
            AlarmSort::Resource,
            AlarmSort::AlarmType,
            AlarmSort::Site,
            AlarmSort::Count,
        ]),
        any::<bool>(),
        1usize..8,
    );
    (names, axes, sort).prop_map(
        |((site, resource, alarm_type, text), (cleared, severity, is, raised), (sort, down, limit))| AlarmQuery {
            site: site.map(|site| Site::new(site).expect("valid")),
            resource: resource.map(|resource| Resource::new(resource).expect("valid")),
            alarm_type: alarm_type.map(|alarm_type| AlarmType::new(alarm_type).expect("valid")),
            text: text.map(str::to_owned),
            severity_min: severity.map(|severity| Severity::ALL[severity]),
            cleared,
            acknowledged: is.0,
            shelved: is.1,
            suppressed: is.2,
            raised_from: raised.map(at),
            sort,
            order: if down { Order::Descending } else { Order::Ascending },
            limit,
            ..AlarmQuery::default()
        },
    )
}

fn naive(state: &State, query: &AlarmQuery) -> Vec<Arc<Alarm>> {
    let mut found: Vec<Arc<Alarm>> = state
        .alarms()
        .filter(|alarm| {
            let key = &alarm.key;
            let text = format!("{}\n{}\n{}", alarm.text, key.resource, key.alarm_type).to_lowercase();
            (query.cleared == Cleared::Both || alarm.cleared.is_some() == (query.cleared == Cleared::Yes))
                && query.site.as_ref().is_none_or(|site| *site == key.site)
                && query.resource.as_ref().is_none_or(|resource| resource.contains(&key.resource))
                && query.alarm_type.as_ref().is_none_or(|alarm_type| *alarm_type == key.alarm_type)
                && query.text.as_ref().is_none_or(|words| text.contains(&words.to_lowercase()))
                && query.severity_min.is_none_or(|least| alarm.severity >= least)
                && query.acknowledged.is_none_or(|is| alarm.acknowledged.is_some() == is)
                && query.shelved.is_none_or(|is| alarm.shelved.is_some() == is)
                && query.suppressed.is_none_or(|is| state.is_suppressed(&key.alarm_type) == is)
                && query.raised_from.is_none_or(|from| alarm.raised_at >= from)
        })
        .cloned()
        .collect();
    let by = |alarm: &Alarm| -> (u64, i64, String) {
        match query.sort {
            AlarmSort::Severity => (alarm.severity as u64, alarm.raised_at.as_micros(), String::new()),
            AlarmSort::RaisedAt => (0, alarm.raised_at.as_micros(), String::new()),
            AlarmSort::ChangedAt => (0, alarm.changed_at.as_micros(), String::new()),
            AlarmSort::Resource => (0, 0, alarm.key.resource.to_string()),
            AlarmSort::AlarmType => (0, 0, alarm.key.alarm_type.to_string()),
            AlarmSort::Site => (0, 0, alarm.key.site.to_string()),
            AlarmSort::Count => (alarm.count, 0, String::new()),
        }
    };
    found.sort_by_key(|alarm| (by(alarm), alarm.id));
    if query.order == Order::Descending {
        found.reverse();
    }
    found
}

proptest! {
    #[test]
    fn pages_together_are_what_a_naive_filter_finds(
        alarms in prop::collection::vec((some_alarm(), any::<bool>()), 0..80),
        query in some_query(),
        suppressed in any::<bool>(),
    ) {
        let mut state = State::default();
        for (number, (alarm, forget)) in alarms.into_iter().enumerate() {
            let id = alarm.id;
            state.put_alarm(&Arc::new(alarm), Position(number as u64));
            if forget && number % 3 == 0 {
                state.apply_fact(crate::journal::record::Fact::Forgotten(id), Position(number as u64)).expect("applies");
            }
        }
        let disk = AlarmType::new("disk.full").expect("valid");
        if suppressed {
            let record = Suppression { by: Actor::new("bob").expect("valid"), at: at(1), reason: None };
            state.put_record(StateKey::Suppression(disk.clone()), Some(StateRecord::Suppression(Arc::new(record))), Position(1));
        }
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = state.list(&AlarmQuery { after: after.clone(), ..query.clone() });
            prop_assert!(page.items.len() <= query.limit);
            found.extend(page.items);
            let Some(next) = page.next else { break };
            prop_assert_eq!(&next.to_string().parse::<crate::AlarmCursor>().expect("reads"), &next);
            after = Some(next);
        }
        prop_assert_eq!(found, naive(&state, &query));

        let counts = state.counts();
        let active: Vec<_> = state.alarms().filter(|alarm| alarm.is_active()).collect();
        let total: u64 = counts.sites.values().map(|site| site.total().total).sum();
        let shown: u64 = counts.sites.values().map(|site| site.total().shown).sum();
        let hidden: u64 = counts.sites.values().map(|site| site.total().suppressed).sum();
        prop_assert_eq!(total, active.len() as u64);
        prop_assert_eq!(counts.cleared(), (state.alarms_len() - active.len()) as u64);
        prop_assert_eq!(hidden, active.iter().filter(|alarm| state.is_suppressed(&alarm.key.alarm_type)).count() as u64);
        let expected = active.iter().filter(|alarm| alarm.shelved.is_none() && !state.is_suppressed(&alarm.key.alarm_type));
        prop_assert_eq!(shown, expected.count() as u64);
        for alarm in state.alarms() {
            let digits = alarm.id.to_string();
            prop_assert!(state.find_by_prefix(&digits[..10], &Scope::all(), 10).contains(&alarm));
        }
    }
}

/// Lists and counts of alarms that come through nodes below, of which some are silent, or say that others are.
#[test]
fn what_comes_through_a_silent_node_is_stale_and_nothing_of_it_is_written_to_the_alarms() {
    use klaxon_schemas::alarm::Stale;
    use klaxon_schemas::child::{Below, Child, ChildKind, Digests};
    use klaxon_schemas::ids::Position;
    use klaxon_schemas::names::ChildName;

    let name = |text: &str| ChildName::new(text).expect("valid");
    let row = |silent: Option<u64>| {
        let json = serde_json::json!({"kind": "region", "enrolled_by": "ann", "enrolled_at": at(1)});
        let child: Child = serde_json::from_value(json).expect("is one");
        StateRecord::Child(Arc::new(Child { silent_since: silent.map(at), ..child }))
    };
    let below = |text: &str, silent: Option<u64>| Below {
        name: name(text),
        kind: ChildKind::Site,
        version: None,
        silent_since: silent.map(at),
        via: None,
    };
    let mut state = State::default();
    let via = |number: u64| [None, Some("r"), Some("s")][(number % 3) as usize];
    let owner = |number: u64| via(number).map(|via| if number.is_multiple_of(2) { "t" } else { via });
    for number in 0..60 {
        let mut alarm = alarm(number);
        alarm.via = via(number).map(name);
        alarm.owner = owner(number).map(|owner| Site::new(owner).expect("valid"));
        alarm.stale = (number % 5 == 0).then(|| Stale { since: at(3) });
        if number % 4 == 0 {
            alarm.cleared = Some(Clearance { at: at(9), by: ClearedBy::Report });
            alarm.stale = None;
        }
        state.put_alarm(&Arc::new(alarm), Position(number + 1));
    }
    let check = |state: &State, silent: &dyn Fn(&Alarm) -> bool| {
        let is = |alarm: &Alarm| alarm.stale.is_some() || (alarm.cleared.is_none() && silent(alarm));
        for sort in [AlarmSort::Severity, AlarmSort::Resource] {
            let query = AlarmQuery { stale: Some(true), cleared: Cleared::Both, limit: 1000, sort, ..AlarmQuery::default() };
            let mut listed: Vec<_> = state.list(&query).items.iter().map(|alarm| alarm.id).collect();
            listed.sort_unstable();
            let wanted: Vec<_> = state.alarms().filter(|alarm| is(alarm)).map(|alarm| alarm.id).collect();
            assert_eq!(listed, wanted, "{sort:?}");
            let query = AlarmQuery { stale: Some(false), ..query };
            assert_eq!(state.list(&query).items.len(), 60 - wanted.len());
        }
        for (site, counts) in &state.counts().sites {
            let stale = state.alarms().filter(|alarm| alarm.cleared.is_none() && alarm.key.site == *site && is(alarm)).count();
            assert_eq!(counts.total().stale, stale as u64, "{site}");
        }
    };
    let through = |alarm: &Alarm, via: &str| alarm.via.as_deref() == Some(via);
    check(&state, &|_| false);
    state.put_record(StateKey::Child(name("s")), Some(row(Some(5))), Position(100));
    check(&state, &|alarm| through(alarm, "s"));
    let rows = vec![below("r2", None), below("t", Some(4))];
    state.put_record(StateKey::Child(name("r")), Some(row(None)), Position(101));
    state.put_record(StateKey::Below(name("r")), Some(StateRecord::Below(Arc::new(rows))), Position(101));
    check(&state, &|alarm| through(alarm, "s") || (through(alarm, "r") && alarm.owner.as_deref() == Some("t")));
    assert_eq!(state.alarms_via(&name("s")).count(), 20);
    assert_eq!(state.digests_via(&name("s")), Digests::of(state.alarms().filter(|alarm| through(alarm, "s"))));
    // An alarm that comes another way from then on is counted there.
    let moved = state.alarms().find(|alarm| through(alarm, "s") && alarm.cleared.is_none()).cloned().expect("there are some");
    let mut other = Alarm::clone(&moved);
    other.via = Some(name("q"));
    state.put_alarm(&Arc::new(other), Position(102));
    check(&state, &|alarm| through(alarm, "s") || (through(alarm, "r") && alarm.owner.as_deref() == Some("t")));
    let (low, high) = (AlarmId(uuid::Uuid::nil()), AlarmId(uuid::Uuid::max()));
    assert_eq!(state.alarms_via_between(&name("s"), low, high).count(), state.alarms_via_len(&name("s")));
    assert_eq!((state.alarms_via_len(&name("s")), state.alarms_via_len(&name("q"))), (19, 1));
    state.put_record(StateKey::Child(name("s")), None, Position(103));
    state.put_record(StateKey::Child(name("r")), None, Position(104));
    state.put_record(StateKey::Below(name("r")), None, Position(104));
    check(&state, &|_| false);
    let (first, last) = klaxon_schemas::child::bucket_bounds(moved.id.0.as_bytes()[0]);
    assert!(state.alarms_between(first, last).any(|alarm| alarm.id == moved.id));
    assert_eq!(state.alarms_between(last, first).count(), 0);
}
