//! An Apache Kafka that is away for a while: what is there is shown, and said to be as old as it is; what comes in is refused until
//! it is back; then nothing is lost, and nothing there twice.
#![cfg(feature = "kafka")]

mod harness;

use std::collections::BTreeSet;
use std::path::Path;

use harness::kafka::Brokers;
use harness::mount::{LoopMount, can_mount};
use harness::{Node, Setup, scratch, wait_until};
use serde_json::{Value, json};

fn node(dir: &Path, name: &str, journal: &str) -> Node {
    let journal = journal.replace("[journal]\n", &format!("[journal]\nnode_name = \"{name}\"\n"));
    Setup::new(&dir.join(name)).config(&format!("{journal}\n[node]\nsite = \"noc\"\n")).start()
}

fn event(unit: u32, severity: &str) -> Value {
    json!({ "site": format!("site-{}", unit % 5), "resource": format!("unit={unit}"), "alarm_type": "t", "severity": severity })
}

fn stands(node: &Node) -> BTreeSet<String> {
    let list = node.json("/alarms?cleared=false&limit=5000");
    list["alarms"].as_array().expect("is a list").iter().map(|alarm| alarm["resource"].to_string()).collect()
}

/// As of when a node says that it shows, if that is not now.
fn as_of(node: &Node) -> Option<String> {
    let reply = ureq::get(node.url("/alarms")).call().expect("it answers");
    reply.headers().get("klaxon-as-of").map(|value| value.to_str().expect("is text").to_owned())
}

