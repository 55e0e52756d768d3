//! The SNMP agent as managers meet it: net-snmp and pysnmp ask a node, in every version and with every pair of algorithms, rightly
//! and wrongly.

#![expect(clippy::print_stdout, reason = "a test that is left out says so")]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::usm::{AUTHS, PRIVACIES};
use harness::{Chance, Node, PATIENCE, Setup, is_long, scratch, wait_until, write_config};
use rustix::process::Signal;

const SYS_DESCR: &str = "1.3.6.1.2.1.1.1.0";
const SYS_NAME: &str = "1.3.6.1.2.1.1.5.0";
const ENGINE_ID: &str = "1.3.6.1.6.3.10.2.1.1.0";
const ENGINE_BOOTS: &str = "1.3.6.1.6.3.10.2.1.2.0";
const UNAVAILABLE: &str = "klaxon.agent-unavailable";

/// Whether a program of net-snmp is there.
fn has(program: &str, package: &str) -> bool {
    if Command::new(program).arg("-V").output().is_ok() || Command::new(program).arg("-v").output().is_ok() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs {program} (package {package})");
    println!("skipped: {program} is not there");
    false
}

/// One of net-snmp's managers, which knows no MIB and nothing of this machine.
fn manager(dir: &Path, program: &str, options: &[&str], to: SocketAddr, rest: &[&str]) -> Output {
    Command::new(program)
        .args(["-m", "", "-M", "", "-On", "-Oe", "-r", "2", "-t", "5"])
        .env("SNMPCONFPATH", "/nonexistent")
        .env("SNMP_PERSISTENT_DIR", dir)
        .args(options)
        .arg(to.to_string())
        .args(rest)
        .output()
        .expect("it runs")
}

fn agent(node: &Node) -> SocketAddr {
    node.snmp.expect("it answers SNMP requests")
}

/// The lines that a manager prints.
fn ask(node: &Node, program: &str, options: &[&str], rest: &[&str]) -> Vec<String> {
    let output = manager(&node.data, program, options, agent(node), rest);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {options:?} {rest:?}: {errors}\n{}", node.log_text());
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// What a manager says that has no answer, or a wrong one.
fn refused(node: &Node, program: &str, options: &[&str], rest: &[&str]) -> String {
    let output = manager(&node.data, program, options, agent(node), rest);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{program} {options:?} {rest:?}: {said}");
    said
}

fn start(config: &str) -> (tempfile::TempDir, Node) {
    let scratch = scratch("agent-");
    let node = Setup::new(&scratch.path().join("data")).config(config).start();
    (scratch, node)
}

/// A metric's value.
fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("//metrics").expect("the node answers").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("there is no metric {name}:\n{text}")).parse().expect("is a number")
}

fn rejected(node: &Node, reason: &str) -> u64 {
    metric(node, &format!("klaxon_snmp_agent_requests_rejected_total{{reason=\"{reason}\"}}"))
}

/// Users for tests: of each pair of algorithms one, with the words that net-snmp has for them.
fn pairs() -> Vec<(String, Vec<&'static str>, String)> {
    let mut all = Vec::new();
    for (auth, auth_word) in AUTHS {
        for (privacy, privacy_word) in PRIVACIES {
            let name = format!("{auth}-{privacy}");
            let mut config = format!("[snmp.users.{name}]\nauth = \"{auth}\"\nauth_password = \"authentic\"\n");
            let mut options = vec!["-a", auth_word, "-A", "authentic"];
            if privacy.is_empty() {
                options.extend(["-l", "authNoPriv"]);
            } else {
                config.push_str(&format!("privacy = \"{privacy}\"\nprivacy_password = \"concealed\"\n"));
                options.extend(["-l", "authPriv", "-x", privacy_word, "-X", "concealed"]);
            }
            config.push_str(&format!("[snmp.agent.users.{name}]\n"));
            all.push((name, options, config));
        }
    }
    all
}

