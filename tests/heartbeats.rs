//! Programs that promise to be heard from, as they meet a node: by HTTP as a crontab would, by events, and at a shell.

mod harness;

use std::sync::atomic::{AtomicBool, Ordering};

use harness::http::Wire;
use harness::{Node, Reply, Setup, Site, scratch, wait_until};
use serde_json::{Value, json};

fn wire(node: &Node, method: &str, path: &str, body: Option<&str>) -> Reply {
    let path = format!("/api/v1/heartbeats{path}");
    let headers: &[(&str, &str)] = if body.is_some() { &[("content-type", "application/json")] } else { &[] };
    node.wire(&Wire { method, path: &path, headers, body: body.unwrap_or_default().as_bytes() })
}

/// As [`wire`], where nothing else than success will do.
fn ok(node: &Node, method: &str, path: &str, body: Option<&str>) -> Value {
    let reply = wire(node, method, path, body);
    assert_eq!(reply.status, 200, "{method} {path}: {}", reply.body);
    reply.json()
}

fn names(list: &Value) -> Vec<&str> {
    list["heartbeats"].as_array().expect("is a list").iter().map(|beat| beat["name"].as_str().unwrap_or("-")).collect()
}

fn kinds(node: &Node, resource: &str) -> Vec<String> {
    let page = node.json(&format!("/history?order=asc&resource={resource}"));
    let changes = page["changes"].as_array().expect("is a list");
    changes.iter().map(|change| change["kind"].as_str().expect("is a word").to_owned()).collect()
}

/// The metric `name`, with its labels.
fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("//metrics").expect("it answers").body;
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("{name} is missing"))
        .rsplit(' ')
        .next()
        .and_then(|value| value.parse().ok())
        .expect("a number")
}

