//! A node and the one above it, when that is not the one that it was: joined anew, left, gone to, or back in time. The node above is
//! played by the test.

mod harness;

use std::collections::BTreeMap;

use harness::above::Above;
use harness::{Node, Setup, scratch, wait_until};
use klaxon_schemas::ids::{ActionId, Epoch, Position};
use klaxon_schemas::wire::v1::PerceivedSeverity;
use klaxon_schemas::wire::v1::uplink::{Down, Refusal};
use serde_json::{Value, json};

const AGENT: &str = "[node]\nsite = \"depot-7\"\n[uplink]\nkind = \"agent\"\nretry_min = \"20ms\"\nretry_max = \"50ms\"\n";
const SITE: &str = "[node]\nsite = \"depot-7\"\n[uplink]\nretry_min = \"20ms\"\nretry_max = \"50ms\"\n";

fn send(node: &Node, numbers: std::ops::Range<u64>, severity: &str) {
    let event =
        |n| json!({ "resource": format!("host=a-{n}"), "alarm_type": "disk.full", "severity": severity, "text": "full" });
    let events: Vec<_> = numbers.map(event).collect();
    node.send(&json!(events));
}

/// What came of the hosts, in order: which, and whether it was raised.
fn came(above: &Above) -> Vec<(u64, bool)> {
    let came = above.came();
    assert!(came.wrong.is_empty(), "{:?}", came.wrong);
    assert!(came.events.is_sorted_by(|one, other| one.position != other.position), "no place twice");
    let host = |resource: &str| resource.strip_prefix("host=a-").and_then(|n| n.parse().ok());
    let told = came.events.iter().filter_map(|placed| {
        let is_raised = placed.event.severity != Some(PerceivedSeverity::Cleared);
        Some((host(placed.event.resource.as_str())?, is_raised))
    });
    told.collect()
}

/// The same by host: what stands is told in any order.
fn in_order(above: &Above) -> Vec<(u64, bool)> {
    let mut all = came(above);
    all.sort_unstable();
    all
}

/// How things stand, to who believes what came.
fn stand(above: &Above) -> Vec<u64> {
    let last: BTreeMap<_, _> = came(above).into_iter().collect();
    last.into_iter().filter(|(_, is_raised)| *is_raised).map(|(n, _)| n).collect()
}

fn state(node: &Node) -> Value {
    node.json("/uplink/state")
}

fn kept(node: &Node) -> Value {
    serde_json::from_slice(&std::fs::read(node.data.join("uplink.json")).expect("is there")).expect("is JSON")
}

fn wait_connected(node: &Node, above: &Above) {
    wait_until("it is connected", || {
        let shown = state(node);
        shown["state"] == "connected" && shown["url"] == above.url() && shown["reached"].is_u64()
    });
}

/// The connection ends, and it comes again.
fn come_again(above: &Above) {
    let before = above.came().hellos.len();
    above.cut_now();
    above.cut_after(usize::MAX);
    wait_until("it comes again", || above.came().hellos.len() > before);
}

#[test]
fn to_a_node_above_that_is_new_an_agent_tells_what_stands_and_then_what_comes() {
    let scratch = scratch("above-new-");
    let (first, second) = (Above::start(), Above::start());
    let node = Setup::new(&scratch.path().join("data")).config(AGENT).start();
    send(&node, 0..10, "major");
    send(&node, 0..4, "cleared");
    node.cli_ok(&["join", &first.url(), "--token", "t"]);
    let standing = |numbers: std::ops::Range<u64>| numbers.map(|n| (n, true)).collect::<Vec<_>>();
    wait_until("what stands has come", || came(&first).len() >= 6);
    send(&node, 10..12, "major");
    wait_until("and what is new", || came(&first).len() >= 8);
    assert_eq!(in_order(&first), standing(4..12), "and nothing that is over");
    // While it is away, nothing is left out.
    first.cut_now();
    send(&node, 20..22, "major");
    send(&node, 20..21, "cleared");
    first.cut_after(usize::MAX);
    wait_until("all has come", || came(&first).len() >= 11);
    assert_eq!(came(&first)[8..], [(20, true), (21, true), (20, false)]);
    // Another one: it knows nothing.
    node.cli_ok(&["site", "rehome", &second.url(), "--token", "t2"]);
    wait_until("what stands has come there", || came(&second).len() >= 9);
    send(&node, 30..31, "major");
    wait_until("and what is new", || came(&second).len() >= 10);
    assert_eq!(in_order(&second), [standing(4..12), standing(21..22), standing(30..31)].concat());
    assert_eq!(first.came().moved.as_deref(), Some(&*second.url()));
}

