//! The life of collectors over a real store, behind which stands the simplest of loops: raises raise, clears clear, and a promise to
//! report again is broken at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use klaxon_schemas::alarm::{Alarm, ChangeNumber, Clearance, ClearedBy, EngineMarks, Stale};
use klaxon_schemas::change::{Change, ChangeKind, Reason, Subject as Changed};
use klaxon_schemas::entry::{Entry, EntryKind};
use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::ids::{AlarmId, Position, Seq};
use klaxon_schemas::names::Site;
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::state::Cursor;
use klaxon_schemas::time::{JournalTime, Timestamp};
use klaxon_schemas::wire::v1::CollectorState;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Answer, Intake, Item, Next, PublishError, Published, queue};
use klaxon_store::{Frame, Results, Store, StoreConfig, Writer};

use super::desk::{self, Desk};
use super::*;

/// What a collector does that a test tells what to do.
#[derive(Debug, Clone, PartialEq)]
enum Act {
    Holds(Look),
    Fails,
    Panics,
    Hangs,
}

/// A collector that does what a test tells it.
#[derive(Debug, Clone)]
pub struct Script {
    pub(super) name: String,
    pub(super) interval: Duration,
    act: Arc<(Mutex<(Act, u64)>, Condvar)>,
    wakes: Arc<Notify>,
}

impl PartialEq for Script {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.interval == other.interval
    }
}

impl Script {
    fn new(name: &str, act: Act) -> Self {
        Self {
            name: name.to_owned(),
            interval: Duration::from_millis(10),
            act: Arc::new((Mutex::new((act, 0)), Condvar::new())),
            wakes: Arc::default(),
        }
    }

    pub(super) fn make(&self) -> Box<dyn Collector> {
        Box::new(self.clone())
    }

    fn set(&self, act: Act) {
        self.act.0.lock().expect("nobody panics here").0 = act;
        self.act.1.notify_all();
    }

    fn looks(&self) -> u64 {
        self.act.0.lock().expect("nobody panics here").1
    }
}

impl Collector for Script {
    fn look(&mut self, _: Duration, _: &Told) -> Result<Look, LookError> {
        let mut state = self.act.0.lock().expect("nobody panics here");
        state.1 += 1;
        let state = self.act.1.wait_while(state, |(act, _)| *act == Act::Hangs).expect("nobody panics here");
        let act = state.0.clone();
        drop(state);
        match act {
            Act::Holds(look) => Ok(look),
            Act::Fails => Err(LookError::new("look at the moon", std::io::Error::other("it is behind a cloud"))),
            Act::Panics => panic!("a test says so"),
            Act::Hangs => unreachable!("was waited for"),
        }
    }

    fn wakes(&self) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.wakes))
    }
}

fn resource(text: &str) -> Resource {
    Resource::new(text).expect("is one")
}

fn found(parts: &[(&str, Severity, &str)]) -> Act {
    let findings = parts.iter().map(|(part, severity, text)| Finding::new(Subject::new(resource(part), "t"), *severity, text));
    Act::Holds(Look { findings: findings.collect(), ..Look::default() })
}

/// The simplest of engines.
struct Loop {
    intake: Intake,
    writer: Writer,
    store: Store,
    site: Site,
    alarms: HashMap<AlarmKey, Arc<Alarm>>,
    cursor: Cursor,
    is_full: Arc<AtomicBool>,
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T03:12:00Z").expect("valid")
}

