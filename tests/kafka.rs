//! The journal in an Apache Kafka, with real brokers: what the command line makes and finds there.
#![cfg(feature = "kafka")]
#![allow(clippy::print_stderr, reason = "a test shows the log of what failed")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::kafka::Brokers;
use harness::{Chance, Node, PATIENCE, Setup, klaxon, scratch, seeds, wait_until, write_config};
use klaxon_store::kafka::partition_of;
use klaxon_store::kafka::rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use klaxon_store::kafka::rdkafka::client::DefaultClientContext;
use klaxon_store::kafka::rdkafka::consumer::{BaseConsumer, Consumer as _};
use klaxon_store::kafka::rdkafka::error::KafkaError;
use klaxon_store::kafka::rdkafka::message::{Header, OwnedHeaders};
use klaxon_store::kafka::rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use klaxon_store::kafka::rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::{Value, json};

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

/// A correlator as a process.
struct Correlator {
    child: Child,
    log: PathBuf,
}

impl Correlator {
    fn start(dir: &Path, name: &str, config: &str) -> Self {
        let (file, log) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.log")));
        write_config(&file, &config.replace("[journal]\n", &format!("[journal]\nnode_name = \"{name}\"\n")));
        let written = File::options().create(true).append(true).open(&log).expect("can be written");
        let mut command = klaxon();
        command.args(["run", "--config"]).arg(&file).arg("--data").arg(dir.join(name));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(written).spawn().expect("it runs");
        Self { child, log }
    }

    fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }
}

impl Drop for Correlator {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().expect("it can be killed");
            self.child.wait().expect("it has ended");
        }
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// What anybody may use to produce: keyed by site, hashed as Kafka's own clients do.
fn producer(brokers: &Brokers) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.addresses().join(",")).set("partitioner", "murmur2_random");
    config.set("enable.idempotence", "true").set("linger.ms", "1");
    config.create().expect("is a client")
}

fn produce(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, event: &Value) {
    let text = event.to_string();
    let site = event["site"].as_str().expect("has a site");
    producer.send(BaseRecord::to(topic).key(site).payload(&text)).map_err(|(error, _)| error).expect("is taken");
}

/// All that is committed in a topic by now: partition, offset and JSON.
fn read_all(brokers: &Brokers, topic: &str, partitions: i32) -> Vec<(i32, i64, String, Value)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.addresses().join(",")).set("group.id", "looks").set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("is a client");
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning).expect("is an offset");
    }
    consumer.assign(&all).expect("can be read");
    let (mut records, mut ended, begun) = (Vec::new(), BTreeSet::new(), Instant::now());
    while ended.len() < usize::try_from(partitions).expect("some") {
        assert!(begun.elapsed() < PATIENCE, "the end of {topic} does not come");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let value = serde_json::from_slice(message.payload().unwrap_or(b"null")).expect("is JSON");
                let key = String::from_utf8(message.key().unwrap_or_default().to_vec()).expect("is text");
                records.push((message.partition(), message.offset(), key, value));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    records
}

