//! The engine's keyed records, and the counts of repeated reports.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Action, FormError};
use crate::access::Token;
use crate::alarm::EngineMarks;
use crate::catalogue::{Catalogue, CatalogueFile, Digest};
use crate::child::{Below, Child, PendingAction};
use crate::event::AlarmKey;
use crate::ids::{ActionId, AlarmId, Position};
use crate::names::{AlarmType, ChildName, EventId, Follower, Producer, Qualifier, Site, TokenName};
use crate::notify::{Outbox, Told};
use crate::resource::Resource;
use crate::state::{
    Copied, Followed, Heartbeat, Quarantined, Seen, Shelf, StateKey, StateRecord, Suppression, Tombstone, Window,
};
use crate::time::{JournalTime, Timestamp};

/// An active alarm was reported again and did not change: written once per commit, however often it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Touched {
    /// Which alarm.
    pub alarm: AlarmId,
    /// How many reports this episode has had.
    pub count: u64,
    /// When the last arrived.
    pub last_reported_at: Timestamp,
    /// The reporter's claim in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_time: Option<Timestamp>,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Producer>,
    /// What the engine keeps with the alarm. Stored, not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub engine: Option<EngineMarks>,
}

/// One keyed record, put in place.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatePut {
    /// The key as [`state_key_text`] writes it.
    pub key: String,
    /// The record, of the form that the key's kind says.
    pub value: serde_json::Value,
}

/// The separator within a key: no name can hold it.
const SEPARATOR: char = '\u{1f}';

/// A key as text: its kind, then its parts.
pub fn state_key_text(key: &StateKey) -> String {
    let join = |kind: &str, parts: &[&str]| {
        let mut text = kind.to_owned();
        for part in parts {
            text.push(SEPARATOR);
            text.push_str(part);
        }
        text
    };
    let of_alarm =
        |kind: &str, key: &AlarmKey| join(kind, &[&key.site, key.resource.as_str(), &key.alarm_type, &key.qualifier]);
    match key {
        StateKey::Window(producer) => join("window", &[producer]),
        StateKey::EventId(producer, id) => join("event-id", &[producer.as_deref().unwrap_or(""), id]),
        StateKey::Action(id) => join("action", &[&id.to_string()]),
        StateKey::Tombstone(key) => of_alarm("tombstone", key),
        StateKey::Heartbeat(key) => of_alarm("heartbeat", key),
        StateKey::Shelf(id) => join("shelf", &[&id.to_string()]),
        StateKey::Suppression(alarm_type) => join("suppression", &[alarm_type]),
        StateKey::Bundle(digest) => join("bundle", &[&digest.to_string()]),
        StateKey::Settings => "settings".to_owned(),
        StateKey::Follower(follower) => join("follower", &[follower]),
        StateKey::Told(follower, alarm) => join("told", &[follower, &alarm.to_string()]),
        StateKey::Outbox(follower, first) => join("outbox", &[follower, &first.to_string()]),
        StateKey::Child(child) => join("child", &[child]),
        StateKey::Below(child) => join("below", &[child]),
        StateKey::Pending(child, action) => join("pending", &[child, &action.to_string()]),
        StateKey::Token(name) => join("token", &[name]),
        StateKey::Partition(number) => join("partition", &[&number.to_string()]),
        StateKey::Quarantine(position) => join("quarantine", &[&position.to_string()]),
    }
}

