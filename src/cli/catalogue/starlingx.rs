//! StarlingX's catalogue, `events.yaml`, becomes one of ours.
//!
//! | there | here |
//! |---|---|
//! | the record's id, such as `100.110` | the id; where a type that comes with the program means the same, that one's with `starlingx_id` |
//! | `Type: Log` | `will_clear = false` |
//! | a value by severity | what is said of the highest, and the others' in `by_severity` |
//! | a list (of one value for each of what the record stands for) | what all of it says; of causes and kinds, which are one here, the first |
//! | `Management_Affecting_Severity`, `Degrade_Affecting_Severity` | `management_affecting`, `degrade_affecting` |
//! | `Maintenance_Action`, `Inhibit_Alarms`, `Suppression`, `Context` | kept under `starlingx` |

use std::collections::BTreeMap;
use std::fmt;

use klaxon_schemas::catalogue::{Affecting, Catalogue, CatalogueFile, StarlingxSays, TypeEntry, Variant};
use klaxon_schemas::names::{AlarmType, ProbableCause, Text};
use klaxon_schemas::severity::Severity;
use klaxon_schemas::starlingx::{event_type_from_word, is_alarm_id, severity_from_word};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// The longest title that is made of a description.
const TITLE_CHARS_MAX: usize = 80;

/// What was read, and what had to be said of it.
pub(super) struct Imported {
    pub(super) file: CatalogueFile,
    pub(super) alarms: usize,
    pub(super) logs: usize,
    /// What could not be taken as it stands, each with its line and id.
    pub(super) remarks: Vec<String>,
}

/// One record. Keys that are not known are said to be left out.
#[derive(Debug, Deserialize)]
struct Record {
    #[serde(rename = "Type")]
    kind: Said,
    #[serde(rename = "Description")]
    description: Said,
    #[serde(rename = "Entity_Instance_ID", default)]
    entity: Said,
    #[serde(rename = "Severity")]
    severity: Said,
    #[serde(rename = "Proposed_Repair_Action", default)]
    repair_action: Said,
    #[serde(rename = "Maintenance_Action", default)]
    maintenance_action: Said,
    #[serde(rename = "Inhibit_Alarms", default)]
    inhibit_alarms: Said,
    #[serde(rename = "Alarm_Type")]
    event_type: Said,
    #[serde(rename = "Probable_Cause")]
    probable_cause: Said,
    #[serde(rename = "Service_Affecting", default)]
    service_affecting: Said,
    #[serde(rename = "Suppression", default)]
    suppression: Said,
    #[serde(rename = "Management_Affecting_Severity", default)]
    management_affecting: Said,
    #[serde(rename = "Degrade_Affecting_Severity", default)]
    degrade_affecting: Said,
    #[serde(rename = "Context", default)]
    context: Said,
    #[serde(flatten)]
    more: BTreeMap<String, serde::de::IgnoredAny>,
}

/// A value: one, several, or one for each severity. A word is a word, also one that YAML takes for a truth or a number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Said {
    #[default]
    Nothing,
    One(String),
    Many(Vec<String>),
    BySeverity(BTreeMap<String, String>),
}

impl Said {
    fn all(&self) -> Vec<&str> {
        match self {
            Self::Nothing => Vec::new(),
            Self::One(word) => vec![word],
            Self::Many(words) => words.iter().map(String::as_str).collect(),
            Self::BySeverity(words) => words.values().map(String::as_str).collect(),
        }
    }

    /// What it says of this severity alone.
    fn only(&self, severity: Severity) -> Option<&str> {
        match self {
            Self::BySeverity(words) => words.get(severity.as_str()).map(String::as_str),
            _ => None,
        }
    }

    /// What it says of all, or of the highest of these severities that it has something of.
    fn of_type(&self, severities: &[Severity]) -> Vec<&str> {
        match self {
            Self::BySeverity(_) => severities.iter().rev().find_map(|severity| self.only(*severity)).into_iter().collect(),
            _ => self.all(),
        }
    }
}

