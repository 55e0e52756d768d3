//! What holds for any order, any repetition and any length of time.

mod harness;

use std::sync::Arc;

use harness::{Node, site};
use klaxon_schemas::action::{Action, Matcher, ShelfOrder, Verb};
use klaxon_schemas::change::{Change, ChangeKind, Subject};
use klaxon_schemas::entry::{EntryKind, Started};
use klaxon_schemas::event::{AlarmKey, Details, Event, Lease, Origin, Report, SpanRule};
use klaxon_schemas::ids::{ActionId, Epoch, Sequence};
use klaxon_schemas::names::{Actor, AlarmType, Producer, Qualifier, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::Settings;
use klaxon_schemas::wire::v1;
use proptest::prelude::*;

fn report(resource: usize, report: Report, sequence: Option<(u64, u64)>) -> Event {
    Event {
        key: AlarmKey {
            site: site(),
            resource: Resource::new(&format!("host=h{resource}")).expect("valid"),
            alarm_type: AlarmType::new("x").expect("valid"),
            qualifier: Qualifier::new("").expect("valid"),
        },
        report,
        text: Text::new("").expect("valid"),
        details: Details::default(),
        event_time: None,
        origin: Origin {
            producer: sequence.map(|_| Producer::new("p").expect("valid")),
            sequence: sequence.map(|(epoch, seq)| Sequence { epoch, seq }),
            event_id: None,
            relay: None,
        },
        lease: None,
        ends_at: None,
        span: SpanRule::default(),
        order_by_event_time: false,
    }
}

fn apply(node: &mut Node, event: Event) {
    node.apply(EntryKind::Event(Arc::new(event)));
}

/// What an operator sees: which alarms hold, how bad they are.
fn active(node: &Node) -> Vec<(String, Severity)> {
    let mut list: Vec<_> = node
        .alarms
        .values()
        .filter(|alarm| alarm.is_active())
        .map(|alarm| (alarm.key.resource.to_string(), alarm.severity))
        .collect();
    list.sort();
    list
}

#[derive(Debug, Clone)]
struct Step {
    resource: usize,
    said: Report,
    /// By how many places a network may delay it.
    delay: usize,
    copies: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let severity = || (0usize..5).prop_map(|number| Severity::ALL[number]);
    let said = prop_oneof![
        4 => severity().prop_map(Report::Raise),
        2 => Just(Report::Clear),
        2 => (1u32..40, severity())
            .prop_map(|(every, severity)| Report::Heartbeat { every: Lease::new(every).expect("in bounds"), severity }),
    ];
    let step = (0usize..4, said, 0usize..12, 1usize..4).prop_map(|(resource, said, delay, copies)| Step {
        resource,
        said,
        delay,
        copies,
    });
    prop::collection::vec(step, 1..120)
}

/// Who has promised to be heard from, and with what.
fn promises(node: &Node) -> Vec<(String, u32, Severity)> {
    let promises = node.heartbeats();
    promises.map(|(key, beat)| (key.resource.to_string(), beat.every_s.seconds(), beat.severity)).collect()
}

fn event_of(number: usize, step: &Step) -> Event {
    report(step.resource, step.said, Some((1, number as u64 + 1)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("KLAXON_LONG").is_some() { 20_000 } else { 300 }))]

    #[test]
    fn repeated_delayed_and_reordered_reports_end_in_the_same_list(steps in steps()) {
        let mut straight = Node::new(false);
        for (number, step) in steps.iter().enumerate() {
            apply(&mut straight, event_of(number, step));
        }
        let mut deliveries: Vec<(usize, usize)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            for copy in 0..step.copies {
                deliveries.push((number + step.delay * copy.max(1), number));
            }
        }
        deliveries.sort_by_key(|(at, number)| (*at, usize::MAX - number));
        let mut bad = Node::new(true);
        for (_, number) in deliveries {
            apply(&mut bad, event_of(number, &steps[number]));
        }
        prop_assert_eq!(active(&straight), active(&bad));
        // A heartbeat that a raise has overtaken has no effect; the one behind it, or a clear, decides.
        let decided = |node: &Node| {
            let mut promises = promises(node);
            promises.retain(|(resource, ..)| {
                let last = steps.iter().rev().find(|step| format!("host=h{}", step.resource) == *resource);
                !last.is_some_and(|step| matches!(step.said, Report::Raise(_)))
            });
            promises
        };
        prop_assert_eq!(decided(&straight), decided(&bad));
    }

    #[test]
    fn a_promise_is_lost_exactly_when_nothing_was_heard_for_its_lease(
        beats in prop::collection::vec((0usize..4, 1u32..40, 0i64..30, 0u8..10), 1..60)
    ) {
        let mut node = Node::new(true);
        // Of each resource: when silence will be too long.
        let mut due: std::collections::BTreeMap<String, i64> = std::collections::BTreeMap::new();
        let mut now = 0;
        for (resource, every, pause, what) in beats {
            now += pause;
            node.pass(now * 1_000_000, |_, _| {});
            if what == 0 {
                node.reload();
                let started = Started { version: "test".into(), epoch: Epoch(1), new_epoch: None, boot: None };
                node.apply(EntryKind::Started(started));
                let leases: std::collections::BTreeMap<_, _> =
                    promises(&node).into_iter().map(|(resource, every, _)| (resource, i64::from(every))).collect();
                for (resource, due) in due.iter_mut().filter(|(_, due)| **due > now) {
                    *due = now + leases[resource];
                }
            }
            let said = Report::Heartbeat { every: Lease::new(every).expect("in bounds"), severity: Severity::Major };
            apply(&mut node, report(resource, said, None));
            due.insert(format!("host=h{resource}"), now + i64::from(every));
            let silent: Vec<_> = due.iter().filter(|(_, due)| **due <= now).map(|(resource, _)| resource.clone()).collect();
            let raised: Vec<_> = active(&node).into_iter().map(|(resource, _)| resource).collect();
            prop_assert_eq!(&silent, &raised);
            let lost: Vec<_> = node.heartbeats().filter(|(_, beat)| beat.lost_at.is_some()).collect();
            prop_assert_eq!(lost.len(), silent.len());
        }
    }

    #[test]
    fn the_same_inputs_make_the_same_bytes(steps in steps()) {
        let bytes = |reload| {
            let mut node = Node::new(reload);
            for (number, step) in steps.iter().enumerate() {
                node.pass(number as i64 * 1_000_000, |_, _| {});
                apply(&mut node, event_of(number, step));
            }
            let changes: Vec<_> = node.changes.iter().map(|change| v1::Change::stored(change)).collect();
            let records: Vec<_> =
                node.records.iter().map(|(key, record)| v1::StatePut::new(key, record)).collect();
            (serde_json::to_string(&changes).expect("serializes"), serde_json::to_string(&records).expect("serializes"))
        };
        prop_assert_eq!(bytes(false), bytes(true));
    }

    #[test]
    fn changes_are_numbered_without_a_gap(steps in steps()) {
        let mut node = Node::new(false);
        for (number, step) in steps.iter().enumerate() {
            apply(&mut node, event_of(number, step));
        }
        for (change, wanted) in node.changes.iter().zip(1..) {
            prop_assert_eq!(change.number.seq.0, wanted);
        }
    }
}

