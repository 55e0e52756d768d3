//! A node below another one, against a node above that the test plays: what goes up, whatever happens to the line.

mod harness;

use std::time::{Duration, Instant};

use harness::above::Above;
use harness::{Chance, Node, Setup, scratch, seeds, wait_until};
use klaxon_schemas::child::Reached;
use klaxon_schemas::ids::{ActionId, Epoch, Position};
use klaxon_schemas::wire::v1::uplink::Down;
use serde_json::{Value, json};

/// What is said of an uplink to `above` that tries again at once.
fn uplink(above: &Above, more: &str) -> String {
    format!(
        "[node]\nsite = \"depot-7\"\n[uplink]\nurl = \"{}\"\nretry_min = \"20ms\"\nretry_max = \"50ms\"\n{more}",
        above.url()
    )
}

fn event(n: u64, kind: &str) -> Value {
    let types = ["disk.full", "memory.low", "host.unreachable", "process.failed", "sensor.temperature"];
    let pick = usize::try_from(n).expect("small");
    let mut event = json!({
        "resource": format!("host=compute-{}.filesystem=/var/lib/volume-{}", n % 97, n),
        "alarm_type": types[pick % types.len()],
        "producer": format!("collector-{}", n % 7),
        "text": format!("{} % of {} GiB used on compute-{}", 80 + n % 20, 10 + n * 37 % 900, n % 97),
        "attributes": { "used_percent": format!("{}.{}", 80 + n % 20, n % 10), "device": format!("/dev/sd{}", n % 13) },
    });
    match kind {
        "clear" => event["severity"] = json!("cleared"),
        severity => event["severity"] = json!(severity),
    }
    event
}

fn raise(node: &Node, numbers: std::ops::Range<u64>) {
    send(node, numbers, "major");
}

fn send(node: &Node, numbers: std::ops::Range<u64>, kind: &str) {
    let numbers: Vec<_> = numbers.collect();
    for some in numbers.chunks(500) {
        let events: Vec<_> = some.iter().map(|n| event(*n, kind)).collect();
        node.send(&json!(events));
    }
}

fn last_position(node: &Node) -> u64 {
    node.json("/uplink/state")["position"].as_u64().expect("is told")
}

/// Waits until all changes have come up; and checks that they are the node's, and what stands there too.
fn agree(node: &Node, above: &Above) {
    let history = node.history();
    let position = history.last().and_then(|change| change["position"].as_u64()).unwrap_or(0);
    wait_until("all changes have come up", || {
        assert_eq!(above.came().wrong, Vec::<String>::new());
        above.has_all(position)
    });
    let number = |change: &Value| (change["epoch"].as_u64().expect("is there"), change["seq"].as_u64().expect("is there"));
    let here: Vec<_> = history.iter().map(number).collect();
    let there: Vec<_> = above.changes().keys().copied().collect();
    assert_eq!(here, there, "all changes, each once");
    let mut here: Vec<_> = node.alarms().iter().map(|alarm| alarm["id"].as_str().expect("has one").to_owned()).collect();
    here.sort();
    let there: Vec<_> = above.came().alarms.keys().map(ToString::to_string).collect();
    assert_eq!(here, there, "the same alarms");
}

#[test]
fn a_node_joins_and_all_that_it_has_comes_up() {
    let scratch = scratch("uplink-");
    let above = Above::start();
    let token = scratch.path().join("token");
    std::fs::write(&token, "join-me\n").expect("is written");
    let setup = Setup::new(&scratch.path().join("data")).config("[node]\nsite = \"depot-7\"");
    let node = setup.start();
    raise(&node, 0..300);
    send(&node, 0..100, "clear");
    node.stop();
    let config = uplink(&above, &format!("join_token_file = {:?}\n", token));
    let node = Setup::new(&scratch.path().join("data")).config(&config).start();
    agree(&node, &above);
    assert_eq!(above.came().tokens[0], "join-me");
    assert_eq!(above.came().live.len(), 0, "what was is history");
    raise(&node, 300..301);
    wait_until("what is new is live", || above.came().live.len() == 1);
    let kept = scratch.path().join("data/uplink.json");
    let said: Value = serde_json::from_slice(&std::fs::read(&kept).expect("is kept")).expect("is JSON");
    assert_eq!((&said["credential"], &said["name"]), (&json!("first-credential"), &json!("depot-7")));
    assert_eq!(said["join_token"], Value::Null);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).expect("is there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    // The credential is what it comes with, the newer one as soon as there is one.
    above.send(Down::Credential { token: "second".to_owned() });
    wait_until("the new credential is on the disk", || above.came().rotated == 1);
    let compares = above.came().compares;
    above.cut_now();
    above.cut_after(usize::MAX);
    wait_until("it comes again", || above.came().tokens.len() == 2 && above.is_connected());
    assert_eq!(above.came().tokens[1], "second");
    raise(&node, 301..302);
    agree(&node, &above);
    assert!(above.came().compares <= compares + 1);
    let shown = node.json("/uplink/state");
    assert_eq!((&shown["state"], &shown["name"], &shown["parent"]), (&json!("connected"), &json!("depot-7"), &json!("noc")));
    assert!(node.cli_ok(&["uplink"]).contains("connected"));
    wait_until("nothing is said to be behind where nothing is", || node.json("/uplink/state")["lag_records"] == 0);
    assert!(node.cli_ok(&["uplink"]).contains("all there is"));
}