/// A word in a list or a map.
#[derive(Deserialize)]
#[serde(transparent)]
struct Word(#[serde(deserialize_with = "word")] String);

fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Said::deserialize(deserializer)? {
        Said::Nothing => Ok(String::new()),
        Said::One(word) => Ok(word),
        Said::Many(_) | Said::BySeverity(_) => Err(serde::de::Error::custom("a word is expected, not a list in a list")),
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Said;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, a list of words, or words by severity")
            }

            fn visit_unit<E>(self) -> Result<Said, E> {
                Ok(Said::Nothing)
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Said, E> {
                Ok(Said::One(if truth { "True" } else { "False" }.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Said, E> {
                Ok(Said::One(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Said, E> {
                Ok(Said::One(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Said, E> {
                Ok(Said::One(number.to_string()))
            }

            fn visit_str<E>(self, word: &str) -> Result<Said, E> {
                // Lines are broken where there was no room.
                let words = word.split_whitespace().collect::<Vec<_>>().join(" ");
                Ok(if words.is_empty() { Said::Nothing } else { Said::One(words) })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Said, A::Error> {
                let mut words = Vec::new();
                while let Some(Word(word)) = list.next_element()? {
                    words.push(word);
                }
                Ok(Said::Many(words))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
                let mut words = BTreeMap::new();
                while let Some((severity, Word(word))) = map.next_entry::<String, Word>()? {
                    words.insert(severity, word);
                }
                Ok(Said::BySeverity(words))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Reads `events.yaml`. An error says line and field; a record that is wrong spoils the whole, because what a catalogue lacks is not seen.
pub(super) fn import(text: &str) -> Result<Imported, String> {
    let records: BTreeMap<String, Spanned<Record>> = serde_saphyr::from_str(text).map_err(|error| {
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    })?;
    let built_in = Catalogue::built_in();
    let mut imported = Imported { file: CatalogueFile { alarm_type: Vec::new() }, alarms: 0, logs: 0, remarks: Vec::new() };
    for (id, record) in records {
        let line = record.referenced.line();
        let mut remarks = Vec::new();
        let entry =
            entry(&id, &record.value, &built_in, &mut remarks).map_err(|error| format!("line {line}: {id}: {error}"))?;
        imported.remarks.extend(remarks.into_iter().map(|remark| format!("line {line}: {id}: {remark}")));
        *(if entry.is_log() { &mut imported.logs } else { &mut imported.alarms }) += 1;
        imported.file.alarm_type.push(entry);
    }
    Ok(imported)
}

fn entry(id: &str, record: &Record, built_in: &Catalogue, remarks: &mut Vec<String>) -> Result<TypeEntry, String> {
    if !is_alarm_id(id) {
        return Err("is no id such as 100.110".to_owned());
    }
    if !record.more.is_empty() {
        let names: Vec<&str> = record.more.keys().map(String::as_str).collect();
        remarks.push(format!("{} is left out: nothing is known of it", names.join(", ")));
    }
    let is_log = match record.kind.all()[..] {
        ["Alarm"] => false,
        ["Log"] => true,
        ref other => return Err(format!("Type: {other:?} is neither Alarm nor Log")),
    };
    let mut severities = Vec::new();
    for word in record.severity.all() {
        let severity =
            severity_from_word(word).filter(|_| word != "clear").ok_or_else(|| format!("Severity: {word:?} is none"))?;
        severities.push(severity);
    }
    severities.sort_unstable();
    severities.dedup();
    if severities.is_empty() {
        return Err("Severity: is missing".to_owned());
    }
    let event_type = one("Alarm_Type", &record.event_type, remarks)?;
    let event_type = event_type_from_word(event_type).ok_or_else(|| format!("Alarm_Type: {event_type:?} is none"))?;
    let cause = one("Probable_Cause", &record.probable_cause, remarks)?;
    let probable_cause = ProbableCause::new(cause).map_err(|error| format!("Probable_Cause: {cause:?} {error}"))?;
    let text = words(&record.description.of_type(&severities));
    let known = built_in.get(id);
    let starlingx_id = AlarmType::new(id).map_err(|error| error.to_string())?;
    let mut entry = TypeEntry {
        title: title(&text),
        event_type,
        probable_cause,
        will_clear: !is_log,
        text,
        repair_action: words(&record.repair_action.of_type(&severities)),
        service_affecting: truth("Service_Affecting", &record.service_affecting.of_type(&severities))?,
        management_affecting: affecting("Management_Affecting_Severity", &record.management_affecting)?,
        degrade_affecting: affecting("Degrade_Affecting_Severity", &record.degrade_affecting)?,
        resources: record.entity.all().into_iter().filter(|form| !form.is_empty()).map(text_of).collect(),
        by_severity: BTreeMap::new(),
        starlingx: says(record, &severities)?,
        // What comes with the program and is known by this id is the same: alarms of it, whoever reports them, are of one type.
        id: known.map_or_else(|| starlingx_id.clone(), |known| known.id.clone()),
        starlingx_id: known.map(|_| starlingx_id),
        lifetime_s: known.and_then(|known| known.lifetime_s),
        runbook: known.and_then(|known| known.runbook.clone()),
        thresholds: known.and_then(|known| known.thresholds.clone()),
        severities: Vec::new(),
    };
    entry.resources.dedup();
    for severity in &severities {
        let variant = variant(record, *severity, &entry)?;
        if variant != Variant::default() {
            entry.by_severity.insert(*severity, variant);
        }
    }
    // Reporters here may know more of them than StarlingX's.
    severities.extend(known.iter().flat_map(|known| &known.severities));
    severities.sort_unstable();
    severities.dedup();
    entry.severities = severities;
    let is_said = |said: &Said| match said {
        Said::BySeverity(words) => words.keys().find(|word| severity_from_word(word).is_none()).cloned(),
        _ => None,
    };
    let by_severity =
        [&record.description, &record.repair_action, &record.maintenance_action, &record.service_affecting, &record.entity];
    if let Some(word) = by_severity.into_iter().find_map(is_said) {
        return Err(format!("{word:?} is no severity"));
    }
    Ok(entry)
}

/// What is otherwise with this severity.
fn variant(record: &Record, severity: Severity, entry: &TypeEntry) -> Result<Variant, String> {
    let words = |said: &Said, usual: Option<&Text>| said.only(severity).map(text_of).filter(|words| Some(words) != usual);
    let service_affecting =
        truth("Service_Affecting", &record.service_affecting.only(severity).into_iter().collect::<Vec<_>>())?;
    let usual = entry.starlingx.as_ref().and_then(|says| says.maintenance_action.as_ref());
    Ok(Variant {
        text: words(&record.description, Some(&entry.text)),
        repair_action: words(&record.repair_action, Some(&entry.repair_action)),
        service_affecting: service_affecting.filter(|is| Some(*is) != entry.service_affecting),
        maintenance_action: words(&record.maintenance_action, usual),
    })
}

fn says(record: &Record, severities: &[Severity]) -> Result<Option<StarlingxSays>, String> {
    let some = |said: &Said| Some(words(&said.of_type(severities))).filter(|words| !words.is_empty());
    let says = StarlingxSays {
        maintenance_action: some(&record.maintenance_action),
        inhibit_alarms: truth("Inhibit_Alarms", &record.inhibit_alarms.all())?,
        suppression: truth("Suppression", &record.suppression.all())?,
        context: some(&record.context).filter(|context| context.as_str() != "none"),
    };
    Ok(Some(says).filter(|says| *says != StarlingxSays::default()))
}

/// The one word of a value; of several the first, and a remark if they differ.
fn one<'a>(field: &str, said: &'a Said, remarks: &mut Vec<String>) -> Result<&'a str, String> {
    let all = said.all();
    let (first, others) = all.split_first().ok_or_else(|| format!("{field}: is missing"))?;
    if others.iter().any(|other| other != first) {
        remarks.push(format!("{field}: a type has one; the first is taken of {}", all.join(", ")));
    }
    Ok(first)
}

fn truth(field: &str, words: &[&str]) -> Result<Option<bool>, String> {
    let mut truth = None;
    for word in words.iter().filter(|word| !word.is_empty()) {
        let is = match word.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(format!("{field}: {word:?} is neither True nor False")),
        };
        // Of several the one that is more.
        truth = Some(truth.unwrap_or(false) || is);
    }
    Ok(truth)
}

fn affecting(field: &str, said: &Said) -> Result<Option<Affecting>, String> {
    match said.all()[..] {
        [] => Ok(None),
        [word] => serde_json::from_value(serde_json::Value::from(word))
            .map(Some)
            .map_err(|_| format!("{field}: {word:?} is no severity")),
        _ => Err(format!("{field}: one severity is expected")),
    }
}

/// Several texts as one.
fn words(words: &[&str]) -> Text {
    let mut all: Vec<&str> = words.iter().copied().filter(|words| !words.is_empty()).collect();
    all.dedup();
    text_of(&all.join(" | "))
}

fn text_of(words: &str) -> Text {
    Text::lossy(words).expect("may be empty")
}

/// The beginning of a description.
fn title(text: &Text) -> Text {
    let end = [";", ". ", " | ", " ("].iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    let first = text[..end].trim_end_matches(['.', ':', ' ']);
    if first.chars().count() <= TITLE_CHARS_MAX {
        return text_of(first);
    }
    let cut: String = first.chars().take(TITLE_CHARS_MAX - 1).collect();
    text_of(&format!("{}…", cut.rsplit_once(' ').map_or(&*cut, |(whole, _)| whole)))
}

#[cfg(test)]
mod tests {
    use klaxon_schemas::severity::EventType;

    use super::*;

    const RECORDS: &str = include_str!("../../../tests/starlingx/events.yaml");

    fn imported() -> Imported {
        import(RECORDS).expect("is read")
    }

    fn found(id: &str) -> TypeEntry {
        let catalogue = Catalogue::built_in().with(vec![imported().file]).expect("goes with what is built in");
        catalogue.get(id).unwrap_or_else(|| panic!("{id} is there")).clone()
    }

    #[test]
    fn ids_keep_their_zeros_and_types_that_are_known_their_names() {
        let Imported { alarms, logs, remarks, .. } = imported();
        assert_eq!((alarms, logs), (6, 2));
        assert_eq!(found("900.110").id.as_str(), "900.110");
        let full = found("100.104");
        assert_eq!((full.id.as_str(), full.starlingx_id.as_deref()), ("disk.full", Some("100.104")));
        assert_eq!(full.text.as_str(), "Too little room on <file-system>; threshold x%, actual y%.");
        assert!(full.thresholds.is_some(), "what is known here stays");
        assert_eq!(
            remarks,
            [
                "line 73: 900.300: Alarm_Type: a type has one; the first is taken of communication, equipment",
                "line 98: 900.401: Colour is left out: nothing is known of it",
            ]
        );
    }

    #[test]
    fn what_is_said_by_severity_is_kept_so() {
        let entry = found("900.110");
        assert_eq!(entry.severities, [Severity::Minor, Severity::Major, Severity::Critical]);
        assert_eq!(entry.title.as_str(), "No tunnel to <peer> is left");
        assert_eq!(entry.text_at(Severity::Minor).as_str(), "A tunnel to <peer> is gone.");
        assert_eq!(entry.repair_action_at(Severity::Critical).as_str(), "Look at the line.");
        let affected =
            [Severity::Minor, Severity::Major, Severity::Critical].map(|severity| entry.service_affecting_at(severity));
        assert_eq!(affected, [Some(false), Some(true), Some(true)]);
        assert_eq!((entry.management_affecting, entry.degrade_affecting), (Some(Affecting::Major), Some(Affecting::None)));
        let says = entry.starlingx.expect("there is more");
        assert_eq!((says.inhibit_alarms, says.suppression, says.context.as_deref()), (None, Some(true), Some("openstack")));
    }

    #[test]
    fn lists_are_put_together() {
        let entry = found("900.300");
        assert_eq!(entry.resources.iter().map(Text::as_str).collect::<Vec<_>>(), ["host=<name>.port=<port>", "host=<name>"]);
        assert_eq!((entry.event_type, entry.service_affecting), (EventType::Communications, Some(true)));
        assert_eq!(entry.text.as_str(), "Link of <port> is down. | Board of <port> is gone.");
        let log = found("900.401");
        assert!(log.is_log() && log.repair_action.is_empty() && log.management_affecting.is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let wrong = |from: &str, to: &str| {
            assert!(RECORDS.contains(from), "{from}");
            import(&RECORDS.replacen(from, to, 1)).err().unwrap_or_else(|| panic!("{to} is wrong"))
        };
        assert_eq!(wrong("900.110:", "900.11:"), "line 29: 900.11: is no id such as 100.110");
        assert_eq!(wrong("Type: Alarm", "Type: Alert"), "line 9: 100.104: Type: [\"Alert\"] is neither Alarm nor Log");
        assert_eq!(wrong("Severity: major", "Severity: bad"), "line 9: 100.104: Severity: \"bad\" is none");
        assert_eq!(
            wrong("Management_Affecting_Severity: warning", "Management_Affecting_Severity: often"),
            "line 9: 100.104: Management_Affecting_Severity: \"often\" is no severity"
        );
        let twice = wrong("900.110:", "100.104:");
        assert!(twice.contains("duplicate mapping key: 100.104"), "{twice}");
        let missing = wrong("    Description:", "    Descr:");
        assert!(missing.starts_with("line ") && missing.contains("Description"), "{missing}");
    }
}
