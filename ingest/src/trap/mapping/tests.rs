//! What files say and what they do: the files that come with the program over packets of net-snmp, and what a file may not say.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::event::{Event, Report};
use klaxon_schemas::severity::Severity::{self, Critical, Indeterminate, Major, Minor, Warning};
use klaxon_snmp::{Notification, Oid, Value, Varbind, Version};
use proptest::prelude::*;

use super::*;
use crate::trap::devices::{Device, Devices, network};
use crate::trap::explain::Explainer;
use crate::trap::map::Mapper;

fn packet(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/trap").join(format!("{name}.bin"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn devices() -> Devices {
    let device = Device { site: "depot-7".parse().ok(), name: "sw-9".parse().ok() };
    [(network("10.0.0.9").expect("an address"), device)].into_iter().collect()
}

fn mapper(mappings: Mappings) -> Mapper {
    Mapper::new("home".parse().expect("valid"), devices(), mappings)
}

fn source() -> std::net::SocketAddr {
    "192.0.2.7:40000".parse().expect("an address")
}

fn read(name: &str) -> Notification {
    klaxon_snmp::decode(&Bytes::from(packet(name)), |_| true).expect("is a notification")
}

const HERE: &str = "device=192.0.2.7";

/// Packet, rule, report, what is below the device, type, qualifier, text.
type Row = (&'static str, &'static str, Report, &'static str, &'static str, &'static str, &'static str);

fn raise(severity: Severity) -> Report {
    Report::Raise(severity)
}

