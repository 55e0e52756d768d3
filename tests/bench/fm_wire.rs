//! StarlingX's programs: `./dev bench fm_wire`. One program raises alarms one after the other, then sixteen do, and then one brings them
//! in lists; beside it what one sync costs on the same disk in the same run.
//!
//! The node answers when the alarm is synced; afterwards it is killed, and all that it answered must stand when it has started again.
//! Programs and node share the machine's cores.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
mod measure;

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use harness::fm::{Alarm, Client, OK};
use harness::{Setup, scratch};

const SETTINGS: &str = "[fm]\nenabled = true\nlisten = \"127.0.0.1:0\"\n";
const ALONE: usize = 2_000;
const PROGRAMS: usize = 16;
const TOGETHER: usize = 4_000;
const LISTS: usize = 100;
const LIST: usize = 100;

fn main() {
    println!("## fm_wire: alarms by fmManager's protocol");
    let scratch = scratch("bench-");
    let setup = Setup::new(&scratch.path().join("data")).config(SETTINGS);
    let node = setup.start();
    let address = node.fm.expect("it serves them");
    let sync = measure::print_disk(scratch.path());

    let cpu = measure::node_cpu(&node);
    let alone = program(address, "alone", ALONE);
    report("one program", std::slice::from_ref(&alone), alone.iter().sum(), measure::node_cpu(&node) - cpu);
    println!("its median is {:.2} times one sync", median(&alone).as_secs_f64() / sync.as_secs_f64());

    // So that the first of the programs does not begin before the last is there.
    let (start, cpu) = (Barrier::new(PROGRAMS + 1), measure::node_cpu(&node));
    let (begun, all) = std::thread::scope(|scope| {
        let start = &start;
        let run = |number: usize| {
            start.wait();
            program(address, &format!("p{number}"), TOGETHER)
        };
        let programs: Vec<_> = (0..PROGRAMS).map(|number| scope.spawn(move || run(number))).collect();
        start.wait();
        let begun = Instant::now();
        (begun, programs.into_iter().map(|program| program.join().expect("all are answered")).collect::<Vec<_>>())
    });
    report(&format!("{PROGRAMS} programs"), &all, begun.elapsed(), measure::node_cpu(&node) - cpu);

    let mut client = Client::connect(address);
    let begun = Instant::now();
    for list in 0..LISTS {
        let alarms: Vec<Alarm> = (0..LIST).map(|n| alarm(&format!("list-{list}"), n)).collect();
        assert_eq!(client.raise_all(&alarms), OK);
    }
    println!("one program with lists of {LIST}: {:.0} alarms/s", (LISTS * LIST) as f64 / begun.elapsed().as_secs_f64());
    measure::print_memory(&node, "with all of them");

    let raised = ALONE + PROGRAMS * TOGETHER + LISTS * LIST;
    node.kill();
    let node = setup.start();
    let standing = node.alarms().iter().filter(|alarm| alarm["alarm_type"] == "100.999").count();
    assert_eq!(standing, raised, "what was answered stands after a kill");
    println!("killed and started again: all {raised} stand");
}

fn alarm(program: &str, n: usize) -> Alarm {
    let entity = format!("host={program}.n={n}");
    Alarm::new("100.999", &entity, 3).text(516, "host").reason("threshold 90 %, actual 91 %").number(1300, 7).number(1304, 50)
}

/// Raises so many alarms one after the other; how long each took.
fn program(address: SocketAddr, name: &str, count: usize) -> Vec<Duration> {
    let mut client = Client::connect(address);
    let raise = |n: usize| {
        let alarm = alarm(name, n);
        let begun = Instant::now();
        client.raise(&alarm).expect("is taken");
        begun.elapsed()
    };
    (0..count).map(raise).collect()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(what: &str, programs: &[Vec<Duration>], took: Duration, cpu: Duration) {
    let mut times = programs.concat();
    times.sort_unstable();
    let at = |percent: usize| measure::millis(times[times.len() * percent / 100]);
    println!(
        "{what}: {} alarms, {:.0}/s; answer after {:.2} ms (median), {:.2} ms (99th of 100); CPU of the node each: {:.0} us",
        times.len(),
        times.len() as f64 / took.as_secs_f64(),
        at(50),
        at(99),
        cpu.as_secs_f64() * 1e6 / times.len() as f64
    );
}
