//! What packets of net-snmp become, and what broken ones do not.

use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex};
use std::time::Instant;

use bytes::Bytes;
use klaxon_schemas::event::{ATTRIBUTES_MAX, Event, Report};
use klaxon_schemas::names::{AttributeValue, Site};
use klaxon_schemas::severity::Severity;
use proptest::prelude::*;

use super::devices::{Device, network};
use super::inform::Informs;
use super::map::Mapper;
use super::mapping::Mappings;
use klaxon_snmp::{self as snmp, AuthProtocol, EngineHome, Inbound, Notification, Oid, PrivProtocol, Secret, User, Users};
use klaxon_snmp::{Value, Varbind, Version};

/// Written by snmptrap and snmpinform of net-snmp 5.9.
const V1_COLD_START: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v1-cold-start.bin");
const V1_LINK_DOWN: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v1-link-down.bin");
const V1_ENTERPRISE: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v1-enterprise.bin");
const LINK_DOWN: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v2c-link-down.bin");
const LINK_UP: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v2c-link-up.bin");
const TYPES: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v2c-types.bin");
const FORTY: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v2c-forty.bin");
const INFORM: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v2c-inform.bin");
/// Of the users `open` and `priv`, from an engine that begins with 80001f8804 and from one that asks this one.
const V3_TRAP_OPEN: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v3-trap-open.bin");
const V3_TRAP_PRIV: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v3-trap-priv.bin");
const V3_INFORM_OPEN: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v3-inform-open.bin");
const V3_INFORM_PRIV: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v3-inform-priv.bin");
const V3_DISCOVERY: &[u8] = include_bytes!("../../../fuzz/corpus/trap/v3-discovery.bin");

/// The engine and the users of the packets.
fn inbound() -> Inbound {
    let dir = tempfile::tempdir().expect("can be made");
    let kept = r#"{"engine_id":"80001f88056b6c61786f6e","engine_boots":1}"#;
    std::fs::write(dir.path().join("snmp-engine.json"), kept).expect("can be written");
    let (auth, privacy) = (Secret("password".to_owned()), Secret("hush-hush".to_owned()));
    let (auth, privacy) = (Some((AuthProtocol::Sha256, &auth)), Some((PrivProtocol::Aes256, &privacy)));
    let users = [("open", None, None), ("priv", auth, privacy)];
    let users = users.map(|(name, auth, privacy)| User::new(name, auth, privacy, false).expect("is right"));
    let home = EngineHome::new(dir.path());
    home.engine().expect("is sound");
    Inbound::new(std::sync::Arc::new(home), Users::new(users))
}

fn source() -> SocketAddr {
    "[::ffff:192.0.2.7]:40000".parse().expect("an address")
}

fn mapper() -> Mapper {
    let site = |text: &str| Site::new(text).expect("valid");
    let sites = [("10.0.0.0/8", "wide"), ("10.0.0.0/24", "narrow"), ("2001:db8::/32", "six")];
    let known = sites.map(|(text, name)| (network(text).expect("a network"), Device { site: Some(site(name)), name: None }));
    Mapper::new(site("home"), known.into_iter().collect(), Mappings::built_in())
}

fn read(packet: &[u8]) -> Notification {
    snmp::decode(&Bytes::copy_from_slice(packet), |community| community == b"public").expect("is a notification")
}

fn event(packet: &[u8]) -> Event {
    mapper().event(source(), &read(packet))
}

fn attribute<'a>(event: &'a Event, name: &str) -> &'a str {
    event.details.attributes.get(name).map_or("-", |value| value.as_str())
}

#[test]
fn link_traps_of_either_version_are_one_alarm_of_an_interface() {
    let (down, up, v1) = (event(LINK_DOWN), event(LINK_UP), event(V1_LINK_DOWN));
    assert_eq!(down.key.resource.as_str(), "device=192.0.2.7.ifindex=7");
    assert_eq!(down.key.alarm_type.as_str(), "link.down");
    assert_eq!(down.key, up.key);
    assert_eq!(
        (down.report, up.report, v1.report),
        (Report::Raise(Severity::Major), Report::Clear, Report::Raise(Severity::Major))
    );
    assert_eq!(down.text.as_str(), "Link down on 192.0.2.7: interface 7, eth7, configured up, is down");
    assert_eq!(attribute(&down, "if_descr"), "eth7");
    assert_eq!(attribute(&down, "if_oper_status"), "down");
    assert_eq!(attribute(&down, "1.3.6.1.2.1.2.2.1.8.7"), "2");
    assert_eq!(attribute(&down, "sys_up_time"), "-", "or each repeat would be another");
    assert_eq!(down.origin.producer.as_deref(), Some("trap/192.0.2.7"));
    assert_eq!(down.origin.event_id, None);
    // v1 names its device.
    assert_eq!(v1.key.resource.as_str(), "device=10.0.0.9.ifindex=7");
    assert_eq!(v1.key.site.as_str(), "narrow", "the smallest network counts");
    assert_eq!(attribute(&v1, "trap_address"), "10.0.0.9");
    assert_eq!(attribute(&v1, "source_address"), "192.0.2.7");
    assert_eq!(attribute(&v1, "snmp_version"), "1");
}

