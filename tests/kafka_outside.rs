//! A Kafka as others have it and use it: guarded by TLS and passwords, and with kcat, which knows nothing of a node.
#![cfg(feature = "kafka")]

mod harness;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::authority::Authority;
use harness::kafka::{Brokers, Guarded};
use harness::{Setup, klaxon, scratch, wait_until};
use serde_json::{Value, json};

/// Runs `klaxon kafka` with this configuration: its exit code, and what it says of what is wrong.
fn kafka(dir: &Path, config: &str, command: &str) -> (Option<i32>, String) {
    let file = dir.join("k.toml");
    std::fs::write(&file, config).expect("can be written");
    let output = klaxon().args(["kafka", command, "--config"]).arg(&file).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The section of a configuration for a broker at this address.
fn journal(address: &str, lines: &str) -> String {
    format!(
        "[journal]\nkind = \"kafka\"\nbrokers = [{address:?}]\npartitions = 3\nreplication_factor = 1\n\
         min_insync_replicas = 1\n{lines}\n"
    )
}

#[test]
fn who_proves_to_be_somebody_is_let_in_and_others_are_told_why_not() {
    let authority = Authority::new();
    let Some(guarded) = Guarded::start(&authority) else { return };
    let scratch = scratch("kafka-guarded-");
    let dir = scratch.path();
    let (user, password) = Guarded::USER;
    for (name, text) in [("right", password), ("wrong", "guessed")] {
        std::fs::write(dir.join(name), format!("{text}\n")).expect("can be written");
    }
    let (certificate, key) = authority.issue("klaxon", &["klaxon"]);
    authority.write("client.pem", &certificate.pem());
    authority.write("client.key", &key.serialize_pem());
    let ca = format!("tls = true\nca_file = {:?}\n", authority.path("ca.pem"));
    let own =
        format!("client_certificate = {:?}\nclient_key = {:?}\n", authority.path("client.pem"), authority.path("client.key"));
    let by = |mechanism: &str, user: &str, file: &str| {
        format!("{ca}sasl = {mechanism:?}\nuser = {user:?}\npassword_file = {:?}\n", dir.join(file))
    };

    // By a certificate, and by a password.
    let done = kafka(dir, &journal(&guarded.tls, &format!("{ca}{own}")), "init");
    assert_eq!(done.0, Some(0), "{}", done.1);
    for mechanism in ["scram-sha-512", "scram-sha-256", "plain"] {
        let done = kafka(dir, &journal(&guarded.sasl, &by(mechanism, user, "right")), "check");
        assert_eq!(done.0, Some(0), "{mechanism}: {}", done.1);
    }

    // What is wrong is said, and soon.
    let stranger = Authority::called("stranger");
    let unknown = format!("tls = true\nca_file = {:?}\n", stranger.path("ca.pem"));
    let none = String::new();
    let plain = guarded.brokers.addresses().remove(0);
    let cases = [
        ("a wrong password", &guarded.sasl, by("scram-sha-512", user, "wrong"), "they do not let this client in: "),
        ("a wrong password, sent", &guarded.sasl, by("plain", user, "wrong"), "they do not let this client in: "),
        ("a wrong name", &guarded.sasl, by("scram-sha-512", "nobody", "right"), "they do not let this client in: "),
        ("an unknown authority", &guarded.tls, format!("{unknown}{own}"), "verify that ca_file is"),
        ("no certificate", &guarded.tls, ca.clone(), "bad certificate"),
        ("no TLS", &guarded.tls, none, "it may want tls or sasl"),
        ("TLS where none is spoken", &plain, ca.clone(), "SSL handshake failed"),
    ];
    for (what, address, lines, said) in cases {
        let begun = Instant::now();
        let (code, text) = kafka(dir, &journal(address, &lines), "check");
        let took = begun.elapsed();
        println!("{what}, after {took:?}: {text}");
        assert_eq!(code, Some(3), "{what}: {text}");
        let start = format!("klaxon: no broker among {address} answers as it should: ");
        assert!(text.starts_with(&start) && text.contains(said), "{what}: {text}");
        assert!(!text.contains(password) && !text.contains("guessed"), "{what}: {text}");
        assert!(took < Duration::from_secs(10), "{what}: it took {took:?}");
    }
}

#[test]
fn that_nobody_is_there_is_said_soon() {
    let scratch = scratch("kafka-nobody-");
    let begun = Instant::now();
    let (code, text) = kafka(scratch.path(), &journal("127.0.0.1:1", ""), "check");
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("127.0.0.1:1 answers as it should: ") && text.contains("Connection refused"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
}

/// kcat, if it is there; with `CI` set it must be.
fn kcat(brokers: &Brokers) -> Option<Command> {
    let found = Command::new("kcat").arg("-V").output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var_os("CI").is_none(), "CI needs kcat");
    let mut command = Command::new("kcat");
    command.args(["-q", "-b", &brokers.addresses().join(",")]);
    found.then_some(command)
}

/// Produces as the README says: the key is the site, and it is hashed as Kafka's own clients hash it.
fn produce(brokers: &Brokers, options: &[&str], events: &[(&str, Value)]) {
    let mut command = kcat(brokers).expect("was there before");
    command.args(["-P", "-t", "klaxon.events", "-K", "\t"]).args(options).stdin(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut input = child.stdin.take().expect("is piped");
    for (site, event) in events {
        writeln!(input, "{site}\t{event}").expect("it reads");
    }
    drop(input);
    assert!(child.wait().expect("it has ended").success());
}

#[test]
fn anybody_produces_and_reads_with_kcat() {
    let Some(brokers) = Brokers::one() else { return };
    if kcat(&brokers).is_none() {
        return;
    }
    let scratch = scratch("kafka-kcat-");
    let dir = scratch.path();
    let config = brokers.journal("klaxon.", "partitions = 4");
    assert_eq!(kafka(dir, &config, "init").0, Some(0));
    let node = Setup::new(&dir.join("node")).config(&format!("{config}[node]\nsite = \"noc\"\n")).start();
    let sites = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"];
    let event = |severity: &str| json!({ "resource": "host=a", "alarm_type": "disk.full", "severity": severity });
    let all: Vec<(&str, Value)> = sites.iter().map(|site| (*site, event("major"))).collect();
    // However it is packed: what a reader cannot unpack it would pass over.
    for (packed, part) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().zip(all.chunks(2)) {
        produce(&brokers, &["-X", "partitioner=murmur2_random", "-z", packed], part);
    }
    wait_until("all are shown", || node.alarms().len() == sites.len());
    // A site that is named by the key alone.
    let shown: Vec<_> = node.alarms().iter().map(|alarm| alarm["site"].as_str().expect("a site").to_owned()).collect();
    assert!(sites.iter().all(|site| shown.iter().any(|other| other == site)), "{shown:?}");

    // All that was committed, once, each change as its schema has it.
    let read = |more: &[&str]| -> Vec<(String, Value)> {
        let mut command = kcat(&brokers).expect("was there before");
        command.args(["-C", "-t", "klaxon.changes", "-e", "-f", "%k\t%s\n", "-X", "isolation.level=read_committed"]).args(more);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("is text");
        let line = |line: &str| {
            let (key, value) = line.split_once('\t').expect("has a key");
            (key.to_owned(), serde_json::from_str(value).expect("is JSON"))
        };
        text.lines().map(line).collect()
    };
    let raised = |changes: &[(String, Value)]| changes.iter().filter(|(_, change)| change["kind"] == "raised").count();
    let changes = read(&[]);
    assert_eq!(raised(&changes), sites.len(), "{changes:?}");
    for (key, change) in changes.iter().filter(|(_, change)| change["kind"] == "raised") {
        assert_eq!(change["alarm"]["site"].as_str(), Some(key.as_str()), "{change}");
    }

    // Whoever hashes otherwise is told so, and nothing is wrong with the rest.
    produce(&brokers, &["-X", "partitioner=consistent"], &sites.map(|site| (site, event("critical"))));
    produce(&brokers, &["-X", "partitioner=murmur2_random"], &sites.map(|site| (site, event("cleared"))));
    wait_until("all are over", || node.json("/alarms?cleared=false")["alarms"].as_array().is_some_and(Vec::is_empty));
    assert!(node.log_text().contains("murmur2_random"), "{}", node.log_text());
    assert!(node.stop().success());
}

#[test]
fn the_settings_in_compose_files_are_right() {
    let scratch = scratch("kafka-compose-");
    let mut seen = 0;
    for name in ["docker/kafka.yaml", "docker/sites.yaml"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("is there");
        for part in text.split("    content: |\n").skip(1) {
            let lines: Vec<&str> = part.lines().map_while(|line| line.strip_prefix("      ")).collect();
            let file = scratch.path().join("klaxon.toml");
            // The certificates are made by whoever starts it.
            let lines = lines.into_iter().filter(|line| !line.starts_with("tls_")).collect::<Vec<_>>().join("\n");
            std::fs::write(&file, lines.replace("ca_file", "#")).expect("can be written");
            let output = klaxon().arg("check").arg(&file).output().expect("it runs");
            assert!(output.status.success(), "{name}: {lines}: {}", String::from_utf8_lossy(&output.stderr));
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}
