//! SNMPv3 from net-snmp and pysnmp to a node: who is believed, what is durable before it is answered, and who changes meanwhile.

#![expect(clippy::print_stdout, reason = "a test that is left out says so")]

mod harness;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::usm::{AUTHS, PRIVACIES};
use harness::{Node, Setup, Site, is_long, scratch, wait_until};
use rustix::process::Signal;

const COLD_START: &str = "1.3.6.1.6.3.1.1.5.1";
/// One of a device's engine.
const DEVICE: &str = "0x80001f8804646576696365";
/// A user who hides what it says.
const PRIV: [&str; 12] =
    ["-l", "authPriv", "-u", "priv", "-a", "SHA-256", "-A", "password", "-x", "AES-256", "-X", "hush-hush"];

/// `priv` and `auth`, as most tests have them.
fn users(priv_password: &str) -> String {
    format!(
        "[snmp.users.priv]\nauth = \"sha256\"\nauth_password = \"{priv_password}\"\nprivacy = \"aes256\"\n\
         privacy_password = \"hush-hush\"\n[snmp.users.auth]\nauth = \"sha256\"\nauth_password = \"password\"\n\
         [snmp.users.open]\n"
    )
}

/// Whether net-snmp is there.
fn can_send() -> bool {
    if Command::new("snmptrap").arg("-V").output().is_ok() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs snmptrap and snmpinform (package snmp)");
    println!("skipped: snmptrap is not there");
    false
}

/// Runs one of net-snmp's senders against the node.
fn send(node: &Node, program: &str, options: &[&str], notification: &[&str]) -> Output {
    Command::new(program)
        // No MIB and no configuration of this machine.
        .args(["-v", "3", "-m", "", "-M", "", "-On"])
        .env("SNMPCONFPATH", "/nonexistent")
        .env("SNMP_PERSISTENT_DIR", node.data.with_extension("sender"))
        .args(options)
        .arg(node.traps.expect("it receives traps").to_string())
        .args(notification)
        .output()
        .expect("it runs")
}

fn trap(node: &Node, options: &[&str]) {
    let sent = send(node, "snmptrap", options, &["1", COLD_START]);
    assert!(sent.status.success(), "{options:?}: {}", String::from_utf8_lossy(&sent.stderr));
}

/// What an inform's sender says of it, if it was not answered.
fn inform(node: &Node, options: &[&str], notification: &[&str]) -> Result<(), String> {
    let sent = send(node, "snmpinform", &[options, &["-r", "1", "-t", "3"]].concat(), notification);
    if sent.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&sent.stderr).into_owned()) }
}

fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("//metrics").expect("the node answers").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("there is no metric {name}:\n{text}")).parse().expect("is a number")
}

fn rejected(node: &Node, reason: &str) -> u64 {
    metric(node, &format!("klaxon_trap_datagrams_rejected_total{{reason=\"{reason}\"}}"))
}

fn door(node: &Node, what: &str) -> u64 {
    metric(node, &format!("klaxon_door_events_{what}_total{{door=\"trap\"}}"))
}

/// What came is what came in, what was refused, and what only asked.
fn assert_balance(node: &Node) {
    let asked = || ["engine", "time"].map(|of| metric(node, &format!("klaxon_trap_discoveries_total{{of=\"{of}\"}}")));
    let came = || metric(node, "klaxon_trap_datagrams_received_total");
    wait_until("everything is settled", || came() == door(node, "received") + asked().iter().sum::<u64>());
    let invalid = metric(node, "klaxon_door_events_rejected_total{door=\"trap\",reason=\"invalid\"}");
    assert_eq!(door(node, "received"), door(node, "journalled") + door(node, "duplicate") + invalid);
}

/// Changes about a trap in which `word` stands.
fn logged(node: &Node, word: &str) -> usize {
    node.history().iter().filter(|change| change.to_string().contains(word)).count()
}

/// A store's folder with an engine that recorded packets are for: `80001f88056b6c61786f6e`.
fn known_engine(data: &Path) {
    std::fs::create_dir_all(data).expect("can be made");
    let kept = r#"{"engine_id":"80001f88056b6c61786f6e","engine_boots":1}"#;
    std::fs::write(data.join("snmp-engine.json"), kept).expect("can be written");
}

