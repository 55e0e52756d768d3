//! StarlingX's words for what we have: the one place where both are side by side, for its protocol, its REST interface and its MIB.
//!
//! | StarlingX Fault Management | here |
//! |---|---|
//! | `alarm_id` | the alarm type, by its `starlingx_id` if the catalogue gives it one |
//! | `entity_instance_id` | the resource; a qualifier is shown as its last part; an empty one is a space, as there |
//! | `severity` | the severity; `not-applicable` is indeterminate, and indeterminate is shown as a warning: something is wrong |
//! | `alarm_type` | the event type |
//! | `probable_cause` | the word itself; `not-applicable` is none, so that the catalogue's counts |
//! | `service_affecting` | the same |
//! | `entity_type_id`, `suppression`, `inhibit_alarms` | attributes, see [`Extra`] |
//!
//! What a clear's entity stands for is in [`covers`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use uuid::Uuid;

use crate::catalogue::Catalogue;
use crate::change::{Change, Subject};
use crate::event::{AlarmKey, Attributes};
use crate::names::{AlarmType, AttributeName, AttributeValue, ProbableCause};
use crate::resource::{Resource, is_name, starts_element};
use crate::severity::{EventType, Severity};
use crate::time::Timestamp;

/// How StarlingX says "none of them".
pub const NOT_APPLICABLE: &str = "not-applicable";

/// FmAlarmState: what a record of theirs says of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmState {
    /// It is over.
    Clear,
    /// It holds.
    Set,
    /// Something happened that lasts not.
    Message,
    /// The same as it is told by SNMP.
    Log,
}

impl AlarmState {
    /// All of them; the place of each is its number.
    pub const ALL: [Self; 4] = [Self::Clear, Self::Set, Self::Message, Self::Log];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Set => "set",
            Self::Message => "msg",
            Self::Log => "log",
        }
    }

    /// By its word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// By its number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// Their severities; the place of each is its number. Programs write `clear` for the first as well.
const SEVERITIES: [(&str, Severity); 5] = [
    (NOT_APPLICABLE, Severity::Indeterminate),
    ("warning", Severity::Warning),
    ("minor", Severity::Minor),
    ("major", Severity::Major),
    ("critical", Severity::Critical),
];

/// The number of a severity, 1 to 4.
pub fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 4,
        Severity::Major => 3,
        Severity::Minor => 2,
        Severity::Warning | Severity::Indeterminate => 1,
    }
}

/// The word of a severity.
pub fn severity_word(severity: Severity) -> &'static str {
    SEVERITIES[usize::from(severity_number(severity))].0
}

/// The severity of a number.
pub fn severity_from_number(number: u32) -> Option<Severity> {
    SEVERITIES.get(usize::try_from(number).ok()?).map(|(_, severity)| *severity)
}

/// The severity of a word.
pub fn severity_from_word(word: &str) -> Option<Severity> {
    let word = if word == "clear" { NOT_APPLICABLE } else { word };
    SEVERITIES.iter().find(|(theirs, _)| *theirs == word).map(|(_, severity)| *severity)
}

/// Their alarm types, which are our event types; the place of each is its number.
const EVENT_TYPES: [(&str, EventType); 11] = [
    ("other", EventType::Other),
    ("communication", EventType::Communications),
    ("qos", EventType::QualityOfService),
    ("processing-error", EventType::ProcessingError),
    ("equipment", EventType::Equipment),
    ("environmental", EventType::Environmental),
    ("integrity-violation", EventType::IntegrityViolation),
    ("operational-violation", EventType::OperationalViolation),
    ("physical-violation", EventType::PhysicalViolation),
    ("security-service-or-mechanism-violation", EventType::SecurityServiceOrMechanismViolation),
    ("time-domain-violation", EventType::TimeDomainViolation),
];

/// The number of an event type; 0 is `other`.
pub fn event_type_number(event_type: Option<EventType>) -> u8 {
    let place = event_type.and_then(|wanted| EVENT_TYPES.iter().position(|(_, event_type)| *event_type == wanted));
    u8::try_from(place.unwrap_or(0)).expect("there are eleven")
}

