//! A node's alarms at net-snmp's snmptrapd: what each profile says, value by value, and what arrives when the receiver was away.

mod harness;
#[path = "harness/trapd.rs"]
mod trapd;

use harness::{Node, Setup as NodeSetup, scratch, wait_until};
use serde_json::{Value, json};
use trapd::{Logged, Setup, Trapd};

const ROOT: &str = "1.3.6.1.4.1.8072.9999.9999.7780";
const HERE: &str = "80001f8804aaaaaa";
const ELSEWHERE: &str = "80001f8804bbbbbb";
const USER: &str = "[snmp.users.noc]\nauth = \"sha256\"\nauth_password = \"auth-password\"\nprivacy = \"aes256\"\nprivacy_password = \"priv-password\"\n";
const TRAP_ADDRESS: &str = "1.3.6.1.6.3.18.1.3.0";

/// A snmptrapd that knows the user.
fn trapd(dir: &std::path::Path, name: &str, engine_id: &str) -> Setup {
    Setup::new(&dir.join(name), engine_id)
        .line("createUser noc SHA-256 auth-password AES-256 priv-password")
        .line("authUser log noc priv")
}

fn receiver(name: &str, trapd: &Trapd, keys: &str) -> String {
    format!(
        "[receivers.{name}]\nfold_after = \"0s\"\nlog_events = true\n[receivers.{name}.snmp]\naddress = \"{}\"\n{keys}\n",
        trapd.target()
    )
}

fn raise(resource: &str, severity: &str, text: &str) -> Value {
    json!({"resource": resource, "alarm_type": "disk.full", "severity": severity, "text": text})
}

fn clear(resource: &str) -> Value {
    json!({"resource": resource, "alarm_type": "disk.full", "severity": "cleared", "text": "Enough again"})
}

fn alarm(node: &Node, resource: &str) -> Value {
    let alarms = node.json("/alarms?cleared=any&limit=1000");
    let found = alarms["alarms"].as_array().expect("a list").iter().find(|alarm| alarm["resource"] == resource);
    found.unwrap_or_else(|| panic!("no alarm of {resource} in {alarms}")).clone()
}

/// The row of an alarm: 31 bits of its id.
fn row(alarm: &Value) -> u32 {
    let id = alarm["id"].as_str().expect("a text");
    (u32::from_str_radix(&id[..8], 16).expect("hexadecimal") & 0x7fff_ffff).max(1)
}

fn column(number: u32, row: u32) -> String {
    format!("{ROOT}.1.4.1.{number}.{row}")
}

fn delivery(number: u32) -> String {
    format!("{ROOT}.1.7.{number}.0")
}

/// DateAndTime of a time of the API, which is in UTC.
fn octets(time: &Value) -> Vec<u8> {
    let text = time.as_str().expect("a time");
    let numbers: Vec<u16> = text
        .split(['-', 'T', ':', '.', 'Z'])
        .map(|part| part.get(..4.min(part.len())).unwrap_or(""))
        .map(|part| part.parse().unwrap_or(0))
        .collect();
    let tenth = text.split_once('.').map_or(0, |(_, rest)| rest.as_bytes()[0] - b'0');
    let mut octets = numbers[0].to_be_bytes().to_vec();
    octets.extend(numbers[1..6].iter().map(|number| *number as u8));
    octets.extend([tenth, b'+', 0, 0]);
    octets
}

