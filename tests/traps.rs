//! Traps and informs of net-snmp, sent to a node: what becomes of them, and what is still there after the worst.

#![expect(clippy::print_stdout, reason = "a test that is left out says so")]

mod harness;

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{Node, Setup, is_long, scratch, wait_until};
use serde_json::Value;

const LINK_DOWN: &str = "1.3.6.1.6.3.1.1.5.3";
const LINK_UP: &str = "1.3.6.1.6.3.1.1.5.4";
const COLD_START: &str = "1.3.6.1.6.3.1.1.5.1";

/// Whether net-snmp is there.
fn can_send() -> bool {
    if Command::new("snmptrap").arg("-V").output().is_ok() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs snmptrap and snmpinform (package snmp)");
    println!("skipped: snmptrap is not there");
    false
}

fn traps(node: &Node) -> SocketAddr {
    node.traps.expect("it receives traps")
}

/// Runs one of net-snmp's senders against the node.
fn send(node: &Node, program: &str, options: &[&str], notification: &[&str]) -> Output {
    Command::new(program)
        // No MIB and no configuration of this machine.
        .args(["-m", "", "-M", "", "-On"])
        .env("SNMPCONFPATH", "/nonexistent")
        .env("SNMP_PERSISTENT_DIR", &node.data)
        .args(options)
        .arg(traps(node).to_string())
        .args(notification)
        .output()
        .expect("it runs")
}

fn trap(node: &Node, options: &[&str], notification: &[&str]) {
    let sent = send(node, "snmptrap", options, notification);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
}

fn inform(node: &Node, options: &[&str], notification: &[&str]) -> bool {
    send(node, "snmpinform", options, notification).status.success()
}

/// The variables of an interface, as devices send them.
fn interface(index: u32, admin: u32, oper: u32) -> Vec<String> {
    let cell = |column: u32| format!("1.3.6.1.2.1.2.2.1.{column}.{index}");
    let texts = [
        (cell(1), "i", index.to_string()),
        (cell(7), "i", admin.to_string()),
        (cell(8), "i", oper.to_string()),
        (cell(2), "s", format!("eth{index}")),
    ];
    texts.into_iter().flat_map(|(oid, kind, value)| [oid, kind.to_owned(), value]).collect()
}

fn with<'a>(head: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    head.iter().copied().chain(rest.iter().map(String::as_str)).collect()
}

/// A metric's value.
fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("//metrics").expect("the node answers").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("there is no metric {name}:\n{text}")).parse().expect("is a number")
}

/// What has been received is what is journalled, rejected, dropped or a duplicate.
fn assert_balance(node: &Node) {
    let of = |what: &str| metric(node, &format!("klaxon_door_events_{what}_total{{door=\"trap\"}}"));
    let by = |what: &str, reasons: &[&str]| -> u64 {
        reasons
            .iter()
            .map(|reason| metric(node, &format!("klaxon_door_events_{what}_total{{door=\"trap\",reason=\"{reason}\"}}")))
            .sum()
    };
    let rejected = by("rejected", &["invalid", "too_old", "alarm_limit", "too_large"]);
    let dropped = by("dropped", &["busy", "disk_full", "stopping", "rate_limited"]);
    wait_until("everything is settled", || metric(node, "klaxon_trap_datagrams_received_total") == of("received"));
    assert_eq!(of("received"), of("journalled") + of("duplicate") + rejected + dropped);
}

/// Changes about traps with this text in their alarm's qualifier, the oldest first.
fn logged(node: &Node, qualifier: &str) -> Vec<Value> {
    node.history().into_iter().filter(|change| change.to_string().contains(qualifier)).collect()
}

fn alarm(node: &Node, resource: &str) -> Option<Value> {
    node.alarms().into_iter().find(|alarm| alarm["resource"] == resource)
}

