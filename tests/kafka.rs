//! The journal in an Apache Kafka, with real brokers: what the command line makes and finds there.
#![cfg(feature = "kafka")]

mod harness;

use std::path::Path;

use harness::kafka::Brokers;
use harness::{klaxon, scratch};
use serde_json::Value;

/// Runs `klaxon kafka` with this configuration: whether it went well, and what it says as JSON.
fn kafka(dir: &Path, config: &str, command: &str) -> (bool, Value) {
    let file = dir.join("k.toml");
    std::fs::write(&file, config).expect("can be written");
    let output = klaxon().args(["--json", "kafka", command, "--config"]).arg(&file).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let shown = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), shown)
}

fn findings(shown: &Value) -> Vec<String> {
    let all = shown["findings"].as_array().expect("is a list").iter();
    all.map(|one| {
        format!(
            "{}: {}: {}",
            one["weight"].as_str().expect("a word"),
            one["topic"].as_str().expect("a name"),
            one["text"].as_str().expect("a text")
        )
    })
    .collect()
}

#[test]
fn the_topics_are_made_and_what_is_wrong_with_them_is_said() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-topics-");
    let dir = scratch.path();
    let config = brokers.journal("one.", "partitions = 3");
    // Nothing is there, and looking makes nothing.
    for _ in 0..2 {
        let (is_good, shown) = kafka(dir, &config, "check");
        assert!(!is_good && shown["usable"] == false);
        assert_eq!(findings(&shown).len(), 4, "{shown}");
        assert_eq!(findings(&shown)[0], "wrong: one.events: it is not there; klaxon kafka init makes it");
    }
    let (is_good, shown) = kafka(dir, &config, "init");
    assert!(is_good, "{shown}");
    assert_eq!(shown["created"].as_array().map(Vec::len), Some(4), "{shown}");
    assert_eq!(findings(&shown), [""; 0], "what is made is right");
    let state = &shown["topics"][2];
    assert_eq!(
        (&state["name"], state["partitions"].as_u64(), state["insync"].as_u64()),
        (&"one.state".into(), Some(3), Some(1))
    );
    // It is made once.
    let (is_good, shown) = kafka(dir, &config, "init");
    assert!(is_good && shown["created"] == serde_json::json!([]), "{shown}");

    // Others have other topics, and a site would be elsewhere with another number of partitions.
    let (is_good, shown) = kafka(dir, &brokers.journal("one.", "partitions = 4"), "check");
    assert!(!is_good);
    assert!(findings(&shown)[0].starts_with("wrong: one.events: it has 3 partitions and should have 4"), "{shown}");
    let (is_good, shown) = kafka(dir, &brokers.journal("other.", ""), "check");
    assert!(!is_good && findings(&shown).len() == 4, "{shown}");

    // More copies than there are brokers.
    let two = config.replace("one.", "two.").replace("replication_factor = 1", "replication_factor = 2");
    let (is_good, shown) = kafka(dir, &two, "init");
    assert!(!is_good);
    let why = "wrong: two.events: replication_factor 2 needs as many brokers, and there are 1";
    assert!(findings(&shown).iter().any(|finding| finding == why), "{shown}");
}

#[test]
fn a_kafka_that_is_not_there_is_said_to_be_so() {
    let scratch = scratch("kafka-away-");
    let file = scratch.path().join("k.toml");
    std::fs::write(&file, "[journal]\nkind = \"kafka\"\nbrokers = [\"127.0.0.1:1\"]\n").expect("can be written");
    let output = klaxon().args(["kafka", "check", "--config"]).arg(&file).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.starts_with("klaxon: no broker among 127.0.0.1:1 answers as it should: "), "{text}");
    std::fs::write(&file, "").expect("can be written");
    let output = klaxon().args(["kafka", "check", "--config"]).arg(&file).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}