#[test]
fn a_node_above_that_went_back_in_time_is_told_what_stands_and_what_it_never_had() {
    let scratch = scratch("above-back-");
    let above = Above::start();
    let setup = Setup::new(&scratch.path().join("data")).config(AGENT);
    let node = setup.start();
    node.cli_ok(&["join", &above.url(), "--token", "t"]);
    wait_connected(&node, &above);
    send(&node, 0..6, "major");
    wait_until("all have come", || stand(&above).len() == 6);
    let early = above.came().reached.clone();
    send(&node, 0..3, "cleared");
    send(&node, 6..8, "major");
    send(&node, 6..7, "cleared");
    wait_until("all have come", || stand(&above) == [3, 4, 5, 7]);
    wait_until("that is kept", || state(&node)["lag_records"] == 0);
    above.cut_now();
    // It is as it was when six alarms stood; and meanwhile something comes and goes that it never had.
    {
        let mut came = above.came();
        came.reached = early;
        came.events.retain(|placed| placed.event.severity != Some(PerceivedSeverity::Cleared));
        came.events.retain(|placed| !["host=a-6", "host=a-7"].contains(&placed.event.resource.as_str()));
    }
    send(&node, 8..10, "major");
    send(&node, 8..9, "cleared");
    let before = came(&above).len();
    above.cut_after(usize::MAX);
    wait_until("what it was never told is", || came(&above)[before..].ends_with(&[(8, true), (9, true), (8, false)]));
    assert_eq!(stand(&above), [3, 4, 5, 7, 9]);
    let told = &came(&above)[before..];
    assert!(!told.contains(&(6, true)), "it was paged before: {told:?}");
    wait_until("all of it was told", || kept(&node)["standing_upto"].is_null());
}

#[test]
fn a_first_meeting_that_is_cut_anywhere_loses_nothing_that_came_meanwhile() {
    let scratch = scratch("above-cut-");
    let above = Above::start();
    let setup = Setup::new(&scratch.path().join("data")).config(AGENT);
    let node = setup.start();
    send(&node, 0..10, "major");
    send(&node, 0..5, "cleared");
    // It is welcome, and that is all.
    above.cut_after(1);
    node.cli_ok(&["join", &above.url(), "--token", "t"]);
    wait_until("it is decided what is told as it stands", || kept(&node)["standing_upto"].is_u64());
    send(&node, 50..51, "major");
    send(&node, 50..51, "cleared");
    send(&node, 9..10, "cleared");
    // This one stands when what stands is told, and was raised behind that: its event tells it.
    send(&node, 70..71, "major");
    node.kill();
    let node = setup.start();
    let before = above.came().hellos.len();
    wait_until("it comes again", || above.came().hellos.len() > before);
    above.cut_after(usize::MAX);
    wait_until("all has come", || stand(&above) == [5, 6, 7, 8, 70] && came(&above).ends_with(&[(70, true)]));
    let told = came(&above);
    assert_eq!(told.iter().filter(|one| **one == (70, true)).count(), 1, "{told:?}");
    assert!(told.contains(&(50, true)) && told.contains(&(50, false)), "{told:?}");
    assert!(!told.contains(&(0, true)), "{told:?}");
    wait_until("all of it was told", || kept(&node)["standing_upto"].is_null());
    // What it has taken is told once.
    let count = told.len();
    come_again(&above);
    send(&node, 60..61, "major");
    wait_until("what is new comes", || came(&above).len() > count);
    assert_eq!(came(&above).len(), count + 1);
}

