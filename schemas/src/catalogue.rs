//! The catalogue: the inventory of alarm types (RFC 8632 alarm-inventory).
//!
//! It is written as TOML, one `[[alarm_type]]` a type; `schemas/catalogue/klaxon.toml` is the one that comes with the
//! program. Events of types that it does not know are accepted, and marked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::event::{Details, Lease};
use crate::names::{AlarmType, ProbableCause, Text};
use crate::severity::{EventType, Severity};

/// The most types a catalogue may have.
pub const TYPES_MAX: usize = 10_000;

const BUILT_IN: &str = include_str!("../catalogue/klaxon.toml");

/// What is known of one alarm type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypeEntry {
    /// The type's id, e.g. `disk.full`.
    pub id: AlarmType,
    /// A few words for a list.
    pub title: Text,
    /// X.733 8.1.1.
    pub event_type: EventType,
    /// X.733 8.1.2.2.
    pub probable_cause: ProbableCause,
    /// The severities its alarms can have.
    pub severities: Vec<Severity>,
    /// RFC 8632 will-clear: whether its reporter also tells the end. If not, and without a lifetime, reports are log events.
    #[serde(default = "yes")]
    pub will_clear: bool,
    /// Seconds after which an alarm of this type clears by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<Lease>,
    /// What it means.
    pub text: Text,
    /// X.733 8.1.2.12: what to do.
    pub repair_action: Text,
    /// Where more is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<Text>,
    /// When it is raised, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Text>,
    /// The id under which StarlingX knows it, e.g. `100.104`. Events that carry it are of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starlingx_id: Option<AlarmType>,
    /// X.733 8.1.2.5 as far as the type says it: whether service is affected, unless a report says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_affecting: Option<bool>,
    /// From which severity on its alarms hinder the system's management, such as upgrades. StarlingX takes an absent one for `warning`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_affecting: Option<Affecting>,
    /// From which severity on its alarms degrade their host. StarlingX takes an absent one for `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degrade_affecting: Option<Affecting>,
    /// The forms of what it is about, in words, e.g. `host=<hostname>.port=<port-name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Text>,
    /// What is otherwise where an alarm has a certain severity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_severity: BTreeMap<Severity, Variant>,
    /// What StarlingX's catalogue says beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starlingx: Option<StarlingxSays>,
}

/// From which severity on alarms of a type have an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Affecting {
    /// With no severity.
    None,
    /// With all; an indeterminate one counts as a warning.
    Warning,
    /// From minor on.
    Minor,
    /// From major on.
    Major,
    /// With the highest only.
    Critical,
}

impl Affecting {
    /// Whether an alarm of this severity has it.
    pub fn includes(self, severity: Severity) -> bool {
        let least = match self {
            Self::None => return false,
            Self::Warning => Severity::Warning,
            Self::Minor => Severity::Minor,
            Self::Major => Severity::Major,
            Self::Critical => Severity::Critical,
        };
        severity.max(Severity::Warning) >= least
    }
}

/// What a type says of alarms of one severity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Variant {
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// X.733 8.1.2.12: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_action: Option<Text>,
    /// Whether service is affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_affecting: Option<bool>,
    /// What StarlingX's maintenance does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_action: Option<Text>,
}

/// What StarlingX's catalogue says of a type and nothing here follows from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct StarlingxSays {
    /// What its maintenance does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_action: Option<Text>,
    /// Whether alarms of this type mask those under what they are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inhibit_alarms: Option<bool>,
    /// Whether they may be masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppression: Option<bool>,
    /// To which part it belongs: `starlingx` or `openstack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Text>,
}

impl TypeEntry {
    /// What it means with this severity.
    pub fn text_at(&self, severity: Severity) -> &Text {
        self.by_severity.get(&severity).and_then(|variant| variant.text.as_ref()).unwrap_or(&self.text)
    }

    /// What to do with this severity.
    pub fn repair_action_at(&self, severity: Severity) -> &Text {
        self.by_severity.get(&severity).and_then(|variant| variant.repair_action.as_ref()).unwrap_or(&self.repair_action)
    }

