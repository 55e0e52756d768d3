//! What the tests of sinks tell.

use std::sync::Arc;

use arc_swap::ArcSwap;
use klaxon_schemas::alarm::{Alarm, ChangeNumber, EngineMarks};
use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::event::{AlarmKey, Attributes, Details};
use klaxon_schemas::ids::{AlarmId, Epoch, Seq};
use klaxon_schemas::names::{AlarmType, AttributeName, AttributeValue, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::EngineHome;

use super::{Notification, SinkTools, What};
use crate::agent::Indexes;
use crate::trust::Authorities;

/// What sinks need.
pub(super) fn tools() -> SinkTools {
    // Nothing of SNMP is asked for here.
    let nowhere = std::path::Path::new("/nowhere");
    let (indexes, _) = Indexes::load(nowhere, []);
    let (engine, catalogue) = (Arc::new(EngineHome::new(nowhere)), Arc::new(ArcSwap::from_pointee(Catalogue::built_in())));
    SinkTools { engine, catalogue, indexes: Arc::new(indexes), authorities: Authorities::default() }
}

/// A time.
pub(super) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("is a time")
}

/// An alarm with all that is hard to write.
pub(super) fn alarm(severity: Severity) -> Alarm {
    let attribute = (AttributeName::new("vg.name").expect("valid"), AttributeValue::new("vg0").expect("valid"));
    Alarm {
        id: AlarmId::derive("local", Epoch(1), Seq(7)),
        key: AlarmKey {
            site: Site::new("north").expect("valid"),
            resource: Resource::new("host=web-1.file-system=/var").expect("valid"),
            alarm_type: AlarmType::new("disk.full").expect("valid"),
            qualifier: Qualifier::new("q\"1").expect("valid"),
        },
        owner: None,
        via: None,
        catalogued: true,
        severity,
        cleared: None,
        text: Text::new("97 % full").expect("valid"),
        details: Details {
            attributes: Attributes::new([attribute].into()).expect("few"),
            service_affecting: Some(true),
            ..Details::default()
        },
        raise_seq: 2,
        first_raised_at: at("2026-11-21T03:12:00Z"),
        raised_at: at("2026-11-22T03:12:00Z"),
        event_time: None,
        changed_at: at("2026-11-22T03:13:00Z"),
        last_change: ChangeNumber { epoch: Epoch(1), seq: Seq(9) },
        count: 3,
        last_reported_at: at("2026-11-22T03:13:00Z"),
        last_event_time: None,
        producer: None,
        acknowledged: None,
        assigned: None,
        notes: Vec::new(),
        shelved: None,
        stale: None,
        engine: EngineMarks::default(),
    }
}

/// What is told to a receiver.
pub(super) fn notification(delivery_seq: u64, what: What) -> Notification {
    let receiver = klaxon_schemas::names::Follower::new("noc").expect("valid");
    Notification { receiver, epoch: Epoch(5), delivery_seq, resent: false, what, beside: None }
}
