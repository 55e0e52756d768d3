//! The core's figures: `./dev bench`, or `./dev bench NAME` for one of them.
//!
//! Each runs against the release build as a process of its own, on the disk that holds `target/`. Beside each figure stand that
//! disk's sync rate in the same run, the node's CPU time per event, and the CPU time of the load generator, which has the same
//! two cores. Read ratios, not absolute numbers.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "measure.rs"]
mod measure;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Node, Setup, scratch};
use measure::{millis, node_cpu, own_cpu, print_disk, print_idle, print_memory, print_threads};
use serde_json::{Value, json};

const KEYS: usize = 100_000;
const BATCH: usize = 500;

fn main() {
    let wanted = std::env::var("KLAXON_BENCH").unwrap_or_default();
    let all: [(&str, fn()); 6] = [
        ("raises", raises_and_repeats),
        ("single", single_raises),
        ("list", lists),
        ("history", history_start_and_memory),
        ("memory", memory),
        ("idle", idle),
    ];
    // Cargo passes `--bench`; a name may come as an argument too.
    let named = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or(wanted);
    // Benchmarks of their own, in the files beside this.
    if ["traps", "receivers"].contains(&named.as_str()) {
        return;
    }
    let chosen: Vec<_> = all.iter().filter(|(name, _)| named.is_empty() || *name == named).collect();
    assert!(!chosen.is_empty(), "no benchmark is called {named:?}; there are {:?}", all.map(|(name, _)| name));
    for (name, bench) in chosen {
        println!("## {name}");
        bench();
        println!();
    }
}

fn event(key: usize, severity: &str) -> Value {
    let alarm_type = ["disk.full", "cpu.high", "link.down", "memory.high"][key % 4];
    json!({
        "resource": format!("host=node-{:03}.filesystem=/srv/volume-{key}", key % 500),
        "alarm_type": alarm_type,
        "severity": severity,
        "text": format!("threshold exceeded; threshold 90 %, actual {} %", 90 + key % 10),
        "probable_cause": "threshold-crossed",
    })
}

fn bodies(keys: std::ops::Range<usize>, severity: &str, batch: usize) -> Vec<String> {
    let keys: Vec<usize> = keys.collect();
    keys.chunks(batch)
        .map(|chunk| Value::from(chunk.iter().map(|key| event(*key, severity)).collect::<Vec<_>>()).to_string())
        .collect()
}

/// What one load did.
struct Load {
    events: usize,
    took: Duration,
    node_cpu: Duration,
    load_cpu: Duration,
    latencies: Vec<Duration>,
}

/// Posts `bodies`, from `clients` connections, each as soon as the one before is acknowledged. Written on bare sockets: the
/// generator shares the machine, and every microsecond it uses is missing to the node.
fn post_all(node: &Node, bodies: &[String], clients: usize, batch: usize) -> Load {
    let next = AtomicUsize::new(0);
    let address = node.base.strip_prefix("http://").expect("is plain HTTP");
    let (node_before, own_before) = (node_cpu(node), own_cpu());
    let begun = Instant::now();
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = BufReader::new(TcpStream::connect(address).expect("the node listens"));
                    stream.get_ref().set_nodelay(true).expect("can be set");
                    let mut latencies = Vec::new();
                    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let asked = Instant::now();
                        let answer = post(&mut stream, address, body);
                        latencies.push(asked.elapsed());
                        assert!(answer.contains("\"rejected\":0"), "{answer}");
                    }
                    latencies
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("it posts")).collect()
    });
    let took = begun.elapsed();
    latencies.sort();
    Load {
        events: bodies.len() * batch,
        took,
        node_cpu: node_cpu(node) - node_before,
        load_cpu: own_cpu() - own_before,
        latencies,
    }
}

/// One request and its answer, over a connection that stays.
fn post(stream: &mut BufReader<TcpStream>, host: &str, body: &str) -> String {
    let request = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(request.as_bytes()).expect("the node reads");
    let mut line = String::new();
    let mut length = 0;
    stream.read_line(&mut line).expect("the node answers");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("the node answers");
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).expect("the node answers");
    String::from_utf8(answer).expect("is text")
}

impl Load {
    fn print(&self, what: &str, target: &str) {
        let events = self.events as f64;
        println!(
            "{what}: {:.0} events/s (target {target}); CPU per event: node {:.1} us, load generator {:.1} us; \
             request p50 {:.2} ms, p99 {:.2} ms",
            events / self.took.as_secs_f64(),
            self.node_cpu.as_secs_f64() * 1e6 / events,
            self.load_cpu.as_secs_f64() * 1e6 / events,
            millis(self.latencies[self.latencies.len() / 2]),
            millis(self.latencies[self.latencies.len() * 99 / 100]),
        );
    }
}

