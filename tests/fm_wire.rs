//! Programs of StarlingX against a node that takes fmManager's place: every action, what they mean by an entity, what nobody should
//! send, and what is there after the worst.

mod harness;

use std::io::Write as _;
use std::time::{Duration, Instant};

use harness::fm::{self, ALARM_BYTES, Alarm, Client, filter, packet};
use harness::{Node, Setup, Site, scratch, wait_until};
use serde_json::{Value, json};

const ON: &str = "[fm]\nenabled = true\nlisten = \"127.0.0.1:0\"\n";

fn client(node: &Node) -> Client {
    Client::connect(node.fm.expect("it serves StarlingX's programs"))
}

/// A metric's value.
fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("//metrics").expect("the node answers").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("there is no metric {name}:\n{text}")).parse().expect("is a number")
}

/// The one alarm of this type and resource.
fn alarm(node: &Node, alarm_type: &str, resource: &str) -> Value {
    let of_it = |alarm: &Value| alarm["alarm_type"] == alarm_type && alarm["resource"] == resource;
    let found: Vec<Value> = node.alarms().into_iter().filter(of_it).collect();
    let [alarm] = found.as_slice() else { panic!("one {alarm_type} of {resource}: {found:?}") };
    alarm.clone()
}

/// The entities of all that stands, in order.
fn standing(node: &Node) -> Vec<String> {
    let alarms = node.alarms().into_iter().filter(|alarm| alarm["cleared"] == false);
    let mut entities: Vec<String> = alarms.map(|alarm| alarm["resource"].as_str().expect("is text").to_owned()).collect();
    entities.sort();
    entities
}

fn entities(alarms: &[Alarm]) -> Vec<String> {
    let mut entities: Vec<String> = alarms.iter().map(Alarm::entity).collect();
    entities.sort();
    entities
}

#[test]
fn an_alarm_is_raised_shown_changed_and_cleared() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let disk = Alarm::new("100.104", "host=web-1.filesystem=/var", 3)
        .text(516, "host.filesystem")
        .reason("91 % used")
        .number(1300, 4)
        .number(1304, 48)
        .text(1308, "delete something")
        .flag(1563)
        .flag(1565);
    let uuid = program.raise(&disk).expect("is taken");
    // Its id is that of a type in the catalogue.
    let raised = alarm(&node, "disk.full", "host=web-1.filesystem=/var");
    assert_eq!((&raised["id"], &raised["severity"], &raised["text"]), (&json!(uuid), &json!("major"), &json!("91 % used")));
    assert_eq!((&raised["event_type"], &raised["probable_cause"]), (&json!("equipment"), &json!("storage-capacity-problem")));
    assert_eq!((&raised["service_affecting"], &raised["count"]), (&json!(true), &json!(1)));

    let shown = program.get("100.104", "host=web-1.filesystem=/var").expect("stands");
    assert_eq!((shown.text_at(0), shown.text_at(255)), (uuid.clone(), "100.104".to_owned()));
    assert_eq!((shown.text_at(516), shown.text_at(1044)), ("host.filesystem".to_owned(), "91 % used".to_owned()));
    assert_eq!(shown.text_at(1308), "delete something");
    assert_eq!([512, 1040, 1300, 1304].map(|at| shown.number_at(at)), [1, 3, 4, 48]);
    // Service affecting and inhibiting; not to be masked, and keep_existing_alarm is of a request.
    assert_eq!(shown.0[1563..], [1, 0, 1, 0, 0]);
    let since = u64::from_le_bytes(*shown.0[1032..].first_chunk().expect("is in it"));
    assert!(since > 1_700_000_000_000_000, "microseconds since 1970: {since}");

    // The same again is a repeat, another severity a change of the same alarm.
    assert_eq!(program.raise(&disk), Ok(uuid.clone()));
    assert_eq!(alarm(&node, "disk.full", "host=web-1.filesystem=/var")["count"], 2);
    let worse = disk.clone().number(1040, 4).reason("98 % used");
    assert_eq!(program.raise(&worse), Ok(uuid.clone()));
    let changed = alarm(&node, "disk.full", "host=web-1.filesystem=/var");
    assert_eq!((&changed["severity"], &changed["text"]), (&json!("critical"), &json!("98 % used")));
    // One that is to be left as it is stays.
    assert_eq!(program.raise(&disk.clone().number(1040, 1).keeping()), Ok(uuid.clone()));
    assert_eq!(program.get("100.104", "host=web-1.filesystem=/var").map(|shown| shown.severity()), Ok(4));
    assert_eq!(alarm(&node, "disk.full", "host=web-1.filesystem=/var")["count"], 3);

    assert_eq!(program.clear("100.104", "host=web-1.filesystem=/var"), fm::OK);
    assert_eq!(program.clear("100.104", "host=web-1.filesystem=/var"), fm::NOT_FOUND);
    assert_eq!(program.get("100.104", "host=web-1.filesystem=/var").err(), Some(fm::NOT_FOUND));
    // What is not there yet is raised, whatever is to be kept; and it is the same alarm.
    assert_eq!(program.raise(&disk.keeping()), Ok(uuid));
    let kinds: Vec<Value> =
        node.history().iter().map(|change| change["kind"].clone()).filter(|kind| kind != "settings").collect();
    let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
    let of_alarm = ["raised", "severity-changed", "cleared", "raised"];
    assert!(kinds.ends_with(&of_alarm), "{kinds:?}");
}