/// The word of an event type.
pub fn event_type_word(event_type: Option<EventType>) -> &'static str {
    EVENT_TYPES[usize::from(event_type_number(event_type))].0
}

/// The event type of a number.
pub fn event_type_from_number(number: u32) -> Option<EventType> {
    EVENT_TYPES.get(usize::try_from(number).ok()?).map(|(_, event_type)| *event_type)
}

/// The event type of a word.
pub fn event_type_from_word(word: &str) -> Option<EventType> {
    EVENT_TYPES.iter().find(|(theirs, _)| *theirs == word).map(|(_, event_type)| *event_type)
}

/// The numbers of probable causes that their programs, their MIB and their manager agree on end before this.
pub const PROBABLE_CAUSES_AGREED: u8 = 75;

/// Their probable causes; the place of each is its number. The last three are known to their Python programs only.
const PROBABLE_CAUSES: [&str; 78] = [
    NOT_APPLICABLE,
    "adaptor-error",
    "application-subsystem-failure",
    "bandwidth-reduced",
    "call-establishment-error",
    "communication-protocol-error",
    "communication-subsystem-failure",
    "configuration-or-customization-error",
    "congestion",
    "corrupt-data",
    "cpu-cycles-limit-exceeded",
    "dataset-or-modem-error",
    "degraded-signal",
    "dte-dce-interface-error",
    "enclosure-door-open",
    "equipment-malfunction",
    "excessive-vibration",
    "file-error",
    "fire-detected",
    "flood-detected",
    "framing-error",
    "heating-ventilation-cooling-system-problem",
    "humidity-unacceptable",
    "io-device-error",
    "input-device-error",
    "lan-error",
    "leak-detected",
    "local-node-transmission-error",
    "loss-of-frame",
    "loss-of-signal",
    "material-supply-exhausted",
    "multiplexer-problem",
    "out-of-memory",
    "output-device-error",
    "performance-degraded",
    "power-problem",
    "processor-problem",
    "pump-failure",
    "queue-size-exceeded",
    "receive-failure",
    "receiver-failure",
    "remote-node-transmission-error",
    "resource-at-or-nearing-capacity",
    "response-time-excessive",
    "retransmission-rate-excessive",
    "software-error",
    "software-program-abnormally-terminated",
    "software-program-error",
    "storage-capacity-problem",
    "temperature-unacceptable",
    "threshold-crossed",
    "timing-problem",
    "toxic-leak-detected",
    "transmit-failure",
    "transmitter-failure",
    "underlying-resource-unavailable",
    "version-mismatch",
    "duplicate-information",
    "information-missing",
    "information-modification-detected",
    "information-out-of-sequence",
    "unexpected-information",
    "denial-of-service",
    "out-of-service",
    "procedural-error",
    "unspecified-reason",
    "cable-tamper",
    "intrusion-detection",
    "authentication-failure",
    "breach-of-confidentiality",
    "non-repudiation-failure",
    "unauthorized-access-attempt",
    "delayed-information",
    "key-expired",
    "out-of-hours-activity",
    "configuration-out-of-date",
    "configuration-provisioning-required",
    "certificate-expiration",
];

/// The number of a probable cause as their manager and their MIB know it: 0, not-applicable, if they know no such.
pub fn probable_cause_number(cause: Option<&str>) -> u8 {
    let place = cause.and_then(|cause| PROBABLE_CAUSES.iter().position(|word| *word == cause));
    place.and_then(|place| u8::try_from(place).ok()).filter(|number| *number < PROBABLE_CAUSES_AGREED).unwrap_or(0)
}

/// The probable cause of a number; there is one for 0, but it says nothing.
pub fn probable_cause_from_number(number: u32) -> Option<Option<ProbableCause>> {
    let word = PROBABLE_CAUSES.get(usize::try_from(number).ok()?)?;
    Some(probable_cause_from_word(word))
}

