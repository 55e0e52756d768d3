//! States and offsets that are lost or do not belong together, and records that do not belong where they are.

use std::path::Path;
use std::time::Duration;

use klaxon_store::kafka::partition_of;
use klaxon_store::kafka::rdkafka::consumer::Consumer as _;
use klaxon_store::kafka::rdkafka::message::{Header, OwnedHeaders};
use klaxon_store::kafka::rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use klaxon_store::kafka::rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::oracle::Model;
use super::tools::{Correlator, Raw, Topics, kafka, produce};
use crate::harness::kafka::Brokers;
use crate::harness::{Chance, Setup, scratch, wait_until};

const FLUSH: Duration = Duration::from_secs(20);

/// A site that has its place in a partition.
fn site_in(partition: i32, partitions: i32) -> String {
    let partitions = u16::try_from(partitions).expect("few");
    let is_there = |site: &String| i32::from(partition_of(site.as_bytes(), partitions)) == partition;
    (0..).map(|n| format!("site-{n}")).find(is_there).expect("there is one")
}

/// A centre with one correlator that has correlated something in each partition.
fn begin(brokers: &Brokers, dir: &Path, prefix: &str) -> (Topics, String, Model, Correlator) {
    let topics = Topics::new(brokers, prefix, 2);
    // What is said of the node itself has its place in the second one.
    let config = brokers.journal(prefix, "partitions = 2") + &format!("[node]\nsite = \"{}\"\n", site_in(1, 2));
    assert!(kafka(dir, &config, &["init"]).0);
    let correlator = Correlator::start(dir, "c0", &config);
    let mut model = Model::default();
    say(&topics, &mut model, 200);
    topics.wait_correlated("all is correlated");
    assert_eq!(topics.offsets().expect("the brokers tell").len(), 2, "both are in use");
    (topics, config, model, correlator)
}

fn say(topics: &Topics, model: &mut Model, count: u64) {
    let (producer, mut dice) = (topics.producer(), Chance::new(model.said + 1));
    for _ in 0..count {
        produce(&producer, &topics.name("events"), &model.next(&mut dice));
    }
    producer.flush(FLUSH).expect("is taken");
}

/// Raises an alarm in a partition.
fn raise(topics: &Topics, model: &mut Model, partition: i32, resource: &str) {
    let site = site_in(partition, topics.partitions);
    model.take(&site, resource, Some("major"));
    let producer = topics.producer();
    let event = json!({ "site": site, "resource": resource, "alarm_type": "t", "severity": "major" });
    produce(&producer, &topics.name("events"), &event);
    producer.flush(FLUSH).expect("is taken");
}

fn is_raised(topics: &Topics, resource: &str) -> bool {
    topics.read("changes").iter().any(|change| change.value.as_ref().is_some_and(|one| one["alarm"]["resource"] == resource))
}

