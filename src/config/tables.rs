//! `[snmp.tables]`: what SNMP shows of the alarms.

use klaxon_api::agent::oids::Root;
use klaxon_api::agent::{self, HISTORY_ROWS_MAX, TablesConfig, WRS_ALARM_MIB, WrsProfile};
use serde::{Deserialize, Serialize};

use super::collect::Mistake;

/// What SNMP shows of the alarms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TablesSection {
    /// How many rows the tables of what was have at most.
    pub history_rows: usize,
    /// Whether the alarm MIBs of RFC 3877 are there.
    pub rfc3877: bool,
    /// Whether StarlingX's is, and whose word counts.
    pub wrs: Wrs,
    /// The region that its entities begin with.
    pub wrs_region: String,
    /// The system that comes next; the alarm's site, if empty.
    pub wrs_system: String,
}

/// Whether WRS-ALARM-MIB is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrs {
    /// It is not.
    #[default]
    Off,
    /// As its text says.
    AsSpecified,
    /// As StarlingX does it.
    AsStarlingx,
}

impl Default for TablesSection {
    fn default() -> Self {
        let config = TablesConfig::default();
        Self {
            history_rows: config.history_rows,
            rfc3877: config.rfc3877,
            wrs: Wrs::Off,
            wrs_region: agent::Wrs::default().region,
            wrs_system: String::new(),
        }
    }
}

impl TablesSection {
    /// As the tables take it.
    pub(super) fn build(&self, root: &Root) -> TablesConfig {
        let form = match self.wrs {
            Wrs::Off => None,
            Wrs::AsSpecified => Some(WrsProfile::AsSpecified),
            Wrs::AsStarlingx => Some(WrsProfile::AsStarlingx),
        };
        let system = (!self.wrs_system.is_empty()).then(|| self.wrs_system.clone());
        let wrs = form.map(|form| agent::Wrs { form, region: self.wrs_region.clone(), system });
        TablesConfig { root: root.clone(), history_rows: self.history_rows, rfc3877: self.rfc3877, wrs }
    }

    /// The setting that is wrong, and why.
    pub(super) fn check(&self, root: &Root) -> Result<(), Mistake> {
        if !(1..=HISTORY_ROWS_MAX).contains(&self.history_rows) {
            return Err(("snmp.tables.history_rows".to_owned(), format!("must be between 1 and {HISTORY_ROWS_MAX}")));
        }
        // RFC 3877's stand under 1.3.6.1.2.1, where no root can.
        let is_in = |one: &[u32], other: &[u32]| one.starts_with(other);
        if self.wrs != Wrs::Off && (is_in(root.arcs(), &WRS_ALARM_MIB) || is_in(&WRS_ALARM_MIB, root.arcs())) {
            let place = WRS_ALARM_MIB.map(|arc| arc.to_string()).join(".");
            let reason = format!("overlaps with {place}, where snmp.tables.wrs has the tables of StarlingX");
            return Err(("snmp.root_oid".to_owned(), reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("k.toml")).expect_err("is wrong").to_string()
    }

    #[test]
    fn the_tables_are_where_and_what_is_asked_for() {
        let config = Config::default();
        assert_eq!(config.tables(), TablesConfig::default());
        let text = "[snmp]\nroot_oid = \"1.3.6.1.4.1.32473.5\"\n[snmp.tables]\nhistory_rows = 7\nrfc3877 = false\nwrs = \"as-starlingx\"\n";
        let config = Config::parse(text, Path::new("k.toml")).expect("is right");
        let root = "1.3.6.1.4.1.32473.5".parse().expect("is one");
        let wrs = Some(agent::Wrs { form: WrsProfile::AsStarlingx, ..agent::Wrs::default() });
        assert_eq!(config.tables(), TablesConfig { root, history_rows: 7, rfc3877: false, wrs });
    }

    #[test]
    fn what_cannot_be_says_why() {
        let few = error("[snmp.tables]\nhistory_rows = 0\n");
        assert!(few.contains("snmp.tables.history_rows: must be between 1 and 100000"), "{few}");
        let place = error("[snmp]\nroot_oid = \"1.3.6.1.2.1.118\"\n");
        assert!(place.contains("does not stand under 1.3.6.1.4.1"), "{place}");
        for root in ["1.3.6.1.4.1.731.1", "1.3.6.1.4.1.731.1.1", "1.3.6.1.4.1.731.1.1.1.1.7"] {
            let text = format!("[snmp]\nroot_oid = \"{root}\"\n[snmp.tables]\nwrs = \"as-specified\"\n");
            let both = error(&text);
            assert!(both.starts_with("k.toml:2: snmp.root_oid: overlaps with 1.3.6.1.4.1.731.1.1, where "), "{both}");
            Config::parse(&text.replace("as-specified", "off"), Path::new("k.toml")).expect("stands alone");
            Config::parse(&text.replace(".731.", ".732."), Path::new("k.toml")).expect("stands elsewhere");
        }
        let word = error("[snmp.tables]\nwrs = \"on\"\n");
        assert!(word.starts_with("k.toml:2: snmp.tables.wrs: "), "{word}");
    }
}
