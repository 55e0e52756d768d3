//! What a StarlingX Fault Management has is taken over: from a stand-in that gives no more at once than theirs, fails when it is asked for
//! a second page, and loses the conditions in its links.

mod harness;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use harness::Site;
use harness::stand_in::{Asked, StandIn};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-keystone";
/// What it gives at most of alarms.
const LIMIT_MAX: usize = 2000;
/// Of each type, with each severity.
const ALARMS: [(&str, &str, usize); 4] =
    [("900.101", "major", 1500), ("900.102", "critical", 1200), ("900.102", "minor", 1300), ("900.103", "warning", 600)];
const HISTORY: usize = 4500;

fn uuid(kind: u8, number: usize) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}

static ACTIVE: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let each = ALARMS.iter().flat_map(|(id, severity, count)| (0..*count).map(move |number| (id, severity, number)));
    let alarm = |(index, (id, severity, number)): (usize, (&&str, &&str, usize))| {
        json!({ "uuid": uuid(1, index), "alarm_id": id, "alarm_state": "set", "entity_type_id": "host",
            "entity_instance_id": format!("host=compute-{number}.{severity}=1"), "timestamp": "2026-01-31T10:23:45.134583",
            "severity": severity, "reason_text": "It is \"so\"", "alarm_type": "operational-violation",
            "probable_cause": "threshold-crossed", "proposed_repair_action": "Do something.", "service_affecting": true,
            "suppression": false, "suppression_status": "unsuppressed", "mgmt_affecting": "True", "degrade_affecting": "False" })
    };
    let mut all: Vec<Value> = each.enumerate().map(alarm).collect();
    all.sort_by_key(|alarm| alarm["severity"].to_string());
    all
});

/// Newest first. A line of a raise has the uuid of its alarm.
static LOG: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let line = |number: usize| {
        let state = ["set", "clear", "log"][number % 3];
        json!({ "uuid": uuid(1, number), "event_log_id": "900.101", "state": state, "entity_type_id": "host",
            "entity_instance_id": format!("host=compute-{number}"),
            "timestamp": format!("2026-01-31T{:02}:{:02}:{:02}.000000", number / 3600, number / 60 % 60, number % 60),
            "severity": if state == "clear" { "not-applicable" } else { "minor" }, "reason_text": format!("line {number}"),
            "event_log_type": "other", "probable_cause": "unspecified-reason", "proposed_repair_action": "",
            "service_affecting": false, "suppression": true, "suppression_status": "None" })
    };
    (0..HISTORY).rev().map(line).collect()
});

/// Answers as theirs does.
fn answer(asked: &Asked) -> (&'static str, Value) {
    let failed = |text: &str| json!({ "error_message": json!({ "faultcode": "Server", "faultstring": text, "debuginfo": null }).to_string() });
    if asked.header("x-auth-token") != TOKEN {
        return ("401 Unauthorized", json!({ "error_message": "Authentication required" }));
    }
    let query = |key: &str| asked.query(key).into_iter().next();
    let list = match asked.path.split('?').next() {
        Some("/v1/event_suppression") => {
            let types = ["900.101", "900.102", "900.103"].map(|id| {
                let status = if id == "900.103" { "suppressed" } else { "unsuppressed" };
                json!({ "uuid": uuid(3, 1), "alarm_id": id, "description": "d", "suppression_status": status })
            });
            return ("200 OK", json!({ "event_suppression": types }));
        }
        Some("/v1/alarms/summary") => {
            let of = |severity: &str| ACTIVE.iter().filter(|alarm| alarm["severity"] == severity).count();
            let counts = json!({ "critical": of("critical"), "major": of("major"), "minor": of("minor"), "warnings": of("warning"), "status": "critical" });
            return ("200 OK", counts);
        }
        Some("/v1/alarms") => "alarms",
        Some("/v1/event_log") => "event_log",
        _ => return ("404 Not Found", json!({ "error_message": "{\"code\": 404}" })),
    };
    if query("marker").is_some() {
        return ("500 Internal Server Error", failed("tuple indices must be integers or slices, not str"));
    }
    let conditions: Vec<_> = asked.query("q.field").into_iter().zip(asked.query("q.value")).collect();
    let is_picked = |row: &&Value| {
        let suppressed = row["alarm_id"] == "900.103" && query("include_suppress").as_deref() != Some("True");
        !suppressed
            && conditions.iter().all(|(field, value)| match field.as_str() {
                "end" => row["timestamp"].as_str() <= Some(value.as_str()),
                field => row[field].as_str().is_some_and(|shown| shown.contains(value.as_str())),
            })
    };
    let asked_for: usize = query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(LIMIT_MAX);
    let (rows, limit) = if list == "alarms" { (&*ACTIVE, asked_for.min(LIMIT_MAX)) } else { (&*LOG, asked_for) };
    // What is masked is taken out behind the limit: a page that is not full may not be the last.
    let is_masked =
        |row: &&Value| list == "alarms" && conditions.is_empty() && row["entity_instance_id"] == "host=compute-0.critical=1";
    let page: Vec<&Value> = rows.iter().filter(is_picked).take(limit).filter(|row| !is_masked(row)).collect();
    let mut body = json!({ list: page });
    if page.len() == limit {
        let last = page.last().map(|row| row["uuid"].clone());
        body["next"] = json!(format!(
            "http://10.0.0.1:18002/v1/{list}?limit={limit}&marker={}",
            last.and_then(|uuid| uuid.as_str().map(str::to_owned)).unwrap_or_default()
        ));
    }
    ("200 OK", body)
}

