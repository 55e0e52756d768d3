//! A node's alarms at pysnmp: each variable of each notification, in traps and informs of v2c and v3, is held to what the API says of
//! the alarm at that moment.

mod harness;

use harness::pysnmp::{Receiver, Told, Varbind};
use harness::{Node, Setup, scratch, wait_until};
use serde_json::{Value, json};

const ROOT: &str = "1.3.6.1.4.1.8072.9999.9999.7780";
const UP_TIME: &str = "1.3.6.1.2.1.1.3.0";
const TRAP_OID: &str = "1.3.6.1.6.3.1.1.4.1.0";
const TRAP_ADDRESS: &str = "1.3.6.1.6.3.18.1.3.0";
/// alarmActiveEntry of ALARM-MIB.
const ACTIVE: &str = "1.3.6.1.2.1.118.1.2.2.1";
/// alarmModelEntry's first column that can be read.
const MODEL: &str = "1.3.6.1.2.1.118.1.1.2.1.3.0";
const STEPS: usize = 5;
const DEVICE: &str = "10.7.0.3";

/// Who is told, as whom, and how: the name, which is the community or the user, the profile, how it is hidden, and whether it confirms.
const RECEIVERS: [(&str, &str, &str, bool); 8] = [
    ("own-trap", "klaxon", "", false),
    ("own-inform", "klaxon", "", true),
    ("own-trap-v3", "klaxon", "aes128", false),
    ("own-inform-v3", "klaxon", "aes256", true),
    ("rfc-trap", "rfc3877", "", false),
    ("rfc-inform", "rfc3877", "", true),
    ("rfc-trap-v3", "rfc3877", "aes256", false),
    ("rfc-inform-v3", "rfc3877", "aes128", true),
];

fn config(port: u16) -> String {
    let mut config = String::new();
    for (name, profile, privacy, confirm) in RECEIVERS {
        let who = if privacy.is_empty() {
            format!("community = \"{name}\"")
        } else {
            config += &user(name, privacy, "auth-password");
            format!("user = \"{name}\"")
        };
        config += &receiver(name, port, &format!("profile = \"{profile}\"\nconfirm = {confirm}\ntimeout = \"20s\"\n{who}"));
    }
    // One whose password is another than pysnmp knows it by, so that a confirmation is seen to mean something.
    config
        + &user("stranger", "aes128", "another-password")
        + &receiver("stranger", port, "user = \"stranger\"\ntimeout = \"500ms\"")
}

fn user(name: &str, privacy: &str, password: &str) -> String {
    format!(
        "[snmp.users.{name}]\nauth = \"sha256\"\nauth_password = \"{password}\"\nprivacy = \"{privacy}\"\n\
         privacy_password = \"priv-password\"\n"
    )
}

fn receiver(name: &str, port: u16, keys: &str) -> String {
    format!(
        "[receivers.{name}]\nfold_after = \"0s\"\nupdates = true\n[receivers.{name}.snmp]\naddress = \"127.0.0.1:{port}\"\n\
         retries = 0\ndatagram_bytes_max = 9000\n{keys}\n"
    )
}

/// What pysnmp needs to know.
fn settings(node: &Node) -> Value {
    let kept = std::fs::read_to_string(node.data.join("snmp-engine.json")).expect("is there");
    let kept: Value = serde_json::from_str(&kept).expect("is JSON");
    let user = |(name, privacy): (&str, &str)| {
        json!({
            "name": name, "auth": "sha256", "auth_password": "auth-password", "privacy": privacy,
            "privacy_password": "priv-password",
        })
    };
    let named = RECEIVERS.iter().map(|(name, _, privacy, _)| (*name, *privacy));
    let users: Vec<Value> =
        named.clone().filter(|(_, privacy)| !privacy.is_empty()).chain([("stranger", "aes128")]).map(user).collect();
    let communities: Vec<&str> = named.filter(|(_, privacy)| privacy.is_empty()).map(|(name, _)| name).collect();
    json!({ "engine_id": kept["engine_id"], "users": users, "communities": communities })
}

/// An alarm and the last change to it, as the API has both.
struct Now {
    alarm: Value,
    change: Value,
    row: u32,
}

impl Now {
    fn of(node: &Node) -> Self {
        let alarm = node.alarms().pop().expect("there is one");
        let change = node.history().pop().expect("there is one");
        let id = alarm["id"].as_str().expect("a text");
        let row = (u32::from_str_radix(&id[..8], 16).expect("hexadecimal") & 0x7fff_ffff).max(1);
        Self { alarm, change, row }
    }