#[test]
fn ids_that_no_catalogue_knows_and_causes_that_only_some_programs_know_are_taken() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let unknown = Alarm::new("999.999", "kubernetes=a", 2).number(1304, 77);
    let uuid = program.raise(&unknown).expect("is taken");
    let raised = alarm(&node, "999.999", "kubernetes=a");
    assert_eq!((&raised["id"], &raised["probable_cause"]), (&json!(uuid), &json!("certificate-expiration")));
    // The library has no word for it.
    assert_eq!(program.get("999.999", "kubernetes=a").map(|shown| shown.number_at(1304)), Ok(0));
}

#[test]
fn a_message_stands_in_history_and_raises_nothing() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let uuid = program.raise(&Alarm::new("200.020", "host=web-1", 0).number(512, 2).reason("rebooted")).expect("is taken");
    assert_eq!(uuid.len(), 36);
    assert!(standing(&node).is_empty());
    let logged = node.history().into_iter().find(|change| change["kind"] == "logged").expect("is in it");
    assert!(logged.to_string().contains("rebooted"), "{logged}");
}

#[test]
fn a_clear_is_meant_for_what_is_named_what_it_contains_and_what_completes_it() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let all = [
        "host=compute-1",
        "host=compute-10",
        "host=compute-1.example.com",
        "host=compute-1.port=eth0",
        "host=compute_2",
        "host=computeX2",
        "host=%",
        "host=n.ntp",
        "host=n.ntp=10.0.0.1",
        "host=n.ntp=10.0.0.2",
        "host=n.ntpd=3",
        "host=c.instance=i.ptp",
        "host=c.instance=i.ptp=no-lock",
        "host=o'brien; DROP TABLE alarm; --",
        "host=\"q\"",
        "",
    ];
    let raise = |id: &str| all.map(|entity| Alarm::new(id, entity, 3));
    assert_eq!(program.raise_all(&raise("100.101")), fm::OK);
    assert_eq!(program.raise(&Alarm::new("100.102", "host=compute-1", 3)).map(drop), Ok(()));
    let mut left: Vec<&str> = all.iter().map(|entity| if entity.is_empty() { " " } else { entity }).collect();
    let mut clear = |entity: &str, over: &[&str]| {
        assert_eq!(program.clear("100.101", entity), fm::OK, "{entity}");
        left.retain(|entity| !over.contains(entity));
        let listed = program.of_id("100.101").map(|alarms| entities(&alarms)).unwrap_or_default();
        let mut expected = left.clone();
        expected.sort_unstable();
        assert_eq!(listed, expected, "after the clear of {entity}");
    };
    clear("host=compute_2", &["host=compute_2"]);
    clear("host=%", &["host=%"]);
    clear("host=compute-1", &["host=compute-1", "host=compute-1.port=eth0"]);
    clear("host=n.ntp", &["host=n.ntp", "host=n.ntp=10.0.0.1", "host=n.ntp=10.0.0.2"]);
    clear("host=c.instance=i.ptp", &["host=c.instance=i.ptp", "host=c.instance=i.ptp=no-lock"]);
    clear("host=o'brien; DROP TABLE alarm; --", &["host=o'brien; DROP TABLE alarm; --"]);
    clear("host=\"q\"", &["host=\"q\""]);
    clear("", &[" "]);
    assert_eq!(program.clear("100.101", "host=compute"), fm::NOT_FOUND);
    assert_eq!(program.clear("100.101", "host=compute-"), fm::NOT_FOUND);
    // Of another id nothing was cleared.
    assert_eq!(program.get("100.102", "host=compute-1").map(drop), Ok(()));
}

