//! SNMP: `./dev bench snmp`. Informs from one device to a node with 32 in flight, in v2c and in v3 at authPriv: how many a second are
//! answered, how long each answer takes, and what CPU each costs. Beside it the same to snmptrapd, in the same run.
//!
//! The node answers an inform when its event is synced; afterwards the node is killed, and whatever it answered must be there when it
//! has started again. snmptrapd answers when it has written a line to a file, which it never syncs. Device and receiver share the
//! machine's cores.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
mod measure;
#[path = "../harness/trapd.rs"]
mod trapd;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{Node, Setup, scratch};
use klaxon_snmp::{
    AuthProtocol, Credentials, Engine, Originator, OriginatorConfig, Outgoing, PrivProtocol, Secret, User, Value, Varbind,
    decode,
};
use tokio::task::JoinSet;

const INFORMS: u32 = 40_000;
const WINDOW: usize = 32;
/// How long an answer is waited for. Nothing is sent twice: what is not answered is said.
const TIMEOUT: Duration = Duration::from_secs(20);
/// What a device says, as the benchmark of traps has it, and in front of it the number of the inform.
const TRAP: &[u8] = include_bytes!("../../fuzz/corpus/trap/v2c-types.bin");
const TRAP_OID: &str = "1.3.6.1.4.1.8072.2.3.0.1";
const NUMBER: &str = "1.3.6.1.4.1.8072.9999.9999.1.0";
const USER: &str = "[snmp.users.noc]\nauth = \"sha256\"\nauth_password = \"auth-password\"\nprivacy = \"aes256\"\n\
                    privacy_password = \"priv-password\"\n";

fn main() {
    println!("## snmp: informs in");
    let scratch = scratch("bench-");
    measure::print_disk(scratch.path());
    let versions = [("v2c", Credentials::V2c(Secret("public".to_owned()))), ("v3 at authPriv", Credentials::V3(user()))];
    for round in 0..2 {
        for (version, credentials) in &versions {
            let dir = scratch.path().join(format!("{round}-{}", &version[..2]));
            std::fs::create_dir_all(&dir).expect("can be made");
            to_node(version, &dir, credentials);
            to_snmptrapd(version, &dir, credentials);
        }
    }
}

fn user() -> User {
    let (auth, privacy) = (Secret("auth-password".to_owned()), Secret("priv-password".to_owned()));
    let user = User::new("noc", Some((AuthProtocol::Sha256, &auth)), Some((PrivProtocol::Aes256, &privacy)), false);
    user.expect("has what it needs")
}

/// What came of the informs to one receiver.
struct Answered {
    numbers: Vec<u32>,
    /// From the sending to the answer, in order of length.
    latencies: Vec<Duration>,
    took: Duration,
    /// CPU time of the device.
    cpu: Duration,
}

impl Answered {
    fn report(&self, what: &str, of_receiver: Duration) {
        let count = self.numbers.len();
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
        let at = |percent: usize| self.latencies.get(count * percent / 100).copied().map_or(f64::NAN, measure::millis);
        println!(
            "{what}: {count} of {INFORMS} informs answered in {:.2} s: {:.0}/s with {WINDOW} in flight; answer after {:.2} ms (median), \
             {:.2} ms (99th of 100); CPU each: receiver {:.0} us, device {:.0} us",
            self.took.as_secs_f64(),
            count as f64 / self.took.as_secs_f64(),
            at(50),
            at(99),
            each(of_receiver),
            each(self.cpu)
        );
    }
}