#[test]
fn a_connection_that_is_cut_anywhere_loses_nothing_and_brings_nothing_twice() {
    for seed in seeds(3, 30) {
        println!("seed {seed}");
        let mut chance = Chance::new(seed);
        let scratch = scratch("uplink-cut-");
        let above = Above::start();
        std::fs::write(scratch.path().join("token"), "t").expect("is written");
        let token = format!("join_token_file = {:?}\n", scratch.path().join("token"));
        let setup = Setup::new(&scratch.path().join("data")).config(&uplink(&above, &token));
        let mut node = setup.start();
        for _ in 0..25 {
            above.cut_after(usize::try_from(chance.below(9)).expect("small"));
            let (from, count) = (chance.below(200), 1 + chance.below(60));
            match chance.below(4) {
                0 => send(&node, from..from + count, "clear"),
                1 => send(&node, from..from + count, "critical"),
                _ => raise(&node, from..from + count),
            }
            if chance.below(8) == 0 {
                node.kill();
                node = setup.start();
            } else if chance.below(3) == 0 {
                let before = above.came().tokens.len();
                wait_until("it comes again", || above.came().tokens.len() > before || above.is_connected());
            }
        }
        above.cut_after(usize::MAX);
        agree(&node, &above);
    }
}

#[test]
fn what_is_live_comes_before_history_and_the_bandwidth_holds() {
    let scratch = scratch("uplink-slow-");
    let above = Above::start();
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let setup = Setup::new(&scratch.path().join("data")).config("[node]\nsite = \"depot-7\"");
    let node = setup.start();
    // Few alarms, and much that became of them: it is history that there is much of.
    for severity in ["major", "minor"].repeat(60) {
        send(&node, 0..100, severity);
    }
    node.stop();
    let token = format!("join_token_file = {:?}\nbandwidth = \"20000B\"\n", scratch.path().join("token"));
    let node = Setup::new(&scratch.path().join("data")).config(&uplink(&above, &token)).start();
    wait_until("history has begun", || !above.came().history.is_empty());
    let (begun, before) = (Instant::now(), node.json("/uplink/state")["sent_bytes"].as_u64().expect("is told"));
    let raised = Instant::now();
    raise(&node, 1000..1001);
    wait_until("it is live", || above.came().live.len() == 1);
    let latency = raised.elapsed();
    let missing = above.came().reached.clone().expect("is there").missing;
    assert!(!missing.is_empty(), "history was still to come");
    wait_until("some time has passed, or all has come", || {
        begun.elapsed() > Duration::from_secs(8) || above.came().reached.clone().is_some_and(|it| it.missing.is_empty())
    });
    let sent = node.json("/uplink/state")["sent_bytes"].as_u64().expect("is told") - before;
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    println!("live after {latency:?} beside history; {rate:.0} bytes a second of 20000");
    assert!(latency < Duration::from_secs(5), "{latency:?}");
    // A burst of two seconds may be saved up.
    assert!((sent as f64) < 20_000.0 * (begun.elapsed().as_secs_f64() + 3.0), "{rate} bytes a second");
    agree(&node, &above);
}

