//! Apache Kafka, as processes of its own: one broker, or several that are each other's replicas.

#![allow(dead_code, reason = "each test uses its part")]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use super::authority::Authority;
use super::{klaxon, scratch, wait_until};

/// What a broker remembers of: the same for those of one cluster.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// Where the jars are, if they are; with `CI` set they must be.
pub(crate) fn jars() -> Option<PathBuf> {
    // `./dev` says where it put them.
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kafka/lib");
    let dir = std::env::var_os("KLAXON_KAFKA_JARS").map_or_else(own, PathBuf::from);
    let found = dir.join("complete").exists();
    assert!(found || std::env::var_os("CI").is_none(), "CI needs Apache Kafka in {}", dir.display());
    found.then_some(dir)
}

/// Ports that nobody listens at. The system gives none of them to who connects, so a broker that comes again finds its own free.
fn free_ports(count: usize) -> Vec<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let next = || {
        let number = TRIED.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(101));
        TcpListener::bind(("127.0.0.1", 10_000 + u16::try_from(number % 22_000).expect("is small"))).ok()
    };
    // All held until all are chosen.
    let held: Vec<_> = std::iter::repeat_with(next).flatten().take(count).collect();
    held.iter().map(|listener| listener.local_addr().expect("is bound").port()).collect()
}

/// Some brokers, which end with this.
pub(crate) struct Brokers {
    dir: tempfile::TempDir,
    jars: PathBuf,
    ports: Vec<(u16, u16)>,
    /// Lines of their configuration beside those that every broker here has.
    lines: String,
    /// Who may come by a challenge, as the tool that makes their folders takes it.
    users: Vec<String>,
    running: Vec<Option<Child>>,
}

impl Brokers {
    /// One, or nothing where there is no Kafka.
    pub(crate) fn one() -> Option<Self> {
        Self::start(1, "")
    }

    /// So many, and waits until they are there.
    pub(crate) fn start(count: usize, lines: &str) -> Option<Self> {
        Self::with_users(count, lines, Vec::new())
    }

    fn with_users(count: usize, lines: &str, users: Vec<String>) -> Option<Self> {
        let jars = jars()?;
        let ports = free_ports(2 * count).chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let running = (0..count).map(|_| None).collect();
        let mut brokers = Self { dir: scratch("kafka-"), jars, ports, lines: lines.to_owned(), users, running };
        for at in 0..count {
            brokers.format(at);
        }
        for at in 0..count {
            brokers.run(at);
        }
        for at in 0..count {
            brokers.wait(at);
        }
        Some(brokers)
    }