#[test]
fn what_anybody_produces_is_correlated_once_whoever_is_killed() {
    const PARTITIONS: i32 = 4;
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-correlate-");
    let dir = scratch.path();
    for seed in seeds(1, 6) {
        let mut dice = Chance::new(seed);
        let prefix = format!("seed{seed}.");
        let config = brokers.journal(&prefix, &format!("partitions = {PARTITIONS}"));
        assert!(kafka(dir, &config, "init").0);
        let (events, changes) = (format!("{prefix}events"), format!("{prefix}changes"));
        let producer = producer(&brokers);
        let mut running: Vec<Option<Correlator>> = vec![None, None];
        // What each alarm was last said to be.
        let mut stands: BTreeMap<(String, String), Option<&str>> = BTreeMap::new();
        let (mut said, mut kills) = (0, 0);
        for round in 0..6 {
            for _ in 0..300 {
                let site = format!("site-{}", dice.below(12));
                let resource = format!("unit={}", dice.below(8));
                let severity = ["critical", "major", "minor", "cleared"][dice.below(4) as usize];
                produce(
                    &producer,
                    &events,
                    &json!({ "site": site, "resource": resource, "alarm_type": "t", "severity": severity }),
                );
                stands.insert((site, resource), (severity != "cleared").then_some(severity));
                said += 1;
                if dice.below(40) == 0 {
                    producer.flush(Duration::from_secs(10)).expect("is taken");
                    let at = dice.below(2) as usize;
                    match running[at].take() {
                        Some(correlator) => {
                            correlator.kill();
                            kills += 1;
                        }
                        None => running[at] = Some(Correlator::start(dir, &format!("c{at}"), &config)),
                    }
                }
            }
            println!("seed {seed}, round {round}: {said} said, {kills} killed");
            if running.iter().all(Option::is_none) {
                running[0] = Some(Correlator::start(dir, "c0", &config));
            }
        }
        producer.flush(Duration::from_secs(10)).expect("is taken");
        let of_alarms = |all: &[(i32, i64, String, Value)]| -> BTreeMap<(String, String), String> {
            let mut now = BTreeMap::new();
            for (_, _, _, change) in all {
                let alarm = &change["alarm"];
                if let (Some(site), Some(resource)) = (alarm["site"].as_str(), alarm["resource"].as_str()) {
                    let key = (site.to_owned(), resource.to_owned());
                    match change["kind"].as_str() {
                        Some("cleared") => drop(now.remove(&key)),
                        _ => drop(now.insert(key, alarm["severity"].as_str().expect("a word").to_owned())),
                    }
                }
            }
            now
        };
        let wanted: BTreeMap<_, _> =
            stands.iter().filter_map(|(key, severity)| severity.map(|severity| (key.clone(), severity.to_owned()))).collect();
        wait_until("all is correlated", || of_alarms(&read_all(&brokers, &changes, PARTITIONS)) == wanted);
        // Each change once, in its order, and where its site belongs.
        let all = read_all(&brokers, &changes, PARTITIONS);
        let mut last: BTreeMap<(i32, u64), u64> = BTreeMap::new();
        let mut epochs: BTreeMap<i32, BTreeSet<u64>> = BTreeMap::new();
        for (partition, _, key, change) in &all {
            let (epoch, seq) = (change["epoch"].as_u64().expect("a number"), change["seq"].as_u64().expect("a number"));
            assert_eq!(seq, last.get(&(*partition, epoch)).copied().unwrap_or(0) + 1, "{change}");
            last.insert((*partition, epoch), seq);
            epochs.entry(*partition).or_default().insert(epoch);
            if change["alarm"].is_object() {
                assert_eq!(*partition, i32::from(partition_of(key.as_bytes(), 4)), "{change}");
            }
        }
        assert!(epochs.values().all(|epochs| epochs.len() == 1), "{epochs:?}");
        assert!(kills > 3 && all.len() > 600, "{kills} kills, {} changes", all.len());
    }
}

/// A node whose journal is in these brokers.
fn node(dir: &Path, name: &str, journal: &str, lines: &str) -> Node {
    let config = format!(
        "{}\n[node]\nsite = \"noc\"\n",
        journal.replace("[journal]\n", &format!("[journal]\nnode_name = \"{name}\"\n{lines}"))
    );
    Setup::new(&dir.join(name)).config(&config).start()
}

/// What stands, as a node shows it: site, resource, severity, and who has acknowledged it.
fn shown(node: &Node) -> BTreeSet<(String, String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |alarm: &Value| {
        (text(&alarm["site"]), text(&alarm["resource"]), text(&alarm["severity"]), text(&alarm["acknowledged"]["by"]))
    };
    node.json("/alarms?cleared=false&limit=5000")["alarms"].as_array().expect("is a list").iter().map(row).collect()
}

