//! Three brokers and two correlators under load, of which some are killed or put to sleep.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use klaxon_store::kafka::rdkafka::producer::Producer as _;
use rustix::process::Signal;
use serde_json::Value;

use super::oracle::Model;
use super::tools::{Correlator, Topics, kafka, produce};
use crate::harness::kafka::Brokers;
use crate::harness::{Chance, Node, PATIENCE, Setup, is_long, scratch, seeds, wait_until};

const PARTITIONS: i32 = 6;
/// How many events come at once, and how often.
const BURST: u64 = 4;
const BURST_WAIT: Duration = Duration::from_millis(15);
/// How much may wait to be correlated.
const BEHIND_MAX: i64 = 600;

/// What is done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// The broker that coordinates the group is killed.
    GroupCoordinator,
    /// The broker that coordinates a correlator's transactions is killed.
    TransactionCoordinator,
    /// The broker that leads a partition of the state is killed.
    Leader,
    /// All brokers are killed.
    AllBrokers,
    /// A correlator is killed in a transaction.
    Correlator,
    /// A correlator sleeps in a transaction, until another has its partitions.
    Zombie,
    /// A correlator sleeps wherever it is, until another has its partitions.
    Sleeper,
    /// A correlator comes, and goes.
    Added,
}

const FAULTS: [Fault; 8] = [
    Fault::Zombie,
    Fault::Correlator,
    Fault::TransactionCoordinator,
    Fault::GroupCoordinator,
    Fault::Added,
    Fault::Sleeper,
    Fault::Leader,
    Fault::AllBrokers,
];

/// What runs, and what was said to it.
struct Scene<'a> {
    brokers: &'a mut Brokers,
    topics: &'a Topics,
    dir: &'a Path,
    config: &'a str,
    correlators: [Option<Correlator>; 2],
}

impl Scene<'_> {
    fn start(&mut self, at: usize) {
        self.correlators[at] = Some(Correlator::start(self.dir, &format!("c{at}"), self.config));
    }

    /// Puts a correlator to sleep; in a transaction if that is asked for.
    fn put_to_sleep(&self, at: usize, in_transaction: bool, dice: &mut Chance) {
        let correlator = self.correlators[at].as_ref().expect("it runs");
        let mut tries = 0;
        wait_until("it sleeps in a transaction", || {
            std::thread::sleep(Duration::from_millis(dice.below(60)));
            correlator.signal(Signal::STOP);
            // It may be the other's that is seen, which ends at once.
            let is_so = !in_transaction
                || !self.topics.open("state").is_empty() && {
                    std::thread::sleep(Duration::from_millis(300));
                    !self.topics.open("state").is_empty()
                };
            tries += 1;
            if !is_so {
                correlator.signal(Signal::CONT);
            }
            is_so
        });
        println!("  asleep at the {tries}. try");
    }

    fn strike(&mut self, fault: Fault, dice: &mut Chance) {
        let at = dice.below(2) as usize;
        match fault {
            Fault::GroupCoordinator | Fault::TransactionCoordinator | Fault::Leader => {
                let of = |topics: &Topics| match fault {
                    Fault::GroupCoordinator => topics.group_coordinator("correlators"),
                    Fault::TransactionCoordinator => topics.transaction_coordinator(&format!("c{at}")),
                    _ => topics.leader(&topics.name("state"), 0),
                };
                self.topics.strike_one(self.brokers, of(self.topics).expect("there is one"));
            }
            Fault::AllBrokers => self.topics.strike_all(self.brokers),
            Fault::Correlator => {
                self.put_to_sleep(at, true, dice);
                self.correlators[at].take().expect("it runs").kill();
                self.topics.wait_correlated("the other goes on");
                self.start(at);
            }
            Fault::Zombie | Fault::Sleeper => {
                self.put_to_sleep(at, fault == Fault::Zombie, dice);
                self.topics.wait_correlated("the other goes on");
                self.correlators[at].as_ref().expect("it sleeps").signal(Signal::CONT);
            }
            Fault::Added => {
                let refusals = |scene: &Self| -> usize {
                    let logs = scene.correlators.iter().flatten().map(Correlator::log_text);
                    logs.map(|log| log.matches("a partition cannot be taken over").count()).sum()
                };
                let refused = refusals(self);
                let added = Correlator::start(self.dir, "c2", self.config);
                let (before, begun) = (added.takeovers(), Instant::now());
                wait_until("it takes partitions over", || added.takeovers() > before);
                println!("  it has some after {:.1} s", begun.elapsed().as_secs_f32());
                assert_eq!(refusals(self), refused, "what goes elsewhere is not taken over once more");
                added.stop();
            }
        }
    }
}

