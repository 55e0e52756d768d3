//! The tables as managers meet them: net-snmp walks a node while it changes, reads it by the names of the MIB, and acknowledges.

#![expect(clippy::print_stdout, reason = "a test that is left out says so")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Node, Setup, Site, klaxon, scratch, wait_until};
use serde_json::{Value, json};

const ROOT: &str = "1.3.6.1.4.1.8072.9999.9999.7780";
const PUBLIC: [&str; 4] = ["-v", "2c", "-c", "public"];
const NOC: [&str; 14] =
    ["-v", "3", "-u", "noc", "-l", "authPriv", "-a", "SHA-256", "-A", "authentic", "-x", "AES", "-X", "concealed"];
const CONFIG: &str = "[snmp.users.noc]\nauth = \"sha256\"\nauth_password = \"authentic\"\nprivacy = \"aes128\"\n\
    privacy_password = \"concealed\"\n[snmp.agent.users.noc]\naccess = \"write\"\n[snmp.tables]\nwrs = \"as-specified\"\n";
/// A column of each of the tables of active alarms: klaxonAlarmResource, alarmActiveDescription, wrsAlarmActiveEntityInstanceId.
const COLUMNS: [&str; 3] =
    ["1.3.6.1.4.1.8072.9999.9999.7780.1.4.1.4", "1.3.6.1.2.1.118.1.2.2.1.11", "1.3.6.1.4.1.731.1.1.1.1.1.1.4"];
/// klaxonAlarmAcknowledged, …By and …Note.
const ACKNOWLEDGED: &str = "1.3.6.1.4.1.8072.9999.9999.7780.1.4.1.21";
const ACKNOWLEDGED_BY: &str = "1.3.6.1.4.1.8072.9999.9999.7780.1.4.1.22";
const ACKNOWLEDGED_NOTE: &str = "1.3.6.1.4.1.8072.9999.9999.7780.1.4.1.24";

/// Whether net-snmp is there.
fn can_ask() -> bool {
    if Command::new("snmpbulkwalk").arg("-V").output().is_ok() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs snmpbulkwalk (package snmp)");
    println!("skipped: snmpbulkwalk is not there");
    false
}

/// One of net-snmp's managers, which knows the modules in `mibs` and nothing of this machine.
fn manager(node: &Node, mibs: Option<&Path>, program: &str, options: &[&str], rest: &[&str]) -> Output {
    let mut command = Command::new(program);
    match mibs {
        Some(dir) => command.arg("-M").arg(dir).args(["-m", "KLAXON-ALARM-MIB"]),
        None => command.args(["-m", "", "-M", "", "-On", "-Oe"]),
    };
    command.args(["-r", "2", "-t", "10"]).env("SNMPCONFPATH", "/nonexistent").env("SNMP_PERSISTENT_DIR", &node.data);
    command.args(options).arg(node.snmp.expect("it answers").to_string()).args(rest).output().expect("it runs")
}

