//! Alertmanager's API: a real Prometheus sends its alerts here, amtool lists and silences, and a real Alertmanager is asked the same.

mod harness;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use harness::alertmanager::{Alertmanager, amtool, program, shape};
use harness::prometheus::Prometheus;
use harness::{Chance, Node, Reply, Setup, Site, is_there, scratch, wait_until};
use serde_json::{Value, json};

/// A time from now on, as clients write it.
fn later(seconds: i64) -> String {
    let now = jiff_now() + i128::from(seconds) * 1_000_000_000;
    klaxon_schemas::time::Timestamp::from_micros(i64::try_from(now / 1000).expect("near")).expect("near").to_string()
}

fn jiff_now() -> i128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i128::try_from(since.as_nanos()).expect("near")
}

/// What is posted as an alert.
fn alert(labels: &Value) -> Value {
    json!([{ "labels": labels }])
}

/// Posts alerts, where nothing but success will do.
fn post(node: &Node, alerts: &Value) {
    let reply = node.post("//api/v2/alerts", &alerts.to_string()).expect("the node answers");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{alerts}");
}

/// The alerts of a node that a query asks for.
fn alerts(node: &Node, query: &str) -> Vec<Value> {
    let Value::Array(alerts) = node.json(&format!("//api/v2/alerts{query}")) else { panic!("is no list") };
    alerts
}

/// A request as somebody with a token.
struct As<'a> {
    base: &'a str,
    token: &'a str,
}

impl As<'_> {
    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let (agent, url) = (harness::agent(), format!("{}{path}", self.base));
        let bearer = format!("Bearer {}", self.token);
        let mut reply = match (method, body) {
            ("POST", Some(body)) => {
                let request = agent.post(url).header("authorization", bearer).content_type("application/json");
                request.send(body.to_string())
            }
            ("DELETE", _) => agent.delete(url).header("authorization", bearer).call(),
            _ => agent.get(url).header("authorization", bearer).call(),
        }
        .expect("it answers");
        let status = reply.status().as_u16();
        Reply { status, body: reply.body_mut().read_to_string().expect("is text") }
    }

    /// Puts a silence up, or changes one; its id.
    fn silence(&self, silence: &Value) -> String {
        let reply = self.send("POST", "/api/v2/silences", Some(silence));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["silenceID"].as_str().expect("is told").to_owned()
    }

    fn show(&self, id: &str) -> Value {
        let reply = self.send("GET", &format!("/api/v2/silence/{id}"), None);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }
}

/// A token of a role, perhaps limited to a site.
fn token(node: &Node, name: &str, role: &str, site: Option<&str>) -> String {
    let mut args = vec!["token", "create", name, "--role", role];
    args.extend(site.into_iter().flat_map(|site| ["--site", site]));
    node.cli_ok(&args).trim().to_owned()
}

/// What amtool reads to be known by a token.
fn known(dir: &Path, token: &str) -> PathBuf {
    let file = dir.join("http.yml");
    std::fs::write(&file, format!("authorization: {{type: Bearer, credentials: '{token}'}}\n")).expect("can be written");
    file
}

fn matcher(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value, "isRegex": false, "isEqual": true })
}

fn silence(matchers: &[Value], starts_in: i64, ends_in: i64) -> Value {
    json!({
        "matchers": matchers,
        "startsAt": later(starts_in),
        "endsAt": later(ends_in),
        "createdBy": "ann",
        "comment": "moving house",
    })
}

/// Something that Prometheus scrapes: a number that the test sets.
struct Exporter {
    value: Arc<AtomicU64>,
    target: String,
}

impl Exporter {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let target = listener.local_addr().expect("is bound").to_string();
        let value = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&value);
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let _ = connection.set_read_timeout(Some(Duration::from_secs(5)));
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read == 1) {
                    head.extend(byte);
                }
                let body = format!("# TYPE load gauge\nload {}\n", shown.load(Ordering::Relaxed));
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n";
                let _ = write!(connection, "{head}content-length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { value, target }
    }

    fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}

