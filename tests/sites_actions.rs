//! What is done at a centre to alarms of a site: it takes effect there, comes back, and whoever did it is told how it stands, also
//! while nobody can say.

mod harness;
#[path = "harness/wan.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod wan;

use std::time::Duration;

use harness::http::Wire;
use harness::{Node, Reply, Setup, scratch, wait_until};
use serde_json::{Value, json};
use wan::{Wan, Weather};

const DEPOT: &str = "[node]\nsite = \"depot-7\"\n[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n";

/// A centre, a site below it with an alarm, and the line between them.
struct Pair {
    centre: Node,
    site: Node,
    wan: Wan,
    /// The alarm.
    id: String,
    _scratch: tempfile::TempDir,
}

impl Pair {
    fn start() -> Self {
        let scratch = scratch("acts-");
        let centre = Setup::new(&scratch.path().join("noc")).config("[node]\nsite = \"noc\"").start();
        let wan = Wan::to(centre.base.trim_start_matches("http://").parse().expect("is an address"));
        let token = centre.cli_ok(&["site", "add", "depot-7"]);
        let site = Setup::new(&scratch.path().join("depot")).config(DEPOT).start();
        site.cli_ok(&["join", &format!("http://{}", wan.address()), "--token", token.trim()]);
        raise(&site, "major");
        let id = site.alarms()[0]["id"].as_str().expect("has one").to_owned();
        let pair = Self { centre, site, wan, id, _scratch: scratch };
        pair.wait("the alarm is mirrored", |pair| pair.knows(&pair.centre));
        pair
    }

    fn knows(&self, node: &Node) -> bool {
        node.alarms().iter().any(|alarm| alarm["id"] == self.id.as_str())
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        wait_until(what, || is_so(self));
    }

    fn at(&self, node: &Node) -> Value {
        node.json(&format!("/alarms/{}", self.id))["alarm"].take()
    }

    fn cut(&self) {
        self.wan.set(Weather::Cut);
        self.wait("the site is away", |pair| pair.centre.json("/sites/depot-7")["state"] == "away");
    }

    fn mend(&self) {
        self.wan.set(Weather::Fair);
        self.wait("the site is back", |pair| pair.centre.json("/sites/depot-7")["state"] == "connected");
    }

    /// Orders something for the alarm; `more` are the other members of the order.
    fn act(&self, node: &Node, verb: &str, more: &Value) -> Reply {
        let mut order = json!({ "action": verb, "alarms": [self.id] });
        for (key, value) in more.as_object().expect("is an object") {
            order[key] = value.clone();
        }
        let headers = [("content-type", "application/json")];
        let body = order.to_string();
        node.wire_unix(&Wire { method: "POST", path: "/api/v1/actions", headers: &headers, body: body.as_bytes() })
    }

    /// As [`Pair::act`] at the centre, where the owner cannot be asked; the action's id.
    fn act_blindly(&self, verb: &str, more: &Value) -> String {
        let reply = self.act(&self.centre, verb, more);
        assert_eq!(reply.status, 202, "{}", reply.body);
        let answer = reply.json();
        assert_eq!(answer["pending"][0]["child"], "depot-7", "{answer}");
        answer["id"].as_str().expect("has one").to_owned()
    }

    fn action(&self, id: &str) -> Value {
        self.centre.json(&format!("/actions/{id}"))
    }

    /// Waits until the action stands so.
    fn settled(&self, id: &str, status: &str) -> Value {
        self.wait(&format!("the action is {status}"), |pair| pair.action(id)["status"] == status);
        self.action(id)
    }
}

fn raise(site: &Node, severity: &str) {
    let event = json!({ "resource": "host=web-1", "alarm_type": "fan.failed", "severity": severity, "text": "fan 3 stands" });
    site.send(&event);
}