/// A user with authentication and privacy, one with authentication only, one without either.
const PEOPLE: &str = "[snmp.users.hidden]\nauth = \"sha256\"\nauth_password = \"authentic\"\nprivacy = \"aes128\"\n\
    privacy_password = \"concealed\"\n[snmp.users.proved]\nauth = \"sha1\"\nauth_password = \"authentic\"\n[snmp.users.open]\n\
    [snmp.agent.users.hidden]\naccess = \"write\"\n[snmp.agent.users.proved]\n[snmp.agent.users.open]\n";
const HIDDEN: [&str; 14] =
    ["-v", "3", "-u", "hidden", "-l", "authPriv", "-a", "SHA-256", "-A", "authentic", "-x", "AES", "-X", "concealed"];
const PROVED: [&str; 10] = ["-v", "3", "-u", "proved", "-l", "authNoPriv", "-a", "SHA", "-A", "authentic"];
const PUBLIC: [&str; 4] = ["-v", "2c", "-c", "public"];

#[test]
fn every_version_is_answered_and_the_whole_tree_walked() {
    if !has("snmpget", "snmp") {
        return;
    }
    let system =
        "[snmp.agent]\nlisten = \"127.0.0.1:0\"\ncontact = \"noc@example.net\"\nname = \"depot\"\nlocation = \"rack 7\"\n";
    let (_scratch, node) = start(&format!("{system}[node]\nsite = \"depot-7\"\n{PEOPLE}"));
    let versions: [&[&str]; 5] =
        [&["-v", "1", "-c", "public"], &PUBLIC, &["-v", "3", "-u", "open", "-l", "noAuthNoPriv"], &PROVED, &HIDDEN];
    for version in versions {
        let name = ask(&node, "snmpget", version, &[SYS_NAME]);
        assert_eq!(name, [format!(".{SYS_NAME} = STRING: \"depot\"")], "{version:?}");
        let by_one = ask(&node, "snmpwalk", version, &["1.3"]);
        let texts = ["Klaxon", "depot-7", "noc@example.net", "rack 7"];
        assert!(texts.iter().all(|text| by_one.iter().any(|line| line.contains(text))), "{by_one:#?}");
        let oids = |lines: &[String]| -> Vec<String> {
            lines.iter().filter_map(|line| line.split_once(" = ")).map(|(oid, _)| oid.to_owned()).collect()
        };
        for group in [".1.3.6.1.2.1.1.3.0", ".1.3.6.1.6.3.10.2.1.4.0", ".1.3.6.1.6.3.11.2.1.2.0", ".1.3.6.1.6.3.15.1.1.6.0"] {
            assert!(oids(&by_one).contains(&group.to_owned()), "{group} is missing: {by_one:#?}");
        }
        if version[1] != "1" {
            let by_many = ask(&node, "snmpbulkwalk", version, &["1.3"]);
            assert_eq!(oids(&by_many), oids(&by_one), "{version:?}");
        }
    }
    let nothing = ask(&node, "snmpget", &PUBLIC, &["1.3.6.1.2.1.1.5.1", "1.3.6.1.2.1.99.1.0"]);
    assert!(nothing[0].contains("No Such Instance") && nothing[1].contains("No Such Object"), "{nothing:?}");
    assert_eq!(node.alarms(), [(); 0].map(|()| serde_json::Value::Null), "it has nothing to say of itself");
}

#[test]
fn every_pair_of_algorithms_is_understood() {
    if !has("snmpget", "snmp") {
        return;
    }
    let pairs = pairs();
    let users: String = pairs.iter().map(|(.., config)| config.as_str()).collect();
    let (_scratch, node) = start(&format!("[snmp]\nallow_weak = true\n{users}"));
    for (name, options, _) in &pairs {
        let options: Vec<&str> = ["-v", "3", "-u", name].into_iter().chain(options.iter().copied()).collect();
        let got = ask(&node, "snmpget", &options, &[SYS_DESCR]);
        assert!(got[0].contains("Klaxon"), "{name}: {got:?}");
    }
}