/// Reads what [`state_key_text`] wrote.
pub fn state_key(text: &str) -> Result<StateKey, FormError> {
    let broken = || FormError::Field { field: "key", reason: "is of no known kind" };
    let parts: Vec<&str> = text.split(SEPARATOR).collect();
    let id = |text: &str| text.parse().map(ActionId).map_err(|_| broken());
    let alarm = |[site, resource, alarm_type, qualifier]: [&str; 4]| -> Result<AlarmKey, FormError> {
        Ok(AlarmKey {
            site: Site::new(site).map_err(|_| broken())?,
            resource: Resource::new(resource).map_err(|_| broken())?,
            alarm_type: AlarmType::new(alarm_type).map_err(|_| broken())?,
            qualifier: Qualifier::new(qualifier).map_err(|_| broken())?,
        })
    };
    Ok(match parts[..] {
        ["window", producer] => StateKey::Window(Producer::new(producer).map_err(|_| broken())?),
        ["event-id", "", event] => StateKey::EventId(None, EventId::new(event).map_err(|_| broken())?),
        ["event-id", producer, event] => {
            StateKey::EventId(Some(Producer::new(producer).map_err(|_| broken())?), EventId::new(event).map_err(|_| broken())?)
        }
        ["action", action] => StateKey::Action(id(action)?),
        ["tombstone", site, resource, alarm_type, qualifier] => {
            StateKey::Tombstone(alarm([site, resource, alarm_type, qualifier])?)
        }
        ["heartbeat", site, resource, alarm_type, qualifier] => {
            StateKey::Heartbeat(alarm([site, resource, alarm_type, qualifier])?)
        }
        ["shelf", shelf] => StateKey::Shelf(id(shelf)?),
        ["suppression", alarm_type] => StateKey::Suppression(AlarmType::new(alarm_type).map_err(|_| broken())?),
        ["bundle", digest] => StateKey::Bundle(Digest::from_text(digest)),
        ["settings"] => StateKey::Settings,
        ["follower", follower] => StateKey::Follower(Follower::new(follower).map_err(|_| broken())?),
        ["told", follower, alarm] => {
            let alarm = alarm.parse().map(AlarmId).map_err(|_| broken())?;
            StateKey::Told(Follower::new(follower).map_err(|_| broken())?, alarm)
        }
        ["outbox", follower, first] => {
            StateKey::Outbox(Follower::new(follower).map_err(|_| broken())?, first.parse().map_err(|_| broken())?)
        }
        ["child", child] => StateKey::Child(ChildName::new(child).map_err(|_| broken())?),
        ["below", child] => StateKey::Below(ChildName::new(child).map_err(|_| broken())?),
        ["pending", child, action] => StateKey::Pending(ChildName::new(child).map_err(|_| broken())?, id(action)?),
        ["token", name] => StateKey::Token(TokenName::new(name).map_err(|_| broken())?),
        ["partition", number] => StateKey::Partition(number.parse().map_err(|_| broken())?),
        ["quarantine", position] => StateKey::Quarantine(position.parse().map(Position).map_err(|_| broken())?),
        _ => return Err(broken()),
    })
}

impl StatePut {
    /// The form of `record` under `key`.
    pub fn new(key: &StateKey, record: &StateRecord) -> Self {
        let value = match record {
            StateRecord::Window(window) => serde_json::to_value(window),
            StateRecord::Seen(seen) => serde_json::to_value(seen),
            StateRecord::Tombstone(tombstone) => serde_json::to_value(tombstone),
            StateRecord::Shelf(shelf) => serde_json::to_value(&**shelf),
            StateRecord::Suppression(suppression) => serde_json::to_value(&**suppression),
            StateRecord::Bundle(catalogue) => serde_json::to_value(catalogue.to_file()),
            StateRecord::Settings(settings) => serde_json::to_value(settings),
            StateRecord::Followed(followed) => serde_json::to_value(followed),
            StateRecord::Told(told) => serde_json::to_value(&**told),
            StateRecord::Outbox(outbox) => serde_json::to_value(&**outbox),
            StateRecord::Heartbeat(heartbeat) => serde_json::to_value(&**heartbeat),
            StateRecord::Child(child) => serde_json::to_value(&**child),
            StateRecord::Below(below) => serde_json::to_value(&**below),
            StateRecord::Pending(pending) => serde_json::to_value(PendingForm::from(&**pending)),
            StateRecord::Quarantine(quarantined) => serde_json::to_value(quarantined),
            StateRecord::Token(token) => serde_json::to_value(&**token),
            StateRecord::Copied(copied) => serde_json::to_value(copied),
        };
        Self { key: state_key_text(key), value: value.expect("names and numbers serialize") }
    }

