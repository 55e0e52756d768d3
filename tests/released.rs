//! What releases have in common: what each wrote to disks and said over uplinks is read by this program, which goes on from there;
//! what a newer one wrote is refused, and says so.
//!
//! `tests/released/VERSION/recorded.tar.zst` holds, of each released format: a store, and what was listed of it; and what was said
//! over uplinks, a message a line. `KLAXON_RECORD=0.2 cargo test --test released -- --exact a_release_is_recorded` adds one with
//! this program; it is done once, with the release, and never again.

#[path = "released/client.rs"]
mod client;
mod harness;
#[path = "released/journal.rs"]
mod journal;
#[path = "released/record.rs"]
mod record;
#[path = "released/tap.rs"]
mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use client::Client;
use harness::above::Above;
use harness::{Setup, Site, klaxon, scratch, wait_until};
use klaxon_schemas::wire::v1;
use klaxon_schemas::wire::v1::uplink::{Down, Up};
use serde_json::{Value, json};

/// The formats that were released.
const RELEASES: &[&str] = &["0.1"];
/// A time that does not come while anybody reads this.
pub(crate) const FAR: &str = "2100-01-01T00:00:00Z";
/// Nothing is forgotten, however old the recording is.
pub(crate) const ENGINE: &str = "[engine]\npurge_cleared_after = \"36500d\"\nevent_id_lifetime = \"36500d\"\n";

fn recorded(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released").join(version).join("recorded.tar.zst")
}

pub(crate) fn events_of(names: &str) -> Vec<Value> {
    let event = |name| json!({ "resource": format!("host={name}"), "alarm_type": "fan.failed", "severity": "major", "text": format!("the fan of {name}") });
    names.split(' ').map(event).collect()
}

#[test]
fn a_release_is_recorded() {
    let Ok(version) = std::env::var("KLAXON_RECORD") else { return };
    let to = recorded(&version);
    assert!(!to.exists(), "{} is there already: what was released does not change", to.display());
    record::record(&to);
}

/// What was recorded, in a folder of its own.
struct Recorded {
    scratch: tempfile::TempDir,
}