/// A Prometheus that warns of a load above 1, says above 5 that it is critical, and tells `node`.
fn rules(dir: &Path, exporter: &Exporter, node: &Node) -> Prometheus {
    let rule = |above: u32, severity: &str| {
        format!(
            "  - alert: Load\n    expr: load > {above}\n    labels: {{severity: {severity}, team: infra}}\n    \
             annotations: {{summary: 'load of {{{{ $labels.instance }}}}', runbook_url: 'http://r/'}}\n"
        )
    };
    let rules = format!("groups:\n- name: load\n  rules:\n{}{}", rule(1, "warning"), rule(5, "critical"));
    std::fs::write(dir.join("rules.yml"), rules).expect("can be written");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{site: tower-17}}}}\nrule_files: [{}]\n\
         alerting:\n  alertmanagers:\n  - static_configs: [{{targets: ['{}']}}]\n\
         scrape_configs:\n- job_name: app\n  static_configs: [{{targets: ['{}']}}]\n",
        dir.join("rules.yml").display(),
        node.base.trim_start_matches("http://"),
        exporter.target
    );
    Prometheus::start(dir, &config, &["--rules.alert.resend-delay=1s"])
}

/// The alarms of alerts that are not cleared, by severity; of each whether it is shelved.
fn loads(node: &Node) -> BTreeMap<String, bool> {
    let alarms = node.alarms().into_iter().filter(|alarm| alarm["alarm_type"] == "Load" && alarm["cleared"] == false);
    alarms.map(|alarm| (alarm["severity"].as_str().expect("has one").to_owned(), alarm["shelved"].is_object())).collect()
}