#[test]
fn while_kafka_is_away_a_node_shows_what_it_has_and_takes_nothing() {
    let Some(mut brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-away-");
    let dir = scratch.path();
    let journal = brokers.journal("away.", "partitions = 4");
    brokers.init(&journal);
    let one = node(dir, "one", &journal);
    let mut taken = BTreeSet::new();
    let mut unit = 0;
    let mut report = |node: &Node| {
        unit += 1;
        let reply = node.post("/events", &event(unit, "major").to_string()).expect("it answers");
        if reply.status == 200 {
            taken.insert(format!("\"unit={unit}\""));
        }
        (reply.status, taken.clone())
    };
    for _ in 0..50 {
        assert_eq!(report(&one).0, 200);
    }
    wait_until("all is shown", || stands(&one).len() == 50);
    assert_eq!(as_of(&one), None);
    for round in 1..=2 {
        brokers.kill(0);
        wait_until("it is seen", || as_of(&one).is_some());
        let before = stands(&one);
        let (status, _) = report(&one);
        assert_eq!(status, 503);
        let refused = one.post("/events", &event(999, "major").to_string()).expect("it answers");
        assert!(
            refused.status == 503 && refused.body.contains("the journal cannot be reached: no broker answers"),
            "{}",
            refused.body
        );
        assert_eq!(one.get("//readyz").expect("it answers").status, 503);
        assert_eq!(stands(&one), before, "what was there is there");
        let log = one.log_text();
        assert_eq!(log.matches("the brokers do not answer").count(), round, "{log}");
        assert!(!log.contains("librdkafka") && log.matches("have trouble").count() <= round, "{log}");
        brokers.run(0);
        brokers.wait(0);
        one.wait_ready();
        assert_eq!(as_of(&one), None);
        for _ in 0..10 {
            wait_until("it is taken again", || report(&one).0 == 200);
        }
        let taken = report(&one).1;
        wait_until("all that was taken is shown", || taken.is_subset(&stands(&one)));
    }
    // One that starts while it is away shows what it had.
    let before = stands(&one);
    assert!(one.stop().success());
    brokers.kill(0);
    let journal = journal.replace("[journal]\n", "[journal]\ncorrelate = false\n");
    let setup = format!("{}\n[node]\nsite = \"noc\"\n", journal.replace("[journal]\n", "[journal]\nnode_name = \"one\"\n"));
    let setup = Setup::new(&dir.join("one")).config(&setup);
    let one = setup.start_unready();
    assert_eq!(stands(&one), before);
    assert!(as_of(&one).is_some());
}

#[test]
fn what_is_reported_while_kafka_is_away_may_be_kept_until_it_is_back() {
    let Some(mut brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-spool-");
    let dir = scratch.path();
    let journal = brokers.journal("spool.", "partitions = 4");
    brokers.init(&journal);
    let journal = journal.replace("[journal]\n", "[journal]\nspool = true\n");
    let mut one = node(dir, "one", &journal);
    let mut wanted = BTreeSet::new();
    let mut unit = 0;
    let mut report = |node: &Node, count: u32| {
        for _ in 0..count {
            unit += 1;
            node.send(&json!([event(unit, "major")]));
            // A second one of its own kind, which would be counted if it came twice.
            node.send(&json!([{ "site": "log", "resource": format!("unit={unit}"), "alarm_type": "t", "kind": "log" }]));
            wanted.insert(format!("\"unit={unit}\""));
        }
        wanted.clone()
    };
    report(&one, 20);
    for round in 0..3 {
        brokers.kill(0);
        wait_until("it is seen", || as_of(&one).is_some());
        report(&one, 30);
        if round == 1 {
            // What is kept outlives the node.
            one.kill();
            let setup = format!(
                "{}\n[node]\nsite = \"noc\"\n",
                journal.replace("[journal]\n", "[journal]\nnode_name = \"one\"\ncorrelate = false\n")
            );
            one = Setup::new(&dir.join("one")).config(&setup).start_unready();
            report(&one, 5);
        }
        brokers.run(0);
        brokers.wait(0);
        if round == 1 {
            one.kill();
            one = node(dir, "one", &journal);
        }
        one.wait_ready();
    }
    let wanted = report(&one, 1);
    wait_until("all is there", || stands(&one) == wanted);
    let logged = || {
        one.history()
            .iter()
            .filter(|change| change["kind"] == "logged")
            .map(|change| change["event"]["resource"].to_string())
            .collect::<Vec<_>>()
    };
    wait_until("each log event is there", || logged().len() >= wanted.len());
    let logged = logged();
    assert_eq!(logged.len(), wanted.len(), "once each");
    // In their order, of each partition; all of these are of one site.
    let numbers: Vec<u32> =
        logged.iter().map(|unit| unit.trim_matches('"').trim_start_matches("unit=").parse().expect("a number")).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

/// The changes that a node has of the alarms.
fn history(node: &Node) -> BTreeSet<String> {
    let (mut all, mut before) = (BTreeSet::new(), String::new());
    loop {
        let page = node.json(&format!("/history?limit=500{before}"));
        let changes = page["changes"].as_array().expect("is a list");
        let ours = changes.iter().filter(|one| one["alarm"]["alarm_type"] == "t");
        all.extend(ours.map(|one| format!("{} {} {}", one["epoch"], one["seq"], one["alarm"]["resource"])));
        match page["next"].as_str() {
            Some(next) => before = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn a_node_whose_disk_is_full_says_how_old_it_is_and_copies_on_when_there_is_room() {
    if !can_mount() {
        return;
    }
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-full-");
    let dir = scratch.path();
    let journal = brokers.journal("full.", "partitions = 4");
    brokers.init(&journal);
    let mount = LoopMount::new(dir, "disk", 96);
    let one = node(dir, "one", &journal);
    let shows = "[journal]\nnode_name = \"two\"\ncorrelate = false\nnotify = false\n";
    let store = "[store]\nfree_space_watermark = \"12MiB\"\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"1GiB\"\n";
    let config = journal.replace("[journal]\n", shows) + &format!("\n[node]\nsite = \"noc\"\n{store}");
    let two = Setup::new(&mount.dir.join("two")).config(&config).start();
    let report = |units: std::ops::Range<u32>| {
        let events: Vec<Value> = units.map(|unit| event(unit, "major")).collect();
        one.send(&json!(events));
    };
    report(0..20);
    wait_until("both show it", || stands(&one).len() == 20 && stands(&two) == stands(&one));
    for round in 1..=2 {
        // The second time there is room for what is small, and not for a frame with much.
        mount.fill([0, 512 << 10][round as usize - 1]);
        let upto = 20 + 1500 * round;
        (upto - 1500..upto).step_by(500).for_each(|first| report(first..first + 500));
        wait_until("it says that it is behind", || as_of(&two).is_some());
        let log = two.log_text();
        assert_eq!(log.matches("cannot be kept").count(), round as usize, "{log}");
        assert_eq!(two.get("//readyz").expect("it answers").status, 503);
        wait_until("the other one goes on", || stands(&one).len() == upto as usize);
        assert!(stands(&two).len() < upto as usize);
        mount.make_room();
        wait_until("it has all", || as_of(&two).is_none() && stands(&two) == stands(&one));
        assert!(history(&one).len() >= upto as usize && history(&two) == history(&one), "and how it came to be");
    }
    let before = stands(&two);
    two.kill();
    let two = Setup::new(&mount.dir.join("two")).config(&config).start();
    assert_eq!(stands(&two), before);
}