#[test]
fn while_the_site_is_there_the_answer_is_what_it_made_of_it() {
    let pair = Pair::start();
    let reply = pair.act(&pair.centre, "acknowledge", &json!({ "note": "mine" }));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer = reply.json();
    let kinds: Vec<_> = answer["changes"].as_array().expect("are there").iter().map(|change| &change["kind"]).collect();
    assert_eq!(kinds, ["acknowledged"], "{answer}");
    assert_eq!((&answer["changes"][0]["site"], answer.get("pending")), (&json!("depot-7"), None), "{answer}");
    // Who acted reads what it wrote, wherever it looks; the owner did it before.
    let position = &answer["position"];
    let shown = pair.centre.json(&format!("/alarms/{}?at_least={position}", pair.id));
    assert_eq!(shown["alarm"]["acknowledged"]["note"], "mine");
    assert!(shown["position"].as_u64() >= position.as_u64() && shown.get("pending").is_none());
    assert_eq!(pair.at(&pair.site)["acknowledged"]["note"], "mine");
    let of_history = pair.centre.json(&format!("/history?alarm={}&limit=1&at_least={position}", pair.id));
    assert_eq!(of_history["changes"][0]["kind"], "acknowledged");
    let action = pair.action(answer["id"].as_str().expect("has one"));
    assert_eq!((&action["status"], &action["pending"], &action["refusals"]), (&json!("done"), &json!([]), &json!([])));
    // What its owner refuses is refused.
    let again = pair.act(&pair.centre, "acknowledge", &json!({}));
    assert_eq!(again.status, 409, "{}", again.body);
    assert_eq!(again.json()["refusals"][0]["reason"], "no-effect");
    let told = pair.centre.cli_ok(&["alarms", "unack", &pair.id]);
    assert!(told.starts_with("unacknowledged"), "{told}");
    // What has not come is waited for, and then said, by the name of what asked for it.
    for path in ["/alarms", "/alarms/summary", "/shelves", "/suppressions", "/history", &format!("/alarms/{}", pair.id)] {
        let reply = pair.centre.get(&format!("{path}?at_least=999999999")).expect("answers");
        assert_eq!((reply.status, &reply.json()["errors"][0]["field"]), (503, &json!("at_least")), "{path}: {}", reply.body);
    }
}

