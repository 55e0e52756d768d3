//! What the benchmarks have in common: the time that a process uses, its memory, the disk that it stands on.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{Node, wait_until};

/// CPU time of a process so far, from `/proc`.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    ticks_of(pid, 11)
}

/// That of all programs that the benchmark has run and waited for.
pub(crate) fn children_cpu() -> Duration {
    ticks_of(std::process::id(), 13)
}

/// Two fields of `/proc/<pid>/stat`, counted behind the name: time in the program and in the kernel.
fn ticks_of(pid: u32, field: usize) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("has a name").1.split_whitespace().collect();
    let ticks: u64 = fields[field..field + 2].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// That of a node.
pub(crate) fn node_cpu(node: &Node) -> Duration {
    cpu_of(node.child.id())
}

/// That of the benchmark itself.
pub(crate) fn own_cpu() -> Duration {
    cpu_of(std::process::id())
}

/// What each thread of the node has used, so that one sees where the time goes.
pub(crate) fn print_threads(node: &Node) {
    let mut threads = std::collections::BTreeMap::<String, f64>::new();
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    for task in std::fs::read_dir(format!("/proc/{}/task", node.child.id())).expect("it is there").flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(')').expect("has a name");
        let name = head.split_once('(').expect("has a name").1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        *threads.entry(name).or_default() += ticks as f64 / ticks_per_second;
    }
    let list: Vec<String> = threads.iter().filter(|(_, s)| **s > 0.0).map(|(name, s)| format!("{name} {s:.2} s")).collect();
    println!("CPU by thread since the start: {}", list.join(", "));
}

/// The median of a small append and its sync, on the disk of `dir`.
pub(crate) fn sync_time(dir: &Path) -> Duration {
    let path = dir.join("sync-probe");
    let mut file = std::fs::File::create(&path).expect("can be made");
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[1; 1024]).expect("can be written");
            file.sync_data().expect("can be synced");
            begun.elapsed()
        })
        .collect();
    times.sort();
    std::fs::remove_file(path).expect("can be removed");
    times[times.len() / 2]
}

pub(crate) fn print_disk(dir: &Path) -> Duration {
    let median = sync_time(dir);
    println!(
        "this disk: one append of 1 KiB with its sync takes {:.3} ms (median of 200), {:.0}/s",
        millis(median),
        1.0 / median.as_secs_f64()
    );
    median
}

pub(crate) fn print_memory(node: &Node, when: &str) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.child.id())).expect("it is there");
    let field = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or(name).replace(['\t', ' '], "");
    println!("memory {when}: {}, {}", field("VmRSS:"), field("VmHWM:"));
}

/// What the node uses while nothing happens.
pub(crate) fn print_idle(node: &Node) {
    let before = node_cpu(node);
    let begun = Instant::now();
    wait_until("half a minute has passed", || begun.elapsed() > Duration::from_secs(30));
    let used = node_cpu(node) - before;
    println!("an idle node uses {:.2} % of a core", used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0);
}