#[test]
fn every_pair_of_protocols_that_net_snmp_has_is_taken() {
    if !can_send() {
        return;
    }
    let pairs: Vec<_> = AUTHS.iter().flat_map(|auth| PRIVACIES.iter().map(move |privacy| (*auth, *privacy))).collect();
    let mut config = "[snmp]\nallow_weak = true\n".to_owned();
    for (number, ((auth, _), (privacy, _))) in pairs.iter().enumerate() {
        config += &format!("[snmp.users.u{number}]\nauth = \"{auth}\"\nauth_password = \"password\"\n");
        if !privacy.is_empty() {
            config += &format!("privacy = \"{privacy}\"\nprivacy_password = \"hush-hush\"\n");
        }
    }
    let node = Site::start(&config);
    for (number, ((_, auth), (_, privacy))) in pairs.iter().enumerate() {
        let user = format!("u{number}");
        let level = if privacy.is_empty() { "authNoPriv" } else { "authPriv" };
        let mut options = vec!["-l", level, "-u", &user, "-a", auth, "-A", "password"];
        if !privacy.is_empty() {
            options.extend(["-x", privacy, "-X", "hush-hush"]);
        }
        trap(&node, &options);
        inform(&node, &options, &["1", COLD_START]).unwrap_or_else(|error| panic!("{auth} {privacy}: {error}"));
    }
    let all = pairs.len() as u64;
    wait_until("the traps came in, too", || door(&node, "journalled") == 2 * all);
    assert_eq!(metric(&node, "klaxon_trap_informs_total{answered=\"yes\"}"), all);
    for number in 0..all {
        assert_eq!(logged(&node, &format!("\"security_name\":\"u{number}\"")), 2, "u{number}");
    }
    assert_balance(&node);
}

