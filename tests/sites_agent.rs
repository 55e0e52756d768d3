//! Real agents below a real site: what is reported at a host is an alarm of the site, event by event, whatever else is in the
//! agent's journal.

mod harness;

use std::path::Path;

use harness::{Node, Setup, scratch, wait_until};
use serde_json::{Value, json};

fn agent(dir: &Path, site: &Node, name: &str) -> Node {
    let token = site.cli_ok(&["--json", "site", "add", name, "--kind", "agent"]);
    let token = serde_json::from_str::<Value>(&token).expect("is JSON")["token"].as_str().expect("is given").to_owned();
    let config = "[node]\nsite = \"noc\"\n[uplink]\nkind = \"agent\"\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n";
    let node = Setup::new(&dir.join(name)).config(config).start();
    node.cli_ok(&["join", &site.base, "--token", &token]);
    node
}

/// An event of the same producer on each host, with the same numbers.
fn event(host: &str, n: u64) -> Value {
    json!({
        "resource": format!("host={host}.disk={n}"), "alarm_type": "disk.full", "severity": "major", "text": format!("disk {n}"),
        "producer": "collector", "sequence": { "epoch": 1, "seq": n },
    })
}

fn has(site: &Node, host: &str, n: u64) -> bool {
    let resource = format!("host={host}.disk={n}");
    site.alarms().iter().any(|alarm| alarm["resource"] == *resource && alarm["via"] == host)
}

fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("//metrics").expect("answers").body;
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn each_event_of_an_agent_is_at_the_site_before_the_next_is_reported() {
    let scratch = scratch("sites-agent-");
    let site = Setup::new(&scratch.path().join("noc")).config("[node]\nsite = \"noc\"").start();
    let [one, other] = ["web-1", "web-2"].map(|name| agent(scratch.path(), &site, name));
    for n in 1..=12 {
        for (node, name) in [(&one, "web-1"), (&other, "web-2")] {
            node.send(&json!([event(name, n)]));
            wait_until("it is at the site", || has(&site, name, n));
        }
    }
    // What the site cannot take is counted, and what is behind it comes.
    site.cli_ok(&["site", "add", "cell-9"]);
    let mut foreign = event("web-1", 13);
    foreign["site"] = json!("cell-9");
    one.send(&json!([foreign]));
    wait_until("it is counted", || metric(&site, "klaxon_sites_events_rejected_total") == 1);
    for n in 14..=18 {
        one.send(&json!([event("web-1", n)]));
        wait_until("it is at the site", || has(&site, "web-1", n));
    }
    wait_until("the agent knows", || {
        let shown = one.json("/uplink/state");
        shown["state"] == "connected" && shown["connections"] == 1
    });
    assert!(!has(&site, "web-1", 13));
}