#[test]
fn link_down_and_link_up_are_one_alarm_in_both_versions() {
    if !can_send() {
        return;
    }
    let scratch = scratch("traps-");
    let node = Setup::new(&scratch.path().join("data"))
        .config("[traps]\nlisten = \"127.0.0.1:0\"\nsites = { \"10.7.0.0/16\" = \"depot-7\" }")
        .start();
    let seven = interface(7, 1, 2);
    trap(&node, &["-v", "2c", "-c", "public"], &with(&["100", LINK_DOWN], &seven));
    let resource = "device=127.0.0.1.ifindex=7";
    wait_until("the link is down", || alarm(&node, resource).is_some());
    let down = alarm(&node, resource).expect("is there");
    assert_eq!(
        (&down["alarm_type"], &down["severity"], &down["site"]),
        (&"link.down".into(), &"major".into(), &"local".into())
    );
    assert_eq!(down["attributes"]["if_descr"], "eth7");
    trap(&node, &["-v", "2c", "-c", "public"], &with(&["200", LINK_UP], &interface(7, 1, 1)));
    wait_until("the link is up", || alarm(&node, resource).is_some_and(|alarm| alarm["cleared"] == true));
    // In v1 the device names itself, and has a site; it was turned off by its operator.
    let off = interface(3, 2, 2);
    trap(&node, &["-v", "1", "-c", "any"], &with(&["1.3.6.1.4.1.9", "10.7.0.3", "2", "0", "300"], &off));
    let resource = "device=10.7.0.3.ifindex=3";
    wait_until("the other link is down", || alarm(&node, resource).is_some());
    let down = alarm(&node, resource).expect("is there");
    assert_eq!((&down["severity"], &down["site"]), (&"warning".into(), &"depot-7".into()));
    assert_eq!(down["attributes"]["source_address"], "127.0.0.1");
    assert_eq!(down["attributes"]["trap_address"], "10.7.0.3");
    assert_balance(&node);
}