impl Loop {
    fn run(mut self) {
        while let Next::Submission(submission) = self.intake.next(None) {
            if self.is_full.load(Ordering::SeqCst) {
                submission.answer(Err(PublishError::DiskFull { free_bytes: 0, needed_bytes: 1 }));
                continue;
            }
            let first = self.writer.next_position();
            let (mut frame, mut answers, mut all) = (Frame::default(), Vec::new(), Vec::new());
            for (number, item) in submission.items.iter().enumerate() {
                let Item::Event(event) = item else { unreachable!("collectors report only") };
                let position = first.plus(number as u64);
                let changes = self.event(position, event);
                let kind = EntryKind::Event(Arc::clone(event));
                frame.entries.push(Entry { position, at: JournalTime(1), wall: now(), door: submission.door.clone(), kind });
                answers.push(Answer::Accepted { position, changes: changes.clone() });
                all.extend(changes);
            }
            self.cursor.applied = first.plus(submission.items.len() as u64 - 1);
            frame.results = Some(Results { changes: all, cursor: self.cursor.clone(), ..Results::default() });
            self.writer.submit(frame, move |outcome| {
                let durable = outcome.expect("there is room");
                submission.answer(Ok(Published { answers, durable }));
            });
        }
        self.writer.close().expect("closes");
    }

    fn event(&mut self, position: Position, event: &Event) -> Vec<Arc<Change>> {
        let before = self.alarms.get(&event.key).filter(|alarm| alarm.is_active()).cloned();
        let stale = event.lease.is_some().then(|| Stale { since: now() });
        let kind = match (&event.report, &before) {
            (Report::Raise(_), None) => ChangeKind::Raised,
            (Report::Raise(severity), Some(alarm)) if *severity != alarm.severity => ChangeKind::SeverityChanged,
            (Report::Raise(_), Some(_)) if stale.is_some() => ChangeKind::Staled,
            (Report::Raise(_), Some(alarm)) if alarm.stale.is_some() => ChangeKind::Refreshed,
            (Report::Raise(_), Some(alarm)) if alarm.text != event.text => ChangeKind::Updated,
            (Report::Clear, Some(_)) => ChangeKind::Cleared,
            _ => return Vec::new(),
        };
        self.cursor.epoch = self.store.epoch();
        self.cursor.last_seq = self.cursor.last_seq.next();
        let number = ChangeNumber { epoch: self.cursor.epoch, seq: self.cursor.last_seq };
        let mut alarm = before.map_or_else(|| self.alarm(number, event), |alarm| (*alarm).clone());
        match event.report {
            Report::Raise(severity) => alarm.severity = severity,
            _ => alarm.cleared = Some(Clearance { at: now(), by: ClearedBy::Report }),
        }
        (alarm.stale, alarm.text, alarm.last_change) = (stale, event.text.clone(), number);
        alarm.producer = event.origin.producer.clone().or(alarm.producer);
        let alarm = Arc::new(alarm);
        self.alarms.insert(event.key.clone(), Arc::clone(&alarm));
        let subject = Changed::Alarm { alarm, previous_severity: None };
        let reasons = vec![Reason::Entry(position)];
        vec![Arc::new(Change {
            site: self.site.clone(),
            number,
            at: now(),
            past: false,
            kind,
            reasons,
            actor: None,
            from: None,
            note: None,
            subject,
            place: None,
        })]
    }

    fn alarm(&self, number: ChangeNumber, event: &Event) -> Alarm {
        Alarm {
            id: self
                .alarms
                .get(&event.key)
                .map_or_else(|| AlarmId::derive(&self.site, number.epoch, number.seq), |known| known.id),
            key: event.key.clone(),
            owner: None,
            via: None,
            catalogued: false,
            severity: Severity::Indeterminate,
            cleared: None,
            text: event.text.clone(),
            details: event.details.clone(),
            raise_seq: 1,
            first_raised_at: now(),
            raised_at: now(),
            event_time: None,
            changed_at: now(),
            last_change: number,
            count: 1,
            last_reported_at: now(),
            last_event_time: None,
            producer: event.origin.producer.clone(),
            acknowledged: None,
            assigned: None,
            notes: Vec::new(),
            shelved: None,
            stale: None,
            engine: EngineMarks::default(),
        }
    }
}

struct Node {
    door: Door,
    site: Site,
    collectors: Collectors,
    /// Whether nothing can be reported now.
    is_full: Arc<AtomicBool>,
    _dir: tempfile::TempDir,
}

