//! Receivers: `./dev bench receivers`. How many notifications a second one receiver is told with a window of 32, of what stands and
//! of what changes; and how soon 100 receivers are told while 100 others are dead. In this process, with sinks that confirm at
//! once: what a sink costs comes on top. Everything is in the journal before it is sent, on the disk that holds `target/`.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]
#![allow(dead_code, reason = "the test beside it uses the rest")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../notify/node.rs"]
mod node;

use std::time::{Duration, Instant};

use klaxon_api::notify::{Backoff, ReceiverConfig, SinkLimits};
use klaxon_schemas::event::Report;
use klaxon_schemas::severity::Severity;

use harness::scratch;
use node::{Mode, Node, World, receiver, report};

const ALARMS: usize = 50_000;
const BATCH: usize = 1_000;
const RECEIVERS: usize = 200;
const ROUNDS: usize = 200;

fn main() {
    println!("## receivers");
    one();
    many();
}

fn raise_all(node: &Node, severity: Severity) {
    for first in (0..ALARMS).step_by(BATCH) {
        let reports = (first..first + BATCH).map(|number| report(&format!("host=a{number}"), Report::Raise(severity)));
        node.publish(reports.collect());
    }
}

fn told(node: &Node, world: &World, what: &str, from: usize, work: impl FnOnce()) {
    let before = node.store.info();
    let begin = Instant::now();
    work();
    node.wait("it is told", || world.on("noc", |wire| wire.confirmed.len() >= from + ALARMS));
    let (took, after) = (begin.elapsed(), node.store.info());
    println!(
        "{what}: {:.0} confirmed/s, {} syncs, {} bytes of the journal for each",
        ALARMS as f64 / took.as_secs_f64(),
        after.syncs - before.syncs,
        (after.journal_bytes - before.journal_bytes) / ALARMS as u64,
    );
}

fn one() {
    let (dir, world) = (scratch("bench-"), World::default());
    let node = Node::open(dir.path(), &world);
    world.on("noc", |wire| wire.limits = SinkLimits { window: 32, batch_max: 1 });
    raise_all(&node, Severity::Major);
    told(&node, &world, "one receiver, what stands", 0, || node.apply([receiver("noc")]));
    world.set("noc", Mode::Down);
    node.raise("host=x", Severity::Major);
    node.wait("it is away", || node.shown("noc").counters.retried > 3);
    let before = node.store.info().journal_bytes;
    raise_all(&node, Severity::Critical);
    println!("(the changes themselves: {} bytes for each)", (node.store.info().journal_bytes - before) / ALARMS as u64);
    told(&node, &world, "one receiver, a backlog in order", ALARMS + 1, || world.set("noc", Mode::Up));
    told(&node, &world, "one receiver, as it happens", 2 * ALARMS + 1, || raise_all(&node, Severity::Minor));
    node.close();
}

fn many() {
    let (dir, world) = (scratch("bench-"), World::default());
    let node = Node::open(dir.path(), &world);
    let names: Vec<String> = (0..RECEIVERS).map(|number| format!("r{number}")).collect();
    for dead in names.iter().skip(1).step_by(2) {
        world.set(dead, Mode::Down);
    }
    let as_set = |name: &String| ReceiverConfig { backoff: Backoff::default(), ..receiver(name) };
    node.apply(names.iter().map(as_set));
    let told = |count: usize| names.iter().step_by(2).all(|live| world.on(live, |wire| wire.confirmed.len() >= count));
    let mut times: Vec<Duration> = (1..=ROUNDS)
        .map(|round| {
            let begin = Instant::now();
            node.raise(&format!("host=a{round}"), Severity::Major);
            node.wait("all are told", || told(round));
            begin.elapsed()
        })
        .collect();
    times.sort();
    println!(
        "{RECEIVERS} receivers, half of them dead: the last of the others is told after {:?} (median), {:?} (99th of 100)",
        times[ROUNDS / 2],
        times[ROUNDS * 99 / 100]
    );
    node.close();
}
