//! What receivers are told of alarms that are mirrored from sites below, whose numbers are not this node's.

#[path = "notify/node.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod node;

use std::sync::Arc;

use klaxon_correlate::{Engine, Output};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::change::Change;
use klaxon_schemas::child::{ChildEvent, ChildFact, ChildKind, Digests, Relay, RelayContent, bucket_bounds};
use klaxon_schemas::entry::{Entry, EntryKind, Started};
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::ids::{AlarmId, Epoch, Position};
use klaxon_schemas::names::{ChildName, Door, Site, Text};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::Cursor;
use klaxon_schemas::time::{JournalTime, Timestamp};
use klaxon_store::publish::Item;

use node::{Mode, Node, World, key, receiver};

/// A site below: its engine, and all its changes.
struct Below {
    engine: Engine,
    epoch: Epoch,
    entries: u64,
    changes: Vec<Arc<Change>>,
}

fn child() -> ChildName {
    ChildName::new("s").expect("valid")
}

impl Below {
    fn new() -> Self {
        let engine = Engine::load(Site::new("s").expect("valid"), [], [], Cursor::default());
        let mut below = Self { engine, epoch: Epoch(0), entries: 0, changes: Vec::new() };
        below.begin(Epoch(1));
        below
    }

    fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.apply(EntryKind::Started(Started { version: "test".into(), epoch, new_epoch: None, boot: None }));
    }

    fn apply(&mut self, kind: EntryKind) {
        self.entries += 1;
        let entry = Entry {
            position: Position(self.entries),
            at: JournalTime(self.entries),
            wall: Timestamp::from_micros(1_700_000_000_000_000 + self.entries as i64).expect("in range"),
            door: Door::new("test").expect("valid"),
            kind,
        };
        let mut out = Output::default();
        self.engine.apply(&entry, &mut out);
        self.changes.extend(out.take(&self.engine).changes);
    }

    fn say(&mut self, resource: &str, report: Report) {
        let mut key = key(resource);
        key.site = Site::new("s").expect("valid");
        self.apply(EntryKind::Event(Arc::new(Event::new(key, report, Text::new("it happened").expect("valid")))));
    }

    fn raise(&mut self, resource: &str, severity: Severity) {
        self.say(resource, Report::Raise(severity));
    }

    fn last(&self) -> u64 {
        self.changes.len() as u64
    }

    fn send(&self, node: &Node, content: RelayContent) {
        node.publish(vec![Item::Relay(Arc::new(Relay { child: child(), epoch: self.epoch, content }))]);
    }

    fn live(&self, node: &Node) {
        let after = position(node);
        let changes = self.changes[after as usize..].to_vec();
        self.send(node, RelayContent::Live { after: Position(after), upto: Position(self.last()), changes, unread: 0 });
    }

    fn align(&self, node: &Node) {
        let at = Position(self.last());
        let alarms = self.engine.alarms();
        let differing = Digests::of(&alarms).differing(&node.store.read().state().digests_via(&child()));
        for bucket in differing {
            let (from, to) = bucket_bounds(bucket);
            let is_in = |alarm: &&Arc<Alarm>| alarm.id >= from && alarm.id <= to;
            let alarms = alarms.iter().filter(is_in).cloned().collect();
            self.send(node, RelayContent::Alignment { at, from, to, alarms, unread: Vec::new() });
        }
        let after = Position(position(node).min(at.0));
        self.send(node, RelayContent::Aligned { at, after, fingerprint: 0, below: Vec::new() });
    }

    fn history(&self, node: &Node) {
        let reached = node.store.read().state().children()[&child()].reached.clone().expect("it stands");
        for span in reached.missing {
            let changes = self.changes[span.after.0 as usize..span.upto.0 as usize].to_vec();
            self.send(node, RelayContent::History { after: span.after, upto: span.upto, changes, unread: 0 });
        }
    }
}

