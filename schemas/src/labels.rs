//! Labels: names and values by which the Prometheus world knows an alert. An alarm that came from there keeps them as they came;
//! of any other they are made of what it is about ([`Named`]), so that every alarm can be picked by labels.

mod matcher;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};

pub use matcher::{LABEL_MATCHERS_MAX, LabelMatcher, MatchOp, MatcherError, MatcherForm, is_enough};

use crate::alarm::Alarm;
use crate::catalogue::Catalogue;
use crate::event::{AlarmKey, Details};
use crate::severity::{EventType, Severity};

/// The most labels of an alert.
pub const LABELS_MAX: usize = 64;
/// The most bytes they may have together, as JSON.
pub const LABELS_BYTES_MAX: usize = 8 * 1024;
/// The name of the label that says what kind of alert it is.
pub const ALERT_NAME: &str = "alertname";
/// The names of labels that mean something here; no element of a resource takes one.
const NAMED: [&str; 6] = [ALERT_NAME, "severity", "event_type", "site", "resource", "qualifier"];

/// Labels as they came, without those that have no value. They are kept as one JSON object whose members are sorted by name:
/// there may be hundreds of thousands of such sets, most are only stored and shown, and equal sets have equal texts. Cloning shares
/// it.
#[derive(Clone, Default)]
pub struct Labels(Option<Arc<Kept>>);

/// A set of labels as it is kept: both is asked for whenever alerts are listed.
struct Kept {
    fingerprint: u64,
    json: Box<RawValue>,
}

/// Why labels cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// A name is empty.
    #[error("have an empty name")]
    EmptyName,
    /// A name stands there twice.
    #[error("have {name:?} twice")]
    Twice {
        /// Which.
        name: String,
    },
    /// More than [`LABELS_MAX`].
    #[error("are {count}, at most {LABELS_MAX} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// More bytes than [`LABELS_BYTES_MAX`].
    #[error("have {bytes} bytes, at most {LABELS_BYTES_MAX} are allowed")]
    TooLong {
        /// How many they have.
        bytes: usize,
    },
}

impl Labels {
    /// Keeps those of `labels` that have a value.
    pub fn new(labels: &LabelSet<'_>) -> Result<Self, LabelsError> {
        let given = || labels.iter().filter(|(_, value)| !value.is_empty());
        let count = given().count();
        if count == 0 {
            return Ok(Self::default());
        }
        if count > LABELS_MAX {
            return Err(LabelsError::TooMany { count });
        }
        let mut json = Vec::with_capacity(given().map(|(name, value)| name.len() + value.len() + 6).sum());
        let mut before = None;
        for (name, value) in given() {
            if name.is_empty() {
                return Err(LabelsError::EmptyName);
            }
            if before.replace(name) == Some(name) {
                return Err(LabelsError::Twice { name: name.to_owned() });
            }
            json.push(if json.is_empty() { b'{' } else { b',' });
            serde_json::to_writer(&mut json, name).expect("a text serializes");
            json.push(b':');
            serde_json::to_writer(&mut json, value).expect("a text serializes");
        }
        json.push(b'}');
        if json.len() > LABELS_BYTES_MAX {
            return Err(LabelsError::TooLong { bytes: json.len() });
        }
        let json = String::from_utf8(json).expect("JSON of texts is UTF-8");
        let json = RawValue::from_string(json).expect("is JSON");
        Ok(Self(Some(Arc::new(Kept { fingerprint: labels.fingerprint(), json }))))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many bytes they have as JSON.
    pub fn len(&self) -> usize {
        self.json().len()
    }

    /// A JSON object, sorted by name.
    pub fn json(&self) -> &str {
        self.0.as_ref().map_or("{}", |kept| kept.json.get())
    }

    /// As [`LabelSet::fingerprint`].
    pub fn fingerprint(&self) -> u64 {
        self.0.as_ref().map_or_else(|| LabelSet::default().fingerprint(), |kept| kept.fingerprint)
    }

    /// One by one.
    pub fn set(&self) -> LabelSet<'_> {
        let Some(kept) = &self.0 else { return LabelSet::default() };
        serde_json::from_str(kept.json.get()).expect("was written from labels")
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for Labels {}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(kept) => kept.json.serialize(serializer),
            None => serializer.collect_map(std::iter::empty::<(&str, &str)>()),
        }
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let set = Option::<LabelSet<'_>>::deserialize(deserializer)?.unwrap_or_default();
        Self::new(&set).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Object))
            .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
            .description(Some(format!(
                "Labels as the Prometheus world knows them, at most {LABELS_MAX} and {LABELS_BYTES_MAX} bytes."
            )))
            .into()
    }
}

