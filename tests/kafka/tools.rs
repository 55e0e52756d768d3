//! What failure tests do to correlators and brokers, and how they look at topics: as anybody may.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use klaxon_store::kafka::rdkafka::admin::{AdminClient, AdminOptions};
use klaxon_store::kafka::rdkafka::client::DefaultClientContext;
use klaxon_store::kafka::rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use klaxon_store::kafka::rdkafka::error::KafkaError;
use klaxon_store::kafka::rdkafka::metadata::MetadataTopic;
use klaxon_store::kafka::rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use klaxon_store::kafka::rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::kafka::Brokers;
use crate::harness::{PATIENCE, klaxon, wait_until, write_config};

/// How long a broker is asked.
const ASK: Duration = Duration::from_secs(10);

/// A centre's topics, which begin with a prefix.
pub(crate) struct Topics {
    pub(crate) addresses: String,
    pub(crate) prefix: String,
    pub(crate) partitions: i32,
}

/// A record as it lies in a topic.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) value: Option<Value>,
}

impl Topics {
    pub(crate) fn new(brokers: &Brokers, prefix: &str, partitions: i32) -> Self {
        Self { addresses: brokers.addresses().join(","), prefix: prefix.to_owned(), partitions }
    }

    pub(crate) fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.addresses).set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true").set("fetch.wait.max.ms", "50");
        config
    }

    /// As a member of the correlators' group has it, without joining.
    pub(crate) fn group(&self) -> BaseConsumer {
        self.client().set("group.id", self.name("correlators")).create().expect("is a client")
    }

    /// What anybody may use to produce: keyed by site, hashed as Kafka's own clients do.
    pub(crate) fn producer(&self) -> ThreadedProducer<DefaultProducerContext> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.addresses).set("partitioner", "murmur2_random");
        config.set("enable.idempotence", "true").set("linger.ms", "2");
        config.create().expect("is a client")
    }

    /// All that is committed in a topic by now, each partition in its order.
    pub(crate) fn read(&self, topic: &str) -> Vec<Raw> {
        let consumer: BaseConsumer = self.client().set("group.id", "looks").create().expect("is a client");
        let mut all = TopicPartitionList::new();
        for partition in 0..self.partitions {
            all.add_partition_offset(&self.name(topic), partition, Offset::Beginning).expect("is an offset");
        }
        consumer.assign(&all).expect("can be read");
        let (mut records, mut ended, begun) = (Vec::new(), BTreeSet::new(), Instant::now());
        while ended.len() < usize::try_from(self.partitions).expect("some") {
            assert!(begun.elapsed() < PATIENCE, "the end of {topic} does not come");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let value = message.payload().map(|payload| serde_json::from_slice(payload).expect("is JSON"));
                    let key = String::from_utf8(message.key().unwrap_or_default().to_vec()).expect("is text");
                    records.push(Raw { partition: message.partition(), key, value });
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
                // Brokers come and go.
                Some(Err(_)) | None => {}
            }
        }
        records
    }

    /// What the state is: of each partition the last record with each key, by partition and key.
    pub(crate) fn state(&self) -> BTreeMap<(i32, String), Value> {
        let mut state = BTreeMap::new();
        for Raw { partition, key, value } in self.read("state") {
            match value {
                Some(value) => drop(state.insert((partition, key), value)),
                None => drop(state.remove(&(partition, key))),
            }
        }
        state
    }

    /// The partitions of a topic whose end is not committed: a transaction is open there.
    pub(crate) fn open(&self, topic: &str) -> Vec<i32> {
        let ends = |isolation: &str| self.ends(&self.name(topic), isolation);
        let (Some(stable), Some(ends)) = (ends("read_committed"), ends("read_uncommitted")) else { return Vec::new() };
        (0..self.partitions).zip(stable.iter().zip(&ends)).filter(|(_, (stable, end))| stable < end).map(|(at, _)| at).collect()
    }

    fn ends(&self, topic: &str, isolation: &str) -> Option<Vec<i64>> {
        let consumer: BaseConsumer = self.client().set("isolation.level", isolation).create().expect("is a client");
        (0..self.partitions).map(|partition| Some(consumer.fetch_watermarks(topic, partition, ASK).ok()?.1)).collect()
    }

    /// Where the events end; nothing while brokers are away.
    pub(crate) fn produced(&self) -> Option<Vec<i64>> {
        self.ends(&self.name("events"), "read_uncommitted")
    }

    /// Where the correlators' group has read each partition up to; nothing while brokers are away.
    pub(crate) fn offsets(&self) -> Option<BTreeMap<i32, i64>> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions {
            asked.add_partition(&self.name("events"), partition);
        }
        let told = self.group().committed_offsets(asked, ASK).ok()?;
        let offset = |offset: Offset| if let Offset::Offset(at) = offset { Some(at) } else { None };
        Some(told.elements().iter().filter_map(|one| Some((one.partition(), offset(one.offset())?))).collect())
    }

    /// How much waits to be correlated; nothing while brokers are away.
    pub(crate) fn behind(&self) -> Option<i64> {
        let (ends, at) = (self.produced()?, self.offsets()?);
        Some((0..).zip(ends).map(|(partition, end)| end - at.get(&partition).copied().unwrap_or(0)).sum())
    }

    /// Whether all is correlated that was produced up to there.
    pub(crate) fn is_correlated(&self, ends: &[i64]) -> bool {
        self.offsets().is_some_and(|at| {
            (0..).zip(ends).all(|(partition, end)| *end == 0 || at.get(&partition).is_some_and(|next| next >= end))
        })
    }

    /// Waits until all is correlated that is produced by now.
    pub(crate) fn wait_correlated(&self, what: &str) {
        let mut ends = None;
        wait_until("the brokers tell what is there", || {
            ends = self.produced();
            ends.is_some()
        });
        let ends = ends.unwrap_or_default();
        // Brokers that fall away are noticed after 9 s, correlators after 10 s; a machine may be slow.
        let (begun, mut said) = (Instant::now(), 1);
        while !self.is_correlated(&ends) {
            if begun.elapsed() > said * Duration::from_secs(15) {
                println!("    not yet after {} s: {:?} of {ends:?}", begun.elapsed().as_secs(), self.offsets());
                said += 1;
            }
            assert!(begun.elapsed() < 3 * PATIENCE, "waited too long until {what}: {:?} of {ends:?}", self.offsets());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until each partition of all topics has so many copies up to date.
    pub(crate) fn wait_insync(&self, copies: usize) {
        let consumer: BaseConsumer = self.client().create().expect("is a client");
        wait_until("all copies are up to date", || {
            consumer.fetch_metadata(None, ASK).is_ok_and(|metadata| {
                metadata.brokers().len() == copies
                    && metadata.topics().iter().flat_map(MetadataTopic::partitions).all(|one| one.isr().len() == copies)
            })
        });
    }

    /// Moves the offset of the correlators' group, as an operator may, who must not.
    pub(crate) fn set_offset(&self, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.name("events"), partition, Offset::Offset(offset)).expect("is an offset");
        let group = self.group();
        // Who was killed is a member for some seconds.
        wait_until("the offset is moved", || group.commit(&offsets, CommitMode::Sync).is_ok());
    }

    /// The broker that leads a partition, as its place among the brokers.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let consumer: BaseConsumer = self.client().create().expect("is a client");
        let metadata = consumer.fetch_metadata(Some(topic), ASK).ok()?;
        let leader = metadata.topics().first()?.partitions().iter().find(|one| one.id() == partition)?.leader();
        usize::try_from(leader - 1).ok()
    }

    /// The broker that coordinates a group: `correlators` or `notifiers`.
    pub(crate) fn group_coordinator(&self, group: &str) -> Option<usize> {
        self.leader("__consumer_offsets", coordinated(&self.name(group)))
    }

    /// The broker that coordinates the transactions of a correlator.
    pub(crate) fn transaction_coordinator(&self, node: &str) -> Option<usize> {
        self.leader("__transaction_state", coordinated(&self.name(node)))
    }

    /// A broker of three is killed; the others go on, and it comes again.
    pub(crate) fn strike_one(&self, brokers: &mut Brokers, broker: usize) {
        brokers.kill(broker);
        let begun = Instant::now();
        self.wait_correlated("two brokers go on");
        println!("  two brokers go on after {:.1} s", begun.elapsed().as_secs_f32());
        brokers.run(broker);
        brokers.wait(broker);
        self.wait_insync(3);
    }

    /// All three are killed, and come again.
    pub(crate) fn strike_all(&self, brokers: &mut Brokers) {
        (0..3).for_each(|broker| brokers.kill(broker));
        (0..3).for_each(|broker| brokers.run(broker));
        (0..3).for_each(|broker| brokers.wait(broker));
        self.wait_insync(3);
    }

    pub(crate) fn delete(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("is a client");
        let name = self.name(topic);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is a runtime");
        let options = AdminOptions::new().operation_timeout(Some(ASK));
        let deleted = runtime.block_on(admin.delete_topics(&[&name], &options)).expect("the brokers answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }
}

/// Of the 4 partitions of the brokers' own topics the one that this id belongs to: Java's hash of a text.
fn coordinated(id: &str) -> i32 {
    let hash = id.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    (hash & i32::MAX) % 4
}

pub(crate) fn produce(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, event: &Value) {
    let (text, site) = (event.to_string(), event["site"].as_str().expect("has a site"));
    producer.send(BaseRecord::to(topic).key(site).payload(&text)).map_err(|(error, _)| error).expect("is taken");
}

/// Runs `klaxon kafka`: whether it went well, what it says as JSON, and its errors.
pub(crate) fn kafka(dir: &Path, config: &str, args: &[&str]) -> (bool, Value, String) {
    let file = dir.join("k.toml");
    std::fs::write(&file, config).expect("can be written");
    let output = klaxon().args(["--json", "kafka"]).args(args).arg("--config").arg(&file).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.success(), shown, errors)
}

/// A correlator as a process.
pub(crate) struct Correlator {
    child: Child,
    log: PathBuf,
}

impl Correlator {
    pub(crate) fn start(dir: &Path, name: &str, config: &str) -> Self {
        let (file, log) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.log")));
        write_config(&file, &config.replace("[journal]\n", &format!("[journal]\nnode_name = \"{name}\"\n")));
        let written = File::options().create(true).append(true).open(&log).expect("can be written");
        let mut command = klaxon();
        command.args(["run", "--config"]).arg(&file).arg("--data").arg(dir.join(name));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(written).spawn().expect("it runs");
        Self { child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("it is there");
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// SIGTERM, and waits.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        wait_until("it has ended", || self.child.try_wait().expect("can be waited for").is_some());
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has taken of the processors.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it is there");
        let rest = stat.rsplit_once(") ").expect("has a name").1;
        let ticks: u64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// How often it took a partition over.
    pub(crate) fn takeovers(&self) -> usize {
        self.log_text().matches("a partition is taken over partition").count()
    }
}

impl Drop for Correlator {
    fn drop(&mut self) {
        if self.runs() {
            self.child.kill().expect("it can be killed");
            self.child.wait().expect("it has ended");
        }
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.log.display(), self.log_text());
        }
    }
}