#[test]
fn a_node_stays_where_it_is_until_another_one_has_let_it_in() {
    let scratch = scratch("above-stay-");
    let (old, new) = (Above::start(), Above::start());
    let setup = Setup::new(&scratch.path().join("data")).config(SITE);
    let node = setup.start();
    node.cli_ok(&["join", &old.url(), "--token", "t"]);
    wait_until("it is connected", || state(&node)["state"] == "connected");
    let refused = |url: &str| {
        let refused = node.cli(&["site", "rehome", url, "--token", "other"]);
        assert!(!refused.status.success());
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    // Nobody is there; one says no; one does not know the token.
    let nobody = refused("http://127.0.0.1:1");
    assert!(nobody.contains("stays above") && nobody.contains(&old.url()) && nobody.contains("cannot connect"), "{nobody}");
    let reason = "it was retired".to_owned();
    new.instead_of_welcome(Down::Refused { reason, code: Refusal::Gone, retry_after_s: 1 });
    let gone = refused(&new.url());
    assert!(gone.contains("stays above") && gone.contains("retired"), "{gone}");
    new.make_void("other");
    let denied = refused(&new.url());
    assert!(denied.contains("stays above") && denied.contains("does not let this node in"), "{denied}");
    // All is as it was, also after a restart.
    send(&node, 0..1, "major");
    wait_until("it comes to the old one", || !old.came().alarms.is_empty());
    drop(node);
    let node = setup.start();
    send(&node, 1..2, "major");
    wait_until("it comes to the old one", || old.came().alarms.len() >= 2);
    assert_eq!((old.came().moved.clone(), kept(&node)["credential"].clone()), (None, json!("first-credential")));
    // The other one takes its time to say yes: a new token.
    let done = node.cli_ok(&["site", "rehome", &new.url(), "--token", "good"]);
    assert!(done.contains("is above now"), "{done}");
    wait_until("the old one is told", || old.came().moved.as_deref() == Some(&*new.url()));
    wait_until("all is at the new one", || new.came().alarms.len() >= 2);
    assert_eq!(new.came().tokens, ["other", "good", "first-credential"], "by what it was given when it was asked");
    wait_until("that is over", || kept(&node)["leaving"].is_null());
}

#[test]
fn settings_that_name_another_node_can_be_taken_back_and_who_is_left_begins_no_numbering() {
    let scratch = scratch("above-settings-");
    let (old, new) = (Above::start(), Above::start());
    std::fs::write(scratch.path().join("token"), "t").expect("is written");
    let more = format!("join_token_file = {:?}\n", scratch.path().join("token"));
    let config = |above: &Above| format!("{SITE}{more}url = \"{}\"\n", above.url());
    let node = Setup::new(&scratch.path().join("data")).config(&config(&old)).start();
    wait_until("it is connected", || state(&node)["state"] == "connected");
    let go = |config: &str| {
        harness::write_config(&scratch.path().join("data.toml"), config);
        node.signal(rustix::process::Signal::HUP);
    };
    new.make_void("t");
    go(&config(&new));
    wait_until("it is not let in", || {
        let shown = state(&node);
        shown["url"] == new.url() && shown["last_error"].to_string().contains("does not let this node in")
    });
    let before = old.came().hellos.len();
    go(&config(&old));
    wait_until("it is back", || old.came().hellos.len() > before);
    assert_eq!(old.came().tokens.last().map(String::as_str), Some("first-credential"));
    assert_eq!(old.came().moved, None);
    // Now there is a token that is taken; who is left wants other numbers.
    std::fs::write(scratch.path().join("token"), "t2").expect("is written");
    wait_until("it is connected", || state(&node)["state"] == "connected");
    old.instead_of_welcome(Down::BeginEpoch { beyond: Epoch(1 << 50) });
    go(&config(&new));
    wait_until("it is let in", || state(&node)["state"] == "connected" && state(&node)["url"] == new.url());
    wait_until("the old one needs to be told no more", || kept(&node)["leaving"].is_null());
    send(&node, 0..3, "major");
    wait_until("it is told", || new.came().live.len() >= 3);
    let came = new.came();
    let epochs: Vec<_> = came.hellos.iter().map(|hello| hello.epoch).collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0] && epoch.0 < 1 << 50), "{epochs:?}");
    assert!(came.wrong.is_empty(), "{:?}", came.wrong);
}

