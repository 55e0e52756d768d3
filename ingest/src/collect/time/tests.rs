//! What daemons really print, and two real chronyd, of which one asks the other.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::daemons::{chrony_clock, ntpd_clock, timesyncd};
use super::*;

fn sources(clock: &Clock) -> Vec<(&str, bool, bool)> {
    clock.sources.iter().map(|source| (source.name.as_str(), source.answers, source.is_used)).collect()
}

#[test]
fn what_chronyc_prints_is_understood() {
    let tracking = "C0A80001,192.168.0.1,3,1795354711.123456789,-0.000012345,0.000001234,0.000005678,-12.345,0.001,0.045,\
                    0.001234567,0.000456789,64.5,Normal\n";
    let listed = "^,*,192.168.0.1,2,6,377,12,-0.000001,0.000002,0.000340\n^,?,2001:db8::7,0,6,0,4294967295,0.0,0.0,0.0\n\
                  ^,-,192.168.0.9,2,6,17,12,-0.1,0.2,0.3\n";
    let clock = chrony_clock(tracking, listed).expect("is understood");
    assert_eq!(clock.lost, None);
    assert_eq!(clock.state, "synchronised to 192.168.0.1, stratum 3, -12 µs off");
    assert_eq!(sources(&clock), [("192.168.0.1", true, true), ("2001:db8::7", false, false), ("192.168.0.9", true, false)]);
    let lost = |tracking: &str, listed: &str| chrony_clock(tracking, listed).expect("is understood").lost;
    let never = "7F7F0101,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n";
    assert_eq!(lost(never, listed).as_deref(), Some("chronyd says so"));
    assert_eq!(lost(tracking, "").as_deref(), Some("no time source is configured"));
    let silent = listed.replace(",377,", ",0,").replace("*", "?");
    assert_eq!(lost(tracking, &silent).as_deref(), Some("of 3 time sources 1 answer, and none is fit"));
    assert_eq!(lost(tracking, &silent.replace(",17,", ",0,")).as_deref(), Some("none of 3 time sources answers"));
    let local = never.replace("Not synchronised", "Normal");
    assert_eq!(lost(&local, ""), None, "it is meant to be its own source");
    assert!(lost(&local, &silent).is_some(), "it only fell back on itself");
    assert_eq!(chrony_clock("506 Cannot talk to daemon", ""), None);
}

#[test]
fn what_ntpq_prints_is_understood() {
    let table = "\
     remote           refid      st t when poll reach   delay   offset  jitter
==============================================================================
 0.debian.pool.n .POOL.          16 p    -   64    0    0.000    0.000   0.000
*192.0.2.1       .GPS.            1 u   35   64  377    5.123   -0.456   0.078
 2001:db8:1111:2222:3333:4444:5555:6666
                 .INIT.          16 u    -   64    0    0.000    0.000   0.000
 127.127.1.0     .LOCL.          10 l   12   64  377    0.000    0.000   0.000
";
    let clock = ntpd_clock(table).expect("is understood");
    assert_eq!(clock.state, "synchronised to 192.0.2.1, stratum 1, -0.456 ms off");
    assert_eq!(sources(&clock), [("192.0.2.1", true, true), ("2001:db8:1111:2222:3333:4444:5555:6666", false, false)]);
    assert_eq!(clock.lost, None);
    let lost = ntpd_clock(&table.replace('*', " ").replace("377", "0")).expect("is understood").lost;
    assert_eq!(lost.as_deref(), Some("none of 2 time sources answers"));
    let lost = ntpd_clock(&table.replace('*', "x")).expect("is understood").lost;
    assert_eq!(lost.as_deref(), Some("of 2 time sources 1 answer, and none is fit"));
    assert_eq!(ntpd_clock("====\n*192.0.2.1 what\n"), None);
}