#[test]
fn alarms_are_listed_and_cleared_by_entity_and_by_id() {
    let node = Site::start(ON);
    let mut program = client(&node);
    assert_eq!(program.of_entity("host=a").err(), Some(fm::NOT_FOUND));
    assert_eq!(program.of_id("100.101").err(), Some(fm::NOT_FOUND));
    assert_eq!(program.of_id_and_entity("100.101", "host=a").err(), Some(fm::NOT_FOUND));
    let raised = [
        Alarm::new("100.101", "host=a", 4),
        Alarm::new("100.101", "host=ab", 1),
        Alarm::new("100.101", "host=a.core=2", 2),
        Alarm::new("100.103", "host=a", 3),
    ];
    assert_eq!(program.raise_all(&raised), fm::OK);
    let names = |listed: Result<Vec<Alarm>, u32>| entities(&listed.expect("there are some"));
    assert_eq!(names(program.of_entity("host=a")), ["host=a", "host=a", "host=a.core=2"]);
    assert_eq!(names(program.of_id("100.101")), ["host=a", "host=a.core=2", "host=ab"]);
    assert_eq!(names(program.of_id_and_entity("100.101", "host=a")), ["host=a", "host=a.core=2"]);
    assert_eq!(program.get("100.101", "host=a.core=2").map(|shown| shown.severity()), Ok(2));

    // What an operator has suppressed is not among those of an entity, as there.
    let type_of_memory = alarm_type(&node, "100.103");
    node.cli_ok(&["alarms", "suppress", &type_of_memory]);
    assert_eq!(names(program.of_entity("host=a")), ["host=a", "host=a.core=2"]);
    assert_eq!(names(program.of_id("100.103")), ["host=a"]);

    // A list takes what is not there for cleared.
    let filters = [filter("100.101", "host=nowhere"), filter("100.101", "host=ab"), filter("no id", "host=ab")].concat();
    assert_eq!(program.call(fm::DELETE_LIST, &filters), (fm::OK, vec![]));
    assert_eq!(program.of_id("100.101").map(|alarms| alarms.len()), Ok(2));
    // All of an entity, of whichever id.
    assert_eq!(program.clear_all("host=a"), fm::OK);
    assert_eq!(program.clear_all("host=a"), fm::NOT_FOUND);
    assert!(standing(&node).is_empty());
    let cleared = node.history().iter().filter(|change| change["kind"] == "cleared").count();
    assert_eq!(cleared, 4, "each has its change");
}

/// The type that an id of StarlingX stands for.
fn alarm_type(node: &Node, id: &str) -> String {
    node.json(&format!("/catalogue/{id}"))["id"].as_str().expect("has an id").to_owned()
}

#[test]
fn of_a_list_what_stands_before_a_mistake_is_taken() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let list = [Alarm::new("1.1", "host=a", 3), Alarm::new("1.1", "host=b", 9), Alarm::new("1.1", "host=c", 3)];
    assert_eq!(program.raise_all(&list), fm::INVALID_ATTRIBUTE);
    assert_eq!(standing(&node), ["host=a"]);
    assert_eq!(program.raise_all(&[]), fm::OK);
    // One in the list is there for those behind it.
    let twice = [Alarm::new("1.1", "host=d", 4), Alarm::new("1.1", "host=a", 1).keeping()];
    assert_eq!(program.raise_all(&twice), fm::OK);
    assert_eq!(program.get("1.1", "host=a").map(|shown| shown.severity()), Ok(3));
    let twice = [Alarm::new("1.1", "host=e", 4), Alarm::new("1.1", "host=e", 1).keeping()];
    assert_eq!(program.raise_all(&twice), fm::OK);
    assert_eq!(program.get("1.1", "host=e").map(|shown| shown.severity()), Ok(4));
    let (rejected, duplicate) = (
        "klaxon_door_events_rejected_total{door=\"fm\",reason=\"invalid\"}",
        "klaxon_door_events_duplicate_total{door=\"fm\"}",
    );
    assert_eq!((metric(&node, rejected), metric(&node, duplicate)), (1, 2));
    wait_until("the log names the field", || node.log_text().contains("severity: 9 stands for nothing"));
}

