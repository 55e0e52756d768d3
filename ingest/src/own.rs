//! What a part of the node that speaks with others says of itself, by the door of what the node itself reports. What stands raised is
//! read from the store each time and never remembered: an operator may have cleared it, and what was told before a restart still
//! stands.

use std::sync::Arc;

use klaxon_schemas::event::{AlarmKey, Event, Report};
use klaxon_schemas::names::{AlarmType, Producer, Qualifier, Site, Text};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use klaxon_store::door::{Door, Tally};
use klaxon_store::publish::{Answer, Item};

/// One alarm about the node itself.
#[derive(Clone)]
pub struct OwnAlarm {
    door: Door,
    key: AlarmKey,
}

impl OwnAlarm {
    /// The alarm of this type, which is in the catalogue.
    pub fn new(door: Door, site: Site, alarm_type: &str) -> Self {
        let key = AlarmKey {
            site,
            resource: Resource::new("klaxon=node").expect("is a resource"),
            alarm_type: AlarmType::new(alarm_type).expect("is a type"),
            qualifier: Qualifier::new("").expect("may be empty"),
        };
        Self { door, key }
    }

    /// As what it stands raised, if it does.
    pub fn standing(&self) -> Option<Severity> {
        let read = self.door.store().read();
        read.alarms().find(|alarm| alarm.is_active() && alarm.key == self.key).map(|alarm| alarm.severity)
    }

    /// Reports it; whether that is durable. Whoever is told that it is not tells it again later.
    pub async fn tell(&self, report: Report, text: &str) -> bool {
        let text = Text::lossy(text).expect("may be empty");
        let event = Event::new(self.key.clone(), report, text).of(Producer::new("klaxon").expect("is a name"));
        let alarm_type = &self.key.alarm_type;
        match self.door.publish(vec![Item::Event(Arc::new(event))], Tally::default()).await {
            Ok(published) => match published.answers.first() {
                Some(Answer::Rejected(reason)) => {
                    tracing::debug!(%alarm_type, %reason, "an alarm of the node itself is not taken");
                    false
                }
                _ => true,
            },
            Err(error) => {
                tracing::debug!(%alarm_type, %error, "an alarm of the node itself cannot be told now");
                false
            }
        }
    }

    /// Clears it if it stands; whether it stands no more.
    pub async fn clear(&self, text: &str) -> bool {
        self.standing().is_none() || self.tell(Report::Clear, text).await
    }
}