#[test]
fn what_nothing_is_mapped_for_is_kept_as_it_came() {
    if !can_send() {
        return;
    }
    let scratch = scratch("traps-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let forty: Vec<String> =
        (1..=40).flat_map(|n| [format!("1.3.6.1.4.1.9.{n}"), "s".to_owned(), format!("value {n} {}", "y".repeat(n))]).collect();
    trap(&node, &["-v", "2c", "-c", "public"], &with(&["100", "1.3.6.1.4.1.8072.2.3.0.1"], &forty));
    trap(&node, &["-v", "1", "-c", "public"], &["1.3.6.1.4.1.8072.2", "10.0.0.1", "6", "17", "55"]);
    wait_until("both are in history", || logged(&node, "1.3.6.1.4.1.8072.2").len() == 2);
    let changes = logged(&node, "1.3.6.1.4.1.8072.2");
    assert!(changes[1].to_string().contains("\"1.3.6.1.4.1.8072.2.0.17\""), "{}", changes[1]);
    for n in 1..=40 {
        let value = format!("value {n} {}", "y".repeat(n));
        assert!(changes[0].to_string().contains(&value), "{value} is missing: {}", changes[0]);
    }
    assert!(node.alarms().is_empty(), "a log event raises nothing");
    assert_balance(&node);
}

#[test]
fn garbage_and_strangers_are_counted_and_change_nothing() {
    if !can_send() {
        return;
    }
    let scratch = scratch("traps-");
    let node = Setup::new(&scratch.path().join("data"))
        .config("[traps]\nlisten = \"127.0.0.1:0\"\ncommunities = [\"inside\", \"other\"]")
        .start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let garbage: [&[u8]; 4] = [b"", b"hello", b"\x30\x82\xff\xff", b"\x30\x03\x02\x01\x03"];
    for datagram in garbage {
        socket.send_to(datagram, traps(&node)).expect("can be sent");
    }
    trap(&node, &["-v", "2c", "-c", "public"], &["1", COLD_START]);
    assert!(
        !inform(&node, &["-v", "2c", "-c", "public", "-r", "0", "-t", "0.3"], &["1", COLD_START]),
        "a stranger is not answered"
    );
    assert!(inform(&node, &["-v", "2c", "-c", "inside"], &["2", COLD_START]));
    let rejected = |reason: &str| metric(&node, &format!("klaxon_trap_datagrams_rejected_total{{reason=\"{reason}\"}}"));
    wait_until("all are counted", || rejected("community") == 2 && rejected("malformed") == 3 && rejected("version") == 1);
    assert_eq!(logged(&node, COLD_START).len(), 1);
    assert_balance(&node);
    let log = node.log_text();
    assert_eq!(log.matches("cannot be used").count(), 1, "one line a minute: {log}");
    assert!(!log.contains("inside") && !node.history().iter().any(|change| change.to_string().contains("inside")));
}

#[test]
fn an_inform_is_answered_when_it_is_durable_and_not_before() {
    if !can_send() {
        return;
    }
    let scratch = scratch("traps-");
    let order = scratch.path().join("full");
    let node = Setup::new(&scratch.path().join("data")).shim().env("KLAXON_SHIM_FULL", &order.to_string_lossy()).start();
    let options = ["-v", "2c", "-c", "public", "-r", "1", "-t", "0.5"];
    assert!(inform(&node, &options, &["1", COLD_START]));
    assert_eq!(logged(&node, COLD_START).len(), 1);
    // The disk is full for as long as the order says; each attempt of the node uses up some of it.
    std::fs::write(order.with_extension("new"), "0 100000000").expect("can be written");
    std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
    assert!(!inform(&node, &options, &["2", COLD_START]), "answered, and it is on no disk");
    // A plain trap is held meanwhile, and lost by nobody.
    trap(&node, &["-v", "2c", "-c", "public"], &with(&["3", LINK_DOWN], &interface(9, 1, 2)));
    trap(&node, &["-v", "2c", "-c", "public"], &with(&["4", LINK_UP], &interface(9, 1, 1)));
    trap(&node, &["-v", "2c", "-c", "public"], &with(&["5", LINK_DOWN], &interface(9, 1, 2)));
    wait_until("traps are held", || metric(&node, "klaxon_trap_traps_held_total") >= 3);
    assert_eq!(logged(&node, COLD_START).len(), 1);
    assert_eq!(metric(&node, "klaxon_trap_informs_total{answered=\"yes\"}"), 1);
    node.kill();
    // With room again. What was held died with the process; what was answered is there, once.
    let setup = Setup::new(&scratch.path().join("data")).shim().env("KLAXON_SHIM_FULL", &order.to_string_lossy());
    let node = setup.start();
    assert!(inform(&node, &options, &["6", COLD_START]));
    assert_eq!(logged(&node, COLD_START).len(), 2);
    // Full for a while, and then not: what was held comes in by itself, in its order, and informs are answered again.
    std::fs::write(order.with_extension("new"), "0 20").expect("can be written");
    std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
    for (index, (oid, oper)) in [(LINK_DOWN, 2), (LINK_UP, 1), (LINK_DOWN, 2)].into_iter().enumerate() {
        trap(&node, &["-v", "2c", "-c", "public"], &with(&[&*format!("{index}"), oid], &interface(9, 1, oper)));
    }
    wait_until("what was held came in", || {
        let alarm = alarm(&node, "device=127.0.0.1.ifindex=9");
        alarm.is_some_and(|alarm| alarm["raise_seq"] == 2 && alarm["cleared"] != true)
    });
    assert!(metric(&node, "klaxon_trap_traps_held_total") >= 1, "the disk was not full");
    wait_until("informs are answered", || inform(&node, &options, &["7", COLD_START]));
    assert_balance(&node);
}

/// An inform of net-snmp, as it goes over the wire, with another request id.
fn inform_bytes(request: u32) -> Vec<u8> {
    let mut bytes = include_bytes!("../fuzz/corpus/trap/v2c-inform.bin").to_vec();
    let at = bytes.iter().position(|byte| *byte == 0xa6).expect("is an inform") + 2;
    assert_eq!(bytes[at..at + 2], [2, 4], "its request id has four bytes");
    bytes[at + 2..at + 6].copy_from_slice(&request.to_be_bytes());
    bytes
}

fn sender(node: &Node) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.connect(traps(node)).expect("can be sent to");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("can be set");
    socket
}

