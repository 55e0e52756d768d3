//! The event: something reported (X.733 alarm report).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};

use crate::ids::{Epoch, Position, Sequence};
use crate::labels::Labels;
use crate::names::{
    AlarmType, AttributeName, AttributeValue, ChildName, EventId, ProbableCause, Producer, Qualifier, Site, Text,
};
use crate::resource::Resource;
use crate::severity::{EventType, Severity};
use crate::time::Timestamp;

/// What identifies an alarm (RFC 8632 list key, with the site that owns it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlarmKey {
    /// The site that owns the alarm.
    pub site: Site,
    /// What it is about.
    pub resource: Resource,
    /// Which kind of alarm it is.
    pub alarm_type: AlarmType,
    /// Tells alarms of one type on one resource apart.
    pub qualifier: Qualifier,
}

/// What an event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Report {
    /// The condition holds, with this severity.
    Raise(Severity),
    /// The condition is over.
    Clear,
    /// Something happened that lasts not: it raises nothing and stands in history.
    Log(Severity),
    /// All is well, and this will be said again: the alarm is over, and silence raises it.
    Heartbeat {
        /// Within which time it will be said again.
        every: Lease,
        /// The severity with which silence raises the alarm.
        severity: Severity,
    },
}

/// What the names of producers begin with that are collectors of the node; others may not take one.
pub const COLLECTOR_PREFIX: &str = "collector/";

/// Where an event comes from, and how a second delivery of it is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Who reports.
    pub producer: Option<Producer>,
    /// Its number among the producer's reports; only together with `producer`.
    pub sequence: Option<Sequence>,
    /// The reporter's own identifier of this event, in the producer's name space if it names itself.
    pub event_id: Option<EventId>,
    /// The agent that relayed it, and its place in the agent's journal. No reporter can claim one.
    pub relay: Option<RelayMark>,
}

/// The place of an event in the journal of the agent that relays it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayMark {
    /// The agent.
    pub child: ChildName,
    /// The agent's numbering.
    pub epoch: Epoch,
    /// The place.
    pub position: Position,
    /// The place of what the agent sent before it, where the engine may see it without that: then it is not taken. Nothing where it
    /// cannot, or where what is before it is known to have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
}

impl RelayMark {
    /// Whether something before it did not come in, if what the agent sent has come in up to `reached`.
    pub fn is_out_of_place(&self, reached: Position) -> bool {
        self.after.is_some_and(|after| after > reached)
    }
}

/// X.733 attributes that an event may give and an alarm keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Details {
    /// X.733 8.1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// X.733 8.1.2.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probable_cause: Option<ProbableCause>,
    /// X.733 8.1.2.12 proposed repair actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_action: Option<Text>,
    /// Whether service is affected, as the reporter knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_affecting: Option<bool>,
    /// X.733 8.1.2.14 additional information.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// The labels under which the Prometheus world knows it.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The alarm it is about.
    pub key: AlarmKey,
    /// What it says.
    pub report: Report,
    /// X.733 8.1.2.13 additional text.
    pub text: Text,
    /// Attributes beyond the text.
    pub details: Details,
    /// When it happened, as the reporter claims.
    pub event_time: Option<Timestamp>,
    /// Who reports it.
    pub origin: Origin,
    /// The promise to report again within this time; silence then makes the alarm stale.
    pub lease: Option<Lease>,
    /// The end that the reporter itself declares; the alarm clears then.
    pub ends_at: Option<Timestamp>,
    /// How that end and the beginning go with those that were reported before.
    pub span: SpanRule,
    /// The producer asks that its reports of one alarm are ordered by `event_time` where they are not numbered.
    pub order_by_event_time: bool,
}

impl Event {
    /// A report that says nothing beyond its key, what it reports and its text.
    pub fn new(key: AlarmKey, report: Report, text: Text) -> Self {
        Self {
            key,
            report,
            text,
            details: Details::default(),
            event_time: None,
            origin: Origin::default(),
            lease: None,
            ends_at: None,
            span: SpanRule::Replaces,
            order_by_event_time: false,
        }
    }

    /// The same, of `producer`, which does not number its reports.
    #[must_use]
    pub fn of(mut self, producer: Producer) -> Self {
        self.origin.producer = Some(producer);
        self
    }
}

/// How `event_time` and `ends_at` of a report go with those of an earlier one that still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpanRule {
    /// The end is as it was reported last, and the beginning as it was reported first.
    #[default]
    Replaces,
    /// As Alertmanager merges alerts that overlap: the earliest beginning, and an end that was declared gives way to a later one only.
    Merges,
    /// The same, where the reporter declared no end and the door assumed one: it gives way to whatever is declared.
    Assumed,
}

