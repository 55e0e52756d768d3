//! Alertmanager's webhook form, held against what Debian's Alertmanager really sends; and it takes our alerts for its own.

#![expect(clippy::print_stdout, reason = "a test says why it is skipped")]

mod harness;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::hook::{Hook, Post};
use harness::{Site, agent, scratch, wait_until};
use serde_json::{Value, json};

const PROGRAM: &str = "prometheus-alertmanager";
/// Where Debian's program looks for its templates, wherever it was unpacked to.
const TEMPLATES: &str = "/usr/share/prometheus";

/// Ended with the test.
struct Alertmanager {
    child: Child,
    base: String,
    _scratch: tempfile::TempDir,
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let found = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(|file| file.is_file()));
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI needs {PROGRAM}");
        println!("skipped: there is no {PROGRAM} on PATH; ./dev test unpacks one");
    }
    found
}

impl Alertmanager {
    /// One that tells `hook`.
    fn start(program: &Path, hook: &Hook) -> Self {
        let scratch = scratch("alertmanager-");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port();
        let config = format!(
            "route: {{receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers:\n- name: hook\n  webhook_configs: [{{url: '{}', send_resolved: true}}]\n",
            hook.url()
        );
        let file = scratch.path().join("alertmanager.yml");
        std::fs::write(&file, config).expect("can be written");
        let mut command = if Path::new(TEMPLATES).join("alertmanager").is_dir() {
            Command::new(program)
        } else {
            // It was unpacked beside the build. Its templates are put where it looks for them, for its eyes only.
            let share = program.parent().and_then(Path::parent).expect("is in usr/bin").join("share/prometheus");
            let script = format!("mount -t tmpfs none /usr/share && cp -r \"$1\" {TEMPLATES} && shift && exec \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"]).arg(share).arg(program);
            command
        };
        let log = std::fs::File::create(scratch.path().join("log")).expect("can be made");
        let child = command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", scratch.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("can be started");
        let this = Self { child, base: format!("http://127.0.0.1:{port}"), _scratch: scratch };
        wait_until("alertmanager is ready", || {
            agent().get(format!("{}/-/ready", this.base)).call().is_ok_and(|reply| reply.status() == 200)
        });
        this
    }

    fn post(&self, alerts: &Value) {
        let request = agent().post(format!("{}/api/v2/alerts", self.base)).content_type("application/json");
        let mut reply = request.send(alerts.to_string()).expect("it answers");
        let words = reply.body_mut().read_to_string().unwrap_or_default();
        assert_eq!(reply.status(), 200, "{words}");
    }

    fn alerts(&self) -> Value {
        let mut reply = agent().get(format!("{}/api/v2/alerts", self.base)).call().expect("it answers");
        serde_json::from_str(&reply.body_mut().read_to_string().expect("is text")).expect("is JSON")
    }
}

/// What a value is, without what it says. Labels and annotations are maps of texts, whatever their names.
fn shape(value: &Value) -> Value {
    let is_map = |name: &str| ["labels", "annotations", "groupLabels", "commonLabels", "commonAnnotations"].contains(&name);
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match value {
                Value::Object(words) if is_map(name) => {
                    assert!(words.values().all(Value::is_string), "{name}: {words:?}");
                    (name.clone(), json!("words"))
                }
                other => (name.clone(), shape(other)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => json!("text"),
        Value::Number(_) => json!("number"),
        Value::Bool(_) => json!("truth"),
        Value::Null => json!("nothing"),
    }
}

fn wait_posts(hook: &Hook, count: usize) -> Vec<Post> {
    wait_until("it has come", || hook.count() >= count);
    hook.posts()
}

#[test]
fn what_we_send_is_of_the_form_that_alertmanager_sends() {
    let Some(program) = program() else { return };
    let (theirs, ours) = (Hook::start(), Hook::start());
    let alertmanager = Alertmanager::start(&program, &theirs);
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
