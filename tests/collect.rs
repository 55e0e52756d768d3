//! Collectors over the real engine and store: what they find becomes alarms, and what becomes of those when the node or the collector
//! ends, fails, or is turned off.

mod harness;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use harness::{scratch, wait_until};
use klaxon::follow::{Follow, FollowStatus, Parts};
use klaxon_ingest::collect::{CheckConfig, CheckFormat, CollectConfig, Collectors, Host, Spec};
use klaxon_schemas::action::{Action, AlarmVerb, Target, Verb};
use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::names::Site;
use klaxon_schemas::wire::v1::CollectorState;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Item, queue};
use klaxon_store::{Store, StoreConfig};
use serde_json::json;

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node without doors to the outside, but with collectors.
struct Node {
    runtime: tokio::runtime::Runtime,
    door: Door,
    collectors: Option<Collectors>,
    follow: std::thread::JoinHandle<()>,
    // The loop ends when nobody can ask anything of it.
    _control: mpsc::Sender<klaxon::follow::Control>,
}

impl Node {
    fn start(dir: &Path, config: &CollectConfig) -> Self {
        let site: Site = "here".parse().expect("valid");
        let (store, writer, report) = Store::open(StoreConfig::new(dir)).expect("opens");
        let (publisher, intake) = queue();
        let (control, asked) = mpsc::channel();
        let status = Arc::<FollowStatus>::default();
        let parts = Parts { site: site.clone(), store: store.clone(), writer, report, intake, control: asked, status };
        let settings = klaxon_schemas::state::Settings::default();
        let follow = Follow::start(parts, settings, Arc::new(Catalogue::built_in())).expect("starts");
        let follow = std::thread::spawn(move || follow.run().expect("ends well"));
        let door = Door::new("collect".parse().expect("is a word"), publisher, store);
        let collectors = Collectors::new(door.clone(), site, Host::new("a").expect("is a name"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let mut node = Self { runtime, door, collectors: Some(collectors), follow, _control: control };
        node.apply(config);
        node
    }

    fn apply(&mut self, config: &CollectConfig) {
        let collectors = self.collectors.as_mut().expect("not stopped");
        self.runtime.block_on(collectors.apply(config));
    }

    fn stop(self) {
        let Self { runtime, door, collectors, follow, .. } = self;
        runtime.block_on(collectors.expect("not stopped").stop());
        drop((runtime, door));
        follow.join().expect("does not panic");
    }

    fn alarms(&self) -> Vec<Arc<Alarm>> {
        let read = self.door.store().read();
        let mut alarms: Vec<_> = read.alarms().filter(|alarm| alarm.is_active()).cloned().collect();
        alarms.sort_by(|a, b| a.key.cmp(&b.key));
        alarms
    }

    /// What is active: resource, type, severity, and whether it is stale.
    fn active(&self) -> Vec<String> {
        let shown = self.alarms().into_iter().map(|alarm| {
            let stale = if alarm.stale.is_some() { " stale" } else { "" };
            format!("{} {} {}{stale}", alarm.key.resource, alarm.key.alarm_type, alarm.severity)
        });
        shown.collect()
    }

    fn wait_for(&self, what: &str, expected: &[&str]) {
        let begun = Instant::now();
        while self.active() != expected {
            assert!(begun.elapsed() < PATIENCE, "waited too long until {what}: {expected:?}, not {:?}", self.active());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn looks(&self) -> u64 {
        self.collectors.as_ref().expect("not stopped").board().show().iter().map(|collector| collector.looks).sum()
    }

    /// Waits until each collector has looked anew.
    fn look_again(&self) {
        let before = self.looks();
        wait_until("all have looked again", || self.looks() > before + 3);
    }

    fn changes(&self) -> u64 {
        self.door.store().read().cursor().last_seq.0
    }

    /// An operator clears what is not over.
    fn clear(&self, alarm: &Alarm, number: u32) {
        let id = serde_json::from_value(json!(format!("00000000-0000-4000-8000-{number:012}"))).expect("is an id");
        let verb = Verb::OnAlarms(vec![Target { id: alarm.id, raise_seq: None }], AlarmVerb::Clear { note: None });
        let action = Action { id, actor: "ada".parse().expect("is a name"), expires_at: None, verb };
        let items = vec![Item::Action(Arc::new(action))];
        self.runtime.block_on(self.door.publish(items, Tally::default())).expect("is taken");
    }
}

/// A check that prints a file as its findings, and fails without it.
struct Sensor {
    file: PathBuf,
    spec: Spec,
}

impl Sensor {
    fn new(dir: &Path, name: &str) -> Self {
        let (file, program) = (dir.join(name), dir.join(format!("{name}.sh")));
        std::fs::write(&program, format!("#!/bin/sh\nexec cat {}\n", file.display())).expect("a file");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("is ours");
        let mut config = CheckConfig::new(name, vec![program.display().to_string()]).expect("is one");
        (config.format, config.interval) = (CheckFormat::Json, Duration::from_millis(50));
        Self { file, spec: Spec::Check(config) }
    }

    fn set(&self, findings: &serde_json::Value) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, findings.to_string()).expect("a file");
        std::fs::rename(new, &self.file).expect("is ours");
    }
}

fn config(sensors: &[&Sensor]) -> CollectConfig {
    CollectConfig { specs: sensors.iter().map(|sensor| sensor.spec.clone()).collect() }
}

#[test]
fn what_a_check_finds_is_an_alarm_until_it_is_over() {
    let scratch = scratch("collect-");
    let data = scratch.path().join("data");
    let one = Sensor::new(scratch.path(), "one");
    // The second is of a type that has another name in the catalogue, the third of one that never clears.
    let full = json!({"resource": "d=1", "alarm_type": "100.104", "severity": "major", "text": "81 %"});
    let trap = json!({"alarm_type": "snmp.trap", "severity": "minor", "text": "so"});
    one.set(&json!([{"severity": "minor", "text": "so"}, full, trap]));
    let node = Node::start(&data, &config(&[&one]));
    let both = ["d=1 disk.full major", "host=a.check=one check.failed minor"];
    node.wait_for("both are raised", &both);
    node.look_again();
    let changes = node.changes();
    node.look_again();
    assert_eq!(node.changes(), changes, "what holds is told once, whatever it is called");
    node.clear(&node.alarms()[0], 1);
    wait_until("it comes back", || node.changes() >= changes + 2);
    node.wait_for("what an operator cleared too early comes back", &both);
    node.look_again();
    let before = node.alarms();
    node.stop();
    let mut node = Node::start(&data, &config(&[&one]));
    node.look_again();
    assert_eq!(node.alarms(), before, "a restart raises nothing anew");
    one.set(&json!([full]));
    node.wait_for("one is over", &both[..1]);
    one.set(&json!([{"severity": "critical"}]));
    node.wait_for("another begins", &["host=a.check=one check.failed critical"]);
    node.apply(&CollectConfig::default());
    node.wait_for("it is turned off", &[]);
    node.stop();
}

#[test]
fn what_a_check_told_is_stale_while_it_fails_and_the_others_go_on() {
    let scratch = scratch("collect-fails-");
    let (one, two) = (Sensor::new(scratch.path(), "one"), Sensor::new(scratch.path(), "two"));
    one.set(&json!([{"severity": "minor"}]));
    two.set(&json!([]));
    let node = Node::start(&scratch.path().join("data"), &config(&[&one, &two]));
    let raised = "host=a.check=one check.failed minor";
    node.wait_for("it is raised", &[raised]);
    std::fs::remove_file(&one.file).expect("is there");
    let stale = format!("{raised} stale");
    let failed = "host=a.collector=check/one klaxon.collector-failed major";
    node.wait_for("it failed", &[stale.as_str(), failed]);
    let shown = node.collectors.as_ref().expect("not stopped").board().show();
    assert_eq!((shown[0].name.as_str(), shown[0].state), ("check/one", CollectorState::Failed));
    let text = node.alarms()[1].text.to_string();
    assert!(text.contains("cannot run the check one") && text.contains("No such file or directory"), "{text}");
    two.set(&json!([{"severity": "major"}]));
    let other = "host=a.check=two check.failed major";
    node.wait_for("the other goes on", &[stale.as_str(), other, failed]);
    let changes = node.changes();
    node.look_again();
    assert_eq!(node.changes(), changes, "a failure is told once");
    one.set(&json!([{"severity": "minor"}]));
    node.wait_for("it is back", &[raised, other]);
    node.stop();
}
