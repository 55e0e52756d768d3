//! A receiver of informs that was away for hours, or for longer than history is kept, at net-snmp's snmptrapd: what it is told
//! when it is back, checked against what the node accepted.

#![expect(clippy::print_stdout, reason = "a run says its seed and what it measured")]

mod harness;
#[path = "harness/trapd.rs"]
mod trapd;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use harness::{Chance, Node, Setup as NodeSetup, scratch, seeds, wait_until};
use serde_json::{Value, json};
use trapd::{Logged, Setup, Trapd};

const ROOT: &str = "1.3.6.1.4.1.8072.9999.9999.7780";
const ENGINE_ID: &str = "80001f8804cccccc";
const USER: &str = "[snmp.users.noc]\nauth = \"sha256\"\nauth_password = \"auth-password\"\nprivacy = \"aes256\"\nprivacy_password = \"priv-password\"\n";
const SEVERITIES: [&str; 5] = ["indeterminate", "warning", "minor", "major", "critical"];

/// Transitions that are accepted while the receivers are away.
const MISSED: usize = 10_000;
/// The alarms that they are about.
const ALARMS: usize = 300;
/// Transitions in a request.
const BATCH: usize = 250;
/// In how many parts they come; between two the node ends in one way or the other.
const LEGS: usize = 5;
/// The most notifications that have their numbers before it is known that nothing gets through.
const AHEAD: usize = 4 * 32;
/// How much time seems to pass with each.
const LEG_S: usize = 3600;

/// A snmptrapd that knows the user.
fn trapd(dir: &Path) -> Setup {
    Setup::new(&dir.join("noc"), ENGINE_ID)
        .line("createUser noc SHA-256 auth-password AES-256 priv-password")
        .line("authUser log noc priv")
}

fn receiver(name: &str, trapd: &Trapd, keys: &str, snmp: &str) -> String {
    let address = trapd.target();
    format!(
        "[receivers.{name}]\nunreachable_after = \"1d\"\n{keys}\n[receivers.{name}.snmp]\naddress = \"{address}\"\n\
         timeout = \"1s\"\nretries = 1\n{snmp}\n"
    )
}

fn delivery(number: u32) -> String {
    format!("{ROOT}.1.7.{number}.0")
}

/// What a notification does to the list of who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Raised,
    Changed,
    Cleared,
    Left,
    Retired,
    Digest,
    Gap,
}

/// What is checked of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    kind: Kind,
    epoch: u64,
    /// klaxonDeliverySeq.
    number: u64,
    /// When what it tells of happened, as DateAndTime; empty if it is about no change.
    at: Vec<u8>,
    /// The alarm, if it is about one.
    alarm: Option<ToldAlarm>,
    /// Of a digest: the changes in it, and how many alarms came and went. Of a gap: its first position, its last, its changes.
    sums: Vec<u64>,
    how: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ToldAlarm {
    id: String,
    resource: String,
    severity: &'static str,
    raise_seq: u64,
}

fn read(one: &Logged) -> Told {
    let kind = match one.trap_oid().strip_prefix(&format!("{ROOT}.0.")) {
        Some("1") => Kind::Raised,
        Some("2") => Kind::Changed,
        Some("3") => Kind::Cleared,
        Some("4") => Kind::Left,
        Some("5") => Kind::Retired,
        Some("7") => Kind::Digest,
        Some("8") => Kind::Gap,
        _ => panic!("not expected: {one:?}"),
    };
    let is_of_alarm = !matches!(kind, Kind::Digest | Kind::Gap);
    let sums: &[u32] = match kind {
        Kind::Digest => &[11, 12],
        Kind::Gap => &[21, 22, 23],
        _ => &[],
    };
    Told {
        kind,
        epoch: one.number(&delivery(2)),
        number: one.number(&delivery(3)),
        at: if is_of_alarm { one.octets(&delivery(6)).to_vec() } else { Vec::new() },
        alarm: is_of_alarm.then(|| read_alarm(one)),
        sums: sums.iter().map(|object| one.number(&delivery(*object))).collect(),
        how: one.how.clone(),
    }
}

fn read_alarm(one: &Logged) -> ToldAlarm {
    let prefix = format!("{ROOT}.1.4.1.2.");
    let row = one.varbinds.iter().find_map(|(oid, _)| oid.strip_prefix(&prefix)).expect("has the alarm's id");
    let column = |number: u32| format!("{ROOT}.1.4.1.{number}.{row}");
    let severity = match one.number(&column(7)) {
        2 => "indeterminate",
        3 => "critical",
        4 => "major",
        5 => "minor",
        6 => "warning",
        other => panic!("severity {other} in {one:?}"),
    };
    ToldAlarm { id: one.text(&column(2)), resource: one.text(&column(4)), severity, raise_seq: one.number(&column(36)) }
}