#[test]
fn who_is_not_believed_is_counted_by_reason_and_told_of_it() {
    if !can_send() {
        return;
    }
    let node = Site::start(&users("password"));
    let said = |options: &[&str]| inform(&node, options, &["1", COLD_START]).expect_err("is refused");
    let with = |replaced: &[(usize, &'static str)]| {
        let mut options = PRIV;
        replaced.iter().for_each(|(at, word)| options[*at] = word);
        options
    };
    let cases = [
        ("unknown_user", "nknown user name", with(&[(3, "nobody")]).to_vec()),
        ("wrong_digest", "uthentication failure", with(&[(7, "passwort")]).to_vec()),
        ("wrong_digest", "uthentication failure", with(&[(5, "SHA-512")]).to_vec()),
        ("decryption", "ecryption error", with(&[(11, "hush-hash")]).to_vec()),
        ("security_level", "nsupported security level", [&["-l", "authNoPriv"], &PRIV[2..8]].concat()),
        ("security_level", "nsupported security level", vec!["-l", "noAuthNoPriv", "-u", "priv"]),
        ("security_level", "nsupported security level", vec!["-l", "noAuthNoPriv", "-u", "auth"]),
    ];
    for (reason, words, options) in &cases {
        let before = rejected(&node, reason);
        let error = said(options);
        assert!(error.contains(words), "{options:?}: {error}");
        assert!(rejected(&node, reason) > before, "{options:?}");
        // A trap is refused for the same reason, and nobody is told.
        let (before, reports) = (rejected(&node, reason), metric(&node, "klaxon_trap_reports_total{made=\"yes\"}"));
        trap(&node, options);
        wait_until("the trap is refused", || rejected(&node, reason) == before + 1);
        assert_eq!(metric(&node, "klaxon_trap_reports_total{made=\"yes\"}"), reports);
    }
    assert!(metric(&node, "klaxon_trap_usm_stats_total{counter=\"WrongDigests\"}") >= 4);
    assert!(metric(&node, "klaxon_trap_discoveries_total{of=\"engine\"}") >= cases.len() as u64);
    assert_eq!(door(&node, "journalled"), 0);
    // Whoever is right is heard all the same; who has no password by intent as well.
    assert_eq!(inform(&node, &PRIV, &["1", COLD_START]), Ok(()));
    assert_eq!(inform(&node, &["-l", "noAuthNoPriv", "-u", "open"], &["1", COLD_START]), Ok(()));
    assert_balance(&node);
    let log = node.log_text();
    assert_eq!(log.matches("cannot be used").count(), 1, "one line a minute: {log}");
    assert!(!log.contains("passwor") && !log.contains("hush-"), "{log}");
}

#[test]
fn a_sender_that_starts_again_is_heard_and_one_whose_boots_go_back_is_not() {
    if !can_send() {
        return;
    }
    let node = Site::start(&users("password"));
    let at = |time: &str| trap(&node, &[&PRIV[..], &["-e", DEVICE, "-Z", time]].concat());
    at("5,1000");
    wait_until("the first came in", || door(&node, "journalled") == 1);
    at("6,10");
    wait_until("it started again", || door(&node, "journalled") == 2);
    at("5,2000");
    at("1,0");
    wait_until("its boots went back", || rejected(&node, "time_window") == 2);
    assert!(node.log_text().contains("boots 5 and time 2000, when 6 and 1"), "{}", node.log_text());
    assert_eq!(metric(&node, "klaxon_trap_reports_total{made=\"yes\"}"), 0, "a trap is not answered");
    assert_balance(&node);
}

#[test]
fn an_inform_of_v3_is_answered_when_it_is_durable_and_not_before() {
    if !can_send() {
        return;
    }
    let scratch = scratch("traps-v3-");
    let order = scratch.path().join("full");
    let node = Setup::new(&scratch.path().join("data"))
        .config(&users("password"))
        .shim()
        .env("KLAXON_SHIM_FULL", &order.to_string_lossy())
        .start();
    assert_eq!(inform(&node, &PRIV, &["1", COLD_START]), Ok(()));
    // The disk is full for so many attempts of the node, ten or twenty in a second.
    std::fs::write(order.with_extension("new"), "0 100").expect("can be written");
    std::fs::rename(order.with_extension("new"), &order).expect("can be renamed");
    let once = [&PRIV[..], &["-r", "0", "-t", "1"]].concat();
    let unanswered = send(&node, "snmpinform", &once, &["2", COLD_START]);
    assert!(String::from_utf8_lossy(&unanswered.stderr).contains("imeout"), "it is on no disk: {unanswered:?}");
    assert_eq!(metric(&node, "klaxon_trap_informs_total{answered=\"yes\"}"), 1);
    assert!(metric(&node, "klaxon_trap_traps_held_total") > 0);
    wait_until("informs are answered", || inform(&node, &PRIV, &["3", COLD_START]).is_ok());
    assert_balance(&node);
}

#[test]
fn every_inform_of_v3_that_was_answered_is_there_after_a_kill() {
    if !can_send() {
        return;
    }
    let scratch = scratch("traps-v3-");
    let setup = Setup::new(&scratch.path().join("data")).config(&users("password"));
    let next = AtomicU64::new(1_000_000);
    let answered = Mutex::new(BTreeSet::new());
    for life in 1..=if is_long() { 6 } else { 2 } {
        let node = setup.start();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed).to_string();
                        let variable = ["1", COLD_START, "1.3.6.1.4.1.8072.9.9", "i", &number];
                        let sent = send(&node, "snmpinform", &[&PRIV[..], &["-r", "0", "-t", "1"]].concat(), &variable);
                        if sent.status.success() {
                            answered.lock().expect("nobody broke it").insert(number);
                        }
                    }
                });
            }
            wait_until("some are answered", || answered.lock().expect("nobody broke it").len() >= 12 * life);
            node.signal(Signal::KILL);
            stop.store(true, Ordering::Relaxed);
        });
    }
    let node = setup.start();
    let history = node.history().iter().map(ToString::to_string).collect::<String>();
    let answered = answered.into_inner().expect("nobody broke it");
    let missing: Vec<_> = answered.iter().filter(|number| !history.contains(&format!("\"{number}\""))).collect();
    assert!(missing.is_empty(), "of {} answered these are missing: {missing:?}", answered.len());
}