    /// klaxonAlarmTable's variable in this column; the names are those of KLAXON-ALARM-MIB.
    fn cell(&self, column: u32) -> Varbind {
        let alarm = &self.alarm;
        let (kind, value) = match column {
            2 => octets(&alarm["id"]),
            3 => octets(&alarm["site"]),
            4 => octets(&alarm["resource"]),
            5 => octets(&alarm["alarm_type"]),
            6 => octets(&alarm["qualifier"]),
            7 => integer(severity(&alarm["severity"])),
            // The catalogue's: processingErrorAlarm, and storageCapacityProblem of IANAItuProbableCause.
            8 => integer(if alarm["event_type"] == "processing-error" { 4 } else { 0 }),
            9 => octets(&alarm["probable_cause"]),
            10 => gauge(&json!(if alarm["probable_cause"] == "storage-capacity-problem" { 547 } else { 0 })),
            11 => octets(&alarm["text"]),
            12 => octets(&alarm["repair_action"]),
            14 => truth(&alarm["service_affecting"]),
            15 => time(&alarm["first_raised_at"]),
            16 => time(&alarm["raised_at"]),
            17 => time(&alarm["changed_at"]),
            18 => time(&alarm["event_time"]),
            19 => time(&alarm["cleared_at"]),
            20 => integer(if alarm["cleared_by"] == "report" { 1 } else { 0 }),
            21 => truth(&json!(!alarm["acknowledged"].is_null())),
            22 => octets(&alarm["acknowledged"]["by"]),
            23 => time(&alarm["acknowledged"]["at"]),
            24 => octets(&alarm["acknowledged"]["note"]),
            25 => octets(&alarm["assigned"]["to"]),
            26 => octets(&alarm["assigned"]["by"]),
            27 => time(&alarm["assigned"]["at"]),
            28 | 32 | 33 => truth(&json!(false)),
            35 => gauge(&alarm["count"]),
            36 => gauge(&alarm["raise_seq"]),
            37 => time(&alarm["last_reported_at"]),
            38 => octets(&alarm["producer"]),
            39 => truth(&alarm["catalogued"]),
            40 => gauge(&json!(alarm["notes"].as_array().map_or(0, Vec::len))),
            42 => counter(&alarm["last_change"]["epoch"]),
            43 => counter(&alarm["last_change"]["seq"]),
            44 => {
                let lines = alarm["attributes"].as_object().into_iter().flatten();
                let lines: Vec<String> =
                    lines.map(|(name, value)| format!("{name}={}", value.as_str().expect("a text"))).collect();
                octets(&json!(lines.join("\n")))
            }
            // A runbook, shelves, staleness and words of notes: there are none.
            _ => octets(&Value::Null),
        };
        Varbind(format!("{ROOT}.1.4.1.{column}.{}", self.row), kind, value)
    }

    /// A scalar of klaxonDelivery, for the notification with this number.
    fn delivery(&self, object: u32, receiver: &str, number: usize) -> Varbind {
        let change = &self.change;
        let (kind, value) = match object {
            1 => octets(&json!(receiver)),
            2 => counter(&self.alarm["last_change"]["epoch"]),
            3 => counter(&json!(number)),
            4 => truth(&json!(false)),
            5 => integer(change_kind(&change["kind"])),
            6 => time(&change["at"]),
            7 => octets(&change["actor"]),
            8 => octets(&change["note"]),
            9 => integer(severity(&change["previous_severity"])),
            _ => counter(&json!(0)),
        };
        Varbind(format!("{ROOT}.1.7.{object}.0"), kind, value)
    }

    /// What stands behind sysUpTime.0 in KLAXON-ALARM-MIB's words.
    fn own(&self, receiver: &str, number: usize) -> Vec<Varbind> {
        let kind = match self.change["kind"].as_str() {
            Some("raised") => 1,
            Some("cleared") => 3,
            _ => 2,
        };
        let always = [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 16, 17, 18, 19, 21, 28, 36];
        let mut all = vec![oid(TRAP_OID, &format!("{ROOT}.0.{kind}"))];
        all.extend((1..=6).map(|object| self.delivery(object, receiver, number)));
        all.extend(always.map(|column| self.cell(column)));
        all.push(device());
        let more = (7..=10).map(|object| self.delivery(object, receiver, number));
        let more = more.chain((2..=44).filter(|column| !always.contains(column)).map(|column| self.cell(column)));
        all.extend(more.filter(says_something));
        all
    }