#[test]
fn who_is_a_stranger_or_says_less_than_it_could_prove_has_nothing() {
    if !has("snmpget", "snmp") {
        return;
    }
    let (_scratch, node) = start(PEOPLE);
    let instead = |options: &[&'static str], from: &str, to: &'static str| -> Vec<&'static str> {
        options.iter().map(|word| if *word == from { to } else { word }).collect()
    };
    let impatient = |options: Vec<&'static str>| [options, vec!["-r", "0", "-t", "1"]].concat();
    let get = |options: Vec<&'static str>| refused(&node, "snmpget", &impatient(options), &[SYS_NAME]);
    let is = |said: &str, expected: &str| assert!(said.contains(expected), "{said}");
    is(&get(instead(&PUBLIC, "public", "private")), "Timeout");
    is(&get(instead(&HIDDEN, "authentic", "authentik")), "Authentication failure");
    is(&get(instead(&HIDDEN, "concealed", "concealer")), "Timeout");
    is(&get(instead(&HIDDEN, "hidden", "stranger")), "Unknown user name");
    // Whoever has keys must use them, all of them.
    is(&get(instead(&HIDDEN, "authPriv", "authNoPriv")), "authorizationError");
    is(&get(instead(&HIDDEN, "authPriv", "noAuthNoPriv")), "authorizationError");
    is(&get(instead(&PROVED, "authNoPriv", "noAuthNoPriv")), "authorizationError");
    for (reason, count) in [("community", 1), ("digest", 1), ("user", 1), ("access", 3)] {
        wait_until(&format!("{reason} is counted"), || rejected(&node, reason) >= count);
    }
    // Setting needs privacy, whoever asks.
    let set = |options: &[&str]| refused(&node, "snmpset", options, &[SYS_NAME, "s", "mine"]);
    is(&set(&PUBLIC), "authorizationError");
    is(&set(&["-v", "1", "-c", "public"]), "noSuchName");
    is(&set(&["-v", "3", "-u", "open", "-l", "noAuthNoPriv"]), "authorizationError");
    is(&set(&PROVED), "authorizationError");
    is(&set(&HIDDEN), "notWritable");
    assert_eq!(metric(&node, "klaxon_snmp_agent_variables_total{operation=\"set\"}"), 1);
    assert_eq!(metric(&node, "klaxon_snmp_agent_requests_failed_total{reason=\"broken\"}"), 0);
}

#[test]
fn views_show_what_they_include() {
    if !has("snmpget", "snmp") {
        return;
    }
    let (_scratch, node) = start(
        "[snmp.agent.views.little]\ninclude = [\"1.3.6.1.2.1.1\", \"1.3.6.1.6.3.15.1.1.5.0\"]\nexclude = [\"1.3.6.1.2.1.1.4\"]\n\
         [[snmp.agent.communities]]\ncommunity = \"little\"\nview = \"little\"\n",
    );
    for version in ["1", "2c"] {
        let seen = ask(&node, "snmpwalk", &["-v", version, "-c", "little"], &["1.3"]);
        let seen = seen.iter().filter(|line| !line.contains("No more variables"));
        let seen: Vec<&str> = seen.filter_map(|line| line.split_once(" = ")).map(|(oid, _)| oid).collect();
        let of_system = [1, 2, 3, 5, 6, 7].map(|arc| format!(".1.3.6.1.2.1.1.{arc}.0"));
        assert_eq!(seen[..6], of_system, "{version}");
        assert_eq!(seen[6..], [".1.3.6.1.6.3.15.1.1.5.0"], "{version}");
    }
    let contact = ask(&node, "snmpget", &["-v", "2c", "-c", "little"], &["1.3.6.1.2.1.1.4.0"]);
    assert!(contact[0].contains("No Such Object"), "{contact:?}");
    // It is named in place of the one that everybody knows.
    refused(&node, "snmpget", &["-v", "2c", "-c", "public", "-r", "0", "-t", "1"], &[SYS_NAME]);
}