#[test]
fn an_inform_that_comes_again_with_another_message_id_is_no_second_event() {
    let scratch = scratch("traps-v3-");
    let data = scratch.path().join("data");
    known_engine(&data);
    let node = Setup::new(&data).config(&users("password")).start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.connect(node.traps.expect("it receives traps")).expect("can be sent to");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("can be set");
    let mut packet = include_bytes!("../fuzz/corpus/trap/v3-inform-open.bin").to_vec();
    let at = packet.windows(3).position(|head| head == [2, 1, 3]).expect("has its version") + 7;
    for byte in 0..3 {
        packet[at] = byte;
        socket.send(&packet).expect("can be sent");
        let mut answer = [0; 2000];
        let length = socket.recv(&mut answer).expect("it is answered");
        assert!(answer[..length].windows(2).any(|head| head[0] == 0xa2), "by a Response");
        assert!(answer[..length].windows(4).any(|id| id == &packet[at..at + 4]), "with its message id");
    }
    wait_until("all are counted", || (door(&node, "journalled"), door(&node, "duplicate")) == (1, 2));
    assert_balance(&node);
}

#[test]
fn users_change_while_traps_run_and_none_is_lost() {
    const TRAPS: u64 = 4_000;
    if !can_send() {
        return;
    }
    let scratch = scratch("traps-v3-");
    let setup = Setup::new(&scratch.path().join("data")).config(&users("password"));
    let node = setup.start();
    let reload = |lines: &str| {
        let before = node.log_text().matches("settings").count();
        harness::write_config(&setup.data.with_extension("toml"), lines);
        node.signal(Signal::HUP);
        wait_until("they are taken up", || node.log_text().matches("settings").count() > before);
    };
    // Two traps of the same engine that many others send as well.
    let packets: [&[u8]; 2] =
        [include_bytes!("../fuzz/corpus/trap/v3-trap-auth.bin"), include_bytes!("../fuzz/corpus/trap/v3-trap-priv.bin")];
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
            for number in 0..TRAPS {
                let packet = packets[usize::from(number % 2 == 0)];
                socket.send_to(packet, node.traps.expect("it receives traps")).expect("can be sent");
                sent.fetch_add(1, Ordering::Relaxed);
                if number % 20 == 0 {
                    // As fast as devices are, so that the reloads come in between.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        for number in 0..4 {
            reload(&format!("{}[snmp.users.more{number}]\n", users("password")));
        }
        assert!(sent.load(Ordering::Relaxed) > 0);
    });
    wait_until("all are journalled", || door(&node, "journalled") == TRAPS);
    assert_eq!(door(&node, "received"), TRAPS, "none was refused meanwhile");
    // Another password, which is another key from one trap to the next; and who is named alone.
    let old = [&PRIV[..], &["-e", DEVICE, "-Z", "1,200"]].concat();
    let mut new = old.clone();
    new[7] = "wordpass";
    reload(&users("wordpass"));
    trap(&node, &old);
    wait_until("the old password is wrong", || rejected(&node, "wrong_digest") == 1);
    trap(&node, &new);
    wait_until("the new one is right", || door(&node, "journalled") == TRAPS + 1);
    reload(&format!("[traps]\nlisten = \"127.0.0.1:0\"\nusers = [\"auth\"]\n{}", users("wordpass")));
    trap(&node, &new);
    wait_until("who is not named is unknown", || rejected(&node, "unknown_user") == 1);
    assert_balance(&node);
}

#[test]
fn only_the_versions_that_are_wanted_are_taken() {
    if !can_send() {
        return;
    }
    let node = Site::start(&format!("[traps]\nlisten = \"127.0.0.1:0\"\nversions = [\"3\"]\n{}", users("password")));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let v2c = include_bytes!("../fuzz/corpus/trap/v2c-link-down.bin");
    socket.send_to(v2c, node.traps.expect("it receives traps")).expect("can be sent");
    wait_until("it is refused", || rejected(&node, "version") == 1);
    assert_eq!(inform(&node, &PRIV, &["1", COLD_START]), Ok(()));
    // And where there are no users, nothing says that there is an engine.
    let node = Site::start("");
    assert!(inform(&node, &PRIV, &["1", COLD_START]).is_err());
    assert!(rejected(&node, "version") >= 1);
    assert_eq!(metric(&node, "klaxon_trap_reports_total{made=\"yes\"}"), 0);
}