fn log(severity: Severity) -> Report {
    Report::Log(severity)
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let peer = ".bgp-peer=192.0.2.1";
    vec![
        ("v1-cold-start", "cold-start", log(Warning), "", "snmp.trap", "1.3.6.1.6.3.1.1.5.1", "coldStart from sw-9"),
        ("v2c-warm-start", "warm-start", log(Warning), "", "snmp.trap", "1.3.6.1.6.3.1.1.5.2", "warmStart from 192.0.2.7"),
        ("v2c-authentication-failure", "authentication-failure", log(Warning), "", "snmp.trap", "1.3.6.1.6.3.1.1.5.5", "authenticationFailure from 192.0.2.7"),
        ("v1-egp-neighbor-loss", "egp-neighbor-loss", log(Warning), "", "snmp.trap", "1.3.6.1.6.3.1.1.5.6", "egpNeighborLoss from sw-9"),
        ("v2c-link-down", "link-down", raise(Major), ".ifindex=7", "link.down", "", "Link down on 192.0.2.7: interface 7, eth7, configured up, is down"),
        ("v1-link-down", "link-down", raise(Major), ".ifindex=7", "link.down", "", "Link down on sw-9: interface 7, eth7, configured up, is down"),
        ("v2c-link-up", "link-up", Report::Clear, ".ifindex=7", "link.down", "", "Link up on 192.0.2.7: interface 7, eth7, configured up, is down"),
        ("v2c-link-down-bare", "link-down-somewhere", log(Warning), "", "snmp.trap", "1.3.6.1.6.3.1.1.5.3", "linkDown from 192.0.2.7, which does not say of which interface"),
        ("v2c-link-up-bare", "link-up-somewhere", log(Indeterminate), "", "snmp.trap", "1.3.6.1.6.3.1.1.5.4", "linkUp from 192.0.2.7, which does not say of which interface"),
        ("v2c-bgp-backward-notification", "bgp-peer-down", raise(Major), peer, "routing.peer-down", "bgp", "BGP session of 192.0.2.7 with 192.0.2.1 lost, is idle, last error: hold timer expired"),
        ("v2c-bgp-established-notification", "bgp-peer-established", Report::Clear, peer, "routing.peer-down", "bgp", "BGP session of 192.0.2.7 with 192.0.2.1 established"),
        ("v2c-bgp-backward", "bgp-peer-down", raise(Minor), peer, "routing.peer-down", "bgp", "BGP session of 192.0.2.7 with 192.0.2.1 lost, is idle, last error: cease: administrative shutdown"),
        ("v1-bgp-backward", "bgp-peer-down", raise(Major), peer, "routing.peer-down", "bgp", "BGP session of sw-9 with 192.0.2.1 lost, is idle, last error: hold timer expired"),
        ("v1-bgp-established", "bgp-peer-established", Report::Clear, peer, "routing.peer-down", "bgp", "BGP session of sw-9 with 192.0.2.1 established"),
        ("v2c-new-root", "new-root", log(Warning), "", "bridge.spanning-tree-changed", "new-root", "192.0.2.7 is the new root of its spanning tree"),
        ("v1-topology-change", "topology-change", log(Indeterminate), "", "bridge.spanning-tree-changed", "topology-change", "A port of sw-9 began or ceased to forward in its spanning tree"),
        ("v2c-ent-config-change", "entity-config-change", log(Warning), "", "equipment.changed", "", "The inventory of 192.0.2.7 changed: a part was put in, taken out or configured anew"),
        ("v2c-ent-disabled", "entity-disabled", raise(Critical), ".entity=1001", "equipment.disabled", "", "Entity 1001 of 192.0.2.7 is disabled, administratively unlocked, alarms: critical minor"),
        ("v2c-ent-locked", "entity-locked", raise(Warning), ".entity=1001", "equipment.disabled", "", "Entity 1001 of 192.0.2.7 is disabled, locked by its operator"),
        ("v2c-ent-enabled", "entity-enabled", Report::Clear, ".entity=1001", "equipment.disabled", "", "Entity 1001 of 192.0.2.7 is enabled, administratively unlocked"),
        ("v2c-ospf-neighbour-down", "ospf-neighbour", raise(Major), ".ospf-neighbour=192.0.2.2", "routing.peer-down", "ospf", "OSPF neighbour 192.0.2.2 of 192.0.2.7 is down, router 192.0.2.253"),
        ("v1-ospf-neighbour-down", "ospf-neighbour", raise(Major), ".ospf-neighbour=192.0.2.2", "routing.peer-down", "ospf", "OSPF neighbour 192.0.2.2 of sw-9 is down, router 192.0.2.253"),
        ("v2c-ospf-neighbour-init", "ospf-neighbour", raise(Minor), ".ospf-neighbour=0.0.0.0.ifindex=5", "routing.peer-down", "ospf", "OSPF neighbour 0.0.0.0 of 192.0.2.7 is init, router 192.0.2.253"),
        ("v2c-ospf-neighbour-full", "ospf-neighbour", Report::Clear, ".ospf-neighbour=192.0.2.2", "routing.peer-down", "ospf", "OSPF neighbour 192.0.2.2 of 192.0.2.7 is full, router 192.0.2.253"),
        ("v2c-ospf-virtual-neighbour", "ospf-virtual-neighbour", raise(Major), ".ospf-area=0.0.0.1.ospf-neighbour=192.0.2.253", "routing.peer-down", "ospf", "Virtual OSPF neighbour 192.0.2.253 of 192.0.2.7 in area 0.0.0.1 is down"),
        ("v2c-ospf-interface-down", "ospf-interface", raise(Major), ".ospf-interface=192.0.2.1", "routing.interface-down", "ospf", "OSPF interface 192.0.2.1 of 192.0.2.7 is down"),
        ("v2c-ospf-interface-backup", "ospf-interface", Report::Clear, ".ospf-interface=192.0.2.1", "routing.interface-down", "ospf", "OSPF interface 192.0.2.1 of 192.0.2.7 is backupDesignatedRouter"),
        ("v2c-ospf-virtual-interface", "ospf-virtual-interface", Report::Clear, ".ospf-area=0.0.0.1.ospf-virtual-link=192.0.2.253", "routing.interface-down", "ospf", "Virtual OSPF link of 192.0.2.7 through area 0.0.0.1 to 192.0.2.253 is pointToPoint"),
        ("v2c-ospf-config-error", "ospf-packet-refused", log(Warning), "", "routing.event", "ospfIfConfigError", "OSPF on 192.0.2.7 refused a packet from 192.0.2.9 on interface 192.0.2.1: helloIntervalMismatch (ospfIfConfigError)"),
        ("v2c-ospf-overflow", "ospf-database-overflow", log(Major), "", "routing.event", "ospfLsdbOverflow", "OSPF on 192.0.2.7 has as many external link states as it may, or nearly (ospfLsdbOverflow)"),
        ("v2c-ospf-max-age", "ospf-other", log(Indeterminate), "", "routing.event", "ospfMaxAgeLsa", "ospfMaxAgeLsa from 192.0.2.7"),
        ("v2c-ups-on-battery", "ups-on-battery", raise(Major), "", "power.on-battery", "on-battery", "192.0.2.7 runs on battery"),
        ("v2c-ups-added", "ups-alarm", raise(Major), "", "power.on-battery", "on-battery", "UPS 192.0.2.7: on-battery"),
        ("v2c-ups-removed", "ups-alarm-over", Report::Clear, "", "power.on-battery", "on-battery", "UPS 192.0.2.7: on-battery is over"),
        ("v1-ups-added-overload", "ups-alarm", raise(Critical), "", "ups.alarm", "output-overload", "UPS sw-9: output-overload"),
        ("v2c-ups-added-own", "ups-alarm", raise(Minor), "", "ups.alarm", "1.3.6.1.4.1.318.2.3.9", "UPS 192.0.2.7: 1.3.6.1.4.1.318.2.3.9"),
        ("v2c-ups-test", "ups-test-completed", log(Major), "", "ups.test-completed", "", "UPS 192.0.2.7 completed a test: doneError, battery 2 weak"),
    ]
}