#[test]
fn only_what_differs_is_aligned() {
    let scratch = scratch("uplink-align-");
    let above = Above::start();
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let token = format!("join_token_file = {:?}\n", scratch.path().join("token"));
    let node = Setup::new(&scratch.path().join("data")).config(&uplink(&above, &token)).start();
    raise(&node, 0..50);
    agree(&node, &above);
    above.cut_now();
    raise(&node, 50..60);
    above.differ(Some(vec![3, 4, 200]));
    let before = above.came().alignments;
    above.cut_after(usize::MAX);
    let history = node.history();
    let position = history.last().and_then(|change| change["position"].as_u64()).expect("is there");
    wait_until("it has caught up", || above.has_all(position));
    assert_eq!(above.came().alignments - before, 2, "neighbours go together");
    // Nothing new: no comparison, however often it comes.
    let compares = above.came().compares;
    let connections = above.came().tokens.len();
    above.cut_now();
    above.cut_after(usize::MAX);
    wait_until("it comes again", || above.came().tokens.len() > connections && above.is_connected());
    raise(&node, 60..61);
    wait_until("it is live", || above.came().live.iter().any(|change| format!("{change:?}").contains("volume-60")));
    assert_eq!(above.came().compares, compares);
}

#[test]
fn what_is_kept_no_more_is_told_as_a_gap() {
    let scratch = scratch("uplink-gap-");
    let above = Above::start();
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let small = "[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n[node]\nsite = \"depot-7\"\n";
    let node = Setup::new(&scratch.path().join("data")).config(small).start();
    let long = "x".repeat(3000);
    for n in 0..1500 {
        let event =
            json!({ "resource": "host=a", "alarm_type": "disk.full", "severity": "major", "text": format!("{n} {long}") });
        node.send(&json!([event]));
    }
    let segments = scratch.path().join("data/journal");
    wait_until("the beginning is gone", || {
        let names =
            std::fs::read_dir(&segments).expect("is there").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        !names.into_iter().any(|name| name.contains("0000000000000001."))
    });
    node.stop();
    let token = format!("join_token_file = {:?}\n", scratch.path().join("token"));
    let config = format!("[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n{}", uplink(&above, &token));
    let node = Setup::new(&scratch.path().join("data")).config(&config).start();
    let position = last_position(&node);
    wait_until("all that is kept has come", || above.came().reached.as_ref().is_some_and(|it| it.missing.is_empty()));
    let came = above.came();
    assert!(came.wrong.is_empty(), "{:?}", came.wrong);
    assert_eq!(came.gaps.len(), 1);
    assert_eq!(came.gaps[0].after, Position(0));
    assert!(came.gaps[0].upto.0 > 100 && came.gaps[0].upto.0 < position, "{:?} of {position}", came.gaps);
    assert!(!came.history.is_empty());
}

#[test]
fn a_new_numbering_begins_where_another_is_known_above() {
    let scratch = scratch("uplink-epoch-");
    let above = Above::start();
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let token = format!("join_token_file = {:?}\n", scratch.path().join("token"));
    let setup = Setup::new(&scratch.path().join("data")).config(&uplink(&above, &token));
    let node = setup.start();
    raise(&node, 0..5);
    agree(&node, &above);
    let first = above.came().hellos.last().expect("came").epoch;
    // It is told to.
    above.cut_now();
    above.instead_of_welcome(Down::BeginEpoch { beyond: Epoch(first.0 + 1_000_000_000) });
    above.cut_after(usize::MAX);
    wait_until("a new numbering began", || above.came().hellos.last().is_some_and(|hello| hello.epoch > first));
    {
        let came = above.came();
        let hello = came.hellos.last().expect("came");
        assert!(hello.epoch.0 > first.0 + 1_000_000_000 && hello.epoch_after.0 > 0, "{hello:?}");
    }
    raise(&node, 5..8);
    wait_until("the new changes come", || {
        let came = above.came();
        came.live.len() + came.history.len() >= 8
    });
    agree(&node, &above);
    // It finds out itself: the node above knows another change at that place.
    let second = above.came().hellos.last().expect("came").epoch;
    above.cut_now();
    {
        let mut came = above.came();
        let reached = came.reached.as_mut().expect("is there");
        *reached = Reached { fingerprint: 12345, ..reached.clone() };
    }
    raise(&node, 8..9);
    above.cut_after(usize::MAX);
    wait_until("another one began", || above.came().hellos.last().is_some_and(|hello| hello.epoch > second));
    let third = above.came().hellos.last().expect("came").epoch;
    raise(&node, 9..10);
    wait_until("it is told in that one", || {
        let came = above.came();
        came.live.iter().chain(&came.history).any(|change| change.epoch == third && change.seq.0 == 1)
    });
    // It stays over a restart, also one by force.
    node.kill();
    let node = setup.start();
    wait_until("it comes again", || above.came().hellos.last().is_some_and(|hello| hello.last.0 > 0 && hello.epoch == third));
    let numbers: Vec<_> = node.history().iter().map(|change| change["epoch"].as_u64().expect("is there")).collect();
    assert!(numbers.is_sorted() && numbers.contains(&third.0), "{numbers:?}");
    assert!(above.came().wrong.is_empty(), "{:?}", above.came().wrong);
}