    /// Whether service is affected with this severity, if it says so.
    pub fn service_affecting_at(&self, severity: Severity) -> Option<bool> {
        self.by_severity.get(&severity).and_then(|variant| variant.service_affecting).or(self.service_affecting)
    }

    /// Whether its reports are log events: nobody tells the end, and it does not come by itself.
    pub fn is_log(&self) -> bool {
        !self.will_clear && self.lifetime_s.is_none()
    }
}

/// What a report says, and where it is silent, what the catalogue says of its type.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What the report says.
    pub details: &'a Details,
    /// What the catalogue says.
    pub entry: Option<&'a TypeEntry>,
    /// The severity, if there is one.
    pub severity: Option<Severity>,
}

impl<'a> Known<'a> {
    /// X.733 8.1.1.
    pub fn event_type(&self) -> Option<EventType> {
        self.details.event_type.or_else(|| Some(self.entry?.event_type))
    }

    /// X.733 8.1.2.2.
    pub fn probable_cause(&self) -> Option<&'a ProbableCause> {
        self.details.probable_cause.as_ref().or_else(|| Some(&self.entry?.probable_cause))
    }

    /// X.733 8.1.2.12: what to do.
    pub fn repair_action(&self) -> Option<&'a Text> {
        let of_type =
            || self.entry.map(|entry| self.severity.map_or(&entry.repair_action, |severity| entry.repair_action_at(severity)));
        self.details.repair_action.as_ref().or_else(of_type)
    }

    /// Whether service is affected.
    pub fn service_affecting(&self) -> Option<bool> {
        let of_type = || {
            self.entry.and_then(|entry| {
                self.severity.map_or(entry.service_affecting, |severity| entry.service_affecting_at(severity))
            })
        };
        self.details.service_affecting.or_else(of_type)
    }
}

fn yes() -> bool {
    true
}

/// All types, and by which other ids they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    types: BTreeMap<AlarmType, TypeEntry>,
    aliases: HashMap<AlarmType, AlarmType>,
    digest: Digest,
}

/// The form in which a catalogue is written.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Catalogue)]
pub struct CatalogueFile {
    /// The types.
    #[serde(default)]
    pub alarm_type: Vec<TypeEntry>,
}

/// Why a catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It is not TOML of the right form; says line and field.
    #[error("the catalogue cannot be read")]
    Form(#[from] toml::de::Error),
    /// It has a key that nobody reads.
    #[error("the catalogue has {0}, which is no key")]
    Unknown(String),
    /// The same id, or alias, stands for two types.
    #[error("the catalogue has {0} twice")]
    Twice(AlarmType),
    /// A type has no severity.
    #[error("the catalogue gives {0} no severity")]
    NoSeverity(AlarmType),
    /// More than [`TYPES_MAX`].
    #[error("the catalogue has {0} types, at most {TYPES_MAX} are allowed")]
    TooMany(usize),
}

impl CatalogueError {
    /// Where in the text it is, if it is at one place.
    pub fn span(&self) -> Option<std::ops::Range<usize>> {
        if let Self::Form(error) = self { error.span() } else { None }
    }

    /// What is wrong, in one line.
    pub fn reason(&self) -> String {
        if let Self::Form(error) = self { error.message().trim_end().replace('\n', " ") } else { self.to_string() }
    }
}