#[test]
fn a_state_that_is_gone_is_refused_until_it_is_reset() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-lost-");
    let dir = scratch.path();
    let (topics, config, _, correlator) = begin(&brokers, dir, "lost.");
    let epochs = |topics: &Topics| -> std::collections::BTreeSet<u64> {
        topics
            .read("changes")
            .iter()
            .map(|one| one.value.as_ref().expect("has one")["epoch"].as_u64().expect("a number"))
            .collect()
    };
    let before = (epochs(&topics), topics.read("changes").len(), topics.offsets().expect("the brokers tell"));
    let lines = "[journal]\nnode_name = \"shows\"\ncorrelate = false\n";
    let shows = Setup::new(&dir.join("shows")).config(&config.replace("[journal]\n", lines)).start();
    let units = || {
        let ours = |one: &Value| one["alarm_type"] == "t";
        let all = shows.alarms().into_iter().filter(ours).map(|one| one["resource"].as_str().expect("a name").to_owned());
        all.collect::<Vec<String>>()
    };
    let stood = topics.state().keys().filter(|(_, key)| key.starts_with("alarm")).count();
    wait_until("it is shown", || units().len() == stood);
    // While correlators run nothing is reset.
    let (is_good, _, errors) = kafka(dir, &config, &["reset", "--new-epoch"]);
    assert!(!is_good && errors.contains("1 correlators are in the group lost.correlators; stop them"), "{errors}");
    correlator.stop();
    let (is_good, shown, errors) = kafka(dir, &config, &["reset", "--new-epoch"]);
    assert!(is_good, "{errors}");
    assert!(
        shown["partitions"].as_array().expect("a list").iter().all(|one| one["was"] == "good" && one["new_epoch"].is_null())
    );

    topics.delete("state");
    wait_until("it is made anew", || kafka(dir, &config, &["init"]).1["created"] == json!(["lost.state"]));
    let correlator = Correlator::start(dir, "c0", &config);
    for (partition, next) in &before.2 {
        let says = format!("its state is gone, and the group has read it up to offset {next}: klaxon kafka reset begins anew");
        wait_until("it is refused", || {
            let log = correlator.log_text();
            log.lines().any(|line| line.contains(&says) && line.contains(&format!("partition={partition}")))
        });
    }
    let mut model = Model::default();
    raise(&topics, &mut model, 0, "unit=new");
    raise(&topics, &mut model, 1, "unit=new");
    // It is tried again and again, and said once.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(correlator.log_text().matches("its state is gone").count(), 2, "{}", correlator.log_text());
    assert_eq!((topics.read("changes").len(), topics.offsets().as_ref()), (before.1, Some(&before.2)));
    correlator.stop();

    assert!(!kafka(dir, &config, &["reset"]).0, "it must be said that one knows");
    let (is_good, shown, errors) = kafka(dir, &config, &["reset", "--new-epoch"]);
    assert!(is_good, "{errors}");
    for one in shown["partitions"].as_array().expect("a list") {
        let partition = i32::try_from(one["partition"].as_i64().expect("a number")).expect("small");
        assert_eq!((one["was"].as_str(), one["group"].as_i64()), (Some("lost"), Some(before.2[&partition])), "{one}");
        assert!(one["new_epoch"].as_u64() > before.0.last().copied(), "{one}");
    }
    assert_eq!(kafka(dir, &config, &["reset", "--new-epoch"]).1["partitions"][0]["was"], "good", "once");
    let _correlator = Correlator::start(dir, "c0", &config);
    topics.wait_correlated("it goes on");
    let changes = topics.read("changes");
    super::oracle::each_once(&changes, 2);
    let new: Vec<_> = changes
        .iter()
        .filter(|one| !before.0.contains(&one.value.as_ref().expect("has one")["epoch"].as_u64().expect("a number")))
        .collect();
    let value = |one: &&Raw| one.value.clone().expect("has one");
    let raised = new.iter().filter(|one| value(one)["alarm"]["resource"] == "unit=new").count();
    assert_eq!(raised, 2, "what came while it was refused is there, once");
    let retired = new.iter().filter(|one| value(one)["kind"] == "retired" && value(one)["alarm"]["alarm_type"] == "t").count();
    assert_eq!(retired, stood, "what stood is given up where everybody sees it");
    wait_until("nodes know", || units() == ["unit=new", "unit=new"]);
}

/// A transaction of somebody else, with the correlators' group. Nobody asks him whether he is a member.
struct Other {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Other {
    fn begin(topics: &Topics, partition: i32, offset: i64) -> Self {
        let mut config = topics.client();
        config.set("transactional.id", topics.name("other")).set("transaction.timeout.ms", "60000");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("is a client");
        producer.init_transactions(FLUSH).expect("the brokers answer");
        producer.begin_transaction().expect("can begin");
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&topics.name("events"), partition, Offset::Offset(offset)).expect("is an offset");
        let group = topics.group().group_metadata().expect("is a group");
        producer.send_offsets_to_transaction(&offsets, &group, FLUSH).expect("is taken");
        Self { producer }
    }

    fn write(&self, topic: &str, partition: i32, key: &str, text: &str) {
        let record = BaseRecord::to(topic).partition(partition).key(key).payload(text);
        self.producer.send(record).map_err(|(error, _)| error).expect("is taken");
        self.producer.flush(FLUSH).expect("is taken");
    }
}

