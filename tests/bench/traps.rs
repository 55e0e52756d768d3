//! Traps: `./dev bench traps`. A burst of 100 000 and 10 000/s for 30 s to a release build, and the same to snmptrapd in the same
//! run: what was sent, what the kernel dropped, what is journalled or logged, and the CPU time of each trap. To the node alone
//! 20 000/s for 30 s as well, and 10 000/s of v3 at authPriv (SHA-256, AES-256).
//!
//! Sender and receiver share the machine's cores. snmptrapd writes a line for each trap to a file and never syncs it; the node's
//! traps are synced. As root the sysctl net.core.rmem_max is raised for the run, so that snmptrapd may have as large a buffer.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

#[path = "../harness/mod.rs"]
mod harness;
mod measure;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Node, Setup, scratch, wait_until};

const BURST: u64 = 100_000;
const RATE: u64 = 10_000;
const SECONDS: u64 = 30;
const BUFFER_BYTES: u64 = 64 << 20;
const RMEM_MAX: &str = "/proc/sys/net/core/rmem_max";
/// 267 bytes with eleven variables; its trap OID is what snmptrapd's lines are counted by.
const TRAP: &[u8] = include_bytes!("../../fuzz/corpus/trap/v2c-types.bin");
const TRAP_OID: &str = "1.3.6.1.4.1.8072.2.3.0.1";

/// What the node alone is asked beside that.
const RATE_HIGH: u64 = 20_000;
/// 193 bytes at authPriv, the same each time: within its time window, and to nobody a duplicate.
const TRAP_V3: &[u8] = include_bytes!("../../fuzz/corpus/trap/v3-trap-priv.bin");
const USERS: &str = "[snmp.users.priv]\nauth = \"sha256\"\nauth_password = \"password\"\nprivacy = \"aes256\"\n\
                     privacy_password = \"hush-hush\"";

fn main() {
    println!("## traps");
    let before = std::fs::read_to_string(RMEM_MAX).ok();
    if std::fs::write(RMEM_MAX, BUFFER_BYTES.to_string()).is_err() {
        println!(
            "net.core.rmem_max cannot be raised and is {}; snmptrapd has no more",
            before.as_deref().unwrap_or("?").trim()
        );
    }
    let scratch = scratch("bench-");
    for round in 0..2 {
        burst_to_node(&scratch.path().join(format!("data-{round}")));
        burst_to_snmptrapd(scratch.path());
    }
    paced_to_node(&scratch.path().join("data-paced"));
    let (count, rate) = (RATE_HIGH * SECONDS, Some(RATE_HIGH));
    to_node("klaxon, 20 000/s", &scratch.path().join("data-high"), "", |to| send(to, count, rate), count);
    let (count, rate) = (RATE * SECONDS, Some(RATE));
    let v3 = |to| send_paced(to, &vec![TRAP_V3.to_vec(); count as usize], rate);
    to_node("klaxon, 10 000/s of v3 at authPriv", &scratch.path().join("data-v3"), USERS, v3, count);
    paced_to_snmptrapd(scratch.path());
    if let Some(before) = before {
        let _ = std::fs::write(RMEM_MAX, before.trim());
    }
}

/// Sends `count` traps, each with a number of its own: at once, or so many a second.
fn send(to: SocketAddr, count: u64, rate: Option<u64>) -> Duration {
    let pdu = TRAP.iter().position(|byte| *byte == 0xa7).expect("is a trap");
    let at = pdu + TRAP[pdu..].windows(2).position(|head| head == [2, 4]).expect("has a request id") + 2;
    let packets = (0..count).map(|number| {
        let mut packet = TRAP.to_vec();
        packet[at..at + 4].copy_from_slice(&u32::try_from(number).expect("is small").to_be_bytes());
        packet
    });
    send_paced(to, &packets.collect::<Vec<_>>(), rate)
}

fn send_paced(to: SocketAddr, packets: &[Vec<u8>], rate: Option<u64>) -> Duration {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.connect(to).expect("can be sent to");
    let begun = Instant::now();
    for (number, packet) in (0..).zip(packets) {
        if let Some(rate) = rate.filter(|_| number % 10 == 0) {
            let due = Duration::from_secs_f64(number as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        socket.send(packet).expect("can be sent");
    }
    begun.elapsed()
}

/// What waits in the socket on a port, and what was dropped there.
fn socket_state(port: u16) -> Option<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/net/udp").expect("can be read");
    let ending = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(1)?.ends_with(&ending).then_some(())?;
        let waiting = u64::from_str_radix(columns.get(4)?.split_once(':')?.1, 16).ok()?;
        Some((waiting, columns.get(12)?.parse().ok()?))
    })
}

