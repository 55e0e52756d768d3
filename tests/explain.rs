//! `klaxon trap explain`: captures, datagrams and hexadecimal text, with and without a mapping; no node is there.

mod harness;

use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use harness::{klaxon, scratch};
use serde_json::Value;

const LINK_DOWN: &[u8] = include_bytes!("../fuzz/corpus/trap/v2c-link-down.bin");
const LINK_UP: &[u8] = include_bytes!("../fuzz/corpus/trap/v2c-link-up.bin");
const ENTERPRISE: &[u8] = include_bytes!("../fuzz/corpus/trap/v1-enterprise.bin");

/// An Ethernet frame with a datagram of 10.7.0.3 to this port.
fn frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(payload.len() + 8).expect("is short");
    let ip_length = udp_length + 20;
    let mut ip = vec![0x45, 0];
    ip.extend(ip_length.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 7, 0, 3, 10, 7, 0, 1]);
    let udp = [40_000_u16, port, udp_length, 0].into_iter().flat_map(u16::to_be_bytes);
    [&[2; 12][..], &[8, 0], &ip, &udp.collect::<Vec<u8>>(), payload].concat()
}

/// A file of pcap.
fn pcap(dir: &Path, frames: &[Vec<u8>]) -> PathBuf {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 0xffff, 1]);
    for frame in frames {
        let length = u32::try_from(frame.len()).expect("is short");
        file.extend(words(&[1_700_000_000, 0, length, length]));
        file.extend(frame);
    }
    let path = dir.join("capture.pcap");
    std::fs::write(&path, file).expect("is written");
    path
}