/// KAFKA-10167: whoever takes a partition over may be told an offset from before a transaction that was on its way.
#[test]
fn an_offset_that_does_not_agree_with_the_state_is_waited_for() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-apart-");
    let dir = scratch.path();
    let (topics, config, mut model, correlator) = begin(&brokers, dir, "apart.");
    correlator.stop();
    model.compare(&topics);
    let at = topics.offsets().expect("the brokers tell")[&0];

    // Behind: what is applied already would be applied again.
    topics.set_offset(0, at - 20);
    let correlator = Correlator::start(dir, "c0", &config);
    let says = format!("its state goes up to offset {at} and the group's to {}", at - 20);
    wait_until("it is refused", || correlator.log_text().contains(&says));
    raise(&topics, &mut model, 0, "unit=late");
    raise(&topics, &mut model, 1, "unit=early");
    wait_until("the other partition goes on", || is_raised(&topics, "unit=early"));
    let refused = |kind: &str| {
        let is_so = |change: &Value| {
            change["kind"] == kind
                && change["alarm"]["alarm_type"] == "klaxon.partition-refused"
                && change["alarm"]["resource"] == "klaxon=journal.partition=0"
        };
        topics.read("changes").iter().any(|change| change.value.as_ref().is_some_and(is_so))
    };
    wait_until("it is an alarm", || refused("raised"));
    assert!(!refused("cleared"));
    assert!(!is_raised(&topics, "unit=late"));
    // As soon as they agree it goes on by itself.
    let other = Other::begin(&topics, 0, at);
    other.producer.commit_transaction(FLUSH).expect("is committed");
    topics.wait_correlated("it goes on");
    wait_until("it is over", || refused("cleared"));
    model.compare(&topics);
    correlator.stop();

    // A transaction that is not over, on the offset and in the state.
    let at = topics.offsets().expect("the brokers tell")[&0];
    let mark =
        topics.state()[&(0, "mark".to_owned())].to_string().replace(&format!("\"next\":{at}"), &format!("\"next\":{}", at + 2));
    let other = Other::begin(&topics, 0, at + 2);
    other.write(&topics.name("state"), 0, "mark", &mark);
    assert_eq!(topics.open("state"), [0], "it is open");
    let correlator = Correlator::start(dir, "c0", &config);
    wait_until("it waits", || correlator.log_text().contains("a transaction stands open in apart.state/0"));
    raise(&topics, &mut model, 0, "unit=behind");
    raise(&topics, &mut model, 1, "unit=beside");
    wait_until("the other partition goes on", || is_raised(&topics, "unit=beside"));
    assert!(!is_raised(&topics, "unit=behind"));
    other.producer.abort_transaction(FLUSH).expect("is aborted");
    topics.wait_correlated("it goes on");
    model.compare(&topics);
    correlator.stop();

    // Ahead, and for good: an operator has to say what is right.
    let at = topics.offsets().expect("the brokers tell")[&0];
    topics.set_offset(0, at + 1);
    raise(&topics, &mut model, 0, "unit=kept");
    let (is_good, shown, errors) = kafka(dir, &config, &["reset", "--new-epoch"]);
    assert!(!is_good && errors.contains("--force keeps it"), "{errors}");
    assert!(shown["partitions"][0]["was"] == "apart" && shown["partitions"][0]["new_epoch"].is_null(), "{shown}");
    let (is_good, shown, errors) = kafka(dir, &config, &["reset", "--new-epoch", "--force"]);
    assert!(is_good && shown["partitions"][0]["new_epoch"].is_u64() && shown["partitions"][1]["was"] == "good", "{errors}");
    let _correlator = Correlator::start(dir, "c0", &config);
    topics.wait_correlated("it goes on");
    assert!(is_raised(&topics, "unit=kept"));
    // The state was kept: nothing is raised anew, and nothing is missing.
    model.compare_in_epochs(&topics, 2);
}

