//! StarlingX Fault Management's REST interface as its clients use it: shapes, queries, pages, suppression, roles; and Distributed
//! Cloud's summary. Where KLAXON_FM names an `fm` (python-fmclient), that is run too.

mod harness;

use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Node, Reply, Setup, Site, agent, scratch, wait_until};
use serde_json::{Value, json};

/// A listener of its own, beside the main port, that trusts nobody.
const LISTENERS: &str = "[listeners.fm]\nlisten = \"127.0.0.1:0\"\nserves = \"starlingx\"\n[listeners.dc]\nlisten = \"127.0.0.1:0\"\n\
                         serves = \"dcmanager\"\n";
const GUARDED: &str = "[http]\nlisten = \"127.0.0.1:0\"\ntrust_loopback = false\n";

/// A client that speaks as python-fmclient does.
struct Client {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    fn at(base: &str) -> Self {
        Self { base: base.to_owned(), token: None, agent: agent() }
    }

    /// One that shows a token of this role.
    fn with(node: &Node, base: &str, name: &str, more: &[&str]) -> Self {
        let printed = node.cli_ok(&[&["token", "create", name], more].concat());
        let token = printed.lines().next().expect("is printed").trim().to_owned();
        Self { token: Some(token), ..Self::at(base) }
    }

    /// Asks for a path, or follows a link.
    fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let mut request = ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("x-auth-token", token);
        }
        let request = request.body(body.to_owned()).expect("is a request");
        let mut reply = self.agent.run(request).expect("the node answers");
        let id = reply.headers().get("x-openstack-request-id").and_then(|id| id.to_str().ok());
        assert!(id.is_some_and(|id| id.starts_with("req-")), "{path} names no request");
        Reply {
            status: reply.status().as_u16(),
            body: reply.body_mut().with_config().limit(1 << 30).read_to_string().expect("is text"),
        }
    }

    fn get(&self, path: &str) -> Value {
        let reply = self.ask("GET", path, "");
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.json()
    }

    /// Of what is refused: the status, and what a client prints.
    fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let reply = self.ask(method, path, body);
        let message = reply.json()["error_message"].as_str().unwrap_or_else(|| panic!("{}", reply.body)).to_owned();
        let fault: Value = serde_json::from_str(&message).expect("is JSON, too");
        assert_eq!(fault["faultcode"], if reply.status < 500 { "Client" } else { "Server" });
        assert!(fault.as_object().is_some_and(|fault| fault.len() == 3 && fault["debuginfo"].is_null()), "{fault}");
        (reply.status, fault["faultstring"].as_str().expect("is text").to_owned())
    }

    /// The uuid of what was reported.
    fn report(&self, report: &Value) -> String {
        let reply = self.ask("POST", "/v1/alarms", &report.to_string());
        assert_eq!(reply.status, 200, "{}", reply.body);
        let inner = reply.json();
        let inner: Value = serde_json::from_str(inner.as_str().expect("a text")).expect("that is JSON");
        inner["uuid"].as_str().expect("is text").to_owned()
    }

    fn suppress(&self, alarm_id: &str, value: &str) -> Reply {
        let types = self.get("/v1/event_suppression");
        let found = list(&types, "event_suppression").iter().find(|one| one["alarm_id"] == alarm_id);
        let uuid = found.expect("is a type")["uuid"].as_str().expect("is text").to_owned();
        let step = |value: &str| json!({ "path": "/suppression_status", "value": value, "op": "replace" });
        // Clients send the steps of those before with each.
        let body = json!([step("unsuppressed"), step(value)]).to_string();
        self.ask("PATCH", &format!("/v1/event_suppression/{uuid}"), &body)
    }

    /// What the list at `path` shows of each alarm in a field.
    fn shown(&self, path: &str, field: &str) -> Vec<String> {
        texts(&self.get(path), "alarms", field)
    }
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a Vec<Value> {
    answer[name].as_array().unwrap_or_else(|| panic!("no {name} in {answer}"))
}

