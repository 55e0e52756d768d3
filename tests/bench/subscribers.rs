//! Dashboards: `./dev bench subscribers`. 500 subscribers follow the stream while 500 changes come in a second; how long each change takes
//! from the moment at which its report is sent until a subscriber has it, over all of them.
//!
//! Server, reporter and subscribers share the machine's cores.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
mod measure;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{Setup, scratch, wait_until};
use measure::{node_cpu, own_cpu};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SUBSCRIBERS: usize = 500;
const CHANGES_PER_SECOND: usize = 500;
const SECONDS: usize = 20;
/// So many reports are sent at once.
const BATCH: usize = 25;
/// In front of the number of microseconds at which a report was sent.
const MARK: &[u8] = b"\"text\":\"sent ";
const SETTINGS: &str = "[http]\nlisten = \"127.0.0.1:0\"\nstream_subscribers_max = 1000\nclient_streams_max = 1000\n\
                        connections_max = 2000\nclient_connections_max = 2000\n";

fn main() {
    println!("## subscribers: {SUBSCRIBERS} of them, {CHANGES_PER_SECOND} changes/s");
    let scratch = scratch("bench-subscribers-");
    measure::print_disk(scratch.path());
    let node = Setup::new(&scratch.path().join("data")).config(SETTINGS).start();
    let address = node.base.trim_start_matches("http://").split('/').next().expect("has a host").to_owned();
    let begun = Instant::now();
    let (came, times) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let following = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("can be made");
    for _ in 0..SUBSCRIBERS {
        let (address, came, times, following) =
            (address.clone(), Arc::clone(&came), Arc::clone(&times), Arc::clone(&following));
        runtime.spawn(async move { follow(&address, begun, &came, &times, &following).await });
    }
    wait_until("all follow", || following.load(Ordering::Relaxed) == SUBSCRIBERS);
    measure::print_memory(&node, "with all of them, before anything happens");
    let (node_before, own_before) = (node_cpu(&node), own_cpu());
    let (started, mut sent) = (Instant::now(), 0);
    while sent < CHANGES_PER_SECOND * SECONDS {
        let due = Duration::from_secs_f64(sent as f64 / CHANGES_PER_SECOND as f64);
        if let Some(wait) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(wait);
        }
        let event = |number: usize| {
            json!({ "resource": format!("host=h{number}"), "alarm_type": "fan.failed", "severity": "major",
                "text": format!("sent {}", begun.elapsed().as_micros()) })
        };
        node.send(&(sent..sent + BATCH).map(event).collect());
        sent += BATCH;
    }
    wait_until("all have come", || came.load(Ordering::Relaxed) >= sent * SUBSCRIBERS);
    let mut times = std::mem::take(&mut *times.lock().expect("nobody panicked"));
    times.sort_unstable();
    let at = |part: usize| f64::from(times[(times.len() - 1) * part / 1000]) / 1e3;
    let deliveries = times.len() as f64;
    println!(
        "{sent} changes, {} deliveries: median {:.1} ms, 99 % within {:.1} ms, 99.9 % within {:.1} ms, most {:.1} ms; CPU of a delivery: \
         node {:.2} us, subscribers {:.2} us",
        times.len(),
        at(500),
        at(990),
        at(999),
        at(1000),
        (node_cpu(&node) - node_before).as_secs_f64() * 1e6 / deliveries,
        (own_cpu() - own_before).as_secs_f64() * 1e6 / deliveries
    );
    measure::print_memory(&node, "after it");
    println!();
}

/// Follows the stream, and notes of each change how old it was.
async fn follow(address: &str, begun: Instant, came: &AtomicUsize, times: &Mutex<Vec<u32>>, following: &AtomicUsize) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let head = format!("GET /api/v1/stream HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let (mut held, mut is_following) = (Vec::with_capacity(64 << 10), false);
    loop {
        let bytes = stream.read_buf(&mut held).await.expect("it goes on");
        assert!(bytes > 0, "the stream ended");
        if !is_following && memchr::memmem::find(&held, b"event:").is_some() {
            is_following = true;
            following.fetch_add(1, Ordering::Relaxed);
        }
        let now = begun.elapsed().as_micros();
        let (mut found, mut done) = (Vec::new(), 0);
        for place in memchr::memmem::find_iter(&held, MARK) {
            let digits = &held[place + MARK.len()..];
            let Some(end) = digits.iter().position(|byte| *byte == b'"') else { break };
            let sent: u128 = std::str::from_utf8(&digits[..end]).ok().and_then(|text| text.parse().ok()).expect("a number");
            found.push(u32::try_from(now - sent).expect("is short"));
            done = place + MARK.len() + end;
        }
        // What may be the beginning of another one stays.
        let kept = held.len().saturating_sub(MARK.len() + 24).max(done);
        held.drain(..kept);
        if !found.is_empty() {
            came.fetch_add(found.len(), Ordering::Relaxed);
            times.lock().expect("nobody panicked").extend(found);
        }
    }
}