/// Brokers that lost what they had acknowledged, or a topic that was made anew: what comes in stands where something else stood
/// that is applied.
#[test]
fn events_that_end_before_what_is_applied_are_refused_until_it_is_reset() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-beyond-");
    let dir = scratch.path();
    let (topics, config, mut model, correlator) = begin(&brokers, dir, "beyond.");
    correlator.stop();
    let at = topics.offsets().expect("the brokers tell");
    topics.delete("events");
    wait_until("it is made anew", || kafka(dir, &config, &["init"]).1["created"] == json!(["beyond.events"]));
    at.iter().for_each(|(partition, next)| topics.set_offset(*partition, *next));

    let correlator = Correlator::start(dir, "c0", &config);
    for next in at.values() {
        let says = format!("its state goes up to offset {next} of other events than those that are there");
        wait_until("it is refused", || correlator.log_text().contains(&says));
    }
    // However much comes in, and whoever looks.
    say(&topics, &mut Model::default(), 3 * 200);
    let ends = topics.produced().expect("the brokers tell");
    assert!((0..).zip(&ends).all(|(partition, end)| *end > at[&partition]), "{ends:?} and {at:?}");
    let refused = |correlator: &Correlator| correlator.log_text().matches("of other events than those that are there").count();
    let before = refused(&correlator);
    correlator.stop();
    let correlator = Correlator::start(dir, "c0", &config);
    wait_until("both are refused again", || refused(&correlator) == before + 2);
    assert_eq!(topics.offsets().as_ref(), Some(&at));
    correlator.stop();
    let (is_good, shown, errors) = kafka(dir, &config, &["reset", "--new-epoch"]);
    assert!(!is_good && errors.contains("--force keeps it"), "{errors}");
    assert!(shown["partitions"][0]["was"] == "beyond" && shown["partitions"][0]["new_epoch"].is_null(), "{shown}");
    let (is_good, shown, errors) = kafka(dir, &config, &["reset", "--new-epoch", "--force"]);
    assert!(is_good && shown["partitions"][0]["new_epoch"].is_u64(), "{errors}");
    raise(&topics, &mut model, 0, "unit=anew");
    let _correlator = Correlator::start(dir, "c0", &config);
    wait_until("it goes on", || is_raised(&topics, "unit=anew"));
}

#[test]
fn what_does_not_belong_is_passed_over_and_what_is_too_new_is_left_alone() {
    let Some(brokers) = Brokers::one() else { return };
    let scratch = scratch("kafka-alien-");
    let dir = scratch.path();
    let (topics, config, mut model, correlator) = begin(&brokers, dir, "alien.");
    let (producer, events) = (topics.producer(), topics.name("events"));
    let write = |partition: i32, key: &str, text: &str, needs: Option<&str>| {
        let mut record = BaseRecord::to(&events).partition(partition).key(key).payload(text);
        if let Some(needs) = needs {
            record = record.headers(OwnedHeaders::new().insert(Header { key: "klaxon-min-reader", value: Some(needs) }));
        }
        producer.send(record).map_err(|(error, _)| error).expect("is taken");
        producer.flush(FLUSH).expect("is taken");
    };
    let event =
        |site: &str| json!({ "site": site, "resource": "unit=wrong", "alarm_type": "t", "severity": "major" }).to_string();
    let (here, there) = (site_in(0, 2), site_in(1, 2));
    write(0, &there, &event(&there), None);
    write(0, &here, "{", None);
    write(0, &here, "{\"resource\":\"unit=wrong\"}", None);
    write(0, &here, &event(&here), Some("much"));
    raise(&topics, &mut model, 0, "unit=right");
    topics.wait_correlated("it goes on behind them");
    assert!(is_raised(&topics, "unit=right") && !is_raised(&topics, "unit=wrong"));
    let log = correlator.log_text();
    assert_eq!(log.matches("a record of the events is passed over").count(), 4, "{log}");
    assert!(log.contains(&format!("site {there} belongs to partition 1")), "{log}");

    // What only a newer program understands: what is before it counts, what is behind it waits for that program.
    raise(&topics, &mut model, 0, "unit=before");
    write(0, &here, &event(&here), Some("7"));
    let at = topics.produced().expect("the brokers tell")[0] - 1;
    let mut later = Model::default();
    raise(&topics, &mut later, 0, "unit=after");
    let is_left = |correlator: &Correlator| correlator.log_text().contains("a partition is left alone");
    wait_until("it is left alone", || is_left(&correlator));
    raise(&topics, &mut model, 1, "unit=others");
    wait_until("others go on", || is_raised(&topics, "unit=others"));
    assert!(is_raised(&topics, "unit=before") && !is_raised(&topics, "unit=after"));
    assert_eq!(topics.offsets().expect("the brokers tell")[&0], at);
    assert_eq!(correlator.log_text().matches("a partition is left alone").count(), 1);
    correlator.stop();
    let correlator = Correlator::start(dir, "c1", &config);
    wait_until("it is left alone by any", || is_left(&correlator));
    assert_eq!(topics.offsets().expect("the brokers tell")[&0], at);
    model.compare(&topics);
}
