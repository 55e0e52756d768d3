//! Three brokers, and two nodes that do everything: reports come in at either, receivers are told by one of them. Under load nodes and
//! brokers are killed and put to sleep.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::kills::Stops;
use super::tools::{Topics, kafka};
use super::trapd::{self, Trapd};
use crate::harness::hook::Hook;
use crate::harness::kafka::Brokers;
use crate::harness::{Chance, Node, PATIENCE, Setup, agent, is_long, scratch, seeds};

const PARTITIONS: i32 = 3;
/// Between two reports.
const REPORT_WAIT: Duration = Duration::from_millis(25);
/// The experimental arc, and below it where an alarm's resource and the number of a notification are.
const ROOT: &str = "1.3.6.1.4.1.8072.9999.9999.7780";

/// What is done to them.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// A node is killed, while it tells.
    Node,
    /// A node sleeps until the other has all receivers, and wakes.
    Sleeper,
    /// The broker is killed that coordinates the group in which nodes divide the receivers.
    Coordinator,
    /// The broker is killed that leads how far a receiver is.
    Leader,
    /// All brokers are killed.
    AllBrokers,
    /// Both nodes are killed.
    AllNodes,
}

const FAULTS: [Fault; 6] = [Fault::Node, Fault::Coordinator, Fault::Sleeper, Fault::Leader, Fault::AllNodes, Fault::AllBrokers];

/// What runs.
struct Scene<'a> {
    brokers: &'a mut Brokers,
    topics: &'a Topics,
    dir: &'a Path,
    config: &'a str,
    nodes: [Option<Node>; 2],
    /// Where they take reports; nothing of one that is not there.
    doors: &'a Mutex<[Option<String>; 2]>,
}

impl Scene<'_> {
    fn start(&mut self, at: usize) {
        let config = self.config.replace("[journal]\n", &format!("[journal]\nnode_name = \"n{at}\"\n"));
        let node = Setup::new(&self.dir.join(format!("n{at}"))).config(&config).start();
        self.doors.lock().expect("nobody panicked")[at] = Some(node.url("/events"));
        self.nodes[at] = Some(node);
    }

    fn kill(&mut self, at: usize) {
        self.doors.lock().expect("nobody panicked")[at] = None;
        self.nodes[at].take().expect("it runs").kill();
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("it runs")
    }

    /// The receivers that a node has.
    fn receivers(&self, at: usize) -> usize {
        let shown = self.node(at).get("/receivers").ok().filter(|reply| reply.status == 200);
        shown.map_or(0, |reply| reply.json()["receivers"].as_array().map_or(0, Vec::len))
    }

    fn strike(&mut self, fault: Fault, dice: &mut Chance) {
        let thrown = usize::from(dice.below(2) == 0);
        // One that tells somebody something.
        let mut at = thrown;
        wait_long("the receivers are divided", || {
            at = if self.receivers(thrown) > 0 { thrown } else { 1 - thrown };
            self.receivers(0) + self.receivers(1) == 2
        });
        match fault {
            Fault::Node => {
                self.kill(at);
                wait_long("the other has all receivers", || self.receivers(1 - at) == 2);
                self.start(at);
            }
            Fault::Sleeper => {
                self.node(at).stand_still();
                self.doors.lock().expect("nobody panicked")[at] = None;
                wait_long("the other has all receivers", || self.receivers(1 - at) == 2);
                self.node(at).signal(Signal::CONT);
                self.doors.lock().expect("nobody panicked")[at] = Some(self.node(at).url("/events"));
            }
            Fault::Coordinator | Fault::Leader => {
                let broker = match fault {
                    Fault::Coordinator => self.topics.group_coordinator("notifiers"),
                    _ => self.topics.leader(&self.topics.name("cursors"), dice.below(PARTITIONS as u64) as i32),
                };
                self.topics.strike_one(self.brokers, broker.expect("there is one"));
            }
            Fault::AllBrokers => self.topics.strike_all(self.brokers),
            Fault::AllNodes => {
                (0..2).for_each(|at| self.kill(at));
                (0..2).for_each(|at| self.start(at));
            }
        }
    }
}

#[test]
fn receivers_are_told_everything_whatever_is_killed() {
    let Some(mut brokers) = Brokers::start(3, "") else { return };
    if !trapd::is_there() {
        return;
    }
    brokers.settle();
    for (number, seed) in (0..).zip(seeds(1, 4)) {
        let mut dice = Chance::new(seed);
        let count = if is_long() { FAULTS.len() } else { 3 };
        let mut faults: Vec<Fault> = (0..count).map(|at| FAULTS[(number * count + at) % FAULTS.len()]).collect();
        let swap = dice.below(faults.len() as u64) as usize;
        faults.swap(0, swap);
        println!("seed {seed}: {faults:?}");
        run(&mut brokers, seed, &faults, &mut dice);
    }
}