/// The probable cause that a word of theirs names, if it names one. Any word that can be one is.
pub fn probable_cause_from_word(word: &str) -> Option<ProbableCause> {
    // A release of theirs has the word with a quotation mark behind it.
    let word = word.trim_end_matches('\'');
    if word == NOT_APPLICABLE { None } else { ProbableCause::new(word).ok() }
}

/// The id by which StarlingX knows an alarm type; types that it does not know are shown by their own name.
pub fn alarm_id<'a>(catalogue: Option<&'a Catalogue>, alarm_type: &'a AlarmType) -> &'a AlarmType {
    catalogue.and_then(|catalogue| catalogue.get(alarm_type)?.starlingx_id.as_ref()).unwrap_or(alarm_type)
}

/// The alarm type that an id of StarlingX stands for: one that the catalogue gives it, else the type of that name.
pub fn alarm_type<'a>(catalogue: Option<&'a Catalogue>, alarm_id: &'a AlarmType) -> &'a AlarmType {
    catalogue.and_then(|catalogue| catalogue.get(alarm_id)).map_or(alarm_id, |entry| &entry.id)
}

/// Whether a text has the form of their ids, `GGG.EEE`.
pub fn is_alarm_id(text: &str) -> bool {
    let is_three = |part: &str| part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(group, number)| is_three(group) && is_three(number))
}

/// What they keep for an entity that is empty.
const NO_ENTITY: &str = " ";

/// An entity as they keep it.
pub fn named(entity: &str) -> &str {
    if entity.is_empty() { NO_ENTITY } else { entity }
}

/// The entity instance id of an alarm.
pub fn entity_instance_id(key: &AlarmKey) -> Cow<'_, str> {
    if key.qualifier.is_empty() {
        Cow::Borrowed(key.resource.as_str())
    } else {
        Cow::Owned(format!("{}.qualifier={}", key.resource, &*key.qualifier))
    }
}

/// Whether what is said of `entity` is meant for `other` as well, where StarlingX takes an entity for the beginning of others: to
/// clear alarms and to list them. There `host=compute-1` also begins `host=compute-10`, and `_` and `%` are wildcards; what its
/// programs mean is
///
/// * the entity itself,
/// * what it contains: `host=compute-1.port=eth0` (see [`Resource`]),
/// * what completes its last name: `host=compute-1.ntp=10.0.0.1` of `host=compute-1.ntp`.
pub fn covers(entity: &str, other: &str) -> bool {
    let Some(rest) = other.strip_prefix(entity) else { return false };
    let last = entity.rsplit('.').next().unwrap_or(entity);
    rest.is_empty() || starts_element(rest) || (rest.starts_with('=') && is_name(last))
}

/// The uuid of what StarlingX would log for a change: every line of its log has one of its own. Nothing where it logs nothing.
pub fn event_log_uuid(change: &Change) -> Option<Uuid> {
    let number = change.number;
    match &change.subject {
        Subject::Alarm { alarm, .. } => Some(Uuid::new_v5(&alarm.id.0, format!("{}.{}", number.epoch, number.seq).as_bytes())),
        Subject::Event { .. } => {
            let name = format!("{}.{}.{}", change.site, number.epoch, number.seq);
            Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
        }
        _ => None,
    }
}

/// The attribute for the kind of thing that an alarm is about, where its reporter said so.
pub const ENTITY_TYPE: &str = "starlingx.entity_type_id";
/// The attribute for whether an alarm may be masked by one that stands above it: `true` or `false`.
pub const SUPPRESSION: &str = "starlingx.suppression";
/// The attribute for whether an alarm masks those that stand under it: `true` or `false`.
pub const INHIBIT_ALARMS: &str = "starlingx.inhibit_alarms";

/// What the reporter called the kind of thing, else the name of the resource's last part, if it has one.
pub fn entity_type<'a>(attributes: &'a Attributes, resource: &'a Resource) -> &'a str {
    let said = attributes.get(ENTITY_TYPE).map(AttributeValue::as_str);
    said.or_else(|| resource.elements().last()?.name).unwrap_or_default()
}