fn texts(answer: &Value, name: &str, field: &str) -> Vec<String> {
    list(answer, name).iter().map(|one| one[field].as_str().unwrap_or_else(|| panic!("no {field}: {one}")).to_owned()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("is an object").keys().map(String::as_str).collect()
}

fn cpu(host: &str) -> Value {
    json!({
        "alarm_id": "100.101", "alarm_state": "set", "entity_type_id": "host", "entity_instance_id": host, "severity": "major",
        "reason_text": "said of the processor", "alarm_type": "operational-violation", "probable_cause": "threshold-crossed",
        "proposed_repair_action": "wait and see", "service_affecting": true, "suppression": false,
    })
}

const SHORT: [&str; 9] = [
    "alarm_id",
    "degrade_affecting",
    "entity_instance_id",
    "mgmt_affecting",
    "reason_text",
    "severity",
    "suppression_status",
    "timestamp",
    "uuid",
];

#[test]
fn what_is_shown_has_their_shapes() {
    let site = Site::start(LISTENERS);
    let fm = Client::at(&format!("http://{}", site.listener("fm")));
    let uuid = fm.report(&cpu("host=controller-0"));
    let alarms = fm.get("/v1/alarms");
    assert_eq!(keys(&alarms), ["alarms"]);
    let short = &list(&alarms, "alarms")[0];
    assert_eq!(keys(short), SHORT);
    let timestamp = short["timestamp"].as_str().expect("is text");
    assert!(timestamp.len() == "2026-11-22T08:19:34.134583".len() && !timestamp.ends_with('Z'), "{timestamp}");
    let whole = fm.get(&format!("/v1/alarms/{uuid}"));
    let said = cpu("host=controller-0");
    for (field, value) in said.as_object().expect("is an object") {
        assert_eq!(whole[field], *value, "{field}");
    }
    assert_eq!((&whole["uuid"], &whole["suppression_status"]), (&json!(uuid), &json!("unsuppressed")));
    assert_eq!((&whole["mgmt_affecting"], &whole["degrade_affecting"]), (&json!("True"), &json!("False")));
    assert_eq!(keys(&whole).len(), 16);
    assert_eq!(list(&fm.get("/v1/alarms?expand=True"), "alarms")[0], whole);
    let summary = fm.get("/v1/alarms/summary");
    assert_eq!(summary, json!({ "critical": 0, "major": 1, "minor": 0, "warnings": 0, "status": "degraded" }));

    let log = fm.get("/v1/event_log");
    let event = &list(&log, "event_log")[0];
    let of_event =
        ["entity_instance_id", "event_log_id", "reason_text", "severity", "state", "suppression_status", "timestamp", "uuid"];
    assert_eq!(keys(event), of_event);
    assert_eq!((&event["event_log_id"], &event["state"]), (&json!("100.101"), &json!("set")));
    let whole = fm.get(&format!("/v1/event_log/{}", event["uuid"].as_str().expect("is text")));
    assert_eq!(list(&fm.get("/v1/event_log?expand=True"), "event_log")[0], whole);
    assert_eq!((keys(&whole).len(), &whole["event_log_type"]), (14, &json!("operational-violation")));

    let types = fm.get("/v1/event_suppression");
    let one = list(&types, "event_suppression").iter().find(|one| one["alarm_id"] == "100.101").expect("is there");
    assert_eq!(keys(one), ["alarm_id", "description", "links", "suppression_status", "uuid"]);
    let one = fm.get(one["links"][0]["href"].as_str().expect("a link"));
    assert!(one["id"].is_u64() && one["alarm_id"] == "100.101", "{one}");

    // The links of the documents lead somewhere, with and without the version.
    let root = fm.get("/");
    assert_eq!(root["default_version"]["id"], "v1");
    let version = fm.get(root["versions"][0]["links"][0]["href"].as_str().expect("a link"));
    assert_eq!(version["id"], "v1");
    for name in ["alarms", "event_log", "event_suppression"] {
        for link in list(&version, name) {
            assert!(!list(&fm.get(link["href"].as_str().expect("a link")), name).is_empty());
        }
    }
    // The main port has it beside its own, and its root is the page.
    let main = Client::at(&site.base);
    assert_eq!(main.get("/v1/alarms")["alarms"], alarms["alarms"]);
    assert!(site.get("//").expect("answers").body.starts_with("<!doctype html>"));
    assert_eq!(fm.ask("GET", "/api/v1/alarms", "").status, 404);
}

#[test]
fn what_is_refused_is_said_as_clients_print_it() {
    let site = Site::start(LISTENERS);
    let fm = Client::at(&site.base);
    let nobody = "11111111-1111-1111-1111-111111111111";
    for path in ["alarms", "event_log", "event_suppression"] {
        let (status, said) = fm.refused("GET", &format!("/v1/{path}/{nobody}"), "");
        assert!(status == 404 && said.contains(nobody), "{said}");
        let (status, said) = fm.refused("GET", &format!("/v1/{path}/seven"), "");
        assert!(status == 400 && said.contains("uuid"), "{said}");
    }
    for (query, named) in [
        ("limit=-1", "limit: must be positive"),
        ("limit=x", "limit"),
        ("marker=x", "marker"),
        (&format!("marker={nobody}"), "marker"),
        ("sort_key=colour", "sort_key"),
        ("sort_dir=up", "sort_dir"),
        ("after=x", "after"),
        ("colour=red", "colour"),
        ("q.field=colour&q.value=red", "q.field"),
        ("q.field=severity&q.op=like&q.value=red", "q.op"),
        ("q.field=severity", "q.value"),
        ("include_suppress=perhaps", "include_suppress"),
    ] {
        let (status, said) = fm.refused("GET", &format!("/v1/alarms?{query}"), "");
        assert!(status == 400 && said.contains(named), "{query}: {said}");
    }
    let without = |field: &str| {
        let mut report = cpu("host=a");
        report.as_object_mut().expect("is an object").remove(field);
        report
    };
    let but = |field: &str, value: Value| {
        let mut report = cpu("host=a");
        report[field] = value;
        report
    };
    for (report, named) in [
        (without("alarm_id"), "alarm_id: is missing"),
        (without("entity_instance_id"), "entity_instance_id: is missing"),
        (without("severity"), "severity: is missing"),
        (but("severity", json!("not-applicable")), "severity"),
        (but("severity", json!("bad")), "severity"),
        (but("alarm_type", json!("bad")), "alarm_type"),
        (but("alarm_state", json!("bad")), "alarm_state"),
        (but("timestamp", json!("today")), "timestamp"),
        (but("service_affecting", json!("perhaps")), "service_affecting"),
        (but("colour", json!("red")), "colour"),
        (but("alarm_id", json!("a b")), "alarm_id"),
        (json!([]), "object"),
    ] {
        let (status, said) = fm.refused("POST", "/v1/alarms", &report.to_string());
        assert!(status == 400 && said.contains(named), "{named}: {said}");
    }
    assert_eq!(fm.refused("POST", "/v1/alarms", "{").0, 400);
    assert_eq!(fm.refused("PUT", "/v1/alarms", "{}").0, 405);
    assert_eq!(fm.refused("GET", "/v1/nowhere", "").0, 404);
    assert_eq!(fm.shown("/v1/alarms", "uuid").len(), 0, "nothing of it was taken");
}

#[test]
fn a_report_is_an_alarm_that_keeps_its_uuid_until_it_is_over() {
    let site = Site::start("");
    let fm = Client::at(&site.base);
    let uuid = fm.report(&cpu("host=compute-1"));
    assert_eq!(fm.report(&cpu("host=compute-1")), uuid, "again");
    let other = fm.report(&cpu("host=compute-10"));
    let mut worse = cpu("host=compute-1");
    worse["severity"] = json!("critical");
    assert_eq!(fm.report(&worse), uuid, "worse");
    assert_eq!(fm.get(&format!("/v1/alarms/{uuid}"))["severity"], "critical");
    // What Klaxon calls the type is the same alarm.
    let same = site.json("/alarms?alarm_type=cpu.high");
    assert_eq!(list(&same, "alarms").len(), 2, "{same}");
    let own = fm.report(&json!({ "alarm_id": "999.001", "entity_instance_id": "o'brien \"x\"", "severity": "minor" }));
    let whole = fm.get(&format!("/v1/alarms/{own}"));
    assert_eq!((&whole["alarm_id"], &whole["entity_instance_id"]), (&json!("999.001"), &json!("o'brien \"x\"")));
    let log = fm
        .report(&json!({ "alarm_id": "200.020", "alarm_state": "msg", "entity_instance_id": "host=a", "reason_text": "went" }));
    let event = fm.get(&format!("/v1/event_log/{log}"));
    assert_eq!(
        (&event["state"], &event["reason_text"], &event["suppression_status"]),
        (&json!("log"), &json!("went"), &json!("None"))
    );
    let clear = |entity: &str| json!({ "alarm_id": "100.101", "alarm_state": "clear", "entity_instance_id": entity });
    assert_eq!(fm.report(&clear("host=compute-1")), uuid);
    assert_eq!(fm.refused("GET", &format!("/v1/alarms/{uuid}"), "").0, 404);
    assert_eq!(fm.get(&format!("/v1/alarms/{other}"))["entity_instance_id"], "host=compute-10");
    assert_eq!(fm.refused("POST", "/v1/alarms", &clear("host=nobody").to_string()).0, 404);
    let states =
        texts(&fm.get("/v1/event_log?q.field=entity_instance_id&q.value=host%3Dcompute-1&alarms=True"), "event_log", "state");
    assert_eq!(states, ["clear", "set", "set", "set"]);
}

/// Alarms of each severity on hosts, and one of a type that StarlingX does not know.
fn several(site: &Site) {
    let severities = ["critical", "major", "minor", "warning", "indeterminate"];
    let alarms: Vec<Value> = (0..20)
        .map(|number| {
            let alarm_type = if number % 2 == 0 { "disk.full" } else { "test.odd" };
            json!({
                "resource": format!("host=h{number:02}.port=p"), "alarm_type": alarm_type, "severity": severities[number % 5],
                "qualifier": if number == 7 { "left" } else { "" },
            })
        })
        .collect();
    site.send(&Value::from(alarms));
}

#[test]
fn operators_operate_and_counts_agree_with_lists() {
    let site = Site::start("");
    several(&site);
    let fm = Client::at(&site.base);
    let count = |query: &str| fm.shown(&format!("/v1/alarms?{query}"), "uuid").len();
    let severity = |operator: &str| count(&format!("q.field=severity&q.op={operator}&q.type=&q.value=major"));
    let of_each = ["eq", "ne", "ge", "gt", "le", "lt"].map(severity);
    assert_eq!(of_each, [4, 16, 8, 4, 16, 12]);
    let summary = fm.get("/v1/alarms/summary");
    for (word, name) in [("critical", "critical"), ("major", "major"), ("minor", "minor"), ("warning", "warnings")] {
        assert_eq!(summary[name], count(&format!("q.field=severity&q.value={word}")), "{word}");
    }
    assert_eq!(summary["status"], "critical");
    assert_eq!(count("q.field=alarm_id&q.value=100.104"), 10);
    assert_eq!(count("q.field=alarm_id&q.op=ne&q.value=100.104"), 10);
    assert_eq!(count("q.field=entity_type_id&q.value=port"), 20);
    assert_eq!(count("q.field=entity_instance_id&q.value=host%3Dh1"), 10);
    assert_eq!(
        fm.shown("/v1/alarms?q.field=entity_instance_id&q.value=h07", "entity_instance_id"),
        ["host=h07.port=p.qualifier=left"]
    );
    let both = "q.field=severity&q.field=alarm_id&q.op=ge&q.op=eq&q.type=&q.type=&q.value=major&q.value=test.odd";
    assert_eq!(count(both), 4);
}

#[test]
fn sorting_sorts_and_pages_of_any_order_meet_every_alarm_once() {
    let site = Site::start("");
    several(&site);
    let fm = Client::at(&site.base);
    for key in
        ["uuid", "id", "severity", "timestamp", "updated_at", "alarm_id", "entity_instance_id", "entity_type_id", "alarm_type"]
    {
        let ascending = fm.shown(&format!("/v1/alarms?sort_key={key}&sort_dir=asc"), "uuid");
        let mut descending = fm.shown(&format!("/v1/alarms?sort_key={key}&sort_dir=desc"), "uuid");
        descending.reverse();
        assert_eq!(ascending, descending, "{key}");
        if ["uuid", "timestamp", "alarm_id", "entity_instance_id"].contains(&key) {
            let shown = fm.shown(&format!("/v1/alarms?sort_key={key}"), key);
            assert!(shown.is_sorted() && shown.len() == 20, "{key}: {shown:?}");
        }
        for direction in ["asc", "desc"] {
            let whole = fm.shown(&format!("/v1/alarms?sort_key={key}&sort_dir={direction}"), "uuid");
            assert_eq!(
                follow(&fm, &format!("/v1/alarms?sort_key={key}&sort_dir={direction}&limit=3")),
                whole,
                "{key} {direction}"
            );
            let mut marked = Vec::new();
            loop {
                let marker = marked.last().map(|last| format!("&marker={last}")).unwrap_or_default();
                let page = fm.shown(&format!("/v1/alarms?sort_key={key}&sort_dir={direction}&limit=3{marker}"), "uuid");
                if page.is_empty() {
                    break;
                }
                marked.extend(page);
            }
            assert_eq!(marked, whole, "{key} {direction} by marker");
        }
    }
    let severities = fm.shown("/v1/alarms", "severity");
    assert!(severities.starts_with(&["critical".to_owned()]) && severities.last().is_some_and(|last| last == "warning"));
    let link = fm.get("/v1/alarms?limit=1&q.field=severity&q.op=ge&q.type=&q.value=major&expand=True&include_suppress=True");
    let link = link["next"].as_str().expect("there is more");
    assert!(
        link.contains("q.field=severity&q.op=ge") && link.contains("include_suppress=True") && link.contains("expand=True"),
        "{link}"
    );
    assert_eq!(follow(&fm, "/v1/alarms?limit=1&q.field=severity&q.op=ge&q.value=major").len(), 8);
}

/// The uuids of all pages, by following `next`.
fn follow(fm: &Client, path: &str) -> Vec<String> {
    let (mut all, mut path) = (Vec::new(), path.to_owned());
    loop {
        let page = fm.get(&path);
        all.extend(texts(&page, "alarms", "uuid"));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => return all,
        }
    }
}