#[test]
fn alarms_history_and_suppressed_types_are_taken_over_once() {
    let fm = StandIn::start(answer);
    let site = Site::start("");
    let folder = tempfile::TempDir::new().expect("there is room");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).expect("there is room");
    let (url, token) = (fm.url(), token.to_string_lossy().into_owned());
    let import = ["import", "fm", "--url", &url, "--fm-token-file", &token];
    let all: usize = ALARMS.iter().map(|(_, _, count)| count).sum();

    let said = site.cli_ok(&[&import[..], &["--dry-run"]].concat());
    assert_eq!(
        said.trim(),
        format!("{all} active alarms, {HISTORY} lines of history and 1 suppressed types would come in; 0 cannot")
    );
    assert!(site.alarms().is_empty() && site.json("/suppressions")["suppressions"] == json!([]), "nothing came in");

    let said = site.cli_ok(&import);
    assert!(said.contains(&format!("{} accepted, 0 duplicate, 0 rejected", all + HISTORY)), "{said}");
    let counts = site.json("/alarms/summary");
    let of = |severity: &str| counts["by_severity"][severity].as_u64();
    assert_eq!(
        [of("critical"), of("major"), of("minor"), of("warning")],
        [Some(1200), Some(1500), Some(1300), Some(600)],
        "{counts}"
    );
    let suppressed = site.json("/suppressions");
    assert_eq!(suppressed["suppressions"][0]["alarm_type"], "900.103", "{suppressed}");
    let one = site.json("/alarms?resource=host%3Dcompute-7.critical%3D1&limit=1");
    let alarm = &one["alarms"][0];
    let shown =
        ["severity", "text", "event_time", "event_type", "probable_cause", "repair_action", "service_affecting", "producer"];
    assert_eq!(
        shown.map(|key| alarm[key].clone()),
        [
            json!("critical"),
            json!("It is \"so\""),
            json!("2026-01-31T10:23:45.134583Z"),
            json!("operational-violation"),
            json!("threshold-crossed"),
            json!("Do something."),
            json!(true),
            json!("fm-import"),
        ],
        "{alarm:#}"
    );
    let line = site.json("/history?resource=host%3Dcompute-4&kind=logged");
    let event = &line["changes"][0]["event"];
    assert_eq!((&event["event_time"], &event["text"]), (&json!("2026-01-31T00:00:04Z"), &json!("line 4")), "{line:#}");
    assert_eq!(event["attributes"]["starlingx.state"], "clear", "{line:#}");

    let again = site.cli_ok(&import);
    assert!(again.contains(&format!("0 accepted, {} duplicate, 0 rejected", all + HISTORY)), "{again}");
}

#[test]
fn what_cannot_be_read_is_said_and_nothing_comes_in() {
    let site = Site::start("");
    let fm = StandIn::start(answer);
    let refused = site.cli(&["import", "fm", "--url", &fm.url()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("401"), "{said}");

    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let stranger = StandIn::start(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        ("200 OK", json!({ "event_suppression": "none" }))
    });
    let refused = site.cli(&["import", "fm", "--url", &stranger.url()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("answers as no Fault Management does (event_suppression"), "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(site.alarms().is_empty());
}
