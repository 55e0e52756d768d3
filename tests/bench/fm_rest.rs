//! StarlingX Fault Management's REST interface: `./dev bench fm_rest`. 10 000 alarms stand, and are listed in pages of 100 to the end, by
//! the links that a page gives and by markers alone, as they come and sorted.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
mod measure;

use std::time::{Duration, Instant};

use harness::{Setup, agent, scratch};
use measure::{millis, node_cpu};
use serde_json::{Value, json};

const ALARMS: usize = 10_000;
const PAGE: usize = 100;
const SEVERITIES: [&str; 4] = ["critical", "major", "minor", "warning"];

fn main() {
    println!("## fm_rest: pages of {PAGE} of {ALARMS} alarms");
    let scratch = scratch("bench-fm-rest-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let event = |number: usize| {
        json!({ "resource": format!("host=compute-{}.port=eth{}", number / 8, number % 8), "alarm_type": "100.109",
            "severity": SEVERITIES[number % 4], "text": format!("Port {number} failed") })
    };
    for begin in (0..ALARMS).step_by(1000) {
        node.send(&(begin..begin + 1000).map(event).collect());
    }
    let base = node.base.trim_end_matches("/api/v1").to_owned();
    let agent = agent();
    let lists = [
        ("as they come", String::new()),
        ("by uuid", "&sort_key=uuid".to_owned()),
        ("by time", "&sort_key=timestamp&sort_dir=desc".to_owned()),
        ("by entity", "&sort_key=entity_instance_id".to_owned()),
        ("majors only", "&q.field=severity&q.op=eq&q.type=&q.value=major".to_owned()),
        ("with everything", "&expand=True".to_owned()),
    ];
    for (what, query) in lists {
        for by in ["next", "marker"] {
            let first = format!("{base}/v1/alarms?limit={PAGE}{query}");
            let (mut url, mut times, mut seen, before) = (Some(first.clone()), Vec::new(), 0, node_cpu(&node));
            while let Some(asked) = url.take() {
                let begun = Instant::now();
                let text = agent.get(&asked).call().expect("it answers").body_mut().read_to_string().expect("is text");
                times.push(begun.elapsed());
                let page: Value = serde_json::from_str(&text).expect("is JSON");
                let alarms = page["alarms"].as_array().expect("is a list");
                seen += alarms.len();
                url = page["next"].as_str().map(|next| match (by, alarms.last()) {
                    ("marker", Some(last)) => format!("{first}&marker={}", last["uuid"].as_str().expect("is a uuid")),
                    _ => next.to_owned(),
                });
            }
            let expected = if what == "majors only" { ALARMS / SEVERITIES.len() } else { ALARMS };
            assert_eq!(seen, expected, "{what} by {by}");
            report(&format!("{what}, by {by}"), &mut times, node_cpu(&node) - before);
        }
    }
    measure::print_memory(&node, "with all of them");
    println!();
}

fn report(what: &str, times: &mut [Duration], cpu: Duration) {
    times.sort_unstable();
    println!(
        "{what}: {} pages; median {:.2} ms, most {:.2} ms; CPU of the node each: {:.2} ms",
        times.len(),
        millis(times[times.len() / 2]),
        millis(times[times.len() - 1]),
        millis(cpu) / times.len() as f64
    );
}
