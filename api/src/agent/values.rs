//! How our values look in SNMP.

use klaxon_schemas::alarm::ClearedBy;
use klaxon_schemas::change::ChangeKind;
use klaxon_schemas::severity::{EventType, Severity};
use klaxon_schemas::time::Timestamp;
use klaxon_snmp::Value;

/// How many octets DateAndTime has with its offset from UTC.
pub(crate) const DATE_AND_TIME: usize = 11;
/// What RFC 3877 and we have for a time that there is none of.
pub(crate) const NO_TIME: Value = Value::OctetString(bytes::Bytes::new());

const MICROS_A_DAY: i64 = 24 * 3600 * 1_000_000;
/// The first and the last microsecond of what DateAndTime and [`Timestamp`] can both say: the years 0 to 9999.
const MICROS_MIN: i64 = -62_167_219_200_000_000;
const MICROS_MAX: i64 = 253_402_300_799_999_999;

/// As much of `text` as has `size` bytes at most and is whole characters.
pub(crate) fn cut(text: &str, size: usize) -> &str {
    if text.len() <= size {
        return text;
    }
    let end = (0..=size).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// A text, cut to `size` bytes at a character.
pub(crate) fn text(text: &str, size: usize) -> Value {
    Value::OctetString(bytes::Bytes::copy_from_slice(cut(text, size).as_bytes()))
}

/// A text that may be absent, and is empty then.
pub(crate) fn maybe_text(words: Option<&str>, size: usize) -> Value {
    text(words.unwrap_or_default(), size)
}

/// DateAndTime (RFC 2579) in UTC, to the tenth of a second, with its offset. What is before the year 0 is held to it.
pub(crate) fn octets_of_time(time: Timestamp) -> [u8; DATE_AND_TIME] {
    let micros = time.as_micros().clamp(MICROS_MIN, MICROS_MAX);
    let (days, rest) = (micros.div_euclid(MICROS_A_DAY), micros.rem_euclid(MICROS_A_DAY));
    // Years begin in March here, so that the leap day is the last: 719468 days are from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let octet = |number: i64| u8::try_from(number).expect("is small by its range");
    let [high, low] = u16::try_from(year).expect("is held to 0 to 9999").to_be_bytes();
    let tenths = rest / 100_000;
    let (seconds, tenths) = (tenths / 10, tenths % 10);
    let (hour, minute, second) = (octet(seconds / 3600), octet(seconds / 60 % 60), octet(seconds % 60));
    [high, low, octet(month), octet(day), hour, minute, second, octet(tenths), b'+', 0, 0]
}

/// DateAndTime of `time`.
pub(crate) fn date_and_time(time: Timestamp) -> Value {
    Value::OctetString(bytes::Bytes::copy_from_slice(&octets_of_time(time)))
}

/// DateAndTime of `time`, or no octets if there is none.
pub(crate) fn maybe_time(time: Option<Timestamp>) -> Value {
    time.map_or(NO_TIME, date_and_time)
}

/// TruthValue (RFC 2579).
pub(crate) fn truth(is: bool) -> Value {
    Value::Integer(if is { 1 } else { 2 })
}

/// KlaxonTruth: TruthValue, with unknown(3).
pub(crate) fn maybe_truth(is: Option<bool>) -> Value {
    is.map_or(Value::Integer(3), truth)
}

/// A count as Gauge32, which stays at the highest it can say.
pub(crate) fn gauge(count: u64) -> Value {
    Value::Gauge32(u32::try_from(count).unwrap_or(u32::MAX))
}

/// KlaxonSeverity, ItuPerceivedSeverity (RFC 3877).
pub(crate) fn severity(severity: Severity) -> i32 {
    match severity {
        Severity::Indeterminate => 2,
        Severity::Critical => 3,
        Severity::Major => 4,
        Severity::Minor => 5,
        Severity::Warning => 6,
    }
}

/// KlaxonSeverity of what has none.
pub(crate) const NO_SEVERITY: i32 = 0;
/// ItuPerceivedSeverity of what is over.
pub(crate) const CLEARED: i32 = 1;

/// KlaxonEventType, IANAItuEventType; 0 is for what has none.
pub(crate) fn event_type(event_type: Option<EventType>) -> i32 {
    match event_type {
        None => 0,
        Some(EventType::Other) => 1,
        Some(EventType::Communications) => 2,
        Some(EventType::QualityOfService) => 3,
        Some(EventType::ProcessingError) => 4,
        Some(EventType::Equipment) => 5,
        Some(EventType::Environmental) => 6,
        Some(EventType::IntegrityViolation) => 7,
        Some(EventType::OperationalViolation) => 8,
        Some(EventType::PhysicalViolation) => 9,
        Some(EventType::SecurityServiceOrMechanismViolation) => 10,
        Some(EventType::TimeDomainViolation) => 11,
    }
}

/// klaxonAlarmClearedBy; 0 is for what stands.
pub(crate) fn cleared_by(by: Option<ClearedBy>) -> i32 {
    match by {
        None => 0,
        Some(ClearedBy::Report) => 1,
        Some(ClearedBy::Operator) => 2,
        Some(ClearedBy::EndsAt) => 3,
        Some(ClearedBy::Lifetime) => 4,
        Some(ClearedBy::Realignment) => 5,
    }
}

/// KlaxonChangeKind; 0 is for a notification that tells of no change but of what stands.
pub(crate) fn change_kind(kind: Option<ChangeKind>) -> i32 {
    match kind {
        None => 0,
        Some(ChangeKind::Raised) => 1,
        Some(ChangeKind::Updated) => 2,
        Some(ChangeKind::SeverityChanged) => 3,
        Some(ChangeKind::Cleared) => 4,
        Some(ChangeKind::Acknowledged) => 5,
        Some(ChangeKind::Unacknowledged) => 6,
        Some(ChangeKind::Assigned) => 7,
        Some(ChangeKind::Noted) => 8,
        Some(ChangeKind::Shelved) => 9,
        Some(ChangeKind::Unshelved) => 10,
        Some(ChangeKind::Staled) => 11,
        Some(ChangeKind::Refreshed) => 12,
        Some(ChangeKind::Retired) => 13,
        Some(ChangeKind::Purged) => 14,
        Some(ChangeKind::Logged) => 15,
        Some(ChangeKind::Late) => 16,
        Some(ChangeKind::ShelfAdded) => 17,
        Some(ChangeKind::ShelfRemoved) => 18,
        Some(ChangeKind::Suppressed) => 19,
        Some(ChangeKind::Unsuppressed) => 20,
        Some(ChangeKind::Refused) => 21,
        Some(ChangeKind::Quarantined) => 22,
        Some(ChangeKind::Realigned) => 23,
        Some(ChangeKind::Pending) => 24,
        Some(ChangeKind::Child) => 25,
        Some(ChangeKind::TokenCreated) => 26,
        Some(ChangeKind::TokenRevoked) => 27,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_and_say_so() {
        let octets = |text: &str| octets_of_time(text.parse().expect("is a time"));
        assert_eq!(octets("1970-01-01T00:00:00Z"), [7, 178, 1, 1, 0, 0, 0, 0, b'+', 0, 0]);
        assert_eq!(octets("2026-11-22T08:27:46.95+02:00"), [7, 234, 11, 22, 6, 27, 46, 9, b'+', 0, 0]);
        assert_eq!(octets("2024-02-29T23:59:59.999999Z"), [7, 232, 2, 29, 23, 59, 59, 9, b'+', 0, 0]);
        assert_eq!(octets("2000-03-01T00:00:00Z")[..4], [7, 208, 3, 1]);
        assert_eq!(octets("1969-12-31T23:59:59.9Z"), [7, 177, 12, 31, 23, 59, 59, 9, b'+', 0, 0]);
        assert_eq!(octets("0000-01-01T00:00:00Z")[..4], [0, 0, 1, 1]);
        assert_eq!(octets("-000044-03-15T12:00:00Z"), [0, 0, 1, 1, 0, 0, 0, 0, b'+', 0, 0]);
        assert_eq!(octets("9999-12-30T22:00:00Z")[..4], [39, 15, 12, 30]);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!((cut("häuser", 6), cut("häuser", 2), cut("häuser", 3)), ("häuse", "h", "hä"));
        assert_eq!((cut("€", 2), cut("", 0), cut("abc", 3)), ("", "", "abc"));
        assert_eq!(text("grüße", 4), Value::OctetString(bytes::Bytes::from_static("grü".as_bytes())));
    }
}