fn ask(node: &Node, program: &str, options: &[&str], rest: &[&str]) -> Vec<String> {
    let output = manager(node, None, program, options, rest);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {rest:?}: {errors}\n{}", node.log_text());
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// The rows of a column: index and what stands in it. net-snmp itself ends with an error where a walk goes back.
fn column(node: &Node, column: &str) -> Vec<(String, String)> {
    let lines = ask(node, "snmpbulkwalk", &[&PUBLIC[..], &["-Cr40"]].concat(), &[column]);
    let rows =
        lines.iter().filter_map(|line| line.strip_prefix('.')?.strip_prefix(column)?.strip_prefix('.')?.split_once(" = "));
    rows.map(|(index, value)| (index.to_owned(), value.trim_start_matches("STRING: ").trim_matches('"').to_owned())).collect()
}

fn event(resource: &str, severity: &str) -> Value {
    json!({ "resource": resource, "alarm_type": "disk.full", "severity": severity, "text": "full" })
}

fn start() -> Option<Site> {
    can_ask().then(|| Site::start(CONFIG))
}

/// Waits until the tables have `count` active alarms.
fn wait_rows(node: &Node, count: usize) {
    wait_until("the tables have all alarms", || COLUMNS.iter().all(|name| column(node, name).len() == count));
}

#[test]
fn a_manager_reads_the_tables_by_their_names() {
    let Some(node) = start() else { return };
    node.send(&json!([event("host=web-1", "major"), event("host=web-2", "critical")]));
    wait_rows(&node, 2);
    // net-snmp is given the base modules that the compiler of `tests/mib.rs` carries.
    let mibs = scratch("mibs-");
    let text = klaxon().args(["snmp", "mib"]).output().expect("it runs").stdout;
    let source = mib_rs::source::memory("KLAXON-ALARM-MIB", text.clone());
    let mib = mib_rs::Loader::new().source(source).modules(["KLAXON-ALARM-MIB"]).load().expect("compiles");
    for name in ["SNMPv2-SMI", "SNMPv2-TC", "SNMPv2-CONF"] {
        let module = mib.modules().find(|module| module.name() == name).expect("is imported");
        fs::write(mibs.path().join(name), module.source().expect("is kept").bytes()).expect("can be written");
    }
    fs::write(mibs.path().join("KLAXON-ALARM-MIB"), text).expect("can be written");
    let table = |program: &str, rest: &[&str]| {
        let output = manager(&node, Some(mibs.path()), program, &PUBLIC, rest);
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && errors.is_empty(), "{program} {rest:?}: {said}{errors}");
        said.into_owned()
    };
    let counts = Command::new("snmptable")
        .arg("-M")
        .arg(mibs.path())
        .args(["-m", "KLAXON-ALARM-MIB", "-Ci", "-CH", "-Cf", "|"])
        .args(PUBLIC)
        .env("SNMPCONFPATH", "/nonexistent")
        .env("SNMP_PERSISTENT_DIR", &node.data)
        .args([&node.snmp.expect("it answers").to_string(), "klaxonSeverityTable"])
        .output()
        .expect("it runs");
    let counts = String::from_utf8_lossy(&counts.stdout).into_owned();
    let rows: Vec<&str> = counts.lines().filter(|line| !line.is_empty()).collect();
    assert!(rows.contains(&"critical|1|0|0|0|0|1") && rows.contains(&"major|1|0|0|0|0|1"), "{counts}");
    let walked = table("snmpwalk", &["klaxonAlarmEntry"]);
    assert_eq!(walked.lines().count(), 2 * 43, "{walked}");
    assert!(walked.contains("klaxonAlarmSeverity") && walked.contains("INTEGER: critical(3)"), "{walked}");
    assert!(!walked.contains("Wrong Type"), "{walked}");
    let raised = walked.lines().find(|line| line.contains("klaxonAlarmRaisedAt")).expect("is there");
    assert!(raised.contains(",+0:0"), "in UTC: {raised}");
    assert!(table("snmpwalk", &["klaxonHistoryKind"]).contains("INTEGER: raised(1)"));
}

