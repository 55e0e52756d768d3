//! SNMP: `./dev bench snmp`. Informs from a node to one receiver with 32 in flight: what a second brings, and what CPU each costs,
//! to a receiver that only answers, and to snmptrapd in v2c and v3. Beside them net-snmp's own snmpinform, one after the other.
//!
//! All share the machine's cores. snmptrapd writes a line of some 2 kB for each to a file.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
mod measure;
#[path = "../harness/trapd.rs"]
mod trapd;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Node, Setup, scratch};
use serde_json::{Value, json};

const ALARMS: u64 = 30_000;
const BATCH: u64 = 500;
const SINGLE: u32 = 200;
const USER: &str = "[snmp.users.noc]\nauth = \"sha256\"\nauth_password = \"auth-password\"\nprivacy = \"aes128\"\nprivacy_password = \"priv-password\"\n";

fn main() {
    println!("## snmp: informs out");
    let scratch = scratch("bench-");
    for round in 0..2 {
        let data = |name: &str| scratch.path().join(format!("{name}-{round}"));
        informs("to a receiver that only answers, v2c", &data("answers"), answering(), "", None);
        if !trapd::is_there() {
            println!("snmptrapd is not there (package snmptrapd): nothing to compare with");
            continue;
        }
        for (name, keys) in [("v2c", ""), ("v3", "user = \"noc\"")] {
            let trapd = trapd::Setup::new(&data(&format!("trapd-{name}")), "80001f8804aaaaaa")
                .line("createUser noc SHA-256 auth-password AES priv-password")
                .line("authUser log noc priv")
                .start();
            let target = trapd.target().parse().expect("an address");
            informs(&format!("to snmptrapd, {name}"), &data(name), target, keys, Some(trapd.pid()));
            if name == "v2c" {
                snmpinform(target, scratch.path());
            }
        }
    }
}

/// A receiver that answers each inform of v2c and looks at nothing.
fn answering() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut bytes = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            if let Some(pdu) = bytes[..length].iter().position(|byte| *byte == 0xa6) {
                bytes[pdu] = 0xa2;
                let _ = socket.send_to(&bytes[..length], from);
            }
        }
    });
    address
}

fn informs(what: &str, data: &Path, to: SocketAddr, keys: &str, receiver: Option<u32>) {
    let config =
        format!("{USER}[receivers.noc]\nfold_after = \"0s\"\n[receivers.noc.snmp]\naddress = \"{to}\"\nwindow = 32\n{keys}\n");
    let node = Setup::new(data).config(&config).start();
    let cpu = || (measure::node_cpu(&node), receiver.map(measure::cpu_of).unwrap_or_default());
    let before = cpu();
    let begun = Instant::now();
    for batch in 0..ALARMS / BATCH {
        let events: Vec<Value> = (0..BATCH).map(|number| raise(batch * BATCH + number)).collect();
        node.send(&Value::from(events));
    }
    let taken = begun.elapsed();
    while confirmed(&node) < ALARMS {
        assert!(begun.elapsed() < Duration::from_secs(300), "not confirmed: {} of {ALARMS}", confirmed(&node));
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = begun.elapsed();
    let (of_node, of_receiver) = (cpu().0 - before.0, cpu().1 - before.1);
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / ALARMS as f64;
    println!(
        "{what}: {ALARMS} raises taken in {:.2} s, informs confirmed in {:.2} s: {:.0}/s; CPU each: node {:.0} us, receiver {:.0} us",
        taken.as_secs_f64(),
        took.as_secs_f64(),
        ALARMS as f64 / took.as_secs_f64(),
        each(of_node),
        each(of_receiver)
    );
}

fn raise(number: u64) -> Value {
    json!({
        "resource": format!("host=h{}.filesystem=/data/{number}", number % 100), "alarm_type": "disk.full", "severity": "major",
        "text": format!("file system /data/{number} is 91 % full, 1.2 GB are left"),
    })
}

fn confirmed(node: &Node) -> u64 {
    let text = node.get("//metrics").expect("the node answers").body;
    let name = "klaxon_receivers_notifications_confirmed_total{receiver=\"noc\"} ";
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// net-snmp's sender: a process for each.
fn snmpinform(to: SocketAddr, dir: &Path) {
    let begun = Instant::now();
    for _ in 0..SINGLE {
        let sent = Command::new("snmpinform")
            .args(["-v", "2c", "-c", "public", "-m", "", "-M", "", &to.to_string(), "1", "1.3.6.1.6.3.1.1.5.3"])
            .env("SNMPCONFPATH", "/nonexistent")
            .env("SNMP_PERSISTENT_DIR", dir)
            .status();
        if !sent.is_ok_and(|status| status.success()) {
            println!("snmpinform is not there (package snmp)");
            return;
        }
    }
    println!("snmpinform, one after the other: {:.0}/s", f64::from(SINGLE) / begun.elapsed().as_secs_f64());
}
