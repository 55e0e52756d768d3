//! Writes what `tests/released.rs` reads: real nodes do what nodes do, a tap on their uplinks listens, and what one of them has
//! stored in the end is kept. Done once for each release.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::hook::Hook;
use crate::harness::http::Wire;
use crate::harness::{Node, Setup, scratch, wait_until};
use crate::journal::segments;
use crate::tap::{Said, Tap};
use crate::{ENGINE, FAR, events_of};

const SITES: &str = "[sites]\nheartbeat = \"1s\"\nsilent_after = \"1h\"\ncredential_lifetime = \"10s\"\n";
const UPLINK: &str = "[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n";

fn act(node: &Node, action: &Value) -> Value {
    let body = action.to_string();
    let headers = [("content-type", "application/json")];
    let wire = Wire { method: "POST", path: "/api/v1/actions", headers: &headers, body: body.as_bytes() };
    let reply = node.wire_unix(&wire);
    // 202: its owner is away.
    assert!([200, 202].contains(&reply.status), "{action}: {}", reply.body);
    reply.json()
}

fn id_of(node: &Node, resource: &str) -> String {
    let is_it = |alarm: &Value| alarm["resource"] == resource;
    wait_until("it stands", || node.alarms().iter().any(is_it));
    let alarm = node.alarms().into_iter().find(is_it).expect("stands");
    alarm["id"].as_str().expect("has one").to_owned()
}

fn event(resource: &str, severity: &str) -> Value {
    json!({ "resource": resource, "alarm_type": "fan.failed", "severity": severity, "text": format!("{resource} says {severity}") })
}

fn join(below: &Node, above: &Node, tap: &Tap, add: &[&str]) {
    let token = above.cli_ok(&[&["site", "add"], add].concat());
    below.cli_ok(&["join", &tap.url(), "--token", token.trim()]);
}

fn settled(site: &Node) {
    let last = site.history().last().and_then(|change| change["position"].as_u64());
    wait_until("all has come up", || {
        let shown = site.json("/uplink/state");
        shown["state"] == "connected" && shown["reached"].as_u64() >= last && shown["history_missing_records"] == 0
    });
}

fn count(said: &Said, kind: &str) -> usize {
    said.lock().expect("nobody panics").iter().filter(|one| one["message"]["m"] == kind).count()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("runs").success());
}