#[test]
fn an_alarm_is_acknowledged_by_a_manager_and_the_answer_comes_when_it_is() {
    let Some(node) = start() else { return };
    node.send(&json!([event("host=web-1", "major")]));
    wait_rows(&node, 1);
    let index = column(&node, COLUMNS[0])[0].0.clone();
    let at = |column: &str| format!("{column}.{index}");
    let shown = || node.alarms()[0]["acknowledged"].clone();
    let set = |options: &[&str], rest: &[&str]| manager(&node, None, "snmpset", options, rest);

    ask(&node, "snmpset", &NOC, &[&at(ACKNOWLEDGED), "i", "1", &at(ACKNOWLEDGED_NOTE), "s", "gesehen, größer machen"]);
    assert_eq!((&shown()["by"], &shown()["note"]), (&json!("noc"), &json!("gesehen, größer machen")));
    assert_eq!(ask(&node, "snmpget", &PUBLIC, &[&at(ACKNOWLEDGED)]), [format!(".{} = INTEGER: 1", at(ACKNOWLEDGED))]);
    // It is so already.
    ask(&node, "snmpset", &NOC, &[&at(ACKNOWLEDGED), "i", "1"]);
    ask(&node, "snmpset", &NOC, &[&at(ACKNOWLEDGED), "i", "2"]);
    assert_eq!(shown(), Value::Null);
    ask(&node, "snmpset", &NOC, &[&at(ACKNOWLEDGED_BY), "s", "jane", &at(ACKNOWLEDGED), "i", "1"]);
    assert_eq!(shown()["by"], "jane (snmp/noc)", "and who that is for the node");
    assert!(node.log_text().lines().any(|line| line.contains("a manager acknowledges") && line.contains("jane (snmp/noc)")));

    for (options, column, kind, value, reason) in [
        (&NOC[..], ACKNOWLEDGED, "i", "3", "wrongValue"),
        (&NOC, ACKNOWLEDGED, "s", "yes", "wrongType"),
        (&NOC, ACKNOWLEDGED_BY, "s", "", "wrongValue"),
        (&NOC, ACKNOWLEDGED_NOTE, "s", &"x".repeat(1025), "wrongLength"),
        (&NOC, ACKNOWLEDGED_NOTE, "s", "alone", "commitFailed"),
        (&NOC, COLUMNS[0], "s", "host=web-9", "notWritable"),
        (&PUBLIC, ACKNOWLEDGED, "i", "2", "authorizationError"),
    ] {
        let refused = set(options, &[&at(column), kind, value]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(reason), "{column} {kind} {value}: {said}");
    }
    let refused = set(&NOC, &[&format!("{ACKNOWLEDGED}.1"), "i", "1"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("noCreation"), "there is no such row");
    assert_eq!(shown()["by"], "jane (snmp/noc)");
    assert!(node.log_text().contains("what a manager set is refused"));
}

#[test]
fn what_is_acknowledged_already_takes_no_other_name_and_no_other_words() {
    let Some(node) = start() else { return };
    node.send(&json!([event("host=web-1", "major")]));
    wait_rows(&node, 1);
    let index = column(&node, COLUMNS[0])[0].0.clone();
    let at = |column: &str| format!("{column}.{index}");
    let shown = || node.alarms()[0]["acknowledged"].clone();
    let (is, by, note) = (at(ACKNOWLEDGED), at(ACKNOWLEDGED_BY), at(ACKNOWLEDGED_NOTE));
    let jane = [&*is, "i", "1", &by, "s", "jane", &note, "s", "seen"];
    ask(&node, "snmpset", &NOC, &jane);
    let before = shown();
    ask(&node, "snmpset", &NOC, &jane);
    ask(&node, "snmpset", &NOC, &[&is, "i", "1", &note, "s", "seen"]);
    let refused = |rest: &[&str], reason: &str| {
        let refused = manager(&node, None, "snmpset", &NOC, rest);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(reason), "{rest:?}: {said}");
    };
    refused(&[&is, "i", "1", &by, "s", "bob", &note, "s", "x"], "commitFailed");
    refused(&[&is, "i", "1", &note, "s", "x"], "commitFailed");
    refused(&[&is, "i", "1", &by, "s", "bob"], "commitFailed");
    refused(&[&is, "i", "2", &note, "s", "x"], "inconsistentValue");
    refused(&[&note, "s", "x", &is, "i", "2"], "inconsistentValue");
    assert_eq!(shown(), before);
    assert!(node.log_text().contains("by another or with other words"), "{}", node.log_text());
}

#[test]
fn a_request_is_about_one_alarm_or_is_refused_before_anything_is_done() {
    let Some(node) = start() else { return };
    node.send(&json!([event("host=web-1", "major"), event("host=web-2", "major")]));
    wait_rows(&node, 2);
    let at: Vec<String> = column(&node, COLUMNS[0]).iter().map(|(index, _)| format!("{ACKNOWLEDGED}.{index}")).collect();
    let refused = manager(&node, None, "snmpset", &NOC, &[&at[0], "i", "1", &at[1], "i", "1"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("inconsistentValue"), "{said}");
    assert!(node.alarms().iter().all(|alarm| alarm["acknowledged"].is_null()));
    ask(&node, "snmpset", &NOC, &[&at[0], "i", "1"]);
}

#[test]
fn a_walk_during_a_thousand_changes_a_second_has_all_that_stands_once() {
    let Some(node) = start() else { return };
    const STANDING: usize = 3_000;
    let resources: Vec<String> = (0..STANDING).map(|number| format!("host=stands-{number}")).collect();
    for part in resources.chunks(1_000) {
        node.send(&part.iter().map(|resource| event(resource, "major")).collect());
    }
    wait_rows(&node, STANDING);
    let (stop, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let walks = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Every tenth of a second 50 come and the 50 before them go.
            for step in 0_u64.. {
                let next = begun + Duration::from_millis(100 * step);
                while Instant::now() < next && !stop.load(Ordering::Relaxed) {
                    std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let of = |step: u64, severity| (0..50).map(move |n| event(&format!("host=comes-{}", step * 50 + n), severity));
                let gone = step.checked_sub(1).into_iter().flat_map(|before| of(before, "cleared"));
                let events: Vec<Value> = of(step, "minor").chain(gone).collect();
                changes.fetch_add(events.len() as u64, Ordering::Relaxed);
                node.send(&events.into());
            }
        });
        let mut walks = 0;
        while walks < 3 || begun.elapsed() < Duration::from_secs(5) {
            for name in COLUMNS {
                let rows = column(&node, name);
                let texts: BTreeMap<&str, usize> = rows.iter().fold(BTreeMap::new(), |mut texts, (_, text)| {
                    let resource = text.split_once(": ").map_or(text.as_str(), |(resource, _)| resource);
                    // StarlingX's entity begins with the region and the system.
                    let resource = resource.find("host=").map_or(resource, |from| &resource[from..]);
                    *texts.entry(resource).or_default() += 1;
                    texts
                });
                for resource in &resources {
                    assert_eq!(texts.get(resource.as_str()), Some(&1), "{resource} in {name}");
                }
                let indexes: BTreeSet<&str> = rows.iter().map(|(index, _)| index.as_str()).collect();
                assert_eq!(indexes.len(), rows.len(), "nothing twice in {name}");
            }
            walks += 1;
        }
        stop.store(true, Ordering::Relaxed);
        walks
    });
    let changes = changes.load(Ordering::Relaxed);
    println!("{walks} walks of three tables during {changes} changes in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(changes > 1_000, "too few changes: {changes}");
}