/// What each receiver was told, in the order in which it came.
fn told(trapd: &Trapd) -> BTreeMap<String, Vec<Told>> {
    let mut by_receiver: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    for one in trapd.logged() {
        by_receiver.entry(one.text(&delivery(1))).or_default().push(read(&one));
    }
    by_receiver
}

/// What was told, each number once and where it came first. A number never means two things, and none is missing: what comes
/// twice is what was not known to have arrived.
fn once(all: &[Told]) -> Vec<Told> {
    let mut seen: BTreeMap<u64, &Told> = BTreeMap::new();
    let mut first = Vec::new();
    for one in all {
        match seen.insert(one.number, one) {
            None => first.push(one.clone()),
            Some(before) => assert_eq!(before, one, "a number means two things"),
        }
    }
    assert!(all.iter().all(|one| one.epoch == all[0].epoch));
    let numbers: Vec<u64> = seen.into_keys().collect();
    assert_eq!(numbers, (1..=first.len() as u64).collect::<Vec<_>>(), "without a hole");
    let twice = all.len() - first.len();
    println!("{} notifications, {twice} of them twice", first.len());
    assert!(twice <= 2 * AHEAD, "{twice} came twice");
    first
}

/// The list that somebody has who knows the notifications and nothing else: severities by id.
fn standing(told: &[Told]) -> BTreeMap<String, &'static str> {
    let mut stands = BTreeMap::new();
    for one in told {
        let Some(alarm) = &one.alarm else { continue };
        match one.kind {
            Kind::Raised | Kind::Changed => drop(stands.insert(alarm.id.clone(), alarm.severity)),
            _ => drop(stands.remove(&alarm.id)),
        }
    }
    stands
}

/// The same list as the command line prints it.
fn listed(node: &Node) -> BTreeMap<String, &'static str> {
    let list: Value = serde_json::from_str(&node.cli_ok(&["alarms", "--all", "--json"])).expect("is JSON");
    let alarms = list["alarms"].as_array().expect("is a list").iter();
    let severity = |alarm: &Value| SEVERITIES.into_iter().find(|severity| alarm["severity"] == *severity);
    alarms.map(|alarm| (alarm["id"].as_str().expect("a text").to_owned(), severity(alarm).expect("is known"))).collect()
}

/// A transition that the node has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    kind: Kind,
    severity: &'static str,
    raise_seq: u64,
}

/// Who reports: each report changes an alarm, and what follows from it is known.
struct Desk {
    chance: Chance,
    alarms: usize,
    /// By resource.
    accepted: BTreeMap<String, Vec<Step>>,
    count: usize,
}

impl Desk {
    fn new(seed: u64, alarms: usize) -> Self {
        println!("seed {seed}");
        Self { chance: Chance::new(seed), alarms, accepted: BTreeMap::new(), count: 0 }
    }

    /// So many transitions, in batches.
    fn report(&mut self, node: &Node, count: usize) {
        let mut left = count;
        while left > 0 {
            let batch: Vec<Value> = (0..left.min(BATCH)).map(|_| self.next()).collect();
            let answer = node.send(&batch.clone().into());
            assert_eq!(answer["accepted"], batch.len(), "{answer}");
            left -= batch.len();
        }
        self.count += count;
    }

    fn next(&mut self) -> Value {
        let resource = format!("rack={}.slot={}", self.chance.below(10), self.chance.below(self.alarms as u64 / 10));
        let other = self.chance.below(4) as usize;
        let steps = self.accepted.entry(resource.clone()).or_default();
        let last = steps.last().copied().unwrap_or(Step { kind: Kind::Cleared, severity: SEVERITIES[0], raise_seq: 0 });
        let severity = SEVERITIES.into_iter().filter(|severity| *severity != last.severity).nth(other).expect("four others");
        let step = match last.kind {
            Kind::Cleared => Step { kind: Kind::Raised, severity, raise_seq: last.raise_seq + 1 },
            _ if self.chance.below(2) == 0 => Step { kind: Kind::Cleared, ..last },
            _ => Step { kind: Kind::Changed, severity, ..last },
        };
        steps.push(step);
        let severity = if step.kind == Kind::Cleared { "cleared" } else { step.severity };
        json!({"resource": resource, "alarm_type": "fan.failed", "severity": severity, "text": "said"})
    }
}