/// All states that an alarm can be in, and what else an engine keeps.
fn live_through(node: &Node) -> Vec<Value> {
    let events = events_of("fan-a fan-b fan-c fan-d fan-e fan-f fan-g fan-h");
    node.send(&json!(events));
    // Reported again, it is counted.
    node.send(&json!(events[..2]));
    let more = vec![
        json!({ "resource": "host=fan-d", "alarm_type": "fan.failed", "severity": "cleared" }),
        json!({ "resource": "host=fan-e", "alarm_type": "fan.failed", "severity": "critical", "attributes": { "rpm": "0", "psu": "b" } }),
        json!({ "resource": "host=late", "alarm_type": "fan.failed", "severity": "cleared", "event_time": "2026-01-01T00:00:00Z",
            "order_by_event_time": true }),
        json!({ "resource": "host=numbered", "alarm_type": "disk.full", "qualifier": "/var", "severity": "minor", "producer": "p-1", "epoch": 3,
            "seq": 7, "event_time": "2026-01-02T00:00:00Z", "service_affecting": true }),
        json!({ "resource": "host=identified", "alarm_type": "disk.full", "severity": "warning", "event_id": "e-1", "probable_cause": "storage-capacity-problem" }),
        json!({ "resource": "host=log", "alarm_type": "door.opened", "kind": "log", "text": "somebody came in" }),
        json!({ "resource": "job=backup", "alarm_type": "heartbeat.lost", "kind": "heartbeat", "lease_s": 604_800 }),
        json!({ "resource": "host=silent", "alarm_type": "fan.failed", "severity": "major", "lease_s": 1 }),
        json!({ "resource": "host=ends", "alarm_type": "fan.failed", "severity": "major", "ends_at": FAR }),
        json!({ "resource": "host=shelved-rack", "alarm_type": "rack.open", "severity": "major" }),
        json!({ "resource": "host=noise", "alarm_type": "noise.heard", "severity": "minor" }),
    ];
    node.send(&json!(more));
    let id = |name: &str| id_of(node, &format!("host={name}"));
    act(node, &json!({ "action": "acknowledge", "alarms": [id("fan-b")], "note": "seen" }));
    act(node, &json!({ "action": "assign", "alarms": [id("fan-b")], "to": "ann" }));
    act(node, &json!({ "action": "note", "alarms": [id("fan-b")], "text": "a spare part is ordered" }));
    act(node, &json!({ "action": "shelve", "alarms": [id("fan-c")], "until": FAR, "reason": "known" }));
    act(node, &json!({ "action": "clear", "alarms": [id("fan-f")] }));
    act(node, &json!({ "action": "retire", "alarms": [id("fan-g")] }));
    act(node, &json!({ "action": "clear", "alarms": [id("fan-h")] }));
    act(node, &json!({ "action": "purge", "alarms": [id("fan-h")] }));
    act(node, &json!({ "action": "add-shelf", "match": { "alarm_type": "rack.open" }, "until": FAR, "reason": "moving" }));
    act(node, &json!({ "action": "suppress", "alarm_type": "noise.heard", "reason": "loud" }));
    wait_until("its reporter is silent", || node.alarms().iter().any(|alarm| !alarm["stale"].is_null()));
    // Two segments: an index, and something that is behind it.
    let long = "x".repeat(3000);
    for n in 0..250 {
        node.send(&json!([{ "resource": "host=wordy", "alarm_type": "fan.failed", "severity": "minor", "text": format!("{n} {long}") }]));
    }
    events.into_iter().chain(more).collect()
}