/// Sends all informs; `before` is called when the receiver is known, and nothing but informs is to follow.
fn send(to: SocketAddr, credentials: &Credentials, dir: &Path, before: impl FnOnce()) -> Answered {
    let config = OriginatorConfig {
        target: to.to_string(),
        credentials: credentials.clone(),
        source: None,
        timeout: TIMEOUT,
        retries: 0,
        datagram_bytes_max: 1472,
    };
    let originator = Arc::new(Originator::new(config, Engine::start(dir).expect("can be kept")));
    // One thread, so that the other core is the receiver's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("can be built");
    runtime.block_on(async {
        let mut said = decode(&Bytes::from_static(TRAP), |_| true).expect("is a trap");
        // No such can be sent.
        said.varbinds.retain(|varbind| !matches!(varbind.value, Value::Float(_) | Value::Null));
        originator.inform(&numbered(&said, 0)).await.expect("the receiver is there");
        before();
        let (begun, cpu) = (Instant::now(), measure::own_cpu());
        let next = Arc::new(AtomicU32::new(1));
        let mut senders = JoinSet::new();
        for _ in 0..WINDOW {
            let (originator, next, said) = (Arc::clone(&originator), Arc::clone(&next), said.clone());
            senders.spawn(async move {
                let mut answered = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number > INFORMS {
                        break answered;
                    }
                    let begun = Instant::now();
                    if originator.inform(&numbered(&said, number)).await.is_ok() {
                        answered.push((number, begun.elapsed()));
                    }
                }
            });
        }
        let answered = senders.join_all().await.concat();
        let (took, cpu) = (begun.elapsed(), measure::own_cpu() - cpu);
        let (numbers, mut latencies): (Vec<u32>, Vec<Duration>) = answered.into_iter().unzip();
        latencies.sort_unstable();
        Answered { numbers, latencies, took, cpu }
    })
}

fn numbered(said: &klaxon_snmp::Notification, number: u32) -> Outgoing {
    let mut varbinds = vec![Varbind { oid: NUMBER.parse().expect("is one"), value: Value::Gauge32(number) }];
    varbinds.extend_from_slice(&said.varbinds);
    Outgoing { trap_oid: said.trap_oid.clone(), varbinds }
}

fn to_node(version: &str, dir: &Path, credentials: &Credentials) {
    // All come from one address.
    let limit = "[traps]\nlisten = \"127.0.0.1:0\"\nsource_rate_max = 0\n";
    let setup = Setup::new(&dir.join("data")).config(&format!("{limit}{USER}"));
    let node = setup.start();
    let mut cpu = Duration::ZERO;
    let answered = send(node.traps.expect("it receives informs"), credentials, dir, || cpu = measure::node_cpu(&node));
    answered.report(&format!("klaxon, {version}"), measure::node_cpu(&node) - cpu);
    node.kill();
    let there = numbers(&setup.start());
    let missing = answered.numbers.iter().filter(|number| !there.contains(*number)).count();
    println!("  after a kill {} of those are there", answered.numbers.len() - missing);
    assert_eq!(missing, 0, "answered, and not there");
}

/// The numbers of the informs that are in a node's history.
fn numbers(node: &Node) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    let mut path = "/history?order=asc&limit=1000".to_owned();
    loop {
        let page = node.json(&path);
        for change in page["changes"].as_array().expect("is a list") {
            let number = &change["event"]["attributes"][NUMBER];
            numbers.extend(number.as_str().and_then(|number| number.parse::<u32>().ok()));
        }
        let Some(next) = page["next"].as_str() else { return numbers };
        path = format!("/history?order=asc&limit=1000&cursor={next}");
    }
}

fn to_snmptrapd(version: &str, dir: &Path, credentials: &Credentials) {
    if !trapd::is_there() {
        println!("snmptrapd is not there (package snmptrapd): nothing to compare with");
        return;
    }
    let trapd = trapd::Setup::new(&dir.join("trapd"), "80001f8804aaaaaa")
        .line("createUser noc SHA-256 auth-password AES-256 priv-password")
        .line("authUser log noc priv")
        .start();
    let cpu_now = || measure::cpu_of(trapd.pid());
    let mut cpu = Duration::ZERO;
    let answered = send(trapd.target().parse().expect("an address"), credentials, dir, || cpu = cpu_now());
    answered.report(&format!("snmptrapd, {version}"), cpu_now() - cpu);
    println!("  {} are in its log, of which nothing is synced", trapd.text().matches(TRAP_OID).count() - 1);
}