/// linkDown with these variables.
fn link(varbinds: &[(&[u32], i32)]) -> Event {
    let varbinds = varbinds.iter().map(|(oid, number)| Varbind { oid: Oid::new(oid), value: Value::Integer(*number) });
    mapper().event(source(), &Notification { varbinds: varbinds.collect(), ..read(LINK_DOWN) })
}

#[test]
fn the_interface_is_found_where_devices_put_it() {
    const IF: [u32; 9] = [1, 3, 6, 1, 2, 1, 2, 2, 1];
    let cell = |column: u32, instance: &[u32]| [&IF[..], &[column], instance].concat();
    let resource = |oid: &[u32], number| link(&[(oid, number)]).key.resource.as_str().to_owned();
    assert_eq!(resource(&cell(1, &[3]), 3), "device=192.0.2.7.ifindex=3");
    assert_eq!(resource(&cell(1, &[]), 4), "device=192.0.2.7.ifindex=4", "without instance");
    assert_eq!(resource(&cell(1, &[0]), 5), "device=192.0.2.7.ifindex=5", "as if it were a scalar");
    assert_eq!(resource(&cell(8, &[6]), 2), "device=192.0.2.7.ifindex=6");
    assert_eq!(resource(&[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1, 9], 0), "device=192.0.2.7.ifindex=9");
    let off = link(&[(&cell(7, &[3]), 2), (&cell(8, &[3]), 2)]);
    assert_eq!(off.report, Report::Raise(Severity::Warning), "it was turned off");
    for nowhere in [link(&[]), link(&[(&cell(1, &[0]), 0)]), link(&[(&cell(8, &[1, 2]), 2)])] {
        assert_eq!(nowhere.report, Report::Log(Severity::Warning));
        assert_eq!(nowhere.key.resource.as_str(), "device=192.0.2.7");
        assert_eq!(nowhere.key.qualifier.as_str(), "1.3.6.1.6.3.1.1.5.3");
    }
}

#[test]
fn other_traps_are_log_events_by_oid() {
    let cold = event(V1_COLD_START);
    assert_eq!((cold.key.alarm_type.as_str(), cold.key.qualifier.as_str()), ("snmp.trap", "1.3.6.1.6.3.1.1.5.1"));
    assert_eq!(cold.text.as_str(), "coldStart from 10.0.0.9");
    assert_ne!(attribute(&cold, "sys_up_time"), "-");
    // RFC 3584 3.1: enterprise, 0, specific.
    let own = event(V1_ENTERPRISE);
    assert_eq!(own.key.qualifier.as_str(), "1.3.6.1.4.1.8072.9.0.42");
    assert_eq!(own.report, Report::Log(Severity::Indeterminate));
    assert_eq!(own.key.resource.as_str(), "device=192.0.2.7", "0.0.0.0 is no address");
    assert_eq!(attribute(&own, "enterprise"), "1.3.6.1.4.1.8072.9");
    assert_eq!(attribute(&own, "1.3.6.1.4.1.8072.9.1"), "0x00ff10");
}

#[test]
fn a_ups_that_says_each_minute_that_it_runs_on_battery_says_the_same_each_time() {
    let first = read(include_bytes!("../../../fuzz/corpus/trap/v2c-ups-on-battery.bin"));
    let mut next = first.clone();
    next.up_time = first.up_time.map(|ticks| ticks + 6_000);
    let numbers = next.varbinds.iter_mut().filter_map(|varbind| match &mut varbind.value {
        Value::Integer(number) if varbind.oid.arcs().starts_with(&[1, 3, 6, 1, 2, 1, 33, 1, 2]) => Some(number),
        _ => None,
    });
    assert_eq!(numbers.map(|number| *number += 1).count(), 2, "minutes that remain, and seconds on battery");
    let [first, next] = [first, next].map(|notification| mapper().event(source(), &notification));
    assert_eq!(first.report, Report::Raise(Severity::Major));
    assert_eq!((&first.text, &first.details), (&next.text, &next.details));
}

