//! Times as people write and read them at a shell: `2h`, `14:30`, `2026-11-22 14:30`, RFC 3339; and how long ago something was.

use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;
use klaxon_schemas::time::Timestamp;

/// A moment that was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// This far from now; whoever asks knows in which direction.
    Away(Duration),
    /// Then.
    At(Timestamp),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let moment = relative(text).or_else(|| absolute(text, TimeZone::system(), jiff::Timestamp::now()));
        moment.ok_or_else(|| format!("{text:?} is no time such as 2h, 14:30, \"2026-11-22 14:30\" or 2026-11-22T14:30:00Z"))
    }
}

fn relative(text: &str) -> Option<Moment> {
    humantime::parse_duration(text).ok().map(Moment::Away)
}

/// A time without a date is the next such time, one without an offset is local.
fn absolute(text: &str, zone: TimeZone, now: jiff::Timestamp) -> Option<Moment> {
    if let Ok(time) = Timestamp::parse(text) {
        return Some(Moment::At(time));
    }
    let time = match text.parse::<civil::Time>() {
        Ok(time) if !text.contains('-') => {
            let today = now.to_zoned(zone.clone()).date().to_datetime(time).to_zoned(zone.clone()).ok()?;
            if today.timestamp() > now { today } else { today.date().tomorrow().ok()?.to_datetime(time).to_zoned(zone).ok()? }
        }
        _ => text.parse::<civil::DateTime>().ok()?.to_zoned(zone).ok()?,
    };
    Timestamp::from_micros(time.timestamp().as_microsecond()).ok().map(Moment::At)
}

impl Moment {
    /// The moment, if a length of time reaches back.
    pub(super) fn past(self) -> Timestamp {
        match self {
            Self::Away(ago) => now().saturating_add_micros(-micros(ago)),
            Self::At(time) => time,
        }
    }

    /// The moment, if a length of time reaches forward.
    pub(super) fn future(self) -> Timestamp {
        match self {
            Self::Away(ahead) => now().saturating_add_micros(micros(ahead)),
            Self::At(time) => time,
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Now, by this host's clock.
pub(super) fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond()).expect("the clock stands within what can be written")
}

/// How long ago `time` was, in one unit: `3m`. What is ahead has a `+`.
pub(super) fn age(time: Timestamp, now: Timestamp) -> String {
    let micros = now.micros_since(time);
    let seconds = micros.unsigned_abs() / 1_000_000;
    let (count, unit) = match seconds {
        0..=119 => (seconds, "s"),
        120..=7_199 => (seconds / 60, "m"),
        7_200..=172_799 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{}{count}{unit}", if micros < -999_999 { "+" } else { "" })
}

/// The moment on this host's clock, to the second.
pub(super) fn local(time: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.as_micros()) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.to_string(),
    }
}

/// A moment, and how far it is from now.
pub(super) fn local_and_age(time: Timestamp, now: Timestamp) -> String {
    match age(time, now).strip_prefix('+') {
        Some(ahead) => format!("{} (in {ahead})", local(time)),
        None => format!("{} ({} ago)", local(time), age(time, now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("valid")
    }

    #[test]
    fn what_people_type_is_understood() {
        let now = "2026-11-22T12:00:00Z".parse().expect("valid");
        let parse = |text| relative(text).or_else(|| absolute(text, TimeZone::fixed(jiff::tz::offset(1)), now));
        assert_eq!(parse("2h"), Some(Moment::Away(Duration::from_secs(7200))));
        assert_eq!(parse("14:30"), Some(Moment::At(at("2026-11-22T13:30:00Z"))));
        assert_eq!(parse("12:30"), Some(Moment::At(at("2026-11-23T11:30:00Z"))), "it is past one o'clock there");
        assert_eq!(parse("2026-11-24 08:00"), Some(Moment::At(at("2026-11-24T07:00:00Z"))));
        assert_eq!(parse("2026-11-24"), Some(Moment::At(at("2026-11-23T23:00:00Z"))));
        assert_eq!(parse("2026-11-22T14:30:00Z"), Some(Moment::At(at("2026-11-22T14:30:00Z"))));
        assert_eq!(parse("soon"), None);
    }

    #[test]
    fn an_age_has_one_unit() {
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(age(at("2026-11-22T11:59:57Z"), now), "3s");
        assert_eq!(age(at("2026-11-22T11:57:00Z"), now), "3m");
        assert_eq!(age(at("2026-11-20T11:57:00Z"), now), "2d");
        assert_eq!(age(at("2026-11-22T14:00:00Z"), now), "+2h");
    }
}
