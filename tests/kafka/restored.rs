//! What a correlator has of a partition that it takes over.

use std::time::{Duration, Instant};

use klaxon_store::kafka::rdkafka::producer::Producer as _;
use serde_json::{Value, json};

use super::tools::{Correlator, Topics, kafka, produce};
use crate::harness::kafka::Brokers;
use crate::harness::{Node, Setup, is_long, scratch, wait_until};

/// What happened to an alarm.
fn history(node: &Node, resource: &str) -> Vec<String> {
    let all = node.history().into_iter().filter(|change| change["alarm"]["resource"] == resource);
    all.map(|change| change["kind"].as_str().expect("a word").to_owned()).collect()
}

#[test]
fn timers_leases_tombstones_and_shelves_go_on_elsewhere() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-timers-");
    let dir = scratch.path();
    let config = brokers.journal("timers.", "partitions = 2");
    assert!(kafka(dir, &config, &["init"]).0);
    let shows =
        config.replace("[journal]\n", "[journal]\nnode_name = \"shows\"\ncorrelate = false\n") + "[node]\nsite = \"noc\"\n";
    let node = Setup::new(&dir.join("shows")).config(&shows).start();
    let first = Correlator::start(dir, "first", &config);
    let event = |resource: &str, severity: &str, more: Value| {
        let mut event = json!({"site": "north", "resource": resource, "alarm_type": "t", "severity": severity});
        event.as_object_mut().expect("is one").extend(more.as_object().expect("is one").clone());
        event
    };
    node.send(&event("a=short", "major", json!({"lease_s": 5})));
    node.send(&event("a=long", "major", json!({"lease_s": 3600})));
    node.send(&event("a=shelved", "major", json!({})));
    node.send(&event("a=held", "major", json!({})));
    node.send(&event("a=numbered", "major", json!({"producer": "p", "epoch": 1, "seq": 4})));
    // A clear that overtook its raise.
    node.send(&event("a=gone", "cleared", json!({"producer": "p", "epoch": 1, "seq": 9})));
    let id = |resource: &str| {
        let of = format!("/alarms?resource={}", resource.replace('=', "%3D"));
        wait_until("it is raised", || node.json(&of)["alarms"][0]["id"].is_string());
        node.json(&of)["alarms"][0]["id"].as_str().expect("has an id").to_owned()
    };
    node.cli_ok(&["alarms", "shelve", &id("a=shelved"), "--for", "12s", "--reason", "r"]);
    node.cli_ok(&["alarms", "shelve", &id("a=held"), "--for", "2h", "--reason", "r"]);
    wait_until("it is shelved", || history(&node, "a=held").contains(&"shelved".to_owned()));
    first.kill();
    let begun = Instant::now();
    let second = Correlator::start(dir, "second", &config);
    wait_until("another has its partitions", || second.takeovers() == 2);
    println!("taken over after {:.1} s", begun.elapsed().as_secs_f32());
    // What was overtaken is known there, and so is what was counted.
    node.send(&event("a=gone", "major", json!({"producer": "p", "epoch": 1, "seq": 8})));
    node.send(&event("a=numbered", "major", json!({"producer": "p", "epoch": 1, "seq": 4})));
    node.send(&event("a=numbered", "major", json!({"producer": "p", "epoch": 1, "seq": 5})));
    wait_until("what is due happens", || {
        history(&node, "a=short").len() == 2 && history(&node, "a=shelved").contains(&"unshelved".to_owned())
    });
    assert_eq!(history(&node, "a=short"), ["raised", "staled"], "once");
    assert_eq!(history(&node, "a=shelved"), ["raised", "shelved", "unshelved"]);
    assert_eq!(history(&node, "a=held"), ["raised", "shelved"]);
    assert_eq!(history(&node, "a=long"), ["raised"]);
    assert_eq!(history(&node, "a=gone"), [""; 0], "a clear had overtaken it");
    wait_until("all is counted", || node.json("/alarms?resource=a%3Dnumbered")["alarms"][0]["count"] == 2);
}

#[test]
fn leases_run_anew_after_the_brokers_were_away() {
    let Some(mut brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-away-");
    let dir = scratch.path();
    let topics = Topics::new(&brokers, "away.", 2);
    let config = brokers.journal("away.", "partitions = 2");
    assert!(kafka(dir, &config, &["init"]).0);
    let correlator = Correlator::start(dir, "c0", &config);
    let producer = topics.producer();
    let event = |site: &str, lease: u64| json!({"site": site, "resource": "a=lease", "alarm_type": "t", "severity": "major", "lease_s": lease});
    for site in 0..8 {
        produce(&producer, &topics.name("events"), &event(&format!("site-{site}"), 12));
    }
    producer.flush(Duration::from_secs(20)).expect("is taken");
    topics.wait_correlated("they are raised");
    let raised = Instant::now();
    brokers.kill(0);
    // Longer than the leases.
    while raised.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(100));
    }
    brokers.run(0);
    brokers.wait(0);
    let kinds = || -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = topics.read("changes").into_iter().filter_map(|one| one.value);
        all.map(|one| (text(&one["kind"]), text(&one["alarm"]["site"]))).filter(|(_, site)| !site.is_empty()).collect()
    };
    // Half of them are heard again, in time after the brokers are back.
    for site in 0..4 {
        produce(&producer, &topics.name("events"), &event(&format!("site-{site}"), 3600));
    }
    producer.flush(Duration::from_secs(60)).expect("is taken");
    wait_until("the others are stale", || kinds().iter().filter(|(kind, _)| kind == "staled").count() == 4);
    let kinds = kinds();
    assert!((0..4).all(|site| !kinds.contains(&("staled".to_owned(), format!("site-{site}")))), "{kinds:?}");
    assert!(correlator.log_text().contains("leases run anew"), "{}", correlator.log_text());
}

/// Prints how long a partition takes to be restored.
#[test]
fn a_partition_of_many_alarms_is_taken_over() {
    let Some(brokers) = Brokers::one() else { return };
    let count = if is_long() { 50_000 } else { 5_000 };
    let scratch = scratch("kafka-many-");
    let dir = scratch.path();
    let topics = Topics::new(&brokers, "many.", 1);
    let config = brokers.journal("many.", "partitions = 1");
    assert!(kafka(dir, &config, &["init"]).0);
    let first = Correlator::start(dir, "first", &config);
    let producer = topics.producer();
    for n in 0..count {
        let event = json!({"site": format!("site-{}", n % 40), "resource": format!("rack={}.unit={n}", n % 100),
            "alarm_type": "cpu.high", "severity": "major", "text": "the load is above what it should be", "attributes": {"load": "97"}});
        produce(&producer, &topics.name("events"), &event);
        if n % 1000 == 0 {
            producer.flush(Duration::from_secs(60)).expect("is taken");
        }
    }
    producer.flush(Duration::from_secs(60)).expect("is taken");
    // What it takes to correlate them is another matter.
    for _ in 0..5 {
        let ends = topics.produced().expect("the brokers tell");
        let begun = Instant::now();
        while !topics.is_correlated(&ends) && begun.elapsed() < Duration::from_secs(50) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    topics.wait_correlated("all is correlated");
    first.stop();
    let second = Correlator::start(dir, "second", &config);
    wait_until("it is taken over", || second.takeovers() == 1);
    let log = second.log_text();
    let line = log.lines().find(|line| line.contains("a partition is taken over")).expect("is there");
    println!("{line}; {} ms of CPU since the start", second.cpu().as_millis());
    assert!(line.contains(&format!("alarms={count}")), "{line}");
}