impl SpanRule {
    /// Whether it is what is meant where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A promise to report again, in whole seconds, at least one and at most a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Lease(u32);

/// The longest lease: a year.
pub const LEASE_S_MAX: u32 = 366 * 24 * 3600;

/// A lease outside its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not between 1 and {LEASE_S_MAX} seconds")]
pub struct LeaseError;

/// A text that is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseTextError {
    /// It is no length of time.
    #[error("is no length of time such as 90s, 5m, 25h, 1h30m or a number of seconds")]
    Form,
    /// It is too short or too long.
    #[error(transparent)]
    Bounds(#[from] LeaseError),
}

/// The units in which a lease is written, in seconds, the largest first.
const LEASE_UNITS: [(char, u32); 4] = [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

impl Lease {
    /// A lease of `seconds`.
    pub fn new(seconds: u32) -> Result<Self, LeaseError> {
        if (1..=LEASE_S_MAX).contains(&seconds) { Ok(Self(seconds)) } else { Err(LeaseError) }
    }

    /// Its length.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }

    /// Its length in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

/// As people write it, in the largest unit that needs no other: `90s`, `5m`, `25h`.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = LEASE_UNITS.into_iter().find(|(_, seconds)| self.0.is_multiple_of(*seconds));
        let (unit, seconds) = whole.expect("every lease is whole in seconds");
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

/// A number of seconds, or numbers with units, the largest first: `300`, `5m`, `1h30m`, `1h 30m`.
impl FromStr for Lease {
    type Err = LeaseTextError;

    fn from_str(text: &str) -> Result<Self, LeaseTextError> {
        let number = |digits: &str| -> Result<u32, LeaseTextError> {
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(LeaseTextError::Form);
            }
            // What is no number of 32 bits is too long in any unit.
            Ok(digits.parse().unwrap_or(u32::MAX))
        };
        if let Ok(seconds) = number(text) {
            return Ok(Self::new(seconds)?);
        }
        let mut rest = text;
        let mut units = LEASE_UNITS.into_iter();
        let mut sum: u32 = 0;
        while !rest.is_empty() {
            let end = rest.find(|character: char| character.is_ascii_alphabetic()).ok_or(LeaseTextError::Form)?;
            let (digits, behind) = rest.split_at(end);
            let (_, seconds) = units.find(|(unit, _)| behind.starts_with(*unit)).ok_or(LeaseTextError::Form)?;
            sum = sum.saturating_add(number(digits)?.saturating_mul(seconds));
            rest = behind[1..].trim_start();
        }
        if text.is_empty() { Err(LeaseTextError::Form) } else { Ok(Self::new(sum)?) }
    }
}

impl<'de> Deserialize<'de> for Lease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Lease {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Integer))
            .minimum(Some(1))
            .maximum(Some(LEASE_S_MAX))
            .description(Some("Seconds within which the reporter promises to report again."))
            .into()
    }
}

impl utoipa::ToSchema for Lease {}

/// The most attributes an event may have.
pub const ATTRIBUTES_MAX: usize = 32;

/// Additional attributes by name, at most [`ATTRIBUTES_MAX`]. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Attributes(Option<Arc<BTreeMap<AttributeName, AttributeValue>>>);

/// Too many attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has {count} attributes, at most {ATTRIBUTES_MAX} are allowed")]
pub struct AttributesError {
    count: usize,
}

impl Attributes {
    /// Keeps `attributes` if they are not too many.
    pub fn new(attributes: BTreeMap<AttributeName, AttributeValue>) -> Result<Self, AttributesError> {
        match attributes.len() {
            0 => Ok(Self(None)),
            count if count > ATTRIBUTES_MAX => Err(AttributesError { count }),
            _ => Ok(Self(Some(Arc::new(attributes)))),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&AttributeName, &AttributeValue)> {
        self.0.iter().flat_map(|attributes| attributes.iter())
    }

    /// The value of the attribute `name`.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.as_ref()?.get(name)
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let attributes = Option::<BTreeMap<AttributeName, AttributeValue>>::deserialize(deserializer)?.unwrap_or_default();
        Self::new(attributes).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Attributes {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Object))
            .additional_properties(Some(AdditionalProperties::RefOr(<AttributeValue as utoipa::PartialSchema>::schema())))
            .description(Some(format!("Additional information (X.733 8.1.2.14), at most {ATTRIBUTES_MAX} attributes.")))
            .into()
    }
}

impl utoipa::ToSchema for Attributes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_written_and_read_as_people_do() {
        let read = |text: &str| text.parse::<Lease>().map(Lease::seconds);
        for (text, seconds) in
            [("300", 300), ("90s", 90), ("5m", 300), ("25h", 90_000), ("7d", 604_800), ("1h30m", 5400), ("1h 30m", 5400)]
        {
            assert_eq!(read(text), Ok(seconds), "{text}");
        }
        for text in ["", "m", "s5", "5 m", "-5m", "+5", "5x", "30m1h", "5m5m", " 5m", "1.5h", "5µ", "5ms", "²s", "5m3"] {
            assert_eq!(read(text), Err(LeaseTextError::Form), "{text:?}");
        }
        for text in ["0", "0s", "0h0m", "367d", "99999999999", "9999999999d"] {
            assert_eq!(read(text), Err(LeaseTextError::Bounds(LeaseError)), "{text}");
        }
        for (seconds, text) in [(90, "90s"), (300, "5m"), (90_000, "25h"), (86_400, "1d"), (1, "1s"), (5400, "90m")] {
            let lease = Lease::new(seconds).expect("in bounds");
            assert_eq!((lease.to_string().as_str(), lease.to_string().parse()), (text, Ok(lease)));
        }
    }
}
