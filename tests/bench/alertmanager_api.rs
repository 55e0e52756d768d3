//! Alertmanager's API: `./dev bench alertmanager_api`. Eight clients post alerts, 64 at a time, over 10 000 label sets, as a large Prometheus does; and
//! all of them are listed. Debian's Alertmanager, which keeps alerts in memory, is asked the same in the same run.
//!
//! Server and clients share the machine's cores.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "measure.rs"]
mod measure;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::alertmanager::{Alertmanager, program};
use harness::{Setup, agent, scratch};
use measure::{cpu_of, millis, own_cpu, print_disk, print_memory};
use serde_json::{Value, json};

const ALERTS: usize = 10_000;
const BATCH: usize = 64;
const CLIENTS: usize = 8;
/// How often all alerts are posted behind the first time.
const REPEATS: usize = 30;
const LISTS: usize = 21;

/// What is measured: its name, where it is, and its process.
struct Server<'a> {
    name: &'a str,
    base: &'a str,
    pid: u32,
}

fn main() {
    println!("## alertmanager_api: alerts posted and listed");
    let scratch = scratch("bench-http-");
    print_disk(scratch.path());
    let node = Setup::new(&scratch.path().join("data")).start();
    let klaxon = Server { name: "klaxon, durable", base: &node.base, pid: node.child.id() };
    let alertmanager = program().map(|program| Alertmanager::start(&program, "webhook_configs: []"));
    let alertmanager = alertmanager.as_ref().map(|server| Server {
        name: "Alertmanager, in memory",
        base: &server.base,
        pid: server.process(),
    });
    let bodies = bodies();
    for server in [&klaxon].into_iter().chain(&alertmanager) {
        posts(server, &bodies, 1, "first");
        posts(server, &bodies, REPEATS, "repeated");
        lists(server);
    }
    print_memory(&node, "with 10 000 alerts");
    println!();
}

fn alert(number: usize) -> Value {
    let host = number / 8;
    json!({
        "labels": {
            "alertname": format!("Rule{}", number % 8),
            "severity": if number.is_multiple_of(3) { "critical" } else { "warning" },
            "instance": format!("host-{host}.example.com:9100"),
            "job": "node",
            "namespace": "monitoring",
            "cluster": format!("edge-{}", host % 50),
            "team": "infrastructure",
            "prometheus": "monitoring/k8s",
        },
        "annotations": {
            "summary": format!("Host {host} runs out of something"),
            "description": "It has less than a tenth left of what it needs, and will have none within a day.",
            "runbook_url": "https://runbooks.example.com/host/something",
        },
        "startsAt": "2026-01-01T00:00:00.000Z",
        "endsAt": "2099-01-01T00:00:00.000Z",
        "generatorURL": "http://prometheus.example.com/graph?g0.expr=something+%3E+0.9&g0.tab=1",
    })
}

fn bodies() -> Vec<String> {
    let alerts: Vec<Value> = (0..ALERTS).map(alert).collect();
    alerts.chunks(BATCH).map(|batch| Value::from(batch).to_string()).collect()
}

/// Posts all bodies so many times.
fn posts(server: &Server<'_>, bodies: &[String], times: usize, what: &str) {
    let next = AtomicUsize::new(0);
    let (server_before, own_before, begun) = (cpu_of(server.pid), own_cpu(), Instant::now());
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let client = || {
            let host = server.base.trim_start_matches("http://");
            let mut stream = BufReader::new(TcpStream::connect(host).expect("it listens"));
            stream.get_ref().set_nodelay(true).expect("can be set");
            let mut latencies = Vec::new();
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= bodies.len() * times {
                    return latencies;
                }
                let asked = Instant::now();
                post(&mut stream, host, &bodies[turn % bodies.len()]);
                latencies.push(asked.elapsed());
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("it posts")).collect()
    });
    let (took, alerts) = (begun.elapsed().as_secs_f64(), (ALERTS * times) as f64);
    latencies.sort();
    let micros = |after: Duration, before: Duration| (after - before).as_secs_f64() * 1e6 / alerts;
    println!(
        "{}: {ALERTS} alerts posted {what}, {times} times, {BATCH} at once by {CLIENTS} clients: {:.0} alerts/s; CPU per alert: server \
         {:.1} us, clients {:.1} us; request p50 {:.1} ms, p99 {:.1} ms",
        server.name,
        alerts / took,
        micros(cpu_of(server.pid), server_before),
        micros(own_cpu(), own_before),
        millis(latencies[latencies.len() / 2]),
        millis(latencies[latencies.len() * 99 / 100]),
    );
}

/// One request and its answer, which must be empty, over a connection that stays.
fn post(stream: &mut BufReader<TcpStream>, host: &str, body: &str) {
    let head = format!(
        "POST /api/v2/alerts HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all((head + body).as_bytes()).expect("it reads");
    let mut line = String::new();
    let mut length = 0;
    stream.read_line(&mut line).expect("it answers");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("it answers");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).expect("it answers");
}

/// Lists all alerts some times.
fn lists(server: &Server<'_>) {
    let agent = agent();
    let url = format!("{}/api/v2/alerts", server.base);
    let mut bytes = 0;
    let mut times: Vec<Duration> = (0..LISTS)
        .map(|_| {
            let asked = Instant::now();
            // As it is, so that no one's compression is measured.
            let mut reply = agent.get(&url).header("accept-encoding", "identity").call().expect("it answers");
            let text = reply.body_mut().with_config().limit(1 << 30).read_to_string().expect("is text");
            let took = asked.elapsed();
            assert_eq!(text.matches("\"fingerprint\"").count(), ALERTS);
            bytes = text.len();
            took
        })
        .collect();
    times.sort();
    println!(
        "{}: {ALERTS} alerts listed ({:.1} MB): median {:.1} ms, most {:.1} ms",
        server.name,
        bytes as f64 / 1e6,
        millis(times[LISTS / 2]),
        millis(times[LISTS - 1])
    );
}
