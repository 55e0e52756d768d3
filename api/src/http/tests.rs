//! The front end over a real store, behind which stands the simplest of loops: every raise raises, nothing else happens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use klaxon_schemas::alarm::{Alarm, ChangeNumber, EngineMarks, Mark};
use klaxon_schemas::change::{Change, ChangeKind, Reason, Refusal, RefusalReason, Subject};
use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::ids::{AlarmId, Position, Seq};
use klaxon_schemas::names::Site;
use klaxon_schemas::state::Cursor;
use klaxon_schemas::time::{JournalTime, Timestamp};
use klaxon_store::door::Door;
use klaxon_store::publish::{Answer, Intake, Item, Next, PublishError, Published, queue};
use klaxon_store::{Frame, Results, Store, StoreConfig, Writer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::uplink::{SitesConfig, Uplinks};

use super::guard::{NetPeer, Peer};
use super::{Api, HttpConfig, Listening, Parts, Reached, Serves, Trust, router};

const MAJOR: &str = r#"{"resource":"host=web-1.filesystem=/var","alarm_type":"disk.full","severity":"major"}"#;

/// [`MAJOR`] as `gzip` writes it.
const MAJOR_GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x15, 0xca, 0x41, 0x0a, 0x80, 0x20, 0x10, 0x40, 0xd1, 0xbb,
    0xcc, 0xba, 0x8c, 0xb6, 0x81, 0x67, 0x89, 0xa9, 0x46, 0xb2, 0x46, 0x8c, 0x19, 0x35, 0x24, 0xba, 0x7b, 0xb6, 0xfd, 0xef,
    0x3f, 0x20, 0xa4, 0x31, 0xcb, 0x4a, 0x30, 0xc1, 0x1e, 0x35, 0xd9, 0x9b, 0x96, 0x7e, 0x34, 0xce, 0x33, 0x69, 0xd5, 0x44,
    0xc1, 0x0e, 0x05, 0x05, 0x3a, 0x40, 0x46, 0x09, 0x73, 0xaa, 0xd7, 0x7f, 0x6e, 0x5e, 0x4f, 0xe3, 0x32, 0x73, 0x03, 0xa5,
    0x42, 0xe2, 0x53, 0x6d, 0x39, 0xe0, 0x11, 0x05, 0xde, 0x0f, 0x8a, 0xf1, 0xc4, 0x80, 0x55, 0x00, 0x00, 0x00,
];

struct Node {
    api: Api,
    router: Router,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

/// The simplest of engines.
struct Loop {
    intake: Intake,
    writer: Writer,
    store: Store,
    site: Site,
    alarms: HashMap<AlarmId, Arc<Alarm>>,
    cursor: Cursor,
}

fn tcp() -> Peer {
    Peer::Net(Arc::new(NetPeer {
        local: "127.0.0.1:7780".parse().expect("valid"),
        remote: "127.0.0.1:9".parse().expect("valid"),
        trust: Trust::Local,
        names: Vec::new(),
    }))
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T03:12:00Z").expect("valid")
}

impl Loop {
    fn run(mut self) {
        while let Next::Submission(submission) = self.intake.next(None) {
            if submission.items.iter().any(|item| matches!(item, Item::Event(event) if event.text.as_str() == "full disk")) {
                submission.answer(Err(PublishError::DiskFull { free_bytes: 1, needed_bytes: 2 }));
                continue;
            }
            let first = self.writer.next_position();
            let mut frame = Frame::default();
            let mut answers = Vec::new();
            let mut changes = Vec::new();
            for (number, item) in submission.items.iter().enumerate() {
                let position = first.plus(number as u64);
                let (kind, change) = match item {
                    Item::Event(event) => (EntryKind::Event(Arc::clone(event)), self.event(position, event)),
                    Item::Action(action) => (EntryKind::Action(Arc::clone(action)), self.action(action)),
                    Item::Relay(_) | Item::Child(_) | Item::Keep(_) => unreachable!("no request of these tests does"),
                };
                let door = submission.door.clone();
                frame.entries.push(Entry { position, at: JournalTime(1), wall: now(), door, kind });
                answers.push(Answer::Accepted { position, changes: change.clone() });
                changes.extend(change);
            }
            self.cursor.applied = first.plus(submission.items.len() as u64 - 1);
            frame.results = Some(Results { changes, cursor: self.cursor.clone(), ..Results::default() });
            self.writer.submit(frame, move |outcome| {
                let durable = outcome.expect("there is room");
                submission.answer(Ok(Published { answers, durable }));
            });
        }
        self.writer.close().expect("closes");
    }