fn node() -> Node {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, writer, _) = Store::open(StoreConfig::new(dir.path())).expect("opens");
    let (publisher, intake) = queue();
    let site: Site = "here".parse().expect("valid");
    let door = Door::new("collect".parse().expect("is a word"), publisher, store.clone());
    let cursor = Cursor { last_seq: Seq(0), ..Cursor::default() };
    let is_full = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&is_full);
    let engine = Loop { intake, writer, store, site: site.clone(), alarms: HashMap::new(), cursor, is_full: full };
    std::thread::spawn(move || engine.run());
    let collectors = collectors(&door, &site);
    Node { door, site, collectors, is_full, _dir: dir }
}

fn collectors(door: &Door, site: &Site) -> Collectors {
    Collectors::new(door.clone(), site.clone(), Host::new("a").expect("is a name")).hanging_after(Duration::from_millis(300))
}

fn config(scripts: &[&Script]) -> CollectConfig {
    CollectConfig { specs: scripts.iter().map(|script| Spec::Scripted((*script).clone())).collect() }
}

impl Node {
    /// What is active: resource, severity, and whether it is stale.
    fn active(&self) -> Vec<(String, Severity, bool)> {
        let read = self.door.store().read();
        let active = read.alarms().filter(|alarm| alarm.is_active());
        let mut active: Vec<_> =
            active.map(|alarm| (alarm.key.resource.to_string(), alarm.severity, alarm.stale.is_some())).collect();
        active.sort();
        active
    }

    async fn wait_for(&self, what: &str, expected: &[(&str, Severity, bool)]) {
        let expected: Vec<_> = expected.iter().map(|(part, severity, stale)| ((*part).to_owned(), *severity, *stale)).collect();
        wait_until(what, || self.active() == expected).await;
    }

    fn state(&self, name: &str) -> (CollectorState, String) {
        let shown = self.collectors.board().show();
        let collector = shown.into_iter().find(|collector| collector.name == name).expect("is shown");
        (collector.state, collector.reason.unwrap_or_default())
    }

    fn changes(&self) -> u64 {
        self.door.store().read().cursor().last_seq.0
    }