/// How the receivers stand, by name.
fn receivers(node: &Node) -> BTreeMap<String, Value> {
    let mut list = node.json("/receivers");
    let Some(Value::Array(list)) = list.get_mut("receivers").map(Value::take) else { panic!("is a list") };
    list.into_iter().map(|one| (one["name"].as_str().expect("a text").to_owned(), one)).collect()
}

fn has_caught_up(receiver: &Value) -> bool {
    // The numbering is known once it has been loaded.
    receiver["epoch"] != 0
        && receiver["lag_changes"] == 0
        && receiver["assigned"] == receiver["confirmed"]
        && receiver["realigning"] == false
}

fn wait_caught_up(node: &Node, what: &str) -> BTreeMap<String, Value> {
    wait_until(what, || receivers(node).values().all(has_caught_up));
    receivers(node)
}

/// A wall clock that goes forward as it is told to.
struct Clock {
    file: PathBuf,
    ahead_s: usize,
}

impl Clock {
    fn new(dir: &Path) -> Self {
        let clock = Self { file: dir.join("clock"), ahead_s: 0 };
        clock.write();
        clock
    }

    fn pass(&mut self, seconds: usize) {
        self.ahead_s += seconds;
        self.write();
    }

    fn write(&self) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, self.ahead_s.to_string()).expect("can be written");
        std::fs::rename(&new, &self.file).expect("can be renamed");
    }
}

