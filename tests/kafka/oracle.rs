//! What must be true of the topics, given what was produced: a model that knows nothing of engines and transactions.

use std::collections::BTreeMap;

use klaxon_store::kafka::partition_of;
use serde_json::{Value, json};

use super::tools::{Raw, Topics};
use crate::harness::Chance;

pub(crate) const SEVERITIES: [&str; 3] = ["critical", "major", "minor"];

/// Site and resource.
type Key = (String, String);

/// What is known of one alarm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    severity: Option<&'static str>,
    raises: u64,
    reports: u64,
    /// What changes there have to be, in this order.
    steps: Vec<String>,
}

/// All that was produced.
#[derive(Default)]
pub(crate) struct Model {
    known: BTreeMap<Key, Known>,
    pub(crate) said: u64,
}

impl Model {
    /// The next event: any site, any alarm, any severity.
    pub(crate) fn next(&mut self, dice: &mut Chance) -> Value {
        let site = format!("site-{}", dice.below(24));
        let resource = format!("unit={}", dice.below(6));
        let severity = SEVERITIES.get(dice.below(4) as usize).copied();
        self.take(&site, &resource, severity);
        json!({ "site": site, "resource": resource, "alarm_type": "t", "severity": severity.unwrap_or("cleared") })
    }

    /// What one report does, as RFC 8632 has it.
    pub(crate) fn take(&mut self, site: &str, resource: &str, severity: Option<&'static str>) {
        let known = self.known.entry((site.to_owned(), resource.to_owned())).or_default();
        let step = match (known.severity, severity) {
            (None, None) => None,
            (None, Some(now)) => {
                known.raises += 1;
                known.reports = 1;
                Some(format!("raised {now}"))
            }
            (Some(before), None) => Some(format!("cleared {before}")),
            (Some(before), Some(now)) => {
                known.reports += 1;
                (before != now).then(|| format!("severity-changed {now}"))
            }
        };
        known.steps.extend(step);
        known.severity = severity;
        self.said += 1;
    }

    /// Compares with what a reader of the changes sees from their beginning, and with the state; returns how many alarms there
    /// are. Nothing may be on its way.
    pub(crate) fn compare(&self, topics: &Topics) -> BTreeMap<Key, Value> {
        self.compare_in_epochs(topics, 1)
    }

    /// As [`Model::compare`], where changes may be numbered in so many epochs.
    pub(crate) fn compare_in_epochs(&self, topics: &Topics, epochs: usize) -> BTreeMap<Key, Value> {
        let changes = topics.read("changes");
        each_once(&changes, epochs);
        let mut steps: BTreeMap<Key, Vec<String>> = BTreeMap::new();
        let mut replayed: BTreeMap<Key, Value> = BTreeMap::new();
        for change in changes.iter().filter(|change| is_ours(change)) {
            let (change, alarm) = (value(change), &value(change)["alarm"]);
            let step = format!("{} {}", text(&change["kind"]), text(&alarm["severity"]));
            steps.entry(key(alarm)).or_default().push(step);
            replayed.insert(key(alarm), alarm.clone());
        }
        for (key, known) in &self.known {
            let seen = steps.remove(key).unwrap_or_default();
            assert_eq!(seen, known.steps, "the changes of {key:?}");
        }
        assert!(steps.is_empty(), "changes of what was never said: {steps:?}");

        // The state is what the changes come to, and counts what was said.
        let state = topics.state();
        let mut alarms: BTreeMap<Key, Value> = BTreeMap::new();
        for ((partition, _), alarm) in state.iter().filter(|((_, key), _)| key.starts_with("alarm\u{1f}")) {
            if alarm["alarm_type"] == "t" {
                let key = key(alarm);
                assert_eq!(
                    *partition,
                    i32::from(partition_of(key.0.as_bytes(), u16::try_from(topics.partitions).expect("few")))
                );
                assert!(alarms.insert(key, alarm.clone()).is_none(), "twice: {alarm}");
            }
        }
        assert_eq!(alarms.keys().collect::<Vec<_>>(), replayed.keys().collect::<Vec<_>>());
        for (key, alarm) in &alarms {
            let known = &self.known[key];
            for field in ["id", "severity", "cleared", "raise_seq", "last_change", "acknowledged"] {
                assert_eq!(alarm[field], replayed[key][field], "{field} of {key:?}");
            }
            assert_eq!(alarm["cleared"], known.severity.is_none(), "{alarm}");
            assert_eq!(alarm["raise_seq"], known.raises, "{alarm}");
            assert_eq!(alarm["count"], known.reports, "{alarm}");
        }
        // Each partition's state goes up to where the group is.
        let offsets = topics.offsets();
        let marks = state.iter().filter(|((_, key), _)| key == "mark");
        let marks: BTreeMap<i32, i64> =
            marks.map(|((partition, _), mark)| (*partition, mark["next"].as_i64().expect("a number"))).collect();
        assert_eq!(Some(marks), offsets);
        alarms
    }
}

/// In each partition and epoch changes are numbered from 1 without a gap, and there are at most so many epochs in each.
pub(crate) fn each_once(changes: &[Raw], epochs: usize) {
    let mut last: BTreeMap<(i32, u64), u64> = BTreeMap::new();
    for change in changes {
        let number = |field: &str| value(change)[field].as_u64().expect("a number");
        let before = last.entry((change.partition, number("epoch"))).or_default();
        assert_eq!(number("seq"), *before + 1, "partition {}: {}", change.partition, value(change));
        *before += 1;
    }
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    last.keys().for_each(|(partition, _)| *counts.entry(*partition).or_default() += 1);
    assert!(counts.values().all(|count| *count <= epochs), "{last:?}");
}

fn is_ours(change: &Raw) -> bool {
    value(change)["alarm"]["alarm_type"] == "t"
}

fn value(raw: &Raw) -> &Value {
    raw.value.as_ref().expect("changes have a payload")
}

fn key(alarm: &Value) -> Key {
    (text(&alarm["site"]).to_owned(), text(&alarm["resource"]).to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