/// The rule that takes a packet.
fn taken_by(mapper: &Mapper, notification: &Notification) -> Option<String> {
    let judged = mapper.judge(source(), notification).into_iter();
    judged.filter(|judged| matches!(judged.verdict, Verdict::Matched { .. })).map(|judged| judged.rule).next()
}

#[test]
fn every_built_in_rule_makes_of_a_packet_what_its_mib_means() {
    let (mapper, catalogue) = (mapper(Mappings::built_in()), Catalogue::built_in());
    let mut tried = BTreeSet::new();
    for (name, rule, report, below, alarm_type, qualifier, text) in rows() {
        let notification = read(name);
        assert_eq!(taken_by(&mapper, &notification).as_deref(), Some(rule), "{name}");
        tried.insert(rule);
        let event = mapper.event(source(), &notification);
        let device = if notification.version == Version::V1 { "device=sw-9" } else { HERE };
        assert_eq!((event.report, event.key.resource.as_str()), (report, &*format!("{device}{below}")), "{name}");
        assert_eq!((&*event.key.alarm_type, &*event.key.qualifier, &*event.text), (alarm_type, qualifier, text), "{name}");
        assert_eq!(&*event.key.site, if notification.version == Version::V1 { "depot-7" } else { "home" });
        let entry = catalogue.get(alarm_type).unwrap_or_else(|| panic!("the catalogue lacks {alarm_type}"));
        if let Report::Raise(severity) | Report::Log(severity) = report {
            assert!(entry.severities.contains(&severity), "the catalogue does not know {severity} of {alarm_type}");
        }
        assert!(matches!(report, Report::Log(_)) || entry.will_clear, "{alarm_type} is said never to clear");
    }
    let all = Mappings::built_in().built_in.rules.iter().map(|(_, rule)| rule.name.clone()).collect::<Vec<_>>();
    let untried: Vec<&String> = all.iter().filter(|name| !tried.contains(name.as_str())).collect();
    assert!(untried.is_empty(), "no packet is there for {untried:?}");
}

#[test]
fn what_clears_has_the_key_of_what_it_clears() {
    let mapper = mapper(Mappings::built_in());
    let event = |name: &str| mapper.event(source(), &read(name));
    for (raised, cleared) in [
        ("v2c-link-down", "v2c-link-up"),
        ("v2c-bgp-backward-notification", "v2c-bgp-established-notification"),
        ("v2c-bgp-backward", "v2c-bgp-established-notification"),
        ("v1-bgp-backward", "v1-bgp-established"),
        ("v2c-ent-disabled", "v2c-ent-enabled"),
        ("v2c-ent-locked", "v2c-ent-enabled"),
        ("v2c-ospf-neighbour-down", "v2c-ospf-neighbour-full"),
        ("v2c-ospf-interface-down", "v2c-ospf-interface-backup"),
        ("v2c-ups-on-battery", "v2c-ups-removed"),
        ("v2c-ups-added", "v2c-ups-removed"),
    ] {
        let (raised, cleared) = (event(raised), event(cleared));
        assert!(matches!((raised.report, cleared.report), (Report::Raise(_), Report::Clear)));
        assert_eq!(raised.key, cleared.key);
    }
}

/// A notification with these variables.
fn notification(trap: &[u32], varbinds: &[(&[u32], Value)]) -> Notification {
    let varbinds = varbinds.iter().map(|(oid, value)| Varbind { oid: Oid::new(oid), value: value.clone() });
    Notification { trap_oid: Oid::new(trap), varbinds: varbinds.collect(), ..read("v2c-warm-start") }
}