/// DateAndTime in UTC as a time.
fn time(octets: &[u8]) -> jiff::Timestamp {
    let [high, low, rest @ ..] = octets else { panic!("{octets:?} is no time") };
    let year = u16::from_be_bytes([*high, *low]);
    let [month, day, hour, minute, second, ..] = rest else { panic!("{octets:?} is no time") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z").parse().expect("is a time")
}

#[test]
fn away_for_hours_it_is_told_all_in_order_or_what_stands() {
    if !trapd::is_there() {
        return;
    }
    for seed in seeds(1, 4) {
        away_for_hours(seed);
    }
}

fn away_for_hours(seed: u64) {
    let scratch = scratch("notify-away-");
    let noc = trapd(scratch.path()).start();
    let mut clock = Clock::new(scratch.path());
    let config = [
        USER.to_owned(),
        receiver("plain", &noc, "fold_after = \"0s\"", ""),
        receiver("secure", &noc, "fold_after = \"0s\"", "user = \"noc\""),
        receiver("folded", &noc, "fold_after = \"30m\"", ""),
    ];
    let setup = NodeSetup::new(&scratch.path().join("data"))
        .config(&config.concat())
        .shim()
        .env("KLAXON_SHIM_CLOCK", &clock.file.to_string_lossy());
    let mut node = setup.start();
    let mut desk = Desk::new(seed, ALARMS);
    desk.report(&node, 200);
    wait_caught_up(&node, "all are told what comes while they are there");

    let away = noc.kill();
    let begun = Instant::now();
    for leg in 0..LEGS {
        if leg > 0 {
            // By turns it dies and is restarted.
            if leg % 2 == 1 {
                node.kill();
            } else {
                assert!(node.stop().success());
            }
            node = setup.start();
        }
        desk.report(&node, MISSED / LEGS);
        wait_until("all are missed", || receivers(&node).values().all(|one| one["state"] == "retrying"));
        clock.pass(LEG_S);
    }
    println!("{MISSED} transitions in {:?}", begun.elapsed());
    wait_until("all of it is to be told, and the oldest is hours old", || {
        let is_long = |one: &Value| one["lag_changes"].as_u64() >= Some(MISSED as u64);
        let is_old = |one: &Value| one["lag_s"].as_u64() >= Some((LEGS * LEG_S) as u64 - 1);
        receivers(&node).values().all(|one| is_old(one) && is_long(one))
    });

    let noc = away.start();
    let (back, written) = (Instant::now(), noc.written_bytes());
    // It dies once more with things on their way: what was confirmed and not yet known to be comes twice.
    wait_until("it is being told", || noc.written_bytes() > written + (2 << 20));
    node.kill();
    let node = setup.start();
    let now = wait_caught_up(&node, "all that was missed is told");
    println!("told in {:?}", back.elapsed());
    let (all, listed) = (told(&noc), listed(&node));
    for name in ["plain", "secure"] {
        let first = once(&all[name]);
        assert_eq!(now[name]["confirmed"], desk.count, "each transition is told");
        assert!(first.iter().all(|one| one.how.contains("noc") == (name == "secure")), "{name}");
        let by_resource = steps(&first);
        assert!(by_resource == desk.accepted, "{name}: {:?}", first_difference(&by_resource, &desk.accepted));
        assert_eq!(standing(&first), listed);
        // The times are those of the transitions.
        let times: BTreeSet<&Vec<u8>> = first.iter().map(|one| &one.at).collect();
        let span = time(times.last().expect("some")).duration_since(time(times.first().expect("some")));
        assert!(span.as_secs() >= ((LEGS - 1) * LEG_S) as i64, "{span:?}");
    }

    // What had its number before it was known to be away is told one by one; then all else in one line, and what stands.
    let first = once(&all["folded"]);
    let digest = first.iter().position(|one| one.kind == Kind::Digest).expect("a digest came");
    assert!(digest <= 200 + AHEAD, "{digest} came before the digest");
    let before = steps(&first[..digest]);
    let folded = Folded::of(&before, &desk.accepted);
    assert_eq!(first[digest].sums, [folded.changes, folded.came_and_went]);
    let mut behind: Vec<(String, Step)> = first[digest + 1..].iter().map(step).collect();
    behind.sort();
    assert_eq!(behind, folded.stands);
    assert!(folded.came_and_went > 1000, "{}", folded.came_and_went);
    assert_eq!(standing(&first), listed);
}

/// The step that was told of a resource.
fn step(one: &Told) -> (String, Step) {
    let alarm = one.alarm.as_ref().unwrap_or_else(|| panic!("is about an alarm: {one:?}"));
    (alarm.resource.clone(), Step { kind: one.kind, severity: alarm.severity, raise_seq: alarm.raise_seq })
}

fn steps(told: &[Told]) -> BTreeMap<String, Vec<Step>> {
    let mut by_resource: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    for (resource, step) in told.iter().map(step) {
        by_resource.entry(resource).or_default().push(step);
    }
    by_resource
}

/// What becomes of a backlog that is folded.
struct Folded {
    changes: u64,
    came_and_went: u64,
    /// What is told behind the digest, by resource.
    stands: Vec<(String, Step)>,
}

impl Folded {
    /// Of what was accepted, if `before` was told.
    fn of(before: &BTreeMap<String, Vec<Step>>, accepted: &BTreeMap<String, Vec<Step>>) -> Self {
        let mut folded = Self { changes: 0, came_and_went: 0, stands: Vec::new() };
        for (resource, all) in accepted {
            let told = before.get(resource).map_or(&[][..], Vec::as_slice);
            let missed = all.strip_prefix(told).unwrap_or_else(|| panic!("{resource}: {told:?} is not how {all:?} begins"));
            folded.changes += missed.len() as u64;
            let ended = missed.iter().filter(|step| step.kind == Kind::Cleared).map(|step| step.raise_seq);
            folded.came_and_went +=
                ended.filter(|seq| missed[0].raise_seq < *seq || missed[0].kind == Kind::Raised).count() as u64;
            let known = told.last().filter(|step| step.kind != Kind::Cleared);
            let Some(last) = missed.last() else { continue };
            let kind = match (known, last.kind) {
                (None, Kind::Cleared) => continue,
                (Some(_), Kind::Cleared) => Kind::Cleared,
                (Some(known), _) if known.raise_seq == last.raise_seq && known.severity == last.severity => continue,
                (Some(known), _) if known.raise_seq == last.raise_seq => Kind::Changed,
                _ => Kind::Raised,
            };
            folded.stands.push((resource.clone(), Step { kind, ..*last }));
        }
        folded
    }
}

/// The first alarm that was told otherwise than it was.
fn first_difference(
    told: &BTreeMap<String, Vec<Step>>,
    accepted: &BTreeMap<String, Vec<Step>>,
) -> (String, Vec<Step>, Vec<Step>) {
    let of = |all: &BTreeMap<String, Vec<Step>>, resource: &String| all.get(resource).cloned().unwrap_or_default();
    let mut resources = told.keys().chain(accepted.keys());
    let found = resources.find(|resource| told.get(*resource) != accepted.get(*resource)).expect("they differ");
    (found.clone(), of(told, found), of(accepted, found))
}

/// The first position that the journal still has.
fn first_kept(node: &Node) -> u64 {
    let metrics = node.get("//metrics").expect("it answers").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("klaxon_journal_first_position "));
    line.and_then(|value| value.parse().ok()).expect("a number")
}

/// An alarm on each of ten resources at once.
fn ten(kind: &str, severity: &str) -> Value {
    let event = |number: u32| json!({"resource": format!("{kind}={number}"), "alarm_type": "psu.failed", "severity": severity});
    (0..10).map(event).collect()
}