    fn number(&mut self) -> ChangeNumber {
        self.cursor.epoch = self.store.epoch();
        self.cursor.last_seq = self.cursor.last_seq.next();
        ChangeNumber { epoch: self.cursor.epoch, seq: self.cursor.last_seq }
    }

    fn event(&mut self, position: Position, event: &Event) -> Vec<Arc<Change>> {
        let Report::Raise(severity) = event.report else { return Vec::new() };
        if self.alarms.values().any(|alarm| alarm.key == event.key) {
            return Vec::new();
        }
        let number = self.number();
        let alarm = Arc::new(Alarm {
            id: AlarmId::derive(&self.site, number.epoch, number.seq),
            key: event.key.clone(),
            owner: None,
            via: None,
            catalogued: false,
            severity,
            cleared: None,
            text: event.text.clone(),
            details: event.details.clone(),
            raise_seq: 1,
            first_raised_at: now(),
            raised_at: now(),
            event_time: None,
            changed_at: now(),
            last_change: number,
            count: 1,
            last_reported_at: now(),
            last_event_time: None,
            producer: None,
            acknowledged: None,
            assigned: None,
            notes: Vec::new(),
            shelved: None,
            stale: None,
            engine: EngineMarks::default(),
        });
        vec![self.put(number, alarm, ChangeKind::Raised, Reason::Entry(position), None)]
    }

    fn action(&mut self, action: &klaxon_schemas::action::Action) -> Vec<Arc<Change>> {
        let klaxon_schemas::action::Verb::OnAlarms(targets, _) = &action.verb else { return Vec::new() };
        let mut changes = Vec::new();
        for target in targets {
            let number = self.number();
            let mut alarm = (*self.alarms[&target.id]).clone();
            if alarm.acknowledged.is_some() {
                let refusal =
                    Refusal { action: action.id, alarm: Some(target.id), site: None, reason: RefusalReason::NoEffect };
                changes.push(Arc::new(Change {
                    site: self.site.clone(),
                    number,
                    at: now(),
                    past: false,
                    kind: ChangeKind::Refused,
                    reasons: vec![Reason::Action(action.id)],
                    actor: Some(action.actor.clone()),
                    from: None,
                    note: None,
                    subject: Subject::Refusal(refusal),
                    place: None,
                }));
                continue;
            }
            alarm.acknowledged = Some(Mark { by: action.actor.clone(), at: now(), note: None });
            let reason = Reason::Action(action.id);
            changes.push(self.put(number, Arc::new(alarm), ChangeKind::Acknowledged, reason, Some(action.actor.clone())));
        }
        changes
    }

    fn put(
        &mut self,
        number: ChangeNumber,
        alarm: Arc<Alarm>,
        kind: ChangeKind,
        reason: Reason,
        actor: Option<klaxon_schemas::names::Actor>,
    ) -> Arc<Change> {
        self.alarms.insert(alarm.id, Arc::clone(&alarm));
        Arc::new(Change {
            site: self.site.clone(),
            number,
            at: now(),
            past: false,
            kind,
            reasons: vec![reason],
            actor,
            from: None,
            note: None,
            subject: Subject::Alarm { alarm, previous_severity: None },
            place: None,
        })
    }
}

fn node() -> Node {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, writer, _) = Store::open(StoreConfig::new(dir.path())).expect("opens");
    let (publisher, intake) = queue();
    let site: Site = "here".parse().expect("valid");
    let stop = CancellationToken::new();
    let config = HttpConfig { batch_events_max: 1000, stream_subscribers_max: 2, ..HttpConfig::default() };
    let door = Door::new("http".parse().expect("is a word"), publisher, store.clone());
    let parts = Parts {
        uplinks: Uplinks::new(SitesConfig::default(), door.clone(), site.clone(), None, stop.clone()),
        own: door.clone(),
        door,
        other_doors: Vec::new(),
        site: site.clone(),
        stop: stop.clone(),
        collectors: None,
        uplink: None,
        receivers: None,
        more_metrics: None,
    };
    let api = Api::new(config, parts).expect("is within bounds");
    let cursor = Cursor { last_seq: Seq(0), ..Cursor::default() };
    std::thread::spawn(move || Loop { intake, writer, store, site, alarms: HashMap::new(), cursor }.run());
    Node { router: router(&api, Reached::PLAIN), api, stop, _dir: dir }
}