const OWN: &str = r#"
[names]
acme = "1.3.6.1.4.1.9999"
acmeTemperature = "acme.0.1"
acmeSensorEntry = { row = "acme.1.1" }
acmeSensorName = "acmeSensorEntry.2"
acmeSensorState = { oid = "acmeSensorEntry.3", words = { 1 = "ok", 2 = "hot", 3 = "on fire" } }
acmeReading = { oid = "acmeSensorEntry.4", at_least = -40 }

[[rule]]
name = "lab"
trap = "acmeTemperature"
from = ["10.0.0.0/8", "2001:db8::1"]
when = { acmeSensorName = { like = "test-*" } }
do = "log"
alarm_type = "lab.noise"

[[rule]]
name = "hot"
trap = ["acmeTemperature", "acme.0.2"]
when = { acmeSensorState = ["hot", 3], "acmeReading.number" = { at_least = 50, at_most = 1000 } }
resource = "device={device}.sensor={acmeSensorName|acmeSensorEntry.instance}"
alarm_type = "temperature.high"
qualifier = "acme"
severity = { by = "acmeSensorState", table = { 3 = "critical" }, otherwise = "major" }
text = "{acmeSensorName}: {acmeReading} degrees [[{acmeSensorState}]][ ({acmeSensorName:new})]"
attributes = { sensor = "{acmeSensorName}", reading = "{acmeReading}" }
probable_cause = "temperature-unacceptable"
event_type = "environmental"
repair_action = "Open a window."

[[rule]]
name = "cool"
trap = "acmeTemperature"
when = { acmeSensorState = { not = ["hot", "on fire"] } }
clears = "hot"

[[rule]]
name = "anything"
trap = "acme.*"
do = "log"
alarm_type = "acme.trap"
qualifier = "{trap}"
"#;

#[test]
fn a_file_of_ones_own_does_what_it_says() {
    const SENSOR: [u32; 9] = [1, 3, 6, 1, 4, 1, 9999, 1, 1];
    let mapper = mapper(Mappings::parse(OWN, "own.toml").expect("is right"));
    let sensor = |trap: u32, name: &'static [u8], state: i32, reading: i32| {
        let cell = |column: u32| [&SENSOR[..], &[column, 7, 1]].concat();
        let trap = [1, 3, 6, 1, 4, 1, 9999, 0, trap];
        let varbinds = [
            (cell(2), Value::OctetString(Bytes::from_static(name))),
            (cell(3), Value::Integer(state)),
            (cell(4), Value::Integer(reading)),
        ];
        notification(&trap, &varbinds.each_ref().map(|(oid, value)| (&**oid, value.clone())))
    };
    let event = |notification: &Notification| mapper.event(source(), notification);
    let hot = event(&sensor(1, b"inlet.x=1", 2, 60));
    assert_eq!(hot.report, Report::Raise(Major));
    assert_eq!(hot.key.resource.as_str(), "device=192.0.2.7.sensor=inlet.x:1", "a value begins no element of its own");
    assert_eq!(&*hot.text, "inlet.x=1: 60 degrees [hot]");
    assert_eq!(hot.details.probable_cause.as_deref(), Some("temperature-unacceptable"));
    assert_eq!(hot.details.repair_action.as_deref(), Some("Open a window."));
    assert_eq!(hot.details.attributes.get("reading").map(|value| &**value), Some("60"));
    assert_eq!(event(&sensor(2, b"inlet", 3, 60)).report, Report::Raise(Critical), "by number");
    let cool = event(&sensor(1, b"inlet.x=1", 1, 20));
    assert_eq!((cool.report, &cool.key), (Report::Clear, &hot.key));
    assert_eq!(&*cool.text, "acmeTemperature from 192.0.2.7");
    let nameless = event(&sensor(1, b"", 2, 60));
    assert_eq!(nameless.key.resource.as_str(), HERE, "an empty name is none, so the rule does not take it");
    assert_eq!((&*nameless.key.alarm_type, &*nameless.key.qualifier), ("acme.trap", "1.3.6.1.4.1.9999.0.1"));
    assert_eq!(&*event(&sensor(1, b"inlet", 2, 40)).key.alarm_type, "acme.trap", "is not hot enough");
    let from = |name: &'static [u8], address: &str| {
        let event = mapper.event(address.parse().expect("an address"), &sensor(1, name, 2, 60));
        event.key.alarm_type.to_string()
    };
    assert_eq!(from(b"test-1", "10.1.1.1:9"), "lab.noise");
    assert_eq!(from(b"inlet", "10.1.1.1:9"), "temperature.high");
    assert_eq!(from(b"test-1", "[2001:db8::1]:9"), "lab.noise");
    assert_eq!(from(b"test-1", "[2001:db8::2]:9"), "temperature.high");
    assert_eq!(from(b"test-1", "[::ffff:10.1.1.1]:9"), "lab.noise");
    let below = event(&notification(&[1, 3, 6, 1, 4, 1, 9999, 5, 5], &[]));
    assert_eq!(&*below.key.alarm_type, "acme.trap");
    assert_eq!(&*event(&notification(&[1, 3, 6, 1, 4, 1, 9999], &[])).key.alarm_type, "snmp.trap", "is not below itself");
}