#[test]
fn what_fires_in_prometheus_is_an_alarm_until_it_resolves_and_amtool_lists_and_silences_it() {
    if program().is_none() || !is_there("prometheus") {
        return;
    }
    let scratch = scratch("alerts-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let file = known(scratch.path(), &token(&node, "amtool", "operator", None));
    let exporter = Exporter::start();
    let prometheus = rules(scratch.path(), &exporter, &node);
    exporter.set(9);
    wait_until("both fire", || loads(&node).len() == 2);

    let alarms = node.alarms();
    let critical = alarms.iter().find(|alarm| alarm["severity"] == "critical").expect("fires");
    assert_eq!((&critical["site"], &critical["producer"]), (&json!("tower-17"), &json!("prometheus")));
    assert_eq!(critical["resource"], format!("instance={}", exporter.target));
    assert_eq!(critical["text"], format!("load of {}", exporter.target));
    let came = json!({
        "alertname": "Load", "severity": "critical", "team": "infra", "instance": exporter.target, "job": "app", "site": "tower-17",
    });
    assert_eq!(critical["labels"], came);

    let tool = |args: &[&str]| amtool(&node.base, Some(&file), args);
    let list = |args: &[&str]| -> Vec<Value> {
        let (good, words) = tool(args);
        assert!(good, "{words}");
        serde_json::from_str(&words).expect("is a list")
    };
    let shown = list(&["alert", "query", "severity=critical"]);
    assert_eq!((shown.len(), &shown[0]["labels"], &shown[0]["status"]["state"]), (1, &came, &json!("active")));
    assert!(shown[0]["generatorURL"].as_str().is_some_and(|url| url.contains("/graph?g0.expr=load")), "{shown:?}");
    assert_eq!(shown[0]["annotations"], json!({ "summary": critical["text"], "runbook_url": "http://r/" }));
    let (good, words) = tool(&["config", "show"]);
    assert!(good && words.contains("receiver: klaxon"), "{words}");

    let (good, words) =
        tool(&["silence", "add", "alertname=Load", "severity=~crit.*", "--comment=moving", "--author=ann", "--duration=1h"]);
    assert!(good, "{words}");
    let id = words.trim();
    wait_until("it is shelved", || {
        loads(&node) == BTreeMap::from([("critical".to_owned(), true), ("warning".to_owned(), false)])
    });
    assert_eq!(list(&["alert", "query"]).len(), 1, "what is silenced is not shown unless asked for");
    let silenced = list(&["alert", "query", "--silenced"]);
    assert_eq!((silenced.len(), &silenced[0]["status"]["silencedBy"]), (1, &json!([id])));
    let silences = list(&["silence", "query"]);
    assert_eq!(
        (&silences[0]["id"], &silences[0]["createdBy"], &silences[0]["comment"]),
        (&json!(id), &json!("ann"), &json!("moving"))
    );
    let alarm = node.alarms().into_iter().find(|alarm| alarm["severity"] == "critical").expect("is there");
    assert_eq!((&alarm["shelved"]["reason"], &alarm["shelved"]["by"]), (&json!("moving"), &json!("amtool")));
    let (good, words) = tool(&["silence", "expire", id]);
    assert!(good, "{words}");
    wait_until("it is off the shelf", || loads(&node).values().all(|shelved| !shelved));

    // Of two with one name one resolves, and the other stays.
    exporter.set(3);
    wait_until("one has resolved", || loads(&node).keys().eq(["warning"]));
    exporter.set(9);
    wait_until("both fire again", || loads(&node).len() == 2);
    // A Prometheus that is gone ends what it said would end.
    drop(prometheus);
    wait_until("both have ended", || loads(&node).is_empty());
    let by: Vec<Value> = node.alarms().into_iter().map(|alarm| alarm["cleared_by"].clone()).collect();
    assert_eq!(by, ["ends-at", "ends-at"]);
}

#[test]
fn a_silence_comes_before_its_alert_begins_later_and_outlives_a_kill() {
    let scratch = scratch("silences-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    let secret = token(&node, "ann", "operator", None);
    let base = node.base.clone();
    let ann = As { base: &base, token: &secret };
    let early = ann.silence(&silence(&[matcher("alertname", "Early")], -60, 3600));
    let soon = ann.silence(&silence(&[matcher("alertname", "Soon")], 4, 3600));
    assert_eq!(ann.show(&soon)["status"]["state"], "pending");
    post(&node, &json!([{ "labels": { "alertname": "Early" } }, { "labels": { "alertname": "Soon" } }]));
    let state = |node: &Node, name: &str| alerts(node, &format!("?filter=alertname={name}"))[0]["status"]["state"].clone();
    assert_eq!((state(&node, "Early"), state(&node, "Soon")), (json!("suppressed"), json!("active")));
    node.kill();

    let node = setup.start();
    let base = node.base.clone();
    let ann = As { base: &base, token: &secret };
    assert_eq!((state(&node, "Early"), &ann.show(&early)["comment"]), (json!("suppressed"), &json!("moving house")));
    wait_until("it has begun", || state(&node, "Soon") == "suppressed");
    assert_eq!(ann.show(&soon)["status"]["state"], "active");

    // What has ended is still listed, and may be ended again.
    for _ in 0..2 {
        assert_eq!(ann.send("DELETE", &format!("/api/v2/silence/{early}"), None).status, 200);
    }
    wait_until("it is off the shelf", || state(&node, "Early") == "active");
    assert_eq!(ann.show(&early)["status"]["state"], "expired");
    let listed = ann.send("GET", "/api/v2/silences", None).json();
    let states: Vec<&Value> = listed.as_array().expect("is a list").iter().map(|silence| &silence["status"]["state"]).collect();
    assert_eq!(states, ["active", "expired"]);
    let shelves = node.json("/shelves");
    assert_eq!((shelves["shelves"].as_array().map(Vec::len), &shelves["shelves"][0]["id"]), (Some(1), &json!(soon)));
}

#[test]
fn a_silence_keeps_its_id_until_its_matchers_change() {
    let site = Site::start("");
    let secret = token(&site, "ann", "operator", None);
    let ann = As { base: &site.base, token: &secret };
    post(&site, &alert(&json!({ "alertname": "X", "team": "a" })));
    let id = ann.silence(&silence(&[matcher("team", "a")], 0, 60));
    let mut longer = ann.show(&id);
    longer["endsAt"] = json!(later(7200));
    longer["comment"] = json!("longer");
    assert_eq!(ann.silence(&longer), id);
    let shown = ann.show(&id);
    assert_eq!((&shown["comment"], &shown["startsAt"]), (&json!("longer"), &longer["startsAt"]));
    assert!(shown["updatedAt"].as_str() > shown["startsAt"].as_str(), "{shown}");
    let shelved = || site.alarms()[0]["shelved"].clone();
    wait_until("the alarm knows", || shelved()["reason"] == "longer");

    let mut other = shown.clone();
    other["matchers"] = json!([matcher("team", "a"), matcher("alertname", "X")]);
    let new = ann.silence(&other);
    assert_ne!(new, id);
    assert_eq!((&ann.show(&id)["status"]["state"], &ann.show(&new)["status"]["state"]), (&json!("expired"), &json!("active")));
    wait_until("the new one holds it", || shelved()["shelf"] == new);
    let kinds: Vec<_> = site.history().into_iter().map(|change| change["kind"].clone()).collect();
    assert!(kinds.contains(&json!("shelved")) && !kinds.contains(&json!("unshelved")), "it was silent throughout: {kinds:?}");

    // Alarms that somebody shelved one by one are silenced, too.
    site.send(&json!({ "resource": "host=a.fan=2", "alarm_type": "fan.failed", "severity": "major" }));
    let alarm = alerts(&site, "?filter=alertname=fan.failed").remove(0);
    let made = json!({
        "alertname": "fan.failed", "fan": "2", "host": "a", "resource": "host=a.fan=2", "severity": "major", "site": "local",
        "event_type": alarm["labels"]["event_type"],
    });
    assert_eq!(alarm["labels"], made);
    let by_hand = site.alarms().into_iter().find(|alarm| alarm["alarm_type"] == "fan.failed").expect("is there");
    let by_hand = by_hand["id"].as_str().expect("has one");
    let order = json!({ "until": later(3600), "reason": "by hand" });
    let shelved = ann.send("POST", &format!("/api/v1/alarms/{by_hand}/shelve"), Some(&order));
    assert_eq!(shelved.status, 200, "{}", shelved.body);
    assert_eq!(alerts(&site, "?filter=alertname=fan.failed")[0]["status"]["silencedBy"], json!([by_hand]));
    let mut by_labels = ann.show(by_hand);
    assert_eq!(by_labels["comment"], "by hand");
    by_labels["matchers"] = json!([matcher("alertname", "fan.failed")]);
    let by_labels = ann.silence(&by_labels);
    wait_until("a silence took its place", || {
        alerts(&site, "?filter=alertname=fan.failed")[0]["status"]["silencedBy"] == json!([by_labels])
    });
    assert_eq!(ann.send("DELETE", &format!("/api/v2/silence/{by_labels}"), None).status, 200);
    wait_until("it is silent no more", || alerts(&site, "?filter=alertname=fan.failed")[0]["status"]["state"] == "active");
    let shelved = ann.send("POST", &format!("/api/v1/alarms/{by_hand}/shelve"), Some(&order));
    assert_eq!(shelved.status, 200, "{}", shelved.body);
    let listed = ann.send("GET", "/api/v2/silences", None).json();
    assert!(listed.as_array().is_some_and(|all| all.iter().any(|one| one["id"] == by_hand)), "{listed}");
    assert_eq!(ann.send("DELETE", &format!("/api/v2/silence/{by_hand}"), None).status, 200);
    assert_eq!(alerts(&site, "?filter=alertname=fan.failed")[0]["status"]["state"], "active");
}

#[test]
fn a_silence_stays_if_what_should_take_its_place_is_refused() {
    let site = Site::start("[engine]\nshelves_max = 1\n");
    let secret = token(&site, "ann", "operator", None);
    let ann = As { base: &site.base, token: &secret };
    let id = ann.silence(&silence(&[matcher("team", "a")], 0, 60));
    let mut other = ann.show(&id);
    other["matchers"] = json!([matcher("team", "b")]);
    let refused = ann.send("POST", "/api/v2/silences", Some(&other));
    assert_eq!((refused.status, refused.json()), (409, json!("as many are held as there may be")));
    assert_eq!(ann.show(&id)["status"]["state"], "active");
}

#[test]
fn a_heartbeat_that_stays_away_is_an_alarm() {
    let site = Site::start("[alertmanager]\nheartbeat_within = \"2s\"\n");
    let beat = alert(&json!({ "alertname": "Watchdog", "severity": "none", "prometheus": "a/b" }));
    post(&site, &beat);
    assert_eq!(site.json("/heartbeats")["heartbeats"].as_array().map(Vec::len), Some(1));
    let silent =
        || site.alarms().into_iter().find(|alarm| alarm["alarm_type"] == "prometheus.silent" && alarm["cleared"] == false);
    wait_until("silence is an alarm", || silent().is_some());
    let alarm = silent().expect("is raised");
    assert_eq!(
        (&alarm["severity"], alarm["text"].as_str().map(|text| text.contains("\"prometheus\":\"a/b\""))),
        (&json!("critical"), Some(true))
    );
    post(&site, &beat);
    assert!(silent().is_none(), "it is heard from again");
}

#[test]
fn rights_are_those_of_the_token_and_no_is_said_in_alertmanager_s_words() {
    let site = Site::start("[http]\nlisten = \"127.0.0.1:0\"\ntrust_loopback = false\n");
    let text = |reply: &Reply| reply.json().as_str().map(str::to_owned).unwrap_or_else(|| panic!("is no text: {}", reply.body));
    let nobody = site.get("//api/v2/alerts").expect("it answers");
    assert_eq!(nobody.status, 401);
    assert!(text(&nobody).contains("token"), "{}", nobody.body);
    for path in ["//-/healthy", "//-/ready"] {
        assert_eq!(site.get(path).expect("it answers").status, 200, "{path}");
    }
    let tokens = ["publisher", "reader", "operator"].map(|role| token(&site, role, role, Some("tower-17")));
    let [publisher, reader, operator] = [0, 1, 2].map(|number: usize| As { base: &site.base, token: &tokens[number] });
    let alert_at = |place: &str| alert(&json!({ "alertname": "X", "site": place }));
    assert_eq!(publisher.send("POST", "/api/v2/alerts", Some(&alert_at("tower-17"))).status, 200);
    let elsewhere = publisher.send("POST", "/api/v2/alerts", Some(&alert_at("tower-18")));
    assert_eq!((elsewhere.status, text(&elsewhere).contains("tower-18")), (400, true));
    assert_eq!(publisher.send("GET", "/api/v2/alerts", None).status, 403);
    assert_eq!(reader.send("POST", "/api/v2/alerts", Some(&alert_at("tower-17"))).status, 403);
    assert_eq!(reader.send("GET", "/api/v2/alerts", None).json().as_array().map(Vec::len), Some(1));
    let of = |place: &str| silence(&[matcher("alertname", "X"), matcher("site", place)], 0, 60);
    assert_eq!(reader.send("POST", "/api/v2/silences", Some(&of("tower-17"))).status, 403);
    for other in [of("tower-18"), silence(&[matcher("alertname", "X")], 0, 60)] {
        let refused = operator.send("POST", "/api/v2/silences", Some(&other));
        assert_eq!((refused.status, text(&refused).contains("limited")), (403, true));
    }
    let id = operator.silence(&of("tower-17"));
    assert_eq!(reader.show(&id)["status"]["state"], "active");
    let gone = operator.send("GET", "/api/v2/silence/6a5b36c8-7d4c-4f0e-9b5e-0a1b2c3d4e5f", None);
    assert_eq!((gone.status, text(&gone).contains("not found")), (404, true));
    let nowhere = operator.send("GET", "/api/v2/nothing", None);
    assert_eq!((nowhere.status, text(&nowhere).contains("/api/v2/nothing")), (404, true));
}

#[test]
fn good_alerts_are_taken_beside_bad_ones_and_come_back_as_they_came() {
    let site = Site::start("");
    let long = "ü\"\n".repeat(700);
    let huge = "x".repeat(9000);
    let sent = json!([
        { "labels": { "alertname": "Good one!", "empty": "", "severity": "error" }, "annotations": { "summary": "s", "description": long },
          "generatorURL": format!("http://p/graph?g0.expr={}", "e".repeat(1500)), "startsAt": "0001-01-01T00:00:00.000Z" },
        { "labels": {} },
        { "labels": { "alertname": 7 } },
        { "labels": { "alertname": "A" }, "startsAt": later(0), "endsAt": later(-60) },
        { "labels": { "alertname": huge } },
        { "labels": { "größe": "9", "": "x" } },
        { "labels": { "größe": "9" }, "annotations": { "huge": huge } },
    ]);
    let reply = site.post("//api/v2/alerts", &sent.to_string()).expect("it answers");
    let words = reply.json().as_str().expect("is a text").to_owned();
    assert_eq!(reply.status, 400, "{words}");
    let wrong: Vec<&str> = words.split("; ").collect();
    assert_eq!(wrong.len(), 5, "{words}");
    for (number, reason) in [(1, "at least one label"), (2, "invalid type"), (3, "endsAt"), (4, "bytes"), (5, "empty name")] {
        let found = wrong.iter().any(|words| words.starts_with(&format!("alert {number}: ")) && words.contains(reason));
        assert!(found, "alert {number} {reason}: {words}");
    }
    let shown = alerts(&site, "");
    assert_eq!(shown.len(), 2);
    let good = shown.iter().find(|alert| alert["labels"]["alertname"] == "Good one!").expect("was taken");
    assert_eq!(good["labels"], json!({ "alertname": "Good one!", "severity": "error" }));
    assert_eq!(good["annotations"], sent[0]["annotations"]);
    assert_eq!(good["generatorURL"], sent[0]["generatorURL"]);
    let wide = shown.iter().find(|alert| alert["labels"] == json!({ "größe": "9" })).expect("was taken");
    assert_eq!(wide["annotations"]["huge"].as_str().map(str::len), Some(4096), "what does not fit is cut");
    let alarms = site.alarms();
    let alarm = |name: &str| alarms.iter().find(|alarm| alarm["alarm_type"] == name).expect("is there");
    assert_eq!(alarm("Good_one_")["severity"], "major");
    assert_eq!(alarm("prometheus.alert")["attributes"]["prometheus/changed"], "cut, or not kept: huge");

    // The door counts every alert once.
    let metrics = site.get("//metrics").expect("it answers").body;
    let value = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
        line.rsplit_once(' ').expect("has a value").1.parse().expect("a number")
    };
    assert_eq!(value("klaxon_door_events_received_total{door=\"http\"}"), 7);
    assert_eq!(value("klaxon_door_events_rejected_total{door=\"http\",reason=\"invalid\"}"), 5);
    assert!(metrics.contains("\nalertmanager_build_info{version=\"0."), "karma looks for it");

    assert_eq!(site.post("//api/v2/alerts", "[]").expect("it answers").status, 200);
    for malformed in ["", "{}", "[", "nul"] {
        assert_eq!(site.post("//api/v2/alerts", malformed).expect("it answers").status, 400, "{malformed:?}");
    }
    for (query, count) in [
        ("?filter=severity=~err.*", 1),
        ("?filter=severity!=error", 1),
        ("?filter=severity%3D%22error%22&filter=alertname=x", 0),
        ("?filter=%22gr%C3%B6%C3%9Fe%22=9", 1),
        ("?active=false", 0),
        ("?receiver=klax.*", 2),
        ("?receiver=klax", 0),
    ] {
        assert_eq!(alerts(&site, query).len(), count, "{query}");
    }
    for wrong in ["?filter=x", "?filter=a=~(", "?active=perhaps", "?receiver=("] {
        assert_eq!(site.get(&format!("//api/v2/alerts{wrong}")).expect("it answers").status, 400, "{wrong}");
    }
}

/// Asks a real one and ours.
struct Both {
    theirs: Alertmanager,
    ours: Site,
    secret: String,
}

impl Both {
    fn start() -> Option<Self> {
        let theirs = Alertmanager::start(&program()?, "webhook_configs: []");
        let ours = Site::start("");
        let secret = token(&ours, "ann", "admin", None);
        Some(Self { theirs, ours, secret })
    }

    /// What both answer: theirs, then ours.
    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> [Reply; 2] {
        [&self.theirs.base, &self.ours.base].map(|base| As { base, token: &self.secret }.send(method, path, body))
    }

    fn post(&self, alerts: &Value) {
        for reply in self.send("POST", "/api/v2/alerts", Some(alerts)) {
            assert_eq!((reply.status, reply.body.as_str()), (200, ""));
        }
    }

    /// The alerts of both by fingerprint; waits until theirs are processed.
    fn alerts(&self) -> [BTreeMap<String, Value>; 2] {
        let list = || {
            self.send("GET", "/api/v2/alerts", None).map(|reply| {
                let Value::Array(alerts) = reply.json() else { panic!("is no list") };
                alerts.into_iter().map(|alert| (alert["fingerprint"].as_str().expect("has one").to_owned(), alert)).collect()
            })
        };
        let mut both: [BTreeMap<String, Value>; 2] = list();
        wait_until("theirs are processed", || {
            both = list();
            both[0].values().all(|alert| alert["status"]["state"] != "unprocessed")
        });
        both
    }
}

#[test]
fn fingerprints_are_those_of_a_real_alertmanager() {
    let Some(both) = Both::start() else { return };
    let mut chance = Chance::new(7);
    let characters: Vec<char> = "abcABC019_ -.:/\\\"'{}=~,üß漢🙂\n\t".chars().collect();
    let mut word = |most: u64| -> String {
        let length = chance.below(most) + 1;
        (0..length).map(|_| characters[usize::try_from(chance.below(characters.len() as u64)).expect("small")]).collect()
    };
    let sets: Vec<Value> = (0..300)
        .map(|number| {
            let labels = (0..=number % 9).map(|label| (format!("l{label}_{}", number % 4), json!(word(12))));
            json!({ "labels": labels.collect::<serde_json::Map<_, _>>() })
        })
        .collect();
    both.post(&Value::from(sets));
    let [theirs, ours] = both.alerts();
    assert!(theirs.len() > 250, "{}", theirs.len());
    let labels = |alerts: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
        alerts.iter().map(|(fingerprint, alert)| (fingerprint.clone(), alert["labels"].clone())).collect()
    };
    assert_eq!(labels(&ours), labels(&theirs));
}