impl utoipa::ToSchema for Labels {}

/// Names and values, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSet<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> LabelSet<'a> {
    /// Of `pairs`, in whatever order.
    pub fn new(mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>) -> Self {
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self(pairs)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `name`; empty if there is none, which is the same.
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.binary_search_by(|(other, _)| (**other).cmp(name));
        found.map_or("", |place| &*self.0[place].1)
    }

    /// By what Alertmanager and Prometheus tell label sets apart: FNV-1a in 64 bits over names and values, each with 0xff behind it.
    /// Labels without a value do not count.
    pub fn fingerprint(&self) -> u64 {
        const START: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let given = self.iter().filter(|(_, value)| !value.is_empty());
        let bytes = given.flat_map(|(name, value)| name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]));
        bytes.fold(START, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for LabelSet<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs)
    }
}

/// Reads members in whatever order. Texts without escapes are not copied.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = LabelSet<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {LABELS_MAX} texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LabelSet<'de>, A::Error> {
        let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(12).min(LABELS_MAX));
        while pairs.len() < LABELS_MAX {
            match map.next_entry::<Word<'de>, Word<'de>>()? {
                Some((name, value)) => pairs.push((name.0, value.0)),
                None => return Ok(LabelSet::new(pairs)),
            }
        }
        match map.next_entry::<IgnoredAny, IgnoredAny>()? {
            Some(_) => Err(serde::de::Error::custom(format_args!("has more than {LABELS_MAX} members"))),
            None => Ok(LabelSet::new(pairs)),
        }
    }
}

/// A text that is not copied where it can be helped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Word<'a>(#[serde(borrow, deserialize_with = "word")] Cow<'a, str>);

fn word<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a text")
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }

        fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text))
        }
    }
    deserializer.deserialize_str(Text)
}

/// Labels that are made of what an alarm is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Those that name it, and stay the same as long as it is the same.
    pub names: BTreeMap<String, String>,
    /// Those beside them.
    pub more: BTreeMap<String, String>,
}

impl Named {
    /// Of an alarm or a log event. Elements of the resource are what people route by; names that mean something here already keep
    /// their meaning.
    pub fn of(key: &AlarmKey, severity: Option<Severity>, details: &Details, catalogue: Option<&Catalogue>) -> Self {
        let mut names = BTreeMap::from([
            (ALERT_NAME.to_owned(), key.alarm_type.to_string()),
            ("site".to_owned(), key.site.to_string()),
            ("resource".to_owned(), key.resource.to_string()),
        ]);
        if !key.qualifier.is_empty() {
            names.insert("qualifier".to_owned(), key.qualifier.to_string());
        }
        let mut more = BTreeMap::new();
        for element in key.resource.elements() {
            if let Some(name) = element.name.map(label_name).filter(|name| !NAMED.contains(&name.as_str())) {
                more.insert(name, element.value.to_owned());
            }
        }
        if let Some(severity) = severity {
            more.insert("severity".to_owned(), severity.as_str().to_owned());
        }
        let entry = || catalogue?.get(&key.alarm_type).map(|entry| entry.event_type);
        if let Some(event_type) = details.event_type.or_else(entry) {
            more.insert("event_type".to_owned(), word_of(event_type));
        }
        Self { names, more }
    }
}

