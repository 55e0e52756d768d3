//! Receivers that speak syslog, with Debian's rsyslogd as who listens: what it parses is what was told, however often it goes away.

#![expect(clippy::print_stdout, reason = "a test says why it is skipped")]

mod harness;
#[path = "harness/rsyslog.rs"]
mod rsyslog;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use harness::authority::Authority;
use harness::{Node, Setup, Site, scratch, wait_until};
use klaxon_schemas::time::Timestamp;
use rsyslog::{Got, Input, Rsyslog};
use serde_json::{Value, json};

/// Our own element.
const OWN: &str = "klaxon@8072.9999.9999.7780";

fn is_there() -> bool {
    let is_there = rsyslog::is_there();
    if !is_there {
        println!("skipped: there is no rsyslogd; ./dev test unpacks one");
    }
    is_there
}

fn receiver(rsyslog: &Rsyslog, transport: &str, keys: &str) -> String {
    format!(
        "[receivers.siem]\nlog_events = true\nfold_after = \"0s\"\n[receivers.siem.syslog]\naddress = \"localhost:{}\"\n\
         transport = \"{transport}\"\nhostname = \"gate.example\"\nfacility = \"local4\"\n{keys}\n",
        rsyslog.port
    )
}

fn own<'a>(got: &'a Got, name: &str) -> &'a str {
    got.data(OWN, name).unwrap_or_else(|| panic!("{name} is not in {got:#?}"))
}

fn shown(node: &Node) -> Value {
    node.json("/receivers/siem")
}

fn wait_caught_up(node: &Node) {
    wait_until("the receiver has caught up", || {
        let now = shown(node);
        now["epoch"] != 0 && now["lag_changes"] == 0 && now["assigned"] == now["confirmed"]
    });
}

fn event(resource: &str, severity: &str) -> Value {
    json!({ "resource": resource, "alarm_type": "disk.full", "severity": severity, "text": "97 % full" })
}