    /// What somebody else reports of an alarm.
    async fn report(&self, part: &str, report: Report) {
        let desk = Desk::open(self.door.clone(), self.site.clone(), "someone");
        let mut event = desk.report(
            Subject::new(resource(part), "t"),
            report,
            Finding::new(Subject::new(resource(part), "t"), Severity::Major, "").text,
        );
        event.origin.producer = None;
        self.door.publish(vec![Item::Event(Arc::new(event))], Tally::default()).await.expect("is taken");
    }
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const FAULT: &str = "host=a.collector=one";
use Severity::{Critical, Major, Minor};

#[tokio::test]
async fn what_is_found_is_raised_once_and_what_is_not_found_any_more_is_cleared() {
    let mut node = node();
    let one = Script::new("one", found(&[("x=1", Major, "so 1"), ("x=2", Minor, "so"), ("x=2", Critical, "worse")]));
    node.collectors.apply(&config(&[&one])).await;
    node.wait_for("both are raised, each once", &[("x=1", Major, false), ("x=2", Critical, false)]).await;
    let (changes, looks) = (node.changes(), one.looks());
    one.set(found(&[("x=1", Major, "so 2.5"), ("x=2", Critical, "worse")]));
    wait_until("it has looked again", || one.looks() > looks + 2).await;
    assert_eq!(node.changes(), changes, "other numbers are no news");
    one.set(found(&[("x=1", Major, "otherwise")]));
    node.wait_for("one is over", &[("x=1", Major, false)]).await;
    let text = || node.door.store().read().alarms().find(|alarm| alarm.is_active()).map(|alarm| alarm.text.to_string());
    wait_until("other words are told", || text().as_deref() == Some("otherwise")).await;
    one.set(Act::Holds(Look { unseen: vec![resource("x=1")], ..Look::default() }));
    let looks = one.looks();
    wait_until("it has looked again", || one.looks() > looks + 2).await;
    node.wait_for("what was not seen stays", &[("x=1", Major, false)]).await;
    one.set(Act::Holds(Look::not_applicable("no moon")));
    node.wait_for("all is over", &[]).await;
    assert_eq!(node.state("one"), (CollectorState::NotApplicable, "no moon".to_owned()));
}

#[tokio::test]
async fn one_that_hangs_is_told_its_alarms_are_stale_and_the_others_go_on() {
    let mut node = node();
    let one = Script::new("one", found(&[("x=1", Major, "so")]));
    let two = Script::new("two", found(&[]));
    node.collectors.apply(&config(&[&one, &two])).await;
    node.wait_for("it is raised", &[("x=1", Major, false)]).await;
    one.set(Act::Hangs);
    node.wait_for("it hangs", &[(FAULT, Major, false), ("x=1", Major, true)]).await;
    assert_eq!(node.state("one"), (CollectorState::Failed, "it has not answered for 0.3 s".to_owned()));
    two.set(found(&[("y=1", Minor, "so")]));
    node.wait_for("the other goes on", &[(FAULT, Major, false), ("x=1", Major, true), ("y=1", Minor, false)]).await;
    node.report(FAULT, Report::Clear).await;
    let looks = one.looks();
    node.report("x=3", Report::Raise(Minor)).await;
    assert_eq!(one.looks(), looks, "it never runs twice at once");
    // A clear of another type has no effect on ours.
    one.set(found(&[("x=1", Major, "so")]));
    node.wait_for("it is back", &[("x=1", Major, false), ("x=3", Minor, false), ("y=1", Minor, false)]).await;
    assert_eq!(node.state("one"), (CollectorState::Running, String::new()));
}

#[tokio::test]
async fn one_that_breaks_or_fails_again_and_again_is_told() {
    let mut node = node();
    let one = Script::new("one", Act::Panics);
    node.collectors.apply(&config(&[&one])).await;
    node.wait_for("it broke", &[(FAULT, Major, false)]).await;
    one.set(found(&[("x=1", Major, "so")]));
    node.wait_for("it is back", &[("x=1", Major, false)]).await;
    one.set(Act::Fails);
    node.wait_for("it failed", &[(FAULT, Major, false), ("x=1", Major, true)]).await;
    assert_eq!(node.state("one"), (CollectorState::Failed, "cannot look at the moon: it is behind a cloud".to_owned()));
    one.set(found(&[]));
    node.wait_for("it is back", &[]).await;
}

#[tokio::test]
async fn what_others_clear_comes_back_and_what_others_raised_is_taken_over() {
    let mut node = node();
    let one = Script::new("one", found(&[("x=1", Major, "so")]));
    node.report("x=1", Report::Raise(Major)).await;
    let before = node.changes();
    node.collectors.apply(&config(&[&one])).await;
    wait_until("its words are told", || node.changes() > before).await;
    let changes = node.changes();
    node.report("x=1", Report::Clear).await;
    wait_until("it comes back", || node.changes() >= changes + 2).await;
    node.wait_for("it comes back", &[("x=1", Major, false)]).await;
    one.set(found(&[]));
    node.wait_for("it is over", &[]).await;
}

#[tokio::test]
async fn a_restart_agrees_with_what_is_and_one_that_is_off_is_cleared() {
    let mut node = node();
    let one = Script::new("one", found(&[("x=1", Major, "so"), ("x=2", Major, "so")]));
    let two = Script::new("two", found(&[("y=1", Minor, "so")]));
    node.collectors.apply(&config(&[&one, &two])).await;
    let all = [("x=1", Major, false), ("x=2", Major, false), ("y=1", Minor, false)];
    node.wait_for("all are raised", &all).await;
    let next = collectors(&node.door, &node.site);
    std::mem::replace(&mut node.collectors, next).stop().await;
    node.wait_for("all stand", &all).await;
    let changes = node.changes();
    one.set(found(&[("x=1", Major, "so"), ("x=3", Major, "so")]));
    node.collectors.apply(&config(&[&one])).await;
    node.wait_for("what changed meanwhile is told", &[("x=1", Major, false), ("x=3", Major, false)]).await;
    assert_eq!(node.changes(), changes + 3, "two cleared and one raised, nothing else");
    assert_eq!(desk::names_in(&node.door, &node.site), ["one"]);
    node.collectors.apply(&CollectConfig::default()).await;
    node.wait_for("it is off", &[]).await;
    assert_eq!(node.collectors.board().show(), []);
}

#[tokio::test]
async fn an_alarm_that_somebody_else_raised_alike_is_cleared_when_it_is_over() {
    let mut node = node();
    let one = Script::new("one", found(&[("x=1", Major, "")]));
    node.report("x=1", Report::Raise(Major)).await;
    let changes = node.changes();
    node.collectors.apply(&config(&[&one])).await;
    wait_until("it has looked", || one.looks() > 3).await;
    assert_eq!(node.changes(), changes);
    one.set(found(&[]));
    node.wait_for("it is over", &[]).await;
}

#[tokio::test]
async fn what_cannot_be_reported_is_kept_and_not_looked_for_anew() {
    let mut node = node();
    node.is_full.store(true, Ordering::SeqCst);
    let hour = Duration::from_secs(3600);
    let one = Script { interval: hour, ..Script::new("one", found(&[("x=1", Major, "so")])) };
    node.collectors.apply(&config(&[&one])).await;
    wait_until("it has looked", || node.state("one").0 == CollectorState::Running).await;
    assert_eq!(node.active(), []);
    // A look that is newer takes the place of what waits.
    one.set(found(&[("x=2", Major, "so")]));
    one.wakes.notify_one();
    wait_until("it has looked again", || one.looks() == 2).await;
    node.is_full.store(false, Ordering::SeqCst);
    node.wait_for("it is reported when it can be", &[("x=2", Major, false)]).await;
    assert_eq!(one.looks(), 2);
}

#[tokio::test]
async fn one_that_is_woken_all_the_time_looks_twenty_times_a_second() {
    let mut node = node();
    let one = Script { interval: Duration::from_secs(3600), ..Script::new("one", found(&[])) };
    let begun = Instant::now();
    node.collectors.apply(&config(&[&one])).await;
    wait_until("it has looked often", || {
        one.wakes.notify_one();
        one.looks() > 10
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_check_does_not_outlive_its_collector() {
    let mut node = node();
    let dir = tempfile::tempdir().expect("a folder");
    let pid = dir.path().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600", pid.display());
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let mut check = CheckConfig::new("c", command).expect("is one");
    check.timeout = CHECK_TIMEOUT_MAX;
    let mut patient = Collectors::new(node.door.clone(), node.site.clone(), Host::new("a").expect("is a name"));
    std::mem::swap(&mut patient, &mut node.collectors);
    node.collectors.apply(&CollectConfig { specs: vec![Spec::Check(check)] }).await;
    wait_until("it runs", || pid.exists()).await;
    let pid = std::fs::read_to_string(&pid).expect("was written").trim().to_owned();
    let begun = Instant::now();
    node.collectors.apply(&CollectConfig::default()).await;
    assert!(!std::path::Path::new("/proc").join(pid).exists(), "it was killed and waited for");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_would_open_another_element_is_escaped() {
    let host = Host::new("a").expect("is a name");
    let part = |value: &str| host.part("filesystem", value).to_string();
    assert_eq!(part("/mnt/a b"), "host=a.filesystem=/mnt/a b");
    assert_eq!(part("/mnt/a=b"), "host=a.filesystem=/mnt/a=b");
    assert_eq!(part("/mnt/x.a=b\n"), "host=a.filesystem=/mnt/x.a%3Db%0A");
    let deep = ".a=1".repeat(100);
    assert_eq!(host.part("filesystem", &deep).elements().count(), 2);
    assert_eq!(host.part("filesystem", &"ä".repeat(2000)).as_str().len(), 1024);
}