#[test]
fn what_comes_in_at_one_node_is_shown_at_all() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-nodes-");
    let dir = scratch.path();
    let config = brokers.journal("nodes.", "partitions = 4");
    assert!(kafka(dir, &config, "init").0);
    let one = node(dir, "one", &config, "");
    let two = node(dir, "two", &config, "correlate = false\n");
    for site in ["alpha", "beta", "gamma", "delta"] {
        two.send(&json!({ "site": site, "resource": "host=a", "alarm_type": "t", "severity": "major" }));
    }
    one.send(&json!({ "site": "alpha", "resource": "host=b", "alarm_type": "t", "severity": "minor" }));
    wait_until("both show all", || shown(&one).len() == 5 && shown(&one) == shown(&two));
    let id = one.json("/alarms?site=beta")["alarms"][0]["id"].as_str().expect("has an id").to_owned();
    // Whoever acts has the effect before the answer.
    let told = two.cli_ok(&["--json", "alarms", "ack", &id]);
    assert!(told.contains("acknowledged"), "{told}");
    assert!(shown(&two).iter().any(|(site, .., by)| site == "beta" && !by.is_empty()), "{:?}", shown(&two));
    wait_until("the other shows it as well", || shown(&one) == shown(&two));
    two.send(&json!({ "site": "alpha", "resource": "host=b", "alarm_type": "t", "severity": "cleared" }));
    wait_until("it is over at both", || shown(&one).len() == 4 && shown(&one) == shown(&two));
    // What lies where its site has no place is rejected, and counted.
    let misplaced = json!({ "site": "alpha", "resource": "host=d", "alarm_type": "t", "severity": "major" }).to_string();
    let elsewhere = i32::from((partition_of(b"alpha", 4) + 1) % 4);
    let producer = producer(&brokers);
    let record = BaseRecord::to("nodes.events").key("alpha").payload(&misplaced).partition(elsewhere);
    producer.send(record).map_err(|(error, _)| error).expect("is taken");
    producer.flush(PATIENCE).expect("is taken");
    wait_until("it is counted", || {
        one.get("//metrics").expect("it answers").body.contains("\nklaxon_kafka_records_rejected_total 1\n")
    });
    assert_eq!((shown(&one).len(), shown(&two).len()), (4, 4));
    assert!(!two.get("//metrics").expect("it answers").body.contains("klaxon_kafka_transactions_total"), "it is no correlator");
    // One that comes later has it all, with its history.
    let three = node(dir, "three", &config, "correlate = false\n");
    wait_until("it shows the same", || shown(&three) == shown(&one));
    let history = |node: &Node| -> Vec<(Value, Value)> {
        node.history().iter().map(|change| (change["epoch"].clone(), change["seq"].clone())).collect()
    };
    let sorted = |node: &Node| -> BTreeSet<String> { history(node).iter().map(|pair| format!("{pair:?}")).collect() };
    wait_until("and tells the same", || sorted(&three) == sorted(&one));
    assert_eq!(history(&three).len(), sorted(&three).len(), "each once");
    // And after a kill.
    three.kill();
    one.send(&json!({ "site": "alpha", "resource": "host=c", "alarm_type": "t", "severity": "minor" }));
    let three = node(dir, "three", &config, "correlate = false\n");
    wait_until("it goes on from where it was", || shown(&three) == shown(&one) && shown(&three).len() == 5);
    assert_eq!(history(&three).len(), sorted(&three).len(), "each once");
    for node in [one, two, three] {
        assert!(node.stop().success());
    }
}

/// In other partitions than the correlators think nobody would find what is taken.
#[test]
fn a_node_takes_nothing_before_the_topics_are_as_they_must_be() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-unlike-");
    let dir = scratch.path();
    assert!(kafka(dir, &brokers.journal("unlike.", "partitions = 2"), "init").0);
    let journal = brokers.journal("unlike.", "partitions = 3").replace("[journal]\n", "[journal]\nnode_name = \"one\"\n");
    let node = Setup::new(&dir.join("one")).config(&format!("{journal}[node]\nsite = \"noc\"\n")).start_unready();
    let event = json!({ "resource": "unit=1", "alarm_type": "t", "severity": "major" }).to_string();
    let why = "unlike.events: it has 2 partitions and should have 3: a site would be elsewhere";
    wait_until("it is said", || {
        let refused = node.post("/events", &event).expect("it answers");
        assert_eq!(refused.status, 503, "{}", refused.body);
        refused.body.contains(why)
    });
    assert_eq!(node.log_text().matches("nothing is done with these topics").count(), 1);
    let events = read_all(&brokers, "unlike.events", 2);
    assert!(events.is_empty(), "{events:?}");

    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers.addresses().join(",")).create().expect("is a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("can be had");
    let topics = ["events", "changes", "state", "cursors"].map(|topic| format!("unlike.{topic}"));
    let more: Vec<_> = topics.iter().map(|topic| NewPartitions::new(topic, 3)).collect();
    runtime.block_on(admin.create_partitions(&more, &AdminOptions::new())).expect("the broker answers");
    node.wait_ready();
    assert_eq!(node.post("/events", &event).expect("it answers").status, 200);
    wait_until("it is shown", || node.alarms().iter().any(|alarm| alarm["resource"] == "unit=1"));
}

#[test]
fn an_action_whose_effect_is_not_known_is_not_said_to_be_done() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-action-");
    let dir = scratch.path();
    let journal = brokers.journal("action.", "partitions = 2");
    assert!(kafka(dir, &journal, "init").0);
    let (one, two) = (node(dir, "one", &journal, ""), node(dir, "two", &journal, "correlate = false\n"));
    two.send(&json!({ "resource": "unit=1", "alarm_type": "t", "severity": "major" }));
    let alarm = || two.alarms().into_iter().find(|alarm| alarm["resource"] == "unit=1");
    wait_until("it is shown", || alarm().is_some());
    let id = alarm().expect("is shown")["id"].as_str().expect("is text").to_owned();
    one.kill();
    let acted = two.cli(&["alarms", "ack", &id]);
    let said = String::from_utf8_lossy(&acted.stderr).into_owned();
    assert!(!acted.status.success() && said.contains("no correlator has told what became of it"), "{said}");
    let one = node(dir, "one", &journal, "");
    for node in [&one, &two] {
        wait_until("it took effect all the same", || {
            node.alarms().iter().any(|alarm| alarm["id"] == *id && alarm["acknowledged"].is_object())
        });
    }
}

