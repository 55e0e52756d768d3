//! Receivers of notifications where the journal is in a Kafka: nodes divide them among themselves, and whoever goes on with one tells
//! it nothing twice and leaves nothing out. With a real broker and real receivers.
#![cfg(feature = "kafka")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use harness::hook::Hook;
use harness::kafka::Brokers;
use harness::mount::{LoopMount, can_mount};
use harness::{Node, Setup, scratch, wait_until};
use klaxon_store::kafka::partition_of;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Three nodes have one each.
const PARTITIONS: u16 = 3;

/// Receivers whose partitions are all different.
fn names(count: usize) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let all = (0..).map(|number| format!("hook-{number}"));
    all.filter(|name| taken.insert(partition_of(name.as_bytes(), PARTITIONS))).take(count).collect()
}

/// A centre: brokers, and receivers that are set at all of its nodes.
struct Centre {
    journal: String,
    receivers: String,
    scratch: tempfile::TempDir,
}

impl Centre {
    fn new(brokers: &Brokers, prefix: &str, hooks: &[(String, &Hook)], lines: &str) -> Self {
        let journal = brokers.journal(prefix, &format!("partitions = {PARTITIONS}"));
        let of = |(name, hook): &(String, &Hook)| {
            format!(
                "[receivers.{name}]\nfold_after = \"0s\"\nlog_events = true\n{lines}\n[receivers.{name}.webhook]\nurl = \"{}\"\n",
                hook.url()
            )
        };
        let receivers: String = hooks.iter().map(of).collect();
        brokers.init(&journal);
        Self { journal, receivers, scratch: scratch("kafka-notify-") }
    }

    fn node(&self, name: &str, lines: &str) -> Node {
        let journal = self.journal.replace("[journal]\n", &format!("[journal]\nnode_name = \"{name}\"\n{lines}\n"));
        self.node_in(self.scratch.path(), name, &journal)
    }

    fn node_in(&self, dir: &Path, name: &str, journal: &str) -> Node {
        let config = format!("{journal}\n[node]\nsite = \"noc\"\n{}", self.receivers);
        Setup::new(&dir.join(name)).config(&config).start()
    }
}

/// The receivers that run at a node.
fn runs(node: &Node) -> BTreeSet<String> {
    let all = node.json("/receivers");
    let all = all["receivers"].as_array().expect("is a list").iter();
    all.map(|one| one["name"].as_str().expect("has a name").to_owned()).collect()
}

/// What is told is the raise of an alarm, or, of each fifth, that something is logged.
fn raise(node: &Node, numbers: std::ops::Range<usize>) {
    let events: Vec<Value> = numbers
        .map(|number| {
            let (site, resource) = (format!("site-{}", number % 9), format!("unit={number}"));
            let mut event = json!({ "site": site, "resource": resource, "alarm_type": "t", "severity": "major" });
            if number % 5 == 0 {
                event["kind"] = "log".into();
            }
            event
        })
        .collect();
    let count = events.len();
    let answer = node.send(&Value::from(events));
    assert_eq!(answer["accepted"], count, "{answer}");
}

/// What each number stood for, in all that was told, also what was not confirmed; no number stands for two things.
fn by_number(hook: &Hook) -> BTreeMap<u64, (String, String)> {
    let mut all = BTreeMap::new();
    let mut epochs = BTreeSet::new();
    for post in hook.posts() {
        for one in post.json()["notifications"].as_array().expect("is a list") {
            epochs.insert(one["epoch"].to_string());
            let subject = if one["what"] == "log" { &one["event"] } else { &one["alarm"] };
            let what = subject["resource"].as_str().map_or_else(|| one.to_string(), str::to_owned);
            let said = (what, one["how"].to_string());
            let number = one["delivery_seq"].as_u64().expect("is a number");
            let before = all.insert(number, said.clone());
            assert!(before.as_ref().is_none_or(|before| *before == said), "{number}: {before:?} and {said:?}");
        }
    }
    assert!(epochs.len() < 2, "{epochs:?}");
    all
}

/// Each of these was told once, under numbers without a hole.
fn assert_told_once(hook: &Hook, count: usize) {
    let all = by_number(hook);
    let resources: BTreeSet<&String> = all.values().map(|(resource, _)| resource).collect();
    assert_eq!((all.len(), resources.len()), (count, count), "{all:?}");
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), (1..=count as u64).collect::<Vec<_>>());
}

fn assert_nothing_twice(hook: &Hook) {
    let told: Vec<u64> = hook.told().iter().map(|one| one["delivery_seq"].as_u64().expect("is a number")).collect();
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "{told:?}");
}