#[test]
fn a_flood_of_garbage_takes_no_memory_and_fills_no_log() {
    const FLOOD: u64 = 40_000;
    let scratch = scratch("traps-v3-");
    let data = scratch.path().join("data");
    known_engine(&data);
    // All of it is to be looked at, though it comes from one address.
    let unlimited = format!("[traps]\nlisten = \"127.0.0.1:0\"\nsource_rate_max = 0\n{}", users("password"));
    let node = Setup::new(&data).config(&unlimited).start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let to = node.traps.expect("it receives traps");
    let seeds: [&[u8]; 4] = [
        include_bytes!("../fuzz/corpus/trap/v3-trap-auth.bin"),
        include_bytes!("../fuzz/corpus/trap/v3-trap-priv.bin"),
        include_bytes!("../fuzz/corpus/trap/v3-inform-priv.bin"),
        include_bytes!("../fuzz/corpus/trap/v3-discovery.bin"),
    ];
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("is a number")
    };
    let came = || metric(&node, "klaxon_trap_datagrams_received_total");
    let mut chance = harness::Chance::new(7);
    let mut flood = |count: u64| {
        for number in 0..count {
            let mut packet = seeds[usize::try_from(chance.below(4)).expect("is small")].to_vec();
            for _ in 0..=chance.below(3) {
                let at = usize::try_from(chance.below(packet.len() as u64)).expect("is small");
                packet[at] = u8::try_from(chance.below(256)).expect("is a byte");
            }
            socket.send_to(&packet, to).expect("can be sent");
            if number % 1000 == 0 {
                let before = came();
                wait_until("the node keeps up", || came() >= before);
            }
        }
    };
    flood(FLOOD / 4);
    wait_until("some were taken", || came() > 0);
    let before = resident();
    flood(FLOOD);
    let after = resident();
    assert!(after < before + 48 * 1024, "{before} kB before, {after} kB after");
    assert!(node.log_text().len() < 20_000, "{} bytes of log", node.log_text().len());
    let withheld = metric(&node, "klaxon_trap_reports_total{made=\"no\"}");
    println!("{} Reports, {withheld} withheld", metric(&node, "klaxon_trap_reports_total{made=\"yes\"}"));
    assert_balance(&node);
    if can_send() {
        assert_eq!(inform(&node, &PRIV, &["1", COLD_START]), Ok(()));
    }
}

#[test]
fn another_sender_finds_the_same() {
    if harness::pysnmp::script("sender.py").is_none() {
        return;
    }
    let pairs = [("sha1", "aes128"), ("sha256", "aes192"), ("sha512", "aes256"), ("sha1", "aes256-cisco")];
    let mut config = String::new();
    for (number, (auth, privacy)) in pairs.iter().enumerate() {
        config += &format!(
            "[snmp.users.u{number}]\nauth = \"{auth}\"\nauth_password = \"password\"\nprivacy = \"{privacy}\"\n\
             privacy_password = \"hush-hush\"\n"
        );
    }
    let node = Site::start(&config);
    let port = node.traps.expect("it receives traps").port().to_string();
    let run = |kind: &str, user: &str, (auth, privacy): (&str, &str)| {
        let mut script = harness::pysnmp::script("sender.py").expect("is there");
        let sent = script.args([kind, &port, user, auth, privacy]).output().expect("it runs");
        if sent.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&sent.stderr).into_owned()) }
    };
    for (number, pair) in pairs.into_iter().enumerate() {
        let user = format!("u{number}");
        assert_eq!(run("trap", &user, pair), Ok(()));
        assert_eq!(run("inform", &user, pair), Ok(()), "{pair:?}");
    }
    wait_until("all came in", || door(&node, "journalled") == 2 * pairs.len() as u64);
    let refused = run("inform", "nobody", pairs[0]).expect_err("is unknown");
    assert!(refused.to_lowercase().contains("unknown"), "{refused}");
    assert_balance(&node);
}
