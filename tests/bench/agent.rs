//! The agent: `./dev bench agent`. Walks of twelve columns of 100 000 alarms beside a table of the same size inside snmpd, which
//! net-snmp keeps as it keeps its own large tables; then while a thousand alarms a second change.
//!
//! Both are walked with snmpbulkwalk, in turns for each column, and share the machine's cores with it. So read ratios, which are of
//! walks that stood beside each other. snmpd is walked as it comes, when its answers are as large as all that was asked for, in
//! fragments off this machine; and with answers of one piece, as ours are.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "measure.rs"]
mod measure;

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Node, Setup, scratch, wait_until};
use measure::{children_cpu, cpu_of, print_memory};
use serde_json::{Value, json};

const ROWS: usize = 100_000;
/// klaxonAlarmId to klaxonAlarmRunbook; those of the table in snmpd have the same numbers.
const COLUMNS: std::ops::RangeInclusive<u32> = 2..=13;
const ALARM_ENTRY: &str = "1.3.6.1.4.1.8072.9999.9999.7780.1.4.1";
const TABLE_ENTRY: &str = "1.3.6.1.4.1.8072.9999.9999.7781.1.1";
const ROUNDS: usize = 5;

fn main() {
    println!("## agent");
    let scratch = scratch("bench-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let agent = node.snmp.expect("it answers requests");
    fill(&node);
    print_memory(&node, "with 100 000 alarms");
    let us = Walked { who: "klaxon", agent, entry: ALARM_ENTRY, pid: node.child.id() };
    for (who, answers) in [("snmpd", ""), ("snmpd-in-one-piece", "[snmp] sendMessageMaxSize 1472")] {
        match Snmpd::start(&scratch.path().join(who), answers) {
            Some(peer) => compare(us, Walked { who, agent: peer.address, entry: TABLE_ENTRY, pid: peer.child.id() }),
            None => us.table().print(us.who),
        }
    }
    walk_during_changes(&node, agent);
    print_memory(&node, "after the walks");
}

fn event(key: usize, severity: &str) -> Value {
    let alarm_type = ["disk.full", "cpu.high", "link.down", "memory.high"][key % 4];
    json!({
        "resource": format!("host=compute-{:03}.interface=eth{key}", key % 500),
        "alarm_type": alarm_type,
        "severity": severity,
        "text": format!("threshold exceeded; threshold 90 %, actual {} %", 90 + key % 10),
    })
}

fn fill(node: &Node) {
    for from in (0..ROWS).step_by(2000) {
        let events: Vec<Value> = (from..from + 2000).map(|key| event(key, "major")).collect();
        node.send(&Value::from(events));
    }
    let active = || {
        let oid = format!("{ALARM_ENTRY}.2");
        let last = column(node.snmp.expect("it answers requests"), &oid);
        last >= ROWS
    };
    wait_until("the agent has all alarms", active);
}

/// How many rows a walk of one column sees.
fn column(agent: SocketAddr, oid: &str) -> usize {
    let walk = ["-v2c", "-c", "public", "-On", "-Oq", "-m", "", "-Cr50", "-t", "5"];
    let output =
        Command::new("snmpbulkwalk").args(walk).arg(agent.to_string()).arg(oid).output().expect("snmpbulkwalk is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b".")).count()
}

/// An agent with a table.
#[derive(Clone, Copy)]
struct Walked {
    who: &'static str,
    agent: SocketAddr,
    entry: &'static str,
    pid: u32,
}

/// What walks took.
#[derive(Clone, Copy, Default)]
struct Cost {
    cells: usize,
    took: Duration,
    /// CPU time of the agent.
    agent: Duration,
    /// That of the managers.
    manager: Duration,
}

impl Walked {
    /// A walk of one column.
    fn column(&self, number: u32) -> Cost {
        let (agent, manager, begun) = (cpu_of(self.pid), children_cpu(), Instant::now());
        let cells = column(self.agent, &format!("{}.{number}", self.entry));
        Cost { cells, took: begun.elapsed(), agent: cpu_of(self.pid) - agent, manager: children_cpu() - manager }
    }

    fn table(&self) -> Cost {
        COLUMNS.fold(Cost::default(), |cost, number| cost.plus(self.column(number)))
    }
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            cells: self.cells + other.cells,
            took: self.took + other.took,
            agent: self.agent + other.agent,
            manager: self.manager + other.manager,
        }
    }

    fn rows_a_second(&self) -> f64 {
        self.cells as f64 / 12.0 / self.took.as_secs_f64()
    }

    fn agent_us(&self) -> f64 {
        self.agent.as_secs_f64() * 1e6 / self.cells as f64
    }

    fn print(&self, who: &str) {
        println!(
            "{who}: {} cells in {:.1} s, {:.0} rows of 12 columns a second; CPU per cell {:.2} us, of the manager {:.2} us",
            self.cells,
            self.took.as_secs_f64(),
            self.rows_a_second(),
            self.agent_us(),
            self.manager.as_secs_f64() * 1e6 / self.cells as f64
        );
    }
}