#[test]
fn five_thousand_alarms_are_paged_to_the_end_while_others_come_and_go() {
    let site = Site::start("");
    let event =
        |resource: String, severity: &str| json!({ "resource": resource, "alarm_type": "test.fan", "severity": severity });
    for part in 0..10 {
        let severities = ["critical", "major", "minor"];
        site.send(&(0..500).map(|number| event(format!("standing={part}-{number}"), severities[number % 3])).collect());
    }
    let fm = Client::at(&site.base);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                for severity in ["critical", "warning", "cleared"] {
                    site.send(
                        &(0..50).map(|number| event(format!("passing={}", (round * 37 + number) % 300), severity)).collect(),
                    );
                }
                if is_done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for query in ["limit=100", "limit=100&sort_key=uuid", "limit=700&sort_key=timestamp&sort_dir=desc"] {
            let mut met: BTreeMap<String, usize> = BTreeMap::new();
            let (mut path, mut pages) = (format!("/v1/alarms?{query}"), 0);
            loop {
                let page = fm.get(&path);
                pages += 1;
                for alarm in list(&page, "alarms") {
                    *met.entry(alarm["entity_instance_id"].as_str().expect("is text").to_owned()).or_default() += 1;
                }
                match page["next"].as_str() {
                    Some(next) => next.clone_into(&mut path),
                    None => break,
                }
            }
            let standing: Vec<_> = met.iter().filter(|(resource, _)| resource.starts_with("standing=")).collect();
            assert_eq!(standing.len(), 5000, "{query}: in {pages} pages");
            assert!(standing.iter().all(|(_, times)| **times == 1), "{query}: some were met twice");
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_log_is_paged_to_the_end_and_each_event_can_be_shown() {
    let site = Site::start("");
    let fm = Client::at(&site.base);
    for number in 0..25 {
        fm.report(&cpu(&format!("host=h{number}")));
        fm.report(&json!({ "alarm_id": "200.020", "alarm_state": "log", "entity_instance_id": "host=a", "reason_text": number.to_string() }));
    }
    let newest = texts(&fm.get("/v1/event_log"), "event_log", "uuid");
    assert_eq!((newest.len(), newest.iter().collect::<HashSet<_>>().len()), (50, 50));
    let mut oldest = texts(&fm.get("/v1/event_log?sort_key=timestamp&sort_dir=asc"), "event_log", "uuid");
    oldest.reverse();
    assert_eq!(oldest, newest);
    for query in
        ["limit=7", "limit=7&alarms=True", "limit=7&logs=True", "limit=7&q.field=severity&q.op=eq&q.type=&q.value=major"]
    {
        let whole = texts(&fm.get(&format!("/v1/event_log?{}", query.replace("limit=7", "limit=0"))), "event_log", "uuid");
        assert_eq!(whole.len(), if query == "limit=7" { 50 } else { 25 }, "{query}");
        let (mut met, mut path) = (Vec::new(), format!("/v1/event_log?{query}"));
        loop {
            let page = fm.get(&path);
            met.extend(texts(&page, "event_log", "uuid"));
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut path),
                None => break,
            }
        }
        assert_eq!(met, whole, "{query}");
    }
    let third = &newest[2];
    assert_eq!(texts(&fm.get(&format!("/v1/event_log?limit=2&marker={third}")), "event_log", "uuid"), newest[3..5]);
    for uuid in newest.iter().take(4) {
        assert_eq!(fm.get(&format!("/v1/event_log/{uuid}"))["uuid"], **uuid);
        let only = fm.get(&format!("/v1/event_log?q.field=uuid&q.op=eq&q.type=&q.value={uuid}"));
        assert_eq!(texts(&only, "event_log", "uuid"), [uuid.as_str()]);
    }
    // From a time on, and up to one, both inclusive.
    let at = fm.get(&format!("/v1/event_log/{third}"))["timestamp"].as_str().expect("is text").to_owned();
    let count = |field: &str| {
        let query = format!("q.field={field}&q.op=eq&q.type=&q.value={}", at.replace(':', "%3A"));
        let found = texts(&fm.get(&format!("/v1/event_log?{query}")), "event_log", "uuid");
        assert!(found.contains(third), "{field}");
        found.len()
    };
    assert_eq!(count("start") + count("end"), 51);
    // One bit of the uuid that does not say where it stands.
    let mut other = third.clone().into_bytes();
    other[0] = if other[0] == b'0' { b'1' } else { b'0' };
    let other = String::from_utf8(other).expect("digits");
    assert_eq!(fm.refused("GET", &format!("/v1/event_log/{other}"), "").0, 404);
}

