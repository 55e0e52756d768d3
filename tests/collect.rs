//! The collectors in a node, against the real thing: a file system fills up, a certificate expires, a unit fails, a link goes
//! down; and what becomes of what they told over a restart, a reload and an operator's clear.

mod harness;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use harness::mount::{LoopMount, can_mount, run};
use harness::{Node, Setup, scratch, wait_until};
use serde_json::Value;

const COLLECTORS: [&str; 8] = ["cpu", "memory", "filesystem", "link", "units", "time", "certificates", "heartbeat"];

/// The configuration in which nothing but `wanted` looks, as a host `h`.
fn only(wanted: &str, lines: &str) -> String {
    let off = COLLECTORS.iter().filter(|name| **name != wanted).map(|name| format!("[collect.{name}]\nenabled = false\n"));
    format!("[collect]\nhost = \"h\"\n{}{lines}\n", off.collect::<String>())
}

/// A file system is looked at every second, and counts at once.
fn filesystem(dir: &Path) -> String {
    let lines = format!(
        "[collect.filesystem]\ninterval = \"1s\"\nclear_after = \"0s\"\ninclude = [\"{0}\"]\nexclude = [\"*\"]\n\
         levels = [{{ severity = \"major\", above = 80, after = \"0s\" }}, {{ severity = \"critical\", above = 90, after = \"0s\" }}]\n\
         inode_levels = [{{ severity = \"major\", above = 80, after = \"0s\" }}]\n",
        dir.display()
    );
    only("filesystem", &lines)
}

/// The alarm of a type that stands raised.
fn raised(node: &Node, alarm_type: &str) -> Option<Value> {
    let mut page = node.json(&format!("/alarms?alarm_type={alarm_type}"));
    page["alarms"].as_array_mut().and_then(Vec::pop)
}

fn wait_raised(node: &Node, alarm_type: &str, severity: &str) -> Value {
    wait_until(&format!("{alarm_type} is {severity}"), || {
        raised(node, alarm_type).is_some_and(|alarm| alarm["severity"] == severity)
    });
    raised(node, alarm_type).expect("was there just now")
}

fn wait_over(node: &Node, alarm_type: &str) {
    wait_until(&format!("{alarm_type} is over"), || raised(node, alarm_type).is_none());
}

fn collector(node: &Node, name: &str) -> Value {
    let answer = node.json("/collectors");
    let found = answer["collectors"].as_array().expect("a list").iter().find(|collector| collector["name"] == name);
    found.cloned().unwrap_or(Value::Null)
}

fn looks(node: &Node, name: &str) -> u64 {
    collector(node, name)["looks"].as_u64().unwrap_or(0)
}

/// Waits until the collector has looked twice more: what it saw before that may be of the past.
fn look_again(node: &Node, name: &str) {
    let before = looks(node, name);
    wait_until("the collector has looked", || looks(node, name) >= before + 2);
}

/// Writes so much that the file system is `percent` full.
fn fill(dir: &Path, percent: u64) {
    let stat = rustix::fs::statvfs(dir).expect("is mounted");
    let total = stat.f_frsize * stat.f_blocks;
    let used = total - stat.f_frsize * stat.f_bfree;
    let more = (total * percent / 100).saturating_sub(used);
    let file = std::fs::File::create(dir.join(format!("filler-{percent}"))).expect("can be made");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, more).expect("there is room");
}

fn empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("is a folder").flatten() {
        if entry.file_name().to_string_lossy().starts_with("filler") {
            std::fs::remove_file(entry.path()).expect("can be removed");
        }
    }
}