#[test]
fn changes_come_once_whatever_is_killed() {
    let Some(mut brokers) = Brokers::start(3, "") else { return };
    brokers.settle();
    let mut struck = 0;
    for (number, seed) in (0..).zip(seeds(2, 16)) {
        let mut dice = Chance::new(seed);
        // Each kind comes in each run of some seeds, in another order.
        let count = if is_long() { 4 } else { 3 };
        let from = number * count;
        let mut faults: Vec<Fault> = (from..from + count).map(|at| FAULTS[at % FAULTS.len()]).collect();
        let swap = dice.below(faults.len() as u64) as usize;
        faults.swap(0, swap);
        if let Ok(only) = std::env::var("KLAXON_FAULT_ONLY") {
            faults = FAULTS.into_iter().filter(|fault| only.contains(&format!("{fault:?}"))).collect();
        }
        println!("seed {seed}: {faults:?}");
        struck += run(&mut brokers, seed, &faults, &mut dice);
    }
    assert!(struck >= 6 || std::env::var_os("KLAXON_SEED").is_some(), "{struck} struck");
}

fn run(brokers: &mut Brokers, seed: u64, faults: &[Fault], dice: &mut Chance) -> usize {
    let scratch = scratch("kafka-kills-");
    let dir = scratch.path();
    let prefix = format!("kills{seed}.");
    let topics = Topics::new(brokers, &prefix, PARTITIONS);
    let config = brokers.journal(&prefix, &format!("partitions = {PARTITIONS}"));
    let (is_good, shown, errors) = kafka(dir, &config, &["init"]);
    assert!(is_good, "{shown} {errors}");
    let (model, stop) = (Mutex::new(Model::default()), AtomicBool::new(false));
    let mut load = dice.clone();
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        scope.spawn(|| {
            let producer = topics.producer();
            let mut looked = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                // As much as is asked of it and no more than this machine bears: what waits must be correlated within the patience.
                if looked.elapsed() > Duration::from_secs(1) {
                    looked = Instant::now();
                    if topics.behind().is_none_or(|behind| behind > BEHIND_MAX) {
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
                let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
                (0..BURST).for_each(|_| produce(&producer, &topics.name("events"), &model.next(&mut load)));
                drop(model);
                std::thread::sleep(BURST_WAIT);
            }
            producer.flush(Duration::from_secs(60)).expect("is taken");
        });
        let mut scene = Scene { brokers, topics: &topics, dir, config: &config, correlators: [None, None] };
        scene.start(0);
        scene.start(1);
        for fault in faults {
            topics.wait_correlated("all goes well");
            let begun = Instant::now();
            scene.strike(*fault, dice);
            topics.wait_correlated("it goes on");
            println!("  {fault:?}: over after {:.1} s", begun.elapsed().as_secs_f32());
        }
        assert!(scene.correlators.iter_mut().flatten().all(Correlator::runs), "no correlator ends by itself");
        drop(stops);
        // What a replica has is what the state has.
        let lines = "[journal]\nnode_name = \"shows\"\ncorrelate = false\n";
        let shows =
            Setup::new(&dir.join("shows")).config(&(config.replace("[journal]\n", lines) + "[node]\nsite = \"noc\"\n")).start();
        wait_until("all is said", || scope_is_quiet(&topics));
        topics.wait_correlated("all is correlated");
        let model = model.lock().unwrap_or_else(PoisonError::into_inner);
        let alarms = model.compare(&topics);
        let (begun, mut differs) = (Instant::now(), vec![String::new()]);
        while !differs.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "the replica does not come to have it: {differs:?}");
            std::thread::sleep(Duration::from_millis(50));
            differs = differences(&shows, &alarms);
        }
        println!("  {} said, {} alarms", model.said, alarms.len());
    });
    faults.len()
}

/// What a node shows otherwise than the state has it.
fn differences(node: &Node, alarms: &BTreeMap<(String, String), Value>) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let shown: BTreeMap<(String, String), Value> = node
        .alarms()
        .into_iter()
        .filter(|one| one["alarm_type"] == "t")
        .map(|one| ((text(&one["site"]), text(&one["resource"])), one))
        .collect();
    let mut differences = Vec::new();
    if shown.len() != alarms.len() {
        differences.push(format!("{} alarms in place of {}", shown.len(), alarms.len()));
    }
    for (key, alarm) in alarms {
        let one = shown.get(key).unwrap_or(&Value::Null);
        for field in ["id", "severity", "cleared", "raise_seq", "last_change", "count"] {
            if one[field] != alarm[field] {
                differences.push(format!("{key:?}: {field} is {} in place of {}", one[field], alarm[field]));
            }
        }
    }
    differences.truncate(5);
    differences
}

/// Ends the load, also when an assertion fails.
pub(crate) struct Stops<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether nothing more comes in.
fn scope_is_quiet(topics: &Topics) -> bool {
    let before = topics.produced();
    std::thread::sleep(Duration::from_secs(1));
    before.is_some() && topics.produced() == before
}
