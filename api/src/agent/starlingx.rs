//! How StarlingX names what we have, for its tables and its notifications alike: a manager joins them by (AlarmId,
//! EntityInstanceId).
//!
//! The id is the one by which StarlingX knows the type; other types have one in the groups 901 to 999 made of their name, and the
//! name before their text. The entity is the resource below its region and system; a qualifier is its last part.

use klaxon_schemas::catalogue::Catalogue;
use klaxon_schemas::event::AlarmKey;
use klaxon_schemas::starlingx::{alarm_id, entity_instance_id, is_alarm_id};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

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
        let entity = entity_instance_id(key);
        if entity.starts_with("region=") {
            return entity.into_owned();
        }
        let system = if entity.starts_with("system=") {
            String::new()
        } else {
            format!("system={}.", self.system.as_deref().unwrap_or(&key.site))
        };
        format!("region={}.{system}{entity}", self.region)
    }
}

/// The id by which StarlingX knows a type, and the text. A type that it does not know has an id of its own, and its name is put
/// before the text.
pub(crate) fn names(catalogue: Option<&Catalogue>, key: &AlarmKey, text: &str) -> (String, String) {
    let id = alarm_id(catalogue, &key.alarm_type).as_str();
    if is_alarm_id(id) {
        (id.to_owned(), text.to_owned())
    } else {
        (own_id(&key.alarm_type), format!("{}: {text}", &*key.alarm_type))
    }
}

/// An id in the groups 901 to 999, the same everywhere and always.
fn own_id(alarm_type: &str) -> String {
    let sum = Sha256::digest(alarm_type.as_bytes());
    let number = u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]) % 99_000;
    format!("{:03}.{:03}", 901 + number / 1000, number % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_the_id_that_starlingx_gives_it_or_one_of_its_own() {
        let own = own_id("disk.inodes");
        assert!(is_alarm_id(&own) && own.starts_with('9') && own != own_id("disk.full"), "{own}");
        // 900 is for what Klaxon says of its own delivery.
        assert!(!own.starts_with("900"));
    }
}