/// Every hour each of 1 000 keys flaps, for a year; numbered, so that windows and order marks are in it too.
#[test]
fn a_year_of_flapping_leaves_what_is_kept_as_small_as_it_was() {
    let mut node = Node::new(false);
    let hours = if std::env::var_os("KLAXON_LONG").is_some() { 365 * 24 } else { 14 * 24 };
    let mut seq = 0;
    let mut sizes = Vec::new();
    for hour in 0..hours {
        node.pass(hour * 3_600_000_000, |_, _| {});
        for key in 0..1000 {
            for said in [Report::Raise(Severity::Major), Report::Clear] {
                seq += 1;
                apply_unchecked(&mut node, report(key, said, Some((1, seq))));
            }
        }
        node.changes.clear();
        sizes.push((node.alarms.len(), node.records.len()));
    }
    assert_eq!(sizes[0], sizes[sizes.len() - 1]);
    assert_eq!(node.alarms.len(), 1000);
    let largest =
        node.alarms.values().map(|alarm| serde_json::to_vec(&v1::Alarm::stored(alarm)).expect("serializes").len()).max();
    assert!(largest.expect("there are some") < 1200, "an alarm has grown to {largest:?} bytes");
}

/// Ten thousand promises, renewed a few times: nothing is told of it and nothing grows.
#[test]
fn many_promises_that_are_kept_leave_no_trace_in_history() {
    let mut node = Node::new(false);
    let said = Report::Heartbeat { every: Lease::new(90).expect("in bounds"), severity: Severity::Major };
    for minute in 0..4 {
        node.pass(minute * 60_000_000, |_, changes| panic!("nobody is silent: {changes:?}"));
        let before = node.changes.len();
        for key in 0..10_000 {
            apply_unchecked(&mut node, report(key, said, None));
        }
        assert_eq!(node.changes.len() - before, if minute == 0 { 10_000 } else { 0 });
        assert_eq!((node.engine.heartbeats(), node.heartbeats().count(), node.alarms.len()), (10_000, 10_000, 0));
    }
    // All at once fall silent: each deadline entry works off so many.
    let mut steps = Vec::new();
    node.pass(10 * 60_000_000, |_, changes| steps.push(changes.len()));
    assert_eq!(steps.iter().sum::<usize>(), 10_000);
    assert!(steps.iter().all(|changes| *changes <= klaxon_correlate::TIMERS_PER_ENTRY_MAX));
    assert_eq!(active(&node).len(), 10_000);
}