#[test]
fn a_token_that_is_not_taken_costs_no_credential() {
    let scratch = scratch("above-token-");
    let above = Above::start();
    let node = Setup::new(&scratch.path().join("data")).config(SITE).start();
    node.cli_ok(&["join", &above.url(), "--token", "t"]);
    wait_until("what proves it is kept", || kept(&node)["credential"] == "first-credential");
    // The same node, anew, with a token that is used up: what proved it goes on doing so.
    above.make_void("used");
    node.cli_ok(&["join", &above.url(), "--token", "used"]);
    wait_until("it comes again", || above.came().hellos.len() == 2);
    assert_eq!(above.came().tokens, ["t", "first-credential"]);
    wait_until("that token is forgotten", || kept(&node)["join_token"].is_null());
    // With one that is good it comes at once, and is given another credential.
    above.give("third");
    node.cli_ok(&["join", &above.url(), "--token", "good"]);
    wait_until("it comes again", || above.came().hellos.len() == 3);
    wait_until("the new one is kept", || kept(&node)["credential"] == "third");
    assert_eq!(above.came().tokens[2], "good");
    // A rotation that the node above forgets: what was before is tried as well, and what is taken counts.
    above.send(Down::Credential { token: "fourth".to_owned() });
    wait_until("it is rotated", || above.came().rotated == 1);
    above.make_void("fourth");
    come_again(&above);
    assert_eq!(above.came().tokens.last().map(String::as_str), Some("third"));
    wait_until("that one counts", || kept(&node)["credential"] == "third");
}

/// What is kept afterwards is of a node that was let in.
fn join_and_stop(setup: &Setup, above: &Above) {
    let node = setup.start();
    node.cli_ok(&["join", &above.url(), "--token", "t"]);
    wait_until("it is connected", || state(&node)["state"] == "connected");
    node.stop();
}

#[test]
fn a_damaged_file_of_the_node_above_stops_nothing_else() {
    let scratch = scratch("above-damaged-");
    let above = Above::start();
    let setup = Setup::new(&scratch.path().join("data")).config(SITE);
    join_and_stop(&setup, &above);
    let file = scratch.path().join("data/uplink.json");
    std::fs::write(&file, "{\"format\":1,\"url\"").expect("is written");
    let node = setup.start();
    send(&node, 0..2, "major");
    let down = || node.alarms().into_iter().find(|alarm| alarm["alarm_type"] == "klaxon.uplink.down");
    wait_until("it is an alarm", || down().is_some_and(|alarm| alarm["text"].to_string().contains("uplink.json")));
    assert!(node.alarms().len() >= 3);
    let shown = node.cli_ok(&["uplink"]);
    assert!(shown.contains("uplink.json") && shown.contains("disconnected"), "{shown}");
    assert!(std::fs::read_to_string(&file).expect("is there").ends_with("\"url\""), "nobody touches it");
    node.cli_ok(&["join", &above.url(), "--token", "again"]);
    wait_until("it is connected", || state(&node)["state"] == "connected");
    wait_until("it is over", || down().is_some_and(|alarm| alarm["cleared"] == true));
}