#[test]
fn the_mark_of_timesyncd_must_be_fresh() {
    let dir = tempfile::tempdir().expect("a folder");
    let silence = TimeConfig::default().timesync_silence;
    let lost = |wall| timesyncd(dir.path(), silence, wall).expect("can be read").lost;
    assert_eq!(lost(SystemTime::now()).as_deref(), Some("systemd-timesyncd has heard from no server since the boot"));
    std::fs::write(dir.path().join("synchronized"), "").expect("a file");
    assert_eq!(lost(SystemTime::now() + silence - Duration::from_secs(60)), None);
    let late = lost(SystemTime::now() + silence + Duration::from_secs(60));
    assert_eq!(late.as_deref(), Some("systemd-timesyncd has heard from no server for 69 minutes"));
    assert_eq!(lost(SystemTime::UNIX_EPOCH), None, "a clock that was set back");
}

#[test]
fn the_daemon_that_runs_is_found() {
    let proc = tempfile::tempdir().expect("a folder");
    assert_eq!(running(proc.path()).expect("can be read"), []);
    for (pid, name, expected) in [
        ("1", "systemd", vec![]),
        ("self", "chronyd", vec![]),
        ("40", "systemd-timesyn", vec![TimeDaemon::Timesyncd]),
        ("50", "chronyd", vec![TimeDaemon::Chrony, TimeDaemon::Timesyncd]),
        ("60", "ntpd", vec![TimeDaemon::Chrony, TimeDaemon::Ntpd, TimeDaemon::Timesyncd]),
    ] {
        std::fs::create_dir(proc.path().join(pid)).expect("a folder");
        std::fs::write(proc.path().join(pid).join("comm"), format!("{name}\n")).expect("a file");
        assert_eq!(running(proc.path()).expect("can be read"), expected);
    }
}

#[test]
fn a_program_that_is_missing_is_a_fault_where_the_daemon_is_named() {
    let host = Host::new("a").expect("is a name");
    let nowhere = vec!["/nowhere/chronyc".to_owned()];
    let config = TimeConfig { daemon: TimeDaemon::Chrony, chronyc: nowhere, ..TimeConfig::default() };
    let error = Time::new(&config, &host).look(Duration::ZERO, &Told::default()).expect_err("cannot look");
    assert_eq!(error.to_string(), "cannot run /nowhere/chronyc");
    // What stood raised when this process began is held against what runs now.
    let mut time = Time::new(&TimeConfig { chronyc: vec!["false".to_owned()], ..config }, &host);
    time.proc = proc(&[]).path().to_owned();
    let error = time.look(Duration::ZERO, &Told::default()).expect_err("processes cannot be listed");
    assert!(error.to_string().starts_with("cannot list processes in "), "{error}");
}

/// A /proc in which these run.
fn proc(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (pid, name) in names.iter().enumerate() {
        let process = dir.path().join(pid.to_string());
        std::fs::create_dir(&process).and_then(|()| std::fs::write(process.join("comm"), format!("{name}\n"))).expect("a file");
    }
    dir
}

#[test]
fn a_daemon_that_runs_and_cannot_be_asked_has_told_nothing() {
    let host = Host::new("a").expect("is a name");
    let cannot = ["sh", "-c", "echo 506 Cannot talk to daemon; exit 1"].map(str::to_owned).to_vec();
    for (daemon, process) in [(TimeDaemon::Chrony, "chronyd"), (TimeDaemon::Ntpd, "ntpd")] {
        let config = TimeConfig { daemon, chronyc: cannot.clone(), ntpq: cannot.clone(), ..TimeConfig::default() };
        let (runs, gone) = (proc(&["systemd", process]), proc(&["systemd"]));
        for config in [config.clone(), TimeConfig { daemon: TimeDaemon::Auto, ..config.clone() }] {
            let mut time = Time::new(&config, &host);
            time.proc = runs.path().to_owned();
            let error = time.look(Duration::ZERO, &Told::default()).expect_err("was told nothing");
            assert_eq!(error.to_string(), format!("cannot ask {process}"));
            assert_eq!(error.source.to_string(), "it ended with 1: 506 Cannot talk to daemon");
        }
        let mut time = Time::new(&config, &host);
        time.proc = gone.path().to_owned();
        let look = time.look(Duration::ZERO, &Told::default()).expect("looks");
        let value = format!("not synchronised: {process} does not run (it ended with 1: 506 Cannot talk to daemon)");
        assert_eq!(look.readings[0].value, value);
        assert_eq!(look.again_in, Some(Duration::from_secs(180)));
    }
}

