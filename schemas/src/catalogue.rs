//! The catalogue: the inventory of alarm types (RFC 8632 alarm-inventory).
//!
//! It is written as TOML, one `[[alarm_type]]` a type; `schemas/catalogue/klaxon.toml` is the one that comes with the
//! program. Events of types that it does not know are accepted, and marked.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::event::Lease;
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
        let mut unknown = None;
        let note = |path: serde_ignored::Path<'_>| {
            unknown.get_or_insert(path.to_string());
        };
        let file: Result<CatalogueFile, _> = serde_ignored::deserialize(toml::Deserializer::parse(text)?, note);
        // What is stored may have keys of a newer program; what a person writes may not.
        match unknown {
            Some(key) => Err(CatalogueError::Unknown(key)),
            None => Self::try_from(file?),
        }
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
