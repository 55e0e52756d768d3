//! Receivers that are topics: with a real broker, which is killed, missing its topic, or guarded. What is in the topic is what was told.
#![cfg(feature = "kafka")]

mod harness;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::authority::Authority;
use harness::kafka::{Brokers, Guarded};
use harness::{Node, Site, wait_until};
use klaxon_store::kafka::rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use klaxon_store::kafka::rdkafka::client::DefaultClientContext;
use klaxon_store::kafka::rdkafka::consumer::{BaseConsumer, Consumer as _};
use klaxon_store::kafka::rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::{Value, json};

const TOPIC: &str = "alarms";
const PARTITIONS: i32 = 3;

fn client(brokers: &Brokers) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.addresses().join(","));
    config
}

fn make_topic(brokers: &Brokers) {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().expect("is a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("can be made");
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
    let made =
        runtime.block_on(admin.create_topics([&topic], &AdminOptions::new().request_timeout(Some(Duration::from_secs(30)))));
    assert!(made.expect("it answers").iter().all(Result::is_ok));
}

/// A record: its partition, its key, and what it says.
type Record = (i32, Option<String>, Value);

/// Reads all that is in the topic, again and again, until it is enough.
fn wait_records(brokers: &Brokers, is_enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
    let consumer: BaseConsumer = client(brokers).set("group.id", "test").create().expect("is a client");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("is one");
    }
    consumer.assign(&all).expect("can be read");
    let mut records = Vec::new();
    wait_until("there are records", || {
        // What a broker that was killed says is no record.
        while let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            let key = message.key().map(|key| String::from_utf8_lossy(key).into_owned());
            let value = serde_json::from_slice(message.payload().expect("says something")).expect("is JSON");
            records.push((message.partition(), key, value));
        }
        is_enough(&records)
    });
    records
}

fn receiver(brokers: &[String], lines: &str) -> String {
    format!(
        "[receivers.bus]\nlog_events = true\nfold_after = \"0s\"\n[receivers.bus.kafka]\nbrokers = {brokers:?}\ntopic = \"{TOPIC}\"\n\
         {lines}\n"
    )
}

fn event(resource: &str, severity: &str) -> Value {
    json!({ "resource": resource, "alarm_type": "fan.failed", "severity": severity, "text": "said" })
}

fn shown(node: &Node) -> Value {
    node.json("/receivers/bus")
}

fn wait_confirmed(node: &Node) -> u64 {
    wait_until("all is confirmed", || {
        let now = shown(node);
        now["epoch"] != 0 && now["lag_changes"] == 0 && now["assigned"] == now["confirmed"]
    });
    shown(node)["assigned"].as_u64().expect("is a number")
}

fn number(record: &Record) -> u64 {
    record.2["notifications"][0]["delivery_seq"].as_u64().expect("has one")
}