fn position(node: &Node) -> u64 {
    let state = node.store.read();
    state.state().children().get(&child()).and_then(|child| child.reached.as_ref()).map_or(0, |reached| reached.position.0)
}

fn fact(node: &Node, what: ChildEvent) {
    node.publish(vec![Item::Child(Arc::new(ChildFact { child: child(), actor: None, what }))]);
}

fn enrol(node: &Node) {
    fact(node, ChildEvent::Enrolled { kind: ChildKind::Site, join: None, needs_approval: false });
    fact(node, ChildEvent::Connected { node: uuid::Uuid::from_u128(1), version: "1".into(), connection: None });
}

/// Until the receiver has been told of everything up to here: an alarm of the node's own says so.
fn settle(node: &Node, world: &World, nonce: &mut u32) -> Vec<String> {
    *nonce += 1;
    let mark = format!("mark={nonce}");
    node.raise(&mark, Severity::Warning);
    node.wait("the mark is told", || world.told("all").iter().any(|told| told.ends_with(&mark)));
    node.quiet("all");
    world.told("all").into_iter().filter(|told| !told.contains("mark=")).collect()
}

#[test]
fn what_stands_is_told_once_and_what_is_past_to_nobody() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::default();
    let node = Node::open(dir.path(), &world);
    node.apply([receiver("all")]);
    let (mut below, mut nonce) = (Below::new(), 0);
    enrol(&node);
    below.raise("host=a", Severity::Major);
    below.raise("host=gone", Severity::Critical);
    below.say("host=gone", Report::Clear);
    below.align(&node);
    assert_eq!(settle(&node, &world, &mut nonce), ["raised major host=a"]);
    below.history(&node);
    assert_eq!(settle(&node, &world, &mut nonce), ["raised major host=a"], "history notifies nobody");
    below.raise("host=a", Severity::Critical);
    below.raise("host=b", Severity::Minor);
    below.live(&node);
    let told = ["raised major host=a", "changed critical host=a", "raised minor host=b"];
    assert_eq!(settle(&node, &world, &mut nonce), told);
    // The WAN is gone, and meanwhile: one ends, one changes its severity, one is another episode, one its words only.
    below.say("host=a", Report::Clear);
    below.raise("host=b", Severity::Major);
    below.raise("host=c", Severity::Major);
    below.align(&node);
    below.history(&node);
    let mut since = settle(&node, &world, &mut nonce).split_off(told.len());
    since.sort();
    assert_eq!(since, ["changed major host=b", "cleared critical host=a", "raised major host=c"]);
    node.close();
}

#[test]
fn an_owner_that_numbers_anew_is_heard_also_where_its_numbers_are_lower() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::default();
    let node = Node::open(dir.path(), &world);
    node.apply([receiver("all")]);
    let (mut below, mut nonce) = (Below::new(), 0);
    enrol(&node);
    below.begin(Epoch(9_000_000_000_000));
    for severity in [Severity::Minor, Severity::Major, Severity::Minor, Severity::Major] {
        below.raise("host=a", severity);
    }
    below.align(&node);
    assert_eq!(settle(&node, &world, &mut nonce), ["raised major host=a"]);
    // As it was long before, in a numbering that is later than the one that is known, with changes in one that is earlier.
    let id: AlarmId = below.engine.alarms()[0].id;
    let before = below
        .changes
        .iter()
        .find_map(|change| match &change.subject {
            klaxon_schemas::change::Subject::Alarm { alarm, .. } if alarm.id == id => Some(Arc::clone(alarm)),
            _ => None,
        })
        .expect("it was raised");
    assert!(before.severity == Severity::Minor);
    below.epoch = Epoch(9_000_000_000_001);
    let at = Position(below.last());
    let (from, to) = bucket_bounds(id.0.as_bytes()[0]);
    below.send(&node, RelayContent::Alignment { at, from, to, alarms: vec![before], unread: Vec::new() });
    assert_eq!(settle(&node, &world, &mut nonce)[1..], ["changed minor host=a"]);
    // It is there no more, and how it ended nobody knows.
    below.send(&node, RelayContent::Alignment { at, from, to, alarms: Vec::new(), unread: Vec::new() });
    assert_eq!(settle(&node, &world, &mut nonce)[2..], ["cleared minor host=a"]);
    node.close();
}

