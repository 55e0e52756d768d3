//! Webhooks: `./dev bench webhooks`. 200 receivers of which half are dead, some refusing connections, some never
//! answering: how soon the living are told; and how fast a backlog is told to one.
//!
//! Node and receivers share the machine's cores.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "measure.rs"]
mod measure;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::hook::Hook;
use harness::{Node, Setup, scratch, wait_until};
use measure::{millis, node_cpu, print_disk, print_memory};
use serde_json::{Value, json};

const LIVING: usize = 100;
const DEAD: usize = 100;
const ALARMS: usize = 300;
/// Between two of them.
const PACE: Duration = Duration::from_millis(100);
const BACKLOG: usize = 20_000;
const BATCH: usize = 500;

fn main() {
    println!("## webhooks");
    let scratch = scratch("bench-webhooks-");
    print_disk(scratch.path());
    half_dead(&Setup::new(&scratch.path().join("half-dead")));
    for (number, manner) in ["window = 1", "window = 8", "window = 4\nbatch_max = 100"].into_iter().enumerate() {
        backlog(&scratch.path().join(format!("backlog-{number}")), manner);
    }
    println!();
}

fn event(number: usize) -> Value {
    json!({ "resource": format!("host=h{number}"), "alarm_type": "fan.failed", "severity": "major", "text": number.to_string() })
}

fn section(name: &str, url: &str, webhook: &str) -> String {
    format!(
        "[receivers.{name}]\nfold_after = \"0s\"\nunreachable_after = \"1h\"\n[receivers.{name}.webhook]\nurl = \"{url}\"\n{webhook}\n"
    )
}

fn half_dead(setup: &Setup) {
    let living: Vec<Hook> = (0..LIVING).map(|_| Hook::start()).collect();
    // It takes connections, in the kernel, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let silent_url = format!("http://{}/", silent.local_addr().expect("is bound"));
    let refusing = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port is free");
    let mut config: String =
        living.iter().enumerate().map(|(number, hook)| section(&format!("living-{number}"), &hook.url(), "")).collect();
    for number in 0..DEAD {
        let url = if number % 2 == 0 { silent_url.clone() } else { format!("http://{refusing}/") };
        config.push_str(&section(&format!("dead-{number}"), &url, "timeout = \"2s\""));
    }
    let node = setup.clone().config(&config).start();
    // The dead ones are at it, and known to be dead, before the first is timed.
    node.send(&event(ALARMS));
    let state = |word: &str| {
        let list = node.json("/receivers");
        list["receivers"].as_array().expect("is a list").iter().filter(|one| one["state"] == word).count()
    };
    wait_until("the dead are known", || state("retrying") == DEAD && state("ok") == LIVING);
    let cpu = node_cpu(&node);
    let begun = Instant::now();
    let sent: Vec<Instant> = (0..ALARMS)
        .map(|number| {
            wait_until("it is time", || begun.elapsed() >= PACE * u32::try_from(number).expect("small"));
            let at = Instant::now();
            node.send(&event(number));
            at
        })
        .collect();
    wait_until("all have come", || living.iter().all(|hook| hook.count() > ALARMS));
    let took = begun.elapsed();
    let used = node_cpu(&node) - cpu;
    let mut times: Vec<Duration> = living
        .iter()
        .flat_map(Hook::posts)
        .filter_map(|post| {
            let number: usize = post.json()["notifications"][0]["alarm"]["text"].as_str()?.parse().ok()?;
            Some(post.at - *sent.get(number)?)
        })
        .collect();
    times.sort();
    let at = |part: f64| millis(times[((times.len() - 1) as f64 * part) as usize]);
    println!(
        "{LIVING} living and {DEAD} dead receivers, {ALARMS} alarms in {:.1} s: {} notifications, from the report to the living \
         p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; node {:.0} us CPU a notification",
        took.as_secs_f64(),
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        used.as_secs_f64() * 1e6 / times.len() as f64
    );
    print_memory(&node, "with 200 receivers");
}

fn fill(node: &Node) {
    for batch in 0..BACKLOG / BATCH {
        let events: Vec<Value> = (0..BATCH).map(|number| event(batch * BATCH + number)).collect();
        node.send(&Value::from(events));
    }
}

fn backlog(data: &std::path::Path, manner: &str) {
    let hook = Hook::start();
    hook.answer(503);
    let node = Setup::new(data).config(&section("noc", &hook.url(), manner)).start();
    fill(&node);
    wait_until("it was tried", || hook.count() > 0);
    let cpu = node_cpu(&node);
    hook.answer(200);
    let confirmed = || node.json("/receivers/noc")["confirmed"].as_u64().unwrap_or_default();
    wait_until("it is being told", || confirmed() > 0);
    let (begun, first) = (Instant::now(), confirmed());
    wait_until("all is told", || confirmed() >= BACKLOG as u64);
    let (took, told) = (begun.elapsed(), BACKLOG as u64 - first);
    println!(
        "a backlog of {BACKLOG} to one receiver, {}: {:.0} notifications/s, node {:.0} us CPU each",
        manner.replace('\n', ", "),
        told as f64 / took.as_secs_f64(),
        (node_cpu(&node) - cpu).as_secs_f64() * 1e6 / told as f64
    );
}
