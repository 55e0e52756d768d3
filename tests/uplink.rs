//! The parent's side of an uplink, met by a client that speaks the protocol by hand: who may come in, what becomes of what is
//! sent, what is refused and how.

#[path = "uplink/edges.rs"]
mod edges;
mod harness;
#[path = "uplink/strain.rs"]
mod strain;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use harness::authority::Authority;
use harness::{Node, PATIENCE, Setup, Site, scratch, wait_until};
use klaxon_api::uplink::codec;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

const PARENT: &str = "[node]\nsite = \"centre\"";
const NODE: &str = "00000000-0000-4000-8000-000000000001";
const OTHER_NODE: &str = "00000000-0000-4000-8000-000000000002";
/// The numbering that clients claim.
const EPOCH: u64 = 1_000;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A client.
struct Wire {
    runtime: Runtime,
    socket: WebSocketStream<Box<dyn Stream>>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("can be made")
}

impl Wire {
    /// A connection with `token`; the status of the answer if there is none.
    fn open(node: &Node, token: &str) -> Result<Self, u16> {
        let runtime = runtime();
        let address = node.base.strip_prefix("http://").expect("is an address").to_owned();
        let stream = runtime.block_on(TcpStream::connect(address)).expect("connects");
        Self::over(runtime, Box::new(stream), Some(token))
    }