    /// The same in ALARM-MIB's words; `model` is the number of the alarm type there.
    fn rfc3877(&self, model: &str, number: usize) -> Vec<Varbind> {
        let is_over = self.alarm["cleared"] == true;
        let state = if is_over { 1 } else { model_state(&self.alarm["severity"]) };
        let when: Vec<String> = date_and_time(&self.alarm["raised_at"]).iter().map(ToString::to_string).collect();
        let active = |column: u32| format!("{ACTIVE}.{column}.0.11.{}.{}", when.join("."), self.row);
        let description =
            format!("{}: {}", self.alarm["resource"].as_str().unwrap_or(""), self.alarm["text"].as_str().unwrap_or(""));
        let (kind, value) = octets(&json!(description));
        let mut all = vec![
            oid(TRAP_OID, if is_over { "1.3.6.1.2.1.118.0.3" } else { "1.3.6.1.2.1.118.0.2" }),
            oid(&active(13), &format!("{MODEL}.{model}.{state}")),
            oid(&active(10), &self.cell(4).0),
            Varbind(active(11), kind, value),
            device(),
        ];
        all.extend([2, 7, 36].map(|column| self.cell(column)));
        all.extend([2, 3].map(|object| self.delivery(object, "", number)));
        all.extend([3, 5, 4, 6].map(|column| self.cell(column)));
        all
    }
}

fn oid(name: &str, value: &str) -> Varbind {
    Varbind(name.to_owned(), "ObjectIdentifier".to_owned(), value.to_owned())
}

fn device() -> Varbind {
    Varbind(TRAP_ADDRESS.to_owned(), "IpAddress".to_owned(), DEVICE.to_owned())
}