/// Whether the node has answered the inform with this number.
fn is_answered(socket: &UdpSocket, request: u32) -> bool {
    let mut answer = [0; 2000];
    let mut expected = inform_bytes(request);
    let at = expected.iter().position(|byte| *byte == 0xa6).expect("is an inform");
    expected[at] = 0xa2;
    // One that came too late for the request before is passed over.
    while let Ok(length) = socket.recv(&mut answer) {
        if answer[..length] == expected {
            return true;
        }
    }
    false
}

#[test]
fn a_second_delivery_of_an_inform_is_answered_again_and_is_no_second_event() {
    let scratch = scratch("traps-");
    let setup = Setup::new(&scratch.path().join("data"));
    let node = setup.start();
    let begun = ten_minutes();
    let socket = sender(&node);
    // The first is sent twice at once; the second copy meets the first on its way.
    for _ in 0..2 {
        socket.send(&inform_bytes(0x0102_0304)).expect("can be sent");
    }
    assert!(is_answered(&socket, 0x0102_0304) && is_answered(&socket, 0x0102_0304));
    socket.send(&inform_bytes(0x0102_0304)).expect("can be sent");
    assert!(is_answered(&socket, 0x0102_0304));
    socket.send(&inform_bytes(0x0102_0305)).expect("can be sent");
    assert!(is_answered(&socket, 0x0102_0305));
    // The answers come before the counts.
    let counts = |word: &str| metric(&node, &format!("klaxon_door_events_{word}_total{{door=\"trap\"}}"));
    harness::wait_until("all are counted", || (counts("journalled"), counts("duplicate")) == (2, 2));
    assert_eq!(logged(&node, COLD_START).len(), 2);
    assert_balance(&node);
    // After a restart it is still known, within the same ten minutes of the clock.
    let address = traps(&node);
    node.kill();
    let node = setup.config(&format!("[traps]\nlisten = \"{address}\"")).start();
    socket.send(&inform_bytes(0x0102_0304)).expect("can be sent");
    assert!(is_answered(&socket, 0x0102_0304));
    if ten_minutes() == begun {
        assert_eq!(logged(&node, COLD_START).len(), 2);
    }
}

/// Which ten minutes of the clock it is.
fn ten_minutes() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("is later").as_secs() / 600
}

#[test]
fn informs_that_are_refused_are_held_in_their_order_and_answered_when_they_are_durable() {
    let scratch = scratch("traps-");
    let order = scratch.path().join("full");
    let node = Setup::new(&scratch.path().join("data")).shim().env("KLAXON_SHIM_FULL", &order.to_string_lossy()).start();
    let as_inform = |trap: &[u8], tag: u8| {
        let mut bytes = trap.to_vec();
        let at = bytes.iter().position(|byte| *byte == 0xa7).expect("is a trap");
        bytes[at] = tag;
        bytes
    };
    let (down, up) = (
        &include_bytes!("../fuzz/corpus/trap/v2c-link-down.bin")[..],
        &include_bytes!("../fuzz/corpus/trap/v2c-link-up.bin")[..],
    );
    let socket = sender(&node);
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("can be set");
    let held = || metric(&node, "klaxon_trap_traps_held_total");
    // The disk is full for so many attempts, ten or twenty in a second.
    std::fs::write(order.with_extension("new"), "0 40").expect("can be written");
    std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
    socket.send(&as_inform(down, 0xa6)).expect("can be sent");
    wait_until("it is held", || held() >= 1);
    // The device hears nothing and tries again; what it has to say next does not wait for that.
    for bytes in [up, down, up] {
        socket.send(&as_inform(bytes, 0xa6)).expect("can be sent");
    }
    wait_until("all have come", || metric(&node, "klaxon_trap_datagrams_received_total") == 4);
    let mut answer = [0; 2000];
    for bytes in [down, up, down, up] {
        let length = socket.recv(&mut answer).expect("it is answered");
        assert_eq!(answer[..length], as_inform(bytes, 0xa2));
    }
    let alarm = alarm(&node, "device=127.0.0.1.ifindex=7").expect("was raised");
    assert_eq!((&alarm["raise_seq"], &alarm["cleared"]), (&1.into(), &true.into()), "{alarm}");
    assert_eq!(metric(&node, "klaxon_door_events_journalled_total{door=\"trap\"}"), 2);
    assert_eq!(metric(&node, "klaxon_door_events_duplicate_total{door=\"trap\"}"), 2);
    wait_until("all are counted", || metric(&node, "klaxon_trap_informs_total{answered=\"yes\"}") == 4);
    assert_balance(&node);
}

