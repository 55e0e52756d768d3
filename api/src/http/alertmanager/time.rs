//! Times as Alertmanager writes them: RFC 3339 with milliseconds; Go's zero time stands for none.

use klaxon_schemas::time::{Timestamp, TimestampError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The beginning of the year 2 in microseconds since 1970: Go's zero time is earlier, and so is nothing that is meant.
const MEANT_FROM_MICROS: i64 = -62_104_060_800_000_000;

/// A time as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written(pub(super) Timestamp);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

/// A time that may not be given: absent, null, empty or Go's zero time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MaybeTime(pub(super) Option<Timestamp>);

impl MaybeTime {
    fn parse(text: &str) -> Result<Self, TimestampError> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        Timestamp::parse(text).map(|time| Self(Some(time).filter(|time| time.as_micros() >= MEANT_FROM_MICROS)))
    }
}

impl<'de> Deserialize<'de> for MaybeTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(text.as_deref().unwrap_or_default()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_milliseconds() {
        let written = |text: &str| serde_json::to_value(Written(Timestamp::parse(text).expect("is one"))).expect("writes");
        assert_eq!(written("2026-11-22T03:12:00Z"), "2026-11-22T03:12:00.000Z");
        assert_eq!(written("2026-11-22T03:12:00.0129999+01:00"), "2026-11-22T02:12:00.012Z");
        assert_eq!(written("1969-12-31T23:59:59.999Z"), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn the_zero_time_is_none() {
        let read = |json: &str| serde_json::from_str::<MaybeTime>(json).map(|time| time.0.map(Timestamp::as_micros)).ok();
        for none in ["null", "\"\"", "\"0001-01-01T00:00:00Z\"", "\"0001-01-01T00:00:00.000Z\""] {
            assert_eq!(read(none), Some(None), "{none}");
        }
        assert_eq!(read("\"1970-01-01T00:00:01Z\""), Some(Some(1_000_000)));
        assert_eq!(read("\"0002-01-01T00:00:00Z\""), Some(Some(MEANT_FROM_MICROS)));
        assert!(read("\"tomorrow\"").is_none() && read("7").is_none());
    }
}