#[test]
fn a_file_system_that_fills_up_is_an_alarm_until_there_is_room() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("collect-full-");
    let mount = LoopMount::new(scratch.path(), "disk", 64);
    let node = Setup::new(&scratch.path().join("data")).config(&filesystem(&mount.dir)).start();
    look_again(&node, "filesystem");
    assert!(raised(&node, "disk.full").is_none());
    fill(&mount.dir, 84);
    let major = wait_raised(&node, "disk.full", "major");
    let resource = format!("host=h.filesystem={}", mount.dir.display());
    assert_eq!(major["resource"], resource.as_str());
    fill(&mount.dir, 94);
    let critical = wait_raised(&node, "disk.full", "critical");
    assert_eq!((&critical["id"], &critical["raise_seq"]), (&major["id"], &major["raise_seq"]));
    assert!(node.cli_ok(&["collect", "filesystem"]).contains("critical"));
    assert!(node.cli_ok(&["alarms", "show", critical["id"].as_str().expect("an id")]).contains("du -x"), "the catalogue helps");
    empty(&mount.dir);
    wait_over(&node, "disk.full");
    for number in 0..1_000_000 {
        let is_full = std::fs::write(mount.dir.join(format!("filler-{number}")), "").is_err();
        let stat = rustix::fs::statvfs(&mount.dir).expect("is mounted");
        if is_full || stat.f_ffree * 100 < stat.f_files * 15 {
            break;
        }
    }
    wait_raised(&node, "disk.inodes", "major");
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(&mount.dir));
    wait_raised(&node, "disk.read-only", "major");
    run(Command::new("mount").args(["-o", "remount,rw"]).arg(&mount.dir));
    wait_over(&node, "disk.read-only");
    empty(&mount.dir);
    wait_over(&node, "disk.inodes");
}

#[test]
fn after_a_restart_and_a_reload_the_alarms_agree_with_reality() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("collect-restart-");
    let mount = LoopMount::new(scratch.path(), "disk", 32);
    let setup = Setup::new(&scratch.path().join("data")).config(&filesystem(&mount.dir));
    fill(&mount.dir, 85);
    let node = setup.start();
    let before = wait_raised(&node, "disk.full", "major");
    node.kill();
    let node = setup.start();
    look_again(&node, "filesystem");
    let after = wait_raised(&node, "disk.full", "major");
    for field in ["id", "raise_seq", "count", "raised_at"] {
        assert_eq!(before[field], after[field], "{field}: what still holds is not raised anew");
    }
    // Cleared too early by somebody: the next look says what is.
    node.cli_ok(&["alarms", "clear", after["id"].as_str().expect("an id")]);
    wait_until("it is raised again", || raised(&node, "disk.full").is_some_and(|alarm| alarm["raise_seq"] == 2));
    node.kill();
    empty(&mount.dir);
    let node = setup.start();
    wait_over(&node, "disk.full");
    // Turned off, it clears what it told; turned on again, it tells anew.
    fill(&mount.dir, 86);
    wait_raised(&node, "disk.full", "major");
    let file = scratch.path().join("data.toml");
    let on = std::fs::read_to_string(&file).expect("was written");
    std::fs::write(&file, on.replace("[collect.filesystem]", "[collect.filesystem]\nenabled = false")).expect("can be written");
    node.signal(rustix::process::Signal::HUP);
    wait_over(&node, "disk.full");
    assert_eq!(collector(&node, "filesystem"), Value::Null);
    std::fs::write(&file, on).expect("can be written");
    node.signal(rustix::process::Signal::HUP);
    wait_raised(&node, "disk.full", "major");
    // Turned off while the node is down comes to the same.
    node.kill();
    let node = Setup::new(&scratch.path().join("data")).config(&only("none", "")).start();
    wait_over(&node, "disk.full");
    let cleared = node.json("/alarms?cleared=true&alarm_type=disk.full");
    assert_eq!(cleared["alarms"][0]["text"], "The collector was turned off.");
}

fn script(path: &Path, lines: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{lines}\n")).expect("can be written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("can be set");
}

#[test]
fn a_failed_unit_is_an_alarm() {
    let scratch = scratch("collect-units-");
    let (systemctl, state) = (scratch.path().join("systemctl"), scratch.path().join("state"));
    // A stand-in: systemd does not run where the tests do.
    script(&systemctl, &format!("case \"$*\" in *list-units*) cat {} ;; esac", state.display()));
    std::fs::write(&state, "").expect("can be written");
    let lines = format!("[collect.units]\ninterval = \"1s\"\nsystemctl = \"{}\"\n", systemctl.display());
    let node = Setup::new(&scratch.path().join("data")).config(&only("units", &lines)).start();
    look_again(&node, "units");
    std::fs::write(&state, "nginx.service loaded failed failed A high performance web server\n").expect("can be written");
    let alarm = wait_raised(&node, "unit.failed", "major");
    assert_eq!(alarm["resource"], "host=h.unit=nginx.service");
    std::fs::write(&state, "").expect("can be written");
    wait_over(&node, "unit.failed");
}