#[test]
fn receivers_are_divided_and_move_and_are_told_everything_once() {
    let Some(brokers) = Brokers::one() else { return };
    let hooks: Vec<Hook> = (0..3).map(|_| Hook::start()).collect();
    let named: Vec<_> = names(3).into_iter().zip(&hooks).collect();
    let centre = Centre::new(&brokers, "divide.", &named, "");
    let one = centre.node("one", "");
    wait_until("one has all", || runs(&one).len() == 3);
    let two = centre.node("two", "correlate = false");
    wait_until("two has some", || !runs(&two).is_empty() && runs(&one).len() + runs(&two).len() == 3);
    assert!(runs(&one).is_disjoint(&runs(&two)));
    raise(&one, 0..40);
    raise(&two, 40..60);
    hooks.iter().for_each(|hook| drop(hook.wait_told(60)));
    // A third joins, while there is more to tell.
    raise(&one, 60..160);
    let three = centre.node("three", "correlate = false");
    raise(&two, 160..200);
    wait_until("each has one", || [&one, &two, &three].iter().all(|node| runs(node).len() == 1));
    raise(&three, 200..220);
    hooks.iter().for_each(|hook| drop(hook.wait_told(220)));
    // One goes, and all is told by the others.
    assert!(two.stop().success());
    wait_until("the others have its", || runs(&one).len() + runs(&three).len() == 3);
    raise(&three, 220..240);
    for hook in &hooks {
        hook.wait_told(240);
        assert_nothing_twice(hook);
        assert_told_once(hook, 240);
    }
    for node in [one, three] {
        assert!(node.stop().success());
    }
}

#[test]
fn a_notifier_that_is_killed_leaves_nothing_untold() {
    let Some(brokers) = Brokers::one() else { return };
    let hook = Hook::start();
    let named = [("hook".to_owned(), &hook)];
    let centre = Centre::new(&brokers, "killed.", &named, "");
    let correlator = centre.node("correlator", "notify = false");
    let one = centre.node("one", "correlate = false");
    wait_until("one has it", || runs(&one).len() == 1);
    let two = centre.node("two", "correlate = false");
    raise(&correlator, 0..30);
    hook.wait_told(30);
    // In the middle of telling: nothing is confirmed any more.
    hook.answer(503);
    raise(&correlator, 30..60);
    wait_until("it was tried", || hook.posts().iter().any(|post| post.status == 503));
    let (one, two) = if runs(&one).is_empty() { (two, one) } else { (one, two) };
    one.kill();
    raise(&correlator, 60..80);
    hook.answer(0);
    let begun = Instant::now();
    wait_until("the other has it", || runs(&two).len() == 1);
    println!("taken over after {:?}", begun.elapsed());
    hook.wait_told(80);
    assert_told_once(&hook, 80);
    // And everybody, one after the other.
    assert!(two.stop().success());
    raise(&correlator, 80..100);
    let three = centre.node("three", "correlate = false");
    hook.wait_told(100);
    assert_told_once(&hook, 100);
    assert!(three.stop().success());
    assert!(correlator.stop().success());
}

#[test]
fn a_notifier_that_wakes_late_gives_no_number_to_anything_else() {
    let Some(brokers) = Brokers::one() else { return };
    let hook = Hook::start();
    let named = [("hook".to_owned(), &hook)];
    // So slow that what it has yet to give numbers to is more than what it has.
    let centre = Centre::new(&brokers, "zombie.", &named, "rate = 40");
    let correlator = centre.node("correlator", "notify = false");
    let one = centre.node("one", "correlate = false");
    wait_until("one has it", || runs(&one).len() == 1);
    let two = centre.node("two", "correlate = false");
    raise(&correlator, 0..20);
    hook.wait_told(20);
    let (one, two) = if runs(&one).is_empty() { (two, one) } else { (one, two) };
    // It has begun with more, and stops.
    raise(&correlator, 20..320);
    wait_until("some are told", || hook.count() > 20);
    one.stand_still();
    wait_until("the other has it", || runs(&two).len() == 1);
    raise(&correlator, 320..340);
    hook.wait_told(340);
    // It wakes when all is told, and what it would keep now is long past.
    one.signal(Signal::CONT);
    wait_until("it has let go", || runs(&one).is_empty());
    two.kill();
    wait_until("it has it again", || runs(&one).len() == 1);
    raise(&correlator, 340..440);
    wait_until("all is told", || by_number(&hook).len() >= 440);
    assert_told_once(&hook, 440);
    for node in [one, correlator] {
        assert!(node.stop().success());
    }
}

#[test]
fn a_node_whose_disk_is_full_hands_its_receivers_over() {
    if !can_mount() {
        return;
    }
    let Some(brokers) = Brokers::one() else { return };
    let hook = Hook::start();
    let named = [("hook".to_owned(), &hook)];
    let centre = Centre::new(&brokers, "full.", &named, "");
    let mount = LoopMount::new(centre.scratch.path(), "disk", 96);
    let correlator = centre.node("correlator", "notify = false");
    let lines = "[store]\nfree_space_watermark = \"12MiB\"\nsegment_bytes = \"1MiB\"\n[journal]\nnode_name = \"one\"\ncorrelate = false\n";
    let one = centre.node_in(&mount.dir, "one", &centre.journal.replace("[journal]\n", lines));
    wait_until("one has it", || runs(&one).len() == 1);
    raise(&correlator, 0..20);
    hook.wait_told(20);
    mount.fill(0);
    (20..2020).step_by(500).for_each(|first| raise(&correlator, first..first + 500));
    wait_until("one has given it up", || runs(&one).is_empty());
    let two = centre.node("two", "correlate = false");
    // What could not be kept any more as confirmed is told again, under the number that it had.
    wait_until("the other tells the rest", || by_number(&hook).len() >= 2020);
    two.kill();
    raise(&correlator, 2020..2040);
    mount.make_room();
    wait_until("it has it again", || runs(&one).len() == 1);
    wait_until("it tells what is new", || by_number(&hook).len() >= 2040);
    assert_told_once(&hook, 2040);
    for node in [one, correlator] {
        assert!(node.stop().success());
    }
}