/// Whether an alarm may be masked by one of what contains it: unless its reporter said otherwise.
pub fn may_be_masked(attributes: &Attributes) -> bool {
    attributes.get(SUPPRESSION).is_none_or(|word| word.as_str() != "false")
}

/// What a record of theirs says that has no place of its own in an event: it is kept in attributes and shown again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// What kind of entity it is about, e.g. `host`.
    pub entity_type_id: String,
    /// Whether the alarm may be masked by one of what contains it.
    pub suppression: bool,
    /// Whether it masks those of what it is about. Nothing is masked here.
    pub inhibit_alarms: bool,
}

impl Extra {
    /// What an alarm shows of it; for one that others report what comes nearest.
    pub fn of(attributes: &Attributes, resource: &Resource) -> Self {
        Self {
            entity_type_id: entity_type(attributes, resource).to_owned(),
            suppression: may_be_masked(attributes),
            inhibit_alarms: attributes.get(INHIBIT_ALARMS).is_some_and(|word| word.as_str() == "true"),
        }
    }

    /// The attributes that keep it.
    pub fn attributes(&self) -> Attributes {
        let yes_or_no = |is: bool| if is { "true" } else { "false" };
        let words = [
            (ENTITY_TYPE, self.entity_type_id.as_str()),
            (SUPPRESSION, yes_or_no(self.suppression)),
            (INHIBIT_ALARMS, yes_or_no(self.inhibit_alarms)),
        ];
        let attributes: BTreeMap<_, _> = words
            .into_iter()
            .map(|(name, value)| {
                let value = AttributeValue::lossy(value).expect("may be empty");
                (AttributeName::new(name).expect("is printable"), value)
            })
            .collect();
        Attributes::new(attributes).expect("are three")
    }
}

