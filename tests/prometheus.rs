//! Debian's Prometheus scrapes a node, and its own tool finds nothing to say against the metrics.

mod harness;

use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::prometheus::Prometheus;
use harness::{Setup, agent, is_there, scratch, wait_until};
use serde_json::{Value, json};

#[test]
fn prometheus_scrapes_a_node_and_its_tool_finds_nothing_wrong() {
    if !is_there("prometheus") {
        return;
    }
    let scratch = scratch("prometheus-");
    let node = Setup::new(&scratch.path().join("data")).config("[collect]\nenabled = true").start();
    node.send(&json!([{ "resource": "a=1", "alarm_type": "fan.failed", "severity": "major" }]));
    let metrics = node.get("//metrics").expect("the node answers").body;
    let mut checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it comes with prometheus");
    checker.stdin.take().expect("is piped").write_all(metrics.as_bytes()).expect("it reads");
    let verdict = checker.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&verdict.stdout).into_owned() + &String::from_utf8_lossy(&verdict.stderr);
    assert!(verdict.status.success() && words.trim().is_empty(), "{words}");

    let target = node.base.trim_start_matches("http://");
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: klaxon\n  static_configs: [{{targets: ['{target}']}}]\n"
    );
    let prometheus = Prometheus::start(scratch.path(), &config, &[]);
    let ask = |query: &str| -> Option<String> {
        let url = format!("{}/api/v1/query?query={query}", prometheus.base);
        let text = agent().get(&url).call().ok()?.body_mut().read_to_string().ok()?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    wait_until("the node is up", || ask("up").as_deref() == Some("1"));
    let active = "klaxon_alarms_active%7Bseverity%3D%22major%22%2Csite%3D%22local%22%7D";
    wait_until("the alarm is counted", || ask(active).is_some_and(|count| count != "0"));
    // The counts of each door balance.
    let sum = |word: &str| format!("sum(klaxon_door_events_{word}_total)");
    let balance =
        format!("{}-{}-{}-{}-{}", sum("received"), sum("journalled"), sum("rejected"), sum("dropped"), sum("duplicate"));
    assert_eq!(ask(&balance).as_deref(), Some("0"));
}