/// Writes the recording to `to`.
pub(crate) fn record(to: &Path) {
    let scratch = scratch("record-");
    let at = |name: &str| scratch.path().join(name);
    let said = Said::default();
    let hook = Hook::start();
    let noc = Setup::new(&at("noc")).config(&format!("[node]\nsite = \"noc\"\n{SITES}")).start();
    let receiver = format!("[receivers.pager.webhook]\nurl = \"{}\"\n", hook.url());
    let north_config = format!(
        "[node]\nsite = \"north\"\n{SITES}{UPLINK}kind = \"region\"\n{ENGINE}{receiver}[store]\nsegment_bytes = \"1MiB\"\n"
    );
    let north_setup = Setup::new(&at("north")).config(&north_config);
    let north = north_setup.start();
    let events = live_through(&north);
    let tap = Tap::to(&noc.base, "north", &said);
    join(&north, &noc, &tap, &["north", "--kind", "region"]);
    settled(&north);
    // A site whose oldest history is gone before it joins.
    let small = "[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n";
    let cell_setup = Setup::new(&at("cell-1")).config(&format!("[node]\nsite = \"cell-1\"\n{UPLINK}{ENGINE}{small}"));
    let cell = cell_setup.start();
    cell.send(&json!(events_of("c-a c-b c-c")));
    let long = "y".repeat(3000);
    let first = || segments(&at("cell-1"))[0].clone();
    let began = first();
    let mut n = 0;
    wait_until("the oldest segment is gone", || {
        n += 1;
        cell.send(&json!([{ "resource": "host=c-wordy", "alarm_type": "fan.failed", "severity": "minor", "text": format!("{n} {long}") }]));
        first() != began
    });
    // What was taken away is in memory until it ends.
    cell.stop();
    let cell = cell_setup.start();
    let tap = Tap::to(&north.base, "cell-1", &said);
    join(&cell, &north, &tap, &["cell-1"]);
    settled(&cell);
    cell.send(&json!([event("host=c-live", "major"), event("host=c-a", "cleared")]));
    let seen = id_of(&north, "host=c-live");
    act(&north, &json!({ "action": "acknowledge", "alarms": [seen], "note": "from above" }));
    wait_until("it is acted", || said.lock().expect("nobody panics").iter().any(|one| !one["message"]["acted"].is_null()));
    wait_until("it has a newer credential", || {
        let said = said.lock().expect("nobody panics");
        said.iter().any(|one| one["line"] == "cell-1/1" && one["message"]["m"] == "rotated")
    });
    settled(&cell);
    // It is given back an older disk.
    cell.stop();
    copy(&at("cell-1"), &at("cell-1-older"));
    let cell = cell_setup.start();
    cell.send(&json!([event("host=c-lost", "critical")]));
    settled(&cell);
    cell.stop();
    std::fs::remove_dir_all(at("cell-1")).expect("is removed");
    std::fs::rename(at("cell-1-older"), at("cell-1")).expect("is moved");
    let cell = cell_setup.start();
    wait_until("it numbers anew", || count(&said, "begin-epoch") > 0);
    settled(&cell);
    cell.send(&json!([event("host=c-anew", "major")]));
    settled(&cell);
    // An agent, and a site that goes elsewhere.
    let agent = Setup::new(&at("agent")).config(&format!("[node]\nsite = \"north\"\n{UPLINK}kind = \"agent\"\n")).start();
    agent.send(&json!([event("host=agent-1", "major")]));
    let tap = Tap::to(&north.base, "agent-1", &said);
    join(&agent, &north, &tap, &["agent-1", "--kind", "agent"]);
    id_of(&north, "host=agent-1");
    let mover = Setup::new(&at("cell-2")).config(&format!("[node]\nsite = \"cell-2\"\n{UPLINK}")).start();
    let tap = Tap::to(&north.base, "cell-2", &said);
    join(&mover, &north, &tap, &["cell-2"]);
    settled(&mover);
    let token = noc.cli_ok(&["site", "add", "cell-2"]);
    mover.cli_ok(&["site", "rehome", &noc.base, "--token", token.trim()]);
    wait_until("it has said farewell", || count(&said, "moved") > 0 && count(&said, "refused") > 0);
    // What is ordered while its owner is away stays to be done.
    mover.stop();
    agent.stop();
    settled(&north);
    cell.stop();
    act(&north, &json!({ "action": "assign", "alarms": [id_of(&north, "host=c-anew")], "to": "ben", "expires_at": FAR }));
    settled(&north);
    wait_until("all is told", || hook.told().iter().any(|told| told.to_string().contains("host=c-anew")));
    noc.stop();
    wait_until("nothing more happens", || {
        let before = north.history().len();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        north.history().len() == before
    });
    let out = at("out");
    std::fs::create_dir(&out).expect("is made");
    let write = |name: &str, value: &Value| std::fs::write(out.join(name), value.to_string()).expect("is written");
    write("alarms.json", &json!(north.alarms()));
    write("history.json", &json!(north.history()));
    write("events.json", &json!(events));
    write("sites.json", &north.json("/sites"));
    write("shelves.json", &north.json("/shelves"));
    write("heartbeats.json", &north.json("/heartbeats"));
    north.stop();
    write("offline.json", &json!(crate::offline(&at("north"))));
    let lines: Vec<_> = said.lock().expect("nobody panics").iter().map(Value::to_string).collect();
    std::fs::write(out.join("wire.jsonl"), lines.join("\n") + "\n").expect("is written");
    for derived in ["view", "lock", "retention.lock", "klaxon.sock", "view.seal"] {
        let path: PathBuf = at("north").join(derived);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    std::fs::rename(at("north"), out.join("store")).expect("is moved");
    std::fs::create_dir_all(to.parent().expect("has one")).expect("is made");
    let tar = Command::new("tar").args(["--owner=0", "--group=0", "--sort=name", "-cf", "-", "-C"]).arg(&out).arg(".").output();
    let tar = tar.expect("tar runs");
    assert!(tar.status.success());
    std::fs::write(to, zstd::bulk::compress(&tar.stdout, 19).expect("compresses")).expect("is written");
}