/// A time as it is written there: in UTC, without saying so, to the microsecond.
pub fn time_text(time: Timestamp) -> String {
    let moment = jiff::Timestamp::from_microsecond(time.as_micros()).expect("checked when it was made");
    moment.strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

/// A time as it may be written there: ISO 8601, with or without separators and time of day; in UTC if it does not say otherwise.
pub fn time_of(text: &str) -> Option<Timestamp> {
    if let Ok(time) = Timestamp::parse(text) {
        return Some(time);
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let moment = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
    Timestamp::from_micros(moment.as_microsecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_agree() {
        for (number, severity) in (0..).zip(Severity::ALL) {
            assert_eq!(severity_from_number(number), Some(severity));
            assert_eq!(severity_from_word(severity_word(severity)), Some(severity.max(Severity::Warning)));
        }
        assert_eq!((severity_from_number(5), severity_from_word("clear")), (None, Some(Severity::Indeterminate)));
        assert_eq!((severity_word(Severity::Indeterminate), severity_from_word("cleared")), ("warning", None));
        for (number, (word, event_type)) in (0..).zip(EVENT_TYPES) {
            assert_eq!((event_type_from_number(number), event_type_from_word(word)), (Some(event_type), Some(event_type)));
            assert_eq!((u32::from(event_type_number(Some(event_type))), event_type_word(Some(event_type))), (number, word));
        }
        assert_eq!((event_type_from_number(11), event_type_word(None)), (None, "other"));
        for (number, state) in (0..).zip(AlarmState::ALL) {
            assert_eq!((AlarmState::from_number(number), AlarmState::from_word(state.as_str())), (Some(state), Some(state)));
        }
        assert_eq!(AlarmState::from_number(4), None);
    }

    #[test]
    fn causes_that_only_some_of_their_programs_know_keep_their_word() {
        let word = |number| probable_cause_from_number(number).map(|cause| cause.map(|cause| cause.as_str().to_owned()));
        assert_eq!(word(0), Some(None));
        assert_eq!(word(50), Some(Some("threshold-crossed".to_owned())));
        assert_eq!(word(74), Some(Some("out-of-hours-activity".to_owned())));
        assert_eq!(word(77), Some(Some("certificate-expiration".to_owned())));
        assert_eq!(word(78), None);
        let numbers = ["threshold-crossed", "out-of-hours-activity", "certificate-expiration", "no-such"];
        assert_eq!(numbers.map(|word| probable_cause_number(Some(word))), [50, 74, 0, 0]);
        assert_eq!(probable_cause_from_word("excessive-vibration'").as_deref(), Some("excessive-vibration"));
        assert_eq!((probable_cause_from_word(NOT_APPLICABLE), probable_cause_from_word("Not one")), (None, None));
    }

    #[test]
    fn ids_are_those_of_the_catalogue() {
        let catalogue = Catalogue::built_in();
        let name = |text: &str| AlarmType::new(text).expect("is a token");
        let (full, theirs, unknown) = (name("disk.full"), name("100.104"), name("999.999"));
        assert_eq!(alarm_id(Some(&catalogue), &full), &theirs);
        assert_eq!(alarm_type(Some(&catalogue), &theirs), &full);
        assert_eq!((alarm_id(Some(&catalogue), &unknown), alarm_type(None, &unknown)), (&unknown, &unknown));
        assert!(is_alarm_id("100.104") && !is_alarm_id("disk.full") && !is_alarm_id("100.1040") && !is_alarm_id("100104"));
    }

    #[test]
    fn an_entity_covers_what_it_contains_and_what_completes_it_and_no_neighbour() {
        for (entity, other) in [
            ("host=compute-1", "host=compute-1"),
            ("host=compute-1", "host=compute-1.port=eth0"),
            ("host=compute-1.ntp", "host=compute-1.ntp=10.0.0.1"),
            ("host=compute-1.ntp", "host=compute-1.ntp=10.0.0.1.port=123"),
            ("host=c.instance=i.ptp", "host=c.instance=i.ptp=no-lock"),
            ("ntp", "ntp=10.0.0.1"),
            (" ", " "),
        ] {
            assert!(covers(entity, other), "{entity} covers {other}");
        }
        for (entity, other) in [
            ("host=compute-1", "host=compute-10"),
            ("host=compute-1", "host=compute-1.example.com"),
            ("host=compute_1", "host=computeX1"),
            ("host=%", "host=compute-1"),
            ("host=compute-1", "host=compute-1=x"),
            ("host=compute-1.port=eth0", "host=compute-1"),
            ("host=compute-1.ntp", "host=compute-1.ntpd=x"),
            ("", "host=compute-1"),
        ] {
            assert!(!covers(entity, other), "{entity} does not cover {other}");
        }
    }

    #[test]
    fn what_has_no_place_of_its_own_is_kept() {
        let resource = Resource::new("host=web-1.filesystem=/var").expect("is one");
        let said = Extra { entity_type_id: "host".to_owned(), suppression: false, inhibit_alarms: true };
        assert_eq!(Extra::of(&said.attributes(), &resource), said);
        let derived = Extra { entity_type_id: "filesystem".to_owned(), suppression: true, inhibit_alarms: false };
        assert_eq!(Extra::of(&Attributes::default(), &resource), derived);
    }

    #[test]
    fn times_are_in_utc_and_do_not_say_so() {
        let time = |text: &str| Timestamp::parse(text).expect("is a time");
        assert_eq!(time_text(time("2026-11-22T10:19:34.134583+02:00")), "2026-11-22T08:19:34.134583");
        assert_eq!(time_text(time("2026-11-22T08:19:34Z")), "2026-11-22T08:19:34.000000");
        for text in
            ["2016-01-31T10:23:45", "2016-01-31 10:23:45", "20160131 10:23:45", "20160131T102345", "2016-01-31T12:23:45+02:00"]
        {
            assert_eq!(time_of(text), Some(time("2016-01-31T10:23:45Z")), "{text}");
        }
        assert_eq!(time_of("20271225"), Some(time("2027-12-25T00:00:00Z")));
        assert_eq!((time_of("yesterday"), time_of(""), time_of("10:23")), (None, None, None));
    }
}