impl Catalogue {
    /// The one that comes with the program.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("a test reads it")
    }

    /// One without any type.
    pub fn empty() -> Self {
        Self { types: BTreeMap::new(), aliases: HashMap::new(), digest: Digest::of(b"[]") }
    }

    /// Reads TOML.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        Self::try_from(CatalogueFile::parse(text)?)
    }

    /// This one with what `files` say. A type of theirs stands in place of the one of its id, and has ids that others were known by.
    pub fn with(&self, files: Vec<CatalogueFile>) -> Result<Self, CatalogueError> {
        let theirs: Vec<TypeEntry> = files.into_iter().flat_map(|file| file.alarm_type).collect();
        let ids: HashSet<&AlarmType> =
            theirs.iter().flat_map(|entry| std::iter::once(&entry.id).chain(&entry.starlingx_id)).collect();
        let replaced: HashSet<&AlarmType> = theirs.iter().map(|entry| &entry.id).collect();
        let kept = self.types.values().filter(|entry| !replaced.contains(&entry.id)).cloned().map(|mut entry| {
            entry.starlingx_id = entry.starlingx_id.filter(|alias| !ids.contains(alias));
            entry
        });
        let alarm_type = kept.collect::<Vec<_>>().into_iter().chain(theirs.iter().cloned()).collect();
        Self::try_from(CatalogueFile { alarm_type })
    }

    /// The entry of `alarm_type`, also by an alias.
    pub fn get(&self, alarm_type: &str) -> Option<&TypeEntry> {
        match self.types.get(alarm_type) {
            Some(entry) => Some(entry),
            None => self.types.get(self.aliases.get(alarm_type)?),
        }
    }

    /// All entries, by id.
    pub fn iter(&self) -> impl Iterator<Item = &TypeEntry> {
        self.types.values()
    }

    /// Names this content.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The form in which it is written.
    pub fn to_file(&self) -> CatalogueFile {
        CatalogueFile { alarm_type: self.types.values().cloned().collect() }
    }
}

impl CatalogueFile {
    /// Reads TOML, as a person writes it.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let mut unknown = None;
        let note = |path: serde_ignored::Path<'_>| {
            unknown.get_or_insert(path.to_string());
        };
        let file: Result<Self, _> = serde_ignored::deserialize(toml::Deserializer::parse(text)?, note);
        // What is stored may have keys of a newer program; what a person writes may not.
        match unknown {
            Some(key) => Err(CatalogueError::Unknown(key)),
            None => Ok(file?),
        }
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("words and lists serialize")
    }
}

impl TryFrom<CatalogueFile> for Catalogue {
    type Error = CatalogueError;

    fn try_from(file: CatalogueFile) -> Result<Self, CatalogueError> {
        if file.alarm_type.len() > TYPES_MAX {
            return Err(CatalogueError::TooMany(file.alarm_type.len()));
        }
        let mut types = BTreeMap::new();
        let mut aliases = HashMap::new();
        for entry in file.alarm_type {
            if entry.severities.is_empty() {
                return Err(CatalogueError::NoSeverity(entry.id));
            }
            if let Some(alias) = &entry.starlingx_id
                && aliases.insert(alias.clone(), entry.id.clone()).is_some()
            {
                return Err(CatalogueError::Twice(alias.clone()));
            }
            if let Some(twice) = types.insert(entry.id.clone(), entry) {
                return Err(CatalogueError::Twice(twice.id));
            }
        }
        if let Some(twice) = aliases.keys().find(|alias| types.contains_key(*alias)) {
            return Err(CatalogueError::Twice(twice.clone()));
        }
        let canonical = serde_json::to_vec(&types.values().collect::<Vec<_>>()).expect("names and words serialize");
        Ok(Self { types, aliases, digest: Digest::of(&canonical) })
    }
}