#[test]
fn a_certificate_expires_before_the_eyes_of_the_node() {
    let scratch = scratch("collect-certificate-");
    let file = scratch.path().join("portal.pem");
    let mut params = rcgen::CertificateParams::new(vec!["portal.example".to_owned()]).expect("a name");
    params.not_after = (SystemTime::now() + Duration::from_secs(4)).into();
    let key = rcgen::KeyPair::generate().expect("a key");
    std::fs::write(&file, params.self_signed(&key).expect("signed").pem()).expect("can be written");
    let lines = format!("[collect.certificates]\nfiles = [\"{}/*.pem\"]\n", scratch.path().display());
    let node = Setup::new(&scratch.path().join("data")).config(&only("certificates", &lines)).start();
    // It looks every hour, and when one comes to its time.
    let expired = wait_raised(&node, "certificate.expired", "critical");
    assert_eq!(expired["resource"], format!("host=h.certificate={}", file.display()).as_str());
    wait_over(&node, "certificate.expiring");
    assert!(node.history().iter().any(|change| change["alarm"]["alarm_type"] == "certificate.expiring"));
}

#[test]
fn checks_of_ones_own_tell_and_one_that_breaks_leaves_the_others_alone() {
    let scratch = scratch("collect-check-");
    let path = |name: &str| scratch.path().join(name);
    std::fs::write(path("code"), "0").expect("can be written");
    script(
        &path("check"),
        &format!("read code < {}\necho \"portal answers with $code | time=3ms\"\nexit $code", path("code").display()),
    );
    std::fs::write(path("findings"), "[]").expect("can be written");
    script(&path("lister"), &format!("cat {}", path("findings").display()));
    let check = |name: &str, program: &str, more: &str| {
        format!(
            "[[collect.check]]\nname = \"{name}\"\ncommand = [\"{}\"]\ninterval = \"1s\"\n{more}\n",
            path(program).display()
        )
    };
    let lines = [
        check("portal", "check", "resource = \"service=portal\"\nalarm_type = \"service.down\""),
        check("lister", "lister", "format = \"json\""),
        check("missing", "nothing-here", ""),
    ];
    let node = Setup::new(&path("data")).config(&only("none", &lines.concat())).start();
    let failed = wait_raised(&node, "klaxon.collector-failed", "major");
    assert_eq!(failed["resource"], "host=h.collector=check/missing");
    assert_eq!(collector(&node, "check/missing")["state"], "failed");
    std::fs::write(path("code"), "2").expect("can be written");
    let down = wait_raised(&node, "service.down", "critical");
    assert_eq!((&down["resource"], &down["text"]), (&Value::from("service=portal"), &Value::from("portal answers with 2")));
    std::fs::write(path("code"), "1").expect("can be written");
    wait_raised(&node, "service.down", "warning");
    std::fs::write(path("code"), "0").expect("can be written");
    wait_over(&node, "service.down");
    let finding = r#"[{"resource":"rack=3","alarm_type":"temperature.high","severity":"minor","text":"34 °C"}]"#;
    std::fs::write(path("findings"), finding).expect("can be written");
    assert_eq!(wait_raised(&node, "temperature.high", "minor")["resource"], "rack=3");
    // What a broken collector told is stale: nobody looks any more.
    std::fs::write(path("findings"), "nonsense").expect("can be written");
    wait_until("it is stale", || raised(&node, "temperature.high").is_some_and(|alarm| !alarm["stale"].is_null()));
    std::fs::write(path("findings"), finding).expect("can be written");
    wait_until("it is fresh", || raised(&node, "temperature.high").is_some_and(|alarm| alarm["stale"].is_null()));
    wait_until("one is left that fails", || {
        node.json("/alarms?alarm_type=klaxon.collector-failed")["alarms"].as_array().map(Vec::len) == Some(1)
    });
    std::fs::write(path("findings"), "[]").expect("can be written");
    wait_over(&node, "temperature.high");
    script(&path("nothing-here"), "echo well");
    wait_over(&node, "klaxon.collector-failed");
}