fn raises_and_repeats() {
    let scratch = scratch("bench-");
    print_disk(scratch.path());
    let node = Setup::new(&scratch.path().join("data")).start();
    for clients in [2, 4] {
        let severity = if clients == 2 { "major" } else { "cleared" };
        if clients == 4 {
            post_all(&node, &bodies(0..KEYS, severity, BATCH), clients, BATCH);
        }
        let load = post_all(&node, &bodies(0..KEYS, "major", BATCH), clients, BATCH);
        load.print(&format!("raises in batches of {BATCH}, {clients} clients"), "30 000/s");
    }
    print_threads(&node);
    let load = post_all(&node, &bodies(0..KEYS, "major", BATCH), 4, BATCH);
    load.print(&format!("repeats in batches of {BATCH}, 4 clients"), "60 000/s");
    let load = post_all(&node, &bodies(0..KEYS, "major", BATCH), 4, BATCH);
    load.print(&format!("repeats in batches of {BATCH}, 4 clients, again"), "60 000/s");
    print_threads(&node);
    print_disk(scratch.path());
}

fn single_raises() {
    let scratch = scratch("bench-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let one = |from: usize, to: usize| (from..to).map(|key| event(key, "major").to_string()).collect::<Vec<_>>();
    post_all(&node, &one(0, 500), 1, 1);
    let sync = print_disk(scratch.path());
    let load = post_all(&node, &one(500, 3500), 1, 1);
    load.print("one raise at a time, one client", "p50 under 3 syncs");
    let p50 = load.latencies[load.latencies.len() / 2];
    println!("p50 is {:.2} times one sync (target: under 3)", p50.as_secs_f64() / sync.as_secs_f64());
    let load = post_all(&node, &one(5000, 65_000), 16, 1);
    load.print("one raise each, 16 clients", "10 000/s");
    print_threads(&node);
    print_disk(scratch.path());
}

fn median_of(times: usize, mut what: impl FnMut() -> usize) -> (Duration, usize) {
    let mut bytes = 0;
    let mut took: Vec<Duration> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            bytes = what();
            begun.elapsed()
        })
        .collect();
    took.sort();
    (took[took.len() / 2], bytes)
}

fn lists() {
    let scratch = scratch("bench-");
    let node = Setup::new(&scratch.path().join("data")).start();
    post_all(&node, &bodies(0..10_000, "major", BATCH), 2, BATCH);
    let list = |path: &str| node.get(path).expect("the node answers").body.len();
    let (took, bytes) = median_of(31, || list("/alarms?limit=10000"));
    println!("list of 10 000 alarms, all fields: p50 {:.1} ms for {bytes} bytes (target: under 30 ms)", millis(took));
    post_all(&node, &bodies(10_000..KEYS, "minor", BATCH), 2, BATCH);
    for filter in [
        "min_severity=major",
        "alarm_type=cpu.high",
        "resource=host%3Dnode-007",
        "alarm_type=disk.full&resource=host%3Dnode-008&min_severity=minor",
        "text=volume-777",
        "acknowledged=true",
        "sort=changed_at",
        "sort=resource",
    ] {
        let (took, bytes) = median_of(31, || list(&format!("/alarms?limit=100&{filter}")));
        println!("first 100 of 100 000 with {filter}: p50 {:.2} ms, {bytes} bytes (target: under 5 ms)", millis(took));
    }
}

/// 100 000 active alarms and a million changes.
fn fill(node: &Node, active: usize, changes: usize) {
    let raise = bodies(0..active, "major", BATCH);
    let worse = bodies(0..active, "critical", BATCH);
    post_all(node, &raise, 2, BATCH);
    for round in 1..changes / active {
        post_all(node, if round % 2 == 1 { &worse } else { &raise }, 2, BATCH);
    }
}

fn history_start_and_memory() {
    let scratch = scratch("bench-");
    print_disk(scratch.path());
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    fill(&node, KEYS, 1_000_000);
    print_memory(&node, "at 100 000 active and 1 million changes");
    for path in [
        "/history?limit=100",
        "/history?limit=100&resource=host%3Dnode-007.filesystem%3D%2Fsrv%2Fvolume-7",
        "/history?limit=100&alarm_type=cpu.high",
        "/history?limit=100&resource=host%3Dnode-007",
    ] {
        let (took, bytes) = median_of(11, || node.get(path).expect("the node answers").body.len());
        println!("{path}: p50 {:.2} ms, {bytes} bytes", millis(took));
    }
    node.kill();
    for _ in 0..3 {
        let begun = Instant::now();
        let node = setup.start();
        println!("start to serving after SIGKILL: {:.2} s (target: under 2 s)", begun.elapsed().as_secs_f64());
        print_memory(&node, "right after that start");
        post_all(&node, &bodies(0..5000, "critical", BATCH), 1, BATCH);
        post_all(&node, &bodies(0..5000, "major", BATCH), 1, BATCH);
        node.kill();
    }
    print_disk(scratch.path());
}

fn memory() {
    let scratch = scratch("bench-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    print_memory(&node, "empty");
    fill(&node, 10_000, 1_000_000);
    print_memory(&node, "at 10 000 active and 1 million changes (target: under 128 MB)");
    node.kill();
    let node = setup.start();
    print_memory(&node, "the same after a restart");
}

fn idle() {
    let scratch = scratch("bench-");
    let begun = Instant::now();
    let node = Setup::new(&scratch.path().join("data")).start();
    println!("start to serving, empty store: {:.0} ms", millis(begun.elapsed()));
    print_idle(&node);
}