#[test]
fn values_are_shown_by_type() {
    let event = event(TYPES);
    let shown = |last: u32| attribute(&event, &format!("1.3.6.1.4.1.9.{last}")).to_owned();
    let expected = [
        "-5",
        "4000000000",
        "7",
        "18446744073709551615",
        "10.1.2.3",
        "1.3.6.1.4.1.1",
        "99",
        "0x07e60c1f173b3b00",
        "NULL",
        "1.5",
    ];
    assert_eq!((1..=10).map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(event.key.resource.as_str(), "device=10.9.8.7", "snmpTrapAddress");
    assert_eq!(event.key.site.as_str(), "wide");
    let octets = |bytes: &'static [u8]| {
        let varbinds = vec![Varbind { oid: Oid::new(&[1, 3, 9]), value: Value::OctetString(Bytes::from_static(bytes)) }];
        let event = mapper().event(source(), &Notification { varbinds, ..read(LINK_UP) });
        attribute(&event, "1.3.9").to_owned()
    };
    assert_eq!(octets(b"two\r\nlines\0"), "two\nlines");
    assert_eq!(octets(b""), "");
    assert_eq!(octets(b"\0"), "0x00");
    assert_eq!(octets(b"bell\x07"), "0x62656c6c07");
    assert_eq!(octets("grün".as_bytes()), "grün");
}

/// The variables of an event, those with an attribute of their own and those in lines.
fn variables(event: &Event) -> std::collections::BTreeMap<String, String> {
    let all = || event.details.attributes.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let mut found: std::collections::BTreeMap<_, _> = all().filter(|(name, _)| name.starts_with("1.")).collect();
    let pieces = (1..).map_while(|number| event.details.attributes.get(&format!("varbinds.{number}")));
    let lines: String = pieces.map(AttributeValue::as_str).collect();
    for line in lines.lines().filter(|line| line.ends_with('}')) {
        let line: serde_json::Value = serde_json::from_str(line).expect("is JSON");
        let text = |name: &str| line[name].as_str().expect("is a text").to_owned();
        assert!(found.insert(text("oid"), text("value")).is_none());
    }
    found
}

#[test]
fn all_variables_are_kept_however_many_and_long_they_are() {
    let forty = event(FORTY);
    assert_eq!(forty.details.attributes.iter().count(), ATTRIBUTES_MAX);
    let kept = variables(&forty);
    assert_eq!(kept.len(), 40);
    assert_eq!(kept["1.3.6.1.4.1.9.39"], format!("value 39{}", "x".repeat(117)));
    let with = |count: u32, bytes: usize| {
        let value = Value::OctetString(Bytes::from(vec![b'x'; bytes]));
        let varbinds = (0..count).map(|n| Varbind { oid: Oid::new(&[1, 3, n]), value: value.clone() }).collect();
        mapper().event(source(), &Notification { varbinds, ..read(LINK_UP) })
    };
    let long = with(1, 9000);
    assert_eq!(variables(&long)["1.3.0"].len(), 9000);
    assert_eq!(attribute(&long, "varbinds_cut"), "-");
    let much = with(20, 3000);
    let cut: usize = attribute(&much, "varbinds_cut").parse().expect("says how many");
    assert_eq!(variables(&much).len() + cut, 20);
    assert!(variables(&much).len() > 5);
    assert!(much.details.attributes.iter().count() <= ATTRIBUTES_MAX);
    // Twice the same OID, one that is too long for a name, and a secret.
    let long_oid: Vec<u32> = std::iter::repeat_n(u32::MAX, 100).collect();
    let community = [1, 3, 6, 1, 6, 3, 18, 1, 4, 0];
    let oids = [&[1, 3, 5][..], &[1, 3, 5], &long_oid, &community];
    let varbinds = oids.map(|oid| Varbind { oid: Oid::new(oid), value: Value::Counter64(1) }).into();
    let odd = mapper().event(source(), &Notification { varbinds, ..read(LINK_UP) });
    let lines = attribute(&odd, "varbinds.1").to_owned() + attribute(&odd, "varbinds.2");
    assert_eq!(attribute(&odd, "1.3.5"), "1");
    assert!(lines.contains("\"1.3.5\"") && lines.contains("4294967295.4294967295"), "{lines}");
    assert!(!lines.contains("1.3.6.1.6.3.18.1.4.0") && attribute(&odd, "1.3.6.1.6.3.18.1.4.0") == "-");
}