#[test]
fn all_addresses_are_those_of_both_families() {
    if !has("snmpget", "snmp") || UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    let config = "[snmp.agent]\nlisten = \"[::]:0\"\n[[snmp.agent.communities]]\ncommunity = \"word\"\n";
    let (_scratch, node) = start(config);
    let port = agent(&node).port();
    let word = ["-v", "2c", "-c", "word"];
    let here = manager(&node.data, "snmpget", &word, SocketAddr::from(([127, 0, 0, 1], port)), &[SYS_DESCR]);
    assert!(here.status.success(), "{here:?}");
    let there =
        Command::new("snmpget").args(word).args(["-m", "", "-On"]).arg(format!("udp6:[::1]:{port}")).arg(SYS_DESCR).output();
    assert!(there.as_ref().is_ok_and(|output| output.status.success()), "{there:?}");
}

#[test]
fn the_engine_keeps_its_id_and_counts_its_starts() {
    if !has("snmpget", "snmp") {
        return;
    }
    let scratch = scratch("agent-");
    let setup = Setup::new(&scratch.path().join("data")).config(PEOPLE);
    let mut ids = Vec::new();
    for boots in 1..=4 {
        let node = setup.start();
        ids.push(ask(&node, "snmpget", &HIDDEN, &[ENGINE_ID]).concat());
        assert_eq!(ask(&node, "snmpget", &HIDDEN, &[ENGINE_BOOTS]), [format!(".{ENGINE_BOOTS} = INTEGER: {boots}")]);
        if boots % 2 == 0 {
            node.kill();
        } else {
            assert!(node.stop().success());
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(ids[0].contains("Hex-STRING: 80 00 1F 88 05"), "{ids:?}");
}

/// A port that nobody has just now.
fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("is bound")
}

#[test]
fn other_communities_and_users_are_taken_up_while_it_runs() {
    if !has("snmpget", "snmp") {
        return;
    }
    let listen = format!("[snmp.agent]\nlisten = \"{}\"\n", free_port());
    let scratch = scratch("agent-");
    let word = scratch.path().join("community");
    fs::write(&word, "first\n").expect("can be written");
    let community = format!("[[snmp.agent.communities]]\ncommunity_file = \"{}\"\n", word.display());
    let node = Setup::new(&scratch.path().join("data")).config(&format!("{listen}{community}")).start();
    let impatient = |word| ["-v", "2c", "-c", word, "-r", "0", "-t", "1"];
    let reaches = |options: &[&str]| manager(&node.data, "snmpget", options, agent(&node), &[SYS_NAME]).status.success();
    assert!(reaches(&impatient("first")) && !reaches(&impatient("second")));
    let boots = || metric(&node, "klaxon_snmp_agent_variables_total{operation=\"get\"}");
    let before = boots();
    // A file that a setting names has changed, and nothing else.
    fs::write(&word, "second\n").expect("can be written");
    node.signal(Signal::HUP);
    wait_until("the other word is taken", || reaches(&impatient("second")));
    assert!(node.log_text().contains("changed=what the files hold that snmp names"), "{}", node.log_text());
    assert!(!reaches(&impatient("first")));
    assert!(boots() > before, "it counts on");
    // Users come.
    write_config(&node.data.with_extension("toml"), &format!("{listen}{community}{PEOPLE}"));
    node.signal(Signal::HUP);
    wait_until("users are taken", || reaches(&HIDDEN));
    assert!(reaches(&impatient("second")));
    // What is wrong changes nothing.
    write_config(&node.data.with_extension("toml"), &format!("{listen}[snmp.agent.users.nobody]\n"));
    node.signal(Signal::HUP);
    wait_until("it is refused", || node.log_text().contains("there is no such user in snmp.users"));
    assert!(reaches(&HIDDEN));
    // Off, and on again.
    write_config(&node.data.with_extension("toml"), &format!("{listen}enabled = false\n"));
    node.signal(Signal::HUP);
    wait_until("the port is free", || UdpSocket::bind(agent(&node)).is_ok());
    write_config(&node.data.with_extension("toml"), &listen);
    node.signal(Signal::HUP);
    wait_until("it answers again", || reaches(&impatient("public")));
    assert!(!reaches(&HIDDEN));
    assert_eq!(node.alarms().len(), 0);
}

/// The alarm of this type about the node itself, if it stands.
fn own_alarm(node: &Node, alarm_type: &str) -> Option<serde_json::Value> {
    let is_it = |alarm: &serde_json::Value| alarm["resource"] == "klaxon=node" && alarm["alarm_type"] == alarm_type;
    node.alarms().into_iter().find(|alarm| is_it(alarm) && alarm["cleared"] != true)
}

#[test]
fn a_port_that_is_taken_is_an_alarm_until_it_is_free_or_nobody_is_to_be_answered() {
    let scratch = scratch("agent-");
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("is bound");
    let listen = format!("[snmp.agent]\nlisten = \"{address}\"\n");
    let setup = Setup::new(&scratch.path().join("data")).config(&listen);
    let node = setup.start();
    assert_eq!(node.snmp, None, "it greets with an address that it does not have");
    wait_until("that is told", || own_alarm(&node, UNAVAILABLE).is_some());
    let alarm = own_alarm(&node, UNAVAILABLE).expect("is there");
    assert_eq!(alarm["severity"], "major");
    let text = alarm["text"].as_str().expect("has a text");
    assert!(text.contains(&address.to_string()) && text.contains("in use"), "{text}");
    // Another address is one that can be had.
    let other = free_port();
    write_config(&node.data.with_extension("toml"), &format!("[snmp.agent]\nlisten = \"{other}\"\n"));
    node.signal(Signal::HUP);
    wait_until("it is over", || own_alarm(&node, UNAVAILABLE).is_none());
    assert!(UdpSocket::bind(other).is_err(), "the other address is not had");
    // Back to the first, which becomes free by itself.
    write_config(&node.data.with_extension("toml"), &listen);
    node.signal(Signal::HUP);
    wait_until("that is told again", || own_alarm(&node, UNAVAILABLE).is_some());
    drop(taken);
    wait_until("the port is had", || own_alarm(&node, UNAVAILABLE).is_none());
    assert!(UdpSocket::bind(address).is_err());
    node.kill();
    // Taken again, and then nobody is to be answered any more.
    let _taken = UdpSocket::bind(address).expect("the port is free");
    let node = setup.start();
    wait_until("that is told a third time", || own_alarm(&node, UNAVAILABLE).is_some());
    write_config(&node.data.with_extension("toml"), &format!("{listen}enabled = false\n"));
    node.signal(Signal::HUP);
    wait_until("nothing stands of it", || own_alarm(&node, UNAVAILABLE).is_none());
}

#[test]
fn an_engine_whose_identity_is_damaged_is_an_alarm_and_the_node_works() {
    let scratch = scratch("agent-");
    let data = scratch.path().join("data");
    let setup = Setup::new(&data);
    setup.start().kill();
    let file = data.join("snmp-engine.json");
    let whole = fs::read(&file).expect("is there");
    fs::write(&file, &whole[..whole.len() / 2]).expect("can be written");
    let node = setup.start();
    wait_until("that is told", || own_alarm(&node, UNAVAILABLE).is_some());
    let text = own_alarm(&node, UNAVAILABLE).expect("is there")["text"].to_string();
    assert!(text.contains("snmp-engine.json") && text.contains("restore it from a backup"), "{text}");
    fs::write(&file, &whole).expect("can be written");
    wait_until("it is over", || own_alarm(&node, UNAVAILABLE).is_none());
}

/// Whatever managers send, as it goes over the wire: what they ask, forwarded to the agent and back.
fn recorded(node: &Node) -> Vec<Vec<u8>> {
    let between = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = between.local_addr().expect("is bound");
    between.set_read_timeout(Some(Duration::from_millis(50))).expect("can be set");
    let (agent, data) = (agent(node), node.data.clone());
    let asking = std::thread::spawn(move || {
        let v1: &[&str] = &["-v", "1", "-c", "public"];
        let requests: [(&str, &[&str], &[&str]); 7] = [
            ("snmpget", v1, &[SYS_NAME]),
            ("snmpget", &PUBLIC, &[SYS_NAME, SYS_DESCR]),
            ("snmpgetnext", &PUBLIC, &["1.3"]),
            ("snmpbulkget", &PUBLIC, &["1.3", "1.3.6.1.6"]),
            ("snmpset", &PUBLIC, &[SYS_NAME, "s", "mine"]),
            ("snmpbulkget", &PROVED, &["1.3"]),
            ("snmpset", &HIDDEN, &[SYS_NAME, "s", "mine"]),
        ];
        for (program, options, rest) in requests {
            manager(&data, program, options, address, rest);
        }
    });
    let (mut asked, mut manager, mut buffer) = (Vec::new(), None, [0; 65_536]);
    while !asking.is_finished() {
        let Ok((bytes, from)) = between.recv_from(&mut buffer) else { continue };
        let to = if from == agent {
            manager
        } else {
            manager = Some(from);
            asked.push(buffer[..bytes].to_vec());
            Some(agent)
        };
        if let Some(to) = to {
            between.send_to(&buffer[..bytes], to).expect("can be sent");
        }
    }
    asking.join().expect("does not break");
    asked
}

fn resident_kib(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is there");
    line.trim().trim_end_matches(" kB").trim().parse().expect("is a number")
}

/// Changes a request here and there.
fn mutate(request: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(4) {
        let at = chance.below(request.len().max(1) as u64) as usize;
        match chance.below(6) {
            0 => request.truncate(at),
            1 => request.insert(at.min(request.len()), chance.next() as u8),
            2 if at < request.len() => {
                request.remove(at);
            }
            3 if at < request.len() => request[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5) as usize],
            4 => request.extend_from_within(at..),
            _ if at < request.len() => request[at] ^= 1 << chance.below(8),
            _ => {}
        }
        request.truncate(2048);
    }
}