#[test]
fn a_node_that_stops_on_a_full_disk_says_what_it_loses_and_ends() {
    let scratch = scratch("traps-");
    let order = scratch.path().join("full");
    let data = scratch.path().join("data");
    let node = Setup::new(&data).shim().env("KLAXON_SHIM_FULL", &order.to_string_lossy()).start();
    std::fs::write(order.with_extension("new"), "0 100000000").expect("can be written");
    std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
    let socket = sender(&node);
    socket.send(&inform_bytes(0x0102_0304)).expect("can be sent");
    wait_until("it is held", || metric(&node, "klaxon_trap_traps_held_total") >= 1);
    for _ in 0..3 {
        socket.send(include_bytes!("../fuzz/corpus/trap/v2c-link-down.bin")).expect("can be sent");
    }
    wait_until("all have come", || metric(&node, "klaxon_trap_datagrams_received_total") == 4);
    assert!(node.stop().success());
    let log = std::fs::read_to_string(data.with_extension("log")).expect("there is a log");
    let lost = log.lines().filter_map(|line| line.split_once(" lost=")?.1.split_whitespace().next()?.parse::<u64>().ok());
    assert_eq!(lost.sum::<u64>(), 4, "{log}");
}

#[test]
fn both_families_come_in_by_one_socket() {
    let scratch = scratch("traps-");
    let node = Setup::new(&scratch.path().join("data")).config("[traps]\nlisten = \"[::]:0\"").start();
    let port = traps(&node).port();
    let down = include_bytes!("../fuzz/corpus/trap/v2c-link-down.bin");
    for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        // A machine without IPv6 hears the one.
        let Ok(socket) = UdpSocket::bind(from) else { continue };
        let to = SocketAddr::from((to.parse::<std::net::IpAddr>().expect("an address"), port));
        socket.send_to(down, to).expect("can be sent");
        let resource = format!("device={}.ifindex=7", to.ip());
        wait_until("it came in", || alarm(&node, &resource).is_some());
        let alarm = alarm(&node, &resource).expect("is there");
        assert_eq!(alarm["attributes"]["source_address"], to.ip().to_string());
    }
    assert_balance(&node);
}

#[test]
fn every_inform_that_was_answered_is_there_after_a_kill() {
    let scratch = scratch("traps-");
    let setup = Setup::new(&scratch.path().join("data"));
    let lives = if is_long() { 12 } else { 3 };
    let next = AtomicU64::new(1);
    let mut answered: Vec<u32> = Vec::new();
    for life in 1..=lives {
        let node = setup.start();
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let these = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..4)
                .map(|_| {
                    let socket = sender(&node);
                    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("can be set");
                    let (stop, count, next) = (&stop, &count, &next);
                    scope.spawn(move || {
                        let mut answered = Vec::new();
                        while !stop.load(Ordering::Relaxed) {
                            let number = u32::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("is small");
                            let request = number | 0x0100_0000;
                            if socket.send(&inform_bytes(request)).is_ok() && is_answered(&socket, request) {
                                answered.push(request);
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        answered
                    })
                })
                .collect();
            wait_until("some informs are answered", || count.load(Ordering::Relaxed) >= 50 * life);
            node.kill();
            stop.store(true, Ordering::Relaxed);
            senders.into_iter().flat_map(|sender| sender.join().expect("it sends")).collect::<Vec<_>>()
        });
        assert!(!these.is_empty());
        answered.extend(these);
    }
    let node = setup.start();
    let there = logged(&node, COLD_START).len();
    // The last one of each sender may be there without its answer.
    let most = answered.len() + 4 * usize::try_from(lives).expect("is small");
    assert!((answered.len()..=most).contains(&there), "{} were answered, {there} are there", answered.len());
}