#[test]
fn each_profile_says_what_its_mib_has() {
    if !trapd::is_there() {
        return;
    }
    let scratch = scratch("notify-snmp-");
    let dir = scratch.path();
    let [klaxon, rfc3877, specified, starlingx] =
        ["klaxon", "rfc3877", "specified", "starlingx"].map(|name| trapd(dir, name, HERE).start());
    let config = [
        USER.to_owned(),
        receiver("klaxon", &klaxon, "user = \"noc\""),
        receiver("rfc3877", &rfc3877, "profile = \"rfc3877\""),
        receiver("specified", &specified, "profile = \"wrs\"\nwrs = { region = \"North\", system = \"depot\" }"),
        receiver("starlingx", &starlingx, "confirm = false\nwrs = { form = \"as-starlingx\" }"),
    ];
    let node = NodeSetup::new(&dir.join("data")).config(&config.concat()).start();
    let resource = "device=10.7.0.3.filesystem=/var";
    let mut event = raise(resource, "major", "Fast voll: 81 %\nüber der Grenze");
    event["qualifier"] = "q1".into();
    event["repair_action"] = "Aufräumen".into();
    event["service_affecting"] = true.into();
    event["event_time"] = "2026-11-22T08:27:46.5Z".into();
    node.send(&event);
    wait_until("it is raised", || !klaxon.logged().is_empty());
    let shown = alarm(&node, resource);
    let row = row(&shown);
    event["severity"] = "critical".into();
    node.send(&event);
    let mut over = clear(resource);
    over["qualifier"] = "q1".into();
    node.send(&over);
    node.send(&json!({"resource": "host=h1", "alarm_type": "note", "kind": "log", "severity": "warning", "text": "Reboot"}));

    let told = klaxon.wait_for(4);
    let kinds: Vec<&str> = told.iter().map(Logged::trap_oid).collect();
    assert_eq!(kinds, [1, 2, 3, 6].map(|kind| format!("{ROOT}.0.{kind}")));
    for (number, one) in (1..).zip(&told) {
        assert!(one.how.starts_with("INFORM") && one.how.contains("noc"), "{}", one.how);
        assert_eq!((one.number(&delivery(3)), one.text(&delivery(1))), (number, "klaxon".to_owned()));
        assert_eq!((one.number(&delivery(2)), one.number(&delivery(4))), (told[0].number(&delivery(2)), 2));
        assert_eq!(one.varbinds[0].0, "1.3.6.1.2.1.1.3.0");
    }
    let first = &told[0];
    assert_eq!(first.text(&column(2, row)), shown["id"].as_str().expect("a text"));
    assert_eq!((first.text(&column(3, row)), first.text(&column(4, row))), ("local".to_owned(), resource.to_owned()));
    assert_eq!((first.text(&column(5, row)), first.text(&column(6, row))), ("disk.full".to_owned(), "q1".to_owned()));
    assert_eq!((first.number(&column(7, row)), first.number(&column(8, row))), (4, 4), "major, processing error");
    assert_eq!(first.text(&column(9, row)), "storage-capacity-problem");
    assert_eq!(first.text(&column(11, row)), "Fast voll: 81 %\nüber der Grenze");
    assert_eq!((first.text(&column(12, row)), first.number(&column(14, row))), ("Aufräumen".to_owned(), 1));
    assert_eq!(first.octets(&column(16, row)), octets(&shown["raised_at"]));
    assert_eq!(first.octets(&column(18, row)), [7, 234, 11, 22, 8, 27, 46, 5, b'+', 0, 0]);
    assert_eq!((first.octets(&column(19, row)), first.number(&column(36, row))), (&[][..], 1));
    assert_eq!((first.number(&column(21, row)), first.number(&column(28, row))), (2, 2), "neither acknowledged nor shelved");
    assert_eq!(first.get(TRAP_ADDRESS), &trapd::Value::Other("IpAddress".to_owned(), "10.7.0.3".to_owned()));
    assert_eq!(told[1].number(&column(7, row)), 3, "critical");
    assert_eq!(told[2].octets(&column(19, row)).len(), 11, "it is cleared");
    assert_eq!((told[3].text(&column(11, 0)), told[3].text(&column(4, 0))), ("Reboot".to_owned(), "host=h1".to_owned()));
    assert_eq!(told[3].get(TRAP_ADDRESS), &trapd::Value::Other("IpAddress".to_owned(), "127.0.0.1".to_owned()));

    let told = rfc3877.wait_for(3);
    let kinds: Vec<&str> = told.iter().map(Logged::trap_oid).collect();
    assert_eq!(kinds, ["1.3.6.1.2.1.118.0.2", "1.3.6.1.2.1.118.0.2", "1.3.6.1.2.1.118.0.3"]);
    let states: Vec<&str> = told.iter().map(|one| one.oid(&one.varbinds[2].0).rsplit('.').next().expect("has arcs")).collect();
    assert_eq!(states, ["5", "6", "1"], "major, critical, clear");
    for one in &told {
        assert!(one.varbinds[2].0.starts_with("1.3.6.1.2.1.118.1.2.2.1.13.") && one.varbinds[2].0 == told[0].varbinds[2].0);
        assert_eq!(one.oid(&one.varbinds[3].0), column(4, row), "the resource");
        assert_eq!(one.text(&column(2, row)), shown["id"].as_str().expect("a text"));
    }

    let told = specified.wait_for(4);
    let entry = "1.3.6.1.4.1.731.1.1.1.1.1.1";
    let kinds: Vec<&str> = told.iter().map(|one| one.trap_oid().rsplit('.').next().expect("has arcs")).collect();
    assert_eq!(kinds, ["2", "1", "9", "5"]);
    let names = |one: &Logged| one.varbinds[2..].iter().map(|(oid, _)| oid.clone()).collect::<Vec<_>>();
    let mut expected: Vec<String> = (3..=12).map(|column| format!("{entry}.{column}.{row}")).collect();
    expected.push(TRAP_ADDRESS.to_owned());
    assert_eq!(names(&told[0]), expected);
    assert_eq!(told[0].text(&format!("{entry}.3.{row}")), "100.104");
    assert_eq!(told[0].text(&format!("{entry}.4.{row}")), format!("region=North.system=depot.{resource}.qualifier=q1"));
    assert_eq!(told[0].octets(&format!("{entry}.5.{row}")), octets(&shown["raised_at"]));
    let numbers = [6, 8, 9, 11, 12].map(|column| told[0].number(&format!("{entry}.{column}.{row}")));
    assert_eq!(numbers, [3, 3, 48, 1, 1], "severity, event type, probable cause, service affecting, suppression allowed");
    assert_eq!(names(&told[2])[..4], [3, 4, 5, 7].map(|column| format!("{entry}.{column}.{row}")));

    let told = starlingx.wait_for(4);
    let expected: Vec<String> = (2..=12).map(|column| format!("{entry}.{column}.0")).collect();
    assert_eq!(names(&told[0]), expected, "as StarlingX sends them");
    assert!(told[0].how.starts_with("TRAP2"), "{}", told[0].how);
    assert_eq!(told[0].text(&format!("{entry}.2.0")), shown["id"].as_str().expect("a text"));
    assert!(told[0].text(&format!("{entry}.4.0")).starts_with("region=RegionOne.system=local.device="));
    let time = told[0].text(&format!("{entry}.5.0"));
    assert!(time.ends_with(",+0:0") && time.starts_with("2") && time.matches(',').count() == 2, "{time}");
    assert_eq!(told[3].number(&format!("{entry}.9.0")), 0, "a message has no probable cause");
}

