//! The command line against a node that is played: what it asks, what it shows, and with which code it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};
use tempfile::TempDir;

const ID: &str = "1a2b3c4d-0000-5000-8000-000000000001";

/// A node that gives one answer after the other.
struct Node {
    dir: TempDir,
    asked: Receiver<Asked>,
}

/// What it was asked.
struct Asked {
    /// Method and path.
    line: String,
    body: String,
}

impl Node {
    fn answering(answers: Vec<(u16, String)>) -> Self {
        let dir = TempDir::new().expect("there is room");
        let listener = UnixListener::bind(dir.path().join("k.sock")).expect("the path is short");
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            for connection in listener.incoming() {
                let Some(request) = request(&connection.expect("connects"), &mut answers) else { continue };
                if sender.send(request).is_err() {
                    return;
                }
            }
        });
        Self { dir, asked }
    }

    fn json(answers: Vec<(u16, Value)>) -> Self {
        Self::answering(answers.into_iter().map(|(status, body)| (status, body.to_string())).collect())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("k.sock")
    }

    fn klaxon(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klaxon"));
        command.arg("--node").arg(self.socket()).args(arguments).current_dir(self.dir.path());
        command.env_remove("KLAXON_NODE").env("TZ", "UTC").env("COLUMNS", "100").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.klaxon(arguments).output().expect("it starts")
    }

    fn asked(&self) -> Asked {
        self.asked.recv_timeout(std::time::Duration::from_secs(10)).expect("it was asked")
    }
}

/// Reads one request and answers it. Whoever only tries whether somebody listens asks nothing.
fn request(connection: &UnixStream, answers: &mut impl Iterator<Item = (u16, String)>) -> Option<Asked> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("reads");
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("is a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("comes whole");
    let (status, answer) = answers.next().expect("nobody asks more often than was thought");
    let form = if answer.starts_with("event:") { "text/event-stream" } else { "application/json" };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {form}\r\ncontent-length: {}\r\n\r\n", answer.len());
    // Whoever asked may be gone already.
    let _ = (&*connection).write_all((head + &answer).as_bytes());
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked { line, body: String::from_utf8(body).expect("is UTF-8") })
}

fn alarm() -> Value {
    json!({
        "id": ID, "site": "local", "resource": "host=web-1.filesystem=/var", "alarm_type": "disk.full", "catalogued": true,
        "severity": "major", "cleared": false, "text": "91 % used", "raise_seq": 1,
        "first_raised_at": "2026-11-22T03:12:00Z", "raised_at": "2026-11-22T03:12:00Z", "changed_at": "2026-11-22T03:12:00Z",
        "last_change": {"epoch": 7, "seq": 1}, "count": 3, "last_reported_at": "2026-11-22T03:13:00Z",
        "acknowledged": {"by": "anna", "at": "2026-11-22T03:14:00Z", "note": "on it"}
    })
}

fn change(kind: &str) -> Value {
    json!({ "position": 12, "site": "local", "epoch": 7, "seq": 2, "at": "2026-11-22T03:12:00Z", "kind": kind,
        "actor": "anna", "alarm": alarm() })
}