#[test]
fn what_is_no_request_is_counted_and_leaves_nothing_behind() {
    if !has("snmpget", "snmp") {
        return;
    }
    let (_scratch, node) = start(PEOPLE);
    let seeds = recorded(&node);
    assert!(seeds.len() >= 9, "{} requests were recorded", seeds.len());
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    sender.connect(agent(&node)).expect("can be addressed");
    sender.set_nonblocking(true).expect("can be set");
    let mut chance = Chance::new(seed());
    let before = rejected(&node, "malformed");
    let log_before = node.log_text().len();
    let rounds = if is_long() { 100 } else { 10 };
    let (mut resident, mut buffer) = (Vec::new(), [0; 65_536]);
    for _ in 0..rounds {
        for _ in 0..2_000 {
            let mut request = seeds[chance.below(seeds.len() as u64) as usize].clone();
            mutate(&mut request, &mut chance);
            // Refused once if the port had been closed.
            let _ = sender.send(&request);
            while sender.recv(&mut buffer).is_ok() {}
        }
        // It has worked off what came before this.
        let name = ask(&node, "snmpget", &HIDDEN, &[SYS_NAME]);
        assert!(name[0].contains("STRING"), "{name:?}");
        resident.push(resident_kib(&node));
    }
    assert!(rejected(&node, "malformed") > before + rounds * 100);
    assert_eq!(metric(&node, "klaxon_snmp_agent_requests_failed_total{reason=\"broken\"}"), 0);
    let lines = node.log_text()[log_before..].lines().count();
    assert!(lines < 10, "{lines} lines of log: {}", node.log_text());
    let (early, late) = (resident[rounds as usize / 2 - 1], resident[rounds as usize - 1]);
    assert!(late < early + 8 * 1024, "it grows: {resident:?} KiB");
}

