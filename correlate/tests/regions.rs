//! Regions: nodes that relay what further sites below them send.

mod harness;

use std::sync::Arc;

use harness::fleet::{Fleet, at_site, child};
use klaxon_correlate::Disposition;
use klaxon_schemas::change::{ChangeKind, Subject};
use klaxon_schemas::child::{Below, ChildEvent, ChildKind, ChildNote, ChildStep, RelayContent};
use klaxon_schemas::ids::Position;
use klaxon_schemas::state::{StateKey, StateRecord};

/// What a region says of nodes below it has a record of its own, is there again after a restart and goes with the region.
#[test]
fn the_nodes_below_a_region_are_kept_apart() {
    let mut fleet = Fleet::new(true);
    fleet.add("r", ChildKind::Region);
    let name = child("x");
    let below = vec![Below { name, kind: ChildKind::Site, version: None, silent_since: None, via: None }];
    let aligned = |at| RelayContent::Aligned { at: Position(at), after: Position(at), fingerprint: 0, below: below.clone() };
    let rows = |fleet: &Fleet| fleet.parent.records.contains_key(&StateKey::Below(child("r")));
    fleet.send("r", aligned(1));
    assert!(rows(&fleet));
    assert!(fleet.record("r").expect("is there").below.is_empty(), "its own record has none");
    // Were they lost when the engine is built anew, the next step would drop the record.
    fleet.send("r", RelayContent::Live { after: Position(1), upto: Position(2), changes: Vec::new(), unread: 0 });
    assert!(rows(&fleet));
    fleet.fact("r", ChildEvent::Retired);
    fleet.parent.apply(klaxon_schemas::entry::EntryKind::Deadline);
    assert!(!rows(&fleet));
}

/// What stands in the journal of the node above `below`, behind what has come in, goes up to the node above `above`.
fn relay_up(below: &Fleet, above: &mut Fleet, name: &str) {
    let after = above.record(name).and_then(|child| child.reached.as_ref()).expect("it stands").position;
    let changes = below.parent.changes[after.0 as usize..].to_vec();
    let upto = Position(below.parent.changes.len() as u64);
    let (_, disposition) = above.send(name, RelayContent::Live { after, upto, changes, unread: 0 });
    assert_eq!(disposition, Disposition::Applied);
}

/// What a node above says of those below it, as its uplink does.
fn rows_of(fleet: &Fleet) -> Vec<Below> {
    let mut rows = Vec::new();
    for (key, record) in &fleet.parent.records {
        if let (StateKey::Child(name), StateRecord::Child(child)) = (key, record) {
            let (name, kind, silent_since) = (name.clone(), child.kind, child.silent_since);
            rows.push(Below { name, kind, version: None, silent_since, via: None });
        }
        if let (StateKey::Below(name), StateRecord::Below(below)) = (key, record) {
            rows.extend(below.iter().map(|row| row.through(name)));
        }
    }
    rows
}

/// Whether the alarms of `owner` that come through `via` are stale.
fn is_silent(fleet: &Fleet, via: &str, owner: &str) -> bool {
    let mut record = fleet.record(via).cloned().expect("is there");
    if let Some(StateRecord::Below(below)) = fleet.parent.records.get(&StateKey::Below(child(via))) {
        record.below = Arc::clone(below);
    }
    record.silent_for(Some(&owner.parse().expect("valid"))).is_some()
}