fn problem(status: u16, detail: &str) -> Value {
    json!({ "type": "about:blank", "title": "No", "status": status, "detail": detail })
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("is UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("is UTF-8")
}

#[test]
fn a_list_is_a_table_that_fits() {
    let node = Node::json(vec![(200, json!({ "position": 12, "epoch": 7, "alarms": [alarm()], "counts": {} }))]);
    let output = node.run(&["alarms", "--resource", "host=web-1", "--min-severity", "minor", "--cleared=any"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(node.asked().line, "GET /api/v1/alarms?resource=host%3Dweb-1&min_severity=minor&cleared=any&limit=100");
    let text = out(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("ID        SEVERITY"), "{text}");
    assert!(lines[1].starts_with("1a2b3c4d  major"), "{text}");
    assert!(lines[1].contains("host=web-1.filesystem=/var  disk.full  acked  91 % used"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn json_is_what_the_node_said_and_all_pages_are_one() {
    let page = |next: Value| json!({ "position": 12, "epoch": 7, "alarms": [alarm()], "next": next });
    let node = Node::json(vec![(200, page(json!("abc"))), (200, page(Value::Null))]);
    let output = node.run(&["--json", "alarms", "list", "--all"]);
    let answer: Value = serde_json::from_str(&out(&output)).expect("is JSON");
    assert_eq!(answer["alarms"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer.get("next"), None);
    node.asked();
    assert!(node.asked().line.ends_with("&cursor=abc"));
}

#[test]
fn a_failure_is_one_line_and_a_code() {
    let cases = [(404, 4), (409, 1), (403, 1), (400, 2), (503, 5), (507, 5), (500, 1)];
    for (status, code) in cases {
        let node = Node::json(vec![(status, problem(status, "this is why"))]);
        let output = node.run(&["alarms", "show", "1a2b"]);
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(code), "klaxon: this is why\n"), "{status}");
        assert_eq!(out(&output), "");
    }
    let node = Node::json(Vec::new());
    std::fs::remove_file(node.socket()).expect("is there");
    let output = node.run(&["alarms"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(err(&output).starts_with("klaxon: no node answers at "), "{}", err(&output));
    assert_eq!(node.run(&["alarms", "--nonsense"]).status.code(), Some(2));
}

#[test]
fn readiness_is_a_word_and_a_code() {
    let node = Node::json(vec![(200, json!({ "ready": true, "reasons": [] }))]);
    let output = node.run(&["ready"]);
    assert_eq!((output.status.code(), out(&output).as_str(), err(&output).as_str()), (Some(0), "ready\n", ""));
    assert_eq!(node.asked().line, "GET /readyz");
    let full = json!({ "ready": false, "reasons": ["disk full"] });
    let output = Node::json(vec![(503, full.clone())]).run(&["ready"]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(5), "klaxon: the node takes no events: disk full\n"));
    let output = Node::json(vec![(503, full.clone())]).run(&["ready", "--json"]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(5), ""));
    assert_eq!(serde_json::from_str::<Value>(&out(&output)).expect("is JSON"), full);
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = TempDir::new().expect("there is room");
    let pages = dir.path().join("man");
    let output = Command::new(env!("CARGO_BIN_EXE_klaxon")).arg("man").arg(&pages).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for page in ["klaxon.1", "klaxon-run.1", "klaxon-alarms-ack.1", "klaxon-store-backup.1"] {
        assert!(std::fs::read_to_string(pages.join(page)).is_ok_and(|text| text.contains(".TH klaxon")), "{page}");
    }
    assert!(!pages.join("klaxon-man.1").exists(), "it is hidden");
}

#[test]
fn an_action_tells_what_it_did_and_what_was_refused() {
    let refusal = json!({ "alarm": ID, "reason": "no-effect", "text": "it is so already" });
    let done = json!({ "id": ID, "actor": "anna", "position": 12, "changes": [change("acknowledged")], "refusals": [refusal] });
    let node = Node::json(vec![(200, done)]);
    let output = node.run(&["alarms", "ack", "1a2b", "9f9f", "-m", "on it"]);
    let asked = node.asked();
    assert_eq!(asked.line, "POST /api/v1/actions");
    let body: Value = serde_json::from_str(&asked.body).expect("is JSON");
    assert_eq!(body, json!({ "action": "acknowledge", "alarms": ["1a2b", "9f9f"], "note": "on it" }));
    assert_eq!(out(&output), "acknowledged  1a2b3c4d  disk.full  host=web-1.filesystem=/var\n");
    assert_eq!(err(&output), "klaxon: 1a2b3c4d: refused: it is so already\n");
    assert_eq!(output.status.code(), Some(1));

    let shelf = json!({ "id": ID, "actor": "anna", "position": 12, "changes": [], "refusals": [] });
    let node = Node::json(vec![(200, shelf)]);
    let conditions = ["--match", "type=disk.full", "--match", "resource=host=web-1"];
    let rest = ["--until", "2027-01-01T00:00:00Z", "--reason", "moving"];
    node.run(&[&["alarms", "shelve"][..], &conditions, &rest].concat());
    let body: Value = serde_json::from_str(&node.asked().body).expect("is JSON");
    let matcher = json!({ "alarm_type": "disk.full", "resource": "host=web-1" });
    assert_eq!(body, json!({ "action": "add-shelf", "match": matcher, "until": "2027-01-01T00:00:00Z", "reason": "moving" }));

    let node = Node::json(Vec::new());
    let output = node.run(&["alarms", "clear", "1a2b", "--site", "x"]);
    assert_eq!(output.status.code(), Some(2), "a filter beside ids would be overlooked");
}

#[test]
fn an_event_is_sent_and_its_fate_told() {
    let one = json!({ "accepted": 1, "duplicate": 0, "rejected": 0, "position": 12,
        "results": [{ "index": 0, "status": "accepted", "position": 12, "alarm": ID, "change": "raised" }] });
    let node = Node::json(vec![(200, one)]);
    let flags =
        ["--resource", "host=web-1", "--type", "disk.full", "--severity", "major", "-a", "mount=/var", "--lease", "10m"];
    let output = node.run(&[&["event", "send"][..], &flags].concat());
    assert_eq!((out(&output).as_str(), output.status.code()), ("raised  1a2b3c4d\n", Some(0)), "{}", err(&output));
    let body: Value = serde_json::from_str(&node.asked().body).expect("is JSON");
    let event = json!({ "resource": "host=web-1", "alarm_type": "disk.full", "severity": "major", "attributes": {"mount": "/var"},
        "lease_s": 600 });
    assert_eq!(body, event);

    let many = json!({ "accepted": 1, "duplicate": 0, "rejected": 1, "position": 13,
        "results": [{ "index": 1, "status": "rejected", "field": "severity", "reason": "is missing" }] });
    let node = Node::json(vec![(200, many)]);
    let file = node.dir.path().join("events");
    std::fs::write(&file, "{\"a\":1}\n\n{\"b\":2}\n").expect("there is room");
    let output = node.run(&["event", "send", file.to_str().expect("is UTF-8")]);
    assert_eq!(node.asked().body, "{\"a\":1}\n{\"b\":2}\n");
    assert_eq!(out(&output), "1 accepted, 0 duplicate, 1 rejected\n");
    assert_eq!(err(&output), "klaxon: event 1: rejected: severity: is missing\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_heartbeat_is_sent_and_who_is_watched_is_listed() {
    let answer = json!({ "position": 12, "heartbeat": {} });
    let node = Node::json(vec![(200, answer)]);
    let output = node.run(&["heartbeat", "a b", "--every", "1h30m", "--severity", "minor", "--site", "north"]);
    assert_eq!((out(&output).as_str(), output.status.code()), ("", Some(0)), "{}", err(&output));
    let asked = node.asked();
    assert_eq!(asked.line, "POST /api/v1/heartbeats/a%20b");
    let body: Value = serde_json::from_str(&asked.body).expect("is JSON");
    assert_eq!(body, json!({ "every": 5400, "severity": "minor", "site": "north" }));

    let node = Node::json(vec![(200, json!({ "position": 13, "change": "cleared", "alarm": ID }))]);
    let output = node.run(&["heartbeat", "a", "--end", "--site", "north"]);
    assert_eq!(node.asked().line, "DELETE /api/v1/heartbeats/a?site=north");
    assert_eq!(out(&output), "cleared  1a2b3c4d  a\na is not watched any more\n");

    let beat = |name: &str, rest: Value| {
        let mut beat = json!({ "name": name, "site": "s", "resource": "r", "alarm_type": "t", "every_s": 300, "severity": "major",
            "last_heard_at": "2026-11-22T03:12:00Z", "lost": false });
        beat.as_object_mut().expect("is an object").extend(rest.as_object().expect("is an object").clone());
        beat
    };
    let first = beat("a\u{1b}[2J", json!({ "due_at": "2999-01-01T00:00:00Z", "text": "words" }));
    let second = beat("b", json!({ "lost": true, "lost_at": "2026-11-22T03:17:00Z", "name": null }));
    let node = Node::json(vec![(200, json!({ "heartbeats": [first, second], "next": "00ff", "total": 9, "lost": 1 }))]);
    let output = node.run(&["heartbeats", "--lost", "--limit", "2"]);
    assert_eq!(node.asked().line, "GET /api/v1/heartbeats?lost=true&limit=2");
    let text = out(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("STATE  EVERY  HEARD"), "{text}");
    assert!(lines[1].starts_with("kept      5m") && lines[1].ends_with("a [2J  major     words"), "{text}");
    assert!(lines[2].starts_with("lost      5m") && lines[2].contains(" -  r t"), "{text}");
    assert!(err(&output).contains("--cursor 00ff"), "{}", err(&output));
}

#[test]
fn one_alarm_is_shown_with_what_is_known_of_it() {
    let entry = json!({ "id": "disk.full", "title": "File system nearly full", "event_type": "processing-error",
        "probable_cause": "storage-capacity-problem", "severities": ["major"], "text": "Little space.", "repair_action": "Delete.",
        "starlingx_id": "100.104" });
    let answer = json!({ "alarm": alarm(), "catalogue": entry, "history": [change("raised")] });
    let node = Node::json(vec![(200, answer)]);
    let text = out(&node.run(&["alarms", "show", "1a2b"]));
    for part in
        ["major  disk.full  host=web-1.filesystem=/var", "by anna, 2026-11-22 03:14:00", ": on it", "Little space.", "raised"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }

    let mut told = change("raised");
    told["because"] = json!([{ "reason": {"entry": 11}, "text": "a report of web-1 came at 03:12:00" }]);
    let node = Node::json(vec![(200, json!({ "alarm": alarm(), "changes": [told] }))]);
    let text = out(&node.run(&["why", "1a2b"]));
    assert!(text.contains("because a report of web-1 came at 03:12:00"), "{text}");
}

#[test]
fn history_goes_by_the_first_digits_of_an_id() {
    let page = json!({ "position": 12, "changes": [change("severity-changed")], "next": "11" });
    let node = Node::json(vec![(200, json!({ "alarm": alarm() })), (200, page)]);
    let output = node.run(&["history", "--alarm", "1a2b", "--kind", "raised", "--kind", "cleared"]);
    assert_eq!(node.asked().line, "GET /api/v1/alarms/1a2b");
    assert_eq!(node.asked().line, format!("GET /api/v1/history?alarm={ID}&kind=raised&kind=cleared&limit=100"));
    assert!(out(&output).contains("2026-11-22 03:12:00  severity changed  major"), "{}", out(&output));
    assert!(err(&output).contains("--cursor 11"), "{}", err(&output));
}

#[test]
fn watching_goes_on_where_it_broke_off() {
    let event = |id: u64| format!("event: change\nid: 7-{id}\ndata: {}\n\n", change("raised"));
    let hello = "event: hello\nid: 7-10\ndata: {\"position\":10,\"epoch\":7}\n\n";
    let node = Node::answering(vec![(200, format!("{hello}{}", event(12))), (200, event(13))]);
    let mut child = node.klaxon(&["alarms", "watch"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines().map(|line| line.expect("is UTF-8"));
    let line = lines.next().expect("tells");
    assert!(line.starts_with("2026-11-22 03:12:00  major"), "{line}");
    assert_eq!(lines.next(), Some(line));
    child.kill().expect("runs");
    child.wait().expect("ends");
    assert_eq!(node.asked().line, "GET /api/v1/stream");
    assert_eq!(node.asked().line, "GET /api/v1/stream?from=12");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let many: Vec<Value> = (0..2000).map(|_| alarm()).collect();
    let node = Node::json(vec![(200, json!({ "alarms": many }))]);
    let mut child = node.klaxon(&["alarms"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
}

#[test]
fn without_a_node_it_says_where_it_looked() {
    let dir = TempDir::new().expect("there is room");
    // A network of its own would be needed to know that nothing listens at the default port; so only the sockets are looked at.
    let mut command = Command::new(env!("CARGO_BIN_EXE_klaxon"));
    let output = command.args(["alarms"]).current_dir(dir.path()).env_remove("KLAXON_NODE").output().expect("it starts");
    if output.status.code() == Some(3) {
        let message = err(&output);
        assert!(message.contains("./klaxon-data/klaxon.sock (no such folder)"), "{message}");
        assert!(message.contains("klaxon run"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
}

#[test]
fn the_reference_is_printed_and_right() {
    let node = Node::json(Vec::new());
    let reference = out(&node.run(&["config", "default"]));
    assert_eq!(reference, std::fs::read_to_string("klaxon.default.toml").expect("tests run in the package's folder"));
    let file = node.dir.path().join("k.toml");
    let path = file.to_str().expect("is UTF-8");
    std::fs::write(&file, &reference).expect("there is room");
    assert_eq!(node.run(&["check", path]).status.code(), Some(0));
    std::fs::write(&file, "[http]\nlistn = 1\n").expect("there is room");
    let output = node.run(&["check", path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).starts_with(&format!("klaxon: {path}:2: http.listn: is no setting")), "{}", err(&output));
}