#[test]
fn a_file_that_can_be_read_again_brings_the_uplink_up_without_a_restart() {
    let scratch = scratch("above-mended-");
    let above = Above::start();
    let setup = Setup::new(&scratch.path().join("data")).config(SITE);
    join_and_stop(&setup, &above);
    let (file, aside) = (scratch.path().join("data/uplink.json"), scratch.path().join("aside"));
    std::fs::rename(&file, &aside).expect("is moved");
    std::fs::create_dir(&file).expect("is in the way");
    let node = setup.start();
    let down = || node.alarms().into_iter().find(|alarm| alarm["alarm_type"] == "klaxon.uplink.down");
    wait_until("it is an alarm", || down().is_some_and(|alarm| alarm["text"].to_string().contains("uplink.json")));
    let shown = state(&node);
    assert!(shown["last_error"].to_string().contains("cannot read") && shown["last_error_at"].is_string(), "{shown}");
    std::fs::remove_dir(&file).expect("is removed");
    std::fs::rename(&aside, &file).expect("is moved back");
    wait_until("it is connected", || state(&node)["state"] == "connected");
    wait_until("it is over", || down().is_some_and(|alarm| alarm["cleared"] == true));
    let came = above.came().tokens.clone();
    assert!(came[0] == "t" && came[1..].iter().all(|token| token == "first-credential"), "{came:?}");
}

#[test]
fn a_token_of_another_node_costs_no_credential() {
    let scratch = scratch("above-mismatch-");
    let above = Above::start();
    let node = Setup::new(&scratch.path().join("data")).config(SITE).start();
    node.cli_ok(&["join", &above.url(), "--token", "t"]);
    wait_until("it is connected", || above.came().hellos.len() == 1);
    let reason = "site: it says depot-7, and should be depot-8".to_owned();
    above.instead_of_welcome(Down::Refused { reason, code: Refusal::Mismatch, retry_after_s: 60 });
    node.cli_ok(&["join", &above.url(), "--token", "of-another"]);
    wait_until("it comes again", || above.came().hellos.len() == 3);
    assert_eq!(above.came().tokens, ["t", "of-another", "first-credential"]);
    wait_until("it is connected", || state(&node)["state"] == "connected");
    assert!(kept(&node)["join_token"].is_null(), "that token is forgotten");
    let shown = node.cli_ok(&["uplink"]);
    assert!(shown.contains("should be depot-8"), "who ordered it sees why: {shown}");
}

#[test]
fn a_node_above_that_is_mute_holds_up_no_order() {
    let scratch = scratch("above-mute-");
    let (old, new) = (Above::start(), Above::start());
    let node = Setup::new(&scratch.path().join("data")).config(SITE).start();
    node.cli_ok(&["join", &old.url(), "--token", "t"]);
    wait_connected(&node, &old);
    old.instead_json(json!({ "m": "something-newer" }));
    come_again(&old);
    // It waits for its welcome. The same node is said to be somewhere else, and takes what it gave.
    new.came().reached = old.came().reached.clone();
    let begun = std::time::Instant::now();
    let done = node.cli_ok(&["site", "rehome", &new.url()]);
    assert!(done.contains("is where the node above is"), "{done}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it took {:?}", begun.elapsed());
    wait_connected(&node, &new);
    assert_eq!(new.came().tokens, ["first-credential"; 2], "asked once, and gone on with");
    assert_eq!((old.came().moved.clone(), kept(&node)["leaving"].clone()), (None, Value::Null));
    let epochs: Vec<_> = old.came().hellos.iter().chain(&new.came().hellos).map(|hello| hello.epoch).collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
}

