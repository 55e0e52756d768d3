//! How StarlingX names what we have, for its tables and its notifications alike: a manager joins them by (AlarmId,
//! EntityInstanceId).
//!
//! The id is the one by which StarlingX knows the type; other types have one in the groups 901 to 999 made of their name, and the
//! name before their text. The entity is the resource below its region and system; a qualifier is its last part.

use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::severity::{EventType, Severity};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::values;

/// Whose word counts where StarlingX departs from its MIB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrsProfile {
    /// The MIB's.
    #[default]
    AsSpecified,
    /// The program's.
    AsStarlingx,
}

/// How StarlingX is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrs {
    /// As specified: the MIB's variables in its order, of the alarm's row, with times in octets. As StarlingX does it:
    /// wrsAlarmActiveUuid before the others, all of the instance 0, times as text, and messages without probable cause and never
    /// service-affecting.
    pub form: WrsProfile,
    /// The region, which every entity begins with.
    pub region: String,
    /// The system, which comes next; the alarm's site if absent.
    pub system: Option<String>,
}

impl Default for Wrs {
    fn default() -> Self {
        Self { form: WrsProfile::default(), region: "RegionOne".to_owned(), system: None }
    }
}

impl Wrs {
    /// The resource below its region and system, unless it says itself where it is.
    pub(crate) fn entity(&self, key: &AlarmKey) -> String {
        let resource = key.resource.as_str();
        let qualifier = if key.qualifier.is_empty() { String::new() } else { format!(".qualifier={}", &*key.qualifier) };
        if resource.starts_with("region=") {
            return format!("{resource}{qualifier}");
        }
        let system = if resource.starts_with("system=") {
            String::new()
        } else {
            format!("system={}.", self.system.as_deref().unwrap_or(&key.site))
        };
        format!("region={}.{system}{resource}{qualifier}", self.region)
    }
}

/// The id by which StarlingX knows a type, and the text. A type that it does not know has an id of its own, and its name is put
/// before the text.
pub(crate) fn names(catalogue: Option<&Catalogue>, key: &AlarmKey, text: &str) -> (String, String) {
    let alias = catalogue.and_then(|catalogue| catalogue.get(&key.alarm_type)).and_then(|entry| entry.starlingx_id.as_deref());
    let known = alias.or(Some(&*key.alarm_type)).filter(|id| is_id(id));
    match known {
        Some(id) => (id.to_owned(), text.to_owned()),
        None => (own_id(&key.alarm_type), format!("{}: {text}", &*key.alarm_type)),
    }
}

/// `GGG.EEE`
fn is_id(text: &str) -> bool {
    let is_three = |part: &str| part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(group, number)| is_three(group) && is_three(number))
}

/// An id in the groups 901 to 999, the same everywhere and always.
fn own_id(alarm_type: &str) -> String {
    let sum = Sha256::digest(alarm_type.as_bytes());
    let number = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]) % 99_000;
    format!("{:03}.{:03}", 901 + number / 1000, number % 1000)
}

/// WrsAlarmSeverity. It has no indeterminate: something is wrong, so it is a warning.
pub(crate) fn severity(severity: Severity) -> i32 {
    match severity {
        Severity::Critical => 4,
        Severity::Major => 3,
        Severity::Minor => 2,
        Severity::Warning | Severity::Indeterminate => 1,
    }
}

/// WrsAlarmEventType: that of IANA, which begins with 1, begins with 0 here.
pub(crate) fn event_type(event_type: Option<EventType>) -> i32 {
    (values::event_type(event_type) - 1).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_the_id_that_starlingx_gives_it_or_one_of_its_own() {
        assert!(is_id("100.104") && !is_id("disk.full") && !is_id("100.1040") && !is_id("100104"));
        let own = own_id("disk.inodes");
        assert!(is_id(&own) && own.starts_with('9') && own != own_id("disk.full"), "{own}");
        // 900 is for what Klaxon says of its own delivery.
        assert!(!own.starts_with("900"));
    }
}