#[test]
fn a_record_is_what_a_webhook_gets_under_the_alarms_key() {
    let Some(brokers) = Brokers::one() else { return };
    let site = Site::start(&receiver(&brokers.addresses(), "timeout = \"10s\""));
    site.send(&event("host=a", "major"));
    wait_until("it is said what is missing", || shown(&site)["last_error"].to_string().contains("there is no topic alarms"));
    make_topic(&brokers);
    wait_confirmed(&site);
    site.send(&json!([event("host=a", "critical"), event("host=b", "minor")]));
    site.send(&json!([
        event("host=a", "cleared"),
        { "resource": "host=a", "alarm_type": "reboot", "kind": "log", "severity": "warning", "text": "up" },
    ]));
    assert_eq!(wait_confirmed(&site), 5);
    let records = wait_records(&brokers, |records| records.len() >= 5);
    let ids: BTreeMap<String, String> = site
        .alarms()
        .iter()
        .map(|alarm| (alarm["resource"].as_str().expect("is one").to_owned(), alarm["id"].as_str().expect("is one").to_owned()))
        .collect();
    let of = |resource: &str| {
        let of: Vec<&Record> = records.iter().filter(|(_, key, _)| key.as_ref() == ids.get(resource)).collect();
        assert!(of.iter().all(|record| record.0 == of[0].0), "they are in one partition: {of:?}");
        of.iter().map(|record| record.2["notifications"][0]["how"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (of("host=a"), of("host=b")),
        (vec![json!("raised"), json!("changed"), json!("cleared")], vec![json!("raised")])
    );
    let log = records.iter().find(|(_, key, _)| key.as_deref() == Some("local")).expect("of a log event it is the site");
    assert_eq!(log.2["notifications"][0]["event"]["text"], "up");
    let first = &records.iter().find(|record| number(record) == 1).expect("is there").2;
    assert_eq!((&first["version"], &first["receiver"]), (&json!(1), &json!("bus")));
    assert_eq!(first["notifications"][0]["epoch"], shown(&site)["epoch"]);
    assert_eq!((&shown(&site)["kind"], &shown(&site)["state"]), (&json!("kafka"), &json!("ok")));
}

#[test]
fn nothing_is_lost_when_broker_and_node_are_killed() {
    let Some(mut brokers) = Brokers::one() else { return };
    make_topic(&brokers);
    let dir = harness::scratch("kafka-receivers-");
    let setup = harness::Setup::new(&dir.path().join("data"))
        .config(&receiver(&brokers.addresses(), "key = \"site\"\ntimeout = \"5s\""));
    let mut node = setup.start();
    let churn = |node: &Node, round: u32| {
        let severity = if round.is_multiple_of(2) { "major" } else { "cleared" };
        node.send(&(0..200).map(|number| event(&format!("host=h{number}"), severity)).collect());
    };
    churn(&node, 0);
    wait_records(&brokers, |records| !records.is_empty());
    node.kill();
    node = setup.start();
    churn(&node, 1);
    brokers.kill(0);
    churn(&node, 2);
    wait_until("it is missed", || shown(&node)["last_error"] != Value::Null);
    brokers.run(0);
    brokers.wait(0);
    churn(&node, 3);
    let assigned = wait_confirmed(&node);
    assert_eq!(assigned, 800);
    let all =
        |records: &[Record]| records.iter().map(number).collect::<std::collections::BTreeSet<_>>().len() as u64 == assigned;
    let records = wait_records(&brokers, all);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for record in &records {
        assert_eq!(record.1.as_deref(), Some("local"));
        let resource = record.2["notifications"][0]["alarm"]["resource"].as_str().expect("is one").to_owned();
        // One that came again stands behind itself and nothing else of its alarm.
        let before = last.insert(resource, number(record));
        assert!(before.is_none_or(|before| before <= number(record)), "{before:?} {record:?}");
    }
}

#[test]
fn a_guarded_topic_is_told_by_who_proves_to_be_somebody() {
    let authority = Authority::new();
    let Some(guarded) = Guarded::start(&authority) else { return };
    make_topic(&guarded.brokers);
    let (user, password) = Guarded::USER;
    authority.write("password", &format!("{password}\n"));
    authority.write("wrong", "shut\n");
    let sasl = |file: &str| {
        format!(
            "timeout = \"5s\"\ntls = true\nca_file = \"{}\"\nsasl = \"scram-sha-256\"\nuser = \"{user}\"\npassword_file = \"{}\"",
            authority.path("ca.pem"),
            authority.path(file)
        )
    };
    let (certificate, key) = authority.issue("node", &[]);
    authority.write("node.pem", &certificate.pem());
    authority.write("node.key", &key.serialize_pem());
    let by_certificate = format!(
        "tls = true\nca_file = \"{}\"\nclient_certificate = \"{}\"\nclient_key = \"{}\"",
        authority.path("ca.pem"),
        authority.path("node.pem"),
        authority.path("node.key")
    );
    let site = Site::start(&receiver(std::slice::from_ref(&guarded.sasl), &sasl("wrong")));
    site.send(&event("host=a", "major"));
    wait_until("it is said why", || shown(&site)["last_error"].to_string().contains("they do not let this client in"));
    assert!(!shown(&site).to_string().contains("shut") && shown(&site)["confirmed"] == 0);
    drop(site);
    for (address, lines) in [(&guarded.sasl, sasl("password")), (&guarded.tls, by_certificate)] {
        let site = Site::start(&receiver(std::slice::from_ref(address), &lines));
        site.send(&event("host=b", "major"));
        assert_eq!(wait_confirmed(&site), 1);
        assert!(!site.log_text().contains(password) && !shown(&site).to_string().contains(password));
    }
    assert_eq!(wait_records(&guarded.brokers, |records| records.len() >= 2).len(), 2);
}