fn explain(arguments: &[&str]) -> Output {
    let mut command = klaxon();
    command.args(["trap", "explain"]).args(arguments).env_remove("KLAXON_CONFIG").output().expect("it runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("is text")
}

#[test]
fn a_capture_is_explained_with_rules_and_events() {
    let scratch = scratch("explain-");
    let frames =
        [frame(162, LINK_DOWN), frame(53, b"no trap"), frame(162, LINK_UP), frame(162, ENTERPRISE), frame(162, b"rubbish")];
    let file = pcap(scratch.path(), &frames);
    let file = file.to_str().expect("is text");
    let output = explain(&[file]);
    let text = said(&output);
    for expected in [
        "1. trap of SNMP v2c from 10.7.0.3:40000: 1.3.6.1.6.3.1.1.5.3 (linkDown)",
        "1.3.6.1.2.1.2.2.1.1.7 (ifIndex.7) = INTEGER: 7",
        "matched     link-down (built-in if-mib.toml:",
        "cleared by link-up",
        "not reached link-down-somewhere (built-in if-mib.toml:",
        "raises major",
        "resource   device=10.7.0.3.ifindex=7",
        "matched     link-up (built-in if-mib.toml:",
        "clears what link-down raises",
        "clears the alarm with this key",
        "none is for this trap, so it is kept as it came",
        "5. from 10.7.0.3:40000: no SNMP message",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let remarks = String::from_utf8_lossy(&output.stderr);
    assert!(remarks.contains("1 datagrams to other ports are no traps"), "{remarks}");
    // For machines.
    let all: Value = serde_json::from_str(&said(&explain(&[file, "--json"]))).expect("is JSON");
    let traps = all["traps"].as_array().expect("a list");
    assert_eq!(traps.len(), 4);
    assert_eq!((&traps[0]["trap"], &traps[0]["event"]["severity"]), (&"linkDown".into(), &"major".into()));
    assert_eq!(
        (&traps[0]["rules"][0]["verdict"], &traps[0]["rules"][0]["cleared_by"][0]),
        (&"matched".into(), &"link-up".into())
    );
    assert_eq!(traps[1]["event"]["severity"], "cleared");
    assert!(traps[3]["error"].is_string());
}

const V3_DISCOVERY: &[u8] = include_bytes!("../fuzz/corpus/trap/v3-discovery.bin");
const V3_TRAP_OPEN: &[u8] = include_bytes!("../fuzz/corpus/trap/v3-trap-open.bin");
const V3_TRAP_PRIV: &[u8] = include_bytes!("../fuzz/corpus/trap/v3-trap-priv.bin");
const V3_INFORM_OPEN: &[u8] = include_bytes!("../fuzz/corpus/trap/v3-inform-open.bin");
/// Asks for the time of the engine that it is for.
const V3_INFORM_PRIV: &[u8] = include_bytes!("../fuzz/corpus/trap/v3-inform-priv.bin");

#[test]
fn version_3_is_explained_as_a_receiver_with_these_users_would_take_it() {
    let scratch = scratch("explain-");
    let all = [V3_DISCOVERY, V3_TRAP_OPEN, V3_TRAP_PRIV, V3_INFORM_OPEN, V3_INFORM_PRIV, LINK_DOWN];
    let file = pcap(scratch.path(), &all.map(|packet| frame(162, packet)));
    let file = file.to_str().expect("is text");
    let explain_with = |config: &str| {
        let path = scratch.path().join("k.toml");
        std::fs::write(&path, config).expect("is written");
        said(&explain(&["--config", path.to_str().expect("is text"), file]))
    };
    let users = "[snmp.users.open]\n[snmp.users.priv]\nauth = \"sha256\"\nauth_password = \"password\"\n\
        privacy = \"aes256\"\nprivacy_password = \"hush-hush\"\n";
    let text = explain_with(users);
    for expected in [
        "1. from 10.7.0.3:40000: no trap and no inform, but a question for the engine's id",
        "2. trap of SNMP v3 from 10.7.0.3:40000",
        "3. trap of SNMP v3 from 10.7.0.3:40000: 1.3.6.1.6.3.1.1.5.3 (linkDown)",
        "attribute  security_name=priv",
        "attribute  security_level=authPriv",
        "4. inform of SNMP v3 from 10.7.0.3:40000",
        "attribute  security_name=open",
        "5. from 10.7.0.3:40000: no trap and no inform, but a question for the engine's time",
        "6. trap of SNMP v2c",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    let text = explain_with(&users.replace("hush-hush", "hush-hash"));
    assert!(text.contains("3. from 10.7.0.3:40000: of the user \"priv\", cannot be decrypted"), "{text}");
    let text = explain_with(&users.replace("\"password\"", "\"passwort\""));
    assert!(text.contains("3. from 10.7.0.3:40000: of the user \"priv\" with a wrong digest"), "{text}");
    // Without users; other versions and communities are as the receiver takes them.
    let text = said(&explain(&[file]));
    let unknown =
        "3. from 10.7.0.3:40000: a message of SNMP v3 of the user \"priv\", who is not known: it can be neither checked";
    assert!(text.contains(unknown), "{text}");
    let text = explain_with(&format!("[traps]\nversions = [\"2c\", \"3\"]\ncommunities = [\"hush\"]\n{users}"));
    assert!(text.contains("6. from 10.7.0.3:40000: its community is none of those in traps.communities"), "{text}");
    let text = explain_with(&format!("[traps]\nversions = [\"2c\"]\n{users}"));
    assert!(
        text.contains("3. from 10.7.0.3:40000: a message of the SNMP version with the number 3, which is not taken"),
        "{text}"
    );
}

#[test]
fn a_mapping_is_tried_before_it_is_configured_and_says_why_it_does_not_match() {
    let scratch = scratch("explain-");
    let file = pcap(scratch.path(), &[frame(162, ENTERPRISE)]);
    let mapping = scratch.path().join("new.toml");
    let text = "[names]\nagent = \"1.3.6.1.4.1.8072.9\"\nvalue = \"agent.1\"\n\n[[rule]]\nname = \"picky\"\ntrap = \"agent.0.42\"\n\
                when = { value = \"never\" }\nalarm_type = \"a\"\nseverity = \"major\"\n\n[[rule]]\nname = \"taken\"\ntrap = \"agent.*\"\n\
                alarm_type = \"b\"\nqualifier = \"{value}\"\nseverity = \"minor\"\n";
    std::fs::write(&mapping, text).expect("is written");
    let config = scratch.path().join("k.toml");
    let devices = "[node]\nsite = \"here\"\n[traps.devices]\n\"10.7.0.0/16\" = { site = \"depot-7\" }\n\"10.7.0.3\" = { name = \"sw-3\" }\n";
    std::fs::write(&config, devices).expect("is written");
    let (file, mapping, config) =
        (file.to_str().expect("is text"), mapping.to_str().expect("is text"), config.to_str().expect("is text"));
    let text = said(&explain(&["--mapping", mapping, "--config", config, file]));
    for expected in [
        &*format!("missed      picky ({mapping}:6): when: value must be \"never\", and is \"0x00ff10\""),
        &format!("matched     taken ({mapping}:13)"),
        "raises minor",
        "site       depot-7",
        "resource   device=sw-3",
        "qualifier  0x00ff10",
    ] {
        assert!(text.contains(expected), "{expected} is missing:\n{text}");
    }
    std::fs::write(mapping, "[[rule]]\nname = 7\n").expect("is written");
    let wrong = explain(&["--mapping", mapping, file]);
    assert_eq!(wrong.status.code(), Some(2));
    let message = String::from_utf8_lossy(&wrong.stderr);
    assert!(message.starts_with(&format!("klaxon: {mapping}:2: rule.name: invalid type")), "{message}");
}

#[test]
fn bytes_come_as_a_file_as_text_and_by_standard_input() {
    let scratch = scratch("explain-");
    let raw = scratch.path().join("datagram.bin");
    std::fs::write(&raw, LINK_DOWN).expect("is written");
    let text = said(&explain(&["--source", "192.0.2.7", raw.to_str().expect("is text")]));
    assert!(text.contains("resource   device=192.0.2.7.ifindex=7"), "{text}");
    let digits: Vec<String> =
        LINK_DOWN.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x} ")).collect()).collect();
    let mut child = klaxon()
        .args(["trap", "explain", "-"])
        .env_remove("KLAXON_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("is piped").write_all(digits.join("\n").as_bytes()).expect("is read");
    let text = said(&child.wait_with_output().expect("it ends"));
    assert!(text.contains("resource   device=127.0.0.1.ifindex=7"), "{text}");
    let nothing = scratch.path().join("nothing.hex");
    std::fs::write(&nothing, "# nothing\n").expect("is written");
    assert_eq!(explain(&[nothing.to_str().expect("is text")]).status.code(), Some(4));
    assert_eq!(explain(&["/nowhere/at/all"]).status.code(), Some(2));
    assert_eq!(explain(&[]).status.code(), Some(2), "of which file?");
}

#[test]
fn traps_are_explained_as_they_come() {
    use std::io::{BufRead as _, BufReader};
    let mut child = klaxon()
        .args(["trap", "explain", "--listen", "127.0.0.1:0", "--count", "1", "--json"])
        .env_remove("KLAXON_CONFIG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("is piped")).read_line(&mut line).expect("it says where");
    let address = line.trim().rsplit_once(' ').expect("names an address").1;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.send_to(LINK_DOWN, address).expect("can be sent");
    let output = child.wait_with_output().expect("it ends");
    let explained: Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(explained["event"]["resource"], "device=127.0.0.1.ifindex=7");
    assert_eq!(explained["source"], socket.local_addr().expect("is bound").to_string());
}