#[test]
fn when_a_region_is_silent_so_is_all_below_it_however_deep() {
    let node = |name: &str| {
        let mut fleet = Fleet::new(true);
        fleet.parent = harness::Node::at(name.parse().expect("valid"), true);
        fleet.parent.changes.clear();
        fleet
    };
    let (mut b, mut a, mut centre) = (node("b"), node("a"), Fleet::new(true));
    a.add("b", ChildKind::Region);
    centre.add("a", ChildKind::Region);
    let aligned = |below| RelayContent::Aligned { at: Position(0), after: Position(0), fingerprint: 0, below };
    a.send("b", aligned(Vec::new()));
    centre.send("a", aligned(Vec::new()));
    let pass_on = |b: &Fleet, a: &mut Fleet, centre: &mut Fleet| {
        relay_up(b, a, "b");
        relay_up(a, centre, "a");
    };
    b.fact("s", ChildEvent::Enrolled { kind: ChildKind::Site, join: None, needs_approval: false });
    b.fact("s", ChildEvent::Connected { node: uuid::Uuid::from_u128(7), version: "1".into(), connection: None });
    pass_on(&b, &mut a, &mut centre);
    let all = |centre: &Fleet| ["a", "b", "s"].map(|owner| is_silent(centre, "a", owner));
    assert_eq!(all(&centre), [false, false, false]);
    let silent = || ChildEvent::Silent { since: klaxon_schemas::time::Timestamp::from_micros(1).expect("is one") };
    let heard = || ChildEvent::Connected { node: uuid::Uuid::from_u128(7), version: "1".into(), connection: None };
    // A hears B no more, and of S only through B.
    a.fact("b", silent());
    relay_up(&a, &mut centre, "a");
    assert_eq!(all(&centre), [false, true, true]);
    assert!(is_silent(&a, "b", "b") && is_silent(&a, "b", "s"));
    // The same, as A says it when it connects anew.
    let at = Position(a.parent.changes.len() as u64);
    let of_a = |below| RelayContent::Aligned { at, after: at, fingerprint: 0, below };
    centre.send("a", of_a(Vec::new()));
    assert_eq!(all(&centre), [false, false, false]);
    centre.send("a", of_a(rows_of(&a)));
    assert_eq!(all(&centre), [false, true, true]);
    a.fact("b", heard());
    relay_up(&a, &mut centre, "a");
    assert_eq!(all(&centre), [false, false, false]);
    b.fact("s", silent());
    pass_on(&b, &mut a, &mut centre);
    assert_eq!(all(&centre), [false, false, true]);
    // S goes to A itself. That B misses it is no news from then on.
    a.add("s", ChildKind::Site);
    a.fact("s", ChildEvent::Joined { credential: credential() });
    relay_up(&a, &mut centre, "a");
    assert_eq!(all(&centre), [false, false, false]);
    b.fact("s", ChildEvent::Moved { to: klaxon_schemas::names::Text::new("https://a").expect("valid") });
    a.fact("b", silent());
    pass_on(&b, &mut a, &mut centre);
    assert_eq!(all(&centre), [false, true, false]);
    let at = Position(a.parent.changes.len() as u64);
    centre.send("a", RelayContent::Aligned { at, after: at, fingerprint: 0, below: rows_of(&a) });
    assert_eq!(all(&centre), [false, true, false]);
    // With B what is below it is gone, and S is not.
    a.fact("b", ChildEvent::Retired);
    relay_up(&a, &mut centre, "a");
    let Some(StateRecord::Below(rows)) = centre.parent.records.get(&StateKey::Below(child("a"))) else { panic!("has rows") };
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["s"]);
}

fn credential() -> klaxon_schemas::child::Credential {
    let since = klaxon_schemas::time::Timestamp::from_micros(1).expect("is one");
    klaxon_schemas::child::Credential { hash: "ab".into(), since, until: None }
}