fn seed() -> u64 {
    let seed = std::env::var("KLAXON_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(u64::from(std::process::id()));
    println!("KLAXON_SEED={seed}");
    seed
}

/// snmpd as it would stand on port 161, with a part of its tree at the node.
#[test]
fn an_snmpd_asks_here_for_a_part_of_its_tree() {
    if !has("snmpget", "snmp") || !has("snmpd", "snmpd") {
        return;
    }
    let (scratch, node) = start("[snmp.agent]\nlisten = \"127.0.0.1:0\"\nname = \"depot\"\n");
    let front = free_port();
    let file = scratch.path().join("snmpd.conf");
    let proxied = "1.3.6.1.4.1.8072.9999.9999.7781";
    let proxy = format!("proxy -v 2c -c public {} .{proxied} .1.3.6.1.2.1.1", agent(&node));
    fs::write(&file, format!("agentAddress udp:{front}\nrocommunity public 127.0.0.1\n{proxy}\n")).expect("can be written");
    let mut snmpd = Command::new("snmpd")
        .args(["-f", "-Lf"])
        .arg(scratch.path().join("snmpd.log"))
        .args(["-C", "-c"])
        .arg(&file)
        .args(["-I", "-smux", "-p"])
        .arg(scratch.path().join("snmpd.pid"))
        .env("SNMP_PERSISTENT_DIR", scratch.path())
        .env("SNMPCONFPATH", "/nonexistent")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let ask = |oid: &str| manager(scratch.path(), "snmpget", &PUBLIC, front, &[oid]);
    let begun = Instant::now();
    let oid = format!("{proxied}.5.0");
    let said = loop {
        let output = ask(&oid);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("depot") || begun.elapsed() > PATIENCE {
            break said;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let walked = manager(scratch.path(), "snmpbulkwalk", &PUBLIC, front, &[proxied]);
    snmpd.kill().and_then(|()| snmpd.wait()).expect("it ends");
    assert_eq!(said, format!(".{oid} = STRING: \"depot\"\n"));
    assert_eq!(String::from_utf8_lossy(&walked.stdout).lines().count(), 7, "{walked:?}");
}

#[test]
fn another_manager_says_the_same() {
    let Some(mut script) = harness::pysnmp::script("manager.py") else { return };
    let users: String = pairs().iter().map(|(.., config)| config.as_str()).collect();
    let (_scratch, node) =
        start(&format!("[snmp]\nallow_weak = true\n{users}{PEOPLE}[snmp.agent]\nlisten = \"127.0.0.1:0\"\nname = \"depot\"\n"));
    let output = script.arg(agent(&node).port().to_string()).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).expect("it prints an object");
    for version in ["v1", "v2c", "open", "proved", "hidden"] {
        assert_eq!(said[version], "depot", "{version}");
    }
    // Without DES: where there is nothing to fill up, pysnmp adds a whole block, and the library takes at most seven octets.
    let of_pairs = said.iter().filter(|(name, _)| name.starts_with("md5-") || name.starts_with("sha"));
    let wrong: Vec<_> = of_pairs.clone().filter(|(_, said)| *said != "depot").collect();
    assert!(wrong.is_empty() && of_pairs.count() == 36, "{wrong:?}");
    assert_eq!(said["walk"], said["bulk walk"]);
    assert!(said["walk"].parse::<usize>().is_ok_and(|count| count > 25), "{said:?}");
    assert_eq!(said["wrong community"], "No SNMP response received before timeout");
    assert_eq!(said["wrong password"], "Wrong SNMP PDU digest");
    assert_eq!(said["too little"], "authorizationError");
    assert_eq!(said["set openly"], "authorizationError");
    assert_eq!(said["set"], "notWritable");
}