#[test]
fn what_is_suppressed_is_hidden_until_it_is_asked_for() {
    let site = Site::start("");
    several(&site);
    let fm = Client::with(&site, &site.base, "op", &["--role", "operator"]);
    let lists = |query: &str| {
        let count = |path: &str, name: &str| list(&fm.get(&format!("{path}{query}")), name).len();
        let summary = fm.get(&format!("/v1/alarms/summary{query}"));
        let summed: u64 = ["critical", "major", "minor", "warnings"].iter().filter_map(|name| summary[name].as_u64()).sum();
        let by_uuid = format!("/v1/alarms?sort_key=uuid{}", query.replace('?', "&"));
        assert_eq!(fm.shown(&by_uuid, "uuid").len() as u64, summed, "the order makes no difference");
        (count("/v1/alarms", "alarms"), summed, count("/v1/event_log", "event_log"))
    };
    assert_eq!(lists(""), (20, 20, 20));
    let reply = fm.suppress("test.odd", "suppressed");
    assert_eq!((reply.status, &reply.json()["suppression_status"]), (200, &json!("suppressed")), "{}", reply.body);
    assert_eq!(lists(""), (10, 10, 10));
    assert_eq!(lists("?include_suppress=True"), (20, 20, 20));
    let marked = fm.shown("/v1/alarms?include_suppress=True&q.field=alarm_id&q.value=test.odd", "suppression_status");
    assert!(marked.len() == 10 && marked.iter().all(|status| status == "suppressed"), "{marked:?}");
    let only = fm.get("/v1/event_suppression?q.field=suppression_status&q.op=eq&q.type=string&q.value=suppressed");
    assert_eq!(texts(&only, "event_suppression", "alarm_id"), ["test.odd"]);
    assert_eq!(site.json("/suppressions")["suppressions"].as_array().map(Vec::len), Some(1));
    assert_eq!(fm.suppress("test.odd", "suppressed").status, 200, "again changes nothing");
    assert_eq!(fm.suppress("100.104", "suppressed").status, 200);
    assert_eq!((lists("").0, fm.get("/v1/alarms/summary")["status"].clone()), (0, json!("OK")));
    assert_eq!(fm.suppress("100.104", "unsuppressed").status, 200);
    assert_eq!(fm.suppress("test.odd", "unsuppressed").status, 200);
    assert_eq!(lists(""), (20, 20, 20));
    // What somebody has set aside is hidden like it.
    let id = fm.shown("/v1/alarms", "uuid")[0].clone();
    site.cli_ok(&["alarms", "shelve", &id, "--for", "1h", "--reason", "known"]);
    assert_eq!((lists("").0, lists("").1), (19, 19));
    assert_eq!(lists("?include_suppress=True").0, 20);
    let page = fm.get("/v1/event_suppression?limit=5");
    assert_eq!(list(&page, "event_suppression").len(), 5);
    let next = fm.get(page["next"].as_str().expect("there are more"));
    assert!(texts(&next, "event_suppression", "alarm_id")[0] > texts(&page, "event_suppression", "alarm_id")[4]);
    let uuid = texts(&page, "event_suppression", "uuid")[0].clone();
    for (body, named) in [
        (json!([]), "path"),
        (json!({}), "list"),
        (json!([{ "path": "/alarm_id", "value": "suppressed", "op": "replace" }]), "path"),
        (json!([{ "path": "/suppression_status", "value": "gone", "op": "replace" }]), "value"),
        (json!([{ "path": "/suppression_status", "value": "suppressed", "op": "add" }]), "op"),
    ] {
        let (status, said) = fm.refused("PATCH", &format!("/v1/event_suppression/{uuid}"), &body.to_string());
        assert!(status == 400 && said.contains(named), "{said}");
    }
}

