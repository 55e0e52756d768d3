//! A centre in an Apache Kafka: `./dev bench kafka`. One warm broker on the cores of the node: events in to changes out, exactly
//! once, beside a bare loop of the same client that consumes as many events and produces as many records of as many bytes in
//! transactions as large; how soon a change is there at a steady rate; how long a partition takes to be taken over.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "measure.rs"]
mod measure;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use harness::kafka::Brokers;
use klaxon::correlator::{Correlator, CorrelatorStatus, Parts};
use klaxon::held::Held;
use klaxon::topics::Topics;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::state::Settings;
use klaxon_store::kafka::rdkafka::consumer::{BaseConsumer, Consumer as _};
use klaxon_store::kafka::rdkafka::error::KafkaError;
use klaxon_store::kafka::rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use klaxon_store::kafka::rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use klaxon_store::kafka::{Cluster, Restorer};
use measure::{cpu_of, millis, own_cpu};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u16 = 4;
const EVENTS: usize = 200_000;
/// How many alarms they are about.
const ALARMS: usize = 20_000;
/// The rate at which delays are measured, events a second, and for how long.
const RATE: usize = 2_000;
const STEADY: Duration = Duration::from_secs(20);
const RESTORED: usize = 50_000;
/// As a correlator gathers at most.
const TRANSACTION: usize = 2_000;

fn main() {
    println!("## kafka");
    let Some(brokers) = Brokers::one() else {
        println!("there is no Apache Kafka here; ./dev setup fetches one");
        return;
    };
    warm(&brokers);
    throughput(&brokers);
    delay(&brokers);
    take_over(&brokers);
    println!();
}

fn cluster(brokers: &Brokers, prefix: &str) -> Cluster {
    Cluster {
        brokers: brokers.addresses(),
        prefix: prefix.to_owned(),
        partitions: PARTITIONS,
        replication: 1,
        min_insync: 1,
        tls: None,
        sasl: None,
    }
}

fn init(brokers: &Brokers, prefix: &str) {
    brokers.init(&brokers.journal(prefix, &format!("partitions = {PARTITIONS}")));
}

fn client(brokers: &Brokers) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers.addresses().join(","));
    config
}

fn producer(brokers: &Brokers) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = client(brokers);
    config.set("partitioner", "murmur2_random").set("enable.idempotence", "true").set("compression.type", "lz4");
    config.set("linger.ms", "5").set("queue.buffering.max.messages", "500000");
    config.create().expect("is a client")
}

fn event(number: usize, alarms: usize, round: usize) -> Value {
    let alarm = number % alarms;
    let severity = ["major", "minor", "critical", "cleared"][(number / alarms + round) % 4];
    json!({
        "site": format!("site-{}", alarm % 200), "resource": format!("shelf={}.card={}", alarm / 200, alarm % 7),
        "alarm_type": "link.down", "severity": severity, "qualifier": format!("q{}", alarm),
        "text": "Loss of signal on the optical interface towards the ring, both directions",
    })
}

fn fill(brokers: &Brokers, topic: &str, events: impl Iterator<Item = Value>) {
    let producer = producer(brokers);
    for event in events {
        let (text, site) = (event.to_string(), event["site"].as_str().expect("has one").to_owned());
        let mut record = BaseRecord::to(topic).key(&site).payload(&text);
        while let Err((_, again)) = producer.send(record) {
            std::thread::sleep(Duration::from_millis(1));
            record = again;
        }
    }
    producer.flush(Duration::from_secs(60)).expect("is taken");
}