#[test]
fn lists_are_as_long_as_clients_have_room_for() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let many: Vec<Alarm> = (0..1000).map(|n| Alarm::new("1.1", &format!("host=h.n={n}"), 3)).collect();
    assert_eq!(program.raise_all(&many), fm::OK);
    assert_eq!(program.of_entity("host=h").map(|alarms| alarms.len()), Ok(1000));
    program.raise(&Alarm::new("1.1", "host=h", 3)).expect("is taken");
    assert_eq!(program.of_entity("host=h").err(), Some(fm::NOT_ENOUGH_SPACE));
    assert_eq!(program.of_id("1.1").err(), Some(fm::NOT_ENOUGH_SPACE));
    assert_eq!(program.of_id_and_entity("1.1", "host=h").err(), Some(fm::NOT_ENOUGH_SPACE));
    assert_eq!(program.clear_all("host=h"), fm::OK);
    assert!(standing(&node).is_empty());
}

#[test]
fn what_is_not_understood_is_answered_and_the_connection_goes_on() {
    let node = Site::start(ON);
    let mut program = client(&node);
    for action in [1, 6, 11, u32::MAX] {
        assert_eq!(program.call(action, &[]), (fm::INVALID_REQUEST, vec![]), "action {action}");
    }
    for (action, bytes) in
        [(0, 1567), (0, 1569), (2, 509), (3, 256), (4, 0), (5, 510), (7, 254), (8, 255), (9, 1567), (10, 511)]
    {
        assert_eq!(program.call(action, &vec![0; bytes]), (fm::INVALID_REQUEST, vec![]), "action {action}, {bytes} bytes");
    }
    let answered = |program: &mut Client, bytes: &[u8]| {
        program.0.write_all(bytes).expect("it listens");
        program.answer().expect("it answers")
    };
    let mut other_version = packet(fm::GET, &filter("1.1", "host=a"));
    other_version[4] = 2;
    assert_eq!(answered(&mut program, &other_version), (fm::GET, fm::INVALID_REQUEST, vec![]));
    // A length that is not that of the payload, and too little for a header.
    let mut other_size = packet(fm::GET, &filter("1.1", "host=a"));
    other_size[12] = 1;
    assert_eq!(answered(&mut program, &other_size), (fm::GET, fm::INVALID_REQUEST, vec![]));
    assert_eq!(answered(&mut program, &[0, 0, 0, 0]), (0, fm::INVALID_REQUEST, vec![]));
    assert_eq!(answered(&mut program, &[0, 0, 0, 3, 1, 1, 1]), (0, fm::INVALID_REQUEST, vec![]));
    // Many at once, and one in single bytes.
    let pipelined = [packet(fm::CREATE, &Alarm::new("1.1", "host=a", 3).0), packet(fm::GET, &filter("1.1", "host=a"))].concat();
    assert_eq!(answered(&mut program, &pipelined).1, fm::OK);
    assert_eq!(program.answer().expect("it answers").2.len(), ALARM_BYTES);
    for byte in packet(fm::GET, &filter("1.1", "host=a")) {
        program.0.write_all(&[byte]).expect("it listens");
    }
    assert_eq!(program.answer().expect("it answers").1, fm::OK);
    let none = "klaxon_fm_requests_total{action=\"none\"}";
    assert_eq!(metric(&node, none), 18);

    // Nobody can wait for what is too long.
    let mut program = client(&node);
    assert_eq!(answered(&mut program, &[0xff; 4]), (0, fm::INVALID_REQUEST, vec![]));
    assert!(program.is_ended());
    wait_until("it is counted", || metric(&node, "klaxon_fm_connections_cut_total{reason=\"too_long\"}") == 1);
}

