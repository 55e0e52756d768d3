//! What goes wrong at the parent's side of an uplink, and holds up nobody.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;

use klaxon_schemas::time::Timestamp;
use klaxon_schemas::wire::v1;

use super::harness::mount::{LoopMount, can_mount};
use super::*;

fn wait_away(node: &Node, name: &str) {
    wait_until("it is away", || shown(node, name)["state"] == "away");
}

fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("is later");
    Timestamp::from_micros(i64::try_from(since.as_micros()).expect("is near")).expect("is near")
}

#[test]
fn a_join_token_is_good_over_a_restart_until_its_credential_has_arrived() {
    let scratch = scratch("join-");
    let setup = Setup::new(&scratch.path().join("data")).config(PARENT);
    let node = setup.start();
    let token = enrol(&node, &["cell-1"]);
    let mut wire = Wire::open(&node, &token).expect("is good");
    wire.hello(&json!({}));
    // It is taken in, and the answer does not come to it.
    wait_until("it is taken in", || shown(&node, "cell-1")["node"] == NODE);
    node.kill();
    let node = setup.start();
    let mut other = Wire::open(&node, &token).expect("is good");
    other.hello(&json!({ "node": OTHER_NODE }));
    assert!(other.expect_refused("mismatch").contains("used by another node"));
    let mut wire = Wire::open(&node, &token).expect("is good for the node that came with it");
    wire.hello(&json!({}));
    let credential = wire.expect("welcome")["credential"].as_str().expect("is given one").to_owned();
    assert!(shown(&node, "cell-1")["join_expires_at"].is_string());
    // What it sends behind the welcome shows that it has its credential, while it is connected.
    aligned(&mut wire, 10);
    assert_eq!(Wire::open(&node, &token).err(), Some(401));
    assert!(shown(&node, "cell-1")["join_expires_at"].is_null());
    drop(wire);
    wait_away(&node, "cell-1");
    drop(again(&node, &credential));
}

#[test]
fn a_certificate_does_not_come_past_a_join_token() {
    let authority = Authority::new();
    authority.serve();
    let node = Site::start(&authority.config());
    let token = enrol(&node, &["cell-1"]);
    let by_certificate = || {
        let mut wire = authority.open(&node, Some(("cell-1", &[])), None).expect("is a connection");
        wire.hello(&json!({}));
        wire
    };
    assert!(by_certificate().expect_refused("mismatch").contains("join token"));
    let mut wire = authority.open(&node, None, Some(&token)).expect("is good");
    wire.hello(&json!({}));
    wire.expect("welcome");
    aligned(&mut wire, 10);
    drop(wire);
    wait_away(&node, "cell-1");
    by_certificate().expect("welcome");
}