#[test]
fn rows_have_their_numbers_also_after_a_crash() {
    if !can_ask() {
        return;
    }
    let scratch = scratch("tables-");
    let setup = Setup::new(&scratch.path().join("data")).config(CONFIG);
    let node = setup.start();
    node.send(&(0..200).map(|number| event(&format!("host=web-{number}"), "major")).collect());
    wait_rows(&node, 200);
    let before: Vec<_> = COLUMNS.map(|name| column(&node, name)).into();
    let history = column(&node, &format!("{ROOT}.1.5.1.4"));
    node.kill();
    let node = setup.start();
    // Nobody has to wait: they are there when the node is.
    assert_eq!(before, COLUMNS.map(|name| column(&node, name)));
    assert_eq!(history, column(&node, &format!("{ROOT}.1.5.1.4")));
    let mut again = before[0].clone();
    again.retain(|(_, resource)| resource == "host=web-7");
    node.send(&json!([event("host=web-7", "cleared")]));
    wait_rows(&node, 199);
    node.send(&json!([event("host=web-7", "critical")]));
    wait_rows(&node, 200);
    let mut now = column(&node, COLUMNS[0]);
    now.retain(|(_, resource)| resource == "host=web-7");
    assert_eq!(now, again, "it is the same alarm");
}

/// What the table of sites says of each, by name: reachable, when it was heard from, lag, and the active alarms by severity.
fn sites(node: &Node) -> BTreeMap<String, [String; 8]> {
    let entry = format!("{ROOT}.1.3.1");
    let cells = |number: u32| -> BTreeMap<String, String> { column(node, &format!("{entry}.{number}")).into_iter().collect() };
    let columns: Vec<_> = (3..=10).map(cells).collect();
    let of = |index: &str| std::array::from_fn(|at| columns[at].get(index).cloned().unwrap_or_default());
    cells(2).into_iter().map(|(index, name)| (name, of(&index))).collect()
}

/// DateAndTime as net-snmp prints it without a MIB, as seconds since 1970; nothing of no octets.
fn seconds(cell: &str) -> Option<i64> {
    if cell.is_empty() {
        return None;
    }
    let octets = cell.trim_start_matches("Hex-STRING: ").split_whitespace();
    let octets: Vec<i64> = octets.map(|octet| i64::from_str_radix(octet, 16).unwrap_or_else(|_| panic!("{cell}"))).collect();
    let [high, low, month, day, hour, minute, second, ..] = octets[..] else { panic!("{cell}") };
    let number = |value: i64| i8::try_from(value).expect("is small");
    let year = i16::try_from(high * 256 + low).expect("is a year");
    let time = jiff::civil::DateTime::new(year, number(month), number(day), number(hour), number(minute), number(second), 0);
    Some(time.expect("is a time").to_zoned(jiff::tz::TimeZone::UTC).expect("is one in UTC").timestamp().as_second())
}