    fn over(runtime: Runtime, stream: Box<dyn Stream>, token: Option<&str>) -> Result<Self, u16> {
        let mut request = "ws://localhost/api/v1/uplink".into_client_request().expect("is a request");
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("is a header"));
        }
        match runtime.block_on(tokio_tungstenite::client_async(request, stream)) {
            Ok((socket, _)) => Ok(Self { runtime, socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    fn say(&mut self, up: &Value) {
        let bytes = codec::encode(up).expect("encodes");
        self.send(Message::Binary(bytes));
    }

    fn send(&mut self, message: Message) {
        let _ = self.runtime.block_on(self.socket.send(message));
    }

    /// The next message; nothing once the connection has ended.
    fn hear(&mut self) -> Option<Value> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => return Some(codec::decode(&bytes).expect("is a message")),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, next).await.expect("comes in time") })
    }

    /// The next message of this kind; others between are passed over.
    fn expect(&mut self, kind: &str) -> Value {
        loop {
            let down = self.hear().unwrap_or_else(|| panic!("the connection ended before {kind}"));
            if down["m"] == kind {
                return down;
            }
            assert!(down["m"] != "refused", "{down} in place of {kind}");
        }
    }

    fn expect_refused(&mut self, code: &str) -> String {
        loop {
            let down = self.hear().unwrap_or_else(|| panic!("the connection ended before it was refused"));
            if down["m"] == "refused" {
                assert_eq!(down["code"], code, "{down}");
                return down["reason"].as_str().expect("is a text").to_owned();
            }
        }
    }

    fn hello(&mut self, changed: &Value) {
        let mut hello = json!({
            "m": "hello", "protocols": [1], "kind": "site", "site": "cell-1", "node": NODE, "epoch": EPOCH,
            "epoch_after": 0, "last": 1_000_000, "last_seq": 5, "version": "9.9.9", "wall": "2026-11-22T03:12:00Z",
        });
        for (key, value) in changed.as_object().expect("is an object") {
            hello[key] = value.clone();
        }
        self.say(&hello);
    }

    /// Goes on in the background: it answers pings, and hears nothing more.
    fn live_on(self) -> Alive {
        let Self { runtime, socket } = self;
        let (mut sink, mut stream) = socket.split();
        runtime.spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
        runtime.spawn(async move {
            while sink.send(Message::Ping(vec![0; 8].into())).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        Alive { _runtime: runtime }
    }
}

struct Alive {
    _runtime: Runtime,
}

fn enrol(node: &Node, args: &[&str]) -> String {
    node.cli_ok(&[&["site", "add"], args].concat()).trim().to_owned()
}

/// A connection that was welcome, and with what it comes again.
fn join(node: &Node, name: &str) -> (Wire, String) {
    let token = enrol(node, &[name]);
    let mut wire = Wire::open(node, &token).expect("the token is good");
    wire.hello(&json!({ "site": name }));
    let credential = wire.expect("welcome")["credential"].as_str().expect("is given one").to_owned();
    (wire, credential)
}

fn again(node: &Node, credential: &str) -> (Wire, Value) {
    let mut wire = Wire::open(node, credential).expect("the credential is good");
    wire.hello(&json!({}));
    let welcome = wire.expect("welcome");
    (wire, welcome)
}

fn aligned(wire: &mut Wire, at: u64) -> Value {
    wire.say(&json!({ "m": "relay", "aligned": { "at": at, "after": at } }));
    wire.expect("reached")
}

/// Changes as a node called cell-1 has them, which was told of alarms of these resources.
fn changes_of(resources: &[&str]) -> Vec<Value> {
    let cell = Site::start("[node]\nsite = \"cell-1\"");
    for resource in resources {
        cell.send(&json!({ "resource": resource, "alarm_type": "fan.failed", "severity": "major" }));
    }
    let mut changes = cell.history();
    changes.iter_mut().for_each(|change| drop(change.as_object_mut().expect("is an object").remove("position")));
    changes
}

fn live(after: u64, upto: u64, changes: &[Value]) -> Value {
    json!({ "m": "relay", "live": { "after": after, "upto": upto, "changes": changes } })
}

fn shown(node: &Node, name: &str) -> Value {
    node.json(&format!("/sites/{name}"))
}

fn of_cell(node: &Node) -> Vec<Value> {
    node.alarms().into_iter().filter(|alarm| alarm["site"] == "cell-1" && alarm["alarm_type"] == "fan.failed").collect()
}

fn active(node: &Node, alarm_type: &str) -> usize {
    let alarms = node.json(&format!("/alarms?alarm_type={alarm_type}"));
    alarms["alarms"].as_array().map_or(0, Vec::len)
}

#[test]
fn what_a_site_sends_is_here_once_however_often_it_is_sent() {
    let node = Site::start(PARENT);
    let changes = changes_of(&["host=a", "host=b"]);
    let (mut wire, credential) = join(&node, "cell-1");
    assert_eq!(aligned(&mut wire, 10)["position"], 10);
    wire.say(&live(10, 20, &changes[..1]));
    wire.say(&live(20, 30, &changes[1..]));
    while wire.expect("reached")["position"] != 30 {}
    assert_eq!(of_cell(&node).len(), 2);
    let site = shown(&node, "cell-1");
    assert_eq!([&site["state"], &site["version"], &site["proof"]], ["connected", "9.9.9", "join-token"]);
    assert_eq!(site["alarms"]["major"], 2);
    drop(wire);
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    let (mut wire, welcome) = again(&node, &credential);
    assert_eq!(welcome["reached"]["position"], 30);
    assert!(welcome.get("credential").is_none());
    let before = node.history().len();
    wire.say(&live(10, 20, &changes[..1]));
    wire.say(&live(20, 30, &changes[1..]));
    assert_eq!(wire.expect("reached")["position"], 30);
    let counts = |line: &str| node.get("//metrics").expect("is served").body.contains(line);
    wait_until("both are counted", || counts("klaxon_door_events_duplicate_total{door=\"uplink\"} 2"));
    assert_eq!(node.history().len(), before, "what came again has no effect");
    assert!(counts("klaxon_sites{kind=\"site\",state=\"connected\"} 1"));
}

#[test]
fn a_token_is_good_once_and_a_wrong_one_waits_for_its_answer() {
    let node = Site::start(PARENT);
    let token = enrol(&node, &["cell-1"]);
    let mut wire = Wire::open(&node, &token).expect("is good");
    wire.hello(&json!({}));
    let credential = wire.expect("welcome")["credential"].clone();
    drop(wire);
    // The answer may not have come to it: the same node may ask again, another may not.
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    let mut wire = Wire::open(&node, &token).expect("is good until the credential is used");
    wire.hello(&json!({}));
    assert_eq!(wire.expect("welcome")["credential"], credential);
    drop(wire);
    let mut wire = Wire::open(&node, &token).expect("is good until the credential is used");
    wire.hello(&json!({ "node": OTHER_NODE }));
    wire.expect_refused("mismatch");
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    drop(again(&node, credential.as_str().expect("is a text")));
    for wrong in [&*token, "klaxon_wrong", ""] {
        let begun = Instant::now();
        assert_eq!(Wire::open(&node, wrong).err(), Some(401));
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    }
    let metrics = node.get("//metrics").expect("is served").body;
    assert!(metrics.contains("klaxon_uplink_denied_total 3"), "{metrics}");
    // A new token makes the old credential void.
    let token = node.cli_ok(&["site", "token", "cell-1"]);
    assert_eq!(Wire::open(&node, credential.as_str().expect("is a text")).err(), Some(401));
    Wire::open(&node, token.trim()).expect("is good");
}

#[test]
fn the_second_of_a_name_is_refused_unless_the_first_is_dead() {
    let node = Site::start(PARENT);
    let (wire, credential) = join(&node, "cell-1");
    let first = wire.live_on();
    for other in [OTHER_NODE, NODE] {
        let mut second = Wire::open(&node, &credential).expect("is good");
        second.hello(&json!({ "node": other }));
        second.expect_refused("doubled");
    }
    assert_eq!(active(&node, "klaxon.site.doubled"), 1);
    drop(first);
    // One that hears nothing any more, as behind a line that was cut.
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    let (_dead, _) = again(&node, &credential);
    let begun = Instant::now();
    let (_wire, _) = again(&node, &credential);
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    let told = node.history().into_iter().filter(|change| change["alarm"]["alarm_type"] == "klaxon.site.doubled").count();
    assert_eq!(told, 1, "it is told once");
}

#[test]
fn what_is_not_understood_or_not_its_own_is_refused_with_a_reason() {
    let node = Site::start(PARENT);
    let changes = changes_of(&["host=a"]);
    let (mut wire, credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    wire.send(Message::Text("hello".into()));
    wire.expect_refused("malformed");
    let refuse = |what: Message, word: &str| {
        wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
        let (mut wire, _) = again(&node, &credential);
        wire.send(what);
        let reason = wire.expect_refused("malformed");
        assert!(reason.contains(word), "{reason}");
        assert!(wire.hear().is_none(), "the connection ends");
    };
    let message = |up: &Value| Message::Binary(codec::encode(up).expect("encodes"));
    refuse(message(&json!({ "m": "hello" })), "protocols");
    refuse(Message::Binary(vec![7; 100].into()), "unfolded");
    refuse(message(&live(11, 20, &changes)), "has come in up to 10");
    refuse(message(&live(10, 9, &[])), "is before");
    refuse(message(&json!({ "m": "compare", "at": 1, "digests": "00" })), "digests");
    refuse(message(&json!({ "m": "events", "after": 0, "upto": 1, "events": [] })), "events");
    let mut foreign = changes.clone();
    foreign[0]["site"] = json!("cell-2");
    refuse(message(&live(10, 20, &foreign)), "cell-2");
    let noise: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    refuse(Message::Binary(noise.into()), "at most 2097152 are allowed");
    assert!(of_cell(&node).is_empty());
    for (changed, code) in [
        (json!({ "protocols": [2] }), "protocol"),
        (json!({ "kind": "agent" }), "mismatch"),
        (json!({ "site": "cell-2" }), "mismatch"),
    ] {
        let mut wire = Wire::open(&node, &credential).expect("is good");
        wire.hello(&changed);
        wire.expect_refused(code);
    }
    let mut wire = Wire::open(&node, &credential).expect("is good");
    assert!(wire.expect_refused("malformed").contains("did not say who it is within 10 s"));
    // What is not known is passed over; a numbering that goes back is begun anew.
    let mut wire = Wire::open(&node, &credential).expect("is good");
    wire.hello(&json!({ "last": 9 }));
    assert_eq!(wire.expect("begin-epoch")["beyond"], EPOCH);
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    let (mut wire, _) = again(&node, &credential);
    wire.say(&json!({ "m": "of-the-future", "x": 1 }));
    wire.say(&live(10, 20, &changes));
    assert_eq!(wire.expect("reached")["position"], 20);
    let metrics = node.get("//metrics").expect("is served").body;
    assert!(metrics.contains("klaxon_uplink_refused_total{reason=\"malformed\"} 10"), "{metrics}");
}

#[test]
fn alarms_are_compared_and_what_differs_is_named() {
    let node = Site::start(PARENT);
    let changes = changes_of(&["host=a"]);
    let (mut wire, credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    wire.say(&live(10, 20, &changes));
    wire.expect("reached");
    let id: String = of_cell(&node)[0]["id"].as_str().expect("is a text").to_owned();
    wire.say(&json!({ "m": "compare", "at": 20, "digests": "0".repeat(256 * 16) }));
    let bucket = u8::from_str_radix(&id[..2], 16).expect("is hexadecimal");
    assert_eq!(wire.expect("differ")["buckets"], json!([bucket]));
    // The site has nothing there: it is gone here too.
    let edge = |fill: &str| {
        format!("{bucket:02x}{}-{}-{}-{}-{}", fill.repeat(6), fill.repeat(4), fill.repeat(4), fill.repeat(4), fill.repeat(12))
    };
    let part = |from: &str, to: &str| {
        let part = json!({ "at": 20, "from": edge(from), "to": edge(to), "alarms": [] });
        json!({ "m": "relay", "alignment": part })
    };
    // Half of it is lost on the way: what is said to be aligned is not.
    wire.say(&part("0", "7"));
    wire.say(&json!({ "m": "relay", "aligned": { "at": 20, "after": 20 } }));
    wire.expect_refused("busy");
    let (mut wire, _) = again(&node, &credential);
    wire.say(&json!({ "m": "compare", "at": 20, "digests": "0".repeat(256 * 16) }));
    wire.expect("differ");
    wire.say(&part("0", "f"));
    aligned(&mut wire, 20);
    assert!(of_cell(&node).is_empty());
}

#[test]
fn silence_is_an_alarm_until_the_site_is_heard_again() {
    let node = Site::start(&format!("{PARENT}\n[sites]\nheartbeat = \"1s\"\nsilent_after = \"2s\""));
    let (mut wire, credential) = join(&node, "cell-1");
    assert_eq!(wire.hear(), None, "a connection over which nothing comes is ended");
    wait_until("it is silent", || active(&node, "klaxon.site.silent") == 1);
    assert_eq!(shown(&node, "cell-1")["state"], "silent");
    let (wire, _) = again(&node, &credential);
    let alive = wire.live_on();
    wait_until("it is heard", || active(&node, "klaxon.site.silent") == 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(shown(&node, "cell-1")["state"], "connected");
        std::thread::sleep(Duration::from_millis(100));
    }
    let site = shown(&node, "cell-1");
    assert!(site["clock_offset_ms"].is_number() && site["round_trip_ms"].is_number(), "{site}");
    drop(alive);
    wait_until("it is silent", || active(&node, "klaxon.site.silent") == 1);
}

#[test]
fn an_action_goes_down_and_what_became_of_it_comes_up() {
    let node = Site::start(PARENT);
    let changes = changes_of(&["host=a"]);
    let (mut wire, credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    wire.say(&live(10, 20, &changes));
    wire.expect("reached");
    let id = of_cell(&node)[0]["id"].as_str().expect("is a text").to_owned();
    node.cli(&["alarms", "ack", &id]);
    let action = wire.expect("action");
    assert_eq!([&action["action"], &action["alarms"][0]["id"]], ["acknowledge", &*id]);
    assert_eq!(shown(&node, "cell-1")["pending"], 1);
    drop(wire);
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    // It is told again as long as nothing came up.
    let (mut wire, _) = again(&node, &credential);
    assert_eq!(wire.expect("action")["id"], action["id"]);
    wire.say(&json!({ "m": "relay", "acted": { "actions": [action["id"]] } }));
    wire.expect("reached");
    wait_until("nothing is on its way", || shown(&node, "cell-1")["pending"] == 0);
}

#[test]
fn events_of_an_agent_become_alarms_of_this_site_once() {
    let node = Site::start(PARENT);
    let token = enrol(&node, &["web-1", "--kind", "agent"]);
    let mut wire = Wire::open(&node, &token).expect("is good");
    wire.hello(&json!({ "kind": "agent", "site": "centre" }));
    wire.expect("welcome");
    let event = |position: u64, resource: &str| {
        let event = json!({ "resource": resource, "alarm_type": "fan.failed", "severity": "major" });
        json!({ "position": position, "received_at": "2026-11-22T03:12:00Z", "event": event })
    };
    let events =
        json!({ "m": "events", "after": 0, "upto": 9, "events": [event(5, "host=web-1.fan=1"), event(9, "host=web-1.fan=2")] });
    wire.say(&events);
    assert_eq!(wire.expect("reached")["position"], 9);
    let before = node.history().len();
    wire.say(&events);
    assert_eq!(wire.expect("reached")["position"], 9);
    assert_eq!(node.history().len(), before);
    let alarms = node.alarms();
    let fans: Vec<_> = alarms.iter().filter(|alarm| alarm["alarm_type"] == "fan.failed").collect();
    assert_eq!(fans.len(), 2);
    assert_eq!([&fans[0]["site"], &fans[0]["event_time"]], ["centre", "2026-11-22T03:12:00Z"]);
    // What is no event, or none that can be taken, is passed over, and what is behind it comes.
    wire.say(&json!({ "m": "events", "after": 9, "upto": 300, "events": [] }));
    assert_eq!(wire.expect("reached")["position"], 300);
    enrol(&node, &["cell-9"]);
    let mut foreign = event(302, "host=web-1.fan=3");
    foreign["event"]["site"] = json!("cell-9");
    wire.say(&json!({ "m": "events", "after": 300, "upto": 302, "events": [foreign] }));
    assert_eq!(wire.expect("reached")["position"], 302);
    wire.say(&json!({ "m": "events", "after": 302, "upto": 310, "events": [event(305, "host=web-1.fan=4")] }));
    assert_eq!(wire.expect("reached")["position"], 310);
    // What it keeps no longer stands in history.
    wire.say(&json!({ "m": "events", "after": 310, "upto": 401, "lost": 88, "events": [event(401, "host=web-1.fan=5")] }));
    assert_eq!(wire.expect("reached")["position"], 401);
    assert!(node.history().iter().any(|change| change.to_string().contains("\"lost\":88")), "{:?}", node.history().last());
    let alarms = node.alarms();
    assert_eq!(alarms.iter().filter(|alarm| alarm["alarm_type"] == "fan.failed").count(), 4);
    wire.say(&live(0, 1, &[]));
    wire.expect_refused("malformed");
}

#[test]
fn a_person_approves_and_retires() {
    let node = Site::start(PARENT);
    let token = enrol(&node, &["cell-1", "--approve"]);
    let knock = || {
        let mut wire = Wire::open(&node, &token).expect("is good");
        wire.hello(&json!({}));
        wire
    };
    knock().expect_refused("awaits-approval");
    let site = shown(&node, "cell-1");
    assert_eq!([&site["state"], &site["node"], &site["version"]], ["awaiting", NODE, "9.9.9"]);
    node.cli_ok(&["site", "approve", "cell-1"]);
    let mut wire = knock();
    let credential = wire.expect("welcome")["credential"].as_str().expect("is given").to_owned();
    assert!(node.cli_ok(&["sites"]).contains("connected"));
    let twice = node.cli(&["site", "add", "cell-1"]);
    assert!(!twice.status.success() && String::from_utf8_lossy(&twice.stderr).contains("enrolled already"));
    node.cli_ok(&["site", "retire", "cell-1"]);
    assert_eq!(wire.hear(), None);
    assert_eq!(Wire::open(&node, &credential).err(), Some(401));
    wait_until("it is there no more", || node.get("/sites/cell-1").is_ok_and(|reply| reply.status == 404));
    assert_eq!(node.post("/sites", r#"{"name":"cell-1"}"#).expect("answers").status, 401, "nobody is known over TCP");
    let own = node.cli(&["site", "add", "centre"]);
    assert!(String::from_utf8_lossy(&own.stderr).contains("the site of this node itself"));
}

#[test]
fn many_are_enrolled_from_a_file_and_listed_in_pages() {
    let node = Site::start(PARENT);
    let scratch = scratch("sites-");
    let file = scratch.path().join("sites.csv");
    let names: String = (0..30).map(|n| format!("cell/{n:02}\n")).collect();
    std::fs::write(&file, format!("name,kind\n{names}web-1,agent\n")).expect("can be written");
    let told = node.cli_ok(&["site", "add", "--from", file.to_str().expect("is a path")]);
    assert_eq!(told.lines().count(), 31);
    assert!(told.lines().all(|line| line.split_once(",klaxon_").is_some()), "{told}");
    let first = node.json("/sites?limit=20");
    assert_eq!((first["total"].as_u64(), first["states"]["enrolled"].as_u64()), (Some(31), Some(31)));
    let second = node.json(&format!("/sites?limit=20&cursor={}", first["next"].as_str().expect("there are more")));
    assert_eq!(second["sites"].as_array().map(Vec::len), Some(11));
    assert!(second.get("next").is_none());
    assert_eq!(node.json("/sites?kind=agent")["sites"][0]["name"], "web-1");
    assert_eq!(node.json("/sites/cell%2F07")["name"], "cell/07");
    assert_eq!(node.json("/sites?state=silent&state=moved")["sites"], json!([]));
    let list = node.cli_ok(&["site", "list", "--prefix", "cell/0", "--all"]);
    assert_eq!(list.lines().count(), 11, "{list}");
    assert!(node.cli_ok(&["site", "show", "cell/07"]).contains("not used yet"));
}

#[test]
fn no_more_connect_than_may() {
    let node = Site::start(&format!("{PARENT}\n[sites]\nconnections_max = 1"));
    let (_wire, _) = join(&node, "cell-1");
    let token = enrol(&node, &["cell-2"]);
    assert_eq!(Wire::open(&node, &token).err(), Some(503));
}

impl Authority {
    fn config(&self) -> String {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        format!(
            "{PARENT}\n[listeners.sites]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{}\"\nkey_file = \"{}\"\nclient_ca_file = \"{}\"",
            file("cert.pem"),
            file("key.pem"),
            file("ca.pem")
        )
    }

    /// A connection to `address`, and the certificate that it shows.
    fn connect(&self, runtime: &Runtime, address: SocketAddr, name: Option<(&str, &[&str])>) -> (Box<dyn Stream>, Vec<u8>) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("is a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("are known").with_root_certificates(roots);
        let config = match name {
            None => builder.with_no_client_auth(),
            Some((common, dns)) => {
                let (certificate, key) = self.issue(common, dns);
                let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("is a key");
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).expect("fits")
            }
        };
        runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("connects");
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = connector.connect("localhost".try_into().expect("is a name"), stream).await.expect("is believed");
            let shown = stream.get_ref().1.peer_certificates().expect("are shown")[0].to_vec();
            (Box::new(stream) as Box<dyn Stream>, shown)
        })
    }

    fn open(&self, node: &Node, name: Option<(&str, &[&str])>, token: Option<&str>) -> Result<Wire, u16> {
        let runtime = runtime();
        let (stream, _) = self.connect(&runtime, node.listener("sites"), name);
        Wire::over(runtime, stream, token)
    }
}

#[test]
fn over_tls_a_certificate_proves_a_node_and_nothing_else_is_served() {
    let authority = Authority::new();
    authority.serve();
    let node = Site::start(&authority.config());
    node.cli_ok(&["site", "add", "cell-1", "--no-token"]);
    assert_eq!(authority.open(&node, None, None).err(), Some(401));
    assert_eq!(authority.open(&node, Some(("cell-2", &[])), None).err(), Some(401));
    for (common, dns) in [("cell-1", &[][..]), ("somebody", &["cell-9", "cell-1"][..])] {
        let mut wire = authority.open(&node, Some((common, dns)), None).expect("is let in");
        wire.hello(&json!({}));
        assert!(wire.expect("welcome").get("credential").is_none());
        assert_eq!(shown(&node, "cell-1")["proof"], "certificate");
        drop(wire);
        wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    }
    let token = enrol(&node, &["cell-3"]);
    let mut wire = authority.open(&node, None, Some(&token)).expect("a token will do");
    wire.hello(&json!({ "site": "cell-3" }));
    wire.expect("welcome");
    let ask = |path: &str| {
        let runtime = runtime();
        let (mut stream, _) = authority.connect(&runtime, node.listener("sites"), None);
        let request = format!("GET {path} HTTP/1.1\r\nHost: centre.example\r\nConnection: close\r\n\r\n");
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            stream.write_all(request.as_bytes()).await.expect("is sent");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse::<u16>().ok())
        })
    };
    assert_eq!(
        [ask("/healthz"), ask("/api/v1/alarms"), ask("/"), ask("/metrics")],
        [Some(200), Some(401), Some(401), Some(401)]
    );
}