impl Recorded {
    fn of(version: &str) -> Self {
        let scratch = scratch("released-");
        let packed = std::fs::read(recorded(version)).expect("was recorded");
        let mut tar =
            Command::new("tar").args(["-xf", "-", "-C"]).arg(scratch.path()).stdin(Stdio::piped()).spawn().expect("tar runs");
        let into = tar.stdin.take().expect("is piped");
        zstd::stream::copy_decode(&*packed, into).expect("is whole");
        assert!(tar.wait().expect("ends").success());
        Self { scratch }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn json(&self, name: &str) -> Value {
        let text = std::fs::read(self.scratch.path().join(name)).expect("was recorded");
        serde_json::from_slice(&text).expect("is JSON")
    }

    fn list(&self, name: &str) -> Vec<Value> {
        self.json(name).as_array().expect("is a list").clone()
    }

    /// What was said over uplinks: on which, by whom, and what.
    fn said(&self) -> Vec<(String, String, Value)> {
        let text = std::fs::read_to_string(self.scratch.path().join("wire.jsonl")).expect("was recorded");
        let read = |line: &str| {
            let mut said: Value = serde_json::from_str(line).expect("is JSON");
            let word = |said: &Value, key: &str| said[key].as_str().expect("is a text").to_owned();
            (word(&said, "line"), word(&said, "from"), said["message"].take())
        };
        text.lines().map(read).collect()
    }

    fn setup(&self) -> Setup {
        Setup::new(&self.data())
            .config(&format!("[node]\nsite = \"north\"\n[uplink]\nkind = \"region\"\ndown_after = \"30d\"\n{ENGINE}"))
    }

    fn cli(&self, args: &[&str]) -> Output {
        klaxon().args(args).arg(self.data()).output().expect("runs")
    }

    fn verify(&self) -> String {
        let output = self.cli(&["--json", "store", "verify"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("is text")
    }

    fn offline(&self) -> Vec<Value> {
        offline(&self.data())
    }

    /// All that is on the disk, but for locks, which say only who holds them.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut files, mut open) = (BTreeMap::new(), vec![self.data()]);
        while let Some(folder) = open.pop() {
            for path in std::fs::read_dir(folder).expect("is there").map(|file| file.expect("is listed").path()) {
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_none_or(|end| end != "lock") && path.file_name().is_none_or(|name| name != "lock")
                {
                    let bytes = std::fs::read(&path).expect("is there");
                    files.insert(path, bytes);
                }
            }
        }
        files.retain(|path, _| !path.starts_with(self.data().join("view")));
        files
    }

    /// It is refused, by a start and by what reads offline, in these words, and left as it was.
    fn refused(&self, words: &[&str], offline: bool) {
        let before = self.bytes();
        let said = self.setup().try_start().err().expect("does not start").log;
        let verified = self.cli(&["store", "verify"]);
        let mut sayings = vec![said];
        if offline {
            assert!(!verified.status.success());
            sayings.push(String::from_utf8_lossy(&verified.stderr).into_owned());
        }
        for said in sayings {
            for word in words {
                assert!(said.contains(word), "{word:?} is missing in: {said}");
            }
            assert!(!said.contains("damaged"), "{said}");
        }
        let after = self.bytes();
        let changed = |path: &&PathBuf| before.get(*path) != after.get(*path);
        let changed: Vec<_> = after.keys().chain(before.keys()).filter(changed).collect();
        assert!(changed.is_empty(), "was changed: {changed:?}");
    }
}

/// The list of a node that does not run.
pub(crate) fn offline(data: &Path) -> Vec<Value> {
    let list = ["--json", "alarms", "list", "--cleared=any", "--all", "--offline"];
    let output = klaxon().args(list).arg(data).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    by_id(listed["alarms"].as_array().expect("is a list").clone())
}

fn by_id(mut alarms: Vec<Value>) -> Vec<Value> {
    alarms.sort_by_key(|alarm| alarm["id"].to_string());
    alarms
}

/// What a newer release may add: a field in each object that has several, but for the maps that are a reporter's own. An object
/// with one field may be a choice among several forms.
fn extended(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (_, field) in fields.iter_mut().filter(|(name, _)| *name != "attributes") {
                extended(field);
            }
            if fields.len() > 1 {
                fields.insert("of_the_future".to_owned(), json!({ "x": [1, null], "y": "z" }));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(extended),
        _ => {}
    }
}

#[test]
fn a_stored_release_is_read_and_goes_on() {
    for version in RELEASES {
        let recorded = Recorded::of(version);
        let (alarms, history) = (by_id(recorded.list("alarms.json")), recorded.list("history.json"));
        let is = |what: &dyn Fn(&Value) -> bool| assert!(alarms.iter().any(what));
        is(&|alarm| alarm["cleared"] == true);
        for field in ["acknowledged", "assigned", "notes", "shelved", "stale", "owner", "qualifier"] {
            is(&|alarm| !alarm[field].is_null());
        }
        is(&|alarm| alarm["suppressed"] == true);
        assert!(journal::segments(&recorded.data()).len() > 1);
        assert_eq!(recorded.offline(), recorded.list("offline.json"));
        assert!(recorded.verify().contains("\"sound\":true"));
        let node = recorded.setup().start();
        assert_eq!(by_id(node.alarms()), alarms);
        let read = node.history();
        assert_eq!(read[..history.len()], history[..]);
        assert_eq!(node.json("/shelves")["shelves"], recorded.json("shelves.json")["shelves"]);
        // A promise is given its whole time anew.
        let promises = |mut list: Value| {
            list["heartbeats"]
                .as_array_mut()
                .expect("is a list")
                .iter_mut()
                .for_each(|promise| promise["due_at"] = Value::Null);
            list["heartbeats"].take()
        };
        assert_eq!(promises(node.json("/heartbeats")), promises(recorded.json("heartbeats.json")));
        let names = |sites: &Value| {
            sites["sites"].as_array().expect("is a list").iter().map(|site| site["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&node.json("/sites")), names(&recorded.json("sites.json")));
        assert!(recorded.json("sites.json").to_string().contains("\"pending\":1"), "an action is on its way");
        assert_eq!(node.json("/sites/cell-1")["pending"], 1);
        let shown = node.json("/uplink/state");
        assert_eq!((&shown["name"], &shown["kind"]), (&json!("north"), &json!("region")));
        // What came before is recognised, and what is new is numbered behind what was.
        node.send(
            &json!([{ "resource": "host=identified", "alarm_type": "disk.full", "severity": "critical", "event_id": "e-1" }]),
        );
        assert_eq!(node.history().len(), read.len());
        node.send(&json!(events_of("new")));
        let (last, new) = (read.last().expect("there is one"), node.history().pop().expect("there is one"));
        assert_eq!((&new["epoch"], new["seq"].as_u64()), (&last["epoch"], last["seq"].as_u64().map(|seq| seq + 1)));
        assert!(new["position"].as_u64() > last["position"].as_u64());
        assert!(node.stop().success());
        recorded.verify();
    }
}

#[test]
fn fields_that_are_not_known_are_passed_over() {
    for version in RELEASES {
        let recorded = Recorded::of(version);
        journal::rewrite(&recorded.data(), |_, record| extended(record));
        let mut kept: Value =
            serde_json::from_slice(&std::fs::read(recorded.data().join("uplink.json")).expect("is there")).expect("is JSON");
        extended(&mut kept);
        std::fs::write(recorded.data().join("uplink.json"), kept.to_string()).expect("is written");
        let alarms = by_id(recorded.list("alarms.json"));
        assert_eq!(recorded.offline(), recorded.list("offline.json"));
        recorded.verify();
        let node = recorded.setup().start();
        assert_eq!(by_id(node.alarms()), alarms);
        let history = recorded.list("history.json");
        assert_eq!(node.history()[..history.len()], history[..]);
        assert_eq!(node.json("/sites/cell-1")["pending"], 1);
        assert_eq!(node.json("/uplink/state")["name"], "north");
        node.send(&json!(events_of("new")));
    }
}

#[test]
fn what_a_newer_program_stored_is_refused_as_such_and_left_alone() {
    let fresh = || Recorded::of(RELEASES[RELEASES.len() - 1]);
    let format = |path: PathBuf| {
        let mut file: Value = serde_json::from_slice(&std::fs::read(&path).expect("is there")).expect("is JSON");
        // Of a newer one nothing else is known.
        file = json!({ "format": file["format"].as_u64().expect("has one") + 1, "else": 1 });
        std::fs::write(path, file.to_string()).expect("is written");
    };
    let newer = ["format 2", "newer than this program", "knows 1"];
    let recorded = fresh();
    format(recorded.data().join("node.json"));
    recorded.refused(&[&newer[..], &["node.json"]].concat(), true);
    let recorded = fresh();
    format(recorded.data().join("uplink.json"));
    recorded.refused(&[&newer[..], &["uplink.json"]].concat(), false);
    for last in [true, false] {
        let recorded = fresh();
        let segments = journal::segments(&recorded.data());
        journal::set_format(&segments[if last { segments.len() - 1 } else { 0 }], 2);
        recorded.refused(&[&newer[..], &[".seg"]].concat(), true);
    }
    // Words, kinds of keyed records, and kinds of records: the checksums are right.
    type Amend = fn(&mut u8, &mut Value);
    let amendments: [(&[&str], Amend); 3] = [
        (&["a change", "`escalated`"], |kind, record| {
            if *kind == 2 && record["kind"] == "acknowledged" {
                record["kind"] = json!("escalated");
            }
        }),
        (&["a put", "key"], |kind, record| {
            if *kind == 5 && record["key"].as_str().is_some_and(|key| key.starts_with("heartbeat")) {
                record["key"] = json!("oracle\u{1f}of-delphi");
            }
        }),
        (&["kind 9"], |kind, _| {
            if *kind == 3 {
                *kind = 9;
            }
        }),
    ];
    for (words, amend) in amendments {
        let recorded = fresh();
        let mut amended = 0;
        journal::rewrite(&recorded.data(), |kind, record| {
            let before = (*kind, record.clone());
            amend(kind, record);
            amended += usize::from(before != (*kind, record.clone()));
        });
        assert!(amended > 0, "{words:?}");
        recorded.refused(&[words, &["does not know", "a newer program wrote it", ".seg", "offset"]].concat(), true);
    }
}

#[test]
fn what_the_interface_said_and_took_is_read() {
    fn same<T: serde::de::DeserializeOwned + serde::Serialize>(what: &Value) {
        let read: T = serde_json::from_value(what.clone()).unwrap_or_else(|error| panic!("{error}: {what}"));
        assert_eq!(serde_json::to_value(read).expect("serializes"), *what);
        let mut newer = what.clone();
        extended(&mut newer);
        let read: T = serde_json::from_value(newer).unwrap_or_else(|error| panic!("{error}: {what}"));
        assert_eq!(serde_json::to_value(read).expect("serializes"), *what);
    }
    for version in RELEASES {
        let recorded = Recorded::of(version);
        recorded.list("alarms.json").iter().for_each(same::<v1::Alarm>);
        for mut change in recorded.list("history.json") {
            change.as_object_mut().expect("is an object").remove("position");
            same::<v1::Change>(&change);
        }
        let events = recorded.list("events.json");
        events.iter().for_each(same::<v1::Event>);
        let node = Site::start("");
        let answer = node.send(&json!(events));
        assert_eq!(answer["rejected"].as_array().map_or(0, Vec::len), 0, "{answer}");
    }
}

/// What kind a message is, with what a relay carries.
fn kind(message: &Value) -> String {
    let kind = message["m"].as_str().expect("says what it is");
    let carried = message.as_object().expect("is an object").keys().find(|key| *key != "m");
    match (kind, carried) {
        ("relay", Some(carried)) => format!("relay {carried}"),
        _ => kind.to_owned(),
    }
}

const UP: [&str; 11] = [
    "compare",
    "events",
    "hello",
    "moved",
    "relay acted",
    "relay aligned",
    "relay alignment",
    "relay gap",
    "relay history",
    "relay live",
    "rotated",
];
const DOWN: [&str; 7] = ["action", "begin-epoch", "credential", "differ", "reached", "refused", "welcome"];

#[test]
fn what_was_said_over_uplinks_is_understood() {
    for version in RELEASES {
        let recorded = Recorded::of(version);
        let mut kinds = [BTreeSet::new(), BTreeSet::new()];
        for (_, from, message) in recorded.said() {
            let is_down = from == "above";
            kinds[usize::from(is_down)].insert(kind(&message));
            let again = |message: Value| {
                let read = if is_down {
                    serde_json::from_value::<Down>(message).and_then(serde_json::to_value)
                } else {
                    serde_json::from_value::<Up>(message).and_then(serde_json::to_value)
                };
                read.unwrap_or_else(|error| panic!("{error}"))
            };
            assert_eq!(again(message.clone()), message);
            let mut newer = message.clone();
            extended(&mut newer);
            assert_eq!(again(newer), message);
        }
        assert_eq!(kinds, [UP.map(str::to_owned).into(), DOWN.map(str::to_owned).into()], "each kind was recorded");
    }
}

/// A node of today above, and what each recorded node below said to one of its release.
fn replay(recorded: &Recorded, newer: bool) {
    let node = Site::start("[node]\nsite = \"north\"\n[sites]\nsilent_after = \"1h\"\n");
    let mut lines: Vec<(String, Vec<(String, Value)>)> = Vec::new();
    for (line, from, message) in recorded.said().into_iter().filter(|(line, ..)| !line.starts_with("north/")) {
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, said)) => said.push((from, message)),
            None => lines.push((line, vec![(from, message)])),
        }
    }
    let mut credentials = BTreeMap::<String, String>::new();
    for (line, said) in lines {
        let name = line.split_once('/').expect("has a number").0.to_owned();
        let token = credentials.remove(&name).unwrap_or_else(|| {
            let kind = said[0].1["kind"].as_str().expect("is said first").to_owned();
            node.cli_ok(&["site", "add", &name, "--kind", &kind]).trim().to_owned()
        });
        let mut client = Client::open(&node, &token);
        let mut given = None;
        for (from, message) in &said {
            if from == "below" {
                let mut message = message.clone();
                if newer {
                    extended(&mut message);
                }
                client.say(&message);
                if newer {
                    client.say(&json!({ "m": "of-the-future", "x": { "y": 1 } }));
                }
                continue;
            }
            // What is answered to one message is waited for before the next; how far it has come, at the end.
            match kind(message).as_str() {
                "welcome" => {
                    let welcome = client.expect("welcome");
                    assert_eq!((&welcome["child"], &welcome["protocol"]), (&message["child"], &message["protocol"]));
                    assert_eq!(welcome["reached"], message["reached"], "{line}");
                    given = welcome["credential"].as_str().map(str::to_owned);
                }
                "differ" => drop(client.expect("differ")),
                "begin-epoch" => assert_eq!(client.expect("begin-epoch")["beyond"], message["beyond"]),
                "refused" => assert_eq!(client.expect("refused")["code"], message["code"]),
                _ => {}
            }
        }
        if let Some((_, reached)) = said.iter().rfind(|(_, message)| kind(message) == "reached")
            && !said.iter().any(|(_, message)| kind(message) == "refused")
        {
            while client.expect("reached") != *reached {}
        }
        credentials.insert(name.clone(), given.unwrap_or(token));
        drop(client);
        wait_until("it is away", || node.json(&format!("/sites/{name}"))["state"] != "connected");
    }
    let is_cell = |alarm: &Value| alarm["site"] == "cell-1";
    let mut expected: Vec<_> = by_id(recorded.list("alarms.json")).into_iter().filter(is_cell).collect();
    // What was ordered there is not on its way from here.
    expected.iter_mut().filter_map(Value::as_object_mut).for_each(|alarm| drop(alarm.remove("pending")));
    assert!(expected.len() > 4);
    assert_eq!(by_id(node.alarms()).into_iter().filter(is_cell).collect::<Vec<_>>(), expected);
    let of_agent = node.alarms().into_iter().filter(|alarm| alarm["resource"] == "host=agent-1").count();
    assert_eq!(of_agent, 1);
}

#[test]
fn a_site_of_a_release_is_served() {
    for version in RELEASES {
        let recorded = Recorded::of(version);
        replay(&recorded, false);
        replay(&recorded, true);
    }
}

#[test]
fn a_node_of_another_protocol_is_told_which_is_spoken() {
    let node = Site::start("[node]\nsite = \"north\"\n");
    let recorded = Recorded::of(RELEASES[0]);
    let (_, _, mut hello) = recorded.said().into_iter().find(|(line, ..)| line == "cell-1/1").expect("is there");
    hello["protocols"] = json!([2]);
    let token = node.cli_ok(&["site", "add", "cell-1"]);
    let mut client = Client::open(&node, token.trim());
    client.say(&hello);
    let refused = client.expect("refused");
    assert_eq!(refused["code"], "protocol");
    assert_eq!(refused["reason"], "it speaks the protocols [2], here only 1 is spoken");
}

#[test]
fn what_a_release_says_from_above_is_followed() {
    for (version, newer) in RELEASES.iter().flat_map(|version| [(version, false), (version, true)]) {
        let recorded = Recorded::of(version);
        let said = |line: &str, what: &str| {
            let said = recorded
                .said()
                .into_iter()
                .find(|(on, from, message)| on.starts_with(line) && from == "above" && message["m"] == what);
            let mut message = said.unwrap_or_else(|| panic!("{what} was recorded")).2;
            if newer {
                extended(&mut message);
            }
            message
        };
        let scratch = scratch("released-below-");
        let above = Above::start();
        std::fs::write(scratch.path().join("token"), "t").expect("is written");
        let config = format!(
            "[node]\nsite = \"cell-1\"\n[uplink]\nurl = \"{}\"\nretry_min = \"20ms\"\nretry_max = \"50ms\"\njoin_token_file = {:?}\n{ENGINE}",
            above.url(),
            scratch.path().join("token")
        );
        // The first time it is refused, as a release does it.
        let mut refused = said("cell-2/", "refused");
        refused["retry_after_s"] = json!(1);
        above.instead_json(refused.clone());
        let node = Setup::new(&scratch.path().join("data")).config(&config).start();
        wait_until("it was refused", || {
            node.json("/uplink/state")["last_error"].to_string().contains("has another node above it")
        });
        let begin = said("cell-1/", "begin-epoch");
        above.instead_json(begin.clone());
        let reconnect = node.cli(&["uplink"]);
        assert!(reconnect.status.success());
        wait_until("it numbers anew", || {
            above.came().hellos.last().is_some_and(|hello| Some(hello.epoch.0) > begin["beyond"].as_u64())
        });
        node.send(&json!([{ "resource": "host=c-live", "alarm_type": "fan.failed", "severity": "major" }]));
        wait_until("it is connected", || node.json("/uplink/state")["state"] == "connected");
        if newer {
            above.send_json(json!({ "m": "of-the-future", "x": 1 }));
        }
        let mut action = said("cell-1/", "action");
        wait_until("the alarm has come up", || !above.came().alarms.is_empty());
        // It was for an alarm of another store, and for a day.
        let live = || node.alarms().into_iter().find(|alarm| alarm["resource"] == "host=c-live").expect("stands");
        action["alarms"][0]["id"] = live()["id"].clone();
        action["expires_at"] = json!(FAR);
        above.send_json(action.clone());
        wait_until("it is acted", || above.came().acted.iter().any(|(id, _)| json!(id) == action["id"]));
        assert_eq!(live()["acknowledged"]["by"], action["actor"], "{action}");
        let credential = said("cell-1/", "credential");
        above.send_json(credential.clone());
        wait_until("it has the credential", || above.came().rotated == 1);
        let kept = std::fs::read_to_string(node.data.join("uplink.json")).expect("is kept");
        assert!(kept.contains(credential["token"].as_str().expect("is a text")), "{kept}");
        // The welcome is heeded as it was said: another name is kept.
        let mut welcome = said("agent-1/", "welcome");
        welcome["credential"] = Value::Null;
        above.instead_json(welcome.clone());
        above.cut_now();
        above.cut_after(usize::MAX);
        wait_until("it is known as told", || node.json("/uplink/state")["name"] == "agent-1");
        assert_eq!(above.came().wrong, Vec::<String>::new());
    }
}