/// RFC 8632's example of notify-severity-level, to a receiver that knows active and clear only: it is never left with an alarm
/// that is gone.
#[test]
fn a_severity_filter_leaves_nobody_with_an_alarm_that_is_gone() {
    if !trapd::is_there() {
        return;
    }
    let scratch = scratch("notify-snmp-");
    let noc = trapd(scratch.path(), "noc", HERE).start();
    let config = receiver("noc", &noc, "profile = \"rfc3877\"") + "[receivers.noc.filter]\nseverity_min = \"major\"\n";
    let node = NodeSetup::new(&scratch.path().join("data")).config(&config).start();
    for severity in ["major", "minor", "warning", "minor", "major", "critical", "major"] {
        node.send(&raise("host=a", severity, severity));
    }
    node.send(&clear("host=a"));
    node.send(&raise("host=b", "major", "set aside"));
    wait_until("both are told", || noc.logged().len() == 7);
    let id = alarm(&node, "host=b")["id"].as_str().expect("a text").to_owned();
    node.cli_ok(&["alarms", "shelve", &id, "--for", "1h", "--reason", "known"]);
    let told = noc.wait_for(8);
    let states: Vec<(&str, &str)> =
        told.iter().map(|one| (one.trap_oid(), one.oid(&one.varbinds[2].0).rsplit('.').next().expect("has arcs"))).collect();
    let (active, over) = ("1.3.6.1.2.1.118.0.2", "1.3.6.1.2.1.118.0.3");
    assert_eq!(
        states,
        [(active, "5"), (active, "4"), (active, "5"), (active, "6"), (active, "5"), (over, "1"), (active, "5"), (over, "1")]
    );
}