#[test]
fn a_new_certificate_is_taken_up_and_connections_go_on() {
    let authority = Authority::new();
    let first = authority.serve();
    let scratch = scratch("site-");
    let node = Setup::new(&scratch.path().join("data")).config(&authority.config()).start();
    let token = enrol(&node, &["cell-1"]);
    let mut wire = authority.open(&node, None, Some(&token)).expect("is let in");
    wire.hello(&json!({}));
    wire.expect("welcome");
    let runtime = runtime();
    let presented = || authority.connect(&runtime, node.listener("sites"), None).1;
    assert_eq!(presented(), first);
    let second = authority.serve();
    node.signal(rustix::process::Signal::HUP);
    wait_until("the new one is shown", || presented() == second);
    authority.write("cert.pem", "nonsense");
    node.signal(rustix::process::Signal::HUP);
    wait_until("it is said", || node.log_text().contains("the old certificate stays"));
    assert_eq!(presented(), second);
    assert_eq!(aligned(&mut wire, 10)["position"], 10);
    // Without a signal too, within seconds.
    let third = authority.serve();
    wait_until("the third one is shown", || presented() == third);
}

#[test]
fn an_old_credential_is_replaced_and_neither_is_void_at_once() {
    let node = Site::start(&format!("{PARENT}\n[sites]\ncredential_lifetime = \"10s\""));
    let (mut wire, old) = join(&node, "cell-1");
    let new = wire.expect("credential")["token"].as_str().expect("is a text").to_owned();
    drop(wire);
    // It did not say that it has it: both hold, and it is given another.
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    drop(again(&node, &new));
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    let (mut wire, _) = again(&node, &old);
    let newest = wire.expect("credential")["token"].as_str().expect("is a text").to_owned();
    assert!(newest != new && newest != old);
    wire.say(&json!({ "m": "rotated" }));
    aligned(&mut wire, 10);
    drop(wire);
    for token in [&old, &newest] {
        wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
        drop(again(&node, token));
    }
}