#[test]
fn a_burst_within_the_buffer_is_journalled_whole() {
    const BURST: u64 = 20_000;
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI needs root for a large receive buffer");
        println!("skipped: a large receive buffer needs root");
        return;
    }
    let scratch = scratch("traps-");
    let node = Setup::new(&scratch.path().join("data")).start();
    let socket = sender(&node);
    let mut packet = include_bytes!("../fuzz/corpus/trap/v2c-types.bin").to_vec();
    let at = packet.iter().position(|byte| *byte == 0xa7).expect("is a trap");
    let request = packet[at..].windows(2).position(|head| head == [2, 4]).expect("has a request id") + at + 2;
    for number in 0..BURST {
        packet[request..request + 4].copy_from_slice(&u32::try_from(number).expect("is small").to_be_bytes());
        socket.send(&packet).expect("can be sent");
    }
    wait_until("all are journalled", || metric(&node, "klaxon_door_events_journalled_total{door=\"trap\"}") == BURST);
    assert_eq!(metric(&node, "klaxon_trap_kernel_drops_total"), 0);
    assert_balance(&node);
}

#[test]
fn lost_traps_are_an_alarm() {
    let scratch = scratch("traps-");
    let config = "[traps]\nlisten = \"127.0.0.1:0\"\nreceive_buffer = \"64KiB\"";
    let node = Setup::new(&scratch.path().join("data")).config(config).start();
    let socket = sender(&node);
    let packet = include_bytes!("../fuzz/corpus/trap/v2c-forty.bin");
    wait_until("the kernel drops some", || {
        (0..2000).for_each(|_| drop(socket.send(packet)));
        metric(&node, "klaxon_trap_kernel_drops_total") > 0
    });
    wait_until("that is told", || alarm(&node, "klaxon=node").is_some());
    let alarm = alarm(&node, "klaxon=node").expect("is there");
    assert_eq!(alarm["alarm_type"], "klaxon.trap-loss");
    assert!(alarm["text"].as_str().is_some_and(|text| text.contains("net.core.rmem_max")), "{alarm}");
}

/// The alarm of this type about the node itself, if it stands.
fn own_alarm(node: &Node, alarm_type: &str) -> Option<Value> {
    let is_it = |alarm: &Value| alarm["resource"] == "klaxon=node" && alarm["alarm_type"] == alarm_type;
    node.alarms().into_iter().find(|alarm| is_it(alarm) && alarm["cleared"] != true)
}

#[test]
fn a_port_that_is_taken_is_an_alarm_until_it_is_free_or_no_traps_are_wanted() {
    const UNAVAILABLE: &str = "klaxon.traps-unavailable";
    let scratch = scratch("traps-");
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("is bound");
    let setup = Setup::new(&scratch.path().join("data")).config(&format!("[traps]\nlisten = \"{address}\""));
    let node = setup.start();
    assert_eq!(node.traps, None, "it greets with an address that it does not have");
    wait_until("that is told", || own_alarm(&node, UNAVAILABLE).is_some());
    let alarm = own_alarm(&node, UNAVAILABLE).expect("is there");
    assert_eq!(alarm["severity"], "major");
    let text = alarm["text"].as_str().expect("has a text");
    assert!(text.contains(&address.to_string()) && text.contains("in use"), "{text}");
    assert!(node.log_text().contains("no traps are received"), "{}", node.log_text());
    assert_eq!(metric(&node, "klaxon_trap_datagrams_received_total"), 0);
    assert_balance(&node);
    // The other program ends.
    drop(taken);
    wait_until("the port is had", || own_alarm(&node, UNAVAILABLE).is_none());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.send_to(include_bytes!("../fuzz/corpus/trap/v2c-link-down.bin"), address).expect("can be sent");
    wait_until("a trap came in", || metric(&node, "klaxon_door_events_journalled_total{door=\"trap\"}") == 1);
    assert_balance(&node);
    node.kill();
    // Taken again, and then nobody wants traps any more.
    let taken = UdpSocket::bind(address).expect("the port is free");
    let node = setup.start();
    wait_until("that is told again", || own_alarm(&node, UNAVAILABLE).is_some());
    node.kill();
    drop(taken);
    let off = Setup::new(&scratch.path().join("data")).config("[traps]\nenabled = false").start();
    assert_eq!(off.traps, None);
    wait_until("nothing stands of it", || own_alarm(&off, UNAVAILABLE).is_none());
    assert_eq!(off.log_text().matches("no traps are received").count(), 2, "of the two starts before");
}

