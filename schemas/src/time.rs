//! Two clocks: [`Timestamp`] is what the wall says, [`JournalTime`] is what deadlines are kept in.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};

/// A moment of wall-clock time, in microseconds since 1970-01-01T00:00:00Z. On the wire: RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text or number is no timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Not RFC 3339.
    #[error("is no RFC 3339 time with an offset, such as 2026-11-22T03:12:00Z")]
    Format,
    /// Before the year -9999 or after 9999.
    #[error("is outside the years -9999 to 9999")]
    Range,
}

impl Timestamp {
    /// From microseconds since 1970; refuses what RFC 3339 cannot write.
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        jiff::Timestamp::from_microsecond(micros).map(|_| Self(micros)).map_err(|_| TimestampError::Range)
    }

    /// From RFC 3339.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let parsed: jiff::Timestamp = text.parse().map_err(|_| TimestampError::Format)?;
        Ok(Self(parsed.as_microsecond()))
    }

    /// Microseconds since 1970.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// The time that is `micros` later (earlier if negative), held to what can be written.
    pub fn saturating_add_micros(self, micros: i64) -> Self {
        let limited = self.0.saturating_add(micros);
        Self(limited.clamp(jiff::Timestamp::MIN.as_second() * 1_000_000, jiff::Timestamp::MAX.as_second() * 1_000_000))
    }

    /// Microseconds from `earlier` to this, negative if this is earlier.
    pub fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).expect("checked when it was made")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_jiff(), f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TimestampVisitor)
    }
}

struct TimestampVisitor;

impl serde::de::Visitor<'_> for TimestampVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an RFC 3339 time")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
        Timestamp::parse(text).map_err(E::custom)
    }
}

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339 with an offset; kept to the microsecond."))
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

/// A node's own time in microseconds: it starts at the wall time of the first start, runs by CLOCK_BOOTTIME and never goes
/// back, whatever is done to the wall clock. Deadlines are kept in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct JournalTime(pub u64);

impl Add<std::time::Duration> for JournalTime {
    type Output = Self;
    fn add(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl JournalTime {
    /// This time moved by `micros`, held at zero.
    pub fn saturating_add_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add_signed(micros))
    }

    /// How long it is from `earlier` to this; nothing if this is not later.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_round_trips_and_needs_an_offset() {
        let time = Timestamp::parse("2026-11-22T04:12:00.5+01:00").expect("valid");
        assert_eq!(time.to_string(), "2026-11-22T03:12:00.5Z");
        assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        assert_eq!(Timestamp::parse("2026-11-22T04:12:00"), Err(TimestampError::Format));
        assert_eq!(Timestamp::from_micros(i64::MAX), Err(TimestampError::Range));
        let last = time.saturating_add_micros(i64::MAX);
        assert_eq!(Timestamp::from_micros(last.as_micros()), Ok(last));
    }
}
