//! What collecting costs: `./dev bench collect`.
//!
//! A node with all collectors that has nothing to tell; from a link that goes down to the alarm in the list; from the start of
//! the process to its readiness; the size of the binary.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "measure.rs"]
mod measure;

use std::process::Command;
use std::time::{Duration, Instant};

use harness::mount::run;
use harness::{Node, Setup, scratch, wait_until};
use measure::{millis, print_idle, print_memory};

const TIMES: usize = 21;

fn main() {
    println!("## collect");
    size();
    starts();
    links();
    idle();
    println!();
}

fn size() {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_klaxon"));
    let stripped = std::env::temp_dir().join(format!("klaxon-stripped-{}", std::process::id()));
    run(Command::new("strip").arg(program).arg("-o").arg(&stripped));
    let bytes = std::fs::metadata(&stripped).expect("was written").len();
    let _ = std::fs::remove_file(&stripped);
    println!("the binary, stripped: {:.1} MB (target: under 25 MB)", bytes as f64 / 1e6);
}

fn median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

fn starts() {
    let scratch = scratch("bench-start-");
    let times = (0..TIMES).map(|number| {
        let setup = Setup::new(&scratch.path().join(format!("data-{number}"))).config("[collect]\nenabled = true");
        let begun = Instant::now();
        let node = setup.start();
        let took = begun.elapsed();
        node.kill();
        took
    });
    let (median, most) = median(times.collect());
    println!(
        "start to serving, empty store: median {:.0} ms, most {:.0} ms (target: under 100 ms)",
        millis(median),
        millis(most)
    );
}

/// The links of the benchmark go with it.
struct Pair(String);

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.0]).status();
    }
}

fn is_down(node: &Node) -> bool {
    node.get("/alarms?alarm_type=link.down").is_ok_and(|reply| reply.body.contains("\"link.down\""))
}

fn links() {
    if !rustix::process::geteuid().is_root() {
        println!("from a link's loss to the list: skipped, it needs root");
        return;
    }
    let (near, far) = (format!("kxbn{}", std::process::id()), format!("kxbf{}", std::process::id()));
    run(Command::new("ip").args(["link", "add", &near, "type", "veth", "peer", "name", &far]));
    let pair = Pair(near);
    for end in [&pair.0, &far] {
        run(Command::new("ip").args(["link", "set", end, "up"]));
    }
    let scratch = scratch("bench-link-");
    let config = format!("[collect.link]\ninclude = [\"{}\"]\nclear_after = \"0s\"\nflaps = 60", pair.0);
    let node = Setup::new(&scratch.path().join("data")).config(&config).start();
    wait_until("the links were looked at", || node.get("/collectors").is_ok_and(|reply| reply.body.contains(&pair.0)));
    let times = (0..TIMES).map(|_| {
        let begun = Instant::now();
        run(Command::new("ip").args(["link", "set", &far, "down"]));
        while !is_down(&node) {
            assert!(begun.elapsed() < harness::PATIENCE, "no alarm");
        }
        let took = begun.elapsed();
        run(Command::new("ip").args(["link", "set", &far, "up"]));
        wait_until("it is over", || !is_down(&node));
        took
    });
    let (median, most) = median(times.collect());
    println!(
        "from a link's loss to the alarm in the list, `ip` included: median {:.1} ms, most {:.1} ms (target: under 100 ms)",
        millis(median),
        millis(most)
    );
}

fn idle() {
    let scratch = scratch("bench-idle-");
    let node = Setup::new(&scratch.path().join("data")).config("[collect]\nenabled = true").start();
    wait_until("each has looked", || node.get("/collectors").is_ok_and(|reply| !reply.body.contains("\"starting\"")));
    print!("with all collectors: ");
    print_idle(&node);
    print_memory(&node, "with all collectors (target: under 40 MB)");
}