/// Writes the configuration of a running node anew, and has it read.
fn reload(node: &Node, lines: &str, says: &str) {
    let before = node.log_text().len();
    harness::write_config(&node.data.with_extension("toml"), lines);
    node.signal(rustix::process::Signal::HUP);
    wait_until("the reload is told of", || node.log_text()[before..].contains(says));
}

/// The same with an address that other settings keep.
fn with_traps(node: &Node, lines: &str) -> String {
    format!("[traps]\nlisten = \"{}\"\n{lines}\n", traps(node))
}

#[test]
fn mappings_and_devices_change_while_traps_come_in_and_none_is_lost() {
    let scratch = scratch("traps-");
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free");
    let listen = format!("[traps]\nlisten = \"{free}\"\nsource_rate_max = 0\n");
    let node = Setup::new(&scratch.path().join("data")).config(&listen).start();
    let mapping = scratch.path().join("own.toml");
    let own = "[names]\nsets = \"1.3.6.1.4.1.8072.2.3.0.1\"\n[[rule]]\nname = \"mine\"\ntrap = \"sets\"\nalarm_type = \"sets.wrong\"\n";
    std::fs::write(&mapping, format!("{own}severity = \"minor\"\n")).expect("is written");
    let settings = with_traps(
        &node,
        &format!(
            "source_rate_max = 0\nmappings = [{mapping:?}]\ndevices = {{ \"10.9.8.7\" = {{ name = \"sw-7\", site = \"depot\" }} }}"
        ),
    );
    let packet = include_bytes!("../fuzz/corpus/trap/v2c-types.bin");
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let socket = sender(&node);
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                // No faster than they are taken, so that what is missing was not lost in the kernel.
                if sent < metric(&node, "klaxon_trap_datagrams_received_total") + 200 {
                    for _ in 0..20 {
                        socket.send(packet).expect("can be sent");
                    }
                    sent += 20;
                }
            }
            sent
        });
        wait_until("some came in", || logged(&node, "1.3.6.1.4.1.8072.2.3.0.1").len() > 10);
        reload(&node, &settings, "new settings are in force");
        wait_until("the rule is in force", || alarm(&node, "device=sw-7").is_some());
        stop.store(true, Ordering::Relaxed);
        sending.join().expect("it sends")
    });
    let raised = alarm(&node, "device=sw-7").expect("is there");
    assert_eq!(
        (&raised["alarm_type"], &raised["severity"], &raised["site"]),
        (&"sets.wrong".into(), &"minor".into(), &"depot".into())
    );
    assert_eq!(raised["attributes"]["trap_address"], "10.9.8.7");
    let journalled = || metric(&node, "klaxon_door_events_journalled_total{door=\"trap\"}");
    wait_until("all are journalled", || journalled() == sent);
    assert_eq!(metric(&node, "klaxon_trap_kernel_drops_total"), 0);
    assert_balance(&node);
    // Another content of the same file, and then one that is wrong.
    std::fs::write(&mapping, format!("{own}severity = \"critical\"\n")).expect("is written");
    reload(&node, &settings, "the files of traps.mappings");
    sender(&node).send(packet).expect("can be sent");
    wait_until("the new one counts", || alarm(&node, "device=sw-7").expect("is there")["severity"] == "critical");
    std::fs::write(&mapping, format!("{own}severity = \"awful\"\n")).expect("is written");
    reload(&node, &settings, "the new settings are refused");
    let place = format!("{}:7: rule.severity: \\\"awful\\\" is none of", mapping.display());
    let log = node.log_text();
    assert!(log.contains(&place) || log.contains(&place.replace("\\\"", "\"")), "{log}");
    sender(&node).send(packet).expect("can be sent");
    wait_until("all are journalled", || journalled() == sent + 2);
    assert_eq!(alarm(&node, "device=sw-7").expect("is there")["severity"], "critical");
}