#[test]
fn a_partition_that_is_full_is_an_alarm_until_there_is_room() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-limit-");
    let dir = scratch.path();
    let journal = brokers.journal("limit.", "partitions = 2");
    assert!(kafka(dir, &journal, "init").0);
    let one = node(dir, "one", &format!("[engine]\nactive_alarms_max = 20\n{journal}"), "");
    let report = |severity: &str| {
        let event = |unit: u32| json!({ "resource": format!("unit={unit}"), "alarm_type": "t", "severity": severity });
        one.send(&json!((0..25).map(event).collect::<Vec<Value>>()));
    };
    let full = || one.alarms().iter().any(|alarm| alarm["alarm_type"] == "klaxon.alarm-limit" && alarm["cleared"] == false);
    report("major");
    wait_until("it is said", full);
    let place = format!("klaxon=journal.partition={}", partition_of(b"noc", 2));
    assert!(one.alarms().iter().any(|alarm| alarm["resource"] == *place));
    report("cleared");
    wait_until("it is over", || !full());
}

#[test]
fn a_folder_is_gone_on_with_as_what_it_is() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-folder-");
    let dir = scratch.path();
    let journal = brokers.journal("folder.", "partitions = 2");
    assert!(kafka(dir, &journal, "init").0);
    let refused = |folder: &str, config: &str| {
        let file = dir.join("refused.toml");
        write_config(&file, config);
        let data = dir.join(folder);
        let output = klaxon().args(["run", "--config"]).arg(&file).arg("--data").arg(data).output().expect("it runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let own = Setup::new(&dir.join("own")).config("[node]\nsite = \"noc\"\n").start();
    assert!(own.stop().success());
    let said = refused("own", &journal);
    assert!(said.contains("store.dir: has a journal of its own"), "{said}");
    let one = node(dir, "one", &journal, "");
    one.send(&json!({ "resource": "unit=1", "alarm_type": "t", "severity": "major" }));
    wait_until("it is copied", || !one.alarms().is_empty());
    assert!(one.stop().success());
    let said = refused("one", "[node]\nsite = \"noc\"\n");
    assert!(said.contains("store.dir: is a copy of a journal in a Kafka"), "{said}");
}

#[test]
fn what_a_newer_program_wrote_of_changes_is_left_to_it() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-newer-");
    let dir = scratch.path();
    let config = brokers.journal("newer.", "partitions = 2");
    assert!(kafka(dir, &config, "init").0);
    let node = node(dir, "one", &config, "");
    let in_partition = |partition| {
        (0..).map(|n| format!("site-{n}")).find(|site| partition_of(site.as_bytes(), 2) == partition).expect("there is one")
    };
    let of = [in_partition(0), in_partition(1)];
    let raise = |partition: usize, unit: &str| {
        node.send(&json!({ "site": of[partition], "resource": unit, "alarm_type": "t", "severity": "major" }));
    };
    raise(0, "host=a");
    raise(1, "host=a");
    wait_until("both are shown", || shown(&node).len() == 2);
    let needs = OwnedHeaders::new().insert(Header { key: "klaxon-min-reader", value: Some("7") });
    let producer = producer(&brokers);
    let record = BaseRecord::to("newer.changes").key(&of[0]).payload("{\"of\":\"tomorrow\"}").partition(0).headers(needs);
    producer.send(record).map_err(|(error, _)| error).expect("is taken");
    producer.flush(PATIENCE).expect("is taken");
    let metric = |line: &str| node.get("//metrics").expect("it answers").body.contains(&format!("\n{line}\n"));
    wait_until("it is counted", || metric("klaxon_kafka_partitions_newer 1"));
    raise(0, "host=b");
    raise(1, "host=b");
    // What is behind it must not be shown as if nothing were between: the next program goes on there.
    wait_until("the other partition goes on", || shown(&node).len() == 3);
    let units = |site: &str| shown(&node).iter().filter(|(of, ..)| of == site).count();
    assert_eq!((units(&of[0]), units(&of[1])), (1, 2));
    let log = std::fs::read_to_string(&node.log).expect("can be read");
    assert_eq!(log.matches("this node is to be brought up to date").count(), 1, "{log}");
    assert!(node.stop().success());
    // It did not pass over it.
    let node = self::node(dir, "one", &config, "");
    wait_until("it is met again", || {
        node.get("//metrics").expect("it answers").body.contains("\nklaxon_kafka_partitions_newer 1\n")
    });
    assert_eq!(shown(&node).len(), 3);
}