#[test]
fn each_role_may_what_it_may_and_sees_its_sites() {
    let site = Site::start(&format!("{GUARDED}{LISTENERS}[node]\nsite = \"noc\"\n"));
    let base = format!("http://{}", site.listener("fm"));
    let with = |name: &str, more: &[&str]| Client::with(&site, &base, name, more);
    let publisher = with("publisher", &["--role", "publisher"]);
    let uuid = publisher.report(&cpu("host=a"));
    let path = format!("/v1/alarms/{uuid}");
    let nobody = Client::at(&base);
    assert_eq!(nobody.get("/")["default_version"]["id"], "v1", "the documents are open");
    assert_eq!(nobody.get("/v1")["id"], "v1");
    for (method, path) in [("GET", "/v1/alarms"), ("GET", "/v1/alarms/summary"), ("DELETE", &path), ("POST", "/v1/alarms")] {
        assert_eq!(nobody.refused(method, path, "").0, 401, "{method} {path}");
    }
    let stranger = Client { token: Some("anytoken".to_owned()), ..Client::at(&base) };
    assert_eq!(stranger.refused("GET", "/v1/alarms", "").0, 401);
    assert_eq!(publisher.refused("GET", "/v1/alarms", "").0, 403);
    let reader = with("reader", &["--role", "reader"]);
    assert_eq!(reader.shown("/v1/alarms", "uuid"), [uuid.as_str()]);
    let (status, said) = reader.refused("DELETE", &path, "");
    assert!(status == 403 && said.contains("reader may not"), "{said}");
    assert_eq!(reader.refused("POST", "/v1/alarms", &cpu("host=b").to_string()).0, 403);
    assert_eq!(reader.suppress_status(), 403);
    let elsewhere = with("elsewhere", &["--role", "operator", "--site", "tower-1"]);
    assert!(elsewhere.shown("/v1/alarms", "uuid").is_empty() && elsewhere.get("/v1/alarms/summary")["major"] == 0);
    assert!(list(&elsewhere.get("/v1/event_log"), "event_log").is_empty());
    let event = texts(&reader.get("/v1/event_log"), "event_log", "uuid")[0].clone();
    for path in [&path, &format!("/v1/event_log/{event}")] {
        assert_eq!(elsewhere.refused("GET", path, "").0, 404, "{path}");
    }
    assert_eq!(elsewhere.refused("DELETE", &path, "").0, 404);
    assert_eq!(elsewhere.suppress_status(), 403);
    let limited = with("limited", &["--role", "publisher", "--site", "tower-1"]);
    assert_eq!(limited.refused("POST", "/v1/alarms", &cpu("host=b").to_string()).0, 403);
    // Who did it stands in history.
    let operator = with("operator", &["--role", "operator"]);
    assert_eq!(operator.ask("DELETE", &path, "").status, 204);
    assert_eq!(operator.refused("DELETE", &path, "").0, 404);
    assert!(operator.shown("/v1/alarms", "uuid").is_empty());
    let history = site.cli_ok(&["history", "--json"]);
    assert!(history.contains("\"operator\"") && history.contains("\"cleared\""), "{history}");
}