#[test]
fn one_source_that_has_gone_mad_is_one_alarm_and_does_not_drown_the_others() {
    const FLOOD: &str = "klaxon.trap-flood";
    let scratch = scratch("traps-");
    let limit = "[traps]\nlisten = \"0.0.0.0:0\"\nsource_rate_max = 1\nsource_burst_max = 50";
    let node = Setup::new(&scratch.path().join("data")).config(limit).start();
    let to = SocketAddr::from(([127, 0, 0, 1], traps(&node).port()));
    let from = |address: &str| {
        let socket = UdpSocket::bind((address, 0)).expect("loopback has many addresses");
        socket.connect(to).expect("can be sent to");
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("can be set");
        socket
    };
    let (mad, sane) = (from("127.0.0.66"), from("127.0.0.7"));
    for _ in 0..200 {
        mad.send(include_bytes!("../fuzz/corpus/trap/v2c-types.bin")).expect("can be sent");
    }
    sane.send(include_bytes!("../fuzz/corpus/trap/v2c-link-down.bin")).expect("can be sent");
    wait_until("that of the other came in", || alarm(&node, "device=127.0.0.7.ifindex=7").is_some());
    let dropped = || metric(&node, "klaxon_door_events_dropped_total{door=\"trap\",reason=\"rate_limited\"}");
    wait_until("the rest is dropped", || dropped() >= 140);
    wait_until("that is told", || own_alarm(&node, FLOOD).is_some());
    let told = own_alarm(&node, FLOOD).expect("is there");
    assert!(told["text"].as_str().is_some_and(|text| text.contains("127.0.0.66 (")), "{told}");
    assert!(!told["text"].to_string().contains("127.0.0.7 "), "{told}");
    // An inform over the limit is not answered; that of another source is.
    let inform = inform_bytes(0x0102_0304);
    for _ in 0..100 {
        mad.send(include_bytes!("../fuzz/corpus/trap/v2c-types.bin")).expect("can be sent");
    }
    mad.send(&inform).expect("can be sent");
    assert!(mad.recv(&mut [0; 2000]).is_err(), "is answered, and was over the limit");
    sane.send(&inform).expect("can be sent");
    assert!(is_answered(&sane, 0x0102_0304));
    assert_balance(&node);
    let alarms = node.alarms();
    assert_eq!(alarms.iter().filter(|alarm| alarm["alarm_type"] == FLOOD).count(), 1);
    // With another limit it may send, and a minute later the alarm is over.
    let journalled = || metric(&node, "klaxon_door_events_journalled_total{door=\"trap\"}");
    reload(&node, "[traps]\nlisten = \"0.0.0.0:0\"\nsource_rate_max = 0", "new settings are in force");
    let (count, lost) = (journalled(), dropped());
    for _ in 0..100 {
        mad.send(include_bytes!("../fuzz/corpus/trap/v2c-types.bin")).expect("can be sent");
    }
    wait_until("all come in", || journalled() >= count + 100);
    assert_eq!(dropped(), lost);
    if is_long() {
        let begun = std::time::Instant::now();
        while own_alarm(&node, FLOOD).is_some() {
            assert!(begun.elapsed() < Duration::from_secs(90), "it stands for ever");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
