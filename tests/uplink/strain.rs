//! What a node bears of those below it, and what it does when it cannot take what they send.

use std::path::Path;

use tokio::net::TcpSocket;

use super::*;
use crate::harness::mount::{LoopMount, can_mount};

/// The most that a child which does not read may cost, in KiB: far less than what is sent to it.
const GROWTH_KIB_MAX: u64 = 48 * 1024;

fn resident_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.child.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is told");
    line.trim().trim_end_matches(" kB").parse().expect("is a number")
}

/// Writes until no more than `leave` bytes are free.
fn fill(dir: &Path, leave: u64) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(dir.join("filler")).expect("can be made");
    let zeros = vec![0; 1 << 16];
    loop {
        let stat = rustix::fs::statvfs(dir).expect("is mounted");
        if stat.f_bavail * stat.f_frsize <= leave || file.write_all(&zeros).and_then(|()| file.sync_data()).is_err() {
            return;
        }
    }
}

#[test]
fn a_child_that_does_not_read_costs_little_and_is_sent_away_and_others_go_on() {
    let node = Site::start(PARENT);
    let (mut other, _) = join(&node, "cell-2");
    aligned(&mut other, 10);
    let (wire, credential) = join(&node, "cell-1");
    drop(wire);
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    let runtime = runtime();
    let address: SocketAddr = node.base.strip_prefix("http://").expect("is an address").parse().expect("is an address");
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().expect("can be made");
        socket.set_recv_buffer_size(4096).expect("can be set");
        socket.connect(address).await.expect("connects")
    });
    let mut wire = Wire::over(runtime, Box::new(stream), Some(&credential)).expect("is good");
    wire.hello(&json!({}));
    wire.expect("welcome");
    let before = resident_kib(&node);
    // Each is answered with all ranges, which differ; no answer is read.
    let compare = codec::encode(&json!({ "m": "compare", "at": 10, "digests": "1".repeat(256 * 16) })).expect("encodes");
    let Wire { runtime, mut socket } = wire;
    runtime.spawn(async move { while socket.send(Message::Binary(compare.clone())).await.is_ok() {} });
    let (mut most, mut rounds, mut slowest) = (0, 0, Duration::ZERO);
    let begun = Instant::now();
    while !node.log_text().contains("it does not read") {
        assert!(begun.elapsed() < PATIENCE, "it was not sent away");
        let asked = Instant::now();
        other.say(&live(10, 10, &[]));
        other.expect("reached");
        slowest = slowest.max(asked.elapsed());
        rounds += 1;
        most = most.max(resident_kib(&node));
    }
    assert!(most.saturating_sub(before) < GROWTH_KIB_MAX, "from {before} to {most} KiB");
    assert!(rounds > 20 && slowest < Duration::from_secs(5), "{rounds} rounds, the slowest {slowest:?}");
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    again(&node, &credential);
}

#[test]
fn a_connection_that_waits_for_room_here_is_not_taken_for_dead() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("uplink-deaf-");
    let mount = LoopMount::new(scratch.path(), "disk", 96);
    let node = Setup::new(&mount.dir.join("data"))
        .config(PARENT)
        .config("[store]\nfree_space_watermark = \"12MiB\"\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"1GiB\"")
        .start();
    let (mut wire, credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    let event = json!({ "resource": "host=here", "alarm_type": "t", "severity": "major" }).to_string();
    fill(&mount.dir, 4 << 20);
    wait_until("the journal refuses", || node.post("/events", &event).expect("answers").status == 507);
    // As many as may be on their way, and a few that are not read for that.
    (0..20).for_each(|step| wire.say(&live(10 + step, 11 + step, &[])));
    let alive = wire.live_on();
    let mut second = Wire::open(&node, &credential).expect("is good");
    second.hello(&json!({}));
    let reason = second.expect_refused("busy");
    assert!(reason.contains("not read now"), "{reason}");
    std::fs::remove_file(mount.dir.join("filler")).expect("can be removed");
    wait_until("the first goes on", || shown(&node, "cell-1")["reached"]["position"] == 30);
    assert_eq!(active(&node, "klaxon.site.doubled"), 0);
    drop(alive);
}

#[test]
fn a_full_disk_here_loses_nothing_of_a_site_and_takes_nothing_twice() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("uplink-full-");
    let mount = LoopMount::new(scratch.path(), "disk", 96);
    let setup = Setup::new(&mount.dir.join("data"))
        .config(PARENT)
        .config("[store]\nfree_space_watermark = \"12MiB\"\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"1GiB\"");
    let node = setup.start();
    let changes = changes_of(&["host=a", "host=b"]);
    let (mut wire, credential) = join(&node, "cell-1");
    aligned(&mut wire, 10);
    let event = json!({ "resource": "host=here", "alarm_type": "t", "severity": "major" }).to_string();
    fill(&mount.dir, 4 << 20);
    wait_until("the journal refuses", || node.post("/events", &event).expect("answers").status == 507);
    wire.say(&live(10, 20, &changes[..1]));
    wire.say(&live(20, 30, &changes[1..]));
    // Nothing is acknowledged that is not durable; what was sent is brought in by the node itself once there is room.
    let silence = async { tokio::time::timeout(Duration::from_secs(2), wire.socket.next()).await };
    let said = wire.runtime.block_on(silence);
    assert!(matches!(said, Err(_) | Ok(Some(Ok(Message::Ping(_) | Message::Pong(_))))), "{said:?}, {}", node.log_text());
    assert_eq!(of_cell(&node).len(), 0);
    assert_eq!(shown(&node, "cell-1")["state"], "connected");
    std::fs::remove_file(mount.dir.join("filler")).expect("can be removed");
    while wire.expect("reached")["position"] != 30 {}
    assert_eq!(of_cell(&node).len(), 2);
    // What comes again because its answer was lost has no effect.
    drop(wire);
    wait_until("it is away", || shown(&node, "cell-1")["state"] == "away");
    let (mut wire, welcome) = again(&node, &credential);
    assert_eq!(welcome["reached"]["position"], 30);
    let of_site =
        |node: &Node| node.history().into_iter().filter(|change| change["alarm"]["alarm_type"] == "fan.failed").count();
    wire.say(&live(10, 30, &changes));
    wire.expect("reached");
    assert_eq!(of_site(&node), changes.len());
    drop(wire);
    node.kill();
    let node = setup.start();
    assert_eq!((of_site(&node), of_cell(&node).len()), (changes.len(), 2));
}