    /// Key and record.
    pub fn into_record(self) -> Result<(StateKey, StateRecord), FormError> {
        let key = state_key(&self.key)?;
        let value = self.value;
        let record = match &key {
            StateKey::Window(_) => StateRecord::Window(serde_json::from_value::<Window>(value)?),
            StateKey::EventId(..) | StateKey::Action(_) => StateRecord::Seen(serde_json::from_value::<Seen>(value)?),
            StateKey::Tombstone(_) => StateRecord::Tombstone(serde_json::from_value::<Tombstone>(value)?),
            StateKey::Shelf(_) => StateRecord::Shelf(Arc::new(serde_json::from_value::<Shelf>(value)?)),
            StateKey::Suppression(_) => StateRecord::Suppression(Arc::new(serde_json::from_value::<Suppression>(value)?)),
            StateKey::Bundle(_) => {
                let file: CatalogueFile = serde_json::from_value(value)?;
                let catalogue = Catalogue::try_from(file)
                    .map_err(|_| FormError::Field { field: "value", reason: "is no sound catalogue" })?;
                StateRecord::Bundle(Arc::new(catalogue))
            }
            StateKey::Settings => StateRecord::Settings(serde_json::from_value(value)?),
            StateKey::Follower(_) => StateRecord::Followed(serde_json::from_value::<Followed>(value)?),
            StateKey::Told(..) => StateRecord::Told(Arc::new(serde_json::from_value::<Told>(value)?)),
            StateKey::Outbox(..) => StateRecord::Outbox(Arc::new(serde_json::from_value::<Outbox>(value)?)),
            StateKey::Heartbeat(_) => StateRecord::Heartbeat(Arc::new(serde_json::from_value::<Heartbeat>(value)?)),
            StateKey::Child(_) => StateRecord::Child(Arc::new(serde_json::from_value::<Child>(value)?)),
            StateKey::Below(_) => StateRecord::Below(Arc::new(serde_json::from_value::<Vec<Below>>(value)?)),
            StateKey::Pending(..) => StateRecord::Pending(Arc::new(serde_json::from_value::<PendingForm>(value)?.try_into()?)),
            StateKey::Quarantine(_) => StateRecord::Quarantine(serde_json::from_value::<Quarantined>(value)?),
            StateKey::Token(_) => StateRecord::Token(Arc::new(serde_json::from_value::<Token>(value)?)),
            StateKey::Partition(_) => StateRecord::Copied(serde_json::from_value::<Copied>(value)?),
        };
        Ok((key, record))
    }
}

/// [`PendingAction`] as it is kept.
#[derive(Serialize, Deserialize)]
struct PendingForm {
    action: Action,
    ordered_at: Timestamp,
    #[serde(default)]
    ordered_by: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<JournalTime>,
}

impl From<&PendingAction> for PendingForm {
    fn from(pending: &PendingAction) -> Self {
        Self {
            action: (&*pending.action).into(),
            ordered_at: pending.ordered_at,
            ordered_by: pending.ordered_by,
            expires: pending.expires,
        }
    }
}

impl TryFrom<PendingForm> for PendingAction {
    type Error = FormError;