    /// Where they are found.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.ports.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect()
    }

    /// The section of a node's configuration that names them, for topics that begin with `prefix`.
    pub(crate) fn journal(&self, prefix: &str, lines: &str) -> String {
        let (addresses, copies) = (self.addresses(), self.ports.len());
        let insync = copies.div_ceil(2);
        format!(
            "[journal]\nkind = \"kafka\"\nbrokers = {addresses:?}\ntopic_prefix = \"{prefix}\"\n\
             replication_factor = {copies}\nmin_insync_replicas = {insync}\n{lines}\n"
        )
    }

    /// Makes the topics that a section of a configuration names.
    pub(crate) fn init(&self, journal: &str) {
        let file = self.dir.path().join("init.toml");
        std::fs::write(&file, journal).expect("can be written");
        let done = klaxon().args(["kafka", "init", "--config"]).arg(&file).output().expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn place(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("{at}"))
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xms96m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]);
        command.arg(format!("-Dlog4j2.configurationFile=file:{}", self.dir.path().join("log4j2.properties").display()));
        command.env("CLASSPATH", format!("{}/*", self.jars.display())).stdin(Stdio::null());
        command
    }

    fn format(&self, at: usize) {
        let place = self.place(at);
        std::fs::create_dir_all(&place).expect("can be made");
        let voters: Vec<String> =
            self.ports.iter().zip(1..).map(|((_, controller), id)| format!("{id}@127.0.0.1:{controller}")).collect();
        let (copies, (port, controller)) = (self.ports.len().min(3), self.ports[at]);
        let insync = copies.div_ceil(2);
        let lines = format!(
            "process.roles=broker,controller\nnode.id={id}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\ncontroller.quorum.voters={voters}\nlog.dirs={data}\n\
             num.network.threads=1\nnum.io.threads=2\nnum.recovery.threads.per.data.dir=1\n\
             offsets.topic.replication.factor={copies}\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor={copies}\ntransaction.state.log.min.isr={insync}\n\
             transaction.state.log.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n{more}\n",
            id = at + 1,
            voters = voters.join(","),
            data = place.join("data").display(),
            more = self.lines.replace("<port>", &port.to_string()).replace("<controller>", &controller.to_string()),
        );
        std::fs::write(place.join("server.properties"), lines).expect("can be written");
        let log = "rootLogger.level=INFO\nrootLogger.appenderRef.o.ref=o\nappender.o.type=Console\nappender.o.name=o\n\
                   appender.o.layout.type=PatternLayout\nappender.o.layout.pattern=[%d] %p %m (%c)%n\n";
        std::fs::write(self.dir.path().join("log4j2.properties"), log).expect("can be written");
        let mut tool = self.java();
        tool.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(place.join("server.properties"));
        tool.args(self.users.iter().flat_map(|user| ["--add-scram", user]));
        let done = tool.output().expect("there is a java");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn log(&self, at: usize) -> PathBuf {
        self.place(at).join("log")
    }

    /// Starts one that does not run.
    pub(crate) fn run(&mut self, at: usize) {
        let log = File::options().create(true).append(true).open(self.log(at)).expect("can be written");
        let mut server = Command::new("setpriv");
        // A test that is killed takes its brokers with it. They live as long as the thread that started them.
        let java = self.java();
        server.args(["--pdeathsig", "KILL", "java"]).args(java.get_args());
        java.get_envs().for_each(|(name, value)| {
            server.env(name, value.expect("is set"));
        });
        server.arg("kafka.Kafka").arg(self.place(at).join("server.properties"));
        server.stdin(Stdio::null()).stdout(log.try_clone().expect("is open")).stderr(log);
        let (started, child) = mpsc::channel();
        std::thread::spawn(move || {
            started.send(server.spawn().expect("there is a setpriv")).expect("is waited for");
            loop {
                std::thread::park();
            }
        });
        self.running[at] = Some(child.recv().expect("is started"));
    }

    /// Waits until it serves.
    pub(crate) fn wait(&self, at: usize) {
        wait_until("the broker serves", || {
            let text = std::fs::read_to_string(self.log(at)).unwrap_or_default();
            let begun = text.rfind("KafkaConfig values").map_or("", |from| &text[from..]);
            begun.contains("Kafka Server started") && TcpStream::connect(("127.0.0.1", self.ports[at].0)).is_ok()
        });
    }

    /// The process of one that runs.
    pub(crate) fn pid(&self, at: usize) -> u32 {
        self.running[at].as_ref().expect("it runs").id()
    }

    /// Waits until the topics in which the brokers keep groups and transactions are there: they are made for whoever asks first.
    #[cfg(feature = "kafka")]
    pub(crate) fn settle(&self) {
        use klaxon_store::kafka::rdkafka::ClientConfig;
        use klaxon_store::kafka::rdkafka::consumer::{BaseConsumer, Consumer as _};
        use klaxon_store::kafka::rdkafka::producer::{BaseProducer, Producer as _};
        let wait = std::time::Duration::from_secs(10);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.addresses().join(","));
        wait_until("there are transactions", || {
            let producer: BaseProducer = config.clone().set("transactional.id", "first").create().expect("is a client");
            producer.init_transactions(wait).is_ok()
        });
        let consumer: BaseConsumer = config.clone().set("group.id", "first").create().expect("is a client");
        wait_until("there are groups", || {
            let _ = consumer.client().fetch_group_list(Some("first"), wait);
            let mut asked = klaxon_store::kafka::rdkafka::TopicPartitionList::new();
            asked.add_partition("none", 0);
            consumer.committed_offsets(asked, wait).is_ok()
        });
    }

    /// SIGKILL to one.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut child = self.running[at].take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it has ended");
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        for at in 0..self.running.len() {
            if self.running[at].is_some() {
                self.kill(at);
            }
        }
    }
}

/// A broker that lets in who proves to be somebody.
pub(crate) struct Guarded {
    pub(crate) brokers: Brokers,
    /// Where it wants a certificate.
    pub(crate) tls: String,
    /// Where it wants a name and a password, over TLS.
    pub(crate) sasl: String,
}

impl Guarded {
    /// The name that it knows, and the password.
    pub(crate) const USER: (&'static str, &'static str) = ("klaxon", "open-sesame");

    /// One whose certificate, and those that it takes, are of this authority; or nothing where there is no Kafka.
    pub(crate) fn start(authority: &Authority) -> Option<Self> {
        authority.serve();
        let part = |name: &str| std::fs::read_to_string(authority.path(name)).expect("is written");
        authority.write("broker.pem", &(part("key.pem") + &part("cert.pem") + &part("ca.pem")));
        let [tls, sasl] = free_ports(2).try_into().expect("two were asked for");
        let (user, password) = Self::USER;
        let listeners = format!("PLAINTEXT://127.0.0.1:<port>,SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}");
        let lines = format!(
            "listeners={listeners},CONTROLLER://127.0.0.1:<controller>\nadvertised.listeners={listeners}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n\
             ssl.keystore.type=PEM\nssl.keystore.location={keys}\nssl.truststore.type=PEM\nssl.truststore.location={authorities}\n\
             listener.name.ssl.ssl.client.auth=required\nsasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_{user}=\"{password}\";\n\
             listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram}\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}",
            keys = authority.path("broker.pem"),
            authorities = authority.path("ca.pem"),
            scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        );
        let users = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|how| format!("{how}=[name={user},password={password}]"));
        let brokers = Brokers::with_users(1, &lines, users.to_vec())?;
        Some(Self { brokers, tls: format!("127.0.0.1:{tls}"), sasl: format!("127.0.0.1:{sasl}") })
    }
}