#[test]
fn away_past_retention_it_is_told_of_the_gap_and_then_has_the_list() {
    if !trapd::is_there() {
        return;
    }
    let scratch = scratch("notify-away-");
    let noc = trapd(scratch.path()).start();
    let config = [
        USER.to_owned(),
        "[store]\nsegment_bytes = \"1MiB\"\nhistory_max_bytes = \"2MiB\"\n".to_owned(),
        "[engine]\npurge_cleared_after = \"2s\"\n".to_owned(),
        receiver("plain", &noc, "fold_after = \"0s\"", ""),
        receiver("secure", &noc, "fold_after = \"0s\"", "user = \"noc\""),
    ];
    let setup = NodeSetup::new(&scratch.path().join("data")).config(&config.concat());
    let node = setup.start();
    let mut desk = Desk::new(seeds(1, 1)[0], 600);
    desk.report(&node, 500);
    for kind in ["ends", "changes", "returns"] {
        node.send(&ten(kind, "major"));
    }
    wait_caught_up(&node, "all are told what comes while they are there");
    let position = node.json("/history?limit=1")["changes"][0]["position"].as_u64().expect("has a place");
    let seen: BTreeSet<String> = listed(&node).into_keys().collect();

    // The first that it misses has its numbers. What these stand for, and the end of others, is forgotten when it is back.
    let away = noc.kill();
    let are_missed = || receivers(&node).values().all(|one| one["state"] == "retrying" && one["assigned"] == 600);
    node.send(&ten("returns", "minor"));
    node.send(&ten("anew", "major"));
    desk.report(&node, 50);
    wait_until("it is missed", are_missed);
    node.send(&ten("returns", "critical"));
    node.send(&ten("changes", "critical"));
    for kind in ["ends", "anew"] {
        node.send(&ten(kind, "cleared"));
    }
    let is_over = |alarm: &Value| alarm["resource"] == "ends=0" || alarm["resource"] == "anew=0";
    wait_until("what is over is forgotten", || !node.alarms().iter().any(is_over));
    wait_until("history is dropped that it was not told", || {
        desk.report(&node, 1000);
        first_kept(&node) > position + 5000
    });
    node.kill();
    let node = setup.start();
    wait_until("it is missed anew", || receivers(&node).values().all(|one| one["state"] == "retrying"));
    // As it had its number, but what is told under that is how it stood at the start.
    node.send(&ten("returns", "minor"));
    node.send(&ten("anew", "major"));

    let noc = away.start();
    wait_caught_up(&node, "the list is told");
    let (all, listed) = (told(&noc), listed(&node));
    for name in ["plain", "secure"] {
        let first = once(&all[name]);
        // What had its number and is forgotten may be a gap of its own.
        let is_gap = |one: &Told| one.kind == Kind::Gap && one.sums[2] != 1;
        let gap = first.iter().position(is_gap).expect("a gap came");
        let behind = &first[gap + 1..];
        assert_eq!(gap, 600, "the gap is behind what had its number");
        let [from, to, changes] = first[gap].sums[..] else { panic!("has three") };
        assert!(position < from && to > from + 5000 && changes > 5000, "{position} {from} {to} {changes}");
        // Behind it each alarm once, as it stands.
        let ids: BTreeSet<&String> = behind.iter().filter_map(|one| Some(&one.alarm.as_ref()?.id)).collect();
        assert_eq!(ids.len(), behind.len(), "no second gap, and nothing twice");
        let of = |kind: Kind| behind.iter().filter(move |one| one.kind == kind).filter_map(|one| one.alarm.as_ref());
        println!("{:?}", [Kind::Raised, Kind::Changed, Kind::Cleared, Kind::Retired].map(|kind| of(kind).count()));
        let ended = of(Kind::Retired).filter(|alarm| alarm.resource.starts_with("ends="));
        assert_eq!(ended.count(), 10, "what is forgotten is over");
        assert!(of(Kind::Raised).any(|alarm| !seen.contains(&alarm.id)), "what it never heard of");
        assert!(of(Kind::Changed).count() > 0, "what stands otherwise");
        assert!(standing(&first) == listed, "{name}: {:#?}", wrong(&standing(&first), &listed));
    }
}

/// Where two lists differ.
fn wrong<'a>(
    one: &'a BTreeMap<String, &'static str>,
    other: &'a BTreeMap<String, &'static str>,
) -> BTreeMap<&'a String, [Option<&'a &'static str>; 2]> {
    let ids: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    ids.into_iter().map(|id| (id, [one.get(id), other.get(id)])).filter(|(_, [one, other])| one != other).collect()
}