/// A chronyd that leaves the clock alone.
struct Chronyd(Child);

impl Chronyd {
    fn start(dir: &Path, name: &str, lines: &str) -> Self {
        let config = dir.join(format!("{name}.conf"));
        let fixed = format!("pidfile {0}/{name}.pid\nbindcmdaddress {0}/{name}.sock\ncmdport 0\n", dir.display());
        std::fs::write(&config, fixed + lines).expect("a file");
        let user = if rustix::process::geteuid().is_root() { "root" } else { "" };
        let mut command = Command::new("chronyd");
        command.args(["-x", "-d", "-U"]).args(if user.is_empty() { [].as_slice() } else { &["-u", "root"] });
        command.arg("-f").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("chronyd can be started"))
    }
}

impl Drop for Chronyd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_that_goes_away_is_told_and_cleared_when_it_is_back() {
    if Command::new("chronyd").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI needs chrony");
        println!("skipped: there is no chronyd on PATH; ./dev test unpacks one");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    // It makes its socket in a folder of its own only.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("is ours");
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let serve = format!("port {port}\nbindaddress 127.0.0.1\nlocal stratum 5\nallow 127.0.0.1\n");
    let server = Chronyd::start(dir.path(), "server", &serve);
    let ask = format!("port 0\nserver 127.0.0.1 port {port} minpoll -4 maxpoll -4 iburst\nmakestep 1 -1\n");
    let client = Chronyd::start(dir.path(), "client", &ask);
    let socket = dir.path().join("client.sock").display().to_string();
    let config = TimeConfig {
        daemon: TimeDaemon::Chrony,
        chronyc: vec!["chronyc".to_owned(), "-h".to_owned(), socket],
        after: Duration::ZERO,
        ..TimeConfig::default()
    };
    let mut time = Time::new(&config, &Host::new("a").expect("is a name"));
    // The server of this test is called like the client, and others may run here.
    let gone = proc(&[]);
    time.proc = gone.path().to_owned();
    let mut told = Told::default();
    let mut wait_for = |what: &str, expected: &[(&str, Severity)]| {
        let began = Instant::now();
        loop {
            let look = time.look(began.elapsed(), &told).expect("looks");
            let holds: BTreeMap<_, _> =
                look.findings.iter().map(|finding| (finding.subject.clone(), finding.severity)).collect();
            told = Told(holds);
            let found: Vec<_> = told.0.iter().map(|(subject, severity)| (subject.resource.as_str(), *severity)).collect();
            if found == expected {
                return look;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: {look:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let look = wait_for("it follows the server", &[]);
    assert!(look.readings[0].value.starts_with("synchronised to 127.0.0.1, stratum 6, "), "{look:?}");
    let both = [("host=a", Severity::Major), ("host=a.ntp=127.0.0.1", Severity::Minor)];
    drop(server);
    let look = wait_for("the server is away", &both);
    assert_eq!(look.findings[0].text.as_str(), "The clock is not synchronised: the time source 127.0.0.1 does not answer.");
    let _server = Chronyd::start(dir.path(), "server", &serve);
    wait_for("the server is back", &[]);
    drop(client);
    let look = wait_for("the client is gone", &both[..1]);
    assert!(look.findings[0].text.contains("chronyd does not run (it ended with 1: "), "{look:?}");
}