#[test]
fn texts_are_what_c_programs_make_of_them() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let mut full = Alarm::new("1.1", "host=a", 3);
    // No final zero: the last byte is lost, as there.
    full.0[1044..1299].fill(b'x');
    full.0[1308..1563].copy_from_slice(&[&b"a\xff"[..], &[b'y'; 253]].concat());
    program.raise(&full).expect("is taken");
    let shown = program.get("1.1", "host=a").expect("stands");
    assert_eq!(shown.text_at(1044), "x".repeat(254));
    assert_eq!(alarm(&node, "1.1", "host=a")["text"], "x".repeat(254));
    // What is no UTF-8 is replaced, and what is too long then is cut.
    assert_eq!(shown.text_at(1308), format!("a\u{fffd}{}", "y".repeat(250)));
    // What is longer here than they have room for is cut at a character.
    let long = format!("x{}", "ä".repeat(200));
    node.send(&json!({"resource": "host=b", "alarm_type": "1.1", "severity": "indeterminate", "text": long}));
    let shown = program.get("1.1", "host=b").expect("stands");
    assert_eq!((shown.text_at(1044), shown.severity()), (format!("x{}", "ä".repeat(126)), 1));
    // One with a qualifier is shown under its name and can be cleared by it.
    node.send(&json!({"resource": "host=b", "alarm_type": "1.1", "qualifier": "q", "severity": "major"}));
    assert_eq!(program.get("1.1", "host=b.qualifier=q").map(|shown| shown.severity()), Ok(3));
    assert_eq!(program.clear("1.1", "host=b.qualifier=q"), fm::OK);
    assert_eq!(standing(&node), ["host=a", "host=b"]);
    // Neither ids nor entities are guessed.
    assert_eq!(program.raise(&Alarm::new("1 1", "host=a", 3)), Err(fm::INVALID_ATTRIBUTE));
    assert_eq!(program.raise(&Alarm::new("1.1", "host=a\nb", 3)), Err(fm::INVALID_ATTRIBUTE));
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let scratch = scratch("fm-");
    let setup = Setup::new(&scratch.path().join("data")).config(ON);
    let node = setup.start();
    let address = node.fm.expect("it serves them");
    let programs: Vec<_> = (0..4)
        .map(|program| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut answered = Vec::new();
                // Until the node is gone.
                for n in 0.. {
                    let entity = format!("host=h{program}.n={n}");
                    match client.try_call(fm::CREATE, &Alarm::new("1.1", &entity, 3).0) {
                        Ok((code, _)) => {
                            assert_eq!(code, fm::OK);
                            answered.push(entity);
                        }
                        Err(_) => break,
                    }
                }
                answered
            })
        })
        .collect();
    wait_until("there are some hundred", || metric(&node, "klaxon_fm_requests_total{action=\"create_fault\"}") > 300);
    node.kill();
    let answered: Vec<String> = programs.into_iter().flat_map(|program| program.join().expect("it saw the end")).collect();
    assert!(answered.len() >= 290, "{}", answered.len());
    let node = setup.start();
    let standing = standing(&node);
    let lost: Vec<&String> = answered.iter().filter(|entity| standing.binary_search(entity).is_err()).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), answered.len());
}

#[test]
fn clients_that_stall_delay_nobody_and_are_cut() {
    let node = Site::start(ON);
    let mut program = client(&node);
    let large: Vec<Alarm> = (0..1000).map(|n| Alarm::new("2.2", &format!("host=l.n={n}"), 3)).collect();
    assert_eq!(program.raise_all(&large), fm::OK);
    // Some bring half a packet, of a small one and of a large one, and one reads no answers.
    let mut halves: Vec<Client> = (0..20).map(|_| client(&node)).collect();
    for (n, half) in halves.iter_mut().enumerate() {
        let whole = if n % 2 == 0 {
            packet(fm::CREATE, &[0; ALARM_BYTES])
        } else {
            packet(fm::CREATE_LIST, &vec![0; 4000 * ALARM_BYTES])
        };
        half.0.write_all(&whole[..30]).expect("it listens");
    }
    let mut deaf = client(&node);
    deaf.0.set_write_timeout(Some(Duration::from_millis(200))).expect("can be set");
    let ask = packet(fm::GET_BY_ID, &Alarm::new("2.2", "", 0).0[255..510]);
    while deaf.0.write_all(&ask).is_ok() {}
    // Meanwhile others are answered as ever: in far less than the time that a packet may take.
    let slowest = (0..100).map(|n| {
        let begun = Instant::now();
        program.raise(&Alarm::new("1.1", &format!("host=q.n={n}"), 3)).expect("is taken");
        begun.elapsed()
    });
    let slowest = slowest.max().expect("there are some");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    for half in &mut halves {
        assert!(half.is_ended());
    }
    wait_until("they are counted", || {
        metric(&node, "klaxon_fm_connections_cut_total{reason=\"half_packet\"}") == 20
            && metric(&node, "klaxon_fm_connections_cut_total{reason=\"unread_answer\"}") == 1
            && metric(&node, "klaxon_fm_connections") == 1
    });
}