#[test]
fn who_was_away_and_came_back_as_another_misses_nothing() {
    if !trapd::is_there() {
        return;
    }
    let scratch = scratch("notify-snmp-");
    let first = trapd(scratch.path(), "first", HERE).start();
    let config = USER.to_owned() + &receiver("noc", &first, "user = \"noc\"\ntimeout = \"500ms\"\nretries = 1");
    let node = NodeSetup::new(&scratch.path().join("data")).config(&config).start();
    node.send(&raise("host=h0", "major", "before"));
    assert_eq!(first.wait_for(1).len(), 1);
    let port = first.kill().port;
    let (alarms, rounds) = (20, 10);
    for round in 0..rounds {
        for number in 0..alarms {
            let resource = format!("host=h{number}");
            node.send(&if round % 2 == 0 { clear(&resource) } else { raise(&resource, "minor", &format!("round {round}")) });
        }
    }
    let second = Setup { port, ..trapd(scratch.path(), "second", ELSEWHERE) }.start();
    // All of the first round but one clear what was not there.
    let count = alarms * (rounds - 1) + 1;
    let told = second.wait_for(count);
    let mut numbers: Vec<u64> = told.iter().map(|one| one.number(&delivery(3))).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (2..=count as u64 + 1).collect::<Vec<u64>>());
    for number in 0..alarms {
        let row = row(&alarm(&node, &format!("host=h{number}")));
        let mut of_one: Vec<&Logged> = told.iter().filter(|one| one.has(&column(2, row))).collect();
        // The same number twice is the same notification twice: its answer was lost.
        of_one.dedup_by_key(|one| one.number(&delivery(3)));
        let steps: Vec<u64> = of_one.iter().map(|one| one.number(&column(43, row))).collect();
        assert!(steps.is_sorted() && steps.len() >= rounds - 1, "{number}: {steps:?}");
    }
}

#[test]
fn what_is_too_long_is_cut_and_not_broken_up() {
    if !trapd::is_there() {
        return;
    }
    let scratch = scratch("notify-snmp-");
    let [wide, narrow] = ["wide", "narrow"].map(|name| trapd(scratch.path(), name, HERE).start());
    let config = receiver("wide", &wide, "") + &receiver("narrow", &narrow, "datagram_bytes_max = 1000");
    let node = NodeSetup::new(&scratch.path().join("data")).config(&config).start();
    let long = "Grünspan € ".repeat(280);
    let mut event = raise("host=a", "major", &long);
    event["repair_action"] = long.clone().into();
    node.send(&event);
    let lengths = [&wide, &narrow].map(|trapd| {
        let told = trapd.wait_for(1).remove(0);
        let row = row(&alarm(&node, "host=a"));
        let (text, repair) = (told.text(&column(11, row)), told.text(&column(12, row)));
        assert!(text.ends_with('…') && repair.ends_with('…') && long.starts_with(text.trim_end_matches('…')), "{text}");
        assert_eq!(told.text(&column(4, row)), "host=a");
        text.len() + repair.len()
    });
    assert!(lengths[0] > lengths[1] + 400 && lengths[0] < 1100, "{lengths:?}");
}