/// Names a content: the first 128 bits of its SHA-256, as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content)[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// A digest that was written before.
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_sound() {
        let catalogue = Catalogue::built_in();
        let full = catalogue.get("disk.full").expect("is in it");
        assert_eq!(catalogue.get("100.104"), Some(full));
        for entry in catalogue.iter() {
            assert!(!entry.title.is_empty() && !entry.text.is_empty() && !entry.repair_action.is_empty(), "{}", entry.id);
        }
        let again = Catalogue::try_from(catalogue.to_file()).expect("round-trips");
        assert_eq!(again, catalogue);
    }

    #[test]
    fn what_a_file_says_stands_before_what_comes_with_the_program() {
        let file = |text: &str| CatalogueFile::parse(text).expect("is right");
        let entry = |id: &str, more: &str| {
            format!(
                "[[alarm_type]]\nid = {id:?}\n{more}title = \"t\"\nevent_type = \"other\"\nprobable_cause = \"x\"\n\
                 severities = [\"major\"]\ntext = \"t\"\nrepair_action = \"r\"\n"
            )
        };
        let built_in = Catalogue::built_in();
        let with = |texts: &[String]| built_in.with(texts.iter().map(|text| file(text)).collect());
        assert_eq!(with(&[]).expect("changes nothing"), built_in);
        let own = with(&[entry("disk.full", "starlingx_id = \"100.104\"\n"), entry("900.901", "")]).expect("replaces and adds");
        assert_eq!(own.get("disk.full").map(|entry| entry.title.as_str()), Some("t"));
        assert_eq!(own.get("100.104").map(|entry| entry.id.as_str()), Some("disk.full"));
        assert_eq!(own.iter().count(), built_in.iter().count() + 1);
        let taken = with(&[entry("100.104", "")]).expect("the id is its own now");
        assert_eq!(taken.get("100.104").map(|entry| entry.title.as_str()), Some("t"));
        assert_eq!(taken.get("disk.full").and_then(|entry| entry.starlingx_id.clone()), None);
        let twice = with(&[entry("900.901", ""), entry("900.901", "")]).expect_err("which?");
        assert!(matches!(twice, CatalogueError::Twice(id) if id.as_str() == "900.901"));
    }

    #[test]
    fn a_type_can_say_another_thing_of_each_severity() {
        let text = "[[alarm_type]]\nid = \"900.110\"\ntitle = \"t\"\nevent_type = \"other\"\nprobable_cause = \"x\"\n\
             severities = [\"major\", \"critical\"]\ntext = \"t\"\nrepair_action = \"r\"\nservice_affecting = false\n\
             management_affecting = \"major\"\ndegrade_affecting = \"none\"\nresources = [\"host=<name>\"]\n\
             [alarm_type.by_severity.critical]\nrepair_action = \"hurry\"\nservice_affecting = true\n\
             [alarm_type.starlingx]\nsuppression = true\n";
        let file = CatalogueFile::parse(text).expect("is right");
        assert_eq!(CatalogueFile::parse(&file.to_toml()).expect("is what was written").alarm_type, file.alarm_type);
        let entry = &file.alarm_type[0];
        let [major, critical] = [Severity::Major, Severity::Critical].map(|severity| {
            (entry.text_at(severity).as_str(), entry.repair_action_at(severity).as_str(), entry.service_affecting_at(severity))
        });
        assert_eq!((major, critical), (("t", "r", Some(false)), ("t", "hurry", Some(true))));
        let includes = |affecting: Affecting| Severity::ALL.map(|severity| affecting.includes(severity));
        assert_eq!(includes(Affecting::Major), Severity::ALL.map(|severity| severity >= Severity::Major));
        assert_eq!((includes(Affecting::None), includes(Affecting::Warning)), ([false; 5], [true; 5]));
    }

    #[test]
    fn a_wrong_catalogue_is_refused_and_says_why() {
        let entry = |id: &str, alias: &str| {
            format!(
                "[[alarm_type]]\nid = {id:?}\nstarlingx_id = {alias:?}\ntitle = \"t\"\nevent_type = \"other\"\nprobable_cause = \"x\"\n\
                 severities = [\"major\"]\ntext = \"t\"\nrepair_action = \"r\"\n"
            )
        };
        let error = |text: &str| Catalogue::parse(text).expect_err("is wrong");
        assert!(matches!(error(&(entry("a", "1") + &entry("a", "2"))), CatalogueError::Twice(id) if id.as_str() == "a"));
        assert!(matches!(error(&(entry("a", "1") + &entry("b", "1"))), CatalogueError::Twice(id) if id.as_str() == "1"));
        assert!(matches!(error(&(entry("a", "b") + &entry("b", "1"))), CatalogueError::Twice(_)));
        assert!(matches!(error(&entry("a", "1").replace("[\"major\"]", "[]")), CatalogueError::NoSeverity(_)));
        let form = error(&entry("a", "1").replace("title", "titel"));
        assert!(matches!(form, CatalogueError::Unknown(key) if key.contains("titel")));
    }
}