#[test]
fn the_table_of_sites_says_what_the_api_says() {
    if !can_ask() {
        return;
    }
    let scratch = scratch("sites-");
    let start = |name: &str, more: &str| {
        let config = format!("[node]\nsite = \"{name}\"\n{more}");
        Setup::new(&scratch.path().join(name)).config(&config).start()
    };
    let centre = start("noc", "[sites]\nheartbeat = \"1s\"\nsilent_after = \"3s\"\n");
    let join = |name: &str| {
        let token = centre.cli_ok(&["site", "add", name]);
        let below = start(name, "[uplink]\nretry_min = \"20ms\"\nretry_max = \"100ms\"\n");
        below.cli_ok(&["join", &centre.base, "--token", token.trim()]);
        below
    };
    let (up, silent, retired) = (join("tower-1"), join("tower-2"), join("tower-4"));
    centre.cli_ok(&["site", "add", "tower-3"]);
    for (node, alarms) in [
        (&up, &[("host=a", "critical"), ("host=b", "minor"), ("host=c", "minor"), ("host=d", "indeterminate")][..]),
        (&silent, &[("host=a", "warning"), ("host=b", "major")]),
        (&retired, &[("host=a", "critical")]),
        (&centre, &[("host=a", "major")]),
    ] {
        node.send(&alarms.iter().map(|(resource, severity)| event(resource, severity)).collect());
    }
    let shown = || {
        let mut answer = centre.json("/sites");
        let rows = answer["sites"].take();
        rows.as_array()
            .expect("is a list")
            .iter()
            .map(|row| (row["name"].as_str().expect("has one").to_owned(), row.clone()))
            .collect()
    };
    let states = |expected: &[&str]| {
        wait_until(&format!("the sites are {expected:?}"), || {
            let rows: BTreeMap<String, Value> = shown();
            rows.values().map(|row| row["state"].as_str().expect("has one")).collect::<Vec<_>>() == expected
        });
    };
    wait_until("all alarms are mirrored", || centre.json("/alarms/summary")["active"] == 8);
    states(&["connected", "connected", "enrolled", "connected"]);
    silent.kill();
    states(&["connected", "silent", "enrolled", "connected"]);
    centre.cli_ok(&["site", "retire", "tower-4"]);
    states(&["connected", "silent", "enrolled"]);
    let gone = || sites(&centre).keys().cloned().collect::<Vec<_>>() == ["noc", "tower-1", "tower-2", "tower-3"];
    wait_until("its row is gone", gone);
    // What it shows is taken once a second.
    let severities = ["critical", "major", "minor", "warning", "indeterminate"];
    wait_until("the table says what the API says", || {
        let (rows, table): (BTreeMap<String, Value>, _) = (shown(), sites(&centre));
        rows.iter().all(|(name, row)| {
            let cells = &table[name];
            let counts = severities.iter().map(|severity| format!("Gauge32: {}", row["alarms"][severity]));
            let reachable = match row["state"].as_str() {
                Some("connected" | "away") => "INTEGER: 1",
                Some("enrolled") => "INTEGER: 3",
                _ => "INTEGER: 2",
            };
            let heard = row["last_heard_at"].as_str().map(|at| at.parse::<jiff::Timestamp>().expect("is a time").as_second());
            let is_near = match (seconds(&cells[1]), heard) {
                // One that is connected is heard from all the time.
                (Some(cell), Some(heard)) => (heard - cell).abs() <= if row["state"] == "connected" { 3 } else { 0 },
                (cell, heard) => cell == heard,
            };
            cells[0] == reachable && is_near && cells[3..].iter().cloned().eq(counts)
        })
    });
    let table = sites(&centre);
    let lag = |name: &str| table[name][2].trim_start_matches("Gauge32: ").parse::<u64>().expect("is a number");
    assert_eq!((lag("noc"), lag("tower-1"), lag("tower-3")), (0, 0, 0), "{table:?}");
    assert!(lag("tower-2") >= 3, "what is shown of a silent site is as old as that it was heard from: {table:?}");
    assert_eq!(table["noc"][0], "INTEGER: 1");
    assert_eq!(table["noc"][4], "Gauge32: 1", "{table:?}");
    // Over the whole entry a manager walks through without going back.
    let walked = ask(&centre, "snmpbulkwalk", &[&PUBLIC[..], &["-Cr7"]].concat(), &[&format!("{ROOT}.1.3")]);
    assert_eq!(walked.len(), 4 * 9, "{walked:#?}");
}