/// A pair of links that the test made; it goes with its first end.
struct Pair {
    near: String,
    far: String,
}

impl Pair {
    fn new() -> Self {
        let id = std::process::id();
        let pair = Self { near: format!("kxn{id}"), far: format!("kxf{id}") };
        run(Command::new("ip").args(["link", "add", &pair.near, "type", "veth", "peer", "name", &pair.far]));
        for end in [&pair.near, &pair.far] {
            run(Command::new("ip").args(["link", "set", end, "up"]));
        }
        pair
    }

    fn set_far(&self, state: &str) {
        run(Command::new("ip").args(["link", "set", &self.far, state]));
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.near]).status();
    }
}

#[test]
fn a_link_that_loses_its_carrier_is_an_alarm() {
    if !can_mount() {
        return;
    }
    let scratch = scratch("collect-link-");
    let pair = Pair::new();
    let lines = format!("[collect.link]\nclear_after = \"0s\"\ninterval = \"1h\"\ninclude = [\"{}\"]\n", pair.near);
    let node = Setup::new(&scratch.path().join("data")).config(&only("link", &lines)).start();
    wait_until("the collector has looked", || looks(&node, "link") > 0);
    // It is told by the kernel: within the hour it would not look by itself.
    pair.set_far("down");
    let down = wait_raised(&node, "link.down", "major");
    assert_eq!(down["resource"], format!("host=h.port={}", pair.near).as_str());
    pair.set_far("up");
    wait_over(&node, "link.down");
}

#[test]
fn a_busy_machine_is_an_alarm() {
    let scratch = scratch("collect-cpu-");
    let levels = "levels = [{ severity = \"minor\", above = 20, after = \"0s\" }]";
    let lines = format!("[collect.cpu]\ninterval = \"1s\"\n{levels}\n");
    let node = Setup::new(&scratch.path().join("data")).config(&only("cpu", &lines)).start();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        wait_raised(&node, "cpu.high", "minor");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn the_node_is_heard_from_and_no_more_when_that_is_turned_off() {
    let scratch = scratch("collect-heartbeat-");
    let lines = "[collect.heartbeat]\ninterval = \"1s\"\n";
    let node = Setup::new(&scratch.path().join("data")).config(&only("heartbeat", lines)).start();
    let promises = || node.json("/heartbeats")["heartbeats"].as_array().cloned().unwrap_or_default();
    wait_until("it is heard from", || !promises().is_empty());
    assert_eq!((&promises()[0]["resource"], &promises()[0]["lost"]), (&Value::from("host=h"), &Value::from(false)));
    look_again(&node, "heartbeat");
    assert!(raised(&node, "heartbeat.lost").is_none());
    let file = scratch.path().join("data.toml");
    let on = std::fs::read_to_string(&file).expect("was written");
    std::fs::write(&file, on.replace("[collect]\n", "[collect]\nenabled = false\n")).expect("can be written");
    node.signal(rustix::process::Signal::HUP);
    wait_until("the promise is ended", || promises().is_empty());
}

#[test]
fn one_look_needs_no_node_and_tells_nobody() {
    let scratch = scratch("collect-once-");
    let look = |args: &[&str]| {
        let mut command = harness::klaxon();
        command.current_dir(scratch.path()).env_remove("KLAXON_NODE").env_remove("KLAXON_CONFIG");
        command.arg("collect").args(args).output().expect("the command line runs")
    };
    for name in ["cpu", "memory", "filesystem", "link", "certificates"] {
        let output = look(&[name, "--once", "--json"]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(seen[0]["name"], name);
    }
    let text = String::from_utf8(look(&["memory", "--once"]).stdout).expect("text");
    assert!(text.contains("% taken"), "{text}");
    let unknown = look(&["nothing", "--once"]);
    assert_eq!(unknown.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are cpu, memory"), "{unknown:?}");
}