/// A correlator in this process.
struct Running {
    status: Arc<CorrelatorStatus>,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

fn correlate(brokers: &Brokers, prefix: &str) -> Running {
    let (status, stop) = (Arc::<CorrelatorStatus>::default(), CancellationToken::new());
    let parts = Parts {
        cluster: cluster(brokers, prefix),
        name: "bench".to_owned(),
        site: "noc".parse().expect("is a site"),
        held: Arc::new(Held::new(Settings::default(), Arc::new(Catalogue::built_in()))),
        store: None,
        status: Arc::clone(&status),
        topics: Topics::look(cluster(brokers, prefix), stop.clone()).expect("can be looked at"),
        stop: stop.clone(),
    };
    let correlator = Correlator::start(parts).expect("starts");
    let thread = std::thread::spawn(move || correlator.run().expect("runs"));
    Running { status, stop, thread }
}

impl Running {
    fn end(self) {
        self.stop.cancel();
        self.thread.join().expect("ends");
    }
}

/// How many records a topic has, and how many bytes are in them.
fn contents(brokers: &Brokers, topic: &str) -> (usize, usize) {
    let (mut records, mut bytes) = (0, 0);
    read_to_end(brokers, topic, |message| {
        records += 1;
        bytes += message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
    });
    (records, bytes)
}

fn read_to_end(
    brokers: &Brokers,
    topic: &str,
    mut each: impl FnMut(&klaxon_store::kafka::rdkafka::message::BorrowedMessage<'_>),
) {
    let mut config = client(brokers);
    config.set("group.id", "bench-reads").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("is a client");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition.into(), Offset::Beginning).expect("is an offset");
    }
    consumer.assign(&all).expect("can be read");
    let mut ended = 0;
    while ended < PARTITIONS {
        match consumer.poll(Duration::from_secs(10)).expect("there is an end") {
            Ok(message) => each(&message),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A JVM is slow until it has seen some work.
fn warm(brokers: &Brokers) {
    init(brokers, "warm.");
    fill(brokers, "warm.events", (0..EVENTS / 2).map(|number| event(number, ALARMS, 0)));
    let running = correlate(brokers, "warm.");
    wait_applied(&running.status, EVENTS / 2);
    running.end();
}

fn wait_applied(status: &CorrelatorStatus, events: usize) {
    while status.applied.load(Ordering::Relaxed) < events as u64 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn throughput(brokers: &Brokers) {
    // In turns, because the machine is not the same all the time.
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..3 {
        let prefix = format!("through{round}.");
        init(brokers, &prefix);
        fill(brokers, &format!("{prefix}events"), (0..EVENTS).map(|number| event(number, ALARMS, round)));
        let joining = Instant::now();
        let running = correlate(brokers, &prefix);
        // To join the group and to take partitions over is another thing, and told beside it.
        wait_applied(&running.status, 1);
        let (begun, own, broker) = (Instant::now(), own_cpu(), cpu_of(brokers.pid(0)));
        let (joined, before) = (begun - joining, running.status.applied.load(Ordering::Relaxed));
        wait_applied(&running.status, EVENTS);
        let took = begun.elapsed();
        let (own, broker) = (own_cpu() - own, cpu_of(brokers.pid(0)) - broker);
        let transactions = running.status.committed.load(Ordering::Relaxed);
        running.end();
        let (changes, change_bytes) = contents(brokers, &format!("{prefix}changes"));
        let (state, state_bytes) = contents(brokers, &format!("{prefix}state"));
        let rate = (EVENTS as u64 - before) as f64 / took.as_secs_f64();
        let of = |cpu: Duration| cpu.as_secs_f64() * 1e6 / EVENTS as f64;
        println!(
            "round {round}: begun after {:.0} ms; {EVENTS} events of {ALARMS} alarms in {:.1} s, {rate:.0}/s, in {transactions} transactions: {changes} \
             changes of {} bytes, {state} records of state of {} bytes; CPU per event: correlator {:.1} us, broker {:.1} us",
            millis(joined),
            took.as_secs_f64(),
            change_bytes / changes.max(1),
            state_bytes / state.max(1),
            of(own),
            of(broker),
        );
        figures.entry("klaxon").or_default().push(rate);
        let outputs = [(changes, change_bytes), (state, state_bytes)];
        let bare = bare(brokers, &prefix, &outputs);
        figures.entry("bare").or_default().push(bare);
    }
    let median = |name: &str| {
        let mut rates = figures[name].clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (own, bare) = (median("klaxon"), median("bare"));
    println!("events in to changes out: {own:.0}/s; the bare loop {bare:.0}/s; {:.2} of it (median of 3 each)", own / bare);
}

/// Consumes the same events, and produces as many records of as many bytes, and commits both in transactions.
fn bare(brokers: &Brokers, prefix: &str, outputs: &[(usize, usize); 2]) -> f64 {
    let out = format!("bare.{prefix}");
    init(brokers, &out);
    let topics = [format!("{out}changes"), format!("{out}state")];
    let payloads = outputs.map(|(records, bytes)| "x{\"a\":1}".repeat(bytes / records.max(1) / 8));
    let mut config = client(brokers);
    config.set("group.id", &out).set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    config.set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().expect("is a client");
    consumer.subscribe(&[&format!("{prefix}events")]).expect("can be read");
    let mut config = client(brokers);
    config.set("transactional.id", &out).set("compression.type", "lz4").set("linger.ms", "0");
    config.set("queue.buffering.max.messages", "500000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("is a client");
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).expect("the broker answers");
    let (mut begun, mut own) = (Instant::now(), own_cpu());
    let (mut seen, mut sent, mut in_this) = (0, [0_usize; 2], 0);
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    while seen < EVENTS {
        // It returns without one as well when the group has done something.
        let Some(message) = consumer.poll(wait) else {
            assert!(begun.elapsed() < 10 * wait, "no event comes behind {seen}");
            continue;
        };
        let message = message.expect("can be read");
        if seen == 0 {
            (begun, own) = (Instant::now(), own_cpu());
        }
        if in_this == 0 {
            producer.begin_transaction().expect("begins");
        }
        offsets.insert(message.partition(), message.offset() + 1);
        seen += 1;
        in_this += 1;
        for (of, (records, _)) in outputs.iter().enumerate() {
            while sent[of] < records * seen / EVENTS {
                let key = format!("key-{}", sent[of] % ALARMS);
                let record = BaseRecord::to(&topics[of]).partition(message.partition()).key(&key).payload(&payloads[of]);
                producer.send(record).map_err(|(error, _)| error).expect("is taken");
                sent[of] += 1;
            }
        }
        if in_this == TRANSACTION || seen == EVENTS {
            let mut list = TopicPartitionList::new();
            for (partition, next) in &offsets {
                let topic = format!("{prefix}events");
                list.add_partition_offset(&topic, *partition, Offset::Offset(*next)).expect("is an offset");
            }
            while producer.in_flight_count() > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let group = consumer.group_metadata().expect("is a member");
            producer.send_offsets_to_transaction(&list, &group, wait).expect("is taken");
            producer.commit_transaction(wait).expect("commits");
            in_this = 0;
        }
    }
    let (took, own) = (begun.elapsed(), own_cpu() - own);
    let rate = EVENTS as f64 / took.as_secs_f64();
    println!("         the bare loop: {rate:.0}/s; {:.1} us of CPU per event", own.as_secs_f64() * 1e6 / EVENTS as f64);
    rate
}

fn delay(brokers: &Brokers) {
    init(brokers, "delay.");
    let running = correlate(brokers, "delay.");
    let mut config = client(brokers);
    config.set("group.id", "bench-delay").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
    config.set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().expect("is a client");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset("delay.changes", partition.into(), Offset::Beginning).expect("is an offset");
    }
    consumer.assign(&all).expect("can be read");
    let (zero, stop) = (Instant::now(), CancellationToken::new());
    let wanted = RATE * usize::try_from(STEADY.as_secs()).expect("small");
    let (own, broker) = (own_cpu(), cpu_of(brokers.pid(0)));
    let mut delays: Vec<f64> = std::thread::scope(|scope| {
        let stop = stop.clone();
        scope.spawn(move || {
            let producer = producer(brokers);
            for number in 0..wanted {
                let due = Duration::from_secs_f64(number as f64 / RATE as f64);
                std::thread::sleep(due.saturating_sub(zero.elapsed()));
                let mut event = event(number, wanted, 0);
                event["text"] = json!(zero.elapsed().as_micros().to_string());
                let (text, site) = (event.to_string(), event["site"].as_str().expect("has one").to_owned());
                let record = BaseRecord::to("delay.events").key(&site).payload(&text);
                producer.send(record).map_err(|(error, _)| error).expect("is taken");
            }
            producer.flush(Duration::from_secs(30)).expect("is taken");
            drop(stop);
        });
        let mut delays = Vec::with_capacity(wanted);
        while delays.len() < wanted {
            // It returns without one as well when something passed that is none.
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                assert!(zero.elapsed() < 10 * STEADY, "no change comes behind {}", delays.len());
                continue;
            };
            let change: Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("is JSON");
            let sent = change["alarm"]["text"].as_str().and_then(|text| text.parse::<u64>().ok());
            if let (Some(sent), Some("raised")) = (sent, change["kind"].as_str()) {
                delays.push((zero.elapsed().as_micros() as f64 - sent as f64) / 1e3);
            }
        }
        delays
    });
    let (own, broker) = (own_cpu() - own, cpu_of(brokers.pid(0)) - broker);
    running.end();
    // The first seconds are those of the group and of the first transaction.
    delays.drain(..RATE * 3);
    delays.sort_by(f64::total_cmp);
    let of = |percent: f64| delays[((delays.len() - 1) as f64 * percent) as usize];
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / wanted as f64;
    println!(
        "{RATE} events/s: from the producer to the change at a consumer: median {:.0} ms, p99 {:.0} ms, most {:.0} ms; CPU per event: \
         producer, correlator and consumer {:.0} us, broker {:.0} us",
        of(0.5),
        of(0.99),
        of(1.0),
        each(own),
        each(broker),
    );
}

fn take_over(brokers: &Brokers) {
    init(brokers, "over.");
    // All of one partition: one site.
    let events = (0..RESTORED).map(|number| {
        let mut event = event(number, RESTORED, 0);
        event["site"] = json!("site-1");
        event
    });
    fill(brokers, "over.events", events);
    let running = correlate(brokers, "over.");
    wait_applied(&running.status, RESTORED);
    running.end();
    let partition = klaxon_store::kafka::partition_of(b"site-1", PARTITIONS);
    let mut times: Vec<(Duration, Duration)> = (0..5)
        .map(|_| {
            let (begun, cpu) = (Instant::now(), own_cpu());
            let restorer = Restorer::new(&cluster(brokers, "over.")).expect("is a client");
            let restored = restorer.restore(partition).expect("can be read");
            assert_eq!(restored.alarms.len(), RESTORED);
            (begun.elapsed(), own_cpu() - cpu)
        })
        .collect();
    times.sort();
    let (took, cpu) = times[times.len() / 2];
    println!(
        "a partition with {RESTORED} alarms is restored in {:.0} ms (median of 5), {:.0} ms of CPU",
        millis(took),
        millis(cpu)
    );
}