#[test]
fn a_crontab_needs_one_line_and_silence_is_an_alarm() {
    let site = Site::start("");
    let began = ok(&site, "POST", "/backup?every=25h&severity=minor&text=the%20nightly%20one", None);
    assert_eq!((&began["change"], &began["heartbeat"]["every_s"]), (&json!("logged"), &json!(90_000)), "{began}");
    let again = ok(&site, "POST", "/backup?every=90000&severity=minor", None);
    assert_eq!(again["change"], Value::Null, "{again}");
    assert_eq!(kinds(&site, "heartbeat%3Dbackup"), ["logged"], "what is kept changes nothing");

    // A body says the same, and both together what neither says alone.
    ok(&site, "POST", "/short", Some(r#"{"every":1,"text":"soon gone"}"#));
    ok(&site, "POST", "/mixed%20name?every=5m", Some(r#"{"severity":"critical"}"#));
    wait_until("silence is an alarm", || !site.json("/alarms")["alarms"][0].is_null());
    let alarm = site.json("/alarms")["alarms"][0].clone();
    assert_eq!((&alarm["resource"], &alarm["alarm_type"]), (&json!("heartbeat=short"), &json!("heartbeat.lost")));
    assert_eq!((&alarm["severity"], &alarm["catalogued"]), (&json!("major"), &json!(true)));
    let text = alarm["text"].as_str().expect("says something");
    assert!(text.starts_with("No heartbeat within 1s, the last came at ") && text.ends_with(": soon gone"), "{text}");
    let why = site.json(&format!("/alarms/{}/why", alarm["id"].as_str().expect("has an id")));
    let because = why["changes"][0]["because"].to_string();
    assert!(because.contains("did not keep its promise"), "{because}");

    let list = site.json("/heartbeats");
    assert_eq!(names(&list), ["backup", "mixed name", "short"], "{list}");
    assert_eq!((&list["total"], &list["lost"]), (&json!(3), &json!(1)));
    let lost = &list["heartbeats"][2];
    assert_eq!((&lost["lost"], &lost["due_at"], &lost["site"]), (&json!(true), &Value::Null, &json!("local")), "{lost}");
    assert!(lost["lost_at"].as_str() > lost["last_heard_at"].as_str(), "{lost}");
    let kept = ok(&site, "GET", "/backup", None);
    assert_eq!((&kept["lost"], &kept["severity"]), (&json!(false), &json!("minor")), "{kept}");
    let time = |name: &str| kept[name].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok()).expect("is a time");
    let away = time("due_at").as_second() - time("last_heard_at").as_second();
    assert!((89_999..=90_001).contains(&away), "the due time is the last one and the lease: {kept}");
    assert_eq!(names(&site.json("/heartbeats?lost=true")), ["short"]);
    assert_eq!(names(&site.json("/heartbeats?lost=false")), ["backup", "mixed name"]);
    assert_eq!(names(&site.json("/heartbeats?site=elsewhere")), [""; 0]);

    let heard = ok(&site, "POST", "/short?every=1h", None);
    assert_eq!((&heard["change"], &heard["alarm"]), (&json!("cleared"), &alarm["id"]), "{heard}");
    assert_eq!(site.json("/alarms")["alarms"], json!([]));
    assert_eq!(metric(&site, "klaxon_heartbeats"), 3);

    let ended = ok(&site, "DELETE", "/short", None);
    assert_eq!((&ended["change"], &ended["heartbeat"]), (&json!("logged"), &Value::Null), "{ended}");
    assert_eq!(wire(&site, "DELETE", "/short", None).status, 404);
    assert_eq!(wire(&site, "GET", "/short", None).status, 404);
    assert_eq!(names(&site.json("/heartbeats")), ["backup", "mixed name"]);
}

#[test]
fn an_event_is_a_heartbeat_of_any_resource_and_type() {
    let site = Site::start("");
    let beat = |resource: &str, alarm_type: &str| json!({"kind": "heartbeat", "resource": resource, "alarm_type": alarm_type, "lease_s": 3600, "site": "north"});
    let mut numbered = beat("host=a.job=sync", "backup.overdue");
    numbered["producer"] = json!("p");
    numbered["epoch"] = json!(1);
    numbered["seq"] = json!(1);
    let sent = site.send(&json!([beat("heartbeat=b", "heartbeat.lost"), numbered, numbered]));
    assert_eq!((&sent["accepted"], &sent["duplicate"]), (&json!(2), &json!(1)), "{sent}");
    let list = site.json("/heartbeats");
    assert_eq!(names(&list), ["b", "-"], "{list}");
    assert_eq!(list["heartbeats"][1]["alarm_type"], "backup.overdue");
    assert_eq!(wire(&site, "GET", "/b", None).status, 404, "it is of another site");
    ok(&site, "GET", "/b?site=north", None);
    let clear = json!({"resource": "host=a.job=sync", "alarm_type": "backup.overdue", "severity": "cleared", "site": "north"});
    assert_eq!(site.send(&clear)["results"][0]["change"], "logged");
    assert_eq!(names(&site.json("/heartbeats")), ["b"]);
    ok(&site, "DELETE", "/b?site=north", None);
    assert_eq!(site.json("/heartbeats")["total"], 0);
}

#[test]
fn what_cannot_be_is_refused_by_name_and_counted() {
    let site = Site::start("[engine]\nheartbeats_max = 2");
    let long = "x".repeat(2000);
    let cases: [(&str, Option<&str>, u16, &str); 13] = [
        ("/a", None, 400, "every"),
        ("/a", Some("{}"), 400, "every"),
        ("/a?every=0", None, 400, "every"),
        ("/a?every=5y", None, 400, "every"),
        ("/a?every=400d", None, 400, "every"),
        ("/a?every=5m&every=6m", None, 400, "every"),
        ("/a?every=5m&severity=cleared", None, 400, "severity"),
        ("/a?every=5m&site=a%20b", None, 400, "site"),
        ("/a?every=5m&text=%00", None, 400, "text"),
        ("/a?evry=5m", None, 400, "evry"),
        ("/a?every=5m", Some(r#"{"every":"5m"}"#), 422, "every"),
        ("/a", Some(r#"{"every":"5m","lease_s":3}"#), 422, "lease_s"),
        (&format!("/{long}?every=5m"), None, 400, "name"),
    ];
    let before = metric(&site, r#"klaxon_door_events_rejected_total{door="http",reason="invalid"}"#);
    for (path, body, status, field) in cases {
        let reply = wire(&site, "POST", path, body);
        let problem = reply.json();
        assert_eq!((reply.status, &problem["errors"][0]["field"]), (status, &json!(field)), "{path} {body:?}: {problem}");
        assert!(problem["errors"][0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
    let after = metric(&site, r#"klaxon_door_events_rejected_total{door="http",reason="invalid"}"#);
    assert_eq!(after - before, 12, "each counts once, but what names nobody");
    assert_eq!(wire(&site, "POST", "/a", Some("[")).status, 400);
    assert_eq!(wire(&site, "POST", "/a", Some("[]")).status, 422);
    assert_eq!(wire(&site, "PUT", "/a", None).status, 405);
    for path in ["?limit=0", "?lost=perhaps", "?cursor=abc", "?nonsense=1"] {
        assert_eq!(wire(&site, "GET", path, None).status, 400, "{path}");
    }
    assert_eq!(site.json("/heartbeats")["total"], 0);

    ok(&site, "POST", "/a?every=5m", None);
    ok(&site, "POST", "/b?every=5m", None);
    let refused = wire(&site, "POST", "/c?every=5m", None);
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("heartbeat limit reached: 2"), "{}", refused.body);
    ok(&site, "POST", "/b?every=5m", None);
    assert_eq!(metric(&site, r#"klaxon_door_events_rejected_total{door="http",reason="heartbeat_limit"}"#), 1);
    let told = || site.json("/alarms?alarm_type=klaxon.heartbeat-limit")["alarms"].as_array().map_or(0, Vec::len);
    wait_until("the limit is told", || told() == 1);
    ok(&site, "DELETE", "/a", None);
    wait_until("there is room again", || told() == 0);
    ok(&site, "POST", "/c?every=5m", None);
}

#[test]
fn a_long_list_comes_in_pages() {
    let site = Site::start("");
    let beats: Vec<Value> = (0..250)
        .map(|n| {
            json!({"kind": "heartbeat", "resource": format!("heartbeat=n{n:03}"), "alarm_type": "heartbeat.lost", "lease_s": 3600})
        })
        .collect();
    site.send(&json!(beats));
    let mut seen = Vec::new();
    let mut path = "/heartbeats?limit=100".to_owned();
    loop {
        let page = site.json(&path);
        seen.extend(names(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/heartbeats?limit=100&cursor={next}");
    }
    assert_eq!(seen, (0..250).map(|n| format!("n{n:03}")).collect::<Vec<_>>());
    let shown = site.cli_ok(&["heartbeats", "--all"]);
    assert_eq!(shown.lines().count(), 251, "{shown}");
}

#[test]
fn promises_survive_a_kill_and_their_leases_begin_anew() {
    let scratch = scratch("promises-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    ok(&node, "POST", "/gone?every=1", None);
    ok(&node, "POST", "/soon?every=4", None);
    ok(&node, "POST", "/there?every=1h&text=stays", None);
    ok(&node, "POST", "/ended?every=1h", None);
    ok(&node, "DELETE", "/ended", None);
    wait_until("one is silent", || kinds(&node, "heartbeat%3Dgone") == ["logged", "raised"]);
    let before = node.json("/heartbeats");
    node.kill();
    let node = setup.start();
    let after = node.json("/heartbeats");
    assert_eq!(names(&after), ["gone", "soon", "there"], "{after}");
    for (before, after) in
        before["heartbeats"].as_array().expect("a list").iter().zip(after["heartbeats"].as_array().expect("a list"))
    {
        for what in ["every_s", "last_heard_at", "text", "lost_at"] {
            assert_eq!(before[what], after[what], "{after}");
        }
        assert!(after["lost"] == true || after["due_at"].as_str() > before["due_at"].as_str(), "it is due later: {after}");
    }
    wait_until("the other is silent", || kinds(&node, "heartbeat%3Dsoon") == ["logged", "raised"]);
    assert_eq!(kinds(&node, "heartbeat%3Dgone"), ["logged", "raised"], "nothing is told twice");
    // Also what was heard and told of just before.
    let heard = ok(&node, "POST", "/soon?every=1h", None);
    assert_eq!(heard["change"], "cleared", "{heard}");
    node.kill();
    let node = setup.start();
    assert_eq!(node.json("/alarms")["alarms"].as_array().map(Vec::len), Some(1));
    assert_eq!(names(&node.json("/heartbeats?lost=true")), ["gone"]);
    harness::oracle::check_numbers(&node.history());
    assert!(node.stop().success());
}

#[test]
fn at_a_shell_it_is_one_word() {
    let site = Site::start("");
    assert_eq!(site.cli_ok(&["heartbeat", "a b/c", "--every", "5m", "--text", "the job"]), "a b/c is watched: every 5m\n");
    assert_eq!(site.cli_ok(&["heartbeat", "a b/c", "--every", "5m"]), "", "a crontab mails what is said");
    assert_eq!(site.cli_ok(&["heartbeat", "a b/c", "--every", "1s", "--severity", "critical"]), "a b/c is watched: every 1s\n");
    wait_until("silence is an alarm", || !site.json("/alarms")["alarms"][0].is_null());
    let table = site.cli_ok(&["heartbeats"]);
    let row = table.lines().nth(1).expect("has a row");
    assert!(row.starts_with("lost ") && row.contains(" 1s ") && row.contains("a b/c  critical"), "{table}");
    let alarms = site.cli_ok(&["alarms"]);
    assert!(alarms.contains("heartbeat=a b/c  heartbeat.lost"), "{alarms}");
    let heard = site.cli_ok(&["heartbeat", "a b/c", "--every", "1h"]);
    assert!(heard.starts_with("cleared  ") && heard.ends_with("  a b/c is heard from again\n"), "{heard}");
    let json: Value = serde_json::from_str(&site.cli_ok(&["--json", "heartbeats"])).expect("is JSON");
    assert_eq!(names(&json), ["a b/c"]);
    assert_eq!(site.cli_ok(&["heartbeat", "a b/c", "--end"]), "a b/c is not watched any more\n");
    let again = site.cli(&["heartbeat", "a b/c", "--end"]);
    assert_eq!(again.status.code(), Some(4), "there is no such thing");
    assert_eq!(site.cli(&["heartbeat", "a", "--every", "soon"]).status.code(), Some(2));
}

#[test]
fn under_pressure_too_a_promise_is_there_once_it_is_answered() {
    let site = Site::start("");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reporter in 0..3 {
            let (node, stop): (&Node, _) = (&site, &stop);
            scope.spawn(move || {
                let sent: Vec<Value> = (0..2000)
                    .map(|n| json!({"resource": format!("host=r{reporter}-{n}"), "alarm_type": "x", "severity": "major"}))
                    .collect();
                while !stop.load(Ordering::Relaxed) {
                    node.send(&json!(sent));
                }
            });
        }
        let _ends = Ends(&stop);
        for n in 0..20 {
            let began = ok(&site, "POST", &format!("/b{n}?every=1h"), None);
            assert_eq!(began["heartbeat"]["every_s"], 3600, "{began}");
            let ended = ok(&site, "DELETE", &format!("/b{n}"), None);
            assert_eq!(ended["change"], "logged", "{ended}");
        }
    });
}

/// Tells the others to stop, also if a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