    fn try_from(form: PendingForm) -> Result<Self, FormError> {
        let PendingForm { action, ordered_at, ordered_by, expires } = form;
        let action = action.try_into().map_err(|_| FormError::Field { field: "action", reason: "contradicts itself" })?;
        Ok(Self { action: Arc::new(action), ordered_at, ordered_by, expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_round_trips() {
        let name = |text| Producer::new(text).expect("valid");
        let id = ActionId(uuid::Uuid::from_u128(7));
        let alarm = AlarmKey {
            site: Site::new("s").expect("valid"),
            resource: Resource::new("host=a b.fs=/x").expect("valid"),
            alarm_type: AlarmType::new("t").expect("valid"),
            qualifier: Qualifier::new("").expect("valid"),
        };
        let keys = [
            StateKey::Window(name("a/b")),
            StateKey::EventId(None, EventId::new("x/y").expect("valid")),
            StateKey::EventId(Some(name("p")), EventId::new("x").expect("valid")),
            StateKey::Action(id),
            StateKey::Tombstone(alarm.clone()),
            StateKey::Heartbeat(alarm),
            StateKey::Shelf(id),
            StateKey::Suppression(AlarmType::new("100.101").expect("valid")),
            StateKey::Bundle(Digest::of(b"x")),
            StateKey::Quarantine(Position(9)),
            StateKey::Child(ChildName::new("tower-17").expect("valid")),
            StateKey::Below(ChildName::new("tower-17").expect("valid")),
            StateKey::Pending(ChildName::new("tower-17").expect("valid"), id),
            StateKey::Token(TokenName::new("noc@example").expect("valid")),
            StateKey::Settings,
            StateKey::Follower(Follower::new("noc-1").expect("valid")),
            StateKey::Told(Follower::new("noc-1").expect("valid"), AlarmId(uuid::Uuid::from_u128(8))),
            StateKey::Outbox(Follower::new("noc/1").expect("valid"), u64::MAX),
        ];
        for key in keys {
            assert_eq!(state_key(&state_key_text(&key)).expect("reads"), key);
        }
        assert!(state_key("nothing").is_err());
    }

    #[test]
    fn a_cursor_of_an_earlier_version_reads_and_so_does_all_of_a_delivery() {
        let key = StateKey::Follower(Follower::new("noc").expect("valid"));
        let read = |key: &StateKey, stored: &str| {
            let put = StatePut { key: state_key_text(key), value: serde_json::from_str(stored).expect("is JSON") };
            let (_, record) = put.into_record().expect("is sound");
            assert_eq!(StatePut::new(key, &record).value, serde_json::from_str::<serde_json::Value>(stored).expect("is JSON"));
            record
        };
        let StateRecord::Followed(followed) = read(&key, r#"{"position":7}"#) else { panic!("is a cursor") };
        assert_eq!(followed, Followed { position: Position(7), delivery: None });
        read(
            &key,
            r#"{"position":7,"delivery":{"epoch":3,"assigned":9,"confirmed":6,"confirmed_above":[8],"read":11,"read_seq":5,
                "filter":"ab","realign":"whole"}}"#,
        );
        let id = AlarmId(uuid::Uuid::from_u128(8));
        let told = r#"{"key":{"site":"s","resource":"host=a","alarm_type":"t"},"raise_seq":2,"severity":"major",
            "number":{"epoch":3,"seq":4},"raised_at":"2026-11-22T03:12:00Z","said":5,"left":true}"#;
        read(&StateKey::Told(Follower::new("noc").expect("valid"), id), told);
        let outbox = format!(
            r#"[{{"what":"alarm","alarm":"{id}","how":"cleared","position":12,"number":{{"epoch":3,"seq":4}},"last":{told}}},
                {{"what":"log","position":13}},
                {{"what":"gap","gap":{{"reason":"retention","from":1,"to":2,"changes":1}}}},
                {{"what":"digest","digest":{{"from":1,"to":2,"changes":1,"logged":0,"came_and_went":0}}}}]"#
        );
        read(&StateKey::Outbox(Follower::new("noc").expect("valid"), 5), &outbox);
    }

    #[test]
    fn a_heartbeat_is_stored_in_few_words() {
        let key = StateKey::Heartbeat(AlarmKey {
            site: Site::new("s").expect("valid"),
            resource: Resource::new("heartbeat=backup").expect("valid"),
            alarm_type: AlarmType::new("heartbeat.lost").expect("valid"),
            qualifier: Qualifier::new("").expect("valid"),
        });
        let stored = r#"{"every_s":300,"severity":"major","text":"","last_heard_at":"2026-11-22T03:12:00Z","renewed_at":7}"#;
        let put = StatePut { key: state_key_text(&key), value: serde_json::from_str(stored).expect("is JSON") };
        let (read, record) = put.into_record().expect("is sound");
        let StateRecord::Heartbeat(heartbeat) = &record else { panic!("is a heartbeat") };
        assert_eq!((read, heartbeat.every_s.seconds(), heartbeat.lost_at), (key.clone(), 300, None));
        let again = StatePut::new(&key, &record);
        assert_eq!(again.into_record().expect("is sound").1, record);
    }
}