/// Bytes of memory that the node holds, and how long it has worked, in hundredths of a second.
fn cost(node: &Node) -> (u64, u64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", node.child.id())).expect("it is there");
    let status = read("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("is there");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("is a number");
    let stat = read("stat");
    let fields: Vec<_> = stat.rsplit_once(") ").expect("has a name").1.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("is a number");
    (kib * 1024, ticks(11) + ticks(12))
}

#[test]
fn quiet_sites_cost_little() {
    let many: usize = if harness::is_long() { 1_000 } else { 60 };
    let authority = Authority::new();
    authority.serve();
    let node = Site::start(&authority.config());
    let file = authority.dir.path().join("sites.csv");
    let names: String = (0..many).map(|n| format!("cell-{n}\n")).collect();
    std::fs::write(&file, names).expect("can be written");
    let told = node.cli_ok(&["site", "add", "--from", file.to_str().expect("is a path")]);
    let (before, _) = cost(&node);
    let runtime = runtime();
    let mut sinks = Vec::new();
    for line in told.lines() {
        let (name, token) = line.split_once(',').expect("name and token");
        let (stream, _) = authority.connect(&runtime, node.listener("sites"), None);
        let mut request = "ws://localhost/api/v1/uplink".into_client_request().expect("is a request");
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("is a header"));
        let (socket, _) = runtime.block_on(tokio_tungstenite::client_async(request, stream)).expect("is let in");
        let (mut sink, mut stream) = socket.split();
        let hello = json!({
            "m": "hello", "protocols": [1], "kind": "site", "site": name, "node": NODE, "epoch": EPOCH,
            "epoch_after": 0, "last": 0, "last_seq": 0, "version": "9.9.9", "wall": "2026-11-22T03:12:00Z",
        });
        runtime.block_on(async {
            sink.send(Message::Binary(codec::encode(&hello).expect("encodes"))).await.expect("is sent");
            let first = stream.next().await.expect("is answered").expect("is answered");
            let welcome: Value = codec::decode(&first.into_data()).expect("is a message");
            assert_eq!(welcome["m"], "welcome", "{welcome}");
        });
        runtime.spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
        sinks.push(sink);
    }
    assert_eq!(node.json("/sites?limit=1")["states"]["connected"], many);
    // A heartbeat of each, spread over the time in which one is due, but thrice as fast: ten seconds in place of thirty.
    let (_, worked) = cost(&node);
    let begun = Instant::now();
    for sink in &mut sinks {
        runtime.block_on(sink.send(Message::Ping(vec![0; 8].into()))).expect("is sent");
        std::thread::sleep(Duration::from_secs(10) / u32::try_from(many).expect("is small"));
    }
    let (after, worked_after) = cost(&node);
    let share = (worked_after - worked) as f64 / 100.0 / begun.elapsed().as_secs_f64();
    let each = after.saturating_sub(before) / many as u64;
    println!("{many} sites: {} MiB in all, {} KiB each, {:.1} % of a core", after >> 20, each >> 10, share * 100.0);
    assert!(after < 400 << 20, "{after} bytes");
    assert!(share < 0.3, "{share} of a core, for heartbeats thrice as often as they are");
}