impl Client {
    /// The status of an order to suppress some type.
    fn suppress_status(&self) -> u16 {
        let types = self.get("/v1/event_suppression");
        let alarm_id = texts(&types, "event_suppression", "alarm_id")[0].clone();
        self.suppress(&alarm_id, "suppressed").status
    }
}

#[test]
fn the_centre_says_how_many_alarms_each_subcloud_has_also_while_it_is_offline() {
    let scratch = scratch("dc-");
    let setup = |name: &str, config: &str| {
        Setup::new(&scratch.path().join(name)).config(&format!("[node]\nsite = \"{name}\"\n{config}"))
    };
    let centre = setup("noc", &format!("[sites]\nheartbeat = \"1s\"\nsilent_after = \"3s\"\n{LISTENERS}")).start();
    let quick = "[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n";
    let join = |name: &str| {
        let token = centre.cli_ok(&["site", "add", name]);
        let site = setup(name, quick).start();
        site.cli_ok(&["join", &centre.base, "--token", token.trim()]);
        site
    };
    let (subcloud, other) = (join("subcloud1"), join("subcloud2"));
    centre.cli_ok(&["site", "add", "subcloud3"]);
    let event =
        |resource: &str, severity: &str| json!({ "resource": resource, "alarm_type": "test.fan", "severity": severity });
    subcloud.send(&json!([event("a", "critical"), event("b", "major"), event("c", "major"), event("d", "warning")]));
    other.send(&json!([event("a", "minor")]));
    centre.send(&event("own", "critical"));
    let dc = Client::at(&format!("http://{}", centre.listener("dc")));
    let row = |name: &str| {
        let answer = dc.get("/v1.0/alarms");
        let found = list(&answer, "alarm_summary").iter().find(|row| row["region_name"] == name).cloned();
        found.unwrap_or_default()
    };
    let is = |name: &str, counts: [i64; 4], status: &str| {
        let row = row(name);
        let names = ["critical_alarms", "major_alarms", "minor_alarms", "warnings"];
        names.iter().zip(counts).all(|(name, count)| row[name] == count) && row["cloud_status"] == status
    };
    wait_until("the counts are there", || {
        is("subcloud1", [1, 2, 0, 1], "critical") && is("subcloud2", [0, 0, 1, 0], "degraded")
    });
    assert!(is("subcloud3", [-1; 4], "disabled"), "{}", row("subcloud3"));
    let names = texts(&dc.get("/v1.0/alarms"), "alarm_summary", "region_name");
    assert_eq!(names, ["subcloud1", "subcloud2", "subcloud3"], "and the centre is no subcloud");
    assert!(row("subcloud1")["silent_since"].is_null() && dc.get("/")["default_version"]["id"] == "v1.0");
    // What a subcloud has stands below its name in the list of all.
    let fm = Client::at(&centre.base);
    let entities: HashSet<_> =
        fm.shown("/v1/alarms?q.field=severity&q.value=critical", "entity_instance_id").into_iter().collect();
    assert_eq!(entities, ["own", "system=subcloud1.a"].map(str::to_owned).into());
    // What a subcloud owns is cleared there.
    let operator = Client::with(&centre, &centre.base, "operator", &["--role", "operator"]);
    let minor = operator.shown("/v1/alarms?q.field=severity&q.value=minor", "uuid");
    assert_eq!(operator.ask("DELETE", &format!("/v1/alarms/{}", minor[0]), "").status, 204);
    assert_eq!(other.json("/alarms/summary")["active"], 0);
    assert!(is("subcloud2", [0; 4], "OK"), "{}", row("subcloud2"));
    subcloud.kill();
    wait_until("it is known to be silent", || row("subcloud1")["silent_since"].is_string());
    assert!(is("subcloud1", [1, 2, 0, 1], "critical"), "what was known last stands: {}", row("subcloud1"));
    let reader = Client::with(&centre, &dc.base, "limited", &["--role", "reader", "--site", "subcloud2"]);
    assert_eq!(texts(&reader.get("/v1.0/alarms"), "alarm_summary", "region_name"), ["subcloud2"]);
}