#[test]
fn what_a_dead_connection_still_brings_makes_no_second_node() {
    let node = Site::start(PARENT);
    let (wire, credential) = join(&node, "cell-1");
    let Wire { runtime, socket } = wire;
    let (mut sink, _stream) = socket.split();
    // What was on its way keeps coming, and nobody answers.
    runtime.spawn(async move {
        while sink.send(Message::Ping(vec![0; 8].into())).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let (_wire, welcome) = again(&node, &credential);
    assert_eq!(welcome["child"], "cell-1");
    assert_eq!(active(&node, "klaxon.site.doubled"), 0);
}

#[test]
fn an_event_that_is_none_is_left_out_and_the_others_come() {
    let node = Site::start(PARENT);
    let token = enrol(&node, &["web-1", "--kind", "agent"]);
    let mut wire = Wire::open(&node, &token).expect("is good");
    wire.hello(&json!({ "kind": "agent", "site": "centre" }));
    wire.expect("welcome");
    let placed =
        |position: u64, event: Value| json!({ "position": position, "received_at": "2026-11-22T03:12:00Z", "event": event });
    let fan = |number: u64| json!({ "resource": format!("fan={number}"), "alarm_type": "fan.failed", "severity": "major" });
    let mut newer = fan(3);
    newer["severity"] = json!("of-the-future");
    let events = [placed(2, fan(1)), placed(3, newer), placed(4, json!("no event")), placed(5, fan(2)), placed(7, json!({}))];
    wire.say(&json!({ "m": "events", "after": 0, "upto": 7, "events": events }));
    while wire.expect("reached")["position"] != 7 {}
    assert_eq!(node.alarms().iter().filter(|alarm| alarm["alarm_type"] == "fan.failed").count(), 2);
    assert!(node.get("//metrics").expect("is served").body.contains("klaxon_sites_events_rejected_total 3"));
}

#[test]
fn an_alarm_under_another_sites_name_is_left_out_and_the_site_is_heard() {
    let node = Site::start(PARENT);
    let (_other, _) = join(&node, "cell-2");
    let mut changes = changes_of(&["host=a", "host=b", "host=c"]);
    changes[1]["alarm"]["site"] = json!("cell-2");
    changes[2]["alarm"]["site"] = json!("centre");
    let (mut wire, credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    wire.say(&live(10, 20, &changes));
    assert_eq!(wire.expect("reached")["position"], 20);
    let fans: Vec<_> = node.alarms().into_iter().filter(|alarm| alarm["alarm_type"] == "fan.failed").collect();
    assert_eq!((fans.len(), &fans[0]["resource"]), (1, &json!("host=a")));
    assert!(node.get("//metrics").expect("is served").body.contains("klaxon_sites_left_out_total 2"));
    // A change that is not understood counts too.
    let mut newer = changes[0].clone();
    newer["kind"] = json!("transmogrified");
    wire.say(&live(20, 30, &[newer]));
    assert_eq!(wire.expect("reached")["position"], 30);
    assert!(node.get("//metrics").expect("is served").body.contains("klaxon_sites_left_out_total 3"));
    drop(wire);
    wait_away(&node, "cell-1");
    // Nothing is said of what its last change was, and it goes on.
    let (mut wire, welcome) = again(&node, &credential);
    assert_eq!(welcome["reached"]["fingerprint"], 0);
    wire.say(&live(30, 40, &[]));
    assert_eq!(wire.expect("reached")["position"], 40);
    let last: v1::Change = serde_json::from_value(changes[0].clone()).expect("is a change");
    let print = klaxon_schemas::child::fingerprint(&last.try_into().expect("is a change"));
    wire.say(&live(40, 50, &changes[..1]));
    assert_eq!(wire.expect("reached")["fingerprint"], print);
}

#[test]
fn what_a_region_says_of_the_nodes_below_it_stands_behind_a_change_that_is_left_out() {
    let node = Site::start(PARENT);
    let (_other, _) = join(&node, "cell-2");
    let token = enrol(&node, &["cell-1", "--kind", "region"]);
    let mut wire = Wire::open(&node, &token).expect("is good");
    wire.hello(&json!({ "kind": "region" }));
    wire.expect("welcome");
    let child = |name: &str, seq: u64| {
        json!({ "site": "cell-1", "epoch": EPOCH, "seq": seq, "at": "2026-11-22T03:12:00Z", "kind": "child",
                "child": { "name": name, "kind": "site", "what": "enrolled" } })
    };
    let mut foreign = changes_of(&["host=a"]).remove(0);
    foreign["alarm"]["site"] = json!("centre");
    aligned(&mut wire, 10);
    // All of it is on its way at once.
    for step in 0..8 {
        let at = 10 + step * 10;
        wire.say(&live(at, at + 10, &[child(&format!("far-{step}"), step + 1), foreign.clone()]));
    }
    while wire.expect("reached")["position"] != 90 {}
    let below = shown(&node, "cell-1")["below"].clone();
    assert_eq!(below.as_array().map(Vec::len), Some(8), "{below}");
}

#[test]
fn an_alarm_of_a_newer_release_is_left_out_of_what_stands_and_stays_as_it_was_known() {
    let node = Site::start(PARENT);
    let changes = changes_of(&["host=a", "host=b", "host=c"]);
    let mut alarms: Vec<_> = changes.iter().map(|change| change["alarm"].clone()).collect();
    alarms.sort_by_key(|alarm| alarm["id"].to_string());
    let (mut wire, credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    wire.say(&live(10, 20, &changes[..2]));
    wire.expect("reached");
    drop(wire);
    let standing = |resource: &str| {
        let found = of_cell(&node).into_iter().find(|alarm| alarm["resource"] == resource && alarm["cleared"] == false);
        found.map(|alarm| alarm["severity"].clone())
    };
    // Of the first, which is known, and the third, which is not, a newer release says something; the second is there no more.
    for alarm in &mut alarms {
        alarm["severity"] = if alarm["resource"] == "host=b" { json!("major") } else { json!("catastrophic") };
    }
    let edge = |digit: &str| format!("{0}{0}-{1}-{1}-{1}-{0}{1}{1}", digit.repeat(4), digit.repeat(4));
    let part = |alarms: &[Value]| {
        let content = json!({ "at": 30, "from": edge("0"), "to": edge("f"), "alarms": alarms });
        json!({ "m": "relay", "alignment": content })
    };
    alarms.retain(|alarm| alarm["resource"] != "host=b");
    for round in 1..3_u64 {
        wait_away(&node, "cell-1");
        let (mut wire, _) = again(&node, &credential);
        wire.say(&json!({ "m": "compare", "at": 30, "digests": "1".repeat(256 * 16) }));
        assert_eq!(wire.expect("differ")["buckets"].as_array().map(Vec::len), Some(256));
        wire.say(&part(&alarms));
        let at = 30 + round;
        wire.say(&json!({ "m": "relay", "aligned": { "at": at, "after": 20 } }));
        while wire.expect("reached")["position"] != at {}
        assert_eq!([standing("host=a"), standing("host=b"), standing("host=c")], [Some(json!("major")), None, None]);
        let counted = format!("klaxon_sites_left_out_total {}", 2 * round);
        assert!(node.get("//metrics").expect("is served").body.contains(&counted), "{counted}");
    }
    // Of which alarm it speaks must be seen.
    wait_away(&node, "cell-1");
    let (mut wire, _) = again(&node, &credential);
    wire.say(&part(&[json!({ "severity": "catastrophic" })]));
    assert!(wire.expect_refused("malformed").contains("has no id"));
}

#[test]
fn who_went_elsewhere_comes_back_by_its_certificate_once_it_is_enrolled_anew() {
    let authority = Authority::new();
    authority.serve();
    let node = Site::start(&authority.config());
    node.cli_ok(&["site", "add", "cell-1", "--no-token"]);
    let open = || {
        let mut wire = authority.open(&node, Some(("cell-1", &[])), None).expect("is a connection");
        wire.hello(&json!({}));
        wire
    };
    let mut wire = open();
    wire.expect("welcome");
    aligned(&mut wire, 10);
    wire.say(&live(10, 20, &changes_of(&["host=a"])));
    wire.expect("reached");
    wire.say(&json!({ "m": "moved", "to": "https://other.example" }));
    wire.expect_refused("gone");
    // A copy of it that was left behind is not let in.
    open().expect_refused("gone");
    node.cli_ok(&["site", "add", "cell-1", "--no-token"]);
    // Until it comes it is elsewhere: nothing of it is fresh, and nothing goes down.
    let site = shown(&node, "cell-1");
    assert_eq!([&site["state"], &site["moved"]["may_return"]], [&json!("moved"), &json!(true)], "{site}");
    let alarms = of_cell(&node);
    assert!(!alarms.is_empty() && alarms.iter().all(|alarm| !alarm["stale"].is_null()), "{alarms:?}");
    assert!(node.cli_ok(&["site", "show", "cell-1"]).contains("it may come back"));
    let mut wire = open();
    wire.expect("welcome");
    assert_eq!([&shown(&node, "cell-1")["state"], &shown(&node, "cell-1")["moved"]], [&json!("connected"), &Value::Null]);
    assert!(of_cell(&node).iter().all(|alarm| alarm["stale"].is_null()));
    // It was let back once: when it goes again, that is over.
    wire.say(&json!({ "m": "moved", "to": "https://other.example" }));
    wire.expect_refused("gone");
    open().expect_refused("gone");
    let twice = |name: &str| node.cli(&["site", "add", name, "--no-token"]).status.success();
    assert!(twice("cell-1") && twice("cell-2") && !twice("cell-2"));
}

#[test]
fn an_action_goes_down_by_the_clock_of_whom_it_is_for() {
    let node = Site::start(PARENT);
    let changes = changes_of(&["host=a"]);
    let token = enrol(&node, &["cell-1"]);
    let mut wire = Wire::open(&node, &token).expect("is good");
    let hour_us = 3_600_000_000;
    wire.hello(&json!({ "wall": wall().saturating_add_micros(hour_us) }));
    wire.expect("welcome");
    aligned(&mut wire, 10);
    wire.say(&live(10, 20, &changes));
    wire.expect("reached");
    let id = of_cell(&node)[0]["id"].as_str().expect("is a text").to_owned();
    let before = wall();
    node.cli(&["alarms", "ack", &id]);
    let action = wire.expect("action");
    let ahead = |field: &str| {
        let time: Timestamp = action[field].as_str().expect("is a text").parse().expect("is a time");
        time.micros_since(before) - hour_us
    };
    assert!((-5_000_000..60_000_000).contains(&ahead("ordered_at")), "{action}");
    assert!(ahead("expires_at") > ahead("ordered_at"), "{action}");
}

#[test]
fn what_was_sent_before_a_site_went_elsewhere_is_here() {
    let node = Site::start(PARENT);
    let changes = changes_of(&["host=a", "host=b"]);
    let (mut wire, mut credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    wire.say(&live(10, 20, &changes[..1]));
    wire.say(&live(20, 30, &changes[1..]));
    // Nothing of it is waited for.
    wire.say(&json!({ "m": "moved", "to": "https://other.example" }));
    wire.say(&live(30, 40, &[]));
    assert!(wire.expect_refused("gone").contains("other.example"));
    let site = shown(&node, "cell-1");
    assert_eq!([&site["state"], &site["reached"]["position"]], [&json!("moved"), &json!(30)], "{site}");
    let left = of_cell(&node);
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|alarm| !alarm["stale"].is_null()), "{left:?}");
    drop(wire);
    // Its old credential opens nothing, another token does; nothing comes twice.
    let mut wire = Wire::open(&node, &credential).expect("is known");
    wire.hello(&json!({}));
    wire.expect_refused("gone");
    let token = node.cli_ok(&["site", "token", "cell-1"]);
    let mut wire = Wire::open(&node, token.trim()).expect("is good");
    wire.hello(&json!({}));
    credential = wire.expect("welcome")["credential"].as_str().expect("is given one").to_owned();
    wire.say(&live(10, 20, &changes[..1]));
    assert_eq!(wire.expect("reached")["position"], 30);
    assert!(!credential.is_empty() && of_cell(&node).iter().all(|alarm| alarm["stale"].is_null()));
    let history = node.history();
    assert_eq!(history.iter().filter(|change| change["site"] == "cell-1").count(), 2);
}

#[test]
fn a_full_disk_above_leaves_the_backlog_below_and_it_comes_once() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("full-above-");
    let mount = LoopMount::new(scratch.path(), "disk", 96);
    let centre = Setup::new(&mount.dir.join("data"))
        .config(PARENT)
        .config("[store]\nfree_space_watermark = \"12MiB\"\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"1GiB\"")
        .start();
    let cell = Setup::new(&scratch.path().join("cell"))
        .config("[node]\nsite = \"cell-1\"\n[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"")
        .start();
    let token = enrol(&centre, &["cell-1"]);
    cell.cli_ok(&["join", &centre.base, "--token", &token]);
    let report = |round: usize, severity: &str| {
        let fans = (0..40).map(
            |fan| json!({ "resource": format!("fan={}", round * 20 + fan), "alarm_type": "fan.failed", "severity": severity }),
        );
        cell.send(&Value::Array(fans.collect()));
    };
    report(0, "major");
    wait_until("all is above", || of_cell(&centre).len() == 40);
    let stat = rustix::fs::statvfs(&mount.dir).expect("is mounted");
    let filler = mount.dir.join("filler");
    let file = std::fs::File::create(&filler).expect("can be made");
    let zeros = vec![0; 1 << 16];
    for place in 0..(stat.f_bavail * stat.f_frsize - (4 << 20)) >> 16 {
        file.write_all_at(&zeros, place << 16).expect("there is room");
    }
    file.sync_all().expect("can be synced");
    // Its room is free only when nobody has it open any more.
    drop(file);
    let event = json!({ "resource": "a=b", "alarm_type": "t", "severity": "major" }).to_string();
    wait_until("it takes nothing", || centre.post("/events", &event).expect("answers").status == 507);
    let reached = shown(&centre, "cell-1")["reached"]["position"].clone();
    (1..6).for_each(|round| report(round, ["minor", "cleared", "critical"][round % 3]));
    // It comes again and again while there is no room.
    let begun = Instant::now();
    wait_until("it was refused a few times", || begun.elapsed() > Duration::from_secs(3));
    assert_eq!(shown(&centre, "cell-1")["reached"]["position"], reached);
    assert_eq!(of_cell(&centre).len(), 40);
    std::fs::remove_file(&filler).expect("can be removed");
    let numbers = |node: &Node| -> Vec<(u64, u64)> {
        let of_it = node.history().into_iter().filter(|change| change["site"] == "cell-1");
        of_it.map(|change| (change["epoch"].as_u64().unwrap_or(0), change["seq"].as_u64().unwrap_or(0))).collect()
    };
    wait_until("all has come", || numbers(&centre).len() >= numbers(&cell).len());
    let (above, below) = (numbers(&centre), numbers(&cell));
    assert_eq!(above.iter().collect::<BTreeSet<_>>().len(), above.len(), "nothing came twice");
    assert_eq!(above.iter().collect::<BTreeSet<_>>(), below.iter().collect::<BTreeSet<_>>());
    let standing = |node: &Node| -> BTreeSet<String> {
        // One that began and ended meanwhile stands above in history only.
        let active = of_cell(node).into_iter().filter(|alarm| alarm["cleared"] == false);
        active.map(|alarm| format!("{} {}", alarm["resource"], alarm["severity"])).collect()
    };
    wait_until("both say the same", || standing(&centre) == standing(&cell));
    drop((centre, cell));
}
