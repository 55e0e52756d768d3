//! Operator actions, as they are ordered and as the journal keeps them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::InputError;
use crate::access::{SCOPE_SITES_MAX, TokenOrder};
use crate::action::{AlarmVerb, ShelfOrder, TARGETS_MAX, Target, Verb};
use crate::ids::ActionId;
use crate::labels::{self, LABEL_MATCHERS_MAX};
use crate::names::{Actor, AlarmType, Text, TokenName};
use crate::time::Timestamp;

/// What is to be done, and to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum ActionOrder {
    /// Somebody has seen the alarms.
    Acknowledge {
        /// Which.
        alarms: Vec<Target>,
        /// With which words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<Text>,
    },
    /// Nobody has seen them after all.
    Unacknowledge {
        /// Which.
        alarms: Vec<Target>,
    },
    /// They are somebody's.
    Assign {
        /// Which.
        alarms: Vec<Target>,
        /// Whose; nobody's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Actor>,
    },
    /// Words about them.
    Note {
        /// Which.
        alarms: Vec<Target>,
        /// The words.
        text: Text,
    },
    /// They are set aside.
    Shelve {
        /// Which.
        alarms: Vec<Target>,
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: Text,
    },
    /// They are taken off the shelf.
    Unshelve {
        /// Which.
        alarms: Vec<Target>,
    },
    /// An operator declares them over.
    Clear {
        /// Which.
        alarms: Vec<Target>,
        /// With which words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<Text>,
    },
    /// They are cleared and forgotten.
    Retire {
        /// Which.
        alarms: Vec<Target>,
        /// With which words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<Text>,
    },
    /// They are forgotten, having been cleared.
    Purge {
        /// Which.
        alarms: Vec<Target>,
    },
    /// What matches is shelved, now and when it is raised.
    AddShelf(Box<ShelfOrder>),
    /// A shelf is taken away.
    RemoveShelf {
        /// Which.
        shelf: ActionId,
    },
    /// A type is hidden and notifies nobody.
    Suppress {
        /// Which.
        alarm_type: AlarmType,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Text>,
    },
    /// A type is no longer suppressed.
    Unsuppress {
        /// Which.
        alarm_type: AlarmType,
    },
    /// Whoever shows this token has its role.
    CreateToken(TokenOrder),
    /// A token is good no longer.
    RevokeToken {
        /// Which.
        name: TokenName,
    },
}

/// An action as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Action {
    /// The same id twice acts once.
    pub id: ActionId,
    /// Who acts.
    pub actor: Actor,
    /// From where, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Text>,
    /// When it was ordered, if that was at another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_at: Option<Timestamp>,
    /// After this time the owner refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What is done.
    #[serde(flatten)]
    pub order: ActionOrder,
}

impl TryFrom<ActionOrder> for Verb {
    type Error = InputError;

    fn try_from(order: ActionOrder) -> Result<Self, InputError> {
        let (alarms, verb) = match order {
            ActionOrder::AddShelf(order) if order.matcher.is_empty() => {
                return Err(InputError::new(
                    "match",
                    "asks for nothing; name a site, resource, alarm_type, qualifier or labels",
                ));
            }
            ActionOrder::AddShelf(order) => return shelf(order).map(Self::AddShelf),
            ActionOrder::RemoveShelf { shelf } => return Ok(Self::RemoveShelf(shelf)),
            ActionOrder::Suppress { alarm_type, reason } => return Ok(Self::Suppress { alarm_type, reason }),
            ActionOrder::Unsuppress { alarm_type } => return Ok(Self::Unsuppress { alarm_type }),
            ActionOrder::CreateToken(order) if order.sites.len() > SCOPE_SITES_MAX => {
                let reason = format!("has {} sites, at most {SCOPE_SITES_MAX} are allowed", order.sites.len());
                return Err(InputError::new("sites", reason));
            }
            ActionOrder::CreateToken(order) => return Ok(Self::CreateToken(order)),
            ActionOrder::RevokeToken { name } => return Ok(Self::RevokeToken(name)),
            ActionOrder::Acknowledge { alarms, note } => (alarms, AlarmVerb::Acknowledge { note }),
            ActionOrder::Unacknowledge { alarms } => (alarms, AlarmVerb::Unacknowledge),
            ActionOrder::Assign { alarms, to } => (alarms, AlarmVerb::Assign { to }),
            ActionOrder::Note { text, .. } if text.is_empty() => return Err(InputError::new("text", "is empty")),
            ActionOrder::Note { alarms, text } => (alarms, AlarmVerb::Note { text }),
            ActionOrder::Shelve { alarms, until, reason } => (alarms, AlarmVerb::Shelve { until, reason }),
            ActionOrder::Unshelve { alarms } => (alarms, AlarmVerb::Unshelve),
            ActionOrder::Clear { alarms, note } => (alarms, AlarmVerb::Clear { note }),
            ActionOrder::Retire { alarms, note } => (alarms, AlarmVerb::Retire { note }),
            ActionOrder::Purge { alarms } => (alarms, AlarmVerb::Purge),
        };
        match alarms.len() {
            0 => Err(InputError::new("alarms", "is empty")),
            count if count > TARGETS_MAX => {
                Err(InputError::new("alarms", format!("has {count} alarms, at most {TARGETS_MAX} are allowed")))
            }
            _ => Ok(Self::OnAlarms(alarms, verb)),
        }
    }
}