impl Node {
    async fn send(&self, peer: Peer, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(ConnectInfo(peer));
        self.router.clone().oneshot(request).await.expect("never fails")
    }

    async fn tcp(&self, request: axum::http::request::Builder, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = request.header("host", "localhost:7780").body(body.into()).expect("a request");
        read(self.send(tcp(), request).await).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.tcp(Request::get(path), Body::empty()).await
    }

    async fn post(&self, body: impl Into<Body>) -> (StatusCode, Value) {
        self.tcp(Request::post("/api/v1/events").header("content-type", "application/json"), body).await
    }

    async fn act(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body.to_string()));
        let ada = Peer::Unix { actor: "ada".parse().expect("valid") };
        read(self.send(ada, request.expect("a request")).await).await
    }
}

async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let is_problem = response.headers().get("content-type").is_some_and(|form| form == "application/problem+json");
    assert!(response.headers().contains_key("x-request-id"));
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    if status.is_client_error() {
        assert!(is_problem && value["status"] == status.as_u16() && !value["detail"].as_str().unwrap_or_default().is_empty());
        assert!(value["request_id"].is_string(), "{value}");
    }
    (status, value)
}

#[tokio::test]
async fn an_event_becomes_an_alarm_that_is_listed_shown_and_explained() {
    let node = node();
    let (status, answer) = node.post(MAJOR).await;
    assert_eq!((status, &answer["accepted"], &answer["results"][0]["change"]), (StatusCode::OK, &json!(1), &json!("raised")));
    let (status, list) = node.get(&format!("/api/v1/alarms?at_least={}", answer["position"])).await;
    assert_eq!((status, list["alarms"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let id = list["alarms"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(answer["results"][0]["alarm"], id.as_str());
    assert_eq!(list["counts"]["by_severity"]["major"], 1);
    assert!(list["alarms"][0].get("engine").is_none());
    let (status, shown) = node.get(&format!("/api/v1/alarms/{}", &id[..6])).await;
    assert_eq!((status, &shown["history"][0]["kind"]), (StatusCode::OK, &json!("raised")));
    let (status, why) = node.get(&format!("/api/v1/alarms/{id}/why")).await;
    assert_eq!((status, &why["changes"][0]["because"][0]["entry"]["event"]["severity"]), (StatusCode::OK, &json!("major")));
    let (_, summary) = node.get("/api/v1/alarms/summary").await;
    assert_eq!((&summary["status"], &summary["by_site"][0]["site"]), (&json!("degraded"), &json!("here")));
    let (_, history) = node.get("/api/v1/history?kind=raised&resource=host%3Dweb-1").await;
    assert_eq!(history["changes"][0]["alarm"]["id"], id.as_str());
    for path in ["/api/v1/catalogue", "/api/v1/shelves", "/api/v1/suppressions", "/healthz", "/metrics", "/openapi.json"] {
        assert_eq!(node.get(path).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(node.get("/readyz").await.1["reasons"], json!(["starting"]));
    node.api.started();
    assert_eq!(node.get("/readyz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_batch_is_judged_one_by_one_and_the_sums_balance() {
    let node = node();
    let (status, answer) = node
        .post(format!(
            r#"[{MAJOR},{{"resource":"a"}},7,{{"resource":"host=b","alarm_type":"x","severity":"minor","severty":1}}]"#
        ))
        .await;
    assert_eq!((status, &answer["accepted"], &answer["rejected"]), (StatusCode::OK, &json!(2), &json!(2)));
    let told: Vec<_> = answer["results"].as_array().expect("a list").iter().map(|result| result["index"].clone()).collect();
    assert_eq!(told, [json!(1), json!(2), json!(3)]);
    assert_eq!(answer["results"][2]["ignored"], json!(["severty"]));
    let ndjson = Request::post("/api/v1/events?results=all").header("content-type", "application/x-ndjson");
    let (status, answer) = node.tcp(ndjson, format!("{MAJOR}\n\nnonsense\n{MAJOR}\r\n")).await;
    assert_eq!((status, &answer["accepted"], &answer["rejected"]), (StatusCode::OK, &json!(2), &json!(1)));
    for (body, expected) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("\u{feff}[]", 400),
        ("[1,]", 400),
        ("\0", 400),
        ("7", 422),
        ("[7]", 422),
        ("{}", 422),
        (r#"{"resource":"a\u0000","alarm_type":"x","severity":"major"}"#, 422),
        (r#"{"resource":"a","resource":"b","alarm_type":"x","severity":"major"}"#, 422),
        (r#"{"resource":"a","alarm_type":"x","severity":"major","lease_s":1e999}"#, 422),
        (r#"{"resource":"a","alarm_type":"x","severity":"major","text":"full disk"}"#, 507),
    ] {
        assert_eq!(node.post(body.to_owned()).await.0.as_u16(), expected, "{body}");
    }
    assert_eq!(node.post(vec![b'"', 0xff, b'"']).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(node.post(vec![b' '; 9 << 20]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(node.post(format!("[{}1]", "1,".repeat(1000))).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let form = Request::post("/api/v1/events").header("content-type", "text/plain");
    assert_eq!(node.tcp(form, MAJOR).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let coded = Request::post("/api/v1/events").header("content-type", "application/json").header("content-encoding", "br");
    assert_eq!(node.tcp(coded, MAJOR).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let broken = Request::post("/api/v1/events").header("content-type", "application/json").header("content-encoding", "gzip");
    assert_eq!(node.tcp(broken, MAJOR).await.0, StatusCode::BAD_REQUEST);
    let zipped =
        || Request::post("/api/v1/events").header("content-type", "application/json").header("content-encoding", "gzip");
    assert_eq!(node.tcp(zipped(), MAJOR_GZIP.to_vec()).await.1["accepted"], 1);
    assert_eq!(node.tcp(zipped(), MAJOR_GZIP[..40].to_vec()).await.0, StatusCode::BAD_REQUEST);
    let announced =
        Request::post("/api/v1/events").header("content-type", "application/json").header("content-length", "99999999999");
    assert_eq!(node.tcp(announced, MAJOR).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (received, tally) = node.api.door().counts().totals();
    assert_eq!(received, tally.received());
    assert_eq!((tally.journalled, tally.dropped), (5, [0, 1, 0, 0]));
}

#[tokio::test]
async fn only_who_is_known_acts() {
    let node = node();
    let id = node.post(MAJOR).await.1["results"][0]["alarm"].as_str().expect("an id").to_owned();
    let order = json!({"action": "acknowledge", "alarms": [&id[..8]]});
    let tcp = Request::post("/api/v1/actions").header("content-type", "application/json");
    assert_eq!(node.tcp(tcp, order.to_string()).await.0, StatusCode::UNAUTHORIZED);
    let (status, answer) = node.act("/api/v1/actions", order.clone()).await;
    assert_eq!((status, &answer["actor"]), (StatusCode::OK, &json!("ada")));
    assert_eq!(answer["changes"][0]["alarm"]["acknowledged"]["by"], "ada");
    let (status, refused) = node.act(&format!("/api/v1/alarms/{id}/acknowledge"), json!({})).await;
    assert_eq!((status, &refused["refusals"][0]["reason"]), (StatusCode::CONFLICT, &json!("no-effect")));
    for (body, expected) in [
        (json!([]), 422),
        (json!({}), 422),
        (json!({"action": "explode"}), 422),
        (json!({"action": "acknowledge"}), 422),
        (json!({"action": "acknowledge", "alarms": []}), 422),
        (json!({"action": "acknowledge", "alarms": [7]}), 422),
        (json!({"action": "acknowledge", "alarms": ["xyz"]}), 400),
        (json!({"action": "acknowledge", "alarms": ["00000000"]}), 404),
        (json!({"action": "acknowledge", "filter": {}}), 422),
        (json!({"action": "acknowledge", "filter": {"sit": "x"}}), 422),
        (json!({"action": "acknowledge", "filter": {"site": "elsewhere"}}), 404),
        (json!({"action": "suppress", "alarm_type": "x", "alarms": [id]}), 422),
        (json!({"action": "acknowledge", "filter": {"site": "here"}}), 409),
    ] {
        assert_eq!(node.act("/api/v1/actions", body.clone()).await.0.as_u16(), expected, "{body}");
    }
    assert_eq!(node.act(&format!("/api/v1/alarms/{id}/explode"), json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_that_says_so() {
    let node = node();
    for (path, expected) in [
        ("/page/nothing", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/alarms?limt=1", 400),
        ("/api/v1/alarms?limit=0", 400),
        ("/api/v1/alarms?text=%ff", 400),
        ("/api/v1/alarms?cursor=00", 400),
        ("/api/v1/alarms?at_least=999999", 503),
        ("/api/v1/alarms/xyz", 400),
        ("/api/v1/alarms/%ff", 400),
        ("/api/v1/alarms/0000", 404),
        ("/api/v1/catalogue/%00", 404),
        ("/api/v1/alarms/00000000-0000-0000-0000-000000000000", 404),
        ("/api/v1/history?alarm=7", 400),
        ("/api/v1/history?from=yesterday", 400),
        ("/api/v1/stream?from=999999", 400),
        ("/healthz?x", 400),
    ] {
        let (status, problem) = node.get(path).await;
        assert_eq!(status.as_u16(), expected, "{path}: {problem}");
    }
    let request = Request::delete("/api/v1/alarms").header("host", "localhost").body(Body::empty()).expect("a request");
    let response = node.send(tcp(), request).await;
    assert_eq!(
        (response.status(), &response.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"GET,HEAD".parse().expect("valid"))
    );
    let elsewhere = Request::get("/api/v1/alarms").header("host", "evil.example").body(Body::empty()).expect("a request");
    let response = node.send(tcp(), elsewhere).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn a_list_goes_on_where_its_page_ended() {
    let node = node();
    let event = |n: usize| format!(r#"{{"resource":"host=h{n}","alarm_type":"x","severity":"{}"}}"#, ["minor", "major"][n % 2]);
    let batch: Vec<String> = (0..25).map(event).collect();
    assert_eq!(node.post(format!("[{}]", batch.join(","))).await.1["accepted"], 25);
    for (filter, expected) in [("", 25), ("&severity=minor", 13), ("&min_severity=major", 12)] {
        let mut seen = std::collections::HashSet::new();
        let mut cursor = String::new();
        loop {
            let (status, page) = node.get(&format!("/api/v1/alarms?limit=7&sort=resource&order=asc{filter}{cursor}")).await;
            assert_eq!(status, StatusCode::OK);
            for alarm in page["alarms"].as_array().expect("a list") {
                assert!(seen.insert(alarm["id"].to_string()));
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), expected, "{filter}");
    }
}

#[tokio::test]
async fn the_page_is_served_once_and_held_to_what_it_may_do() {
    let node = node();
    let ask = async |method: &str, path: &str, held: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "localhost").header("if-none-match", held);
        let request = request.body(Body::empty()).expect("a request");
        node.send(tcp(), request).await
    };
    for (path, form) in [
        ("/", "text/html; charset=utf-8"),
        ("/?from=a-link", "text/html; charset=utf-8"),
        ("/page/app.mjs", "text/javascript; charset=utf-8"),
        ("/page/app.css", "text/css; charset=utf-8"),
        ("/page/favicon.svg", "image/svg+xml"),
    ] {
        let response = ask("GET", path, "").await;
        let headers = response.headers().clone();
        assert_eq!((response.status(), &headers["content-type"]), (StatusCode::OK, &form.parse().expect("valid")), "{path}");
        for (name, value) in
            [("cache-control", "no-cache"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(headers[name], value, "{path}");
        }
        let policy = headers["content-security-policy"].to_str().expect("is text");
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(!to_bytes(response.into_body(), usize::MAX).await.expect("a body").is_empty(), "{path}");
        let tag = headers["etag"].to_str().expect("is text");
        let again = ask("GET", path, tag).await;
        assert_eq!((again.status(), &again.headers()["etag"]), (StatusCode::NOT_MODIFIED, &headers["etag"]), "{path}");
        assert_eq!(again.headers()["content-security-policy"], policy);
        assert!(to_bytes(again.into_body(), usize::MAX).await.expect("a body").is_empty(), "{path}");
        let head = ask("HEAD", path, "").await;
        assert_eq!((head.status(), &head.headers()["etag"]), (StatusCode::OK, &headers["etag"]), "{path}");
        assert!(to_bytes(head.into_body(), usize::MAX).await.expect("a body").is_empty(), "{path}");
    }
    assert_eq!(ask("POST", "/", "").await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let elsewhere = Request::get("/").header("host", "evil.example").body(Body::empty()).expect("a request");
    let response = node.send(tcp(), elsewhere).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}

async fn next_event(body: &mut Body) -> Option<String> {
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("in time")?;
    Some(String::from_utf8(frame.expect("no error").into_data().expect("data").to_vec()).expect("text"))
}

#[tokio::test]
async fn a_stream_tells_what_is_committed_goes_on_where_it_was_and_ends_when_the_node_stops() {
    let node = node();
    let follow = async |header: Option<&str>| {
        let request = Request::get("/api/v1/stream").header("host", "localhost").header("accept-encoding", "gzip");
        let request = request.header("last-event-id", header.unwrap_or_default()).body(Body::empty()).expect("a request");
        node.send(tcp(), request).await
    };
    let response = follow(None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(response.headers().get("content-encoding").is_none());
    let mut first = response.into_body();
    let hello = next_event(&mut first).await.expect("hello");
    assert!(hello.contains("event: hello\n"), "{hello}");
    let id = hello.lines().next().and_then(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    node.post(MAJOR).await;
    let change = next_event(&mut first).await.expect("a change");
    assert!(change.contains("event: change\n") && change.contains("\"kind\":\"raised\""), "{change}");
    let mut second = follow(Some(&id)).await.into_body();
    assert!(next_event(&mut second).await.expect("hello").contains("event: hello\n"));
    assert_eq!(next_event(&mut second).await.expect("the same change"), change);
    assert_eq!(follow(None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(second);
    let mut other = follow(Some("1-1")).await.into_body();
    assert!(next_event(&mut other).await.expect("reset").contains("other epoch"));
    assert_eq!(next_event(&mut other).await, None);
    node.stop.cancel();
    assert_eq!(next_event(&mut first).await, None);
}

#[tokio::test]
async fn a_socket_is_served_and_drained() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let node = node();
    let path = node._dir.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).expect("binds");
    let serving = tokio::spawn(super::serve_unix(listener, node.api.clone()));
    let mut client = tokio::net::UnixStream::connect(&path).await.expect("connects");
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sends");
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.expect("answers");
    assert_eq!(&answer, b"HTTP/1.1 200");
    node.stop.cancel();
    tokio::time::timeout(Duration::from_secs(3), serving).await.expect("drains at once").expect("ends").expect("served");
    let everywhere = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("binds");
    let everywhere =
        Listening { name: "open".to_owned(), tcp: everywhere, trust: Trust::Local, tls: None, serves: Serves::Everything };
    assert!(matches!(super::serve(everywhere, node.api.clone()).await, Err(super::ServeError::Open(_))));
}

#[tokio::test]
async fn the_description_names_every_path_and_what_it_refers_to() {
    let node = node();
    let (_, description) = node.get("/openapi.json").await;
    let paths = description["paths"].as_object().expect("paths");
    for path in ["/api/v1/events", "/api/v1/alarms/{id}/{verb}", "/api/v1/stream", "/metrics", "/readyz"] {
        assert!(paths.contains_key(path), "{path}");
    }
    let text = description.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(description["components"]["schemas"].get(name).is_some(), "{name} is referred to and not there");
    }
}
