//! What stands, as the ledger says it, and as each node says it.

use std::collections::BTreeMap;
use std::sync::Arc;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::ids::AlarmId;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;

use super::inside::Node;
use super::schedules::{Episode, TYPE};

pub(crate) type Facts = BTreeMap<String, (Severity, Timestamp)>;

pub(crate) fn facts(stands: &BTreeMap<String, Episode>) -> Facts {
    stands.iter().map(|(resource, episode)| (resource.clone(), (episode.severity, episode.began))).collect()
}

fn is_of(alarm: &Alarm, owner: Option<&str>) -> bool {
    alarm.is_active() && *alarm.key.alarm_type == *TYPE && alarm.owner.as_deref() == owner
}

/// What stands of the schedule's alarms, of this node itself or of another site.
pub(crate) fn facts_of(node: &Node, owner: Option<&str>) -> Facts {
    let read = node.store.read();
    let alarms = read.alarms().filter(|alarm| is_of(alarm, owner));
    let fact = |alarm: &Arc<Alarm>| (alarm.severity, alarm.event_time.expect("is claimed"));
    alarms.map(|alarm| (alarm.key.resource.as_str().to_owned(), fact(alarm))).collect()
}

/// The same with what operators did, by id.
pub(crate) fn listed(node: &Node, owner: Option<&str>) -> BTreeMap<AlarmId, (String, Severity, u32, bool)> {
    let read = node.store.read();
    let alarms = read.alarms().filter(|alarm| is_of(alarm, owner));
    let row = |alarm: &Arc<Alarm>| {
        (alarm.key.resource.as_str().to_owned(), alarm.severity, alarm.raise_seq, alarm.acknowledged.is_some())
    };
    alarms.map(|alarm| (alarm.id, row(alarm))).collect()
}

/// What stands of the sites at the centre, as who is told should see it.
pub(crate) fn stands(centre: &Node) -> BTreeMap<AlarmId, Severity> {
    let read = centre.store.read();
    let alarms = read.alarms().filter(|alarm| alarm.is_active() && *alarm.key.alarm_type == *TYPE);
    alarms.map(|alarm| (alarm.id, alarm.severity)).collect()
}