#[test]
fn an_inform_is_known_by_its_bytes_and_where_it_comes_from_and_not_by_its_community() {
    let mut informs = Informs::default();
    let now = Instant::now();
    let mut id = |packet: &[u8], from: &str| {
        let notification = snmp::decode(&Bytes::copy_from_slice(packet), |_| true).expect("is an inform");
        assert_eq!(notification.version, Version::V2c);
        let inform = notification.inform.expect("is an inform");
        informs.id(from.parse().expect("an address"), &inform, now)
    };
    let here = id(INFORM, "192.0.2.7:1000");
    assert_eq!(here, id(INFORM, "192.0.2.7:1000"));
    assert_ne!(here, id(INFORM, "192.0.2.7:1001"));
    let at = INFORM.windows(6).position(|window| window == b"public").expect("has its community");
    let mut other = INFORM.to_vec();
    other[at..at + 6].copy_from_slice(b"secret");
    assert_eq!(here, id(&other, "192.0.2.7:1000"));
    *other.last_mut().expect("is not empty") ^= 1;
    assert_ne!(here, id(&other, "192.0.2.7:1000"));
}

#[test]
fn an_event_says_by_whom_and_from_which_engine_it_came_by_v3() {
    let mut inbound = inbound();
    let mut event = |packet: &[u8]| super::read(&mut inbound, packet, source(), &Site::new("here").expect("valid"));
    let (trap, response) = event(V3_TRAP_PRIV).expect("is a trap");
    assert_eq!((response, trap.origin.event_id.clone()), (None, None));
    assert_eq!(trap.key.resource.as_str(), "device=192.0.2.7.ifindex=7");
    let said = ["snmp_version", "security_name", "security_level", "engine_id", "context_name"];
    let by = |event: &Event| said.map(|name| attribute(event, name).to_owned());
    // net-snmp's own id is that of the context, also where it speaks for another engine.
    let own = |event: &Event| assert!(attribute(event, "context_engine_id").starts_with("80001f8880"), "{event:?}");
    assert_eq!(by(&trap), ["3", "priv", "authPriv", "80001f8804646576696365", "site"]);
    own(&trap);
    let (inform, response) = event(V3_INFORM_OPEN).expect("is an inform");
    assert!(response.is_some() && inform.origin.event_id.is_some());
    assert_eq!(by(&inform), ["3", "open", "noAuthNoPriv", "-", "-"]);
    own(&inform);
    let mut asks = |packet| event(packet).expect_err("is none");
    assert!(asks(V3_DISCOVERY).contains("a question for the engine's id"));
    assert!(asks(V3_INFORM_PRIV).contains("a question for the engine's time"), "it does not know it");
}

/// One for all cases: the keys take a while to make.
static INBOUND: LazyLock<Mutex<Inbound>> = LazyLock::new(|| Mutex::new(inbound()));

proptest! {
    #[test]
    fn a_damaged_packet_is_refused_or_is_a_sound_event(
        which in 0..13_usize,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let v1_or_v2c = [V1_COLD_START, V1_LINK_DOWN, V1_ENTERPRISE, LINK_DOWN, LINK_UP, TYPES, FORTY, INFORM];
        let v3 = [V3_TRAP_OPEN, V3_TRAP_PRIV, V3_INFORM_OPEN, V3_INFORM_PRIV, V3_DISCOVERY];
        let mut packet = [&v1_or_v2c[..], &v3].concat()[which].to_vec();
        for (at, byte, how) in damage {
            if packet.is_empty() {
                break;
            }
            let at = at.index(packet.len());
            match how {
                0 => packet[at] = byte,
                1 => packet.truncate(at),
                _ => packet.insert(at, byte),
            }
        }
        let site = Site::new("here").expect("valid");
        if let Ok((event, _)) = super::read(&mut INBOUND.lock().expect("nobody broke it"), &packet, source(), &site) {
            prop_assert!(event.details.attributes.iter().count() <= ATTRIBUTES_MAX);
        }
    }
}