/// Seconds from now, as an alert's time; nothing where it is not said.
type Said = Option<i64>;

#[test]
fn alerts_merge_as_in_a_real_alertmanager() {
    let Some(both) = Both::start() else { return };
    // Of each alert what is posted one after the other: when it starts and when it ends.
    let cases: Vec<Vec<(Said, Said)>> = vec![
        vec![(None, None)],
        vec![(Some(-60), None), (None, None)],
        vec![(Some(-60), None), (Some(-120), None)],
        vec![(Some(-60), Some(600)), (Some(-30), None)],
        vec![(Some(-60), Some(600)), (Some(-30), Some(400)), (Some(-90), Some(500))],
        vec![(Some(-60), None), (Some(-30), Some(100))],
        vec![(Some(-60), Some(600)), (Some(-30), None), (Some(-20), None)],
        vec![(Some(-60), Some(400)), (Some(-50), Some(800))],
        vec![(None, Some(900))],
        vec![(None, Some(900)), (None, Some(1200))],
        vec![(Some(-60), Some(100)), (Some(200), Some(300))],
        vec![(Some(-60), Some(600)), (Some(-60), Some(-1))],
        vec![(Some(-60), Some(600)), (Some(-600), Some(-300))],
        vec![(Some(-60), Some(-30))],
        vec![(Some(-60), Some(-30)), (Some(-10), None)],
        vec![(Some(-90), None), (Some(-90), Some(-30)), (Some(-60), None)],
        vec![(Some(-90), None), (Some(-90), Some(-30)), (Some(-10), None)],
    ];
    let rounds = cases.iter().map(Vec::len).max().unwrap_or_default();
    for round in 0..rounds {
        let said = cases.iter().enumerate().filter_map(|(number, posts)| Some((number, posts.get(round)?)));
        let alerts: Vec<Value> = said
            .map(|(number, (starts, ends))| {
                let mut alert = json!({
                    "labels": { "alertname": "Merge", "case": number.to_string() },
                    "annotations": { "round": round.to_string() },
                });
                if let Some(starts) = starts {
                    alert["startsAt"] = json!(later(*starts));
                }
                if let Some(ends) = ends {
                    alert["endsAt"] = json!(later(*ends));
                }
                alert
            })
            .collect();
        both.post(&Value::from(alerts));
    }
    let [theirs, ours] = both.alerts();
    let millis = |alert: &Value, name: &str| {
        let time: klaxon_schemas::time::Timestamp = alert[name].as_str().expect("is a text").parse().expect("is a time");
        time.as_micros() / 1000
    };
    for (fingerprint, theirs) in &theirs {
        let case = &theirs["labels"]["case"];
        let Some(ours) = ours.get(fingerprint) else { panic!("case {case} is not there") };
        assert_eq!(ours["annotations"], theirs["annotations"], "case {case}");
        for name in ["startsAt", "endsAt"] {
            // What was not said is the time at which it came, here and there.
            let apart = (millis(ours, name) - millis(theirs, name)).abs();
            assert!(apart < 5_000, "case {case}: {name} is {} there and {} here", theirs[name], ours[name]);
        }
    }
    let cases = |alerts: &BTreeMap<String, Value>| -> Vec<String> {
        let mut cases: Vec<String> = alerts.values().map(|alert| alert["labels"]["case"].to_string()).collect();
        cases.sort();
        cases
    };
    assert_eq!(cases(&ours), cases(&theirs));
}