/// Checks what a shelf says of labels.
fn shelf(mut order: Box<ShelfOrder>) -> Result<Box<ShelfOrder>, InputError> {
    let matcher = &order.matcher;
    if matcher.labels.is_empty() {
        return Ok(order);
    }
    if matcher.asked_qualifier().is_some() {
        return Err(InputError::new("match.qualifier", "cannot stand beside labels; match the label qualifier"));
    }
    if matcher.labels.len() > LABEL_MATCHERS_MAX {
        let reason = format!("has {} matchers, at most {LABEL_MATCHERS_MAX} are allowed", matcher.labels.len());
        return Err(InputError::new("match.labels", reason));
    }
    if !labels::is_enough(&matcher.labels) {
        return Err(InputError::new("match.labels", "would pick what has none of the labels; at least one must want a value"));
    }
    order.matcher = order.matcher.closed();
    Ok(order)
}

impl From<&Verb> for ActionOrder {
    fn from(verb: &Verb) -> Self {
        let (alarms, verb) = match verb {
            Verb::AddShelf(order) => return Self::AddShelf(order.clone()),
            Verb::RemoveShelf(shelf) => return Self::RemoveShelf { shelf: *shelf },
            Verb::Suppress { alarm_type, reason } => {
                return Self::Suppress { alarm_type: alarm_type.clone(), reason: reason.clone() };
            }
            Verb::Unsuppress { alarm_type } => return Self::Unsuppress { alarm_type: alarm_type.clone() },
            Verb::CreateToken(order) => return Self::CreateToken(order.clone()),
            Verb::RevokeToken(name) => return Self::RevokeToken { name: name.clone() },
            Verb::OnAlarms(alarms, verb) => (alarms.clone(), verb.clone()),
        };
        match verb {
            AlarmVerb::Acknowledge { note } => Self::Acknowledge { alarms, note },
            AlarmVerb::Unacknowledge => Self::Unacknowledge { alarms },
            AlarmVerb::Assign { to } => Self::Assign { alarms, to },
            AlarmVerb::Note { text } => Self::Note { alarms, text },
            AlarmVerb::Shelve { until, reason } => Self::Shelve { alarms, until, reason },
            AlarmVerb::Unshelve => Self::Unshelve { alarms },
            AlarmVerb::Clear { note } => Self::Clear { alarms, note },
            AlarmVerb::Retire { note } => Self::Retire { alarms, note },
            AlarmVerb::Purge => Self::Purge { alarms },
        }
    }
}

impl TryFrom<Action> for crate::action::Action {
    type Error = InputError;

    fn try_from(form: Action) -> Result<Self, InputError> {
        Ok(Self {
            id: form.id,
            actor: form.actor,
            from: form.from,
            ordered_at: form.ordered_at,
            expires_at: form.expires_at,
            verb: form.order.try_into()?,
        })
    }
}

impl From<&crate::action::Action> for Action {
    fn from(action: &crate::action::Action) -> Self {
        Self {
            id: action.id,
            actor: action.actor.clone(),
            from: action.from.clone(),
            ordered_at: action.ordered_at,
            expires_at: action.expires_at,
            order: (&action.verb).into(),
        }
    }
}
