//! Debian's Prometheus scrapes a node, and its own tool finds nothing to say against the metrics.

mod harness;

use std::io::Write as _;
use std::process::{Command, Stdio};

use harness::hook::Hook;
use harness::prometheus::Prometheus;
use harness::{Setup, is_there, scratch, wait_until};
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
    let ask = |query: &str| prometheus.query(query)["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
    wait_until("the node is up", || ask("up").as_deref() == Some("1"));
    let active = "klaxon_alarms_active{severity=\"major\",site=\"local\"}";
    wait_until("the alarm is counted", || ask(active).is_some_and(|count| count != "0"));
    // The counts of each door balance.
    let sum = |word: &str| format!("sum(klaxon_door_events_{word}_total)");
    let balance =
        format!("{}-{}-{}-{}-{}", sum("received"), sum("journalled"), sum("rejected"), sum("dropped"), sum("duplicate"));
    assert_eq!(ask(&balance).as_deref(), Some("0"));
}

/// Every expression of a dashboard, with its panel's title.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("has panels");
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().expect("is an expression").to_owned()))
    };
    panels.iter().flat_map(of_panel).collect()
}

#[test]
fn every_expression_of_the_dashboard_has_data() {
    if !is_there("prometheus") {
        return;
    }
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/grafana/klaxon.json")).expect("is there");
    let dashboard: Value = serde_json::from_str(&text).expect("is JSON");
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 30, "{expressions:?}");

    let scratch = scratch("grafana-");
    let hook = Hook::start();
    let receiver = format!("[receivers.noc]\nwebhook = {{ url = \"{}\" }}", hook.url());
    let node = Setup::new(&scratch.path().join("data")).config(&receiver).start();
    let target = node.base.trim_start_matches("http://");
    let config = format!(
        "global: {{scrape_interval: 250ms}}\nscrape_configs:\n- job_name: klaxon\n  static_configs: [{{targets: ['{target}']}}]\n"
    );
    let prometheus = Prometheus::start(scratch.path(), &config, &[]);
    let answer = |expression: &str| {
        let asked = expression.replace("$__rate_interval", "5s").replace("$site", ".*").replace("$instance", ".*");
        assert!(!asked.contains('$'), "{asked}: a variable that the test does not know");
        let answer = prometheus.query(&asked);
        assert_ne!(answer["status"], "error", "{asked}: {answer}");
        answer["data"]["result"].as_array().is_some_and(|series| !series.is_empty())
    };
    for (number, (title, expression)) in expressions.iter().enumerate() {
        wait_until(&format!("{title:?} has data: {expression}"), || {
            // So that something is synced now, too.
            node.send(&json!([{ "resource": format!("a={number}"), "alarm_type": "fan.failed", "severity": "major" }]));
            answer(expression)
        });
    }
    for variable in dashboard["templating"]["list"].as_array().expect("has variables") {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let (of, _label) = query.trim_start_matches("label_values(").rsplit_once(", ").expect("is label_values(metric, label)");
        wait_until(&format!("{query} has values"), || answer(of));
    }
}
