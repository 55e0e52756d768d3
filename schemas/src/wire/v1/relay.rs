//! What a site sends of its alarms, as the journal of the node above it keeps it.

use std::ops::Deref;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::{Alarm, Change, FormError};
use crate::child::Below;
use crate::ids::{ActionId, AlarmId, Epoch, Position};
use crate::names::ChildName;

/// One step of what a site sends.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Relay {
    /// Who sends it.
    pub child: ChildName,
    /// Its numbering.
    pub epoch: Epoch,
    /// What.
    #[serde(flatten)]
    pub content: RelayContent,
}

/// What a site can send: exactly one of these.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelayContent {
    /// How its alarms within a range of ids stand.
    Alignment {
        /// As of this position.
        at: Position,
        /// The first id.
        from: AlarmId,
        /// The last id.
        to: AlarmId,
        /// The alarms.
        #[schema(value_type = Vec<Alarm>)]
        alarms: Alarms,
    },
    /// It stands here as there.
    Aligned {
        /// As of this position.
        at: Position,
        /// History behind this is missing.
        after: Position,
        /// What its last change is there.
        #[serde(default)]
        fingerprint: u64,
        /// The nodes below it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        below: Vec<Below>,
    },
    /// Changes as they happened.
    Live {
        /// Behind this position,
        after: Position,
        /// up to this.
        upto: Position,
        /// The changes.
        #[schema(value_type = Vec<Change>)]
        changes: Changes,
    },
    /// Changes that were missing.
    History {
        /// Behind this position,
        after: Position,
        /// up to this.
        upto: Position,
        /// The changes.
        #[schema(value_type = Vec<Change>)]
        changes: Changes,
    },
    /// Changes that will never come.
    Gap {
        /// Behind this position,
        after: Position,
        /// up to this.
        upto: Position,
    },
    /// What became of actions is known.
    Acted {
        /// Of which.
        actions: Vec<ActionId>,
    },
}

/// Changes; in the place of one that a newer program wrote, and this one does not understand, stands nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that are understood.
    pub known: Vec<Change>,
    /// How many are not.
    pub unread: u64,
}

impl From<Vec<Change>> for Changes {
    fn from(known: Vec<Change>) -> Self {
        Self { known, unread: 0 }
    }
}

impl Deref for Changes {
    type Target = [Change];

    fn deref(&self) -> &[Change] {
        &self.known
    }
}

impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.known.iter().map(Some).chain((0..self.unread).map(|_| None)))
    }
}

impl<'de> Deserialize<'de> for Changes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Read {
            Known(Box<Change>),
            Unread(IgnoredAny),
        }
        let mut changes = Self::default();
        for read in Vec::<Read>::deserialize(deserializer)? {
            match read {
                Read::Known(change) => changes.known.push(*change),
                Read::Unread(_) => changes.unread += 1,
            }
        }
        Ok(changes)
    }
}

/// Alarms; of one that a newer program wrote, and this one does not understand, only its id is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// Those that are understood.
    pub known: Vec<Alarm>,
    /// Those that are not.
    pub unread: Vec<AlarmId>,
}

impl From<Vec<Alarm>> for Alarms {
    fn from(known: Vec<Alarm>) -> Self {
        Self { known, unread: Vec::new() }
    }
}

impl Deref for Alarms {
    type Target = [Alarm];

    fn deref(&self) -> &[Alarm] {
        &self.known
    }
}

impl Serialize for Alarms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Written<'a> {
            Known(&'a Alarm),
            Unread { id: AlarmId },
        }
        let unread = self.unread.iter().map(|id| Written::Unread { id: *id });
        serializer.collect_seq(self.known.iter().map(Written::Known).chain(unread))
    }
}

impl<'de> Deserialize<'de> for Alarms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "alarms: one has no id")]
        enum Read {
            Known(Box<Alarm>),
            Unread { id: AlarmId },
        }
        let mut alarms = Self::default();
        for read in Vec::<Read>::deserialize(deserializer)? {
            match read {
                Read::Known(alarm) => alarms.known.push(*alarm),
                Read::Unread { id } => alarms.unread.push(id),
            }
        }
        Ok(alarms)
    }
}

impl From<&crate::child::Relay> for Relay {
    fn from(relay: &crate::child::Relay) -> Self {
        Self { child: relay.child.clone(), epoch: relay.epoch, content: (&relay.content).into() }
    }
}

impl TryFrom<Relay> for crate::child::Relay {
    type Error = FormError;

    fn try_from(form: Relay) -> Result<Self, FormError> {
        Ok(Self { child: form.child, epoch: form.epoch, content: form.content.try_into()? })
    }
}

/// The forms in which changes go up: as they are shown, because what the engine keeps is its owner's.
impl From<&crate::child::RelayContent> for RelayContent {
    fn from(content: &crate::child::RelayContent) -> Self {
        use crate::child::RelayContent as Content;
        let forms = |changes: &[Arc<crate::change::Change>], unread: u64| {
            let known = changes.iter().map(|change| Change::shown(change, |_| false)).collect();
            Changes { known, unread }
        };
        match content {
            Content::Alignment { at, from, to, alarms, unread } => {
                let known = alarms.iter().map(|alarm| Alarm::shown(alarm, false)).collect();
                Self::Alignment { at: *at, from: *from, to: *to, alarms: Alarms { known, unread: unread.clone() } }
            }
            Content::Aligned { at, after, fingerprint, below } => {
                Self::Aligned { at: *at, after: *after, fingerprint: *fingerprint, below: below.clone() }
            }
            Content::Live { after, upto, changes, unread } => {
                Self::Live { after: *after, upto: *upto, changes: forms(changes, *unread) }
            }
            Content::History { after, upto, changes, unread } => {
                Self::History { after: *after, upto: *upto, changes: forms(changes, *unread) }
            }
            Content::Gap { after, upto } => Self::Gap { after: *after, upto: *upto },
            Content::Acted { actions } => Self::Acted { actions: actions.clone() },
        }
    }
}