/// As [`Node::apply`], without comparing the whole state each time.
fn apply_unchecked(node: &mut Node, event: Event) {
    node.apply_quick(EntryKind::Event(Arc::new(event)));
}

/// As if the engine had broken on a deadline: what it belongs to is left alone from then on, also after a restart.
#[test]
fn a_deadline_that_is_put_aside_is_not_due_again() {
    let mut node = Node::new(false);
    let mut leased = report(1, Report::Raise(Severity::Major), None);
    leased.lease = Some(Lease::new(60).expect("in bounds"));
    apply(&mut node, leased);
    apply(&mut node, report(2, Report::Raise(Severity::Major), None));
    apply(&mut node, report(2, Report::Clear, None));
    let first = node.engine.next_deadline();
    node.now_us = 90 * 24 * 3_600_000_000;
    node.quarantine(EntryKind::Deadline);
    node.reload();
    assert!(node.engine.next_deadline() > first, "the lease is due no more, the purge is");
    let said = Report::Heartbeat { every: Lease::new(60).expect("in bounds"), severity: Severity::Major };
    node.apply_quick(EntryKind::Deadline);
    apply(&mut node, report(3, said, None));
    node.now_us += 60_000_000;
    node.quarantine(EntryKind::Deadline);
    node.reload();
    node.apply(EntryKind::Deadline);
    assert!(
        node.heartbeats().all(|(_, heartbeat)| heartbeat.lost_at.is_some()),
        "the promise is lost, though nothing was raised"
    );
    assert!(node.engine.next_deadline().is_none_or(|due| due.0 > u64::try_from(node.now_us).expect("positive")));
    assert_eq!(active(&node).len(), 1);
}

#[test]
fn a_shelf_over_many_alarms_works_in_steps_that_a_restart_goes_on_with() {
    let mut node = Node::new(false);
    for key in 0..3000 {
        apply_unchecked(&mut node, report(key, Report::Raise(Severity::Major), None));
    }
    let until = node.wall().saturating_add_micros(60_000_000);
    let matcher = Matcher { alarm_type: Some(AlarmType::new("x").expect("valid")), ..Matcher::default() };
    let shelf = ShelfOrder::new(matcher, until, Text::new("work").expect("valid"));
    let shelved = |node: &Node| node.alarms.values().filter(|alarm| alarm.shelved.is_some()).count();
    node.apply(EntryKind::Action(Arc::new(Action {
        id: ActionId(uuid::Uuid::from_u128(1)),
        actor: Actor::new("ann").expect("valid"),
        from: None,
        ordered_at: None,
        expires_at: None,
        verb: Verb::AddShelf(Box::new(shelf)),
    })));
    assert_eq!(shelved(&node), 1024);
    node.reload();
    node.apply(EntryKind::Deadline);
    assert_eq!(shelved(&node), 2048);
    node.pass(1_000_000, |_, _| {});
    assert_eq!(shelved(&node), 3000);
    node.pass(60_000_000, |node, _| node.reload());
    assert_eq!(shelved(&node), 0);
    assert_eq!(node.engine.next_deadline(), None);
}

/// What was due before an entry happens as it is applied, and is not told as its own.
#[test]
fn what_was_due_before_an_entry_is_not_its_own() {
    let mut node = Node::new(false);
    node.apply(EntryKind::Settings(Settings { cleared_max: 1, ..Settings::default() }));
    let mut over = report(1, Report::Raise(Severity::Major), None);
    over.ends_at = Some(node.wall());
    let own = |node: &mut Node, event: Event| {
        let (changes, own) = node.apply_telling(EntryKind::Event(Arc::new(event)));
        let kinds = |changes: &[Arc<Change>]| changes.iter().map(|change| change.kind).collect::<Vec<_>>();
        (kinds(&changes), kinds(&own))
    };
    assert_eq!(own(&mut node, over), (vec![ChangeKind::Raised], vec![ChangeKind::Raised]));
    let (all, its) = own(&mut node, report(2, Report::Raise(Severity::Major), None));
    assert_eq!((all, its), (vec![ChangeKind::Cleared, ChangeKind::Raised], vec![ChangeKind::Raised]));
    own(&mut node, report(2, Report::Clear, None));
    // The one above the number goes as the next comes, which itself changes nothing that is told.
    let refused = EntryKind::Action(Arc::new(Action {
        id: ActionId(uuid::Uuid::from_u128(1)),
        actor: Actor::new("ann").expect("valid"),
        from: None,
        ordered_at: None,
        expires_at: None,
        verb: Verb::Unsuppress { alarm_type: AlarmType::new("x").expect("valid") },
    }));
    let (all, its) = node.apply_telling(refused);
    assert_eq!((all.len(), all[0].kind), (2, ChangeKind::Purged));
    assert!(matches!(its[..], [ref one] if matches!(one.subject, Subject::Refusal(_))), "{its:?}");
}