#[test]
fn while_the_line_is_cut_it_is_on_its_way_and_takes_effect_once_behind_it() {
    let pair = Pair::start();
    pair.cut();
    let id = "6b1e7c1c-5d7a-4b8e-9a51-6f2f2d4c9e01";
    let order = json!({ "text": "spare part is ordered", "id": id });
    assert_eq!(pair.act_blindly("note", &order), id);
    let again = pair.act(&pair.centre, "note", &order);
    assert_eq!((again.status, &again.json()["duplicate"]), (202, &json!(true)), "{}", again.body);
    // Seen wherever the alarm is seen.
    assert_eq!(pair.at(&pair.centre)["pending"], json!([id]));
    let listed = pair.centre.alarms().into_iter().find(|alarm| alarm["id"] == pair.id.as_str()).expect("stands");
    assert_eq!(listed["pending"], json!([id]));
    let action = pair.action(id);
    assert_eq!((&action["status"], &action["changes"][0]["kind"]), (&json!("pending"), &json!("pending")), "{action}");
    let pending = &action["pending"][0];
    assert_eq!(
        (&pending["child"], &pending["verb"], &pending["alarms"]),
        (&json!("depot-7"), &json!("note"), &json!([pair.id]))
    );
    assert!(pending["since"].is_string() && pending["expires_at"].is_string(), "{pending}");
    let sheet = pair.centre.cli_ok(&["alarms", "show", &pair.id]);
    let row = sheet.lines().find(|line| line.starts_with("pending")).unwrap_or_else(|| panic!("{sheet}"));
    assert!(row.contains("note") && row.contains("depot-7"), "{row}");
    let told = pair.centre.cli(&["alarms", "ack", &pair.id]);
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && said.starts_with("pending at depot-7  "), "{told:?}");
    assert_eq!(pair.at(&pair.centre)["pending"].as_array().map(Vec::len), Some(2));
    pair.mend();
    let done = pair.settled(id, "done");
    let kinds: Vec<_> = done["changes"].as_array().expect("are there").iter().map(|change| &change["kind"]).collect();
    assert_eq!(kinds, ["pending", "noted"], "{done}");
    pair.wait("nothing is pending any more", |pair| pair.at(&pair.centre).get("pending").is_none());
    for node in [&pair.site, &pair.centre] {
        let alarm = pair.at(node);
        assert_eq!(alarm["notes"].as_array().map(Vec::len), Some(1), "{alarm}");
        assert!(alarm["acknowledged"].is_object(), "{alarm}");
    }
    // Once, also behind it.
    let again = pair.act(&pair.centre, "note", &order);
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)), "{}", again.body);
    assert_eq!(pair.at(&pair.site)["notes"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_was_raised_again_meanwhile_is_not_what_was_meant() {
    let pair = Pair::start();
    pair.cut();
    let id = pair.act_blindly("acknowledge", &json!({}));
    for severity in ["cleared", "critical"] {
        raise(&pair.site, severity);
    }
    pair.mend();
    let refused = pair.settled(&id, "refused");
    assert_eq!(refused["refusals"][0]["reason"], "raised-again", "{refused}");
    assert_eq!(refused["refusals"][0]["alarm"], pair.id.as_str());
    pair.wait("the episode is known", |pair| pair.at(&pair.centre)["raise_seq"] == 2);
    for node in [&pair.centre, &pair.site] {
        let alarm = pair.at(node);
        assert!(alarm.get("acknowledged").is_none() && alarm.get("pending").is_none(), "{alarm}");
    }
    let history = pair.centre.json(&format!("/history?alarm={}&kind=refused", pair.id));
    assert_eq!(history["changes"].as_array().map(Vec::len), Some(1), "{history}");
}

#[test]
fn what_nobody_answers_in_time_is_given_up_and_not_done_later() {
    let pair = Pair::start();
    pair.cut();
    let expires_at = (jiff::Timestamp::now() + Duration::from_secs(3)).to_string();
    let id = pair.act_blindly("acknowledge", &json!({ "expires_at": expires_at }));
    let refused = pair.settled(&id, "refused");
    assert_eq!(refused["refusals"][0]["reason"], "unanswered", "{refused}");
    assert!(pair.at(&pair.centre).get("pending").is_none());
    pair.mend();
    // What is ordered behind it takes effect, so it would have by now.
    let later = pair.act(&pair.centre, "note", &json!({ "text": "behind it" }));
    assert_eq!(later.status, 200, "{}", later.body);
    let alarm = pair.at(&pair.site);
    assert!(alarm.get("acknowledged").is_none() && alarm["notes"][0]["text"] == "behind it", "{alarm}");
}

#[test]
fn of_two_that_act_the_later_wins() {
    let pair = Pair::start();
    let earlier = pair.act(&pair.site, "assign", &json!({ "to": "ada" }));
    assert_eq!(earlier.status, 200, "{}", earlier.body);
    pair.cut();
    let acknowledge = pair.act_blindly("acknowledge", &json!({ "note": "centre" }));
    let assign = pair.act_blindly("assign", &json!({ "to": "bob" }));
    let at_site = pair.act(&pair.site, "acknowledge", &json!({ "note": "site" }));
    assert_eq!(at_site.status, 200, "{}", at_site.body);
    pair.mend();
    let refused = pair.settled(&acknowledge, "refused");
    assert_eq!(refused["refusals"][0]["reason"], "superseded", "{refused}");
    pair.settled(&assign, "done");
    for node in [&pair.site, &pair.centre] {
        let alarm = pair.at(node);
        assert_eq!((&alarm["acknowledged"]["note"], &alarm["assigned"]["to"]), (&json!("site"), &json!("bob")), "{alarm}");
    }
}

#[test]
fn a_silence_that_names_a_site_holds_there_and_ends_there() {
    let pair = Pair::start();
    let token = pair.centre.cli_ok(&["token", "create", "ann", "--role", "operator"]);
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let ask = |method: &str, path: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = pair.centre.wire(&Wire { method, path, headers: &headers, body: body.as_bytes() });
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.body);
        reply
    };
    let shelved = |node: &Node| pair.at(node)["shelved"]["reason"].clone();
    let mut silence = json!({
        "matchers": [
            { "name": "site", "value": "depot-7", "isRegex": false },
            { "name": "severity", "value": "ma.*", "isRegex": true },
        ],
        "startsAt": "0001-01-01T00:00:00Z",
        "endsAt": "2199-01-01T00:00:00Z",
        "createdBy": "ann",
        "comment": "moving",
    });
    pair.cut();
    let id = ask("POST", "/api/v2/silences", &silence).json()["silenceID"].as_str().expect("is told").to_owned();
    assert!(shelved(&pair.site).is_null());
    pair.mend();
    pair.wait("it holds at the site, and is seen here", |pair| {
        shelved(&pair.site) == "moving" && shelved(&pair.centre) == "moving"
    });
    assert_eq!(pair.at(&pair.centre)["shelved"]["shelf"], id.as_str());

    let shown = ask("GET", &format!("/api/v2/silence/{id}"), &Value::Null).json();
    for (name, value) in [("id", json!(id)), ("startsAt", shown["startsAt"].clone()), ("comment", json!("longer"))] {
        silence[name] = value;
    }
    assert_eq!(ask("POST", "/api/v2/silences", &silence).json()["silenceID"], id.as_str());
    pair.wait("it was amended there", |pair| shelved(&pair.centre) == "longer");

    // What does not match any more is let go there.
    raise(&pair.site, "minor");
    pair.wait("it is off the shelf", |pair| shelved(&pair.centre).is_null());
    raise(&pair.site, "major");
    pair.wait("it is on it again", |pair| shelved(&pair.centre) == "longer");
    ask("DELETE", &format!("/api/v2/silence/{id}"), &Value::Null);
    pair.wait("it has ended there", |pair| shelved(&pair.site).is_null() && shelved(&pair.centre).is_null());
}