fn run(brokers: &mut Brokers, seed: u64, faults: &[Fault], dice: &mut Chance) {
    let scratch = scratch("kafka-nodes-");
    let dir = scratch.path();
    let prefix = format!("nodes{seed}.");
    let topics = Topics::new(brokers, &prefix, PARTITIONS);
    let journal = brokers.journal(&prefix, &format!("partitions = {PARTITIONS}"));
    let (is_good, shown, errors) = kafka(dir, &journal, &["init"]);
    assert!(is_good, "{shown} {errors}");
    let (hook, trapd) = (Hook::start(), trapd::Setup::new(&dir.join("trapd"), "80001f8804cccccc").start());
    let config = format!(
        "{journal}\n[node]\nsite = \"noc\"\n[receivers.hook]\nfold_after = \"0s\"\n[receivers.hook.webhook]\nurl = \"{}\"\n\
         [receivers.nms]\nfold_after = \"0s\"\n[receivers.nms.snmp]\naddress = \"{}\"\n",
        hook.url(),
        trapd.target()
    );
    let (doors, stop, said) = (Mutex::new([None, None]), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let mut scene = Scene { brokers, topics: &topics, dir, config: &config, nodes: [None, None], doors: &doors };
        scene.start(0);
        scene.start(1);
        // A new receiver is told what comes after it was set up: it was when it was told something.
        wait_long("the receivers are divided", || scene.receivers(0) + scene.receivers(1) == 2);
        report(&agent(), &doors, 0);
        wait_long("both are told", || units(&by_hook(&hook)).len() + units(&by_trapd(&trapd)).len() == 2);
        let reports = scope.spawn(|| {
            let client = agent();
            for number in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                report(&client, &doors, number);
                said.store(number + 1, Ordering::Relaxed);
                std::thread::sleep(REPORT_WAIT);
            }
        });
        for fault in faults {
            let (begun, before) = (Instant::now(), said.load(Ordering::Relaxed));
            wait_long("reports come in, and the receivers hear of them", || {
                said.load(Ordering::Relaxed) > before + 20 && units(&by_hook(&hook)).len() > before
            });
            scene.strike(*fault, dice);
            let before = said.load(Ordering::Relaxed);
            wait_long("it goes on", || said.load(Ordering::Relaxed) > before + 20 && units(&by_hook(&hook)).len() > before);
            println!("  {fault:?}: over after {:.1} s", begun.elapsed().as_secs_f32());
        }
        drop(stops);
        reports.join().expect("all reports are taken");
        let count = said.load(Ordering::Relaxed);
        let has_all = |told: &BTreeMap<u64, String>| units(told).len() >= count;
        wait_long("all is told", || has_all(&by_hook(&hook)) && has_all(&by_trapd(&trapd)));
        for (who, told) in [("hook", by_hook(&hook)), ("nms", by_trapd(&trapd))] {
            assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=told.len() as u64).collect::<Vec<_>>(), "{who}");
            let units = units(&told);
            assert_eq!(units.len(), count, "{who} was told something under two numbers");
            assert_eq!(units.iter().collect::<BTreeSet<_>>().len(), count, "{who}");
        }
        // Each node has each alarm, once, and a third one that has seen nothing of all this.
        let lines = "[journal]\nnode_name = \"shows\"\ncorrelate = false\nnotify = false\n";
        let shows = Setup::new(&dir.join("shows")).config(&config.replace("[journal]\n", lines)).start();
        for node in [scene.node(0), scene.node(1), &shows] {
            let (begun, mut shown) = (Instant::now(), BTreeMap::new());
            while shown.len() != count {
                assert!(begun.elapsed() < 3 * PATIENCE, "{} alarms in place of {count}", shown.len());
                std::thread::sleep(Duration::from_millis(50));
                shown = alarms(node);
            }
            assert!(shown.values().all(|count| *count == 1), "{shown:?}");
        }
        println!("  {count} told");
    });
}

/// As `wait_until`, with the patience that brokers need which come again one after the other, and looks less often.
fn wait_long(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < 3 * PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Says it until it is taken, now here, now there: under one id, so that it counts once.
fn report(client: &ureq::Agent, doors: &Mutex<[Option<String>; 2]>, number: usize) {
    let event = json!({
        "event_id": format!("report-{number}"), "site": format!("site-{}", number % 7), "resource": format!("unit={number}"),
        "alarm_type": "t", "severity": "major"
    });
    let mut tries = number;
    wait_long("a report is taken", || {
        tries += 1;
        let door = doors.lock().expect("nobody panicked")[tries % 2].clone();
        let Some(door) = door else { return false };
        let answer = client.post(&door).content_type("application/json").send(&event.to_string());
        answer.is_ok_and(|answer| answer.status() == 200)
    });
}

/// What each number stood for, as it was told, confirmed or not; no number stands for two things.
fn by_number(told: impl Iterator<Item = (u64, String)>) -> BTreeMap<u64, String> {
    let mut all = BTreeMap::new();
    for (number, resource) in told {
        let before = all.insert(number, resource.clone());
        assert!(before.as_ref().is_none_or(|before| *before == resource), "{number}: {before:?} and {resource}");
    }
    all
}

fn by_hook(hook: &Hook) -> BTreeMap<u64, String> {
    let epochs: BTreeSet<String> = hook.told().iter().map(|one| one["epoch"].to_string()).collect();
    assert!(epochs.len() < 2, "{epochs:?}");
    by_number(
        hook.told().iter().map(|one| (one["delivery_seq"].as_u64().expect("is a number"), text(&one["alarm"]["resource"]))),
    )
}

fn by_trapd(trapd: &Trapd) -> BTreeMap<u64, String> {
    let resource = format!("{ROOT}.1.4.1.4.");
    let of = |one: &trapd::Logged| {
        let (oid, _) = one.varbinds.iter().find(|(oid, _)| oid.starts_with(&resource)).expect("is about an alarm");
        (one.number(&format!("{ROOT}.1.7.3.0")), one.text(oid))
    };
    by_number(trapd.logged().iter().map(of))
}

/// What was told of what was reported; the rest is of the nodes themselves.
fn units(told: &BTreeMap<u64, String>) -> Vec<&String> {
    told.values().filter(|resource| resource.starts_with("unit=")).collect()
}

/// How often each was reported, as a node shows it.
fn alarms(node: &Node) -> BTreeMap<String, u64> {
    let shown = node.alarms().into_iter().filter(|one| one["alarm_type"] == "t");
    shown.map(|one| (text(&one["resource"]), one["count"].as_u64().expect("is a number"))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("is text").to_owned()
}