#[test]
fn a_node_goes_to_another_one_and_tells_the_old_one() {
    let scratch = scratch("uplink-rehome-");
    let (old, new) = (Above::start(), Above::start());
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let token = format!("join_token_file = {:?}\n", scratch.path().join("token"));
    let setup = Setup::new(&scratch.path().join("data")).config(&uplink(&old, &token));
    let node = setup.start();
    raise(&node, 0..5);
    agree(&node, &old);
    node.cli_ok(&["site", "rehome", &new.url(), "--token", "other"]);
    wait_until("the old one is told", || old.came().moved.as_deref() == Some(&*new.url()));
    agree(&node, &new);
    assert_eq!(new.came().tokens[0], "other");
    // What was ordered holds as long as the settings do not change.
    drop(node);
    let node = setup.start();
    raise(&node, 5..6);
    agree(&node, &new);
    // Another address in the settings is gone to with SIGHUP; the one that is left is told although the line is gone.
    let third = Above::start();
    let before = new.came().tokens.len();
    harness::write_config(&scratch.path().join("data.toml"), &uplink(&third, &token));
    node.signal(rustix::process::Signal::HUP);
    agree(&node, &third);
    wait_until("the second is told as well", || new.came().moved.as_deref() == Some(&*third.url()));
    assert_eq!(third.came().tokens[0], "t");
    assert!(new.came().tokens.len() <= before + 1);
}

#[test]
fn what_is_ordered_above_is_carried_out_and_said_once_what_it_led_to_has_come() {
    let scratch = scratch("uplink-act-");
    let above = Above::start();
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let token = format!("join_token_file = {:?}\n", scratch.path().join("token"));
    let node = Setup::new(&scratch.path().join("data")).config(&uplink(&above, &token)).start();
    raise(&node, 0..3);
    agree(&node, &above);
    let alarm = *above.came().alarms.keys().next().expect("there are three");
    let id = ActionId(uuid::Uuid::from_u128(77));
    let action = || {
        let action = json!({ "id": id, "actor": "ann@noc", "action": "acknowledge", "alarms": [{ "id": alarm }] });
        Down::Action(serde_json::from_value(action).expect("is one"))
    };
    let live = above.came().live.len();
    above.send(action());
    wait_until("it is acted", || !above.came().acted.is_empty());
    assert_eq!(above.came().acted, [(id, live + 1)], "what it led to came before");
    let shown = node.json(&format!("/alarms/{alarm}"));
    assert_eq!(shown["alarm"]["acknowledged"]["by"], "ann@noc", "{shown}");
    // Again: nothing happens, and it is said again.
    above.send(action());
    wait_until("it is said again", || above.came().acted.len() == 2);
    assert_eq!(above.came().live.len(), live + 1);
}

