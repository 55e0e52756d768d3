//! Alertmanager's webhook form, held against what Debian's Alertmanager really sends; and it takes our alerts for its own.

mod harness;

use harness::alertmanager::{Alertmanager, program, shape};
use harness::hook::{Hook, Post};
use harness::{Site, wait_until};
use serde_json::{Value, json};

fn wait_posts(hook: &Hook, count: usize) -> Vec<Post> {
    wait_until("it has come", || hook.count() >= count);
    hook.posts()
}

/// The receiver that is told by `hook`, as Alertmanager's configuration says it.
fn telling(hook: &Hook) -> String {
    format!("webhook_configs: [{{url: '{}', send_resolved: true}}]", hook.url())
}

#[test]
fn what_we_send_is_of_the_form_that_alertmanager_sends() {
    let Some(program) = program() else { return };
    let (theirs, ours) = (Hook::start(), Hook::start());
    let alertmanager = Alertmanager::start(&program, &telling(&theirs));
    let alert = json!({ "labels": { "alertname": "fan.failed", "host": "a" }, "annotations": { "summary": "s" }, "generatorURL": "http://g/" });
    alertmanager.post(&json!([alert]));
    wait_posts(&theirs, 1);
    let mut over = alert.clone();
    over["endsAt"] = json!("2026-01-01T00:00:00Z");
    alertmanager.post(&json!([over]));
    let theirs: Vec<Value> = wait_posts(&theirs, 2).iter().map(Post::json).collect();

    let webhook = format!("{{ url = \"{}\", form = \"alertmanager\", external_url = \"https://klaxon.example\" }}", ours.url());
    let site = Site::start(&format!("[receivers.am]\nwebhook = {webhook}\n"));
    let event = |severity: &str| json!({ "resource": "host=a.fan=2", "alarm_type": "fan.failed", "severity": severity, "text": "it \"stands\"" });
    site.send(&event("major"));
    wait_posts(&ours, 1);
    site.send(&event("cleared"));
    let ours: Vec<Value> = wait_posts(&ours, 2).iter().map(Post::json).collect();

    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(shape(ours), shape(theirs), "{ours:#}\n{theirs:#}");
        assert_eq!((&ours["version"], &ours["status"]), (&theirs["version"], &theirs["status"]));
        assert_eq!(ours["alerts"][0]["status"], theirs["alerts"][0]["status"]);
        let fingerprint = |group: &Value| group["alerts"][0]["fingerprint"].as_str().map(str::len);
        assert_eq!(fingerprint(ours), fingerprint(theirs));
        let key = ours["groupKey"].as_str().expect("is a text");
        assert!(key.starts_with("{}:{alertname=\"fan.failed\", "), "{key}");
    }
    assert_eq!(ours[0]["alerts"][0]["endsAt"], theirs[0]["alerts"][0]["endsAt"], "what fires has no end");
    for name in ["fingerprint", "startsAt"] {
        assert_eq!(ours[0]["alerts"][0][name], ours[1]["alerts"][0][name], "it stays the same: {name}");
    }

    // It takes ours for an alert of its own: names of labels, times and links are such as it allows.
    let mut alert = ours[0]["alerts"][0].clone();
    for name in ["status", "fingerprint", "endsAt"] {
        alert.as_object_mut().expect("is an object").remove(name);
    }
    alertmanager.post(&json!([alert]));
    let listed = alertmanager.alerts();
    let mine = listed.as_array().expect("is a list").iter().find(|listed| listed["labels"] == alert["labels"]);
    let mine = mine.unwrap_or_else(|| panic!("it is not listed: {listed:#}"));
    assert_eq!((&mine["annotations"], &mine["status"]["state"]), (&alert["annotations"], &json!("active")));
}

/// The statuses of a group and of its alerts.
fn statuses(post: &Value) -> (String, Vec<String>) {
    let status = |value: &Value| value["status"].as_str().expect("is a word").to_owned();
    let mut alerts: Vec<String> = post["alerts"].as_array().expect("is a list").iter().map(status).collect();
    alerts.sort_unstable();
    (status(post), alerts)
}

#[test]
fn groups_are_told_as_alertmanager_tells_them() {
    let Some(program) = program() else { return };
    let (theirs, ours) = (Hook::start(), Hook::start());
    let alertmanager = Alertmanager::start(&program, &telling(&theirs));
    let site = Site::start(&format!(
        "[receivers.am]\ngroup = {{ by = [\"alarm_type\", \"resource.rack\"], wait = \"200ms\", interval = \"200ms\" }}\n\
         webhook = {{ url = \"{}\", form = \"alertmanager\", external_url = \"https://klaxon.example\" }}\n",
        ours.url()
    ));
    let tell = |steps: &[(&str, bool)]| {
        let alert = |(host, fires): &(&str, bool)| {
            let mut alert = json!({ "labels": { "alertname": "fan.failed", "host": host }, "annotations": { "summary": "s" },
                "generatorURL": "http://g/" });
            if !fires {
                alert["endsAt"] = json!("2026-01-01T00:00:00Z");
            }
            alert
        };
        let event = |(host, fires): &(&str, bool)| json!({ "resource": format!("host={host}"), "alarm_type": "fan.failed", "severity": if *fires { "major" } else { "cleared" } });
        alertmanager.post(&steps.iter().map(alert).collect());
        site.send(&steps.iter().map(event).collect());
    };
    for (number, steps) in [vec![("a", true), ("b", true)], vec![("a", false)], vec![("b", false)]].into_iter().enumerate() {
        tell(&steps);
        let (theirs, ours) = (wait_posts(&theirs, number + 1)[number].json(), wait_posts(&ours, number + 1)[number].json());
        assert_eq!(statuses(&ours), statuses(&theirs), "{ours:#}\n{theirs:#}");
        assert_eq!(shape(&ours), shape(&theirs), "{ours:#}\n{theirs:#}");
        assert_eq!((&ours["groupLabels"], &ours["groupKey"]), (&theirs["groupLabels"], &theirs["groupKey"]));
        assert_eq!(ours["commonLabels"]["alertname"], theirs["commonLabels"]["alertname"]);
        assert_eq!(ours["commonLabels"]["host"], theirs["commonLabels"]["host"], "{ours:#}\n{theirs:#}");
    }
}
