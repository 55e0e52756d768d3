//! Two nodes, one below the other, and a line between them that is cut: what stands at the site stands at the centre, its history
//! is there whole, and nobody is paged for what is past.

mod harness;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use harness::hook::Hook;
use harness::{Node, Setup, scratch, wait_until};
use serde_json::{Value, json};

/// A line that can be cut.
struct Line {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("has one");
        let (open, ends) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<TcpStream>>>::default());
        let (is_open, kept) = (Arc::clone(&open), Arc::clone(&ends));
        std::thread::spawn(move || {
            for below in listener.incoming() {
                let below = below.expect("a connection");
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(above) = TcpStream::connect(target) else { continue };
                let twin = |stream: &TcpStream| stream.try_clone().expect("can be shared");
                kept.lock().expect("nobody panics").extend([twin(&below), twin(&above)]);
                for (from, to) in [(twin(&below), twin(&above)), (above, below)] {
                    std::thread::spawn(move || pass(from, to));
                }
            }
        });
        Self { address, open, ends }
    }

    fn cut(&self) {
        self.open.store(false, Ordering::SeqCst);
        for end in self.ends.lock().expect("nobody panics").drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn event(n: u32, severity: &str) -> Value {
    json!({ "resource": format!("host=h{n}"), "alarm_type": "fan.failed", "severity": severity, "text": format!("fan {n}") })
}

fn send(node: &Node, numbers: std::ops::Range<u32>, severity: &str) {
    let events: Vec<_> = numbers.map(|n| event(n, severity)).collect();
    node.send(&json!(events));
}

/// What a list says of a site's alarms, as far as both nodes must say the same. What came and went meanwhile is only history at the
/// centre.
fn list(node: &Node, site: &str) -> BTreeMap<String, Value> {
    let alarms = node.alarms().into_iter().filter(|alarm| alarm["site"] == site && alarm["cleared"] == false);
    let shown = |alarm: Value| {
        let kept = ["severity", "cleared", "resource", "text", "raise_seq", "acknowledged", "last_change"];
        let said: serde_json::Map<_, _> = kept.iter().map(|key| ((*key).to_owned(), alarm[key].clone())).collect();
        (alarm["id"].as_str().expect("has one").to_owned(), Value::Object(said))
    };
    alarms.map(shown).collect()
}

/// The numbers of all changes of a site, in its own numbering.
fn numbers(node: &Node, site: &str) -> Vec<(u64, u64)> {
    let changes = node.history().into_iter().filter(|change| change["site"] == site);
    let number = |change: Value| (change["epoch"].as_u64().expect("is there"), change["seq"].as_u64().expect("is there"));
    let mut numbers: Vec<_> = changes.map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_stands_at_a_site_stands_at_the_centre_whatever_happens_to_the_line() {
    let scratch = scratch("sites-");
    let hook = Hook::start();
    let told = format!("[node]\nsite = \"noc\"\n[receivers.pager.webhook]\nurl = \"{}\"\n", hook.url());
    let centre = Setup::new(&scratch.path().join("noc")).config(&told).start();
    let line = Line::to(centre.base.trim_start_matches("http://").parse().expect("is an address"));
    let token = centre.cli_ok(&["--json", "site", "add", "depot-7"]);
    let token = serde_json::from_str::<Value>(&token).expect("is JSON")["token"].as_str().expect("is given").to_owned();
    let config = "[node]\nsite = \"depot-7\"\n[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n";
    let site = Setup::new(&scratch.path().join("depot")).config(config).start();
    send(&site, 0..20, "major");
    site.cli_ok(&["join", &format!("http://{}", line.address), "--token", &token]);
    let agree = || {
        wait_until("both lists say the same", || {
            let (here, there) = (list(&site, "depot-7"), list(&centre, "depot-7"));
            here == there
        });
        wait_until("all of history is there, each change once", || numbers(&site, "depot-7") == numbers(&centre, "depot-7"));
    };
    agree();
    // What is new is paged.
    send(&site, 20..21, "critical");
    agree();
    let pages = |what: &str| hook.told().iter().filter(|told| told.to_string().contains(what)).count();
    wait_until("it is paged", || pages("host=h20\"") > 0);
    // Meanwhile: what was is over; one came and went; one comes, goes and comes again.
    line.cut();
    wait_until("the site knows", || site.json("/uplink/state")["state"] == "disconnected");
    send(&site, 0..5, "cleared");
    send(&site, 30..31, "critical");
    send(&site, 30..31, "cleared");
    for severity in ["critical", "cleared", "critical"] {
        send(&site, 40..41, severity);
    }
    line.mend();
    agree();
    wait_until("what still stands is paged", || pages("host=h40\"") > 0);
    // A page behind everything else: what was to come has come.
    send(&site, 50..51, "critical");
    wait_until("the last one is paged", || pages("host=h50\"") > 0);
    assert_eq!(pages("host=h30\""), 0, "nobody is paged for what is past");
    assert_eq!(pages("host=h40\""), 1, "once, for how it stands");
    // What is done at the centre takes effect at the site, and comes back.
    let id = list(&centre, "depot-7").into_iter().find(|(_, alarm)| alarm["resource"] == "host=h50").expect("stands").0;
    centre.cli_ok(&["alarms", "ack", &id]);
    wait_until("the site knows who has seen it", || !site.json(&format!("/alarms/{id}"))["alarm"]["acknowledged"].is_null());
    agree();
    // Also over restarts of both, by force.
    line.cut();
    send(&site, 60..80, "minor");
    site.kill();
    let site = Setup::new(&scratch.path().join("depot")).config(config).start();
    line.mend();
    wait_until("both lists say the same again", || list(&site, "depot-7") == list(&centre, "depot-7"));
    wait_until("history as well", || numbers(&site, "depot-7") == numbers(&centre, "depot-7"));
}

#[test]
fn the_command_line_says_whose_an_alarm_is_who_is_silent_and_what_waits() {
    let scratch = scratch("sites-");
    let start = |name: &str, more: &str| {
        let config = format!("[node]\nsite = \"{name}\"\n{more}");
        Setup::new(&scratch.path().join(name)).config(&config).start()
    };
    const UPLINK: &str = "[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n";
    const QUICK: &str = "[sites]\nheartbeat = \"1s\"\nsilent_after = \"3s\"\n";
    let centre = start("noc", QUICK);
    let region = start("north", &format!("{UPLINK}kind = \"region\"\n{QUICK}"));
    let tower = start("tower-1", &format!("{UPLINK}kind = \"region\"\n"));
    let hut = start("hut-1", UPLINK);
    let join = |below: &Node, above: &Node, name: &str, kind: &str| {
        let token = above.cli_ok(&["site", "add", name, "--kind", kind]);
        below.cli_ok(&["join", &above.base, "--token", token.trim()]);
    };
    join(&region, &centre, "north", "region");
    join(&tower, &region, "tower-1", "region");
    join(&hut, &tower, "hut-1", "site");
    send(&hut, 3..4, "warning");
    send(&tower, 1..2, "major");
    send(&region, 2..3, "minor");
    let at_centre = |site: &str| list(&centre, site).into_keys().next();
    wait_until("all are at the centre", || ["hut-1", "tower-1", "north"].iter().all(|site| at_centre(site).is_some()));
    let of_hut = at_centre("hut-1").expect("stands");
    let (of_tower, of_region) = (at_centre("tower-1").expect("stands"), at_centre("north").expect("stands"));
    let shown = |id: &str| -> Value {
        let all: Value = serde_json::from_str(&centre.cli_ok(&["--json", "alarms"])).expect("is JSON");
        all["alarms"].as_array().expect("is a list").iter().find(|alarm| alarm["id"] == id).expect("is listed").clone()
    };
    let sheet = |id: &str, label: &str| {
        let sheet = centre.cli_ok(&["alarms", "show", id]);
        let found = sheet.lines().find_map(|line| line.strip_prefix(label)).map(|rest| rest.trim().to_owned());
        found.unwrap_or_default()
    };
    assert_eq!(sheet(&of_tower, "owner"), "tower-1 by way of north; only there it changes");
    assert_eq!(sheet(&of_region, "owner"), "north; only there it changes");
    let fresh = shown(&of_tower);
    assert_eq!((&fresh["owner"], &fresh["via"]), (&json!("tower-1"), &json!("north")));
    assert_eq!((&fresh["silent"], &fresh["stale"], &fresh["pending"]), (&Value::Null, &Value::Null, &Value::Null));
    // The tower is silent: the region says so.
    tower.kill();
    wait_until("the tower's alarm is stale", || shown(&of_tower)["stale"].is_object());
    assert_eq!((&shown(&of_tower)["silent"], &shown(&of_region)["silent"]), (&json!("tower-1"), &Value::Null));
    wait_until("so is what came through it", || shown(&of_hut)["stale"].is_object());
    assert_eq!(shown(&of_hut)["silent"], "tower-1", "who is silent is named, not whose it is");
    assert!(sheet(&of_tower, "stale").starts_with("tower-1 is not heard from since "), "{}", sheet(&of_tower, "stale"));
    // Then the region is, and with it all that comes through it; what is ordered meanwhile waits.
    region.kill();
    wait_until("the region's alarm is stale", || shown(&of_region)["stale"].is_object());
    assert_eq!((&shown(&of_tower)["silent"], &shown(&of_region)["silent"]), (&json!("north"), &json!("north")));
    centre.cli_ok(&["alarms", "assign", &of_tower, "--to", "ada"]);
    let waits = sheet(&of_tower, "pending");
    assert!(waits.starts_with("assign by ") && waits.contains("on its way to north since "), "{waits}");
    assert_eq!(shown(&of_tower)["pending"].as_array().map(Vec::len), Some(1));
    let wide = centre.cli_ok(&["alarms", "--wide"]);
    let row = wide.lines().find(|line| line.starts_with(&of_tower[..8])).unwrap_or_else(|| panic!("{wide}"));
    for part in ["stale,pending", "tower-1 by way of north", "north is not heard from since "] {
        assert!(row.contains(part), "{part} is missing in {row}");
    }
    let history = centre.cli_ok(&["history", "--alarm", &of_tower, "--kind", "pending"]);
    assert!(history.contains("on its way to north"), "{history}");
}