#[test]
fn an_agent_sends_what_is_reported_and_leaves_the_rest_to_the_site() {
    let scratch = scratch("uplink-agent-");
    let above = Above::start();
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let more = format!("join_token_file = {:?}\nkind = \"agent\"\n", scratch.path().join("token"));
    let small = "[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n";
    let setup = Setup::new(&scratch.path().join("data")).config(&format!("{small}{}", uplink(&above, &more)));
    let node = setup.start();
    raise(&node, 0..40);
    let reported =
        || above.came().events.iter().filter(|placed| !placed.event.resource.as_str().contains("klaxon=node")).count();
    wait_until("all events have come", || reported() == 40);
    // Its own list works, and operators are sent to the site.
    let alarms = node.alarms();
    assert_eq!(alarms.len(), 40);
    let id = alarms[0]["id"].as_str().expect("has one");
    let refused = node.cli(&["alarms", "ack", id]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("at the site"), "{said}");
    // Cut off, it keeps all of it; when there is no more room, nothing more is taken.
    above.cut_now();
    let long = "x".repeat(3000);
    let mut kept = 40;
    wait_until("the journal is full", || {
        let event = json!({ "resource": format!("host=a-{}", kept % 3), "alarm_type": "disk.full", "severity": "major", "text": format!("{kept} {long}") });
        let reply = node.post("/events", &json!([event]).to_string()).expect("answers");
        kept += usize::from(reply.status == 200);
        if reply.status != 200 {
            assert_eq!(reply.status, 507, "{}", reply.body);
            assert!(reply.body.contains("has yet to take"), "{}", reply.body);
        }
        reply.status == 507
    });
    assert!(kept > 200);
    let segments = |node: &Node| std::fs::read_dir(node.data.join("journal")).expect("is there").count();
    assert!(segments(&node) > 1);
    above.cut_after(usize::MAX);
    wait_until("all that was taken has come", || reported() == kept);
    wait_until("there is room again", || {
        let event = json!({ "resource": "host=b", "alarm_type": "disk.full", "severity": "major", "text": "room" });
        node.post("/events", &json!([event]).to_string()).is_ok_and(|reply| reply.status == 200)
    });
    let came = above.came();
    assert!(came.wrong.is_empty(), "{:?}", came.wrong);
    assert!(came.events.is_sorted_by(|one, other| one.position < other.position), "in order, each once");
}

#[test]
fn an_idle_uplink_costs_little_and_a_backlog_too() {
    let scratch = scratch("uplink-bytes-");
    let above = Above::start();
    above.set_heartbeat(2);
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let node = Setup::new(&scratch.path().join("data")).config("[node]\nsite = \"depot-7\"").start();
    raise(&node, 0..3000);
    send(&node, 0..3000, "critical");
    send(&node, 0..1500, "clear");
    send(&node, 500..1500, "minor");
    node.stop();
    let token = format!("join_token_file = {:?}\n", scratch.path().join("token"));
    let node = Setup::new(&scratch.path().join("data")).config(&uplink(&above, &token)).start();
    agree(&node, &above);
    let (changes, bytes, messages) = {
        let came = above.came();
        (came.history.len(), came.history_bytes, came.history_messages)
    };
    println!("backlog: {changes} changes in {messages} messages, {} bytes each", bytes / changes);
    assert!(bytes / changes < 100, "{bytes} bytes of {changes} changes");
    // What is idle: the heartbeat is shorter here, so that it need not be waited for as long.
    wait_until("what was kept is settled", || {
        let sent = || node.json("/uplink/state")["sent_bytes"].as_u64();
        let before = sent();
        std::thread::sleep(Duration::from_millis(1500));
        sent().zip(before).is_some_and(|(now, before)| now - before < 100)
    });
    let total = || {
        let shown = node.json("/uplink/state");
        shown["sent_bytes"].as_u64().zip(shown["received_bytes"].as_u64()).map(|(sent, received)| sent + received)
    };
    let (begun, before) = (Instant::now(), total().expect("is told"));
    wait_until("ten heartbeats", || begun.elapsed() > Duration::from_secs(20));
    let beats = begun.elapsed().as_secs_f64() / 2.0;
    let each = (total().expect("is told") - before) as f64 / beats;
    println!("idle: {each:.1} bytes a heartbeat, {:.0} a minute at 30 s", each * 2.0);
    assert!(each * 2.0 < 200.0 && each > 1.0);
}

#[test]
fn a_node_above_that_is_out_of_reach_or_mute_is_an_alarm_here() {
    let scratch = scratch("uplink-down-");
    let above = Above::start();
    above.set_heartbeat(1);
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let more = format!("join_token_file = {:?}\ndown_after = \"1s\"\n", scratch.path().join("token"));
    let node = Setup::new(&scratch.path().join("data")).config(&uplink(&above, &more)).start();
    wait_until("it is connected", || node.json("/uplink/state")["state"] == "connected");
    above.cut_now();
    let down = || node.alarms().into_iter().find(|alarm| alarm["alarm_type"] == "klaxon.uplink.down");
    wait_until("it is told", || down().is_some_and(|alarm| alarm["cleared"] == false));
    assert!(node.cli_ok(&["uplink"]).contains("disconnected"));
    above.cut_after(usize::MAX);
    wait_until("it is over", || down().is_some_and(|alarm| alarm["cleared"] == true));
    agree(&node, &above);
}