/// Of what need not be said nothing is said that is empty.
fn says_something(Varbind(_, kind, value): &Varbind) -> bool {
    match kind.as_str() {
        "OctetString" => !value.is_empty(),
        "Integer32" | "Counter64" => value != "0",
        _ => true,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn octets(text: &Value) -> (String, String) {
    ("OctetString".to_owned(), hex(text.as_str().unwrap_or("").as_bytes()))
}

fn time(time: &Value) -> (String, String) {
    ("OctetString".to_owned(), if time.is_null() { String::new() } else { hex(&date_and_time(time)) })
}

fn integer(number: u32) -> (String, String) {
    ("Integer32".to_owned(), number.to_string())
}

fn gauge(number: &Value) -> (String, String) {
    ("Gauge32".to_owned(), number.to_string())
}

fn counter(number: &Value) -> (String, String) {
    ("Counter64".to_owned(), number.to_string())
}

/// TruthValue, or 3 for what nobody knows.
fn truth(is: &Value) -> (String, String) {
    integer(is.as_bool().map_or(3, |is| if is { 1 } else { 2 }))
}

fn severity(word: &Value) -> u32 {
    place(word, &["", "cleared", "indeterminate", "critical", "major", "minor", "warning"])
}

fn model_state(word: &Value) -> u32 {
    place(word, &["", "cleared", "indeterminate", "warning", "minor", "major", "critical"])
}

fn change_kind(word: &Value) -> u32 {
    place(word, &["", "raised", "updated", "severity-changed", "cleared", "acknowledged", "unacknowledged", "assigned"])
}

/// The number of a word; nothing is 0.
fn place(word: &Value, words: &[&str]) -> u32 {
    let word = word.as_str().unwrap_or("");
    let place = words.iter().position(|known| *known == word);
    place.and_then(|place| place.try_into().ok()).unwrap_or_else(|| panic!("no number is known of {word}"))
}

/// DateAndTime of a time of the API, which is in UTC.
fn date_and_time(time: &Value) -> Vec<u8> {
    let text = time.as_str().expect("a time").trim_end_matches('Z');
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<u16> = seconds.split(['-', 'T', ':']).map(|part| part.parse().expect("a number")).collect();
    let mut octets = parts[0].to_be_bytes().to_vec();
    octets.extend(parts[1..].iter().map(|part| u8::try_from(*part).expect("is small")));
    octets.extend([fraction.as_bytes()[0] - b'0', b'+', 0, 0]);
    octets
}

/// What each receiver was told last, which must be what the API says now.
fn check(node: &Node, pysnmp: &Receiver, step: usize) {
    wait_until("all are told", || RECEIVERS.iter().all(|(name, ..)| pysnmp.told_by(name).len() >= step));
    let now = Now::of(node);
    for (name, profile, privacy, confirm) in RECEIVERS {
        let told = pysnmp.told_by(name);
        assert_eq!(told.len(), step, "{name}: once each: {told:#?}");
        let Told { pdu, version, level, mut varbinds, .. } = told[step - 1].clone();
        let kind = if confirm { "InformRequestPDU" } else { "SNMPv2TrapPDU" };
        let protection = if privacy.is_empty() { ("1", "noAuthNoPriv") } else { ("3", "authPriv") };
        assert_eq!((pdu.as_str(), (version.as_str(), level.as_str())), (kind, protection), "{name}");
        let Varbind(oid, kind, ticks) = varbinds.remove(0);
        assert_eq!((oid.as_str(), kind.as_str()), (UP_TIME, "TimeTicks"), "{name}");
        assert!(ticks.parse::<u32>().is_ok_and(|ticks| ticks < 100 * 600), "{name}: {ticks}");
        let expected = match profile {
            "klaxon" => now.own(name, step),
            _ => {
                // Whatever number the type has there, it has it in each.
                let first = &pysnmp.told_by("rfc-trap")[0].varbinds[2].2;
                now.rfc3877(first.strip_prefix(MODEL).and_then(|rest| rest.split('.').nth(1)).expect("is a model"), step)
            }
        };
        for (told, expected) in varbinds.iter().zip(&expected) {
            assert_eq!(told, expected, "{name}, step {step}");
        }
        assert_eq!(varbinds, expected, "{name}, step {step}");
    }
}

#[test]
fn pysnmp_is_told_what_the_api_says_and_its_confirmations_count() {
    let scratch = scratch("notify-pysnmp-");
    let Some(mut pysnmp) = Receiver::start(scratch.path()) else { return };
    let node = Setup::new(&scratch.path().join("data")).config(&config(pysnmp.port)).start();
    pysnmp.listen(&settings(&node));
    let mut event = json!({
        "resource": format!("device={DEVICE}.filesystem=/var"), "alarm_type": "disk.full", "qualifier": "q1", "severity": "major",
        "text": "Fast voll: 81 %\nüber der Grenze", "repair_action": "Aufräumen", "service_affecting": true, "producer": "probe",
        "event_time": "2026-11-22T08:27:46.5Z", "attributes": { "used": "81 %", "mount": "/var" },
    });
    node.send(&event);
    check(&node, &pysnmp, 1);
    let id = Now::of(&node).alarm["id"].as_str().expect("a text").to_owned();
    node.cli_ok(&["alarms", "ack", &id, "--message", "ich räume auf"]);
    check(&node, &pysnmp, 2);
    node.cli_ok(&["alarms", "assign", &id, "--to", "ann"]);
    check(&node, &pysnmp, 3);
    event["severity"] = "critical".into();
    node.send(&event);
    check(&node, &pysnmp, 4);
    event["severity"] = "cleared".into();
    node.send(&event);
    check(&node, &pysnmp, STEPS);

    let shown = || -> Vec<Value> {
        let shown: Value = serde_json::from_str(&node.cli_ok(&["receivers", "--json"])).expect("is JSON");
        shown["receivers"].as_array().expect("a list").clone()
    };
    let stranger = |shown: &[Value]| shown.iter().find(|one| one["name"] == "stranger").expect("is there").clone();
    wait_until("all but the stranger are done, and it was tried", || {
        let shown = shown();
        let done = shown.iter().filter(|one| one["confirmed"] == STEPS && one["lag_changes"] == 0).count();
        done == RECEIVERS.len() && stranger(&shown)["state"] == "retrying"
    });
    let shown = shown();
    for (name, .., privacy, confirm) in RECEIVERS {
        let one = shown.iter().find(|one| one["name"] == name).expect("is there");
        let counters = &one["counters"];
        assert_eq!((&one["state"], &one["assigned"]), (&json!("ok"), &json!(STEPS)), "{one}");
        assert_eq!(
            [&counters["sent"], &counters["confirmed"], &counters["retried"], &counters["refused"]],
            [&json!(STEPS), &json!(STEPS), &json!(0), &json!(0)],
            "{one}"
        );
        let version = if privacy.is_empty() { "v2c" } else { "v3" };
        let target = one["target"].as_str().expect("a text");
        assert!(target.contains(&format!("{version} {}", if confirm { "informs" } else { "traps" })), "{target}");
    }
    let stranger = stranger(&shown);
    assert_eq!((&stranger["confirmed"], &stranger["counters"]["confirmed"]), (&json!(0), &json!(0)), "{stranger}");
    assert!(pysnmp.told_by("stranger").is_empty());
    assert_eq!(pysnmp.errors(), "", "what pysnmp says of itself");
}