#[test]
fn a_receiver_that_was_away_is_told_what_stands_and_its_end_whoever_numbers_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::default();
    let node = Node::open(dir.path(), &world);
    node.apply([receiver("all")]);
    let (mut below, mut nonce) = (Below::new(), 0);
    enrol(&node);
    below.raise("host=a", Severity::Major);
    below.raise("host=b", Severity::Major);
    below.align(&node);
    settle(&node, &world, &mut nonce);
    world.set("all", Mode::Down);
    below.say("host=a", Report::Clear);
    below.live(&node);
    below.raise("host=b", Severity::Critical);
    below.live(&node);
    node.crash();
    // It is retired meanwhile: the end of what was told is told.
    let node = Node::open(dir.path(), &world);
    fact(&node, ChildEvent::Retired);
    world.set("all", Mode::Up);
    node.apply([receiver("all")]);
    let mut told = settle(&node, &world, &mut nonce);
    told.sort();
    assert!(told.contains(&"cleared major host=a".to_owned()), "{told:?}");
    assert!(told.contains(&"retired critical host=b".to_owned()), "{told:?}");
    node.wait("the child is forgotten", || node.store.read().state().children().is_empty());
    assert!(node.store.read().alarms().all(|alarm| alarm.owner.is_none()));
    node.close();
}

#[test]
fn what_a_receiver_has_yet_to_hear_of_a_site_is_its_lag() {
    const MISSED: u64 = 3_000;
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::default();
    let node = Node::open(dir.path(), &world);
    node.apply([receiver("all")]);
    let mut below = Below::new();
    enrol(&node);
    below.raise("host=first", Severity::Major);
    below.align(&node);
    node.quiet("all");
    world.set("all", Mode::Down);
    for number in 0..MISSED {
        below.raise(&format!("host=h{number}"), Severity::Minor);
        if number % 500 == 499 {
            below.live(&node);
        }
    }
    let lag = || node.shown("all").lag_changes;
    node.wait("all of it is yet to be told", || lag() == MISSED);
    // Where it was is known also behind a crash.
    node.crash();
    let node = Node::open(dir.path(), &world);
    node.apply([receiver("all")]);
    node.wait("it is still", || node.shown("all").lag_changes == MISSED);
    world.set("all", Mode::Up);
    node.quiet("all");
}

#[test]
fn what_is_told_while_its_site_is_silent_is_told_as_stale() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::default();
    let node = Node::open(dir.path(), &world);
    let (mut below, mut nonce) = (Below::new(), 0);
    enrol(&node);
    below.raise("host=a", Severity::Major);
    below.raise("host=b", Severity::Minor);
    below.align(&node);
    node.apply([receiver("all")]);
    settle(&node, &world, &mut nonce);
    fact(&node, ChildEvent::Silent { since: Timestamp::from_micros(1_700_000_000_000_000).expect("in range") });
    // That alone tells nobody anything of the alarms.
    assert_eq!(settle(&node, &world, &mut nonce).len(), 3);
    node.apply([receiver("all"), receiver("late")]);
    let stale = |name: &str| {
        let alarms = world.arrived(name).into_iter().filter_map(|one| match one.what {
            klaxon_api::notify::What::Alarm { alarm, .. } if alarm.owner.is_some() => Some(alarm.stale.is_some()),
            _ => None,
        });
        alarms.collect::<Vec<_>>()
    };
    node.wait("the late one is told", || stale("late").len() == 2);
    assert_eq!((stale("all"), stale("late")), (vec![false, false], vec![true, true]));
    node.close();
}