#[test]
fn an_alarms_life_is_parsed_as_it_was_told() {
    if !is_there() {
        return;
    }
    for (input, transport) in [(Input::Udp, "udp"), (Input::Tcp, "tcp")] {
        let dir = scratch("syslog-");
        let rsyslog = Rsyslog::start(dir.path(), input);
        let site = Site::start(&receiver(&rsyslog, transport, ""));
        let text = "97 % \"full\" of [all]\\ and\n\u{fc}ber";
        site.send(
            &json!({ "resource": "host=a.file-system=/var]", "alarm_type": "disk.full", "severity": "minor", "text": text,
            "qualifier": "q\"x", "producer": "probe" }),
        );
        rsyslog.wait(1);
        let id = site.json("/alarms")["alarms"][0]["id"].as_str().expect("has one").to_owned();
        site.cli_ok(&["alarms", "ack", &id, "-m", "on \"it\""]);
        let again = |severity: &str| {
            let event = json!({ "resource": "host=a.file-system=/var]", "alarm_type": "disk.full", "severity": severity,
                "qualifier": "q\"x", "producer": "probe" });
            site.send(&event);
        };
        again("critical");
        again("cleared");
        // What is about something else may come first.
        rsyslog.wait(4);
        site.send(&json!({ "resource": "host=a", "alarm_type": "reboot", "kind": "log", "severity": "warning", "text": "up" }));
        let got = rsyslog.wait(5);
        let heads: Vec<[&str; 4]> = got
            .iter()
            .map(|one| ["syslogfacility", "syslogseverity", "hostname", "app-name"].map(|name| one.get(name)))
            .collect();
        let head = |severity| ["20", severity, "gate.example", "klaxon"];
        assert_eq!(heads, [head("3"), head("3"), head("1"), head("5"), head("4")], "{got:#?}");
        let kinds: Vec<&str> = got.iter().map(|one| one.get("msgid")).collect();
        assert_eq!(kinds, ["alarm.raised", "alarm.changed", "alarm.changed", "alarm.cleared", "log"]);
        assert!(got.iter().all(|one| one.get("procid") == site.child.id().to_string() && one.get("protocol-version") == "1"));
        let alarm = |name: &str| got.iter().map(|one| one.data("alarm", name)).collect::<Vec<_>>();
        assert_eq!(alarm("perceivedSeverity"), [Some("minor"), Some("minor"), Some("critical"), Some("cleared"), None]);
        assert_eq!(alarm("resource")[0], Some("host=a.file-system=/var]"));
        assert_eq!(alarm("probableCause")[0], Some("storageCapacityProblemX733"));
        assert_eq!(alarm("trendIndication"), [None, Some("noChange"), Some("moreSevere"), None, None]);
        assert!(alarm("eventType")[0].is_some_and(|word| word.ends_with("Alarm")));
        assert!(
            got[..4]
                .iter()
                .all(|one| own(one, "id") == id && own(one, "qualifier") == "q\"x" && own(one, "type") == "disk.full")
        );
        assert_eq!(got.iter().map(|one| own(one, "delivery_seq")).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
        assert_eq!(
            (own(&got[1], "change"), own(&got[1], "note"), own(&got[0], "producer")),
            ("acknowledged", "on \"it\"", "probe")
        );
        assert!(!own(&got[1], "acknowledged_by").is_empty() && got[0].data(OWN, "acknowledged_by").is_none());
        assert_eq!(own(&got[0], "epoch"), shown(&site)["epoch"].to_string());
        // A line break would end the line in a file.
        assert!(got[0].get("msg").ends_with("(q\"x): 97 % \"full\" of [all]\\ and \u{fc}ber"), "{}", got[0].get("msg"));
        let seen = &site.json("/history?order=asc")["changes"][0];
        let at = |text: &str| Timestamp::parse(text).expect("is a time");
        assert_eq!(at(got[0].get("timereported")), at(seen["at"].as_str().expect("is a time")));
        wait_caught_up(&site);
        assert_eq!((&shown(&site)["kind"], &shown(&site)["state"]), (&json!("syslog"), &json!("ok")));
    }
}

#[test]
fn over_tls_both_prove_who_they_are() {
    if !is_there() {
        return;
    }
    let (ours, strange, dir) = (Authority::new(), Authority::called("strange"), scratch("syslog-"));
    ours.serve();
    let (certificate, key) = ours.issue("node", &[]);
    ours.write("node.pem", &certificate.pem());
    ours.write("node.key", &key.serialize_pem());
    let input =
        Input::Tls { ca: ours.path("ca.pem"), certificate: ours.path("cert.pem"), key: ours.path("key.pem"), asks: true };
    let rsyslog = Rsyslog::start(dir.path(), input);
    let own_files = format!("certificate_file = \"{}\"\nkey_file = \"{}\"\n", ours.path("node.pem"), ours.path("node.key"));
    // Who is not vouched for is told nothing, and who does not say who it is tells nothing.
    for (keys, expected) in [
        (format!("ca_file = \"{}\"\n{own_files}", strange.path("ca.pem")), "TLS failed: invalid peer certificate"),
        (format!("ca_file = \"{}\"\n", ours.path("ca.pem")), "the connection broke"),
        (format!("ca_file = \"{}\"\n{own_files}", ours.path("nowhere.pem")), "nowhere.pem: No such file"),
    ] {
        let site = Site::start(&receiver(&rsyslog, "tls", &keys));
        site.send(&event("host=a", "major"));
        wait_until("it is said why", || shown(&site)["last_error"].to_string().contains(expected));
        assert_eq!(shown(&site)["confirmed"], 0, "{expected}");
    }
    assert!(rsyslog.got().is_empty());
    let keys = format!("ca_file = \"{}\"\n{own_files}", ours.path("ca.pem"));
    let site = Site::start(&receiver(&rsyslog, "tls", &keys));
    site.send(&event("host=b", "major"));
    let got = rsyslog.wait(1);
    assert_eq!((got[0].data("alarm", "resource"), got[0].get("syslogseverity")), (Some("host=b"), "2"));
    wait_caught_up(&site);
}

/// Raises and clears, in batches, so that much is under way.
/// A program that takes what comes over TLS until it is told that there is no more. Joined, it gives that; or why it ended otherwise.
fn tls_listener(authority: &Authority) -> (SocketAddr, JoinHandle<std::io::Result<String>>) {
    let key = authority.issue("log", &["127.0.0.1"]);
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.1.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("are there").with_no_client_auth();
    let config = config.with_single_cert(vec![key.0.der().clone()], private.into()).expect("belong together");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("is bound");
    let take = move || {
        let (stream, _) = listener.accept()?;
        let connection = rustls::ServerConnection::new(Arc::new(config)).map_err(std::io::Error::other)?;
        let mut all = String::new();
        rustls::StreamOwned::new(connection, stream).read_to_string(&mut all)?;
        Ok(all)
    };
    (address, std::thread::spawn(take))
}

#[test]
fn a_node_that_ends_says_so_over_tls() {
    let authority = Authority::new();
    let (address, listening) = tls_listener(&authority);
    let dir = scratch("syslog-");
    let node = Setup::new(dir.path()).config(&format!(
        "[receivers.siem.syslog]\naddress = \"{address}\"\ntransport = \"tls\"\nca_file = \"{}\"\n",
        authority.path("ca.pem")
    ));
    let node = node.start();
    node.send(&event("host=a", "major"));
    wait_until("it is told", || shown(&node)["confirmed"] == 1);
    assert!(node.stop().success());
    let all = listening.join().expect("ends").expect("the end is told");
    assert!(all.contains("resource=\"host=a\""), "{all}");
}

fn churn(node: &Node, round: u32) {
    let severity = if round.is_multiple_of(2) { "major" } else { "cleared" };
    let all: Vec<Value> = (0..150).map(|number| event(&format!("host=h{number}"), severity)).collect();
    node.send(&Value::from(all));
}

/// What each number stood for; none stood for two things.
fn by_number(got: &[Got]) -> BTreeMap<u64, String> {
    let mut all = BTreeMap::new();
    for one in got {
        let number = own(one, "delivery_seq").parse().expect("is a number");
        let said = format!("{} {}", one.data("alarm", "resource").unwrap_or_default(), own(one, "how"));
        let before = all.insert(number, said.clone());
        assert!(before.as_ref().is_none_or(|before| *before == said), "{number}: {before:?} and {said}");
    }
    all
}

#[test]
fn nothing_is_lost_when_the_receiver_is_restarted_under_load() {
    if !is_there() {
        return;
    }
    let dir = scratch("syslog-");
    let mut rsyslog = Rsyslog::start(dir.path(), Input::Tcp);
    let site = Site::start(&receiver(&rsyslog, "tcp", "timeout = \"5s\""));
    for round in 0..6 {
        churn(&site, round);
        if round % 2 == 1 {
            let before = rsyslog.got().len();
            wait_until("it is being told", || rsyslog.got().len() > before);
            rsyslog.stop();
            churn(&site, round + 1);
            rsyslog.run();
            churn(&site, round + 2);
        }
    }
    wait_caught_up(&site);
    let assigned = shown(&site)["assigned"].as_u64().expect("is a number");
    let told = by_number(&rsyslog.got());
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=assigned).collect::<Vec<_>>());
    assert!(assigned > 900, "{assigned}");
}

#[test]
fn nothing_is_lost_when_the_node_is_killed_while_messages_are_not_settled() {
    if !is_there() {
        return;
    }
    let dir = scratch("syslog-");
    let rsyslog = Rsyslog::start(dir.path(), Input::Tcp);
    let setup = Setup::new(&dir.path().join("data")).config(&receiver(&rsyslog, "tcp", ""));
    let mut node = setup.start();
    for round in 0..4 {
        churn(&node, round);
        let before = rsyslog.got().len();
        wait_until("it is being told", || rsyslog.got().len() > before);
        node.kill();
        node = setup.start();
    }
    wait_caught_up(&node);
    let told = by_number(&rsyslog.got());
    assert_eq!(told.len(), 600);
    assert_eq!(told.keys().copied().collect::<BTreeSet<_>>(), (1..=600).collect());
}