/// Both, column beside column, and who is first changes each time.
fn compare(us: Walked, them: Walked) {
    let (mut speeds, mut costs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (mut ours, mut theirs) = (Cost::default(), Cost::default());
        for number in COLUMNS {
            if (round + number as usize).is_multiple_of(2) {
                ours = ours.plus(us.column(number));
                theirs = theirs.plus(them.column(number));
            } else {
                theirs = theirs.plus(them.column(number));
                ours = ours.plus(us.column(number));
            }
        }
        ours.print(us.who);
        theirs.print(them.who);
        speeds.push(ours.rows_a_second() / theirs.rows_a_second());
        costs.push(ours.agent_us() / theirs.agent_us());
    }
    println!(
        "{} to {}, median of {ROUNDS} rounds: {:.2} of the rows a second, {:.2} of the CPU per cell",
        us.who,
        them.who,
        median(speeds),
        median(costs)
    );
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// The same while alarms change: each row that stands is seen once in each column.
fn walk_during_changes(node: &Node, agent: SocketAddr) {
    let (stop, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let severity = ["critical", "major"][round / (ROWS / 100) % 2];
                let from = round * 100 % ROWS;
                let events: Vec<Value> = (from..from + 100).map(|key| event(key, severity)).collect();
                node.send(&Value::from(events));
                let sent = changes.fetch_add(100, Ordering::Relaxed) + 100;
                std::thread::sleep(Duration::from_millis(sent).saturating_sub(begun.elapsed()));
            }
        });
        let begun = Instant::now();
        let us = Walked { who: "klaxon, during changes", agent, entry: ALARM_ENTRY, pid: node.child.id() };
        us.table().print(us.who);
        let rate = changes.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        println!("  {rate:.0} changes a second meanwhile; its CPU is in the figure above");
        stop.store(true, Ordering::Relaxed);
    });
}

/// snmpd with a large table in it.
struct Snmpd {
    child: Child,
    address: SocketAddr,
}

impl Snmpd {
    /// In a folder of its own, with a line of configuration. Nothing, if what it takes is not there.
    fn start(dir: &Path, line: &str) -> Option<Self> {
        std::fs::create_dir(dir).expect("can be made");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/table.c");
        let module = dir.join("table.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&module, &source])
            .args(["-lnetsnmpagent", "-lnetsnmp"])
            .stderr(Stdio::null())
            .status();
        if !built.is_ok_and(|status| status.success()) {
            println!("net-snmp's headers are not there (package libsnmp-dev): nothing to compare with");
            return None;
        }
        let config = dir.join("snmpd.conf");
        let mut file = std::fs::File::create(&config).expect("can be made");
        writeln!(file, "rocommunity public\ndlmod table {}\n{line}", module.display()).expect("can be written");
        let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free");
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let child = Command::new("snmpd")
            .args(["-f", "-C", "-m", "", "-Lf"])
            .arg(dir.join("snmpd.log"))
            .arg("-c")
            .arg(&config)
            .arg("-p")
            .arg(dir.join("snmpd.pid"))
            .arg(format!("udp:{address}"))
            .env("PATH", path)
            .env("SNMPCONFPATH", dir)
            .env("SNMP_PERSISTENT_DIR", dir.join("snmpd"))
            .env("KLAXON_ROWS", ROWS.to_string())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("snmpd is not there (package snmpd): nothing to compare with");
            return None;
        };
        // What waits in vain takes it along.
        let started = Self { child, address };
        let is_there = || {
            let get = ["-v2c", "-c", "public", "-m", "", "-r", "0", "-t", "1"];
            let row = format!("{TABLE_ENTRY}.2.{ROWS}");
            let output =
                Command::new("snmpget").args(get).arg(address.to_string()).arg(row).output().expect("snmpget is there");
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("compute")
        };
        wait_until("snmpd answers", is_there);
        Some(started)
    }
}

impl Drop for Snmpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