/// What comes with neither an alarm nor a log event: a word that all is well, the sum of what was missed, and a hole.
#[test]
fn heartbeats_digests_and_gaps_arrive_with_what_they_say() {
    if !trapd::is_there() {
        return;
    }
    let scratch = scratch("notify-snmp-");
    let noc = trapd(scratch.path(), "noc", HERE).start();
    let config = format!(
        "{USER}[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n[receivers.noc]\nfold_after = \"1s\"\nheartbeat = \"1s\"\n\
         [receivers.noc.snmp]\naddress = \"{}\"\nuser = \"noc\"\ntimeout = \"300ms\"\nretries = 0\n",
        noc.target()
    );
    let node = NodeSetup::new(&scratch.path().join("data")).config(&config).start();
    node.send(&raise("host=stays", "major", "before"));
    let kind = |number: u32| format!("{ROOT}.0.{number}");
    let of = |trapd: &Trapd, number: u32| trapd.logged().into_iter().find(|one| one.trap_oid() == kind(number));
    wait_until("a heartbeat tells of the first number", || {
        noc.logged().iter().any(|one| one.trap_oid() == kind(9) && one.number(&delivery(24)) == 1)
    });
    let beat = of(&noc, 9).expect("came");
    let epoch = noc.logged()[0].number(&delivery(2));
    assert_eq!((beat.text(&delivery(1)), beat.number(&delivery(2)), beat.has(&delivery(3))), ("noc".to_owned(), epoch, false));

    // Away for longer than is told one by one.
    let setup = noc.kill();
    let shown = || node.json("/receivers/noc");
    wait_until("it is missed", || shown()["state"] == "retrying");
    let sent = || shown()["counters"]["sent"].as_u64().expect("is counted");
    let before = sent();
    node.send(&json!([raise("host=first", "minor", "the first that it misses")]));
    // Before three have failed, of which two may still be on their way, what comes is told one by one.
    wait_until("it is away", || sent() >= before + 4);
    for severity in ["critical", "warning"] {
        node.send(&json!([raise(&format!("host={severity}"), severity, "came and went"), clear(&format!("host={severity}"))]));
    }
    wait_until("the backlog is old", || shown()["lag_s"].as_u64() >= Some(3));
    let noc = setup.start();
    wait_until("the digest comes", || of(&noc, 7).is_some());
    let digest = of(&noc, 7).expect("came");
    assert_eq!(digest.text(&delivery(1)), "noc");
    assert_eq!(digest.number(&delivery(12)), 2, "two came and went: {digest:#?}");
    let by_severity = [13, 14, 15, 16, 17].map(|object| digest.number(&delivery(object)));
    assert_eq!(by_severity, [1, 0, 0, 1, 0], "a critical one and a warning");
    assert!(digest.number(&delivery(11)) >= 4 && digest.octets(&delivery(18)).len() == 11, "{digest:#?}");
    let named = digest.text(&delivery(20));
    assert!(named.contains("critical disk.full local host=critical Enough again"), "{named}");

    // Away for longer than the journal is kept.
    let setup = noc.kill();
    let position = node.json("/history?limit=1")["changes"][0]["position"].as_u64().expect("has a place");
    let first_kept = || {
        let metrics = node.get("//metrics").expect("it answers").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("klaxon_journal_first_position "));
        line.and_then(|value| value.parse::<u64>().ok()).expect("a number")
    };
    let text = "x".repeat(500);
    wait_until("history is dropped that it was not told", || {
        let both = |number: u32| [raise(&format!("host=x{number}"), "minor", &text), clear(&format!("host=x{number}"))];
        node.send(&(0..100).flat_map(both).collect::<Vec<_>>().into());
        // The last 8192 changes are in memory, whatever the disk has.
        first_kept() > position + 1000 && shown()["lag_changes"].as_u64() > Some(10_000)
    });
    let noc = setup.start();
    wait_until("the gap comes", || of(&noc, 8).is_some());
    let gap = of(&noc, 8).expect("came");
    let [first, last, changes] = [21, 22, 23].map(|object| gap.number(&delivery(object)));
    assert!(first > position && last > first + 100 && changes > 100, "{first} {last} {changes}");
    let numbers: Vec<u64> =
        noc.logged().iter().filter(|one| one.has(&delivery(3))).map(|one| one.number(&delivery(3))).collect();
    assert!((1..=*numbers.iter().max().expect("some")).all(|number| numbers.contains(&number)), "{numbers:?}");
}