/// What a region relays of sites below it is theirs; whom this node hears itself, nobody else is heard about.
#[test]
fn a_region_speaks_for_sites_below_it_but_not_for_those_that_are_heard_directly() {
    // S is mirrored at R, whose own engine is that of the node above in this fleet.
    let mut region = Fleet::new(false);
    region.parent = harness::Node::at("r".parse().expect("valid"), false);
    region.add("s", ChildKind::Site);
    at_site(&mut region, 1, 0);
    region.align("s", usize::MAX);
    at_site(&mut region, 2, 0);
    region.live("s");

    let mut centre = Fleet::new(true);
    centre.add("r", ChildKind::Region);
    let send = |centre: &mut Fleet, content| centre.send("r", content);
    let row = |silent| Below { name: child("s"), kind: ChildKind::Site, version: None, silent_since: silent, via: None };
    send(&mut centre, RelayContent::Aligned { at: Position(0), after: Position(0), fingerprint: 0, below: vec![row(None)] });
    let changes = region.parent.changes.clone();
    let upto = Position(changes.len() as u64);
    let (came, disposition) =
        send(&mut centre, RelayContent::Live { after: Position(0), upto, changes: changes.clone(), unread: 0 });
    assert_eq!((came.len(), disposition), (changes.len(), Disposition::Applied));
    let mirrored: Vec<_> = centre.parent.alarms.values().collect();
    assert!(mirrored.len() == 2 && mirrored.iter().all(|alarm| alarm.owner.as_deref() == Some("s")));
    assert!(mirrored.iter().all(|alarm| alarm.via.as_deref() == Some("r")));
    // It says that S is silent: S's alarms are stale, and R's are not.
    let said = |what| {
        let mut change = klaxon_schemas::change::Change::clone(&changes[0]);
        change.kind = ChangeKind::Child;
        change.subject = Subject::Child(Arc::new(ChildNote { name: child("s"), kind: ChildKind::Site, what }));
        vec![Arc::new(change)]
    };
    let (after, upto) = (upto, Position(upto.0 + 1));
    send(&mut centre, RelayContent::Live { after, upto, changes: said(ChildStep::Silent), unread: 0 });
    let of = |centre: &Fleet, owner: &str| is_silent(centre, "r", owner);
    assert!(of(&centre, "s") && !of(&centre, "r"));
    send(
        &mut centre,
        RelayContent::Live { after: upto, upto: Position(upto.0 + 1), changes: said(ChildStep::Heard), unread: 0 },
    );
    assert!(!of(&centre, "s"));
    // S comes to the centre itself: from then on it alone is heard about its alarms.
    centre.add("s", ChildKind::Site);
    centre.below.insert("s".to_owned(), region.below.remove("s").expect("is there"));
    centre.align("s", usize::MAX);
    let before = centre.parent.alarms.clone();
    assert!(before.values().all(|alarm| alarm.via.as_deref() == Some("s")) && before.len() == 2);
    let after = centre.record("r").and_then(|child| child.reached.as_ref()).expect("it stands").position;
    let (came, disposition) =
        send(&mut centre, RelayContent::Live { after, upto: Position(after.0 + 9), changes: changes[1..].to_vec(), unread: 0 });
    assert_eq!(disposition, Disposition::Applied);
    assert!(came.iter().all(|change| &*change.site == "r"), "{came:?}");
    assert_eq!(before, centre.parent.alarms);
    // While it is silent, R is heard about it again: what is news comes through R, what is not stays as it is.
    centre.fact("s", ChildEvent::Silent { since: centre.parent.wall() });
    let before = centre.parent.alarms.clone();
    let after = Position(after.0 + 9);
    let (_, disposition) =
        send(&mut centre, RelayContent::Live { after, upto: Position(after.0 + 1), changes: changes[1..].to_vec(), unread: 0 });
    assert_eq!((disposition, &before), (Disposition::Applied, &centre.parent.alarms));
    centre.below.get_mut("s").expect("is there").node.now_us += 1;
    at_site(&mut centre, 2, 4);
    let acknowledged = centre.below["s"].node.changes.last().cloned().expect("was acknowledged");
    assert_eq!(acknowledged.kind, ChangeKind::Acknowledged);
    let after = Position(after.0 + 1);
    let (came, _) = send(
        &mut centre,
        RelayContent::Live { after, upto: Position(after.0 + 1), changes: vec![owned_by_s(&acknowledged)], unread: 0 },
    );
    assert_eq!(came.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Acknowledged]);
    let via =
        |centre: &Fleet, via: &str| centre.parent.alarms.values().filter(|alarm| alarm.via.as_deref() == Some(via)).count();
    assert_eq!((via(&centre, "s"), via(&centre, "r")), (1, 1));
    // When it is back, it is heard itself.
    centre.fact("s", ChildEvent::Connected { node: uuid::Uuid::from_u128(7), version: "1".into(), connection: None });
    centre.align("s", usize::MAX);
    assert_eq!((via(&centre, "s"), via(&centre, "r")), (2, 0));
}

#[test]
fn what_a_region_had_not_heard_of_ends_when_its_site_is_heard_itself() {
    let mut centre = Fleet::new(true);
    centre.add("r", ChildKind::Region);
    centre.below.insert("s".to_owned(), harness::fleet::Below::new("s"));
    for resource in [1, 2] {
        at_site(&mut centre, resource, 0);
    }
    let changes: Vec<_> = centre.below["s"].node.changes.iter().map(|change| owned_by_s(change)).collect();
    centre.send("r", RelayContent::Aligned { at: Position(0), after: Position(0), fingerprint: 0, below: Vec::new() });
    centre.send("r", RelayContent::Live { after: Position(0), upto: Position(2), changes, unread: 0 });
    assert_eq!(centre.parent.alarms.len(), 2);
    at_site(&mut centre, 1, 3);
    at_site(&mut centre, 1, 5);
    let below = centre.below.remove("s").expect("is there");
    centre.add("s", ChildKind::Site);
    centre.below.insert("s".to_owned(), below);
    centre.align("s", usize::MAX);
    let alarms: Vec<_> =
        centre.parent.alarms.values().map(|alarm| (alarm.key.resource.as_str(), alarm.via.as_deref())).collect();
    assert_eq!(alarms, [("host=h2", Some("s"))]);
}

/// A change of S as R relays it.
fn owned_by_s(change: &klaxon_schemas::change::Change) -> Arc<klaxon_schemas::change::Change> {
    let mut change = change.clone();
    if let Subject::Alarm { alarm, .. } = &mut change.subject {
        Arc::make_mut(alarm).owner = Some("s".parse().expect("valid"));
    }
    Arc::new(change)
}
