//! Operator actions: what a person does to alarms (RFC 8632 operator actions, ISA-18.2 shelving, StarlingX suppression).

use std::cell::LazyCell;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::TokenOrder;
use crate::event::AlarmKey;
use crate::ids::{ActionId, AlarmId};
use crate::labels::{LabelMatcher, LabelSet};
use crate::names::{Actor, AlarmType, Qualifier, Site, Text, TokenName};
use crate::resource::Resource;
use crate::time::Timestamp;

/// The most alarms one action may name.
pub const TARGETS_MAX: usize = 1000;

/// One action, as it is journalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The same id twice acts once.
    pub id: ActionId,
    /// Who acts.
    pub actor: Actor,
    /// From where, in words: how the actor was known, and the address.
    pub from: Option<Text>,
    /// When it was ordered, if that was at another node: of two actions on one axis of an alarm the one ordered later wins.
    pub ordered_at: Option<Timestamp>,
    /// After this time the owner refuses it.
    pub expires_at: Option<Timestamp>,
    /// What is done.
    pub verb: Verb,
}

/// What is done, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Something is done to alarms that exist; at most [`TARGETS_MAX`].
    OnAlarms(Vec<Target>, AlarmVerb),
    /// Alarms that match are shelved, now and when they are raised. The shelf's id is the action's.
    AddShelf(Box<ShelfOrder>),
    /// A shelf is taken away, and what it shelved is unshelved.
    RemoveShelf(ActionId),
    /// StarlingX event suppression: alarms of this type are hidden and notify nobody.
    Suppress {
        /// The type.
        alarm_type: AlarmType,
        /// Why.
        reason: Option<Text>,
    },
    /// The end of a suppression.
    Unsuppress {
        /// The type.
        alarm_type: AlarmType,
    },
    /// Whoever shows this token has its role.
    CreateToken(TokenOrder),
    /// A token is good no longer.
    RevokeToken(TokenName),
}

/// What can be done to one alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlarmVerb {
    /// Somebody has seen it.
    Acknowledge {
        /// With which words.
        note: Option<Text>,
    },
    /// Nobody has seen it after all.
    Unacknowledge,
    /// It is somebody's; nobody's if empty.
    Assign {
        /// Whose.
        to: Option<Actor>,
    },
    /// Words about it.
    Note {
        /// Which.
        text: Text,
    },
    /// It is set aside until a time.
    Shelve {
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: Text,
    },
    /// It is taken off the shelf.
    Unshelve,
    /// An operator declares it over; the next report raises it again.
    Clear {
        /// With which words.
        note: Option<Text>,
    },
    /// It is cleared and forgotten, because its resource will never report again.
    Retire {
        /// With which words.
        note: Option<Text>,
    },
    /// It is forgotten; only what is cleared can be.
    Purge,
}

/// One alarm that an action names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Target {
    /// Which.
    pub id: AlarmId,
    /// The episode that the actor saw; the action is refused if the alarm was raised again since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raise_seq: Option<u32>,
}

/// Which alarms a shelf takes, until when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShelfOrder {
    /// Which alarms.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: Text,
    /// From when on; at once if absent or past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// Who wants it, as the client says, where that is somebody else than who acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Actor>,
    /// The shelf with the same matcher whose times, reason and owner these become; a new one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amends: Option<ActionId>,
}

impl ShelfOrder {
    /// A shelf for what `matcher` picks, from now on.
    pub fn new(matcher: Matcher, until: Timestamp, reason: Text) -> Self {
        Self { matcher, until, reason, starts_at: None, created_by: None, amends: None }
    }
}

/// Picks alarms by what they are about; what is absent matches all. At least one must be given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Matcher {
    /// The site that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Site>,
    /// This resource and what lies under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// The type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_type: Option<AlarmType>,
    /// The qualifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qualifier: Option<Qualifier>,
    /// The labels, all at once; at most [`LABEL_MATCHERS_MAX`](crate::labels::LABEL_MATCHERS_MAX). Not beside a qualifier, which is a
    /// label, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub labels: Vec<LabelMatcher>,
}

/// What a matcher with labels says of the qualifier. A program that knows no labels would otherwise take whatever the rest of the
/// matcher picks, which may be everything; so it takes nothing.
const BY_LABELS: &str = "(picked by labels, which this release does not know)";

impl Matcher {
    /// A matcher of labels, of which `site` says the site if they do.
    pub fn of_labels(labels: Vec<LabelMatcher>, site: Option<Site>) -> Self {
        Self { site, labels, ..Self::default() }.closed()
    }

    /// The same, closed to programs that know no labels.
    pub(crate) fn closed(mut self) -> Self {
        if !self.labels.is_empty() {
            self.qualifier = Some(Qualifier::new(BY_LABELS).expect("is short"));
        }
        self
    }

    /// The qualifier that is asked for.
    pub fn asked_qualifier(&self) -> Option<&Qualifier> {
        self.qualifier.as_ref().filter(|qualifier| self.labels.is_empty() || qualifier.as_str() != BY_LABELS)
    }

    /// Whether it picks the alarm `key` with these labels.
    pub fn matches<'a, F: FnOnce() -> LabelSet<'a>>(&self, key: &AlarmKey, labels: &LazyCell<LabelSet<'a>, F>) -> bool {
        self.site.as_ref().is_none_or(|site| *site == key.site)
            && self.resource.as_ref().is_none_or(|resource| resource.contains(&key.resource))
            && self.alarm_type.as_ref().is_none_or(|alarm_type| *alarm_type == key.alarm_type)
            && self.asked_qualifier().is_none_or(|qualifier| *qualifier == key.qualifier)
            && self.labels.iter().all(|matcher| matcher.picks_at(labels, &key.site))
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