#[test]
fn a_node_that_leaves_has_no_parent_and_its_journal_is_kept_for_nobody() {
    let scratch = scratch("above-leave-");
    let above = Above::start();
    let small = "[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n";
    let setup = Setup::new(&scratch.path().join("data")).config(&format!("{small}{AGENT}"));
    let node = setup.start();
    let refused = node.cli(&["site", "leave"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no node is above"));
    node.cli_ok(&["join", &above.url(), "--token", "t"]);
    send(&node, 0..3, "major");
    wait_until("all has come", || stand(&above).len() == 3);
    // What is ordered above is no agent's, and is not said to be done.
    let alarm = node.alarms()[0]["id"].clone();
    let id = ActionId(uuid::Uuid::from_u128(78));
    let action = json!({ "id": id, "actor": "ann@noc", "action": "acknowledge", "alarms": [{ "id": alarm }] });
    above.send(Down::Action(serde_json::from_value(action).expect("is one")));
    wait_until("it is refused", || node.log_text().contains("an action of the node above is not taken"));
    send(&node, 3..4, "major");
    wait_until("all has come", || stand(&above).len() == 4);
    assert!(above.came().acted.is_empty());
    node.cli_ok(&["site", "leave"]);
    wait_until("it is told", || above.came().moved.as_deref() == Some("nowhere"));
    wait_until("it is over", || state(&node)["state"] == "off" && !above.is_connected());
    assert!(node.cli_ok(&["uplink"]).contains("No node is above"));
    let hellos = above.came().hellos.len();
    drop(node);
    let node = setup.start();
    // More than there is room for: it goes as if there had never been a node above.
    let long = "x".repeat(3000);
    for n in 0..1500 {
        let event = json!({ "resource": format!("host=b-{}", n % 3), "alarm_type": "disk.full", "severity": "major", "text": format!("{n} {long}") });
        node.send(&json!([event]));
    }
    wait_until("the beginning is gone", || {
        let names = std::fs::read_dir(node.data.join("journal")).expect("is there");
        !names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).any(|name| name.contains("0000000000000001."))
    });
    assert_eq!((above.came().hellos.len(), state(&node)["state"].clone()), (hellos, json!("off")));
    // It may join again: what stands is told.
    let before = above.came().events.len();
    let reached = above.came().reached.take();
    assert!(reached.is_some_and(|reached| reached.position > Position(0)));
    node.cli_ok(&["join", &above.url(), "--token", "t2"]);
    wait_until("what stands is told", || above.came().events.len() >= before + 7);
}

#[test]
fn a_node_that_does_not_run_is_told_to_join_by_whoever_may_and_one_that_runs_is_not() {
    let scratch = scratch("above-offline-");
    let above = Above::start();
    let data = scratch.path().join("data");
    std::fs::create_dir(&data).expect("can be made");
    let dir = data.to_str().expect("is text");
    // As root, for the service's user, whose folder it is.
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(&data, Some(4321), Some(4322)).expect("may be given away");
    }
    let join = |token: &str| {
        let told = harness::klaxon().args(["join", &above.url(), "--token", token, "--data", dir]).output().expect("runs");
        (told.status.success(), String::from_utf8_lossy(&told.stderr).into_owned())
    };
    assert_eq!(join("t"), (true, String::new()));
    for name in std::fs::read_dir(&data).expect("is there") {
        let path = name.expect("is read").path();
        let made = std::fs::metadata(&path).expect("is there");
        let owner = (std::os::unix::fs::MetadataExt::uid(&made), std::os::unix::fs::MetadataExt::gid(&made));
        assert!(!is_root || owner == (4321, 4322), "{} is of {owner:?}", path.display());
    }
    let setup = Setup::new(&data).config(SITE);
    let node = setup.start();
    wait_until("it is let in", || kept(&node)["credential"] == "first-credential");
    // One that runs without its socket runs all the same.
    std::fs::remove_file(data.join("klaxon.sock")).expect("is there");
    let (is_taken, said) = join("t2");
    assert!(!is_taken && said.contains("a node runs on"), "{said}");
    node.kill();
    // The credential holds until the new token was taken.
    assert!(join("t2").0);
    let kept: Value = serde_json::from_slice(&std::fs::read(data.join("uplink.json")).expect("is there")).expect("is JSON");
    assert_eq!((&kept["credential"], &kept["join_token"]), (&json!("first-credential"), &json!("t2")));
}
