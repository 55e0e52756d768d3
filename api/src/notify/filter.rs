//! What a receiver is told of.

use std::fmt;
use std::str::FromStr;

use klaxon_schemas::alarm::Alarm;
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::names::{AlarmType, NameError, Site};
use klaxon_schemas::resource::Resource;
use klaxon_schemas::severity::Severity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The most entries in one list of a filter.
pub const FILTER_LIST_MAX: usize = 1000;

/// Which alarms pass. An empty list matches all; what is in a `not_` list never passes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Filter {
    /// At least this urgent (RFC 8632 `notify-severity-level`).
    pub severity_min: Option<Severity>,
    /// Of one of these sites.
    pub sites: Vec<Site>,
    /// At one of these resources or under it.
    pub resources: Vec<Resource>,
    /// At none of these resources, nor under it.
    pub not_resources: Vec<Resource>,
    /// Of one of these types.
    pub alarm_types: Vec<TypePattern>,
    /// Of none of these types.
    pub not_alarm_types: Vec<TypePattern>,
    /// Also what is shelved.
    pub shelved: bool,
    /// Also what is of a suppressed type.
    pub suppressed: bool,
}

/// An alarm type, or with `.*` at its end all types below it: `link.*` is `link.down` and neither `link` nor `linkage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypePattern {
    base: AlarmType,
    is_prefix: bool,
}

/// Why a text is no pattern of types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no alarm type, and none with `.*` at its end for all below it: it {0}")]
pub struct TypePatternError(#[source] NameError);

impl TypePattern {
    /// Whether the type is meant.
    pub fn matches(&self, alarm_type: &AlarmType) -> bool {
        if !self.is_prefix {
            return self.base == *alarm_type;
        }
        alarm_type.strip_prefix(self.base.as_str()).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl FromStr for TypePattern {
    type Err = TypePatternError;
    fn from_str(text: &str) -> Result<Self, TypePatternError> {
        let (base, is_prefix) = text.strip_suffix(".*").map_or((text, false), |base| (base, true));
        Ok(Self { base: AlarmType::new(base).map_err(TypePatternError)?, is_prefix })
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.base, if self.is_prefix { ".*" } else { "" })
    }
}

impl Serialize for TypePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TypePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Filter {
    /// Whether an active alarm passes; `suppressed` says whether its type is.
    pub fn passes(&self, alarm: &Alarm, suppressed: bool) -> bool {
        alarm.is_active()
            && (self.shelved || alarm.shelved.is_none())
            && (self.suppressed || !suppressed)
            && self.picks(&alarm.key, alarm.severity)
    }

    /// Whether what is of this severity, about this, is asked for.
    pub fn picks(&self, key: &AlarmKey, severity: Severity) -> bool {
        let under = |resources: &[Resource]| resources.iter().any(|resource| resource.contains(&key.resource));
        let of = |types: &[TypePattern]| types.iter().any(|pattern| pattern.matches(&key.alarm_type));
        self.severity_min.is_none_or(|least| severity >= least)
            && (self.sites.is_empty() || self.sites.contains(&key.site))
            && (self.resources.is_empty() || under(&self.resources))
            && (self.alarm_types.is_empty() || of(&self.alarm_types))
            && !under(&self.not_resources)
            && !of(&self.not_alarm_types)
    }

    /// A short text that another filter does not have.
    pub fn digest(&self) -> String {
        let form = serde_json::to_vec(self).expect("names and words serialize");
        Sha256::digest(&form).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_met_exactly_or_from_a_dot_on() {
        let of = |text: &str| text.parse::<TypePattern>().expect("is a pattern");
        let typed = |text: &str| AlarmType::new(text).expect("valid");
        assert!(of("link.down").matches(&typed("link.down")) && !of("link.down").matches(&typed("link.down.far")));
        assert!(of("link.*").matches(&typed("link.down")) && of("link.*").matches(&typed("link.down.far")));
        assert!(!of("link.*").matches(&typed("link")) && !of("link.*").matches(&typed("linkage.x")));
        assert_eq!(of("link.*").to_string(), "link.*");
        assert!("*".parse::<TypePattern>().is_err() && "a b".parse::<TypePattern>().is_err());
    }

    #[test]
    fn another_filter_has_another_digest() {
        let one = Filter::default();
        let other = Filter { severity_min: Some(Severity::Major), ..Filter::default() };
        assert_eq!(one.digest(), Filter::default().digest());
        assert_ne!(one.digest(), other.digest());
    }
}