fn report(what: &str, sent: u64, took: Duration, dropped: u64, kept: u64, verb: &str, used: Duration) {
    println!(
        "{what}: {sent} sent in {:.2} s ({:.0}/s), {dropped} dropped by the kernel, {kept} {verb}, {:.2} % lost; CPU per trap {:.1} us",
        took.as_secs_f64(),
        sent as f64 / took.as_secs_f64(),
        (sent - kept.min(sent)) as f64 / sent as f64 * 100.0,
        used.as_secs_f64() * 1e6 / kept.max(1) as f64
    );
}

fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("//metrics").expect("the node answers").body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.expect("is a metric").parse().expect("is a number")
}

fn to_node(what: &str, data: &Path, config: &str, send: impl FnOnce(SocketAddr) -> Duration, count: u64) {
    // All come from one address.
    let limit = "[traps]\nlisten = \"127.0.0.1:0\"\nsource_rate_max = 0\n";
    let node = Setup::new(data).config(&format!("{limit}{config}")).start();
    let to = node.traps.expect("it receives traps");
    let before = measure::node_cpu(&node);
    let begun = Instant::now();
    let took = send(to);
    let journalled = || metric(&node, "klaxon_door_events_journalled_total{door=\"trap\"}");
    let dropped = || socket_state(to.port()).expect("it listens").1;
    wait_until("what was not dropped is journalled", || journalled() + dropped() >= count);
    let all = begun.elapsed();
    report(what, count, took, dropped(), journalled(), "journalled", measure::node_cpu(&node) - before);
    println!("  the last one was durable {:.2} s after the first was sent", all.as_secs_f64());
}

fn burst_to_node(data: &Path) {
    to_node("klaxon, burst", data, "", |to| send(to, BURST, None), BURST);
}

fn paced_to_node(data: &Path) {
    to_node("klaxon, 10 000/s", data, "", |to| send(to, RATE * SECONDS, Some(RATE)), RATE * SECONDS);
}

/// snmptrapd on a free port, with a large receive buffer as far as the kernel grants it one.
fn snmptrapd(dir: &Path) -> Option<(Child, u16)> {
    let config = dir.join("snmptrapd");
    std::fs::create_dir_all(&config).expect("can be made");
    std::fs::write(config.join("snmptrapd.conf"), "disableAuthorization yes\n").expect("can be written");
    std::fs::write(config.join("snmp.conf"), format!("serverRecvBuf {BUFFER_BYTES}\n")).expect("can be written");
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port is free").port();
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let child = Command::new("snmptrapd")
        .args(["-f", "-n", "-On", "-m", "", "-Lf"])
        .arg(dir.join("snmptrapd.log"))
        .arg("-p")
        .arg(dir.join("snmptrapd.pid"))
        .arg(format!("udp:127.0.0.1:{port}"))
        .env("PATH", path)
        .env("SNMPCONFPATH", &config)
        .env("SNMP_PERSISTENT_DIR", &config)
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else {
        println!("snmptrapd is not there (package snmptrapd): nothing to compare with");
        return None;
    };
    wait_until("snmptrapd listens", || socket_state(port).is_some());
    Some((child, port))
}

fn to_snmptrapd(what: &str, dir: &Path, count: u64, rate: Option<u64>) {
    let log = dir.join("snmptrapd.log");
    let _ = std::fs::remove_file(&log);
    let Some((mut child, port)) = snmptrapd(dir) else { return };
    let before = measure::cpu_of(child.id());
    let took = send(SocketAddr::from(([127, 0, 0, 1], port)), count, rate);
    let state = || socket_state(port).expect("it listens");
    wait_until("snmptrapd has emptied its socket", || state().0 == 0);
    let (used, (_, dropped)) = (measure::cpu_of(child.id()) - before, state());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    child.wait().expect("it ends");
    let text = std::fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let kept = text.matches(TRAP_OID).count() as u64;
    report(what, count, took, dropped, kept, "logged", used);
}

fn burst_to_snmptrapd(dir: &Path) {
    to_snmptrapd("snmptrapd, burst", dir, BURST, None);
}

fn paced_to_snmptrapd(dir: &Path) {
    to_snmptrapd("snmptrapd, 10 000/s", dir, RATE * SECONDS, Some(RATE));
}
