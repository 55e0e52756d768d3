//! What must be true of a node, given what it acknowledged: every acknowledged report there, nothing twice; table, history and
//! counts agree.

use std::collections::HashMap;

use serde_json::Value;

use super::Node;
use super::load::{Reporter, SEVERITIES};

/// Compares a node with what its reporters know. All batches must be acknowledged before.
pub(crate) fn compare(node: &Node, reporters: &[Reporter]) {
    let alarms: HashMap<String, Value> =
        node.alarms().into_iter().map(|alarm| (text(&alarm["resource"]).to_owned(), alarm)).collect();
    let history = node.history();
    check_numbers(&history);
    let mut steps: HashMap<(String, String), u64> = HashMap::new();
    let mut last: HashMap<String, &Value> = HashMap::new();
    for change in &history {
        if let Some(alarm) = change.get("alarm") {
            let resource = text(&alarm["resource"]).to_owned();
            *steps.entry((resource.clone(), text(&change["kind"]).to_owned())).or_default() += 1;
            last.insert(resource, alarm);
        }
    }
    let mut active = 0;
    for reporter in reporters {
        for (key, known) in (0..).zip(&reporter.acknowledged) {
            let resource = reporter.resource(key);
            let Some(alarm) = alarms.get(&resource) else {
                assert_eq!(known.raises, 0, "{resource} was raised and is not there");
                continue;
            };
            let seen = |kind: &str| steps.get(&(resource.clone(), kind.to_owned())).copied().unwrap_or(0);
            assert_eq!(alarm["cleared"], known.severity.is_none(), "{alarm}");
            assert_eq!(alarm["raise_seq"], known.raises, "{alarm}");
            assert_eq!(alarm["count"], known.reports, "{alarm}");
            if let Some(severity) = known.severity {
                active += 1;
                assert_eq!(alarm["severity"], SEVERITIES[severity], "{alarm}");
            }
            assert_eq!(seen("raised"), known.raises, "{resource} in history");
            assert_eq!(seen("cleared"), known.clears, "{resource} in history");
            assert_eq!(seen("severity-changed"), known.changes, "{resource} in history");
            // What history says last is what the table says.
            for field in ["severity", "cleared", "raise_seq", "last_change", "id"] {
                assert_eq!(last[&resource][field], alarm[field], "{field} of {resource}");
            }
        }
    }
    // The node may raise alarms of its own at any time: what is counted and what is listed must be of one moment.
    loop {
        let summary = node.json("/alarms/summary");
        let alarms = node.alarms();
        if node.json("/alarms/summary")["position"] == summary["position"] {
            let others = alarms.iter().filter(|alarm| alarm["alarm_type"] != "test.load" && alarm["cleared"] == false).count();
            return assert_eq!(summary["active"], active + others as u64, "{summary}");
        }
    }
}

/// Within an epoch the changes are numbered from 1 without a gap.
pub(crate) fn check_numbers(history: &[Value]) {
    let mut next: HashMap<u64, u64> = HashMap::new();
    let mut position = 0;
    for change in history {
        let number = |field: &str| change[field].as_u64().unwrap_or_else(|| panic!("no {field} in {change}"));
        let expected = next.entry(number("epoch")).or_insert(1);
        assert_eq!(number("seq"), *expected, "{change}");
        *expected += 1;
        assert!(number("position") > position, "{change}");
        position = number("position");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}