/// The labels of an alarm: those that it came with, or else those that are made of it.
pub fn of_alarm<'a>(alarm: &'a Alarm, catalogue: Option<&Catalogue>) -> LabelSet<'a> {
    if !alarm.details.labels.is_empty() {
        return alarm.details.labels.set();
    }
    let Named { names, more } = Named::of(&alarm.key, Some(alarm.severity), &alarm.details, catalogue);
    let pairs = names.into_iter().chain(more).filter(|(_, value)| !value.is_empty());
    LabelSet::new(pairs.map(|(name, value)| (Cow::Owned(name), Cow::Owned(value))).collect())
}

/// A text as the name of a label: letters, digits and underscores.
pub fn label_name(text: &str) -> String {
    let mut name: String =
        text.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// The word that stands for an event type on the wire.
fn word_of(event_type: EventType) -> String {
    serde_json::to_value(event_type).ok().as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(pairs: &[(&'a str, &'a str)]) -> LabelSet<'a> {
        LabelSet::new(pairs.iter().map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value))).collect())
    }

    #[test]
    fn labels_are_sorted_and_come_back_as_they_were() {
        let labels = Labels::new(&set(&[("b", "2\n\"x\""), ("a", "ü"), ("c", "")])).expect("good");
        assert_eq!(labels.json(), r#"{"a":"ü","b":"2\n\"x\""}"#);
        assert_eq!(labels.set(), set(&[("a", "ü"), ("b", "2\n\"x\"")]));
        assert_eq!((labels.set().get("b"), labels.set().get("c")), ("2\n\"x\"", ""));
        let json = serde_json::to_string(&labels).expect("serializes");
        assert_eq!(serde_json::from_str::<Labels>(&json).expect("reads"), labels);
        assert_eq!(serde_json::to_value(&labels).expect("serializes")["b"], "2\n\"x\"");
        assert_eq!(Labels::new(&set(&[("a", "")])), Ok(Labels::default()));
        assert_eq!(Labels::default().json(), "{}");
        assert_eq!(labels.fingerprint(), labels.set().fingerprint());
    }

    #[test]
    fn what_is_no_set_of_labels_is_refused() {
        assert_eq!(Labels::new(&set(&[("", "x")])), Err(LabelsError::EmptyName));
        assert_eq!(Labels::new(&set(&[("a", "x"), ("a", "y")])), Err(LabelsError::Twice { name: "a".to_owned() }));
        let long = "x".repeat(LABELS_BYTES_MAX);
        assert_eq!(Labels::new(&set(&[("a", &long)])), Err(LabelsError::TooLong { bytes: long.len() + 8 }));
        let names: Vec<String> = (0..=LABELS_MAX).map(|number| format!("l{number}")).collect();
        let many = set(&names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>());
        assert_eq!(Labels::new(&many), Err(LabelsError::TooMany { count: LABELS_MAX + 1 }));
        let json = format!("{{{}}}", names.iter().map(|name| format!("\"{name}\":\"x\"")).collect::<Vec<_>>().join(","));
        assert!(serde_json::from_str::<Labels>(&json).is_err() && serde_json::from_str::<Labels>(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn fingerprints_are_those_that_alertmanager_gives() {
        // Of no labels it is the start of FNV-1a; `tests/alertmanager_api.rs` asks a real Alertmanager for others.
        assert_eq!(format!("{:016x}", LabelSet::default().fingerprint()), "cbf29ce484222325");
        assert_eq!(set(&[("b", "2"), ("a", "1"), ("c", "")]).fingerprint(), set(&[("a", "1"), ("b", "2")]).fingerprint());
        assert_ne!(set(&[("a", "1")]).fingerprint(), set(&[("a1", "")]).fingerprint());
    }
}