impl TryFrom<RelayContent> for crate::child::RelayContent {
    type Error = FormError;

    fn try_from(form: RelayContent) -> Result<Self, FormError> {
        // One that is understood by its words, and not as a whole, is no better than one that is not.
        let read = |changes: Changes| {
            let count = changes.known.len() as u64 + changes.unread;
            let sound = changes.known.into_iter().filter_map(|change| change.try_into().ok().map(Arc::new));
            let sound: Vec<_> = sound.collect();
            let unread = count - sound.len() as u64;
            (sound, unread)
        };
        Ok(match form {
            RelayContent::Alignment { at, from, to, alarms } => {
                let Alarms { known, mut unread } = alarms;
                let mut sound = Vec::with_capacity(known.len());
                for alarm in known {
                    let id = alarm.id;
                    match alarm.try_into() {
                        Ok(alarm) => sound.push(Arc::new(alarm)),
                        Err(_) => unread.push(id),
                    }
                }
                unread.sort_unstable();
                Self::Alignment { at, from, to, alarms: sound, unread }
            }
            RelayContent::Aligned { at, after, fingerprint, below } => Self::Aligned { at, after, fingerprint, below },
            RelayContent::Live { after, upto, changes } => {
                let (changes, unread) = read(changes);
                Self::Live { after, upto, changes, unread }
            }
            RelayContent::History { after, upto, changes } => {
                let (changes, unread) = read(changes);
                Self::History { after, upto, changes, unread }
            }
            RelayContent::Gap { after, upto } => Self::Gap { after, upto },
            RelayContent::Acted { actions } => Self::Acted { actions },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_of_a_newer_release_is_left_out_and_counted_and_the_rest_is_read() {
        let change = |kind: &str, failure: &str| {
            json!({ "site": "s", "epoch": 1, "seq": 2, "at": "2026-11-22T03:12:00Z", "kind": kind,
                    "entry": 7, "failure": failure })
        };
        let alarm = json!({ "site": "s", "epoch": 1, "seq": 3, "at": "2026-11-22T03:12:00Z", "kind": "raised",
                            "alarm": { "severity": "catastrophic" } });
        let changes = [change("quarantined", "a"), change("transmogrified", "b"), alarm, change("quarantined", "c")];
        let step = json!({ "child": "s", "epoch": 1, "live": { "after": 4, "upto": 9, "changes": changes } });
        let form: Relay = serde_json::from_value(step).expect("is read");
        let relay = crate::child::Relay::try_from(form).expect("is one");
        let crate::child::RelayContent::Live { changes, unread, .. } = &relay.content else { panic!("{relay:?}") };
        assert_eq!((changes.len(), *unread), (2, 2));
        // The journal keeps how many they were.
        let stored = serde_json::to_string(&Relay::from(&relay)).expect("serializes");
        let again = serde_json::from_str::<Relay>(&stored).expect("is read");
        assert_eq!(crate::child::Relay::try_from(again).expect("is one"), relay);
    }

    #[test]
    fn of_an_alarm_of_a_newer_release_its_id_is_kept_and_the_rest_is_read() {
        let id = |number: u128| AlarmId(uuid::Uuid::from_u128(number));
        let alarm = |number: u128, severity: &str| {
            json!({ "id": id(number), "site": "s", "resource": "host=a", "alarm_type": "fan.failed", "catalogued": true,
                    "severity": severity, "cleared": false, "text": "", "raise_seq": 1,
                    "first_raised_at": "2026-11-22T03:12:00Z", "raised_at": "2026-11-22T03:12:00Z",
                    "changed_at": "2026-11-22T03:12:00Z", "last_change": { "epoch": 1, "seq": 1 }, "count": 1,
                    "last_reported_at": "2026-11-22T03:12:00Z", "acknowledged": null, "assigned": null, "shelved": null,
                    "stale": null, "notes": [] })
        };
        // The third is understood by its words, and not as a whole.
        let mut unsound = alarm(3, "major");
        unsound["resource"] = json!("");
        let alarms = [alarm(1, "major"), alarm(2, "catastrophic"), unsound, alarm(4, "minor"), json!({ "id": id(5) })];
        let content = json!({ "at": 9, "from": id(0), "to": id(9), "alarms": alarms });
        let step = json!({ "child": "s", "epoch": 1, "alignment": content });
        let form: Relay = serde_json::from_value(step).expect("is read");
        let relay = crate::child::Relay::try_from(form).expect("is one");
        let crate::child::RelayContent::Alignment { alarms, unread, .. } = &relay.content else { panic!("{relay:?}") };
        assert_eq!(alarms.iter().map(|alarm| alarm.id).collect::<Vec<_>>(), [id(1), id(4)]);
        assert_eq!(*unread, [id(2), id(3), id(5)]);
        // The journal keeps which they were.
        let stored = serde_json::to_string(&Relay::from(&relay)).expect("serializes");
        let again = serde_json::from_str::<Relay>(&stored).expect("is read");
        assert_eq!(crate::child::Relay::try_from(again).expect("is one"), relay);
    }
}