/// klaxonReceiverResendFrom, by net-snmp's snmpset, as a user who may write.
#[test]
fn a_manager_has_itself_told_again() {
    if !trapd::is_there() {
        return;
    }
    let scratch = scratch("notify-snmp-");
    let noc = trapd(scratch.path(), "noc", HERE).start();
    let config = USER.to_owned() + "[snmp.agent.users.noc]\naccess = \"write\"\n" + &receiver("noc", &noc, "user = \"noc\"");
    let node = NodeSetup::new(&scratch.path().join("data")).config(&config).start();
    for number in 1..=5 {
        node.send(&raise(&format!("host=h{number}"), "major", "once"));
    }
    noc.wait_for(5);
    wait_until("all is confirmed", || node.json("/receivers/noc")["confirmed"] == 5);
    let ask = |program: &str, level: &str, rest: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(["-m", "", "-M", "", "-On", "-Oq", "-r", "2", "-t", "10", "-v", "3", "-u", "noc", "-a", "SHA-256"]);
        command.args(["-A", "auth-password", "-x", "AES-256", "-X", "priv-password", "-l", level]);
        command.env("SNMPCONFPATH", "/nonexistent").env("SNMP_PERSISTENT_DIR", scratch.path());
        command.arg(node.snmp.expect("it answers").to_string()).args(rest).output().expect("it runs")
    };
    let receivers = |column: u32| format!("{ROOT}.1.6.1.{column}");
    let mut index = String::new();
    wait_until("the table has the receiver and its numbers", || {
        let walked = String::from_utf8_lossy(&ask("snmpwalk", "authPriv", &[&receivers(10)]).stdout).into_owned();
        let row = walked.lines().find_map(|line| line.strip_prefix(&format!(".{}.", receivers(10)))?.strip_suffix(" 5"));
        index = row.unwrap_or_default().to_owned();
        row.is_some()
    });
    let from = format!("{}.{index}", receivers(12));
    // Whoever comes in the clear may not.
    let refused = ask("snmpset", "authNoPriv", &[&from, "u", "3"]);
    assert!(!refused.status.success(), "{refused:?}");
    let ahead = ask("snmpset", "authPriv", &[&from, "u", "99"]);
    assert!(!ahead.status.success(), "{ahead:?}");
    assert_eq!(noc.logged().len(), 5);
    let taken = ask("snmpset", "authPriv", &[&from, "u", "3"]);
    assert!(taken.status.success(), "{taken:?}");
    let told = noc.wait_for(8);
    let again: std::collections::BTreeSet<(u64, u64)> =
        told[5..].iter().map(|one| (one.number(&delivery(3)), one.number(&delivery(4)))).collect();
    assert_eq!(again, (3..=5).map(|number| (number, 1)).collect(), "under their numbers, and marked");
    assert!(told[5..].iter().all(|one| one.text(&column(11, one_row(one))) == "once"), "{told:#?}");
}

/// The row of the alarm that is told of.
fn one_row(told: &Logged) -> u32 {
    let prefix = column(11, 0);
    let prefix = prefix.trim_end_matches('0');
    let row = told.varbinds.iter().find_map(|(oid, _)| oid.strip_prefix(prefix)?.parse().ok());
    row.expect("is about an alarm")
}

#[test]
fn a_secret_in_a_file_is_said_to_have_changed() {
    let scratch = scratch("notify-snmp-");
    let community = scratch.path().join("community");
    std::fs::write(&community, "one\n").expect("can be written");
    let config = |secret: &str| {
        format!(
            "[receivers.noc.snmp]\naddress = \"127.0.0.1:9\"\ncommunity_file = \"{}\"\n[receivers.chat.webhook]\n\
             url = \"http://127.0.0.1:9/\"\nsecret = \"{secret}\"\n",
            community.display()
        )
    };
    let node = NodeSetup::new(&scratch.path().join("data")).config(&config("one")).start();
    let reload = |lines: &str, says: &str| {
        let before = node.log_text().len();
        harness::write_config(&node.data.with_extension("toml"), lines);
        node.signal(rustix::process::Signal::HUP);
        wait_until(says, || node.log_text()[before..].contains(says));
    };
    reload(&config("one"), "the settings are as they were");
    std::fs::write(&community, "two\n").expect("can be written");
    reload(&config("one"), "a secret or file of receivers.noc");
    reload(&config("two"), "a secret or file of receivers.chat");
    reload(&config("two"), "the settings are as they were");
}