#[test]
fn of_too_many_connections_the_one_that_was_quiet_longest_goes() {
    let node = Site::start(&format!("{ON}connections_max = 2\n"));
    let (mut first, mut second) = (client(&node), client(&node));
    second.raise(&Alarm::new("1.1", "host=b", 3)).expect("is taken");
    first.raise(&Alarm::new("1.1", "host=a", 3)).expect("is taken");
    let mut third = client(&node);
    third.raise(&Alarm::new("1.1", "host=c", 3)).expect("is taken");
    assert!(second.is_ended());
    first.raise(&Alarm::new("1.1", "host=d", 3)).expect("is taken");
    assert_eq!(standing(&node), ["host=a", "host=b", "host=c", "host=d"]);
}

#[test]
fn all_that_comes_is_accounted_for_and_is_of_the_site_that_is_set() {
    let node = Site::start(&format!("{ON}site = \"depot-7\"\n[engine]\nactive_alarms_max = 3\n"));
    let mut program = client(&node);
    let raise = |n: u32| Alarm::new("1.1", &format!("host=h{n}"), 3);
    assert_eq!(program.raise_all(&[raise(1), raise(2), raise(3), raise(4)]), fm::NOT_ENOUGH_SPACE);
    assert_eq!(program.raise(&raise(5)), Err(fm::NOT_ENOUGH_SPACE));
    assert_eq!(program.clear("1.1", "host=nowhere"), fm::NOT_FOUND);
    assert_eq!(program.clear_all("host=nowhere"), fm::NOT_FOUND);
    assert_eq!(program.clear("1.1", "host=h1"), fm::OK);
    assert_eq!(program.raise(&raise(6).number(512, 9)), Err(fm::INVALID_ATTRIBUTE));
    assert!(node.alarms().iter().filter(|alarm| alarm["alarm_type"] == "1.1").all(|alarm| alarm["site"] == "depot-7"));
    let count = |of: &str| metric(&node, &format!("klaxon_door_events_{of}"));
    let fates = [
        count("journalled_total{door=\"fm\"}"),
        count("rejected_total{door=\"fm\",reason=\"alarm_limit\"}"),
        count("rejected_total{door=\"fm\",reason=\"invalid\"}"),
        count("duplicate_total{door=\"fm\"}"),
    ];
    assert_eq!((fates, count("received_total{door=\"fm\"}")), ([5, 1, 1, 2], 9));
    // An alarm of another site, here, is none of its own.
    node.send(&json!({"site": "elsewhere", "resource": "host=h2", "alarm_type": "1.1", "severity": "cleared"}));
    assert_eq!(program.get("1.1", "host=h2").map(drop), Ok(()));
}

#[test]
fn a_door_that_others_reach_is_said_loudly() {
    let scratch = scratch("fm-");
    let open = "[fm]\nenabled = true\nlisten = \"0.0.0.0:0\"\n";
    let refused = Setup::new(&scratch.path().join("refused")).config(open).try_start();
    let log = refused.err().map(|failed| failed.log).unwrap_or_default();
    assert!(log.contains("fm.listen: can be reached from other hosts"), "{log}");
    let node = Setup::new(&scratch.path().join("open")).config(&format!("{open}insecure = true\n")).start();
    wait_until("it is said", || node.log_text().contains("whoever reaches it can raise and clear alarms"));
    // Off unless it is asked for.
    let off = Setup::new(&scratch.path().join("off")).start();
    assert_eq!(off.fm, None);
}