#[test]
fn python_fmclient_runs_all_its_commands() {
    let Some(program) = std::env::var_os("KLAXON_FM") else {
        println!("skipped: KLAXON_FM names no fm; python-fmclient is in no registry of packages");
        return;
    };
    let site = Site::start(&format!("{GUARDED}{LISTENERS}"));
    let base = format!("http://{}", site.listener("fm"));
    let admin = Client::with(&site, &base, "admin", &["--role", "admin"]);
    let uuid = admin.report(&cpu("host=controller-0"));
    let log = admin
        .report(&json!({ "alarm_id": "200.020", "alarm_state": "log", "entity_instance_id": "host=a", "reason_text": "went" }));
    let run = |token: &str, args: &[&str]| {
        let mut command = Command::new(&program);
        let output = command.args(["--os-auth-token", token, "--fm-url", &base]).args(args).output().expect("it can be run");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    };
    let token = admin.token.clone().expect("has one");
    let fm = |args: &[&str]| {
        let (is_done, said) = run(&token, args);
        assert!(is_done, "fm {args:?}: {said}");
        said
    };
    let alarms = fm(&["alarm-list", "--uuid", "--nowrap", "--mgmt_affecting", "--degrade_affecting"]);
    assert!(alarms.contains(&uuid) && alarms.contains("said of the processor"), "{alarms}");
    assert!(fm(&["alarm-list", "--uuid", "--nowrap", "-q", "severity>=major;entity_instance_id=controller"]).contains(&uuid));
    assert!(!fm(&["alarm-list", "--uuid", "--nowrap", "-q", "severity>major"]).contains(&uuid));
    assert!(fm(&["alarm-summary"]).contains("| 0               | 1            |"));
    assert!(fm(&["alarm-show", &uuid]).contains("threshold-crossed"));
    assert!(fm(&["event-list", "--nopaging", "--nowrap", "--uuid", "--logs", "-l", "5"]).contains(&log));
    assert!(
        fm(&["event-list", "--nopaging", "--nowrap", "--alarms", "-q", "start=20160131 10:23:45;end=21271225"])
            .contains("100.101")
    );
    assert!(fm(&["event-show", &log]).contains("went"));
    assert!(fm(&["event-suppress-list", "--nopaging", "--include-unsuppressed", "--uuid"]).contains("100.101"));
    let suppressed = fm(&["event-suppress", "--nopaging", "--alarm_id", "100.101,100.103"]);
    assert!(suppressed.contains("Alarm ID: 100.101 suppressed.") && suppressed.contains("Alarm ID: 100.103 suppressed."));
    assert!(!fm(&["alarm-list", "--nowrap"]).contains("100.101"));
    assert!(fm(&["alarm-list", "--nowrap", "--include_suppress"]).contains("S(100.101)"));
    assert!(fm(&["event-unsuppress", "--nopaging", "--alarm_id", "100.103"]).contains("Alarm ID: 100.103 unsuppressed."));
    assert!(fm(&["event-unsuppress-all", "--nopaging"]).contains("Alarm ID: 100.101 unsuppressed."));
    fm(&["alarm-delete", &uuid]);
    let (is_done, said) = run(&token, &["alarm-show", &uuid]);
    assert!(!is_done && said.contains(&format!("Alarm not found: {uuid}")), "{said}");
    let (is_done, said) = run("anytoken", &["alarm-list"]);
    assert!(!is_done && said.contains("Invalid Identity credentials."), "{said}");
}