/// What a value is, without members that a newer release has.
fn older(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.remove("mutedBy");
            members.values_mut().for_each(|member| *member = older(member.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = older(item.take())),
        _ => {}
    }
    value
}

#[test]
fn answers_have_the_shape_of_a_real_alertmanager_s() {
    let Some(both) = Both::start() else { return };
    let starts_at = later(-30);
    both.post(&json!([
        { "labels": { "alertname": "A", "x": "1" }, "annotations": { "summary": "s" }, "generatorURL": "http://g/", "startsAt": starts_at },
        { "labels": { "alertname": "B" }, "generatorURL": "http://g/", "startsAt": starts_at },
    ]));
    let ids = both.send("POST", "/api/v2/silences", Some(&silence(&[matcher("alertname", "A")], -5, 3600)));
    let ids = ids.map(|reply| reply.json()["silenceID"].as_str().expect("is told").to_owned());
    wait_until("theirs is silenced", || {
        let alerts = both.alerts();
        alerts.iter().all(|alerts| alerts.values().filter(|alert| alert["status"]["state"] == "suppressed").count() == 1)
    });
    for path in ["alerts", "alerts?silenced=false", "alerts/groups", "silences", "silences?filter=alertname=A", "receivers"] {
        let [theirs, ours] = both.send("GET", &format!("/api/v2/{path}"), None).map(|reply| reply.json());
        assert_eq!(shape(&older(ours.clone())), shape(&theirs), "{path}: {ours:#}\n{theirs:#}");
    }
    let [theirs, ours] = both.alerts();
    for (fingerprint, theirs) in &theirs {
        for name in ["labels", "annotations", "startsAt", "generatorURL"] {
            assert_eq!(ours[fingerprint][name], theirs[name], "{name}");
        }
        assert_eq!(ours[fingerprint]["status"]["state"], theirs["status"]["state"]);
    }
    let groups = both.send("GET", "/api/v2/alerts/groups", None).map(|reply| reply.json());
    let labels = groups
        .map(|groups| groups.as_array().expect("is a list").iter().map(|group| group["labels"].clone()).collect::<Vec<_>>());
    assert_eq!(labels[1], labels[0]);
    let shown = [&both.theirs.base, &both.ours.base].map(|base| As { base, token: &both.secret });
    let [theirs, ours] = [0, 1].map(|which: usize| shown[which].show(&ids[which]));
    assert_eq!(shape(&ours), shape(&theirs));
    for name in ["matchers", "comment", "createdBy", "status"] {
        assert_eq!(ours[name], theirs[name], "{name}");
    }
    let [theirs, ours] = both.send("GET", "/api/v2/status", None).map(|reply| reply.json());
    // What a cluster has beside its status is there in a cluster only.
    assert_eq!((&ours["cluster"]["status"], &ours["cluster"]["status"]), (&json!("disabled"), &theirs["cluster"]["status"]));
    assert_eq!(shape(&ours["versionInfo"]), shape(&theirs["versionInfo"]));
    assert_eq!((shape(&ours["config"]), shape(&ours["uptime"])), (shape(&theirs["config"]), shape(&theirs["uptime"])));
    for which in [0, 1] {
        let ended = shown[which].send("DELETE", &format!("/api/v2/silence/{}", ids[which]), None);
        assert_eq!((ended.status, ended.body.as_str()), (200, ""));
        assert_eq!(shown[which].show(&ids[which])["status"]["state"], "expired");
    }
    // Both refuse the same.
    let alerts = [
        json!([{ "labels": {} }]),
        json!([{ "labels": { "a": "" } }]),
        json!([{ "labels": { "a": "b" }, "startsAt": later(60), "endsAt": later(30) }]),
    ];
    for wrong in alerts {
        let [theirs, ours] = both.send("POST", "/api/v2/alerts", Some(&wrong));
        assert_eq!((ours.status, ours.json().is_string()), (theirs.status, true), "{wrong}: {} {}", theirs.body, ours.body);
        assert!(theirs.json().is_string());
    }
    let regex = json!({ "name": "a", "value": "(", "isRegex": true });
    let silences = [
        silence(&[matcher("a", "b")], 60, 30),
        silence(&[matcher("a", "b")], -60, -30),
        silence(&[matcher("a", "")], 0, 30),
        silence(&[], 0, 30),
        silence(&[regex], 0, 30),
    ];
    for wrong in silences {
        let [theirs, ours] = both.send("POST", "/api/v2/silences", Some(&wrong));
        assert_eq!((ours.status, ours.json().is_string()), (400, true), "{wrong}: {} {}", theirs.body, ours.body);
        assert!((400..500).contains(&theirs.status), "{wrong}: {}", theirs.body);
    }
}