#[test]
fn configured_files_go_before_those_that_come_with_the_program() {
    let text = "[[rule]]\nname = \"mine\"\ntrap = \"1.3.6.1.6.3.1.1.5.*\"\ndo = \"log\"\nalarm_type = \"mine\"\n";
    let mapper = mapper(Mappings::parse(text, "mine.toml").expect("is right"));
    assert_eq!(taken_by(&mapper, &read("v2c-link-down")).as_deref(), Some("mine"));
    assert_eq!(taken_by(&mapper, &read("v2c-ups-added")).as_deref(), Some("ups-alarm"));
    let judged = mapper.judge(source(), &read("v2c-link-down"));
    assert_eq!(judged[0].file, "mine.toml");
    assert_eq!((judged[1].rule.as_str(), &judged[1].verdict), ("link-down", &Verdict::NotReached));
}

#[test]
fn a_judgement_says_what_failed() {
    let mut explainer =
        Explainer::new("home".parse().expect("valid"), devices(), Mappings::parse(OWN, "own.toml").expect("is right"));
    let explained = explainer.explain(&packet("v2c-link-down-bare"), source()).expect("is a trap");
    assert_eq!(explained.trap_name.as_deref(), Some("linkDown"));
    let missed = "resource: ifIndex|ifEntry.index|ifXEntry.index is not there or empty";
    assert_eq!(explained.judgements[0].verdict, Verdict::Missed(missed.to_owned()));
    assert!(matches!(explained.judgements[1].verdict, Verdict::Matched { .. }));
    let up = explainer.explain(&packet("v2c-link-up"), source()).expect("is a trap");
    assert_eq!(up.variables[0].name.as_deref(), Some("ifIndex.7"));
    let clears = Some("link-down".to_owned());
    assert_eq!(up.judgements[0].verdict, Verdict::Matched { cleared_by: Vec::new(), clears });
    let down = explainer.explain(&packet("v2c-link-down"), source()).expect("is a trap");
    let cleared_by = vec!["link-up".to_owned()];
    assert_eq!(down.judgements[0].verdict, Verdict::Matched { cleared_by, clears: None });
    assert!(explainer.explain(b"hello", source()).is_err());
    // Conditions, and a trap whose OID lacks a zero.
    let mapper = mapper(Mappings::parse(OWN, "own.toml").expect("is right"));
    let said = |notification: &Notification| -> Vec<String> {
        let judged = mapper.judge(source(), notification).into_iter();
        judged.map(|judged| format!("{}:{} {}: {:?}", judged.file, judged.line, judged.rule, judged.verdict)).collect()
    };
    let cold =
        said(&notification(&[1, 3, 6, 1, 4, 1, 9999, 0, 1], &[(&[1, 3, 6, 1, 4, 1, 9999, 1, 1, 3, 7], Value::Integer(1))]));
    assert!(
        cold[0].starts_with("own.toml:11 lab: ") && cold[0].contains("from: the device is not in 10.0.0.0/8, 2001:db8::1/128"),
        "{cold:?}"
    );
    assert!(cold[1].contains(r#"acmeReading.number must be a number from 50 to 1000, and is not there"#), "{cold:?}");
    let near = mapper.judge(source(), &notification(&[1, 3, 6, 1, 2, 1, 15, 2], &[]));
    assert_eq!(near.len(), 1);
    assert_eq!(near[0].verdict, Verdict::Near("is for 1.3.6.1.2.1.15.0.2".to_owned()));
}

#[test]
fn a_file_that_is_wrong_is_refused_with_line_and_key() {
    let rule = |keys: &str| {
        format!(
            "[names]\na = \"1.3.6.1\"\n\n[[rule]]\nname = \"r\"\ntrap = \"a.1\"\nalarm_type = \"x\"\nseverity = \"major\"\n{keys}\n"
        )
    };
    assert!(Mappings::parse(&rule(""), "m.toml").is_ok());
    let error = |text: &str| Mappings::parse(text, "m.toml").expect_err("is wrong").to_string();
    let wrong = |keys: &str| error(&rule(keys));
    for (found, expected) in [
        (
            wrong("resource = \"device={nme}\""),
            "m.toml:9: rule.resource: \"nme\" is none of the file's [names], nor of device, ",
        ),
        (wrong("resource = \"device={device\""), "m.toml:9: rule.resource: has a { that is not closed"),
        (wrong("text = \"a ] b\""), "m.toml:9: rule.text: has a ] that closes nothing"),
        (wrong("text = \"[[ [a\""), "m.toml:9: rule.text: has a [ that is not closed"),
        (wrong("text = \"{a:upper}\""), "m.toml:9: rule.text: has \"upper\" behind a colon"),
        (wrong("text = \"{a.colour}\""), "m.toml:9: rule.text: a has no part \"colour\""),
        (wrong("clears = \"r\""), "m.toml:"),
        (wrong("qualifer = \"x\""), "m.toml:9: rule.qualifer: is no key; expected one of name, trap, "),
        (wrong("do = \"explode\""), "m.toml:9: rule.do: is none of \"raise\", \"clear\", \"log\""),
        (wrong("do = \"clear\""), "m.toml:8: rule.severity: is of no use in a rule that clears"),
        (wrong("from = \"everywhere\""), "m.toml:9: rule.from: \"everywhere\" is no address"),
        (wrong("when = { b = 1 }"), "m.toml:9: rule.when.b: \"b\" is none of the file's [names]"),
        (wrong("when = { a = { like = \"[\" } }"), "m.toml:9: rule.when.a: error parsing glob"),
        (wrong("when = { a = { not = 1, present = true } }"), "m.toml:9: rule.when.a: needs one of"),
        (wrong("when = { a = [] }"), "m.toml:9: rule.when.a: is an empty list"),
        (
            wrong("attributes = { trap_oid = \"x\" }"),
            "m.toml:9: rule.attributes.trap_oid: is the name of an attribute that every",
        ),
        (
            wrong("attributes = { security_name = \"root\" }"),
            "m.toml:9: rule.attributes.security_name: is the name of an attribute that every",
        ),
        (wrong("attributes = { engine_id = \"80\" }"), "m.toml:9: rule.attributes.engine_id: is the name of"),
        (wrong("leave_out = [\"b\"]"), "m.toml:9: rule.leave_out: \"b\" is none of the file's [names]"),
        (wrong("probable_cause = \"Big Trouble\""), "m.toml:9: rule.probable_cause: \"Big Trouble\" has the character 'B'"),
        (wrong("event_type = \"party\""), "m.toml:9: rule.event_type: unknown variant `party`"),
        (
            wrong("[[rule]]\nname = \"r\"\ntrap = \"a\"\nalarm_type = \"x\"\nseverity = \"major\""),
            "m.toml:10: rule.name: \"r\" is the name of two rules",
        ),
        (
            wrong("[[rule]]\nname = \"s\"\ntrap = \"a\"\nclears = \"q\""),
            "m.toml:12: rule.clears: no rule of this file is called \"q\"",
        ),
        (
            wrong("[[rule]]\nname = \"s\"\ntrap = \"a\"\nclears = \"r\"\nqualifier = \"x\""),
            "m.toml:13: rule.clears: is that of the rule it clears",
        ),
        (
            wrong("[[rule]]\nname = \"s\"\ntrap = \"b.1\"\nalarm_type = \"x\"\nseverity = \"major\""),
            "m.toml:11: rule.trap: \"b\" is none of the file's [names]",
        ),
        (wrong("[[rule]]\nname = \"s\"\ntrap = \"a\"\nalarm_type = \"x\""), "m.toml:10: rule.severity: is missing"),
        (wrong("[[rule]]\nname = \"s\"\ntrap = \"a\"\ndo = \"log\""), "m.toml:10: rule.alarm_type: is missing"),
        (wrong("[[rule]]\nname = \"s\"\nalarm_type = \"x\""), "m.toml:9: rule: missing field `trap`"),
        (
            error(&rule("").replace("\"x\"", "{ by = \"a\", table = { 1 = \"a b\" } }")),
            "m.toml:7: rule.alarm_type: \"a b\" has the character",
        ),
        (error("[names]\na = \"b.1\"\nb = \"a.1\"\n"), "m.toml:2: names.a: \""),
        (error("[names]\ndevice = \"1.3\"\n"), "m.toml:2: names.device: device means something already"),
        (error("[names]\na = \"1.3.x\"\n"), "m.toml:2: names.a: \"1.3.x\" is no OID"),
        (error("[names]\na = { row = \"1.3\", at_least = 1 }\n"), "m.toml:2: names.a: is a row, and a row has no value"),
        (error("[names]\na = { words = { 1 = \"x\" } }\n"), "m.toml:2: names.a: needs either an oid or a row"),
        (error("[names]\na = 7\n"), "m.toml:2: names.a: "),
        (error("[nmaes]\n"), "m.toml:1: nmaes: is no key; expected names or rule"),
        (error("[names\n"), "m.toml:1: "),
    ] {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i32>().prop_map(Value::Integer),
        (0..9_i32).prop_map(Value::Integer),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::OctetString(bytes.into())),
        "[ -~\u{0}-\u{1f}ü.=]{0,60}".prop_map(|text| Value::OctetString(text.into_bytes().into())),
        Just(Value::OctetString(Bytes::from(vec![b'.'; 3000]))),
        Just(Value::Null),
        Just(Value::Exception("noSuchInstance")),
        any::<[u8; 4]>().prop_map(|bytes| Value::IpAddress(bytes.into())),
        (0..25_u32).prop_map(|last| Value::Oid(Oid::new(&[1, 3, 6, 1, 2, 1, 33, 1, 6, 3, last]))),
        proptest::collection::vec(any::<u32>(), 0..128).prop_map(|arcs| Value::Oid(Oid::new(&arcs))),
        any::<u64>().prop_map(Value::Counter64),
        any::<f64>().prop_map(Value::Float),
    ]
}

proptest! {
    #[test]
    fn no_mapping_breaks_over_any_notification(
        which in any::<proptest::sample::Index>(),
        values in proptest::collection::vec((any::<proptest::sample::Index>(), proptest::collection::vec(any::<u32>(), 0..6), value()), 0..8),
        is_v1 in any::<bool>(),
    ) {
        // Traps and variables that rules are for, with instances and values that nobody would send.
        let mappings = Mappings::parse(OWN, "own.toml").expect("is right");
        let oids: Vec<Box<[u32]>> = mappings.layers().flat_map(|layer| {
            let patterns = layer.rules.iter().flat_map(|(_, rule)| &rule.patterns).map(|pattern| pattern.oid.clone());
            patterns.collect::<Vec<_>>()
        }).collect();
        let objects: Vec<Box<[u32]>> = mappings.layers().flat_map(|layer| {
            layer.files.iter().flat_map(|file| file.names.0.values().map(|object| object.oid.clone()))
        }).collect();
        let varbinds = values.iter().map(|(which, instance, value)| {
            Varbind { oid: Oid::new(&[which.get(&objects), &instance[..]].concat()), value: value.clone() }
        });
        let version = if is_v1 { Version::V1 } else { Version::V2c };
        let notification = Notification { version, varbinds: varbinds.collect(), ..notification(which.get::<Box<[u32]>>(&oids), &[]) };
        let mapper = mapper(mappings);
        let event: Event = mapper.event(source(), &notification);
        // What is made is sound: it can be written and read again.
        let written = serde_json::to_string(&klaxon_schemas::wire::v1::Event::from(&event)).expect("names and words serialize");
        let (read, _) = klaxon_schemas::wire::v1::parse_event(&written).expect("what we write we read");
        prop_assert_eq!(read.into_event(&event.key.site).expect("is sound"), event);
        let matched = mapper.judge(source(), &notification).iter().filter(|judged| matches!(judged.verdict, Verdict::Matched { .. })).count();
        prop_assert!(matched <= 1);
    }
}
